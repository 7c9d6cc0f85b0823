"""How a client's state becomes the one that everything later builds on.

A state is wanted for a checkpoint, a milestone, a joiner, or because updates have piled
up. One client of the open step is asked for it. What it sends is accepted if it hashes
to the digest on which at least two clients agree; else the server's own replay decides.
Where nobody delivers, the next client is asked, or the replay gives the state.

It owns the `Ledger` and the `Archive`. What follows for clients is said in an
`Outcome`, which the coordinator carries out.
"""

from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from utilities.errors import ProtocolError
from utilities.events import Note
from utilities.evolution import Setting, TrainState
from utilities.history import Entry
from utilities.ledger import (
    Archive,
    Check,
    Ledger,
    Replay,
    Save,
    Wanted,
)
from utilities.peers import Peer
from utilities.protocol import State

Order: TypeAlias = Note | Replay | Save


def majority(votes: Mapping[bytes, Sized]) -> bytes | None:
    """Return the digest that more than half of all voters report, if there is one."""
    voters = sum(map(len, votes.values()))
    return next((d for d, who in votes.items() if 2 * len(who) > voters), None)


@dataclass
class Outcome:
    """What follows from a decision about states."""

    orders: list[Order] = field(default_factory=list)
    taken_out: tuple[Peer, ...] = ()  # who gets the true state before it goes on
    reason: str = ""
    welcome: bool = False  # those who wait for a state get one


class Acceptance:
    """Which state is true, who is asked for it, what is saved."""

    def __init__(
        self,
        setting: Setting,
        state: TrainState,
        now: float,
        saved: int | None = None,
        entries: Iterable[Entry] = (),
    ) -> None:
        """Begin with an accepted state.

        Args:
            setting: of the run.
            state: that everything later builds on.
            now: on the coordinator's clock.
            saved: step of the newest checkpoint; None: that of the state.
            entries: of the steps before it, for clients that missed a few of them only.
        """
        self.ledger = Ledger(setting, state)
        self.ledger.remember(entries)
        newest = state.step if saved is None else saved
        self.archive = Archive(setting.config, newest, now)
        self._fingerprint = setting.fingerprint
        self._wanted: Wanted | None = None

    def agreed(self, step: int, votes: Mapping[bytes, Sized]) -> bytes | None:
        """Return the digest of the true state, or None if only a replay can tell."""
        if self.ledger.state.step == step:
            return self.ledger.digest
        return majority(votes) or None  # empty: of a replica that changed its mind

    # Asking.

    def open(self, step: int, now: float, *, ending: bool, joiners: bool) -> None:
        """Find out whether the state of a step that opens is wanted.

        Args:
            step: that opens.
            now: on the coordinator's clock.
            ending: it is the last one of the session.
            joiners: somebody waits for a state.
        """
        self._wanted = None
        purpose = self.archive.due(step, now, ending=ending)
        if self.ledger.confirming and not (purpose.milestone or ending):
            return  # a newer state will be accepted anyhow
        if purpose or joiners or self.ledger.large:
            self._wanted = Wanted(purpose)

    def abandon(self) -> None:
        """Want no state of a step that is given up."""
        self._wanted = None

    def ask(self, step: int, peers: list[Peer]) -> Peer | None:
        """Return who of those that are given work is to send its state, if anybody."""
        if self._wanted is None or self._wanted.peer is not None or not peers:
            return None
        trusted = [peer for peer in peers if peer.waited] or peers
        peer = next((p for p in trusted if not p.asked), trusted[0])
        peer.ask_state(step)
        self._wanted.peer = peer
        return peer

    def measure(self, message: State) -> None:
        """Hold that a state has as many weights as the model, and a mean if it has.

        Raises:
            ProtocolError: it has more or fewer.
        """
        wanted = [len(array) for array in self.ledger.state.arrays]
        got = [len(array) for array in message.state.arrays]
        if got != wanted:
            raise ProtocolError(
                f"state: expected {wanted[0]} weights and a mean of {wanted[-1]}, got "
                f"{got[0]} and {got[-1]}"
            )

    def offer(self, peer: Peer, message: State) -> None:
        """Take the state of the step at hand, if it is the one that was asked for."""
        if self._wanted is not None and self._wanted.peer is peer:
            self._wanted.offered = message.state

    # Accepting.

    def settle(
        self, check: Check, digest: bytes, peers: Iterable[Peer], now: float
    ) -> Outcome:
        """Accept the state that was asked for, have it checked, or ask the next.

        Args:
            check: the step that closes, whose digest is agreed on, and by whom; its
                purpose is filled in here.
            digest: that was agreed on.
            peers: all that are here.
            now: on the coordinator's clock.
        """
        wanted, self._wanted = self._wanted, None
        if wanted is None:
            return Outcome()
        check, offered = replace(check, purpose=wanted.purpose), wanted.offered
        if self.ledger.state.step == check.step:
            return self._accept(self.ledger.state, digest, check, peers, now)
        if offered is None or offered.digest(self._fingerprint) != digest:
            return self._disappointed(wanted, check, peers)
        if len(check.peers) >= 2:
            return self._accept(offered, digest, check, peers, now)
        if wanted.purpose.milestone or not self.ledger.confirming:
            return Outcome([*self.ledger.check(check)])
        return Outcome()

    def _disappointed(
        self, wanted: Wanted, check: Check, peers: Iterable[Peer]
    ) -> Outcome:
        """Ask another client next time; joiners get the last accepted state.

        A replay gives the state where nobody delivers it, or where next time is too
        late: the next step is no milestone.
        """
        peer, here = wanted.peer, list(peers)
        assert peer is not None, "whoever opens a step is asked"
        outcome = Outcome(welcome=True)
        if wanted.offered is not None:
            outcome.taken_out = (peer,)
            outcome.reason = "the state it sent is not the one agreed on"
        elif peer in here:
            text = f"{peer.name} did not send its state; the next is asked"
            outcome.orders.append(Note(text))
        peer.asked = True
        nobody = all(p.asked for p in here if p.ready and p.waited)
        if nobody or wanted.purpose.milestone:
            outcome.orders += self.ledger.check(check)
        return outcome

    def _accept(
        self,
        state: TrainState,
        digest: bytes,
        check: Check,
        peers: Iterable[Peer],
        now: float,
    ) -> Outcome:
        """Make a state the one that everything later builds on."""
        self.ledger.accept(state, digest)
        for peer in peers:
            peer.asked = False
        return Outcome([*self.archive.save(state, digest, check, now)], welcome=True)

    def replayed(self, state: TrainState, peers: Iterable[Peer], now: float) -> Outcome:
        """Take the server's own state for the true one."""
        check, digest = self.ledger.replayed(), state.digest(self._fingerprint)
        if state.step > self.ledger.state.step:
            outcome = self._accept(state, digest, check, peers, now)
            if check.digest not in (None, digest):
                outcome.taken_out = check.peers
                outcome.reason = f"its digest is not the replay's at step {state.step}"
        else:  # overtaken by a newer one
            weights_only = replace(check.purpose, checkpoint=False)
            check = replace(check, purpose=weights_only)
            outcome = Outcome([*self.archive.save(state, digest, check, now)])
        outcome.orders += self.ledger.next_replay()
        return outcome

    # The end.

    def saved(self, step: int) -> bool:
        """Return whether the state of a step can be resumed from, or will be soon."""
        return self.archive.newest == step

    def conclude(
        self, step: int, now: float, seconds: float
    ) -> tuple[list[Order], bool]:
        """Save the last state; return what that takes, and whether all is done.

        Args:
            step: at hand.
            now: on the coordinator's clock.
            seconds: that the run has trained.
        """
        orders: list[Order] = []
        purpose = self.archive.due(step, now, ending=True)
        if purpose:
            check = Check(step, None, (), purpose, seconds)
            if self.ledger.state.step != step:
                return [*self.ledger.check(check)], False
            state, digest = self.ledger.state, self.ledger.digest
            orders += self.archive.save(state, digest, check, now)
        return orders, not (self.archive.writing or self.ledger.checking)

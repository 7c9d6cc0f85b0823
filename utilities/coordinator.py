"""What the server decides: who joins, what a step consists of, which state is true.

`Coordinator.handle(event, now)` takes one event and returns commands; it has no clock,
socket, file or thread of its own, so that a test can drive it with objects and a list.
The shell around it (`utilities.serving`) turns bytes into events and carries commands
out.

The server computes no updates in a step. It holds the last *accepted* state and every
`Update` since; whoever needs the present state gets both. A state is accepted when it
hashes to the digest that at least two results of the step carry; otherwise the server's
own replay of the updates decides, on a thread of its own (`Replay` -> `Replayed`).
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from utilities import events
from utilities.data import Corpus
from utilities.errors import ProtocolError
from utilities.events import (
    Drop,
    Finish,
    Joined,
    Left,
    Note,
    Received,
    Stop,
)
from utilities.evolution import (
    Setting,
    TrainState,
    mean_loss,
    segment_seed,
    shape,
)
from utilities.ledger import (
    Archive,
    Check,
    Ledger,
    Purpose,
    Replay,
    Replayed,
    Save,
    Saved,
    Wanted,
)
from utilities.outbox import Outbox
from utilities.peers import Peer, refuse, unique_name
from utilities.protocol import (
    Begin,
    End,
    Goodbye,
    Hello,
    Message,
    Result,
    State,
)
from utilities.steps import BLOCK_TIMES, BlockStep, BlockTimes, OpenStep, TimedStep


@dataclass(frozen=True)
class Closed:
    """A step has closed: its figures."""

    step: int
    seconds: float  # that the run had trained
    loss: float | None  # nats per character; None: no usable losses
    trials: int
    clients: int  # whose digest was the true one
    late: int  # clients and answers that came too late to count
    dropped: int  # segments with unusable losses
    digest: bytes


Event: TypeAlias = events.Event | Replayed | Saved
Command: TypeAlias = events.Command | Replay | Save | Closed


@dataclass(frozen=True)
class Limits:
    """When a session ends by itself; None: never."""

    last_step: int | None = None
    end: float | None = None  # on the clock of `now`


class Coordinator:
    """All decisions of the server."""

    def __init__(
        self,
        setting: Setting,
        corpus: Corpus,
        run_seed: int,
        state: TrainState,
        now: float,
        seconds: float = 0.0,
        limits: Limits | None = None,
    ) -> None:
        """Start from an accepted state.

        Args:
            setting: of the run.
            corpus: gives the token batches.
            run_seed: that all segments' seeds derive from; never leaves the server.
            state: the initial one or a checkpoint's.
            now: on the clock that every event is stamped with.
            seconds: that the run has trained before.
            limits: when to stop.
        """
        self.setting = setting
        self._config = setting.config
        self.step = state.step
        self.finished = False
        self._run_seed = run_seed
        self._ledger = Ledger(setting, state)
        self._archive = Archive(setting.config, state.step, now)
        self._peers: dict[int, Peer] = {}
        self._open: OpenStep | None = None
        self._slots = 0  # of the step that is at hand
        self._block_times: BlockTimes = deque(maxlen=BLOCK_TIMES)
        self._wanted: Wanted | None = None
        self._stopping = False
        self._closed_all = False  # no step opens any more
        self._limits = limits or Limits()
        self._began = now - seconds
        self._outbox = Outbox(setting, corpus)
        self._commands: list[Command] = []

    # The one way in.

    def handle(self, event: Event, now: float) -> list[Command]:
        """Return what is to be done about one event.

        Raises:
            ProtocolError: the client of a `Received` broke the rules; it has to be
                dropped, and `Left` reported.
        """
        match event:
            case Joined():
                self._join(event.client, event.hello)
            case Received():
                self._receive(event.client, event.message, now)
            case Left():
                self._leave(event.client, event.reason)
            case Replayed():
                self._replayed(event.state, now)
            case Saved():
                self._archive.saved()
            case Stop():
                self._stopping = True
        self._go_on(now)  # a Tick changes nothing but the time
        return self._flush()

    def wakeup(self, now: float) -> float | None:
        """Return the moment at which a Tick is due, if any."""
        moments = [self._open.wakeup(now)] if self._open is not None else []
        if not self._stopping:
            moments.append(self._limits.end)
        return min((m for m in moments if m is not None), default=None)

    @property
    def clients(self) -> list[Peer]:
        """Return who is here."""
        return list(self._peers.values())

    # Clients come and go.

    def _join(self, client: int, hello: Hello) -> None:
        name = unique_name(hello.name, {peer.name for peer in self.clients})
        refusal = refuse(hello)
        if refusal is not None:
            self._note(f"{name} refused: {refusal}", warning=True)
            self._drop(client, End.REFUSED, refusal)
            return
        if self.finished:
            self._drop(client, End.FINISHED, "the run has ended")
            return
        self._peers[client] = Peer(client, name)
        again = "" if hello.last_step is None else f" again (was at {hello.last_step})"
        self._note(f"{name} joined{again}; {len(self._peers)} here")

    def _leave(self, client: int, reason: str) -> None:
        peer = self._peers.pop(client, None)
        if peer is None:
            return
        self._note(f"{peer.name} left: {reason}; {len(self._peers)} here")
        peer.ready = False
        self._outbox.forget(peer)
        if self._open is not None:
            self._open.lose(peer)

    def _ready(self) -> list[Peer]:
        return [peer for peer in self.clients if peer.ready]

    def _waiting(self) -> list[Peer]:
        """Return who waits for a state and can be given one.

        A replica that still owes an answer of this step computes it from its old state;
        only once that has come, every later answer is known to be from the new one.
        """
        return [p for p in self.clients if not (p.ready or p.owes(self.step))]

    def _welcome_waiting(self) -> None:
        """Send the accepted state and every update since."""
        for peer in self._waiting():
            peer.since = self.step
            self._outbox.welcome(peer, self._ledger)

    def _take_out(self, peers: Iterable[Peer], reason: str) -> None:
        """Let replicas take part no more until they have got the true state."""
        for peer in peers:
            if peer.ready:
                self._note(
                    f"{peer.name}: {reason}; its state is replaced", warning=True
                )
                peer.ready, peer.reason = False, reason
            if self._open is not None:
                self._open.discard(peer)

    # Messages.

    def _receive(self, client: int, message: Message, now: float) -> None:
        peer = self._peers.get(client)
        if peer is None:
            return
        match message:
            case Result():
                self._take_result(peer, message, now)
            case State():
                self._take_state(peer, message)
            case Goodbye():
                self._leave(client, message.reason or message.end)
                self._drop(client, End.DROPPED, "goodbye")  # should it not close
            case _:
                raise ProtocolError(f"{type(message).__name__}: not a client's message")

    def _take_result(self, peer: Peer, result: Result, now: float) -> None:
        peer.answer(result, now)
        step, digest = result.step, result.digest
        if not peer.ready or step < peer.since:
            return  # from before its state was replaced
        if self._open is not None and step == self.step:
            self._open.take(peer, result, now)
        elif self._ledger.contradicts(step, digest):
            self._take_out([peer], f"its digest differed at step {step}")

    def _take_state(self, peer: Peer, message: State) -> None:
        size = self.setting.layout.size
        if len(message.weights) != size:
            raise ProtocolError(
                f"state: expected {size} weights, got {len(message.weights)}"
            )
        peer.deliver_state(message.step)
        wanted = self._wanted
        if wanted is not None and wanted.peer is peer and message.step == self.step:
            arrays = (message.weights, message.first, message.second)
            wanted.offered = TrainState(message.step, message.count, *arrays)

    # Steps.

    def _go_on(self, now: float) -> None:
        """Close and open steps as far as what has come allows."""
        while not self.finished:
            self._stopping = self._stopping or self._over(now)
            if not self._ready():  # no step is open; it begins anew for whoever comes
                self._open = self._wanted = None
                self._welcome_waiting()
            step = self._open or self._begin(now)
            if step is None:
                return
            self._hand_out(step, now)
            if not step.complete(now):
                if step.stuck(now) and self._relieve():
                    continue
                return
            digest = self._agreed(step)
            if digest is None:
                check = Check(self.step, None, (), Purpose(), now - self._began)
                self._commands += self._ledger.check(check)
                return
            if not self._leave_out(step, digest):
                self._close(step, digest, now)

    def _over(self, now: float) -> bool:
        last, end = self._limits.last_step, self._limits.end
        return (last is not None and self.step >= last) or (
            end is not None and now >= end
        )

    def _begin(self, now: float) -> OpenStep | None:
        """Open the next step, if there is to be one and somebody to do it."""
        saved = self._archive.newest == self.step or self._closed_all
        if self._stopping and (saved or not self._ready()):
            self._end(now)
            return None
        if not self._ready():
            return None
        if self._stopping:
            self._open = TimedStep(self.setting, self.step, self._new_seed, last=True)
        elif self._config.trials_per_step is not None:
            times = self._block_times
            self._open = BlockStep(self.setting, self.step, self._seed, times)
        else:
            self._open = TimedStep(self.setting, self.step, self._new_seed)
        self._wanted = self._want(now)
        return self._open

    def _seed(self, slot: int) -> int:
        return segment_seed(self._run_seed, self.step, slot)

    def _new_seed(self) -> int:
        self._slots += 1
        return self._seed(self._slots - 1)

    def _relieve(self) -> bool:
        """Bring on others where those of a step are silent; end it when stopping."""
        if self._stopping:
            self._open = self._wanted = None
            self._closed_all = True
            return True
        waiting = self._waiting()
        self._welcome_waiting()
        return bool(waiting)

    def _hand_out(self, step: OpenStep, now: float) -> None:
        seconds, batch = self._config.time_per_step, self._outbox.batch_of(self.step)
        work = step.assign(self._ready(), now)
        asked = self._ask([peer for peer, _ in work])
        for peer, segments in work:
            begin = Begin(self.step, seconds, batch, peer is asked, segments)
            asked = None if peer is asked else asked  # with its first request only
            self._outbox.begin(peer, begin)

    def _agreed(self, step: OpenStep) -> bytes | None:
        """Return the digest of the true state, or None if only a replay can tell."""
        if self._ledger.state.step == self.step:
            return self._ledger.digest
        votes = step.votes()
        voters = sum(map(len, votes.values()))
        for digest, peers in votes.items():
            if 2 * len(peers) > voters:
                return digest
        return None

    def _leave_out(self, step: OpenStep, digest: bytes) -> bool:
        """Leave out replicas that differ; return whether there were any."""
        votes = step.votes()
        votes.pop(digest, None)
        differing = [peer for peers in votes.values() for peer in peers]
        self._take_out(differing, f"its digest differs at step {self.step}")
        if not self._ready() or self._ledger.state.step == self.step:
            self._welcome_waiting()
        return bool(differing)

    def _close(self, step: OpenStep, digest: bytes, now: float) -> None:
        """Shape the rewards, send the update, make room for the next step."""
        self._open = None
        self._mark_late(step.missing())
        agreeing = step.votes().get(digest, [])
        self._settle(digest, agreeing, now)
        if step.last:
            self._closed_all = True
            return
        scored, dropped = step.scored()
        batch, seconds = self._outbox.batch_of(self.step), now - self._began
        update = shape(self.setting, self.step, batch, scored, seconds)
        loss = mean_loss(self.setting, [scores for _, scores in scored])
        counts = (update.trials, len(agreeing), step.late(), dropped)
        self._commands.append(Closed(self.step, seconds, loss, *counts, digest))
        self._ledger.append(update, digest)
        for peer in self._ready():
            self._outbox.update(peer, update)
        self.step += 1
        self._slots = 0

    def _mark_late(self, peers: Iterable[Peer]) -> None:
        for peer in peers:
            if peer.waited:
                peer.waited = False
                self._note(f"{peer.name} is late at step {self.step}; not waited for")

    # The true state.

    def _want(self, now: float) -> Wanted | None:
        """Return a wish for the state of the step that opens, if there is one."""
        purpose = self._archive.due(self.step, now, ending=self._stopping)
        if self._ledger.confirming and not (purpose.milestone or self._stopping):
            return None  # a newer state will be accepted anyhow
        if purpose or self._waiting() or self._ledger.large:
            return Wanted(purpose)
        return None

    def _ask(self, peers: list[Peer]) -> Peer | None:
        """Return who of those that are given work is to send its state, if anybody."""
        if self._wanted is None or self._wanted.peer is not None or not peers:
            return None
        trusted = [peer for peer in peers if peer.waited] or peers
        peer = next((p for p in trusted if not p.asked), trusted[0])
        peer.ask_state(self.step)
        self._wanted.peer = peer
        return peer

    def _settle(self, digest: bytes, agreeing: list[Peer], now: float) -> None:
        """Accept the state that was asked for, have it checked, or ask the next."""
        wanted, self._wanted = self._wanted, None
        if wanted is None:
            return
        seconds = now - self._began
        check = Check(self.step, digest, tuple(agreeing), wanted.purpose, seconds)
        offered = wanted.offered
        if self._ledger.state.step == self.step:
            self._accept(self._ledger.state, digest, check, now)
        elif offered is None or offered.digest(self.setting.fingerprint) != digest:
            self._disappointed(wanted, check)
        elif len(agreeing) >= 2:
            self._accept(offered, digest, check, now)
        elif wanted.purpose.milestone or not self._ledger.confirming:
            self._commands += self._ledger.check(check)

    def _disappointed(self, wanted: Wanted, check: Check) -> None:
        """Ask another client next time; joiners get the last accepted state.

        A replay gives the state where nobody delivers it, or where next time is too
        late: the next step is no milestone.
        """
        peer = wanted.peer
        assert peer is not None, "whoever opens a step is asked"
        if wanted.offered is not None:
            self._take_out([peer], "the state it sent is not the one agreed on")
        elif peer.id in self._peers:
            self._note(f"{peer.name} did not send its state; the next is asked")
        peer.asked = True
        nobody = all(other.asked for other in self._ready() if other.waited)
        if nobody or wanted.purpose.milestone:
            self._commands += self._ledger.check(check)
        self._welcome_waiting()

    def _accept(
        self, state: TrainState, digest: bytes, check: Check, now: float
    ) -> None:
        """Make a state the one that everything later builds on."""
        self._ledger.accept(state, digest)
        for peer in self.clients:
            peer.asked = False
        self._commands += self._archive.save(state, digest, check, now)
        self._welcome_waiting()

    def _replayed(self, state: TrainState, now: float) -> None:
        """Take the server's own state for the true one."""
        check, digest = self._ledger.replayed(), state.digest(self.setting.fingerprint)
        if state.step > self._ledger.state.step:
            if check.digest not in (None, digest):
                reason = f"its digest is not the replay's at step {state.step}"
                self._take_out(check.peers, reason)
            self._accept(state, digest, check, now)
        else:  # overtaken by a newer one
            weights_only = replace(check.purpose, checkpoint=False)
            check = replace(check, purpose=weights_only)
            self._commands += self._archive.save(state, digest, check, now)
        self._commands += self._ledger.next_replay()

    # The end.

    def _end(self, now: float) -> None:
        """End the run once its present state is saved."""
        purpose = self._archive.due(self.step, now, ending=True)
        if purpose:
            check = Check(self.step, None, (), purpose, now - self._began)
            if self._ledger.state.step != self.step:
                self._commands += self._ledger.check(check)
                return
            state, digest = self._ledger.state, self._ledger.digest
            self._commands += self._archive.save(state, digest, check, now)
        if self._archive.writing or self._ledger.checking:
            return
        self.finished = True
        for peer in self.clients:
            self._drop(peer.id, End.FINISHED, "the run has ended")
        self._peers.clear()
        self._commands.append(Finish())

    # Output.

    def _note(self, text: str, *, warning: bool = False) -> None:
        self._commands.append(Note(text, warning))

    def _drop(self, client: int, end: End, reason: str) -> None:
        self._commands.append(Drop(client, Goodbye(end.value, reason)))

    def _flush(self) -> list[Command]:
        """Return what one event caused; messages ahead of goodbyes."""
        commands = [*self._outbox.flush(), *self._commands]
        self._commands = []
        return commands

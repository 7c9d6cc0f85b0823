"""Clients that come back: what they have missed, or what the server has lost.

A client that was away for a few steps still holds its replica. Where the server knows
its digest at that step, the updates since are all it needs; they are sent as long as
they are fewer bytes than a state. Nobody has told the digest of the step at hand yet: a
client that has missed nothing goes on with the next step, if others take part in it.

A client that is ahead knows a step which the server has announced and does not find on
its disk any more: disks lie. Before such a server closes a step of its own, the client
hands back what is missing, and the run goes on where it was. It is believed if every
seed is one that this server gives out, and if its updates lead from the server's state
to the client's digest. After that it is too late: the run has another history, and the
client is told so.
"""

from dataclasses import dataclass, field

from utilities.data import Corpus
from utilities.errors import ProtocolError
from utilities.events import Note
from utilities.evolution import Setting, TrainState, Update, advance, segment_seed
from utilities.history import check_update, held
from utilities.ledger import Ledger
from utilities.outbox import Outbox
from utilities.peers import Peer
from utilities.protocol import Hello
from utilities.tally import Append, Closed

RECALL_SECONDS = 10.0  # to hand back what is missing
ALL_SECONDS = 30.0  # that no step is begun for it, whoever comes and leaves
MOST_BYTES = 1 << 25  # that are handed back; a client keeps half as much
MOST_SLOTS = 1 << 14  # of a step, among which a seed is looked for


@dataclass(frozen=True)
class Retrace:
    """Apply updates to a state off this thread, then report `Retraced`."""

    state: TrainState
    updates: tuple[Update, ...]


@dataclass(frozen=True)
class Retraced:
    """What updates that were handed back lead to."""

    state: TrainState
    updates: tuple[Update, ...]
    digests: tuple[bytes, ...]  # of the state before each


def retrace(setting: Setting, corpus: Corpus, command: Retrace) -> Retraced:
    """Return what updates lead to, and the digest before each."""
    state, digests = command.state, list[bytes]()
    for update in command.updates:
        digests.append(state.digest(setting.fingerprint))
        tokens = corpus.token_batch(update.token_batch)
        state = advance(setting, state, update, tokens)
    return Retraced(state, command.updates, tuple(digests))


@dataclass
class _Recall:
    """Steps that a client is asked to hand back."""

    peer: Peer
    hello: Hello
    deadline: float  # on the coordinator's clock
    updates: list[Update] = field(default_factory=list)
    size: int = 0  # bytes of these
    ordered: bool = False  # to be retraced


class Returning:
    """What a client that is ahead may hand back before the first step closes."""

    def __init__(
        self, setting: Setting, run_seed: int, ledger: Ledger, outbox: Outbox
    ) -> None:
        """Begin with the state that was found on the disk.

        Args:
            setting: of the run.
            run_seed: that all segments' seeds derive from.
            ledger: of the run.
            outbox: takes what is said to those who come back.
        """
        self._setting = setting
        self._run_seed = run_seed
        self._ledger = ledger
        self._outbox = outbox
        self._first: int | None = ledger.state.step
        self._recall: _Recall | None = None
        self._end: float | None = None  # of all asking, on the coordinator's clock

    def meet(
        self,
        peer: Peer,
        hello: Hello,
        step: int,
        now: float,
        *,
        seconded: bool = False,
    ) -> list[Note]:
        """Let a client go on from the state that it holds, if it is of this run.

        Args:
            peer: who has just joined.
            hello: in which it said where it is.
            step: at hand.
            now: on the coordinator's clock.
            seconded: others are at that step, and will tell its digest.
        """
        at = hello.last_step
        if at is None:
            return []
        missed = self._ledger.missed(at, hello.last_digest)
        if missed is None and at == step and seconded and self._ledger.state.step < at:
            # Nobody knows that digest yet. Where steps are timed it enters with the
            # next one: a wrong state has one voice there, and is found by the others'.
            # A step of blocks might have an answer of its former session already.
            blocks = self._setting.config.trials_per_step is not None
            missed = None if blocks else ()
        if missed is not None:
            peer.since = step
            self._outbox.resume(peer, hello, missed)
        elif at > step and self._may_ask(step, now):
            assert self._end is not None, "it begins with the first"
            deadline = min(now + RECALL_SECONDS, self._end)
            self._recall = _Recall(peer, hello, deadline)
            self._outbox.recall(peer, step, self._ledger.digest)
        elif at > step:
            text = f"{peer.name} was at step {at}, which this run has not reached yet"
            return [Note(f"{text}: its state is replaced", warning=True)]
        return []

    def _may_ask(self, step: int, now: float) -> bool:
        """Return whether what is missing may still come from somebody."""
        if self._recall is not None or step != self._first:
            return False
        if self._end is None:
            self._end = now + ALL_SECONDS
        return now < self._end

    def waits(self, now: float) -> bool:
        """Return whether steps are still to be handed back, ahead of a new one."""
        recall = self._recall
        if recall is not None and not recall.ordered and now >= recall.deadline:
            self._recall = None
        return self._recall is not None

    def too_late(self) -> None:
        """Note that a step has been opened: the run's history goes on from here."""
        self._first = self._recall = None

    @property
    def wakeup(self) -> float | None:
        """Return when it is over, if anything is waited for."""
        recall = self._recall
        return None if recall is None or recall.ordered else recall.deadline

    def lose(self, peer: Peer) -> None:
        """Wait no more for a client that has left."""
        if self._recall is not None and self._recall.peer is peer:
            self._recall = None

    def take(self, peer: Peer, update: Update) -> list[Retrace]:
        """Take the next update; return what is to be found out once all are here.

        Raises:
            ProtocolError: it was not asked for, or this server never made it.
        """
        recall = self._recall
        if recall is None or recall.peer is not peer or recall.ordered:
            raise ProtocolError(f"recalled: step {update.step} was not asked for")
        step = self._ledger.state.step + len(recall.updates)
        if update.step != step:
            raise ProtocolError(f"recalled: expected step {step}, got {update.step}")
        check_update(self._setting, update)
        if update.token_batch > step:  # each is used in one step at least
            raise ProtocolError(
                f"recalled: expected a token batch of step {step} or before, "
                f"got {update.token_batch}"
            )
        if not self._made(update):
            raise ProtocolError(f"recalled: the seeds are not those of step {step}")
        recall.updates.append(update)
        recall.size += held(update)
        if recall.size > MOST_BYTES:
            raise ProtocolError(f"recalled: more than {MOST_BYTES} bytes of updates")
        recall.ordered = step + 1 == recall.hello.last_step
        if not recall.ordered:
            return []
        return [Retrace(self._ledger.state, tuple(recall.updates))]

    def _made(self, update: Update) -> bool:
        """Return whether all seeds of an update are this server's, and there once."""
        unknown = {segment.seed for segment in update.segments}
        if len(unknown) < len(update.segments):
            return False
        for slot in range(MOST_SLOTS if unknown else 0):
            unknown.discard(segment_seed(self._run_seed, update.step, slot))
            if not unknown:
                break
        return not unknown

    def regain(
        self, found: Retraced, seconds: float
    ) -> tuple[list[Append], list[Note]]:
        """Take what was handed back, if it leads to the state of who did so.

        Args:
            found: what it leads to.
            seconds: that the run has trained.

        Returns:
            The steps, to be made durable, and what is to be said.
        """
        recall, self._recall = self._recall, None
        digest = found.state.digest(self._setting.fingerprint)
        if recall is None:  # that client has left meanwhile
            return [], []
        name = recall.peer.name
        if recall.hello.last_digest != digest:
            text = f"what {name} handed back is not of this run; its state is replaced"
            return [], [Note(text, warning=True)]
        appended = []
        for update, before in zip(found.updates, found.digests, strict=True):
            figures = (seconds, None, update.trials, 1, 0, 0, before)
            appended.append(Append(update, Closed(update.step, *figures)))
            self._ledger.append(update, before)
        self._ledger.accept(found.state, digest)
        notes = self.meet(recall.peer, recall.hello, found.state.step, 0.0)
        first, last = found.updates[0].step, found.updates[-1].step
        text = f"{name} handed back steps {first} to {last}, which this server had lost"
        return appended, [Note(text, warning=True), *notes]

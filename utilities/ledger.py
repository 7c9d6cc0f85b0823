"""Which state is true: the accepted one, the updates since, what may confirm another.

The server computes no updates in a step. A `Ledger` holds the last accepted state and
every `Update` since; the present state follows from them, for a joiner and for the
server's own replay alike. Where that is in doubt, a `Check` is queued, and a replay
settles one after the other. An `Archive` knows which states are due on the disk.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from utilities.config import Config
from utilities.data import Corpus
from utilities.evolution import Setting, TrainState, Update, advance
from utilities.history import Entry, Recent, held
from utilities.peers import REMEMBERED_STEPS, Peer

MAX_BYTES = 1 << 26  # 64 MB of updates: then a state is asked for anyhow
STATE_BYTES = 16  # of a parameter: weight, two moments, mean
MAX_UPDATES = 10_000  # a joiner or a replay has to go through them all

# What the shell is asked to do with states, and what it answers.


@dataclass(frozen=True)
class Replayed:
    """The server's own replay has come to its end."""

    state: TrainState


@dataclass(frozen=True)
class Saved:
    """A state has been written."""

    step: int


@dataclass(frozen=True)
class Replay:
    """Apply updates to a state off this thread, then report `Replayed`."""

    state: TrainState
    updates: tuple[Update, ...]


@dataclass(frozen=True)
class Save:
    """Write a state that was accepted, off this thread."""

    state: TrainState
    digest: bytes
    seconds: float  # that the run had trained
    checkpoint: bool  # else only the weights, to see the run learn


# Why a state is wanted.


@dataclass(frozen=True)
class Purpose:
    """What a state is wanted for, besides joiners."""

    checkpoint: bool = False
    milestone: bool = False

    def __bool__(self) -> bool:
        return self.checkpoint or self.milestone

    def __or__(self, other: "Purpose") -> "Purpose":
        """Return what a state is wanted for by either."""
        return Purpose(
            self.checkpoint or other.checkpoint, self.milestone or other.milestone
        )


@dataclass
class Wanted:
    """A state that one client of the open step is asked for."""

    purpose: Purpose
    peer: Peer | None = None
    offered: TrainState | None = None


@dataclass(frozen=True)
class Check:
    """What is known of the state before a step, to be confirmed by a replay."""

    step: int
    digest: bytes | None  # that the peers claim
    peers: tuple[Peer, ...]
    purpose: Purpose
    seconds: float  # that the run had trained

    def joined(self, other: "Check") -> "Check":
        """Return one check of a step in place of two."""
        known = other if self.digest is None else self
        return replace(known, purpose=self.purpose | other.purpose)


class Ledger:
    """The last accepted state and all updates since."""

    def __init__(self, setting: Setting, state: TrainState) -> None:
        """Begin with an accepted state."""
        self._updates: deque[Update] = deque()
        self._bytes = 0
        self._digests: dict[int, bytes] = {}  # of recent steps
        self._recent = Recent(STATE_BYTES * setting.layout.size)
        self._checks: deque[Check] = deque()  # ascending
        self._overtaken: deque[tuple[Check, Replay]] = deque()  # milestones
        self._running: Check | None = None
        self.state = state
        self.digest = state.digest(setting.fingerprint)

    def __iter__(self) -> Iterator[Update]:
        """Yield the updates since the accepted state."""
        return iter(self._updates)

    def agree(self, step: int, digest: bytes) -> None:
        """Take the digest that was agreed on at a step."""
        self._digests[step] = digest
        self._digests.pop(step - REMEMBERED_STEPS, None)

    def append(self, update: Update, digest: bytes) -> None:
        """Take the update of a step that has closed, and the digest before it."""
        self.agree(update.step, digest)
        self._updates.append(update)
        self._bytes += held(update)
        self._recent.append(update, digest)
        self._recent.forget(self.state.step)

    def contradicts(self, step: int, digest: bytes) -> bool:
        """Return whether another digest was agreed on at a recent step."""
        return self._digests.get(step, digest) != digest

    @property
    def large(self) -> bool:
        """Return whether a newer state should be accepted for the size alone."""
        return self._bytes > MAX_BYTES or len(self._updates) > MAX_UPDATES

    def accept(self, state: TrainState, digest: bytes) -> None:
        """Make a state the one that everything later builds on.

        Queued checks of earlier steps are needless then, but for milestones: their
        weights still follow from the state before this one.
        """
        while self._checks and self._checks[0].step <= state.step:
            check = self._checks.popleft()
            if check.purpose.milestone and check.step < state.step:
                self._overtaken.append((check, self.before(check.step)))
        while self._updates and self._updates[0].step < state.step:
            self._bytes -= held(self._updates.popleft())
        self.state, self.digest = state, digest
        self._recent.forget(state.step)

    def remember(self, entries: Iterable[Entry]) -> None:
        """Take the steps before the accepted state, for whoever missed a few only."""
        for entry in entries:
            self._recent.append(entry.update, entry.digest)
            self._recent.forget(self.state.step)

    def missed(self, step: int, digest: bytes) -> tuple[Update, ...] | None:
        """Return what a replica lacks that is at a step, with a digest.

        None where a state is less to send, or that replica was never one of this run.
        """
        if (step, digest) == (self.state.step, self.digest):
            return tuple(self)
        return self._recent.since(step, digest)

    @property
    def checking(self) -> bool:
        """Return whether a replay is under way."""
        return self._running is not None

    @property
    def confirming(self) -> bool:
        """Return whether replays under way will give a newer accepted state."""
        running = self._running
        newer = running is not None and running.step > self.state.step
        return newer or bool(self._checks)

    def check(self, check: Check) -> list[Replay]:
        """Queue a check, a step's only one; return what is to be started."""
        newest = self._checks[-1] if self._checks else self._running
        if newest is None or newest.step < check.step:
            self._checks.append(check)
        elif self._checks:
            self._checks[-1] = newest.joined(check)
        else:
            self._running = newest.joined(check)
        return self.next_replay()

    def next_replay(self) -> list[Replay]:
        """Return the replay that settles the oldest doubt, unless one is under way.

        Milestones that were overtaken come last: nothing waits for them.
        """
        if self._running is not None or not (self._checks or self._overtaken):
            return []
        if self._checks:
            check = self._checks.popleft()
            replay = self.before(check.step)
        else:
            check, replay = self._overtaken.popleft()
        self._running = check
        return [replay]

    def before(self, step: int) -> Replay:
        """Return what gives the state before a step, at or after the accepted one."""
        updates = tuple(u for u in self._updates if u.step < step)
        return Replay(self.state, updates)

    def replayed(self) -> Check:
        """Return the check that the replay under way was for: it has ended."""
        check, self._running = self._running, None
        assert check is not None, "no replay was under way"
        return check


class Replayer:
    """Replays, each from where the last one came to if that is on its way.

    Sums that depend on weights need the state of nearly every step, so that no update
    may be applied again for each of them. May be called from several threads.
    """

    def __init__(self, setting: Setting, corpus: Corpus) -> None:
        """Begin with nothing known."""
        self._setting = setting
        self._corpus = corpus
        self._last: tuple[TrainState, TrainState] | None = None  # from where to where

    def state(self, replay: Replay) -> TrainState:
        """Return what a replay comes to."""
        first = state = replay.state
        last, end = self._last, first.step + len(replay.updates)
        if last is not None and last[0] is first and last[1].step <= end:
            state = last[1]
        for update in replay.updates[state.step - first.step :]:
            tokens = self._corpus.token_batch(update.token_batch)
            state = advance(self._setting, state, update, tokens)
        self._last = first, state
        return state


class Archive:
    """Which states are due on the disk, and which have got there."""

    def __init__(self, config: Config, step: int, now: float) -> None:
        """Begin with a step that is saved."""
        self._interval = config.check_point_time
        self._next = now + self._interval
        self._writing = 0
        self.newest = step  # checkpoint that was written or read, or is under way

    def due(self, step: int, now: float, *, ending: bool = False) -> Purpose:
        """Return what the state before a step would be saved for.

        Args:
            step: at hand.
            now: on the coordinator's clock.
            ending: it is the last state of the session.
        """
        if step <= self.newest:
            return Purpose()
        timely = now >= self._next and not self.writing
        return Purpose(ending or timely, step & (step - 1) == 0)

    def save(
        self, state: TrainState, digest: bytes, check: Check, now: float
    ) -> list[Save]:
        """Return the commands that save a state for a check's purpose."""
        kinds = [False] * check.purpose.milestone + [True] * check.purpose.checkpoint
        if check.purpose.checkpoint:
            self.newest = state.step
            self._next = now + self._interval
        self._writing += len(kinds)
        return [Save(state, digest, check.seconds, kind) for kind in kinds]

    def saved(self) -> None:
        """Note that a state has been written."""
        self._writing -= 1

    @property
    def writing(self) -> bool:
        """Return whether a state is on its way to the disk."""
        return self._writing > 0

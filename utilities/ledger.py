"""Which state is true: the accepted one, the updates since, what may confirm another.

The server computes no updates in a step. A `Ledger` holds the last accepted state and
every `Update` since; the present state follows from them, for a joiner and for the
server's own replay alike.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from utilities.evolution import Setting, TrainState, Update
from utilities.steps import Peer

MAX_BYTES = 1 << 26  # 64 MB of rewards: then a state is asked for anyhow
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


@dataclass
class Wanted:
    """A state that one client of the open step was asked for."""

    purpose: Purpose
    peer: Peer | None = None
    offered: TrainState | None = None


@dataclass
class Check:
    """An agreement of fewer than two that the replay has to confirm."""

    step: int
    digest: bytes
    purpose: Purpose
    seconds: float
    peers: list[Peer] = field(default_factory=list)


class Ledger:
    """The last accepted state and all updates since."""

    def __init__(self, setting: Setting, state: TrainState) -> None:
        """Begin with an accepted state."""
        self._setting = setting
        self._updates: deque[Update] = deque()
        self._bytes = 0
        self.state = state
        self.digest = state.digest(setting.fingerprint)

    def __iter__(self) -> Iterator[Update]:
        """Yield the updates since the accepted state."""
        return iter(self._updates)

    def append(self, update: Update) -> None:
        """Take the update of a step that has closed."""
        self._updates.append(update)
        self._bytes += update.rewards.nbytes

    @property
    def large(self) -> bool:
        """Return whether a newer state should be accepted for the size alone."""
        return self._bytes > MAX_BYTES or len(self._updates) > MAX_UPDATES

    def accept(self, state: TrainState) -> None:
        """Make a state the one that everything later builds on."""
        while self._updates and self._updates[0].step < state.step:
            self._bytes -= self._updates.popleft().rewards.nbytes
        self.state = state
        self.digest = state.digest(self._setting.fingerprint)

    def replay(self) -> Replay:
        """Return the command that computes the present state."""
        return Replay(self.state, tuple(self._updates))

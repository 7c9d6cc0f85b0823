"""One open step as the server sees it: who works on what, who has answered. No I/O.

Two kinds share one face. A `TimedStep` gives every client a segment of its own and
closes when all clients that are waited for have answered, or at the deadline, but never
before one result has come. A `BlockStep` cuts a fixed number of trials into blocks of
fixed shape, hands them out as clients get free, and closes when all have an answer, so
that any number of clients gives the same step.
"""

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from utilities.config import Config
from utilities.errors import ProtocolError
from utilities.evolution import Scores, Segment, Setting, pieces, usable
from utilities.protocol import MAX_TRIALS, Result

FIRST_UPDATE_SECONDS = 1.0  # allowed to a client that has not reported an update yet
REPORTS = 8  # the last reports that an update's time is the median of
REMEMBERED_STEPS = 64  # own deadlines kept for results that come after closing
OUTSTANDING = 2  # blocks a client holds: one in work, one behind it
FIRST_BLOCK_SECONDS = 1.0  # before any block was measured
BLOCK_TIMES = 32

Work: TypeAlias = tuple["Peer", tuple[Segment, ...]]
Scored: TypeAlias = list[tuple[Segment, Scores]]


@dataclass(eq=False)
class Peer:
    """A client of the run."""

    id: int
    name: str
    ready: bool = False  # it holds a state and takes part
    reason: str = ""  # why its state has to be replaced; empty for a joiner
    waited: bool = True  # a step is not closed without it before its deadline
    late: int = 0  # results that came too late
    trials: int = 0  # accepted in all
    due: dict[int, float] = field(default_factory=dict)  # own deadline of recent steps
    batches: set[int] = field(default_factory=set)  # token batches that it was sent
    reports: deque[float] = field(default_factory=lambda: deque(maxlen=REPORTS))

    def allowance(self, config: Config) -> float:
        """Return the seconds that it may take to apply an update."""
        if not self.reports:
            return FIRST_UPDATE_SECONDS
        return min(statistics.median(self.reports), max(1.0, config.time_per_step))

    def set_due(self, step: int, moment: float) -> None:
        """Remember its own deadline of a step."""
        self.due[step] = moment
        while len(self.due) > REMEMBERED_STEPS:
            del self.due[min(self.due)]

    def report(self, result: Result, now: float) -> None:
        """Note an update's time; an answer within its own deadline is waited for."""
        self.reports.append(result.update_seconds)
        if now <= self.due.get(result.step, -math.inf):
            self.waited = True


class OpenStep(Protocol):
    """What the coordinator asks of either kind of step."""

    step: int

    def assign(self, peers: Iterable[Peer], now: float) -> list[Work]:
        """Return who gets which work now."""
        ...

    def take(self, peer: Peer, result: Result, now: float) -> None:
        """Accept a result of this step or raise ProtocolError."""
        ...

    def lose(self, peer: Peer) -> None:
        """Forget what a client that has left still owed."""
        ...

    def complete(self, now: float) -> bool:
        """Return whether the step can close."""
        ...

    def wakeup(self, now: float) -> float | None:
        """Return the next moment at which time alone changes something."""
        ...

    def votes(self) -> dict[bytes, list[Peer]]:
        """Return which clients reported which digest."""
        ...

    def discard(self, peers: Iterable[Peer]) -> None:
        """Leave out the results of replicas that differ."""
        ...

    def scored(self) -> tuple[Scored, int]:
        """Return usable segments with their losses, and how many were unusable."""
        ...

    def missing(self) -> list[Peer]:
        """Return who was given work and has not answered."""
        ...


def check_shape(setting: Setting, result: Result, issued: Segment) -> Scores:
    """Return the losses of a result that answers an issued segment.

    Raises:
        ProtocolError: another segment, or not as many losses as its groups have.
    """
    if len(result.segments) != 1:
        raise ProtocolError(f"result: expected one segment, got {len(result.segments)}")
    done = result.segments[0]
    same = (done.seed, done.first) == (issued.seed, issued.first)
    if not same or done.groups > issued.groups:
        raise ProtocolError(f"result: expected groups of {issued}, got {done}")
    each, clean = setting.config.directions_per_window or 2, done.groups
    if setting.config.directions_per_window == 0:
        clean = 0
    if len(result.losses) != done.groups * each or len(result.clean) != clean:
        raise ProtocolError(
            f"result: expected {done.groups * each} losses and {clean} clean ones, "
            f"got {len(result.losses)} and {len(result.clean)}"
        )
    return Scores(result.losses, result.clean)


class TimedStep:
    """A step that ends by time; with no segments, one that only asks for digests."""

    def __init__(
        self,
        setting: Setting,
        step: int,
        new_seed: Callable[[], int],
        last: bool = False,
    ) -> None:
        """Open a step.

        Args:
            setting: of the run.
            step: its number.
            new_seed: gives the seed of a new slot.
            last: ask for digests only, and close at the deadline come what may.
        """
        self.step = step
        self.last = last
        self._setting = setting
        self._new_seed = new_seed
        self._issued: dict[Peer, Segment | None] = {}
        self._left: set[Peer] = set()
        self._results: dict[Peer, Result] = {}
        self._scores: dict[Peer, Scores] = {}

    def assign(self, peers: Iterable[Peer], now: float) -> list[Work]:
        """Give each client a segment of its own, once: nobody enters an open step."""
        if self._issued:
            return []
        config = self._setting.config
        work: list[Work] = []
        for peer in peers:
            run = 0.0 if self.last else config.time_per_step
            due = now + peer.allowance(config) + run + config.grace_seconds
            peer.set_due(self.step, due)
            self._issued[peer] = None if self.last else self._segment()
            issued = self._issued[peer]
            work.append((peer, (issued,) if issued else ()))
        return work

    def _segment(self) -> Segment:
        most = MAX_TRIALS // max(2, self._setting.config.directions_per_window)
        return Segment(self._new_seed(), 0, most)

    def take(self, peer: Peer, result: Result, now: float) -> None:
        """Accept the one result of a client."""
        if peer not in self._issued or peer in self._results:
            raise ProtocolError(f"result: nothing is due of step {result.step}")
        issued = self._issued[peer]
        if issued is not None:
            self._scores[peer] = check_shape(self._setting, result, issued)
        elif result.segments or len(result.losses) or len(result.clean):
            raise ProtocolError("result: expected a digest alone, got losses")
        self._results[peer] = result

    def lose(self, peer: Peer) -> None:
        """Stop waiting for a client; what it has answered still counts."""
        self._left.add(peer)

    def _awaited(self) -> list[Peer]:
        return [peer for peer in self._issued if peer.waited and peer not in self._left]

    def deadline(self) -> float:
        """Return the latest own deadline of those waited for, else of anybody."""
        peers = self._awaited() or list(self._issued)
        return max(peer.due[self.step] for peer in peers)

    def complete(self, now: float) -> bool:
        """Return whether all have answered, or time is over and one has."""
        awaited = self._awaited()
        if awaited and all(peer in self._results for peer in awaited):
            return True
        return now >= self.deadline() and (bool(self._results) or self.last)

    def wakeup(self, now: float) -> float | None:
        """Return the deadline, unless it has passed and only a result can help."""
        deadline = self.deadline()
        return deadline if now < deadline else None

    def votes(self) -> dict[bytes, list[Peer]]:
        """Return which clients reported which digest."""
        votes: dict[bytes, list[Peer]] = {}
        for peer, result in self._results.items():
            votes.setdefault(result.digest, []).append(peer)
        return votes

    def discard(self, peers: Iterable[Peer]) -> None:
        """Leave out the losses of replicas that differ."""
        for peer in peers:
            self._scores.pop(peer, None)

    def scored(self) -> tuple[Scored, int]:
        """Return usable segments with their losses, and how many were unusable."""
        good: Scored = []
        for peer, scores in self._scores.items():
            if usable(scores):
                good.append((self._results[peer].segments[0], scores))
                peer.trials += (
                    good[-1][0].groups * self._setting.config.trials_per_group
                )
        return good, len(self._scores) - len(good)

    def missing(self) -> list[Peer]:
        """Return who is here and has not answered."""
        return [
            p for p in self._issued if p not in self._results and p not in self._left
        ]


@dataclass(eq=False)
class Block:
    """Some trials of a step, always scored in one forward batch."""

    segment: Segment
    sent: dict[Peer, float] = field(default_factory=dict)  # who works on it since when
    peer: Peer | None = None  # whose answer counts
    digest: bytes = b""
    scores: Scores | None = None
    refused: Peer | None = None  # whose losses were unusable

    @property
    def answered(self) -> bool:
        """Return whether nothing more is expected."""
        return self.scores is not None


class BlockStep:
    """A step of a fixed number of trials."""

    def __init__(
        self, setting: Setting, step: int, seed_of: Callable[[int], int]
    ) -> None:
        """Cut the step into blocks.

        Args:
            setting: of the run; its trials per step are set.
            step: its number.
            seed_of: gives the seed of a slot; the slot is the block's index.
        """
        self.step = step
        self._setting = setting
        groups = (
            setting.config.trials_per_step or 0
        ) // setting.config.trials_per_group
        cut = pieces([Segment(0, 0, groups)], setting.block_groups)
        self._blocks = [
            Block(Segment(seed_of(slot), 0, piece.groups))
            for slot, piece in enumerate(cut)
        ]
        self._held: dict[Peer, int] = {}  # blocks that a client has and owes
        self._digests: dict[Peer, bytes] = {}
        self._times: deque[float] = deque(maxlen=BLOCK_TIMES)

    def assign(self, peers: Iterable[Peer], now: float) -> list[Work]:
        """Top up clients with free blocks, then with blocks that take too long."""
        present = list(peers)
        present = [peer for peer in present if peer.waited] or present
        work: list[Work] = []
        for depth in range(OUTSTANDING):
            for peer in present:
                if self._held.get(peer, 0) <= depth:
                    block = self._next_for(peer, len(present), now)
                    if block is not None:
                        block.sent[peer] = now
                        peer.set_due(self.step, math.inf)  # blocks have no deadline
                        self._held[peer] = self._held.get(peer, 0) + 1
                        work.append((peer, (block.segment,)))
        return work

    def _next_for(self, peer: Peer, peers: int, now: float) -> Block | None:
        for block in self._blocks:
            if not (
                block.answered or block.sent or (block.refused is peer and peers > 1)
            ):
                return block
        for block in self._blocks:
            overdue = block.sent and now >= self._overdue(block)
            if not block.answered and overdue and peer not in block.sent:
                return block
        return None

    def _overdue(self, block: Block) -> float:
        usual = statistics.median(self._times) if self._times else FIRST_BLOCK_SECONDS
        return max(block.sent.values()) + 3 * usual + self._setting.config.grace_seconds

    def take(self, peer: Peer, result: Result, now: float) -> None:
        """Accept the answer to a block; only the first one counts."""
        block = self._block_of(peer, result)
        scores = check_shape(self._setting, result, block.segment)
        if result.segments[0] != block.segment:
            raise ProtocolError(
                f"result: expected the whole of {block.segment}, "
                f"got {result.segments[0]}"
            )
        self._times.append(now - block.sent.pop(peer))
        self._held[peer] -= 1
        self._digests[peer] = result.digest
        if block.answered:
            peer.late += 1
        elif usable(scores) or block.refused is not None or not self._others(peer):
            block.peer, block.digest, block.scores = peer, result.digest, scores
        else:
            block.refused = peer

    def _others(self, peer: Peer) -> bool:
        return any(other is not peer for other in self._held)

    def _block_of(self, peer: Peer, result: Result) -> Block:
        for block in self._blocks:
            if peer in block.sent and block.segment.seed in (
                segment.seed for segment in result.segments
            ):
                return block
        raise ProtocolError(f"result: no such block is due of step {result.step}")

    def lose(self, peer: Peer) -> None:
        """Free the blocks of a client that has left."""
        for block in self._blocks:
            block.sent.pop(peer, None)
            if block.refused is peer:
                block.refused = None
        self._held.pop(peer, None)

    def complete(self, now: float) -> bool:
        """Return whether every block has its answer."""
        return all(block.answered for block in self._blocks)

    def wakeup(self, now: float) -> float | None:
        """Return when the next block becomes overdue."""
        moments = [
            self._overdue(block)
            for block in self._blocks
            if block.sent and not block.answered
        ]
        later = [moment for moment in moments if moment > now]
        return min(later, default=None)

    def votes(self) -> dict[bytes, list[Peer]]:
        """Return which clients reported which digest."""
        votes: dict[bytes, list[Peer]] = {}
        for peer, digest in self._digests.items():
            votes.setdefault(digest, []).append(peer)
        return votes

    def discard(self, peers: Iterable[Peer]) -> None:
        """Open the blocks again that replicas that differ had answered."""
        for peer in peers:
            self.lose(peer)
            self._digests.pop(peer, None)
            for block in self._blocks:
                if block.peer is peer:
                    block.peer, block.digest, block.scores = None, b"", None

    def scored(self) -> tuple[Scored, int]:
        """Return usable blocks with their losses, and how many were unusable."""
        good: Scored = []
        for block in self._blocks:
            if block.scores is not None and usable(block.scores):
                good.append((block.segment, block.scores))
                if block.peer is not None:
                    block.peer.trials += len(block.scores.losses)
        return good, len(self._blocks) - len(good)

    def missing(self) -> list[Peer]:
        """Return who holds blocks that others have answered."""
        return [peer for peer, held in self._held.items() if held]

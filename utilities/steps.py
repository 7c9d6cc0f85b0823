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

import numpy as np

from utilities.errors import ProtocolError
from utilities.evolution import Scores, Segment, Setting, pieces, usable
from utilities.lateness import grace_seconds
from utilities.peers import Peer
from utilities.protocol import MAX_TRIALS, Result

OUTSTANDING = 2  # blocks a client holds: one in work, one behind it
FIRST_BLOCK_SECONDS = 1.0  # before any block was measured
NO_DIGEST = b""  # of a replica that reported two of one step: it agrees with nobody
BLOCK_TIMES = 32  # the last blocks that the usual time is the median of

Work: TypeAlias = tuple[Peer, tuple[Segment, ...]]
Scored: TypeAlias = list[tuple[Segment, Scores]]
BlockTimes: TypeAlias = deque[float]


class OpenStep(Protocol):
    """What the coordinator asks of either kind of step."""

    step: int
    last: bool  # asks for digests only, and closes at the deadline come what may

    def assign(self, peers: Iterable[Peer], now: float) -> list[Work]:
        """Return who gets which work now; all of it is owed from now on."""

    def take(self, peer: Peer, result: Result, now: float) -> None:
        """Accept a result that was owed or raise ProtocolError."""

    def lose(self, peer: Peer) -> None:
        """Stop waiting for a client that has left; what it has answered counts."""

    def discard(self, peer: Peer) -> None:
        """Forget a replica that differs and all that it has answered."""

    def stuck(self, now: float) -> bool:
        """Return whether time is over and only somebody else can help."""

    def complete(self, now: float) -> bool:
        """Return whether the step can close."""

    def wakeup(self, now: float) -> float | None:
        """Return the next moment at which time alone changes something."""

    def votes(self) -> dict[bytes, list[Peer]]:
        """Return which clients reported which digest."""

    def scored(self) -> tuple[Scored, int]:
        """Return usable segments with their losses, and how many were unusable."""

    def owners(self) -> dict[int, Peer]:
        """Return whose answer counts for the segment of each seed."""

    def missing(self) -> list[Peer]:
        """Return who has not answered in time."""

    def late(self) -> int:
        """Return how many answers did not come in time to count."""


def by_digest(digests: dict[Peer, bytes]) -> dict[bytes, list[Peer]]:
    """Return who reported each digest."""
    votes: dict[bytes, list[Peer]] = {}
    for peer, digest in digests.items():
        votes.setdefault(digest, []).append(peer)
    return votes


def check_shape(setting: Setting, result: Result, issued: Segment) -> Scores:
    """Return the losses of a result that answers an issued segment.

    Raises:
        ProtocolError: another segment, or not as many losses as its groups have.
    """
    if len(result.segments) != 1:
        raise ProtocolError(f"result: expected one segment, got {len(result.segments)}")
    done = result.segments[0]
    same = (done.seed, done.first) == (issued.seed, issued.first)
    if not same or not 1 <= done.groups <= issued.groups:
        raise ProtocolError(f"result: expected groups of {issued}, got {done}")
    directions = setting.config.directions_per_window
    losses = done.groups * (directions or 2)
    clean = done.groups if directions else 0
    if len(result.losses) != losses or len(result.clean) != clean:
        raise ProtocolError(
            f"result: expected {losses} losses and {clean} clean ones, "
            f"got {len(result.losses)} and {len(result.clean)}"
        )
    return Scores(result.losses, result.clean)


def _moment(entry: tuple[float, Peer]) -> float:
    return entry[0]


def _all_usable(scored: Scored) -> bool:
    """Return whether all losses are usable: one look instead of a thousand."""
    losses = [scores.losses for _, scores in scored]
    clean = [scores.clean for _, scores in scored]
    return not scored or usable(Scores(np.concatenate(losses), np.concatenate(clean)))


def check_bare(result: Result) -> None:
    """Raise ProtocolError if a result has more than the digest that was asked for."""
    if result.segments or len(result.losses) or len(result.clean):
        raise ProtocolError("result: expected a digest alone, got losses")


class TimedStep:
    """A step that ends by time; the last one only asks for digests."""

    def __init__(
        self,
        setting: Setting,
        step: int,
        seconds: float,
        new_seed: Callable[[], int],
        last: bool = False,
        round_trip: float = 0.0,
    ) -> None:
        """Open a step.

        Args:
            setting: of the run.
            step: its number.
            seconds: that clients run trials; in the last step, that they ran before.
            new_seed: gives the seed of a new slot.
            last: ask for digests only, and close at the deadline come what may.
            round_trip: seconds that answers usually take beside the work.
        """
        self.step = step
        self.last = last
        self._setting = setting
        self._seconds = seconds
        self._new_seed = new_seed
        self._grace = grace_seconds(setting.config, seconds, round_trip)
        self._opened = False
        self._issued: dict[Peer, Segment | None] = {}
        self._due: dict[Peer, float] = {}  # own deadlines of those who owe an answer
        # Everybody's, latest last; who owes nothing any more is left out lazily, so
        # that an event of one client does not look at all the others.
        self._latest: list[tuple[float, Peer]] = []
        self._answers = 0  # that have come, discarded ones included
        self._digests: dict[Peer, bytes] = {}
        self._scored: dict[Peer, tuple[Segment, Scores]] = {}

    def assign(self, peers: Iterable[Peer], now: float) -> list[Work]:
        """Give each client a segment of its own.

        Nobody enters a step later, unless those in it let its deadline pass in silence.
        """
        if self._opened and not self.stuck(now):
            return []
        self._opened = True
        usual, run = self._seconds, 0.0 if self.last else self._seconds
        work: list[Work] = []
        for peer in peers:
            if peer in self._issued:
                continue
            self._due[peer] = now + peer.allowance(usual) + run + self._grace
            peer.owe(self.step, self._due[peer], now)
            self._issued[peer] = issued = None if self.last else self._segment()
            work.append((peer, (issued,) if issued else ()))
        self._latest = sorted(((due, p) for p, due in self._due.items()), key=_moment)
        return work

    def _segment(self) -> Segment:
        most = MAX_TRIALS // max(2, self._setting.config.directions_per_window)
        return Segment(self._new_seed(), 0, most)

    def take(self, peer: Peer, result: Result, now: float) -> None:
        """Accept the one result of a client."""
        issued = self._issued[peer]
        if issued is None:
            check_bare(result)
        else:
            scores = check_shape(self._setting, result, issued)
            self._scored[peer] = (result.segments[0], scores)
        self._digests[peer] = result.digest
        self._answers += 1
        del self._due[peer]

    def lose(self, peer: Peer) -> None:
        """Stop waiting for a client that has left; what it has answered counts."""
        self._due.pop(peer, None)

    def discard(self, peer: Peer) -> None:
        """Forget a replica that differs and all that it has answered."""
        self._due.pop(peer, None)
        self._issued.pop(peer, None)
        self._digests.pop(peer, None)
        self._scored.pop(peer, None)

    def _deadline(self) -> float:
        """Return the latest own deadline of those waited for, else of anybody."""
        latest = self._latest
        while latest and latest[-1][1] not in self._due:
            latest.pop()
        for due, peer in reversed(latest):
            if peer.waited and peer in self._due:
                return due
        return latest[-1][0] if latest else -math.inf

    def stuck(self, now: float) -> bool:
        """Return whether the deadline has passed without a single result."""
        return not (self._answers or self.last) and now >= self._deadline()

    def complete(self, now: float) -> bool:
        """Return whether all have answered, or time is over and one has."""
        if now >= self._deadline():
            return self._answers > 0 or self.last
        answered = any(peer.waited for peer in self._digests)
        return answered and not any(peer.waited for peer in self._due)

    def wakeup(self, now: float) -> float | None:
        """Return the deadline, unless it has passed and only a result can help."""
        deadline = self._deadline()
        return deadline if now < deadline else None

    def votes(self) -> dict[bytes, list[Peer]]:
        """Return which clients reported which digest."""
        return by_digest(self._digests)

    def scored(self) -> tuple[Scored, int]:
        """Return usable segments with their losses, and how many were unusable."""
        every = list(self._scored.values())
        good = every if _all_usable(every) else [p for p in every if usable(p[1])]
        return good, len(every) - len(good)

    def owners(self) -> dict[int, Peer]:
        """Return whose answer counts for the segment of each seed."""
        return {segment.seed: peer for peer, (segment, _) in self._scored.items()}

    def missing(self) -> list[Peer]:
        """Return who is here and has not answered."""
        return list(self._due)

    def late(self) -> int:
        """Return how many answers are still missing."""
        return len(self._due)


@dataclass(eq=False)
class Block:
    """Some trials of a step, always scored in one forward batch."""

    segment: Segment
    sent: dict[Peer, float] = field(default_factory=dict)  # who works on it since when
    since: float = -math.inf  # when it was last given out or refused
    refused: Peer | None = None  # whose losses were unusable
    peer: Peer | None = None  # whose answer counts
    scores: Scores | None = None


class BlockStep:
    """A step of a fixed number of trials.

    A client that was late is not given blocks, which would hold up the step, as long as
    others are there; it is asked for its digest, and gets blocks again when it answers.
    """

    last = False

    def __init__(
        self,
        setting: Setting,
        step: int,
        seconds: float,
        seed_of: Callable[[int], int],
        times: BlockTimes,
        round_trip: float = 0.0,
    ) -> None:
        """Cut the step into blocks.

        Args:
            setting: of the run; its trials per step are set.
            step: its number.
            seconds: that a step usually takes, for the patience with a block.
            seed_of: gives the seed of a slot; the slot is the block's index.
            times: seconds that the last blocks took; this step adds its own.
            round_trip: seconds that answers usually take beside the work.
        """
        self.step = step
        self._setting = setting
        self._times = times
        config = setting.config
        self._grace = grace_seconds(config, seconds, round_trip)
        groups = (config.trials_per_step or 0) // config.trials_per_group
        cut = pieces([Segment(0, 0, groups)], setting.block_groups)
        segments = [
            Segment(seed_of(slot), 0, piece.groups) for slot, piece in enumerate(cut)
        ]
        self._blocks = {segment.seed: Block(segment) for segment in segments}
        self._todo = dict(self._blocks)  # those without an answer
        self._trusted: dict[Peer, None] = {}  # who gets blocks
        self._patient = self._patience()
        self._probed: dict[Peer, None] = {}  # who was asked for its digest only
        self._digests: dict[Peer, bytes] = {}
        self._tardy: dict[Peer, None] = {}  # whose block went to somebody else too
        self._doubles = 0  # answers to blocks that had one already

    def assign(self, peers: Iterable[Peer], now: float) -> list[Work]:
        """Top up clients with free blocks, then with blocks that take too long."""
        present = list(peers)
        trusted = [peer for peer in present if peer.waited] or present
        self._trusted = dict.fromkeys(trusted)
        # Whoever comes when all of these are given out need not look for one.
        most = sum(not b.sent or now >= self._late_at(b) for b in self._todo.values())
        work: list[Work] = []
        for depth in range(OUTSTANDING):
            for peer in trusted:
                if len(work) < most and peer.owes(self.step) <= depth:
                    work += self._block_for(peer, now)
        for peer in present:
            if peer not in self._trusted and not peer.owes(self.step):
                self._probed[peer] = None
                work.append(self._owed(peer, now))
        return work

    def _owed(self, peer: Peer, now: float, *segments: Segment) -> Work:
        peer.owe(self.step, math.inf, now)  # blocks have no deadline
        return peer, segments

    def _block_for(self, peer: Peer, now: float) -> list[Work]:
        block = self._free(peer) or self._overdue(peer, now)
        if block is None:
            return []
        self._tardy |= dict.fromkeys(block.sent)
        block.sent[peer] = block.since = now
        return [self._owed(peer, now, block.segment)]

    def _free(self, peer: Peer) -> Block | None:
        """Return a block that nobody works on; refused ones go to somebody else."""
        alone = not self._others(peer)
        for block in self._todo.values():
            if not block.sent and (alone or block.refused is not peer):
                return block
        return None

    def _overdue(self, peer: Peer, now: float) -> Block | None:
        """Return a block that has been with others for too long."""
        for block in self._todo.values():
            if peer not in block.sent and now >= self._late_at(block):
                return block
        return None

    def _patience(self) -> float:
        """Return the seconds after which a block goes to one more client."""
        usual = statistics.median(self._times) if self._times else FIRST_BLOCK_SECONDS
        return 3 * usual + self._grace

    def _late_at(self, block: Block) -> float:
        """Return when a block goes to one more client."""
        return block.since + self._patient

    def _others(self, peer: Peer) -> bool:
        return any(other is not peer for other in self._trusted)

    def take(self, peer: Peer, result: Result, now: float) -> None:
        """Accept the answer to a block; only the first one counts."""
        if peer in self._probed:
            check_bare(result)
            del self._probed[peer]
        else:
            self._take_block(peer, result, now)
        same = self._digests.get(peer, result.digest) == result.digest
        self._digests[peer] = result.digest if same else NO_DIGEST

    def _take_block(self, peer: Peer, result: Result, now: float) -> None:
        block = self._block_of(peer, result)
        scores = check_shape(self._setting, result, block.segment)
        if result.segments[0] != block.segment:
            raise ProtocolError(
                f"result: expected the whole of {block.segment}, "
                f"got {result.segments[0]}"
            )
        self._times.append(now - block.sent.pop(peer))
        self._patient = self._patience()
        self._tardy.pop(peer, None)
        if block.scores is not None:
            self._doubles += 1
        elif usable(scores) or block.refused is not None or not self._others(peer):
            block.peer, block.scores = peer, scores
            del self._todo[block.segment.seed]
        else:
            block.refused, block.since = peer, now

    def _block_of(self, peer: Peer, result: Result) -> Block:
        for segment in result.segments:
            block = self._blocks.get(segment.seed)
            if block is not None and peer in block.sent:
                return block
        raise ProtocolError(f"result: no such block is due of step {self.step}")

    def lose(self, peer: Peer) -> None:
        """Free the blocks of a client that has left; what it has answered counts."""
        self._tardy.pop(peer, None)
        self._probed.pop(peer, None)
        for block in self._blocks.values():
            block.sent.pop(peer, None)

    def discard(self, peer: Peer) -> None:
        """Open the blocks again that a replica that differs has answered."""
        self.lose(peer)
        self._digests.pop(peer, None)
        for seed, block in self._blocks.items():
            if block.refused is peer:
                block.refused = None
            if block.peer is peer:
                block.peer = block.scores = None
                self._todo[seed] = block

    def stuck(self, now: float) -> bool:
        """Return whether all that is left to do takes too long."""
        return all(now >= self._late_at(block) for block in self._todo.values())

    def complete(self, now: float) -> bool:
        """Return whether every block has its answer."""
        return not self._todo

    def wakeup(self, now: float) -> float | None:
        """Return when the next block becomes overdue."""
        moments = (self._late_at(block) for block in self._todo.values())
        return min((moment for moment in moments if moment > now), default=None)

    def votes(self) -> dict[bytes, list[Peer]]:
        """Return which clients reported which digest."""
        return by_digest(self._digests)

    def scored(self) -> tuple[Scored, int]:
        """Return usable blocks with their losses, and how many were unusable."""
        every = [(b.segment, b.scores) for b in self._blocks.values()]
        good = [(s, scores) for s, scores in every if scores and usable(scores)]
        return good, len(every) - len(good)

    def owners(self) -> dict[int, Peer]:
        """Return whose answer counts for the block of each seed."""
        blocks = self._blocks.values()
        return {b.segment.seed: b.peer for b in blocks if b.peer is not None}

    def missing(self) -> list[Peer]:
        """Return whose blocks others had to do, and who owes a digest."""
        return [*self._tardy, *self._probed]

    def late(self) -> int:
        """Return how many clients or second answers came too late."""
        return len(self.missing()) + self._doubles

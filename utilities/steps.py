"""One open step as the server sees it: who works on what, who has answered. No I/O.

Two kinds share one face. A `TimedStep` gives every client segments of its own and
closes when all clients that are waited for have answered, or at the deadline, but never
before one result has come. A `BlockStep` (`utilities.blocks`) has a fixed number of
trials, whoever scores them.

A client does its segments in order until time is up, so what it reports is the first
few of them. They are of one size, so that nothing tells the one that another client has
got as well, which counts once: `utilities.audits`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np

from utilities.agreement import Pair, paired
from utilities.audits import Audits
from utilities.errors import ProtocolError
from utilities.evolution import Scores, Segment, Setting
from utilities.lateness import grace_seconds
from utilities.losses import usable
from utilities.peers import Peer
from utilities.protocol import MAX_TRIALS, Result
from utilities.scheduling import part_of, sheet_size

PARTS, LEAST_PARTS = 8, 2  # segments that a client does in the time of a step, about
PART_BLOCKS = 2  # of a segment at least, lest an update take longer; else fewer
CROWD_PARTS = 256  # segments that all clients of a crowd do together, about
SPARE = 3  # times as many are given out: a machine may become faster
FEWEST = 2  # are given out: a client may share one with each of two others
FIRST_BLOCKS = 2  # of a segment, for a client whose speed is not known
GROWTH = 16  # times what it has done in a step before: more is not given to a client
CROWD = 3  # clients of a step, of whom none has more than half of its trials

Work: TypeAlias = tuple[Peer, tuple[Segment, ...]]
Scored: TypeAlias = list[tuple[Segment, Scores]]


class OpenStep(Protocol):
    """What the coordinator asks of either kind of step."""

    step: int
    last: bool  # asks for digests only, and closes at the deadline come what may
    capped: Peer | None  # who has done more than half of it, which does not count

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

    def pairs(self) -> list[Pair]:
        """Return what two clients have both scored."""


def by_digest(digests: dict[Peer, bytes]) -> dict[bytes, list[Peer]]:
    """Return who reported each digest."""
    votes: dict[bytes, list[Peer]] = {}
    for peer, digest in digests.items():
        votes.setdefault(digest, []).append(peer)
    return votes


def check_shape(setting: Setting, result: Result, issued: Sequence[Segment]) -> Scored:
    """Return the losses of each segment of a result that answers issued ones.

    Raises:
        ProtocolError: it is not about the first of the issued segments, all of them
            whole but the last, or has not as many losses as its groups have.
    """
    done = result.segments
    if not 1 <= len(done) <= len(issued):
        raise ProtocolError(
            f"result: expected 1 to {len(issued)} segments, got {len(done)}"
        )
    for number, (mine, given) in enumerate(zip(done, issued, strict=False), 1):
        least = given.groups if number < len(done) else 1
        same = (mine.seed, mine.first) == (given.seed, given.first)
        if not same or not least <= mine.groups <= given.groups:
            raise ProtocolError(f"result: expected groups of {given}, got {mine}")
    losses, clean = sheet_size(setting, done)
    if len(result.losses) != losses or len(result.clean) != clean:
        raise ProtocolError(
            f"result: expected {losses} losses and {clean} clean ones, "
            f"got {len(result.losses)} and {len(result.clean)}"
        )
    sheet, before, scored = Scores(result.losses, result.clean), 0, Scored()
    for mine in done:
        scored.append((mine, part_of(setting, sheet, before, mine.groups)))
        before += mine.groups
    return scored


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


@dataclass(frozen=True)
class Portion:
    """What one client is given of a timed step."""

    groups: int  # of a segment: some whole blocks
    count: int  # of segments
    reached: int  # segments that it is likely to do


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
        audits: Audits | None = None,
    ) -> None:
        """Open a step.

        Args:
            setting: of the run.
            step: its number.
            seconds: that clients run trials; in the last step, that they ran before.
            new_seed: gives the seed of a new slot.
            last: ask for digests only, and close at the deadline come what may.
            round_trip: seconds that answers usually take beside the work.
            audits: say which segments two clients get; None: none.
        """
        self.step = step
        self.last = last
        self._setting = setting
        self._seconds = seconds
        self._new_seed = new_seed
        self._grace = grace_seconds(setting.config, seconds, round_trip)
        self._opened = False
        self.capped: Peer | None = None
        self._audits = audits
        self._issued: dict[Peer, tuple[Segment, ...]] = {}
        self._shared: dict[int, tuple[Peer, Peer]] = {}  # who both got a seed
        self._due: dict[Peer, float] = {}  # own deadlines of those who owe an answer
        # Everybody's, latest last; who owes nothing any more is left out lazily, so
        # that an event of one client does not look at all the others.
        self._latest: list[tuple[float, Peer]] = []
        self._answers = 0  # that have come, discarded ones included
        self._digests: dict[Peer, bytes] = {}
        self._scored: dict[Peer, dict[int, tuple[Segment, Scores]]] = {}  # by seed

    def assign(self, peers: Iterable[Peer], now: float) -> list[Work]:
        """Give each client segments of its own.

        Nobody enters a step later, unless those in it let its deadline pass in silence.
        """
        if self._opened and not self.stuck(now):
            return []
        self._opened = True
        usual, run = self._seconds, 0.0 if self.last else self._seconds
        work: list[Work] = []
        entering = [peer for peer in peers if peer not in self._issued]
        issued = {} if self.last else self._cut(entering)
        for peer in entering:
            self._due[peer] = now + peer.allowance(usual) + run + self._grace
            peer.owe(self.step, self._due[peer], now)
            self._issued[peer] = tuple(issued.get(peer, ()))
            work.append((peer, self._issued[peer]))
        self._latest = sorted(((due, p) for p, due in self._due.items()), key=_moment)
        return work

    def _cut(self, peers: Sequence[Peer]) -> dict[Peer, list[Segment]]:
        """Return everybody's segments, some of which two clients have."""
        portions = {peer: self._portion(peer, len(peers)) for peer in peers}
        cut = {
            peer: [Segment(self._new_seed(), 0, p.groups) for _ in range(p.count)]
            for peer, p in portions.items()
        }
        taken: dict[Peer, set[int]] = {peer: set() for peer in peers}
        if self._audits is None:
            return cut
        for one, other in self._audits.couples(peers):
            rooms = [(portions[peer], taken[peer]) for peer in (one, other)]
            here, there = self._audits.places(
                *((portion.reached, portion.count, used) for portion, used in rooms)
            )
            seed = cut[one][here].seed
            cut[other][there] = Segment(seed, 0, portions[other].groups)
            self._shared[seed] = one, other
        return cut

    def _portion(self, peer: Peer, clients: int) -> Portion:
        """Return what a client is given, by what it did before."""
        block, speed = self._setting.block_groups, peer.speed()
        parts = min(PARTS, max(LEAST_PARTS, CROWD_PARTS // clients))
        if speed is None:
            count = SPARE * parts
            return Portion(block * self._fitting(FIRST_BLOCKS, count), count, parts)
        blocks = speed * self._seconds / block
        parts = min(parts, max(LEAST_PARTS, int(blocks / PART_BLOCKS)))
        count = SPARE * parts
        growth = GROWTH * max(groups for groups, _ in peer.scored) // (count * block)
        fitting = self._fitting(min(math.ceil(blocks / parts), growth), count)
        reached = max(1, min(parts, int(blocks / fitting)))
        enough = max(FEWEST, math.ceil(SPARE * blocks / fitting))
        return Portion(block * fitting, min(count, enough), reached)

    def _fitting(self, blocks: int, count: int) -> int:
        """Return as many blocks a segment as fit one answer, at least one."""
        setting = self._setting
        losses = max(2, setting.config.trials_per_group) * setting.block_groups
        return max(1, min(blocks, MAX_TRIALS // (count * losses)))

    def take(self, peer: Peer, result: Result, now: float) -> None:
        """Accept the one result of a client."""
        if self.last:
            check_bare(result)
        else:
            scored = check_shape(self._setting, result, self._issued[peer])
            self._scored[peer] = {part[0].seed: part for part in scored}
            groups = sum(segment.groups for segment, _ in scored)
            peer.scored.append((groups, result.trial_seconds))
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
        every = [part for parts in self._counted().values() for part in parts]
        good = every if _all_usable(every) else [p for p in every if usable(p[1])]
        return good, len(every) - len(good)

    def owners(self) -> dict[int, Peer]:
        """Return whose answer counts for the segment of each seed."""
        counted = self._counted().items()
        return {part[0].seed: peer for peer, parts in counted for part in parts}

    def _counted(self) -> dict[Peer, Scored]:
        """Return what counts of each client: a trial once, and no lion's share."""
        scored, twice = self._scored, dict[Peer, set[int]]()
        for seed, couple in self._shared.items():
            both = [scored[p][seed] for p in couple if seed in scored.get(p, ())]
            if len(both) == 2:
                # The longer one, else either; who was to be audited has no say.
                one, other = (segment.groups for segment, _ in both)
                less = couple[(one > other) if one != other else seed % 2]
                twice.setdefault(less, set()).add(seed)
        whole = {peer: list(parts.values()) for peer, parts in scored.items()}
        for peer, seeds in twice.items():
            whole[peer] = [part for part in whole[peer] if part[0].seed not in seeds]
        return self._cap(whole)

    def _cap(self, counted: dict[Peer, Scored]) -> dict[Peer, Scored]:
        """Return what counts where nobody of three or more has more than half of all.

        Of whoever has done more than all others together, the last trials are left out.
        """
        groups = {p: sum(s.groups for s, _ in parts) for p, parts in counted.items()}
        if sum(n > 0 for n in groups.values()) < CROWD:
            return counted
        first = max(groups, key=lambda peer: groups[peer])
        room = sum(groups.values()) - groups[first]
        if groups[first] <= room:
            return counted
        self.capped, kept = first, Scored()
        for segment, scores in counted[first]:
            part = min(segment.groups, room)
            room -= part
            if part:
                cut = replace(segment, groups=part)
                kept.append((cut, part_of(self._setting, scores, 0, part)))
        return counted | {first: kept}

    def pairs(self) -> list[Pair]:
        """Return what two clients have both scored."""
        pairs = []
        for seed, couple in self._shared.items():
            done = [
                (peer, *self._scored[peer][seed])
                for peer in couple
                if seed in self._scored.get(peer, ())
            ]
            if len(done) == 2:
                pairs.append(paired(self._setting, done[0], done[1]))
        return pairs

    def missing(self) -> list[Peer]:
        """Return who is here and has not answered."""
        return list(self._due)

    def late(self) -> int:
        """Return how many answers are still missing."""
        return len(self._due)

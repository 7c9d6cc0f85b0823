"""A step of a fixed number of trials, cut into blocks of fixed shape. No I/O.

Blocks are handed out as clients get free, and the step closes when all have an answer,
so that any number of clients gives the same step. Of two answers to one block the first
one counts; the second is compared with it.
"""

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from utilities.agreement import Pair, paired
from utilities.audits import Audits
from utilities.errors import ProtocolError
from utilities.evolution import Scores, Segment, Setting, pieces
from utilities.lateness import grace_seconds
from utilities.losses import usable
from utilities.peers import Peer
from utilities.protocol import Result
from utilities.steps import CROWD, Scored, Work, by_digest, check_bare, check_shape

NO_DIGEST = b""  # of a replica that reported two of one step: it agrees with nobody
FIRST_BLOCK_SECONDS = 1.0  # before any block was measured
BLOCK_TIMES = 32  # the last blocks that the usual time is the median of

BlockTimes: TypeAlias = deque[float]


@dataclass(eq=False)
class Block:
    """Some trials of a step, always scored in one forward batch."""

    segment: Segment
    sent: dict[Peer, float] = field(default_factory=dict)  # who works on it since when
    since: float = -math.inf  # when it was last given out or refused
    refused: Peer | None = None  # whose losses were unusable
    peer: Peer | None = None  # whose answer counts
    scores: Scores | None = None
    second: tuple[Peer, Scores] | None = None  # the last other answer


class BlockStep:
    """A step of a fixed number of trials.

    A client that was late is not given blocks, which would hold up the step, as long as
    others are there; it is asked for its digest, and gets blocks again when it answers.
    """

    last = False
    capped: Peer | None = None  # nobody is given more than half

    def __init__(
        self,
        setting: Setting,
        step: int,
        seconds: float,
        seed_of: Callable[[int], int],
        times: BlockTimes,
        round_trip: float = 0.0,
        audits: Audits | None = None,
    ) -> None:
        """Cut the step into blocks.

        Args:
            setting: of the run; its trials per step are set.
            step: its number.
            seconds: that a step usually takes, for the patience with a block.
            seed_of: gives the seed of a slot; the slot is the block's index.
            times: seconds that the last blocks took; this step adds its own.
            round_trip: seconds that answers usually take beside the work.
            audits: say whose blocks go to a second client; None: nobody's.
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
        self._audits = audits
        self._watched: dict[Peer, None] | None = (
            None  # of whom a block is to be audited
        )
        self._given: dict[Peer, int] = {}  # blocks that nobody had before
        self._again: dict[int, Block] = {}  # that go to a second client, by seed
        self._patient = self._patience()
        self._probed: dict[Peer, None] = {}  # who was asked for its digest only
        self._digests: dict[Peer, bytes] = {}
        self._tardy: dict[Peer, None] = {}  # whose block went to somebody else too
        self._fresh: dict[Peer, int] = {}  # answers since work was given out
        self._doubles = 0  # answers to blocks that had one already

    def assign(self, peers: Iterable[Peer], now: float) -> list[Work]:
        """Top up clients with free blocks, then with blocks that take too long."""
        present = list(peers)
        trusted = [peer for peer in present if peer.waited] or present
        self._trusted = dict.fromkeys(trusted)
        if self._watched is None:
            due = self._audits.due(trusted) if self._audits else []
            self._watched = dict.fromkeys(due)
        # Whoever comes when all of these are given out need not look for one.
        most = sum(not b.sent or now >= self._late_at(b) for b in self._todo.values())
        most += sum(not block.sent for block in self._again.values())
        work: list[Work] = []
        self._learn()
        ahead = {peer: peer.ahead for peer in trusted}
        for depth in range(max(ahead.values(), default=0)):
            for peer, allowed in ahead.items():
                room = peer.owes(self.step) <= depth < allowed
                if len(work) < most and room:
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
        block = self._audit(peer) or self._free(peer)
        if block is not None and block.scores is None:
            self._given[peer] = self._given.get(peer, 0) + 1
        block = block or self._overdue(peer, now)
        if block is None:
            return []
        self._tardy |= dict.fromkeys(block.sent)
        block.sent[peer] = block.since = now
        return [self._owed(peer, now, block.segment)]

    def _audit(self, peer: Peer) -> Block | None:
        """Return a block that another client has done and that nobody works on."""
        for block in self._again.values():
            if not block.sent and block.peer is not peer:
                return block
        return None

    def _free(self, peer: Peer) -> Block | None:
        """Return a block that nobody works on; refused ones go to somebody else."""
        if self._sated(peer):
            return None
        alone = not self._others(peer)
        for block in self._todo.values():
            if not block.sent and (alone or block.refused is not peer):
                return block
        return None

    def _sated(self, peer: Peer) -> bool:
        """Return whether a client has its half while others are there to do the rest.

        What takes others too long it may do all the same, and whoever lets it wait is
        nobody to leave the rest to.
        """
        if 2 * self._given.get(peer, 0) < len(self._blocks):
            return False
        return sum(other not in self._tardy for other in self._trusted) >= CROWD

    def _overdue(self, peer: Peer, now: float) -> Block | None:
        """Return a block that has been with others for too long."""
        for block in self._todo.values():
            given = block.since > -math.inf
            if given and peer not in block.sent and now >= self._late_at(block):
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
            self._fresh[peer] = self._fresh.get(peer, 0) + 1
        same = self._digests.get(peer, result.digest) == result.digest
        self._digests[peer] = result.digest if same else NO_DIGEST

    def _learn(self) -> None:
        """Note how many blocks clients answer together, where there are more to do."""
        for peer, answers in self._fresh.items():
            if self._free(peer) is not None:
                peer.together.append(answers)
        self._fresh.clear()

    def _take_block(self, peer: Peer, result: Result, now: float) -> None:
        block = self._block_of(peer, result)
        scores = check_shape(self._setting, result, [block.segment])[0][1]
        if result.segments[0] != block.segment:
            raise ProtocolError(
                f"result: expected the whole of {block.segment}, "
                f"got {result.segments[0]}"
            )
        self._times.append(now - block.sent.pop(peer))
        self._patient = self._patience()
        self._tardy.pop(peer, None)
        if block.scores is not None:
            self._take_second(block, peer, scores)
        elif usable(scores) or block.refused is not None or not self._others(peer):
            block.peer, block.scores = peer, scores
            del self._todo[block.segment.seed]
            self._consider(peer, block, now)
        else:
            block.refused, block.since = peer, now

    def _consider(self, peer: Peer, block: Block, now: float) -> None:
        """Have a block audited if one of this client's is to be, and this one is it."""
        if self._audits is None or not self._watched or peer not in self._watched:
            return
        share = -(-len(self._blocks) // len(self._trusted))  # of one client, about
        if self._others(peer) and not self._audits.random.randrange(share):
            del self._watched[peer]
            block.since = now
            self._again[block.segment.seed] = block

    def _take_second(self, block: Block, peer: Peer, scores: Scores) -> None:
        block.second = peer, scores
        if block.segment.seed in self._again:
            del self._again[block.segment.seed]
        else:
            self._doubles += 1

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
        self._given.pop(peer, None)
        for seed, block in self._blocks.items():
            if block.refused is peer:
                block.refused = None
            if block.second and block.second[0] is peer:
                block.second = None
            if block.peer is peer:
                block.peer = block.scores = block.second = None
                self._again.pop(seed, None)
                self._todo[seed] = block

    def stuck(self, now: float) -> bool:
        """Return whether all that is left to do takes too long."""
        todo = self._todo.values()
        return bool(todo) and all(now >= self._late_at(block) for block in todo)

    def complete(self, now: float) -> bool:
        """Return whether every block has its answer, and its second if one is due.

        A second answer is waited for like any other, but not for ever: it changes
        nothing.
        """
        again = self._again.values()
        return not self._todo and all(now >= self._late_at(block) for block in again)

    def wakeup(self, now: float) -> float | None:
        """Return when the next block becomes overdue."""
        blocks = (*self._todo.values(), *self._again.values())
        moments = (self._late_at(block) for block in blocks)
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

    def pairs(self) -> list[Pair]:
        """Return what two clients have both scored."""
        pairs = []
        for block in self._blocks.values():
            if block.peer and block.scores and block.second:
                first = block.peer, block.segment, block.scores
                peer, scores = block.second
                second = peer, block.segment, scores
                pairs.append(paired(self._setting, first, second))
        return pairs

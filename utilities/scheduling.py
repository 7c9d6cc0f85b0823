"""How the processes of one client share its work: who computes which part.

The work of a request is cut into blocks, numbered in order. Whoever is free takes the
next number from a counter that all share, and finishes that block. So a slow core takes
fewer, and what has been done is always the first so many blocks, without a gap. Losses
are written where their trials belong; sums are integers, which add up to the same in
any order.

Nothing here starts a process: counter, clock and arrays are given.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from utilities.engine import Scored
from utilities.evolution import (
    Scores,
    Segment,
    Setting,
    chunk_groups,
    pieces,
    total,
)
from utilities.misc import Clock, Deadline
from utilities.model import Floats, Tokens
from utilities.rewards import Rewards
from utilities.scoring import score
from utilities.whitening import Whiteners

T = TypeVar("T")

PARTS_EACH = 4  # of a sum for each worker: one that is held up leaves some to others
LEAST_TRIALS = 1024  # of such a part: fewer take less time than its own sums do


class Counter(Protocol):
    """The numbers of the blocks, of which everybody gets others."""

    def take(self, *, only_first: bool) -> int | None:
        """Return the next number, from 0; None where only the first would do."""

    def add_scored(self, trials: int) -> None:
        """Count trials as scored."""


def placed(segments: Iterable[Segment], groups: int) -> Iterator[tuple[int, Segment]]:
    """Yield blocks of at most that many groups, each with the groups before it."""
    before = 0
    for block in pieces(segments, groups):
        yield before, block
        before += block.groups


def taken(items: Iterator[T], take: Callable[[], int | None]) -> Iterator[T]:
    """Yield the items whose numbers are taken, until there are no more of either.

    Args:
        items: in the order of their numbers.
        take: returns a larger number each time, or None.
    """
    passed = 0
    while (number := take()) is not None:
        for item in islice(items, number - passed, number - passed + 1):
            yield item
            break
        else:
            return
        passed = number + 1


# Scoring.


def losses_per_group(setting: Setting) -> tuple[int, int]:
    """Return how many losses a group has, and how many of clean weights."""
    config = setting.config
    one_sided = config.directions_per_window > 0
    return (config.trials_per_group, 1) if one_sided else (2, 0)


def sheet_size(setting: Setting, segments: Iterable[Segment]) -> tuple[int, int]:
    """Return the lengths of losses and clean losses of all trials of the segments."""
    losses, clean = losses_per_group(setting)
    groups = sum(segment.groups for segment in segments)
    return groups * losses, groups * clean


def part_of(setting: Setting, sheet: Scores, before: int, groups: int) -> Scores:
    """Return some groups' part of a sheet, which shares memory with it.

    Args:
        setting: of the run.
        sheet: room for the losses of all groups.
        before: groups before the first of them.
        groups: how many.
    """
    losses, clean = losses_per_group(setting)
    end = before + groups
    return Scores(
        sheet.losses[before * losses : end * losses],
        sheet.clean[before * clean : end * clean],
    )


def score_share(
    setting: Setting,
    weights: Floats,
    tokens: Tokens,
    shaped: Whiteners,
    segments: Sequence[Segment],
    moment: float | None,
    clock: Clock,
    counter: Counter,
    sheet: Scores,
) -> None:
    """Score blocks until the next would not fit, and write their losses.

    The first block of all is always scored. Others begin theirs only before the
    deadline, though they cannot know yet whether it fits.

    Args:
        setting: of the run.
        weights: (P,).
        tokens: the batch that windows are taken from.
        shaped: what shapes the noise of the step.
        segments: the trials that all workers share.
        moment: of the clock, after which no block should end; None: score them all.
        clock: monotonic seconds, the same for all workers.
        counter: gives the numbers of the blocks.
        sheet: is filled in where blocks are scored.
    """
    took = 0.0

    def take() -> int | None:
        if moment is None:
            return counter.take(only_first=False)
        left = Deadline(moment, clock).left()
        return counter.take(only_first=took > left or left == 0)

    for before, block in taken(placed(segments, setting.block_groups), take):
        began = clock()
        scores = score(setting, weights, tokens, block, shaped)
        part = part_of(setting, sheet, before, block.groups)
        part.losses[:], part.clean[:] = scores.losses, scores.clean
        counter.add_scored(block.groups * setting.config.trials_per_group)
        took = clock() - began


def scored_blocks(
    setting: Setting, segments: Sequence[Segment], numbers: int, sheet: Scores
) -> Scored:
    """Return the first blocks with copies of their losses.

    Args:
        setting: of the run.
        segments: the trials that could be scored.
        numbers: that were taken; there may be fewer blocks.
        sheet: that the losses were written to.
    """
    scored: Scored = []
    for before, block in islice(placed(segments, setting.block_groups), numbers):
        part = part_of(setting, sheet, before, block.groups)
        scored.append((block, Scores(part.losses.copy(), part.clean.copy())))
    return scored


# The update.


def part_groups(setting: Setting, groups: int, workers: int) -> int:
    """Return how many groups make one part of a sum that workers share."""
    least = -(-LEAST_TRIALS // setting.config.trials_per_group)
    even = -(-groups // (PARTS_EACH * workers))
    return min(chunk_groups(setting), max(least, even))


def sum_share(
    setting: Setting,
    tokens: Tokens,
    segments: Sequence[Segment],
    rewards: Rewards,
    middle: int,
    groups: int,
    counter: Counter,
) -> NDArray[np.int64]:
    """Return what this worker has added up of both halves: (2, P).

    Args:
        setting: of the run.
        tokens: that the trials were scored on.
        segments: the trials of one half, then those of the other.
        rewards: of all of them, in this order.
        middle: groups of the first half.
        groups: of one part, see `part_groups`.
        counter: gives the numbers of the parts.
    """
    each = setting.config.trials_per_group
    sums = np.zeros((2, setting.layout.size), np.int64)

    def take() -> int | None:
        return counter.take(only_first=False)

    for before, part in taken(placed(segments, groups), take):
        share = rewards[before * each : (before + part.groups) * each]
        half = sums[0 if before < middle else 1]
        half += total(setting, tokens, [part], share, part.groups)
    return sums

"""How the processes of one client share its work: who computes which part.

The groups of a request are numbered in order. Whoever is free takes the next few in a
row from a counter that all share, and finishes them. So a slow core takes fewer, and
what has been done is always the first so many groups, without a gap. Losses are written
where their trials belong; sums are integers, which add up to the same in any order.

Nothing here starts a process: counter, clock and arrays are given.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from utilities.engine import Scored, fitting
from utilities.evolution import (
    Scores,
    Segment,
    Setting,
    chunk_groups,
    total,
)
from utilities.misc import Clock, Deadline
from utilities.model import Floats, Tokens
from utilities.rewards import Rewards
from utilities.scoring import score
from utilities.whitening import Whiteners

PARTS_EACH = 4  # of a sum for each worker: one that is held up leaves some to others
LEAST_TRIALS = 1024  # of such a part: fewer take less time than its own sums do


class Counter(Protocol):
    """The numbers of the groups, of which everybody gets others."""

    def take(self, groups: int, *, only_first: bool = False) -> int | None:
        """Return the first of so many; None where only the very first would do."""

    def add_scored(self, trials: int) -> None:
        """Count trials as scored."""


def placed(
    segments: Iterable[Segment], first: int, end: int
) -> Iterator[tuple[int, Segment]]:
    """Yield what lies in a range of groups, each part with the groups before it.

    Args:
        segments: whose groups are numbered, from 0.
        first: number of the first group.
        end: number of the group after the last; there may be fewer.
    """
    before = 0
    for segment in segments:
        low = max(first, before)
        groups = min(end, before + segment.groups) - low
        if groups > 0:
            yield low, Segment(segment.seed, segment.first + low - before, groups)
        before += segment.groups


def groups_of(segments: Iterable[Segment]) -> int:
    """Return how many groups there are in some segments."""
    return sum(segment.groups for segment in segments)


# Scoring.


def losses_per_group(setting: Setting) -> tuple[int, int]:
    """Return how many losses a group has, and how many of clean weights."""
    config = setting.config
    one_sided = config.directions_per_window > 0
    return (config.trials_per_group, 1) if one_sided else (2, 0)


def sheet_size(setting: Setting, segments: Iterable[Segment]) -> tuple[int, int]:
    """Return the lengths of losses and clean losses of all trials of the segments."""
    losses, clean = losses_per_group(setting)
    groups = groups_of(segments)
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
    """Score blocks until time is up, and write their losses.

    The first block of all is always scored. Others begin theirs only before the
    deadline, though they cannot know yet whether it fits; the last is as much of one
    as fits. Where blocks were cut, one may lie in two segments.

    Args:
        setting: of the run.
        weights: (P,).
        tokens: the batch that windows are taken from.
        shaped: what shapes the noise of the step.
        segments: the trials that all workers share.
        moment: of the clock, after which no block should end; None: score them all.
        clock: monotonic seconds, the same for all workers.
        counter: gives the numbers of the groups.
        sheet: is filled in where blocks are scored.
    """
    whole, each = setting.block_groups, setting.config.trials_per_group
    all_groups, took, fits = groups_of(segments), 0.0, whole
    while fits == whole:
        left = math.inf if moment is None else Deadline(moment, clock).left()
        fits = fitting(whole, took, left)
        groups = fits or whole
        first = counter.take(groups, only_first=not fits)
        if first is None or first >= all_groups:
            return
        began = clock()
        for before, block in placed(segments, first, first + groups):
            scores = score(setting, weights, tokens, block, shaped)
            part = part_of(setting, sheet, before, block.groups)
            part.losses[:], part.clean[:] = scores.losses, scores.clean
            counter.add_scored(block.groups * each)
        took = clock() - began


def scored_blocks(
    setting: Setting, segments: Sequence[Segment], groups: int, sheet: Scores
) -> Scored:
    """Return the first groups with copies of their losses.

    Args:
        setting: of the run.
        segments: the trials that could be scored.
        groups: that were taken; there may be fewer.
        sheet: that the losses were written to.
    """
    scored: Scored = []
    for before, block in placed(segments, 0, groups):
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
    weights: Floats,
    tokens: Tokens,
    shaped: Whiteners,
    segments: Sequence[Segment],
    rewards: Rewards,
    middle: int,
    groups: int,
    counter: Counter,
) -> NDArray[np.int64]:
    """Return what this worker has added up of both halves: (2, P).

    Args:
        setting: of the run.
        weights: (P,) that the trials were scored with.
        tokens: that they were scored on.
        shaped: what shapes the noise of the step.
        segments: the trials of one half, then those of the other.
        rewards: of all of them, in this order.
        middle: groups of the first half.
        groups: of one part, see `part_groups`.
        counter: gives the numbers of the groups.
    """
    each, whole = setting.config.trials_per_group, groups_of(segments)
    sums = np.zeros((2, setting.layout.size), np.int64)
    about = setting, setting.nodes(weights, shaped), tokens
    while (first := counter.take(groups)) is not None and first < whole:
        end = min(first + groups, whole)
        for half, low, high in ((0, 0, middle), (1, middle, whole)):
            start, stop = max(first, low), min(end, high)
            if start < stop:
                parts = [part for _, part in placed(segments, start, stop)]
                share = rewards[start * each : stop * each]
                sums[half] += total(*about, parts, share, groups)
    return sums

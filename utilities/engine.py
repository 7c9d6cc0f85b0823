"""How trials are scored and added up on one machine, whoever asked for it.

A `Worker` decides what is due; an `Engine` computes it: here on the one core of this
process, elsewhere on several. Either way the losses belong to the same trials and the
sums are the same integers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.evolution import Scores, Segment, Setting, halves, pieces, total
from utilities.kept import Kept
from utilities.misc import Clock, Deadline
from utilities.model import Floats, Tokens
from utilities.rewards import Rewards
from utilities.scoring import score
from utilities.whitening import Whiteners

OnBlock: TypeAlias = Callable[[int], None]  # is told the trials scored so far
Scored: TypeAlias = list[tuple[Segment, Scores]]
FITS = 0.9  # of the part that would fit if it took its share alone
LEAST_PART = 0.2  # of a block that is worth scoring

Halves: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]


class Engine(Protocol):
    """What computes."""

    @property
    def size(self) -> int:
        """Return how many processes compute at the same time."""

    def score(
        self,
        setting: Setting,
        weights: Floats,
        tokens: Tokens,
        shaped: Whiteners,
        segments: Sequence[Segment],
        seconds: float | None,
        on_block: OnBlock,
    ) -> Scored:
        """Return scored blocks of the segments, in order and without gaps.

        Args:
            setting: of the run.
            weights: (P,).
            tokens: the batch that windows are taken from.
            shaped: what shapes the noise of this step, see `Setting.whiteners`.
            segments: the trials that may be scored.
            seconds: after which no block should end, though there is always one; None:
                score them all.
            on_block: called with the trials so far, every now and then.
        """

    def halves(
        self,
        setting: Setting,
        weights: Floats,
        tokens: Tokens,
        shaped: Whiteners,
        segments: Sequence[Segment],
        rewards: Rewards,
    ) -> Halves:
        """Return two sums of reward times signs that make up the total.

        Each is over about half of the trials, see `evolution.halves`; the arguments are
        those that the trials were scored with.
        """


def fitting(block: int, took: float, left: float) -> int:
    """Return how many groups of a block fit, 0 where these are few.

    Clients that stop at the same moment do not wait for each other; a small part of a
    block, though, takes longer than its share.

    Args:
        block: groups of a whole one.
        took: seconds of a whole block.
        left: seconds until the deadline.
    """
    if took <= left and left > 0:
        return block
    groups = int(FITS * block * left / took) if left > 0 else 0
    return groups if groups >= block * LEAST_PART else 0


class OneCore:
    """Compute in this process."""

    size = 1

    def __init__(self, clock: Clock) -> None:
        """Take monotonic seconds from the clock."""
        self._clock = clock
        self._kept = Kept()

    def score(
        self,
        setting: Setting,
        weights: Floats,
        tokens: Tokens,
        shaped: Whiteners,
        segments: Sequence[Segment],
        seconds: float | None,
        on_block: OnBlock,
    ) -> Scored:
        """Score blocks until time is up, at least one; the last may be a part."""
        deadline = None if seconds is None else Deadline.after(seconds, self._clock)
        scored: Scored = []
        work = setting, weights, tokens
        self._kept.begin(setting, tokens)
        done, took = 0, 0.0
        for whole in pieces(segments, setting.block_groups):
            left = math.inf if deadline is None else deadline.left()
            groups = fitting(whole.groups, took, left) if scored else whole.groups
            if not groups:
                break
            block = replace(whole, groups=groups)
            before = self._clock()
            scores = score(*work, block, shaped, self._kept.keep)
            scored.append((block, scores))
            done += block.groups * setting.config.trials_per_group
            on_block(done)
            took = self._clock() - before
            if groups < whole.groups:
                break
        return scored

    def halves(
        self,
        setting: Setting,
        weights: Floats,
        tokens: Tokens,
        shaped: Whiteners,
        segments: Sequence[Segment],
        rewards: Rewards,
    ) -> Halves:
        """Return the sums of both halves, one after the other."""
        about = setting, setting.nodes(weights, shaped), tokens
        sums = [
            total(*about, *half, draw=self._kept.draw)
            for half in halves(setting, segments, rewards)
        ]
        self._kept.forget()
        return sums[0], sums[1]

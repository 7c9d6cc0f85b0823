"""What the server makes of the losses of a step: whether it believes them, an update.

A trial's change of loss is that against the clean weights on its window, or half of a
pair's difference; of all changes of a step together rewards are made.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from utilities.evolution import WORST_LOSS, Scores, Segment, Setting, Update
from utilities.rewards import rewards_of


def usable(scores: Scores) -> bool:
    """Return whether all losses are finite and believable."""
    return all(
        bool(np.all(np.abs(losses) <= WORST_LOSS))  # NaN compares false
        for losses in (scores.losses, scores.clean)
    )


def differences(setting: Setting, scores: Scores) -> NDArray[np.float64]:
    """Return each trial's change of loss: against the clean pass, or half a pair's."""
    losses = scores.losses.astype(np.float64)
    if setting.config.directions_per_window:
        clean = scores.clean.astype(np.float64)
        losses.reshape(len(clean), -1)[...] -= clean[:, None]
        return losses
    pairs = losses.reshape(-1, 2)
    half: NDArray[np.float64] = (pairs[:, 0] - pairs[:, 1]) / 2
    return half


def mean_loss(setting: Setting, scores: Sequence[Scores]) -> float | None:
    """Return the mean loss of the weights themselves, or of the pairs around them."""
    if not scores:
        return None
    shared = setting.config.directions_per_window > 0
    every = np.concatenate([s.clean if shared else s.losses for s in scores])
    return float(every.mean(dtype=np.float64))


def _place(pair: tuple[Segment, Scores]) -> tuple[int, int, int]:
    segment, _ = pair
    return segment.seed, segment.first, segment.groups  # as segments are ordered


def shape(
    setting: Setting,
    step: int,
    token_batch: int,
    scored: Sequence[tuple[Segment, Scores]],
    seconds: float,
) -> Update:
    """Return the update of a step from all usable losses.

    Args:
        setting: of the run.
        step: that was scored.
        token_batch: number of the text that it was scored on.
        scored: segments and their losses, in any order; equal inputs in another order
            give the same update.
        seconds: that the run has trained, for a decay over time.
    """
    ordered = sorted(scored, key=_place)
    shaped = None
    if ordered:
        losses = np.concatenate([scores.losses for _, scores in ordered])
        clean = np.concatenate([scores.clean for _, scores in ordered])
        changes = differences(setting, Scores(losses, clean))
        shaped = rewards_of(setting.config, changes)
    if shaped is None:
        return Update(step, token_batch, 0, 0.0, (), np.zeros(0, np.int8))
    rate = setting.config.rate(len(shaped), step, seconds)
    segments = tuple(segment for segment, _ in ordered)
    return Update(step, token_batch, len(shaped), rate, segments, shaped)

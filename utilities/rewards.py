"""Rewards: an int8 for each trial, of the changes of loss of all trials of a step."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.config import Config

Rewards: TypeAlias = NDArray[np.int8]

REWARD_SCALE = 42  # three deviations fill an int8: 126
REWARD_CLIP = 3.0
MAD_TO_DEVIATION = 1.4826  # of a normal distribution (Rousseeuw and Croux 1993)


def rewards(changes: NDArray[np.float64]) -> Rewards | None:
    """Return an int8 for each change of loss, positive for better.

    Median and MAD: with mean and deviation one wild loss among a thousand would
    silence all others.

    Returns:
        integers in [-126, 126]; None where the changes do not differ (MAD 0).
    """
    centred = changes - np.median(changes)
    deviation = MAD_TO_DEVIATION * float(np.median(np.abs(centred)))
    if deviation == 0:
        return None
    clipped = np.clip(centred / deviation, -REWARD_CLIP, REWARD_CLIP)
    return (-np.rint(clipped * REWARD_SCALE)).astype(np.int8)


def rewards_of(config: Config, changes: NDArray[np.float64]) -> Rewards | None:
    """Return the rewards of all trials; those of the output layer have a scale apart.

    Args:
        config: of the run.
        changes: of the loss, of whole groups.
    """
    if not config.splits:
        return rewards(changes)
    kinds = changes.reshape(-1, 2, config.passes_per_group)
    shaped = [rewards(kinds[:, kind].ravel()) for kind in (0, 1)]
    if shaped[0] is None and shaped[1] is None:
        return None
    result = np.zeros(kinds.shape, np.int8)
    for kind, each in enumerate(shaped):
        if each is not None:
            result[:, kind] = each.reshape(len(kinds), -1)
    return result.ravel()

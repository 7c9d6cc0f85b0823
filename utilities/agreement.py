"""Whether two answers to the same trials are the same answer. No I/O.

Answers of different machines differ in their last bits, because a matrix product of
another shape adds up in another order: by less than 1e-5 of a loss. What is tolerated
is that, and a ten-thousandth of the spread of the losses, far below what noise or a lie
is worth.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.evolution import WORST_LOSS, Scores, Segment, Setting
from utilities.model import Floats
from utilities.peers import Peer
from utilities.scheduling import part_of

OF_LOSS = 1e-5  # relative difference of an honest loss on another machine, at most
OF_SPREAD = 1e-4  # of the standard deviation of the losses: too little to matter

Answer: TypeAlias = tuple[Peer, Scores]
Done: TypeAlias = tuple[Peer, Segment, Scores]


def tolerance(losses: Floats, spread: float) -> NDArray[np.float64]:
    """Return by how much an honest answer may differ from each loss."""
    return OF_SPREAD * spread + OF_LOSS * np.abs(losses, dtype=np.float64)


def _spread(losses: Floats) -> float:
    """Return the standard deviation of what is usable."""
    good = losses[np.abs(losses) <= WORST_LOSS].astype(np.float64)
    if not len(good):
        return 0.0
    apart = good - good.sum() / len(good)
    return math.sqrt(float(apart @ apart) / len(good))


def differing(one: Floats, other: Floats) -> NDArray[np.bool_]:
    """Return where two answers to the same trials differ beyond what is tolerated."""
    # Of the smaller spread: a liar cannot widen what is tolerated by wild losses.
    spread = min(_spread(one), _spread(other))
    bad, worse = (~(np.abs(each) <= WORST_LOSS) for each in (one, other))
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(one.astype(np.float64) - other)
        nearest = np.minimum(np.abs(one), np.abs(other))
        apart = ~(gap <= tolerance(nearest, spread))
    # Losses of a model that has run away count nowhere, and need not be equal.
    return np.asarray(apart & ~(bad & worse))


def _same(one: Floats, other: Floats) -> bool:
    return one.tobytes() == other.tobytes()


def first_difference(setting: Setting, one: Scores, other: Scores) -> int | None:
    """Return the first group in which two answers differ; None: they agree.

    Args:
        setting: of the run.
        one: losses of some groups.
        other: losses of the same groups.
    """
    if _same(one.losses, other.losses) and _same(one.clean, other.clean):
        return None  # of machines of one type: a twentieth of the time
    losses = differing(one.losses, other.losses)
    clean = differing(one.clean, other.clean)
    groups = len(clean) or len(losses) // 2  # antithetic pairs have no clean losses
    wrong = losses.reshape(groups, -1).any(axis=1)
    if len(clean):
        wrong |= clean
    return int(wrong.argmax()) if wrong.any() else None


@dataclass(frozen=True)
class Pair:
    """The same groups of trials, as two clients have scored them."""

    segment: Segment
    answers: tuple[Answer, Answer]


def paired(setting: Setting, one: Done, other: Done) -> Pair:
    """Return what two clients have both done of one segment.

    Args:
        setting: of the run.
        one: a client, how much of the segment it has done, and its losses.
        other: another client, of the same segment.
    """
    common = min(one[1].groups, other[1].groups)
    first, last = ((p, part_of(setting, s, 0, common)) for p, _, s in (one, other))
    return Pair(Segment(one[1].seed, one[1].first, common), (first, last))

"""What a window can feel of a direction: noise without the part that changed nothing.

A perturbation ``a b^T`` of a matrix that reads a state h moves sums by (h.a) b. So the
loss of a window depends on a only by its products with the few states that the window
goes through; whatever a has beside their span is noise in ``r a b^T``, and nothing
else. The best linear estimate of a by what the loss depends on is its projection onto
that span: to first order (the span is that of the clean states) as good, of less
variance (as Rao 1945 and Blackwell 1947 condition an estimate), the less the more units
there are for each character of a window. Characters that are not read are left out
likewise.

With d states (white ones, as directions are) in the rows of H it is taken with a ridge,
``H^T (H H^T + m)^-1 H a``, m the mean of their squares: what is along directions in
which the states hardly differ is shrunk instead of trusted.

All replicas must find the same to the bit. So states are integers (`FixedPoint`), and
so are their products, which float32 holds whatever the order; the systems are solved
element by element, by + - * / sqrt; what comes out is rounded to small integers. The
inverse is finer than these: of many states that are nearly alike its rows nearly cancel
out, and what is left of them counts. So its products are those of float64.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utilities.model import Floats, Layout, Tokens
from utilities.noise import Signs
from utilities.whitening import COARSE, SCALE, FixedPoint, Whiteners

MOST_STATES = 64  # of a window: beyond, a projection costs more than it gives
MOST = 15  # a direction's largest integer
USUAL = 3  # its deviation, about: rounding adds a hundredth to the variance
RIDGE = 1.0  # times the mean square of the states
TOP = 127  # the largest integer of a state; half of it beyond 1,024 units
ONE = 32  # of a white state
WHOLE = 1 << 16  # of an inverse, times what it is damped by
SEEN = 1 << 14  # what products with the inverse are divided by
EXACT = 1 << 24  # float32 holds all integers up to here


@dataclass(frozen=True)
class Span:
    """How many states of a window its directions are projected on, and where."""

    before: int  # characters that clean weights read
    characters: int  # that are read after them
    windows: int  # of one group

    @property
    def first(self) -> int:
        """Return the first character after which a state counts."""
        return max(0, self.before - 1)

    @property
    def states(self) -> int:
        """Return how many states a group has."""
        return (self.before + self.characters - self.first) * self.windows

    @property
    def fits(self) -> bool:
        """Return whether a projection is worth its time."""
        return self.states <= MOST_STATES

    def unit(self, hidden_size: int) -> float:
        """Return what an integer direction is divided by to be a projected one."""
        share = min(1.0, self.states / hidden_size)
        return USUAL * (1 + RIDGE) / float(np.sqrt(share))


class Projection:
    """What one step's weights make of directions; equal bits everywhere."""

    def __init__(
        self, layout: Layout, weights: Floats, shaped: Whiteners, span: Span
    ) -> None:
        """Prepare.

        Args:
            layout: of the model.
            weights: (P,) before the step.
            shaped: whiteners of the step; none where noise is not shaped.
            span: of the run's windows.
        """
        self._span = span
        self._size = layout.hidden_size
        self._fixed = FixedPoint(layout, weights, COARSE)
        unit = np.eye(self._size, dtype=np.float32) * np.float32(SCALE)
        self._white = [_Whitener(r) for r in shaped or (unit,) * layout.n_layers]

    def of(self, windows: Tokens, signs: Signs) -> Signs:
        """Return the signs of groups with integers for those that read a state.

        Args:
            windows: (characters + 1, groups, w), those before included.
            signs: of the groups' directions, (directions, size).

        Returns:
            the same, of which state directions are `Span.unit` times their projection,
            rounded, none larger than `MOST`.
        """
        groups = windows.shape[1]
        read = windows[:-1].reshape(len(windows) - 1, -1)
        result = dict(signs)
        for layer, every in enumerate(self._fixed.states(read, self._span.first)):
            name = f"state{layer}"
            states = self._white[layer].of(every)
            states = states.reshape(len(states), groups, -1, self._size)
            rows = np.swapaxes(states, 0, 1).reshape(groups, -1, self._size)
            directions = signs[name][:, : self._size].reshape(groups, -1, self._size)
            result[name] = self._projected(rows, directions).reshape(-1, self._size)
        return result

    def _projected(self, states: Floats, directions: Floats) -> Floats:
        """Return the projections: (groups, d, H) and (groups, K, H) -> (groups, K, H).

        Factors are cut and rounded so that products in float32 stay below 2^24.
        """
        count, each = states.shape[1], directions.shape[1]
        both = np.concatenate([directions, states], axis=1)
        products = np.matmul(states, np.swapaxes(both, 1, 2))  # (groups, d, K + d)
        inverse, unit = ridge_inverse(products[:, :, each:].transpose(1, 2, 0))
        seen = products[:, :, :each].astype(np.float64)
        weights = np.matmul(inverse.transpose(2, 0, 1).astype(np.float64), seen)
        weights /= SEEN  # (groups, d, K)
        most = EXACT // (TOP * count) - 1
        np.clip(np.rint(weights, out=weights), -most, most, out=weights)
        few = np.swapaxes(weights, 1, 2).astype(np.float32)
        result: Floats = np.matmul(few, states)  # (groups, K, H)
        unit *= np.float32(SEEN * self._span.unit(self._size))
        result *= unit[:, None, None]
        np.rint(result, out=result)
        return np.clip(result, -MOST, MOST, out=result)


class _Whitener:
    """R, so coarse that products with states are exact in float32."""

    def __init__(self, whitener: Floats) -> None:
        most = float(np.abs(whitener, dtype=np.float64).sum(axis=1).max())
        shift = 1
        while most * COARSE / shift + len(whitener) * COARSE / 2 > EXACT:
            shift *= 2
        self._factor = np.rint(whitener / np.float32(shift)).T.astype(np.float32)
        self._unit = np.float32(COARSE * SCALE / shift / ONE)
        self._top = TOP if len(whitener) <= 1 << 10 else TOP // 2

    def of(self, states: NDArray[np.floating[Any]]) -> Floats:
        """Return R h of states, in units of 1 / `ONE`: (..., H)."""
        flat = states.reshape(-1, states.shape[-1]).astype(np.float32, copy=False)
        white: Floats = flat @ self._factor
        white /= self._unit
        np.rint(white, out=white)
        np.clip(white, -self._top, self._top, out=white)
        return white.reshape(states.shape)


def ridge_inverse(gram: Floats) -> tuple[Floats, Floats]:
    """Return (G + m)^-1 of many matrices at once, m = `RIDGE` times the mean square.

    By Gauss and Jordan's elimination, element by element, so that every number is
    rounded in the same order everywhere; with the ridge no pivot is small (Golub and
    Van Loan, Matrix Computations, 3.4 and 4.1).

    Args:
        gram: (d, d, n) integers, symmetric, without a negative eigenvalue.

    Returns:
        (d, d, n) integers, up to `WHOLE`, and what they are to be multiplied by: (n,).
    """
    rows = np.array(gram, np.float32, order="C")
    count = len(rows)
    mean = np.zeros(rows.shape[2], np.float32)
    for j in range(count):
        mean += rows[j, j]
    mean *= np.float32(RIDGE / count)
    mean += 1  # states may all be 0
    for j in range(count):
        rows[j, j] += mean
    for j in range(count):  # columns before j are the inverse's
        pivot = 1 / rows[j, j]
        rows[j, j] = 1
        rows[j] *= pivot
        column = rows[:, j].copy()
        column[j] = 0
        rows[:, j][np.arange(count) != j] = 0
        rows -= column[:, None] * rows[j]
    rows *= mean * np.float32(WHOLE)
    return np.rint(rows, out=rows), 1 / (mean * np.float32(WHOLE))

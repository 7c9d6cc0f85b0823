"""Directions that fit what they multiply: noise shaped to the covariance of states.

A perturbation ``a b^T`` of a matrix that reads a state h changes its sums by (h.a) b.
The numbers of h vary together, so that most random a ask about the same few
combinations of them, and seldom about the others. With a' = R^T a, where R h is white
(R C R^T = 1 for C = E[h h^T]), all combinations are asked about alike; the gradient
``sum r a' b^T`` = R^T (sum r a b^T) is preconditioned by C^-1, as the input factor of
K-FAC does it (Martens and Grosse 2015, arXiv 1503.05671).

All replicas must find the same R to the bit, from their weights and tokens alone. So
the states of a sample of the text are computed in fixed point: integers in float64,
whose products are exact in any order below 2^53 (with 128 units they stay below 2^37),
and tables in place of tanh. What follows (Cholesky's factor, its inverse) uses + - * /
sqrt element by element, never a product of a library, and ends in integers again.
"""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.model import Floats, Layout, Tokens

Doubles: TypeAlias = NDArray[np.float64]
Whiteners: TypeAlias = tuple[Floats, ...]  # of each layer (H, H), integers

SCALE = 256  # a whitener's integers are its entries times this
MOST_UNITS = 128  # factors cost their cube: beyond, more than they give
DAMPING = 0.1  # times the mean variance: directions below it are not blown up
SAMPLE_WINDOWS, SAMPLE_CHARACTERS = 128, 16

ONE = 1 << 10  # of a state
FINE = 1 << 12  # of a weight
LARGEST_WEIGHT = 64 * FINE
STEPS = 1 << 9  # entries of a table for each unit of its argument
REACH = 8 * STEPS  # beyond +-8, tanh and the logistic function are flat
_ARGUMENTS: Doubles = np.arange(-REACH, REACH + 1) / STEPS
TANH: Doubles = np.rint(np.tanh(_ARGUMENTS) * ONE)
LOGISTIC: Doubles = np.rint((np.tanh(_ARGUMENTS / 2) + 1) / 2 * ONE)


def whiteners(layout: Layout, flat: Floats, tokens: Tokens) -> Whiteners:
    """Return R of each layer's state, times `SCALE`; equal bits everywhere.

    Each of a layer's units is a row: h.(R^T a) is (R h).a, and R h is white.

    Args:
        layout: of the model.
        flat: (P,) weights.
        tokens: the batch at hand, of which a sample is read.
    """
    every = state_moments(layout, flat, tokens)
    return tuple(whitener(moments) for moments in every)


def sample(tokens: Tokens) -> Tokens:
    """Return evenly spaced windows of the text: (characters, windows)."""
    characters = min(SAMPLE_CHARACTERS, len(tokens))
    last = len(tokens) - characters
    starts = np.arange(SAMPLE_WINDOWS, dtype=np.int64) * last // (SAMPLE_WINDOWS - 1)
    return np.asarray(tokens[starts + np.arange(characters)[:, None]])


def state_moments(layout: Layout, flat: Floats, tokens: Tokens) -> list[Doubles]:
    """Return E[h h^T] of each layer over a sample, times ONE^2: (H, H)."""
    fixed = FixedPoint(layout, flat)
    windows = sample(tokens)
    states = fixed.states(windows)  # for each layer (characters, windows, H)
    count = windows.size
    flattened = (every.reshape(count, -1) for every in states)
    return [(h.T @ h) / count for h in flattened]  # the sum is exact, one rounding


class FixedPoint:
    """The clean model in integers."""

    def __init__(self, layout: Layout, flat: Floats) -> None:
        self._layout = layout
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = np.rint(np.nan_to_num(flat.astype(np.float64)) * FINE)
        clipped = np.clip(scaled, -LARGEST_WEIGHT, LARGEST_WEIGHT)
        self._views = {
            t.name: clipped[t.start : t.start + t.size].reshape(t.shape)
            for t in layout.tensors
        }

    def states(self, windows: Tokens) -> list[Doubles]:
        """Return the states after each character: (characters, windows, H)."""
        shape = (*windows.shape, self._layout.hidden_size)
        result = [np.zeros(shape) for _ in range(self._layout.n_layers)]
        h = [np.zeros(shape[1:]) for _ in result]
        cell = self._gru if self._layout.model_type == "gru" else self._rnn
        for t, now in enumerate(windows):
            for layer, every in enumerate(result):
                x = (
                    h[layer - 1] @ self._views[f"Wx{layer}"]
                    if layer
                    else self._views["Wx0"][now] * ONE
                )
                h[layer] = every[t] = cell(layer, x, h[layer])
        return result

    def _rnn(self, layer: int, x: Doubles, h: Doubles) -> Doubles:
        sums = h @ self._views[f"Wh{layer}"]
        sums += x
        sums += self._views[f"b{layer}"] * ONE
        return looked_up(TANH, sums)

    def _gru(self, layer: int, x: Doubles, h: Doubles) -> Doubles:
        size = self._layout.hidden_size
        sums = h @ self._views[f"Wh{layer}"]
        x = x + self._views[f"b{layer}"] * ONE
        gates = looked_up(LOGISTIC, sums[:, : 2 * size] + x[:, : 2 * size])
        inner = sums[:, 2 * size :] + self._views[f"bn{layer}"] * ONE
        inner = np.rint(inner / ONE) * gates[:, :size]
        new = looked_up(TANH, inner + x[:, 2 * size :])
        return np.asarray(new + np.rint(gates[:, size:] * (h - new) / ONE))


def looked_up(table: Doubles, sums: Doubles) -> Doubles:
    """Return a function of sums in units of 1 / (ONE FINE), times ONE."""
    index = np.rint(sums / (ONE * FINE // STEPS))
    index += REACH
    return np.asarray(table.take(index.astype(np.intp), mode="clip"))


def whitener(moments: Doubles) -> Floats:
    """Return R times `SCALE`, rounded, so that R C R^T is about the unit matrix.

    C is damped, and R scaled so that h.a' varies as much as h.a did. Without any
    variance R is the unit matrix.

    Args:
        moments: (H, H) E[h h^T], in any unit.
    """
    size = len(moments)
    variance = math.fsum(np.diagonal(moments)) / size
    if variance == 0:
        unit: Floats = np.eye(size, dtype=np.float32) * np.float32(SCALE)
        return unit
    damped = moments / variance
    damped[np.diag_indices(size)] += DAMPING
    inverse = inverse_factor(damped)
    squares = math.fsum(np.square(inverse).ravel())  # rounded once, whatever the order
    white = size - DAMPING * squares  # trace of R C R^T, from R (C + DAMPING) R^T = 1
    scale = SCALE * math.sqrt(size / white)
    return np.rint(inverse * scale).astype(np.float32)


def whitened(signs: Floats, whitener: Floats) -> Floats:
    """Return the directions R^T a of signs a: (..., H).

    Exact in float32: no entry of R exceeds sqrt((H + DAMPING) / DAMPING), which times
    `SCALE` and 128 units is below 2^24.
    """
    return np.asarray(signs @ (whitener / np.float32(SCALE)))


def preconditioned(sums: NDArray[np.int64], whitener: Floats) -> Doubles:
    """Return R^T G of integer sums G: (H, n), of which each is rounded once at most.

    Products of integers in float64 are exact in any order below 2^53; with sums that
    could pass it, Python's own integers are used.
    """
    left = whitener.astype(np.int64).T
    bound = left.shape[1] * int(np.abs(left).max()) * int(np.abs(sums).max())
    if bound < 1 << 53:
        product = left.astype(np.float64) @ sums.astype(np.float64)
        product += 0.0  # no -0.0, which libraries differ in
        return np.asarray(product / SCALE)
    exact = left.astype(object) @ sums.astype(object)
    return np.asarray(exact / SCALE, np.float64)


def inverse_factor(matrix: Doubles) -> Doubles:
    """Return the inverse of Cholesky's lower factor of a positive definite matrix.

    By columns and outer products, so that every number is rounded in the same order
    everywhere (Golub and Van Loan, Matrix Computations, 4.2.5 and 3.1.3).
    """
    both = matrix.copy()  # columns before j are the inverse's, the others the matrix's
    for j, row in enumerate(both):
        root = math.sqrt(row[j])
        column = both[j + 1 :, j] / root
        row[j] = 1
        row[: j + 1] /= root
        row[j + 1 :] = column  # as the factor's row: the matrix is symmetric
        both[j + 1 :, j] = 0
        both[j + 1 :] -= np.multiply.outer(column, row)
    return np.tril(both)

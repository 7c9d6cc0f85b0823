"""Directions that fit what they multiply: noise shaped to the covariance of states.

A perturbation ``a b^T`` of a matrix that reads a state h changes its sums by (h.a) b.
The numbers of h vary together, so that most random a ask about the same few
combinations of them, and seldom about the others. With a' = R^T a, where R h is white
(R C R^T = 1 for C = E[h h^T]), all combinations are asked about alike; the gradient
``sum r a' b^T`` = R^T (sum r a b^T) is preconditioned by C^-1, as the input factor of
K-FAC does it (Martens and Grosse 2015, arXiv 1503.05671).

All replicas must find the same R to the bit, from their weights and tokens alone. So
the states of a sample of the text are computed in fixed point: integers in float64,
whose products are exact in any order below 2^53 (with 256 units they stay below 2^38),
and tables in place of tanh. What follows (Cholesky's factor, its inverse) uses + - * /
sqrt element by element, never a product of a library, and ends in integers again.

Where many states are needed (`utilities.nodes`), coarser integers do, which
float32 holds: that is more than twice as fast.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.model import CHARACTERS, Floats, Layout, Tokens

Doubles: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.floating[Any]]  # whole numbers, exactly
Whiteners: TypeAlias = tuple[Floats, ...]  # of each layer (H, H), integers

SCALE = 256  # a whitener's integers are its entries times this
DAMPING = 0.1  # times the mean variance: directions below it are not blown up
SAMPLE_WINDOWS, SAMPLE_CHARACTERS = 128, 16

ONE = 1 << 10  # of a state
FINE = 1 << 12  # of a weight
LARGEST_WEIGHT = 64 * FINE
COARSE = 1 << 7  # of a state, where float32 holds the integers
ROOM = 1 << 23  # for their sums: float32 holds all integers up to twice that
STEPS = 1 << 9  # entries of a table for each unit of its argument
REACH = 8 * STEPS  # beyond +-8, tanh and the logistic function are flat
MOST_INNER = 4  # of what is inside a reset gate, where its slope is asked for
USUAL_SLOPES = (0.125, 0.125, 0.5, 0.25)  # of r, z, n and inside the reset gate
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
    states = fixed.states(windows)  # for each layer (characters + 1, windows, H)
    count = windows.size
    flattened = (every[1:].reshape(count, -1) for every in states)
    return [(h.T @ h) / count for h in flattened]  # the sum is exact, one rounding


class FixedPoint:
    """The clean model in integers."""

    def __init__(self, layout: Layout, flat: Floats, one: int = ONE) -> None:
        """Round the weights.

        Args:
            layout: of the model.
            flat: (P,) weights.
            one: of a state: `ONE`, or `COARSE` for float32.
        """
        self._layout = layout
        self._one = one
        with np.errstate(invalid="ignore", over="ignore"):
            scaled = np.rint(np.nan_to_num(flat.astype(np.float64)) * FINE)
        clipped = np.clip(scaled, -LARGEST_WEIGHT, LARGEST_WEIGHT)
        fine = _room(layout, clipped) if one == COARSE else FINE
        # Weights that leave no room take float64: as coarse, but as exact.
        narrow = one == COARSE and fine * one >= STEPS
        self._dtype: type[np.floating[Any]] = np.float32 if narrow else np.float64
        if narrow and fine < FINE:
            clipped = np.rint(clipped / (FINE // fine))
        self._tanh, self._logistic = (
            np.rint(table / (ONE // one)).astype(self._dtype)
            for table in (TANH, LOGISTIC)
        )
        # Sums come in units of a table's steps: a power of two changes no digit.
        self._unit = unit = one * (fine if narrow else FINE) // STEPS
        self._views = {}
        for t in layout.tensors:
            view = clipped[t.start : t.start + t.size].reshape(t.shape) / unit
            if t.inputs in (None, CHARACTERS):
                view = view * one
            self._views[t.name] = view.astype(self._dtype)
        self._characters = self._views["Wx0"] + self._views["b0"]

    def states(self, windows: Tokens, first: int = 0) -> list[Integers]:
        """Return each layer's states: (characters + 1, windows, H).

        Args:
            windows: (characters, windows) tokens, from a zero state.
            first: character before which the first state is that is returned; those
                before it are read too.
        """
        shape = (windows.shape[1], self._layout.hidden_size)
        layers = range(self._layout.n_layers)
        kept = len(windows) - first + 1
        every = [np.zeros((kept, *shape), self._dtype) for _ in layers]
        h = [np.zeros(shape, self._dtype) for _ in layers]
        spare = [np.empty(shape, self._dtype) for _ in layers]
        cell = self._gru if self._layout.model_type == "gru" else self._rnn
        for t, now in enumerate(windows, 1 - first):
            x = self._characters.take(now, axis=0)
            for layer in layers:
                if layer:
                    x = self._from_below(layer, h[layer - 1])
                out = spare[layer] if t < 0 else every[layer][t]
                cell(layer, x, h[layer], out)
                if t < 0:
                    spare[layer] = h[layer]
                h[layer] = out
        return every

    def _from_below(self, layer: int, below: Integers) -> Integers:
        """Return what a layer's sums are but for its own state."""
        x: Integers = below @ self._views[f"Wx{layer}"]
        x += self._views[f"b{layer}"]
        return x

    def slopes(
        self, layer: int, windows: Tokens, states: Sequence[Integers]
    ) -> NDArray[np.float32]:
        """Return by how much a state moves with each of the sums that lead to it.

        Of tanh it is 1 - h^2. Of a GRU's gates, and of what is inside its reset gate,
        it is in units of what is usual there: gates move a state little.

        Args:
            layer: which one.
            windows: (T, windows) tokens after the first states.
            states: of each layer (T + 1, windows, H), the first before all tokens.

        Returns:
            (T, windows, H), or (T, windows, 4 H) of r, z, n and inside.
        """
        h = states[layer].astype(np.float32, copy=False)
        square = np.float32(self._one**2)
        if self._layout.model_type == "rnn":
            curve: NDArray[np.float32] = square - h[1:] * h[1:]
            curve /= square
            return curve
        if layer:
            x = self._from_below(layer, states[layer - 1][1:])
        else:
            x = self._characters.take(windows, axis=0)
        gates, inner, new = self._gates(layer, x, states[layer][:-1])
        about = gates, np.rint(inner), new
        gates, inner, n = (each.astype(np.float32, copy=False) for each in about)
        np.clip(inner, -MOST_INNER * STEPS, MOST_INNER * STEPS, out=inner)
        rest = self._one - gates  # of r and z: 1 - r, 1 - z
        size, cube = self._layout.hidden_size, square * self._one
        through = (square - n * n) * rest[..., size:] / cube
        bent = gates * rest / square  # the slope of the logistic function
        slopes = through * (inner / np.float32(STEPS)) * bent[..., :size]
        passed = (h[:-1] - n) * bent[..., size:] / np.float32(self._one)
        inside = through * gates[..., :size] / np.float32(self._one)
        each = zip(USUAL_SLOPES, (slopes, passed, through, inside), strict=True)
        return np.concatenate([part / np.float32(u) for u, part in each], axis=-1)

    def _rnn(self, layer: int, x: Integers, h: Integers, out: Integers) -> None:
        x += h @ self._views[f"Wh{layer}"]
        looked_up(self._tanh, x, out)

    def _gru(self, layer: int, x: Integers, h: Integers, out: Integers) -> None:
        gates, _, out[...] = self._gates(layer, x, h)
        keep = gates[..., self._layout.hidden_size :]
        out += np.rint(keep * (h - out) / self._one)

    def _gates(
        self, layer: int, x: Integers, h: Integers
    ) -> tuple[Integers, Integers, Integers]:
        """Return r and z side by side, what is inside the reset gate, and n."""
        size, one, unit = self._layout.hidden_size, self._one, self._unit
        sums = h @ self._views[f"Wh{layer}"]
        gates = np.empty_like(sums[..., : 2 * size])
        looked_up(self._logistic, sums[..., : 2 * size] + x[..., : 2 * size], gates)
        inner = sums[..., 2 * size :] + self._views[f"bn{layer}"]
        reset = np.rint(inner * (unit / one)) * gates[..., :size] / unit
        new = np.empty_like(inner)
        looked_up(self._tanh, reset + x[..., 2 * size :], new)
        return gates, inner, new


def _room(layout: Layout, clipped: Doubles) -> int:
    """Return the finest unit of weights, at most `FINE`, with sums that float32 holds.

    Args:
        layout: of the model.
        clipped: (P,) weights in units of 1 / FINE.
    """
    most = 0.0
    for t in layout.tensors[:-2]:  # all but the output layer
        sizes = np.abs(clipped[t.start : t.start + t.size]).reshape(t.shape)
        read = layout.state_read(t) is not None
        most += float((sizes.sum(axis=0) if read else sizes).max())
    fine = FINE
    while fine > 1 and most * COARSE * fine > ROOM * FINE:
        fine //= 2
    return fine


def looked_up(table: Integers, sums: Integers, out: Integers) -> None:
    """Take a table's function of sums in units of 1 / STEPS, which are overwritten."""
    np.rint(sums, out=sums)
    sums += REACH
    table.take(sums.astype(np.intp), mode="clip", out=out)


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
    `SCALE` and 256 units is below 2^24.
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


def unshaped(layout: Layout) -> Whiteners:
    """Return whiteners that leave all states as they are."""
    unit: Floats = np.eye(layout.hidden_size, dtype=np.float32) * np.float32(SCALE)
    return (unit,) * layout.n_layers


class Whitener:
    """R, so coarse that products with states are exact in float32."""

    def __init__(self, whitener: Floats, one: int, top: int) -> None:
        """Take R, and which integers white states are to be.

        Args:
            whitener: (H, H) integers.
            one: of a white state.
            top: the largest integer; half of it beyond 1,024 units.
        """
        most = float(np.abs(whitener, dtype=np.float64).sum(axis=1).max())
        shift = 1
        while most * COARSE / shift + len(whitener) * COARSE / 2 > 2 * ROOM:
            shift *= 2
        self._factor = np.rint(whitener / np.float32(shift)).T.astype(np.float32)
        self._unit = np.float32(COARSE * SCALE / shift / one)
        self._top = top if len(whitener) <= 1 << 10 else top // 2

    def of(self, states: Integers) -> Floats:
        """Return R h in integers, of states in units of 1 / `COARSE`: (..., H)."""
        flat = states.reshape(-1, states.shape[-1]).astype(np.float32, copy=False)
        white: Floats = flat @ self._factor
        white /= self._unit
        np.rint(white, out=white)
        np.clip(white, -self._top, self._top, out=white)
        return white.reshape(states.shape)


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

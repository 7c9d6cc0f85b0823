"""What trials tell of the sums inside their window: nodes are estimated, not weights.

At each character the sums that lead into a layer are moved by ``sigma z b``: b the
signs of their wires, and z one number, ``h.a`` of the state that is read, plus the sign
of the character that is read, plus 1 for the bias, each times its scale. So the loss of
a window depends on all other signs by these few z alone. What K trials of a window say
of the derivatives by its sums is, in the best linear estimate,

    D = Q^-1 sum r z b^T        Q = E z z^T over the signs, which is known    (T, n)

and of a matrix it is what a product's gradient always is: its inputs, transposed, times
D. That is ``H^T D`` for a state (a white one, as directions are); for a character that
was read its rows of D; for the bias the sum of them. An estimate is conditioned on what
the loss depends on (Rao 1945, Blackwell 1947): to first order nothing is lost, and what
is left out is noise, that of the weights' own signs and of one matrix beside another.
That noise on nodes varies less than noise on weights is well known (Werfel, Xie and
Seung 2005; Ren et al. 2023, arXiv 2210.03310). Here clients perturb weights, as ever.

Q gets a ridge: what is along directions in which z hardly differ is shrunk instead of
trusted. And since a saturated unit passes nothing on, what a trial says of its sum is
noise: D is multiplied by the square of the slope there, as an estimate is shrunk whose
size varies in a known way and which is nearly all noise (Wiener 1949).

All replicas must find the same to the bit. So states are integers (`FixedPoint`), and
so are their products, which float32 holds whatever the order; systems are solved, and D
is scaled, element by element, by + - * / sqrt; what comes out is rounded to integers.
The inverse is finer than these: of many states that are nearly alike its rows nearly
cancel out, and what is left of them counts. So its products are those of float64.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utilities.model import CHARACTERS, Floats, Layout, Tensor, Tokens
from utilities.noise import Signs, weighted
from utilities.rewards import LARGEST_REWARD, REWARD_SCALE
from utilities.whitening import (
    COARSE,
    Doubles,
    FixedPoint,
    Whitener,
    Whiteners,
    unshaped,
)

RIDGE = 0.1  # times the mean square of z
TOP = 127  # the largest integer of a white state; half of it beyond 1,024 units
ONE = 32  # of a white state
MOST = 63  # the largest integer of D
USUAL = 12  # its deviation, about, where no unit is saturated
WHOLE = 1 << 16  # of an inverse, times what it is damped by
EXACT = 1 << 24  # float32 holds all integers up to here
ROWS = EXACT // (TOP * MOST)  # places of one exact product
USUAL_SQUARE = 0.3  # of a state's number


@dataclass(frozen=True)
class Reading:
    """Tensors that move the same sums together, by one z."""

    tensors: tuple[Tensor, ...]
    columns: slice  # of the tensors, and of the bundle that they write
    layer: int | None  # whose sums they are; None: the logits
    slopes: slice | None  # of `FixedPoint.slopes`; None: the logits have none
    scales: tuple[int, ...]  # of each tensor's part of z, in units of 1 / `ONE`
    unit: float  # of D

    @property
    def outputs(self) -> str:
        """Return the bundle that is written."""
        return self.tensors[0].outputs


def readings(layout: Layout, directions: int) -> tuple[Reading, ...]:
    """Return what sums a model has.

    Args:
        layout: of the model.
        directions: that share a window.
    """
    result, named = [], {t.name: t for t in layout.tensors}
    for layer in range(layout.n_layers):
        names = (f"{name}{layer}" for name in ("Wx", "Wh", "b", "bn"))
        x, h, b, *inner = (named[name] for name in names if name in named)
        result += [
            _reading(layout, directions, layer, *about)
            for about in _of_layer(layout.hidden_size, x, h, b, *inner)
        ]
    whole = slice(0, layout.vocab_size)
    last = _reading(layout, directions, None, layout.tensors[-2:], whole, None)
    return (*result, last)


def _of_layer(
    size: int, x: Tensor, h: Tensor, b: Tensor, *inner: Tensor
) -> list[tuple[tuple[Tensor, ...], slice, slice]]:
    """Return tensors, columns and slopes of a layer's readings."""
    if not inner:
        whole = slice(0, size)
        return [((x, h, b), whole, whole)]
    gates, new, reset = slice(0, 2 * size), slice(2 * size, 3 * size), slice(0, size)
    inside = slice(3 * size, 4 * size)  # the reset gate, by which these are multiplied
    return [
        ((x, h, b), gates, gates),
        ((x, b), new, new),
        ((h,), new, inside),
        (inner, reset, inside),
    ]


def _reading(
    layout: Layout,
    directions: int,
    layer: int | None,
    tensors: tuple[Tensor, ...],
    columns: slice,
    slopes: slice | None,
) -> Reading:
    scales = layout.scales
    state = scales.outputs if layer is None else scales.states
    each, mean = [], 0.0
    for tensor in tensors:
        reads = layout.state_read(tensor) is not None
        each.append(1 if reads else round(ONE * scales.of(tensor) / state))
        size = USUAL_SQUARE * ONE**2 * layout.hidden_size
        mean += size if reads else each[-1] ** 2
    unit = USUAL / REWARD_SCALE * math.sqrt(mean / directions)
    return Reading(tensors, columns, layer, slopes, tuple(each), unit)


def units(layout: Layout, directions: int) -> Doubles:
    """Return what each weight's sum is to be divided by: (P,)."""
    result = np.empty(layout.size)
    for reading in readings(layout, directions):
        for tensor, scale in zip(reading.tensors, reading.scales, strict=True):
            part = result[tensor.start : tensor.start + tensor.size]
            part.reshape(tensor.shape)[..., reading.columns] = reading.unit / scale
    return result


class Nodes:
    """What one step's weights make of trials; equal bits everywhere."""

    def __init__(
        self,
        layout: Layout,
        weights: Floats,
        shaped: Whiteners,
        before: int,
        directions: int,
    ) -> None:
        """Prepare.

        Args:
            layout: of the model.
            weights: (P,) before the step.
            shaped: whiteners of the step; none where noise is not shaped.
            before: characters of a window that clean weights read.
            directions: that share a window.
        """
        self.layout, self.before, self.directions = layout, before, directions
        self.fixed = FixedPoint(layout, weights, COARSE)
        self.white = [Whitener(r, ONE, TOP) for r in shaped or unshaped(layout)]
        self.readings = readings(layout, directions)

    def sums(
        self, windows: Tokens, signs: Signs, inner: Floats, outer: Floats
    ) -> Iterator[tuple[Tensor, Doubles]]:
        """Yield each tensor's sum over the trials of some groups.

        Args:
            windows: (characters + 1, groups, w), those before included.
            signs: of the groups' directions, (directions, size).
            inner: (directions,) rewards for what is not the output layer.
            outer: (directions,) rewards for the output layer.
        """
        tensors = self.layout.tensors
        found = {t.name: np.empty(t.shape) for t in tensors}
        chunk = _Chunk(self, windows, signs)
        for reading in self.readings:
            rewards = outer if reading.layer is None else inner
            derivatives = chunk.derivatives(reading, rewards)
            for tensor in reading.tensors:
                part = chunk.product(reading, tensor, derivatives)
                found[tensor.name][..., reading.columns] = part
        yield from ((tensor, found[tensor.name]) for tensor in tensors)


class _Chunk:
    """What the trials of some groups have read and drawn."""

    def __init__(self, nodes: Nodes, windows: Tokens, signs: Signs) -> None:
        self._nodes, self._layout, self._signs = nodes, nodes.layout, signs
        self._groups = windows.shape[1]
        self._read = windows[nodes.before : -1]  # (T, groups, w)
        flat = windows[:-1].reshape(len(windows) - 1, -1)
        self._states = nodes.fixed.states(flat, nodes.before)
        self._white = [
            white.of(states)
            for white, states in zip(nodes.white, self._states, strict=True)
        ]
        self._known: dict[object, Floats] = {}

    def _by_group(self, each: NDArray[Any]) -> NDArray[Any]:
        """Return numbers of (T, groups * w, n) by group: (groups, places, n)."""
        apart = each.reshape(len(each), self._groups, -1, each.shape[-1])
        return np.swapaxes(apart, 0, 1).reshape(self._groups, -1, each.shape[-1])

    @cached_property
    def _characters(self) -> NDArray[np.intp]:
        """Return the character at each place: (groups, places)."""
        places = np.swapaxes(self._read, 0, 1).reshape(self._groups, -1)
        return places.astype(np.intp)

    @cached_property
    def _same(self) -> Floats:
        """Return 1 for places with the same character: (groups, places, places)."""
        c = self._characters
        return np.asarray(c[:, :, None] == c[:, None], np.float32)

    def _inputs(self, reading: Reading, tensor: Tensor) -> Floats:
        """Return the white states that a tensor reads: (groups, places, H)."""
        layer = self._layout.state_read(tensor)
        assert layer is not None, tensor.name
        later = layer != reading.layer  # the state that the character has led to
        if (layer, later) not in self._known:
            white = self._white[layer]
            each = self._by_group(white[1:] if later else white[:-1])
            self._known[layer, later] = each
        return self._known[layer, later]

    def _drawn(self, name: str) -> Floats:
        """Return the signs of a bundle by group: (groups, directions, size)."""
        return self._signs[name].reshape(self._groups, self._nodes.directions, -1)

    def _rewarded(self, name: str, rewards: Floats) -> Floats:
        """Return the signs of a bundle times rewards, by group."""
        if name not in self._known:
            rewarded = weighted(rewards, self._signs[name])
            each = rewarded.reshape(self._groups, self._nodes.directions, -1)
            self._known[name] = each
        return self._known[name]

    def _moved(self, reading: Reading) -> tuple[Floats, Floats]:
        """Return z, (groups, places, directions), and Q, (groups, places, places)."""
        shape = self._characters.shape
        z = np.zeros((*shape, self._nodes.directions), np.float32)
        q = np.zeros((*shape, shape[1]), np.float32)
        for tensor, scale in zip(reading.tensors, reading.scales, strict=True):
            if tensor.inputs is None:
                z += scale
                q += scale**2
            elif tensor.inputs == CHARACTERS:
                signs, read = self._drawn(CHARACTERS), self._characters[:, None]
                each = np.take_along_axis(signs, read, axis=2)
                z += scale * np.swapaxes(each, 1, 2)
                q += scale**2 * self._same
            else:
                h = self._inputs(reading, tensor)
                z += np.matmul(h, np.swapaxes(self._drawn(tensor.inputs), 1, 2))
                q += np.matmul(h, np.swapaxes(h, 1, 2))
        return z, q

    def derivatives(self, reading: Reading, rewards: Floats) -> Floats:
        """Return D, in units of 1 / `Reading.unit`: (groups * places, n) integers.

        Factors are cut and rounded so that products in float32 stay below 2^24.
        """
        each = self._nodes.directions
        most = EXACT // (LARGEST_REWARD * each)
        fine = 1 << (most // 4).bit_length() - 1
        z, q = self._moved(reading)
        inverse, unit, root = ridge_inverse(q.transpose(1, 2, 0))
        solved = np.matmul(inverse.transpose(2, 0, 1), z.astype(np.float64))
        solved *= (unit * root * np.float32(fine))[:, None, None]
        np.clip(np.rint(solved, out=solved), -most, most, out=solved)
        signs = self._rewarded(reading.outputs, rewards)[:, :, reading.columns]
        found: Floats = np.matmul(solved.astype(np.float32), signs)
        found *= (np.float32(reading.unit / fine) / root)[:, None, None]
        if reading.layer is not None:
            found *= self._squares(reading.layer)[:, :, reading.slopes]
        np.rint(found, out=found)
        np.clip(found, -MOST, MOST, out=found)
        return found.reshape(-1, found.shape[2])

    def _squares(self, layer: int) -> Floats:
        """Return the squares of a layer's slopes: (groups, places, n)."""
        if ("squares", layer) not in self._known:
            read = self._read.reshape(len(self._read), -1)
            slopes = self._nodes.fixed.slopes(layer, read, self._states)
            squares = self._by_group(slopes)
            squares *= squares
            self._known["squares", layer] = squares
        return self._known["squares", layer]

    def product(self, reading: Reading, tensor: Tensor, derivatives: Floats) -> Doubles:
        """Return a tensor's inputs, transposed, times D: (m, n), of a bias (n,)."""
        if tensor.inputs is None:
            return np.asarray(derivatives.sum(axis=0, dtype=np.float64))
        if tensor.inputs == CHARACTERS:
            # Of a large vocabulary only what was read: a place's input is one 1.
            read, columns = np.unique(self._characters, return_inverse=True)
            inputs = np.zeros((len(derivatives), len(read)), np.float32)
            inputs[np.arange(len(inputs)), columns.ravel()] = 1
            result = np.zeros((self._layout.vocab_size, derivatives.shape[1]))
            result[read] = exact_product(inputs, derivatives)
            return result
        inputs = self._inputs(reading, tensor).reshape(len(derivatives), -1)
        return exact_product(inputs, derivatives)


def exact_product(inputs: Floats, derivatives: Floats) -> Doubles:
    """Return X^T D of integers up to `TOP` and `MOST`: (rows, m), (rows, n) -> (m, n).

    So many rows at a time that float32 holds all sums; those are added in float64.
    """
    result = np.zeros((inputs.shape[1], derivatives.shape[1]))
    for first in range(0, len(inputs), ROWS):
        rows = slice(first, first + ROWS)
        result += inputs[rows].T @ derivatives[rows]
    return result


def ridge_inverse(gram: Floats) -> tuple[Doubles, Floats, Floats]:
    """Return (G + m)^-1 of many matrices at once, m = `RIDGE` times the mean square.

    By Gauss and Jordan's elimination, element by element, so that every number is
    rounded in the same order everywhere; with the ridge no pivot is small (Golub and
    Van Loan, Matrix Computations, 3.4 and 4.1).

    Args:
        gram: (d, d, n) integers, symmetric, without a negative eigenvalue.

    Returns:
        (d, d, n) integers, up to `WHOLE` and 1; by what they are to be multiplied,
        (n,); the root of m, (n,).
    """
    rows = np.array(gram, np.float32, order="C")
    count = len(rows)
    damping = np.zeros(rows.shape[2], np.float32)
    for j in range(count):
        damping += rows[j, j]
    damping *= np.float32(RIDGE / count)
    damping += 1  # all may be 0
    for j in range(count):
        rows[j, j] += damping
    for j in range(count):  # columns before j are the inverse's
        pivot = 1 / rows[j, j]
        rows[j, j] = 1
        rows[j] *= pivot
        column = rows[:, j].copy()
        column[j] = 0
        rows[:, j][np.arange(count) != j] = 0
        rows -= column[:, None] * rows[j]
    scale = damping * np.float32(WHOLE)
    rows *= scale
    return np.rint(rows).astype(np.float64), 1 / scale, np.sqrt(damping)

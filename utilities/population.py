"""The losses of many perturbed copies of a model at once: the program's hot loop.

Every row of the batch is one copy on one window: for each group its K trials and the
clean weights, or the two sides of an antithetic pair. One matrix product per layer and
time step serves them all, because ``x (W + sigma a b^T) = x W + sigma (x.a) b``. Four
things make it fast:

- Signs belong to bundles of wires (`utilities.model`), so the scalar ``sigma h.a`` of a
  state serves every matrix that reads it, and one product ``b d`` every tensor that
  writes there, the bias included.
- Output noise has trials of its own (`utilities.outputs`), or never touches the
  logits: of each copy its part in the sum over the vocabulary is found as there.
- Rows lie by copy, then group, then window: what all copies of a group read is added
  in runs as long as a copy of every group, and clean copies lie side by side. The gates
  of a GRU lie one after the other, each in one piece.
- Exponentials are taken as they come. Where one left float32's range, which biases,
  sums and chosen ones show, logits are formed and shifted by their maximum.

Buffers are made once and every operation names its output.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from utilities.model import LOGITS, Floats, Layout, Tokens, surprise
from utilities.outputs import LEAST, SAFE_SHIFT, OutputTrials

MOST_BIAS = 87.0  # whose exponential has all digits, up or down
MARGIN = 1e10  # of a sum over what its terms may have lost that were too small
HALF = np.float32(0.5)
SHORT = 32  # of a row, to which products by row cost more than two calls for all


class Population:
    """One batch of perturbed copies."""

    def __init__(
        self,
        layout: Layout,
        flat: Floats,
        signs: Mapping[str, Floats],
        sigma: float,
        windows: Tokens,
        copies: int,
        outputs: OutputTrials | None = None,
        begun: Sequence[Floats] = (),
    ) -> None:
        """Prepare a batch.

        Args:
            layout: of the model.
            flat: (P,) weights.
            signs: of each bundle (groups, copies, size); zero rows are clean copies.
            sigma: standard deviation of the noise.
            windows: (T + 1, groups, w) tokens.
            copies: of each group.
            outputs: read what the last copy of each group reads, which is a clean one;
                no other one has output noise then, and `logits` are not looked at.
            begun: (groups, w, H) the state of each layer that all copies begin with;
                nothing: zero states.
        """
        self._layout = layout
        self._begun = begun
        self._outputs = outputs
        self._views = layout.views(flat)
        self._windows = windows
        self._steps, (groups, w) = len(windows) - 1, windows.shape[1:]
        self._shape = (copies, groups, w)
        self._rows = copies * groups * w
        self._gates = layout.width // layout.hidden_size
        # Of what reads a constant or a character; a state; a state for the logits.
        scales = layout.scales
        self._sigma = np.float32(sigma * scales.inputs)
        self._state_sigma = np.float32(sigma * scales.states)
        self._output_sigma = np.float32(sigma * scales.outputs)
        self._to_output = np.float32(scales.outputs / scales.states)
        used = [name for name in signs if outputs is None or name != LOGITS]
        self._signs = {name: self._spread(signs[name]) for name in used}
        self._places = self._index(windows)
        self._read_characters()
        self._prepare_layers()
        self._prepare_output()

    def _spread(self, each: Floats) -> Floats:
        """Repeat the signs of a copy for each of its windows: (rows, size)."""
        each, windows = np.swapaxes(each, 0, 1), self._shape[2]
        if windows > 1:
            each = np.repeat(each, windows, axis=1)
        return np.ascontiguousarray(each).reshape(self._rows, -1)

    def _by_gate(self, array: Floats) -> Floats:
        """Lay the gates one after the other: (n, width) -> (gates, n, H)."""
        apart = array.reshape(len(array), self._gates, -1)
        return np.ascontiguousarray(np.swapaxes(apart, 0, 1))

    def _index(self, tokens: Tokens) -> NDArray[np.intp]:
        """Return where each row's character lies in a flat (rows, V): (t, rows)."""
        size = self._layout.vocab_size
        first = np.arange(self._rows).reshape(self._shape) * size
        index = tokens.astype(np.intp)[:, None] + first
        return np.asarray(index).reshape(len(tokens), -1)

    def _read_characters(self) -> None:
        """Gather what the characters bring: clean rows and the scalars of noise."""
        tokens, views = self._windows[:-1], self._views
        table = self._by_gate(views["Wx0"] + views["b0"])  # (gates, V, H)
        # One for all copies of a group: (gates, T, 1, groups * w * H).
        each = table.take(tokens.reshape(self._steps, -1), axis=1)
        self._embedded = each.reshape(self._gates, self._steps, 1, -1)
        a = self._signs["characters"].ravel()
        self._shifts = a.take(self._places[:-1], mode="clip")  # (T, rows)
        self._shifts += 1  # the bias reads the constant 1
        self._shifts *= self._sigma

    def _prepare_layers(self) -> None:
        layout, rows = self._layout, self._rows
        size, layers = layout.hidden_size, range(layout.n_layers)
        self._state = [np.zeros((rows, size), np.float32) for _ in layers]
        self._dots = [np.zeros(rows, np.float32) for _ in layers]  # sigma h.a
        sigma = self._state_sigma
        self._a = [self._signs[f"state{layer}"] * sigma for layer in layers]
        self._b = [self._by_gate(self._signs[f"gates{layer}"]) for layer in layers]
        self._recurrent = [self._by_gate(self._views[f"Wh{x}"]) for x in layers]
        # Of layers that read a state; b is spread over the rows of one copy.
        each, self._inputs, self._bias = (rows // self._shape[0], 1), {}, {}
        for layer in layers[1:]:
            bias = self._by_gate(np.tile(self._views[f"b{layer}"], each))
            self._bias[layer] = bias.reshape(self._gates, 1, -1)
            self._inputs[layer] = self._by_gate(self._views[f"Wx{layer}"])
        self._pre = np.empty((self._gates, rows, size), np.float32)
        # The same as (gates, copies, groups * w * H).
        self._parts = self._pre.reshape(self._gates, self._shape[0], -1)
        self._noise = np.empty_like(self._pre)
        self._product = np.empty_like(self._pre)
        self._shift = np.empty((rows, 1), np.float32)
        self._ones = np.ones(size, np.float32)
        if layout.model_type == "gru":
            self._prepare_gates()

    def _prepare_gates(self) -> None:
        """Halve what leads into a GRU's gates, and n's part inside the reset gate."""
        halves = np.array([HALF, HALF, 1], np.float32)[:, None, None]
        self._embedded *= halves[..., None]
        self._recurrent = [matrix * HALF for matrix in self._recurrent]
        self._inputs = {x: matrix * halves for x, matrix in self._inputs.items()}
        self._bias = {x: vector * halves for x, vector in self._bias.items()}
        self._b = [b * HALF for b in self._b]
        self._inner = []
        for layer in range(self._layout.n_layers):
            noise = self._signs[f"inner{layer}"] * self._sigma
            self._inner.append((noise + self._views[f"bn{layer}"]) * HALF)

    def _prepare_output(self) -> None:
        rows, steps, size = self._rows, self._steps, self._layout.vocab_size
        self._exps = np.empty((rows, size), np.float32)
        self._sums = np.empty((steps, rows), np.float32)  # sum E
        if self._outputs is None:
            self._output_shifts = np.empty((steps, rows), np.float32)  # s
            self._signed_sums = np.empty((steps, rows), np.float32)  # sum E b
        self._targets = np.empty((steps, rows), np.float32)  # E of the next character

    def losses(self) -> Floats:
        """Return the mean negative log-likelihood of each copy: (groups, copies).

        In nats per character, over the characters of its windows.
        """
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            total = self._fast_total()
        if total is None:
            total = self._safe_total()
        mean = (total / np.float32(self._steps)).reshape(self._shape).mean(axis=2)
        return np.ascontiguousarray(mean.T, np.float32)

    def _restart(self) -> None:
        """Return to the state in which each window begins."""
        for buffer in (*self._state, *self._dots):
            buffer.fill(0)
        for layer, begun in enumerate(self._begun):
            self._state[layer].reshape(*self._shape, -1)[...] = begun
            self._multiply(self._state[layer], self._a[layer], self._dots[layer])
        if self._outputs is not None:
            self._outputs.restart()

    def _clean(self, rows: Floats) -> Floats:
        """Return what belongs to the last copies of groups: (groups, w, n)."""
        return np.asarray(rows.reshape(*self._shape, -1)[-1])

    def _fast_total(self) -> Floats | None:
        """Return the sum over characters; None: an exponential left the range."""
        if not np.abs(self._views["bo"]).max() <= MOST_BIAS:
            return None
        self._restart()
        self._frequencies = np.exp(self._views["bo"])
        if self._outputs is None:
            self._signed = self._signs[LOGITS] * self._frequencies
        states, exps = self._clean(self._state[-1]), self._clean(self._exps)
        for t in range(self._steps):
            for layer in range(self._layout.n_layers):
                self._advance(layer, t)
            self._score(t)
            if self._outputs is None:
                self._sum_signs(t)
            elif not self._outputs.take(states, exps):
                return None
        surprises = self._surprises()
        if surprises is None:
            return None
        total = surprises.sum(axis=0)
        bias = self._views["bo"].take(self._windows[1:]).sum(axis=0)  # (groups, w)
        total.reshape(self._shape)[...] -= bias
        return np.asarray(total)

    def _safe_total(self) -> Floats:
        self._restart()
        total = np.zeros(self._rows, np.float32)
        for t in range(self._steps):
            for layer in range(self._layout.n_layers):
                self._advance(layer, t)
            total += self._score_safely(t)
        return total

    # One character.

    def _advance(self, layer: int, t: int) -> None:
        """Read one more character: the new state of a layer and its scalar."""
        np.matmul(self._state[layer], self._recurrent[layer], out=self._pre)
        if layer == 0:
            inputs, shift = self._embedded[:, t], self._shifts[t]
        else:
            below = self._state[layer - 1]
            np.matmul(below, self._inputs[layer], out=self._product)
            inputs, shift = self._bias[layer], self._dots[layer - 1] + self._sigma
        # Not by an attribute: an object that holds its own method waits for the garbage
        # collector, with megabytes of buffers.
        cell = self._gru if self._layout.model_type == "gru" else self._rnn
        cell(layer, inputs, shift)
        self._multiply(self._state[layer], self._a[layer], self._dots[layer])

    def _multiply(self, h: Floats, a: Floats, out: Floats) -> None:
        """Take the product of each row with its direction: h.a."""
        if h.shape[1] > SHORT:
            np.vecdot(h, a, out=out)
        else:  # row by row is slow
            np.multiply(h, a, out=self._noise[0])
            np.matmul(self._noise[0], self._ones, out=out)

    def _rnn(self, layer: int, inputs: Floats, shift: Floats) -> None:
        """Compute h = tanh(x Wx + h Wh + b + noise)."""
        pre, noise = self._pre, self._noise
        np.add(self._dots[layer], shift, out=self._shift[:, 0])
        np.multiply(self._b[layer], self._shift, out=noise)
        pre += noise
        if layer:
            pre += self._product
        self._parts += inputs
        np.tanh(pre[0], out=self._state[layer])

    def _gru(self, layer: int, inputs: Floats, shift: Floats) -> None:
        """Compute PyTorch's equations; all but n's inputs were halved beforehand.

        A logistic gate is (1 + tanh(x / 2)) / 2: halves are all that is needed, and
        gates come out twice as large as they are.
        """
        h, b, pre, noise = self._state[layer], self._b[layer], self._pre, self._noise
        (r, z, inner), gates, parts = pre, pre[:2], self._parts
        np.add(self._dots[layer], shift, out=self._shift[:, 0])
        np.multiply(b[:2], self._shift, out=noise[:2])
        np.multiply(b[2], self._dots[layer][:, None], out=noise[2])
        pre += noise
        parts[:2] += inputs[:2]
        if layer:
            gates += self._product[:2]
        np.tanh(gates, out=gates)
        gates += 1  # twice r and z
        inner += self._inner[layer]
        inner *= r
        parts[2] += inputs[2]
        if layer:
            inner += self._product[2]
        np.multiply(b[2], 2 * shift[:, None], out=noise[2])
        inner += noise[2]
        np.tanh(inner, out=inner)  # n
        h -= inner
        h *= z
        h *= HALF
        h += inner  # n + z (h - n)

    def _score(self, t: int) -> None:
        """Take the sums that the likelihood of the next character needs."""
        top, exps = self._state[-1], self._exps
        np.matmul(top, self._views["Wo"], out=exps)
        np.exp(exps, out=exps)
        np.matmul(exps, self._frequencies, out=self._sums[t])
        flat = exps.reshape(-1)
        flat.take(self._places[t + 1], out=self._targets[t], mode="clip")

    def _sum_signs(self, t: int) -> None:
        """Take the sums that output noise needs."""
        self._output_shifts[t] = self._dots[-1]  # brought to its scale at the end
        np.vecdot(self._exps, self._signed, out=self._signed_sums[t])

    def _surprises(self) -> Floats | None:
        """Return the surprise of each character, (T, rows); None: it is not exact.

        The target's bias is still to be taken off.
        """
        if self._outputs is None and not self._add_output_noise():
            return None
        sums, targets, bias = self._sums, self._targets, self._views["bo"]
        lost = LEAST * len(bias) * math.exp(bias.max())  # at most, of any sum
        held = sums.min() >= MARGIN * lost and sums.max() < np.inf  # false for NaN
        if not (held and targets.min() >= LEAST):
            return None
        # Not the logarithm of the quotient: that could overflow.
        surprises = np.log(sums, out=sums)
        surprises -= np.log(targets, out=targets)
        return surprises

    def _add_output_noise(self) -> bool:
        """Bring output noise into sums and targets; return whether that is exact."""
        shifts = self._output_shifts
        shifts *= self._to_output
        shifts += self._output_sigma
        if max(shifts.max(), -shifts.min()) > SAFE_SHIFT:
            return False
        tanh = np.tanh(shifts, out=shifts)
        chances = self._signs[LOGITS].ravel().take(self._places[1:], mode="clip")
        chances *= tanh
        chances += 1
        self._targets *= chances
        self._signed_sums *= tanh
        self._sums += self._signed_sums
        return True

    def _score_safely(self, t: int) -> Floats:
        """Return the surprise of the next character with logits that are shifted."""
        logits = self._state[-1] @ self._views["Wo"]
        logits += self._views["bo"]
        if self._outputs is None:
            shift = self._dots[-1] * self._to_output + self._output_sigma
            logits += self._signs[LOGITS] * shift[:, None]
        else:
            states = self._clean(self._state[-1])
            self._outputs.take_safely(t, states, self._clean(logits))
        tokens = np.broadcast_to(self._windows[t + 1], self._shape)
        return surprise(logits, tokens.reshape(-1))

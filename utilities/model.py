"""The language model: where its weights lie, what it computes, how it is updated.

All weights are one flat float32 vector of P numbers; `Layout` alone knows where each
tensor lies in it. V is the vocabulary, H the hidden units, L the layers:

    rnn   Wx0 (V, H)   Wx1.. (H, H)   Wh (H, H)    b (H,)     of each layer
    gru   Wx0 (V, 3H)  Wx1.. (H, 3H)  Wh (H, 3H)   b (3H,)  bn (H,)
    both  Wo (H, V)    bo (V,)

The three gates of a GRU stand side by side, r z n as PyTorch orders them, so that one
product serves all; ``b`` is the sum of its two bias vectors, ``bn`` the one inside the
reset gate. A network reads its tensors through `Products`: `Clean` gives the weights,
`Dense` other weights for each trial. Rank-1 noise has a path of its own, in
`utilities.population`.

Each tensor leads from one *bundle* of wires to another: from ``characters`` or the
``state`` of a layer (a bias: from a constant) to the ``gates`` of a layer or the
``logits``. Rank-1 noise draws signs for bundles, and a tensor's perturbation is
``a b^T`` of the bundles that it joins. No two tensors join the same two, so the entries
of any two perturbations are uncorrelated, as if each had signs of its own.

In shapes n is the rows of perturbations (trials), w the windows of each, T the
characters of a window. Nothing here draws noise, reads text or knows the time.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.config import MAX_PARAMETERS, Config
from utilities.errors import ConfigError

Floats: TypeAlias = NDArray[np.float32]
Tokens: TypeAlias = NDArray[np.integer[Any]]


CHARACTERS, LOGITS = "characters", "logits"  # the bundles at both ends


@dataclass(frozen=True)
class Tensor:
    """One named part of the flat vector."""

    name: str
    shape: tuple[int, ...]
    start: int
    inputs: str | None  # the bundle that it reads; None: a bias, which reads a constant
    outputs: str  # the bundle that it writes

    @property
    def size(self) -> int:
        """Return the number of weights."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Scales:
    """What noise and steps are multiplied by, in tensors of each kind."""

    inputs: float = 1.0  # from characters or a constant to gates
    states: float = 1.0  # from a state to gates
    outputs: float = 1.0  # to the logits

    def of(self, tensor: Tensor) -> float:
        """Return the scale of a tensor."""
        if tensor.outputs == LOGITS:
            return self.outputs
        return self.inputs if tensor.inputs in (CHARACTERS, None) else self.states


# A weight from state to state is used at every character and felt at all that follow:
# with equal noise everywhere, four fifths of what a loss varies by come from these.
FITTING = Scales(inputs=1.5, states=0.5, outputs=0.7)
NEWER = 5.0  # power with which older weights fade from their mean


class Layout:
    """Where each tensor of a model lies in the flat vector of weights."""

    def __init__(self, config: Config) -> None:
        if config.vocab_size is None:
            raise AssertionError("the vocabulary is sized before the model is laid out")
        self.scales = FITTING if config.scaled else Scales()
        self.model_type = config.model_type
        self.n_layers = config.n_layers
        self.hidden_size = config.hidden_size
        self.vocab_size = config.vocab_size
        self.tensors: tuple[Tensor, ...] = self._place()
        self.size = self.tensors[-1].start + self.tensors[-1].size
        if self.size > MAX_PARAMETERS:
            raise ConfigError(
                f"hiddenSize, nLayers, vocabSize: expected at most {MAX_PARAMETERS} "
                f"weights, got {self.size}"
            )

    def _plan(self) -> list[tuple[str, tuple[int, ...], str | None, str]]:
        """Return name, shape, inputs and outputs of each tensor, in order."""
        hidden, width = self.hidden_size, self.width
        plan: list[tuple[str, tuple[int, ...], str | None, str]] = []
        for layer in range(self.n_layers):
            state, gates = f"state{layer}", f"gates{layer}"
            below = f"state{layer - 1}" if layer else CHARACTERS
            inputs = hidden if layer else self.vocab_size
            plan.append((f"Wx{layer}", (inputs, width), below, gates))
            plan.append((f"Wh{layer}", (hidden, width), state, gates))
            plan.append((f"b{layer}", (width,), None, gates))
            if self.model_type == "gru":
                plan.append((f"bn{layer}", (hidden,), None, f"inner{layer}"))
        plan.append(
            ("Wo", (hidden, self.vocab_size), f"state{self.n_layers - 1}", LOGITS)
        )
        plan.append(("bo", (self.vocab_size,), None, LOGITS))
        return plan

    def _place(self) -> tuple[Tensor, ...]:
        tensors, start = [], 0
        for name, shape, inputs, outputs in self._plan():
            tensors.append(Tensor(name, shape, start, inputs, outputs))
            start += tensors[-1].size
        return tuple(tensors)

    @property
    def width(self) -> int:
        """Return how many sums lead into a layer: H, or 3 H for the gates of a GRU."""
        return self.hidden_size * (3 if self.model_type == "gru" else 1)

    @property
    def bundles(self) -> dict[str, int]:
        """Return the size of each bundle, in the order in which tensors name them."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors:
            if tensor.inputs is not None:
                sizes.setdefault(tensor.inputs, tensor.shape[0])
            sizes.setdefault(tensor.outputs, tensor.shape[-1])
        return sizes

    @cached_property
    def units(self) -> Floats:
        """Return the scale of each weight: (P,)."""
        each = [np.full(t.size, self.scales.of(t), np.float32) for t in self.tensors]
        return np.concatenate(each)

    def state_read(self, tensor: Tensor) -> int | None:
        """Return the layer whose state a tensor reads, None if it reads none."""
        bundle = tensor.inputs or ""
        return int(bundle[5:]) if bundle.startswith("state") else None

    def views(self, flat: Floats) -> dict[str, Floats]:
        """Return the tensors as views that share memory with the flat vector."""
        assert flat.shape == (self.size,), (flat.shape, self.size)
        assert flat.flags.c_contiguous
        assert flat.dtype == np.float32, flat.dtype
        return {
            t.name: flat[t.start : t.start + t.size].reshape(t.shape)
            for t in self.tensors
        }


def initial_weights(layout: Layout, seed: int, log_frequencies: Floats) -> Floats:
    """Return the weights of step 0, to be made once and shipped.

    `standard_normal` may differ between numpy versions, so nobody makes them again.
    The output bias starts at the log of the character frequencies (0.83 nats for free),
    recurrent products at half of Glorot's scale, a GRU's update gate at remembering.

    Args:
        layout: of the model.
        seed: of the run.
        log_frequencies: (V,) of the training text.
    """
    random = np.random.Generator(np.random.Philox(key=seed))
    flat = np.zeros(layout.size, np.float32)
    for name, view in layout.views(flat).items():
        if view.ndim == 2:
            scale = {"Wx0": 0.5, "Wo": 0.1 / math.sqrt(view.shape[0])}.get(
                name, 0.5 / math.sqrt(view.shape[0])
            )
            view[:] = random.standard_normal(view.shape) * scale
        elif name == "bo":
            view[:] = log_frequencies
        elif len(view) == 3 * layout.hidden_size:
            view[layout.hidden_size : 2 * layout.hidden_size] = 1.0
    return flat


class Products(Protocol):
    """How a network reads its tensors."""

    def rows(self, name: str, tokens: Tokens) -> Floats:
        """Return the products with one-hot characters: (n, w) -> (n, w, k)."""
        ...

    def product(self, name: str, x: Floats) -> Floats:
        """Return the products with a matrix: (n, w, m) -> (n, w, k)."""
        ...

    def bias(self, name: str) -> Floats:
        """Return a vector, shaped to be added to (n, w, k)."""
        ...


class Clean:
    """The weights as they are."""

    def __init__(self, views: dict[str, Floats]) -> None:
        self._views = views

    def rows(self, name: str, tokens: Tokens) -> Floats:
        """Return the rows of the characters."""
        rows: Floats = self._views[name].take(tokens, axis=0)
        return rows

    def product(self, name: str, x: Floats) -> Floats:
        """Return one matrix product for all rows."""
        matrix = self._views[name]
        flat: Floats = x.reshape(-1, x.shape[-1]) @ matrix
        return flat.reshape(*x.shape[:-1], matrix.shape[1])

    def bias(self, name: str) -> Floats:
        """Return the vector itself."""
        return self._views[name]


class Dense:
    """The weights plus noise of its own for each of n trials: slow, to compare with."""

    def __init__(
        self, views: dict[str, Floats], noise: Mapping[str, Floats], sigma: float
    ) -> None:
        """Add noise of shape (n, *shape); a negative sigma gives the other side."""
        step = np.float32(sigma)
        self._views: dict[str, Floats] = {
            name: views[name] + step * e for name, e in noise.items()
        }

    def rows(self, name: str, tokens: Tokens) -> Floats:
        """Return each trial's own rows of the characters."""
        trial = np.arange(len(tokens))[:, None]
        return np.asarray(self._views[name][trial, tokens])

    def product(self, name: str, x: Floats) -> Floats:
        """Return a matrix product for each trial."""
        return np.asarray(x @ self._views[name])

    def bias(self, name: str) -> Floats:
        """Return each trial's own vector (n, 1, k)."""
        return self._views[name][:, None, :]


def sigmoid(x: Floats) -> Floats:
    """Return the logistic function, by tanh: it cannot overflow."""
    y: Floats = np.tanh(np.float32(0.5) * x)
    y += 1
    y *= np.float32(0.5)
    return y


class Network:
    """The computation of a model; it holds no weights."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._cell = self._gru if layout.model_type == "gru" else self._rnn

    def start(self, shape: tuple[int, ...]) -> list[Floats]:
        """Return the zero state: for each layer (*shape, H)."""
        size = (*shape, self.layout.hidden_size)
        return [np.zeros(size, np.float32) for _ in range(self.layout.n_layers)]

    def step(
        self, p: Products, tokens: Tokens, state: Sequence[Floats]
    ) -> list[Floats]:
        """Return the state after one more character each: tokens (n, w)."""
        new: list[Floats] = []
        for layer, h in enumerate(state):
            name = f"Wx{layer}"
            x = p.product(name, new[-1]) if layer else p.rows(name, tokens)
            new.append(self._cell(p, layer, x, h))
        return new

    @staticmethod
    def _rnn(p: Products, layer: int, x: Floats, h: Floats) -> Floats:
        y = p.product(f"Wh{layer}", h)  # (n, w, H)
        y += x
        y += p.bias(f"b{layer}")
        return np.tanh(y, out=y)

    def _gru(self, p: Products, layer: int, x: Floats, h: Floats) -> Floats:
        size = self.layout.hidden_size
        y = p.product(f"Wh{layer}", h)  # (n, w, 3H)
        x = x + p.bias(f"b{layer}")
        gates = sigmoid(x[..., : 2 * size] + y[..., : 2 * size])  # r, z
        inner = y[..., 2 * size :] + p.bias(f"bn{layer}")
        inner *= gates[..., :size]
        inner += x[..., 2 * size :]
        new = np.tanh(inner, out=inner)  # n; h' = (1 - z) n + z h
        mixed: Floats = new + gates[..., size:] * (h - new)
        return mixed

    @staticmethod
    def logits(p: Products, top: Floats) -> Floats:
        """Return unnormalised log-probabilities: (n, w, H) -> (n, w, V)."""
        y = p.product("Wo", top)
        y += p.bias("bo")
        return y

    def losses(self, p: Products, windows: Tokens) -> Floats:
        """Return the mean negative log-likelihood of each row.

        Args:
            p: weights, clean or perturbed.
            windows: (T + 1, n, w) tokens; all but the last are read, all but the first
                are predicted, from a zero state.

        Returns:
            (n,) nats per character.
        """
        steps, (n, w) = len(windows) - 1, windows.shape[1:]
        state = self.start((n, w))
        total = np.zeros((n, w), np.float32)
        for now, following in itertools.pairwise(windows):
            state = self.step(p, now, state)
            total += surprise(self.logits(p, state[-1]), following)
        mean: Floats = total.mean(axis=1) / np.float32(steps)
        return mean


def surprise(logits: Floats, tokens: Tokens) -> Floats:
    """Return the negative log-probability of each token, by a safe log-sum-exp.

    Args:
        logits: (n, w, V); overwritten.
        tokens: (n, w).
    """
    index = tokens[..., None].astype(np.intp)
    logits -= logits.max(axis=-1, keepdims=True)
    target = np.take_along_axis(logits, index, axis=-1)[..., 0]
    np.exp(logits, out=logits)
    result: Floats = np.log(logits.sum(axis=-1)) - target
    return result


@dataclass(frozen=True)
class Moments:
    """What an optimizer keeps: two vectors like the weights."""

    first: Floats
    second: Floats


def power(beta: float, count: int) -> float:
    """Return beta to the count by repeated multiplication.

    `pow` is not correctly rounded everywhere, a product is. Below 2^-60 the power no
    longer changes ``1 - power`` and the loop ends.
    """
    result = 1.0
    for _ in range(count):
        result *= beta
        if result < 2.0**-60:
            return 0.0
    return result


def adam(
    weights: Floats,
    moments: Moments,
    gradient: Floats,
    rates: Floats,
    count: int,
    config: Config,
) -> tuple[Floats, Moments]:
    """Return weights and moments after one step of Adam (Kingma and Ba 2015).

    Scalars are computed in float64 and cast once; arrays see only + - * / sqrt in
    float32, which IEEE 754 rounds the same way everywhere.

    Args:
        weights: (P,).
        moments: both (P,).
        gradient: (P,).
        rates: (P,) of this step.
        count: updates including this one, from 1.
        config: gives beta1 and beta2.
    """
    c1, c2 = np.float32(1 - config.beta1), np.float32(1 - config.beta2)
    k1 = np.float32(1 - power(config.beta1, count))
    k2 = np.float32(1 - power(config.beta2, count))
    m = moments.first + c1 * (gradient - moments.first)
    v = moments.second + c2 * (gradient * gradient - moments.second)
    step = rates * (m / k1) / (np.sqrt(v / k2) + np.float32(1e-8))
    return weights - step, Moments(m, v)


def averaged(average: Floats, weights: Floats, count: int) -> Floats:
    """Return the running mean of weights with new ones taken in.

    The newest has weight 6 / (n + 5) after n updates, so that older ones fade as the
    fifth power of the run's length since (polynomial-decay averaging, Shamir and Zhang
    2013, arXiv 1212.1824): it fits a run of any length, and soon forgets its beginning.

    Args:
        average: (P,) before.
        weights: (P,) the new ones.
        count: updates including this one, from 1.
    """
    share = np.float32((NEWER + 1) / (count + NEWER))
    result: Floats = average + share * (weights - average)
    return result


def sgd(weights: Floats, gradient: Floats, rates: Floats) -> Floats:
    """Return weights after one step of plain gradient descent."""
    result: Floats = weights - rates * gradient
    return result

"""Slow second implementations, written from the formulas, and examples to run them on.

Nothing here shares code with what it checks: noise comes from Philox in Python
integers, perturbed matrices are built whole, networks read one character of one window
at a time in float64, sums are Python integers, and the optimizer treats one weight at
a time with every operation rounded to float32 by `struct`. What shapes noise comes from
integers and exact fractions, each rounded to a double where the program rounds.
"""

import hashlib
import math
import statistics
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, partial
from operator import mul
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from utilities.config import Config
from utilities.evolution import (
    Segment,
    Setting,
    TrainState,
    Update,
    advance,
    drawn_for,
    signs_of,
)

Doubles: TypeAlias = NDArray[np.float64]
Floats: TypeAlias = NDArray[np.float32]
Integers: TypeAlias = NDArray[np.int64]
Shapes: TypeAlias = dict[str, tuple[int, ...]]
Signs: TypeAlias = dict[str, list[int]]
Matrix: TypeAlias = list[list[int]]
Number = TypeVar("Number", int, float)

WORD = (1 << 64) - 1
NOISE, WINDOWS = 0, 1

# --- rounding -------------------------------------------------------------------------


def float32(number: float) -> float:
    """Return the float32 nearest to a double.

    The double result of one + - * / or square root of float32 numbers, rounded again,
    is the correctly rounded float32 result: 53 bits are more than twice 24 plus one.
    """
    return float(struct.unpack("<f", struct.pack("<f", number))[0])


def nearest_float32(exact: Fraction) -> float:
    """Return the float32 nearest to a rational number, ties to even."""
    size = abs(exact)
    exponent = -149  # of the last place: subnormal numbers share the smallest
    while size >= Fraction(2) ** (exponent + 24):
        exponent += 1
    last_place = Fraction(2) ** exponent
    rounded = round(size / last_place) * last_place  # Fractions round ties to even
    if rounded >= 2**128:
        return math.copysign(math.inf, exact)
    return math.copysign(float(rounded), exact)


def is_nearest_root(root: float, square: Fraction) -> bool:
    """Return whether a float32 is nearest to a square root: by its two midpoints."""
    below, above = (float(np.nextafter(np.float32(root), x)) for x in (0, np.inf))
    low = (Fraction(root) + Fraction(below)) / 2
    high = (Fraction(root) + Fraction(above)) / 2
    return low**2 < square < high**2


def rooted(square: float) -> float:
    """Return the double nearest to a square root, by integers: no root is a tie."""
    exact, shift = Fraction(square), 0
    while exact < 1 << 120:
        exact, shift = exact * 4, shift + 1
    whole = math.isqrt(int(exact))
    beyond = 1 if whole * whole < exact else 0  # stands for all digits that follow
    return float(Fraction(2 * whole + beyond, 2 << shift))


# --- noise ----------------------------------------------------------------------------


def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Return one block of Philox4x64-10 (Salmon et al. 2011, figure 2 and table 2)."""
    words, (key0, key1) = list(counter), key
    for _ in range(10):
        left = 0xD2E7470EE14C6C93 * words[0]
        right = 0xCA5A826395121157 * words[2]
        words = [
            (right >> 64) ^ words[1] ^ key0,
            right & WORD,
            (left >> 64) ^ words[3] ^ key1,
            left & WORD,
        ]
        key0 = (key0 + 0x9E3779B97F4A7C15) & WORD
        key1 = (key1 + 0xBB67AE8584CAA73B) & WORD
    return words


def words(seed: int, purpose: int, block: int, blocks: int) -> list[int]:
    """Return the words of counter blocks; numpy counts up before it makes a block."""
    return [
        word
        for index in range(block + 1, block + 1 + blocks)
        for word in philox((index & WORD, index >> 64, 0, purpose), (seed, 0))
    ]


def signs(seed: int, trial: int, count: int) -> list[int]:
    """Return the first signs of a trial that takes so many."""
    blocks = (count + 255) // 256
    stream = words(seed, NOISE, trial * blocks, blocks)
    return [2 * (stream[i // 64] >> i % 64 & 1) - 1 for i in range(count)]


def parts(sizes: Mapping[str, int], seed: int, trial: int) -> Signs:
    """Return the signs of each part of a trial: bundles, or tensors of full noise."""
    stream = iter(signs(seed, trial, sum(sizes.values())))
    return {name: [next(stream) for _ in range(size)] for name, size in sizes.items()}


# --- model ----------------------------------------------------------------------------


def shapes_of(config: Config) -> Shapes:
    """Return the tensors in order: by layer Wx Wh b (bn), then Wo bo."""
    size, vocabulary = config.hidden_size, config.vocab_size
    assert vocabulary is not None
    gates = 3 if config.model_type == "gru" else 1
    shapes: Shapes = {}
    for layer in range(config.n_layers):
        shapes[f"Wx{layer}"] = (size if layer else vocabulary, gates * size)
        shapes[f"Wh{layer}"] = (size, gates * size)
        shapes[f"b{layer}"] = (gates * size,)
        if gates == 3:
            shapes[f"bn{layer}"] = (size,)
    return shapes | {"Wo": (size, vocabulary), "bo": (vocabulary,)}


def bundles_of(config: Config) -> dict[str, int]:
    """Return the size of each bundle: characters, by layer its sums and state, logits.

    The part of a GRU's bias that lies inside the reset gate is a bundle of its own.
    """
    size, vocabulary = config.hidden_size, config.vocab_size
    assert vocabulary is not None
    gru = config.model_type == "gru"
    bundles = {"characters": vocabulary}
    for layer in range(config.n_layers):
        bundles[f"gates{layer}"] = 3 * size if gru else size
        bundles[f"state{layer}"] = size
        if gru:
            bundles[f"inner{layer}"] = size
    return bundles | {"logits": vocabulary}


def joins_of(config: Config) -> dict[str, tuple[str | None, str]]:
    """Return which bundles each tensor joins: inputs (None for a bias) and outputs."""
    joins: dict[str, tuple[str | None, str]] = {
        "Wx0": ("characters", "gates0"),
        "Wo": (f"state{config.n_layers - 1}", "logits"),
        "bo": (None, "logits"),
    }
    for layer in range(config.n_layers):
        if layer > 0:
            joins[f"Wx{layer}"] = (f"state{layer - 1}", f"gates{layer}")
        joins[f"Wh{layer}"] = (f"state{layer}", f"gates{layer}")
        joins[f"b{layer}"] = (None, f"gates{layer}")
        if config.model_type == "gru":
            joins[f"bn{layer}"] = (None, f"inner{layer}")
    return joins


def rank_one(
    config: Config, drawn: Mapping[str, Sequence[Number]]
) -> dict[str, list[Number]]:
    """Return e of the bundles' signs: each tensor flat in row-major order."""
    joins = joins_of(config)
    perturbation = {}
    for name in shapes_of(config):
        inputs, outputs = joins[name]
        b = drawn[outputs]
        e = list(b) if inputs is None else [x * y for x in drawn[inputs] for y in b]
        perturbation[name] = e
    return perturbation


def tensors_of(config: Config, flat: Iterable[float]) -> dict[str, Doubles]:
    """Return the tensors in float64."""
    numbers = iter([float(number) for number in flat])
    return {
        name: np.array([next(numbers) for _ in range(math.prod(shape))]).reshape(shape)
        for name, shape in shapes_of(config).items()
    }


def logistic(x: Doubles) -> Doubles:
    """Return 1 / (1 + exp(-x)); where exp overflows, that is 0."""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-x)))


def next_hidden(
    config: Config, w: dict[str, Doubles], layer: int, x: Doubles, h: Doubles
) -> Doubles:
    """Return the hidden state of a layer after one more input."""
    wx, wh, b = w[f"Wx{layer}"], w[f"Wh{layer}"], w[f"b{layer}"]
    if config.model_type == "rnn":
        return np.asarray(np.tanh(x @ wx + h @ wh + b))
    # As PyTorch writes it; b holds b_ir + b_hr, b_iz + b_hz and b_in, bn holds b_hn.
    (wxr, wxz, wxn), (whr, whz, whn) = np.split(wx, 3, 1), np.split(wh, 3, 1)
    br, bz, bn = np.split(b, 3)
    r = logistic(x @ wxr + h @ whr + br)
    z = logistic(x @ wxz + h @ whz + bz)
    n = np.tanh(x @ wxn + bn + r * (h @ whn + w[f"bn{layer}"]))
    return np.asarray((1 - z) * n + z * h)


def before(config: Config) -> int:
    """Return how many characters before a window the clean weights read."""
    return config.burn_in if config.noise == "lowRank" else 0


def window_logits(
    config: Config,
    w: dict[str, Doubles],
    inputs: Iterable[int],
    clean: dict[str, Doubles] | None = None,
) -> list[Doubles]:
    """Return the logits after each character of a window.

    From a zero state; where clean weights are given, after those before it.
    """
    state = [np.zeros(config.hidden_size) for _ in range(config.n_layers)]
    logits = []
    for place, character in enumerate(inputs):
        left = clean is not None and place < before(config)
        tensors = clean if clean is not None and left else w
        x = np.eye(len(w["bo"]))[character]
        for layer in range(config.n_layers):
            state[layer] = x = next_hidden(config, tensors, layer, x, state[layer])
        if not left:
            logits.append(x @ w["Wo"] + w["bo"])
    return logits


def window_loss(
    config: Config,
    w: dict[str, Doubles],
    window: Sequence[int],
    clean: dict[str, Doubles] | None = None,
) -> float:
    """Return the mean negative log-likelihood of all characters but the first.

    Where clean weights are given, of those after the first that the others read.
    """
    first = 1 if clean is None else before(config) + 1
    losses = [
        math.log(sum(math.exp(y - max(logits)) for y in logits))
        + float(max(logits) - logits[target])
        for logits, target in zip(
            window_logits(config, w, window[:-1], clean), window[first:], strict=True
        )
    ]
    return statistics.fmean(losses)


def group_windows(
    config: Config, tokens: Sequence[int], seed: int, group: int
) -> list[list[int]]:
    """Return the windows of one group, each sequenceLength + 1 characters.

    Those before them come first.
    """
    blocks = (config.batch_size + 3) // 4
    length = before(config) + config.sequence_length
    chosen = words(seed, WINDOWS, group * blocks, blocks)[: config.batch_size]
    starts = [word % (len(tokens) - length) for word in chosen]
    return [[int(c) for c in tokens[s : s + length + 1]] for s in starts]


def splits(config: Config) -> bool:
    """Return whether the output layer has trials of its own."""
    wanted = (config.output_trials, config.noise) == ("auto", "lowRank")
    return wanted and config.directions_per_window > 0


def group_trials(config: Config) -> int:
    """Return the trials that share a window."""
    return max(1, config.directions_per_window) * (2 if splits(config) else 1)


def direction(config: Config, trial: int) -> int:
    """Return the index of the direction whose signs a trial has."""
    group, offset = divmod(trial, group_trials(config))
    each = max(1, config.directions_per_window)
    return group * each + offset % each


def moved(
    config: Config, trial: int, perturbation: Mapping[str, list[Number]]
) -> dict[str, list[Number]]:
    """Return a perturbation without the tensors that are not a trial's."""
    if not splits(config):
        return dict(perturbation)
    outer = trial % group_trials(config) >= config.directions_per_window
    return {
        name: each if (name in ("Wo", "bo")) is outer else [0 * x for x in each]
        for name, each in perturbation.items()
    }


def full_signs(config: Config, seed: int, trial: int) -> Signs:
    """Return a trial's signs of all weights."""
    sizes = {name: math.prod(shape) for name, shape in shapes_of(config).items()}
    return parts(sizes, seed, trial)


def bundle_signs(config: Config, tokens: Sequence[int], seed: int, trial: int) -> Signs:
    """Return a trial's signs of all bundles, unread characters silenced."""
    group = trial // group_trials(config)
    windows = group_windows(config, tokens, seed, group)
    read = {c for window in windows for c in window[before(config) : -1]}
    drawn = parts(bundles_of(config), seed, direction(config, trial))
    drawn["characters"] = [
        sign if character in read else 0
        for character, sign in enumerate(drawn["characters"])
    ]
    return drawn


def trial_signs(config: Config, tokens: Sequence[int], seed: int, trial: int) -> Signs:
    """Return what a reward multiplies: a sign, or 0, of each weight."""
    if config.noise == "full":
        return full_signs(config, seed, trial)
    signs = bundle_signs(config, tokens, seed, trial)
    return moved(config, trial, rank_one(config, signs))


def trial_perturbation(
    config: Config,
    weights: Iterable[float],
    tokens: Sequence[int],
    seed: int,
    trial: int,
) -> dict[str, list[float]]:
    """Return e of one trial at these weights."""
    if config.noise == "full":
        return {name: [*e] for name, e in full_signs(config, seed, trial).items()}
    signs = bundle_signs(config, tokens, seed, trial)
    drawn: dict[str, list[float]] = {name: [*part] for name, part in signs.items()}
    for layer, integers in enumerate(whiteners(config, weights, tokens)):
        drawn[f"state{layer}"] = [
            sum(
                x * row[k]
                for x, row in zip(signs[f"state{layer}"], integers, strict=True)
            )
            / 256
            for k in range(config.hidden_size)
        ]
    return moved(config, trial, rank_one(config, drawn))


def perturbed_loss(
    config: Config,
    weights: Floats,
    perturbation: Mapping[str, Sequence[float]],
    sigma: float,
    windows: Iterable[Sequence[int]],
) -> float:
    """Return the mean loss over windows of perturbed weights, each in its unit."""
    w, clean = tensors_of(config, weights), tensors_of(config, weights)
    for name, flat in perturbation.items():
        step = sigma * scale_of(config, name)
        w[name] += step * np.array(flat, np.float64).reshape(w[name].shape)
    return statistics.fmean(window_loss(config, w, each, clean) for each in windows)


def trial_loss(
    config: Config,
    weights: Floats,
    tokens: Sequence[int],
    seed: int,
    trial: int,
    sigma: float,
) -> float:
    """Return the mean loss over a group's windows of weights perturbed by sigma e."""
    e = trial_perturbation(config, weights, tokens, seed, trial)
    group = trial // group_trials(config)
    windows = group_windows(config, tokens, seed, group)
    return perturbed_loss(config, weights, e, sigma, windows)


def scale_of(config: Config, name: str) -> float:
    """Return what noise and steps of a tensor are multiplied by."""
    if (config.scales, config.noise) != ("auto", "lowRank"):
        return 1
    if name in ("Wo", "bo"):
        return 0.7
    return 1.5 if name == "Wx0" or name.startswith("b") else 0.5


def units_of(config: Config) -> list[float]:
    """Return the scale of each weight."""
    sizes = {name: math.prod(shape) for name, shape in shapes_of(config).items()}
    return [scale_of(config, name) for name, size in sizes.items() for _ in range(size)]


# --- what shapes noise ----------------------------------------------------------------


@cache
def table(*, logistic: bool) -> list[int]:
    """Return tanh or the logistic function times 1024, from -8 to 8 by 1/512."""
    arguments = [k / 512 for k in range(-8 * 512, 8 * 512 + 1)]
    if logistic:
        return [round(1024 / (1 + math.exp(-x))) for x in arguments]
    return [round(1024 * math.tanh(x)) for x in arguments]


def quotients(numbers: Iterable[int], divisor: int) -> list[int]:
    """Return whole quotients, rounded to the nearest, ties to even."""
    return [round(Fraction(int(number), divisor)) for number in numbers]


def looked_up(
    sums: Integers, *, logistic: bool = False, one: int = 1024, fine: int = 4096
) -> Integers:
    """Return a function of sums in units of 1 / (one fine), times one."""
    values, end = table(logistic=logistic), 8 * 512
    steps = quotients(sums, one * fine // 512)
    entries = [min(max(entry, -end), end) for entry in steps]
    chosen = [values[entry + end] for entry in entries]
    return np.array(quotients(chosen, 1024 // one), np.int64)


def fixed_tensors(config: Config, weights: Iterable[float]) -> dict[str, Integers]:
    """Return the tensors in units of 1/4096, up to 64; what is no number is 0."""

    def fixed(weight: float) -> int:
        return 0 if math.isnan(weight) else round(min(max(weight, -64.0), 64.0) * 4096)

    numbers = iter([fixed(float(weight)) for weight in weights])
    return {
        name: np.array([next(numbers) for _ in range(math.prod(shape))]).reshape(shape)
        for name, shape in shapes_of(config).items()
    }


def next_fixed(
    config: Config,
    w: dict[str, Integers],
    layer: int,
    x: Integers,
    h: Integers,
    one: int = 1024,
    fine: int = 4096,
) -> Integers:
    """Return a layer's state after one more input, both in units of 1 / one."""
    wx, wh, b = w[f"Wx{layer}"], w[f"Wh{layer}"], one * w[f"b{layer}"]
    look = partial(looked_up, one=one, fine=fine)
    if config.model_type == "rnn":
        return look(x @ wx + h @ wh + b)
    _, z, _, n = gru_gates(config, w, layer, x, h, one, fine)
    return np.asarray(n + quotients(z * (h - n), one))


def gru_gates(
    config: Config,
    w: dict[str, Integers],
    layer: int,
    x: Integers,
    h: Integers,
    one: int,
    fine: int,
) -> tuple[list[int], Integers, list[int], Integers]:
    """Return r, z, the sums inside the reset gate, in units of one fine, and n."""
    wx, wh, b = w[f"Wx{layer}"], w[f"Wh{layer}"], one * w[f"b{layer}"]
    look = partial(looked_up, one=one, fine=fine)
    (wxr, wxz, wxn), (whr, whz, whn) = np.split(wx, 3, 1), np.split(wh, 3, 1)
    br, bz, bn = np.split(b, 3)
    r = look(x @ wxr + h @ whr + br, logistic=True)
    z = look(x @ wxz + h @ whz + bz, logistic=True)
    inner = h @ whn + one * w[f"bn{layer}"]
    n = look(r * quotients(inner, one) + x @ wxn + bn)
    return r.tolist(), z, inner.tolist(), n


def coarse_tensors(
    config: Config, weights: Iterable[float]
) -> tuple[dict[str, Integers], int]:
    """Return the tensors where states are in units of 1/128, and the weights' unit.

    As fine as 24 bits hold what can be summed up, unless that is too coarse.
    """
    w, fine, most = fixed_tensors(config, weights), 4096, 0
    for name, (inputs, _) in joins_of(config).items():
        if name not in ("Wo", "bo"):
            sizes, state = abs(w[name]), (inputs or "").startswith("state")
            most += int((sizes.sum(axis=0) if state else sizes).max())
    while fine > 1 and most * 128 * fine > 2**23 * 4096:
        fine //= 2
    if fine * 128 < 512:
        return w, 4096
    coarse = {
        name: np.array(quotients(part.ravel(), 4096 // fine)).reshape(part.shape)
        for name, part in w.items()
    }
    return coarse, fine


def fixed_states(
    config: Config, weights: Iterable[float], windows: Iterable[Iterable[int]]
) -> list[list[Integers]]:
    """Return each layer's states after all characters of all windows, times 1024."""
    w = fixed_tensors(config, weights)
    every: list[list[Integers]] = [[] for _ in range(config.n_layers)]
    for window in windows:
        state = [np.zeros(config.hidden_size, np.int64) for _ in every]
        for character in window:
            x = 1024 * np.eye(len(w["bo"]), dtype=np.int64)[character]
            for layer, states in enumerate(every):
                state[layer] = x = next_fixed(config, w, layer, x, state[layer])
                states.append(x)
    return every


def coarse_states(
    config: Config, weights: Iterable[float], window: Iterable[int]
) -> list[list[Integers]]:
    """Return each layer's states after the characters of a window, times 128."""
    w, fine = coarse_tensors(config, weights)
    every: list[list[Integers]] = [[] for _ in range(config.n_layers)]
    state = [np.zeros(config.hidden_size, np.int64) for _ in every]
    for character in window:
        x = 128 * np.eye(len(w["bo"]), dtype=np.int64)[character]
        for layer, states in enumerate(every):
            h = state[layer]
            state[layer] = x = next_fixed(config, w, layer, x, h, 128, fine)
            states.append(x)
    return every


def sampled_windows(tokens: Sequence[int]) -> list[list[int]]:
    """Return 128 evenly spaced windows of 16 characters, or of all there are."""
    length = min(16, len(tokens))
    starts = [i * (len(tokens) - length) // 127 for i in range(128)]
    return [list(tokens[start : start + length]) for start in starts]


def inverse_factor(matrix: list[list[float]]) -> list[list[float]]:
    """Return X with X matrix X^T = 1, lower triangular; all operations are rounded.

    Cholesky's factor L is found row by row (Golub and Van Loan), then L X = 1 is solved
    row by row: what is subtracted from an entry comes in the order of its index.
    """
    size = len(matrix)
    factor = [[0.0] * size for _ in range(size)]
    result = [[0.0] * size for _ in range(size)]

    def less(number: float, x: float, y: float) -> float:
        product = float(Fraction(x) * Fraction(y))
        return float(Fraction(number) - Fraction(product))

    def over(number: float, divisor: float) -> float:
        return float(Fraction(number) / Fraction(divisor))

    for i in range(size):
        for k in range(i + 1):
            entry = matrix[i][k]
            for j in range(k):
                entry = less(entry, factor[i][j], factor[k][j])
            factor[i][k] = rooted(entry) if i == k else over(entry, factor[k][k])
        for k in range(i + 1):
            entry = 1.0 if i == k else 0.0
            for j in range(k, i):
                entry = less(entry, factor[i][j], result[j][k])
            result[i][k] = over(entry, factor[i][i])
    return result


def whitener(states: Sequence[Integers]) -> Matrix:
    """Return R times 256 of states times 1024."""
    size, count = len(states[0]), len(states)
    sums = np.sum([np.outer(h, h) for h in states], axis=0).tolist()
    moments = [[float(Fraction(entry, count)) for entry in row] for row in sums]
    variance = float(sum(Fraction(moments[i][i]) for i in range(size)))
    variance = float(Fraction(variance) / size)
    if variance == 0:
        return [[256 * (i == k) for k in range(size)] for i in range(size)]
    damped = [[float(Fraction(x) / Fraction(variance)) for x in row] for row in moments]
    for i in range(size):
        damped[i][i] += 0.1
    inverse = inverse_factor(damped)
    squares = float(sum(Fraction(x * x) for row in inverse for x in row))
    scale = 256 * rooted(float(Fraction(size) / Fraction(size - 0.1 * squares)))
    return [[round(x * scale) for x in row] for row in inverse]


def whiteners(
    config: Config, weights: Iterable[float], tokens: Sequence[int]
) -> list[Matrix]:
    """Return R times 256 of each layer; nothing where noise is not shaped."""
    asked = (config.whitening, config.noise) == ("auto", "lowRank")
    if not asked or config.hidden_size > (256 if by_nodes(config) else 128):
        return []
    return _whiteners(config, tuple(map(float, weights)), tuple(map(int, tokens)))


@cache
def _whiteners(
    config: Config, weights: tuple[float, ...], tokens: tuple[int, ...]
) -> list[Matrix]:
    states = fixed_states(config, weights, sampled_windows(tokens))
    return [whitener(each) for each in states]


# --- what trials tell of nodes --------------------------------------------------------


def by_nodes(config: Config) -> bool:
    """Return whether what trials tell is taken as of sums."""
    asked = (config.nodes, config.noise) == ("auto", "lowRank")
    return asked and config.sequence_length * config.batch_size <= 64


@dataclass(frozen=True)
class Sums:
    """Some columns of tensors that move together, and what they are moved by."""

    tensors: tuple[str, ...]
    outputs: str  # the bundle
    columns: range
    layer: int | None  # None: the logits
    slopes: range  # of a layer's slopes


def all_sums(config: Config) -> list[Sums]:
    """Return a model's sums, each column of each tensor once."""
    size, result = config.hidden_size, []
    for layer in range(config.n_layers):
        x, h, b, bn = (f"{name}{layer}" for name in ("Wx", "Wh", "b", "bn"))
        gates = f"gates{layer}"
        if config.model_type == "rnn":
            result.append(Sums((x, h, b), gates, range(size), layer, range(size)))
            continue
        both, new = range(2 * size), range(2 * size, 3 * size)
        inside = range(3 * size, 4 * size)
        result += [
            Sums((x, h, b), gates, both, layer, both),
            Sums((x, b), gates, new, layer, new),
            Sums((h,), gates, new, layer, inside),
            Sums((bn,), f"inner{layer}", range(size), layer, inside),
        ]
    assert config.vocab_size is not None
    logits = range(config.vocab_size)
    return [*result, Sums(("Wo", "bo"), "logits", logits, None, range(0))]


def reads_state(config: Config, name: str) -> bool:
    """Return whether a tensor reads a state."""
    return (joins_of(config)[name][0] or "").startswith("state")


def part_of(config: Config, name: str) -> int:
    """Return what a tensor's part of z is multiplied by, in units of 1/32 of a state's.

    Noise from characters and constants is three times that from states.
    """
    if reads_state(config, name):
        return 1
    return 32 * (3 if config.scaled and name != "bo" else 1)


def unit_of(config: Config, sums: Sums) -> float:
    """Return what derivatives by sums are integers of."""
    mean = 0.0
    for name in sums.tensors:
        state = reads_state(config, name)
        mean += 0.3 * 1024 * config.hidden_size if state else part_of(config, name) ** 2
    return 12 / 42 * rooted(mean / max(1, config.directions_per_window))


def divisors(config: Config) -> dict[str, list[float]]:
    """Return what each column of each tensor's sum is divided by."""
    found = {name: [1.0] * shape[-1] for name, shape in shapes_of(config).items()}
    if by_nodes(config):
        for sums in all_sums(config):
            for name in sums.tensors:
                for column in sums.columns:
                    scale = part_of(config, name)
                    found[name][column] = unit_of(config, sums) / scale
    return found


def clipped(number: float | Fraction, most: int) -> int:
    """Return the nearest integer within bounds."""
    return min(max(round(number), -most), most)


def white_states(
    integers: Matrix, states: Sequence[Integers], size: int
) -> list[list[int]]:
    """Return R h in units of 1/32, up to 127: of R times 256 and states times 128."""
    most, shift = max(sum(abs(x) for x in row) for row in integers), 1
    while most * 128 / shift + size * 64 > 2**24:
        shift *= 2
    rows = [quotients(row, shift) for row in integers]
    unit = 128 * 256 // 32
    top = 127 if size <= 1024 else 63
    return [
        [
            clipped(Fraction(sum(map(mul, row, h.tolist())) * shift, unit), top)
            for row in rows
        ]
        for h in states
    ]


def inverse_by_elimination(gram: Matrix) -> tuple[Matrix, float, float]:
    """Return (G + m)^-1 in integers, their unit, root m; all operations in float32."""
    count = len(gram)
    mean = 0.0
    for j in range(count):
        mean = float32(mean + gram[j][j])
    mean = float32(float32(mean * float32(0.1 / count)) + 1)
    rows = [[float(x) for x in row] for row in gram]
    for j in range(count):
        rows[j][j] = float32(rows[j][j] + mean)
    for j in range(count):
        pivot = float32(1 / rows[j][j])
        rows[j][j] = 1.0
        rows[j] = [float32(x * pivot) for x in rows[j]]
        for i in range(count):
            if i != j:
                factor, rows[i][j] = rows[i][j], 0.0
                rows[i] = [
                    float32(x - float32(factor * y))
                    for x, y in zip(rows[i], rows[j], strict=True)
                ]
    scale = float32(mean * 65536)
    whole = [[round(float32(x * scale)) for x in row] for row in rows]
    return whole, float32(1 / scale), float32(rooted(mean))


def squared_slopes(
    config: Config,
    coarse: tuple[dict[str, Integers], int],
    layer: int,
    x: Integers,
    h: Integers,
) -> list[float]:
    """Return the squares of a state's slopes by its sums, all operations in float32.

    Args:
        config: of the run.
        coarse: `coarse_tensors`.
        layer: whose state it is.
        x: its input, in units of 1/128.
        h: its state before, likewise.
    """
    w, fine = coarse
    after = next_fixed(config, w, layer, x, h, 128, fine).tolist()
    if config.model_type == "rnn":
        slopes = [(16384 - n * n) / 16384 for n in after]
        return [float32(slope * slope) for slope in slopes]
    slopes = []
    r, z, inner, new = gru_gates(config, w, layer, x, h, 128, fine)
    through = [
        (16384 - n * n) * (128 - keep) / 2**21 for n, keep in zip(new, z, strict=True)
    ]
    for passed, sum_inside, reset in zip(through, inner, r, strict=True):
        steps = clipped(Fraction(int(sum_inside) * 512, 128 * fine), 4 * 512)
        bent = reset * (128 - reset) / 16384
        slopes.append(float32(float32(passed * (steps / 512)) * bent) * 8)
    for old, n, keep in zip(h.tolist(), new, z, strict=True):
        slopes.append((old - n) * (keep * (128 - keep) / 16384) / 128 * 8)
    slopes += [2 * passed for passed in through]
    for passed, reset in zip(through, r, strict=True):
        slopes.append(float32(passed * reset) / 128 * 4)
    assert all(slope == float32(slope) for slope in slopes)
    return [float32(slope * slope) for slope in slopes]


@dataclass(frozen=True)
class Place:
    """What is known of one character of a window."""

    character: int
    before: list[list[int]]  # white states, of each layer
    after: list[list[int]]
    squares: list[list[float]]  # of each layer's slopes


def places_of(
    config: Config,
    flat: tuple[float, ...],
    tokens: Sequence[int],
    windows: Sequence[Sequence[int]],
) -> list[Place]:
    """Return the places of a group: the first characters of its windows, and so on."""
    size, layers = config.hidden_size, range(config.n_layers)
    unit = [[256 * (i == k) for k in range(size)] for i in range(size)]
    shaping = whiteners(config, flat, tokens) or [unit] * config.n_layers
    coarse, zero = coarse_tensors(config, flat), np.zeros(size, np.int64)
    assert config.vocab_size is not None
    result = []
    each = [coarse_states(config, flat, window[:-1]) for window in windows]
    for t in range(before(config), len(windows[0]) - 1):
        for window, states in zip(windows, each, strict=True):
            old = [h[t - 1] if t else zero for h in states]
            new = [h[t] for h in states]
            one_hot = 128 * np.eye(config.vocab_size, dtype=np.int64)[window[t]]
            inputs = [one_hot, *new]
            white = [
                [white_states(shaping[i], [h[i]], size)[0] for i in layers]
                for h in (old, new)
            ]
            squares = [
                squared_slopes(config, coarse, i, inputs[i], old[i]) for i in layers
            ]
            result.append(Place(window[t], white[0], white[1], squares))
    return result


def moved_by(
    config: Config, sums: Sums, place: Place, other: Place
) -> tuple[list[tuple[str, list[int]]], int]:
    """Return what tensors read at a place, and an entry of Q.

    Returns:
        for each tensor its bundle ("" of a bias) and the numbers that it reads; the
        product of those of both places.
    """
    assert config.vocab_size is not None
    read: list[tuple[str, list[int]]] = []
    product = 0
    for name in sums.tensors:
        inputs, scale = joins_of(config)[name][0], part_of(config, name)
        both: list[list[int]] = []
        for each in (place, other):
            if inputs is None:
                both.append([scale])
            elif inputs == "characters":
                both.append(
                    [
                        scale if c == each.character else 0
                        for c in range(config.vocab_size)
                    ]
                )
            else:
                layer = int(inputs.removeprefix("state"))
                own = layer == sums.layer
                both.append((each.before if own else each.after)[layer])
        read.append((inputs or "", both[0]))
        product += sum(map(mul, *both))
    return read, product


def derivatives(
    config: Config,
    sums: Sums,
    places: Sequence[Place],
    drawn: Sequence[Signs],
    rewards: Sequence[int],
) -> Matrix:
    """Return D of one group, in integers: (places, columns).

    Args:
        config: of the run.
        sums: which ones.
        places: of the group.
        drawn: signs of all bundles, of each direction.
        rewards: of each direction.
    """
    most = 2**24 // (126 * len(drawn))
    fine = 1
    while 2 * fine <= most / 4:
        fine *= 2
    z = []
    for place in places:
        read, _ = moved_by(config, sums, place, place)
        z.append(
            [
                sum(sum(map(mul, x, signs[name] if name else [1])) for name, x in read)
                for signs in drawn
            ]
        )
    gram = [[moved_by(config, sums, p, other)[1] for other in places] for p in places]
    inverse, unit, root = inverse_by_elimination(gram)
    factor = float32(float32(unit * root) * fine)
    solved = [
        [
            clipped(float(sum(map(mul, row, column))) * factor, most)
            for column in zip(*z, strict=True)
        ]
        for row in inverse
    ]
    scale = float32(float32(unit_of(config, sums) / fine) / root)
    result = []
    for shares, place in zip(solved, places, strict=True):
        found = []
        for i, column in enumerate(sums.columns):
            each = (
                c * r * signs[sums.outputs][column]
                for c, r, signs in zip(shares, rewards, drawn, strict=True)
            )
            number = float32(sum(each) * scale)
            if sums.layer is not None:
                number = float32(number * place.squares[sums.layer][sums.slopes[i]])
            found.append(clipped(number, 63))
        result.append(found)
    return result


def group_told(
    config: Config,
    places: Sequence[Place],
    drawn: Sequence[Signs],
    inner: Sequence[int],
    outer: Sequence[int],
) -> list[int]:
    """Return what the trials of one group tell of all weights."""
    told = {
        name: np.zeros(shape, np.int64) for name, shape in shapes_of(config).items()
    }
    for sums in all_sums(config):
        rewards = outer if sums.layer is None else inner
        found = derivatives(config, sums, places, drawn, rewards)
        for place, numbers in zip(places, found, strict=True):
            read, _ = moved_by(config, sums, place, place)
            for name, (_, x) in zip(sums.tensors, read, strict=True):
                inputs = [number // part_of(config, name) for number in x]
                for i, column in enumerate(sums.columns):
                    told[name].reshape(len(x), -1)[:, column] += [
                        number * numbers[i] for number in inputs
                    ]
    return [number for each in told.values() for number in each.ravel().tolist()]


def told(
    config: Config, flat: tuple[float, ...], tokens: Sequence[int], update: Update
) -> list[int]:
    """Return what all trials of an update tell of all weights."""
    each, count = max(1, config.directions_per_window), group_trials(config)
    sums = [0] * sum(math.prod(shape) for shape in shapes_of(config).values())
    rewards = update.rewards.tolist()
    for segment in update.segments:
        for group in range(segment.first, segment.first + segment.groups):
            windows = group_windows(config, tokens, segment.seed, group)
            places = places_of(config, flat, tokens, windows)
            drawn = [
                parts(bundles_of(config), segment.seed, group * each + k)
                for k in range(each)
            ]
            own, rewards = rewards[:count], rewards[count:]
            found = group_told(config, places, drawn, own[:each], own[-each:])
            sums = [s + x for s, x in zip(sums, found, strict=True)]
    return sums


# --- rewards and update ---------------------------------------------------------------


def rewards(changes: Sequence[float]) -> list[int] | None:
    """Return the integer rewards, or None where the changes do not differ."""
    centre = statistics.median(changes)
    spread = 1.4826 * statistics.median(abs(change - centre) for change in changes)
    if spread == 0:
        return None
    scaled = [(change - centre) / spread for change in changes]
    return [-round(42 * min(3.0, max(-3.0, each))) for each in scaled]


def total(
    config: Config, weights: Iterable[float], tokens: Sequence[int], update: Update
) -> list[int]:
    """Return the sum of reward times signs over all trials, or what they tell."""
    here = tuple(map(float, weights))
    if by_nodes(config):
        return told(config, here, tokens, update)
    trials = (
        (segment.seed, group * each + offset)
        for segment in update.segments
        for group in range(segment.first, segment.first + segment.groups)
        for each in [group_trials(config)]
        for offset in range(each)
    )
    sums = [0] * sum(math.prod(shape) for shape in shapes_of(config).values())
    for (seed, trial), reward in zip(trials, update.rewards.tolist(), strict=True):
        e = trial_signs(config, tokens, seed, trial)
        flat = [sign for tensor in e.values() for sign in tensor]
        sums = [s + int(reward) * sign for s, sign in zip(sums, flat, strict=True)]
    return sums


def shaped_total(
    config: Config, weights: Iterable[float], tokens: Sequence[int], update: Update
) -> list[float]:
    """Return the sum of reward times perturbation over all trials, rounded once."""
    result: list[float] = []
    sums = total(config, weights, tokens, update)
    every, units = whiteners(config, weights, tokens), divisors(config)
    start = 0
    for name, shape in shapes_of(config).items():
        size = math.prod(shape)
        part, start = sums[start : start + size], start + size
        columns = shape[-1]
        exact: list[float] = [float(number) for number in part]
        if every and reads_state(config, name):
            inputs = joins_of(config)[name][0] or ""
            integers = every[int(inputs.removeprefix("state"))]
            exact = [
                sum(
                    row[k] * x
                    for row, x in zip(integers, part[n::columns], strict=True)
                )
                / 256
                for k in range(shape[0])
                for n in range(columns)
            ]
        result += [x / units[name][i % columns] for i, x in enumerate(exact)]
    return result


def adam_weight(
    w: float, m: float, v: float, g: float, rate: float, count: int, config: Config
) -> tuple[float, float, float]:
    """Return weight and moments after one step, each operation rounded to float32."""
    power1 = power2 = 1.0
    for _ in range(count):
        power1, power2 = power1 * config.beta1, power2 * config.beta2
    k1, k2 = float32(1 - power1), float32(1 - power2)
    c1, c2 = float32(1 - config.beta1), float32(1 - config.beta2)
    m = float32(m + float32(c1 * float32(g - m)))
    v = float32(v + float32(c2 * float32(float32(g * g) - v)))
    root = float32(math.sqrt(float32(v / k2)))
    step = float32(float32(rate) * float32(m / k1))
    step = float32(step / float32(root + float32(1e-8)))
    return float32(w - step), m, v


@dataclass
class State:
    """Weights and moments as Python floats that float32 holds exactly."""

    step: int
    count: int
    weights: list[float]
    first: list[float]
    second: list[float]
    average: list[float] = field(default_factory=list)  # empty: none is kept

    def digest(self, fingerprint: bytes) -> bytes:
        """Return the hash of version, fingerprint, step, count and all arrays."""
        numbers = self.weights + self.first + self.second + self.average
        return hashlib.sha256(
            struct.pack("<Q", 1)
            + fingerprint
            + struct.pack("<QQ", self.step, self.count)
            + struct.pack(f"<{len(numbers)}f", *numbers)
        ).digest()

    def advance(self, config: Config, tokens: Sequence[int], update: Update) -> None:
        """Apply an update."""
        self.step += 1
        if update.trials == 0:
            return
        self.count += 1
        self._take_step(
            config, shaped_total(config, self.weights, tokens, update), update
        )
        share = float32(6 / (self.count + 5))
        for i, mean in enumerate(self.average):
            change = float32(share * float32(self.weights[i] - mean))
            self.average[i] = float32(mean + change)

    def _take_step(
        self, config: Config, sums: Sequence[Number], update: Update
    ) -> None:
        scale = 42 * math.sqrt(1024 * update.trials)
        for i, (summed, unit) in enumerate(zip(sums, units_of(config), strict=True)):
            g = float32(-summed / scale)
            rate = float32(float32(update.rate) * float32(unit))
            if config.optimizer == "sgd":
                change = float32(rate * g)
                self.weights[i] = float32(self.weights[i] - change)
                continue
            self.weights[i], self.first[i], self.second[i] = adam_weight(
                self.weights[i],
                self.first[i],
                self.second[i],
                g,
                rate,
                self.count,
                config,
            )


# --- examples -------------------------------------------------------------------------
# Made of integers, so that no random stream or libm has a say in golden values.


def example_setting(**keys: Any) -> Setting:
    """Return a tiny model; keys as in `Config`."""
    small: dict[str, Any] = {
        "hidden_size": 4,
        "vocab_size": 9,
        "sequence_length": 5,
        "burn_in": 2,
        "directions_per_window": 3,
    }
    return Setting(Config(**(small | keys)), "0" * 64)


def example_tokens(config: Config, length: int = 90) -> NDArray[np.uint16]:
    """Return a text whose windows leave some characters of the vocabulary out."""
    assert config.vocab_size is not None
    text = [(i * i // 7 + i // 11) % config.vocab_size for i in range(length)]
    tokens = np.array(text, np.uint16)
    tokens.flags.writeable = False
    return tokens


def example_weights(size: int) -> Floats:
    """Return weights between -0.78 and 0.78 that float32 holds exactly."""
    weights = np.array([((37 * i) % 101 - 50) / 64 for i in range(size)], np.float32)
    weights.flags.writeable = False
    return weights


def example_state(setting: Setting) -> TrainState:
    """Return the state before the first step."""
    weights = example_weights(setting.layout.size)
    return TrainState(0, 0, weights, np.zeros_like(weights), np.zeros_like(weights))


def example_update(
    setting: Setting, step: int, segments: Sequence[Segment], rate: float = 0.01
) -> Update:
    """Return an update with rewards from -126 to 126."""
    groups = sum(segment.groups for segment in segments)
    trials = groups * setting.config.trials_per_group
    each = [(i * i * 13 + 29 * i + 5 * step) % 253 - 126 for i in range(trials)]
    shaped = np.array(each, np.int8)
    return Update(step, 0, trials, rate, tuple(segments), shaped)


def example_segments(step: int) -> list[Segment]:
    """Return segments with seeds of up to 64 bits."""
    return [Segment(5 + step, 0, 3), Segment(1 << 63, 7 * step, 2), Segment(WORD, 1, 1)]


def threads_digest() -> Iterator[str]:
    """Yield digests after a step that is large enough for threads in a product.

    Without nodes, and by them.
    """
    large = {"hidden_size": 96, "vocab_size": 80, "directions_per_window": 16}
    former = {"nodes": "none", "burn_in": 0, "sequence_length": 16}
    for keys in (former, {"burn_in": 16, "sequence_length": 8}):
        setting = example_setting(**large, **keys)
        tokens = example_tokens(setting.config, 2000)
        update = example_update(setting, 0, [Segment(11, 0, 150), Segment(12, 9, 50)])
        state = advance(setting, example_state(setting), update, tokens)
        yield state.digest(bytes(32)).hex()


def silenced(
    setting: Setting, windows: NDArray[Any], segment: Segment
) -> dict[str, NDArray[np.float32]]:
    """Return the program's signs of a segment that is scored on these windows."""
    return signs_of(setting, drawn_for(setting, windows, segment))

"""Slow second implementations, written from the formulas, and examples to run them on.

Nothing here shares code with what it checks: noise comes from Philox in Python
integers, perturbed matrices are built whole, networks read one character of one window
at a time in float64, sums are Python integers, and the optimizer treats one weight at
a time with every operation rounded to float32 by `struct`.
"""

import hashlib
import math
import statistics
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.config import Config
from utilities.evolution import Segment, Setting, TrainState, Update, advance

Doubles: TypeAlias = NDArray[np.float64]
Floats: TypeAlias = NDArray[np.float32]
Shapes: TypeAlias = dict[str, tuple[int, ...]]
Signs: TypeAlias = dict[str, list[int]]

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


def rank_one(config: Config, drawn: Mapping[str, Sequence[int]]) -> Signs:
    """Return e of the bundles' signs: each tensor flat in row-major order."""
    joins = joins_of(config)
    perturbation: Signs = {}
    for name in shapes_of(config):
        inputs, outputs = joins[name]
        a = [1] if inputs is None else drawn[inputs]
        perturbation[name] = [x * y for x in a for y in drawn[outputs]]
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


def window_logits(
    config: Config, w: dict[str, Doubles], inputs: Iterable[int]
) -> list[Doubles]:
    """Return the logits after each character of a window, from a zero state."""
    state = [np.zeros(config.hidden_size) for _ in range(config.n_layers)]
    logits = []
    for character in inputs:
        x = np.eye(len(w["bo"]))[character]
        for layer in range(config.n_layers):
            state[layer] = x = next_hidden(config, w, layer, x, state[layer])
        logits.append(x @ w["Wo"] + w["bo"])
    return logits


def window_loss(config: Config, w: dict[str, Doubles], window: Sequence[int]) -> float:
    """Return the mean negative log-likelihood of all characters but the first."""
    losses = [
        math.log(sum(math.exp(y - max(logits)) for y in logits))
        + float(max(logits) - logits[target])
        for logits, target in zip(
            window_logits(config, w, window[:-1]), window[1:], strict=True
        )
    ]
    return statistics.fmean(losses)


def group_windows(
    config: Config, tokens: Sequence[int], seed: int, group: int
) -> list[list[int]]:
    """Return the windows of one group, each sequenceLength + 1 characters."""
    blocks, length = (config.batch_size + 3) // 4, config.sequence_length
    chosen = words(seed, WINDOWS, group * blocks, blocks)[: config.batch_size]
    starts = [word % (len(tokens) - length) for word in chosen]
    return [[int(c) for c in tokens[s : s + length + 1]] for s in starts]


def trial_perturbation(
    config: Config, tokens: Sequence[int], seed: int, trial: int
) -> Signs:
    """Return e of one trial, unread characters silenced where noise is rank-1."""
    if config.noise == "full":
        shapes = shapes_of(config)
        return parts({n: math.prod(s) for n, s in shapes.items()}, seed, trial)
    group = trial // max(1, config.directions_per_window)
    windows = group_windows(config, tokens, seed, group)
    read = {character for window in windows for character in window[:-1]}
    drawn = parts(bundles_of(config), seed, trial)
    drawn["characters"] = [
        sign if character in read else 0
        for character, sign in enumerate(drawn["characters"])
    ]
    return rank_one(config, drawn)


def perturbed_loss(
    config: Config,
    weights: Floats,
    perturbation: Mapping[str, Sequence[int]],
    sigma: float,
    windows: Iterable[Sequence[int]],
) -> float:
    """Return the mean loss over windows of weights plus sigma times a perturbation."""
    w = tensors_of(config, weights)
    for name, flat in perturbation.items():
        w[name] += sigma * np.array(flat, np.float64).reshape(w[name].shape)
    return statistics.fmean(window_loss(config, w, window) for window in windows)


def trial_loss(
    config: Config,
    weights: Floats,
    tokens: Sequence[int],
    seed: int,
    trial: int,
    sigma: float,
) -> float:
    """Return the mean loss over a group's windows of weights plus sigma times e."""
    e = trial_perturbation(config, tokens, seed, trial)
    group = trial // max(1, config.directions_per_window)
    windows = group_windows(config, tokens, seed, group)
    return perturbed_loss(config, weights, e, sigma, windows)


# --- rewards and update ---------------------------------------------------------------


def rewards(changes: Sequence[float]) -> list[int] | None:
    """Return the integer rewards, or None where the changes do not differ."""
    centre = statistics.median(changes)
    spread = 1.4826 * statistics.median(abs(change - centre) for change in changes)
    if spread == 0:
        return None
    scaled = [(change - centre) / spread for change in changes]
    return [-round(42 * min(3.0, max(-3.0, each))) for each in scaled]


def total(config: Config, tokens: Sequence[int], update: Update) -> list[int]:
    """Return the sum of reward times perturbation over all trials."""
    trials = (
        (segment.seed, group * each + offset)
        for segment in update.segments
        for group in range(segment.first, segment.first + segment.groups)
        for each in [max(1, config.directions_per_window)]
        for offset in range(each)
    )
    sums = [0] * sum(math.prod(shape) for shape in shapes_of(config).values())
    for (seed, trial), reward in zip(trials, update.rewards.tolist(), strict=True):
        e = trial_perturbation(config, tokens, seed, trial)
        flat = [sign for tensor in e.values() for sign in tensor]
        sums = [s + int(reward) * sign for s, sign in zip(sums, flat, strict=True)]
    return sums


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

    def digest(self, fingerprint: bytes) -> bytes:
        """Return the hash of version, fingerprint, step, count and all arrays."""
        numbers = self.weights + self.first + self.second
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
        scale = 42 * math.sqrt(1024 * update.trials)
        for i, summed in enumerate(total(config, tokens, update)):
            g = float32(-summed / scale)
            if config.optimizer == "sgd":
                change = float32(float32(update.rate) * g)
                self.weights[i] = float32(self.weights[i] - change)
                continue
            self.weights[i], self.first[i], self.second[i] = adam_weight(
                self.weights[i],
                self.first[i],
                self.second[i],
                g,
                update.rate,
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


def threads_digest() -> str:
    """Return the digest after a step that is large enough for threads in a product."""
    setting = example_setting(
        hidden_size=96, vocab_size=80, directions_per_window=16, sequence_length=16
    )
    tokens = example_tokens(setting.config, 2000)
    update = example_update(setting, 0, [Segment(11, 0, 150), Segment(12, 9, 50)])
    state = advance(setting, example_state(setting), update, tokens)
    return state.digest(bytes(32)).hex()

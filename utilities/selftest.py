"""Two digests of what all replicas must compute alike; a client's Hello carries them.

Replicas stay equal to the bit only if their machines draw the same noise and round the
same way. Both are taken for granted by `utilities.evolution` and both can fail: another
generator, a matrix product that sums in fewer bits, subnormal numbers flushed to zero
by a library that was built for speed. A server compares these digests with its own
before a client takes part; that is cheaper than replicas that split in step 400.

`noise_test` covers raw words and signs. `arithmetic_test` covers matrix products at the
bound of exactness, the four operations and the square root down to subnormals, a few
steps of Adam, in float64 what shapes noise, with its tables of tanh, and what trials
tell of known windows. The expected digests are those of correct rounding (IEEE
754), which the tests establish with exact rational arithmetic. Losses are not covered:
they are inputs, not state.
"""

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.config import Config
from utilities.misc import sha256
from utilities.model import Layout, Moments, Tokens, adam
from utilities.nodes import Nodes
from utilities.noise import (
    NOISE,
    WINDOWS,
    Floats,
    Noise,
    raw_words,
    weighted,
    weighted_sum,
    window_words,
)
from utilities.whitening import (
    LOGISTIC,
    TANH,
    Doubles,
    inverse_factor,
    preconditioned,
    whiteners,
)

Results: TypeAlias = dict[str, NDArray[np.floating[Any]]]

NOISE_EXPECTED = bytes.fromhex(
    "f36a25ace86c0127a69db269b8db3b022cd87c65af1c4586c533193ea046c9d7"
)
ARITHMETIC_EXPECTED = bytes.fromhex(
    "2d60a2ef1962b4268e7788d3c7bc361adeea36bb06f51b22a1422bfa8ad043ad"
)

SEEDS = (0, 1, 0x0123456789ABCDEF, 1 << 63, (1 << 64) - 1)  # beyond int64 as well
FIRST_BLOCKS = (0, 1, 1 << 32, (1 << 63) + 5)
PARTS = (
    {"inputs": 90, "gates": 83, "logits": 100},  # bundles: 2 counter blocks a trial
    {"matrix": 90 * 83, "vector": 100},  # whole tensors: 30 blocks
)
FIRST_TRIAL, TRIALS = 1000, 3

BOUND_TRIALS = 1 << 17  # 126 * 2^17 < 2^24: the most trials that one sum may have
OPERANDS = tuple(
    float.fromhex(number)
    for number in (
        "0x1p0",
        "0x1.8p1",  # 3: quotients that never end
        "-0x1.99999ap-4",  # 0.1
        "0x1.000002p0",  # one unit in the last place above 1
        "-0x1.fffffep-1",  # one below
        "0x1.fffffep23",  # 2^24 - 1, the largest odd sum
        "-0x1.81cd6ep13",
        "0x1.555556p-2",
        "0x1.79ca1p-67",  # 1e-20
        "-0x1.5284f4p-74",  # its square is subnormal
        "0x1.000002p-75",
        "0x1p-126",  # the smallest normal number
        "-0x1.8p-126",
        "0x1.fffffcp-127",  # the largest subnormal number
        "0x1.be1p-137",
        "-0x1.4p-147",
        "0x1p-149",  # the smallest of all
    )
)
TOTALS = (1, -42, 126, 9_999_991, (1 << 24) - 1, -(1 << 40) - 1, (1 << 52) + 1)
ACCEPTED = 999  # trials: the square root of 1024 times this is irrational
ADAM_STEPS = 3

MODELS = {
    "rnn": Config(vocab_size=11, hidden_size=16),
    "gru": Config(vocab_size=11, hidden_size=8, model_type="gru", n_layers=2),
}
MODEL_CHARACTERS = 500
WINDOWS_TOLD, DIRECTIONS_TOLD = 6, 5
FACTOR_SIZE = 24
WIDEST_UNITS, WIDEST_ENTRY = 256, 12955  # of what shapes noise
WIDEST_SUM = (1 << 53) // (WIDEST_UNITS * WIDEST_ENTRY)


def noise_test() -> bytes:
    """Return the SHA-256 of raw words and signs of known seeds and indices."""
    parts = []
    for seed in SEEDS:
        for purpose in (NOISE, WINDOWS):
            for first in FIRST_BLOCKS:
                parts.append(_words(raw_words(seed, purpose, first, 2)))
        parts.append(_words(window_words(seed, FIRST_TRIAL, TRIALS, 5)))
        for sizes in PARTS:
            signs = Noise(sizes).signs(seed, FIRST_TRIAL, TRIALS)
            parts += [signs[name].astype(np.int8).tobytes() for name in sizes]
    return sha256(*parts)


def _words(words: NDArray[np.uint64]) -> bytes:
    return words.astype("<u8").tobytes()


def arithmetic_test() -> bytes:
    """Return the SHA-256 of all `arithmetic` results as little-endian numbers."""
    every = arithmetic().values()
    return sha256(*(x.astype(x.dtype.newbyteorder("<")).tobytes() for x in every))


def arithmetic() -> Results:
    """Return the results that the digest covers, by name, in the digest's order."""
    operands = np.array(OPERANDS, np.float32)
    x = np.repeat(operands, len(operands))  # all pairs, as long contiguous arrays,
    y = np.tile(operands, len(operands))  # so that vector instructions are used
    scale = 42 * math.sqrt(1024 * ACCEPTED)
    with np.errstate(all="ignore"):  # infinity is a result like others
        return {
            **bound_sums(),
            "sum": x + y,
            "difference": x - y,
            "product": x * y,
            "quotient": x / y,
            "root": np.sqrt(np.abs(x * y)),
            "gradient": (-np.array(TOTALS, np.int64) / scale).astype(np.float32),
            **adam_steps(),
            "tanh": TANH,
            "logistic": LOGISTIC,
            "factor": inverse_factor(factor_matrix()),
            "shaped": shaped_sums(),
            **shapes(),
            **told(),
        }


def bound_signs() -> tuple[Floats, Floats]:
    """Return a and b of 2^17 trials: four hard columns each, then four of noise.

    Partial sums climb to the bound and stay, or fall back, or hover around zero.
    """
    words = raw_words(1, NOISE, 0, BOUND_TRIALS * 16 // 256)
    octets = words.astype("<u8", copy=False).view(np.uint8)
    bits = np.unpackbits(octets, bitorder="little").reshape(2, BOUND_TRIALS, 8)
    a, b = bits.astype(np.float32) * 2 - 1
    a[:, 0] = b[:, 0] = 1
    a[:, 1] = -1
    a[: BOUND_TRIALS // 2, 2], a[BOUND_TRIALS // 2 :, 2] = 1, -1
    b[0::2, 1], b[1::2, 1] = 1, -1
    b[:, 2], b[BOUND_TRIALS // 3, 2] = 1, -1
    return a, b


def bound_sums() -> dict[str, Floats]:
    """Return weighted sums at the bound: all rewards 126, and one of them 125.

    The latter sum of equal signs, 126 * 2^17 - 1, takes all 24 bits of a float32.
    """
    a, b = bound_signs()
    rewards = np.full(BOUND_TRIALS, 126, np.float32)
    even = weighted_sum(weighted(rewards, b), a)
    rewards[-1] = 125
    odd = weighted(rewards, b)
    return {
        "even": even,
        "odd": weighted_sum(odd, a),
        "vector": weighted_sum(odd),
    }


def adam_steps() -> dict[str, Floats]:
    """Return weights and moments after a few steps on fixed numbers.

    Some gradients are so small that their squares are subnormal.
    """
    config = Config(beta1=0.9, beta2=0.99)
    weights = operands = np.array(OPERANDS, np.float32)
    moments = Moments(np.zeros_like(weights), np.zeros_like(weights))
    rates = np.full_like(weights, 0.01)
    for count in range(1, ADAM_STEPS + 1):
        gradient = np.roll(operands, count)
        weights, moments = adam(weights, moments, gradient, rates, count, config)
    return {"weights": weights, "first": moments.first, "second": moments.second}


def factor_matrix() -> Doubles:
    """Return a positive definite matrix of integers."""
    i = np.arange(FACTOR_SIZE)
    rows = (37 * i[:, None] * i + 11 * i[:, None] + 5 * i) % 101 - 50.0
    return np.asarray(rows @ rows.T + 400 * np.eye(FACTOR_SIZE))


def shaped_sums() -> Doubles:
    """Return sums at the bound of exactness, shaped by integers at their largest.

    The first one is odd and nearly 2^53: it takes all 53 bits.
    """
    i = np.arange(WIDEST_UNITS, dtype=np.int64)
    whitener = np.full((WIDEST_UNITS, 3), WIDEST_ENTRY, np.float32)
    whitener[:, 1] *= 1 - 2 * (i % 2)
    whitener[:, 2] = (7919 * i) % (2 * WIDEST_ENTRY + 1) - WIDEST_ENTRY
    sums = np.full((WIDEST_UNITS, 2), WIDEST_SUM, np.int64)
    sums[:, 1] = (104_729 * i**3) % (2 * WIDEST_SUM + 1) - WIDEST_SUM
    sums[0, 0] -= 1
    return preconditioned(sums, whitener)


def text() -> Tokens:
    """Return the text that known models read."""
    i = np.arange(MODEL_CHARACTERS)
    return np.asarray((i * i // 7 + i // 11) % 11)


def known_weights(layout: Layout) -> Floats:
    """Return weights between -0.78 and 0.78: (P,)."""
    numbers = 37 * np.arange(layout.size) % 101 - 50
    return np.asarray(numbers.astype(np.float32) / np.float32(64))


def shapes() -> dict[str, Floats]:
    """Return what shapes the noise of known models, by the text that they read."""
    result = {}
    for name, config in MODELS.items():
        layout = Layout(config)
        shaped = whiteners(layout, known_weights(layout), text())
        result[name] = np.stack(shaped)
    return result


def told() -> dict[str, Doubles]:
    """Return what trials tell of windows of the text, in known models."""
    windows = text()[: WINDOWS_TOLD * 25].reshape(WINDOWS_TOLD, 25).T[..., None]
    trials = np.arange(WINDOWS_TOLD * DIRECTIONS_TOLD)
    inner, outer = ((k * trials % 253 - 126).astype(np.float32) for k in (37, 101))
    result = {}
    for name, config in MODELS.items():
        layout = Layout(config)
        weights = known_weights(layout)
        shaped = whiteners(layout, weights, text())
        nodes = Nodes(layout, weights, shaped, 16, DIRECTIONS_TOLD)
        signs = Noise(layout.bundles).signs(1, 0, len(trials))
        found = [part.ravel() for _, part in nodes.sums(windows, signs, inner, outer)]
        result[f"told by {name}"] = np.concatenate(found) + 0.0  # no -0.0
    return result

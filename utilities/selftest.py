"""Two digests of what all replicas must compute alike; a client's Hello carries them.

Replicas stay equal to the bit only if their machines draw the same noise and round the
same way. Both are taken for granted by `utilities.evolution` and both can fail: another
generator, a matrix product that sums in fewer bits, subnormal numbers flushed to zero
by a library that was built for speed. A server compares these digests with its own
before a client takes part; that is cheaper than replicas that split in step 400.

`noise_test` covers raw words and signs. `arithmetic_test` covers matrix products at the
bound of exactness, the four operations and the square root down to subnormals, and a
few steps of Adam. The expected digests are those of correct rounding (IEEE 754), which
the tests establish with exact rational arithmetic. Losses are not covered: they are
inputs, not state.
"""

import math

import numpy as np
from numpy.typing import NDArray

from utilities.config import Config
from utilities.misc import sha256
from utilities.model import Moments, adam
from utilities.noise import (
    NOISE,
    WINDOWS,
    Floats,
    Noise,
    raw_words,
    weighted_sum,
    window_words,
)

NOISE_EXPECTED = bytes.fromhex(
    "f36a25ace86c0127a69db269b8db3b022cd87c65af1c4586c533193ea046c9d7"
)
ARITHMETIC_EXPECTED = bytes.fromhex(
    "38a09fa779e8498019cdc2b0eab97d5f44b507f7eea2497c9686ddea61eddc09"
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
    """Return the SHA-256 of all `arithmetic` results as little-endian float32."""
    return sha256(*(part.astype("<f4").tobytes() for part in arithmetic().values()))


def arithmetic() -> dict[str, Floats]:
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
    even = weighted_sum(rewards, b, a)
    rewards[-1] = 125
    return {
        "even": even,
        "odd": weighted_sum(rewards, b, a),
        "vector": weighted_sum(rewards, b),
    }


def adam_steps() -> dict[str, Floats]:
    """Return weights and moments after a few steps on fixed numbers.

    Some gradients are so small that their squares are subnormal.
    """
    config = Config(beta1=0.9, beta2=0.99)
    weights = operands = np.array(OPERANDS, np.float32)
    moments = Moments(np.zeros_like(weights), np.zeros_like(weights))
    for count in range(1, ADAM_STEPS + 1):
        gradient = np.roll(operands, count)
        weights, moments = adam(weights, moments, gradient, 0.01, count, config)
    return {"weights": weights, "first": moments.first, "second": moments.second}

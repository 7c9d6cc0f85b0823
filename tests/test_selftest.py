"""The digests of a Hello, rebuilt with Python integers and exact fractions."""

import hashlib
import math
import struct
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import reference
from tests.reference import nearest_float32
from utilities import selftest
from utilities.config import Config
from utilities.noise import NOISE, WINDOWS, raw_words, weighted_sum
from utilities.selftest import (
    ACCEPTED,
    ADAM_STEPS,
    ARITHMETIC_EXPECTED,
    BOUND_TRIALS,
    FIRST_BLOCKS,
    FIRST_TRIAL,
    NOISE_EXPECTED,
    OPERANDS,
    PARTS,
    SEEDS,
    TOTALS,
    TRIALS,
    adam_steps,
    arithmetic,
    arithmetic_test,
    bound_signs,
    bound_sums,
    noise_test,
)

Floats = NDArray[np.float32]
SMALLEST_NORMAL = 2.0**-126
PAIRS = [(Fraction(x), Fraction(y)) for x in OPERANDS for y in OPERANDS]


def packed(numbers: list[float]) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def subnormal(array: Floats) -> int:
    return int(np.sum((array != 0) & (np.abs(array) < SMALLEST_NORMAL)))


# --- rounding: the yardstick ----------------------------------------------------------


@pytest.mark.parametrize(
    ("exact", "rounded"),
    [
        (Fraction(1, 3), 11184811 / 2**25),
        (Fraction(-1, 10), -13421773 / 2**27),
        (Fraction(2**24 + 1), 2.0**24),  # ties go to the even neighbour
        (Fraction(2**24 + 3), 2.0**24 + 4),
        (Fraction(2**25 - 1), 2.0**25),
        (Fraction(1, 2**149), 2.0**-149),
        (Fraction(1, 2**150), 0.0),
        (Fraction(3, 2**150), 2.0**-148),
        (Fraction(2**24 - 1, 2**150), 2.0**-126),  # up to the smallest normal number
        (Fraction(2**128 - 2**103 - 1), 2.0**128 - 2.0**104),
        (Fraction(2**128 - 2**103), math.inf),
        (Fraction(-(2**200)), -math.inf),
        (Fraction(0), 0.0),
    ],
)
def test_the_reference_rounds_fractions_to_the_nearest_float32(
    exact: Fraction, rounded: float
) -> None:
    assert nearest_float32(exact) == rounded


def test_the_reference_knows_a_rounded_root_from_its_neighbours() -> None:
    # sqrt(2) is 11863283.2 / 2^23
    assert reference.is_nearest_root(11863283 / 2**23, Fraction(2))
    assert not reference.is_nearest_root(11863284 / 2**23, Fraction(2))
    assert not reference.is_nearest_root(11863282 / 2**23, Fraction(2))


# --- noise ----------------------------------------------------------------------------


def test_noise_is_the_expected_one() -> None:
    assert noise_test() == noise_test() == NOISE_EXPECTED


def test_expected_noise_is_that_of_philox_in_python_integers() -> None:
    digest = hashlib.sha256()
    for seed in SEEDS:
        for purpose in (NOISE, WINDOWS):
            for first in FIRST_BLOCKS:
                words = reference.words(seed, purpose, first, 2)
                digest.update(struct.pack("<8Q", *words))
        groups = range(FIRST_TRIAL, FIRST_TRIAL + TRIALS)
        for group in groups:  # five windows take two blocks, of which three words rest
            words = reference.words(seed, WINDOWS, 2 * group, 2)[:5]
            digest.update(struct.pack("<5Q", *words))
        for sizes in PARTS:
            drawn = [reference.parts(sizes, seed, trial) for trial in groups]
            for name, size in sizes.items():
                for trial in drawn:
                    digest.update(struct.pack(f"<{size}b", *trial[name]))

    assert digest.digest() == NOISE_EXPECTED


def test_parts_end_within_a_word_and_take_whole_blocks_of_their_own() -> None:
    few, many = (sum(sizes.values()) for sizes in PARTS)

    assert (few, many) == (273, 7570)
    assert (-(-few // 256), -(-many // 256)) == (2, 30)


def test_seeds_reach_beyond_63_bits() -> None:
    assert max(SEEDS) == (1 << 64) - 1
    assert 1 << 63 in SEEDS


def test_one_wrong_bit_of_noise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*place: int) -> NDArray[np.uint64]:
        words = raw_words(*place)
        words[-1] ^= np.uint64(1 if place == (1, NOISE, 0, 2) else 0)
        return words

    monkeypatch.setattr(selftest, "raw_words", wrong)

    assert noise_test() != NOISE_EXPECTED


# --- sums at the bound ----------------------------------------------------------------


def test_there_are_as_many_trials_as_one_sum_may_have() -> None:
    assert BOUND_TRIALS == 2**17
    assert 126 * BOUND_TRIALS < 2**24


def test_sums_of_equal_signs_at_the_bound_by_hand() -> None:
    even, odd, vector = bound_sums().values()

    assert even[0, 0] == -even[1, 0] == 126 * 2**17 == 16_515_072
    assert odd[0, 0] == -odd[1, 0] == vector[0] == 16_515_071  # odd: all 24 bits


def test_sums_of_mixed_signs_at_the_bound_by_hand() -> None:
    even, odd, _ = bound_sums().values()

    assert [even[2, 0], even[0, 1], even[2, 1]] == [0, 0, 0]
    assert even[0, 2] == 126 * (2**17 - 2)  # one sign differs
    assert [odd[2, 0], odd[0, 1]] == [1, 1]  # the last trial has 125 and a minus


def test_all_sums_at_the_bound_are_those_of_integers() -> None:
    a, b = (factor.astype(np.int64) for factor in bound_signs())
    rewards = np.full(BOUND_TRIALS, 126, np.int64)
    odd_rewards = rewards.copy()
    odd_rewards[-1] = 125

    sums = bound_sums()

    assert np.array_equal(np.unique(a), [-1, 1])
    assert np.array_equal(np.unique(b), [-1, 1])
    assert np.array_equal(sums["even"], (a * rewards[:, None]).T @ b)
    assert np.array_equal(sums["odd"], (a * odd_rewards[:, None]).T @ b)
    assert np.array_equal(sums["vector"], odd_rewards @ b)


# --- single operations ----------------------------------------------------------------


def test_operands_are_float32_and_reach_down_to_the_smallest() -> None:
    assert all(reference.float32(operand) == operand for operand in OPERANDS)
    assert min(map(abs, OPERANDS)) == 2.0**-149
    assert sum(abs(operand) < SMALLEST_NORMAL for operand in OPERANDS) == 4


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        ("sum", lambda x, y: x + y),
        ("difference", lambda x, y: x - y),
        ("product", lambda x, y: x * y),
        ("quotient", lambda x, y: x / y),
    ],
)
def test_operations_are_rounded_as_exact_fractions_are(
    name: str, operation: Callable[[Fraction, Fraction], Fraction]
) -> None:
    exact = [nearest_float32(operation(x, y)) for x, y in PAIRS]

    assert arithmetic()[name].tolist() == exact
    signs = [math.copysign(1, x) for x in exact]
    assert np.copysign(1, arithmetic()[name]).tolist() == signs  # of zeros as well


def test_roots_are_nearest_to_the_exact_ones() -> None:
    results = arithmetic()

    for square, root in zip(
        np.abs(results["product"]).tolist(), results["root"].tolist(), strict=True
    ):
        if square:
            assert reference.is_nearest_root(root, Fraction(square))
        else:
            assert root == 0


def test_gradients_are_quotients_of_doubles_rounded_once_more() -> None:
    scale = 42 * math.sqrt(1024 * ACCEPTED)
    root = Fraction(scale) / 42  # its own rounding is within half a unit of 53 bits
    exact = [float(-total / Fraction(scale)) for total in TOTALS]

    assert abs(root**2 / (1024 * ACCEPTED) - 1) < Fraction(1, 2**50)
    assert arithmetic()["gradient"].tolist() == [
        nearest_float32(Fraction(quotient)) for quotient in exact
    ]


def test_results_land_on_subnormal_numbers_that_flushing_would_lose() -> None:
    results = arithmetic()

    counts = {name: subnormal(results[name]) for name in ("sum", "difference")}
    assert all(count > 10 for count in counts.values())
    assert subnormal(results["product"]) > 10
    assert subnormal(results["quotient"]) > 10
    assert subnormal(results["second"]) > 0


# --- Adam -----------------------------------------------------------------------------


def test_steps_of_adam_have_the_bits_of_single_rounded_operations() -> None:
    config = Config(beta1=0.9, beta2=0.99)
    state = [(operand, 0.0, 0.0) for operand in OPERANDS]
    for count in range(1, ADAM_STEPS + 1):
        gradient = OPERANDS[-count:] + OPERANDS[:-count]
        state = [
            reference.adam_weight(*each, g, 0.01, count, config)
            for each, g in zip(state, gradient, strict=True)
        ]

    for array, expected in zip(
        adam_steps().values(), zip(*state, strict=True), strict=True
    ):
        assert array.astype("<f4").tobytes() == packed(list(expected))


# --- the whole ------------------------------------------------------------------------


def test_arithmetic_is_the_expected_one() -> None:
    assert arithmetic_test() == arithmetic_test() == ARITHMETIC_EXPECTED


def test_the_digest_covers_all_results_in_order() -> None:
    results = arithmetic()
    content = b"".join(packed(part.ravel().tolist()) for part in results.values())

    assert list(results) == [
        *("even", "odd", "vector", "sum", "difference", "product", "quotient", "root"),
        *("gradient", "weights", "first", "second"),
    ]
    assert all(part.dtype == np.float32 for part in results.values())
    assert hashlib.sha256(content).digest() == ARITHMETIC_EXPECTED


def test_a_machine_that_flushes_subnormal_numbers_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = arithmetic()

    for name in ("sum", "difference", "product", "quotient", "second"):
        flushed = np.where(np.abs(exact[name]) < SMALLEST_NORMAL, 0, exact[name])
        results = exact | {name: flushed.astype(np.float32)}
        monkeypatch.setattr(selftest, "arithmetic", lambda results=results: results)
        assert arithmetic_test() != ARITHMETIC_EXPECTED


def test_a_product_that_drops_the_last_bit_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def coarse(rewards: Floats, b: Floats, a: Floats | None = None) -> Floats:
        exact = weighted_sum(rewards, b, a)
        return np.where(np.abs(exact) < 2**23, exact, np.rint(exact / 2) * 2)

    monkeypatch.setattr(selftest, "weighted_sum", coarse)

    assert arithmetic_test() != ARITHMETIC_EXPECTED


def test_the_digests_do_not_depend_on_how_numpy_treats_overflow() -> None:
    with np.errstate(all="raise"):
        assert arithmetic_test() == ARITHMETIC_EXPECTED

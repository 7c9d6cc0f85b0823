"""The digests of a Hello, rebuilt with Python integers and exact fractions."""

import hashlib
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import reference
from tests.reference import nearest_float32
from utilities import selftest
from utilities.config import MOST_WHITENED, Config
from utilities.noise import NOISE, WINDOWS, raw_words, weighted_sum
from utilities.selftest import (
    ACCEPTED,
    ADAM_STEPS,
    ARITHMETIC_EXPECTED,
    BOUND_TRIALS,
    DIRECTIONS_TOLD,
    FACTOR_SIZE,
    FIRST_BLOCKS,
    FIRST_TRIAL,
    MODELS,
    NOISE_EXPECTED,
    OPERANDS,
    PARTS,
    SEEDS,
    TOTALS,
    TRIALS,
    WIDEST_ENTRY,
    WIDEST_SUM,
    WIDEST_UNITS,
    WINDOWS_TOLD,
    adam_steps,
    arithmetic,
    arithmetic_test,
    bound_signs,
    bound_sums,
    factor_matrix,
    noise_test,
    shaped_sums,
    shapes,
    told,
)
from utilities.whitening import (
    DAMPING,
    SCALE,
    Doubles,
    inverse_factor,
    preconditioned,
)

Floats = NDArray[np.float32]
SMALLEST_NORMAL = 2.0**-126
PAIRS = [(Fraction(x), Fraction(y)) for x in OPERANDS for y in OPERANDS]


def packed(numbers: list[float], kind: str = "f") -> bytes:
    return struct.pack(f"<{len(numbers)}{kind}", *numbers)


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


# --- what shapes noise ----------------------------------------------------------------


def test_the_reference_takes_roots_that_are_nearest_to_the_exact_ones() -> None:
    for square in (2.0, 0.1, 1e-300, 5e-324, 1.7e308, 4.0, 1 + 2**-52, 3.0**80):
        root = Fraction(reference.rooted(square))
        for side in (0, math.inf):
            middle = (root + Fraction(math.nextafter(float(root), side))) / 2
            assert (middle**2 < square) == (side == 0)


def test_tables_are_those_of_the_reference() -> None:
    results = arithmetic()

    assert results["tanh"].tolist() == reference.table(logistic=False)
    assert results["logistic"].tolist() == reference.table(logistic=True)


def row(i: int, j: int) -> int:
    return (37 * i * j + 11 * i + 5 * j) % 101 - 50


def test_a_factor_is_that_of_exact_fractions_rounded_at_each_operation() -> None:
    matrix = factor_matrix()
    exact = [
        [
            sum(row(i, j) * row(k, j) for j in range(FACTOR_SIZE)) + 400 * (i == k)
            for k in range(FACTOR_SIZE)
        ]
        for i in range(FACTOR_SIZE)
    ]

    assert matrix.tolist() == exact
    assert arithmetic()["factor"].tolist() == reference.inverse_factor(matrix.tolist())


def test_shaped_sums_are_those_of_integers_and_take_all_bits_of_a_double() -> None:
    count = range(WIDEST_UNITS)
    columns = (
        [WIDEST_ENTRY for _ in count],
        [WIDEST_ENTRY * (-1) ** i for i in count],
        [(7919 * i) % (2 * WIDEST_ENTRY + 1) - WIDEST_ENTRY for i in count],
    )
    sums = (
        [WIDEST_SUM - (i == 0) for i in count],
        [(104_729 * i**3) % (2 * WIDEST_SUM + 1) - WIDEST_SUM for i in count],
    )
    exact = [
        [sum(x * y for x, y in zip(column, each, strict=True)) for each in sums]
        for column in columns
    ]

    assert 2**52 < exact[0][0] < 2**53
    assert exact[0][0] % 2 == 1
    assert [[x * SCALE for x in each] for each in shaped_sums().tolist()] == exact


def test_no_shape_has_larger_integers_than_those() -> None:
    assert WIDEST_UNITS == MOST_WHITENED
    largest = SCALE * math.sqrt((MOST_WHITENED + DAMPING) / DAMPING)
    assert round(largest) == WIDEST_ENTRY


@pytest.mark.parametrize("name", MODELS)
def test_shapes_of_known_models_are_those_of_integers_and_fractions(name: str) -> None:
    config = MODELS[name]
    size = sum(map(math.prod, reference.shapes_of(config).values()))
    weights = [((37 * i) % 101 - 50) / 64 for i in range(size)]
    tokens = [(i * i // 7 + i // 11) % 11 for i in range(500)]

    expected = reference.whiteners(config, weights, tokens)

    assert shapes()[name].tolist() == expected


def test_shapes_are_far_from_the_unit_matrix() -> None:
    for every in shapes().values():
        for shape in every:
            assert np.abs(np.tril(shape, -1)).max() > SCALE / 2


@pytest.mark.parametrize("name", MODELS)
def test_what_trials_tell_is_that_of_integers_and_single_rounded_operations(
    name: str,
) -> None:
    config = replace(MODELS[name], directions_per_window=DIRECTIONS_TOLD)
    assert (config.burn_in, config.sequence_length) == (16, 8)
    size = sum(map(math.prod, reference.shapes_of(config).values()))
    weights = tuple(((37 * i) % 101 - 50) / 64 for i in range(size))
    tokens = [(i * i // 7 + i // 11) % 11 for i in range(500)]
    expected = [0] * size

    for group in range(WINDOWS_TOLD):
        window = tokens[group * 25 : group * 25 + 25]
        places = reference.places_of(config, weights, tokens, [window])
        trials = range(group * DIRECTIONS_TOLD, (group + 1) * DIRECTIONS_TOLD)
        drawn = [
            reference.parts(reference.bundles_of(config), 1, trial) for trial in trials
        ]
        inner, outer = ([k * trial % 253 - 126 for trial in trials] for k in (37, 101))
        told_here = reference.group_told(config, places, drawn, inner, outer)
        expected = [x + y for x, y in zip(expected, told_here, strict=True)]

    found = told()[f"told by {name}"].tolist()
    assert found == expected
    assert max(found) > 1000


# --- the whole ------------------------------------------------------------------------


def test_arithmetic_is_the_expected_one() -> None:
    assert arithmetic_test() == arithmetic_test() == ARITHMETIC_EXPECTED


def test_the_digest_covers_all_results_in_order() -> None:
    results = arithmetic()
    doubles = {"tanh", "logistic", "factor", "shaped", "told by rnn", "told by gru"}
    content = b"".join(
        packed(part.ravel().tolist(), "d" if name in doubles else "f")
        for name, part in results.items()
    )

    assert list(results) == [
        *("even", "odd", "vector", "sum", "difference", "product", "quotient", "root"),
        *("gradient", "weights", "first", "second", "tanh", "logistic", "factor"),
        *("shaped", "rnn", "gru", "told by rnn", "told by gru"),
    ]
    for name, part in results.items():
        assert part.dtype == (np.float64 if name in doubles else np.float32)
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
    def coarse(rewarded: Floats, a: Floats | None = None) -> Floats:
        exact = weighted_sum(rewarded, a)
        return np.where(np.abs(exact) < 2**23, exact, np.rint(exact / 2) * 2)

    monkeypatch.setattr(selftest, "weighted_sum", coarse)

    assert arithmetic_test() != ARITHMETIC_EXPECTED


def test_a_root_of_a_double_that_is_off_by_its_last_bit_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def coarse(matrix: Doubles) -> Doubles:
        return np.asarray(np.nextafter(inverse_factor(matrix), np.inf))

    monkeypatch.setattr(selftest, "inverse_factor", coarse)

    assert arithmetic_test() != ARITHMETIC_EXPECTED


def test_a_product_of_doubles_that_drops_the_last_bit_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def coarse(sums: NDArray[np.int64], whitener: Floats) -> Doubles:
        exact = preconditioned(sums, whitener) * SCALE
        return np.where(np.abs(exact) < 2**52, exact, np.rint(exact / 2) * 2) / SCALE

    monkeypatch.setattr(selftest, "preconditioned", coarse)

    assert arithmetic_test() != ARITHMETIC_EXPECTED


def test_another_tanh_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TANH", "LOGISTIC"):
        table = getattr(selftest, name).copy()
        table[4000] += 1  # one of its entries, rounded the other way
        with monkeypatch.context() as patch:
            patch.setattr(selftest, name, table)
            assert arithmetic_test() != ARITHMETIC_EXPECTED


def test_the_digests_do_not_depend_on_how_numpy_treats_overflow() -> None:
    with np.errstate(all="raise"):
        assert arithmetic_test() == ARITHMETIC_EXPECTED

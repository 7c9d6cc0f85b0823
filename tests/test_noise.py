"""Noise against Philox in Python integers, golden values and exact sums."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import reference
from utilities.noise import (
    NOISE,
    WINDOWS,
    Noise,
    blocks_of,
    raw_words,
    weighted,
    weighted_sum,
    window_words,
)

TOP = (1 << 64) - 1
SEEDS = [0, 1, 0x0123456789ABCDEF, (1 << 63) - 1, 1 << 63, TOP]
BOUND = 1 << 17


# of bundles: 3 + 5 + 4 + 70 + 190 = 272 signs, 5 words, 2 blocks; of whole tensors
SIZES = {"characters": 3, "gates0": 5, "state0": 4, "inner0": 70, "logits": 190}
WHOLE = {"Wx0": 15, "b0": 4, "Wo": 13_300}
BOTH = pytest.mark.parametrize("sizes", [SIZES, WHOLE], ids=["bundles", "tensors"])
SMALL = {"characters": 3, "gates0": 5, "logits": 4}


def text(numbers: NDArray[np.float32]) -> str:
    """Write signs as + and -."""
    return "".join("+" if number == 1 else "-" for number in numbers.ravel())


# --- raw words ------------------------------------------------------------------------


def test_the_reference_gives_the_published_answers_of_philox() -> None:
    pi = [0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x82EFA98EC4E6C89]
    key = [0x452821E638D01377, 0xBE5466CF34E90C6C]
    blocks = [
        reference.philox([0] * 4, [0] * 2),
        reference.philox([TOP] * 4, [TOP] * 2),
        reference.philox(pi, key),
    ]

    assert ["".join(f"{word:016x}" for word in block) for block in blocks] == [
        "16554d9eca36314cdb20fe9d672d0fdcd7e772cee186176b7e68b68aec7ba23b",
        "87b092c3013fe90b438c3c67be8d02249cc7d7c69cd777b6a09caebf594f0ba0",
        "a528f45403e61d9538c72dbd566e9788a5a1610e72fd18b557bd43b5e52b7fe6",
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("purpose", [NOISE, WINDOWS])
@pytest.mark.parametrize("block", [0, 1, 1 << 32, TOP - 1])
def test_words_are_those_of_philox_in_python_integers(
    seed: int, purpose: int, block: int
) -> None:
    words = raw_words(seed, purpose, block, 3)

    assert words.dtype == np.uint64
    assert words.tolist() == reference.words(seed, purpose, block, 3)


def test_words_never_change() -> None:
    golden = [
        (
            0,
            NOISE,
            0,
            "02f4ba6408e4d89b3dd62b0b9ca8c5b21c8667a55d902e79907d7a052fd5b4dc",
        ),
        (
            1,
            WINDOWS,
            2,
            "bac1a01eba5e2ab4d3f762745eeef88bf3574bbf713353713f35bf6477ae48d8",
        ),
        (
            TOP,
            NOISE,
            1 << 40,
            "341ae7b98e996969eef00f269d9f608febeb1528376d008f3d54454e24895b87",
        ),
    ]
    for seed, purpose, block, expected in golden:
        words = raw_words(seed, purpose, block, 1).astype(">u8")
        assert words.tobytes().hex() == expected


def test_noise_and_windows_of_a_seed_share_no_word() -> None:
    noise, windows = (raw_words(9, p, 0, 100) for p in (NOISE, WINDOWS))

    assert not set(noise.tolist()) & set(windows.tolist())


@pytest.mark.parametrize(
    ("words", "blocks"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3)]
)
def test_words_take_whole_blocks_of_four(words: int, blocks: int) -> None:
    assert blocks_of(words) == blocks


# --- windows --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("windows", [1, 3, 4, 5])
def test_window_words_of_a_group_alone_are_those_within_many(
    seed: int, windows: int
) -> None:
    many = window_words(seed, 7, 6, windows)

    assert many.shape == (6, windows)
    for group in range(6):
        alone = window_words(seed, 7 + group, 1, windows)
        assert alone.tolist() == [many[group].tolist()]


def test_each_group_starts_a_block_of_windows_of_its_own() -> None:
    one = window_words(TOP, 3, 2, 1)
    five = window_words(TOP, 3, 2, 5)
    stream = reference.words(TOP, WINDOWS, 0, 20)

    assert one.tolist() == [[stream[12]], [stream[16]]]  # blocks 3 and 4
    assert five.tolist() == [stream[24:29], stream[32:37]]  # blocks 6-7 and 8-9


def test_window_words_never_change() -> None:
    words = window_words(1 << 63, 2, 2, 2).astype(">u8")

    assert (
        words.tobytes().hex()
        == "c99566cb4f3284c1fb4f9f0373aa68fc75b2095a9292955635e97ae113002fb8"
    )


# --- signs ----------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["characters", "gates0", "logits"])
def test_cleared_bits_of_a_part_are_signs_of_minus_one_and_all_else_stays(
    part: str,
) -> None:
    noise = Noise({"characters": 60, "gates0": 10, "logits": 70})
    words = noise.words(5, 10, 6)
    kept = np.random.default_rng(1).integers(0, 2, (3, 200)).astype(np.bool_)
    expected = noise.signs(5, 10, 6)
    kept = kept[:, : expected[part].shape[1]]

    found = noise.signs_of(noise.lowered(words, part, kept))

    expected[part][np.repeat(~kept, 2, axis=0)] = -1
    assert {k: v.tolist() for k, v in found.items()} == {
        k: v.tolist() for k, v in expected.items()
    }
    assert words.tolist() == noise.words(5, 10, 6).tolist()


@BOTH
def test_signs_are_counted_by_the_sizes_of_their_parts(sizes: dict[str, int]) -> None:
    assert Noise(sizes).signs_per_trial == sum(sizes.values())


def test_parts_have_more_columns_where_a_multiple_is_asked_for() -> None:
    noise = Noise({"characters": 67, "gates0": 32, "state0": 32, "logits": 67})
    words = noise.words(5, 10, 6)
    exact = noise.signs(5, 10, 6)

    found = noise.signs_of(words, 4)

    assert [part.shape for part in found.values()] == [
        *((6, 68), (6, 32), (6, 32), (6, 68))
    ]
    for name, part in exact.items():
        assert found[name][:, : part.shape[1]].tolist() == part.tolist()
    assert found["characters"][:, 67].tolist() == exact["gates0"][:, 0].tolist()


def test_the_last_part_has_no_more_columns_than_there_are_bits() -> None:
    noise = Noise({"state0": 3, "logits": 5})

    signs = noise.signs_of(noise.words(1, 0, 2), 4)

    assert [part.shape for part in signs.values()] == [(2, 4), (2, 5)]


@BOTH
def test_there_is_an_array_for_each_part_in_the_order_of_their_names(
    sizes: dict[str, int],
) -> None:
    signs = Noise(sizes).signs(5, 10, 6)

    assert list(signs) == list(sizes)
    assert [part.shape for part in signs.values()] == [(6, n) for n in sizes.values()]


def test_sizes_that_change_later_do_not_change_the_noise() -> None:
    sizes = dict(SMALL)
    noise = Noise(sizes)
    sizes["characters"] = 1000

    assert [part.shape for part in noise.signs(1, 0, 2).values()] == [
        *((2, 3), (2, 5), (2, 4))
    ]


@BOTH
def test_signs_are_float32_minus_and_plus_one_in_equal_shares(
    sizes: dict[str, int],
) -> None:
    parts = Noise(sizes).signs(1, 0, 500 if sizes is SIZES else 20).values()
    every = np.concatenate([part.ravel() for part in parts])

    assert all(part.dtype == np.float32 for part in parts)
    assert np.unique(every).tolist() == [-1, 1]
    assert abs(float(every.mean(dtype=np.float64))) < 5 / len(every) ** 0.5


@BOTH
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("trial", [0, 1, 123_456_789_012])
def test_a_trial_alone_has_the_bits_that_it_has_in_a_batch(
    sizes: dict[str, int], seed: int, trial: int
) -> None:
    noise = Noise(sizes)
    batch = noise.signs(seed, trial, 5)

    for offset in range(5):
        alone = noise.signs(seed, trial + offset, 1)
        assert list(alone) == list(batch)
        for name, part in alone.items():
            assert part.tobytes() == batch[name][offset].tobytes()


@pytest.mark.parametrize("sizes", [SIZES, {"Wx0": 700, "b0": 4}, {"one": 1}])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("trial", [0, 3, 99_999])
def test_signs_are_the_bits_of_philox_in_python_integers(
    sizes: dict[str, int], seed: int, trial: int
) -> None:
    signs = Noise(sizes).signs(seed, trial, 2)

    for offset in (0, 1):
        drawn = {name: part[offset].tolist() for name, part in signs.items()}
        assert drawn == reference.parts(sizes, seed, trial + offset)


def test_signs_never_change() -> None:
    few = Noise(SMALL).signs(1, 0, 2).values()
    many = Noise({"Wx0": 15, "b0": 4}).signs(TOP, 5, 1).values()

    assert [text(part) for part in few] == ["+++--+", "++-+++-+++", "-+---+--"]
    assert [text(part) for part in many] == ["--++++++---+--+", "----"]


def test_bits_are_taken_from_the_least_significant_on_one_being_plus() -> None:
    word = raw_words(77, NOISE, 0, 1).tolist()[0]
    bits = "".join("+" if word >> i & 1 else "-" for i in range(12))

    signs = Noise(SMALL).signs(77, 0, 1)

    assert "".join(text(part) for part in signs.values()) == bits


def test_other_seeds_and_trials_have_other_signs() -> None:
    noise = Noise(SIZES)
    drawn = [
        noise.signs(seed, trial, 1)["logits"] for seed in SEEDS for trial in (0, 1, 2)
    ]
    rows = sorted(part.tobytes() for part in drawn)

    assert all(one != another for one, another in pairwise(rows))


def products(signs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return perturbations of two matrices that share a bundle, and of a vector."""
    a, h, b = signs["characters"], signs["state"], signs["gates"]
    matrices = (x[:, :, None] * b[:, None, :] for x in (a, h))
    return np.concatenate([*(m.reshape(len(b), -1) for m in matrices), b], axis=1)


def test_products_of_drawn_signs_have_the_identity_as_their_second_moment() -> None:
    trials = 1 << 16
    noise = Noise({"characters": 4, "gates": 3, "state": 3})

    e = products(noise.signs(5, 0, trials))

    moment = e.T @ e / trials
    assert e.shape == (trials, 12 + 9 + 3)
    assert np.abs(e.mean(axis=0)).max() < 5 / trials**0.5
    assert np.abs(moment - np.eye(24)).max() < 5 / trials**0.5


def test_products_keep_the_square_of_any_gradient_in_the_mean() -> None:
    trials = 1 << 16
    e = products(
        Noise({"characters": 4, "gates": 3, "state": 3}).signs(TOP, 9, trials)
    ).astype(np.float64)

    for phase in range(5):
        gradient = np.sin(np.arange(24.0) * (phase + 1))
        squares = (e @ gradient) ** 2
        error = squares.std() / trials**0.5
        assert squares.mean() == pytest.approx(gradient @ gradient, abs=4 * error)


# --- sums -----------------------------------------------------------------------------


def test_a_rank_one_sum_by_hand() -> None:
    a = np.array([[1, -1], [1, 1]], np.float32)
    b = np.array([[1, 1, -1], [-1, 1, 1]], np.float32)

    total = weighted_sum(weighted(np.array([10, 3], np.float32), b), a)

    #     10 (1 -1)^T (1 1 -1)  +  3 (1 1)^T (-1 1 1)
    assert total.tolist() == [[7, 13, -7], [-13, -7, 13]]


def test_a_sum_of_vectors_by_hand() -> None:
    rewards = np.array([10, 3], np.float32)
    vectors = np.array([[1, -1], [1, 1]], np.float32)

    assert weighted_sum(weighted(rewards, vectors)).tolist() == [13, -7]


def test_a_silent_sign_adds_nothing() -> None:
    a = np.array([[1, 0], [0, -1]], np.float32)
    b = np.array([[1, -1], [1, 1]], np.float32)

    total = weighted_sum(weighted(np.array([10, 3], np.float32), b), a)

    assert total.tolist() == [[10, -10], [-3, -3]]


def test_sums_have_the_shape_of_the_tensor_and_leave_inputs_alone() -> None:
    signs = Noise(SIZES).signs(4, 0, 7)
    rewards = np.arange(-3, 4).astype(np.float32)
    a, b = signs["characters"].copy(), signs["logits"].copy()
    for array in (a, b, rewards):
        array.flags.writeable = False

    matrices = [weighted_sum(weighted(rewards, b), a) for _ in (1, 2)]
    vectors = [weighted_sum(weighted(rewards, b)) for _ in (1, 2)]

    assert [total.shape for total in matrices + vectors] == [(3, 190)] * 2 + [
        (190,)
    ] * 2
    assert all(total.dtype == np.float32 for total in matrices + vectors)
    assert (matrices[0] == matrices[1]).all()
    assert (vectors[0] == vectors[1]).all()


@given(st.integers(0, TOP), st.lists(st.integers(-126, 126), min_size=1, max_size=8))
@settings(deadline=None, max_examples=40)
def test_sums_are_those_of_python_integers(seed: int, rewards: list[int]) -> None:
    matrix, vector = [[0] * 5 for _ in range(3)], [0] * 4
    for trial, reward in enumerate(rewards):
        a, b, v = reference.parts(SMALL, seed, trial).values()
        for column in range(5):
            for row in range(3):
                matrix[row][column] += reward * a[row] * b[column]
        vector = [total + reward * sign for total, sign in zip(vector, v, strict=True)]

    signs = Noise(SMALL).signs(seed, 0, len(rewards))
    shares = np.array(rewards, np.float32)

    summed = weighted_sum(weighted(shares, signs["gates0"]), signs["characters"])
    assert summed.tolist() == matrix
    assert weighted_sum(weighted(shares, signs["logits"])).tolist() == vector


def test_sums_at_the_bound_of_two_to_the_seventeenth_trials_are_exact() -> None:
    drawn = Noise({"state": 6, "gates": 5, "logits": 4}).signs(3, 0, BOUND)
    state, gates, logits = drawn.values()
    state[:, 0], gates[:, 0], logits[:, 0] = 1, 1, -1  # all signs equal
    state[: BOUND // 2, 1], state[BOUND // 2 :, 1] = 1, -1  # up, and down again
    rewards = np.full(BOUND, 126, np.float32)
    rewards[1234] = 125  # makes sums odd: they need all 24 bits
    a, b, v, r = (x.astype(np.int64) for x in (state, gates, logits, rewards))

    total = weighted_sum(weighted(rewards, gates), state)
    flat = weighted_sum(weighted(rewards, logits))

    assert total[0, 0] == 126 * 2**17 - 1 == 16_515_071
    assert (total[1, 0], flat[0]) == (-1, -16_515_071)
    assert (total == (a * r[:, None]).T @ b).all()
    assert (flat == r @ v).all()

"""Noise against Philox in Python integers, golden values and exact sums."""

from itertools import pairwise
from typing import NamedTuple

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
    RankOne,
    Signs,
    blocks_of,
    raw_words,
    weighted_sum,
    window_words,
)

TOP = (1 << 64) - 1
SEEDS = [0, 1, 0x0123456789ABCDEF, (1 << 63) - 1, 1 << 63, TOP]
BOUND = 1 << 17


class Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]


# low rank: 3 + 5, 4, 70 + 190 = 272 signs: 5 words, 2 blocks
TENSORS = (Tensor("Wx0", (3, 5)), Tensor("b0", (4,)), Tensor("Wo", (70, 190)))
SHAPES = {tensor.name: tensor.shape for tensor in TENSORS}
SMALL = (Tensor("Wx0", (3, 5)), Tensor("b0", (4,)))


def arrays(signs: Signs) -> list[NDArray[np.float32]]:
    """Return all arrays in order, `a` before `b`."""
    parts: list[NDArray[np.float32]] = []
    for part in signs.values():
        parts += part if isinstance(part, RankOne) else [part]
    return parts


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


@pytest.mark.parametrize("full", [False, True])
def test_signs_are_counted_by_their_factors_or_by_their_weights(full: bool) -> None:
    expected = 3 * 5 + 4 + 70 * 190 if full else 3 + 5 + 4 + 70 + 190

    assert Noise(TENSORS, full=full).signs_per_trial == expected


def test_low_rank_signs_are_two_factors_of_a_matrix_and_a_whole_vector() -> None:
    signs = Noise(TENSORS, full=False).signs(5, 10, 6)

    assert list(signs) == ["Wx0", "b0", "Wo"]
    assert isinstance(signs["Wx0"], RankOne)
    assert isinstance(signs["b0"], np.ndarray)
    assert [part.shape for part in arrays(signs)] == [
        *((6, 3), (6, 5)),
        (6, 4),
        *((6, 70), (6, 190)),
    ]


def test_full_signs_have_the_shapes_of_the_tensors() -> None:
    signs = Noise(TENSORS, full=True).signs(5, 10, 6)

    assert [part.shape for part in arrays(signs)] == [(6, 3, 5), (6, 4), (6, 70, 190)]


@pytest.mark.parametrize("full", [False, True])
def test_signs_are_float32_minus_and_plus_one_in_equal_shares(full: bool) -> None:
    parts = arrays(Noise(TENSORS, full=full).signs(1, 0, 20 if full else 500))
    every = np.concatenate([part.ravel() for part in parts])

    assert all(part.dtype == np.float32 for part in parts)
    assert np.unique(every).tolist() == [-1, 1]
    assert abs(float(every.mean(dtype=np.float64))) < 5 / len(every) ** 0.5


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("trial", [0, 1, 123_456_789_012])
def test_a_trial_alone_has_the_bits_that_it_has_in_a_batch(
    full: bool, seed: int, trial: int
) -> None:
    noise = Noise(TENSORS, full=full)
    batch = arrays(noise.signs(seed, trial, 5))

    for offset in range(5):
        alone = arrays(noise.signs(seed, trial + offset, 1))
        for one, many in zip(alone, batch, strict=True):
            assert one.tobytes() == many[offset].tobytes()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("trial", [0, 3, 99_999])
def test_signs_are_the_bits_of_philox_in_python_integers(
    full: bool, seed: int, trial: int
) -> None:
    tensors = SMALL if full else TENSORS
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    expected = reference.factors(shapes, seed, trial, full)

    signs = Noise(tensors, full=full).signs(seed, trial, 1)

    flat = [part.ravel().tolist() for part in arrays(signs)]
    assert flat == [part for parts in expected.values() for part in parts]


def test_signs_never_change() -> None:
    low = arrays(Noise(SMALL, full=False).signs(1, 0, 2))
    full = arrays(Noise(SMALL, full=True).signs(TOP, 5, 1))

    assert [text(part) for part in low] == ["+++--+", "++-+++-+++", "-+---+--"]
    assert [text(part) for part in full] == ["--++++++---+--+", "----"]


def test_bits_are_taken_from_the_least_significant_on_one_being_plus() -> None:
    word = raw_words(77, NOISE, 0, 1).tolist()[0]
    bits = "".join("+" if word >> i & 1 else "-" for i in range(12))

    signs = arrays(Noise(SMALL, full=False).signs(77, 0, 1))

    assert "".join(text(part) for part in signs) == bits


def test_other_seeds_and_trials_have_other_signs() -> None:
    noise = Noise(TENSORS, full=False)
    drawn = [noise.signs(seed, trial, 1)["Wo"] for seed in SEEDS for trial in (0, 1, 2)]
    rows = sorted(b"".join(factor.tobytes() for factor in part) for part in drawn)

    assert all(one != another for one, another in pairwise(rows))


# --- sums -----------------------------------------------------------------------------


def test_a_rank_one_sum_by_hand() -> None:
    a = np.array([[1, -1], [1, 1]], np.float32)
    b = np.array([[1, 1, -1], [-1, 1, 1]], np.float32)

    total = weighted_sum(RankOne(a, b), np.array([10, 3], np.float32))

    #     10 (1 -1)^T (1 1 -1)  +  3 (1 1)^T (-1 1 1)
    assert total.tolist() == [[7, 13, -7], [-13, -7, 13]]


def test_sums_of_vectors_and_of_full_noise_by_hand() -> None:
    rewards = np.array([10, 3], np.float32)
    vectors = np.array([[1, -1], [1, 1]], np.float32)
    full = np.array([[[1, -1]], [[-1, -1]]], np.float32)  # (2, 1, 2)

    assert weighted_sum(vectors, rewards).tolist() == [13, -7]
    assert weighted_sum(full, rewards).tolist() == [[7, -13]]


@pytest.mark.parametrize("full", [False, True])
def test_sums_have_the_shape_of_the_tensor_and_leave_inputs_alone(full: bool) -> None:
    signs = Noise(TENSORS, full=full).signs(4, 0, 7)
    rewards = np.arange(-3, 4).astype(np.float32)
    before = [part.copy() for part in arrays(signs)], rewards.copy()

    twice = [[weighted_sum(part, rewards) for part in signs.values()] for _ in (1, 2)]

    assert [total.shape for total in twice[0]] == [tensor.shape for tensor in TENSORS]
    assert all((x == y).all() for x, y in zip(*twice, strict=True))
    assert all((x == y).all() for x, y in zip(arrays(signs), before[0], strict=True))
    assert (rewards == before[1]).all()


@given(st.integers(0, TOP), st.lists(st.integers(-126, 126), min_size=1, max_size=8))
@settings(deadline=None, max_examples=40)
def test_sums_are_those_of_python_integers(seed: int, rewards: list[int]) -> None:
    expected = {name: [0] * size for name, size in (("Wx0", 15), ("b0", 4))}
    shapes = {tensor.name: tensor.shape for tensor in SMALL}
    for trial, reward in enumerate(rewards):
        flat = reference.perturbation(shapes, seed, trial, full=False)
        for name, e in flat.items():
            sums = zip(expected[name], e, strict=True)
            expected[name] = [total + reward * sign for total, sign in sums]

    signs = Noise(SMALL, full=False).signs(seed, 0, len(rewards))

    for name, part in signs.items():
        total = weighted_sum(part, np.array(rewards, np.float32))
        assert total.ravel().tolist() == expected[name]


def test_sums_at_the_bound_of_two_to_the_seventeenth_trials_are_exact() -> None:
    noise = Noise((Tensor("W", (6, 5)), Tensor("b", (4,))), full=False)
    matrix, vector = noise.signs(3, 0, BOUND).values()
    assert isinstance(matrix, RankOne)
    assert isinstance(vector, np.ndarray)
    matrix.a[:, 0], matrix.b[:, 0], vector[:, 0] = 1, 1, -1  # all signs equal
    matrix.a[: BOUND // 2, 1], matrix.a[BOUND // 2 :, 1] = 1, -1  # up, and down again
    rewards = np.full(BOUND, 126, np.float32)
    rewards[1234] = 125  # makes sums odd: they need all 24 bits
    a, b, v, r = (x.astype(np.int64) for x in (matrix.a, matrix.b, vector, rewards))

    total, flat = weighted_sum(matrix, rewards), weighted_sum(vector, rewards)

    assert total[0, 0] == 126 * 2**17 - 1 == 16_515_071
    assert (total[1, 0], flat[0]) == (-1, -16_515_071)
    assert (total == (a * r[:, None]).T @ b).all()
    assert (flat == r @ v).all()

"""What shapes noise: by hand, against fractions, and the same bits in any order."""

import hashlib
import math
from decimal import Decimal, localcontext
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import reference
from tests.reference import example_setting, example_tokens, example_weights
from utilities import whitening
from utilities.config import MOST_WHITENED
from utilities.evolution import Setting
from utilities.model import Clean, Floats, Layout, Network, Tokens, initial_weights
from utilities.whitening import (
    DAMPING,
    FINE,
    LARGEST_WEIGHT,
    LOGISTIC,
    ONE,
    REACH,
    SAMPLE_CHARACTERS,
    SAMPLE_WINDOWS,
    SCALE,
    STEPS,
    TANH,
    Doubles,
    FixedPoint,
    inverse_factor,
    looked_up,
    preconditioned,
    sample,
    state_moments,
    whitened,
    whitener,
    whiteners,
)

LARGEST = 12955  # of what shapes noise
EXACT = 1 << 53  # up to which a float64 holds every integer
KINDS = list(product(["rnn", "gru"], [1, 2, 3]))
EVERY = pytest.mark.parametrize(("model_type", "n_layers"), KINDS)


def random_moments(size: int, rank: int, seed: int) -> Doubles:
    """Return E[h h^T] of random states whose units vary by different amounts."""
    draw = np.random.default_rng(seed)
    states = draw.standard_normal((rank, size)) * draw.uniform(0.1, 1, size)
    return np.asarray(states.T @ states / rank)


MOMENTS = st.builds(
    random_moments, st.integers(1, 12), st.integers(1, 30), st.integers(0, 1 << 32)
)


def as_matrix(shape: Floats) -> Doubles:
    """Return R of its integers."""
    return shape.astype(np.float64) / SCALE


# --- the factor -----------------------------------------------------------------------


def test_an_inverse_factor_by_hand() -> None:
    # [[2, 0], [1, 2]] times its transpose; its inverse is [[1/2, 0], [-1/4, 1/2]]
    factor = inverse_factor(np.array([[4.0, 2], [2, 5]]))

    assert factor.tolist() == [[0.5, 0], [-0.25, 0.5]]


def test_a_larger_inverse_factor_by_hand() -> None:
    # L = [[1, 0, 0], [2, 1, 0], [-1, 3, 2]]
    matrix = np.array([[1.0, 2, -1], [2, 5, 1], [-1, 1, 14]])
    before = matrix.copy()

    factor = inverse_factor(matrix)

    assert factor.tolist() == [[1, 0, 0], [-2, 1, 0], [3.5, -1.5, 0.5]]
    assert (matrix == before).all()


@given(MOMENTS)
@settings(deadline=None, max_examples=50)
def test_an_inverse_factor_turns_its_matrix_into_the_unit_matrix(
    moments: Doubles,
) -> None:
    matrix = moments + 0.1 * np.eye(len(moments))

    factor = inverse_factor(matrix)

    assert (np.triu(factor, 1) == 0).all()
    assert factor @ matrix @ factor.T == pytest.approx(np.eye(len(matrix)), abs=1e-12)


@given(MOMENTS)
@settings(deadline=None, max_examples=25)
def test_an_inverse_factor_has_the_bits_of_exact_fractions_rounded_each_time(
    moments: Doubles,
) -> None:
    matrix = moments + 0.1 * np.eye(len(moments))

    assert inverse_factor(matrix).tolist() == reference.inverse_factor(matrix.tolist())


# --- what shapes noise ----------------------------------------------------------------


def test_the_shape_of_two_units_by_hand() -> None:
    # Variance 50 on average. [[1, 0.8], [0.8, 1]] + 0.1 has the factor
    # [[1.04881, 0], [0.76277, 0.71985]] with the inverse
    # [[0.95346, 0], [-1.01031, 1.38918]]: the sum of its squares is 3.85965. So h.a'
    # would vary by 2 - 0.1 * 3.85965 = 1.61404 where h.a did by 2: times 1.11318.
    shape = whitener(np.array([[50.0, 40], [40, 50]]))

    assert shape.tolist() == [[272, 0], [-288, 396]]
    assert shape.dtype == np.float32
    assert [1.11318 * 256 * x for x in (0.95346, -1.01031, 1.38918)] == pytest.approx(
        [271.71, -287.91, 395.88], abs=0.01
    )


@pytest.mark.parametrize("variance", [1e-6, 1.0, 12345.0, 2.0**20])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_noise_of_units_that_vary_alike_and_apart_is_left_alone(
    size: int, variance: float
) -> None:
    # C + 0.1 = 1.1, so R would be 1 / sqrt 1.1, and is made to be 1.
    shape = whitener(variance * np.eye(size))

    assert shape.tolist() == (SCALE * np.eye(size)).tolist()


def test_noise_is_left_alone_where_states_do_not_vary() -> None:
    shape = whitener(np.zeros((3, 3)))

    assert shape.tolist() == (SCALE * np.eye(3)).tolist()
    assert shape.dtype == np.float32


def test_noise_of_a_unit_that_does_not_vary_is_damped_not_blown_up() -> None:
    # Variances of 2 and 0 times their mean: 1 / sqrt 2.1 and 1 / sqrt 0.1, scaled by
    # sqrt(2 / (2 - 0.1 (1 / 2.1 + 1 / 0.1))) = sqrt 2.1
    shape = whitener(np.diag([6.0, 0]))

    assert shape.tolist() == [[256, 0], [0, 1173]]
    assert round(256 * math.sqrt(2.1 / 0.1)) == 1173


@given(MOMENTS)
@settings(deadline=None, max_examples=50)
def test_products_of_states_and_noise_vary_as_they_did_all_together(
    moments: Doubles,
) -> None:
    shape = as_matrix(whitener(moments))

    varies = np.trace(shape @ moments @ shape.T)

    assert varies == pytest.approx(np.trace(moments), rel=0.01)


@given(MOMENTS, st.floats(-20, 20))
@settings(deadline=None, max_examples=50)
def test_the_unit_of_moments_does_not_matter(moments: Doubles, power: float) -> None:
    expected = whitener(moments)

    assert np.abs(whitener(moments * 2.0**power) - expected).max() <= 1


@given(MOMENTS)
@settings(deadline=None, max_examples=50)
def test_directions_are_asked_about_alike_down_to_the_damping(
    moments: Doubles,
) -> None:
    # R C R^T has the eigenvalues v / (v + d) of those v of C in units of their mean.
    shape = as_matrix(whitener(moments))
    found = np.linalg.eigvalsh(shape @ moments @ shape.T)
    values = np.linalg.eigvalsh(moments / np.trace(moments) * len(moments))
    expected = values / (values + DAMPING)

    assert found / found.sum() == pytest.approx(expected / expected.sum(), abs=0.01)


def test_with_little_damping_states_become_white(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moments = np.array([[3.0, 1, 0.5], [1, 2, -0.5], [0.5, -0.5, 1]])
    monkeypatch.setattr(whitening, "DAMPING", 1e-9)

    shape = as_matrix(whitener(moments))

    assert shape @ moments @ shape.T == pytest.approx(2 * np.eye(3), abs=0.02)


def test_over_all_signs_products_with_states_vary_as_by_signs_themselves() -> None:
    states = np.random.default_rng(1).standard_normal((50, 4)) * [1, 0.1, 2, 0.5]
    states[:, 1] += states[:, 0]
    signs = np.array(list(product([-1, 1], repeat=4)), np.float32)

    shaped = whitened(signs, whitener(states.T @ states / 50))

    plain = np.square(states @ signs.T).mean()
    assert np.square(states @ shaped.T).mean() == pytest.approx(plain, rel=0.01)
    assert np.square(shaped).mean() > 2  # small combinations are asked about louder


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1.0])
def test_the_largest_shape_there_can_be_keeps_directions_exact(noise: float) -> None:
    # All units do the same, which leaves 127 combinations that do not vary.
    moments = np.ones((MOST_WHITENED, MOST_WHITENED)) + noise * np.eye(MOST_WHITENED)
    shapes = [whitener(moments), whitener(np.diag([1.0] + [0.0] * (MOST_WHITENED - 1)))]

    bound = SCALE * math.sqrt((MOST_WHITENED + DAMPING) / DAMPING)
    for shape in shapes:
        assert np.abs(shape).max() <= round(bound) == LARGEST
    assert np.abs(shapes[1]).max() > bound - 1
    assert MOST_WHITENED * LARGEST < 1 << 24


@given(st.data())
@settings(deadline=None, max_examples=50)
def test_directions_are_those_of_integers_to_the_bit(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([1, 2, 7, MOST_WHITENED]))
    draw = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    shape = draw.integers(-LARGEST, LARGEST + 1, (size, size))
    signs = draw.choice([-1, 1], (3, size))

    directions = whitened(signs.astype(np.float32), shape.astype(np.float32))

    assert directions.dtype == np.float32
    assert (directions.astype(np.float64) * SCALE == signs @ shape).all()


# --- tables ---------------------------------------------------------------------------


def exact_tables() -> dict[str, list[Decimal]]:
    """Return tanh and the logistic function times 1024, to forty digits."""
    with localcontext() as context:
        context.prec = 40
        powers = [(Decimal(2 * k) / STEPS).exp() for k in range(-REACH, REACH + 1)]
        roots = [power.sqrt() for power in powers]
        return {
            "TANH": [ONE * (power - 1) / (power + 1) for power in powers],
            "LOGISTIC": [ONE * root / (root + 1) for root in roots],
        }


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("TANH", "c7a6898cece1f8548e5a1a2d75f16834ae5a83a0b259ea5f0e120e473b4dd17a"),
        (
            "LOGISTIC",
            "8536dd2a14277d2cdef17644f5d69fa2c76a357cf92313d751f49983f3c0d79c",
        ),
    ],
)
def test_no_entry_of_a_table_is_so_near_to_a_tie_that_a_library_could_decide(
    name: str, digest: str
) -> None:
    table, exact = getattr(whitening, name), exact_tables()[name]

    assert table.tolist() == [round(entry) for entry in exact]
    margins = [abs(entry % 1) - Decimal("0.5") for entry in exact]
    assert min(map(abs, margins)) > Decimal("1.5e-7")  # a library's error: some 1e-13
    assert hashlib.sha256(table.astype("<f8").tobytes()).hexdigest() == digest


def found_in(table: Doubles, steps: Doubles) -> list[float]:
    """Return a table's values of arguments in units of 1 / STEPS."""
    sums, values = steps.copy(), np.empty(len(steps))
    looked_up(table, sums, values)
    return list(values)


def test_entries_are_looked_up_by_the_nearest_argument() -> None:
    one = ONE * FINE  # an argument of 1
    cell = one // STEPS
    near = np.array([0, cell / 2, -cell / 2, cell / 2 + 1, cell, -cell, one, -one])

    assert found_in(TANH, near / cell) == [0, 0, 0, 2, 2, -2, 780, -780]
    # At +-1 / 512 the logistic function is 1/2 +- just below 1/2048: half of an entry.
    assert found_in(LOGISTIC, near / cell) == [512] * 6 + [749, 275]
    assert [round(1024 * math.tanh(1)), round(1024 / (1 + math.exp(-1)))] == [780, 749]


@pytest.mark.parametrize("size", [8, 9, 1000, 2.0**14])
def test_large_arguments_have_the_values_of_the_ends(size: float) -> None:
    far = np.array([size, -size], np.float64) * STEPS

    assert found_in(TANH, far) == [ONE, -ONE]
    assert found_in(LOGISTIC, far) == [ONE, 0]


# --- the sample -----------------------------------------------------------------------


def test_a_sample_is_spread_evenly_from_the_beginning_to_the_end() -> None:
    windows = sample(np.arange(16 + 1270))

    assert windows.shape == (SAMPLE_CHARACTERS, SAMPLE_WINDOWS) == (16, 128)
    assert windows[0].tolist() == list(range(0, 1280, 10))
    assert (np.diff(windows, axis=0) == 1).all()
    assert windows[-1, -1] == 1285


@pytest.mark.parametrize("length", [1, 5, 16])
def test_a_short_text_is_read_whole(length: int) -> None:
    windows = sample(np.arange(length))

    assert windows.T.tolist() == [list(range(length))] * SAMPLE_WINDOWS


@given(st.integers(1, 5000))
@settings(deadline=None, max_examples=50)
def test_a_sample_is_that_of_the_reference(length: int) -> None:
    tokens = np.arange(length)

    windows = sample(tokens).T

    assert windows.tolist() == reference.sampled_windows(tokens.tolist())


# --- states in fixed point ------------------------------------------------------------


def random_text(vocabulary: int, length: int = 3000) -> Tokens:
    return np.random.default_rng(8).integers(0, vocabulary, length)


@EVERY
@pytest.mark.parametrize("first", [0, 1, 5, 15])
def test_states_of_the_last_characters_are_the_same_alone(
    model_type: str, n_layers: int, first: int
) -> None:
    layout = example_setting(
        model_type=model_type, n_layers=n_layers, hidden_size=6, vocab_size=30
    ).layout
    fixed = FixedPoint(layout, initial_weights(layout, 1, np.zeros(30, np.float32)))
    windows = sample(random_text(30))[:, :7]

    every, last = fixed.states(windows), fixed.states(windows, first)

    assert len(every) == len(last) == n_layers
    for states, some in zip(every, last, strict=True):
        assert some.tolist() == states[first:].tolist()


@EVERY
@pytest.mark.parametrize("factor", [1.0, 2.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_states_are_those_of_the_model_within_a_hundredth(
    model_type: str, n_layers: int, seed: int, factor: float
) -> None:
    layout = example_setting(
        model_type=model_type, n_layers=n_layers, hidden_size=16, vocab_size=30
    ).layout
    flat = initial_weights(layout, seed, np.zeros(30, np.float32))
    flat *= np.float32(factor)
    windows = sample(random_text(30))

    states = FixedPoint(layout, flat).states(windows)

    network, weights = Network(layout), Clean(layout.views(flat))
    state = network.start((1, SAMPLE_WINDOWS))
    for t, now in enumerate(windows):
        state = network.step(weights, now[None], state)
        for layer, h in enumerate(state):
            assert np.abs(states[layer][t + 1] / ONE - h[0]).max() < 0.01
    assert np.abs(states[-1]).max() > ONE / 20


@given(st.data())
@settings(deadline=None, max_examples=15)
def test_shapes_are_those_of_integers_and_fractions(data: st.DataObject) -> None:
    setting = example_setting(
        model_type=data.draw(st.sampled_from(["rnn", "gru"])),
        n_layers=data.draw(st.integers(1, 3)),
        hidden_size=data.draw(st.integers(1, 6)),
        vocab_size=data.draw(st.integers(3, 9)),
    )
    draw = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    scale = data.draw(st.sampled_from([1e-3, 0.3, 3.0, 100.0]))
    flat = draw.standard_normal(setting.layout.size).astype(np.float32)
    flat *= np.float32(scale)
    length = data.draw(st.integers(6, 60))
    tokens = draw.integers(0, setting.layout.vocab_size, length).astype(np.uint8)

    found = whiteners(setting.layout, flat, tokens)

    expected = reference.whiteners(setting.config, flat.tolist(), tokens.tolist())
    assert [shape.tolist() for shape in found] == expected


def extreme(setting: Setting, kind: str) -> Floats:
    """Return weights at the bounds of what is read of them, or beyond."""
    mixed = np.random.default_rng(4).choice([-1, 1], setting.layout.size)
    signs = {"up": np.ones_like(mixed), "down": -np.ones_like(mixed)}.get(kind, mixed)
    flat: Floats = signs.astype(np.float32) * np.float32(
        3e38 if kind == "beyond" else 64
    )
    return flat


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Doubles]:
    """Return all sums that functions are looked up for, as that goes on."""
    sums: list[Doubles] = []

    def spy(table: Doubles, arguments: Doubles, out: Doubles) -> None:
        sums.append(arguments * (ONE * FINE // STEPS))
        looked_up(table, arguments, out)

    monkeypatch.setattr(whitening, "looked_up", spy)
    return sums


def test_sums_of_the_largest_model_stay_far_below_the_bound_of_exactness() -> None:
    product = MOST_WHITENED * ONE * LARGEST_WEIGHT  # of a state and a matrix
    bias = LARGEST_WEIGHT * ONE
    moments = ONE * ONE * SAMPLE_WINDOWS * SAMPLE_CHARACTERS

    assert LARGEST_WEIGHT == 64 * FINE == 1 << 18
    assert 2 * (product + bias) < 1 << 38  # two layers' states, two biases
    assert moments == 1 << 31
    assert EXACT > 1 << 38


@pytest.mark.parametrize("kind", ["up", "down", "mixed", "beyond"])
@pytest.mark.parametrize("model_type", ["rnn", "gru"])
def test_states_at_the_largest_sizes_and_weights_are_those_of_integers(
    model_type: str, kind: str, seen: list[Doubles]
) -> None:
    setting = example_setting(
        model_type=model_type, n_layers=2, hidden_size=MOST_WHITENED, vocab_size=5
    )
    flat = extreme(setting, kind)
    windows = sample(random_text(5))[:6, ::40]

    states = FixedPoint(setting.layout, flat).states(windows)

    expected = reference.fixed_states(setting.config, flat.tolist(), windows.T.tolist())
    for layer in range(2):
        found = states[layer][1:].transpose(1, 0, 2).reshape(-1, MOST_WHITENED)
        assert found.tolist() == [h.tolist() for h in expected[layer]]
    assert all((np.rint(sums) == sums).all() for sums in seen)
    assert 1 << 28 < max(np.abs(sums).max() for sums in seen) < 1 << 38


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
def test_weights_that_are_no_numbers_or_too_large_neither_fail_nor_differ(
    model_type: str,
) -> None:
    setting = example_setting(model_type=model_type, n_layers=2)
    tokens = example_tokens(setting.config)
    broken = example_weights(setting.layout.size).copy()
    mended = broken.copy()
    for place, (bad, good) in enumerate(
        [(math.nan, 0), (math.inf, 64), (-math.inf, -64), (3e38, 64), (-65, -64)] * 5
    ):
        broken[5 * place], mended[5 * place] = bad, good

    found = whiteners(setting.layout, broken, tokens)

    expected = whiteners(setting.layout, mended, tokens)
    for one, other in zip(found, expected, strict=True):
        assert one.tobytes() == other.tobytes()
        assert np.isfinite(one).all()
    slow = reference.whiteners(setting.config, broken.tolist(), tokens.tolist())
    assert [shape.tolist() for shape in found] == slow


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0])
@EVERY
def test_weights_that_are_all_alike_shape_noise_too(
    model_type: str, n_layers: int, value: float
) -> None:
    setting = example_setting(model_type=model_type, n_layers=n_layers)
    flat = np.full(setting.layout.size, value, np.float32)

    found = whiteners(setting.layout, flat, example_tokens(setting.config))

    assert len(found) == n_layers
    assert all(np.isfinite(shape).all() for shape in found)
    if math.isnan(value) or value == 0:  # states stay at zero
        assert all((shape == SCALE * np.eye(4)).all() for shape in found)


# --- the same bits in any order -------------------------------------------------------


@EVERY
@pytest.mark.parametrize("length", [90, 7])
def test_moments_are_those_of_python_integers(
    model_type: str, n_layers: int, length: int
) -> None:
    setting = example_setting(model_type=model_type, n_layers=n_layers)
    flat, tokens = (
        example_weights(setting.layout.size),
        example_tokens(setting.config, length).tolist(),
    )

    found = state_moments(setting.layout, flat, np.array(tokens))

    windows = reference.sampled_windows(tokens)
    every = reference.fixed_states(setting.config, flat.tolist(), windows)
    for moments, states in zip(found, every, strict=True):
        rows = [[int(x) for x in h] for h in states]
        count = len(rows)
        assert moments.tolist() == [
            [sum(h[i] * h[k] for h in rows) / count for k in range(4)] for i in range(4)
        ]


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
@pytest.mark.parametrize("hidden_size", [3, 40, MOST_WHITENED])
def test_the_order_of_samples_does_not_matter(
    model_type: str, hidden_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = example_setting(
        model_type=model_type, hidden_size=hidden_size, vocab_size=30
    ).layout
    flat = initial_weights(layout, 5, np.zeros(30, np.float32))
    tokens = random_text(30)
    expected = [moments.tobytes() for moments in state_moments(layout, flat, tokens)]

    for seed in range(3):
        order = np.random.default_rng(seed).permutation(SAMPLE_WINDOWS)

        def shuffled(tokens: Tokens, order: NDArray[np.intp] = order) -> Tokens:
            return np.asarray(sample(tokens)[:, order])

        with monkeypatch.context() as patch:
            patch.setattr(whitening, "sample", shuffled)
            moments = state_moments(layout, flat, tokens)
        assert [each.tobytes() for each in moments] == expected


def test_the_order_of_units_within_a_product_does_not_matter() -> None:
    # A permutation of a layer's units permutes states and moments, to the bit.
    layout = example_setting(hidden_size=40, vocab_size=30).layout
    flat = initial_weights(layout, 5, np.zeros(30, np.float32))
    order = np.random.default_rng(6).permutation(40)
    other = flat.copy()
    views, moved = layout.views(flat), layout.views(other)
    moved["Wx0"][:] = views["Wx0"][:, order]
    moved["Wh0"][:] = views["Wh0"][np.ix_(order, order)]
    tokens = random_text(30)

    [expected] = state_moments(layout, flat, tokens)
    [permuted] = state_moments(layout, other, tokens)

    assert (permuted == expected[np.ix_(order, order)]).all()
    assert (permuted != expected).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_tokens_of_any_width_give_the_same_bits(dtype: type[np.integer[Any]]) -> None:
    setting = example_setting()
    flat, tokens = (
        example_weights(setting.layout.size),
        example_tokens(setting.config),
    )

    [found] = whiteners(setting.layout, flat, tokens.astype(dtype))

    [expected] = whiteners(setting.layout, flat, tokens)
    assert found.tobytes() == expected.tobytes()


def test_shapes_do_not_change_what_they_are_made_of() -> None:
    setting = example_setting(model_type="gru")
    flat, tokens = (
        example_weights(setting.layout.size).copy(),
        example_tokens(setting.config).copy(),
    )
    before = flat.tobytes(), tokens.tobytes()

    one, other = (whiteners(setting.layout, flat, tokens)[0] for _ in range(2))

    assert one.tobytes() == other.tobytes()
    assert (flat.tobytes(), tokens.tobytes()) == before


@pytest.mark.parametrize(
    ("model_type", "digest"),
    [
        ("rnn", "bbb93b75f8e6b40f6c631e5207dcd00ae30f5616690d9d6714047cbc0977d531"),
        ("gru", "a42489f864cfa855dc8aee1bc93130be1d0e986079da657ea61dc75924d4fc9d"),
    ],
)
def test_shapes_of_a_known_model_never_change(model_type: str, digest: str) -> None:
    setting = example_setting(model_type=model_type, n_layers=2, hidden_size=32)
    flat, tokens = (
        example_weights(setting.layout.size),
        example_tokens(setting.config, 400),
    )

    every = whiteners(setting.layout, flat, tokens)

    content = b"".join(shape.astype("<f4").tobytes() for shape in every)
    assert hashlib.sha256(content).hexdigest() == digest


# --- the update -----------------------------------------------------------------------


def exact_product(sums: NDArray[np.int64], shape: NDArray[np.int64]) -> list[list[int]]:
    """Return R^T G times `SCALE` in Python integers."""
    return [
        [
            sum(int(x) * int(y) for x, y in zip(column, each, strict=True))
            for each in sums.T
        ]
        for column in shape.T
    ]


def bound(sums: NDArray[np.int64], shape: NDArray[np.int64]) -> int:
    return len(shape) * int(np.abs(shape).max()) * int(np.abs(sums).max())


def test_a_shaped_sum_by_hand() -> None:
    # R = [[1, 0], [1/2, 2]]; R^T G = [[1, 1/2], [0, 2]] G
    shape = np.array([[256, 0], [128, 512]], np.float32)
    sums = np.array([[3, -1, 0], [10, 7, 1]])

    assert preconditioned(sums, shape).tolist() == [[8, 2.5, 0.5], [20, 14, 2]]


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_shaped_sums_are_those_of_python_integers_rounded_once(
    data: st.DataObject,
) -> None:
    size = data.draw(st.integers(1, 9))
    draw = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    largest = data.draw(
        st.sampled_from([0, 1, 126, 1 << 24, 1 << 36, 1 << 40, 1 << 55])
    )
    shape = draw.integers(-LARGEST, LARGEST + 1, (size, size))
    sums = draw.integers(-largest, largest + 1, (size, 3))

    found = preconditioned(sums, shape.astype(np.float32))

    exact = exact_product(sums, shape)
    assert found.dtype == np.float64
    assert found.tolist() == [[x / SCALE for x in row] for row in exact]
    if bound(sums, shape) < EXACT:
        assert (found * SCALE).tolist() == exact


def test_the_two_ways_to_shape_sums_meet_at_the_bound() -> None:
    largest = EXACT // LARGEST // MOST_WHITENED
    draw = np.random.default_rng(3)
    shape = draw.choice([-LARGEST, LARGEST, 2], (MOST_WHITENED, MOST_WHITENED))
    sums = draw.choice([-largest, largest, largest - 1], (MOST_WHITENED, 4))
    more, many = sums + np.sign(sums), 16 * np.abs(sums) + 1

    assert bound(sums, shape) < EXACT <= bound(more, shape)
    assert np.abs(shape).max() * many.max() < EXACT  # it is the units that pass it
    for each in (sums, more, many):
        found = preconditioned(each, shape.astype(np.float32))
        exact = exact_product(each, shape)
        assert found.tolist() == [[x / SCALE for x in row] for row in exact]


def test_rows_of_shaped_sums_may_be_added_in_any_order() -> None:
    draw = np.random.default_rng(3)
    largest = EXACT // LARGEST // MOST_WHITENED
    shape = draw.integers(-LARGEST, LARGEST + 1, (MOST_WHITENED, MOST_WHITENED)).astype(
        np.float32
    )
    sums = draw.integers(-largest, largest + 1, (MOST_WHITENED, 50))
    expected = preconditioned(sums, shape).tobytes()

    for seed in range(5):
        order = np.random.default_rng(seed).permutation(MOST_WHITENED)
        assert preconditioned(sums[order], shape[order]).tobytes() == expected


def estimate(gradient: NDArray[np.int64], shape: Floats) -> Doubles:
    """Return the mean over all signs of what a trial adds to a matrix.

    Its reward is by how much its perturbation changes the loss.
    """
    size, width = gradient.shape
    patterns = np.array(list(product([-1, 1], repeat=size + width)), np.float32)
    a, b = patterns[:, :size], patterns[:, size:]
    gains = np.einsum("ti,ij,tj->t", whitened(a, shape), gradient, b) * SCALE
    assert (np.rint(gains) == gains).all()
    sums = np.einsum("t,ti,tj->ij", gains, a, b).astype(np.int64)
    return preconditioned(sums, shape) / SCALE / len(patterns)


def test_over_all_signs_the_estimate_is_the_preconditioned_gradient_by_hand() -> None:
    # R = [[1, 0], [1/2, 2]], so that R^T R = [[1.25, 1], [1, 4]].
    shape = np.array([[256, 0], [128, 512]], np.float32)
    gradient = np.array([[4, 8, 0], [1, -2, 3]])

    found = estimate(gradient, shape)

    assert found.tolist() == [[6, 8, 3], [8, 0, 12]]


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=20)
def test_over_all_signs_the_estimate_is_the_preconditioned_gradient(
    size: int, width: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    shape = draw.integers(-500, 500, (size, size)).astype(np.float32)
    gradient = draw.integers(-9, 10, (size, width))

    exact = as_matrix(shape).T @ as_matrix(shape) @ gradient

    assert estimate(gradient, shape) == pytest.approx(exact, abs=1e-12)


# --- where noise is shaped ------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "shaped"),
    [
        ({}, True),
        ({"model_type": "gru", "n_layers": 3}, True),
        ({"directions_per_window": 0}, True),
        ({"hidden_size": MOST_WHITENED}, True),
        ({"hidden_size": MOST_WHITENED + 1}, False),
        ({"hidden_size": 128, "nodes": "none"}, True),
        ({"hidden_size": 129, "nodes": "none"}, False),
        ({"noise": "full"}, False),
        ({"whitening": "none"}, False),
    ],
)
def test_noise_is_shaped_where_it_is_rank_1_and_not_too_dear(
    keys: dict[str, Any], shaped: bool
) -> None:
    setting = example_setting(**keys)
    flat = example_weights(setting.layout.size)

    every = setting.whiteners(flat, example_tokens(setting.config))

    assert setting.config.whitens is shaped
    assert len(every) == (setting.config.n_layers if shaped else 0)


@EVERY
def test_what_reads_a_state_is_known(model_type: str, n_layers: int) -> None:
    config = example_setting(model_type=model_type, n_layers=n_layers).config
    place = Layout(config)

    found = {tensor.name: place.state_read(tensor) for tensor in place.tensors}

    inputs = {name: joined[0] for name, joined in reference.joins_of(config).items()}
    assert found == {
        name: int(bundle.removeprefix("state"))
        if bundle is not None and bundle.startswith("state")
        else None
        for name, bundle in inputs.items()
    }
    assert found["Wo"] == n_layers - 1
    assert found["Wx0"] is found["bo"] is None

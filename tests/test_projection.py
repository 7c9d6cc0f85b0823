"""Projections by hand, as projections, and against integers and single roundings."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import reference
from tests.reference import example_setting, example_tokens, example_weights
from utilities import whitening
from utilities.config import Config
from utilities.evolution import Segment, Setting, projection_of, windows_of
from utilities.model import Floats
from utilities.noise import Signs
from utilities.progress import LARGEST_LAYER
from utilities.projection import (
    EXACT,
    MOST,
    MOST_STATES,
    TOP,
    WHOLE,
    Projection,
    Span,
    _Whitener,
    ridge_inverse,
)
from utilities.whitening import COARSE, LARGEST_WEIGHT, SCALE, FixedPoint, looked_up

SEED = (1 << 64) - 1


def projection(setting: Setting) -> Projection:
    """Return what projects by states of made-up weights."""
    tokens = example_tokens(setting.config)
    found = projection_of(setting, example_weights(setting.layout.size), tokens)
    assert found is not None
    return found


def projected(
    states: NDArray[Any], directions: NDArray[Any], setting: Setting
) -> Floats:
    """Return the integers for the directions of one group whose states are given."""
    about = states[None].astype(np.float32), directions[None].astype(np.float32)
    return np.asarray(projection(setting)._projected(*about)[0])


def by_states(count: int, size: int, **keys: Any) -> Setting:
    """Return a setting of so many states and units."""
    keys = {"burn_in": 0, "sequence_length": count, "hidden_size": size} | keys
    return example_setting(**keys, whitening="none", vocab_size=3)


# --- how many states ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "first", "states"),
    [
        (Span(16, 8, 1), 15, 9),  # the one in which it begins, and one a character
        (Span(1, 8, 1), 0, 9),
        (Span(0, 8, 1), 0, 8),  # the first state is zero
        (Span(0, 1, 1), 0, 1),
        (Span(2, 5, 3), 1, 18),
        (Span(0, 64, 1), 0, 64),
        (Span(1, 64, 1), 0, 65),
    ],
)
def test_states_of_a_group_by_hand(span: Span, first: int, states: int) -> None:
    assert (span.first, span.states) == (first, states)
    assert span.fits is (states <= MOST_STATES == 64)


def test_units_by_hand() -> None:
    assert Span(16, 8, 1).unit(36) == 12  # 3 * 2 / sqrt(9 / 36)
    assert Span(16, 8, 1).unit(144) == 24
    assert Span(16, 8, 1).unit(9) == Span(16, 8, 1).unit(2) == 6  # no more than all


@pytest.mark.parametrize(
    ("keys", "states"),
    [
        ({}, 6),
        ({"burn_in": 0}, 5),
        ({"batch_size": 10}, 60),
        ({"batch_size": 11}, None),
        ({"projection": "none"}, None),
        ({"noise": "full"}, None),
        ({"whitening": "none"}, 6),
        ({"directions_per_window": 0}, 6),
    ],
)
def test_directions_are_projected_where_states_are_few(
    keys: dict[str, Any], states: int | None
) -> None:
    setting = example_setting(**keys)
    tokens, weights = (
        example_tokens(setting.config),
        example_weights(setting.layout.size),
    )

    assert (setting.span.states if setting.span else None) == states
    assert (projection_of(setting, weights, tokens) is None) is (states is None)
    assert (setting.projection(weights, ()) is None) is (states is None)
    assert (setting.span_unit == 1) is (states is None)
    assert (setting.projected == ()) is (states is None)
    assert reference.projects(setting.config) is (states is not None)


def test_what_is_projected_and_what_is_not_make_up_all_weights() -> None:
    two = example_setting(n_layers=2, model_type="gru")
    starts = {t.name: t.start for t in two.layout.tensors}

    assert [(s.start, s.stop) for s in two.projected] == [
        (starts["Wh0"], starts["b0"]),
        (starts["Wx1"], starts["Wh1"]),
        (starts["Wh1"], starts["b1"]),
        (starts["Wo"], starts["bo"]),
    ]
    assert [(s.start, s.stop) for s in two.signed] == [
        (0, starts["Wh0"]),
        (starts["b0"], starts["Wx1"]),
        (starts["b1"], starts["Wo"]),
        (starts["bo"], two.layout.size),
    ]
    without = example_setting(projection="none")
    assert without.signed == (slice(0, without.layout.size),)


def test_only_low_rank_noise_has_characters_before_a_window() -> None:
    low, full = Config(burn_in=7, sequence_length=4), Config(noise="full", burn_in=7)

    assert (low.before, low.window_length) == (7, 11)
    assert (full.before, full.window_length) == (0, full.sequence_length)


# --- the inverse ----------------------------------------------------------------------


def inverted(gram: list[list[float]]) -> tuple[list[list[float]], float]:
    found, unit = ridge_inverse(np.array(gram, np.float32)[:, :, None])
    return found[:, :, 0].tolist(), float(unit[0])


def test_inverses_by_hand() -> None:
    # The mean square is 1 more than that of the diagonal.
    whole = 1 << 16
    assert inverted([[99]]) == (
        [[32933]],  # 100 / 199, times 65536: 32932.7
        float(np.float32(1 / (100 * whole))),
    )
    assert inverted([[3, 0], [0, 1]]) == (
        [[whole / 2, 0], [0, 3 * whole / 4]],  # 3 / (3 + 3), 3 / (1 + 3)
        float(np.float32(1 / (3 * whole))),
    )
    # 3 / 24 (5, -1)
    assert inverted([[2, 1], [1, 2]])[0] == [[40960, -8192], [-8192, 40960]]


@pytest.mark.parametrize("count", [1, 5, 64])
def test_the_inverse_of_nothing_is_the_unit_matrix(count: int) -> None:
    found, unit = inverted([[0.0] * count] * count)

    assert found == (WHOLE * np.eye(count)).tolist()
    assert unit == 1 / WHOLE


def random_states(draw: st.DataObject, most: int = TOP) -> NDArray[np.int64]:
    """Return (groups, d, H) integers, of any rank."""
    shape = [draw.draw(st.integers(1, high)) for high in (4, 7, 12)]
    random = np.random.default_rng(draw.draw(st.integers(0, 1 << 32)))
    states = random.integers(-most, most + 1, shape)
    if draw.draw(st.booleans()):
        states[:, 1:] = states[:, :1]
    return states


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_inverses_have_the_bits_of_single_rounded_operations(
    data: st.DataObject,
) -> None:
    states = random_states(data)
    grams = states @ np.swapaxes(states, 1, 2)
    together = grams.transpose(1, 2, 0).astype(np.float32)
    before = together.copy()

    found, units = ridge_inverse(together)

    assert (together == before).all()
    for group, gram in enumerate(grams):
        expected, unit = reference.inverse_by_elimination(gram.tolist())
        assert found[:, :, group].tolist() == expected
        assert float(units[group]) == unit


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_inverses_are_those_of_a_library_and_no_larger_than_whole(
    data: st.DataObject,
) -> None:
    for states in random_states(data):
        gram = (states @ states.T).astype(np.float64)
        mean = np.trace(gram) / len(gram) + 1
        found, unit = inverted(gram.tolist())
        exact = np.linalg.inv(gram + mean * np.eye(len(gram)))

        assert np.array(found) * unit == pytest.approx(exact, abs=unit * 1.01)
        assert np.abs(found).max() <= WHOLE


# --- white states ---------------------------------------------------------------------


def whitened(matrix: NDArray[Any], states: NDArray[Any]) -> list[list[int]]:
    shape = _Whitener(matrix.astype(np.float32))
    return shape.of(states.astype(np.float64)).astype(int).tolist()  # type: ignore[no-any-return]


def test_white_states_by_hand() -> None:
    states = np.array([[COARSE // 2, -COARSE], [3, 1]])

    assert whitened(SCALE * np.eye(2), states) == [[16, -32], [1, 0]]  # 0.75, 0.25
    # (1/2, 2 * 1/2 - 1) and (3, 7) / 128, times 32
    assert whitened(SCALE * np.array([[1, 0], [2, 1]]), states) == [[16, 0], [1, 2]]
    assert whitened(SCALE * np.array([[9, 0], [0, 9]]), states)[0] == [127, -127]


@pytest.mark.parametrize(("size", "top"), [(1024, 127), (1025, 63)])
def test_many_units_have_smaller_integers(size: int, top: int) -> None:
    high = np.full((1, size), COARSE)

    found = whitened(4 * SCALE * np.eye(size), high)

    assert found == [[top] * size]
    # Not even their squares' sums pass what float32 holds.
    assert size * top**2 < EXACT


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_white_states_are_those_of_the_reference(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 9))
    largest = data.draw(st.sampled_from([1, 300, 9163, 1 << 17, 1 << 20]))
    draw = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    matrix = draw.integers(-largest, largest + 1, (size, size))
    states = draw.integers(-COARSE, COARSE + 1, (5, size))

    found = whitened(matrix, states)

    assert found == reference.white_states(matrix.tolist(), list(states), size)


@pytest.mark.parametrize("entry", [511, 9163, 9163.0 * 64])
def test_sums_of_white_states_are_exact_for_the_largest_shapes(entry: float) -> None:
    size = whitening.MOST_UNITS
    matrix = np.full((size, size), entry, np.float32)
    matrix[::2, ::3] *= -1
    shape = _Whitener(matrix)

    bound = np.abs(shape._factor.astype(np.int64)).sum(axis=0).max() * COARSE

    assert (np.rint(shape._factor) == shape._factor).all()
    assert EXACT / 4 < bound <= EXACT


# --- projections ----------------------------------------------------------------------


@pytest.mark.parametrize("count", range(1, MOST_STATES + 1, 3))
def test_a_direction_in_the_span_comes_out_nearly_itself(count: int) -> None:
    # Of states that are all alike the ridge takes one part of count + 1.
    setting = by_states(count, 16)
    direction = np.where(np.arange(16) % 3, 1, -1)
    states = np.repeat(40 * direction[None], count, axis=0)

    found = projected(states, direction[None], setting) / setting.span_unit

    share = count / (count + 1)
    # Rounded to units, and what leads to them a little.
    assert found[0] == pytest.approx(share * direction, abs=0.6 / setting.span_unit)


def test_a_direction_that_is_seen_by_each_state_alike_is_halved() -> None:
    setting = by_states(16, 16)
    direction = np.where(np.arange(16) % 3, 1, -1)

    found = projected(100 * np.eye(16), direction[None], setting)

    assert setting.span_unit == 6
    assert found[0].tolist() == (3 * direction).tolist()


def test_a_direction_that_no_state_sees_comes_out_zero() -> None:
    states = np.zeros((5, 8))
    states[:, :4] = np.random.default_rng(1).integers(1, TOP, (5, 4))
    states[:, 4:] = -states[:, :4]  # no product with what is the same in both parts
    half = np.array([[1, -1, 1, 1], [1, 1, 1, -1]])

    found = projected(states, np.hstack([half, half]), by_states(5, 8))

    assert not found.any()


def test_states_that_are_all_zero_leave_nothing() -> None:
    found = projected(np.zeros((5, 8)), np.ones((3, 8)), by_states(5, 8))

    assert found.tolist() == [[0] * 8] * 3


def test_no_integer_is_larger_than_the_bound() -> None:
    setting = by_states(9, 256)
    direction = np.where(np.arange(256) % 3, 1, -1)
    states = np.repeat(40 * direction[None], 9, axis=0)

    found = projected(states, np.vstack([direction, -direction]), setting)

    assert setting.span_unit * 9 / 10 > MOST == 15
    assert found.tolist() == [(15 * direction).tolist(), (-15 * direction).tolist()]


@pytest.mark.parametrize(("count", "size"), [(9, 32), (9, 256), (40, 128), (64, 256)])
@pytest.mark.parametrize("common", [0, 1, 3, 10])
def test_projections_are_those_of_a_library_however_alike_states_are(
    count: int, size: int, common: float
) -> None:
    draw = np.random.default_rng(count)
    apart, alike = draw.standard_normal((count, size)), draw.standard_normal(size)
    both = (apart + common * alike) / math.hypot(1, common)
    states = np.clip(np.rint(20 * both), -TOP, TOP)
    directions = draw.choice([-1, 1], (40, size))
    setting = by_states(count, size)

    found = projected(states, directions, setting)

    gram = states @ states.T
    mean = np.trace(gram) / count + 1
    inverse = np.linalg.inv(gram + mean * np.eye(count))
    exact = setting.span_unit * directions @ states.T @ inverse @ states
    assert np.rint(found).tolist() == found.tolist()
    wrong = found - np.clip(exact, -MOST, MOST)
    assert np.abs(wrong).max() < 1
    assert math.sqrt(np.square(wrong).mean()) < 0.3  # of rounding alone sqrt(1 / 12)
    if not common:  # about as large as is usual
        assert 2.5 < math.sqrt(np.square(found).mean()) < 3.5


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_projections_have_the_bits_of_integers_and_single_roundings(
    data: st.DataObject,
) -> None:
    states = random_states(data)[0]
    setting = by_states(*states.shape)
    draw = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    directions = draw.choice([-1, 1], (3, states.shape[1]))

    found = projected(states, directions, setting)

    for direction, row in zip(directions.tolist(), found.tolist(), strict=True):
        on_span = reference.on_span(setting.config, states.tolist(), direction)
        assert row == on_span


@pytest.mark.parametrize("kind", ["alike", "apart", "signs"])
def test_products_are_exact_at_the_largest_sizes(kind: str) -> None:
    count, size = MOST_STATES, 1024
    draw = np.random.default_rng(5)
    direction = draw.choice([-1, 1], size)
    states = np.repeat(TOP * direction[None], count, axis=0)
    if kind == "apart":
        states[1::2] *= -1
    elif kind == "signs":
        states = draw.choice([-TOP, TOP], (count, size))
    setting = by_states(count, size)

    found = projected(states, direction[None], setting)[0]

    assert np.square(states).sum(axis=1).max() < EXACT
    expected = reference.on_span(setting.config, states.tolist(), direction.tolist())
    assert found.tolist() == expected


def test_no_product_can_pass_what_float32_holds() -> None:
    # Of two states; beyond 1,024 units they are smaller.
    assert 1024 * TOP**2 < EXACT
    assert LARGEST_LAYER * (TOP // 2) ** 2 < EXACT
    # Of the inverse and what is seen: no row of (G + m)^-1 m is longer than 1.
    longest = WHOLE * math.sqrt(MOST_STATES) + MOST_STATES / 2  # sum of its sizes
    assert WHOLE < EXACT
    assert longest * TOP * LARGEST_LAYER < 1 << 53  # float64 holds all up to there
    # Of these and the states.
    for count in range(1, MOST_STATES + 1):
        most = EXACT // (TOP * count) - 1
        assert 0 < most * TOP * count < EXACT
    # A sum over a chunk is held against its own bound: see `evolution.chunk_groups`.


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_no_row_of_an_inverse_is_longer_than_its_bound(data: st.DataObject) -> None:
    states = random_states(data)
    grams = (states @ np.swapaxes(states, 1, 2)).transpose(1, 2, 0)

    found, _ = ridge_inverse(grams.astype(np.float32))

    count = len(found)
    bound = WHOLE * math.sqrt(count) + count
    assert np.abs(found).sum(axis=0).max() <= bound


# --- states of float32 ----------------------------------------------------------------


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[Any]]:
    """Return all sums that functions are looked up for, as that goes on."""
    seen: list[NDArray[Any]] = []

    def spy(table: NDArray[Any], steps: NDArray[Any], out: NDArray[Any]) -> None:
        seen.append(steps.copy())
        looked_up(table, steps, out)

    monkeypatch.setattr(whitening, "looked_up", spy)
    return seen


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
@pytest.mark.parametrize(
    ("size", "layers", "weight", "fine", "dtype"),
    [
        (4, 2, 0.5, 4096, np.float32),
        (4, 3, 64, 32, np.float32),
        (6, 1, 1e30, 128, np.float32),
        (50, 1, 64, 16, np.float32),
        (9, 12, 64, 4, np.float32),
        (9, 16, 64, 2, np.float64),  # too coarse, were it float32
        (9, 16, 1e30, 2, np.float64),
    ],
)
def test_coarse_states_are_those_of_integers_whatever_the_weights(
    *,
    model_type: str,
    size: int,
    layers: int,
    weight: float,
    fine: int,
    dtype: type,
    sums: list[NDArray[Any]],
) -> None:
    keys = {"model_type": model_type, "n_layers": layers, "hidden_size": size}
    setting = example_setting(**keys, vocab_size=5)
    signs = np.random.default_rng(4).choice([-1, 1], setting.layout.size)
    flat = signs.astype(np.float32) * np.float32(weight)
    windows = np.random.default_rng(5).integers(0, 5, (4, 2))

    states = FixedPoint(setting.layout, flat, COARSE).states(windows)

    for window, text in enumerate(windows.T.tolist()):
        expected = reference.coarse_states(setting.config, flat.tolist(), text)
        for layer in range(layers):
            found = states[layer][:, window]
            assert found.tolist() == [h.tolist() for h in expected[layer]]
    assert {h.dtype for h in states} == {np.dtype(dtype)}
    unit = COARSE * (fine if dtype is np.float32 else 4096) // 512
    most = max(float(np.abs(each).max()) for each in sums) * unit
    assert all((np.rint(each * unit) == each * unit).all() for each in sums)
    assert most < (EXACT if dtype is np.float32 else 1 << 53)


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
def test_coarse_states_are_about_those_of_the_model(model_type: str) -> None:
    setting = example_setting(model_type=model_type, n_layers=2, hidden_size=24)
    draw = np.random.default_rng(4)
    flat = draw.standard_normal(setting.layout.size).astype(np.float32)
    flat /= np.float32(4)
    windows = draw.integers(0, 9, (10, 20))

    coarse = FixedPoint(setting.layout, flat, COARSE).states(windows)
    finer = FixedPoint(setting.layout, flat).states(windows)

    for some, others in zip(coarse, finer, strict=True):
        assert np.abs(some / COARSE - others / whitening.ONE).max() < 0.06
        assert np.abs(some / COARSE - others / whitening.ONE).mean() < 0.01


def test_weights_of_all_sizes_are_cut_to_the_largest() -> None:
    setting = example_setting()
    flat = np.full(setting.layout.size, np.inf, np.float32)
    least = np.full(setting.layout.size, LARGEST_WEIGHT / 4096, np.float32)
    windows = np.array([[1], [2]])

    one, other = (
        FixedPoint(setting.layout, each, COARSE).states(windows)
        for each in (flat, least)
    )

    assert one[0].tolist() == other[0].tolist() == [[[128] * 4]] * 2


# --- all of it ------------------------------------------------------------------------


def signs_of(setting: Setting, segment: Segment) -> Signs:
    each = setting.config.passes_per_group
    first, count = segment.first * each, segment.groups * each
    return setting.noise.signs(segment.seed, first, count)


def weights_of(kind: str, size: int) -> Floats:
    """Return weights of some kind."""
    weights = example_weights(size).copy()
    if kind == "some numbers":
        weights[::7] = np.nan
    factors = {"small": 1 / 64, "large": 100, "beyond": 4e38}
    factors |= {"zero": 0, "no numbers": math.nan}
    exact = weights.astype(np.float64) * factors.get(kind, 1)
    return np.asarray(exact.clip(-3e38, 3e38).astype(np.float32))


KINDS = "usual", "some numbers", "small", "large", "beyond", "zero", "no numbers"


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_directions_are_those_of_the_reference_to_the_bit(data: st.DataObject) -> None:
    def one_of(*values: Any) -> Any:
        return data.draw(st.sampled_from(values))

    setting = example_setting(
        model_type=one_of("rnn", "gru"),
        n_layers=one_of(1, 2, 3),
        hidden_size=one_of(1, 2, 4, 7),
        batch_size=one_of(1, 2),
        burn_in=one_of(0, 1, 4),
        sequence_length=one_of(1, 3, 5),
        whitening=one_of("auto", "none", "none"),
        directions_per_window=2,
    )
    tokens = example_tokens(setting.config, 60)
    weights = weights_of(one_of(*KINDS), setting.layout.size)
    segment = Segment(data.draw(st.integers(0, SEED)), 3, 2)
    windows, signs = windows_of(setting, tokens, segment), signs_of(setting, segment)
    found = projection_of(setting, weights, tokens)
    assert found is not None

    result = found.of(windows, signs)

    for group in range(2):
        texts = windows[:, group].T.tolist()
        for k in range(2 * group, 2 * group + 2):
            drawn = {name: part[k].astype(int).tolist() for name, part in signs.items()}
            about = setting.config, weights.tolist(), tokens.tolist(), texts
            expected = drawn | reference.projected(*about, drawn)
            assert {n: part[k].tolist() for n, part in result.items()} == expected


@pytest.mark.parametrize("whitening_", ["auto", "none"])
@pytest.mark.parametrize("model_type", ["rnn", "gru"])
def test_groups_together_have_the_directions_that_they_have_alone(
    model_type: str, whitening_: str
) -> None:
    keys = {"model_type": model_type, "hidden_size": 40, "n_layers": 2}
    setting = example_setting(**keys, whitening=whitening_, batch_size=2)
    tokens = example_tokens(setting.config)
    segment = Segment(SEED, 4, 9)
    windows, signs = windows_of(setting, tokens, segment), signs_of(setting, segment)
    here, before = projection(setting), {n: e.copy() for n, e in signs.items()}

    together = here.of(windows, signs)

    assert all((signs[name] == each).all() for name, each in before.items())
    for group in range(9):
        rows = slice(3 * group, 3 * group + 3)
        some = {name: e[rows] for name, e in signs.items()}
        alone = here.of(windows[:, group : group + 1], some)
        for name, each in alone.items():
            assert (each == together[name][rows]).all()
    for name, each in together.items():
        if name.startswith("state"):
            assert np.abs(each).max() <= MOST
            assert (each != signs[name]).any()
        else:
            assert each is signs[name]


def test_columns_beyond_the_units_are_not_read() -> None:
    setting = example_setting(hidden_size=6)
    segment = Segment(SEED, 4, 3)
    windows = windows_of(setting, example_tokens(setting.config), segment)
    signs = signs_of(setting, segment)
    wide = {name: np.pad(e, ((0, 0), (0, 2))) for name, e in signs.items()}

    found = projection(setting).of(windows, wide)["state0"]

    assert found.shape == (9, 6)
    assert (found == projection(setting).of(windows, signs)["state0"]).all()


def test_only_states_of_the_window_and_the_one_before_it_count() -> None:
    # The weights read the last character alone, so what came before leaves no trace.
    setting = example_setting(burn_in=4, sequence_length=3, whitening="none")
    weights = example_weights(setting.layout.size).copy()
    setting.layout.views(weights)["Wh0"][:] = 0
    here = Projection(setting.layout, weights, (), Span(4, 3, 1))
    segment = Segment(SEED, 4, 1)
    signs = signs_of(setting, segment)
    windows = np.array([1, 2, 3, 4, 5, 6, 7, 8])[:, None, None]

    def found(place: int | None) -> list[list[float]]:
        other = windows.copy()
        if place is not None:
            other[place] = 0
        rows: list[list[float]] = here.of(other, signs)["state0"].tolist()
        return rows

    assert [found(place) == found(None) for place in range(8)] == [
        *([True] * 3),
        *([False] * 4),  # after the last one before the window, and in it
        True,  # a target
    ]

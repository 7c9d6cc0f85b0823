"""What trials tell of nodes: by hand, as estimates, and against single roundings."""

import math
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import reference
from tests.reference import example_setting, example_tokens, example_weights
from utilities import whitening
from utilities.config import MOST_PLACES, MOST_WHITENED, Config
from utilities.evolution import Segment, Setting, nodes_of, windows_of
from utilities.model import Floats
from utilities.nodes import (
    EXACT,
    MOST,
    ONE,
    ROWS,
    TOP,
    WHOLE,
    Nodes,
    _Chunk,
    readings,
    ridge_inverse,
    units,
)
from utilities.noise import Signs
from utilities.progress import LARGEST_LAYER
from utilities.rewards import LARGEST_REWARD
from utilities.whitening import (
    COARSE,
    LARGEST_WEIGHT,
    SCALE,
    FixedPoint,
    Whitener,
    looked_up,
    unshaped,
)

SEED = (1 << 64) - 1


def nodes(setting: Setting) -> Nodes:
    """Return what made-up weights make of trials."""
    tokens = example_tokens(setting.config)
    found = nodes_of(setting, example_weights(setting.layout.size), tokens)
    assert found is not None
    return found


def chunk_of(
    setting: Setting, flat: Floats, tokens: NDArray[Any], groups: int
) -> _Chunk:
    """Return what some groups have read and drawn, of these weights."""
    here, segment = nodes_of(setting, flat, tokens), Segment(SEED, 4, groups)
    assert here is not None
    windows = windows_of(setting, tokens, segment)
    return _Chunk(here, windows, signs_of(setting, segment))


# --- where ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "places"),
    [
        ({}, 5),
        ({"burn_in": 0}, 5),
        ({"batch_size": 12}, 60),
        ({"batch_size": 13}, None),
        ({"sequence_length": 64}, 64),
        ({"sequence_length": 65}, None),
        ({"nodes": "none"}, None),
        ({"noise": "full"}, None),
        ({"whitening": "none"}, 5),
        ({"directions_per_window": 0}, 5),
    ],
)
def test_trials_are_taken_as_of_nodes_where_these_are_few(
    keys: dict[str, Any], places: int | None
) -> None:
    setting = example_setting(**keys)
    weights = example_weights(setting.layout.size)
    found = nodes_of(setting, weights, example_tokens(setting.config))

    assert setting.by_nodes is (places is not None)
    if places is not None:
        assert setting.config.places == places
    assert (found is None) is (places is None)
    assert (setting.nodes(weights, ()) is None) is (places is None)
    assert (setting.units is None) is (places is None)
    assert reference.by_nodes(setting.config) is (places is not None)
    assert MOST_PLACES == 64


def test_only_low_rank_noise_has_characters_before_a_window() -> None:
    low, full = Config(burn_in=7, sequence_length=4), Config(noise="full", burn_in=7)

    assert (low.before, low.window_length) == (7, 11)
    assert (full.before, full.window_length) == (0, full.sequence_length)


# --- the inverse ----------------------------------------------------------------------


def inverted(gram: list[list[float]]) -> tuple[list[list[float]], float, float]:
    found, unit, root = ridge_inverse(np.array(gram, np.float32)[:, :, None])
    return found[:, :, 0].tolist(), float(unit[0]), float(root[0])


def test_inverses_by_hand() -> None:
    # m is a tenth of the mean square, and 1.
    assert inverted([[80]]) == (
        [[6627]],  # 9 / 89, times 65536: 6627.2
        float(np.float32(1 / (9 * WHOLE))),
        3,
    )
    assert inverted([[90, 0], [0, 30]])[0] == [
        [4729, 0],  # 7 / (90 + 7), times 65536: 4729.4
        [0, 12399],  # 7 / (30 + 7): 12398.7
    ]
    # m is 3; (23, 10; 10, 23) has the determinant 429.
    assert inverted([[20, 10], [10, 20]])[0] == [
        [round(3 * 65536 * 23 / 429), round(-3 * 65536 * 10 / 429)],
        [round(-3 * 65536 * 10 / 429), round(3 * 65536 * 23 / 429)],
    ]


@pytest.mark.parametrize("count", [1, 5, 64])
def test_the_inverse_of_nothing_is_the_unit_matrix(count: int) -> None:
    found, unit, root = inverted([[0.0] * count] * count)

    assert found == (WHOLE * np.eye(count)).tolist()
    assert (unit, root) == (1 / WHOLE, 1)


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

    found, units, roots = ridge_inverse(together)

    assert (together == before).all()
    for group, gram in enumerate(grams):
        expected, unit, root = reference.inverse_by_elimination(gram.tolist())
        assert found[:, :, group].tolist() == expected
        assert (float(units[group]), float(roots[group])) == (unit, root)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_inverses_are_those_of_a_library_and_no_larger_than_whole(
    data: st.DataObject,
) -> None:
    for states in random_states(data):
        gram = (states @ states.T).astype(np.float64)
        mean = 0.1 * np.trace(gram) / len(gram) + 1
        found, unit, root = inverted(gram.tolist())
        exact = np.linalg.inv(gram + mean * np.eye(len(gram)))

        assert np.array(found) * unit == pytest.approx(exact, abs=unit * 1.01)
        assert np.abs(found).max() <= WHOLE
        assert root == pytest.approx(math.sqrt(mean))


# --- white states ---------------------------------------------------------------------


def whitened(matrix: NDArray[Any], states: NDArray[Any]) -> list[list[int]]:
    shape = Whitener(matrix.astype(np.float32), ONE, TOP)
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
    size = MOST_WHITENED
    matrix = np.full((size, size), entry, np.float32)
    matrix[::2, ::3] *= -1
    shape = Whitener(matrix, ONE, TOP)

    bound = np.abs(shape._factor.astype(np.int64)).sum(axis=0).max() * COARSE

    assert (np.rint(shape._factor) == shape._factor).all()
    assert EXACT / 4 < bound <= EXACT


# --- what moves sums ------------------------------------------------------------------


def test_sums_of_a_network_by_hand() -> None:
    setting = example_setting(n_layers=2)  # 4 units, 9 characters, 3 directions

    first, second, last = readings(setting.layout, 3)

    assert [t.name for t in first.tensors] == ["Wx0", "Wh0", "b0"]
    assert first.scales == (96, 1, 96)  # 1.5 / 0.5 of a state's
    assert (first.layer, first.columns, first.slopes) == (0, slice(0, 4), slice(0, 4))
    assert first.unit == pytest.approx(12 / 42 * math.sqrt((18432 + 1228.8) / 3))
    assert [t.name for t in second.tensors] == ["Wx1", "Wh1", "b1"]
    assert (second.layer, second.scales) == (1, (1, 1, 96))
    assert [t.name for t in last.tensors] == ["Wo", "bo"]
    assert (last.layer, last.columns, last.slopes) == (None, slice(0, 9), None)
    assert last.scales == (1, 32)
    assert [each.outputs for each in (first, last)] == ["gates0", "logits"]


def test_sums_of_a_gru_by_hand() -> None:
    setting = example_setting(model_type="gru", scales="none")

    *gates, _ = readings(setting.layout, 3)

    found = [([t.name for t in r.tensors], r.columns, r.slopes) for r in gates]
    assert found == [
        (["Wx0", "Wh0", "b0"], slice(0, 8), slice(0, 8)),
        (["Wx0", "b0"], slice(8, 12), slice(8, 12)),
        (["Wh0"], slice(8, 12), slice(12, 16)),
        (["bn0"], slice(0, 4), slice(12, 16)),
    ]
    assert [r.scales for r in gates] == [(32, 1, 32), (32, 32), (1,), (32,)]


@pytest.mark.parametrize("scales", ["auto", "none"])
@pytest.mark.parametrize("model_type", ["rnn", "gru"])
@pytest.mark.parametrize("directions", [0, 3])
def test_each_column_of_each_tensor_has_its_unit(
    model_type: str, scales: str, directions: int
) -> None:
    keys = {"model_type": model_type, "scales": scales, "n_layers": 2}
    setting = example_setting(**keys, directions_per_window=directions)
    expected = reference.divisors(setting.config)

    found = setting.units

    assert found is not None
    assert (found == units(setting.layout, max(1, directions))).all()
    for t in setting.layout.tensors:
        part = found[t.start : t.start + t.size].reshape(-1, t.shape[-1])
        for row in part.tolist():
            assert row == pytest.approx(expected[t.name], rel=1e-15)


def slopes_of(setting: Setting, flat: Floats, windows: NDArray[Any]) -> list[Any]:
    fixed = FixedPoint(setting.layout, flat, COARSE)
    states = fixed.states(windows)
    layers = range(setting.config.n_layers)
    return [fixed.slopes(layer, windows, states) for layer in layers]


@pytest.mark.parametrize("layer", [0, 1])
def test_slopes_of_a_network_are_one_less_the_square_of_its_state(layer: int) -> None:
    setting = example_setting(n_layers=2, hidden_size=6)
    flat, windows = example_weights(setting.layout.size), np.array([[1, 2], [3, 4]])
    states = FixedPoint(setting.layout, flat, COARSE).states(windows)[layer]

    found = slopes_of(setting, flat, windows)[layer]

    assert (found == 1 - np.square(states[1:] / COARSE)).all()
    assert found.min() < 0.5 < found.max()


@pytest.mark.parametrize("layer", [0, 1])
def test_slopes_of_a_gru_are_those_of_finite_differences(layer: int) -> None:
    setting = example_setting(model_type="gru", n_layers=2, hidden_size=6)
    draw = np.random.default_rng(3)
    flat = draw.standard_normal(setting.layout.size).astype(np.float32) / np.float32(2)
    text = [1, 7, 3]
    usual = np.repeat(whitening.USUAL_SLOPES, 6)

    found = slopes_of(setting, flat, np.array(text)[:, None])[layer][-1, 0] * usual

    w = reference.tensors_of(setting.config, flat)
    state = [np.zeros(6), np.zeros(6)]
    for character in text[:-1]:
        x = np.eye(9)[character]
        for each in (0, 1):
            about = setting.config, w, each, x, state[each]
            state[each] = x = reference.next_hidden(*about)
    x = np.eye(9)[text[-1]]
    if layer:
        x = reference.next_hidden(setting.config, w, 0, x, state[0])
    by_hand, step = [], 1e-6
    for name, column in [(f"b{layer}", i) for i in range(18)] + [
        (f"bn{layer}", i) for i in range(6)
    ]:
        about = setting.config, w, layer, x, state[layer]
        before = reference.next_hidden(*about)[column % 6]
        w[name][column] += step
        by_hand.append((reference.next_hidden(*about)[column % 6] - before) / step)
        w[name][column] -= step
    assert found == pytest.approx(by_hand, abs=0.03)
    assert np.abs(found).max() > 0.1


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_squares_of_slopes_have_the_bits_of_single_roundings(
    data: st.DataObject,
) -> None:
    def one_of(*values: Any) -> Any:
        return data.draw(st.sampled_from(values))

    setting = example_setting(
        model_type=one_of("rnn", "gru"),
        n_layers=one_of(1, 2),
        hidden_size=one_of(1, 4),
        burn_in=one_of(0, 2),
    )
    flat = weights_of(one_of(*KINDS), setting.layout.size)
    window = data.draw(st.lists(st.integers(0, 8), min_size=8, max_size=8))
    config, first = setting.config, setting.config.before
    text = np.array(window)[:, None, None]
    about = setting.layout, flat, unshaped(setting.layout), first, 3
    chunk = _Chunk(Nodes(*about), text, {})

    places = reference.places_of(
        replace(config, whitening="none"), tuple(flat.tolist()), [], [window]
    )

    for layer in range(config.n_layers):
        found = chunk._squares(layer)[0].tolist()
        assert found == [place.squares[layer] for place in places]


# --- estimates ------------------------------------------------------------------------


def linear_rewards(
    setting: Setting, chunk: _Chunk, true: dict[str, NDArray[Any]], groups: int
) -> tuple[Floats, Floats]:
    """Return rewards of a loss that is linear in all sums, by true derivatives."""
    rewards: list[Floats] = []
    found = [np.zeros(groups * setting.config.passes_per_group) for _ in range(2)]
    for reading in chunk._nodes.readings:
        z, _ = chunk._moved(reading)  # (groups, places, K)
        b = chunk._drawn(reading.outputs)[:, :, reading.columns]
        moved = np.einsum("gpk,gkn,gpn->gk", z, b, true[reading.tensors[0].name])
        found[reading.layer is None] += moved.ravel()
    for each in found:
        scaled = 42 * each / max(1e-9, float(each.std()))
        rewards.append(np.clip(np.rint(scaled), -126, 126).astype(np.float32))
    return rewards[0], rewards[1]


@pytest.mark.parametrize("common", [0.0, 0.7])
def test_many_directions_tell_the_derivatives_themselves(common: float) -> None:
    # So many that they are found out, of weights with which no unit is saturated.
    setting = example_setting(
        directions_per_window=1000, hidden_size=12, sequence_length=4, burn_in=4
    )
    draw = np.random.default_rng(5)
    flat = draw.standard_normal(setting.layout.size).astype(np.float32)
    flat *= np.float32(0.3)
    setting.layout.views(flat)["b0"][:] += np.float32(common)
    chunk = chunk_of(setting, flat, example_tokens(setting.config), 40)
    inside, last = chunk._nodes.readings
    true = {"Wx0": draw.standard_normal((40, 4, 12)), "Wo": np.zeros((40, 4, 9))}

    inner, _ = linear_rewards(setting, chunk, true, 40)
    found = chunk.derivatives(inside, inner).reshape(40, 4, 12)

    expected = true["Wx0"] * chunk._squares(0)
    cosine = np.vdot(found, expected) / math.sqrt(
        float(np.square(found).sum() * np.square(expected).sum())
    )
    assert cosine > 0.9
    assert not chunk.derivatives(last, np.zeros_like(inner)).any()


def test_derivatives_are_those_of_a_library_however_alike_states_are() -> None:
    for common in (0.0, 1.0, 10.0):
        setting = example_setting(
            hidden_size=24, sequence_length=9, directions_per_window=16
        )
        draw = np.random.default_rng(8)
        flat = draw.standard_normal(setting.layout.size).astype(np.float32)
        flat *= np.float32(0.2)
        setting.layout.views(flat)["b0"][:] += np.float32(common / 8)
        chunk = chunk_of(setting, flat, example_tokens(setting.config), 30)
        rewards = np.rint(42 * draw.standard_normal(480)).clip(-126, 126)
        rewards = rewards.astype(np.float32)

        for reading in chunk._nodes.readings:
            found = chunk.derivatives(reading, rewards).reshape(30, 9, -1)

            z, q = (each.astype(np.float64) for each in chunk._moved(reading))
            damping = 0.1 * np.trace(q, axis1=1, axis2=2) / 9 + 1
            inverse = np.linalg.inv(q + damping[:, None, None] * np.eye(9))
            b = chunk._drawn(reading.outputs) * rewards.reshape(30, 16, 1)
            exact = reading.unit * inverse @ z @ b
            if reading.layer is not None:
                exact *= chunk._squares(reading.layer)
            assert np.rint(found).tolist() == found.tolist()
            wrong = found - np.clip(exact, -MOST, MOST)
            assert np.abs(wrong).max() < 1.5
            assert math.sqrt(np.square(wrong).mean()) < 0.31  # of rounding 0.29


def test_integers_are_about_as_large_as_is_usual() -> None:
    for size, directions in ((32, 16), (64, 32), (128, 32), (128, 1)):
        setting = example_setting(
            hidden_size=size,
            sequence_length=8,
            burn_in=16,
            vocab_size=65,
            directions_per_window=directions,
        )
        draw = np.random.default_rng(8)
        flat = draw.standard_normal(setting.layout.size).astype(np.float32)
        flat *= np.float32(0.5 / math.sqrt(size))
        setting.layout.views(flat)["Wx0"][:] = draw.standard_normal((65, size)) * 0.7
        tokens = draw.integers(0, 65, 3000).astype(np.uint16)
        chunk = chunk_of(setting, flat, tokens, 60)
        rewards = 42 * draw.standard_normal(60 * directions)
        rewards = rewards.round().clip(-126, 126).astype(np.float32)

        found = chunk.derivatives(chunk._nodes.readings[-1], rewards)

        assert 6 < found.std() < 24
        assert (np.abs(found) == MOST).mean() < 0.02


def test_no_product_can_pass_what_float32_holds() -> None:
    # Of two states; beyond 1,024 units they are smaller.
    assert 1024 * TOP**2 < EXACT
    assert LARGEST_LAYER * (TOP // 2) ** 2 < EXACT
    # Of the inverse and z: no row of (G + m)^-1 m is longer than 1.
    longest = WHOLE * math.sqrt(MOST_PLACES) + MOST_PLACES / 2  # sum of its sizes
    widest = 2 * TOP * LARGEST_LAYER + 2 * 96  # a layer reads two states at most
    assert longest * widest < 1 << 53  # float64 holds all up to there
    # Of what is solved, rewards and signs.
    for directions in range(1, 1025):
        most = EXACT // (LARGEST_REWARD * directions)
        assert 100 < most * LARGEST_REWARD * directions <= EXACT
    # Of states and derivatives.
    assert ROWS * TOP * MOST <= EXACT


@pytest.mark.parametrize("count", [ROWS - 1, ROWS, ROWS + 1, 3 * ROWS])
def test_products_are_exact_however_many_places_there_are(count: int) -> None:
    setting = example_setting(batch_size=1, sequence_length=1, hidden_size=3)
    windows = np.ones((4, count, 1), np.int64)
    chunk = _Chunk(nodes(setting), windows, {})
    first, *_ = chunk._nodes.readings
    wx, wh, b = first.tensors
    chunk._known[0, False] = np.full((count, 1, 3), TOP, np.float32)
    derivatives = np.full((count, 3), MOST, np.float32)
    derivatives[-1] -= 1

    told = MOST * count - 1
    assert chunk.product(first, b, derivatives).tolist() == [told] * 3
    assert chunk.product(first, wh, derivatives).tolist() == [[TOP * told] * 3] * 3
    rows = chunk.product(first, wx, derivatives)
    assert rows.shape == (9, 3)
    assert rows[1].tolist() == [told] * 3
    assert not np.delete(rows, 1, axis=0).any()


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_no_row_of_an_inverse_is_longer_than_its_bound(data: st.DataObject) -> None:
    states = random_states(data)
    grams = (states @ np.swapaxes(states, 1, 2)).transpose(1, 2, 0)

    found, *_ = ridge_inverse(grams.astype(np.float32))

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
            found = states[layer][1:, window]
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

    assert one[0][1:].tolist() == other[0][1:].tolist() == [[[128] * 4]] * 2
    assert not one[0][0].any()  # before


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


Told = dict[str, NDArray[np.float64]]


def told(here: Nodes, windows: NDArray[Any], signs: Signs, seed: int = 1) -> Told:
    """Return the sums of trials whose rewards are made up."""
    count = len(next(iter(signs.values())))
    draw = np.random.default_rng(seed)
    rewards = (draw.integers(-126, 127, count).astype(np.float32) for _ in range(2))
    return {t.name: part for t, part in here.sums(windows, signs, *rewards)}


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_sums_are_those_of_the_reference_to_the_bit(data: st.DataObject) -> None:
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
        scales=one_of("auto", "none"),
        directions_per_window=one_of(0, 1, 3),
    )
    tokens = example_tokens(setting.config, 60)
    weights = weights_of(one_of(*KINDS), setting.layout.size)
    segment = Segment(data.draw(st.integers(0, SEED)), 3, 2)
    windows, signs = windows_of(setting, tokens, segment), signs_of(setting, segment)
    here = nodes_of(setting, weights, tokens)
    assert here is not None
    draw = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    each = setting.config.passes_per_group
    inner, outer = draw.integers(-126, 127, (2, 2 * each)).astype(np.float32)

    found = [part.ravel() for _, part in here.sums(windows, signs, inner, outer)]

    expected = np.zeros(setting.layout.size, np.int64)
    for group in range(2):
        texts = windows[:, group].T.tolist()
        about = setting.config, tuple(weights.tolist()), tokens.tolist(), texts
        rows = slice(group * each, (group + 1) * each)
        drawn = [
            {name: part[k].astype(int).tolist() for name, part in signs.items()}
            for k in range(rows.start, rows.stop)
        ]
        both = (kind[rows].astype(int).tolist() for kind in (inner, outer))
        places = reference.places_of(*about)
        expected += reference.group_told(setting.config, places, drawn, *both)
    assert np.concatenate(found).tolist() == expected.tolist()


@pytest.mark.parametrize("whitening_", ["auto", "none"])
@pytest.mark.parametrize("model_type", ["rnn", "gru"])
def test_groups_together_tell_what_they_tell_alone(
    model_type: str, whitening_: str
) -> None:
    keys = {"model_type": model_type, "hidden_size": 40, "n_layers": 2}
    setting = example_setting(**keys, whitening=whitening_, batch_size=2)
    tokens = example_tokens(setting.config)
    segment = Segment(SEED, 4, 9)
    windows, signs = windows_of(setting, tokens, segment), signs_of(setting, segment)
    here, before = nodes(setting), {n: e.copy() for n, e in signs.items()}
    draw = np.random.default_rng(1)
    inner, outer = draw.integers(-126, 127, (2, 27)).astype(np.float32)

    together = {t.name: part for t, part in here.sums(windows, signs, inner, outer)}

    assert all((signs[name] == each).all() for name, each in before.items())
    alone = {name: np.zeros_like(part) for name, part in together.items()}
    for group in range(9):
        rows = slice(3 * group, 3 * group + 3)
        some = {name: e[rows] for name, e in signs.items()}
        about = windows[:, group : group + 1], some, inner[rows], outer[rows]
        for tensor, part in here.sums(*about):
            alone[tensor.name] += part
    for name, part in together.items():
        assert (part == alone[name]).all()
        assert part.any()


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
def test_each_of_many_layers_is_told_of(model_type: str) -> None:
    setting = example_setting(model_type=model_type, n_layers=16)
    segment = Segment(SEED, 4, 2)
    windows = windows_of(setting, example_tokens(setting.config), segment)

    found = told(nodes(setting), windows, signs_of(setting, segment))

    assert list(found) == [t.name for t in setting.layout.tensors]
    assert all(part.any() for part in found.values())
    divisors = reference.divisors(setting.config)
    assert setting.units is not None
    for t in setting.layout.tensors:
        part = setting.units[t.start : t.start + t.size].reshape(-1, t.shape[-1])
        assert part[-1].tolist() == pytest.approx(divisors[t.name], rel=1e-15)


def test_of_a_large_vocabulary_only_what_is_read_takes_room() -> None:
    setting = example_setting(vocab_size=20_000)
    segment, text = Segment(SEED, 4, 3), np.arange(19_000, 20_000, dtype=np.uint16)
    windows, signs = windows_of(setting, text, segment), signs_of(setting, segment)
    here = nodes_of(setting, example_weights(setting.layout.size), text)
    assert here is not None

    tracemalloc.start()
    rows = told(here, windows, signs)["Wx0"]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert most < 20_000_000  # not the square of the vocabulary
    read = np.unique(windows[setting.config.before : -1])
    assert rows[read].any(axis=1).mean() > 0.8  # some are rounded to nothing
    assert not np.delete(rows, read, axis=0).any()


def test_only_states_of_the_window_and_the_one_before_it_count() -> None:
    # The weights read the last character alone, so what came before leaves no trace.
    setting = example_setting(burn_in=4, sequence_length=3, whitening="none")
    weights = example_weights(setting.layout.size).copy()
    setting.layout.views(weights)["Wh0"][:] = 0
    here = Nodes(setting.layout, weights, (), 4, 3)
    signs = signs_of(setting, Segment(SEED, 4, 1))
    windows = np.array([1, 2, 3, 4, 5, 6, 7, 8])[:, None, None]

    def found(place: int | None) -> list[list[float]]:
        other = windows.copy()
        if place is not None:
            other[place] = 0
        rows: list[list[float]] = told(here, other, signs)["Wh0"].tolist()
        return rows

    assert [found(place) == found(None) for place in range(8)] == [
        *([True] * 3),
        *([False] * 4),  # after the last one before the window, and in it
        True,  # a target
    ]

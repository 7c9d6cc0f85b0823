"""Layout and bundles, the networks against a slow reference, optimizers by hand.

Losses are asked for through `score` and `clean_loss`: how those of a population are
computed is their own affair, that they are right is not.
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import reference
from utilities import model
from utilities.config import Config
from utilities.errors import ConfigError
from utilities.evolution import Scores, Segment, Setting
from utilities.model import (
    Clean,
    Layout,
    Moments,
    Network,
    adam,
    averaged,
    initial_weights,
    power,
    sgd,
    sigmoid,
)
from utilities.noise import Noise
from utilities.scoring import clean_loss, score

Floats = NDArray[np.float32]
TOP = (1 << 64) - 1
SEGMENT = Segment(TOP, 5, 2)


def floats(*numbers: float) -> Floats:
    return np.array(numbers, np.float32)


def layout(**keys: Any) -> Layout:
    return Layout(Config(**({"hidden_size": 2, "vocab_size": 5} | keys)))


# --- layout ---------------------------------------------------------------------------


def test_an_rnn_lies_layer_after_layer_then_the_output() -> None:
    tensors = layout(n_layers=2).tensors

    assert [(t.name, t.shape, t.start, t.size) for t in tensors] == [
        ("Wx0", (5, 2), 0, 10),
        ("Wh0", (2, 2), 10, 4),
        ("b0", (2,), 14, 2),
        ("Wx1", (2, 2), 16, 4),
        ("Wh1", (2, 2), 20, 4),
        ("b1", (2,), 24, 2),
        ("Wo", (2, 5), 26, 10),
        ("bo", (5,), 36, 5),
    ]
    assert layout(n_layers=2).size == 41


def test_a_gru_has_three_gates_side_by_side_and_a_bias_inside_the_reset_gate() -> None:
    tensors = layout(model_type="gru", n_layers=2).tensors

    assert [(t.name, t.shape, t.start) for t in tensors] == [
        ("Wx0", (5, 6), 0),
        ("Wh0", (2, 6), 30),
        ("b0", (6,), 42),
        ("bn0", (2,), 48),
        ("Wx1", (2, 6), 50),
        ("Wh1", (2, 6), 62),
        ("b1", (6,), 74),
        ("bn1", (2,), 80),
        ("Wo", (2, 5), 82),
        ("bo", (5,), 92),
    ]
    assert layout(model_type="gru", n_layers=2).size == 97


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
@pytest.mark.parametrize("n_layers", [1, 2, 16])
def test_the_layout_is_that_of_the_reference(model_type: str, n_layers: int) -> None:
    config = Config(
        model_type=model_type, n_layers=n_layers, hidden_size=3, vocab_size=7
    )

    tensors = Layout(config).tensors

    assert [(t.name, t.shape) for t in tensors] == list(
        reference.shapes_of(config).items()
    )


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
def test_views_share_the_memory_of_the_vector_and_cover_it_once(
    model_type: str,
) -> None:
    place = layout(model_type=model_type, n_layers=2)
    flat = np.arange(place.size, dtype=np.float32)

    views = place.views(flat)

    assert all(np.shares_memory(view, flat) for view in views.values())
    assert (np.concatenate([view.ravel() for view in views.values()]) == flat).all()
    views["Wo"][1, 2] = -1
    wo = next(t for t in place.tensors if t.name == "Wo")
    assert np.flatnonzero(flat == -1).tolist() == [wo.start + 5 + 2]


def test_a_vector_of_another_form_is_refused() -> None:
    place = layout()
    size = place.size

    for wrong in (np.zeros(size + 1), np.zeros(size - 1), np.zeros((1, size))):
        with pytest.raises(AssertionError):
            place.views(wrong.astype(np.float32))
    with pytest.raises(AssertionError):
        place.views(np.zeros(2 * size, np.float32)[::2])


def test_a_model_needs_a_sized_vocabulary() -> None:
    with pytest.raises(AssertionError, match="the vocabulary is sized before"):
        Layout(Config())


def test_a_model_of_absurd_size_is_refused_with_its_size() -> None:
    with pytest.raises(ConfigError) as caught:
        layout(hidden_size=4096, n_layers=16)

    size = 5 * 4096 + 31 * 4096**2 + 16 * 4096 + 4096 * 5 + 5
    assert str(caught.value) == (
        f"hiddenSize, nLayers, vocabSize: expected at most 67108864 weights, got {size}"
    )


def test_the_largest_size_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MAX_PARAMETERS", 31)
    assert layout().size == 31  # 10 + 4 + 2, 10 + 5

    monkeypatch.setattr(model, "MAX_PARAMETERS", 30)
    with pytest.raises(ConfigError, match="expected at most 30 weights, got 31"):
        layout()


# --- bundles --------------------------------------------------------------------------

EVERY_MODEL = list(product(["rnn", "gru"], range(1, 17)))


def test_the_bundles_of_an_rnn_by_hand() -> None:
    place = layout(n_layers=2)

    assert place.width == 2
    assert list(place.bundles.items()) == [
        ("characters", 5),
        *(("gates0", 2), ("state0", 2)),
        *(("gates1", 2), ("state1", 2)),
        ("logits", 5),
    ]
    assert [(t.name, t.inputs, t.outputs) for t in place.tensors] == [
        ("Wx0", "characters", "gates0"),
        ("Wh0", "state0", "gates0"),
        ("b0", None, "gates0"),
        ("Wx1", "state0", "gates1"),
        ("Wh1", "state1", "gates1"),
        ("b1", None, "gates1"),
        ("Wo", "state1", "logits"),
        ("bo", None, "logits"),
    ]


def test_a_gru_has_another_bundle_inside_the_reset_gate() -> None:
    place = layout(model_type="gru")

    assert place.width == 6
    assert list(place.bundles.items()) == [
        *(("characters", 5), ("gates0", 6), ("state0", 2), ("inner0", 2), ("logits", 5))
    ]
    assert [(t.name, t.inputs, t.outputs) for t in place.tensors] == [
        ("Wx0", "characters", "gates0"),
        ("Wh0", "state0", "gates0"),
        ("b0", None, "gates0"),
        ("bn0", None, "inner0"),
        ("Wo", "state0", "logits"),
        ("bo", None, "logits"),
    ]


@pytest.mark.parametrize(("model_type", "n_layers"), EVERY_MODEL)
def test_bundles_are_those_of_the_reference(model_type: str, n_layers: int) -> None:
    config = Config(
        model_type=model_type, n_layers=n_layers, hidden_size=3, vocab_size=7
    )

    place = Layout(config)

    bundles, joins = reference.bundles_of(config), reference.joins_of(config)
    assert list(place.bundles.items()) == list(bundles.items())
    assert {t.name: (t.inputs, t.outputs) for t in place.tensors} == joins


@pytest.mark.parametrize(("model_type", "n_layers"), EVERY_MODEL)
def test_no_two_tensors_join_the_same_bundles(model_type: str, n_layers: int) -> None:
    place = layout(model_type=model_type, n_layers=n_layers)

    joined = [frozenset([t.inputs, t.outputs]) for t in place.tensors]

    assert all(len(pair) == 2 for pair in joined)  # none leads from a bundle to itself
    assert len(set(joined)) == len(place.tensors)


@pytest.mark.parametrize(("model_type", "n_layers"), EVERY_MODEL)
def test_a_bundle_is_as_wide_as_each_tensor_that_it_joins_and_read_or_written(
    model_type: str, n_layers: int
) -> None:
    place = layout(model_type=model_type, n_layers=n_layers)
    written = {t.outputs for t in place.tensors}
    read = {t.inputs for t in place.tensors if t.inputs is not None}

    assert not written & read  # so that the signs of one side alone can be turned
    assert written | read == set(place.bundles)
    for t in place.tensors:
        sides = [] if t.inputs is None else [place.bundles[t.inputs]]
        assert t.shape == (*sides, place.bundles[t.outputs])
    assert [t.name for t in place.tensors if t.inputs == "characters"] == ["Wx0"]


def every_pattern(place: Layout) -> dict[str, Floats]:
    """Return each pattern of signs that the bundles can have, once."""
    count = sum(place.bundles.values())
    bits = np.arange(1 << count)[:, None] >> np.arange(count) & 1
    ends = np.cumsum(list(place.bundles.values()))[:-1]
    parts = np.split(bits.astype(np.float32) * 2 - 1, ends, axis=1)
    return dict(zip(place.bundles, parts, strict=True))


def perturbations(place: Layout, signs: dict[str, Floats]) -> Floats:
    """Return the whole perturbation of each pattern: (patterns, P)."""
    count = len(signs["logits"])
    e = np.full((count, place.size), np.nan, np.float32)
    for t in place.tensors:
        a = np.ones((count, 1), np.float32) if t.inputs is None else signs[t.inputs]
        each = a[:, :, None] * signs[t.outputs][:, None, :]
        e[:, t.start : t.start + t.size] = each.reshape(count, -1)
    return e


def gradients(size: int) -> list[NDArray[np.float64]]:
    return [np.sin(np.arange(1.0, size + 1) * k) for k in (1, 2, 5)]


@pytest.mark.parametrize(
    ("model_type", "n_layers", "hidden_size"),
    [
        *(("rnn", 1, 1), ("rnn", 2, 1), ("rnn", 2, 2), ("rnn", 3, 1), ("rnn", 1, 5)),
        *(("gru", 1, 1), ("gru", 2, 1), ("gru", 1, 2)),
    ],
)
def test_over_all_signs_entries_are_uncorrelated_as_if_each_had_its_own(
    model_type: str, n_layers: int, hidden_size: int
) -> None:
    place = layout(
        model_type=model_type, n_layers=n_layers, hidden_size=hidden_size, vocab_size=3
    )

    e = perturbations(place, every_pattern(place))

    assert not e.sum(axis=0).any()
    assert (e.T @ e == len(e) * np.eye(place.size)).all()  # exact: small integers
    for g in gradients(place.size):
        assert np.mean((e @ g) ** 2) == pytest.approx(g @ g, rel=1e-9)
        assert (e * (e @ g)[:, None]).mean(axis=0) == pytest.approx(g, abs=1e-9)


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
def test_silenced_characters_take_their_rows_out_of_the_moments_and_no_other(
    model_type: str,
) -> None:
    place = layout(model_type=model_type, hidden_size=1, vocab_size=3)
    signs = every_pattern(place)
    signs["characters"][:, 1] = 0

    e = perturbations(place, signs)

    kept = np.ones(place.size)
    kept[place.width : 2 * place.width] = 0  # the row of character 1 in Wx0
    assert (e.T @ e == len(e) * np.diag(kept)).all()


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_signs_as_they_are_drawn_are_uncorrelated_within_chance(
    model_type: str, n_layers: int
) -> None:
    place = layout(model_type=model_type, n_layers=n_layers, hidden_size=3)
    trials = 1 << 13

    e = perturbations(place, Noise(place.bundles).signs(TOP, 3, trials))

    assert np.abs(e.T @ e / trials - np.eye(place.size)).max() < 6 / trials**0.5
    for g in gradients(place.size):
        squares = (e @ g) ** 2
        error = squares.std() / trials**0.5
        assert squares.mean() == pytest.approx(g @ g, abs=4 * error)


# --- initial weights ------------------------------------------------------------------


@pytest.fixture(params=["rnn", "gru"])
def wide(request: pytest.FixtureRequest) -> Layout:
    """Give a model large enough to measure the spread of its weights."""
    return layout(model_type=request.param, hidden_size=64, vocab_size=100, n_layers=2)


def initial(place: Layout, seed: int = 3) -> dict[str, Floats]:
    frequencies = np.linspace(-9, -1, place.vocab_size, dtype=np.float32)
    return place.views(initial_weights(place, seed, frequencies))


def test_the_output_bias_starts_at_the_log_frequencies(wide: Layout) -> None:
    bias = initial(wide)["bo"]

    assert (bias == np.linspace(-9, -1, 100, dtype=np.float32)).all()


def test_matrices_start_at_their_scales(wide: Layout) -> None:
    scales = {"Wx0": 0.5, "Wh0": 1 / 16, "Wx1": 1 / 16, "Wh1": 1 / 16, "Wo": 1 / 80}
    views = initial(wide)

    assert {name for name, view in views.items() if view.ndim == 2} == set(scales)
    for name, scale in scales.items():
        assert float(views[name].std()) == pytest.approx(scale, rel=0.05)
        assert abs(float(views[name].mean())) < scale / 10


def test_biases_start_at_zero_but_for_the_update_gate_that_remembers() -> None:
    rnn, gru = (initial(layout(model_type=kind, n_layers=2)) for kind in ("rnn", "gru"))

    assert [rnn[name].tolist() for name in ("b0", "b1")] == [[0, 0]] * 2
    assert [gru[name].tolist() for name in ("b0", "b1")] == [[0, 0, 1, 1, 0, 0]] * 2
    assert [gru[name].tolist() for name in ("bn0", "bn1")] == [[0, 0]] * 2


def test_an_output_bias_as_wide_as_the_gates_is_still_the_frequencies() -> None:
    views = initial(layout(model_type="gru", vocab_size=6))  # 3 H = V

    assert views["bo"].tolist() == pytest.approx(np.linspace(-9, -1, 6).tolist())


def test_initial_weights_follow_from_the_seed(wide: Layout) -> None:
    frequencies = np.zeros(100, np.float32)
    first, again, other = (initial_weights(wide, s, frequencies) for s in (TOP, TOP, 1))

    assert first.dtype == np.float32
    assert first.shape == (wide.size,)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


# --- networks by hand -----------------------------------------------------------------


def run(network: Network, flat: Floats, text: list[int]) -> list[list[float]]:
    """Return the top state after each character."""
    clean = Clean(network.layout.views(flat))
    state, seen = network.start((1, 1)), []
    for token in text:
        state = network.step(clean, np.array([[token]]), state)
        seen.append(state[-1][0, 0].tolist())
    return seen


def test_an_rnn_by_hand() -> None:
    place = layout(hidden_size=1, vocab_size=3)
    #              Wx0            Wh0  b0    Wo       bo
    flat = floats(0.5, -0.25, 0, 2.0, 0.125, 3, 0, -3, 0, 1, 0)

    (first,), (second,) = run(Network(place), flat, [0, 1])

    assert first == pytest.approx(math.tanh(0.5 + 0.125), abs=1e-6)
    assert second == pytest.approx(math.tanh(-0.25 + 2 * first + 0.125), abs=1e-6)


def test_a_gru_by_hand() -> None:
    place = layout(model_type="gru", hidden_size=1, vocab_size=3)
    ln3 = math.log(3)  # the logistic function gives 3/4 there, 1/4 at -ln 3
    flat = floats(
        *(0, 0, 0.5),  # Wx0: r z n of character 0
        *(ln3, -ln3, -0.25),  # of character 1
        *(0, 0, 0),
        *(0, 0, 2),  # Wh0
        *(0, 0, 0.125),  # b0
        *(0.75,),  # bn0
        *(0,) * 6,  # Wo, bo
    )

    (first,), (second,) = run(Network(place), flat, [0, 1])

    # r = z = 1/2, h = 0: n = tanh(x + b + r (0 + bn)), h' = (1 - z) n
    assert first == pytest.approx(math.tanh(0.5 + 0.125 + 0.75 / 2) / 2, abs=1e-6)
    # r = 3/4, z = 1/4
    new = math.tanh(-0.25 + 0.125 + 0.75 * (2 * first + 0.75))
    assert second == pytest.approx(0.75 * new + 0.25 * first, abs=1e-6)


def test_a_loss_by_hand() -> None:
    setting = reference.example_setting(
        hidden_size=1, vocab_size=3, sequence_length=2, sigma=0.1
    )
    # h stays 0; logits are log(1 2 5)
    flat = np.zeros(setting.layout.size, np.float32)
    setting.layout.views(flat)["bo"][:] = np.log([1, 2, 5])
    rows = [np.array([[0, 1], [2, 2], [1, 0]]), np.array([[0], [0]])]

    loss = clean_loss(setting, flat, rows)

    targets = [8 / 5, 8 / 2, 8 / 5, 8 / 1, 8 / 1]
    assert loss == pytest.approx(sum(map(math.log, targets)) / 5, abs=1e-6)


# --- networks against the reference ---------------------------------------------------

KINDS = list(product(["rnn", "gru"], [1, 2, 3]))


@pytest.mark.parametrize(("model_type", "n_layers"), KINDS)
def test_logits_of_many_rows_are_those_of_the_reference(
    model_type: str, n_layers: int
) -> None:
    setting = reference.example_setting(model_type=model_type, n_layers=n_layers)
    flat = reference.example_weights(setting.layout.size)
    views = reference.tensors_of(setting.config, flat)
    tokens = np.arange(4 * 3 * 2).reshape(4, 3, 2) * 5 % 9  # time, n, w
    network, clean = setting.network, Clean(setting.layout.views(flat))

    state = network.start((3, 2))
    for now in tokens:
        state = network.step(clean, now, state)
    logits = network.logits(clean, state[-1])

    assert logits.shape == (3, 2, 9)
    assert [h.shape for h in state] == [(3, 2, 4)] * n_layers
    for n, w in product(range(3), range(2)):
        text = tokens[:, n, w].tolist()
        expected = reference.window_logits(setting.config, views, text)[-1]
        assert logits[n, w].tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_step_leaves_the_state_before_it_alone() -> None:
    setting = reference.example_setting(model_type="gru", n_layers=2)
    flat = reference.example_weights(setting.layout.size)
    network, clean = setting.network, Clean(setting.layout.views(flat))
    state = network.step(clean, np.array([[1, 2]]), network.start((1, 2)))
    before = [h.copy() for h in state]

    first = network.step(clean, np.array([[3, 4]]), state)
    second = network.step(clean, np.array([[3, 4]]), state)

    assert all((x == y).all() for x, y in zip(state, before, strict=True))
    assert all((x == y).all() for x, y in zip(first, second, strict=True))
    assert all(h.shape == (7, 3, 4) and not h.any() for h in network.start((7, 3)))


def population(**keys: Any) -> tuple[Setting, Floats, NDArray[np.uint16]]:
    setting = reference.example_setting(**({"sigma": 0.1} | keys))
    weights = reference.example_weights(setting.layout.size)
    return setting, weights, reference.example_tokens(setting.config)


def reference_losses(
    setting: Setting, weights: Floats, tokens: NDArray[np.uint16]
) -> tuple[list[float], list[float]]:
    """Return losses of all trials in order (pairs: L+ before L-) and clean losses."""
    config, text = setting.config, tokens.tolist()
    groups = range(SEGMENT.first, SEGMENT.first + SEGMENT.groups)

    def losses() -> Iterator[float]:
        each = config.trials_per_group
        for trial in range(SEGMENT.first * each, (SEGMENT.first + 2) * each):
            for sign in (1,) if config.directions_per_window else (1, -1):
                yield reference.trial_loss(
                    config, weights, text, SEGMENT.seed, trial, sign * config.sigma
                )

    w = reference.tensors_of(config, weights)
    windows = [reference.group_windows(config, text, TOP, group) for group in groups]
    clean = [
        sum(reference.window_loss(config, w, each, w) for each in group) / len(group)
        for group in windows
    ]
    return list(losses()), clean if config.directions_per_window else []


@pytest.mark.parametrize("noise", ["lowRank", "full"])
@pytest.mark.parametrize("directions", [0, 1, 16])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(("model_type", "n_layers"), KINDS)
def test_losses_of_a_population_are_those_of_perturbed_matrices_built_whole(
    model_type: str, n_layers: int, batch_size: int, directions: int, noise: str
) -> None:
    setting, weights, tokens = population(
        model_type=model_type,
        n_layers=n_layers,
        batch_size=batch_size,
        directions_per_window=directions,
        noise=noise,
    )

    scores = score(setting, weights, tokens, SEGMENT)

    losses, clean = reference_losses(setting, weights, tokens)
    assert scores.losses.dtype == scores.clean.dtype == np.float32
    assert len(set(losses)) == len(losses)  # no trial stands for another
    assert scores.losses.tolist() == pytest.approx(losses, abs=1e-5)
    assert scores.clean.tolist() == pytest.approx(clean, abs=1e-5)


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
def test_a_larger_model_stays_within_the_tolerance(model_type: str) -> None:
    setting, weights, tokens = population(
        model_type=model_type,
        hidden_size=40,
        vocab_size=70,
        sequence_length=30,
        sigma=0.02,
        directions_per_window=4,
    )
    weights = initial_weights(setting.layout, 7, np.zeros(70, np.float32))

    scores = score(setting, weights, tokens, SEGMENT)

    losses, clean = reference_losses(setting, weights, tokens)
    assert scores.losses.tolist() == pytest.approx(losses, abs=1e-5)
    assert scores.clean.tolist() == pytest.approx(clean, abs=1e-5)


def flat_scores(scores: Scores) -> list[float]:
    return [*scores.losses.tolist(), *scores.clean.tolist()]


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
@pytest.mark.parametrize("noise", ["lowRank", "full"])
def test_scoring_twice_gives_the_same_bits_and_changes_no_input(
    model_type: str, noise: str
) -> None:
    setting, weights, tokens = population(model_type=model_type, noise=noise)
    mine, text = weights.copy(), tokens.copy()

    first = flat_scores(score(setting, mine, text, SEGMENT))
    second = flat_scores(score(setting, mine, text, SEGMENT))

    assert first == second
    assert mine.tobytes() == weights.tobytes()
    assert text.tobytes() == tokens.tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_tokens_of_any_width_score_alike(dtype: type[np.integer[Any]]) -> None:
    setting, weights, tokens = population()

    scores = score(setting, weights, tokens.astype(dtype), SEGMENT)

    assert flat_scores(scores) == flat_scores(score(setting, weights, tokens, SEGMENT))


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
@pytest.mark.parametrize("size", [1e3, 1e6])
def test_large_weights_give_large_losses_but_finite_ones(
    model_type: str, size: float
) -> None:
    setting, weights, tokens = population(model_type=model_type, n_layers=2)
    weights = weights * np.float32(size)

    scores = score(setting, weights, tokens, SEGMENT)

    losses, clean = reference_losses(setting, weights, tokens)
    assert max(losses) > 100
    assert scores.losses.tolist() == pytest.approx(losses, rel=1e-3)
    assert scores.clean.tolist() == pytest.approx(clean, rel=1e-3)


def test_large_logits_of_one_sign_do_not_overflow() -> None:
    setting = reference.example_setting(vocab_size=4, sequence_length=1)
    rows = [np.array([[0, 0], [1, 3]])]

    for shift in (1e4, -1e4, 1e30, -1e30):
        flat = np.zeros(setting.layout.size, np.float32)
        setting.layout.views(flat)["bo"][:] = shift
        assert clean_loss(setting, flat, rows) == pytest.approx(math.log(4), abs=1e-6)


# --- sigmoid --------------------------------------------------------------------------


def test_sigmoid_is_the_logistic_function_and_cannot_overflow() -> None:
    x = floats(-1e38, -100, -math.log(3), 0, math.log(3), 100, 1e38)
    before = x.copy()

    y = sigmoid(x)

    assert y.dtype == np.float32
    assert y.tolist() == pytest.approx([0, 0, 0.25, 0.5, 0.75, 1, 1], abs=1e-7)
    assert (x == before).all()


# --- optimizers -----------------------------------------------------------------------


def test_power_multiplies_again_and_again() -> None:
    ninth = 1.0
    for _ in range(9):
        ninth *= 0.9

    assert [power(0.5, 0), power(0.5, 1), power(0.5, 3)] == [1.0, 0.5, 0.125]
    assert power(0.9, 9) == ninth
    assert [power(0.0, 0), power(0.0, 1)] == [1.0, 0.0]


def test_power_ends_where_it_no_longer_matters() -> None:
    assert power(0.5, 60) == 2.0**-60
    assert power(0.5, 61) == 0.0
    assert power(0.99, 10**18) == 0.0
    assert 1 - power(0.99, 4130) == 1 - 0.99**4130 == 1.0


def test_two_steps_of_adam_by_hand() -> None:
    config = Config(beta1=0.5, beta2=0.75)
    zero = floats(0)

    # m = 1, v = 1; m / k1 = 1 / 0.5, v / k2 = 1 / 0.25; w = 1 - 0.5 * 2 / 2
    weights, moments = adam(
        floats(1), Moments(zero, zero), floats(2), floats(0.5), 1, config
    )
    assert weights.tolist() == [0.5]
    assert (moments.first.tolist(), moments.second.tolist()) == ([1.0], [1.0])

    # m = 1 - 3/2, v = 1 + 3/4; m / k1 = -0.5 / 0.75, v / k2 = 1.75 / 0.4375
    weights, moments = adam(weights, moments, floats(-2), floats(0.5), 2, config)
    assert weights.tolist() == pytest.approx([0.5 + 0.5 * (2 / 3) / 2])
    assert (moments.first.tolist(), moments.second.tolist()) == ([-0.5], [1.75])


def test_adam_leaves_a_weight_alone_that_never_had_a_gradient() -> None:
    zero = floats(0)

    weights, moments = adam(
        floats(3), Moments(zero, zero), zero, floats(0.1), 1, Config()
    )

    assert (weights.tolist(), moments.first.tolist()) == ([3], [0])


def test_adam_changes_none_of_its_inputs() -> None:
    inputs = [floats(1, 2), floats(3, 4), floats(5, 6), floats(7, 8)]
    for each in inputs:
        each.flags.writeable = False
    w, m, v, g = inputs

    weights, moments = adam(w, Moments(m, v), g, floats(0.1, 0.2), 7, Config())

    assert [each.tolist() for each in inputs] == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert weights.dtype == moments.first.dtype == moments.second.dtype == np.float32


GRADIENTS = st.floats(-100, 100, width=32) | st.floats(-(2.0**-60), 2.0**-60, width=32)
DECAY_RATES = st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1 - 2**-24])


@given(
    st.lists(st.tuples(GRADIENTS, GRADIENTS, GRADIENTS), min_size=1, max_size=20),
    st.floats(1e-6, 10),
    *(DECAY_RATES, DECAY_RATES),
)
@settings(deadline=None, max_examples=60)
def test_adam_has_the_bits_of_single_rounded_operations(
    rows: list[tuple[float, float, float]], rate: float, beta1: float, beta2: float
) -> None:
    config = Config(beta1=beta1, beta2=beta2)
    state = [(gradient, 0.0, 0.0) for gradient, _, _ in rows]
    weights = floats(*(w for w, _, _ in state))
    moments = Moments(np.zeros_like(weights), np.zeros_like(weights))
    rates = np.full_like(weights, rate)

    for count in (1, 2, 3):
        gradient = [row[count - 1] for row in rows]
        weights, moments = adam(
            weights, moments, floats(*gradient), rates, count, config
        )
        state = [
            reference.adam_weight(*each, g, rate, count, config)
            for each, g in zip(state, gradient, strict=True)
        ]

    for array, expected in zip(
        (weights, moments.first, moments.second), zip(*state, strict=True), strict=True
    ):
        assert array.tobytes() == floats(*expected).tobytes()


def test_a_running_mean_by_hand() -> None:
    old, new = floats(1, -2), floats(8, 5)

    assert averaged(old, new, 1).tolist() == [8, 5]  # the first alone counts
    assert averaged(old, new, 7).tolist() == [4.5, 1.5]  # 6 / 12 of the newest
    assert averaged(old, old, 9).tolist() == [1, -2]
    assert averaged(old, new, 7).dtype == np.float32
    assert (old.tolist(), new.tolist()) == ([1, -2], [8, 5])


def test_older_weights_fade_with_the_fifth_power() -> None:
    # After n updates the k-th has weight k (k + 1) ... (k + 4), of all together.
    n = 12
    for k in range(1, n + 1):
        average = floats(0)
        for count in range(1, n + 1):
            average = averaged(average, floats(count == k), count)
        powers = [math.prod(range(i, i + 5)) for i in range(1, n + 1)]
        share = powers[k - 1] / sum(powers)
        assert average.tolist() == [pytest.approx(share, rel=1e-4)]


def test_gradient_descent_by_hand() -> None:
    weights, gradient = floats(1, 2), floats(4, -8)

    result = sgd(weights, gradient, floats(0.25, 0.5))

    assert result.tolist() == [0, 6]
    assert result.dtype == np.float32
    assert (weights.tolist(), gradient.tolist()) == ([1, 2], [4, -8])

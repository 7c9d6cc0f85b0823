"""Losses of populations against perturbed matrices that are built whole, in float64."""

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import reference
from utilities.config import Config
from utilities.evolution import Setting
from utilities.model import Layout
from utilities.outputs import SAFE_SHIFT
from utilities.population import SHORT, Population
from utilities.scoring import clean_loss

Floats = NDArray[np.float32]
Tokens = NDArray[np.uint16]
GROUPS = 2
KINDS = list(product(["rnn", "gru"], [1, 2, 3]))
BOTH = pytest.mark.parametrize("model_type", ["rnn", "gru"])
EVERY = pytest.mark.parametrize(("model_type", "n_layers"), KINDS)


@dataclass(frozen=True)
class Batch:
    """What a population is made of."""

    config: Config
    weights: Floats
    signs: dict[str, Floats]
    windows: Tokens  # those that the clean weights read before come first

    @property
    def copies(self) -> int:
        return int(self.signs["logits"].shape[1])

    def population(self) -> Population:
        return Population(
            Layout(self.config),
            self.weights,
            self.signs,
            self.config.sigma,
            self.windows[self.config.before :],
            self.copies,
            begun=self.begun(),
        )

    def begun(self) -> list[Floats]:
        """Return the states in which windows begin; nothing for zero states."""
        config, before = self.config, self.windows[: self.config.before]
        w = reference.tensors_of(config, self.weights)
        shape = (config.n_layers, *before.shape[1:], config.hidden_size)
        every = np.zeros(shape)
        for group, window in np.ndindex(*before.shape[1:]):
            for character in before[:, group, window]:
                x = np.eye(len(w["bo"]))[character]
                for layer, states in enumerate(every[:, group, window]):
                    x = reference.next_hidden(config, w, layer, x, states)
                    every[layer, group, window] = x
        return list(every.astype(np.float32)) if len(before) else []

    def losses(self) -> Floats:
        return self.population().losses()

    def expected(self) -> list[list[float]]:
        """Return the losses of weights with each copy's perturbation added."""
        return [
            [self._expected(group, copy) for copy in range(self.copies)]
            for group in range(self.windows.shape[1])
        ]

    def _expected(self, group: int, copy: int) -> float:
        drawn = {
            name: [int(sign) for sign in e[group, copy]]
            for name, e in self.signs.items()
        }
        e = reference.rank_one(self.config, drawn)
        windows = self.windows[:, group].T.tolist()
        return reference.perturbed_loss(
            self.config, self.weights, e, self.config.sigma, windows
        )


def random_signs(config: Config, groups: int, seed: int) -> dict[str, Floats]:
    """Return signs of K trials and a clean copy, or of both sides of a pair (K = 0)."""
    draw = np.random.default_rng(seed)
    each = max(1, config.directions_per_window)
    joins = reference.joins_of(config).values()
    signs = {}
    for name, size in reference.bundles_of(config).items():
        e = draw.integers(0, 2, (groups, each, size)).astype(np.float32) * 2 - 1
        other = np.zeros_like(e[:, :1])
        if config.directions_per_window == 0:
            other = -e if name in {outputs for _, outputs in joins} else e
        signs[name] = np.concatenate([e, other], axis=1)
    return signs


def batch(groups: int = GROUPS, seed: int = 7, **keys: Any) -> Batch:
    """Return a small batch; keys as in `Config`."""
    config = reference.example_setting(**({"sigma": 0.1, "burn_in": 0} | keys)).config
    weights = reference.example_weights(Layout(config).size)
    shape = (config.window_length + 1, groups, config.batch_size)
    text = np.random.default_rng(seed + 1).integers(0, config.vocab_size, shape)
    signs = random_signs(config, groups, seed)
    return Batch(config, weights, signs, text.astype(np.uint16))


def changed(
    some: Batch, factor: float = 1, sigma: float | None = None, **tensors: Any
) -> Batch:
    """Return a batch with all weights times a factor, another sigma, other tensors."""
    weights = some.weights * np.float32(factor)
    views = Layout(some.config).views(weights)
    for name, value in tensors.items():
        views[name][:] = value
    config = some.config
    if sigma is not None:
        config = dataclasses.replace(config, sigma=sigma)
    return dataclasses.replace(some, weights=weights, config=config)


def large_output(some: Batch) -> Batch:
    """Return a batch whose logits could overflow an exponential."""
    views = Layout(some.config).views(some.weights)
    return changed(some, Wo=views["Wo"] * 1024)


def large_shift(some: Batch) -> Batch:
    """Return a batch whose noise moves logits by more than is safe."""
    return changed(some, sigma=9)


def assert_close(losses: Floats, expected: Any, tolerance: float = 1e-5) -> None:
    """Compare absolutely, or relative to losses of more than a nat."""
    wanted = np.array(expected, np.float64)
    assert losses.shape == wanted.shape
    assert losses.dtype == np.float32
    assert (np.abs(losses - wanted) <= tolerance * np.maximum(1, wanted)).all()


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count characters that are scored fast, and safely."""
    counts: Counter[str] = Counter()

    def count(name: str) -> None:
        real = vars(Population)[name]

        def spy(population: Population, t: int) -> Any:
            counts[name] += 1
            return real(population, t)

        monkeypatch.setattr(Population, name, spy)

    count("_score")
    count("_score_safely")
    return counts


FAST = {"_score": 5}
LATE = {"_score": 5, "_score_safely": 5}  # after the fast way was tried
SAFE = {"_score_safely": 5}  # at once
LARGE = 80.0  # a logit whose exponential float32 holds, as it holds e^88 and e^-87


# --- against the reference ------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("directions", [1, 4, 16, 0])
def test_losses_are_those_of_perturbed_matrices_built_whole(
    model_type: str,
    n_layers: int,
    batch_size: int,
    directions: int,
    scored: Counter[str],
) -> None:
    some = batch(
        model_type=model_type,
        n_layers=n_layers,
        batch_size=batch_size,
        directions_per_window=directions,
    )

    losses = some.losses()

    expected = some.expected()
    assert len({loss for group in expected for loss in group}) == losses.size
    assert_close(losses, expected)
    assert scored == FAST


@EVERY
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("directions", [1, 4, 16, 0])
@pytest.mark.parametrize("change", [large_output, large_shift])
def test_losses_beyond_the_safe_range_are_those_of_the_reference_too(
    model_type: str,
    n_layers: int,
    batch_size: int,
    directions: int,
    change: Any,
    scored: Counter[str],
) -> None:
    some = change(
        batch(
            model_type=model_type,
            n_layers=n_layers,
            batch_size=batch_size,
            directions_per_window=directions,
        )
    )

    losses = some.losses()

    assert_close(losses, some.expected())
    assert losses.max() > 4
    assert scored == LATE


@BOTH
@pytest.mark.parametrize("hidden_size", [SHORT, SHORT + 1])
def test_losses_of_short_and_of_long_rows_are_those_of_the_reference(
    model_type: str, hidden_size: int
) -> None:
    some = batch(model_type=model_type, n_layers=2, hidden_size=hidden_size, sigma=0.02)
    gentle = changed(some, factor=0.25)

    assert_close(gentle.losses(), gentle.expected())


@given(st.data())
@settings(deadline=None, max_examples=50)
def test_losses_of_any_shape_are_those_of_the_reference(data: st.DataObject) -> None:
    def whole(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    some = batch(
        groups=whole(1, 3),
        seed=whole(0, 1 << 32),
        model_type=data.draw(st.sampled_from(["rnn", "gru"])),
        n_layers=whole(1, 3),
        hidden_size=whole(1, 6),
        vocab_size=whole(3, 12),
        sequence_length=whole(1, 6),
        burn_in=whole(0, 4),
        batch_size=whole(1, 4),
        directions_per_window=whole(0, 4),
        sigma=data.draw(st.sampled_from([0.001, 0.02, 0.3, 1.0, 2.0])),
    )
    silent = np.random.default_rng(whole(0, 9)).integers(0, 2, some.config.vocab_size)
    some.signs["characters"][:] *= silent.astype(np.float32)

    assert_close(some.losses(), some.expected())


@EVERY
@pytest.mark.parametrize("directions", [4, 0])
@pytest.mark.parametrize("change", [None, large_output, large_shift])
def test_all_copies_begin_where_the_clean_weights_have_come_to(
    model_type: str, n_layers: int, directions: int, change: Any, scored: Counter[str]
) -> None:
    some = batch(
        model_type=model_type,
        n_layers=n_layers,
        batch_size=2,
        directions_per_window=directions,
        burn_in=3,
    )
    some = change(some) if change else some
    without = dataclasses.replace(some, windows=some.windows[3:])
    without = dataclasses.replace(
        without, config=dataclasses.replace(some.config, burn_in=0)
    )

    losses = some.losses()

    assert_close(losses, some.expected())
    assert scored == (LATE if change else FAST)
    differ = losses != without.losses()
    assert change is large_shift or differ.all()


def one_unit(**keys: Any) -> Config:
    known = {"hidden_size": 1, "vocab_size": 3, "sequence_length": 1, "sigma": 0.25}
    return Config(**(known | {"burn_in": 0} | keys))


def test_a_loss_of_an_rnn_by_hand() -> None:
    config = one_unit()
    #          Wx0          Wh0  b0   Wo            bo
    numbers = [9, 0.5, 9, *(9,), 0.125, *(2, -1, 0.5), *(0, 1, -1)]
    drawn = {
        "characters": [-1, 1, -1],
        "gates0": [-1],
        "state0": [-1],
        "logits": [1, 1, -1],
    }
    signs = {name: np.array([[e]], np.float32) for name, e in drawn.items()}
    windows = np.array([[[1]], [[2]]], np.uint16)

    losses = Batch(config, np.array(numbers, np.float32), signs, windows).losses()

    h = math.tanh(0.5 + 0.125 - 0.25 * 1.5 * (1 + 1))
    s = 0.25 * (0.7 * -h + 0.7)
    logits = [2 * h + 0 + s, -h + 1 + s, 0.5 * h - 1 - s]
    expected = math.log(sum(map(math.exp, logits))) - logits[2]
    assert losses.tolist() == [[pytest.approx(expected, abs=1e-6)]]


def test_a_loss_of_an_rnn_that_has_begun_by_hand() -> None:
    config = one_unit(burn_in=1, scales="none")
    #          Wx0            Wh0   b0  Wo      bo
    numbers = [0.25, 0.5, 9, *(0.75,), 0.125, *(2, -1, 0.5), *(0, 1, -1)]
    drawn = {"characters": [1, 1, 1], "gates0": [-1], "state0": [-1]}
    drawn["logits"] = [1, 1, -1]
    signs = {name: np.array([[e]], np.float32) for name, e in drawn.items()}
    windows = np.array([[[0]], [[1]], [[2]]], np.uint16)

    losses = Batch(config, np.array(numbers, np.float32), signs, windows).losses()

    begun = math.tanh(0.25 + 0.125)
    h = math.tanh(0.5 + 0.125 + 0.75 * begun - 0.25 * (1 + 1 - begun))
    s = 0.25 * (1 - h)
    logits = [2 * h + 0 + s, -h + 1 + s, 0.5 * h - 1 - s]
    expected = math.log(sum(map(math.exp, logits))) - logits[2]
    assert losses.tolist() == [[pytest.approx(expected, abs=1e-6)]]


def test_a_loss_of_a_gru_by_hand() -> None:
    config = one_unit(model_type="gru")
    numbers = [
        *(9, 9, 9),  # Wx0: r z n of character 0, which is not read
        *(0.5, -0.5, 0.75),
        *(9, 9, 9),
        *(9, 9, 9),  # Wh0: the state is still 0
        *(0.125, 1, -0.25),  # b0
        0.375,  # bn0
        *(2, -1, 0.5),  # Wo
        *(0, 1, -1),  # bo
    ]
    drawn = {
        "characters": [-1, 1, -1],
        "gates0": [1, -1, -1],
        "state0": [1],
        "inner0": [-1],
        "logits": [-1, 1, 1],
    }
    signs = {name: np.array([[e]], np.float32) for name, e in drawn.items()}
    windows = np.array([[[1]], [[0]]], np.uint16)

    losses = Batch(config, np.array(numbers, np.float32), signs, windows).losses()

    noise = 0.25 * 1.5
    r = 1 / (1 + math.exp(-(0.5 + 0.125 + noise * 2)))
    z = 1 / (1 + math.exp(-(-0.5 + 1 - noise * 2)))
    n = math.tanh(0.75 - 0.25 - noise * 2 + r * (0.375 - noise))
    h = (1 - z) * n
    s = 0.25 * (0.7 * h + 0.7)
    logits = [2 * h - s, -h + 1 + s, 0.5 * h - 1 + s]
    expected = math.log(sum(map(math.exp, logits))) - logits[0]
    assert losses.tolist() == [[pytest.approx(expected, abs=1e-6)]]


# --- what the noise estimates ---------------------------------------------------------


def slope(config: Config, weights: Floats, window: list[int]) -> list[float]:
    """Return the gradient of the loss of one window by central differences."""
    flat, step, result = weights.astype(np.float64), 1e-5, []
    for i in range(len(flat)):
        sides = []
        for sign in (1, -1):
            moved = flat.copy()
            moved[i] += sign * step
            w = reference.tensors_of(config, moved)
            sides.append(reference.window_loss(config, w, window))
        result.append((sides[0] - sides[1]) / (2 * step))
    return result


@pytest.mark.parametrize(
    ("model_type", "n_layers"), [("rnn", 1), ("rnn", 2), ("gru", 1)]
)
def test_over_all_signs_the_estimate_is_the_gradient_and_varies_as_full_noise_does(
    model_type: str, n_layers: int
) -> None:
    some = batch(
        groups=1,
        model_type=model_type,
        n_layers=n_layers,
        hidden_size=1,
        vocab_size=3,
        sigma=0.02,
    )
    sizes = reference.bundles_of(some.config)
    written = {outputs for _, outputs in reference.joins_of(some.config).values()}
    patterns = np.array(list(product([-1, 1], repeat=sum(sizes.values()))))
    parts = np.split(patterns, np.cumsum(list(sizes.values()))[:-1], axis=1)
    drawn = dict(zip(sizes, parts, strict=True))

    def losses(side: int) -> Floats:
        signs = {
            name: (side * e if name in written else e)[None].astype(np.float32)
            for name, e in drawn.items()
        }
        return dataclasses.replace(some, signs=signs).losses()

    changes = (losses(1).astype(np.float64) - losses(-1))[0] / 2 / 0.02

    flat = slope(some.config, some.weights, some.windows[:, 0, 0].tolist())
    gradient = np.array(flat) * reference.units_of(some.config)
    rows = [
        reference.rank_one(some.config, dict(zip(sizes, signs, strict=True))).values()
        for signs in zip(*(part.tolist() for part in parts), strict=True)
    ]
    e = np.array([[sign for tensor in row for sign in tensor] for row in rows])
    assert (changes[:, None] * e).mean(axis=0) == pytest.approx(gradient, abs=1e-3)
    assert (changes**2).mean() == pytest.approx(gradient @ gradient, rel=5e-3)


@pytest.mark.parametrize("n_layers", [1, 2])
def test_over_all_signs_the_estimate_by_shaped_noise_is_the_gradient_preconditioned(
    n_layers: int,
) -> None:
    # R = [[1, 0], [1/2, 2]], so that R^T R = [[1.25, 1], [1, 4]].
    shape, twice = np.array([[1, 0], [0.5, 2]]), np.array([[1.25, 1], [1, 4]])
    some = batch(groups=1, n_layers=n_layers, hidden_size=2, vocab_size=3, sigma=0.01)
    sizes = reference.bundles_of(some.config)
    joins = reference.joins_of(some.config)
    patterns = np.array(list(product([-1.0, 1], repeat=sum(sizes.values()))))
    parts = np.split(patterns, np.cumsum(list(sizes.values()))[:-1], axis=1)
    drawn = {
        name: part @ shape if name.startswith("state") else part
        for name, part in zip(sizes, parts, strict=True)
    }
    written = {outputs for _, outputs in joins.values()}

    def losses(side: int) -> Floats:
        signs = {
            name: (side * e if name in written else e)[None].astype(np.float32)
            for name, e in drawn.items()
        }
        return dataclasses.replace(some, signs=signs).losses()

    changes = (losses(1).astype(np.float64) - losses(-1))[0] / 2 / 0.01

    flat = slope(some.config, some.weights, some.windows[:, 0, 0].tolist())
    for name, gradient in reference.tensors_of(some.config, flat).items():
        inputs, outputs = joins[name]
        if inputs is None:
            found = changes @ drawn[outputs]
        else:
            found = np.einsum("t,ti,tj->ij", changes, drawn[inputs], drawn[outputs])
        shaped = inputs is not None and inputs.startswith("state")
        expected = twice @ gradient if shaped else gradient
        expected = reference.scale_of(some.config, name) * expected
        assert found / len(changes) == pytest.approx(expected, abs=1e-2), name


# --- clean copies ---------------------------------------------------------------------

CHANGES = pytest.mark.parametrize(
    ("change", "safely"),
    [(lambda some: some, False), (large_output, True), (large_shift, True)],
    ids=["fast", "large output", "large shift"],
)


@EVERY
@pytest.mark.parametrize("batch_size", [1, 3])
@CHANGES
def test_clean_copies_have_the_clean_loss(
    model_type: str,
    n_layers: int,
    batch_size: int,
    change: Any,
    safely: bool,
    scored: Counter[str],
) -> None:
    some = change(
        batch(model_type=model_type, n_layers=n_layers, batch_size=batch_size)
    )
    setting = Setting(some.config, "0" * 64)

    clean = some.losses()[:, -1]

    expected = [
        clean_loss(setting, some.weights, [some.windows[:, group]])
        for group in range(GROUPS)
    ]
    assert_close(clean, expected, 1e-6)
    assert scored["_score_safely"] == 5 * safely


@BOTH
@pytest.mark.parametrize("batch_size", [1, 3])
@CHANGES
def test_rows_without_signs_are_clean_to_the_bit(
    model_type: str,
    batch_size: int,
    change: Any,
    safely: bool,
    scored: Counter[str],
) -> None:
    some = change(
        batch(
            model_type=model_type,
            n_layers=2,
            batch_size=batch_size,
            directions_per_window=5,
        )
    )
    for e in some.signs.values():
        e[:, [0, 3]] = 0
    nothing = {name: np.zeros_like(e) for name, e in some.signs.items()}

    losses = some.losses()
    clean = dataclasses.replace(some, signs=nothing).losses()

    assert losses[:, [0, 3, 5]].tobytes() == clean[:, [0, 3, 5]].tobytes()
    assert (losses[:, [1, 2, 4]] != clean[:, [1, 2, 4]]).all()
    assert scored["_score_safely"] == 2 * 5 * safely


@BOTH
def test_the_loss_of_a_row_without_signs_does_not_depend_on_sigma(
    model_type: str,
) -> None:
    some = batch(model_type=model_type)

    tiny, wide = (changed(some, sigma=sigma).losses() for sigma in (1e-6, 0.3))

    assert tiny[:, -1].tobytes() == wide[:, -1].tobytes()
    assert (tiny[:, :-1] != wide[:, :-1]).all()


# --- independence ---------------------------------------------------------------------


@BOTH
def test_a_copy_does_not_depend_on_the_signs_of_others(model_type: str) -> None:
    some, other = (
        batch(model_type=model_type, n_layers=2, directions_per_window=4)
        for _ in (1, 2)
    )
    for e in other.signs.values():
        e[:, 1] *= -1

    mine, theirs = some.losses(), other.losses()

    assert mine[:, [0, 2, 3, 4]].tobytes() == theirs[:, [0, 2, 3, 4]].tobytes()
    # (-a) (-b)^T is a b^T: only the biases moved, and so did the losses
    assert (mine[:, 1] != theirs[:, 1]).all()


@BOTH
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_group_alone_has_the_losses_that_it_has_in_a_batch(
    model_type: str, batch_size: int
) -> None:
    some = batch(groups=3, model_type=model_type, batch_size=batch_size)
    losses = some.losses()

    for group in range(3):
        place = slice(group, group + 1)
        alone = dataclasses.replace(
            some,
            signs={name: e[place] for name, e in some.signs.items()},
            windows=some.windows[:, place],
        )
        assert_close(alone.losses(), losses[place], 1e-6)


@BOTH
def test_the_loss_of_a_copy_is_the_mean_over_its_windows(model_type: str) -> None:
    some = batch(model_type=model_type, batch_size=3)

    single = [
        dataclasses.replace(some, windows=some.windows[:, :, w : w + 1]).losses()
        for w in range(3)
    ]

    assert_close(some.losses(), np.mean(single, axis=0), 1e-6)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_signs_of_characters_that_are_not_read_change_nothing(batch_size: int) -> None:
    some, other = (batch(batch_size=batch_size) for _ in (1, 2))
    for group in range(GROUPS):
        read = set(some.windows[:-1, group].ravel().tolist())
        unread = [c for c in range(9) if c not in read]
        assert unread
        other.signs["characters"][group][:, unread] = 0

    assert some.losses().tobytes() == other.losses().tobytes()


@BOTH
def test_sides_of_a_pair_change_places_with_their_signs(model_type: str) -> None:
    some = batch(model_type=model_type, directions_per_window=0, n_layers=2)
    turned = {name: e[:, ::-1] for name, e in some.signs.items()}

    losses = dataclasses.replace(some, signs=turned).losses()

    assert_close(losses[:, ::-1], some.losses(), 1e-6)


# --- repetition -----------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("batch_size", [1, 3])
@CHANGES
def test_the_same_batch_gives_the_same_bits_and_stays_as_it_was(
    model_type: str,
    batch_size: int,
    change: Any,
    safely: bool,
    scored: Counter[str],
) -> None:
    some, untouched = (
        change(batch(model_type=model_type, n_layers=2, batch_size=batch_size))
        for _ in (1, 2)
    )
    for array in (some.weights, some.windows, *some.signs.values()):
        array.flags.writeable = False

    population = some.population()
    losses = [population.losses().tobytes() for _ in (1, 2)]
    losses.append(some.losses().tobytes())

    assert len(set(losses)) == 1
    assert scored["_score_safely"] == 3 * 5 * safely
    assert some.weights.tobytes() == untouched.weights.tobytes()
    assert some.windows.tobytes() == untouched.windows.tobytes()
    for name, e in some.signs.items():
        assert e.tobytes() == untouched.signs[name].tobytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_tokens_of_any_width_have_the_same_losses(dtype: Any) -> None:
    some = batch(batch_size=2)
    other = dataclasses.replace(some, windows=some.windows.astype(dtype))

    assert other.losses().tobytes() == some.losses().tobytes()


@BOTH
def test_signs_may_be_part_of_a_larger_array(model_type: str) -> None:
    some = batch(model_type=model_type, n_layers=2)
    parts = {}
    for name, e in some.signs.items():
        wide = np.full((*e.shape[:2], e.shape[2] + 3), np.nan, np.float32)
        wide[..., 1:-2] = e
        parts[name] = wide[..., 1:-2]

    losses = dataclasses.replace(some, signs=parts).losses()

    assert losses.tobytes() == some.losses().tobytes()


# --- the bounds of the fast way -------------------------------------------------------


def at_the_bounds(model_type: str, seed: int) -> Batch:
    """Return a batch whose logits and output noise are as large as is still safe.

    The bias drives the state of an RNN to 1 and -1; signs alike add up to 4.
    """
    some = batch(seed=seed, model_type=model_type, directions_per_window=8)
    draw = np.random.default_rng(seed)
    bo = draw.uniform(-9, -1, 9)
    wo = draw.standard_normal((4, 9))
    wo *= (LARGE - np.abs(bo).max()) / np.abs(wo).sum(axis=0)
    b0 = np.zeros(12 if model_type == "gru" else 4)
    b0[-4:] = 7, -7, 7, -7
    some.signs["state0"][:, ::2] = 1, -1, 1, -1
    return changed(some, sigma=SAFE_SHIFT / 5, Wo=wo, bo=bo, b0=b0)


@BOTH
@pytest.mark.parametrize("seed", range(12))
def test_losses_are_exact_up_to_the_bounds(
    model_type: str, seed: int, scored: Counter[str]
) -> None:
    some = at_the_bounds(model_type, seed)

    losses = some.losses()

    assert_close(losses, some.expected())
    assert losses.max() > 20
    assert scored == FAST


def test_characters_of_a_hundred_nats_are_still_safe(scored: Counter[str]) -> None:
    wo = np.full((4, 9), 14.0)
    wo[1::2] = -14
    wo[:, 3] *= -1
    some = changed(at_the_bounds("rnn", 0), Wo=wo, bo=0)
    some.windows[:] = 3  # logits of -56 among those of 56

    losses = some.losses()

    assert losses.min() > 100  # float32 holds e^88
    assert_close(losses, some.expected(), 1e-6)
    assert scored == FAST


def in_state_one(wo: Any, bo: Any) -> Batch:
    """Return a batch whose states are 1 and which reads nothing but character 5."""
    some = changed(batch(), sigma=0.001, Wx0=0, Wh0=0, b0=20, Wo=wo, bo=bo)
    some.windows[:] = 5
    return some


@pytest.mark.parametrize(
    ("chosen", "others", "bias", "path"),
    [
        (88, 0, 0, FAST),
        (89, 0, 0, LATE),
        (0, 88, 0, LATE),  # one alone is inside, the sum is not
        (-87, 0, 0, FAST),
        (-88, 0, 0, LATE),
        (-60, -60, 0, FAST),  # the sum is 8e-26
        (-65, -65, 0, LATE),  # 5e-28
        (0, 0, 88, SAFE),
        (0, 0, -88, SAFE),
        (0, 0, 86, FAST),
        (45, 0, 45, LATE),
        (-45, 0, -45, FAST),  # what is chosen is taken without its bias
    ],
)
def test_logits_are_safe_as_long_as_their_exponentials_are(
    chosen: float,
    others: float,
    bias: float,
    path: dict[str, int],
    scored: Counter[str],
) -> None:
    wo = np.full((4, 9), others / 4)
    wo[:, 5] = chosen / 4
    some = in_state_one(wo, bias)

    losses = some.losses()

    assert_close(losses, some.expected())
    assert scored == path


@pytest.mark.parametrize(
    ("chosen", "other", "path"),
    [
        ((-30, 0), (-116, 86), LATE),  # e^-116 is nothing, and would be e^-30
        ((-50, 0), (-107, 57), LATE),
        ((-56, 0), (-96, 40), LATE),
        ((0, 0), (-20, 20), FAST),
        ((85, -104), (0, 0), SAFE),  # e^-104 is nothing, and would be e^-19
        ((80, -86), (0, -6), FAST),
    ],
)
def test_a_bias_may_make_up_for_what_is_too_small(
    chosen: tuple[float, float],
    other: tuple[float, float],
    path: dict[str, int],
    scored: Counter[str],
) -> None:
    wo, bo = np.full((4, 9), -50.0), np.zeros(9)
    for place, (logit, bias) in ((5, chosen), (2, other)):
        wo[:, place], bo[place] = logit / 4, bias
    some = in_state_one(wo, bo)

    losses = some.losses()

    assert_close(losses, some.expected())
    assert scored == path


@pytest.mark.parametrize(
    ("side", "sigma", "path"),
    [(0, 4, FAST), (0, 4.5, LATE), (-1, 1.25, FAST), (-1, 1.5, LATE)],
)
def test_shifts_are_safe_up_to_their_bound_on_both_sides(
    side: int, sigma: float, path: dict[str, int], scored: Counter[str]
) -> None:
    some = batch(scales="none")
    some = changed(some, sigma=sigma, Wx0=0, Wh0=0, b0=20)  # the state is 1
    for e in some.signs.values():
        e[:] = 0
    some.signs["state0"][:] = side  # s = sigma (1 + 4 side): sigma, or -3 sigma

    losses = some.losses()

    assert SAFE_SHIFT == 4
    assert_close(losses, some.expected())
    assert scored == path


# --- extreme weights ------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("factor", [1e2, 1e3, 1e6, 1e30])
def test_extreme_weights_give_finite_losses(
    model_type: str, factor: float, scored: Counter[str]
) -> None:
    some = changed(batch(model_type=model_type, n_layers=2, batch_size=2), factor)

    losses = some.losses()

    assert np.isfinite(losses).all()
    assert losses.max() > factor / 10
    assert scored["_score_safely"] == 5
    if factor <= 1e3:  # beyond, rounding decides where large products cancel
        assert losses == pytest.approx(np.array(some.expected()), rel=1e-3)


@pytest.mark.parametrize("bias", [100, -100, 1e4, -1e4, 1e30, -1e30])
def test_any_output_bias_that_all_characters_share_is_without_effect(
    bias: float,
) -> None:
    losses = changed(batch(), Wo=0, bo=bias).losses()

    assert losses[:, -1].tolist() == pytest.approx([math.log(9)] * GROUPS, abs=1e-6)


@BOTH
def test_noise_as_large_as_a_configuration_allows_gives_finite_losses(
    model_type: str,
) -> None:
    some = changed(batch(model_type=model_type, n_layers=3), sigma=10)

    losses = some.losses()

    assert_close(losses, some.expected())

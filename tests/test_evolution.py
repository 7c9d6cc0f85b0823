"""Rewards by hand, sums in Python integers, and states that agree to the bit."""

import dataclasses
import hashlib
import math
import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import reference
from tests.messages import comparable
from tests.reference import (
    example_segments,
    example_setting,
    example_state,
    example_tokens,
    example_update,
    example_weights,
    silenced,
)
from utilities import evolution
from utilities.config import Config
from utilities.evolution import (
    Scores,
    Segment,
    Setting,
    TrainState,
    Update,
    advance,
    apply,
    chunk_groups,
    chunks,
    halves,
    initial_state,
    nodes_of,
    pieces,
    segment_seed,
    total,
    windows_of,
)
from utilities.losses import differences, mean_loss, shape, usable
from utilities.model import Tokens
from utilities.noise import Signs
from utilities.rewards import median, rewards, rewards_of
from utilities.scoring import clean_loss, score

Floats = NDArray[np.float32]
TOP = (1 << 64) - 1
FINGERPRINT = bytes(range(32))
ROOT = Path(__file__).parents[1]
VARIANTS: dict[str, dict[str, Any]] = {
    "rnn": {},
    "gru": {"model_type": "gru"},
    "deep": {"model_type": "gru", "n_layers": 3, "batch_size": 2},
    "sgd": {"optimizer": "sgd"},
    "full": {"noise": "full", "batch_size": 5},
    "antithetic": {"directions_per_window": 0, "batch_size": 3},
    "full pairs": {"noise": "full", "directions_per_window": 0, "model_type": "gru"},
    "betas": {"beta1": 0.0, "beta2": 0.999, "directions_per_window": 1},
    "plain": {"whitening": "none"},
    "plain deep": {
        "whitening": "none",
        "model_type": "gru",
        "n_layers": 3,
        "batch_size": 2,
    },
}


@pytest.fixture(params=VARIANTS)
def setting(request: pytest.FixtureRequest) -> Setting:
    """Give each kind of run in turn."""
    return example_setting(**VARIANTS[request.param])


def scores_of(losses: Sequence[float], clean: Sequence[float] = ()) -> Scores:
    return Scores(np.array(losses, np.float32), np.array(clean, np.float32))


# --- setting --------------------------------------------------------------------------


def test_a_setting_lays_the_model_out_once() -> None:
    setting = example_setting()

    assert setting.layout is setting.layout
    assert setting.network.layout is setting.layout
    assert setting.noise is setting.noise


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
def test_noise_is_drawn_for_bundles_and_full_noise_for_each_weight(
    model_type: str,
) -> None:
    low, full = (
        example_setting(model_type=model_type, noise=noise, n_layers=2)
        for noise in ("lowRank", "full")
    )
    bundles, shapes = (
        reference.bundles_of(low.config),
        reference.shapes_of(low.config),
    )

    assert (low.full, full.full) == (False, True)
    assert low.noise.signs_per_trial == sum(bundles.values())
    assert full.noise.signs_per_trial == full.layout.size == low.layout.size
    assert list(low.noise.signs(1, 0, 1)) == list(bundles)
    assert list(full.noise.signs(1, 0, 1)) == list(shapes)


def test_a_settings_fingerprint_covers_keys_and_text() -> None:
    config = Config(vocab_size=65)

    assert Setting(config, "abc").fingerprint == config.fingerprint("abc")
    assert Setting(config, "abd").fingerprint != config.fingerprint("abc")


PAIRS = {"directions_per_window": 0}


@pytest.mark.parametrize(
    ("keys", "groups"),
    [
        ({}, 64),
        ({"batch_size": 2}, 32),
        ({"batch_size": 3}, 21),  # 1,008 rows
        ({"directions_per_window": 512}, 2),
        ({"directions_per_window": 513}, 1),
        ({"directions_per_window": 1024, "batch_size": 1024}, 1),
        # Two rows a group: both of a pair, or one and the clean weights.
        (PAIRS, 512),
        (PAIRS | {"batch_size": 2}, 256),
        (PAIRS | {"noise": "full"}, 512),
        ({"directions_per_window": 1}, 512),
    ],
)
def test_a_forward_batch_of_a_narrow_model_has_a_thousand_rows(
    keys: dict[str, Any], groups: int
) -> None:
    setting = example_setting(**{"directions_per_window": 16} | keys)

    assert setting.block_groups == groups


@pytest.mark.parametrize(
    ("model_type", "hidden_size", "n_layers", "groups"),
    [
        ("rnn", 192, 1, 64),
        ("rnn", 193, 1, 32),
        ("rnn", 96, 2, 64),
        ("rnn", 97, 2, 32),
        ("rnn", 12, 16, 64),
        ("rnn", 13, 16, 32),
        ("gru", 64, 1, 64),  # three gates of 64
        ("gru", 65, 1, 32),
        ("gru", 32, 2, 64),
        ("gru", 33, 2, 32),
        ("gru", 256, 2, 32),
    ],
)
def test_a_forward_batch_of_a_wide_model_has_half_as_many(
    model_type: str, hidden_size: int, n_layers: int, groups: int
) -> None:
    size = {"hidden_size": hidden_size, "n_layers": n_layers}
    keys = {"model_type": model_type, "directions_per_window": 16} | size

    assert example_setting(**keys).block_groups == groups
    assert example_setting(**keys, batch_size=2).block_groups == groups // 2
    assert example_setting(**keys | PAIRS).block_groups == 8 * groups


@pytest.mark.parametrize("hidden_size", [4, 192, 193])
def test_a_block_of_a_step_of_fixed_size_has_as_few_whatever_the_model(
    hidden_size: int,
) -> None:
    keys = {"trials_per_step": 1 << 14, "hidden_size": hidden_size}
    sixteen = keys | {"directions_per_window": 16}

    assert example_setting(**sixteen).block_groups == 32
    assert example_setting(**sixteen, batch_size=2).block_groups == 16
    assert example_setting(**sixteen, batch_size=33).block_groups == 1
    assert example_setting(**sixteen, model_type="gru").block_groups == 32
    assert example_setting(**keys | PAIRS).block_groups == 256


# --- state ----------------------------------------------------------------------------


def test_a_run_starts_at_its_step_with_empty_moments() -> None:
    setting = example_setting(step_num=40)
    frequencies = np.linspace(-3, -1, 9, dtype=np.float32)

    state = initial_state(setting, 5, frequencies)

    assert (state.step, state.count) == (40, 0)
    assert setting.layout.views(state.weights)["bo"].tolist() == frequencies.tolist()
    assert not state.first.any()
    assert not state.second.any()
    assert not np.shares_memory(state.first, state.second)
    again = initial_state(setting, 5, frequencies)
    assert state.digest(FINGERPRINT) == again.digest(FINGERPRINT)


def test_the_arrays_of_a_state_are_read_only() -> None:
    setting = example_setting()
    tokens = example_tokens(setting.config)
    before = initial_state(setting, 5, np.zeros(9, np.float32))

    after = advance(
        setting, before, example_update(setting, 0, [Segment(1, 0, 2)]), tokens
    )

    for array in (*before.arrays, *after.arrays):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def small_state(**changes: Any) -> TrainState:
    fields: dict[str, Any] = {"step": 3, "count": 2}
    for start, name in enumerate(("weights", "first", "second")):
        fields[name] = np.arange(start, start + 4, dtype=np.float32)
    return TrainState(**(fields | changes))


def test_the_digest_by_hand() -> None:
    content = struct.pack("<Q32sQQ", 1, FINGERPRINT, 3, 2)
    content += struct.pack("<12f", 0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5)

    assert small_state().digest(FINGERPRINT) == hashlib.sha256(content).digest()


def test_the_digest_covers_step_count_and_fingerprint() -> None:
    digests = {
        small_state().digest(FINGERPRINT),
        small_state(step=4).digest(FINGERPRINT),
        small_state(count=3).digest(FINGERPRINT),
        small_state(step=2, count=3).digest(FINGERPRINT),
        small_state().digest(bytes(32)),
    }

    assert len(digests) == 5


def test_the_digest_of_a_state_with_a_mean_by_hand() -> None:
    content = struct.pack("<Q32sQQ", 1, FINGERPRINT, 3, 2)
    content += struct.pack("<16f", 0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4, 5, 9, 8, 7, 6)
    state = small_state(average=np.array([9, 8, 7, 6], np.float32))

    assert state.digest(FINGERPRINT) == hashlib.sha256(content).digest()


@pytest.mark.parametrize("name", ["weights", "first", "second"])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize("bit", [0, 15, 31])
def test_the_digest_covers_each_bit_of_each_array(
    name: str, place: int, bit: int
) -> None:
    changed = getattr(small_state(), name).copy()
    changed.view(np.uint32)[place] ^= np.uint32(1 << bit)

    other = small_state(**{name: changed})

    assert other.digest(FINGERPRINT) != small_state().digest(FINGERPRINT)


def test_the_digest_ignores_how_an_array_lies_in_memory() -> None:
    strided = np.repeat(np.arange(4, dtype=np.float32), 2)[::2]
    swapped = np.arange(1, 5).astype(">f4")

    other = small_state(weights=strided, first=swapped)

    assert other.digest(FINGERPRINT) == small_state().digest(FINGERPRINT)


# --- seeds, windows and signs ---------------------------------------------------------


@pytest.mark.parametrize("run_seed", [0, 7, TOP])
def test_a_seed_is_the_start_of_the_hash_of_run_step_and_slot(run_seed: int) -> None:
    content = b"".join(n.to_bytes(8, "little") for n in (run_seed, 1 << 40, 3))
    start = hashlib.sha256(content).digest()[:8]

    seed = segment_seed(run_seed, 1 << 40, 3)

    assert seed == sum(byte << 8 * i for i, byte in enumerate(start))


def test_seeds_never_change() -> None:
    seeds = [segment_seed(*place) for place in ((0, 0, 0), (1, 2, 3), (TOP, 9, 0))]

    assert [f"{seed:016x}" for seed in seeds] == [
        "de56b2b6cf8e909d",
        "689de1e73a03e2e2",
        "21873a24b86f5194",
    ]


def test_each_slot_of_each_step_has_a_seed_of_its_own() -> None:
    places = product((1, 2), range(20), range(20))

    assert len({segment_seed(*place) for place in places}) == 800


def test_windows_are_those_of_the_reference(setting: Setting) -> None:
    tokens = example_tokens(setting.config)

    windows = windows_of(setting, tokens, Segment(TOP, 6, 4))

    length = 6 if setting.full else 2 + 6
    assert windows.shape == (length, 4, setting.config.batch_size)
    for group in range(4):
        expected = reference.group_windows(
            setting.config, tokens.tolist(), TOP, 6 + group
        )
        assert windows[:, group].T.tolist() == expected


@pytest.mark.parametrize("variant", ["rnn", "gru", "deep", "antithetic"])
def test_only_characters_that_a_group_reads_have_signs_all_else_is_as_drawn(
    variant: str,
) -> None:
    setting = example_setting(**VARIANTS[variant])
    each, segment = setting.config.passes_per_group, Segment(TOP, 6, 20)
    windows = windows_of(setting, example_tokens(setting.config), segment)

    signs = silenced(setting, windows, segment)

    drawn = setting.noise.signs(TOP, 6 * each, 20 * each)
    assert list(signs) == list(drawn)
    a, as_drawn = signs.pop("characters"), drawn.pop("characters")
    silent = 0
    for trial, row in enumerate(a):
        read = sorted(set(windows[2:-1, trial // each].ravel().tolist()))
        assert np.flatnonzero(row).tolist() == read
        assert (row[read] == as_drawn[trial, read]).all()
        silent += 9 - len(read)
    assert silent > 0
    for name, part in signs.items():
        assert part.tobytes() == drawn[name].tobytes()


def test_a_character_that_is_only_predicted_is_not_read() -> None:
    keys = {"sequence_length": 2, "vocab_size": 4, "burn_in": 0}
    setting = example_setting(**keys, directions_per_window=1)
    windows = np.array([[[0]], [[1]], [[2]]])  # 2 is the last target

    a = silenced(setting, windows, Segment(1, 0, 1))["characters"]

    assert np.abs(a).tolist() == [[1, 1, 0, 0]]


def test_a_character_that_only_the_clean_weights_read_is_not_read_by_a_trial() -> None:
    keys = {"sequence_length": 2, "vocab_size": 6, "burn_in": 2}
    setting = example_setting(**keys, directions_per_window=1)
    windows = np.array([[[4]], [[1]], [[0]], [[1]], [[2]]])

    a = silenced(setting, windows, Segment(1, 0, 1))["characters"]

    assert np.abs(a).tolist() == [[1, 1, 0, 0, 0, 0]]


@pytest.mark.parametrize("variant", ["full", "full pairs"])
def test_full_noise_is_on_all_weights(variant: str) -> None:
    setting = example_setting(**VARIANTS[variant])
    segment = Segment(TOP, 6, 5)
    windows = windows_of(setting, example_tokens(setting.config), segment)

    signs = silenced(setting, windows, segment)

    assert sum(part.shape[1] for part in signs.values()) == setting.layout.size
    assert all(np.unique(part).tolist() == [-1, 1] for part in signs.values())


def test_signs_of_a_group_alone_are_those_within_a_segment(setting: Setting) -> None:
    each, tokens = setting.config.passes_per_group, example_tokens(setting.config)

    def drawn(segment: Segment) -> Signs:
        return silenced(setting, windows_of(setting, tokens, segment), segment)

    many = drawn(Segment(TOP, 6, 4))
    for group in range(4):
        alone = drawn(Segment(TOP, 6 + group, 1))
        assert list(alone) == list(many)
        for name, part in alone.items():
            share = many[name][group * each : (group + 1) * each]
            assert part.tobytes() == share.tobytes()


# --- scores ---------------------------------------------------------------------------


def test_scores_have_a_loss_for_each_trial_and_a_clean_one_for_each_group() -> None:
    shared, pairs = example_setting(), example_setting(directions_per_window=0)
    joint = example_setting(output_trials="none")
    sizes = []
    for setting in (shared, pairs, joint):
        weights = example_weights(setting.layout.size)
        scores = score(
            setting, weights, example_tokens(setting.config), Segment(3, 5, 4)
        )
        sizes.append((scores.losses.shape, scores.clean.shape))

    assert sizes == [((24,), (4,)), ((8,), (0,)), ((12,), (4,))]


def test_losses_are_those_of_the_reference_in_order(setting: Setting) -> None:
    config, tokens = setting.config, example_tokens(setting.config)
    weights, each = example_weights(setting.layout.size), config.trials_per_group
    steps = (1,) if config.directions_per_window else (1, -1)

    losses = score(setting, weights, tokens, Segment(TOP, 5, 2)).losses

    expected = [
        reference.trial_loss(
            config, weights, tokens.tolist(), TOP, trial, sign * config.sigma
        )
        for trial in range(5 * each, 7 * each)
        for sign in steps
    ]
    assert losses.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("sigma", [0.1, 9.0])  # of which one moves logits too far
@pytest.mark.parametrize("keys", [{}, {"n_layers": 2, "batch_size": 3}])
def test_output_trials_are_those_of_the_reference(
    keys: dict[str, Any], sigma: float
) -> None:
    setting = example_setting(**keys, sigma=sigma)
    config, tokens = setting.config, example_tokens(setting.config)
    weights, each = example_weights(setting.layout.size), config.trials_per_group

    scores = score(setting, weights, tokens, Segment(TOP, 5, 2))

    expected = [
        reference.trial_loss(config, weights, tokens.tolist(), TOP, trial, sigma)
        for trial in range(5 * each, 7 * each)
    ]
    assert scores.losses.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_loss_of_unperturbed_weights_counts_each_character_once() -> None:
    setting = example_setting(vocab_size=3)
    flat = np.zeros(setting.layout.size, np.float32)
    setting.layout.views(flat)["bo"][:] = np.log([1, 2, 5])
    rows = [np.array([[0, 1], [2, 2], [1, 0]]), np.array([[0], [0]])]

    loss = clean_loss(setting, flat, rows)

    targets = [8 / 5, 8 / 2, 8 / 5, 8 / 1, 8 / 1]
    assert loss == pytest.approx(sum(map(math.log, targets)) / 5, abs=1e-6)


@pytest.mark.parametrize("loss", [0.0, 3.5, 100.0])
def test_believable_losses_are_usable(loss: float) -> None:
    assert usable(scores_of([1, loss], [2]))
    assert usable(scores_of([1, 2], [loss]))
    assert usable(scores_of([loss, 2]))


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 101, 100.001, -101])
def test_one_unbelievable_loss_makes_a_segment_unusable(loss: float) -> None:
    assert not usable(scores_of([1, loss], [2]))
    assert not usable(scores_of([1, 2], [3, loss]))


def test_changes_are_against_the_clean_loss_of_the_group() -> None:
    setting = example_setting(directions_per_window=1)

    changes = differences(setting, scores_of([3, 4, 5, 7], [2.5, 6]))

    assert changes.tolist() == [0.5, 1.5, -1, 1]
    assert changes.dtype == np.float64


def test_changes_of_antithetic_pairs_are_half_the_difference() -> None:
    setting = example_setting(directions_per_window=0)

    changes = differences(setting, scores_of([3, 1, 2, 5]))

    assert changes.tolist() == [1, -1.5]
    assert changes.dtype == np.float64


def test_changes_are_not_rounded_to_float32() -> None:
    setting = example_setting(directions_per_window=1)
    small = float(np.float32(1e-9))

    changes = differences(setting, scores_of([small, 1], [1]))

    assert changes.tolist() == [small - 1, 0]


def test_the_loss_of_a_step_is_that_of_the_weights_themselves() -> None:
    shared, pairs = example_setting(), example_setting(directions_per_window=0)
    several = [scores_of([9, 9, 9], [1]), scores_of([9] * 6, [2, 6])]

    assert mean_loss(shared, several) == 3
    assert mean_loss(pairs, [scores_of([1, 2]), scores_of([3, 4, 5, 9])]) == 4
    assert mean_loss(shared, []) is None


# --- rewards --------------------------------------------------------------------------


def test_rewards_by_hand() -> None:
    # median 3, MAD 1: 42 * 2 / 1.4826 = 56.66 and 42 / 1.4826 = 28.33
    shaped = rewards(np.array([3.0, 1, 5, 2, 4]))

    assert shaped is not None
    assert shaped.dtype == np.int8
    assert shaped.tolist() == [0, 57, -57, 28, -28]


def test_a_wild_change_is_clipped_and_silences_no_other() -> None:
    shaped = rewards(np.array([1e9, 2, 3, 4, -1e9]))

    assert shaped is not None
    assert shaped.tolist() == [-126, 28, 0, -28, 126]


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60))
def test_a_median_is_that_of_numpy(values: list[float]) -> None:
    array = np.array(values)

    assert median(array) == np.median(array)
    assert array.tolist() == values


def test_rewards_do_not_change_the_losses_that_they_are_made_of() -> None:
    changes = np.array([3.0, 1, 5, 2, 4])

    rewards(changes)

    assert changes.tolist() == [3, 1, 5, 2, 4]


def test_rewards_of_an_even_number_of_changes_by_hand() -> None:
    # median 2.5, deviations 1.5 0.5 0.5 7.5: MAD 1; 42 * 0.5 / 1.4826 = 14.16
    shaped = rewards(np.array([1.0, 2, 3, 10]))

    assert shaped is not None
    assert shaped.tolist() == [42, 14, -14, -126]


@pytest.mark.parametrize("changes", [[2.0], [1.0, 1, 1], [5.0, 0, 0, 0, -9]])
def test_there_are_no_rewards_where_most_changes_are_alike(
    changes: list[float],
) -> None:
    assert rewards(np.array(changes)) is None


CHANGES = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=40)


@given(CHANGES)
@settings(deadline=None)
def test_rewards_are_those_of_plain_python(changes: list[float]) -> None:
    shaped = rewards(np.array(changes, np.float64))

    assert (None if shaped is None else shaped.tolist()) == reference.rewards(changes)


@given(CHANGES)
@settings(deadline=None)
def test_rewards_fall_as_the_loss_rises_and_stay_in_range(
    changes: list[float],
) -> None:
    array = np.array(changes, np.float64)
    before = array.copy()
    shaped = rewards(array)

    assert (array == before).all()
    if shaped is not None:
        by_change = shaped[np.argsort(array)].tolist()
        assert by_change == sorted(by_change, reverse=True)
        assert all(-126 <= reward <= 126 for reward in by_change)


# --- the update -----------------------------------------------------------------------


def scored_segments(setting: Setting) -> list[tuple[Segment, Scores]]:
    """Return segments in ascending order with made-up losses."""
    each = setting.config.directions_per_window
    draw = random.Random(4)
    scored = []
    for segment in (Segment(1, 0, 2), Segment(1, 2, 1), Segment(7, 0, 3)):
        count = segment.groups * (setting.config.trials_per_group if each else 2)
        losses = [draw.uniform(2, 4) for _ in range(count)]
        clean = [draw.uniform(2, 4) for _ in range(segment.groups if each else 0)]
        scored.append((segment, scores_of(losses, clean)))
    return scored


def test_an_update_carries_rewards_of_all_segments_and_the_rate() -> None:
    keys: dict[str, Any] = {"learning_rate": 0.5, "decay": "100 seconds"}
    setting = example_setting(**keys, output_trials="none")
    scored = scored_segments(setting)

    update = shape(setting, 9, 4, scored, 50.0)

    changes = [
        float(change) for _, scores in scored for change in differences(setting, scores)
    ]
    assert (update.step, update.token_batch, update.trials) == (9, 4, 18)
    assert update.segments == tuple(segment for segment, _ in scored)
    assert update.rewards.dtype == np.int8
    assert update.rewards.tolist() == reference.rewards(changes)
    assert update.rate == pytest.approx(0.5 * 0.51 * math.sqrt(18 / 1024))


def test_rewards_of_output_trials_have_a_scale_of_their_own() -> None:
    setting = example_setting()
    scored = scored_segments(setting)

    update = shape(setting, 0, 0, scored, 0.0)

    changes = np.concatenate([differences(setting, scores) for _, scores in scored])
    inner, outer = changes.reshape(-1, 2, 3).swapaxes(0, 1)
    expected = np.empty((6, 2, 3), np.int8)
    for kind, each in enumerate((inner, outer)):
        shaped = reference.rewards(each.ravel().tolist())
        assert shaped is not None
        expected[:, kind] = np.reshape(shaped, (6, 3))
    assert update.trials == 36
    assert update.rewards.tolist() == expected.ravel().tolist()


@pytest.mark.parametrize("silent", [0, 1])
def test_a_kind_of_trials_that_do_not_differ_silences_not_the_other(
    silent: int,
) -> None:
    setting = example_setting()
    changes = np.arange(12.0).reshape(2, 2, 3)
    changes[:, silent] = 1

    shaped = rewards_of(setting.config, changes.ravel())

    assert shaped is not None
    kinds = shaped.reshape(2, 2, 3)
    assert not kinds[:, silent].any()
    assert kinds[:, 1 - silent].ravel().tolist() == reference.rewards(
        changes[:, 1 - silent].ravel().tolist()
    )


@pytest.mark.parametrize("variant", ["rnn", "antithetic"])
def test_an_update_does_not_depend_on_the_order_of_answers(variant: str) -> None:
    setting = example_setting(**VARIANTS[variant])
    scored = scored_segments(setting)
    expected = shape(setting, 0, 0, scored, 0.0)

    for seed in range(6):
        shuffled = random.Random(seed).sample(scored, len(scored))
        update = shape(setting, 0, 0, shuffled, 0.0)
        assert comparable(update) == comparable(expected)


@pytest.mark.parametrize("scored", [[], [(Segment(1, 0, 1), scores_of([2] * 6, [1]))]])
def test_an_update_without_rewards_has_no_trials(
    scored: list[tuple[Segment, Scores]],
) -> None:
    update = shape(example_setting(), 9, 4, scored, 0.0)

    assert (update.step, update.token_batch) == (9, 4)
    assert (update.trials, update.rate, update.segments) == (0, 0.0, ())
    assert update.rewards.tolist() == []


def test_segments_are_cut_into_pieces_by_hand() -> None:
    segments = [Segment(5, 10, 5), Segment(6, 0, 2)]

    cut = list(pieces(segments, 2))

    assert [(piece.seed, piece.first, piece.groups) for piece in cut] == [
        (5, 10, 2),
        (5, 12, 2),
        (5, 14, 1),
        (6, 0, 2),
    ]


@given(st.lists(st.integers(1, 30), max_size=5), st.integers(1, 40))
def test_pieces_hold_each_group_once_and_in_order(sizes: list[int], most: int) -> None:
    segments = [Segment(seed, 3, size) for seed, size in enumerate(sizes)]

    def groups(several: Sequence[Segment]) -> list[tuple[int, int]]:
        return [
            (s.seed, g) for s in several for g in range(s.first, s.first + s.groups)
        ]

    cut = list(pieces(segments, most))

    assert groups(cut) == groups(segments)
    assert all(1 <= piece.groups <= most for piece in cut)


def test_pieces_are_put_together_into_chunks_by_hand() -> None:
    segments = [Segment(5, 10, 5), Segment(6, 0, 1), Segment(7, 0, 1), Segment(8, 2, 2)]

    cut = list(chunks(segments, 3))

    assert cut == [
        [Segment(5, 10, 3)],
        [Segment(5, 13, 2), Segment(6, 0, 1)],
        [Segment(7, 0, 1), Segment(8, 2, 2)],
    ]


@given(st.lists(st.integers(1, 30), max_size=5), st.integers(1, 40))
def test_chunks_hold_all_pieces_in_order_and_never_too_many_groups(
    sizes: list[int], most: int
) -> None:
    segments = [Segment(seed, 3, size) for seed, size in enumerate(sizes)]

    cut = list(chunks(segments, most))

    assert [piece for chunk in cut for piece in chunk] == list(pieces(segments, most))
    assert all(1 <= sum(piece.groups for piece in chunk) <= most for chunk in cut)


def test_a_chunk_is_small_but_never_less_than_a_group() -> None:
    sixteen = {"directions_per_window": 16}
    few = example_setting(**sixteen, nodes="none")
    wide = example_setting(**sixteen, hidden_size=100)
    full = example_setting(
        directions_per_window=1024, noise="full", hidden_size=256, n_layers=5
    )

    assert few.noise.signs_per_trial == 9 + 4 + 4 + 9
    assert chunk_groups(few) == 2**20 // 26 // 16
    assert wide.by_nodes
    assert chunk_groups(wide) == 2**20 // 218 // 16  # the floats are what counts
    assert full.noise.signs_per_trial > 2**19
    assert chunk_groups(full) == 1


@pytest.mark.parametrize("directions", [0, 1, 3, 1000, 1024])
def test_a_chunk_is_within_the_bound_of_exact_sums_however_small_the_model(
    directions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evolution, "CHUNK_FLOATS", 1 << 60)
    each, keys = max(1, directions), {"directions_per_window": directions}

    groups = chunk_groups(example_setting(**keys))

    assert groups == 2**17 // each
    assert 126 * groups * each < 2**24


@pytest.mark.parametrize("directions", [0, 1, 16])
def test_by_nodes_a_chunk_of_many_places_has_fewer_groups(directions: int) -> None:
    keys = {"directions_per_window": directions, "sequence_length": 64}
    each = max(1, directions)

    groups = chunk_groups(example_setting(**keys))

    assert groups == 2**20 // (64 * (64 + each + 4 + 4))
    assert chunk_groups(example_setting(**keys, nodes="none")) > groups
    huge = example_setting(**keys, model_type="gru", hidden_size=4096, batch_size=1)
    assert chunk_groups(huge) == 1


# --- sums -----------------------------------------------------------------------------


def summed(
    setting: Setting, tokens: Tokens, update: Update, groups: int | None = None
) -> NDArray[np.int64]:
    nodes = nodes_of(setting, example_weights(setting.layout.size), tokens)
    about = setting, nodes, tokens
    return total(*about, update.segments, update.rewards, groups)


def test_sums_are_those_of_python_integers_for_any_chunks(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = example_tokens(setting.config)
    update = example_update(setting, 2, example_segments(2))
    weights = example_weights(setting.layout.size)
    expected = reference.total(setting.config, weights, tokens.tolist(), update)

    assert summed(setting, tokens, update).tolist() == expected
    for groups in (1, 2, 3, 1000):
        sums = summed(setting, tokens, update, groups)
        assert sums.dtype == np.int64
        assert sums.tolist() == expected
    monkeypatch.setattr(evolution, "CHUNK_FLOATS", 1)
    assert summed(setting, tokens, update).tolist() == expected


@pytest.mark.parametrize("sizes", [(1, 5), (2, 2, 2), (3, 3), (1,) * 6, (4, 2)])
def test_sums_are_the_same_for_any_split_of_a_segment(
    sizes: tuple[int, ...], setting: Setting
) -> None:
    tokens = example_tokens(setting.config)
    whole = example_update(setting, 0, [Segment(TOP, 10, 6)])
    starts = [10 + sum(sizes[:i]) for i in range(len(sizes))]
    parts = tuple(
        Segment(TOP, start, size) for start, size in zip(starts, sizes, strict=True)
    )

    weights = example_weights(setting.layout.size)
    about = setting, nodes_of(setting, weights, tokens), tokens
    split = total(*about, parts, whole.rewards)

    assert (split == summed(setting, tokens, whole)).all()


def test_summing_twice_gives_the_same_and_changes_no_input(setting: Setting) -> None:
    tokens = example_tokens(setting.config)
    update = example_update(setting, 0, example_segments(0))
    update.rewards.flags.writeable = False  # tokens are already

    assert (summed(setting, tokens, update) == summed(setting, tokens, update)).all()


# --- two halves -----------------------------------------------------------------------


def test_halves_by_hand() -> None:
    setting = example_setting(directions_per_window=1)
    segments = [Segment(5, 10, 3), Segment(6, 0, 1), Segment(7, 4, 2)]
    shaped = np.arange(12, dtype=np.int8)

    (first, some), (second, others) = halves(setting, segments, shaped)

    assert first == [Segment(5, 10, 2), Segment(7, 4, 1)]
    assert some.tolist() == [0, 1, 2, 3, 8, 9]
    assert second == [Segment(5, 12, 1), Segment(6, 0, 1), Segment(7, 5, 1)]
    assert others.tolist() == [4, 5, 6, 7, 10, 11]
    assert {some.dtype, others.dtype} == {np.dtype(np.int8)}


def test_halves_of_nothing_are_empty() -> None:
    parts = halves(example_setting(), [], np.zeros(0, np.int8))

    assert [(s, r.dtype.str, len(r)) for s, r in parts] == [([], "|i1", 0)] * 2


def test_clients_that_score_one_group_each_are_halved_too() -> None:
    setting = example_setting(directions_per_window=3, output_trials="none")
    segments = [Segment(seed, 0, 1) for seed in range(5)]
    shaped = np.arange(15, dtype=np.int8)

    (first, _), (second, others) = halves(setting, segments, shaped)

    assert [s.seed for s in first] == [0, 2, 4]
    assert [s.seed for s in second] == [1, 3]
    assert others.tolist() == [3, 4, 5, 9, 10, 11]


SEVERAL = st.lists(
    st.builds(Segment, st.integers(0, TOP), st.integers(0, 50), st.integers(1, 7)),
    max_size=5,
)


@given(SEVERAL, st.sampled_from([0, 1, 3]))
@settings(deadline=None)
def test_halves_hold_each_group_once_with_its_rewards_and_are_of_equal_size(
    segments: list[Segment], directions: int
) -> None:
    setting = example_setting(directions_per_window=directions)
    each = setting.config.trials_per_group
    groups = sum(segment.groups for segment in segments)
    shaped = (np.arange(groups * each) % 253 - 126).astype(np.int8)

    def rewarded(several: Sequence[Segment], rewards: Sequence[int]) -> list[Any]:
        cut = list(pieces(several, 1))
        assert len(rewards) == len(cut) * each
        shares = [tuple(rewards[i * each : (i + 1) * each]) for i in range(len(cut))]
        return [(s.seed, s.first, share) for s, share in zip(cut, shares, strict=True)]

    parts = [rewarded(s, r.tolist()) for s, r in halves(setting, segments, shaped)]

    whole = rewarded(segments, shaped.tolist())
    assert sorted(parts[0] + parts[1]) == sorted(whole)
    assert 0 <= len(parts[0]) - len(parts[1]) <= 1


@given(SEVERAL, st.sampled_from(sorted(VARIANTS)), st.integers(1, 9))
@settings(deadline=None, max_examples=60)
def test_halves_add_up_to_the_total_for_any_segments_and_chunks(
    segments: list[Segment], variant: str, groups: int
) -> None:
    setting = example_setting(**VARIANTS[variant])
    tokens, update = (
        example_tokens(setting.config),
        example_update(setting, 1, segments),
    )

    shares = [
        dataclasses.replace(update, segments=tuple(some), rewards=theirs)
        for some, theirs in halves(setting, segments, update.rewards)
    ]
    one, other = (summed(setting, tokens, each, groups) for each in shares)

    assert (one + other == summed(setting, tokens, update)).all()


# --- the next state -------------------------------------------------------------------


def reference_state(state: TrainState) -> reference.State:
    return reference.State(
        state.step,
        state.count,
        state.weights.tolist(),
        state.first.tolist(),
        state.second.tolist(),
        state.average.tolist(),
    )


def steps(
    setting: Setting, state: TrainState | None = None
) -> Iterator[tuple[TrainState, Update]]:
    """Yield three updates and the states after them."""
    tokens, state = example_tokens(setting.config), state or example_state(setting)
    for step in range(3):
        update = example_update(setting, step, example_segments(step))
        state = advance(setting, state, update, tokens)
        yield state, update


def test_states_have_the_bits_of_the_reference(setting: Setting) -> None:
    slow = reference_state(example_state(setting))
    tokens = example_tokens(setting.config).tolist()

    for state, update in steps(setting):
        slow.advance(setting.config, tokens, update)
        assert (state.step, state.count) == (slow.step, slow.count)
        assert state.weights.tolist() == slow.weights
        assert state.digest(FINGERPRINT) == slow.digest(FINGERPRINT)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_mean_of_the_weights_has_the_bits_of_the_reference(optimizer: str) -> None:
    setting = example_setting(optimizer=optimizer)
    start = averaging_state(setting)
    slow, tokens = reference_state(start), example_tokens(setting.config).tolist()

    for state, update in steps(setting, start):
        slow.advance(setting.config, tokens, update)
        assert state.average.tolist() == slow.average
        assert (slow.average == slow.weights) is (state.count == 1)
        assert state.digest(FINGERPRINT) == slow.digest(FINGERPRINT)
        assert state.trained is state.average


def averaging_state(setting: Setting) -> TrainState:
    """Return the state before the first step of a run that keeps a mean."""
    start = example_state(setting)
    return dataclasses.replace(start, average=start.weights.copy())


def test_a_mean_of_the_weights_changes_nothing_else() -> None:
    setting = example_setting()
    after = [state for state, _ in steps(setting)]
    averaged = [state for state, _ in steps(setting, averaging_state(setting))]

    for state, other in zip(after, averaged, strict=True):
        assert [a.tobytes() for a in state.arrays[:3]] == [
            a.tobytes() for a in other.arrays[:3]
        ]
        assert len(state.average) == 0
        assert state.trained is state.weights


@pytest.mark.parametrize("former", [True, False])
def test_bits_of_a_mean_are_for_ever(former: bool) -> None:
    setting = example_setting(**FORMER if former else {})
    *_, (state, _) = steps(setting, averaging_state(setting))

    expected = AVERAGED if former else AVERAGED_BY_NODES
    assert state.digest(FINGERPRINT).hex() == expected


@pytest.mark.parametrize(("averaging", "length"), [("auto", 4), ("none", 0)])
def test_a_state_fits_a_run_that_keeps_a_mean_or_none(
    averaging: str, length: int
) -> None:
    setting = example_setting(averaging=averaging)
    state = initial_state(setting, 5, np.zeros(9, np.float32))
    short = state.weights[1:].copy()

    assert (len(state.average) > 0) is (length > 0)
    assert state.fits(setting)
    for name in ("weights", "first", "second"):
        assert not dataclasses.replace(state, **{name: short}).fits(setting)
    other = short[:0] if length else state.weights
    for wrong in (short, other):
        assert not dataclasses.replace(state, average=wrong.copy()).fits(setting)


AVERAGED = "381edbc825fdbfcc7c567d1bcdd192cfcca68072d62296de9ee4d71ccce916d9"
AVERAGED_BY_NODES = "1192d95018d6ec9a603d168d4dd9d381347e216025aafd1ed7f404d2f2a66d02"
GOLDEN = {
    "rnn": "dcf1574d1a5e05fd02a0686478430ea609d0d094b2e64f1b39f382afb4171a1f",
    "gru": "92a8a1e7678da9442df72387aa0739dc8440e266d42c294ac2c231d2de4b3b07",
    "deep": "a76cdf403b5124af97e7f925666bf0b9d46865078f2287c8f9fda78a9a1d3c00",
    "sgd": "77cc267311cb7fbd887ff379dbac163ecf07e4c80efc276a5ce8109140e07867",
    "full": "f065c70b96e7a0e600a22fc446f398f718b1cd0639d0e3ad4120ce6343e8d76f",
    "antithetic": "8807cf6cd8ca284f6785ddb961d08aed94046328e3f054dbf8fac5ab42697fff",
    "full pairs": "33f5d02c899893455c7fd00a1db1818ea8b068098c697398aa6c16d986b7df0a",
    "betas": "cf4b2f95d48e492680028e4709c15249512190e7a43ef4cf2553fcc39bcdeb68",
    "plain": "dcf1574d1a5e05fd02a0686478430ea609d0d094b2e64f1b39f382afb4171a1f",
    "plain deep": "a76cdf403b5124af97e7f925666bf0b9d46865078f2287c8f9fda78a9a1d3c00",
}
SHAPED = {
    "rnn": "128ac1fed6195040dfa4ad63cfa339f05d60abf70a5c29aa1b30b2c72ef72508",
    "gru": "c559ccbbef9a0b5be542f4dbc3392f8c2ea6ae00c6d26e4cd5c12e1f3685472a",
    "deep": "688a7ae295f74710b95559e6d7cecf6b07a202e7d0b90f547d9cd56feb3a789e",
    "sgd": "255b1c03d23a5843071461f2a305fac100b78775b7e7ebceab48fc8746aab44b",
    "antithetic": "9b36e8fb08ca509b673ea4a43c67bd0df6b47af2ffee74abe616b99378a9f57c",
    "betas": "cf20e09421de34cc7e81f0efeae7ab6b1274faca4a5c983025fe0abf5f6a4d73",
}
SCALED = {
    "rnn": "901cf6a9662eefc35ef5352ff3540b23d994229223fe69bebaddf81fc6f369ad",
    "gru": "37dfc2cc12124816ccc1a0334d37dc1755b8c908469c949e199273ed8e38149a",
    "deep": "d3e4ecdaab04908773248cc1d9087b7cfff77ced58cb70b4dd4d294389942dfd",
    "sgd": "63f355d38f2bbe6974f356f529435d34a19c05f509b1ba5832e636cbbccfbb79",
    "antithetic": "31b8fc5ed79c4759eed5e1ee1777edf49bba60b07c60e0efc9908a6c39282bb8",
    "betas": "81d4607b58179bb58df64fcf9ba9d1d72dca55351d8547c305856ce2135bfc08",
    "plain": "f4b19837a9c6699b508dc84af14f645d23bd899b3fb475a762cd6be8a8c1b67a",
    "plain deep": "5763a017516b86612e6b88bdbaf77c986d54b2d87c95e3885326f9eb1973a7f9",
}
BY_NODES = {
    "rnn": "a6dc8666173089739b529fe9b9c15b5baf28f3f0e7c2cf505797c7a9ce192cbe",
    "gru": "5d5515a256845080b543f33ba825f902f3c0ab25e0b5641822ca58836b73d3d5",
    "deep": "c646d853de2b7fda11f412ddf10110dedd8c6d8adb3261f020a3b2962139d887",
    "sgd": "5f4ce8d3aed74f83c6032912b647df7c4122a288f14126711ea9364b2d846333",
    "antithetic": "404e62aca249129d17eea91542151a00cae72eebd8cc071458087b92ef1341a8",
    "betas": "42156251700ea99473e1fec4d25dbaec9e8ba5b7ae735ab37f54d0d4f9ca1fc8",
    "plain": "bf559febc6b48845e4bc2ddf447c36865a4d9bdffb646515604e409cc6485528",
    "plain deep": "8979cdc8252510915c4c0a0f34b64fb62dacdbe44fce651ff2da720945752743",
}

FORMER: dict[str, Any] = {"nodes": "none", "burn_in": 0}


@pytest.mark.parametrize(("variant", "digest"), (GOLDEN | BY_NODES).items())
def test_digests_after_three_steps_never_change(variant: str, digest: str) -> None:
    *_, (state, _) = steps(example_setting(**VARIANTS[variant]))

    assert (state.step, state.count) == (3, 3)
    assert state.digest(FINGERPRINT).hex() == digest


@pytest.mark.parametrize(("variant", "digest"), (GOLDEN | SCALED).items())
def test_digests_without_nodes_are_those_of_before_there_was_any(
    variant: str, digest: str
) -> None:
    *_, (state, _) = steps(example_setting(**VARIANTS[variant] | FORMER))

    assert (state.step, state.count) == (3, 3)
    assert state.digest(FINGERPRINT).hex() == digest


@pytest.mark.parametrize(("variant", "digest"), (GOLDEN | SHAPED).items())
def test_digests_without_scales_are_those_of_before_there_were_any(
    variant: str, digest: str
) -> None:
    former = FORMER | {"scales": "none", "output_trials": "none"}
    keys = VARIANTS[variant] | former

    *_, (state, _) = steps(example_setting(**keys))

    assert state.digest(FINGERPRINT).hex() == digest


@pytest.mark.parametrize(("variant", "digest"), GOLDEN.items())
def test_digests_without_whitening_are_those_of_before_there_was_any(
    variant: str, digest: str
) -> None:
    former = ("whitening", "scales", "output_trials")
    keys = VARIANTS[variant] | FORMER | dict.fromkeys(former, "none")

    *_, (state, _) = steps(example_setting(**keys))

    assert (state.step, state.count) == (3, 3)
    assert state.digest(FINGERPRINT).hex() == digest


def test_golden_digests_cover_all_variants() -> None:
    assert set(GOLDEN) == set(VARIANTS)
    settings = {name: example_setting(**keys) for name, keys in VARIANTS.items()}
    assert set(SHAPED) == {
        name for name, each in settings.items() if each.config.whitens
    }
    assert set(SCALED) == {
        name for name, each in settings.items() if each.config.scaled
    }
    assert set(BY_NODES) == {name for name, each in settings.items() if each.by_nodes}
    assert not any(
        example_setting(**keys | FORMER).by_nodes for keys in VARIANTS.values()
    )


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_total_that_is_given_leads_to_the_same_bits(
    setting: Setting, dtype: type[np.signedinteger[Any]]
) -> None:
    tokens, before = example_tokens(setting.config), example_state(setting)
    seeds = example_update(setting, 0, example_segments(0))
    sums = summed(setting, tokens, seeds).astype(dtype)
    nothing = np.zeros(0, np.int8)
    given = dataclasses.replace(seeds, segments=(), rewards=nothing, total=sums)
    expected = advance(setting, before, seeds, tokens).digest(FINGERPRINT)

    assert (seeds.summed, given.summed) == (False, True)
    assert advance(setting, before, given, tokens).digest(FINGERPRINT) == expected
    shaped = setting.whiteners(before.weights, tokens)
    for update in (given, seeds):
        after = apply(setting, before, update, sums, shaped)
        assert after.digest(FINGERPRINT) == expected


def test_a_total_may_take_all_of_32_bits_and_more() -> None:
    setting = example_setting(optimizer="sgd", scales="none", nodes="none")
    before = example_state(setting)
    sums = np.zeros(setting.layout.size, np.int32)
    sums[:3] = 2**31 - 1, -(2**31), 42
    update = Update(0, 0, 1 << 26, 1.0, (), np.zeros(0, np.int8), sums)

    narrow = apply(setting, before, update, sums, ())
    wide = apply(setting, before, update, sums.astype(np.int64) * 64, ())

    # g = -S / (42 sqrt(1024 * 2^26)) = -S / 11010048
    moved = (narrow.weights - before.weights)[:4].tolist()
    assert moved == pytest.approx([195.0477, -195.0477, 42 / 11010048, 0], rel=1e-4)
    moved = (wide.weights - before.weights)[:2].tolist()
    assert moved == pytest.approx([64 * 195.0477, -64 * 195.0477], rel=1e-4)


def test_an_update_without_trials_has_no_total() -> None:
    setting = example_setting()
    update = Update(0, 0, 0, 0.0, (), np.zeros(0, np.int8))

    after = apply(setting, example_state(setting), update, update.total, ())

    assert not update.summed
    assert (after.step, after.count) == (1, 0)


def test_gradient_descent_by_hand() -> None:
    setting = example_setting(optimizer="sgd", directions_per_window=1, nodes="none")
    tokens, before = example_tokens(setting.config), example_state(setting)
    shaped = np.array([0, 0, 126, 126], np.int8)
    update = Update(0, 0, 4, 64.0, (Segment(TOP, 5, 2),), shaped)

    after = advance(setting, before, update, tokens)

    # 64 * 126 / (42 sqrt(1024 * 4)) = 3: towards the one perturbation that helped
    about = setting.config, before.weights, tokens.tolist(), TOP
    inner, outer = (reference.trial_perturbation(*about, trial) for trial in (12, 13))
    units = reference.units_of(setting.config)
    flat = [
        x + y for name in inner for x, y in zip(inner[name], outer[name], strict=True)
    ]
    expected = [3 * unit * each for unit, each in zip(units, flat, strict=True)]
    moved = (after.weights - before.weights).tolist()
    assert moved == pytest.approx(expected, rel=1e-5)
    assert (after.first is before.first, after.second is before.second) == (True, True)
    assert (after.step, after.count) == (1, 1)


def test_the_first_step_of_adam_goes_one_rate_towards_the_better_signs() -> None:
    joint = {"output_trials": "none", "nodes": "none"}
    setting = example_setting(directions_per_window=1, **joint)
    tokens, before = example_tokens(setting.config), example_state(setting)
    update = Update(0, 0, 1, 0.25, (Segment(9, 2, 1),), np.array([-126], np.int8))

    after = advance(setting, before, update, tokens)

    e = reference.trial_perturbation(
        setting.config, before.weights, tokens.tolist(), 9, 2
    )
    signs = [math.copysign(1, x) if x else 0 for part in e.values() for x in part]
    units = reference.units_of(setting.config)
    expected = [-0.25 * unit * x for unit, x in zip(units, signs, strict=True)]
    moved = (after.weights - before.weights).tolist()
    assert moved == pytest.approx(expected, rel=1e-4)


def test_without_accepted_trials_only_the_step_advances(setting: Setting) -> None:
    tokens = example_tokens(setting.config)
    *_, (before, _) = steps(setting)
    update = shape(setting, 3, 0, [], 0.0)

    after = advance(setting, before, update, tokens)

    assert (after.step, after.count) == (4, 3)
    for old, new in zip(before.arrays, after.arrays, strict=True):
        assert old.tobytes() == new.tobytes()


def test_an_update_of_another_step_is_a_fault_of_ours() -> None:
    setting = example_setting()
    update = example_update(setting, 1, [Segment(1, 0, 1)])

    with pytest.raises(AssertionError):
        advance(setting, example_state(setting), update, example_tokens(setting.config))


def test_advancing_twice_gives_the_same_bits_and_changes_no_input(
    setting: Setting,
) -> None:
    tokens, before = example_tokens(setting.config), example_state(setting)
    update = example_update(setting, 0, example_segments(0))
    digest = before.digest(FINGERPRINT)

    first, second = (advance(setting, before, update, tokens) for _ in (1, 2))

    assert first.digest(FINGERPRINT) == second.digest(FINGERPRINT)
    assert before.digest(FINGERPRINT) == digest


def test_the_order_of_contributions_does_not_matter(setting: Setting) -> None:
    tokens, before = example_tokens(setting.config), example_state(setting)
    each = setting.config.trials_per_group
    segments = example_segments(0)
    update = example_update(setting, 0, segments)
    ends = np.cumsum([segment.groups * each for segment in segments])
    shares = np.split(update.rewards, ends[:-1])
    expected = advance(setting, before, update, tokens).digest(FINGERPRINT)

    for order in ((2, 1, 0), (1, 2, 0), (0, 2, 1)):
        other = dataclasses.replace(
            update,
            segments=tuple(segments[i] for i in order),
            rewards=np.concatenate([shares[i] for i in order]),
        )
        state = advance(setting, before, other, tokens)
        assert state.digest(FINGERPRINT) == expected


def test_the_order_of_answers_does_not_matter_to_the_state() -> None:
    setting = example_setting()
    tokens, before = example_tokens(setting.config), example_state(setting)
    scored = scored_segments(setting)
    digests = set()

    for seed in range(6):
        shuffled = random.Random(seed).sample(scored, len(scored))
        update = shape(setting, 0, 0, shuffled, 0.0)
        digests.add(advance(setting, before, update, tokens).digest(FINGERPRINT))

    assert len(digests) == 1


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_number_of_threads_does_not_matter(threads: str) -> None:
    libraries = ("OPENBLAS", "OMP", "MKL")
    variables = {f"{library}_NUM_THREADS": threads for library in libraries}
    code = "from tests.reference import threads_digest; print(*threads_digest())"

    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | variables | {"VECLIB_MAXIMUM_THREADS": threads},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (child.stderr, child.returncode) == ("", 0)
    assert child.stdout.split() == [
        "e8c9cc68b4d89f79ecb7bcd67fd8ae3388ae846117630899af94658c640fbfd4",
        "c3b691e8a59a85292c53b9a5e871d6a9e0a804edfe724611281e1fc04713959b",
    ]


@pytest.mark.parametrize(
    "variant", ["rnn", "gru", "sgd", "full", "antithetic", "full pairs"]
)
def test_steps_bring_the_loss_down(variant: str) -> None:
    keys = VARIANTS[variant] | {"learning_rate": 4.0 if variant == "sgd" else 0.4}
    setting = example_setting(**keys, sigma=0.05)
    tokens = np.tile(np.array([0, 1, 0, 2], np.uint8), 25)
    state = initial_state(setting, 1, np.zeros(9, np.float32))
    rows = [tokens[:, None]]
    before = clean_loss(setting, state.weights, rows)

    for step in range(40):
        segment = Segment(segment_seed(1, step, 0), 0, 24)
        scores = score(setting, state.weights, tokens, segment)
        update = shape(setting, step, 0, [(segment, scores)], 0.0)
        state = advance(setting, state, update, tokens)

    after = clean_loss(setting, state.weights, rows)
    assert before == pytest.approx(math.log(9), abs=0.2)
    assert after < 1.5

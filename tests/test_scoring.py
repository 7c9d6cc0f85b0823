"""Losses of shaped noise: what is given, what is computed, what stays as it is."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests import reference
from tests.reference import example_setting, example_tokens, example_weights
from utilities.evolution import Scores, Segment, Setting
from utilities.scoring import score
from utilities.whitening import SCALE, Whiteners

SEGMENT = Segment((1 << 64) - 1, 6, 3)
VARIANTS: dict[str, dict[str, Any]] = {
    "rnn": {"batch_size": 2},
    "gru": {"model_type": "gru", "n_layers": 2},
    "antithetic": {"directions_per_window": 0},
}
EVERY = pytest.mark.parametrize("variant", VARIANTS)


def scored(setting: Setting, shaped: Whiteners | None = None) -> Scores:
    weights = example_weights(setting.layout.size)
    return score(setting, weights, example_tokens(setting.config), SEGMENT, shaped)


def shapes(setting: Setting) -> Whiteners:
    weights = example_weights(setting.layout.size)
    return setting.whiteners(weights, example_tokens(setting.config))


def same(one: Scores, other: Scores) -> bool:
    return one.losses.tobytes() == other.losses.tobytes()


@EVERY
def test_noise_is_shaped_by_the_weights_and_text_at_hand(variant: str) -> None:
    setting = example_setting(**VARIANTS[variant])

    assert same(scored(setting), scored(setting, shapes(setting)))


@EVERY
def test_noise_that_is_not_shaped_has_other_losses_beside_equal_clean_ones(
    variant: str,
) -> None:
    setting = example_setting(**VARIANTS[variant])

    shaped, plain = scored(setting), scored(setting, ())

    assert not same(shaped, plain)
    assert shaped.clean.tobytes() == plain.clean.tobytes()


@EVERY
def test_the_unit_matrix_leaves_noise_as_it_is(variant: str) -> None:
    setting = example_setting(**VARIANTS[variant])
    unit = SCALE * np.eye(4, dtype=np.float32)

    every = scored(setting, (unit,) * setting.config.n_layers)

    assert same(every, scored(setting, ()))


@EVERY
def test_a_run_without_whitening_scores_plain_noise(variant: str) -> None:
    setting = example_setting(**VARIANTS[variant])
    without = example_setting(**VARIANTS[variant], whitening="none")

    assert same(scored(without), scored(setting, ()))


@EVERY
def test_nodes_change_no_loss(variant: str) -> None:
    with_it, without = (
        example_setting(**VARIANTS[variant], nodes=nodes) for nodes in ("auto", "none")
    )

    assert with_it.by_nodes
    assert same(scored(with_it), scored(without))


@EVERY
def test_what_is_read_before_a_window_changes_all_losses(variant: str) -> None:
    # The same windows, after two characters or none.
    setting = example_setting(**VARIANTS[variant])
    config = dataclasses.replace(setting.config, burn_in=0, sequence_length=7)
    length = dataclasses.replace(config, sequence_length=5)
    longer, shorter = (Setting(each, "0" * 64) for each in (config, length))

    losses = [scored(each).losses for each in (setting, longer, shorter)]

    for other in losses[1:]:
        assert (losses[0] != other).all()


def test_each_layer_has_a_shape_of_its_own() -> None:
    setting = example_setting(**VARIANTS["gru"])
    first, second = shapes(setting)

    assert not same(scored(setting), scored(setting, (second, first)))


@pytest.mark.parametrize("directions", [3, 0])
@pytest.mark.parametrize("burn_in", [0, 1, 9])
def test_losses_of_a_shape_by_hand_are_those_of_the_reference(
    directions: int, burn_in: int
) -> None:
    keys = {"directions_per_window": directions, "burn_in": burn_in}
    setting = example_setting(**keys, sigma=0.1)
    config, text = setting.config, example_tokens(setting.config).tolist()
    weights, each = example_weights(setting.layout.size), config.trials_per_group
    shape = np.array([[2, 0, 0, 0], [1, 1, 0, 0], [0, 0, 3, 0], [0, 1, 0, 0]])

    losses = scored(setting, (shape.astype(np.float32) * SCALE,)).losses

    expected = []
    for trial in range(SEGMENT.first * each, (SEGMENT.first + SEGMENT.groups) * each):
        drawn: dict[str, list[float]] = {
            name: [*signs]
            for name, signs in reference.bundle_signs(
                config, text, SEGMENT.seed, trial
            ).items()
        }
        a = drawn["state0"]
        drawn["state0"] = [2 * a[0] + a[1], a[1] + a[3], 3 * a[2], 0]
        e = reference.moved(config, trial, reference.rank_one(config, drawn))
        windows = reference.group_windows(config, text, SEGMENT.seed, trial // each)
        expected += [
            reference.perturbed_loss(config, weights, e, side * config.sigma, windows)
            for side in ((1,) if directions else (1, -1))
        ]
    assert losses.tolist() == pytest.approx(expected, abs=1e-5)

"""When two answers to the same trials are the same answer."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.desk import lesson
from utilities.agreement import differing, first_difference, paired, tolerance
from utilities.evolution import Scores, Segment
from utilities.noise import Floats
from utilities.peers import Peer
from utilities.scoring import score

SETTING = lesson().setting  # groups of four trials that share a clean pass
PAIRS = lesson(directions_per_window=0).setting


def floats(*values: float) -> Floats:
    return np.array(values, np.float32)


def test_what_is_tolerated_grows_with_the_loss_and_with_the_spread() -> None:
    assert tolerance(floats(2.0, -4.0), 0.5).tolist() == pytest.approx([7e-5, 9e-5])


def test_the_last_bits_do_not_matter_and_a_ten_thousandth_does() -> None:
    losses = floats(2.0, 2.0, 3.0, 3.0)  # a spread of 0.5
    shifted = losses + floats(6e-5, 8e-5, -7e-5, -1e-4)

    assert differing(losses, shifted).tolist() == [False, True, False, True]
    assert differing(shifted, losses).tolist() == [False, True, False, True]


def test_wild_losses_do_not_widen_what_is_tolerated() -> None:
    losses = floats(2.0, 2.0, 2.0, 2.0)
    wild = floats(2.0, 99.0, -99.0, 2.001)

    assert differing(losses, wild).tolist() == [False, True, True, True]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e38, 101.0])
def test_what_is_no_loss_equals_only_what_is_none_either(value: float) -> None:
    bad, good = floats(value, 2.0), floats(2.0, 2.0)

    assert differing(bad, good).tolist() == [True, False]
    assert differing(good, bad).tolist() == [True, False]
    assert differing(bad, floats(math.nan, 2.0)).tolist() == [False, False]
    assert differing(floats(value), floats(value)).tolist() == [False]


def scores(*losses: float, clean: tuple[float, ...] = ()) -> Scores:
    return Scores(floats(*losses), floats(*clean))


def test_the_first_group_that_differs_is_named() -> None:
    one = scores(*[2.0] * 12, clean=(2.0, 2.0, 2.0))
    other = scores(*[2.0] * 9, 2.5, 2.0, 2.0, clean=(2.0, 2.0, 2.0))
    clean = scores(*[2.0] * 12, clean=(2.0, 2.5, 2.0))

    assert first_difference(SETTING, one, one) is None
    assert first_difference(SETTING, one, other) == 2
    assert first_difference(SETTING, one, clean) == 1
    assert first_difference(SETTING, clean, other) == 1


@given(st.lists(st.floats(width=32), min_size=4, max_size=4))
def test_answers_that_are_equal_to_the_bit_agree_whatever_they_are(
    losses: list[float],
) -> None:
    one, other = (scores(*losses, clean=(losses[0],)) for _ in range(2))

    assert first_difference(SETTING, one, other) is None
    assert not differing(one.losses, other.losses).any()


def test_antithetic_pairs_are_groups_of_two_losses() -> None:
    one, other = scores(2.0, 2.0, 2.0, 2.0), scores(2.0, 2.0, 2.0, 3.0)

    assert first_difference(PAIRS, one, other) == 1
    assert first_difference(PAIRS, one, one) is None


def test_two_clients_are_compared_in_what_both_have_done() -> None:
    ann, bob = Peer(1, "ann"), Peer(2, "bob")
    longer = scores(*range(12), clean=(20, 21, 22))
    shorter = scores(*range(8), clean=(20, 21))

    pair = paired(
        SETTING,
        (ann, Segment(5, 0, 3), longer),
        (bob, Segment(5, 0, 2), shorter),
    )

    assert pair.segment == Segment(5, 0, 2)
    (one, first), (other, second) = pair.answers
    assert (one, other) == (ann, bob)
    for part in (first, second):
        assert part.losses.tolist() == shorter.losses.tolist()
        assert part.clean.tolist() == shorter.clean.tolist()


@pytest.mark.parametrize("keys", [{}, {"model_type": "gru"}, {"hidden_size": 32}])
def test_trials_give_the_same_losses_whatever_they_are_scored_with(
    keys: dict[str, Any],
) -> None:
    start = lesson(batch_size=8, **keys)
    tokens = start.corpus.token_batch(0)
    run = start.setting, start.state.weights, tokens
    whole = score(*run, Segment(5, 0, 40))

    each = [score(*run, Segment(5, group, 1)) for group in range(40)]

    alone = Scores(
        np.concatenate([part.losses for part in each]),
        np.concatenate([part.clean for part in each]),
    )
    assert first_difference(start.setting, whole, alone) is None
    gap = np.abs(whole.losses / alone.losses - 1).max()
    assert gap < 1e-6  # a tenth of what is tolerated

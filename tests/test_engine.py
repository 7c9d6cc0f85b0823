"""The engine of one core: blocks in time and without gaps, sums as anybody's."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import (
    example_segments,
    example_setting,
    example_tokens,
    example_update,
    example_weights,
)
from utilities.engine import Engine, OneCore, Scored, fitting
from utilities.evolution import Segment, Setting, nodes_of, pieces, total
from utilities.model import Floats, Tokens
from utilities.rewards import Rewards
from utilities.scoring import score
from utilities.sums import cosine
from utilities.whitening import Whiteners

VARIANTS: dict[str, dict[str, Any]] = {
    "rnn": {},
    "gru": {"model_type": "gru", "n_layers": 2},
    "full": {"noise": "full"},
    "antithetic": {"directions_per_window": 0, "model_type": "gru"},
    "plain": {"whitening": "none"},
    "former": {"nodes": "none", "burn_in": 0},
    "apart": {"output_trials": "auto", "n_layers": 2},
}
SEGMENT = Segment(77, 3, 100)


class Clock:
    """A clock by which each block takes what a plan says."""

    def __init__(self, *blocks: float) -> None:
        self.now = 50.0
        self.told: list[int] = []
        self._blocks = iter(blocks)

    def __call__(self) -> float:
        return self.now

    def on_block(self, trials: int) -> None:
        self.told.append(trials)
        self.now += next(self._blocks, 0.0)


def one_group_a_block(**keys: Any) -> Setting:
    """Return a setting whose blocks are single groups of three trials."""
    return example_setting(batch_size=200, **keys)  # 600 rows of 1,024


def scored(
    clock: Clock,
    seconds: float | None,
    segments: Sequence[Segment] = (SEGMENT,),
    setting: Setting | None = None,
) -> Scored:
    setting = setting or one_group_a_block()
    engine: Engine = OneCore(clock)
    weights, tokens = (
        example_weights(setting.layout.size),
        example_tokens(setting.config, 200),
    )
    step = (setting, weights, tokens, setting.whiteners(weights, tokens))
    return engine.score(*step, segments, seconds, clock.on_block)


# --- scoring --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "done"),
    [
        ((0.25,) * 10, 4),  # the fourth fits exactly
        ((0.375,) * 10, 2),  # a third would not fit
        ((0.125, 0.5, 0.125, 0.125), 2),  # as long as the one before it
        ((0.5, 0.25, 0.25, 0.0), 3),  # time is over
        ((5.0,), 1),  # at least one
    ],
)
def test_blocks_are_scored_until_the_next_would_not_fit(
    blocks: tuple[float, ...], done: int
) -> None:
    clock = Clock(*blocks)

    result = scored(clock, 1.0)

    assert [block for block, _ in result] == [
        Segment(77, 3 + n, 1) for n in range(done)
    ]
    assert clock.told == [6 * n for n in range(1, done + 1)]
    assert clock.now == 50 + sum(blocks[:done])


@pytest.mark.parametrize("seconds", [0.0, 1e-9])
def test_without_time_one_block_is_scored(seconds: float) -> None:
    assert len(scored(Clock(0.25, 0.25), seconds)) == 1


def test_without_a_limit_everything_is_scored_whatever_time_it_takes() -> None:
    clock = Clock(*[9.0] * 5)

    result = scored(clock, None, [Segment(7, 0, 3), Segment(8, 1, 2)])

    assert [block for block, _ in result] == [
        *(Segment(7, n, 1) for n in range(3)),
        *(Segment(8, n, 1) for n in (1, 2)),
    ]
    assert clock.told == [6, 12, 18, 24, 30]


def test_all_trials_may_be_scored_before_time_is_over() -> None:
    clock = Clock(0.25, 0.25, 0.25)

    assert len(scored(clock, 9.0, [Segment(7, 0, 2), Segment(8, 0, 1)])) == 3
    assert clock.now == 50.75


@pytest.mark.parametrize("seconds", [None, 1.0])
def test_nothing_to_score_gives_nothing(seconds: float | None) -> None:
    clock = Clock()

    assert scored(clock, seconds, []) == []
    assert clock.told == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_are_those_of_blocks_of_the_runs_own_shape(variant: str) -> None:
    setting = example_setting(**VARIANTS[variant], batch_size=50)
    segments = [Segment(7, 5, 2 * setting.block_groups + 1)]

    result = scored(Clock(), None, segments, setting)

    weights = example_weights(setting.layout.size)
    tokens = example_tokens(setting.config, 200)
    expected = list(pieces(segments, setting.block_groups))
    assert [block for block, _ in result] == expected
    assert len(expected) == 3
    for block, scores in result:
        alone = score(setting, weights, tokens, block)
        assert scores.losses.tobytes() == alone.losses.tobytes()
        assert scores.clean.tobytes() == alone.clean.tobytes()


@given(
    st.lists(st.sampled_from([0.0, 0.125, 0.375, 1.0]), max_size=12),
    st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=50)
def test_blocks_are_a_beginning_without_gaps_and_more_only_while_there_is_time(
    blocks: list[float], seconds: float, sizes: list[int]
) -> None:
    segments = [Segment(seed, 4, size) for seed, size in enumerate(sizes)]
    clock = Clock(*blocks)

    done = [block for block, _ in scored(clock, seconds, segments)]

    every = list(pieces(segments, 1))
    assert done == every[: len(done)]
    assert len(done) >= 1
    taken = [*blocks, *[0.0] * 12][: len(done)]
    assert sum(taken[:-1]) < seconds or len(done) == 1  # it began before the end
    if len(done) < len(every):
        left = seconds - sum(taken)
        assert left <= 0 or taken[-1] > left


# --- adding up ------------------------------------------------------------------------


@pytest.fixture(params=VARIANTS)
def setting(request: pytest.FixtureRequest) -> Setting:
    """Give each kind of run in turn."""
    return example_setting(**VARIANTS[request.param])


def step_of(setting: Setting) -> tuple[Setting, Floats, Tokens, Whiteners]:
    """Return what all trials of a step have in common."""
    weights = example_weights(setting.layout.size)
    tokens = example_tokens(setting.config)
    return setting, weights, tokens, setting.whiteners(weights, tokens)


def summed(setting: Setting, segments: Sequence[Segment], rewards: Rewards) -> Any:
    """Return the total over some trials of that step."""
    _, weights, tokens, _ = step_of(setting)
    nodes = nodes_of(setting, weights, tokens)
    return total(setting, nodes, tokens, segments, rewards)


def test_halves_make_up_the_total(setting: Setting) -> None:
    update = example_update(setting, 1, example_segments(1))
    engine: Engine = OneCore(Clock())
    trials = update.segments, update.rewards

    one, other = engine.halves(*step_of(setting), *trials)

    every = summed(setting, *trials)
    assert (one.dtype, other.dtype) == (every.dtype, every.dtype)
    assert (one + other == every).all()
    assert one.any()
    assert other.any()


def test_halves_are_the_same_after_some_of_their_trials_were_scored(
    setting: Setting,
) -> None:
    step = step_of(setting)
    update = example_update(setting, 1, [Segment(9, 0, 5), Segment(10, 0, 7)])
    work = *step, update.segments, update.rewards
    engine: Engine = OneCore(Clock())
    own = [Segment(10, 0, 100)]

    engine.score(*step, own, None, lambda trials: None)

    expected = OneCore(Clock()).halves(*work)
    for _ in range(2):  # the second time nothing is kept any more
        assert np.array_equal(engine.halves(*work), expected)


def test_each_half_is_the_sum_of_its_own_groups(setting: Setting) -> None:
    each = setting.config.trials_per_group
    update = example_update(setting, 1, [Segment(9, 2, 4)])
    shaped = update.rewards

    one, other = OneCore(Clock()).halves(*step_of(setting), update.segments, shaped)

    first = summed(setting, [Segment(9, 2, 2)], shaped[: 2 * each])
    second = summed(setting, [Segment(9, 4, 2)], shaped[2 * each :])
    assert (one == first).all()
    assert (other == second).all()


def test_halves_depend_on_the_weights_only_by_nodes(
    setting: Setting,
) -> None:
    _, weights, tokens, shaped = step_of(setting)
    update = example_update(setting, 1, example_segments(1))
    trials = update.segments, update.rewards

    def halved(flat: Floats) -> Any:
        return OneCore(Clock()).halves(setting, flat, tokens, shaped, *trials)

    same = np.array_equal(halved(weights), halved(weights[::-1].copy()))

    assert same is (not setting.by_nodes)


def test_a_single_group_has_no_other_half() -> None:
    setting = example_setting()
    update = example_update(setting, 1, [Segment(9, 2, 1)])

    trials = update.segments, update.rewards
    one, other = OneCore(Clock()).halves(*step_of(setting), *trials)

    assert one.any()
    assert not other.any()
    assert cosine(one, other) is None


def test_halves_of_nothing_are_zero() -> None:
    setting = example_setting()

    nothing = np.zeros(0, np.int8)
    one, other = OneCore(Clock()).halves(*step_of(setting), (), nothing)

    assert one.tolist() == other.tolist() == [0] * setting.layout.size


@pytest.mark.parametrize(
    ("took", "left", "groups"),
    [
        (1.0, 1.0, 32),
        (1.0, math.inf, 32),
        (1.0, 0.99, 28),
        (1.0, 0.5, 14),
        (1.0, 0.25, 7),
        (1.0, 0.24, 0),  # 6 of 32 groups are less than a fifth
        (1.0, 0.0, 0),
        (0.0, 0.0, 0),
        (0.0, 0.001, 32),
    ],
)
def test_the_last_block_is_the_part_that_fits(
    took: float, left: float, groups: int
) -> None:
    assert fitting(32, took, left) == groups


def test_scoring_ends_with_the_part_that_fits() -> None:
    setting = example_setting(directions_per_window=0)  # 512 groups a block
    whole = setting.block_groups

    result = scored(Clock(1.0, 0.5, 9.0), 1.5, [Segment(7, 0, 3 * whole)], setting)

    assert [block for block, _ in result] == [
        Segment(7, 0, whole),
        Segment(7, whole, whole * 9 // 20),
    ]

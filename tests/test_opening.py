"""Which kind of step is opened, with which seeds, and when none is."""

import random
from typing import Any

import pytest

from tests.desk import RUN_SEED, lesson
from tests.steps import peers
from utilities.audits import Audits
from utilities.blocks import BlockStep
from utilities.evolution import Segment, segment_seed
from utilities.opening import Limits, Opening
from utilities.steps import OpenStep, TimedStep


def opening(**keys: Any) -> Opening:
    setting = lesson(**keys).setting
    return Opening(setting, RUN_SEED, Audits(setting, random.Random(1)))


def seeds(step: OpenStep, clients: int = 1) -> list[int]:
    work = step.assign(peers(clients), 0.0)
    segments: list[Segment] = [s for _, given in work for s in given]
    return [segment.seed for segment in segments]


@pytest.mark.parametrize(
    ("keys", "last", "kind"),
    [
        ({}, False, TimedStep),
        ({}, True, TimedStep),
        ({"trials_per_step": 8}, False, BlockStep),
        ({"trials_per_step": 8}, True, TimedStep),  # nothing but digests
    ],
)
def test_the_last_step_and_those_without_a_number_of_trials_end_by_time(
    keys: dict[str, Any], last: bool, kind: type
) -> None:
    step = opening(**keys).open(3, 1.0, 0.0, last=last)

    assert isinstance(step, kind)
    assert (step.step, step.last) == (3, last)


def test_a_step_that_begins_anew_takes_new_slots_and_the_next_one_begins_at_zero() -> (
    None
):
    run = opening()

    first = seeds(run.open(3, 1.0, 0.0, last=False))
    again = seeds(run.open(3, 1.0, 0.0, last=False))
    after = seeds(run.open(4, 1.0, 0.0, last=False))

    assert first == [segment_seed(RUN_SEED, 3, slot) for slot in range(24)]
    assert again == [segment_seed(RUN_SEED, 3, slot) for slot in range(24, 48)]
    assert after == [segment_seed(RUN_SEED, 4, slot) for slot in range(24)]


def test_blocks_keep_their_slots_when_a_step_begins_anew() -> None:
    run = opening(trials_per_step=8)
    expected = [segment_seed(RUN_SEED, 3, slot) for slot in range(2)]

    for _ in range(2):
        assert seeds(run.open(3, 1.0, 0.0, last=False)) == expected


def test_newcomers_of_a_timed_step_share_a_segment() -> None:
    every = seeds(opening().open(0, 1.0, 0.0, last=False), clients=2)

    assert len(every) - len(set(every)) == 1


@pytest.mark.parametrize(
    ("limits", "over"),
    [
        (Limits(), False),
        (Limits(last_step=6), False),
        (Limits(last_step=5), True),
        (Limits(end=9.5), False),
        (Limits(end=9.0), True),
    ],
)
def test_a_session_is_over_at_its_last_step_or_moment(
    limits: Limits, over: bool
) -> None:
    assert limits.over(5, 9.0) == over


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        (Limits(), (None, None)),
        (Limits(last_step=7), (2, None)),
        (Limits(last_step=5), (0, None)),
        (Limits(last_step=4), (0, None)),
        (Limits(end=9.5), (None, 0.5)),
        (Limits(end=9.0), (None, 0.0)),
        (Limits(end=8.0), (None, 0.0)),
        (Limits(last_step=6, end=12.0), (1, 3.0)),
    ],
)
def test_what_is_left_of_a_session_is_counted_from_its_step_and_moment(
    limits: Limits, left: tuple[int | None, float | None]
) -> None:
    assert limits.left(5, 9.0) == left

"""What the reports of one step come to, by hand."""

import numpy as np

from utilities.aggregation import Aggregation
from utilities.evolution import Segment
from utilities.pacing import Observed
from utilities.protocol import Result, Sum
from utilities.tally import Before, Closed, Tally, median

NOW = 100.0


def result(
    trials: float = 1.0,
    update: float = 0.1,
    quality: float | None = None,
    *,
    bare: bool = False,
) -> Result:
    segments = () if bare else (Segment(1, 0, 1),)
    nothing = np.zeros(0, np.float32)
    return Result(5, bytes(32), update, trials, quality, segments, nothing, nothing)


def added(seconds: float) -> Sum:
    return Sum(5, seconds, np.zeros(3, np.int32))


def tally(*results: Result, before: Before | None = None) -> Tally:
    """Return what a step has gathered of clients 0, 1, 2."""
    step = Tally(NOW, before)
    for client, each in enumerate(results):
        step.add(client, each)
    return step


CLOSED = Closed(5, 60.0, 2.5, 1024, 3, 1, 0, b"d" * 32, "seeds")


def test_medians_by_hand() -> None:
    assert median([]) is None
    assert median([3.0]) == 3.0
    assert median([9.0, 1.0, 2.0]) == 2.0
    assert median(iter((1.0, 2.0))) == 1.5


def test_a_step_without_reports_has_no_figures() -> None:
    assert tally().figures() == (None, None, None)
    assert tally().observed(NOW + 0.5, 96) == Observed(0.5, 0.0, 0.0, None, 96)


def test_figures_are_medians_over_clients() -> None:
    step = tally(result(1.0, 0.1, 0.5), result(4.0, 0.2, -0.1), result(3.0, 0.9, 0.3))

    assert step.figures() == (3.0, 0.2, 0.3)


def test_who_was_asked_for_a_digest_alone_does_not_count() -> None:
    step = tally(result(9.0, 9.0, 0.9, bare=True), result(1.0, 0.1))

    assert step.figures() == (1.0, 0.1, None)
    assert step.observed(NOW + 2, 0) == Observed(2.0, 1.0, 0.1, None)


def test_a_quality_is_taken_from_those_who_know_it() -> None:
    assert tally(result(), result(quality=0.25), result()).figures()[2] == 0.25


def test_several_blocks_of_a_client_are_added_up() -> None:
    step = tally(result(5.0, 0.5))
    for seconds in (1.0, 2.0, 4.0):
        step.add(7, result(seconds, 0.125))

    assert step.figures() == (6.0, 0.3125, None)


def test_what_all_waited_for_is_the_update_of_whoever_answered_last() -> None:
    # The slow machine needs 0.75 s more for an update; that is no overhead.
    step = tally(result(1.0, 0.25), result(1.5, 0.5), result(1.0, 1.0))

    observed = step.observed(NOW + 2.015625, 0)

    assert observed == Observed(2.015625, 1.0, 1.0, None)
    assert observed.wall - observed.trials - observed.update == 0.015625


def test_the_time_of_the_last_sum_is_no_overhead_either() -> None:
    step = tally(result(1.0, 0.25), result(1.0, 0.25))

    step.add_sum(added(0.125))
    step.add_sum(added(0.5))

    assert step.observed(NOW + 2, 0) == Observed(2.0, 1.0, 0.75, None)
    assert step.figures() == (1.0, 0.25, None)


def test_what_the_server_knows_of_the_update_before_completes_the_figures() -> None:
    before = Before(sum_seconds=0.5, quality=0.125)

    assert tally(result(1.0, 0.25), before=before).figures() == (1.0, 0.75, 0.125)
    assert tally(result(quality=0.5), before=before).figures()[2] == 0.5
    assert tally(before=before).figures() == (None, None, 0.125)
    assert tally(result(1.0, 0.25), before=before).observed(NOW + 2, 0) == (
        Observed(2.0, 1.0, 0.25, 0.125)
    )


class Taught(Aggregation):
    """Remember what was told."""

    def __init__(self) -> None:
        super().__init__("auto")
        self.taught: list[tuple[str, int, float]] = []

    def updated(self, way: str, trials: int, seconds: float) -> None:
        self.taught.append((way, trials, seconds))


def test_the_time_of_an_update_is_known_without_the_sums_too() -> None:
    before = Before("sums", 100, sum_seconds=0.5)

    aggregation = Taught()
    tally(result(update=0.25), before=before).teach(aggregation)
    tally(before=before).teach(aggregation)
    tally(result(update=0.25)).teach(aggregation)

    assert aggregation.taught == [("sums", 100, 0.25)]


def test_a_closed_step_is_filled_with_what_was_reported() -> None:
    filled = tally(result(1.0, 0.25, 0.5)).filled(CLOSED, 2.0)

    assert (filled.time_per_step, filled.trial_seconds) == (2.0, 1.0)
    assert (filled.update_seconds, filled.gradient_quality) == (0.25, 0.5)
    assert (filled.step, filled.aggregation, filled.loss) == (5, "seeds", 2.5)
    assert tally().filled(CLOSED, None) == CLOSED

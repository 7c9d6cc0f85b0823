import math
from typing import Any

import numpy as np
import pytest

from tests.inspecting.curve_runs import EXPONENT, FLOOR, RATE, SCALE, law, law_logs
from utilities.curves import Curves
from utilities.inspect.forecast import FURTHEST, LEAST_POINTS, Law, Range


def moment(target: float) -> float:
    """Return the second at which the law is at a loss."""
    return float(((target - FLOOR) / SCALE) ** (-1 / EXPONENT) * 1000 / RATE)


def test_a_range_is_the_middle_and_where_most_lie() -> None:
    values = np.array([math.inf, *range(9), math.inf], np.float64)

    assert Range.of(values) == Range(1.0, 5.0, math.inf)


def test_a_curve_that_is_the_law_is_continued_exactly() -> None:
    law_ = Law(law_logs(60))
    now = 601.0  # a second after the newest loss
    target = float(law(1200 * RATE))
    forecast = law_.forecast(target)

    assert forecast.seconds is not None
    assert forecast.reached is None
    assert forecast.never < 0.01
    # The exponents are a grid: the middle is near, and the truth is within.
    assert forecast.seconds.middle == pytest.approx(moment(target) - now, rel=0.05)
    assert forecast.seconds.low <= forecast.seconds.middle <= forecast.seconds.high
    assert law_.basis.floor.middle == pytest.approx(FLOOR, abs=0.1)
    assert law_.basis.rate == pytest.approx(RATE)


def test_what_it_rests_on_is_told() -> None:
    basis = Law(law_logs(60)).basis

    # Of 60 losses those after a twentieth of the trials: 30 of 600 seconds.
    assert (basis.points, basis.first, basis.last) == (58, 30.0, 600.0)
    assert basis.newest == pytest.approx(law(600_000.0))
    assert basis.foretold is not None
    assert basis.foretold.middle == pytest.approx(basis.newest, abs=0.01)


def test_the_uncertainty_holds_the_truth_about_as_often_as_it_says() -> None:
    target, hits = float(law(1_800_000.0)), 0
    for seed in range(100):
        seconds = Law(law_logs(60, 0.005, seed)).forecast(target).seconds
        assert seconds is not None
        hits += seconds.low <= moment(target) - 601 <= seconds.high

    assert 66 <= hits <= 92  # of 100, where 80 are meant


def test_more_noise_is_less_certain() -> None:
    target = float(law(1_200_000.0))
    spreads = []
    for noise in (0.001, 0.01):
        seconds = Law(law_logs(60, noise)).forecast(target).seconds
        assert seconds is not None
        spreads.append(seconds.high - seconds.low)

    assert spreads[1] > 2 * spreads[0]


def test_a_target_that_was_reached_says_when() -> None:
    forecast = Law(law_logs(60)).forecast(float(law(200_500.0)))

    assert (forecast.reached, forecast.seconds, forecast.never) == (210.0, None, 0.0)


def test_a_target_below_the_floor_is_never_reached() -> None:
    forecast = Law(law_logs(60)).forecast(FLOOR - 0.5)

    assert forecast.seconds == Range(math.inf, math.inf, math.inf)
    assert forecast.never > 0.95


def test_what_takes_too_long_is_not_foretold() -> None:
    law_ = Law(law_logs(60))
    near = law_.forecast(float(law(0.5 * FURTHEST * 600_000)))
    far = law_.forecast(float(law(4 * FURTHEST * 600_000)))

    assert near.seconds is not None
    assert math.isfinite(near.seconds.middle)
    assert far.seconds is not None
    assert math.isinf(far.seconds.middle)


def test_the_same_run_gives_the_same_answer() -> None:
    target = float(law(1_200_000.0))

    assert Law(law_logs(30, 0.01)).forecast(target) == Law(law_logs(30, 0.01)).forecast(
        target
    )


def test_few_losses_can_be_fitted_but_not_tested() -> None:
    basis = Law(law_logs(LEAST_POINTS, 0.01)).basis

    assert basis.points == LEAST_POINTS
    assert basis.foretold is None


def losses(*values: float) -> Curves:
    lines: list[dict[str, Any]] = [
        {"step": i, "seconds": i + 1.0, "trials": 10.0, "validationLoss": value}
        for i, value in enumerate(values)
    ]
    return Curves(0, 0, lines, np.empty(0))


def test_of_very_many_losses_some_are_fitted() -> None:
    basis = Law(law_logs(1000, 0.005)).basis

    assert basis.points == 951
    assert basis.floor.low <= FLOOR <= basis.floor.high


def test_too_few_losses_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 6 validation losses or more, got 5"):
        Law(law_logs(5))
    with pytest.raises(ValueError, match="or more, got 0"):
        Law(losses())
    with pytest.raises(ValueError, match="or more, got 1"):
        Law(losses(3.0, 2.0))  # one of them before the first trial


def test_losses_at_one_moment_are_too_few() -> None:
    lines = [{"step": 1, "seconds": 2.0, "trials": 10.0, "validationLoss": 2.0}] * 9

    with pytest.raises(ValueError, match="or more, got 1"):
        Law(Curves(0, 0, lines, np.empty(0)))


def test_a_loss_that_rises_is_refused() -> None:
    with pytest.raises(ValueError, match="expected validation losses that fall"):
        Law(losses(*(2.0 + 0.1 * i for i in range(30))))


def test_losses_that_lie_absurdly_close_are_refused() -> None:
    lines = [
        {"step": i, "seconds": i, "trials": 1e9 if i == 0 else 1.0, "validationLoss": 2}
        for i in range(12)
    ]

    with pytest.raises(ValueError, match="over a longer time"):
        Law(Curves(0, 0, lines, np.empty(0)))

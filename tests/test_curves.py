import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utilities.curves import (
    MOST_POINTS,
    SMOOTH_POINTS,
    Curves,
    Point,
    smoothed,
    thinned,
)
from utilities.scales import Series


def line(step: int, **keys: Any) -> dict[str, Any]:
    return {
        "step": step,
        "clients": 1,
        "seconds": float(step + 1),
        "trials": 10,
        **keys,
    }


def curves(*lines: dict[str, Any], first: int = 0, losses: Any = ()) -> Curves:
    return Curves(first, first, lines, np.array(losses, np.float64))


def series(y: list[float]) -> Series:
    return Series("loss", np.arange(len(y), dtype=np.float64), np.array(y, np.float64))


# Columns.


def test_a_key_that_a_version_did_not_know_is_a_gap() -> None:
    logs = curves(
        line(0), line(1, gradientQuality=-0.25), line(2, gradientQuality=None)
    )

    quality = logs.column("gradientQuality", -1.0)
    assert np.array_equal(quality, [math.nan, -0.25, math.nan], equal_nan=True)


@pytest.mark.parametrize(
    "value", ["-1", "NaN", "Infinity", "null", '"3"', "[]", "9" * 400, "1e400"]
)
def test_what_makes_no_sense_is_a_gap(value: str) -> None:
    logs = curves(line(0, loss=json.loads(value)))

    assert np.isnan(logs.column("loss")).all()


def test_lines_of_impossible_steps_do_not_count_and_others_are_sorted() -> None:
    logs = curves(line(-1), line(3), line(1), line(10**30))

    assert logs.steps.tolist() == [1, 3]
    assert logs.done.tolist() == [2, 4]


def test_a_line_that_was_thinned_out_counts_like_the_next_one() -> None:
    logs = curves(line(10, trials=5), line(13, trials=7), first=10)

    assert logs.trials.tolist() == [5, 5 + 3 * 7]


def test_the_state_that_a_session_ended_with_is_no_step() -> None:
    logs = curves(line(0), line(1, clients=0, trials=0, validationLoss=2.5))

    assert logs.done.tolist() == [1, 1]
    assert logs.trials.tolist() == [10, 10]
    assert not logs.figures.thinned


# Where a figure lies.


def test_time_and_trials_between_two_lines_are_interpolated() -> None:
    logs = curves(line(0, seconds=2.0), line(4, seconds=10.0), losses=range(7))

    assert logs.loss("step").x.tolist() == list(range(7))
    # Done after each step: 1 ... 7; known at 0, 1 and 5, nothing beyond.
    time = [2, 4, 6, 8, 10, math.nan, math.nan]
    assert np.array_equal(logs.loss("time").x, time, equal_nan=True)
    trials = [10, 20, 30, 40, 50, math.nan, math.nan]
    assert np.array_equal(logs.loss("trials").x, trials, equal_nan=True)


def test_a_validation_is_of_the_state_that_its_step_began_with() -> None:
    logs = curves(
        line(0, validationLoss=3.0), line(1), line(2, validationLoss=2.5), line(3)
    )

    assert logs.validation("step").x.tolist() == [0, 2]
    assert logs.validation("time").x.tolist() == [0, 2]
    assert logs.validation("trials").x.tolist() == [0, 20]
    assert logs.validation("time").y.tolist() == [3.0, 2.5]


def test_a_run_without_times_has_no_curve_over_time() -> None:
    logs = curves({"step": 0}, {"step": 1}, losses=[3.0, 2.0])

    assert np.isnan(logs.loss("time").x).all()
    assert logs.loss("step").usable().x.tolist() == [0, 1]


@settings(deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"step": st.integers(-5, 60)},
            optional={
                "clients": st.one_of(st.none(), st.integers(0, 3)),
                "seconds": st.one_of(st.none(), st.floats(), st.text(max_size=2)),
                "trials": st.one_of(st.none(), st.floats(), st.integers()),
                "validationLoss": st.one_of(st.none(), st.floats()),
            },
        ),
        max_size=30,
    ),
    st.sampled_from(["step", "time", "trials"]),
)
def test_whatever_a_log_holds_curves_ascend(lines: list[Any], by: str) -> None:
    logs = Curves(0, 0, lines, np.arange(60.0))
    for curve in (logs.loss(by), logs.validation(by)):
        known = curve.x[np.isfinite(curve.x)]
        assert (np.diff(known) >= 0).all()
    assert logs.figures.step >= 0


# What they come to.


def test_figures_are_the_last_and_the_best() -> None:
    logs = Curves(
        40,
        43,
        [
            line(40, validationLoss=3.0, time=7.0),
            line(41, validationLoss=2.0),
            line(42),
        ],
        np.array([3.5, 2.5, math.nan]),
    )
    figures = logs.figures

    assert (figures.step, figures.seconds, figures.trials) == (43, 43.0, 30)
    assert not figures.thinned
    assert figures.moment == 7.0
    assert figures.loss == Point(41, 2.5)
    assert figures.validation == Point(41, 2.0)
    assert figures.best == Point(41, 2.0)


def test_a_run_without_steps_has_no_figures() -> None:
    figures = curves(first=10).figures

    assert (figures.step, figures.seconds, figures.trials) == (10, 0.0, 0)
    assert (figures.moment, figures.loss, figures.validation) == (None, None, None)
    assert figures.best is None
    assert not figures.thinned


def test_a_step_without_a_line_is_thinned() -> None:
    assert curves(line(0), line(2)).figures.thinned


# For a picture.


def test_a_short_curve_stays_as_it_is() -> None:
    short = series([1.0, math.nan, 2.0])

    assert thinned(short) is short
    assert smoothed(short) is short


def test_a_long_curve_keeps_its_extremes_and_its_gaps() -> None:
    y = [2.0] * 10_000
    y[1234], y[8765] = 9.0, 0.5
    y[4000:5000] = [math.nan] * 1000
    thin = thinned(series(y))

    assert thin.x.size <= MOST_POINTS
    assert thin.y[thin.x == 1234] == 9.0
    assert thin.y[thin.x == 8765] == 0.5
    gap = thin.y[(thin.x >= 4000) & (thin.x < 5000)]
    assert gap.size >= 100
    assert np.isnan(gap).all()
    assert (np.diff(thin.x) > 0).all()


def test_a_middle_is_that_of_its_stretch() -> None:
    y = [float(i % 3) for i in range(3 * SMOOTH_POINTS)]
    y[0:3] = [math.nan, math.nan, math.nan]
    y[3], y[8] = math.nan, 99.0
    middle = smoothed(series(y))

    assert middle.x.size == SMOOTH_POINTS
    assert np.isnan(middle.y[0])
    assert (middle.x[1], middle.y[1]) == (4.5, 1.5)  # of 1 and 2
    assert (middle.x[2], middle.y[2]) == (7.0, 1.0)  # of 0, 1 and 99


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 10) | st.just(math.nan), min_size=11, max_size=200),
    st.integers(2, 10),
)
def test_thinning_never_invents_a_figure(y: list[float], most: int) -> None:
    whole = series(y)
    thin, mean = thinned(whole, most), smoothed(whole, most)

    assert thin.x.size <= most
    values = dict(zip(whole.x.tolist(), y, strict=True))
    for x, value in zip(thin.x.tolist(), thin.y.tolist(), strict=True):
        assert value == values[x] or math.isnan(value)
    known = [v for v in y if not math.isnan(v)]
    assert math.isclose(np.nanmin([*thin.y, 99]), min([*known, 99]))
    if known:
        inside = mean.y[np.isfinite(mean.y)]
        assert inside.min() >= min(known) - 1e-9
        assert inside.max() <= max(known) + 1e-9

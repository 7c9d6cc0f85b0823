import math
from typing import Any

import numpy as np
import pytest

from utilities.curves import MOST_POINTS, Curves
from utilities.plots import Level, loss_plot


def logs(losses: list[float], seconds: float = 1.0, **last: Any) -> Curves:
    lines = [
        {"step": i, "clients": 1, "seconds": (i + 1) * seconds, "trials": 1000}
        for i in range(len(losses))
    ]
    if lines:
        lines[-1].update(last)
    return Curves(0, 0, lines, np.array(losses, np.float64))


def test_a_plot_has_a_line_for_each_run() -> None:
    plot = loss_plot([("a", logs([3.0, 2.0])), ("b", logs([4.0]))], "step")

    assert [line.name for line in plot.lines] == ["a", "b"]
    assert plot.x_name == "step"
    assert plot.lines[0].raw.y.tolist() == [3, 2]
    assert plot.lines[0].points.x.size == 0
    assert not plot.empty


@pytest.mark.parametrize(
    ("by", "seconds", "name", "last"),
    [
        ("time", 1.0, "seconds trained", 50.0),
        ("time", 60.0, "minutes trained", 50.0),
        ("time", 3600.0, "days trained", 50 / 24),
        ("time", 144.0, "hours trained", 2.0),
        ("trials", 1.0, "thousand trials", 50.0),
    ],
)
def test_units_fit_the_range(by: str, seconds: float, name: str, last: float) -> None:
    plot = loss_plot([("a", logs([3.0] * 50, seconds))], by)

    assert plot.x_name == name
    assert plot.x_scale.low == 0
    assert plot.x_scale.high == pytest.approx(last)
    assert plot.lines[0].raw.x[-1] == pytest.approx(last)


def test_one_wild_step_does_not_flatten_the_others() -> None:
    losses = [3.0 - i / 1000 for i in range(1000)]
    losses[500] = 90.0
    plot = loss_plot([("a", logs(losses))], "step")

    assert plot.y_scale.high < 4
    assert plot.lines[0].raw.y.max() == 90
    assert plot.lines[0].raw.x.size <= MOST_POINTS


def test_levels_outside_of_the_curves_are_left_out() -> None:
    levels = [Level("far", 9.0), Level("near", 2.5)]
    plot = loss_plot([("a", logs([3.0, 2.0]))], "step", levels)

    assert [level.name for level in plot.levels] == ["near"]
    assert plot.y_scale.low < 2 < 3 < plot.y_scale.high


@pytest.mark.parametrize("by", ["step", "time", "trials"])
@pytest.mark.parametrize("losses", [[], [math.nan]])
def test_nothing_to_show_is_an_empty_plot(by: str, losses: list[float]) -> None:
    plot = loss_plot([("a", logs(losses))], by)

    assert plot.empty
    assert plot.x_scale.high > plot.x_scale.low
    assert plot.y_scale.high > plot.y_scale.low


def test_validation_alone_is_something() -> None:
    plot = loss_plot([("a", logs([math.nan], validationLoss=2.5))], "step")

    assert not plot.empty
    assert plot.lines[0].points.y.tolist() == [2.5]

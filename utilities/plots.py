"""What a picture of losses shows, before it is drawn.

Owns: which curves, in which units, over which ranges. Does not own the drawing:
`svgplot` writes SVG, `pngplot` has matplotlib draw.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from utilities.curves import Curves, smoothed, thinned
from utilities.scales import Doubles, Scale, Series

Y_NAME, OTHER_NAME = "nats per character", "bits per character"
_UNITS = {
    "step": (("step", 1.0),),
    "time": (
        ("days trained", 86400.0),
        ("hours trained", 3600.0),
        ("minutes trained", 60.0),
        ("seconds trained", 1.0),
    ),
    "trials": (("million trials", 1e6), ("thousand trials", 1e3), ("trials", 1.0)),
}
MOST_DOTS = 60  # of a run: more would hide each other
_LEAST_OF_UNIT = 2.0  # below that many of a unit the next smaller one reads better
_MARGIN = 0.03  # of the range, above and below


@dataclass(frozen=True, eq=False)
class Line:
    """The losses of one run."""

    name: str
    raw: Series  # each step, thinned
    middle: Series  # of stretches of steps
    points: Series  # validation


@dataclass(frozen=True)
class Level:
    """A loss to compare with."""

    name: str
    nats: float


@dataclass(frozen=True, eq=False)
class Plot:
    """One picture; nothing is drawn outside of the scales."""

    x_name: str
    lines: tuple[Line, ...]
    levels: tuple[Level, ...]  # those within the scale
    x_scale: Scale
    y_scale: Scale

    @property
    def empty(self) -> bool:
        """Return whether there is nothing to show."""
        return not any(
            s.usable().x.size for x in self.lines for s in (x.middle, x.points)
        )


def loss_plot(
    runs: Sequence[tuple[str, Curves]], by: str, levels: Sequence[Level] = ()
) -> Plot:
    """Return the picture of the losses of some runs.

    Args:
        runs: names and logs.
        by: what the curves run over, one of `curves.BY`.
        levels: to compare with; those outside of what the curves span are left out.
    """
    losses = [(name, logs.loss(by), logs.validation(by)) for name, logs in runs]
    xs = _known(s.x for _, loss, points in losses for s in (loss, points))
    if by != "step":
        xs = np.append(xs, 0.0)  # where every run began
    most = float(xs.max(initial=0.0))
    units = _UNITS[by]
    x_name, unit = next((u for u in units if most >= _LEAST_OF_UNIT * u[1]), units[-1])
    lines = tuple(
        Line(
            name,
            _scaled(thinned(loss), unit),
            _scaled(smoothed(loss), unit),
            _scaled(thinned(points), unit),
        )
        for name, loss, points in losses
    )
    # A single wild step must not flatten all others: it may leave the picture.
    ys = _known(s.y for line in lines for s in (line.middle, line.points))
    y_scale = Scale.over(ys if ys.size else np.array([0.0, 1.0]), 0.1)
    margin = _MARGIN * (y_scale.high - y_scale.low)
    y_scale = Scale(y_scale.low - margin, y_scale.high + margin)
    x_scale = Scale.over(xs / unit if xs.size else np.array([0.0, 1.0]), 1.0)
    shown = [x for x in levels if y_scale.low <= x.nats <= y_scale.high]
    return Plot(x_name, lines, tuple(shown), x_scale, y_scale)


def _scaled(series: Series, unit: float) -> Series:
    return Series(series.name, series.x / unit, series.y)


def _known(arrays: Iterable[Doubles]) -> Doubles:
    """Return all numbers of some arrays that can be drawn."""
    values = np.concatenate([np.empty(0), *arrays])
    return np.asarray(values[np.isfinite(values)], np.float64)

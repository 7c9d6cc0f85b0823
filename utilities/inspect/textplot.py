"""A curve and some points as lines of text.

    nats
         │⠱⡀
     3.0 ┤ ⢣o
         │  ⠣⡀
     2.5 ┤   ⠘⠢⡀
         │     ⠈⠑⠒o⠤⠤⠤⣀⣀o⣀⣀⣀⣀⣀o⣀⣀⣀⣀⣀o⣀⣀⣀⣀⣀
         └┬───────────────┬───────────────
          0              500
          step     ⠤ loss   o validation

Owns the characters. Does not own: scales and round labels (`scales`), where figures
come from, how wide the terminal is or what it can show.

The idea: the curve is drawn on a grid of dots, one mean for each column of dots, so a
million figures cost no more lines than ten. A Braille character holds 2 by 4 dots;
where these cannot be shown, each character is one dot.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.scales import Doubles, Scale, Series, label

Dots: TypeAlias = NDArray[np.bool_]

_LABEL = 8  # characters of a number beside the y axis
_MARGIN = _LABEL + 2  # a space and the axis
_NARROWEST = 8  # characters inside: below, no scale would say anything
_ROWS_PER_LABEL = 2
_POINT = "o"
_POINT_COLUMNS = 5  # characters that share one point: more would hide the curve
_BRAILLE = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


@dataclass(frozen=True)
class Signs:
    """The characters of a plot."""

    axis: str
    y_tick: str
    corner: str
    line: str
    x_tick: str
    curve: str  # as the legend shows it
    dots: tuple[int, int]  # rows and columns of dots in one character


UNICODE = Signs("│", "┤", "└", "─", "┬", "⠤", (4, 2))
ASCII = Signs("|", "+", "+", "-", "+", "*", (1, 1))
PROBE = "│┤└─┬⠤⣿"  # an encoding that has these can show `UNICODE`


def text_plot(
    curve: Series,
    points: Series,
    *,
    x_name: str,
    y_name: str,
    width: int,
    height: int,
    signs: Signs,
) -> list[str]:
    """Return the lines of a plot, or none where there is nothing to draw.

    Args:
        curve: drawn as a line, over gaps too.
        points: drawn above it; of those that are close together the last one.
        x_name: what the whole numbers below the plot are.
        y_name: unit of the numbers beside the plot.
        width: characters of a line at most; under 18 nothing sensible fits.
        height: lines of the curve alone; four more are the axis and the words.
        signs: `UNICODE` or `ASCII`.
    """
    curve, points = curve.usable(), points.usable()
    xs = np.concatenate([curve.x, points.x])
    if not xs.size:
        return []
    columns = max(_NARROWEST, width - _MARGIN)
    x_scale = Scale.over(xs, 1.0)
    means, places = _means(curve, x_scale, columns * signs.dots[1])
    y_scale = Scale.over(np.concatenate([means, points.y]), 0.1)
    dots = _draw(means, places, y_scale, (height, columns), signs)
    rows = _characters(dots, signs)
    _mark(rows, points, x_scale, y_scale)
    legend = f"{x_name}     {signs.curve} {curve.name}"
    legend += f"   {_POINT} {points.name}" if points.x.size else ""
    lines = [
        f"{y_name:>{_LABEL}}",
        *_beside_axis(rows, y_scale, signs),
        *_x_axis(x_scale, columns, signs),
        " " * _MARGIN + legend,
    ]
    return [line[:width].rstrip() for line in lines]


def _means(
    curve: Series, scale: Scale, columns: int
) -> tuple[Doubles, NDArray[np.intp]]:
    """Return the mean figure of each column of dots that has one, and the columns."""
    places = scale.places(curve.x, columns)
    counts = np.bincount(places, minlength=columns)
    sums = np.bincount(places, weights=curve.y, minlength=columns)
    taken = np.flatnonzero(counts)
    return np.asarray(sums[taken] / counts[taken], np.float64), taken


def _draw(
    means: Doubles,
    places: NDArray[np.intp],
    scale: Scale,
    size: tuple[int, int],
    signs: Signs,
) -> Dots:
    """Return the grid of dots, top row first, with the curve on it."""
    height, width = size[0] * signs.dots[0], size[1] * signs.dots[1]
    dots = np.zeros((height, width), np.bool_)
    if not places.size:
        return dots
    columns = np.arange(places[0], places[-1] + 1)
    rows = height - 1 - scale.places(np.interp(columns, places, means), height)
    before = rows[0]
    for column, row in zip(columns, rows, strict=True):
        # From beside the last dot on, so that a steep curve has no holes.
        start = before + np.sign(row - before)
        dots[min(start, row) : max(start, row) + 1, column] = True
        before = row
    return dots


def _characters(dots: Dots, signs: Signs) -> list[list[str]]:
    """Return the grid as rows of characters."""
    if signs.dots == (1, 1):
        return [[signs.curve if dot else " " for dot in row] for row in dots]
    high, wide = signs.dots
    cells = dots.reshape(dots.shape[0] // high, high, dots.shape[1] // wide, wide)
    codes = np.einsum("ricj,ij->rc", cells.astype(np.intp), _BRAILLE)
    return [[chr(0x2800 + code) if code else " " for code in row] for row in codes]


def _mark(
    rows: list[list[str]], points: Series, x_scale: Scale, y_scale: Scale
) -> None:
    """Set the last of the points in each few columns on the rows."""
    order = np.argsort(points.x, kind="stable")
    columns = x_scale.places(points.x[order], len(rows[0]))
    heights = y_scale.places(points.y[order], len(rows))
    last = np.diff(columns // _POINT_COLUMNS, append=len(rows[0])) > 0
    for column, height in zip(columns[last], heights[last], strict=True):
        rows[-1 - height][column] = _POINT


def _beside_axis(rows: list[list[str]], scale: Scale, signs: Signs) -> list[str]:
    """Return the rows with the y axis and its numbers, empty for most."""
    values, step = scale.ticks(max(2, len(rows) // _ROWS_PER_LABEL), 0.0)
    labels = [""] * len(rows)
    for value, height in zip(values, scale.places(values, len(rows)), strict=True):
        labels[-1 - height] = label(float(value), step, _LABEL)
    return [
        f"{label:>{_LABEL}} {signs.y_tick if label else signs.axis}{''.join(row)}"
        for label, row in zip(labels, rows, strict=True)
    ]


def _x_axis(scale: Scale, columns: int, signs: Signs) -> list[str]:
    """Return the axis and the line of numbers below it."""
    longest = max(len(f"{end:.0f}") for end in (scale.low, scale.high))
    values, _ = scale.ticks(columns // (min(longest, 15) + 4), 1.0)
    axis, numbers = [signs.line] * columns, " " * columns
    end = 0  # of the numbers so far
    for value, column in zip(values, scale.places(values, columns), strict=True):
        text = f"{value:.0f}" if abs(value) < 1e15 else f"{value:.1e}"
        start = min(max(0, int(column) - len(text) // 2), columns - len(text))
        if start < end:
            continue
        axis[column] = signs.x_tick
        numbers = numbers[:start] + text + numbers[start + len(text) :]
        end = start + len(text) + 1
    edge = " " * (_MARGIN - 1)
    return [edge + signs.corner + "".join(axis), edge + " " + numbers]

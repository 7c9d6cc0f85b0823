"""A plot as SVG, written by ourselves: no package, no script, nothing from outside.

Owns the picture: places, colours, words. Does not own what is shown: that is `plots`.

The idea: one style sheet in the picture serves light and dark; a part of a curve that
has no figures is a gap. An inner <svg> element cuts what leaves the scales, so that no
name is needed that another picture on the same page might have, too.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from utilities.curves import Curves
from utilities.plots import MOST_DOTS, OTHER_NAME, Y_NAME, Level, Line, Plot, loss_plot
from utilities.scales import Doubles, Scale, Series, label

WIDTH, HEIGHT = 760, 440  # of a picture with one line of legend
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 64, 16, 48  # around the curves
_LEGEND_LINE = 20
_LETTER = 6.6  # mean width of a letter at 12 px: no font can be asked here
_LEVEL_ROOM = 16  # above a level that its name needs
_X_TICKS, _Y_TICKS = 9, 8
_LABEL = 12  # characters of a number at most

# Okabe and Ito's palette, which colour-blind people tell apart: light and dark.
_COLOURS = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8c42"),
    ("#009e73", "#2fd6a3"),
    ("#b4508c", "#e59cc6"),
    ("#a87900", "#f0c040"),
    ("#5b4fc4", "#a59cf5"),
    ("#555555", "#bbbbbb"),
)


def _style() -> str:
    light, dark = (
        "".join(f".p{i}{{stroke:{c}}}.q{i}{{fill:{c}}}" for i, c in enumerate(colours))
        for colours in zip(*_COLOURS, strict=True)
    )
    return (
        "text{font:12px system-ui,sans-serif;fill:#222}"
        ".paper{fill:#fff}.axis{stroke:#888;fill:none}.grid{stroke:#e4e4e4}"
        ".level{stroke:#888;stroke-dasharray:5 4}.small{font-size:11px;fill:#666}"
        ".raw,.middle,.join{fill:none;stroke-linejoin:round;stroke-linecap:round}"
        ".raw{stroke-width:1;opacity:.25}.middle{stroke-width:2}"
        f".join{{stroke-width:1;stroke-dasharray:2 3}}{light}"
        "@media (prefers-color-scheme:dark){text{fill:#ddd}.paper{fill:#17191c}"
        f".axis{{stroke:#777}}.grid{{stroke:#2c2f33}}.small{{fill:#aaa}}{dark}}}"
    )


def loss_svg(
    runs: Sequence[tuple[str, Curves]], by: str, levels: Sequence[Level] = ()
) -> str:
    """Return the picture of the losses of some runs.

    Args:
        runs: names and logs.
        by: what the curves run over, one of `curves.BY`.
        levels: losses to compare with.
    """
    return draw(loss_plot(runs, by, levels))


def draw(plot: Plot) -> str:
    """Return a plot as an SVG document."""
    entries, rows = _legend(plot)
    height = HEIGHT + _LEGEND_LINE * (rows - 1)
    top = _TOP + _LEGEND_LINE * rows + 8
    frame = _Frame(plot.x_scale, plot.y_scale, top, height - _BOTTOM - top)
    names = _text(", ".join(line.name for line in plot.lines))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" aria-label="Loss of {names}">',
        f"<style>{_style()}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        *entries,
        *frame.grid(plot.x_name),
        f'<svg x="{_LEFT}" y="{top}" width="{frame.width}" height="{frame.height}" '
        'overflow="hidden">',
        *(part for level in plot.levels for part in frame.level(level)),
        *(p for i, line in enumerate(plot.lines) for p in frame.line(line, i)),
        "</svg>",
    ]
    if plot.empty:
        middle = f'x="{WIDTH / 2:g}" y="{height / 2:g}" text-anchor="middle"'
        parts.append(f"<text {middle}>no loss yet</text>")
    return "\n".join([*parts, "</svg>", ""])


def _legend(plot: Plot) -> tuple[list[str], int]:
    """Return the names of the lines as parts of the picture, and how many rows."""
    parts, x, row = [], _LEFT, 0
    for number, line in enumerate(plot.lines):
        width = 34 + math.ceil(_LETTER * len(line.name))
        if x > _LEFT and x + width > WIDTH - _RIGHT:
            x, row = _LEFT, row + 1
        y = _TOP + _LEGEND_LINE * row
        parts.append(
            f'<line class="middle p{number % len(_COLOURS)}" x1="{x}" x2="{x + 18}" '
            f'y1="{y}" y2="{y}"/><text x="{x + 24}" y="{y + 4}">'
            f"{_text(line.name)}</text>"
        )
        x += width
    y = _TOP + _LEGEND_LINE * (row + 1)
    parts.append(
        f'<text class="small" x="{_LEFT}" y="{y + 4}">line: training loss, faint: '
        "each step, dots: validation loss</text>"
    )
    return parts, row + 2


class _Frame:
    """The rectangle of the curves, and where a figure lies in it."""

    def __init__(self, x: Scale, y: Scale, top: int, height: int) -> None:
        self.x, self.y, self.top, self.height = x, y, top, height
        self.width = WIDTH - _LEFT - _RIGHT

    def across(self, values: Doubles) -> Doubles:
        return self.x.shares(values) * self.width

    def down(self, values: Doubles) -> Doubles:
        return (1 - self.y.shares(values)) * self.height

    def grid(self, x_name: str) -> Iterator[str]:
        """Yield axes, lines of the grid, numbers and names."""
        right, bottom = _LEFT + self.width, self.top + self.height
        values, step = self.x.ticks(_X_TICKS, 0.0)
        for value, place in zip(values, _LEFT + self.across(values), strict=True):
            yield f'<path class="grid" d="M{place:.1f} {self.top}V{bottom}"/>'
            yield (
                f'<text x="{place:.1f}" y="{bottom + 18}" text-anchor="middle">'
                f"{_number(value, step)}</text>"
            )
        values, step = self.y.ticks(_Y_TICKS, 0.0)
        for value, place in zip(values, self.top + self.down(values), strict=True):
            yield f'<path class="grid" d="M{_LEFT} {place:.1f}H{right}"/>'
            yield (
                f'<text x="{_LEFT - 8}" y="{place + 4:.1f}" text-anchor="end">'
                f"{_number(value, step)}</text>"
            )
        yield from self._other_axis(right)
        sides = f"M{_LEFT} {self.top}V{bottom}H{right}V{self.top}"
        yield f'<path class="axis" d="{sides}"/>'
        middle = self.top + self.height / 2
        for name, x, turn in ((Y_NAME, 16, -90), (OTHER_NAME, WIDTH - 14, 90)):
            yield (
                f'<text transform="translate({x} {middle:g}) rotate({turn})" '
                f'text-anchor="middle">{name}</text>'
            )
        yield (
            f'<text x="{_LEFT + self.width / 2:g}" y="{bottom + 38}" '
            f'text-anchor="middle">{x_name}</text>'
        )

    def _other_axis(self, right: int) -> Iterator[str]:
        """Yield the numbers at the right: the same losses in bits."""
        bit = math.log(2)
        values, step = Scale(self.y.low / bit, self.y.high / bit).ticks(_Y_TICKS, 0.0)
        places = self.top + self.down(values * bit)
        for value, place in zip(values, places, strict=True):
            yield f'<path class="axis" d="M{right} {place:.1f}h4"/>'
            number = _number(value, step)
            yield f'<text x="{right + 8}" y="{place + 4:.1f}">{number}</text>'

    def level(self, level: Level) -> Iterator[str]:
        """Yield a loss to compare with."""
        y = float(self.down(np.array([level.nats]))[0])
        yield f'<path class="level" d="M0 {y:.1f}H{self.width}"/>'
        name_y = y - 4 if y > _LEVEL_ROOM else y + 12
        yield (
            f'<text class="small" x="{self.width - 6}" y="{name_y:.1f}" '
            f'text-anchor="end">{_text(level.name)}</text>'
        )

    def line(self, line: Line, number: int) -> Iterator[str]:
        """Yield the curves of a run."""
        colour = number % len(_COLOURS)
        for name, series in (
            ("raw", line.raw),
            ("middle", line.middle),
            ("join", line.points),
        ):
            path = self._path(series)
            if path:
                yield f'<path class="{name} p{colour}" d="{path}"/>'
        points = line.points.usable()
        step = math.ceil(points.x.size / MOST_DOTS) or 1
        xs = self.across(points.x[::-step])  # backwards: the newest one is shown
        ys = self.down(points.y[::-step])
        dots = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
            for x, y in zip(xs, ys, strict=True)
        )
        if dots:
            yield f'<g class="q{colour}">{dots}</g>'

    def _path(self, series: Series) -> str:
        """Return a line through the figures, broken where there is none."""
        xs, ys = self.across(series.x), self.down(series.y)
        known = np.isfinite(xs) & np.isfinite(ys)
        starts = known & ~np.append(False, known[:-1])
        ends = known & ~np.append(known[1:], False)
        words = []
        for place in np.flatnonzero(known):
            words.append(f"{'M' if starts[place] else 'L'}{xs[place]:.1f} ")
            # One figure between two gaps: a line of no length, which round ends show.
            dot = "h0" if starts[place] and ends[place] else ""
            words.append(f"{_within(ys[place], self.height):.1f}{dot}")
        return "".join(words)


def _text(words: str) -> str:
    """Return words as XML has them, which allows no control characters."""
    return escape("".join(c if c.isprintable() else "?" for c in words))


def _within(y: float, height: float) -> float:
    """Return a place that cannot be absurdly far from the picture."""
    return min(max(y, -10 * height), 11 * height)


def _number(value: float, step: float) -> str:
    return label(float(value), step, _LABEL)

"""A plot as PNG, drawn by matplotlib where that is installed.

Owns the call of a package that is an extra. Does not own what is shown: that is
`plots`. Nothing here opens a window or needs a display.
"""

import importlib
import io
import math
import sys
from pathlib import Path
from typing import Any

from utilities.errors import TrainingError
from utilities.plots import MOST_DOTS, OTHER_NAME, Y_NAME, Line, Plot

_SIZE = (10.0, 5.8)  # inches
_DPI = 120
_REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements-plots.txt"


def draw(plot: Plot) -> bytes:
    """Return a plot as a PNG file.

    Raises:
        TrainingError: matplotlib is not installed.
    """
    # The object's own canvas is Agg's: no global state, no display.
    figure = _figure_class()(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    for number, line in enumerate(plot.lines):
        _draw_line(axes, line, f"C{number % 10}")
    for level in plot.levels:
        axes.axhline(level.nats, color="0.5", linestyle="--", linewidth=1)
        axes.annotate(
            level.name,
            (1, level.nats),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize="small",
        )
    axes.set_xlim(plot.x_scale.low, plot.x_scale.high)
    axes.set_ylim(plot.y_scale.low, plot.y_scale.high)
    axes.set_xlabel(plot.x_name)
    axes.set_ylabel(Y_NAME)
    ln2 = math.log(2)
    other = axes.secondary_yaxis("right", functions=(_times(1 / ln2), _times(ln2)))
    other.set_ylabel(OTHER_NAME)
    axes.grid(alpha=0.3)
    axes.legend(title="line: training, dots: validation", title_fontsize="small")
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _figure_class() -> Any:
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise TrainingError(
            f"{package} is not installed, which PNG needs; write .svg, or run: "
            f"{sys.executable} -m pip install -r {_REQUIREMENTS}"
        ) from error


def _draw_line(axes: Any, line: Line, colour: str) -> None:
    # A name is text, not mathematics, and one that begins with _ is shown, too.
    name = line.name.replace("$", r"\$")
    axes.plot(line.raw.x, line.raw.y, color=colour, linewidth=0.8, alpha=0.25)
    axes.plot(
        line.middle.x, line.middle.y, color=colour, linewidth=1.8, label=f" {name}"
    )
    axes.plot(
        *(line.points.x, line.points.y, "o:"),
        color=colour,
        markersize=4,
        markevery=math.ceil(line.points.x.size / MOST_DOTS) or 1,
        linewidth=0.8,
    )


def _times(factor: float) -> Any:
    return lambda values: values * factor

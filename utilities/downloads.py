"""Files of a run that the live page gives away.

Owns: what they are called and hold. Does not own who gets them (`page`).
"""

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from utilities.export import exported
from utilities.misc import camel_case
from utilities.runlogs import StepMetrics
from utilities.runs import Run
from utilities.svgplot import loss_svg

COLUMNS = tuple(camel_case(each.name) for each in fields(StepMetrics))


@dataclass(frozen=True)
class Download:
    """A file made of a run."""

    name: str
    kind: str  # content type
    content: bytes


def metrics_csv(run: Run) -> Download:
    """Return the lines of metrics.jsonl as a table: a column for each of their keys.

    Raises:
        RunError: they cannot be read.
    """
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(COLUMNS)
    for metrics in run.metrics:
        table.writerow([_cell(metrics.get(column)) for column in COLUMNS])
    name = f"run-{run.number}-metrics.csv"
    return Download(name, "text/csv; charset=utf-8", file.getvalue().encode())


def _cell(value: Any) -> object:
    """Return a number or a word as it is, anything else as nothing.

    A spreadsheet takes a text like ``=1+1`` for an order, and anybody may have written
    the logs.
    """
    word = isinstance(value, str) and value.isascii() and value.isalnum()
    return value if word or isinstance(value, int | float) else ""


def loss_picture(run: Run) -> Download:
    """Return the run's loss over its steps, as SVG.

    Raises:
        RunError: the logs cannot be read.
    """
    picture = loss_svg([(f"run {run.number}", run.curves)], "step")
    return Download(
        f"run-{run.number}-loss.svg", "image/svg+xml", picture.encode("utf-8")
    )


def weights_npz(run: Run) -> Download:
    """Return the newest weights, as `export --to npz` writes them.

    Raises:
        RunError: there are none, or they are damaged.
    """
    model = run.model()
    name = f"run-{run.number}-step-{model.step:06d}.npz"
    return Download(name, "application/zip", exported(model, run.record, "npz"))


ROUTES: Mapping[str, Callable[[Run], Download]] = {
    "/metrics.csv": metrics_csv,
    "/loss.svg": loss_picture,
    "/weights.npz": weights_npz,
}

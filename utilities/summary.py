"""What a run's files say of it, as lines for people.

Owns: the figures that logs come to, the line of a run in a list, the page of one run.
Does not own: reading the files (`runs`, `runlogs`), the plot (`textplot`), where lines
go and how wide a terminal is (`inspect`).

The idea: figures are read once into `Figures`; what is missing, torn or makes no sense
is left out, never guessed, so a run can be looked at while it is trained.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utilities.config import Config
from utilities.display import WIDTH, bits, duration, printable
from utilities.errors import TrainingError
from utilities.runfiles import listed, reading
from utilities.runlogs import read_losses, read_metrics
from utilities.runs import CONFIG, Run, RunStore
from utilities.textplot import Series, Signs, text_plot

PLOT_HEIGHT = 14
NO_FIGURE = "-"
_GAP = "  "
_NAME_WIDTH = 40  # of a text or version on the page of a run
_HASH_DIGITS = 12  # enough to tell texts apart
_MAX_STEP = 1 << 48
_LARGEST = 1e18  # number in a log that is believed


# What the logs come to.


@dataclass(frozen=True)
class Figures:
    """What metrics.jsonl says of a run."""

    step: int  # that the run is at
    seconds: float  # trained
    trials: int  # a line that was thinned out counts like the next one
    thinned: bool
    moment: float  # of the last sign of life, in seconds since 1970
    validations: tuple[tuple[int, float], ...]  # step, nats per character


def read_figures(run: Run) -> Figures:
    """Return what a run's metrics come to.

    Raises:
        RunError: the file cannot be read.
    """
    lines = [m for m in read_metrics(run) if 0 <= m["step"] < _MAX_STEP]
    at, trials, seconds, moment = run.first_step, 0.0, 0.0, 0.0
    validations, steps = [], 0
    for metrics in lines:
        began = metrics.get("clients") != 0  # else the state that a session ended with
        steps += began
        after = metrics["step"] + began
        trials += (_number(metrics, "trials") or 0.0) * (after - at)
        at = after
        seconds = _number(metrics, "seconds") or seconds
        moment = _number(metrics, "time") or moment
        loss = _number(metrics, "validationLoss")
        if loss is not None:
            validations.append((metrics["step"], loss))
    if not moment:
        with reading(run.path / CONFIG):
            moment = (run.path / CONFIG).stat().st_mtime
    return Figures(
        step=max(at, run.record.config.step_num),
        seconds=seconds,
        trials=round(trials),
        thinned=steps < at - run.first_step,
        moment=moment,
        validations=tuple(validations),
    )


def _number(metrics: dict[str, Any], key: str) -> float | None:
    """Return a number that is not negative, if that is what is there."""
    value = metrics.get(key)
    # Compared before it is converted: a whole number may be too large for a float.
    if isinstance(value, int | float) and 0 <= value < _LARGEST:
        return float(value)
    return None


def _bytes_below(folder: Path) -> int:
    """Return the size of all files; one that goes meanwhile does not count."""
    total = 0
    with reading(folder):
        for path in folder.rglob("*"):
            with suppress(OSError):
                total += path.lstat().st_size
    return total


# Words.


def _cells(text: str) -> int:
    """Return how many places of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def fitted(text: str, width: int) -> str:
    """Return the start of a text, marked where it was cut to so many places.

    What a terminal would obey is replaced.
    """
    text = printable(text)
    if _cells(text) <= width:
        return text
    kept = text[:width]
    while _cells(kept) > width - 1:
        kept = kept[:-1]
    return kept + "…"


def span(seconds: float) -> str:
    """Return a length of time in one unit: ``42 s``, ``5 min``, ``30 h``, ``3 d``."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def size(count: float) -> str:
    """Return bytes in two or three digits: ``999 B``, ``1.2 kB``, ``45 MB``."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        del units[0]
    digits = 1 if units[0] != "B" and count < 9.95 else 0
    return f"{count:.{digits}f} {units[0]}"


def shown(value: object) -> str:
    """Return a value as a configuration file or flag has it."""
    if isinstance(value, float):
        return f"{value:.15g}"
    return "null" if value is None else str(value)


def _count(number: int) -> str:
    """Return a whole number in eight characters at most."""
    return str(number) if number < 10**8 else f"{number:.2e}"


def _model(config: Config) -> str:
    return f"{config.model_type} {config.n_layers}x{config.hidden_size}"


# The list.

_HEADER = ("run", "model", "text", "step", "val nats (bits)", "age", "saved", "size")
_TEXT = 2  # the column that takes what the others leave
_LEFT = (1, _TEXT)  # columns that are not numbers


def list_lines(store: RunStore, now: float) -> list[str]:
    """Return a heading and a line for each run, or nothing where there is no run.

    A run that is damaged gets a line that says so and hides no other.

    Args:
        store: the runs.
        now: seconds since 1970.

    Raises:
        RunError: the folder of the runs cannot be read.
    """
    rows, damaged = [_HEADER], []
    for number in store.numbers():
        try:
            rows.append(_row(store.open(number, lock=False), now))
        except TrainingError as error:
            # The folder is what the number says already; the file is what matters.
            reason = str(error).replace(f"{store.root / str(number)}{os.sep}", "")
            damaged.append(fitted(f"{number:>3}{_GAP}damaged: {reason}", WIDTH))
    lines = list(_table(rows)) if len(rows) > 1 else []
    if damaged:
        lines += [*damaged, "What is damaged is told in full by: show N"]
    return lines


def _row(run: Run, now: float) -> tuple[str, str, str, str, str, str, str, str]:
    figures = read_figures(run)
    validation = NO_FIGURE
    if figures.validations:
        nats = figures.validations[-1][1]
        validation = f"{nats:.3f} ({bits(nats):.3f})"
    return (
        str(run.number),
        _model(run.record.config),
        run.record.text_name,
        _count(figures.step),
        validation,
        span(now - figures.moment),
        str(len({*run.checkpoint_steps(), *run.weights_steps()})),
        size(_bytes_below(run.path)),
    )


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield the rows below each other, the text cut to what the others leave."""
    widths = [max(map(_cells, column)) for column in zip(*rows, strict=True)]
    others = sum(widths) - widths[_TEXT] + len(_GAP) * (len(widths) - 1)
    widths[_TEXT] = min(widths[_TEXT], WIDTH - others)
    for row in rows:
        cells = []
        for column, (text, width) in enumerate(zip(row, widths, strict=True)):
            cell = fitted(text, width)
            space = " " * (width - _cells(cell))
            cells.append(cell + space if column in _LEFT else space + cell)
        yield _GAP.join(cells)


# The page of one run.


def show_lines(run: Run, now: float, plot_width: int, signs: Signs) -> list[str]:
    """Return the figures of a run, its loss as a plot, and its configuration.

    Args:
        run: opened for reading.
        now: seconds since 1970.
        plot_width: characters of a line of the plot at most; of the others `WIDTH`.
        signs: that the plot is drawn with.

    Raises:
        RunError: a file cannot be read.
    """
    figures, losses = read_figures(run), read_losses(run)
    facts = (*_facts(run, figures, now), *_losses(run, figures, losses), *_files(run))
    return [
        *(fitted(f"{name:<13}{value}", WIDTH) for name, value in facts),
        "",
        *(_plot(run, figures, losses, plot_width, signs) or ["no step has a loss yet"]),
        "",
        *_configuration(run.record.config),
    ]


def _facts(run: Run, figures: Figures, now: float) -> Iterator[tuple[str, str]]:
    record = run.record
    name, version = (
        fitted(text, _NAME_WIDTH) for text in (record.text_name, record.program)
    )
    yield "run", f"{run.number}, begun with version {version}"
    yield "model", _model(record.config)
    yield "text", f"{name}, SHA-256 {record.text_sha256[:_HASH_DIGITS]}…"
    begun = f", begun at {run.first_step}" if run.first_step else ""
    yield "step", f"{figures.step}{begun}"
    yield "trials", f"{'about ' if figures.thinned else ''}{figures.trials:,}"
    yield "trained", duration(figures.seconds)
    yield "last active", f"{span(now - figures.moment)} ago"


def _files(run: Run) -> Iterator[tuple[str, str]]:
    for name, steps in (
        ("checkpoints", run.checkpoint_steps()),
        ("weights only", run.weights_steps()),
    ):
        yield name, listed("step", steps) if steps else NO_FIGURE
    yield "size", size(_bytes_below(run.path))


def _losses(
    run: Run, figures: Figures, losses: NDArray[np.float64]
) -> Iterator[tuple[str, str]]:
    known = np.flatnonzero(np.isfinite(losses))
    last = (run.first_step + int(known[-1]), losses[known[-1]]) if known.size else None
    newest = figures.validations[-1] if figures.validations else None
    best = min(figures.validations, key=lambda pair: pair[1], default=None)
    for name, pair in (("loss", last), ("validation", newest), ("best", best)):
        words = NO_FIGURE
        if pair is not None:
            step, nats = pair
            words = f"{nats:.4f} nats, {bits(nats):.4f} bits per character, step {step}"
        yield name, words


def _plot(
    run: Run, figures: Figures, losses: NDArray[np.float64], width: int, signs: Signs
) -> list[str]:
    steps = run.first_step + np.arange(losses.size, dtype=np.float64)
    validations = np.array(figures.validations, np.float64).reshape(-1, 2)
    return text_plot(
        Series("loss", steps, losses),
        Series("validation", validations[:, 0], validations[:, 1]),
        x_name="step",
        y_name="nats",
        width=width,
        height=PLOT_HEIGHT,
        signs=signs,
    )


def _configuration(config: Config) -> Iterator[str]:
    """Yield a line for each key, marked where its value is not the default."""
    yield "configuration (* differs from the default)"
    defaults = Config().to_json()
    for key, value in config.to_json().items():
        if value == defaults[key]:
            yield f"  {key:<21}{shown(value)}"
        else:
            yield f"* {key:<21}{shown(value):<16} default {shown(defaults[key])}"

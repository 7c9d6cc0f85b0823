"""What a run's files say of it: as data, as a line of a list, as a page.

Owns: the overview of a run, the list of runs, the page of one. Does not own: reading
the logs (`curves`), the plot (`textplot`), where lines go and how wide a terminal is
(`console` and the commands).

The idea: a run is looked at once, into an `Overview`; what is missing, torn or makes no
sense is left out, never guessed, so a run can be looked at while it is trained.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utilities.config import Config
from utilities.curves import Curves, Figures, Point
from utilities.display import WIDTH, bits, duration
from utilities.errors import TrainingError
from utilities.inspect.textplot import Signs, text_plot
from utilities.inspect.words import (
    GAP,
    NO_FIGURE,
    count,
    fitted,
    model_name,
    shown,
    size,
    span,
    table,
)
from utilities.misc import camel_case
from utilities.runfiles import listed, reading
from utilities.runs import CONFIG, Run, RunStore
from utilities.scales import Doubles

PLOT_HEIGHT = 14
_NAME_WIDTH = 40  # of a text or version on the page of a run
_HASH_DIGITS = 12  # enough to tell texts apart
_LEAST_QUALITIES = 5  # steps whose mean cosine says something
_RECENT = 100  # steps that a recent figure is the mean or median of


@dataclass(frozen=True)
class Overview:
    """What there is to know of a run without its model."""

    run: Run
    curves: Curves
    figures: Figures
    moment: float  # of the last sign of life, in seconds since 1970
    checkpoints: tuple[int, ...]
    weights_only: tuple[int, ...]
    bytes: int

    def to_json(self, now: float) -> dict[str, Any]:
        """Return all of it as plain data; ``now`` is in seconds since 1970."""
        record, figures = self.run.record, self.figures
        return {
            "run": self.run.number,
            "path": str(self.run.path),
            "program": record.program,
            "model": model_name(record.config),
            "text": record.text_name,
            "textSha256": record.text_sha256,
            "firstStep": self.run.first_step,
            "step": figures.step,
            "trials": figures.trials,
            "trialsAreRough": figures.thinned,
            "seconds": figures.seconds,
            "lastActive": self.moment,
            "age": now - self.moment,
            "loss": _point_json(figures.loss),
            "validation": _point_json(figures.validation),
            "best": _point_json(figures.best),
            **{camel_case(k): v for k, v in asdict(Recent.of(self.curves)).items()},
            "checkpoints": list(self.checkpoints),
            "weightsOnly": list(self.weights_only),
            "bytes": self.bytes,
            "config": record.config.to_json(),
        }


def _point_json(point: Point | None) -> dict[str, Any] | None:
    if point is None:
        return None
    return {"step": point.step, "nats": point.nats, "bits": bits(point.nats)}


def look(run: Run) -> Overview:
    """Return the overview of a run.

    Raises:
        RunError: a file cannot be read.
    """
    curves = run.curves
    moment = curves.figures.moment
    if moment is None:
        with reading(run.path / CONFIG):
            moment = (run.path / CONFIG).stat().st_mtime
    return Overview(
        run=run,
        curves=curves,
        figures=curves.figures,
        moment=moment,
        checkpoints=tuple(run.checkpoint_steps()),
        weights_only=tuple(run.weights_steps()),
        bytes=_bytes_below(run.path),
    )


def _bytes_below(folder: Path) -> int:
    """Return the size of all files; one that goes meanwhile does not count."""
    total = 0
    with reading(folder):
        for path in folder.rglob("*"):
            with suppress(OSError):
                total += path.lstat().st_size
    return total


@dataclass(frozen=True)
class Recent:
    """What the last steps were like; None where their version did not say."""

    time_per_step: float | None  # seconds of trials that were asked for, median
    trial_seconds: float | None  # median, as are these
    update_seconds: float | None
    gradient_quality: float | None  # mean cosine of two halves of the trials
    quality_error: float | None  # of the mean, one standard error

    @classmethod
    def of(cls, curves: Curves) -> "Recent":
        """Return what the last steps of a run were like."""
        steps = curves.column("clients")[-_RECENT:] != 0  # the others are no steps

        def last(key: str, least: float = 0.0) -> Doubles:
            values = curves.column(key, least)[-_RECENT:][steps]
            return np.asarray(values[np.isfinite(values)], np.float64)

        asked, trials, update = (
            float(np.median(times)) if (times := last(key)).size else None
            for key in ("timePerStep", "trialSeconds", "updateSeconds")
        )
        quality = last("gradientQuality", -1.0)
        mean = error = None
        if quality.size >= _LEAST_QUALITIES:
            mean = float(quality.mean())
            error = float(quality.std(ddof=1) / np.sqrt(quality.size))
        return cls(asked, trials, update, mean, error)

    def facts(self) -> Iterator[tuple[str, str]]:
        """Yield names and words of what is known."""
        times = (
            ("asked", self.time_per_step),
            ("trials", self.trial_seconds),
            ("update", self.update_seconds),
        )
        words = [f"{name} {value:.3g} s" for name, value in times if value is not None]
        if words:
            yield "a step", ", ".join(words)
        if self.gradient_quality is not None:
            figure = f"{self.gradient_quality:.3f} ± {self.quality_error:.3f}"
            yield "gradient", f"{figure}, cosine of two halves of the trials"


# The list.

_HEADER = ("run", "model", "text", "step", "val nats (bits)", "age", "saved", "size")
_TEXT = 2  # the column that takes what the others leave
_LEFT = (1, _TEXT)  # columns that are not numbers


def look_at_all(store: RunStore) -> tuple[list[Overview], dict[int, str]]:
    """Return the overviews of all runs that can be read, and what hinders the others.

    Raises:
        RunError: the folder of the runs cannot be read.
    """
    overviews = []
    missing = f"no run: {CONFIG} is missing (never finished, or lost)"
    damaged = dict.fromkeys(store.unfinished(), missing)
    for number in store.numbers():
        try:
            overviews.append(look(store.open(number, lock=False)))
        except TrainingError as error:
            # The folder is what the number says already; the file is what matters.
            reason = str(error).replace(f"{store.root / str(number)}{os.sep}", "")
            damaged[number] = f"damaged: {reason}"
    return overviews, dict(sorted(damaged.items()))


def list_lines(store: RunStore, now: float) -> list[str]:
    """Return a heading and a line for each run, or nothing where there is no run.

    A run that is damaged gets a line that says so and hides no other.

    Args:
        store: the runs.
        now: seconds since 1970.

    Raises:
        RunError: the folder of the runs cannot be read.
    """
    overviews, damaged = look_at_all(store)
    rows = [_HEADER, *(_row(overview, now) for overview in overviews)]
    lines = list(table(rows, _LEFT, _TEXT)) if overviews else []
    for number, reason in damaged.items():
        lines.append(fitted(f"{number:>3}{GAP}{reason}", WIDTH))
    if damaged:
        lines.append("What is damaged is told in full by: show N")
    return lines


def _row(overview: Overview, now: float) -> tuple[str, ...]:
    validation = NO_FIGURE
    if overview.figures.validation:
        nats = overview.figures.validation.nats
        validation = f"{nats:.3f} ({bits(nats):.3f})"
    return (
        str(overview.run.number),
        model_name(overview.run.record.config),
        overview.run.record.text_name,
        count(overview.figures.step),
        validation,
        span(now - overview.moment),
        str(len({*overview.checkpoints, *overview.weights_only})),
        size(overview.bytes),
    )


# The page of one run.


def show_lines(
    overview: Overview, now: float, plot_width: int, signs: Signs
) -> list[str]:
    """Return the figures of a run, its loss as a plot, and its configuration.

    Args:
        overview: of the run.
        now: seconds since 1970.
        plot_width: characters of a line of the plot at most; of the others `WIDTH`.
        signs: that the plot is drawn with.
    """
    return [
        *(fitted(f"{name:<13}{value}", WIDTH) for name, value in facts(overview, now)),
        "",
        *(_plot(overview, plot_width, signs) or ["no step has a loss yet"]),
        "",
        *_configuration(overview.run.record.config),
    ]


def facts(overview: Overview, now: float) -> Iterator[tuple[str, str]]:
    """Yield names and words of what there is to know of a run."""
    run, figures = overview.run, overview.figures
    name, version = (
        fitted(text, _NAME_WIDTH) for text in (run.record.text_name, run.record.program)
    )
    yield "run", f"{run.number}, begun with version {version}"
    yield "model", model_name(run.record.config)
    yield "text", f"{name}, SHA-256 {run.record.text_sha256[:_HASH_DIGITS]}…"
    begun = f", begun at {run.first_step}" if run.first_step else ""
    yield "step", f"{figures.step}{begun}"
    yield "trials", f"{'about ' if figures.thinned else ''}{figures.trials:,}"
    yield "trained", duration(figures.seconds)
    yield "last active", f"{span(now - overview.moment)} ago"
    for title, point in (
        ("loss", figures.loss),
        ("validation", figures.validation),
        ("best", figures.best),
    ):
        yield title, _point_words(point)
    yield from Recent.of(overview.curves).facts()
    for title, steps in (
        ("checkpoints", overview.checkpoints),
        ("weights only", overview.weights_only),
    ):
        yield title, listed("step", list(steps)) if steps else NO_FIGURE
    yield "size", size(overview.bytes)


def _point_words(point: Point | None) -> str:
    if point is None:
        return NO_FIGURE
    nats = point.nats
    return f"{nats:.4f} nats, {bits(nats):.4f} bits per character, step {point.step}"


def _plot(overview: Overview, width: int, signs: Signs) -> list[str]:
    return text_plot(
        overview.curves.loss("step"),
        overview.curves.validation("step"),
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

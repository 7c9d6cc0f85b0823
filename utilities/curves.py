"""What the logs of a run say, as columns of numbers and as curves.

Owns: the figures in metrics.jsonl and loss.txt put side by side, what they come to, a
curve over steps, time or trials, thinning it for a picture. Does not own: reading the
files (`logfiles`), drawing, words.

The idea: every line is placed by how many steps were done when it was written. What a
line lacks, because its version did not know the key or because it makes no sense, is
nan: a gap in a curve, never a guess. loss.txt has every step, metrics.jsonl a line a
second of them, so time and trials of the steps between are interpolated.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utilities.scales import Doubles, Series

BY = ("step", "time", "trials")  # what a curve can run over
MOST_POINTS = 2000  # of a curve in a picture
SMOOTH_POINTS = 150  # of its middle
_MAX_STEP = 1 << 48
_LARGEST = 1e18  # number in a log that is believed


@dataclass(frozen=True)
class Point:
    """A loss that was measured."""

    step: int
    nats: float  # per character


@dataclass(frozen=True)
class Figures:
    """What the logs of a run come to."""

    step: int  # that the run is at
    seconds: float  # trained
    trials: int  # a line that was thinned out counts like the next one
    thinned: bool
    moment: float | None  # of the last line, in seconds since 1970
    loss: Point | None  # the last one of training
    validation: Point | None  # the last one
    best: Point | None  # of validation


class Curves:
    """The logs of a run side by side."""

    def __init__(
        self,
        first_step: int,
        step_num: int,
        metrics: Sequence[dict[str, Any]],
        losses: Doubles,
    ) -> None:
        """Put them side by side.

        Args:
            first_step: of the run.
            step_num: that its newest checkpoint is at.
            metrics: objects of metrics.jsonl; those with an impossible step are left
                out.
            losses: of each step from the first one on, nan for none.
        """
        self.first_step = first_step
        self._step_num = step_num
        # Comparisons with nan are false.
        self.losses = np.where(np.abs(losses) < _LARGEST, losses, np.nan)
        lines = [m for m in metrics if 0 <= m["step"] < _MAX_STEP]
        # A torn and repaired log need not ascend; a curve must.
        self.lines = sorted(lines, key=lambda line: int(line["step"]))

    def column(self, key: str, least: float = 0.0) -> Doubles:
        """Return a number of each line, nan where there is none: (lines,).

        Args:
            key: of metrics.jsonl.
            least: number that makes sense.
        """
        numbers = [_number(line.get(key), least) for line in self.lines]
        return np.array(numbers, np.float64)

    @cached_property
    def steps(self) -> Doubles:
        """Return the step of each line: (lines,)."""
        return np.array([line["step"] for line in self.lines], np.float64)

    @cached_property
    def done(self) -> Doubles:
        """Return how many steps were done after each line: (lines,).

        A line without clients is the state that a session ended with: no step.
        """
        return np.maximum.accumulate(self.steps + (self.column("clients") != 0))

    @cached_property
    def trials(self) -> Doubles:
        """Return the trials so far at each line: (lines,).

        A line that was thinned out counts like the next one.
        """
        each = np.nan_to_num(self.column("trials"))
        totals = np.cumsum(each * np.diff(self.done, prepend=self.first_step))
        return np.asarray(totals, np.float64)

    @cached_property
    def seconds(self) -> Doubles:
        """Return the seconds trained so far at each line, nan for none: (lines,)."""
        return self.column("seconds")

    def at(self, by: str, done: Doubles) -> Doubles:
        """Return time or trials after so many steps, nan beyond the last line.

        Args:
            by: one of `BY`; ``step`` gives what it got.
            done: steps, counted as in the logs: (n,).
        """
        assert by in BY, by
        if by == "step":
            return done
        known, totals = self.done, self.seconds if by == "time" else self.trials
        there = np.isfinite(totals)
        known = np.append(self.first_step, known[there])
        totals = np.maximum.accumulate(np.append(0.0, totals[there]))
        return np.interp(done, known, totals, right=np.nan)

    def loss(self, by: str) -> Series:
        """Return the loss of every step."""
        steps = self.first_step + np.arange(self.losses.size, dtype=np.float64)
        return Series("loss", self.at(by, steps + (by != "step")), self.losses)

    def validation(self, by: str) -> Series:
        """Return the validation losses, without gaps."""
        values = self.column("validationLoss")
        there = np.isfinite(values)
        return Series("validation", self.at(by, self.steps[there]), values[there])

    @cached_property
    def figures(self) -> Figures:
        """Return what the logs come to."""
        step = int(self.done.max(initial=self.first_step))
        measured = self.validation("step")
        validations = _points(measured.x, measured.y)
        last = np.flatnonzero(np.isfinite(self.losses))[-1:]
        losses = _points(self.first_step + last, self.losses[last])
        return Figures(
            step=max(step, self._step_num),
            seconds=_last(self.seconds) or 0.0,
            trials=round(float(self.trials[-1])) if self.steps.size else 0,
            thinned=int(np.sum(self.done > self.steps)) < step - self.first_step,
            moment=_last(self.column("time")),
            loss=losses[-1] if losses else None,
            validation=validations[-1] if validations else None,
            best=min(validations, key=lambda point: point.nats, default=None),
        )


def _number(value: object, least: float) -> float:
    """Return a number that makes sense, else nan."""
    # Compared before it is converted: a whole number may be too large for a float.
    if isinstance(value, int | float) and least <= value < _LARGEST:
        return float(value)
    return float("nan")


def _last(values: Doubles) -> float | None:
    known = values[np.isfinite(values)]
    return float(known[-1]) if known.size else None


def _points(steps: NDArray[Any], values: Doubles) -> list[Point]:
    return [Point(int(s), float(v)) for s, v in zip(steps, values, strict=True)]


# For a picture.


def thinned(series: Series, most: int = MOST_POINTS) -> Series:
    """Return so many points at most: of each stretch the lowest and the highest.

    A stretch without figures stays a gap.
    """
    if series.x.size <= most:
        return series
    edges = np.linspace(0, series.x.size, most // 2 + 1).astype(np.intp)
    keep: list[int] = []
    for start, end in itertools.pairwise(edges.tolist()):
        part = series.y[start:end]
        if np.isnan(part).all():
            keep.append(start)
        else:
            keep += sorted({start + np.nanargmin(part), start + np.nanargmax(part)})
    return Series(series.name, series.x[keep], series.y[keep])


def smoothed(series: Series, most: int = SMOOTH_POINTS) -> Series:
    """Return the median of each of so many stretches; one without figures is a gap.

    Not the mean: a single wild step would bend it.
    """
    if series.x.size <= most:
        return series
    edges = np.linspace(0, series.x.size, most + 1).astype(np.intp)
    x, y = np.full((2, most), np.nan)
    known = np.isfinite(series.x) & np.isfinite(series.y)
    for place, (start, end) in enumerate(itertools.pairwise(edges.tolist())):
        there = known[start:end]
        if there.any():
            x[place] = series.x[start:end][there].mean()
            y[place] = np.median(series.y[start:end][there])
    return Series(series.name, x, y)

"""A run's files as they grow, each line read once.

Owns: reading what has come, keeping its numbers as columns. Does not own what the
figures come to (`curves`), or who wants to know (`feed`).

The idea: a night's log has tens of thousands of lines, and somebody looks once a
second. So a line becomes numbers when it is read for the first time. A resume cuts logs
back: then they are read from the beginning.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from utilities.curves import Curves
from utilities.logfiles import LOSSES, METRICS, loss_numbers, metrics_line
from utilities.runfiles import reading
from utilities.scales import Doubles

_LEAST = -1e18

_COLUMNS = (
    *("time", "seconds", "validationLoss", "trials", "clients", "late", "dropped"),
    *("timePerStep", "trialSeconds", "updateSeconds", "gradientQuality"),
)


# Reading.


class Tail:
    """The whole lines of a file as it grows, each once."""

    _KEPT = 64  # bytes before the place up to which it was read: they prove that

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rewind()

    def rewind(self) -> None:
        """Forget what was read."""
        self._place, self._before = 0, b""

    def read(self) -> list[bytes] | None:
        """Return the lines that have come; None where others lie there than before.

        Raises:
            RunError: the file cannot be read.
        """
        with reading(self._path):
            try:
                with self._path.open("rb") as file:
                    file.seek(self._place - len(self._before))
                    if file.read(len(self._before)) != self._before:
                        return None
                    content = file.read()
            except FileNotFoundError:
                return None if self._place else []
        whole = content[: content.rfind(b"\n") + 1]
        self._place += len(whole)
        self._before = (self._before + whole)[-self._KEPT :]
        return whole.split(b"\n")[:-1]


class Columns(Curves):
    """Logs whose lines are numbers already."""

    def __init__(
        self,
        first_step: int,
        step_num: int,
        numbers: Mapping[str, Doubles],
        losses: Doubles,
    ) -> None:
        """Put them side by side.

        Args:
            first_step: of the run.
            step_num: that its newest checkpoint is at.
            numbers: ``step`` and other keys of each line: (lines,) each.
            losses: of each step from the first one on, nan for none.
        """
        super().__init__(first_step, step_num, (), losses)
        self._numbers = numbers

    def column(self, key: str, least: float = 0.0) -> Doubles:
        """Return a number of each line, nan where there is none: (lines,)."""
        values = self._numbers[key]
        return np.where(values >= least, values, np.nan)

    @cached_property
    def steps(self) -> Doubles:
        """Return the step of each line: (lines,)."""
        return self._numbers["step"]


class Logs:
    """metrics.jsonl and loss.txt of a run, as far as they have been read."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._first_step = first_step
        self._metrics, self._losses = Tail(folder / METRICS), Tail(folder / LOSSES)
        self._begin()
        self.epoch = 0  # how often what was read was not true any more

    def _begin(self) -> None:
        self._metrics.rewind()
        self._losses.rewind()
        self.numbers = {key: np.empty(0) for key in ("step", *_COLUMNS)}
        self.losses = np.empty(0)

    def read(self) -> None:
        """Read what has come.

        Raises:
            RunError: a file cannot be read.
        """
        if not self._read():
            self.epoch += 1
            self._begin()
            self._read()

    def _read(self) -> bool:
        """Read on; return whether it goes on from what was read before."""
        lines, losses = self._metrics.read(), self._losses.read()
        if lines is None or losses is None:
            return False
        if losses:
            self.losses = np.append(self.losses, loss_numbers(losses))
        found = [line for text in lines if (line := metrics_line(text)) is not None]
        new = Curves(0, 0, found, np.empty(0))
        if not new.steps.size:
            return True
        known = self.numbers["step"]
        ascending = not known.size or new.steps[0] >= known[-1]
        self.numbers["step"] = np.append(known, new.steps)
        for key in _COLUMNS:
            column = new.column(key, _LEAST)
            self.numbers[key] = np.append(self.numbers[key], column)
        if not ascending:  # a torn and repaired log
            order = np.argsort(self.numbers["step"], kind="stable")
            self.numbers = {key: x[order] for key, x in self.numbers.items()}
            self.epoch += 1
        return True

    def curves(self, step_num: int) -> Columns:
        """Return all that was read side by side."""
        return Columns(self._first_step, step_num, self.numbers, self.losses)

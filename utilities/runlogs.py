"""The logs of a run: what its steps gave, one line each, and what the model wrote.

    metrics.jsonl   one JSON object a line; null, never NaN
    loss.txt        mean loss, one number a line, nan where a step has none: line i
                    (from 0) is of step firstStep + i
    samples.txt     "=== step 123 ===", then text generated at that step

Owns these three files: appending, cutting them back at a resume. Does not own how they
are read while they grow (`logfiles`), the folder or its lock (`runs`), or what is worth
a sample.

What grows without end is bounded. metrics.jsonl holds the first 1,000 steps of a run
and each step with a validation loss or with dropped trials; of the others one for each
second that the run has trained, and the last one. At 310 bytes a line, a night of
ten hours with ten steps a second takes 12 MB (360,000 steps: 3 MB of loss.txt).
samples.txt is thinned when it passes 4 MB: the first 20 samples stay, of the others
every second one, the newest included, until half of the size is free.

Lines are gathered and appended about once a second. A crash may tear the last one:
readers pass over it, and `cut_logs` removes it.
"""

import dataclasses
import json
import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utilities import logfiles
from utilities.disk import APPEND, Disk
from utilities.logfiles import (
    LOSSES,
    METRICS,
    SAMPLES,
    bytes_of,
    metrics_line,
    sample_blocks,
)
from utilities.misc import Clock, camel_case
from utilities.runfiles import writing
from utilities.runs import Run

FLUSH_SECONDS = 1.0
FULL_STEPS = 1000  # steps at the start of a run that are all in metrics.jsonl
LINE_SECONDS = 1.0  # of training between two plain lines after that
FIRST_SAMPLES = 20  # that always stay: the early ones differ most
SAMPLES_BYTES = 4 << 20
SAMPLE_CHARACTERS = 10_000  # of one sample: the first 20 then fit a quarter of the file
_DIGITS = 6  # of a loss behind the point; its noise is far larger
_TIME_DIGITS = 3  # milliseconds

_LIKE_HEADER = re.compile(r"^(?= *=== step )", re.MULTILINE)


@dataclass(frozen=True)
class StepMetrics:
    """What one finished step gave; the fields are the keys of metrics.jsonl."""

    step: int
    time: float  # seconds since 1970
    seconds: float  # that the run has trained
    loss: float | None  # nats per character
    validation_loss: float | None
    trials: int
    clients: int
    late: int
    dropped: int
    digest: str  # hex; empty where nobody gave one
    aggregation: str = ""  # seeds or sums; empty: no trials
    time_per_step: float | None = None  # seconds of trials that were asked for
    trial_seconds: float | None = None  # of trials, median over clients
    update_seconds: float | None = None  # of the update before, median over clients
    gradient_quality: float | None = None  # split-half cosine of the update before
    audits: int = 0  # answers of this session that were compared with another one
    disagreements: int = 0  # of them
    expelled: int = 0  # clients of this session
    repeated: int = 0  # trials of this session that were scored twice, counted once

    def to_json(self) -> dict[str, Any]:
        """Return the keys of metrics.jsonl; what is not finite becomes None."""
        fields = {
            **dataclasses.asdict(self),
            "time": _rounded(self.time, _TIME_DIGITS),
            "seconds": _rounded(self.seconds, _TIME_DIGITS),
            "loss": _rounded(self.loss, _DIGITS),
            "validation_loss": _rounded(self.validation_loss, _DIGITS),
            "time_per_step": _rounded(self.time_per_step, _DIGITS),
            "trial_seconds": _rounded(self.trial_seconds, _DIGITS),
            "update_seconds": _rounded(self.update_seconds, _DIGITS),
            "gradient_quality": _rounded(self.gradient_quality, _DIGITS),
        }
        return {camel_case(name): value for name, value in fields.items()}


def _rounded(value: float | None, digits: int) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), digits)


class RunLog:
    """Append to the logs of a run that is open with its lock.

    A resumed run is first cut back with `cut_logs`. Every method that writes raises
    `RunError` where the disk is full or failing; what is in the files stays whole then,
    and what is not yet there is tried again with the next `flush`.
    """

    def __init__(self, run: Run, clock: Clock = time.monotonic) -> None:
        assert run.locked, "a run opened for reading is not written"
        self._first_step = run.first_step
        self._clock = clock
        self._flushed = -math.inf  # moment on the clock
        self._disk = run.disk
        self._metrics = _Tail(run.disk, run.path / METRICS)
        self._losses = _Tail(run.disk, run.path / LOSSES)
        self._samples = run.path / SAMPLES
        # the step whose line comes next
        self.next_step = run.first_step + bytes_of(run.path / LOSSES).count(b"\n")
        self._line_seconds = -math.inf  # of training, at the newest line
        self._left_out = b""  # the newest line, where it was thinned out
        # the line that a session ended with, until the step has come again
        self._end = _state_at(bytes_of(run.path / METRICS), self.next_step)

    def append_step(self, metrics: StepMetrics) -> None:
        """Log a step; steps come in ascending order."""
        gap = metrics.step - self.next_step
        assert gap >= 0, f"step {metrics.step} comes after {self.next_step - 1}"
        metrics = self._measured(metrics)
        loss = math.nan if metrics.loss is None else metrics.loss
        number = f"{loss if math.isfinite(loss) else math.nan:.{_DIGITS}f}\n"
        self._losses.pending += b"nan\n" * gap + number.encode("ascii")
        self.next_step = metrics.step + 1
        line = json.dumps(metrics.to_json(), separators=(",", ":")).encode() + b"\n"
        if self._stays(metrics):
            self._metrics.pending += line
            self._line_seconds = metrics.seconds
            self._left_out = b""
        else:
            self._left_out = line
        self.flush_in_time()

    def append_state(self, metrics: StepMetrics) -> None:
        """Log the state that a session ends with; it has no loss, for no step began."""
        metrics = self._measured(metrics)
        line = json.dumps(metrics.to_json(), separators=(",", ":")).encode() + b"\n"
        self._metrics.pending += self._left_out + line
        self._left_out = b""

    def _measured(self, metrics: StepMetrics) -> StepMetrics:
        """Return a line with what the session before has measured of the same state.

        The line with which that session ended goes: this one takes its place.
        """
        before, self._end = metrics_line(self._end), b""
        if before is None or before["step"] != metrics.step:
            return metrics
        path = self._metrics.path
        _replace(self._disk, path, _cut_metrics(bytes_of(path), metrics.step))
        if metrics.validation_loss is not None:
            return metrics
        return dataclasses.replace(metrics, validation_loss=before["validationLoss"])

    def _stays(self, metrics: StepMetrics) -> bool:
        return (
            metrics.step - self._first_step < FULL_STEPS
            or metrics.validation_loss is not None
            or metrics.dropped > 0
            or metrics.seconds - self._line_seconds >= LINE_SECONDS
        )

    def flush(self) -> None:
        """Write what was gathered; to be called before each checkpoint, too."""
        self._flushed = self._clock()
        self._losses.flush()
        self._metrics.flush()

    def flush_in_time(self) -> None:
        """Write what was gathered, unless something was written a moment ago."""
        if self._clock() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def close(self) -> None:
        """Write what was gathered, with the line of the last step in any case."""
        self._metrics.pending += self._left_out
        self._left_out = b""
        self.flush()

    def append_sample(self, step: int, text: str) -> None:
        """Log what the model wrote at a step; of a long text the beginning."""
        text = text[:SAMPLE_CHARACTERS].replace("\r\n", "\n").replace("\r", "\n")
        text = _LIKE_HEADER.sub(" ", text)  # a header begins its line
        block = f"=== step {step} ===\n{text}\n\n"
        size = _append(self._disk, self._samples, block.encode("utf-8", "replace"))
        if size > SAMPLES_BYTES:
            _replace(self._disk, self._samples, _thinned(bytes_of(self._samples)))

    def cut_logs(self, step: int) -> None:
        """Cut all logs back to what is true of a run that goes on at this step.

        Lines of this step and later ones go, since these steps come again; so do
        lines that are not whole. Steps whose loss a crash has lost get nan. Samples
        of the step itself stay; so does the line that a session ended with there, if
        it has a validation loss, until the step has come again.
        """
        assert step >= self._first_step, (step, self._first_step)
        metrics, losses, samples = self._metrics.path, self._losses.path, self._samples
        lines = bytes_of(metrics)
        self._end = _state_at(lines, step)
        _replace(self._disk, metrics, _cut_metrics(lines, step) + self._end)
        _replace(
            self._disk, losses, _cut_losses(bytes_of(losses), step - self._first_step)
        )
        _replace(self._disk, samples, _cut_samples(bytes_of(samples), step))
        self._metrics.pending.clear()
        self._losses.pending.clear()
        self.next_step = step
        self._line_seconds = -math.inf
        self._left_out = b""


# Reading; the run may be growing meanwhile.


def read_metrics(run: Run) -> list[dict[str, Any]]:
    """Return the objects of metrics.jsonl, without lines that are not whole."""
    return logfiles.read_metrics(run.path)


def read_losses(run: Run) -> NDArray[np.float64]:
    """Return the loss of each step from the run's first one on, nan for none: (steps,).

    A line that is no number counts as none; a last line that is torn does not count.
    """
    return logfiles.read_losses(run.path)


# Writing.


class _Tail:
    """What is to be appended to a file."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self.path = path
        self.pending = bytearray()

    def flush(self) -> None:
        if self.pending:
            _append(self._disk, self.path, self.pending)
            self.pending.clear()


def _append(disk: Disk, path: Path, data: bytes | bytearray) -> int:
    """Append all of the data or, where that fails, nothing; return the file's size."""
    with writing(path):
        descriptor = disk.open(path, APPEND)
        try:
            disk.append(descriptor, bytes(data))
            return os.fstat(descriptor).st_size
        finally:
            disk.close(descriptor)


def _replace(disk: Disk, path: Path, content: bytes) -> None:
    if content != bytes_of(path):
        with writing(path):
            disk.replace(path, content)


# Cutting: bytes in, bytes out.


def _cut_metrics(content: bytes, step: int) -> bytes:
    kept = []
    for line in content.split(b"\n"):
        metrics = metrics_line(line)
        if metrics is not None and metrics["step"] < step:
            kept.append(line + b"\n")
    return b"".join(kept)


def _state_at(content: bytes, step: int) -> bytes:
    """Return the line of a session's end at a step; empty: none, or not measured."""
    for line in reversed(content.split(b"\n")):
        metrics = metrics_line(line)
        if metrics is not None and metrics["step"] == step:
            ended = metrics.get("clients") == 0
            measured = isinstance(metrics.get("validationLoss"), float)
            return line + b"\n" if ended and measured else b""
    return b""


def _cut_losses(content: bytes, lines: int) -> bytes:
    kept = content.split(b"\n")[:-1][:lines]
    kept += [b"nan"] * (lines - len(kept))
    return b"".join(line + b"\n" for line in kept)


def _cut_samples(content: bytes, step: int) -> bytes:
    whole = content[: content.rfind(b"\n") + 1]
    return b"".join(block for at, block in sample_blocks(whole) if at <= step)


def _thinned(content: bytes) -> bytes:
    blocks = [block for _, block in sample_blocks(content)]
    first = 1 + FIRST_SAMPLES  # one more for what is before the first sample
    while sum(map(len, blocks)) > SAMPLES_BYTES // 2 and len(blocks) > first + 1:
        blocks[first:] = blocks[first:][::-2][::-1]  # the newest one stays
    return b"".join(blocks)

"""The logs of a run, read while they may be growing.

    metrics.jsonl   one JSON object a line; keys that a version did not know are absent
    loss.txt        mean loss, one number a line, nan where a step has none
    samples.txt     "=== step 123 ===", then text generated at that step

Owns how these are read: a line that is torn or damaged is passed over, a file that is
not there yet is empty. Does not own who writes them: that is `runlogs`.
"""

import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utilities.runfiles import reading

METRICS, LOSSES, SAMPLES = "metrics.jsonl", "loss.txt", "samples.txt"

_HEADER = re.compile(rb"^=== step ([0-9]{1,15}) ===\n", re.MULTILINE)


def bytes_of(path: Path) -> bytes:
    """Return the bytes of a file, none where there is no such file.

    Raises:
        RunError: it cannot be read.
    """
    with reading(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return b""


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the objects of a run's metrics.jsonl, without lines that are not whole."""
    lines = bytes_of(folder / METRICS).split(b"\n")
    return [metrics for line in lines if (metrics := metrics_line(line)) is not None]


def metrics_line(line: bytes) -> dict[str, Any] | None:
    """Return the object of a line of metrics.jsonl; None where it is not whole."""
    try:
        metrics = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(metrics, dict) and isinstance(metrics.get("step"), int)
    return metrics if whole else None


def read_losses(folder: Path) -> NDArray[np.float64]:
    """Return the loss of each step from the run's first one on, nan for none: (steps,).

    A line that is no number counts as none; a last line that is torn does not count.
    """
    return loss_numbers(bytes_of(folder / LOSSES).split(b"\n")[:-1])


def loss_numbers(lines: Iterable[bytes]) -> NDArray[np.float64]:
    """Return the numbers of whole lines of loss.txt, nan for what is none: (lines,)."""
    return np.array([_number(line) for line in lines], np.float64)


def _number(line: bytes) -> float:
    try:
        return float(line)
    except ValueError:
        return math.nan


def read_samples(folder: Path) -> list[tuple[int, str]]:
    """Return step and text of each sample of a run, oldest first.

    The last one counts as soon as it is followed by the empty line that ends it.
    """
    samples = []
    for step, block in sample_blocks(bytes_of(folder / SAMPLES)):
        _, _, text = block.partition(b"\n")
        if step >= 0 and text.endswith(b"\n\n"):
            samples.append((step, text[:-2].decode("utf-8", "replace")))
    return samples


def sample_blocks(samples: bytes) -> list[tuple[int, bytes]]:
    """Return (step, block) of each sample; what is before the first one has step -1."""
    headers = [(match.start(), int(match[1])) for match in _HEADER.finditer(samples)]
    starts = [(0, -1), *headers]
    ends = [start for start, _ in headers] + [len(samples)]
    return [
        (step, samples[start:end])
        for (start, step), end in zip(starts, ends, strict=True)
    ]

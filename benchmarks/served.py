"""A real server and real clients over loopback, and what they have used and logged.

Processor time is that of the server and of everything that it has started, whatever
their number: looked up in /proc while they run. Where there is no /proc, what the
system tells at the end is spread evenly over the run.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, TEXT
from utilities.runlogs import read_metrics
from utilities.runs import RunStore

PROC = Path("/proc")
LOOK_SECONDS = 0.5  # between two looks at the processor time


@dataclass(frozen=True)
class Usage:
    """How far the processor time of all processes had come at a moment."""

    time: float  # seconds since 1970
    core_seconds: float


@dataclass(frozen=True)
class Served:
    """What one session has logged and used."""

    metrics: list[dict[str, Any]]  # lines of metrics.jsonl, in the order of steps
    usage: list[Usage]  # ascending; from zero to all that was used
    wall_seconds: float  # of the whole session, start and end of the processes included

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Return the lines of steps, without the state that the session ended with."""
        return [line for line in self.metrics if line["clients"]]

    @property
    def core_seconds(self) -> float | None:
        """Return the processor time of all processes; None where nobody tells."""
        return self.usage[-1].core_seconds or None

    def core_seconds_at(self, seconds: float) -> float | None:
        """Return the processor time that was used after some seconds of training."""
        if self.core_seconds is None:
            return None
        began = self.steps[0]["time"] - self.steps[0]["seconds"]
        moments = [usage.time for usage in self.usage]
        used = [usage.core_seconds for usage in self.usage]
        return float(np.interp(began + seconds, moments, used))


def add_options(parser: argparse.ArgumentParser, *, seconds: float) -> None:
    """Add what every benchmark of a real server asks for."""
    parser.add_argument("--data", type=Path, default=TEXT)
    parser.add_argument("--seconds", type=float, default=seconds, help="of training")
    parser.add_argument("--clients", type=int, default=2, help="on this machine")
    parser.add_argument("more", nargs="*", help="options of basicServer.py, after --")


def serve(data: Path, seconds: float, clients: int, more: Iterable[str]) -> Served:
    """Train in a folder that is removed afterwards.

    Args:
        data: the text.
        seconds: of training.
        clients: that the server starts.
        more: options of basicServer.py; of two that are the same the last one counts.

    Raises:
        SystemExit: the server failed; it has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = [*arguments(Path(folder), data, seconds, clients), *more]
        usage = watched([sys.executable, str(ROOT / "basicServer.py"), *words])
        metrics = logged(RunStore(Path(folder)))
    served = Served(metrics, usage, usage[-1].time - usage[0].time)
    if not served.steps:
        raise SystemExit("no step was finished; give more --seconds")
    return served


def logged(store: RunStore) -> list[dict[str, Any]]:
    """Return the lines of a session; a model that grew has left two runs or more."""
    lines: list[dict[str, Any]] = []
    for number in store.numbers():
        with store.open(number, lock=False) as run:
            lines += read_metrics(run)
    return lines


def arguments(runs: Path, data: Path, seconds: float, clients: int) -> list[str]:
    """Return the options of a quiet server on any free port."""
    where = ["--quiet", "--port", "0", "--runs", str(runs), "--data", str(data)]
    return [*where, "--maxSeconds", f"{seconds:g}", "--localClients", str(clients)]


def watched(command: list[str]) -> list[Usage]:
    """Run a command to its end and return how its processor time grew.

    Raises:
        SystemExit: it failed; it has said why.
    """
    before, began = children_seconds(), time.time()
    usage = [Usage(began, 0.0)]
    with subprocess.Popen(command) as process:
        while not ended(process):
            used = tree_seconds(process.pid)
            if used is not None:
                usage.append(Usage(time.time(), used))
    usage.append(Usage(time.time(), children_seconds() - before))
    if process.returncode:
        raise SystemExit(f"basicServer.py ended with exit code {process.returncode}")
    return usage


def ended(process: "subprocess.Popen[bytes]") -> bool:
    """Return whether a process has ended, after a short wait for that."""
    try:
        process.wait(LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


# Processor time.


def children_seconds() -> float:
    """Return the processor time of all child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


@dataclass(frozen=True)
class Entry:
    """What /proc tells of one process."""

    parent: int
    ticks: int  # of the process and of its children that have ended


def parse_stat(stat: str) -> Entry:
    """Return what matters of a line of /proc/*/stat, see proc(5)."""
    fields = stat.rpartition(")")[2].split()  # a name may hold spaces and brackets
    return Entry(parent=int(fields[1]), ticks=sum(map(int, fields[11:15])))


def tree_seconds(root: int, proc: Path = PROC) -> float | None:
    """Return the processor time of a process and of all below it.

    Args:
        root: id of the process.
        proc: where the system tells of processes.

    Returns:
        seconds; None where nothing is known of that process.
    """
    entries: dict[int, Entry] = {}
    for file in proc.glob("[0-9]*/stat"):
        try:
            entries[int(file.parent.name)] = parse_stat(file.read_text("utf-8"))
        except OSError:  # it has just ended
            continue
    if root not in entries:
        return None
    ticks = sum(entries[process].ticks for process in family(root, entries))
    return float(ticks / os.sysconf("SC_CLK_TCK"))


def family(root: int, entries: dict[int, Entry]) -> set[int]:
    """Return a process and all that descend from it."""
    found, new = set[int](), {root}
    while new:
        found |= new
        new = {n for n, entry in entries.items() if entry.parent in new} - found
    return found

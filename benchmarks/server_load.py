"""Measure a server that serves many clients: what a step costs besides its trials.

    python -m benchmarks.server_load --clients 1000 [--trials 16] [--timePerStep 1]
        [--steps 30] [--processes 2] [--aggregation seeds|sums] [-- server options]

The real basicServer.py, and simulated clients in a few processes (`benchmarks.crowd`):
protocol-true, but they score nothing, and answer all at once when the time for trials
is over. The overhead of a step is its time from update to update, less timePerStep,
less the processor time of updates and sums: each process has one replica for all its
clients, and the slowest process counts. What the simulated clients read and write is
not taken off, so on few cores an overhead is an upper bound. The first client tells the
time.

A step that closed without some clients is shorter than it ought to be: look at the
fewest clients of a step, and at late answers. They come where the overhead passes the
grace, on a machine that is busy with other things for instance; then `-- --grace 5`
shows what full steps take.

Joining lasts from the first connection until every client has its state; a step that is
under way meanwhile has to close first. Linux only: memory and processor time of the
server come from /proc.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from utilities.descriptors import descriptors
from utilities.processes import collect_seldom, one_core

ROOT = Path(__file__).resolve().parent.parent
LISTENING = re.compile(r"^Listening on \S*:(\d+)", re.MULTILINE)
START_SECONDS = 60.0
WARM_STEPS = 3  # with all clients, before anything is measured
MEGABYTE = 1e6


@dataclass
class Program:
    """A server's process and what it has said."""

    process: "subprocess.Popen[bytes]"
    output: Path

    def port(self) -> int:
        """Wait until it listens."""
        end = time.monotonic() + START_SECONDS
        while not (found := LISTENING.search(self.said())):
            ended = self.process.poll() is not None
            if ended or time.monotonic() > end:
                raise SystemExit(f"the server did not start:\n{self.said()}")
            time.sleep(0.05)
        return int(found[1])

    def said(self) -> str:
        """Return all that it has said."""
        return self.output.read_text("utf-8", "replace")

    def cpu(self) -> float:
        """Return the processor seconds of all its threads so far."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> dict[str, float]:
        """Return its resident megabytes, at present and at most."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return {
            name: int(re.findall(rf"{key}:\s+(\d+) kB", status)[0]) * 1024 / MEGABYTE
            for name, key in (("rss", "VmRSS"), ("peak", "VmHWM"))
        }


@contextlib.contextmanager
def serving(folder: Path, options: argparse.Namespace) -> Iterator[Program]:
    """Run a server while the context is open."""
    command = [sys.executable, str(ROOT / "basicServer.py"), "--port", "0"]
    command += ["--data", str(options.data), "--runs", str(folder / "runs")]
    command += ["--timePerStep", str(options.timePerStep)]
    command += ["--aggregation", options.aggregation, *options.more]
    output = folder / "server.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        yield Program(process, output)
    finally:
        process.kill()
        process.wait()


# The crowds.


def simulate(order: Any, pipe: Connection) -> None:
    """Be one crowd; the main function of a process."""
    from benchmarks.crowd import Crowd

    collect_seldom()
    Crowd(order, pipe.send).run()


@dataclass
class Story:
    """What one crowd has told."""

    welcomed: Any = None  # of `crowd.Welcomed`
    moments: dict[int, float] = field(default_factory=dict)  # of each step's update
    spent: dict[int, float] = field(default_factory=dict)  # processor seconds by then

    def take(self, told: Any) -> None:
        """Take down what a crowd has told."""
        if hasattr(told, "retries"):
            self.welcomed = told
        else:
            self.moments[told.step] = told.moment
            self.spent[told.step] = told.spent


@contextlib.contextmanager
def crowds(
    port: int, code: str, options: argparse.Namespace
) -> Iterator[list[Connection]]:
    """Run all crowds while the context is open; it ends when they have."""
    from benchmarks.crowd import Order

    context = multiprocessing.get_context("spawn")
    each, more = divmod(options.clients, options.processes)
    processes, pipes, first = [], [], 1
    for number in range(options.processes):
        clients = each + (number < more)
        order = Order("127.0.0.1", port, code, first, clients, options.trials)
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=simulate, args=(order, theirs), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        pipes.append(ours)
        first += clients
    try:
        yield pipes
    finally:
        for process in processes:
            process.join(10.0)
            process.kill()
            process.join()


# Measuring.


@dataclass
class Window:
    """The steps that are measured, and what the server used meanwhile."""

    stories: list[Story]
    began: float
    first: int = -1  # step
    cpu: float = 0.0  # seconds of the server's processor
    memory: dict[str, float] = field(default_factory=dict)

    def newest(self) -> int:
        """Return the newest step that all crowds have passed."""
        return min(max(story.moments, default=-1) for story in self.stories)

    def welcomed(self) -> bool:
        """Return whether every client has a state."""
        return all(story.welcomed is not None for story in self.stories)

    def overheads(self, steps: int, seconds: float) -> list[tuple[float, float]]:
        """Return the overhead and the replica's time of each step."""
        story, found = self.stories[0], []
        for step in range(self.first, self.first + steps):
            wall = story.moments[step + 1] - story.moments[step]
            replica = max(s.spent[step + 1] - s.spent[step] for s in self.stories)
            found.append((wall - seconds - replica, replica))
        return found


def watch(server: Program, pipes: list[Connection], steps: int) -> Window:
    """Return what happened until that many steps with all clients have passed."""
    window = Window([Story() for _ in pipes], time.monotonic())
    measuring = False
    while window.first < 0 or window.newest() < window.first + steps:
        for pipe in wait(pipes, 1.0):
            assert isinstance(pipe, Connection)
            try:
                window.stories[pipes.index(pipe)].take(pipe.recv())
            except EOFError:
                said = server.said()[-2000:]
                raise SystemExit(f"simulated clients have ended:\n{said}") from None
        if window.first < 0 and window.welcomed():
            window.first = window.newest() + 1 + WARM_STEPS
        if not measuring and 0 <= window.first <= window.newest():
            measuring, window.cpu = True, server.cpu()
    window.cpu = server.cpu() - window.cpu
    window.memory = server.memory()
    return window


def figures(
    window: Window, options: argparse.Namespace, metrics: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what was measured; seconds in milliseconds."""
    steps = options.steps
    pairs = window.overheads(steps, options.timePerStep)
    overheads = sorted(overhead for overhead, _ in pairs)
    counted = range(window.first + 1, window.first + steps + 1)
    lines = [line for line in metrics if line["step"] in counted]
    stories = window.stories
    joined = max(story.welcomed.moment for story in stories) - window.began
    return {
        "overhead ms, median": round(1e3 * statistics.median(overheads), 1),
        "overhead ms, p99": round(1e3 * overheads[-1 - len(overheads) // 100], 1),
        "update and sums ms, median": round(
            1e3 * statistics.median(replica for _, replica in pairs), 1
        ),
        "server cpu ms of a step": round(1e3 * window.cpu / steps, 1),
        "server MB": round(window.memory["rss"], 1),
        "server MB, peak": round(window.memory["peak"], 1),
        "joining s": round(joined, 2),
        "connections tried again": sum(story.welcomed.retries for story in stories),
        "fewest clients of a step": min(line["clients"] for line in lines),
        "late answers": sum(line["late"] for line in lines),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(folder, options) as server:
            port = server.port()
            code = (folder / "runs" / "join-code").read_text("ascii")
            with crowds(port, code, options) as pipes:
                window = watch(server, pipes, options.steps)
                server.process.terminate()  # it finishes the step and saves
            server.process.wait(START_SECONDS)
        lines = (folder / "runs" / "0" / "metrics.jsonl").read_text("ascii")
        return figures(window, options, [json.loads(x) for x in lines.splitlines()])


def parser(text: Path) -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    found = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="python -m benchmarks.server_load [options] [-- server options]",
    )
    add = found.add_argument
    add("--clients", type=int, default=1000, help="simulated clients [1000]")
    add(
        "--trials",
        type=int,
        default=16,
        help="of a client in a step: whole groups [16]",
    )
    add("--timePerStep", type=float, default=1.0, help="seconds of trials [1]")
    add("--steps", type=int, default=30, help="that are measured [30]")
    add("--processes", type=int, default=2, help="of simulated clients [2]")
    add("--aggregation", choices=("seeds", "sums"), default="seeds", help="[seeds]")
    add("--data", type=Path, default=text, help=f"text [{text}]")
    add("more", nargs="*", help="options of basicServer.py, after --")
    return found


def main() -> None:
    """Measure and print."""
    one_core()
    from benchmarks.common import TEXT, finish

    options = parser(TEXT).parse_args()
    descriptors()  # more of them, for the processes of simulated clients too
    found = measure(options)
    for name, value in found.items():
        print(f"{name:28} {value}")
    asked = {
        name: getattr(options, name)
        for name in ("clients", "trials", "timePerStep", "steps", "aggregation")
    }
    finish({"benchmark": "server_load", **asked, **found})


if __name__ == "__main__":
    main()

"""Measure how far a real server and real clients come: loss against time and trials.

    python -m benchmarks.time_to_loss --data FILE --seconds S --clients C
        [--points N] [--without-prototype] [-- server options]

All of the last 10 % of the text is scored, in rows of 256 characters from a zero state,
at N checkpoints evenly spread over the run, at steps 1, 2, 4, 8 ... and at the end.
Scoring is the server's work, on the same cores: each time it takes some hundredths of a
second of one core with a small model, tenths with a large one, which the clients lose.

Seconds count from the moment at which the server listens; clients have yet to start
then. Core-seconds are those of all processes from their first instruction on. Of a long
run metrics.jsonl has a line a second only: trials of steps between two lines are
interpolated.

Then the one-process prototype trains as long on one core, in the same run. It scores
itself on 128 rows of the validation text; its last weights are scored on all of it too.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import PROTOTYPE, finish, scored_prototype, spaced
from benchmarks.served import Served, add_options, serve


@dataclass(frozen=True)
class Point:
    """Where a run stood when its validation text was scored."""

    seconds: float  # of training
    core_seconds: float | None  # of all processes
    trials: int
    step: int
    validation: float  # nats per character

    def __str__(self) -> str:
        cores = "unknown" if self.core_seconds is None else f"{self.core_seconds:.1f}"
        return (
            f"{self.seconds:8.1f} s  {cores:>8} core-seconds  {self.trials:12,} trials"
            f"  step {self.step:7,}  validation {self.validation:.4f}"
        )


def trials_before(served: Served) -> NDArray[np.float64]:
    """Return the trials of all steps before each step, from the first one on.

    Args:
        served: the lines of a run; of steps without one the trials are interpolated
            between the lines on both sides.

    Returns:
        (steps + 1,): the last number is of the state after the last step.
    """
    numbers = [line["step"] for line in served.steps]
    trials = [line["trials"] for line in served.steps]
    every = np.interp(np.arange(numbers[0], numbers[-1] + 1), numbers, trials)
    return np.concatenate([[0.0], np.cumsum(every)])


def curve(served: Served) -> list[Point]:
    """Return all that was scored, in the order of steps."""
    before, first = trials_before(served), served.steps[0]["step"]
    points = []
    for line in served.metrics:
        if line["validationLoss"] is None:
            continue
        used = served.core_seconds_at(line["seconds"])
        point = Point(
            seconds=line["seconds"],
            core_seconds=None if used is None else round(used, 1),
            trials=round(before[line["step"] - first]),
            step=line["step"],
            validation=line["validationLoss"],
        )
        points.append(point)
    return points


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Return the curve of one run, and what the run took."""
    every = options.seconds / options.points
    more = ["--checkPointTime", f"{every:.6g}", *options.more]
    served = serve(options.data, options.seconds, options.clients, more)
    points = curve(served)
    for point in points:
        print(point)
    used = served.core_seconds
    return {
        "curve": [spaced(point) for point in points],
        "validation": points[-1].validation if points else None,
        "steps": served.steps[-1]["step"] + 1 - served.steps[0]["step"],
        "trials": round(trials_before(served)[-1]),
        "core seconds": None if used is None else round(used, 1),
        "wall seconds": round(served.wall_seconds, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, seconds=60.0)
    parser.add_argument("--points", type=int, default=10, help="of the curve")
    parser.add_argument("--prototype", type=Path, default=PROTOTYPE)
    parser.add_argument("--without-prototype", action="store_true")
    options = parser.parse_args()
    if options.points < 1:
        parser.error(f"--points: expected 1 or more, got {options.points}")
    figures = measure(options)
    if options.prototype.exists() and not options.without_prototype:
        found = scored_prototype(options.prototype, options.data, options.seconds)
        print(
            f"prototype after {options.seconds:g} s of one core: "
            f"its own figure {found.own_loss:.4f}, on all of the text {found.loss:.4f}"
        )
        figures["prototype"] = {"seconds": options.seconds, **spaced(found)}
    finish({"benchmark": "time_to_loss", "clients": options.clients, **figures})


if __name__ == "__main__":
    main()

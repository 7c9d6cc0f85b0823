"""Measure what a step costs besides its trials: real server, real clients, loopback.

    python -m benchmarks.step_overhead --clients C [--timePerStep T] [--seconds S]
        [-- server options]

Of each step, from its first update to its last answer: the share of a client's time
inside trials, in the update, and waiting; and the milliseconds that are neither trials
nor update. A step's time is that between its closing and the one before; trials and
update are what the typical client reports, the median over clients. Where clients add
up their own trials, that is part of the update.

Steps while everything starts, steps with a checkpoint and those during which it is
written and scored do not count. With one client for each core, server and clients share
the cores, and the figures hold what that costs.
"""

import argparse
import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.common import finish
from benchmarks.served import add_options, serve

FIRST_STEPS = 20  # that do not count: processes start, caches fill
SAVING_STEPS = 2  # after a checkpoint, in which it is written and scored
FEWEST = 10  # steps that a median is taken of
NEVER = 1e9  # seconds between checkpoints, but for those of steps 1, 2, 4, 8 ...


@dataclass(frozen=True)
class Step:
    """Where the time of one step went, in seconds."""

    total: float
    trials: float
    update: float

    @property
    def neither(self) -> float:
        """Return the time that a client waits."""
        return self.total - self.trials - self.update


def counted(lines: Sequence[dict[str, Any]]) -> list[Step]:
    """Return the steps that count.

    Args:
        lines: of metrics.jsonl; only steps that directly follow the line before count.

    Raises:
        SystemExit: lines do not tell the times of trials and updates.
    """
    if lines and not {"trialSeconds", "updateSeconds"} <= lines[0].keys():
        raise SystemExit(
            "metrics.jsonl: expected trialSeconds and updateSeconds in each line, got "
            f"{', '.join(lines[0])}; measure a version of the program that writes them"
        )
    saved = [line["step"] for line in lines if line["validationLoss"] is not None]
    left_out = {step + n for step in saved for n in range(SAVING_STEPS + 1)}
    left_out |= {line["step"] for line in lines[:FIRST_STEPS]}
    steps = []
    for before, line in itertools.pairwise(lines):
        follows = line["step"] == before["step"] + 1
        reported = None not in (line["trialSeconds"], line["updateSeconds"])
        if follows and reported and line["step"] not in left_out:
            total = line["seconds"] - before["seconds"]
            steps.append(Step(total, line["trialSeconds"], line["updateSeconds"]))
    return steps


def figures(steps: Sequence[Step]) -> dict[str, Any]:
    """Return where the time went, in medians and means over steps.

    Raises:
        SystemExit: there are too few steps.
    """
    if len(steps) < FEWEST:
        raise SystemExit(
            f"expected at least {FEWEST} steps that count, got {len(steps)}; "
            "give more --seconds"
        )
    return {
        "steps": len(steps),
        "share": {
            "inside trials": share(steps, [step.trials for step in steps]),
            "in the update": share(steps, [step.update for step in steps]),
            "waiting": share(steps, [step.neither for step in steps]),
        },
        "milliseconds": {
            "step": spread([1000 * step.total for step in steps]),
            "trials": spread([1000 * step.trials for step in steps]),
            "update": spread([1000 * step.update for step in steps]),
            "neither": spread([1000 * step.neither for step in steps]),
        },
    }


def share(steps: Sequence[Step], seconds: Sequence[float]) -> dict[str, float]:
    """Return the median share of a step, and the share of all time together."""
    each = [part / step.total for part, step in zip(seconds, steps, strict=True)]
    mean = sum(seconds) / sum(step.total for step in steps)
    return {"median": round(statistics.median(each), 4), "mean": round(mean, 4)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, mean and the ends of the middle 80 %."""
    low, high = np.percentile(values, [10, 90])
    return {
        "median": round(statistics.median(values), 3),
        "mean": round(statistics.fmean(values), 3),
        "10 %": round(float(low), 3),
        "90 %": round(float(high), 3),
    }


def described(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how the steps were run, as far as the lines tell."""
    asked = [s for line in lines if (s := line.get("timePerStep")) is not None]
    return {
        "median timePerStep": statistics.median(asked) if asked else None,
        "aggregation": sorted({line.get("aggregation") or "none" for line in lines}),
        "late": sum(line["late"] for line in lines),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, seconds=30.0)
    parser.add_argument("--timePerStep", help="seconds, or auto; default: the server's")
    options = parser.parse_args()
    more = ["--checkPointTime", f"{NEVER:g}"]
    if options.timePerStep is not None:
        more += ["--timePerStep", options.timePerStep]
    more += options.more
    served = serve(options.data, options.seconds, options.clients, more)
    found = figures(counted(served.steps))
    for name, part in found["share"].items():
        print(f"{name:14} {part['median']:7.2%} median  {part['mean']:7.2%} mean")
    for name, times in found["milliseconds"].items():
        print(f"{name:14}", *(f"{v:8.3f} ms {word}" for word, v in times.items()))
    told = {"clients": options.clients, **described(served.steps[FIRST_STEPS:])}
    finish({"benchmark": "step_overhead", **told, **found})


if __name__ == "__main__":
    main()

"""Measure what the worker processes of one client reach together.

    python -m benchmarks.workers [--workers 2] [--seconds S] [--timePerStep T]

Three take turns, a second each, in one run: a team of workers that scores trials in
steps, as a client does; as many processes that know nothing of each other and score
blocks without a pause, all at the same time; and one such process alone. Then what an
update costs with one core and with the team, and what a request costs that has no work.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utilities.processes import one_core

if TYPE_CHECKING:
    from utilities.evolution import Setting, TrainState
    from utilities.model import Tokens
    from utilities.team import Team

TURN = 1.0  # seconds
GROUPS = 1 << 22  # more than a step can score

Rate = Callable[[float], float]  # seconds -> trials a second


def alone(connection: Connection, seed: int, data: Path, keys: dict[str, Any]) -> None:
    """Score blocks whenever asked to: a process."""
    from benchmarks.common import example
    from utilities.evolution import Segment, pieces
    from utilities.scoring import score

    setting, corpus, state = example(data, **keys)
    work = (setting, state.weights, corpus.train)
    shaped = setting.whiteners(state.weights, corpus.train)
    blocks = pieces([Segment(seed, 0, GROUPS)], setting.block_groups)
    score(*work, next(blocks), shaped)
    connection.send(0.0)
    while seconds := connection.recv():
        trials, began = 0, time.monotonic()
        while time.monotonic() < began + seconds:
            block = next(blocks)
            score(*work, block, shaped)
            trials += block.groups * setting.config.trials_per_group
        connection.send(trials / (time.monotonic() - began))


@contextmanager
def independent(count: int, data: Path, keys: dict[str, Any]) -> Iterator[Rate]:
    """Give the sum of the rates of processes that work at the same time."""
    context = multiprocessing.get_context("spawn")
    connections: list[Connection] = []
    for seed in range(count):
        ours, theirs = context.Pipe()
        arguments = (theirs, seed, data, keys)
        context.Process(target=alone, args=arguments, daemon=True).start()
        connections.append(ours)

    def rate(seconds: float) -> float:
        for connection in connections:
            connection.send(seconds)
        return float(sum(connection.recv() for connection in connections))

    for connection in connections:
        connection.recv()  # is ready
    yield rate
    for connection in connections:
        connection.send(0.0)


def steps_of(
    team: "Team", setting: "Setting", state: "TrainState", tokens: "Tokens", step: float
) -> Rate:
    """Return how to measure the rate of a team in steps of that many seconds."""
    from utilities.evolution import Segment

    shaped = setting.whiteners(state.weights, tokens)

    def rate(seconds: float) -> float:
        trials, began = [0], time.monotonic()
        seed = 0
        while time.monotonic() < began + seconds:
            done = [0]
            segments = [Segment(seed, 0, GROUPS)]
            work = (setting, state.weights, tokens, shaped, segments)
            team.score(*work, step, done.append)
            trials.append(done[-1])
            seed += 1
        return sum(trials) / (time.monotonic() - began)

    return rate


def in_turns(rates: dict[str, Rate], seconds: float) -> dict[str, list[float]]:
    """Return the rates of all turns; each gets that many seconds."""
    found: dict[str, list[float]] = {name: [] for name in rates}
    for _ in range(max(1, round(seconds / TURN))):
        for name, rate in rates.items():
            found[name].append(rate(TURN))
    return found


def update_seconds(
    team: "Team", setting: "Setting", state: "TrainState", tokens: "Tokens", trials: int
) -> dict[str, float]:
    """Return the times of adding up so many trials by one core and by the team."""
    import numpy as np

    from benchmarks.common import fastest
    from utilities.engine import OneCore
    from utilities.evolution import Segment

    segments = [Segment(1, 0, max(1, trials // setting.config.trials_per_group))]
    size = segments[0].groups * setting.config.trials_per_group
    rewards = np.random.default_rng(1).integers(-126, 127, size).astype(np.int8)
    shaped = setting.whiteners(state.weights, tokens)
    work = (setting, state.weights, tokens, shaped, segments, rewards)
    one = OneCore(time.monotonic)
    return {
        "trials": size,
        "one core": fastest(lambda: one.halves(*work), TURN),
        "team": fastest(lambda: team.halves(*work), TURN),
    }


def measure(count: int, step: float, seconds: float, data: Path) -> dict[str, Any]:
    """Return all figures."""
    from benchmarks.common import example, fastest
    from utilities.team import Team

    keys: dict[str, Any] = {}
    setting, corpus, state = example(data, **keys)
    tokens = corpus.train

    def nothing() -> None:
        team.score(setting, state.weights, tokens, (), [], None, lambda trials: None)

    with (
        Team(count) as team,
        independent(count, data, keys) as processes,
        independent(1, data, keys) as single,
    ):
        rates = {
            "team": steps_of(team, setting, state, tokens, step),
            "independent": processes,
            "one": single,
        }
        found = in_turns(rates, seconds)
        mean = {f"{k} trials/s": statistics.mean(v) for k, v in found.items()}
        pairs = zip(found["team"], found["independent"], strict=True)
        per_step = int(mean["team trials/s"] * step)
        return {
            **mean,
            "ratio": mean["team trials/s"] / mean["independent trials/s"],
            "median ratio of turns": statistics.median(a / b for a, b in pairs),
            "update seconds": [
                update_seconds(team, setting, state, tokens, clients * per_step)
                for clients in (1, 16)
            ],
            "empty request seconds": fastest(nothing, TURN),
        }


def main() -> None:
    """Measure and print."""
    one_core()
    from benchmarks.common import TEXT, finish

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each of three")
    parser.add_argument("--timePerStep", type=float, default=0.1)
    parser.add_argument("--data", type=Path, default=TEXT)
    options = parser.parse_args()
    step = options.timePerStep
    figures = measure(options.workers, step, options.seconds, options.data)
    finish(
        {
            "benchmark": "workers",
            "workers": options.workers,
            "timePerStep": step,
            **figures,
        }
    )


if __name__ == "__main__":
    main()

"""Measure what an update costs a replica, as clients become more.

    python -m benchmarks.update_cost --clients 1,4,16,64 [--aggregation auto]

One real `Worker` scores trials for `timePerStep`; then it gets what a server would
send it, with made-up rewards, as if every client had scored as many. Counted as the
update is all that this replica computes: by seeds the sum over everybody's trials, by
sums the one over its own, and either way the optimizer. What it only waits for, its
processor free, is not measured here: the round trip that sums take more, and bytes on
the way. It is taken from the model that `auto` decides by, and shown beside: `share`
leaves it out, `shareWithWaiting` has it in.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utilities.processes import one_core

if TYPE_CHECKING:
    from utilities.evolution import Update
    from utilities.protocol import Shares

SECONDS = 1.0  # of one measurement


@dataclass(frozen=True)
class Cost:
    """What an update costs with some number of clients."""

    clients: int
    trials: int  # of all clients
    way: str  # seeds or sums
    update: float  # seconds that the replica computes
    waiting: float  # seconds besides, by the model
    time_per_step: float

    @property
    def share(self) -> float:
        """Return the update's share of the step, waiting left out."""
        return self.update / (self.update + self.time_per_step)

    @property
    def share_with_waiting(self) -> float:
        """Return the share of the step that is not for trials."""
        spent = self.update + self.waiting
        return spent / (spent + self.time_per_step)

    def line(self) -> str:
        """Return what a person reads."""
        return (
            f"{self.clients:3} clients, {self.trials:9,} trials, {self.way}: "
            f"{1000 * self.update:7.2f} ms, share {self.share:.3f}; "
            f"waiting by the model {1000 * self.waiting:.2f} ms, "
            f"share with it {self.share_with_waiting:.3f}"
        )


class Bench:
    """One replica, and what it is sent."""

    def __init__(self, data: Path, time_per_step: float, round_trip: float) -> None:
        """Welcome the worker and find out how much it can do in a step."""
        from benchmarks.common import example, fastest
        from utilities.evolution import Segment
        from utilities.protocol import TokenBatch, Welcome
        from utilities.scoring import score
        from utilities.worker import Worker

        self.setting, corpus, self.state = example(data, timePerStep=time_per_step)
        self.tokens = corpus.train
        self.time_per_step, self.round_trip = time_per_step, round_trip
        setting, state = self.setting, self.state
        block = Segment(1, 0, setting.block_groups)
        step = (setting, state.weights, self.tokens)
        shaped = setting.whiteners(state.weights, self.tokens)  # once a step
        took = fastest(lambda: score(*step, block, shaped), 1.0)
        self.groups = max(1, int(time_per_step / took)) * block.groups
        self.worker = Worker(time.monotonic)
        digest = state.digest(setting.fingerprint)
        keys, text = setting.config.to_json(), setting.text_sha256
        place = (state.step, state.count, digest)
        self.worker.handle(Welcome(keys, text, "", *place, *state.arrays))
        self.worker.handle(TokenBatch(0, self.tokens))

    def news(self, clients: int) -> "tuple[Update, Shares, Update]":
        """Return an update by seeds, this client's shares, and an update by sums."""
        import numpy as np

        from utilities.evolution import Segment, Update, nodes_of, total
        from utilities.protocol import Shares

        segments = tuple(Segment(seed, 0, self.groups) for seed in range(clients))
        own = self.groups * self.setting.config.trials_per_group
        random = np.random.default_rng(1)
        rewards = random.integers(-126, 127, clients * own).astype(np.int8)
        shares = Shares(0, 0, segments[:1], rewards[:own])
        nodes = nodes_of(self.setting, self.state.weights, self.tokens)
        about = self.setting, nodes, self.tokens
        sums = total(*about, segments[:1], rewards[:own])
        nothing = np.zeros(0, np.int8)
        by_seeds = Update(0, 0, clients * own, 0.01, segments, rewards)
        made_up = (clients * sums).astype(np.int32)
        by_sums = Update(0, 0, clients * own, 0.01, (), nothing, made_up)
        return by_seeds, shares, by_sums

    def measure(self, clients: int, aggregation: str) -> Cost:
        """Return what an update costs."""
        from dataclasses import replace

        from utilities.aggregation import (
            SETTLED,
            SUMS,
            Aggregation,
            Load,
            seeds_seconds,
            sums_seconds,
        )

        by_seeds, shares, by_sums = self.news(clients)

        def regenerate() -> None:
            self.worker.handle(replace(by_seeds, step=self.worker.step or 0))
            self.worker.take()

        def add_up() -> None:
            step = self.worker.step or 0
            self.worker.handle(replace(shares, step=step))
            self.worker.work()
            self.worker.handle(replace(by_sums, step=step))
            self.worker.take()

        own, size = len(shares.rewards), self.setting.layout.size
        load = Load(clients * own, own, clients, clients, size)
        chooser = Aggregation(aggregation)
        chooser.summed(self._adding(shares))
        chooser.answered(0, self.round_trip)
        for _ in range(SETTLED):
            chooser.choose(load)
        if chooser.way == SUMS:
            waiting = sums_seconds(load, 0.0, self.round_trip)
            update = fastest_of(add_up)
        else:
            waiting = seeds_seconds(load, 0.0)
            update = fastest_of(regenerate)
        return Cost(
            clients, load.trials, chooser.way, update, waiting, self.time_per_step
        )

    def _adding(self, shares: "Shares") -> float:
        """Return the seconds that one trial takes to be added up."""
        from dataclasses import replace

        def add_up() -> None:
            self.worker.handle(replace(shares, step=self.worker.step or 0))
            self.worker.work()

        return fastest_of(add_up) / len(shares.rewards)


def fastest_of(work: Callable[[], object]) -> float:
    """Return the shortest time of one call."""
    from benchmarks.common import fastest

    return fastest(work, SECONDS)


def main() -> None:
    """Measure and print."""
    one_core()
    from benchmarks.common import TEXT, finish

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", default="1,4,16,64")
    parser.add_argument("--data", type=Path, default=TEXT)
    parser.add_argument(
        "--aggregation", choices=("auto", "seeds", "sums"), default="auto"
    )
    parser.add_argument(
        "--timePerStep", type=float, default=0.1, help="seconds; default: 0.1"
    )
    parser.add_argument(
        "--roundTrip",
        type=float,
        default=0.001,
        help="seconds of a message and its answer, for the model; default: 0.001",
    )
    options = parser.parse_args()
    bench = Bench(options.data, options.timePerStep, options.roundTrip)
    costs = []
    for word in options.clients.split(","):
        costs.append(bench.measure(int(word), options.aggregation))
        print(costs[-1].line())
    finish(
        {
            "benchmark": "update_cost",
            "timePerStep": options.timePerStep,
            "share": {str(cost.clients): cost.share for cost in costs},
            "shareWithWaiting": {
                str(cost.clients): cost.share_with_waiting for cost in costs
            },
            "aggregation": {str(cost.clients): cost.way for cost in costs},
            "updateSeconds": {str(cost.clients): cost.update for cost in costs},
            "waitingByModel": {str(cost.clients): cost.waiting for cost in costs},
        }
    )


if __name__ == "__main__":
    main()

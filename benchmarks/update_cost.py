"""Measure what an update costs a replica, as clients become more.

    python -m benchmarks.update_cost --clients 1,4,16,64 [--data FILE]

One replica scores trials for `timePerStep`; the update then adds up as many trials of
every client. Prints the update's share of the step.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from utilities.processes import one_core


def measure(clients: list[int], data: Path, keys: dict[str, Any]) -> dict[str, float]:
    """Return the update's share of a step for each number of clients."""
    import numpy as np

    from benchmarks.common import example, fastest
    from utilities.evolution import Segment, Update, advance, score

    setting, corpus, state = example(data, **keys)
    config = setting.config
    block = Segment(1, 0, setting.block_groups)
    took = fastest(lambda: score(setting, state.weights, corpus.train, block), 1.0)
    groups = max(1, int(config.time_per_step / took)) * block.groups
    random = np.random.default_rng(1)
    shares = {}
    for count in clients:
        trials = count * groups * config.trials_per_group
        rewards = random.integers(-126, 127, trials).astype(np.int8)
        segments = tuple(Segment(seed, 0, groups) for seed in range(count))
        update = Update(state.step, 0, trials, 0.01, segments, rewards)
        work = partial(advance, setting, state, update, corpus.train)
        seconds = fastest(work, 1.0)
        shares[str(count)] = seconds / (seconds + config.time_per_step)
        print(
            f"{count} clients, {trials:,} trials: {seconds:.4f} s, "
            f"share {shares[str(count)]:.3f}"
        )
    return shares


def main() -> None:
    """Measure and print."""
    one_core()
    from benchmarks.common import TEXT, finish

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", default="1,4,16,64")
    parser.add_argument("--data", type=Path, default=TEXT)
    options = parser.parse_args()
    counts = [int(word) for word in options.clients.split(",")]
    finish({"benchmark": "update_cost", "share": measure(counts, options.data, {})})


if __name__ == "__main__":
    main()

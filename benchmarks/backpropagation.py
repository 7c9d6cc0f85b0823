"""Train the same model by backpropagation, in one process: what ES is compared with.

    python -m benchmarks.backpropagation --data FILE --seconds S [S ...]
        [--hiddenSize 32] [--nLayers 1] [--modelType rnn|gru] [--threads 2]

PyTorch, Adam, random windows of the training text, each from a zero state. Layout,
initial weights, split of the text and the score are the server's: all of the last 10 %,
in rows of 256 characters from a zero state. The rate follows half a cosine down to 2 %
at the end of a run, so each S is a run of its own; it is scored after S, S/2, S/4 ...
seconds, but only the last score has seen the decay. Scoring takes no time of the run.

Threads wait for each other by spinning: where other programs use the cores too, this
becomes many times slower, and --threads 1 or OMP_WAIT_POLICY=passive are better.
"""

import argparse
import math
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import ROOT, TEXT, example, finish, spaced
from utilities.data import Corpus, gather_windows, log_frequencies, validation_rows
from utilities.evolution import Setting, initial_state
from utilities.model import Floats
from utilities.scoring import clean_loss

REQUIREMENTS = ROOT / "requirements-benchmarks.txt"
LAST_RATE = 0.02  # share of the rate that is left at the end
POINTS = 7  # of a run's curve at most
SHORTEST = 0.5  # seconds until the first of them


@dataclass(frozen=True)
class Recipe:
    """How to train; the defaults were the best of a few, within a minute."""

    rate: float = 0.02
    batch: int = 32  # windows of an update
    window: int = 64  # characters
    seed: int = 1


@dataclass(frozen=True)
class Point:
    """Where training stood when the validation text was scored."""

    seconds: float  # of training
    core_seconds: float  # of all threads
    characters: int  # read
    validation: float  # nats per character

    def __str__(self) -> str:
        return (
            f"{self.seconds:8.2f} s  {self.core_seconds:8.2f} core-seconds"
            f"  {self.characters:13,} characters  validation {self.validation:.4f}"
        )


def moments(seconds: float) -> list[float]:
    """Return when to score: the end, half of it, a quarter ..., ascending."""
    every = [seconds / 2**n for n in range(POINTS)]
    return sorted(moment for moment in every if moment >= min(SHORTEST, seconds))


def rate_at(recipe: Recipe, share: float) -> float:
    """Return the rate after a share of the run."""
    half_cosine = (1 + math.cos(math.pi * min(1.0, share))) / 2
    return recipe.rate * (LAST_RATE + (1 - LAST_RATE) * half_cosine)


def train(
    setting: Setting, corpus: Corpus, recipe: Recipe, seconds: float
) -> list[Point]:
    """Return the curve of one run."""
    from benchmarks.torch_network import Adam, Network

    frequencies = log_frequencies(corpus.train, corpus.vocabulary.size)
    state = initial_state(setting, recipe.seed, frequencies)
    network = Network(setting, state.weights)
    adam, random = Adam(network), np.random.default_rng(recipe.seed)
    points: list[Point] = []
    spent = used = 0.0
    updates = 0
    for moment in moments(seconds):
        began, used_before = time.perf_counter() - spent, time.process_time() - used
        while (spent := time.perf_counter() - began) < moment:
            starts = random.integers(0, corpus.train.size - recipe.window, recipe.batch)
            windows = gather_windows(corpus.train, starts, recipe.window)
            adam.step(windows, rate_at(recipe, spent / seconds))
            updates += 1
        used = time.process_time() - used_before
        read = updates * recipe.batch * recipe.window
        loss = round(scored(setting, corpus, network.weights()), 6)
        points.append(Point(round(spent, 2), round(used, 2), read, loss))
        print(points[-1], flush=True)
    return points


def scored(setting: Setting, corpus: Corpus, weights: Floats) -> float:
    """Return the loss on all of the validation text, as the server computes it."""
    return clean_loss(setting, weights, validation_rows(corpus.validation))


def use_torch(threads: int) -> str:
    """Return PyTorch's version, once it is there and computes with so many threads.

    Raises:
        SystemExit: it is not installed; says how to install it.
    """
    try:
        from benchmarks.torch_network import VERSION, use_threads
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "torch":
            raise
        command = f"{sys.executable} -m pip install -r {REQUIREMENTS.name}"
        raise SystemExit(f"PyTorch is not installed; run: {command}") from None
    use_threads(threads)
    return VERSION


def parsed() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, recipe = parser.add_argument, Recipe()
    add("--data", type=Path, default=TEXT)
    add("--seconds", type=float, nargs="+", default=[60.0], help="a run for each")
    add("--modelType", choices=("rnn", "gru"), default="rnn")
    add("--hiddenSize", type=int, default=32)
    add("--nLayers", type=int, default=1)
    add("--threads", type=int, default=2)
    add("--rate", type=float, default=recipe.rate, help="of Adam, at the start")
    add("--batch", type=int, default=recipe.batch, help="windows of an update")
    add("--window", type=int, default=recipe.window, help="characters of a window")
    add("--seed", type=int, default=recipe.seed)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = parsed()
    version = use_torch(options.threads)
    names = ("modelType", "hiddenSize", "nLayers")
    keys: dict[str, Any] = {name: getattr(options, name) for name in names}
    setting, corpus, _ = example(options.data, **keys)
    recipe = Recipe(options.rate, options.batch, options.window, options.seed)
    run = partial(train, setting, corpus, recipe)
    runs = []
    for seconds in options.seconds:
        print(f"{seconds:g} s of {keys}, {setting.layout.size:,} weights", flush=True)
        runs.append({"seconds": seconds, "curve": [spaced(p) for p in run(seconds)]})
    told = {**keys, "weights": setting.layout.size, "threads": options.threads}
    told |= {"recipe": spaced(recipe), "torch": version, "runs": runs}
    finish({"benchmark": "backpropagation", **told})


if __name__ == "__main__":
    main()

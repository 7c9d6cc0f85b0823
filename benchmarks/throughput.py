"""Measure how fast one core scores trials, for several models.

    python -m benchmarks.throughput [--data FILE] [--seconds S] [--prototype FILE]

Prints characters and trials a second, the speed of the matrix products alone in the
same shapes, the share of the time that these would take, and the plain way: full noise,
one antithetic pair at a time. With the prototype, its own figure in the same run.

Characters a second are of windows as long as the prototype's, from a zero state; trials
a second are those of a run by its defaults, whose windows are short and have others
before them.

Characters a second are those that a pass over the network read: a row each for the
trials that perturb states, and for the clean weights. Output trials take no pass of
their own, but each is the loss of a perturbed copy over all characters of its window:
characters of all trials a second count the windows of trials of either kind, and none
of clean weights; so does the prototype's figure of that name.
"""

import argparse
from pathlib import Path

from utilities.processes import one_core

PROTOTYPE_DIRECTIONS = 16  # for one clean pass, which its own figure counts too
AS_LONG: dict[str, object] = {"sequenceLength": 64, "burnIn": 0}  # as the prototype's
MODELS = ((16, 1), (32, 1), (64, 1), (128, 1), (128, 2), (256, 2))


def measure(
    cell: str, hidden: int, layers: int, data: Path, seconds: float
) -> dict[str, float]:
    """Return the figures of one model."""
    from benchmarks.common import example, fastest
    from utilities.evolution import Segment
    from utilities.scoring import score

    keys: dict[str, object] = {
        "modelType": cell,
        "hiddenSize": hidden,
        "nLayers": layers,
    }
    setting, corpus, state = example(data, **(keys | AS_LONG))
    segment = Segment(7, 0, setting.block_groups)
    shaped = setting.whiteners(state.weights, corpus.train)  # once a step
    trials = segment.groups * setting.config.trials_per_group
    rows = segment.groups * (setting.config.passes_per_group + 1)
    characters = rows * setting.config.sequence_length
    work = state.weights, corpus.train, segment, shaped
    took = fastest(lambda: score(setting, *work), seconds)
    usual, _, _ = example(data, **keys)
    by_default = fastest(lambda: score(usual, *work), seconds / 2)
    products, flops = products_alone(setting, rows, seconds / 2)
    products *= setting.config.sequence_length
    full = keys | AS_LONG | {"noise": "full", "directionsPerWindow": 0}
    plain, one, _ = example(data, **full)
    pair = Segment(7, 0, 1)
    slow = fastest(lambda: score(plain, state.weights, one.train, pair), seconds / 2)
    return {
        "characters/s": characters / took,
        "trials/s": trials / by_default,
        "characters of all trials/s": trials * setting.config.sequence_length / took,
        "sgemm GFLOP/s": flops * rows * setting.config.sequence_length / products / 1e9,
        "share of sgemm": products / took,
        "plain characters/s": 2 * plain.config.sequence_length / slow,
    }


def products_alone(setting: object, rows: int, seconds: float) -> tuple[float, int]:
    """Return the time of one character's matrix products, and operations a row."""
    import numpy as np

    from benchmarks.common import fastest
    from utilities.evolution import Setting

    assert isinstance(setting, Setting)
    layout = setting.layout
    shapes = [t.shape for t in layout.tensors if len(t.shape) == 2 and t.name != "Wx0"]
    left = np.ones((rows, layout.hidden_size), np.float32)
    right = [np.ones(shape, np.float32) for shape in shapes]
    out = [np.empty((rows, shape[1]), np.float32) for shape in shapes]

    def work() -> None:
        for matrix, result in zip(right, out, strict=True):
            np.matmul(left, matrix, out=result)

    return fastest(work, seconds), sum(2 * a * b for a, b in shapes)


def main() -> None:
    """Measure and print."""
    one_core()
    from benchmarks.common import PROTOTYPE, TEXT, finish, prototype

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=TEXT)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    parser.add_argument("--prototype", type=Path, default=PROTOTYPE)
    options = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    for cell in ("rnn", "gru"):
        for hidden, layers in MODELS:
            row = measure(cell, hidden, layers, options.data, options.seconds)
            figures[f"{cell} {hidden}x{layers}"] = row
            print(
                f"{cell} ({hidden},{layers})",
                *(f"{k} {v:,.3g}" for k, v in row.items()),
                sep="  ",
                flush=True,
            )
    last: dict[str, object] = {"benchmark": "throughput", "models": figures}
    if options.prototype.exists():
        speed, _ = prototype(options.prototype, options.data, 4 * options.seconds)
        last["prototype characters/s"] = speed
        last["ratio to prototype"] = figures["rnn 32x1"]["characters/s"] / speed
        name, share = "characters of all trials/s", 1 - 1 / (PROTOTYPE_DIRECTIONS + 1)
        last[f"prototype {name}"] = speed * share
        last[f"ratio of {name}"] = figures["rnn 32x1"][name] / (speed * share)
    finish(last)


if __name__ == "__main__":
    main()

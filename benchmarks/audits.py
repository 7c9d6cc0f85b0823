"""Measure what it costs that clients are audited.

    python -m benchmarks.audits [--data FILE] [--seconds S] [--clients 8]

Three figures. How much slower a core scores trials that lie in eight segments, as a
server gives them out, than in one. How much longer an update takes. And how many trials
are done twice: the server's own rules over many steps, with clients that are all
trusted and honest; nothing is scored for that.
"""

import argparse
import itertools
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from utilities.processes import one_core

if TYPE_CHECKING:
    from utilities.evolution import Setting

STEPS = 4000  # of the third figure
BLOCKS = (8, 32)  # of a step of about 0.1 and 0.4 s of the default model


def compared(one: Callable[[], object], other: Callable[[], object], s: float) -> float:
    """Return the other's processor time as a multiple of the first one's, in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + s
    for turn in itertools.count():
        if turn > 2 and time.perf_counter() > end:
            break
        order = (0, 1) if turn % 2 else (1, 0)
        for number in order:
            began = time.process_time()
            (one, other)[number]()
            times[number].append(time.process_time() - began)
    return min(times[1]) / min(times[0])


def untold(_: int) -> None:
    """Take no note of trials that are scored."""


def cut(data: Path, seconds: float) -> dict[str, float]:
    """Return what the cutting into segments costs."""
    import numpy as np

    from benchmarks.common import example
    from utilities.engine import OneCore
    from utilities.evolution import Segment
    from utilities.steps import LEAST_PARTS, PART_BLOCKS, PARTS

    setting, corpus, state = example(data)
    engine, block = OneCore(time.perf_counter), setting.block_groups
    shaped = setting.whiteners(state.weights, corpus.train)
    run = setting, state.weights, corpus.train, shaped
    figures = {}
    for blocks in BLOCKS:
        parts = min(PARTS, max(LEAST_PARTS, blocks // PART_BLOCKS))
        whole = [Segment(7, 0, blocks * block)]
        several = [Segment(8 + n, 0, blocks // parts * block) for n in range(parts)]
        trials = blocks * block * setting.config.trials_per_group
        rewards = np.random.default_rng(1).integers(-126, 127, trials).astype(np.int8)
        name = f"{blocks} blocks in {parts} segments"
        score = partial(engine.score, *run, seconds=None, on_block=untold)
        figures[f"scoring {name}"] = compared(
            partial(score, segments=whole), partial(score, segments=several), seconds
        )
        halves = partial(engine.halves, *run, rewards=rewards)
        figures[f"update {name}"] = compared(
            partial(halves, segments=whole), partial(halves, segments=several), seconds
        )
    return figures


def repeated(setting: "Setting", blocks: int, clients: int) -> tuple[float, float]:
    """Return the share of trials that are done twice, and of audited steps.

    Args:
        setting: of the run.
        blocks: that every client scores in a step.
        clients: how many there are.
    """
    import numpy as np

    from utilities.audits import FLOOR, Audits, Record
    from utilities.evolution import Segment
    from utilities.peers import Peer
    from utilities.protocol import Result
    from utilities.scheduling import sheet_size
    from utilities.steps import TimedStep

    audits = Audits(setting, random.Random(1))
    peers = [Peer(number, f"c{number}", ready=True) for number in range(clients)]
    seeds, groups = itertools.count(), blocks * setting.block_groups
    for peer in peers:
        audits._records[peer] = Record(agreed=round(1 / FLOOR))
        peer.scored.append((groups, 1.0))
    twice = counted = pairs = 0
    for number in range(STEPS):
        step = TimedStep(setting, number, 1.0, seeds.__next__, audits=audits)
        for peer, given in step.assign(peers, 0.0):
            left, done = groups, list[Segment]()
            for segment in given:
                part = min(left, segment.groups)
                left -= part
                done += [Segment(segment.seed, 0, part)] if part else []
            losses, clean = (np.zeros(n, np.float32) for n in sheet_size(setting, done))
            peer.debts.clear()
            result = Result(number, b"", 0.1, 1.0, None, tuple(done), losses, clean)
            step.take(peer, result, 1.0)
        counted += sum(segment.groups for segment, _ in step.scored()[0])
        for pair in step.pairs():
            twice, pairs = twice + pair.segment.groups, pairs + 1
            for peer, _ in pair.answers:
                audits._records[peer].due = False
    return twice / (twice + counted), 2 * pairs / (STEPS * clients)


def main() -> None:
    """Measure and print."""
    one_core()
    from benchmarks.common import TEXT, example, finish

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=TEXT)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each figure")
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    figures: dict[str, object] = {"benchmark": "audits"}
    for name, ratio in cut(options.data, options.seconds).items():
        figures[name] = ratio
        print(f"{name}: {ratio:.4f} of the time in one segment", flush=True)
    setting, _, _ = example(options.data, batchSize=512)  # a group a block: no matter
    for blocks in BLOCKS:
        share, steps = repeated(setting, blocks, options.clients)
        figures[f"done twice, {blocks} blocks a step"] = share
        print(
            f"{blocks} blocks a step, {options.clients} clients: {share:.2%} of the "
            f"trials done twice; a client is compared in {steps:.1%} of its steps"
        )
    finish(figures)


if __name__ == "__main__":
    main()

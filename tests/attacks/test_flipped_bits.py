"""One flipped bit, a hundred times: in a client's state, in a checkpoint."""

import itertools
import random
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.attacks.schedules import Observed
from tests.desk import BY_NODES, Lesson, lesson
from tests.small_runs import VOCABULARY, record
from tests.wire import Node
from utilities.errors import CheckpointError
from utilities.evolution import TrainState
from utilities.runs import Run, RunStore

FLIPS = 100
STEPS_TO_MEND = 2
KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"trials_per_step": 24},
    {"aggregation": "sums"},
    BY_NODES | {"aggregation": "sums"},
    {"optimizer": "sgd", "batch_limit": 200, "new_tokens_interval": 2},
)
ARRAYS = ("weights", "first", "second")


@cache
def lessons() -> list[Lesson]:
    return [lesson(**({"sequence_length": 4} | kind)) for kind in KINDS]


# In a client's state.


def flipped(state: TrainState, name: str, bit: int) -> TrainState:
    """Return a state with one bit of one array changed."""
    array = getattr(state, name).copy()
    octets = array.view(np.uint8)
    octets[bit // 8] ^= 1 << bit % 8
    return replace(state, **{name: array})


@dataclass
class Found:
    """What became of one flip."""

    steps_to_find: int  # 0: the digest of the step that it struck told
    steps_to_mend: int  # until it has the true state again
    expelled: bool = False  # an audit saw it first: losses that are not those of trials


def strike(rng: random.Random, node: Node) -> None:
    """Flip a bit in a replica's memory; its digest is that of before until it moves."""
    worker = node.worker
    assert worker._state is not None
    name = rng.choice(ARRAYS)
    bits = 8 * getattr(worker._state, name).nbytes
    worker._state = flipped(worker._state, name, rng.randrange(bits))
    node.deviates = True
    if rng.random() < 0.5:  # it struck before the digest was taken
        worker._digest = b""


def vanished(wire: Observed, victim: Node, struck: int) -> bool:
    """Return whether the next update has rounded a flip away: nothing differs."""
    worker = victim.worker
    if worker.step is None or worker.step <= struck or worker._state is None:
        return False
    fingerprint = wire.start.setting.fingerprint
    return worker._state.digest(fingerprint) == wire.truth.digest(worker.step)


def flip_in_a_client(seed: int) -> Found | None:
    """Let memory fail in one of three clients; hold that it is found and mended.

    Returns:
        What became of it; None if it was gone before there was another digest.
    """
    rng = random.Random(seed)
    wire = Observed(lessons()[seed % len(KINDS)])
    wire.history.faithful = False
    # By nodes a sum depends on weights, and that of the step in which
    # the bit flips may count before the next digest shows it: for all replicas alike.
    wire.truth.lied_to = wire.start.setting.by_nodes
    for name in ("ann", "bob", "eve"):
        wire.node(name)
    wire.run_to(rng.randint(4, 9))
    wire.run_for(rng.uniform(0.0, 1.0))
    victim = rng.choice(wire.nodes)
    others = [node.name for node in wire.nodes if node is not victim]
    struck = victim.worker.step
    assert struck is not None
    strike(rng, victim)

    def noticed() -> list[tuple[str, int]]:
        told = re.compile(
            rf"{victim.name}(: its digest differs at| expelled: its (?:losses|sum) of) "
            r"step (\d+)\b"
        )
        notes = (told.match(note.text) for note in wire.log.notes if note.warning)
        return [(match[1], int(match[2])) for match in notes if match]

    wire.run(lambda: bool(noticed()) or vanished(wire, victim, struck), 60.0)
    if not noticed():
        return None
    [(how, found)] = noticed()
    expelled = "expelled" in how
    wire.run(lambda: expelled or not victim.deviates, 60.0)
    mended = wire.coordinator.step
    wire.run_to(mended + 3)

    for other in others:
        assert not wire.log.said(f"{other}: its ")
        assert not wire.log.said(f"{other} expelled")
    assert wire.log.closed[-1].clients == 3 - expelled
    assert wire.refusals == []
    victim.deviates &= expelled
    wire.check()  # all others are the true state, which was never touched
    return Found(found - struck, mended - found, expelled)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of what computes with it
def test_a_flipped_bit_in_a_client_is_found_located_and_mended() -> None:
    found: list[Found] = []
    gone = 0
    for seed in itertools.count():
        each = flip_in_a_client(seed)
        gone += each is None
        found += [each] if each is not None else []
        if len(found) == FLIPS:
            break
    expelled = sum(each.expelled for each in found)
    latest = max(each.steps_to_find for each in found)
    slowest = max(each.steps_to_mend for each in found)
    print(
        f"{FLIPS} bits flipped in clients: {len(found)} found within {latest} steps of "
        f"the flip, all named, mended within {slowest} steps of that; "
        f"{gone} more were rounded away by the next update; "
        f"{expelled} clients were taken for liars"
    )
    assert latest <= 1  # the next digest
    assert slowest <= STEPS_TO_MEND
    assert gone <= FLIPS // 10
    assert expelled == 0


# In a checkpoint.

EVERY, LAST = 4, 12
SECONDS = 30.0


@cache
def start() -> Lesson:
    return lesson(trials_per_step=24)


@cache
def states() -> dict[int, TrainState]:
    """Return the states of a run of a fixed number of trials, by step."""
    wire = Observed(start())
    wire.node("ann")
    wire.run_to(LAST)
    return {step: wire.truth.state(step) for step in range(0, LAST + 1, EVERY)}


@cache
def trained_on(step: int) -> bytes:
    """Return the digest that a run ends at which goes on from a checkpoint."""
    wire = Observed(replace(start(), state=states()[step]))
    wire.history.step = step
    wire.node("bob")
    wire.run_to(LAST)
    return wire.truth.digest(LAST)


def saved(root: Path) -> Run:
    """Return a run with a checkpoint of each of these states."""
    config = replace(start().setting.config, keep_checkpoints=9)
    run = RunStore(root).create(record(config=config), VOCABULARY, None)
    fingerprint = start().setting.fingerprint
    for state in states().values():
        run.save_checkpoint(state, state.digest(fingerprint), SECONDS)
    return run


def newest_sound(run: Run, damaged: int) -> int:
    """Return the newest checkpoint that can be read; the damaged one is located."""
    fingerprint = start().setting.fingerprint
    refused: list[str] = []
    for step in run.checkpoint_steps():
        try:
            checkpoint = run.load_checkpoint(fingerprint, step)
        except CheckpointError as error:
            refused.append(str(error).partition("step-")[2])
            continue
        digest = states()[step].digest(fingerprint)
        assert checkpoint.state.digest(fingerprint) == checkpoint.digest == digest
        assert checkpoint.seconds == SECONDS
        newest = step
    assert [name[:11] for name in refused] == [f"{damaged:06}.npz:"]
    return newest


@pytest.mark.slow
def test_a_flipped_bit_in_a_checkpoint_is_found_located_and_made_good(
    tmp_path: Path,
) -> None:
    run, rng, newest = saved(tmp_path), random.Random(3), 0
    whole = states()[LAST].digest(start().setting.fingerprint)
    for _ in range(FLIPS):
        step = rng.choice(run.checkpoint_steps())
        [path] = tmp_path.rglob(f"step-{step:06}.npz")
        content = path.read_bytes()
        bit = rng.randrange(8 * len(content))
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)

        sound = newest_sound(run, step)
        assert trained_on(sound) == whole
        newest += step == LAST
        path.write_bytes(content)
    run.close()
    print(
        f"{FLIPS} bits flipped in checkpoints, {newest} of them in the newest: all "
        "found and named; the newest sound one leads to the same state, to the bit"
    )

"""Runs with a journal, made without any client."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from utilities.disk import DISK, Disk
from utilities.evolution import Segment, TrainState, Update, advance, segment_seed
from utilities.history import Entry, pack
from utilities.options import parse_server
from utilities.setup import Prepared, prepare

WORDS = "the cat sat on the mat and saw a rat. " * 60  # 2,280 characters
TRIALS = 64


def update_of(step: int, seed: int = 5) -> Update:
    """Return an update of one segment, whose rewards are the step's own."""
    segment = Segment(segment_seed(seed, step, 0), 0, TRIALS // 32)
    rewards = np.random.Generator(np.random.Philox(key=step)).integers(
        -126, 127, TRIALS
    )
    return Update(step, 0, TRIALS, 0.01, (segment,), rewards.astype(np.int8))


def entry_of(update: Update, digest: bytes) -> Entry:
    """Return an entry with figures that tell its step."""
    step = update.step
    return Entry(
        *(update, digest, 1e9 + step, step + 0.5, 3.0 - step / 100, 2, 0, 0),
        *("seeds", (("a", 40, 900), ("b", 24, 500))),
    )


class Trained:
    """A run that grows step by step, and the states that it went through."""

    def __init__(self, folder: Path, disk: Disk = DISK, keys: str = "") -> None:
        """Begin a new run below a folder."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        text = folder / "cat.txt"
        text.write_text(WORDS, encoding="utf-8")
        self.line = f"--runs {folder / 'runs'} --data {text}"
        sizes = "--hiddenSize 4 --sequenceLength 8 --seed 5 --keepCheckpoints 2"
        self.adopt(self.prepared(f"{sizes} {keys}", disk))
        self.states = [self.now.state]

    def prepared(self, more: str = "", disk: Disk = DISK) -> Prepared:
        """Return a run as the server would open it."""
        return prepare(parse_server(f"{self.line} {more}".split()), None, disk)

    def adopt(self, now: Prepared) -> None:
        """Go on with a run that is open."""
        self.now = now

    def resumed(self, more: str = "", disk: Disk = DISK) -> Prepared:
        """Return the run as a server would go on with it, and let go of it."""
        now = self.prepared(f"--resume {more}", disk)
        now.run.close()
        return now

    def digest(self, step: int) -> bytes:
        """Return the digest of the state at a step."""
        return self.states[step].digest(self.now.setting.fingerprint)

    def step(self) -> None:
        """Take one step and make it durable."""
        state = self.states[-1]
        update = update_of(state.step)
        entry = entry_of(update, self.digest(state.step))
        self.now.journal.append(entry.step, entry.digest, pack(entry))
        tokens = self.now.corpus.token_batch(0)
        self.states.append(advance(self.now.setting, state, update, tokens))

    def save(self) -> None:
        """Save a checkpoint of the newest state, as the server would."""
        step = self.states[-1].step
        self.now.run.save_checkpoint(self.states[-1], self.digest(step), step + 0.5)
        self.now.journal.rotate()
        self.now.journal.prune(self.now.run.checkpoint_steps()[0])

    def close(self) -> None:
        """Let go of the run."""
        with closing(self.now.run):
            self.now.journal.close()

    @property
    def journal(self) -> Path:
        """Return the folder of the journal."""
        return self.now.run.path / "journal"

    def file(self, step: int) -> Path:
        """Return the file of the journal that begins with a step."""
        return self.journal / f"step-{step:06d}.log"


def trained(folder: Path, plan: Sequence[int], disk: Disk = DISK) -> Trained:
    """Return a run that was closed after some steps.

    Args:
        folder: below which it lies.
        plan: steps between checkpoints; after the last number there is none.
        disk: takes what is written.
    """
    run = Trained(folder, disk)
    for part, steps in enumerate(plan):
        if part:
            run.save()
        for _ in range(steps):
            run.step()
    run.close()
    return run


def alone(run: Trained, digest: bytes) -> None:
    """Take a step with one client, which told a digest."""
    state = run.states[-1]
    update = update_of(state.step)
    entry = replace(entry_of(update, digest), clients=1)
    run.now.journal.append(entry.step, entry.digest, pack(entry))
    tokens = run.now.corpus.token_batch(0)
    run.states.append(advance(run.now.setting, state, update, tokens))


def same(one: TrainState, other: TrainState) -> bool:
    """Return whether two states are equal to the bit."""
    bits = [(s.step, s.count, *(a.tobytes() for a in s.arrays)) for s in (one, other)]
    return bits[0] == bits[1]

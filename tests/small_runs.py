"""Run folders with a tiny model, for tests of what looks at runs."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from utilities.config import Config
from utilities.data import Vocabulary
from utilities.evolution import Setting, TrainState, initial_state
from utilities.model import Floats
from utilities.runlogs import RunLog, StepMetrics
from utilities.runs import Run, RunRecord, RunStore

NOW = 1_700_000_000.0  # when the last step of `trained_run` ended
VOCABULARY = Vocabulary(("", "", *"abcde \n"))
CONFIG = Config(vocab_size=9, hidden_size=4, keep_checkpoints=2)
SHA256 = "0123456789abcdef" * 4


def record(**changes: Any) -> RunRecord:
    values = {
        "config": CONFIG,
        "run_seed": 1,
        "text_name": "Some prose",
        "text_sha256": SHA256,
        "text_paths": ("/texts/a",),
        "program": "1.0",
    }
    return RunRecord(**{**values, **changes})


def new_run(root: Path, **changes: Any) -> Run:
    """Return a run without steps, open with its lock."""
    return RunStore(root).create(record(**changes), VOCABULARY, None)


def state_at(step: int) -> TrainState:
    """Return a state whose weights differ from those of every other step.

    Their mean is not the newest weights: it is what is to be used.
    """
    state = initial_state(Setting(CONFIG, SHA256), step, np.zeros(9, np.float32))
    return replace(state, step=step, weights=state.weights + np.float32(0.5))


def save(
    run: Run, step: int, weights: Floats | None = None, *, weights_only: bool = False
) -> None:
    """Save a state with these weights to be used, by default those of `state_at`."""
    state = state_at(step)
    if weights is not None:
        state = replace(state, average=weights)
    digest = state.digest(run.record.config.fingerprint(SHA256))
    run.save_checkpoint(state, digest, step / 2, weights_only=weights_only)


def metrics(step: int, **changes: Any) -> StepMetrics:
    """Return a step of half a second with 1,024 trials; its loss falls from 3 to 2."""
    plain = StepMetrics(
        step=step,
        time=NOW - 100 + step,
        seconds=(step + 1) / 2,
        loss=2 + 1 / (step + 1),
        validation_loss=None,
        trials=1024,
        clients=2,
        late=0,
        dropped=0,
        digest="",
    )
    return replace(plain, **changes)


def log(run: Run, steps: Iterable[StepMetrics]) -> None:
    run_log = RunLog(run)
    for step in steps:
        run_log.append_step(step)
    run_log.close()


def trained_run(root: Path, steps: int = 101) -> Run:
    """Return a run with some steps, still open as if it were trained."""
    run = new_run(root)
    save(run, 0)
    save(run, 1, weights_only=True)
    validations = {0: 3.1, 50: 2.25, 100: 2.5}
    log(run, (metrics(i, validation_loss=validations.get(i)) for i in range(steps)))
    save(run, steps)
    return run


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return what a folder holds, with the times of change."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(f): (f.stat().st_mtime_ns, f.read_bytes()) for f in files}

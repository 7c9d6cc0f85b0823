"""What the benchmarks share: the machine's description, timing, the last line."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utilities.config import from_json
from utilities.data import Corpus, build_corpus, build_vocabulary
from utilities.evolution import Setting, TrainState, initial_state
from utilities.textfiles import read_text

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
TEXT = SHARED / "data" / "tinyshakespeare.txt"
PROTOTYPE = SHARED / "prototype" / "es_prototype.py"


def machine() -> dict[str, str]:
    """Return what the figures were measured with."""
    return {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def spaced(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, their names in words."""
    return {name.replace("_", " "): v for name, v in asdict(record).items()}


def finish(figures: dict[str, Any]) -> None:
    """Print the one JSON line that a benchmark ends with."""
    print(json.dumps({**figures, **machine()}))


def fastest(work: Callable[[], object], seconds: float) -> float:
    """Return the shortest time of one call, over that many seconds of calls."""
    work()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def example(path: Path, **keys: object) -> tuple[Setting, Corpus, TrainState]:
    """Return a setting, a corpus and a state with random weights.

    Args:
        path: of the text.
        keys: of the configuration, in the user's spelling.
    """
    text = read_text([path])
    vocabulary = build_vocabulary(text, None)
    config = from_json({**keys, "vocabSize": vocabulary.size})
    setting = Setting(config, text.sha256)
    corpus = build_corpus(text, vocabulary, config.window_length)
    flat = np.zeros(vocabulary.size, np.float32)
    return setting, corpus, initial_state(setting, 1, flat)


@dataclass(frozen=True)
class Prototype:
    """What the one-process prototype reached on one core."""

    speed: float  # characters a second, as it tells
    own_loss: float  # of 128 rows of the validation text, as it tells
    loss: float  # of all of the validation text, in nats per character


def prototype(program: Path, data: Path, seconds: float) -> tuple[float, float]:
    """Return characters a second and last validation loss of one core."""
    return prototype_figures(_one_core_output([str(program.resolve())], data, seconds))


def scored_prototype(program: Path, data: Path, seconds: float) -> Prototype:
    """Return what it reached, its weights scored on all of the validation text."""
    command = ["-m", "benchmarks.prototype", str(program.resolve())]
    said = _one_core_output(command, data, seconds)
    loss = json.loads(said.splitlines()[-1])["validation"]
    return Prototype(*prototype_figures(said), loss)


def prototype_figures(said: str) -> tuple[float, float]:
    """Return characters a second and last validation loss of the prototype's output."""
    speeds = re.findall(r"([\d.]+) M chars/s", said)
    losses = re.findall(r"validation ([\d.]+)", said)
    return 1e6 * float(speeds[-1]), float(losses[-1])


def _one_core_output(command: list[str], data: Path, seconds: float) -> str:
    """Return what a Python program says that takes a text and a time."""
    options = ["--data", str(data.resolve()), "--seconds", str(seconds)]
    done = subprocess.run(
        [sys.executable, *command, *options],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    return done.stdout

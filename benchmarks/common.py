"""What the benchmarks share: the machine's description, timing, the last line."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from utilities.config import from_json
from utilities.data import Corpus, build_corpus, build_vocabulary, read_text
from utilities.evolution import Setting, TrainState, initial_state

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"
TEXT = SHARED / "data" / "tinyshakespeare.txt"
PROTOTYPE = SHARED / "prototype" / "es_prototype.py"


def machine() -> dict[str, str]:
    """Return what the figures were measured with."""
    return {
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


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
    corpus = build_corpus(text, vocabulary, config.sequence_length)
    flat = np.zeros(vocabulary.size, np.float32)
    return setting, corpus, initial_state(setting, 1, flat)


def prototype(program: Path, data: Path, seconds: float) -> tuple[float, float]:
    """Return characters a second and last validation loss of one core."""
    command = [sys.executable, str(program), "--data", str(data)]
    done = subprocess.run(
        [*command, "--seconds", str(seconds)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    speeds = re.findall(r"([\d.]+) M chars/s", done.stdout)
    losses = re.findall(r"validation ([\d.]+)", done.stdout)
    return 1e6 * float(speeds[-1]), float(losses[-1])

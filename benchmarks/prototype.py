"""Run the one-process prototype as it is, then score its weights as the server does.

    python -m benchmarks.prototype [PROGRAM] [--data FILE] [--seconds S]

The prototype is a script that works while it is loaded and leaves weights, validation
text and loss function in its globals. It scores itself on 128 rows of the validation
text; the second figure is of every character of it, in rows of 256 from a zero state,
as the server does it. One core.
"""

import argparse
import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utilities.processes import one_core


def full_loss(found: Mapping[str, Any]) -> float:
    """Return the loss on all of the validation text, in nats per character.

    Args:
        found: the prototype's globals: `val` (n,) tokens, and `losses(None, windows)`,
            which gives the mean loss of each column of windows (T + 1, rows).
    """
    from utilities.data import validation_rows

    total, characters = 0.0, 0
    for rows in validation_rows(found["val"]):
        steps = len(rows) - 1
        total += float(found["losses"](None, rows).sum(dtype=float)) * steps
        characters += steps * rows.shape[1]
    return total / characters


def main() -> None:
    """Run, score and print."""
    one_core()
    from benchmarks.common import PROTOTYPE, TEXT, finish

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=Path, nargs="?", default=PROTOTYPE)
    parser.add_argument("--data", type=Path, default=TEXT)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    program, seconds = str(options.program), str(options.seconds)
    sys.argv = [program, "--data", str(options.data), "--seconds", seconds]
    found = runpy.run_path(program, run_name="__main__")
    finish({"benchmark": "prototype", "validation": round(full_loss(found), 6)})


if __name__ == "__main__":
    main()

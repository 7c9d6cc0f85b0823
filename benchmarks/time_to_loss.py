"""Measure how far a real server and real clients come: validation loss against time.

    python -m benchmarks.time_to_loss --data FILE --seconds S --clients C [-- options]

All of the last 10 % of the text is scored, in rows of 256 characters from a zero state.
What stands after ``--`` goes to basicServer.py. With the prototype, its weights are
scored by itself on 128 windows, in the same run, one core.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import PROTOTYPE, TEXT, finish, prototype

ROOT = Path(__file__).resolve().parent.parent


def train(
    data: Path, seconds: float, clients: int, more: list[str]
) -> dict[str, object]:
    """Return the curve of one run, with the processor time of all its processes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            str(ROOT / "basicServer.py"),
            "--port",
            "0",
            "--quiet",
        ]
        command += ["--data", str(data), "--runs", folder, "--maxSeconds", str(seconds)]
        command += ["--localClients", str(clients), *more]
        before, began = os.times(), time.perf_counter()
        subprocess.run(command, check=True)
        wall, after = time.perf_counter() - began, os.times()
        lines = (Path(folder) / "0" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in lines]
    scored = [step for step in steps if step["validationLoss"] is not None]
    used = sum(after[2:4]) - sum(before[2:4])
    return {
        "curve": [
            [round(s["seconds"], 1), s["step"], s["validationLoss"]] for s in scored
        ],
        "wall seconds": round(wall, 1),
        "core seconds": round(used, 1),
        "steps": steps[-1]["step"],
        "validation": scored[-1]["validationLoss"] if scored else None,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=TEXT)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--prototype", type=Path, default=PROTOTYPE)
    parser.add_argument("--without-prototype", action="store_true")
    parser.add_argument("more", nargs="*", help="options of basicServer.py, after --")
    options = parser.parse_args()
    figures = train(options.data, options.seconds, options.clients, options.more)
    for seconds, step, loss in figures["curve"]:  # type: ignore[attr-defined]
        print(f"{seconds:8.1f} s  step {step:7d}  validation {loss:.4f}")
    if options.prototype.exists() and not options.without_prototype:
        _, loss = prototype(options.prototype, options.data, options.seconds)
        figures["prototype, one core"] = loss
    finish({"benchmark": "time_to_loss", "clients": options.clients, **figures})


if __name__ == "__main__":
    main()

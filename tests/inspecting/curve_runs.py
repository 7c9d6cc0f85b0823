"""Logs of runs whose loss follows a law, for tests of what is made of curves."""

from typing import Any

import numpy as np

from utilities.curves import Curves

FLOOR, SCALE, EXPONENT = 1.5, 2.0, 0.3
RATE = 1000.0  # trials a second


def law(trials: Any) -> Any:
    """Return a loss that falls as a power of the trials, above a floor."""
    return FLOOR + SCALE * (trials / 1000.0) ** -EXPONENT


def law_logs(points: int, noise: float = 0.0, seed: int = 0) -> Curves:
    """Return logs with so many validation losses, one each ten steps of a second."""
    return Curves(0, 0, law_lines(points, noise, seed), np.empty(0))


def law_lines(points: int, noise: float = 0.0, seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    lines = []
    for step in range(10 * points + 1):
        line: dict[str, Any] = {
            "step": step,
            "clients": 1,
            "seconds": step + 1.0,
            "trials": RATE,
        }
        if step and step % 10 == 0:
            measured = law(step * RATE) + noise * random.standard_normal()
            line["validationLoss"] = float(measured)
        lines.append(line)
    return lines

"""Ranges of numbers on rows of places, and the round numbers beside them.

Owns: what can be drawn of a series, a scale, its ticks, their labels, a few steps that
stand for many. Does not own what is drawn: `textplot` has characters as places,
`svgplot` has units of a picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Doubles: TypeAlias = NDArray[np.float64]

_HUGE = 1e300  # beyond, sums and differences could overflow
_ROUNDING = 1e-9  # of a step: 2.55 may have become 2.5499999
_RESOLUTION = 1e-12  # least range, as a share of the numbers: floats tell it apart


@dataclass(frozen=True, eq=False)
class Series:
    """Figures over numbers that ascend; nan where there is none."""

    name: str
    x: Doubles  # (n,)
    y: Doubles  # (n,)

    def usable(self) -> "Series":
        """Return what can be drawn."""
        # Comparisons with nan are false.
        keep = (np.abs(self.x) < _HUGE) & (np.abs(self.y) < _HUGE)
        return Series(self.name, self.x[keep], self.y[keep])


@dataclass(frozen=True)
class Scale:
    """A range of numbers on a row of places; low and high lie on the outer ones."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Doubles, least: float) -> "Scale":
        """Return the range of the values, not less than that."""
        low, high = float(values.min()), float(values.max())
        least = max(least, _RESOLUTION * max(abs(low), abs(high)))
        if high - low < least:
            middle = low + (high - low) / 2
            low, high = middle - least / 2, middle + least / 2
        return cls(low, high)

    def shares(self, values: Doubles) -> Doubles:
        """Return how far values lie from low (0) to high (1)."""
        return (values - self.low) / (self.high - self.low)

    def places(self, values: Doubles, count: int) -> NDArray[np.intp]:
        """Return the places 0 … count - 1 of values within the range."""
        return np.rint(self.shares(values) * (count - 1)).astype(np.intp)

    def ticks(self, most: int, least: float) -> tuple[Doubles, float]:
        """Return round numbers within the range, and their distance.

        Args:
            most: numbers at most, roughly.
            least: distance.
        """
        raw = (self.high - self.low) / max(1, most)
        power = 10.0 ** math.floor(math.log10(raw))
        steps = [max(least, k * power) for k in (1, 2, 5, 10)]
        fitting = next(i for i, step in enumerate(steps) if step >= raw * 0.999)
        # One that passes over the whole range says nothing: then a smaller one.
        step = max(
            (step for step in steps[: fitting + 1] if len(self._multiples(step))),
            default=steps[0],
        )
        return np.array(self._multiples(step), np.float64) * step, step

    def _multiples(self, step: float) -> range:
        """Return the factors of those multiples of a step that are in the range."""
        first = math.ceil(self.low / step - _ROUNDING)
        return range(first, math.floor(self.high / step + _ROUNDING) + 1)


def label(value: float, step: float, most: int) -> str:
    """Return a number with the digits that its distance to the next one needs.

    Args:
        value: the number.
        step: the distance.
        most: characters; a longer one is written with an exponent.
    """
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{value + 0.0:.{digits}f}"  # no minus before a zero
    return text if len(text) <= most else f"{value:.1e}"


def spread(steps: Sequence[int], most: int) -> list[int]:
    """Return so many steps at most, evenly over the logarithm, the ends included."""
    if len(steps) <= most:
        return list(steps)
    if most == 1:
        return [steps[-1]]
    logs = np.log1p(np.array(steps, np.float64) - steps[0])
    between = np.linspace(0.0, logs[-1], most)[1:-1]
    nearest = {int(np.abs(logs - log).argmin()) for log in between}
    # Not looked for: next to each other they may have the same logarithm.
    return [steps[place] for place in sorted({0, *nearest, len(steps) - 1})]

"""Small helpers that belong to no noun: spelling, digests, deadlines.

Standard library only; importing it does nothing.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RUNS = Path("trainingRuns")  # where runs are kept unless somebody says otherwise

Clock = Callable[[], float]


def camel_case(name: str) -> str:
    """Return the user's spelling of a name: ``time_per_step`` -> ``timePerStep``."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def kebab_case(key: str) -> str:
    """Return the second spelling of a flag: ``timePerStep`` -> ``time-per-step``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"-\1", key).lower()


def sha256(*parts: bytes | memoryview) -> bytes:
    """Return the SHA-256 (32 bytes) of the parts, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


@dataclass(frozen=True)
class Deadline:
    """A moment on a monotonic clock that several waits share."""

    moment: float  # seconds on the clock
    clock: Clock

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> "Deadline":
        """Return the deadline that many seconds from now."""
        return cls(clock() + seconds, clock)

    def left(self) -> float:
        """Return the seconds left, never below zero."""
        return max(0.0, self.moment - self.clock())

"""Answers to an open step, as tests of steps make them up."""

from typing import Any

import numpy as np

from tests.desk import lesson
from utilities.engine import Scored
from utilities.evolution import Segment, Setting
from utilities.peers import Peer
from utilities.protocol import Result
from utilities.worker import joined

STEP = 7
DIGEST, OTHER = b"d" * 32, b"o" * 32


def setting(**keys: Any) -> Setting:
    return lesson(**keys).setting


def peers(count: int) -> list[Peer]:
    return [Peer(number, f"c{number}", ready=True) for number in range(count)]


def bits(scored: Scored) -> tuple[tuple[Segment, ...], bytes, bytes]:
    """Return what was scored: whole segments, losses and clean losses to the bit."""
    losses = b"".join(scores.losses.tobytes() for _, scores in scored)
    clean = b"".join(scores.clean.tobytes() for _, scores in scored)
    return joined([block for block, _ in scored]), losses, clean


def floats(count: int, value: float | None = None) -> Any:
    if value is not None:
        return np.full(count, value, np.float32)
    return np.linspace(2, 3, count, dtype=np.float32)


def result(
    *segments: Segment, digest: bytes = DIGEST, value: float | None = None
) -> Result:
    groups = sum(segment.groups for segment in segments)
    losses, clean = floats(4 * groups, value), floats(groups)
    return Result(STEP, digest, 0.1, 1.0, None, segments, losses, clean)

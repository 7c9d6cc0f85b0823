"""Who a client is, over restarts: 16 random bytes that stay with its machine.

A server gives a client that comes back the name that it had. Each client that runs at
the same time has a number and an identity of its own: a folder that it holds the lock
of. What is sent depends on the machine's name too, so that home folders that several
machines share, or that were copied from one to another, do not make them one.

Nothing here is a secret that opens anything, and nothing depends on it: where the
folder cannot be written, a client simply is a new one each time.
"""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from utilities.errors import RunError
from utilities.misc import sha256
from utilities.runfiles import take_lock

SIZE = 16  # bytes
MOST_CLIENTS = 64  # of one machine that have an identity
FILE = "identity"


@dataclass(frozen=True)
class Identity:
    """Who a client is."""

    value: bytes = b""  # empty: nobody in particular
    number: int = 1  # of this machine's clients


@contextmanager
def kept_identity(folder: Path | None, machine: str) -> Iterator[Identity]:
    """Hold an identity that no other process of this machine has meanwhile.

    Args:
        folder: where identities are kept; None: nowhere.
        machine: its name.
    """
    taken = _take(folder, machine) if folder else None
    if taken is None:
        yield Identity()
        return
    identity, descriptor = taken
    try:
        yield identity
    finally:
        os.close(descriptor)  # lets go of the lock


def _take(folder: Path, machine: str) -> tuple[Identity, int] | None:
    """Return the first identity that is free, and its lock."""
    name = re.sub(r"[^A-Za-z0-9.-]", "_", machine)[:64] or "machine"
    for number in range(1, MOST_CLIENTS + 1):
        place = folder / f"{name}-{number}"
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = take_lock(place)
        except OSError:  # it cannot be made
            return None
        except RunError:  # another client has it, or it cannot be written
            continue
        try:
            own = _read_or_draw(place / FILE)
        except OSError:
            os.close(descriptor)
            return None
        value = sha256(own, machine.encode("utf-8", "replace"))[:SIZE]
        return Identity(value, number), descriptor
    return None


def _read_or_draw(path: Path) -> bytes:
    """Return the bytes of a file; what is missing or damaged is drawn anew."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        kept = bytes.fromhex(path.read_text("ascii"))
        if len(kept) == SIZE:
            return kept
    drawn = secrets.token_bytes(SIZE)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(drawn.hex() + "\n")
    return drawn

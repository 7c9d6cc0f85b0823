"""How files of a run are read, written and locked, and what is said when that fails.

Owns the one place where complaints of the operating system become a `RunError` that
names the file, the reason and what to do. Does not own what the files hold.
"""

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from utilities.disk import DISK, Disk
from utilities.errors import RunError

LOCK = "lock"
SHOWN = 8  # numbers in a message: the newest ones help most


# Errors of the disk.


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says against a write into a RunError that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "free space"
        else:
            advice = "check the disk and the permissions"
        raise RunError(
            f"{path}: cannot be written: {error.strerror or error}; nothing written "
            f"before is lost: {advice}, then start again (--resume goes on with a run)"
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system says against a read into a RunError that names the path."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read: {error.strerror or error}; check the path and "
            "its permissions"
        ) from error


def read_json(path: Path) -> Any:
    """Return what a JSON file holds; RunError where it cannot be read or is damaged."""
    with reading(path):
        data = path.read_bytes()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RunError(
            f"{path}: expected JSON, got a damaged file ({error}); restore it from a"
            " copy"
        ) from error


def write_json(path: Path, content: object, disk: Disk = DISK) -> None:
    """Replace a file by JSON that people can read; RunError where it cannot be."""
    # A path need not be Unicode; what of it is not becomes an escape that JSON knows.
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with writing(path):
        disk.replace(path, text.encode("utf-8", "backslashreplace"))


def listed(noun: str, numbers: list[int]) -> str:
    """Return the numbers for a message, the newest ones only where they are many."""
    if not numbers:
        return f"no {noun}"
    shown = ", ".join(map(str, numbers[-SHOWN:]))
    plural = "s" if len(numbers) > 1 else ""
    return f"{noun}{plural} {'..., ' if len(numbers) > SHOWN else ''}{shown}"


# The lock: the system lets go of it when the process dies, however it dies.

if sys.platform == "win32":  # pragma: no cover - coverage is measured on POSIX
    import msvcrt

    def _lock(descriptor: int) -> None:
        # A locked byte cannot be read by others, so it lies far behind the number.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def take_lock(folder: Path) -> int:
    """Return the descriptor that holds the lock of a run; children do not inherit it.

    Raises:
        RunError: another process has it, or the folder cannot be written.
    """
    path = folder / LOCK
    with writing(path), ExitStack() as undo:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        undo.callback(os.close, descriptor)
        try:
            _lock(descriptor)
        except (BlockingIOError, PermissionError) as error:  # POSIX, Windows
            holder = path.read_bytes()[:20].strip()
            by = f"process {int(holder)}" if holder.isdigit() else "another process"
            raise RunError(
                f"{folder}: run {folder.name} is in use by {by}; stop that server "
                "first, or start without --resume for a new run"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"%d\n" % os.getpid())
        undo.pop_all()
    return descriptor

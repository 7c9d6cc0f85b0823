"""All that a run writes to the disk, through one small object.

`Disk` is the operating system; tests put another in its place, which records what is
done, cuts it short, forgets what was never synced, or fails. What is built upon its
primitives here is what every file needs: to be replaced whole (temporary file, sync,
rename, sync of the folder) or to grow by whole pieces.
"""

import contextlib
import os
import statistics
import sys
from collections import deque
from pathlib import Path

_BINARY = getattr(os, "O_BINARY", 0)  # Windows would translate line ends
NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY

WRITES = 16  # the last ones, whose median counts
SLOW = 0.003  # seconds: what waits for less gains nothing by working meanwhile

if sys.platform == "darwin":  # pragma: no cover - not where coverage is measured
    import fcntl

    def _sync(descriptor: int) -> None:
        # There fsync leaves data in the drive's cache, which a power cut empties.
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)

elif hasattr(os, "fdatasync"):
    _sync = os.fdatasync  # the size is synced as well, the times are not
else:  # pragma: no cover - Windows
    _sync = os.fsync


class Disk:
    """The primitives, each of which raises OSError, and what is built upon them."""

    def open(self, path: Path, flags: int) -> int:
        """Return a descriptor to write a file, which it makes where it is missing."""
        return os.open(path, flags, 0o644)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """Write some of the data; return how many bytes."""
        return os.write(descriptor, data)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file to a size."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Return once all that was written is durable."""
        _sync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a file."""
        os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, in place of what had it."""
        old.replace(new)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def make_folder(self, path: Path) -> None:
        """Make a folder; FileExistsError where there is something of that name."""
        path.mkdir()

    def sync_folder(self, folder: Path) -> None:
        """Make names in a folder durable where the system can (not on Windows)."""
        if os.name == "nt":
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    # Built upon these.

    def append(self, descriptor: int, data: bytes | memoryview) -> None:
        """Write all of the data or, where that fails, nothing."""
        view, written = memoryview(data), 0
        size = os.fstat(descriptor).st_size
        try:
            while written < len(view):  # a disk that is nearly full takes a part
                written += self.write(descriptor, view[written:])
        except OSError:
            with contextlib.suppress(OSError):
                self.truncate(descriptor, size)
            raise

    def replace(self, path: Path, content: bytes) -> None:
        """Replace a whole file so that a crash leaves the old one or the new one."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            descriptor = self.open(temporary, NEW)
            try:
                self.append(descriptor, content)
                self.sync(descriptor)
            finally:
                self.close(descriptor)
            self.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                self.remove(temporary)
            raise
        self.sync_folder(path.parent)


DISK = Disk()  # has no state


class Pace:
    """How long a disk has taken of late until something was on it."""

    def __init__(self) -> None:
        """Begin with a disk that nothing is known of."""
        self._seconds = deque[float](maxlen=WRITES)

    def took(self, seconds: float) -> None:
        """Take the time of one write and its sync."""
        self._seconds.append(seconds)

    @property
    def slow(self) -> bool:
        """Return whether others had better work meanwhile."""
        return bool(self._seconds) and statistics.median(self._seconds) > SLOW

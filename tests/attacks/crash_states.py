"""What a disk may hold after a crash, by a model of what was done to it.

A `Recorder` does what a disk does and writes it down. `after_crash` plays the first
operations of such a record against a model of a file system, in which data is durable
once its file was synced, and a name once its folder was; of all else a crash may leave
nothing, all, a part of the last write, or any selection.
"""

import enum
import os
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from utilities.disk import NEW, Disk

SECTOR = 512

# What was done, to which file or folder, and how; paths are relative to the root.
Operation: TypeAlias = tuple[str, str, object]


class Recorder(Disk):
    """A disk that writes down what is done to it, and what was announced when."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.operations: list[Operation] = []
        self._paths: dict[int, str] = {}
        self._lock = threading.Lock()  # checkpoints are written by a thread

    def _note(self, what: str, path: Path | str, how: object = None) -> None:
        name = path if isinstance(path, str) else str(path.relative_to(self.root))
        self.operations.append((what, name, how))

    def announce(self, step: int) -> None:
        """Note that the update of a step leaves this machine."""
        with self._lock:
            self._note("announce", "", step)

    def open(self, path: Path, flags: int) -> int:
        with self._lock:
            descriptor = super().open(path, flags)
            self._paths[descriptor] = str(path.relative_to(self.root))
            self._note("open", path, flags == NEW)
            return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        with self._lock:
            size = os.fstat(descriptor).st_size
            written = super().write(descriptor, data)
            content = (size, bytes(data[:written]))
            self._note("write", self._paths[descriptor], content)
            return written

    def truncate(self, descriptor: int, size: int) -> None:
        with self._lock:
            super().truncate(descriptor, size)
            self._note("truncate", self._paths[descriptor], size)

    def sync(self, descriptor: int) -> None:
        with self._lock:  # the machine may die right after: nothing needs to be done
            self._note("sync", self._paths[descriptor])

    def rename(self, old: Path, new: Path) -> None:
        with self._lock:
            super().rename(old, new)
            self._note("rename", old, str(new.relative_to(self.root)))

    def remove(self, path: Path) -> None:
        with self._lock:
            super().remove(path)
            self._note("remove", path)

    def make_folder(self, path: Path) -> None:
        with self._lock:
            super().make_folder(path)
            self._note("make_folder", path)

    def sync_folder(self, folder: Path) -> None:
        with self._lock:
            self._note("sync_folder", folder)


class Crash(enum.Enum):
    """What becomes of what was not synced."""

    LOST = "lost"
    KEPT = "kept"
    TORN = "torn"  # some sectors of the last write of each file are zeros
    REORDERED = "reordered"  # any selection of writes, sectors and names


@dataclass(eq=False)
class Inode:
    """A file's data, durable and since."""

    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def content(self, pending: Sequence[tuple[int, bytes | None]]) -> bytes:
        """Return the data with some of what is pending; None cuts the file there."""
        data = bytearray(self.durable)
        for place, piece in pending:
            if piece is None:
                del data[place:]
                continue
            data.extend(bytes(max(0, place - len(data))))
            data[place : place + len(piece)] = piece
        return bytes(data)


FOLDER = Inode()  # stands for any folder; what is in one is known by its path
Names: TypeAlias = dict[str, Inode]


def _apply(names: Names, change: Names | list[str]) -> None:
    for name in change if isinstance(change, list) else ():
        names.pop(name, None)
    if isinstance(change, dict):
        names.update(change)


class Model:
    """A file system between two operations."""

    def __init__(self) -> None:
        self.names: Names = {}  # as programs see them
        self.durable: Names = {}
        self.pending: list[tuple[str, list[str], Names]] = []  # folder, gone, new

    def play(self, operation: Operation) -> None:
        """Do what was done."""
        what, name, how = operation
        match what:
            case "open":
                self._open(name, new=bool(how))
            case "write":
                assert isinstance(how, tuple)
                self.names[name].pending.append(how)
            case "truncate":
                assert isinstance(how, int)
                self.names[name].pending.append((how, None))
            case "sync":
                inode = self.names[name]
                inode.durable = inode.content(inode.pending)
                inode.pending = []
            case "rename":
                assert isinstance(how, str)
                self._change(name, [name], {how: self.names[name]})
            case "remove":
                self._change(name, [name], {})
            case "make_folder":
                self._change(name, [], {name: FOLDER})
            case "sync_folder":
                self._sync_folder(name)

    def _open(self, name: str, *, new: bool) -> None:
        if name not in self.names:
            self._change(name, [], {name: Inode()})
        elif new:
            self.names[name].pending.append((0, None))

    def _change(self, name: str, gone: list[str], new: Names) -> None:
        _apply(self.names, gone)
        _apply(self.names, new)
        self.pending.append((str(Path(name).parent), gone, new))

    def _sync_folder(self, folder: str) -> None:
        for change in [c for c in self.pending if c[0] == folder]:
            _apply(self.durable, change[1])
            _apply(self.durable, change[2])
            self.pending.remove(change)

    def crash(self, how: Crash, rng: random.Random) -> dict[str, bytes | None]:
        """Return the files that are found afterwards, None for folders."""
        names = dict(self.durable)
        for _, gone, new in self.pending:
            if how in (Crash.KEPT, Crash.TORN) or (
                how is Crash.REORDERED and rng.random() < 0.5
            ):
                _apply(names, gone)
                _apply(names, new)
        return {
            name: None if inode is FOLDER else _data(inode, how, rng)
            for name, inode in names.items()
            if all(str(p) in names for p in list(Path(name).parents)[:-1])
        }


def _data(inode: Inode, how: Crash, rng: random.Random) -> bytes:
    pending = inode.pending
    if how is Crash.LOST or not pending:
        return inode.durable
    if how is Crash.KEPT:
        return inode.content(pending)
    if how is Crash.TORN:
        return inode.content([*pending[:-1], *_torn(pending[-1], rng)])
    kept = [piece for piece in pending if rng.random() < 0.5]
    return inode.content([part for piece in kept for part in _torn(piece, rng)])


def _torn(
    piece: tuple[int, bytes | None], rng: random.Random
) -> Iterator[tuple[int, bytes | None]]:
    """Yield the sectors of a write, some of them as zeros, perhaps without the end."""
    place, data = piece
    if data is None:
        yield piece
        return
    end = place + len(data)
    if rng.random() < 0.5:
        end = place + SECTOR * rng.randrange(len(data) // SECTOR + 1)
    while place < end:
        border = min(end, (place // SECTOR + 1) * SECTOR)
        part, data = data[: border - place], data[border - place :]
        yield place, part if rng.random() < 0.5 else bytes(len(part))
        place = border


def after_crash(
    operations: Sequence[Operation], root: Path, how: Crash, rng: random.Random
) -> int:
    """Make what a disk holds after a crash; return how many steps were announced.

    Args:
        operations: all that were done before it.
        root: empty folder, in place of the one that was recorded.
        how: what becomes of what was not synced.
        rng: draws what a selection consists of.
    """
    model, announced = Model(), 0
    for operation in operations:
        if operation[0] == "announce":
            assert isinstance(operation[2], int)
            announced = max(announced, operation[2] + 1)
        else:
            model.play(operation)
    for name, data in sorted(model.crash(how, rng).items()):
        path = root / name
        if data is None:
            path.mkdir()
        else:
            path.write_bytes(data)
    return announced

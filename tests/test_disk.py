"""What is written to the disk is there whole, or not at all."""

import errno
import os
from pathlib import Path

import pytest

from utilities.disk import APPEND, DISK, SLOW, WRITES, Disk, Pace


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_writing_makes_a_new_file_and_replaces_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "config.json"

    DISK.replace(path, b"first, longer")
    DISK.replace(path, b"second")

    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_durable_before_the_rename_and_the_rename_before_the_return(
    tmp_path: Path,
) -> None:
    events: list[str] = []

    class Recorder(Disk):
        def sync(self, descriptor: int) -> None:
            events.append(f"sync {os.fstat(descriptor).st_size} bytes")
            super().sync(descriptor)

        def rename(self, old: Path, new: Path) -> None:
            events.append("rename")
            super().rename(old, new)

        def sync_folder(self, folder: Path) -> None:
            events.append("sync folder")
            super().sync_folder(folder)

    Recorder().replace(tmp_path / "a", b"12345")

    assert events == ["sync 5 bytes", "rename", "sync folder"]


@pytest.mark.parametrize("broken", ["open", "write", "sync", "rename"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")

    monkeypatch.setattr(Disk, broken, full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        DISK.replace(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_reported_as_such(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DISK.replace(tmp_path / "absent" / "file", b"")


def test_syncing_a_folder_closes_it_even_if_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda *_: 77)
        patch.setattr(os, "close", closed.append)
        patch.setattr(os, "fsync", full_disk)
        patch.setattr(os, "name", "posix")
        with pytest.raises(OSError, match="No space left on device"):
            DISK.sync_folder(tmp_path)

    assert closed == [77]


def test_syncing_a_folder_does_nothing_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda *paths: opened.append(paths))
        patch.setattr(os, "name", "nt")
        DISK.sync_folder(tmp_path)

    assert opened == []


@pytest.mark.parametrize("part", [1, 3, 100])
def test_what_the_system_takes_in_parts_is_written_whole(
    tmp_path: Path, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:part]))
    path = tmp_path / "log"
    descriptor = DISK.open(path, APPEND)
    DISK.append(descriptor, b"0123456789")
    DISK.append(descriptor, memoryview(b"abc"))
    DISK.close(descriptor)

    assert path.read_bytes() == b"0123456789abc"


@pytest.mark.parametrize("before_it", [0, 1])
def test_what_cannot_be_written_whole_is_not_there_at_all(
    tmp_path: Path, before_it: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "log", os.write
    written: list[memoryview] = []

    def write(file: int, data: memoryview) -> int:
        if len(written) == before_it:
            full_disk()
        written.append(data)
        return real(file, data[:2])

    path.write_bytes(b"old")
    descriptor = DISK.open(path, APPEND)
    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space left"):
        DISK.append(descriptor, b"new")
    DISK.close(descriptor)

    assert path.read_bytes() == b"old"


def test_a_disk_is_slow_when_most_of_the_last_writes_were() -> None:
    pace = Pace()
    known = [pace.slow]
    for seconds in (2 * SLOW, 2 * SLOW, *WRITES * [SLOW / 2], *WRITES * [2 * SLOW]):
        pace.took(seconds)
        known.append(pace.slow)

    # Two slow ones, until there are more fast ones; then slow ones, once they are half.
    assert known[:6] == [False, True, True, True, True, False]
    half = WRITES // 2
    assert known[-WRITES:] == [n >= half for n in range(1, WRITES + 1)]

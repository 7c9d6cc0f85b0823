"""Spelling, digests, deadlines, safe files and logs."""

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from utilities.misc import (
    Deadline,
    camel_case,
    kebab_case,
    sha256,
    sync_folder,
    write_atomically,
)

SPELLINGS = [
    ("time_per_step", "timePerStep", "time-per-step"),
    ("n_layers", "nLayers", "n-layers"),
    ("check_point_time", "checkPointTime", "check-point-time"),
    ("beta1", "beta1", "beta1"),
    ("sigma", "sigma", "sigma"),
]


@pytest.mark.parametrize(("python", "user", "flag"), SPELLINGS)
def test_a_name_has_one_spelling_in_python_and_two_for_the_user(
    python: str, user: str, flag: str
) -> None:
    assert camel_case(python) == user
    assert kebab_case(user) == flag


def test_kebab_case_cuts_after_a_digit_too() -> None:
    assert kebab_case("beta2Power") == "beta2-power"


def test_sha256_hashes_the_parts_one_after_the_other() -> None:
    assert sha256(b"ab", memoryview(b"c"), b"") == hashlib.sha256(b"abc").digest()
    assert sha256() == hashlib.sha256().digest()


def test_deadline_shares_one_moment_between_waits_and_never_goes_below_zero() -> None:
    now = [100.0]
    deadline = Deadline.after(2.5, lambda: now[0])

    left = [deadline.left()]
    for now[0] in (101.0, 102.5, 200.0):
        left.append(deadline.left())

    assert deadline.moment == 102.5
    assert left == [2.5, 1.5, 0.0, 0.0]


# --- files ----------------------------------------------------------------------------


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_writing_makes_a_new_file_and_replaces_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "config.json"

    write_atomically(path, b"first, longer")
    write_atomically(path, b"second")

    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synced there")
def test_content_is_durable_before_the_rename_and_the_rename_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        folder = stat.S_ISDIR(status.st_mode)
        events.append("sync folder" if folder else f"sync {status.st_size} bytes")
        real_sync(descriptor)

    def replace(path: Path, target: Path) -> Path:
        events.append("rename")
        return real_replace(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    write_atomically(tmp_path / "a", b"12345")

    assert events == ["sync 5 bytes", "rename", "sync folder"]


@pytest.mark.parametrize("broken", [(os, "fsync"), (Path, "replace")])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    broken: tuple[object, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"old")

    monkeypatch.setattr(*broken, full_disk)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_reported_as_such(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "absent" / "file", b"")


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
            sync_folder(tmp_path)

    assert closed == [77]


def test_syncing_a_folder_does_nothing_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", lambda *paths: opened.append(paths))
        patch.setattr(os, "name", "nt")
        sync_folder(tmp_path)

    assert opened == []

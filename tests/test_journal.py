"""The append-only record of steps: what it promises, and what it says of damage."""

import errno
import os
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utilities.disk import Disk
from utilities.errors import RunError
from utilities.journal import (
    FIELDS,
    HEADER,
    MARK,
    SECTOR,
    STEP,
    Contents,
    Identity,
    Journal,
    Record,
    journal_files,
    packed,
    read_file,
)

IDENTITY = Identity(b"r" * 16, b"c" * 32)
PAYLOADS = [b"first", b"second, longer", b"x" * 700]


def digest(step: int) -> bytes:
    return bytes([step]) * 32


def written(folder: Path, first: int = 3, payloads: list[bytes] | None = None) -> Path:
    """Return a file with a record of each payload."""
    journal = Journal(folder, IDENTITY)
    for step, payload in enumerate(payloads or PAYLOADS, first):
        journal.append(step, digest(step), payload)
    journal.close()
    return folder / f"step-{first:06d}.log"


def read(path: Path) -> Contents:
    return read_file(path, IDENTITY)


# --- the format -----------------------------------------------------------------------


def test_a_record_is_what_the_docstring_says() -> None:
    data, crc = packed(Record(STEP, 7, b"abc"), 0x01020304)

    covered = struct.pack("<IIQ", 3, 1, 7)
    assert crc == zlib.crc32(covered + b"abc", 0x01020304)
    fields = struct.pack("<IIQII", 3, 1, 7, 0x01020304, crc)
    tail = struct.pack("<II", zlib.crc32(fields), MARK)
    assert data == fields + tail + b"abc" + bytes(5)


def test_a_file_begins_with_its_header_and_holds_what_was_appended(
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "journal")

    head = path.read_bytes()[: HEADER.size]
    magic, run, _, first, before, config, crc = HEADER.unpack(head)
    assert (magic, run, first) == (b"ESjrnl\x01\n", b"r" * 16, 3)
    assert (before, config) == (digest(3), b"c" * 32)
    assert crc == zlib.crc32(head[:-4])
    records = tuple(Record(STEP, 3 + i, p) for i, p in enumerate(PAYLOADS))
    assert read(path) == Contents(path, 3, digest(3), records)
    assert read(path).end == 6


def test_two_files_of_one_step_differ_by_their_salt(tmp_path: Path) -> None:
    one, other = written(tmp_path / "a"), written(tmp_path / "b")

    assert one.read_bytes()[-800:] != other.read_bytes()[-800:]


@given(payloads=st.lists(st.binary(max_size=40), min_size=1, max_size=8))
@settings(deadline=None)
def test_what_was_appended_is_read(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes]
) -> None:
    path = written(tmp_path_factory.mktemp("journal"), 0, payloads)

    assert [record.payload for record in read(path).records] == payloads


def test_a_journal_that_was_rotated_begins_a_new_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path, IDENTITY)
    journal.append(0, digest(0), b"a")
    journal.append(1, digest(1), b"b")
    journal.rotate()
    journal.append(2, digest(2), b"c")
    journal.close()

    assert [step for step, _ in journal_files(tmp_path)] == [0, 2]
    assert read(tmp_path / "step-000002.log").digest == digest(2)


def test_files_that_hold_nothing_any_more_are_removed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, IDENTITY)
    for step in range(6):
        journal.append(step, digest(step), b"a")
        if step % 2:
            journal.rotate()

    kept = []
    for oldest in (1, 2, 3, 4, 100):
        journal.prune(oldest)
        kept.append([step for step, _ in journal_files(tmp_path)])

    assert kept == [[0, 2, 4], [2, 4], [2, 4], [4], [4]]


def test_a_file_that_cannot_be_removed_now_is_removed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, 0)
    written(tmp_path, 3)

    def busy(*_: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "remove", busy)
        Journal(tmp_path, IDENTITY).prune(3)
    assert len(journal_files(tmp_path)) == 2
    Journal(tmp_path, IDENTITY).prune(3)

    assert [step for step, _ in journal_files(tmp_path)] == [3]


def test_without_a_folder_there_are_no_files(tmp_path: Path) -> None:
    assert journal_files(tmp_path / "absent") == []


# --- durability -----------------------------------------------------------------------


def test_a_record_is_synced_before_append_returns(tmp_path: Path) -> None:
    done: list[str] = []

    class Recorder(Disk):
        def write(self, descriptor: int, data: bytes | memoryview) -> int:
            done.append("write")
            return super().write(descriptor, data)

        def sync(self, descriptor: int) -> None:
            done.append("sync")
            super().sync(descriptor)

        def rename(self, old: Path, new: Path) -> None:
            done.append("rename")
            super().rename(old, new)

        def sync_folder(self, folder: Path) -> None:
            done.append(f"sync {folder.name}")
            super().sync_folder(folder)

    journal = Journal(tmp_path / "run" / "journal", IDENTITY, Recorder())
    (tmp_path / "run").mkdir()
    journal.append(0, digest(0), b"a")
    header = ["sync run", "write", "sync", "rename", "sync journal"]
    assert done == [*header, "write", "sync"]
    journal.append(1, digest(1), b"b")
    journal.close()

    assert done[7:] == ["write", "sync"]


def test_a_file_that_cannot_be_closed_has_all_that_was_appended(
    tmp_path: Path,
) -> None:
    class Remote(Disk):
        failing = False

        def close(self, descriptor: int) -> None:
            super().close(descriptor)
            if self.failing:
                raise OSError(errno.EIO, "no such server")

    disk = Remote()
    journal = Journal(tmp_path / "journal", IDENTITY, disk)
    journal.append(0, digest(0), b"a")
    disk.failing = True
    journal.rotate()
    disk.failing = False
    journal.append(1, digest(1), b"b")
    journal.close()

    files = [read(path) for _, path in journal_files(tmp_path / "journal")]
    assert [record.payload for file in files for record in file.records] == [b"a", b"b"]


@pytest.mark.parametrize("target", ["open", "write", "sync", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_after_an_error_of_the_disk_nothing_more_is_written(
    tmp_path: Path, target: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    journal = Journal(tmp_path, IDENTITY)
    with monkeypatch.context() as patch:
        patch.setattr(Disk, target, fail)
        with pytest.raises(RunError, match=r"step-000000\.log: cannot be written") as e:
            journal.append(0, digest(0), b"a")
    with pytest.raises(RunError) as again:
        journal.append(0, digest(0), b"a")
    journal.close()

    assert again.value is e.value


# --- damage ---------------------------------------------------------------------------


def test_every_flipped_bit_of_a_file_is_found_and_located(tmp_path: Path) -> None:
    path = written(tmp_path)
    sound = path.read_bytes()
    starts = [HEADER.size]
    for payload in PAYLOADS:
        starts.append(starts[-1] + FIELDS.size + len(payload) + -len(payload) % 8)
    for place in range(len(sound)):
        changed = bytearray(sound)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        step = 2 + sum(start <= place for start in starts[:-1])
        if place < HEADER.size:
            with pytest.raises(RunError, match="damaged one"):
                read(path)
            continue
        found = read(path)
        assert found.damage is not None
        assert found.damage.step == step
        assert f"record of step {step}, at byte " in str(found.damage)
        kept = [record.step for record in found.records]
        assert kept == [s for s in (3, 4, 5) if s != step]
    print(f"{len(sound)} bits flipped in a journal: all found, their steps named")
    assert len(sound) > 100


@pytest.mark.parametrize("cut", [1, 8, 30, 31, 32, 33, 100, 600, 733])
def test_an_end_that_was_cut_short_is_a_tail(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path)
    sound = path.read_bytes()
    path.write_bytes(sound[:-cut])

    found = read(path)

    assert found.damage is None
    assert found.tail == len(sound) - FIELDS.size - 704
    assert [record.step for record in found.records] == [3, 4]


def test_sectors_that_never_got_to_the_disk_are_a_tail(tmp_path: Path) -> None:
    path = written(tmp_path, 3, [b"first", b"x" * 2000])
    sound = path.read_bytes()
    start = HEADER.size + FIELDS.size + 8
    for sector in range(start // SECTOR, len(sound) // SECTOR + 1):
        torn = bytearray(sound)
        begin, end = max(start, sector * SECTOR), (sector + 1) * SECTOR
        torn[begin:end] = bytes(len(torn[begin:end]))
        path.write_bytes(torn)

        assert read(path).tail == start
        assert len(read(path).records) == 1


def test_zeros_behind_the_last_record_are_a_tail(tmp_path: Path) -> None:
    path = written(tmp_path)
    sound = path.read_bytes()
    path.write_bytes(sound + bytes(4096))

    assert read(path).tail == len(sound)


def test_what_follows_a_torn_record_makes_it_damage(tmp_path: Path) -> None:
    path = written(tmp_path, 3, [b"first", b"x" * 2000, b"last"])
    torn = bytearray(path.read_bytes())
    torn[SECTOR : 2 * SECTOR] = bytes(SECTOR)
    path.write_bytes(torn)

    found = read(path)

    assert found.tail is None
    assert found.damage is not None
    assert found.damage.step == 4
    assert [record.payload for record in found.records] == [b"first", b"last"]


def test_a_record_of_another_file_does_not_fit(tmp_path: Path) -> None:
    one, other = written(tmp_path / "a"), written(tmp_path / "b")
    start = HEADER.size + FIELDS.size + 8
    mixed = one.read_bytes()[:start] + other.read_bytes()[start:]
    one.write_bytes(mixed)

    damage = read(one).damage

    assert damage is not None
    assert damage.step == 4


def test_a_record_that_is_missing_in_the_middle_is_damage(tmp_path: Path) -> None:
    path = written(tmp_path)
    sound = path.read_bytes()
    start = HEADER.size + FIELDS.size + 8
    path.write_bytes(sound[:start] + sound[start + FIELDS.size + 16 :])

    damage = read(path).damage

    assert damage is not None
    assert damage.step == 4


@pytest.mark.parametrize(
    ("identity", "what"),
    [
        (Identity(b"o" * 16, b"c" * 32), "of this run, got that of another"),
        (Identity(b"r" * 16, b"o" * 32), "of this configuration, got that of another"),
    ],
)
def test_a_journal_of_something_else_is_refused(
    tmp_path: Path, identity: Identity, what: str
) -> None:
    with pytest.raises(RunError, match=what):
        read_file(written(tmp_path), identity)


def test_an_empty_file_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "step-000000.log"
    path.write_bytes(b"")

    with pytest.raises(RunError, match="expected the header of a journal"):
        read(path)

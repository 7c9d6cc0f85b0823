"""The append-only record of steps: files of records that prove themselves.

    journal/step-000123.log   the steps from 123 up to the next file's

    header   magic 8 | run id 16 | salt 8 | first step u64 | digest before it 32
             | configuration hash 32 | CRC u32
    record   length of payload u32 | type u32 | step u64 | CRC of the one before u32
             | CRC u32 | CRC of these fields u32 | mark u32 | payload, padded to 8 bytes

All numbers are little-endian. A record's CRC covers its length, type, step, payload
and the CRC of the record before it, of the header for the first one: a record of
another file, or out of its place, does not fit. The CRC of the fields tells how long a
record was meant to be even where its payload is damaged.

Owns these files: appending, reading, cutting, removing. A record is durable when
`append` returns. Does not own what a payload means (`history`) or when a file is begun.

A crash can leave the last record of the last file unfinished: cut short, or with
sectors that never got to the disk and read as zeros. Such a tail was never announced to
anybody; it is kept aside and cut. Everything else that does not fit is damage, which is
told by name: what was announced shall not be dropped in silence.
"""

import contextlib
import itertools
import re
import secrets
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from utilities.disk import APPEND, DISK, Disk
from utilities.errors import RunError
from utilities.runfiles import reading, writing

JOURNAL = "journal"
MAGIC = b"ESjrnl\x01\n"
HEADER = struct.Struct("<8s16s8sQ32s32sI")
FIELDS = struct.Struct("<IIQIIII")
MARK = 0x4C4E524A  # ends the fields of each record
STEP = 1  # type of a record; there may be others later
SECTOR = 512  # bytes that a disk writes together, at least
ALIGNMENT = 8
MAX_PAYLOAD = 1 << 30
BROKEN = ".broken"  # is added to the name of what is kept aside


class Record(NamedTuple):
    """One record of a journal."""

    type: int
    step: int
    payload: bytes


Found: TypeAlias = tuple[Record, int, int, int]  # CRC before, CRC, where it ends


@dataclass(frozen=True)
class Identity:
    """Which run a journal belongs to."""

    run: bytes  # 16
    config: bytes  # 32, the hash that digests cover

    def __post_init__(self) -> None:
        assert len(self.run) == 16, len(self.run)
        assert len(self.config) == 32, len(self.config)


@dataclass(frozen=True)
class Damage:
    """A record that was written and is not what was written."""

    path: Path
    step: int  # that cannot be read
    offset: int

    def __str__(self) -> str:
        return f"{self.path}: the record of step {self.step}, at byte {self.offset}"


@dataclass(frozen=True)
class Contents:
    """What one file holds."""

    path: Path
    first: int  # step
    digest: bytes  # of the state before it
    records: tuple[Record, ...]  # ascending; what is damaged is left out
    tail: int | None = None  # bytes that are whole, where the end is unfinished
    damage: Damage | None = None  # the first one

    @property
    def end(self) -> int:
        """Return the step after the last one that is readable."""
        return self.records[-1].step + 1 if self.records else self.first


# Writing.


class Journal:
    """The journal of a run that is open with its lock; begins a file at need."""

    def __init__(self, folder: Path, identity: Identity, disk: Disk = DISK) -> None:
        """Begin a new file with the next record.

        Args:
            folder: of the journal.
            identity: of the run.
            disk: takes the writes.
        """
        self._folder = folder
        self._identity = identity
        self._disk = disk
        self._descriptor: int | None = None
        self._crc = 0  # of the last record, or of the header
        self._failed: RunError | None = None

    def append(self, step: int, digest: bytes, payload: bytes) -> None:
        """Return once the record of a step is durable.

        Args:
            step: comes after that of the last record.
            digest: of the state before the step.
            payload: of the record.

        Raises:
            RunError: the disk is full or failing. What was written last is in doubt
                then, and nothing more is written: every later call raises it again.
        """
        if self._failed is not None:
            raise self._failed
        try:
            with writing(self._path(step) if self._descriptor is None else self._file):
                if self._descriptor is None:
                    self._begin(step, digest)
                self._write(step, payload)
        except RunError as error:
            self._failed = error
            raise

    def _write(self, step: int, payload: bytes) -> None:
        assert self._descriptor is not None, "a file was begun"
        data, self._crc = packed(Record(STEP, step, payload), self._crc)
        self._disk.append(self._descriptor, data)
        self._disk.sync(self._descriptor)

    def _begin(self, step: int, digest: bytes) -> None:
        folder = self._folder
        if not folder.is_dir():
            self._disk.make_folder(folder)
            self._disk.sync_folder(folder.parent)
        self._file = self._path(step)
        salt = secrets.token_bytes(8)
        run, config = self._identity.run, self._identity.config
        head = HEADER.pack(MAGIC, run, salt, step, digest, config, 0)[:-4]
        self._crc = zlib.crc32(head)
        self._disk.replace(self._file, head + struct.pack("<I", self._crc))
        self._descriptor = self._disk.open(self._file, APPEND)

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:06d}.log"

    def rotate(self) -> None:
        """Have the next record begin a new file."""
        self.close()

    def prune(self, oldest: int) -> None:
        """Remove files that hold nothing from a step on.

        Args:
            oldest: step of the oldest checkpoint.
        """
        files = journal_files(self._folder)
        for (_, path), (following, _) in itertools.pairwise(files):
            if following <= oldest:
                # Windows does not remove what a reader has open; next time then.
                with contextlib.suppress(OSError):
                    self._disk.remove(path)

    def close(self) -> None:
        """Close the file; all that was appended is durable."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):  # of a network's disk; nothing is lost
                self._disk.close(descriptor)


def packed(record: Record, previous: int) -> tuple[bytes, int]:
    """Return the bytes of a record and its CRC.

    Args:
        record: its payload has at most `MAX_PAYLOAD` bytes.
        previous: CRC of the record before, or of the header.
    """
    payload = record.payload
    assert len(payload) <= MAX_PAYLOAD, len(payload)
    crc = _crc(len(payload), record.type, record.step, previous, payload)
    fields = (len(payload), record.type, record.step, previous, crc)
    own = zlib.crc32(FIELDS.pack(*fields, 0, 0)[:-8])
    padding = bytes(-len(payload) % ALIGNMENT)
    return FIELDS.pack(*fields, own, MARK) + payload + padding, crc


def _crc(length: int, kind: int, step: int, previous: int, payload: bytes) -> int:
    head = struct.pack("<IIQ", length, kind, step)
    return zlib.crc32(payload, zlib.crc32(head, previous))


# Reading; the run may be growing meanwhile.


def journal_files(folder: Path) -> list[tuple[int, Path]]:
    """Return first step and path of each file, ascending; none without a folder."""
    with reading(folder):
        try:
            names = [path.name for path in folder.iterdir()]
        except FileNotFoundError:
            return []
    found = (re.fullmatch(r"step-([0-9]{6,})\.log", name) for name in names)
    return sorted((int(match[1]), folder / match[0]) for match in found if match)


def read_file(path: Path, identity: Identity) -> Contents:
    """Return what a file holds, as far as it is sound.

    Raises:
        RunError: it cannot be read, or is not of this run.
    """
    with reading(path):
        data = path.read_bytes()
    first, digest, crc = _header(path, data, identity)
    records: list[Record] = []
    damage, offset = None, HEADER.size
    while offset < len(data):
        found: Found | None = _record(data, offset)
        step = records[-1].step + 1 if records else first
        if found is None or found[1] != crc or found[0].step != step:
            behind = _next_record(data, offset)
            if behind is None and damage is None and not _reached(data, offset):
                return Contents(path, first, digest, tuple(records), tail=offset)
            damage = damage or Damage(path, step, offset)
            if behind is None:
                break
            found = behind
        record, _, crc, offset = found
        records.append(record)
    return Contents(path, first, digest, tuple(records), damage=damage)


def _header(path: Path, data: bytes, identity: Identity) -> tuple[int, bytes, int]:
    """Return first step, digest before it, and the CRC that the chain begins with."""
    head = data[: HEADER.size].ljust(HEADER.size, b"\0")
    magic, run, _, first, digest, config, crc = HEADER.unpack(head)
    if magic != MAGIC or zlib.crc32(head[:-4]) != crc:
        raise RunError(
            f"{path}: expected the header of a journal, got a damaged one; restore the "
            "file from a copy, or resume with --salvage, which goes on without it"
        )
    if (run, config) != (identity.run, identity.config):
        what = "run" if run != identity.run else "configuration"
        raise RunError(
            f"{path}: expected the journal of this {what}, got that of another; move "
            "the file to where it belongs"
        )
    return first, digest, crc


def _record(data: bytes, offset: int) -> Found | None:
    """Return a record, its predecessor's CRC, its own and its end; None: none there."""
    found = _fields(data, offset)
    if found is None:
        return None
    length, kind, step, previous, crc = found
    start = offset + FIELDS.size
    payload = data[start : start + length]
    end = start + length + -length % ALIGNMENT
    if end > len(data) or any(data[start + length : end]):
        return None
    if _crc(length, kind, step, previous, payload) != crc:
        return None
    return Record(kind, step, payload), previous, crc, end


def _fields(data: bytes, offset: int) -> tuple[int, int, int, int, int] | None:
    """Return length, type, step and both CRCs where a record begins; else None."""
    head = data[offset : offset + FIELDS.size]
    if len(head) < FIELDS.size:
        return None
    *fields, own, mark = FIELDS.unpack(head)
    if mark != MARK or zlib.crc32(head[:-8]) != own or fields[0] > MAX_PAYLOAD:
        return None
    length, kind, step, previous, crc = fields
    return length, kind, step, previous, crc


def _next_record(data: bytes, offset: int) -> Found | None:
    """Return the next record behind an offset that is sound by itself."""
    for place in range(offset + ALIGNMENT, len(data), ALIGNMENT):
        found = _record(data, place)
        if found is not None:
            return found
    return None


def _reached(data: bytes, offset: int) -> bool:
    """Return whether all sectors of what begins at an offset have been written."""
    found = _fields(data, offset)
    length = 0 if found is None else found[0]
    end = offset + FIELDS.size + length
    if len(data) < end + -length % ALIGNMENT:
        return False
    while offset < end:
        border = min(end, (offset // SECTOR + 1) * SECTOR)
        if not any(data[offset:border]):
            return False
        offset = border
    return True

"""Records: what is said after the handshake, in pieces that prove where they come from.

    | length of data u32 | data | tag, 16 bytes |

A tag is the beginning of HMAC-SHA256(key, counter u64 + length u32 + SHA-256(data));
integers are little-endian. The counter of each direction starts at 0 and is not sent:
a record that is changed, left out, repeated or moved is refused. Nothing of the data is
looked at before its tag is right. No I/O.

What goes to a thousand clients is cut into bundles and hashed once: only lengths and
tags are made for each of them, out of the 32 bytes of the hash.
"""

import hashlib
import hmac
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from utilities.errors import ProtocolError
from utilities.frames import Buffer

LENGTH = struct.Struct("<I")
SIGNED = struct.Struct("<QI")  # counter, length
TAG = 16
# Bytes of data in one record. A peer can have us hold that much before it has proved
# anything about it; and a tag costs little beside hashing as much.
MOST = 1 << 16


@dataclass(frozen=True)
class Bundle:
    """Data of one record, whoever it goes to."""

    parts: tuple[memoryview, ...] = field(repr=False)
    size: int
    digest: bytes


def bundled(parts: Iterable[Buffer]) -> list[Bundle]:
    """Cut bytes into the data of records; they are hashed, not copied."""
    bundles: list[Bundle] = []
    views: list[memoryview] = []
    room = MOST
    for part in parts:
        view = memoryview(part)
        while len(view):
            views.append(view[:room])
            view, room = view[room:], room - len(views[-1])
            if not room:
                bundles.append(_bundle(views))
                views, room = [], MOST
    if views:
        bundles.append(_bundle(views))
    return bundles


def _bundle(views: list[memoryview]) -> Bundle:
    digest = hashlib.sha256()
    for view in views:
        digest.update(view)
    return Bundle(tuple(views), sum(map(len, views)), digest.digest())


def _keyed(key: bytes) -> hmac.HMAC:
    """Return the beginning of all tags; its copies take half the time of new ones."""
    return hmac.new(key, digestmod="sha256")


def _tag(keyed: hmac.HMAC, counter: int, length: int, digest: bytes) -> bytes:
    tag = keyed.copy()
    tag.update(SIGNED.pack(counter, length) + digest)
    return tag.digest()[:TAG]


class Sealer:
    """Make records of one direction."""

    __slots__ = ("_counter", "_keyed")

    def __init__(self, key: bytes) -> None:
        """Begin with the first record."""
        self._keyed = _keyed(key)
        self._counter = 0

    def seal(self, bundles: Iterable[Bundle]) -> Iterator[Buffer]:
        """Yield the bytes of the next records."""
        for bundle in bundles:
            yield LENGTH.pack(bundle.size)
            yield from bundle.parts
            yield _tag(self._keyed, self._counter, bundle.size, bundle.digest)
            self._counter += 1


class Opener:
    """Read records of one direction, holding one unfinished record at most."""

    __slots__ = ("_counter", "_keyed", "_pending")

    def __init__(self, key: bytes) -> None:
        """Begin with the first record."""
        self._keyed = _keyed(key)
        self._counter = 0
        self._pending = bytearray()

    @property
    def unfinished(self) -> bool:
        """Return whether a record has come in part."""
        return bool(self._pending)

    def open(self, data: bytes | bytearray | memoryview) -> Iterator[memoryview]:
        """Take bytes; yield the data of each record that they complete.

        What is yielded may be part of the bytes that were given.

        Raises:
            ProtocolError: a record is not the one that is due, or was tampered with.
        """
        view = memoryview(data)
        while len(view):
            size = None if self._pending else _size(view)
            if size is not None and size <= len(view):
                yield self._checked(view[:size])
                view = view[size:]
                continue
            missing = (_size(self._pending) or LENGTH.size) - len(self._pending)
            self._pending += view[:missing]
            view = view[missing:]
            if len(self._pending) == _size(self._pending):
                record, self._pending = self._pending, bytearray()
                yield self._checked(memoryview(record))

    def _checked(self, record: memoryview) -> memoryview:
        data = record[LENGTH.size : -TAG]
        digest = hashlib.sha256(data).digest()
        expected = _tag(self._keyed, self._counter, len(data), digest)
        if not hmac.compare_digest(record[-TAG:], expected):
            raise ProtocolError(
                f"record {self._counter}: its tag is wrong: it was damaged, "
                "or somebody has tampered with the connection"
            )
        self._counter += 1
        return data


def _size(record: memoryview | bytearray) -> int | None:
    """Return the bytes of a record that begins there, once its length has come.

    Raises:
        ProtocolError: a record cannot have that length.
    """
    if len(record) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack_from(record)
    if not 1 <= length <= MOST:
        raise ProtocolError(f"record: expected 1 to {MOST} bytes, got {length}")
    return LENGTH.size + int(length) + TAG

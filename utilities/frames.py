"""Frames: a header, a tag that says what follows, a payload. No I/O.

    | length of tag u32 | length of payload u32 | tag, ASCII | payload |

Lengths are little-endian. The tag is one of

    str                   UTF-8 text
    bytes                 bytes
    pickle                plain data, see `utilities.plaindata`
    np.<dtype>:<d0,d1,…>  an array in C order, for instance np.<f4:3,4

A reader never allocates on the word of a header: it holds what has arrived.
"""

import math
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.errors import ProtocolError

HEADER = struct.Struct("<II")
MAX_TAG = 64  # the longest legal one has 28 characters
MAX_DIMENSIONS = 2
KNOWN_TAGS = 256  # are read once only: a run has a few dozen, over and over
COPIED_BELOW = 1 << 12  # bytes of an array: a view of it costs more than a copy
DTYPES = ("<f4", "<f8", "<u8", "<i8", "<i4", "<i2", "<u4", "<u2", "|u1", "|i1")

Buffer: TypeAlias = bytes | memoryview
Array: TypeAlias = NDArray[Any]


def array_frame(array: Array) -> Iterator[Buffer]:
    """Yield the header and the numbers of one array.

    Raises:
        AssertionError: the dtype is not one that travels.
    """
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    yield array_header(little.dtype.str, little.shape)
    if little.nbytes < COPIED_BELOW:
        yield little.tobytes()
    else:
        yield little.reshape(-1).view(np.uint8).data


@lru_cache(KNOWN_TAGS)
def array_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return the header and the tag of an array.

    Raises:
        AssertionError: the dtype is not one that travels.
    """
    assert dtype in DTYPES, f"arrays of {dtype} do not travel"
    tag = f"np.{dtype}:{','.join(map(str, shape))}".encode()
    return HEADER.pack(len(tag), math.prod(shape) * np.dtype(dtype).itemsize) + tag


def frame(tag: bytes, payload: Buffer) -> Iterator[Buffer]:
    """Yield header with tag, then the payload."""
    yield HEADER.pack(len(tag), len(payload)) + tag
    yield payload


def text_frame(value: str) -> bytes:
    """Return a frame that carries text."""
    return b"".join(frame(b"str", value.encode()))


def bytes_frame(value: bytes) -> bytes:
    """Return a frame that carries bytes."""
    return b"".join(frame(b"bytes", value))


class Announced(NamedTuple):
    """A frame whose header has been read."""

    tag: str
    length: int


class FrameReader:
    """Cut a stream of bytes into frames, holding no more than has arrived."""

    def __init__(self) -> None:
        self._pending = bytearray()  # not yet assigned to a payload
        self._announced: Announced | None = None
        self._payload = bytearray()

    @property
    def unfinished(self) -> bool:
        """Return whether a frame has come in part."""
        return self._announced is not None or bool(self._pending)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes as they arrive."""
        view = memoryview(data)
        if self._announced is not None and not self._pending:
            missing = self._announced.length - len(self._payload)
            self._payload += view[:missing]
            view = view[missing:]
        self._pending += view

    def announced(self) -> Announced | None:
        """Return the frame whose header is complete, if any.

        Raises:
            ProtocolError: the tag is too long or not ASCII.
        """
        pending = self._pending
        if self._announced is None and len(pending) >= HEADER.size:
            tag_length, _ = HEADER.unpack_from(pending)
            if tag_length > MAX_TAG:
                raise ProtocolError(
                    f"frame: expected a tag of at most {MAX_TAG} bytes, "
                    f"got {tag_length}"
                )
            end = HEADER.size + tag_length
            if len(pending) >= end:
                self._announced = _announced(bytes(pending[:end]))
                del pending[:end]
        return self._announced

    def payload(self) -> bytearray | None:
        """Return the payload of the announced frame once it is complete."""
        assert self._announced is not None
        length, pending = self._announced.length, self._pending
        if not self._payload and len(pending) >= length:
            payload = pending[:length]  # all of it is there, as of most frames
            del pending[:length]
        else:
            missing = length - len(self._payload)
            if missing and pending:
                self._payload += pending[:missing]
                del pending[:missing]
            if len(self._payload) < length:
                return None
            payload, self._payload = self._payload, bytearray()
        self._announced = None
        return payload


@lru_cache(KNOWN_TAGS)
def _announced(header: bytes) -> Announced:
    """Return what a header with its tag says."""
    _, length = HEADER.unpack_from(header)
    tag = header[HEADER.size :]
    if not (tag.isascii() and tag.decode("ascii").isprintable()):
        raise ProtocolError(f"frame: expected a tag in ASCII, got {tag!r}")
    return Announced(tag.decode("ascii"), length)


@lru_cache(KNOWN_TAGS)
def parse_array_tag(tag: str) -> tuple[str, tuple[int, ...]]:
    """Return dtype and shape that a tag announces.

    Raises:
        ProtocolError: not an array's tag, an unlisted dtype or an illegal shape.
    """
    kind, _, rest = tag.partition(".")
    dtype, _, dimensions = rest.partition(":")
    if kind != "np" or dtype not in DTYPES:
        raise ProtocolError(f"frame: expected an array of a listed dtype, got {tag!r}")
    parts = dimensions.split(",")
    legal = all(p.isdecimal() and len(p) <= 10 and str(int(p)) == p for p in parts)
    if not legal or len(parts) > MAX_DIMENSIONS:
        raise ProtocolError(f"frame: expected one or two dimensions, got {tag!r}")
    return dtype, tuple(map(int, parts))


class Form(NamedTuple):
    """What the tag of an array says about it."""

    dtype: str
    shape: tuple[int, ...]
    numbers: int
    size: int  # bytes


@lru_cache(KNOWN_TAGS)
def array_form(tag: str) -> Form:
    """Return the form of the array that a tag announces.

    Raises:
        ProtocolError: as `parse_array_tag`.
    """
    dtype, shape = parse_array_tag(tag)
    numbers = math.prod(shape)
    return Form(dtype, shape, numbers, numbers * np.dtype(dtype).itemsize)

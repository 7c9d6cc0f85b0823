"""Frames that were written correctly and then changed, cheaply and repeatably."""

import pickletools
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from tests.messages import SAMPLES, exact_bytes, opening_of, sender_of
from utilities import plaindata
from utilities.evolution import Segment
from utilities.frames import DTYPES, HEADER, frame
from utilities.misc import camel_case
from utilities.protocol import KIND_OF, SPECS, Message
from utilities.wire import Side, encode

Pieces: TypeAlias = tuple[Side, bytes, tuple[bytes, ...]]  # after a legal opening
Change: TypeAlias = Callable[[bytearray, random.Random], None]

ODD = 0.2  # of the frames begin as a message of which one field is odd
STRUCTURAL = 0.4  # of them are changed where their structure is, others anywhere
AGAIN = 0.2  # of them are changed once more
LENGTHS = (0, 1, 3, 63, 64, 65, 59_999, 60_000, 60_001, 1 << 16, (1 << 26) + 1)
EXTREMES = (*LENGTHS, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
BYTES = bytes([0, 1, 2, 127, 128, 254, 255, *b"]}(.tue\x85\x86\x94\x95hjqrR\x81\x93"])
OPCODES = bytes(ord(opcode.code) for opcode in pickletools.opcodes)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**120), 2**127 - 1),
    *(0.0, -0.0, 5e-324, 1e38, 1e308, float("inf"), -float("inf"), float("nan")),
    *("", "x" * 33, "x" * 1001, "\n", "\x00", "result", "ä" * 64, "\U0001f4a3"),
    *(b"", b"d" * 31, b"d" * 32, b"d" * 33, b"d" * 513),
    *([], [1], (), (1, 2), {}, {"a": 1}, [[[[1]]]], {"kind": "hello"}),
)


def framed_pickle(data: bytes) -> bytes:
    """Return a frame that says it holds a pickle."""
    return b"".join(bytes(part) for part in frame(b"pickle", data))


@dataclass(frozen=True)
class Source:
    """A correct message and what of it is worth changing."""

    kind: str
    data: bytes

    @cached_property
    def headers(self) -> list[int]:
        """Return where frames begin."""
        found, at = [], 0
        while at < len(self.data):
            found.append(at)
            tag, payload = HEADER.unpack_from(self.data, at)
            at += HEADER.size + tag + payload
        return found

    @cached_property
    def operations(self) -> list[int]:
        """Return where the opcodes of the pickle are."""
        start = HEADER.size + len(b"pickle")
        _, length = HEADER.unpack_from(self.data)
        body = self.data[start : start + length]
        return [start + at for _, _, at in pickletools.genops(body) if at is not None]


def larger() -> Iterator[Message]:
    """Yield every sample that has arrays, with arrays of some hundred bytes."""
    ramp = np.linspace(-2, 2, 97).astype(np.float32)
    rewards = np.arange(-100, 100, dtype=np.int8)
    segments = tuple(Segment(7 * n, n, n + 1) for n in range(9))
    arrays: dict[str, Any] = {
        **dict.fromkeys(("weights", "first", "second", "losses", "clean"), ramp),
        **{"rewards": rewards, "segments": segments},
        **{"tokens": np.arange(300).astype(np.uint16), "total": np.arange(97)},
    }
    for message in SAMPLES.values():
        names = {f.name for f in fields(message)} & arrays.keys()
        if names:
            yield replace(message, **{name: arrays[name] for name in names})


def odd_fields() -> Iterator[Source]:
    """Yield messages of which one plain field has a value of the list above."""
    for kind, spec in SPECS.items():
        data = exact_bytes(kind)
        _, length = HEADER.unpack_from(data)
        end = HEADER.size + len(b"pickle") + length
        head = plaindata.loads(data[end - length : end])
        assert isinstance(head, dict)
        for name in ("kind", *map(camel_case, spec.plain), "more"):
            for value in VALUES:
                changed = plaindata.dumps(head | {name: value})
                yield Source(kind, framed_pickle(changed) + data[end:])


# Changes.


def flip_a_bit(data: bytearray, rng: random.Random) -> None:
    """Change one bit."""
    data[int(rng.random() * len(data))] ^= 1 << int(rng.random() * 8)


def flip_bits(data: bytearray, rng: random.Random) -> None:
    """Change some bits."""
    for _ in range(2 + int(rng.random() * 7)):
        flip_a_bit(data, rng)


def set_a_byte(data: bytearray, rng: random.Random) -> None:
    """Put an opcode or a limit anywhere."""
    data[int(rng.random() * len(data))] = BYTES[int(rng.random() * len(BYTES))]


def truncate(data: bytearray, rng: random.Random) -> None:
    """Cut off the end."""
    del data[1 + int(rng.random() * len(data)) :]


def leave_out(data: bytearray, rng: random.Random) -> None:
    """Take out a piece."""
    start = int(rng.random() * (len(data) - 1))
    del data[start : start + 1 + int(rng.random() * 16)]
    data += b"\0" * (not data)


def repeat(data: bytearray, rng: random.Random) -> None:
    """Insert a copy of a piece anywhere."""
    start, to = int(rng.random() * len(data)), int(rng.random() * len(data))
    data[to:to] = data[start : start + 1 + int(rng.random() * 40)]


def lie_about_a_length(data: bytearray, rng: random.Random) -> None:
    """Put a striking number of four bytes anywhere."""
    at = int(rng.random() * max(1, len(data) - 4))
    value = EXTREMES[int(rng.random() * len(EXTREMES))]
    data[at : at + 4] = struct.pack("<I", value)


CHANGES: tuple[Change, ...] = (
    *(flip_a_bit, flip_bits, set_a_byte, truncate, leave_out, repeat),
    *(lie_about_a_length,),
)


class Mutator:
    """Mutated frames of one random number generator."""

    def __init__(self, seed: int) -> None:
        """Begin; the same seed gives the same frames."""
        self._rng = random.Random(seed)
        self._sound = [Source(kind, exact_bytes(kind)) for kind in SAMPLES]
        self._sound += [Source(KIND_OF[type(m)], b"".join(encode(m))) for m in larger()]
        self._odd = [*odd_fields()]
        self._opening = {kind: opening_of(kind) for kind in SAMPLES}

    def _pick(self, among: Sequence[Any]) -> Any:
        return among[int(self._rng.random() * len(among))]

    def frame(self) -> Pieces:
        """Return one mutated message, in one piece or two."""
        odd = self._rng.random() < ODD
        source: Source = self._pick(self._odd if odd else self._sound)
        data = self.mutated(source)
        cut = int(self._rng.random() * len(data))
        pieces = (data[:cut], data[cut:]) if self._rng.random() < 0.3 else (data,)
        return sender_of(source.kind), self._opening[source.kind], pieces

    def mutated(self, source: Source) -> bytes:
        """Return a message with one change, sometimes with some more."""
        data, random_number = bytearray(source.data), self._rng.random
        if random_number() < STRUCTURAL:
            data = self._restructured(source)
        else:
            CHANGES[int(random_number() * len(CHANGES))](data, self._rng)
        while random_number() < AGAIN:
            CHANGES[int(random_number() * len(CHANGES))](data, self._rng)
        return bytes(data)

    def _restructured(self, source: Source) -> bytearray:
        """Return a message that is changed where its structure is."""
        data, choice = bytearray(source.data), int(self._rng.random() * 5)
        if choice == 0:  # a length of a frame's header
            at = self._pick(source.headers) + 4 * (self._rng.random() < 0.5)
            data[at : at + 4] = struct.pack("<I", self._pick(EXTREMES))
        elif choice == 1:  # the same, by little
            at = self._pick(source.headers) + 4 * (self._rng.random() < 0.5)
            data[at] ^= 1 << int(self._rng.random() * 3)
        elif choice == 2:  # an opcode
            data[self._pick(source.operations)] = self._pick(OPCODES)
        elif choice == 3:  # frames of another message from some frame on
            other: Source = self._pick(self._sound)
            start, end = self._pick(source.headers), self._pick(other.headers)
            data[start:] = other.data[end:]
        else:  # the dtype of the last array
            tag, found, shape = data.rpartition(b"np.")
            data = tag + found + str(self._pick(DTYPES)).encode() + shape[3:]
        return data


def mutated(seed: int, count: int) -> Iterator[Pieces]:
    """Yield that many mutated frames."""
    mutator = Mutator(seed)
    for _ in range(count):
        yield mutator.frame()

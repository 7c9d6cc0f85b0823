"""Messages to bytes and back, and who may say what when. No I/O.

`Inbox` turns the bytes of a peer into messages and refuses everything else with a
`ProtocolError`; it never allocates on the word of a header. `LEGAL` says who may send
what when.
"""

import enum
import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities import moulds, plaindata
from utilities.config import MAX_PARAMETERS
from utilities.errors import ProtocolError
from utilities.evolution import Segment
from utilities.frames import (
    Announced,
    Buffer,
    FrameReader,
    array_form,
    array_frame,
    array_header,
    frame,
)
from utilities.model import Floats
from utilities.protocol import (
    KIND_OF,
    MAX_TRIALS,
    SPECS,
    STATE_ARRAYS,
    TOTAL,
    ArraySpec,
    Message,
    Spec,
)

JOIN_BELOW = 1 << 16  # parts of a message up to this size leave in one buffer
# What a thousand clients get at once differs in arrays alone: its plain fields are
# brought into bytes once.
SHARED = frozenset({"begin", "shares"})
KNOWN_HEADS = 16

Array: TypeAlias = NDArray[Any]


# Who may send what when.


class Side(enum.Enum):
    """Whose bytes an inbox reads."""

    CLIENT = "client"
    SERVER = "server"


class Phase(enum.Enum):
    """Where a session stands."""

    OPENING = "opening"
    JOINED = "joined"
    FAILED = "failed"


LEGAL: dict[tuple[Side, Phase], frozenset[str]] = {
    (Side.CLIENT, Phase.OPENING): frozenset({"hello"}),
    (Side.CLIENT, Phase.JOINED): frozenset(
        {"state", "result", "sum", "recalled", "goodbye"}
    ),
    (Side.SERVER, Phase.OPENING): frozenset({"welcome", "resume", "recall", "goodbye"}),
    (Side.SERVER, Phase.JOINED): frozenset(
        {"welcome", "resume", "tokens", "begin", "shares", "update", "goodbye"}
    ),
}


# Writing.


def encode(message: Message) -> list[Buffer]:
    """Return the bytes of a message: small parts joined, large arrays not copied."""
    spec = SPECS[KIND_OF[type(message)]]
    values = [getattr(message, name) for name in spec.plain]
    head = _known_head if spec.kind in SHARED and not _has_zero(values) else _head
    parts: list[Buffer] = [head(spec.kind, *values)]
    for name in spec.arrays:
        value = getattr(message, name)
        parts += _rows(value) if name == "segments" else array_frame(value)
    return list(_joined(parts))


def _head(kind: str, *values: Any) -> bytes:
    """Return the frame of a message's plain fields."""
    head: dict[str, Any] = {"kind": kind}
    for key, value in zip(SPECS[kind].keys, values, strict=True):
        head[key] = dict(value) if isinstance(value, Mapping) else value
    return b"".join(frame(b"pickle", plaindata.dumps(head)))


_known_head = lru_cache(KNOWN_HEADS, typed=True)(_head)


def _has_zero(values: list[Any]) -> bool:
    """Return whether there is a zero with a sign: to a cache -0.0 is 0.0."""
    return any(value == 0.0 and type(value) is float for value in values)


def _joined(parts: list[Buffer]) -> Iterator[Buffer]:
    small: list[Buffer] = []
    for part in parts:
        if len(part) < JOIN_BELOW:
            small.append(part)
            continue
        yield b"".join(small)
        small = []
        yield part
    if small:
        yield b"".join(small)


def _rows(segments: tuple[Segment, ...]) -> Iterator[Buffer]:
    """Yield the frame of segments, as `array_frame` would of a matrix of them."""
    numbers = [number for s in segments for number in (s.seed, s.first, s.groups)]
    payload = struct.pack(f"<{len(numbers)}Q", *numbers)
    yield array_header("<u8", (len(segments), 3))
    yield payload


# Reading.


class Inbox:
    """Turn the bytes of one peer into messages; after an error it stays closed."""

    def __init__(
        self,
        side: Side,
        parameters: int = MAX_PARAMETERS,
        phase: Phase = Phase.OPENING,
    ) -> None:
        """Read what a side sends.

        Args:
            side: who sends.
            parameters: P, where it is known: no state may be larger.
            phase: where the session stands.
        """
        self._side = side
        self._most = parameters
        self._phase = phase
        self._legal = LEGAL[side, phase]
        self._reader = FrameReader()
        self._spec: Spec | None = None
        self._plain: dict[str, Any] = {}
        self._arrays: dict[str, Array] = {}

    @property
    def unfinished(self) -> bool:
        """Return whether a message has come in part."""
        return self._spec is not None or self._reader.unfinished

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes as they arrive."""
        if self._phase is not Phase.FAILED:
            self._reader.feed(data)

    def messages(self) -> Iterator[Message]:
        """Yield the messages that are complete.

        Raises:
            ProtocolError: the peer broke a rule; from then on nothing is read.
        """
        try:
            while self._phase is not Phase.FAILED:
                message = self._next()
                if message is None:
                    return
                if self._phase is not Phase.JOINED:
                    self._phase = Phase.JOINED
                    self._legal = LEGAL[self._side, Phase.JOINED]
                yield message
        except ProtocolError:
            self._phase = Phase.FAILED
            self._reader, self._arrays = FrameReader(), {}  # frees what they hold
            raise

    def _next(self) -> Message | None:
        while True:
            announced = self._reader.announced()
            if announced is None:
                return None
            self._allow(announced)
            payload = self._reader.payload()
            if payload is None:
                return None
            self._take(announced, payload)
            if self._spec is not None and len(self._arrays) == len(self._spec.arrays):
                return self._build(self._spec)

    def _allow(self, announced: Announced) -> None:
        if self._spec is None:
            if announced.tag != "pickle" or announced.length > plaindata.MAX_BYTES:
                raise ProtocolError(
                    f"message: expected a pickle of at most {plaindata.MAX_BYTES} "
                    f"bytes, got {announced.tag!r} of {announced.length}"
                )
            return
        name, spec = self._due(self._spec)
        form = array_form(announced.tag)
        sized = self._spec.arrays is STATE_ARRAYS or spec is TOTAL
        limit = self._most if sized else spec.most
        if not spec.check(form.dtype, form.shape) or form.numbers > limit:
            raise ProtocolError(
                f"{self._spec.kind}.{name}: expected {' or '.join(spec.dtypes)}, "
                f"at most {limit} numbers, got {announced.tag!r}"
            )
        if announced.length != form.size:
            raise ProtocolError(
                f"{self._spec.kind}.{name}: {announced.tag!r} does not take "
                f"{announced.length} bytes"
            )

    def _due(self, spec: Spec) -> tuple[str, ArraySpec]:
        return spec.ordered[len(self._arrays)]

    def _take(self, announced: Announced, payload: bytearray) -> None:
        if self._spec is None:
            self._open(moulds.loads(payload))
            return
        name, _ = self._due(self._spec)
        form = array_form(announced.tag)
        array = np.frombuffer(memoryview(payload).toreadonly(), form.dtype)
        self._arrays[name] = (
            array if len(form.shape) == 1 else array.reshape(form.shape)
        )

    def _open(self, head: object) -> None:
        kind = head.get("kind") if isinstance(head, dict) else None
        legal = self._legal
        if not isinstance(head, dict) or not isinstance(kind, str) or kind not in legal:
            expected = " or ".join(sorted(legal))
            raise ProtocolError(f"message: expected {expected}, got {kind!r:.40}")
        spec = SPECS[kind]
        names = spec.keys
        if len(head) != 1 + len(names) or not head.keys() > names.keys():
            raise ProtocolError(
                f"{kind}: expected fields {', '.join(names)}, got {list(head)!r:.200}"
            )
        for key, check in spec.checks:
            if not check(head[key]):
                raise ProtocolError(f"{kind}.{key}: not acceptable: {head[key]!r:.80}")
        self._spec = spec
        self._plain = {name: head[key] for key, name in names.items()}

    def _build(self, spec: Spec) -> Message:
        arrays: dict[str, Any] = dict(self._arrays)
        if "segments" in arrays:
            arrays["segments"] = _segments(spec.kind, arrays["segments"])
        if spec.arrays is STATE_ARRAYS:
            _check_lengths(spec.kind, arrays)
        message: Message = spec.type(**self._plain, **arrays)
        self._spec, self._plain, self._arrays = None, {}, {}
        return message


def _check_lengths(kind: str, arrays: Mapping[str, Floats]) -> None:
    """Refuse a state whose arrays do not belong together; a mean may be missing."""
    sizes = {name: len(array) for name, array in arrays.items()}
    mean, others = sizes.pop("average"), set(sizes.values())
    if len(others) != 1 or mean not in {0, *others}:
        raise ProtocolError(f"{kind}: weights, moments and mean differ in length")


def _segments(kind: str, rows: NDArray[np.uint64]) -> tuple[Segment, ...]:
    segments = tuple(Segment(*row) for row in rows.tolist())
    for segment in segments:
        if segment.first >= 1 << 48 or not 1 <= segment.groups <= MAX_TRIALS:
            raise ProtocolError(f"{kind}.segments: not acceptable: {segment}")
    return segments

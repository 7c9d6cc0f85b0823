"""What server and clients say to each other, and who may say what when. No I/O.

A message is one ``pickle`` frame, a dict of its kind and plain fields, then its arrays,
each in a frame of its own, in declared order. `SPECS` declares every message once: what
a field may hold, what dtype and how many numbers an array may have. `Inbox` turns bytes
of a peer into messages and refuses everything else with a `ProtocolError`; it never
allocates on the word of a header. `LEGAL` says who may send what when.

Authentication comes later: it will exchange fixed-size structures before the first
frame, and `Hello.auth` is reserved for what has to be bound to it.
"""

import enum
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities import plaindata
from utilities.config import MAX_PARAMETERS
from utilities.errors import ProtocolError
from utilities.evolution import Segment, Update
from utilities.frames import (
    Announced,
    Buffer,
    FrameReader,
    array_frame,
    frame,
    parse_array_tag,
)
from utilities.misc import camel_case
from utilities.model import Floats, Tokens

PROTOCOL_VERSION = 1
MAX_TRIALS = 1 << 24  # losses of one result: 64 MB; far beyond what one client scores
MAX_REWARDS = 1 << 28  # of one step over all clients
MAX_SEGMENTS = 1 << 20  # of an update, over all clients
MAX_SEGMENTS_OF_ONE = 64  # of one client in one message
MAX_TOKENS = 1 << 26
MAX_COUNT = (1 << 63) - 1
JOIN_BELOW = 1 << 16  # parts of a message up to this size leave in one buffer

Array: TypeAlias = NDArray[Any]


# Messages.


@dataclass(frozen=True)
class Hello:
    """Introduce a client; the first message of a session."""

    protocol: int
    program: str
    python: str
    numpy: str
    name: str
    noise_test: bytes  # SHA-256 of known noise
    arithmetic_test: bytes  # SHA-256 of known products, roots and quotients
    last_step: int | None = None  # of a client that rejoins
    last_digest: bytes = b""
    auth: bytes = b""  # reserved


@dataclass(frozen=True)
class Welcome:
    """Give a client the run's configuration and a state to start from."""

    config: Mapping[str, Any]
    text_sha256: str
    reason: str  # empty for a joiner; else why the replica is replaced
    step: int
    count: int
    digest: bytes
    weights: Floats = field(repr=False)
    first: Floats = field(repr=False)
    second: Floats = field(repr=False)


@dataclass(frozen=True)
class TokenBatch:
    """Give everybody a numbered batch of the training text."""

    number: int
    tokens: Tokens = field(repr=False)


@dataclass(frozen=True)
class Begin:
    """Open a step for a client, or add work to it."""

    step: int
    time_per_step: float
    token_batch: int
    state_wanted: bool
    segments: tuple[Segment, ...]  # none: report the digest only


@dataclass(frozen=True)
class Result:
    """Report the losses of whole groups."""

    step: int
    digest: bytes  # of the state before the step
    update_seconds: float
    trial_seconds: float
    segments: tuple[Segment, ...]
    losses: Floats = field(repr=False)
    clean: Floats = field(repr=False)


@dataclass(frozen=True)
class State:
    """Send the state before a step, because the server asked for it."""

    step: int
    count: int
    weights: Floats = field(repr=False)
    first: Floats = field(repr=False)
    second: Floats = field(repr=False)


class End(str, enum.Enum):
    """Why a session ends."""

    FINISHED = "finished"  # the run is over: do not come back
    REFUSED = "refused"  # this client cannot take part: do not come back
    DROPPED = "dropped"  # this session is over: rejoin if you can


@dataclass(frozen=True)
class Goodbye:
    """End a session and say why."""

    end: str
    reason: str


Message: TypeAlias = (
    Hello | Welcome | TokenBatch | Begin | Result | Update | State | Goodbye
)


# What a field may hold.

Check: TypeAlias = Callable[[object], bool]


def whole(low: int, high: int) -> Check:
    """Return a check for integers of a range."""
    return lambda value: type(value) is int and low <= value <= high


def real(low: float, high: float) -> Check:
    """Return a check for finite floats of a range."""
    return lambda value: type(value) is float and low <= value <= high


def text(longest: int) -> Check:
    """Return a check for printable text of one line."""
    return lambda value: (
        isinstance(value, str) and len(value) <= longest and value.isprintable()
    )


def octets(*lengths: int) -> Check:
    """Return a check for bytes of given lengths."""
    return lambda value: isinstance(value, bytes) and len(value) in lengths


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _plain_mapping(value: object) -> bool:
    return isinstance(value, dict)


def _step_or_none(value: object) -> bool:
    return value is None or STEP(value)


STEP = whole(0, MAX_COUNT)
SECONDS = real(0.0, 1e9)
DIGEST = octets(32)


@dataclass(frozen=True)
class ArraySpec:
    """What an array of a message may be."""

    dtypes: tuple[str, ...]
    most: int  # numbers in all
    columns: int | None = None  # of a matrix; None: a vector

    def check(self, dtype: str, shape: tuple[int, ...]) -> bool:
        """Return whether a header announces the dtype and the form declared."""
        if self.columns is None:
            fits = len(shape) == 1
        else:
            fits = len(shape) == 2 and shape[1] == self.columns
        return dtype in self.dtypes and fits


@dataclass(frozen=True)
class Spec:
    """What a kind of message consists of."""

    kind: str
    type: type[Any]
    plain: dict[str, Check]
    arrays: dict[str, ArraySpec]


_STATE = dict.fromkeys(
    ("weights", "first", "second"), ArraySpec(("<f4",), MAX_PARAMETERS)
)
_SEGMENTS = ArraySpec(("<u8",), 3 * MAX_SEGMENTS, columns=3)
_FEW_SEGMENTS = ArraySpec(("<u8",), 3 * MAX_SEGMENTS_OF_ONE, columns=3)

SPECS: dict[str, Spec] = {
    spec.kind: spec
    for spec in (
        Spec(
            "hello",
            Hello,
            {
                "protocol": whole(0, 1 << 16),
                "program": text(32),
                "python": text(32),
                "numpy": text(32),
                "name": text(64),
                "noise_test": DIGEST,
                "arithmetic_test": DIGEST,
                "last_step": _step_or_none,
                "last_digest": octets(0, 32),
                "auth": lambda value: isinstance(value, bytes) and len(value) <= 512,
            },
            {},
        ),
        Spec(
            "welcome",
            Welcome,
            {
                "config": _plain_mapping,
                "text_sha256": text(64),
                "reason": text(1000),
                "step": STEP,
                "count": STEP,
                "digest": DIGEST,
            },
            _STATE,
        ),
        Spec(
            "tokens",
            TokenBatch,
            {"number": STEP},
            {"tokens": ArraySpec(("|u1", "<u2"), MAX_TOKENS)},
        ),
        Spec(
            "begin",
            Begin,
            {
                "step": STEP,
                "time_per_step": SECONDS,
                "token_batch": STEP,
                "state_wanted": _flag,
            },
            {"segments": _FEW_SEGMENTS},
        ),
        Spec(
            "result",
            Result,
            {
                "step": STEP,
                "digest": DIGEST,
                "update_seconds": SECONDS,
                "trial_seconds": SECONDS,
            },
            {
                "segments": _FEW_SEGMENTS,
                "losses": ArraySpec(("<f4",), MAX_TRIALS),
                "clean": ArraySpec(("<f4",), MAX_TRIALS),
            },
        ),
        Spec(
            "update",
            Update,
            {
                "step": STEP,
                "token_batch": STEP,
                "trials": whole(0, MAX_REWARDS),
                "rate": real(0.0, 1e9),
            },
            {"segments": _SEGMENTS, "rewards": ArraySpec(("|i1",), MAX_REWARDS)},
        ),
        Spec("state", State, {"step": STEP, "count": STEP}, _STATE),
        Spec(
            "goodbye",
            Goodbye,
            {
                "end": lambda value: value in [end.value for end in End],
                "reason": text(1000),
            },
            {},
        ),
    )
}
KIND_OF: dict[type[Any], str] = {spec.type: kind for kind, spec in SPECS.items()}


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
    (Side.CLIENT, Phase.JOINED): frozenset({"state", "result", "goodbye"}),
    (Side.SERVER, Phase.OPENING): frozenset({"welcome", "goodbye"}),
    (Side.SERVER, Phase.JOINED): frozenset(
        {"welcome", "tokens", "begin", "update", "goodbye"}
    ),
}


# Writing.


def encode(message: Message) -> list[Buffer]:
    """Return the bytes of a message: small parts joined, large arrays not copied."""
    spec = SPECS[KIND_OF[type(message)]]
    head: dict[str, Any] = {"kind": spec.kind}
    for name in spec.plain:
        value = getattr(message, name)
        head[camel_case(name)] = dict(value) if isinstance(value, Mapping) else value
    parts = [*frame(b"pickle", plaindata.dumps(head))]
    for name in spec.arrays:
        value = getattr(message, name)
        parts += array_frame(_rows(value) if name == "segments" else value)
    return list(_joined(parts))


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


def _rows(segments: tuple[Segment, ...]) -> NDArray[np.uint64]:
    rows = [(s.seed, s.first, s.groups) for s in segments]
    return np.array(rows, np.uint64).reshape(-1, 3)


# Reading.


class Inbox:
    """Turn the bytes of one peer into messages; after an error it stays closed."""

    def __init__(self, side: Side, parameters: int = MAX_PARAMETERS) -> None:
        """Read what a side sends.

        Args:
            side: who sends.
            parameters: P, where it is known: no state may be larger.
        """
        self._side = side
        self._most = parameters
        self._phase = Phase.OPENING
        self._reader = FrameReader()
        self._spec: Spec | None = None
        self._plain: dict[str, Any] = {}
        self._arrays: dict[str, Array] = {}

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
                self._phase = Phase.JOINED
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
        dtype, shape = parse_array_tag(announced.tag)
        limit = self._most if self._spec.arrays is _STATE else spec.most
        count = math.prod(shape)
        if not spec.check(dtype, shape) or count > limit:
            raise ProtocolError(
                f"{self._spec.kind}.{name}: expected {' or '.join(spec.dtypes)}, "
                f"at most {limit} numbers, got {announced.tag!r}"
            )
        if announced.length != count * np.dtype(dtype).itemsize:
            raise ProtocolError(
                f"{self._spec.kind}.{name}: {announced.tag!r} does not take "
                f"{announced.length} bytes"
            )

    def _due(self, spec: Spec) -> tuple[str, ArraySpec]:
        return list(spec.arrays.items())[len(self._arrays)]

    def _take(self, announced: Announced, payload: bytearray) -> None:
        if self._spec is None:
            self._open(plaindata.loads(payload))
            return
        name, _ = self._due(self._spec)
        dtype, shape = parse_array_tag(announced.tag)
        array = np.frombuffer(payload, dtype).reshape(shape)
        array.flags.writeable = False
        self._arrays[name] = array

    def _open(self, head: object) -> None:
        kind = head.get("kind") if isinstance(head, dict) else None
        legal = LEGAL[self._side, self._phase]
        if not isinstance(head, dict) or not isinstance(kind, str) or kind not in legal:
            expected = " or ".join(sorted(legal))
            raise ProtocolError(f"message: expected {expected}, got {kind!r:.40}")
        spec = SPECS[kind]
        names = {camel_case(name): name for name in spec.plain}
        if head.keys() != names.keys() | {"kind"}:
            raise ProtocolError(
                f"{kind}: expected fields {', '.join(names)}, got {list(head)!r:.200}"
            )
        for key, name in names.items():
            if not spec.plain[name](head[key]):
                raise ProtocolError(f"{kind}.{key}: not acceptable: {head[key]!r:.80}")
        self._spec = spec
        self._plain = {name: head[key] for key, name in names.items()}

    def _build(self, spec: Spec) -> Message:
        arrays: dict[str, Any] = dict(self._arrays)
        if "segments" in arrays:
            arrays["segments"] = _segments(spec.kind, arrays["segments"])
        if spec.arrays is _STATE and len({len(a) for a in arrays.values()}) != 1:
            raise ProtocolError(f"{spec.kind}: weights and moments differ in length")
        message: Message = spec.type(**self._plain, **arrays)
        self._spec, self._plain, self._arrays = None, {}, {}
        return message


def _segments(kind: str, rows: NDArray[np.uint64]) -> tuple[Segment, ...]:
    segments = tuple(Segment(*map(int, row)) for row in rows)
    for segment in segments:
        if segment.first >= 1 << 48 or not 1 <= segment.groups <= MAX_TRIALS:
            raise ProtocolError(f"{kind}.segments: not acceptable: {segment}")
    return segments

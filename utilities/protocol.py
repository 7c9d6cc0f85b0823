"""What server and clients say to each other: every message and its fields. No I/O.

A message is one ``pickle`` frame, a dict of its kind and plain fields, then its arrays,
each in a frame of its own, in declared order. `SPECS` declares every message once: what
a field may hold, what dtype and how many numbers an array may have. Bytes are turned
into messages and back by `utilities.wire`.

By then both ends have proved who they are: see `utilities.handshake`.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from utilities.config import MAX_PARAMETERS
from utilities.evolution import Segment, Totals, TrainState, Update
from utilities.misc import camel_case
from utilities.model import Floats, Tokens
from utilities.rewards import Rewards

PROTOCOL_VERSION = 7
MAX_TRIALS = 1 << 24  # losses of one result: 64 MB; far beyond what one client scores
MAX_REWARDS = 1 << 28  # of one step over all clients
MAX_SEGMENTS = 1 << 20  # of an update, over all clients
MAX_SEGMENTS_OF_ONE = 64  # of one client in one message
MAX_TOKENS = 1 << 26
MOST_BATCHES = 8  # of tokens that a client tells it holds
MAX_COUNT = (1 << 63) - 1


# Messages.


def _nothing() -> Floats:
    return np.zeros(0, np.float32)


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
    identity: bytes = b""  # of a client that is told from others over restarts
    batches: tuple[int, ...] = ()  # token batches that it holds


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
    average: Floats = field(default_factory=_nothing, repr=False)

    @property
    def state(self) -> TrainState:
        """Return the state that it carries."""
        return _carried(self)


@dataclass(frozen=True)
class Resume:
    """Have a client that was here before go on from the state that it holds."""

    config: Mapping[str, Any]
    text_sha256: str
    step: int  # of that state


@dataclass(frozen=True)
class Recall:
    """Ask a client that is ahead for the updates from a step on."""

    step: int
    digest: bytes  # of the server's state


@dataclass(frozen=True)
class Recalled:
    """Hand back the update of a step; its fields are those of `Update`."""

    step: int
    token_batch: int
    trials: int
    rate: float
    segments: tuple[Segment, ...]
    rewards: Rewards = field(repr=False)
    total: Totals = field(repr=False)

    @classmethod
    def of(cls, update: Update) -> "Recalled":
        """Return the message of an update."""
        return cls(**vars(update))

    @property
    def update(self) -> Update:
        """Return what is handed back."""
        return Update(**vars(self))


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
    gradient_quality: float | None  # split-half cosine of the last update, if known
    segments: tuple[Segment, ...]
    losses: Floats = field(repr=False)
    clean: Floats = field(repr=False)


@dataclass(frozen=True)
class Shares:
    """Give a client the rewards of its own trials; it is to send their sum."""

    step: int
    token_batch: int
    segments: tuple[Segment, ...]
    rewards: Rewards = field(repr=False)


@dataclass(frozen=True)
class Sum:
    """Report the sum over a client's own trials of reward times signs."""

    step: int
    seconds: float  # that it took
    total: Totals = field(repr=False)


@dataclass(frozen=True)
class State:
    """Send the state before a step, because the server asked for it."""

    step: int
    count: int
    weights: Floats = field(repr=False)
    first: Floats = field(repr=False)
    second: Floats = field(repr=False)
    average: Floats = field(default_factory=_nothing, repr=False)

    @property
    def state(self) -> TrainState:
        """Return the state that it carries."""
        return _carried(self)


def _carried(message: Welcome | State) -> TrainState:
    arrays = (getattr(message, name) for name in STATE_ARRAYS)
    return TrainState(message.step, message.count, *arrays)


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
    Hello
    | Welcome
    | Resume
    | Recall
    | Recalled
    | TokenBatch
    | Begin
    | Result
    | Shares
    | Sum
    | Update
    | State
    | Goodbye
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


def _few_steps(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) <= MOST_BATCHES
        and all(map(STEP, value))
    )


def _step_or_none(value: object) -> bool:
    return value is None or STEP(value)


def _cosine_or_none(value: object) -> bool:
    return value is None or COSINE(value)


STEP = whole(0, MAX_COUNT)
SECONDS = real(0.0, 1e9)
COSINE = real(-1.001, 1.001)  # rounding may pass 1
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

    @cached_property
    def keys(self) -> dict[str, str]:
        """Return the name of each plain field by its key on the wire."""
        return {camel_case(name): name for name in self.plain}

    @cached_property
    def checks(self) -> tuple[tuple[str, Check], ...]:
        """Return the check of each plain field by its key on the wire."""
        return tuple((key, self.plain[name]) for key, name in self.keys.items())

    @cached_property
    def ordered(self) -> tuple[tuple[str, ArraySpec], ...]:
        """Return the arrays in the order in which they travel."""
        return tuple(self.arrays.items())


STATE_ARRAYS = dict.fromkeys(
    ("weights", "first", "second", "average"), ArraySpec(("<f4",), MAX_PARAMETERS)
)
_SEGMENTS = ArraySpec(("<u8",), 3 * MAX_SEGMENTS, columns=3)
_FEW_SEGMENTS = ArraySpec(("<u8",), 3 * MAX_SEGMENTS_OF_ONE, columns=3)
TOTAL = ArraySpec(("<i2", "<i4", "<i8"), MAX_PARAMETERS)

_UPDATE_FIELDS: dict[str, Check] = {
    "step": STEP,
    "token_batch": STEP,
    "trials": whole(0, MAX_REWARDS),
    "rate": real(0.0, 1e9),
}

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
                "identity": octets(0, 16),
                "batches": _few_steps,
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
            STATE_ARRAYS,
        ),
        Spec(
            "resume",
            Resume,
            {
                "config": _plain_mapping,
                "text_sha256": text(64),
                "step": STEP,
            },
            {},
        ),
        Spec("recall", Recall, {"step": STEP, "digest": DIGEST}, {}),
        Spec(
            "recalled",
            Recalled,
            _UPDATE_FIELDS,
            {
                "segments": _SEGMENTS,
                "rewards": ArraySpec(("|i1",), MAX_TRIALS),
                "total": TOTAL,
            },
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
                "gradient_quality": _cosine_or_none,
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
            _UPDATE_FIELDS,
            {
                "segments": _SEGMENTS,
                "rewards": ArraySpec(("|i1",), MAX_REWARDS),
                "total": TOTAL,
            },
        ),
        Spec(
            "shares",
            Shares,
            {"step": STEP, "token_batch": STEP},
            # A client may have scored most blocks of a step of fixed size.
            {"segments": _SEGMENTS, "rewards": ArraySpec(("|i1",), MAX_TRIALS)},
        ),
        Spec("sum", Sum, {"step": STEP, "seconds": SECONDS}, {"total": TOTAL}),
        Spec("state", State, {"step": STEP, "count": STEP}, STATE_ARRAYS),
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

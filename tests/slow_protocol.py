"""The wire once more, written down independently of the program, plain and slow.

What messages consist of, what their fields may hold, and a reader that takes nothing
from `utilities.protocol` or `utilities.frames`; it leaves pickles to the standard
unpickler in the child of `tests.pickle_child`.
"""

import math
import pickle
import re
import struct
from collections.abc import Iterator
from typing import Any, TypeAlias

from numpy.typing import NDArray

from tests.messages import SAMPLES, exact_bytes
from tests.pickle_child import canonical
from utilities.evolution import Segment
from utilities.protocol import Message

Frame: TypeAlias = tuple[str, bytes]  # tag and payload
Transcript: TypeAlias = tuple[str, list[str]]  # pickled fields, arrays

STATE = ("weights", "first", "second", "average")
ARRAYS: dict[str, tuple[str, ...]] = {
    "hello": (),
    "welcome": STATE,
    "resume": (),
    "recall": (),
    "recalled": ("segments", "rewards", "total"),
    "tokens": ("tokens",),
    "begin": ("segments",),
    "result": ("segments", "losses", "clean"),
    "update": ("segments", "rewards", "total"),
    "shares": ("segments", "rewards"),
    "sum": ("total",),
    "state": STATE,
    "goodbye": (),
}
DTYPES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(STATE, ("<f4",)),
    **dict.fromkeys(("losses", "clean"), ("<f4",)),
    **{"tokens": ("|u1", "<u2"), "segments": ("<u8",), "rewards": ("|i1",)},
    "total": ("<i2", "<i4", "<i8"),
}
MOST_ROWS = {
    **dict.fromkeys((*STATE, "tokens", "total"), 2**26),
    **dict.fromkeys(("losses", "clean", "rewards"), 2**24),
    "segments": 64,
}
MOST_ROWS_OF_SHARES = {**MOST_ROWS, "segments": 2**20}
MOST_ROWS_OF_UPDATE = {**MOST_ROWS_OF_SHARES, "rewards": 2**28}
MOST_ROWS_OF = {
    "shares": MOST_ROWS_OF_SHARES,
    "update": MOST_ROWS_OF_UPDATE,
    "recalled": MOST_ROWS_OF_SHARES,
}

LONGEST = 2**63 - 1
UNPRINTABLE = [
    *("a\nb", "\n", "\r", "\t", "\0", "\x7f", "\x1b[31mred", "\x9b31m", "\u202egnp"),
    *("\u2028", "\u00a0", "\u200b", "\ufeff", "\ue000", "\U000e0041"),
]
OUTSIDE = [-5e-324, -1.0, 1e9 + 1e-6, 1e308, math.inf, -math.inf, math.nan]


def text_rule(longest: int) -> tuple[set[type], list[object], list[object]]:
    legal = ["", " ", "x" * longest, "é" * longest, "[31m \\n – 漢😀"]
    return {str}, [*legal], ["x" * (longest + 1), *UNPRINTABLE]


# A field's types, legal values, and illegal values of these types.
RULES: dict[str, tuple[set[type], list[object], list[object]]] = {
    "count": ({int}, [0, 1, LONGEST], [-1, LONGEST + 1, -LONGEST, 2**64, 2**126]),
    "version": ({int}, [0, 1, 2**16], [-1, 2**16 + 1, 2**63]),
    "trials": ({int}, [0, 2**28], [-1, 2**28 + 1]),
    "count or none": ({int, type(None)}, [None, 0, LONGEST], [-1, LONGEST + 1]),
    "number": ({float}, [0.0, -0.0, 5e-324, 1e9], [*OUTSIDE]),
    "cosine or none": (
        {float, type(None)},
        [None, -1.0, -0.0, 5e-324, 1.0, -1.001, 1.001],
        [-1.0011, 1.0011, 2.0, -1e308, math.inf, -math.inf, math.nan],
    ),
    "few counts": (
        {tuple},
        [(), (0,), (1, LONGEST), (5,) * 8],
        [(-1,), (LONGEST + 1,), (True,), (0.0,), (None,), ("1",), (1,) * 9],
    ),
    "flag": ({bool}, [True, False], []),
    "digest": ({bytes}, [bytes(32)], [b"", bytes(31), bytes(33), bytes(64)]),
    "digest or none": ({bytes}, [b"", bytes(32)], [bytes(1), bytes(31), bytes(33)]),
    "16 bytes or none": ({bytes}, [b"", bytes(16)], [bytes(1), bytes(15), bytes(17)]),
    "mapping": ({dict}, [{}, {"a": [None]}], []),
    "text of 32": text_rule(32),
    "text of 64": text_rule(64),
    "text of 1000": text_rule(1000),
    "end": (
        {str},
        ["finished", "refused", "dropped"],
        ["", "Finished", "FINISHED", "finished ", "End.FINISHED"],
    ),
}
OF_EVERY_TYPE: list[object] = [
    *(None, True, False, 0, 1, 0.0, 1.0, "", "1", "finished", b"", bytes(32)),
    *([], [1], (), (1,), {}, {"a": 1}, [b"x" * 1000] * 50),
]
FIELDS: dict[str, dict[str, str]] = {
    "hello": {
        "protocol": "version",
        "program": "text of 32",
        "python": "text of 32",
        "numpy": "text of 32",
        "name": "text of 64",
        "noiseTest": "digest",
        "arithmeticTest": "digest",
        "lastStep": "count or none",
        "lastDigest": "digest or none",
        "identity": "16 bytes or none",
        "batches": "few counts",
    },
    "welcome": {
        "config": "mapping",
        "textSha256": "text of 64",
        "reason": "text of 1000",
        "step": "count",
        "count": "count",
        "digest": "digest",
    },
    "resume": {
        "config": "mapping",
        "textSha256": "text of 64",
        "step": "count",
    },
    "recall": {"step": "count", "digest": "digest"},
    "recalled": {
        "step": "count",
        "tokenBatch": "count",
        "trials": "trials",
        "rate": "number",
    },
    "tokens": {"number": "count"},
    "begin": {
        "step": "count",
        "timePerStep": "number",
        "tokenBatch": "count",
        "stateWanted": "flag",
    },
    "result": {
        "step": "count",
        "digest": "digest",
        "updateSeconds": "number",
        "trialSeconds": "number",
        "gradientQuality": "cosine or none",
    },
    "update": {
        "step": "count",
        "tokenBatch": "count",
        "trials": "trials",
        "rate": "number",
    },
    "shares": {"step": "count", "tokenBatch": "count"},
    "sum": {"step": "count", "seconds": "number"},
    "state": {"step": "count", "count": "count"},
    "goodbye": {"end": "end", "reason": "text of 1000"},
}


def most_rows(kind: str, name: str) -> int:
    return MOST_ROWS_OF.get(kind, MOST_ROWS)[name]


def tag_of(dtype: str, name: str, rows: int) -> str:
    return f"np.{dtype}:{rows}{',3' if name == 'segments' else ''}"


def size_of(tag: str) -> int:
    """Return how many bytes the numbers take that a tag announces."""
    dtype, dimensions = tag.removeprefix("np.").split(":")
    return int(dtype[-1]) * math.prod(map(int, dimensions.split(",")))


def framed(tag: str, payload: bytes, length: int | None = None) -> bytes:
    length = len(payload) if length is None else length
    return struct.pack("<II", len(tag), length) + tag.encode() + payload


def frames_in(data: bytes) -> list[Frame]:
    """Cut bytes into frames, slowly; the last one may be incomplete and is left out."""
    start = 8 + int.from_bytes(data[:4], "little")
    end = start + int.from_bytes(data[4:8], "little")
    if len(data) < max(end, 8):
        return []
    return [(data[8:start].decode(), data[start:end]), *frames_in(data[end:])]


def head_of(kind: str) -> dict[str, object]:
    head = pickle.loads(frames_in(exact_bytes(kind))[0][1])
    assert isinstance(head, dict)
    return head


def with_head(kind: str, head: object) -> bytes:
    """Return the sample's bytes with other plain fields."""
    rest = frames_in(exact_bytes(kind))[1:]
    pickled = framed("pickle", pickle.dumps(head, protocol=4))
    return pickled + b"".join(framed(*frame) for frame in rest)


def before(kind: str, name: str) -> bytes:
    """Return the sample's bytes up to one of its arrays."""
    frames = frames_in(exact_bytes(kind))[: 1 + ARRAYS[kind].index(name)]
    return b"".join(framed(*frame) for frame in frames)


# Messages as text, to compare two readers.

KINDS = {type(message): kind for kind, message in SAMPLES.items()}
STRUCT_CODES = {
    **{"|i1": "b", "|u1": "B", "<u2": "H", "<u8": "Q", "<f4": "f"},
    **{"<i2": "h", "<i4": "i", "<i8": "q"},
}


def transcript(message: Message) -> Transcript:
    """Write down what a message says, as its sender would have to put it."""
    kind = KINDS[type(message)]
    head: dict[str, object] = {"kind": kind}
    for key in FIELDS[kind]:
        name = re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", key)
        head[key] = getattr(message, name)
    arrays = (getattr(message, name) for name in ARRAYS[kind])
    return canonical(head), [repr(numbers_of(array)) for array in arrays]


def numbers_of(array: tuple[Segment, ...] | NDArray[Any]) -> list[float]:
    if isinstance(array, tuple):
        return [number for s in array for number in (s.seed, s.first, s.groups)]
    numbers: list[float] = array.tolist()
    return numbers


def numbers_in(tag: str, payload: bytes) -> str:
    match = re.fullmatch(r"np\.(..\d):(\d+)(?:,(\d+))?", tag)
    assert match is not None, tag
    count = int(match[2]) * int(match[3] or 1)
    return repr([*struct.unpack(f"<{count}{STRUCT_CODES[match[1]]}", payload)])


def transcripts(frames: list[Frame], heads: Iterator[str]) -> list[Transcript]:
    """Put frames together to messages; what is incomplete is left out."""
    found: list[Transcript] = []
    for tag, payload in frames:
        if tag == "pickle":
            found.append((next(heads), []))
        else:
            found[-1][1].append(numbers_in(tag, payload))
    kinds = [re.match(r"dict\(str 'kind': str '(\w+)'", head) for head, _ in found]
    assert None not in kinds, found
    return [
        each
        for kind, each in zip(kinds, found, strict=True)
        if kind and len(each[1]) == len(ARRAYS[kind[1]])
    ]

"""One small message of every kind, their exact bytes, and random messages."""

import struct
from dataclasses import fields

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tests.pickle_child import canonical
from utilities.evolution import Segment, Update
from utilities.protocol import (
    Begin,
    Goodbye,
    Hello,
    Message,
    Recall,
    Recalled,
    Result,
    Resume,
    Shares,
    State,
    Sum,
    TokenBatch,
    Welcome,
)
from utilities.wire import Side


def floats(*values: float) -> NDArray[np.float32]:
    """Return an array that no test can change."""
    return np.frombuffer(struct.pack(f"{len(values)}f", *values), np.float32)


SEGMENTS = (Segment(7, 0, 2), Segment(2**64 - 1, 2**48 - 1, 1))
FLOATS = floats(1.0, -0.5, np.inf)
SMALLEST = floats(5e-45, -0.0, 3.0)  # the first one is subnormal
ZEROS = floats(0.0, 0.0, 0.0)
REWARDS = np.array([126, -126, 0], np.int8)

SAMPLES: dict[str, Message] = {
    "hello": Hello(
        protocol=1,
        program="1.2",
        python="3.10",
        numpy="2.0",
        name="Bärbel",
        noise_test=b"n" * 32,
        arithmetic_test=b"a" * 32,
        last_step=300,
        last_digest=b"d" * 32,
        identity=b"i" * 16,
        batches=(7,),
    ),
    "welcome": Welcome(
        config={"sigma": 0.25, "vocabSize": None, "noise": "lowRank"},
        text_sha256="5a",
        reason="",
        step=70_000,
        count=3,
        digest=b"w" * 32,
        weights=FLOATS,
        first=SMALLEST,
        second=ZEROS,
    ),
    "resume": Resume({"sigma": 0.5}, "5a", 300),
    "recall": Recall(299, b"b" * 32),
    "recalled": Recalled(5, 2, 3, 0.01, SEGMENTS, REWARDS, np.zeros(0, np.int32)),
    "tokens": TokenBatch(2, np.array([2, 255, 256], np.uint16)),
    "begin": Begin(5, 1.5, 2, True, SEGMENTS),
    "result": Result(
        step=5,
        digest=b"r" * 32,
        update_seconds=0.125,
        trial_seconds=0.0,
        gradient_quality=-0.25,
        segments=SEGMENTS,
        losses=FLOATS,
        clean=floats(),
    ),
    "update": Update(5, 2, 3, 0.01, SEGMENTS, REWARDS),
    "shares": Shares(5, 2, SEGMENTS, REWARDS),
    "sum": Sum(5, 0.5, np.array([2**31 - 1, -1, 0], np.int32)),
    "state": State(2**40, 9, FLOATS, SMALLEST, ZEROS, SMALLEST),
    "goodbye": Goodbye("dropped", "the run is over – so long"),
}

# Frame by frame: lengths of tag and payload, tag, then the payload. Hexadecimal.
BYTES: dict[str, str] = {
    "hello": """
        06000000 38010000 7069636b6c65  # pickle
          8004952d010000000000007d94288c046b696e64948c0568656c6c6f948c0870726f746f
          636f6c944b018c0770726f6772616d948c03312e32948c06707974686f6e948c04332e31
          30948c056e756d7079948c03322e30948c046e616d65948c0742c3a47262656c948c096e
          6f697365546573749443206e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e6e
          6e6e6e6e6e6e6e948c0e61726974686d6574696354657374944320616161616161616161
          6161616161616161616161616161616161616161616161948c086c61737453746570944d
          2c018c0a6c61737444696765737494432064646464646464646464646464646464646464
          64646464646464646464646464948c086964656e74697479944310696969696969696969
          69696969696969948c0762617463686573944b078594752e
    """,
    "welcome": """
        06000000 be000000 7069636b6c65  # pickle
          800495b3000000000000007d94288c046b696e64948c0777656c636f6d65948c06636f6e
          666967947d94288c057369676d6194473fd00000000000008c09766f63616253697a6594
          4e8c056e6f697365948c076c6f7752616e6b94758c0a74657874536861323536948c0235
          61948c06726561736f6e948c00948c0473746570944a701101008c05636f756e74944b03
          8c0664696765737494432077777777777777777777777777777777777777777777777777
          7777777777777794752e
        08000000 0c000000 6e702e3c66343a33  # np.<f4:3
          0000803f000000bf0000807f
        08000000 0c000000 6e702e3c66343a33  # np.<f4:3
          040000000000008000004040
        08000000 0c000000 6e702e3c66343a33  # np.<f4:3
          000000000000000000000000
        08000000 00000000 6e702e3c66343a30  # np.<f4:0
    """,
    "resume": """
        06000000 59000000 7069636b6c65  # pickle
          8004954e000000000000007d94288c046b696e64948c06726573756d65948c06636f6e66
          6967947d948c057369676d6194473fe0000000000000738c0a7465787453686132353694
          8c023561948c0473746570944d2c01752e
    """,
    "recall": """
        06000000 56000000 7069636b6c65  # pickle
          8004954b000000000000007d94288c046b696e64948c06726563616c6c948c0473746570
          944d2b018c06646967657374944320626262626262626262626262626262626262626262
          626262626262626262626294752e
    """,
    "recalled": """
        06000000 55000000 7069636b6c65  # pickle
          8004954a000000000000007d94288c046b696e64948c08726563616c6c6564948c047374
          6570944b058c0a746f6b656e4261746368944b028c06747269616c73944b038c04726174
          6594473f847ae147ae147b752e
        0a000000 30000000 6e702e3c75383a322c33  # np.<u8:2,3
          070000000000000000000000000000000200000000000000ffffffffffffffffffffffff
          ffff00000100000000000000
        08000000 03000000 6e702e7c69313a33  # np.|i1:3
          7e8200
        08000000 00000000 6e702e3c69343a30  # np.<i4:0
    """,
    "tokens": """
        06000000 2b000000 7069636b6c65  # pickle
          80049520000000000000007d94288c046b696e64948c06746f6b656e73948c066e756d62
          6572944b02752e
        08000000 06000000 6e702e3c75323a33  # np.<u2:3
          0200ff000001
    """,
    "begin": """
        06000000 5d000000 7069636b6c65  # pickle
          80049552000000000000007d94288c046b696e64948c05626567696e948c047374657094
          4b058c0b74696d655065725374657094473ff80000000000008c0a746f6b656e42617463
          68944b028c0b737461746557616e7465649488752e
        0a000000 30000000 6e702e3c75383a322c33  # np.<u8:2,3
          070000000000000000000000000000000200000000000000ffffffffffffffffffffffff
          ffff00000100000000000000
    """,
    "result": """
        06000000 a1000000 7069636b6c65  # pickle
          80049596000000000000007d94288c046b696e64948c06726573756c74948c0473746570
          944b058c0664696765737494432072727272727272727272727272727272727272727272
          72727272727272727272948c0d7570646174655365636f6e647394473fc0000000000000
          8c0c747269616c5365636f6e6473944700000000000000008c0f6772616469656e745175
          616c6974799447bfd0000000000000752e
        0a000000 30000000 6e702e3c75383a322c33  # np.<u8:2,3
          070000000000000000000000000000000200000000000000ffffffffffffffffffffffff
          ffff00000100000000000000
        08000000 0c000000 6e702e3c66343a33  # np.<f4:3
          0000803f000000bf0000807f
        08000000 00000000 6e702e3c66343a30  # np.<f4:0
    """,
    "update": """
        06000000 53000000 7069636b6c65  # pickle
          80049548000000000000007d94288c046b696e64948c06757064617465948c0473746570
          944b058c0a746f6b656e4261746368944b028c06747269616c73944b038c047261746594
          473f847ae147ae147b752e
        0a000000 30000000 6e702e3c75383a322c33  # np.<u8:2,3
          070000000000000000000000000000000200000000000000ffffffffffffffffffffffff
          ffff00000100000000000000
        08000000 03000000 6e702e7c69313a33  # np.|i1:3
          7e8200
        08000000 00000000 6e702e3c69343a30  # np.<i4:0
    """,
    "shares": """
        06000000 38000000 7069636b6c65  # pickle
          8004952d000000000000007d94288c046b696e64948c06736861726573948c0473746570
          944b058c0a746f6b656e4261746368944b02752e
        0a000000 30000000 6e702e3c75383a322c33  # np.<u8:2,3
          070000000000000000000000000000000200000000000000ffffffffffffffffffffffff
          ffff00000100000000000000
        08000000 03000000 6e702e7c69313a33  # np.|i1:3
          7e8200
    """,
    "sum": """
        06000000 39000000 7069636b6c65  # pickle
          8004952e000000000000007d94288c046b696e64948c0373756d948c0473746570944b05
          8c077365636f6e647394473fe0000000000000752e
        08000000 0c000000 6e702e3c69343a33  # np.<i4:3
          ffffff7fffffffff00000000
    """,
    "state": """
        06000000 38000000 7069636b6c65  # pickle
          8004952d000000000000007d94288c046b696e64948c057374617465948c047374657094
          8a060000000000018c05636f756e74944b09752e
        08000000 0c000000 6e702e3c66343a33  # np.<f4:3
          0000803f000000bf0000807f
        08000000 0c000000 6e702e3c66343a33  # np.<f4:3
          040000000000008000004040
        08000000 0c000000 6e702e3c66343a33  # np.<f4:3
          000000000000000000000000
        08000000 0c000000 6e702e3c66343a33  # np.<f4:3
          040000000000008000004040
    """,
    "goodbye": """
        06000000 58000000 7069636b6c65  # pickle
          8004954d000000000000007d94288c046b696e64948c07676f6f64627965948c03656e64
          948c0764726f70706564948c06726561736f6e948c1b7468652072756e206973206f7665
          7220e2809320736f206c6f6e6794752e
    """,
}


def exact_bytes(kind: str) -> bytes:
    """Return the bytes that stand for the sample of a kind, from the table."""
    lines = BYTES[kind].splitlines()
    return bytes.fromhex(" ".join(line.partition("#")[0] for line in lines))


def comparable(message: Message) -> tuple[object, ...]:
    """Return what equals only for messages of equal fields, types and bits."""
    values = (getattr(message, field.name) for field in fields(message))
    return (
        type(message),
        *(
            (value.dtype.str, value.shape, value.tobytes())
            if isinstance(value, np.ndarray)
            else canonical(value)
            for value in values
        ),
    )


def sender_of(kind: str) -> Side:
    """Return a side that may send this kind of message."""
    clients = ("hello", "result", "sum", "state", "recalled")
    return Side.CLIENT if kind in clients else Side.SERVER


def opening_of(kind: str) -> bytes:
    """Return what has to be read before this kind of message is legal."""
    if kind in ("hello", "welcome", "resume", "recall", "goodbye"):
        return b""
    return exact_bytes("hello" if sender_of(kind) is Side.CLIENT else "welcome")


# Random messages.

COUNTS = st.integers(0, 2**63 - 1)
NUMBERS = st.floats(0, 1e9)
DIGESTS = st.binary(min_size=32, max_size=32)
VECTORS = st.integers(0, 4).flatmap(lambda size: hnp.arrays("<f4", size))
REWARDS_OF_ANY = hnp.arrays("|i1", st.integers(0, 9))
TOTALS = st.sampled_from(["<i2", "<i4", "<i8"]).flatmap(
    lambda dtype: hnp.arrays(dtype, st.integers(0, 4))
)
STATES = st.integers(0, 4).flatmap(
    lambda size: st.builds(State, COUNTS, COUNTS, *[hnp.arrays("<f4", size)] * 3)
)
MANY_SEGMENTS = st.lists(
    st.builds(
        Segment,
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**48 - 1),
        st.integers(1, 2**24),
    ),
    max_size=4,
).map(tuple)


def texts(longest: int) -> st.SearchStrategy[str]:
    printable = st.characters(exclude_categories=("C", "Z"), include_characters=" ")
    return st.text(printable, max_size=longest)


UPDATES = st.builds(
    Update,
    COUNTS,
    COUNTS,
    st.integers(0, 2**28),
    NUMBERS,
    MANY_SEGMENTS,
    REWARDS_OF_ANY,
    TOTALS,
)
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Hello,
        st.integers(0, 2**16),
        *[texts(32)] * 3,
        texts(64),
        *[DIGESTS] * 2,
        st.none() | COUNTS,
        st.just(b"") | DIGESTS,
        st.just(b"") | st.binary(min_size=16, max_size=16),
        st.lists(COUNTS, max_size=8).map(tuple),
    ),
    st.builds(
        Resume,
        st.dictionaries(st.text(), st.none() | COUNTS | NUMBERS | st.text()),
        texts(64),
        COUNTS,
    ),
    st.builds(Recall, COUNTS, DIGESTS),
    UPDATES.map(Recalled.of),
    st.builds(
        lambda config, sha256, reason, state, digest: Welcome(
            config,
            sha256,
            reason,
            state.step,
            state.count,
            digest,
            state.weights,
            state.first,
            state.second,
            state.average,
        ),
        st.dictionaries(st.text(), st.none() | COUNTS | NUMBERS | st.text()),
        texts(64),
        texts(1000),
        STATES,
        DIGESTS,
    ),
    st.builds(TokenBatch, COUNTS, hnp.arrays("|u1", 3) | hnp.arrays("<u2", 3)),
    st.builds(Begin, COUNTS, NUMBERS, COUNTS, st.booleans(), MANY_SEGMENTS),
    st.builds(
        Result,
        COUNTS,
        DIGESTS,
        *[NUMBERS] * 2,
        st.none() | st.floats(-1, 1),
        MANY_SEGMENTS,
        *[VECTORS] * 2,
    ),
    UPDATES,
    st.builds(Shares, COUNTS, COUNTS, MANY_SEGMENTS, REWARDS_OF_ANY),
    st.builds(Sum, COUNTS, NUMBERS, TOTALS),
    STATES,
    st.builds(
        Goodbye, st.sampled_from(["finished", "refused", "dropped"]), texts(1000)
    ),
)

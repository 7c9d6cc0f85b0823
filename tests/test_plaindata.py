import enum
import itertools
import math
import pickle
import pickletools
import random
import struct
import tracemalloc
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pickle_child import (
    assert_agrees_with_pickle,
    canonical,
    reference_loads,
    single_byte_changes,
)
from utilities.errors import ProtocolError
from utilities.plaindata import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_INT,
    MAX_MARKS,
    MAX_NODES,
    MAX_TEXT,
    dumps,
    loads,
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-MAX_INT, MAX_INT),
    st.floats(allow_nan=True),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.sampled_from(
        ["", b"", "seed", b"seed", 0, 255, 256, 65535, 65536, -1, -(2**31)]
    ),
)
PLAIN: st.SearchStrategy[object] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(st.text(max_size=5) | st.just("seed"), inner, max_size=5),
    ),
    max_leaves=30,
)

# What the pickler writes for plain data with protocol 4, apart from PROTO and FRAME.
WRITTEN = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT1", "BININT2", "BININT", "LONG1"),
    *("BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES"),
    *("MARK", "EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
    *("MEMOIZE", "BINGET", "LONG_BINGET", "STOP"),
}

# Each opcode family at least once, in the manner of our messages.
HELLO = {
    "kind": "hello",
    "versions": (1, 300, 70_000),
    "name": "Bärbel",
    "digest": b"\7",
}
BEGIN = {
    "kind": "begin",
    "segments": [(2**63 + 5, 0, -16)],
    "rate": -0.0,
    "more": [None, True, False, [], (), {}, (1,), (1, 2), {"rate": 1}, [700]],
}
STRINGS = [*(f"s{i}" for i in range(300)), "x" * 256, b"y" * 256]
MANY = {
    "strings": STRINGS,
    "repeated": [*STRINGS],
    "numbers": [*range(1001)],
    "table": {f"key {i}": i for i in range(1001)},
    "again": ["kind", "kind", (0, 1, 2, 3)],
}

TOP: list[object] = [None, False, 0, 1.5, "", b"", (), [], {}]


def framed(body: bytes) -> bytes:
    return b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body


def short(text: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(text)]) + text.encode()


def body_of(value: object) -> bytes:
    return dumps(value)[11:]


def nested(depth: int, kind: str) -> object:
    value: object = 0
    for _ in range(depth):
        match kind:
            case "list":
                value = [value]
            case "tuple":
                value = (value,)
            case _:
                value = {"a": value}
    return value


# Round trip


@given(PLAIN)
def test_what_is_written_is_read_back_with_the_same_types(value: object) -> None:
    assert canonical(loads(dumps(value))) == canonical(value)


@given(PLAIN)
@settings(max_examples=50)
def test_both_picklers_of_the_standard_library_are_understood(value: object) -> None:
    unshared = loads(dumps(value))
    written = pickle._dumps(unshared, protocol=4)  # type: ignore[attr-defined]
    assert canonical(loads(written)) == canonical(value)


@pytest.mark.parametrize(
    "value", [HELLO, BEGIN, MANY, *TOP], ids=lambda v: repr(v)[:20]
)
def test_messages_and_smallest_values_survive_the_round_trip(value: object) -> None:
    assert canonical(loads(dumps(value))) == canonical(value)
    assert canonical(pickle.loads(dumps(value))) == canonical(value)


@pytest.mark.parametrize(
    "number",
    [
        *(0, 1, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**63, 2**64, MAX_INT),
        *(-1, -128, -129, -(2**31), -(2**31) - 1, -(2**63), -MAX_INT),
        *(0.0, -0.0, math.inf, -math.inf, math.nan, -math.nan, 5e-324, 1e308),
        *(True, False),
    ],
)
def test_numbers_keep_every_bit_and_their_type(number: float) -> None:
    assert canonical(loads(dumps([number, number]))) == canonical([number, number])


@pytest.mark.parametrize("size", [1, 2, 999, 1000, 1001, 2000, 2001])
def test_containers_of_about_one_batch_of_the_pickler_survive(size: int) -> None:
    # For a dict of exactly 1000 entries the C pickler adds an empty batch.
    numbers = [*range(size)]
    value = [numbers, tuple(numbers), {str(i): i for i in numbers}]
    assert canonical(loads(dumps(value))) == canonical(value)
    written = pickle._dumps(value, protocol=4)  # type: ignore[attr-defined]
    assert canonical(loads(written)) == canonical(value)


def test_a_repeated_string_is_sent_once() -> None:
    text = "a string of thirty characters!"
    data = dumps({"list": [text, text, text]})
    assert data.count(text.encode()) == 1
    assert loads(data) == {"list": [text, text, text]}


def test_a_container_that_occurs_twice_is_written_twice() -> None:
    for shared in ([1], (1,), (1, 2, 3, 4), {"a": 1}, [], (), {}, ([1],)):
        value = {"x": shared, "y": (shared, shared), "z": [shared]}
        assert canonical(loads(dumps(value))) == canonical(value)


def test_any_bytes_like_object_can_be_read() -> None:
    data = dumps(HELLO)
    spread = memoryview(bytes(b for byte in data for b in (byte, 0)))[::2]
    for form in (data, bytearray(data), memoryview(data), spread):
        assert loads(form) == HELLO


def test_the_decoder_knows_the_opcodes_that_the_writer_writes_and_no_others() -> None:
    written = {
        opcode.name
        for value in (HELLO, BEGIN, MANY)
        for opcode, _, _ in pickletools.genops(dumps(value))
    }
    assert written == WRITTEN | {"PROTO", "FRAME"}


# What the writer refuses


class Colour(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.int64(1), "numpy.int64"),
        (np.float64(1), "numpy.float64"),
        (np.float32(1), "numpy.float32"),
        (np.bool_(True), "numpy.bool"),
        (np.zeros(1), "numpy.ndarray"),
        (Colour.RED, "tests.test_plaindata.Colour"),
        (Point(1), "tests.test_plaindata.Point"),
        (OrderedDict(), "collections.OrderedDict"),
        ({1}, "builtins.set"),
        (bytearray(b"x"), "builtins.bytearray"),
        (1j, "builtins.complex"),
        (print, "builtins.builtin_function_or_method"),
    ],
)
def test_anything_but_the_exact_plain_types_is_refused_with_its_path(
    value: object, name: str
) -> None:
    with pytest.raises(TypeError) as caught:
        dumps({"a": [0, ({"b": value},)]})
    assert f"value['a'][1][0]['b'] is {name}" in str(caught.value)


@pytest.mark.parametrize("key", [1, None, b"x", ("x",), Colour.RED, np.str_("x")])
def test_keys_other_than_str_are_refused(key: object) -> None:
    with pytest.raises(TypeError, match=r"value\[0\]\[.*\] has a key of type"):
        dumps([{key: 1}])


@pytest.mark.parametrize("number", [2**127, -(2**127), 1 << 20_000], ids=int.bit_length)
def test_integers_of_more_than_127_bits_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=r"value\[0\] has \d+ bits, at most 127"):
        dumps([number])


@pytest.mark.parametrize("value", ["a\ud800", {"a\udfff": 1}])
def test_surrogates_are_not_written(value: object) -> None:
    with pytest.raises(ValueError, match="surrogate at character 1"):
        dumps(value)


@pytest.mark.parametrize("kind", ["list", "tuple", "dict"])
def test_nesting_is_limited_alike_in_writing_and_reading(kind: str) -> None:
    deepest = nested(MAX_DEPTH, kind)
    assert loads(dumps(deepest)) == deepest
    with pytest.raises(ValueError, match="nested more than 32 deep"):
        dumps(nested(MAX_DEPTH + 1, kind))
    with pytest.raises(ProtocolError, match="nested more than 32 deep"):
        loads(pickle.dumps(nested(MAX_DEPTH + 1, kind), protocol=4))


def test_containers_that_contain_themselves_are_refused() -> None:
    cyclic_list: list[object] = []
    cyclic_list.append((cyclic_list,))
    cyclic_dict: dict[str, object] = {}
    cyclic_dict["me"] = [cyclic_dict]
    for value in (cyclic_list, cyclic_dict):
        with pytest.raises(ValueError, match=r"value\[.*\]\[0\] contains itself"):
            dumps(value)


def test_a_small_graph_that_stands_for_a_huge_tree_is_refused() -> None:
    tree: list[object] = []
    for _ in range(30):
        tree = [tree, tree]
    with pytest.raises(ValueError, match="beyond the limit of 20000 values"):
        dumps(tree)


def test_the_limit_of_values_is_the_same_in_writing_and_reading() -> None:
    most = [0] * (MAX_NODES - 1)
    assert loads(dumps(most)) == most
    with pytest.raises(ValueError, match="beyond the limit"):
        dumps([*most, 0])
    with pytest.raises(ProtocolError, match="more than 20000 values"):
        loads(pickle.dumps([*most, 0], protocol=4))


def test_no_value_that_can_be_written_has_too_many_marks_to_be_read() -> None:
    pairs: list[object] = [None] * (MAX_NODES // 2)  # the leaves of a binary tree
    while len(pairs) > 1:
        rest = pairs[len(pairs) & ~1 :]
        pairs = [[one, two] for one, two in zip(pairs[::2], pairs[1::2], strict=False)]
        pairs += rest
    most = dumps(pairs[0])
    marks = sum(opcode.name == "MARK" for opcode, _, _ in pickletools.genops(most))

    assert marks == MAX_NODES // 2 - 1
    assert loads(most) == pairs[0]
    assert loads(framed(b"]" + b"(e" * MAX_MARKS + b".")) == []
    for fill, empty in ((b"(e", b"]"), (b"(u", b"}")):
        with pytest.raises(ProtocolError, match=f"more than {MAX_MARKS} MARKs"):
            loads(framed(empty + fill * (MAX_MARKS + 1) + b"."))


def test_the_limit_of_bytes_is_the_same_in_writing_and_reading() -> None:
    overhead = len(dumps(b"x" * 1000)) - 1000
    longest = b"x" * (MAX_BYTES - overhead)
    assert len(dumps(longest)) == MAX_BYTES
    assert loads(dumps(longest)) == longest
    with pytest.raises(ValueError, match="has 60001 bytes, at most 60000"):
        dumps(longest + b"x")
    with pytest.raises(ProtocolError, match="60001 bytes, at most 60000"):
        loads(pickle.dumps(longest + b"x", protocol=4))


@pytest.mark.parametrize("text", ["x" * 1000, b"x" * 1000], ids=["str", "bytes"])
def test_the_limit_of_repeated_text_is_the_same_in_writing_and_reading(
    text: str | bytes,
) -> None:
    most = [text] * (MAX_TEXT // 1000)
    assert loads(dumps(most)) == most
    with pytest.raises(ValueError, match="beyond the limit of 1000000 characters"):
        dumps([*most, b"x"])
    with pytest.raises(ProtocolError, match="more than 1000000 characters"):
        loads(pickle.dumps([*most, b"x"], protocol=4))


# What the decoder refuses: form


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "starts with bytes none"),
        (b"\x80", "starts with bytes 80"),
        (b"N.", "starts with bytes 4e2e, expected 8004"),
        (b"\x80\x03N.", "starts with bytes 8003"),
        (b"\x80\x05N.", "starts with bytes 8005"),
        (b"\x80\x04", "ends at offset 2 without STOP"),
        (b"\x80\x04N", "ends at offset 3 without STOP"),
        (b"\x80\x04.", "0 values and 0 MARKs are left"),
        (b"\x80\x04N.N", "offset 3: opcode STOP .* 1 bytes follow"),
        (b"\x80\x04M\1\1.", "expected a FRAME"),
        (b"\x80\x04\x95.", "ends at offset|FRAME"),
        (b"\x80\x04\x95" + bytes(7), "expected a FRAME"),
        (b"\x80\x04\x95" + bytes(8), "ends at offset 11 without STOP"),
        (framed(b"M\1\1.") + b".", "expected a FRAME"),
        (framed(b"M\1\1.N"), "1 bytes follow"),
        (framed(b"M\1\1.")[:-1], "expected a FRAME"),
        (framed(framed(b"M\1\1.")), "opcode PROTO"),
        (framed(framed(b"M\1\1.")[2:]), "opcode FRAME"),
        (framed(b"K\1K\2."), "2 values and 0 MARKs are left"),
        (framed(b"(K\1."), "1 values and 1 MARKs are left"),
        (framed(b"K\1(."), "1 values and 1 MARKs are left"),
    ],
)
def test_anything_but_one_framed_pickle_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        loads(data)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"G" + bytes(7), "offset 11: opcode BINFLOAT .* needs 8 bytes"),
        (b"M\1", "BININT2 .* needs 2 bytes at offset 12, 1 are left"),
        (b"\x8a\1", "LONG1 .* needs 1 bytes"),
        (b"\x8a\x11" + bytes(17) + b".", "integer of 17 bytes, at most 16"),
        (b"\x8a\x10" + bytes(15) + b"\x80.", "integer below -1701"),
        (b"X\xff\xff\xff\x7fa.", "BINUNICODE .* needs 2147483647 bytes"),
        (b"B\xff\xff\xff\xffa.", "BINBYTES .* needs 4294967295 bytes"),
        (b"C\5abc.", "SHORT_BINBYTES .* needs 5 bytes at offset 13, 4 are left"),
        (b"\x8c\3\xed\xa0\x80.", "byte 0 of the string is not UTF-8"),
        (b"\x8c\2a\xff.", "byte 1 of the string is not UTF-8"),
        (b"\x8c\2\xc0\x80.", "byte 0 of the string is not UTF-8"),
        (b"\x85N..", "TUPLE1 .* needs 1 more values"),
        (b"NN\x87.", "TUPLE3 .* needs 3 more values"),
        (b"N(\x85.", "TUPLE1 .* needs 1 more values"),
        (b"NNt.", "TUPLE .* there is no MARK"),
        (b"]Ne.", "APPENDS .* there is no MARK"),
        (b"}Nu.", "SETITEMS .* there is no MARK"),
        (b"](Na.", "APPEND .* needs 1 more values"),
        (b"(NNe.", "APPENDS .* needs 1 more values"),
        (b")Na.", "expected a list below, got tuple"),
        (b"}(Ne.", "expected a list below, got dict"),
        (b"C\0Na.", "expected a list below, got bytes"),
        (b"]K\0Ns.", "expected a dict below, got list"),
        (b"](NNu.", "expected a dict below, got list"),
        (b"}(" + short("a") + b"u.", "a key has no value"),
        (b"}K\1Ns.", "key of type int, expected str"),
        (b"}NNs.", "key of type NoneType"),
        (b"}C\1aNs.", "key of type bytes"),
        (b"}(" + (short("a") + b"N") * 2 + b"u.", "a key comes twice"),
        (b"}" + (short("a") + b"Ns") * 2 + b".", "a key comes twice"),
        (b"\x94N..", "MEMOIZE .* needs 1 more values"),
        (b"N(\x94t", "MEMOIZE .* needs 1 more values"),
        (b"h\0..", "BINGET .* memo entry 0 of 0"),
        (b"N\x94j\1\0\0\0\x86.", "LONG_BINGET .* memo entry 1 of 1"),
        (b"j\xff\xff\xff\xff.", "memo entry 4294967295 of 0"),
    ],
)
def test_a_wrong_operand_is_refused_with_opcode_and_offset(
    body: bytes, message: str
) -> None:
    with pytest.raises(ProtocolError, match=message):
        loads(framed(body))


@pytest.mark.parametrize("value", [7, 1.5, True, None])
def test_scalars_other_than_strings_may_come_from_the_memo(value: object) -> None:
    pushed = pickle.dumps(value, protocol=4).removeprefix(b"\x80\x04")[:-1]
    pushed = pushed[9:] if pushed[:1] == pickle.FRAME else pushed
    assert loads(framed(pushed + b"\x94h\0\x86.")) == (value, value)


@pytest.mark.parametrize("body", [b"]", b")", b"}", b"N\x85", b"(NNNNt"])
def test_containers_may_not_come_from_the_memo(body: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"memo entry 0 is a (list|tuple|dict)"):
        loads(framed(body + b"\x94h\0\x86."))


OPCODES = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
CONTEXTS = [
    *(b"", b"N", b"]", b"}", b"]\x94N", b"](NN", b"}(", b"NNN", b"((", b")N"),
    *(b"}" + short("a"), b"}" + short("a") + b"N", short("a") + b"\x94"),
]


@pytest.mark.parametrize("context", CONTEXTS)
def test_every_opcode_that_is_not_written_is_refused_everywhere(context: bytes) -> None:
    for byte in range(256):
        name = OPCODES.get(byte, "unknown")
        if name in WRITTEN:
            continue
        message = rf"offset {11 + len(context)}: opcode {name} \(0x{byte:02x}\): not an"
        for operand in (b"...", b"1\n..", bytes(9) + b"."):
            with pytest.raises(ProtocolError, match=message):
                loads(framed(context + bytes([byte]) + operand))


# What the decoder refuses: attacks

HOSTILE = {
    "memo of 8 million entries": (b"Nr\0\0\x80\0.", "LONG_BINPUT"),
    "memo entry written by hand": (b"Nq\0q\1.", "BINPUT"),
    "bytes of a terabyte": (b"\x8e" + struct.pack("<Q", 2**40) + b".", "BINBYTES8"),
    "bytearray of a terabyte": (b"\x96" + struct.pack("<Q", 2**40), "BYTEARRAY8"),
    "text of a terabyte": (b"\x8d" + struct.pack("<Q", 2**40), "BINUNICODE8"),
    "bytes of 2 GiB": (b"B\xff\xff\xff\x7f.", "BINBYTES"),
    "integer of 2 GiB": (b"\x8b\xff\xff\xff\x7f.", "LONG4"),
    "hash bomb with DUP": (b"})" + b"2\x86" * 60 + b"Ns.", "DUP"),
    "hash bomb with the memo": (
        b"})" + b"".join(b"\x94h%c\x86" % i for i in range(60)) + b"Ns.",
        "memo entry 0 is a tuple",
    ),
    "colliding integers as keys": (
        b"}("
        + b"".join(
            b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"N"
            for k in range(1, 4000)
        )
        + b"u.",
        "key of type int",
    ),
    "deep list": (b"]" * 19_000 + b"a" * 18_999 + b".", "nested more than 32 deep"),
    "deep tuple": (b")" + b"\x85" * 59_000 + b".", "nested more than 32 deep"),
    "deep tuple with marks": (b"(" * 9000 + b"t" * 9000 + b".", "nested more than"),
    "deep list with flat items last": (b"]" * 40 + b"aNa" * 39, "nested more than"),
    "deep dict": (
        (b"}" + short("a")) * 9000 + b"}" + b"s" * 9000 + b".",
        "nested more than 32 deep",
    ),
    "very deep list": (b"]" * 200_000 + b"a" * 199_999 + b".", "at most 60000"),
    "list that contains itself": (b"]\x94h\0a.", "memo entry 0 is a list"),
    "read-only buffer": (b"C\1a\x98.", "READONLY_BUFFER"),
    "next buffer": (b"\x97...", "NEXT_BUFFER"),
    "items appended to bytes": (b"C\1a(K\1e.", "expected a list below, got bytes"),
    "item set in a list": (b"]K\0Ns.", "expected a dict below, got list"),
    "long text repeated": (
        b"]X\x30\x75\0\0" + b"x" * 30_000 + b"\x94" + b"h\0\x86" * 9000 + b"a.",
        "more than 1000000 characters",
    ),
    "marks without end": (b"(" * 59_000, "more than 10020 MARKs"),
    "values without end": (b"]" * 59_000, "more than 20000 values"),
    "bytes after the end": (b"N...", "2 bytes follow"),
    "set": (b"\x8f...", "EMPTY_SET"),
    "frozenset": (b"(\x91..", "FROZENSET"),
    "text opcodes": (b"I1\n.", "INT"),
    "reduce": (b"))R.", "REDUCE"),
    "build": (b"}}b.", "BUILD"),
    "new object": (b"))\x81.", "NEWOBJ"),
    "new object with keywords": (b"))}\x92.", "NEWOBJ_EX"),
    "extension 1": (b"\x82\1..", "EXT1"),
    "extension 2": (b"\x83\1\1.", "EXT2"),
    "extension 4": (b"\x84\1\0\0\0.", "EXT4"),
    "persistent id": (b"P1\n.", "PERSID"),
    "persistent id from the stack": (b"K\1Q.", "BINPERSID"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_without_taking_memory(name: str) -> None:
    body, message = HOSTILE[name]
    data = framed(body)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match=message):
            loads(data)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    with pytest.raises(ProtocolError):
        loads(body)  # as the standard unpickler takes it: without PROTO and FRAME


def calls_of(path: str) -> Iterator[bytes]:
    """Yield pickles that call os.mkdir(path) when the standard module loads them."""
    yield b"cos\nmkdir\n" + short(path) + b"\x85R."
    yield short("os") + short("mkdir") + b"\x93" + short(path) + b"\x85R."
    yield b"(" + short(path) + b"ios\nmkdir\n."
    yield b"(cos\nmkdir\n" + short(path) + b"o."


@pytest.mark.parametrize("number", range(4))
def test_pickles_that_call_a_function_are_refused_and_call_nothing(
    number: int, tmp_path: Path
) -> None:
    target = tmp_path / "x"
    attack = framed(list(calls_of(str(target)))[number])
    with pytest.raises(ProtocolError, match=r"GLOBAL|INST"):
        loads(attack)
    assert not target.exists()
    pickle.loads(attack)  # the attack is a real one
    assert target.is_dir()


# The decoder against the standard one

CORPUS = [HELLO, BEGIN, *TOP, "ä" * 200, [b"z" * 300] * 3, nested(MAX_DEPTH, "tuple")]


@pytest.mark.parametrize("value", CORPUS, ids=lambda v: repr(v)[:20])
def test_every_truncation_is_refused(value: object) -> None:
    data = dumps(value)
    for length in range(len(data)):
        with pytest.raises(ProtocolError):
            loads(data[:length])
        if length > 11:  # with a FRAME that fits, the machine itself must notice
            with pytest.raises(ProtocolError):
                loads(framed(data[11:length]))


def test_every_change_of_one_byte_is_refused_or_read_as_pickle_reads_it() -> None:
    changed = itertools.chain.from_iterable(
        single_byte_changes(dumps(value)) for value in (HELLO, BEGIN, *TOP)
    )
    assert assert_agrees_with_pickle(changed) > 5000


def test_every_written_opcode_in_every_context_agrees_with_pickle() -> None:
    operands = [b"", b"\0", b"\1a", b"\0\0\0\0", b"\1\0\0\0a", b"abcdefgh", b"\1\xff"]
    endings = [b".", b"t.", b"e.", b"a.", b"s."]
    candidates = (
        framed(context + bytes([byte]) + operand + ending)
        for context in CONTEXTS
        for byte, name in OPCODES.items()
        if name in WRITTEN
        for operand in operands
        for ending in endings
    )
    assert assert_agrees_with_pickle(candidates) > 100


OPERATIONS = [
    *(b"N", short("a"), b"(", b")", b"\x85", b"t", b"]", b"a", b"e", b"}", b"s", b"u"),
    *(b"\x94", b"h\0"),
]


def test_every_program_of_up_to_four_operations_agrees_with_pickle() -> None:
    candidates = (
        framed(b"".join(program) + b".")
        for length in range(5)
        for program in itertools.product(OPERATIONS, repeat=length)
    )
    assert assert_agrees_with_pickle(candidates) > 150


def cut_into_operations(body: bytes) -> list[bytes]:
    ends = [position for _, _, position in pickletools.genops(body)]
    return [body[start:end] for start, end in itertools.pairwise([*ends, len(body)])]


def test_programs_with_operations_removed_repeated_and_swapped_agree_with_pickle() -> (
    None
):
    rng = random.Random(20)
    sources = [cut_into_operations(body_of(value))[:-1] for value in (HELLO, BEGIN)]

    def mutants() -> Iterator[bytes]:
        for _ in range(10_000):
            program = list(rng.choice(sources))
            for _ in range(rng.randint(1, 3)):
                i, j = rng.randrange(len(program)), rng.randrange(len(program))
                match rng.randrange(4):
                    case 0:
                        program[i], program[j] = program[j], program[i]
                    case 1:
                        del program[i]
                    case 2:
                        program.insert(j, program[i])
                    case _:
                        program[i] = rng.choice(OPERATIONS)
            yield framed(b"".join(program) + b".")

    assert assert_agrees_with_pickle(mutants()) > 500


@given(st.binary(max_size=60))
def test_random_bytes_raise_nothing_but_protocol_errors(data: bytes) -> None:
    for form in (data, framed(data), framed(data + b".")):
        outcome = "accepted"
        try:
            dumps(loads(form))
        except ProtocolError as error:
            outcome = str(error)
        assert outcome == "accepted" or outcome.startswith("pickled data: ")


def test_the_reference_reports_what_pickle_refuses() -> None:
    answers = reference_loads([dumps([1, "a"]), b"cos\nmkdir\n.", dumps(1) + b"x"])
    assert answers[0] == "list(int 1, str 'a')"
    assert answers[1].startswith("error: UnpicklingError")
    assert answers[2] == "error: trailing bytes"

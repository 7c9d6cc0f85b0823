import math
import re
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from utilities import frames
from utilities.errors import ProtocolError
from utilities.frames import (
    COPIED_BELOW,
    DTYPES,
    KNOWN_TAGS,
    MAX_TAG,
    Announced,
    Array,
    Form,
    FrameReader,
    array_form,
    array_frame,
    bytes_frame,
    frame,
    parse_array_tag,
    text_frame,
)


def array_bytes(array: Array) -> bytes:
    return b"".join(array_frame(array))


def read(reader: FrameReader) -> list[tuple[str, bytes]]:
    """Return tag and payload of each frame that is complete."""
    frames = []
    while (announced := reader.announced()) is not None:
        payload = reader.payload()
        if payload is None:
            break
        frames.append((announced.tag, bytes(payload)))
    return frames


def read_all(data: bytes) -> list[tuple[str, bytes]]:
    reader = FrameReader()
    reader.feed(data)
    return read(reader)


# One table, both ways.

MATRIX = np.array([[1, 2, 3], [4, 5, 2**64 - 1]], np.uint64)

TABLE: dict[str, tuple[bytes, str, tuple[str, bytes]]] = {
    "text": (
        text_frame("hé–"),
        "03000000 06000000 737472 68 c3a9 e28093",
        ("str", "hé–".encode()),
    ),
    "no text": (text_frame(""), "03000000 00000000 737472", ("str", b"")),
    "bytes": (
        bytes_frame(b"\x00\xff"),
        "05000000 02000000 6279746573 00ff",
        ("bytes", b"\x00\xff"),
    ),
    "no bytes": (bytes_frame(b""), "05000000 00000000 6279746573", ("bytes", b"")),
    "plain data": (
        b"".join(frame(b"pickle", b"\x80\x04N.")),
        "06000000 04000000 7069636b6c65 80044e2e",
        ("pickle", b"\x80\x04N."),
    ),
    "vector": (
        array_bytes(np.array([1.0, -2.0], np.float32)),
        "08000000 08000000 6e702e3c66343a32 0000803f 000000c0",
        ("np.<f4:2", struct.pack("<2f", 1, -2)),
    ),
    "matrix": (
        array_bytes(MATRIX),
        "0a000000 30000000 6e702e3c75383a322c33"
        "0100000000000000 0200000000000000 0300000000000000"
        "0400000000000000 0500000000000000 ffffffffffffffff",
        ("np.<u8:2,3", struct.pack("<6Q", 1, 2, 3, 4, 5, 2**64 - 1)),
    ),
    "small integers": (
        array_bytes(np.array([126, -126], np.int8)),
        "08000000 02000000 6e702e7c69313a32 7e82",
        ("np.|i1:2", b"\x7e\x82"),
    ),
    "empty vector": (
        array_bytes(np.zeros(0, np.uint16)),
        "08000000 00000000 6e702e3c75323a30",
        ("np.<u2:0", b""),
    ),
    "empty matrix": (
        array_bytes(np.zeros((0, 3), np.uint8)),
        "0a000000 00000000 6e702e7c75313a302c33",
        ("np.|u1:0,3", b""),
    ),
}
EACH = pytest.mark.parametrize(
    ("written", "hexadecimal", "expected"), TABLE.values(), ids=TABLE
)


@EACH
def test_frames_are_written_as_the_table_says(
    written: bytes, hexadecimal: str, expected: tuple[str, bytes]
) -> None:
    assert written == bytes.fromhex(hexadecimal)


@EACH
def test_frames_are_read_however_they_arrive(
    written: bytes, hexadecimal: str, expected: tuple[str, bytes]
) -> None:
    stream = bytes.fromhex(hexadecimal) + text_frame("next")
    both = [expected, ("str", b"next")]

    assert read_all(stream) == both
    for cut in range(len(stream) + 1):
        reader = FrameReader()
        reader.feed(stream[:cut])
        early = read(reader)
        reader.feed(stream[cut:])
        assert early + read(reader) == both
        assert len(early) == (cut >= len(written)) + (cut == len(stream))

    reader, found = FrameReader(), []
    for byte in stream:
        reader.feed(bytes([byte]))
        found += read(reader)
    assert found == both


@EACH
def test_a_truncated_frame_is_no_frame_and_no_error(
    written: bytes, hexadecimal: str, expected: tuple[str, bytes]
) -> None:
    for length in range(len(written)):
        assert read_all(written[:length]) == []


@given(st.text(), st.binary(), st.lists(st.integers(0, 60)))
def test_text_and_bytes_come_back_in_any_pieces(
    text: str, octets: bytes, cuts: list[int]
) -> None:
    stream = text_frame(text) + bytes_frame(octets)
    reader, found, start = FrameReader(), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        reader.feed(memoryview(stream)[start:cut])
        found += read(reader)
        start = max(start, cut)

    assert found == [("str", text.encode()), ("bytes", octets)]


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_any_bytes_can_be_fed_and_are_copied(
    form: type[bytes] | type[bytearray] | type[memoryview],
) -> None:
    source = bytearray(text_frame("first"))
    view = memoryview(source)
    reader = FrameReader()
    reader.feed(form(view[:13]))  # two bytes of the payload are pending
    assert reader.announced() == Announced("str", 5)
    reader.feed(form(view[13:]))
    source[:] = bytes(len(source))

    assert read(reader) == [("str", b"first")]


# Headers.


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**32 - 1])
def test_a_frame_is_announced_as_soon_as_its_tag_is_there(length: int) -> None:
    header = struct.pack("<II", 3, length) + b"str"
    reader = FrameReader()
    reader.feed(header[:-1])
    assert reader.announced() is None
    reader.feed(header[-1:])

    assert reader.announced() == Announced("str", length)


@pytest.mark.parametrize("length", [MAX_TAG + 1, 2**31, 2**32 - 1])
def test_a_tag_that_is_too_long_is_refused_before_it_arrives(length: int) -> None:
    reader = FrameReader()
    reader.feed(struct.pack("<II", length, 0))

    with pytest.raises(ProtocolError, match=f"tag of at most 64 bytes, got {length}$"):
        reader.announced()


@pytest.mark.parametrize("tag", [b"", b"a" * MAX_TAG, b"np.<f4:1 ~"])
def test_any_printable_tag_up_to_the_limit_is_announced(tag: bytes) -> None:
    assert read_all(b"".join(frame(tag, b"x"))) == [(tag.decode(), b"x")]


@pytest.mark.parametrize(
    "tag", [b"\xe4", b"str\n", b"\x1b[31m", b"\0", b"str\x7f", "é".encode()]
)
def test_a_tag_of_anything_but_printable_ascii_is_refused(tag: bytes) -> None:
    with pytest.raises(ProtocolError, match="expected a tag in ASCII, got b'"):
        read_all(b"".join(frame(tag, b"")))


def test_a_form_counts_numbers_and_bytes() -> None:
    assert array_form("np.<u8:5,3") == Form("<u8", (5, 3), 15, 120)
    assert array_form("np.|i1:7") == Form("|i1", (7,), 7, 7)


def test_no_peer_can_have_many_tags_remembered() -> None:
    for number in range(3 * KNOWN_TAGS):
        tag = f"np.<f4:{number}"
        assert read_all(b"".join(frame(tag.encode(), b""))) == [(tag, b"")]
        array_form(tag)

    for known in (frames._announced, parse_array_tag, array_form):
        assert known.cache_info().currsize <= KNOWN_TAGS


def test_nothing_is_allocated_on_the_word_of_a_header() -> None:
    reader = FrameReader()
    tracemalloc.start()
    try:
        reader.feed(struct.pack("<II", 5, 2**32 - 1) + b"bytes" + bytes(1000))
        assert read(reader) == []
        reader.feed(bytes(1000))
        assert read(reader) == []
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


def test_a_long_payload_is_held_once() -> None:
    size = 1 << 22
    chunk = bytes(1 << 16)
    reader = FrameReader()
    tracemalloc.start()
    try:
        reader.feed(struct.pack("<II", 5, size) + b"bytes")
        assert reader.announced() == Announced("bytes", size)
        for _ in range(size // len(chunk)):
            assert reader.payload() is None
            reader.feed(chunk)
        payload = reader.payload()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert payload is not None
    assert bytes(payload) == bytes(size)
    assert peak < 1.3 * size


def test_asking_for_a_payload_that_nobody_announced_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        FrameReader().payload()


# Arrays.


@pytest.mark.parametrize(
    "array",
    [
        MATRIX.astype(">u8"),
        np.asfortranarray(MATRIX),
        np.repeat(np.repeat(MATRIX, 2, axis=0), 3, axis=1)[::2, ::3],
        np.ascontiguousarray(MATRIX[::-1, ::-1])[::-1, ::-1],
        np.asfortranarray(MATRIX.astype(">u8")),
    ],
    ids=["big-endian", "Fortran order", "strided", "reversed", "both"],
)
def test_arrays_are_written_little_endian_in_c_order(array: Array) -> None:
    assert array_bytes(array) == bytes.fromhex(TABLE["matrix"][1])


@pytest.mark.parametrize(("size", "copied"), [(6, True), (COPIED_BELOW, False)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_large_arrays_of_every_listed_dtype_travel_without_a_copy(
    dtype: str, size: int, *, copied: bool
) -> None:
    array = np.resize(np.arange(6), size).astype(dtype)
    tag, payload = array_frame(array)

    assert bytes(tag[8:]) == f"np.{dtype}:{size}".encode()
    assert np.shares_memory(np.frombuffer(payload, np.uint8), array) is not copied
    assert bytes(payload) == array.tobytes()


def test_a_lone_number_travels_as_a_vector() -> None:
    assert array_bytes(np.array(2, np.uint8)) == array_bytes(np.array([2], np.uint8))


@pytest.mark.parametrize(
    "dtype",
    [
        *("object", "V4", "U3", "S3", "M8[s]", "m8[s]", "c8", "c16", "bool", "<f2"),
        *("f4,f4", "longdouble"),
    ],
)
def test_an_array_that_is_not_to_travel_is_our_own_mistake(dtype: str) -> None:
    with pytest.raises(AssertionError, match=r"^arrays of .* do not travel"):
        array_bytes(np.zeros(3, dtype))


# Tags of arrays.


@pytest.mark.parametrize(
    ("tag", "dtype", "shape"),
    [
        ("np.<f4:0", "<f4", (0,)),
        ("np.|i1:10", "|i1", (10,)),
        ("np.<u8:9999999999,9999999999", "<u8", (9999999999, 9999999999)),
        ("np.<f8:0,3", "<f8", (0, 3)),
    ],
)
def test_dtype_and_shape_are_read_from_a_tag(
    tag: str, dtype: str, shape: tuple[int, ...]
) -> None:
    assert parse_array_tag(tag) == (dtype, shape)


UNLISTED = [
    *("|O", "U1", "<U1", "|S1", "V4", "|V4", "<M8[s]", "<m8[s]", "<c8", "<c16"),
    *(
        ">f4",
        "=f4",
        "f4",
        "float32",
        "<f2",
        "|b1",
        "<f4,<f4",
        "[('a','<f4')]",
        "(2)<f4",
    ),
    *("", " <f4", "<f4 ", "<F4"),
]


@pytest.mark.parametrize(
    "tag",
    [
        *(f"np.{dtype}:1" for dtype in UNLISTED),
        *("", "str", "pickle", "np", "np.", "np:", "np:<f4.1", "NP.<f4:1", "npy.<f4:1"),
        *(" np.<f4:1", "np..<f4:1", "<f4:1"),
    ],
)
def test_a_tag_of_another_dtype_or_of_no_array_is_refused(tag: str) -> None:
    with pytest.raises(ProtocolError, match="expected an array of a listed dtype, got"):
        parse_array_tag(tag)


@pytest.mark.parametrize(
    "dimensions",
    [
        *("", ",", "3,", ",3", "1,2,3", "0,0,0", ",".join("1" * 20), "3:4", "3;4"),
        *("-1", "-0", "+3", "03", "00", "3.0", "3e0", "0x3", "1_0", " 3", "3 ", "(3)"),
        *("10000000000", "9" * 40, "-9999999999", "3,-1", "3,03", "None", "nan"),
        *("\u0663", "\u00b2", "\uff13"),  # digits, but not of ASCII
    ],
)
def test_a_tag_of_another_shape_is_refused(dimensions: str) -> None:
    with pytest.raises(ProtocolError, match="expected one or two dimensions, got 'np"):
        parse_array_tag(f"np.<f4:{dimensions}")


# Whatever arrives.

ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype, hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=5)
    )
)


@given(ARRAYS)
def test_arrays_come_back_to_the_bit(array: Array) -> None:
    [(tag, payload)] = read_all(array_bytes(array))
    dtype, shape = parse_array_tag(tag)

    assert (dtype, shape) == (array.dtype.str, array.shape)
    assert len(payload) == math.prod(shape) * array.itemsize
    assert payload == array.tobytes()


HEADERS = st.builds(struct.Struct("<II").pack, st.integers(0, 70), st.integers(0, 9))
PIECES = st.one_of(
    st.binary(max_size=30), HEADERS, st.builds(text_frame, st.text(max_size=5))
)


@given(st.lists(PIECES))
def test_random_bytes_give_frames_or_a_protocol_error(chunks: list[bytes]) -> None:
    reader, found, fault = FrameReader(), [], "frame: expected a tag"
    try:
        for chunk in chunks:
            reader.feed(chunk)
            found += read(reader)
    except ProtocolError as error:
        fault = str(error)

    assert fault.startswith("frame: expected a tag")
    again = [b"".join(frame(tag.encode(), payload)) for tag, payload in found]
    assert b"".join(chunks).startswith(b"".join(again))


@given(st.from_regex(r"[-+0-9, ]{0,14}", fullmatch=True))
@example("0,9999999999")
@example("1,10000000000")
def test_a_shape_is_taken_exactly_when_it_is_spelled_as_we_spell_it(text: str) -> None:
    number = "(0|[1-9][0-9]{0,9})"
    spelled = re.fullmatch(f"{number}(,{number})?", text) is not None
    try:
        _, shape = parse_array_tag(f"np.<f4:{text}")
        taken = ",".join(map(str, shape)) == text
    except ProtocolError:
        taken = False

    assert taken == spelled

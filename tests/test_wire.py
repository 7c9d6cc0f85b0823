"""Messages as bytes: written, read however they arrive, refused, in order."""

import itertools
import pickle
import re
import struct
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.messages import (
    FLOATS,
    MESSAGES,
    SAMPLES,
    SEGMENTS,
    ZEROS,
    comparable,
    exact_bytes,
    opening_of,
    sender_of,
)
from tests.pickle_child import canonical, reference_loads
from tests.slow_protocol import (
    ARRAYS,
    DTYPES,
    FIELDS,
    OF_EVERY_TYPE,
    RULES,
    Transcript,
    before,
    framed,
    frames_in,
    head_of,
    most_rows,
    size_of,
    tag_of,
    transcript,
    transcripts,
    with_head,
)
from utilities import wire
from utilities.config import MAX_PARAMETERS
from utilities.errors import ProtocolError
from utilities.evolution import Segment
from utilities.plaindata import MAX_BYTES
from utilities.protocol import (
    KIND_OF,
    SPECS,
    Begin,
    Message,
    Result,
    State,
    Sum,
    TokenBatch,
)
from utilities.wire import JOIN_BELOW, KNOWN_HEADS, LEGAL, Inbox, Phase, Side, encode

LITTLE = 100_000  # bytes; the tests' own objects take a part of it

EACH_KIND = pytest.mark.parametrize("kind", ARRAYS)
EACH_ARRAY = pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in ARRAYS.items() for name in names]
)


def inbox_for(kind: str, parameters: int = MAX_PARAMETERS) -> Inbox:
    """Return an inbox in the first phase in which a kind is legal."""
    inbox = Inbox(sender_of(kind), parameters)
    receive(inbox, opening_of(kind))
    return inbox


def receive(inbox: Inbox, data: bytes) -> list[Message]:
    inbox.feed(data)
    return list(inbox.messages())


def same(found: Sequence[Message], expected: Sequence[Message]) -> bool:
    return [*map(comparable, found)] == [*map(comparable, expected)]


def assert_refused(inbox: Inbox, data: bytes, reason: str) -> None:
    """Hold that bytes are refused, at little cost, and that the inbox stays closed."""
    tracemalloc.start()
    try:
        inbox.feed(data)
        with pytest.raises(ProtocolError) as caught:
            list(inbox.messages())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert re.search(reason, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert peak < LITTLE
    for more in (b"", b"\0", *map(exact_bytes, SAMPLES)):
        assert receive(inbox, more) == []


def assert_lie_refused(
    kind: str, name: str, tag: str, length: int, reason: str
) -> None:
    """Hold that the header alone of one of a message's arrays is refused."""
    header = framed(tag, b"", length)
    assert_refused(inbox_for(kind), before(kind, name) + header, reason)


# One table, both ways.


@EACH_KIND
def test_messages_are_written_as_the_table_says(kind: str) -> None:
    assert b"".join(encode(SAMPLES[kind])) == exact_bytes(kind)


@EACH_KIND
def test_messages_are_read_however_they_arrive(kind: str) -> None:
    stream = exact_bytes(kind) + exact_bytes("goodbye")
    both = [SAMPLES[kind], SAMPLES["goodbye"]]

    assert same(receive(inbox_for(kind), exact_bytes(kind)), both[:1])
    assert same(receive(inbox_for(kind), stream), both)
    for cut in range(len(stream) + 1):
        inbox = inbox_for(kind)
        early = receive(inbox, stream[:cut])
        assert len(early) == (cut >= len(exact_bytes(kind))) + (cut == len(stream))
        assert same(early + receive(inbox, stream[cut:]), both)

    inbox = inbox_for(kind)
    single = [receive(inbox, bytes([byte])) for byte in stream]
    assert same([*itertools.chain.from_iterable(single)], both)


@EACH_KIND
def test_a_truncated_message_is_no_message_and_no_error(kind: str) -> None:
    data = exact_bytes(kind)
    for length in range(len(data)):
        assert receive(inbox_for(kind), data[:length]) == []


def test_arrays_that_were_read_cannot_be_changed_by_accident() -> None:
    [state] = receive(inbox_for("state"), exact_bytes("state"))
    assert isinstance(state, State)
    with pytest.raises(ValueError, match="read-only"):
        state.weights[0] = 1


def test_a_reader_that_stops_early_finds_the_other_messages_later() -> None:
    inbox = Inbox(Side.CLIENT)
    inbox.feed(exact_bytes("hello") + exact_bytes("state") + exact_bytes("goodbye"))
    first = next(inbox.messages())

    assert same([first], [SAMPLES["hello"]])
    assert same([*inbox.messages()], [SAMPLES["state"], SAMPLES["goodbye"]])


def test_messages_before_an_error_are_still_delivered() -> None:
    inbox = Inbox(Side.CLIENT)
    inbox.feed(exact_bytes("hello") + exact_bytes("state") + exact_bytes("begin"))
    messages = inbox.messages()

    assert same([next(messages), next(messages)], [SAMPLES["hello"], SAMPLES["state"]])
    with pytest.raises(ProtocolError, match="got 'begin'"):
        next(messages)
    assert receive(inbox, exact_bytes("state")) == []


def test_a_closed_inbox_holds_nothing() -> None:
    large = np.zeros(1 << 18, np.float32)
    stream = b"".join(encode(State(1, 2, large, large, large)))
    end = len(stream) - large.nbytes
    for fault in (framed("str", b""), b"\xff" * large.nbytes):
        inbox = inbox_for("state")
        tracemalloc.start()
        try:
            inbox.feed(stream[:end])
            assert list(inbox.messages()) == []
            assert tracemalloc.get_traced_memory()[0] > 2 * large.nbytes
            inbox.feed(bytes(large.nbytes) + fault)
            with pytest.raises(ProtocolError):
                list(inbox.messages())
            assert receive(inbox, stream) == []
            assert tracemalloc.get_traced_memory()[0] < LITTLE
        finally:
            tracemalloc.stop()


# Against an independent reader and the standard unpickler.


def changes_of_one_byte(data: bytes) -> Iterator[bytes]:
    """Yield all changes of one byte; of long data all bit flips and 16 others each."""
    for position, original in enumerate(data):
        flips = {original ^ (1 << bit) for bit in range(8)}
        others = range(256) if len(data) < 120 else range(position * 7 % 16, 256, 16)
        for value in sorted({*flips, *others} - {original}):
            yield data[:position] + bytes([value]) + data[position + 1 :]


@EACH_KIND
def test_any_change_of_one_byte_is_refused_or_read_as_a_slow_reader_reads_it(
    kind: str,
) -> None:
    accepted: list[tuple[bytes, list[Transcript]]] = []
    for candidate in changes_of_one_byte(exact_bytes(kind)):
        try:
            messages = receive(inbox_for(kind), candidate)
        except ProtocolError:
            continue
        accepted.append((candidate, [*map(transcript, messages)]))
    frames = [frames_in(candidate) for candidate, _ in accepted]
    pickles = [payload for each in frames for tag, payload in each if tag == "pickle"]
    heads = iter(reference_loads(pickles))

    for (candidate, ours), each in zip(accepted, frames, strict=True):
        assert ours == transcripts(each, heads), candidate.hex()
    assert sum(bool(ours) for _, ours in accepted) > 50
    assert all(len(ours) <= 1 for _, ours in accepted)


# Lengths that lie. The header alone must do: nothing follows it in these tests.


@pytest.mark.parametrize(
    ("tag_length", "length", "tag", "reason"),
    [
        (2**31, 0, b"", "tag of at most 64 bytes, got 2147483648"),
        (2**32 - 1, 2**32 - 1, b"", "tag of at most 64 bytes, got 4294967295"),
        (65, 0, b"", "tag of at most 64 bytes, got 65"),
        (6, 2**31, b"pickle", "at most 60000 bytes, got 'pickle' of 2147483648"),
        (6, 2**32 - 1, b"pickle", "got 'pickle' of 4294967295"),
        (6, MAX_BYTES + 1, b"pickle", "got 'pickle' of 60001"),
        (6, 0, b"pickle", "starts with bytes none"),
        (6, 4, b"Pickle", "expected a pickle .* got 'Pickle' of 4"),
        (6, 4, b"pickl\xe9", "expected a tag in ASCII"),
        (3, 4, b"str", "expected a pickle .* got 'str' of 4"),
        (5, 2**32 - 1, b"bytes", "got 'bytes' of 4294967295"),
        (8, 4, b"np.<f4:1", "expected a pickle .* got 'np.<f4:1' of 4"),
        (0, 0, b"", "got '' of 0"),
    ],
)
@pytest.mark.parametrize("kind", ["hello", "welcome", "state"])
def test_a_message_must_begin_with_a_pickle_of_bounded_length(
    kind: str, tag_length: int, length: int, tag: bytes, reason: str
) -> None:
    header = struct.pack("<II", tag_length, length) + tag
    assert_refused(inbox_for(kind), header, reason)


def test_a_pickle_of_the_greatest_length_is_waited_for() -> None:
    assert receive(inbox_for("hello"), framed("pickle", b"\x80", MAX_BYTES)) == []


def tags_that_lie(kind: str, name: str) -> Iterator[str]:
    """Yield tags of more numbers than may be, and of other shapes and dtypes."""
    most = most_rows(kind, name)
    others = ["3,1", "1,4", "0,0", "0,2", "65536,65536", "4294967296,4294967296"]
    others += ["1", "0", "2147483648"] if name == "segments" else ["1,3", "0,3"]
    for dtype in DTYPES[name]:
        for rows in (most + 1, 2**30 + 1, 2**31, 2**32 - 1, 2**32, 9999999999):
            yield tag_of(dtype, name, rows)
        for dimensions in others:
            yield f"np.{dtype}:{dimensions}"
    for dtype in {"<f4", "<f8", "<u8", "<i8", "<i4", "<i2", "<u4", "<u2", "|u1", "|i1"}:
        if dtype not in DTYPES[name]:
            yield tag_of(dtype, name, 1)


@EACH_ARRAY
def test_an_array_of_another_size_shape_or_dtype_is_refused_at_its_header(
    kind: str, name: str
) -> None:
    for tag in tags_that_lie(kind, name):
        length = size_of(tag) % 2**32  # what a product in 32 bits takes for right
        reason = re.escape(f"{kind}.{name}: expected {' or '.join(DTYPES[name])}, at ")
        assert_lie_refused(kind, name, tag, length, reason)


@EACH_ARRAY
def test_a_tag_that_is_not_one_of_ours_is_refused_at_its_header(
    kind: str, name: str
) -> None:
    dtype = DTYPES[name][0]
    for dimensions in (
        *("", ",", "-1", "-1,3", "03", "003", "+3", "3,", ",3", "1,1,1", "0,0,0"),
        *("10000000000", "10000000000,3", "1,-3", "3.0", "0x3", " 3", "1_0"),
    ):
        reason = "expected one or two dimensions, got 'np"
        assert_lie_refused(kind, name, f"np.{dtype}:{dimensions}", 24, reason)
    for tag in (
        *("np.|O:3", "np.<U1:3", "np.|V4:3", "np.<M8[s]:3", "np.<c8:3", "np.>f4:3"),
        *("np.f4:3", "np.<f4,<f4:3", "np.[('a','<f4')]:3", "np.:3", "str", "pickle"),
        *("", "bytes", "np", "np.<f2:3", "np.=f4:3"),
    ):
        reason = "expected an array of a listed dtype, got "
        assert_lie_refused(kind, name, tag, 24, reason)


@EACH_ARRAY
def test_a_length_other_than_the_tag_takes_is_refused_at_the_header(
    kind: str, name: str
) -> None:
    for dtype, rows in itertools.product(DTYPES[name], (0, 3)):
        tag = tag_of(dtype, name, rows)
        size = size_of(tag)
        for length in {0, abs(size - 1), size + 1, 2 * size, 2**31, 2**32 - 1} - {size}:
            reason = f"{kind}.{name}: '.*' does not take {length} bytes$"
            assert_lie_refused(kind, name, tag, length, reason)


@EACH_ARRAY
def test_the_greatest_array_is_waited_for_without_allocating_it(
    kind: str, name: str
) -> None:
    for dtype in DTYPES[name]:
        tag = tag_of(dtype, name, most_rows(kind, name))
        start = before(kind, name) + framed(tag, bytes(500), size_of(tag))
        inbox = inbox_for(kind)
        tracemalloc.start()
        try:
            assert receive(inbox, start) == []
            assert receive(inbox, bytes(500)) == []
            assert tracemalloc.get_traced_memory()[1] < LITTLE
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("kind", ["welcome", "state"])
@pytest.mark.parametrize("name", ["weights", "first", "second", "average"])
def test_no_state_may_be_larger_than_the_model(kind: str, name: str) -> None:
    fitting = receive(inbox_for(kind, parameters=3), exact_bytes(kind))
    assert same(fitting, [SAMPLES[kind]])
    longer = before(kind, name) + framed("np.<f4:4", b"", 16)
    reason = f"{kind}.{name}: expected <f4, at most 3 numbers, got 'np.<f4:4'"
    assert_refused(inbox_for(kind, parameters=3), longer, reason)


@pytest.mark.parametrize("kind", ["update", "sum"])
@pytest.mark.parametrize("dtype", ["<i2", "<i4", "<i8"])
def test_no_total_may_be_larger_than_the_model(kind: str, dtype: str) -> None:
    message: Any = SAMPLES[kind]
    for length in (0, 1, 3):
        fitting = replace(message, total=np.arange(length).astype(dtype))
        inbox = inbox_for(kind, parameters=3)
        assert same(receive(inbox, b"".join(encode(fitting))), [fitting])
    longer = before(kind, "total") + framed(f"np.{dtype}:4", b"", 4 * int(dtype[2]))
    expected = "<i2 or <i4 or <i8, at most 3 numbers"
    reason = f"{kind}.total: expected {expected}, got 'np.{dtype}:4'"
    assert_refused(inbox_for(kind, parameters=3), longer, reason)


@pytest.mark.parametrize(
    "total", [[2**31 - 1, -(2**31), 0], [2**63 - 1, -(2**63), 2**31]]
)
def test_totals_arrive_to_the_last_bit(total: list[int]) -> None:
    dtype = np.int32 if max(total) < 2**31 else np.int64
    message = Sum(5, 0.5, np.array(total, dtype))

    [read] = receive(inbox_for("sum"), b"".join(encode(message)))

    assert isinstance(read, Sum)
    assert (read.total.dtype, read.total.tolist()) == (np.dtype(dtype), total)


@pytest.mark.parametrize("kind", ["tokens", "begin", "result", "update", "shares"])
def test_the_size_of_the_model_limits_no_other_arrays(kind: str) -> None:
    inbox = Inbox(sender_of(kind), parameters=1)
    receive(inbox, exact_bytes("hello" if kind == "result" else "goodbye"))

    assert same(receive(inbox, exact_bytes(kind)), [SAMPLES[kind]])


@pytest.mark.parametrize("kind", ["welcome", "state"])
@pytest.mark.parametrize("name", ["weights", "first", "second"])
@pytest.mark.parametrize("length", [0, 2, 4])
def test_weights_and_moments_of_different_lengths_are_refused(
    kind: str, name: str, length: int
) -> None:
    message: Any = SAMPLES[kind]
    other = replace(message, **{name: np.zeros(length, np.float32)})
    reason = f"^{kind}: weights, moments and mean differ in length"
    assert_refused(inbox_for(kind), b"".join(encode(other)), reason)


@pytest.mark.parametrize("kind", ["welcome", "state"])
def test_a_mean_is_as_long_as_the_weights_or_missing(kind: str) -> None:
    message: Any = SAMPLES[kind]
    for length in (0, 3):
        fitting = replace(message, average=np.ones(length, np.float32))
        assert same(receive(inbox_for(kind), b"".join(encode(fitting))), [fitting])
    for length in (1, 2, 4):
        other = replace(message, average=np.ones(length, np.float32))
        reason = f"^{kind}: weights, moments and mean differ in length"
        assert_refused(inbox_for(kind), b"".join(encode(other)), reason)


# Who may send what when.

HERE_LEGAL = {
    ("client", "opening"): {"hello"},
    ("client", "joined"): {"state", "result", "sum", "recalled", "goodbye"},
    ("server", "opening"): {"welcome", "resume", "recall", "goodbye"},
    ("server", "joined"): {
        *("welcome", "resume", "tokens", "begin", "shares", "update", "goodbye"),
    },
}
OPENINGS = {
    "client": ("hello",),
    "server": ("welcome", "resume", "recall", "goodbye"),
}


@EACH_KIND
@pytest.mark.parametrize(("side", "phase"), HERE_LEGAL)
def test_each_kind_is_read_only_from_its_side_in_its_phase(
    side: str, phase: str, kind: str
) -> None:
    for opening in OPENINGS[side] if phase == "joined" else [None]:
        inbox = Inbox(Side(side))
        if opening is not None:
            receive(inbox, exact_bytes(opening))
        if kind in HERE_LEGAL[side, phase]:
            assert same(receive(inbox, exact_bytes(kind)), [SAMPLES[kind]])
            continue
        expected = " or ".join(sorted(HERE_LEGAL[side, phase]))
        reason = f"^message: expected {expected}, got '{kind}'$"
        assert_refused(inbox, exact_bytes(kind), reason)


def test_the_table_of_legal_messages_is_complete() -> None:
    assert {(side.value, phase.value): {*k} for (side, phase), k in LEGAL.items()} == (
        HERE_LEGAL
    )
    assert {*Phase} == {Phase.OPENING, Phase.JOINED, Phase.FAILED}
    assert set().union(*LEGAL.values()) == set(SPECS)


@pytest.mark.parametrize(
    "head",
    [
        *(None, True, 5, 1.5, "hello", b"hello", [], (), ["kind", "hello"], {}),
        *({"Kind": "hello"}, {"kind": None}, {"kind": 1}, {"kind": b"hello"}),
        *({"kind": ["hello"]}, {"kind": ("hello",)}, {"kind": {"hello": 1}}),
        *({"kind": ""}, {"kind": "Hello"}, {"kind": "hello "}, {"kind": "nothing"}),
        {"kind": "hello\n" * 1000},
    ],
    ids=lambda head: repr(head)[:30],
)
def test_what_has_no_known_kind_is_refused(head: object) -> None:
    data = framed("pickle", pickle.dumps(head, protocol=4))
    assert_refused(Inbox(Side.CLIENT), data, r"^message: expected hello, got ")


# Fields.

EACH_FIELD = pytest.mark.parametrize(
    ("kind", "key"), [(kind, key) for kind, keys in FIELDS.items() for key in keys]
)


@EACH_FIELD
def test_legal_values_of_a_field_arrive_as_they_are(kind: str, key: str) -> None:
    _, legal, _ = RULES[FIELDS[kind][key]]
    for value in legal:
        data = with_head(kind, head_of(kind) | {key: value})
        [message] = receive(inbox_for(kind), data)
        head, _ = transcript(message)
        assert head == canonical(head_of(kind) | {key: value})


@EACH_FIELD
def test_illegal_values_of_a_field_are_refused_by_name(kind: str, key: str) -> None:
    types, _, illegal = RULES[FIELDS[kind][key]]
    others = [value for value in OF_EVERY_TYPE if type(value) not in types]
    for value in [*illegal, *others]:
        data = with_head(kind, head_of(kind) | {key: value})
        reason = f"^{kind}\\.{key}: not acceptable: "
        assert_refused(inbox_for(kind), data, reason)


@EACH_FIELD
def test_a_missing_field_is_refused(kind: str, key: str) -> None:
    head = head_of(kind)
    del head[key]
    reason = f"^{kind}: expected fields .*{key}.*, got \\['kind'"
    assert_refused(inbox_for(kind), with_head(kind, head), reason)


@EACH_KIND
@pytest.mark.parametrize(
    "extra", ["more", "", "Kind", "__class__", "\x1b[2J", "x" * 999]
)
def test_a_field_too_many_is_refused(kind: str, extra: str) -> None:
    reason = f"^{kind}: expected fields "
    data = with_head(kind, head_of(kind) | {extra: 1})
    assert_refused(inbox_for(kind), data, reason)


def test_fields_are_spelled_in_one_way_only() -> None:
    head = head_of("begin")
    head["time_per_step"] = head.pop("timePerStep")
    data = with_head("begin", head)
    assert_refused(inbox_for("begin"), data, r"fields step, timePerStep, .*, got \[")


def test_arrays_of_a_message_do_not_travel_among_its_fields() -> None:
    head = head_of("begin") | {"segments": [(1, 0, 1)]}
    assert_refused(inbox_for("begin"), with_head("begin", head), "expected fields")


@pytest.mark.parametrize("kind", ["begin", "result", "update", "shares"])
@pytest.mark.parametrize(
    "row",
    [(0, 0, 0), (0, 2**48, 1), (0, 0, 2**24 + 1), (1, 2**64 - 1, 1), (1, 1, 2**64 - 1)],
)
def test_segments_out_of_range_are_refused(
    kind: str, row: tuple[int, int, int]
) -> None:
    message: Any = SAMPLES[kind]
    illegal = replace(message, segments=(*SEGMENTS, Segment(*row)))
    reason = f"^{kind}\\.segments: not acceptable: Segment\\(seed={row[0]}, first="
    assert_refused(inbox_for(kind), b"".join(encode(illegal)), reason)


@pytest.mark.parametrize(
    "segments",
    [(), (Segment(0, 0, 1),), (Segment(2**64 - 1, 2**48 - 1, 2**24),) * 3],
)
def test_segments_at_their_limits_arrive(segments: tuple[Segment, ...]) -> None:
    begin = Begin(0, 0.0, 0, False, segments)
    assert same(receive(inbox_for("begin"), b"".join(encode(begin))), [begin])


# Writing.


def test_equal_fields_of_other_types_are_not_taken_for_each_other() -> None:
    begins = [Begin(1, 1.0, 0, wanted, ()) for wanted in (True, False, True)]
    one: Any = 1
    odd = [Begin(1, one, 0, one, ()), Begin(True, 1.0, False, True, ())]

    every = [b"".join(encode(begin)) for begin in (*begins, *odd)]

    once, other, again, *others = every

    assert once == again
    assert len({once, other, *others}) == 4


def test_no_heads_but_the_newest_are_remembered() -> None:
    for step in range(3 * KNOWN_HEADS):
        (_, head), _ = frames_in(b"".join(encode(Begin(step, 1.0, 0, False, ()))))
        assert pickle.loads(head)["step"] == step

    assert wire._known_head.cache_info().currsize <= KNOWN_HEADS


def test_small_parts_leave_in_one_buffer() -> None:
    for kind, message in SAMPLES.items():
        assert encode(message) == [exact_bytes(kind)]


@pytest.mark.parametrize("first", [0.0, -0.0])
def test_a_zero_keeps_its_sign_whichever_was_written_before(first: float) -> None:
    for seconds in (first, -first):
        message = Begin(5, seconds, 2, True, SEGMENTS)
        [read] = receive(inbox_for("begin"), b"".join(encode(message)))
        assert same([read], [message])


def test_large_arrays_leave_without_a_copy() -> None:
    large = np.arange(JOIN_BELOW // 4, dtype=np.float32)
    small = large[:-1]
    parts = encode(State(1, 2, large, large, large, large))
    assert [len(part) for part in parts[1::2]] == [JOIN_BELOW] * 4
    for part in parts[1::2]:
        assert np.shares_memory(np.frombuffer(part, np.uint8), large)
    assert len(parts) == 8

    assert len(encode(State(1, 2, small, small, small))) == 1
    head, middle, tail = encode(Result(1, bytes(32), 0.0, 0.0, None, (), large, ZEROS))
    assert np.shares_memory(np.frombuffer(middle, np.uint8), large)
    assert len(head) < 300
    assert bytes(tail) == framed("np.<f4:3", bytes(12))


def test_buffers_of_a_large_message_are_its_bytes_in_order() -> None:
    large = np.arange(JOIN_BELOW, dtype=np.float32)
    for message in (
        State(1, 2, large, large + 1, large + 2),
        Result(1, bytes(32), 0.0, 0.0, None, SEGMENTS, large, ZEROS),
        TokenBatch(3, large.astype(np.uint16)),
    ):
        inbox = inbox_for(KIND_OF[type(message)])
        for part in encode(message):
            inbox.feed(part)
        assert same([*inbox.messages()], [message])


@pytest.mark.parametrize(
    "weights",
    [FLOATS.astype(">f4"), np.repeat(FLOATS, 2)[::2], FLOATS[::-1].copy()[::-1]],
    ids=["big-endian", "strided", "reversed"],
)
def test_arrays_in_another_order_are_written_alike(weights: Any) -> None:
    state: Any = SAMPLES["state"]
    assert encode(replace(state, weights=weights)) == [exact_bytes("state")]


@pytest.mark.parametrize(
    "dtype", ["f2", "c8", "bool", "object", "m8[s]", "M8[s]", "f4,f4"]
)
def test_an_array_of_another_dtype_is_our_own_mistake(dtype: str) -> None:
    state: Any = SAMPLES["state"]
    with pytest.raises(AssertionError, match="do not travel"):
        encode(replace(state, weights=np.zeros(3, dtype)))


def test_a_field_that_is_no_plain_data_is_our_own_mistake() -> None:
    begin: Any = SAMPLES["begin"]
    with pytest.raises(TypeError, match=r"value\['timePerStep'\] is numpy\.float64"):
        encode(replace(begin, time_per_step=np.float64(1)))


def test_a_configuration_may_be_any_mapping() -> None:
    welcome: Any = SAMPLES["welcome"]
    proxy = MappingProxyType(dict(welcome.config))
    assert encode(replace(welcome, config=proxy)) == [exact_bytes("welcome")]


# Whatever arrives.


@given(MESSAGES)
@settings(max_examples=300, deadline=None)
def test_every_message_comes_back_to_the_bit(message: Message) -> None:
    inbox = inbox_for(KIND_OF[type(message)])
    assert same(receive(inbox, b"".join(encode(message))), [message])


FRAMES = [framed(*f) for kind in SAMPLES for f in frames_in(exact_bytes(kind))]
ARRIVING = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(FRAMES),
    st.sampled_from([exact_bytes(kind) for kind in SAMPLES]),
    st.tuples(st.sampled_from(FRAMES), st.integers(0, 99)).map(lambda p: p[0][p[1] :]),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3).map(
        lambda head: framed("pickle", pickle.dumps(head, protocol=4))
    ),
    st.builds(framed, st.text(max_size=9), st.binary(max_size=9)),
)


@given(st.sampled_from(Side), st.booleans(), st.lists(ARRIVING, max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_messages_or_a_protocol_error_and_then_nothing(
    side: Side, joined: bool, chunks: list[bytes]
) -> None:
    inbox, found, failed = Inbox(side), [], False
    if joined:
        receive(inbox, exact_bytes("hello" if side is Side.CLIENT else "welcome"))
    for chunk in chunks:
        inbox.feed(chunk)
        try:
            messages = list(inbox.messages())
        except ProtocolError:
            assert not failed
            failed = True
            continue
        assert not (failed and messages)
        found += messages

    again = b"".join(b"".join(encode(message)) for message in found)
    assert b"".join(chunks).startswith(again) or failed

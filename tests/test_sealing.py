"""Records whose tags say where they come from, and that none is missing."""

import hashlib
import hmac
import random
import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilities.errors import ProtocolError
from utilities.sealing import MOST, TAG, Opener, Sealer, bundled

KEY = bytes(range(32))


def sealed(*parts: bytes, key: bytes = KEY) -> bytes:
    return b"".join(Sealer(key).seal(bundled(parts)))


def opened(data: bytes, key: bytes = KEY) -> bytes:
    opener = Opener(key)
    whole = b"".join(bytes(piece) for piece in opener.open(data))
    assert not opener.unfinished
    return whole


def records(*contents: bytes, key: bytes = KEY) -> list[bytes]:
    """Return one record for each of the contents, in one direction."""
    sealer = Sealer(key)
    return [b"".join(sealer.seal(bundled([content]))) for content in contents]


def test_a_record_is_what_anybody_computes_from_the_description() -> None:
    first, second = records(b"abc", b"de")

    def tag(counter: int, data: bytes) -> bytes:
        signed = struct.pack("<QI", counter, len(data)) + hashlib.sha256(data).digest()
        return hmac.new(KEY, signed, "sha256").digest()[:16]

    assert first == b"\3\0\0\0abc" + tag(0, b"abc")
    assert second == b"\2\0\0\0de" + tag(1, b"de")


@given(
    st.lists(st.binary(max_size=300), max_size=8),
    st.lists(st.integers(0, 3000), max_size=20),
)
def test_what_is_sealed_opens_however_it_is_cut(
    parts: list[bytes], cuts: list[int]
) -> None:
    data = sealed(*parts)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    opener, found = Opener(KEY), b""
    for start, end in pairwise(edges):
        found += b"".join(bytes(p) for p in opener.open(data[start:end]))

    assert found == b"".join(parts)
    assert not opener.unfinished


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([0], []),
        ([1], [1]),
        ([MOST], [MOST]),
        ([MOST + 1], [MOST, 1]),
        ([MOST - 1, 2], [MOST, 1]),
        ([10, 0, 20], [30]),
        ([3 * MOST + 5, MOST], [MOST, MOST, MOST, MOST, 5]),
    ],
)
def test_bytes_are_cut_into_records_of_bounded_size(
    sizes: list[int], expected: list[int]
) -> None:
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]
    bundles = bundled(parts)

    assert [bundle.size for bundle in bundles] == expected
    assert opened(sealed(*parts)) == b"".join(parts)


def test_what_goes_to_many_is_neither_copied_nor_hashed_again() -> None:
    array = np.arange(1 << 20, dtype=np.uint8)
    bundles = bundled([array.data])
    sealers = [Sealer(bytes([n]) * 32) for n in range(3)]
    streams = [list(sealer.seal(bundles)) for sealer in sealers]

    shared = [part for part in streams[0] if len(part) > TAG]
    assert len(shared) == (1 << 20) // MOST
    for stream in streams:
        for ours, theirs in zip(
            shared, (p for p in stream if len(p) > TAG), strict=True
        ):
            assert ours is theirs
            assert isinstance(ours, memoryview)
            assert np.shares_memory(np.frombuffer(ours, np.uint8), array)
    tags = [[bytes(p) for p in stream if len(p) == TAG] for stream in streams]
    assert len({tag for each in tags for tag in each}) == 3 * len(shared)


def test_a_record_that_is_there_as_a_whole_is_not_copied() -> None:
    data = bytearray(sealed(b"x" * 1000))
    (piece,) = Opener(KEY).open(data)

    data[4] = ord("y")
    assert piece[0] == ord("y")


FIRST, SECOND, THIRD = records(b"first", b"second", b"third")


@pytest.mark.parametrize(
    ("stream", "good"),
    [
        ([SECOND], 0),
        ([FIRST, THIRD], 1),
        ([FIRST, FIRST], 1),
        ([FIRST, SECOND, SECOND], 2),
        ([FIRST, THIRD, SECOND], 1),
        (records(b"first", key=b"k" * 32), 0),
    ],
    ids=["begun late", "left out", "repeated", "repeated later", "moved", "stranger's"],
)
def test_what_is_not_the_next_record_of_this_direction_is_refused(
    stream: list[bytes], good: int
) -> None:
    pieces = Opener(KEY).open(b"".join(stream))
    assert [bytes(next(pieces)) for _ in range(good)] == [b"first", b"second"][:good]
    with pytest.raises(ProtocolError, match=rf"^record {good}: its tag is wrong"):
        next(pieces)


def test_every_flipped_bit_is_found() -> None:
    data = sealed(b"some data of a record")
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        opener = Opener(KEY)
        try:
            pieces = [bytes(piece) for piece in opener.open(changed)]
        except ProtocolError:
            continue
        # A length that has grown: it waits for what will never have that tag.
        assert pieces == []
        assert opener.unfinished
        assert place < 32


def test_ten_thousand_streams_that_were_tampered_with_give_nothing_wrong() -> None:
    chance, contents = random.Random(4), [bytes([n]) * (5 * n + 1) for n in range(8)]
    honest = records(*contents)
    refused = 0
    for _ in range(10_000):
        stream = list(honest)
        match chance.randrange(4):
            case 0:
                del stream[chance.randrange(7)]
            case 1:
                stream.insert(chance.randrange(8), chance.choice(honest))
            case 2:
                here, there = chance.sample(range(8), 2)
                stream[here], stream[there] = stream[there], stream[here]
            case _:
                place = chance.randrange(8)
                record = bytearray(stream[place])
                record[chance.randrange(len(record))] ^= chance.randrange(1, 256)
                stream[place] = bytes(record)
        opener, found = Opener(KEY), []
        try:
            for piece in opener.open(b"".join(stream)):
                found.append(bytes(piece))
            ended = opener.unfinished
        except ProtocolError:
            ended = True
        refused += ended
        assert found == contents[: len(found)], "only what was said, in order"
        assert ended or stream == honest or found == contents

    assert refused > 9_000


@pytest.mark.parametrize("length", [0, MOST + 1, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("step", [1, 4, 100])
def test_a_length_that_no_record_has_is_refused_before_anything_is_held(
    length: int, step: int
) -> None:
    opener = Opener(KEY)
    data = struct.pack("<I", length) + bytes(100)
    pieces = (
        piece
        for start in range(0, len(data), step)
        for piece in opener.open(data[start : start + step])
    )
    with pytest.raises(ProtocolError, match=f"1 to {MOST} bytes, got {length}"):
        next(pieces)


def held(opener: Opener) -> int:
    return len(opener._pending)


def test_no_more_than_one_unfinished_record_is_held() -> None:
    data = sealed(bytes(3 * MOST))
    opener, most = Opener(KEY), 0
    for start in range(0, len(data), 1000):
        list(opener.open(data[start : start + 1000]))
        most = max(most, held(opener))

    assert 0 < most <= 4 + MOST + TAG
    assert held(opener) == 0


def test_nothing_of_a_record_is_given_out_before_its_tag_is_there() -> None:
    data = sealed(b"x" * 500)
    opener = Opener(KEY)
    for byte in data[:-1]:
        assert list(opener.open(bytes([byte]))) == []
        assert opener.unfinished

    assert [bytes(p) for p in opener.open(data[-1:])] == [b"x" * 500]


def test_bundles_do_not_show_what_they_carry() -> None:
    (bundle,) = bundled([b"private words"])
    assert "private" not in repr(bundle)

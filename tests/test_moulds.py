"""What is taken from a mould is what the machine would have made of it."""

import pickle
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from utilities import moulds, plaindata
from utilities.errors import ProtocolError

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 40), 1 << 40),
    st.integers(0, 300),
    st.floats(),
    st.binary(max_size=40),
    st.text(max_size=5),
)
HEADS = st.dictionaries(st.text(max_size=5), SCALARS, max_size=6)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> dict[int, moulds.Mould]:
    """Begin with no mould; return those that are made."""
    made: dict[int, moulds.Mould] = {}
    monkeypatch.setattr(moulds, "_known", made)
    return made


def outcome(loads: Any, data: bytes | bytearray) -> tuple[str, str]:
    """Return what a reader makes of bytes: NaN, types and order included."""
    try:
        return "value", repr(loads(bytearray(data)))
    except ProtocolError as error:
        return "refused", str(error)


def test_numbers_and_digests_are_taken_from_their_places(
    known: dict[int, moulds.Mould],
) -> None:
    first: dict[str, Any] = {
        "kind": "result",
        "step": 70_000,
        "digest": b"d" * 32,
        "seconds": 0.5,
        "late": False,
        "quality": None,
        "clients": 3,
        "trials": 700,
    }
    other = first | {
        "step": -5_000_000,
        "digest": bytes(range(32)),
        "seconds": -1e300,
        "clients": 255,
        "trials": 65_535,
    }
    assert moulds.loads(bytearray(plaindata.dumps(first))) == first
    [mould] = known.values()

    read = mould.read(bytearray(plaindata.dumps(other)))

    assert read == other
    assert list(read) == list(other)
    assert moulds.loads(bytearray(plaindata.dumps(other))) == other
    assert list(known.values()) == [mould]


@pytest.mark.parametrize("other", [{"a": 1, "c": b"x"}, {"a": True, "b": b"x"}])
def test_what_does_not_fit_is_read_by_the_machine_and_remembered(
    other: dict[str, Any], known: dict[int, moulds.Mould]
) -> None:
    first = plaindata.dumps({"a": 1, "b": b"x"})
    moulds.loads(bytearray(first))
    data = bytearray(plaindata.dumps(other))
    mould = known[len(first)]

    assert moulds.loads(data) == other
    assert mould.read(bytearray(first)) == {"a": 1, "b": b"x"}
    assert known[len(data)].read(data) == other


def test_a_value_that_refers_to_another_one_makes_no_mould(
    known: dict[int, moulds.Mould],
) -> None:
    twice = bytes(range(20))
    data = plaindata.dumps({"a": twice, "b": twice})
    assert data.count(twice) == 1

    assert moulds.loads(bytearray(data)) == {"a": twice, "b": twice}
    assert not known


@pytest.mark.parametrize(
    "value", [[1, 2], {"a": [1]}, {"a": {}}, {"a": ()}, {"a": 1 << 70}, 5, None]
)
def test_what_is_no_dict_of_small_scalars_makes_no_mould(
    value: Any, known: dict[int, moulds.Mould]
) -> None:
    data = bytearray(plaindata.dumps(value))

    assert moulds.loads(data) == value
    assert not known


def test_only_short_pickles_are_remembered(known: dict[int, moulds.Mould]) -> None:
    value = {"a": "x" * moulds.LONGEST}

    assert moulds.loads(bytearray(plaindata.dumps(value))) == value
    assert not known


@given(st.lists(HEADS, max_size=4), st.lists(HEADS, max_size=2))
@example([{"a": 1.5}, {"a": float("nan")}], [])
def test_whatever_came_before_a_pickle_means_the_same(
    before: list[dict[str, Any]], more: list[dict[str, Any]]
) -> None:
    moulds._known.clear()
    for head in [*before, *more, *before]:
        data = plaindata.dumps(head)
        assert outcome(moulds.loads, data) == outcome(plaindata.loads, data)


@given(HEADS, st.data())
def test_a_changed_byte_means_what_the_machine_makes_of_it(
    head: dict[str, Any], draw: st.DataObject
) -> None:
    moulds._known.clear()
    data = bytearray(plaindata.dumps(head))
    moulds.loads(data)
    for _ in range(8):
        changed = bytearray(data)
        place = draw.draw(st.integers(0, len(data) - 1))
        changed[place] = draw.draw(st.integers(0, 255))
        expected = outcome(plaindata.loads, changed)
        assert outcome(moulds.loads, changed) == expected


def test_a_program_is_never_taken_for_another_that_fills_the_mould() -> None:
    """The memo can bring a number back; then its place is not the only one."""
    number = pickle.BININT1 + b"\x07"
    keys = [pickle.SHORT_BINUNICODE + b"\x01" + key for key in (b"a", b"b")]
    items = keys[0] + number + pickle.MEMOIZE + keys[1] + pickle.BINGET + b"\x00"
    body = pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS + pickle.STOP
    data = pickle.PROTO + b"\x04" + pickle.FRAME + len(body).to_bytes(8, "little")
    first, other = data + body, (data + body).replace(b"\x07", b"\x09")

    assert moulds.loads(bytearray(first)) == {"a": 7, "b": 7}
    assert moulds.loads(bytearray(other)) == {"a": 9, "b": 9}

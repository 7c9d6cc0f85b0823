"""Steps as bytes of the journal, and the newest ones in memory."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.journaled_runs import entry_of, update_of
from tests.messages import comparable
from utilities.errors import ProtocolError
from utilities.evolution import Segment, Update
from utilities.frames import text_frame
from utilities.history import SEGMENT_BYTES, Entry, Recent, held, pack, unpack
from utilities.protocol import Hello
from utilities.wire import encode

ENTRY = entry_of(update_of(7), b"d" * 32)
SUMMED = Update(
    3, 1, 100, 0.5, (), np.zeros(0, np.int8), np.arange(-5, 5, dtype=np.int32)
)


def figures(**changes: Any) -> bytes:
    """Return the payload of an entry with other figures."""
    text = pack(ENTRY)[11:]
    known = json.loads(text[: text.index(b"}") + 1])
    return text_frame(json.dumps(known | changes)) + b"".join(encode(ENTRY.update))


@pytest.mark.parametrize(
    "entry",
    [
        ENTRY,
        replace(ENTRY, loss=None, aggregation="", contributions=()),
        replace(ENTRY, update=SUMMED, aggregation="sums"),
        replace(ENTRY, contributions=(("<b>ä\u2028", 1, 2),) * 3000),
    ],
)
def test_an_entry_is_read_as_it_was_written(entry: Entry) -> None:
    found = unpack(pack(entry))

    assert comparable(found.update) == comparable(entry.update)
    assert replace(found, update=entry.update) == entry
    assert found.step == entry.update.step


def test_the_figures_of_an_entry_can_be_read_by_people() -> None:
    assert json.loads(pack(ENTRY)[11:].split(b"}")[0] + b"}") == {
        "digest": (b"d" * 32).hex(),
        "time": 1e9 + 7,
        "seconds": 7.5,
        "loss": 2.93,
        "clients": 2,
        "late": 0,
        "dropped": 0,
        "aggregation": "seeds",
        "contributions": [["a", 40, 900], ["b", 24, 500]],
    }


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "expected its figures as text"),
        (b"".join(encode(ENTRY.update)), "expected its figures as text"),
        (text_frame("{}"), "expected the keys digest, time"),
        (text_frame("[]"), "expected the keys digest, time"),
        (text_frame("{"), "Expecting property name"),
        (figures(digest="ab"), "digest is not acceptable"),
        (figures(digest="zz" * 32), "non-hexadecimal"),
        (figures(time=float("nan")), "time is not acceptable"),
        (figures(loss="1"), "loss is not acceptable"),
        (figures(clients=-1), "clients is not acceptable"),
        (figures(aggregation="x"), "aggregation is not acceptable"),
        (figures(contributions=[["a", 1]]), "a contribution is not acceptable"),
        (pack(ENTRY)[:-1], "expected one update, got \\[\\]"),
        (pack(ENTRY) + b"".join(encode(ENTRY.update)), "expected one update"),
        (pack(ENTRY)[:200] + b"x" * 500, "^(frame|message|update|entry)"),
    ],
)
def test_what_is_no_entry_is_refused(payload: bytes, message: str) -> None:
    with pytest.raises(ProtocolError, match=message):
        unpack(payload)


def test_another_message_in_place_of_the_update_is_refused() -> None:
    hello = Hello(1, "1.0", "3.11", "2.0", "a", bytes(32), bytes(32))
    payload = pack(ENTRY)
    start = payload.index(b"}") + 1

    with pytest.raises(ProtocolError, match="expected"):
        unpack(payload[:start] + b"".join(encode(hello)))


# The newest steps.


def test_what_an_update_holds_counts_all_its_parts() -> None:
    segments = (Segment(1, 0, 4),)
    rewards = np.zeros(64, np.int8)
    assert held(Update(0, 0, 64, 0.1, segments, rewards)) == 64 + SEGMENT_BYTES
    assert held(SUMMED) == 40


def recent(steps: range, most: int = 10**6) -> Recent:
    found = Recent(most)
    for step in steps:
        found.append(update_of(step), bytes([step]) * 32)
    return found


def test_a_replica_gets_the_steps_that_it_missed() -> None:
    found = recent(range(3, 7)).since(5, bytes([5]) * 32)

    assert found is not None
    assert [update.step for update in found] == [5, 6]


@pytest.mark.parametrize(
    ("step", "digest"),
    [(2, 2), (7, 7), (8, 8), (5, 6)],
    ids=["too old", "the present one", "ahead", "another state"],
)
def test_a_replica_that_cannot_be_helped_gets_none(step: int, digest: int) -> None:
    assert recent(range(3, 7)).since(step, bytes([digest]) * 32) is None
    assert Recent(9).since(step, bytes([digest]) * 32) is None


def test_updates_are_forgotten_where_a_state_is_less_to_send() -> None:
    each = held(update_of(0))
    steps = recent(range(6), most=2 * each)

    steps.forget(3)  # later ones are needed, however many they are
    assert steps.since(2, bytes([2]) * 32) is None
    assert len(steps.since(3, bytes([3]) * 32) or ()) == 3
    steps.forget(6)

    assert steps.since(3, bytes([3]) * 32) is None
    assert len(steps.since(4, bytes([4]) * 32) or ()) == 2

"""What waits to be sent, against plain bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilities.outgoing import PARTS, Outgoing


def joined(queue: Outgoing) -> bytes:
    """Take all that is left, as a socket would that takes everything."""
    taken = b""
    while queue:
        together = b"".join(queue.first())
        queue.taken(len(together))
        taken += together
    return taken


def test_parts_leave_in_order_and_together() -> None:
    queue = Outgoing()
    queue.push([b"ab", memoryview(b"cde")])
    queue.push([b"f"])

    assert queue.size == 6
    assert [bytes(part) for part in queue.first()] == [b"ab", b"cde", b"f"]


@pytest.mark.parametrize(
    ("count", "left"),
    [
        (0, [b"ab", b"cde"]),
        (1, [b"b", b"cde"]),
        (2, [b"cde"]),
        (3, [b"de"]),
        (5, []),
    ],
)
def test_what_the_peer_has_taken_is_dropped(count: int, left: list[bytes]) -> None:
    queue = Outgoing()
    queue.push([b"ab", b"cde"])

    queue.taken(count)

    assert [bytes(part) for part in queue.first()] == left
    assert queue.size == 5 - count
    assert bool(queue) == bool(left)


def test_nothing_is_queued_of_nothing() -> None:
    queue = Outgoing()
    queue.push([b"", memoryview(b"")])

    assert not queue
    assert queue.first() == []


def test_more_parts_than_leave_together_leave_later() -> None:
    queue = Outgoing()
    queue.push(bytes([n % 256]) for n in range(PARTS + 3))

    assert len(queue.first()) == PARTS
    assert joined(queue) == bytes(n % 256 for n in range(PARTS + 3))


def test_parts_are_not_copied() -> None:
    numbers = np.arange(100, dtype=np.uint8)
    queues = [Outgoing(), Outgoing()]
    for queue in queues:
        queue.push([numbers.data])
        queue.taken(10)

    for queue in queues:
        assert np.shares_memory(np.frombuffer(queue.first()[0], np.uint8), numbers)


@pytest.mark.parametrize("count", [-1, 4])
def test_taking_what_was_not_there_is_our_own_mistake(count: int) -> None:
    queue = Outgoing()
    queue.push([b"abc"])

    with pytest.raises(AssertionError):
        queue.taken(count)


ACTIONS = st.lists(st.one_of(st.lists(st.binary(max_size=9)), st.integers(0, 30)))


@given(ACTIONS)
def test_whatever_is_taken_when_the_bytes_are_those_that_were_pushed(
    actions: list[list[bytes] | int],
) -> None:
    queue, waiting, taken, pushed = Outgoing(), b"", b"", b""
    for action in actions:
        if isinstance(action, list):
            queue.push(action)
            pushed += b"".join(action)
            waiting += b"".join(action)
        else:
            count = min(action, len(waiting))
            taken += b"".join(queue.first())[:count]
            count = min(count, len(b"".join(queue.first())))
            queue.taken(count)
            waiting = waiting[count:]
        assert queue.size == len(waiting)

    assert taken + joined(queue) == pushed

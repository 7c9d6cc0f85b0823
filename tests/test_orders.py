"""What is sent before a step is durable, and what is not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from utilities.events import Drop, Finish, Send
from utilities.evolution import Update
from utilities.orders import FEW_CLIENTS, Command, ahead, parted
from utilities.protocol import Begin, Goodbye, Resume
from utilities.tally import Append, Closed

UPDATE = Update(4, 0, 0, 0.0, (), np.zeros(0, np.int8))
BEFORE = replace(UPDATE, step=3)
BEGIN = Begin(5, 0.1, 0, False, ())
RESUME = Resume({}, "ab", 3)
WRITE = Append(UPDATE, Closed(4, 1.0, None, 0, 0, 0, 0, b"d" * 32))
DROP = Drop(9, Goodbye("dropped", "others came"))


def told(commands: list[Command]) -> list[Any]:
    """Return what is said to whom, and everything else as it is."""
    return [
        (c.client, *(type(m).__name__ for m in c.messages))
        if isinstance(c, Send)
        else c
        for c in commands
    ]


def test_an_update_is_sent_ahead_of_the_disk_and_what_follows_it_is_not() -> None:
    commands: list[Command] = [
        *(WRITE, Send(1, (UPDATE, BEGIN)), Send(2, (RESUME, BEFORE, UPDATE, BEGIN))),
        *(Send(3, (RESUME,)), Send(4, (UPDATE,)), DROP, Finish()),
    ]

    assert told(ahead(commands)) == [
        *((1, "Update"), (2, "Resume", "Update", "Update"), (4, "Update")),
        *(WRITE, (1, "Begin"), (2, "Begin"), (3, "Resume"), DROP, Finish()),
    ]


def test_only_the_update_that_is_written_goes_ahead() -> None:
    other = replace(UPDATE)  # equal, but not what is written

    assert parted((BEFORE, BEGIN), UPDATE) == ((), (BEFORE, BEGIN))
    assert parted((other, BEGIN), UPDATE) == ((), (other, BEGIN))
    assert parted((), UPDATE) == ((), ())


@pytest.mark.parametrize(("clients", "early"), [(FEW_CLIENTS, True), (33, False)])
def test_many_clients_get_one_message_each(clients: int, *, early: bool) -> None:
    sends = [Send(n, (UPDATE, BEGIN)) for n in range(clients)]

    sent = told(ahead([WRITE, *sends]))

    assert sent.index(WRITE) == (clients if early else 0)
    assert len(sent) == 1 + (2 * clients if early else clients)


@pytest.mark.parametrize("writes", [[], [replace(WRITE, update=BEFORE), WRITE]])
def test_without_a_step_and_with_several_nothing_goes_ahead(
    writes: list[Command],
) -> None:
    commands = [*writes, Send(1, (BEFORE, UPDATE, BEGIN)), Finish()]

    assert ahead(commands) == commands

"""Many clients: what comes at once is taken first, and acted upon once."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.desk import Desk, hello, together
from tests.messages import comparable
from utilities.errors import ProtocolError
from utilities.events import Drop, Finish, Joined, Left, Received, Send, Stop
from utilities.evolution import Update
from utilities.ledger import Saved
from utilities.orders import Command, Event
from utilities.protocol import Goodbye, Result


def at_once(
    desk: Desk, events: Iterable[Event], after: float = 0.0, lag: float = 0.0
) -> list[Command]:
    """Let things happen some seconds later; it takes a while to read them."""
    heard = desk.now + after
    desk.now = heard + lag
    for event in events:
        desk.coordinator.take(event, heard)
    issued = len(desk.log.issued)
    commands = desk.coordinator.go_on(desk.now, heard)
    desk.log.take(commands)
    for client, begin in desk.log.issued[issued:]:
        desk.begins(client).append(begin)
    return commands


def answers(desk: Desk, *clients: int) -> list[Event]:
    """Return the answers of clients to their oldest requests."""
    return [Received(n, desk.result(desk.begins(n).pop(0))) for n in clients]


def waited(desk: Desk) -> list[int]:
    return [peer.id for peer in desk.coordinator.clients if peer.waited]


# --- taking and going on --------------------------------------------------------------


def test_answers_that_come_together_close_a_step_with_one_send_to_each() -> None:
    desk = together(1, 2, 3)
    step = desk.coordinator.step

    commands = at_once(desk, answers(desk, 3, 1, 2))

    sends = [command for command in commands if isinstance(command, Send)]
    assert [send.client for send in sends] == [1, 2, 3]
    assert desk.coordinator.step == step + 1
    assert desk.log.closed[0].clients == 3
    assert [desk.kinds(client) for client in (1, 2, 3)] == [["Update", "Begin"]] * 3


def test_nothing_is_done_before_all_is_taken() -> None:
    desk = together(1, 2)
    step = desk.coordinator.step

    for event in answers(desk, 1, 2):
        desk.coordinator.take(event, desk.now)

    assert desk.coordinator.step == step
    assert desk.coordinator.go_on(desk.now) != []
    assert desk.coordinator.step == step + 1


def test_a_broken_rule_in_the_middle_spoils_only_its_clients_answer() -> None:
    desk = together(1, 2, 3)
    first, wrong, last = answers(desk, 1, 2, 3)
    coordinator = desk.coordinator
    coordinator.take(first, desk.now)
    assert isinstance(wrong, Received)
    assert isinstance(wrong.message, Result)
    twice = replace(wrong.message, segments=wrong.message.segments * 2)
    with pytest.raises(ProtocolError, match="expected groups of"):
        coordinator.take(Received(2, twice), desk.now)
    coordinator.take(last, desk.now)

    assert coordinator.go_on(desk.now) == []  # until the shell has reported it gone
    with pytest.raises(ProtocolError, match="nothing is due of step"):
        coordinator.take(wrong, desk.now)
    at_once(desk, [Left(2, "it broke the rules")])

    assert desk.log.closed[0].clients == 2
    assert desk.log.closed[0].late == 0


def test_a_client_may_come_answer_and_go_in_one_batch() -> None:
    desk = together(1, 2)
    step = desk.coordinator.step
    one, two = answers(desk, 1, 2)

    commands = at_once(
        desk,
        [
            *(Joined(3, hello("eve")), one, Received(3, Goodbye("finished", "bye"))),
            *(two, Left(2, "cable pulled"), Left(3, "closed")),
        ],
    )

    assert desk.coordinator.step == step + 1
    assert desk.log.closed[0].clients == 2  # what it has answered counts
    assert [each.client for each in commands if isinstance(each, Send)] == [1]
    assert [each.client for each in commands if isinstance(each, Drop)] == [3]
    assert [peer.id for peer in desk.coordinator.clients] == [1]


def test_a_stop_among_answers_lets_the_step_close_and_asks_for_digests() -> None:
    desk = together(1, 2)

    commands = at_once(desk, [*answers(desk, 1), Stop(), *answers(desk, 2)])

    assert len(desk.log.closed) == 1
    assert [desk.begins(n)[0].segments for n in (1, 2)] == [(), ()]
    assert not any(isinstance(command, Drop) for command in commands)
    while desk.log.writing or not desk.over():
        for client in (1, 2):
            if desk.begins(client):
                desk.step(client)
        desk.write()
    assert desk.log.finished


def test_messages_go_out_ahead_of_goodbyes() -> None:
    desk = together(1, 2)
    desk.do(Stop())
    desk.step(1)
    desk.step(2)
    desk.step(1)
    desk.step(2)

    commands = at_once(desk, [*written(desk)])

    kinds = [type(command) for command in commands]
    assert kinds[-1] is Finish
    assert kinds.count(Drop) == 2
    assert Send not in kinds[kinds.index(Drop) :]


def written(desk: Desk) -> list[Event]:
    """Return the reports that all states are written."""
    saves, desk.log.writing = desk.log.writing, []
    return [Saved(save.state.step) for save in saves]


# Whatever comes together, the same updates follow.


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=6, max_size=6))
def test_updates_do_not_depend_on_what_came_together(sizes: list[int]) -> None:
    one_by_one, batched = together(1, 2, 3), together(1, 2, 3)
    for _ in range(4):
        for event in answers(one_by_one, 1, 2, 3):
            one_by_one.do(event)
    left = 12
    for size in [*sizes, *[1] * 12]:
        events: list[Event] = []
        while len(events) < min(size, left):
            ready = [n for n in (1, 2, 3) if batched.begins(n)]
            if not ready:
                break
            events += answers(batched, ready[0])
        left -= len(events)
        at_once(batched, events)

    assert left == 0
    assert shown(batched) == shown(one_by_one)
    batched.truth.check()


def shown(desk: Desk) -> list[object]:
    updates: list[Update] = list(desk.truth.updates.values())
    return [comparable(update) for update in updates]


# --- what had come in time ------------------------------------------------------------


def test_an_answer_that_had_come_in_time_counts_though_it_is_read_later() -> None:
    desk = together(1, 2)
    due = desk.coordinator.wakeup(desk.now)
    assert due is not None
    at_once(desk, answers(desk, 1), due - 0.01 - desk.now, lag=0.5)
    assert desk.log.closed == []
    assert desk.coordinator.wakeup(due - 0.01) == due  # not in the past: it is to come

    desk.now = due - 0.005
    at_once(desk, answers(desk, 2), lag=0.5)

    assert (desk.log.closed[0].clients, desk.log.closed[0].late) == (2, 0)


def test_a_deadline_that_has_passed_when_all_is_heard_closes_the_step() -> None:
    desk = together(1, 2)
    due = desk.coordinator.wakeup(desk.now)
    assert due is not None

    at_once(desk, answers(desk, 1), due - desk.now, lag=0.5)

    assert (desk.log.closed[0].clients, desk.log.closed[0].late) == (1, 1)


def test_the_time_of_the_next_step_begins_when_it_is_asked_for() -> None:
    desk = together(1, 2, grace=0.0)
    at_once(desk, answers(desk, 1, 2), 1.0, lag=0.5)

    due = desk.coordinator.wakeup(desk.now)

    assert due == pytest.approx(desk.now + 0.01 + 1.0)


# --- late answers of many -------------------------------------------------------------


def late_at_once(desk: Desk, *punctual: int) -> None:
    """Close a step on the answers of some at its deadline."""
    at_once(desk, answers(desk, *punctual))
    due = desk.coordinator.wakeup(desk.now)
    assert due is not None
    at_once(desk, [], due - desk.now)


def test_after_one_mass_lateness_the_next_step_is_whole_again() -> None:
    desk = together(1, 2, 3, 4)
    step = desk.coordinator.step
    late_at_once(desk, 1)
    assert desk.log.closed[0].late == 3
    assert waited(desk) == [1, 2, 3, 4]
    assert desk.log.said("3 of 4 clients are late at step", warning=True)
    assert len([note for note in desk.log.notes if "late" in note.text]) == 1

    at_once(desk, answers(desk, 2, 3, 4), 0.005)  # of the step that has closed
    at_once(desk, answers(desk, 1))
    assert desk.coordinator.step == step + 1  # it waits for them
    at_once(desk, answers(desk, 2, 3, 4), 0.005)

    assert desk.coordinator.step == step + 2
    assert (desk.log.closed[1].clients, desk.log.closed[1].late) == (4, 0)


def test_most_that_are_silent_hold_up_two_steps_only() -> None:
    desk = together(1, 2, 3)
    late_at_once(desk, 1)
    assert waited(desk) == [1, 2, 3]
    late_at_once(desk, 1)
    assert waited(desk) == [1]

    at_once(desk, answers(desk, 1))

    assert len(desk.log.closed) == 3
    assert desk.log.said("c2 is late at step")


def test_late_answers_teach_how_long_to_wait_for_the_next_ones() -> None:
    desk = together(1, 2, 3, time_per_step=1.0)
    at_once(desk, answers(desk, 1, 2, 3))  # reports of the time of an update
    late_at_once(desk, 1)
    usual = desk.coordinator.wakeup(desk.now)
    assert usual == pytest.approx(desk.now + 0.01 + 1.0 + 0.25)

    at_once(desk, answers(desk, 2, 3), 0.05)
    at_once(desk, answers(desk, 1, 2, 3))

    # Asked 1.31 s before, of which 1.01 s was work: two round trips of 0.3 s.
    due = desk.coordinator.wakeup(desk.now)
    assert due == pytest.approx(desk.now + 0.01 + 1.0 + 0.6)


def test_an_answer_of_one_that_is_known_to_be_slow_teaches_nothing() -> None:
    desk = together(1, 2, time_per_step=1.0)
    late_at_once(desk, 1)
    assert waited(desk) == [1]

    at_once(desk, answers(desk, 2), 0.5)
    at_once(desk, answers(desk, 1))

    due = desk.coordinator.wakeup(desk.now)
    assert due == pytest.approx(desk.now + 0.01 + 1.0 + 0.25)

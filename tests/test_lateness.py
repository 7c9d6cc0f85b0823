"""How long a late answer is waited for, and who is to blame, worked by hand."""

import pytest

from utilities.config import Config
from utilities.events import Note
from utilities.lateness import NAMED, blame, grace_seconds, late_sums, most
from utilities.peers import Peer

STEP = 5


def peers(count: int, first: int = 0) -> list[Peer]:
    return [Peer(n, f"c{n}") for n in range(first, first + count)]


# --- grace ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "round_trip", "seconds"),
    [
        (0.1, 0.0, 0.2),
        (2.0, 0.25, 0.5),  # two round trips are no more than the quarter
        (2.0, 0.5, 1.0),
        (2.0, 1.5, 2.0),  # no more than a whole step
        (0.1, 0.4, 0.8),
        (0.1, 9.0, 1.0),  # or a second
        (8.0, 9.0, 8.0),
    ],
)
def test_grace_is_two_round_trips_where_that_is_more_than_usual(
    run: float, round_trip: float, seconds: float
) -> None:
    assert grace_seconds(Config(), run, round_trip) == seconds


@pytest.mark.parametrize("grace", [0.0, 0.1, 3.0])
def test_a_grace_that_is_given_holds(grace: float) -> None:
    assert grace_seconds(Config(grace=grace), 2.0, 0.9) == grace


# --- blame ----------------------------------------------------------------------------


def test_most_is_more_than_the_others_and_more_than_one() -> None:
    assert not most(0, 0)
    assert not most(1, 0)
    assert not most(2, 2)
    assert most(2, 1)
    assert most(3, 2)


def test_a_few_that_are_late_are_waited_for_no_more() -> None:
    late, punctual = peers(2), peers(2, first=2)

    notes = blame(STEP, late, punctual)

    assert [peer.waited for peer in late + punctual] == [False, False, True, True]
    assert notes == [
        Note("c0 is late at step 5; not waited for"),
        Note("c1 is late at step 5; not waited for"),
    ]


def test_where_most_are_late_nobody_is_to_blame() -> None:
    late, punctual = peers(3), peers(2, first=3)

    [note] = blame(STEP, late, punctual)

    assert all(peer.waited for peer in late)
    assert note == Note(
        "3 of 5 clients are late at step 5: this machine or the network was slow; "
        "they are waited for",
        warning=True,
    )


def test_those_that_are_not_waited_for_are_neither_late_nor_in_time() -> None:
    ann, bob, eve, dan, kim = everybody = peers(5)
    for peer in (eve, dan, kim):
        peer.waited = False

    # One late of two waited for; without the others it would be one of five.
    notes = blame(STEP, [ann, eve, dan], [bob, kim])

    assert [note.text for note in notes] == ["c0 is late at step 5; not waited for"]
    assert [peer.waited for peer in everybody] == [False, True, False, False, False]


def test_who_owes_the_step_before_as_well_is_silent_and_to_blame() -> None:
    late, [punctual] = peers(3), peers(1, first=3)
    for peer in late:
        peer.owe(STEP, 10.0, 8.0)
    late[1].owe(STEP - 1, 9.0, 7.0)
    late[2].owe(STEP - 2, 8.0, 6.0)  # long ago: such an answer may be lost

    first, second = blame(STEP, late, [punctual])

    assert [peer.waited for peer in late] == [True, False, True]
    assert first.text.startswith("3 of 4 clients are late at step 5: ")
    assert second.text == "c1 is late at step 5; not waited for"


def test_nothing_is_said_where_all_that_are_late_are_silent_or_nobody_is() -> None:
    late = peers(2)
    for peer in late:
        peer.owe(STEP - 1, 9.0, 7.0)

    assert blame(STEP, [], peers(3)) == []
    notes = blame(STEP, late, [])

    assert [note.warning for note in notes] == [False, False]


@pytest.mark.parametrize("count", [NAMED, NAMED + 1])
def test_more_than_ten_get_one_line_for_all(count: int) -> None:
    late = peers(count)

    notes = [note.text for note in blame(STEP, late, peers(count, first=count))]
    sums = [note.text for note in late_sums(STEP, late)]

    if count > NAMED:
        assert notes == ["11 clients are late at step 5; not waited for"]
        assert sums == ["11 clients: their sums are late at step 5"]
    else:
        assert len(notes) == len(sums) == 10
        assert sums[9] == "c9: its sum is late at step 5"
    assert not any(peer.waited for peer in late)

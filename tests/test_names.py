"""A client that comes back is called what it was called."""

import pytest

from tests.desk import hello
from utilities import names
from utilities.names import Names, arrival
from utilities.peers import Peer

ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16


def given(book: Names, name: str, identity: bytes = b"", *here: str) -> str:
    others = [Peer(number, other) for number, other in enumerate(here)]
    return book.peer(9, hello(name, identity=identity), others).name


def test_without_identities_names_differ_among_those_who_are_here() -> None:
    book = Names()

    assert given(book, "desk") == "desk"
    assert given(book, "desk", b"", "desk") == "desk#2"
    assert given(book, "desk", b"", "desk#2") == "desk"


def test_whoever_comes_back_has_the_name_that_it_had() -> None:
    book = Names()
    assert given(book, "desk", ONE) == "desk"
    assert given(book, "desk", TWO, "desk") == "desk#2"
    assert given(book, "desk", TWO) == "desk#2"
    assert given(book, "desk", ONE, "desk#2") == "desk"


def test_a_name_is_kept_for_whoever_is_away() -> None:
    book = Names()
    given(book, "desk", ONE)

    assert given(book, "desk", TWO) == "desk#2"
    assert given(book, "desk") == "desk#3"
    assert given(book, "desk", ONE) == "desk"


def test_another_name_is_given_to_whoever_asks_for_one() -> None:
    book = Names()
    given(book, "desk", ONE)

    assert given(book, "window", ONE) == "window"
    assert given(book, "desk", TWO) == "desk"


def test_a_copied_identity_does_not_give_two_clients_one_name() -> None:
    book = Names()
    given(book, "desk", ONE)

    assert given(book, "desk", ONE, "desk") == "desk#2"


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MOST_REMEMBERED", 2)
    book = Names()
    for identity in (ONE, TWO, THREE):
        given(book, "desk", identity)

    assert given(book, "desk") == "desk"
    assert given(book, "desk", THREE) == "desk#3"


@pytest.mark.parametrize(
    ("identity", "last_step", "count"),
    [(ONE, 7, 1), (ONE, None, 0), (TWO, 7, 0), (b"", 7, 0)],
)
def test_sessions_are_left_over_of_a_client_that_was_here_before(
    identity: bytes, last_step: int | None, count: int
) -> None:
    here = [Peer(1, "desk", identity=ONE), Peer(2, "lab"), Peer(3, "nobody")]
    returning = hello("desk", identity=identity, last_step=last_step)

    assert Names().ghosts(returning, here) == here[:count]


def test_it_is_told_who_comes_and_who_was_here_before() -> None:
    peer = Peer(1, "desk#2")

    assert arrival(peer, hello("desk")) == "desk#2 joined"
    assert arrival(peer, hello("desk", last_step=7)) == "desk#2 joined again (was at 7)"

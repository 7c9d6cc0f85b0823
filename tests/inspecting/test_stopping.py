from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilities.inspect.stopping import Until


@given(st.lists(st.text("ab", max_size=4), max_size=12), st.text("ab", min_size=1))
def test_what_comes_is_the_text_up_to_the_first_stop(
    pieces: list[str], stop: str
) -> None:
    until, whole = Until(iter(pieces), stop), "".join(pieces)

    assert "".join(until) == whole.partition(stop)[0]
    assert until.met == (stop in whole)


def test_no_piece_is_asked_for_behind_the_stop() -> None:
    def pieces() -> Iterator[str]:
        yield from "one.x"
        pytest.fail("asked for more")

    assert "".join(Until(pieces(), ".x")) == "one"


def test_only_what_may_begin_the_stop_is_held_back() -> None:
    assert list(Until(iter(["a", "b", "a", "c", "a"]), "ab!")) == [
        *["", "", "ab", "ac", "", "a"]
    ]


def test_an_empty_stop_is_a_fault_of_the_caller() -> None:
    with pytest.raises(AssertionError):
        Until(iter("ab"), "")

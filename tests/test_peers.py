"""The account of one client, and whether its Hello is acceptable."""

import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.desk import hello
from utilities.errors import ProtocolError
from utilities.peers import REMEMBERED_STEPS, Peer, middle, refuse, unique_name
from utilities.protocol import PROTOCOL_VERSION, Result


def result(step: int, update_seconds: float = 0.1) -> Result:
    nothing = np.zeros(0, np.float32)
    return Result(step, b"d" * 32, update_seconds, 1.0, None, (), nothing, nothing)


# --- debts ----------------------------------------------------------------------------


def test_each_debt_is_settled_by_one_answer() -> None:
    peer = Peer(1, "ann")
    peer.owe(5, 10.0, 8.0)
    peer.owe(5, 10.0, 8.0)
    assert (peer.owes(5), peer.owes(6)) == (2, 0)

    for _ in range(2):
        peer.answer(result(5), 9.0)

    assert peer.owes(5) == 0
    with pytest.raises(ProtocolError, match="nothing is due of step 5"):
        peer.answer(result(5), 9.0)


@pytest.mark.parametrize(("now", "waited"), [(10.0, True), (10.1, False)])
def test_an_answer_in_time_is_waited_for_again(now: float, waited: bool) -> None:
    peer = Peer(1, "ann", waited=False)
    peer.owe(5, 10.0, 8.0)

    peer.answer(result(5), now)

    assert peer.waited is waited


def test_an_answer_tells_how_long_it_took_beside_the_work() -> None:
    peer = Peer(1, "ann")
    for step in (5, 6):
        peer.owe(step, 20.0, 8.0)

    # Asked at 8, of which 1 s was trials; an update took 0.1 or 0.5 s.
    assert peer.answer(result(5), 10.0) == pytest.approx(0.9)
    assert peer.answer(result(6, 0.5), 9.75) == pytest.approx(0.25)


def test_an_answer_after_its_deadline_does_not_yet_lose_trust() -> None:
    peer = Peer(1, "ann")
    peer.owe(5, 10.0, 8.0)

    peer.answer(result(5), 11.0)

    assert peer.waited


def test_debts_of_long_ago_are_forgotten_and_their_answers_forgiven() -> None:
    peer = Peer(1, "ann", waited=False)
    for step in range(REMEMBERED_STEPS + 3):
        peer.owe(step, 1e9, 0.0)
    assert len(peer.debts) == REMEMBERED_STEPS

    assert peer.answer(result(2), 0.0) is None
    peer.deliver_state(2)

    assert not peer.waited
    assert len(peer.debts) == REMEMBERED_STEPS
    with pytest.raises(ProtocolError, match="nothing is due of step 67"):
        peer.answer(result(REMEMBERED_STEPS + 3), 0.0)


def test_a_state_is_due_once_and_ahead_of_the_answer() -> None:
    peer = Peer(1, "ann")
    peer.owe(5, 10.0, 8.0)
    with pytest.raises(ProtocolError, match="none was asked for at step 5"):
        peer.deliver_state(5)

    peer.ask_state(5)
    peer.deliver_state(5)

    with pytest.raises(ProtocolError, match="none was asked for at step 5"):
        peer.deliver_state(5)


def test_a_state_after_its_answer_breaks_the_rules() -> None:
    peer = Peer(1, "ann")
    peer.owe(5, 10.0, 8.0)
    peer.ask_state(5)
    peer.answer(result(5), 0.0)

    with pytest.raises(ProtocolError, match="none was asked for at step 5"):
        peer.deliver_state(5)


# --- the time of an update ------------------------------------------------------------


def reporting(*seconds: float) -> Peer:
    peer = Peer(1, "ann")
    for step, each in enumerate(seconds):
        peer.owe(step, 0.0, 0.0)
        peer.answer(result(step, each), 0.0)
    return peer


@pytest.mark.parametrize(
    ("reports", "allowed"),
    [
        ((), 1.0),
        ((0.0,), 1.0),  # none applied yet
        ((0.3,), 0.3),
        ((0.1, 0.5, 0.3), 0.3),
        ((0.1, 0.3), 0.2),
        ((9.0,) * 5 + (0.2,) * 8, 0.2),
        ((50.0,), 7.0),
    ],
)
def test_an_update_is_allowed_the_median_of_the_last_reports(
    reports: tuple[float, ...], allowed: float
) -> None:
    assert reporting(*reports).allowance(7.0) == pytest.approx(allowed)


def test_an_update_is_allowed_at_least_a_second_if_reports_say_so() -> None:
    assert reporting(50.0).allowance(0.1) == 1.0


# --- introductions --------------------------------------------------------------------


@given(st.lists(st.floats(0.0, 1e9), min_size=1, max_size=9))
def test_the_middle_of_numbers_is_their_median(values: list[float]) -> None:
    assert middle(values) == statistics.median(values)


def test_names_are_made_unique_by_the_first_free_number() -> None:
    taken = {"ann", "ann#2", "ann#4"}

    assert unique_name("bob", taken) == "bob"
    assert unique_name("ann", taken) == "ann#3"
    assert unique_name("ann#4", taken) == "ann#4#2"


def test_an_honest_hello_is_accepted() -> None:
    assert refuse(hello()) is None


def test_the_protocol_is_compared_before_the_tests_of_another_version() -> None:
    reason = refuse(hello(protocol=PROTOCOL_VERSION - 1, noise_test=b"x" * 32))

    assert reason is not None
    assert f"expected protocol {PROTOCOL_VERSION}, got {PROTOCOL_VERSION - 1}" in reason


def test_a_failed_self_test_names_the_versions_there() -> None:
    reason = refuse(hello(arithmetic_test=b"x" * 32, numpy="2.0.7", python="3.10.2"))

    assert reason is not None
    assert "numpy 2.0.7, Python 3.10.2" in reason

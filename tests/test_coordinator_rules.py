"""Steps of fixed size, losses of no use, and whatever breaks the rules."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.desk import (
    RUN_SEED,
    START,
    Desk,
    answer_wrongly,
    changed,
    hello,
    state_message,
    together,
)
from utilities.errors import ProtocolError
from utilities.events import Stop
from utilities.evolution import Segment, TrainState, segment_seed
from utilities.protocol import (
    MAX_TRIALS,
    Message,
    Result,
    TokenBatch,
)

# --- fixed numbers of trials ----------------------------------------------------------


def test_a_step_of_fixed_size_is_cut_into_blocks_by_index() -> None:
    desk = Desk(trials_per_step=20)
    desk.join(1)
    step, blocks = 0, []
    while desk.coordinator.step == step:
        blocks += desk.begins(1)[:1]
        desk.answer(1)

    expected = [Segment(segment_seed(RUN_SEED, 0, slot), 0, 1) for slot in range(5)]
    assert [begin.segments[0] for begin in blocks] == expected
    assert set(desk.truth.updates[0].segments) == set(expected)
    assert desk.log.closed[0].trials == 20


def test_the_state_is_asked_for_once_with_a_step_of_blocks() -> None:
    desk = Desk(trials_per_step=20)
    desk.join(1)
    while desk.coordinator.step == 0:
        desk.answer(1)

    wanted = [begin.state_wanted for begin in desk.begins(1)]
    desk.send_state(1)
    while desk.coordinator.step == 1:
        desk.answer(1)

    assert wanted == [True, False]
    assert len(desk.log.replays) == 1
    assert [b.state_wanted for _, b in desk.log.issued if b.step == 1].count(True) == 1


def blocks_of_two(**keys: Any) -> Desk:
    """Return a run of blocks, at a step where client 1 has two and client 2 one."""
    desk = Desk(trials_per_step=12, **keys)
    desk.join(1)
    desk.join(2)
    for _ in range(3):
        desk.close(1, 2)
    assert [len(desk.begins(client)) for client in (1, 2)] == [2, 1]
    desk.log.notes.clear()
    desk.log.closed.clear()
    return desk


def test_blocks_of_a_replica_that_differs_are_done_again() -> None:
    desk = blocks_of_two()
    step = desk.coordinator.step
    answer_wrongly(desk, 2)
    while not desk.log.replays:
        desk.answer(1)
    assert desk.log.closed == []

    desk.replay()
    assert desk.log.said("c2: its digest differs", warning=True)
    assert desk.log.closed == []
    desk.close(1, 2)

    assert desk.log.closed[0].trials == 12
    assert len(desk.truth.updates[step].segments) == 3


def test_blocks_go_on_when_a_lone_replica_is_replaced_in_the_middle() -> None:
    desk = Desk(trials_per_step=12)
    desk.join(1)
    desk.log.doubtful = True
    while desk.coordinator.step == 0:
        desk.answer(1)
    wrong = changed(desk.truth.state(1))
    digest = wrong.digest(desk.start.setting.fingerprint)
    desk.send_state(1, wrong)
    while desk.coordinator.step == 1:
        desk.answer(1, digest=digest)
    desk.mail(1)

    desk.replay()
    desk.answer(1, digest=b"w" * 32)
    assert desk.mail(1) == []
    desk.answer(1, digest=b"w" * 32)

    kinds = desk.kinds(1)
    assert kinds == ["Welcome", "TokenBatch", "Update", "Begin", "Begin"]
    while desk.coordinator.step == 2:
        desk.answer(1)
    assert desk.log.closed[-1].trials == 12


def test_blocks_of_a_lone_replica_that_changes_its_digest_are_all_done_again() -> None:
    desk = Desk(trials_per_step=12)
    desk.join(1)
    desk.close(1)
    desk.close(1)
    step = desk.coordinator.step
    desk.answer(1)
    while not desk.log.replays:
        answer_wrongly(desk, 1)
    assert len(desk.log.closed) == step

    desk.replay()

    words = f"c1: its digest differs at step {step}; its state is replaced"
    assert desk.log.said(words, warning=True)
    assert desk.kinds(1)[-4:] == ["Welcome", "TokenBatch", "Begin", "Begin"]
    for _ in range(3):
        assert desk.coordinator.step == step
        desk.answer(1)
    assert desk.log.closed[-1].trials == 12


def test_a_joiner_gets_in_where_all_blocks_are_with_silent_clients() -> None:
    desk = Desk(trials_per_step=12)
    desk.join(1)
    desk.join(2)
    due = desk.coordinator.wakeup(desk.now)
    assert due == START + 3.0 + 0.25

    desk.tick(due - desk.now)

    assert desk.kinds(2) == ["Welcome", "TokenBatch", "Begin", "Begin"]
    for _ in range(3):
        desk.answer(2)
    assert desk.log.closed[0].trials == 12
    assert desk.log.said("c1 is late")


def test_a_stop_of_silent_clients_gives_up_a_step_of_blocks() -> None:
    desk = blocks_of_two()
    desk.answer(1)
    step = desk.coordinator.step
    desk.do(Stop())
    assert not desk.log.replays

    desk.tick(100.0)  # each is given what the other does not do
    assert not desk.log.replays
    desk.tick(100.0)

    assert len(desk.log.replays) == 1
    while desk.log.replays:
        desk.replay()
    assert desk.saved()[-1] == (step, True)


# --- unusable losses ------------------------------------------------------------------


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf"), 101.0])
def test_unusable_losses_drop_their_segment_and_are_counted(loss: float) -> None:
    desk = together(1, 2)
    step = desk.coordinator.step
    good = desk.seeds(1)[:1]

    desk.answer(2, loss=loss)
    desk.answer(1)

    assert [s.seed for s in desk.truth.updates[step].segments] == good
    closed = desk.log.closed[0]
    assert (closed.trials, closed.dropped, closed.clients) == (4, 1, 2)
    assert closed.loss is not None


def test_a_step_without_usable_losses_only_advances_its_number() -> None:
    desk = together(1, 2)
    step = desk.coordinator.step
    before = desk.truth.state(step)

    desk.answer(1, loss=float("nan"))
    desk.answer(2, loss=float("nan"))

    update = desk.truth.updates[step]
    assert (update.trials, update.segments, len(update.rewards)) == (0, (), 0)
    after = desk.truth.state(step + 1)
    assert after.weights.tobytes() == before.weights.tobytes()
    assert (after.step, after.count) == (before.step + 1, before.count)
    assert (desk.log.closed[0].loss, desk.log.closed[0].dropped) == (None, 2)


# --- rules ----------------------------------------------------------------------------


def losses(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return losses that are like each other."""
    return np.linspace(2, 3, count, dtype=np.float32)


def tampered(desk: Desk, **changes: Any) -> Result:
    """Return an answer of client 1 with some fields changed."""
    return replace(desk.result(desk.begins(1)[0]), **changes)


def other_segment(desk: Desk, **changes: int) -> Result:
    """Return an answer of client 1 about other groups."""
    result = desk.result(desk.begins(1)[0])
    return replace(result, segments=(replace(result.segments[0], **changes),))


def more_segments(desk: Desk, *more: Segment) -> Result:
    """Return an answer of client 1 about these segments besides its first."""
    result = desk.result(desk.begins(1)[0])
    return replace(result, segments=(*result.segments, *more))


ILLEGAL: dict[str, tuple[Callable[[Desk], Message], str]] = {
    "a segment that was not given out": (
        lambda desk: other_segment(desk, seed=7),
        "expected groups of",
    ),
    "groups from the middle": (
        lambda desk: other_segment(desk, first=1),
        "expected groups of",
    ),
    "no groups": (lambda desk: other_segment(desk, groups=0), "expected groups of"),
    "more groups than were given out": (
        lambda desk: other_segment(desk, groups=MAX_TRIALS),
        "expected groups of",
    ),
    "no segment": (
        lambda desk: tampered(desk, segments=()),
        "expected 1 to 3 segments, got 0",
    ),
    "a second segment that was not given out": (
        lambda desk: more_segments(desk, Segment(2, 0, 1)),
        "expected groups of",
    ),
    "segments in another order": (
        lambda desk: more_segments(desk, desk.begins(1)[0].segments[2]),
        "expected groups of",
    ),
    "the same segment twice": (
        lambda desk: more_segments(desk, desk.begins(1)[0].segments[0]),
        "expected groups of",
    ),
    "more segments than were given out": (
        lambda desk: more_segments(
            desk, *desk.begins(1)[0].segments[1:], Segment(2, 0, 1)
        ),
        "expected 1 to 3 segments, got 4",
    ),
    "too many losses": (
        lambda desk: tampered(desk, losses=losses(5)),
        "expected 4 losses and 1 clean ones, got 5 and 1",
    ),
    "too few losses": (
        lambda desk: tampered(desk, losses=losses(0)),
        "expected 4 losses and 1 clean ones, got 0 and 1",
    ),
    "no clean loss": (
        lambda desk: tampered(desk, clean=losses(0)),
        "expected 4 losses and 1 clean ones, got 4 and 0",
    ),
    "a step to come": (
        lambda desk: tampered(desk, step=desk.coordinator.step + 1),
        "nothing is due of step",
    ),
    "a step far off": (
        lambda desk: tampered(desk, step=(1 << 63) - 1),
        "nothing is due of step",
    ),
    "a step that it has answered": (
        lambda desk: tampered(desk, step=desk.coordinator.step - 1),
        "nothing is due of step",
    ),
    "a step before it joined": (lambda desk: tampered(desk, step=0), "nothing is due"),
    "a state that is too small": (
        lambda desk: state_message(
            TrainState(desk.coordinator.step, 0, *[losses(3)] * 4)
        ),
        "and a mean of .*, got 3 and 3",
    ),
    "a state without the mean of the weights": (
        lambda desk: state_message(
            replace(desk.truth.state(desk.coordinator.step), average=losses(0))
        ),
        "and a mean of .*, got .* and 0",
    ),
    "a state that nobody asked for": (
        lambda desk: state_message(desk.truth.state(desk.coordinator.step)),
        "none was asked for",
    ),
    "a state of the future": (
        lambda desk: state_message(
            replace(desk.start.state, step=desk.coordinator.step + 1)
        ),
        "none was asked for",
    ),
    "a state of the past": (
        lambda desk: state_message(desk.start.state),
        "none was asked for",
    ),
    "another hello": (lambda desk: hello(), "Hello: not a client's message"),
    "an update": (
        lambda desk: desk.truth.updates[0],
        "Update: not a client's message",
    ),
    "tokens": (
        lambda desk: TokenBatch(0, desk.start.corpus.train),
        "TokenBatch: not a client's message",
    ),
    "a begin": (lambda desk: desk.begins(1)[0], "Begin: not a client's message"),
}


def settled(desk: Desk, *others: int) -> None:
    """Hold that the run goes on after client 1 was dropped."""
    step = desk.coordinator.step
    desk.leave(1, "it broke the rules")
    while desk.coordinator.step < step + 2:
        desk.close(*others)
    desk.truth.check()


@pytest.mark.parametrize("name", ILLEGAL)
def test_what_breaks_the_rules_is_refused_and_the_run_goes_on(name: str) -> None:
    make, words = ILLEGAL[name]
    desk = together(1, 2)
    seed = desk.seeds(1)[0]
    step = desk.coordinator.step

    with pytest.raises(ProtocolError, match=words):
        desk.send(1, make(desk))

    settled(desk, 2)
    assert seed not in [s.seed for s in desk.truth.updates[step].segments]


@pytest.mark.parametrize("name", ILLEGAL)
def test_what_breaks_the_rules_is_refused_after_an_answer_too(name: str) -> None:
    make, _ = ILLEGAL[name]
    desk = together(1, 2)
    message = make(desk)
    desk.answer(1)

    with pytest.raises(ProtocolError):
        desk.send(1, message)

    settled(desk, 2)


@pytest.mark.parametrize(
    "name",
    [name for name in ILLEGAL if name not in ("a begin", "no segment")],
)
def test_what_breaks_the_rules_is_refused_in_the_last_step_too(name: str) -> None:
    make, _ = ILLEGAL[name]
    desk = together(1, 2)
    segments = desk.begins(1)
    desk.do(Stop())
    desk.answer(1)
    desk.answer(2)
    desk.send_state(1)
    desk.begins(1)[:] = [replace(desk.begins(1)[0], segments=segments[0].segments)]

    with pytest.raises(ProtocolError):
        desk.send(1, make(desk))

    desk.leave(1, "it broke the rules")
    desk.step(2)
    assert desk.saved() or desk.log.replays


def test_an_answer_that_comes_twice_is_refused() -> None:
    desk = together(1, 2)
    result = desk.result(desk.begins(1)[0])
    desk.send(1, result)

    with pytest.raises(ProtocolError, match="nothing is due of step"):
        desk.send(1, result)

    settled(desk, 2)


def test_an_answer_that_comes_twice_is_refused_after_closing_too() -> None:
    desk = together(1, 2)
    result = desk.result(desk.begins(1)[0])
    desk.send(1, result)
    desk.answer(2)

    with pytest.raises(ProtocolError, match="nothing is due of step"):
        desk.send(1, result)


def test_a_state_that_comes_twice_is_refused() -> None:
    desk = together(1, 2)
    desk.join(3)
    desk.step(1, 2)
    desk.send_state(1)

    with pytest.raises(ProtocolError, match="none was asked for"):
        desk.send_state(1)

    settled(desk, 2, 3)


def test_losses_where_a_digest_alone_was_asked_for_are_refused() -> None:
    desk = together(1, 2)
    desk.do(Stop())
    desk.answer(1)
    desk.answer(2)

    with pytest.raises(ProtocolError, match="expected a digest alone, got losses"):
        desk.send(1, tampered(desk, losses=losses(1)))


@pytest.mark.parametrize("name", ["a segment that was not given out", "no segment"])
def test_illegal_answers_to_blocks_are_refused(name: str) -> None:
    make, _ = ILLEGAL[name]
    desk = blocks_of_two()

    with pytest.raises(ProtocolError, match="no such block is due"):
        desk.send(1, make(desk))

    settled(desk, 2)


def test_a_client_that_is_not_here_is_not_heard() -> None:
    desk = together(1, 2)
    result = desk.result(desk.begins(1)[0])
    desk.leave(1)

    desk.send(1, result)

    assert desk.log.closed == []


def test_nothing_is_sent_to_a_client_that_has_left() -> None:
    desk = together(1, 2)
    desk.answer(1)
    desk.mail(2)

    desk.leave(2)

    assert desk.mail(2) == []

"""Clients that come back: with less to send, or with what the server has lost."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.desk import RUN_SEED, START, hello, lesson
from tests.journaled_runs import same
from tests.wire import Node, Wire
from utilities import returning
from utilities.errors import ProtocolError
from utilities.evolution import Segment, Update, segment_seed
from utilities.history import held
from utilities.ledger import Ledger
from utilities.outbox import Outbox
from utilities.peers import Peer
from utilities.protocol import (
    Message,
    Recall,
    Recalled,
    Resume,
    TokenBatch,
    Welcome,
)
from utilities.returning import ALL_SECONDS, RECALL_SECONDS, Returning, retrace

# --- away for a few steps -------------------------------------------------------------


def away(steps: int, *, node: str = "bob", **keys: Any) -> tuple[Wire, Node]:
    """Return a run in which a client was away for some steps and is back."""
    wire = Wire(**keys)
    wire.node("ann")
    bob = wire.node(node, rejoin=None)
    wire.run_to(4)
    wire.cut(bob)
    wire.run_to(4 + steps)
    wire.log.mail.clear()
    return wire, bob


def got(wire: Wire, node: Node) -> list[Message]:
    """Return what a client was sent since it is back."""
    assert node.link is not None
    return wire.log.mail[node.link.client]


def all_equal(wire: Wire) -> None:
    """Let time pass; hold that all replicas are the true one."""
    wire.run_to(wire.coordinator.step + 3)
    wire.run_for(0.5)
    for node in wire.nodes:
        assert node.errors == []
        assert node.worker.step is not None
        assert node.worker.digest == wire.truth.digest(node.worker.step)
    wire.truth.check()


@pytest.mark.parametrize("encoded", [False, True])
def test_a_client_gets_the_updates_that_it_has_missed(encoded: bool) -> None:
    wire, bob = away(2, encoded=encoded)
    at = bob.worker.step

    wire.connect(bob)
    wire.run_for(0.1)

    resume, *updates = [m for m in got(wire, bob) if isinstance(m, Resume | Update)]
    assert isinstance(resume, Resume)
    assert at is not None
    assert resume.step == at
    steps = [u.step for u in updates if isinstance(u, Update)]
    assert steps[: 6 - at] == list(range(at, 6))
    assert not any(isinstance(m, Welcome | TokenBatch) for m in got(wire, bob))
    all_equal(wire)


def test_a_client_that_missed_more_than_a_state_gets_the_state() -> None:
    wire, bob = away(40, check_point_time=1.0)

    wire.connect(bob)
    wire.run(lambda: (bob.worker.step or 0) > 30, 60.0)

    assert any(isinstance(m, Welcome) for m in got(wire, bob))
    assert not any(isinstance(m, Resume) for m in got(wire, bob))
    all_equal(wire)


def test_a_client_with_another_state_gets_the_state() -> None:
    wire, bob = away(2)
    bob.corrupt()

    wire.connect(bob)
    wire.run_to(wire.coordinator.step + 8)

    assert not bob.deviates
    assert any(isinstance(m, Welcome) for m in got(wire, bob))
    all_equal(wire)


def test_tokens_that_a_client_holds_are_not_sent_again() -> None:
    wire, bob = away(3, new_tokens_interval=2, batch_limit=40)
    held = set(bob.worker.batches)

    wire.connect(bob)
    wire.run_for(0.1)

    sent = {m.number for m in got(wire, bob) if isinstance(m, TokenBatch)}
    assert held
    assert sent
    assert not held & sent
    all_equal(wire)


def blinked(**keys: Any) -> tuple[Wire, Node, Node]:
    """Return a run in which one of three was just cut off and has missed nothing."""
    wire = Wire(**keys)
    ann, bob = wire.node("ann", rejoin=None), wire.node("bob", rejoin=None)
    wire.node("eve")
    wire.run_to(4)
    wire.run_for(0.01)
    wire.cut(bob)
    wire.log.mail.clear()
    assert (ann.worker.step, bob.worker.step) == (4, 4)
    return wire, ann, bob


@pytest.mark.parametrize("aggregation", ["seeds", "sums"])
def test_a_client_that_has_missed_nothing_goes_on_with_the_next_step(
    aggregation: str,
) -> None:
    wire, _, bob = blinked(aggregation=aggregation)
    wire.connect(bob)
    wire.run_to(7)

    sent = [type(message) for message in got(wire, bob)]
    assert sent[:2] == [Resume, Update]
    assert Welcome not in sent
    all_equal(wire)


def test_a_state_that_has_changed_meanwhile_shows_in_its_next_digest() -> None:
    wire, _, bob = blinked()
    bob.corrupt()
    wire.connect(bob)
    wire.run_to(8)

    assert isinstance(got(wire, bob)[0], Resume)
    assert wire.log.said("bob: its digest differs at step 5", warning=True)
    assert not bob.deviates
    all_equal(wire)


@pytest.mark.parametrize("alone", [False, True])
def test_where_its_voice_might_decide_a_client_gets_the_state(alone: bool) -> None:
    wire, _, bob = blinked(**({} if alone else {"trials_per_step": 24}))
    if alone:
        for node in wire.nodes:
            node.rejoin_after = None
            wire.cut(node)
    wire.connect(bob)
    wire.run_for(3.0)

    assert any(isinstance(m, Welcome) for m in got(wire, bob))


# --- ahead of the server --------------------------------------------------------------


def restarted(at: int, back: int, **keys: Any) -> tuple[Wire, Node]:
    """Return a run whose server has lost its last steps and is back."""
    wire = Wire(**keys)
    ann = wire.node("ann", rejoin=None)
    wire.run_to(at)
    wire.run_for(0.05)
    assert ann.worker.step == at
    wire.restart(at - back)
    return wire, ann


@pytest.mark.parametrize("back", [1, 3])
@pytest.mark.parametrize("aggregation", ["seeds", "sums"])
def test_a_client_that_is_ahead_hands_back_what_the_server_has_lost(
    back: int, aggregation: str
) -> None:
    wire, ann = restarted(6, back, aggregation=aggregation, encoded=True)
    before = len(wire.log.closed)

    wire.connect(ann)
    wire.run(lambda: wire.coordinator.step >= 6, 5.0)

    first, last = 6 - back, 5
    assert wire.log.said(f"ann handed back steps {first} to {last}", warning=True)
    again = wire.log.closed[before:]
    assert [closed.step for closed in again] == list(range(first, 6))
    assert [closed.digest for closed in again] == [
        wire.truth.digest(step) for step in range(first, 6)
    ]
    all_equal(wire)


def test_nobody_else_begins_a_step_meanwhile() -> None:
    wire, ann = restarted(6, 2)

    wire.connect(ann)
    eve = wire.node("eve")
    all_equal(wire)

    assert wire.log.said("ann handed back steps 4 to 5")
    assert eve.worker.step == ann.worker.step


def test_who_is_back_already_is_told_of_what_another_hands_back() -> None:
    wire, ann, bob = blinked()
    wire.run_to(6)
    wire.run_for(0.05)
    assert (ann.worker.step, bob.worker.step) == (6, 4)
    wire.nodes[2].rejoin_after = None
    wire.restart(4)

    wire.connect(ann)
    wire.connect(bob)
    wire.run_to(7)

    assert wire.log.said("ann handed back steps 4 to 5")
    assert not any(isinstance(m, Welcome) for m in got(wire, bob))
    all_equal(wire)


def test_once_a_step_was_opened_it_is_too_late_and_said_so() -> None:
    wire, ann = restarted(6, 2)
    wire.log.doubtful = True
    wire.truth.forget(4)
    wire.node("eve")
    wire.run_for(0.1)  # a step is open

    wire.connect(ann)
    wire.run_for(0.1)

    text = "ann was at step 6, which this run has not reached yet: its state is"
    assert wire.log.said(text, warning=True)


def test_a_client_that_remembers_nothing_is_given_the_state_after_a_while() -> None:
    wire, ann = restarted(6, 2)
    ann.worker._recent.forget(99)
    ann.worker._recent._steps.clear()
    wire.truth.forget(4)
    began = wire.now

    wire.connect(ann)
    wire.run(lambda: ann.worker.step == 4, 60.0)

    assert began + RECALL_SECONDS <= wire.now < began + RECALL_SECONDS + 1


def test_a_client_that_leaves_is_not_waited_for() -> None:
    wire, ann = restarted(6, 2)
    wire.truth.forget(4)

    def another_step(message: Message) -> Message:
        assert isinstance(message, Recalled)
        return replace(message, step=9)

    ann.tamper = another_step
    wire.connect(ann)
    wire.node("eve")
    wire.run_to(6)

    assert wire.refusals == ["recalled: expected step 4, got 9"]


def test_a_forged_history_leads_elsewhere_and_is_refused() -> None:
    wire, ann = restarted(6, 2)
    wire.truth.forget(4)

    def forge(message: Message) -> Message:
        assert isinstance(message, Recalled)
        return replace(message, rewards=np.abs(message.rewards))

    ann.tamper = forge
    wire.connect(ann)
    wire.run(lambda: wire.log.said("what ann handed back is not of this run"), 5.0)
    ann.tamper = lambda message: message
    wire.run(lambda: ann.worker.step == 4, 5.0)

    assert wire.coordinator.step == 4


# --- by hand --------------------------------------------------------------------------

LESSON = lesson()
TRIALS = LESSON.setting.config.trials_per_group


class Counter:
    """A server that has just started, and what it says."""

    def __init__(self) -> None:
        self.ledger = Ledger(LESSON.setting, LESSON.state)
        self.outbox = Outbox(LESSON.setting, LESSON.corpus)
        about = LESSON.setting, RUN_SEED, self.ledger, self.outbox
        self.returning = Returning(*about)
        self.ann = Peer(1, "ann")

    def ahead(self, steps: int = 1) -> None:
        """Meet a client that is some steps ahead."""
        notes = self.returning.meet(self.ann, said(steps), 0, START)
        assert notes == []


def said(step: int, digest: bytes = b"d" * 32) -> Any:
    return hello(last_step=step, last_digest=digest)


def update(step: int, slot: int = 0) -> Update:
    segment = Segment(segment_seed(RUN_SEED, step, slot), 0, 1)
    return Update(step, 0, TRIALS, 0.1, (segment,), np.ones(TRIALS, np.int8))


def test_a_new_client_and_one_without_a_known_state_just_wait() -> None:
    desk = Counter()

    assert desk.returning.meet(desk.ann, hello(), 0, START) == []
    assert desk.returning.meet(desk.ann, said(0), 0, START) == []
    assert desk.outbox.flush() == []
    assert not desk.returning.waits(START)
    assert desk.returning.wakeup is None


def test_one_client_at_a_time_is_asked() -> None:
    desk = Counter()
    desk.ahead()
    (send,) = desk.outbox.flush()
    (note,) = desk.returning.meet(Peer(2, "bob"), said(3), 0, START)

    assert send.messages == (Recall(0, desk.ledger.digest),)
    assert note.text.startswith("bob was at step 3")
    assert desk.returning.waits(START + RECALL_SECONDS - 1e-6)
    assert desk.returning.wakeup == START + RECALL_SECONDS
    assert not desk.returning.waits(START + RECALL_SECONDS)


def test_who_come_and_leave_in_turn_do_not_hold_up_a_run_for_ever() -> None:
    desk, asked, now = Counter(), 0, START
    while now < START + 10 * ALL_SECONDS:
        peer = Peer(asked + 1, "ann")
        notes = desk.returning.meet(peer, said(1), 0, now)
        if notes:
            break
        asked, now = asked + 1, now + RECALL_SECONDS - 1.0
        assert desk.returning.waits(min(now, START + ALL_SECONDS) - 1e-6)
        desk.returning.lose(peer)

    assert asked == 4
    assert not desk.returning.waits(now)


def test_more_than_a_client_can_hold_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(returning, "MOST_BYTES", 3 * held(update(0)))
    desk = Counter()
    desk.ahead(5)
    for step in range(3):
        desk.returning.take(desk.ann, update(step))

    with pytest.raises(ProtocolError, match="recalled: more than"):
        desk.returning.take(desk.ann, update(3))


def test_who_is_not_asked_hands_nothing_back() -> None:
    desk = Counter()
    with pytest.raises(ProtocolError, match="step 0 was not asked for"):
        desk.returning.take(desk.ann, update(0))
    desk.ahead()
    with pytest.raises(ProtocolError, match="step 0 was not asked for"):
        desk.returning.take(Peer(2, "bob"), update(0))
    desk.returning.take(desk.ann, update(0))
    with pytest.raises(ProtocolError, match="step 1 was not asked for"):
        desk.returning.take(desk.ann, update(1))


def test_seeds_that_this_server_never_gave_out_are_refused() -> None:
    desk = Counter()
    desk.ahead()
    strange = replace(update(0), segments=(Segment(12345, 0, 1),))

    with pytest.raises(ProtocolError, match="the seeds are not those of step 0"):
        desk.returning.take(desk.ann, strange)
    (order,) = desk.returning.take(desk.ann, update(0, slot=300))

    assert order.updates[0].segments == update(0, slot=300).segments


def test_trials_that_are_there_twice_are_refused() -> None:
    desk = Counter()
    desk.ahead()
    once = update(0)
    twice = replace(
        once,
        trials=2 * TRIALS,
        segments=2 * once.segments,
        rewards=np.ones(2 * TRIALS, np.int8),
    )

    with pytest.raises(ProtocolError, match="the seeds are not those of step 0"):
        desk.returning.take(desk.ann, twice)


@pytest.mark.parametrize("number", [1, 1 << 40])
def test_text_that_no_step_has_used_yet_is_refused(number: int) -> None:
    desk = Counter()
    desk.ahead()

    with pytest.raises(ProtocolError, match=f"of step 0 or before, got {number}"):
        desk.returning.take(desk.ann, replace(update(0), token_batch=number))


def test_what_was_retraced_counts_only_for_who_is_still_here() -> None:
    desk = Counter()
    order = _order(desk, update(0), b"d" * 32)
    found = retrace(LESSON.setting, LESSON.corpus, order)
    assert desk.returning.wakeup is None
    assert desk.returning.waits(START + 1e6), "it is under way"
    desk.returning.lose(Peer(2, "bob"))
    assert desk.returning.waits(START)
    desk.returning.lose(desk.ann)

    assert desk.returning.regain(found, 1.0) == ([], [])
    assert desk.ledger.state.step == 0


def test_what_was_handed_back_becomes_the_accepted_state() -> None:
    desk = Counter()
    update_ = update(0)
    state = retrace(
        *(LESSON.setting, LESSON.corpus),
        _order(desk, update_, b"d" * 32),
    ).state
    digest = state.digest(LESSON.setting.fingerprint)
    desk = Counter()
    found = retrace(LESSON.setting, LESSON.corpus, _order(desk, update_, digest))

    appended, notes = desk.returning.regain(found, 7.0)

    (append,) = appended
    assert append.update is update_
    closed = append.closed
    assert (closed.step, closed.seconds, closed.loss) == (0, 7.0, None)
    assert closed.digest == LESSON.state.digest(LESSON.setting.fingerprint)
    assert [note.warning for note in notes] == [True]
    assert same(desk.ledger.state, state)
    assert desk.ann.ready
    assert desk.ann.since == 1


def test_what_comes_back_after_a_step_was_opened_counts_no_more() -> None:
    desk = Counter()
    order = _order(desk, update(0), b"d" * 32)
    found = retrace(LESSON.setting, LESSON.corpus, order)
    desk.returning.too_late()  # the server is told to end

    assert not desk.returning.waits(START)
    assert desk.returning.regain(found, 1.0) == ([], [])
    assert desk.ledger.state.step == 0


def _order(desk: Counter, update_: Update, digest: bytes) -> Any:
    desk.returning.meet(desk.ann, said(1, digest), 0, START)
    return desk.returning.take(desk.ann, update_)[0]

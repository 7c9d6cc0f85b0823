"""Which state is wanted, from whom, and what becomes of what was sent."""

from dataclasses import replace

import numpy as np

from tests.desk import changed, lesson, state_message
from tests.journaled_runs import entry_of
from utilities.acceptance import Acceptance, Outcome, majority
from utilities.events import Note
from utilities.evolution import TrainState, Update
from utilities.ledger import Check, Purpose, Replay, Save
from utilities.peers import Peer

START = lesson(check_point_time=50.0)
FINGERPRINT = START.setting.fingerprint
NOW = 100.0


def at(step: int) -> TrainState:
    return replace(START.state, step=step)


def digest(step: int) -> bytes:
    return at(step).digest(FINGERPRINT)


def peers(count: int) -> list[Peer]:
    return [Peer(number, f"c{number}", ready=True) for number in range(count)]


def opened(
    step: int, members: list[Peer], *, joiners: bool = False, now: float = NOW
) -> tuple[Acceptance, Peer | None]:
    """Return an acceptance whose step is open, and who is asked for its state."""
    states = Acceptance(START.setting, at(0), NOW)
    for before in range(step):
        nothing = np.zeros(0, np.int8)
        states.ledger.append(Update(before, 0, 0, 0.0, (), nothing), digest(before))
    states.open(step, now, ending=False, joiners=joiners)
    for peer in members:
        peer.owe(step, 200.0, 100.0)
    return states, states.ask(step, members)


def settled(
    states: Acceptance, step: int, members: list[Peer], *agree: Peer
) -> Outcome:
    check = Check(step, digest(step), agree, Purpose(), 7.0)
    return states.settle(check, digest(step), members, NOW)


def kinds(outcome: Outcome) -> list[str]:
    return [type(order).__name__ for order in outcome.orders]


# --- asking ---------------------------------------------------------------------------


def test_a_state_is_wanted_for_joiners_milestones_and_checkpoints_only() -> None:
    assert opened(3, peers(1))[1] is None
    assert opened(3, peers(1), joiners=True)[1] is not None
    assert opened(4, peers(1))[1] is not None  # a power of two
    assert opened(3, peers(1), now=NOW + 50.0)[1] is not None


def test_one_client_is_asked_once_with_its_first_request() -> None:
    ann, bob = peers(2)

    states, asked = opened(3, [ann, bob], joiners=True)

    assert asked is ann
    assert ann.debts[3].state
    assert states.ask(3, [bob]) is None


def test_those_who_were_asked_in_vain_or_are_slow_come_last() -> None:
    slow, vain, ann = members = peers(3)
    slow.waited, vain.asked = False, True

    assert opened(3, members, joiners=True)[1] is ann
    assert opened(3, [slow, vain], joiners=True)[1] is vain
    assert opened(3, [slow], joiners=True)[1] is slow
    assert opened(3, [], joiners=True)[1] is None


def test_while_a_newer_state_is_checked_none_is_wanted_but_for_milestones() -> None:
    for step, wanted in ((3, False), (4, True)):
        ann = peers(1)[0]
        states, _ = opened(2, [])
        states.ledger.check(Check(2, None, (), Purpose(), 1.0))
        states.open(step, NOW, ending=False, joiners=True)
        ann.owe(step, 200.0, 100.0)

        assert (states.ask(step, [ann]) is ann) == wanted


def test_the_last_state_is_wanted_though_another_is_checked() -> None:
    [ann] = peers(1)
    states, _ = opened(3, [])
    states.ledger.check(Check(3, None, (), Purpose(), 1.0))

    states.open(3, NOW, ending=True, joiners=False)
    ann.owe(3, 200.0, 100.0)

    assert states.ask(3, [ann]) is ann


# --- accepting ------------------------------------------------------------------------


def test_a_step_of_which_no_state_is_wanted_has_no_outcome() -> None:
    ann, bob = peers(2)
    states, _ = opened(3, [ann, bob])
    states.offer(ann, state_message(at(3)))

    assert settled(states, 3, [ann, bob], ann, bob) == Outcome()
    assert states.ledger.state.step == 0


def test_a_step_that_is_given_up_wants_none() -> None:
    ann, bob = peers(2)
    states, _ = opened(3, [ann, bob], joiners=True)

    states.abandon()

    assert settled(states, 3, [ann, bob], ann, bob) == Outcome()


def test_a_state_on_which_two_agree_is_accepted() -> None:
    ann, bob = peers(2)
    bob.asked = True
    states, _ = opened(4, [ann, bob])
    states.offer(bob, state_message(changed(at(4))))  # was not asked
    states.offer(ann, state_message(at(4)))

    outcome = settled(states, 4, [ann, bob], ann, bob)

    [save] = outcome.orders
    assert isinstance(save, Save)
    assert (save.state.step, save.digest, save.seconds) == (4, digest(4), 7.0)
    assert outcome.welcome
    assert outcome.taken_out == ()
    assert (states.ledger.state.step, states.ledger.digest) == (4, digest(4))
    assert not bob.asked


def test_the_state_of_a_client_alone_is_checked_by_a_replay() -> None:
    [ann] = peers(1)
    states, _ = opened(3, [ann], joiners=True)
    states.offer(ann, state_message(at(3)))

    outcome = settled(states, 3, [ann], ann)

    [replay] = outcome.orders
    assert isinstance(replay, Replay)
    assert [update.step for update in replay.updates] == [0, 1, 2]
    assert not outcome.welcome


def test_a_client_alone_is_not_checked_twice_at_once() -> None:
    [ann] = peers(1)
    states, _ = opened(3, [ann], joiners=True)
    states.offer(ann, state_message(at(3)))
    states.ledger.check(Check(2, None, (), Purpose(), 1.0))

    assert settled(states, 3, [ann], ann) == Outcome()


def test_a_state_that_is_known_is_accepted_whatever_was_sent() -> None:
    [ann] = peers(1)
    states, _ = opened(0, [ann], joiners=True)

    outcome = settled(states, 0, [ann], ann)

    assert outcome == Outcome(welcome=True)


def test_a_state_that_does_not_hash_to_the_digest_takes_its_sender_out() -> None:
    members = ann, bob, _ = peers(3)
    states, _ = opened(3, members, joiners=True)
    states.offer(ann, state_message(changed(at(3))))

    outcome = settled(states, 3, members, ann, bob)

    assert (outcome.taken_out, outcome.reason) == (
        (ann,),
        "the state it sent is not the one agreed on",
    )
    assert (outcome.orders, outcome.welcome, ann.asked) == ([], True, True)


def test_a_client_that_sends_no_state_is_named_if_it_is_still_here() -> None:
    for here in (True, False):
        ann, bob = peers(2)
        states, _ = opened(3, [ann, bob], joiners=True)

        outcome = settled(states, 3, [ann, bob] if here else [bob], ann, bob)

        words = [order.text for order in outcome.orders if isinstance(order, Note)]
        said = "c0 did not send its state; the next is asked"
        assert words == ([said] if here else [])
        assert outcome.welcome


def test_when_nobody_is_left_to_be_asked_or_time_presses_a_replay_gives_the_state() -> (
    None
):
    for step, count in ((3, 1), (4, 2)):  # nobody else; a milestone
        members = peers(count)
        states, _ = opened(step, members, joiners=True)

        outcome = settled(states, step, members, *members)

        assert kinds(outcome) == ["Note", "Replay"]


# --- replays --------------------------------------------------------------------------


def checked(step: int, claimed: bytes | None, *agreed: Peer) -> Acceptance:
    states, _ = opened(step + 2, [])
    purpose = Purpose(checkpoint=True, milestone=True)
    states.ledger.check(Check(step, claimed, agreed, purpose, 7.0))
    return states


def test_the_servers_own_state_is_the_true_one() -> None:
    [ann] = peers(1)
    states = checked(3, digest(3), ann)

    outcome = states.replayed(at(3), [ann], NOW)

    assert kinds(outcome) == ["Save", "Save"]
    assert (outcome.taken_out, outcome.welcome) == ((), True)
    assert states.ledger.state.step == 3


def test_those_whose_digest_is_not_the_replays_are_taken_out() -> None:
    [ann] = peers(1)
    states = checked(3, b"w" * 32, ann)

    outcome = states.replayed(at(3), [ann], NOW)

    assert outcome.taken_out == (ann,)
    assert outcome.reason == "its digest is not the replay's at step 3"


def test_a_replay_that_was_overtaken_is_saved_to_see_it_learn_and_no_more() -> None:
    states = checked(3, None)
    states.ledger.accept(at(4), digest(4))
    later = Check(5, None, (), Purpose(), 8.0)
    assert states.ledger.check(later) == []

    outcome = states.replayed(at(3), [], NOW)

    assert kinds(outcome) == ["Save", "Replay"]  # the next one
    [save, _] = outcome.orders
    assert isinstance(save, Save)
    assert not save.checkpoint
    assert not outcome.welcome
    assert states.ledger.state.step == 4


# --- the end --------------------------------------------------------------------------


def test_the_last_state_is_replayed_saved_and_written_before_the_end() -> None:
    states, _ = opened(3, [])
    assert states.saved(0)
    assert not states.saved(3)

    orders, done = states.conclude(3, NOW, 7.0)
    assert ([type(order) for order in orders], done) == ([Replay], False)
    assert states.conclude(3, NOW, 7.0) == ([], False)
    states.replayed(at(3), [], NOW)
    assert states.saved(3)
    assert states.conclude(3, NOW, 7.0) == ([], False)

    states.archive.saved()

    assert states.conclude(3, NOW, 7.0) == ([], True)


def test_a_last_state_that_is_known_is_saved_at_once() -> None:
    states, _ = opened(3, [])
    states.ledger.accept(at(3), digest(3))

    orders, done = states.conclude(3, NOW, 7.0)

    [save] = orders
    assert isinstance(save, Save)
    assert (save.checkpoint, save.seconds, done) == (True, 7.0, False)


def test_the_majority_is_more_than_half_of_those_who_vote() -> None:
    one, other = b"1" * 32, b"2" * 32

    assert majority({}) is None
    assert majority({one: [1]}) == one
    assert majority({one: [1], other: [2]}) is None
    assert majority({one: [1], other: [2, 3]}) == other
    assert majority({one: [1, 2], other: [3, 4]}) is None


def test_steps_before_the_state_are_kept_for_who_missed_a_few_of_them() -> None:
    nothing = np.zeros(0, np.int8)
    updates = [Update(step, 0, 0, 0.0, (), nothing) for step in range(3)]
    entries = [entry_of(update, digest(update.step)) for update in updates]
    ledger = Acceptance(START.setting, at(3), NOW, entries=entries).ledger

    assert ledger.missed(1, digest(1)) == (updates[1], updates[2])
    assert ledger.missed(1, digest(2)) is None
    assert ledger.missed(3, digest(3)) == ()
    assert list(ledger) == []

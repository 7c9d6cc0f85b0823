"""The accepted state, the updates since, what is checked, what is due on the disk."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.desk import START as NOW
from tests.desk import lesson, replayed
from utilities import ledger as module
from utilities.evolution import Segment, Setting, TrainState, Update, advance
from utilities.history import SEGMENT_BYTES
from utilities.ledger import Archive, Check, Ledger, Purpose, Replayer
from utilities.peers import REMEMBERED_STEPS

LESSON = lesson()
STATE = LESSON.state


def update(step: int, trials: int = 0) -> Update:
    segments = (Segment(step, 0, trials),) if trials else ()
    return Update(step, 0, trials, 0.0, segments, np.zeros(trials, np.int8))


def at(step: int) -> TrainState:
    return replace(STATE, step=step)


def check(step: int, purpose: Purpose | None = None) -> Check:
    return Check(step, None, (), purpose or Purpose(), 12.0)


def filled(steps: int) -> Ledger:
    ledger = Ledger(LESSON.setting, STATE)
    for step in range(steps):
        ledger.append(update(step, 4), bytes([step % 256]) * 32)
    return ledger


# --- updates --------------------------------------------------------------------------


def test_a_ledger_begins_with_an_accepted_state() -> None:
    ledger = filled(0)

    assert ledger.state is STATE
    assert ledger.digest == STATE.digest(LESSON.setting.fingerprint)
    assert list(ledger) == []


def test_updates_are_kept_until_a_newer_state_is_accepted() -> None:
    ledger = filled(5)

    ledger.accept(at(3), b"3" * 32)

    assert [each.step for each in ledger] == [3, 4]
    assert (ledger.state.step, ledger.digest) == (3, b"3" * 32)
    ledger.accept(at(5), b"5" * 32)
    assert list(ledger) == []


def test_a_ledger_is_large_by_the_number_of_updates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_UPDATES", 3)
    ledger = filled(3)
    large = [ledger.large]

    ledger.append(update(3), b"d" * 32)
    large.append(ledger.large)
    ledger.accept(at(1), b"1" * 32)
    large.append(ledger.large)

    assert large == [False, True, False]


def test_a_ledger_is_large_by_the_bytes_of_rewards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 12 + 3 * SEGMENT_BYTES)
    ledger = filled(3)
    large = [ledger.large]

    ledger.append(update(3, 1), b"d" * 32)
    large.append(ledger.large)
    ledger.accept(at(1), b"1" * 32)
    large.append(ledger.large)

    assert large == [False, True, False]


def test_a_ledger_is_large_by_its_segments_where_each_has_few_trials(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A thousand segments of two trials: 152 bytes each, objects included.
    segments = tuple(Segment(seed, 0, 2) for seed in range(1000))
    crowded = replace(update(0, 2000), segments=segments)
    large = []
    for most in (152_000, 151_999):
        monkeypatch.setattr(module, "MAX_BYTES", most)
        ledger = Ledger(LESSON.setting, STATE)
        ledger.append(crowded, b"d" * 32)
        large.append(ledger.large)

    assert large == [False, True]


def test_a_ledger_is_large_by_the_bytes_of_totals_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 40)
    ledger = filled(0)
    large = []
    for step, width in enumerate((np.int32, np.int64)):
        total = np.ones(4, width)  # 16 and 32 bytes
        ledger.append(replace(update(step), total=total), b"d" * 32)
        large.append(ledger.large)
    ledger.accept(at(1), b"1" * 32)
    large.append(ledger.large)

    assert large == [False, True, False]


def test_a_digest_counts_before_its_update_is_there() -> None:
    ledger = filled(2)

    ledger.agree(2, b"2" * 32)

    assert ledger.contradicts(2, b"3" * 32)
    assert not ledger.contradicts(2, b"2" * 32)
    assert [each.step for each in ledger] == [0, 1]


def test_digests_of_recent_steps_are_remembered() -> None:
    ledger = filled(REMEMBERED_STEPS + 10)

    assert not ledger.contradicts(20, bytes([20]) * 32)
    assert ledger.contradicts(20, bytes([21]) * 32)
    assert not ledger.contradicts(9, b"anything")  # too long ago
    assert not ledger.contradicts(1000, b"anything")


# --- checks ---------------------------------------------------------------------------


def test_a_replay_applies_the_updates_up_to_the_step_of_its_check() -> None:
    ledger = filled(5)

    [replay] = ledger.check(check(3))

    assert replay.state is STATE
    assert [each.step for each in replay.updates] == [0, 1, 2]
    assert ledger.checking
    assert ledger.replayed() == check(3)
    assert not ledger.checking


def test_replays_run_one_after_the_other() -> None:
    ledger = filled(5)
    ledger.check(check(2))

    assert ledger.check(check(4)) == []
    assert ledger.next_replay() == []
    ledger.replayed()
    ledger.accept(at(2), b"2" * 32)
    [replay] = ledger.next_replay()

    assert (replay.state.step, [each.step for each in replay.updates]) == (2, [2, 3])
    ledger.replayed()
    assert ledger.next_replay() == []


def test_a_step_is_checked_once() -> None:
    ledger = filled(5)
    ledger.check(check(2))
    ledger.check(check(2))
    ledger.check(check(4))
    ledger.check(check(4))

    assert ledger.replayed().step == 2
    assert len(ledger.next_replay()) == 1
    assert ledger.replayed().step == 4
    assert ledger.next_replay() == []


def test_checks_up_to_an_accepted_state_are_not_run_any_more() -> None:
    ledger = filled(8)
    for step in (2, 4, 5, 7):
        ledger.check(check(step))

    ledger.accept(at(5), b"5" * 32)

    assert ledger.replayed().step == 2  # it was running
    [replay] = ledger.next_replay()
    assert [each.step for each in replay.updates] == [5, 6]
    assert ledger.replayed().step == 7


def test_the_check_of_a_milestone_outlives_a_newer_accepted_state() -> None:
    ledger = filled(9)
    for step in (2, 4, 5, 7):
        ledger.check(check(step, Purpose(milestone=step == 4)))

    ledger.accept(at(5), b"5" * 32)

    assert ledger.replayed().step == 2
    [first] = ledger.next_replay()
    assert ledger.replayed().step == 7  # what others wait for goes first
    [second] = ledger.next_replay()
    assert ledger.replayed() == check(4, Purpose(milestone=True))
    assert (first.state.step, [u.step for u in first.updates]) == (5, [5, 6])
    assert (second.state.step, [u.step for u in second.updates]) == (0, [0, 1, 2, 3])
    assert ledger.next_replay() == []


def test_a_milestone_that_is_accepted_itself_is_not_checked() -> None:
    ledger = filled(5)
    ledger.check(check(2))
    ledger.check(check(4, Purpose(milestone=True)))

    ledger.accept(at(4), b"4" * 32)

    ledger.replayed()
    assert ledger.next_replay() == []


def test_only_replays_past_the_accepted_state_will_give_a_newer_one() -> None:
    ledger = filled(9)
    seen = [ledger.confirming]
    for step in (2, 4):
        ledger.check(check(step, Purpose(milestone=True)))
        seen.append(ledger.confirming)
    ledger.accept(at(5), b"5" * 32)
    seen.append(ledger.confirming)
    ledger.check(check(7))
    seen.append(ledger.confirming)

    assert seen == [False, True, True, False, True]
    assert ledger.checking


@pytest.mark.parametrize("queued", [False, True])
def test_two_checks_of_a_step_are_one_for_what_both_want(queued: bool) -> None:
    ledger = filled(5)
    if queued:
        ledger.check(check(2))
    claimed = replace(check(4, Purpose(milestone=True)), digest=b"4" * 32)
    for each in (check(4), claimed, check(4, Purpose(checkpoint=True))):
        ledger.check(each)
    if queued:
        ledger.replayed()
        ledger.next_replay()

    assert ledger.replayed() == replace(claimed, purpose=Purpose(True, True))
    assert ledger.next_replay() == []


def test_a_replay_that_nobody_ordered_is_a_fault_of_the_shell() -> None:
    with pytest.raises(AssertionError, match="no replay was under way"):
        filled(1).replayed()


# --- replays --------------------------------------------------------------------------


def trained(steps: int) -> Ledger:
    """Return a ledger whose updates change the weights."""
    ledger = Ledger(LESSON.setting, STATE)
    for step in range(steps):
        rewards = np.array([126, -126, 42, 0], np.int8)
        update = Update(step, 0, 4, 0.1, (Segment(step, 0, 1),), rewards)
        ledger.append(update, bytes([step]) * 32)
    return ledger


def test_a_replay_comes_to_the_state_that_the_updates_lead_to() -> None:
    replay = trained(3).before(2)

    state = Replayer(LESSON.setting, LESSON.corpus).state(replay)

    assert state.step == 2
    true = replayed(LESSON, replay)
    assert state.weights.tobytes() == true.weights.tobytes()
    assert state.weights.tobytes() != STATE.weights.tobytes()


def test_a_replay_goes_on_where_the_last_one_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    applied: list[int] = []

    def counted(setting: Setting, state: TrainState, *rest: Any) -> TrainState:
        applied.append(state.step)
        return advance(setting, state, *rest)

    monkeypatch.setattr(module, "advance", counted)
    ledger, replayer = trained(6), Replayer(LESSON.setting, LESSON.corpus)
    digests = []
    for step in (3, 3, 5, 4):  # further, as far, and back again
        state = replayer.state(ledger.before(step))
        assert state.step == step
        digests.append(state.digest(LESSON.setting.fingerprint))

    assert applied == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    replays = [ledger.before(step) for step in (3, 3, 5, 4)]
    true = [replayed(LESSON, replay) for replay in replays]
    assert digests == [each.digest(LESSON.setting.fingerprint) for each in true]


def test_a_replay_from_another_state_begins_there() -> None:
    ledger, replayer = trained(5), Replayer(LESSON.setting, LESSON.corpus)
    replayer.state(ledger.before(3))
    weights = STATE.weights + np.float32(1)
    ledger.accept(replace(at(2), weights=weights), b"2" * 32)

    state = replayer.state(ledger.before(4))

    assert state.step == 4
    true = replayed(LESSON, ledger.before(4))
    assert state.weights.tobytes() == true.weights.tobytes()
    assert (
        state.weights.tobytes()
        != replayed(LESSON, trained(5).before(4)).weights.tobytes()
    )


# --- the archive ----------------------------------------------------------------------


def archive(step: int = 0, **keys: Any) -> Archive:
    return Archive(lesson(**keys).setting.config, step, NOW)


def test_powers_of_two_are_milestones() -> None:
    due = [step for step in range(70) if archive().due(step, NOW)]

    assert due == [1, 2, 4, 8, 16, 32, 64]
    assert archive().due(8, NOW) == Purpose(milestone=True)


def test_a_checkpoint_is_due_each_interval() -> None:
    saves = archive(check_point_time=50.0)
    assert not saves.due(5, NOW + 49.9)
    assert saves.due(5, NOW + 50.0) == Purpose(checkpoint=True)

    [save] = saves.save(
        at(5), b"5" * 32, check(5, Purpose(checkpoint=True)), NOW + 60.0
    )

    assert (save.state.step, save.digest, save.seconds) == (5, b"5" * 32, 12.0)
    assert save.checkpoint
    saves.saved()
    assert not saves.due(6, NOW + 109.9)
    assert saves.due(6, NOW + 110.0)


def test_a_state_can_be_a_milestone_and_a_checkpoint() -> None:
    saves = archive(check_point_time=50.0)
    purpose = saves.due(4, NOW + 50.0)
    assert purpose == Purpose(checkpoint=True, milestone=True)

    orders = saves.save(at(4), b"4" * 32, check(4, purpose), NOW + 50.0)

    assert [order.checkpoint for order in orders] == [False, True]
    saves.saved()
    assert saves.writing
    saves.saved()
    assert not saves.writing


def test_a_step_that_is_saved_is_not_due_again() -> None:
    saves = archive(8, check_point_time=50.0)

    assert not saves.due(8, NOW + 1000.0, ending=True)
    assert saves.due(9, NOW, ending=True) == Purpose(checkpoint=True)


def test_no_checkpoint_but_the_last_is_due_while_one_is_written() -> None:
    saves = archive(check_point_time=50.0)
    saves.save(at(5), b"5" * 32, check(5, Purpose(checkpoint=True)), NOW)

    assert not saves.due(6, NOW + 1000.0)
    assert saves.due(6, NOW + 1000.0, ending=True)
    assert saves.due(8, NOW + 1000.0) == Purpose(milestone=True)


def test_what_nobody_wants_is_not_saved() -> None:
    saves = archive()

    assert saves.save(at(5), b"5" * 32, check(5), NOW) == []
    assert not saves.writing
    assert saves.newest == 0

"""Which state the server takes for the true one, what it saves, and how a run ends."""

from typing import Any

import pytest

from tests.desk import (
    RUN_SEED,
    START,
    Desk,
    answer_wrongly,
    changed,
    state_message,
    together,
)
from utilities import ledger
from utilities.events import Stop
from utilities.evolution import Update, segment_seed
from utilities.ledger import Replayed, Saved
from utilities.opening import Limits
from utilities.protocol import (
    Begin,
    Goodbye,
    Welcome,
)

# --- digests --------------------------------------------------------------------------


def test_a_minority_is_told_left_out_and_given_the_true_state() -> None:
    desk = together(1, 2, 3)
    step = desk.coordinator.step
    lost = desk.seeds(3)

    desk.answer(1)
    answer_wrongly(desk, 3)
    desk.answer(2)

    closed = desk.log.closed[0]
    assert (closed.clients, closed.trials) == (2, 8)
    assert lost[0] not in [s.seed for s in desk.truth.updates[step].segments]
    words = f"c3: its digest differs at step {step}; its state is replaced"
    assert desk.log.said(words, warning=True)
    assert desk.mail(3) == []
    assert desk.asked(1)

    desk.step(1)
    desk.step(2)

    welcome, _, update, begin = desk.mail(3)
    assert isinstance(welcome, Welcome)
    assert welcome.reason == f"its digest differs at step {step}"
    assert (welcome.step, welcome.digest) == (step + 1, desk.truth.digest(step + 1))
    assert isinstance(update, Update)
    assert isinstance(begin, Begin)
    desk.answer(1)
    desk.answer(2)
    desk.answer(3)
    assert desk.log.closed[-1].clients == 3


def test_without_a_majority_closing_waits_for_the_replay() -> None:
    desk = together(1, 2)
    step = desk.coordinator.step
    desk.answer(1)
    answer_wrongly(desk, 2)
    assert desk.log.closed == []
    [replay] = desk.log.replays
    assert [update.step for update in replay.updates][-1] == step - 1
    desk.tick(100.0)
    assert (desk.log.closed, len(desk.log.replays)) == ([], 1)

    desk.replay()

    assert (desk.log.closed[0].clients, desk.log.closed[0].trials) == (1, 4)
    assert desk.log.said("c2: its digest differs", warning=True)
    welcome, *rest = desk.mail(2)
    assert isinstance(welcome, Welcome)
    assert welcome.step == step
    assert [type(message).__name__ for message in rest][-2:] == ["Update", "Begin"]


def test_a_late_third_answer_can_settle_a_split() -> None:
    desk = together(1, 2, 3)
    desk.answer(1)
    answer_wrongly(desk, 2)
    desk.tick(10.0)
    assert len(desk.log.replays) == 1

    desk.answer(3)

    assert desk.log.closed[0].clients == 2
    desk.replay()  # comes too late to matter
    assert desk.log.said("c2: its digest differs")
    assert not desk.log.said("c3")


def test_when_nobody_agrees_with_the_replay_the_step_is_void_and_all_are_replaced() -> (
    None
):
    desk = together(1, 2)
    step = desk.coordinator.step
    answer_wrongly(desk, 1)
    answer_wrongly(desk, 2)

    desk.replay()

    closed = desk.log.closed[0]
    assert (closed.step, closed.trials, closed.clients) == (step, 0, 0)
    assert closed.loss is None
    assert desk.truth.updates[step].trials == 0
    for client in (1, 2):
        kinds = desk.kinds(client)
        assert kinds[0] == "Welcome"
        assert kinds[-2:] == ["Update", "Begin"]
        assert desk.log.said(f"c{client}: its digest differs", warning=True)
    desk.answer(1)
    desk.answer(2)
    assert desk.log.closed[1].clients == 2


def test_replicas_that_leave_while_their_split_is_replayed_are_not_named() -> None:
    desk = together(1, 2)
    answer_wrongly(desk, 1)
    answer_wrongly(desk, 2)
    desk.leave(1)
    desk.leave(2)

    desk.replay()
    desk.join(3)
    desk.answer(3)

    assert not desk.log.said("replaced")
    assert desk.log.closed[0].clients == 1


def test_one_that_leaves_while_a_split_is_replayed_is_not_named_but_left_out() -> None:
    desk = together(1, 2, 3)
    step = desk.coordinator.step
    desk.answer(1)
    answer_wrongly(desk, 2)
    desk.tick(10.0)
    desk.leave(2)

    desk.replay()

    assert not desk.log.said("replaced")
    assert desk.log.closed[0].clients == 1
    assert len(desk.truth.updates[step].segments) == 1


def test_a_replica_that_is_to_be_replaced_may_leave_instead() -> None:
    desk = together(1, check_point_time=50.0)
    desk.log.doubtful = True
    desk.tick(60.0)
    desk.answer(1)
    wrong = changed(desk.truth.state(desk.coordinator.step))
    desk.send_state(1, wrong)
    desk.answer(1, digest=wrong.digest(desk.start.setting.fingerprint))
    desk.replay()

    desk.leave(1)

    assert desk.join(2) != []
    desk.answer(2)
    assert desk.log.closed[-1].clients == 1


def test_a_silent_client_does_not_keep_replaced_ones_from_taking_part() -> None:
    desk = together(1, 2, 3)
    answer_wrongly(desk, 1)
    answer_wrongly(desk, 2)
    desk.tick(10.0)

    desk.replay()

    assert desk.log.closed[0].trials == 0
    assert [desk.peer(client).ready for client in (1, 2, 3)] == [True] * 3
    desk.answer(1)
    desk.answer(2)
    assert desk.log.closed[1].clients == 2


def test_at_the_step_of_the_accepted_state_its_digest_alone_is_true() -> None:
    desk = Desk()
    desk.join(1)

    desk.answer(1, digest=b"x" * 32)

    assert desk.log.said("c1: its digest differs at step 0", warning=True)
    assert desk.log.closed[0].trials == 0
    assert desk.log.replays == []
    assert "Welcome" in desk.kinds(1)


def test_a_lone_client_whose_state_is_wrong_is_caught_at_the_next_check() -> None:
    desk = together(1)
    step = desk.coordinator.step
    desk.log.doubtful = True
    answer_wrongly(desk, 1)  # nobody can tell
    assert desk.log.closed[0].clients == 1
    desk.join(2)
    answer_wrongly(desk, 1)
    wrong = changed(desk.truth.state(step + 2))
    digest = wrong.digest(desk.start.setting.fingerprint)
    desk.send_state(1, wrong)
    desk.answer(1, digest=digest)
    assert desk.mail(2) == []
    desk.mail(1)

    desk.replay()

    words = f"c1: its digest is not the replay's at step {step + 2}"
    assert desk.log.said(words, warning=True)
    assert desk.kinds(2)[-1] == "Begin"  # the joiner begins the step anew
    assert desk.mail(1) == []  # what it is at work on comes from the old state
    desk.answer_late(1)
    desk.answer(2)
    assert desk.log.closed[-1].clients == 1
    desk.step(2)
    if desk.log.replays:
        desk.replay()
    desk.step(2)
    assert desk.peer(1).ready


def test_a_lone_client_that_is_replaced_within_a_step_gets_the_step_anew() -> None:
    desk = together(1, check_point_time=50.0)
    desk.log.doubtful = True
    desk.tick(60.0)
    desk.answer(1)
    step = desk.coordinator.step
    wrong = changed(desk.truth.state(step))
    desk.send_state(1, wrong)
    desk.answer(1, digest=wrong.digest(desk.start.setting.fingerprint))
    desk.mail(1)
    old = desk.seeds(1)

    desk.replay()
    assert desk.mail(1) == []
    assert desk.coordinator.wakeup(desk.now) is None
    desk.answer(1, digest=b"w" * 32)

    welcome, *rest = desk.mail(1)
    assert isinstance(welcome, Welcome)
    assert (welcome.step, welcome.reason[:10]) == (step, "its digest")
    assert desk.seeds(1)[0] == segment_seed(RUN_SEED, step + 1, len(old))
    assert isinstance(rest[-1], Begin)
    desk.answer(1)
    assert [s.seed for s in desk.truth.updates[step + 1].segments] == [
        segment_seed(RUN_SEED, step + 1, len(old))
    ]
    [save] = desk.log.saves
    assert save.state.step == step


def test_a_late_answer_shows_that_a_replica_differs_too() -> None:
    desk = together(1, 2)
    step = desk.coordinator.step
    desk.answer(1)
    desk.tick(10.0)
    desk.mail(2)

    desk.answer_late(2, digest=b"w" * 32)

    words = f"c2: its digest differed at step {step}; its state is replaced"
    assert desk.log.said(words, warning=True)
    desk.answer(1)
    assert desk.mail(2) == []  # it still has to answer the newest request
    desk.answer_late(2, digest=b"w" * 32)
    desk.step(1)
    if desk.log.replays:
        desk.replay()
    assert desk.kinds(2)[0] == "Welcome"


def test_a_late_answer_from_before_a_new_state_is_not_held_against_it() -> None:
    desk = together(1, 2, 3)
    first = desk.begins(3)[0]
    desk.answer(1)
    desk.answer(2)
    desk.tick(10.0)  # without client 3
    answer_wrongly(desk, 3)
    desk.answer(1)
    desk.answer(2)
    desk.step(1)
    desk.step(2)
    assert desk.peer(3).ready
    desk.log.notes.clear()

    desk.send(3, desk.result(first, digest=b"w" * 32))

    assert not desk.log.said("differed")
    assert desk.peer(3).ready


def test_a_state_that_does_not_hash_to_the_agreed_digest_is_refused() -> None:
    desk = together(1, 2, 3)
    desk.join(4)
    desk.step(1, 2, 3)
    step = desk.coordinator.step
    assert desk.asked(1)

    desk.send_state(1, changed(desk.truth.state(step)))
    for client in (1, 2, 3):
        desk.answer(client)

    words = "c1: the state it sent is not the one agreed on; its state is replaced"
    assert desk.log.said(words, warning=True)
    for client in (1, 4):
        [welcome, *_] = [m for m in desk.mail(client) if isinstance(m, Welcome)]
        assert welcome.step < step
    assert desk.log.closed[-1].trials == 12  # its losses were those of the true state
    desk.join(5)
    desk.step(1, 2, 3, 4)
    assert [desk.asked(client) for client in (1, 2, 3, 4)] == [
        *(False, True),
        *(False, False),
    ]


def test_a_state_that_comes_after_its_step_has_closed_is_not_used() -> None:
    desk = together(1, 2)
    desk.join(3)
    desk.step(1, 2)
    step = desk.coordinator.step
    desk.answer(2)
    desk.tick(10.0)
    assert desk.log.said("c1 did not send its state")

    desk.send(1, state_message(changed(desk.truth.state(step))))

    assert desk.log.drops == []
    desk.answer_late(1)
    assert desk.peer(1).ready


# --- saving ---------------------------------------------------------------------------


def test_the_weights_of_steps_that_are_powers_of_two_are_saved() -> None:
    desk = Desk()
    desk.join(1)

    desk.steps(20, 1)

    assert desk.saved() == [(1, False), (2, False), (4, False), (8, False), (16, False)]


def test_milestones_are_not_missed_while_replays_take_long() -> None:
    desk = Desk()
    desk.join(1)
    for _ in range(9):
        desk.step(1)
    assert len(desk.log.replays) == 1  # one after the other

    while desk.log.replays:
        desk.replay()

    assert desk.saved() == [(1, False), (2, False), (4, False), (8, False)]


def test_a_milestone_is_saved_though_a_newer_state_was_accepted_meanwhile() -> None:
    desk = Desk()
    desk.join(1)
    desk.answer(1)
    desk.join(2)
    desk.step(1)  # the milestone 1 is checked
    desk.step(1)  # the milestone 2 waits for its turn
    desk.replay()
    desk.step(1)
    assert len(desk.log.replays) == 1

    desk.step(1, 2)  # two agree on the milestone 4
    desk.replay()

    assert desk.saved() == [(1, False), (4, False), (2, False)]


def overtaken(**keys: Any) -> Desk:
    """Return a run at step 9 whose replay for step 1 is still under way."""
    desk = Desk(time_per_step=1000.0, **keys)
    desk.join(1)
    desk.answer(1, 2.0)
    desk.join(2)
    for _ in range(3):
        desk.step(1)  # checks of 1 and 2
    desk.answer(1)  # asked at 4, in vain: the joiner has to go through all updates
    while desk.coordinator.step < 9:
        desk.step(1, 2)
    assert len(desk.log.replays) == 1
    return desk


def test_milestones_that_a_newer_accepted_state_overtakes_are_replayed_and_saved() -> (
    None
):
    desk = overtaken()  # checks of 2 and 4 were waiting

    assert desk.saved() == [(8, False)]
    for saved in (1, 2, 4):
        desk.replay()
        assert desk.saved()[-1] == (saved, False)
    assert desk.log.replays == []
    assert desk.coordinator.step == 9


def test_a_joiner_does_not_wait_for_the_replay_of_an_overtaken_milestone() -> None:
    desk = overtaken()
    desk.join(3)
    desk.step(1, 2)

    desk.step(1, 2)

    assert desk.peer(3).ready
    assert len(desk.log.replays) == 1


@pytest.mark.parametrize("why", ["it leaves", "it is late", "it sends none"])
def test_a_milestone_whose_state_nobody_sends_is_replayed(why: str) -> None:
    desk = together(1, 2)
    while desk.coordinator.step < 16:
        desk.step(1, 2)
    asked, other = (1, 2) if desk.asked(1) else (2, 1)

    if why == "it leaves":
        desk.leave(asked)
    elif why == "it sends none":
        desk.answer(asked)
    desk.answer(other)
    desk.tick(100.0)
    assert (desk.coordinator.step, desk.saved()) == (17, [])
    desk.replay()

    assert desk.saved() == [(16, False)]


def test_a_milestone_is_saved_though_a_third_answer_settles_its_split() -> None:
    desk = together(1, 2, 3)
    while desk.coordinator.step < 16:
        desk.step(1, 2, 3)
    asked = next(client for client in (1, 2, 3) if desk.asked(client))
    late, wrong = (client for client in (1, 2, 3) if client != asked)
    desk.answer(asked)  # without its state
    answer_wrongly(desk, wrong)
    desk.tick(10.0)
    assert len(desk.log.replays) == 1

    desk.answer(late)
    desk.replay()

    assert desk.saved() == [(16, False)]
    assert desk.log.replays == []


def test_an_overtaken_state_is_not_resumed_from() -> None:
    desk = overtaken(check_point_time=1.0)
    assert desk.saved() == [(8, False), (8, True)]

    desk.replay()

    assert desk.saved()[2:] == [(1, False)]


def test_a_run_does_not_end_before_a_replay_that_is_under_way() -> None:
    desk = overtaken()
    desk.do(Stop())
    for client in (1, 2, 1, 2):
        desk.step(client)
    assert desk.saved() == [(8, False), (10, True)]
    for _ in (1, 2, 4):
        desk.write()
        assert not desk.over()
        desk.replay()
    desk.write()

    assert desk.over()
    assert desk.saved()[2:] == [(1, False), (2, False), (4, False)]


def test_a_checkpoint_is_taken_each_check_point_time_from_one_client() -> None:
    desk = together(1, 2, check_point_time=50.0, time_per_step=1000.0)
    step = desk.coordinator.step
    desk.tick(49.0)
    desk.step(1, 2)
    assert not desk.asked(1)

    desk.tick(1.0)
    desk.step(1, 2)
    assert [desk.asked(1), desk.asked(2)] == [True, False]
    desk.step(1, 2)

    assert desk.saved() == [(step + 2, True)]
    [save] = desk.log.saves
    assert save.digest == desk.truth.digest(step + 2)
    assert save.seconds == desk.now - START
    assert not desk.asked(1)
    desk.write()
    desk.tick(51.0)
    desk.step(1, 2)
    assert desk.asked(1)


def test_no_second_checkpoint_is_taken_while_one_is_being_written() -> None:
    desk = together(1, 2, check_point_time=50.0, time_per_step=1000.0)
    desk.tick(50.0)
    desk.steps(2, 1, 2)
    assert len(desk.saved()) == 1

    desk.tick(100.0)
    desk.steps(2, 1, 2)
    assert len(desk.saved()) == 1

    desk.write()
    desk.steps(2, 1, 2)
    assert len(desk.saved()) == 2


def test_the_seconds_of_earlier_sessions_count() -> None:
    desk = Desk(seconds=500.0, check_point_time=50.0)
    desk.join(1)

    desk.answer(1, 60.0)

    assert desk.log.closed[0].seconds == 560.0
    desk.step(1)
    desk.replay()
    assert desk.log.saves[-1].seconds == 560.0


def test_a_replay_that_fails_a_lone_client_is_saved_in_its_place() -> None:
    desk = together(1, check_point_time=50.0)
    desk.log.doubtful = True
    desk.tick(60.0)
    desk.answer(1)
    step = desk.coordinator.step
    wrong = changed(desk.truth.state(step))

    desk.send_state(1, wrong)
    desk.answer(1, digest=wrong.digest(desk.start.setting.fingerprint))
    assert desk.saved() == []
    desk.replay()

    assert desk.saved() == [(step, True)]
    assert desk.log.saves[0].digest == desk.truth.digest(step)


def test_a_state_is_asked_for_before_the_updates_grow_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "MAX_UPDATES", 5)
    desk = together(1, 2)
    asked = []
    for _ in range(12):
        asked.append(desk.asked(1))
        desk.step(1, 2)

    # One update is left of each state that is accepted: that of its own step.
    assert asked == [*[False] * 4, True, *[False] * 5, True, False]
    assert desk.saved() == [(16, False)]


def test_updates_do_not_pile_up_though_nobody_sends_a_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger, "MAX_UPDATES", 5)
    desk = together(1, 2)
    sizes = []
    for _ in range(20):
        desk.answer(1)
        desk.answer(2)
        while desk.log.replays:
            sizes.append(len(desk.log.replays[0].updates))
            desk.replay()

    assert len(sizes) >= 2
    assert max(sizes) <= 8


# --- the end --------------------------------------------------------------------------


def test_a_stop_before_any_step_ends_at_once() -> None:
    desk = Desk()

    desk.do(Stop())

    assert desk.over()
    assert desk.coordinator.finished
    assert desk.saved() == []


def test_a_stop_finishes_the_step_and_asks_for_a_last_digest_and_state() -> None:
    desk = together(1, 2)
    step = desk.coordinator.step
    desk.answer(1)
    desk.do(Stop())
    desk.do(Stop())
    assert desk.log.closed == []
    desk.answer(2)
    assert [closed.step for closed in desk.log.closed] == [step]
    assert desk.begins(1) == [Begin(step + 1, 1.0, 0, True, ())]
    assert desk.begins(2) == [Begin(step + 1, 1.0, 0, False, ())]

    desk.step(1)
    assert not desk.over()
    desk.step(2)
    assert desk.saved() == [(step + 1, True)]
    assert not desk.over()
    assert desk.log.drops == []

    desk.write()

    assert desk.over()
    goodbyes = [(drop.client, drop.goodbye.end) for drop in desk.log.drops]
    assert goodbyes == [(1, "finished"), (2, "finished")]
    assert desk.coordinator.step == step + 1
    assert len(desk.log.closed) == 1


def test_a_lone_client_that_stops_is_checked_by_a_replay() -> None:
    desk = together(1)
    desk.answer(1)
    desk.do(Stop())
    desk.answer(1)

    desk.step(1)
    assert desk.saved() == []
    desk.replay()

    step = desk.coordinator.step
    assert desk.saved() == [(step, True)]
    desk.write()
    assert desk.over()


def test_a_last_state_that_comes_while_another_is_checked_is_checked_after_it() -> None:
    desk = together(1)
    desk.join(2)
    desk.step(1)
    desk.step(1)
    assert len(desk.log.replays) == 1
    desk.leave(2)
    desk.do(Stop())
    desk.step(1)
    desk.step(1)
    step = desk.coordinator.step

    desk.replay()
    assert desk.saved() == []
    desk.replay()

    assert desk.saved() == [(step, True)]


def test_a_stop_with_all_clients_gone_saves_the_replay() -> None:
    desk = together(1, 2)
    desk.step(1, 2)
    desk.leave(1)
    desk.leave(2)
    step = desk.coordinator.step

    desk.do(Stop())
    assert (len(desk.log.replays), desk.over()) == (1, False)
    desk.tick(5.0)
    assert len(desk.log.replays) == 1
    desk.replay()

    assert desk.saved() == [(step, True)]
    desk.write()
    assert desk.over()


def test_a_stop_at_a_milestone_saves_it_as_such_too() -> None:
    desk = Desk()
    desk.join(1)
    desk.steps(4, 1)
    desk.log.saves.clear()
    desk.leave(1)

    desk.do(Stop())
    desk.replay()

    assert desk.saved() == [(4, False), (4, True)]
    for _ in range(3):  # the milestones 1 and 2 as well
        desk.do(Saved(1))
    assert not desk.over()
    desk.do(Saved(4))
    assert desk.over()


def test_a_stop_while_a_replay_runs_waits_for_it() -> None:
    desk = together(1, 2)
    step = desk.coordinator.step
    answer_wrongly(desk, 1)
    desk.answer(2)

    desk.do(Stop())
    desk.leave(1)
    desk.leave(2)
    assert (len(desk.log.replays), desk.over()) == (1, False)
    desk.replay()

    assert desk.saved() == [(step, True)]
    desk.write()
    assert desk.over()


def test_a_stop_of_silent_clients_does_not_wait_for_a_result() -> None:
    desk = together(1)
    desk.tick(10.0)

    desk.do(Stop())
    desk.replay()
    desk.write()

    assert desk.over()
    assert desk.log.drops[0].client == 1


def test_a_stop_ends_a_step_at_the_deadline_if_nobody_answers() -> None:
    desk = together(1)
    step = desk.coordinator.step
    desk.do(Stop())
    due = desk.coordinator.wakeup(desk.now)
    assert due is not None

    desk.tick(due - desk.now)

    assert len(desk.log.replays) == 1
    desk.replay()
    assert desk.saved() == [(step, True)]


def test_a_last_step_that_nobody_answers_is_settled_by_the_replay() -> None:
    desk = together(1)
    desk.do(Stop())
    desk.answer(1)
    step = desk.coordinator.step
    due = desk.coordinator.wakeup(desk.now)
    assert due is not None
    assert due - desk.now == pytest.approx(0.01 + 0.25)  # no trials

    desk.tick(due - desk.now)
    desk.replay()

    assert desk.saved() == [(step, True)]
    desk.write()
    assert desk.over()


def test_a_client_that_joins_while_the_run_ends_is_told_so() -> None:
    desk = together(1, 2)
    desk.step(1, 2)
    desk.do(Stop())
    desk.leave(1)
    desk.leave(2)
    [*_, begin] = desk.join(3)
    assert isinstance(begin, Begin)
    assert begin.segments == ()
    desk.replay()
    desk.step(3)
    desk.write()
    assert desk.over()
    assert desk.log.drops[-1].client == 3

    assert desk.join(4) == []

    assert desk.log.drops[-1].client == 4
    assert desk.log.drops[-1].goodbye == Goodbye("finished", "the run has ended")


def test_a_joiner_during_the_last_step_does_not_disturb_it() -> None:
    desk = together(1, 2)
    desk.do(Stop())
    desk.answer(1)
    desk.answer(2)
    desk.join(3)

    desk.step(1)
    desk.step(2)
    desk.write()

    assert desk.over()
    assert [drop.client for drop in desk.log.drops] == [1, 2, 3]


def test_a_run_ends_after_its_last_step() -> None:
    desk = Desk(limits=Limits(last_step=3))
    desk.join(1)

    desk.steps(3, 1)

    assert desk.coordinator.step == 3
    assert desk.begins(1)[0].segments == ()
    desk.step(1)
    while desk.log.replays:
        desk.replay()
    assert desk.saved()[-1] == (3, True)


def test_a_run_ends_when_its_time_is_over() -> None:
    desk = Desk(limits=Limits(end=START + 10.0))
    assert desk.coordinator.wakeup(desk.now) == START + 10.0
    desk.join(1)
    desk.steps(3, 1)

    desk.tick(10.0)
    assert desk.coordinator.wakeup(desk.now) is None  # the step's deadline has passed
    while desk.log.replays:
        desk.replay()

    assert desk.saved()[-1] == (3, True)
    for _ in desk.saved():
        desk.write()
    assert desk.over()


def test_a_run_whose_time_is_over_before_anybody_came_ends() -> None:
    desk = Desk(limits=Limits(end=START + 10.0))

    desk.tick(10.0)

    assert desk.over()


def test_a_state_that_is_known_when_the_run_ends_is_saved_as_it_is() -> None:
    desk = together(1, 2)
    answer_wrongly(desk, 1)
    answer_wrongly(desk, 2)
    desk.leave(1)
    desk.leave(2)
    desk.replay()
    assert desk.saved() == []

    desk.do(Stop())

    assert desk.saved() == [(desk.coordinator.step, True)]
    assert desk.log.replays == []


def test_a_replay_of_nothing_new_changes_nothing() -> None:
    desk = together(1, 2, 3)
    answer_wrongly(desk, 2)
    desk.answer(1)
    desk.tick(10.0)
    [command] = desk.log.replays
    desk.join(4)
    desk.answer(3)
    step = desk.coordinator.step
    desk.step(1, 3)  # a newer state is accepted for the joiner
    desk.log.replays.clear()

    desk.do(Replayed(desk.truth.state(command.updates[-1].step + 1)))

    assert desk.coordinator.step == step + 1
    assert desk.saved() == []

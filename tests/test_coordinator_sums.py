"""Steps whose trials each client adds up itself: the same bits, whatever happens."""

import random
from typing import Any

import numpy as np
import pytest

from tests.desk import (
    BY_NODES,
    Desk,
    added,
    answer_wrongly,
    changed,
    lesson,
    replayed,
    together,
)
from utilities.aggregation import SETTLED, STEPS, Aggregation
from utilities.config import Config
from utilities.errors import ProtocolError
from utilities.events import Stop
from utilities.evolution import Update
from utilities.pacing import Observed, StepLength
from utilities.protocol import Begin, Shares, Sum, Welcome
from utilities.sums import cosine

SUMS: dict[str, Any] = {"aggregation": "sums"}


def pair(**keys: Any) -> "SummingDesk":
    """Return a run of two clients whose step at hand is scored, and not yet summed."""
    desk = summing(1, 2, **keys)
    desk.whole_step(1, 2)
    desk.mail(1)
    desk.mail(2)
    desk.log.closed.clear()
    desk.answer(1)
    desk.answer(2)
    assert desk.log.closed == []
    return desk


def summing(*clients: int, **keys: Any) -> "SummingDesk":
    """Return a run by sums that these clients have joined."""
    desk = SummingDesk(**{**SUMS, **keys})
    desk.join(clients[0])
    while desk.coordinator.step < 9:
        desk.whole_step(clients[0])
    for client in clients[1:]:
        desk.join(client)
    while not all(desk.begins(client) for client in clients):
        desk.whole_step(*(client for client in clients if desk.begins(client)))
    for client in clients:
        desk.mail(client)
    desk.write()
    for things in (desk.log.saves, desk.log.closed, desk.log.notes, desk.log.computes):
        things.clear()
    return desk


class SummingDesk(Desk):
    """A desk at which whole steps go by, sums included."""

    def whole_step(self, *clients: int) -> None:
        """Let these clients score and add up, with replays as they are ordered."""
        step = self.coordinator.step
        for client in clients:
            while any(begin.step == step for begin in self.begins(client)):
                if self.peer(client).debts[step].state:
                    self.send_state(client)
                self.answer(client)
        if self.coordinator.step == step:
            for client in clients:
                self.add_up(client)
            while self.log.computes:
                self.compute()
        while self.log.replays:
            self.replay()
        assert self.coordinator.step == step + 1


def newest(desk: Desk) -> Update:
    return desk.truth.updates[desk.coordinator.step - 1]


# --- a step ---------------------------------------------------------------------------


def test_a_scored_step_gives_each_client_its_own_rewards_and_nothing_else() -> None:
    desk = summing(1, 2)
    step = desk.coordinator.step
    desk.answer(1)
    assert desk.mail(1) == []

    desk.answer(2, groups=2)

    for client, trials in ((1, 4), (2, 8)):
        [shares] = desk.mail(client)
        assert isinstance(shares, Shares)
        assert (shares.step, shares.token_batch, len(shares.rewards)) == (
            step,
            0,
            trials,
        )
    assert desk.log.closed == []
    assert desk.coordinator.step == step


def test_the_total_goes_to_everybody_once_all_sums_are_there() -> None:
    desk = pair()
    step = desk.coordinator.step

    desk.add_up(2)
    assert desk.kinds(1) == ["Shares"]
    desk.add_up(1)

    assert desk.kinds(1) == ["Update", "Begin"]
    assert desk.kinds(2) == ["Shares", "Update", "Begin"]
    update = desk.truth.updates[step]
    assert update.summed
    assert (update.trials, update.segments) == (8, ())
    assert desk.coordinator.step == step + 1
    desk.whole_step(1, 2)
    desk.truth.check()


def test_a_step_that_is_summed_says_so_with_what_each_has_contributed() -> None:
    desk = summing(1, 2)
    desk.answer(1)
    desk.answer(2, groups=3)
    rewards = [desk.log.shares[client].rewards for client in (1, 2)]

    desk.add_up(1, 0.125)
    desk.add_up(2, 0.0625)

    [closed] = desk.log.closed
    assert (closed.aggregation, closed.trials, closed.clients) == ("sums", 16, 2)
    sizes = [int(np.abs(r.astype(int)).sum()) for r in rewards]
    contributions = [("c1", 4, sizes[0]), ("c2", 12, sizes[1])]
    assert sorted(closed.contributions) == contributions
    assert closed.seconds == desk.now - 100.0  # when its sums were there


def test_a_step_by_seeds_says_what_each_has_contributed_too() -> None:
    desk = together(1, 2)
    step = desk.coordinator.step
    names = {desk.seeds(1)[0]: "c1", desk.seeds(2)[0]: "c2"}
    desk.answer(1)
    desk.answer(2)

    [closed] = desk.log.closed
    assert closed.aggregation == "seeds"
    update = desk.truth.updates[step]
    rewards = np.abs(update.rewards.astype(int)).reshape(2, 4).sum(axis=1).tolist()
    assert closed.contributions == tuple(
        (names[s.seed], 4, r) for s, r in zip(update.segments, rewards, strict=True)
    )


def test_a_client_with_several_blocks_is_given_all_their_rewards_at_once() -> None:
    desk = SummingDesk(**SUMS, trials_per_step=20)
    desk.join(1)
    for _ in range(5):
        desk.answer(1)

    shares = desk.log.shares[1]
    assert (len(shares.segments), len(shares.rewards)) == (5, 20)
    desk.add_up(1)
    assert newest(desk).summed
    assert desk.log.closed[0].contributions[0][:2] == ("c1", 20)


def test_the_quality_of_the_sums_is_reported_with_the_step_after() -> None:
    desk = pair()
    one, other = (desk.sum(client).total.astype(np.int64) for client in (1, 2))
    desk.add_up(1)
    desk.add_up(2)

    desk.whole_step(1, 2)

    before, after = (closed.gradient_quality for closed in desk.log.closed)
    assert after == cosine(one, other)
    assert before not in (None, after)


def test_the_sum_of_a_client_alone_has_no_quality() -> None:
    desk = summing(1)

    desk.whole_step(1)

    assert desk.log.closed[0].gradient_quality is None


def test_the_time_of_a_sum_counts_as_the_updates() -> None:
    desk = pair()
    desk.add_up(1, seconds=0.5)
    desk.add_up(2, seconds=0.7)
    desk.answer(1, update_seconds=0.1)
    desk.answer(2, update_seconds=0.2)
    desk.add_up(1)
    desk.add_up(2)

    assert desk.log.closed[1].update_seconds == pytest.approx(0.15 + 0.6)


def test_the_stage_of_sums_is_part_of_a_steps_wall_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Observed] = []
    monkeypatch.setattr(
        StepLength, "observe", lambda _, observed: seen.append(observed)
    )
    desk = summing(1, 2)
    seen.clear()
    desk.answer(1, 1.0, update_seconds=0.25)
    desk.answer(2, 0.25, update_seconds=0.25)
    desk.add_up(1, 0.125, seconds=0.0625)
    desk.add_up(2, 0.25, seconds=0.125)

    [observed] = seen
    assert observed.wall == pytest.approx(1.625)
    assert (observed.trials, observed.update) == (1.0, 0.375)


def test_a_step_without_usable_losses_is_not_summed() -> None:
    desk = summing(1, 2)

    desk.answer(1, loss=float("nan"))
    desk.answer(2, loss=float("nan"))

    assert desk.kinds(1) == ["Update", "Begin"]
    assert newest(desk).trials == 0
    assert (desk.log.closed[0].aggregation, desk.log.closed[0].contributions) == (
        "",
        (),
    )
    desk.whole_step(1, 2)
    assert newest(desk).summed


def test_a_client_whose_losses_were_unusable_has_nothing_to_add_up() -> None:
    desk = summing(1, 2)
    desk.answer(1, loss=float("nan"))
    desk.answer(2)
    assert desk.mail(1) == []

    desk.add_up(2)

    assert desk.kinds(1) == ["Update", "Begin"]


# --- sums that do not come ------------------------------------------------------------


def test_the_bounds_are_made_at_once_and_then_a_deadline_is_waited_for() -> None:
    desk = pair()
    assert desk.coordinator.wakeup(desk.now) == desk.now

    desk.tick()

    travel = 2 * 4 * desk.start.setting.layout.size / 125e6
    due = desk.coordinator.wakeup(desk.now)
    assert due == pytest.approx(desk.now + 0.01 + 0.25 + travel)


def test_a_sum_that_does_not_come_in_time_is_computed_by_the_server() -> None:
    desk = pair()
    desk.add_up(1)
    desk.tick(0.2)
    assert desk.log.computes == []

    desk.tick(0.1)

    assert desk.log.said("c2: its sum is late at step")
    assert desk.log.closed == []
    desk.compute()
    assert len(desk.log.closed) == 1
    assert desk.kinds(2) == ["Shares", "Update", "Begin"]  # it stays in step


def test_a_late_sum_is_ignored_and_its_client_not_waited_for() -> None:
    desk = pair()
    late = desk.sum(2)
    desk.add_up(1)
    desk.tick(10.0)
    desk.send(2, late)
    assert desk.log.closed == []
    desk.compute()
    desk.log.notes.clear()

    desk.answer(1)
    desk.answer(2)
    assert len(desk.log.computes) == 1  # at once, in place of client 2
    desk.compute()
    desk.add_up(1)

    assert len(desk.log.closed) == 2
    assert not desk.log.said("late")
    assert desk.kinds(2)[-3:] == ["Shares", "Update", "Begin"]


def test_a_sum_within_its_own_deadline_is_waited_for_again() -> None:
    desk = pair()
    desk.add_up(1)
    desk.tick(10.0)
    desk.compute()
    desk.answer(1)
    desk.answer(2)
    desk.log.computes.clear()
    desk.add_up(2)  # in time, though it was computed too

    assert desk.log.closed[1:] == []
    desk.leave(1)
    assert len(desk.log.computes) == 1


def test_a_late_sum_that_comes_after_the_update_is_taken_off_the_account() -> None:
    desk = pair()
    late = desk.sum(2)
    desk.add_up(1)
    desk.tick(10.0)
    desk.compute()

    desk.send(2, late)

    with pytest.raises(ProtocolError, match="nothing is due of step"):
        desk.send(2, late)


def test_a_client_that_leaves_while_it_adds_up_is_replaced_by_the_server() -> None:
    desk = pair()

    desk.leave(2)

    [command] = desk.log.computes
    assert command.segments == desk.log.shares[2].segments
    desk.add_up(1)
    assert desk.log.closed == []
    desk.compute()
    assert desk.log.closed[0].trials == 8


def test_a_client_that_has_left_after_its_answer_is_not_asked() -> None:
    desk = summing(1, 2)
    desk.answer(2)
    desk.leave(2)
    desk.answer(1)

    assert desk.mail(2) == []
    assert len(desk.log.computes) == 1
    desk.compute()
    desk.add_up(1)
    assert newest(desk).trials == 8


def test_when_all_leave_the_server_finishes_the_step_alone() -> None:
    desk = pair()
    step = desk.coordinator.step
    desk.leave(1)
    desk.leave(2)
    assert len(desk.log.computes) == 2

    desk.compute()
    assert desk.log.closed == []
    desk.compute()

    assert [closed.step for closed in desk.log.closed] == [step]
    welcome, *rest = desk.join(3)
    assert isinstance(welcome, Welcome)
    assert isinstance(rest[-1], Begin)
    assert rest[-1].step == step + 1
    desk.whole_step(3)
    desk.truth.check()


@pytest.mark.parametrize("what", ["beyond", "odd", "short"])
def test_a_sum_that_cannot_be_is_refused_and_computed_in_its_place(what: str) -> None:
    desk = pair()
    sums = desk.sum(2).total.copy()
    sums = sums[:-1] if what == "short" else sums
    sums[-1] += {"beyond": 1000, "odd": 1, "short": 0}[what]

    with pytest.raises(ProtocolError, match="sum: "):
        desk.add_up(2, total=sums)

    desk.leave(2, "it broke the rules")
    desk.compute()
    desk.add_up(1)
    assert newest(desk).summed
    desk.whole_step(1)


def test_a_sum_that_nobody_asked_for_breaks_the_rules() -> None:
    desk = together(1, 2)
    sums = np.zeros(desk.start.setting.layout.size, np.int32)
    step = desk.coordinator.step

    for wrong in (step - 1, step, step + 1):
        with pytest.raises(ProtocolError, match=f"nothing is due of step {wrong}"):
            desk.send(1, Sum(wrong, 0.1, sums))


def test_a_sum_that_comes_twice_breaks_the_rules() -> None:
    desk = pair()
    desk.add_up(1)

    with pytest.raises(ProtocolError, match="nothing is due of step"):
        desk.add_up(1)


# --- meanwhile ------------------------------------------------------------------------


def test_a_joiner_that_is_welcomed_while_sums_are_under_way_gets_the_update() -> None:
    desk = summing(1, 2)
    desk.join(3)
    desk.whole_step(1, 2)
    for client in (1, 2):
        if desk.asked(client):
            desk.send_state(client)
        desk.answer(client)
    assert desk.kinds(3) == ["Welcome"]

    desk.add_up(1)
    desk.add_up(2)

    assert desk.kinds(3) == ["TokenBatch", "Update", "Begin"]
    desk.whole_step(1, 2, 3)


def test_a_joiner_gets_totals_of_all_updates_since_the_accepted_state() -> None:
    desk = summing(1, 2)
    desk.whole_step(1, 2)
    desk.whole_step(1, 2)
    desk.join(3)
    desk.whole_step(1, 2)
    for client in (1, 2):
        desk.answer(client)  # without the state
        if client == 2:
            desk.add_up(1)
            desk.add_up(2)

    welcome, *rest = desk.mail(3)
    updates = [message for message in rest if isinstance(message, Update)]
    assert isinstance(welcome, Welcome)
    assert len(updates) >= 3
    assert all(update.summed for update in updates)


def test_the_replay_of_totals_is_the_state_of_the_clients() -> None:
    desk = summing(1, check_point_time=50.0)
    for _ in range(3):
        desk.whole_step(1)
    desk.tick(60.0)
    desk.whole_step(1)

    desk.whole_step(1)

    assert desk.saved()[-1][1]
    assert not desk.log.said("replaced")


def test_a_stop_while_sums_are_under_way_finishes_the_step_first() -> None:
    desk = pair()
    step = desk.coordinator.step
    desk.do(Stop())
    desk.add_up(1)
    assert not desk.begins(1)

    desk.tick(10.0)
    desk.compute()

    assert [closed.step for closed in desk.log.closed] == [step]
    assert desk.begins(1)[0].segments == ()
    desk.step(1, 2)
    desk.write()
    assert desk.saved() == [(step + 1, True)]
    assert desk.over()


def test_a_replica_that_is_replaced_while_it_adds_up_is_not_waited_for() -> None:
    desk = summing(1, check_point_time=50.0)
    desk.log.doubtful = True
    desk.tick(60.0)
    desk.whole_step(1)
    wrong = changed(desk.truth.state(desk.coordinator.step))
    desk.send_state(1, wrong)
    desk.answer(1, digest=wrong.digest(desk.start.setting.fingerprint))
    assert desk.kinds(1)[-1] == "Shares"
    assert desk.log.computes == []

    desk.replay()

    assert desk.log.said("c1: its digest is not the replay's", warning=True)
    assert len(desk.log.computes) == 1
    assert desk.kinds(1) == ["Welcome"]
    desk.compute()
    assert desk.kinds(1) == ["TokenBatch", "Update", "Begin"]
    desk.log.shares.clear()
    desk.answer(1)
    desk.add_up(1)
    desk.truth.check()


def test_a_late_answer_shows_that_a_replica_differs_while_sums_are_under_way() -> None:
    desk = summing(1, 2, 3)
    desk.answer(1)
    desk.answer(2)
    desk.tick(10.0)
    assert desk.kinds(1)[-1] == "Shares"

    desk.answer(3, digest=b"w" * 32)

    assert desk.log.said("c3: its digest differed at step", warning=True)
    desk.add_up(1)
    desk.add_up(2)
    assert newest(desk).trials == 8


def test_a_replica_that_differs_is_left_out_of_the_sums() -> None:
    desk = summing(1, 2, 3)
    desk.answer(1)
    answer_wrongly(desk, 3)
    desk.answer(2)

    assert desk.mail(3) == []
    desk.add_up(1)
    desk.add_up(2)
    assert newest(desk).trials == 8
    assert {name for name, *_ in desk.log.closed[0].contributions} == {"c1", "c2"}


# --- auto -----------------------------------------------------------------------------


def test_auto_takes_sums_where_they_are_cheaper_and_says_why() -> None:
    desk = together(1, 2, aggregation="auto")  # client 2 came with the last step
    for _ in range(SETTLED - 2):
        desk.answer(1)
        desk.answer(2)
    desk.mail(1)
    assert not desk.log.said("aggregation")
    step = desk.coordinator.step
    desk.answer(1)
    desk.answer(2)

    # The updates of four trials took 10 ms, messages no time: 20 ms against 10.
    words = "with 2 clients and 8 trials about 20.0 ms a step by seeds, 10.0 ms by sums"
    assert desk.log.said(f"aggregation: sums from step {step} on: {words}")
    assert desk.kinds(1) == ["Shares"]
    desk.add_up(1)
    desk.add_up(2)
    assert desk.log.closed[-1].aggregation == "sums"


def test_auto_stays_with_seeds_where_a_round_trip_costs_more() -> None:
    desk = together(1, 2, aggregation="auto")
    desk.coordinator._aggregation._round_trips.extend([0.5] * STEPS)
    for _ in range(SETTLED):
        desk.answer(1)
        desk.answer(2)

    assert desk.log.closed[-1].aggregation == "seeds"
    assert not desk.log.said("aggregation")


def test_auto_stays_with_seeds_for_a_client_alone() -> None:
    desk = together(1, aggregation="auto")
    for _ in range(3):
        desk.answer(1, update_seconds=5.0)

    assert {closed.aggregation for closed in desk.log.closed} == {"seeds"}
    assert not desk.log.said("aggregation")


def test_auto_goes_back_to_seeds_when_the_others_have_left() -> None:
    desk = together(1, 2, aggregation="auto")
    while not desk.log.shares:
        desk.answer(1)
        desk.answer(2)
    desk.add_up(1)
    desk.leave(2)
    desk.compute()
    assert desk.log.closed[-1].aggregation == "sums"

    desk.answer(1)

    assert desk.log.closed[-1].aggregation == "seeds"
    step = desk.coordinator.step - 1
    assert desk.log.said(f"aggregation: seeds from step {step} on: one client alone")


def test_auto_gives_sums_up_where_most_do_not_come_in_time() -> None:
    desk = together(1, 2, aggregation="auto")
    while not desk.log.shares:
        desk.answer(1)
        desk.answer(2)
    step = desk.coordinator.step

    desk.tick(100.0)  # neither sum came
    desk.compute()
    desk.compute()  # the other half
    desk.answer(1)
    desk.answer(2)

    assert [c.aggregation for c in desk.log.closed[-2:]] == ["sums", "seeds"]
    assert desk.log.said(
        f"aggregation: seeds from step {step + 1} on: most sums came too late"
    )


def test_what_both_ways_cost_is_learned_from_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learned: list[tuple[object, ...]] = []
    for name in ("updated", "summed"):
        monkeypatch.setattr(
            Aggregation, name, lambda _, *figures: learned.append(figures)
        )
    desk = together(1, 2)
    desk.answer(1)
    desk.answer(2, groups=2)  # twelve trials
    learned.clear()
    desk.answer(1, update_seconds=0.12, loss=float("nan"))
    desk.answer(2, update_seconds=0.36, loss=float("nan"))
    desk.answer(1)
    desk.answer(2)
    assert learned == [("seeds", 12, 0.24)]  # a step without trials teaches nothing

    desk = pair()
    learned.clear()
    desk.add_up(1, seconds=0.04)
    desk.add_up(2, seconds=0.08)
    desk.answer(1, update_seconds=0.02)
    desk.answer(2, update_seconds=0.06)

    assert learned == [(pytest.approx(0.015),), ("sums", 8, 0.04)]


def test_a_step_whose_sums_all_were_computed_teaches_nothing_about_them() -> None:
    desk = pair()
    desk.leave(1)
    desk.leave(2)

    desk.compute()
    desk.compute()

    sums = desk.coordinator._aggregation._sums
    assert len(sums) > 0
    assert set(sums) == {0.0025}  # of the steps before: 10 ms for four trials


# --- sums that need the weights -------------------------------------------------------


@pytest.mark.parametrize("keys", [{}, {"output_trials": "auto"}, {"n_layers": 2}])
def test_a_late_sum_is_computed_by_the_weights_that_its_trials_were_scored_on(
    keys: dict[str, Any],
) -> None:
    desk = pair(**BY_NODES, **keys)
    step = desk.coordinator.step
    assert desk.start.setting.by_nodes
    desk.add_up(1)
    desk.tick(10.0)

    [command] = desk.log.computes
    state = replayed(desk.start, command.replay)
    assert command.replay.updates
    assert state.step == command.step == step
    assert state.weights.tobytes() == desk.truth.state(step).weights.tobytes()
    true = added(desk.start, command, state).tolist()
    for wrong in (desk.start.state, desk.truth.state(step - 1)):
        assert added(desk.start, command, wrong).tolist() != true
    first = desk.sum(1).total.astype(np.int64)

    desk.compute()

    assert newest(desk).total.tolist() == (first + true).tolist()
    desk.whole_step(1, 2)
    desk.truth.check()


def test_what_is_not_by_nodes_is_added_up_alike_by_any_weights() -> None:
    desk = pair()
    desk.add_up(1)
    desk.tick(10.0)

    [command] = desk.log.computes
    assert not desk.start.setting.by_nodes
    states = desk.start.state, desk.truth.state(desk.coordinator.step)
    one, other = (added(desk.start, command, state).tolist() for state in states)
    assert one == other


# --- the same bits --------------------------------------------------------------------

MODELS: dict[str, dict[str, Any]] = {
    "rnn": {},
    "apart": {"output_trials": "auto"},
    "gru": {"model_type": "gru"},
    "rnn full": {"noise": "full"},
    "gru full": {"noise": "full", "model_type": "gru"},
    "antithetic": {"directions_per_window": 0, "batch_size": 257},
    "sgd": {"optimizer": "sgd"},
    "slices": {"batch_limit": 100, "new_tokens_interval": 2},
    "by nodes": BY_NODES,
    "by nodes apart": BY_NODES | {"output_trials": "auto", "n_layers": 2},
    "by nodes, gru": BY_NODES | {"model_type": "gru", "whitening": "none"},
}


class Schedule:
    """A run whose clients do the same by seeds and by sums: a random schedule."""

    def __init__(self, seed: int, way: str, **keys: Any) -> None:
        self.random = random.Random(seed)
        self.troubles = random.Random(seed)  # of the sums alone
        self.desk = Desk(lesson(aggregation=way, **keys))
        self.clients: list[int] = []
        for client in range(1, self.random.randint(1, 4) + 1):
            self.join(client)

    def join(self, client: int) -> None:
        self.desk.join(client)
        self.clients.append(client)

    def step(self) -> None:
        """Let one step go by: in some order; at times one leaves or comes."""
        desk, step = self.desk, self.desk.coordinator.step
        self.random.shuffle(self.clients)
        gone = self.clients[-1] if self.random.random() < 0.2 else None
        new = max(self.clients) + 1 if self.random.random() < 0.2 else None
        while not desk.log.shares and desk.coordinator.step == step:
            self.score(step)
        self.sum_up(step)
        if gone is not None and len(self.clients) > 1:
            self.clients.remove(gone)
            desk.leave(gone)
        if new is not None and len(self.clients) < 4:
            self.join(new)
        while desk.log.replays:
            desk.replay()

    def score(self, step: int) -> None:
        """Let everybody answer what it was asked for."""
        desk, groups = self.desk, 1
        for client in self.clients:
            if not any(begin.step == step for begin in desk.begins(client)):
                continue
            if desk.start.setting.config.trials_per_step is None:
                groups = self.random.randint(1, 3)
            if desk.peer(client).debts[step].state:
                desk.send_state(client)
            desk.answer(client, groups=groups)
            if desk.log.shares or desk.coordinator.step > step:
                return

    def sum_up(self, step: int) -> None:
        """Let sums come in another order, late, or not at all."""
        desk = self.desk
        clients = list(desk.log.shares)
        self.troubles.shuffle(clients)
        for client in clients:
            if self.troubles.random() < 0.2:
                continue
            desk.tick()
            desk.add_up(client)
        if desk.coordinator.step == step and clients:
            desk.tick(10.0)
        while desk.log.computes:
            desk.compute()
        desk.log.shares.clear()
        assert desk.coordinator.step == step + 1


@pytest.mark.parametrize("groups", [None, 4])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_seeds_and_sums_give_the_same_bits(
    seed: int, model: str, groups: int | None
) -> None:
    keys = MODELS[model] | {"decay": "none"}
    if groups is not None:
        each = lesson(**keys).setting.config.trials_per_group
        keys |= {"trials_per_step": groups * each}
    runs = [Schedule(seed, way, **keys) for way in ("seeds", "sums")]

    for run in runs:
        for _ in range(8):
            run.step()
        run.desk.truth.check()

    by_seeds, by_sums = (run.desk.truth for run in runs)
    assert not any(update.summed for update in by_seeds.updates.values())
    assert all(u.summed for u in by_sums.updates.values() if u.trials)
    assert [by_seeds.digest(n) for n in range(9)] == [
        by_sums.digest(n) for n in range(9)
    ]
    assert by_seeds.state(8).count > 0


def test_a_configuration_has_a_way_of_adding_up() -> None:
    assert Config().aggregation == "auto"

"""Whole runs in memory: a coordinator and real workers on a simulated network."""

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise
from typing import Any

import pytest

from tests.desk import BY_NODES, Lesson, Truth, lesson
from tests.wire import FINE, Fate, Link, Node, Wire
from utilities.events import Stop
from utilities.evolution import TrainState
from utilities.opening import Limits
from utilities.protocol import Message, Result, State, Sum


def ended(wire: Wire) -> TrainState:
    """Stop a run; return the state that it is resumed from."""
    wire.happen(Stop())
    wire.run(lambda: wire.log.finished, 60.0)
    wire.check()
    newest = max(wire.log.saves, key=lambda save: (save.state.step, save.checkpoint))
    assert newest.checkpoint
    assert newest.state.step == wire.coordinator.step
    weights = {save.state.step for save in wire.log.saves if not save.checkpoint}
    passed = range(wire.start.state.step + 1, newest.state.step + 1)
    assert weights == {step for step in passed if step & (step - 1) == 0}
    return newest.state


def honest(wire: Wire) -> None:
    """Hold that nobody was thought to have broken the rules."""
    assert wire.refusals == []
    assert [node.errors for node in wire.nodes] == [[] for _ in wire.nodes]
    wire.check()


def digests(wire: Wire) -> list[bytes]:
    """Return the digest of every step that has closed."""
    return [closed.digest for closed in wire.log.closed]


# --- a run from its beginning to its end ----------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"directions_per_window": 0, "batch_size": 257},
        {"optimizer": "sgd", "noise": "full"},
        {"model_type": "gru", "n_layers": 2},
        {"batch_limit": 100, "new_tokens_interval": 2},
        {"trials_per_step": 20},
        {"aggregation": "sums"},
        {"whitening": "none"},
        {"output_trials": "auto"},
        {"output_trials": "auto", "aggregation": "sums", "trials_per_step": 40},
        {"aggregation": "sums", "noise": "full", "model_type": "gru"},
        {"aggregation": "sums", "trials_per_step": 20, "directions_per_window": 0},
        {"aggregation": "auto", "batch_limit": 100, "new_tokens_interval": 2},
        BY_NODES,
        BY_NODES | {"output_trials": "auto", "trials_per_step": 240},
        BY_NODES | {"aggregation": "sums", "model_type": "gru", "n_layers": 2},
    ],
)
def test_replicas_are_one_state_through_bytes_whatever_is_trained(
    keys: dict[str, Any],
) -> None:
    wire = Wire(encoded=True, **keys)
    for name in ("ann", "bob", "eve"):
        wire.node(name)

    wire.run_to(12)
    wire.run_for(0.5)

    honest(wire)
    steps = {node.worker.step for node in wire.nodes}
    assert steps <= {11, 12, 13}
    assert max(closed.clients for closed in wire.log.closed) == 3
    state = ended(wire)
    assert state.weights.tobytes() != wire.start.state.weights.tobytes()
    honest(wire)
    wire.run_for(0.5)
    assert [node.said_goodbye[0].end for node in wire.nodes] == ["finished"] * 3


def test_a_run_learns_the_text() -> None:
    wire = Wire(learning_rate=0.1, sigma=0.05, trials_per_step=200, batch_size=16)
    wire.node("ann")

    wire.run_to(60)

    losses = [closed.loss or 0.0 for closed in wire.log.closed]
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.1


def test_one_joins_and_one_is_cut_off_and_all_digests_of_each_step_are_equal() -> None:
    wire = Wire(encoded=True)
    wire.node("ann")
    bob = wire.node("bob", rejoin=None)

    wire.run_to(10)
    wire.node("eve")
    wire.run_to(20)
    assert wire.log.closed[-1].clients == 3
    wire.cut(bob)
    wire.run_to(30)

    assert wire.log.closed[-1].clients == 2
    honest(wire)
    state = ended(wire)
    assert state.digest(wire.start.setting.fingerprint) == wire.truth.digest(state.step)


def test_a_run_of_so_many_steps_ends_by_itself() -> None:
    wire = Wire(limits=Limits(last_step=5))
    wire.node("ann")

    wire.run(lambda: wire.log.finished, 60.0)

    assert [closed.step for closed in wire.log.closed] == list(range(5))
    assert (wire.log.saves[-1].state.step, wire.log.saves[-1].checkpoint) == (5, True)


def test_a_run_of_so_many_seconds_ends_by_itself() -> None:
    wire = Wire(limits=Limits(end=120.0))
    wire.node("ann")
    wire.node("bob", block_seconds=0.4)

    wire.run(lambda: wire.log.finished, 60.0)

    assert 120.0 <= wire.now < 123.0
    honest(wire)


def test_a_run_waits_for_clients_and_goes_on_when_they_come() -> None:
    wire = Wire()
    ann = wire.node("ann", rejoin=None)
    wire.run_to(5)
    wire.run_for(0.1)
    wire.cut(ann)
    wire.run_for(100.0)
    assert wire.coordinator.step == 5

    wire.connect(ann)
    wire.run_to(8)

    honest(wire)
    assert wire.log.said("ann joined again (was at 5)")


# --- slow and silent clients ----------------------------------------------------------


def test_a_stopped_client_delays_no_step_past_its_deadline_and_is_back_in_two() -> None:
    wire = Wire(encoded=True)
    wire.node("ann", block_seconds=0.1)
    bob = wire.node("bob", block_seconds=0.1)
    wire.run_to(10)
    closed = len(wire.log.closed)

    wire.stop(bob, 5.0)
    wire.run(lambda: not bob.stopped)
    step = wire.coordinator.step
    seconds = [each.seconds for each in wire.log.closed[closed - 1 :]]
    took = [after - before for before, after in pairwise(seconds)]
    assert len(took) >= 4
    assert max(took) <= 0.01 + 1.0 + 0.25 + 0.02  # update, step, grace, and the way

    wire.run(lambda: wire.coordinator.step >= step + 2)
    assert bob.worker.step is not None
    assert bob.worker.step >= step + 1
    wire.run_to(step + 3)
    assert wire.log.closed[-1].clients == 2
    honest(wire)


def test_a_slow_client_is_late_and_stays_in_step() -> None:
    wire = Wire()
    wire.node("ann", block_seconds=0.2)
    slow = wire.node("slow", block_seconds=2.5)

    wire.run_to(20)

    assert [closed.clients for closed in wire.log.closed[-5:]] == [1] * 5
    assert all(closed.late == 1 for closed in wire.log.closed[-5:])
    assert slow.worker.step is not None
    assert slow.worker.step >= 16
    honest(wire)


def test_a_joiner_gets_in_though_the_only_client_has_stopped() -> None:
    wire = Wire()
    ann = wire.node("ann")
    wire.run_to(5)
    wire.stop(ann, 60.0)
    wire.run_for(0.1)

    wire.node("bob")
    wire.run_for(10.0)

    assert wire.coordinator.step >= 10
    wire.run(lambda: not ann.stopped, 100.0)
    wire.run_for(5.0)
    assert wire.log.closed[-1].clients == 2
    honest(wire)


# --- sums -----------------------------------------------------------------------------


def test_by_sums_every_total_is_given_and_every_step_has_a_quality() -> None:
    wire = Wire(aggregation="sums", encoded=True)
    wire.node("ann")
    wire.node("bob")

    wire.run_to(20)

    assert {closed.aggregation for closed in wire.log.closed} == {"sums"}
    assert all(u.summed for u in wire.truth.updates.values() if u.trials)
    assert all(c.gradient_quality is not None for c in wire.log.closed[-5:])
    assert wire.log.computes == []
    honest(wire)


@pytest.mark.parametrize(("stopped", "keys"), [(5.5, {}), (5.75, BY_NODES)])
def test_a_client_that_stops_while_it_adds_up_delays_no_step_past_its_deadline(
    stopped: float, keys: dict[str, Any]
) -> None:
    wire = Wire(aggregation="sums", encoded=True, **keys)
    wire.node("ann", block_seconds=0.1)
    bob = wire.node("bob", block_seconds=0.1)
    wire.run_to(10)
    wire.run(lambda: wire.coordinator._summing is not None)
    closed = len(wire.log.closed)

    wire.stop(bob, stopped)  # and it is back early in a step, so that it can keep up
    wire.run(lambda: not bob.stopped)

    assert len(wire.log.computes) == 1
    assert wire.log.said("bob: its sum is late at step")
    seconds = [each.seconds for each in wire.log.closed[closed - 1 :]]
    took = [after - before for before, after in pairwise(seconds)]
    assert len(took) >= 3
    # Update, step and grace; the sum's time and grace, and the server's own sum.
    assert max(took) <= 0.01 + 1.0 + 0.25 + 0.01 + 0.25 + 0.05 + 0.02
    wire.run_to(wire.coordinator.step + 4)
    assert wire.log.closed[-1].clients == 2
    assert wire.coordinator._accounts.of(wire.coordinator.clients[1]).waited
    honest(wire)


def test_a_wrong_sum_is_found_out_and_the_step_goes_on_with_the_right_one() -> None:
    wire = Wire(aggregation="sums")
    wire.node("ann")
    bob = wire.node("bob", rejoin=None)
    wire.run_to(10)

    def spoil(message: Message) -> Message:
        if isinstance(message, Sum):
            return replace(message, total=message.total + 1)
        return message

    bob.tamper = spoil
    wire.run_to(14)

    [refusal] = wire.refusals
    assert refusal.startswith("sum: ")
    assert wire.log.closed[-1].clients == 1
    wire.check()


# --- replicas that differ -------------------------------------------------------------


@pytest.mark.parametrize("keys", [{}, {"trials_per_step": 40}, {"aggregation": "sums"}])
def test_one_bit_in_one_replica_is_found_named_and_mended(keys: dict[str, Any]) -> None:
    wire = Wire(encoded=True, **keys)
    for name in ("ann", "bob", "eve"):
        wire.node(name)
    wire.run_to(10)

    wire.nodes[1].corrupt()
    step = wire.coordinator.step
    wire.run(lambda: not wire.nodes[1].deviates, 20.0)

    assert wire.coordinator.step <= step + 4
    assert wire.log.said("bob: its digest differs at step", warning=True)
    assert not wire.log.said("ann: its")
    wire.run_to(step + 8)
    assert wire.log.closed[-1].clients == 3
    honest(wire)


@pytest.mark.parametrize("keys", [{}, {"trials_per_step": 40}, {"aggregation": "sums"}])
def test_where_one_of_two_differs_the_replay_decides(keys: dict[str, Any]) -> None:
    wire = Wire(**keys)
    wire.node("ann")
    bob = wire.node("bob")
    wire.run_to(10)

    bob.corrupt()
    wire.run(lambda: not bob.deviates, 20.0)
    wire.run_to(wire.coordinator.step + 5)

    assert wire.log.said("bob: its digest differs at step", warning=True)
    assert not wire.log.said("ann: its")
    honest(wire)


@pytest.mark.parametrize("keys", [{}, {"trials_per_step": 40}, {"aggregation": "sums"}])
def test_where_all_differ_all_are_replaced(keys: dict[str, Any]) -> None:
    wire = Wire(**keys)
    for step, name in ((4, "ann"), (8, "bob"), (12, "eve")):
        wire.node(name)
        wire.run_to(step)
    for node in wire.nodes:
        node.corrupt()

    wire.run(lambda: not any(node.deviates for node in wire.nodes), 30.0)
    step = wire.coordinator.step
    wire.run_to(step + 6)

    assert wire.log.closed[-1].clients == 3
    honest(wire)


@pytest.mark.parametrize("keys", [{}, {"trials_per_step": 40}, {"aggregation": "sums"}])
def test_a_lone_replica_that_differs_is_found_when_its_state_is_checked(
    keys: dict[str, Any],
) -> None:
    wire = Wire(check_point_time=8.0, **keys)
    ann = wire.node("ann")
    wire.run_to(10)
    wire.log.doubtful = True

    ann.corrupt()
    wire.run(lambda: not ann.deviates, 20.0)
    wire.run_to(wire.coordinator.step + 3)

    assert wire.log.said("ann: its digest is not the replay's at step", warning=True)
    honest(wire)
    assert all(
        save.digest == wire.truth.digest(save.state.step) for save in wire.log.saves
    )


def test_a_client_that_sends_another_state_than_it_has_is_asked_no_more() -> None:
    wire = Wire(check_point_time=5.0)
    liar = wire.node("liar")
    wire.node("ann")
    wire.node("bob")
    wire.run_to(3)

    def swap(message: Message) -> Message:
        if isinstance(message, State):
            return replace(message, weights=message.weights + 1)
        return message

    liar.tamper = swap
    wire.run_for(30.0)

    assert wire.log.said("liar: the state it sent is not the one agreed on")
    checkpoints = [save.state.step for save in wire.log.saves if save.checkpoint]
    assert len(checkpoints) >= 3
    honest(wire)


def test_losses_that_are_no_numbers_are_dropped_and_the_others_count() -> None:
    wire = Wire()
    broken = wire.node("broken")
    wire.node("ann")
    wire.run_to(3)

    def spoil(message: Message) -> Message:
        if isinstance(message, Result):
            return replace(message, losses=message.losses * float("nan"))
        return message

    broken.tamper = spoil
    wire.run_to(8)

    assert any(c.clients == 2 and c.dropped and c.trials for c in wire.log.closed[3:])
    assert wire.log.said("broken expelled: its losses", warning=True)
    assert wire.log.closed[-1].dropped == 0
    honest(wire)


# --- runs that can be repeated to the bit ---------------------------------------------

FIXED: dict[str, Any] = {"trials_per_step": 24, "time_per_step": 1.0}


def digests_of(steps: int, *speeds: float, **more: Any) -> list[bytes]:
    """Return the digests of a run with clients of these speeds."""
    wire = Wire(**FIXED, **more)
    for number, seconds in enumerate(speeds):
        wire.node(f"c{number}", block_seconds=seconds)
    wire.run_to(steps)
    honest(wire)
    return digests(wire)[:steps]


def test_any_number_of_clients_gives_the_same_run() -> None:
    alone = digests_of(15, 0.3)

    assert digests_of(15, 0.3, 0.1) == alone
    assert digests_of(15, 0.2, 0.3, 0.7, delay=0.05) == alone


def test_seeds_and_sums_give_the_same_run() -> None:
    alone = digests_of(15, 0.3)

    for speeds in ((0.3,), (0.3, 0.1), (0.2, 0.3, 0.7)):
        assert digests_of(15, *speeds, aggregation="sums", delay=0.02) == alone


def test_a_client_that_leaves_in_the_middle_changes_nothing() -> None:
    alone = digests_of(15, 0.3)
    wire = Wire(**FIXED)
    nodes = [wire.node(name, rejoin=None) for name in ("ann", "bob", "eve")]
    wire.run_to(7)
    wire.run_for(0.35)
    wire.cut(nodes[1])

    wire.run_to(15)

    assert digests(wire)[:15] == alone
    honest(wire)


def test_a_silent_client_changes_nothing_and_its_blocks_go_to_others() -> None:
    alone = digests_of(15, 0.3)
    wire = Wire(**FIXED)
    wire.node("ann")
    bob = wire.node("bob")
    wire.run_to(7)
    wire.run_for(0.35)
    wire.stop(bob, 12.0)

    wire.run_to(15)

    assert digests(wire)[:15] == alone
    assert wire.log.said("bob is late")
    seconds = [closed.seconds for closed in wire.log.closed]
    took = [after - before for before, after in pairwise(seconds)]
    # Two blocks in hand, three usual times of patience, and grace.
    assert max(took) < 6 * 0.3 + 3 * 0.6 + 0.25 + 0.2
    wire.run(lambda: not bob.stopped, 20.0)
    wire.run_to(wire.coordinator.step + 3)
    assert wire.log.closed[-1].clients == 2
    honest(wire)


def test_a_replica_that_differs_changes_nothing() -> None:
    alone = digests_of(15, 0.3)
    wire = Wire(**FIXED)
    for name in ("ann", "bob", "eve"):
        wire.node(name)
    wire.run_to(7)
    wire.nodes[2].corrupt()

    wire.run_to(15)

    assert digests(wire)[:15] == alone


def test_fifty_steps_and_a_resume_and_fifty_steps_are_a_hundred_steps() -> None:
    start = lesson(**FIXED, batch_limit=300, new_tokens_interval=7)
    whole = Wire(start, limits=Limits(last_step=100))
    whole.node("ann")
    whole.run(lambda: whole.log.finished)
    first = Wire(start, limits=Limits(last_step=50))
    first.node("ann")
    first.node("bob")
    first.run(lambda: first.log.finished)

    middle = first.log.saves[-1]
    assert (middle.state.step, middle.checkpoint) == (50, True)
    resumed = Lesson(start.setting, start.corpus, middle.state)
    second = Wire(resumed, limits=Limits(last_step=100), seconds=middle.seconds)
    for name in ("ann", "bob", "eve"):
        second.node(name)
    second.run(lambda: second.log.finished)

    assert digests(first) + digests(second) == digests(whole)
    assert second.log.saves[-1].digest == whole.log.saves[-1].digest
    for wire in (whole, first, second):
        honest(wire)


# --- whatever may happen --------------------------------------------------------------

KINDS: list[dict[str, Any]] = [
    {},
    {"trials_per_step": 24},
    {"directions_per_window": 0, "batch_size": 257},
    {"batch_limit": 200, "new_tokens_interval": 2},
    {"check_point_time": 3.0},
    {
        "trials_per_step": 16,
        "check_point_time": 3.0,
        "batch_limit": 200,
        "new_tokens_interval": 1,
    },
    {"aggregation": "sums"},
    {"aggregation": "sums", "trials_per_step": 24, "check_point_time": 3.0},
    {"aggregation": "auto", "batch_limit": 200, "new_tokens_interval": 2},
]


class Chaos:
    """A run in which a random schedule of faults strikes."""

    def __init__(self, seed: int, *, lossy: bool) -> None:
        self.random = random.Random(seed)
        choice = self.random.choice
        self.wire = Wire(
            encoded=choice([False, False, True]),
            delay=choice([0.0005, 0.05]),
            job_seconds=choice([0.01, 0.5, 4.0]),
            **KINDS[seed % len(KINDS)],
        )
        self.wire.fate = self._fate
        self.wire.log.doubtful = True
        self.lossy = lossy
        self._calm = False
        for _ in range(self.random.randint(1, 3)):
            self.join()

    def _fate(self, link: Link, message: Message) -> Fate:
        if self._calm:
            return FINE
        chance = self.random.random()
        if chance < 0.02:
            return (self.random.uniform(0, 3),)
        if self.lossy and chance < 0.06:
            return () if chance < 0.04 else (0.0, 0.0)
        return FINE

    def join(self) -> None:
        """Let one more client join, fast or slow, faithful or not."""
        choice, nodes = self.random.choice, self.wire.nodes
        if len(nodes) < 5:
            seconds, again = choice([0.1, 0.3, 2.5]), choice([0.1, 2.0, None])
            self.wire.node(f"c{len(nodes)}", block_seconds=seconds, rejoin=again)

    def corrupt(self, node: Node) -> None:
        """Let memory fail, where there is anything in it."""
        if node.worker.step is not None:
            node.corrupt()

    def strike(self) -> None:
        """Let one thing go wrong, or one client join."""
        self.wire.run_for(self.random.uniform(0.1, 5.0))
        node = self.random.choice(self.wire.nodes)
        strikes: list[Callable[[], None]] = [
            self.join,
            lambda: self.wire.cut(node),
            lambda: self.wire.stop(node, self.random.uniform(0.1, 8.0)),
            lambda: self.corrupt(node),
        ]
        self.random.choice(strikes)()
        self.wire.check()

    def calm(self) -> None:
        """End all faults; what was lost on the way needs a new session."""
        self._calm = True
        for node in self.wire.nodes:
            node.rejoin_after = 0.5
            if self.lossy:
                self.wire.cut(node)
            self.wire.connect(node)
        self.wire.node("last")


@pytest.mark.parametrize("lossy", [False, True])
@pytest.mark.parametrize("seed", range(27))
def test_no_schedule_of_faults_splits_the_replicas_or_stops_the_run(
    seed: int, lossy: bool
) -> None:
    chaos = Chaos(seed, lossy=lossy)
    wire = chaos.wire
    for _ in range(chaos.random.randint(3, 9)):
        chaos.strike()
    chaos.calm()
    step = wire.coordinator.step

    def mended() -> bool:
        steps = [node.worker.step or 0 for node in wire.nodes]
        return min(steps) > step and not any(node.deviates for node in wire.nodes)

    wire.run(lambda: wire.coordinator.step >= step + 6, 200.0)
    wire.run(mended, 200.0)

    ended(wire)
    if not lossy:
        honest(wire)


def one_lost(number: int) -> Callable[[Link, Message], Fate]:
    """Return a network that loses one message, by its number."""
    numbers = count()
    return lambda link, message: () if next(numbers) == number else FINE


@pytest.mark.parametrize("keys", [{}, {"trials_per_step": 16}, {"aggregation": "sums"}])
def test_every_message_may_be_lost_once_in_turn(keys: dict[str, Any]) -> None:
    start = lesson(check_point_time=2.0, **keys)
    for number in range(40):
        wire = Wire(start)
        wire.fate = one_lost(number)
        for name in ("ann", "bob"):
            wire.node(name, block_seconds=0.5)

        wire.run_for(6.0)
        for node in wire.nodes:
            wire.cut(node)
        wire.run_for(4.0)

        assert wire.coordinator.step >= 2
        wire.check()


def test_truth_notices_a_second_update_of_a_step() -> None:
    wire = Wire()
    wire.node("ann")
    wire.run_to(2)
    truth = Truth(wire.start)
    truth.note(wire.truth.updates[0])

    with pytest.raises(AssertionError):
        truth.note(replace(wire.truth.updates[1], step=0))

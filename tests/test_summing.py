"""The stage of sums: who is asked, who is waited for, what the server computes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.desk import added, computed, lesson
from utilities.aggregation import BANDWIDTH
from utilities.errors import ProtocolError
from utilities.evolution import Segment, Update, total
from utilities.ledger import Replay
from utilities.peers import FIRST_UPDATE_SECONDS, REMEMBERED_STEPS, Peer
from utilities.protocol import Shares, Sum
from utilities.summing import (
    Account,
    Accounts,
    Compute,
    Summing,
    contributions,
    halved,
    parts_by_peer,
)
from utilities.sums import Part, cosine

START = lesson(grace=0.5)  # groups of four trials
SIZE = START.setting.layout.size
TOKENS = START.corpus.train
STEP, NOW, RUN = 7, 100.0, 2.0
REPLAY = Replay(START.state, ())  # sums of these trials need no weights
TRAVEL = 4 * SIZE / BANDWIDTH  # of one sum


def peers(count: int) -> list[Peer]:
    return [Peer(number, f"c{number}", ready=True) for number in range(count)]


def update_of(*sizes: int) -> Update:
    """Return an update with a segment of so many groups each."""
    segments = tuple(Segment(50 + n, 0, size) for n, size in enumerate(sizes))
    rewards = np.random.default_rng(1).integers(-126, 127, 4 * sum(sizes))
    count = len(rewards)
    return Update(STEP, 0, count, 0.1, segments, rewards.astype(np.int8))


class Stage:
    """A step of some clients, each with one segment."""

    def __init__(self, *sizes: int) -> None:
        self.peers = peers(len(sizes))
        self.update = update_of(*sizes)
        owners = {50 + n: peer for n, peer in enumerate(self.peers)}
        self.parts = parts_by_peer(START.setting, self.update, owners)
        self.accounts = Accounts()
        self.summing = Summing(
            START.setting, self.update, self.parts, TOKENS, self.accounts, REPLAY
        )

    def ask(self, *peers: Peer) -> dict[Peer, Shares]:
        return dict(self.summing.ask(peers or self.peers, NOW, RUN))

    def sum(self, peer: Peer, **changes: Any) -> Sum:
        part = self.parts[peer]
        shares = Shares(STEP, 0, part.segments, part.rewards)
        sums = added(START, shares, START.state)
        return replace(Sum(STEP, 0.04, sums.astype(np.int32)), **changes)

    def expected(self) -> list[int]:
        segments, rewards = self.update.segments, self.update.rewards
        sums: list[int] = total(START.setting, None, TOKENS, segments, rewards).tolist()
        return sums


# --- whose trials are whose -----------------------------------------------------------


def test_the_trials_of_a_client_are_its_segments_with_their_rewards_in_order() -> None:
    ann, bob = peers(2)
    update = update_of(1, 2, 1)

    parts = parts_by_peer(START.setting, update, {50: ann, 51: bob, 52: ann})

    assert parts[ann].segments == (update.segments[0], update.segments[2])
    rewards = update.rewards.tolist()
    assert parts[ann].rewards.tolist() == rewards[:4] + rewards[12:]
    assert parts[bob].segments == (update.segments[1],)
    assert parts[bob].rewards.tolist() == rewards[4:12]


def test_a_contribution_is_a_name_with_trials_and_the_size_of_rewards() -> None:
    ann, bob = peers(2)
    parts = {
        ann: Part((Segment(1, 0, 1),), np.array([3, -4, 0, 126], np.int8)),
        bob: Part((Segment(2, 0, 1),), np.array([-126, -126, 1, 1], np.int8)),
    }

    assert contributions(parts) == (("c0", 4, 133), ("c1", 4, 254))


@pytest.mark.parametrize(
    ("sizes", "halves"),
    [
        ((5,), [0]),
        ((2, 2), [0, 1]),
        ((1, 1, 1), [0, 1, 0]),
        ((1, 5, 3, 1), [1, 0, 1, 1]),  # 5 against 3 + 1 + 1
        ((4, 3, 3, 2), [0, 1, 1, 0]),
    ],
)
def test_clients_are_cut_into_halves_of_about_equal_trials(
    sizes: tuple[int, ...], halves: list[int]
) -> None:
    stage = Stage(*sizes)

    cut = halved(stage.parts)

    assert [cut[peer] for peer in stage.peers] == halves


# --- asking and adding ----------------------------------------------------------------


def test_each_client_is_given_its_own_rewards_and_owes_their_sum() -> None:
    stage = Stage(1, 2)
    ann, bob = stage.peers

    requests = stage.ask()

    for peer in (ann, bob):
        shares, part = requests[peer], stage.parts[peer]
        assert (shares.step, shares.token_batch) == (STEP, 0)
        assert shares.segments == part.segments
        assert shares.rewards.tolist() == part.rewards.tolist()
        due = NOW + FIRST_UPDATE_SECONDS + 0.5 + 2 * TRAVEL
        assert stage.accounts.of(peer).debts == {STEP: pytest.approx(due)}
    assert stage.summing.compute() == []
    assert not stage.summing.complete()


def test_the_sums_of_all_clients_are_the_total_whatever_their_order() -> None:
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        stage = Stage(1, 3, 2)
        stage.ask()
        assert not stage.summing.complete()

        took = [
            stage.summing.take(p, stage.sum(p))
            for p in map(stage.peers.__getitem__, order)
        ]

        assert took == [True] * 3
        assert stage.summing.complete()
        update = stage.summing.update()
        assert (update.segments, len(update.rewards)) == ((), 0)
        assert update.total.dtype == np.int16
        assert update.total.tolist() == stage.expected()
        same = replace(
            stage.update, segments=(), rewards=update.rewards, total=update.total
        )
        assert update == same


def test_the_quality_is_the_cosine_between_the_halves_of_the_clients() -> None:
    stage = Stage(2, 1, 1)
    stage.ask()
    for peer in stage.peers:
        stage.summing.take(peer, stage.sum(peer))

    ann, bob, eve = (stage.sum(peer).total.astype(np.int64) for peer in stage.peers)
    assert stage.summing.quality() == cosine(ann, bob + eve)


def test_one_client_alone_gives_no_quality() -> None:
    stage = Stage(2)
    [ann] = stage.peers
    stage.ask()
    stage.summing.take(ann, stage.sum(ann))

    assert stage.summing.complete()
    assert stage.summing.quality() is None


def test_the_time_of_a_typical_client_is_known_in_all_and_for_a_trial() -> None:
    stage = Stage(1, 2, 4)
    assert (stage.summing.seconds(), stage.summing.adding()) == (0.0, None)
    stage.ask()
    for peer, seconds in zip(stage.peers, (0.04, 0.16, 0.48), strict=True):
        stage.summing.take(peer, stage.sum(peer, seconds=seconds))

    assert stage.summing.seconds() == 0.16
    assert stage.summing.adding() == pytest.approx(0.02)  # of 0.01, 0.02 and 0.03


def test_a_sum_that_cannot_be_is_refused_and_still_waited_for() -> None:
    stage = Stage(1, 1)
    ann, bob = stage.peers
    stage.ask()
    stage.summing.take(bob, stage.sum(bob))
    wrong = stage.sum(ann).total + 1

    with pytest.raises(ProtocolError, match="sum: "):
        stage.summing.take(ann, stage.sum(ann, total=wrong))

    assert not stage.summing.complete()
    stage.summing.lose(ann)
    [command] = stage.summing.compute()
    stage.summing.computed(computed(START, command))
    assert stage.summing.update().total.tolist() == stage.expected()


# --- what does not come ---------------------------------------------------------------


def test_what_nobody_will_send_is_computed_by_halves_and_is_the_same_total() -> None:
    stage = Stage(3, 2, 1, 1)
    ann, bob, eve, dan = stage.peers
    stage.ask(ann)  # the others have left: 3 + 1 against 2 + 1

    commands = stage.summing.compute()

    parts = stage.parts
    assert [(c.step, c.token_batch, c.half) for c in commands] == [
        (STEP, 0, 0),
        (STEP, 0, 1),
    ]
    assert commands[0].segments == parts[dan].segments
    assert commands[1].segments == parts[bob].segments + parts[eve].segments
    both = [*parts[bob].rewards.tolist(), *parts[eve].rewards.tolist()]
    assert commands[1].rewards.tolist() == both
    assert stage.summing.compute() == []
    stage.summing.take(ann, stage.sum(ann))
    for command in commands:
        assert not stage.summing.complete()
        stage.summing.computed(computed(START, command))
    assert stage.summing.complete()
    assert stage.summing.update().total.tolist() == stage.expected()
    first = stage.sum(ann).total.astype(np.int64) + stage.sum(dan).total
    second = stage.sum(bob).total.astype(np.int64) + stage.sum(eve).total
    assert stage.summing.quality() == cosine(first, second)


def test_clients_without_trials_that_count_are_not_asked() -> None:
    stage = Stage(1)
    stranger = Peer(9, "late")

    assert list(stage.ask(stranger, *stage.peers)) == stage.peers


def test_a_sum_after_its_client_was_given_up_is_ignored() -> None:
    stage = Stage(1, 1)
    ann, bob = stage.peers
    stage.ask()
    stage.summing.lose(ann)
    stage.summing.lose(ann)
    [command] = stage.summing.compute()

    assert stage.summing.take(ann, stage.sum(ann)) is False
    assert stage.summing.take(bob, stage.sum(bob)) is True
    stage.summing.computed(computed(START, command))

    assert stage.summing.update().total.tolist() == stage.expected()


def test_a_client_is_given_up_at_its_own_deadline() -> None:
    stage = Stage(1, 1)
    ann, bob = stage.peers
    stage.accounts.of(ann).reports.append(0.25)
    stage.ask()
    summing, grace = stage.summing, 0.5 + 2 * TRAVEL
    summing.prepare()
    assert summing.wakeup(NOW) == pytest.approx(NOW + 0.25 + grace)

    assert summing.overdue(NOW + 0.25) == []
    assert summing.overdue(NOW + 0.26 + grace) == [ann]
    assert summing.overdue(NOW + 0.26 + grace) == []
    assert [command.segments for command in summing.compute()] == [
        stage.parts[ann].segments
    ]
    assert summing.wakeup(NOW) == pytest.approx(NOW + FIRST_UPDATE_SECONDS + grace)
    summing.take(bob, stage.sum(bob))
    summing.blame()
    assert [stage.accounts.of(peer).waited for peer in (ann, bob)] == [False, True]


def test_a_sum_is_given_two_round_trips_where_no_grace_is_set() -> None:
    free = lesson()
    stage = Stage(1)
    about = stage.update, stage.parts, TOKENS, stage.accounts, REPLAY
    summing = Summing(free.setting, *about)
    summing.ask(stage.peers, NOW, RUN, 0.75)
    summing.prepare()

    due = summing.wakeup(NOW)

    assert due == pytest.approx(NOW + FIRST_UPDATE_SECONDS + 1.5 + TRAVEL)


def test_where_most_sums_are_late_they_are_waited_for_in_the_next_step() -> None:
    stage = Stage(1, 1, 1, 1)
    ann, bob, eve, dan = stage.peers
    stage.accounts.of(eve).owe(STEP - 1, NOW)  # whose sum before has not come either
    stage.ask()
    stage.summing.take(ann, stage.sum(ann))

    assert stage.summing.overdue(NOW + 99) == [bob, eve, dan]
    stage.summing.lose(dan)  # it has left
    stage.accounts.close(dan)
    stage.summing.blame()

    waited = [stage.accounts.of(peer).waited for peer in (ann, bob, eve)]
    assert waited == [True, True, False]
    assert len(stage.summing.compute()) == 2


def test_a_few_late_sums_are_not_waited_for() -> None:
    stage = Stage(1, 1, 1, 1)
    ann, bob, eve, dan = stage.peers
    stage.ask()
    for peer in (ann, bob):
        stage.summing.take(peer, stage.sum(peer))

    stage.summing.overdue(NOW + 99)
    stage.summing.blame()

    assert [stage.accounts.of(peer).waited for peer in (eve, dan)] == [False, False]


def test_a_client_whose_sum_was_late_is_asked_but_not_waited_for() -> None:
    stage = Stage(1, 1)
    ann, bob = stage.peers
    stage.accounts.of(ann).waited = False

    assert list(stage.ask()) == [ann, bob]

    [command] = stage.summing.compute()
    assert command.segments == stage.parts[ann].segments
    assert stage.summing.take(ann, stage.sum(ann)) is False
    assert stage.summing.overdue(NOW + 99) == [bob]


def test_a_deadline_that_has_gone_with_its_client_is_not_waited_for() -> None:
    stage = Stage(1, 1)
    ann, bob = stage.peers
    stage.accounts.of(ann).reports.append(0.25)
    stage.ask()
    stage.summing.prepare()
    stage.summing.take(ann, stage.sum(ann))
    early = stage.summing.wakeup(NOW)
    assert early is not None

    assert stage.summing.overdue(early) == []

    late = stage.summing.wakeup(early)
    assert late is not None
    assert late > early
    assert stage.summing.overdue(late) == [bob]


def test_the_bounds_are_due_as_soon_as_everybody_is_asked() -> None:
    stage = Stage(1, 1)
    stage.ask()
    assert stage.summing.wakeup(NOW) == NOW

    stage.summing.prepare()
    stage.summing.prepare()

    wakeup = stage.summing.wakeup(NOW)
    assert wakeup is not None
    assert wakeup > NOW


def test_nothing_is_due_where_the_server_computes_all() -> None:
    stage = Stage(1, 1)
    stage.ask(Peer(9, "late"))

    assert stage.summing.wakeup(NOW) is None
    assert len(stage.summing.compute()) == 2
    assert stage.summing.wakeup(NOW) is None


def test_a_sum_of_another_step_is_never_added() -> None:
    stage = Stage(1)
    stage.ask(Peer(9, "late"))
    [command] = stage.summing.compute()
    assert isinstance(command, Compute)

    with pytest.raises(AssertionError):
        stage.summing.computed(replace(computed(START, command), step=STEP - 1))


def test_what_the_server_adds_up_has_the_way_to_the_state_of_the_step() -> None:
    stage = Stage(1, 1)
    ann, bob = stage.peers
    about = stage.update, stage.parts, TOKENS, stage.accounts, REPLAY
    summing = Summing(START.setting, *about, audited=ann)
    summing.ask([ann], NOW, RUN)  # the other has left

    [command] = summing.compute()
    summing.take(ann, stage.sum(ann))

    assert command.segments == stage.parts[bob].segments
    assert command.replay is REPLAY
    assert summing.kept is not None
    peer, trials, sums = summing.kept
    assert (peer, trials.segments) == (ann, stage.parts[ann].segments)
    assert trials.replay is REPLAY
    assert sums.tolist() == stage.sum(ann).total.tolist()


# --- accounts -------------------------------------------------------------------------


def sum_message(step: int, seconds: float = 0.25) -> Sum:
    return Sum(step, seconds, np.zeros(0, np.int32))


def test_a_sum_is_allowed_the_median_of_the_last_reports() -> None:
    account, [ann] = Account(), peers(1)
    ann.reports.append(9.0)

    for seconds in (0.5, 0.25, 60.0):
        account.reports.append(seconds)

    assert account.allowance(ann, 0.1) == 0.5


def test_the_first_sum_is_allowed_what_updates_took_and_else_a_second() -> None:
    account, [ann] = Account(), peers(1)
    assert account.allowance(ann, 0.1) == 1.0

    ann.reports.append(0.125)

    assert account.allowance(ann, 0.1) == 0.125


@pytest.mark.parametrize(("run", "allowed"), [(0.1, 1.0), (3.0, 3.0)])
def test_a_sum_is_allowed_no_more_than_a_second_or_the_time_per_step(
    run: float, allowed: float
) -> None:
    account = Account()
    account.reports.append(60.0)

    assert account.allowance(peers(1)[0], run) == allowed


def test_a_sum_within_its_deadline_is_waited_for_again() -> None:
    account = Account(waited=False)
    account.owe(3, 50.0)
    account.owe(4, 60.0)

    account.deliver(sum_message(3), 50.5)
    late = account.waited
    account.deliver(sum_message(4), 60.0)

    assert (late, account.waited) == (False, True)
    assert account.debts == {}
    assert list(account.reports) == [0.25, 0.25]


def test_a_late_sum_does_not_lose_what_a_punctual_one_has_earned() -> None:
    account = Account()
    account.owe(3, 50.0)

    account.deliver(sum_message(3), 70.0)

    assert account.waited  # it was given up by the stage, if that waited for it


def test_a_sum_without_a_debt_breaks_the_rules() -> None:
    account = Account()
    account.owe(3, 50.0)

    for step in (2, 4):
        with pytest.raises(ProtocolError, match=f"nothing is due of step {step}"):
            account.deliver(sum_message(step), 10.0)
    account.deliver(sum_message(3), 10.0)
    with pytest.raises(ProtocolError, match="nothing is due of step 3"):
        account.deliver(sum_message(3), 10.0)


def test_a_sum_of_long_ago_is_only_late() -> None:
    account = Account(waited=False)
    for step in range(REMEMBERED_STEPS + 5):
        account.owe(step, 50.0)
    assert len(account.debts) == REMEMBERED_STEPS

    account.deliver(sum_message(4), 10.0)

    assert not account.waited
    account.deliver(sum_message(5), 10.0)
    assert account.waited


def test_an_account_is_kept_until_its_client_leaves() -> None:
    accounts = Accounts()
    ann, bob = peers(2)
    account = accounts.of(ann)
    account.waited = False

    accounts.close(bob)
    assert accounts.of(ann) is account

    accounts.close(ann)
    assert accounts.of(ann).waited

"""One open step: who works on what, who is waited for, when it closes."""

import itertools
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.desk import lesson
from utilities.errors import ProtocolError
from utilities.evolution import Segment, Setting
from utilities.peers import Peer
from utilities.protocol import MAX_TRIALS, Result
from utilities.steps import NO_DIGEST, BlockStep, TimedStep, check_shape

STEP = 7
DIGEST, OTHER = b"d" * 32, b"o" * 32


def setting(**keys: Any) -> Setting:
    return lesson(**keys).setting


def peers(count: int) -> list[Peer]:
    return [Peer(number, f"c{number}", ready=True) for number in range(count)]


def floats(count: int, value: float | None = None) -> Any:
    if value is not None:
        return np.full(count, value, np.float32)
    return np.linspace(2, 3, count, dtype=np.float32)


def result(
    *segments: Segment, digest: bytes = DIGEST, value: float | None = None
) -> Result:
    groups = sum(segment.groups for segment in segments)
    losses, clean = floats(4 * groups, value), floats(groups)
    return Result(STEP, digest, 0.1, 1.0, None, segments, losses, clean)


# --- the shape of an answer -----------------------------------------------------------

ISSUED = Segment(5, 0, 3)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_an_answer_may_cover_part_of_what_was_given_out(groups: int) -> None:
    answer = result(replace(ISSUED, groups=groups))

    scores = check_shape(setting(), answer, ISSUED)

    assert scores.losses is answer.losses
    assert (len(scores.losses), len(scores.clean)) == (4 * groups, groups)


def test_antithetic_pairs_have_two_losses_a_group_and_no_clean_one() -> None:
    pairs = setting(directions_per_window=0)
    answer = replace(result(ISSUED), losses=floats(6), clean=floats(0))

    assert len(check_shape(pairs, answer, ISSUED).losses) == 6
    with pytest.raises(ProtocolError, match="expected 6 losses and 0 clean ones"):
        check_shape(pairs, replace(answer, clean=floats(3)), ISSUED)


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ((), "expected one segment, got 0"),
        ((ISSUED, ISSUED), "expected one segment, got 2"),
        ((Segment(6, 0, 3),), "expected groups of"),
        ((Segment(5, 1, 2),), "expected groups of"),
        ((Segment(5, 0, 4),), "expected groups of"),
        ((Segment(5, 0, 0),), "expected groups of"),
    ],
)
def test_an_answer_about_anything_else_breaks_the_rules(
    segments: tuple[Segment, ...], words: str
) -> None:
    with pytest.raises(ProtocolError, match=words):
        check_shape(setting(), result(*segments), ISSUED)


@pytest.mark.parametrize("changes", [{"losses": floats(11)}, {"clean": floats(4)}])
def test_an_answer_has_as_many_losses_as_its_groups(changes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="expected 12 losses and 3 clean ones"):
        check_shape(setting(), replace(result(ISSUED), **changes), ISSUED)


# --- timed steps ----------------------------------------------------------------------


def timed(*, last: bool = False, seconds: float = 1.0, **keys: Any) -> TimedStep:
    new_seed = itertools.count(50).__next__
    return TimedStep(setting(**keys), STEP, seconds, new_seed, last)


def test_grace_grows_with_the_round_trips_unless_it_is_given() -> None:
    deadlines = []
    for keys in ({}, {"grace": 0.5}):
        members = peers(2)
        step = TimedStep(setting(**keys), STEP, 1.0, lambda: 7, round_trip=0.375)
        step.assign(members[:1], 0.0)
        deadlines.append(step.wakeup(0.0))
        config = setting(trials_per_step=8, **keys)
        blocks = BlockStep(config, STEP, 1.0, lambda slot: slot, deque(), 0.375)
        blocks.assign(members[1:], 0.0)
        deadlines.append(blocks.wakeup(0.0))

    # A second for the update, the step, twice the round trip; three block times of 1 s.
    assert deadlines == [2.75, 3.75, 2.5, 3.5]


def opened(step: TimedStep, members: Iterable[Peer]) -> dict[Peer, Segment]:
    return {peer: segments[0] for peer, segments in step.assign(members, 0.0)}


def test_each_client_gets_a_segment_of_its_own_once() -> None:
    step, (ann, bob, eve) = timed(), peers(3)

    work = opened(step, [ann, bob])

    groups = MAX_TRIALS // 4
    assert work == {ann: Segment(50, 0, groups), bob: Segment(51, 0, groups)}
    assert (ann.owes(STEP), bob.owes(STEP)) == (1, 1)
    assert step.assign([ann, bob, eve], 0.1) == []


def test_no_answer_can_have_more_losses_than_a_message_holds() -> None:
    for directions, groups in ((1024, 1 << 14), (1, 1 << 23), (0, 1 << 23)):
        step = timed(directions_per_window=directions)

        assert opened(step, peers(1)).popitem()[1].groups == groups


def test_a_timed_step_is_complete_when_all_who_are_waited_for_have_answered() -> None:
    step, (ann, bob, eve) = timed(), peers(3)
    eve.waited = False
    work = opened(step, [ann, bob, eve])

    complete = [step.complete(0.1)]
    for peer in (ann, bob):
        step.take(peer, result(replace(work[peer], groups=1)), 0.2)
        complete.append(step.complete(0.2))

    assert complete == [False, False, True]
    assert step.missing() == [eve]
    assert step.late() == 1
    assert step.votes() == {DIGEST: [ann, bob]}
    scored, dropped = step.scored()
    assert ([s.seed for s, _ in scored], dropped) == ([50, 51], 0)


def test_a_timed_step_is_complete_at_the_deadline_if_one_has_answered() -> None:
    step, (ann, bob) = timed(), peers(2)
    work = opened(step, [ann, bob])
    assert step.wakeup(0.5) == 2.25  # a second, the step, the grace
    assert not step.stuck(2.24)
    assert step.stuck(2.25)
    assert not step.complete(99.0)

    step.take(bob, result(replace(work[bob], groups=1)), 0.2)

    assert not step.stuck(99.0)
    assert not step.complete(2.24)
    assert step.complete(2.25)
    assert step.wakeup(2.25) is None


def test_the_deadline_is_that_of_those_waited_for_or_else_of_anybody() -> None:
    step, (ann, bob) = timed(), peers(2)
    ann.reports.append(0.5)
    bob.waited = False
    opened(step, [ann, bob])

    assert step.wakeup(0.0) == 1.75
    ann.waited = False
    assert step.wakeup(0.0) == 2.25
    step.lose(bob)
    assert step.wakeup(0.0) == 1.75
    step.lose(ann)
    assert step.wakeup(0.0) is None
    assert step.stuck(0.0)


def test_where_nobody_is_waited_for_all_may_use_their_time() -> None:
    step, (ann, bob) = timed(), peers(2)
    ann.waited = bob.waited = False
    work = opened(step, [ann, bob])

    step.take(ann, result(replace(work[ann], groups=1)), 0.2)
    assert not step.complete(0.2)
    step.lose(bob)

    assert step.complete(0.2)


def test_others_may_enter_a_step_that_is_stuck() -> None:
    step, (ann, bob) = timed(), peers(2)
    opened(step, [ann])

    [(peer, segments)] = step.assign([ann, bob], 3.0)

    assert peer is bob
    assert segments[0].seed == 51
    assert step.wakeup(3.0) == 5.25
    assert step.assign([ann, bob], 3.0) == []


def test_a_replica_that_differs_is_forgotten_and_may_enter_again() -> None:
    step, (ann, bob) = timed(), peers(2)
    work = opened(step, [ann, bob])
    step.take(ann, result(replace(work[ann], groups=1), digest=OTHER), 0.2)

    step.discard(ann)
    step.discard(bob)

    assert (step.votes(), step.scored(), step.missing()) == ({}, ([], 0), [])
    assert step.complete(0.2)  # somebody has answered, and nobody is left
    assert step.assign([ann, bob], 0.3) == []


MOVES = st.lists(
    st.tuples(st.sampled_from(("take", "lose", "discard", "trust")), st.integers(0, 4)),
    max_size=12,
)


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5), MOVES)
def test_the_deadline_is_the_latest_whatever_happens_before(
    reports: list[float], moves: list[tuple[str, int]]
) -> None:
    step, members = timed(grace=0.5), peers(5)
    for peer, report in zip(members, reports, strict=True):
        peer.reports.append(report)
    work = opened(step, members)
    due = {peer: 0 + peer.allowance(1.0) + 1.0 + 0.5 for peer in members}
    for move, number in moves:
        peer = members[number]
        match move:
            case "take" if peer in due:
                step.take(peer, result(replace(work[peer], groups=1)), 0.1)
            case "lose":
                step.lose(peer)
            case "discard":
                step.discard(peer)
            case "trust":
                peer.waited = not peer.waited
        if move != "trust":
            due.pop(peer, None)
        waited = [moment for owing, moment in due.items() if owing.waited]
        latest = max(waited or due.values(), default=-math.inf)

        assert step.wakeup(latest - 1e-9) == (latest if due else None)
        assert step.wakeup(latest) is None


def test_unusable_losses_are_counted_apart() -> None:
    step, (ann, bob) = timed(), peers(2)
    work = opened(step, [ann, bob])

    step.take(ann, result(replace(work[ann], groups=1), value=math.nan), 0.2)
    step.take(bob, result(replace(work[bob], groups=2)), 0.2)

    scored, dropped = step.scored()
    assert ([s.groups for s, _ in scored], dropped) == ([2], 1)


def test_the_last_step_asks_for_digests_alone_and_ends_at_its_deadline() -> None:
    step, (ann, bob) = timed(last=True), peers(2)

    work = step.assign([ann, bob], 0.0)

    assert work == [(ann, ()), (bob, ())]
    assert step.wakeup(0.0) == 1.25  # without time for trials
    with pytest.raises(ProtocolError, match="expected a digest alone"):
        step.take(ann, result(Segment(1, 0, 1)), 0.1)
    step.take(ann, result(), 0.1)
    assert step.votes() == {DIGEST: [ann]}
    assert step.scored() == ([], 0)
    assert not step.complete(0.2)
    assert step.complete(1.25)


def test_the_last_step_ends_without_any_answer_too() -> None:
    step = timed(last=True)
    step.assign(peers(1), 0.0)

    assert not step.complete(1.24)
    assert not step.stuck(9.0)
    assert step.complete(1.25)


# --- steps of blocks ------------------------------------------------------------------


class Blocks:
    """A step of blocks and clients that answer them."""

    def __init__(self, clients: int, blocks: int = 6, times: float | None = None):
        self.times: deque[float] = deque([] if times is None else [times], maxlen=32)
        config = setting(trials_per_step=4 * blocks)
        self.step = BlockStep(config, STEP, 1.0, lambda slot: 100 + slot, self.times)
        self.peers = peers(clients)
        self.held: dict[Peer, list[tuple[Segment, ...]]] = {p: [] for p in self.peers}
        self.now = 0.0

    def go(self, now: float | None = None) -> list[tuple[str, int | None]]:
        """Hand out work; return names and slots, None for a digest alone."""
        self.now = self.now if now is None else now
        work = self.step.assign(self.peers, self.now)
        for peer, segments in work:
            self.held[peer].append(segments)
        return [(p.name, s[0].seed - 100 if s else None) for p, s in work]

    def answer(self, number: int, now: float | None = None, **how: Any) -> None:
        """Let a client answer the oldest of what it holds."""
        self.now = self.now if now is None else now
        peer = self.peers[number]
        answer = result(*self.held[peer].pop(0), **how)
        peer.answer(answer, self.now)
        self.step.take(peer, answer, self.now)

    def leave(self, number: int) -> None:
        """Let a client go; the others keep their numbers."""
        self.step.lose(self.peers[number])
        self.peers[number] = Peer(99, "gone")
        self.peers = [peer for peer in self.peers if peer.name != "gone"]

    def slots(self) -> list[int]:
        """Return the slots of all usable blocks."""
        return [segment.seed - 100 for segment, _ in self.step.scored()[0]]


def test_a_step_is_cut_into_blocks_of_one_forward_batch_each() -> None:
    config = setting(trials_per_step=80, batch_size=16)  # 64 rows a group: 8 groups
    step = BlockStep(config, STEP, 1.0, lambda slot: 100 + slot, deque())

    work = step.assign(peers(1), 0.0) + step.assign(peers(3)[1:], 0.0)

    segments = [segments[0] for _, segments in work]
    assert segments == [Segment(100, 0, 8), Segment(101, 0, 8), Segment(102, 0, 4)]


def test_every_client_holds_two_blocks_and_gets_more_as_it_answers() -> None:
    blocks = Blocks(2)

    assert blocks.go() == [("c0", 0), ("c1", 1), ("c0", 2), ("c1", 3)]
    assert blocks.go() == []
    blocks.answer(1)
    assert blocks.go() == [("c1", 4)]
    blocks.answer(0)
    assert blocks.go() == [("c0", 5)]
    blocks.answer(0)
    assert blocks.go() == []


def test_of_many_clients_as_many_get_work_as_there_are_blocks() -> None:
    blocks = Blocks(50, 3, times=2.0)

    assert blocks.go() == [("c0", 0), ("c1", 1), ("c2", 2)]
    assert blocks.go(6.24) == []
    assert blocks.go(6.25) == [("c3", 0), ("c4", 1), ("c5", 2)]


def test_a_step_is_complete_when_every_block_is_answered() -> None:
    blocks = Blocks(1, 3)
    for _ in range(3):
        assert not blocks.step.complete(99.0)
        blocks.go()
        blocks.answer(0)

    assert blocks.step.complete(0.0)
    assert blocks.slots() == [0, 1, 2]
    assert (blocks.step.missing(), blocks.step.late()) == ([], 0)


def test_blocks_are_counted_in_the_order_of_their_slots() -> None:
    blocks = Blocks(2, 4)
    blocks.go()

    for number in (1, 0, 1, 0):
        blocks.answer(number)

    assert blocks.slots() == [0, 1, 2, 3]


def test_a_block_goes_to_another_client_after_three_usual_times_and_grace() -> None:
    blocks = Blocks(2, 4, times=2.0)
    blocks.go()
    assert blocks.step.wakeup(0.0) == 3 * 2.0 + 0.25
    blocks.answer(1, 2.0)
    blocks.answer(1, 2.0)

    assert blocks.go(6.24) == []
    assert blocks.go(6.25) == [("c1", 0), ("c1", 2)]
    assert blocks.step.missing() == [blocks.peers[0]]
    assert blocks.step.wakeup(6.25) == 6.25 + 6.25


def test_a_block_does_not_go_to_the_client_that_has_it() -> None:
    blocks = Blocks(1, 1)
    assert blocks.go() == [("c0", 0)]

    assert blocks.go(100.0) == []


def test_before_anything_was_measured_a_block_may_take_a_second() -> None:
    blocks = Blocks(1)
    assert blocks.go() == [("c0", 0), ("c0", 1)]

    assert blocks.step.wakeup(0.0) == 3 * 1.0 + 0.25


def test_the_usual_time_is_the_median_over_steps() -> None:
    blocks = Blocks(1, 3, times=9.0)
    blocks.go()
    for now in (1.0, 2.0, 3.0):
        blocks.answer(0, now)
        blocks.go()

    assert list(blocks.times) == [9.0, 1.0, 2.0, 2.0]


def test_the_first_answer_counts_and_the_second_is_late() -> None:
    blocks = Blocks(2, 3, times=1.0)
    blocks.go()
    blocks.answer(1, 1.0)
    assert blocks.go(5.0) == [("c1", 0), ("c1", 2)]
    blocks.answer(1, value=2.5)
    assert blocks.slots() == [0, 1]
    first = blocks.step.scored()[0][0][1]

    blocks.answer(0, value=2.75)

    assert blocks.step.scored()[0][0][1] is first
    assert set(first.losses.tolist()) == {2.5}
    assert blocks.step.late() == 1
    assert blocks.step.missing() == []  # it has answered, though too late
    assert not blocks.step.complete(9.0)
    blocks.answer(0)
    assert blocks.step.complete(9.0)


def test_a_client_that_took_over_a_block_is_not_blamed_when_the_first_answers() -> None:
    blocks = Blocks(2, 2, times=1.0)
    blocks.go()
    blocks.answer(1, 1.0)
    assert blocks.go(9.0) == [("c1", 0)]

    blocks.answer(0)

    assert blocks.step.complete(9.0)
    assert blocks.step.missing() == []


def test_blocks_of_a_client_that_has_left_are_free_and_its_answers_count() -> None:
    blocks = Blocks(2, 4)
    blocks.go()
    blocks.answer(0)
    blocks.leave(0)

    assert blocks.go() == []
    blocks.answer(0)  # the one that has stayed
    assert blocks.go() == [("c1", 2)]
    blocks.answer(0)
    blocks.answer(0)
    assert blocks.step.complete(0.0)
    assert len(blocks.step.votes()[DIGEST]) == 2


def test_blocks_of_a_replica_that_differs_are_open_again() -> None:
    blocks = Blocks(2, 3)
    blocks.go()
    blocks.answer(0, digest=OTHER)
    blocks.answer(1)
    blocks.answer(0, digest=OTHER)
    assert blocks.step.complete(0.0)
    assert {d: len(p) for d, p in blocks.step.votes().items()} == {OTHER: 1, DIGEST: 1}

    blocks.step.discard(blocks.peers[0])

    assert not blocks.step.complete(0.0)
    assert list(blocks.step.votes()) == [DIGEST]
    del blocks.peers[0]
    assert blocks.go() == [("c1", 0), ("c1", 2)]
    blocks.answer(0)
    blocks.answer(0)
    assert blocks.slots() == [0, 1, 2]


def test_a_replica_that_reports_two_digests_of_one_step_agrees_with_nobody() -> None:
    blocks = Blocks(2, 4)
    blocks.go()
    blocks.answer(0)
    blocks.answer(1)
    blocks.answer(0, digest=OTHER)
    blocks.answer(1)

    votes = {d: len(who) for d, who in blocks.step.votes().items()}
    assert votes == {NO_DIGEST: 1, DIGEST: 1}
    blocks.step.discard(blocks.peers[0])
    assert blocks.slots() == [1, 3]
    assert not blocks.step.complete(0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, 100.5])
def test_unusable_losses_go_once_to_another_client(value: float) -> None:
    blocks = Blocks(2, 3)
    blocks.go()
    blocks.answer(0, value=value)
    assert blocks.go() == [("c1", 0)]

    blocks.answer(1)
    blocks.answer(1)
    blocks.answer(0)

    assert blocks.slots() == [0, 1, 2]
    assert blocks.step.scored()[1] == 0


def test_losses_that_are_unusable_twice_are_dropped_and_counted() -> None:
    blocks = Blocks(3, 3)
    blocks.go()
    blocks.answer(0, value=math.nan)
    assert blocks.go() == [("c1", 0)]
    blocks.answer(1)
    blocks.answer(1, value=math.nan)
    blocks.answer(2)

    assert blocks.step.complete(0.0)
    scored, dropped = blocks.step.scored()
    assert ([s.seed - 100 for s, _ in scored], dropped) == ([1, 2], 1)


def test_unusable_losses_of_a_lone_client_are_dropped_at_once() -> None:
    blocks = Blocks(1, 1)
    blocks.go()

    blocks.answer(0, value=math.nan)

    assert blocks.step.complete(0.0)
    assert blocks.step.scored() == ([], 1)


def test_a_refused_block_goes_back_if_nobody_else_is_left() -> None:
    blocks = Blocks(2, 3)
    blocks.go()
    blocks.answer(0, value=math.nan)
    blocks.leave(1)

    assert blocks.go() == [("c0", 0)]
    blocks.answer(0)
    blocks.answer(0, value=math.nan)
    blocks.go()
    blocks.answer(0)
    assert blocks.step.scored()[1] == 1


def test_a_refused_block_goes_back_if_the_others_take_too_long() -> None:
    blocks = Blocks(2, 4, times=1.0)
    blocks.go()
    blocks.answer(0, 1.0, value=math.nan)
    blocks.answer(0, 1.0)
    assert blocks.go(1.0) == []  # the other one has its hands full

    assert blocks.go(3.25) == [("c0", 1), ("c0", 3)]
    blocks.answer(0)
    assert blocks.go(4.25) == [("c0", 0)]


def test_what_a_bad_replica_refused_is_not_refused_any_more() -> None:
    blocks = Blocks(3, 3)
    blocks.go()
    blocks.answer(0, digest=OTHER, value=math.nan)
    bad = blocks.peers.pop(0)
    blocks.step.discard(bad)
    blocks.go()
    blocks.answer(0)

    blocks.answer(0, value=math.nan)

    assert not blocks.step.complete(0.0)
    assert blocks.go() == [("c2", 0)]


def test_a_client_that_was_late_gets_no_blocks_but_is_asked_for_its_digest() -> None:
    blocks = Blocks(2, 4)
    blocks.peers[1].waited = False

    assert blocks.go() == [("c0", 0), ("c0", 1), ("c1", None)]
    assert blocks.go() == []
    assert blocks.step.missing() == [blocks.peers[1]]
    assert blocks.step.late() == 1
    blocks.answer(1)

    assert blocks.peers[1].waited
    assert blocks.step.missing() == []
    assert len(blocks.step.votes()[DIGEST]) == 1
    assert blocks.go() == [("c1", 2), ("c1", 3)]


def test_clients_that_were_late_get_blocks_where_nobody_else_is() -> None:
    blocks = Blocks(2, 4)
    for peer in blocks.peers:
        peer.waited = False

    assert [name for name, slot in blocks.go() if slot is not None] == [
        *("c0", "c1", "c0", "c1")
    ]


def test_a_late_client_that_is_asked_for_its_digest_must_not_send_losses() -> None:
    blocks = Blocks(2, 4)
    blocks.peers[1].waited = False
    blocks.go()

    with pytest.raises(ProtocolError, match="expected a digest alone"):
        blocks.step.take(blocks.peers[1], result(Segment(100, 0, 1)), 0.0)


def test_losing_a_client_that_was_asked_for_its_digest_ends_the_wait() -> None:
    blocks = Blocks(2, 4)
    blocks.peers[1].waited = False
    blocks.go()

    blocks.step.lose(blocks.peers[1])

    assert blocks.step.missing() == []


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ((), "no such block is due"),
        ((Segment(5, 0, 1),), "no such block is due"),
        ((Segment(101, 0, 8),), "no such block is due"),  # it has another one
        ((Segment(100, 0, 8), Segment(102, 0, 8)), "expected one segment, got 2"),
        ((Segment(100, 1, 8),), "expected groups of"),
        ((Segment(100, 0, 9),), "expected groups of"),
        ((Segment(100, 0, 7),), "expected the whole of"),
    ],
)
def test_an_answer_to_anything_but_its_block_breaks_the_rules(
    segments: tuple[Segment, ...], words: str
) -> None:
    config = setting(trials_per_step=96, batch_size=16)
    step = BlockStep(config, STEP, 1.0, lambda slot: 100 + slot, deque())
    ann, bob = peers(2)
    step.assign([ann, bob], 0.0)

    with pytest.raises(ProtocolError, match=words):
        step.take(ann, result(*segments), 0.0)

    assert step.votes() == {}


def test_a_step_of_blocks_is_stuck_when_all_that_is_left_takes_too_long() -> None:
    blocks = Blocks(2, 4, times=1.0)
    blocks.go()
    assert not blocks.step.stuck(3.0)
    assert blocks.step.stuck(3.25)

    blocks.answer(0, 3.0)
    blocks.go(3.0)
    blocks.answer(0, 3.25)
    blocks.go(3.25)  # takes over a block of the silent one

    assert not blocks.step.stuck(3.25)


def test_times_of_blocks_that_nobody_has_do_not_wake_anybody() -> None:
    blocks = Blocks(1, 6)
    assert blocks.step.wakeup(0.0) is None
    blocks.go()

    assert blocks.step.wakeup(3.25) is None
    assert blocks.step.wakeup(3.24) == 3.25


# --- owners ---------------------------------------------------------------------------


def test_a_segment_belongs_to_whoever_has_scored_it() -> None:
    step, (ann, bob, eve) = timed(), peers(3)
    work = opened(step, [ann, bob, eve])
    for peer in (ann, bob):
        step.take(peer, result(replace(work[peer], groups=1)), 0.1)
    assert step.owners() == {50: ann, 51: bob}

    step.discard(bob)
    step.lose(ann)  # what it has answered counts

    assert step.owners() == {50: ann}


def test_a_block_belongs_to_whoever_answered_first() -> None:
    blocks = Blocks(2, 3)
    blocks.go()
    assert blocks.step.owners() == {}
    for number in (1, 0):
        blocks.answer(number)

    assert blocks.step.owners() == {100: blocks.peers[0], 101: blocks.peers[1]}

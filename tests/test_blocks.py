"""A step of a fixed number of trials: blocks, who gets which, whose answer counts."""

import math
import random
import statistics
from collections import deque
from collections.abc import Iterable
from typing import Any

import pytest

from tests.steps import DIGEST, OTHER, STEP, peers, result, setting
from utilities.audits import Audits
from utilities.blocks import NO_DIGEST, BlockStep
from utilities.errors import ProtocolError
from utilities.evolution import Segment
from utilities.peers import MOST_TOGETHER, Peer


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


def rounds(blocks: Blocks, count: int, processes: int = 1) -> list[int]:
    """Let the first client answer as many at a time as it can; return how many."""
    together, held = [], blocks.held[blocks.peers[0]]
    for _ in range(count):
        blocks.go()
        together.append(min(processes, len(held)))
        for _ in range(together[-1]):
            blocks.answer(0)
    return together


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        (1, [1, 1, 1, 1, 1, 1]),
        (2, [2, 2, 2, 2, 2, 2]),
        (3, [2, 3, 3, 3, 3, 3]),
        (8, [2, 4, 8, 8, 8, 8]),
    ],
)
def test_a_client_that_does_several_at_a_time_holds_as_many_again(
    processes: int, expected: list[int]
) -> None:
    blocks = Blocks(1, 120)

    assert rounds(blocks, 6, processes) == expected

    rounds(blocks, 8, processes)
    blocks.go()
    assert len(blocks.held[blocks.peers[0]]) == 2 * processes


def test_what_came_at_once_after_a_pause_is_soon_forgotten() -> None:
    blocks = Blocks(1, 200)
    rounds(blocks, 9)
    for _ in range(20):
        rounds(blocks, 1, 99)  # all that it holds
        rounds(blocks, 5)

        assert blocks.peers[0].ahead == 2


def test_the_last_blocks_of_a_step_say_nothing_about_a_client() -> None:
    blocks = Blocks(1, 3)
    for _ in range(3):
        blocks.go()
        blocks.answer(0)
    blocks.go()

    assert list(blocks.peers[0].together) == [1]  # then all were given out


def test_nobody_holds_more_than_so_many_blocks() -> None:
    blocks = Blocks(1, 9_000)
    rounds(blocks, 20, 9_999)
    blocks.go()

    assert len(blocks.held[blocks.peers[0]]) == 2 * MOST_TOGETHER


def test_who_does_several_at_a_time_leaves_the_others_theirs() -> None:
    blocks = Blocks(2, 22)
    blocks.peers[0].together.append(8)

    assert [name for name, _ in blocks.go()] == ["c0", "c1"] * 2 + ["c0"] * 14


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
        ((Segment(100, 0, 8), Segment(102, 0, 8)), "expected 1 to 1 segments, got 2"),
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


def test_a_block_belongs_to_whoever_answered_first() -> None:
    blocks = Blocks(2, 3)
    blocks.go()
    assert blocks.step.owners() == {}
    for number in (1, 0):
        blocks.answer(number)

    assert blocks.step.owners() == {100: blocks.peers[0], 101: blocks.peers[1]}


# --- a second answer ------------------------------------------------------------------


class Watched(Audits):
    """Audit every client in every step, its first block."""

    def __init__(self) -> None:
        super().__init__(setting(), random.Random(1))
        self.random = First()

    def due(self, peers: Iterable[Peer]) -> list[Peer]:
        return list(peers)


class First(random.Random):
    """Chance that always takes the first."""

    def randrange(self, *_: Any) -> int:
        return 0


def audited(clients: int, blocks: int) -> Blocks:
    found = Blocks(clients, blocks, times=1.0)
    config = setting(trials_per_step=4 * blocks)
    found.step = BlockStep(
        *(config, STEP, 1.0, lambda slot: 100 + slot, found.times),
        audits=Watched(),
    )
    return found


def test_a_block_of_who_is_due_goes_to_a_second_client() -> None:
    blocks = audited(2, 6)
    blocks.go()
    blocks.answer(0, 1.0)

    assert blocks.go() == [("c0", 4)]
    blocks.answer(1, 1.0)
    assert blocks.go() == [("c1", 0)]  # ahead of those that nobody has done
    assert blocks.step.pairs() == []
    blocks.answer(1)
    assert blocks.go() == [("c1", 5)]
    blocks.answer(1)

    [pair] = blocks.step.pairs()
    assert pair.segment.seed == 100
    assert [peer.name for peer, _ in pair.answers] == ["c0", "c1"]
    assert blocks.step.late() == 0  # nobody was late


def test_the_first_answer_counts_whoever_is_compared() -> None:
    blocks = audited(2, 2)
    blocks.go()
    blocks.answer(0, value=2.5)
    blocks.answer(1, value=2.25)
    before = [scores for _, scores in blocks.step.scored()[0]]
    assert blocks.go() == [("c0", 1), ("c1", 0)]

    blocks.answer(0, value=2.75)
    blocks.answer(1, value=2.75)

    after = [scores for _, scores in blocks.step.scored()[0]]
    assert all(one is other for one, other in zip(before, after, strict=True))
    assert len(blocks.step.pairs()) == 2
    assert [peer.name for peer in blocks.step.owners().values()] == ["c0", "c1"]


def test_a_step_waits_for_second_answers_but_not_for_ever() -> None:
    blocks = audited(2, 2)
    blocks.go(0.0)
    blocks.answer(0, 1.0)
    blocks.answer(1, 1.0)
    blocks.go(1.0)
    blocks.answer(1, 2.0)
    step = blocks.step
    late = 1.0 + 3 * 1.0 + 0.25

    assert not step.complete(2.0)
    assert not step.stuck(100.0)
    assert step.wakeup(2.0) == late
    assert not step.complete(late - 0.01)
    assert step.complete(late)
    assert step.late() == 0


def test_a_second_client_that_leaves_is_replaced() -> None:
    blocks = audited(3, 3)
    blocks.go()
    blocks.answer(0)
    assert blocks.go() == [("c1", 0)]

    blocks.leave(1)

    assert ("c2", 0) in blocks.go()


def test_what_a_bad_replica_has_answered_is_not_compared() -> None:
    for number in (0, 1):
        blocks = audited(2, 2)
        blocks.go()
        blocks.answer(0)
        blocks.answer(1)
        blocks.go()
        blocks.answer(1)
        [pair] = blocks.step.pairs()
        assert [peer.name for peer, _ in pair.answers] == ["c0", "c1"]

        blocks.step.discard(blocks.peers[number])

        assert blocks.step.pairs() == []


def test_a_client_alone_gets_no_block_twice() -> None:
    blocks = audited(1, 2)
    blocks.go()
    blocks.answer(0)
    blocks.answer(0)

    assert blocks.go() == []
    assert blocks.step.complete(0.0)


def test_two_answers_to_an_overdue_block_are_compared_for_nothing() -> None:
    blocks = Blocks(2, 3, times=1.0)
    blocks.go()
    blocks.answer(1, 1.0)
    blocks.go(5.0)
    blocks.answer(1)
    blocks.answer(0)

    assert [pair.segment.seed for pair in blocks.step.pairs()] == [100]


# --- nobody has more than half --------------------------------------------------------


def half_done() -> Blocks:
    """Return a step of which the first of three clients has got its five blocks."""
    blocks = Blocks(3, 10, times=1.0)
    blocks.go()
    for _ in range(3):
        blocks.answer(0)
        blocks.go()
    for _ in range(2):
        blocks.answer(0)
    return blocks


def test_of_three_clients_none_is_given_more_than_half_of_the_blocks() -> None:
    blocks = half_done()
    assert sorted(blocks.slots()) == [0, 3, 6, 7, 8]
    assert blocks.go() == []

    blocks.answer(1)
    assert blocks.go() == [("c1", 9)]


def test_who_has_its_half_takes_over_what_takes_others_too_long() -> None:
    blocks = half_done()
    late = 3 * statistics.median(blocks.times) + 0.25
    assert blocks.go(late - 0.01) == []

    # With one of the two silent, there is nobody to leave the rest to.
    assert blocks.go(late) == [("c0", 1), ("c0", 9)]


def test_of_two_clients_one_may_do_nearly_everything() -> None:
    blocks = Blocks(2, 10)
    blocks.go()
    for _ in range(7):
        blocks.answer(0)
        blocks.go()

    assert len(blocks.slots()) == 7


def test_what_a_bad_replica_has_had_does_not_count_towards_its_half() -> None:
    blocks = half_done()
    blocks.step.discard(blocks.peers[0])

    assert [slot for name, slot in blocks.go() if name == "c0"] == [9, 0]

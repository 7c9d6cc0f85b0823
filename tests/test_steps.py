"""One open step: who works on what, who is waited for, when it closes."""

import itertools
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.desk import NoAudits, first_groups
from tests.steps import DIGEST, OTHER, STEP, floats, peers, result, setting
from utilities.audits import Audits
from utilities.blocks import BlockStep
from utilities.errors import ProtocolError
from utilities.evolution import Segment
from utilities.peers import Peer
from utilities.protocol import MAX_TRIALS
from utilities.steps import PARTS, SPARE, TimedStep, check_shape

# --- the shape of an answer -----------------------------------------------------------

ISSUED = Segment(5, 0, 3)


MORE = Segment(6, 0, 3)


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_an_answer_may_cover_part_of_what_was_given_out(groups: int) -> None:
    answer = result(replace(ISSUED, groups=groups))

    [(segment, scores)] = check_shape(setting(), answer, [ISSUED, MORE])

    assert segment == replace(ISSUED, groups=groups)
    assert scores.losses.tolist() == answer.losses.tolist()
    assert (len(scores.losses), len(scores.clean)) == (4 * groups, groups)


def test_each_segment_gets_its_losses_of_one_answer() -> None:
    answer = result(ISSUED, replace(MORE, groups=2))

    (one, first), (other, second) = check_shape(setting(), answer, [ISSUED, MORE])

    assert (one, other) == (ISSUED, Segment(6, 0, 2))
    assert first.losses.tolist() == answer.losses[:12].tolist()
    assert second.losses.tolist() == answer.losses[12:].tolist()
    assert first.clean.tolist() == answer.clean[:3].tolist()
    assert second.clean.tolist() == answer.clean[3:].tolist()


def test_antithetic_pairs_have_two_losses_a_group_and_no_clean_one() -> None:
    pairs = setting(directions_per_window=0)
    answer = replace(result(ISSUED), losses=floats(6), clean=floats(0))

    [(_, scores)] = check_shape(pairs, answer, [ISSUED])

    assert (len(scores.losses), len(scores.clean)) == (6, 0)
    with pytest.raises(ProtocolError, match="expected 6 losses and 0 clean ones"):
        check_shape(pairs, replace(answer, clean=floats(3)), [ISSUED])


@pytest.mark.parametrize(
    ("segments", "words"),
    [
        ((), "expected 1 to 2 segments, got 0"),
        ((ISSUED, MORE, MORE), "expected 1 to 2 segments, got 3"),
        ((ISSUED, ISSUED), "expected groups of"),
        ((MORE,), "expected groups of"),
        ((MORE, ISSUED), "expected groups of"),
        ((replace(ISSUED, groups=2), MORE), "expected groups of"),
        ((ISSUED, replace(MORE, groups=4)), "expected groups of"),
        ((ISSUED, replace(MORE, groups=0)), "expected groups of"),
        ((Segment(5, 1, 2),), "expected groups of"),
        ((Segment(5, 0, 4),), "expected groups of"),
        ((Segment(5, 0, 0),), "expected groups of"),
    ],
)
def test_an_answer_about_anything_else_breaks_the_rules(
    segments: tuple[Segment, ...], words: str
) -> None:
    with pytest.raises(ProtocolError, match=words):
        check_shape(setting(), result(*segments), [ISSUED, MORE])


@pytest.mark.parametrize("changes", [{"losses": floats(11)}, {"clean": floats(4)}])
def test_an_answer_has_as_many_losses_as_its_groups(changes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="expected 12 losses and 3 clean ones"):
        check_shape(setting(), replace(result(ISSUED), **changes), [ISSUED])


# --- timed steps ----------------------------------------------------------------------

PAIR: dict[str, Any] = {
    "batch_size": 100
}  # 400 rows a group: blocks of two, first segments of four


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


def test_each_client_gets_segments_of_its_own_once() -> None:
    step, (ann, bob, eve) = timed(), peers(3)

    work = dict(step.assign([ann, bob], 0.0))

    first, second = range(50, 74), range(74, 98)
    assert work[ann] == tuple(Segment(seed, 0, 2) for seed in first)
    assert work[bob] == tuple(Segment(seed, 0, 2) for seed in second)
    assert (ann.owes(STEP), bob.owes(STEP)) == (1, 1)
    assert step.assign([ann, bob, eve], 0.1) == []


@pytest.mark.parametrize(
    ("done", "groups", "count"),
    [
        ([], 2 * 7, 24),  # nothing is known: two blocks of 7 groups
        ([(560, 1.0)], 2 * 7 * 10, 24),  # 560 a second, of two an eighth: 20 blocks
        ([(561, 1.0)], 21 * 7, 23),  # whole blocks: of 161, three times as many
        ([(56, 1.0), (560, 1.0), (5600, 1.0)], 2 * 7 * 10, 24),  # the median
        ([(56, 1.0)], 2 * 7, 24),  # 16 blocks: eight segments of two
        ([(28, 1.0)], 2 * 7, 12),  # 8 blocks: four segments of two
        ([(14, 1.0)], 2 * 7, 6),  # 4 blocks: two segments of two
        ([(7, 1.0)], 7, 6),  # never less than a block
        ([(3, 1.0)], 7, 3),  # of which it does six sevenths
        ([(1, 1.0)], 7, 2),  # never less than two, of which audits choose
        ([(0, 1.0)], 7, 2),
        ([(56, 1e-9)], 5 * 7, 24),  # at most 16 times what it did: 896, in 24 parts
    ],
)
def test_segments_are_an_eighth_of_what_a_client_did_before(
    done: list[tuple[int, float]], groups: int, count: int
) -> None:
    config = setting(batch_size=36)  # 144 rows a group
    step, [ann] = TimedStep(config, STEP, 2.0, itertools.count().__next__), peers(1)
    ann.scored.extend(done)

    [(_, segments)] = step.assign([ann], 0.0)

    assert [segment.groups for segment in segments] == [groups] * count


def test_in_a_crowd_everybody_gets_fewer_and_larger_segments() -> None:
    step, crowd = timed(), peers(100)
    for peer in crowd:
        peer.scored.append((80, 1.0))

    work = step.assign(crowd, 0.0)

    assert {len(segments) for _, segments in work} == {2 * 3}
    assert {segment.groups for _, segments in work for segment in segments} == {40}


@given(st.integers(0, 1024), st.integers(1, 300), st.floats(0, 1e9))
def test_no_answer_can_have_more_losses_than_a_message_holds(
    directions: int, batch: int, groups: float
) -> None:
    config = setting(directions_per_window=directions, batch_size=batch)
    step, [ann] = TimedStep(config, STEP, 1.0, itertools.count().__next__), peers(1)
    ann.scored.append((round(groups), 1.0))

    [(_, segments)] = step.assign([ann], 0.0)

    assert segments[0].groups >= 1
    assert sum(s.groups for s in segments) * max(2, directions) <= MAX_TRIALS


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
    assert ([s.seed for s, _ in scored], dropped) == ([50, 74], 0)


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
    assert segments[0].seed == 50 + PARTS * SPARE
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


# --- owners ---------------------------------------------------------------------------


def test_a_segment_belongs_to_whoever_has_scored_it() -> None:
    step, (ann, bob, eve) = timed(), peers(3)
    work = opened(step, [ann, bob, eve])
    for peer in (ann, bob):
        step.take(peer, result(replace(work[peer], groups=1)), 0.1)
    assert step.owners() == {50: ann, 74: bob}

    step.discard(bob)
    step.lose(ann)  # what it has answered counts

    assert step.owners() == {50: ann}


# --- what two clients share -----------------------------------------------------------


class Together(Audits):
    """Put the same two clients together, at given places."""

    def __init__(self, *couples: tuple[Peer, Peer], at: tuple[int, int] = (1, 0)):
        super().__init__(setting(), NoAudits())
        self._couples, self._at = list(couples), list(at)

    def couples(self, peers: Sequence[Peer]) -> list[tuple[Peer, Peer]]:
        return [c for c in self._couples if c[0] in peers and c[1] in peers]

    def places(self, *lists: tuple[int, int, set[int]]) -> list[int]:
        return self._at


def sharing(*members: Peer) -> tuple[TimedStep, dict[Peer, tuple[Segment, ...]]]:
    """Return a step whose first two clients share the first one's second segment."""
    audits = Together((members[0], members[1]))
    new_seed = itertools.count(50).__next__
    step = TimedStep(setting(**PAIR), STEP, 1.0, new_seed, audits=audits)
    return step, dict(step.assign(members, 0.0))


def counted(step: TimedStep) -> dict[int, tuple[str, int]]:
    """Return whose groups count of each seed, and how many."""
    owners = step.owners()
    return {s.seed: (owners[s.seed].name, s.groups) for s, _ in step.scored()[0]}


def done(segments: tuple[Segment, ...], groups: int) -> tuple[Segment, ...]:
    return first_groups(segments, groups)


def test_a_shared_segment_looks_like_all_others() -> None:
    _, work = sharing(*peers(3))
    ann, bob, eve = work.values()

    assert bob[0].seed == ann[1].seed
    for segments in (ann, bob, eve):
        assert {(s.first, s.groups) for s in segments} == {(0, 4)}
        assert len({s.seed for s in segments}) == 24
    assert not {s.seed for s in eve} & {s.seed for s in (*ann, *bob)}


@pytest.mark.parametrize(
    ("ann_does", "bob_does", "whose", "groups"),
    [
        (8, 4, "c0", 4),  # both whole: one of them, by the seed
        (7, 4, "c1", 4),  # the longer one
        (8, 2, "c0", 4),
        (6, 2, "c0", 2),
        (4, 3, "c1", 3),  # the other one did not come that far
    ],
)
def test_a_shared_segment_counts_once_wherever_it_is_longer(
    ann_does: int, bob_does: int, whose: str, groups: int
) -> None:
    step, work = sharing(*peers(2))
    for (peer, segments), n in zip(work.items(), (ann_does, bob_does), strict=True):
        step.take(peer, result(*done(segments, n)), 0.2)

    shared = work[step_peer(work, 0)][1].seed
    assert counted(step)[shared] == (whose, groups)
    every = [s.seed for s, _ in step.scored()[0]]
    assert len(every) == len(set(every))


def step_peer(work: dict[Peer, tuple[Segment, ...]], number: int) -> Peer:
    return list(work)[number]


def test_of_two_whole_answers_the_seed_says_which_counts() -> None:
    winners = set()
    for first_seed in (50, 51):
        ann, bob = peers(2)
        new_seed = itertools.count(first_seed).__next__
        audits = Together((ann, bob))
        step = TimedStep(setting(**PAIR), STEP, 1.0, new_seed, audits=audits)
        work = dict(step.assign([ann, bob], 0.0))
        for peer in (ann, bob):
            step.take(peer, result(*done(work[peer], 8)), 0.2)
        winners.add(counted(step)[first_seed + 1][0])

    assert winners == {"c0", "c1"}


def test_what_both_have_done_is_compared() -> None:
    step, work = sharing(*peers(3))
    ann, bob, eve = work
    assert step.pairs() == []
    step.take(ann, result(*done(work[ann], 7)), 0.2)
    step.take(eve, result(*done(work[eve], 1)), 0.2)
    assert step.pairs() == []
    step.take(bob, result(*done(work[bob], 2)), 0.2)

    [pair] = step.pairs()

    assert pair.segment == Segment(work[ann][1].seed, 0, 2)
    (one, first), (other, second) = pair.answers
    assert (one, other) == (ann, bob)
    assert len(first.losses) == len(second.losses) == 8
    step.discard(ann)
    assert step.pairs() == []
    assert counted(step)[pair.segment.seed] == ("c1", 2)


# --- nobody has more than half --------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "kept"),
    [
        ((20, 3, 2), (5, 3, 2)),  # cut within its second segment
        ((20, 2, 2), (4, 2, 2)),  # cut between two
        ((5, 3, 2), (5, 3, 2)),
        ((20, 3), (20, 3)),  # two clients have nobody else to ask
        ((20,), (20,)),
    ],
)
def test_of_three_clients_none_has_more_than_half_of_a_step(
    groups: tuple[int, ...], kept: tuple[int, ...]
) -> None:
    step, members = timed(**PAIR), peers(len(groups))
    work = dict(step.assign(members, 0.0))
    for peer, n in zip(members, groups, strict=True):
        step.take(peer, result(*done(work[peer], n)), 0.2)

    scored, dropped = step.scored()

    owners = step.owners()
    found = [
        sum(s.groups for s, _ in scored if owners[s.seed] is peer) for peer in members
    ]
    assert (tuple(found), dropped) == (kept, 0)
    assert all(len(scores.losses) == 4 * s.groups for s, scores in scored)
    assert step.capped is (members[0] if groups != kept else None)

"""How processes share work: each group once, no gaps, the same integers."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.desk import Lesson, lesson
from tests.steps import bits
from utilities.config import Config
from utilities.engine import OneCore, Scored
from utilities.evolution import (
    Scores,
    Segment,
    Setting,
    chunk_groups,
    halves,
    nodes_of,
    total,
)
from utilities.model import Floats, Tokens
from utilities.scheduling import (
    groups_of,
    losses_per_group,
    part_groups,
    part_of,
    placed,
    score_share,
    scored_blocks,
    sheet_size,
    sum_share,
)
from utilities.whitening import Whiteners

LESSON = lesson()  # a block is one group of four trials
GRU = lesson(model_type="gru")
FULL = lesson(noise="full", directions_per_window=0, batch_size=300)
BY_NODES = lesson(batch_size=2, burn_in=3, n_layers=2, nodes="auto")
LESSONS = LESSON, GRU, FULL, BY_NODES
SEGMENT = Segment(7, 3, 10)


class Numbers:
    """A counter that can be looked at."""

    def __init__(self, *others: int) -> None:
        """Leave out turns, from 0, in which other workers take as much."""
        self.others = list(others)
        self.turn = 0
        self.given = 0  # groups
        self.scored = 0

    def take(self, groups: int, *, only_first: bool = False) -> int | None:
        while self.turn in self.others:
            self.turn, self.given = self.turn + 1, self.given + groups
        if only_first and self.given:
            return None
        self.turn, self.given = self.turn + 1, self.given + groups
        return self.given - groups

    def add_scored(self, trials: int) -> None:
        self.scored += trials


class Clock:
    """A clock on which every look takes as long as a test says."""

    def __init__(self, looks: float = 0.0) -> None:
        self.now, self.looks = 0.0, looks

    def __call__(self) -> float:
        self.now += self.looks
        return self.now


def step_of(start: Lesson) -> tuple[Setting, Floats, Tokens, Whiteners]:
    """Return what all blocks of a step have in common."""
    setting, weights, tokens = start.setting, start.state.weights, start.corpus.train
    return setting, weights, tokens, setting.whiteners(weights, tokens)


def sheet_of(start: Lesson, segments: list[Segment]) -> Scores:
    """Return room for losses, with a number in it that no loss has."""
    sizes = sheet_size(start.setting, segments)
    return Scores(*(np.full(size, -1, np.float32) for size in sizes))


def share(
    counter: Numbers,
    sheet: Scores,
    moment: float | None = None,
    clock: Callable[[], float] | None = None,
    start: Lesson = LESSON,
    segment: Segment = SEGMENT,
) -> None:
    """Score one worker's share."""
    score_share(
        *step_of(start),
        [segment],
        moment,
        clock or Clock(),
        counter,
        sheet,
    )


def by_one_core(start: Lesson, segments: list[Segment]) -> Scored:
    def nothing(trials: int) -> None:
        pass

    return OneCore(Clock()).score(*step_of(start), segments, None, nothing)


def same(one: Scored, other: Scored) -> bool:
    """Return whether the groups are the same, and their losses to the bit."""
    return bits(one) == bits(other)


# --- groups and their numbers ---------------------------------------------------------


def test_a_range_of_groups_is_cut_where_segments_end() -> None:
    segments = [Segment(1, 0, 5), Segment(2, 8, 2), Segment(3, 0, 9)]

    assert list(placed(segments, 0, 2)) == [(0, Segment(1, 0, 2))]
    assert list(placed(segments, 3, 9)) == [
        (3, Segment(1, 3, 2)),
        (5, Segment(2, 8, 2)),
        (7, Segment(3, 0, 2)),
    ]
    assert list(placed(segments, 15, 99)) == [(15, Segment(3, 8, 1))]
    assert list(placed(segments, 16, 99)) == list(placed(segments, 3, 3)) == []
    assert groups_of(segments) == 16


SEGMENTS = st.lists(
    st.builds(Segment, st.integers(0, 9), st.integers(0, 99), st.integers(1, 9)),
    max_size=4,
)


@given(SEGMENTS, st.lists(st.integers(1, 7), max_size=30))
def test_what_is_taken_in_turns_is_the_first_groups_once(
    segments: list[Segment], takes: list[int]
) -> None:
    every = [(s.seed, s.first + n) for s in segments for n in range(s.groups)]
    ends = [0, *itertools.accumulate(takes)]
    got = [
        (before + n, (part.seed, part.first + n))
        for first, end in itertools.pairwise(ends)
        for before, part in placed(segments, first, end)
        for n in range(part.groups)
    ]

    assert got == list(enumerate(every[: sum(takes)]))


# --- scoring --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directions", "losses", "clean", "sizes"),
    [(16, 32, 1, (224, 7)), (1, 2, 1, (14, 7)), (0, 2, 0, (14, 0))],
)
def test_a_sheet_has_room_for_the_losses_of_all_groups(
    directions: int, losses: int, clean: int, sizes: tuple[int, int]
) -> None:
    setting = Setting(Config(directions_per_window=directions, vocab_size=9), "")

    assert losses_per_group(setting) == (losses, clean)
    assert sheet_size(setting, [Segment(1, 5, 3), Segment(2, 0, 4)]) == sizes


def test_a_part_of_a_sheet_is_that_of_its_groups_and_can_be_written_to() -> None:
    sheet = Scores(np.arange(24, dtype=np.float32), np.arange(6, dtype=np.float32))
    part = part_of(LESSON.setting, sheet, 2, 3)
    part.clean[:] = 9

    assert part.losses.tolist() == list(range(8, 20))
    assert sheet.clean.tolist() == [0, 1, 9, 9, 9, 5]


@pytest.mark.parametrize("start", LESSONS, ids=["rnn", "gru", "full", "by nodes"])
def test_a_worker_alone_scores_what_one_core_does(start: Lesson) -> None:
    counter, sheet = Numbers(), sheet_of(start, [SEGMENT])
    share(counter, sheet, start=start)
    blocks = scored_blocks(start.setting, [SEGMENT], counter.given, sheet)

    assert same(blocks, by_one_core(start, [SEGMENT]))
    assert counter.scored == 10 * start.setting.config.trials_per_group


def test_blocks_that_others_take_are_left_to_them() -> None:
    expected = by_one_core(LESSON, [SEGMENT])
    sheet = sheet_of(LESSON, [SEGMENT])
    share(Numbers(1, 2, 5), sheet)
    missing = [number for number, loss in enumerate(sheet.clean) if loss == -1]
    assert missing == [1, 2, 5]
    share(Numbers(0, 3, 4, 6, 7, 8, 9), sheet)

    assert same(scored_blocks(LESSON.setting, [SEGMENT], 10, sheet), expected)


def test_scoring_ends_before_a_block_that_would_not_fit() -> None:
    # A look at the clock takes a second, a block has three, one of which it is said to
    # take. At 10 s there are 3.5 left, and it fits; at 13 s there is 0.5.
    counter, clock = Numbers(), Clock(1.0)
    share(counter, sheet_of(LESSON, [SEGMENT]), 13.5, clock)

    assert counter.given == 4
    assert clock.now == 13.0


def test_the_last_block_is_the_part_that_fits_wherever_others_have_stopped() -> None:
    # Twelve groups make a block that is said to take a second. The first of this worker
    # follows one of another's; then 0.5 s are left, in which five groups fit with some
    # room, and nothing more is begun.
    start = lesson(batch_size=20)
    segments = [Segment(7, 3, 25), Segment(8, 0, 20)]
    counter, sheet, clock = Numbers(0), sheet_of(start, segments), Clock(1.0)
    score_share(*step_of(start), segments, 4.5, clock, counter, sheet)

    assert start.setting.block_groups == 12
    assert counter.given == 29
    assert [n for n, loss in enumerate(sheet.clean) if loss != -1] == [*range(12, 29)]


def test_a_block_may_lie_in_two_segments() -> None:
    start = lesson(batch_size=20)
    segments = [Segment(7, 3, 15), Segment(8, 0, 2)]
    counter, sheet = Numbers(0), sheet_of(start, segments)
    score_share(*step_of(start), segments, None, Clock(), counter, sheet)
    got = scored_blocks(start.setting, segments, 17, sheet)

    expected = by_one_core(start, [Segment(7, 15, 3), Segment(8, 0, 2)])
    assert [block for block, _ in got] == segments
    assert (got[0][1].losses[:48] == -1).all()
    assert got[0][1].losses[48:].tobytes() == expected[0][1].losses.tobytes()
    assert got[1][1].losses.tobytes() == expected[1][1].losses.tobytes()


def test_the_first_block_is_scored_though_time_is_up() -> None:
    counter, sheet = Numbers(), sheet_of(LESSON, [SEGMENT])
    share(counter, sheet, 0.0)

    assert counter.given == 1
    assert (sheet.clean != -1).tolist() == [True] + [False] * 9


def test_nobody_begins_another_block_once_time_is_up() -> None:
    counter, sheet = Numbers(0), sheet_of(LESSON, [SEGMENT])
    share(counter, sheet, 0.0)

    assert counter.given == 1
    assert (sheet.clean == -1).all()


def test_a_block_of_unknown_length_is_begun_in_time() -> None:
    counter, clock = Numbers(0), Clock(1.0)
    share(counter, sheet_of(LESSON, [SEGMENT]), 1.5, clock)

    assert counter.given == 2


def test_losses_that_are_given_back_are_copies() -> None:
    sheet = sheet_of(LESSON, [SEGMENT])
    share(Numbers(), sheet)
    blocks = scored_blocks(LESSON.setting, [SEGMENT], 2, sheet)
    sheet.losses[:], sheet.clean[:] = -1, -1

    assert [block for block, _ in blocks] == [Segment(7, 3, 2)]
    assert all((scores.losses > 0).all() for _, scores in blocks)
    assert all((scores.clean > 0).all() for _, scores in blocks)


# --- the update -----------------------------------------------------------------------


def test_parts_of_a_sum_are_a_few_for_each_worker_but_never_tiny_nor_large() -> None:
    setting = Setting(Config(vocab_size=65, directions_per_window=16), "")

    assert part_groups(setting, 800, 2) == 100
    assert part_groups(setting, 801, 2) == 101
    assert part_groups(setting, 100, 2) == 32  # 1,024 trials
    assert part_groups(setting, 1 << 20, 2) == chunk_groups(setting)
    assert part_groups(LESSON.setting, 1, 3) == 256
    assert part_groups(BY_NODES.setting, 1, 3) == 256


@settings(deadline=None, max_examples=25)
@given(SEGMENTS, st.integers(1, 7), st.sampled_from(LESSONS), st.data())
def test_shares_add_up_to_both_halves(
    segments: list[Segment], groups: int, start: Lesson, data: st.DataObject
) -> None:
    setting, weights, tokens, shaped = step_of(start)
    trials = sum(s.groups for s in segments) * setting.config.trials_per_group
    rewards = np.random.default_rng(trials).integers(-126, 127, trials).astype(np.int8)
    (one, first), (other, second) = halves(setting, segments, rewards)
    middle = sum(segment.groups for segment in one)
    owner = data.draw(st.lists(st.integers(0, 2), min_size=40, max_size=40))
    sums = np.zeros((2, setting.layout.size), np.int64)
    for worker in range(3):
        others = [number for number, who in enumerate(owner) if who != worker]
        sums += sum_share(
            *(setting, weights, tokens, shaped),
            [*one, *other],
            np.concatenate([first, second]),
            middle,
            groups,
            Numbers(*others),
        )

    about = setting, nodes_of(setting, weights, tokens), tokens
    assert np.array_equal(sums[0], total(*about, one, first))
    assert np.array_equal(sums[1], total(*about, other, second))
    assert (setting.by_nodes) is (start is BY_NODES)

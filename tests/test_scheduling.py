"""How processes share work: each block once, no gaps, the same integers."""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.desk import Lesson, lesson
from utilities.config import Config
from utilities.engine import OneCore, Scored
from utilities.evolution import Scores, Segment, Setting, chunk_groups, halves, total
from utilities.model import Floats, Tokens
from utilities.scheduling import (
    losses_per_group,
    part_groups,
    part_of,
    placed,
    score_share,
    scored_blocks,
    sheet_size,
    sum_share,
    taken,
)
from utilities.whitening import Whiteners

LESSON = lesson()  # a block is one group of four trials
GRU = lesson(model_type="gru")
FULL = lesson(noise="full", directions_per_window=0, batch_size=300)
SEGMENT = Segment(7, 3, 10)


class Numbers:
    """A counter that can be looked at."""

    def __init__(self, *others: int) -> None:
        """Leave out the numbers that other workers take."""
        self.others = list(others)
        self.given = 0
        self.scored = 0

    def take(self, *, only_first: bool) -> int | None:
        while self.given in self.others:
            self.given += 1
        if only_first and self.given:
            return None
        self.given += 1
        return self.given - 1

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
    return [block for block, _ in one] == [block for block, _ in other] and all(
        x.losses.tobytes() == y.losses.tobytes()
        and x.clean.tobytes() == y.clean.tobytes()
        for (_, x), (_, y) in zip(one, other, strict=True)
    )


# --- blocks and their numbers ---------------------------------------------------------


def test_blocks_know_the_groups_before_them() -> None:
    segments = [Segment(1, 0, 5), Segment(2, 8, 2)]

    assert list(placed(segments, 2)) == [
        (0, Segment(1, 0, 2)),
        (2, Segment(1, 2, 2)),
        (4, Segment(1, 4, 1)),
        (5, Segment(2, 8, 2)),
    ]


def test_items_are_taken_by_their_numbers() -> None:
    numbers = iter([0, 3, 4, None, 5])

    assert list(taken(iter("abcdefg"), lambda: next(numbers))) == ["a", "d", "e"]
    assert next(numbers) == 5


@pytest.mark.parametrize(("first", "expected"), [(1, "bc"), (2, "c"), (3, ""), (9, "")])
def test_taking_ends_with_the_items(first: int, expected: str) -> None:
    numbers = iter(range(first, 100))

    assert "".join(taken(iter("abc"), lambda: next(numbers))) == expected
    assert next(numbers) == max(3, first) + 1


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 20))
def test_whoever_takes_when_all_together_take_the_first_items_once(
    turns: list[int], items: int
) -> None:
    counter = Numbers()

    def take() -> int | None:
        return counter.take(only_first=False)

    workers: list[Iterator[int]] = [taken(iter(range(items)), take) for _ in range(4)]
    got = [item for turn in turns for item in islice(workers[turn], 1)]

    assert got == list(range(min(len(turns), items)))


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


@pytest.mark.parametrize("start", [LESSON, GRU, FULL], ids=["rnn", "gru", "full"])
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

    assert [block for block, _ in blocks] == [Segment(7, 3, 1), Segment(7, 4, 1)]
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


SEGMENTS = st.lists(
    st.builds(Segment, st.integers(0, 9), st.integers(0, 99), st.integers(1, 9)),
    max_size=4,
)


@settings(deadline=None, max_examples=25)
@given(SEGMENTS, st.integers(1, 7), st.sampled_from([LESSON, GRU, FULL]), st.data())
def test_shares_add_up_to_both_halves(
    segments: list[Segment], groups: int, start: Lesson, data: st.DataObject
) -> None:
    setting, tokens = start.setting, start.corpus.train
    trials = sum(s.groups for s in segments) * setting.config.trials_per_group
    rewards = np.random.default_rng(trials).integers(-126, 127, trials).astype(np.int8)
    (one, first), (other, second) = halves(setting, segments, rewards)
    middle = sum(segment.groups for segment in one)
    owner = data.draw(st.lists(st.integers(0, 2), min_size=40, max_size=40))
    sums = np.zeros((2, setting.layout.size), np.int64)
    for worker in range(3):
        others = [number for number, who in enumerate(owner) if who != worker]
        sums += sum_share(
            setting,
            tokens,
            [*one, *other],
            np.concatenate([first, second]),
            middle,
            groups,
            Numbers(*others),
        )

    assert np.array_equal(sums[0], total(setting, tokens, one, first))
    assert np.array_equal(sums[1], total(setting, tokens, other, second))

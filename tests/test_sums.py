"""What a sum of trials can be: bounds, oddness, whose rows, how wide."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.desk import Lesson, lesson
from tests.reference import silenced
from utilities import sums as module
from utilities.errors import ProtocolError
from utilities.evolution import Segment, Totals, nodes_of, total, windows_of
from utilities.model import CHARACTERS
from utilities.sums import Bound, Part, bounds, check, cosine, largest, narrowed

FORMER: dict[str, Any] = {"nodes": "none", "burn_in": 0}
TODAY: dict[str, Any] = {"nodes": "auto", "burn_in": 5}
VARIANTS: dict[str, dict[str, Any]] = {
    "rnn": {"batch_size": 2} | FORMER,
    "apart": {"batch_size": 2, "output_trials": "auto"} | FORMER,
    "gru": {"model_type": "gru", "n_layers": 2, "batch_size": 1} | FORMER,
    "begun": {"batch_size": 2, "burn_in": 5, "nodes": "none"},
    "by nodes": {"batch_size": 2} | TODAY,
    "by nodes apart": {"output_trials": "auto", "batch_size": 1} | TODAY,
    "by nodes, gru": {"model_type": "gru", "n_layers": 2, "batch_size": 2} | TODAY,
    "full": {"noise": "full", "batch_size": 1},
    "antithetic": {"directions_per_window": 0, "batch_size": 2},
}
LESSONS = {name: lesson(**keys) for name, keys in VARIANTS.items()}
RNN = LESSONS["rnn"]
TIED = ("Wx0", "b0")  # by nodes the rows of one add up to the other
BY_NODES = {name: each for name, each in LESSONS.items() if each.setting.by_nodes}


def part(start: Lesson, *segments: Segment, seed: int = 1) -> Part:
    """Return trials with rewards made up."""
    trials = sum(s.groups for s in segments) * start.setting.config.trials_per_group
    random = np.random.default_rng(seed)
    return Part(segments, random.integers(-126, 127, trials).astype(np.int8))


def sum_of(start: Lesson, trials: Part) -> Totals:
    """Return the true sum as a client sends it."""
    tokens = start.corpus.train
    nodes = nodes_of(start.setting, start.state.weights, tokens)
    about = start.setting, nodes, tokens
    return narrowed(total(*about, trials.segments, trials.rewards))


def bound_of(start: Lesson, trials: Part) -> Bound:
    [bound] = bounds(start.setting, start.corpus.train, [trials])
    return bound


# --- how large, and how wide ----------------------------------------------------------


def test_the_largest_sum_is_that_of_all_rewards_without_their_signs() -> None:
    assert largest(np.array([126, -126, 3, 0, -128], np.int8)) == 126 + 126 + 3 + 128
    assert largest(np.zeros(0, np.int8)) == 0


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("most", "dtype"),
    [
        (0, np.int16),
        ((1 << 15) - 1, np.int16),
        (1 << 15, np.int32),  # whatever its sign
        ((1 << 31) - 1, np.int32),
        (1 << 31, np.int64),
    ],
)
def test_a_sum_is_as_wide_as_its_largest_number(
    most: int, dtype: type, sign: int
) -> None:
    total = np.array([5, sign * most, -7])

    assert narrowed(total).dtype == dtype
    assert narrowed(total).tolist() == total.tolist()


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
@pytest.mark.parametrize("most", [5, 1 << 15, (1 << 31) + 1])
def test_a_sum_is_held_against_its_bound_in_any_integers(
    dtype: type, most: int
) -> None:
    start = LESSONS["full"]
    small: Totals = np.full(start.setting.layout.size, most % 2, dtype)

    check(start.setting, small, Bound(most, None))

    small[3] += 1
    with pytest.raises(ProtocolError, match="odd where"):
        check(start.setting, small, Bound(most, None))
    small[3] = np.iinfo(dtype).max - (np.iinfo(dtype).max - most) % 2
    if most < np.iinfo(dtype).max - 1:
        with pytest.raises(ProtocolError, match="larger than"):
            check(start.setting, small, Bound(most, None))


# --- bounds ---------------------------------------------------------------------------


def slow_rows(start: Lesson, trials: Part) -> list[int]:
    """Return sum |r| over the trials whose signs of a character are not zero.

    By nodes how often it is read in groups with any reward.
    """
    tokens = start.corpus.train
    rows = np.zeros(start.setting.layout.vocab_size, np.int64)
    first, rewards = 0, by_kind(start, trials)[0]
    each = start.setting.config.passes_per_group
    for segment in trials.segments:
        windows = windows_of(start.setting, tokens, segment)
        if start.setting.by_nodes:
            for group in range(segment.groups):
                if rewards[first : first + each].any():
                    read = windows[start.setting.config.before : -1, group]
                    for character in read.ravel().tolist():
                        rows[character] += 1
                first += each
            continue
        signs = silenced(start.setting, windows, segment)[CHARACTERS]
        for row in signs:
            rows += abs(int(rewards[first])) * (row != 0)
            first += 1
    assert first == len(rewards)
    return list(map(int, rows))


def sizes(start: Lesson, rewards: Any) -> int:
    """Return sum |r|, or how many places groups with any reward have."""
    if not start.setting.by_nodes:
        return largest(rewards)
    by_group = rewards.reshape(-1, start.setting.config.passes_per_group)
    return int(by_group.any(axis=1).sum()) * start.setting.config.places


def by_kind(start: Lesson, trials: Part) -> list[Any]:
    """Return the rewards of trials before the output layer, and of that layer."""
    kinds = 2 if start.setting.splits else 1
    each = start.setting.config.trials_per_group // kinds
    rewards = trials.rewards.reshape(-1, kinds, each)
    return [rewards[:, kind].ravel() for kind in range(kinds)]


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "full"])
def test_rows_of_characters_are_bounded_by_the_trials_that_read_them(
    variant: str,
) -> None:
    start = LESSONS[variant]
    parts = [
        part(start, Segment(7, 3, 4), Segment(8, 0, 1), seed=1),
        part(start, Segment(9, 0, 2), seed=2),
    ]

    made = bounds(start.setting, start.corpus.train, parts)

    for bound, trials in zip(made, parts, strict=True):
        inner, *outer = (sizes(start, kind) for kind in by_kind(start, trials))
        assert (bound.most, bound.outputs) == (inner, outer[0] if outer else None)
        assert bound.rows is not None
        assert bound.rows.tolist() == slow_rows(start, trials)
        assert 0 in bound.rows.tolist()  # the unknown token, at least


def test_with_full_noise_every_weight_takes_part_in_every_trial() -> None:
    start = LESSONS["full"]

    assert bound_of(start, Part((Segment(1, 0, 1),), rewards(3, -4, 0, 5))) == Bound(
        12, None
    )


def rewards(*values: int) -> Any:
    return np.array(values, np.int8)


@pytest.mark.parametrize("most", [1, 40, 100])
def test_bounds_are_the_same_however_many_groups_are_read_at_once(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = RNN
    parts = [
        part(start, Segment(1, 0, 5), Segment(2, 9, 1)),
        part(start, Segment(3, 0, 1), Segment(4, 0, 1), Segment(5, 2, 7)),
    ]
    expected = bounds(start.setting, start.corpus.train, parts)

    monkeypatch.setattr(module, "NUMBERS", most)
    made = bounds(start.setting, start.corpus.train, parts)

    assert [b.most for b in made] == [b.most for b in expected]
    for one, other in zip(made, expected, strict=True):
        assert one.rows is not None
        assert other.rows is not None
        assert one.rows.tolist() == other.rows.tolist()


# --- checks ---------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    variant=st.sampled_from(list(VARIANTS)),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    seed=st.integers(0, 2**20),
)
def test_every_true_sum_passes(variant: str, sizes: list[int], seed: int) -> None:
    start = LESSONS[variant]
    segments = (Segment(seed + n, n, size) for n, size in enumerate(sizes))
    trials = part(start, *segments, seed=seed)

    true = sum_of(start, trials)

    assert true.dtype == np.int16
    check(start.setting, true, bound_of(start, trials))
    check(start.setting, true.astype(np.int64), bound_of(start, trials))


@settings(max_examples=50, deadline=None)
@given(
    variant=st.sampled_from(list(VARIANTS)),
    place=st.integers(0, 10**6),
    wrong=st.sampled_from([1, -1, 3, 2**20, -(2**20), 2**31 - 1]),
)
def test_one_wrong_weight_does_not_pass(variant: str, place: int, wrong: int) -> None:
    start = LESSONS[variant]
    trials = part(start, Segment(5, 0, 3))
    sums = sum_of(start, trials).astype(np.int64)
    place %= len(sums)
    reads = [
        t.start <= place < t.start + t.size
        for t in start.setting.layout.tensors
        if start.setting.layout.state_read(t) is not None or t.name not in TIED
    ]
    if start.setting.by_nodes and any(reads):  # nothing is known of it but its size
        wrong *= 1 << 24
    sums[place] += wrong

    with pytest.raises(ProtocolError, match=r"larger|odd|add up"):
        check(start.setting, sums, bound_of(start, trials))


@pytest.mark.parametrize("start", BY_NODES.values(), ids=BY_NODES)
def test_bounds_by_nodes_are_of_places_and_of_what_is_read_there(start: Lesson) -> None:
    setting, layout = start.setting, start.setting.layout
    each = setting.config.trials_per_group
    trials = Part((Segment(5, 0, 1),), rewards(3, *[1] * (each - 1)))
    bound = bound_of(start, trials)
    assert bound.most == setting.config.places
    assert bound.rows is not None
    assert bound.rows.sum() == bound.most  # each place reads one character
    reading = {f"Wh{n}" for n in range(layout.n_layers)} | {"Wx1", "Wo"}
    for tensor in layout.tensors:
        place = tensor.start + tensor.size - 1
        largest = 63 * bound.most * (127 if tensor.name in reading else 1)
        if tensor.name == "Wx0":
            largest = 63 * int(bound.rows[-1])
        for sign in (1, -1):
            sums = np.zeros(layout.size, np.int32)
            sums[place] = sign * largest
            if tensor.name not in TIED:
                check(setting, sums, bound)
                sums[place] -= sign
                check(setting, sums, bound)
            sums[place] = sign * (largest + 1)
            with pytest.raises(ProtocolError, match="larger than"):
                check(setting, sums, bound)


@pytest.mark.parametrize("start", BY_NODES.values(), ids=BY_NODES)
def test_rows_of_characters_add_up_to_the_bias(start: Lesson) -> None:
    setting, trials = start.setting, part(start, Segment(5, 0, 3))
    wx, bias = (t for t in setting.layout.tensors if t.name in TIED)
    sums, bound = sum_of(start, trials).astype(np.int64), bound_of(start, trials)
    assert bound.rows is not None
    row = int(bound.rows.argmax())
    at = wx.start + row * wx.shape[1]

    sums[at] += 1
    with pytest.raises(ProtocolError, match="do not add up to the bias"):
        check(setting, sums, bound)
    sums[bias.start] += 1

    check(setting, sums, bound)


def test_a_group_without_rewards_has_no_sum_by_nodes() -> None:
    start = LESSONS["by nodes apart"]
    half = start.setting.config.passes_per_group
    nothing, some = [0] * half, [1] * half

    inner = bound_of(start, Part((Segment(5, 0, 1),), rewards(*some, *nothing)))
    outer = bound_of(start, Part((Segment(5, 0, 1),), rewards(*nothing, *some)))

    assert (inner.most, inner.outputs) == (start.setting.config.places, 0)
    assert (outer.most, outer.outputs) == (0, start.setting.config.places)
    assert inner.rows is not None
    assert outer.rows is not None
    assert inner.rows.any()
    assert not outer.rows.any()


def test_a_narrow_sum_is_held_against_a_bound_that_nodes_make_wide() -> None:
    start = LESSONS["by nodes"]
    bound = Bound(5, np.zeros(start.setting.layout.vocab_size, np.int64))
    sums = np.zeros(start.setting.layout.size, np.int16)
    wh, bo = (t for t in start.setting.layout.tensors if t.name in ("Wh0", "bo"))

    sums[wh.start] = -(1 << 15)  # of 5 * 63 * 127

    check(start.setting, sums, bound)
    sums[bo.start] = 5 * 63 + 1
    with pytest.raises(ProtocolError, match="larger than"):
        check(start.setting, sums, bound)


def spoiled(start: Lesson, trials: Part, name: str, row: int, by: int) -> Totals:
    """Return a sum with one number of a tensor changed."""
    sums = sum_of(start, trials).astype(np.int32)  # a copy
    [tensor] = [t for t in start.setting.layout.tensors if t.name == name]
    sums[tensor.start : tensor.start + tensor.size].reshape(tensor.shape)[row, 0] += by
    return sums


@pytest.mark.parametrize("by", [2, -2])
def test_a_character_that_nobody_read_has_no_sum(by: int) -> None:
    trials = part(RNN, Segment(5, 0, 1))
    bound = bound_of(RNN, trials)
    assert bound.rows is not None
    unread = bound.rows.tolist().index(0)

    with pytest.raises(ProtocolError, match="larger than the rewards"):
        check(RNN.setting, spoiled(RNN, trials, "Wx0", unread, by), bound)

    check(RNN.setting, spoiled(RNN, trials, "Wh0", 0, 0), bound)


def test_a_sum_at_its_bound_passes_and_beyond_it_does_not() -> None:
    bound = bound_of(RNN, Part((Segment(5, 0, 1),), rewards(3, -4, 0, 5)))
    assert bound.rows is not None
    width = RNN.setting.layout.width
    size = RNN.setting.layout.size
    rows = np.repeat(bound.rows, width)
    at_most = np.full(size, 12, np.int32)
    at_most[: len(rows)] = rows

    check(RNN.setting, at_most, bound)
    check(RNN.setting, -at_most, bound)
    for sign in (1, -1):
        beyond = sign * at_most
        beyond[-1] += 2 * sign
        with pytest.raises(ProtocolError, match="larger than the rewards"):
            check(RNN.setting, beyond, bound)


@pytest.mark.parametrize("place", [0, -1])
def test_a_sum_of_even_rewards_is_even_everywhere(place: int) -> None:
    start = LESSONS["full"]
    bound = bound_of(start, Part((Segment(5, 0, 1),), rewards(3, -4, 0, 5)))
    sums = np.zeros(start.setting.layout.size, np.int32)
    check(start.setting, sums, bound)

    sums[place] = -1

    with pytest.raises(ProtocolError, match="odd where the rewards"):
        check(start.setting, sums, bound)


@pytest.mark.parametrize("size", [0, 1, RNN.setting.layout.size + 1])
def test_a_sum_has_one_number_for_each_weight(size: int) -> None:
    bound = bound_of(RNN, part(RNN, Segment(5, 0, 1)))

    words = f"expected {RNN.setting.layout.size} numbers, got {size}"
    with pytest.raises(ProtocolError, match=words):
        check(RNN.setting, np.zeros(size, np.int32), bound)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_bound_beyond_int32_holds_sums_of_either_width(dtype: Any) -> None:
    size, setting = RNN.setting.layout.size, RNN.setting
    bound = Bound(2**31, np.full(setting.layout.vocab_size, 2**31))
    sums = np.full(size, -(2**31), dtype)

    check(setting, sums, bound)

    sums[5] += 1
    with pytest.raises(ProtocolError, match="odd where the rewards"):
        check(setting, sums, bound)


def test_the_output_layer_is_held_against_the_trials_of_its_own() -> None:
    start, trials = LESSONS["apart"], Part((Segment(1, 0, 1),), rewards(*range(1, 9)))
    bound, sums = bound_of(start, trials), sum_of(start, trials)
    assert (bound.most, bound.outputs) == (1 + 2 + 3 + 4, 5 + 6 + 7 + 8)
    check(start.setting, sums, bound)

    for place, value, words in (
        (-1, 28, "larger than"),
        (-1, 25, "odd where"),
        (start.setting.layout.tensors[-2].start - 1, 12, "larger than"),
    ):
        wrong = sums.copy()
        wrong[place] = value
        with pytest.raises(ProtocolError, match=words):
            check(start.setting, wrong, bound)


def test_the_smallest_int32_is_not_within_any_smaller_bound() -> None:
    start = LESSONS["full"]
    sums = np.full(start.setting.layout.size, -(2**31), np.int32)

    with pytest.raises(ProtocolError, match="larger than the rewards"):
        check(start.setting, sums, Bound(2**31 - 2, None))


def test_cosines_by_hand() -> None:
    def between(one: list[int], other: list[int]) -> float | None:
        return cosine(np.array(one, np.int32), np.array(other, np.int64))

    assert between([3, 4], [3, 4]) == 1
    assert between([3, 4], [-6, -8]) == -1
    assert between([1, 0, 0], [0, 5, 7]) == 0
    assert between([1, 1], [1, 0]) == pytest.approx(math.sqrt(0.5))
    assert between([0, 0], [1, 0]) is None
    assert between([1, 0], [0, 0]) is None
    assert between([], []) is None


def test_a_cosine_does_not_overflow() -> None:
    top = np.full(1000, 2**31 - 1, np.int32)

    assert cosine(top, top) == pytest.approx(1)
    assert cosine(top, -top.astype(np.int64) * 2**20) == pytest.approx(-1)


def test_the_cosine_between_halves_says_how_much_is_signal() -> None:
    # All of a thousand entries have the signal 1, and noise of the deviation s: the
    # cosine is expected to be 1 / (1 + s s).
    draw = np.random.default_rng(1)
    for deviation, expected in ((0.5, 0.8), (1.0, 0.5), (3.0, 0.1)):
        noisy = 1 + deviation * draw.standard_normal((2, 100_000))
        one, other = np.rint(1000 * noisy).astype(np.int64)
        assert cosine(one, other) == pytest.approx(expected, abs=0.02)

"""Numbers that are wrong, too large or too many: weights are as without them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import pytest

from tests.attacks.schedules import Observed
from tests.desk import BY_NODES, Lesson, lesson
from tests.wire import FINE, Fate, Link, Node
from utilities.evolution import Scores, Segment
from utilities.losses import shape
from utilities.model import Floats
from utilities.protocol import Message, Result, State, Sum

STEPS = 6
SINCE = 3  # from this step on numbers are poisoned
TOLD: list[int] = []  # poisoned messages of each run that was as without them
KINDS: dict[str, dict[str, Any]] = {
    "seeds": {"trials_per_step": 40},
    "pairs": {"trials_per_step": 20, "directions_per_window": 0, "batch_size": 257},
    "sums": {"trials_per_step": 40, "aggregation": "sums"},
    "by nodes": BY_NODES | {"trials_per_step": 240, "aggregation": "sums"},
}
Poison: TypeAlias = Callable[[Any], Message]


@cache
def run_of(kind: str) -> Lesson:
    return lesson(**KINDS[kind])


def trained(kind: str, strike: Callable[[Observed], None]) -> Observed:
    """Train with three clients, one of which is struck."""
    wire = Observed(run_of(kind), encoded=True)
    wire.history.faithful = False  # wrong digests are reported
    strike(wire)
    for name in ("ann", "bob", "eve"):
        wire.node(name)
    wire.run_to(STEPS)
    return wire


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    yield
    print(
        f"{len(TOLD)} poisoned runs of {STEPS} steps, {sum(TOLD)} messages poisoned: "
        "all weights as without them"
    )


def nothing(_: Observed) -> None:
    """Strike nobody."""


@cache
def undisturbed(kind: str) -> tuple[bytes, ...]:
    """Return the digests of a run of honest clients."""
    wire = trained(kind, nothing)
    assert wire.refusals == []
    digests = tuple(wire.truth.digest(step) for step in range(STEPS + 1))
    assert len(set(digests)) == len(digests)  # all steps change something
    return digests


def assert_as_without(wire: Observed, kind: str, count: int = 1) -> None:
    """Hold that the weights of all steps are those of honest clients alone."""
    found = tuple(wire.truth.digest(step) for step in range(STEPS + 1))
    assert found == undisturbed(kind)
    assert np.isfinite(wire.truth.state(STEPS).weights).all()
    wire.check()
    TOLD.append(count)


def poisoned(
    kind: str, which: type[Message], poison: Poison, *, always: bool
) -> tuple[Observed, int]:
    """Train where one client's answers are poisoned; return the wire and how many."""
    count = [0]

    def tamper(message: Message) -> Message:
        if not isinstance(message, which) or getattr(message, "step", 0) < SINCE:
            return message
        if count[0] and not always:
            return message
        count[0] += 1
        return poison(message)

    def strike(wire: Observed) -> None:
        ordinary = wire.node

        def node(name: str, **how: Any) -> Node:
            made = ordinary(name, **how)
            if name == "eve":
                made.tamper = tamper
            return made

        wire.node = node  # type: ignore[method-assign]

    wire = trained(kind, strike)
    assert count[0] > 0, "nothing was poisoned"
    return wire, count[0]


# Losses that are no losses: the block goes to somebody else.


def of_all(value: float, dtype: str = "<f4") -> Poison:
    """Return what replaces all losses of a result."""
    return lambda r: replace(r, losses=np.full(len(r.losses), value, dtype))


def of_one(value: float) -> Poison:
    """Return what replaces one loss of a result."""

    def poison(result: Result) -> Result:
        losses = result.losses.copy()
        losses[len(losses) // 2 : len(losses) // 2 + 1] = value
        return replace(result, losses=losses)

    return poison


def of_clean(value: float) -> Poison:
    """Return what replaces the losses of the weights themselves."""
    return lambda r: replace(r, clean=np.full(len(r.clean), value, np.float32))


UNUSABLE = [np.nan, np.inf, -np.inf, 1e38, -1e38, 100.5, np.finfo(np.float32).max]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", UNUSABLE)
def test_a_loss_that_is_none_changes_no_weight(kind: str, value: float) -> None:
    makers = [of_all, of_one] if kind == "pairs" else [of_all, of_one, of_clean]
    for make in makers:
        wire, count = poisoned(kind, Result, make(value), always=True)
        assert_as_without(wire, kind, count)
        assert wire.refusals == []


# What breaks the rules: the client is dropped, and its blocks go to others.


def other_segment(**changes: int) -> Poison:
    """Return what replaces a field of the segment of a result."""
    return lambda r: replace(r, segments=(replace(r.segments[0], **changes),))


RULES: dict[str, Poison] = {
    "float64": of_all(2.5, "<f8"),
    "integers": of_all(2, "<i4"),
    "bytes": of_all(2, "|u1"),
    "too many losses": lambda r: replace(r, losses=np.tile(r.losses, 2)),
    "a million losses": lambda r: replace(r, losses=np.full(10**6, 2.5, np.float32)),
    "too few losses": lambda r: replace(r, losses=r.losses[:-1]),
    "no losses": lambda r: replace(r, losses=r.losses[:0], clean=r.clean[:0]),
    "too many clean losses": lambda r: replace(r, clean=np.ones(9, np.float32)),
    "another seed": other_segment(seed=1),
    "the seed of the run": other_segment(seed=5),
    "other groups": other_segment(first=1),
    "more groups": other_segment(groups=2),
    "all groups": other_segment(groups=1 << 24),
    "no segment": lambda r: replace(r, segments=()),
    "a segment twice": lambda r: replace(r, segments=2 * r.segments),
    "many segments": lambda r: replace(
        r, segments=tuple(Segment(n, 0, 1) for n in range(64))
    ),
    "the next step": lambda r: replace(r, step=r.step + 1),
    "a step in the far future": lambda r: replace(r, step=(1 << 63) - 1),
    "the first step": lambda r: replace(r, step=0),
    "seconds that are no number": lambda r: replace(r, trial_seconds=float("nan")),
    "seconds without end": lambda r: replace(r, update_seconds=float("inf")),
    "negative seconds": lambda r: replace(r, update_seconds=-1.0),
    "a quality that is no number": lambda r: replace(r, gradient_quality=float("nan")),
    "a digest of no length": lambda r: replace(r, digest=b""),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RULES)
def test_an_answer_that_breaks_the_rules_changes_no_weight(
    kind: str, name: str
) -> None:
    for always in (False, True):
        wire, count = poisoned(kind, Result, RULES[name], always=always)
        assert_as_without(wire, kind, count)
        assert len(wire.refusals) >= min(count, 1)


# What is legal, and has nothing to do with weights.

FIGURES: dict[str, Poison] = {
    "an age for the update": lambda r: replace(r, update_seconds=1e9),
    "an age for trials": lambda r: replace(r, trial_seconds=1e9),
    "no time at all": lambda r: replace(r, update_seconds=-0.0, trial_seconds=5e-324),
    "the best quality": lambda r: replace(r, gradient_quality=1.0),
    "no quality": lambda r: replace(r, gradient_quality=None),
    "another digest": lambda r: replace(r, digest=b"x" * 32),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FIGURES)
def test_figures_that_are_wrong_change_no_weight(kind: str, name: str) -> None:
    for always in (False, True):
        wire, count = poisoned(kind, Result, FIGURES[name], always=always)
        assert_as_without(wire, kind, count)
        assert wire.refusals == []


# States and sums.


def in_state(name: str, value: float) -> Poison:
    """Return what replaces a number of a state."""

    def poison(state: State) -> State:
        array: Floats = getattr(state, name).copy()
        array[3] = value
        return replace(state, **{name: array})  # type: ignore[arg-type]

    return poison


STATES: dict[str, Poison] = {
    **{
        f"{value} in {name}": in_state(name, value)
        for name in ("weights", "first", "second")
        for value in (np.nan, np.inf, 1e38, 1e-45)
    },
    "another count": lambda s: replace(s, count=s.count + 1),
    "a count of 2^63": lambda s: replace(s, count=(1 << 63) - 1),
    "other weights": lambda s: replace(s, weights=s.first, first=s.weights),
    "a step later": lambda s: replace(s, step=s.step + 1),
    "a weight less": lambda s: replace(
        s, weights=s.weights[1:], first=s.first[1:], second=s.second[1:]
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_is_wrong_is_never_taken_for_the_true_one(name: str) -> None:
    kind = "seeds"
    count = [0]

    def tamper(message: Message) -> Message:
        if isinstance(message, State):
            count[0] += 1
            return STATES[name](message)
        return message

    def strike(wire: Observed) -> None:
        eve = wire.node("first")  # alone at first, it is asked for its state
        eve.tamper = tamper

    wire = trained(kind, strike)
    wire.run_for(5.0)

    assert_as_without(wire, kind, count[0])
    assert count[0] > 0
    for save in wire.log.saves:
        assert save.digest == wire.truth.digest(save.state.step)
        assert save.state.digest(wire.start.setting.fingerprint) == save.digest


# What no trials with these rewards add up to; a lie that could be true is for audits.
SUMS: dict[str, Poison] = {
    "one more": lambda s: replace(s, total=s.total + 1),
    "one more somewhere": lambda s: replace(
        s, total=s.total + (np.arange(len(s.total)) == 7)
    ),
    "the largest": lambda s: replace(
        s, total=np.full(len(s.total), (1 << 63) - 1, np.int64)
    ),
    "the smallest": lambda s: replace(
        s, total=np.full(len(s.total), -(1 << 63), np.int64)
    ),
    "floats": lambda s: replace(s, total=s.total.astype(np.float32)),
    "too few": lambda s: replace(s, total=s.total[1:]),
    "none": lambda s: replace(s, total=s.total[:0]),
    "another step": lambda s: replace(s, step=s.step + 1),
    "seconds that are no number": lambda s: replace(s, seconds=float("nan")),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_that_cannot_be_true_changes_no_weight(name: str) -> None:
    wire, count = poisoned("sums", Sum, SUMS[name], always=True)

    assert_as_without(wire, "sums", count)
    assert wire.refusals != []


# Twice, and late.


def on_the_way(which: type[Message], fate: Fate) -> Callable[[Observed], None]:
    """Return what a network does to answers of the third client."""

    def strike(wire: Observed) -> None:
        def decide(link: Link, message: Message) -> Fate:
            theirs = wire.nodes[-1].link is link and len(wire.nodes) == 3
            poison = isinstance(message, which) and theirs
            return fate if poison and getattr(message, "step", 0) >= SINCE else FINE

        wire.fate = decide

    return strike


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fate", [(0.0, 0.0), (0.0, 1.0), (0.0, 0.0, 9.0)])
def test_an_answer_that_comes_twice_counts_once(kind: str, fate: Fate) -> None:
    wire = trained(kind, on_the_way(Result, fate))

    assert_as_without(wire, kind)
    assert any(" is due of step " in refusal for refusal in wire.refusals)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("late", [2.0, 9.0, 30.0])
def test_an_answer_that_comes_late_changes_no_weight(kind: str, late: float) -> None:
    wire = trained(kind, on_the_way(Result, (late,)))
    wire.run_for(late)

    assert_as_without(wire, kind)
    assert wire.refusals == []


@pytest.mark.parametrize("fate", [(0.0, 0.0), (20.0,)])
def test_a_sum_that_comes_twice_or_late_counts_once_at_most(fate: Fate) -> None:
    wire = trained("sums", on_the_way(Sum, fate))

    assert_as_without(wire, "sums")


# Numbers that are losses, if strange ones.


def shaped(losses: Floats) -> "np.ndarray[Any, np.dtype[np.int16]]":
    """Return the rewards of a step of groups of four trials against a loss of 2.5."""
    setting = run_of("seeds").setting
    segments = [Segment(seed, 0, 1) for seed in range(len(losses) // 4)]
    clean = np.full(1, 2.5, np.float32)
    parts = [Scores(part, clean) for part in losses.reshape(-1, 4)]
    update = shape(setting, 0, 0, list(zip(segments, parts, strict=True)), 0.0)
    return update.rewards.astype(np.int16)


@pytest.mark.parametrize("value", [1e-45, -1e-45, 1e-38, 0.0, -0.0, 99.9, -99.9])
def test_one_strange_loss_moves_one_clipped_reward_at_most(value: float) -> None:
    worst_other = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        losses = rng.normal(2.5, 0.01, 400).astype(np.float32)
        place = int(rng.integers(400))
        struck = losses.copy()
        struck[place] = value
        before, after = shaped(losses), shaped(struck)
        moved = np.abs(after - before)
        assert abs(after[place]) == 126  # clipped: no more than any honest trial
        worst_other = max(worst_other, int(np.delete(moved, place).max()))
    print(f"{value}: other rewards of 400 move by {worst_other} of 126 at most")
    assert worst_other <= 4  # the median and the spread move to a neighbour's place


def test_a_run_with_one_subnormal_loss_ends_where_the_model_says() -> None:
    wire, count = poisoned("seeds", Result, of_one(1e-45), always=False)

    assert count == 1
    assert wire.refusals == []
    assert wire.history.checked == wire.history.trials  # rewards as in plain Python
    assert wire.truth.digest(SINCE) == undisturbed("seeds")[SINCE]
    assert wire.truth.digest(SINCE + 1) != undisturbed("seeds")[SINCE + 1]
    wire.check()

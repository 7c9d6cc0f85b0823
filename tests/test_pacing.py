"""How long a step becomes: by hand, within bounds, and in a closed loop."""

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utilities.config import Config
from utilities.pacing import (
    FIRST_SECONDS,
    GROWTH,
    LEAST_QUALITY,
    LONGEST,
    SHORTEST,
    STEPS,
    Observed,
    StepLength,
    Stopwatch,
    best_seconds,
    noise_seconds,
)


def observed(
    overhead: float, quality: float | None = None, *, seconds: float = 0.1
) -> Observed:
    """Return a step whose clients used all of their time, with an update of 50 ms."""
    return Observed(seconds + 0.05 + overhead, seconds, 0.05, quality)


def after(
    steps: int, gives: Callable[[float], Observed], start: float = FIRST_SECONDS
) -> float:
    """Return the length after so many steps that each give what their length gives."""
    length = ripe()
    length.seconds = start
    for _ in range(steps):
        length.observe(gives(length.seconds))
    return length.seconds


def cosine(seconds: float, noise: float) -> float:
    """Return the split-half cosine of a step, by the formula."""
    return (seconds / 2) / (seconds / 2 + noise)


# --- the time trained -----------------------------------------------------------------


def test_time_counts_from_the_beginning_of_work_to_its_end() -> None:
    watch = Stopwatch(5.0)
    assert watch.seconds(100.0) == 5.0
    watch.note(110.0, going=True)
    watch.note(112.0, going=True)
    assert watch.seconds(113.0) == 8.0
    watch.note(114.0, going=False)
    assert watch.seconds(200.0) == 9.0


# --- where nothing is adapted ---------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        (Config(time_per_step=0.7), 0.7),
        (Config(time_per_step=0.001), 0.001),
        (Config(time_per_step=3600.0), 3600.0),
        (Config(time_per_step=3.0, trials_per_step=64), 3.0),
    ],
)
def test_a_length_that_was_given_stays(config: Config, seconds: float) -> None:
    length = StepLength(config)

    for _ in range(50):
        length.observe(observed(9.0, 0.01))

    assert length.seconds == seconds


def test_where_the_trials_of_a_step_were_given_the_guess_stays() -> None:
    length = StepLength(Config(trials_per_step=1024))

    for _ in range(50):
        length.observe(observed(9.0, 0.01))

    assert length.seconds == FIRST_SECONDS == 0.05


# --- by hand --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "quality", "noise"),
    [
        (0.1, 0.5, 0.05),
        (0.1, 0.2, 0.2),
        (2.0, 0.01, 99.0),
        (0.1, 1.0, 0.0),
        (0.1, 1.0009, 0.0),  # of rounding
        (2.0, 0.001, 999.0),
        (2.0, 0.0, 999.0),
        (2.0, -0.4, 999.0),
    ],
)
def test_the_time_of_the_noise_by_hand(
    seconds: float, quality: float, noise: float
) -> None:
    assert noise_seconds(seconds, quality) == pytest.approx(noise)


@given(st.floats(SHORTEST, LONGEST), st.floats(0, 1000))
@settings(deadline=None)
def test_the_time_of_the_noise_is_that_of_the_formula(
    seconds: float, noise: float
) -> None:
    quality = cosine(seconds, noise)
    expected = noise if quality >= LEAST_QUALITY else seconds / 2 * 999

    assert noise_seconds(seconds, quality) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("overhead", "noise", "seconds"),
    [
        (0.004, None, 0.12),  # thirty overheads
        (0.004, 1.0, 0.12),  # sqrt(0.004 * 1) = 0.063 is less
        (0.004, 9.0, math.sqrt(0.036)),  # 0.19 is more
        (0.01, 0.2, 0.2),  # thirty are 0.3 s, but the noise does not ask for them
        (0.3, 0.2, math.sqrt(0.06)),  # the overhead is above the noise
        (0.01, 0.0, 0.05),  # no noise: as short as may be
        (0.0, 100.0, 0.05),
        (-0.3, 100.0, 0.05),  # clocks of two machines
        (-0.3, None, 0.05),
        (0.001, None, 0.05),
        (5.0, None, 60.0),
        (5.0, 1e6, 60.0),
    ],
)
def test_the_best_length_by_hand(
    overhead: float, noise: float | None, seconds: float
) -> None:
    assert best_seconds(overhead, noise) == pytest.approx(seconds)


@given(st.floats(1e-4, 0.1), st.floats(0.1, 100))
@settings(deadline=None)
def test_no_other_length_learns_more_unless_machines_would_idle(
    overhead: float, noise: float
) -> None:
    def learned(seconds: float) -> float:
        return seconds / ((seconds + noise) * (seconds + overhead))

    best = math.sqrt(overhead * noise)
    chosen = best_seconds(overhead, noise)

    assert all(learned(best) >= learned(best * f) for f in (0.3, 0.9, 1.1, 3))
    if chosen > SHORTEST:
        assert chosen >= best * (1 - 1e-9)
        assert chosen == pytest.approx(best) or chosen <= 30.0001 * overhead


def test_one_step_by_hand() -> None:
    # wall 0.16, trials 0.1, update 0.0565: an overhead of 3.5 ms; thirty are 0.105 s
    length = ripe()
    length.seconds = 0.1

    length.observe(Observed(0.16, 0.1, 0.0565, None))

    assert length.seconds == pytest.approx(0.105)


def test_the_median_of_the_overheads_counts() -> None:
    length = ripe()

    for overhead in (0.004, 9.0, 0.001):
        length.seconds = 0.11
        length.observe(observed(overhead))

    assert length.seconds == pytest.approx(30 * 0.004)


def test_the_mean_of_the_qualities_that_are_known_counts() -> None:
    # 0.01 in 0.2 s: T_n = 0.1 * 99 = 9.9 s; sqrt(0.004 * 9.9) = 0.199
    length = ripe()

    for quality in (0.03, -0.01, None):
        length.seconds = 0.2
        length.observe(observed(0.004, quality))

    assert length.seconds == pytest.approx(math.sqrt(0.0396))


@pytest.mark.parametrize(
    ("rate", "overhead", "expected"),
    [
        (327_680, 0.004, 0.2),  # 65,536 trials
        (655_360, 0.002, 0.1),
        (655_360, 0.012, 0.12),  # ten overheads keep machines busy
        (1 << 30, -1.0, SHORTEST),
        (0, 0.001, math.sqrt(0.001 * 499.5) ** 2),  # nobody counts: no such bound
    ],
)
def test_where_the_signal_is_lost_a_step_is_no_longer_than_its_rate_grows(
    rate: int, overhead: float, expected: float
) -> None:
    def gives(seconds: float) -> Observed:
        counted = round(seconds * rate)
        return Observed(seconds + overhead, seconds, 0.0, 0.0, counted)

    assert after(400, gives) == pytest.approx(expected, rel=1e-3)


def test_only_the_last_steps_count() -> None:
    length = ripe()
    for _ in range(100):
        length.observe(observed(1.0, 0.5))

    for _ in range(STEPS):
        length.observe(observed(0.004))
    length.seconds = 0.115
    length.observe(observed(0.004))

    assert length.seconds == pytest.approx(0.12)


def ripe() -> StepLength:
    """Return the length of steps of a run that has trained for long."""
    return StepLength(Config(), trained=1e9)


def test_steps_of_a_young_run_stay_short() -> None:
    # 30 overheads of 10 ms would be 0.3 s; at first 0.05 s, later a 2,000th
    young = StepLength(Config(), trained=10.0)
    older = StepLength(Config(), trained=400.0 - 0.21)
    for length in (young, older):
        length.seconds = 0.2
        for _ in range(30):
            length.observe(Observed(0.21, 0.1, 0.1, None))
            if length is older:
                break

    assert young.seconds == pytest.approx(0.05)
    assert older.seconds == pytest.approx(400.0 / 2000)


def test_a_young_run_bears_four_overheads_at_any_age() -> None:
    length = StepLength(Config(), trained=0.0)

    for _ in range(40):
        length.observe(Observed(0.5, 0.2, 0.1, None))

    assert length.seconds == pytest.approx(4 * 0.2)


# --- bounds ---------------------------------------------------------------------------

ANY = st.floats(-1e9, 1e9)


@given(
    st.lists(
        st.builds(Observed, ANY, ANY, ANY, st.none() | st.floats(-1.001, 1.001)),
        max_size=80,
    )
)
@settings(deadline=None)
def test_whatever_steps_give_the_length_stays_in_its_bounds(
    steps: list[Observed],
) -> None:
    length = ripe()

    for step in steps:
        before = length.seconds
        length.observe(step)
        assert SHORTEST <= length.seconds <= LONGEST
        assert before / GROWTH <= length.seconds <= before * GROWTH


@pytest.mark.parametrize(("overhead", "bound"), [(9.0, LONGEST), (0.0, SHORTEST)])
def test_the_bounds_are_reached_a_tenth_at_a_time(
    overhead: float, bound: float
) -> None:
    length = ripe()
    length.seconds = 0.1
    lengths = [length.seconds]
    for _ in range(80):
        length.observe(observed(overhead))
        lengths.append(length.seconds)

    factor = GROWTH if overhead else 1 / GROWTH
    assert lengths[:6] == pytest.approx([0.1 * factor**i for i in range(6)])
    assert lengths[-1] == bound


# --- closed loops ---------------------------------------------------------------------


@pytest.mark.parametrize("start", [SHORTEST, FIRST_SECONDS, LONGEST])
@pytest.mark.parametrize(
    ("overhead", "noise", "expected"),
    [
        (0.003, 2.0, 0.09),
        (0.003, 50.0, math.sqrt(0.15)),
        (0.05, 0.4, 0.4),
        (0.05, 500.0, 5.0),
        (0.0001, 1.0, SHORTEST),
        (3.0, 5000.0, LONGEST),
    ],
)
def test_a_loop_comes_to_rest_at_the_best_length(
    overhead: float, noise: float, expected: float, start: float
) -> None:
    def gives(seconds: float) -> Observed:
        return observed(overhead, cosine(seconds, noise), seconds=seconds)

    assert after(400, gives, start) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_loop_stays_near_the_best_length_where_all_that_is_seen_is_noisy(
    seed: int,
) -> None:
    # As measured with two clients: cosines of 0.02, give or take 0.015.
    draw = random.Random(seed)

    lengths: list[float] = []

    def gives(seconds: float) -> Observed:
        lengths.append(seconds)
        overhead = 0.003 * draw.uniform(0.5, 2.0) + (draw.random() < 0.1)
        quality = cosine(seconds, 30.0) + draw.gauss(0, 0.01)
        return observed(overhead, quality, seconds=seconds)

    after(1000, gives)

    usual = lengths[200:]
    assert min(usual) > 0.15
    assert max(usual) < 1.0
    # a median of 3.9 ms: sqrt(0.0039 * 30) = 0.34
    assert sum(usual) / len(usual) == pytest.approx(0.34, rel=0.25)


def test_steps_become_longer_as_the_signal_fades() -> None:
    # While a model learns, the noise grows from 0.2 s to 200 s.
    noise = iter(0.2 * 1000 ** (step / 2000) for step in range(2001))
    lengths: list[float] = []

    def gives(seconds: float) -> Observed:
        lengths.append(seconds)
        return observed(0.004, cosine(seconds, next(noise)), seconds=seconds)

    after(2001, gives)

    assert lengths[400] == pytest.approx(0.12, rel=0.01)
    assert lengths[1000:] == sorted(lengths[1000:])
    assert lengths[-1] == pytest.approx(math.sqrt(0.004 * 200), rel=0.1)


@pytest.mark.parametrize("share", [0.04, 0.2, 1.0])
def test_an_overhead_that_grows_with_the_step_does_not_lengthen_it_for_ever(
    share: float,
) -> None:
    def gives(seconds: float) -> Observed:
        overhead = 0.003 + share * seconds
        return observed(overhead, cosine(seconds, 2.0), seconds=seconds)

    assert 1.9 <= after(400, gives) <= 2.1

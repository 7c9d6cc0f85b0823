import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from utilities.scales import Scale, Series, label

finite = st.floats(-1e12, 1e12)


def test_what_is_not_finite_or_too_large_cannot_be_drawn() -> None:
    x = np.array([0, 1, math.nan, 3, 4, 5], np.float64)
    y = np.array([1, math.nan, 2, math.inf, 1e301, -2], np.float64)
    usable = Series("a", x, y).usable()

    assert (usable.x.tolist(), usable.y.tolist()) == ([0, 5], [1, -2])


def test_a_scale_spans_its_values() -> None:
    scale = Scale.over(np.array([3.0, 2.0, 4.0]), 0.1)

    assert (scale.low, scale.high) == (2, 4)
    assert scale.shares(np.array([2.0, 3.0, 4.0])).tolist() == [0, 0.5, 1]
    assert scale.places(np.array([2.0, 3.0, 4.0]), 5).tolist() == [0, 2, 4]


def test_a_scale_is_never_narrower_than_asked() -> None:
    scale = Scale.over(np.array([2.0]), 0.5)

    assert (scale.low, scale.high) == (1.75, 2.25)


def test_ticks_are_round() -> None:
    values, step = Scale(1.93, 3.31).ticks(6, 0.0)

    assert step == 0.5
    assert values.tolist() == [2.0, 2.5, 3.0]


def test_ticks_are_not_closer_than_asked() -> None:
    values, step = Scale(0.0, 3.0).ticks(20, 1.0)

    assert step == 1
    assert values.tolist() == [0, 1, 2, 3]


@given(finite, finite, st.integers(1, 20))
@example(879609303.0, 879609303.0, 10)
def test_every_range_has_a_tick_and_all_lie_within(a: float, b: float, n: int) -> None:
    scale = Scale.over(np.array([a, b]), 1e-3)
    values, step = scale.ticks(n, 0.0)
    # A narrow range of large numbers has few floats, and a tick is rounded to one.
    slack = max(1e-6 * step, float(np.spacing(max(abs(scale.low), abs(scale.high)))))

    assert 1 <= len(values) <= 5 * n + 11
    assert values.min() >= scale.low - slack
    assert values.max() <= scale.high + slack


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (2.5, 0.5, "2.5"),
        (2.0, 1.0, "2"),
        (-0.0, 0.1, "0.0"),
        (0.30000000000000004, 0.1, "0.3"),
        (1234567890.0, 1e8, "1.2e+09"),
    ],
)
def test_a_label_has_the_digits_it_needs(value: float, step: float, text: str) -> None:
    assert label(value, step, 8) == text

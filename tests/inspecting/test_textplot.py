import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilities.inspect.textplot import ASCII, PROBE, UNICODE, Signs, text_plot
from utilities.scales import Series

Pairs = Sequence[tuple[float, float]]


def series(name: str, pairs: Pairs) -> Series:
    x, y = np.array(pairs, np.float64).reshape(-1, 2).T
    return Series(name, x, y)


def plot(
    curve: Pairs,
    points: Pairs | None = None,
    width: int = 18,
    height: int = 5,
    signs: Signs = ASCII,
) -> list[str]:
    return text_plot(
        series("loss", curve),
        series("validation", points or []),
        x_name="step",
        y_name="nats",
        width=width,
        height=height,
        signs=signs,
    )


def test_a_curve_is_drawn_between_its_axes() -> None:
    falling = [(x, max(0, 4 - x)) for x in range(8)]

    assert plot(falling) == [
        "    nats",
        "       4 +*",
        "         | *",
        "       2 +  *",
        "         |   *",
        "       0 +    ****",
        "         ++-------",
        "          0",
        "          step",
    ]


def test_braille_holds_two_by_four_dots_in_a_character() -> None:
    # Above until column 7 of 16 dots, then down all four rows, then below.
    falling = [(x, 3.0 if x < 8 else 0.0) for x in range(16)]

    lines = plot(falling, height=1, signs=UNICODE)

    assert lines[1:4] == ["       2 ┤⠉⠉⠉⠉⣆⣀⣀⣀", "         └┬───────", "          0"]


def test_points_lie_above_the_curve_and_are_named() -> None:
    lines = plot([(0, 0), (27, 0)], [(0, 4), (27, 0)], width=50)

    assert lines[1] == "       4 +o"
    assert lines[5] == "       0 +" + "*" * 39 + "o"
    assert lines[8] == "          step     * loss   o validation"
    assert "validation" not in plot([(0, 0), (27, 0)], width=50)[8]


def test_points_without_a_curve_are_drawn() -> None:
    lines = plot([], [(0, 4), (7, 0)])

    assert "".join(lines).count("o") == 2
    assert "*" not in "".join(lines[:-1])


def test_of_points_close_together_the_last_one_is_drawn() -> None:
    # 8 columns are two groups: 0 to 4 and 5 to 7. Unsorted, as a damaged log may be.
    points = [(2.0, 1.0), (0.0, 0.0), (1.0, 0.0), (7.0, 4.0), (6.0, 0.0)]

    lines = plot([], points)

    assert [line for line in lines if "o" in line] == [
        "       4 +       o",
        "         |  o",
    ]


def test_each_column_shows_the_mean_of_its_figures() -> None:
    pairs = [(x, 1.0 if x % 2 else 3.0) for x in range(8000)] + [(8000, 4), (0, 0)]

    lines = plot(pairs, [(0, 4), (0, 0)])

    assert lines[3] == "       2 +********"


def test_a_gap_is_bridged_and_what_is_not_finite_is_left_out() -> None:
    nan, inf = math.nan, math.inf

    assert plot([(0, 0), (3, nan), (4, inf), (5, -inf), (nan, 9), (7, 0)]) == plot(
        [(0, 0), (7, 0)]
    )


@pytest.mark.parametrize("curve", [[], [(0, math.nan)], [(math.inf, 2.0)]])
def test_nothing_to_draw_gives_no_line(curve: Pairs) -> None:
    assert plot(curve) == []


def test_a_single_figure_is_drawn_in_the_middle() -> None:
    assert plot([(7, 2.5)]) == [
        "    nats",
        "    2.55 +",
        "         |",
        "    2.50 +    *",
        "         |",
        "    2.45 +",
        "         +----+---",
        "              7",
        "          step",
    ]


def test_labels_have_the_digits_that_their_distance_needs() -> None:
    def labels(low: float, high: float) -> list[str]:
        lines = plot([(0, low), (1, high)], height=9)
        return [line[:8].strip() for line in lines[1:10] if line[:8].strip()]

    assert labels(0, 0.8) == ["0.8", "0.6", "0.4", "0.2", "0.0"]
    assert labels(2.3, 2.7) == ["2.7", "2.6", "2.5", "2.4", "2.3"]
    assert labels(-10, 30) == ["30", "20", "10", "0", "-10"]
    assert labels(0, 4e9) == ["4.0e+09", "3.0e+09", "2.0e+09", "1.0e+09", "0"]


def test_whole_numbers_below_do_not_touch_each_other() -> None:
    lines = plot([(99_999_000, 1), (99_999_004, 2)], width=80)

    assert lines[-2].split() == [str(99_999_000 + i) for i in range(5)]
    assert lines[-3].count("+") == 6  # the corner and five ticks


def test_numbers_too_close_for_the_axis_are_left_out() -> None:
    lines = plot([(0, 1), (10, 2)], width=19)

    assert lines[-2].split() == ["0", "10"]
    assert plot([(95, 1), (105, 2)])[-2].split() == ["100"]
    assert plot([(1000, 1), (1010, 2)])[-3:-1] == [
        "         ++-------",
        " " * 10 + "1000",
    ]
    assert plot([(2**55, 1), (2**55 + 2**50, 2)], width=28)[-2].split() == ["3.7e+16"]


def test_a_line_is_cut_to_the_width() -> None:
    assert max(map(len, plot([(0, 1)], [(0, 1)], width=12))) <= 12


def test_a_million_figures_become_a_few_lines() -> None:
    x = np.arange(1_000_000.0)
    curve = Series("loss", x, 2 + np.exp(-x / 1e5))

    lines = text_plot(
        curve,
        Series("validation", x, curve.y),
        x_name="step",
        y_name="nats",
        width=80,
        height=14,
        signs=UNICODE,
    )

    assert len(lines) == 18


@given(
    st.lists(st.tuples(st.floats(), st.floats()), max_size=20),
    st.lists(st.tuples(st.floats(), st.floats()), max_size=20),
    st.integers(18, 200),
    st.integers(1, 20),
    st.sampled_from([UNICODE, ASCII]),
)
def test_any_figures_fit_any_size(
    curve: Pairs, points: Pairs, width: int, height: int, signs: Signs
) -> None:
    lines = plot(curve, points, width, height, signs)

    assert len(lines) in (0, height + 4)
    assert all(len(line) <= width for line in lines)
    if signs is ASCII:
        assert "".join(lines).isascii()


def test_the_probe_tells_which_encodings_can_show_a_plot() -> None:
    assert PROBE.encode("utf-8")
    for encoding in ("ascii", "latin-1", "cp437", "cp1252"):
        with pytest.raises(UnicodeEncodeError):
            PROBE.encode(encoding)

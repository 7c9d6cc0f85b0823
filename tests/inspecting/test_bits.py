import bz2
import gzip
import lzma
import re
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from utilities.inspect.bits import (
    END,
    Surprise,
    coloured_lines,
    compressed,
    legend,
    plain_lines,
)
from utilities.inspect.words import cells

SEQUENCE = re.compile("\x1b\\[[0-9;]*m")


def surprise(text: str, bits: Sequence[float] | None = None) -> Surprise:
    values = [float(i) for i in range(len(text))] if bits is None else bits
    return Surprise(text, np.array(values, np.float64))


def test_the_mean_is_that_of_all_characters() -> None:
    whole = surprise("abcd", [1.0, 2.0, 3.0, 6.0])

    assert whole.per_character == 3
    assert whole.first(2).text == "ab"
    assert whole.first(2).bits.tolist() == [1, 2]


def test_compressors_are_asked_for_their_best() -> None:
    text = "the quick brown fox\n" * 50 + "\N{GREEK SMALL LETTER PI}\udcff"
    data = text.encode("utf-8", "surrogatepass")
    figures = compressed(text)

    assert list(figures) == ["gzip", "bz2", "xz"]
    best = [gzip.compress(data, 9), bz2.compress(data, 9)]
    best.append(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    for figure, archive in zip(figures.values(), best, strict=True):
        assert figure == 8 * len(archive) / len(text)


def test_digits_stand_below_their_characters() -> None:
    lines = list(plain_lines(surprise("ab\nc世d", [0.4, 1.6, 12.0, 3, 9.4, 2])))

    assert lines == [f"ab{END}", "029", "c世d", "39 2"]


def test_long_lines_go_on_below() -> None:
    lines = list(plain_lines(surprise("a" * 79 + "世" + "b" * 3, [1.0] * 83)))

    assert lines == ["a" * 79, "1" * 79, "世bbb", "1 111"]


def test_what_a_terminal_would_obey_is_replaced() -> None:
    lines = list(plain_lines(surprise("a\x1b\t\u0301\n")))

    assert lines == [f"a???{END}", "01234"]


def test_colours_are_those_of_the_bits_and_change_only_where_they_do() -> None:
    (line,) = coloured_lines(surprise("abcd", [0.9, 0.1, 7.9, 300.0]))

    assert line == (
        "\x1b[38;5;231;48;5;22mab\x1b[38;5;231;48;5;88mc\x1b[38;5;231;48;5;90md\x1b[0m"
    )


def test_each_line_has_its_own_colours() -> None:
    lines = list(coloured_lines(surprise("a\nb", [0, 0, 0])))

    assert [SEQUENCE.sub("", line) for line in lines] == [f"a{END}", "b"]
    assert all(line.startswith("\x1b[38") for line in lines)
    assert all(line.endswith("\x1b[0m") for line in lines)


def test_the_legend_has_each_colour() -> None:
    assert SEQUENCE.sub("", legend()) == ("bits  0  1  2  3  4  5  6  7  8  and more")


def test_no_text_has_no_lines() -> None:
    assert list(plain_lines(surprise(""))) == []
    assert list(coloured_lines(surprise(""))) == []


@settings(deadline=None)
@given(st.text(max_size=300))
def test_lines_fit_and_lose_no_character(text: str) -> None:
    whole = surprise(text, [1.0] * len(text))
    plain = list(plain_lines(whole))
    coloured = [SEQUENCE.sub("", line) for line in coloured_lines(whole)]

    assert plain[::2] == coloured
    assert sum(map(len, coloured)) == len(text)
    assert all(cells(line) <= 80 for line in plain)
    assert all(line.isprintable() for line in plain)
    digits = "".join(plain[1::2])
    assert digits.count("1") == len(text)

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utilities.config import Config
from utilities.display import printable
from utilities.inspect.words import (
    cells,
    count,
    fitted,
    model_name,
    shown,
    size,
    span,
    table,
    wrapped,
)


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("a\x1b[2J\nb", 9, "a?[2J b"),
        ("世界世界", 8, "世界世界"),
        ("世界世界", 7, "世界世…"),
        ("世界世界", 6, "世界…"),
        ("e\u0301e\u0301", 2, "e\u0301e\u0301"),
    ],
)
def test_a_text_is_cut_to_the_places_it_takes(
    text: str, width: int, expected: str
) -> None:
    assert fitted(text, width) == expected


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7200, "2 h"),
        (2 * 86400 - 1, "47 h"),
        (2 * 86400, "2 d"),
        (1000 * 86400, "1000 d"),
    ],
)
def test_a_length_of_time_has_one_unit(seconds: float, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9949, "9.9 kB"),
        (9950, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (45e9, "45 GB"),
        (45e15, "45000 TB"),
    ],
)
def test_bytes_have_a_unit(count: float, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("value", "words"), [(None, "null"), (30.0, "30"), (0.02, "0.02"), ("a", "a")]
)
def test_values_look_as_in_a_file(value: object, words: str) -> None:
    assert shown(value) == words


def test_a_large_number_has_eight_characters() -> None:
    assert (count(99_999_999), count(10**8)) == ("99999999", "1.00e+08")


def test_a_model_is_named_by_its_size() -> None:
    assert model_name(Config(model_type="gru", n_layers=2)) == "gru 2x32"


# Tables and lines.


def test_columns_stand_below_each_other() -> None:
    rows = [("run", "text", "step"), ("7", "世界", "12"), ("12", "a", "1234")]

    assert list(table(rows, (1,), 1)) == [
        "run  text  step",
        "  7  世界    12",
        " 12  a     1234",
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(), st.text(max_size=9)), min_size=1))
def test_a_table_fits_a_line(rows: list[tuple[str, str]]) -> None:
    assert all(cells(line) <= 80 for line in table(rows, (0,), 0))


def test_a_text_is_wrapped_by_the_places_it_takes() -> None:
    text = "abcdef\n\n世界世\n\x1b[2J"

    assert list(wrapped(text, 4)) == ["abcd", "ef", "", "世界", "世", "?[2J"]


@settings(deadline=None)
@given(st.text(), st.integers(2, 20))
def test_wrapped_lines_fit_and_lose_nothing(text: str, width: int) -> None:
    lines = list(wrapped(text, width))

    assert all(cells(line) <= width for line in lines)
    assert "".join(lines) == "".join(map(printable, text.split("\n")))

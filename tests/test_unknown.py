"""Which characters a vocabulary leaves out, counted and named."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilities import unknown
from utilities.data import Text, build_vocabulary
from utilities.unknown import SHOWN, Unknown, named, unknown_characters


def test_the_most_frequent_come_first_with_their_share_of_all_tokens() -> None:
    # 6 a, 3 b, 2 d, 2 c in two documents, and one stop token between them: 14 tokens.
    text = Text("x", ("aaaaaabb", "bddcc"))

    found = unknown_characters(text, build_vocabulary(text, 3))

    assert found.shares == (("b", 3 / 14), ("c", 2 / 14), ("d", 2 / 14))
    assert (found.kinds, found.holds_all) == (3, 6)


def test_of_many_ten_are_named_and_all_are_counted() -> None:
    text = Text("x", ("abcdefghijklm",))

    found = unknown_characters(text, build_vocabulary(text, 2))

    assert "".join(character for character, _ in found.shares) == "abcdefghij"
    assert found.kinds == 13
    assert found.lines(begins=True)[0].endswith(", 'j' 7.69%, 3 more")


@given(st.text(min_size=1, max_size=40), st.integers(2, 12))
def test_with_the_size_that_it_names_none_is_left(text: str, size: int) -> None:
    whole = Text("x", (text,))
    found = unknown_characters(whole, build_vocabulary(whole, size))

    assert found.holds_all is not None
    larger = build_vocabulary(whole, found.holds_all)
    assert unknown_characters(whole, larger).kinds == 0
    assert larger.size == found.holds_all
    assert found.kinds == max(0, len(set(text)) + 2 - size)
    counts = Counter(text)
    assert all(share == counts[c] / len(text) for c, share in found.shares)
    assert len(found.shares) == min(SHOWN, found.kinds)


def test_no_size_is_named_where_none_is_large_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unknown, "LARGEST_VOCABULARY", 4)
    text = Text("x", ("abc",))

    found = unknown_characters(text, build_vocabulary(text, 3))

    assert found.holds_all is None
    assert found.lines(begins=True)[1] == "No vocabulary may be larger than 4."


def test_what_to_type_depends_on_whether_the_run_is_new() -> None:
    found = Unknown((("q", 0.0102),), 1, 30)

    assert found.lines(begins=True) == [
        "1 character of it became unknown: 'q' 1.02%",
        "A run with --vocabSize 30 would know them all.",
    ]
    assert found.lines(begins=False)[1].startswith("A new run with --vocabSize 30 ")
    assert Unknown().lines(begins=True) == []


@pytest.mark.parametrize(
    ("character", "shown"),
    [
        *[("a", "'a'"), ("é", "'é'"), ("'", '"\'"'), (" ", "U+0020")],
        *[("\n", "U+000A"), ("\u0301", "U+0301"), ("\u202e", "U+202E")],
        ("\U0001f600", "'\U0001f600'"),
    ],
)
def test_a_character_that_cannot_be_seen_is_told_by_its_number(
    character: str, shown: str
) -> None:
    assert named(character) == shown

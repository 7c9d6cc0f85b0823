"""Texts, vocabularies, corpora, baselines and windows, by hand-worked examples."""

import hashlib
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from utilities import data
from utilities.data import (
    STOP,
    UNKNOWN,
    Corpus,
    Text,
    Tokens,
    Vocabulary,
    baselines,
    build_corpus,
    build_vocabulary,
    default_text,
    gather_windows,
    least_characters,
    log_frequencies,
    validation_rows,
    window_starts,
)
from utilities.errors import DataError
from utilities.textfiles import read_text

SHAKESPEARE = Path(__file__).parents[2] / "shared" / "data" / "tinyshakespeare.txt"
AB = Vocabulary(("", "", "a", "b"))


def tokens_of(values: Sequence[int]) -> Tokens:
    return np.array(values, dtype=np.uint8)


def corpus_of(train: Sequence[int], validation: Sequence[int], limit: int) -> Corpus:
    return Corpus("t", "0", AB, tokens_of(train), tokens_of(validation), 0.0, limit)


# --- Text ----------------------------------------------------------------------------


def test_digest_covers_each_document_with_its_length_in_bytes() -> None:
    content = b"\2" + bytes(7) + "é".encode() + b"\1" + bytes(7) + b"b"

    assert Text("t", ("é", "b")).sha256 == hashlib.sha256(content).hexdigest()


def test_digest_of_a_fixed_text_never_changes() -> None:
    golden = "d8263aa6a8ab1a2e9d69b809f09d18d1805885465ef5e89631bcd5cff62147f7"

    assert Text("t", ("To be\n", "or not")).sha256 == golden


def test_digest_tells_documents_cut_elsewhere_apart_and_ignores_the_name() -> None:
    assert Text("t", ("ab", "c")).sha256 != Text("t", ("a", "bc")).sha256
    assert Text("t", ("ab",)).sha256 != Text("t", ("ab", "")).sha256
    assert Text("t", ("ab",)).sha256 == Text("u", ("ab",)).sha256


@pytest.mark.parametrize(
    ("documents", "length"), [((), 0), (("abc",), 3), (("abc", "d", ""), 6)]
)
def test_length_counts_one_stop_between_documents(
    documents: tuple[str, ...], length: int
) -> None:
    assert Text("t", documents).length == length


# --- the default text ----------------------------------------------------------------


def use_topics(monkeypatch: pytest.MonkeyPatch, topics: dict[str, str]) -> None:
    module = ModuleType("pydoc_data.topics")
    module.topics = topics  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", module)


def test_default_text_is_long_enough_to_train_on() -> None:
    pytest.importorskip("pydoc_data.topics", reason="this Python has no topics")

    text = default_text()

    assert text.name == "Python reference topics"
    assert text.length > 100_000
    assert all(document and "\r" not in document for document in text.documents)


def test_default_text_sorts_topics_and_normalises_newlines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_topics(monkeypatch, {"b": "2\r\n", "c": "", "a": "1\r"})

    assert default_text().documents == ("1\n", "2\n")


def test_stripped_python_is_told_to_name_data(monkeypatch: pytest.MonkeyPatch) -> None:
    use_topics(monkeypatch, {})
    with pytest.raises(DataError, match=r"pydoc_data\.topics.*--data"):
        default_text()

    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match=r"pydoc_data\.topics.*--data"):
        default_text()


# --- Vocabulary ----------------------------------------------------------------------


def test_characters_are_ranked_by_frequency_then_code_point() -> None:
    text = Text("t", ("cab", "ccb", "\U0001f600a"))

    vocabulary = build_vocabulary(text, None)

    assert vocabulary.characters == ("", "", "c", "a", "b", "\U0001f600")
    assert vocabulary.size == 6


@pytest.mark.parametrize(("size", "known"), [(2, ""), (3, "c"), (4, "ca"), (9, "cab")])
def test_size_includes_the_two_special_tokens(size: int, known: str) -> None:
    vocabulary = build_vocabulary(Text("t", ("cab", "c")), size)

    assert vocabulary.characters == ("", "", *known)


def test_size_without_room_for_the_special_tokens_is_a_fault_of_the_caller() -> None:
    with pytest.raises(AssertionError):
        build_vocabulary(Text("t", ("a",)), 1)


@pytest.mark.parametrize("size", [None, 100_000])
def test_vocabulary_never_exceeds_two_bytes(size: int | None) -> None:
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]

    vocabulary = build_vocabulary(Text("t", ("".join(every) + "\U0010ffff",)), size)

    assert vocabulary.size == 65_536
    assert vocabulary.characters[2:5] == ("\U0010ffff", "\0", "\1")
    assert vocabulary.encode("\U0010ffff\0" + every[65_533]).tolist() == [2, 3, UNKNOWN]
    assert vocabulary.encode(every[65_532]).tolist() == [65_535]


def test_encoding_gives_a_token_per_character_and_unknown_for_the_rest() -> None:
    tokens = AB.encode("abc\U0010ffff\0b")

    assert tokens.tolist() == [2, 3, UNKNOWN, UNKNOWN, UNKNOWN, 3]
    assert tokens.dtype == np.uint8


def test_lone_surrogate_of_a_prompt_is_unknown() -> None:
    assert AB.encode("a\udce9").tolist() == [2, UNKNOWN]


def test_nothing_is_encoded_and_decoded_as_nothing() -> None:
    assert AB.encode("").shape == (0,)
    assert AB.decode([]) == ""
    assert Vocabulary(("", "")).encode("ab").tolist() == [UNKNOWN, UNKNOWN]


@pytest.mark.parametrize(("size", "dtype"), [(256, np.uint8), (257, np.uint16)])
def test_tokens_take_two_bytes_only_if_they_must(
    size: int, dtype: type[np.unsignedinteger]
) -> None:
    vocabulary = Vocabulary(("", "", *map(chr, range(0x100, 0x100 + size - 2))))
    last = vocabulary.characters[-1]

    assert vocabulary.dtype == dtype
    assert vocabulary.encode(last).dtype == dtype
    assert vocabulary.encode(last).tolist() == [size - 1]


def test_decoding_shows_unknown_and_stop() -> None:
    assert AB.decode(tokens_of([2, UNKNOWN, 3, STOP, 2])) == "a\ufffdb\n\na"


@given(st.text(), st.integers(2, 40))
def test_decoding_returns_what_the_vocabulary_holds(text: str, size: int) -> None:
    vocabulary = build_vocabulary(Text("t", (text,)), size)
    known = set(vocabulary.characters)

    expected = "".join(c if c in known else "\ufffd" for c in text)

    assert vocabulary.decode(vocabulary.encode(text)) == expected


@given(st.text(max_size=30))
def test_chunks_leave_no_seam(text: str) -> None:
    vocabulary = build_vocabulary(Text("t", (text,)), None)
    tokens = vocabulary.encode(text)
    corpus = replace(corpus_of([2, 3] * 9, [2, 3, 3, 2, 2], 9), vocabulary=AB)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "_CHUNK", 1 << 2)

        assert build_vocabulary(Text("t", (text,)), None) == vocabulary
        assert vocabulary.encode(text).tolist() == tokens.tolist()
        assert log_frequencies(tokens, 40).shape == (40,)
        small = baselines(corpus)
    assert small == pytest.approx(baselines(corpus))


def test_four_million_characters_are_encoded_in_well_under_a_second() -> None:
    text = "the quick brown fox jumps over the lazy dog\n" * 91_000
    vocabulary = build_vocabulary(Text("t", (text[:1000],)), None)

    started = time.process_time()
    tokens = vocabulary.encode(text)

    assert time.process_time() - started < 0.5
    assert tokens.size == len(text)


def test_json_shows_each_token_with_its_character() -> None:
    vocabulary = Vocabulary(("", "", "\n", "é"))

    assert vocabulary.to_json() == {
        "0": "<unknown>",
        "1": "<stop>",
        "2": "\n",
        "3": "é",
    }


@given(st.text())
@example("<>\0\u2028\U0001f600")
def test_vocabulary_survives_json(text: str) -> None:
    vocabulary = build_vocabulary(Text("t", (text,)), None)

    read = Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))

    assert read == vocabulary
    assert hash(read) == hash(vocabulary)


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        ["<unknown>", "<stop>", "a"],
        {},
        {"0": "<unknown>"},
        {"0": "<stop>", "1": "<unknown>"},
        {"0": "", "1": "", "2": "a"},
        {"0": "<unknown>", "1": "<stop>", "3": "a"},
        {"0": "<unknown>", "1": "<stop>", "2": 7},
        {"0": "<unknown>", "1": "<stop>", "2": None, "3": "a"},
        {"0": "<unknown>", "1": "<stop>", 2: "a"},
    ],
)
def test_json_that_is_no_vocabulary_is_refused(broken: object) -> None:
    with pytest.raises(DataError, match=r"vocabulary: expected .*without gaps, got"):
        Vocabulary.from_json(broken)


@pytest.mark.parametrize("entry", ["", "ab", chr(0xD800), chr(0xDFFF), "a"])
def test_entry_that_is_no_new_character_is_refused(entry: str) -> None:
    broken = {"0": "<unknown>", "1": "<stop>", "2": "a", "3": entry}

    with pytest.raises(DataError, match="token 3: expected one character, not used"):
        Vocabulary.from_json(broken)


@pytest.mark.parametrize(
    "characters",
    [(), ("",), ("", "a"), ("a", "b", "c"), ("", "", *map(chr, range(65_535)))],
)
def test_vocabulary_of_an_impossible_form_is_refused(
    characters: tuple[str, ...],
) -> None:
    with pytest.raises(DataError, match="expected 2 to 65536 entries"):
        Vocabulary(characters)


# --- Corpus --------------------------------------------------------------------------


def test_corpus_joins_documents_with_stop_and_splits_them() -> None:
    text = Text("name", ("ab" * 400, "?" * 99, "b" * 105))

    corpus = build_corpus(text, AB, 4)

    whole = [2, 3] * 400 + [STOP] + [UNKNOWN] * 99 + [STOP] + [3] * 105
    assert (corpus.name, corpus.sha256) == ("name", text.sha256)
    assert corpus.vocabulary is AB
    assert len(whole) == 1006
    assert corpus.train.tolist() == whole[:905]
    assert corpus.validation.tolist() == whole[905:]
    assert corpus.unknown_share == 99 / 1006
    assert corpus.token_batch_limit == 4_000_000


def test_corpus_cannot_be_written_to() -> None:
    corpus = build_corpus(Text("t", ("ab" * 500,)), AB, 4)

    for tokens in (corpus.train, corpus.validation, corpus.token_batch(0)):
        with pytest.raises(ValueError, match="read-only"):
            tokens[0] = 1


@pytest.mark.parametrize(
    ("sequence_length", "least"), [(1, 1000), (89, 1000), (90, 1012), (512, 5700)]
)
def test_least_length_of_a_text(sequence_length: int, least: int) -> None:
    assert least_characters(sequence_length) == least


@given(st.integers(1, 100_000))
def test_least_length_is_enough_and_no_more_than_needed(sequence_length: int) -> None:
    def enough(length: int) -> bool:
        train, window = int(length * 0.9), sequence_length + 1
        return train >= 10 * window and length - train >= window and length >= 1000

    least = least_characters(sequence_length)

    assert enough(least)
    assert not enough(least - 1)


@pytest.mark.parametrize("documents", [(), ("",), ("a" * 998, ""), ("a" * 999,)])
def test_short_text_is_refused_with_both_numbers(documents: tuple[str, ...]) -> None:
    text = Text("tiny.txt", documents)

    with pytest.raises(DataError, match=r"tiny\.txt: .*at least 1000 .*--data") as seen:
        build_corpus(text, AB, 64)

    assert f"windows of 64 (sequenceLength and burnIn), got {text.length};" in str(
        seen.value
    )


def test_text_of_the_least_length_is_taken() -> None:
    assert build_corpus(Text("t", ("a" * 1012,)), AB, 90).train.size == 910


def test_small_text_is_one_token_batch_for_ever() -> None:
    corpus = corpus_of(range(9), [2, 3], limit=9)

    assert corpus.batches == 1
    assert corpus.token_batch(0) is corpus.train
    assert corpus.token_batch(7) is corpus.train
    assert [corpus.batch_of_step(step, 2) for step in range(5)] == [0] * 5


def test_larger_text_is_cut_into_overlapping_slices_that_repeat() -> None:
    corpus = corpus_of(range(10), [2, 3], limit=4)

    slices = [corpus.token_batch(number).tolist() for number in range(4)]

    assert corpus.batches == 3
    assert slices[:3] == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert slices[3] == slices[0]
    assert corpus.token_batch(2**32 - 1).tolist() == slices[(2**32 - 1) % 3]


def test_token_batch_is_a_view() -> None:
    corpus = corpus_of(range(10), [2, 3], limit=4)

    assert np.shares_memory(corpus.token_batch(1), corpus.train)


@given(st.integers(1, 200), st.integers(1, 60))
def test_token_batches_cover_the_text(length: int, limit: int) -> None:
    corpus = corpus_of(range(length), [2, 3], limit)

    parts = [corpus.token_batch(i) for i in range(corpus.batches)]

    assert {part.size for part in parts} == {min(length, limit)}
    assert set(np.concatenate(parts).tolist()) == set(range(length))


@pytest.mark.parametrize("number", [-1, 2**32])
def test_token_batch_number_must_fit_four_bytes(number: int) -> None:
    with pytest.raises(AssertionError):
        corpus_of(range(10), [2, 3], limit=4).token_batch(number)


def test_token_batch_changes_every_interval() -> None:
    corpus = corpus_of(range(10), [2, 3], limit=4)

    numbers = [corpus.batch_of_step(step, 2) for step in range(9)]

    assert numbers == [0, 0, 1, 1, 2, 2, 3, 3, 4]


# --- baselines -----------------------------------------------------------------------


def test_log_frequencies_add_one_to_each_count() -> None:
    frequencies = log_frequencies(tokens_of([2, 3, 2, 3, 2, 2]), 4)

    assert frequencies.dtype == np.float32
    assert np.array_equal(frequencies, np.log([0.1, 0.1, 0.5, 0.3]).astype(np.float32))


def test_baselines_of_a_text_worked_by_hand() -> None:
    # Trained on ababaa: a 4 times, b 2, so P(a) = 5/10, P(b) = 3/10. Pairs: ab 2, ba 2,
    # aa 1. After a: 3 seen, 2 kinds; after b: 2 seen, 1 kind; after stop: nothing.
    corpus = corpus_of([2, 3, 2, 3, 2, 2], [STOP, 2, 2, 3, 3], 9)

    found = baselines(corpus)

    after_stop, aa, ab, bb = 0.5, (1 + 2 * 0.5) / 5, (2 + 2 * 0.3) / 5, (0 + 0.3) / 3
    assert found.uniform == pytest.approx(math.log(4))
    assert found.unigram == pytest.approx(-math.log(0.5 * 0.5 * 0.3 * 0.3) / 4)
    assert found.bigram == pytest.approx(-math.log(after_stop * aa * ab * bb) / 4)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=40), st.integers(0, 3))
def test_bigram_chances_of_all_followers_sum_to_one(
    train: list[int], first: int
) -> None:
    chances = [
        math.exp(-baselines(corpus_of(train, [first, second], 99)).bigram)
        for second in range(4)
    ]

    assert sum(chances) == pytest.approx(1, abs=1e-6)


def test_baselines_of_a_large_vocabulary_need_no_table_of_pairs() -> None:
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + 20_000)))
    text = Text("t", (characters * 2,))
    corpus = build_corpus(text, build_vocabulary(text, None), 4)

    found = baselines(corpus)

    assert found.uniform == pytest.approx(math.log(20_002))
    assert found.bigram < 1 < found.unigram


def test_baselines_of_tiny_shakespeare_are_the_published_ones() -> None:
    if not SHAKESPEARE.exists():
        pytest.skip("../shared/data/tinyshakespeare.txt is not beside this project")
    text = read_text([SHAKESPEARE])

    corpus = build_corpus(text, build_vocabulary(text, None), 64)
    found = baselines(corpus)

    assert (corpus.vocabulary.size, corpus.unknown_share) == (67, 0)
    assert (corpus.train.size, corpus.validation.size) == (1_003_854, 111_540)
    assert found.uniform == pytest.approx(math.log(67))
    assert found.unigram == pytest.approx(3.347, abs=0.001)
    assert found.bigram == pytest.approx(2.486, abs=0.001)


# --- windows -------------------------------------------------------------------------


def test_window_start_is_the_word_modulo_the_room_there_is() -> None:
    raw = np.array([0, 5, 6, 7, 2**63, 2**64 - 1], dtype=np.uint64)

    starts = window_starts(raw, length=10, sequence_length=4)

    assert starts.dtype == np.int64
    assert starts.tolist() == [0, 5, 0, 1, 2**63 % 6, (2**64 - 1) % 6]


def test_text_without_room_for_a_window_is_a_fault_of_the_caller() -> None:
    with pytest.raises(AssertionError):
        window_starts(np.zeros(1, dtype=np.uint64), length=4, sequence_length=4)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_windows_are_columns(dtype: type[np.unsignedinteger]) -> None:
    tokens: Tokens = np.arange(10).astype(dtype)

    windows = gather_windows(tokens, np.array([0, 6, 2]), 3)

    assert windows.tolist() == [[0, 6, 2], [1, 7, 3], [2, 8, 4], [3, 9, 5]]
    assert windows.dtype == dtype
    assert windows.flags.c_contiguous
    assert windows.flags.writeable


@given(
    st.integers(2, 50),
    st.integers(1, 49),
    st.lists(st.integers(0, 2**64 - 1), max_size=5),
)
def test_any_word_gives_a_window_within_the_text(
    length: int, sequence_length: int, words: list[int]
) -> None:
    assume(length > sequence_length)
    tokens = tokens_of(range(length))

    starts = window_starts(np.array(words, dtype=np.uint64), length, sequence_length)
    windows = gather_windows(tokens, starts, sequence_length)

    assert windows.shape == (sequence_length + 1, len(words))
    for start, window in zip(starts, windows.T, strict=True):
        assert window.tolist() == tokens[start : start + sequence_length + 1].tolist()


def test_validation_text_is_cut_into_rows_and_a_rest() -> None:
    full, rest = validation_rows(tokens_of(range(9)), row=3)

    assert full.tolist() == [[0, 3], [1, 4], [2, 5], [3, 6]]
    assert full.flags.c_contiguous
    assert rest.tolist() == [[6], [7], [8]]


@given(st.integers(2, 60), st.integers(1, 20))
def test_each_validation_token_but_the_first_is_predicted_once(
    length: int, row: int
) -> None:
    rows = validation_rows(tokens_of(range(length)), row)

    inputs = np.concatenate([block[:-1].T.ravel() for block in rows])
    targets = np.concatenate([block[1:].T.ravel() for block in rows])
    assert inputs.tolist() == list(range(length - 1))
    assert targets.tolist() == list(range(1, length))
    assert all(block.size and block.dtype == np.uint8 for block in rows)
    assert all(block.shape[0] == row + 1 for block in rows[:-1])


def test_validation_rows_are_256_long_unless_told_otherwise() -> None:
    tokens: npt.NDArray[np.uint16] = np.zeros(513, dtype=np.uint16)

    assert [block.shape for block in validation_rows(tokens)] == [(257, 2)]


def test_validation_text_of_one_token_is_a_fault_of_the_caller() -> None:
    with pytest.raises(AssertionError):
        validation_rows(tokens_of([2]))

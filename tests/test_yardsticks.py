import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.small_runs import CONFIG, VOCABULARY, new_run, record
from utilities import data
from utilities.data import Text, baselines, build_corpus
from utilities.runs import Run, RunStore
from utilities.textfiles import read_text
from utilities.yardsticks import levels

WORDS = "abc de\nab " * 500
EVENLY = ("guessing evenly", math.log(9))


def figures(run: Run) -> list[tuple[str, float]]:
    return [(level.name, level.nats) for level in levels(run)]


def counted(text: Text) -> list[tuple[str, float]]:
    base = baselines(build_corpus(text, VOCABULARY, 64))
    return [
        EVENLY,
        ("by frequency", base.unigram),
        ("by pairs of characters", base.bigram),
    ]


def test_the_texts_files_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text(WORDS)
    text = read_text([file])
    changes = {"text_sha256": text.sha256, "text_paths": (str(file),)}
    with new_run(tmp_path / "runs", **changes) as run:
        assert figures(run) == counted(text)

        file.write_text(WORDS + "!")
        assert figures(run) == [EVENLY]
        file.unlink()
        assert figures(run) == [EVENLY]


def test_of_a_text_that_is_too_large_nothing_is_counted(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "words.txt").write_text(WORDS)
    text = read_text([texts])
    changes = {"text_sha256": text.sha256, "text_paths": (str(texts),)}
    with new_run(tmp_path / "runs", **changes) as run:
        assert len(levels(run, len(WORDS))) == 3
        assert len(levels(run, len(WORDS) - 1)) == 1
        (texts / "more.gz").write_bytes(b"1234")
        assert len(levels(run, len(WORDS) + 15)) == 1  # packed text is larger
        assert len(levels(run)) == 1  # and this one has changed


def test_a_stored_text_is_counted(tmp_path: Path) -> None:
    text = Text("Some prose", (WORDS,))
    kept = record(text_sha256=text.sha256, text_paths=())
    with RunStore(tmp_path).create(kept, VOCABULARY, text) as run:
        assert figures(run) == counted(text)
        size = (run.path / "text.json").stat().st_size
        assert [len(levels(run, most)) for most in (size - 1, size)] == [1, 3]

        (run.path / "text.json").write_text(json.dumps({"name": "a"}))
        assert figures(run) == [EVENLY]


def test_the_text_of_this_python_is_counted_where_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Text("Some prose", (WORDS,))
    monkeypatch.setattr("utilities.yardsticks.default_text", lambda: text)
    with new_run(tmp_path, text_sha256=text.sha256, text_paths=()) as run:
        assert figures(run) == counted(text)


def test_a_text_that_is_too_short_for_the_windows_counts_as_none(
    tmp_path: Path,
) -> None:
    text = Text("Some prose", ("abc",))
    kept = record(
        text_sha256=text.sha256,
        text_paths=(),
        config=replace(CONFIG, sequence_length=4096),
    )
    with RunStore(tmp_path).create(kept, VOCABULARY, text) as run:
        assert figures(run) == [EVENLY]
    assert data.least_characters(4096) > 3

"""What trivial methods reach on a run's text: the levels beside its curve.

Owns: finding the text again. Does not own the counting (`data`).
"""

import math
from contextlib import suppress
from pathlib import Path

from utilities.data import (
    Corpus,
    Text,
    baselines,
    build_corpus,
    default_text,
)
from utilities.errors import DataError, RunError
from utilities.plots import Level
from utilities.runs import TEXT, Run
from utilities.textfiles import read_text

_PACKED = 4  # times that a packed text is smaller


def levels(run: Run, most_bytes: float = math.inf) -> tuple[Level, ...]:
    """Return losses to compare with: guessing evenly, by frequency, by pairs.

    The last two are counted on the text; they are left out where it has changed or
    gone.

    Args:
        run: whose text is looked for.
        most_bytes: of its files that are read; of a larger text nothing is counted.
    """
    evenly = Level("guessing evenly", math.log(run.vocabulary.size))
    if _bytes(run) > most_bytes:
        return (evenly,)
    try:
        text = _text(run)
        if text.sha256 != run.record.text_sha256:
            return (evenly,)
        length = run.record.config.window_length
        return counted(build_corpus(text, run.vocabulary, length))
    except (DataError, RunError):
        return (evenly,)


def counted(corpus: Corpus) -> tuple[Level, ...]:
    """Return losses to compare with, counted on a text that is at hand."""
    base = baselines(corpus)
    return (
        Level("guessing evenly", base.uniform),
        Level("by frequency", base.unigram),
        Level("by pairs of characters", base.bigram),
    )


def _bytes(run: Run) -> int:
    """Return the size of the files that hold a run's text; unpacked ones grow."""
    with suppress(OSError):
        return (run.path / TEXT).stat().st_size
    total = 0
    for place in map(Path, run.record.text_paths):
        for path in (place, *place.rglob("*")):
            with suppress(OSError):
                size = path.stat().st_size if path.is_file() else 0
                total += size * (_PACKED if path.suffix == ".gz" else 1)
    return total


def _text(run: Run) -> Text:
    stored = run.stored_text()
    if stored is not None:
        return stored
    paths = [Path(path) for path in run.record.text_paths]
    return read_text(paths) if paths else default_text()

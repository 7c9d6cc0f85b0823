"""What trivial methods reach on a run's text: the levels beside its curve.

Owns: finding the text again. Does not own the counting (`data`).
"""

import math
from pathlib import Path

from utilities.data import (
    Corpus,
    Text,
    baselines,
    build_corpus,
    default_text,
    read_text,
)
from utilities.errors import DataError, RunError
from utilities.plots import Level
from utilities.runs import Run


def levels(run: Run) -> tuple[Level, ...]:
    """Return losses to compare with: guessing evenly, by frequency, by pairs.

    The last two are counted on the text; they are left out where it has changed or
    gone.
    """
    evenly = Level("guessing evenly", math.log(run.vocabulary.size))
    try:
        text = _text(run)
        if text.sha256 != run.record.text_sha256:
            return (evenly,)
        length = run.record.config.sequence_length
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


def _text(run: Run) -> Text:
    stored = run.stored_text()
    if stored is not None:
        return stored
    paths = [Path(path) for path in run.record.text_paths]
    return read_text(paths) if paths else default_text()

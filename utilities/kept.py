"""What was drawn for own trials, kept from scoring until they are added up.

A client draws the bits of its trials and looks which characters they read in order to
score them; to add them up it needs the same once more. They take 600 bytes a group of
16 directions, so what was drawn last is kept, up to a bound, and the rest drawn again.
"""

from collections.abc import Sequence

import numpy as np

from utilities.evolution import Segment, Setting, drawn
from utilities.model import Tokens
from utilities.products import Drawn

MOST_BYTES = 1 << 24  # some seconds of trials


class Kept:
    """What was drawn for some trials of one step."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        """Begin with nothing.

        Args:
            most: bytes; what would be more is not kept.
        """
        self._most = most
        self.forget()

    def forget(self) -> None:
        """Keep nothing any more."""
        self._bytes = 0
        self._blocks: dict[int, list[tuple[Segment, Drawn]]] = {}  # by seed
        self._about: tuple[Setting, Tokens] | None = None

    def begin(self, setting: Setting, tokens: Tokens) -> None:
        """Keep what is drawn for a run and a text, and nothing of others."""
        about = self._about
        if about is None or about[0] is not setting or about[1] is not tokens:
            self.forget()
            self._about = setting, tokens

    def keep(self, segment: Segment, found: Drawn) -> None:
        """Keep what was drawn for the groups that follow those of the same seed."""
        if found.read is None or found.windows is None:
            return  # full noise: a sign for each weight is too much
        size = found.words.nbytes + found.read.nbytes + found.windows.nbytes
        if self._bytes + size <= self._most:
            self._bytes += size
            self._blocks.setdefault(segment.seed, []).append((segment, found))

    def draw(
        self, setting: Setting, tokens: Tokens, segments: Sequence[Segment]
    ) -> Drawn:
        """Return what was drawn for some segments, as `evolution.drawn` does."""
        self.begin(setting, tokens)
        known = [self._known(segment) for segment in segments]
        new = [s for s, there in zip(segments, known, strict=True) if not there]
        if new == list(segments):
            return drawn(setting, tokens, new)
        fresh = _cut(drawn(setting, tokens, new), new) if new else []
        parts = [part for there in known for part in there or [fresh.pop(0)]]
        read = [part.read for part in parts if part.read is not None]
        windows = [part.windows for part in parts if part.windows is not None]
        words = np.concatenate([part.words for part in parts])
        return Drawn(words, np.concatenate(read), np.concatenate(windows, axis=1))

    def _known(self, segment: Segment) -> list[Drawn]:
        """Return the parts of what is kept that a segment consists of, if it does."""
        parts, due, end = [], segment.first, segment.first + segment.groups
        for block, found in self._blocks.get(segment.seed, ()):
            if block.first <= due < min(end, block.first + block.groups):
                last = min(end, block.first + block.groups)
                parts.append(_part(found, block, due, last))
                due = last
        return parts if due == end else []


def _part(found: Drawn, block: Segment, first: int, end: int) -> Drawn:
    """Return what was drawn for some groups of a block."""
    assert found.read is not None, "full noise is not kept"
    assert found.windows is not None, "full noise is not kept"
    each = len(found.words) // block.groups
    start, stop = first - block.first, end - block.first
    words, read = found.words[start * each : stop * each], found.read[start:stop]
    return Drawn(words, read, found.windows[:, start:stop])


def _cut(found: Drawn, segments: Sequence[Segment]) -> list[Drawn]:
    """Return what was drawn for each of some segments."""
    whole = Segment(0, 0, sum(segment.groups for segment in segments))
    parts, start = [], 0
    for segment in segments:
        parts.append(_part(found, whole, start, start + segment.groups))
        start += segment.groups
    return parts

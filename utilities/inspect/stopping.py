"""The end of a text that is being written: before a text that says so.

What might be the beginning of that text is held back until it is known to be none.
"""

from collections.abc import Iterator


class Until:
    """The pieces of a text, up to a text that ends it.

    Iterating takes no more pieces than are needed; `met` says whether the end came.
    """

    def __init__(self, pieces: Iterator[str], stop: str) -> None:
        """Begin.

        Args:
            pieces: of the text, as they come.
            stop: ends the text, and is no part of it.
        """
        assert stop, "an empty text is everywhere"
        self._pieces, self._stop = pieces, stop
        self.met = False

    def __iter__(self) -> Iterator[str]:
        """Yield what comes before the end, as soon as that is certain."""
        held = ""
        for piece in self._pieces:
            held += piece
            place = held.find(self._stop)
            if place >= 0:
                self.met = True
                yield held[:place]
                return
            keep = self._begun(held)
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
        yield held

    def _begun(self, text: str) -> int:
        """Return how many characters at the end may be the beginning of the stop."""
        most = min(len(text), len(self._stop) - 1)
        ends = (n for n in range(most, 0, -1) if self._stop.startswith(text[-n:]))
        return next(ends, 0)

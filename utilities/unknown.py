"""The characters of a text that its vocabulary does not hold, for people.

Owns: counting them and naming them. Does not own which they are (`data`).
"""

import unicodedata
from dataclasses import dataclass

from utilities.data import LARGEST_VOCABULARY, Text, Vocabulary, counted_characters

SHOWN = 10  # of them, the most frequent


@dataclass(frozen=True)
class Unknown:
    """Which characters of a text become unknown.

    Their shares are those of all tokens, the most frequent come first; `holds_all` is
    the vocabSize with which none does, None if no vocabulary is large enough.
    """

    shares: tuple[tuple[str, float], ...] = ()
    kinds: int = 0  # that there are
    holds_all: int | None = None

    def lines(self, *, begins: bool) -> list[str]:
        """Return what to say of them; nothing where there are none.

        Args:
            begins: the run is new, so that its vocabulary can still be chosen.
        """
        if not self.kinds:
            return []
        told = [f"{named(c)} {share:.2%}" for c, share in self.shares]
        if self.kinds > len(told):
            told.append(f"{self.kinds - len(told):,} more")
        kinds = f"{self.kinds:,} character{'' if self.kinds == 1 else 's'}"
        found = f"{kinds} of it became unknown: {', '.join(told)}"
        if self.holds_all is None:
            return [found, f"No vocabulary may be larger than {LARGEST_VOCABULARY:,}."]
        run = "A run" if begins else "A new run"
        return [found, f"{run} with --vocabSize {self.holds_all} would know them all."]


def named(character: str) -> str:
    """Return a character as people know it: what cannot be seen by its number."""
    seen = character.isprintable() and not character.isspace()
    if seen and not unicodedata.combining(character):
        return f"{character!r}"
    return f"U+{ord(character):04X}"


def unknown_characters(text: Text, vocabulary: Vocabulary) -> Unknown:
    """Return the characters of a text that a vocabulary does not hold."""
    points, counts = counted_characters(text)
    known = set(vocabulary.characters)
    missing = [
        (chr(point), count / text.length)
        for point, count in zip(points.tolist(), counts.tolist(), strict=True)
        if chr(point) not in known
    ]
    size = vocabulary.size + len(missing)
    holds_all = size if size <= LARGEST_VOCABULARY else None
    return Unknown(tuple(missing[:SHOWN]), len(missing), holds_all)

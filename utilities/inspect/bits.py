"""How many bits a text takes: by a model, character by character, and by compressors.

Owns: the comparison, the text with its surprises as colours or digits. Does not own the
model's probabilities (`trained`) or the terminal.

The idea: a model that gives a character the probability p can write it with -log2 p
bits, by arithmetic coding. So the mean surprise is what an archive of the text would
take, the model not counted, and stands beside what gzip, bz2 and xz really take.
"""

import bz2
import gzip
import lzma
from collections.abc import Iterator
from dataclasses import dataclass

from utilities.display import WIDTH
from utilities.inspect.console import RESET
from utilities.inspect.words import cells
from utilities.scales import Doubles

# Background of a character by its bits, of the 256 colours: green to red, then violet.
_SHADES = (22, 28, 64, 100, 136, 130, 124, 88, 90)
_WHITE = 231
END = "↵"  # shown where a line of the text ends


@dataclass(frozen=True, eq=False)
class Surprise:
    """A text and what each of its characters takes."""

    text: str
    bits: Doubles  # (characters,)

    @property
    def per_character(self) -> float:
        """Return the mean."""
        return float(self.bits.mean())

    def first(self, count: int) -> "Surprise":
        """Return that of so many characters at the beginning."""
        return Surprise(self.text[:count], self.bits[:count])


def compressed(text: str) -> dict[str, float]:
    """Return what common compressors take for a text, in bits per character."""
    data = text.encode("utf-8", "surrogatepass")
    sizes = {
        "gzip": len(gzip.compress(data, 9, mtime=0)),
        "bz2": len(bz2.compress(data, 9)),
        "xz": len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
    }
    return {name: 8 * size / len(text) for name, size in sizes.items()}


def coloured_lines(surprise: Surprise) -> Iterator[str]:
    """Yield the text in lines of `WIDTH` places, each character on its colour."""
    for text, bits in _wrapped(surprise):
        parts, before = [], -1
        for character, value in zip(text, bits, strict=True):
            shade = _SHADES[min(int(value), len(_SHADES) - 1)]
            if shade != before:
                parts.append(f"\x1b[38;5;{_WHITE};48;5;{shade}m")
            parts.append(character)
            before = shade
        yield "".join(parts) + RESET


def plain_lines(surprise: Surprise) -> Iterator[str]:
    """Yield lines of the text, below each the bits of its characters, 9 at most."""
    for text, bits in _wrapped(surprise):
        digits = [
            str(min(round(float(value)), 9)) + " " * (cells(character) - 1)
            for character, value in zip(text, bits, strict=True)
        ]
        yield text
        yield "".join(digits)


def legend() -> str:
    """Return what the colours stand for."""
    parts = (
        f"\x1b[38;5;{_WHITE};48;5;{shade}m {bits} {RESET}"
        for bits, shade in enumerate(_SHADES)
    )
    return f"bits {''.join(parts)} and more"


def _wrapped(surprise: Surprise) -> Iterator[tuple[str, Doubles]]:
    """Yield lines that end where the text's do or where there is no more room.

    The end of a line is shown as a sign of its own, since it has a surprise, too; so is
    what a terminal would obey.
    """
    start, width = 0, 0
    shown = "".join(map(_visible, surprise.text))
    for place, character in enumerate(surprise.text):
        room = cells(shown[place])
        if width + room > WIDTH:
            yield shown[start:place], surprise.bits[start:place]
            start, width = place, 0
        width += room
        if character == "\n":
            yield shown[start : place + 1], surprise.bits[start : place + 1]
            start, width = place + 1, 0
    if start < len(shown):
        yield shown[start:], surprise.bits[start:]


def _visible(character: str) -> str:
    if character == "\n":
        return END
    return character if character.isprintable() and cells(character) else "?"

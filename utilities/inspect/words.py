"""Figures and names as words, fitted to a line of a terminal.

Owns: units, cutting to a width, tables. Does not own what is said.
"""

import unicodedata
from collections.abc import Collection, Iterator, Sequence

from utilities.config import Config
from utilities.display import WIDTH, printable

INDENTED = WIDTH - 2  # places of a line that stands in from the edge
NO_FIGURE = "-"
GAP = "  "


def cells(text: str) -> int:
    """Return how many places of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def fitted(text: str, width: int) -> str:
    """Return the start of a text, marked where it was cut to so many places.

    What a terminal would obey is replaced.
    """
    text = printable(text)
    if cells(text) <= width:
        return text
    kept = text[:width]
    while cells(kept) > width - 1:
        kept = kept[:-1]
    return kept + "…"


def wrapped(text: str, width: int) -> Iterator[str]:
    """Yield a text in lines of so many places at most.

    What a terminal would obey is replaced.
    """
    for line in text.split("\n"):
        start, room, whole = 0, width, printable(line)
        for place, character in enumerate(whole):
            room -= cells(character)
            if room < 0:
                yield whole[start:place]
                start, room = place, width - cells(character)
        yield whole[start:]


def span(seconds: float) -> str:
    """Return a length of time in one unit: ``42 s``, ``5 min``, ``30 h``, ``3 d``."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def size(count: float) -> str:
    """Return bytes in two or three digits: ``999 B``, ``1.2 kB``, ``45 MB``."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        del units[0]
    digits = 1 if units[0] != "B" and count < 9.95 else 0
    return f"{count:.{digits}f} {units[0]}"


def shown(value: object) -> str:
    """Return a value as a configuration file or flag has it."""
    if isinstance(value, float):
        return f"{value:.15g}"
    return "null" if value is None else str(value)


def count(number: int) -> str:
    """Return a whole number in eight characters at most."""
    return str(number) if number < 10**8 else f"{number:.2e}"


def model_name(config: Config) -> str:
    """Return type and size of a model: ``rnn 1x32``."""
    return f"{config.model_type} {config.n_layers}x{config.hidden_size}"


def table(
    rows: Sequence[Sequence[str]], left: Collection[int], flexible: int
) -> Iterator[str]:
    """Yield rows below each other in lines of `WIDTH` places.

    Args:
        rows: all of one length.
        left: columns that are not numbers.
        flexible: the column that is cut to what the others leave.
    """
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    others = sum(widths) - widths[flexible] + len(GAP) * (len(widths) - 1)
    widths[flexible] = max(1, min(widths[flexible], WIDTH - others))
    for row in rows:
        line = []
        for column, (text, width) in enumerate(zip(row, widths, strict=True)):
            cell = fitted(text, width)
            space = " " * (width - cells(cell))
            line.append(cell + space if column in left else space + cell)
        yield GAP.join(line).rstrip()

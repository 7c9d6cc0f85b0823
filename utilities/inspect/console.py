"""The terminal of `python -m utilities.inspect`: what is asked for, notes, colours.

Owns: where words go, what an output can show, how one that is closed ends the program.
Does not own the words. Imported before numpy is, like `processes`.

What is asked for goes to standard output, everything else to standard error; a file or
pipe gets the same without colours, and nothing that a terminal would obey.
"""

import errno
import io
import json
import math
import os
import sys
from collections.abc import Iterable
from typing import Any

from utilities.errors import RunError

PROGRAM = "python -m utilities.inspect"
COLOURS = ("auto", "always", "never")
RESET = "\x1b[0m"


def say(line: str = "") -> None:
    """Write a line of what was asked for."""
    sys.stdout.write(f"{line}\n")


def say_json(answer: object) -> None:
    """Write an answer as one line of JSON in ASCII; what is not finite becomes null."""
    sys.stdout.write(json.dumps(_finite(answer), allow_nan=False) + "\n")


def _finite(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {key: _finite(value) for key, value in answer.items()}
    if isinstance(answer, list | tuple):
        return [_finite(value) for value in answer]
    if isinstance(answer, float) and not math.isfinite(answer):
        return None
    return answer


def note(line: str) -> None:
    """Write what is not asked for but good to know, apart from what is."""
    sys.stdout.flush()
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def stream(pieces: Iterable[str]) -> str:
    """Write a text as it comes, end its line, return the text.

    A terminal gets each piece at once, without what it would obey; a file gets the
    text as it is. Ctrl-C, too, leaves a line that is ended.
    """
    live = sys.stdout.isatty()
    text = []
    try:
        for piece in pieces:
            text.append(piece)
            sys.stdout.write(harmless(piece) if live else piece)
            if live:
                sys.stdout.flush()
    finally:
        say()
    return "".join(text)


def harmless(text: str) -> str:
    """Return text of any lines without characters that a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def can_show(characters: str) -> bool:
    """Return whether standard output has all of these characters."""
    try:
        characters.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def coloured(choice: str) -> bool:
    """Return whether to colour, for one of `COLOURS`.

    ``auto`` colours a terminal unless NO_COLOR is set or TERM is dumb; a Windows
    console only if it is one that is known to understand colours.
    """
    if choice != "auto":
        return choice == "always"
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return False
    if sys.platform == "win32":  # pragma: no cover - coverage is measured on POSIX
        return "WT_SESSION" in os.environ
    return os.environ.get("TERM", "dumb") != "dumb"


def soften() -> None:
    """Let a stream that lacks a character show or read a mark in its place."""
    for each in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(each, io.TextIOWrapper):
            each.reconfigure(errors="replace")


def output_failed(error: OSError) -> int:
    """Return the status after standard output was closed by its reader, or failed."""
    # What is still held back would fail once more, with a traceback, at the very end.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    if error.errno in (errno.EPIPE, errno.EINVAL):  # the latter is how Windows says it
        return 0
    reason = error.strerror or error
    sys.stderr.write(f"{PROGRAM}: standard output: cannot be written: {reason}\n")
    return RunError.exit_code

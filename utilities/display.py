"""What a person sees while a server or client runs: one bar, or plain lines.

A terminal gets a tqdm bar on standard error and lines above it; a file or pipe gets one
plain line every few seconds. Library modules log; this module decides where that goes.

Nothing that is shown can end a run: characters that a terminal would obey are replaced,
and where a pipe is closed or a disk full, what would have gone there is left out.
"""

import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

PLAIN_SECONDS = 5.0  # between two plain lines
BAR_SECONDS = 0.2  # between two redraws
LEAST_BAR = 6  # columns that a status leaves to the bar
WIDTH = 80  # of a line, where it is ours to choose


def bits(nats: float) -> float:
    """Return bits per character for nats per character."""
    return nats / math.log(2)


def duration(seconds: float) -> str:
    """Return a length of time in words: ``42 s``, ``3 min 5 s``, ``2 h 4 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def printable(text: str) -> str:
    """Return text of one line without characters that a terminal would obey."""
    return "".join(
        c if c.isprintable() else " " if c.isspace() else "?" for c in text.expandtabs()
    )


class Display:
    """One bar or a sequence of lines, and everything else that is said."""

    def __init__(self, *, quiet: bool, total: float | None = None) -> None:
        """Start.

        Args:
            quiet: show nothing but what is logged as a warning or error.
            total: what `status` counts up to, if it is known.
        """
        self.quiet = quiet
        self._plain = not _draws(sys.stderr)
        self._next = 0.0
        self._total = total
        self._bar: tqdm | None = None  # type: ignore[type-arg]
        _soften(sys.stdout)
        _soften(sys.stderr)
        handler = _Handler(self)
        handler.setFormatter(logging.Formatter("%(message)s"))
        root = logging.getLogger()
        root.handlers[:] = [handler]
        root.setLevel(logging.WARNING if quiet else logging.INFO)

    def start(self) -> None:
        """Show the bar from now on, where there is a terminal."""
        if self.quiet or self._plain:
            return
        shape = "{desc} |{bar}|" if self._total else "{desc}"  # what room is left
        self._bar = tqdm(
            total=self._total,
            bar_format=shape,
            mininterval=BAR_SECONDS,
            dynamic_ncols=True,
            leave=False,
        )

    @property
    def room(self) -> int:
        """Return how many characters of a status are seen."""
        if self._plain:
            return WIDTH
        return shutil.get_terminal_size().columns - LEAST_BAR

    def say(self, text: str = "") -> None:
        """Show a line for good, on standard output."""
        if not self.quiet:
            _line(text, sys.stdout)

    def warn(self, text: str) -> None:
        """Show a line for good, on standard error, quiet or not."""
        _line(text, sys.stderr)

    def status(self, text: str, done: float = 0.0) -> None:
        """Show how things stand: the bar's text, or a plain line now and then."""
        now = time.monotonic()
        if now < self._next:
            return
        if self._bar is not None:
            self._next = now + BAR_SECONDS
            _safely(lambda: self._redraw(text, done), sys.stderr)
        elif self._plain:
            self._next = now + PLAIN_SECONDS
            self.say(text)

    def hold(self, text: str) -> None:
        """Show how things stand in the bar alone: a file would fill with waiting."""
        if self._bar is not None:
            self.status(text)

    def _redraw(self, text: str, done: float) -> None:
        assert self._bar is not None
        if self._total:
            self._bar.n = min(done, self._total)
        self._bar.set_description_str(printable(text))

    def close(self) -> None:
        """Take the bar away."""
        bar, self._bar = self._bar, None
        if bar is not None:
            _safely(bar.close, sys.stderr)


class _Handler(logging.Handler):
    """Show log records above the bar."""

    def __init__(self, display: Display) -> None:
        super().__init__()
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        if record.levelno >= logging.WARNING:
            self._display.warn(self.format(record))
        else:
            self._display.say(self.format(record))


def _line(text: str, stream: TextIO) -> None:
    def write() -> None:
        tqdm.write(printable(text), file=stream)
        stream.flush()

    _safely(write, stream)


def _safely(write: Callable[[], object], stream: TextIO) -> None:
    """Write; where nobody can read it any more, be silent from then on."""
    try:
        write()
    except OSError:
        # What is still buffered would fail once more when the interpreter ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _draws(stream: TextIO) -> bool:
    """Return whether a bar is seen: a terminal that knows its size, or hides it."""
    if not stream.isatty():
        return False
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:
        return True
    # Serial lines and some containers have 0 x 0, where tqdm would draw nothing.
    return size.columns > 0 and size.lines > 0


def _soften(stream: object) -> None:
    """Let a console that lacks a character show a question mark in its place."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")

"""What is left of an error that nobody expected: a file to report, and one line.

A fault of the program is no business of whoever runs it: the traceback goes to a file,
with what is needed to understand it, and the line says where that is. What the program
raises on purpose has its own line and passes through.
"""

import contextlib
import os
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import TracebackType

import numpy as np

from utilities.errors import FaultError, TrainingError
from utilities.joincodes import masked
from utilities.setup import VERSION

KEPT = 10  # files of a folder: what starts again by itself may fail again and again
PATTERN = "crash-????????-??????-*.log"
LONGEST = 200  # characters of an error in its line


class CrashLog:
    """A context whose unexpected errors are written to a file."""

    def __init__(self, program: str, folder: Path | None, *, debug: bool) -> None:
        """Prepare; nothing is made yet.

        Args:
            program: its name.
            folder: where the file goes; None or not writable: a temporary one.
            debug: show the traceback on standard error too.
        """
        self._program = program
        self._folder = folder
        self._debug = debug

    def __enter__(self) -> None:
        """Do nothing yet."""

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Keep what is unexpected.

        Raises:
            FaultError: says where the traceback lies.
        """
        if not isinstance(error, Exception) or isinstance(error, TrainingError):
            return
        text = masked("".join(traceback.format_exception(error)))
        path = self._written(text)
        if self._debug or path is None:
            sys.stderr.write(text)
        what = f"{type(error).__name__}: {error}".rstrip(": ")[:LONGEST]
        raise FaultError(f"unexpected {what}. {_advice(path)}") from error

    def _written(self, text: str) -> Path | None:
        """Return the file that holds a traceback, where one can be written."""
        for own in (self._folder, None):
            with contextlib.suppress(OSError):
                folder = _made(own)
                path = folder / time.strftime(f"crash-%Y%m%d-%H%M%S-{os.getpid()}.log")
                content = f"{self._about()}\n{text}"
                path.write_text(content, encoding="utf-8", errors="backslashreplace")
                return path
        return None

    def _about(self) -> str:
        """Return what a reader of a traceback asks first."""
        words = masked(" ".join([self._program, *sys.argv[1:]]))
        return (
            f"{words}\nversion {VERSION}, Python {platform.python_version()}, numpy "
            f"{np.__version__}, {platform.platform()}\n"
            f"{time.strftime('%Y-%m-%d %H:%M:%S %z')}\n"
        )


def _made(folder: Path | None) -> Path:
    """Return a folder that has room for one more file; None: a temporary one.

    Raises:
        OSError: it cannot be made.
    """
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="crash-"))  # nobody else's links are there
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in sorted(folder.glob(PATTERN))[: 1 - KEPT]:
        path.unlink(missing_ok=True)
    return folder


def _advice(path: Path | None) -> str:
    """Return what to do about a fault of the program."""
    fault = "This is a fault of the program, not yours"
    if path is None:
        return f"{fault}: report it with the lines above, which no folder has taken"
    return (
        f"{fault}: report it with the file {path}, which holds the traceback and no "
        "join code (--debug shows it here)"
    )

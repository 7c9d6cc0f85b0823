"""The text that somebody names: files, folders, archives, standard input.

Owns: finding files, their order, bytes -> characters, and what is said of those that
cannot be read. Does not own what becomes of the text (`data`).
"""

import gzip
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from utilities.data import Text, normalised
from utilities.errors import DataError

STANDARD_INPUT = Path("-")
REPLACEMENT = "\ufffd"  # what is no character of the encoding
_NAMES_SHOWN = 3  # of the paths that a text was read from
_SURROGATES = re.compile("[\ud800-\udfff]")  # halves of a character, alone


@dataclass(frozen=True)
class Decoding:
    """How bytes become characters: an encoding of Python's, and what of its errors."""

    encoding: str = "utf-8"
    errors: str = "strict"  # or replace: U+FFFD


UTF_8 = Decoding()


def read_text(paths: Sequence[Path], decoding: Decoding = UTF_8) -> Text:
    """Read files and folders, each file one document, and standard input for `-`.

    Arguments count in the order given; a folder stands for all regular files below it
    (links are followed), sorted by their path relative to it, written with `/`, without
    names that start with a dot and `README.md`. A file reached twice is read once.
    Text is UTF-8 unless told otherwise, with or without BOM, decompressed first if the
    name ends in `.gz`; CRLF and lone CR become LF. Empty files are left out.

    Raises:
        DataError: A path, archive or byte cannot be read, or a place holds no text.
    """
    assert paths, "the caller names at least one path"
    files: dict[str, Path] = {}
    for path in paths:
        for file in _files_of(path):
            files.setdefault(os.path.realpath(file), file)
    read = (_read_document(file, decoding) for file in files.values())
    documents = tuple(filter(None, read))
    name = _joined_names(paths)
    if not documents:
        raise DataError(
            f"{name}: expected text, got only empty files ({len(files)});"
            " name another file or folder with --data"
        )
    return Text(name, documents)


def _joined_names(paths: Sequence[Path]) -> str:
    """Join the last parts of the paths; the first few stand for many."""
    # "." and ".." say nothing to people; "/" has no other name.
    named = [path if path.name.strip(".") else path.resolve() for path in paths]
    read = [_called(p) if p == STANDARD_INPUT else p.name or str(p) for p in named]
    names = list(dict.fromkeys(read))
    if len(names) > _NAMES_SHOWN:
        names[_NAMES_SHOWN:] = [f"{len(names) - _NAMES_SHOWN} more"]
    # A file name need not be Unicode, but config.json, where this goes, must be.
    return ", ".join(names).encode("utf-8", "replace").decode("utf-8")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the file system or an archive complains about into a DataError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: expected a whole .gz archive, got a damaged or truncated one"
            f" ({error}); copy or compress it again"
        ) from error
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: expected a readable file or folder, got:"
            f" {error.strerror}; check the path after --data and its permissions"
        ) from error


def _files_of(path: Path) -> list[Path]:
    """Return the file itself, or the files of a folder, in reading order."""
    if path == STANDARD_INPUT:
        return [path]
    with _reading(path):
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return [path]
        if not stat.S_ISDIR(mode):  # a pipe or device may have no end
            raise DataError(f"{path}: expected a file or folder, got a pipe or device")
        files = list(_walk(path, set()))
    if not files:
        raise DataError(
            f"{path}: expected a folder with texts, found no file in it (hidden files"
            " and README.md do not count); put UTF-8 texts there or name others"
        )
    return sorted(files, key=lambda file: file.relative_to(path).as_posix())


def _walk(folder: Path, visited: set[str]) -> Iterator[Path]:
    """Yield the regular files below a folder that are neither hidden nor README.md."""
    real = os.path.realpath(folder)
    if real in visited:  # through a link, perhaps back up: without this it never ends
        return
    visited.add(real)
    # Sorted, so that which of two ways to one folder counts is not up to chance.
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "README.md":
            continue
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            yield from _walk(path, visited)
        elif stat.S_ISREG(mode):  # a named pipe would block for ever
            yield path


def _called(path: Path) -> str:
    return "standard input" if path == STANDARD_INPUT else str(path)


def _read_document(path: Path, decoding: Decoding) -> str:
    """Read one file as text with LF line ends."""
    with _reading(path):
        if path == STANDARD_INPUT:
            data = sys.stdin.buffer.read()
        elif path.suffix.lower() == ".gz":
            with gzip.open(path) as file:  # decompresses piece by piece
                data = file.read()
        else:
            data = path.read_bytes()
    try:
        return normalised(_decoded(data, decoding))
    except UnicodeDecodeError as error:
        where = _bad_byte(data, error.start, decoding.encoding)
        raise DataError(f"{_called(path)}: {where}") from error
    except UnicodeError as error:  # some encodings do not say where
        raise DataError(
            f"{_called(path)}: expected {_shown(decoding.encoding)}, got: {error}; "
            "name another --encoding"
        ) from error


def _decoded(data: bytes, decoding: Decoding) -> str:
    """Return bytes as characters, none of them half a one.

    Raises:
        UnicodeError: the bytes are not of that encoding.
    """
    text = data.decode(decoding.encoding, decoding.errors)
    half = _SURROGATES.search(text)  # UTF-7 can hold such, UTF-8 cannot
    if half is None:
        return text
    if decoding.errors == "strict":
        raise UnicodeError(f"half a character, U+{ord(half[0]):04X}, without the other")
    return _SURROGATES.sub(REPLACEMENT, text)


def _shown(encoding: str) -> str:
    return "UTF-8" if encoding == "utf-8" else encoding


def _bad_byte(data: bytes, offset: int, encoding: str) -> str:
    """Say where the first byte is that is not of the encoding, and what helps."""
    before = normalised(data[:offset].decode(encoding, "replace"))
    marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    likely = "utf-16" if marked and encoding == "utf-8" else "NAME"
    return (
        f"line {1 + before.count(chr(10))}, byte offset {offset}: expected "
        f"{_shown(encoding)}, got 0x{data[offset]:02x}; name what it is with "
        f"--encoding {likely}, or read such bytes as U+FFFD with --errors replace"
    )

"""Where join codes are kept, and who can read them: nobody else.

A server keeps the secret below its runs, a client what it was told below its user's
configuration, one file for each server. Both are made with mode 0600; where others
could read one it is mended, and said. No message quotes a code.
"""

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from utilities.disk import Disk
from utilities.errors import AuthenticationError, ConfigError
from utilities.joincodes import Code, new_code, read_code

log = logging.getLogger(__name__)

ENVIRONMENT = "ES_JOIN_CODE"  # variable that server and client look into
NAME = "join-code"  # of the file below a server's runs
LONGEST = 1 << 10  # bytes of a file that holds a code
OTHERS = 0o077  # permissions of everybody but the owner


def read_file(path: Path) -> Code:
    """Return the code that a file holds, after mending who can read it.

    Raises:
        AuthenticationError: it cannot be read, or others can and that cannot be mended.
        ConfigError: it holds no code.
    """
    try:
        with path.open("rb") as file:
            _guard(path, file.fileno())
            text = file.read(LONGEST).decode("ascii", "replace")
    except OSError as error:
        raise AuthenticationError(
            f"cannot read a join code from {path}: {error.strerror}"
        ) from error
    try:
        return read_code(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _guard(path: Path, descriptor: int) -> None:
    """See to it that nobody else reads a file."""
    if os.name == "nt" or not os.fstat(descriptor).st_mode & OTHERS:
        return  # Windows: whoever may read the user's folders
    try:
        os.fchmod(descriptor, 0o600)
    except OSError as error:
        raise AuthenticationError(
            f"{path} holds a join code, others can read it, and that cannot be "
            f"mended ({error.strerror}): make it yours, chmod 600"
        ) from error
    log.warning(
        "%s could be read by others; now only its owner can. If somebody may have "
        "read the join code, end the server, delete the file and start again",
        path,
    )


def write_file(path: Path, code: Code) -> None:
    """Keep a code in a file that only its owner can read, in place of another.

    Raises:
        OSError: it cannot be written.
    """
    temporary = _written(path, code)
    temporary.replace(path)
    Disk().sync_folder(path.parent)


def _written(path: Path, code: Code) -> Path:
    """Return a file beside the path that holds the code."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    # Never readable by others, not even for a moment.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(temporary, flags, 0o600), "w", encoding="ascii") as file:
        file.write(code.shown() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return temporary


def server_code(path: Path) -> Code:
    """Return the code in a server's file; the first time it is made.

    Raises:
        AuthenticationError: the file cannot be read or made.
        ConfigError: it holds no code.
    """
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = _written(path, new_code())
            try:
                # Unlike a rename, a link never replaces what another server has made.
                os.link(temporary, path)
            except FileExistsError:
                pass
            except OSError:  # no links on this file system
                temporary.replace(path)
            temporary.unlink(missing_ok=True)
            Disk().sync_folder(path.parent)
        except OSError as error:
            raise AuthenticationError(
                f"cannot keep a join code in {path}: {error.strerror}; "
                "--tokenFile names another file"
            ) from error
    return read_file(path)


def from_environment(environment: Mapping[str, str]) -> Code | None:
    """Return the code of the environment variable, if it is set.

    Raises:
        ConfigError: it holds no code.
    """
    text = environment.get(ENVIRONMENT, "")
    if not text:
        return None
    try:
        return read_code(text)
    except ConfigError as error:
        raise ConfigError(f"{ENVIRONMENT}: {error}") from error


# What a client keeps.


def kept_file(folder: Path, address: str) -> Path:
    """Return the file that keeps the code of a server, HOST:PORT."""
    return folder / f"code-{quote(address.lower(), safe='')}"


def kept_code(folder: Path | None, address: str) -> Code | None:
    """Return the code that was kept for a server, if any; None: nowhere.

    Raises:
        AuthenticationError: others can read it, and that cannot be mended.
        ConfigError: the file holds no code.
    """
    path = kept_file(folder, address) if folder else None
    return read_file(path) if path and path.exists() else None


def keep_code(folder: Path | None, address: str, code: Code) -> None:
    """Keep the code of a server; without a place for it, it is asked for again."""
    if folder is None:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file(kept_file(folder, address), code)

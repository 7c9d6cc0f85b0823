"""The server that this machine has reached last, for a client that is told none.

A comfort, no more: it lies in the user's folder of settings, one file for each machine
that shares it. Where that cannot be written or read, there simply is no last server.
"""

import contextlib
from pathlib import Path
from urllib.parse import quote

from utilities.addresses import parse_address, place
from utilities.disk import DISK, Disk
from utilities.errors import NetworkError

LONGEST = 1 << 10  # bytes that are read


def server_file(folder: Path, machine: str) -> Path:
    """Return the file of a machine; no folder of an identity has such a name."""
    return folder / f"server@{quote(machine, safe='', errors='replace')[:200]}"


def last_server(folder: Path | None, machine: str) -> str | None:
    """Return HOST:PORT of the server that was reached last; None: not known."""
    if folder is None:
        return None
    with contextlib.suppress(OSError, NetworkError):
        with server_file(folder, machine).open("rb") as file:
            text = file.read(LONGEST).decode("utf-8", "replace")
        return place(*parse_address(text.strip()))
    return None


def last_words(address: str) -> str:
    """Return what a client says of an address that nobody has named."""
    return f"No server is named: taking {address}, the last one that was reached."


def keep_server(
    folder: Path | None, machine: str, address: str, disk: Disk = DISK
) -> None:
    """Remember a server that was reached.

    Args:
        folder: of settings; None: nobody's home is known.
        machine: the name of this one.
        address: of the server, HOST:PORT.
        disk: takes what is written.
    """
    if folder is None or last_server(folder, machine) == address:
        return
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk.replace(server_file(folder, machine), f"{address}\n".encode())

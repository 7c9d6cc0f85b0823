"""Addresses as people write them: ``HOST``, ``HOST:PORT``, ``[V6]:PORT``. No sockets.

Owns their spelling and which of them mean this machine; whether anybody is there is up
to `communication`.
"""

import ipaddress
import re

from utilities.errors import NetworkError

DEFAULT_PORT = 55551
PAGE_PORT = 55580  # of the live page
LOCALHOST = "127.0.0.1"
ALL = "*"  # every address of this machine, of either kind
# To listen on all: what is dialled instead.
ANY = {"": LOCALHOST, ALL: LOCALHOST, "0.0.0.0": LOCALHOST, "::": "::1"}

_V6 = r"[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*(?:%[^]\s]+)?"
_ADDRESS = re.compile(
    rf"(?P<bare>{_V6})"
    rf"|(?:\[(?P<v6>{_V6})\]|(?P<host>[^][:/@\s]+))(?::(?P<port>[0-9]{{1,5}}))?"
)


def parse_address(text: str, port: int = DEFAULT_PORT) -> tuple[str, int]:
    """Return host and port of ``HOST``, ``HOST:PORT``, ``V6`` or ``[V6]:PORT``.

    Raises:
        NetworkError: it is none of these, or the port is not from 1 to 65535.
    """
    if text.isdecimal():  # some resolvers would make an address of it
        raise NetworkError(
            f"expected HOST or HOST:PORT, got the number {text} alone; a server on "
            f"this machine is 127.0.0.1:{text}"
        )
    match = _ADDRESS.fullmatch(text)
    number = int(match["port"] or port) if match else 0
    if match is None or not 1 <= number <= 65535:
        raise NetworkError(
            f"expected HOST or HOST:PORT with a port from 1 to 65535, got {text}"
        )
    return match["bare"] or match["v6"] or match["host"], number


def place(host: str, port: int) -> str:
    """Return host and port as one writes them: ``HOST:PORT`` or ``[V6]:PORT``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def dialable(host: str) -> str:
    """Return the address at which this machine reaches a server that listens there."""
    return ANY.get(host, host)


def only_here(host: str) -> bool:
    """Return whether nobody but this machine reaches a server that listens there."""
    return host in ("localhost", "::1") or host.startswith("127.")


def plain(host: str) -> str:
    """Return an address of IPv4 as such, where IPv6 listens for both."""
    return host.removeprefix("::ffff:") if "." in host else host


def origin(host: str) -> str:
    """Return what connections of one machine have in common.

    One machine may have all of the 2**64 addresses of its network of IPv6.
    """
    if ":" not in host:
        return host
    groups = ipaddress.IPv6Address(host.partition("%")[0]).exploded.split(":")
    return ":".join(groups[:4])


def public(host: str) -> bool:
    """Return whether an address is one of the internet; a name never is."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_global
    except ValueError:
        return False

"""Names and routes: sockets that carry nothing, to find out who is where.

Beside `communication` the only module that talks to sockets. Nothing is sent: names are
looked up, and connecting a datagram socket only looks up a route.
"""

import contextlib
import socket
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

ELSEWHERE = (  # for documentation only: nobody is there, but routes lead there
    (socket.AF_INET, "192.0.2.1"),
    (socket.AF_INET6, "2001:db8::1"),
)
SIOCGIFADDR = 0x8915  # Linux: the address of an interface
V6_INTERFACES = Path("/proc/net/if_inet6")
# Interfaces that lead to machines inside this one: named last.
INSIDE = ("docker", "br-", "virbr", "veth", "lxc", "lxd", "podman", "cni")


def resolved(host: str) -> list[str]:
    """Return the addresses of a name, the system's first choice first.

    Raises:
        OSError: nobody knows the name.
        UnicodeError: it cannot be one.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def own_address(towards: str) -> str:
    """Return the address that this machine has on the way to another one.

    Raises:
        OSError: no route leads there.
    """
    family = socket.AF_INET6 if ":" in towards else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((towards, 9))
        return str(probe.getsockname()[0])


def addresses() -> list[str]:
    """Return addresses at which others may reach this machine, likeliest first."""
    found: list[str] = []
    for _, far in ELSEWHERE:
        with contextlib.suppress(OSError):
            found.append(own_address(far))
    found += _of_interfaces()
    with contextlib.suppress(OSError, UnicodeError):
        found += resolved(socket.gethostname())
    return reachable(found)


def reachable(found: Iterable[str]) -> list[str]:
    """Return addresses once each, without those that mean something else elsewhere."""
    return [a for a in dict.fromkeys(found) if not _only_near(a)]


def _only_near(address: str) -> bool:
    # Loopback, link-local (which need the interface's name), none at all.
    return address.startswith(("127.", "169.254.", "0.", "fe80:")) or address in (
        "::1",
        "::",
    )


def _of_interfaces() -> list[str]:
    """Return the addresses of all interfaces, where the system lists them (Linux)."""
    if sys.platform != "linux":
        return []
    names = [name for _, name in socket.if_nameindex()]
    found = [(name, a) for name in names if (a := _v4_of(name)) is not None]
    with contextlib.suppress(OSError):
        found += parse_if_inet6(V6_INTERFACES.read_text("ascii"))
    return [a for _, a in sorted(found, key=lambda each: each[0].startswith(INSIDE))]


def _v4_of(name: str) -> str | None:
    import fcntl  # not everywhere

    request = struct.pack("256s", name.encode("utf-8")[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
        except OSError:  # it has none
            return None
    return socket.inet_ntoa(answer[20:24])


def parse_if_inet6(table: str) -> list[tuple[str, str]]:
    """Return interface and address of each line of Linux' table."""
    lines = [line.split() for line in table.splitlines()]
    return [
        (line[5], socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line[0])))
        for line in lines
        if len(line) == 6
    ]

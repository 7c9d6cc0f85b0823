"""Why an address cannot be used: each usual cause in a sentence, with the way out."""

import errno
import re
import sys

# What Windows calls them; `errno` has other numbers there.
WINDOWS_RESERVED, WINDOWS_TAKEN = 10013, 10048
WINDOWS_NO_NETWORK, WINDOWS_NO_HOST = 10051, 10065
FLAGS = ("--host", "--port")  # where to listen, unless other options say it


def because(error: OSError) -> str:
    """Return what the system says of an error."""
    words = error.strerror or str(error) or "connection broken"
    words = words.partition(" (while ")[0]  # what create_server adds, we say ourselves
    return re.sub(r"^\[\w+(: \w+)?\] | \(_ssl\.c:\d+\)$", "", words)


def cannot_listen(
    address: str, error: OSError | UnicodeError, flags: tuple[str, str] = FLAGS
) -> str:
    """Return why nobody can listen on an address.

    Args:
        address: HOST:PORT.
        error: that listening ended with.
        flags: options with which another host and another port are chosen.
    """
    host, port = flags
    where = f"cannot listen on {address}"
    if isinstance(error, UnicodeError):
        return f"{where}: not a name; {host} takes an address of this machine"
    if WINDOWS_RESERVED in (error.errno, getattr(error, "winerror", None)):
        return (
            f"{where}: Windows has reserved the port, often for Hyper-V or WSL ("
            "netsh interface ipv4 show excludedportrange protocol=tcp lists them); "
            f"choose another with {port} (0: any free one)"
        )
    if error.errno == errno.EACCES:
        return (
            f"{where}: ports below 1024 are for administrators; "
            f"choose another with {port} (0: any free one)"
        )
    if error.errno in (errno.EADDRINUSE, WINDOWS_TAKEN):
        return (
            f"{where}: the port is taken or reserved; "
            f"end the other program or choose another with {port} (0: any free one)"
        )
    return f"{where}: {because(error)}; {host} takes an address of this machine"


def no_server(address: str, said: str) -> str:
    """Return that something else than our server answers.

    Args:
        address: HOST:PORT.
        said: what was wrong with its answer.
    """
    return (
        f"{address} does not answer as basicServer.py of this version does ({said}): "
        "check the port, and run the same version on both machines"
    )


def cannot_connect(
    address: str, error: OSError | UnicodeError, *, unknown: bool, waited: float
) -> str:
    """Return why a server cannot be reached.

    Args:
        address: of the server, HOST:PORT.
        error: that connecting ended with.
        unknown: nobody knows a machine of that name.
        waited: seconds at most.
    """
    where = f"cannot reach {address}"
    if unknown or isinstance(error, UnicodeError):
        return f"{where}: the name is not known; check it or use the server's address"
    if isinstance(error, ConnectionRefusedError):
        if address.startswith(("127.", "localhost:", "[::1]:")):
            return (
                f"{where}: nothing listens there; is the server running on this "
                "machine, with this port? If it runs on another one, name that: "
                "basicClient.py HOST"
            )
        return (
            f"{where}: the machine answers but nothing listens there; is the server "
            "running, with this port and a --host other than 127.0.0.1?"
        )
    if isinstance(error, TimeoutError):
        return (
            f"{where}: no answer within {waited:g} s; "
            "wrong address, another network, or a firewall"
        )
    number = getattr(error, "winerror", None) or error.errno
    if number in (errno.ENETUNREACH, WINDOWS_NO_NETWORK):
        return (
            f"{where}: no network of this machine leads there; "
            "is it connected (cable, Wi-Fi, VPN), and is the address right?"
        )
    if number in (errno.EACCES, errno.EPERM, WINDOWS_RESERVED):
        return f"{where}: this machine's own firewall or policy forbids it"
    if sys.platform == "darwin" and number == errno.EHOSTUNREACH:
        return (
            f"{where}: macOS blocks it; allow this terminal under System Settings, "
            "Privacy & Security, Local Network"
        )
    if number in (errno.EHOSTUNREACH, WINDOWS_NO_HOST):
        return (
            f"{where}: no machine of its network answers to this address; "
            "is it on, and is the address right?"
        )
    return f"{where}: {because(error)}"


def no_proof(reason: str) -> str:
    """Return why nothing came of a connection before its ends had proved themselves."""
    return (
        f"the server did not prove that it has the join code: {reason}; is it "
        "this program, and is its code one for TLS (60 characters) where it uses that?"
    )

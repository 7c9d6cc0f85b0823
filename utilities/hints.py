"""What usually keeps clients from a server, with the exact command for each system.

Owns the words and commands. Which system and which firewall there are is found out in
`firewalls`; everything else is text. Sockets and sentences about errors are elsewhere.
"""

from collections.abc import Collection
from pathlib import Path

from utilities.addresses import only_here

UFW_CONFIG = Path("/etc/ufw/ufw.conf")  # everybody may read it
FIREWALLD_RUNS = (Path("/run/firewalld.pid"), Path("/var/run/firewalld.pid"))
UFW, FIREWALLD = "ufw", "firewalld"
RULE = "basicServer"
MACOS_FIREWALL = "/usr/libexec/ApplicationFirewall/socketfilterfw"


def firewalls(
    ufw: Path = UFW_CONFIG, firewalld: Collection[Path] = FIREWALLD_RUNS
) -> set[str]:
    """Return the firewalls of Linux that are on, as far as anybody may know."""
    found = set()
    try:
        lines = ufw.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    if any(line.replace(" ", "").lower() == "enabled=yes" for line in lines):
        found.add(UFW)
    if any(path.exists() for path in firewalld):
        found.add(FIREWALLD)
    return found


def open_port(platform: str, port: int, python: str, found: Collection[str]) -> str:
    """Return how the firewall of a server's machine lets clients in: a few lines.

    Args:
        platform: as `sys.platform` has it.
        port: that the server listens on.
        python: path of the interpreter that runs it.
        found: firewalls of Linux, see `firewalls`.
    """
    if platform == "win32":
        return _windows(port)
    if platform == "darwin":
        return _macos(python)
    return _linux(port, found)


def _windows(port: int) -> str:
    return (
        "Windows' firewall. In a terminal of an administrator (the network should be\n"
        "a private one, not a public one):\n"
        f'  netsh advfirewall firewall add rule name="{RULE}" dir=in action=allow '
        f"protocol=TCP localport={port} profile=private\n"
        "or in PowerShell:\n"
        f"  New-NetFirewallRule -DisplayName {RULE} -Direction Inbound -Action Allow "
        f"-Protocol TCP -LocalPort {port} -Profile Private"
    )


def _macos(python: str) -> str:
    return (
        "macOS' firewall, if it is on (System Settings, Network, Firewall):\n"
        f'  sudo {MACOS_FIREWALL} --add "{python}"\n'
        f'  sudo {MACOS_FIREWALL} --unblockapp "{python}"'
    )


def _linux(port: int, found: Collection[str]) -> str:
    commands = {
        UFW: f"  sudo ufw allow {port}/tcp",
        FIREWALLD: f"  sudo firewall-cmd --add-port={port}/tcp    "
        "(until it restarts; --permanent as well: for good)",
    }
    lines = [command for name, command in commands.items() if name in found]
    if lines:
        names = " and ".join(name for name in commands if name in found)
        return "\n".join([f"this machine's firewall, {names}:", *lines])
    return (
        "a firewall here or on the way; neither ufw nor firewalld is on here. What\n"
        "rules there are:\n"
        "  sudo nft list ruleset"
    )


def nobody_came(
    host: str, client_line: str, doctor_line: str, firewall: str
) -> list[str]:
    """Return the usual reasons why no client has come, as lines.

    Args:
        host: that the server listens on.
        client_line: a command that starts a client.
        doctor_line: one that checks the way to the server.
        firewall: from `open_port`.
    """
    if only_here(host):
        return [
            "Nobody has come for a minute. This server is for this machine only:",
            f"others cannot reach {host}; --host chooses another address. To have",
            "clients here start it with --localClients 2, or in another terminal:",
            f"  {client_line}",
        ]
    first, *rest = firewall.splitlines()
    return [
        "Nobody has come for a minute. The usual reasons:",
        "1. No client was started, or with another address. On another machine:",
        f"  {client_line}",
        f"2. {first[0].upper()}{first[1:]}",
        *rest,
        "3. Another network: a guest or campus network may keep machines apart.",
        "What it is, is found out there by:",
        f"  {doctor_line}",
    ]


def on_the_way(port: int) -> list[str]:
    """Return how each system lets clients in, for who sees only the client's side.

    What begins with two spaces is a command.
    """
    return [
        "on Linux with ufw, and with firewalld:",
        f"  sudo ufw allow {port}/tcp",
        f"  sudo firewall-cmd --add-port={port}/tcp",
        "on Windows, as administrator:",
        f'  netsh advfirewall firewall add rule name="{RULE}" dir=in action=allow '
        f"protocol=TCP localport={port} profile=private",
        "on macOS: System Settings, Network, Firewall: allow Python; for the client: "
        "Privacy & Security, Local Network: allow this terminal",
    ]

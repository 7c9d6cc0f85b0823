"""What a program takes from its machine and asks of it: priority, mains, a folder.

Each of these has a way of its own on Linux, macOS and Windows; they stand side by side.
What cannot be found out is None, never a guess. Imported before numpy is.
"""

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FOLDER = "basicClient"  # of this program, where a system keeps settings
POWER_SUPPLIES = Path("/sys/class/power_supply")
AUTOGROUP = Path("/proc/self/autogroup")
COMMAND_SECONDS = 5.0  # that a command of the system may take
MOST_NICE = 19
BELOW_NORMAL, IDLE = 0x4000, 0x40  # priority classes of Windows
IDLE_FROM = 15  # niceness that is idle on Windows
ON_MAINS, ON_BATTERY = 1, 0  # as Windows tells it


# Priority.


def be_nice(level: int) -> bool:
    """Give way to other programs; children do too. Return whether the system agreed.

    Args:
        level: 0, the system's own choice, to 19. A program that was started with a
            higher one keeps that.
    """
    if not level:
        return True
    if sys.platform == "win32":
        return _lower_class(IDLE if level >= IDLE_FROM else BELOW_NORMAL)
    try:
        now = os.getpriority(os.PRIO_PROCESS, 0)
        os.nice(max(0, min(level, MOST_NICE) - now))
    except OSError:
        return False
    _lower_session(level)
    return True


def _lower_class(priority: int) -> bool:
    # Children of a process of these two classes begin in the same class.
    kernel = _windows().kernel32
    kernel.GetCurrentProcess.restype = ctypes.c_void_p  # a handle: 64 bits
    kernel.SetPriorityClass.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    return bool(kernel.SetPriorityClass(kernel.GetCurrentProcess(), priority))


def _lower_session(level: int) -> None:
    """Lower a session of our own too.

    Where Linux shares processor time out among sessions first, niceness counts within
    each of them only. Somebody's terminal is left as it is.
    """
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            AUTOGROUP.write_text(f"{min(level, MOST_NICE)}\n", encoding="ascii")


def _windows() -> Any:
    """Return Windows' own functions; elsewhere there are none."""
    return ctypes.windll  # type: ignore[attr-defined,unused-ignore]


# Mains.


def on_battery(platform: str = sys.platform) -> bool | None:
    """Return whether the machine runs on battery; None: it does not tell.

    Args:
        platform: as `sys.platform` has it.
    """
    if platform == "win32":
        return _windows_battery()
    if platform == "darwin":
        return pmset_battery(output_of(["pmset", "-g", "batt"]))
    return linux_battery(POWER_SUPPLIES)


def linux_battery(folder: Path) -> bool | None:
    """Return the same from Linux' folder of power supplies."""
    try:
        supplies = [_supply(path) for path in sorted(folder.iterdir())]
    except OSError:
        return None
    # A mouse has a battery as well: its scope is a device.
    own = [s for s in supplies if s.get("scope") != "Device"]
    if any(s.get("online") == "1" for s in own if s.get("type") != "Battery"):
        return False
    return any(
        s.get("type") == "Battery" and s.get("status") == "Discharging" for s in own
    )


def _supply(path: Path) -> dict[str, str]:
    found = {}
    for name in ("type", "scope", "online", "status"):
        with contextlib.suppress(OSError):
            found[name] = (path / name).read_text("utf-8", "replace").strip()
    return found


def pmset_battery(output: str | None) -> bool | None:
    """Return the same from what macOS' pmset says first."""
    if output is None or "drawing from" not in output:
        return None
    return "'Battery Power'" in output.splitlines()[0]


class _PowerStatus(ctypes.Structure):
    """What GetSystemPowerStatus fills in."""

    _fields_ = (
        ("line", ctypes.c_ubyte),
        ("battery", ctypes.c_ubyte),
        ("percent", ctypes.c_ubyte),
        ("saver", ctypes.c_ubyte),
        ("seconds", ctypes.c_uint32),
        ("full_seconds", ctypes.c_uint32),
    )


def _windows_battery() -> bool | None:
    status = _PowerStatus()
    if not _windows().kernel32.GetSystemPowerStatus(ctypes.byref(status)):
        return None
    return {ON_MAINS: False, ON_BATTERY: True}.get(int(status.line))


class Rarely:
    """Asks for something that takes time to find out only now and then."""

    def __init__(
        self, ask: Callable[[], bool | None], seconds: float, clock: Callable[[], float]
    ) -> None:
        """Ask at most once in that many seconds."""
        self._ask = ask
        self._seconds = seconds
        self._clock = clock
        self._next: float | None = None
        self._answer: bool | None = None

    def __call__(self) -> bool | None:
        """Return the newest answer."""
        now = self._clock()
        if self._next is None or now >= self._next:
            self._answer, self._next = self._ask(), now + self._seconds
        return self._answer


def output_of(command: list[str]) -> str | None:
    """Return what a command of the system prints; None where that fails."""
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return ended.stdout.decode("utf-8", "replace")


# A folder.


def config_folder(
    platform: str = sys.platform, environment: Mapping[str, str] | None = None
) -> Path | None:
    """Return where this program keeps what outlives it; None: nobody's home is known.

    Args:
        platform: as `sys.platform` has it.
        environment: default: that of this process.
    """
    known = os.environ if environment is None else environment
    if platform == "win32":
        return _below(known.get("APPDATA"))
    home = known.get("HOME")
    if platform == "darwin":
        return _below(home, "Library", "Application Support")
    # A relative path there is to be ignored, says the specification.
    given = known.get("XDG_CONFIG_HOME", "")
    return _below(given) if given.startswith("/") else _below(home, ".config")


def _below(folder: str | None, *names: str) -> Path | None:
    return Path(folder, *names, FOLDER) if folder else None

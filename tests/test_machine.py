"""Priority, mains and folders: here for real, and as other systems would have them."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from utilities import machine
from utilities.machine import (
    BELOW_NORMAL,
    IDLE,
    Rarely,
    be_nice,
    config_folder,
    linux_battery,
    on_battery,
    output_of,
    pmset_battery,
)

ROOT = Path(__file__).parents[1]


# Priority.


def niceness(code: str, **settings: Any) -> list[str]:
    """Return what a fresh process prints after making itself nice."""
    ended = subprocess.run(
        [sys.executable, "-c", f"import os, subprocess, sys\n{code}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=30,
        encoding="ascii",
        **settings,
    )
    output: str = ended.stdout
    return output.split()


@pytest.mark.skipif(not hasattr(os, "nice"), reason="POSIX only")
def test_who_is_nice_is_so_with_all_children_and_never_less_than_before() -> None:
    child = "[sys.executable, '-c', 'import os; print(os.nice(0))']"
    code = (
        "from utilities.machine import be_nice\n"
        "before = os.nice(0)\n"
        "for level in (0, 7, 3, 99):\n"
        "    print(be_nice(level), os.nice(0), flush=True)\n"
        f"subprocess.run({child}, check=True)\n"
    )
    before = os.nice(0)

    assert niceness(code) == [
        *("True", str(before), "True", str(max(before, 7))),
        *("True", str(max(before, 7)), "True", "19", "19"),
    ]


@pytest.mark.skipif(not machine.AUTOGROUP.exists(), reason="Linux with autogroups only")
@pytest.mark.parametrize("own", [True, False])
def test_a_session_of_its_own_is_nice_as_a_whole(own: bool) -> None:
    code = (
        "from utilities.machine import AUTOGROUP, be_nice\n"
        "before = AUTOGROUP.read_text().split() or ['none']\n"
        "be_nice(7)\n"
        "print(before[-1], (AUTOGROUP.read_text().split() or before)[-1])\n"
    )
    before, after = niceness(code, start_new_session=own)
    if before == "none":
        pytest.skip("the system schedules this process by control groups alone")

    assert after == ("7" if own else before)


def test_only_a_session_of_our_own_is_lowered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(machine, "AUTOGROUP", tmp_path / "autogroup")
    monkeypatch.setattr(os, "getpriority", lambda which, who: 4)
    monkeypatch.setattr(os, "nice", steps.append)
    monkeypatch.setattr(os, "getsid", lambda pid: 0)
    assert be_nice(9)
    assert not machine.AUTOGROUP.exists()
    monkeypatch.setattr(os, "getsid", lambda pid: os.getpid())
    assert be_nice(3)
    assert machine.AUTOGROUP.read_text("ascii") == "3\n"
    assert steps == [5, 0]


def test_a_system_that_does_not_allow_it_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: int) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "nice", refuse)

    assert not be_nice(5)


class Kernel:
    """Stands for kernel32.dll."""

    def __init__(self, line: int | None = None) -> None:
        self.priority = 0
        self.GetCurrentProcess = Function(lambda: -1)
        self.SetPriorityClass = Function(self._set)
        self.GetSystemPowerStatus = Function(self._tell)
        self._line = line

    def _set(self, handle: int, priority: int) -> int:
        self.priority = priority
        return int(handle == -1)

    def _tell(self, status: Any) -> int:
        if self._line is None:
            return 0
        ctypes.cast(status, ctypes.POINTER(ctypes.c_ubyte))[0] = self._line
        return 1


class Function:
    """A function that can be given types, like those of ctypes."""

    restype: object = None
    argtypes: object = ()

    def __init__(self, work: Any) -> None:
        self._work = work

    def __call__(self, *arguments: Any) -> Any:
        return self._work(*arguments)


def windows(monkeypatch: pytest.MonkeyPatch, line: int | None = None) -> Kernel:
    kernel = Kernel(line)
    fake = SimpleNamespace(kernel32=kernel)
    monkeypatch.setattr(ctypes, "windll", fake, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    return kernel


@pytest.mark.parametrize(
    ("level", "priority"), [(0, 0), (1, BELOW_NORMAL), (14, BELOW_NORMAL), (15, IDLE)]
)
def test_on_windows_a_lower_class_is_asked_for(
    level: int, priority: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = windows(monkeypatch)

    assert be_nice(level)
    assert kernel.priority == priority


# Mains.


def supply(folder: Path, name: str, **content: str) -> None:
    (folder / name).mkdir(parents=True)
    for key, value in content.items():
        (folder / name / key).write_text(f"{value}\n", encoding="ascii")


DISCHARGING = {"type": "Battery", "status": "Discharging"}
MOUSE = {**DISCHARGING, "scope": "Device"}


@pytest.mark.parametrize(
    ("supplies", "battery"),
    [
        ({}, False),
        ({"AC": {"type": "Mains", "online": "1"}}, False),
        ({"BAT0": DISCHARGING}, True),
        ({"BAT0": DISCHARGING, "AC": {"type": "Mains", "online": "0"}}, True),
        # A charger that is too weak: mains all the same.
        ({"BAT0": DISCHARGING, "AC": {"type": "Mains", "online": "1"}}, False),
        ({"BAT0": DISCHARGING, "ucsi": {"type": "USB", "online": "1"}}, False),
        ({"BAT0": {"type": "Battery", "status": "Full"}}, False),
        ({"BAT0": {"type": "Battery", "status": "Charging"}, "BAT1": MOUSE}, False),
        ({"mouse": MOUSE}, False),
        ({"odd": {}}, False),
    ],
)
def test_linux_tells_by_its_power_supplies(
    tmp_path: Path, supplies: dict[str, dict[str, str]], battery: bool
) -> None:
    for name, content in supplies.items():
        supply(tmp_path, name, **content)

    assert linux_battery(tmp_path) is battery


def test_linux_without_that_folder_does_not_tell(tmp_path: Path) -> None:
    assert linux_battery(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    ("output", "battery"),
    [
        (
            "Now drawing from 'AC Power'\n -InternalBattery-0\t100%",
            False,
        ),
        (
            "Now drawing from 'Battery Power'\n -InternalBattery-0\t98%",
            True,
        ),
        ("Now drawing from 'UPS Power'\n", False),
        ("", None),
        ("odd", None),
        (None, None),
    ],
)
def test_macos_tells_by_pmset(output: str | None, battery: bool | None) -> None:
    assert pmset_battery(output) is battery


@pytest.mark.parametrize(
    ("line", "battery"), [(0, True), (1, False), (255, None), (None, None)]
)
def test_windows_tells_by_its_power_status(
    line: int | None, battery: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows(monkeypatch, line)

    assert on_battery("win32") is battery


def test_each_system_is_asked_in_its_own_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[str]] = []

    def output(command: list[str]) -> str:
        asked.append(command)
        return "Now drawing from 'Battery Power'"

    monkeypatch.setattr(machine, "output_of", output)
    monkeypatch.setattr(machine, "POWER_SUPPLIES", tmp_path)
    supply(tmp_path, "BAT0", **DISCHARGING)

    assert on_battery("darwin")
    assert asked == [["pmset", "-g", "batt"]]
    assert on_battery("linux")


def test_what_takes_time_is_asked_rarely() -> None:
    moments, answers = [0.0], iter([True, False, None])
    rarely = Rarely(lambda: next(answers), 10.0, lambda: moments[-1])
    told = []
    for moment in (0.0, 9.9, 10.0, 19.9, 20.0):
        moments.append(moment)
        told.append(rarely())

    assert told == [True, True, False, False, None]


def test_a_command_gives_its_output_or_nothing() -> None:
    assert output_of([sys.executable, "-c", "print('ä')"]) is not None
    assert output_of([sys.executable, "-c", "print(1); exit(1)"]) is None
    assert output_of(["no-such-command-anywhere"]) is None


# A folder.


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {"HOME": "/home/ann"}, "/home/ann/.config/basicClient"),
        ("linux", {"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/x/basicClient"),
        ("linux", {"HOME": "/h", "XDG_CONFIG_HOME": "x"}, "/h/.config/basicClient"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Application Support/basicClient"),
        ("win32", {"APPDATA": "/roaming", "HOME": "/h"}, "/roaming/basicClient"),
        *[(platform, {}, None) for platform in ("linux", "darwin", "win32")],
    ],
)
def test_each_system_has_its_place_for_settings(
    platform: str, environment: dict[str, str], folder: str | None
) -> None:
    expected = None if folder is None else Path(folder)

    assert config_folder(platform, environment) == expected


def test_the_place_is_that_of_this_process_by_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    assert config_folder("linux") == tmp_path / "basicClient"

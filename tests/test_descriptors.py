"""How many connections are asked of the system, on systems that differ."""

import sys
from dataclasses import dataclass

import pytest

from utilities.descriptors import MACOS_MOST, WANTED, WINDOWS_MOST, descriptors

resource = pytest.importorskip("resource")
INFINITY = resource.RLIM_INFINITY


@dataclass
class System:
    """A system with limits of its own."""

    soft: int
    hard: int
    refuses_above: int = 1 << 30

    def getrlimit(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.soft, self.hard

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        soft, hard = limits
        assert hard == self.hard, "the second limit cannot be raised again"
        assert soft > self.soft, "nothing is given back"
        if soft > self.refuses_above:
            raise ValueError("current limit exceeds maximum limit")
        self.soft = soft


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (System(1024, 4096), 4096),
        (System(1024, 1 << 30), WANTED),
        (System(1024, INFINITY), WANTED),
        (System(4096, 4096), 4096),
        (System(20_000, 20_000), 20_000),
        (System(INFINITY, INFINITY), WANTED),
        (System(256, INFINITY, refuses_above=MACOS_MOST), MACOS_MOST),
        (System(256, INFINITY, refuses_above=300), 256),
        (System(12_000, INFINITY, refuses_above=MACOS_MOST), 12_000),
    ],
    ids=str,
)
def test_a_process_asks_for_as_many_descriptors_as_are_of_use(
    system: System, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(resource, "getrlimit", system.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", system.setrlimit)

    assert descriptors() == expected
    assert system.soft == expected or system.soft == INFINITY


def test_windows_looks_at_so_many_connections_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    assert descriptors() == WINDOWS_MOST

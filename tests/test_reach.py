"""Where this machine is reached; loopback only, and tables of other machines."""

import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from utilities import reach
from utilities.reach import addresses, own_address, parse_if_inet6, reachable, resolved

TABLE = """\
00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000007 02 40 00 80     eth0
fe80000000000000020000fffe000001 02 40 20 80     eth0
"""


def test_a_name_has_addresses_and_an_address_is_its_own() -> None:
    assert "127.0.0.1" in resolved("localhost")
    assert resolved("127.0.0.1") == ["127.0.0.1"]
    with pytest.raises((OSError, UnicodeError)):
        resolved("no..name")


def test_the_own_address_depends_on_the_way() -> None:
    assert own_address("127.0.0.1") == "127.0.0.1"


def test_each_address_is_named_once_and_none_that_means_something_else_elsewhere() -> (
    None
):
    found = ["10.0.0.1", "127.0.1.1", "::1", "fe80::1", "10.0.0.1", "169.254.1.1", "::"]

    assert reachable([*found, "2001:db8::7"]) == ["10.0.0.1", "2001:db8::7"]


def test_the_table_of_linux_is_read() -> None:
    assert parse_if_inet6(TABLE + "\nodd line\n") == [
        ("lo", "::1"),
        ("eth0", "2001:db8::7"),
        ("eth0", "fe80::200:ff:fe00:1"),
    ]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Replace what the system tells."""

    def nowhere(_: str) -> str:
        raise OSError

    table = tmp_path / "if_inet6"
    table.write_text(TABLE, encoding="ascii")
    monkeypatch.setattr(reach, "own_address", nowhere)
    monkeypatch.setattr(reach, "resolved", nowhere)
    monkeypatch.setattr(reach, "V6_INTERFACES", table)
    return monkeypatch


def test_addresses_inside_this_machine_are_named_last(
    machine: pytest.MonkeyPatch,
) -> None:
    known = {
        "docker0": "172.17.0.1",
        "eth0": "10.0.0.1",
        "lo": "127.0.0.1",
        "tun": None,
    }
    machine.setattr(sys, "platform", "linux")
    machine.setattr(socket, "if_nameindex", lambda: list(enumerate(known)))
    machine.setattr(reach, "_v4_of", known.get)

    assert addresses() == ["10.0.0.1", "2001:db8::7", "172.17.0.1"]


def test_the_address_on_the_way_out_is_the_likeliest(
    machine: pytest.MonkeyPatch,
) -> None:
    ways = {"192.0.2.1": "10.0.0.9", "2001:db8::1": "2001:db8::9"}
    machine.setattr(sys, "platform", "darwin")
    machine.setattr(reach, "own_address", ways.__getitem__)
    machine.setattr(reach, "resolved", lambda name: ["10.0.0.8", "10.0.0.9"])

    assert addresses() == ["10.0.0.9", "2001:db8::9", "10.0.0.8"]


def test_a_system_without_such_a_table_is_no_obstacle(
    machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine.setattr(reach, "V6_INTERFACES", tmp_path / "nothing")
    machine.setattr(sys, "platform", "linux")
    machine.setattr(socket, "if_nameindex", list)

    assert addresses() == []


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells in its own way")
def test_interfaces_are_asked_for_their_address() -> None:
    assert reach._v4_of("lo") in ("127.0.0.1", None)
    assert reach._v4_of("no-such-one") is None


def test_all_own_addresses_are_others_addresses() -> None:
    found: list[Any] = addresses()

    assert found == reachable(found)

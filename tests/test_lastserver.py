"""A client that is told no server finds the last one again, or none."""

from pathlib import Path

import pytest

from utilities.disk import Disk
from utilities.identity import kept_identity
from utilities.lastserver import keep_server, last_server, server_file


class Full(Disk):
    """Takes nothing."""

    def replace(self, path: Path, content: bytes) -> None:
        raise OSError("full")


@pytest.mark.parametrize("address", ["lab:80", "10.0.0.7:55551", "[2001:db8::7]:5"])
def test_the_server_that_was_reached_last_is_known(
    tmp_path: Path, address: str
) -> None:
    folder = tmp_path / "new" / "folder"
    assert last_server(folder, "desk") is None
    keep_server(folder, "desk", "before:1")
    keep_server(folder, "desk", address)

    assert last_server(folder, "desk") == address
    assert [path.name for path in folder.iterdir()] == ["server@desk"]


def test_machines_that_share_a_home_have_one_each(tmp_path: Path) -> None:
    odd = "über/../\udcff"
    for machine in ("desk", "lab", odd):
        keep_server(tmp_path, machine, f"{len(machine)}.example:80")

    assert last_server(tmp_path, "desk") == "4.example:80"
    assert last_server(tmp_path, "lab") == "3.example:80"
    assert last_server(tmp_path, odd) == f"{len(odd)}.example:80"
    assert {path.parent for path in tmp_path.iterdir()} == {tmp_path}


def test_what_is_known_already_is_not_written_again(tmp_path: Path) -> None:
    keep_server(tmp_path, "desk", "lab:80")
    before = server_file(tmp_path, "desk").stat().st_ino
    keep_server(tmp_path, "desk", "lab:80")

    assert server_file(tmp_path, "desk").stat().st_ino == before


@pytest.mark.parametrize(
    "content", [b"", b"lab:80 --noAuth", b"4711", b"lab:99999", b"\xff:1@", b"x" * 5000]
)
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    path = server_file(tmp_path, "desk")
    path.write_bytes(content)
    found = last_server(tmp_path, "desk")

    # A host of a thousand letters is spelled like one; it is looked up in vain.
    assert found is None or found == f"{'x' * 1024}:55551"


def test_without_a_place_for_it_nothing_is_remembered(tmp_path: Path) -> None:
    keep_server(None, "desk", "lab:80")
    assert last_server(None, "desk") is None
    keep_server(tmp_path, "desk", "lab:80", Full())
    assert last_server(tmp_path, "desk") is None
    (tmp_path / "file").touch()
    keep_server(tmp_path / "file", "desk", "lab:80")
    assert last_server(tmp_path / "file", "desk") is None


def test_it_is_not_in_the_way_of_identities(tmp_path: Path) -> None:
    for machine in ("desk", "server", "server@desk"):
        keep_server(tmp_path, machine, "lab:80")
        with kept_identity(tmp_path, machine) as own:
            assert (len(own.value), own.number) == (16, 1)
        assert last_server(tmp_path, machine) == "lab:80"

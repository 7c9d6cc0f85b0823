"""Who a client is stays the same, and is nobody else."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from utilities import identity
from utilities.identity import SIZE, Identity, kept_identity

ROOT = Path(__file__).parents[1]


def value(folder: Path, machine: str = "desk") -> bytes:
    with kept_identity(folder, machine) as own:
        return own.value


def test_an_identity_outlives_its_client(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    first = value(folder)

    assert len(first) == SIZE
    assert value(folder) == first
    assert value(tmp_path / "other") != first


def test_two_clients_of_one_machine_are_two(tmp_path: Path) -> None:
    with kept_identity(tmp_path, "desk") as one, kept_identity(tmp_path, "desk") as two:
        assert (one.number, two.number) == (1, 2)
        assert one.value != two.value
    with kept_identity(tmp_path, "desk") as again:
        assert again == one


def test_two_processes_do_not_share_one_either(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from utilities.identity import kept_identity\n"
        "with kept_identity(Path(sys.argv[1]), 'desk') as own: print(own.number)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with kept_identity(tmp_path, "desk"):
        said = subprocess.run(
            command, cwd=ROOT, check=True, capture_output=True, timeout=30
        )

    assert said.stdout == b"2\n"


def test_machines_that_share_or_copy_a_home_are_told_apart(tmp_path: Path) -> None:
    one = value(tmp_path, "one")
    (tmp_path / "one-1").rename(tmp_path / "two-1")

    assert value(tmp_path, "two") != one


@pytest.mark.parametrize("name", ["../../etc", "", "büro/1", "x" * 300])
def test_an_odd_name_stays_inside_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "deep" / "down"
    value(folder, name)

    assert len(list(folder.iterdir())) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    value(tmp_path)
    mode = (tmp_path / "desk-1" / identity.FILE).stat().st_mode

    assert stat.S_IMODE(mode) == 0o600


@pytest.mark.parametrize("damage", [b"", b"abcd\n", b"no hex", b"\xff\xfe"])
def test_a_damaged_identity_is_drawn_anew(tmp_path: Path, damage: bytes) -> None:
    first = value(tmp_path)
    (tmp_path / "desk-1" / identity.FILE).write_bytes(damage)
    second = value(tmp_path)

    assert second != first
    assert value(tmp_path) == second


def test_without_a_folder_a_client_is_nobody_in_particular(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="ascii")
    for folder in (None, tmp_path / "file" / "below"):
        with kept_identity(folder, "desk") as own:
            assert own == Identity(b"", 1)


def test_where_all_are_taken_or_none_can_be_kept_a_client_is_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "MOST_CLIENTS", 1)
    with kept_identity(tmp_path, "desk"), kept_identity(tmp_path, "desk") as second:
        assert second == Identity()
    place = tmp_path / "desk-1" / identity.FILE
    place.unlink()
    place.mkdir()
    for _ in range(2):  # the lock is free again
        with kept_identity(tmp_path, "desk") as own:
            assert own == Identity()

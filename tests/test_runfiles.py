import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from utilities.disk import Disk
from utilities.errors import RunError
from utilities.runfiles import (
    listed,
    read_json,
    reading,
    take_lock,
    write_json,
    writing,
)

ROOT = Path(__file__).parents[1]
FULL_DISKS = (errno.ENOSPC, errno.EDQUOT)


@pytest.mark.parametrize("code", [*FULL_DISKS, errno.EIO, errno.EROFS, errno.EACCES])
def test_a_failing_write_names_file_reason_and_way_out(code: int) -> None:
    with pytest.raises(RunError) as caught, writing(Path("runs/7/x")):
        raise OSError(code, os.strerror(code), "runs/7/.x.123.tmp")

    message = str(caught.value)
    assert message.startswith(f"{Path('runs/7/x')}: cannot be written: ")
    assert os.strerror(code) in message
    assert "nothing written before is lost" in message
    assert "--resume" in message
    assert ("free space" in message) == (code in FULL_DISKS)
    assert ".tmp" not in message


def test_an_error_without_an_explanation_is_shown_as_it_is() -> None:
    with pytest.raises(RunError, match="cannot be written: odd"), writing(Path("x")):
        raise OSError("odd")
    with pytest.raises(RunError, match="cannot be read: odd"), reading(Path("x")):
        raise OSError("odd")


def test_other_errors_pass_through() -> None:
    with pytest.raises(KeyError), writing(Path("x")):
        raise KeyError("mine")
    with pytest.raises(KeyError), reading(Path("x")):
        raise KeyError("mine")


def test_json_is_written_for_people_and_read_back(tmp_path: Path) -> None:
    content = {"name": "Bärbel", "path": "/tmp/\udcff", "none": None, "big": 2**64 - 1}

    write_json(tmp_path / "x.json", content)

    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert '\n  "name": "Bärbel",\n' in text
    assert text.endswith("}\n")
    assert read_json(tmp_path / "x.json") == content


@pytest.mark.parametrize("data", [b"", b"{", b'{"a": \xff}', b"[" * 100_000, b"{} {}"])
def test_damaged_json_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.json").write_bytes(data)

    with pytest.raises(RunError, match=r"x\.json: expected JSON, got a damaged file"):
        read_json(tmp_path / "x.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"x\.json: cannot be read: No such file"):
        read_json(tmp_path / "x.json")


def test_a_disk_error_leaves_the_old_json(tmp_path: Path) -> None:
    class Full(Disk):
        def sync(self, descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_json(tmp_path / "x.json", "old")
    with pytest.raises(RunError, match=r"x\.json: cannot be written: No space"):
        write_json(tmp_path / "x.json", "new", Full())

    assert json.loads((tmp_path / "x.json").read_bytes()) == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_many_numbers_are_shortened_to_the_newest() -> None:
    assert listed("run", []) == "no run"
    assert listed("run", [3]) == "run 3"
    assert listed("run", list(range(8))) == "runs 0, 1, 2, 3, 4, 5, 6, 7"
    assert listed("run", list(range(10))) == "runs ..., 2, 3, 4, 5, 6, 7, 8, 9"


def test_the_lock_is_had_once_and_names_its_holder(tmp_path: Path) -> None:
    folder = tmp_path / "12"
    folder.mkdir()
    descriptor = take_lock(folder)

    with pytest.raises(RunError, match=f"run 12 is in use by process {os.getpid()};"):
        take_lock(folder)

    os.close(descriptor)
    os.close(take_lock(folder))


def test_a_lock_file_without_a_number_is_no_obstacle(tmp_path: Path) -> None:
    descriptor = take_lock(tmp_path)
    (tmp_path / "lock").write_bytes(b"")
    with pytest.raises(RunError, match="is in use by another process;"):
        take_lock(tmp_path)
    os.close(descriptor)

    (tmp_path / "lock").write_bytes(b"what a long text is this in a lock file")
    os.close(take_lock(tmp_path))

    assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


HOLDER = """
import sys, time
from pathlib import Path
from utilities.runfiles import take_lock
take_lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"held"
        with pytest.raises(RunError, match=f"in use by process {child.pid};"):
            take_lock(tmp_path)
        child.kill()

    os.close(take_lock(tmp_path))


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    descriptor = take_lock(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()  # it runs
        os.close(descriptor)

        os.close(take_lock(tmp_path))

        assert child.poll() is None
        child.kill()


def test_a_folder_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"lock: cannot be written: No such file"):
        take_lock(tmp_path / "missing")

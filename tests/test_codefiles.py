"""Files that hold join codes: who can read them, and what is said of them."""

import errno
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from utilities import codefiles
from utilities.codefiles import (
    ENVIRONMENT,
    from_environment,
    keep_code,
    kept_code,
    kept_file,
    read_file,
    server_code,
    write_file,
)
from utilities.errors import AuthenticationError, ConfigError
from utilities.joincodes import PIN_BYTES, Code, new_code

POSIX = pytest.mark.skipif(os.name == "nt", reason="no such permissions there")
CODE = Code(b"sixteen secrets!", b"p" * PIN_BYTES)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# A server's file.


@POSIX
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_first_start_makes_a_secret_that_only_its_owner_reads(
    tmp_path: Path, umask: int
) -> None:
    path = tmp_path / "deep" / "runs" / "join-code"
    before = os.umask(umask)
    try:
        code = server_code(path)
    finally:
        os.umask(before)

    assert mode(path) == 0o600
    assert server_code(path) == code, "later starts find the same"
    assert [entry.name for entry in path.parent.iterdir()] == ["join-code"]
    assert path.read_text("ascii") == code.shown() + "\n"


@POSIX
def test_the_secret_is_never_readable_by_others_while_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    opening = os.open

    def watched(path: Any, flags: int, *more: Any) -> int:
        descriptor = opening(path, flags, *more)
        if flags & os.O_CREAT:
            seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
            assert flags & os.O_EXCL
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    before = os.umask(0)
    try:
        server_code(tmp_path / "join-code")
    finally:
        os.umask(before)

    assert seen == [0o600]


def test_servers_that_start_together_agree_upon_one_secret(tmp_path: Path) -> None:
    path, barrier = tmp_path / "join-code", threading.Barrier(8)
    found: list[Code] = []
    names = iter(range(8))

    def start() -> None:
        barrier.wait()
        found.append(server_code(path))

    class Processes:
        """Each thread stands for a process with a number of its own."""

        def __getattr__(self, name: str) -> Any:
            return (lambda: next(names)) if name == "getpid" else getattr(os, name)

    patch = pytest.MonkeyPatch()
    patch.setattr(codefiles, "os", Processes())
    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    patch.undo()

    assert len(found) == 8
    assert len(set(found)) == 1


def test_without_links_the_secret_is_renamed_into_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "join-code"

    assert server_code(path) == server_code(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["join-code"]


def test_a_folder_that_cannot_be_made_is_told_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file", "ascii")
    with pytest.raises(AuthenticationError) as caught:
        server_code(tmp_path / "runs" / "join-code")

    said = str(caught.value)
    assert "cannot keep a join code in " in said
    assert "--tokenFile" in said


# Reading.


@POSIX
@pytest.mark.parametrize("rights", [0o644, 0o660, 0o604, 0o601])
def test_a_file_that_others_can_read_is_mended_and_told(
    tmp_path: Path, rights: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "join-code"
    code = server_code(path)
    path.chmod(rights)

    assert read_file(path) == code
    assert mode(path) == 0o600
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{path} could be read by others; now only its owner can.")
    assert code.shown() not in line
    assert read_file(path) == code
    assert len(caplog.records) == 1, "it is told once"


@POSIX
def test_a_file_that_others_can_read_and_that_cannot_be_mended_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    path = tmp_path / "join-code"
    server_code(path)
    path.chmod(0o644)
    monkeypatch.setattr(os, "fchmod", refuse)
    with pytest.raises(AuthenticationError, match=r"others can read it.*chmod 600"):
        read_file(path)


def test_what_is_no_code_is_told_with_the_file_and_without_its_content(
    tmp_path: Path,
) -> None:
    path = tmp_path / "join-code"
    for content in (b"my own password", b"", b"\xff\xfe\0", new_code().secret * 200):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ConfigError) as caught:
            read_file(path)
        assert str(caught.value).startswith(f"{path}: the join code has a ")
        assert "password" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(AuthenticationError, match="cannot read a join code from"):
        read_file(tmp_path / "none")


def test_a_written_code_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "code"
    for code in (CODE, new_code()):
        write_file(path, code)
        assert read_file(path) == code
        assert os.name == "nt" or mode(path) == 0o600


# The environment.


def test_the_environment_may_hold_a_code() -> None:
    assert from_environment({}) is None
    assert from_environment({ENVIRONMENT: ""}) is None
    assert from_environment({ENVIRONMENT: CODE.shown()}) == CODE
    with pytest.raises(ConfigError) as caught:
        from_environment({ENVIRONMENT: "hunter2"})
    assert str(caught.value).startswith("ES_JOIN_CODE: the join code has a ")
    assert "hunter2" not in str(caught.value)


# What a client keeps.


@pytest.mark.parametrize("address", ["10.0.0.7:55551", "[2001:db8::7]:80", "Lab:80"])
def test_a_code_is_kept_for_one_server(tmp_path: Path, address: str) -> None:
    folder = tmp_path / "es-training"
    assert kept_code(folder, address) is None
    keep_code(folder, address, CODE)

    assert kept_code(folder, address) == CODE
    assert kept_code(folder, address.lower()) == CODE
    assert kept_code(folder, address + "0") is None
    assert kept_file(folder, address).parent == folder
    assert os.name == "nt" or mode(kept_file(folder, address)) == 0o600
    assert os.name == "nt" or mode(folder) == 0o700


def test_without_a_place_to_keep_it_a_client_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "ascii")
    keep_code(tmp_path / "file", "lab:80", CODE)

    assert kept_code(tmp_path / "file", "lab:80") is None
    keep_code(None, "lab:80", CODE)
    assert kept_code(None, "lab:80") is None

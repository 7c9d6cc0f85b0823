"""What goes wrong at a user's end: one clear line, an exit code, and nothing lost."""

import os
import re
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes_under_test import CLIENT, ROOT, SERVER, Lab, Program

SHORT = "--timePerStep 0.02 "


def complaint(program: Program, code: int) -> str:
    """Return the one line with which a program has ended."""
    assert program.ended() == code, program
    assert program.err.count("\n") == 1, program.err
    line = program.err.rstrip("\n")
    assert line.isprintable()
    assert line.startswith(("basicServer.py: ", "basicClient.py: "))
    return line.partition(": ")[2]


def trained(lab: Lab, steps: int = 3) -> None:
    """Make a run with some steps."""
    line = f"{lab.small} {SHORT} --localClients 1 --maxSteps {steps}"
    server = lab.server(line)
    assert server.ended() == 0, server


def goes_on(lab: Lab, step: int, run: int = 0) -> None:
    """Resume a run and find it where it was."""
    server = lab.server(f"--resume {run} --localClients 1 --maxSteps 2 {SHORT}")
    assert server.ended() == 0, server
    assert f"Run {run} resumes at step {step} in " in server.out
    assert lab.last_checkpoint(run)[0] == step + 2


# The network.


def test_a_client_without_a_server_says_so(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    line = complaint(lab.client(port), 3)

    assert line.startswith(f"cannot reach 127.0.0.1:{port}: ")
    assert "is the server running" in line


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("0.0.0.0", "0.0.0.0 is an address to listen on"),
        ("[::]:80", ":: is an address to listen on"),
        ("no..name", "the name is not known"),
    ],
)
def test_a_wrong_address_is_told_by_kind(lab: Lab, address: str, expected: str) -> None:
    assert expected in complaint(lab.start("client", CLIENT, address), 3)


@pytest.mark.parametrize("address", ["http://lab:80", "lab:99999"])
def test_what_is_no_address_is_a_wrong_option(lab: Lab, address: str) -> None:
    line = complaint(lab.start("client", CLIENT, address), 2)

    assert line.startswith("expected HOST or HOST:PORT with a port from 1 to 65535")
    assert line.endswith(f", got {address}")


def test_a_port_that_is_taken_leaves_no_run(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        line = complaint(lab.server(f"{lab.small} --port {port}"), 3)

    assert line.startswith(f"cannot listen on *:{port}: the port is taken")
    assert not lab.runs.exists()


@pytest.mark.parametrize("host", ["192.0.2.1", "no..name"])
def test_an_address_that_is_not_this_machines_leaves_no_run(
    lab: Lab, host: str
) -> None:
    line = complaint(lab.server(f"{lab.small} --host {host}"), 3)

    assert f"cannot listen on {host}:0: " in line
    assert not lab.runs.exists()


# What it needs.


@pytest.mark.parametrize("script", [SERVER, CLIENT])
def test_without_numpy_the_command_that_installs_it_is_shown(
    lab: Lab, script: Path
) -> None:
    line = complaint(lab.start("bare", "-S", "-E", script), 1)

    assert line.startswith("numpy is not installed; run: ")
    assert line.endswith(f"-m pip install -r {ROOT / 'requirements.txt'}")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--hiddenSise 8", "--hiddenSise: no such option; did you mean --hiddenSize?"),
        ("--sigma 11", "sigma: expected a number above 0 to 10, got 11"),
        ("--port 70000", "argument --port: expected a whole number from 0 to 65535"),
        ("--trialsPerStep 100", "trialsPerStep: expected a multiple of"),
        ("--config missing.json", "--config: cannot read missing.json: No such file"),
        ("--config .", "--config: cannot read .: Is a directory"),
        ("--config text.txt", "--config: text.txt is not JSON"),
        ("--config keys.json", "keys.json: sgima: no such key; did you mean sigma?"),
    ],
)
def test_options_that_are_not_accepted_leave_no_run(
    lab: Lab, line: str, expected: str
) -> None:
    (lab.folder / "keys.json").write_text('{"sgima": 1}', encoding="utf-8")
    said = complaint(lab.server(f"{lab.small} {line}"), 2)

    assert said.startswith(expected)
    assert not lab.runs.exists()


# The text.


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "expected text, got only empty files"),
        (b"short", "expected at least 1000 characters for windows of 32"),
        (
            b"a line\nand b\xe4d\n",
            "line 2, byte offset 12: expected UTF-8, got 0xe4; name what it is",
        ),
    ],
)
def test_a_text_that_cannot_be_read_leaves_no_run(
    lab: Lab, content: bytes, expected: str
) -> None:
    small = lab.small
    lab.text.write_bytes(content)
    said = complaint(lab.server(small), 5)

    assert "text.txt: " in said
    assert expected in said
    assert not lab.runs.exists()


# The run's folder.


def test_a_checkpoint_with_a_changed_byte_costs_no_step(lab: Lab) -> None:
    trained(lab)
    newest = lab.checkpoints()[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    server = lab.server("--resume --localClients 1 --maxSteps 1")

    assert server.ended() == 0, server
    assert "step-000003.npz: damaged; it is kept aside" in server.err
    assert "Run 0 resumes at step 3 in " in server.out
    assert "Recovered 3 steps from the journal, behind the checkpoint" in server.out


def test_a_second_server_is_kept_off_a_run(lab: Lab) -> None:
    first = lab.server(f"{lab.small} {SHORT}")
    client = lab.recorded(first.port, "client")
    client.reaches(3)
    said = complaint(lab.server("--resume"), 6)

    assert f"run 0 is in use by process {first.process.pid}; " in said
    client.reaches(client.step + 3)
    assert first.process.poll() is None


def test_a_resumed_run_does_not_become_another_model(lab: Lab) -> None:
    trained(lab)
    said = complaint(lab.server("--resume --hiddenSize 9"), 2)

    assert said.startswith("hiddenSize: the resumed run has 8 and cannot change to 9")
    goes_on(lab, 3)


def test_a_run_that_is_not_there_is_not_resumed(lab: Lab) -> None:
    trained(lab)

    assert "expected run 7, found run 0" in complaint(lab.server("--resume 7"), 6)
    goes_on(lab, 3)


# A full disk.


def no_larger_than(size: int) -> Callable[[], None]:
    """Return what a process does first, so that its files stay below a size."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_disk_that_is_full_at_the_start_leaves_no_run(lab: Lab) -> None:
    limit = no_larger_than(4000)
    said = complaint(lab.server(lab.small, preexec_fn=limit), 6)

    assert "cannot be written: File too large" in said
    assert list(lab.runs.iterdir()) == []


def test_a_log_that_can_no_longer_grow_ends_a_run_that_is_saved(lab: Lab) -> None:
    limit = no_larger_than(24_000)  # 75 lines of metrics; checkpoints are smaller
    # Each checkpoint begins a new file of the journal, which stays below the limit.
    line = f"{lab.small} --trialsPerStep 64 --localClients 2 --checkPointTime 0.01"
    said = complaint(lab.server(line, preexec_fn=limit), 6)

    assert "metrics.jsonl: cannot be written: File too large; nothing written" in said
    step, _ = lab.last_checkpoint()
    assert step > len(lab.metrics()) > 40, "saved where it stood"
    goes_on(lab, step)


def test_a_journal_that_can_no_longer_grow_ends_a_run_that_loses_no_step(
    lab: Lab,
) -> None:
    limit = no_larger_than(24_000)
    # Steps of a known size: the first ones fit, however fast they are.
    line = f"{lab.small} --trialsPerStep 64 --checkPointTime 1000"
    server = lab.server(line, preexec_fn=limit)
    client = lab.recorded(server.port, "client")
    said = complaint(server, 6)

    assert "step-000000.log: cannot be written: File too large; nothing" in said
    again = lab.server("--resume --localClients 1 --maxSteps 1")
    assert again.ended() == 0, again
    found = re.search(r"Run 0 resumes at step (\d+) in ", again.out)
    assert found is not None
    assert int(found[1]) >= client.step > 0, "what was announced is there"


def test_checkpoints_that_can_no_longer_be_saved_end_a_run(lab: Lab) -> None:
    trained(lab)
    size = lab.checkpoints()[-1].stat().st_size
    limit = no_larger_than(size - 100)
    # Steps of a known size: the journal stays below the limit, however fast they are.
    line = "--resume --localClients 1 --trialsPerStep 64 --maxSteps 5"
    said = complaint(lab.server(line, preexec_fn=limit), 6)

    assert f"{Path('checkpoints', 'step-000008.npz')}: cannot" in said
    assert "cannot be written: File too large; nothing written before is lost" in said
    goes_on(lab, 8)  # by the journal


@contextmanager
def tiny_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a file system that is soon full, where this process may."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        subprocess.run(["mount", *options], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this process may not mount a file system: {error}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="needs tmpfs")
def test_a_disk_that_fills_up_ends_a_run_that_can_go_on(lab: Lab) -> None:
    with tiny_disk(lab.runs, "120k"):
        try:
            line = f"{lab.small} {SHORT} --localClients 2"
            said = complaint(lab.server(line), 6)
            assert "No space left on device" in said
            assert "free space, then start again" in said
            more = ["mount", "-o", "remount,size=1m", str(lab.runs)]
            subprocess.run(more, check=True, capture_output=True)
            again = lab.server("--resume --localClients 1 --maxSteps 1")
            assert again.ended() == 0, again
            assert "Run 0 resumes at step " in again.out
        finally:
            lab.close()

"""A client with several worker processes, as a user starts it."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.processes_under_test import RECORDING_CLIENT, Lab, Program, Recorded, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SHORT = "--timePerStep 0.05 "
# A first step is as many trials as anybody gets: such a model needs long for them.
LONG = "--timePerStep 50 --hiddenSize 128 --sequenceLength 512"
FIXED = "--trialsPerStep 3072 --batchSize 2 --seed 3 "  # six blocks a step


def recorded(lab: Lab, port: int, name: str, workers: int) -> Recorded:
    """Start a client with workers that takes notes."""
    file = lab.folder / f"{name}.steps"
    address = f"127.0.0.1:{port}"
    words = [RECORDING_CLIENT, file, address, *lab.code, "--name", name]
    return Recorded(lab.start(name, *words, "--workers", workers), file)


def workers_of(program: Program) -> set[int]:
    """Return the processes that a client has started to compute."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text("ascii", errors="replace")
            command = (folder / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        parent = int(status.rpartition(")")[2].split()[1])
        if parent == program.process.pid and b"spawn_main" in command:
            found.add(int(folder.name))
    return found


def gone(processes: set[int]) -> None:
    """Wait until none of the processes is left."""
    assert processes
    until(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes),
        "the end of the workers",
    )


def test_workers_are_one_client_and_hold_the_state_of_all_others(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {SHORT} --maxSteps 60")
    team = recorded(lab, server.port, "team", 2)
    single = recorded(lab, server.port, "single", 1)
    team.reaches(1)
    assert len(workers_of(team.program)) == 2
    assert workers_of(single.program) == set()
    assert server.ended() == 0, server
    assert [c.program.ended() for c in (team, single)] == [0, 0]

    assert " with 2 workers.\n" in team.program.out
    assert " with 1 worker.\n" in single.program.out
    both = team.digests.keys() & single.digests.keys()
    assert len(both) > 10
    assert [step for step in both if team.digests[step] != single.digests[step]] == []
    assert lab.last_checkpoint() == (60, team.digests[60])
    assert max(line["clients"] for line in lab.metrics()) == 2
    assert [p.err for p in (server, team.program, single.program)] == ["", "", ""]


def test_fixed_trials_lead_to_the_same_bits_with_any_number_of_workers(
    lab: Lab,
) -> None:
    for run, workers in enumerate((1, 2, 3)):
        server = lab.server(f"{lab.small} {FIXED} --maxSteps 30")
        client = recorded(lab, server.port, f"client-{run}", workers)
        assert server.ended() == 0, server
        assert client.program.ended() == 0
    digests = [[m["digest"] for m in lab.metrics(run)] for run in range(3)]

    assert len(set(digests[0])) == 30
    assert digests[0] == digests[1] == digests[2]
    assert len({lab.last_checkpoint(run) for run in range(3)}) == 1


def test_a_worker_that_dies_ends_its_client_with_one_line(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {SHORT}")
    client = lab.client(server.port, "--name team --workers 2")
    client.has_said("^step [1-9]")
    workers = workers_of(client)
    os.kill(min(workers), signal.SIGKILL)

    assert client.ended() == 1
    assert client.err.startswith("basicClient.py: worker ")
    assert " of 2 ended by signal 9, perhaps for lack of memory; " in client.err
    assert client.err.count("\n") == 1
    gone(workers)
    server.has_said("^team left: ")


def test_workers_end_with_a_client_that_its_user_stops(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {SHORT}")
    client = lab.client(server.port, "--name team --workers 2")
    client.has_said("^step [1-9]")
    workers = workers_of(client)
    os.killpg(client.process.pid, signal.SIGINT)  # as a terminal does

    assert client.ended() == 0
    assert client.err == ""
    gone(workers)
    server.has_said("^team left: stopped by its user")


def test_a_second_ctrl_c_does_not_wait_for_the_workers(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {LONG}")
    client = lab.client(server.port, "--workers 2")
    client.has_said("^step 0, working")
    workers = workers_of(client)
    os.killpg(client.process.pid, signal.SIGINT)
    client.has_said("^Leaving")
    os.killpg(client.process.pid, signal.SIGINT)

    assert client.ended() == 130
    assert client.err == ""
    gone(workers)


def test_workers_end_with_a_client_that_is_killed(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {LONG}")
    client = lab.client(server.port, "--workers 2")
    client.has_said("^step 0, working")
    workers = workers_of(client)
    client.kill()

    gone(workers)


def test_workers_stay_while_their_server_is_away(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {SHORT}")
    port = server.port
    team = recorded(lab, port, "team", 2)
    team.reaches(3)
    workers = workers_of(team.program)
    server.kill()
    until(lambda: "the server is lost" in team.program.err)
    again = lab.server(f"--resume --port {port} --maxSteps 5")
    again.has_said("^team joined again")

    assert workers_of(team.program) == workers
    assert again.ended() == 0, again
    assert team.program.ended() == 0
    step, digest = lab.last_checkpoint()
    assert team.digests[step] == digest
    gone(workers)

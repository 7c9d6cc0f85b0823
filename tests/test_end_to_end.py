"""Servers and clients as a user starts them: real processes, sockets and folders."""

import re
import signal
import socket
import sys
from itertools import pairwise

import pytest

from tests.processes_under_test import ROOT, Lab, Recorded, clients_of, until

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
SHORT = "--timePerStep 0.02 "
# A first step is as many trials as anybody gets: such a model needs long for them.
LONG = "--timePerStep 50 --hiddenSize 128 --sequenceLength 512"
FIXED = "--trialsPerStep 1024 --batchSize 2 --seed 3 "  # two blocks a step

# A server that waits one second for a hello, that a test need not last longer.
HURRIED_SERVER = """
import sys
from utilities.processes import one_core
one_core()
from utilities import communication
communication.SHAKE_SECONDS = 1.0
import basicServer
sys.exit(basicServer.main())
"""


def together(clients: list[Recorded]) -> dict[int, set[str]]:
    """Return all digests that were reported of each step."""
    steps: dict[int, set[str]] = {}
    for client in clients:
        for step, digest in client.digests.items():
            steps.setdefault(step, set()).add(digest)
    return steps


def durations(lab: Lab) -> dict[int, float]:
    """Return the seconds that each step but the first one took."""
    return {
        after["step"]: after["seconds"] - before["seconds"]
        for before, after in pairwise(lab.metrics())
    }


# The first minute.


def test_the_default_text_trains_and_ends_by_itself(lab: Lab) -> None:
    server = lab.server("--localClients 2 --maxSeconds 3")
    assert server.ended() == 0, server
    out = server.out

    assert server.err == ""
    assert re.search(r"^Text: Python reference topics, [\d,]{7} characters", out, re.M)
    assert re.search(r"^  evenly \d\.\d+ \(\d\.\d+\), by frequency", out, re.M)
    assert re.search(r"^step \d+, loss \d\.\d{3}( \(\d\.\d{3} bits\))?, ", out, re.M)
    assert re.search(r"^Run 0: \d+ steps and [\d,]+ trials in \d+ s, now at", out, re.M)
    assert re.search(r"^Validation loss [23]\.\d+ nats, \d\.\d+ bits per", out, re.M)
    assert re.search(r"^A sample:\n  The ", out, re.M)
    assert f"The run lies in {lab.runs / '0'}. Next, in " in out
    assert " basicServer.py --runs " in out
    assert "python -m utilities.inspect" in out
    losses = [step["loss"] for step in lab.metrics()]
    last = lab.lines()[-1]
    assert (last["step"], last["digest"]) == lab.last_checkpoint()
    assert last["loss"] is None
    assert last["validationLoss"] > 0
    assert sum(losses[-5:]) / 5 < losses[0] - 0.1, "it learns"


def test_output_that_goes_to_a_file_is_plain_lines(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {SHORT} --localClients 1 --maxSteps 20")
    assert server.ended() == 0, server
    lines = server.out.split("\n")

    assert all(line.isprintable() for line in lines)
    assert [
        line for line in lines if len(line) > 80 and str(lab.folder) not in line
    ] == []
    assert lines[-1] == ""


# Many clients.


def test_clients_that_come_and_go_hold_the_same_state_at_every_step(lab: Lab) -> None:
    line = f"{lab.small} --timePerStep 0.03 --maxSteps 200"
    server = lab.server(line)
    first, lost = (lab.recorded(server.port, name) for name in ("first", "lost"))
    first.reaches(50)
    joiner = lab.recorded(server.port, "joiner")
    first.reaches(100)
    joiner.reaches(0)
    lost.program.kill()
    assert server.ended() == 0, server

    clients = [first, lost, joiner]
    assert [c.program.ended() for c in (first, joiner)] == [0, 0]
    steps = together(clients)
    assert sorted(steps) == list(range(201))
    assert [step for step, digests in steps.items() if len(digests) != 1] == []
    assert min(joiner.digests) > 50
    assert max(lost.digests) < 200
    assert joiner.step == first.step == 200
    assert lab.last_checkpoint() == (200, first.digests[200])
    assert [{m["digest"]} for m in lab.metrics()] == [steps[n] for n in range(200)]
    assert "lost left: " in server.out
    assert server.err == ""


def test_a_client_that_is_stopped_delays_one_step_and_is_soon_back(lab: Lab) -> None:
    server = lab.server(f"{lab.small} --timePerStep 0.4 --nodes none")
    names = ("one", "two", "stopped")
    one, two, stopped = (lab.recorded(server.port, name) for name in names)
    for client in (one, two, stopped):
        client.reaches(1)
    one.reaches(3)
    stopped.program.signal(signal.SIGSTOP)
    began = one.step
    one.reaches(began + 4)
    stopped.program.signal(signal.SIGCONT)
    went_on = max(one.step, two.step)
    one.reaches(went_on + 5)
    server.signal(signal.SIGINT)
    assert server.ended() == 0, server

    took = {step: s for step, s in durations(lab).items() if step >= began}
    # Deadline: 0.4 s, 0.2 s of grace, milliseconds of update, and a busy machine.
    assert max(took.values()) < 0.9, took
    metrics = {m["step"]: m for m in lab.metrics()}
    apart = [s for s in range(began + 2, went_on) if metrics[s]["clients"] == 2]
    assert apart, "it was missed for a while"
    # The newest answered step may still have been open, or the one after it.
    back = [metrics[s]["clients"] for s in range(went_on, went_on + 4)]
    assert 3 in back, back
    digests = together([one, two, stopped])
    assert all(len(digests[step]) == 1 for step in digests)
    assert "stopped is late at step" in server.out


# Stopping and resuming.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_well_and_it_can_go_on(
    lab: Lab, number: signal.Signals
) -> None:
    server = lab.server(f"{lab.small} {SHORT} --localClients 1")
    client = lab.recorded(server.port, "separate")
    client.reaches(5)
    server.signal(number)
    assert server.ended() == 0, server
    assert client.program.ended() == 0
    step, digest = lab.last_checkpoint()

    assert re.search(r"^Finishing step \d+ and saving\.", server.out, re.M)
    assert client.digests[step] == digest
    assert lab.metrics()[-1]["step"] == step - 1
    assert "The server says goodbye: the run has ended." in client.program.out
    assert server.err == client.program.err == ""

    resumed = lab.server("--resume --localClients 1 --maxSteps 3 --timePerStep 0.01")
    assert resumed.ended() == 0, resumed
    assert f"Run 0 resumes at step {step} in" in resumed.out
    assert [m["step"] for m in lab.metrics()] == list(range(step + 3))


@linux
def test_a_second_signal_quits_at_once_and_local_clients_with_it(lab: Lab) -> None:
    server = lab.server(f"{lab.small} --trialsPerStep 16000000 --localClients 2")
    port = server.port
    server.has_said("2 here")
    assert clients_of(port) == 2
    server.signal(signal.SIGINT)
    server.has_said("^Finishing step 0")
    assert server.process.poll() is None
    server.signal(signal.SIGINT)

    assert server.ended() == 130
    until(lambda: clients_of(port) == 0, "the end of local clients")
    assert server.err == ""
    assert lab.last_checkpoint()[0] == 0


def test_a_client_that_is_stopped_by_its_user_leaves_and_the_server_goes_on(
    lab: Lab,
) -> None:
    server = lab.server(f"{lab.small} {SHORT}")
    leaver = lab.client(server.port, "--name leaver")
    stayer = lab.recorded(server.port, "stayer")
    stayer.reaches(5)
    leaver.signal(signal.SIGINT)

    assert leaver.ended() == 0
    assert "Leaving after this step." in leaver.out
    assert leaver.err == ""
    server.has_said("^leaver left: stopped by its user; 1 here$")
    stayer.reaches(stayer.step + 5)
    assert server.process.poll() is None


def test_a_second_ctrl_c_ends_a_client_within_its_step(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {LONG}")
    client = lab.client(server.port)
    client.has_said("^step 0, working")
    client.signal(signal.SIGINT)
    client.has_said("^Leaving")
    client.signal(signal.SIGINT)

    assert client.ended() == 130
    assert client.err == ""
    server.has_said("left: ")


@linux
def test_when_a_server_is_killed_only_its_own_clients_end(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {SHORT} --localClients 2")
    port = server.port
    separate = lab.recorded(port, "separate")
    separate.reaches(3)
    server.has_said("3 here")
    server.kill()
    until(lambda: clients_of(port) == 1, "the end of local clients")
    until(lambda: "the server is lost" in separate.program.err)
    assert separate.program.process.poll() is None

    again = lab.server(f"--resume --port {port} --maxSteps 5")
    assert again.ended() == 0, again
    assert separate.program.ended() == 0
    assert re.search(r"^separate joined again \(was at \d+\)", again.out, re.M)
    assert "Connected again." in separate.program.out
    step, digest = lab.last_checkpoint()
    assert separate.digests[step] == digest


def test_runs_of_a_fixed_number_of_trials_repeat_to_the_bit(lab: Lab) -> None:
    common = f"{lab.small} {FIXED}"
    lines = [
        f"{common} --localClients 1 --maxSteps 100",
        f"{common} --localClients 2 --maxSteps 100",
        f"{common} --localClients 2 --maxSteps 50",
        "--resume 2 --localClients 1 --maxSteps 50",
    ]
    for line in lines:
        server = lab.server(line)
        assert server.ended() == 0, server

    assert lab.last_checkpoint(0)[0] == 100
    assert lab.last_checkpoint(0) == lab.last_checkpoint(1) == lab.last_checkpoint(2)
    digests = [[m["digest"] for m in lab.metrics(run)] for run in range(3)]
    assert digests[0] == digests[1] == digests[2]
    assert len(set(digests[0])) == 100
    assert {m["trials"] for m in lab.metrics(2)} == {1024}


# Strangers.


def test_strangers_at_the_port_disturb_nobody(lab: Lab) -> None:
    words = ["--runs", lab.runs, "--port", 0, *f"{lab.small} {SHORT}".split()]
    server = lab.start("server", "-c", HURRIED_SERVER, *words, cwd=ROOT)
    clients = [lab.recorded(server.port, name) for name in ("one", "two")]
    for client in clients:
        client.reaches(5)
    address = ("127.0.0.1", server.port)
    garbage = bytes(range(256)) * 64
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(address) as idle:
        socket.create_connection(address).close()
        for data in (garbage, request):
            with socket.create_connection(address) as stranger:
                stranger.sendall(data)
                while stranger.recv(4096):  # the greeting, then the end
                    pass
        while idle.recv(4096):
            pass
    for client in clients:
        client.reaches(client.step + 5)
    server.signal(signal.SIGINT)
    assert server.ended() == 0, server

    assert [client.program.ended() for client in clients] == [0, 0]
    assert len(re.findall("left without a hello", server.out)) == 1
    complaints = server.err.splitlines()
    assert len(complaints) == 3
    assert all(" (127.0.0.1) is turned away: " in line for line in complaints)
    assert (
        sum("no proof of the join code within 1 s" in line for line in complaints) == 1
    )
    late = [m for m in lab.metrics() if m["late"]]
    assert len(late) <= 2, late
    assert max(durations(lab).values()) < 1.5
    assert all(len(digests) == 1 for digests in together(clients).values())

"""A server whose model grows, and clients that stay: real processes and folders."""

import re
import signal
import subprocess
import sys

from tests.processes_under_test import ROOT, Lab
from utilities.stages import COME_BACK

# 64 trials a step: 640 are had after ten steps, and the eleventh is open by then.
FIXED = "--trialsPerStep 64 --seed 3 "
GROWS = "--growth 12@640 "
GROWN = "the model of run 0, step 11, grown from 8 to 12 units"


def units(lab: Lab, run: int) -> int:
    text = (lab.runs / str(run) / "config.json").read_text("utf-8")
    found = re.search(r'"hiddenSize": (\d+)', text)
    assert found
    return int(found[1])


def verified(lab: Lab, run: int) -> str:
    """Return what is said of a run that is sound."""
    words = ["--runs", str(lab.runs), "verify", str(run)]
    done = subprocess.run(
        [sys.executable, "-m", "utilities.inspect", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def states(lab: Lab, run: int) -> list[tuple[int, str]]:
    """Return step and digest of all states of a run, the last one included."""
    return [(line["step"], line["digest"]) for line in lab.lines(run)]


def test_a_run_goes_on_with_more_units_and_a_client_comes_back(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {FIXED} {GROWS} --maxSteps 15")
    client = lab.recorded(server.port, "separate")
    text = lab.text
    away = text.rename(lab.folder / "away.txt")  # nights are long
    assert server.ended() == 0, server
    assert client.program.ended() == 0, client.program
    away.rename(text)

    assert [units(lab, run) for run in (0, 1)] == [8, 12]
    assert not (lab.runs / "2").exists()
    both = states(lab, 0) + states(lab, 1)
    assert [step for step, _ in both] == [*range(12), *range(11, 16)]
    assert both[11] != both[12], "another model has another digest"
    answered = client.file.read_text("ascii").split("\n")[:-1]
    assert answered == [f"{step} {digest}" for step, digest in both]
    assert lab.metrics(1)[0]["seconds"] > lab.metrics(0)[-1]["seconds"]
    assert [verified(lab, run) for run in (0, 1)]

    assert "Run 0 has had 640 trials (growth 12@640):" in server.out
    assert f"It begins with {GROWN}" in server.out
    assert len(re.findall(r"^A sample:", server.out, re.M)) == 1
    assert f"The server says goodbye: {COME_BACK.reason}." in client.program.out
    assert "Connected again." in client.program.out
    assert "The server says goodbye: the run has ended." in client.program.out
    assert server.err == client.program.err == ""


def test_a_run_that_grows_repeats_to_the_bit_and_its_larger_model_goes_on(
    lab: Lab,
) -> None:
    for clients in (1, 2):
        line = f"{lab.small} {FIXED} {GROWS} --localClients {clients} --maxSteps 15"
        server = lab.server(line)
        assert server.ended() == 0, server
        assert server.err == ""
    assert states(lab, 1)[-1][0] == 15
    assert [states(lab, run) for run in (0, 1)] == [states(lab, run) for run in (2, 3)]

    resumed = lab.server("--resume --localClients 1 --maxSteps 2")
    assert resumed.ended() == 0, resumed
    assert "Run 3 resumes at step 15 in" in resumed.out
    assert [m["step"] for m in lab.metrics(3)] == list(range(11, 17))


def test_ctrl_c_during_the_first_run_begins_no_second_one(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {FIXED} --growth 12@1e12 --localClients 1")
    client = lab.recorded(server.port, "separate")
    server.has_said(r"joined; 2 here")  # the local one, too
    client.reaches(1)
    server.signal(signal.SIGINT)
    assert server.ended() == 0, server

    assert client.program.ended() == 0
    assert re.search(r"^Finishing step \d+ and saving\.", server.out, re.M)
    assert "The server says goodbye: the run has ended." in client.program.out
    assert not (lab.runs / "1").exists()
    assert server.err == ""


def test_a_run_that_is_due_to_grow_at_its_end_does_so_later(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {FIXED} {GROWS} --localClients 1 --maxSteps 11")
    assert server.ended() == 0, server
    assert "goes on as a new run" not in server.out
    assert [path.name for path in lab.runs.glob("[0-9]*")] == ["0"]

    resumed = lab.server("--resume --localClients 1 --maxSteps 4")
    assert resumed.ended() == 0, resumed
    assert [m["step"] for m in lab.metrics(0)] == list(range(13))
    assert [m["step"] for m in lab.metrics(1)] == [13, 14]


def test_ctrl_c_while_a_run_is_about_to_grow_ends_it_for_good(lab: Lab) -> None:
    server = lab.server(f"{lab.small} --timePerStep 1.5 --growth 12@1 --maxSteps 50")
    client = lab.recorded(server.port, "separate")
    server.has_said(r"^Run 0 has had 1 trials \(growth 12@1\):$")
    server.signal(signal.SIGINT)  # while step 1 is worked on
    assert server.ended() == 0, server

    assert client.program.ended() == 0
    assert "Finishing step 1 and saving." in server.out
    assert "Run 0: 2 steps and " in server.out
    assert COME_BACK.reason not in client.program.out
    assert lab.last_checkpoint() == (2, client.digests[2])
    assert not (lab.runs / "1").exists()
    assert server.err == client.program.err == ""

"""Servers and clients that are killed at any moment: the run ends as if they were not.

With `trialsPerStep` every step is the same whoever takes part; so the digest of each
step of a run that is killed again and again is that of a run that nobody touched.
"""

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes_under_test import Lab, Program
from utilities.options import parse_server
from utilities.setup import prepare

MORTAL = Path(__file__).resolve().parent / "mortal.py"
SERVERS, CLIENTS = 42, 8
STEPS = 900  # of the run that nobody touches; all others stay below
KEYS = "--trialsPerStep 32 --directionsPerWindow 16 --seed 5"
SAVING = "--checkPointTime 0.1 --keepCheckpoints 2"
SEED = 7
CHECKPOINT = "disk: rename checkpoints"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL there"),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.close()


@pytest.fixture(scope="module")
def digests(lab: Lab) -> dict[int, str]:
    """Return the digest of each step of a run that nobody touches."""
    small = f"{lab.small} {KEYS} --checkPointTime 1000"
    server = lab.server(f"{small} --localClients 1 --maxSteps {STEPS}")
    assert server.ended() == 0, server
    return digests_of(lab, 0)


def _resume(lab: Lab, run: int) -> str:
    return f"--runs {lab.runs} --data {lab.text} --resume {run}"


def mortal(
    lab: Lab, role: str, moment: int, *words: object, at: str = ""
) -> tuple[Program, Path]:
    """Start a program that dies at a moment; return it and where it says what at."""
    note = lab.folder / f"{len(lab.programs)}.died"
    env = {**os.environ, "MORTAL_FILE": str(note), "MORTAL_AT": at}
    env["XDG_CONFIG_HOME"] = str(lab.folder / "config")
    program = lab.start(role, MORTAL, role, moment, *words, env=env)
    return program, note


def state_of(lab: Lab, run: int) -> tuple[int, str]:
    """Return step and digest of what a run can go on from now."""
    now = prepare(parse_server(_resume(lab, run).split()))
    now.run.close()
    return now.state.step, now.state.digest(now.setting.fingerprint).hex()


def test_killed_servers_lose_no_step(lab: Lab, digests: dict[int, str]) -> None:
    rng, struck, at = random.Random(SEED), dict[str, int](), 0
    begin = f"{lab.small} {KEYS} {SAVING} --localClients 1 --port 0 --runs {lab.runs}"
    resume = f"{_resume(lab, 1)} {SAVING} --localClients 1 --port 0"
    for kill in range(SERVERS):
        # The first moments are those in which a run begins.
        moment = rng.randrange(30, 60) if not kill else rng.randrange(1, 120)
        words = (resume if kill else begin).split()
        at_what = ""
        if kill % 10 == 9:  # a checkpoint that is whole, under its temporary name
            at_what, moment = CHECKPOINT, rng.randrange(1, 3)
        program, note = mortal(lab, "server", moment, *words, at=at_what)
        assert program.ended() == -9, program
        what = note.read_text(encoding="utf-8")
        struck[what] = struck.get(what, 0) + 1
        step, digest = state_of(lab, 1)
        assert step >= at, f"kill {kill}, {what}: step {at - 1} is lost"
        at = step
        assert digests[step] == digest, f"kill {kill}, {what}: not the same state"

    print(
        f"{SERVERS} servers killed ({struck}): at step {at}, all states as undisturbed"
    )
    assert at > SERVERS
    assert struck[CHECKPOINT] >= SERVERS // 10
    assert struck.keys() >= {"send", "disk: write", "disk: sync"}


def test_killed_clients_change_nothing(lab: Lab, digests: dict[int, str]) -> None:
    rng = random.Random(SEED)
    server = lab.server(f"{lab.small} {KEYS} {SAVING}")
    run = max(int(path.name) for path in lab.runs.iterdir() if path.is_dir())
    for kill in range(CLIENTS):
        moment = rng.randrange(1, 30)
        words = [f"127.0.0.1:{server.port}", *lab.code, "--name", f"mortal-{kill}"]
        program, note = mortal(lab, "client", moment, *words)
        assert program.ended() == -9, program
        assert note.read_text(encoding="utf-8") == "send"
    server.signal(signal.SIGINT)
    assert server.ended() == 0, server

    step, digest = lab.last_checkpoint(run)
    assert step > CLIENTS
    assert digests[step] == digest
    assert digests_of(lab, run).items() <= digests.items()
    print(f"{CLIENTS} clients killed: all {step} steps as undisturbed")


def digests_of(lab: Lab, run: int) -> dict[int, str]:
    return {line["step"]: line["digest"] for line in lab.lines(run)}

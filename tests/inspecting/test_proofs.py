"""Any state of a run again, and proofs that its files belong together."""

from pathlib import Path
from typing import Any

import pytest

from tests.inspecting.asked import Ask, asker, complaint, data
from tests.journaled_runs import Trained, alone, same, trained
from utilities.checkpoints import Checkpoint, read_checkpoint
from utilities.errors import RunError
from utilities.inspect import proofs
from utilities.journal import HEADER, Contents
from utilities.recovery import read_journal
from utilities.runs import Run


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Return a run with checkpoints of steps 3 and 7 that is at step 9."""
    monkeypatch.chdir(tmp_path)
    return trained(tmp_path, [3, 4, 2])


@pytest.fixture
def ask(run: Trained, capsys: pytest.CaptureFixture[str]) -> Ask:
    return asker(run.folder / "runs", capsys)


def files(run: Trained) -> dict[Path, bytes]:
    places = [*run.journal.iterdir(), *run.now.run.path.glob("checkpoints/*")]
    return {path: path.read_bytes() for path in places}


# --- replay ---------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "start"), [(3, 3), (4, 3), (6, 3), (7, 7), (9, 7)])
def test_any_state_since_the_oldest_checkpoint_is_rebuilt(
    run: Trained, ask: Ask, step: int, start: int
) -> None:
    before = files(run)

    out, _, status = ask("replay", "0", "--to", str(step), "-o", "state.npz")

    assert status == 0
    assert out.splitlines() == [
        f"run 0, step {step}: {step - start} steps replayed",
        f"digest {run.digest(step).hex()}",
        "written: state.npz",
    ]
    content = Path("state.npz").read_bytes()
    found = read_checkpoint(content, step, run.now.setting.fingerprint)
    assert same(found.state, run.states[step])
    assert files(run) == before


def test_the_newest_state_is_rebuilt_where_none_is_named(
    run: Trained, ask: Ask
) -> None:
    assert data(ask("replay", "--json")) == {
        "number": 0,
        "step": 9,
        "from": 7,
        "digest": run.digest(9).hex(),
        "file": None,
    }
    assert data(ask("replay", "--json", "-o", "a.npz"))["file"] == "a.npz"


def test_a_run_without_a_journal_has_its_checkpoints(run: Trained, ask: Ask) -> None:
    for path in run.journal.iterdir():
        path.unlink()

    assert data(ask("replay", "--json"))["step"] == 7


def test_a_long_replay_is_announced(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utilities.inspect.proofs._MANY", 1)

    assert ask("replay")[1] == "replaying 2 steps\n"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("10", "to 9, where the journal ends or is damaged, got 10"),
        ("2", "expected a checkpoint of step 2, found checkpoints 3, 7"),
    ],
)
def test_a_step_that_is_not_covered_is_refused(
    ask: Ask, step: str, message: str
) -> None:
    answer = ask("replay", "--to", step)

    assert message in complaint(answer)
    assert answer[2] == 6


def test_a_damaged_checkpoint_is_passed_over_and_said_so(
    run: Trained, ask: Ask
) -> None:
    flip(run.now.run.checkpoint_path(7), 300)

    out, err, status = ask("replay")

    assert status == 0
    assert out.startswith("run 0, step 9: 6 steps replayed\n")
    assert "step-000007.npz: damaged; the one before is used" in err


# --- verify ---------------------------------------------------------------------------


def test_a_sound_run_is_proved(run: Trained, ask: Ask) -> None:
    out, err, status = ask("verify", "0")

    assert (err, status) == ("", 0)
    assert out.splitlines() == [
        "ok    checkpoint 3: sound",
        "ok    checkpoint 7: sound",
        "ok    journal step-000003.log: steps 3 to 6",
        "ok    journal step-000007.log: steps 7 to 8",
        "ok    replay from step 3: proved up to step 9",
    ]
    assert data(ask("verify", "--json"))["sound"] is True


def test_an_empty_file_of_the_journal_is_sound(run: Trained, ask: Ask) -> None:
    file = run.file(7)
    file.write_bytes(file.read_bytes()[: HEADER.size])

    assert "ok    journal step-000007.log: empty" in ask("verify")[0]


def faults(answer: tuple[str, str, int]) -> list[str]:
    """Return what a verdict finds wrong."""
    out, err, status = answer
    found = [line for line in out.splitlines() if line.startswith("FAULT ")]
    assert status == 6
    assert f"{len(found)} of {len(out.splitlines())} proofs failed; --resume" in err
    return [line.removeprefix("FAULT ") for line in found]


def test_a_damaged_checkpoint_is_found(run: Trained, ask: Ask) -> None:
    flip(run.now.run.checkpoint_path(7), 300)

    (fault,) = faults(ask("verify"))

    assert fault.startswith("checkpoint 7: ")


def test_a_damaged_record_is_found_and_what_cannot_be_proved(
    run: Trained, ask: Ask
) -> None:
    flip(run.file(3), HEADER.size + 40)

    damaged, missing = faults(ask("verify"))

    assert damaged == f"journal step-000003.log: damaged at step 3, byte {HEADER.size}"
    assert missing == "journal: steps 3 to 8 are not in the journal"
    assert ask("verify", "--json")[2] == 6


def test_a_checkpoint_of_another_history_is_found(run: Trained, ask: Ask) -> None:
    state = run.states[6]
    with run.prepared("--resume").run as locked:
        later = type(state)(7, state.count, *state.arrays)
        digest = later.digest(run.now.setting.fingerprint)
        locked.save_checkpoint(later, digest, 7.5)

    (fault,) = faults(ask("verify"))

    assert fault.startswith("checkpoint 7: is not what the journal leads to")


def test_a_journal_of_another_history_is_found(run: Trained, ask: Ask) -> None:
    state = run.states[2]
    with run.prepared("--resume").run as locked:
        earlier = type(state)(3, state.count, *state.arrays)
        digest = earlier.digest(run.now.setting.fingerprint)
        locked.save_checkpoint(earlier, digest, 3.5)

    (fault,) = faults(ask("verify"))

    assert fault.startswith("replay from step 3: step 3: the journal expects the state")


def test_a_client_alone_that_had_another_state_is_told_of(
    run: Trained, ask: Ask
) -> None:
    run.adopt(run.prepared("--resume"))
    alone(run, bytes(32))
    run.close()

    out, _, status = ask("verify", "0")

    assert status == 0
    assert "ok    replay from step 3: proved up to step 10" in out
    assert "ok    digests: the one client of step 9 had another state than" in out


@pytest.mark.parametrize("ahead", [True, False])
def test_a_run_that_goes_on_meanwhile_is_proved(
    run: Trained, ask: Ask, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    run.adopt(run.prepared("--resume"))
    left = [3]

    def advance() -> None:
        if left[0]:  # times, each of which removes the oldest checkpoint
            left[0] -= 1
            run.step()
            run.save()

    def read(*about: Any) -> list[Contents]:
        if ahead:
            advance()
        contents = read_journal(*about)
        advance()
        return contents

    monkeypatch.setattr(proofs, "read_journal", read)
    out, _, status = ask("verify", "0")
    run.close()

    assert status == 0, out
    assert "FAULT" not in out
    assert "ok    replay from step 11: proved up to step 12" in out


def test_a_checkpoint_that_is_removed_meanwhile_is_not_missed(
    run: Trained, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def load(self: Run, fingerprint: bytes, step: int | None = None) -> Checkpoint:
        asked.append(step or 0)
        if len(asked) == 1:
            run.now.run.checkpoint_path(3).unlink()
        return real(self, fingerprint, step)

    real = Run.load_checkpoint
    monkeypatch.setattr(Run, "load_checkpoint", load)
    out, _, status = ask("verify", "0")

    assert status == 0
    assert asked == [3, 7]
    assert "checkpoint 3" not in out


def test_a_checkpoint_that_nobody_may_read_is_said_to_be_one(
    run: Trained, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Checkpoint:
        raise RunError("step-000003.npz: cannot be read") from PermissionError()

    monkeypatch.setattr(Run, "load_checkpoint", refuse)
    assert "cannot be read" in complaint(ask("verify", "0"))


def test_a_run_without_a_sound_checkpoint_has_faults_only(
    run: Trained, ask: Ask
) -> None:
    for step in (3, 7):
        flip(run.now.run.checkpoint_path(step), 300)

    assert len(faults(ask("verify"))) == 2

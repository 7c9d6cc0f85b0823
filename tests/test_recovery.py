"""The newest state of a run, whatever has happened to its files."""

import json
from pathlib import Path

import pytest

from tests.journaled_runs import Trained, alone, same, trained
from utilities import recovery
from utilities.errors import ConfigError, DamageError, RunError
from utilities.history import pack
from utilities.journal import HEADER, Journal, journal_files
from utilities.options import parse_server
from utilities.recovery import (
    damages,
    entries_from,
    identity_of,
    journal_of,
    read_journal,
    recover,
)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def lines(run: Trained, name: str) -> list[str]:
    return (run.now.run.path / name).read_text(encoding="utf-8").splitlines()


# --- crashes --------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [[0], [5], [5, 0], [3, 4], [3, 4, 2, 3]])
def test_no_step_is_lost(tmp_path: Path, plan: list[int]) -> None:
    run = trained(tmp_path, plan)

    found = run.resumed()

    assert same(found.state, run.states[-1])
    assert found.saved == sum(plan[:-1])
    assert [entry.step for entry in found.entries] == list(
        range(found.saved, sum(plan))
    )
    assert found.seconds == (sum(plan) - 0.5 if plan[-1] else sum(plan[:-1]) + 0.5) or (
        plan == [0]
    )
    assert found.notes == ()


def test_a_bit_that_flipped_in_a_client_alone_costs_no_step(tmp_path: Path) -> None:
    run = Trained(tmp_path)
    run.step()
    for _ in range(2):
        alone(run, bytes(32))
    run.step()
    run.close()

    found = run.resumed()

    assert same(found.state, run.states[4])
    assert [entry.digest for entry in found.entries] == list(map(run.digest, range(4)))
    (note,) = found.notes
    assert note.startswith("the one client of step 1 had another state than")
    assert "(2 in all)" in note


def test_a_run_goes_on_from_what_was_recovered(tmp_path: Path) -> None:
    run = trained(tmp_path, [3, 2])
    for _ in range(3):  # sessions that each crash
        run.adopt(run.prepared("--resume"))
        assert same(run.now.state, run.states[-1])
        run.step()
        run.step()
        run.close()

    assert same(run.resumed().state, run.states[-1])
    assert run.states[-1].step == 11


def test_a_session_without_a_step_leaves_the_journal_as_it_is(tmp_path: Path) -> None:
    run = trained(tmp_path, [3])
    before = run.file(0).read_bytes()
    for _ in range(2):
        run.resumed()

    assert [path.name for path in run.journal.iterdir()] == ["step-000000.log"]
    assert run.file(0).read_bytes() == before


def test_the_replay_is_told_of(tmp_path: Path) -> None:
    run = trained(tmp_path, [4])
    run.adopt(run.prepared("--resume"))
    told: list[tuple[int, int]] = []

    recover(
        *(run.now.run, run.now.setting, run.now.corpus),
        on_step=lambda done, steps: told.append((done, steps)),
    )
    run.close()

    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_lines_that_a_crash_has_lost_are_written_again(tmp_path: Path) -> None:
    run = trained(tmp_path, [3, 4])
    folder = run.now.run.path
    (folder / "loss.txt").write_bytes(b"3.0\n2.9\n2.8\n2.7\n2.")
    own = {"step": 3, "loss": 2.7}
    (folder / "metrics.jsonl").write_text(json.dumps(own) + "\n" + '{"step"')

    run.resumed()

    assert lines(run, "loss.txt") == ["3.0", "2.9", "2.8", "2.7"] + [
        f"{3.0 - step / 100:.6f}" for step in (4, 5, 6)
    ]
    metrics = [json.loads(line) for line in lines(run, "metrics.jsonl")]
    assert [line["step"] for line in metrics] == [3, 4, 5, 6]
    assert metrics[-1] == {
        **dict.fromkeys(
            ["validationLoss", "timePerStep", "trialSeconds", "updateSeconds"]
        ),
        **{"gradientQuality": None, "aggregation": "seeds", "trials": 64},
        **{"step": 6, "time": 1e9 + 6, "seconds": 6.5, "loss": 2.94},
        **{"clients": 2, "late": 0, "dropped": 0, "digest": run.digest(6).hex()},
        **dict.fromkeys(["audits", "disagreements", "expelled", "repeated"], 0),
    }


def test_what_the_logs_have_beyond_the_state_is_cut_and_told_of(
    tmp_path: Path,
) -> None:
    run = trained(tmp_path, [2])
    (run.now.run.path / "loss.txt").write_bytes(b"3.0\n2.9\n2.8\n2.7\n")

    (note,) = run.resumed().notes

    assert "the logs tell of steps up to 3, checkpoints and journal end at 2" in note
    assert run.resumed().notes == ()
    assert lines(run, "loss.txt") == ["3.0", "2.9"]


def test_a_file_that_the_server_removes_meanwhile_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path, [3, 4, 2])
    names = journal_files(run.journal)
    gone = (1, run.journal / "step-000001.log")
    monkeypatch.setattr(recovery, "journal_files", lambda _: [gone, *names])

    found = read_journal(run.now.run, run.now.setting)

    assert [file.path for file in found] == [path for _, path in names]


def test_a_file_of_the_journal_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path, [3])
    run.file(9).mkdir()

    with pytest.raises(RunError, match=r"step-000009\.log: cannot be read: "):
        read_journal(run.now.run, run.now.setting)


def test_an_unfinished_record_is_cut_and_kept_aside(tmp_path: Path) -> None:
    run = trained(tmp_path, [3])
    file, sound = run.file(0), run.file(0).read_bytes()
    file.write_bytes(sound[:-5])

    found = run.resumed()

    assert same(found.state, run.states[2])
    assert found.notes == (f"{file}: its last record was unfinished and is cut off",)
    assert (run.journal / "step-000000.log.broken").read_bytes() == sound[:-5]
    again = run.resumed()
    assert same(again.state, run.states[2])
    assert again.notes == ()


def test_a_journal_that_is_older_than_the_checkpoint_does_no_harm(
    tmp_path: Path,
) -> None:
    run = trained(tmp_path, [3, 0])

    assert run.resumed().state.step == 3


def test_a_run_of_a_time_without_journals_is_resumed(tmp_path: Path) -> None:
    run = trained(tmp_path, [3, 2])
    for path in run.journal.iterdir():
        path.unlink()
    run.journal.rmdir()

    assert same(run.resumed().state, run.states[3])


# --- damage ---------------------------------------------------------------------------


def test_a_damaged_checkpoint_costs_nothing_but_a_longer_replay(tmp_path: Path) -> None:
    run = trained(tmp_path, [3, 4, 2])
    newest = run.now.run.checkpoint_path(7)
    flip(newest, 300)

    found = run.resumed()

    assert same(found.state, run.states[-1])
    assert (found.saved, len(found.entries)) == (3, 6)
    assert found.notes == (f"{newest}: damaged; it is kept aside",)
    assert newest.with_name("step-000007.npz.broken").exists()
    assert run.now.run.checkpoint_steps() == [3]


def test_without_a_sound_checkpoint_the_run_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path, [3, 4, 2])
    for step in (3, 7):
        flip(run.now.run.checkpoint_path(step), 300)

    with pytest.raises(DamageError, match=r"step-000003\.npz: the file was cut off"):
        run.resumed()
    assert run.now.run.checkpoint_steps() == [3, 7]


def test_without_any_checkpoint_the_run_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path, [3])
    run.now.run.checkpoint_path(0).unlink()

    with pytest.raises(RunError, match="expected a checkpoint, found no checkpoint"):
        run.resumed()


@pytest.mark.parametrize(
    ("first", "place", "step"), [(3, HEADER.size + 40, 3), (7, -100, 8)]
)
def test_damage_is_refused_by_name_and_changes_nothing(
    tmp_path: Path, first: int, place: int, step: int
) -> None:
    run = trained(tmp_path, [3, 4, 2])
    file = run.file(first)
    flip(file, place)
    before = {path: path.read_bytes() for path in run.journal.iterdir()}

    with pytest.raises(RunError, match=f"record of step {step}, at byte .*--salvage"):
        run.resumed()

    assert {path: path.read_bytes() for path in run.journal.iterdir()} == before


def test_damage_before_the_newest_checkpoint_costs_no_step(tmp_path: Path) -> None:
    run = trained(tmp_path, [3, 4, 2])
    flip(run.file(3), HEADER.size + 40)

    found = run.resumed("--salvage")

    assert same(found.state, run.states[-1])
    assert found.notes[0].endswith("damaged")
    assert (run.journal / "step-000003.log.broken").exists()
    assert same(run.resumed().state, run.states[-1])


def test_damage_behind_it_costs_the_steps_from_there_on(tmp_path: Path) -> None:
    run = trained(tmp_path, [3, 4])
    sound = run.file(3).read_bytes()
    flip(run.file(3), HEADER.size + 2 * (len(sound) - HEADER.size) // 4 + 50)

    found = run.resumed("--salvage")

    assert same(found.state, run.states[5])
    assert found.saved == 5  # it does not depend on what is set aside
    assert run.resumed().state.step == 5


def test_a_damaged_header_is_refused_or_salvaged(tmp_path: Path) -> None:
    run = trained(tmp_path, [3, 4])
    flip(run.file(3), 3)

    with pytest.raises(RunError, match=r"step-000003\.log: expected the header"):
        run.resumed()
    found = run.resumed("--salvage")

    assert same(found.state, run.states[3])
    assert (run.journal / "step-000003.log.broken").exists()
    assert run.resumed().notes == ()


def test_an_unfinished_end_before_another_file_is_damage(tmp_path: Path) -> None:
    run = trained(tmp_path, [3, 4])
    run.file(0).write_bytes(run.file(0).read_bytes()[:-5])

    with pytest.raises(RunError, match="record of step 2"):
        run.resumed()


def test_a_file_that_is_missing_is_a_gap(tmp_path: Path) -> None:
    run = trained(tmp_path, [3, 4, 0, 2])
    run.now.run.checkpoint_path(7).unlink()
    run.file(3).unlink()

    with pytest.raises(RunError, match="the steps from 3 up to those of this file"):
        run.resumed()
    found = run.resumed("--salvage")

    assert same(found.state, run.states[3])
    assert found.notes == (f"{run.file(7)}: it is kept aside",)


def test_a_replay_that_contradicts_the_journal_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path, [3])
    other = trained(tmp_path / "other", [4])
    data = pack(next(entries_from(read_journal(other.now.run, other.now.setting), 3)))
    run.adopt(run.prepared("--resume"))
    run.now.journal.append(
        3,
        run.digest(2),
        data.replace(other.digest(3).hex().encode(), run.digest(2).hex().encode()),
    )
    run.close()

    with pytest.raises(RunError, match="step 3: the journal expects the state"):
        run.resumed()
    found = run.resumed("--salvage")

    assert found.state.step == 3
    assert "the replay gives" in found.notes[0]


@pytest.mark.parametrize("payload", [b"nothing", b"a later step"])
def test_a_record_of_another_version_is_refused(tmp_path: Path, payload: bytes) -> None:
    run = trained(tmp_path, [3])
    if payload == b"a later step":
        other = trained(tmp_path / "other", [4])
        entries = entries_from(read_journal(other.now.run, other.now.setting), 2)
        payload = pack(next(entries))
    run.adopt(run.prepared("--resume"))
    run.now.journal.append(3, run.digest(3), payload)
    run.close()

    with pytest.raises(RunError, match=r"step 3 is not understood|expected step 3"):
        run.resumed()


def test_salvage_needs_a_run_to_mend() -> None:
    with pytest.raises(ConfigError, match="--salvage: mends a run that is resumed"):
        parse_server(["--salvage"])


# --- who a journal belongs to ---------------------------------------------------------


def test_a_journal_belongs_to_one_run_and_tells_nothing_of_its_seed(
    tmp_path: Path,
) -> None:
    run, other = trained(tmp_path / "a", [2]), Trained(tmp_path / "b", keys="--seed 6")
    other.close()
    mine, its = (
        identity_of(each.now.run.record, each.now.setting.fingerprint)
        for each in (run, other)
    )

    assert mine.run != its.run
    assert (5).to_bytes(8, "little") not in mine.run
    other.journal.mkdir()
    run.file(0).rename(other.file(0))
    with pytest.raises(RunError, match="expected the journal of this run"):
        other.resumed()


def test_only_who_has_the_lock_writes_the_journal(tmp_path: Path) -> None:
    run = trained(tmp_path, [2])

    with pytest.raises(AssertionError):
        journal_of(run.now.run, run.now.setting)
    assert isinstance(run.now.journal, Journal)
    assert damages(read_journal(run.now.run, run.now.setting)) == []

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.small_runs import new_run
from utilities.credits import Credit, CreditLog, read_credits
from utilities.disk import Disk
from utilities.errors import RunError
from utilities.runs import Run


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with new_run(tmp_path) as run:
        yield run


def test_a_run_without_the_file_has_no_credits(run: Run) -> None:
    assert read_credits(run.path) == (0, [])


def test_what_machines_gave_is_added_up(run: Run) -> None:
    log = CreditLog(run)
    log.add(0, [("lab-1", 100, 4000.0), ("lab-2", 300, 9000.5)])
    log.add(1, [("lab-1", 150, 5000.25)])
    log.save(2)

    assert read_credits(run.path) == (
        2,
        [Credit("lab-2", 300, 1, 9000.5), Credit("lab-1", 250, 2, 9000.25)],
    )


def test_steps_beyond_the_checkpoint_wait_for_the_next_one(run: Run) -> None:
    log = CreditLog(run)
    log.add(0, [("a", 10, 1.0)])
    log.add(1, [("a", 20, 2.0)])
    log.save(1)
    assert read_credits(run.path) == (1, [Credit("a", 10, 1, 1.0)])

    log.save(2)
    assert read_credits(run.path) == (2, [Credit("a", 30, 2, 3.0)])


def test_a_resume_goes_on_and_counts_no_step_twice(run: Run) -> None:
    log = CreditLog(run)
    for step in range(5):
        log.add(step, [("a", 10, 1.0)])
    log.save(4)

    resumed = CreditLog(run)  # at an older checkpoint: the newest one was damaged
    for step in range(2, 7):
        resumed.add(step, [("a", 10, 1.0), ("b", 5, 1.0)])
    resumed.save(7)
    assert read_credits(run.path) == (
        7,
        [Credit("a", 70, 7, 7.0), Credit("b", 15, 3, 3.0)],
    )
    resumed.save(3)
    assert read_credits(run.path)[0] == 7


def test_trials_are_those_of_all_steps_saved_or_not(run: Run) -> None:
    log = CreditLog(run)
    assert log.trials == 0
    log.add(0, [("a", 100, 1.0), ("b", 50, 1.0)])
    assert log.trials == 150
    log.save(1)
    log.add(1, [("a", 30, 1.0)])
    log.add(2, [])
    assert log.trials == 180
    log.save(3)
    assert log.trials == 180

    resumed = CreditLog(run)
    resumed.add(2, [("a", 7, 1.0)])  # was counted before
    resumed.add(3, [("c", 5, 1.0)])
    assert resumed.trials == 185


def test_a_full_disk_loses_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = CreditLog(run)
    log.add(0, [("a", 10, 1.0)])
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "replace", full)
        with pytest.raises(RunError, match=r"credits\.json: cannot be written"):
            log.save(1)
    assert read_credits(run.path) == (0, [])
    log.add(1, [("a", 5, 1.0)])
    log.save(2)

    assert read_credits(run.path) == (2, [Credit("a", 15, 2, 2.0)])


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"clients": []},
        {"clients": {"a": 1}},
        {"clients": {"a": {"trials": 1, "steps": 1}}},
        {"clients": {"a": {"trials": -1, "steps": 1, "reward": 1}}},
        {"clients": {"a": {"trials": 10**400, "steps": 1, "reward": 1}}},
        {"step": -1, "clients": {}},
        {"step": "1", "clients": {}},
    ],
)
def test_what_makes_no_sense_is_left_out(run: Run, content: Any) -> None:
    (run.path / "credits.json").write_text(json.dumps(content))

    assert read_credits(run.path) == (0, [])


def test_a_damaged_file_is_named(run: Run) -> None:
    (run.path / "credits.json").write_text("{")

    with pytest.raises(RunError, match=r"credits\.json: expected JSON"):
        CreditLog(run)

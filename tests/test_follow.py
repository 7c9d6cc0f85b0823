import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.small_runs import metrics, new_run
from utilities.curves import Curves
from utilities.errors import RunError
from utilities.follow import Logs, Tail
from utilities.logfiles import LOSSES, METRICS, read_losses, read_metrics
from utilities.runlogs import RunLog


def line(step: int, **changes: Any) -> bytes:
    plain = {"step": step, "seconds": step + 1.0, "trials": 10, "clients": 1}
    return json.dumps({**plain, **changes}).encode() + b"\n"


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


# One file.


def test_lines_are_read_once_and_only_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.read() == []  # it is not there yet
    append(path, b"one\ntwo\nthr")
    assert tail.read() == [b"one", b"two"]
    assert tail.read() == []
    append(path, b"ee\n")
    assert tail.read() == [b"three"]


@given(st.lists(st.binary(max_size=30), max_size=8))
def test_however_a_file_grows_each_line_comes_once(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("tail") / "log"
    tail, found = Tail(path), []
    for piece in pieces:
        append(path, piece)
        lines = tail.read()
        assert lines is not None
        found += lines

    assert found == b"".join(pieces).split(b"\n")[:-1]


def test_a_file_that_was_cut_or_replaced_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\n")
    tail = Tail(path)
    for content in (b"one\n", b"one\nTWO\nthree\n", b""):
        path.write_bytes(b"one\ntwo\n")
        tail.rewind()
        assert tail.read() == [b"one", b"two"]
        path.write_bytes(content)
        assert tail.read() is None
    path.unlink()
    assert tail.read() is None
    tail.rewind()
    assert tail.read() == []


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be read"):
        Tail(tmp_path).read()  # a folder


# Both logs of a run.


def alike(logs: Logs, folder: Path, first_step: int = 0) -> None:
    """Assert that what was read bit by bit is what the files say as a whole."""
    ours = logs.curves(0)
    theirs = Curves(first_step, 0, read_metrics(folder), read_losses(folder))
    assert ours.figures == theirs.figures
    assert np.array_equal(ours.losses, theirs.losses, equal_nan=True)
    for key in ("seconds", "validationLoss", "gradientQuality"):
        for least in (0.0, -1.0):
            column = ours.column(key, least)
            assert np.array_equal(column, theirs.column(key, least), equal_nan=True)
    for by in ("step", "time", "trials"):
        assert np.array_equal(ours.loss(by).x, theirs.loss(by).x, equal_nan=True)


def test_what_is_read_as_it_grows_is_what_is_there(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        log, logs = RunLog(run), Logs(run.path, 0)
        logs.read()
        alike(logs, run.path)
        for step in range(20):
            validation = 3.0 / (step + 1) if step % 7 == 0 else None
            quality = -0.01 if step % 2 else 0.02
            log.append_step(
                metrics(step, validation_loss=validation, gradient_quality=quality)
            )
            if step % 3 == 0:
                log.flush()
                logs.read()
                alike(logs, run.path)
        assert logs.epoch == 0


def test_after_a_resume_all_is_read_anew(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        log, logs = RunLog(run), Logs(run.path, 0)
        for step in range(10):
            log.append_step(metrics(step))
        log.close()
        logs.read()
        log.cut_logs(4)
        log.append_step(metrics(4, loss=9.0))
        log.close()
        logs.read()

        alike(logs, run.path)
        assert logs.epoch == 1
        assert logs.losses[4] == 9.0


def test_lines_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    logs = Logs(tmp_path, 0)
    append(tmp_path / METRICS, line(0) + line(2))
    logs.read()
    append(tmp_path / METRICS, line(1) + b'{"torn\n' + line(3))
    logs.read()

    assert logs.numbers["step"].tolist() == [0, 1, 2, 3]
    assert logs.epoch == 1
    alike(logs, tmp_path)


def test_what_makes_no_sense_is_a_gap(tmp_path: Path) -> None:
    append(tmp_path / METRICS, line(0, seconds="x", trials=-3, clients=1))
    append(tmp_path / LOSSES, b"2.5\nx\n1e30\n")
    logs = Logs(tmp_path, 0)
    logs.read()

    curves = logs.curves(0)
    assert np.isnan(curves.column("seconds")).all()
    assert np.isnan(curves.column("trials")).all()
    assert curves.losses[0] == 2.5
    assert np.isnan(curves.losses[1:]).all()

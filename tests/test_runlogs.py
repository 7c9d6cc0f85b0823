import errno
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utilities.config import Config
from utilities.data import Vocabulary
from utilities.disk import Disk
from utilities.errors import RunError
from utilities.runlogs import (
    FIRST_SAMPLES,
    FULL_STEPS,
    SAMPLE_CHARACTERS,
    SAMPLES_BYTES,
    RunLog,
    StepMetrics,
    read_losses,
    read_metrics,
)
from utilities.runs import Run, RunRecord, RunStore

FIRST_STEP = 40
PLAIN = StepMetrics(
    step=FIRST_STEP,
    time=1700000000.12345,
    seconds=0.1,
    loss=2.5,
    validation_loss=None,
    trials=1024,
    clients=2,
    late=0,
    dropped=0,
    digest="ab" * 32,
    aggregation="seeds",
    time_per_step=0.1464123456,
    trial_seconds=0.1459876543,
    update_seconds=0.0078925123,
    gradient_quality=-0.0893252214,
)


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    record = RunRecord(Config(step_num=FIRST_STEP), 1, "text", "0" * 64, ("/a",), "1.0")
    with RunStore(tmp_path).create(record, Vocabulary(("", "", "a")), None) as run:
        yield run


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def log(run: Run, clock: FakeClock) -> RunLog:
    return RunLog(run, clock)


def step(number: int, **changes: Any) -> StepMetrics:
    """Return a step of a tenth of a second."""
    seconds = (number - FIRST_STEP) / 10
    return replace(PLAIN, step=number, seconds=seconds, **changes)


def grow(log: RunLog, first: int, last: int) -> None:
    for number in range(first, last):
        log.append_step(step(number, loss=number / 8))


def content(run: Run, name: str) -> bytes:
    return (run.path / name).read_bytes()


def failing_append(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Steps.


def test_a_line_has_exactly_the_promised_keys(run: Run, log: RunLog) -> None:
    more = replace(PLAIN, validation_loss=2.71828182845, late=3, dropped=4)
    log.append_step(replace(more, audits=7, disagreements=1, expelled=1, repeated=448))

    assert content(run, "metrics.jsonl") == (
        b'{"step":40,"time":1700000000.123,"seconds":0.1,"loss":2.5,'
        b'"validationLoss":2.718282,"trials":1024,"clients":2,"late":3,"dropped":4,'
        b'"digest":"' + b"ab" * 32 + b'","aggregation":"seeds","timePerStep":0.146412,'
        b'"trialSeconds":0.145988,"updateSeconds":0.007893,"gradientQuality":-0.089325,'
        b'"audits":7,"disagreements":1,"expelled":1,"repeated":448}'
        b"\n"
    )
    assert content(run, "loss.txt") == b"2.500000\n"


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null_and_nan(
    run: Run, log: RunLog, nothing: float | None
) -> None:
    log.append_step(
        replace(
            PLAIN,
            loss=nothing,
            validation_loss=nothing,
            time_per_step=nothing,
            trial_seconds=nothing,
            update_seconds=nothing,
            gradient_quality=nothing,
        )
    )

    metrics = read_metrics(run)
    assert len(metrics) == 1
    assert [key for key, value in metrics[0].items() if value is None] == [
        *("loss", "validationLoss"),
        *("timePerStep", "trialSeconds", "updateSeconds", "gradientQuality"),
    ]
    assert content(run, "loss.txt") == b"nan\n"
    assert math.isnan(read_losses(run)[0])


def test_lines_do_not_wait_for_a_next_step(
    run: Run, log: RunLog, clock: FakeClock
) -> None:
    log.append_step(step(FIRST_STEP, loss=4.0))
    log.append_step(step(FIRST_STEP + 1, loss=3.0))
    log.flush_in_time()
    assert content(run, "loss.txt") == b"4.000000\n"

    clock.now += 1.0
    log.flush_in_time()

    assert content(run, "loss.txt") == b"4.000000\n3.000000\n"


def test_line_i_of_the_losses_is_step_i_of_the_run(run: Run, log: RunLog) -> None:
    log.append_step(step(FIRST_STEP, loss=4.0))
    log.append_step(step(FIRST_STEP + 3, loss=3.0))  # nobody reported two steps
    log.flush()

    assert content(run, "loss.txt") == b"4.000000\nnan\nnan\n3.000000\n"
    assert [m["step"] for m in read_metrics(run)] == [FIRST_STEP, FIRST_STEP + 3]


def test_a_step_is_logged_once(log: RunLog) -> None:
    log.append_step(step(FIRST_STEP))
    with pytest.raises(AssertionError, match="step 40 comes after 40"):
        log.append_step(step(FIRST_STEP))


def test_lines_are_gathered_for_a_second(
    run: Run, log: RunLog, clock: FakeClock
) -> None:
    def lines() -> tuple[int, int]:
        return len(read_metrics(run)), len(read_losses(run))

    assert lines() == (0, 0)
    log.append_step(step(40))
    assert lines() == (1, 1)
    clock.now += 0.9
    log.append_step(step(41))
    assert lines() == (1, 1)
    clock.now += 0.1
    log.append_step(step(42))
    assert lines() == (3, 3)
    log.append_step(step(43))
    log.flush()
    assert lines() == (4, 4)
    log.append_step(step(44))
    log.close()
    assert lines() == (5, 5)


def test_nothing_to_write_makes_no_file(run: Run, log: RunLog) -> None:
    before = sorted(run.path.iterdir())

    log.flush()
    log.cut_logs(FIRST_STEP)
    log.close()

    assert sorted(run.path.iterdir()) == before


def test_a_log_needs_the_lock(tmp_path: Path, run: Run) -> None:
    with pytest.raises(AssertionError, match="opened for reading"):
        RunLog(RunStore(tmp_path).open(lock=False))


# Thinning.


def test_after_the_first_thousand_steps_a_line_a_second_stays(
    run: Run, log: RunLog
) -> None:
    last = FIRST_STEP + FULL_STEPS + 100
    grow(log, FIRST_STEP, last)
    log.flush()

    steps = [metrics["step"] for metrics in read_metrics(run)]
    full = list(range(FIRST_STEP, FIRST_STEP + FULL_STEPS))
    assert steps[:FULL_STEPS] == full
    assert steps[FULL_STEPS:] == [full[-1] + 10 * i for i in range(1, 11)]
    assert len(read_losses(run)) == FULL_STEPS + 100


def test_lines_that_say_more_always_stay(run: Run, log: RunLog) -> None:
    start = FIRST_STEP + FULL_STEPS
    log.append_step(step(start))
    log.append_step(step(start + 1))
    log.append_step(step(start + 2, validation_loss=2.0))
    log.append_step(step(start + 3, dropped=1))
    log.append_step(step(start + 4, late=1))
    log.flush()

    assert [m["step"] - start for m in read_metrics(run)] == [0, 2, 3]


def test_the_last_step_stays_when_the_log_is_closed(run: Run, log: RunLog) -> None:
    start = FIRST_STEP + FULL_STEPS
    grow(log, start, start + 5)
    log.close()
    log.close()

    assert [m["step"] - start for m in read_metrics(run)] == [0, 4]


def test_a_night_stays_small(run: Run, log: RunLog) -> None:
    # A hundredth of ten hours; what is above the first thousand steps counts 100 times.
    grow(log, FIRST_STEP, FIRST_STEP + FULL_STEPS)
    log.flush()
    start = len(content(run, "metrics.jsonl"))
    grow(log, FIRST_STEP + FULL_STEPS, FIRST_STEP + FULL_STEPS + 3600)
    log.flush()

    grown = len(content(run, "metrics.jsonl")) - start
    assert start + 100 * grown < 15e6


# Cutting back.


def test_a_resume_cuts_what_comes_again(run: Run, log: RunLog) -> None:
    grow(log, FIRST_STEP, FIRST_STEP + 10)
    for number in (FIRST_STEP, FIRST_STEP + 5, FIRST_STEP + 6):
        log.append_sample(number, f"sample {number}")
    log.flush()

    log.cut_logs(FIRST_STEP + 5)

    assert [m["step"] for m in read_metrics(run)] == [40, 41, 42, 43, 44]
    assert read_losses(run).tolist() == [5, 5.125, 5.25, 5.375, 5.5]
    assert content(run, "samples.txt") == (
        b"=== step 40 ===\nsample 40\n\n=== step 45 ===\nsample 45\n\n"
    )
    grow(log, FIRST_STEP + 5, FIRST_STEP + 7)
    log.close()
    assert [m["step"] for m in read_metrics(run)] == [40, 41, 42, 43, 44, 45, 46]
    assert read_losses(run).tolist() == [n / 8 for n in range(40, 47)]


@pytest.mark.parametrize(
    ("measured", "told"), [(None, 2.25), (2.5, 2.5)], ids=["carried", "measured anew"]
)
def test_a_resume_keeps_the_validation_loss_that_a_session_ended_with(
    run: Run, log: RunLog, measured: float | None, told: float
) -> None:
    end = step(FIRST_STEP + 2, loss=None, clients=0, trials=0, validation_loss=2.25)
    grow(log, FIRST_STEP, FIRST_STEP + 2)
    log.append_state(end)
    log.close()
    whole = content(run, "metrics.jsonl")

    log.cut_logs(FIRST_STEP + 2)  # a session without a step changes nothing
    log.close()
    assert content(run, "metrics.jsonl") == whole

    log = RunLog(run, FakeClock())
    log.append_step(step(FIRST_STEP + 2, validation_loss=measured))
    log.append_step(step(FIRST_STEP + 3))
    log.close()
    lines = [(m["step"], m["clients"], m["validationLoss"]) for m in read_metrics(run)]
    assert lines[2:] == [(42, PLAIN.clients, told), (43, PLAIN.clients, None)]


def test_the_end_of_a_session_stays_with_its_own_step(run: Run, log: RunLog) -> None:
    grow(log, FIRST_STEP, FIRST_STEP + 2)
    log.append_state(step(FIRST_STEP + 2, loss=None, clients=0, validation_loss=2.25))
    log.close()
    log.cut_logs(FIRST_STEP + 2)
    log.append_step(step(FIRST_STEP + 3))  # the one before was lost
    log.close()
    found = [(m["step"], m["validationLoss"]) for m in read_metrics(run)]
    assert found[2:] == [(42, 2.25), (43, None)]  # an end stays what it was

    log.cut_logs(FIRST_STEP + 1)
    assert [m["step"] for m in read_metrics(run)] == [40]


def test_a_resume_forgets_what_was_not_written(run: Run, log: RunLog) -> None:
    start = FIRST_STEP + FULL_STEPS
    grow(log, start, start + 3)  # two are gathered, the last of them thinned out

    log.cut_logs(start)
    log.close()
    assert read_metrics(run) == []

    grow(log, start, start + 1)
    log.close()
    assert [m["step"] for m in read_metrics(run)] == [start]
    assert len(read_losses(run)) == FULL_STEPS + 1


def test_a_torn_line_is_passed_over_and_cut(run: Run, log: RunLog) -> None:
    grow(log, FIRST_STEP, FIRST_STEP + 3)
    log.close()
    whole = content(run, "metrics.jsonl")
    for size in range(len(whole)):
        (run.path / "metrics.jsonl").write_bytes(whole[:size])
        # Without its line end a line may be whole; without its brace it is not.
        expected = whole[: size + 1].count(b"}\n") or whole[:size].count(b"}")
        assert [m["step"] for m in read_metrics(run)] == list(range(40, 40 + expected))

    (run.path / "metrics.jsonl").write_bytes(whole[:-40])
    (run.path / "loss.txt").write_bytes(b"5.000000\n5.1")
    assert read_losses(run).tolist() == [5.0]
    again = RunLog(run, FakeClock())
    again.cut_logs(FIRST_STEP + 3)
    grow(again, FIRST_STEP + 3, FIRST_STEP + 4)

    assert [m["step"] for m in read_metrics(run)] == [40, 41, 43]
    assert content(run, "loss.txt") == b"5.000000\nnan\nnan\n5.375000\n"


@pytest.mark.parametrize("damage", [b"\0" * 50, b"[1]", b'{"step":"x"}', b"[" * 9999])
def test_lines_that_are_no_metrics_are_passed_over_and_cut(
    run: Run, log: RunLog, damage: bytes
) -> None:
    grow(log, FIRST_STEP, FIRST_STEP + 2)
    log.close()
    first, second = content(run, "metrics.jsonl").splitlines(keepends=True)
    (run.path / "metrics.jsonl").write_bytes(first + damage + b"\n" + second)

    assert [m["step"] for m in read_metrics(run)] == [40, 41]
    log.cut_logs(FIRST_STEP + 2)
    assert content(run, "metrics.jsonl") == first + second


def test_a_loss_that_is_no_number_counts_as_none(run: Run) -> None:
    (run.path / "loss.txt").write_bytes(b"1.5\n\0\0\0\n2.5\n")

    losses = read_losses(run)

    assert losses[[0, 2]].tolist() == [1.5, 2.5]
    assert math.isnan(losses[1])


def test_a_log_goes_on_after_the_losses_that_are_there(run: Run, log: RunLog) -> None:
    grow(log, FIRST_STEP, FIRST_STEP + 2)
    log.close()

    again = RunLog(run)
    with pytest.raises(AssertionError):
        grow(again, FIRST_STEP + 1, FIRST_STEP + 2)
    grow(again, FIRST_STEP + 2, FIRST_STEP + 3)
    again.close()

    assert len(read_losses(run)) == 3


def test_a_cut_that_changes_nothing_writes_nothing(
    run: Run, log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(log, FIRST_STEP, FIRST_STEP + 2)
    log.append_sample(FIRST_STEP, "text")
    log.flush()
    monkeypatch.setattr(Disk, "replace", failing_append)

    log.cut_logs(FIRST_STEP + 2)
    with pytest.raises(RunError, match=r"metrics\.jsonl: cannot be written: No space"):
        log.cut_logs(FIRST_STEP + 1)

    assert len(read_metrics(run)) == 2


# Samples.


@given(text=st.text(st.sampled_from(" =step12345\n\r\u2028ä") | st.characters()))
@settings(deadline=None)  # it waits for the disk
def test_no_text_confuses_the_cut(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    record = RunRecord(Config(), 1, "text", "0" * 64, (), "1.0")
    with RunStore(folder).create(record, Vocabulary(("", "")), None) as run:
        log = RunLog(run)
        log.append_sample(1, text)
        first = content(run, "samples.txt")
        log.append_sample(2, text)
        log.cut_logs(1)

        assert content(run, "samples.txt") == first
        log.cut_logs(0)
        assert content(run, "samples.txt") == b""


def test_a_line_like_a_header_is_set_in(run: Run, log: RunLog) -> None:
    text = "a\r\n=== step 1 ===\r=== step 99 ===\n === step 2 ===\n=== steps\n"
    log.append_sample(50, text + "ü\ud800")

    assert content(run, "samples.txt").decode() == (
        "=== step 50 ===\na\n === step 1 ===\n === step 99 ===\n  === step 2 ===\n"
        "=== steps\nü?\n\n"
    )
    log.cut_logs(50)
    assert b"=== steps" in content(run, "samples.txt")
    log.cut_logs(49)
    assert content(run, "samples.txt") == b""


def test_a_torn_sample_and_a_remark_survive_a_cut(run: Run, log: RunLog) -> None:
    (run.path / "samples.txt").write_bytes(b"mine\n=== step 41 ===\nab\ncd\n=== st")

    log.cut_logs(45)
    assert content(run, "samples.txt") == b"mine\n=== step 41 ===\nab\ncd\n"
    log.cut_logs(40)
    assert content(run, "samples.txt") == b"mine\n"


def test_samples_are_thinned_but_the_first_and_the_newest_stay(
    run: Run, log: RunLog
) -> None:
    text = "x" * (2 * SAMPLE_CHARACTERS)
    sizes = []
    count = 2 * SAMPLES_BYTES // SAMPLE_CHARACTERS
    for number in range(count):
        log.append_sample(number, text)
        sizes.append((run.path / "samples.txt").stat().st_size)

    assert max(sizes) <= SAMPLES_BYTES
    headers = [
        int(line.split()[2])
        for line in content(run, "samples.txt").splitlines()
        if line.startswith(b"===")
    ]
    assert headers[:FIRST_SAMPLES] == list(range(FIRST_SAMPLES))
    assert headers[-1] == count - 1
    assert headers == sorted(set(headers))
    assert len(headers) > 100


# Failing disks.


def disk_with_room(room: int) -> Callable[..., int]:
    """Return what writes a few bytes at a time, and in all only so many to a file."""
    real = os.write
    left: dict[int, int] = {}

    def write(_: Disk, descriptor: int, data: memoryview) -> int:
        size = left.setdefault(descriptor, room)
        if not size:
            failing_append()
        taken = min(size, len(data), 7)
        left[descriptor] -= taken
        return real(descriptor, data[:taken])

    return write


@pytest.mark.parametrize("room", [0, 1, 7, 100, 350])
def test_a_full_disk_leaves_what_was_there_and_nothing_torn(
    run: Run, log: RunLog, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    grow(log, FIRST_STEP, FIRST_STEP + 3)
    log.append_sample(FIRST_STEP, "before")
    log.flush()
    names = ("metrics.jsonl", "loss.txt", "samples.txt")
    before = {name: content(run, name) for name in names}
    grow(log, FIRST_STEP + 3, FIRST_STEP + 6)
    with monkeypatch.context() as patch:
        patch.setattr(Disk, "write", disk_with_room(room))
        with pytest.raises(RunError) as caught:
            log.flush()
        with pytest.raises(RunError, match=r"samples\.txt: cannot be written: No"):
            log.append_sample(41, "y" * 1000)

    message = str(caught.value)
    assert any(
        message.startswith(f"{run.path / name}: cannot be written: No space")
        for name in names
    )
    assert "free space" in message
    assert content(run, "metrics.jsonl") == before["metrics.jsonl"]
    assert content(run, "samples.txt") == before["samples.txt"]
    assert content(run, "loss.txt").startswith(before["loss.txt"])
    assert len(read_losses(run)) in (3, 6)

    log.flush()  # there is room again
    assert [m["step"] for m in read_metrics(run)] == list(range(40, 46))
    assert read_losses(run).tolist() == [n / 8 for n in range(40, 46)]


def test_a_disk_that_takes_bytes_by_and_by_gets_them_all(
    run: Run, log: RunLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", disk_with_room(1 << 20))
        grow(log, FIRST_STEP, FIRST_STEP + 3)
        log.close()

    lines = content(run, "metrics.jsonl").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [40, 41, 42]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_a_device_that_is_full_is_named(run: Run, log: RunLog) -> None:
    (run.path / "loss.txt").symlink_to("/dev/full")

    with pytest.raises(RunError, match=r"loss\.txt: cannot be written: No space left"):
        grow(log, FIRST_STEP, FIRST_STEP + 1)


def test_a_log_that_cannot_be_read_is_named(run: Run, log: RunLog) -> None:
    (run.path / "loss.txt").mkdir()

    with pytest.raises(RunError, match=r"loss\.txt: cannot be read: "):
        read_losses(run)
    with pytest.raises(RunError, match=r"loss\.txt: cannot be "):
        log.cut_logs(FIRST_STEP + 1)


def test_the_state_that_a_session_ends_with_has_a_line_of_metrics_alone(
    run: Run, log: RunLog
) -> None:
    grow(log, 40, 42)
    log.append_state(step(42, loss=None, validation_loss=2.25, trials=0))
    log.close()

    assert [line["step"] for line in read_metrics(run)] == [40, 41, 42]
    assert read_metrics(run)[-1]["validationLoss"] == 2.25
    assert len(read_losses(run)) == 2


def test_the_last_state_comes_after_a_last_step_that_was_thinned_out(
    run: Run, log: RunLog
) -> None:
    last = FIRST_STEP + FULL_STEPS + 2
    grow(log, FIRST_STEP, last)
    log.append_state(step(last, loss=None, validation_loss=2.25))
    log.close()

    steps = [line["step"] for line in read_metrics(run)]
    assert steps[-2:] == [last - 1, last]
    assert steps == sorted(set(steps))


def test_a_resume_takes_the_line_of_the_last_state_away(run: Run, log: RunLog) -> None:
    grow(log, 40, 42)
    log.append_state(step(42, loss=None, validation_loss=2.25))
    log.close()

    log.cut_logs(42)
    log.append_step(step(42))
    log.close()

    assert [line["step"] for line in read_metrics(run)] == [40, 41, 42]
    assert read_metrics(run)[-1]["loss"] == 2.5

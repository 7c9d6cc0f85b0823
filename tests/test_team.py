"""Worker processes: the same bits as one core, and nothing left when they end."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import pytest

from tests.desk import Lesson, lesson
from tests.processes_under_test import ROOT, until
from tests.steps import bits
from utilities import team as team_module
from utilities.engine import Halves, OneCore, Scored
from utilities.errors import TrainingError
from utilities.evolution import Segment, Setting, TrainState, advance
from utilities.losses import shape
from utilities.model import Floats, Tokens
from utilities.scheduling import groups_of
from utilities.team import Request, Team, died
from utilities.whitening import Whiteners

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

LESSONS = {
    f"{cell} {noise} {directions}": lesson(
        model_type=cell, noise=noise, directions_per_window=directions, batch_size=129
    )
    for cell in ("rnn", "gru")
    for noise in ("lowRank", "full")
    for directions in (4, 0)
}
LESSONS |= {
    f"{cell} by nodes": lesson(
        model_type=cell, batch_size=2, burn_in=5, nodes="auto", whitening=shaped
    )
    for cell, shaped in (("rnn", "auto"), ("gru", "none"))
}
LESSON = LESSONS["rnn lowRank 4"]
SEGMENT = Segment(7, 3, 11)
SEVERAL = [SEGMENT, Segment(1 << 63, 0, 1), Segment(9, 0, 64)]
SIZES = (1, 2, 3)


@pytest.fixture(scope="module")
def teams() -> Iterator[dict[int, Team]]:
    """Return teams of one, two and three workers."""
    with Team(1) as one, Team(2) as two, Team(3) as three:
        yield dict(zip(SIZES, (one, two, three), strict=True))


@pytest.fixture(autouse=True)
def all_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers add up even what one process would add up sooner."""
    monkeypatch.setattr(team_module, "ALONE_TRIALS", 0)


@pytest.fixture
def pair() -> Iterator[Team]:
    """Return two workers that a test may ruin."""
    with Team(2) as team:
        yield team


def nothing(trials: int) -> None:
    """Take no notice."""


def step_of(start: Lesson) -> tuple[Setting, Floats, Tokens, Whiteners]:
    """Return what all blocks of a step have in common."""
    setting, weights, tokens = start.setting, start.state.weights, start.corpus.train
    return setting, weights, tokens, setting.whiteners(weights, tokens)


def score(
    engine: Team | OneCore,
    start: Lesson = LESSON,
    seconds: float | None = None,
    segments: tuple[Segment, ...] = (SEGMENT,),
) -> Scored:
    return engine.score(*step_of(start), segments, seconds, nothing)


def one_core() -> OneCore:
    return OneCore(lambda: 0.0)


def pids(team: Team) -> list[int]:
    return [process.pid or 0 for process in team._processes]


def kept(names: list[str]) -> list[str]:
    """Return those names of shared memory that still exist (Linux)."""
    return [name for name in names if Path("/dev/shm", name).exists()]


def alive(pid: int) -> bool:
    """Return whether a process runs: one that waits to be reaped does not (Linux)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("ascii")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


# --- the same as one core -------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("start", LESSONS.values(), ids=LESSONS)
def test_losses_are_those_of_one_core_to_the_bit(
    teams: dict[int, Team], size: int, start: Lesson
) -> None:
    scored = score(teams[size], start, segments=tuple(SEVERAL))

    assert bits(scored) == bits(score(one_core(), start, segments=tuple(SEVERAL)))


def summed(engine: Team | OneCore, start: Lesson, tokens: Tokens) -> Halves:
    setting, weights, _, _ = step_of(start)
    step = setting, weights, tokens, setting.whiteners(weights, tokens)
    trials = 76 * start.setting.config.trials_per_group
    rewards = np.random.default_rng(1).integers(-126, 127, trials).astype(np.int8)
    return engine.halves(*step, SEVERAL, rewards)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("start", LESSONS.values(), ids=LESSONS)
def test_sums_are_those_of_one_core(
    teams: dict[int, Team], size: int, start: Lesson
) -> None:
    sums = summed(teams[size], start, start.corpus.train)
    expected = summed(one_core(), start, start.corpus.train)

    assert np.array_equal(sums, expected)
    assert np.any(sums[0] != sums[1])


def test_small_sums_are_computed_where_they_are_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    team, tokens = Team(2), LESSON.corpus.train  # without workers
    monkeypatch.setattr(team_module, "ALONE_TRIALS", 76 * 4 + 1)
    sums = summed(team, LESSON, tokens)
    assert np.array_equal(sums, summed(one_core(), LESSON, tokens))
    monkeypatch.setattr(team_module, "ALONE_TRIALS", 76 * 4)
    with pytest.raises(KeyError, match="counters"):
        summed(team, LESSON, tokens)
    team.close()


def test_lessons_are_of_both_kinds() -> None:
    spans = {name: start.setting.by_nodes for name, start in LESSONS.items()}

    assert [name for name, span in spans.items() if span] == [*spans][-2:]


def test_sums_are_those_of_the_weights_at_hand(teams: dict[int, Team]) -> None:
    start = LESSONS["rnn by nodes"]
    state = replace(start.state, weights=start.state.weights[::-1].copy())
    other = replace(start, state=state)

    before, after = (
        summed(teams[2], each, start.corpus.train) for each in (start, other)
    )

    assert np.array_equal(after, summed(one_core(), other, start.corpus.train))
    assert not np.array_equal(before, after)


@pytest.mark.parametrize("size", SIZES)
def test_trials_of_several_steps_lead_to_the_same_state(
    teams: dict[int, Team], size: int
) -> None:
    def state_after_steps(engine: Team | OneCore) -> TrainState:
        setting, state, tokens = LESSON.setting, LESSON.state, LESSON.corpus.train
        for step in range(4):
            shaped = setting.whiteners(state.weights, tokens)
            work = (setting, state.weights, tokens, shaped, [Segment(step, 0, 8)])
            scored = engine.score(*work, None, nothing)
            update = shape(setting, step, 0, scored, 0.0)
            state = advance(setting, state, update, tokens)
        return state

    fingerprint = LESSON.setting.fingerprint
    expected = state_after_steps(one_core()).digest(fingerprint)

    assert state_after_steps(teams[size]).digest(fingerprint) == expected


def test_a_request_without_trials_gives_none(teams: dict[int, Team]) -> None:
    zero, none = np.zeros((2, LESSON.setting.layout.size)), np.zeros(0, np.int8)

    assert score(teams[2], segments=()) == []
    assert np.array_equal(teams[2].halves(*step_of(LESSON), [], none), zero)


def test_arrays_may_grow_and_the_text_may_change(pair: Team) -> None:
    larger = lesson(hidden_size=9, batch_size=129)
    other = lesson(batch_limit=400, batch_size=129)
    for start in (LESSON, larger, LESSON, larger):
        assert bits(score(pair, start)) == bits(score(one_core(), start))
    for number in range(2):
        tokens = other.corpus.token_batch(number)
        sums = summed(pair, other, tokens)
        assert np.array_equal(sums, summed(one_core(), other, tokens))


# --- time -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_what_fits_the_time_is_a_beginning_without_gaps(
    teams: dict[int, Team], size: int
) -> None:
    endless = (Segment(5, 0, 4_000_000),)
    scored = score(teams[size], seconds=0.5, segments=endless)
    groups = groups_of(block for block, _ in scored)

    assert 1 < groups < 4_000_000
    expected = score(one_core(), segments=(Segment(5, 0, groups),))
    assert bits(scored) == bits(expected)


def test_parts_of_blocks_are_scored_where_they_belong(teams: dict[int, Team]) -> None:
    start = lesson(batch_size=20)
    segments = tuple(Segment(seed, 2, 31) for seed in range(4000))
    scored = score(teams[3], start, 0.3, segments)
    done = tuple(block for block, _ in scored)

    assert start.setting.block_groups == 12  # so that most of them lie in two segments
    assert done[:-1] == segments[: len(done) - 1]
    assert 1 < len(done) < 4000
    expected = score(one_core(), start, None, done)
    for name in ("losses", "clean"):
        mine = np.concatenate([getattr(scores, name) for _, scores in scored])
        other = np.concatenate([getattr(scores, name) for _, scores in expected])
        # Batches are cut elsewhere, and products of other sizes round otherwise.
        assert mine == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_there_is_always_one_block(teams: dict[int, Team], size: int) -> None:
    expected = score(one_core(), segments=(replace(SEGMENT, groups=1),))

    assert bits(score(teams[size], seconds=0.0)) == bits(expected)


def test_progress_is_told_and_in_the_end_all_of_it(
    teams: dict[int, Team], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team_module, "LOOK_SECONDS", 0.01)
    told: list[int] = []
    scored = teams[2].score(
        *step_of(LESSON), [Segment(5, 0, 4_000_000)], 0.5, told.append
    )

    assert told == sorted(told)
    assert len(set(told)) > 2
    assert told[-1] == sum(len(scores.losses) for _, scores in scored)


# --- ends -----------------------------------------------------------------------------


@linux
def test_nothing_is_left_of_a_team() -> None:
    with Team(2) as team:
        score(team)
        processes, names = pids(team), team._shelf.names
        assert kept(names) == names
        assert len(names) == 7
    assert not any(map(alive, processes))
    assert kept(names) == []


@linux
def test_whoever_is_interrupted_leaves_nothing_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(trials: int) -> None:
        processes.extend(pids(team))
        names.extend(kept(team._shelf.names))
        raise KeyboardInterrupt

    monkeypatch.setattr(team_module, "LOOK_SECONDS", 0.01)
    processes: list[int] = []
    names: list[str] = []
    team = Team(2)
    with pytest.raises(KeyboardInterrupt), team:
        team.score(*step_of(LESSON), [Segment(5, 0, 4_000_000)], 3600.0, interrupt)

    assert (len(processes), len(names)) == (2, 7)
    assert not any(map(alive, processes))
    assert kept(names) == []


@linux
def test_workers_that_cannot_all_be_started_are_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: Team, on_block: object) -> None:
        processes.extend(pids(self))
        names.extend(kept(self._shelf.names))
        raise TrainingError("no more")

    processes: list[int] = []
    names: list[str] = []
    monkeypatch.setattr(Team, "_wait", fail)
    with pytest.raises(TrainingError, match="no more"), Team(2):
        raise AssertionError

    assert (len(processes), len(names)) == (2, 1)
    assert not any(map(alive, processes))
    assert kept(names) == []


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_signals_to_the_client(
    pair: Team, number: signal.Signals
) -> None:
    for pid in pids(pair):
        os.kill(pid, number)

    assert bits(score(pair)) == bits(score(one_core()))


@linux
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_that_has_died_is_named(pair: Team, victim: int) -> None:
    os.kill(pids(pair)[victim], signal.SIGKILL)
    message = f"^worker {victim + 1} of 2 ended by signal 9, perhaps for lack of memory"

    with pytest.raises(TrainingError, match=message):
        score(pair)


@linux
@pytest.mark.parametrize("victim", [0, 1])
def test_a_worker_that_dies_at_work_is_noticed_at_once(
    pair: Team, victim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team_module, "LOOK_SECONDS", 0.01)

    def kill(trials: int) -> None:
        os.kill(pids(pair)[victim], signal.SIGKILL)

    with pytest.raises(TrainingError, match=f"^worker {victim + 1} of 2 ended"):
        pair.score(*step_of(LESSON), [Segment(5, 0, 4_000_000)], 3600.0, kill)


# Starts a team that has work for hours; tells its processes and what they share.
CLIENT = """
import numpy as np
from utilities.config import Config
from utilities.evolution import Segment, Setting
from utilities.team import Team

setting = Setting(Config(vocab_size=5), "")
weights, tokens = np.zeros(setting.layout.size, np.float32), np.zeros(99, np.uint8)
with Team(2) as team:
    print(*(process.pid for process in team._processes), flush=True)
    def tell(trials):
        print(*team._shelf.names, flush=True)
    work = [Segment(5, 0, 1_000_000)]
    team.score(setting, weights, tokens, (), work, 3600.0, tell)
"""


@linux
def test_workers_end_with_a_client_that_is_killed_and_their_memory_goes() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="ascii",
    ) as client:
        assert client.stdout is not None
        processes = [int(word) for word in client.stdout.readline().split()]
        names = client.stdout.readline().split()
        assert (len(processes), len(kept(names))) == (2, 7)
        assert all(map(alive, processes))
        client.kill()
    until(lambda: not any(map(alive, processes)), "the end of the workers")
    until(lambda: not kept(names), "the end of their memory")


# --- parts ----------------------------------------------------------------------------


def test_a_request_is_read_as_it_was_written() -> None:
    keys = LESSON.setting.config.to_json()
    request = Request(keys, "ab", {"a": ("psm_1", "<f4", (2, 3))}, 0.1, 2, 3)
    again = Request.decode(request.encode())

    ((name, (memory, dtype, shape)),) = again.arrays.items()
    assert (name, memory, dtype, tuple(shape)) == ("a", "psm_1", "<f4", (2, 3))
    assert (again.keys, again.text_sha256) == (keys, "ab")
    assert (again.moment, again.middle, again.groups) == (0.1, 2, 3)


def no_resources(*_: object, **__: object) -> None:
    """Refuse as a system does."""
    raise OSError(errno.EMFILE, "Too many open files")


def test_processes_that_cannot_be_started_are_told_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    team = Team(2)
    monkeypatch.setattr(SpawnProcess, "start", no_resources)
    message = r"^--workers: 2 processes cannot be started \(Too many open files\)"
    with pytest.raises(TrainingError, match=message), team:
        raise AssertionError

    assert team._shelf.names == []


def test_how_a_worker_ended_is_told() -> None:
    assert died(1, 2, -9).startswith("worker 1 of 2 ended by signal 9, ")
    assert died(2, 2, 1).startswith("worker 2 of 2 ended with status 1, ")

"""What the benchmarks of learning compute from what they measure; no times."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import backpropagation, common, step_overhead, time_to_loss
from benchmarks.backpropagation import Recipe, moments, rate_at, scored, use_torch
from benchmarks.common import Prototype, example, prototype_figures, scored_prototype
from benchmarks.prototype import full_loss
from benchmarks.served import (
    Served,
    Usage,
    add_options,
    arguments,
    logged,
    parse_stat,
    tree_seconds,
    watched,
)
from benchmarks.step_overhead import Step, counted, described, figures
from benchmarks.time_to_loss import Point, curve, trials_before
from benchmarks.update_cost import Bench
from tests.small_runs import log, metrics, new_run
from utilities.model import Floats, Tokens
from utilities.options import parse_server
from utilities.runs import RunStore

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if 'if __name__ == "__main__":' in path.read_text("utf-8")
)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_each_benchmark_tells_its_options(benchmark: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    usage, *_ = done.stdout.splitlines()
    assert usage.startswith("usage: ")
    assert benchmark in usage


# A session.


def line(step: int, **changes: Any) -> dict[str, Any]:
    """Return the line of a step of half a second; the first one closes at 0.5 s."""
    plain = {
        "step": step,
        "time": 1000.5 + step / 2,
        "seconds": 0.5 + step / 2,
        "validationLoss": None,
        "trials": 100,
        "clients": 2,
        "late": 0,
        "aggregation": "seeds",
        "timePerStep": 0.4,
        "trialSeconds": 0.38,
        "updateSeconds": 0.02,
    }
    return {**plain, **changes}


def session(*lines: dict[str, Any], **changes: Any) -> Served:
    """Return a session that used two cores, from a second before its start."""
    usage = [Usage(999.0, 0.0), Usage(1009.0, 20.0)]
    return replace(Served(list(lines), usage, 10.0), **changes)


def test_a_quiet_server_with_local_clients_is_asked_for() -> None:
    options = parse_server(arguments(Path("runs"), Path("text"), 30.0, 3))

    assert (options.quiet, options.port, options.local_clients) == (True, 0, 3)
    assert (options.runs, options.data) == (Path("runs"), (Path("text"),))
    assert options.max_seconds == 30.0


def test_what_stands_after_two_hyphens_goes_to_the_server_and_counts() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, seconds=9.0)
    words = ["--clients", "1", "--", "--checkPointTime", "5"]
    options = parser.parse_args(words)
    words = [*arguments(Path("runs"), Path("text"), 9.0, 1), "--checkPointTime", "1"]

    assert (options.seconds, options.clients) == (9.0, 1)
    assert parse_server([*words, *options.more]).keys["checkPointTime"] == "5"


def test_processor_time_is_interpolated_at_seconds_of_training() -> None:
    served = session(line(0), line(1))

    assert served.core_seconds_at(0.0) == pytest.approx(2.0)
    assert served.core_seconds_at(4.0) == pytest.approx(10.0)
    assert served.core_seconds == 20.0


def test_processor_time_that_nobody_tells_is_unknown() -> None:
    served = session(line(0), usage=[Usage(999.0, 0.0), Usage(1009.0, 0.0)])

    assert served.core_seconds is None
    assert served.core_seconds_at(1.0) is None


def test_a_command_is_watched_to_its_end() -> None:
    work = "import time\nwhile time.process_time() < 0.2: pass"
    usage = watched([sys.executable, "-c", work])
    used = [each.core_seconds for each in usage]

    assert used[0] == 0.0
    assert used[-1] >= 0.15  # processor time is counted in ticks
    assert used == sorted(used)
    assert [each.time for each in usage] == sorted(each.time for each in usage)


def test_a_server_that_fails_ends_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="exit code 2"):
        watched([sys.executable, "-c", "raise SystemExit(2)"])


def test_the_lines_of_a_model_that_grew_are_those_of_all_its_runs(
    tmp_path: Path,
) -> None:
    store = RunStore(tmp_path)
    assert logged(store) == []
    for steps in (range(3), range(3, 5)):
        with new_run(tmp_path) as run:
            log(run, map(metrics, steps))

    assert [entry["step"] for entry in logged(store)] == [0, 1, 2, 3, 4]


def stat(process: int, parent: int, ticks: int, name: str = "python3") -> str:
    """Return a line of /proc: four counts of ticks, the last of children that ended."""
    before = "0 " * 9
    return f"{process} ({name}) S {parent} {before}{ticks} 1 1 1 20 0 1 0 99"


def test_a_process_may_be_named_like_its_figures() -> None:
    entry = parse_stat(stat(7, 1, 40, name="a) S 9 (b c"))

    assert (entry.parent, entry.ticks) == (1, 43)


def test_processor_time_is_that_of_all_descendants(tmp_path: Path) -> None:
    # 7 has started 8 and 9, 9 has started 5; 6 is somebody else's.
    parents = {7: 1, 8: 7, 9: 7, 5: 9, 6: 1}
    for process, parent in parents.items():
        (tmp_path / str(process)).mkdir()
        (tmp_path / str(process) / "stat").write_text(stat(process, parent, 97))
    (tmp_path / "4").mkdir()  # it has just ended
    one = tree_seconds(6, tmp_path)

    assert one is not None
    assert tree_seconds(7, tmp_path) == pytest.approx(4 * one)
    assert tree_seconds(4, tmp_path) is None


# Time to loss.


def test_trials_of_steps_without_a_line_are_interpolated() -> None:
    served = session(
        line(3, trials=10),
        line(4, trials=20),
        line(7, trials=50),  # of 5 and 6 there is no line: 30 and 40
        line(8, trials=0, clients=0),
    )

    assert trials_before(served).tolist() == [0, 10, 30, 60, 100, 150]


def test_the_curve_has_every_score_with_what_it_took() -> None:
    served = session(
        line(0),
        line(1, validationLoss=3.25),
        line(2),
        line(3, validationLoss=2.5, clients=0, trials=0),  # where the session ended
    )

    assert curve(served) == [
        Point(seconds=1.0, core_seconds=4.0, trials=100, step=1, validation=3.25),
        Point(seconds=2.0, core_seconds=6.0, trials=300, step=3, validation=2.5),
    ]


def test_a_point_of_the_curve_is_a_line() -> None:
    point = Point(
        seconds=60.0, core_seconds=121.26, trials=12345678, step=512, validation=2.25
    )

    assert " ".join(str(point).split()) == (
        "60.0 s 121.3 core-seconds 12,345,678 trials step 512 validation 2.2500"
    )
    assert "unknown core-seconds" in str(replace(point, core_seconds=None))


def test_points_are_spread_over_the_run_unless_the_server_is_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def serve(*words: Any) -> Served:
        asked.append(words)
        return session(line(0), line(1, validationLoss=3.0))

    monkeypatch.setattr(time_to_loss, "serve", serve)
    options = argparse.Namespace(
        data=Path("text"), seconds=60.0, clients=2, points=8, more=["--seed", "1"]
    )
    found = time_to_loss.measure(options)

    more = ["--checkPointTime", "7.5", "--seed", "1"]
    assert asked == [(Path("text"), 60.0, 2, more)]
    assert (found["validation"], found["steps"], found["trials"]) == (3.0, 2, 200)
    assert (found["core seconds"], found["wall seconds"]) == (20.0, 10.0)


# The prototype.

SAID = """\
5,280 parameters, 65 characters
   0.0 s  step     0  validation 3.3140 nats/char  0.00 M chars/s
  60.1 s  step  3100  validation 2.2735 nats/char  3.71 M chars/s
"""
# Where a real one has trained, it leaves a model that gives every token its own loss.
SMALL_PROTOTYPE = """\
import argparse
import numpy as np
parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--seconds", type=float)
args = parser.parse_args()
val = np.array(list(open(args.data, "rb").read()), np.uint8)
scale = args.seconds

def losses(noise, window):
    return scale * window[1:].mean(0)

print("2.0 s  step 1  validation 2.5000 nats/char  0.50 M chars/s")
"""


def test_the_last_figures_of_the_prototype_count() -> None:
    speed, loss = prototype_figures(SAID)

    assert speed == pytest.approx(3.71e6)
    assert loss == 2.2735


@pytest.mark.parametrize("size", [2, 200, 257, 600])
def test_the_prototype_is_scored_on_every_character_but_the_first(size: int) -> None:
    tokens = np.random.default_rng(1).integers(0, 65, size).astype(np.uint8)

    def losses(noise: None, window: Tokens) -> Floats:
        means: Floats = window[1:].mean(0, dtype=np.float32)
        return means

    found = full_loss({"val": tokens, "losses": losses})
    assert found == pytest.approx(tokens[1:].mean())


def test_the_prototype_is_run_as_it_is_and_its_globals_are_scored(
    tmp_path: Path,
) -> None:
    program, text = tmp_path / "prototype.py", tmp_path / "text.txt"
    program.write_text(SMALL_PROTOTYPE, "utf-8")
    text.write_bytes(bytes([9, 1, 2, 6]))

    assert scored_prototype(program, text, 0.5) == Prototype(500_000.0, 2.5, 1.5)


# What a step costs.


def test_only_steps_that_follow_each_other_count() -> None:
    first = step_overhead.FIRST_STEPS
    lines = [line(n) for n in range(first + 3)]
    lines += [line(first + 5), line(first + 6, trialSeconds=None), line(first + 7)]
    steps = counted(lines)

    assert len(steps) == 4  # three of the first, and the last one
    assert steps[0].total == pytest.approx(0.5)
    assert steps[0].trials == 0.38
    assert steps[0].update == 0.02
    assert steps[0].neither == pytest.approx(0.1)


def test_steps_with_a_checkpoint_and_while_it_is_written_do_not_count() -> None:
    first = step_overhead.FIRST_STEPS
    lines = [line(n) for n in range(first + 10)]
    lines[first + 4]["validationLoss"] = 2.5

    assert len(counted(lines)) == 10 - 1 - step_overhead.SAVING_STEPS


def test_lines_without_the_times_of_a_step_are_refused() -> None:
    old = line(0)
    del old["trialSeconds"]

    with pytest.raises(SystemExit, match="expected trialSeconds and updateSeconds"):
        counted([old])


def test_the_time_of_steps_is_told_in_medians_and_means() -> None:
    steps = [Step(total=0.1, trials=0.08, update=0.01)] * 9
    steps += [Step(total=0.6, trials=0.06, update=0.04)]  # 0.5 s of it waiting
    found = figures(steps)

    assert found["steps"] == 10
    assert found["share"] == {
        "inside trials": {"median": 0.8, "mean": 0.52},  # 0.78 s of 1.5 s
        "in the update": {"median": 0.1, "mean": 0.0867},
        "waiting": {"median": 0.1, "mean": 0.3933},
    }
    neither = found["milliseconds"]["neither"]
    assert (neither["median"], neither["mean"]) == (10.0, 59.0)
    assert neither["10 %"] == 10.0
    assert found["milliseconds"]["trials"]["mean"] == 78.0


def test_a_median_of_a_few_steps_is_refused() -> None:
    with pytest.raises(SystemExit, match="got 9; give more --seconds"):
        figures([Step(0.1, 0.08, 0.01)] * 9)


def test_the_way_that_steps_were_run_is_told() -> None:
    lines = [line(0), line(1, late=1), line(2, timePerStep=0.2, aggregation="sums")]

    assert described(lines) == {
        "median timePerStep": 0.4,
        "aggregation": ["seeds", "sums"],
        "late": 1,
    }


# Backpropagation.


def test_a_run_is_scored_at_its_end_and_at_halves_of_it() -> None:
    assert moments(60) == [0.9375, 1.875, 3.75, 7.5, 15, 30, 60]
    assert moments(2) == [0.5, 1, 2]
    assert moments(0.1) == [0.1]


def test_the_rate_falls_from_all_of_it_to_two_percent() -> None:
    recipe = Recipe(rate=0.1)

    assert rate_at(recipe, 0.0) == pytest.approx(0.1)
    assert rate_at(recipe, 0.5) == pytest.approx(0.051)
    assert rate_at(recipe, 1.0) == pytest.approx(0.002)
    assert rate_at(recipe, 1.5) == pytest.approx(0.002)


def test_without_torch_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "benchmarks.torch_network", raising=False)

    with pytest.raises(
        SystemExit, match=r"pip install -r requirements-benchmarks\.txt"
    ):
        use_torch(1)
    assert backpropagation.REQUIREMENTS.exists()


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{n} men saw {n * n} cats.\n" for n in range(200)))
    return path


@pytest.fixture
def torch_on_one_core() -> None:
    pytest.importorskip("torch")
    use_torch(1)


@pytest.mark.usefixtures("torch_on_one_core")
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_torch_computes_the_same_loss_from_the_same_weights(
    text: Path, cell: str, layers: int
) -> None:
    from benchmarks.torch_network import Network

    keys: dict[str, Any] = {"modelType": cell, "hiddenSize": 8, "nLayers": layers}
    setting, corpus, state = example(text, **keys)
    random = np.random.default_rng(1)
    weights = random.normal(0, 0.5, state.weights.size).astype(np.float32)
    network = Network(setting, weights)
    rows = corpus.validation[:257, None]

    assert np.array_equal(network.weights(), weights)
    alone = replace(corpus, validation=corpus.validation[:257])
    assert network.loss(rows).item() == pytest.approx(
        scored(setting, alone, weights), abs=1e-5
    )


@pytest.mark.usefixtures("torch_on_one_core")
def test_torch_learns(text: Path) -> None:
    from benchmarks.torch_network import Adam, Network

    setting, corpus, state = example(text, modelType="gru", hiddenSize=8)
    network = Network(setting, state.weights)
    adam, rows = Adam(network), corpus.train[: 64 * 8].reshape(8, 64).T
    before = network.loss(rows).item()
    for _ in range(20):
        adam.step(rows, 0.02)

    assert network.loss(rows).item() < before - 0.5


# The cost of updates.


def twice(work: Callable[[], object], _: float) -> float:
    """Call what is to be timed two times; return a time that is known."""
    work()
    work()
    return 0.5


@pytest.mark.parametrize("way", ["seeds", "sums"])
def test_an_update_is_taken_each_time_that_it_is_measured(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "fastest", twice)
    text = tmp_path / "text.txt"
    text.write_text("a few words, again and again. " * 300, encoding="utf-8")
    bench = Bench(text, 0.1, 0.001)

    cost = bench.measure(3, way)

    assert (cost.clients, cost.way, cost.update) == (3, way, 0.5)
    assert cost.trials == 3 * 64 * bench.groups
    assert bench.worker.step == 2

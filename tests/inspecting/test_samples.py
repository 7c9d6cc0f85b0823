import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.small_runs import (
    CONFIG,
    VOCABULARY,
    metrics,
    new_run,
    save,
    state_at,
    trained_run,
)
from utilities.data import Vocabulary
from utilities.generation import Sampling, generate_text
from utilities.inspect.samples import Sample, kept_steps, known_prompt, samples
from utilities.model import Layout
from utilities.runlogs import RunLog
from utilities.runs import RunStore
from utilities.scales import spread

LAYOUT = Layout(CONFIG)
SAMPLING = Sampling(0.8, seed=1)


def test_few_steps_are_all_taken() -> None:
    assert spread([1, 2, 4], 3) == [1, 2, 4]
    assert spread([], 3) == []


def test_many_steps_are_spread_evenly_over_the_logarithm() -> None:
    steps = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 910, 920]

    assert spread(steps, 4) == [1, 8, 128, 920]
    assert spread(steps, 2) == [1, 920]
    assert spread(steps, 1) == [920]


@settings(deadline=None)
@example({1, (1 << 48) - 3, (1 << 48) - 2}, 2)  # their logarithms are alike
@given(st.sets(st.integers(0, 1 << 48), min_size=1), st.integers(1, 30))
def test_the_ends_are_always_among_them(steps: set[int], most: int) -> None:
    chosen = spread(sorted(steps), most)

    assert len(chosen) <= most
    assert chosen == sorted(set(chosen) & steps)
    assert chosen[-1] == max(steps)
    assert most == 1 or chosen[0] == min(steps)


def test_each_step_writes_after_the_same_prompt(tmp_path: Path) -> None:
    with trained_run(tmp_path) as run:
        assert kept_steps(run) == [0, 1, 101]
        found = list(samples(run, [0, 1], "ab", 30, SAMPLING))

    def written(step: int) -> str:
        weights = state_at(step).trained
        text = generate_text(LAYOUT, weights, VOCABULARY, "ab", 30, SAMPLING)
        return text.removeprefix("ab")

    assert found == [Sample(0, written(0), "", 3.1), Sample(1, written(1))]


def test_weights_that_cannot_write_hinder_no_others(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        save(run, 1, np.full(LAYOUT.size, 3e38, np.float32), weights_only=True)
        save(run, 2, weights_only=True)
        save(run, 4, weights_only=True)
        path = run.path / "checkpoints" / "weights-000004.npz"
        path.write_bytes(path.read_bytes()[:-3])
        found = list(samples(run, [1, 2, 4, 8], "ab", 5, SAMPLING))

    assert [sample.text is None for sample in found] == [True, False, True, True]
    assert "diverged" in found[0].trouble
    assert found[1].trouble == ""
    assert "cut off or changed" in found[2].trouble
    assert "expected a checkpoint of step 8" in found[3].trouble


def test_the_validation_of_a_step_is_that_of_its_line(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        save(run, 3)
        log = RunLog(run)
        log.append_step(metrics(3, validation_loss=2.75))
        log.close()
        (found,) = samples(run, [3], "", 1, SAMPLING)

    assert found.validation == 2.75


@pytest.mark.parametrize(
    ("characters", "prompt"), [("The abc", "The "), ("abc", ""), ("Thee", "")]
)
def test_a_prompt_that_cannot_be_read_is_left_out(
    tmp_path: Path, characters: str, prompt: str
) -> None:
    known = Vocabulary(("", "", *dict.fromkeys(characters)))
    with new_run(tmp_path) as run:
        (run.path / "vocabulary.json").write_text(json.dumps(known.to_json()))
        reopened = RunStore(tmp_path).open(0, lock=False)

        assert known_prompt(reopened) == prompt

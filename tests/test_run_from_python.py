"""`Run(7)` as a person types it, in a script or a notebook."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.small_runs import CONFIG, VOCABULARY, new_run, save, state_at, trained_run
from utilities.errors import ConfigError, RunError
from utilities.generation import Sampling, generate_text
from utilities.model import Layout
from utilities.runlogs import RunLog
from utilities.runs import Run
from utilities.statefiles import StateFiles

LAYOUT = Layout(CONFIG)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Give run 0 of the folder where one is, while it is trained."""
    monkeypatch.chdir(tmp_path)
    with trained_run(tmp_path / "trainingRuns"):
        yield Run(0)


def test_a_number_means_the_default_folder(run: Run) -> None:
    assert repr(run) == "Run('trainingRuns/0')"
    assert not run.locked
    with pytest.raises(RunError, match="expected run 7, found run 0"):
        Run(7)


def test_a_folder_may_be_named(run: Run, tmp_path: Path) -> None:
    assert Run(tmp_path / "trainingRuns" / "0").number == 0
    with pytest.raises(RunError, match="expected a folder named by a run's number"):
        Run(tmp_path)


def test_logs_are_read_anew_each_time(run: Run, tmp_path: Path) -> None:
    assert [line["step"] for line in run.metrics] == list(range(101))
    assert run.losses.shape == (101,)
    assert run.curves.figures.step == 101
    assert run.samples == []
    (run.path / "samples.txt").write_text("=== step 5 ===\nA text.\n\n\n")
    (run.path / "loss.txt").write_text("3.5\n")
    (run.path / "metrics.jsonl").write_text('{"step":7}\n')

    assert run.samples == [(5, "A text.\n")]
    assert run.losses.tolist() == [3.5]
    assert run.metrics == [{"step": 7}]


def test_samples_come_back_as_they_were_logged(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        log = RunLog(run)
        log.append_sample(1, "One\n\ntwo.")
        log.append_sample(30, "")

        assert run.samples == [(1, "One\n\ntwo."), (30, "")]
        with (run.path / "samples.txt").open("a") as file:
            file.write("=== step 40 ===\nhalf of")
        assert len(run.samples) == 2


def test_it_generates_with_the_newest_weights_or_those_of_a_step(run: Run) -> None:
    for step, asked in ((101, None), (1, 1)):
        weights, sampling = state_at(step).trained, Sampling(0.8, seed=1)
        expected = generate_text(LAYOUT, weights, VOCABULARY, "ab", 50, sampling)
        assert run.generate("ab", 50, step=asked) == expected


def test_all_settings_reach_the_draws(run: Run) -> None:
    text = run.generate("", 30, temperature=2, top_k=5, top_p=0.7, seed=5)

    sampling = Sampling(2.0, 5, 0.7, 5)
    weights = state_at(101).trained
    assert text == generate_text(LAYOUT, weights, VOCABULARY, "", 30, sampling)
    plain = Sampling(0.8, seed=1)
    text = generate_text(LAYOUT, weights, VOCABULARY, "ab", 400, plain)
    assert run.generate("ab") == text
    with pytest.raises(ConfigError, match="temperature: expected"):
        run.generate(temperature=-1)


def test_a_notebook_shows_the_loss(run: Run) -> None:
    picture = ElementTree.fromstring(run._repr_svg_())

    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert "run 0" in "".join(picture.itertext())


def test_a_checkpoint_that_is_just_being_replaced_does_not_matter(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server removes the oldest while we are about to read it."""
    choose = StateFiles.choose
    gone = threading.Event()

    def too_late(
        files: StateFiles, kinds: tuple[str, ...], step: int | None, otherwise: str
    ) -> tuple[str, int]:
        chosen = choose(files, kinds, step, otherwise)
        if not gone.is_set():
            gone.set()
            files.path(*chosen).unlink()
        return chosen

    monkeypatch.setattr(StateFiles, "choose", too_late)

    assert run.load_weights()[0] == 1
    assert gone.is_set()


def test_a_checkpoint_that_is_always_gone_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StateFiles, "choose", lambda *_: ("step", 77))

    with pytest.raises(RunError, match=r"step-000077\.npz: cannot be read: No such"):
        run.load_weights()


def test_a_damaged_checkpoint_is_not_tried_again(run: Run) -> None:
    path = run.path / "checkpoints" / "step-000101.npz"
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(RunError, match="the file was cut off or changed"):
        run.model()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 5}, r"expected 129 weights, as config\.json says, got 101 at"),
        ({"vocab_size": 8}, r"expected a vocabulary of 8, as config\.json says, got"),
        ({"vocab_size": None}, "expected a vocabulary of null, as"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with new_run(tmp_path) as run:
        save(run, 3)
        assert run.model().step == 3
        run.update_config(replace(run.record.config, **changes))
        with pytest.raises(RunError, match=message):
            run.model()

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.small_runs import snapshot
from utilities import setup
from utilities.checkpoints import Checkpoint
from utilities.data import Text
from utilities.errors import CheckpointError, ConfigError, DataError, RunError
from utilities.evolution import Setting, TrainState
from utilities.options import ServerOptions, parse_server
from utilities.runs import Run, RunStore
from utilities.setup import Prepared, prepare

WORDS = "the cat sat on the mat and saw a rat. " * 60  # 2,280 characters


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "cat.txt"
    path.write_text(WORDS, encoding="utf-8")
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def own(text: Path, runs: Path) -> str:
    """Return the options of a small run with a text of its own."""
    return f"--runs {runs} --data {text} --hiddenSize 4 --sequenceLength 8 --seed 5"


def options(line: str) -> ServerOptions:
    return parse_server(line.split())


@contextmanager
def prepared(line: str) -> Iterator[Prepared]:
    run = prepare(options(line))
    try:
        yield run
    finally:
        run.run.close()


def config_of(run: Run) -> dict[str, Any]:
    content = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def trained(run: Prepared, steps: int) -> TrainState:
    """Return a state that many steps on, saved with the run."""
    state = run.state
    later = replace(
        state,
        step=state.step + steps,
        count=state.count + steps,
        weights=state.weights + np.float32(steps),
    )
    run.run.save_checkpoint(later, later.digest(run.setting.fingerprint), 12.5)
    return later


# New runs.


def test_a_new_run_has_its_folder_and_the_state_it_starts_from(own: str) -> None:
    with prepared(own) as new:
        assert not new.resumed
        assert new.seconds == 0
        assert new.run.locked
        assert new.run.number == 0
        assert new.run.record.run_seed == 5
        assert new.state.step == new.state.count == 0
        saved = new.run.load_checkpoint(new.setting.fingerprint, 0).state
        assert np.array_equal(saved.weights, new.state.weights)


def test_all_characters_become_the_number_that_the_text_has(own: str) -> None:
    with prepared(own) as new:
        size = len(set(WORDS)) + 2
        assert new.setting.config.vocab_size == size == new.run.vocabulary.size
        assert config_of(new.run)["vocabSize"] == size


def test_a_vocabulary_may_be_smaller_than_the_text_needs(own: str) -> None:
    with prepared(f"{own} --vocabSize 6") as new:  # ten are left out
        assert new.setting.config.vocab_size == 6
        assert new.corpus.unknown_share > 0
        shares = [share for _, share in new.unknown.shares]
        assert sum(shares) == pytest.approx(new.corpus.unknown_share)
        assert new.unknown.holds_all == len(set(WORDS)) + 2
    with prepared(f"{own} --resume") as again:
        assert again.unknown == new.unknown


def test_a_vocabulary_larger_than_the_text_is_cut_to_it(own: str) -> None:
    with prepared(f"{own} --vocabSize 999") as new:
        assert new.setting.config.vocab_size == len(set(WORDS)) + 2


def test_a_text_of_ones_own_is_named_by_its_place_and_not_stored(
    own: str, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(text.parent)
    with prepared(own.replace(str(text), text.name)) as new:
        assert new.run.record.text_paths == (str(text.resolve()),)
        assert new.run.record.text_name == text.name
        assert new.run.stored_text() is None


def test_the_default_text_is_stored_with_the_run(runs: Path) -> None:
    with prepared(f"--runs {runs} --hiddenSize 2") as new:
        stored = new.run.stored_text()
        assert stored is not None
        assert stored.sha256 == new.corpus.sha256 == new.run.record.text_sha256
        assert new.run.record.text_paths == ()


def test_equal_seeds_give_equal_runs_and_others_do_not(own: str) -> None:
    unseeded = own.replace("--seed 5", "")
    weights, seeds = [], []
    for line in (own, own, unseeded, unseeded):
        with prepared(line) as new:
            weights.append(new.state.weights.tobytes())
            seeds.append(new.run.record.run_seed)

    assert weights[0] == weights[1]
    assert len(set(weights)) == len(set(seeds)) == 3


@pytest.mark.parametrize(
    ("more", "units", "growth"),
    [
        ("--maxSeconds 5 --localClients 2", 32, "none"),
        ("--maxSeconds 10", 32, "none"),
        ("--maxSeconds 11", 64, "none"),
        ("--maxSeconds 75 --localClients 2", 64, "none"),
        ("--maxSeconds 151", 64, "128@20000000,256@400000000"),
        ("--maxSeconds 9999 --localClients 2", 64, "128@20000000,256@400000000"),
        ("--maxSteps 1", 64, "128@20000000,256@400000000"),
        ("", 64, "128@20000000,256@400000000"),
        ("--growth none", 64, "none"),
        ("--growth 96@5", 64, "96@5"),
        ("--maxSeconds 10 --growth 96@5", 32, "96@5"),
        ("--maxSeconds 60 --growth 96@5", 64, "96@5"),
        ("--maxSeconds 9999 --hiddenSize 5", 5, "none"),
        ("--hiddenSize 5 --growth 7@5", 5, "7@5"),
    ],
)
def test_the_model_fits_the_announced_length(
    runs: Path, text: Path, more: str, units: int, growth: str
) -> None:
    with prepared(f"--runs {runs} --data {text} --sequenceLength 8 {more}") as new:
        config = new.setting.config
        assert (config.hidden_size, config.growth) == (units, growth)
        assert config_of(new.run)["growth"] == growth


@pytest.mark.parametrize(
    ("keys", "units", "growth"),
    [
        ('{"hiddenSize": 7}', 7, "none"),
        ('{"hiddenSize": 7, "growth": "9@5"}', 7, "9@5"),
        ('{"growth": "99@5"}', 64, "99@5"),
        ('{"sigma": 1}', 64, "128@20000000,256@400000000"),
    ],
)
def test_a_file_of_keys_wins_over_what_fits(
    runs: Path, text: Path, tmp_path: Path, keys: str, units: int, growth: str
) -> None:
    path = tmp_path / "keys.json"
    path.write_text(keys, encoding="utf-8")
    line = f"--runs {runs} --data {text} --sequenceLength 8 --config {path}"
    with prepared(line) as new:
        config = new.setting.config
        assert (config.hidden_size, config.growth) == (units, growth)


def test_keys_of_a_file_count_where_no_flag_is_given(own: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text('{"hiddenSize": 7, "sigma": 0.5, "runSeed": 9}', encoding="utf-8")
    with prepared(f"{own} --config {path}") as new:
        assert new.setting.config.hidden_size == 4
        assert new.setting.config.sigma == 0.5
        assert new.run.record.run_seed == 5


def test_the_number_of_a_run_stands_for_its_keys(
    own: str, text: Path, runs: Path
) -> None:
    with prepared(f"{own} --sigma 0.5") as old:
        trained(old, 7)
        old.run.update_step_num(7)
        number = old.run.number
    with prepared(f"--runs {runs} --data {text} --config {number} --sigma 1") as new:
        config = new.setting.config
        assert (config.hidden_size, config.sequence_length, config.sigma) == (4, 8, 1.0)
        assert new.run.number == number + 1
        assert new.state.step == 0
        assert new.run.record.run_seed != 5


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("--config none.json", ConfigError, r"cannot read none\.json"),
        ("--config 7", RunError, "expected run 7, found no run; name another one"),
        ("--data none.txt", DataError, r"none\.txt"),
        ("--trialsPerStep 7", ConfigError, "multiple of twice directionsPerWindow"),
        ("--hiddenSize 4096 --nLayers 16", ConfigError, "at most 67108864 weights"),
        ("--sequenceLength 400", DataError, "expected at least 4634 characters"),
        ("--growth 128", ConfigError, "growth: expected none, or units and the trials"),
        (
            "--growth 4096@3e8 --nLayers 16",
            ConfigError,
            "growth: with 4096 units: hiddenSize, nLayers, vocabSize: expected at most",
        ),
    ],
)
def test_what_cannot_be_trained_leaves_no_folder(
    own: str, runs: Path, line: str, error: type[Exception], message: str
) -> None:
    # An option that is given twice counts as given last.
    with pytest.raises(error, match=message):
        prepare(options(f"{own} {line}"))
    assert not runs.exists()


def test_an_empty_text_leaves_no_folder(own: str, text: Path, runs: Path) -> None:
    text.write_text("", encoding="utf-8")

    with pytest.raises(DataError, match=r"cat\.txt"):
        prepare(options(own))
    assert not runs.exists()


def test_a_run_whose_first_state_cannot_be_saved_leaves_no_folder(
    own: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr(Checkpoint, "to_bytes", full)
    with pytest.raises(RunError, match="full"):
        prepare(options(own))
    assert list(runs.iterdir()) == []


# New runs that begin with the model of another.


@pytest.fixture
def source(own: str, runs: Path) -> Path:
    """Return the folder of a run that has come to step 7 within 12.5 seconds."""
    with prepared(f"{own} --sigma 0.5 --growth 9@1e12") as old:
        trained(old, 7)
        return old.run.path


@pytest.mark.usefixtures("source")
def test_a_run_begins_with_the_model_the_keys_and_the_text_of_another(
    runs: Path, text: Path
) -> None:
    with RunStore(runs).open(0, lock=False) as old:
        setting = Setting(old.record.config, old.record.text_sha256)
        state = old.load_checkpoint(setting.fingerprint).state
    with prepared(f"--runs {runs} --startFrom 0") as new:
        assert (new.run.number, new.resumed) == (1, False)
        assert new.origin == "the model of run 0, step 7"
        assert (new.state.step, new.state.count, new.saved) == (7, 7, 7)
        assert new.seconds == 12.5
        assert [a.tobytes() for a in new.state.arrays] == [
            a.tobytes() for a in state.arrays
        ]
        config = new.setting.config
        assert (config.hidden_size, config.sigma, config.growth) == (
            *(4, 0.5),
            "9@1000000000000",
        )
        assert (new.run.first_step, config_of(new.run)["stepNum"]) == (7, 7)
        assert new.run.record.run_seed != 5
        assert new.run.record.text_paths == (str(text.resolve()),)
        assert new.run.vocabulary == old.vocabulary
        first = new.run.load_checkpoint(new.setting.fingerprint)
        assert (first.state.step, first.seconds) == (7, 12.5)
        assert first.digest == new.state.digest(new.setting.fingerprint)


def test_what_a_run_did_before_there_was_a_key_for_it_goes_on_so(
    runs: Path, text: Path
) -> None:
    former = "--sequenceLength 8 --nodes none --burnIn 0"
    with prepared(f"--runs {runs} --data {text} --hiddenSize 4 {former}") as old:
        trained(old, 3)
        path = old.run.path / "config.json"
    keys = json.loads(path.read_text(encoding="utf-8"))
    del keys["nodes"], keys["burnIn"]
    path.write_text(json.dumps(keys), encoding="utf-8")

    with prepared(f"--runs {runs} --startFrom 0 --hiddenSize 5") as new:
        config = new.setting.config
        assert (config.nodes, config.burn_in) == ("none", 0)
    with prepared(f"--runs {runs} --startFrom 0 --nodes auto") as new:
        config = new.setting.config
        assert (config.nodes, config.burn_in) == ("auto", 0)


def test_the_run_whose_model_is_taken_stays_as_it_is(runs: Path, source: Path) -> None:
    before = snapshot(source)
    with prepared(f"--runs {runs} --startFrom 0 --hiddenSize 6") as new:
        assert new.run.path != source
    assert snapshot(source) == before


@pytest.mark.usefixtures("source")
def test_more_units_make_the_model_grow_and_flags_change_keys(runs: Path) -> None:
    line = f"--runs {runs} --startFrom 0 --hiddenSize 6 --sigma 1 --seed 8 --growth"
    with prepared(f"{line} none") as new:
        assert new.origin == ("the model of run 0, step 7, grown from 4 to 6 units")
        config = new.setting.config
        assert (config.hidden_size, config.sigma, config.growth) == (6, 1.0, "none")
        assert new.state.fits(new.setting)
        assert new.run.record.run_seed == 8
        weights = new.state.weights.tobytes()
    with prepared(f"{line} 7@5") as again:
        assert again.state.weights.tobytes() == weights, "by the seed alone"
        assert again.setting.config.growth == "7@5"
    with prepared(f"--runs {runs} --resume") as resumed:
        assert resumed.state.step == 7
        assert resumed.state.weights.tobytes() == weights


@pytest.mark.usefixtures("source")
def test_a_model_may_go_on_from_another_step(runs: Path) -> None:
    with prepared(f"--runs {runs} --startFrom 0 --stepNum 100") as new:
        assert (new.state.step, new.state.count, new.run.first_step) == (100, 7, 100)
        assert new.origin == "the model of run 0, step 7"
    with prepared(f"--runs {runs} --startFrom 0 --stepNum 0") as new:
        assert (new.state.step, new.state.count) == (0, 7)


@pytest.mark.usefixtures("source")
def test_keys_of_a_file_count_over_those_of_the_run_whose_model_is_taken(
    runs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    path.write_text('{"sigma": 0.25, "stepNum": 50}', encoding="utf-8")
    with prepared(f"--runs {runs} --startFrom 0 --config {path}") as new:
        config = new.setting.config
        assert (config.hidden_size, config.sequence_length) == (4, 8)
        assert (config.sigma, new.state.step) == (0.25, 50)


def test_another_text_is_read_with_the_vocabulary_of_the_model(
    runs: Path, source: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("a cat that sat, " * 100, encoding="utf-8")
    with prepared(f"--runs {runs} --startFrom 0 --data {other}") as new:
        assert new.run.vocabulary.size == len(set(WORDS)) + 2
        assert new.corpus.unknown_share == pytest.approx(1 / 16)
        assert new.unknown.shares[0][0] == ","
        assert new.run.record.text_paths == (str(other.resolve()),)
        assert new.run.record.text_sha256 == new.corpus.sha256
    with prepared(f"--runs {runs} --resume") as again:
        assert again.corpus.sha256 == new.corpus.sha256


def test_another_text_from_standard_input_is_kept_with_the_new_run(
    runs: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = SimpleNamespace(buffer=io.BytesIO(WORDS.upper().encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    with prepared(f"--runs {runs} --startFrom 0 --data -") as new:
        assert new.corpus.name == "standard input"
    # What was stored once is stored with whatever begins with that run's model.
    with prepared(f"--runs {runs} --startFrom 1 --hiddenSize 5") as grown:
        assert grown.run.stored_text() is not None
        assert grown.corpus.sha256 == new.corpus.sha256


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("size", ["none", str(len(set(WORDS)) + 2)])
def test_all_characters_are_those_of_the_model_that_is_taken(
    runs: Path, size: str
) -> None:
    with prepared(f"--runs {runs} --startFrom 0 --vocabSize {size}") as new:
        assert new.setting.config.vocab_size == len(set(WORDS)) + 2


def test_the_model_of_a_run_that_is_being_trained_may_be_taken(
    own: str, runs: Path
) -> None:
    with prepared(own) as old:
        trained(old, 3)
        with prepared(f"--runs {runs} --startFrom 0") as new:
            assert new.origin == "the model of run 0, step 3"
        trained(old, 4)  # it goes on


@pytest.mark.usefixtures("source")
@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("0 --hiddenSize 3", ConfigError, "a model of 4 units can grow, not shrink to"),
        ("0 --nLayers 2", ConfigError, "nLayers: the model that is taken has 1, got 2"),
        ("0 --modelType gru", ConfigError, "modelType: the model that is taken has rn"),
        (
            "0 --vocabSize 9",
            ConfigError,
            "vocabSize: the model that is taken has 16, g",
        ),
        ("0 --hiddenSize 4096 --growth 128", ConfigError, "growth: expected none, or"),
        ("0 --data none.txt", DataError, r"none\.txt"),
        ("0 --sequenceLength 400", DataError, "expected at least 4634 characters"),
        ("1", RunError, "expected run 1, found run 0; name another one"),
    ],
)
def test_a_model_that_cannot_be_taken_is_refused_in_one_line_and_leaves_no_folder(
    runs: Path, line: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        prepare(options(f"--runs {runs} --startFrom {line}"))
    assert "\n" not in str(caught.value)
    assert [path.name for path in runs.iterdir()] == ["0"]


@pytest.mark.usefixtures("source")
def test_a_grown_state_that_cannot_be_saved_leaves_no_folder(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr(Checkpoint, "to_bytes", full)
    with pytest.raises(RunError, match="full"):
        prepare(options(f"--runs {runs} --startFrom 0 --hiddenSize 6"))
    assert [path.name for path in runs.iterdir()] == ["0"]


def test_a_run_that_could_not_grow_is_not_resumed_with_that(
    own: str, runs: Path
) -> None:
    with prepared(f"{own} --nLayers 16"):
        pass
    with pytest.raises(ConfigError, match="growth: with 4096 units: hiddenSize, "):
        prepare(options(f"--runs {runs} --resume --growth 4096@5"))
    with prepared(f"--runs {runs} --resume --growth 5@5") as resumed:
        assert config_of(resumed.run)["growth"] == "5@5"


def test_a_damaged_model_is_not_taken(runs: Path, source: Path) -> None:
    newest = source / "checkpoints" / "step-000007.npz"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"step-000007\.npz") as caught:
        prepare(options(f"--runs {runs} --startFrom 0"))
    assert "\n" not in str(caught.value)
    assert [path.name for path in runs.iterdir()] == ["0"]


def test_a_model_whose_text_has_changed_is_taken_with_another_one_only(
    runs: Path, source: Path, text: Path
) -> None:
    text.write_text(WORDS + "!", encoding="utf-8")

    with pytest.raises(DataError, match="run 0 was begun with another text"):
        prepare(options(f"--runs {runs} --startFrom 0"))
    with prepared(f"--runs {runs} --startFrom 0 --data {text}") as new:
        assert new.corpus.train.size == int(0.9 * (len(WORDS) + 1))


def test_what_has_just_been_trained_goes_on_with_its_text_whatever_files_say(
    own: str, runs: Path, text: Path
) -> None:
    with prepared(f"{own} --vocabSize 6") as old:
        trained(old, 7)
    text.write_text("something else", encoding="utf-8")
    line = options(f"--runs {runs} --startFrom 0 --hiddenSize 5")
    with prepare(line, before=old).run as run:
        assert run.record.text_sha256 == old.corpus.sha256
        assert run.record.text_paths == (str(text.resolve()),)
    with pytest.raises(DataError, match="was begun with another text"):
        prepare(line)
    text.write_text(WORDS, encoding="utf-8")
    with prepared(f"--runs {runs} --resume") as again:
        assert again.unknown == old.unknown


def test_a_text_that_is_given_or_of_another_run_is_read(
    own: str, runs: Path, text: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(WORDS, encoding="utf-8")
    with prepared(own) as first, prepared(f"{own} --data {other}") as second:
        pass
    for line, before, name in (
        (f"--startFrom 0 --data {other}", first, "other.txt"),
        ("--startFrom 1", first, "cat.txt, other.txt"),
        ("--startFrom 0", second, "cat.txt"),
    ):
        new = prepare(options(f"--runs {runs} {line}"), before=before)
        with new.run:
            assert new.corpus.name == new.run.record.text_name == name


# Resumed runs.


def test_a_resumed_run_goes_on_from_its_newest_checkpoint(own: str, runs: Path) -> None:
    with prepared(own) as new:
        trained(new, 3)
        later = trained(new, 7)
    with prepared(f"--runs {runs} --resume") as resumed:
        assert resumed.resumed
        assert resumed.seconds == 12.5
        assert resumed.state.step == resumed.state.count == 7
        assert np.array_equal(resumed.state.weights, later.weights)
        assert resumed.setting.fingerprint == new.setting.fingerprint
        assert resumed.run.record.run_seed == 5
        assert config_of(resumed.run)["stepNum"] == 7


def test_the_newest_run_is_resumed_or_the_one_that_is_named(
    own: str, runs: Path
) -> None:
    for _ in range(2):
        with prepared(own):
            pass
    for line, number in (("--resume", 1), ("--resume 0", 0)):
        with prepared(f"--runs {runs} {line}") as resumed:
            assert resumed.run.number == number


def test_a_run_that_is_older_than_whitening_is_resumed_without_it(
    own: str, runs: Path
) -> None:
    with prepared(f"{own} --whitening none") as old:
        trained(old, 3)
    path = old.run.path / "config.json"
    content = config_of(old.run)
    assert content.pop("whitening") == "none"
    path.write_text(json.dumps(content), encoding="utf-8")

    with prepared(f"--runs {runs} --resume") as resumed:
        assert resumed.state.step == 3
        assert not resumed.setting.config.whitens
        assert resumed.setting.fingerprint == old.setting.fingerprint
        trained(resumed, 4)
    with prepared(f"--runs {runs} --resume --sigma 0.5") as again:
        assert again.state.step == 7
        assert config_of(again.run)["whitening"] == "none"
    with pytest.raises(ConfigError, match="whitening: the resumed run has none"):
        prepare(options(f"--runs {runs} --resume --whitening auto"))


def test_keys_that_may_change_are_stored_at_a_resume(own: str, runs: Path) -> None:
    with prepared(own):
        pass
    with prepared(f"--runs {runs} --resume --sigma 0.5 --seed 5") as resumed:
        assert resumed.setting.config.sigma == 0.5
        assert config_of(resumed.run)["sigma"] == 0.5


def test_what_came_after_the_checkpoint_is_cut_off(own: str, runs: Path) -> None:
    with prepared(own) as new:
        trained(new, 3)
        (new.run.path / "loss.txt").write_text("3\n" * 9, encoding="ascii")
        newest = trained(new, 8)
        path = new.run.path / "checkpoints" / f"step-{newest.step:06d}.npz"
        later = new.run.path / "checkpoints" / "weights-000005.npz"
        path.rename(later)
    with prepared(f"--runs {runs} --resume") as resumed:
        assert resumed.state.step == 3
        assert not later.exists()
        losses = (resumed.run.path / "loss.txt").read_text(encoding="ascii")
        assert losses == "3\n" * 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--hiddenSize 8", "hiddenSize: the resumed run has 4 and cannot change to 8"),
        ("--seed 6", "--seed: a resumed run keeps the seed"),
        ("--stepNum 9", "stepNum: --resume continues at step 0, got 9"),
        ("--growth x@5", "growth: expected none, or units and the trials after which"),
    ],
)
def test_what_would_make_it_another_run_is_refused_and_nothing_is_held(
    own: str, runs: Path, line: str, message: str
) -> None:
    with prepared(own):
        pass
    with pytest.raises(ConfigError, match=message):
        prepare(options(f"--runs {runs} --resume {line}"))
    with prepared(f"--runs {runs} --resume") as resumed:
        assert resumed.run.locked


def test_a_run_that_is_being_trained_is_not_resumed(own: str, runs: Path) -> None:
    with prepared(own), pytest.raises(RunError, match="in use by"):
        prepare(options(f"--runs {runs} --resume"))


def test_a_run_that_is_not_there_is_not_resumed(runs: Path) -> None:
    with pytest.raises(RunError, match="expected a run, found no run"):
        prepare(options(f"--runs {runs} --resume"))
    with pytest.raises(RunError, match="expected run 3"):
        prepare(options(f"--runs {runs} --resume 3"))


# The text of a resumed run.


def test_a_text_that_has_changed_is_refused(own: str, runs: Path, text: Path) -> None:
    with prepared(own):
        pass
    text.write_text(WORDS + "!", encoding="utf-8")

    with pytest.raises(DataError, match="run 0 was begun with another text") as caught:
        prepare(options(f"--runs {runs} --resume"))
    assert "cat.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_text_that_has_gone_is_named(own: str, runs: Path, text: Path) -> None:
    with prepared(own):
        pass
    text.unlink()

    with pytest.raises(DataError, match=r"cat\.txt.* No such file"):
        prepare(options(f"--runs {runs} --resume"))


def test_a_text_that_has_moved_is_taken_from_where_it_is_now(
    own: str, runs: Path, text: Path
) -> None:
    with prepared(own) as new:
        pass
    moved = text.rename(text.with_name("moved.txt"))
    with prepared(f"--runs {runs} --resume --data {moved}") as resumed:
        assert resumed.corpus.sha256 == new.corpus.sha256


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_text_of_another_encoding_is_kept_with_the_run(
    own: str, runs: Path, text: Path, encoding: str
) -> None:
    text.write_bytes((WORDS + "é").encode(encoding))
    with prepared(f"{own} --encoding {encoding}") as new:
        assert "é" in new.run.vocabulary.characters
    with prepared(f"--runs {runs} --resume --data {text} --encoding {encoding}") as run:
        assert run.corpus.sha256 == new.corpus.sha256
    text.unlink()
    with prepared(f"--runs {runs} --resume") as run:
        assert (run.corpus.sha256, run.corpus.name) == (new.corpus.sha256, "cat.txt")
        assert np.array_equal(run.corpus.train, new.corpus.train)


def test_what_was_read_from_standard_input_is_kept_with_the_run(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stdin = SimpleNamespace(buffer=io.BytesIO(WORDS.encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    with prepared(f"--runs {runs} --data - --hiddenSize 4 --sequenceLength 8") as new:
        assert config_of(new.run)["textPaths"] == []
        assert new.corpus.name == "standard input"
    with prepared(f"--runs {runs} --resume") as again:
        assert again.corpus.sha256 == new.corpus.sha256
        assert np.array_equal(again.corpus.train, new.corpus.train)


@pytest.fixture
def default_run(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a run with a default text that is small."""
    monkeypatch.setattr(setup, "default_text", lambda: Text("prose", (WORDS,)))
    with prepared(f"--runs {runs} --hiddenSize 4 --sequenceLength 8") as new:
        return new.run.path


@pytest.mark.usefixtures("default_run")
def test_a_stored_text_counts_even_where_python_has_another_one_now(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "default_text", lambda: Text("prose", ("other",)))
    with prepared(f"--runs {runs} --resume") as resumed:
        assert resumed.corpus.name == "prose"
        assert resumed.corpus.train.size == int(0.9 * len(WORDS))


def test_a_default_text_that_is_no_longer_stored_is_taken_from_python(
    default_run: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (default_run / "text.json").unlink()
    with prepared(f"--runs {runs} --resume") as resumed:
        assert resumed.corpus.name == "prose"
    monkeypatch.setattr(setup, "default_text", lambda: Text("prose", ("other",)))
    with pytest.raises(DataError, match="was begun with another text"):
        prepare(options(f"--runs {runs} --resume"))


@pytest.mark.usefixtures("default_run")
def test_a_run_with_the_default_text_does_not_take_another(
    runs: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text(WORDS + "!", encoding="utf-8")

    with pytest.raises(DataError, match="was begun with another text"):
        prepare(options(f"--runs {runs} --resume --data {other}"))

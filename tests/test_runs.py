import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilities.config import FORMER, KEYS, Config
from utilities.data import Text, Vocabulary
from utilities.disk import Disk
from utilities.errors import CheckpointError, RunError
from utilities.evolution import TrainState
from utilities.runs import Run, RunRecord, RunStore

ROOT = Path(__file__).parents[1]
FINGERPRINT = bytes(range(32))
VOCABULARY = Vocabulary(("", "", "e", "\n", '"', "ä", "\u2028"))
TEXT = Text("Some prose", ("Ein Bär.\n", 'He said "no"\u2028.'))
RECORD = RunRecord(
    config=Config(vocab_size=7, keep_checkpoints=2, decay="5000 steps"),
    run_seed=2**64 - 1,
    text_name="Bärbel, \N{GREEK SMALL LETTER PI}",
    text_sha256=TEXT.sha256,
    text_paths=("/texts/a", "/texts/\udcff"),  # a name that is not Unicode
    program="1.2",
)
Failing = Callable[..., None]


def failing(code: int) -> Failing:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def state(step: int, value: float = 0.5) -> TrainState:
    weights = np.full(3, value, np.float32)
    return TrainState(step, step, weights, weights * 2, weights * 3)


def save(run: Run, step: int, **options: Any) -> Path:
    digest = state(step).digest(FINGERPRINT)
    return run.save_checkpoint(state(step), digest, step / 10, **options)


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(f): (f.stat().st_mtime_ns, f.read_bytes()) for f in files}


def edit(run: Run, **keys: object) -> None:
    """Change config.json by hand; None takes a key away."""
    path = run.path / "config.json"
    content = {**json.loads(path.read_bytes()), **keys}
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "trainingRuns")


@pytest.fixture
def run(store: RunStore) -> Iterator[Run]:
    with store.create(RECORD, VOCABULARY, TEXT) as run:
        yield run


# Folders and their numbers.


def test_runs_are_numbered_from_zero(store: RunStore) -> None:
    assert store.numbers() == []
    for number in range(12):
        with store.create(RECORD, VOCABULARY, None) as run:
            assert run.number == number
            assert run.path == store.root / str(number)

    assert store.numbers() == list(range(12))


def test_other_names_are_not_looked_at(store: RunStore) -> None:
    store.create(RECORD, VOCABULARY, None).close()
    for name in ("007", "1.old", "-3", "notes", "\u0663"):
        (store.root / name).mkdir()
    (store.root / "readme.txt").write_text("mine")

    assert store.numbers() == [0]
    with store.create(RECORD, VOCABULARY, None) as run:
        assert run.number == 1


def test_a_numbered_thing_that_is_no_run_is_neither_counted_nor_reused(
    store: RunStore,
) -> None:
    (store.root / "4").mkdir(parents=True)
    (store.root / "2").write_text("a file")

    assert store.numbers() == []
    with store.create(RECORD, VOCABULARY, None) as run:
        assert run.number == 5
    assert store.numbers() == [5]


def test_two_servers_never_make_the_same_folder(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create(RECORD, VOCABULARY, None).close()
    # The other one was quicker: this one has not seen its folder yet.
    monkeypatch.setattr(RunStore, "_taken", lambda _: [])
    with store.create(RECORD, VOCABULARY, None) as run:
        assert run.number == 1


def test_the_newest_run_is_opened_unless_another_is_named(store: RunStore) -> None:
    for _ in range(11):
        store.create(RECORD, VOCABULARY, None).close()

    assert store.open(lock=False).number == 10
    assert store.open(3, lock=False).number == 3


def test_a_run_that_is_missing_is_named_with_those_that_are_there(
    store: RunStore,
) -> None:
    with pytest.raises(RunError, match="expected a run, found no run; name"):
        store.open(lock=True)
    for _ in range(2):
        store.create(RECORD, VOCABULARY, None).close()
    (store.root / "7").write_text("a file, which is no run")

    for number in (7, 2, -1):
        with pytest.raises(RunError) as caught:
            store.open(number, lock=False)
        assert str(caught.value).startswith(
            f"{store.root}: expected run {number}, found runs 0, 1; name another one"
        )


def test_what_to_do_where_a_run_is_missing_is_for_whoever_looks(
    store: RunStore, run: Run
) -> None:
    with pytest.raises(RunError) as caught:
        store.open(3, lock=False)

    assert str(caught.value).endswith(
        "; name another one, or another folder with --runs"
    )


@pytest.mark.parametrize("lock", [False, True])
def test_a_folder_without_configuration_is_named_as_such(
    store: RunStore, run: Run, lock: bool
) -> None:
    (store.root / "4").mkdir()
    (store.root / "5").write_text("a file")

    assert store.numbers() == [0]
    assert store.unfinished() == [4]
    with pytest.raises(RunError, match=r"4: expected a run, found a folder without"):
        store.open(4, lock=lock)
    assert list((store.root / "4").iterdir()) == []


def test_a_root_that_is_no_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = RunStore(tmp_path / "file")

    with pytest.raises(RunError, match="file: cannot be read: Not a directory"):
        store.numbers()
    with pytest.raises(RunError, match="file: cannot be written: File exists"):
        store.create(RECORD, VOCABULARY, None)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("target", [(os, "fsync"), (Path, "replace"), (os, "write")])
def test_a_run_that_cannot_be_made_leaves_nothing(
    store: RunStore,
    monkeypatch: pytest.MonkeyPatch,
    target: tuple[object, str],
    code: int,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*target, failing(code))
        with pytest.raises(RunError, match=os.strerror(code)):
            store.create(RECORD, VOCABULARY, TEXT)

    assert list(store.root.iterdir()) == []
    with store.create(RECORD, VOCABULARY, TEXT) as run:
        assert run.number == 0


# What a run holds.


def test_a_run_is_read_as_it_was_made(store: RunStore, run: Run) -> None:
    read = store.open(lock=False)

    assert (read.record, read.first_step) == (RECORD, 0)
    assert read.vocabulary == VOCABULARY
    assert read.stored_text() == TEXT
    assert read.checkpoint_steps() == []


def test_the_configuration_is_plain_json_in_the_users_spelling(run: Run) -> None:
    text = (run.path / "config.json").read_text(encoding="utf-8")

    assert '\n  "timePerStep": "auto",\n' in text
    assert '\n  "textName": "Bärbel, π",\n' in text
    content = json.loads(text)
    assert content.pop("runSeed") == 2**64 - 1
    assert content.pop("textSha256") == TEXT.sha256
    assert content.pop("textPaths") == ["/texts/a", "/texts/\udcff"]
    assert content.pop("program") == "1.2"
    assert content.pop("firstStep") == 0
    del content["textName"]
    assert content == RECORD.config.to_json()
    assert content.keys() == KEYS.keys()


def test_a_text_of_the_user_is_not_stored(store: RunStore) -> None:
    with store.create(RECORD, VOCABULARY, None) as run:
        assert run.stored_text() is None
        assert sorted(path.name for path in run.path.iterdir()) == [
            "checkpoints",
            "config.json",
            "lock",
            "vocabulary.json",
        ]


@given(step=st.integers(0, 1 << 48), seed=st.integers(0, 2**64 - 1), name=st.text())
def test_any_record_survives_the_file(step: int, seed: int, name: str) -> None:
    record = dataclasses.replace(
        RECORD, config=Config(step_num=step), run_seed=seed, text_name=name
    )
    # A run is what a folder holds; here the folder is made of one file.
    with pytest.MonkeyPatch.context() as patch:
        content = json.loads(json.dumps(record.to_json(step)))
        patch.setattr("utilities.runs.read_json", lambda _: content)
        run = Run(Path("0"), None)

    assert (run.record, run.first_step) == (record, step)


def test_a_key_that_is_gone_and_meant_nothing_is_left_out(
    store: RunStore, run: Run
) -> None:
    expected = run.record
    edit(run, projection="none")
    run.close()

    with store.open(lock=False) as opened:
        assert opened.record == expected


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"learnRate": 1}, r"learnRate: no such key in this version .*\(1\.2\)"),
        ({"learnRate": 1, "program": None}, r"learnRate: no such .*\(not named\)"),
        ({"projection": "auto"}, r"projection: this version .* wrote it \(1\.2\)"),
        ({"projection": "auto", "program": None}, r"projection: .*\(not named\)"),
        ({"runSeed": None}, "runSeed: expected a whole number below 2.64, got None"),
        ({"runSeed": -1}, "runSeed: expected a whole number below 2.64, got -1"),
        ({"runSeed": 1 << 64}, "runSeed: expected"),
        ({"runSeed": True}, "runSeed: expected .* got True"),
        ({"runSeed": 1.0}, "runSeed: expected .* got 1.0"),
        ({"firstStep": "0"}, "firstStep: expected a whole number from 0 to 2.48"),
        ({"textSha256": "ab" * 31}, "textSha256: expected 64 hex digits, got 'abab"),
        ({"textSha256": "A" * 64}, "textSha256: expected 64 hex digits"),
        ({"textName": 3}, "textName: expected a text, got 3"),
        ({"textPaths": "/a"}, "textPaths: expected a list of paths, got '/a'"),
        ({"textPaths": ["/a", 1]}, "textPaths: expected a list of paths"),
        ({"program": ["1"]}, "program: expected a version"),
        ({"sigma": -1}, "sigma: expected a number above 0 to 10, got -1"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(
    store: RunStore, run: Run, keys: dict[str, object], complaint: str
) -> None:
    edit(run, **keys)
    run.close()

    for lock in (False, True):
        with pytest.raises(RunError, match=rf"config\.json: {complaint}"):
            store.open(lock=lock)
    edit(run, **{key: RECORD.to_json(0).get(key) for key in keys})
    store.open(lock=True).close()  # the refusal let go of the lock


def test_a_configuration_of_another_kind_is_refused(store: RunStore, run: Run) -> None:
    (run.path / "config.json").write_text("[1]")

    with pytest.raises(RunError, match="firstStep: expected a whole number"):
        store.open(lock=False)


def test_keys_that_an_older_version_lacked_get_their_defaults(
    store: RunStore, run: Run
) -> None:
    edit(run, keepCheckpoints=None)

    assert store.open(lock=False).record.config.keep_checkpoints == 3


def test_a_run_that_is_older_than_a_key_goes_on_without_it(
    store: RunStore, run: Run
) -> None:
    new = store.open(lock=False).record.config
    edit(run, **dict.fromkeys(FORMER))
    old = store.open(lock=False).record.config

    for name in ("whitening", "scales", "output_trials", "nodes", "averaging"):
        assert (getattr(new, name), getattr(old, name)) == ("auto", "none")
    assert (new.burn_in, old.burn_in) == (16, 0)
    keys = "batchSize beta1 beta2 directionsPerWindow hiddenSize modelType nLayers"
    keys += " noise optimizer sequenceLength vocabSize"
    hashed = {key: new.to_json()[key] for key in keys.split()}
    content = json.dumps([hashed, "abc"], sort_keys=True).encode()
    assert old.fingerprint("abc") == hashlib.sha256(content).digest()
    run.update_config(old)
    assert store.open(lock=False).record.config == old


def test_a_record_that_could_not_be_read_again_is_not_made() -> None:
    with pytest.raises(AssertionError, match=r"not acceptable: \['runSeed'\]"):
        dataclasses.replace(RECORD, run_seed=-1)


def test_a_damaged_vocabulary_is_named(store: RunStore, run: Run) -> None:
    path = run.path / "vocabulary.json"
    for damaged in ('{"0": "<unknown>"}', "{", "[]"):
        path.write_text(damaged)
        with pytest.raises(RunError, match=r"vocabulary\.json: .*restore"):
            _ = store.open(lock=False).vocabulary


def test_a_damaged_text_is_named(run: Run) -> None:
    path = run.path / "text.json"
    for damaged in (
        path.read_text(encoding="utf-8").replace("Bär", "Bar"),
        "[]",
        '{"name": "x"}',
        '{"name": "x", "documents": 7}',
        '{"name": "x", "documents": ["\\ud800"]}',
        "{",
    ):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(RunError, match=r"text\.json: expected .*restore"):
            run.stored_text()


def test_changed_keys_are_stored_and_the_first_step_stays(store: RunStore) -> None:
    record = dataclasses.replace(RECORD, config=Config(step_num=40))
    with store.create(record, VOCABULARY, None) as run:
        run.update_config(Config(step_num=40, learning_rate=0.5))
        run.update_step_num(50)
        read = store.open(lock=False)

        assert read.record == run.record
        assert read.record.config == Config(step_num=50, learning_rate=0.5)
        assert read.first_step == run.first_step == 40


def test_nothing_is_written_where_nothing_changed(run: Run) -> None:
    before = snapshot(run.path)

    run.update_step_num(0)

    assert snapshot(run.path) == before


# The lock.


def test_a_run_in_use_is_refused_by_name(store: RunStore, run: Run) -> None:
    with pytest.raises(
        RunError, match=f"run 0 is in use by process {os.getpid()}; stop that server"
    ):
        store.open(lock=True)
    assert not store.open(lock=False).locked

    run.close()
    run.close()
    with store.open(lock=True) as again:
        assert again.locked
    assert not again.locked


CONTENDER = """
import sys
from pathlib import Path
from utilities.errors import RunError
from utilities.runs import RunStore
try:
    RunStore(Path(sys.argv[1])).open(lock=True)
except RunError as error:
    print(error)
"""


def test_another_process_is_kept_off(store: RunStore, run: Run) -> None:
    def contend() -> str:
        return subprocess.run(
            [sys.executable, "-c", CONTENDER, str(store.root)],
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        ).stdout

    assert f"run 0 is in use by process {os.getpid()};" in contend()
    run.close()
    assert contend() == ""
    store.open(lock=True).close()  # the child is gone, and so is its lock


def test_reading_changes_nothing(store: RunStore, run: Run) -> None:
    save(run, 1)
    save(run, 1, weights_only=True)
    (run.path / ".config.json.123.tmp").write_text("left over")
    run.close()
    before = snapshot(store.root)

    read = store.open(lock=False)
    assert read.vocabulary.size == 7
    assert read.stored_text() == TEXT
    assert read.load_checkpoint(FINGERPRINT).state.step == 1
    assert read.load_weights()[0] == 1
    read.close()

    assert snapshot(store.root) == before


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_that_is_read_only_can_be_read(store: RunStore, run: Run) -> None:
    save(run, 1)
    run.close()
    folders = (run.path / "checkpoints", run.path, store.root)
    for path in (*run.path.glob("*.*"), *folders):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert store.open(lock=False).load_checkpoint(FINGERPRINT).state.step == 1
        with pytest.raises(RunError, match="cannot be written: Permission denied"):
            store.create(RECORD, VOCABULARY, None)
    finally:
        for path in folders:
            path.chmod(0o755)


def test_a_run_opened_for_reading_is_not_written(store: RunStore, run: Run) -> None:
    read = store.open(lock=False)
    for write in (
        lambda: save(read, 1),
        lambda: read.update_step_num(1),
        lambda: read.discard_after(0),
    ):
        with pytest.raises(AssertionError, match="opened for reading"):
            write()


def test_halves_of_files_are_removed_with_the_lock_only(
    store: RunStore, run: Run
) -> None:
    halves = [
        run.path / ".config.json.4711.tmp",
        run.path / "checkpoints" / ".step-000007.npz.4711.tmp",
    ]
    mine = [run.path / "mine.tmp", run.path / ".mine.tmp"]
    for path in (*halves, *mine):
        path.write_text("x")
    run.close()

    store.open(lock=False).close()
    assert all(path.exists() for path in halves)
    store.open(lock=True).close()

    assert not any(path.exists() for path in halves)
    assert all(path.exists() for path in mine)


# Checkpoints.


def test_a_checkpoint_is_resumed_as_it_was_saved(store: RunStore, run: Run) -> None:
    path = save(run, 123)

    assert path == run.path / "checkpoints" / "step-000123.npz"
    run.close()
    read = store.open(lock=True)
    loaded = read.load_checkpoint(FINGERPRINT)
    read.close()
    assert (loaded.state.step, loaded.state.count, loaded.seconds) == (123, 123, 12.3)
    assert loaded.digest == state(123).digest(FINGERPRINT)
    for ours, theirs in zip(loaded.state.arrays, state(123).arrays, strict=True):
        assert ours.tolist() == theirs.tolist()
    assert read.record.config.step_num == 123


def test_the_newest_full_checkpoints_stay_and_all_weights(run: Run) -> None:
    for step in (1, 2, 3, 4, 8):
        save(run, step, weights_only=True)
        save(run, step)

    assert run.checkpoint_steps() == [4, 8]
    assert run.weights_steps() == [1, 2, 3, 4, 8]
    assert run.load_weights()[0] == 8
    step, weights = run.load_weights(2)
    assert (step, weights.tolist()) == (2, [0.5, 0.5, 0.5])
    assert weights.dtype == np.float32


def test_weights_alone_are_not_the_step_that_a_run_is_at(run: Run) -> None:
    path = save(run, 8, weights_only=True)

    assert path.name == "weights-000008.npz"
    assert run.record.config.step_num == 0
    assert run.load_weights()[0] == 8
    with pytest.raises(RunError, match="expected a checkpoint, found no checkpoint;"):
        run.load_checkpoint(FINGERPRINT)


def test_checkpoints_are_in_order_beyond_a_million(run: Run) -> None:
    for step in (999_999, 1_000_000, 10_000_000):
        save(run, step)

    assert run.checkpoint_steps() == [1_000_000, 10_000_000]
    assert run.load_checkpoint(FINGERPRINT).state.step == 10_000_000


def test_a_resume_from_an_older_checkpoint_never_removes_the_one_just_saved(
    run: Run,
) -> None:
    for step in (100, 200):
        save(run, step)
    save(run, 150)

    assert run.checkpoint_steps() == [100, 150, 200]


def test_what_was_saved_later_is_removed_on_demand(run: Run) -> None:
    for step in (100, 200):
        save(run, step)
        save(run, step, weights_only=True)

    run.discard_after(150)

    assert run.checkpoint_steps() == [100]
    assert run.weights_steps() == [100]


def test_other_files_among_the_checkpoints_are_not_looked_at(run: Run) -> None:
    save(run, 1)
    folder = run.path / "checkpoints"
    for name in ("step-2.npz", "step-0000003.npz", "step-000004.npz.bak", "x.npz"):
        (folder / name).write_text("mine")
    save(run, 5)
    save(run, 6)

    assert run.checkpoint_steps() == [5, 6]
    assert len(list(folder.iterdir())) == 6


def test_a_missing_checkpoint_is_named_with_those_that_are_there(run: Run) -> None:
    save(run, 1)
    save(run, 2, weights_only=True)

    with pytest.raises(RunError, match="a checkpoint of step 2, found checkpoint 1;"):
        run.load_checkpoint(FINGERPRINT, 2)
    with pytest.raises(RunError, match="of step 3, found checkpoints 1, 2;"):
        run.load_weights(3)


def test_a_run_without_its_folder_of_checkpoints_is_refused(run: Run) -> None:
    (run.path / "checkpoints").rmdir()

    with pytest.raises(RunError, match="checkpoints: cannot be read: No such file"):
        run.load_weights()


def test_a_checkpoint_that_cannot_be_opened_is_named(run: Run) -> None:
    save(run, 1).unlink()
    (run.path / "checkpoints" / "step-000001.npz").mkdir()

    with pytest.raises(RunError, match=r"step-000001\.npz: cannot be read: "):
        run.load_checkpoint(FINGERPRINT)


def test_a_damaged_checkpoint_names_the_one_before(run: Run) -> None:
    before, newest = save(run, 1), save(run, 2)
    for position in range(0, newest.stat().st_size, 7):
        data = bytearray(newest.read_bytes())
        data[position] ^= 0x10
        newest.write_bytes(data)
        with pytest.raises(CheckpointError) as caught:
            run.load_checkpoint(FINGERPRINT)
        assert str(caught.value).startswith(
            f"{newest}: the file was cut off or changed"
        )
        assert "move it away to go on from the one before: step-000001.npz" in str(
            caught.value
        )
        with pytest.raises(CheckpointError, match="cut off or changed"):
            run.load_weights()
        data[position] ^= 0x10
        newest.write_bytes(data)

    newest.unlink()
    assert run.load_checkpoint(FINGERPRINT).state.step == 1
    before.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"the one before: none$"):
        run.load_checkpoint(FINGERPRINT)


def test_a_checkpoint_of_another_configuration_is_refused(run: Run) -> None:
    path = save(run, 1)

    with pytest.raises(CheckpointError) as caught:
        run.load_checkpoint(bytes(32))

    assert str(caught.value).startswith(f"{path}: expected a state with digest")


def test_a_state_that_is_not_finite_pushes_nothing_out(run: Run) -> None:
    save(run, 1)
    broken = state(2, float("nan"))

    for weights_only in (False, True):
        with pytest.raises(CheckpointError, match="not saved: weights: expected"):
            run.save_checkpoint(broken, bytes(32), 0.2, weights_only=weights_only)

    assert (run.checkpoint_steps(), run.weights_steps()) == ([1], [])
    assert run.record.config.step_num == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("target", ["sync", "rename", "open"])
def test_a_disk_error_leaves_older_checkpoints(
    run: Run, monkeypatch: pytest.MonkeyPatch, target: str, code: int
) -> None:
    save(run, 1)
    save(run, 2)
    before = snapshot(run.path)
    with monkeypatch.context() as patch:
        patch.setattr(Disk, target, failing(code))
        with pytest.raises(RunError) as caught:
            save(run, 3)

    message = str(caught.value)
    path = run.path / "checkpoints" / "step-000003.npz"
    assert message.startswith(f"{path}: cannot be written: {os.strerror(code)};")
    assert "nothing written before is lost" in message
    assert snapshot(run.path) == before
    assert run.load_checkpoint(FINGERPRINT).state.step == 2


def test_a_configuration_that_cannot_be_written_costs_no_checkpoint(
    store: RunStore, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        real = Disk.open

        def full(disk: Disk, path: Path, flags: int) -> int:
            if "config" in path.name:
                failing(errno.ENOSPC)()
            return real(disk, path, flags)

        patch.setattr(Disk, "open", full)
        with pytest.raises(RunError, match=r"config\.json: cannot be written: No"):
            save(run, 3)

    read = store.open(lock=False)
    assert read.record == run.record == RECORD
    assert read.load_checkpoint(FINGERPRINT).state.step == 3


def test_an_old_checkpoint_that_cannot_be_removed_is_tried_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(run, 1)
    save(run, 2)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", failing(errno.EACCES))
        save(run, 3)
        with pytest.raises(RunError, match=r"step-000003\.npz: cannot be written"):
            run.discard_after(2)
    assert run.checkpoint_steps() == [1, 2, 3]

    save(run, 4)

    assert run.checkpoint_steps() == [3, 4]

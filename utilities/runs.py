"""The folders of runs: numbered, locked, with checkpoints that prove themselves.

    trainingRuns/12/
      config.json       all keys, and what a resume needs beside them
      vocabulary.json   token <-> character
      text.json         the default text itself, where that is what is trained on
      lock              held by the server that trains; names its process
      checkpoints/      step-000123.npz: to resume from; the newest few are kept
                        weights-000008.npz: weights alone, to look back at; all kept

Owns every file of a run except its logs, which `runlogs` appends to. Does not own: when
a checkpoint is due, or whether a resumed run may change a key.

The idea: whole files are replaced in one move, a run counts once config.json, written
last, is there, and a checkpoint ends in a hash over all bytes before it. So whatever
happened to the machine, what is found is complete or is refused by name.
"""

import dataclasses
import os
import re
import reprlib
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.checkpoints import Checkpoint, read_checkpoint, read_weights
from utilities.config import KEYS, Config, from_json
from utilities.data import Text, Vocabulary
from utilities.errors import CheckpointError, ConfigError, DataError, RunError
from utilities.evolution import TrainState
from utilities.misc import sync_folder, write_atomically
from utilities.runfiles import (
    listed,
    read_json,
    reading,
    take_lock,
    write_json,
    writing,
)

Floats: TypeAlias = NDArray[np.float32]

CONFIG, VOCABULARY, TEXT = "config.json", "vocabulary.json", "text.json"
CHECKPOINTS = "checkpoints"
_FULL, _WEIGHTS = "step", "weights"  # how checkpoints are named
_MAX_STEP = 1 << 48
_MAX_SEED = (1 << 64) - 1


# What config.json holds.


@dataclass(frozen=True)
class RunRecord:
    """What must be known of a run to resume it, beside a checkpoint."""

    config: Config
    run_seed: int  # 64 bits; whoever knows it knows all seeds to come
    text_name: str
    text_sha256: str  # 64 hex digits
    text_paths: tuple[str, ...]  # absolute; empty: the default text
    program: str  # version that wrote it

    def __post_init__(self) -> None:
        extras = self.to_json(0)
        wrong = [k for k, check in _EXTRAS.items() if not check.accepts(extras[k])]
        assert not wrong, f"not acceptable: {wrong}"

    def to_json(self, first_step: int) -> dict[str, Any]:
        """Return the content of config.json: the user's keys and the others, flat."""
        return {
            **self.config.to_json(),
            "firstStep": first_step,
            "runSeed": self.run_seed,
            "textName": self.text_name,
            "textSha256": self.text_sha256,
            "textPaths": list(self.text_paths),
            "program": self.program,
        }


@dataclass(frozen=True)
class _Extra:
    """What config.json holds under a key that is not one of the configuration."""

    kind: type
    words: str
    most: int = 0  # of a whole number
    pattern: str = ".*"  # of a text

    def accepts(self, value: object) -> bool:
        if type(value) is not self.kind:  # bool is no number here
            return False
        if isinstance(value, int):
            return 0 <= value <= self.most
        if isinstance(value, list):
            return all(isinstance(part, str) for part in value)
        return re.fullmatch(self.pattern, str(value), re.DOTALL) is not None


_EXTRAS: dict[str, _Extra] = {
    "firstStep": _Extra(int, "a whole number from 0 to 2^48", _MAX_STEP),
    "runSeed": _Extra(int, "a whole number below 2^64", _MAX_SEED),
    "textName": _Extra(str, "a text"),
    "textSha256": _Extra(str, "64 hex digits", pattern="[0-9a-f]{64}"),
    "textPaths": _Extra(list, "a list of paths"),
    "program": _Extra(str, "a version"),
}
EXTRA_KEYS = tuple(_EXTRAS)


def _parse_record(path: Path, content: object) -> tuple[RunRecord, int]:
    """Return the record and the first step that a config.json holds.

    Keys of the configuration that an older version did not know get their defaults.

    Raises:
        RunError: a key is unknown, missing or has a value that is not accepted.
    """
    keys: dict[str, Any] = content if isinstance(content, dict) else {}
    for key in keys:
        if key not in KEYS and key not in _EXTRAS:
            raise RunError(
                f"{path}: {key}: no such key in this version of the program; use the "
                f"version that wrote it ({keys.get('program', 'not named')})"
            )
    for key, extra in _EXTRAS.items():
        if not extra.accepts(keys.get(key)):
            raise RunError(
                f"{path}: {key}: expected {extra.words}, got "
                f"{reprlib.repr(keys.get(key))}; restore the file from a copy"
            )
    try:
        config = from_json({key: keys[key] for key in keys if key in KEYS})
    except ConfigError as error:
        raise RunError(f"{path}: {error}; restore the file from a copy") from error
    record = RunRecord(
        config,
        keys["runSeed"],
        keys["textName"],
        keys["textSha256"],
        tuple(keys["textPaths"]),
        keys["program"],
    )
    return record, keys["firstStep"]


class Run:
    """A run's folder; one that was opened with its lock may be written.

    Made by a `RunStore`.
    """

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self.number = int(path.name)
        self.record, self.first_step = _parse_record(
            path / CONFIG, read_json(path / CONFIG)
        )
        self._lock = lock

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the lock; a second call does nothing."""
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            os.close(descriptor)

    @property
    def locked(self) -> bool:
        """Return whether this run may be written."""
        return self._lock is not None

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Return the vocabulary of the run; RunError where it is damaged."""
        path = self.path / VOCABULARY
        try:
            return Vocabulary.from_json(read_json(path))
        except DataError as error:
            raise RunError(f"{path}: {error}") from error

    def stored_text(self) -> Text | None:
        """Return the text that was stored with the run, if any.

        Raises:
            RunError: it is damaged or not the text that the run was begun with.
        """
        path = self.path / TEXT
        if not path.exists():
            return None
        content = read_json(path)
        try:
            text = Text(content["name"], tuple(map(str, content["documents"])))
            found = text.sha256
        except (TypeError, KeyError, ValueError) as error:
            found = f"a damaged file ({error!r})"
        if found != self.record.text_sha256:
            raise RunError(
                f"{path}: expected the text with SHA-256 {self.record.text_sha256}, "
                f"got {found}; restore the file from a copy"
            )
        return text

    def update_config(self, config: Config) -> None:
        """Store keys that were changed at a resume; nothing to do where none were."""
        assert self.locked, "a run opened for reading is not written"
        if config != self.record.config:
            record = dataclasses.replace(self.record, config=config)
            write_json(self.path / CONFIG, record.to_json(self.first_step))
            self.record = record

    def update_step_num(self, step: int) -> None:
        """Store the step that the run is at."""
        self.update_config(dataclasses.replace(self.record.config, step_num=step))

    # Checkpoints.

    def checkpoint_steps(self) -> list[int]:
        """Return the steps that the run can be resumed from, ascending."""
        return self._steps(_FULL)

    def weights_steps(self) -> list[int]:
        """Return the steps of which only the weights are kept, ascending."""
        return self._steps(_WEIGHTS)

    def _file(self, kind: str, step: int) -> Path:
        return self.path / CHECKPOINTS / f"{kind}-{step:06d}.npz"

    def _steps(self, kind: str) -> list[int]:
        folder = self.path / CHECKPOINTS
        with reading(folder):
            names = {path.name for path in folder.iterdir()}
        # By number: as text, step-1000000 would come before step-999999.
        matches = (re.fullmatch(rf"{kind}-([0-9]{{6,}})\.npz", name) for name in names)
        steps = sorted(int(match[1]) for match in matches if match)
        return [step for step in steps if self._file(kind, step).name in names]

    def save_checkpoint(
        self,
        state: TrainState,
        digest: bytes,
        seconds: float,
        *,
        weights_only: bool = False,
    ) -> Path:
        """Save a state, then remove all but the newest `keepCheckpoints`.

        A full checkpoint also becomes the stepNum of config.json. Weights alone stay
        for good.

        Args:
            state: between two steps.
            digest: of the state.
            seconds: trained until then.
            weights_only: to look back at, not to resume from.

        Raises:
            CheckpointError: the state holds numbers that are not finite.
            RunError: the disk is full or failing; older checkpoints are untouched.
        """
        assert self.locked, "a run opened for reading is not written"
        checkpoint = Checkpoint(state, digest, seconds)
        path = self._file(_WEIGHTS if weights_only else _FULL, state.step)
        try:
            pack = checkpoint.weights_to_bytes if weights_only else checkpoint.to_bytes
            content = pack()
        except CheckpointError as error:
            raise CheckpointError(
                f"{path}: not saved: {error}; resume with a smaller learningRate"
            ) from error
        with writing(path):
            write_atomically(path, content)
        if not weights_only:
            self._prune(state.step)
            self.update_step_num(state.step)
        return path

    def _prune(self, newest: int) -> None:
        older = [step for step in self.checkpoint_steps() if step < newest]
        surplus = len(older) + 1 - self.record.config.keep_checkpoints
        for step in older[: max(0, surplus)]:
            # Windows does not remove what a reader has open; the next call does then.
            with suppress(OSError):
                self._file(_FULL, step).unlink()

    def discard_after(self, step: int) -> None:
        """Remove checkpoints of later steps: what comes now will differ."""
        assert self.locked, "a run opened for reading is not written"
        for kind in (_FULL, _WEIGHTS):
            for later in self._steps(kind):
                path = self._file(kind, later)
                if later > step:
                    with writing(path):
                        path.unlink()

    def load_checkpoint(
        self, fingerprint: bytes, step: int | None = None
    ) -> Checkpoint:
        """Return what the run goes on from.

        Args:
            fingerprint: of the run's configuration and text.
            step: of the checkpoint; default: the newest.

        Raises:
            CheckpointError: its bytes are not those that were written.
            RunError: there is no such checkpoint or it cannot be read.
        """
        kind, step = self._choose((_FULL,), step)
        with self._explained(kind, step) as data:
            return read_checkpoint(data, step, fingerprint)

    def load_weights(self, step: int | None = None) -> tuple[int, Floats]:
        """Return a step and the weights (P,) at it, from a checkpoint of either kind.

        Args:
            step: default: the newest.

        Raises:
            CheckpointError: its bytes are not those that were written.
            RunError: there is no such checkpoint or it cannot be read.
        """
        kind, step = self._choose((_FULL, _WEIGHTS), step)
        with self._explained(kind, step) as data:
            return step, read_weights(data, step)

    def _choose(self, kinds: tuple[str, ...], step: int | None) -> tuple[str, int]:
        found = {s: kind for kind in reversed(kinds) for s in self._steps(kind)}
        chosen = max(found, default=None) if step is None else step
        if chosen is None or chosen not in found:
            wanted = "a checkpoint" if step is None else f"a checkpoint of step {step}"
            raise RunError(
                f"{self.path / CHECKPOINTS}: expected {wanted}, found "
                f"{listed('checkpoint', sorted(found))}; name another one, or start "
                "without --resume for a new run"
            )
        return found[chosen], chosen

    @contextmanager
    def _explained(self, kind: str, step: int) -> Iterator[bytes]:
        """Yield the bytes of a checkpoint; add to a CheckpointError what to do."""
        path = self._file(kind, step)
        with reading(path):
            data = path.read_bytes()
        try:
            yield data
        except CheckpointError as error:
            older = [s for s in self._steps(kind) if s < step]
            before = self._file(kind, older[-1]).name if older else "none"
            raise CheckpointError(
                f"{path}: {error}; move it away to go on from the one before: {before}"
            ) from error


class RunStore:
    """The folder below which each run has a folder of its own, numbered from 0."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def numbers(self) -> list[int]:
        """Return the numbers of all runs, ascending; other names are not looked at.

        A numbered folder without config.json is no run: nobody finished making it.
        """
        with reading(self.root):
            return [
                number
                for number in self._taken()
                if (self.root / str(number) / CONFIG).is_file()
            ]

    def _taken(self) -> list[int]:
        try:
            names = [path.name for path in self.root.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(int(n) for n in names if re.fullmatch("0|[1-9][0-9]*", n))

    def create(
        self, record: RunRecord, vocabulary: Vocabulary, default_text: Text | None
    ) -> Run:
        """Make the folder of a new run and take its lock.

        Args:
            record: its stepNum is the run's first step.
            vocabulary: of the run.
            default_text: stored with the run, as it differs between Python versions;
                None: the text is at the record's paths.

        Raises:
            RunError: the folder cannot be written; nothing of it stays.
        """
        with writing(self.root), ExitStack() as undo:
            path = self._new_folder()
            undo.callback(shutil.rmtree, path, ignore_errors=True)
            sync_folder(self.root)
            lock = take_lock(path)
            undo.callback(os.close, lock)
            (path / CHECKPOINTS).mkdir()
            write_json(path / VOCABULARY, vocabulary.to_json())
            if default_text is not None:
                text = {"name": default_text.name, "documents": default_text.documents}
                write_json(path / TEXT, text)
            # Last: with it the folder becomes a run.
            write_json(path / CONFIG, record.to_json(record.config.step_num))
            run = Run(path, lock)
            undo.pop_all()
        return run

    def _new_folder(self) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        number = max(self._taken(), default=-1) + 1
        while True:
            path = self.root / str(number)
            try:
                path.mkdir()  # of two servers, one only can make it
            except FileExistsError:
                number += 1
            else:
                return path

    def open(self, number: int | None = None, *, lock: bool) -> Run:
        """Open a run.

        Args:
            number: default: the newest run.
            lock: to train on; False: to read, which writes nothing at all.

        Raises:
            RunError: there is no such run, it is damaged, or another process has it.
        """
        numbers = self.numbers()
        chosen = max(numbers, default=None) if number is None else number
        if chosen is None or chosen not in numbers:
            wanted = "a run" if number is None else f"run {number}"
            raise RunError(
                f"{self.root}: expected {wanted}, found {listed('run', numbers)}; name"
                " another one, another folder with --runs, or start a new run"
            )
        path = self.root / str(chosen)
        if not lock:
            return Run(path, None)
        with ExitStack() as undo:
            descriptor = take_lock(path)
            undo.callback(os.close, descriptor)
            _remove_leftovers(path)
            run = Run(path, descriptor)
            undo.pop_all()
        return run


def _remove_leftovers(folder: Path) -> None:
    """Remove the halves of files that a server was killed over; the lock is held."""
    for place in (folder, folder / CHECKPOINTS):
        for leftover in place.glob(".*.[0-9]*.tmp"):
            with writing(leftover):
                leftover.unlink()

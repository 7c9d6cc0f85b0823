"""The folders of runs: numbered, locked, with checkpoints that prove themselves.

    trainingRuns/12/
      config.json       all keys, and what a resume needs beside them
      vocabulary.json   token <-> character
      text.json         the text itself, where the paths in config.json do not give it
      lock              held by the server that trains; names its process
      checkpoints/      step-000123.npz: to resume from; the newest few are kept
                        weights-000008.npz: weights alone, to look back at; all kept

Owns every file of a run except its logs, which `runlogs` appends to, and who is
credited, which `credits` writes. Does not own: when a checkpoint is due, or whether a
resumed run may change a key.

The idea: whole files are replaced in one move, a run counts once config.json, written
last, is there, and a checkpoint ends in a hash over all bytes before it. So whatever
happened to the machine, what is found is complete or is refused by name.
"""

import dataclasses
import os
import re
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.checkpoints import Checkpoint, read_checkpoint, read_weights
from utilities.config import Config
from utilities.curves import Curves
from utilities.data import Text, Vocabulary
from utilities.disk import DISK, Disk
from utilities.errors import CheckpointError, DataError, RunError
from utilities.evolution import TrainState
from utilities.generation import Sampling
from utilities.logfiles import read_losses, read_metrics, read_samples
from utilities.misc import RUNS
from utilities.records import EXTRAS, checked_keys
from utilities.runfiles import (
    listed,
    read_json,
    reading,
    take_lock,
    write_json,
    writing,
)
from utilities.scales import Doubles
from utilities.statefiles import CHECKPOINTS, FULL, WEIGHTS, StateFiles
from utilities.svgplot import loss_svg
from utilities.trained import Model

Floats: TypeAlias = NDArray[np.float32]

_NUMBER = "0|[1-9][0-9]*"
_ATTEMPTS = 3  # to read a checkpoint that the server may just be removing

CONFIG, VOCABULARY, TEXT = "config.json", "vocabulary.json", "text.json"


# What config.json holds.


@dataclass(frozen=True)
class RunRecord:
    """What must be known of a run to resume it, beside a checkpoint."""

    config: Config
    run_seed: int  # 64 bits; whoever knows it knows all seeds to come
    text_name: str
    text_sha256: str  # 64 hex digits
    text_paths: tuple[str, ...]  # absolute; empty: the default text, or a stored one
    program: str  # version that wrote it

    def __post_init__(self) -> None:
        extras = self.to_json(0)
        wrong = [k for k, check in EXTRAS.items() if not check.accepts(extras[k])]
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


EXTRA_KEYS = tuple(EXTRAS)


def _read_record(path: Path) -> tuple[RunRecord, int]:
    """Return the record and the first step that a run's config.json holds."""
    config, keys = checked_keys(path, read_json(path))
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

    To look at one, also while it is trained: ``Run(7).metrics``, ``.generate("The ")``.
    A `RunStore` opens one to train on it.
    """

    def __init__(
        self, run: int | Path, lock: int | None = None, disk: Disk = DISK
    ) -> None:
        """Read what the run is.

        Args:
            run: its number in `RUNS`, or its folder.
            lock: descriptor of its lock; None: to look at only.
            disk: takes what is written.

        Raises:
            RunError: there is no such run, or it is damaged.
        """
        self.path = RunStore(RUNS).folder(run) if isinstance(run, int) else run
        if not re.fullmatch(_NUMBER, self.path.name):
            raise RunError(f"{run}: expected a folder named by a run's number")
        self.number = int(self.path.name)
        self.record, self.first_step = _read_record(self.path / CONFIG)
        self.disk = disk
        self._states = StateFiles(self.path, disk)
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
            write_json(
                self.path / CONFIG, record.to_json(self.first_step), disk=self.disk
            )
            self.record = record

    def update_step_num(self, step: int) -> None:
        """Store the step that the run is at."""
        self.update_config(dataclasses.replace(self.record.config, step_num=step))

    # What a person looks at; all of it is read anew each time.

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """Return the objects of metrics.jsonl: one for each step that it holds."""
        return read_metrics(self.path)

    @property
    def losses(self) -> Doubles:
        """Return the loss of each step from the first one on, nan for none."""
        return read_losses(self.path)

    @property
    def samples(self) -> list[tuple[int, str]]:
        """Return step and text of what was generated while the run was trained."""
        return read_samples(self.path)

    @property
    def curves(self) -> Curves:
        """Return the logs side by side."""
        return Curves(
            self.first_step, self.record.config.step_num, self.metrics, self.losses
        )

    def model(self, step: int | None = None) -> Model:
        """Return the network with the weights of a step.

        Args:
            step: of a checkpoint of either kind; default: the newest.

        Raises:
            RunError: there is no such checkpoint, or the files do not belong together.
        """
        config, vocabulary = self.record.config, self.vocabulary
        return Model.checked(self.path, config, vocabulary, *self.load_weights(step))

    def generate(
        self,
        prompt: str = "",
        length: int = 400,
        *,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 1,
        step: int | None = None,
    ) -> str:
        """Return a prompt and so many characters that the run's model writes after it.

        Args:
            prompt: read first; empty: the start of a document.
            length: characters.
            temperature: below 1 likely characters become likelier; 0: no chance.
            top_k: draw from that many likeliest characters.
            top_p: draw from the fewest that together have that probability.
            seed: of the draws.
            step: whose weights are taken; default: the newest.

        Raises:
            ConfigError: a setting is out of range.
            RunError: there are no such weights, or they have diverged.
        """
        sampling = Sampling(temperature, top_k, top_p, seed)
        return self.model(step).write(prompt, length, sampling)

    def __repr__(self) -> str:
        return f"Run({self.path.as_posix()!r})"

    def _repr_svg_(self) -> str:
        """Return the loss as a picture, which a notebook shows."""
        return loss_svg([(f"run {self.number}", self.curves)], "step")

    # Checkpoints.

    def checkpoint_steps(self) -> list[int]:
        """Return the steps that the run can be resumed from, ascending."""
        return self._states.steps(FULL)

    def checkpoint_path(self, step: int) -> Path:
        """Return where the checkpoint of a step lies."""
        return self._states.path(FULL, step)

    def weights_steps(self) -> list[int]:
        """Return the steps of which only the weights are kept, ascending."""
        return self._states.steps(WEIGHTS)

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
        path = self._states.path(WEIGHTS if weights_only else FULL, state.step)
        try:
            pack = checkpoint.weights_to_bytes if weights_only else checkpoint.to_bytes
            content = pack()
        except CheckpointError as error:
            raise CheckpointError(
                f"{path}: not saved: {error}; resume with a smaller learningRate"
            ) from error
        with writing(path):
            self.disk.replace(path, content)
        if not weights_only:
            self._states.prune(state.step, self.record.config.keep_checkpoints)
            self.update_step_num(state.step)
        return path

    def discard_after(self, step: int) -> None:
        """Remove checkpoints of later steps: what comes now will differ."""
        assert self.locked, "a run opened for reading is not written"
        self._states.discard_after(step)

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
        otherwise = "start without --resume for a new run"
        kind, step = self._states.choose((FULL,), step, otherwise)
        with self._states.content(kind, step) as data:
            return read_checkpoint(data, step, fingerprint)

    def load_weights(self, step: int | None = None) -> tuple[int, Floats]:
        """Return a step and the weights (P,) at it, from a checkpoint of either kind.

        Args:
            step: default: the newest.

        Raises:
            CheckpointError: its bytes are not those that were written.
            RunError: there is no such checkpoint or it cannot be read.
        """
        for attempt in range(_ATTEMPTS):
            kind, found = self._states.choose(
                (FULL, WEIGHTS), step, "wait for the next one"
            )
            try:
                with self._states.content(kind, found) as data:
                    return found, read_weights(data, found)
            except RunError as error:
                gone = isinstance(error.__cause__, FileNotFoundError)
                if not gone or attempt + 1 == _ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")


class RunStore:
    """The folder below which each run has a folder of its own, numbered from 0."""

    def __init__(self, root: Path, disk: Disk = DISK) -> None:
        self.root = root
        self._disk = disk

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

    def unfinished(self) -> list[int]:
        """Return the numbers of folders that are no run: they lack config.json."""
        runs = self.numbers()
        with reading(self.root):
            return [
                number
                for number in self._taken()
                if number not in runs and (self.root / str(number)).is_dir()
            ]

    def _taken(self) -> list[int]:
        try:
            names = [path.name for path in self.root.iterdir()]
        except FileNotFoundError:
            return []
        return sorted(int(n) for n in names if re.fullmatch(_NUMBER, n))

    def create(
        self,
        record: RunRecord,
        vocabulary: Vocabulary,
        stored: Text | None,
        start: Checkpoint | None = None,
    ) -> Run:
        """Make the folder of a new run and take its lock.

        Args:
            record: its stepNum is the run's first step.
            vocabulary: of the run.
            stored: the text, kept with the run where the record's paths alone would not
                give it again: Python's own differs between versions, standard input is
                gone; None: they do.
            start: saved with the run, so that it can be resumed from the beginning.

        Raises:
            RunError: the folder cannot be written; nothing of it stays.
        """
        with writing(self.root), ExitStack() as undo:
            path = self._new_folder()
            undo.callback(shutil.rmtree, path, ignore_errors=True)
            self._disk.sync_folder(self.root)
            lock = take_lock(path)
            undo.callback(os.close, lock)
            self._disk.make_folder(path / CHECKPOINTS)
            write_json(path / VOCABULARY, vocabulary.to_json(), self._disk)
            if stored is not None:
                text = {"name": stored.name, "documents": stored.documents}
                write_json(path / TEXT, text, self._disk)
            if start is not None:
                first = StateFiles(path, self._disk).path(FULL, start.state.step)
                self._disk.replace(first, start.to_bytes())
            # Last: with it the folder becomes a run.
            first_step = record.config.step_num
            write_json(path / CONFIG, record.to_json(first_step), self._disk)
            run = Run(path, lock, self._disk)
            undo.pop_all()
        return run

    def _new_folder(self) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        number = max(self._taken(), default=-1) + 1
        while True:
            path = self.root / str(number)
            try:
                self._disk.make_folder(path)  # of two servers, one only can make it
            except FileExistsError:
                number += 1
            else:
                return path

    def folder(self, number: int | None = None) -> Path:
        """Return the folder of a run.

        Args:
            number: default: the newest run.

        Raises:
            RunError: there is no such run.
        """
        numbers = self.numbers()
        chosen = max(numbers, default=None) if number is None else number
        if chosen in self.unfinished():
            raise RunError(
                f"{self.root / str(chosen)}: expected a run, found a folder without "
                f"{CONFIG}: it was never finished, or the file is lost; restore the "
                "file, or remove the folder"
            )
        if chosen is None or chosen not in numbers:
            wanted = "a run" if number is None else f"run {number}"
            raise RunError(
                f"{self.root}: expected {wanted}, found {listed('run', numbers)}; name"
                " another one, or another folder with --runs"
            )
        return self.root / str(chosen)

    def open(self, number: int | None = None, *, lock: bool) -> Run:
        """Open a run.

        Args:
            number: default: the newest run.
            lock: to train on; False: to read, which writes nothing at all.

        Raises:
            RunError: there is no such run, it is damaged, or another process has it.
        """
        path = self.folder(number)
        if not lock:
            return Run(path)
        with ExitStack() as undo:
            descriptor = take_lock(path)
            undo.callback(os.close, descriptor)
            _remove_leftovers(path)
            run = Run(path, descriptor, self._disk)
            undo.pop_all()
        return run


def _remove_leftovers(folder: Path) -> None:
    """Remove the halves of files that a server was killed over; the lock is held."""
    for place in (folder, folder / CHECKPOINTS):
        for leftover in place.glob(".*.[0-9]*.tmp"):
            with writing(leftover):
                leftover.unlink()

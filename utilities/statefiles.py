"""The checkpoints folder of a run: which states lie there, and under which names.

    step-000123.npz      to resume from; the newest few are kept
    weights-000008.npz   weights alone, to look back at; all are kept

Owns names, which of several states is meant, which are removed. Does not own what is in
the files (`checkpoints`) or the run (`runs`).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utilities.disk import DISK, Disk
from utilities.errors import CheckpointError, RunError
from utilities.runfiles import listed, reading, writing

CHECKPOINTS = "checkpoints"
FULL, WEIGHTS = "step", "weights"  # how checkpoints are named


class StateFiles:
    """The files below the folder of one run."""

    def __init__(self, run: Path, disk: Disk = DISK) -> None:
        self.folder = run / CHECKPOINTS
        self._disk = disk

    def path(self, kind: str, step: int) -> Path:
        """Return where a state of a kind lies."""
        return self.folder / f"{kind}-{step:06d}.npz"

    def steps(self, kind: str) -> list[int]:
        """Return the steps of a kind, ascending; RunError where they cannot be read."""
        with reading(self.folder):
            names = {path.name for path in self.folder.iterdir()}
        # By number: as text, step-1000000 would come before step-999999.
        matches = (re.fullmatch(rf"{kind}-([0-9]{{6,}})\.npz", name) for name in names)
        steps = sorted(int(match[1]) for match in matches if match)
        return [step for step in steps if self.path(kind, step).name in names]

    def prune(self, newest: int, keep: int) -> None:
        """Remove all checkpoints but so many, the newest and those before it."""
        older = [step for step in self.steps(FULL) if step < newest]
        surplus = len(older) + 1 - keep
        for step in older[: max(0, surplus)]:
            # Windows does not remove what a reader has open; the next call does then.
            with suppress(OSError):
                self._disk.remove(self.path(FULL, step))

    def discard_after(self, step: int) -> None:
        """Remove states of later steps; RunError where one cannot be removed."""
        for kind in (FULL, WEIGHTS):
            for later in self.steps(kind):
                path = self.path(kind, later)
                if later > step:
                    with writing(path):
                        self._disk.remove(path)

    def choose(
        self, kinds: tuple[str, ...], step: int | None, otherwise: str
    ) -> tuple[str, int]:
        """Return kind and step of the state that is meant.

        Args:
            kinds: that will do, the best one first.
            step: of the state; None: the newest.
            otherwise: what to do where there is none, for the message.

        Raises:
            RunError: there is no such state.
        """
        found = {s: kind for kind in reversed(kinds) for s in self.steps(kind)}
        chosen = max(found, default=None) if step is None else step
        if chosen is None or chosen not in found:
            wanted = "a checkpoint" if step is None else f"a checkpoint of step {step}"
            raise RunError(
                f"{self.folder}: expected {wanted}, found "
                f"{listed('checkpoint', sorted(found))}; name another one, or "
                f"{otherwise}"
            )
        return found[chosen], chosen

    @contextmanager
    def content(self, kind: str, step: int) -> Iterator[bytes]:
        """Yield the bytes of a state; add to a CheckpointError what to do."""
        path = self.path(kind, step)
        with reading(path):
            data = path.read_bytes()
        try:
            yield data
        except CheckpointError as error:
            older = [s for s in self.steps(kind) if s < step]
            before = self.path(kind, older[-1]).name if older else "none"
            raise type(error)(
                f"{path}: {error}; move it away to go on from the one before: {before}"
            ) from error

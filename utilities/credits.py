"""Who has taught a run: each machine's trials, and its share of the gradient.

    credits.json   {"step": 500, "clients": {"lab-3": {"trials": 81920, "steps": 499,
                    "reward": 2716904.0}, ...}}

Owns this file, both ways. Does not own where the figures come from.

The idea: a step's update is the sum over all trials of reward times noise, so the sum
of a machine's |reward|, as a share of that of all, is its part of what was learned. The
file holds the steps before its ``step`` and is written after the checkpoint of that
step: a resume goes on with neither more nor less than what the checkpoint has learned.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from utilities.logfiles import bytes_of
from utilities.runfiles import read_json, write_json
from utilities.runs import Run

CREDITS = "credits.json"
_LARGEST = 1e18  # number in the file that is believed

# Of one client in one step: its name, trials, sum of |reward|.
Contribution: TypeAlias = tuple[str, int, float]


@dataclass(frozen=True)
class Credit:
    """What a machine has done, under the name that it gave."""

    name: str
    trials: int
    steps: int
    reward: float  # sum of |reward|


class CreditLog:
    """Count who has taught a run that is open with its lock."""

    def __init__(self, run: Run) -> None:
        """Go on from what the file holds.

        Raises:
            RunError: the file cannot be read.
        """
        assert run.locked, "a run opened for reading is not written"
        self._path, self._disk = run.path / CREDITS, run.disk
        self._counted, clients = read_credits(run.path)
        self._clients = {credit.name: credit for credit in clients}
        self._pending: list[tuple[int, tuple[Contribution, ...]]] = []
        self.trials = sum(credit.trials for credit in clients)  # of all steps so far

    def add(self, step: int, contributions: Iterable[Contribution]) -> None:
        """Count what clients gave to a step that has closed; steps ascend.

        After a resume from an older checkpoint steps come again: they count once.
        """
        if step >= self._counted:
            given = tuple(contributions)
            self._pending.append((step, given))
            self.trials += sum(trials for _, trials, _ in given)

    def save(self, step: int) -> None:
        """Write what the steps before this one have got; call after its checkpoint.

        Raises:
            RunError: the disk is full or failing; the file is as it was.
        """
        ready = [c for at, c in self._pending if at < step]
        self._pending = [(at, c) for at, c in self._pending if at >= step]
        for contributions in ready:
            for name, trials, reward in contributions:
                old = self._clients.get(name, Credit(name, 0, 0, 0.0))
                self._clients[name] = replace(
                    old,
                    trials=old.trials + trials,
                    steps=old.steps + 1,
                    reward=old.reward + reward,
                )
        self._counted = max(self._counted, step)
        write_json(self._path, self._to_json(), self._disk)

    def _to_json(self) -> dict[str, Any]:
        clients = {
            name: {
                "trials": credit.trials,
                "steps": credit.steps,
                "reward": round(credit.reward, 3),
            }
            for name, credit in self._clients.items()
        }
        return {"step": self._counted, "clients": clients}


def read_credits(folder: Path) -> tuple[int, list[Credit]]:
    """Return the step before which all is counted, and each machine, most trials first.

    What makes no sense is left out; a run without the file has none.

    Raises:
        RunError: the file cannot be read or is damaged.
    """
    path = folder / CREDITS
    if not bytes_of(path):
        return 0, []
    content = read_json(path)
    found = content if isinstance(content, dict) else {}
    clients = found.get("clients")
    credits = [
        Credit(name, int(numbers[0]), int(numbers[1]), numbers[2])
        for name, entry in (clients.items() if isinstance(clients, dict) else ())
        if (numbers := _numbers(entry)) is not None
    ]
    step = found.get("step")
    counted = step if isinstance(step, int) and step >= 0 else 0
    return counted, sorted(credits, key=lambda credit: (-credit.trials, credit.name))


def _numbers(entry: object) -> tuple[float, float, float] | None:
    """Return trials, steps and reward of an entry; None where they make no sense."""
    if not isinstance(entry, dict):
        return None
    values = [entry.get(key) for key in ("trials", "steps", "reward")]
    numbers = [v for v in values if isinstance(v, int | float) and 0 <= v < _LARGEST]
    if len(numbers) < len(values):
        return None
    return float(numbers[0]), float(numbers[1]), float(numbers[2])

"""Whatever of a run's last writes a crash has left, no announced step is lost."""

import functools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.crash_states import Crash, Operation, Recorder, after_crash
from tests.journaled_runs import WORDS
from utilities import serving
from utilities.errors import RunError
from utilities.events import Send
from utilities.evolution import Update
from utilities.options import parse_server
from utilities.recovery import entries_from, read_journal
from utilities.runs import RunStore
from utilities.setup import prepare

STEPS = 20
SEED = 11
AFTER = 12  # operations after a forgotten one within which it is noticed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Recorded:
    """All that was done to the disk in a run of 20 steps."""

    operations: tuple[Operation, ...]
    digests: dict[int, bytes]  # of the state before each step
    text: Path


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    folder = tmp_path_factory.mktemp("recorded")
    text = folder / "cat.txt"
    text.write_text(WORDS, encoding="utf-8")
    root = folder / "runs"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        yield _record(patch, root, text)


def _record(patch: pytest.MonkeyPatch, root: Path, text: Path) -> Recorded:
    """Have the real server serve a real client, on a disk that writes all down."""
    recorder = Recorder(root)

    class Watched(serving.Server):
        def _execute(self, command: Any, encoded: Any) -> None:
            for message in command.messages if isinstance(command, Send) else ():
                if isinstance(message, Update):
                    recorder.announce(message.step)
            super()._execute(command, encoded)

    patch.setattr(serving, "Server", Watched)
    prepared = functools.partial(prepare, disk=recorder)
    patch.setattr(serving, "prepare", prepared)
    line = f"--runs {root} --data {text} --hiddenSize 4 --sequenceLength 8 --port 0"
    line += f" --localClients 1 --maxSteps {STEPS} --timePerStep 0.05 --seed 5"
    line += " --checkPointTime 0.2 --keepCheckpoints 2 --quiet"
    serving.serve(parse_server(line.split()))
    now = prepare(parse_server(f"--runs {root} --data {text} --resume".split()))
    with closing(now.run):
        digests = {now.state.step: now.state.digest(now.setting.fingerprint)}
        contents = read_journal(now.run, now.setting)
        for file in contents:
            entries = entries_from(contents, file.first)
            digests |= {entry.step: entry.digest for entry in entries}
    lines = (now.run.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    known = [json.loads(line) for line in lines]
    digests |= {line["step"]: bytes.fromhex(line["digest"]) for line in known}
    return Recorded(tuple(recorder.operations), digests, text)


def recovers(
    recorded: Recorded,
    operations: Sequence[Operation],
    how: Crash,
    rng: random.Random,
    root: Path,
) -> str:
    """Return what is wrong with a recovery, nothing where all is well."""
    root.mkdir()
    announced = after_crash(operations, root, how, rng)
    if not announced and not RunStore(root).numbers():
        return ""  # the run had not begun
    line = f"--runs {root} --data {recorded.text} --resume"
    try:
        now = prepare(parse_server(line.split()))
    except RunError as error:
        return f"refused: {error}"
    now.run.close()
    step = now.state.step
    if step < announced:
        return f"step {announced - 1} was announced, the run is at {step}"
    if now.state.digest(now.setting.fingerprint) != recorded.digests[step]:
        return f"the state at step {step} is another one"
    return ""


def sweep(
    recorded: Recorded,
    operations: Sequence[Operation],
    folder: Path,
    first: int = 0,
) -> tuple[int, list[str]]:
    """Recover from a crash after each operation; return how often, and what failed.

    Args:
        recorded: the run.
        operations: that were done to the disk.
        folder: for the disks.
        first: operation after which a crash is tried; a few more follow it.
    """
    rng, failed, tries = random.Random(SEED), [], 0
    last = min(len(operations), first + AFTER) if first else len(operations)
    for count in range(first, last + 1):
        for how in Crash:
            tries += 1
            root = folder / str(tries)
            wrong = recovers(recorded, operations[:count], how, rng, root)
            if wrong:
                name = operations[count - 1][:2]
                failed.append(f"{how.value} after {count} {name}: {wrong}")
    return tries, failed


def test_after_any_crash_the_run_goes_on_and_no_announced_step_is_missing(
    recorded: Recorded, tmp_path: Path
) -> None:
    announced = [how for what, _, how in recorded.operations if what == "announce"]
    assert announced == list(range(STEPS))

    tries, failed = sweep(recorded, recorded.operations, tmp_path)

    print(f"crash states: {tries} recoveries, {len(failed)} failed")
    assert tries >= 800
    assert failed == []


def nth(operations: Sequence[Operation], is_it: Callable[[Operation], bool]) -> int:
    """Return the place of the operation in the middle of all that are of a kind."""
    places = [place for place, each in enumerate(operations) if is_it(each)]
    return places[len(places) // 2]


@pytest.mark.parametrize("what", ["sync", "sync_folder"])
def test_one_forgotten_sync_of_the_journal_would_be_noticed(
    recorded: Recorded, tmp_path: Path, what: str
) -> None:
    def is_it(operation: Operation) -> bool:
        name = operation[1]
        of_journal = "/journal" in name and not name.endswith(".tmp")
        return operation[0] == what and of_journal

    place = nth(recorded.operations, is_it)
    operations = list(recorded.operations)
    del operations[place]

    _, failed = sweep(recorded, operations, tmp_path, place)

    print(f"without one {what}: {len(failed)} recoveries fail, as they should")
    assert any("was announced" in each or "refused" in each for each in failed)

"""The commands that hold a run's checkpoints and its journal against each other.

Owns: from options to a state or a verdict; nothing of the run is written. Does not own
how states follow from each other (`recovery`) or the journal's files (`journal`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from utilities.checkpoints import Checkpoint
from utilities.config import Rule
from utilities.data import Corpus, build_corpus
from utilities.errors import CheckpointError, RunError
from utilities.evolution import Setting, TrainState
from utilities.history import Entry
from utilities.inspect.asking import Command, Options, add_output, add_rule
from utilities.inspect.console import note, say, say_json
from utilities.inspect.filecommands import write_file
from utilities.journal import Contents
from utilities.options import Parser
from utilities.recovery import (
    damages,
    doubts,
    entries_from,
    read_journal,
    replay,
    sound_checkpoint,
)
from utilities.runs import Run, RunStore
from utilities.setup import text_of

_STEP = Rule(int, "step whose state is wanted", high=(1 << 63) - 1)
_MANY = 1000  # steps: beyond, a replay takes a while
_ATTEMPTS = 9  # to look at all files at one moment of a run that goes on


@dataclass(frozen=True)
class _Opened:
    """A run and what its states follow from."""

    run: Run
    setting: Setting
    corpus: Corpus
    contents: list[Contents]

    @property
    def end(self) -> int:
        """Return the step after the last one of the journal."""
        return max((file.end for file in self.contents), default=0)


def _add_data(parser: Parser) -> None:
    group = parser.add_argument_group("the text")
    parser.option(
        group,
        "data",
        nargs="+",
        type=Path,
        metavar="PATH",
        default=[],
        help="where the run's text lies now [where it was]",
    )


def _open(store: RunStore, options: Options) -> _Opened:
    run = store.open(options["number"], lock=False)
    config, text = run.record.config, text_of(run, options["data"])
    setting = Setting(config, text.sha256)
    corpus = build_corpus(text, run.vocabulary, config.window_length)
    return _Opened(run, setting, corpus, read_journal(run, setting))


# replay


def _replay_options(parser: Parser) -> None:
    group = parser.add_argument_group("the state")
    add_rule(parser, group, "to", _STEP, None, "the newest")
    add_output(parser, group, None, "checkpoint to write, for instance step.npz")
    _add_data(parser)


def replay_to(store: RunStore, options: Options) -> None:
    """Rebuild the state of a step from the checkpoint before it and the journal.

    Raises:
        RunError: the step is not covered, or what it follows from is damaged.
    """
    opened = _open(store, options)
    checkpoint = _before(opened, options["to"])
    start = checkpoint.state.step
    wanted = max(start, opened.end) if options["to"] is None else options["to"]
    if wanted - start > _MANY:
        note(f"replaying {wanted - start:,} steps")
    state, seconds = checkpoint.state, checkpoint.seconds
    entries = entries_from(opened.contents, start)
    for entry, after in replay(opened.setting, opened.corpus, state, entries):
        if state.step == wanted:
            break
        state, seconds = after, entry.seconds
    if state.step != wanted:
        raise RunError(
            f"{opened.run.path}: expected a step from the oldest checkpoint's on to "
            f"{state.step}, where the journal ends or is damaged, got {wanted}"
        )
    _tell(opened, Checkpoint(state, _digest(opened, state), seconds), start, options)


def _before(opened: _Opened, step: int | None) -> Checkpoint:
    checkpoint, unsound = sound_checkpoint(opened.run, opened.setting.fingerprint, step)
    for path in unsound:
        note(f"{path}: damaged; the one before is used")
    return checkpoint


def _digest(opened: _Opened, state: TrainState) -> bytes:
    return state.digest(opened.setting.fingerprint)


def _tell(opened: _Opened, found: Checkpoint, start: int, options: Options) -> None:
    step, output = found.state.step, options["output"]
    if output is not None:
        write_file(output, found.to_bytes())
    if options["json"]:
        answer = {"number": opened.run.number, "step": step, "from": start}
        file = None if output is None else str(output)
        say_json({**answer, "digest": found.digest.hex(), "file": file})
        return
    say(f"run {opened.run.number}, step {step}: {step - start:,} steps replayed")
    say(f"digest {found.digest.hex()}")
    if output is not None:
        say(f"written: {output}")


# verify


Known: TypeAlias = dict[int, Checkpoint | CheckpointError]  # by step


def _moment(opened: _Opened) -> tuple[_Opened, Known]:
    """Return journal and checkpoints of one moment, though the run may be going on.

    Raises:
        RunError: a checkpoint cannot be read.
    """
    run, fingerprint, attempts = opened.run, opened.setting.fingerprint, 0
    while True:
        steps, attempts = run.checkpoint_steps(), attempts + 1
        try:
            known: Known = {step: _loaded(run, fingerprint, step) for step in steps}
        except RunError:  # the server may just have removed it
            if attempts == _ATTEMPTS or run.checkpoint_steps() == steps:
                raise
            continue
        found = replace(opened, contents=read_journal(run, opened.setting))
        if attempts == _ATTEMPTS or run.checkpoint_steps() == steps:
            return found, known


def _loaded(run: Run, fingerprint: bytes, step: int) -> Checkpoint | CheckpointError:
    try:
        return run.load_checkpoint(fingerprint, step)
    except CheckpointError as error:
        return error


@dataclass(frozen=True)
class Finding:
    """What was found out about one file or step."""

    what: str
    verdict: str
    sound: bool = True


def verify(store: RunStore, options: Options) -> None:
    """Prove a run's checkpoints and its journal against each other.

    Raises:
        RunError: something is damaged, missing or contradicts the rest; all is said.
    """
    opened, known = _moment(_open(store, options))
    findings = [*_checkpoints(known), *_files(opened), *_steps(opened, known)]
    faults = [finding for finding in findings if not finding.sound]
    if options["json"]:
        say_json(
            {
                "number": opened.run.number,
                "sound": not faults,
                "findings": [vars(finding) for finding in findings],
            }
        )
    else:
        for finding in findings:
            mark = "ok   " if finding.sound else "FAULT"
            say(f"{mark} {finding.what}: {finding.verdict}")
    if faults:
        raise RunError(
            f"{opened.run.path}: {len(faults)} of {len(findings)} proofs failed; "
            "--resume goes on from what is sound, where needed with --salvage"
        )


def _checkpoints(known: Known) -> Iterator[Finding]:
    """Yield whether each checkpoint holds what was written."""
    for step, found in known.items():
        fault = str(found) if isinstance(found, CheckpointError) else ""
        yield Finding(f"checkpoint {step}", fault or "sound", sound=not fault)


def _files(opened: _Opened) -> Iterator[Finding]:
    """Yield whether each file of the journal holds what was written."""
    broken = {damage.path: damage for damage in damages(opened.contents)}
    for file in opened.contents:
        what = f"journal {file.path.name}"
        if file.path in broken:
            damage = broken[file.path]
            place = f"damaged at step {damage.step}, byte {damage.offset}"
            yield Finding(what, place, sound=False)
        else:
            steps = f"steps {file.first} to {file.end - 1}"
            yield Finding(what, steps if file.records else "empty")


def _steps(opened: _Opened, known: Known) -> Iterator[Finding]:
    """Yield whether each state that is known follows from the oldest checkpoint."""
    sound = {s: c for s, c in known.items() if not isinstance(c, CheckpointError)}
    if not sound:
        return
    first = min(sound)
    state = start = sound[first].state
    entries, proved = tuple(entries_from(opened.contents, first)), list[Entry]()
    try:
        for entry, after in replay(opened.setting, opened.corpus, start, entries):
            state = after
            proved.append(entry)
            claimed = sound.get(state.step)
            if claimed is not None and claimed.digest != _digest(opened, state):
                text = "is not what the journal leads to"
                yield Finding(f"checkpoint {state.step}", text, sound=False)
                return
    except RunError as error:
        yield Finding(f"replay from step {first}", str(error), sound=False)
        return
    yield Finding(f"replay from step {first}", f"proved up to step {state.step}")
    for text in doubts(entries, proved):
        yield Finding("digests", text)
    end = max(opened.end, *sound)
    if state.step < end:
        text = f"steps {state.step} to {end - 1} are not in the journal"
        yield Finding("journal", text, sound=False)


COMMANDS = (
    Command(
        "replay",
        "rebuild the state of a step from checkpoint and journal",
        "Rebuild the state of any step since the oldest checkpoint, to the bit, from\n"
        "the checkpoint before it and the journal; each step is held to its digest.",
        ("replay 3 --to 1200", "replay 3 --to 1200 -o step.npz"),
        replay_to,
        add_options=_replay_options,
    ),
    Command(
        "verify",
        "prove checkpoints and journal against each other",
        "Prove a run's checkpoints and its journal against each other: each file\n"
        "holds what was written, each state follows from the oldest. Else status 6.",
        ("verify 3", "verify 3 --json"),
        verify,
        add_options=_add_data,
    ),
)

"""From what lies on the disk to the newest state: a checkpoint and the steps since.

Every step that was announced is in the journal, so that a crash loses none: the newest
checkpoint that is sound, and the entries behind it, give the state to the bit. Each
entry carries the digest of the state before it; the replay is held against all that
more than one client told.

Owns what is done about damage: nothing is passed over in silence, and only a person
decides, with --salvage, to go on without steps that cannot be read any more.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from utilities.checkpoints import Checkpoint
from utilities.data import Corpus
from utilities.disk import APPEND, Disk
from utilities.errors import DamageError, ProtocolError, RunError
from utilities.evolution import Setting, TrainState, advance
from utilities.history import Entry, unpack
from utilities.journal import (
    BROKEN,
    JOURNAL,
    Contents,
    Damage,
    Identity,
    Journal,
    journal_files,
    read_file,
)
from utilities.misc import sha256
from utilities.runfiles import writing
from utilities.runs import Run, RunRecord

OnStep = Callable[[int, int], None]  # steps replayed, of how many
CONFIRMED = 2  # clients that agree on a digest; one alone may be wrong


@dataclass(frozen=True)
class Recovered:
    """The newest state of a run, and how it was found."""

    state: TrainState
    seconds: float  # that the run had trained
    saved: int  # step of the checkpoint that it was built upon
    entries: tuple[Entry, ...]  # since that checkpoint
    notes: tuple[str, ...]  # what a person should know


def identity_of(record: RunRecord, fingerprint: bytes) -> Identity:
    """Return what ties a journal to a run.

    Args:
        record: of the run; nothing of its seed can be told from the identity.
        fingerprint: of its configuration and text.
    """
    seed = struct.pack("<Q", record.run_seed)
    run = sha256(b"journal", seed, record.text_sha256.encode())[:16]
    return Identity(run, fingerprint)


def journal_of(run: Run, setting: Setting) -> Journal:
    """Return the journal of a run that is open with its lock."""
    assert run.locked, "a run opened for reading is not written"
    identity = identity_of(run.record, setting.fingerprint)
    return Journal(run.path / JOURNAL, identity, run.disk)


# Reading.


def read_journal(run: Run, setting: Setting) -> list[Contents]:
    """Return what the files of a run's journal hold, oldest first.

    A file that its server removes meanwhile is left out.

    Raises:
        RunError: a file cannot be read or is not of this run.
    """
    identity, contents = identity_of(run.record, setting.fingerprint), []
    for _, path in journal_files(run.path / JOURNAL):
        try:
            contents.append(read_file(path, identity))
        except RunError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
    return contents


def damages(contents: Iterable[Contents]) -> list[Damage]:
    """Return what was written to a journal and is not there any more.

    An unfinished end counts as damage where another file follows: the server that made
    that one had cut it.
    """
    found: list[Damage] = []
    files = list(contents)
    for number, file in enumerate(files):
        if file.damage is not None:
            found.append(file.damage)
        elif file.tail is not None and number + 1 < len(files):
            found.append(Damage(file.path, file.end, file.tail))
    return found


def entries_from(contents: Iterable[Contents], step: int) -> Iterator[Entry]:
    """Yield the entries of consecutive steps, as far as there are any.

    Args:
        contents: of all files, oldest first.
        step: of the first one.

    Raises:
        RunError: a record is sound and yet no entry: another version wrote it.
    """
    for file in contents:
        for record in file.records:
            if record.step == step:
                yield _entry(file.path, record.step, record.payload)
                step += 1


def _entry(path: Path, step: int, payload: bytes) -> Entry:
    try:
        entry = unpack(payload)
    except ProtocolError as error:
        raise RunError(
            f"{path}: the record of step {step} is not understood ({error}); use the "
            "version of the program that wrote it"
        ) from error
    if entry.step != step:
        raise RunError(f"{path}: expected step {step}, got an entry of {entry.step}")
    return entry


def replay(
    setting: Setting,
    corpus: Corpus,
    state: TrainState,
    entries: Iterable[Entry],
) -> Iterator[tuple[Entry, TrainState]]:
    """Yield each entry with the state after it.

    Where one client alone told the digest, its memory may have failed: the replay has
    the last word then, as in a check of the server, and its digest stands in the entry.

    Raises:
        RunError: a state is not the one that several clients agreed on.
    """
    for entry in entries:
        found = state.digest(setting.fingerprint)
        if found != entry.digest and entry.clients < CONFIRMED:
            entry = replace(entry, digest=found)
        if found != entry.digest:
            raise RunError(
                f"step {entry.step}: the journal expects the state "
                f"{entry.digest.hex()[:12]}…, the replay gives {found.hex()[:12]}…; "
                "restore checkpoints and journal from a copy, or resume with "
                "--salvage, which goes on from that step"
            )
        tokens = corpus.token_batch(entry.update.token_batch)
        state = advance(setting, state, entry.update, tokens)
        yield entry, state


def doubts(entries: Iterable[Entry], replayed: Iterable[Entry]) -> list[str]:
    """Return what is to be said of steps that one client alone had another state at.

    Args:
        entries: of the journal.
        replayed: the same, as `replay` yields them.
    """
    pairs = zip(entries, replayed, strict=False)
    steps = [one.step for one, other in pairs if one.digest != other.digest]
    if not steps:
        return []
    return [
        f"the one client of step {steps[0]} had another state than the journal leads "
        f"to ({len(steps)} in all); that of the journal counts"
    ]


# Recovering.


def recover(
    run: Run,
    setting: Setting,
    corpus: Corpus,
    *,
    salvage: bool = False,
    on_step: OnStep | None = None,
) -> Recovered:
    """Return the newest state of a run; mend what a crash has left unfinished.

    Args:
        run: open with its lock.
        setting: of the run.
        corpus: of the run.
        salvage: go on without what is damaged, which is kept aside.
        on_step: is told how far the replay is.

    Raises:
        RunError: no checkpoint is sound, or the journal is damaged and `salvage` is
            not asked for; nothing has been changed then.
    """
    checkpoint, unsound = sound_checkpoint(run, setting.fingerprint)
    notes = [f"{path}: damaged; it is kept aside" for path in unsound]
    contents = _checked(run, setting, notes, salvage=salvage)
    entries = tuple(entries_from(contents, checkpoint.state.step))
    _complete(contents, checkpoint.state.step + len(entries), salvage=salvage)
    state, seconds, proved = checkpoint.state, checkpoint.seconds, list[Entry]()
    try:
        for entry, after in replay(setting, corpus, state, entries):
            state, seconds = after, entry.seconds
            proved.append(entry)
            if on_step is not None:
                on_step(len(proved), len(entries))
    except RunError as error:
        if not salvage:
            raise
        notes.append(str(error))
    notes += doubts(entries, proved)
    saved = checkpoint.state.step
    if salvage and proved:
        # What is set aside now may hold steps that led here.
        run.save_checkpoint(state, state.digest(setting.fingerprint), seconds)
        saved = state.step
    for path in unsound:
        _set_aside(run.disk, path)
    _mend(run.disk, contents, state.step, notes)
    return Recovered(state, seconds, saved, tuple(proved), tuple(notes))


def sound_checkpoint(
    run: Run, fingerprint: bytes, newest: int | None = None
) -> tuple[Checkpoint, list[Path]]:
    """Return the newest checkpoint that is sound, and those newer that are damaged.

    Args:
        run: to look at.
        fingerprint: of its configuration and text.
        newest: step of the newest one that will do; None: any.

    Raises:
        RunError: there is none.
    """
    unsound: list[Path] = []
    steps = [s for s in run.checkpoint_steps() if newest is None or s <= newest]
    for step in reversed(steps):
        try:
            return run.load_checkpoint(fingerprint, step), unsound
        except DamageError:
            if step == steps[0]:
                raise
            unsound.append(run.checkpoint_path(step))
    return run.load_checkpoint(fingerprint, newest), unsound  # says that there is none


def _checked(
    run: Run, setting: Setting, notes: list[str], *, salvage: bool
) -> list[Contents]:
    """Return the contents of the journal; refuse damage unless it is salvaged."""
    identity, contents = identity_of(run.record, setting.fingerprint), []
    for _, path in journal_files(run.path / JOURNAL):
        try:
            contents.append(read_file(path, identity))
        except RunError as error:
            if not salvage:
                raise
            notes.append(str(error))
            _set_aside(run.disk, path)
    found = damages(contents)
    if found and not salvage:
        raise RunError(
            f"{found[0]}: damaged; restore the file from a copy, or resume with "
            "--salvage: that goes on from the newest state that can be proved, and "
            "keeps the damaged file aside"
        )
    notes += [f"{damage}: damaged" for damage in found]
    return contents


def _complete(contents: list[Contents], end: int, *, salvage: bool) -> None:
    """Refuse a journal that goes on after a gap."""
    behind = [file for file in contents if file.end > end]
    if behind and not salvage:
        raise RunError(
            f"{behind[0].path}: the steps from {end} up to those of this file are "
            "missing; restore the files from a copy, or resume with --salvage, which "
            f"goes on from step {end}"
        )


def _mend(disk: Disk, contents: list[Contents], end: int, notes: list[str]) -> None:
    """Cut what is unfinished, set aside what is damaged or does not follow."""
    damaged = {damage.path for damage in damages(contents)}
    for file in contents:
        if file.path in damaged or file.first > end:
            notes.append(f"{file.path}: it is kept aside")
            _set_aside(disk, file.path)
        elif file.tail is not None:
            notes.append(f"{file.path}: its last record was unfinished and is cut off")
            _cut(disk, file.path, file.tail)


def _set_aside(disk: Disk, path: Path) -> None:
    with writing(path):
        disk.rename(path, path.with_name(path.name + BROKEN))
        disk.sync_folder(path.parent)


def _cut(disk: Disk, path: Path, size: int) -> None:
    """Cut a file after what is whole; keep a copy of it as it was."""
    with writing(path):
        disk.replace(path.with_name(path.name + BROKEN), path.read_bytes())
        descriptor = disk.open(path, APPEND)
        try:
            disk.truncate(descriptor, size)
            disk.sync(descriptor)
        finally:
            disk.close(descriptor)

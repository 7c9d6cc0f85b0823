"""From options to a run that is ready to train: text, vocabulary, folder, state.

Everything that can be wrong with what the user gave is found here, before a client is
started or a step taken.
"""

import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from utilities.checkpoints import Checkpoint
from utilities.config import FORMER, Config
from utilities.configfiles import merged, read_config_file
from utilities.data import (
    Corpus,
    Text,
    build_corpus,
    build_vocabulary,
    default_text,
    log_frequencies,
)
from utilities.disk import DISK, Disk
from utilities.errors import ConfigError, DataError
from utilities.evolution import Setting, TrainState, initial_state
from utilities.growth import grown
from utilities.history import Entry
from utilities.journal import Journal
from utilities.model import Layout
from utilities.options import ServerOptions
from utilities.progress import Growth
from utilities.recovery import OnStep, Recovered, journal_of, recover
from utilities.runlogs import RunLog, StepMetrics
from utilities.runs import CONFIG, EXTRA_KEYS, Run, RunRecord, RunStore
from utilities.textfiles import STANDARD_INPUT, UTF_8, Decoding, read_text
from utilities.unknown import Unknown, unknown_characters

VERSION = "1.1"
# Core-seconds up to which a model learns most that stays as small as that.
SIZES = (10.0, {"hiddenSize": 32}), (150.0, {"hiddenSize": 64})
LONG: dict[str, object] = {"hiddenSize": 64, "growth": "128@2e7,256@4e8"}


@dataclass(frozen=True)
class Prepared:
    """A run that is open, locked and ready to go on."""

    run: Run
    setting: Setting
    corpus: Corpus
    state: TrainState
    seconds: float  # that the run has trained before
    resumed: bool
    journal: Journal
    saved: int  # step of the newest checkpoint
    unknown: Unknown  # characters of the text
    origin: str = ""  # whose model a new run has begun with
    entries: tuple[Entry, ...] = ()  # of steps since that checkpoint
    notes: tuple[str, ...] = ()  # what the recovery found


def prepare(
    options: ServerOptions,
    on_step: OnStep | None = None,
    disk: Disk = DISK,
    *,
    before: Prepared | None = None,
) -> Prepared:
    """Return the run that the options ask for.

    Args:
        options: what was typed.
        on_step: is told how far a replay is, where there is one.
        disk: takes what is written.
        before: what has just been trained; a run that begins with its model and names
            no text goes on with this one, whatever has become of the files since.

    Raises:
        TrainingError: the options, the text or the run's folder do not allow it.
    """
    store = RunStore(options.runs, disk)
    file = _given_keys(options.config, store)
    if options.resume:
        return _resume(options, file, store, on_step)
    if options.start_from is not None:
        keys = _given_keys(options.start_from, store)
        # What the run did before there was a key for it goes on so.
        return _begin_with(options, {**FORMER, **keys, **file}, store, before)
    return _begin(options, file, store)


def _given_keys(given: Path | int | None, store: RunStore) -> dict[str, object]:
    """Return the keys of a file, or those of a run."""
    if given is None:
        return {}
    path = store.folder(given) / CONFIG if isinstance(given, int) else given
    return read_config_file(path, EXTRA_KEYS)


def _begin(
    options: ServerOptions, file: dict[str, object], store: RunStore
) -> Prepared:
    given = {**file, **options.keys}
    fit = {} if "hiddenSize" in given else fitting(options)
    config = merged(options.keys, {**fit, **file}, None)
    text = read_text(options.data, options.decoding) if options.data else default_text()
    vocabulary = build_vocabulary(text, config.vocab_size)
    config = replace(config, vocab_size=vocabulary.size)
    corpus = build_corpus(text, vocabulary, config.window_length)
    setting = Setting(config, text.sha256)
    seed = _seed(options)
    frequencies = log_frequencies(corpus.train, vocabulary.size)
    state = initial_state(setting, seed, frequencies)
    return _created(store, seed, setting, _given(options, text, corpus), _Start(state))


def _begin_with(
    options: ServerOptions,
    file: dict[str, object],
    store: RunStore,
    last: Prepared | None,
) -> Prepared:
    """Return a new run that begins with the model of another one."""
    with store.open(options.start_from, lock=False) as earlier:
        config = merged(options.keys, file, None)
        vocabulary = earlier.vocabulary
        config = replace(config, vocab_size=config.vocab_size or vocabulary.size)
        read = _read_with(options, config, earlier, last)
        before = Setting(earlier.record.config, earlier.record.text_sha256)
        setting, seed = Setting(config, read.corpus.sha256), _seed(options)
        found = earlier.load_checkpoint(before.fingerprint)
    state = grown(before, found.state, setting, seed)
    if "stepNum" in {**file, **options.keys}:
        state = replace(state, step=config.step_num)
    setting = Setting(replace(config, step_num=state.step), read.corpus.sha256)
    origin = f"the model of run {earlier.number}, step {found.state.step}"
    units = before.config.hidden_size, config.hidden_size
    if units[0] < units[1]:
        origin += ", grown from {} to {} units".format(*units)
    start = _Start(state, found.seconds, origin)
    return _created(store, seed, setting, read, start)


@dataclass(frozen=True)
class _Read:
    """The text of a new run, and how it is found again."""

    corpus: Corpus
    unknown: Unknown
    paths: tuple[str, ...]
    stored: Text | None


@dataclass(frozen=True)
class _Start:
    """What a new run begins with."""

    state: TrainState
    seconds: float = 0.0  # that it was trained before
    origin: str = ""


def _seed(options: ServerOptions) -> int:
    return secrets.randbits(64) if options.seed is None else options.seed


def _given(options: ServerOptions, text: Text, corpus: Corpus) -> _Read:
    """Return the text that was asked for."""
    stored = None if _read_again(options) else text
    return _Read(corpus, _unknown(text, corpus), _absolute(options.data), stored)


def _read_with(
    options: ServerOptions, config: Config, earlier: Run, last: Prepared | None
) -> _Read:
    """Return the text that is given, or that of the run whose model is taken."""
    about = earlier.vocabulary, config.window_length
    if options.data:
        text = read_text(options.data, options.decoding)
        return _given(options, text, build_corpus(text, *about))
    same = earlier.record.text_paths, earlier.stored_text()
    if last is not None and last.run.path == earlier.path:
        return _Read(last.corpus, last.unknown, *same)
    text = text_of(earlier, ())
    corpus = build_corpus(text, *about)
    return _Read(corpus, _unknown(text, corpus), *same)


def _created(
    store: RunStore, seed: int, setting: Setting, read: _Read, start: _Start
) -> Prepared:
    """Make the folder of a new run."""
    _check_growth(setting)
    corpus, state = read.corpus, start.state
    about = corpus.name, corpus.sha256, read.paths, VERSION
    record = RunRecord(setting.config, seed, *about)
    first = Checkpoint(state, state.digest(setting.fingerprint), start.seconds)
    run = store.create(record, corpus.vocabulary, read.stored, first)
    return Prepared(
        *(run, setting, corpus, state, start.seconds),
        resumed=False,
        journal=journal_of(run, setting),
        saved=state.step,
        unknown=read.unknown,
        origin=start.origin,
    )


def _check_growth(setting: Setting) -> None:
    """Raise ConfigError, now and not after hours, where a model could not grow."""
    config = setting.config
    units = max(config.hidden_size, Growth.parse(config.growth).largest)
    try:
        Layout(replace(config, hidden_size=units))
    except ConfigError as error:
        raise ConfigError(f"growth: with {units} units: {error}") from error


def _unknown(text: Text, corpus: Corpus) -> Unknown:
    """Return what became unknown; mostly nothing, and then nothing is counted again."""
    return (
        unknown_characters(text, corpus.vocabulary)
        if corpus.unknown_share
        else Unknown()
    )


def fitting(options: ServerOptions) -> dict[str, object]:
    """Return keys that fit the announced length of a new run.

    A small model learns faster, a larger one further: as measured, 64 units overtake 32
    after about 10 core-seconds, and 128 that grow from them after 20 million trials
    overtake those that do not after 100. So it goes on with 256 after 400 million more.
    Of clients elsewhere nothing is known.
    """
    if options.max_seconds is None:
        return LONG
    seconds = options.max_seconds * max(1, options.local_clients)
    return next((dict(keys) for most, keys in SIZES if seconds <= most), LONG)


def _read_again(options: ServerOptions) -> bool:
    """Return whether a resume finds the text by its paths alone."""
    if not options.data or STANDARD_INPUT in options.data:
        return False
    return options.decoding == UTF_8


def _absolute(paths: Sequence[Path]) -> tuple[str, ...]:
    return tuple(str(path.resolve()) for path in paths if path != STANDARD_INPUT)


def _resume(
    options: ServerOptions,
    file: dict[str, object],
    store: RunStore,
    on_step: OnStep | None,
) -> Prepared:
    run = store.open(options.resume_number, lock=True)
    with ExitStack() as undo:
        undo.callback(run.close)
        config = merged(options.keys, file, run.record.config)
        if options.seed not in (None, run.record.run_seed):
            raise ConfigError("--seed: a resumed run keeps the seed that it began with")
        text = text_of(run, options.data, options.decoding)
        corpus = build_corpus(text, run.vocabulary, config.window_length)
        setting = Setting(config, text.sha256)
        _check_growth(setting)
        found = recover(run, setting, corpus, salvage=options.salvage, on_step=on_step)
        state = found.state
        run.update_config(replace(config, step_num=state.step))
        run.discard_after(state.step)
        notes = (*found.notes, *_complete_logs(run, found))
        undo.pop_all()
    return Prepared(
        *(run, setting, corpus, state, found.seconds),
        resumed=True,
        journal=journal_of(run, setting),
        saved=found.saved,
        entries=found.entries,
        notes=notes,
        unknown=_unknown(text, corpus),
    )


def _complete_logs(run: Run, found: Recovered) -> list[str]:
    """Cut the logs back to the recovered state; write the lines that a crash lost.

    Returns:
        What a person should know: a line is written once its step is durable.
    """
    runlog = RunLog(run)
    step, logged = found.state.step, runlog.next_step
    written = min(step, logged)
    lost = [entry for entry in found.entries if entry.step >= written]
    runlog.cut_logs(lost[0].step if lost else found.state.step)
    for entry in lost:
        runlog.append_step(_line(entry))
    runlog.close()
    if logged <= step:
        return []
    return [
        f"{run.path}: the logs tell of steps up to {logged - 1}, checkpoints and "
        f"journal end at {step}: what is missing was removed, or the disk has lost it; "
        "a client that took part hands it back if it is the first to come"
    ]


def _line(entry: Entry) -> StepMetrics:
    return StepMetrics(
        step=entry.step,
        time=entry.time,
        seconds=entry.seconds,
        loss=entry.loss,
        validation_loss=None,
        trials=entry.update.trials,
        clients=entry.clients,
        late=entry.late,
        dropped=entry.dropped,
        digest=entry.digest.hex(),
        aggregation=entry.aggregation,
    )


def text_of(run: Run, given: Sequence[Path], decoding: Decoding = UTF_8) -> Text:
    """Return the text of a run that is resumed, proved to be the same.

    Raises:
        DataError: the files have changed or gone.
    """
    record = run.record
    paths = given or [Path(path) for path in record.text_paths]
    stored = None if given else run.stored_text()
    text = stored or (read_text(paths, decoding) if paths else default_text())
    if text.sha256 != record.text_sha256:
        raise DataError(
            f"{text.name}: run {run.number} was begun with another text "
            f"({record.text_name}, SHA-256 {record.text_sha256[:12]}…), this one has "
            f"{text.sha256[:12]}…; give the same files with --data"
        )
    return text

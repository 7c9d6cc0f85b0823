"""From options to a run that is ready to train: text, vocabulary, folder, state.

Everything that can be wrong with what the user gave is found here, before a client is
started or a step taken.
"""

import secrets
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from utilities.data import (
    Corpus,
    Text,
    build_corpus,
    build_vocabulary,
    default_text,
    log_frequencies,
    read_text,
)
from utilities.errors import ConfigError, DataError
from utilities.evolution import Setting, TrainState, initial_state
from utilities.options import ServerOptions, merged, read_config_file
from utilities.runlogs import RunLog
from utilities.runs import EXTRA_KEYS, Run, RunRecord, RunStore

VERSION = "1.0"
SHORT_SECONDS = 480.0  # of all cores, up to which a run has the default model
LONG_HIDDEN_SIZE = 64  # units of others


@dataclass(frozen=True)
class Prepared:
    """A run that is open, locked and ready to go on."""

    run: Run
    setting: Setting
    corpus: Corpus
    state: TrainState
    seconds: float  # that the run has trained before
    resumed: bool


def prepare(options: ServerOptions) -> Prepared:
    """Return the run that the options ask for.

    Raises:
        TrainingError: the options, the text or the run's folder do not allow it.
    """
    file = read_config_file(options.config, EXTRA_KEYS) if options.config else {}
    store = RunStore(options.runs)
    if options.resume:
        return _resume(options, file, store)
    return _begin(options, file, store)


def _begin(
    options: ServerOptions, file: dict[str, object], store: RunStore
) -> Prepared:
    config = merged(options.keys, {**fitting(options), **file}, None)
    text = read_text(options.data) if options.data else default_text()
    vocabulary = build_vocabulary(text, config.vocab_size)
    config = replace(config, vocab_size=vocabulary.size)
    corpus = build_corpus(text, vocabulary, config.sequence_length)
    setting = Setting(config, text.sha256)
    seed = secrets.randbits(64) if options.seed is None else options.seed
    frequencies = log_frequencies(corpus.train, vocabulary.size)
    state = initial_state(setting, seed, frequencies)
    record = RunRecord(
        config, seed, text.name, text.sha256, _absolute(options.data), VERSION
    )
    run = store.create(record, vocabulary, None if options.data else text)
    with ExitStack() as undo:  # without a state it is no run that one could go on with
        undo.callback(shutil.rmtree, run.path, ignore_errors=True)
        undo.callback(run.close)
        run.save_checkpoint(state, state.digest(setting.fingerprint), 0.0)
        undo.pop_all()
    return Prepared(run, setting, corpus, state, 0.0, resumed=False)


def fitting(options: ServerOptions) -> dict[str, object]:
    """Return keys that fit the announced length of a new run.

    A small model learns faster, a larger one further: as measured, 64 units overtake 32
    after about 480 core-seconds. Of clients elsewhere nothing is known yet.
    """
    seconds, cores = options.max_seconds, max(1, options.local_clients)
    short = seconds is not None and seconds * cores <= SHORT_SECONDS
    return {} if short else {"hiddenSize": LONG_HIDDEN_SIZE}


def _absolute(paths: Sequence[Path]) -> tuple[str, ...]:
    return tuple(str(path.resolve()) for path in paths)


def _resume(
    options: ServerOptions, file: dict[str, object], store: RunStore
) -> Prepared:
    run = store.open(options.resume_number, lock=True)
    with ExitStack() as undo:
        undo.callback(run.close)
        config = merged(options.keys, file, run.record.config)
        if options.seed not in (None, run.record.run_seed):
            raise ConfigError("--seed: a resumed run keeps the seed that it began with")
        text = _text_of(run, options.data)
        corpus = build_corpus(text, run.vocabulary, config.sequence_length)
        setting = Setting(config, text.sha256)
        checkpoint = run.load_checkpoint(setting.fingerprint)
        run.update_config(replace(config, step_num=checkpoint.state.step))
        run.discard_after(checkpoint.state.step)
        RunLog(run).cut_logs(checkpoint.state.step)
        undo.pop_all()
    return Prepared(
        run, setting, corpus, checkpoint.state, checkpoint.seconds, resumed=True
    )


def _text_of(run: Run, given: Sequence[Path]) -> Text:
    """Return the text of a run that is resumed, proved to be the same.

    Raises:
        DataError: the files have changed or gone.
    """
    record = run.record
    paths = given or [Path(path) for path in record.text_paths]
    stored = None if given else run.stored_text()
    text = stored or (read_text(paths) if paths else default_text())
    if text.sha256 != record.text_sha256:
        raise DataError(
            f"{text.name}: run {run.number} was begun with another text "
            f"({record.text_name}, SHA-256 {record.text_sha256[:12]}…), this one has "
            f"{text.sha256[:12]}…; give the same files with --data"
        )
    return text

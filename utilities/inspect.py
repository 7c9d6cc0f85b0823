"""Look at runs: what there is, how one went, what its model writes.

    python -m utilities.inspect list
    python -m utilities.inspect show 3
    python -m utilities.inspect generate 3 --prompt "The "

Owns this command line: options, one function for each command, the terminal. Does not
own what it shows: `summary` says what a run's files come to, `generation` writes.

The idea: it only reads and takes no lock, so a run may be looked at while it is
trained. A new command is a function of the runs and the options, and a row of
`COMMANDS`.

What needs numpy is imported inside functions: `main` first keeps it to one core, and
says in one line how to install it where it is missing.
"""

import argparse
import dataclasses
import errno
import functools
import io
import itertools
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from utilities.config import Rule
from utilities.errors import ConfigError, RunError
from utilities.options import RUNS, Parser
from utilities.processes import one_core, run_program

if TYPE_CHECKING:
    from utilities.data import Vocabulary
    from utilities.model import Floats, Layout
    from utilities.runs import Run, RunStore

Options: TypeAlias = dict[str, Any]  # by the user's spelling

PROGRAM = "python -m utilities.inspect"
EXIT_CODES = (
    "exit codes: 0 ok, 1 internal or a package missing, 2 options,\n"
    "6 run folder or disk, 130 quit by Ctrl-C"
)
_MISSING_SHOWN = 8  # characters in one message


# list and show


def list_runs(store: "RunStore", _options: Options) -> None:
    """Print one line for each run."""
    from utilities.summary import list_lines

    lines = list_lines(store, time.time())
    if not lines:
        from utilities.reporting import quoted  # with all of the server: only here

        where = "" if store.root == RUNS else f"--runs {quoted(store.root)} "
        lines = [
            f"No run in {store.root} yet. Start one:",
            f"  python basicServer.py {where}--localClients 2 --maxSeconds 60",
        ]
    for line in lines:
        _say(line)


def show(store: "RunStore", options: Options) -> None:
    """Print the figures of a run, its loss as a plot, and its configuration."""
    from utilities.display import WIDTH
    from utilities.summary import show_lines
    from utilities.textplot import ASCII, PROBE, UNICODE

    run = store.open(options["number"], lock=False)
    # A file or pipe has no width of its own, whatever terminal there is beside it.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    signs = UNICODE if _can_show(PROBE) else ASCII
    for line in show_lines(run, time.time(), width, signs):
        _say(line)


# generate

# The flags that only draw at random, with their defaults; no seed: a new one.
SAMPLING: Options = {"temperature": 0.8, "topK": None, "topP": None, "seed": None}
# The flags that only a beam search reads.
SEARCH: Options = {"lengthPenalty": 0.0}
_LENGTH = Rule(int, "characters to write at most", low=1, high=1_000_000)
_STEP = Rule(int, "step whose weights are taken", high=1 << 48)


def _generate_options(parser: Parser) -> None:
    from utilities.generation import RULES

    parser.option(
        parser,
        "prompt",
        default="",
        metavar="TEXT",
        help="what the text begins with; --prompt=TEXT where it starts with a dash",
    )
    _add_rule(parser, "length", _LENGTH, 400)
    for flag, default in SAMPLING.items():
        _add_rule(parser, flag, RULES[flag], default)
    words = "hypotheses of a beam search, up to the end of a document; 0: none"
    _add_rule(
        parser, "beams", dataclasses.replace(RULES["beams"], text=words, low=0), 0
    )
    for flag, default in SEARCH.items():
        _add_rule(parser, flag, RULES[flag], default)
    _add_rule(parser, "step", _STEP, None)


def _add_rule(parser: Parser, flag: str, rule: Rule, default: object) -> None:
    words = {"seed": "a new one", "step": "the newest"}.get(flag, _shown(default))
    parser.option(
        parser,
        flag,
        metavar="N" if rule.kind is int else "X",
        type=functools.partial(rule.parse, f"--{flag}"),
        default=default,
        help=f"{rule.text} [{words}]",
    )


def _shown(value: object) -> str:
    return "null" if value is None else str(value)


def generate(store: "RunStore", options: Options) -> None:
    """Print a prompt and what a run's model writes after it."""
    import numpy as np

    _check_together(options)
    run, prompt = store.open(options["number"], lock=False), options["prompt"]
    layout = _layout(run)
    step, weights = run.load_weights(options["step"])
    if weights.size != layout.size:
        raise RunError(
            f"{run.path}: expected {layout.size} weights, as config.json says, got "
            f"{weights.size} at step {step}; restore config.json from a copy"
        )
    _note(f"run {run.number}, step {step}")
    missing = _missing(run.vocabulary, prompt)
    if missing:
        _note(f"--prompt: not in the run's vocabulary, read as unknown: {missing}")
    write = _search if options["beams"] else _draw
    # Weights that have diverged are refused in one line; numpy need not warn besides.
    with np.errstate(all="ignore"):
        pieces = write(layout, weights, run.vocabulary, options)
        _stream(itertools.chain([prompt], pieces))


def _check_together(options: Options) -> None:
    """Refuse flags that would have no effect.

    Raises:
        ConfigError: a flag is of the other way of generating.
    """
    beams = options["beams"]
    for flag, default in (SAMPLING if beams else SEARCH).items():
        value = options[flag]
        if value != default and beams:
            raise ConfigError(
                f"--{flag}: expected {_shown(default)} with --beams, as a beam search "
                f"draws nothing at random, got {value} with --beams {beams}; leave "
                "one of the two out"
            )
        if value != default:
            raise ConfigError(
                f"--{flag}: expected {_shown(default)} without --beams, as only a beam "
                f"search reads it, got {value}; add --beams"
            )


def _layout(run: "Run") -> "Layout":
    """Return where a run's weights lie; RunError where its files disagree."""
    from utilities.model import Layout

    config, size = run.record.config, run.vocabulary.size
    if config.vocab_size != size:
        raise RunError(
            f"{run.path}: expected a vocabulary of {_shown(config.vocab_size)}, as "
            f"config.json says, got one of {size}; restore both files from a copy"
        )
    return Layout(config)


def _missing(vocabulary: "Vocabulary", prompt: str) -> str:
    """Return, in words, the characters that a vocabulary does not hold."""
    missing = [c for c in dict.fromkeys(prompt) if c not in vocabulary.characters]
    words = [f"{c!r} (U+{ord(c):04X})" for c in missing[:_MISSING_SHOWN]]
    if len(missing) > _MISSING_SHOWN:
        words.append(f"{len(missing) - _MISSING_SHOWN} more")
    return ", ".join(words)


def _draw(
    layout: "Layout", weights: "Floats", vocabulary: "Vocabulary", options: Options
) -> Iterator[str]:
    """Return what is drawn at random, character by character as it is asked for."""
    from utilities.generation import Sampling, sample_tokens
    from utilities.model import Network

    seed = options["seed"]
    if seed is None:
        seed = secrets.randbits(32)
        _note(f"--seed {seed} writes the same again")
    settings = Sampling(options["temperature"], options["topK"], options["topP"], seed)
    views, prompt = layout.views(weights), vocabulary.encode(options["prompt"])
    tokens = sample_tokens(Network(layout), views, prompt, options["length"], settings)
    return map(functools.cache(lambda token: vocabulary.decode([token])), tokens)


def _search(
    layout: "Layout", weights: "Floats", vocabulary: "Vocabulary", options: Options
) -> Iterator[str]:
    """Return the likeliest text that a beam search finds, in one piece."""
    from utilities.data import STOP
    from utilities.generation import Beam, beam_search
    from utilities.model import Network

    beam = Beam(options["beams"], options["lengthPenalty"], STOP)
    views, prompt = layout.views(weights), vocabulary.encode(options["prompt"])
    best = beam_search(Network(layout), views, prompt, options["length"], beam)
    _note(f"log-probability {best.log_probability:.4f}, score {best.score:.4f}")
    return iter([vocabulary.decode(best.tokens)])


# The terminal.


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _note(line: str) -> None:
    """Write what is not asked for but good to know, apart from what is."""
    sys.stdout.flush()
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _stream(pieces: Iterable[str]) -> None:
    """Write a text and end its line; a terminal gets each piece as it comes."""
    live = sys.stdout.isatty()
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            if live:
                sys.stdout.flush()
    finally:
        _say("")


def _can_show(characters: str) -> bool:
    try:
        characters.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _soften() -> None:
    """Let an output that lacks a character show a question mark in its place."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


# The command line.


def _no_options(_parser: Parser) -> None:
    """Add nothing."""


@dataclass(frozen=True)
class Command:
    """One thing that can be asked."""

    name: str
    text: str
    run: Callable[["RunStore", Options], None]
    numbered: bool = True  # takes the number of a run
    add_options: Callable[[Parser], None] = _no_options


COMMANDS = (
    Command("list", "one line for each run", list_runs, numbered=False),
    Command("show", "figures, loss and configuration of a run", show),
    Command(
        "generate", "text that a run's model writes", generate, True, _generate_options
    ),
)
_NUMBER = Rule(int, "number of the run", high=(1 << 31) - 1)


def parse(arguments: Sequence[str]) -> tuple[Command, Options]:
    """Return what was asked, with checked options.

    Raises:
        ConfigError: a command, option or value is not acceptable.
        SystemExit: after --help.
    """
    parser = Parser(
        prog=PROGRAM, description="Look at training runs.", epilog=EXIT_CODES
    )
    _add_runs(parser, RUNS)
    choices = parser.add_subparsers(metavar="COMMAND", dest="command")
    commands = {command.name: command for command in COMMANDS}
    parsers = {name: _add_command(choices, c) for name, c in commands.items()}
    values, unknown = parser.parse_known_args(list(arguments))
    if values.command is None:
        parser.error(f"expected a command: {', '.join(commands)}; see --help")
    if unknown:
        # The command's own parser knows which option was nearly meant.
        parsers[values.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    return commands[values.command], vars(values)


def _add_runs(parser: Parser, default: object) -> None:
    text = f"where runs are kept [{RUNS}]"
    parser.option(parser, "runs", type=Path, metavar="DIR", default=default, help=text)


def _add_command(choices: Any, command: Command) -> Parser:
    parser: Parser = choices.add_parser(
        command.name,
        help=command.text,
        description=f"Print {command.text}.",
        epilog=EXIT_CODES,
    )
    # No default: it would replace what was given before the command.
    _add_runs(parser, argparse.SUPPRESS)
    if command.numbered:
        parser.add_argument(
            "number",
            nargs="?",
            type=functools.partial(_NUMBER.parse, "N"),
            metavar="N",
            help=f"{_NUMBER.text} [the newest]",
        )
    command.add_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked and return the exit status.

    Args:
        arguments: default: those of this process.
    """
    one_core()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        _soften()
        status = run_program(PROGRAM, functools.partial(_work, given))
        sys.stdout.flush()
    except OSError as error:  # those of files are RunErrors
        return _output_failed(error)
    return status


def _work(arguments: Sequence[str]) -> None:
    from utilities.runs import RunStore

    command, options = parse(arguments)
    command.run(RunStore(options["runs"]), options)


def _output_failed(error: OSError) -> int:
    """Return the status after standard output was closed by its reader, or failed."""
    # What is still held back would fail once more, with a traceback, at the very end.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    if error.errno in (errno.EPIPE, errno.EINVAL):  # the latter is how Windows says it
        return 0
    reason = error.strerror or error
    sys.stderr.write(f"{PROGRAM}: standard output: cannot be written: {reason}\n")
    return RunError.exit_code


if __name__ == "__main__":
    sys.exit(main())

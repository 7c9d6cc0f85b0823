"""The commands of `python -m utilities.inspect` that have a run's model do something.

Owns: from options to text, JSON or a file. Does not own the model (`trained`), the
conversation (`chat`), the samples, the bits, the formats or the page.
"""

import dataclasses
import itertools
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from utilities.config import Rule
from utilities.credits import read_credits
from utilities.data import STOP
from utilities.display import bits
from utilities.errors import ConfigError, DataError
from utilities.export import FORMATS, exported
from utilities.generation import RULES, Beam, Sampling
from utilities.inspect.asking import Command, Options, add_output, add_rule
from utilities.inspect.bits import (
    Surprise,
    coloured_lines,
    compressed,
    legend,
    plain_lines,
)
from utilities.inspect.chat import LENGTH, STEP, Chat
from utilities.inspect.console import COLOURS, coloured, note, say, say_json, stream
from utilities.inspect.filecommands import write_file
from utilities.inspect.forecast import Law
from utilities.inspect.modelfolder import folder_files
from utilities.inspect.outlook import default_targets, outlook_lines
from utilities.inspect.report import Content, report_html
from utilities.inspect.samples import Sample, kept_steps, known_prompt, samples
from utilities.inspect.stopping import Until
from utilities.inspect.summary import Overview, look
from utilities.inspect.words import INDENTED, size, wrapped
from utilities.options import Parser
from utilities.runfiles import writing
from utilities.runs import RunStore
from utilities.scales import spread
from utilities.trained import Model
from utilities.yardsticks import levels

# The flags that only draw at random, with their defaults; no seed: a new one.
SAMPLING: Options = {"temperature": 0.8, "topK": None, "topP": None, "seed": None}
# The flags that only a beam search reads.
SEARCH: Options = {"lengthPenalty": 0.0}
FOLDER = "hf-dir"
_MISSING_SHOWN = 8  # characters in one message
_LONG = 100_000  # characters: beyond, reading takes seconds
_COUNT = Rule(int, "steps to show at most", low=1, high=1000)
_SHOW = Rule(int, "characters to show, from the beginning", high=1_000_000)
_SEED = 1  # of samples: the same draws each time are what makes them comparable
_REPORT_SAMPLES, _REPORT_LENGTH = 24, 300


# Options that several commands share.


def _add_prompt(parser: Parser, group: Any, default: str | None, shown: str) -> None:
    parser.option(
        group,
        "prompt",
        default=default,
        metavar="TEXT",
        help="what the text begins with; --prompt=TEXT where it starts with a dash "
        f"[{shown}]",
    )


def _add_step(parser: Parser) -> None:
    group = parser.add_argument_group("the weights")
    add_rule(parser, group, "step", STEP, None, "the newest")


def _add_sampling(parser: Parser, group: Any, seed: object, shown: str) -> None:
    for flag, default in SAMPLING.items():
        if flag == "seed":
            add_rule(parser, group, flag, RULES[flag], seed, shown)
        else:
            add_rule(parser, group, flag, RULES[flag], default)


def _sampling(options: Options, seed: int) -> Sampling:
    return Sampling(options["temperature"], options["topK"], options["topP"], seed)


def _note_unknown(model: Model, text: str, where: str) -> None:
    """Say which characters of a text the vocabulary does not hold."""
    missing = model.unknown(text)
    if not missing:
        return
    words = [f"{c!r} (U+{ord(c):04X})" for c in missing[:_MISSING_SHOWN]]
    if len(missing) > _MISSING_SHOWN:
        words.append(f"{len(missing) - _MISSING_SHOWN} more")
    listed = ", ".join(words)
    note(f"{where}: not in the run's vocabulary, read as unknown: {listed}")


def _read(path: Path) -> str:
    """Return the text of a file, of standard input for ``-``, with LF line ends.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path}: expected a text file, or - for standard input, got: "
            f"{error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte offset {error.start}: expected UTF-8, got "
            f"0x{data[error.start]:02x}; convert it, for instance with iconv"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


# generate


def _generate_options(parser: Parser) -> None:
    text = parser.add_argument_group("the text")
    _add_prompt(parser, text, None, "nothing")
    parser.option(
        text,
        "promptFile",
        type=Path,
        metavar="FILE",
        help="take the prompt from a file; -: from standard input",
    )
    add_rule(parser, text, "length", LENGTH, 400)
    drawn = parser.add_argument_group("drawn at random")
    _add_sampling(parser, drawn, None, "new")
    parser.option(
        drawn, "stop", metavar="TEXT", help="end before this text [at --length only]"
    )
    search = parser.add_argument_group("or searched")
    words = "hypotheses of a beam search, up to the end of a document; 0: none"
    rule = dataclasses.replace(RULES["beams"], text=words, low=0)
    add_rule(parser, search, "beams", rule, 0)
    for flag, default in SEARCH.items():
        add_rule(parser, search, flag, RULES[flag], default)
    _add_step(parser)


def generate(store: RunStore, options: Options) -> None:
    """Print a prompt and what a run's model writes after it."""
    _check_together(options)
    run = store.open(options["number"], lock=False)
    prompt = options["prompt"] or ""
    if options["promptFile"] is not None:
        prompt = _read(options["promptFile"])
    model = run.model(options["step"])
    note(f"run {run.number}, step {model.step}")
    _note_unknown(model, prompt, "--prompt")
    answer: dict[str, Any] = {
        "run": run.number,
        "step": model.step,
        "prompt": prompt,
        "unknown": model.unknown(prompt),
    }
    write = _search if options["beams"] else _draw
    pieces = write(model, prompt, options, answer)
    if options["json"]:
        say_json({**answer, "text": "".join(pieces)})
    else:
        stream(itertools.chain([prompt], pieces))


def _check_together(options: Options) -> None:
    """Refuse flags that would have no effect.

    Raises:
        ConfigError: a flag is of the other way of generating.
    """
    beams = options["beams"]
    for flag, default in ({**SAMPLING, "stop": None} if beams else SEARCH).items():
        value, shown = options[flag], "null" if default is None else str(default)
        if value != default and beams:
            raise ConfigError(
                f"--{flag}: expected {shown} with --beams, as a beam search "
                f"draws nothing at random, got {value} with --beams {beams}; leave "
                "one of the two out"
            )
        if value != default:
            raise ConfigError(
                f"--{flag}: expected {shown} without --beams, as only a beam "
                f"search reads it, got {value}; add --beams"
            )
    if options["stop"] == "":
        raise ConfigError("--stop: expected a text of at least one character")
    if options["prompt"] is not None and options["promptFile"] is not None:
        raise ConfigError("--promptFile: expected no --prompt besides; leave one out")


def _draw(
    model: Model, prompt: str, options: Options, answer: dict[str, Any]
) -> Iterator[str]:
    """Return what is drawn at random, character by character as it is asked for."""
    seed = options["seed"]
    if seed is None:
        seed = secrets.randbits(32)
        note(f"--seed {seed} writes the same again")
    answer["seed"] = seed
    pieces = model.pieces(prompt, options["length"], _sampling(options, seed))
    if options["stop"] is None:
        return pieces
    return iter(Until(pieces, options["stop"]))


def _search(
    model: Model, prompt: str, options: Options, answer: dict[str, Any]
) -> Iterator[str]:
    """Return the likeliest text that a beam search finds, in one piece."""
    beam = Beam(options["beams"], options["lengthPenalty"], STOP)
    text, best = model.likeliest(prompt, options["length"], beam)
    note(f"log-probability {best.log_probability:.4f}, score {best.score:.4f}")
    answer["logProbability"], answer["score"] = best.log_probability, best.score
    return iter([text])


# samples


def _samples_options(parser: Parser) -> None:
    text = parser.add_argument_group("the text")
    _add_prompt(parser, text, None, '"The "')
    add_rule(parser, text, "length", LENGTH, 160)
    add_rule(parser, text, "count", _COUNT, 12)
    group = parser.add_argument_group("drawn at random")
    _add_sampling(parser, group, _SEED, str(_SEED))


def print_samples(store: RunStore, options: Options) -> None:
    """Print what a run's model wrote as it learned."""
    run = store.open(options["number"], lock=False)
    prompt = known_prompt(run) if options["prompt"] is None else options["prompt"]
    steps = spread(kept_steps(run), options["count"])
    if not steps:
        run.model()  # says what is missing
    found = samples(
        run, steps, prompt, options["length"], _sampling(options, options["seed"])
    )
    if options["json"]:
        each = [_sample_json(sample) for sample in found]
        say_json({"run": run.number, "prompt": prompt, "samples": each})
        return
    for sample in found:
        loss = ""
        if sample.validation is not None:
            nats = sample.validation
            loss = f", validation loss {nats:.3f} nats ({bits(nats):.3f} bits)"
        say(f"step {sample.step}{loss}")
        text = sample.trouble if sample.text is None else prompt + sample.text
        for line in wrapped(text, INDENTED):
            say(f"  {line}".rstrip())


def _sample_json(sample: Sample) -> dict[str, Any]:
    return {
        "step": sample.step,
        "validation": sample.validation,
        "text": sample.text,
        "trouble": sample.trouble or None,
    }


# chat


def chat(store: RunStore, options: Options) -> None:
    """Answer lines until they end."""
    run = store.open(options["number"], lock=False)
    talk = Chat(
        run.model,
        options["step"],
        lambda number: store.open(number, lock=False).model,
        lambda path, text: write_file(path, text.encode("utf-8", "replace")),
    )
    live = sys.stdin.isatty()
    note(f"run {run.number}, step {talk.model.step}; :help lists commands, :quit ends")
    while not talk.ended:
        try:
            line = input("> " if live else "")
        except EOFError:
            if live:
                say()
            return
        _answer(talk, line)


def _answer(talk: Chat, line: str) -> None:
    unknown = "" if line.startswith(":") else line
    _note_unknown(talk.model, unknown, "your line")
    try:
        stream(talk.answer(line))
    except KeyboardInterrupt:  # ends the answer, not the conversation
        return


# bits


def _bits_options(parser: Parser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a text, UTF-8; -: standard input"
    )
    group = parser.add_argument_group("what is shown")
    add_rule(parser, group, "show", _SHOW, 2000)
    parser.option(
        group,
        "colour",
        choices=COLOURS,
        default=COLOURS[0],
        help="colours in place of digits; auto: on a terminal, unless NO_COLOR is set "
        "[auto]",
    )
    _add_step(parser)


def print_bits(store: RunStore, options: Options) -> None:
    """Print how many bits a text takes by a run's model and by compressors.

    Raises:
        DataError: the file cannot be read, is not UTF-8 or empty.
    """
    run = store.open(options["number"], lock=False)
    model = run.model(options["step"])
    text = _read(options["file"])
    if not text:
        raise DataError(f"{options['file']}: expected characters, got none")
    if len(text) > _LONG:
        note(f"reading {len(text):,} characters, one after the other")
    surprise = Surprise(text, np.concatenate(list(model.surprise(text))))
    figures = {"model": surprise.per_character, **compressed(text)}
    unknown = sum(map(text.count, model.unknown(text)))
    part = surprise.first(options["show"])
    if options["json"]:
        say_json(
            {
                "run": run.number,
                "step": model.step,
                "characters": len(text),
                "unknown": unknown,
                "bitsPerCharacter": figures,
                "text": part.text,
                "bits": [round(float(value), 4) for value in part.bits],
            }
        )
        return
    say(f"{options['file']}: {len(text):,} characters; bits for each of them:")
    for name, figure in figures.items():
        say(f"  {name:<6}{figure:7.3f}")
    weights = size(4 * model.layout.size)
    say(
        f"  (run {run.number}, step {model.step}; its {weights} of weights not counted)"
    )
    if unknown:
        say(f"  {unknown:,} are not in the vocabulary: they count as unknown, and the")
        say("  model's figure does not tell which they are.")
    _show_surprise(part, coloured(options["colour"]))


def _show_surprise(surprise: Surprise, colours: bool) -> None:
    if not surprise.text:
        return
    say()
    say(legend() if colours else "below each character its bits, 9: nine or more")
    for line in (coloured_lines if colours else plain_lines)(surprise):
        say(line)


# export and report


def _export_options(parser: Parser) -> None:
    group = parser.add_argument_group("the file")
    parser.option(
        group, "to", choices=(*FORMATS, FOLDER), default="npz", help="its format [npz]"
    )
    add_output(parser, group, None, "its name [run-N-step-N.FORMAT]")
    _add_step(parser)


def export(store: RunStore, options: Options) -> None:
    """Write a run's weights in a format that others read."""
    run, kind = store.open(options["number"], lock=False), options["to"]
    model = run.model(options["step"])
    path = options["output"]
    if path is None:
        path = Path(f"run-{run.number}-step-{model.step:06d}.{kind}")
    if kind != FOLDER:
        write_file(path, exported(model, run.record, kind))
        return
    with writing(path):
        path.mkdir(exist_ok=True)
    for name, content in folder_files(model, run.record).items():
        write_file(path / name, content)


def _report_options(parser: Parser) -> None:
    group = parser.add_argument_group("the page")
    add_output(parser, group, "report.html", "its name")
    _add_prompt(parser, group, None, '"The "')


def report(store: RunStore, options: Options) -> None:
    """Write a run as one page that needs no network."""
    run, now = store.open(options["number"], lock=False), time.time()
    overview = look(run)
    prompt = known_prompt(run) if options["prompt"] is None else options["prompt"]
    steps = spread(kept_steps(run), _REPORT_SAMPLES)
    sampling = Sampling(SAMPLING["temperature"], seed=_SEED)
    content = Content(
        overview=overview,
        now=now,
        date=time.strftime("%Y-%m-%d %H:%M", time.localtime(now)),
        levels=levels(run),
        prompt=prompt,
        samples=list(samples(run, steps, prompt, _REPORT_LENGTH, sampling)),
        credits=read_credits(run.path)[1],
        forecast=_forecast_lines(overview, now),
    )
    write_file(options["output"], report_html(content).encode("utf-8", "replace"))


def _forecast_lines(overview: Overview, now: float) -> list[str]:
    """Return a forecast, nothing where the curve allows none."""
    try:
        law = Law(overview.curves)
    except ValueError:
        return []
    return outlook_lines(overview, law, default_targets(law.basis.newest), now)


COMMANDS = (
    Command(
        "samples",
        "the same prompt as the model learned",
        "Print what the weights of steps 1, 2, 4, 8 ... up to the newest write after\n"
        "the same prompt, with the same draws: watch it learn.",
        ("samples 3", 'samples 3 --prompt "ROMEO:" --count 6', "samples 3 --json"),
        print_samples,
        add_options=_samples_options,
    ),
    Command(
        "generate",
        "text that a run's model writes",
        "Print a prompt and what a run's model writes after it: drawn at random, or,\n"
        "with --beams, the likeliest text that a search finds.",
        (
            'generate 3 --prompt "The " --length 400',
            "generate 3 --promptFile start.txt --topP 0.9",
            'generate 3 --prompt "The " --stop "."',
            'generate 3 --prompt "The " --beams 8',
        ),
        generate,
        add_options=_generate_options,
    ),
    Command(
        "chat",
        "a conversation with a run's model",
        "Read lines and write what the model goes on with, until :quit or Ctrl-D.\n"
        "Commands such as :temp 0.5, :beams 4, :run 7, :save FILE change how; :help.",
        ("chat 3", "chat 3 --step 1024"),
        chat,
        json="",
        add_options=_add_step,
    ),
    Command(
        "bits",
        "the surprise at each character of a text",
        "Print how many bits a text takes for each character, by the model's surprise\n"
        "and beside gzip, bz2 and xz, and show where the surprises are.",
        ("bits 3 book.txt", "bits 3 - < book.txt", "bits 3 book.txt --show 0 --json"),
        print_bits,
        takes="[N] FILE",
        add_options=_bits_options,
    ),
    Command(
        "export",
        "the weights for other programs",
        "Write the weights of a run: npy (flat, sizes in front), npz, safetensors\n"
        "(tensors by name, vocabulary, keys), or hf-dir, a folder with a model card.",
        (
            "export 3 --to safetensors",
            "export 3 --to npy -o model.npy --step 1024",
            "export 3 --to hf-dir -o mymodel",
        ),
        export,
        json="",
        add_options=_export_options,
    ),
    Command(
        "report",
        "a run as one page that needs no network",
        "Write a run as one HTML file: figures, losses, what it wrote as it learned,\n"
        "machines, keys. It opens offline and loads nothing.",
        ("report 3 -o report.html", 'report 3 --prompt "ROMEO:"'),
        report,
        json="",
        add_options=_report_options,
    ),
)

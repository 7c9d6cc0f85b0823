"""The command lines: flags and files in, checked options out.

Owns the server's, and what all of them have in common: how an option is spelled and
refused, and what exit codes mean. Does not own the client's: `clientoptions` has it.

Every option has the user's spelling and a second one with hyphens; --help shows the
first. Whatever is wrong is said in one line that names option, value, what is allowed
and, for a wrong name, the nearest option.
"""

import argparse
import codecs
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from utilities.addresses import ALL, DEFAULT_PORT, LOCALHOST, PAGE_PORT
from utilities.config import KEYS, RULES, Config, nearest, parse_keys
from utilities.errors import STATUSES, ConfigError
from utilities.joincodes import masked
from utilities.joinoptions import add_server_options, check_open
from utilities.misc import RUNS, kebab_case
from utilities.textfiles import UTF_8, Decoding

HELP_WIDTH = 78  # of lines that argparse does not wrap


def exit_codes(*left_out: int, changed: Mapping[int, str] | None = None) -> str:
    """Return what --help says of a program's statuses.

    Args:
        left_out: statuses that the program does not end with.
        changed: statuses that mean something else there.
    """
    words = {**STATUSES, **(changed or {})}
    told = [f"{n} {text}" for n, text in words.items() if n not in left_out]
    return textwrap.fill("exit codes: " + ", ".join(told), HELP_WIDTH)


EXIT_CODES = exit_codes()
DOCTOR_HINT = "problems? python basicClient.py --doctor HOST"
GROUPS = {
    "model": ("modelType", "hiddenSize", "growth", "nLayers", "vocabSize"),
    "perturbations": (
        "sigma",
        "noise",
        "whitening",
        "scales",
        "outputTrials",
        "nodes",
        "directionsPerWindow",
        "batchSize",
        "sequenceLength",
        "burnIn",
    ),
    "optimizer": (
        "optimizer",
        "learningRate",
        "beta1",
        "beta2",
        "averaging",
        "decay",
    ),
    "steps": ("timePerStep", "grace", "trialsPerStep", "aggregation", "stepNum"),
    "text and files": ("newTokensInterval", "checkPointTime", "keepCheckpoints"),
}


class Parser(argparse.ArgumentParser):
    """An argument parser that refuses in one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **settings,
        )

    def option(self, group: Any, flag: str, **settings: Any) -> None:
        """Add an option in both spellings; --help shows the user's."""
        group.add_argument(f"--{flag}", **settings)
        second = kebab_case(flag)
        if second != flag:
            hidden = {**settings, "help": argparse.SUPPRESS, "dest": flag}
            group.add_argument(f"--{second}", **hidden)

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError instead of printing a page.

        Raises:
            ConfigError: always.
        """
        message = masked(message)
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            word = unknown[1].split("=")[0]
            if not word.startswith("-"):
                raise ConfigError(f"{word}: not an option; --help lists them all")
            shown = [o for a in self._actions for o in a.option_strings if "-" in o]
            raise ConfigError(f"{word}: no such option{nearest(word, shown)}")
        raise ConfigError(_choice(message))


def _choice(message: str) -> str:
    """Return argparse's refusal of a choice as ours, another message as it is."""
    refused = re.fullmatch(
        r"(argument .+): invalid choice: '?(.+?)'?(?:, maybe .+)? \(choose from (.+)\)",
        message,
    )
    if refused is None:
        return message
    what, got, choices = refused.groups()
    words = re.findall(r"[\w-]+", choices)
    expected = f"expected one of {', '.join(words)}, got {got}"
    return f"{what}: {expected}{nearest(got, words)}"


@dataclass(frozen=True)
class ServerOptions:
    """What basicServer.py was asked for."""

    host: str | None = None  # see `listens_on`
    port: int = DEFAULT_PORT
    data: tuple[Path, ...] = ()
    decoding: Decoding = UTF_8  # of these
    config: Path | int | None = None  # file of keys, or number of a run that has some
    runs: Path = RUNS
    resume: bool = False
    resume_number: int | None = None  # None: the newest run
    start_from: int | None = None  # number of a run, whose model a new one begins with
    salvage: bool = False  # go on without what is damaged
    local_clients: int = 0
    page: int | None = None  # port of the live page; None: no page
    page_host: str = LOCALHOST
    max_steps: int | None = None
    max_seconds: float | None = None
    seed: int | None = None
    quiet: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)  # configuration flags
    token_file: Path | None = None
    no_auth: bool = False
    anybody_may_join: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    debug: bool = False

    def __post_init__(self) -> None:
        """Refuse what would let in more than is meant.

        Raises:
            ConfigError: says which option is missing or too many.
        """
        check_open(
            self.listens_on,
            open_to_all=self.no_auth,
            meant=self.anybody_may_join,
            coded=self.token_file is not None or self.tls_cert is not None,
        )
        if self.tls_key is not None and self.tls_cert is None:
            raise ConfigError("--tlsKey: expected --tlsCert as well")

    @property
    def listens_on(self) -> str:
        """Return the address to listen on: all, if clients prove themselves."""
        return self.host or (LOCALHOST if self.no_auth else ALL)


def ranged(kind: type, low: float, high: float) -> Any:
    """Return a converter for argparse that says what is allowed."""
    noun, exact = ("a whole number", "d") if kind is int else ("a number", ".15g")

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"expected {noun} from {low:{exact}} to {high:{exact}}, got {text}"
            )
        return value

    return convert


def _encoding(text: str) -> str:
    """Return Python's name of an encoding of texts."""
    try:
        " ".encode(text)  # lookup alone also finds what is none, like base64
        return codecs.lookup(text).name
    except (LookupError, ValueError):
        raise argparse.ArgumentTypeError(
            f"expected an encoding, like utf-8, cp1252, latin-1 or utf-16, got {text}"
        ) from None


def server_parser() -> Parser:
    """Return the parser of basicServer.py."""
    parser = Parser(
        prog="basicServer.py",
        usage="basicServer.py [--data PATH ...] [--resume [N]] [options]",
        description=textwrap.dedent(
            """\
            Train a character-level language model with evolution strategies.
            Clients do the computing; this program keeps them in step and writes a run.

            examples
              python basicServer.py --localClients 2 --maxSeconds 60
              python basicServer.py --data mytexts/
              python basicServer.py --resume
              python basicClient.py HOST            on every other machine"""
        ),
        epilog=f"{EXIT_CODES}\n{DOCTOR_HINT}",
    )
    _add_text(parser)
    _add_network(parser)
    _add_run(parser)
    for title, keys in GROUPS.items():
        group = parser.add_argument_group(f"{title} (saved with the run)")
        for key in keys:
            _add_key(parser, group, key)
    return parser


def _named(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(
            "expected an address; * stands for all of this machine's"
        )
    return text


def _config(text: str) -> Path | int:
    """Return the number of a run, or a file; one whose name is a number is ./NAME."""
    return int(text) if re.fullmatch(r"0|[1-9][0-9]{0,8}", text) else Path(text)


def _add_text(parser: Parser) -> None:
    data = parser.add_argument_group("text")
    parser.option(
        data,
        "data",
        action="extend",
        nargs="+",
        type=Path,
        metavar="PATH",
        default=[],
        help="text files and folders, .gz too; -: standard input [English prose of "
        "this Python]",
    )
    parser.option(
        data,
        "encoding",
        type=_encoding,
        metavar="NAME",
        default=UTF_8.encoding,
        help=f"of these files, like cp1252 or utf-16 [{UTF_8.encoding}]",
    )
    parser.option(
        data,
        "errors",
        choices=("strict", "replace"),
        default=UTF_8.errors,
        help="bytes that are not of that encoding: end with their place, or read them "
        f"as U+FFFD [{UTF_8.errors}]",
    )


def _add_network(parser: Parser) -> None:
    net = parser.add_argument_group("network")
    parser.option(
        net,
        "host",
        type=_named,
        metavar="HOST",
        help=f"address to listen on [all; with --noAuth {LOCALHOST}]",
    )
    parser.option(
        net,
        "port",
        type=ranged(int, 0, 65535),
        default=DEFAULT_PORT,
        metavar="N",
        help=f"port to listen on; 0: any free one [{DEFAULT_PORT}]",
    )
    parser.option(
        net,
        "localClients",
        type=ranged(int, 0, 256),
        default=0,
        metavar="N",
        help="clients to start on this machine, one core each [0]",
    )
    parser.option(
        net,
        "page",
        nargs="?",
        type=ranged(int, 0, 65535),
        const=PAGE_PORT,
        metavar="PORT",
        help=f"show all runs on a live page, for browsers [no page; {PAGE_PORT}]",
    )
    parser.option(
        net,
        "pageHost",
        type=_named,
        default=LOCALHOST,
        metavar="HOST",
        help=f"address of the page; whoever reaches it can read it [{LOCALHOST}]",
    )
    add_server_options(parser)


def _add_run(parser: Parser) -> None:
    run = parser.add_argument_group("run")
    parser.option(
        run,
        "config",
        type=_config,
        metavar="FILE|N",
        help="JSON file of configuration keys, or the number of a run to take them of",
    )
    parser.option(
        run,
        "runs",
        type=Path,
        metavar="DIR",
        default=RUNS,
        help=f"where runs are kept [{RUNS}]",
    )
    parser.option(
        run,
        "resume",
        nargs="?",
        const=True,
        default=False,
        metavar="N",
        help="continue run N, or the newest one",
    )
    parser.option(
        run,
        "startFrom",
        type=ranged(int, 0, 1 << 31),
        metavar="N",
        help="begin a new run with the model, keys and text of run N; a larger "
        "--hiddenSize makes it grow",
    )
    parser.option(
        run,
        "salvage",
        action="store_true",
        help="with --resume: go on without files that are damaged, and keep them aside",
    )
    _add_limits(parser, run)


def _add_limits(parser: Parser, run: Any) -> None:
    """Add what a session may take, its seed, and how much it says."""
    parser.option(
        run,
        "maxSteps",
        type=ranged(int, 1, 1 << 48),
        metavar="N",
        help="end after that many steps of this session",
    )
    parser.option(
        run,
        "maxSeconds",
        type=ranged(float, 0.001, 1e9),
        metavar="S",
        help="end after that many seconds",
    )
    parser.option(
        run,
        "seed",
        type=ranged(int, 0, (1 << 64) - 1),
        metavar="N",
        help="seed of all randomness, for runs that can be repeated [random]",
    )
    parser.option(
        run, "quiet", action="store_true", help="show nothing but warnings and errors"
    )
    add_debug(parser, run)


def add_debug(parser: Parser, group: Any) -> None:
    """Add the option that shows tracebacks."""
    parser.option(
        group,
        "debug",
        action="store_true",
        help="show the traceback of an unexpected error, not only where it lies",
    )


def _add_key(parser: Parser, group: Any, key: str) -> None:
    rule, default = RULES[KEYS[key]], getattr(Config(), KEYS[key])
    if default is None:
        shown = rule.absent
    else:
        shown = f"{default:.15g} {rule.unit}" if rule.unit else str(default)
    if rule.choices:
        metavar = "{" + ",".join(rule.choices) + "}"
    else:
        metavar = (
            "S" if rule.unit == "s" else {int: "N", float: "X", str: "TEXT"}[rule.kind]
        )
    text = f"{rule.text} [{shown}]".replace("%", "%%")
    parser.option(
        group, key, metavar=metavar, default=argparse.SUPPRESS, help=text, dest=key
    )


def parse_server(arguments: Sequence[str]) -> ServerOptions:
    """Return the options of basicServer.py.

    Raises:
        ConfigError: an option or value is not acceptable.
        SystemExit: after --help.
    """
    values = vars(server_parser().parse_args(list(arguments)))
    keys = {key: value for key, value in values.items() if key in KEYS}
    resume = values["resume"]
    number = None
    if isinstance(resume, str):
        try:
            number = ranged(int, 0, 1 << 31)(resume)
        except argparse.ArgumentTypeError as error:
            raise ConfigError(f"--resume: {error}") from None
    if values["salvage"] and resume is False:
        raise ConfigError("--salvage: mends a run that is resumed; add --resume [N]")
    if resume is not False and values["startFrom"] is not None:
        raise ConfigError(
            "--startFrom: begins a new run; --resume goes on with an old one"
        )
    parse_keys(keys)  # a wrong flag is refused before anything is read
    decoding = Decoding(values["encoding"], values["errors"])
    if decoding != UTF_8 and not values["data"]:
        flag = "encoding" if decoding.encoding != UTF_8.encoding else "errors"
        raise ConfigError(f"--{flag}: says how --data is read; add --data PATH")
    return ServerOptions(
        host=values["host"],
        port=values["port"],
        token_file=values["tokenFile"],
        no_auth=values["noAuth"],
        anybody_may_join=values["anybodyMayJoin"],
        tls_cert=values["tlsCert"],
        tls_key=values["tlsKey"],
        data=tuple(values["data"]),
        decoding=decoding,
        config=values["config"],
        runs=values["runs"],
        resume=resume is not False,
        resume_number=number,
        start_from=values["startFrom"],
        salvage=values["salvage"],
        local_clients=values["localClients"],
        page=values["page"],
        page_host=values["pageHost"],
        max_steps=values["maxSteps"],
        max_seconds=values["maxSeconds"],
        seed=values["seed"],
        quiet=values["quiet"],
        debug=values["debug"],
        keys=keys,
    )

"""What can be asked of `python -m utilities.inspect`: commands and their options.

Owns: the shape of a command and of its --help. Does not own what a command does.
"""

import argparse
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from utilities.config import Rule
from utilities.inspect.console import PROGRAM
from utilities.misc import RUNS
from utilities.options import Parser, exit_codes
from utilities.runs import RunStore

Options: TypeAlias = dict[str, Any]  # by the user's spelling

EXIT_CODES = exit_codes(3, 4, 7, changed={130: "quit by Ctrl-C"})
_NUMBER = Rule(int, "number of the run", high=(1 << 31) - 1)


def _no_options(_parser: Parser) -> None:
    """Add nothing."""


@dataclass(frozen=True)
class Command:
    """One thing that can be asked."""

    name: str
    text: str  # one line of the list of all commands
    purpose: str  # what --help begins with: two lines
    examples: tuple[str, ...]  # what follows the program's name
    run: Callable[[RunStore, Options], None]
    takes: str = "[N]"  # as the usage has it; several runs: [N ...]; none: empty
    json: str = "print one line of JSON instead"  # empty: its answer is no data
    add_options: Callable[[Parser], None] = _no_options

    def add_to(self, choices: Any) -> Parser:
        """Add this command to a parser's choices and return its own parser."""
        examples = "\n".join(f"  {PROGRAM} {example}" for example in self.examples)
        parser: Parser = choices.add_parser(
            self.name,
            help=self.text,
            usage=" ".join(filter(None, [PROGRAM, self.name, self.takes, "[options]"])),
            description=f"{self.purpose}\n\nexamples\n{examples}",
            epilog=EXIT_CODES,
        )
        if self.takes:
            self._add_runs(parser)
        self.add_options(parser)
        general = parser.add_argument_group("where and how")
        # No default: it would replace what was given before the command.
        add_runs_folder(parser, general, argparse.SUPPRESS)
        if self.json:
            parser.option(general, "json", action="store_true", help=self.json)
        return parser

    def _add_runs(self, parser: Parser) -> None:
        several = self.takes.startswith("[N ...")
        parser.add_argument(
            "numbers" if several else "number",
            nargs="*" if several else "?",
            type=functools.partial(_NUMBER.parse, "N"),
            metavar="N",
            help=f"{_NUMBER.text}{', or several' if several else ''} [the newest]",
        )


def add_runs_folder(parser: Parser, group: Any, default: object) -> None:
    """Add the option that names the folder of the runs."""
    text = f"where runs are kept [{RUNS}]"
    parser.option(group, "runs", type=Path, metavar="DIR", default=default, help=text)


def add_rule(
    parser: Parser, group: Any, flag: str, rule: Rule, default: object, words: str = ""
) -> None:
    """Add an option whose values a rule checks.

    Args:
        parser: of the command.
        group: of options.
        flag: the user's spelling.
        rule: what is accepted.
        default: where it is not given.
        words: what --help says of the default; empty: itself.
    """
    shown = words or ("null" if default is None else str(default))
    parser.option(
        group,
        flag,
        metavar="N" if rule.kind is int else "X",
        type=functools.partial(rule.parse, f"--{flag}"),
        default=default,
        help=f"{rule.text} [{shown}]".replace("%", "%%"),
    )


def add_output(parser: Parser, group: Any, default: str | None, text: str) -> None:
    """Add the option that names the file to write."""
    group.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        default=None if default is None else Path(default),
        help=text if default is None else f"{text} [{default}]",
    )

"""The command line of basicClient.py: what a machine lends, to whom, and when.

Owns which options a client has. Does not own how options are spelled and refused.
"""

import argparse
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utilities.addresses import DEFAULT_PORT, LOCALHOST, parse_address, place
from utilities.errors import ConfigError, NetworkError
from utilities.joincodes import Code
from utilities.joinoptions import add_client_options, split_code
from utilities.manners import Hours, parse_hours
from utilities.options import DOCTOR_HINT, Parser, add_debug, exit_codes, ranged

LEAVES = {130: "quit by Ctrl-C before the step was done"}  # a client saves nothing
ENVIRONMENT = "ES_SERVER"  # variable that holds the address, CODE@ included
MOST_NICE = 19  # of all systems but Windows, which has two steps
NICE = 10


@dataclass(frozen=True)
class ClientOptions:
    """What basicClient.py was asked for."""

    address: str
    name: str
    quiet: bool = False
    end_with_parent: bool = False
    workers: int = 1  # 0: all cores but one
    worker_percent: float | None = None  # of the cores, in place of a number
    nice: int = NICE  # 0: no more than other programs
    hours: Hours | None = None  # None: at any time
    no_battery: bool = False
    wait: bool = False  # for a server that is not there yet
    once: bool = False  # end where the server is lost
    doctor: bool = False
    json: bool = False  # of the doctor
    code: Code | None = field(default=None, repr=False)  # that was typed
    token_file: Path | None = None
    no_auth: bool = False
    debug: bool = False
    remembered: bool = False  # the address: nobody has named it


def client_parser() -> Parser:
    """Return the parser of basicClient.py."""
    parser = Parser(
        prog="basicClient.py",
        usage="basicClient.py [[CODE@]HOST[:PORT]] [options]",
        description=textwrap.dedent(
            """\
            Lend cores of this machine to a training run of basicServer.py.
            It works until the run ends or Ctrl-C, and rejoins by itself.

            examples
              python basicClient.py 192.168.1.10
              python basicClient.py 192.168.1.10 --workers 0
              python basicClient.py lab-host:55551 --name window-desk
              python basicClient.py lab-host --hours 20-08 --noBattery
              python basicClient.py --doctor lab-host"""
        ),
        epilog=f"{exit_codes(5, 6, changed=LEAVES)}\n{DOCTOR_HINT}",
    )
    _add_server(parser)
    _add_guest(parser)
    _add_doctor(parser)
    parser.option(
        parser, "endWithParent", action="store_true", help=argparse.SUPPRESS
    )  # a local client ends when the server's end of its standard input closes
    return parser


def _add_server(parser: Parser) -> None:
    group = parser.add_argument_group("the server")
    group.add_argument(
        "address",
        nargs="?",
        metavar="[CODE@]HOST[:PORT]",
        help="the address that the server printed, after its join code if you like "
        f"(others can see command lines) [the variable {ENVIRONMENT}, else the "
        f"server reached last, else {place(LOCALHOST, DEFAULT_PORT)}]",
    )
    add_client_options(parser, group)
    parser.option(group, "name", help="how the server names it [this machine's name]")
    parser.option(
        group,
        "wait",
        action="store_true",
        help="keep trying from the start; otherwise only once it was connected",
    )
    parser.option(
        group,
        "once",
        action="store_true",
        help="end where the server is lost [keep trying]",
    )


def _add_guest(parser: Parser) -> None:
    group = parser.add_argument_group("what this machine lends")
    parser.option(
        group,
        "workers",
        type=_workers,
        default=(1, None),
        metavar="N",
        help="cores to compute on, as one client; 0: all but one; 50%%: that many [1]",
    )
    parser.option(
        group,
        "nice",
        type=ranged(int, 0, MOST_NICE),
        default=NICE,
        metavar="N",
        help=f"how far other programs come first, up to {MOST_NICE}; 0: not [{NICE}]",
    )
    parser.option(group, "noNice", action="store_true", help="the same as --nice 0")
    parser.option(
        group,
        "hours",
        type=_hours,
        metavar="H-H",
        help="work at these local times only: 20-08, or 12:30-13,20-08 [all day]",
    )
    parser.option(
        group,
        "noBattery",
        action="store_true",
        help="pause while this machine has no mains",
    )


def _add_doctor(parser: Parser) -> None:
    group = parser.add_argument_group("looking and showing")
    parser.option(
        group,
        "doctor",
        action="store_true",
        help="check this machine, the way to the server and the server; then end",
    )
    parser.option(
        group, "json", action="store_true", help="with --doctor: one line of JSON"
    )
    parser.option(
        group, "quiet", action="store_true", help="show nothing but warnings and errors"
    )
    add_debug(parser, group)


def _workers(text: str) -> tuple[int, float | None]:
    if text.endswith("%"):
        return 1, ranged(float, 1, 100)(text[:-1])
    return ranged(int, 0, 256)(text), None


def _hours(text: str) -> Hours:
    try:
        return parse_hours(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_client(
    arguments: Sequence[str], machine: str, last: str | None = None
) -> ClientOptions:
    """Return the options of basicClient.py.

    Args:
        arguments: without the program's name.
        machine: names the client where --name does not.
        last: the server that was reached last, for where none is named.

    Raises:
        ConfigError: an option or value is not acceptable.
        SystemExit: after --help.
    """
    values = vars(client_parser().parse_args(list(arguments)))
    if values["json"] and not values["doctor"]:
        raise ConfigError("--json: only --doctor answers in JSON")
    workers, percent = values["workers"]
    # An empty variable is one that is not set: services write `ES_SERVER=`.
    named = values["address"] or os.environ.get(ENVIRONMENT)
    code, address = split_code(named or last or LOCALHOST)
    if values["noAuth"] and (code is not None or values["tokenFile"] is not None):
        raise ConfigError("--noAuth: there is no code with it, but one is given")
    return ClientOptions(
        _address(address),
        _client_name(values["name"], machine),
        quiet=values["quiet"],
        end_with_parent=values["endWithParent"],
        workers=workers,
        worker_percent=percent,
        nice=0 if values["noNice"] else values["nice"],
        hours=values["hours"],
        no_battery=values["noBattery"],
        wait=values["wait"],
        once=values["once"],
        doctor=values["doctor"],
        json=values["json"],
        code=code,
        token_file=values["tokenFile"],
        no_auth=values["noAuth"],
        debug=values["debug"],
        remembered=not named and last is not None,
    )


def _address(text: str) -> str:
    """Return an address that is one; what is none is a wrong option."""
    try:
        parse_address(text)
    except NetworkError as error:
        raise ConfigError(str(error)) from None
    return text


def _client_name(given: str | None, machine: str) -> str:
    if given is None:
        return "".join(c for c in machine if c.isprintable())[:64] or "client"
    if not given.isprintable() or not 1 <= len(given) <= 64:
        raise ConfigError(
            f"--name: expected 1 to 64 printable characters, got {given!r}"
        )
    return given

"""The options that say who may take part, of both programs."""

from pathlib import Path
from typing import Any, Protocol

from utilities.addresses import only_here
from utilities.errors import ConfigError
from utilities.joincodes import Code, read_code


class Parser(Protocol):
    """What an option is added to."""

    def option(self, group: Any, flag: str, **settings: Any) -> None:
        """Add an option in both spellings."""

    def add_argument_group(self, title: str) -> Any:
        """Return a new group of options."""


def add_server_options(parser: Parser) -> None:
    """Add those of basicServer.py."""
    group = parser.add_argument_group("who may take part")
    _add_token_file(parser, group, "RUNS/join-code, made at the first start")
    parser.option(
        group,
        "noAuth",
        action="store_true",
        help="ask nobody for a code: whoever reaches the port can take part",
    )
    parser.option(
        group,
        "anybodyMayJoin",
        action="store_true",
        help="allow --noAuth on other addresses than this machine's own",
    )
    parser.option(
        group,
        "tlsCert",
        type=Path,
        metavar="FILE",
        help="certificate (PEM), self-signed will do: encrypt all traffic",
    )
    parser.option(
        group,
        "tlsKey",
        type=Path,
        metavar="FILE",
        help="its private key (PEM) [in the same file]",
    )


def add_client_options(parser: Parser, group: Any) -> None:
    """Add those of basicClient.py."""
    _add_token_file(parser, group, "asked for once, then kept")
    parser.option(
        group,
        "noAuth",
        action="store_true",
        help="join a server that asks nobody for a code and cannot prove who it is",
    )


def _add_token_file(parser: Parser, group: Any, absent: str) -> None:
    parser.option(
        group,
        "tokenFile",
        type=Path,
        metavar="FILE",
        help=f"where the join code is kept [{absent}]",
    )


def check_open(host: str, *, open_to_all: bool, meant: bool, coded: bool) -> None:
    """Refuse a server that would let in more than is meant.

    Args:
        host: that it listens on.
        open_to_all: it asks nobody for a code.
        meant: it was said that anybody may join.
        coded: an option is given that only makes sense with a code.

    Raises:
        ConfigError: says which option is missing or too many.
    """
    if not open_to_all:
        return
    if coded:
        raise ConfigError(
            "--noAuth: there is no code with it, so neither --tokenFile nor --tlsCert, "
            "whose certificate the code names"
        )
    if not only_here(host) and not meant:
        raise ConfigError(
            f"--noAuth: with --host {host} whoever reaches this port could take part, "
            "vote on every step, and read text and weights; leave --noAuth out, or add "
            "--anybodyMayJoin if that is meant"
        )


def split_code(text: str) -> tuple[Code | None, str]:
    """Return code and address of ``CODE@HOST:PORT`` or ``HOST:PORT``.

    Raises:
        ConfigError: what stands before the @ is no code.
    """
    typed, _, address = text.rpartition("@")
    try:
        return (read_code(typed) if typed else None), address
    except ConfigError as error:
        raise ConfigError(f"CODE@HOST:PORT: {error}") from error

"""The command `serve`: the live page of all runs below a folder, until Ctrl-C.

Owns: from options to a server that stands. Does not own the page (`page`) or its
connections (`pageserver`).
"""

import time

from utilities.addresses import LOCALHOST, PAGE_PORT, dialable, only_here, place
from utilities.config import Rule
from utilities.errors import ConfigError
from utilities.inspect.asking import Command, Options, add_rule
from utilities.inspect.console import note
from utilities.options import Parser
from utilities.page import Page, machine_names
from utilities.pageserver import POLL_SECONDS, PageServer
from utilities.processes import signals
from utilities.runs import RunStore

_PORT = Rule(int, "port to listen on; 0: any free one", high=65535)


def _options(parser: Parser) -> None:
    group = parser.add_argument_group("network")
    add_rule(parser, group, "port", _PORT, PAGE_PORT)
    text = f"address to listen on; 0.0.0.0: all of this machine's [{LOCALHOST}]"
    parser.option(group, "host", default=LOCALHOST, help=text)


def serve(store: RunStore, options: Options) -> None:
    """Serve the page until a signal comes.

    Raises:
        ConfigError: the address is empty.
        NetworkError: the address is not ours, or the port is taken.
    """
    host = options["host"]
    if not host.strip():
        raise ConfigError("--host: expected an address, got none")
    page = Page(store, time.monotonic, names=machine_names(host))
    server = PageServer(page, host, options["port"])
    note(f"The page: http://{place(dialable(host), server.port)}/  (Ctrl-C ends it)")
    if not only_here(host):
        note("Whoever reaches this port can read all of these runs.")
    with signals(server.stop):
        server.serve_forever(POLL_SECONDS)
    server.close()


COMMANDS = (
    Command(
        "serve",
        "all runs on a live page in the browser",
        "Serve a page that shows runs as they grow, or as they have ended, until\n"
        "Ctrl-C. It only reads, and needs no network but this machine's own.",
        ("serve", "serve --port 0", "serve --runs elsewhere --host 0.0.0.0"),
        serve,
        takes="",
        json="",
        add_options=_options,
    ),
)

"""The readings of `basicClient.py --doctor`: this machine, the way, the server.

Owns the order of the checks and what is measured. What a reading means is decided in
`doctor`. The server is met as any client meets it: welcomed, then left with a goodbye.
"""

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import numpy as np

from utilities import doctor
from utilities.addresses import parse_address, place
from utilities.admission import Door
from utilities.causes import because, cannot_connect, no_server
from utilities.clientoptions import ClientOptions
from utilities.config import Config
from utilities.connection import Connection
from utilities.display import Display
from utilities.doctor import Row
from utilities.errors import (
    IncompatibleError,
    NetworkError,
    ProtocolError,
    TrainingError,
)
from utilities.evolution import Segment, Setting, initial_state
from utilities.identity import kept_identity
from utilities.lastserver import last_words
from utilities.lines import connect
from utilities.machine import config_folder, on_battery
from utilities.misc import Clock, Deadline
from utilities.processes import cores
from utilities.protocol import (
    PROTOCOL_VERSION,
    End,
    Goodbye,
    Hello,
    Message,
    Welcome,
)
from utilities.reach import own_address, resolved
from utilities.scoring import score
from utilities.selftest import (
    ARITHMETIC_EXPECTED,
    NOISE_EXPECTED,
    arithmetic_test,
    noise_test,
)
from utilities.setup import VERSION
from utilities.worker import agreed_setting

SPEED_SECONDS = 1.0  # that the speed is measured for
PRODUCT_SECONDS = 0.2
PRODUCT_SIZE = 384  # of a matrix that a library would share out among cores
WELCOME_SECONDS = 30.0  # that the server gets
CHARACTERS = 20_000  # of the text that the speed is measured on
NAME = "doctor"  # how the server's log calls it
ON_THE_WAY = ("name", "route", "connection", "server")


def examine(
    options: ClientOptions, dial: Callable[[], Connection] | None = None
) -> list[Row]:
    """Return what all checks have found.

    Args:
        options: the address, and who to be.
        dial: connects and proves who is there; default: as a client does.
    """
    host, port = parse_address(options.address)
    door = Door(options, host, port, print_apart)
    return [*own_rows(), *way_rows(host, port, dial or door.first)]


def print_apart(line: str) -> None:
    """Say something that is no part of the answer."""
    sys.stderr.write(f"{line}\n")


# This machine.


def own_rows() -> list[Row]:
    """Check this machine."""
    return [
        doctor.versions(VERSION, platform.python_version(), np.__version__),
        doctor.numbers(
            noise=noise_test() == NOISE_EXPECTED,
            arithmetic=arithmetic_test() == ARITHMETIC_EXPECTED,
        ),
        doctor.cores(cores(), product_cores(PRODUCT_SECONDS), load()),
        doctor.speed(trials_per_second(SPEED_SECONDS)),
        _clock_row(),
        doctor.power(on_battery()),
        _disk_row(),
    ]


def load() -> float | None:
    """Return how many programs want a core, over the last minute; Windows: None."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def product_cores(seconds: float) -> float:
    """Return how many cores matrix products take at once."""
    matrix = np.ones((PRODUCT_SIZE, PRODUCT_SIZE), np.float32)
    wall, used = time.perf_counter(), time.process_time()
    end = wall + seconds
    while time.perf_counter() < end:
        matrix @ matrix
    return (time.process_time() - used) / (time.perf_counter() - wall)


def trials_per_second(seconds: float, clock: Clock = time.perf_counter) -> float:
    """Return how fast one core scores trials of the default model, at its best."""
    config = Config(vocab_size=64)
    setting = Setting(config, "0" * 64)
    tokens = (np.arange(CHARACTERS) ** 2 // 7 % 62 + 2).astype(np.uint8)
    state = initial_state(setting, 1, np.zeros(64, np.float32))
    shaped = setting.whiteners(state.weights, tokens)  # once a step
    segment = Segment(7, 0, setting.block_groups)
    best, end = float("inf"), clock() + seconds
    while True:
        began = clock()
        score(setting, state.weights, tokens, segment, shaped)
        now = clock()
        best = min(best, now - began)
        if now >= end:
            return segment.groups * config.trials_per_group / best


def _clock_row() -> Row:
    began = time.monotonic()
    product_cores(PRODUCT_SECONDS)
    moved = time.monotonic() - began
    resolution = time.get_clock_info("monotonic").resolution
    return doctor.clocks(resolution, moved, datetime.now())


def _disk_row() -> Row:
    folder = config_folder()
    with kept_identity(folder, platform.node()) as identity:
        kept = bool(identity.value)
    free = shutil.disk_usage(Path.cwd()).free
    return doctor.disk(free, str(folder or "a folder of settings"), kept=kept)


# The way, and the server.


def way_rows(host: str, port: int, dial: Callable[[], Connection]) -> list[Row]:
    """Check the way to a server, then the server, up to what fails."""
    rows: list[Row] = []
    checks: tuple[Callable[[], Row], ...] = (
        lambda: _name(host, port),
        lambda: _route(host),
        lambda: _connection(host, port),
        lambda: _server(place(host, port), dial),
    )
    for check in checks:
        rows.append(check())
        if rows[-1].state == doctor.FAIL:
            why = f"needs {rows[-1].name}"
            return rows + doctor.left_out(ON_THE_WAY[len(rows) :], why)
    return rows


def _name(host: str, port: int) -> Row:
    try:
        return doctor.names(host, resolved(host))
    except (OSError, UnicodeError) as error:
        why = cannot_connect(place(host, port), error, unknown=True, waited=0.0)
        return doctor.failed("name", NetworkError(why))


def _route(host: str) -> Row:
    other = resolved(host)[0]
    try:
        return doctor.route(own_address(other), other)
    except OSError as error:
        return doctor.no_route(other, because(error))


def _connection(host: str, port: int) -> Row:
    began = time.monotonic()
    try:
        connect(host, port).close()
    except NetworkError as error:
        return doctor.no_connection(error, port)
    return doctor.connection(time.monotonic() - began)


def _server(address: str, dial: Callable[[], Connection]) -> Row:
    began = time.monotonic()
    try:
        connection = dial()
        try:
            welcome = welcomed(connection, began + WELCOME_SECONDS)
            connection.part(Goodbye(End.FINISHED.value, "a check, no client"))
        finally:
            connection.close()
        if welcome is None:
            return doctor.server_waits(time.monotonic() - began)
        config = agreed_setting(welcome.config, welcome.text_sha256).config
    except ProtocolError as error:
        return doctor.failed(
            "server", IncompatibleError(no_server(address, str(error)))
        )
    except TrainingError as error:
        return doctor.failed("server", error)
    model = f"{config.model_type}, {config.n_layers} x {config.hidden_size} units"
    seconds = time.monotonic() - began
    return doctor.server(welcome.step, model, len(welcome.weights), seconds)


def welcomed(connection: Connection, moment: float) -> Welcome | None:
    """Introduce this machine; return the welcome, None if none has come in time.

    Raises:
        IncompatibleError: the server refuses this machine.
        NetworkError: the connection is lost, or the run over.
        ProtocolError: it is no server of ours.
    """
    connection.send([introduction()])
    end = Deadline(moment, time.monotonic)
    while end.left():
        messages = connection.receive(wait=True)
        if messages:
            return _first(messages[0])
    return None


def _first(message: Message) -> Welcome:
    if isinstance(message, Welcome):
        return message
    if not isinstance(message, Goodbye):
        raise ProtocolError(f"expected a welcome, got {type(message).__name__}")
    if message.end == End.REFUSED.value:
        raise IncompatibleError(f"it refuses this machine: {message.reason}")
    raise NetworkError(f"it says goodbye: {message.reason}")


def introduction() -> Hello:
    """Return what the doctor says of itself."""
    return Hello(
        protocol=PROTOCOL_VERSION,
        program=VERSION,
        python=platform.python_version(),
        numpy=np.__version__[:32],
        name=NAME,
        noise_test=noise_test(),
        arithmetic_test=arithmetic_test(),
    )


def report(options: ClientOptions) -> int:
    """Examine, show what was found, and return the exit code."""
    where = place(*parse_address(options.address))
    if options.remembered:
        print_apart(last_words(where))
    rows = examine(options)
    display = Display(quiet=False)
    if options.json:
        display.say(doctor.as_json(where, rows))
    else:
        for line in doctor.table(where, rows):
            display.say(line)
    return doctor.exit_code(rows)

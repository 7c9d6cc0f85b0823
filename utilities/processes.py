"""Processes and signals: clients on the server's own machine, and how things end.

A local client has its own process group, so that Ctrl-C in the terminal reaches the
server alone. Its standard input is a pipe that the server holds: when the server ends,
however it ends, the pipe closes and the client ends too.

Imported before numpy is: nothing here may import it, by whatever way.
"""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from utilities.codefiles import ENVIRONMENT
from utilities.errors import TrainingError
from utilities.joincodes import Code, masked
from utilities.misc import Deadline

ROOT = Path(__file__).resolve().parent.parent
LAST_SECONDS = 3.0  # that local clients get to end by themselves
SLOW_SECONDS = 5.0  # of importing, after which something is said
QUIT = 130  # exit code after a second Ctrl-C, as shells have it: 128 + SIGINT
COLLECTED = 100_000  # more objects than before, whereupon circles are looked for
THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)


# A whole program.


def one_core() -> None:
    """Keep matrix products on one core; to be called before numpy is imported."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"


def collect_seldom() -> None:
    """Look for circles of references, of which we make hardly any, less often.

    With a thousand clients some ten thousand objects live for one step each. Looking at
    them and at all others time and again took an eighth of the server's time.
    """
    gc.set_threshold(COLLECTED, *gc.get_threshold()[1:])


def cores() -> int:
    """Return how many cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not everywhere
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def worker_count(asked: int, available: int) -> int:
    """Return how many worker processes are meant; 0: all cores but one.

    One is left to whoever sits at the machine.
    """
    return asked or max(1, available - 1)


def run_program(name: str, work: Callable[[], int | None]) -> int:
    """Do the work of a program; return its exit code, after one line if it failed.

    Raises:
        ModuleNotFoundError: one of our own modules is missing.
    """
    try:
        return work() or 0
    except TrainingError as error:
        return _complain(name, str(error), error.exit_code)
    except ModuleNotFoundError as error:
        return _complain(name, missing_package(error), TrainingError.exit_code)
    except KeyboardInterrupt:
        return QUIT


@contextmanager
def slow_start(name: str) -> Iterator[None]:
    """Say what takes so long, where importing does: the first time, on some systems."""
    words = "still loading numpy; a virus scanner may be reading it for the first time"
    timer = threading.Timer(SLOW_SECONDS, _complain, (name, words, 0))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _complain(name: str, message: str, exit_code: int) -> int:
    # One line, whatever path or value it quotes.
    line = "".join(c if c.isprintable() else "?" for c in masked(message))
    sys.stderr.write(f"{name}: {line}\n")
    return exit_code


def missing_package(error: ModuleNotFoundError) -> str:
    """Return how to install a package that is missing.

    Raises:
        ModuleNotFoundError: it is one of our own modules.
    """
    if (error.name or "").partition(".")[0] not in ("numpy", "tqdm"):
        raise error
    command = f"{sys.executable} -m pip install -r {ROOT / 'requirements.txt'}"
    return f"{error.name} is not installed; run: {command}"


# Local clients.


def client_command(address: str, name: str, *more: str) -> list[str]:
    """Return the command line of a local client; everybody can see it."""
    program = [sys.executable, str(ROOT / "basicClient.py"), address]
    return [*program, "--name", name, "--quiet", "--endWithParent", *more]


@contextmanager
def local_clients(count: int, address: str, code: Code) -> Iterator[None]:
    """Run clients on this machine while the context is open."""
    more = ["--noAuth"] if code.open else []
    environment = dict(os.environ)
    environment.pop(ENVIRONMENT, None)
    if not code.open:
        environment[ENVIRONMENT] = code.shown()
    own_group: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    children: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(1, count + 1):
            command = client_command(address, f"local-{number}", *more)
            children.append(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, env=environment, **own_group
                )
            )
        yield
    finally:
        _end(children)


def _end(children: list[subprocess.Popen[bytes]]) -> None:
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
    end = Deadline.after(LAST_SECONDS, time.monotonic)  # for all of them together
    for child in children:
        try:
            child.wait(end.left())
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def end_with_parent() -> None:
    """End this process as soon as its standard input closes."""

    def watch() -> None:
        # Not sys.stdin: its lock must be free when the interpreter ends.
        with suppress(OSError):  # it is closed already
            while os.read(0, 1):
                pass
        os._exit(0)

    threading.Thread(target=watch, name="parent", daemon=True).start()


# Signals.


@contextmanager
def signals(handler: Callable[[], None]) -> Iterator[None]:
    """Call the handler on Ctrl-C, SIGTERM and Windows' Ctrl-Break.

    It interrupts whatever runs, even a half-written line: it should set a flag, or end
    the process, and leave all else to the loop.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)

    def act(_number: int, _frame: FrameType | None) -> None:
        handler()

    before = {number: signal.signal(number, act) for number in numbers}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)

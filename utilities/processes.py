"""Processes and signals: clients on the server's own machine, and how things end.

A local client has its own process group, so that Ctrl-C in the terminal reaches the
server alone. Its standard input is a pipe that the server holds: when the server ends,
however it ends, the pipe closes and the client ends too.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

CLIENT = Path(__file__).resolve().parent.parent / "basicClient.py"
LAST_SECONDS = 3.0  # that a local client gets to end by itself
THREAD_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)


def one_core() -> None:
    """Keep matrix products on one core; to be called before numpy is imported."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = "1"


def dialable(host: str) -> str:
    """Return the address at which this machine reaches a server that listens there."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def client_command(host: str, port: int, name: str) -> list[str]:
    """Return the command line of a local client."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    program = [sys.executable, str(CLIENT), address]
    return [*program, "--name", name, "--quiet", "--endWithParent"]


@contextmanager
def local_clients(count: int, host: str, port: int) -> Iterator[None]:
    """Run clients on this machine while the context is open."""
    own_group: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    children: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(1, count + 1):
            command = client_command(host, port, f"local-{number}")
            children.append(
                subprocess.Popen(command, stdin=subprocess.PIPE, **own_group)
            )
        yield
    finally:
        for child in children:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(LAST_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def end_with_parent() -> None:
    """End this process as soon as its standard input closes."""

    def watch() -> None:
        # Not sys.stdin: its lock must be free when the interpreter ends.
        while os.read(0, 1):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@contextmanager
def signals(handler: Callable[[], None]) -> Iterator[None]:
    """Call the handler on Ctrl-C, SIGTERM and Windows' Ctrl-Break."""
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


def missing_package(error: ModuleNotFoundError) -> str:
    """Return how to install a package that is missing.

    Raises:
        ModuleNotFoundError: it is one of our own modules.
    """
    if (error.name or "").partition(".")[0] not in ("numpy", "tqdm"):
        raise error
    command = f"{sys.executable} -m pip install -r requirements.txt"
    return f"{error.name} is not installed; run: {command}"

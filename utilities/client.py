"""The client's process: it joins a worker to its connection, the clock and the screen.

It works until the server says that the run is over. A server that is lost is tried
again with growing, jittered pauses; the first connection is not, so that a wrong
address is noticed at once.
"""

import logging
import platform
import random
import time
from dataclasses import dataclass

import numpy as np

from utilities.communication import Connection, connect, parse_address
from utilities.display import Display, duration
from utilities.errors import IncompatibleError, NetworkError, ProtocolError
from utilities.options import ClientOptions
from utilities.processes import end_with_parent, signals
from utilities.protocol import PROTOCOL_VERSION, End, Goodbye, Hello
from utilities.selftest import arithmetic_test, noise_test
from utilities.setup import VERSION
from utilities.worker import Worker

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before the server is tried again
STOP_SLICE = 0.5  # a pause looks for Ctrl-C that often


@dataclass
class Progress:
    """What the bar shows."""

    step: int = 0
    trials: int = 0
    seconds: float = 1e-9  # spent in trials


class Client:
    """One client and its connection, again and again."""

    def __init__(self, options: ClientOptions) -> None:
        """Prepare; nothing is connected yet."""
        self._options = options
        self._host, self._port = parse_address(options.address)
        self._display = Display(quiet=options.quiet)
        self._stopping = False
        self._worker = Worker(time.monotonic, self._on_block)
        self._seconds = 1e-9  # spent on trials

    def run(self) -> None:
        """Work until the run ends, or until Ctrl-C.

        Raises:
            NetworkError: the server cannot be reached the first time.
            IncompatibleError: the server refused this client.
        """
        with signals(self._stop):
            connection = Connection(connect(self._host, self._port))
            self._display.say(f"Connected to {self._host}:{self._port}.")
            self._display.start()
            pause = FIRST_PAUSE
            while not self._stopping:
                try:
                    if self._session(connection):
                        break
                    pause = FIRST_PAUSE
                except (NetworkError, ProtocolError) as error:
                    log.warning("%s", error)
                finally:
                    connection.close()
                again, pause = self._reconnect(pause)
                if again is None:
                    break
                connection = again
        self._display.close()

    def _stop(self) -> None:
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        self._display.say("Leaving after this step. Ctrl-C again: quit now.")

    def _reconnect(self, pause: float) -> tuple[Connection | None, float]:
        """Try to reach the server until it answers; None if Ctrl-C came first."""
        while not self._stopping:
            # Jitter: a server that restarts is not met by all its clients at once.
            wait = pause * random.uniform(0.5, 1.0)
            log.warning("server lost; next try in %s", duration(max(1.0, wait)))
            self._pause(wait)
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                return Connection(connect(self._host, self._port)), pause
            except NetworkError as error:
                log.warning("%s", error)
        return None, pause

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            self._display.status(f"reconnecting in {duration(left)}")
            time.sleep(min(left, STOP_SLICE))

    # One session.

    def _hello(self) -> Hello:
        return Hello(
            protocol=PROTOCOL_VERSION,
            program=VERSION,
            python=platform.python_version(),
            numpy=np.__version__[:32],
            name=self._options.name,
            noise_test=noise_test(),
            arithmetic_test=arithmetic_test(),
            last_step=self._worker.step,
            last_digest=self._worker.digest,
        )

    def _session(self, connection: Connection) -> bool:
        """Take part until the session ends; return whether the client is done."""
        connection.send([self._hello()])
        while True:
            for message in connection.receive(wait=not self._worker.busy):
                if isinstance(message, Goodbye):
                    return self._parted(message)
                self._worker.handle(message)
            if self._worker.busy:
                began = time.monotonic()
                replies = self._worker.work()
                self._seconds += time.monotonic() - began
                connection.send(replies)
            else:
                self._show("waiting")
            if self._stopping:
                connection.send([Goodbye(End.FINISHED.value, "stopped by its user")])
                return True

    def _parted(self, goodbye: Goodbye) -> bool:
        if goodbye.end == End.REFUSED.value:
            raise IncompatibleError(f"the server refused this client: {goodbye.reason}")
        self._display.say(f"The server says goodbye: {goodbye.reason}.")
        return goodbye.end == End.FINISHED.value

    def _on_block(self, _trials: int) -> None:
        self._show("working")

    def _show(self, state: str) -> None:
        worker = self._worker
        rate = worker.trials / self._seconds
        loss = "" if worker.loss is None else f", loss {worker.loss:.3f}"
        self._display.status(
            f"step {worker.step or 0}, {state}, {rate:,.0f} trials/s, "
            f"{worker.trials:,} trials{loss}"
        )


def lend(options: ClientOptions) -> None:
    """Run a client.

    Raises:
        TrainingError: says in one line what is wrong and what to do.
    """
    if options.end_with_parent:
        end_with_parent()
    Client(options).run()

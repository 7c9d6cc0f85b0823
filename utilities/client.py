"""The client's process: it joins a worker to its connection, the clock and the screen.

With `--workers` above 1 other processes compute; this one waits for them.

It works until the server says that the run is over. A server that is lost is tried
again with growing, jittered pauses; the first connection is not, so that a wrong
address is noticed at once.
"""

import logging
import platform
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from utilities.addresses import parse_address, place
from utilities.communication import Connection, connect
from utilities.display import Display, duration
from utilities.errors import IncompatibleError, NetworkError, ProtocolError
from utilities.evolution import Update
from utilities.options import ClientOptions
from utilities.processes import cores, end_with_parent, signals, worker_count
from utilities.protocol import (
    MOST_BATCHES,
    PROTOCOL_VERSION,
    Begin,
    End,
    Goodbye,
    Hello,
    Message,
    Result,
)
from utilities.selftest import arithmetic_test, noise_test
from utilities.setup import VERSION
from utilities.team import Team
from utilities.worker import Worker

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before the server is tried again
SETTLED_SECONDS = 60.0  # a session of that length starts the pauses anew
PARENT_SECONDS = 0.5  # in which a local client ends with its server, without a word
STOP_SLICE = 0.5  # a pause looks for Ctrl-C that often


@dataclass
class Pace:
    """Whether a client keeps up with the steps.

    A client that starts late and then works as long as the others is late again, by
    as much, step after step. One step of a single block puts it back in time.
    """

    answered: int | None = None  # the step of the newest result
    behind: bool = False

    def fitting(self, message: Message) -> Message:
        """Return the message, with little to do where a step closed without us."""
        if isinstance(message, Update) and message.step != self.answered:
            self.behind = True
        if isinstance(message, Begin) and self.behind:
            return replace(message, time_per_step=0.0)
        return message


class Client:
    """One client and its connection, again and again."""

    def __init__(self, options: ClientOptions) -> None:
        """Prepare; nothing is connected yet."""
        self._options = options
        self._host, self._port = parse_address(options.address)
        self._display = Display(quiet=options.quiet)
        self._workers = worker_count(options.workers, cores())
        self._team = Team(self._workers) if self._workers > 1 else None
        self._worker = Worker(time.monotonic, self._on_block, self._team)
        self._random = random.SystemRandom()
        self._pause = FIRST_PAUSE
        self._stopping = self._stop_said = False
        self._welcomed = False  # in this session
        self._pace = Pace()
        self._spent = 0.0  # seconds on trials, but for the work in hand
        self._work_began = 0.0

    def run(self) -> None:
        """Work until the run ends, or until Ctrl-C.

        Raises:
            NetworkError: the server cannot be reached the first time.
            IncompatibleError: the server refused this client.
            TrainingError: a worker process has died.
            KeyboardInterrupt: a second Ctrl-C.
        """
        connection: Connection | None = Connection(connect(self._host, self._port))
        self._greet()
        with ExitStack() as stack:
            stack.callback(self._display.close)
            stack.enter_context(signals(self._stop))
            if self._team is not None:
                stack.enter_context(self._team)
            while connection is not None and not self._take_part(connection):
                connection = self._reconnect()

    def _greet(self) -> None:
        count = f"{self._workers} worker" + "s" * (self._workers > 1)
        server = place(self._host, self._port)
        self._display.say(f"Connected to {server} with {count}.")
        self._display.start()

    def _stop(self) -> None:
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True

    def _show(self, state: str, seconds: float) -> None:
        """Show how things stand, after that many seconds of trials in all."""
        if self._stopping and not self._stop_said:
            self._stop_said = True
            self._display.say("Leaving after this step. Ctrl-C again: quit now.")
        worker = self._worker
        rate = worker.trials / seconds if seconds else 0.0
        loss = "" if worker.loss is None else f", loss {worker.loss:.3f}"
        self._display.status(
            f"step {worker.step or 0}, {state}, {rate:,.0f} trials/s, "
            f"{worker.trials:,} trials{loss}"
        )

    # One session after the other.

    def _take_part(self, connection: Connection) -> bool:
        """Return whether the client is done, once a session has ended, however."""
        began = time.monotonic()
        try:
            return self._session(connection)
        except (NetworkError, ProtocolError) as error:
            if self._options.end_with_parent:
                self._sleep(PARENT_SECONDS)
            log.warning("%s", error)
            return False
        finally:
            connection.close()
            if time.monotonic() > began + SETTLED_SECONDS:
                self._pause = FIRST_PAUSE

    def _reconnect(self) -> Connection | None:
        """Try to reach the server until it answers; None if Ctrl-C came first."""
        while not self._stopping:
            # Jitter: a server that restarts is not met by all its clients at once.
            wait = self._pause * self._random.uniform(0.5, 1.0)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            log.info("The server is tried again in %s.", duration(max(1.0, wait)))
            self._sleep(wait)
            try:
                if not self._stopping:
                    connection = Connection(connect(self._host, self._port))
                    log.info("Connected again.")
                    return connection
            except NetworkError as error:
                log.warning("%s", error)
        return None

    def _sleep(self, seconds: float) -> None:
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
            batches=self._worker.batches[-MOST_BATCHES:],
        )

    def _session(self, connection: Connection) -> bool:
        """Take part until the session ends; return whether the client is done."""
        self._welcomed, self._pace = False, Pace()
        connection.send([self._hello()])
        while not self._stopping:
            goodbye = self._follow(connection.receive(wait=not self._busy))
            if goodbye is None and self._busy:
                goodbye = self._answer(connection)
            if goodbye is not None:
                return self._parted(goodbye)
            self._show("waiting", self._spent)
        connection.part(Goodbye(End.FINISHED.value, "stopped by its user"))
        return True

    def _answer(self, connection: Connection) -> Goodbye | None:
        """Do the work that is due; return the server's goodbye, if that came."""
        self._work_began = time.monotonic()
        step, replies = self._worker.step, self._worker.work()
        if replies and isinstance(replies[-1], Result):  # others have no trials
            self._spent += time.monotonic() - self._work_began
        came = connection.receive(wait=False)  # was sent without this answer
        connection.send(replies)
        self._pace.behind = False
        goodbye = self._follow(came)
        self._pace.answered = step
        return goodbye

    @property
    def _busy(self) -> bool:
        """Return whether there is work; that of an earlier session does not count."""
        return self._welcomed and self._worker.busy

    def _follow(self, messages: Sequence[Message]) -> Goodbye | None:
        """Let the worker follow; return the server's goodbye, if that came."""
        for message in messages:
            if isinstance(message, Goodbye):
                return message
            self._worker.handle(self._pace.fitting(message))
            self._welcomed = True  # nothing else can come first
        return None

    def _on_block(self, _trials: int) -> None:
        self._show("working", self._spent + time.monotonic() - self._work_began)

    def _parted(self, goodbye: Goodbye) -> bool:
        if goodbye.end == End.REFUSED.value:
            raise IncompatibleError(f"the server refused this client: {goodbye.reason}")
        self._display.say(f"The server says goodbye: {goodbye.reason}.")
        return goodbye.end == End.FINISHED.value


def lend(options: ClientOptions) -> None:
    """Run a client.

    Raises:
        TrainingError: says in one line what is wrong and what to do.
        KeyboardInterrupt: a second Ctrl-C.
    """
    if options.end_with_parent:
        end_with_parent()
    Client(options).run()

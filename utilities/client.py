"""The client's process: it joins a worker to its connection, the clock and the screen.

With `--workers` above 1 other processes compute; this one waits for them.

It works until the server says that the run is over. A server that is lost is tried
again with growing, jittered pauses, for days if need be; the first connection is not,
unless `--wait` asks for that, so that a wrong address is noticed at once. When to work
and when to pause is decided in `utilities.manners`.
"""

import logging
import platform
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from utilities.addresses import parse_address, place
from utilities.admission import Door
from utilities.causes import no_server
from utilities.clientoptions import ClientOptions
from utilities.connection import Connection
from utilities.display import Display
from utilities.errors import IncompatibleError, NetworkError, ProtocolError
from utilities.evolution import Update
from utilities.identity import Identity, kept_identity
from utilities.lastserver import keep_server, last_words
from utilities.machine import Rarely, be_nice, config_folder, on_battery
from utilities.manners import Manners, Tries, Wakefulness, lost_words, rough, share_of
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

SETTLED_SECONDS = 60.0  # a session of that length starts the pauses anew
PARENT_SECONDS = 0.5  # in which a local client ends with its server, without a word
STOP_SLICE = 0.5  # a pause looks for Ctrl-C that often
BATTERY_SECONDS = 15.0  # between two looks at the battery
WAITING, WORKING = "waiting for the next step", "working"
JOINING, UPDATING = "joining", "applying update"


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

    def __init__(
        self, options: ClientOptions, identity: Identity | None = None
    ) -> None:
        """Prepare; nothing is connected yet."""
        self._options = options
        self._identity = identity or Identity()
        self._host, self._port = parse_address(options.address)
        self._display = Display(quiet=options.quiet)
        self._door = Door(options, self._host, self._port, self._display.say)
        self._workers = workers(options)
        self._connection: Connection | None = None
        self._team = Team(self._workers) if self._workers > 1 else None
        self._worker = Worker(time.monotonic, self._on_block, self._team)
        self._manners = Manners(options.hours, options.no_battery)
        self._battery = Rarely(on_battery, BATTERY_SECONDS, time.monotonic)
        self._awake = Wakefulness(time.time(), time.monotonic())
        self._tries = Tries(random.SystemRandom())
        self._lost = False  # the server, so that a pause comes before the next try
        self._stopping = self._stop_said = False
        self._welcomed = False  # in this session
        self._entered = False  # the server's door, with a code that was right
        self._known = False  # the server, from any session
        self._pace = Pace()
        self._spent = 0.0  # seconds on trials, but for the work in hand
        self._work_began = 0.0

    def run(self) -> None:
        """Work until the run ends, or until Ctrl-C.

        Raises:
            NetworkError: the server cannot be reached the first time, or is lost and
                not to be tried again.
            AuthenticationError: there is no join code, or it is wrong.
            IncompatibleError: the server refused this client, or is none.
            TrainingError: a worker process has died.
            KeyboardInterrupt: a second Ctrl-C.
        """
        connection: Connection | None = None
        with ExitStack() as stack:
            stack.callback(self._display.close)
            self._display.start()
            if self._options.remembered:
                self._display.say(last_words(self._server))
            if not self._options.wait and self._pause() is None:
                self._display.hold(f"connecting to {self._server}")
                connection = self._connect()
                self._greet()
            stack.enter_context(signals(self._stop))
            if self._team is not None:
                stack.enter_context(self._team)
            while connection := connection or self._reconnect():
                if self._take_part(connection):
                    return
                connection = None

    @property
    def _server(self) -> str:
        return place(self._host, self._port)

    def _connect(self) -> Connection:
        """Return a connection, through the same door each time."""
        if self._entered:
            connection = self._door.again()
        else:
            self._display.close()  # it may ask for the code
            connection = self._door.first()
            self._display.start()
            if not self._options.end_with_parent:
                keep_server(config_folder(), platform.node(), self._server)
        self._connection, self._entered = connection, True
        return connection

    def _greet(self) -> None:
        count = f"{self._workers} worker" + "s" * (self._workers > 1)
        self._display.say(f"Connected to {self._server} with {count}.")
        if self._identity.number > 1:
            self._display.say(
                "Another client runs on this machine already; one with --workers needs "
                "less memory."
            )

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
        line = (
            f"step {worker.step or 0}, {state}, {rate:,.0f} trials/s, "
            f"{worker.trials:,} trials{loss}"
        )
        if worker.share is not None:
            share = f", you {100 * worker.share:.0f} %"
            line += share if len(line) + len(share) <= self._display.room else ""
        self._display.status(line)

    # One session after the other.

    def _take_part(self, connection: Connection) -> bool:
        """Return whether the client is done, once a session has ended, however."""
        began = time.monotonic()
        self._lost = True
        try:
            return self._session(connection)
        except ProtocolError as error:
            if not self._known:
                raise IncompatibleError(no_server(self._server, str(error))) from error
            log.warning("%s", error)
            return False
        except NetworkError as error:
            if self._options.once:
                raise
            if self._options.end_with_parent:
                self._sleep(PARENT_SECONDS)
            log.warning("%s", error)
            return False
        finally:
            connection.close()
            if time.monotonic() > began + SETTLED_SECONDS:
                self._tries.settled()

    def _reconnect(self) -> Connection | None:
        """Try to reach the server until it answers; None if Ctrl-C came first."""
        while not self._stopping:
            self._rest()
            if self._lost:
                self._wait()
            self._lost = True
            connection = None if self._stopping else self._try()
            if connection is not None:
                return connection
        return None

    def _try(self) -> Connection | None:
        """Return a connection if the server answers."""
        self._display.hold(f"connecting to {self._server}")
        try:
            connection = self._connect()
        except NetworkError as error:
            if self._tries.told:
                log.warning("%s", error)
            return None
        self._tries.reached()
        log.info("Connected again." if self._known else "Connected.")
        return connection

    def _wait(self) -> None:
        """Pause before the server is tried again."""
        now = time.monotonic()
        seconds = self._tries.wait(now)
        if self._tries.told:
            words = lost_words(seconds, self._tries.seconds(now))
            log.info("%s.", words.capitalize())
        self._sleep(seconds)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopping and (left := end - time.monotonic()) > 0:
            words = lost_words(left, self._tries.seconds(time.monotonic()))
            self._display.hold(f"lost the server: {words}")
            time.sleep(min(left, STOP_SLICE))

    def _pause(self) -> str | None:
        """Return why there is to be no work now; None: work."""
        unplugged = self._options.no_battery and bool(self._battery())
        return self._manners.pause(datetime.now(), unplugged)

    def _rest(self) -> None:
        """Wait until there is to be work again, or until Ctrl-C."""
        said: str | None = None
        while not self._stopping and (words := self._pause()) is not None:
            if words != said:
                log.info("%s.", words.capitalize())
                said = words
            self._display.hold(words)
            time.sleep(STOP_SLICE)
        if said is not None and not self._stopping:
            self._lost = False
            log.info("The pause is over.")

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
            identity=self._identity.value,
            batches=self._worker.batches[-MOST_BATCHES:],
        )

    def _session(self, connection: Connection) -> bool:
        """Take part until the session ends; return whether the client is done."""
        self._welcomed, self._pace = False, Pace()
        connection.send([self._hello()])
        pause: str | None = None
        while not self._stopping and pause is None:
            goodbye = self._follow(connection.receive(wait=not self._busy))
            if goodbye is None and self._busy:
                goodbye = self._answer(connection)
            if goodbye is not None:
                return self._parted(goodbye)
            self._show(WAITING if self._welcomed else JOINING, self._spent)
            self._look_for_sleep()
            pause = self._pause()
        reason = "stopped by its user" if self._stopping else pause
        connection.part(Goodbye(End.FINISHED.value, str(reason)))
        return self._stopping

    def _look_for_sleep(self) -> None:
        """Raise NetworkError where the machine has slept: the server has gone on."""
        slept = self._awake.slept(time.time(), time.monotonic())
        if slept is not None:
            raise NetworkError(f"this machine has slept for {rough(slept)}")

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
            if isinstance(message, Update):
                self._show(UPDATING, self._spent)
            self._worker.handle(self._pace.fitting(message))
            self._welcomed = self._known = True  # nothing else can come first
        return None

    def _on_block(self, _trials: int) -> None:
        if self._connection is not None:
            self._connection.pump()
        self._show(WORKING, self._spent + time.monotonic() - self._work_began)

    def _parted(self, goodbye: Goodbye) -> bool:
        if goodbye.end == End.REFUSED.value:
            raise IncompatibleError(f"the server refused this client: {goodbye.reason}")
        self._display.say(f"The server says goodbye: {goodbye.reason}.")
        if self._options.once and goodbye.end != End.FINISHED.value:
            raise NetworkError(f"the server has ended this session: {goodbye.reason}")
        return goodbye.end == End.FINISHED.value


def workers(options: ClientOptions) -> int:
    """Return how many processes compute."""
    if options.worker_percent is not None:
        return share_of(cores(), options.worker_percent)
    return worker_count(options.workers, cores())


def lend(options: ClientOptions) -> None:
    """Run a client.

    Raises:
        TrainingError: says in one line what is wrong and what to do.
        KeyboardInterrupt: a second Ctrl-C.
    """
    if options.end_with_parent:
        # A local client is no guest: whoever started its server wants it to work. On a
        # busy machine a nice one has a tenth of a core, and is late at every step.
        end_with_parent()
        Client(options).run()  # it is known by its name, and ends with its server
        return
    be_nice(options.nice)  # before there are workers, which are what their parent is
    with kept_identity(config_folder(), platform.node()) as identity:
        Client(options, identity).run()

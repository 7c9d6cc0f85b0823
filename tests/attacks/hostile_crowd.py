"""Many hostile connections to one server, driven by one thread.

What an honest client would say first is given to the crowd as functions, so that it
does not depend on how sessions are opened.
"""

import contextlib
import random
import selectors
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Session: TypeAlias = Callable[[int], socket.socket]  # of a port: an open session
Opening: TypeAlias = Callable[[], bytes]  # what an honest client sends at first
Garbage: TypeAlias = Callable[[random.Random], bytes]  # what is refused at once

TICK = 0.01  # seconds
OPENED_A_TICK = 5  # connections: the crowd comes within two seconds, and again
PATIENCE = 5.0  # seconds in which the server accepts a connection


@dataclass(frozen=True)
class Numbers:
    """How many of each there are."""

    idle: int = 1000  # that say nothing
    dripping: int = 50  # that say a byte a second of what is right
    deaf: int = 20  # that take part, and never read
    failing: int = 200  # a second that say something wrong


def dial(port: int) -> socket.socket:
    """Return a connection that never waits."""
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(("127.0.0.1", port))
    return connection


class Crowd:
    """All hostile connections; those that the server closes come again."""

    def __init__(
        self,
        port: int,
        session: Session,
        opening: Opening,
        garbage: Garbage,
        numbers: Numbers | None = None,
    ) -> None:
        """Prepare; nothing is connected before `start`."""
        self.counts: Counter[str] = Counter()  # connections made, by kind
        self._port = port
        self._session = session
        self._opening = opening
        self._garbage = garbage
        self._numbers = numbers or Numbers()
        self._selector = selectors.DefaultSelector()
        self._idle: set[socket.socket] = set()
        self._drips: dict[socket.socket, deque[int]] = {}
        self._deaf: list[socket.socket] = []
        self._failed: deque[tuple[float, socket.socket]] = deque()
        self._random = random.Random(7)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Let all come."""
        for _ in range(self._numbers.deaf):
            self._deaf.append(self._session(self._port))
            self.counts["deaf"] += 1
        self._thread.start()

    def close(self) -> None:
        """Let all go."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        for connection in (
            *(*self._idle, *self._drips, *self._deaf),
            *(connection for _, connection in self._failed),
        ):
            connection.close()
        self._selector.close()

    def complete(self) -> bool:
        """Return whether as many are there as there should be, or have been."""
        numbers = self._numbers
        made = self.counts["idle"] >= numbers.idle
        dripped = self.counts["dripping"] >= numbers.dripping
        return made and dripped and self.counts["deaf"] >= numbers.deaf

    def _run(self) -> None:
        began = time.monotonic()
        dripped = 0
        while not self._over.wait(TICK):
            passed = time.monotonic() - began
            self._hear()
            self._fill_up()
            while self.counts["failing"] < passed * self._numbers.failing:
                self._fail()
            if passed > dripped + 1:
                dripped += 1
                self._drip()

    def _hear(self) -> None:
        """Notice which connections the server has closed."""
        for key, _ in self._selector.select(0):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            try:
                closed = not connection.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                closed = True
            if closed:
                self._selector.unregister(connection)
                self._idle.discard(connection)
                self._drips.pop(connection, None)
                connection.close()

    def _fill_up(self) -> None:
        """Connect again for those that were closed."""
        for _ in range(OPENED_A_TICK):
            if len(self._drips) < self._numbers.dripping:
                self._drips[self._open("dripping")] = deque(self._opening())
            elif len(self._idle) < self._numbers.idle:
                self._idle.add(self._open("idle"))

    def _open(self, kind: str) -> socket.socket:
        connection = dial(self._port)
        self._selector.register(connection, selectors.EVENT_READ)
        self.counts[kind] += 1
        return connection

    def _drip(self) -> None:
        for connection, left in self._drips.items():
            with contextlib.suppress(OSError):
                if left:
                    connection.send(bytes([left.popleft()]))

    def _fail(self) -> None:
        """Say something wrong, and look away; the connection is closed a second later.

        What fits into the buffers of a connection that is not accepted yet is sent as
        soon as that is done.
        """
        now = time.monotonic()
        connection = dial(self._port)
        self.counts["failing"] += 1
        with contextlib.suppress(OSError):
            connection.send(self._garbage(self._random))
        self._failed.append((now + 1.0, connection))
        while self._failed and self._failed[0][0] < now:
            self._failed.popleft()[1].close()

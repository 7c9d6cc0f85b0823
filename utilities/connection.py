"""The client's one connection.

It waits for nobody longer than it says, and who it speaks to has proved itself first.
What a message means is decided elsewhere, and how bytes travel in `utilities.lines`.
"""

import contextlib
import selectors
import time
from collections.abc import Iterable, Sequence

from utilities.causes import because, no_proof
from utilities.errors import NetworkError, TrainingError
from utilities.frames import Buffer
from utilities.joincodes import Code
from utilities.lines import CHUNK, CONNECT_SECONDS, Socket, client_line, positive
from utilities.misc import Deadline
from utilities.outgoing import Outgoing
from utilities.protocol import Goodbye, Message
from utilities.sealing import bundled
from utilities.sessions import Progress, client_session
from utilities.wire import encode

SILENT_SECONDS = 60.0  # in which the server has to take something
GOODBYE_SECONDS = 2.0  # to take the last words
MAX_PUMPED = 1 << 26  # bytes that are taken in while somebody computes
WAIT_SECONDS = 0.5  # of one wait: signals are seen in between, on Windows too


class Connection:
    """The client's connection: whole messages in, whole messages out."""

    def __init__(self, connection: Socket, code: Code) -> None:
        """Take over a connected socket and prove to each other who is there.

        Raises:
            AuthenticationError: one of the two does not have the code.
            IncompatibleError: the server speaks another version of the handshake.
            NetworkError: the connection is lost, or there is no server behind it.
        """
        self._lost = ""  # why nothing more will come
        self._came: list[Message] = []  # with the end of the handshake
        self._unread: list[memoryview] = []  # taken in while somebody computed
        self._buffer = memoryview(bytearray(CHUNK))
        self._progress = Progress()
        self._waited = 0.0  # seconds in all; the clock of a message that has begun
        end = Deadline.after(CONNECT_SECONDS, time.monotonic)
        try:
            self._line = client_line(connection, code.pin, end)
            self._session = client_session(code, self._line.bind)
            self._shake(end)
        except TrainingError:
            connection.close()
            raise
        except OSError as error:
            connection.close()
            raise NetworkError(no_proof(because(error))) from error
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._line, selectors.EVENT_READ)

    @property
    def run(self) -> bytes:
        """Return which run the server says that this is."""
        return self._session.run

    def _shake(self, end: Deadline) -> None:
        while not self._session.established:
            self._line.settimeout(positive(end))
            size = self._line.receive(self._buffer)
            if not size:
                raise NetworkError(no_proof("it closed the connection"))
            self._came += self._session.receive(self._buffer[:size])
            if reply := self._session.reply():
                self._write([memoryview(reply)])

    def _write(self, parts: Iterable[Buffer]) -> None:
        queue = Outgoing()
        queue.push(parts)
        while queue:
            queue.taken(self._line.send(queue.first()))

    def send(self, messages: Sequence[Message]) -> None:
        """Send messages together.

        Where that fails, the next `receive` tells, after all that the server said
        before: that may be a goodbye.
        """
        parts = bundled(part for message in messages for part in encode(message))
        try:
            self._line.settimeout(SILENT_SECONDS)
            self._write(self._session.seal(parts))
        except OSError as error:
            self._lost = because(error)

    def receive(self, *, wait: bool) -> list[Message]:
        """Return all messages that have arrived.

        Args:
            wait: up to `WAIT_SECONDS` where nothing has arrived yet.

        Raises:
            NetworkError: the connection is lost, and all that came is read.
            ProtocolError: the server broke the rules.
        """
        messages, self._came = self._came, []
        unread, self._unread = self._unread, []
        for data in unread:
            messages += self._decoded(data)
        wait = wait and not (messages or self._lost)
        if self._lost or self._ready(WAIT_SECONDS if wait else 0):
            self._line.settimeout(0)
            while size := self._read():
                messages += self._decoded(self._buffer[:size])
        if self._progress.overdue(self._waited):
            self._lost = "a message does not come to its end"
        if self._lost and not messages:
            raise NetworkError(f"the server is lost: {self._lost}")
        return messages

    def pump(self) -> None:
        """Take in what has arrived, for the next `receive`; to be called meanwhile.

        Who computes for a while and takes nothing looks like one who never will.
        """
        held = sum(map(len, self._unread))
        self._line.settimeout(0)
        while not self._lost and held < MAX_PUMPED and (size := self._read()):
            self._unread.append(memoryview(bytes(self._buffer[:size])))
            held += size

    def _ready(self, seconds: float) -> bool:
        """Wait for something to come; return whether it has."""
        began = time.monotonic()
        ready = bool(self._selector.select(seconds))
        self._waited += time.monotonic() - began
        return ready

    def _decoded(self, data: memoryview) -> list[Message]:
        messages = list(self._session.receive(data))
        ended, unfinished = bool(messages), self._session.unfinished
        self._progress.note(len(data), self._waited, ended=ended, unfinished=unfinished)
        return messages

    def _read(self) -> int:
        """Fill the buffer with what is there; return its bytes, 0 if there are none."""
        try:
            size = self._line.receive(self._buffer)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._lost = because(error)
            return 0
        if not size:
            self._lost = self._lost or "it closed the connection"
        return size

    def part(self, goodbye: Goodbye) -> None:
        """Say goodbye and give the server a moment to take it."""
        self.send([goodbye])
        end = Deadline.after(GOODBYE_SECONDS, time.monotonic)
        with contextlib.suppress(OSError):  # also where time is up
            self._line.finish()
            while left := end.left():
                self._line.settimeout(left)
                if not self._line.receive(self._buffer):
                    return

    def close(self) -> None:
        """Close the connection."""
        self._selector.close()
        self._line.close()

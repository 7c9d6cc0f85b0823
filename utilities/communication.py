"""Sockets: the server's hub of many clients and the client's one connection.

Beside `reach` the only module that talks to sockets. `Hub` never blocks: it reads what
has arrived, writes what fits, and turns bytes into events of `utilities.events`. A
client that breaks the rules, does not read, or does not introduce itself is closed with
one line; nobody else notices. `Connection` is the client's end. What a message means is
decided elsewhere.

Last words need care on both ends: who closes a connection while something unread has
come in resets it, and what was said last may never be read. So each end shuts its own
direction, then reads until the other has closed.
"""

import contextlib
import logging
import selectors
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from utilities.addresses import ANY, place
from utilities.causes import because, cannot_connect, cannot_listen
from utilities.descriptors import descriptors
from utilities.errors import NetworkError, ProtocolError
from utilities.events import Joined, Left, Received
from utilities.frames import Buffer
from utilities.misc import Clock, Deadline
from utilities.outgoing import Outgoing
from utilities.protocol import End, Goodbye, Hello, Message
from utilities.wire import Inbox, Side, encode

log = logging.getLogger(__name__)

CHUNK = 1 << 18  # bytes of one read
READS = 16  # of one client before the others have their turn
# Connections that have not introduced themselves: a lab may come all at once. Each can
# have us hold the 60 kB of an unfinished hello, all of them 30 MB.
MOST_STRANGERS = 512
ACCEPTED = 64  # connections of one turn; those before them say hello meanwhile
SPARE_DESCRIPTORS = 32  # for the files of the run, whoever connects
HELLO_SECONDS = 10.0  # to introduce itself
SILENT_SECONDS = 60.0  # without taking any of what is queued for it
MAX_QUEUED = 1 << 28  # bytes queued for a client that does not read, beside a state
STATE_BYTES = 12  # of a parameter: weight and two moments
GOODBYE_SECONDS = 2.0  # to take the last words
MAX_REASON = 1000  # characters of a goodbye
# Connections that the system completes before they are accepted. It drops those beyond,
# which are tried again after a second, and may have a lower limit of its own.
BACKLOG = 1024
DEAF_SECONDS = 1.0  # without accepting anybody, once descriptors have run out
CONNECT_SECONDS = 10.0
WAIT_SECONDS = 0.5  # of one wait: signals are seen in between, on Windows too

# A machine that vanished without a word is found within a minute: by probes where
# nothing is said, by the user timeout where what was said is not acknowledged.
OPTIONS = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 10),
    (socket.IPPROTO_TCP, "TCP_KEEPALIVE", 10),  # as macOS calls it
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 5),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 4),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", int(1000 * SILENT_SECONDS)),
)


def _tune(connection: socket.socket) -> None:
    for level, name, value in OPTIONS:
        option = getattr(socket, name, None)
        if option is not None:
            # Where the peer has gone already, the first read or write will tell.
            with contextlib.suppress(OSError):
                connection.setsockopt(level, option, value)


def _send_together(connection: socket.socket, parts: list[memoryview]) -> int:
    """Send parts in one call, in one segment if they fit; return the bytes sent."""
    if hasattr(connection, "sendmsg"):
        return connection.sendmsg(parts)
    small = sum(map(len, parts)) <= CHUNK
    return connection.send(b"".join(parts) if small else parts[0])  # Windows


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; ``::`` takes IPv4 as well, where the system can.

    Raises:
        NetworkError: the address is not ours, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        host.encode(
            "idna"
        )  # a name that cannot be one: create_server leaves its socket
        listener = socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both
        )
    except (OSError, UnicodeError) as error:
        raise NetworkError(cannot_listen(place(host, port), error)) from error
    listener.setblocking(False)
    return listener


@dataclass(eq=False)
class _Link:
    """One client's connection as the hub sees it."""

    id: int
    socket: socket.socket
    address: str
    inbox: Inbox
    opened: float
    taken: float  # when it last took something of its queue
    queue: Outgoing = field(default_factory=Outgoing)
    writing: bool = False  # the selector tells when it can take more
    name: str = ""  # that it gave in its hello
    joined: bool = False
    closing: bool = False  # it gets its last words, then it is closed

    @property
    def who(self) -> str:
        """Return how log lines name it."""
        return f"{self.name or f'client {self.id}'} ({self.address})"


HubEvent = Joined | Received | Left


class Hub:
    """All connections of the server."""

    def __init__(self, listener: socket.socket, parameters: int, clock: Clock) -> None:
        """Serve a listening socket.

        Args:
            listener: not blocking.
            parameters: P; no client may send a larger state.
            clock: monotonic seconds.
        """
        self._listener = listener
        self._parameters = parameters
        # A state may be queued at once, however large; more than that is too much.
        self._most_queued = MAX_QUEUED + STATE_BYTES * parameters
        self._deaf_until: float | None = None
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._bell, self._button = socket.socketpair()
        for end in (self._bell, self._button):
            end.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._links: dict[int, _Link] = {}
        # Those that time alone may close: strangers, the parting, and who has not read
        # all. Of a thousand clients few are; nobody else is looked at every time.
        self._watched: dict[int, _Link] = {}
        self._buffer = memoryview(bytearray(CHUNK))
        self._next_id = 1
        self._most_links = descriptors() - SPARE_DESCRIPTORS
        self._events: list[HubEvent] = []
        self.moment = clock()  # up to which the last poll has heard everybody

    @property
    def port(self) -> int:
        """Return the port that is listened on."""
        return int(self._listener.getsockname()[1])

    def address(self, client: int) -> str:
        """Return where a client is; empty if it is gone."""
        link = self._links.get(client)
        return link.address if link else ""

    def ring(self) -> None:
        """Wake the poll from another thread or a signal handler."""
        with contextlib.suppress(OSError):
            self._button.send(b"!")

    def poll(self, seconds: float) -> list[HubEvent]:
        """Wait at most that long and return what has happened."""
        wait = 0.0 if self._events else max(0.0, min(seconds, WAIT_SECONDS))
        ready = self._selector.select(wait)
        self.moment = self._clock()
        for key, mask in ready:
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._bell:
                with contextlib.suppress(OSError):
                    self._bell.recv(4096)
            else:
                self._serve(key.data, mask)
        self._expire()
        events, self._events = self._events, []
        return events

    def _accept(self) -> None:
        """Take in those who have connected, as far as there is room."""
        strangers = sum(not link.joined for link in self._watched.values())
        for _ in range(ACCEPTED):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):  # it has gone again
                return
            except OSError as error:
                # Out of descriptors. The listener stays readable: without a pause this
                # would come again at once, for ever.
                log.warning("no connection can be accepted: %s", because(error))
                self._selector.unregister(self._listener)
                self._deaf_until = self._clock() + DEAF_SECONDS
                return
            if strangers >= MOST_STRANGERS or len(self._links) >= self._most_links:
                log.warning("%s is turned away: too many connections", address[0])
                connection.close()
                continue
            self._open(connection, str(address[0]))
            strangers += 1

    def _open(self, connection: socket.socket, address: str) -> None:
        connection.setblocking(False)
        _tune(connection)
        now, link_id = self._clock(), self._next_id
        self._next_id += 1
        inbox = Inbox(Side.CLIENT, self._parameters)
        link = _Link(link_id, connection, address, inbox, now, now)
        self._links[link_id] = self._watched[link_id] = link
        self._selector.register(connection, selectors.EVENT_READ, link)

    def _serve(self, link: _Link, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._write(link)
        if mask & selectors.EVENT_READ and link.id in self._links:
            self._read(link)

    def _read(self, link: _Link) -> None:
        for _ in range(READS):
            try:
                size = link.socket.recv_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._close(link, because(error))
                return
            if not size:
                self._close(link, "connection closed")
                return
            if not link.closing:
                self._decode(link, self._buffer[:size])
            if size < CHUNK or link.id not in self._links:
                return

    def _decode(self, link: _Link, data: memoryview) -> None:
        try:
            link.inbox.feed(data)
            for message in link.inbox.messages():
                if isinstance(message, Hello):
                    link.joined, link.name = True, message.name
                    self._events.append(Joined(link.id, message))
                else:
                    self._events.append(Received(link.id, message))
        except ProtocolError as error:
            self.refuse(link.id, str(error))

    def refuse(self, client: int, reason: str) -> None:
        """Close a client that broke the rules, with one line in the log."""
        link = self._links.get(client)
        if link is not None and not link.closing:
            log.warning("%s broke the rules: %s", link.who, reason)
            self._part(link, Goodbye(End.DROPPED.value, reason), "it broke the rules")

    def send(self, client: int, parts: Iterable[Buffer]) -> None:
        """Queue bytes for a client and write what fits."""
        link = self._links.get(client)
        if link is not None and not link.closing:
            self._push(link, parts)

    def _push(self, link: _Link, parts: Iterable[Buffer]) -> None:
        if not link.queue:
            link.taken = self._clock()
        link.queue.push(parts)
        self._write(link)

    def drop(self, client: int, goodbye: Goodbye) -> None:
        """Say goodbye to a client and close it once it has taken that."""
        link = self._links.get(client)
        if link is not None and not link.closing:
            self._part(link, goodbye, goodbye.reason)

    def _part(self, link: _Link, goodbye: Goodbye, reported: str) -> None:
        link.closing, link.opened = True, self._clock()
        self._watched[link.id] = link
        self._report(link, reported)
        line = "".join(c if c.isprintable() else "?" for c in goodbye.reason)
        self._push(link, encode(Goodbye(goodbye.end, line[:MAX_REASON])))

    def _half_close(self, link: _Link) -> None:
        """End our side; closing at once could reset the last words away."""
        try:
            link.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._close(link, because(error))

    def _write(self, link: _Link) -> None:
        try:
            full = False
            while link.queue and not full:
                parts = link.queue.first()
                sent = _send_together(link.socket, parts)
                link.taken = self._clock()
                link.queue.taken(sent)
                full = sent < sum(map(len, parts))
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._close(link, because(error))
            return
        self._watch(link)
        if link.closing and not link.queue:
            self._half_close(link)

    def _watch(self, link: _Link) -> None:
        """Ask to be told when a client can take more, while there is more."""
        more = bool(link.queue)
        if more:
            self._watched[link.id] = link
        if more is not link.writing:
            link.writing = more
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if more else 0)
            self._selector.modify(link.socket, wanted, link)

    def _expire(self) -> None:
        now = self._clock()
        if self._deaf_until is not None and now >= self._deaf_until:
            self._deaf_until = None
            self._selector.register(self._listener, selectors.EVENT_READ)
        for link in list(self._watched.values()):
            if link.closing:
                if now > link.opened + GOODBYE_SECONDS:
                    self._close(link, "")
            elif not link.joined:
                if now > link.opened + HELLO_SECONDS:
                    self.refuse(link.id, f"no hello within {HELLO_SECONDS:g} s")
            elif not link.queue:
                del self._watched[link.id]
            elif (
                link.queue.size > self._most_queued or now > link.taken + SILENT_SECONDS
            ):
                waits = f"{link.queue.size} bytes were queued"
                self._close(link, f"it does not read; {waits}")

    def _close(self, link: _Link, reason: str) -> None:
        if not (link.joined or link.closing):
            log.info("%s left without a hello: %s", link.who, reason)
        self._report(link, reason)
        del self._links[link.id]
        self._watched.pop(link.id, None)
        self._selector.unregister(link.socket)
        link.socket.close()

    def _report(self, link: _Link, reason: str) -> None:
        """Tell the coordinator once that a client has gone."""
        if link.joined:
            link.joined = False
            self._events.append(Left(link.id, reason))

    def close(self) -> None:
        """Give everybody a moment to take the last words, then close all."""
        if self._deaf_until is None:
            self._selector.unregister(self._listener)
        self._listener.close()  # who comes now shall try again later
        self._deaf_until = None
        for client in list(self._links):
            self.drop(client, Goodbye(End.DROPPED.value, "the server has stopped"))
        end = Deadline.after(GOODBYE_SECONDS, self._clock)
        while self._links and end.left():
            self.poll(0.05)
        for link in list(self._links.values()):
            self._close(link, "")
        self._selector.close()
        for end_of_pair in (self._bell, self._button):
            end_of_pair.close()


# The client's end.


def connect(host: str, port: int) -> socket.socket:
    """Return a connection to a server.

    Raises:
        NetworkError: says which of the usual causes it is.
    """
    if host in ANY:
        raise NetworkError(
            f"{host} is an address to listen on, not to connect to; "
            "use one of those that the server printed at its start"
        )
    try:
        connection = socket.create_connection((host, port), CONNECT_SECONDS)
        if connection.getsockname() == connection.getpeername():
            # Where nobody listens, a port of the range that the system gives out may
            # be connected to itself, and would then be taken when the server returns.
            connection.close()
            raise ConnectionRefusedError
    except (OSError, UnicodeError) as error:
        unknown = isinstance(error, socket.gaierror)
        address, waited = place(host, port), CONNECT_SECONDS
        why = cannot_connect(address, error, unknown=unknown, waited=waited)
        raise NetworkError(why) from error
    _tune(connection)
    return connection


class Connection:
    """The client's connection: whole messages in, whole messages out."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connected socket."""
        self._socket = connection
        self._inbox = Inbox(Side.SERVER)
        self._lost = ""  # why nothing more will come
        self._selector = selectors.DefaultSelector()
        self._selector.register(connection, selectors.EVENT_READ)

    def send(self, messages: Sequence[Message]) -> None:
        """Send messages together.

        Where that fails, the next `receive` tells, after all that the server said
        before: that may be a goodbye.
        """
        queue = Outgoing()
        queue.push(part for message in messages for part in encode(message))
        try:
            self._socket.settimeout(SILENT_SECONDS)
            while queue:
                queue.taken(_send_together(self._socket, queue.first()))
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
        messages: list[Message] = []
        if self._lost or self._selector.select(WAIT_SECONDS if wait else 0):
            self._socket.settimeout(0)
            while data := self._read():
                self._inbox.feed(data)
                messages += self._inbox.messages()
        if self._lost and not messages:
            raise NetworkError(f"the server is lost: {self._lost}")
        return messages

    def _read(self) -> bytes:
        """Return what is there, empty if that is nothing."""
        try:
            data = self._socket.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            self._lost = because(error)
            return b""
        if not data:
            self._lost = self._lost or "it closed the connection"
        return data

    def part(self, goodbye: Goodbye) -> None:
        """Say goodbye and give the server a moment to take it."""
        self.send([goodbye])
        end = Deadline.after(GOODBYE_SECONDS, time.monotonic)
        with contextlib.suppress(OSError):  # also where time is up
            self._socket.shutdown(socket.SHUT_WR)
            while left := end.left():
                self._socket.settimeout(left)
                if not self._socket.recv(CHUNK):
                    return

    def close(self) -> None:
        """Close the connection."""
        self._selector.close()
        self._socket.close()

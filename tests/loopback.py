"""A hub on a loopback port, peers around it, a clock that a test moves."""

import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from tests.messages import SAMPLES
from utilities.communication import Gate, Hub
from utilities.config import MAX_PARAMETERS
from utilities.connection import Connection
from utilities.events import Joined, Left
from utilities.handshake import NO_BIND
from utilities.joincodes import PIN_BYTES, Code
from utilities.lines import (
    CHUNK,
    Line,
    ServerTls,
    TlsLine,
    client_context,
    connect,
    listen,
)
from utilities.outgoing import Outgoing
from utilities.protocol import Begin, Goodbye, Message, TokenBatch
from utilities.sealing import bundled
from utilities.sessions import Session, client_session, server_session
from utilities.wire import encode

PATIENCE = 10.0  # seconds until a test gives up
PARAMETERS = 3  # weights of the samples' states
HTTP = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
BYE = Goodbye("dropped", "so long")
BEGIN = Begin(5, 1.5, 2, True, ())
LARGE = TokenBatch(1, np.arange(3 << 20).astype(np.uint8))
LARGE_BYTES = LARGE.tokens.nbytes
HELLO, RESULT, WELCOME = SAMPLES["hello"], SAMPLES["result"], SAMPLES["welcome"]
CODE = Code(b"sixteen secrets!")
RUN = b"the sixteenth rn"
CERTIFICATES = Path(__file__).resolve().parent / "certificates"
CERTIFICATE = CERTIFICATES / "first.pem"


def in_bytes(*messages: Message) -> bytes:
    return b"".join(part for message in messages for part in encode(message))


HELLO_BYTES = in_bytes(HELLO)


def gate(tls: ServerTls | None = None) -> Gate:
    pin = tls.bind[:PIN_BYTES] if tls else b""
    return Gate(Code(CODE.secret, pin), RUN, tls)


def certificate() -> ServerTls:
    return ServerTls(CERTIFICATE, None)


@dataclass
class Clock:
    """Seconds that pass only where a test says so."""

    now: float = 100.0
    tick: float = 0.0  # that each look takes

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


@dataclass
class Peer:
    """The other end of a hub's connection, without anything of the edge in it."""

    socket: socket.socket
    pin: bytes = b""
    messages: list[Message] = field(default_factory=list)
    ended: bool = False  # the hub has said all that it will say

    def __post_init__(self) -> None:
        self.socket.setblocking(False)
        self.line: Line = Line(self.socket)
        if self.pin:
            self.line = TlsLine(self.socket, client_context(), pin=self.pin)
        self._session: Session | None = None
        self._buffer = memoryview(bytearray(CHUNK))

    @property
    def session(self) -> Session:
        if self._session is None:
            bind = self.line.bind
            self._session = client_session(Code(CODE.secret, self.pin), bind)
        return self._session

    @property
    def established(self) -> bool:
        return self._session is not None and self.session.established

    def raw(self, data: bytes) -> None:
        """Send bytes as they are, whatever they are."""
        self.socket.settimeout(PATIENCE)
        queue = Outgoing()
        queue.push([data])
        while queue:
            queue.taken(self.line.send(queue.first()))

    def sealed(self, data: bytes) -> bytes:
        """Return bytes as records carry them."""
        return b"".join(self.session.seal(bundled([data])))

    def send(self, data: bytes) -> None:
        """Send bytes in records."""
        self.raw(self.sealed(data))

    def read(self) -> None:
        """Take what is there without waiting."""
        self.socket.setblocking(False)
        try:
            while size := self.line.receive(self._buffer):
                self.messages += self.session.receive(self._buffer[:size])
                if reply := self.session.reply():
                    self.raw(reply)
                    self.socket.setblocking(False)
            self.ended = True
        except BlockingIOError:
            pass
        finally:
            self.socket.settimeout(PATIENCE)

    def reset(self) -> None:
        """Close at once, the hard way."""
        linger = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()


class Bench:
    """A hub with peers around it, and all events that it gave."""

    def __init__(
        self, parameters: int = PARAMETERS, tls: ServerTls | None = None
    ) -> None:
        self.peers = ExitStack()
        self.clock = Clock()
        self.gate = gate(tls)
        self.hub = Hub(listen("127.0.0.1", 0), self.gate, parameters, self.clock)
        self.port = self.hub.port
        self.events: list[Any] = []
        self.closed = False

    def dial(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        return self.peers.enter_context(connection)

    def stranger(self, data: bytes = b"") -> Peer:
        """Return a peer that has proved nothing, and has said something."""
        peer = Peer(self.dial())
        peer.raw(data)
        return peer

    def peer(self, data: bytes = b"") -> Peer:
        """Return a peer that has proved itself, and has said something."""
        peer = Peer(self.dial(), self.gate.code.pin)
        self.until(lambda: peer.established, peer)
        if data:
            peer.send(data)
        return peer

    def joined(self) -> tuple[Peer, int]:
        """Return a peer that has introduced itself, and its number."""
        known = len(self.of(Joined))
        peer = self.peer(HELLO_BYTES)
        self.until(lambda: len(self.of(Joined)) > known)
        return peer, self.of(Joined)[-1].client

    def connection(self) -> Connection:
        """Return a client's connection that has proved itself."""
        made: list[Connection] = []
        dialled = connect("127.0.0.1", self.port)
        code = self.gate.code
        thread = Thread(target=lambda: made.append(Connection(dialled, code)))
        thread.start()
        self.until(lambda: made or not thread.is_alive())
        thread.join(PATIENCE)
        return made[0]

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def reasons(self) -> list[str]:
        return [event.reason for event in self.of(Left)]

    def until(self, condition: Callable[[], object], *readers: Peer) -> None:
        """Poll until something is so; peers that are named read meanwhile."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"it never came; events: {self.events}"
            self.events += self.hub.poll(0.01)
            for reader in readers:
                reader.read()

    def settle(self) -> None:
        """Poll until nothing more happens."""
        quiet = 0
        while quiet < 3:
            before = len(self.events)
            self.events += self.hub.poll(0.01)
            quiet = quiet + 1 if len(self.events) == before else 0

    def close(self) -> None:
        self.peers.close()
        if not self.closed:
            self.closed, self.clock.tick = True, 0.05
            self.hub.close()


class Served:
    """A server's end of one connection, which waits: for tests of clients."""

    def __init__(self, connection: socket.socket, bind: bytes = NO_BIND) -> None:
        connection.settimeout(PATIENCE)
        self.socket = connection
        self.session = server_session(CODE, RUN, MAX_PARAMETERS, bind)
        self.socket.sendall(self.session.reply())

    def shake(self) -> "Served":
        """Wait until the client has proved itself."""
        while not self.session.established:
            self.receive()
        return self

    def receive(self) -> list[Message] | None:
        """Wait for bytes; return the messages that they complete, None at the end."""
        data = self.socket.recv(1 << 16)
        messages = list(self.session.receive(data))
        if reply := self.session.reply():
            self.socket.sendall(reply)
        return messages if data else None

    def sealed(self, data: bytes) -> bytes:
        """Return bytes as records carry them."""
        return b"".join(self.session.seal(bundled([data])))

    def sendall(self, data: bytes) -> None:
        """Send bytes in records."""
        self.socket.sendall(self.sealed(data))

"""A hub on a loopback port, peers around it, a clock that a test moves."""

import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.messages import SAMPLES
from utilities.communication import Hub, listen
from utilities.events import Joined, Left
from utilities.protocol import Begin, Goodbye, Message, TokenBatch
from utilities.wire import Inbox, Side, encode

PATIENCE = 10.0  # seconds until a test gives up
PARAMETERS = 3  # weights of the samples' states
HTTP = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
BYE = Goodbye("dropped", "so long")
BEGIN = Begin(5, 1.5, 2, True, ())
LARGE = TokenBatch(1, np.arange(3 << 20).astype(np.uint8))
LARGE_BYTES = LARGE.tokens.nbytes
HELLO, RESULT, WELCOME = SAMPLES["hello"], SAMPLES["result"], SAMPLES["welcome"]


def in_bytes(*messages: Message) -> bytes:
    return b"".join(part for message in messages for part in encode(message))


HELLO_BYTES = in_bytes(HELLO)


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
    inbox: Inbox = field(default_factory=lambda: Inbox(Side.SERVER))
    messages: list[Message] = field(default_factory=list)
    ended: bool = False  # the hub has said all that it will say

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> None:
        """Take what is there without waiting."""
        self.socket.setblocking(False)
        try:
            while data := self.socket.recv(1 << 16):
                self.inbox.feed(data)
                self.messages += self.inbox.messages()
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

    def __init__(self, parameters: int = PARAMETERS) -> None:
        self.peers = ExitStack()
        self.clock = Clock()
        self.hub = Hub(listen("127.0.0.1", 0), parameters, self.clock)
        self.port = self.hub.port
        self.events: list[Any] = []
        self.closed = False

    def dial(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        return self.peers.enter_context(connection)

    def peer(self, data: bytes = b"") -> Peer:
        """Return a peer that has said something."""
        peer = Peer(self.dial())
        peer.send(data)
        return peer

    def joined(self) -> tuple[Peer, int]:
        """Return a peer that has introduced itself, and its number."""
        known = len(self.of(Joined))
        peer = self.peer(HELLO_BYTES)
        self.until(lambda: len(self.of(Joined)) > known)
        return peer, self.of(Joined)[-1].client

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

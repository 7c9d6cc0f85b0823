"""A proxy between clients and a server that does to connections what networks do.

It has seven faults, known from Toxiproxy: latency, bandwidth, slow_close, timeout,
slicer, limit_data, reset_peer. They strike all connections of the proxy, both ways,
from the moment at which they are set until others are.
"""

import contextlib
import select
import socket
import struct
import threading
import time
from dataclasses import dataclass, field

PIECE = 1 << 16  # bytes that are passed on together
LOOK = 0.02  # seconds between two looks at whether faults have changed
DAY = 86_400.0


@dataclass(frozen=True)
class Faults:
    """What is wrong with a network at the moment."""

    latency: float = 0.0  # seconds that each piece waits
    bandwidth: float | None = None  # bytes a second
    slow_close: float = 0.0  # seconds until one end hears that the other has closed
    timeout: float | None = None  # nothing passes; closed after so many seconds
    slicer: int | None = None  # bytes of a piece
    limit_data: int | None = None  # bytes after which a connection is closed
    reset_peer: bool = False  # both ends are reset at once


HEALED = Faults()


@dataclass(eq=False)
class Link:
    """One connection through the proxy."""

    client: socket.socket
    server: socket.socket
    passed: int = 0  # bytes, since faults were last set
    over: threading.Event = field(default_factory=threading.Event)

    def end(self, *, reset: bool = False) -> None:
        """Close both connections, by a reset if asked for."""
        if self.over.is_set():
            return
        self.over.set()
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                else:
                    end.shutdown(socket.SHUT_RDWR)
            # A descriptor that another thread waits for is not closed under it: it
            # would be given to the next connection. The last thread closes it.


class FaultProxy:
    """Listens on a loopback port and passes on what comes, as far as faults allow."""

    def __init__(self, port: int) -> None:
        """Pass on to a port of this machine; nothing is wrong at first."""
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LOOK)
        self._faults = HEALED
        self._links: list[Link] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self.connections = 0
        self._threads[0].start()

    @property
    def port(self) -> int:
        """Return the port that clients connect to."""
        return int(self._listener.getsockname()[1])

    def set(self, faults: Faults) -> None:
        """Let something be wrong from now on."""
        for link in self._links:
            link.passed = 0
        self._faults = faults
        if faults.reset_peer:
            self.cut(reset=True)

    def cut(self, *, reset: bool = False) -> None:
        """End all connections."""
        links, self._links = self._links, []
        for link in links:
            link.end(reset=reset)

    def close(self) -> None:
        """End everything, and all threads."""
        self._ended.set()
        self.cut()
        for thread in self._threads:
            thread.join(10.0)
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), 5.0)
            except OSError:
                client.close()
                continue
            client.settimeout(None)
            server.settimeout(None)
            self._join(Link(client, server))

    def _join(self, link: Link) -> None:
        self.connections += 1
        self._links.append(link)
        ways = ((link.client, link.server), (link.server, link.client))
        pumps = [
            threading.Thread(target=self._pump, args=(link, source, sink))
            for source, sink in ways
        ]

        def close_after() -> None:
            for pump in pumps:
                pump.join()
            link.client.close()
            link.server.close()

        self._threads += [*pumps, threading.Thread(target=close_after)]
        for thread in self._threads[-3:]:
            thread.start()

    def _pump(self, link: Link, source: socket.socket, sink: socket.socket) -> None:
        """Pass on one way until either end, or a fault, closes."""
        while not link.over.is_set():
            try:
                if not select.select([source], [], [], LOOK)[0]:
                    continue
                data = source.recv(PIECE)
            except OSError:
                break
            if not data:
                link.over.wait(self._faults.slow_close)
                with contextlib.suppress(OSError):
                    sink.shutdown(socket.SHUT_WR)
                return
            try:
                self._pass_on(link, sink, data)
            except OSError:
                break
        link.end()

    def _pass_on(self, link: Link, sink: socket.socket, data: bytes) -> None:
        while data and not link.over.is_set():
            faults = self._faults
            if faults.timeout is not None:
                self._hold(link, time.monotonic() + faults.timeout)
                continue
            size = min(len(data), faults.slicer or PIECE)
            if faults.limit_data is not None:
                size = min(size, faults.limit_data - link.passed)
                if size <= 0:
                    link.end()
                    return
            piece, data = data[:size], data[size:]
            wait = faults.latency + size / (faults.bandwidth or 1e12)
            link.over.wait(min(wait, DAY))
            sink.sendall(piece)
            link.passed += size

    def _hold(self, link: Link, until: float) -> None:
        """Let nothing pass while the fault lasts; close when its time is over."""
        while self._faults.timeout is not None and not link.over.is_set():
            if time.monotonic() > until:
                link.end()
            link.over.wait(LOOK)

"""The server's connections: one hub of many clients.

`Hub` never blocks: it reads what has arrived, writes what fits, and turns bytes into
events of `utilities.events`. Who does not prove within seconds that it has the join
code, breaks the rules, stops in the middle of a message or does not read is closed
with one line; nobody else notices. What a message means is decided elsewhere, and how
bytes travel in `utilities.lines`.

Last words need care on both ends: who closes a connection while something unread has
come in resets it, and what was said last may never be read. So each end shuts its own
direction, then reads until the other has closed.
"""

import logging
import selectors
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from utilities.addresses import origin, plain
from utilities.causes import because
from utilities.complaints import Complaints
from utilities.descriptors import descriptors
from utilities.errors import TrainingError
from utilities.events import Joined, Left, Received
from utilities.frames import Buffer
from utilities.handshake import NO_BIND
from utilities.joincodes import Code
from utilities.lines import (
    CHUNK,
    Bell,
    Line,
    ServerTls,
    Socket,
    tune,
)
from utilities.misc import Clock, Deadline
from utilities.outgoing import Outgoing
from utilities.protocol import End, Goodbye, Hello
from utilities.sealing import Bundle, bundled
from utilities.sessions import Progress, Session, server_session
from utilities.wire import encode

log = logging.getLogger(__name__)

READS = 16  # of one client before the others have their turn
# Strangers have not proved yet that they know the join code. A lab may come all at
# once, and from behind one address; where there are too many the oldest goes, since an
# honest one is done after one exchange. Each has us hold some kilobytes, with TLS some
# ten: 40 MB in all.
MOST_STRANGERS = 768
MOST_STRANGERS_OF_ONE = 512  # from one address
MOST_OF_ONE = 4096  # connections from one address, so that others find room
ACCEPTED = 64  # connections of one turn; those before them say hello meanwhile
SPARE_DESCRIPTORS = 32  # for the files of the run, whoever connects
SHAKE_SECONDS = 5.0  # to prove that it has the code, agreeing upon TLS included
HELLO_SECONDS = 10.0  # to introduce itself, since it has connected
SILENT_SECONDS = 60.0  # without taking any of what is queued for it
MAX_QUEUED = 1 << 28  # bytes queued for a client that does not read, beside a state
STATE_BYTES = 16  # of a parameter: weight, two moments, mean
GOODBYE_SECONDS = 2.0  # to take the last words
MAX_REASON = 1000  # characters of a goodbye
DEAF_SECONDS = 1.0  # without accepting anybody, once descriptors have run out
WAIT_SECONDS = 0.5  # of one wait: signals are seen in between, on Windows too


@dataclass(frozen=True)
class Gate:
    """What those who connect have to prove, and how."""

    code: Code
    run: bytes  # 16 bytes that say which run this is
    tls: ServerTls | None = None

    def line(self, connection: Socket) -> Line:
        """Return a line over an accepted connection."""
        return self.tls.line(connection) if self.tls else Line(connection)

    def session(self, parameters: int) -> Session:
        """Return our end of a new connection."""
        bind = self.tls.bind if self.tls else NO_BIND
        return server_session(self.code, self.run, parameters, bind)


@dataclass(eq=False)
class _Link:
    """One client's connection as the hub sees it."""

    id: int
    line: Line
    address: str
    origin: str  # what it has in common with others from there
    session: Session
    opened: float
    taken: float  # when it last took something of its queue
    queue: Outgoing = field(default_factory=Outgoing)
    progress: Progress = field(default_factory=Progress)
    writing: bool = False  # the selector tells when it can take more
    name: str = ""  # that it gave in its hello
    joined: bool = False
    closing: bool = False  # it gets its last words, then it is closed

    @property
    def who(self) -> str:
        """Return how log lines name it."""
        return f"{self.name or f'client {self.id}'} ({self.address})"

    @property
    def stranger(self) -> bool:
        """Return whether it has yet to prove that it knows the join code."""
        return not self.session.established


HubEvent = Joined | Received | Left


class Hub:
    """All connections of the server."""

    def __init__(
        self, listener: Socket, gate: Gate, parameters: int, clock: Clock
    ) -> None:
        """Serve a listening socket.

        Args:
            listener: not blocking.
            gate: what clients have to prove.
            parameters: P; no client may send a larger state.
            clock: monotonic seconds.
        """
        self._listener = listener
        self._gate = gate
        self._parameters = parameters
        # A state may be queued at once, however large; more than that is too much.
        self._most_queued = MAX_QUEUED + STATE_BYTES * parameters
        self._deaf_until: float | None = None
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._bell = Bell()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._links: dict[int, _Link] = {}
        # Those that time alone may close: who has not said hello, the parting, who has
        # not read all, or stopped in a message. Of a thousand clients few are; nobody
        # else is looked at every time.
        self._watched: dict[int, _Link] = {}
        self._strangers: dict[int, _Link] = {}  # the oldest first
        self._origins: Counter[str] = Counter()  # connections of each
        self._complaints = Complaints("more connections came to nothing")
        self._offences = Complaints("more clients broke the rules")
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
        self._bell.ring()

    def poll(self, seconds: float) -> list[HubEvent]:
        """Wait at most that long and return what has happened."""
        wait = 0.0 if self._events else max(0.0, min(seconds, WAIT_SECONDS))
        ready = self._selector.select(wait)
        self.moment = self._clock()
        for key, mask in ready:
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._bell:
                self._bell.hear()
            elif key.data.id in self._links:  # not closed for one that came meanwhile
                self._serve(key.data, mask)
        self._expire()
        events, self._events = self._events, []
        return events

    def _accept(self) -> None:
        """Take in those who have connected, as far as there is room."""
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
            host = plain(str(address[0]))
            source = origin(host)
            if self._make_room(source):
                self._open(connection, host, source)
            else:
                self._complain(f"{host} is turned away: too many connections")
                connection.close()

    def _make_room(self, source: str) -> bool:
        """Return whether one more may come in, after closing strangers for it."""
        strangers, ours = list(self._strangers.values()), []
        if self._origins[source] >= MOST_STRANGERS_OF_ONE:
            ours = [link for link in strangers if link.origin == source]
        full = len(self._links) >= self._most_links
        if len(ours) >= MOST_STRANGERS_OF_ONE:
            self._close(ours[0], "others came")
        elif strangers and (full or len(strangers) >= MOST_STRANGERS):
            self._close(strangers[0], "others came")
        return (
            len(self._links) < self._most_links and self._origins[source] < MOST_OF_ONE
        )

    def _open(self, connection: Socket, address: str, source: str) -> None:
        connection.setblocking(False)
        tune(connection)
        now, link_id = self._clock(), self._next_id
        self._next_id += 1
        line = self._gate.line(connection)
        session = self._gate.session(self._parameters)
        link = _Link(link_id, line, address, source, session, now, now)
        self._links[link_id] = self._watched[link_id] = link
        self._strangers[link_id] = link
        self._origins[source] += 1
        self._selector.register(line, selectors.EVENT_READ, link)
        self._push_plainly(link)

    def _serve(self, link: _Link, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._write(link)
        if mask & selectors.EVENT_READ and link.id in self._links:
            self._read(link)

    def _read(self, link: _Link) -> None:
        for _ in range(READS):
            try:
                size = link.line.receive(self._buffer)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self._close(link, because(error))
                return
            if not size:
                self._close(link, "connection closed")
                return
            if not link.closing:
                self._decode(link, self._buffer[:size])
            if size < CHUNK or link.id not in self._links:
                break
        if link.id in self._links and (link.queue or link.line.unsent):
            self._write(link)  # TLS has become ready, or has something to say

    def _decode(self, link: _Link, data: memoryview) -> None:
        before = len(self._events)
        try:
            for message in link.session.receive(data):
                if isinstance(message, Hello):
                    link.joined, link.name = True, message.name
                    self._events.append(Joined(link.id, message))
                else:
                    self._events.append(Received(link.id, message))
        except TrainingError as error:
            self._push_plainly(link)
            self.refuse(link.id, str(error))
            return
        if link.id in self._strangers:
            self._push_plainly(link)
            if link.id not in self._links:
                return
            if link.session.established:
                del self._strangers[link.id]
        ended, unfinished = len(self._events) > before, link.session.unfinished
        link.progress.note(len(data), self.moment, ended=ended, unfinished=unfinished)
        if unfinished:
            self._watched[link.id] = link

    def refuse(self, client: int, reason: str) -> None:
        """Close a client that broke the rules, with one line in the log."""
        link = self._links.get(client)
        if link is None or link.closing:
            return
        if link.stranger:
            self._complain(f"{link.who} is turned away: {reason}")
        else:
            line = f"{link.who} broke the rules: {reason}"
            if self._offences.passes(line, self.moment):
                log.warning("%s", line)
        self._part(link, Goodbye(End.DROPPED.value, reason), "it broke the rules")

    def _complain(self, line: str, level: int = logging.WARNING) -> None:
        """Tell about somebody unknown, but not more often than a log can bear."""
        if self._complaints.passes(line, self.moment):
            log.log(level, "%s", line)

    def send(self, client: int, bundles: Iterable[Bundle]) -> None:
        """Queue messages for a client and write what fits."""
        link = self._links.get(client)
        if link is not None and not link.closing:
            self._push(link, link.session.seal(bundles))

    def _push_plainly(self, link: _Link) -> None:
        """Queue what the handshake has to say."""
        if reply := link.session.reply():
            self._push(link, [reply])

    def _push(self, link: _Link, parts: Iterable[Buffer]) -> None:
        if link.id not in self._links:
            return
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
        if link.stranger:  # it could not read a goodbye
            self._write(link)
            return
        line = "".join(c if c.isprintable() else "?" for c in goodbye.reason)
        last = bundled(encode(Goodbye(goodbye.end, line[:MAX_REASON])))
        self._push(link, link.session.seal(last))

    def _half_close(self, link: _Link) -> None:
        """End our side; closing at once could reset the last words away."""
        try:
            link.line.finish()
        except OSError as error:
            self._close(link, because(error))

    def _write(self, link: _Link) -> None:
        try:
            link.line.flush()
            while link.queue:
                sent = link.line.send(link.queue.first())
                link.taken = self._clock()
                link.queue.taken(sent)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._close(link, because(error))
            return
        self._watch(link)
        if link.closing and not link.queue and not link.line.unsent:
            self._half_close(link)

    def _watch(self, link: _Link) -> None:
        """Ask to be told when a client can take more, while there is more."""
        # Before TLS is ready only reading takes it further.
        more = link.line.unsent or (bool(link.queue) and link.line.ready)
        if link.queue:
            self._watched[link.id] = link
        if more is not link.writing:
            link.writing = more
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if more else 0)
            self._selector.modify(link.line, wanted, link)

    def _expire(self) -> None:
        now = self._clock()
        if self._deaf_until is not None and now >= self._deaf_until:
            self._deaf_until = None
            self._selector.register(self._listener, selectors.EVENT_READ)
        for complaints in (self._complaints, self._offences):
            if summary := complaints.summary(now):
                log.warning("%s", summary)
        for link in list(self._watched.values()):
            self._expire_one(link, now)

    def _expire_one(self, link: _Link, now: float) -> None:
        if link.closing:
            if now > link.opened + GOODBYE_SECONDS:
                self._close(link, "")
        elif link.stranger:
            if now > link.opened + SHAKE_SECONDS:
                what = f"no proof of the join code within {SHAKE_SECONDS:g} s"
                self.refuse(link.id, what)
        elif not link.joined:
            if now > link.opened + HELLO_SECONDS:
                self.refuse(link.id, f"no hello within {HELLO_SECONDS:g} s")
        elif link.progress.overdue(now):
            what = f"{link.progress.size} bytes of a message in "
            what += f"{now - (link.progress.began or now):.0f} s"
            self.refuse(link.id, f"too slow: {what}")
        elif link.queue.size > self._most_queued or (
            link.queue and now > link.taken + SILENT_SECONDS
        ):
            waits = f"{link.queue.size} bytes were queued"
            self._close(link, f"it does not read; {waits}")
        elif not link.queue and link.progress.began is None:
            del self._watched[link.id]

    def _close(self, link: _Link, reason: str) -> None:
        if not (link.joined or link.closing):
            self._complain(f"{link.who} left without a hello: {reason}", logging.INFO)
        self._report(link, reason)
        del self._links[link.id]
        self._watched.pop(link.id, None)
        self._strangers.pop(link.id, None)
        self._origins[link.origin] -= 1
        if not self._origins[link.origin]:
            del self._origins[link.origin]
        self._selector.unregister(link.line)
        link.line.close()

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
        self._bell.close()

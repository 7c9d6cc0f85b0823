"""One end of a connection, from its first byte on: handshake, records, messages.

Bytes in, messages out, and bytes that are to be sent. No I/O. Nothing that reads frames
exists before the peer has proved itself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from utilities.config import MAX_PARAMETERS
from utilities.errors import TrainingError
from utilities.frames import Buffer
from utilities.handshake import NO_BIND, ClientHandshake, ServerHandshake, fresh_nonce
from utilities.joincodes import Code
from utilities.protocol import Message
from utilities.sealing import Bundle, Opener, Sealer
from utilities.wire import Inbox, Side

# A message that has begun has to come to its end: after MESSAGE_SECONDS it must have
# come at FLOOR bytes a second. Half of what a modem carries is enough for any link
# that can take part, and ends whoever sends a byte now and then.
MESSAGE_SECONDS = 10.0
FLOOR = 4096


class Session:
    """What both ends have in common."""

    def __init__(self, handshake: ClientHandshake | ServerHandshake, most: int) -> None:
        """Begin with the handshake.

        Args:
            handshake: our part of it.
            most: P, where it is known: no state may be larger.
        """
        self._handshake = handshake
        self._most = most
        self._inbox: Inbox | None = None
        self._opener: Opener | None = None
        self._sealer: Sealer | None = None
        self._failed = False

    @property
    def established(self) -> bool:
        """Return whether both ends have proved themselves."""
        return self._sealer is not None

    @property
    def run(self) -> bytes:
        """Return which run the server says that this is."""
        return self._handshake.run

    @property
    def unfinished(self) -> bool:
        """Return whether a message, or a record, has come in part."""
        begun = self._inbox is not None and self._inbox.unfinished
        return begun or (self._opener is not None and self._opener.unfinished)

    def reply(self) -> bytes:
        """Return, once, what the handshake has to send; after an error, too."""
        return self._handshake.reply()

    def seal(self, bundles: Iterable[Bundle]) -> Iterator[Buffer]:
        """Yield the bytes that carry bundles; they have to be sent in this order."""
        assert self._sealer is not None, "nobody is there yet"
        return self._sealer.seal(bundles)

    def receive(self, data: bytes | memoryview) -> Iterator[Message]:
        """Take bytes; yield the messages that they complete.

        Raises:
            ProtocolError: the peer broke a rule; from then on nothing is read.
            IncompatibleError: it speaks another version of the handshake.
            AuthenticationError: it does not have the code.
        """
        if self._failed:
            return
        try:
            rest = memoryview(data)
            if self._opener is None:
                rest = self._handshake.take(rest)
                self._establish()
            if self._opener is not None and self._inbox is not None:
                for opened in self._opener.open(rest):
                    self._inbox.feed(opened)
                    yield from self._inbox.messages()
        except TrainingError:
            self._failed = True
            raise

    def _establish(self) -> None:
        keys = self._handshake.keys
        if keys is None:
            return
        if isinstance(self._handshake, ServerHandshake):
            self._opener, self._sealer = Opener(keys.to_server), Sealer(keys.to_client)
            self._inbox = Inbox(Side.CLIENT, self._most)
        else:
            self._opener, self._sealer = Opener(keys.to_client), Sealer(keys.to_server)
            self._inbox = Inbox(Side.SERVER, self._most)


def server_session(
    code: Code, run: bytes, parameters: int, bind: bytes = NO_BIND
) -> Session:
    """Return the server's end of a new connection.

    Args:
        code: that the client has to know.
        run: 16 bytes that say which run this is.
        parameters: P; no client may send a larger state.
        bind: SHA-256 of our certificate, or zeros.
    """
    return Session(ServerHandshake(code, run, bind, fresh_nonce()), parameters)


def client_session(code: Code, bind: bytes = NO_BIND) -> Session:
    """Return the client's end of a new connection.

    Args:
        code: that the server has to know.
        bind: SHA-256 of the certificate that it has shown, or zeros.
    """
    return Session(ClientHandshake(code, bind, fresh_nonce()), MAX_PARAMETERS)


@dataclass
class Progress:
    """How a message comes in that has begun."""

    began: float | None = None  # None: there is none
    size: int = 0  # bytes so far

    def note(self, size: int, now: float, *, ended: bool, unfinished: bool) -> None:
        """Take down that bytes have come.

        Args:
            size: of them.
            now: when.
            ended: a message came to its end with them.
            unfinished: one has begun and is not complete.
        """
        if not unfinished:
            self.began = None
        elif ended or self.began is None:
            self.began, self.size = now, size
        else:
            self.size += size

    def overdue(self, now: float) -> bool:
        """Return whether it takes too long."""
        if self.began is None:
            return False
        return now > self.began + MESSAGE_SECONDS + self.size / FLOOR

"""Sockets as lines: listening, dialling, options, TLS.

The only module that imports socket and ssl. A `Line` carries bytes; a `TlsLine` carries
them encrypted, through buffers in memory, so that whoever waits for a socket need not
know about it: after `receive` nothing is left inside, and what could not be sent yet is
told by `unsent`. Who may say what is decided elsewhere.
"""

import contextlib
import hmac
import socket
import ssl
import sys
from pathlib import Path
from typing import TypeAlias

from utilities.addresses import ALL, ANY, place
from utilities.causes import FLAGS, cannot_connect, cannot_listen
from utilities.errors import AuthenticationError, ConfigError, NetworkError
from utilities.handshake import NO_BIND
from utilities.misc import Deadline, sha256

Socket: TypeAlias = socket.socket

CHUNK = 1 << 18  # bytes of one read
# Ciphertext of one read: what comes of it, with the rest of a TLS record of 16 KiB from
# before, fits into a buffer of CHUNK bytes.
CIPHERTEXT = CHUNK - (1 << 15)
PLAINTEXT = 1 << 16  # bytes that are encrypted at once; a copy of them is held
EARLY = 1 << 14  # bytes that agreeing upon keys may take, twice what anybody needs
CONNECT_SECONDS = 10.0
# Connections that the system completes before they are accepted. It drops those beyond,
# which are tried again after a second, and may have a lower limit of its own.
BACKLOG = 1024

# A machine that vanished or sleeps is found within 15 s: by probes where nothing is
# said (5 + 3 * 3 s), by the user timeout where what was said is not acknowledged. The
# latter also ends probing where it is shorter than all probes together, hence 12.
IDLE, PAUSE, PROBES, UNHEARD = 5, 3, 3, 12  # seconds, but for the number of probes
OPTIONS = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", IDLE),
    (socket.IPPROTO_TCP, "TCP_KEEPALIVE", IDLE),  # as macOS calls it
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", PAUSE),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", PROBES),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", 1000 * UNHEARD),
)
# What the systems without TCP_USER_TIMEOUT have in its place; Python has no names for
# them: TCP_RXT_CONNDROPTIME and TCP_MAXRT, both in seconds.
NAMELESS = {"darwin": 0x80, "win32": 5}


def tune(connection: socket.socket) -> None:
    """Have a connection send at once, and end where its peer has vanished."""
    options = [
        (level, getattr(socket, name), value)
        for level, name, value in OPTIONS
        if hasattr(socket, name)
    ]
    if sys.platform in NAMELESS:
        options.append((socket.IPPROTO_TCP, NAMELESS[sys.platform], UNHEARD))
    for option in options:
        # Where the peer has gone already, the first read or write will tell.
        with contextlib.suppress(OSError):
            connection.setsockopt(*option)


class Bell:
    """Something that a selector hears, rung by another thread or a signal handler."""

    def __init__(self) -> None:
        self._ear, self._button = socket.socketpair()
        for end in (self._ear, self._button):
            end.setblocking(False)

    def fileno(self) -> int:
        """Return what a selector knows it by."""
        return self._ear.fileno()

    def ring(self) -> None:
        """Wake whoever listens; harmless where nobody does any more."""
        with contextlib.suppress(OSError):
            self._button.send(b"!")

    def hear(self) -> None:
        """Take note of having been woken."""
        with contextlib.suppress(OSError):
            self._ear.recv(4096)

    def close(self) -> None:
        """Close both ends."""
        for end in (self._ear, self._button):
            end.close()


# Listening and dialling.


def listen(host: str, port: int, flags: tuple[str, str] = FLAGS) -> socket.socket:
    """Return a listening socket; ``*`` takes all addresses, IPv6 where there is one.

    Raises:
        NetworkError: the address is not ours, or the port is taken.
    """
    address = place(host, port)
    if host == ALL:
        with contextlib.suppress(NetworkError):
            if socket.has_dualstack_ipv6():
                return listen("::", port, flags)
        host = "0.0.0.0"
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
        raise NetworkError(cannot_listen(address, error, flags)) from error
    listener.setblocking(False)
    return listener


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
    tune(connection)
    return connection


# Lines.


class Line:
    """A connection that carries bytes as they are."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connected socket."""
        self._socket = connection

    @property
    def ready(self) -> bool:
        """Return whether it can carry anything yet."""
        return True

    @property
    def unsent(self) -> bool:
        """Return whether bytes that it has taken are still to be sent."""
        return False

    @property
    def bind(self) -> bytes:
        """Return the SHA-256 of the server's certificate, or zeros."""
        return NO_BIND

    def fileno(self) -> int:
        """Return what a selector knows it by."""
        return self._socket.fileno()

    def settimeout(self, seconds: float) -> None:
        """Wait at most that long from now on; 0: not at all."""
        self._socket.settimeout(seconds)

    def receive(self, buffer: memoryview) -> int:
        """Fill a buffer of CHUNK bytes as far as possible; 0: the peer has ended.

        Raises:
            BlockingIOError: nothing has come.
            OSError: the connection is broken, or time is up.
        """
        return self._socket.recv_into(buffer)

    def send(self, parts: list[memoryview]) -> int:
        """Take bytes of parts, in one segment if they fit; return how many.

        Raises:
            BlockingIOError: it takes nothing now.
            OSError: the connection is broken, or time is up.
        """
        if hasattr(self._socket, "sendmsg"):
            return self._socket.sendmsg(parts)
        return self._socket.send(joined(parts))  # Windows

    def flush(self) -> None:
        """Send what it has taken, as far as the peer takes it."""

    def finish(self) -> None:
        """End our direction."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both directions."""
        self._socket.close()


def joined(parts: list[memoryview]) -> bytes | memoryview:
    """Return the first parts as one, PLAINTEXT bytes at most."""
    if len(parts[0]) >= PLAINTEXT:
        return parts[0][:PLAINTEXT]
    together, room = [], PLAINTEXT
    for part in parts:
        together.append(part[:room])
        room -= len(together[-1])
        if not room:
            break
    return b"".join(together)


class TlsLine(Line):
    """A connection that carries bytes encrypted."""

    def __init__(
        self,
        connection: socket.socket,
        context: ssl.SSLContext,
        *,
        bind: bytes = b"",
        pin: bytes = b"",
    ) -> None:
        """Take over a connected socket; a client begins to agree upon keys.

        Args:
            connection: on which nothing was said yet.
            context: of a server or of a client.
            bind: of a server: SHA-256 of its certificate.
            pin: of a client: what the SHA-256 of the server's has to begin with.

        Raises:
            OSError: the connection is broken.
        """
        super().__init__(connection)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=bool(bind)
        )
        self._bind, self._pin = bind, pin
        self._ready = False
        self._early = 0  # bytes that came before keys were agreed upon
        self._rest = bytearray()  # encrypted, to be sent
        if not bind:
            self._agree()

    @property
    def ready(self) -> bool:
        """Return whether both ends have agreed upon keys."""
        return self._ready

    @property
    def unsent(self) -> bool:
        """Return whether bytes that it has taken are still to be sent."""
        return bool(self._rest)

    @property
    def bind(self) -> bytes:
        """Return the SHA-256 of the server's certificate; a client's once ready."""
        return self._bind

    def receive(self, buffer: memoryview) -> int:
        """Fill a buffer of CHUNK bytes as far as possible; 0: the peer has ended.

        Raises:
            BlockingIOError: nothing has come.
            AuthenticationError: it shows another certificate than expected.
            OSError: the connection is broken, or time is up.
        """
        while self.advance():
            if self._ready:
                size, ended = self._decrypted(buffer)
                self.flush()
                if size or ended:
                    return size
        return 0

    def advance(self) -> bool:
        """Take what the peer has sent, towards keys first; return whether it goes on.

        Raises:
            BlockingIOError: nothing has come.
            AuthenticationError: it shows another certificate than expected.
            OSError: the connection is broken, or time is up.
        """
        data = self._socket.recv(CIPHERTEXT if self._ready else EARLY)
        if not self._ready:
            self._early += len(data)
            if self._early > EARLY:
                raise ConnectionAbortedError("too much was said before keys")
        self._incoming.write(data)
        if data and not self._ready:
            self._agree()
        return bool(data)

    def _agree(self) -> None:
        """Go on agreeing upon keys."""
        try:
            self._tls.do_handshake()
            if not self._bind:
                self._bind = self._shown()
            self._ready = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.flush()  # says what is wrong
            raise
        self.flush()

    def _shown(self) -> bytes:
        """Return the hash of the server's certificate; before anything is said."""
        shown = sha256(self._tls.getpeercert(binary_form=True) or b"")
        if not hmac.compare_digest(shown[: len(self._pin)], self._pin):
            raise AuthenticationError(
                "the server shows another certificate than the one that its join code "
                "names: somebody sits in between, or the certificate has been replaced "
                "and the server has printed a new code"
            )
        return shown

    def _decrypted(self, buffer: memoryview) -> tuple[int, bool]:
        """Return how many bytes were decrypted, and whether no more can come."""
        size = 0
        with contextlib.suppress(ssl.SSLWantReadError):
            while size < len(buffer):
                count = self._tls.read(len(buffer) - size, buffer[size:])
                if not count:
                    return size, True
                size += int(count)
        return size, False

    def send(self, parts: list[memoryview]) -> int:
        """Take bytes of parts; return how many.

        Raises:
            BlockingIOError: it takes nothing now.
            OSError: the connection is broken, or time is up.
        """
        self.flush()
        if self._rest or not self._ready:
            raise BlockingIOError
        count = self._tls.write(joined(parts))
        self.flush()
        return count

    def flush(self) -> None:
        """Send what is encrypted, as far as the peer takes it."""
        self._rest += self._outgoing.read()
        with contextlib.suppress(BlockingIOError, InterruptedError):
            while self._rest:
                del self._rest[: self._socket.send(self._rest)]


# Certificates.


class ServerTls:
    """A server's certificate, and lines that show it."""

    def __init__(self, certificate: Path, key: Path | None) -> None:
        """Read a certificate and its key, both in PEM form.

        Args:
            certificate: file; our own certificate stands first.
            key: file; None: it stands in the same file.

        Raises:
            ConfigError: a file cannot be read, or the two do not fit.
        """
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Sessions are not resumed: who returns proves itself anew.
        self._context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
        self._context.num_tickets = 0

        def locked() -> str:
            raise ConfigError(
                f"--tlsKey: {key or certificate} asks for a pass phrase; "
                "this program takes keys without one"
            )

        try:
            self._context.load_cert_chain(certificate, key, locked)
            text = certificate.read_text("ascii", "replace")
        except OSError as error:  # an ssl.SSLError is one
            what = error.strerror or str(error)
            raise ConfigError(
                f"--tlsCert: cannot use {certificate}"
                f"{'' if key is None else f' with {key}'}: {what}"
            ) from error
        begin = text.index(ssl.PEM_HEADER)
        end = text.index(ssl.PEM_FOOTER, begin) + len(ssl.PEM_FOOTER)
        self.bind = sha256(ssl.PEM_cert_to_DER_cert(text[begin:end]))

    def line(self, connection: socket.socket) -> Line:
        """Return a line over an accepted connection."""
        return TlsLine(connection, self._context, bind=self.bind)


def positive(end: Deadline) -> float:
    """Return the seconds that are left, for a time limit.

    Raises:
        TimeoutError: there are none.
    """
    if not (left := end.left()):
        raise TimeoutError("timed out")
    return left


def client_line(connection: socket.socket, pin: bytes, end: Deadline) -> Line:
    """Return a line to a server, waiting for TLS if its code asks for that.

    Args:
        connection: to the server.
        pin: beginning of the SHA-256 of its certificate; empty: no TLS.
        end: when it has to be done.

    Raises:
        AuthenticationError: it shows another certificate.
        NetworkError: it does not speak TLS.
        OSError: the connection is broken, or time is up.
    """
    if not pin:
        return Line(connection)
    try:
        line = TlsLine(connection, client_context(), pin=pin)
        while not line.ready:
            line.settimeout(positive(end))
            if not line.advance():
                raise ConnectionResetError
    except ssl.SSLError as error:
        raise NetworkError(
            "the server does not speak TLS, though its join code says so; is it "
            f"started with the same --tlsCert? ({error.reason or error})"
        ) from error
    return line


def client_context() -> ssl.SSLContext:
    """Return how a client speaks TLS: a pin decides, no authority and no name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context

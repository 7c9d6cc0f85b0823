"""Proof of the shared secret, before anything else is read. No I/O.

    server -> client  greeting  90 bytes  magic 6, version u16, flags u16,
                                          nonce 32, run 16, bind 32
    client -> server  answer    72 bytes  magic 6, version u16, nonce 32, proof 32
    server -> client  verdict   34 bytes  status u16, proof 32

Integers are little-endian. A proof is HMAC-SHA256(secret, role + SHA-256(all bytes so
far, without the proof)): both nonces are in it, so nothing can be replayed, and the
role, so nothing can be reflected. `bind` is the SHA-256 of the server's certificate,
zeros without TLS: who sits between two TLS connections changes it. The client proves
itself first. One algorithm, one version: nothing is negotiated.

The keys of what follows come from the secret and all bytes of greeting and answer, one
for each direction; `utilities.sealing` uses them.
"""

import abc
import enum
import hmac
import secrets
import struct
from dataclasses import dataclass, field

from utilities.errors import AuthenticationError, IncompatibleError, ProtocolError
from utilities.joincodes import Code
from utilities.misc import sha256

MAGIC = b"ESNET\0"
VERSION = 1
GREETING = struct.Struct("<6sHH32s16s32s")
ANSWER = struct.Struct("<6sH32s32s")
VERDICT = struct.Struct("<H32s")
PROOF = 32  # bytes at the end of answer and verdict
NONCE = 32
RUN = 16
NO_BIND = bytes(32)
OPEN_TO_ALL = 1  # flag of the greeting: the secret is the one that everybody knows
CLIENT, SERVER = b"es1 client", b"es1 server"  # roles
TO_SERVER, TO_CLIENT = b"es1 c2s", b"es1 s2c"  # directions


class Status(enum.IntEnum):
    """What a server thinks of an answer."""

    ACCEPTED = 0
    WRONG_CODE = 1


@dataclass(frozen=True)
class Keys:
    """Keys of what is said after the handshake."""

    to_server: bytes = field(repr=False)
    to_client: bytes = field(repr=False)


def fresh_nonce() -> bytes:
    """Return a nonce that has never been used."""
    return secrets.token_bytes(NONCE)


def proof(secret: bytes, role: bytes, said: bytes) -> bytes:
    """Return what proves the secret, in a role, for all that was said."""
    return hmac.digest(secret, role + sha256(said), "sha256")


def keys_of(secret: bytes, said: bytes) -> Keys:
    """Return the keys that greeting and answer lead to."""
    return Keys(proof(secret, TO_SERVER, said), proof(secret, TO_CLIENT, said))


class Handshake(abc.ABC):
    """One end's part; takes bytes as they arrive and holds one structure at most."""

    def __init__(self, code: Code, bind: bytes) -> None:
        """Begin; `bind` is what this end knows of the server's certificate."""
        self._secret = code.secret
        self._open = code.open
        self._bind = bind
        self._said = b""  # by both, as far as it is part of proofs
        self._pending = bytearray()
        self._due: struct.Struct | None = None  # what is read next
        self._reply = bytearray()
        self.keys: Keys | None = None  # once both have proved themselves
        self.run = b""

    def reply(self) -> bytes:
        """Return, once, what is to be sent now."""
        reply = bytes(self._reply)
        self._reply.clear()
        return reply

    def take(self, data: memoryview) -> memoryview:
        """Take bytes of the peer; return those that come after the handshake.

        Raises:
            ProtocolError: the peer does not speak this protocol.
            IncompatibleError: it speaks another version of it.
            AuthenticationError: it does not have the code.
        """
        while self._due is not None and len(data):
            missing = self._due.size - len(self._pending)
            self._pending += data[:missing]
            data = data[missing:]
            self._look()
            if len(self._pending) < self._due.size:
                break
            whole = bytes(self._pending)
            self._pending.clear()
            self._take(whole)
        return data

    def _look(self) -> None:
        """Refuse what cannot become a structure of ours, as early as possible."""
        begun = bytes(self._pending[: len(MAGIC)])
        if self._due is not VERDICT and not MAGIC.startswith(begun):
            raise ProtocolError(
                "handshake: it does not speak this program's protocol: expected "
                f"{MAGIC!r}, got {begun!r}"
            )

    @abc.abstractmethod
    def _take(self, whole: bytes) -> None:
        """Take the structure that was due."""


class ServerHandshake(Handshake):
    """The server's part."""

    def __init__(self, code: Code, run: bytes, bind: bytes, nonce: bytes) -> None:
        """Greet a client.

        Args:
            code: whose secret it has to prove.
            run: 16 bytes that say which run this is.
            bind: SHA-256 of our certificate, or zeros.
            nonce: 32 bytes that were never used.
        """
        super().__init__(code, bind)
        flags = OPEN_TO_ALL if self._open else 0
        self._said = GREETING.pack(MAGIC, VERSION, flags, nonce, run, bind)
        self._reply += self._said
        self.run = run
        self._due = ANSWER

    def _take(self, whole: bytes) -> None:
        self._due = None
        _, version, _, claimed = ANSWER.unpack(whole)
        if version != VERSION:
            raise ProtocolError(
                f"handshake: expected version {VERSION}, got {version}: "
                "run the same version of the program on both machines"
            )
        said = self._said + whole[:-PROOF]
        if not hmac.compare_digest(claimed, proof(self._secret, CLIENT, said)):
            self._reply += VERDICT.pack(Status.WRONG_CODE, bytes(PROOF))
            raise AuthenticationError("it does not have this server's join code")
        self._said += whole
        status = struct.pack("<H", Status.ACCEPTED)
        proved = proof(self._secret, SERVER, self._said + status)
        self._reply += status + proved
        self.keys = keys_of(self._secret, self._said)


class ClientHandshake(Handshake):
    """The client's part."""

    def __init__(self, code: Code, bind: bytes, nonce: bytes) -> None:
        """Wait for the greeting.

        Args:
            code: whose secret both have to prove.
            bind: SHA-256 of the certificate that the server has shown, or zeros.
            nonce: 32 bytes that were never used.
        """
        super().__init__(code, bind)
        self._nonce = nonce
        self._due = GREETING

    def _take(self, whole: bytes) -> None:
        if self._due is GREETING:
            self._answer(whole)
        else:
            self._judge(whole)

    def _answer(self, greeting: bytes) -> None:
        _, version, flags, _, run, bind = GREETING.unpack(greeting)
        self._due = None  # after an error nothing more is read
        if version != VERSION:
            raise IncompatibleError(
                f"the server speaks version {version} of the handshake, this program "
                f"{VERSION}: run the same version of the program on both machines"
            )
        self._agree(flags)
        if not hmac.compare_digest(bind, self._bind):
            raise AuthenticationError(
                "the server names another certificate than it has shown: somebody "
                "sits in between, or one end uses TLS and the other does not"
            )
        nonce = struct.pack("<6sH32s", MAGIC, VERSION, self._nonce)
        self._said = greeting + nonce
        answer = nonce + proof(self._secret, CLIENT, self._said)
        self._said += answer[-PROOF:]
        self._reply += answer
        self.run = run
        self._due = VERDICT

    def _agree(self, flags: int) -> None:
        """Refuse a server that asks for a code where we have none, or the reverse."""
        if flags & OPEN_TO_ALL and not self._open:
            raise AuthenticationError(
                "the server asks nobody for a code, so it cannot prove that it is the "
                "one that yours is for; if it was started with --noAuth and you trust "
                "it, add --noAuth here"
            )
        if self._open and not flags & OPEN_TO_ALL:
            raise AuthenticationError(
                "the server asks for its join code; run this without --noAuth"
            )

    def _judge(self, verdict: bytes) -> None:
        self._due = None
        status, proved = VERDICT.unpack(verdict)
        if status == Status.WRONG_CODE:
            raise AuthenticationError("the server does not accept the join code")
        expected = proof(self._secret, SERVER, self._said + verdict[:-PROOF])
        if status != Status.ACCEPTED or not hmac.compare_digest(proved, expected):
            raise AuthenticationError(
                "the server cannot prove that it has the join code: it is not the "
                "one that the code is for"
            )
        self.keys = keys_of(self._secret, self._said)

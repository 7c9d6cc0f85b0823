"""Who may take part: from options to join codes, on both ends.

A server without other orders makes a secret at its first start and keeps it below its
runs. A client takes the code from what was typed, --tokenFile, the environment, or what
it has kept for that server; else it asks once, and keeps what proves to be right.
"""

import getpass
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from utilities.addresses import place
from utilities.clientoptions import ClientOptions
from utilities.codefiles import (
    ENVIRONMENT,
    NAME,
    from_environment,
    keep_code,
    kept_code,
    kept_file,
    read_file,
    server_code,
)
from utilities.communication import Gate
from utilities.connection import Connection
from utilities.errors import AuthenticationError, ConfigError, NetworkError
from utilities.handshake import RUN, proof
from utilities.joincodes import OPEN, PIN_BYTES, Code, read_code
from utilities.lines import ServerTls, connect
from utilities.machine import config_folder
from utilities.options import ServerOptions

TRIES = 3  # to type a code, and to be accepted with one that was right before


# The server.


def tls_of(options: ServerOptions) -> ServerTls | None:
    """Return the certificate that a server shows, if it uses TLS.

    Raises:
        ConfigError: certificate or key cannot be used.
    """
    if options.tls_cert is None:
        return None
    return ServerTls(options.tls_cert, options.tls_key)


def secret_file(options: ServerOptions) -> Path:
    """Return where the server keeps its secret."""
    return options.token_file or options.runs / NAME


def secret_origin(options: ServerOptions) -> str:
    """Return where the server's secret comes from, in words."""
    if options.token_file is None and from_environment(os.environ) is not None:
        return f"from the variable {ENVIRONMENT}"
    return f"kept in {secret_file(options)}"


def known_code(options: ServerOptions) -> Code | None:
    """Return the code of a server, None if it has to be made.

    Raises:
        AuthenticationError: the secret cannot be read.
        ConfigError: what is given as a code is none.
    """
    if options.no_auth:
        return OPEN
    if options.token_file is None:
        code = from_environment(os.environ)
        if code is not None:
            return code
    path = secret_file(options)
    return read_file(path) if path.exists() else None


def gate_of(
    options: ServerOptions, known: Code | None, tls: ServerTls | None, run: str
) -> Gate:
    """Return what clients have to prove.

    Args:
        options: of the server.
        known: its code, None to make one.
        tls: its certificate.
        run: what tells the run from others.

    Raises:
        AuthenticationError: the secret cannot be kept.
    """
    code = known or server_code(secret_file(options))
    code = replace(code, pin=tls.bind[:PIN_BYTES] if tls else b"")
    return Gate(code, proof(code.secret, b"es1 run", run.encode())[:RUN], tls)


# A client.


class Door:
    """How a client gets into a server, the first time and again."""

    def __init__(
        self, options: ClientOptions, host: str, port: int, say: Callable[[str], None]
    ) -> None:
        """Prepare; nothing is read, asked or connected yet.

        Args:
            options: of the client.
            host: of the server.
            port: of the server.
            say: tells the user something.
        """
        self._options = options
        self._host, self._port = host, port
        self._address = place(host, port)
        self._say = say
        self._folder = config_folder()
        self._code = OPEN
        self._run = b""  # that the server was at
        self._refused = 0

    def first(self) -> Connection:
        """Return a connection to the server; a code that is missing is asked for.

        Raises:
            AuthenticationError: there is no code, or it is wrong.
            ConfigError: what is given as a code is none.
            IncompatibleError: the server speaks another version of the handshake.
            NetworkError: the server cannot be reached.
        """
        code, source = self._find()
        if code is None:
            connect(self._host, self._port).close()  # a wrong address comes first
            return self._asked()
        try:
            connection = self._connected(code)
        except AuthenticationError as error:
            if source != "kept" or not _terminal():
                raise AuthenticationError(self._told(error, source)) from error
            self._say(f"The code kept for {self._address} is not right any more.")
            return self._asked()
        if source == "typed":
            self._keep(code)
        return connection

    def _find(self) -> tuple[Code | None, str]:
        """Return the code and where it was found."""
        options = self._options
        if options.no_auth:
            return OPEN, "none"
        if options.code is not None:
            return options.code, "typed"
        if options.token_file is not None:
            return read_file(options.token_file), "file"
        if (code := from_environment(os.environ)) is not None:
            return code, "environment"
        return kept_code(self._folder, self._address), "kept"

    def _told(self, error: AuthenticationError, source: str) -> str:
        origin = "; the server prints its own at its start"
        if source == "file":
            origin = f" (from {self._options.token_file})"
        elif source == "environment":
            origin = f" (from {ENVIRONMENT})"
        elif source == "kept" and self._folder is not None:
            path = kept_file(self._folder, self._address)
            origin = f" (kept in {path}; delete that file to be asked again)"
        return f"{self._address}: {error}{origin}"

    def _asked(self) -> Connection:
        """Return a connection with a code that the user types."""
        if not _terminal():
            raise AuthenticationError(
                f"{self._address} asks for a join code, and there is no terminal to "
                "ask for it: use CODE@HOST:PORT (others see command lines), "
                f"--tokenFile or the variable {ENVIRONMENT}; the server prints its code"
            )
        tries = 0
        while True:
            try:
                code = read_code(self._typed())
                connection = self._connected(code)
            except (AuthenticationError, ConfigError) as error:
                tries += 1
                if tries == TRIES:
                    raise
                self._say(f"Not this one: {error}.")
                continue
            self._keep(code)
            return connection

    def _typed(self) -> str:
        try:
            return getpass.getpass(f"Join code of {self._address}: ")
        except EOFError as error:
            raise ConfigError("no join code was typed") from error

    def _keep(self, code: Code) -> None:
        keep_code(self._folder, self._address, code)

    def _connected(self, code: Code) -> Connection:
        connection = Connection(connect(self._host, self._port), code)
        if self._run not in (b"", connection.run):
            self._say("The server is at another run now.")
        self._code, self._run = code, connection.run
        return connection

    def again(self) -> Connection:
        """Return a connection with the code that was right before.

        Raises:
            AuthenticationError: it has not been right several times in a row. Once
                need not mean anything: whoever sits in between could say so.
            IncompatibleError: the server speaks another version of the handshake.
            NetworkError: the server cannot be reached, or has refused the code.
        """
        try:
            connection = self._connected(self._code)
        except AuthenticationError as error:
            self._refused += 1
            if self._refused >= TRIES:
                raise AuthenticationError(f"{self._address}: {error}") from error
            raise NetworkError(f"{self._address}: {error}") from error
        self._refused = 0
        return connection


def _terminal() -> bool:
    """Return whether somebody can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()

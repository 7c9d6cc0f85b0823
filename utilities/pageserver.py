"""The connections of the live page: threads that read one request and write its answer.

Owns: bytes, threads and limits. Does not own what is answered (`page`).

Nothing here may slow or end a training in the same process: threads are daemons, their
number is bounded, a request has to come whole, soon and short, whoever does not read
what he gets is cut off, and an error of one connection ends that connection alone.
"""

import contextlib
import io
import logging
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from utilities.causes import FLAGS
from utilities.errors import NetworkError
from utilities.lines import listen
from utilities.page import HEADERS, Answer, Page, refusal

MOST_CONNECTIONS = 48  # at once; a browser holds one for each tab that is looked at
REQUEST_BYTES = 8192
REQUEST_SECONDS = 5.0  # that a request may take to come
POLL_SECONDS = 0.2  # between two looks whether it ends
WRITE_SECONDS = 10.0  # that a piece of an answer may take to go
_PIECE = 4096

log = logging.getLogger(__name__)


class _Handler(BaseHTTPRequestHandler):
    """One connection: one request, one answer."""

    server: "PageServer"
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # an answer always has headers
    server_version = "page"
    sys_version = ""

    def handle(self) -> None:
        """Read the request as a whole, then answer it."""
        head = self._head()
        if head is None:
            return
        self.close_connection = True
        self.connection.settimeout(WRITE_SECONDS)
        self.rfile = io.BytesIO(head)
        self.raw_requestline = self.rfile.readline()
        if self.parse_request():
            self._answer()

    def _head(self) -> bytes | None:
        """Return a request up to the line that ends it; None: too long, too late."""
        end, head = time.monotonic() + REQUEST_SECONDS, b""
        while b"\r\n\r\n" not in head:
            left = end - time.monotonic()
            if left <= 0 or len(head) > REQUEST_BYTES:
                return None
            self.connection.settimeout(left)
            piece = self.connection.recv(_PIECE)
            if not piece:
                return None
            head += piece
        return head

    def _answer(self) -> None:
        page = self.server.page
        answer = page.answer(self.command, self.path, self.headers.get("Host"))
        if isinstance(answer, Answer):
            self._write(answer)
            return
        self._start(200, answer.kind, {})
        for piece in answer.pieces if self.command != "HEAD" else ():
            self.wfile.write(piece)

    def _write(self, answer: Answer) -> None:
        length = {"Content-Length": str(len(answer.body))}
        self._start(answer.status, answer.kind, {**answer.headers, **length})
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        """Refuse what is no request, in plain words and with our headers."""
        self._write(refusal(code, message or "this is no request"))

    def _start(self, status: int, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: requests are no news."""


class PageServer(ThreadingHTTPServer):
    """A page at an address; `close` ends it and its connections."""

    daemon_threads = True
    request_queue_size = 32

    def __init__(
        self, page: Page, host: str, port: int, flags: tuple[str, str] = FLAGS
    ) -> None:
        """Listen; nobody is answered before `start` or `serve_forever`.

        Args:
            page: what is answered.
            host: address to listen on.
            port: 0: any free one.
            flags: options with which the user chooses another host or port.

        Raises:
            NetworkError: the address is not ours, or the port is taken.
        """
        self.page = page
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        try:
            listener = listen(host, port, flags)
        except NetworkError as error:
            raise NetworkError(f"the page: {error}") from error
        super().__init__((host, port), _Handler, bind_and_activate=False)
        self.socket.close()  # it knows IPv4 only
        self.socket = listener
        self.server_address = listener.getsockname()
        self.port = int(listener.getsockname()[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, unless there are too many."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system gives no more threads
            self._places.release()
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, then give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """End the connection; say what went wrong unless it was the other side."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            log.warning("page: a request failed: %r", error)

    def start(self) -> None:
        """Answer from now on, in a thread."""
        threading.Thread(
            target=self.serve_forever, args=(POLL_SECONDS,), name="page", daemon=True
        ).start()

    def stop(self) -> None:
        """Have `serve_forever` return soon; it may be what a signal interrupts."""
        self.page.closing.set()
        threading.Thread(target=self.shutdown, daemon=True).start()

    def close(self) -> None:
        """Take no more requests and have streams end."""
        self.page.closing.set()
        self.shutdown()
        self.server_close()


@contextlib.contextmanager
def page_open(page: Page, host: str, port: int) -> Iterator[PageServer]:
    """Serve a page beside a run while the context is open.

    Raises:
        NetworkError: the address is not ours, or the port is taken.
    """
    server = PageServer(page, host, port, ("--pageHost", "--page"))
    server.start()
    try:
        yield server
    finally:
        server.close()

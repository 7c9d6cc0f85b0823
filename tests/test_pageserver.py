"""The page over real sockets: limits, refusals, and that the end is an end."""

import contextlib
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes_under_test import PATIENCE, until
from tests.small_runs import trained_run
from utilities import pageserver
from utilities.errors import NetworkError
from utilities.page import HEADERS, Page
from utilities.pageserver import PageServer, page_open
from utilities.runs import RunStore


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    with trained_run(tmp_path):
        page = Page(RunStore(tmp_path), time.monotonic, known=lambda _run: ())
        with page_open(page, "127.0.0.1", 0) as server:
            yield server


def ask(
    server: PageServer, target: str, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()


def raw(server: PageServer, request: bytes) -> bytes:
    """Send bytes and return all that comes back until the connection closes."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_the_page_and_its_data_are_served_with_all_headers(server: PageServer) -> None:
    for target in ("/", "/page.js", "/runs", "/picture?run=0", "/nothing"):
        answer, body = ask(server, target)
        assert answer.status == (404 if target == "/nothing" else 200)
        assert body
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert answer.headers["Connection"] == "close"
        assert "Python" not in answer.headers["Server"]
    _, body = ask(server, "/runs")
    assert json.loads(body)["newest"] == 0


def test_a_head_has_no_body(server: PageServer) -> None:
    for target in ("/", "/live?run=0"):
        answer, body = ask(server, target, "HEAD")
        assert (answer.status, body) == (200, b"")


def test_other_methods_and_names_are_refused(server: PageServer) -> None:
    assert ask(server, "/", "POST")[0].status == 405
    assert ask(server, "/runs", Host="evil.example")[0].status == 421


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",  # without a Host
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",  # how TLS begins
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    ],
)
def test_what_is_no_request_is_refused_with_all_headers(
    request_: bytes, server: PageServer
) -> None:
    answer = raw(server, request_)

    status = int(answer.split(b" ")[1])
    assert 400 <= status < 600
    for name in HEADERS:
        assert f"{name}: ".encode() in answer
    assert b"<" not in answer


def test_a_request_that_is_too_long_is_cut_off(server: PageServer) -> None:
    with contextlib.suppress(ConnectionError):
        assert raw(server, b"GET / HTTP/1.1\r\nA: " + b"a" * 100_000) == b""


def test_a_request_that_does_not_come_is_not_waited_for(
    server: PageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pageserver, "REQUEST_SECONDS", 0.05)
    for beginning in (b"", b"GET / HTTP/1.1\r\nHost: loc"):
        assert raw(server, beginning) == b""


def test_a_stream_lives_until_the_server_closes(server: PageServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/live?run=0")
        answer = connection.getresponse()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = iter(answer.readline, b"")
        assert next(lines) == b"retry: 2000\n"
        assert any(line == b"event: head\n" for line in lines)
        server.close()
        for _ in lines:  # what was on its way
            pass
    with pytest.raises(OSError, match=r"."):
        ask(server, "/")


def streams(server: PageServer, count: int) -> list[Any]:
    connections = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        connection.sendall(b"GET /live?run=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        connections.append(connection)
    return connections


def test_connections_are_bounded_and_places_come_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pageserver, "MOST_CONNECTIONS", 3)
    with trained_run(tmp_path):
        page = Page(RunStore(tmp_path), time.monotonic, known=lambda _run: ())
        with page_open(page, "127.0.0.1", 0) as server:
            held = streams(server, 3)
            assert raw(server, b"") == b""  # turned away
            for connection in held:
                connection.close()
            # A thread learns that nobody reads as it has something to tell.
            config = tmp_path / "0" / "config.json"
            content = config.read_text()
            last = [0.0]

            def answered() -> bool:
                last[0] += 0.001
                config.write_text(
                    content.replace('"sigma": 0.02', f'"sigma": {last[0]}')
                )
                with contextlib.suppress(OSError, http.client.HTTPException):
                    return ask(server, "/")[0].status == 200
                return False

            until(answered, "a free place")


def test_an_error_of_one_request_ends_no_other(
    server: PageServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(server.page, "answer", fail)
        with caplog.at_level(logging.WARNING):
            host = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
            assert raw(server, host) == b""
        assert "a request failed: ZeroDivisionError('a defect')" in caplog.text
    assert ask(server, "/")[0].status == 200


def test_where_there_are_no_more_threads_one_is_turned_away(
    server: PageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(pageserver.MOST_CONNECTIONS + 1):
            assert raw(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") in (b"",)
    assert ask(server, "/")[0].status == 200


def test_a_port_that_is_taken_is_said(server: PageServer) -> None:
    with pytest.raises(NetworkError, match=rf"^the page: .*{server.port}.* --port"):
        PageServer(server.page, "127.0.0.1", server.port)


def test_beside_a_run_it_is_the_pages_option_that_is_named(server: PageServer) -> None:
    taken = page_open(server.page, "127.0.0.1", server.port)
    with pytest.raises(NetworkError, match="choose another with --page "), taken:
        pass


def test_a_page_may_listen_on_ipv6(tmp_path: Path) -> None:
    page = Page(RunStore(tmp_path), time.monotonic)
    try:
        opened = page_open(page, "::1", 0)
        with opened as server:
            connection = http.client.HTTPConnection(
                "::1", server.port, timeout=PATIENCE
            )
            with contextlib.closing(connection):
                connection.request("GET", "/runs")
                assert connection.getresponse().status == 200
    except NetworkError:
        pytest.skip("this machine has no IPv6")


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    before = threading.active_count()
    page = Page(RunStore(tmp_path), time.monotonic)
    with page_open(page, "127.0.0.1", 0) as server:
        assert ask(server, "/")[0].status == 200

    until(lambda: threading.active_count() == before, "the end of all threads")

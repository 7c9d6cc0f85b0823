"""Options of sockets, and how soon a machine that vanished is missed."""

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import CERTIFICATE, PATIENCE, certificate
from utilities import lines
from utilities.errors import AuthenticationError, NetworkError
from utilities.lines import (
    CHUNK,
    Line,
    ServerTls,
    TlsLine,
    client_context,
    client_line,
    positive,
    tune,
)
from utilities.misc import Deadline, sha256

SCRIPT = Path(__file__).resolve().parent / "vanishing.py"


# Machines that vanish.


class Recorder:
    """A socket that takes options down; an old system knows not all of them."""

    def __init__(self, unknown: tuple[int, ...] = ()) -> None:
        self.options: dict[tuple[int, int], int] = {}
        self._unknown = unknown

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if option in self._unknown:
            raise OSError("Protocol not available")
        self.options[level, option] = value


def tuned(unknown: tuple[int, ...] = ()) -> dict[tuple[int, int], int]:
    recorder: Any = Recorder(unknown)
    tune(recorder)
    found: dict[tuple[int, int], int] = recorder.options
    return found


@pytest.mark.parametrize(
    ("platform", "names", "nameless"),
    [
        ("linux", {"TCP_KEEPIDLE": 4, "TCP_USER_TIMEOUT": 18}, None),
        ("darwin", {"TCP_KEEPALIVE": 16}, 0x80),
        ("win32", {"TCP_KEEPIDLE": 3}, 5),
    ],
)
def test_each_system_is_asked_for_what_it_has(
    platform: str,
    names: dict[str, int],
    nameless: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for _, name, _ in lines.OPTIONS[2:]:
        monkeypatch.delattr(socket, name, raising=False)
    known = {**names, "TCP_KEEPINTVL": 101, "TCP_KEEPCNT": 102}
    for name, number in known.items():
        monkeypatch.setattr(socket, name, number, raising=False)
    tcp, found = socket.IPPROTO_TCP, tuned()

    assert found[socket.SOL_SOCKET, socket.SO_KEEPALIVE] == 1
    assert found[tcp, socket.TCP_NODELAY] == 1
    idle = found[tcp, known.get("TCP_KEEPIDLE") or known["TCP_KEEPALIVE"]]
    silent = idle + found[tcp, 101] * found[tcp, 102]
    assert silent < 15, "seconds, where nothing is said"
    unheard = found[tcp, nameless] if nameless else found[tcp, 18] / 1000
    assert unheard < 15, "seconds, where something was said"
    assert idle + found[tcp, 101] * (found[tcp, 102] - 1) < unheard < silent
    assert len(found) == 2 + 3 + 1


def test_what_a_system_does_not_know_is_left_out() -> None:
    everything = tuned()
    some = tuned((socket.SO_KEEPALIVE, socket.TCP_NODELAY))

    assert len(some) < len(everything)
    assert some.items() <= everything.items()


def may_unshare() -> bool:
    """Return whether this user may have a network of its own (Linux)."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    words = ["unshare", "--map-root-user", "--net", "ip", "link", "add", "x0"]
    words += ["type", "veth", "peer", "name", "x1"]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


@pytest.mark.slow
def test_a_machine_that_vanishes_is_missed_within_15_seconds_on_both_ends() -> None:
    if not may_unshare():
        pytest.skip("a network namespace with a cable is not permitted here")
    ended = subprocess.run(
        ["unshare", "--map-root-user", "--net", sys.executable, str(SCRIPT)],
        check=False,
        capture_output=True,
        timeout=120,
        encoding="utf-8",
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    print(f"\nmissed after {found}")

    for end in ("server", "client"):
        assert found[end].keys() == {"quiet", "spoken to"}
        for seconds in found[end].values():
            assert 5 < seconds <= 15.5, "not by an error of its own, and in time"


# TLS.


class Pair:
    """Two ends of a connection, in one thread."""

    def __init__(self, pin: bytes | None = None) -> None:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        tls = certificate()
        self.server = tls.line(ours)
        self.client = TlsLine(
            theirs, client_context(), pin=tls.bind[:19] if pin is None else pin
        )
        self.buffer = memoryview(bytearray(CHUNK))

    def receive(self, line: Line) -> bytes | None:
        """Return what has come, None if nothing has."""
        try:
            return bytes(self.buffer[: line.receive(self.buffer)])
        except BlockingIOError:
            return None

    def agree(self) -> None:
        for _ in range(20):
            self.receive(self.server)
            self.receive(self.client)
        assert self.server.ready
        assert self.client.ready

    def close(self) -> None:
        self.server.close()
        self.client.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


def test_both_know_the_certificate_once_they_have_agreed(pair: Pair) -> None:
    assert not pair.client.ready
    assert pair.client.bind == b""
    pair.agree()

    text = CERTIFICATE.read_text("ascii")
    begin, end = text.index("-----BEGIN CERT"), text.index("-----END CERT")
    der = ssl.PEM_cert_to_DER_cert(text[begin : end + len(ssl.PEM_FOOTER)])
    assert pair.client.bind == pair.server.bind == sha256(der)


def test_old_versions_of_tls_are_refused_on_both_ends() -> None:
    assert client_context().minimum_version is ssl.TLSVersion.TLSv1_2
    tls: Any = certificate()
    assert tls._context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_nothing_is_taken_before_keys_are_agreed_upon(pair: Pair) -> None:
    for line in (pair.client, pair.server):
        with pytest.raises(BlockingIOError):
            line.send([memoryview(b"early")])
    pair.agree()

    assert pair.client.send([memoryview(b"now")]) == 3
    assert pair.receive(pair.server) == b"now"


def test_nothing_is_left_inside_after_a_read(pair: Pair) -> None:
    # A selector that waits for the socket would never tell of what is left inside.
    pair.agree()
    sent, received, most = 0, 0, 0
    while received < 10 << 20:
        with contextlib.suppress(BlockingIOError):
            sent += pair.client.send([memoryview(bytes(CHUNK))])
        if sent - received > CHUNK // 2 or sent >= 10 << 20:
            data = pair.receive(pair.server)
            if data is not None:
                received += len(data)
                most = max(most, len(data))
            inside: Any = pair.server
            assert inside._tls.pending() == 0
            with pytest.raises(ssl.SSLWantReadError):
                inside._tls.read(1)

    assert CHUNK // 4 < most <= CHUNK


def test_what_a_peer_does_not_take_is_held_once_and_sent_later(pair: Pair) -> None:
    pair.agree()
    taken = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            taken += pair.server.send([memoryview(bytes(CHUNK))])
    inside: Any = pair.server
    assert pair.server.unsent
    assert len(inside._rest) < 2 * lines.PLAINTEXT, "however much there is to send"
    received = 0
    while received < taken:
        received += len(pair.receive(pair.client) or b"")
        pair.server.flush()

    assert received == taken
    assert not pair.server.unsent


def test_an_end_is_told_as_one(pair: Pair) -> None:
    pair.agree()
    pair.client.send([memoryview(b"last words")])
    pair.client.finish()

    assert pair.receive(pair.server) == b"last words"
    assert pair.receive(pair.server) == b""
    pair.server.send([memoryview(b"still here")])
    assert pair.receive(pair.client) == b"still here"


def test_a_peer_that_ends_tls_itself_has_ended(pair: Pair) -> None:
    pair.agree()
    inside: Any = pair.client
    with pytest.raises(ssl.SSLWantReadError):
        inside._tls.unwrap()
    inside.flush()

    assert pair.receive(pair.server) == b""


def test_another_certificate_is_refused_before_anything_is_said() -> None:
    pair = Pair(pin=b"another certificate"[:19])
    with pytest.raises(AuthenticationError, match="shows another certificate"):
        pair.agree()
    # The client's part of the keys has not left it: the server has none.
    pair.receive(pair.server)
    assert not pair.server.ready
    pair.close()


def test_one_byte_of_the_hash_is_enough_to_tell() -> None:
    pin = bytearray(certificate().bind[:19])
    pin[18] ^= 1
    pair = Pair(pin=bytes(pin))
    with pytest.raises(AuthenticationError):
        pair.agree()
    pair.close()


def test_a_client_does_not_wait_for_ever_for_tls() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        end = Deadline.after(0.1, time.monotonic)
        with pytest.raises(TimeoutError):
            client_line(theirs, b"p" * 19, end)


def test_a_server_that_hangs_up_instead_of_speaking_tls_is_told() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        hanging = threading.Timer(0.05, ours.close)
        hanging.start()
        end = Deadline.after(PATIENCE, time.monotonic)
        with pytest.raises(ConnectionError):
            client_line(theirs, b"p" * 19, end)
        hanging.join()


def test_a_server_that_speaks_something_else_is_told() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"ESNET\0 and so on")
        end = Deadline.after(PATIENCE, time.monotonic)
        with pytest.raises(NetworkError, match="does not speak TLS"):
            client_line(theirs, b"p" * 19, end)


def test_a_certificate_may_have_its_key_in_a_file_of_its_own(tmp_path: Path) -> None:
    whole = CERTIFICATE.read_text("ascii")
    begin = whole.index("-----BEGIN PRIVATE")
    cert, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    cert.write_text(whole[:begin], "ascii")
    key.write_text(whole[begin:], "ascii")

    assert ServerTls(cert, key).bind == certificate().bind


def test_time_that_is_up_is_told() -> None:
    now = [5.0]
    end = Deadline.after(2.0, lambda: now[0])
    assert positive(end) == 2.0
    now[0] = 7.0
    with pytest.raises(TimeoutError, match="timed out"):
        positive(end)

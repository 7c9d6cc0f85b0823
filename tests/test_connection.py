"""Listening, connecting and a client's connection, over real loopback sockets."""

import contextlib
import errno
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from tests.loopback import (
    BEGIN,
    BYE,
    CODE,
    HELLO,
    HTTP,
    LARGE,
    PATIENCE,
    RESULT,
    WELCOME,
    Bench,
    Peer,
    Served,
    in_bytes,
)
from utilities import connection as connection_module
from utilities import sessions
from utilities.connection import Connection
from utilities.errors import NetworkError, ProtocolError
from utilities.events import Joined, Left, Received
from utilities.lines import connect, listen
from utilities.protocol import Begin, Message, State, TokenBatch, Welcome
from utilities.sealing import bundled
from utilities.wire import encode


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


# Listening.


def refusal(host: str, port: int) -> str:
    with pytest.raises(NetworkError) as caught:
        listen(host, port)
    return str(caught.value)


def test_a_port_that_is_taken_is_said_with_the_way_out(bench: Bench) -> None:
    message = refusal("127.0.0.1", bench.port)

    assert f"cannot listen on 127.0.0.1:{bench.port}: the port is taken" in message
    assert "--port" in message


def test_an_address_of_another_machine_is_said_with_the_way_out() -> None:
    message = refusal("192.0.2.7", 0)

    assert message == (
        "cannot listen on 192.0.2.7:0: Cannot assign requested address; "
        "--host takes an address of this machine"
    )


@pytest.mark.parametrize("host", ["..", "a" * 64, "ä" * 64 + ".example"])
def test_a_name_that_cannot_be_one_is_said(host: str) -> None:
    assert "not a name" in refusal(host, 0)


def test_a_name_that_is_not_known_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_server", unknown)
    assert refusal("nowhere", 0).startswith(
        "cannot listen on nowhere:0: Name or service not known; "
    )


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 on this machine")
def test_all_addresses_of_ipv6_are_those_of_ipv4_too() -> None:
    with listen("::", 0) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with connect(host, port) as connection:
                assert connection.getpeername()[:2] == (host, port)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 on this machine")
def test_an_address_of_ipv6_is_listened_on() -> None:
    with listen("::1", 0) as listener:
        connect("::1", listener.getsockname()[1]).close()
        port = listener.getsockname()[1]
        assert f"cannot listen on [::1]:{port}: " in refusal("::1", port)


# A client connects.


def complaint(host: str, port: int) -> str:
    with pytest.raises(NetworkError) as caught:
        connect(host, port)
    return str(caught.value)


@pytest.fixture
def failing(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[OSError], str]:
    """Return what is said when connecting ends with an error."""

    def told(error: OSError) -> str:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(socket, "create_connection", fail)
        return complaint("lab", 7)

    return told


Failing = Callable[[OSError], str]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_where_nothing_listens_the_server_is_asked_about() -> None:
    port = free_port()
    message = complaint("127.0.0.1", port)

    assert message.startswith(f"cannot reach 127.0.0.1:{port}: ")
    assert "nothing listens there; is the server running" in message


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_to_listen_on_is_not_dialled(host: str) -> None:
    assert complaint(host, 7).startswith(f"{host} is an address to listen on")


@pytest.mark.parametrize("host", ["..", "a" * 64, "ä" * 64 + ".example"])
def test_a_name_that_cannot_be_dialled_is_not_known(host: str) -> None:
    assert "the name is not known" in complaint(host, 7)


def test_each_cause_has_a_sentence_of_its_own(
    failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreachable = OSError(errno.EHOSTUNREACH, "No route to host")
    monkeypatch.setattr(sys, "platform", "linux")
    told = [
        failing(socket.gaierror(socket.EAI_NONAME, "unknown")),
        failing(TimeoutError("timed out")),
        failing(ConnectionRefusedError()),
        failing(unreachable),
    ]
    monkeypatch.setattr(sys, "platform", "darwin")
    told.append(failing(unreachable))

    causes = ("not known", "no answer within 10 s", "nothing listens", "no machine")
    for message, cause in zip(told, (*causes, "macOS blocks it"), strict=True):
        assert message.startswith("cannot reach lab:7: ")
        assert cause in message
        assert "\n" not in message
    assert len(set(told)) == len(told)


def test_an_error_without_words_is_still_told(failing: Failing) -> None:
    assert failing(OSError()) == "cannot reach lab:7: connection broken"


def test_a_port_that_is_connected_to_itself_is_not_a_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port, real = free_port(), socket.create_connection

    def itself(address: tuple[str, int], timeout: float) -> socket.socket:
        return real(address, timeout, source_address=("127.0.0.1", port))

    monkeypatch.setattr(socket, "create_connection", itself)

    assert "nothing listens there" in complaint("127.0.0.1", port)


# A client's connection.


@dataclass
class Line:
    """A client's connection and the raw socket at its other end."""

    connection: Connection
    server: Served

    def receive(self, count: int) -> list[Message]:
        """Return that many messages, however they come."""
        messages: list[Message] = []
        end = time.monotonic() + PATIENCE
        while len(messages) < count:
            assert time.monotonic() < end, "it never came"
            messages += self.connection.receive(wait=True)
        return messages


@pytest.fixture
def line() -> Iterator[Line]:
    with listen("127.0.0.1", 0) as listener:
        listener.settimeout(PATIENCE)
        dialled = connect("127.0.0.1", listener.getsockname()[1])
        accepted, _ = listener.accept()
        served: list[Served] = []
        thread = threading.Thread(
            target=lambda: served.append(Served(accepted).shake())
        )
        thread.start()
        connection = Connection(dialled, CODE)
        thread.join()
    with accepted:
        yield Line(connection, served[0])
    connection.close()


def test_messages_of_the_server_are_received_in_order(line: Line) -> None:
    line.server.sendall(in_bytes(WELCOME, LARGE, BEGIN))

    assert [type(m) for m in line.receive(3)] == [Welcome, TokenBatch, Begin]


def test_half_a_message_is_waited_for(line: Line) -> None:
    data = line.server.sealed(in_bytes(WELCOME))
    line.server.socket.sendall(data[:-1])
    assert line.connection.receive(wait=True) == []
    line.server.socket.sendall(data[-1:])

    assert len(line.receive(1)) == 1


def test_receiving_waits_only_where_asked_and_not_for_long(line: Line) -> None:
    began = time.monotonic()
    assert line.connection.receive(wait=False) == []
    middle = time.monotonic()
    assert line.connection.receive(wait=True) == []
    end = time.monotonic()

    assert middle - began < 0.2
    assert connection_module.WAIT_SECONDS * 0.9 < end - middle < PATIENCE


def test_a_server_that_closes_is_lost_after_its_last_words(line: Line) -> None:
    line.server.sendall(in_bytes(WELCOME, BYE))
    line.server.socket.close()

    assert line.receive(2)[1] == BYE
    for _ in range(2):
        with pytest.raises(NetworkError, match="it closed the connection"):
            line.connection.receive(wait=True)


def test_last_words_are_heard_even_where_sending_fails(line: Line) -> None:
    line.server.sendall(in_bytes(WELCOME, BYE))
    line.server.socket.shutdown(socket.SHUT_WR)
    line.server.socket.close()
    for _ in range(3):  # the first is answered by a reset, which the others meet
        line.connection.send([RESULT])
        time.sleep(0.01)

    assert line.receive(2)[1] == BYE
    with pytest.raises(NetworkError, match="the server is lost: "):
        line.connection.receive(wait=True)


def test_a_connection_that_is_reset_is_lost(line: Line) -> None:
    Peer(line.server.socket).reset()

    with pytest.raises(NetworkError, match="the server is lost: Connection reset"):
        line.connection.receive(wait=True)


def test_a_server_that_takes_nothing_any_more_is_lost(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "SILENT_SECONDS", 0.05)
    zeros = np.zeros(1 << 22, np.float32)
    line.connection.send([State(1, 1, zeros, zeros, zeros)])

    with pytest.raises(NetworkError, match="the server is lost: timed out"):
        line.connection.receive(wait=False)


def test_a_server_that_takes_a_little_now_and_then_is_not_lost(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "SILENT_SECONDS", 0.4)
    zeros = np.zeros(1 << 20, np.float32)
    message = State(1, 1, zeros, zeros, zeros)
    size, taken = len(in_bytes(message)), 0  # and some records' lengths and tags
    sending = threading.Thread(target=line.connection.send, args=([message],))
    sending.start()
    while taken < size:  # over a second for all of it
        wanted = min(size - taken, 1 << 20)
        taken += len(line.server.socket.recv(wanted, socket.MSG_WAITALL))
        time.sleep(0.1)
    sending.join()

    assert line.connection.receive(wait=False) == []


def test_small_messages_leave_together_and_large_ones_whole(line: Line) -> None:
    state = State(4, 1, *[np.ones(1 << 18, np.float32)] * 3)
    expected = in_bytes(HELLO, RESULT, state)

    def send() -> None:
        line.connection.send([HELLO, RESULT])
        line.connection.send([state])

    sent = threading.Thread(target=send)
    sent.start()
    received: list[Message] = []
    while len(received) < 3:
        received += line.server.receive() or []
    sent.join()

    assert in_bytes(*received) == expected


def test_a_server_that_breaks_the_rules_is_told_apart(line: Line) -> None:
    line.server.sendall(HTTP)

    with pytest.raises(ProtocolError, match="frame"):
        line.receive(1)


def test_a_clients_last_words_arrive_though_it_has_not_read_all(bench: Bench) -> None:
    connection = bench.connection()
    connection.send([HELLO])
    bench.until(lambda: bench.of(Joined))
    said = [part for m in (WELCOME, LARGE, BEGIN) for part in encode(m)]
    bench.hub.send(1, bundled(said))
    parting = threading.Thread(target=connection.part, args=(BYE,))
    parting.start()
    bench.until(lambda: bench.of(Left))
    parting.join()
    connection.close()

    assert bench.of(Received) == [Received(1, BYE)]
    assert bench.reasons() == ["connection closed"]


def test_parting_from_a_server_that_is_gone_takes_no_time(line: Line) -> None:
    Peer(line.server.socket).reset()
    began = time.monotonic()
    line.connection.part(BYE)

    assert time.monotonic() - began < 1


def test_parting_from_a_server_that_does_not_answer_takes_two_seconds_at_most(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "GOODBYE_SECONDS", 0.1)
    began = time.monotonic()
    line.connection.part(BYE)

    assert 0.09 < time.monotonic() - began < 1


# While somebody computes.


def test_what_comes_while_somebody_computes_is_taken_in_and_read_later(
    line: Line,
) -> None:
    taken = threading.Event()
    said = in_bytes(WELCOME, *[LARGE] * 8, BEGIN)  # 24 MB: more than sockets hold

    def send() -> None:
        line.server.sendall(said)
        taken.set()

    sending = threading.Thread(target=send)
    sending.start()
    end = time.monotonic() + PATIENCE
    while not taken.is_set():
        assert time.monotonic() < end, "nobody takes it"
        line.connection.pump()
    sending.join()

    kinds = [type(m) for m in line.receive(10)]
    assert kinds == [Welcome, *[TokenBatch] * 8, Begin]


def test_no_more_is_taken_in_meanwhile_than_there_is_room_for(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "MAX_PUMPED", 100_000)
    line.server.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        line.server.sendall(in_bytes(WELCOME, *[LARGE] * 16))
    for _ in range(100):
        line.connection.pump()

    assert sum(map(len, line.connection._unread)) < 100_000 + (1 << 18)
    assert [type(m) for m in line.receive(2)][:2] == [Welcome, TokenBatch]


def test_a_loss_that_is_found_meanwhile_is_told_after_what_came_before(
    line: Line,
) -> None:
    line.server.sendall(in_bytes(WELCOME, BYE))
    line.server.socket.close()
    end = time.monotonic() + PATIENCE
    while not line.connection._lost:
        assert time.monotonic() < end
        line.connection.pump()

    assert line.receive(2)[1] == BYE
    with pytest.raises(NetworkError, match="it closed the connection"):
        line.connection.receive(wait=True)


def test_a_server_that_stops_in_a_message_is_lost_but_not_while_we_compute(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(sessions, "MESSAGE_SECONDS", 0.2)
    data = line.server.sealed(in_bytes(WELCOME))
    line.server.socket.sendall(data[:100])
    assert line.connection.receive(wait=True) == []
    time.sleep(0.5)  # as if it computed
    line.server.socket.sendall(data[100:200])
    assert line.connection.receive(wait=True) == []

    with pytest.raises(NetworkError, match="a message does not come to its end"):
        line.receive(1)


# Servers that are none.


@pytest.mark.parametrize("data", [b"", HTTP, b"ESNET\0", bytes(200)])
def test_what_is_no_server_is_told(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "CONNECT_SECONDS", 0.2)
    with listen("127.0.0.1", 0) as listener:
        dialled = connect("127.0.0.1", listener.getsockname()[1])
        listener.settimeout(PATIENCE)
        accepted, _ = listener.accept()
        with accepted:
            accepted.sendall(data)
            with pytest.raises((NetworkError, ProtocolError)) as caught:
                Connection(dialled, CODE)

    said = str(caught.value)
    if (HTTP.startswith(data[:6]) and data) or data == bytes(200):
        assert "does not speak this program's protocol" in said
    else:
        assert "did not prove that it has the join code: timed out" in said
    assert dialled.fileno() == -1, "it is closed"


def test_a_server_that_drips_its_greeting_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "CONNECT_SECONDS", 0.5)
    with listen("127.0.0.1", 0) as listener:
        dialled = connect("127.0.0.1", listener.getsockname()[1])
        listener.settimeout(PATIENCE)
        accepted, _ = listener.accept()
        with accepted:
            ended = threading.Event()

            def drip() -> None:
                for byte in b"ESNET\0\1\0\0\0" + bytes(70):
                    with contextlib.suppress(OSError):
                        accepted.sendall(bytes([byte]))
                    if ended.wait(0.1):
                        return

            dripping = threading.Thread(target=drip)
            dripping.start()
            began = time.monotonic()
            with pytest.raises(NetworkError, match="timed out"):
                Connection(dialled, CODE)
            took = time.monotonic() - began
            ended.set()
            dripping.join()

    assert 0.4 < took < 4


def test_a_server_that_hangs_up_at_once_is_told() -> None:
    with listen("127.0.0.1", 0) as listener:
        dialled = connect("127.0.0.1", listener.getsockname()[1])
        listener.settimeout(PATIENCE)
        listener.accept()[0].close()
        with pytest.raises(NetworkError, match="it closed the connection"):
            Connection(dialled, CODE)

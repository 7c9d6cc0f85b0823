"""What strangers and members cannot do to a hub, over real loopback sockets."""

import contextlib
import logging
import random
import socket
import struct
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.loopback import (
    BYE,
    CODE,
    HELLO_BYTES,
    HTTP,
    RESULT,
    WELCOME,
    Bench,
    Peer,
    certificate,
    in_bytes,
)
from utilities import communication, lines
from utilities.communication import HELLO_SECONDS, MOST_STRANGERS, SHAKE_SECONDS
from utilities.complaints import LINES, STRETCH
from utilities.events import Left, Received
from utilities.handshake import NO_BIND, ClientHandshake, fresh_nonce
from utilities.joincodes import Code, new_code
from utilities.protocol import Goodbye, State
from utilities.sealing import MOST, bundled
from utilities.sessions import FLOOR, MESSAGE_SECONDS
from utilities.wire import encode


@pytest.fixture(params=["plain", "tls"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(tls=certificate() if request.param == "tls" else None)
    yield bench
    bench.close()


@pytest.fixture
def plain() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


Log = Callable[[], list[str]]


def answer(code: Code, greeting: bytes) -> bytes:
    handshake = ClientHandshake(code, NO_BIND, fresh_nonce())
    handshake.take(memoryview(greeting))
    return handshake.reply()


def greeted(bench: Bench) -> tuple[Peer, bytes]:
    """Return a stranger and what the hub has greeted it with."""
    stranger = bench.stranger()
    greeting = b""
    stranger.socket.setblocking(False)

    def read() -> bool:
        nonlocal greeting
        with contextlib.suppress(BlockingIOError):
            greeting += stranger.socket.recv(4096)
        return len(greeting) >= 90

    bench.until(read)
    stranger.socket.settimeout(10)
    return stranger, greeting


# Before anybody has proved anything.


def test_a_wrong_code_is_told_to_the_peer_and_in_one_line(
    plain: Bench, log: Log
) -> None:
    stranger, greeting = greeted(plain)
    stranger.raw(answer(new_code(), greeting) + HELLO_BYTES)
    plain.until(lambda: log())
    plain.settle()
    verdict = stranger.socket.recv(4096)

    assert verdict == b"\1\0" + bytes(32)
    assert stranger.socket.recv(4096) == b""
    assert log() == [
        "client 1 (127.0.0.1) is turned away: it does not have this server's join code"
    ]
    assert not plain.events


@pytest.mark.parametrize("begins", [False, True], ids=["nothing", "a part"])
def test_who_proves_nothing_is_closed_after_five_seconds(
    bench: Bench, log: Log, begins: bool
) -> None:
    said = b"\x16\x03\x01" if bench.gate.tls else b"ESNET\0\x01\0"
    idle, (honest, _) = bench.stranger(said if begins else b""), bench.joined()
    bench.clock.now += SHAKE_SECONDS
    bench.settle()
    assert not log()
    bench.clock.now += 0.1
    bench.until(log)
    honest.send(in_bytes(RESULT))
    bench.until(lambda: bench.of(Received))
    idle.socket.close()
    bench.until(lambda: len(bench.hub._links) == 1)

    assert log() == [
        "client 1 (127.0.0.1) is turned away: no proof of the join code within 5 s"
    ]


def test_a_proof_that_comes_a_byte_at_a_time_has_no_more_time(
    plain: Bench, log: Log
) -> None:
    stranger, greeting = greeted(plain)
    for byte in answer(CODE, greeting)[:-1]:
        stranger.raw(bytes([byte]))
        plain.clock.now += 0.1
        plain.events += plain.hub.poll(0)
    plain.until(log)

    assert "no proof of the join code" in log()[0]


def test_a_member_without_a_hello_has_ten_seconds(bench: Bench, log: Log) -> None:
    silent = bench.peer()
    bench.clock.now += HELLO_SECONDS
    bench.settle()
    assert not log()
    bench.clock.now += 0.1
    bench.until(lambda: silent.ended, silent)

    assert silent.messages == [Goodbye("dropped", "no hello within 10 s")]


@pytest.mark.parametrize("seed", range(3))
def test_thousands_of_failed_handshakes_leave_few_lines_and_honest_clients_in_peace(
    plain: Bench, log: Log, seed: int
) -> None:
    chance = random.Random(seed)
    honest, client = plain.joined()
    wrong = new_code()
    count = 400
    for number in range(count):
        with socket.create_connection(("127.0.0.1", plain.port), 10) as attacker:
            data = chance.choice([HTTP, chance.randbytes(90), b"", wrong.secret * 5])
            attacker.sendall(data)
            plain.events += plain.hub.poll(0)
        if not number % 40:
            honest.send(in_bytes(RESULT))
            plain.clock.now += 0.2
    plain.until(lambda: len(plain.of(Received)) == count // 40)
    plain.settle()
    said = len(log())
    plain.clock.now += STRETCH
    plain.settle()
    plain.clock.now += STRETCH
    plain.hub.send(client, bundled(encode(WELCOME)))
    plain.until(lambda: honest.messages, honest)
    lines_of_log = log()

    assert said == LINES
    assert len(lines_of_log) == LINES + 1
    assert "more connections came to nothing in" in lines_of_log[-1]
    assert not plain.of(Left)


def test_a_newcomer_finds_room_however_many_idle_strangers_there_are(
    plain: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(communication, "MOST_STRANGERS_OF_ONE", 50)
    for _ in range(200):
        plain.dial()
        plain.events += plain.hub.poll(0)
    joined, _ = plain.joined()

    assert joined.established
    assert len(plain.hub._strangers) <= 50
    assert len(plain.hub._links) <= 51


def test_one_address_cannot_have_all_connections(
    plain: Bench, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(communication, "MOST_OF_ONE", 3)
    for _ in range(3):
        plain.joined()
    plain.dial()
    plain.until(log)

    assert log() == ["127.0.0.1 is turned away: too many connections"]
    assert len(plain.hub._links) == 3
    plain.hub.drop(1, BYE)
    plain.clock.now += communication.GOODBYE_SECONDS + 1
    plain.settle()
    assert plain.hub._origins == {"127.0.0.1": 2}
    plain.joined()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 on this machine")
def test_an_address_of_ipv4_is_told_as_such_where_ipv6_listens_for_both(
    log: Log,
) -> None:
    bench = Bench()
    bench.hub.close()
    bench.hub = communication.Hub(lines.listen("*", 0), bench.gate, 3, bench.clock)
    bench.port = bench.hub.port
    bench.dial().close()
    bench.until(log)
    bench.close()

    assert log() == ["client 1 (127.0.0.1) left without a hello: connection closed"]


def test_strangers_cost_little_memory(plain: Bench) -> None:
    plain.joined()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(200):
        plain.stranger(b"ESNET\0\x01\0" + bytes(60))
        plain.events += plain.hub.poll(0)
    plain.settle()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    each = (after - before) / 200
    print(f"\n{each:.0f} bytes for each stranger, test's own end included")

    assert len(plain.hub._strangers) == 200
    assert each * MOST_STRANGERS < 64 << 20


# In the middle of a message.


def test_who_sends_a_byte_a_second_is_closed_and_others_stay(
    bench: Bench, log: Log
) -> None:
    drip, client = bench.joined()
    honest, _ = bench.joined()
    record = drip.sealed(in_bytes(RESULT))
    for byte in record[: int(MESSAGE_SECONDS) + 3]:
        drip.raw(bytes([byte]))
        bench.clock.now += 1.0
        bench.settle()
        if bench.of(Left):
            break
    honest.send(in_bytes(RESULT))
    bench.until(lambda: bench.of(Received))

    assert [left.client for left in bench.of(Left)] == [client]
    assert len(log()) == 1
    assert "broke the rules: too slow: " in log()[0]


def test_a_slow_link_may_send_a_state(plain: Bench) -> None:
    plain.close()
    size = 1 << 16
    plain = Bench(size)
    peer, _ = plain.joined()
    arrays = [np.zeros(size, np.float32)] * 3
    data = peer.sealed(in_bytes(State(4, 0, *arrays)))
    pieces = [data[i : i + 2 * FLOOR] for i in range(0, len(data), 2 * FLOOR)]
    for piece in pieces:
        peer.raw(piece)
        plain.clock.now += 1.0
        read = plain.hub.poll(0.2)
        plain.events += read
    plain.until(lambda: plain.of(Received))
    plain.close()

    assert len(pieces) > 5 * MESSAGE_SECONDS
    assert not plain.of(Left)


def test_who_is_silent_between_messages_may_be_so_for_ever(bench: Bench) -> None:
    peer, _ = bench.joined()
    for _ in range(3):
        bench.clock.now += 1e5
        peer.send(in_bytes(RESULT))
        bench.settle()

    assert len(bench.of(Received)) == 3
    assert not bench.of(Left)


# Members who cheat.


@pytest.mark.parametrize("how", ["changed", "repeated", "left out", "too long"])
def test_a_record_that_was_tampered_with_closes_the_connection(
    bench: Bench, log: Log, how: str
) -> None:
    peer, client = bench.joined()
    first, second = peer.sealed(in_bytes(RESULT)), peer.sealed(in_bytes(RESULT))
    peer.raw(
        {
            "changed": first[:-1] + bytes([first[-1] ^ 1]),
            "repeated": first + first,
            "left out": second,
            "too long": struct.pack("<I", MOST + 1) + first,
        }[how]
    )
    bench.until(lambda: peer.ended, peer)

    assert bench.of(Left) == [Left(client, "it broke the rules")]
    assert len(log()) == 1
    assert "record" in log()[0]
    assert isinstance(peer.messages[0], Goodbye), "our own direction is intact"
    assert len(bench.of(Received)) == (how == "repeated")


def test_members_who_break_the_rules_again_and_again_leave_few_lines(
    plain: Bench, log: Log
) -> None:
    for _ in range(3 * LINES):
        peer, client = plain.joined()
        plain.hub.refuse(client, "again")
        peer.socket.close()
    plain.settle()
    assert len(log()) == LINES
    plain.clock.now += STRETCH
    plain.until(lambda: len(log()) > LINES)

    assert f"{2 * LINES} more clients broke the rules in 10 s; the last" in log()[-1]


# TLS.


@pytest.fixture
def safe() -> Iterator[Bench]:
    bench = Bench(tls=certificate())
    yield bench
    bench.close()


@pytest.mark.parametrize("data", [HTTP, b"\x16\x03\x01\xff\xff" + bytes(70_000), b"\0"])
def test_what_is_not_tls_is_closed_with_one_line(
    safe: Bench, log: Log, data: bytes
) -> None:
    stranger = Peer(safe.dial())
    with contextlib.suppress(OSError):  # closed before all was sent
        stranger.raw(data)
    safe.settle()
    safe.clock.now += SHAKE_SECONDS + 0.1
    safe.until(log)

    assert len(log()) == 1
    assert not safe.events


def test_agreeing_upon_keys_is_bounded_in_bytes(safe: Bench, log: Log) -> None:
    stranger = Peer(safe.dial())
    hello = b"\x01" + (100_000).to_bytes(3, "big") + b"\x03\x03" + bytes(90_000)
    pieces = [hello[i : i + 16_000] for i in range(0, len(hello), 16_000)]
    with contextlib.suppress(OSError):  # closed before all was sent
        for piece in pieces:
            header = b"\x16\x03\x01" + len(piece).to_bytes(2, "big")
            stranger.raw(header + piece)
            safe.events += safe.hub.poll(0.05)
    safe.until(log)

    assert "left without a hello: " in log()[0]


def test_nothing_is_said_in_the_clear_where_tls_is_used(safe: Bench) -> None:
    stranger = Peer(safe.dial())
    safe.settle()
    stranger.socket.setblocking(False)

    with pytest.raises(BlockingIOError):
        stranger.socket.recv(100)

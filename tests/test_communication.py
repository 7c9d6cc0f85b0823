"""The server's hub of many clients, over real loopback sockets."""

import errno
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.loopback import (
    BEGIN,
    BYE,
    HELLO,
    HELLO_BYTES,
    HTTP,
    LARGE,
    PARAMETERS,
    PATIENCE,
    RESULT,
    WELCOME,
    Bench,
    Peer,
    certificate,
    gate,
    in_bytes,
)
from utilities import communication
from utilities import lines as lines_module
from utilities.communication import Hub
from utilities.descriptors import descriptors
from utilities.events import Joined, Left, Received
from utilities.lines import Line, connect, listen
from utilities.protocol import Goodbye, Message, State, TokenBatch, Welcome
from utilities.sealing import Bundle, bundled
from utilities.wire import encode


@pytest.fixture(params=["plain", "tls"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(tls=certificate() if request.param == "tls" else None)
    yield bench
    bench.close()


def bundles(*messages: Message) -> list[Bundle]:
    """Return what a hub sends."""
    return bundled(part for message in messages for part in encode(message))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: lines(caplog)


Log = Callable[[], list[str]]


# Bytes become events.


def test_a_hello_joins_and_what_follows_is_received(bench: Bench) -> None:
    bench.peer(HELLO_BYTES + in_bytes(RESULT, BYE))
    bench.until(lambda: len(bench.events) == 3)

    first, second, third = bench.events
    assert isinstance(first, Joined)
    assert first.hello == HELLO
    assert isinstance(second, Received)
    assert in_bytes(second.message) == in_bytes(RESULT)
    assert third == Received(first.client, BYE)


def test_bytes_may_arrive_one_at_a_time(bench: Bench) -> None:
    peer = bench.peer()
    for byte in HELLO_BYTES + in_bytes(BYE):
        peer.send(bytes([byte]))
        bench.events += bench.hub.poll(0)
    bench.until(lambda: len(bench.events) == 2)

    assert bench.events[1].message == BYE


def test_each_client_has_a_number_of_its_own(bench: Bench) -> None:
    _, first = bench.joined()
    _, second = bench.joined()

    assert first != second
    assert {event.client for event in bench.of(Joined)} == {first, second}


def test_what_is_sent_arrives_in_order(bench: Bench) -> None:
    peer, client = bench.joined()
    bench.hub.send(client, bundles(WELCOME))
    bench.hub.send(client, bundles(BEGIN, BYE))
    bench.until(lambda: len(peer.messages) == 3, peer)

    assert in_bytes(*peer.messages) == in_bytes(WELCOME, BEGIN, BYE)


def test_a_large_message_is_written_as_the_client_reads(bench: Bench) -> None:
    peer, client = bench.joined()
    bench.hub.send(client, bundles(WELCOME))
    bench.hub.send(client, bundles(LARGE))
    bench.until(lambda: len(peer.messages) == 2, peer)

    tokens = peer.messages[1]
    assert isinstance(tokens, TokenBatch)
    assert np.array_equal(tokens.tokens, LARGE.tokens)


def test_a_large_message_is_read_while_others_are_served(bench: Bench) -> None:
    bench.close()
    size = 1 << 20
    bench = Bench(size)
    zeros = np.zeros(size, np.float32)
    large, small = bench.joined()[0], bench.joined()[0]
    data = in_bytes(State(4, 0, zeros, zeros, zeros))
    writer = threading.Thread(target=large.send, args=(data,))
    writer.start()
    small.send(in_bytes(BYE))
    bench.until(lambda: len(bench.of(Received)) == 2)
    writer.join()
    bench.close()

    assert {type(event.message) for event in bench.of(Received)} == {State, Goodbye}


def test_sending_to_nobody_does_nothing(bench: Bench) -> None:
    bench.hub.send(77, bundles(BYE))
    bench.hub.drop(77, BYE)
    bench.hub.refuse(77, "nobody")
    bench.settle()

    assert not bench.events


# Clients that break the rules.


@pytest.mark.parametrize(
    "garbage",
    [HTTP, b"\xff" * 4096, b"\0" * 64, in_bytes(RESULT), in_bytes(WELCOME)],
    ids=["http", "ones", "zeros", "no hello", "a server"],
)
def test_a_peer_that_breaks_the_rules_gets_one_line_and_is_closed(
    bench: Bench, log: Log, garbage: bytes
) -> None:
    honest, client = bench.joined()
    peer = bench.peer(garbage)
    bench.until(lambda: peer.ended, peer)
    peer.socket.close()
    honest.send(in_bytes(RESULT))
    bench.hub.send(client, bundles(WELCOME))
    bench.until(lambda: bench.of(Received) and honest.messages, honest)

    assert len(log()) == 1
    assert re.match(r"client 2 \(127\.0\.0\.1\) broke the rules: ", log()[0])
    assert isinstance(peer.messages[0], Goodbye)
    assert peer.messages[0].end == "dropped"
    assert peer.messages[0].reason in log()[0]
    assert len(bench.events) == 2, "of the honest client alone"


def test_a_client_that_breaks_the_rules_later_has_left_once(
    bench: Bench, log: Log
) -> None:
    peer, client = bench.joined()
    peer.send(HELLO_BYTES)
    bench.until(lambda: bench.of(Left))
    bench.until(lambda: peer.ended, peer)
    peer.socket.close()
    bench.settle()

    assert bench.of(Left) == [Left(client, "it broke the rules")]
    assert len(log()) == 1
    assert log()[0].startswith("Bärbel (127.0.0.1) broke the rules: ")


def test_what_a_refused_peer_goes_on_to_say_is_not_heard(bench: Bench) -> None:
    peer, client = bench.joined()
    bench.hub.refuse(client, "one digest too many")
    peer.send(in_bytes(RESULT) * 1000)
    bench.hub.send(client, bundles(BEGIN))
    bench.hub.refuse(client, "again")
    bench.until(lambda: peer.ended, peer)
    bench.settle()

    assert not bench.of(Received)
    assert peer.messages == [Goodbye("dropped", "one digest too many")]


def test_a_reason_that_quotes_a_peer_stays_one_line_of_bounded_length(
    bench: Bench,
) -> None:
    peer, client = bench.joined()
    bench.hub.refuse(client, "bell \a, line\nbreak, " + 2000 * "x")
    bench.until(lambda: peer.ended, peer)

    assert isinstance(peer.messages[0], Goodbye)
    assert peer.messages[0].reason.startswith("bell ?, line?break, xxx")
    assert len(peer.messages[0].reason) == 1000


def test_a_port_scan_is_one_line(bench: Bench, log: Log) -> None:
    bench.peer().socket.close()
    bench.until(log)
    bench.settle()

    assert log() == ["client 1 (127.0.0.1) left without a hello: connection closed"]
    assert not bench.events


def test_a_connection_that_is_reset_before_its_hello_is_one_line(
    bench: Bench, log: Log
) -> None:
    bench.peer(HELLO_BYTES[:20]).reset()
    bench.until(log)

    assert len(log()) == 1
    assert "left without a hello: " in log()[0]


def test_a_peer_that_does_not_say_hello_is_refused_after_ten_seconds(
    bench: Bench, log: Log
) -> None:
    idle, honest = bench.peer(HELLO_BYTES[:50]), bench.joined()[0]
    idle.send(HELLO_BYTES[50:100])
    bench.clock.now += communication.HELLO_SECONDS
    bench.settle()
    assert not log()
    bench.clock.now += 0.1
    bench.until(lambda: idle.ended, idle)
    honest.send(in_bytes(RESULT))
    bench.until(lambda: bench.of(Received))

    assert log() == ["client 1 (127.0.0.1) broke the rules: no hello within 10 s"]
    assert idle.messages == [Goodbye("dropped", "no hello within 10 s")]
    assert not bench.of(Left)


# Clients that do not read.


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(communication, "MAX_QUEUED", 1 << 22)


@pytest.mark.usefixtures("impatient")
def test_a_client_that_does_not_read_is_closed_when_too_much_waits(
    log: Log,
) -> None:
    bench = Bench()
    (_, deaf), (reader, client) = bench.joined(), bench.joined()
    for _ in range(8):  # 24 MB: more than the sockets hold
        bench.hub.send(deaf, bundles(LARGE))
    bench.until(lambda: bench.of(Left))
    bench.hub.send(client, bundles(WELCOME))
    bench.until(lambda: reader.messages, reader)
    bench.close()

    assert [left.client for left in bench.of(Left)] == [deaf]
    assert re.fullmatch(r"it does not read; \d+ bytes were queued", bench.reasons()[0])
    assert not log(), "the coordinator says who has left, with this reason"


@pytest.mark.usefixtures("impatient")
def test_a_state_may_wait_however_large_it_is() -> None:
    bench = Bench(parameters=1 << 21)  # a state of 25 MB
    weights = np.zeros(1 << 21, np.float32)
    peer, client = bench.joined()
    welcome = Welcome({}, "", "", 1, 1, b"d" * 32, weights, weights, weights)
    bench.hub.send(client, bundles(welcome))
    bench.until(lambda: peer.messages, peer)
    bench.close()

    assert not bench.of(Left)


def test_a_client_that_takes_nothing_for_a_minute_is_closed(bench: Bench) -> None:
    _, client = bench.joined()
    for _ in range(8):
        bench.hub.send(client, bundles(LARGE))
    bench.clock.now += communication.SILENT_SECONDS
    bench.settle()
    assert not bench.of(Left)
    bench.clock.now += 0.1
    bench.until(lambda: bench.of(Left))

    assert "it does not read" in bench.reasons()[0]


def test_a_client_that_takes_a_little_now_and_then_stays(bench: Bench) -> None:
    peer, client = bench.joined()
    bench.hub.send(client, bundles(WELCOME))
    for _ in range(8):  # 24 MB: more than the sockets hold
        bench.hub.send(client, bundles(LARGE))
    link = bench.hub._links[client]
    for _ in range(3):
        bench.clock.now += 0.9 * communication.SILENT_SECONDS
        queued = link.queue.size
        while link.queue.size == queued:  # sockets buffer: room for more comes in leaps
            peer.socket.recv(1 << 20)
            bench.events += bench.hub.poll(0.01)

    assert not bench.of(Left)


def test_a_client_with_nothing_to_read_may_be_silent_for_ever(bench: Bench) -> None:
    peer, client = bench.joined()
    bench.clock.now += 1e6
    bench.settle()
    bench.hub.send(client, bundles(WELCOME))
    bench.until(lambda: peer.messages, peer)

    assert not bench.of(Left)


# Ends.


@pytest.mark.parametrize("sends", [False, True])
def test_last_words_arrive_while_the_peer_still_sends(
    bench: Bench, sends: bool
) -> None:
    peer, client = bench.joined()
    peer.send(in_bytes(RESULT) * 2000)  # not read by the hub yet
    bench.hub.drop(client, BYE)
    if sends:
        peer.send(in_bytes(RESULT) * 2000)
    bench.until(lambda: peer.ended, peer)
    peer.socket.close()
    bench.settle()

    assert peer.messages == [BYE]
    assert bench.of(Left) == [Left(client, "so long")]


def test_last_words_come_after_what_was_queued(bench: Bench) -> None:
    peer, client = bench.joined()
    bench.hub.send(client, bundles(WELCOME, LARGE))
    bench.hub.drop(client, BYE)
    bench.until(lambda: peer.ended, peer)

    assert [type(m) for m in peer.messages] == [Welcome, TokenBatch, Goodbye]


def test_who_does_not_take_the_last_words_is_closed_all_the_same(bench: Bench) -> None:
    _, client = bench.joined()
    for _ in range(8):
        bench.hub.send(client, bundles(LARGE))
    bench.hub.drop(client, BYE)
    bench.clock.now += communication.GOODBYE_SECONDS + 0.1
    bench.settle()

    assert not bench.hub._links
    assert len(bench.of(Left)) == 1


def test_a_client_that_closes_has_left(bench: Bench) -> None:
    peer, client = bench.joined()
    peer.send(in_bytes(RESULT))
    peer.socket.close()
    bench.until(lambda: bench.of(Left))

    assert [type(event) for event in bench.events] == [Joined, Received, Left]
    assert bench.of(Left) == [Left(client, "connection closed")]


def test_a_client_that_closes_its_own_direction_has_left(bench: Bench) -> None:
    peer, client = bench.joined()
    peer.socket.shutdown(socket.SHUT_WR)
    bench.until(lambda: peer.ended, peer)

    assert bench.of(Left) == [Left(client, "connection closed")]


def test_a_client_whose_connection_breaks_has_left(bench: Bench) -> None:
    peer, client = bench.joined()
    peer.reset()
    bench.until(lambda: bench.of(Left))

    assert bench.of(Left)[0].client == client
    assert bench.reasons() == ["Connection reset by peer"]


def test_a_break_found_while_sending_is_told_without_waiting(bench: Bench) -> None:
    peer, client = bench.joined()
    peer.reset()
    # The hub learns of it by writing, before it has polled again.
    for _ in range(3):
        bench.hub.send(client, bundles(WELCOME))
    began = time.monotonic()
    events = bench.hub.poll(0.5)

    assert [type(event) for event in events] == [Left]
    assert time.monotonic() - began < 0.4


def test_a_break_while_last_words_are_said_leaves_no_trace(bench: Bench) -> None:
    peer, client = bench.joined()
    peer.reset()
    bench.hub.drop(client, BYE)
    bench.hub.drop(client, BYE)
    bench.settle()

    assert len(bench.of(Left)) == 1


def test_vanished_machines_are_probed_for(bench: Bench) -> None:
    dialled = bench.peers.enter_context(connect("127.0.0.1", bench.port))
    bench.until(lambda: bench.hub._links)
    (link,) = bench.hub._links.values()

    for end in (dialled, link.line._socket):
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if sys.platform == "linux":
            probes = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT)
            pause = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
            first = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            assert first + probes * pause < 15
            timeout = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            # Milliseconds; where there is one, it decides at a probe, not their number.
            assert 1000 * (first + (probes - 1) * pause) < timeout
            assert timeout < 1000 * (first + probes * pause)


# Waking, accepting, closing.


def test_a_ring_from_another_thread_ends_the_wait(bench: Bench) -> None:
    timer = threading.Timer(0.05, bench.hub.ring)
    began = time.monotonic()
    timer.start()
    bench.hub.poll(0.5)
    timer.join()

    assert 0.04 < time.monotonic() - began < 0.4


def test_ringing_often_neither_blocks_nor_piles_up(bench: Bench) -> None:
    for _ in range(20_000):
        bench.hub.ring()
    for _ in range(20):
        bench.hub.poll(0)
    began = time.monotonic()
    bench.hub.poll(0.1)

    assert time.monotonic() - began > 0.05


def test_a_ring_after_the_end_is_harmless(bench: Bench) -> None:
    bench.close()
    bench.hub.ring()

    assert bench.closed


class Exhausted(socket.socket):
    """A listening socket of a process that has no descriptor left."""

    error: OSError | None = None

    def accept(self) -> tuple[socket.socket, Any]:
        if self.error is not None:
            raise self.error
        return super().accept()


@pytest.fixture
def exhausted() -> Iterator[tuple[Bench, Exhausted]]:
    bench = Bench()
    bench.hub.close()
    listener = Exhausted(fileno=listen("127.0.0.1", 0).detach())
    bench.hub = Hub(listener, gate(), PARAMETERS, bench.clock)
    bench.port = bench.hub.port
    yield bench, listener
    bench.close()


def test_out_of_descriptors_the_hub_pauses_and_then_accepts_again(
    exhausted: tuple[Bench, Exhausted], log: Log
) -> None:
    bench, listener = exhausted
    listener.error = OSError(errno.EMFILE, "Too many open files")
    peer = Peer(bench.dial())
    bench.until(log)
    bench.settle()
    assert log() == ["no connection can be accepted: Too many open files"]

    listener.error = None
    bench.settle()
    assert not bench.events
    bench.clock.now += communication.DEAF_SECONDS
    bench.until(lambda: peer.established, peer)


def test_a_peer_that_went_before_it_was_accepted_is_not_worth_a_line(
    exhausted: tuple[Bench, Exhausted], log: Log
) -> None:
    bench, listener = exhausted
    listener.error = ConnectionAbortedError()
    peer = Peer(bench.dial())
    bench.settle()
    listener.error = None
    bench.until(lambda: peer.established, peer)

    assert not log()


def test_a_hub_can_be_closed_while_it_pauses(
    exhausted: tuple[Bench, Exhausted],
) -> None:
    bench, listener = exhausted
    listener.error = OSError(errno.EMFILE, "Too many open files")
    bench.dial()
    bench.settle()
    bench.close()

    assert listener.fileno() == -1


def test_closing_says_goodbye_and_takes_nobody_else(bench: Bench) -> None:
    peer, _ = bench.joined()
    idle = bench.peer()
    bench.until(lambda: len(bench.hub._links) == 2)
    closing = threading.Thread(target=bench.hub.close)
    closing.start()
    bench.closed = True
    end = time.monotonic() + PATIENCE
    while not (peer.ended and idle.ended):
        assert time.monotonic() < end
        peer.read()
        idle.read()
    with pytest.raises(ConnectionRefusedError):
        bench.dial()
    peer.socket.close()
    idle.socket.close()
    closing.join(PATIENCE)

    assert not closing.is_alive()
    assert peer.messages == [Goodbye("dropped", "the server has stopped")]


def test_closing_waits_no_longer_than_the_last_words_may_take(bench: Bench) -> None:
    bench.joined()
    bench.clock.tick = 0.1
    began = bench.clock.now
    bench.hub.close()
    bench.closed = True

    assert bench.clock.now - began < communication.GOODBYE_SECONDS + 2


@pytest.mark.parametrize("which", ["MOST_STRANGERS", "MOST_STRANGERS_OF_ONE"])
def test_of_too_many_strangers_the_oldest_goes_and_clients_stay(
    bench: Bench, log: Log, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    monkeypatch.setattr(communication, which, 2)
    honest, client = bench.joined()
    for _ in range(2):
        bench.dial()
        bench.settle()
    newest, _ = bench.joined()

    assert log() == ["client 2 (127.0.0.1) left without a hello: others came"]
    bench.hub.send(2, bundles(WELCOME))
    assert 3 in bench.hub._strangers
    assert newest.established
    bench.hub.send(client, bundles(WELCOME))
    bench.until(lambda: honest.messages, honest)
    assert bench.reasons() == []


def test_connections_leave_descriptors_for_the_files_of_the_run(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare = communication.SPARE_DESCRIPTORS
    monkeypatch.setattr(communication, "descriptors", lambda: spare + 1)
    bench = Bench()
    try:
        bench.joined()
        bench.dial()
        bench.until(log)

        assert log() == ["127.0.0.1 is turned away: too many connections"]
        assert len(bench.of(Joined)) == 1
    finally:
        bench.close()


def test_a_process_may_have_some_descriptors() -> None:
    assert descriptors() > communication.SPARE_DESCRIPTORS


# A great many.


def test_a_crowd_that_comes_at_once_joins_and_all_hear_the_same(bench: Bench) -> None:
    count = 300
    peers = [bench.peer(HELLO_BYTES) for _ in range(count)]
    bench.until(lambda: len(bench.of(Joined)) == count)
    clients = [event.client for event in bench.of(Joined)]
    welcome = bundles(WELCOME)
    for client in clients:
        bench.hub.send(client, [*welcome, *bundles(BEGIN)])
    bench.until(lambda: all(len(peer.messages) == 2 for peer in peers), *peers)

    assert len(set(clients)) == count
    expected = in_bytes(WELCOME, BEGIN)
    assert all(in_bytes(*peer.messages) == expected for peer in peers)
    assert not bench.of(Left)


def test_those_who_wait_to_be_accepted_are_accepted_together(bench: Bench) -> None:
    for _ in range(communication.ACCEPTED + 10):
        bench.dial()
    bench.until(lambda: bench.hub._links)

    assert len(bench.hub._links) == communication.ACCEPTED
    bench.until(lambda: len(bench.hub._links) == communication.ACCEPTED + 10)


def test_clients_that_have_read_everything_are_not_watched(bench: Bench) -> None:
    (_, reader), (slow, client) = bench.joined(), bench.joined()
    for joined in (reader, client):
        bench.hub.send(joined, bundles(WELCOME))
    for _ in range(8):  # 24 MB: more than the sockets hold
        bench.hub.send(client, bundles(LARGE))
    bench.settle()
    assert list(bench.hub._watched) == [client]

    bench.until(lambda: len(slow.messages) == 9, slow)
    bench.settle()
    assert not bench.hub._watched
    bench.clock.now += 1e6
    bench.settle()
    assert not bench.of(Left)


def test_a_poll_says_up_to_when_it_has_heard_everybody(bench: Bench) -> None:
    peer, _ = bench.joined()
    peer.send(in_bytes(RESULT))
    bench.clock.now, bench.clock.tick = 500.0, 1.0
    while not bench.of(Received):
        before = bench.clock.now
        bench.events += bench.hub.poll(0.01)

    assert bench.hub.moment == before + 1, "before anything was read"


class Windows:
    """A connection that sends one buffer at a time, and takes all of it."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, data: bytes | memoryview) -> int:
        self.sent.append(bytes(data))
        return len(data)


MOST = lines_module.PLAINTEXT


@pytest.mark.parametrize(
    ("parts", "sent"),
    [
        ([b"ab"], [b"ab"]),
        ([b"ab", b"cd"], [b"abcd"]),
        ([b"ab", bytes(MOST)], [b"ab" + bytes(MOST - 2)]),
        ([bytes(MOST + 1), b"ab"], [bytes(MOST)]),
        ([bytes(MOST - 2), b"ab", b"cd"], [bytes(MOST - 2) + b"ab"]),
    ],
)
def test_where_parts_cannot_leave_together_small_ones_are_joined(
    parts: list[bytes], sent: list[bytes]
) -> None:
    windows: Any = Windows()
    count = Line(windows).send([memoryview(part) for part in parts])

    assert windows.sent == sent
    assert count == len(b"".join(sent))

"""One end of a connection from its first byte on, without sockets."""

import contextlib
import random
from typing import Any

import pytest

from tests.loopback import (
    BEGIN,
    BYE,
    CODE,
    HELLO,
    LARGE,
    RESULT,
    RUN,
    WELCOME,
    in_bytes,
)
from utilities import frames, plaindata, wire
from utilities.errors import AuthenticationError, ProtocolError, TrainingError
from utilities.handshake import NO_BIND
from utilities.joincodes import Code, new_code
from utilities.protocol import Message
from utilities.sealing import bundled
from utilities.sessions import (
    FLOOR,
    MESSAGE_SECONDS,
    Progress,
    Session,
    client_session,
    server_session,
)
from utilities.wire import encode

BIND = b"b" * 32


def ends(code: Code = CODE, bind: bytes = NO_BIND) -> tuple[Session, Session]:
    return server_session(CODE, RUN, 3, bind), client_session(code, bind)


def introduced(code: Code = CODE, bind: bytes = NO_BIND) -> tuple[Session, Session]:
    """Return a server's and a client's end after the handshake."""
    server, client = ends(code, bind)
    assert list(client.receive(server.reply())) == []
    assert list(server.receive(client.reply())) == []
    assert list(client.receive(server.reply())) == []
    assert server.established
    assert client.established
    return server, client


def said(end: Session, *messages: Message) -> bytes:
    parts = [part for message in messages for part in encode(message)]
    return b"".join(end.seal(bundled(parts)))


@pytest.mark.parametrize("bind", [NO_BIND, BIND])
def test_messages_go_both_ways(bind: bytes) -> None:
    server, client = introduced(bind=bind)
    heard = list(server.receive(said(client, HELLO, RESULT)))
    told = list(client.receive(said(server, WELCOME, LARGE, BEGIN, BYE)))

    assert in_bytes(*heard) == in_bytes(HELLO, RESULT)
    assert in_bytes(*told) == in_bytes(WELCOME, LARGE, BEGIN, BYE)
    assert client.run == server.run == RUN


def test_bytes_may_come_one_at_a_time_from_the_first_on() -> None:
    server, client = ends()
    for byte in server.reply():
        assert not list(client.receive(bytes([byte])))
    answer = client.reply() + b""
    for byte in answer:
        assert not list(server.receive(bytes([byte])))
    for byte in server.reply():
        assert not list(client.receive(bytes([byte])))
    heard: list[Message] = []
    for byte in said(client, HELLO):
        assert not heard
        heard += server.receive(bytes([byte]))

    assert heard == [HELLO]


def test_what_follows_the_handshake_may_come_with_its_end() -> None:
    server, client = ends()
    list(client.receive(server.reply()))
    list(server.receive(client.reply()))
    both = server.reply() + said(server, WELCOME)

    assert in_bytes(*client.receive(both)) == in_bytes(WELCOME)


def heard_by(end: Session, data: bytes) -> list[Message]:
    """Return what an end takes for messages; it may refuse."""
    with contextlib.suppress(TrainingError):
        return list(end.receive(data))
    return []


class Reached(BaseException):
    """A decoder was called."""


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything that reads frames or pickles raise."""

    def reached(*_: Any, **__: Any) -> Any:
        raise Reached

    monkeypatch.setattr(plaindata, "loads", reached)
    for name in ("feed", "announced", "payload"):
        monkeypatch.setattr(frames.FrameReader, name, reached)
    for name in ("feed", "messages"):
        monkeypatch.setattr(wire.Inbox, name, reached)
    monkeypatch.setattr(frames, "parse_array_tag", reached)
    monkeypatch.setattr(wire, "array_form", reached)


@pytest.mark.usefixtures("guarded")
def test_a_guard_of_the_decoders_sees_that_they_are_called() -> None:
    server, client = introduced()
    with pytest.raises(Reached):
        list(server.receive(said(client, HELLO)))


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("seed", range(20))
def test_no_decoder_is_reached_before_the_code_is_proved(seed: int) -> None:
    chance = random.Random(seed)
    hello = in_bytes(HELLO)
    for _ in range(100):
        server, client = ends(new_code())
        greeting = server.reply()
        list(client.receive(greeting))
        answer = client.reply()
        data = chance.choice(
            [
                hello,
                answer + hello,
                answer + len(hello).to_bytes(4, "little") + hello + bytes(16),
                greeting + hello,
                chance.randbytes(chance.randrange(200)),
                answer[: chance.randrange(72)],
                answer[: chance.randrange(8, 72)] + hello,
            ]
        )
        for part in (data, hello, hello):
            assert heard_by(server, part) == []
        assert not server.established


@pytest.mark.usefixtures("guarded")
@pytest.mark.parametrize("seed", range(20))
def test_no_decoder_of_a_client_is_reached_before_the_server_has_proved_itself(
    seed: int,
) -> None:
    chance = random.Random(seed)
    welcome = in_bytes(WELCOME)
    for _ in range(100):
        impostor = server_session(new_code(), RUN, 3)
        _, client = ends()
        greeting = impostor.reply()
        list(client.receive(greeting))
        verdict = chance.choice([bytes(34), bytes(2) + chance.randbytes(32)])
        data = chance.choice([welcome, verdict + welcome, verdict[:9] + welcome])
        for part in (data, welcome):
            assert heard_by(client, part) == []
        assert not client.established


@pytest.mark.usefixtures("guarded")
def test_no_decoder_is_reached_by_a_record_whose_tag_is_wrong() -> None:
    chance = random.Random(5)
    for _ in range(500):
        server, client = introduced()
        data = bytearray(said(client, HELLO))
        data[chance.randrange(4, len(data))] ^= 1 << chance.randrange(8)
        with pytest.raises(ProtocolError, match="its tag is wrong"):
            list(server.receive(bytes(data)))


def test_what_one_end_says_cannot_be_sent_back_to_it() -> None:
    server, client = introduced()
    with pytest.raises(ProtocolError, match="its tag is wrong"):
        list(client.receive(said(client, HELLO)))
    with pytest.raises(ProtocolError, match="its tag is wrong"):
        list(server.receive(said(server, WELCOME)))


def test_what_was_said_in_another_session_is_of_no_use() -> None:
    _, before = introduced()
    server, _ = introduced()
    with pytest.raises(ProtocolError, match="its tag is wrong"):
        list(server.receive(said(before, HELLO)))


def test_a_session_knows_that_something_has_come_in_part() -> None:
    server, client = introduced()
    data = said(client, HELLO)
    first = b"".join(client.seal(bundled([in_bytes(RESULT)[:50]])))
    rest = b"".join(client.seal(bundled([in_bytes(RESULT)[50:]])))

    known = []
    for part in (b"", data[:10], data[10:], first, rest):
        heard = list(server.receive(part))
        known.append((len(heard), server.unfinished))

    assert known == [(0, False), (0, True), (1, False), (0, True), (1, False)]


def test_a_wrong_code_leaves_something_to_be_said() -> None:
    server, client = ends(new_code())
    list(client.receive(server.reply()))
    with pytest.raises(AuthenticationError):
        list(server.receive(client.reply()))
    with pytest.raises(AuthenticationError, match="does not accept"):
        list(client.receive(server.reply()))


# How messages come in.


def test_a_message_that_trickles_is_overdue_and_a_slow_link_is_not() -> None:
    drip, slow = Progress(), Progress()
    state = 12 << 20  # twelve megabytes at twice the floor take 26 minutes
    for second in range(state // (2 * FLOOR)):
        now = 100.0 + second
        drip.note(1, now, ended=False, unfinished=True)
        slow.note(2 * FLOOR, now, ended=False, unfinished=True)
        assert not slow.overdue(now + 0.999)
        assert drip.overdue(now) is (second > MESSAGE_SECONDS)


def test_each_message_has_its_own_time() -> None:
    progress = Progress()
    for second in range(1000):
        now = float(second)
        assert not progress.overdue(now)
        progress.note(10, now, ended=True, unfinished=True)
    progress.note(10, 1000.0, ended=True, unfinished=False)

    assert not progress.overdue(1e9)


def test_a_message_may_take_its_time_and_no_longer() -> None:
    progress = Progress()
    progress.note(FLOOR, 50.0, ended=False, unfinished=True)

    assert not progress.overdue(50.0 + MESSAGE_SECONDS + 1.0)
    assert progress.overdue(50.0 + MESSAGE_SECONDS + 1.01)

"""The proof of the shared secret: by hand, in pieces, and against those who cheat."""

import contextlib
import hashlib
import hmac
import random
import struct
from collections import Counter
from collections.abc import Callable

import pytest

from utilities.errors import (
    AuthenticationError,
    IncompatibleError,
    ProtocolError,
    TrainingError,
)
from utilities.handshake import (
    ANSWER,
    GREETING,
    MAGIC,
    NO_BIND,
    VERDICT,
    ClientHandshake,
    Handshake,
    Keys,
    ServerHandshake,
    fresh_nonce,
)
from utilities.joincodes import OPEN, Code, new_code

CODE = Code(bytes(range(16)))
RUN = b"r" * 16
BIND = b"b" * 32
NONCE_S, NONCE_C = b"s" * 32, b"c" * 32


def server(
    code: Code = CODE, *, nonce: bytes = NONCE_S, bind: bytes = NO_BIND
) -> ServerHandshake:
    return ServerHandshake(code, RUN, bind, nonce)


def client(
    code: Code = CODE, *, nonce: bytes = NONCE_C, bind: bytes = NO_BIND
) -> ClientHandshake:
    return ClientHandshake(code, bind, nonce)


def give(to: Handshake, data: bytes) -> bytes:
    """Give bytes to one end; return what it answers, after an error as well."""
    with contextlib.suppress(TrainingError):
        to.take(memoryview(data))
    return to.reply()


def meet(ours: ServerHandshake, theirs: ClientHandshake) -> list[bytes]:
    """Let two ends speak until both are done; return all that was said."""
    greeting = ours.reply()
    theirs.take(memoryview(greeting))
    answer = theirs.reply()
    ours.take(memoryview(answer))
    verdict = ours.reply()
    theirs.take(memoryview(verdict))
    return [greeting, answer, verdict]


def refusal(act: Callable[[], object], kind: type[TrainingError]) -> str:
    with pytest.raises(kind) as caught:
        act()
    said = str(caught.value)
    assert "\n" not in said
    assert CODE.shown() not in said
    return said


# Both have the code.


def test_two_who_have_the_code_agree_upon_keys() -> None:
    ours, theirs = server(bind=BIND), client(bind=BIND)
    said = meet(ours, theirs)

    assert ours.keys == theirs.keys
    assert ours.keys is not None
    assert ours.keys.to_client != ours.keys.to_server
    assert theirs.run == RUN
    assert [len(part) for part in said] == [90, 72, 34]
    assert all(struct.size <= 512 for struct in (GREETING, ANSWER, VERDICT))


def test_what_is_said_is_what_anybody_computes_from_the_description() -> None:
    ours, theirs = server(), client()
    greeting, answer, verdict = meet(ours, theirs)

    def mac(role: bytes, said: bytes) -> bytes:
        whole = role + hashlib.sha256(said).digest()
        return hmac.new(CODE.secret, whole, "sha256").digest()

    assert greeting == b"ESNET\0\x01\0\0\0" + NONCE_S + RUN + bytes(32)
    begun = b"ESNET\0\x01\0" + NONCE_C
    assert answer == begun + mac(b"es1 client", greeting + begun)
    said = greeting + answer
    assert verdict == b"\0\0" + mac(b"es1 server", said + b"\0\0")
    assert ours.keys == Keys(mac(b"es1 c2s", said), mac(b"es1 s2c", said))


def test_bytes_may_come_one_at_a_time_and_more_may_follow() -> None:
    ours, theirs = server(), client()
    for byte in ours.reply():
        assert not theirs.take(memoryview(bytes([byte])))
    answer = theirs.reply()
    for byte in answer[:-1]:
        assert not ours.take(memoryview(bytes([byte])))
        assert ours.reply() == b""
    assert bytes(ours.take(memoryview(answer[-1:] + b"more"))) == b"more"
    verdict = ours.reply()
    for byte in verdict[:-1]:
        theirs.take(memoryview(bytes([byte])))
        assert theirs.keys is None
    assert bytes(theirs.take(memoryview(verdict[-1:] + b"and"))) == b"and"
    assert theirs.keys == ours.keys


def test_nonces_and_keys_are_never_the_same_twice() -> None:
    assert len({fresh_nonce() for _ in range(100)}) == 100
    keys = set()
    for _ in range(10):
        ours = server(nonce=fresh_nonce())
        meet(ours, client())
        assert ours.keys is not None
        keys |= {ours.keys.to_client, ours.keys.to_server}
    assert len(keys) == 20


def test_keys_do_not_show_themselves() -> None:
    assert repr(Keys(b"a" * 32, b"b" * 32)) == "Keys()"


def test_a_server_that_is_open_to_all_takes_those_who_agree() -> None:
    ours, theirs = server(OPEN), client(OPEN)
    meet(ours, theirs)

    assert ours.keys == theirs.keys


# One of them does not.


def test_a_client_with_another_code_is_told_and_gets_nothing() -> None:
    ours, theirs = server(), client(new_code())
    theirs.take(memoryview(ours.reply()))
    answer = theirs.reply()
    said = refusal(lambda: ours.take(memoryview(answer)), AuthenticationError)
    assert said == "it does not have this server's join code"

    verdict = ours.reply()
    assert verdict == b"\1\0" + bytes(32)
    said = refusal(lambda: theirs.take(memoryview(verdict)), AuthenticationError)
    assert said == "the server does not accept the join code"
    assert ours.keys is None
    assert theirs.keys is None


def test_a_server_that_cannot_prove_itself_gets_nothing() -> None:
    theirs = client()
    theirs.take(memoryview(server(new_code()).reply()))
    theirs.reply()
    verdict = VERDICT.pack(0, b"p" * 32)

    said = refusal(lambda: theirs.take(memoryview(verdict)), AuthenticationError)
    assert said.startswith("the server cannot prove that it has the join code")
    assert theirs.keys is None


def test_a_verdict_that_nobody_knows_is_no_proof() -> None:
    ours, theirs = server(), client()
    theirs.take(memoryview(ours.reply()))
    ours.take(memoryview(theirs.reply()))
    verdict = ours.reply()

    changed = memoryview(b"\2\0" + verdict[2:])
    refusal(lambda: theirs.take(changed), AuthenticationError)


@pytest.mark.parametrize(
    ("ours", "theirs", "way_out"),
    [(OPEN, CODE, "add --noAuth"), (CODE, OPEN, "run this without --noAuth")],
)
def test_whoever_is_open_and_whoever_is_not_do_not_meet(
    ours: Code, theirs: Code, way_out: str
) -> None:
    greeting, end = memoryview(server(ours).reply()), client(theirs)

    assert way_out in refusal(lambda: end.take(greeting), AuthenticationError)
    assert end.reply() == b"", "nothing that could be guessed against"


@pytest.mark.parametrize("pair", [(BIND, NO_BIND), (NO_BIND, BIND), (BIND, RUN * 2)])
def test_another_certificate_than_the_one_shown_is_refused(
    pair: tuple[bytes, bytes],
) -> None:
    ours, theirs = server(bind=pair[0]), client(bind=pair[1])
    greeting = memoryview(ours.reply())

    said = refusal(lambda: theirs.take(greeting), AuthenticationError)
    assert "names another certificate" in said
    assert theirs.reply() == b""


def test_a_certificate_that_is_exchanged_on_the_way_spoils_the_proof() -> None:
    # The client's own view goes into its proof, so lying in the greeting does not help.
    ours, theirs = server(bind=BIND), client()
    greeting = ours.reply()
    theirs.take(memoryview(greeting[:-32] + NO_BIND))
    answer = memoryview(theirs.reply())

    refusal(lambda: ours.take(answer), AuthenticationError)


@pytest.mark.parametrize(
    ("data", "begun"),
    [
        (b"GET / HTTP/1.1\r\n", "GET / "),
        (b"\x16\x03\x01\x02\x00\x01", "\\x16\\x03"),
        (b"ESNET\1", "ESNET\\x01"),
        (bytes(90), "\\x00\\x00"),
    ],
)
@pytest.mark.parametrize("end", [server, client])
def test_what_speaks_something_else_is_refused_at_its_first_bytes(
    data: bytes, begun: str, end: Callable[[], Handshake]
) -> None:
    said = refusal(lambda: end().take(memoryview(data[:7])), ProtocolError)
    assert said.startswith("handshake: it does not speak this program's protocol")
    assert begun in said


def test_one_wrong_byte_is_enough() -> None:
    refusal(lambda: server().take(memoryview(b"G")), ProtocolError)


def test_other_versions_are_told_with_the_way_out() -> None:
    greeting = MAGIC + b"\2\0" + server().reply()[8:]
    said = refusal(lambda: client().take(memoryview(greeting)), IncompatibleError)
    assert "version 2 of the handshake, this program 1" in said
    answer = MAGIC + b"\3\0" + bytes(64)
    said = refusal(lambda: server().take(memoryview(answer)), ProtocolError)
    assert "expected version 1, got 3" in said


def test_nothing_is_read_after_an_error() -> None:
    ours = server()
    refusal(lambda: ours.take(memoryview(bytes(72))), ProtocolError)


# Ten thousand of them.


class Eavesdropper:
    """Knows all that two honest ends have ever said to each other, and no code."""

    def __init__(self, sessions: int) -> None:
        self.said: list[list[bytes]] = []
        for _ in range(sessions):
            code_bind = random.Random(len(self.said)).choice([NO_BIND, BIND])
            ours = server(nonce=fresh_nonce(), bind=code_bind)
            self.said.append(meet(ours, client(nonce=fresh_nonce(), bind=code_bind)))


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return bytes of the same length, at least one of them another."""
    changed = bytearray(data)
    kind = chance.randrange(4)
    place = chance.randrange(len(data))
    if kind == 0:
        changed[place] ^= 1 << chance.randrange(8)
    elif kind == 1:
        changed[place] = (changed[place] + chance.randrange(1, 256)) % 256
    elif kind == 2:
        end = min(len(data), place + chance.randrange(1, 40))
        changed[place:end] = chance.randbytes(end - place)
    else:
        other = chance.randrange(len(data))
        changed[place], changed[other] = changed[other], changed[place]
    if bytes(changed) == data:
        changed[place] ^= 0x80
    return bytes(changed)


def spliced(first: bytes, second: bytes, chance: random.Random) -> bytes:
    cut = chance.randrange(1, len(first))
    return first[:cut] + second[cut : len(first)]


def attack_server(spy: Eavesdropper, chance: random.Random) -> tuple[str, bool]:
    """Try to get into a server; return how, and whether it worked."""
    past = chance.choice(spy.said)
    other = chance.choice(spy.said)
    ours = server(nonce=fresh_nonce(), bind=chance.choice([NO_BIND, BIND]))
    greeting = ours.reply()
    how = chance.choice(["mutated", "replayed", "reflected", "spliced", "forged"])
    if how == "mutated":  # an honest client's answer to this greeting, changed
        honest = client(nonce=fresh_nonce(), bind=greeting[-32:])
        honest.take(memoryview(greeting))
        data = mutated(honest.reply(), chance)
    elif how == "replayed":
        data = past[1]
    elif how == "reflected":  # what this or another server says, as if it were ours
        data = chance.choice([greeting, past[0], past[2] + past[2] + past[2]])[:72]
        data += bytes(72 - len(data))
        data = chance.choice([data, MAGIC + b"\1\0" + data[8:]])
        proof = chance.choice([past[2][-32:], greeting[-32:], greeting[10:42]])
        data = chance.choice([data, data[:-32] + proof])
    elif how == "spliced":
        data = spliced(past[1], other[1], chance)
        if data in (past[1], other[1]):
            data = mutated(data, chance)
    else:
        data = MAGIC + b"\1\0" + chance.randbytes(64)
    give(ours, data)
    return f"server, {how}", ours.keys is not None


def attack_client(spy: Eavesdropper, chance: random.Random) -> tuple[str, bool]:
    """Try to pass for the server; return how, and whether it worked."""
    past = chance.choice(spy.said)
    other = chance.choice(spy.said)
    theirs = client(nonce=fresh_nonce(), bind=past[0][-32:])
    how = chance.choice(["mutated", "replayed", "reflected", "spliced", "forged"])
    greeting = past[0] if how != "mutated" else mutated(past[0], chance)
    answer = give(theirs, greeting)
    verdict = past[2]
    if how == "mutated" and answer:
        # A true server that is reached through a greeting that was changed.
        ours = server(nonce=past[0][10:42], bind=past[0][-32:])
        ours.reply()
        verdict = give(ours, answer) or past[2]
    elif how == "reflected" and answer:
        verdict = chance.choice([b"\0\0" + answer[-32:], b"\0\0" + answer[8:40]])
    elif how == "spliced":
        verdict = spliced(past[2], other[2], chance)
    elif how == "forged":
        verdict = b"\0\0" + chance.randbytes(32)
    give(theirs, verdict)
    return f"client, {how}", theirs.keys is not None


def relayed(chance: random.Random) -> tuple[str, bool]:
    """Change one byte of what two honest ends say; return whether both are content."""
    ours = server(nonce=fresh_nonce(), bind=BIND)
    theirs = client(nonce=fresh_nonce(), bind=BIND)
    which = chance.randrange(3)
    data = ours.reply()
    ends: tuple[Handshake, ...] = (theirs, ours, theirs)
    for number, end in enumerate(ends):
        data = give(end, mutated(data, chance) if number == which and data else data)
    fooled = theirs.keys is not None or (which < 2 and ours.keys is not None)
    return f"both, part {which}", fooled


def test_none_of_ten_thousand_attempts_gets_in() -> None:
    spy, chance = Eavesdropper(50), random.Random(10)
    tried: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    for attempt in range(10_000):
        kind = attempt % 5
        if kind < 2:
            how, worked = attack_server(spy, chance)
        elif kind < 4:
            how, worked = attack_client(spy, chance)
        else:
            how, worked = relayed(chance)
        tried[how] += 1
        accepted[how] += worked
    print(f"\n{tried.total()} handshakes, accepted {accepted.total()}: {dict(tried)}")

    assert tried.total() == 10_000
    assert min(tried.values()) > 300, "of each kind"
    assert accepted.total() == 0, accepted


def test_the_attempts_would_be_accepted_but_for_what_they_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without the comparison the same attempts get in: the test above can fail.
    spy, chance = Eavesdropper(5), random.Random(11)
    monkeypatch.setattr(hmac, "compare_digest", lambda _a, _b: True)
    results = [attack_server(spy, chance) for _ in range(300)]
    results += [attack_client(spy, chance) for _ in range(300)]

    assert sum(worked for _, worked in results) > 300


def test_a_replay_works_only_where_a_server_repeats_itself() -> None:
    ours = server()
    _, answer, _ = meet(ours, client())
    again = server()  # with the same nonce, which no server does
    again.take(memoryview(answer))

    assert again.keys == ours.keys
    give(fresh := server(nonce=fresh_nonce()), answer)
    assert fresh.keys is None


def test_an_answer_carries_its_parts_where_the_description_says() -> None:
    _, answer, _ = meet(server(), client())

    assert ANSWER.unpack(answer)[:3] == (MAGIC, 1, NONCE_C)
    assert struct.calcsize("<6sH32s32s") == ANSWER.size

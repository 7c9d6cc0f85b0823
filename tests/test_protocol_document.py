"""docs/protocol.md is true: examples and tables are held against the program."""

import hashlib
import hmac
import pickle
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.messages import SAMPLES
from tests.slow_protocol import ARRAYS, DTYPES, FIELDS, most_rows
from utilities import communication, frames, handshake, lines, plaindata, sealing
from utilities.errors import AuthenticationError
from utilities.handshake import NO_BIND, ClientHandshake, ServerHandshake
from utilities.joincodes import ALPHABET, OPEN, PIN_BYTES, Code, new_code, read_code
from utilities.plaindata import loads
from utilities.protocol import PROTOCOL_VERSION, SPECS
from utilities.sealing import Opener, Sealer, bundled
from utilities.selftest import ARITHMETIC_EXPECTED, NOISE_EXPECTED
from utilities.sessions import FLOOR, MESSAGE_SECONDS
from utilities.wire import LEGAL, Inbox, Phase, Side, encode

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "protocol.md"
TEXT = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
CODE = Code(bytes(range(16)))
NONCES, RUN = (b"S" * 32, b"C" * 32), b"R" * 16
MEMBERS = {"first": b"first", "second": b"second"}


# What the program says.


def spoken() -> tuple[ServerHandshake, list[bytes]]:
    """Return a server's end, and greeting, answer and verdict."""
    server = ServerHandshake(CODE, RUN, NO_BIND, NONCES[0])
    client = ClientHandshake(CODE, NO_BIND, NONCES[1])
    greeting = server.reply()
    client.take(memoryview(greeting))
    answer = client.reply()
    server.take(memoryview(answer))
    return server, [greeting, answer, server.reply()]


def refused() -> bytes:
    """Return what a server says to a wrong proof."""
    server = ServerHandshake(CODE, RUN, NO_BIND, NONCES[0])
    client = ClientHandshake(new_code(), NO_BIND, NONCES[1])
    client.take(memoryview(server.reply()))
    with pytest.raises(AuthenticationError):
        server.take(memoryview(client.reply()))
    return server.reply()


def example(name: str) -> bytes:
    """Return the bytes of an example, by the program."""
    server, parts = spoken()
    assert server.keys is not None
    handshakes = dict(zip(("greeting", "answer", "verdict"), parts, strict=True))
    if name in handshakes:
        return handshakes[name]
    if name == "refusal":
        return refused()
    if name.startswith("key "):
        keys = {"es1 c2s": server.keys.to_server, "es1 s2c": server.keys.to_client}
        return keys[name[4:]]
    if name.startswith("record "):
        sealer = Sealer(server.keys.to_server)
        data = [b"".join(sealer.seal(bundled([m]))) for m in MEMBERS.values()]
        return data[int(name[7:])]
    if name == "plain":
        return plaindata.dumps({"kind": "sum", "step": 5, "seconds": 0.5})
    assert name.startswith("message "), f"no example is known as {name}"
    return b"".join(encode(SAMPLES[name[8:]]))


def wrapped(data: bytes) -> str:
    """Return bytes as the document shows them."""
    text = data.hex()
    return "\n".join(text[i : i + 64] for i in range(0, len(text), 64))


# What the document says.


def blocks() -> dict[str, bytes]:
    """Return the bytes of each example by its name."""
    found = re.findall(r"^```hex (.+)\n([0-9a-f\s]+)^```$", TEXT, re.M)
    names = [name for name, _ in found]
    assert len(names) == len(set(names)), "a name for each example"
    return {name: bytes.fromhex(content) for name, content in found}


def section(title: str) -> str:
    """Return what stands below a heading, up to the next one of its rank."""
    match = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^\1 |\Z)", TEXT, re.M | re.S)
    assert match is not None, f"no section {title!r}"
    return match[2]


def tables(text: str) -> Iterator[list[list[str]]]:
    """Yield the rows of each table, its head first."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.M):
        rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in table.splitlines()]
        cells = [
            [c.strip().strip("`").replace("\\|", "|") for c in row] for row in rows
        ]
        yield [cells[0], *cells[2:]]


def table(title: str, head: str) -> list[list[str]]:
    """Return the rows of the section's table whose head begins so."""
    (rows,) = (t[1:] for t in tables(section(title)) if t[0][0] == head)
    return rows


NAMES = [
    *("greeting", "answer", "verdict", "refusal", "key es1 c2s", "key es1 s2c"),
    *("record 0", "record 1", "plain"),
    *(f"message {kind}" for kind in SPECS),
]


def test_there_is_an_example_of_everything_and_no_other() -> None:
    assert sorted(blocks()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_what_the_program_says(name: str) -> None:
    expected = example(name)

    assert blocks()[name] == expected, f"expected:\n{wrapped(expected)}"


def test_the_examples_of_the_handshake_follow_from_the_words_beside_them() -> None:
    found, secret = blocks(), bytes.fromhex("000102030405060708090a0b0c0d0e0f")

    def proof(role: bytes, said: bytes) -> bytes:
        whole = role + hashlib.sha256(said).digest()
        return hmac.new(secret, whole, "sha256").digest()

    greeting, answer = found["greeting"], found["answer"]
    status, proved = found["verdict"][:2], found["verdict"][2:]
    begin = struct.pack("<6sHH", b"ESNET\0", 1, 0)
    assert greeting == begin + b"\x53" * 32 + b"\x52" * 16 + bytes(32)
    assert answer[:40] == struct.pack("<6sH", b"ESNET\0", 1) + b"\x43" * 32
    assert answer[40:] == proof(b"es1 client", greeting + answer[:40])
    assert (status, proved) == (
        b"\0\0",
        proof(b"es1 server", greeting + answer + status),
    )
    assert found["refusal"] == b"\1\0" + bytes(32)
    for role in ("es1 c2s", "es1 s2c"):
        assert found[f"key {role}"] == proof(role.encode(), greeting + answer)


def test_the_examples_of_records_follow_from_the_words_beside_them() -> None:
    found = blocks()
    for counter, data in enumerate((b"first", b"second")):
        record = found[f"record {counter}"]
        signed = struct.pack("<QI", counter, len(data)) + hashlib.sha256(data).digest()
        tag = hmac.new(found["key es1 c2s"], signed, "sha256").digest()[:16]
        assert record == struct.pack("<I", len(data)) + data + tag
    opener = Opener(found["key es1 c2s"])
    both = found["record 0"] + found["record 1"]
    assert [bytes(p) for p in opener.open(both)] == [b"first", b"second"]


@pytest.mark.parametrize("kind", SPECS)
def test_the_examples_of_messages_are_read(kind: str) -> None:
    first = {"result", "state", "sum", "recalled", "hello"}
    side = Side.CLIENT if kind in first else Side.SERVER
    opening = LEGAL[side, Phase.OPENING]
    inbox = Inbox(side)
    if kind not in opening:
        inbox.feed(
            blocks()["message hello" if side is Side.CLIENT else "message welcome"]
        )
        list(inbox.messages())
    inbox.feed(blocks()[f"message {kind}"])
    (message,) = inbox.messages()

    assert b"".join(encode(message)) == blocks()[f"message {kind}"]


def test_the_sizes_of_structures_are_those_of_the_table() -> None:
    rows = table("1. The handshake", "structure")
    sizes = {row[0]: (row[1], int(row[2])) for row in rows}

    assert sizes == {
        "greeting": ("server", handshake.GREETING.size),
        "answer": ("client", handshake.ANSWER.size),
        "verdict": ("server", handshake.VERDICT.size),
    }
    for row in rows:
        widths = re.findall(r"\w+ (?:u(\d+)|(\d+))", row[3])
        bits = [int(u) // 8 if u else int(n) for u, n in widths]
        assert sum(bits) == int(row[2]), row[0]


def test_the_join_code_is_written_as_described() -> None:
    whole = section("The join code")
    shown = re.findall(r"^```text\n(.+)\n```$", whole, re.M)

    assert shown == [ALPHABET, CODE.shown()]
    assert read_code(shown[1]) == CODE
    assert f"`{OPEN.secret.hex()}`" in whole
    assert f"first {PIN_BYTES} bytes" in whole


# Tables.


@pytest.mark.parametrize("kind", SPECS)
def test_each_message_has_its_fields_and_arrays(kind: str) -> None:
    fields = {row[0]: row[1] for row in table(kind, "field")}
    arrays = [t[1:] for t in tables(section(kind)) if t[0][0] == "array"]
    shown = [row for rows in arrays for row in rows]

    assert fields == FIELDS[kind]
    assert [row[0] for row in shown] == list(ARRAYS[kind])
    for name, dtypes, most, _ in shown:
        assert tuple(dtypes.replace("`", "").split(" or ")) == DTYPES[name]
        count, unit = most.split()
        assert int(count) == most_rows(kind, name)
        assert unit == ("rows" if name == "segments" else "numbers")
    # The lists of the tests are held against the program's in test_wire.
    assert SPECS[kind].keys.keys() == fields.keys()
    assert list(SPECS[kind].arrays) == [row[0] for row in shown]


def test_every_type_of_a_field_is_explained() -> None:
    explained = {row[0] for row in table("5. Messages", "type")}
    used = {
        re.sub(r"text of \d+", "text of N", word)
        for fields in FIELDS.values()
        for word in fields.values()
    }

    assert explained == used


def test_who_may_say_what_when_is_what_the_program_allows() -> None:
    sides = {"client": Side.CLIENT, "server": Side.SERVER}
    phases = {"first": Phase.OPENING, "then": Phase.JOINED}
    shown = {
        (sides[who], phases[when]): frozenset(what.split(", "))
        for who, when, what in table("5. Messages", "who")
    }

    assert shown == LEGAL


def test_all_opcodes_are_listed_with_their_bytes_and_names() -> None:
    rows = table("4. Plain data", "opcode")
    listed = {}
    for row in rows:
        code, name = re.fullmatch(r"([0-9a-f]{2})` (\w+)", row[0]).groups()  # type: ignore[union-attr]
        assert getattr(pickle, name)[0] == int(code, 16)
        listed[int(code, 16)] = name

    assert listed.keys() == plaindata._OPCODES.keys()


def test_the_example_of_plain_data_is_read() -> None:
    expected = {"kind": "sum", "step": 5, "seconds": 0.5}

    assert loads(blocks()["plain"]) == expected == pickle.loads(blocks()["plain"])


def test_numbers_in_the_text_are_those_of_the_program() -> None:
    plain = section("4. Plain data").replace("\n", " ")
    for number in (plaindata.MAX_DEPTH, plaindata.MAX_NODES, plaindata.MAX_TEXT):
        assert f" {number} " in plain
    cut = section("3. Frames")
    assert f"at most {frames.MAX_TAG} " in cut
    assert f"at most {plaindata.MAX_BYTES} bytes" in cut
    assert all(f"`{dtype}`" in cut for dtype in frames.DTYPES)
    assert f"1 to {sealing.MOST} " in section("2. Records")
    assert f"first {sealing.TAG} bytes" in section("2. Records")
    course = section("The course of a session")
    assert f"`{NOISE_EXPECTED.hex()}`" in course
    assert f"`{ARITHMETIC_EXPECTED.hex()}`" in course
    assert f"version of the messages: {PROTOCOL_VERSION} " in section("hello")


def test_the_limits_are_those_of_the_program() -> None:
    limits = dict(table("Limits", "what"))

    assert limits == {
        "the handshake, TLS included": f"{communication.SHAKE_SECONDS:g} s",
        "a hello, since the connection was made": f"{communication.HELLO_SECONDS:g} s",
        "a message that has begun": (
            f"{MESSAGE_SECONDS:g} s, and a second more for every {FLOOR} bytes"
        ),
        "bytes of TLS before keys are agreed upon": str(lines.EARLY),
        "connections that have proved nothing": (
            f"{communication.MOST_STRANGERS}, from one address "
            f"{communication.MOST_STRANGERS_OF_ONE}; then the oldest is closed"
        ),
        "connections from one address (IPv6: from one /64)": str(
            communication.MOST_OF_ONE
        ),
        "silence of the network": (
            f"15 s: probes after {lines.IDLE} s, then every {lines.PAUSE} s"
        ),
    }

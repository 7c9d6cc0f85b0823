"""The readings of --doctor: of this machine, and of servers of all kinds."""

import contextlib
import itertools
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.loopback import CODE, Served
from tests.messages import SAMPLES
from utilities import checkup
from utilities.checkup import (
    examine,
    own_rows,
    print_apart,
    product_cores,
    trials_per_second,
)
from utilities.clientoptions import ClientOptions
from utilities.config import Config
from utilities.doctor import FAIL, LEFT_OUT, OK, WARN, Row
from utilities.evolution import Setting, initial_state
from utilities.model import Floats
from utilities.protocol import End, Goodbye, Hello, Message, Welcome
from utilities.wire import encode

PATIENCE = 20.0
SETTING = Setting(Config(vocab_size=5, hidden_size=3, sequence_length=4), "0" * 64)


def welcome() -> Welcome:
    import numpy as np

    nothing: Floats = np.zeros(5, np.float32)
    state = initial_state(SETTING, 1, nothing)
    digest = state.digest(SETTING.fingerprint)
    config = SETTING.config.to_json()
    return Welcome(config, SETTING.text_sha256, "", 7, 7, digest, *state.arrays)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(checkup, "SPEED_SECONDS", 0.01)
    monkeypatch.setattr(checkup, "PRODUCT_SECONDS", 0.01)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@contextmanager
def answering(
    answer: bytes | None, *, sealed: bool = True
) -> Iterator[tuple[int, list[Message]]]:
    """Serve two connections: the first is only opened, the second gets an answer."""
    heard: list[Message] = []

    def serve(listener: socket.socket) -> None:
        for number in range(2):
            connection, _ = listener.accept()
            connection.settimeout(PATIENCE)
            with connection:
                if not number:
                    continue
                if not sealed:
                    connection.sendall(answer or b"")
                    continue
                served = Served(connection).shake()
                if answer is None:
                    continue  # it hangs up
                served.sendall(answer)
                with contextlib.suppress(ConnectionError):  # whoever has left in haste
                    while (messages := served.receive()) is not None:
                        heard.extend(messages)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1], heard
        thread.join(PATIENCE)
    assert not thread.is_alive()


def in_bytes(message: Message) -> bytes:
    return b"".join(encode(message))


def way(address: str) -> list[Row]:
    return examine(ClientOptions(address, "desk", code=CODE))[-4:]


# This machine.


def test_this_machine_can_take_part() -> None:
    rows = {row.name: row for row in own_rows()}

    assert list(rows) == [
        *("program", "numbers", "cores", "speed", "clock", "power", "disk")
    ]
    assert rows["numbers"].state == OK
    assert not [row for row in rows.values() if row.state == FAIL]


def test_the_speed_is_that_of_the_fastest_of_several_tries() -> None:
    # Three tries that take 4, 2 and 3 seconds.
    moments = itertools.chain([0.0, 0.0, 4.0, 4.0, 6.0, 6.0, 9.0])
    trials = Setting(Config(vocab_size=64), "").block_groups * 64

    assert trials_per_second(9.0, lambda: next(moments)) == trials / 2


def test_a_product_takes_some_core_and_not_all_that_there_are() -> None:
    assert 0 <= product_cores(0.01) <= 4 * (os.cpu_count() or 1)


def test_a_system_without_a_load_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "getloadavg", raising=False)

    assert checkup.load() is None


# The way.


def test_a_server_that_welcomes_is_left_with_a_goodbye() -> None:
    with answering(in_bytes(welcome())) as (port, heard):
        rows = way(f"127.0.0.1:{port}")

    assert [row.state for row in rows] == [OK] * 4
    weights = SETTING.layout.size
    assert rows[-1].found.startswith(f"step 7 of rnn, 1 x 3 units, {weights} weights, ")
    hello, goodbye = heard
    assert isinstance(hello, Hello)
    assert (hello.name, hello.identity) == ("doctor", b"")
    assert goodbye == Goodbye("finished", "a check, no client")


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (in_bytes(Goodbye(End.REFUSED.value, "too old")), 4, "it refuses this machine"),
        (in_bytes(Goodbye(End.FINISHED.value, "done")), 3, "it says goodbye: done"),
        (b"SSH-2.0-OpenSSH_9.2\r\n" * 3, 4, "127.0.0.1:"),
        (in_bytes(SAMPLES["welcome"]), 4, "the server's configuration is not under"),
        (in_bytes(SAMPLES["resume"]), 4, "127.0.0.1:"),  # nobody was away
    ],
    ids=["refused", "finished", "another program", "configuration", "resume"],
)
def test_a_server_that_does_not_is_told_by_kind(
    answer: bytes, code: int, words: str
) -> None:
    with answering(answer, sealed=not answer.startswith(b"SSH")) as (port, _):
        row = way(f"127.0.0.1:{port}")[-1]

    assert (row.name, row.state, row.exit_code) == ("server", FAIL, code)
    assert row.found.startswith(words)


def test_a_server_that_says_nothing_is_waited_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkup, "WELCOME_SECONDS", 1.0)
    with answering(b"") as (port, _):
        row = way(f"127.0.0.1:{port}")[-1]

    assert (row.name, row.state) == ("server", WARN)


def test_a_server_that_hangs_up_is_told() -> None:
    with answering(None) as (port, _):
        rows = way(f"127.0.0.1:{port}")

    assert (rows[-1].name, rows[-1].state, rows[-1].exit_code) == ("server", FAIL, 3)


def test_where_nobody_listens_nothing_more_is_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    rows = way(f"127.0.0.1:{port}")

    assert [row.state for row in rows] == [OK, OK, FAIL, LEFT_OUT]
    assert "nothing listens there" in rows[2].found
    assert rows[3].found == "needs connection"


def test_a_name_that_nobody_knows_ends_the_way() -> None:
    rows = way("no..name")

    assert [row.state for row in rows] == [FAIL, *[LEFT_OUT] * 3]
    assert "the name is not known" in rows[0].found
    assert rows[0].exit_code == 3


def test_without_a_route_nothing_is_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(_: str) -> str:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(checkup, "own_address", nowhere)
    rows = way("127.0.0.1")

    assert [row.state for row in rows] == [OK, FAIL, LEFT_OUT, LEFT_OUT]
    assert rows[1].found == "none to 127.0.0.1: Network is unreachable"


# What is shown.


@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize("as_json", [False, True])
def test_the_report_is_shown_and_gives_the_exit_code(
    as_json: bool, remembered: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ClientOptions(
        "no..name:7", "desk", doctor=True, json=as_json, remembered=remembered
    )

    assert checkup.report(options) == 3
    said, apart = capsys.readouterr()
    assert ("taking no..name:7, the last one" in apart) == remembered
    if as_json:
        assert json.loads(said)["exitCode"] == 3
        assert said.count("\n") == 1
    else:
        assert said.startswith("From this machine to no..name:7\n")
        folders = ("basicClient", "/")  # longer than a line, here
        lines = [x for x in said.splitlines() if not any(f in x for f in folders)]
        assert max(map(len, lines)) <= 80


def test_what_is_no_part_of_the_answer_does_not_go_into_a_pipe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_apart("Join code kept")

    assert capsys.readouterr() == ("", "Join code kept\n")

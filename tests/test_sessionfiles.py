import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilities.events import Note
from utilities.peers import Debt, Peer
from utilities.protocol import Hello
from utilities.sessionfiles import (
    EVENTS,
    EVENTS_BYTES,
    FRESH_SECONDS,
    MOST_EVENTS,
    SESSION,
    End,
    Session,
    SessionLog,
    client_lines,
    read_events,
    read_session,
)
from utilities.tally import Closed

HELLO = Hello(2, "1.0", "3.12.1", "2.1.0", "lab", b"n" * 32, b"a" * 32)
CLOSED = Closed(7, 3.5, 2.0, 1024, 2, 0, 0, b"d" * 32)


class Clocks:
    """A clock and the time of day, 1,000 s apart."""

    def __init__(self) -> None:
        self.now = 0.0

    def wall(self) -> float:
        return self.now + 1000

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def session(tmp_path: Path, clocks: Clocks) -> SessionLog:
    return SessionLog(tmp_path, ["python basicClient.py lab:1"], clocks, clocks.wall)


def told(folder: Path) -> Session:
    session = read_session(folder)
    assert session is not None
    return session


def here(id: int, name: str, **state: Any) -> Peer:
    return Peer(id, name, **{"ready": True, **state})


def test_lines_name_every_address_at_which_clients_may_come() -> None:
    line = "python basicClient.py"
    assert client_lines("lab", 7, ["10.0.0.1"]) == [f"{line} lab:7"]
    assert client_lines("0.0.0.0", 7, ["10.0.0.1", "fe80::1"]) == [
        f"{line} 10.0.0.1:7",
        f"{line} [fe80::1]:7",
    ]
    assert client_lines("0.0.0.0", 7, []) == [f"{line} 127.0.0.1:7"]
    assert client_lines("lab", 7, [], open_to_all=True) == [f"{line} lab:7 --noAuth"]


def test_a_session_tells_who_is_here(
    tmp_path: Path, session: SessionLog, clocks: Clocks
) -> None:
    session.met(1, HELLO, "10.0.0.9")
    session.met(2, HELLO, "")
    peers = [here(1, "lab"), here(2, "lab#2", ready=False)]
    session.tell(7, peers)

    found = told(tmp_path)
    assert (found.time, found.state, found.step) == (1000.0, "training", 7)
    assert found.join == ("python basicClient.py lab:1",)
    first, second = found.clients
    assert first == {
        "name": "lab",
        "state": "working",
        "machine": "10.0.0.9, Python 3.12.1, numpy 2.1.0",
        "joined": 1000.0,
        "trials": 0,
        "rate": None,
        "late": 0,
        "lateOf": 0,
    }
    assert second["machine"] == "Python 3.12.1, numpy 2.1.0"
    assert second["state"] == "gets the state"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"waited": False}, "late: not waited for"),
        ({"ready": False}, "gets the state"),
        ({"ready": False, "reason": "odd"}, "gets the state again: odd"),
    ],
)
def test_states_are_said_in_words(
    changes: dict[str, Any], words: str, tmp_path: Path, session: SessionLog
) -> None:
    session.tell(7, [here(1, "lab", **changes)])

    (client,) = told(tmp_path).clients
    assert client["state"] == words
    assert client["machine"] == ""  # nobody has met it


def test_a_session_tells_when_it_ends(tmp_path: Path, clocks: Clocks) -> None:
    clocks.now = 5.0
    log = SessionLog(*(tmp_path, [], clocks, clocks.wall), last_step=30, seconds=60.0)
    log.tell(7, [])

    assert told(tmp_path).end == End(30, 1065.0)
    SessionLog(tmp_path, [], clocks, clocks.wall).tell(7, [])
    assert told(tmp_path).end == End()


def test_the_session_says_whether_it_waits_or_ends(
    tmp_path: Path, session: SessionLog, clocks: Clocks
) -> None:
    session.tell(0, [])
    assert told(tmp_path).state == "waiting for clients"
    clocks.now = 2.0
    session.tell(3, [here(1, "lab")], ends=True)
    assert told(tmp_path).state == "stopping"
    session.end(4)  # however soon
    assert told(tmp_path).state == "ended"
    assert told(tmp_path).step == 4


def test_files_are_written_about_once_a_second_and_with_many_clients_more_rarely(
    tmp_path: Path, session: SessionLog, clocks: Clocks
) -> None:
    crowd = [here(i, f"c{i}") for i in range(300)]
    steps = []
    for step in range(10):
        clocks.now = step / 2
        session.tell(step, crowd if step >= 4 else [])
        steps.append(told(tmp_path).step)

    # Each second; once there are 300 clients, each three seconds.
    assert steps == [0, 0, 2, 2, 4, 4, 4, 4, 4, 4]
    clocks.now = 5.0
    session.tell(10, crowd)
    assert told(tmp_path).step == 10


def test_trials_are_counted_for_each_client_with_its_rate(
    tmp_path: Path, session: SessionLog, clocks: Clocks
) -> None:
    session.met(1, HELLO, "")
    peer = here(1, "lab")
    for step in range(3):
        clocks.now = 2.0 * step
        given = (("lab", 100 * (step + 1), 5), ("stranger", 1, 1))
        session.closed(replace(CLOSED, step=step, contributions=given), [peer])
    session.tell(3, [peer])

    (client,) = told(tmp_path).clients
    assert client["trials"] == 600
    assert client["rate"] == (200 + 300) / 4  # the first step began we know not when
    assert (client["late"], client["lateOf"]) == (0, 3)


def test_who_owes_an_answer_is_late_and_who_was_not_asked_is_not(
    tmp_path: Path, session: SessionLog
) -> None:
    late, idle, unknown = here(1, "late"), here(2, "idle"), here(3, "unknown")
    session.met(1, HELLO, "")
    session.met(2, HELLO, "")
    late.debts[7] = Debt(1.0, 0.0, answers=1)
    unknown.debts[7] = Debt(1.0, 0.0, answers=1)
    session.closed(CLOSED, [late, idle, unknown])
    session.tell(8, [late, idle])

    lates = [(c["name"], c["late"], c["lateOf"]) for c in told(tmp_path).clients]
    assert lates == [("late", 1, 1), ("idle", 0, 0)]


def test_who_comes_again_begins_anew(
    tmp_path: Path, session: SessionLog, clocks: Clocks
) -> None:
    session.met(1, HELLO, "")
    contributed = replace(CLOSED, contributions=(("lab", 5, 5),))
    session.closed(contributed, [here(1, "lab")])
    session.tell(1, [])  # it has gone
    clocks.now = 5.0
    session.met(2, HELLO, "")
    session.tell(2, [here(2, "lab")])

    (client,) = told(tmp_path).clients
    assert (client["trials"], client["joined"]) == (0, 1005.0)


# Events.


def test_events_are_appended_with_time_and_step(
    tmp_path: Path, session: SessionLog, clocks: Clocks
) -> None:
    session.note(1, Note("lab joined; 1 here", kind="join"))
    session.note(2, Note("odd", True))
    session.note(3, Note("plain\nly", kind=""))
    assert not (tmp_path / EVENTS).exists()
    session.tell(3, [])
    clocks.now = 9.0
    session.note(4, Note("x" * 1000, True, "audit"))
    session.end(4)

    found = read_events(tmp_path)
    assert [(e["time"], e["step"], e["kind"], e["warning"]) for e in found] == [
        (1000.0, 1, "join", False),
        (1000.0, 2, "warning", True),
        (1000.0, 3, "note", False),
        (1009.0, 4, "audit", True),
    ]
    assert found[2]["text"] == "plain\nly"
    assert found[3]["text"] == "x" * 400


def test_of_many_events_the_newest_stay(
    tmp_path: Path, session: SessionLog, clocks: Clocks
) -> None:
    for step in range(3000):
        session.note(step, Note("n" * 150))
        if step % 500 == 499:
            clocks.now += 1.0
            session.tell(step, [])

    assert (tmp_path / EVENTS).stat().st_size <= EVENTS_BYTES
    assert [event["step"] for event in read_events(tmp_path)] == list(
        range(3000 - MOST_EVENTS, 3000)
    )


def test_lines_that_make_no_sense_are_passed_over(tmp_path: Path) -> None:
    good = {"time": 1.0, "step": 2, "kind": "note", "text": "fine"}
    lines = [
        json.dumps(good),
        "{",
        "[]",
        *(json.dumps({**good, key: None}) for key in good),
        json.dumps({**good, "time": -1}),
        json.dumps({**good, "warning": "yes", "text": "also fine"}),
        '{"time": 5',  # torn
    ]
    (tmp_path / EVENTS).write_text("\n".join(lines), encoding="utf-8")

    found = read_events(tmp_path)
    assert [event["text"] for event in found] == ["fine", "also fine"]
    assert not found[1]["warning"]


def test_a_folder_without_the_files_has_no_session_and_no_events(
    tmp_path: Path,
) -> None:
    assert read_session(tmp_path) is None
    assert read_events(tmp_path) == []


def test_a_disk_that_takes_nothing_ends_nothing(tmp_path: Path, clocks: Clocks) -> None:
    gone = tmp_path / "gone"
    session = SessionLog(gone, [], clocks, clocks.wall)
    session.note(1, Note("lost"))
    session.tell(1, [])
    session.end(1)

    assert not gone.exists()


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(
    tmp_path: Path, session: SessionLog
) -> None:
    (tmp_path / SESSION).mkdir()  # nothing can be moved over a folder
    session.tell(1, [])

    assert [path.name for path in tmp_path.iterdir()] == [SESSION]


# Reading what anybody may have written.

GOOD: dict[str, Any] = {
    "time": 1000.0,
    "state": "training",
    "step": 7,
    "join": ["a"],
    "clients": [],
}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: {**content, "state": "dancing"},
        lambda content: {**content, "time": "now"},
        lambda content: {**content, "time": 1e30},
        lambda content: {**content, "step": None},
        lambda content: [content],
    ],
)
def test_a_session_that_makes_no_sense_is_none(
    damage: Callable[[dict[str, Any]], Any], tmp_path: Path
) -> None:
    (tmp_path / SESSION).write_text(json.dumps(GOOD))
    assert read_session(tmp_path) is not None
    (tmp_path / SESSION).write_text(json.dumps(damage(GOOD)))

    assert read_session(tmp_path) is None


def test_fields_of_clients_that_make_no_sense_are_none(tmp_path: Path) -> None:
    odd = {"name": 5, "state": "working", "rate": -1, "late": "3", "more": "x"}
    content = {**GOOD, "join": ["a", 5], "clients": [odd, "client", None]}
    (tmp_path / SESSION).write_text(json.dumps(content))

    found = told(tmp_path)
    assert found.join == ("a",)
    (client,) = found.clients
    assert {key for key, value in client.items() if value is not None} == {"state"}
    assert "more" not in client
    (tmp_path / SESSION).write_text(json.dumps({**GOOD, "join": 5, "clients": 6}))
    assert told(tmp_path).join == ()
    assert told(tmp_path).clients == ()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({}, End()),
        ({"endStep": 12, "endTime": 2000.5}, End(12, 2000.5)),
        ({"endStep": "12", "endTime": -1}, End()),
        ({"endStep": None, "endTime": 1e30}, End()),
    ],
)
def test_an_end_that_makes_no_sense_is_unknown(
    given: dict[str, Any], read: End, tmp_path: Path
) -> None:
    (tmp_path / SESSION).write_text(json.dumps({**GOOD, **given}))

    assert told(tmp_path).end == read


@given(st.binary(max_size=40))
def test_any_bytes_are_a_session_or_none(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("session")
    (folder / SESSION).write_bytes(content)
    (folder / EVENTS).write_bytes(content + b"\n")

    assert read_session(folder) is None
    assert read_events(folder) == []


def test_a_session_that_says_nothing_any_more_is_not_running() -> None:
    session = Session(1000.0, "training", 7, (), (), End())

    assert session.state_at(1000.0 + FRESH_SECONDS) == "training"
    assert session.state_at(1000.1 + FRESH_SECONDS) == "not running"
    assert session.state_at(999.9 - FRESH_SECONDS) == "not running"
    assert replace(session, state="ended").state_at(1e9) == "ended"

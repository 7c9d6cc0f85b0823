"""A whole client against a server that says what a test tells it to."""

import logging
import platform
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.loopback import CODE, Served
from utilities import admission, manners
from utilities import client as client_module
from utilities.client import Client, Pace, lend, workers
from utilities.clientoptions import ClientOptions
from utilities.config import Config
from utilities.errors import (
    IncompatibleError,
    NetworkError,
    ProtocolError,
    TrainingError,
)
from utilities.evolution import Segment, Setting, Update, advance, initial_state
from utilities.identity import Identity
from utilities.lastserver import last_server
from utilities.lines import connect, listen
from utilities.machine import config_folder
from utilities.manners import Hours
from utilities.protocol import (
    Begin,
    End,
    Goodbye,
    Hello,
    Message,
    Result,
    Shares,
    State,
    Sum,
    TokenBatch,
    Welcome,
)
from utilities.team import Team
from utilities.wire import encode

PATIENCE = 20.0
CONFIG = Config(
    vocab_size=5,
    hidden_size=3,
    sequence_length=4,
    directions_per_window=2,
    output_trials="none",
)
SETTING = Setting(CONFIG, "0" * 64)
TOKENS = np.tile(np.array([2, 3, 4, 3], np.uint8), 20)
START = initial_state(SETTING, 1, np.zeros(5, np.float32))
DIGEST = START.digest(SETTING.fingerprint)
WELCOME = Welcome(
    CONFIG.to_json(), SETTING.text_sha256, "", 0, 0, DIGEST, *START.arrays
)
BATCH = TokenBatch(0, TOKENS)
WORK = (Segment(7, 0, 1_000_000),)  # more than anybody does in a step
FINISHED = Goodbye(End.FINISHED.value, "the run has ended")
DROPPED = Goodbye(End.DROPPED.value, "come back")


def begin(step: int, seconds: float = 0.001, *, wanted: bool = False) -> Begin:
    return Begin(step, seconds, 0, wanted, WORK)


def update(step: int) -> Update:
    rewards = np.array([126, -126], np.int8)
    return Update(step, 0, 2, 0.01, (Segment(7, 0, 1),), rewards)


Say = tuple[Message, ...]
Script = list[Say | int]  # what to say, or how many messages to wait for
LOST: list[Script] = [[1]]  # a server that goes away after the hello


@dataclass
class Server:
    """Plays one script for each connection; keeps what it has heard."""

    listener: socket.socket
    scripts: list[Script]
    heard: list[list[Message]] = field(default_factory=list)
    error: Exception | None = None

    def play(self) -> None:
        try:
            for script in self.scripts:
                connection, _ = self.listener.accept()
                connection.settimeout(PATIENCE)
                with connection:
                    self.heard.append([])
                    self._session(connection, script, self.heard[-1])
        except (OSError, AssertionError, ProtocolError) as error:
            self.error = error  # told to the test

    def _session(
        self, connection: socket.socket, script: Script, heard: list[Message]
    ) -> None:
        served = Served(connection).shake()
        for part in script:
            if not isinstance(part, int):
                served.sendall(b"".join(p for m in part for p in encode(m)))
                continue
            wanted = len(heard) + part
            while len(heard) < wanted:
                messages = served.receive()
                assert messages is not None, f"the client is gone after {heard}"
                heard += messages
        connection.shutdown(socket.SHUT_WR)
        while (messages := served.receive()) is not None:
            heard += messages


@dataclass
class Stage:
    """A client and the server that it will meet."""

    port: int
    client: Client
    start: Callable[..., Server]

    def meets(self, *scripts: Script) -> list[list[Message]]:
        """Run the client; return what each session of the server has heard."""
        server = self.start(*scripts)
        self.client.run()
        return server.heard


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.setattr(manners, "FIRST_PAUSE", 0.01)
    servers: list[tuple[Server, threading.Thread]] = []
    with listen("127.0.0.1", 0) as listener:
        listener.settimeout(PATIENCE)
        port = listener.getsockname()[1]

        def start(*scripts: Script) -> Server:
            server = Server(listener, list(scripts))
            thread = threading.Thread(target=server.play)
            servers.append((server, thread))
            thread.start()
            return server

        options = ClientOptions(f"127.0.0.1:{port}", "desk", code=CODE)
        yield Stage(port, Client(options), start)
        for server, thread in servers:
            thread.join(PATIENCE)
            assert server.error is None, server.error
    root.handlers[:] = handlers
    root.setLevel(level)


def only(messages: list[Message], kind: type[Any]) -> list[Any]:
    return [message for message in messages if isinstance(message, kind)]


def with_workers(stage: Stage, count: int) -> None:
    """Put a client with that many workers in place of the other one."""
    options = ClientOptions(f"127.0.0.1:{stage.port}", "desk", code=CODE, workers=count)
    stage.client = Client(options)


# Sessions.


def test_a_client_introduces_itself_and_ends_with_the_run(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    ((hello,),) = stage.meets([1, (FINISHED,)])

    assert isinstance(hello, Hello)
    assert (hello.name, hello.last_step, hello.last_digest) == ("desk", None, b"")
    said = capsys.readouterr()
    assert f"Connected to 127.0.0.1:{stage.port} with 1 worker.\n" in said.out
    assert "The server says goodbye: the run has ended.\n" in said.out
    assert said.err == ""


@pytest.mark.parametrize("local", [False, True])
def test_the_server_that_it_reached_is_the_one_that_is_taken_next_time(
    stage: Stage,
    local: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    for variable in ("XDG_CONFIG_HOME", "APPDATA", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    address = f"127.0.0.1:{stage.port}"
    options = ClientOptions(address, "desk", code=CODE, end_with_parent=local)
    stage.client = Client(options)
    stage.meets([1, (FINISHED,)])
    first = capsys.readouterr().out
    known = last_server(config_folder(), platform.node())
    # Local clients are their server's: nobody has chosen it for this machine.
    assert known == (None if local else address)

    stage.client = Client(replace(options, remembered=True))
    stage.meets([1, (FINISHED,)])
    words = f"No server is named: taking {address}, the last one that was reached.\n"
    assert "No server is named" not in first
    assert capsys.readouterr().out.startswith(words)


def test_steps_are_answered_and_followed(stage: Stage) -> None:
    (heard,) = stage.meets(
        [
            1,
            (WELCOME, BATCH, begin(0)),
            1,
            (update(0), begin(1, wanted=True)),
            2,
            (FINISHED,),
        ]
    )
    first, second = only(heard, Result)
    (state,) = only(heard, State)
    expected = advance(SETTING, START, update(0), TOKENS)

    assert (first.step, first.digest) == (0, DIGEST)
    assert len(first.losses) == 2 * first.segments[0].groups
    assert (second.step, second.digest) == (1, expected.digest(SETTING.fingerprint))
    assert np.array_equal(state.weights, expected.weights)
    assert heard.index(state) < heard.index(second)


def test_several_workers_are_one_client(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    script: Script = [
        1,
        (WELCOME, BATCH, begin(0)),
        1,
        (update(0), begin(1, wanted=True)),
        2,
    ]
    with_workers(stage, 2)
    # The workers are those of both sessions.
    first, second = stage.meets(script, [1, (WELCOME, BATCH, begin(0)), 1, (FINISHED,)])
    result, last = only(first, Result)
    (state,) = only(first, State)
    expected = advance(SETTING, START, update(0), TOKENS)

    assert (result.step, result.digest) == (0, DIGEST)
    assert len(result.losses) == 2 * result.segments[0].groups
    assert (last.step, last.digest) == (1, expected.digest(SETTING.fingerprint))
    assert np.array_equal(state.weights, expected.weights)
    assert [type(message) for message in second] == [Hello, Result]
    assert " with 2 workers.\n" in capsys.readouterr().out


def test_a_client_ends_when_a_worker_dies(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(team: Team, request: object, on_block: object) -> None:
        for process in team._processes:
            process.kill()
        asked(team, request, on_block)

    asked: Callable[..., None] = Team._ask
    monkeypatch.setattr(Team, "_ask", killed)
    with_workers(stage, 2)
    with pytest.raises(TrainingError, match=r"^worker [12] of 2 ended by signal 9"):
        stage.meets([1, (WELCOME, BATCH, begin(0))])


@pytest.mark.parametrize(("asked", "cores", "count"), [(0, 8, 7), (0, 1, 1), (3, 2, 3)])
def test_a_client_has_the_workers_that_are_asked_for(
    asked: int,
    cores: int,
    count: int,
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(client_module, "cores", lambda: cores)
    with_workers(stage, asked)
    stage.client._greet()
    words = "1 worker" if count == 1 else f"{count} workers"

    assert stage.client._team is None if count == 1 else stage.client._team is not None
    assert capsys.readouterr().out.endswith(f" with {words}.\n")


def test_a_client_that_is_refused_does_not_come_back(stage: Stage) -> None:
    with pytest.raises(IncompatibleError, match="refused this client: too old"):
        stage.meets([1, (Goodbye(End.REFUSED.value, "too old"),)])


def test_a_client_that_is_dropped_comes_back_and_says_where_it_was(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts: list[Script] = [
        [1, (WELCOME, BATCH, update(0), begin(1), DROPPED)],
        [1, (FINISHED,)],
    ]
    _, ((hello,)) = stage.meets(*scripts)
    (again,) = hello if isinstance(hello, list) else [hello]

    assert isinstance(again, Hello)
    assert again.last_step == 1
    expected = advance(SETTING, START, update(0), TOKENS)
    assert again.last_digest == expected.digest(SETTING.fingerprint)
    assert "Connected again." in capsys.readouterr().out


@pytest.mark.parametrize("script", [[1], [0], [1, (WELCOME, update(5))]], ids=str)
def test_a_server_that_is_lost_or_breaks_the_rules_is_tried_again(
    stage: Stage, script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    _, second = stage.meets(script, [1, (FINISHED,)])

    assert only(second, Hello)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_work_of_an_earlier_session_is_not_done_in_the_next(stage: Stage) -> None:
    # Two blocks at once: the connection is lost before the second one is scored.
    _, second = stage.meets(
        [1, (WELCOME, BATCH, begin(0), begin(0)), 1],
        [1, (WELCOME, BATCH), (begin(0),), 1, (FINISHED,)],
    )

    assert [type(message) for message in second] == [Hello, Result]


def test_the_first_connection_is_tried_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NetworkError, match="nothing listens there"):
        lend(ClientOptions(f"127.0.0.1:{port}", "desk", quiet=True, nice=0))


# Pauses.


@pytest.fixture
def pauses(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses that the client makes; none takes any time."""
    made: list[float] = []
    monkeypatch.setattr(manners, "FIRST_PAUSE", 1.0)
    stage.client._tries.settled()
    monkeypatch.setattr(stage.client, "_sleep", made.append)
    return made


def test_pauses_grow_up_to_a_minute_and_differ(
    stage: Stage, pauses: list[float]
) -> None:
    stage.meets(*LOST * 9, [1, (FINISHED,)])

    for number, pause in enumerate(pauses):
        longest = min(2**number, 60)
        assert longest / 2 <= pause <= longest
    assert len({pause / min(2**n, 60) for n, pause in enumerate(pauses)}) > 1


def test_pauses_begin_anew_after_a_long_session(
    stage: Stage, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SETTLED_SECONDS", -1.0)
    stage.meets(*LOST * 5, [1, (FINISHED,)])

    assert max(pauses) <= 1.0


def test_a_server_that_does_not_answer_is_tried_until_it_does(
    stage: Stage,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tries = iter(range(100))

    def unsure(host: str, port: int) -> socket.socket:
        if next(tries) in (1, 2):
            raise NetworkError("nobody is there")
        return connect(host, port)

    monkeypatch.setattr(admission, "connect", unsure)
    stage.meets([1], [1, (FINISHED,)])

    assert len(pauses) == 3
    assert capsys.readouterr().err.count("nobody is there\n") == 2


def test_a_local_client_that_has_lost_its_server_waits_for_its_own_end(
    stage: Stage, pauses: list[float]
) -> None:
    address = f"127.0.0.1:{stage.port}"
    options = ClientOptions(address, "local-1", True, True, code=CODE)
    stage.client._options = options
    stage.meets([1], [1, (FINISHED,)])

    assert pauses[0] == client_module.PARENT_SECONDS
    assert len(pauses) == 2


# Leaving.


def test_who_is_asked_to_stop_says_goodbye_after_the_step(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    real = stage.client._on_block

    def on_block(trials: int) -> None:
        stage.client._stop()
        stage.client._worker._on_block = real
        real(trials)

    stage.client._worker._on_block = on_block
    (heard,) = stage.meets([1, (WELCOME, BATCH, begin(0)), 2])

    assert [type(message) for message in heard] == [Hello, Result, Goodbye]
    assert heard[-1] == Goodbye("finished", "stopped by its user")
    assert "Leaving after this step." in capsys.readouterr().out


def test_who_is_asked_twice_stops_at_once(stage: Stage) -> None:
    stage.client._stop()

    with pytest.raises(KeyboardInterrupt):
        stage.client._stop()


def test_who_is_asked_to_stop_does_not_try_again(stage: Stage) -> None:
    stage.client._stop()

    assert stage.client._reconnect() is None


def test_a_pause_ends_with_the_wish_to_stop(stage: Stage) -> None:
    timer = threading.Timer(0.05, stage.client._stop)
    timer.start()
    stage.client._sleep(3600)
    timer.join()

    assert stage.client._stopping


# What is shown.


def test_the_rate_is_that_of_the_time_spent_on_trials(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    def status(text: str, _done: float = 0.0) -> None:
        shown.append(text)

    monkeypatch.setattr(stage.client._display, "status", status)
    stage.client._worker.trials = 1500
    stage.client._spent, stage.client._work_began = 10.0, 0.0
    fake = SimpleNamespace(monotonic=lambda: 5.0)
    monkeypatch.setattr(client_module, "time", fake)
    stage.client._on_block(100)
    stage.client._show(client_module.WAITING, 0.0)

    assert shown == [
        "step 0, working, 100 trials/s, 1,500 trials",
        "step 0, waiting for the next step, 0 trials/s, 1,500 trials",
    ]


@pytest.mark.parametrize(("room", "shown"), [(80, True), (53, True), (52, False)])
def test_its_share_is_shown_where_there_is_room(
    stage: Stage, room: int, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(stage.client._display, "status", lines.append)
    monkeypatch.setattr(type(stage.client._display), "room", room)
    monkeypatch.setattr(type(stage.client._worker), "share", 0.1149)
    stage.client._worker.trials = 1500
    stage.client._show(client_module.WORKING, 10.0)

    words = "step 0, working, 150 trials/s, 1,500 trials"  # 43 characters
    assert lines == [words + ", you 11 %" * shown]


def test_the_time_of_a_sum_is_not_spent_on_trials(stage: Stage) -> None:
    shares = Shares(0, 0, (Segment(7, 0, 1),), np.array([126, -126], np.int8))

    (heard,) = stage.meets([1, (WELCOME, BATCH, shares), 1, (FINISHED,)])
    without = stage.client._spent
    stage.meets([1, (WELCOME, BATCH, begin(0)), 1, (FINISHED,)])

    assert len(only(heard, Sum)) == 1
    assert without == 0.0
    assert stage.client._spent > 0.0


# Pace.


def paced(messages: list[Message], answered: int | None) -> list[Message]:
    pace = Pace(answered)
    return [pace.fitting(message) for message in messages]


def test_nothing_is_hurried_while_each_step_waits_for_the_answer() -> None:
    messages: list[Message] = [update(4), begin(5, 2.0)]

    assert paced(messages, 4) == messages
    assert paced([WELCOME, BATCH, begin(0, 2.0)], None)[2] == begin(0, 2.0)


@pytest.mark.parametrize("answered", [3, None])
def test_after_a_step_that_closed_without_it_a_client_does_one_block(
    answered: int | None,
) -> None:
    messages: list[Message] = [update(4), BATCH, begin(5, 2.0)]

    assert paced(messages, answered) == [*messages[:2], begin(5, 0.0)]


def test_a_client_that_was_away_for_several_steps_hurries() -> None:
    messages: list[Message] = [update(4), begin(5, 2.0), update(5), begin(6, 2.0)]

    assert paced(messages, 4) == [*messages[:3], begin(6, 0.0)]


def test_a_late_client_does_one_block_and_then_a_whole_step(stage: Stage) -> None:
    # It has not answered step 0 when that closes, as if it had been stopped.
    (heard,) = stage.meets(
        [
            1,
            (WELCOME, BATCH, update(0), begin(1, 0.1)),
            1,
            (update(1), begin(2, 0.1)),
            1,
            (FINISHED,),
        ]
    )
    hurry, whole = only(heard, Result)

    assert hurry.step == 1
    assert hurry.segments[0].groups == SETTING.block_groups
    assert whole.step == 2
    assert whole.segments[0].groups > SETTING.block_groups


# Manners.


def with_options(stage: Stage, **changes: Any) -> None:
    """Put a client with other options in place of the one there is."""
    options = ClientOptions(f"127.0.0.1:{stage.port}", "desk", code=CODE, **changes)
    stage.client = Client(options, Identity(b"i" * 16))


@pytest.fixture
def day(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """Return moments of the day: one for each look at the clock, the last for ever."""
    moments = [datetime(2026, 3, 1, 21, 0)]

    class Today(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return moments.pop(0) if len(moments) > 1 else moments[0]

    monkeypatch.setattr(client_module, "datetime", Today)
    monkeypatch.setattr(client_module, "STOP_SLICE", 0.001)
    return moments


NIGHT = Hours(((1200, 480),))
MORNING, EVENING = datetime(2026, 3, 2, 8, 0), datetime(2026, 3, 2, 20, 0)


def test_outside_its_hours_a_client_leaves_and_comes_back(
    stage: Stage, day: list[datetime], capsys: pytest.CaptureFixture[str]
) -> None:
    with_options(stage, hours=NIGHT)
    # At its start, once after the hello, when the step is done; then twice at rest.
    day[:] = [day[0]] * 2 + [MORNING] * 3 + [EVENING]
    first, second = stage.meets(
        [1, (WELCOME, BATCH, begin(0)), 2], [1, (WELCOME, BATCH), (FINISHED,)]
    )

    *_, goodbye = first
    assert goodbye == Goodbye("finished", "paused until 20:00 (hours 20:00-08:00)")
    (hello,) = only(second, Hello)
    assert hello.last_step == 0
    said = capsys.readouterr()
    assert said.out.count("Paused until 20:00 (hours 20:00-08:00).\n") == 1
    assert said.out.count("The pause is over.\nConnected again.\n") == 1
    assert said.err == ""


def test_a_client_that_starts_outside_its_hours_does_not_connect_before(
    stage: Stage, day: list[datetime], capsys: pytest.CaptureFixture[str]
) -> None:
    with_options(stage, hours=NIGHT)
    day[:] = [MORNING] * 3 + [EVENING]
    stage.meets([1, (FINISHED,)])

    assert capsys.readouterr().out.startswith(
        "Paused until 20:00 (hours 20:00-08:00).\nThe pause is over.\nConnected.\n"
    )


def test_a_pause_for_hours_ends_with_the_wish_to_stop(
    stage: Stage, day: list[datetime]
) -> None:
    with_options(stage, hours=NIGHT)
    day[:] = [MORNING]
    threading.Timer(0.05, stage.client._stop).start()
    stage.client.run()  # there is no server

    assert stage.client._stopping


def test_on_battery_a_client_pauses_where_that_is_asked_for(
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    day: list[datetime],
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = iter([None, False, True, True, False])
    with_options(stage, no_battery=True)
    monkeypatch.setattr(stage.client, "_battery", lambda: next(answers, False))
    first, _ = stage.meets(
        [1, (WELCOME, BATCH, begin(0)), 2], [1, (WELCOME, BATCH), (FINISHED,)]
    )

    assert first[-1] == Goodbye("finished", "paused (on battery)")
    assert "Paused (on battery).\nThe pause is over." in capsys.readouterr().out


def test_the_battery_does_not_matter_otherwise(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.client, "_battery", lambda: True)

    assert stage.client._pause() is None


def test_a_machine_that_has_slept_joins_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept = iter([1860.0])
    monkeypatch.setattr(
        stage.client._awake, "slept", lambda wall, steady: next(slept, None)
    )
    stage.meets([1, (WELCOME, BATCH)], [1, (FINISHED,)])

    assert "this machine has slept for 31 min\n" in capsys.readouterr().err


def test_an_identity_is_sent(stage: Stage) -> None:
    with_options(stage)
    ((hello,),) = stage.meets([1, (FINISHED,)])

    assert isinstance(hello, Hello)
    assert hello.identity == b"i" * 16


def test_a_second_client_of_a_machine_learns_of_the_first(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ClientOptions(f"127.0.0.1:{stage.port}", "desk", code=CODE)
    stage.client = Client(options, Identity(b"j" * 16, 2))
    stage.meets([1, (FINISHED,)])

    assert "Another client runs on this machine already" in capsys.readouterr().out


def test_something_else_than_a_server_of_ours_is_not_tried_again(stage: Stage) -> None:
    with pytest.raises(IncompatibleError, match=r"does not answer as basicServer\.py"):
        stage.meets([1, (BATCH,)])


def test_a_server_that_was_known_may_break_the_rules_once(stage: Stage) -> None:
    _, _, third = stage.meets(
        [1, (WELCOME, BATCH)], [1, (BATCH,)], [1, (WELCOME, FINISHED)]
    )

    assert only(third, Hello)


@pytest.mark.parametrize("script", [[1, (WELCOME,)], [1, (WELCOME, DROPPED)]], ids=str)
def test_a_client_that_is_to_try_once_ends_with_its_session(
    stage: Stage, script: Script
) -> None:
    with_options(stage, once=True)
    with pytest.raises(NetworkError):
        stage.meets(script)


def test_a_client_that_is_to_wait_tries_from_the_start(
    stage: Stage,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tries = iter(range(100))

    def unsure(host: str, port: int) -> socket.socket:
        if next(tries) < 2:
            raise NetworkError("nobody is there")
        return connect(host, port)

    with_options(stage, wait=True)
    monkeypatch.setattr(stage.client, "_sleep", pauses.append)
    monkeypatch.setattr(admission, "connect", unsure)
    stage.meets([1, (FINISHED,)])
    said = capsys.readouterr()

    assert len(pauses) == 2
    assert said.err == "nobody is there\n" * 2
    assert said.out.startswith("Next try in 1 s.\nNext try in ")


def test_of_many_tries_few_are_told(
    stage: Stage,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tries = iter(range(1000))

    def unsure(host: str, port: int) -> socket.socket:
        if 0 < next(tries) <= 100:
            raise NetworkError("nobody is there")
        return connect(host, port)

    monkeypatch.setattr(admission, "connect", unsure)
    stage.meets([1], [1, (FINISHED,)])

    assert len(pauses) == 101
    # The 1st to 3rd, 4th, 8th, 16th, 32nd and 64th.
    assert capsys.readouterr().err.count("nobody is there\n") == 8


@pytest.mark.parametrize(
    ("cores", "percent", "count"), [(8, 50.0, 4), (3, 50.0, 1), (1, 100.0, 1)]
)
def test_workers_may_be_a_share_of_the_cores(
    cores: int, percent: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "cores", lambda: cores)

    assert workers(ClientOptions("lab", "desk", worker_percent=percent)) == count


def test_states_are_words(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, day: list[datetime]
) -> None:
    shown: list[str] = []

    def status(text: str, _done: float = 0.0) -> None:
        shown.append(text)

    with_options(stage, hours=NIGHT)
    monkeypatch.setattr(stage.client._display, "status", status)
    monkeypatch.setattr(stage.client._display, "hold", status)
    day[:] = [day[0]] * 3 + [MORNING] * 3 + [EVENING]
    stage.meets(
        [1, (WELCOME, BATCH, begin(0)), 1, (update(0), BATCH), 1],
        [1],
        [1, (FINISHED,)],
    )
    told = " / ".join(dict.fromkeys(shown))

    for words in (
        f"connecting to 127.0.0.1:{stage.port}",
        "step 0, working, ",
        "step 1, waiting for the next step, ",
        "step 0, applying update, ",
        "paused until 20:00 (hours 20:00-08:00)",
        "lost the server: next try in 1 s",
    ):
        assert words in told, told


@pytest.mark.parametrize(("local", "levels"), [(False, [7]), (True, [])])
def test_a_guest_gives_way_and_a_local_client_does_not(
    monkeypatch: pytest.MonkeyPatch, local: bool, levels: list[int]
) -> None:
    asked: list[int] = []

    def be_nice(level: int) -> bool:
        asked.append(level)
        return True

    monkeypatch.setattr(client_module, "be_nice", be_nice)
    monkeypatch.setattr(client_module, "end_with_parent", lambda: None)
    monkeypatch.setattr(client_module, "config_folder", lambda: None)
    monkeypatch.setattr(Client, "run", lambda self: None)
    lend(ClientOptions("lab", "desk", end_with_parent=local, nice=7))

    assert asked == levels

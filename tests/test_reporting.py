import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.journaled_runs import entry_of, update_of
from tests.small_runs import CONFIG, new_run
from utilities import reporting
from utilities.display import WIDTH, Display
from utilities.joincodes import OPEN, Code
from utilities.options import ServerOptions, parse_server
from utilities.reporting import SAMPLE_LENGTH, Report, clock, quoted, sample_text
from utilities.setup import Prepared, prepare
from utilities.tally import Closed
from utilities.unknown import Unknown

WORDS = "The cat sat on the mat and saw a rat. " * 60
CODE = Code(b"sixteen secrets!")
CLOSED = Closed(7, 3.5, 2.0, 1024, 2, 0, 0, b"d" * 32)


@dataclass
class Spoken(Display):
    """Keeps what would be shown."""

    lines: list[str] = field(default_factory=list)
    bar: list[tuple[str, float]] = field(default_factory=list)

    @property
    def room(self) -> int:
        return WIDTH

    def say(self, text: str = "") -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)

    def status(self, text: str, done: float = 0.0) -> None:
        self.bar.append((text, done))


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list whose last number is the time of day."""
    moments = [100.0]
    fake = SimpleNamespace(monotonic=lambda: moments[-1])
    monkeypatch.setattr(reporting, "time", fake)
    return moments


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    folder = tmp_path_factory.mktemp("reporting")
    text = folder / "cat.txt"
    text.write_text(WORDS, encoding="utf-8")
    line = f"--runs {folder / 'runs'} --data {text} --hiddenSize 4 --sequenceLength 8"
    prepared = prepare(parse_server(line.split()))
    yield prepared
    prepared.run.close()


@dataclass
class Speaker:
    """A report and what it has said."""

    report: Report
    spoken: Spoken

    def said(self) -> str:
        """Return all lines since the last call."""
        text = "\n".join(self.spoken.lines)
        self.spoken.lines.clear()
        return text


@pytest.fixture
def speaker(prepared: Prepared, moment: list[float]) -> Any:
    def make(
        line: str = "",
        options: ServerOptions | None = None,
        code: Code = CODE,
        **changes: Any,
    ) -> Speaker:
        spoken = Spoken()
        options = options or parse_server(line.split())
        changed = replace(prepared, **changes)
        return Speaker(Report(spoken, options, changed, 4711, code), spoken)

    return make


# Words for numbers.


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        *[(0.0, "0:00"), (59.9, "0:59"), (60.0, "1:00"), (3599.0, "59:59")],
        *[(3600.0, "1:00:00"), (86_399.0, "23:59:59"), (360_000.0, "100:00:00")],
    ],
)
def test_time_is_shown_as_a_clock_has_it(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_words_are_quoted_as_the_shell_takes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert quoted(Path("runs/a")) == "runs/a"
    assert quoted("my runs") == "'my runs'"
    monkeypatch.setattr(reporting, "os", SimpleNamespace(name="nt"))
    assert quoted("my runs") == '"my runs"'


# Samples.


def test_a_sample_is_the_same_for_the_same_weights(prepared: Prepared) -> None:
    first = sample_text(prepared, prepared.state.weights)

    assert first == sample_text(prepared, prepared.state.weights)
    assert first.startswith("The ")
    assert first != sample_text(prepared, prepared.state.weights * np.float32(2))
    assert len(first) <= len("The ") + 2 * SAMPLE_LENGTH


def test_a_sample_needs_no_prompt_that_the_text_cannot_spell(tmp_path: Path) -> None:
    text = tmp_path / "digits.txt"
    text.write_text("0123456789" * 200, encoding="utf-8")
    line = f"--runs {tmp_path} --data {text} --hiddenSize 4 --sequenceLength 8"
    prepared = prepare(parse_server(line.split()))
    sample = sample_text(prepared, prepared.state.weights)
    prepared.run.close()

    assert re.fullmatch(r"[0-9\n]+", sample)


# At the start.


def test_the_greeting_says_what_is_trained_and_what_figures_mean(
    speaker: Any, prepared: Prepared
) -> None:
    new = speaker()
    new.report.greet()
    said = new.said()

    assert said.startswith(f"Run 0 begins in {prepared.run.path}")
    weights = prepared.setting.layout.size
    assert f"Model: rnn, 1 layer of 4 units, {weights:,} weights\n" in said
    size = prepared.corpus.vocabulary.size
    assert f"Text: cat.txt, 2,280 characters, vocabulary of {size}\n" in said
    even = math.log(size)
    assert f"  evenly {even:.3f} ({even / math.log(2):.3f}), by frequency " in said
    assert "by pairs" in said
    assert "unknown" not in said


def test_the_greeting_tells_what_a_crash_has_left(
    speaker: Any, prepared: Prepared
) -> None:
    update = update_of(7)
    entries = (entry_of(update, b"d" * 32), entry_of(update, b"e" * 32))
    found = {"entries": entries, "saved": 5, "notes": ("journal: a torn tail",)}
    crashed = speaker(resumed=True, **found)
    crashed.report.greet()

    said = crashed.said()
    assert "\njournal: a torn tail\n" in said
    assert (
        "\nRecovered 2 steps from the journal, behind the checkpoint of step 5" in said
    )


def test_the_greeting_of_a_resumed_run_names_its_step(
    speaker: Any, prepared: Prepared
) -> None:
    state = replace(prepared.state, step=1234)
    old = speaker(resumed=True, state=state)
    old.report.greet()

    assert old.said().startswith("Run 0 resumes at step 1234 in ")


def test_the_greeting_of_a_run_that_begins_with_the_model_of_another_names_it(
    speaker: Any,
) -> None:
    grown = speaker(origin="the model of run 7, step 500, grown from 4 to 8 units")
    grown.report.greet()

    assert grown.said().splitlines()[1] == (
        "It begins with the model of run 7, step 500, grown from 4 to 8 units"
    )
    plain = speaker()
    plain.report.greet()
    assert "It begins" not in plain.said()


def test_unknown_characters_are_told(speaker: Any, prepared: Prepared) -> None:
    corpus = replace(prepared.corpus, unknown_share=0.01234)
    some = speaker(corpus=corpus)
    some.report.greet()

    assert ", 1.23% unknown\n" in some.said()


def test_the_most_frequent_of_them_are_named_and_what_would_hold_them(
    speaker: Any, prepared: Prepared
) -> None:
    unknown = Unknown(tuple((chr(97 + n), 0.01) for n in range(10)), 12, 40)

    some = speaker(unknown=unknown)
    some.report.greet()
    said = some.said()

    assert "\n  12 characters of it became unknown: 'a' 1.00%, " in said
    assert "\n  A run with --vocabSize 40 would know them all.\n" in said
    lines = said.splitlines()
    start = next(n for n, line in enumerate(lines) if "became" in line)
    assert max(map(len, lines[start : start + 3])) <= WIDTH


def test_layers_are_counted(speaker: Any, prepared: Prepared) -> None:
    config = replace(prepared.setting.config, n_layers=2)
    deep = speaker(setting=replace(prepared.setting, config=config))
    deep.report.greet()

    assert "Model: rnn, 2 layers of 4 units, " in deep.said()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_a_server_for_this_machine_says_how_to_open_it(speaker: Any, host: str) -> None:
    closed = speaker(f"--host {host}")
    closed.report.greet()
    said = closed.said()

    shown = "[::1]:4711" if host == "::1" else f"{host}:4711"
    assert f"Listening on {shown}, for this machine only" in said
    assert "leave out --host" in said
    assert "basicClient.py" not in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_open_server_prints_a_line_for_each_of_its_addresses(
    speaker: Any, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "addresses", lambda: ["10.9.8.7", "2001:db8::7"])
    open_one = speaker(f"--host {host}")
    open_one.report.greet()
    said = open_one.said()

    assert "\n  python basicClient.py 10.9.8.7:4711" in said
    # Who listens on all addresses of IPv4 is not reached by one of IPv6.
    both = said.endswith("\n  python basicClient.py [2001:db8::7]:4711")
    assert both == (host == "::")
    assert said.count(CODE.shown()) == 1
    assert f"Join code, kept in trainingRuns/join-code:\n  {CODE.shown()}\n" in said


def test_an_open_server_that_knows_none_of_its_addresses_says_what_to_fill_in(
    speaker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "addresses", list)
    lost = speaker("--host 0.0.0.0")
    lost.report.greet()

    assert "python basicClient.py <this machine's address>:4711" in lost.said()


def test_a_server_on_one_address_prints_that_one(speaker: Any) -> None:
    one = speaker("--host 10.9.8.7")
    one.report.greet()

    assert one.said().endswith("\n  python basicClient.py 10.9.8.7:4711")


@pytest.mark.parametrize("host", ["127.0.0.1", "10.9.8.7"])
def test_an_open_server_says_what_that_means_and_how_to_join_it(
    speaker: Any, host: str
) -> None:
    bare = speaker(f"--noAuth --anybodyMayJoin --host {host}", code=OPEN)
    bare.report.greet()
    bare.report.waiting(0, 100.0)
    said = bare.said()

    assert "whoever reaches this port can\ntake part, vote on every step, and" in said
    assert "Join code" not in said
    assert f"python basicClient.py {host}:4711 --noAuth" in said


@pytest.mark.parametrize(
    ("addresses", "pin", "warned"),
    [
        (["192.168.1.10", "10.0.0.7", "lab"], b"", False),
        (["10.0.0.7", "8.8.8.8"], b"", True),
        (["10.0.0.7", "2600::1"], b"", True),
        (["8.8.8.8"], b"p" * 19, False),
    ],
)
def test_a_server_in_the_internet_without_tls_is_warned_of(
    speaker: Any,
    addresses: list[str],
    pin: bytes,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reporting, "addresses", lambda: addresses)
    one = speaker(code=replace(CODE, pin=pin))
    one.report.greet()

    assert ("Traffic is not encrypted" in one.said()) is warned


def test_the_code_of_a_server_with_tls_fits_a_line(speaker: Any) -> None:
    one = speaker(code=replace(CODE, pin=b"p" * 19))
    one.report.greet()
    _, *lines = one.said().splitlines()

    assert max(map(len, lines)) <= WIDTH


def test_no_line_of_the_greeting_is_too_long(speaker: Any, prepared: Prepared) -> None:
    config = replace(
        prepared.setting.config, n_layers=10, hidden_size=1000, vocab_size=20_000
    )
    large = speaker(setting=replace(prepared.setting, config=config))
    large.report.greet()
    _, *lines = large.said().splitlines()  # the first has a path

    assert max(map(len, lines)) <= WIDTH


# Meanwhile.


def test_it_is_said_once_that_nobody_is_there_and_how_to_start_a_client(
    speaker: Any,
) -> None:
    alone = speaker("--host 127.0.0.1")
    for _ in range(3):
        alone.report.waiting(0, 100.0)

    line = "Waiting for clients. Start one with: python basicClient.py 127.0.0.1:4711"
    assert alone.said() == line


def test_after_a_minute_the_usual_reasons_are_told_once(
    speaker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "addresses", lambda: ["10.9.8.7"])
    monkeypatch.setattr(reporting, "firewalls", lambda: {"ufw"})
    monkeypatch.setattr("sys.platform", "linux")
    alone = speaker("--host 0.0.0.0")
    alone.report.waiting(0, 159.9)
    alone.said()
    alone.report.waiting(0, 160.0)
    said = alone.said()
    alone.report.waiting(0, 300.0)

    assert said.startswith("Nobody has come for a minute.")
    assert "\n  sudo ufw allow 4711/tcp\n" in said
    assert said.endswith("\n  python basicClient.py --doctor 10.9.8.7:4711")
    assert alone.said() == ""


def test_who_has_had_clients_is_told_no_reasons(speaker: Any) -> None:
    left = speaker("--host 0.0.0.0")
    left.report.waiting(2, 110.0)
    left.report.waiting(0, 120.0)
    left.said()
    left.report.waiting(0, 500.0)

    assert left.said() == ""


def test_local_clients_get_a_moment_before_anything_is_said(speaker: Any) -> None:
    served = speaker("--localClients 2")
    served.report.waiting(0, 104.9)
    assert served.said() == ""
    served.report.waiting(0, 105.0)
    assert served.said().startswith("Waiting for clients")


def test_it_is_said_again_after_everybody_has_left(speaker: Any) -> None:
    left = speaker("--localClients 2")
    left.report.waiting(2, 110.0)
    left.report.waiting(0, 200.0)
    assert left.said() == ""
    left.report.waiting(0, 204.0)
    assert left.said() == ""
    left.report.waiting(0, 205.0)
    assert left.said().startswith("Waiting for clients")


def test_a_step_shows_its_figures(speaker: Any, moment: list[float]) -> None:
    running = speaker("--maxSeconds 60")
    moment.append(165.2)
    running.report.step(CLOSED)

    assert running.spoken.bar == [
        (
            "step 7, loss 2.000 (2.885 bits), 1024 trials, 2 clients, 1:05, 0:00 left",
            pytest.approx(65.2),
        )
    ]


@pytest.mark.parametrize(
    ("line", "left"),
    [
        *[("", ""), ("--maxSeconds 60", ", 0:50 left")],
        # Two steps in ten seconds: eight more take forty.
        *[("--maxSteps 10", ", 0:40 left"), ("--maxSteps 2", ", 0:00 left")],
        *[("--maxSteps 10 --maxSeconds 60", ", 0:40 left")],
        *[("--maxSteps 99 --maxSeconds 60", ", 0:50 left")],
    ],
)
def test_where_the_end_is_known_a_step_shows_how_long_it_takes_until_then(
    speaker: Any, moment: list[float], line: str, left: str
) -> None:
    running = speaker(line)
    moment.append(104.0)
    running.report.step(CLOSED)
    moment.append(110.0)
    running.report.step(CLOSED)

    assert running.spoken.bar[1][0].endswith(f", 2 clients, 0:10{left}")


def test_a_step_shows_how_old_the_newest_checkpoint_is(
    speaker: Any, moment: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spoken, "room", 120)
    running = speaker("--maxSeconds 100")
    running.report.step(CLOSED)
    moment.append(110.0)
    running.report.saved(7, 1.9, "text")
    moment.append(128.0)
    running.report.step(CLOSED)
    before, after = (text for text, _ in running.spoken.bar)

    assert "saved" not in before
    assert after.endswith(
        " bits), val 1.900, 1024 trials, 2 clients, 0:28, 1:12 left, saved 0:18 ago"
    )


def test_progress_is_counted_in_steps_where_these_are_limited(speaker: Any) -> None:
    running = speaker("--maxSteps 9")
    running.report.step(CLOSED)
    running.report.step(replace(CLOSED, step=8))

    assert [done for _, done in running.spoken.bar] == [1, 2]


def test_a_step_without_losses_shows_none(speaker: Any) -> None:
    running = speaker()
    running.report.step(replace(CLOSED, loss=None, trials=0, clients=1))

    assert running.spoken.bar[0][0] == "step 7, 0 trials, 1 client, 0:00"


def test_the_newest_validation_loss_is_shown_with_later_steps(speaker: Any) -> None:
    running = speaker()
    running.report.saved(7, 1.9, "text")
    running.report.step(CLOSED)

    assert ", val 1.900, " in running.spoken.bar[0][0]
    assert running.said() == (
        "Checkpoint of step 7: validation loss 1.9000 nats, 2.7411 bits/char"
    )


def test_late_clients_are_shown(speaker: Any) -> None:
    running = speaker()
    running.report.step(replace(CLOSED, late=1))

    assert running.spoken.bar[0][0].endswith(", 2 clients (1 late), 0:00")


def test_dropped_segments_are_shown_and_a_step_without_trials_is_complained_of_once(
    speaker: Any,
) -> None:
    running = speaker()
    running.report.step(replace(CLOSED, dropped=1))
    assert running.spoken.bar[0][0].endswith(", 2 clients (1 dropped), 0:00")
    assert running.said() == ""
    for step in (8, 9):
        running.report.step(replace(CLOSED, step=step, dropped=2, trials=0, loss=None))

    assert running.said() == (
        "step 8: all losses are unusable, so nothing is learned; "
        "a smaller sigma or learningRate may help"
    )


def test_a_line_of_a_step_leaves_out_what_is_least_needed(
    speaker: Any, moment: list[float]
) -> None:
    running = speaker()
    running.report.saved(1_000_000, 12.345, "text")
    moment.append(3_000.0)
    long = replace(CLOSED, step=1_234_567, late=3, clients=15, trials=12_345)
    longer = replace(long, late=300, clients=1500, trials=123_456)
    for closed in (CLOSED, long, longer):
        running.report.step(closed)
    first, second, third = (text for text, _ in running.spoken.bar)

    assert "bits" in first
    assert "bits" not in second + third
    assert "(3 late)" in second
    assert "late" not in third
    assert all(", val 12.345, " in line for line in (first, second, third))
    assert max(map(len, (first, second, third))) <= WIDTH


def test_the_time_until_the_end_is_needed_more_than_bits(
    speaker: Any, moment: list[float]
) -> None:
    running = speaker("--maxSeconds 7200")
    running.report.saved(7, 1.9, "text")
    moment.append(6_100.0)
    running.report.step(CLOSED)

    ((line, _),) = running.spoken.bar
    assert line == (
        "step 7, loss 2.000, val 1.900, 1024 trials, 2 clients, 1:40:00, 20:00 left"
    )


def test_a_stop_is_confirmed(speaker: Any) -> None:
    stopping = speaker()
    stopping.report.stopping(9)

    assert stopping.said().startswith("Finishing step 9 and saving.")


def test_a_run_that_grows_says_why_and_what_comes_next(tmp_path: Path) -> None:
    spoken, options = Spoken(), ServerOptions()
    config = replace(CONFIG, growth="128@4e8")
    with new_run(tmp_path, config=config) as run:
        grows = SimpleNamespace(run=run, state=SimpleNamespace(step=0))
        Report(spoken, options, cast(Prepared, grows), 4711, CODE).growing()

    assert spoken.lines == [
        "Run 0 has had 400,000,000 trials (growth 128@400000000):",
        "it is saved now and goes on as a new run with 128 units.",
    ]


# At the end.


@pytest.fixture
def plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "interpreter", lambda: "python")


def test_the_interpreter_is_called_as_it_can_be_from_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mine = tmp_path / "my env" / "bin" / "python"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(mine))
    monkeypatch.setattr("shutil.which", lambda name: str(mine))
    assert reporting.interpreter() == "python"
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert reporting.interpreter() == "'my env/bin/python'"
    monkeypatch.chdir("/")
    assert reporting.interpreter().endswith("my env/bin/python'")
    monkeypatch.chdir(tmp_path / "..")
    monkeypatch.setattr("sys.executable", "/opt/python")
    assert reporting.interpreter() == "/opt/python"


def test_from_another_folder_the_next_commands_name_the_one_to_be_in(
    speaker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plain_python: None
) -> None:
    monkeypatch.chdir(tmp_path)
    done = speaker(options=ServerOptions(runs=Path("runs")))
    done.report.summary()

    assert f"Next, in {reporting.PROJECT}:\n" in done.said()


def test_from_another_folder_the_next_command_finds_the_files_again(
    speaker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plain_python: None
) -> None:
    monkeypatch.chdir(tmp_path)
    done = speaker(options=ServerOptions(tls_cert=Path("c.pem")))
    done.report.summary()

    assert f" --tlsCert {quoted(tmp_path / 'c.pem')}\n" in done.said()


def test_the_summary_says_what_was_reached_where_it_is_and_what_comes_next(
    speaker: Any, prepared: Prepared, moment: list[float], plain_python: None
) -> None:
    done = speaker("--localClients 2 --page 0")
    done.report.step(CLOSED)
    done.report.step(replace(CLOSED, step=8, loss=None, trials=512))
    done.report.saved(9, 1.75, "one\n\n  two\n")
    moment.append(161.0)
    done.said()
    done.report.summary()

    assert done.said().splitlines() == [
        "",
        "Run 0: 2 steps and 1,536 trials in 1 min 1 s, now at step 2",
        "Validation loss 1.7500 nats, 2.5247 bits per character",
        "A sample:",
        "  one",
        "  ",
        "    two",
        "",
        f"The run lies in {prepared.run.path}. Next:",
        "  python basicServer.py --resume 0 --localClients 2 --page 0",
        "  python -m utilities.inspect show 0",
        '  python -m utilities.inspect generate 0 --prompt "The "',
    ]


def test_the_summary_of_a_session_without_a_checkpoint_shows_none(speaker: Any) -> None:
    done = speaker()
    done.report.summary()
    said = done.said()

    assert "Validation" not in said
    assert "sample" not in said
    assert "The run lies in " in said


def test_long_lines_of_a_sample_are_wrapped_and_keep_their_spaces(speaker: Any) -> None:
    done = speaker()
    sample = "word  " * 40
    done.report.saved(9, 1.75, sample)
    done.said()
    done.report.summary()
    lines = done.said().splitlines()
    shown = lines[lines.index("A sample:") + 1 : lines.index("", 1)]

    assert max(map(len, shown)) <= WIDTH
    assert "".join(line[2:] for line in shown) == sample


def test_the_command_that_resumes_repeats_what_is_not_stored(
    speaker: Any, plain_python: None
) -> None:
    options = ServerOptions(
        host="0.0.0.0", port=80, runs=Path("my runs"), local_clients=1
    )
    done = speaker(options=options)
    done.report.summary()
    said = done.said()

    assert (
        "  python basicServer.py --runs 'my runs' --resume 0 --host 0.0.0.0 --port 80 "
        "--localClients 1\n"
    ) in said
    assert "  python -m utilities.inspect --runs 'my runs' show 0\n" in said
    assert "  python -m utilities.inspect --runs 'my runs' generate 0 " in said


def test_the_command_that_resumes_repeats_who_may_take_part(
    speaker: Any, plain_python: None
) -> None:
    secret = ServerOptions(
        token_file=Path("my token"), tls_cert=Path("c.pem"), tls_key=Path("k.pem")
    )
    bare = ServerOptions(no_auth=True, anybody_may_join=True)
    said = []
    for options in (secret, bare):
        done = speaker(options=options)
        done.report.summary()
        said.append(done.said())

    files = " --tokenFile 'my token' --tlsCert c.pem --tlsKey k.pem\n"
    assert f" --resume 0{files}" in said[0]
    assert " --resume 0 --noAuth --anybodyMayJoin\n" in said[1]
    assert not any(CODE.shown() in text for text in said)

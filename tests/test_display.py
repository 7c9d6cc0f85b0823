import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from utilities import display
from utilities.display import Display, bits, duration, printable

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Give the root logger back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    moments = [100.0]
    fake = SimpleNamespace(monotonic=lambda: moments[-1])
    monkeypatch.setattr(display, "time", fake)
    return moments


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_nats_become_bits() -> None:
    assert bits(0.6931471805599453) == 1.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *[(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (185.0, "3 min 5 s")],
        *[(3599.4, "59 min 59 s"), (3600.0, "1 h 0 min"), (90_000.0, "25 h 0 min")],
    ],
)
def test_a_length_of_time_is_put_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_what_a_terminal_would_obey_is_replaced() -> None:
    assert printable("a\tb\x1b[2Jc\r\nd\x07") == "a       b?[2Jc  d?"
    assert printable("ä – 漢\ufffd\u00a0x") == "ä – 漢\ufffd x"


def test_lines_for_people_and_warnings_go_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = Display(quiet=False)
    shown.say("one")
    shown.say()
    shown.warn("two")
    logging.getLogger("x").info("three %d", 3)
    logging.getLogger("x").warning("four")

    assert capsys.readouterr() == ("one\n\nthree 3\n", "two\nfour\n")


def test_a_quiet_display_shows_warnings_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = Display(quiet=True)
    shown.start()
    shown.say("one")
    shown.status("two")
    shown.warn("three")
    logging.getLogger("x").info("four")
    shown.close()

    assert capsys.readouterr() == ("", "three\n")


def test_without_a_terminal_there_is_a_plain_line_now_and_then(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    shown = Display(quiet=False, total=10)
    shown.start()
    for moment in (100.0, 101.0, 104.9, 105.0, 109.0, 110.1):
        clock.append(moment)
        shown.status(f"at {moment:g}", 1)
    shown.close()

    assert capsys.readouterr() == ("at 100\nat 105\nat 110.1\n", "")


@pytest.mark.parametrize("total", [None, 10.0])
def test_a_terminal_gets_a_bar_that_goes_away(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    clock: list[float],
    total: float | None,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = Display(quiet=False, total=total)
    shown.status("not yet")
    shown.start()
    for moment, done in ((101.0, 1), (101.1, 2), (102.0, 99)):
        clock.append(moment)
        shown.status(f"at {moment:g}\x1b", done)
    shown.say("a line")
    drawn = terminal.getvalue()
    shown.close()
    shown.close()

    assert "at 101?" in drawn
    assert "at 102?" in drawn
    assert "at 101.1" not in drawn
    assert ("|" in drawn) == (total is not None)
    assert terminal.getvalue().rsplit("\r", 1)[-1].strip() == ""
    assert capsys.readouterr().out.splitlines()[-1] == "a line"


@pytest.mark.parametrize(
    ("columns", "lines", "drawn"), [(80, 24, True), (80, 0, False), (0, 0, False)]
)
def test_a_terminal_without_a_size_gets_lines(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    columns: int,
    lines: int,
    drawn: bool,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(terminal, "fileno", lambda: 2)
    size = os.terminal_size((columns, lines))
    monkeypatch.setattr(os, "get_terminal_size", lambda _fd=1: size)
    monkeypatch.setattr(sys, "stderr", terminal)
    shown = Display(quiet=False)
    shown.start()
    shown.status("step 1")
    shown.close()

    assert capsys.readouterr().out == ("" if drawn else "step 1\n")
    assert ("step 1" in terminal.getvalue()) == drawn


def test_a_console_that_lacks_a_character_shows_a_question_mark() -> None:
    code = (
        "from utilities.display import Display\n"
        "shown = Display(quiet=False); shown.say('ä – 漢'); shown.warn('漢')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
        timeout=20,
    )

    assert ended.stdout == b"\xe4 ? ?\n"
    assert ended.stderr == b"?\n"


LOOP = (
    "import sys; from utilities.display import Display\n"
    "shown = Display(quiet=False)\n"
    "for number in range(20_000): shown.say(f'line {number}')\n"
    "shown.warn('the end')"
)


def test_a_reader_who_goes_away_ends_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOOP],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line 0\n"
        process.stdout.close()
        assert process.stderr.read() == b"the end\n"

    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_the_output_ends_nothing() -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", LOOP],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=20,
            check=False,
        )

    assert (ended.returncode, ended.stderr) == (0, b"the end\n")


def test_a_terminal_that_goes_away_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    reading, writing = os.openpty()
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        shown = Display(quiet=False)
        shown.start()
        os.close(reading)
        clock.append(200.0)
        shown.status("nobody sees this")
        shown.warn("nor this")
        shown.close()
        assert not stream.isatty(), "from now on it goes nowhere"

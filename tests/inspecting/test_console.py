import io
import json
import math
import sys

import pytest

from utilities.inspect.console import (
    can_show,
    coloured,
    harmless,
    note,
    say,
    say_json,
    soften,
    stream,
)


class Terminal(io.TextIOWrapper):
    """A stream that says it is a terminal, and counts how often it is flushed."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.bytes = io.BytesIO()
        self.flushes = 0
        super().__init__(self.bytes, encoding=encoding, newline="")

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        self.flushes += 1
        super().flush()


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    found = Terminal()
    monkeypatch.setattr(sys, "stdout", found)
    return found


def test_json_is_one_line_of_ascii_without_what_json_lacks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say_json({"a": [1, math.nan, (math.inf, "ä\n")], "b": None, "c": True})

    out = capsys.readouterr().out
    assert out == '{"a": [1, null, [null, "\\u00e4\\n"]], "b": null, "c": true}\n'
    assert json.loads(out)["a"][2][1] == "ä\n"


def test_notes_stand_apart_and_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    say("asked")
    note("besides")
    say()

    assert capsys.readouterr() == ("asked\n\n", "besides\n")


def test_a_terminal_gets_each_piece_and_nothing_that_it_would_obey(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = terminal(monkeypatch)
    text = stream(iter(["a", "\x1b[2J", "b\n"]))
    seen.flush()

    assert text == "a\x1b[2Jb\n"
    assert seen.bytes.getvalue() == b"a?[2Jb\n\n"
    assert seen.flushes >= 4


def test_a_file_gets_the_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    stream(["a\x1b", "b"])

    assert capsys.readouterr().out == "a\x1bb\n"


def test_harmless_text_keeps_its_lines() -> None:
    assert harmless("a\tb\nc\r\x07ä") == "a\tb\nc??ä"


@pytest.mark.parametrize(
    ("encoding", "shows"), [("utf-8", True), ("ascii", False), ("cp437", False)]
)
def test_what_an_output_can_show_depends_on_its_encoding(
    monkeypatch: pytest.MonkeyPatch, encoding: str, shows: bool
) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal(encoding))

    assert can_show("⣿") == shows
    assert can_show("a")


def test_an_output_without_an_encoding_shows_ascii(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())

    assert can_show("a")
    assert not can_show("ä")


def test_what_a_stream_lacks_becomes_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Terminal("ascii")
    monkeypatch.setattr(sys, "stdout", seen)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    source = io.TextIOWrapper(io.BytesIO(b"a\xff\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", source)
    soften()
    say("ä")
    seen.flush()

    assert seen.bytes.getvalue() == b"?\n"
    assert sys.stdin.readline() == "a\ufffd\n"


def test_a_terminal_is_coloured_unless_it_asks_not_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal(monkeypatch)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert coloured("auto")
    assert not coloured("never")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not coloured("auto")
    assert coloured("always")
    monkeypatch.setenv("NO_COLOR", "")
    assert coloured("auto")
    monkeypatch.setenv("TERM", "dumb")
    assert not coloured("auto")
    monkeypatch.delenv("TERM")
    assert not coloured("auto")


def test_a_file_is_not_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    assert not coloured("auto")
    assert coloured("always")

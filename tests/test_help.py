"""What --help says: of every command the same things in the same order."""

import argparse
import re

import pytest

from utilities import errors
from utilities.clientoptions import client_parser
from utilities.errors import STATUSES, TrainingError
from utilities.inspect.commandline import COMMANDS, parse
from utilities.options import HELP_WIDTH, exit_codes, server_parser
from utilities.processes import QUIT

INSPECT = ("", *COMMANDS)


def shown(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 0
    return capsys.readouterr().out


@pytest.fixture(params=["basicServer.py", "basicClient.py", *INSPECT])
def text(
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """Return the --help of a command, on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    parsers = {"basicServer.py": server_parser, "basicClient.py": client_parser}
    if request.param in parsers:
        return parsers[request.param]().format_help()
    return shown([*request.param.split(), "--help"], capsys)


def test_it_begins_with_two_lines_of_purpose_and_examples(text: str) -> None:
    usage, purpose, examples, *_ = text.split("\n\n")

    assert usage.startswith("usage: ")
    assert "\n" not in usage
    assert len(purpose.splitlines()) == 2
    first, *lines = examples.splitlines()
    assert first == "examples"
    assert lines
    assert all(line.startswith("  python ") for line in lines)


def test_it_fits_a_terminal(text: str) -> None:
    assert max(map(len, text.splitlines())) <= 80


def test_it_ends_with_the_statuses_that_errors_have(text: str) -> None:
    told = " ".join(text[text.rindex("exit codes: ") :].split())
    numbers = {int(n) for n in re.findall(r"(?:: |, )(\d+) ", told)}

    assert {0, 1, 2, QUIT} <= numbers <= STATUSES.keys()


def test_options_stand_in_groups_and_none_goes_without_a_word(text: str) -> None:
    options = re.findall(r"^  (-.*)\n(?: {10,}(.*))?", text, re.MULTILINE)

    assert options
    for line, below in options:
        assert re.search(r"\S {2,}\S", line) or below.strip(), line


def every_parser() -> dict[str, argparse.ArgumentParser]:
    return {"basicServer.py": server_parser(), "basicClient.py": client_parser()}


@pytest.mark.parametrize("name", every_parser())
def test_a_number_is_told_with_its_default_or_does_without(name: str) -> None:
    # Nobody has a default: what ends a run, and what stands for everything.
    without = {"maxSteps", "maxSeconds", "resume", "config", "tlsCert", "startFrom"}
    for action in every_parser()[name]._actions:
        silent = action.help == argparse.SUPPRESS or action.dest in {"help", *without}
        if action.nargs != 0 and not silent:
            assert str(action.help).endswith("]"), action.dest


def test_the_table_of_statuses_is_that_of_the_errors() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type)]
    used = {each.exit_code for each in classes if issubclass(each, TrainingError)}

    assert STATUSES.keys() == {0, *used, QUIT}


def test_statuses_are_told_as_far_as_a_program_has_them() -> None:
    assert exit_codes(1, 3, 4, 5, 6, 7, changed={130: "quit"}) == (
        "exit codes: 0 ok, 2 options, 130 quit"
    )
    assert max(map(len, exit_codes().splitlines())) <= HELP_WIDTH

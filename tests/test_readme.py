"""README.md tells the truth about options, keys, files and commands."""

import argparse
import re
from pathlib import Path

from utilities.clientoptions import client_parser
from utilities.config import KEYS, Config
from utilities.errors import STATUSES
from utilities.options import server_parser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return what stands below a heading, up to the next one."""
    match = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", README, re.M | re.S)
    assert match is not None, f"README.md has no section {title!r}"
    return match[1]


def rows(title: str) -> list[list[str]]:
    """Return the cells of the section's table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return the options that --help shows, keys of the configuration left out."""
    return {
        action.option_strings[0]
        if action.option_strings
        else str(action.metavar): action
        for action in parser._actions
        if action.help != argparse.SUPPRESS and action.dest not in {"help", *KEYS}
    }


def named(title: str) -> dict[str, str]:
    """Return option -> default as the table has them."""
    return {row[0].strip("`").split(" ")[0]: row[1] for row in rows(title)}


def as_shown(value: object) -> str:
    if value is None:
        return "null"
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def test_ten_attacks_are_told_of_with_figures_and_tests_that_there_are() -> None:
    attacks = rows("What it promises")

    assert len(attacks) == 10
    for _, result, files in attacks:
        assert result
        for name in re.findall(r"`([^`]+)`", files):
            assert "print(" in (ROOT / "tests" / name).read_text(encoding="utf-8")


def test_the_table_of_keys_has_every_key_with_its_default() -> None:
    shown = {row[0].strip("`"): row[1] for row in rows("Keys of a run")}
    defaults = {key: as_shown(value) for key, value in Config().to_json().items()}

    assert shown == defaults


def test_the_table_of_server_options_is_the_one_of_help() -> None:
    assert (
        named("Options of `basicServer.py`").keys() == options(server_parser()).keys()
    )


def test_the_table_of_client_options_is_the_one_of_help() -> None:
    assert (
        named("Options of `basicClient.py`").keys() == options(client_parser()).keys()
    )


def test_defaults_in_the_tables_are_those_of_the_parsers() -> None:
    shown = named("Options of `basicServer.py`") | named("Options of `basicClient.py`")
    checked = 0
    for name, action in (options(server_parser()) | options(client_parser())).items():
        if isinstance(action.default, str | int | Path) and action.default is not False:
            checked += 1
            assert shown[name].startswith(str(action.default))

    assert checked >= 5


def test_every_file_that_is_named_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)

    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_commands_use_options_that_exist() -> None:
    known = {
        option
        for parser in (server_parser(), client_parser())
        for action in parser._actions
        for option in action.option_strings
    }
    commands = re.findall(r"(?:basicServer|basicClient)\.py((?: [^\s`|]+)*)", README)
    used = {word for command in commands for word in command.split() if "--" in word}

    assert used
    assert used <= known


def test_exit_codes_are_those_of_the_errors() -> None:
    told = re.search(r"^Exit codes: (.*?)\.$", README, re.M | re.S)

    assert told is not None
    assert {int(n) for n in re.findall(r"\d+", told[1])} == STATUSES.keys()


def test_ci_runs_the_command_that_the_readme_prints() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    assert "-r requirements.txt -r requirements-dev.txt" in script
    assert ".venv/bin/python -m pytest" in README
    assert ".venv/bin/python -m pytest" in script


def test_scripts_name_what_they_need_for_runners_that_read_it() -> None:
    wanted = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    for name in ("basicServer.py", "basicClient.py"):
        head = (ROOT / name).read_text(encoding="utf-8").split("# ///\n")[0]
        assert head.startswith("# /// script\n")
        assert re.findall(r'"([a-z]+>=[^"]+)"', head) == wanted
        assert '# requires-python = ">=3.10"\n' in head
        assert f"uv run {name}" in README
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'python_version = "3.10"' in settings
    assert "\nPython 3.10 or newer." in README


def test_run_time_needs_numpy_and_tqdm_only() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    names = {re.split("[<>=]", line)[0] for line in lines}

    assert names == {"numpy", "tqdm"}

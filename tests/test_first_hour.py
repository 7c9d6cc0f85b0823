"""docs/first-hour.md quotes what the programs say."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([^`]+)` \|.*\| (\d?) ?\|$", PAGE, re.MULTILINE)
ONLY_ELSEWHERE = ("macOS blocks it", "Windows has reserved the port")


@cache
def spoken() -> str:
    """Return all text of the program, numbers that are filled in left out."""
    found = []
    for path in sorted((ROOT / "utilities").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value for v in node.values if isinstance(v, ast.Constant)]
                found.append("…".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found).lower()


@pytest.mark.parametrize("message", [*[m for m, _ in ROWS], *ONLY_ELSEWHERE])
def test_every_message_of_the_table_is_said_somewhere(message: str) -> None:
    words = re.sub(r"\d+ s$", "", message) if message.startswith("Next") else message

    assert words.lower() in spoken()


def test_the_table_is_read() -> None:
    assert len(ROWS) == 18
    assert {code for _, code in ROWS} == {"", "2", "3", "4", "7"}
    assert "neither here nor there" not in spoken()


def test_messages_that_only_other_systems_give_are_quoted_too() -> None:
    flat = " ".join(PAGE.split())

    assert all(message in flat for message in ONLY_ELSEWHERE)

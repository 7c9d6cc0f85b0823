"""How `python -m utilities.inspect` answers, for tests of its commands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from utilities import processes
from utilities.inspect.__main__ import main
from utilities.inspect.console import PROGRAM

# Captured output and error output, and the exit status.
Answer: TypeAlias = tuple[str, str, int]
Ask: TypeAlias = Callable[..., Answer]


def same_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pytest put back the variables that main sets."""
    for variable in processes.THREAD_VARIABLES:
        monkeypatch.setenv(variable, "2")


def asker(root: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return what asks about the runs below a folder."""

    def call(*arguments: str) -> Answer:
        status = main(["--runs", str(root), *arguments])
        captured = capsys.readouterr()
        return captured.out, captured.err, status

    return call


def complaint(answer: Answer) -> str:
    """Return the one line that a refusal consists of."""
    out, err, status = answer
    assert out == ""
    assert status != 0
    assert err.startswith(f"{PROGRAM}: ")
    assert err.count("\n") == 1
    return err.removeprefix(f"{PROGRAM}: ").rstrip("\n")


def data(answer: Answer) -> Any:
    """Return what an answer of one line of JSON holds."""
    out, _, status = answer
    assert status == 0
    assert out.count("\n") == 1
    assert out.isascii()
    return json.loads(out)

"""A run to ask about, for tests of commands."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.inspecting.asked import Ask, asker
from tests.small_runs import trained_run


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder with one run, which is being trained, and go to another one."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with trained_run(tmp_path):
        yield tmp_path


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], root: Path) -> Ask:
    return asker(root, capsys)

"""An error that nobody expected is kept in a file; one line says where."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loopback import CODE
from utilities.crashlog import KEPT, CrashLog
from utilities.errors import ConfigError, FaultError, TrainingError
from utilities.processes import run_program

ROOT = Path(__file__).parents[1]


def broken(what: str = "a b") -> None:
    raise ZeroDivisionError(what)


def told(folder: Path | None, *, debug: bool = False, what: str = "a b") -> str:
    """Return the line of an unexpected error."""
    with pytest.raises(FaultError) as caught, CrashLog("s.py", folder, debug=debug):
        broken(what)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    return str(caught.value)


def logs(folder: Path) -> list[Path]:
    return sorted(folder.glob("crash-*.log"))


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/s.py", f"{CODE.shown()}@lab", "--once"])


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a file, where folders should be, those of temporary files too."""
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    return tmp_path / "file"


def test_a_traceback_goes_to_a_file_that_the_line_names(
    tmp_path: Path, typed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(tmp_path / "new" / "runs")
    (path,) = logs(tmp_path / "new" / "runs")
    kept = path.read_text(encoding="utf-8")

    assert said == (
        "unexpected ZeroDivisionError: a b. This is a fault of the program, not yours: "
        f"report it with the file {path}, which holds the traceback and no join code "
        "(--debug shows it here)"
    )
    assert kept.startswith("s.py [join-code]@lab --once\nversion ")
    assert ", numpy " in kept.splitlines()[1]
    assert "\nTraceback (most recent call last):\n" in kept
    assert "in broken\n" in kept
    assert kept.endswith("ZeroDivisionError: a b\n")
    assert capsys.readouterr() == ("", "")


def test_with_debug_the_traceback_is_shown_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(tmp_path, debug=True)
    shown = capsys.readouterr().err

    assert shown.startswith("Traceback (most recent call last):\n")
    assert logs(tmp_path)[0].read_text(encoding="utf-8").endswith(f"\n{shown}")


def test_a_join_code_is_in_no_file_and_on_no_terminal(
    tmp_path: Path, typed: None, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        with CrashLog("s.py", tmp_path, debug=True):
            broken(f"of {CODE.shown()}!")

    assert run_program("s.py", fail) == 1
    everything = capsys.readouterr().err + logs(tmp_path)[0].read_text("utf-8")

    assert everything.count("ZeroDivisionError: of [join-code]!") == 3
    assert CODE.shown() not in everything


def test_what_cannot_be_written_there_goes_into_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for folder in (None, tmp_path / "file"):
        said = told(folder)
        (path,) = tmp_path.glob("crash-*/crash-*.log")
        assert str(path) in said
        assert os.name == "nt" or stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        path.unlink()


def test_what_cannot_be_written_anywhere_is_shown(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(nowhere)

    assert said.endswith("report it with the lines above, which no folder has taken")
    assert "in broken\n" in capsys.readouterr().err


def test_the_newest_files_are_kept_and_nothing_else_goes(tmp_path: Path) -> None:
    others = {"join-code", "crash-report.log"}
    for name in others:
        (tmp_path / name).touch()
    for number in range(30):
        (tmp_path / f"crash-20200101-0000{number:02}-1.log").touch()
    told(tmp_path)
    names = [path.name for path in logs(tmp_path) if path.name not in others]

    assert len(names) == KEPT
    assert names[:-1] == [f"crash-20200101-0000{n}-1.log" for n in range(21, 30)]
    assert all((tmp_path / name).exists() for name in others)


def test_a_long_error_is_cut_and_one_without_words_has_none(tmp_path: Path) -> None:
    assert told(tmp_path, what="").startswith("unexpected ZeroDivisionError. This is")
    assert len(told(tmp_path, what="x" * 5000)) < 600 + len(str(tmp_path))


@pytest.mark.parametrize(
    "error", [ConfigError("why"), TrainingError("why"), KeyboardInterrupt, SystemExit]
)
def test_what_is_meant_passes_through(
    tmp_path: Path, error: BaseException | type[BaseException]
) -> None:
    with (
        pytest.raises(BaseException) as caught,  # noqa: PT011 - compared below
        CrashLog("s.py", tmp_path, debug=True),
    ):
        raise error
    assert caught.value is error or caught.type is error
    assert logs(tmp_path) == []


def test_work_that_is_done_leaves_nothing(tmp_path: Path) -> None:
    with CrashLog("s.py", tmp_path / "runs", debug=True):
        pass

    assert list(tmp_path.iterdir()) == []


# The programs.

BREAKING = """
import sys
import utilities.{module} as module
def {name}(*_): raise ZeroDivisionError("a b")
module.{name} = {name}
import {script}
sys.argv = sys.argv[1:]
sys.exit({script}.main())
"""


@pytest.mark.parametrize(
    ("script", "module", "name", "line"),
    [
        ("basicServer", "serving", "serve", "--runs {folder}/basicClient"),
        ("basicClient", "client", "lend", "lab"),
        ("basicClient", "checkup", "report", "--doctor lab"),
    ],
)
def test_both_programs_end_with_status_1_and_one_line(
    script: str, module: str, name: str, line: str, tmp_path: Path
) -> None:
    code = BREAKING.format(script=script, module=module, name=name)
    words = line.format(folder=tmp_path).split()
    own = dict.fromkeys(("XDG_CONFIG_HOME", "APPDATA"), str(tmp_path))
    ended = subprocess.run(
        [sys.executable, "-c", code, f"{script}.py", *words],
        cwd=ROOT,
        env=os.environ | own,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )
    (path,) = logs(tmp_path / "basicClient")

    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"{script}.py: unexpected ZeroDivisionError: a b. ")
    assert ended.stderr.count("\n") == 1
    assert str(path) in ended.stderr
    assert path.read_text("utf-8").startswith(f"{script}.py {' '.join(words)}\n")
    assert os.name == "nt" or stat.S_IMODE(path.parent.stat().st_mode) == 0o700

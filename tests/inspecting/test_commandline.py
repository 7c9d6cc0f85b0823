import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.inspecting.asked import Ask, asker, complaint, same_threads
from tests.small_runs import trained_run
from utilities import processes
from utilities.inspect.__main__ import main
from utilities.inspect.commandline import COMMANDS, parse
from utilities.inspect.console import PROGRAM
from utilities.reporting import quoted

ROOT = Path(__file__).parents[2]
NAMES = (
    *("list", "show", "plot", "compare", "forecast", "credits"),
    *("samples", "generate", "chat", "bits", "export", "report", "replay", "verify"),
    "serve",
)


@pytest.fixture(autouse=True)
def _same_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    same_threads(monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Give a folder with one run, which is being trained."""
    with trained_run(tmp_path):
        yield tmp_path


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], root: Path) -> Ask:
    return asker(root, capsys)


# The command line.


def test_runs_may_be_named_before_or_after_the_command(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--runs", str(root), "list"]) == 0
    before = capsys.readouterr().out
    assert main(["--runs", "elsewhere", "list", "--runs", str(root)]) == 0

    assert capsys.readouterr().out == before
    assert "Some prose" in before


def test_runs_lie_in_training_runs_by_default(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "argv", ["inspect", "list"])
    assert main() == 0
    assert capsys.readouterr().out == (
        "No run in trainingRuns yet. Start one:\n"
        "  python basicServer.py --localClients 2 --maxSeconds 60\n"
    )

    shutil.copytree(root / "0", root / "trainingRuns" / "0")
    assert main() == 0
    assert "Some prose" in capsys.readouterr().out


def test_without_a_run_it_says_how_to_start_one_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "my runs"
    assert main(["--runs", str(root), "list"]) == 0
    assert capsys.readouterr().out == (
        f"No run in {root} yet. Start one:\n"
        f"  python basicServer.py --runs {quoted(root)} --localClients 2"
        " --maxSeconds 60\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], f"expected a command: {', '.join(NAMES)}; see --help"),
        (["--runs"], "argument --runs: expected one argument"),
        (["lst"], "argument COMMAND: expected one of list, .*, got lst; .* mean list?"),
        (["list", "--run", "x"], "--run: no such option; did you mean --runs?"),
        (["list", "3"], "3: .*option.*"),
        (["show", "x"], "N: expected a whole number from 0 to 2147483647, got x"),
        (["show", "-1"], "N: expected a whole number from 0 to 2147483647, got -1"),
        (
            ["generate", "--top_k", "1"],
            "--top_k: no such option; did you mean --topK?",
        ),
        (
            ["generate", "--length", "0"],
            "--length: expected a whole number from 1 to 1000000, got 0",
        ),
        (
            ["generate", "--temperature", "-0.1"],
            "--temperature: expected a number from 0 to 1000000, got -0.1",
        ),
        (
            ["generate", "--temperature", "nan"],
            "--temperature: expected a number from 0 to 1000000, got nan",
        ),
        (
            ["generate", "--top-k", "0"],
            "--topK: expected a whole number from 1 to 65536, or null, got 0",
        ),
        (
            ["generate", "--topP", "0"],
            "--topP: expected a number above 0 to 1, or null, got 0",
        ),
        (
            ["generate", "--seed", "-1"],
            r"--seed: expected a whole number from 0 to 2\^64 - 1, got -1",
        ),
        (
            ["generate", "--beams", "1025"],
            "--beams: expected a whole number from 0 to 1024, got 1025",
        ),
        (
            ["generate", "--length-penalty", "11"],
            "--lengthPenalty: expected a number from 0 to 10, got 11",
        ),
        (
            ["generate", "--step", "1.5"],
            "--step: expected a whole number from 0 to 281474976710656, or null, "
            "got 1.5",
        ),
        (
            ["generate", "--beams", "3", "--temperature", "0.5"],
            "--temperature: expected 0.8 with --beams, as a beam search draws nothing "
            "at random, got 0.5 with --beams 3; leave one of the two out",
        ),
        (
            ["generate", "--beams", "3", "--seed", "0"],
            "--seed: expected null with --beams, as a beam search draws nothing "
            "at random, got 0 with --beams 3; leave one of the two out",
        ),
        (
            ["generate", "--lengthPenalty", "1"],
            "--lengthPenalty: expected 0.0 without --beams, as only a beam search "
            "reads it, got 1.0; add --beams",
        ),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    ask: Ask, arguments: list[str], message: str
) -> None:
    answer = ask(*arguments)

    assert answer[2] == 2
    assert re.fullmatch(message.replace("?", r"\?"), complaint(answer))


def page(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [[], *([name] for name in NAMES)])
def test_help_has_a_purpose_and_examples_first_and_fits_a_line(
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = page(capsys, *command).splitlines()

    assert lines[0].startswith(f"usage: {' '.join([PROGRAM, *command])}")
    assert lines[1] == lines[4] == ""
    assert lines[2]
    assert lines[3]
    assert lines[5] == "examples"
    assert lines[6].startswith(f"  {PROGRAM}")
    assert "exit codes: 0 ok" in "\n".join(lines)
    assert "join code" not in "\n".join(lines)  # it never asks for one
    assert max(map(len, lines)) <= 80
    assert all(line.isprintable() for line in lines)


def test_help_lists_all_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = page(capsys)

    assert tuple(COMMANDS) == NAMES
    for name, command in COMMANDS.items():
        assert re.search(rf"^    {name} +{command.text}$", text, re.MULTILINE)


def examples() -> list[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    typed = re.findall(rf"^{PROGRAM} (.+)$", readme, re.MULTILINE)
    return [*typed, *(line for c in COMMANDS.values() for line in c.examples)]


@pytest.mark.parametrize("example", examples())
def test_every_example_can_be_typed(example: str) -> None:
    words = shlex.split(example.partition(" < ")[0].partition(" #")[0])
    command, options = parse(words)

    assert command.name == words[0]
    assert options["command"] == words[0]


def test_help_shows_each_option_once_with_its_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = " ".join(page(capsys, "generate").split())

    for words in (
        "--length N characters to write at most [400]",
        "likeliest [0.8]",
        "null: from all [null]",
        "seed of the random draws [new]",
        "step whose weights are taken [the newest]",
        "number of the run [the newest]",
        "--json print one line of JSON instead",
        "--runs DIR where runs are kept [trainingRuns]",
    ):
        assert words in out
    assert "--top-k" not in out


@pytest.mark.parametrize("name", ["chat", "export", "report", "serve"])
def test_what_is_no_data_has_no_json(name: str, ask: Ask) -> None:
    answer = ask(name, "--json")

    assert answer[2] == 2
    assert "--json: no such option" in complaint(answer)


def test_importing_it_does_nothing_and_hides_no_other_module() -> None:
    program = (
        "import os, sys, utilities.inspect.__main__, inspect, dataclasses\n"
        "print('numpy' in sys.modules, 'OPENBLAS_NUM_THREADS' in os.environ,\n"
        "      inspect is dataclasses.inspect, hasattr(inspect, 'signature'))"
    )
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    out = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=kept)

    assert out.split() == [b"False", b"False", b"True", b"True"]


def test_main_keeps_matrix_products_to_one_core(ask: Ask) -> None:
    assert ask("list")[2] == 0
    assert {os.environ[v] for v in processes.THREAD_VARIABLES} == {"1"}


def test_a_missing_package_is_named(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    monkeypatch.setattr("utilities.runs.RunStore", missing)
    answer = ask("list")

    assert answer[2] == 1
    assert complaint(answer).startswith("numpy is not installed; run: ")


# How it ends.


def test_a_reader_that_has_gone_ends_it_quietly(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stdout:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["--runs", str(root), "show"]) == 0
        monkeypatch.undo()
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_an_output_that_is_full_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["--runs", str(root), "list"]) == 6
        monkeypatch.undo()
    assert capsys.readouterr().err == (
        f"{PROGRAM}: standard output: cannot be written: No space left on device\n"
    )


def test_it_runs_as_a_module(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["inspect", "--runs", str(root), "list"])
    monkeypatch.delitem(sys.modules, "utilities.inspect.__main__")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("utilities.inspect", run_name="__main__")

    assert ended.value.code == 0
    assert "Some prose" in capsys.readouterr().out


def test_a_process_writes_to_a_file_what_a_terminal_would_show(root: Path) -> None:
    command = [sys.executable, *PROGRAM.split()[1:], "--runs", str(root), "show", "0"]
    environment = {**os.environ, "COLUMNS": "200", "PYTHONIOENCODING": "utf-8"}
    out = root / "out.txt"
    with out.open("wb") as file:
        ended = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.PIPE,
            check=False,
        )
    lines = out.read_text(encoding="utf-8").splitlines()

    assert (ended.returncode, ended.stderr) == (0, b"")
    assert lines[0] == "run          0, begun with version 1.0"
    assert max(map(len, lines)) == 80
    assert any("└" in line for line in lines)

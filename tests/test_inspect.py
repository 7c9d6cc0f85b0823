import io
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.small_runs import CONFIG, VOCABULARY, new_run, save, state_at, trained_run
from utilities import inspect, processes
from utilities.data import STOP
from utilities.generation import Beam, Sampling, beam_search, generate_text
from utilities.inspect import PROGRAM, main
from utilities.model import Layout, Network
from utilities.reporting import quoted

ROOT = Path(__file__).parents[1]
LAYOUT = Layout(CONFIG)

# Captured output and error output, and the exit status.
Answer = tuple[str, str, int]
Ask = Callable[..., Answer]


@pytest.fixture(autouse=True)
def _same_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pytest put back the variables that main sets."""
    for variable in processes.THREAD_VARIABLES:
        monkeypatch.setenv(variable, "2")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Give a folder with one run, which is being trained."""
    with trained_run(tmp_path):
        yield tmp_path


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], root: Path) -> Ask:
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


def written(step: int, prompt: str, length: int, sampling: Sampling) -> str:
    weights = state_at(step).weights
    return generate_text(LAYOUT, weights, VOCABULARY, prompt, length, sampling) + "\n"


class Terminal(io.TextIOWrapper):
    """What a terminal got, and in how many pieces."""

    def __init__(self, encoding: str = "utf-8") -> None:
        self.bytes = io.BytesIO()
        self.flushes = 0
        super().__init__(self.bytes, encoding=encoding, newline="")

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        self.flushes += 1
        super().flush()


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
        ([], "expected a command: list, show, generate; see --help"),
        (["--runs"], "argument --runs: expected one argument"),
        (["lst"], r"argument COMMAND: invalid choice: 'lst' \(choose from .*"),
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
            "--step: expected a whole number from 0 to 281474976710656, got 1.5",
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


@pytest.mark.parametrize("command", [[], ["list"], ["show"], ["generate"]])
def test_help_is_printed(command: list[str], ask: Ask) -> None:
    with pytest.raises(SystemExit) as ended:
        ask(*command, "--help")
    assert ended.value.code == 0


def test_help_shows_each_option_once_with_its_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    out = " ".join(capsys.readouterr().out.split())

    for words in (
        "--length N characters to write at most [400]",
        "likeliest [0.8]",
        "null: from all [null]",
        "seed of the random draws [a new one]",
        "step whose weights are taken [the newest]",
        "number of the run [the newest]",
    ):
        assert words in out
    assert "--top-k" not in out


def test_importing_it_does_nothing_and_hides_no_other_module() -> None:
    program = (
        "import os, sys, utilities.inspect, inspect, dataclasses\n"
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


# list and show


def test_list_shows_each_run(ask: Ask) -> None:
    out, err, status = ask("list")

    assert (err, status) == ("", 0)
    assert [line[:9] for line in out.splitlines()] == ["run  mode", "  0  rnn "]


def test_show_shows_the_named_run_or_the_newest(ask: Ask, root: Path) -> None:
    new_run(root, text_name="Other").close()

    assert "text         Some prose, " in ask("show", "0")[0]
    out, err, status = ask("show")

    assert (err, status) == ("", 0)
    assert out.startswith("run          1, begun")
    assert all(len(line) <= 80 for line in out.splitlines())


def test_a_run_that_is_not_there_is_refused(ask: Ask) -> None:
    answer = ask("show", "7")

    assert answer[2] == 6
    assert ": expected run 7, found run 0; name another one" in complaint(answer)


@pytest.mark.parametrize("command", ["show", "generate"])
def test_a_damaged_run_is_refused(ask: Ask, root: Path, command: str) -> None:
    (root / "0" / "config.json").write_text("{")
    answer = ask(command, "0")

    assert answer[2] == 6
    assert "config.json: expected JSON, got a damaged file" in complaint(answer)


def test_a_terminal_gets_a_plot_as_wide_as_it_is(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["show", "--runs", str(root)]) == 0
    lines = terminal.bytes.getvalue().decode().splitlines()

    axis = next(line for line in lines if "└" in line)
    assert len(axis) == 60


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "latin-1"])
def test_an_output_without_braille_gets_a_plain_plot(
    root: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    terminal = Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert main(["show", "--runs", str(root)]) == 0
    out = terminal.bytes.getvalue().decode(encoding)

    assert "* loss   o validation" in out
    assert "SHA-256 0123456789ab?" in out


def test_an_output_without_an_encoding_gets_a_plain_plot(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["show", "--runs", str(root)]) == 0
    assert "* loss   o validation" in stream.getvalue()


# generate


def test_it_writes_what_the_newest_weights_draw(ask: Ask) -> None:
    out, err, status = ask("generate", "0", "--prompt", "ab", "--seed", "3")

    assert out == written(101, "ab", 400, Sampling(0.8, seed=3))
    assert (err, status) == ("run 0, step 101\n", 0)


def test_all_settings_reach_the_draws(ask: Ask) -> None:
    settings = "--length 50 --temperature 2 --topK 5 --top-p 0.7 --seed 5"
    out, _, status = ask("generate", *settings.split(), "--prompt=-a")

    assert out == written(101, "-a", 50, Sampling(2.0, 5, 0.7, 5))
    assert status == 0


@pytest.mark.parametrize("step", [0, 1])
def test_older_weights_can_be_taken(ask: Ask, step: int) -> None:
    out, err, _ = ask("generate", "--step", str(step), "--seed", "3")

    assert out == written(step, "", 400, Sampling(0.8, seed=3))
    assert err == f"run 0, step {step}\n"


def test_without_a_seed_each_text_is_another_and_can_be_had_again(ask: Ask) -> None:
    first, err, _ = ask("generate")
    seed = re.fullmatch(r"run 0, step 101\n--seed (\d+) writes the same again\n", err)

    assert seed is not None
    assert ask("generate", "--seed", seed[1])[0] == first
    assert ask("generate")[0] != first


def test_a_step_that_was_not_kept_is_refused(ask: Ask) -> None:
    answer = ask("generate", "--step", "7")

    assert answer[2] == 6
    assert "expected a checkpoint of step 7, found checkpoints 0, 1, 101" in complaint(
        answer
    )


def test_characters_that_the_run_does_not_know_are_named(ask: Ask) -> None:
    out, err, status = ask("generate", "--prompt", "aäbä\udcff", "--seed", "1")

    assert "--prompt: not in the run's vocabulary, read as unknown: " in err
    assert err.endswith(r"'ä' (U+00E4), '\udcff' (U+DCFF)" + "\n")
    text = written(101, "aäbä\udcff", 400, Sampling(0.8, seed=1))
    assert out == text.replace("\udcff", "?")
    assert status == 0


def test_of_many_unknown_characters_the_first_are_named(ask: Ask) -> None:
    err = ask("generate", "--prompt", "0123456789")[1]

    assert "'7' (U+0037), 2 more\n" in err
    assert "'8'" not in err


@pytest.mark.parametrize("penalty", ["0", "1.5"])
def test_beams_find_the_likeliest_text(ask: Ask, penalty: str) -> None:
    out, err, status = ask(
        *("generate", "--prompt", "ab", "--length", "12", "--beams", "3"),
        *("--lengthPenalty", penalty, "--temperature", "0.8"),
    )
    best = beam_search(
        Network(LAYOUT),
        LAYOUT.views(state_at(101).weights),
        VOCABULARY.encode("ab"),
        12,
        Beam(3, float(penalty), STOP),
    )

    assert out == "ab" + VOCABULARY.decode(best.tokens) + "\n"
    assert err == (
        "run 0, step 101\n"
        f"log-probability {best.log_probability:.4f}, score {best.score:.4f}\n"
    )
    assert status == 0


def test_a_beam_search_ends_with_the_document(ask: Ask, root: Path) -> None:
    with new_run(root) as run:
        weights = state_at(1).weights.copy()
        LAYOUT.views(weights)["bo"][STOP] = 50
        save(run, 1, weights)

    assert ask("generate", "--beams", "2", "--prompt", "ab")[0] == "ab\n"


def test_a_terminal_gets_each_character_as_it_comes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal("ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    command = ["generate", "--length", "40", "--seed", "1", "--prompt", "ä"]
    assert main([*command, "--runs", str(root)]) == 0

    expected = written(101, "ä", 40, Sampling(0.8, seed=1)).replace("ä", "?")
    assert terminal.bytes.getvalue().decode() == expected
    assert terminal.flushes >= 41


def test_weights_that_have_diverged_are_refused_in_one_line(
    ask: Ask, root: Path
) -> None:
    with new_run(root) as run:
        save(run, 1, np.full(LAYOUT.size, 3e38, np.float32))
    out, err, status = ask("generate", "1", "--prompt", "ab", "--seed", "1")

    assert (out, status) == ("ab\n", 6)
    assert err.count("\n") == 2
    assert err.startswith(f"run 1, step 1\n{PROGRAM}: generation: expected finite")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 5}, r"expected 129 weights, as config\.json says, got 101 at"),
        ({"vocab_size": 8}, r"expected a vocabulary of 8, as config\.json says, got"),
        ({"vocab_size": None}, "expected a vocabulary of null, as"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    ask: Ask, root: Path, changes: dict[str, Any], message: str
) -> None:
    with new_run(root) as run:
        save(run, 1)
        run.update_config(replace(run.record.config, **changes))
    answer = ask("generate", "1")

    assert answer[2] == 6
    assert re.search(message, complaint(answer))


# How it ends.


def test_ctrl_c_ends_the_line_and_leaves_no_traceback(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Iterator[int]:
        yield 2
        raise KeyboardInterrupt

    monkeypatch.setattr("utilities.generation.sample_tokens", interrupted)

    assert ask("generate", "--prompt", "b", "--seed", "1") == (
        "ba\n",
        "run 0, step 101\n",
        130,
    )


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
    monkeypatch.delitem(sys.modules, "utilities.inspect")
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


def test_each_command_has_one_row_in_the_table() -> None:
    assert [c.name for c in inspect.COMMANDS] == ["list", "show", "generate"]

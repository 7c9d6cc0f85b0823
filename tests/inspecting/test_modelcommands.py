import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.inspecting.asked import Ask, complaint, data, same_threads
from tests.inspecting.curve_runs import law_lines
from tests.inspecting.test_console import Terminal
from tests.small_runs import CONFIG, VOCABULARY, new_run, save, state_at
from utilities.credits import CreditLog
from utilities.data import STOP
from utilities.export import exported
from utilities.generation import Beam, Sampling, beam_search, generate_text
from utilities.inspect.__main__ import main
from utilities.inspect.bits import END, compressed
from utilities.inspect.console import PROGRAM
from utilities.inspect.modelfolder import folder_files
from utilities.model import Layout, Network
from utilities.runs import Run
from utilities.trained import Model

LAYOUT = Layout(CONFIG)


@pytest.fixture(autouse=True)
def _same_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    same_threads(monkeypatch)


def written(step: int, prompt: str, length: int, sampling: Sampling) -> str:
    weights = state_at(step).trained
    return generate_text(LAYOUT, weights, VOCABULARY, prompt, length, sampling) + "\n"


def model(step: int = 101) -> Model:
    return Model(LAYOUT, VOCABULARY, step, state_at(step).trained)


def typed(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Have the program read this from standard input."""
    source = io.TextIOWrapper(io.BytesIO(text), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", source)


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


def test_a_text_can_end_before_another(ask: Ask) -> None:
    whole = written(101, "ab", 400, Sampling(0.8, seed=3))
    stop = whole[20:22]
    command = ["generate", "--prompt", "ab", "--seed", "3", "--stop", stop]
    expected = "ab" + whole[2:].partition(stop)[0]

    assert ask(*command)[0].rstrip("\n") == expected.rstrip("\n")
    assert data(ask(*command, "--json"))["text"] == expected[2:]


def test_a_stop_is_for_what_is_drawn_and_is_not_empty(ask: Ask) -> None:
    answer = ask("generate", "--stop", "a", "--beams", "2")
    assert "--stop: expected null with --beams" in complaint(answer)
    assert "--stop: expected a text of" in complaint(ask("generate", "--stop", ""))


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
        LAYOUT.views(state_at(101).trained),
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
        weights = state_at(1).trained.copy()
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


def test_ctrl_c_ends_the_line_and_leaves_no_traceback(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Iterator[int]:
        yield 2
        raise KeyboardInterrupt

    monkeypatch.setattr("utilities.trained.sample_tokens", interrupted)

    assert ask("generate", "--prompt", "b", "--seed", "1") == (
        "ba\n",
        "run 0, step 101\n",
        130,
    )


def test_a_prompt_may_come_from_a_file_or_standard_input(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("start.txt").write_bytes("\ufeffab\r\nc".encode())
    expected = written(101, "ab\nc", 400, Sampling(0.8, seed=3))

    assert ask("generate", "--promptFile", "start.txt", "--seed", "3")[0] == expected
    typed(monkeypatch, b"ab\r\nc")
    assert ask("generate", "--prompt-file", "-", "--seed", "3")[0] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "start.txt: expected a text file, or - for standard input, got: No"),
        (b"ab\xff", "start.txt: byte offset 2: expected UTF-8, got 0xff; convert it"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused(
    ask: Ask, content: bytes | None, message: str
) -> None:
    if content is not None:
        Path("start.txt").write_bytes(content)
    answer = ask("generate", "--promptFile", "start.txt")

    assert answer[2] == 5
    assert complaint(answer).startswith(message)


def test_two_prompts_are_one_too_many(ask: Ask) -> None:
    answer = ask("generate", "--prompt", "a", "--promptFile", "b")

    assert answer[2] == 2
    assert "--promptFile: expected no --prompt besides" in complaint(answer)


def test_what_it_writes_is_data_too(ask: Ask) -> None:
    answer = ask("generate", "--json", "--prompt", "aX", "--seed", "3")
    text = written(101, "aX", 400, Sampling(0.8, seed=3))[2:-1]

    assert data(answer) == {
        "run": 0,
        "step": 101,
        "prompt": "aX",
        "unknown": ["X"],
        "seed": 3,
        "text": text,
    }
    searched = data(ask("generate", "--json", "--beams", "2", "--length", "5"))
    assert searched.keys() >= {"text", "logProbability", "score"}
    assert "seed" not in searched


# samples


def test_the_same_prompt_is_shown_as_the_model_learned(ask: Ask) -> None:
    out, err, status = ask("samples", "--prompt", "ab", "--length", "20")

    def sample(step: int) -> list[str]:
        text = written(step, "ab", 20, Sampling(0.8, seed=1))
        return [f"  {line}".rstrip() for line in text.removesuffix("\n").split("\n")]

    assert (err, status) == ("", 0)
    assert out.splitlines() == [
        "step 0, validation loss 3.100 nats (4.472 bits)",
        *sample(0),
        "step 1",
        *sample(1),
        "step 101",
        *sample(101),
    ]


def test_so_many_steps_are_shown_as_asked_for(ask: Ask) -> None:
    answer = data(ask("samples", "--count", "2", "--length", "5", "--json"))

    assert [sample["step"] for sample in answer["samples"]] == [0, 101]
    assert answer["prompt"] == ""  # "The " has characters that are not known
    assert answer["samples"][0]["validation"] == 3.1
    assert answer["samples"][1]["validation"] is None
    assert answer["samples"][1]["trouble"] is None
    text = written(101, "", 5, Sampling(0.8, seed=1)).removesuffix("\n")
    assert answer["samples"][1]["text"] == text


def test_lines_of_samples_fit_a_terminal(ask: Ask) -> None:
    out = ask("samples", "--prompt", "ab" * 100, "--length", "300")[0]

    assert max(map(len, out.splitlines())) == 80


def test_weights_that_cannot_write_say_so_among_the_others(
    ask: Ask, root: Path
) -> None:
    with new_run(root) as run:
        save(run, 1, np.full(LAYOUT.size, 3e38, np.float32), weights_only=True)
        save(run, 2, weights_only=True)
    out, _, status = ask("samples", "1")

    assert status == 0
    assert "  generation: expected finite log-probabilities" in out
    assert "step 2\n" in out


def test_a_run_without_weights_has_no_samples(ask: Ask, root: Path) -> None:
    new_run(root).close()
    answer = ask("samples", "1")

    assert answer[2] == 6
    assert complaint(answer).endswith(
        "expected a checkpoint, found no checkpoint; name another one, or wait for "
        "the next one"
    )


# chat


def test_a_conversation_goes_on_until_it_is_ended(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, b":seed 3\nab\n:quit\nnot read\n")
    out, err, status = ask("chat")

    assert status == 0
    assert err == "run 0, step 101; :help lists commands, :quit ends\n"
    assert out == (
        "step 101, temp 0.8, topk null, topp null, beams 0, seed 3, length 200\n"
        + written(101, "ab", 200, Sampling(0.8, seed=3))
        + "\n"
    )


def test_the_end_of_the_input_ends_it(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, b":step 1")
    out, _, status = ask("chat", "--step", "0")

    assert status == 0
    assert out.startswith("step 1, temp 0.8")


def test_what_cannot_be_read_is_named_and_the_conversation_goes_on(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, b"X\xff\n:temp\n")
    out, err, status = ask("chat")

    assert status == 0
    assert (
        "your line: not in the run's vocabulary, read as unknown: 'X' (U+0058)" in err
    )
    assert "'\ufffd' (U+FFFD)" in err
    assert ":temp: expected a number" in out


def test_a_terminal_gets_a_prompt_and_its_line_is_ended(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    class Keyboard(io.StringIO):
        def isatty(self) -> bool:
            return True

    def read(prompt: str) -> str:
        asked.append(prompt)
        raise EOFError

    monkeypatch.setattr(sys, "stdin", Keyboard())
    monkeypatch.setattr("builtins.input", read)
    assert main(["chat", "--runs", str(root)]) == 0

    assert asked == ["> "]
    assert capsys.readouterr().out == "\n"


def test_ctrl_c_ends_an_answer_and_then_the_conversation(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["ab", ":length 5"])

    def read(_: str) -> str:
        line = next(lines, None)
        if line is None:
            raise KeyboardInterrupt
        return line

    def interrupted(*_: object) -> Iterator[str]:
        yield "c"
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr(Model, "pieces", interrupted)
    out, _, status = ask("chat")

    assert status == 130
    assert out.startswith("abc\nstep 101, ")
    assert out.endswith("length 5\n")


def test_a_conversation_needs_weights(ask: Ask) -> None:
    answer = ask("chat", "--step", "7")

    assert answer[2] == 6
    assert "expected a checkpoint of step 7" in complaint(answer)


# bits


TEXT = "abc de\n" * 20


def bits_of(text: str) -> float:
    return float(np.concatenate(list(model().surprise(text))).mean())


def test_a_text_has_bits_beside_those_of_compressors(ask: Ask) -> None:
    Path("book.txt").write_text(TEXT)
    out, err, status = ask("bits", "0", "book.txt", "--show", "9")
    others = compressed(TEXT)

    assert (err, status) == ("", 0)
    lines = out.splitlines()
    assert lines[:6] == [
        "book.txt: 140 characters; bits for each of them:",
        f"  model {bits_of(TEXT):7.3f}",
        *(f"  {name:<6}{figure:7.3f}" for name, figure in others.items()),
        "  (run 0, step 101; its 404 B of weights not counted)",
    ]
    assert lines[6:8] == ["", "below each character its bits, 9: nine or more"]
    assert lines[8] == f"abc de{END}"
    assert lines[10] == "ab"
    assert re.fullmatch("[0-9]{7}", lines[9])
    assert len(lines) == 12


def test_the_newest_run_reads_standard_input(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, TEXT.encode())
    out, _, status = ask("bits", "-", "--show", "0")

    assert status == 0
    assert out.splitlines()[0] == "-: 140 characters; bits for each of them:"
    assert len(out.splitlines()) == 6


def test_unknown_characters_are_counted(ask: Ask) -> None:
    Path("book.txt").write_text("aXbXYa")
    lines = ask("bits", "book.txt", "--show", "0")[0].splitlines()

    assert lines[6:] == [
        "  3 are not in the vocabulary: they count as unknown, and the",
        "  model's figure does not tell which they are.",
    ]


def test_a_terminal_gets_colours(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("book.txt").write_text(TEXT)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["bits", "book.txt", "--runs", str(root)]) == 0
    shown = terminal.bytes.getvalue().decode()
    plain = re.sub("\x1b\\[[0-9;]*m", "", shown)

    assert "\x1b[38;5;231;48;5;" in shown
    assert f"\nabc de{END}\nabc de{END}\n" in plain
    assert plain.splitlines()[7].startswith("bits  0  1  2")


def test_colours_may_be_asked_for_and_refused(ask: Ask) -> None:
    Path("book.txt").write_text(TEXT)

    assert "\x1b[" in ask("bits", "book.txt", "--colour", "always")[0]
    assert "\x1b[" not in ask("bits", "book.txt", "--colour", "never")[0]


def test_bits_are_data_too(ask: Ask) -> None:
    Path("book.txt").write_text(TEXT + "X")
    answer = data(ask("bits", "book.txt", "--json", "--show", "3"))

    assert answer["characters"] == 141
    assert answer["unknown"] == 1
    assert answer["text"] == "abc"
    (expected,) = model().surprise("abc")
    assert answer["bits"] == pytest.approx(expected.tolist(), abs=1e-4)
    figures = answer["bitsPerCharacter"]
    assert figures.pop("model") == pytest.approx(bits_of(TEXT + "X"))
    assert figures == compressed(TEXT + "X")


def test_a_long_text_is_announced(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utilities.inspect.modelcommands._LONG", 100)
    Path("book.txt").write_text(TEXT)

    assert ask("bits", "book.txt")[1] == "reading 140 characters, one after the other\n"


def test_an_empty_text_is_refused(ask: Ask) -> None:
    Path("book.txt").write_text("")
    answer = ask("bits", "book.txt")

    assert answer[2] == 5
    assert complaint(answer) == "book.txt: expected characters, got none"


# export


@pytest.mark.parametrize("kind", ["npy", "npz", "safetensors"])
def test_weights_are_written_for_others(ask: Ask, root: Path, kind: str) -> None:
    name = f"run-0-step-000001.{kind}"
    answer = ask("export", "0", "--to", kind, "--step", "1")

    assert answer == ("", f"wrote {name}\n", 0)
    expected = exported(model(1), Run(root / "0").record, kind)
    assert Path(name).read_bytes() == expected


def test_the_file_may_be_named(ask: Ask) -> None:
    assert ask("export", "-o", "a.npz") == ("", "wrote a.npz\n", 0)
    with np.load("a.npz", allow_pickle=False) as file:
        assert file["step"] == 101


def test_a_model_may_be_a_folder_with_a_card(ask: Ask, root: Path) -> None:
    answer = ask("export", "--to", "hf-dir", "-o", "mymodel")

    names = [path.name for path in Path("mymodel").iterdir()]
    files = folder_files(model(), Run(root / "0").record)
    assert answer == ("", "".join(f"wrote {Path('mymodel', n)}\n" for n in files), 0)
    assert sorted(names) == sorted(files)
    assert all(Path("mymodel", n).read_bytes() == files[n] for n in files)
    assert ask("export", "--to", "hf-dir", "-o", "mymodel") == answer  # once more


def test_a_folder_that_cannot_be_made_is_named(ask: Ask) -> None:
    Path("taken").write_text("x")
    answer = ask("export", "--to", "hf-dir", "-o", "taken")

    assert answer[2] == 6
    assert complaint(answer).startswith("taken: cannot be written")
    assert "hf-dir" in complaint(ask("export", "--to", "hf"))


# report


def test_a_report_is_one_page(ask: Ask, root: Path) -> None:
    with new_run(root) as run:
        save(run, 0)
        text = "".join(json.dumps(line) + "\n" for line in law_lines(40))
        (run.path / "metrics.jsonl").write_text(text)
        log = CreditLog(run)
        log.add(0, [("lab-1", 300, 60.0)])
        log.save(1)
    answer = ask("report", "1", "--prompt", "abc")
    page = Path("report.html").read_text(encoding="utf-8")

    assert answer == ("", "wrote report.html\n", 0)
    for words in ("Run 1: Some prose", "This rests on", "lab-1", "guessing evenly"):
        assert words in page
    assert "What it writes after “abc”" in page


def test_a_report_of_a_short_run_has_no_forecast(ask: Ask) -> None:
    assert ask("report", "-o", "page.html")[2] == 0
    page = Path("page.html").read_text(encoding="utf-8")

    assert "Forecast" not in page
    assert "Machines" not in page
    assert "What it writes from nothing" in page


def test_a_conversation_changes_the_run_and_is_saved(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "said.txt"
    lines = f":seed 3\n:length 20\nab\n:save {path}\n:run 0\n:run 99\n"
    typed(monkeypatch, lines.encode())
    out, err, status = ask("chat")

    assert path.read_text() == written(101, "ab", 20, Sampling(0.8, seed=3))
    assert "expected run 99" in out
    assert f"wrote {path}\n" in err
    assert status == 0

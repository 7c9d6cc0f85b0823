import io
import json
import math
import os
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.inspecting.asked import Ask, complaint, data, same_threads
from tests.inspecting.curve_runs import law, law_lines
from tests.inspecting.test_console import Terminal
from tests.small_runs import CONFIG, new_run, snapshot
from utilities.credits import CreditLog
from utilities.inspect.__main__ import main


@pytest.fixture(autouse=True)
def _same_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    same_threads(monkeypatch)


def words(svg: Path) -> str:
    return " ".join(ElementTree.fromstring(svg.read_text(encoding="utf-8")).itertext())


# list and show


def test_list_shows_each_run(ask: Ask) -> None:
    out, err, status = ask("list")

    assert (err, status) == ("", 0)
    assert [line[:9] for line in out.splitlines()] == ["run  mode", "  0  rnn "]


def test_list_is_data_too(ask: Ask, root: Path) -> None:
    (root / "4").mkdir()
    first, second = data(ask("list", "--json"))

    assert (first["run"], first["step"]) == (0, 101)
    assert first["validation"] == {
        "step": 100,
        "nats": 2.5,
        "bits": pytest.approx(2.5 / math.log(2)),
    }
    assert second == {
        "run": 4,
        "damaged": "no run: config.json is missing (never finished, or lost)",
    }


def test_show_shows_the_named_run_or_the_newest(ask: Ask, root: Path) -> None:
    new_run(root, text_name="Other").close()

    assert "text         Some prose, " in ask("show", "0")[0]
    out, err, status = ask("show")

    assert (err, status) == ("", 0)
    assert out.startswith("run          1, begun")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert data(ask("show", "--json"))["text"] == "Other"


def test_a_run_that_is_not_there_is_refused(ask: Ask) -> None:
    answer = ask("show", "7")

    assert answer[2] == 6
    assert complaint(answer).endswith(
        "expected run 7, found run 0; name another one, or another folder with --runs"
    )


@pytest.mark.parametrize(
    "command", ["show", "generate", "plot", "samples", "export", "report", "chat"]
)
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


@pytest.mark.parametrize(
    "command",
    [
        *("list", "show 0", "plot 0", "compare 0 1", "forecast 0", "credits 0"),
        *("samples 0", "generate 0", "bits 0 text", "export 0", "report 0"),
    ],
)
def test_a_run_is_only_read_while_it_is_trained(
    ask: Ask, root: Path, command: str
) -> None:
    new_run(root).close()
    Path("text").write_text("abc")
    before = {n: snapshot(root / n) for n in ("0", "1")}
    status = ask(*command.split())[2]

    assert status == (6 if command in ("forecast 0", "credits 0") else 0)
    assert {n: snapshot(root / n) for n in ("0", "1")} == before


# compare


def test_runs_are_compared(ask: Ask, root: Path) -> None:
    new_run(root, config=replace(CONFIG, sigma=0.1)).close()
    out, err, status = ask("compare", "0", "1", "0")

    assert (err, status) == ("", 0)
    assert "* sigma" in out
    assert out.splitlines()[0].split() == ["run", "0", "1"]
    answer = data(ask("compare", "0", "1", "--json"))
    assert answer["differing"] == {"sigma": [0.02, 0.1]}


@pytest.mark.parametrize(
    ("numbers", "got"), [([], "none"), (["0"], "1"), (["0", "0"], "1")]
)
def test_one_run_cannot_be_compared(ask: Ask, numbers: list[str], got: str) -> None:
    answer = ask("compare", *numbers)

    assert answer[2] == 2
    assert f"expected two different runs or more, got {got};" in complaint(answer)


# plot


def test_a_plot_goes_to_a_file(ask: Ask, root: Path) -> None:
    assert ask("plot") == ("", "wrote loss.svg\n", 0)
    assert "run 0: Some prose" in words(Path("loss.svg"))

    new_run(root, text_name="Other").close()
    answer = ask("plot", "0", "1", "--by", "time", "--output", "both.SVG")
    assert answer == ("", "wrote both.SVG\n", 0)
    assert "run 1: Other" in words(Path("both.SVG"))
    assert "seconds trained" in words(Path("both.SVG"))


def test_a_plot_may_show_what_trivial_methods_reach(ask: Ask) -> None:
    ask("plot", "--baselines", "-o", "with.svg")
    ask("plot", "-o", "without.svg")

    assert "guessing evenly" in words(Path("with.svg"))
    assert "guessing evenly" not in words(Path("without.svg"))


def test_a_plots_points_are_data(ask: Ask) -> None:
    (answer,) = data(ask("plot", "--json", "--by", "trials"))

    assert (answer["run"], answer["by"]) == (0, "trials")
    assert answer["loss"]["x"][:2] == [1024, 2048]
    assert answer["loss"]["nats"][:2] == [3.0, 2.5]
    assert answer["validation"] == {
        "x": [0, 50 * 1024, 100 * 1024],
        "nats": [3.1, 2.25, 2.5],
    }
    assert not Path("loss.svg").exists()
    assert data(ask("plot", "--json", "-o", "too.svg"))
    assert Path("too.svg").exists()


def test_a_png_is_drawn_by_matplotlib(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utilities.inspect.pngplot.draw", lambda _: b"a picture")
    assert ask("plot", "-o", "loss.png") == ("", "wrote loss.png\n", 0)
    assert Path("loss.png").read_bytes() == b"a picture"

    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    answer = ask("plot", "-o", "other.png")
    assert answer[2] == 1
    assert complaint(answer).startswith("matplotlib is not installed, which PNG needs")


def test_another_kind_of_file_is_refused(ask: Ask) -> None:
    answer = ask("plot", "-o", "loss.pdf")

    assert answer[2] == 2
    assert complaint(answer) == (
        "--output: expected .svg or .png at the end, got loss.pdf"
    )


def test_a_place_that_cannot_be_written_is_named(ask: Ask) -> None:
    answer = ask("plot", "-o", "nowhere/loss.svg")

    assert answer[2] == 6
    assert f"nowhere{os.sep}loss.svg: cannot be written: No such" in complaint(answer)


# credits


def test_shares_of_machines_are_told(ask: Ask, root: Path) -> None:
    with new_run(root) as run:
        log = CreditLog(run)
        log.add(0, [("lab-1", 300, 60.0), ("lab-\x1b2", 100, 60.0)])
        log.save(1)
    out, err, status = ask("credits", "1")

    assert (err, status) == ("", 0)
    assert out.splitlines() == [
        "run 1, the steps before 1",
        "machine  steps  trials  share  of the gradient",
        "lab-1        1     300  75.0%            50.0%",
        "lab-?2       1     100  25.0%            50.0%",
    ]
    answer = data(ask("credits", "1", "--json"))
    assert answer["step"] == 1
    assert answer["machines"][0] == {
        "name": "lab-1",
        "steps": 1,
        "trials": 300,
        "shareOfTrials": 0.75,
        "shareOfGradient": 0.5,
    }


def test_a_run_without_credits_says_why(ask: Ask) -> None:
    answer = ask("credits")

    assert answer[2] == 6
    assert "expected credits.json, found none: it is written with each" in complaint(
        answer
    )


# forecast


@pytest.fixture
def falling(root: Path) -> None:
    """Add run 1, whose loss follows the law."""
    with new_run(root) as run:
        text = "".join(json.dumps(line) + "\n" for line in law_lines(40))
        (run.path / "metrics.jsonl").write_text(text)


@pytest.mark.usefixtures("falling")
def test_a_forecast_is_for_the_next_round_losses(ask: Ask) -> None:
    out, err, status = ask("forecast")

    assert (err, status) == ("", 0)
    targets = [line.split()[0] for line in out.splitlines()[4:8]]
    assert targets == ["1.800", "1.750", "1.700", "1.650"]
    assert "This rests on" in out


@pytest.mark.usefixtures("falling")
def test_targets_may_be_nats_or_bits(ask: Ask) -> None:
    target = float(law(800e3))
    flags = ("--target", str(target), "--target-bits", str(1.7 / math.log(2)))
    answer = data(ask("forecast", "1", "--json", *flags))

    assert [x["nats"] for x in answer["forecasts"]] == pytest.approx([target, 1.7])
    middle = answer["forecasts"][0]["secondsFromNow"]["middle"]
    assert middle == pytest.approx(400, rel=0.1)


def test_a_curve_that_is_too_short_is_refused(ask: Ask) -> None:
    answer = ask("forecast")

    assert answer[2] == 6
    assert (
        "forecast: expected 6 validation losses or more, got 2; train on: losses come "
        "at steps 1, 2, 4, 8 ... and with each checkpoint"
    ) in complaint(answer)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "101"])
def test_a_target_that_no_loss_can_be_is_refused(ask: Ask, value: str) -> None:
    answer = ask("forecast", "--target", value)

    assert answer[2] == 2
    assert "--target: expected a number above 0 to 100, got" in complaint(answer)

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.small_runs import (
    CONFIG,
    NOW,
    log,
    metrics,
    new_run,
    save,
    snapshot,
    trained_run,
)
from utilities.config import KEYS, Config
from utilities.display import WIDTH
from utilities.errors import RunError
from utilities.inspect.summary import Recent, list_lines, look, look_at_all, show_lines
from utilities.inspect.textplot import ASCII, UNICODE
from utilities.inspect.words import size, span
from utilities.runs import Run, RunStore

LOG2 = math.log(2)


def bytes_in(folder: Path) -> str:
    return size(
        sum(path.lstat().st_size for path in (folder, *folder.rglob("*")))
        - folder.lstat().st_size
    )


def listed(root: Path) -> list[str]:
    return list_lines(RunStore(root), NOW + 300)


def page(run: Run, width: int = WIDTH) -> list[str]:
    return show_lines(look(run), NOW + 300, width, ASCII)


def fact(lines: list[str], name: str) -> str:
    found = [line[13:] for line in lines if line.startswith(f"{name:<13}")]
    assert len(found) == 1, lines
    return found[0]


def write_metrics(run: Run, *lines: dict[str, Any] | str) -> None:
    text = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
    (run.path / "metrics.jsonl").write_text(text)


# The overview.


def test_an_overview_is_plain_data_too(tmp_path: Path) -> None:
    with trained_run(tmp_path) as run:
        answer = look(run).to_json(NOW + 300)

    assert json.loads(json.dumps(answer)) == answer
    assert (answer["run"], answer["model"], answer["text"]) == (
        0,
        "rnn 1x4",
        "Some prose",
    )
    assert (answer["step"], answer["trials"], answer["seconds"]) == (101, 103424, 50.5)
    assert (answer["lastActive"], answer["age"]) == (NOW, 300)
    assert answer["best"] == {"step": 50, "nats": 2.25, "bits": 2.25 / LOG2}
    assert (answer["checkpoints"], answer["weightsOnly"]) == ([0, 101], [1])
    assert answer["config"]["hiddenSize"] == 4
    assert answer["gradientQuality"] is None
    assert answer["timePerStep"] is None
    assert answer["bytes"] > 1000


def test_a_run_without_a_moment_was_last_active_when_it_began(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        overview = look(run)

        assert overview.moment == (run.path / "config.json").stat().st_mtime
    assert overview.to_json(0)["validation"] is None


def test_the_last_steps_are_told_as_far_as_they_are_known(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        new = {"timePerStep": 0.5, "trialSeconds": 0.4}
        lines = [{"step": i, "gradientQuality": 0.1 * (i % 2), **new} for i in range(8)]
        write_metrics(run, {"step": 0, "timePerStep": 9}, *lines, {"step": 8})
        lines_ = page(run)
        known = Recent.of(run.curves)

    assert fact(lines_, "a step") == "asked 0.5 s, trials 0.4 s"
    # Four of 0 and four of 0.1: mean 0.05, deviation 0.0535, over the root of 8.
    assert fact(lines_, "gradient") == (
        "0.050 ± 0.019, cosine of two halves of the trials"
    )
    assert known.update_seconds is None
    assert known.gradient_quality == pytest.approx(0.05)


def test_few_qualities_say_nothing(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        write_metrics(run, *({"step": i, "gradientQuality": 0.5} for i in range(4)))
        lines = page(run)

    assert not [line for line in lines if line.startswith(("gradient ", "a step"))]


def test_a_state_at_the_end_is_no_step_to_be_told(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        write_metrics(
            run,
            {"step": 0, "timePerStep": 0.5, "clients": 1},
            {"step": 1, "timePerStep": 0.0, "clients": 0},
        )
        assert fact(page(run), "a step") == "asked 0.5 s"


# The list.


def test_no_run_is_no_line(tmp_path: Path) -> None:
    assert listed(tmp_path / "nowhere") == []


def test_each_run_has_a_line(tmp_path: Path) -> None:
    with trained_run(tmp_path), new_run(tmp_path, text_name="Other") as other:
        config = other.path / "config.json"
        age = span(NOW + 300 - config.stat().st_mtime)
        sizes = [bytes_in(tmp_path / name) for name in "01"]
        lines = listed(tmp_path)

    width = max(map(len, sizes))
    assert lines == [
        "run  model    text        step  val nats (bits)    age  saved  "
        + "size".rjust(width),
        "  0  rnn 1x4  Some prose   101    2.500 (3.607)  5 min      3  "
        + sizes[0].rjust(width),
        f"  1  rnn 1x4  Other          0                -  {age:>5}      0  "
        + sizes[1].rjust(width),
    ]


def test_a_step_saved_in_both_ways_counts_once(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        save(run, 1)
        save(run, 1, weights_only=True)
        save(run, 2, weights_only=True)
        line = listed(tmp_path)[1]

    assert line.split()[-3] == "2"


def test_every_line_fits_80_places(tmp_path: Path) -> None:
    wide = replace(CONFIG, hidden_size=4096, n_layers=16, step_num=2**48 - 1)
    with new_run(tmp_path, text_name="世界" * 100, config=wide) as run:
        write_metrics(run, {"step": 2**48 - 1, "validationLoss": 99.123})
        lines = listed(tmp_path)
        run.path.rename(tmp_path / "99999")
        (tmp_path / "1" / "checkpoints").mkdir(parents=True)
        (tmp_path / "1" / "config.json").write_text("{" * 200)
        lines += listed(tmp_path)

    assert len(lines) == 6
    assert "2.81e+14" in lines[1]
    assert "99.123 (143.004)" in lines[1]
    assert "  世界世界世界…   " in lines[1]
    assert all(len(line) + line.count("世") + line.count("界") <= 80 for line in lines)


def test_a_damaged_run_gets_a_line_and_hides_no_other(tmp_path: Path) -> None:
    for _ in range(4):
        new_run(tmp_path).close()
    (tmp_path / "0" / "config.json").write_text("{}")
    (tmp_path / "1" / "metrics.jsonl").mkdir()
    (tmp_path / "3" / "checkpoints").rmdir()

    lines = listed(tmp_path)

    assert [line[:3] for line in lines[:2]] == ["run", "  2"]
    assert lines[2].startswith("  0  damaged: config.json: firstStep: expected ")
    assert lines[3].startswith("  1  damaged: metrics.jsonl: cannot be read: ")
    assert lines[4].startswith("  3  damaged: checkpoints: cannot be read: ")
    assert lines[5:] == ["What is damaged is told in full by: show N"]


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    new_run(tmp_path).close()
    (tmp_path / "1").mkdir()
    (tmp_path / "2").write_text("a file")
    lines = listed(tmp_path)
    _, damaged = look_at_all(RunStore(tmp_path))

    assert lines[2:] == [
        "  1  no run: config.json is missing (never finished, or lost)",
        "What is damaged is told in full by: show N",
    ]
    assert damaged == {1: "no run: config.json is missing (never finished, or lost)"}


def test_damaged_runs_alone_need_no_heading(tmp_path: Path) -> None:
    new_run(tmp_path).close()
    (tmp_path / "0" / "config.json").write_text("")

    lines = listed(tmp_path)

    assert len(lines) == 2
    assert lines[0].startswith("  0  damaged: config.json: expected JSON")


def test_a_run_is_only_read_while_it_is_trained(tmp_path: Path) -> None:
    with trained_run(tmp_path) as run:
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write('{"step":101,"los')
        with (run.path / "loss.txt").open("a") as file:
            file.write("2.1")
        before = snapshot(tmp_path)
        lines = listed(tmp_path)
        text = page(RunStore(tmp_path).open(0, lock=False))
        assert snapshot(tmp_path) == before

    assert "101    2.500 (3.607)" in lines[1]
    assert fact(text, "step") == "101"


def test_a_file_that_goes_meanwhile_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trained_run(tmp_path) as run:
        before = fact(page(run), "size")
        extra = run.path / "checkpoints" / ".step-000200.npz.1.tmp"
        extra.write_bytes(bytes(10**6))
        lstat = Path.lstat

        def gone(path: Path) -> object:
            if path == extra:
                raise FileNotFoundError
            return lstat(path)

        assert fact(page(run), "size") != before
        monkeypatch.setattr(Path, "lstat", gone)
        assert fact(page(run), "size") == before


# The page of one run.


def test_a_page_shows_figures_plot_and_configuration(tmp_path: Path) -> None:
    with trained_run(tmp_path) as run:
        lines = page(run)
        bytes_ = bytes_in(run.path)

    last = 2 + 1 / 101
    assert lines[:14] == [
        "run          0, begun with version 1.0",
        "model        rnn 1x4",
        "text         Some prose, SHA-256 0123456789ab…",
        "step         101",
        "trials       103,424",
        "trained      50 s",
        "last active  5 min ago",
        f"loss         {last:.4f} nats, {last / LOG2:.4f} bits per character, step 100",
        "validation   2.5000 nats, 3.6067 bits per character, step 100",
        "best         2.2500 nats, 3.2461 bits per character, step 50",
        "checkpoints  steps 0, 101",
        "weights only step 1",
        f"size         {bytes_}",
        "",
    ]
    assert lines[14] == "    nats"
    assert lines[15:31][-1].split() == [str(i) for i in range(0, 101, 10)]
    assert lines[31:33] == ["          step     * loss   o validation", ""]
    assert lines[33] == "configuration (* differs from the default)"
    keys = {line[2:].split()[0]: line for line in lines[34:]}
    assert list(keys) == list(KEYS)
    assert keys["modelType"] == "  modelType            rnn"
    assert keys["grace"] == "  grace                null"
    assert keys["hiddenSize"] == "* hiddenSize           4                default 32"
    marked = {key for key, line in keys.items() if line.startswith("*")}
    assert marked == {"hiddenSize", "vocabSize", "keepCheckpoints", "stepNum"}
    assert all(len(line) <= 80 for line in lines)


def test_a_run_without_steps_has_a_page(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        lines = page(run)

    for name in ("loss", "validation", "best", "checkpoints", "weights only"):
        assert fact(lines, name) == "-"
    assert (fact(lines, "trials"), fact(lines, "trained")) == ("0", "0 s")
    assert "no step has a loss yet" in lines


def test_the_last_loss_is_the_last_that_is_a_number(tmp_path: Path) -> None:
    config = replace(CONFIG, step_num=40)
    with new_run(tmp_path, config=config) as run:
        log(run, (metrics(i, loss=x) for i, x in ((40, 3.0), (41, 2.5), (42, None))))
        lines = page(run)

    assert fact(lines, "loss") == "2.5000 nats, 3.6067 bits per character, step 41"
    assert fact(lines, "step") == "43, begun at 40"


def test_steps_without_any_loss_give_no_plot(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        log(run, [metrics(0, loss=None), metrics(1, loss=None)])
        lines = page(run)

    assert fact(lines, "loss") == "-"
    assert "no step has a loss yet" in lines


def test_trials_of_a_long_run_are_said_to_be_rough(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        write_metrics(run, {"step": 999, "trials": 1000})
        assert fact(page(run), "trials") == "about 1,000,000"


def test_names_of_others_cannot_break_the_page(tmp_path: Path) -> None:
    name = "\x1b[31m" + "long " * 50
    config = Config(vocab_size=9, decay="5000 steps", grace=0.123456789012345)
    with new_run(tmp_path, text_name=name, program=name, config=config) as run:
        for step in range(1, 12):
            save(run, 10**14 + step, weights_only=True)
        lines = page(run)

    assert all(len(line) <= 80 for line in lines)
    assert all(line.isprintable() for line in lines)


def test_the_plot_has_the_width_and_signs_that_are_asked_for(tmp_path: Path) -> None:
    with trained_run(tmp_path) as run:
        narrow, wide = page(run, 40), show_lines(look(run), NOW, 120, UNICODE)

    assert max(map(len, narrow[14:32])) == 40
    assert max(map(len, wide[14:32])) == 120
    assert "┤" in "".join(wide)


def test_a_page_of_a_damaged_run_says_what_is_damaged(tmp_path: Path) -> None:
    with trained_run(tmp_path) as run:
        (run.path / "loss.txt").unlink()
        (run.path / "loss.txt").mkdir()
        with pytest.raises(RunError, match=r"loss\.txt: cannot be read"):
            page(run)

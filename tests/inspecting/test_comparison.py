import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.small_runs import CONFIG, NOW, SHA256, new_run, trained_run
from utilities.inspect.comparison import compare_lines, compared, differing
from utilities.inspect.summary import Overview, look


def overviews(root: Path, *changes: dict[str, Any]) -> list[Overview]:
    """Return a trained run, and one for each of these changes of its configuration."""
    found = []
    with trained_run(root) as run:
        found.append(look(run))
    for change in changes:
        text = change.pop("text", {})
        with new_run(root, config=replace(CONFIG, **change), **text) as run:
            found.append(look(run))
    return found


def test_keys_differ_where_one_is_unlike_the_others(tmp_path: Path) -> None:
    configs = [
        replace(CONFIG, **change).to_json()
        for change in ({}, {"sigma": 0.1}, {"step_num": 7})
    ]

    assert differing(configs) == ["sigma"]
    assert differing(configs[:1]) == []
    assert differing([configs[0], configs[2]]) == []  # where a run is, is no setting


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    lines = compare_lines(overviews(tmp_path, {"sigma": 0.1, "model_type": "gru"}))
    rows = {line[:20].strip(): line[20:].split() for line in lines if line}

    assert rows["run"] == ["0", "1"]
    assert rows["model"] == ["rnn", "1x4", "gru", "1x4"]
    assert rows["validation, nats"] == ["2.5000", "-"]
    assert rows["validation, bits"] == ["3.6067", "-"]
    assert rows["best, nats"] == ["2.2500", "-"]
    assert rows["at step"] == ["100"]
    assert rows["steps"] == ["101", "0"]
    assert rows["trials"] == ["103424", "0"]
    assert rows["trained"] == ["50", "s", "0", "s"]
    assert rows["trials a second"] == ["2048", "-"]
    assert rows["* modelType"] == ["rnn", "gru"]
    assert rows["* sigma"] == ["0.02", "0.1"]
    assert "* hiddenSize" not in rows
    assert lines[-1] == "* a key that differs; all others are alike"


def test_alike_runs_say_so(tmp_path: Path) -> None:
    assert compare_lines(overviews(tmp_path, {}))[-1] == "all keys are alike"


def test_other_texts_are_warned_of(tmp_path: Path) -> None:
    seen = overviews(tmp_path, {"text": {"text_sha256": SHA256[::-1]}})

    assert compare_lines(seen)[-1] == (
        "The texts differ: losses of different texts cannot be compared."
    )
    assert not compared(seen, NOW)["sameText"]


def test_many_runs_go_on_below_and_fit_a_line(tmp_path: Path) -> None:
    changes = [
        {"sigma": 0.1 + i, "text": {"text_name": "世界 " * 20}} for i in range(6)
    ]
    lines = compare_lines(overviews(tmp_path, *changes))

    assert [line.split()[1:] for line in lines if line.startswith("run")] == [
        ["0", "1", "2", "3"],
        ["4", "5", "6"],
    ]
    wide = [line for line in lines if "世" in line]
    assert len(wide) == 2
    for line in lines:
        assert len(line) + line.count("世") + line.count("界") <= 80


def test_the_same_is_plain_data(tmp_path: Path) -> None:
    answer = compared(overviews(tmp_path, {"sigma": 0.1}), NOW)

    assert json.loads(json.dumps(answer)) == answer
    assert [run["run"] for run in answer["runs"]] == [0, 1]
    assert answer["differing"] == {"sigma": [0.02, 0.1]}
    assert answer["sameText"]

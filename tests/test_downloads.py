"""The files that the page gives away, read by other programs."""

import csv
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.small_runs import metrics, new_run, state_at, trained_run
from utilities.downloads import COLUMNS, ROUTES, loss_picture, metrics_csv, weights_npz
from utilities.errors import RunError
from utilities.logfiles import METRICS


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_metrics_are_a_table_with_gaps_for_what_is_missing(tmp_path: Path) -> None:
    with trained_run(tmp_path, 3) as run:
        file = metrics_csv(run)
    rows = table(file.content)

    assert (file.name, file.kind) == ("run-0-metrics.csv", "text/csv; charset=utf-8")
    assert tuple(rows[0]) == COLUMNS == tuple(metrics(0).to_json())
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert [row["validationLoss"] for row in rows] == ["3.1", "", ""]
    assert [float(row["loss"]) for row in rows] == [3.0, 2.5, pytest.approx(2 + 1 / 3)]


@pytest.mark.parametrize("odd", ["=1+1", "@x", "a,b", '"', "é", [1], {"a": 1}, None])
def test_what_is_neither_number_nor_word_stays_out_of_the_table(
    tmp_path: Path, odd: object
) -> None:
    with new_run(tmp_path) as run:
        line = {"step": 7, "digest": odd, "aggregation": "sums", "=cmd()": 1}
        (run.path / METRICS).write_text(json.dumps(line) + "\n")
        file = metrics_csv(run)

    assert file.content.count(b"\n") == 2
    (row,) = table(file.content)
    assert (row["step"], row["digest"], row["aggregation"]) == ("7", "", "sums")
    assert b"cmd" not in file.content


def test_a_run_without_steps_gives_empty_files(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        assert metrics_csv(run).content.decode() == ",".join(COLUMNS) + "\n"
        assert ElementTree.fromstring(loss_picture(run).content) is not None
        with pytest.raises(RunError):
            weights_npz(run)


def test_the_picture_is_svg_with_the_curve(tmp_path: Path) -> None:
    with trained_run(tmp_path) as run:
        file = loss_picture(run)

    assert (file.name, file.kind) == ("run-0-loss.svg", "image/svg+xml")
    svg = ElementTree.fromstring(file.content)
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<path" in file.content


def test_the_weights_are_those_of_the_newest_checkpoint(tmp_path: Path) -> None:
    with trained_run(tmp_path) as run:
        file = weights_npz(run)
    with np.load(io.BytesIO(file.content), allow_pickle=False) as arrays:
        flat = np.concatenate([arrays[name].ravel() for name in arrays.files[:-3]])
        assert arrays["step"] == 101

    assert (file.name, file.kind) == ("run-0-step-000101.npz", "application/zip")
    assert np.array_equal(np.sort(flat), np.sort(state_at(101).trained))


def test_each_route_has_the_end_of_its_files_name(tmp_path: Path) -> None:
    with trained_run(tmp_path, 3) as run:
        for route, make in ROUTES.items():
            assert make(run).name.endswith(route.rpartition(".")[2])

from pathlib import Path

import numpy as np
import pytest

from utilities.errors import RunError
from utilities.logfiles import (
    bytes_of,
    metrics_line,
    read_losses,
    read_metrics,
    read_samples,
    sample_blocks,
)


def test_what_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert bytes_of(tmp_path / "nothing") == b""
    assert read_metrics(tmp_path) == []
    assert read_losses(tmp_path).shape == (0,)
    assert read_samples(tmp_path) == []


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "loss.txt").mkdir()

    with pytest.raises(RunError, match=r"loss\.txt: cannot be read: Is a directory"):
        read_losses(tmp_path)


@pytest.mark.parametrize(
    "line",
    [b"", b'{"step":1', b"[1]", b'{"loss":2}', b'{"step":"1"}', b"\xff", b"[" * 10**5],
)
def test_a_line_that_is_not_whole_is_passed_over(line: bytes) -> None:
    assert metrics_line(line) is None


def test_keys_of_other_versions_are_kept_and_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(
        b'{"step":0}\n{"step":1,"gradientQuality":-0.5,"new":[1]}\n{"st'
    )

    assert read_metrics(tmp_path) == [
        {"step": 0},
        {"step": 1, "gradientQuality": -0.5, "new": [1]},
    ]


def test_a_loss_that_is_no_number_is_none_and_a_torn_one_does_not_count(
    tmp_path: Path,
) -> None:
    (tmp_path / "loss.txt").write_bytes(b"3.5\nnan\nxyz\n2.25\n2.")

    assert np.array_equal(
        read_losses(tmp_path), [3.5, np.nan, np.nan, 2.25], equal_nan=True
    )


def test_samples_are_steps_and_texts(tmp_path: Path) -> None:
    (tmp_path / "samples.txt").write_bytes(
        b"lost\n=== step 1 ===\nA\n\nB\n\n=== step 20 ===\n\xff\n\n=== step 30 ===\nha"
    )

    assert read_samples(tmp_path) == [(1, "A\n\nB"), (20, "\ufffd")]


def test_blocks_are_all_of_the_file() -> None:
    content = b"x\n=== step 1 ===\na\n\n=== step 2 ===\n"
    blocks = sample_blocks(content)

    assert [step for step, _ in blocks] == [-1, 1, 2]
    assert b"".join(block for _, block in blocks) == content

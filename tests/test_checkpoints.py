import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilities.checkpoints import Checkpoint, read_checkpoint, read_weights
from utilities.errors import CheckpointError
from utilities.evolution import TrainState
from utilities.misc import sha256

FINGERPRINT = bytes(range(32))
FLOATS = st.lists(
    st.tuples(*[st.floats(width=32, allow_nan=False, allow_infinity=False)] * 3),
    min_size=1,
    max_size=20,
)


def checkpoint(step: int = 123, numbers: Any = ((1, 2, 3), (4, 5, 6))) -> Checkpoint:
    weights, first, second = np.array(numbers, np.float32).T.copy()
    state = TrainState(step, 45, weights, first, second)
    return Checkpoint(state, state.digest(FINGERPRINT), 67.25)


def packed(**changes: Any) -> bytes:
    """Return a file with a right hash over the arrays of a checkpoint or others."""
    arrays = {
        "weights": np.zeros(3, "<f4"),
        "first": np.zeros(3, "<f4"),
        "second": np.zeros(3, "<f4"),
        "stepNum": np.array(7, "<i8"),
        "count": np.array(7, "<i8"),
        "seconds": np.array(1.5, "<f8"),
        "digest": np.zeros(32, "|u1"),
        **changes,
    }
    buffer = io.BytesIO()
    kept = {name: array for name, array in arrays.items() if array is not None}
    np.savez(buffer, **kept)
    return buffer.getvalue() + sha256(buffer.getvalue()).hex().encode()


@given(st.integers(0, 1 << 48), FLOATS)
def test_what_is_written_is_read(step: int, numbers: list[tuple[float, ...]]) -> None:
    written = checkpoint(step, numbers)

    read = read_checkpoint(written.to_bytes(), step, FINGERPRINT)

    assert (read.state.step, read.state.count) == (step, 45)
    assert (read.digest, read.seconds) == (written.digest, 67.25)
    for ours, theirs in zip(read.state.arrays, written.state.arrays, strict=True):
        assert ours.dtype == np.float32
        assert ours.tobytes() == theirs.tobytes()


def test_numpy_alone_reads_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "it.npz").write_bytes(checkpoint().to_bytes())

    with np.load(tmp_path / "it.npz", allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}

    assert {name: (a.dtype.str, a.shape) for name, a in found.items()} == {
        "weights": ("<f4", (2,)),
        "first": ("<f4", (2,)),
        "second": ("<f4", (2,)),
        "stepNum": ("<i8", ()),
        "count": ("<i8", ()),
        "seconds": ("<f8", ()),
        "digest": ("|u1", (32,)),
    }
    assert found["weights"].tolist() == [1, 4]
    assert found["first"].tolist() == [2, 5]
    assert found["second"].tolist() == [3, 6]
    assert (found["stepNum"], found["count"], found["seconds"]) == (123, 45, 67.25)
    assert found["digest"].tobytes() == checkpoint().digest


def test_weights_alone_hold_nothing_else() -> None:
    data = checkpoint().weights_to_bytes()

    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["digest", "stepNum", "weights"]
    assert read_weights(data, 123).tolist() == [1, 4]
    with pytest.raises(CheckpointError, match=r"expected an \.npz file.*'first\.npy'"):
        read_checkpoint(data, 123, FINGERPRINT)


def test_weights_are_read_from_a_full_checkpoint_too() -> None:
    assert read_weights(checkpoint().to_bytes(), 123).tolist() == [1, 4]


def averaged() -> Checkpoint:
    state = replace(checkpoint().state, average=np.array([7, 8], np.float32))
    return Checkpoint(state, state.digest(FINGERPRINT), 67.25)


def test_a_mean_of_the_weights_is_written_and_read_too() -> None:
    data = averaged().to_bytes()

    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        assert arrays["average"].dtype.str == "<f4"
        assert arrays["average"].tolist() == [7, 8]
    state = read_checkpoint(data, 123, FINGERPRINT).state
    assert state.average.tolist() == [7, 8]
    assert state.weights.tolist() == [1, 4]


def test_the_weights_to_be_used_are_their_mean() -> None:
    alone = averaged().weights_to_bytes()

    with np.load(io.BytesIO(alone), allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["digest", "stepNum", "weights"]
    for data in (alone, averaged().to_bytes()):
        assert read_weights(data, 123).tolist() == [7, 8]


def test_a_mean_that_is_missing_is_noticed_by_the_digest() -> None:
    whole = averaged()
    without = replace(whole.state, average=np.zeros(0, np.float32))

    with pytest.raises(CheckpointError, match="expected a state with digest"):
        read_checkpoint(
            Checkpoint(without, whole.digest, 67.25).to_bytes(), 123, FINGERPRINT
        )


def test_the_file_ends_in_the_hash_of_all_bytes_before_it() -> None:
    data = checkpoint().to_bytes()

    assert data[-64:].decode() == sha256(data[:-64]).hex()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.comment == b"sha256:" + data[-64:]


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_a_change_of_any_byte_is_detected(mask: int) -> None:
    data = bytearray(checkpoint().to_bytes())
    undetected = []
    for position in range(len(data)):
        data[position] ^= mask
        try:
            read_checkpoint(bytes(data), 123, FINGERPRINT)
        except CheckpointError:
            pass
        else:
            undetected.append(position)
        data[position] ^= mask

    assert undetected == []
    assert read_checkpoint(bytes(data), 123, FINGERPRINT).seconds == 67.25


def test_a_file_that_is_cut_short_or_longer_is_detected() -> None:
    data = checkpoint().to_bytes()
    for wrong in (*(data[:size] for size in range(len(data))), data + b"\0"):
        with pytest.raises(CheckpointError, match="end in the SHA-256"):
            read_weights(wrong, 123)


def test_a_state_of_another_configuration_is_refused() -> None:
    data = checkpoint().to_bytes()

    with pytest.raises(CheckpointError, match="expected a state with digest") as caught:
        read_checkpoint(data, 123, bytes(32))

    assert checkpoint().digest.hex() in str(caught.value)
    assert checkpoint().state.digest(bytes(32)).hex() in str(caught.value)


def test_a_file_under_the_name_of_another_step_is_refused() -> None:
    with pytest.raises(CheckpointError, match="stepNum: expected 124, got 123"):
        read_checkpoint(checkpoint().to_bytes(), 124, FINGERPRINT)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"weights": np.zeros(3, "<f8")}, "weights: expected <f4 with 1 dim.*got <f8"),
        ({"first": np.zeros((3, 1), "<f4")}, "first: expected <f4 .*got <f4 with 2"),
        ({"second": np.zeros(4, "<f4")}, "second: expected 3 numbers .* got 4"),
        ({"second": np.array([0, np.nan, 0], "<f4")}, "second: expected finite"),
        ({"average": np.zeros(2, "<f4")}, "average: expected 3 numbers .* got 2"),
        ({"average": np.array([0, 0, np.inf], "<f4")}, "average: expected finite"),
        ({"seconds": np.array(np.inf)}, "seconds: expected finite"),
        ({"seconds": np.array(-1.0)}, "seconds: expected no negative number, got -1"),
        ({"count": np.array(-1)}, "count: expected no negative number, got -1"),
        ({"stepNum": np.array(8)}, "stepNum: expected 7, got 8"),
        ({"digest": np.zeros(31, "u1")}, "digest: expected 32 bytes, got 31"),
        ({"digest": None}, r"expected an \.npz file with .*digest"),
        ({"first": np.array([None])}, "expected an .*allow_pickle"),
    ],
)
def test_arrays_that_no_run_can_go_on_with_are_refused(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CheckpointError, match=complaint):
        read_checkpoint(packed(**changes), 7, FINGERPRINT)


def test_a_right_hash_over_something_else_is_refused() -> None:
    data = b"no archive" + sha256(b"no archive").hex().encode()

    with pytest.raises(CheckpointError, match=r"expected an \.npz file with"):
        read_weights(data, 7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_state_that_would_be_refused_is_not_written(bad: float) -> None:
    broken = checkpoint(numbers=[(1, 2, bad)])

    with pytest.raises(CheckpointError, match="second: expected finite"):
        broken.to_bytes()
    assert read_weights(broken.weights_to_bytes(), 123).tolist() == [1]
    with pytest.raises(CheckpointError, match="weights: expected finite"):
        checkpoint(numbers=[(bad, 2, 3)]).weights_to_bytes()

"""The bytes of a checkpoint: an .npz file whose end proves all that is before it.

    PK... weights.npy first.npy second.npy ... average.npy | sha256:<64 hex digits>

`average` is there where a mean of the weights is kept. It is what has been trained,
and the smaller file, which only shows the model, has it as its weights.

Owns the format, both ways. Does not own files, names, or which checkpoints are kept:
that is `runs`.

The idea: a zip archive may end in a comment, which `numpy.load` skips. Ours is the hash
of every byte before its digits, so that a file is checked before anything in it is
believed, and stays one that any program with numpy can read.
"""

import io
import zipfile
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.errors import CheckpointError, DamageError
from utilities.evolution import TrainState
from utilities.misc import sha256

Floats: TypeAlias = NDArray[np.float32]
Arrays: TypeAlias = dict[str, NDArray[Any]]

DIGEST_BYTES = 32
_HASH_DIGITS = 64  # of a SHA-256 in hex
_MARK = b"sha256:"

# Type and number of dimensions of each array.
_FIELDS: dict[str, tuple[str, int]] = {
    "weights": ("<f4", 1),
    "first": ("<f4", 1),
    "second": ("<f4", 1),
    "stepNum": ("<i8", 0),
    "count": ("<i8", 0),
    "seconds": ("<f8", 0),
    "digest": ("|u1", 1),
    "average": ("<f4", 1),
}
_AVERAGE = "average"  # which files of runs without a mean do not hold
_FULL_FIELDS = tuple(name for name in _FIELDS if name != _AVERAGE)
_WEIGHTS_FIELDS = ("weights", "stepNum", "digest")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a run goes on from."""

    state: TrainState
    digest: bytes  # 32, of the state
    seconds: float  # trained until then

    def __post_init__(self) -> None:
        assert len(self.digest) == DIGEST_BYTES, len(self.digest)

    def to_bytes(self) -> bytes:
        """Return the file from which a run can be resumed.

        Raises:
            CheckpointError: a number is not finite: such a file would be refused.
        """
        return _pack(self._arrays())

    def weights_to_bytes(self) -> bytes:
        """Return the smaller file that only shows what the model was then.

        Raises:
            CheckpointError: a number is not finite.
        """
        arrays = self._arrays() | {"weights": np.asarray(self.state.trained, "<f4")}
        return _pack({name: arrays[name] for name in _WEIGHTS_FIELDS})

    def _arrays(self) -> Arrays:
        state = self.state
        *arrays, average = state.arrays
        digest = np.frombuffer(self.digest, np.uint8)
        values = (*arrays, state.step, state.count, self.seconds, digest, average)
        named = {
            name: np.asarray(value, dtype)
            for (name, (dtype, _)), value in zip(_FIELDS.items(), values, strict=True)
        }
        if not len(average):
            del named[_AVERAGE]
        return named


def read_checkpoint(data: bytes, step: int, fingerprint: bytes) -> Checkpoint:
    """Return a checkpoint from the bytes of its file.

    Args:
        data: the whole file.
        step: that its name promises.
        fingerprint: of the configuration and text that it is to go on with.

    Raises:
        DamageError: it is not what was written.
        CheckpointError: it is of another step or model.
    """
    arrays = _unpack(data, _FULL_FIELDS)
    _check(arrays, step)
    mean = arrays.keys() & {_AVERAGE}
    state = TrainState(
        step,
        int(arrays["count"]),
        *(
            arrays[name].astype(np.float32, copy=False)
            for name in ("weights", "first", "second", *mean)
        ),
    )
    digest = arrays["digest"].tobytes()
    found = state.digest(fingerprint)
    if found != digest:
        raise CheckpointError(
            f"expected a state with digest {digest.hex()} under this configuration and "
            f"text, got {found.hex()}"
        )
    return Checkpoint(state, digest, float(arrays["seconds"]))


def read_weights(data: bytes, step: int) -> Floats:
    """Return the weights (P,) to be used from a checkpoint of either kind.

    Raises:
        CheckpointError: it is not what was written, or of another step.
    """
    arrays = _unpack(data, _WEIGHTS_FIELDS)
    _check(arrays, step)
    return arrays.get(_AVERAGE, arrays["weights"]).astype(np.float32, copy=False)


def _pack(arrays: Arrays) -> bytes:
    _check(arrays, int(arrays["stepNum"]))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
        archive.comment = _MARK + b"0" * _HASH_DIGITS
    with buffer.getbuffer() as view:
        view[-_HASH_DIGITS:] = sha256(view[:-_HASH_DIGITS]).hex().encode("ascii")
    return buffer.getvalue()


def _unpack(data: bytes, names: tuple[str, ...]) -> Arrays:
    stored = data[-_HASH_DIGITS:].decode("ascii", "replace")
    found = sha256(memoryview(data)[:-_HASH_DIGITS]).hex()
    if found != stored:
        got = f"{stored[:12]}…" if stored.isalnum() else "none"
        raise DamageError(
            "the file was cut off or changed: expected to end in the SHA-256 of what "
            f"is before, {found[:12]}…, got {got}"
        )
    arrays: Arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            there = (_AVERAGE,) if f"{_AVERAGE}.npy" in archive.namelist() else ()
            for name in (*names, *there):
                with archive.open(f"{name}.npy") as file:
                    arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise CheckpointError(
            f"expected an .npz file with {', '.join(names)}, got: {error}"
        ) from error
    return arrays


def _check(arrays: Arrays, step: int) -> None:
    """Refuse arrays that cannot be a checkpoint of that step."""
    for name, array in arrays.items():
        dtype, dimensions = _FIELDS[name]
        if array.dtype != dtype or array.ndim != dimensions:
            raise CheckpointError(
                f"{name}: expected {dtype} with {dimensions} dimensions, got "
                f"{array.dtype.str} with {array.ndim}"
            )
        if not np.isfinite(array).all():
            raise CheckpointError(f"{name}: expected finite numbers, got others")
        if array.ndim == 0 and array < 0:
            raise CheckpointError(f"{name}: expected no negative number, got {array}")
    if arrays["stepNum"] != step:
        raise CheckpointError(f"stepNum: expected {step}, got {arrays['stepNum']}")
    if arrays["digest"].size != DIGEST_BYTES:
        raise CheckpointError(
            f"digest: expected {DIGEST_BYTES} bytes, got {arrays['digest'].size}"
        )
    for name in arrays.keys() & {"first", "second", _AVERAGE}:
        if arrays[name].size != arrays["weights"].size:
            raise CheckpointError(
                f"{name}: expected {arrays['weights'].size} numbers as in weights, "
                f"got {arrays[name].size}"
            )

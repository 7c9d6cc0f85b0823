"""A run's weights as files that other programs read.

    npy           float64 (3 + P,): hiddenSize, vocabSize, nLayers, then all weights in
                  the order of `model.Layout`
    npz           a float32 array for each tensor under its name; besides, codePoints
                  (V,) int32, -1 for the unknown and the stop token, step, and config,
                  the JSON of the run's keys as UTF-8 bytes
    safetensors   the same tensors and codePoints; in its metadata format, step, config
                  (JSON) and text

Owns these formats. Does not own weights or where files go.

A safetensors file is a little-endian u64, the length of a JSON header, that header, and
the tensors' bytes, row by row, little-endian, end to end. The header maps each name to
dtype, shape and the offsets of its bytes behind the header; ``__metadata__`` maps texts
to texts. Spaces fill the header up to a multiple of eight bytes.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.runs import RunRecord
from utilities.trained import Model

Arrays: TypeAlias = dict[str, NDArray[Any]]

FORMATS = ("npy", "npz", "safetensors")
_ALIGNMENT = 8
_DTYPES = {"<f4": "F32", "<i4": "I32"}


def exported(model: Model, record: RunRecord, kind: str) -> bytes:
    """Return the content of a file.

    Args:
        model: whose weights it holds.
        record: of the run.
        kind: one of `FORMATS`.
    """
    assert kind in FORMATS, kind
    if kind == "npy":
        return _npy(model)
    arrays = {**_tensors(model), "codePoints": _code_points(model)}
    keys = json.dumps(record.config.to_json())
    if kind == "npz":
        return _npz(arrays, model.step, keys)
    metadata = {
        "format": "np",
        "step": str(model.step),
        "config": keys,
        "text": record.text_name,
    }
    return safetensors(arrays, metadata)


def _tensors(model: Model) -> Arrays:
    views = model.layout.views(model.weights)
    return {name: np.ascontiguousarray(view, "<f4") for name, view in views.items()}


def _code_points(model: Model) -> NDArray[np.int32]:
    points = [ord(c) if c else -1 for c in model.vocabulary.characters]
    return np.array(points, "<i4")


def _npy(model: Model) -> bytes:
    layout = model.layout
    head = [layout.hidden_size, layout.vocab_size, layout.n_layers]
    file = io.BytesIO()
    flat = np.concatenate([np.array(head, "<f8"), model.weights.astype("<f8")])
    np.lib.format.write_array(file, flat, allow_pickle=False)
    return file.getvalue()


def _npz(arrays: Arrays, step: int, keys: str) -> bytes:
    config = np.frombuffer(keys.encode("utf-8"), np.uint8)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in {
            **arrays,
            "step": np.array(step, "<i8"),
            "config": config,
        }.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
    return file.getvalue()


def safetensors(arrays: Mapping[str, NDArray[Any]], metadata: dict[str, str]) -> bytes:
    """Return a safetensors file of float32 and int32 arrays.

    Args:
        arrays: names and tensors.
        metadata: anything else, as texts.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name, array in arrays.items():
        end = offset + array.nbytes
        header[name] = {
            "dtype": _DTYPES[array.dtype.str],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    data = (array.tobytes() for array in arrays.values())
    return b"".join([len(text).to_bytes(8, "little"), text, *data])

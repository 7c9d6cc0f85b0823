import io
import json
from pathlib import Path

import numpy as np
import pytest

from tests.small_runs import CONFIG, VOCABULARY, record, state_at
from utilities.export import FORMATS, exported, safetensors
from utilities.model import Layout
from utilities.trained import Model

LAYOUT = Layout(CONFIG)
RECORD = record(text_name="Bärbel")
POINTS = [-1, -1, *map(ord, "abcde \n")]


def model() -> Model:
    weights = state_at(7).trained
    return Model.checked(Path("7"), CONFIG, VOCABULARY, 7, weights)


def test_npy_is_flat_with_the_sizes_in_front() -> None:
    data = exported(model(), RECORD, "npy")
    flat = np.load(io.BytesIO(data), allow_pickle=False)

    assert flat.dtype == np.float64
    assert flat[:3].tolist() == [4, 9, 1]  # hiddenSize, vocabSize, nLayers
    assert np.array_equal(flat[3:].astype(np.float32), state_at(7).trained)


def test_npz_names_each_tensor() -> None:
    data = exported(model(), RECORD, "npz")
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        found = dict(file)

    views = LAYOUT.views(state_at(7).trained)
    assert list(found) == [*views, "codePoints", "step", "config"]
    for name, view in views.items():
        assert found[name].dtype == np.float32
        assert np.array_equal(found[name], view)
    assert found["codePoints"].tolist() == POINTS
    assert found["step"] == 7
    assert json.loads(found["config"].tobytes()) == RECORD.config.to_json()


def test_a_safetensors_file_is_what_the_format_says() -> None:
    a = np.array([[1.0, -2.0]], "<f4")
    b = np.array([7], "<i4")
    data = safetensors({"a": a, "b": b}, {"k": "v"})

    header = (
        b'{"__metadata__":{"k":"v"},'
        b'"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},'
        b'"b":{"dtype":"I32","shape":[1],"data_offsets":[8,12]}}'
    )
    header += b" " * (-len(header) % 8)
    assert data == (
        len(header).to_bytes(8, "little")
        + header
        + bytes.fromhex("0000803f 000000c0 07000000")
    )


def test_safetensors_holds_all_tensors_without_gaps() -> None:
    data = exported(model(), RECORD, "safetensors")
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    about = header.pop("__metadata__")

    assert length % 8 == 0
    assert (about["format"], about["step"], about["text"]) == ("np", "7", "Bärbel")
    assert json.loads(about["config"]) == RECORD.config.to_json()
    views = LAYOUT.views(state_at(7).trained)
    assert list(header) == [*views, "codePoints"]
    end = 0
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        assert start == end
        end = stop
        dtype = {"F32": "<f4", "I32": "<i4"}[entry["dtype"]]
        found = np.frombuffer(body[start:stop], dtype).reshape(entry["shape"])
        expected = POINTS if name == "codePoints" else views[name]
        assert np.array_equal(found, expected)
    assert end == len(body)


def test_the_usual_reader_reads_it() -> None:
    library = pytest.importorskip("safetensors.numpy")
    found = library.load(exported(model(), RECORD, "safetensors"))

    assert np.array_equal(found["Wx0"], LAYOUT.views(state_at(7).trained)["Wx0"])


@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_weights_give_the_same_bytes(kind: str) -> None:
    assert exported(model(), RECORD, kind) == exported(model(), RECORD, kind)

"""The folder for model hubs: what it says, and that its own program reads it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.small_runs import CONFIG, SHA256, VOCABULARY, record
from utilities.data import Vocabulary
from utilities.evolution import Setting, initial_state
from utilities.export import exported
from utilities.inspect.modelfolder import CARD, folder_files
from utilities.trained import Model


def model(**changes: Any) -> Model:
    """Return a model whose weights are all random, biases as well."""
    config = replace(CONFIG, **changes)
    size = initial_state(Setting(config, SHA256), 1, np.zeros(9, np.float32)).weights
    weights = np.random.default_rng(5).normal(0, 0.7, size.size).astype(np.float32)
    return Model.checked(Path("0"), config, VOCABULARY, 7, weights)


def program(card: bytes) -> str:
    """Return the program that a card shows."""
    before, _, code = card.decode().partition("```python\n")
    assert before
    code, fence, rest = code.partition("\n```\n")
    assert fence
    assert rest == ""
    return code


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
@pytest.mark.parametrize("layers", [1, 2])
def test_the_program_of_the_card_computes_what_the_model_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str, layers: int
) -> None:
    own = model(model_type=model_type, n_layers=layers)
    files = folder_files(own, record(config=replace(CONFIG, n_layers=layers)))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(program(files[CARD]), names)

    text = "abXc\nd"  # an X is unknown
    surprise = np.concatenate(list(own.surprise(text)))
    for place, token in enumerate(VOCABULARY.encode(text)):
        found = names["probabilities"](text[:place])
        assert found.sum() == pytest.approx(1, abs=1e-5)
        assert -np.log2(found[token]) == pytest.approx(surprise[place], abs=1e-4)


def test_the_files_are_those_of_the_run() -> None:
    files = folder_files(model(), record())

    assert " ".join(files) == "README.md config.json vocabulary.json model.safetensors"
    config = json.loads(files["config.json"])
    assert config.pop("model_type") == "character-rnn"
    assert config == {**CONFIG.to_json(), "stepNum": 7}
    characters = Vocabulary.from_json(json.loads(files["vocabulary.json"]))
    assert characters == VOCABULARY
    assert files["model.safetensors"] == exported(model(), record(), "safetensors")


def test_the_card_says_what_it_is_and_that_automodel_does_not_load_it() -> None:
    card = folder_files(model(), record(text_name="a`b\n# c"))[CARD].decode()

    assert card.startswith("---\nlibrary_name: numpy\n")
    assert "**`AutoModel` cannot load it**" in card
    assert "on the text ` a'b # c `." in card
    assert "| `Wx0` | 9 x 4 |" in card
    assert "1 layer of 4 units, 101 weights, 9 tokens, after 7 steps" in card

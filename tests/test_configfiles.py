"""Keys from files, and which of several values counts."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from utilities.config import KEYS, Config
from utilities.configfiles import merged, read_config_file
from utilities.errors import ConfigError


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "keys.json"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_gives_its_keys_as_they_stand(tmp_path: Path) -> None:
    keys = {"sigma": 0.5, "noise": "full", "vocabSize": None, "hiddenSize": 8}

    assert read_config_file(written(tmp_path, keys), []) == keys


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    assert read_config_file(written(tmp_path, '\ufeff{"sigma": 1}'), []) == {"sigma": 1}


def test_what_a_run_stores_beside_its_keys_is_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path, {"sigma": 1, "runSeed": 5, "program": "1.0"})

    assert read_config_file(path, ["runSeed", "program"]) == {"sigma": 1}


def test_a_key_that_is_gone_and_meant_nothing_is_passed_over(tmp_path: Path) -> None:
    path = written(tmp_path, {"sigma": 1, "projection": "none"})

    assert read_config_file(path, []) == {"sigma": 1}


def test_the_step_in_a_file_of_keys_counts_that_of_a_run_is_its_own(
    tmp_path: Path,
) -> None:
    own, run = '{"stepNum": 3}', '{"stepNum": 3, "sigma": 1, "runSeed": 7}'

    assert read_config_file(written(tmp_path, own), ["runSeed"]) == {"stepNum": 3}
    assert read_config_file(written(tmp_path, run), ["runSeed"]) == {"sigma": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not JSON: "),
        ("{sigma: 1}", "is not JSON: "),
        ("[" * 100_000, "is not JSON: "),
        ("[]", "--config: expected an object of keys in "),
        ("1", "--config: expected an object of keys in "),
        ({"Sigma": 1}, "keys.json: Sigma: no such key; did you mean sigma?"),
        ({"sigma": "much"}, "keys.json: sigma: expected a number above 0 to 10, got"),
        ({"runSeed": 1}, "keys.json: runSeed: no such key"),
        ({"projection": "auto"}, "keys.json: projection: this version of the program"),
    ],
)
def test_a_file_that_is_no_object_of_keys_is_refused_by_name(
    tmp_path: Path, content: object, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config_file(written(tmp_path, content), [])

    assert message in str(caught.value)
    assert "keys.json" in str(caught.value)


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(b'{"decay": "\xff"}')

    with pytest.raises(ConfigError, match=r"keys\.json is not JSON: .*utf-8"):
        read_config_file(path, [])


@pytest.mark.parametrize(
    ("name", "reason"), [("none.json", "No such file"), (".", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, name: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=f"--config: cannot read .*: {reason}"):
        read_config_file(tmp_path / name, [])


# What comes first.


def test_a_flag_comes_before_the_file_and_the_file_before_the_default() -> None:
    config = merged(
        {"sigma": "0.5"}, {"sigma": 0.25, "hiddenSize": 8, "noise": "full"}, None
    )

    assert config == Config(sigma=0.5, hidden_size=8, noise="full")


def test_a_resumed_run_comes_before_the_default_and_after_the_file() -> None:
    resumed = Config(sigma=0.5, learning_rate=0.5, grace=3, vocab_size=9, step_num=7)
    config = merged({"grace": "null"}, {"learningRate": 0.25}, resumed)

    assert config == Config(
        sigma=0.5, learning_rate=0.25, grace=None, vocab_size=9, step_num=7
    )


@pytest.mark.parametrize("given", [{"vocabSize": None}, {"vocabSize": "none"}])
def test_all_characters_of_a_resumed_run_are_those_it_has(given: Any) -> None:
    resumed = Config(vocab_size=9)

    assert merged({}, given, resumed) == merged(given, {}, resumed) == resumed


@pytest.mark.parametrize(
    "key", [field.name for field in fields(Config) if field.metadata["rule"].shapes]
)
def test_a_resumed_run_refuses_to_become_another_model(key: str) -> None:
    resumed = Config(vocab_size=9)
    other: dict[str, Any] = {
        "model_type": "gru",
        "noise": "full",
        "whitening": "none",
        "scales": "none",
        "output_trials": "none",
        "nodes": "none",
        "averaging": "none",
        "optimizer": "sgd",
        "beta1": 0.5,
        "beta2": 0.5,
    }
    spelled = next(spelling for spelling, name in KEYS.items() if name == key)
    value = other.get(key, 10)

    for flags, file in (({spelled: value}, {}), ({}, {spelled: value})):
        with pytest.raises(ConfigError, match="start a new run for that") as caught:
            merged(flags, file, resumed)
        assert str(caught.value).startswith(
            f"{spelled}: the resumed run has {getattr(resumed, key)} and cannot change "
            f"to {value}"
        )


def test_a_resumed_run_keeps_its_step_whatever_a_file_says() -> None:
    resumed = Config(vocab_size=9, step_num=7)

    assert merged({}, {"stepNum": 3}, resumed).step_num == 7
    assert merged({"stepNum": "7"}, {}, resumed).step_num == 7
    with pytest.raises(ConfigError, match="continues at step 7, got 3"):
        merged({"stepNum": "3"}, {}, resumed)


def test_a_new_run_may_begin_at_a_step() -> None:
    assert merged({"stepNum": "3"}, {}, None).step_num == 3


def test_keys_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of twice directionsPerWindow"):
        merged({"trialsPerStep": "100"}, {"directionsPerWindow": 16}, None)

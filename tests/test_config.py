"""Keys, defaults, ranges, spelling and what is derived from them."""

import dataclasses
import hashlib
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utilities.config import (
    FORMER,
    KEYS,
    RULES,
    Config,
    changed_shape,
    from_json,
    nearest,
    parse_keys,
    without_gone,
)
from utilities.errors import ConfigError

DEFAULTS: dict[str, object] = {
    "modelType": "rnn",
    "hiddenSize": 32,
    "growth": "none",
    "nLayers": 1,
    "vocabSize": None,
    "sigma": 0.02,
    "noise": "lowRank",
    "whitening": "auto",
    "scales": "auto",
    "outputTrials": "auto",
    "nodes": "auto",
    "directionsPerWindow": 32,
    "batchSize": 1,
    "sequenceLength": 8,
    "burnIn": 16,
    "optimizer": "adam",
    "learningRate": "auto",
    "beta1": 0.9,
    "beta2": 0.99,
    "averaging": "auto",
    "decay": "auto",
    "timePerStep": "auto",
    "grace": None,
    "trialsPerStep": None,
    "aggregation": "auto",
    "stepNum": 0,
    "newTokensInterval": 100,
    "checkPointTime": 30.0,
    "keepCheckpoints": 3,
}
ALMOST_ONE = 1 - 2**-24
TINY = 5e-324
ABOVE = {number: math.nextafter(number, math.inf) for number in (10.0, 1e9, 86400.0)}
# key, lowest and highest that are accepted, refused below and above
WHOLE: list[tuple[str, Any, Any, Any, Any]] = [
    ("hiddenSize", 1, 4096, 0, 4097),
    ("nLayers", 1, 16, 0, 17),
    ("vocabSize", 3, 65536, 2, 65537),
    ("directionsPerWindow", 0, 1024, -1, 1025),
    ("batchSize", 1, 1024, 0, 1025),
    ("sequenceLength", 1, 4096, 0, 4097),
    ("burnIn", 0, 4096, -1, 4097),
    ("trialsPerStep", 1, 2**24, 0, 2**24 + 1),
    ("stepNum", 0, 2**48, -1, 2**48 + 1),
    ("newTokensInterval", 1, 2**32, 0, 2**32 + 1),
    ("keepCheckpoints", 1, 10000, 0, 10001),
]
REAL: list[tuple[str, Any, Any, Any, Any]] = [
    ("sigma", TINY, 10.0, 0.0, ABOVE[10]),
    ("learningRate", TINY, 10.0, 0.0, ABOVE[10]),
    ("beta1", 0.0, ALMOST_ONE, -TINY, math.nextafter(ALMOST_ONE, 1)),
    ("beta2", 0.0, ALMOST_ONE, -TINY, math.nextafter(ALMOST_ONE, 1)),
    ("timePerStep", TINY, 86400.0, 0.0, ABOVE[86400]),
    ("grace", 0.0, 86400.0, -TINY, ABOVE[86400]),
    ("checkPointTime", TINY, 1e9, 0.0, ABOVE[1e9]),
]
RANGES = WHOLE + REAL
CHOICES = [
    ("modelType", ("rnn", "gru")),
    ("noise", ("lowRank", "full")),
    ("whitening", ("auto", "none")),
    ("scales", ("auto", "none")),
    ("outputTrials", ("auto", "none")),
    ("nodes", ("auto", "none")),
    ("averaging", ("auto", "none")),
    ("optimizer", ("adam", "sgd")),
    ("aggregation", ("auto", "seeds", "sums")),
]
SHAPING: dict[str, object] = {
    "modelType": "gru",
    "hiddenSize": 33,
    "nLayers": 2,
    "vocabSize": 66,
    "noise": "full",
    "whitening": "none",
    "scales": "none",
    "outputTrials": "none",
    "nodes": "none",
    "averaging": "none",
    "directionsPerWindow": 8,
    "batchSize": 2,
    "sequenceLength": 65,
    "burnIn": 15,
    "optimizer": "sgd",
    "beta1": 0.91,
    "beta2": 0.999,
}
NOT_SHAPING: dict[str, object] = {
    "growth": "64@1000",
    "sigma": 0.03,
    "learningRate": 0.02,
    "decay": "10 steps",
    "timePerStep": 0.2,
    "grace": 1.0,
    "trialsPerStep": 1024,
    "aggregation": "sums",
    "stepNum": 7,
    "newTokensInterval": 50,
    "checkPointTime": 60.0,
    "keepCheckpoints": 4,
}


def one(key: str, value: object) -> Config:
    """Return a configuration with one key set, pairs where trials matter."""
    if key == "trialsPerStep":
        return from_json({"directionsPerWindow": 0, key: value})
    return from_json({key: value})


# --- keys and defaults ----------------------------------------------------------------


def test_every_key_has_its_default_in_the_users_spelling() -> None:
    assert Config().to_json() == DEFAULTS


def test_keys_translate_the_users_spelling_to_attributes() -> None:
    assert list(KEYS) == list(DEFAULTS)
    assert KEYS["timePerStep"] == "time_per_step"
    assert KEYS["nLayers"] == "n_layers"
    assert KEYS["checkPointTime"] == "check_point_time"
    assert KEYS["beta1"] == "beta1"
    assert all(hasattr(Config(), name) for name in KEYS.values())


def test_every_rule_says_what_its_key_is_for() -> None:
    assert set(RULES) == {field.name for field in dataclasses.fields(Config)}
    assert all(len(rule.text) > 10 for rule in RULES.values())
    assert {key for key, name in KEYS.items() if RULES[name].unit == "s"} == {
        "timePerStep",
        "grace",
        "checkPointTime",
    }


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().sigma = 0.5  # type: ignore[misc]


def test_keys_that_are_left_out_come_from_the_base() -> None:
    base = Config(sigma=0.5, n_layers=3)

    changed = from_json({"nLayers": 2}, base)

    assert (changed.sigma, changed.n_layers) == (0.5, 2)
    assert from_json({}) == Config()


def test_keys_are_parsed_each_by_itself_to_python_names() -> None:
    parsed = parse_keys({"trialsPerStep": "7", "grace": "null", "noise": "full"})

    assert parsed == {"trials_per_step": 7, "grace": None, "noise": "full"}
    with pytest.raises(ConfigError, match=r"^noise: expected lowRank or full, got x$"):
        parse_keys({"noise": "x"})
    with pytest.raises(
        ConfigError, match=r"^noize: no such key; did you mean noise\?$"
    ):
        parse_keys({"noize": "full"})


# --- what is accepted -----------------------------------------------------------------


@pytest.mark.parametrize(("key", "low", "high", "_below", "_above"), RANGES)
def test_both_ends_of_a_range_are_accepted(
    key: str, low: float, high: float, _below: float, _above: float
) -> None:
    assert one(key, low).to_json()[key] == low
    assert one(key, high).to_json()[key] == high


@pytest.mark.parametrize(("key", "_low", "_high", "below", "above"), RANGES)
def test_what_lies_beyond_either_end_is_refused(
    key: str, _low: float, _high: float, below: float, above: float
) -> None:
    for value in (below, above):
        with pytest.raises(ConfigError, match=rf"^{key}: expected .+, got {value}"):
            one(key, value)


@pytest.mark.parametrize(("key", "_low", "_high", "_below", "_above"), RANGES)
@pytest.mark.parametrize(
    "value",
    [True, False, math.nan, math.inf, -math.inf, "nan", "inf", "", "ten", "1,5", [1]],
)
def test_a_number_is_refused_where_it_is_none(
    key: str, _low: float, _high: float, _below: float, _above: float, value: object
) -> None:
    with pytest.raises(ConfigError, match=f"^{key}: expected a (whole )?number "):
        one(key, value)


@pytest.mark.parametrize(("key", "low", "_high", "_below", "_above"), WHOLE)
def test_a_whole_number_is_neither_a_fraction_nor_text_with_an_exponent(
    key: str, low: int, _high: int, _below: int, _above: int
) -> None:
    for value in (low + 0.5, f"{low}.0", f"{low}e0"):
        with pytest.raises(ConfigError, match=f"^{key}: expected a whole number "):
            one(key, value)


def test_a_whole_number_may_come_as_a_float_as_json_has_1e3() -> None:
    config = from_json({"sequenceLength": json.loads("1e3")})

    assert config.sequence_length == 1000
    assert type(config.sequence_length) is int


def test_a_real_number_may_come_as_a_whole_one() -> None:
    config = from_json({"checkPointTime": 60})

    assert type(config.check_point_time) is float
    assert config.check_point_time == 60


def test_numbers_may_come_as_text_as_a_command_line_has_them() -> None:
    config = from_json({"hiddenSize": "64", "learningRate": "1e-3"})

    assert (config.hidden_size, config.learning_rate) == (64, 0.001)


@pytest.mark.parametrize("value", [10**400, -(10**400), "9" * 400])
def test_numbers_that_no_float_holds_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^sigma: expected a number above 0 to 10"):
        from_json({"sigma": value})


@pytest.mark.parametrize("key", ["vocabSize", "grace", "trialsPerStep"])
@pytest.mark.parametrize("value", [None, "null", "none"])
def test_optional_keys_may_be_null(key: str, value: str | None) -> None:
    assert one(key, value).to_json()[key] is None


@pytest.mark.parametrize("value", [None, "null", "none", "auto"])
def test_time_per_step_may_be_left_to_the_server(value: str | None) -> None:
    config = one("timePerStep", value)

    assert config == Config(time_per_step=None) == Config()
    assert config.time_per_step is None
    assert config.to_json()["timePerStep"] == "auto"
    assert from_json({"timePerStep": value}, Config(time_per_step=0.5)) == config


def test_time_per_step_may_still_be_a_number() -> None:
    for value in (0.25, "0.25"):
        config = one("timePerStep", value)
        assert (config.time_per_step, config.to_json()["timePerStep"]) == (0.25, 0.25)
    assert one("timePerStep", 2).time_per_step == 2.0


@pytest.mark.parametrize("value", ["Auto", "AUTO", " auto", "auto ", "automatic", "0"])
def test_only_one_word_leaves_time_per_step_to_the_server(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        one("timePerStep", value)

    assert str(caught.value) == (
        f"timePerStep: expected a number above 0 to 86400, or auto, got {value}"
    )


@pytest.mark.parametrize("key", ["vocabSize", "grace", "trialsPerStep", "sigma"])
def test_no_other_number_is_left_to_the_server(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}: expected .+, got auto$"):
        one(key, "auto")


OPTIONAL = ("vocabSize", "learningRate", "timePerStep", "grace", "trialsPerStep")


@pytest.mark.parametrize("key", [k for k in DEFAULTS if k not in OPTIONAL])
def test_other_keys_may_not_be_null(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key}: expected .+, got null$"):
        one(key, None)


@pytest.mark.parametrize(("key", "choices"), CHOICES)
def test_a_choice_is_one_of_its_words(key: str, choices: tuple[str, str]) -> None:
    assert [one(key, word).to_json()[key] for word in choices] == list(choices)
    for value in ("", choices[0].upper(), 1, True, None, list(choices)):
        with pytest.raises(
            ConfigError, match=f"^{key}: expected {' or '.join(choices)}"
        ):
            one(key, value)


def test_refusals_say_what_is_allowed_and_what_came() -> None:
    cases: list[tuple[str, object, str]] = [
        ("hiddenSize", 0, "a whole number from 1 to 4096, got 0"),
        ("sigma", "x", "a number above 0 to 10, got x"),
        ("grace", -1, "a number from 0 to 86400, or null, got -1"),
        ("timePerStep", 0, "a number above 0 to 86400, or auto, got 0"),
        (
            "trialsPerStep",
            False,
            "a whole number from 1 to 16777216, or null, got false",
        ),
        ("beta1", 1.0, "a number from 0 to 0.999999940395355, got 1.0"),
        ("noise", "rank1", "lowRank or full, got rank1"),
    ]
    for key, value, expected in cases:
        with pytest.raises(ConfigError) as caught:
            one(key, value)
        assert str(caught.value) == f"{key}: expected {expected}"


# --- unknown keys ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("hidensize", "; did you mean hiddenSize?"),
        ("timeperstep", "; did you mean timePerStep?"),
        ("time_per_step", "; did you mean timePerStep?"),
        ("sigmma", "; did you mean sigma?"),
        ("layers", "; did you mean nLayers?"),
        ("qqq", ""),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(key: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_json({key: 1})

    assert str(caught.value) == f"{key}: no such key{hint}"


def test_nearest_ignores_case_and_gives_nothing_where_nothing_is_near() -> None:
    assert nearest("PORT", ["host", "port"]) == "; did you mean port?"
    assert nearest("xyz", ["host", "port"]) == ""
    assert nearest("port", []) == ""


# --- the rate -------------------------------------------------------------------------


def test_where_weights_are_not_averaged_the_rate_falls_sooner() -> None:
    averaged, newest = (Config(averaging=value) for value in ("auto", "none"))

    # 4,000 steps of 1,024 trials: 1 / sqrt(1 + 1.024), by 700,000 1 / sqrt(1 + 5.851)
    assert averaged.rate(1024, 4000, 0.0) == pytest.approx(0.01875 / 2.024**0.5)
    fallen = 0.01875 / (1 + 4.096 / 0.7) ** 0.5
    assert newest.rate(1024, 4000, 0.0) == pytest.approx(fallen)


@pytest.mark.parametrize(
    "keys", [{"nodes": "none"}, {"sequence_length": 65}, {"batch_size": 9}]
)
def test_trials_of_weights_have_a_lower_rate_that_falls_sooner(
    keys: dict[str, Any],
) -> None:
    config = Config(**keys)

    assert config.by_nodes is False
    assert config.rate(1024, 0, 0.0) == 0.015
    assert config.rate(1024, 2800, 0.0) == pytest.approx(0.015 / 2.024**0.5)
    assert Config(scales="none").rate(1024, 0, 0.0) == 0.01


def test_more_clients_never_lower_the_rate() -> None:
    # the root of the trials stops at 65,536, and so does what the decay counts
    config = Config(learning_rate=0.01)
    rates = [config.rate(n, 1000, 0.0) for n in (65_536, 10**6, 10**8)]

    assert rates == [rates[0]] * 3
    assert rates[0] == pytest.approx(0.08 / (1 + 65.536e6 / 4e6) ** 0.5)
    assert config.rate(32_768, 1000, 0.0) < rates[0]


# --- keys that must fit together ------------------------------------------------------


def test_trials_per_step_is_a_multiple_of_the_directions() -> None:
    assert Config(trials_per_step=192).trials_per_step == 192
    for output_trials, expected in (
        ("auto", "twice directionsPerWindow (64)"),
        ("none", "directionsPerWindow (32)"),
    ):
        with pytest.raises(ConfigError) as caught:
            Config(trials_per_step=40, output_trials=output_trials)
        assert str(caught.value) == (
            f"trialsPerStep: expected a multiple of {expected}, got 40"
        )


def test_any_number_of_trials_fits_antithetic_pairs_and_single_directions() -> None:
    for directions in (0, 1):
        keys: dict[str, Any] = {"directions_per_window": directions}
        config = Config(trials_per_step=7, output_trials="none", **keys)
        assert config.trials_per_step == 7


def test_a_decay_over_seconds_cannot_be_repeated_to_the_bit() -> None:
    assert Config(trials_per_step=64, decay="9 steps").decay == "9 steps"
    with pytest.raises(ConfigError) as caught:
        Config(trials_per_step=64, decay="9 seconds")

    assert str(caught.value) == (
        "decay: expected steps where trialsPerStep is set, got 9 seconds: "
        "seconds cannot be repeated to the bit"
    )


# --- what is derived ------------------------------------------------------------------


def test_a_group_has_one_trial_where_pairs_are_antithetic() -> None:
    def groups(**keys: Any) -> list[tuple[int, int]]:
        configs = [Config(directions_per_window=k, **keys) for k in (0, 1, 16)]
        return [(each.passes_per_group, each.trials_per_group) for each in configs]

    assert groups() == [(1, 1), (1, 2), (16, 32)]
    joint = [(1, 1), (1, 1), (16, 16)]
    assert groups(output_trials="none") == groups(noise="full") == joint


@pytest.mark.parametrize(
    ("run", "grace", "seconds"),
    [(0.0, None, 0.2), (0.8, None, 0.2), (4.0, None, 1.0), (4.0, 0.0, 0.0), (1, 9, 9)],
)
def test_grace_is_a_quarter_of_the_step_and_at_least_a_fifth_of_a_second(
    run: float, grace: float | None, seconds: float
) -> None:
    assert Config(time_per_step=50.0, grace=grace).grace_seconds(run) == seconds
    assert Config(grace=grace).grace_seconds(run) == seconds


@pytest.mark.parametrize(
    ("trials", "factor"),
    [
        (1024, 1.0),
        (4096, 2.0),
        (256, 0.5),
        (64, 0.25),
        (16, 0.125),
        (15, 0.125),
        (1, 0.125),
        (65535, math.sqrt(65535) / 32),
        (65536, 8.0),
        (10**6, 8.0),
    ],
)
def test_adams_rate_follows_the_square_root_of_the_trials_within_a_factor_of_eight(
    trials: int, factor: float
) -> None:
    assert Config(learning_rate=0.5).rate(trials, 0, 0.0) == 0.5 * factor


def test_the_rate_of_sgd_does_not_depend_on_the_trials() -> None:
    config = Config(learning_rate=0.5, optimizer="sgd")

    assert [config.rate(n, 0, 0.0) for n in (1, 1024, 10**6)] == [0.5] * 3


def test_without_a_rate_larger_models_take_smaller_steps() -> None:
    def rates(**keys: Any) -> list[float]:
        configs = [Config(hidden_size=n, decay="none", **keys) for n in (16, 32, 64)]
        return [config.rate(1024, 0, 0.0) for config in configs]

    assert rates() == [0.0375, 0.01875, 0.009375]
    assert rates(nodes="none") == [0.03, 0.015, 0.0075]
    assert rates(scales="none") == rates(noise="full") == [0.02, 0.01, 0.005]


def test_decay_and_trials_multiply() -> None:
    config = Config(learning_rate=0.5, decay="10 seconds")

    assert config.rate(4096, 999, 5.0) == pytest.approx(0.5 * 2 * 0.51)


def test_clean_weights_read_before_a_window_unless_noise_is_full() -> None:
    lengths = [
        (each.before, each.window_length)
        for each in (Config(), Config(noise="full"), Config(burn_in=0))
    ]

    assert lengths == [(16, 24), (0, 8), (0, 8)]


# --- JSON and fingerprints ------------------------------------------------------------

NUMBERS: dict[str, st.SearchStrategy[Any]] = {
    **{key: st.integers(low, high) for key, low, high, _, _ in WHOLE},
    **{key: st.floats(low, high) for key, low, high, _, _ in REAL},
}
WORDS = {key: st.sampled_from(choices) for key, choices in CHOICES}
MADE = st.fixed_dictionaries(
    {},
    optional={
        **NUMBERS,
        **WORDS,
        "vocabSize": st.none() | NUMBERS["vocabSize"],
        "timePerStep": st.none() | st.just("auto") | NUMBERS["timePerStep"],
        "learningRate": st.none() | st.just("auto") | NUMBERS["learningRate"],
        "grace": st.none() | NUMBERS["grace"],
        "trialsPerStep": st.none() | st.integers(1, 1000).map(lambda n: n * 2048),
        "directionsPerWindow": st.sampled_from([0, 1, 2, 16, 256, 1024]),
        "decay": st.sampled_from(["auto", "none"])
        | st.floats(1e-3, 1e11).map(lambda x: f"{x} steps"),
        "growth": st.just("none")
        | st.tuples(st.integers(1, 4096), st.integers(1, 10**15)).map(
            lambda pair: "{}@{}".format(*pair)
        ),
    },
)


@given(MADE)
@settings(deadline=None)
def test_any_configuration_survives_json_and_a_command_line(
    keys: dict[str, object],
) -> None:
    config = from_json(keys)
    text = {k: "null" if v is None else str(v) for k, v in config.to_json().items()}

    assert (
        from_json(json.loads(json.dumps(config.to_json(), allow_nan=False))) == config
    )
    assert from_json(text) == config


@given(st.dictionaries(st.sampled_from(list(DEFAULTS)), st.integers() | st.text()))
@settings(deadline=None)
def test_any_text_and_number_is_accepted_or_refused_with_its_key(
    keys: dict[str, object],
) -> None:
    outcome: Config | str
    try:
        outcome = from_json(keys)
    except ConfigError as error:
        outcome = str(error).split(":")[0]

    if isinstance(outcome, Config):
        assert from_json(outcome.to_json()) == outcome
    else:
        assert outcome in DEFAULTS


def test_the_fingerprint_is_the_hash_of_the_shaping_keys_and_the_text() -> None:
    content = (
        '[{"averaging": "auto", "batchSize": 1, "beta1": 0.9, "beta2": 0.99, '
        '"burnIn": 16, "directionsPerWindow": 32, '
        '"hiddenSize": 32, "modelType": "rnn", "nLayers": 1, "nodes": "auto", '
        '"noise": "lowRank", "optimizer": "adam", "outputTrials": "auto", '
        '"scales": "auto", "sequenceLength": 8, '
        '"vocabSize": 65, "whitening": "auto"}, "abc"]'
    )

    fingerprint = Config(vocab_size=65).fingerprint("abc")

    assert fingerprint == hashlib.sha256(content.encode()).digest()


@pytest.mark.parametrize("vocabulary", [65, None])
def test_what_runs_did_before_there_was_a_key_has_the_fingerprint_of_then(
    vocabulary: int | None,
) -> None:
    content = (
        '[{"batchSize": 1, "beta1": 0.9, "beta2": 0.99, "directionsPerWindow": 32, '
        '"hiddenSize": 32, "modelType": "rnn", "nLayers": 1, "noise": "lowRank", '
        '"optimizer": "adam", "sequenceLength": 32, "vocabSize": '
        f'{json.dumps(vocabulary)}}}, "abc"]'
    )

    config = from_json(FORMER | {"vocabSize": vocabulary, "sequenceLength": 32})
    fingerprint = config.fingerprint("abc")

    assert fingerprint == hashlib.sha256(content.encode()).digest()


def test_what_runs_did_before_there_was_a_key_is_a_value_of_it() -> None:
    keys = "whitening", "scales", "outputTrials", "nodes", "averaging"
    assert dict.fromkeys(keys, "none") | {"burnIn": 0} == FORMER
    assert from_json(FORMER).to_json() == Config().to_json() | FORMER
    assert all(RULES[KEYS[key]].shapes for key in FORMER)


def test_a_key_that_is_gone_is_left_out_where_it_meant_nothing() -> None:
    keys = {"projection": "none", "sigma": 0.5}

    assert without_gone(keys) == {"sigma": 0.5}
    assert keys["projection"] == "none"
    assert without_gone({}) == {}


@pytest.mark.parametrize(("program", "named"), [("1.0", "1.0"), ("", "not named")])
def test_a_key_that_is_gone_is_refused_where_it_meant_something(
    program: str, named: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        without_gone({"projection": "auto"}, program)

    assert str(caught.value) == (
        "projection: this version of the program does not do what auto did; "
        f"use the version that wrote it ({named})"
    )


def test_every_key_either_shapes_or_does_not() -> None:
    assert set(SHAPING) | set(NOT_SHAPING) == set(DEFAULTS)
    assert not set(SHAPING) & set(NOT_SHAPING)


@pytest.mark.parametrize(("key", "value"), SHAPING.items())
def test_shaping_keys_change_the_fingerprint_and_part_checkpoints(
    key: str, value: object
) -> None:
    changed = from_json({key: value})

    assert changed.fingerprint("abc") != Config().fingerprint("abc")
    assert changed_shape(Config(), changed) == key


@pytest.mark.parametrize(("key", "value"), NOT_SHAPING.items())
def test_other_keys_leave_the_fingerprint_and_share_checkpoints(
    key: str, value: object
) -> None:
    changed = from_json({key: value})

    assert changed != Config()
    assert changed.fingerprint("abc") == Config().fingerprint("abc")
    assert changed_shape(Config(), changed) is None


def test_the_text_changes_the_fingerprint() -> None:
    assert Config().fingerprint("abc") != Config().fingerprint("abd")


def test_the_first_of_several_changed_shapes_is_named() -> None:
    assert changed_shape(Config(), Config(n_layers=2, hidden_size=8)) == "hiddenSize"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"1", "a value of type bytes"),
        ({b"a": 1}, "a value of type dict"),
        ("1\n2", r'"1\n2"'),
        ({"a": [1]}, '{"a": [1]}'),
    ],
)
def test_a_value_of_any_kind_is_refused_in_one_line(value: object, shown: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_json({"sigma": value})

    assert str(caught.value) == f"sigma: expected a number above 0 to 10, got {shown}"


def test_an_unknown_key_is_shown_in_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        from_json({"sig\nma": 1})

    assert str(caught.value).startswith(r'"sig\nma": no such key')


def test_negative_zero_is_zero() -> None:
    assert str(from_json({"beta1": -0.0}).beta1) == "0.0"

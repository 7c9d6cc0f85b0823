"""A larger model that computes what the smaller one did."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.desk import lesson
from utilities.config import Config
from utilities.errors import ConfigError
from utilities.evolution import Setting, TrainState
from utilities.growth import grown
from utilities.scoring import clean_loss

KINDS: list[dict[str, Any]] = [
    {"model_type": cell, "n_layers": layers}
    for cell in ("rnn", "gru")
    for layers in (1, 2)
]


def trained(**keys: Any) -> tuple[Setting, TrainState, list[Any]]:
    """Return a model with numbers everywhere, and text."""
    start = lesson(averaging="auto", **keys)
    random = np.random.default_rng(3)
    size = start.setting.layout.size
    w, m, v, a = random.standard_normal((4, size)).astype(np.float32)
    rows = [start.corpus.train[:18].reshape(9, 2)]
    return start.setting, TrainState(7, 5, w, m, abs(v), a), rows


def larger(setting: Setting, **keys: Any) -> Setting:
    return Setting(replace(setting.config, **keys), setting.text_sha256)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("units", [4, 5, 9])
def test_a_grown_model_says_what_it_said(kind: dict[str, Any], units: int) -> None:
    old, state, rows = trained(**kind)
    new = larger(old, hidden_size=units)

    after = grown(old, state, new, 1)

    assert (after.step, after.count) == (7, 5)
    assert after.fits(new)
    for before, now in ((state.weights, after.weights), (state.average, after.average)):
        same = clean_loss(new, now, rows)
        assert same == pytest.approx(clean_loss(old, before, rows), rel=1e-5)


def test_as_many_units_change_nothing() -> None:
    old, state, _ = trained(model_type="gru", n_layers=2)

    after = grown(old, state, old, 1)

    for before, now in zip(state.arrays, after.arrays, strict=True):
        assert before.tobytes() == now.tobytes()


def test_new_units_read_something_and_nobody_reads_them() -> None:
    old, state, _ = trained()  # four units
    new = larger(old, hidden_size=6)

    views = new.layout.views(grown(old, state, new, 1).weights)

    assert (views["Wx0"][:, 4:] != 0).all()
    assert (views["Wh0"][:, 4:] != 0).all()
    assert not views["Wh0"][4:, :4].any()
    assert not views["Wo"][4:].any()
    assert not views["b0"][4:].any()
    small = old.layout.views(state.weights)
    assert views["Wh0"][:4, :4].tolist() == small["Wh0"].tolist()
    assert views["bo"].tolist() == small["bo"].tolist()


def test_the_gates_of_a_gru_stay_gates() -> None:
    old, state, _ = trained(model_type="gru")
    new = larger(old, hidden_size=5)

    views = new.layout.views(grown(old, state, new, 1).weights)

    small = old.layout.views(state.weights)
    places = [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13]
    assert views["b0"][places].tolist() == small["b0"].tolist()
    assert views["Wx0"][:, places].tolist() == small["Wx0"].tolist()
    assert views["b0"][[4, 9, 14]].tolist() == [0, 1, 0]  # new ones remember at first
    assert views["bn0"].tolist() == [*small["bn0"].tolist(), 0]


def test_moments_go_on_and_new_ones_begin_at_the_mean_of_their_tensor() -> None:
    old, state, _ = trained()
    new = larger(old, hidden_size=6)

    after = grown(old, state, new, 1)

    first, second = (new.layout.views(a) for a in (after.first, after.second))
    small = [old.layout.views(a) for a in (state.first, state.second)]
    for name in first:
        assert sorted(first[name][first[name] != 0]) == sorted(small[0][name].ravel())
    assert np.unique(second["Wh0"][4:]) == [small[1]["Wh0"].mean()]
    assert second["Wo"][:4].tolist() == small[1]["Wo"].tolist()


@pytest.mark.parametrize(("before", "now"), [("auto", "none"), ("none", "auto")])
def test_the_mean_is_kept_where_the_new_run_keeps_one(before: str, now: str) -> None:
    old, state, _ = trained()
    old = larger(old, averaging=before)
    if before == "none":
        state = replace(state, average=state.average[:0])
    new = larger(old, averaging=now)

    average = grown(old, state, new, 1).average

    assert average.tolist() == ([] if now == "none" else state.weights.tolist())


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"hidden_size": 3},
            "hiddenSize: a model of 4 units can grow, not shrink to 3",
        ),
        ({"n_layers": 2}, "nLayers: the model that is taken has 1, got 2"),
        ({"model_type": "gru"}, "modelType: the model that is taken has rnn, got gru"),
    ],
)
def test_what_is_not_growth_is_refused(keys: dict[str, Any], words: str) -> None:
    old, state, _ = trained()
    assert isinstance(old.config, Config)

    with pytest.raises(ConfigError) as caught:
        grown(old, state, larger(old, **keys), 1)

    assert str(caught.value) == words

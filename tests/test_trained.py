import math
from pathlib import Path

import numpy as np
import pytest

from tests.small_runs import CONFIG, VOCABULARY, state_at
from utilities.data import STOP
from utilities.errors import RunError
from utilities.generation import (
    Beam,
    Sampling,
    beam_search,
    generate_text,
    log_probabilities,
    read_prompt,
)
from utilities.model import Clean, Layout, Network
from utilities.trained import Model

LAYOUT = Layout(CONFIG)
SAMPLING = Sampling(0.8, seed=3)


def model(step: int = 7) -> Model:
    weights = state_at(step).trained
    return Model.checked(Path("runs/7"), CONFIG, VOCABULARY, step, weights)


def test_it_writes_what_generation_draws() -> None:
    weights = state_at(7).trained
    expected = generate_text(LAYOUT, weights, VOCABULARY, "ab", 40, SAMPLING)

    assert model().write("ab", 40, SAMPLING) == expected
    assert "ab" + "".join(model().pieces("ab", 40, SAMPLING)) == expected


def test_pieces_come_as_they_are_drawn() -> None:
    pieces = model().pieces("ab", 1_000_000, SAMPLING)

    assert len("".join(next(pieces) for _ in range(3))) >= 3


def test_it_finds_what_a_beam_search_finds() -> None:
    beam = Beam(3, 0.5, STOP)
    views, prompt = LAYOUT.views(state_at(7).trained), VOCABULARY.encode("ab")
    best = beam_search(Network(LAYOUT), views, prompt, 9, beam)
    text, found = model().likeliest("ab", 9, beam)

    assert (text, found) == (VOCABULARY.decode(best.tokens), best)


def test_unknown_characters_are_named_once() -> None:
    assert model().unknown("aXbXYa") == ["X", "Y"]
    assert model().unknown("abc") == []


def test_the_surprise_of_a_character_is_the_log_of_its_probability() -> None:
    network, p = Network(LAYOUT), Clean(LAYOUT.views(state_at(7).trained))
    state = read_prompt(network, p, VOCABULARY.encode(""))
    expected = []
    for token in VOCABULARY.encode("abé c\n"):
        log_p = log_probabilities(network, p, state)
        expected.append(-log_p[0, token] / math.log(2))
        state = network.step(p, np.array([[token]]), state)
    (found,) = model().surprise("abé c\n")

    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_guessing_evenly_takes_the_log_of_the_vocabulary() -> None:
    even = Model(LAYOUT, VOCABULARY, 0, np.zeros(LAYOUT.size, np.float32))
    (found,) = even.surprise("abcde")

    assert found.tolist() == pytest.approx([math.log2(9)] * 5)


def test_a_long_text_comes_in_parts_that_do_not_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (whole,) = model().surprise("abcde" * 20)
    monkeypatch.setattr("utilities.trained._MOST_AT_ONCE", 7)
    parts = list(model().surprise("abcde" * 20))

    assert [len(part) for part in parts] == [7] * 14 + [2]
    assert np.concatenate(parts).tolist() == pytest.approx(whole.tolist(), rel=1e-5)


def test_no_text_has_no_surprise() -> None:
    assert list(model().surprise("")) == []


def test_weights_that_have_diverged_are_refused() -> None:
    weights = np.full(LAYOUT.size, 3e38, np.float32)
    diverged = Model(LAYOUT, VOCABULARY, 0, weights)

    with pytest.raises(RunError, match="weights have diverged"):
        list(diverged.surprise("ab"))
    with pytest.raises(RunError, match="weights have diverged"):
        diverged.write("ab", 5, SAMPLING)
    with pytest.raises(RunError, match="weights have diverged"):
        diverged.likeliest("ab", 5, Beam(2))
    with pytest.raises(RunError, match="weights have diverged"):
        next(diverged.pieces("ab", 5, SAMPLING))

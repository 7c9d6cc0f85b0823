"""Sampling by hand-made networks, beam search against every text there is.

`fixed` gives the same probabilities whatever was read, `bigram` a row of them for each
character read last: tanh(20) is 1 in float32, so its hidden state is the character.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests import reference
from utilities.config import Config
from utilities.data import STOP, UNKNOWN, Vocabulary
from utilities.errors import ConfigError, RunError
from utilities.generation import (
    RULES,
    Beam,
    BeamResult,
    Sampling,
    beam_search,
    distribution,
    draw,
    generate_text,
    log_probabilities,
    read_prompt,
    sample,
    sample_tokens,
)
from utilities.model import Clean, Floats, Layout, Network, Products, Tokens

Doubles = NDArray[np.float64]
NONE = np.zeros(0, np.uint8)
TOP = (1 << 64) - 1


class Model:
    """A network and the weights that a test gives it."""

    def __init__(self, **keys: Any) -> None:
        self.config = Config(**keys)
        self.layout = Layout(self.config)
        self.network = Network(self.layout)
        self.flat = np.zeros(self.layout.size, np.float32)
        self.views = self.layout.views(self.flat)

    def sample(self, length: int, prompt: Any = NONE, **settings: Any) -> list[int]:
        stop = settings.pop("stop", None)
        return sample(
            self.network, self.views, prompt, length, Sampling(**settings), stop
        )

    def search(self, length: int, prompt: Any = NONE, **settings: Any) -> BeamResult:
        return beam_search(self.network, self.views, prompt, length, Beam(**settings))


def logs(*probabilities: float) -> Floats:
    """Return log-probabilities up to a constant; of 0, a number that is far below."""
    some = np.array(probabilities)
    result: Floats = np.log(np.maximum(some, 1e-30)).astype(np.float32)
    return result


def fixed(*probabilities: float) -> Model:
    model = Model(hidden_size=1, vocab_size=len(probabilities))
    model.views["bo"][:] = logs(*probabilities)
    return model


def bigram(*rows: tuple[float, ...]) -> Model:
    model = Model(hidden_size=len(rows), vocab_size=len(rows))
    model.views["Wx0"][:] = 20 * np.eye(len(rows))
    model.views["Wo"][:] = [logs(*row) for row in rows]
    return model


def random_model(seed: int, **keys: Any) -> Model:
    model = Model(**({"hidden_size": 3, "vocab_size": 4} | keys))
    words = np.random.Philox(key=seed).random_raw(model.layout.size)
    model.flat[:] = 5 * (words >> 11) * 2.0**-53 - 2.5  # the same with every numpy
    return model


def spread(log_p: Floats | Doubles, **settings: Any) -> list[float]:
    numbers = np.asarray(log_p, np.float64)
    result: list[float] = distribution(numbers, Sampling(**settings)).tolist()
    return result


# --- settings -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Sampling(temperature=-0.1),
            "temperature: expected a number from 0 to 1000000, got -0.1",
        ),
        (
            lambda: Sampling(temperature=math.nan),
            "temperature: expected a number from 0 to 1000000, got NaN",
        ),
        (
            lambda: Sampling(temperature=math.inf),
            "temperature: expected a number from 0 to 1000000, got Infinity",
        ),
        (
            lambda: Sampling(top_k=0),
            "topK: expected a whole number from 1 to 65536, or null, got 0",
        ),
        (
            lambda: Sampling(top_p=0),
            "topP: expected a number above 0 to 1, or null, got 0",
        ),
        (
            lambda: Sampling(top_p=1.01),
            "topP: expected a number above 0 to 1, or null, got 1.01",
        ),
        (
            lambda: Sampling(seed=-1),
            "seed: expected a whole number from 0 to 2^64 - 1, got -1",
        ),
        (
            lambda: Sampling(seed=1 << 64),
            "seed: expected a whole number from 0 to 2^64 - 1, "
            "got 18446744073709551616",
        ),
        (
            lambda: Beam(beams=0),
            "beams: expected a whole number from 1 to 1024, got 0",
        ),
        (
            lambda: Beam(length_penalty=-1),
            "lengthPenalty: expected a number from 0 to 10, got -1",
        ),
        (
            lambda: Beam(stop=UNKNOWN),
            "stop: expected a whole number from 1 to 65535, or null, got 0",
        ),
    ],
)
def test_a_setting_out_of_range_is_refused_with_key_range_and_value(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make()

    assert str(caught.value) == message


def test_settings_at_the_ends_of_their_ranges_are_accepted() -> None:
    lowest = Sampling(temperature=0, top_k=1, top_p=1e-9, seed=0)
    highest = Sampling(temperature=1e6, top_k=65536, top_p=1, seed=TOP)

    assert (lowest.temperature, lowest.top_k, lowest.top_p) == (0.0, 1, 1e-9)
    assert (highest.top_k, highest.top_p, highest.seed) == (65536, 1.0, TOP)
    assert Beam(beams=1024, length_penalty=10, stop=65535).beams == 1024


def test_settings_are_read_from_text_as_a_command_line_has_it() -> None:
    texts: dict[str, Any] = {"temperature": "0.5", "top_k": "3", "top_p": "null"}

    assert Sampling(**texts) == Sampling(temperature=0.5, top_k=3)


def test_every_setting_has_a_rule_and_a_text_for_help() -> None:
    assert list(RULES) == [
        "temperature",
        "topK",
        "topP",
        "seed",
        "beams",
        "lengthPenalty",
        "stop",
    ]
    assert all(rule.text for rule in RULES.values())


# --- the network, read token by token -------------------------------------------------


def test_log_probabilities_are_those_of_the_output_bias() -> None:
    model = fixed(0.1, 0.2, 0.3, 0.4)
    state = [np.zeros((2, 1, 1), np.float32)]

    result = log_probabilities(model.network, Clean(model.views), state)

    assert result.dtype == np.float64
    assert result.shape == (2, 4)
    np.testing.assert_allclose(np.exp(result), [[0.1, 0.2, 0.3, 0.4]] * 2, rtol=1e-6)


@pytest.mark.parametrize("model_type", ["rnn", "gru"])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_log_probabilities_after_a_prompt_equal_the_reference(
    model_type: str, n_layers: int
) -> None:
    model = random_model(5, model_type=model_type, n_layers=n_layers, vocab_size=6)
    prompt = np.array([3, 0, 5, 1, 2], np.uint16)
    p = Clean(model.views)

    state = read_prompt(model.network, p, prompt)
    result = log_probabilities(model.network, p, state)

    expected = next_log_p(model)(tuple(prompt.tolist()))
    np.testing.assert_allclose(result[0], expected, atol=1e-5)


def test_huge_logits_give_exact_log_probabilities_without_overflow() -> None:
    model = fixed(1, 1, 1)
    model.views["bo"][:] = [-3e38, 3e38, 3e38]
    state = [np.zeros((1, 1, 1), np.float32)]

    result = log_probabilities(model.network, Clean(model.views), state)

    np.testing.assert_allclose(result[0, 1:], [-math.log(2)] * 2)
    assert result[0, 0] < -5e38


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_have_diverged_are_refused(bad: float) -> None:
    model = fixed(1, 1, 1)
    model.views["bo"][2] = bad

    with pytest.raises(RunError, match=r"expected finite .* got nan or infinity"):
        model.sample(1)
    with pytest.raises(RunError, match="take an earlier checkpoint"):
        model.search(1)


def test_an_empty_prompt_reads_the_stop_token() -> None:
    model = bigram((0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 1, 0, 0))

    assert model.sample(4) == [2, 3, 1, 2]
    assert model.sample(4) == model.sample(4, np.array([STOP]))
    assert model.search(4).tokens == (2, 3, 1, 2)


def test_the_last_character_of_the_prompt_decides_in_a_bigram_model() -> None:
    model = bigram((0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 1, 0, 0))

    assert model.sample(3, np.array([1, 2], np.uint8)) == [3, 1, 2]
    assert model.sample(3, np.array([2, 0], np.uint8)) == [1, 2, 3]
    assert model.search(3, np.array([1, 2], np.uint8)).tokens == (3, 1, 2)


# --- the distribution -----------------------------------------------------------------


def test_the_unknown_token_gives_its_mass_to_the_others() -> None:
    log_p = logs(0.5, 0.125, 0.125, 0.25)

    assert spread(log_p) == pytest.approx([0, 0.25, 0.25, 0.5])


def test_temperature_raises_probabilities_to_its_inverse() -> None:
    log_p = logs(0.1, 0.1, 0.2, 0.6)

    assert spread(log_p, temperature=0.5) == pytest.approx([0, 1 / 41, 4 / 41, 36 / 41])
    roots = [0, 1, math.sqrt(2), math.sqrt(6)]
    expected = [root / sum(roots) for root in roots]
    assert spread(log_p, temperature=2) == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0, 5e-324, 1e-300, 1e-4])
def test_the_likeliest_token_takes_all_near_temperature_zero(
    temperature: float,
) -> None:
    log_p = logs(0.5, 0.2, 0.3, 0.2)

    assert spread(log_p, temperature=temperature) == [0, 0, 1, 0]
    assert spread(log_p, temperature=temperature, top_p=1) == [0, 0, 1, 0]


def test_the_lowest_of_equally_likely_tokens_is_greedy() -> None:
    assert spread(logs(0.1, 0.2, 0.35, 0.35), temperature=0) == [0, 0, 1, 0]


def test_all_tokens_are_equally_likely_at_a_very_high_temperature() -> None:
    log_p = logs(0.1, 1e-9, 0.2, 0.7)

    third = pytest.approx(1 / 3, rel=1e-4)
    assert spread(log_p, temperature=1e6) == [0, third, third, third]


def test_top_k_keeps_the_likeliest_and_of_equals_the_lowest() -> None:
    log_p = logs(0.4, 0.1, 0.2, 0.1, 0.1, 0.1)

    assert spread(log_p, top_k=1) == [0, 0, 1, 0, 0, 0]
    assert spread(log_p, top_k=2) == pytest.approx([0, 1 / 3, 2 / 3, 0, 0, 0])
    assert spread(log_p, top_k=3) == pytest.approx([0, 0.25, 0.5, 0.25, 0, 0])


@pytest.mark.parametrize("top_k", [3, 4, 65536])
def test_top_k_beyond_the_vocabulary_keeps_all(top_k: int) -> None:
    log_p = logs(0.4, 0.1, 0.2, 0.3)

    assert spread(log_p, top_k=top_k) == spread(log_p)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(1e-9, 1), (0.25, 1), (0.2500001, 2), (0.5, 2), (0.75, 3), (0.76, 4), (1, 4)],
)
def test_a_nucleus_ends_where_its_mass_is_reached_and_of_equals_keeps_the_lowest(
    top_p: float, kept: int
) -> None:
    log_p = logs(0.5, 0.125, 0.125, 0.125, 0.125)  # four quarters, without UNKNOWN

    expected = [0.0] + [1 / kept] * kept + [0.0] * (4 - kept)
    assert spread(log_p, top_p=top_p) == pytest.approx(expected)


def test_a_nucleus_takes_the_likeliest_first_wherever_they_stand() -> None:
    log_p = logs(0.001, 0.1, 0.2, 0.6, 0.1)

    assert spread(log_p, top_p=0.59) == [0, 0, 0, 1, 0]
    assert spread(log_p, top_p=0.75) == pytest.approx([0, 0, 0.25, 0.75, 0])


def test_a_nucleus_is_measured_after_temperature_and_top_k() -> None:
    log_p = logs(0.001, 0.1, 0.2, 0.3, 0.4)

    # 0.4 is 4/7 of what two tokens leave, but 0.4 of all.
    assert spread(log_p, top_p=0.55) == pytest.approx([0, 0, 0, 3 / 7, 4 / 7])
    assert spread(log_p, top_p=0.55, top_k=2) == [0, 0, 0, 0, 1]
    # Squares: 1, 4, 9 and 16 of 30.
    assert spread(log_p, top_p=0.53, temperature=0.5) == [0, 0, 0, 0, 1]
    assert spread(log_p, top_p=0.54, temperature=0.5) == pytest.approx(
        [0, 0, 0, 9 / 25, 16 / 25]
    )


@given(
    log_p=st.lists(st.floats(-60, 0, width=32), min_size=2, max_size=12),
    temperature=st.sampled_from([0, 1e-4, 0.3, 1, 2.5, 1e6]),
    top_k=st.none() | st.integers(1, 14),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
)
def test_a_distribution_keeps_a_prefix_of_the_tokens_by_rank_in_proportion(
    log_p: list[float], temperature: float, top_k: int | None, top_p: float | None
) -> None:
    chosen: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }
    given_log_p = np.array(log_p)
    result = distribution(given_log_p, Sampling(**chosen))

    ranked = sorted(range(1, len(log_p)), key=lambda token: (-log_p[token], token))
    kept = np.flatnonzero(result).tolist()
    assert given_log_p.tolist() == log_p
    assert result[UNKNOWN] == 0
    assert result.sum() == pytest.approx(1)
    assert sorted(ranked[: len(kept)]) == kept
    assert len(kept) <= (top_k or len(log_p))
    if temperature:
        inverse = [math.exp((log_p[t] - log_p[ranked[0]]) / temperature) for t in kept]
        expected = [number / sum(inverse) for number in inverse]
        assert result[kept].tolist() == pytest.approx(expected)
    else:
        assert kept == ranked[:1]


# --- drawing --------------------------------------------------------------------------


def word(u: float) -> int:
    """Return the random word that stands for a number from 0 to below 1."""
    return int(u * 2**53) << 11


@pytest.mark.parametrize(
    ("u", "token"),
    [(0, 1), (0.2499999, 1), (0.25, 3), (0.4999999, 3), (0.5, 4), (0.9999999, 4)],
)
def test_a_word_is_drawn_by_the_inverse_of_the_distribution(
    u: float, token: int
) -> None:
    probabilities = np.array([0, 0.25, 0, 0.25, 0.5, 0])

    assert draw(probabilities, word(u)) == token
    assert draw(probabilities * 3, word(u)) == token


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9).filter(any))
def test_the_greatest_word_draws_the_last_token_that_has_any_probability(
    numbers: list[int],
) -> None:
    probabilities = np.array(numbers) / sum(numbers)

    assert draw(probabilities, TOP) == np.flatnonzero(probabilities)[-1]
    assert draw(probabilities, 0) == np.flatnonzero(probabilities)[0]


def test_equal_quarters_are_drawn_by_the_two_highest_bits_of_philox() -> None:
    model = fixed(0, 1, 1, 1, 1)
    stream = reference.words(7, 0, 0, 5)

    tokens = model.sample(20, seed=7)

    assert tokens == [1 + (number >> 62) for number in stream]
    assert tokens == [4, 2, 2, 2, 1, 3, 2, 3, 1, 4, 4, 3, 2, 4, 3, 4, 1, 3, 3, 2]


def test_a_seed_gives_one_text_and_another_seed_another() -> None:
    model = random_model(1, vocab_size=9)

    first = model.sample(50, seed=TOP)

    assert model.sample(50, seed=TOP) == first
    assert model.sample(50, seed=TOP - 1) != first


def test_a_longer_text_begins_with_the_shorter_one() -> None:
    model = random_model(1, vocab_size=9)

    assert model.sample(50, seed=3)[:20] == model.sample(20, seed=3)
    assert model.sample(0, seed=3) == []


def test_tokens_are_yielded_as_they_are_drawn() -> None:
    model = random_model(1, vocab_size=9)

    endless: Iterator[int] = sample_tokens(
        model.network, model.views, NONE, 10**9, Sampling(seed=3)
    )

    assert list(islice(endless, 20)) == model.sample(20, seed=3)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    probabilities = [0, 0.5, 0.3, 0.15, 0.05]
    model, draws = fixed(*probabilities), 4000

    counts = np.bincount(model.sample(draws, seed=11), minlength=5)

    assert counts[UNKNOWN] == 0
    for count, p in zip(counts, probabilities, strict=True):
        assert abs(count - draws * p) <= 3 * math.sqrt(draws * p * (1 - p))


def test_pairs_are_drawn_as_often_as_a_bigram_model_says() -> None:
    rows = (0, 1, 0, 0), (0, 0.2, 0.8, 0), (0, 0.5, 0, 0.5), (0, 0, 0.9, 0.1)
    model, draws = bigram(*rows), 4000
    counts = np.zeros((4, 4))

    tokens = model.sample(draws, seed=5)
    np.add.at(counts, (tokens[:-1], tokens[1:]), 1)

    for now in (1, 2, 3):
        n = counts[now].sum()
        assert n > 300
        for following, p in enumerate(rows[now]):
            bound = 3 * math.sqrt(n * p * (1 - p))
            assert abs(counts[now, following] - n * p) <= bound


def test_a_text_ends_before_the_stop_token() -> None:
    model = bigram((0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 1, 0, 0))

    assert model.sample(9, stop=1) == [2, 3]
    assert model.sample(2, stop=1) == [2, 3]
    assert model.sample(1, stop=1) == [2]
    assert model.sample(9, np.array([3]), stop=1) == []


def test_a_text_with_a_stop_token_is_the_start_of_the_text_without() -> None:
    model = random_model(4, vocab_size=9)
    whole = model.sample(60, seed=2)

    assert 0 < whole.index(5) < 50
    assert model.sample(60, seed=2, stop=5) == whole[: whole.index(5)]


def test_the_unknown_token_is_read_but_never_written() -> None:
    model = fixed(0.98, 0.01, 0.005, 0.005)

    assert set(model.sample(200, np.array([UNKNOWN]))) == {1, 2, 3}
    assert set(model.sample(5, temperature=0)) == {1}
    assert model.search(5, beams=9).tokens == (1,) * 5


def test_greedy_text_takes_the_likeliest_token_whatever_the_seed() -> None:
    model = bigram(
        (0, 1, 0, 0), (0, 0.3, 0.4, 0.3), (0, 0.2, 0.3, 0.5), (1, 0.6, 0.4, 0)
    )

    for seed in range(5):
        assert model.sample(6, temperature=0, seed=seed) == [2, 3, 1, 2, 3, 1]
    assert model.sample(6, temperature=0, top_k=3, top_p=0.9) == [2, 3, 1, 2, 3, 1]


def test_nothing_that_was_given_is_changed() -> None:
    model = random_model(2, n_layers=2, model_type="gru")
    prompt = np.array([2, 3, 0], np.uint8)
    prompt.flags.writeable = model.flat.flags.writeable = False
    views = model.layout.views(model.flat)
    before, twice = model.flat.copy(), []

    for _ in range(2):
        drawn = sample(model.network, views, prompt, 9, Sampling(seed=1))
        found = beam_search(model.network, views, prompt, 9, Beam(3))
        twice.append((drawn, found))

    assert twice[0] == twice[1]
    assert np.array_equal(model.flat, before)
    assert prompt.tolist() == [2, 3, 0]


def test_text_begins_with_its_prompt_and_shows_a_stop_as_an_empty_line() -> None:
    model = bigram((0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 1, 0, 0))
    vocabulary = Vocabulary(("", "", "a", "b"))

    def write(prompt: str, length: int) -> str:
        return generate_text(
            model.layout, model.flat, vocabulary, prompt, length, Sampling()
        )

    assert write("a", 5) == "ab\n\nab\n\n"
    assert write("", 2) == "ab"
    assert write("bz", 2) == "bz\n\na"  # z is UNKNOWN, after which STOP is certain
    assert write("ab", 0) == "ab"


# --- beam search ----------------------------------------------------------------------


def next_log_p(model: Model) -> Callable[[tuple[int, ...]], Doubles]:
    """Return the slow reference's log-probabilities after what was read."""
    tensors = reference.tensors_of(model.config, model.flat)

    def after(read: tuple[int, ...]) -> Doubles:
        logits = reference.window_logits(model.config, tensors, read)[-1]
        return np.asarray(logits - np.logaddexp.reduce(logits))

    return after


def penalised(log_p: float, length: int, alpha: float) -> float:
    return float(log_p / ((5 + length) / 6) ** alpha)


def every_result(
    model: Model, prompt: tuple[int, ...], length: int, alpha: float, stop: int | None
) -> list[BeamResult]:
    """Return all texts that a search could end with, best first."""
    after, size = next_log_p(model), model.layout.vocab_size
    results = []

    def extend(tokens: tuple[int, ...], log_p: float) -> None:
        if len(tokens) == length:
            score = penalised(log_p, length, alpha)
            results.append(BeamResult(tokens, log_p, score))
            return
        ahead = after(prompt + tokens)
        for token in range(1, size):
            total = log_p + float(ahead[token])
            if token == stop:
                score = penalised(total, len(tokens) + 1, alpha)
                results.append(BeamResult(tokens, total, score))
            else:
                extend((*tokens, token), total)

    extend((), 0.0)
    return sorted(results, key=lambda result: -result.score)


def plain_search(
    model: Model, prompt: tuple[int, ...], length: int, beam: Beam
) -> BeamResult:
    """Search with lists, one text at a time, each read anew, never ending early."""
    after = next_log_p(model)
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    ended: list[BeamResult] = []
    for size in range(1, length + 1):
        longer = [
            (total + float(log_p), (*tokens, token))
            for total, tokens in live
            for token, log_p in enumerate(after(prompt + tokens))
            if token != UNKNOWN
        ]
        longer.sort(key=lambda pair: -pair[0])
        live = []
        for total, tokens in longer[: beam.beams]:
            score = penalised(total, size, beam.length_penalty)
            if tokens[-1] == beam.stop:
                ended.append(BeamResult(tokens[:-1], total, score))
            elif size == length:
                ended.append(BeamResult(tokens, total, score))
            else:
                live.append((total, tokens))
    return max(ended, key=lambda result: result.score)


def assert_same(found: BeamResult, expected: BeamResult) -> None:
    assert found.tokens == expected.tokens
    assert found.log_probability == pytest.approx(expected.log_probability, abs=1e-5)
    assert found.score == pytest.approx(expected.score, abs=1e-5)


def shapes_read(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list that the shape of all tokens will be in that the network reads."""
    shapes, step = [], model.network.step

    def listed(p: Products, tokens: Tokens, state: Sequence[Floats]) -> list[Floats]:
        shapes.append(tokens.shape)
        return step(p, tokens, state)

    monkeypatch.setattr(model.network, "step", listed)
    return shapes


NETWORKS = list(product(["rnn", "gru"], [1, 2]))


@pytest.mark.parametrize(("model_type", "n_layers"), NETWORKS)
@pytest.mark.parametrize("alpha", [0, 0.6, 2])
@pytest.mark.parametrize("stop", [None, 1, 3])
def test_enough_beams_find_the_best_of_all_texts(
    model_type: str, n_layers: int, alpha: float, stop: int | None
) -> None:
    for seed in range(4):
        model = random_model(seed, model_type=model_type, n_layers=n_layers)
        expected = every_result(model, (2, 0), 4, alpha, stop)

        found = model.search(
            4, np.array([2, 0]), beams=4**3, length_penalty=alpha, stop=stop
        )

        assert expected[0].score > expected[1].score + 1e-5  # no doubt which is best
        assert_same(found, expected[0])


@pytest.mark.parametrize(("model_type", "n_layers"), NETWORKS)
@pytest.mark.parametrize("stop", [None, 2])
def test_any_number_of_beams_equals_a_search_of_one_text_at_a_time(
    model_type: str, n_layers: int, stop: int | None
) -> None:
    for seed, beams in product(range(2), (1, 2, 3, 5, 8)):
        model = random_model(
            seed, model_type=model_type, n_layers=n_layers, vocab_size=6
        )
        for alpha in (0, 1.3):
            beam = Beam(beams, alpha, stop)
            found = model.search(
                7, np.array([3]), beams=beams, length_penalty=alpha, stop=stop
            )

            assert_same(found, plain_search(model, (3,), 7, beam))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    vocabulary=st.integers(3, 9),
    length=st.integers(0, 12),
    stop=st.none() | st.integers(1, 8),
)
def test_one_beam_writes_the_greedy_text(
    seed: int, vocabulary: int, length: int, stop: int | None
) -> None:
    model = random_model(seed, vocab_size=vocabulary)

    found = model.search(length, stop=stop)

    assert list(found.tokens) == model.sample(length, temperature=0, stop=stop)


def test_two_beams_find_what_the_greedy_text_misses() -> None:
    # After STOP: 2 with 0.6, 3 with 0.4; but 2 leads to evens, 3 to certainty.
    model = bigram((0, 1, 0, 0), (0, 0, 0.6, 0.4), (0, 0.5, 0.5, 0), (0, 0, 0, 1))

    greedy, better = model.search(3), model.search(3, beams=2)

    assert greedy.tokens == (2, 1, 2)
    assert math.exp(greedy.log_probability) == pytest.approx(0.6 * 0.5 * 0.6)
    assert better.tokens == (3, 3, 3)
    assert math.exp(better.log_probability) == pytest.approx(0.4)
    assert better.score == better.log_probability


def test_the_length_penalty_lets_a_longer_text_win() -> None:
    # At once the stop token 1 with 0.5, or 2 with 0.5 and then 2, 2, ... with 0.9.
    model = bigram((0, 1, 0), (0, 0.5, 0.5), (0, 0.1, 0.9))

    short = model.search(3, beams=3, stop=1)
    long = model.search(3, beams=3, stop=1, length_penalty=1)

    assert short == BeamResult((), short.log_probability, short.log_probability)
    assert short.score == pytest.approx(math.log(0.5))
    assert long.tokens == (2, 2, 2)
    assert long.log_probability == pytest.approx(math.log(0.5 * 0.9 * 0.9))
    assert long.score == pytest.approx(math.log(0.405) / (8 / 6))  # above log(1/2)


def test_a_stop_token_counts_in_the_probability_and_the_length() -> None:
    model = bigram((0, 1, 0), (0, 0, 1), (0, 0.75, 0.25))

    found = model.search(9, beams=2, stop=1, length_penalty=1)

    assert found.tokens == (2,)
    assert found.log_probability == pytest.approx(math.log(0.75))
    assert found.score == pytest.approx(math.log(0.75) / (7 / 6))
    assert Beam(length_penalty=1).score(-7, 9) == -3


def test_the_mass_of_the_unknown_token_is_nobodys() -> None:
    found = fixed(0.5, 0.3, 0.2).search(1)

    assert found.tokens == (1,)
    assert math.exp(found.log_probability) == pytest.approx(0.3)


def test_ties_go_to_the_lower_beam_then_the_lower_token() -> None:
    model = fixed(0.1, 0.3, 0.3, 0.3)

    assert model.search(3, beams=4).tokens == (1, 1, 1)
    assert model.search(1, beams=4, stop=3).tokens == (1,)
    assert model.search(1, beams=4, stop=1).tokens == ()


def test_what_ended_first_wins_a_tie() -> None:
    # UNKNOWN has all the mass that float64 can tell, so that logits below -40 are
    # log-probabilities to the bit: a stop with -100 now, or with -50 - 50 after a 2.
    model = bigram(*[(1, 0, 0)] * 3)
    model.views["Wo"][1:] = [[0, -100, -50], [0, -50, -70]]

    assert model.search(5, beams=2, stop=1) == BeamResult((), -100, -100)
    model.views["Wo"][1, 1] = -101
    assert model.search(5, beams=2, stop=1) == BeamResult((2,), -100, -100)


def test_the_search_ends_when_no_live_text_can_win(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = bigram((0, 1, 0, 0), (0, 0.6, 0.4, 0), *[(0, 0, 0.5, 0.5)] * 2)
    shapes = shapes_read(model, monkeypatch)

    found = model.search(1000, beams=5, stop=1)

    assert found.tokens == ()
    assert shapes == [(1, 1)]  # the prompt; then 0.4 cannot beat 0.6 any more


def test_the_search_goes_on_while_a_longer_text_may_win_by_its_length() -> None:
    # Of one character 2 (0.4) has lost against the stop (0.6), of six it wins.
    model = bigram((0, 1, 0), (0, 0.6, 0.4), (0, 0, 1))

    five = model.search(5, beams=2, stop=1, length_penalty=1)
    six = model.search(6, beams=2, stop=1, length_penalty=1)

    assert five.tokens == ()
    assert five.score == pytest.approx(math.log(0.6))
    assert six.tokens == (2,) * 6
    assert six.score == pytest.approx(math.log(0.4) / (11 / 6))


def test_all_beams_are_read_in_one_step_of_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = random_model(3, vocab_size=9)
    shapes = shapes_read(model, monkeypatch)

    model.search(5, np.array([4, 2]), beams=20)

    assert shapes == [(1, 1), (1, 1), (8, 1), (20, 1), (20, 1), (20, 1)]


def test_a_search_of_no_length_finds_the_empty_text() -> None:
    assert random_model(0).search(0) == BeamResult((), 0.0, 0.0)

"""What a trained model writes: drawn at random, or the likeliest text that is found.

Owns: the settings of both ways, how one token is chosen from the probabilities of all,
and the search over beams. Does not own: the network, the map between characters and
tokens, or where weights come from; it opens no files.

The idea: a network reads the prompt from a zero state (an empty prompt stands for STOP,
as if a document had just ended); from then on it reads what was chosen. UNKNOWN may
be read, but is never chosen: no character belongs to it.

    sampling      temperature first, then the top-k likeliest tokens (Fan et al. 2018,
                  arXiv 1805.04833), of those the nucleus of mass top-p (Holtzman et
                  al. 2020, arXiv 1904.09751)
    beam search   the likeliest hypotheses are extended side by side; nothing is random
                  (Sutskever et al. 2014, arXiv 1409.3215; length penalty of Wu et al.
                  2016, arXiv 1609.08144, equation 14)

Everything after the network's float32 logits is float64. V is the vocabulary, n the
hypotheses of one batch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.config import Rule
from utilities.data import STOP, UNKNOWN, Vocabulary
from utilities.errors import RunError
from utilities.model import Clean, Floats, Layout, Network, Products, Tokens

Doubles: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]

# Settings.


class _SeedRule(Rule):
    """A rule whose upper end a float cannot spell."""

    @property
    def allowed(self) -> str:
        """Return what is accepted, in words."""
        return "a whole number from 0 to 2^64 - 1"


RULES: dict[str, Rule] = {
    "temperature": Rule(
        float,
        "below 1 likely characters become likelier; 0: always the likeliest",
        high=1e6,
    ),
    "topK": Rule(
        int,
        "draw from that many likeliest characters; null: from all",
        low=1,
        high=65536,
        optional=True,
    ),
    "topP": Rule(
        float,
        "draw from the fewest characters that together have that probability; "
        "null: from all",
        high=1,
        exclusive=True,
        optional=True,
    ),
    "seed": _SeedRule(int, "seed of the random draws", high=(1 << 64) - 1),
    "beams": Rule(int, "hypotheses kept side by side", low=1, high=1024),
    "lengthPenalty": Rule(
        float, "0: highest total probability; above, longer texts gain", high=10
    ),
    "stop": Rule(
        int,
        "token that ends a text; null: none does",
        low=1,
        high=65535,
        optional=True,
    ),
}


def _check(settings: object, **keys: str) -> None:
    """Replace the named values by what the rules of their keys make of them."""
    for name, key in keys.items():
        value = RULES[key].parse(key, getattr(settings, name))
        object.__setattr__(settings, name, value)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn at random.

    Raises:
        ConfigError: a value is of another type or out of range.
    """

    temperature: float = 1.0  # 0: greedy, the likeliest token, nothing is random
    top_k: int | None = None
    top_p: float | None = None  # share of the mass that top_k leaves
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self, temperature="temperature", top_k="topK", top_p="topP", seed="seed")


@dataclass(frozen=True)
class Beam:
    """How the likeliest text is searched.

    Raises:
        ConfigError: a value is of another type or out of range.
    """

    beams: int = 1
    length_penalty: float = 0.0  # alpha
    stop: int | None = None

    def __post_init__(self) -> None:
        _check(self, beams="beams", length_penalty="lengthPenalty", stop="stop")

    def score(self, log_probability: float, length: int) -> float:
        """Return what hypotheses of several lengths are compared by, higher is better.

        log-probability / ((5 + length) / 6)^alpha of Wu et al. 2016; a stop token
        counts as one of the length.
        """
        return log_probability / math.pow((5 + length) / 6, self.length_penalty)


# The network, read token by token.


def read_prompt(network: Network, p: Products, prompt: Tokens) -> list[Floats]:
    """Return the state after a prompt: for each layer (1, 1, H).

    Args:
        network: of the model.
        p: its weights.
        prompt: (length,) tokens; where there are none, STOP is read.
    """
    state = network.start((1, 1))
    for token in prompt if len(prompt) else [STOP]:
        state = network.step(p, np.array([[token]]), state)
    return state


def log_probabilities(
    network: Network, p: Products, state: Sequence[Floats]
) -> Doubles:
    """Return the log-probability of every token to come next: (n, V), natural logs.

    Args:
        network: of the model.
        p: its weights.
        state: for each layer (n, 1, H).

    Raises:
        RunError: the weights are so large, or not numbers, that these are not finite.
    """
    logits = network.logits(p, state[-1])[:, 0].astype(np.float64)
    if not np.isfinite(logits).all():
        raise RunError(
            "generation: expected finite log-probabilities, got nan or infinity: these "
            "weights have diverged; take an earlier checkpoint or train with a lower "
            "learningRate"
        )
    logits -= logits.max(axis=1, keepdims=True)
    result: Doubles = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return result


def _largest(values: Doubles, count: int) -> Indices:
    """Return the indices of the largest values, largest first, ties by lower index."""
    # A partition first: sorting all of 100 beams' 4,000 tokens takes ten times as long.
    least = np.partition(values, -count)[-count]
    rivals = np.flatnonzero(values >= least)
    return rivals[np.argsort(-values[rivals], kind="stable")][:count]


# Sampling.


def distribution(log_p: Doubles, sampling: Sampling) -> Doubles:
    """Return the probabilities that tokens are drawn with.

    Ties for a place among the top k or in the nucleus go to the lower token.

    Args:
        log_p: (V,) of the model, up to a constant.
        sampling: temperature, top-k and top-p.

    Returns:
        (V,), at least one not zero, that of UNKNOWN zero.
    """
    allowed = log_p.copy()
    allowed[UNKNOWN] = -np.inf
    known = len(allowed) - 1
    greedy = sampling.temperature == 0
    order = _largest(allowed, 1 if greedy else min(sampling.top_k or known, known))
    below = allowed[order] - allowed[order[0]]  # 0 for the likeliest: cannot overflow
    if not greedy:
        with np.errstate(over="ignore"):  # -inf for a tiny temperature: 0 is meant
            below /= sampling.temperature
    weights = np.exp(below)
    if sampling.top_p is not None:
        mass = weights.cumsum()
        weights = weights[: 1 + np.searchsorted(mass, sampling.top_p * mass[-1])]
    result = np.zeros_like(log_p)
    result[order[: len(weights)]] = weights / weights.sum()
    return result


def draw(probabilities: Doubles, word: int) -> int:
    """Return the token that a random word picks, by the inverse of the distribution.

    Args:
        probabilities: (V,), up to a factor.
        word: 64 random bits; the upper 53 are a number u, 0 <= u < 1.
    """
    cumulative = probabilities.cumsum()
    # u times the total is below the total also when rounded: the index exists, and
    # "right" steps over tokens of no probability.
    point = (word >> 11) * 2.0**-53 * cumulative[-1]
    return int(np.searchsorted(cumulative, point, side="right"))


def sample_tokens(
    network: Network,
    views: dict[str, Floats],
    prompt: Tokens,
    length: int,
    sampling: Sampling,
    stop: int | None = None,
) -> Iterator[int]:
    """Yield tokens that the model writes after a prompt, as they are drawn.

    The k-th token takes the k-th raw word of Philox keyed by the seed: these are equal
    in every numpy version, what its distributions make of them is not.

    Args:
        network: of the model.
        views: its weights by name.
        prompt: (any,) tokens, read first; where there are none, STOP is read.
        length: tokens at most.
        sampling: settings.
        stop: token that ends the text and is not yielded itself.

    Raises:
        RunError: the weights have diverged.
    """
    assert length >= 0, length
    p = Clean(views)
    random = np.random.Philox(key=sampling.seed)
    state = read_prompt(network, p, prompt)
    for _ in range(length):
        log_p = log_probabilities(network, p, state)[0]
        token = draw(distribution(log_p, sampling), int(random.random_raw()))
        if token == stop:
            return
        yield token
        state = network.step(p, np.array([[token]]), state)


def sample(
    network: Network,
    views: dict[str, Floats],
    prompt: Tokens,
    length: int,
    sampling: Sampling,
    stop: int | None = None,
) -> list[int]:
    """Return what `sample_tokens` yields."""
    return list(sample_tokens(network, views, prompt, length, sampling, stop))


def generate_text(
    layout: Layout,
    weights: Floats,
    vocabulary: Vocabulary,
    prompt: str,
    length: int,
    sampling: Sampling,
) -> str:
    """Return the prompt and the text that the model writes after it.

    Args:
        layout: of the model.
        weights: (P,).
        vocabulary: of the model; other characters of the prompt are read as UNKNOWN.
        prompt: read first; an empty one stands for the end of a document.
        length: tokens drawn; a STOP among them is an empty line.
        sampling: settings.

    Raises:
        RunError: the weights have diverged.
    """
    assert layout.vocab_size == vocabulary.size, (layout.vocab_size, vocabulary.size)
    tokens = sample(
        Network(layout),
        layout.views(weights),
        vocabulary.encode(prompt),
        length,
        sampling,
    )
    return prompt + vocabulary.decode(tokens)


# Beam search.


@dataclass(frozen=True)
class BeamResult:
    """The best text that was found."""

    tokens: tuple[int, ...]  # without a stop token
    log_probability: float  # natural, of all tokens and the stop token that ended them
    score: float  # by which it was the best


@dataclass(frozen=True)
class _Hypotheses:
    """Texts of one length, likeliest first."""

    tokens: Indices  # (n, length)
    log_p: Doubles  # (n,), of all tokens together

    def extended(self, log_p: Doubles, beams: int) -> tuple["_Hypotheses", Indices]:
        """Return the likeliest texts that are one token longer, and their parents.

        Args:
            log_p: (n, V) of the next token; overwritten.
            beams: texts at most; ties go to the lower parent, then the lower token.
        """
        n, vocabulary = log_p.shape
        log_p += self.log_p[:, None]
        log_p[:, UNKNOWN] = -np.inf
        flat = log_p.ravel()
        chosen = _largest(flat, min(beams, n * (vocabulary - 1)))
        parents, tokens = np.divmod(chosen, vocabulary)
        texts = np.concatenate([self.tokens[parents], tokens[:, None]], axis=1)
        return _Hypotheses(texts, flat[chosen]), parents

    def only(self, chosen: NDArray[np.bool_]) -> "_Hypotheses":
        """Return some of them."""
        return _Hypotheses(self.tokens[chosen], self.log_p[chosen])


def _better(
    best: BeamResult | None, ended: _Hypotheses, beam: Beam
) -> BeamResult | None:
    """Return the best of before, or the first of those that end now if it is better."""
    if not len(ended.log_p):
        return best
    # All have one length, so the likeliest, which is the first, has the best score.
    log_p, tokens = float(ended.log_p[0]), tuple(ended.tokens[0].tolist())
    score = beam.score(log_p, len(tokens))
    if best is not None and best.score >= score:
        return best
    return BeamResult(tokens[:-1] if tokens[-1] == beam.stop else tokens, log_p, score)


def _settled(
    best: BeamResult | None, live: _Hypotheses, length: int, beam: Beam
) -> bool:
    """Return whether no live hypothesis can still beat the best that has ended.

    A total log-probability L <= 0 only falls with further tokens, and the divisor of
    the score grows with the length: L over the divisor of the greatest length is the
    most that a hypothesis can reach. A bound by its present length would be too low.
    """
    if not len(live.log_p):
        return True
    most = beam.score(float(live.log_p[0]), length)
    return best is not None and best.score >= most


def beam_search(
    network: Network,
    views: dict[str, Floats],
    prompt: Tokens,
    length: int,
    beam: Beam,
) -> BeamResult:
    """Return the text with the best score among those that the beams reach.

    Each step extends all live hypotheses by every token and keeps the `beams` of the
    highest total log-probability. Those of them that end in the stop token are set
    aside, the others live on; at `length` all end. Ties go to what ended first, then to
    the lower beam, then to the lower token. One beam without length penalty gives
    the greedy text.

    Args:
        network: of the model.
        views: its weights by name.
        prompt: (any,) tokens, read first; where there are none, STOP is read.
        length: tokens at most, a stop token included.
        beam: settings.

    Raises:
        RunError: the weights have diverged.
    """
    assert length >= 0, length
    p = Clean(views)
    state = read_prompt(network, p, prompt)
    live = _Hypotheses(np.zeros((1, 0), np.intp), np.zeros(1))
    best: BeamResult | None = None
    for size in range(1, length + 1):
        log_p = log_probabilities(network, p, state)
        longer, parents = live.extended(log_p, beam.beams)
        last = longer.tokens[:, -1]
        ends = np.full(len(last), size == length)
        if beam.stop is not None:
            ends |= last == beam.stop
        best = _better(best, longer.only(ends), beam)
        live = longer.only(~ends)
        if _settled(best, live, length, beam):
            break
        state = [h[parents[~ends]] for h in state]
        state = network.step(p, last[~ends, None], state)
    return best or BeamResult((), 0.0, 0.0)

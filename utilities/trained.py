"""A trained model: the weights of one step, and what can be asked of them.

Owns what needs layout, weights and vocabulary together: text after a prompt, the
likeliest text, the surprise of each character. Does not own how a token is chosen
(`generation`), where weights lie (`runs`), or how anything is shown.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.config import Config
from utilities.data import Vocabulary
from utilities.errors import RunError
from utilities.generation import (
    Beam,
    BeamResult,
    Sampling,
    beam_search,
    generate_text,
    log_probabilities,
    read_prompt,
    sample_tokens,
)
from utilities.model import Clean, Floats, Layout, Network

Doubles: TypeAlias = NDArray[np.float64]

_LOGITS = 1 << 20  # computed at once: bounds the memory for a large vocabulary
_MOST_AT_ONCE = 4096  # characters, so that a caller can show how far it is


@dataclass(frozen=True, eq=False)
class Model:
    """A run's network with the weights of one step.

    What writes or reads text raises `RunError` where the weights have diverged.
    """

    layout: Layout
    vocabulary: Vocabulary
    step: int
    weights: Floats  # (P,)

    @classmethod
    def checked(
        cls,
        run: Path,
        config: Config,
        vocabulary: Vocabulary,
        step: int,
        weights: Floats,
    ) -> "Model":
        """Return the model of a run; RunError where its files do not fit together."""
        if config.vocab_size != vocabulary.size:
            has = "null" if config.vocab_size is None else config.vocab_size
            raise RunError(
                f"{run}: expected a vocabulary of {has}, as config.json says, got one "
                f"of {vocabulary.size}; restore both files from a copy"
            )
        layout = Layout(config)
        if weights.size != layout.size:
            raise RunError(
                f"{run}: expected {layout.size} weights, as config.json says, got "
                f"{weights.size} at step {step}; restore config.json from a copy"
            )
        return cls(layout, vocabulary, step, weights)

    def unknown(self, text: str) -> list[str]:
        """Return the characters, each once, that the vocabulary does not hold."""
        known = set(self.vocabulary.characters)
        return [c for c in dict.fromkeys(text) if c not in known]

    def write(self, prompt: str, length: int, sampling: Sampling) -> str:
        """Return the prompt and so many characters drawn after it."""
        with np.errstate(all="ignore"):  # diverged weights are refused in one line
            return generate_text(
                self.layout, self.weights, self.vocabulary, prompt, length, sampling
            )

    def pieces(self, prompt: str, length: int, sampling: Sampling) -> Iterator[str]:
        """Yield what `write` draws after the prompt, as it is drawn."""
        tokens = sample_tokens(
            Network(self.layout),
            self.layout.views(self.weights),
            self.vocabulary.encode(prompt),
            length,
            sampling,
        )
        decode = functools.cache(lambda token: self.vocabulary.decode([token]))
        while True:
            with np.errstate(all="ignore"):  # not beyond a yield
                token = next(tokens, None)
            if token is None:
                return
            yield decode(token)

    def likeliest(self, prompt: str, length: int, beam: Beam) -> tuple[str, BeamResult]:
        """Return the best text that a beam search finds after a prompt, and its score.

        Args:
            prompt: read first.
            length: characters at most.
            beam: settings.
        """
        with np.errstate(all="ignore"):
            best = beam_search(
                Network(self.layout),
                self.layout.views(self.weights),
                self.vocabulary.encode(prompt),
                length,
                beam,
            )
        return self.vocabulary.decode(best.tokens), best

    def surprise(self, text: str) -> Iterator[Doubles]:
        """Yield -log2 of the probability of each character, for part after part.

        The first one is predicted as the first of a document. What the vocabulary does
        not hold counts as the unknown token.
        """
        network, p = Network(self.layout), Clean(self.layout.views(self.weights))
        tokens = self.vocabulary.encode(text)
        with np.errstate(all="ignore"):
            state = read_prompt(network, p, tokens[:0])
        most = max(1, min(_MOST_AT_ONCE, _LOGITS // self.vocabulary.size))
        for start in range(0, len(tokens), most):
            part = tokens[start : start + most]
            tops = np.empty((len(part), 1, self.layout.hidden_size), np.float32)
            # One core does all logits of a part in a single product.
            with np.errstate(all="ignore"):
                for place, token in enumerate(part[:, None, None]):
                    tops[place] = state[-1][0]
                    state = network.step(p, token, state)
                log_p = log_probabilities(network, p, [tops])
            yield -log_p[np.arange(len(part)), part] / math.log(2)

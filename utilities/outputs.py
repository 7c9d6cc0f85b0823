"""The trials of the output layer, on the states of clean copies.

Noise of the output layer changes no state, so its trials need no pass of their own:
they are scored on what a group's clean copy has read anyway, by one product for all of
them. And neither kind of trial bears what the other one's noise does to a loss.

With b of -1 or +1 and s = sigma (h.a + 1), ``exp(s b) = cosh s (1 + b tanh s)``, so
the sum over the vocabulary is ``cosh s (sum E + tanh s sum E b)``, E of the clean
output weights, and cosh s cancels against the target's: no logit is formed.
"""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utilities.model import Floats, Tokens, surprise

LEAST = float(np.finfo(np.float32).tiny)  # that has all of its digits
SAFE_SHIFT = 4.0  # of |s|: beyond, 1 - |tanh s| has less than four digits left


class OutputTrials:
    """The output trials of a batch of groups, a few characters at a time."""

    def __init__(
        self,
        bias: Floats,
        a: Floats,
        b: Floats,
        sigma: float,
        targets: Tokens,
        span: int,
    ) -> None:
        """Begin with nothing read.

        Args:
            bias: (V,) of the logits.
            a: (groups, K, H) directions of the state.
            b: (groups, K, V) signs of the logits.
            sigma: standard deviation of the noise.
            targets: (T, groups, w) characters to be predicted.
            span: characters that are held until they are scored together.
        """
        self._bias, self._b, self._targets = bias, b, targets
        self._sigma = np.float32(sigma)
        groups, w = targets.shape[1:]
        self._a = np.swapaxes(a * self._sigma, 1, 2)  # (groups, H, K)
        self._signs = np.ascontiguousarray(np.swapaxes(b, 1, 2))  # (groups, V, K)
        self._states = np.empty((span, groups, w, a.shape[2]), np.float32)
        self._exps = np.empty((span, groups, w, b.shape[2]), np.float32)
        self._total = np.zeros(b.shape[:2], np.float32)
        self.restart()

    @cached_property
    def _frequencies(self) -> Floats:
        return np.asarray(np.exp(self._bias))

    def restart(self) -> None:
        """Begin again with the first character."""
        self._total.fill(0)
        self._held = self._scored = 0  # characters

    def take(self, states: Floats, exps: Floats) -> bool:
        """Read one more character of the clean copies; return whether that is safe.

        Args:
            states: (groups, w, H) of the uppermost layer.
            exps: (groups, w, V) exponentials of their products with the output matrix.
        """
        self._states[self._held] = states
        np.multiply(exps, self._frequencies, out=self._exps[self._held])
        self._held += 1
        ended = self._scored + self._held == len(self._targets)
        return self._score() if ended or self._held == len(self._exps) else True

    def _by_group(self, held: Floats) -> Floats:
        """Return what is held, for products of each group: (groups, held * w, n)."""
        by_group = np.swapaxes(held[: self._held], 0, 1)
        return by_group.reshape(len(by_group), -1, held.shape[3])

    def _by_window(self, each: NDArray[Any]) -> NDArray[Any]:
        """Return numbers of (held, groups, w) by window: (held * w, groups)."""
        groups, w = self._targets.shape[1:]
        by_group = np.swapaxes(each.reshape(-1, groups, w), 1, 2)
        return by_group.reshape(-1, groups)

    def _score(self) -> bool:
        """Score what is held, unless a shift, a sum or a chance is out of range."""
        groups, vocabulary, each = self._signs.shape
        count = self._held * self._targets.shape[2]
        shifts = np.empty((count, groups, each), np.float32)
        np.matmul(self._by_group(self._states), self._a, out=np.swapaxes(shifts, 0, 1))
        shifts += self._sigma
        if max(shifts.max(), -shifts.min()) > SAFE_SHIFT:
            return False
        tanh = np.tanh(shifts, out=shifts)
        sums = np.empty_like(shifts)
        np.matmul(self._by_group(self._exps), self._signs, out=np.swapaxes(sums, 0, 1))
        sums *= tanh
        exps = self._exps[: self._held].reshape(-1, vocabulary)  # of held, group, w
        clean = exps @ np.ones(vocabulary, np.float32)
        sums += self._by_window(clean)[..., None]
        targets = self._targets[self._scored : self._scored + self._held]
        places = targets.reshape(-1).astype(np.intp)
        rows = self._by_window(places) + vocabulary * np.arange(groups)
        chances = self._signs.reshape(groups * vocabulary, -1).take(rows, axis=0)
        chances *= tanh
        chances += 1
        sums /= chances
        if not sums.max() < np.inf:  # true for NaN
            return False
        self._total += np.log(sums, out=sums).sum(axis=0)
        places += vocabulary * np.arange(len(places))
        chosen = exps.reshape(-1).take(places)
        if not chosen.min() >= LEAST:  # true for NaN
            return False
        self._total -= self._by_window(np.log(chosen)).sum(axis=0)[:, None]
        self._scored += self._held
        self._held = 0
        return True

    def take_safely(self, t: int, states: Floats, logits: Floats) -> None:
        """Read one more character where exponentials could overflow.

        Args:
            t: which one.
            states: (groups, w, H) of the uppermost layer.
            logits: (groups, w, V) of the clean copies.
        """
        shifts = states @ self._a
        shifts += self._sigma  # (groups, w, K)
        for w in range(logits.shape[1]):
            noisy = shifts[:, w, :, None] * self._b
            noisy += logits[:, w, None]
            tokens = np.broadcast_to(self._targets[t, :, w, None], noisy.shape[:2])
            self._total += surprise(noisy, tokens)

    @property
    def losses(self) -> Floats:
        """Return the mean over all characters: (groups, K)."""
        count = self._targets.shape[0] * self._targets.shape[2]
        return np.asarray(self._total / np.float32(count))

"""The trials of the output layer, on the states of clean copies.

Noise of the output layer changes no state, so its trials need no pass of their own:
they are scored on what a group's clean copy has read anyway, by one product for all of
them. And neither kind of trial bears what the other one's noise does to a loss.

With b of -1 or +1 and s = sigma (h.a + 1), ``exp(s b) = cosh s (1 + b tanh s)``, so
the sum over the vocabulary is ``cosh s (sum E + tanh s sum E b)``, E of the clean
output weights, and cosh s cancels against the target's: no logit is formed.
"""

from functools import cached_property

import numpy as np

from utilities.model import Floats, Tokens, surprise

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
        self._states = np.empty((groups, span, w, a.shape[2]), np.float32)
        self._exps = np.empty((groups, span, w, b.shape[2]), np.float32)
        self._total = np.zeros(b.shape[:2], np.float32)
        self.restart()

    @cached_property
    def _weights(self) -> Floats:
        """Return what gives sum E b of each trial, and sum E: (groups, V, K + 1)."""
        groups, size, each = self._signs.shape
        weights = np.empty((groups, size, each + 1), np.float32)
        frequencies = weights[..., -1:]
        frequencies[:] = np.exp(self._bias)[:, None]
        np.multiply(self._signs, frequencies, out=weights[..., :-1])
        return weights

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
        self._states[:, self._held], self._exps[:, self._held] = states, exps
        self._held += 1
        ended = self._scored + self._held == len(self._targets)
        return self._score() if ended or self._held == self._exps.shape[1] else True

    def _score(self) -> bool:
        """Score what is held, unless a shift is too large."""
        held, self._held = self._held, 0
        groups, vocabulary, _ = self._signs.shape
        states = self._states[:, :held].reshape(groups, -1, self._states.shape[3])
        exps = self._exps[:, :held].reshape(groups, -1, self._exps.shape[3])
        shifts = states @ self._a  # (groups, held * w, K)
        shifts += self._sigma
        if max(shifts.max(), -shifts.min()) > SAFE_SHIFT:
            return False
        tanh = np.tanh(shifts, out=shifts)
        weighted = exps @ self._weights
        sums = weighted[..., :-1]
        sums *= tanh
        sums += weighted[..., -1:]
        targets = self._targets[self._scored : self._scored + held]
        places = np.moveaxis(targets, 0, 1).reshape(groups, -1).astype(np.intp)
        rows = places + vocabulary * np.arange(groups)[:, None]
        chances = self._signs.reshape(groups * vocabulary, -1).take(rows, axis=0)
        chances *= tanh
        chances += 1
        sums /= chances
        self._total += np.log(sums, out=sums).sum(axis=1)
        chosen = np.take_along_axis(exps, places[..., None], axis=2)[..., 0]
        clean = np.log(chosen) + self._bias.take(places)
        self._total -= clean.sum(axis=1)[:, None]
        self._scored += held
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

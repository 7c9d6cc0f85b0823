"""The perturbation of any trial of anybody, from its segment's seed and its index.

Random bits are raw 64-bit words of the counter-based generator Philox. The seed is the
key; the counter depends on the index alone, so the noise of one trial can be made
without that of the others, in any order, on any machine. Raw words are stable across
numpy versions (its distributions are not): bytes little-endian, bits least significant
first, 1 = +1 and 0 = -1, parts in the order in which they were named.

Rank-1 noise names bundles of wires as parts: a matrix that joins two of them, of m and
n wires, is perturbed by the rank-1 matrix ``a b^T``, a vector by the signs of the
bundle that it writes to. That gives exactly the variance of m n independent signs for
m + n of them (EGGROLL, arXiv 2511.16652, takes Gaussian factors). Full noise names
whole tensors as parts.

It does not know what a model does with its parts, nor which text was read.
"""

from collections.abc import Mapping
from typing import TypeAlias, cast

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike, NDArray

Floats: TypeAlias = NDArray[np.float32]
Words: TypeAlias = NDArray[np.uint64]
Signs: TypeAlias = dict[str, Floats]  # of each part: (trials, size), -1 and +1

NOISE, WINDOWS = 0, 1  # purpose words: the highest word of the counter
WORDS_PER_BLOCK = 4  # one counter value gives four 64-bit words
BITS_PER_WORD = 64

_SIGNS_OF_OCTET: Floats = 2 * np.unpackbits(
    np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"
).astype(np.float32) - np.float32(1)  # (256, 8): a table is faster than shifts


class _Key(ISeedSequence):
    """A key as the sequence that numpy would seed a generator with.

    Philox(key=...) asks the system for entropy first, which takes three times as long.
    """

    def __init__(self, seed: int) -> None:
        self._words = np.array([seed, 0], np.uint64)

    def generate_state(
        self, n_words: int, dtype: DTypeLike = np.uint64
    ) -> NDArray[np.uint64]:
        """Return the two words of the key."""
        assert (n_words, dtype) == (2, np.uint64), "Philox asks for its key"
        return self._words


def raw_words(
    seed: int, purpose: int, first_block: int, blocks: int
) -> NDArray[np.uint64]:
    """Return the raw words of consecutive counter blocks, 4 for each block."""
    counter = np.array([first_block, 0, 0, purpose], np.uint64)
    key = cast("np.random.SeedSequence", _Key(seed))  # what numpy takes as well
    generator = np.random.Philox(key, counter)
    return generator.random_raw(blocks * WORDS_PER_BLOCK)


def blocks_of(words: int) -> int:
    """Return how many whole counter blocks hold that many words."""
    return -(-words // WORDS_PER_BLOCK)


def window_words(seed: int, group: int, count: int, windows: int) -> NDArray[np.uint64]:
    """Return one raw word for each window of consecutive groups.

    Args:
        seed: the segment's.
        group: the first group's index.
        count: groups.
        windows: windows of one group.

    Returns:
        (count, windows); each group starts a counter block of its own.
    """
    blocks = blocks_of(windows)
    words = raw_words(seed, WINDOWS, group * blocks, count * blocks)
    return words.reshape(count, blocks * WORDS_PER_BLOCK)[:, :windows]


class Noise:
    """Random signs for the parts of a model."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        """Lay out the bits of one trial: so many for each part, in this order."""
        self._sizes = dict(sizes)
        self.signs_per_trial = sum(sizes.values())
        self._blocks = blocks_of(-(-self.signs_per_trial // BITS_PER_WORD))

    def signs(self, seed: int, trial: int, count: int) -> Signs:
        """Return the signs of consecutive trials, as float32 -1 and +1.

        Args:
            seed: the segment's.
            trial: the first trial's index.
            count: trials, at least one.

        Returns:
            for each part (count, size).
        """
        return self.signs_of(self.words(seed, trial, count))

    def words(self, seed: int, trial: int, count: int) -> Words:
        """Return the random bits of consecutive trials: (count, words)."""
        words = raw_words(seed, NOISE, trial * self._blocks, count * self._blocks)
        return words.reshape(count, -1)

    def signs_of(self, words: Words, multiple: int = 1) -> Signs:
        """Return the signs that the words of some trials stand for.

        Args:
            words: (trials, words).
            multiple: of columns that parts shall have: columns of the next part follow,
                or of bits that mean nothing, as far as there are any.
        """
        octets = words.astype("<u8", copy=False).view(np.uint8)
        used = octets[:, : -(-self.signs_per_trial // 8)]
        flat = _SIGNS_OF_OCTET.take(used, axis=0, mode="clip").reshape(len(words), -1)
        signs, start = {}, 0
        for name, size in self._sizes.items():
            signs[name] = flat[:, start : start - (-size // multiple * multiple)]
            start += size
        return signs

    def lowered(self, words: Words, part: str, kept: NDArray[np.bool_]) -> Words:
        """Return the words of trials with bits cleared in one part: signs of -1.

        Args:
            words: (trials, words).
            part: whose bits are cleared.
            kept: (groups, size of the part), where the bits of a group's trials stay.
        """
        groups, names = len(kept), list(self._sizes)
        start = sum(self._sizes[name] for name in names[: names.index(part)])
        bits = np.ones((groups, words.shape[1] * BITS_PER_WORD), np.bool_)
        bits[:, start : start + kept.shape[1]] = kept
        mask = np.packbits(bits, axis=1, bitorder="little").view("<u8")
        each = len(words) // groups
        wide = words.reshape(groups, -1) & np.tile(mask, each)  # long rows are fast
        return np.asarray(wide.reshape(words.shape))


def weighted(rewards: Floats, b: Floats) -> Floats:
    """Return each trial's signs times its reward.

    Args:
        rewards: (trials,) integers between -126 and 126 as float32.
        b: (trials, n) signs.
    """
    return np.asarray(np.einsum("ij,i->ij", b, rewards))  # 0.7 of the time of ``*``


def weighted_sum(rewarded: Floats, a: Floats | None = None) -> Floats:
    """Return the sum over trials of reward times ``a b^T``, or times b.

    Rewards are in either of the two. Signs times int8 over at most 2^17 trials stay
    below 2^24, where float32 holds every integer: the products are exact in any order
    of summation, with any BLAS.

    Args:
        rewarded: (trials, n) signs b, times rewards or not.
        a: (trials, m) signs or zeros, times rewards if these are not in b; one column
            of rewards for a vector.

    Returns:
        integers: (m, n), or (n,) without a.
    """
    if a is None:  # a product with ones is faster than a sum over rows
        a = np.ones(len(rewarded), np.float32)
    return np.asarray(a.T @ rewarded)

"""The perturbation of any trial of anybody, from its segment's seed and its index.

Random bits are raw 64-bit words of the counter-based generator Philox. The seed is the
key; the counter depends on the index alone, so the noise of one trial can be made
without that of the others, in any order, on any machine. Raw words are stable across
numpy versions (its distributions are not): bytes little-endian, bits least significant
first, 1 = +1 and 0 = -1, tensors in Layout order, factor ``a`` before factor ``b``.

A matrix of shape (m, n) gets the rank-1 matrix ``a b^T`` of random signs, a vector
random signs: exactly the variance of m n independent signs for m + n of them
(EGGROLL, arXiv 2511.16652, takes Gaussian factors). ``full`` draws all m n signs.

It does not know what a model does with its tensors, nor which text was read.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]

NOISE, WINDOWS = 0, 1  # purpose words: the highest word of the counter
WORDS_PER_BLOCK = 4  # one counter value gives four 64-bit words
BITS_PER_WORD = 64


class Named(Protocol):
    """A tensor as the noise sees it: its name and shape."""

    @property
    def name(self) -> str:
        """Return the name that keys the signs."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (m, n) of a matrix or (n,) of a vector."""
        ...


class RankOne(NamedTuple):
    """Factors of the rank-1 perturbations of one matrix, a row for each trial."""

    a: Floats  # (trials, m)
    b: Floats  # (trials, n)


Signs: TypeAlias = dict[str, Floats | RankOne]  # vectors and full noise: plain arrays


def raw_words(
    seed: int, purpose: int, first_block: int, blocks: int
) -> NDArray[np.uint64]:
    """Return the raw words of consecutive counter blocks, 4 for each block."""
    counter = np.array([first_block, 0, 0, purpose], np.uint64)
    generator = np.random.Philox(key=seed, counter=counter)
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
    """The perturbations of a model's tensors."""

    def __init__(self, tensors: Iterable[Named], *, full: bool) -> None:
        self.tensors = tuple(tensors)
        self.full = full
        self._bits = sum(sum(self._parts(tensor.shape)) for tensor in self.tensors)
        self._blocks = blocks_of(-(-self._bits // BITS_PER_WORD))

    @property
    def signs_per_trial(self) -> int:
        """Return how many random signs one trial takes."""
        return self._bits

    def _parts(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.full or len(shape) == 1:
            return (int(np.prod(shape)),)
        return shape

    def signs(self, seed: int, trial: int, count: int) -> Signs:
        """Return the signs of consecutive trials, as float32 -1 and +1.

        Args:
            seed: the segment's.
            trial: the first trial's index.
            count: trials.

        Returns:
            for each tensor (count, n), `RankOne`, or (count, m, n) where noise is full.
        """
        words = raw_words(seed, NOISE, trial * self._blocks, count * self._blocks)
        octets = words.astype("<u8", copy=False).view(np.uint8).reshape(count, -1)
        bits = np.unpackbits(octets, axis=1, count=self._bits, bitorder="little")
        flat = bits.astype(np.float32)  # (count, bits)
        flat *= 2
        flat -= 1
        return self._split(flat)

    def _split(self, flat: Floats) -> Signs:
        signs: Signs = {}
        start = 0
        for tensor in self.tensors:
            parts = []
            for size in self._parts(tensor.shape):
                parts.append(flat[:, start : start + size])
                start += size
            if len(parts) == 2:
                signs[tensor.name] = RankOne(*parts)
            else:
                signs[tensor.name] = parts[0].reshape(len(flat), *tensor.shape)
        return signs


def weighted_sum(signs: Floats | RankOne, rewards: Floats) -> Floats:
    """Return the sum over trials of reward times perturbation.

    Signs times int8 over at most 2^17 trials stay below 2^24, where float32 holds every
    integer: the products are exact in any order of summation, with any BLAS.

    Args:
        signs: of one tensor.
        rewards: (trials,) integers between -126 and 126 as float32.

    Returns:
        an array of the tensor's shape that holds integers.
    """
    if isinstance(signs, RankOne):
        total: Floats = (signs.a * rewards[:, None]).T @ signs.b  # (m, n)
        return total
    flat = signs.reshape(len(rewards), -1)
    return np.asarray(rewards @ flat).reshape(signs.shape[1:])

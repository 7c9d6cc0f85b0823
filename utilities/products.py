"""The sum over trials of reward times signs: a few products of matrices a chunk.

A tensor that joins two bundles is moved along ``a b^T``, and the sum of ``r a b^T``
over trials is one product. Rewards go into the narrower of the two factors, once for
all tensors that share it; where characters are read, always into the other one.

Noise on the row of a character that a group does not read is 0. Here such signs are -1,
since a bit that is cleared costs less than a float that is multiplied; what that is too
much is the same for all trials of a group, and comes off by a product that is as many
times smaller as a group has trials.

It draws no noise, and does not know which text was read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utilities.model import CHARACTERS, LOGITS, Layout, Tensor, Tokens
from utilities.nodes import Nodes
from utilities.noise import Floats, Noise, Signs, Words, weighted, weighted_sum

MULTIPLE = 4  # of columns: libraries are up to a tenth slower with 67 than with 68


@dataclass(frozen=True)
class Drawn:
    """What chance gave the trials of some groups."""

    words: Words  # (directions, words): the bits of their signs
    read: NDArray[np.bool_] | None = None  # (groups, V) characters; full noise: None
    windows: Tokens | None = None  # (characters + 1, groups, w); full noise: None


def tensor_sums(
    layout: Layout,
    noise: Noise,
    found: Drawn,
    shares: Floats,
    nodes: Nodes | None = None,
) -> Iterator[tuple[Tensor, NDArray[np.floating[Any]]]]:
    """Yield each tensor's sum over the trials of a chunk that have moved it.

    Args:
        layout: of the model.
        noise: of the run.
        found: what was drawn for the chunk.
        shares: rewards of its trials, of two for each direction where the output layer
            has trials of its own.
        nodes: what the step makes of trials; None: sums are of reward times signs.
    """
    if found.read is None or found.windows is None:
        signs = noise.signs_of(found.words)
        for tensor in layout.tensors:
            yield tensor, weighted_sum(signs[tensor.name], shares[:, None])
        return
    inner = outer = shares
    if len(shares) > len(found.words):
        kinds = shares.reshape(len(found.read), 2, -1)
        inner, outer = (np.ascontiguousarray(kinds[:, k]).ravel() for k in (0, 1))
    if nodes is not None:
        signs = noise.signs_of(found.words)
        yield from nodes.sums(found.windows, signs, inner, outer)
        return
    lowered = noise.lowered(found.words, CHARACTERS, found.read)
    signs = noise.signs_of(lowered, MULTIPLE)
    unread = (~found.read).astype(np.float32)
    yield from Products(layout, signs, unread, inner, outer).each()


class Products:
    """The products of one chunk of trials."""

    def __init__(
        self, layout: Layout, signs: Signs, unread: Floats, inner: Floats, outer: Floats
    ) -> None:
        """Prepare; all numbers are integers that float32 holds.

        Args:
            layout: of the model.
            signs: of each bundle, (trials, size); columns beyond are ignored.
            unread: (groups, V) 1 for each character that a group does not read, else 0:
                there all its trials have the sign -1.
            inner: (trials,) rewards for what is not the output layer.
            outer: (trials,) rewards for the output layer.
        """
        self._layout = layout
        self._signs = signs
        self._unread = unread
        self._rewards = inner, outer
        self._known: dict[tuple[str, bool], Floats] = {}

    def each(self) -> Iterator[tuple[Tensor, Floats]]:
        """Yield each tensor's sum."""
        for tensor in self._layout.tensors:
            yield tensor, self._of(tensor)

    def _of(self, tensor: Tensor) -> Floats:
        signs, last = self._signs, tensor.outputs == LOGITS
        columns = tensor.shape[-1]
        if tensor.inputs is None:
            rewards = self._rewards[last][:, None]
            return weighted_sum(signs[tensor.outputs], rewards)[:, :columns]
        rows = tensor.shape[0]
        if tensor.inputs == CHARACTERS:
            rewarded = self._rewarded(tensor.outputs, last=last)
            product = weighted_sum(rewarded, signs[CHARACTERS])[:rows]
            every = summed_by_group(rewarded, len(self._unread))
            product += weighted_sum(every, self._unread)
        elif rows < columns:  # this way round, since it is the faster one
            rewarded = self._rewarded(tensor.inputs, last=last)
            product = weighted_sum(rewarded, signs[tensor.outputs]).T[:rows]
        else:
            rewarded = self._rewarded(tensor.outputs, last=last)
            product = weighted_sum(rewarded, signs[tensor.inputs])[:rows]
        return product[:, :columns]

    def _rewarded(self, name: str, *, last: bool) -> Floats:
        """Return a bundle's signs times rewards."""
        if (name, last) not in self._known:
            rewarded = weighted(self._rewards[last], self._signs[name])
            self._known[name, last] = rewarded
        return self._known[name, last]


def summed_by_group(rows: Floats, groups: int) -> Floats:
    """Return the sum of each group's rows: (groups, n).

    Halves are added to halves as long as that goes: rows of many numbers are fast.

    Args:
        rows: (trials, n) integers, the same number of trials in each group.
        groups: how many there are.
    """
    size, wide = rows.shape[1], rows.reshape(groups, -1)
    while wide.shape[1] % (2 * size) == 0:
        half = wide.shape[1] // 2
        wide = wide[:, :half] + wide[:, half:]
    return np.asarray(wide.reshape(groups, -1, size).sum(axis=1))

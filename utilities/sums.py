"""What a sum of somebody's trials must be like, known without computing it.

The sum over a client's trials of reward times signs, S = sum r e, is checked
before it counts. Signs e are -1 or +1, therefore each entry is bounded by sum |r| and
even or odd as that is. A row of a matrix that reads characters takes part only in the
trials whose group read that character, so its bound is over these alone. Where the
output layer has trials of its own, its bound is over those, all others over the rest.

Where trials are taken as of nodes (`utilities.nodes`), each place of a group adds an
integer of at most `nodes.MOST` to a bias, as much to the row of the character that is
read there, and `nodes.TOP` times as much to what reads a state. Such sums are odd or
even as they like; but the rows of the characters add up to the bias beside them.
What passes may still be wrong, but it cannot do more than other rewards of the same
size could.

All bounds of a step are made together: a thousand clients take milliseconds.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from utilities.errors import ProtocolError
from utilities.evolution import (
    Segment,
    Setting,
    Totals,
    characters_read,
    chunks,
    windows_of,
)
from utilities.model import CHARACTERS, Tokens
from utilities.nodes import MOST, TOP
from utilities.rewards import Rewards

NUMBERS = 1 << 20  # tokens or marks of one table while bounds are made: some megabytes


@dataclass(frozen=True)
class Part:
    """Trials of one step that are added up together."""

    segments: tuple[Segment, ...]
    rewards: Rewards = field(repr=False)  # of all trials, in the order of segments

    @property
    def trials(self) -> int:
        """Return how many they are."""
        return len(self.rewards)


@dataclass(frozen=True)
class Bound:
    """The largest sum that a part can have; the sum is as odd or even as this.

    By nodes the largest sum is `MOST` times this, and `TOP` times that of what reads a
    state; these numbers are of places then, in groups with any reward.
    """

    most: int  # of any other weight: sum |r|; by nodes of what reads no state
    rows: NDArray[np.int64] | None = field(repr=False)  # (V,) of what reads characters
    outputs: int | None = None  # of the output layer, where it has trials of its own


def largest(rewards: Rewards) -> int:
    """Return the largest sum that these rewards can give: sum |r|."""
    return int(np.abs(rewards, dtype=np.int64).sum())


def largest_each(rewards: Sequence[Rewards]) -> list[int]:
    """Return the largest sum that each of several can give: none of them is empty."""
    sizes = np.abs(np.concatenate(rewards), dtype=np.int64)
    firsts = np.cumsum([0, *map(len, rewards[:-1])])
    return [int(size) for size in np.add.reduceat(sizes, firsts)]


def narrowed(total: Totals) -> Totals:
    """Return a sum in the narrowest integers that hold it: (P,), at least one weight.

    Signs cancel out: int16 holds most sums of thousands of trials.
    """
    return total.astype(_narrowest(max(int(total.max()), -int(total.min()))))


def _narrowest(most: int) -> type[np.signedinteger[Any]]:
    """Return int16, int32 or int64, the first that holds a number and its negative."""
    kinds = (np.int16, np.int32)
    return next((kind for kind in kinds if most <= np.iinfo(kind).max), np.int64)


def bounds(setting: Setting, tokens: Tokens, parts: Sequence[Part]) -> list[Bound]:
    """Return the bound of each part.

    Args:
        setting: of the run.
        tokens: that the trials were scored on.
        parts: at least one.
    """
    if setting.full:  # every weight has a sign in every trial
        return [Bound(largest(part.rewards), None) for part in parts]
    each = setting.config.trials_per_group
    flat = np.concatenate([part.rewards for part in parts])
    groups, outer = _sizes(setting, flat)
    sizes = [part.trials // each for part in parts]
    owners = np.repeat(np.arange(len(parts)), sizes)
    rows = np.zeros((len(parts), setting.layout.vocab_size), np.int64)
    start = 0
    for read in _characters_read(setting, tokens, parts):  # (n, V)
        end = start + len(read)
        mine, first = np.unique(owners[start:end], return_index=True)
        weighted = read * groups[start:end, None]
        rows[mine] += np.add.reduceat(weighted, first, axis=0)
        start = end
    firsts = np.cumsum([0, *sizes[:-1]])
    places = setting.config.places if setting.by_nodes else 1
    most, outputs = (
        (places * np.add.reduceat(size, firsts)).tolist() for size in (groups, outer)
    )
    apart = outputs if setting.splits else [None] * len(parts)
    return [Bound(*bound) for bound in zip(most, rows, apart, strict=True)]


def _sizes(
    setting: Setting, rewards: Rewards
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sum |r| of each group, before the output layer and of it.

    By nodes 1 for each group with any reward, else 0.
    """
    kinds = 2 if setting.splits else 1
    each = setting.config.trials_per_group // kinds
    sizes = np.abs(rewards, dtype=np.int64).reshape(-1, kinds, each).sum(axis=2)
    if setting.by_nodes:
        sizes = (sizes > 0).astype(np.int64)
    return sizes[:, 0], sizes[:, -1]


def _characters_read(
    setting: Setting, tokens: Tokens, parts: Sequence[Part]
) -> Iterator[NDArray[np.int64]]:
    """Yield 1 for each character that a group reads, by nodes how often: (n, V)."""
    config, size = setting.config, setting.layout.vocab_size
    tokens_read = (config.window_length + 1) * config.batch_size
    most = max(1, NUMBERS // max(size, tokens_read))
    segments = [segment for part in parts for segment in part.segments]
    for chunk in chunks(segments, most):
        windows = windows_of(setting, tokens, *chunk)[config.before :]
        if setting.by_nodes:
            yield characters_counted(windows, size)
        else:
            yield characters_read(windows, size).astype(np.int64)


def characters_counted(windows: Tokens, vocabulary: int) -> NDArray[np.int64]:
    """Return how often a group reads each character: (groups, V).

    Args:
        windows: (characters + 1, groups, w); the last one is not read.
        vocabulary: V.
    """
    groups = windows.shape[1]
    places = windows[:-1] + vocabulary * np.arange(groups)[:, None]
    counts = np.bincount(places.ravel(), minlength=groups * vocabulary)
    return counts.reshape(groups, vocabulary)


def check(setting: Setting, total: Totals, bound: Bound) -> None:
    """Hold a sum against what it can be.

    Raises:
        ProtocolError: it has another length, is too large, or odd where it cannot be.
    """
    size = setting.layout.size
    if len(total) != size:
        raise ProtocolError(f"sum: expected {size} numbers, got {len(total)}")
    highest = max(bound.most, bound.outputs or 0)
    highest *= MOST * TOP if setting.by_nodes else 1
    if highest > np.iinfo(total.dtype).max:
        total = total.astype(_narrowest(highest))
    limits = _limits(setting, bound, total.dtype)
    # Of the lowest integer that there is the magnitude is itself; without a sign it is
    # beyond all limits, as it should be.
    unsigned = total.dtype.str.replace("i", "u")
    if (np.abs(total).view(unsigned) > limits.view(unsigned)).any():
        raise ProtocolError("sum: larger than the rewards of its trials allow")
    if setting.by_nodes:
        _check_rows(setting, total)
    elif int(np.bitwise_or.reduce(total ^ limits)) & 1:  # differ in the lowest bit
        raise ProtocolError("sum: odd where the rewards of its trials are even")


def _check_rows(setting: Setting, total: Totals) -> None:
    """Hold the rows of characters against the bias: at each place one is read."""
    rows, bias = (
        total[t.start : t.start + t.size].reshape(t.shape)
        for t in setting.layout.tensors
        if t.name in ("Wx0", "b0")
    )
    if (rows.sum(axis=0, dtype=np.int64) != bias).any():
        raise ProtocolError("sum: rows of characters do not add up to the bias")


def _limits(setting: Setting, bound: Bound, dtype: np.dtype[Any]) -> Totals:
    """Return the largest sum of each weight: (P,)."""
    layout = setting.layout
    limits = np.empty(layout.size, dtype)
    limits.fill(bound.most)
    if bound.outputs is not None:
        start = layout.tensors[-2].start  # the output matrix; its bias is last
        limits[start:] = bound.outputs
    if bound.rows is not None:
        first = layout.tensors[0]
        assert first.inputs == CHARACTERS, "no other tensor reads characters"
        rows = bound.rows.astype(dtype)[:, None]
        limits[: first.size].reshape(first.shape)[...] = rows
    if setting.by_nodes:
        limits *= MOST
        for t in layout.tensors:
            if layout.state_read(t) is not None:
                limits[t.start : t.start + t.size] *= TOP
    return limits


def cosine(one: Totals, other: Totals) -> float | None:
    """Return the cosine between two sums, None where one of them is zero.

    Of the two halves of a step's trials it says how much of the gradient is signal: 1
    without any noise, about 0 where noise is all there is.
    """
    x, y = one.astype(np.float64), other.astype(np.float64)
    norm = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / norm if norm else None

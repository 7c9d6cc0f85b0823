"""Evolution strategies as pure functions: losses -> rewards -> the next state, exactly.

One step of Salimans et al. 2017 with rank-1 signs (EGGROLL, arXiv 2511.16652):

    d = L(w + sigma e) - L(w)                      for each trial          `score`
    r = -round(42 clip((d - median) / (1.4826 MAD), -3, 3))   an int8      `rewards`
    G = sum r e                                    an integer a weight     `total`
    g = float32(-R^T G / (42 sqrt(1024 N)))        then Adam               `advance`

Here e are the signs as they are drawn, or what all trials of a window together tell of
it (`utilities.nodes`), in units that are divided out again. Where a matrix reads a
layer's state R shapes them (`utilities.whitening`), else it is the unit matrix. Weights
of each kind have a unit of their own, in which sigma and the rate are meant
(`model.Scales`).

Losses are minimised, rewards maximised. `total` is exact whatever the order, BLAS or
number of threads, so is R, and the optimizer uses correctly rounded operations only,
therefore all replicas that apply the same `Update` hold the same bits for ever.

It knows no clients, messages, files or clocks.
"""

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.config import Config
from utilities.data import gather_windows, window_starts
from utilities.misc import sha256
from utilities.model import (
    CHARACTERS,
    Layout,
    Moments,
    Network,
    Tokens,
    adam,
    averaged,
    initial_weights,
    sgd,
)
from utilities.nodes import Nodes, units
from utilities.noise import Floats, Noise, Signs, Words, window_words
from utilities.products import Drawn, tensor_sums
from utilities.rewards import REWARD_SCALE, Rewards
from utilities.whitening import (
    Doubles,
    Whiteners,
    preconditioned,
    whiteners,
)

Totals: TypeAlias = NDArray[np.signedinteger[Any]]  # int16, 32 or 64, one a weight

DIGEST_VERSION = 1
WORST_LOSS = 100.0  # nats per character; what is beyond is a broken machine
EXACT_TRIALS = 1 << 17  # 126 * 2^17 < 2^24: float32 still holds every sum
CHUNK_FLOATS = 1 << 20  # 4 MB of signs at a time: they stay in the cache
ROWS = 1024  # of one forward batch, beside whose products calls cost little
FEW_ROWS = 512  # where the time or the clients of a step ask for more batches
NARROW = 192  # sums that lead into the layers of a model, at most


@dataclass(frozen=True, order=True)
class Segment:
    """Consecutive groups of trials that share one seed."""

    seed: int  # 64 bits
    first: int  # index of the first group
    groups: int


@dataclass(frozen=True)
class Setting:
    """What all replicas of a run agree on and never change."""

    config: Config
    text_sha256: str

    @cached_property
    def layout(self) -> Layout:
        """Return where the weights lie."""
        return Layout(self.config)

    @cached_property
    def network(self) -> Network:
        """Return the computation of the model."""
        return Network(self.layout)

    @property
    def full(self) -> bool:
        """Return whether every weight has a sign of its own."""
        return self.config.noise == "full"

    @cached_property
    def noise(self) -> Noise:
        """Return the random signs of the model's bundles, or of its tensors."""
        if self.full:
            return Noise({t.name: t.size for t in self.layout.tensors})
        return Noise(self.layout.bundles)

    @cached_property
    def written(self) -> frozenset[str]:
        """Return the parts of the noise that tensors write to."""
        tensors = self.layout.tensors
        return frozenset(t.name if self.full else t.outputs for t in tensors)

    def whiteners(self, weights: Floats, tokens: Tokens) -> Whiteners:
        """Return what shapes a step's noise; nothing where it is not shaped.

        Args:
            weights: (P,) before the step.
            tokens: the step's batch.
        """
        return whiteners(self.layout, weights, tokens) if self.config.whitens else ()

    @property
    def by_nodes(self) -> bool:
        """Return whether what trials tell is taken as of sums, not of weights."""
        return self.config.by_nodes

    @cached_property
    def units(self) -> Doubles | None:
        """Return what totals are divided by, (P,), None for 1."""
        if not self.by_nodes:
            return None
        return units(self.layout, self.config.passes_per_group)

    def nodes(self, weights: Floats, shaped: Whiteners) -> Nodes | None:
        """Return what makes totals of a step's trials, None where they are plain sums.

        Args:
            weights: (P,) before the step.
            shaped: what shapes its noise.
        """
        if not self.by_nodes:
            return None
        config = self.config
        about = self.layout, weights, shaped, config.before, config.passes_per_group
        return Nodes(*about)

    @cached_property
    def fingerprint(self) -> bytes:
        """Return the configuration hash that digests cover."""
        return self.config.fingerprint(self.text_sha256)

    @property
    def splits(self) -> bool:
        """Return whether the output layer has trials of its own."""
        return self.config.splits

    @cached_property
    def block_groups(self) -> int:
        """Return how many groups make one forward batch, or one of a step's blocks.

        A batch of a wide model takes long, and a client scores one in any step.
        A group has two rows at least: both sides of a pair, or one beside the clean.
        """
        config, layout = self.config, self.layout
        narrow = layout.width * layout.n_layers <= NARROW
        rows = ROWS if narrow and config.trials_per_step is None else FEW_ROWS
        return max(1, rows // (max(2, config.passes_per_group) * config.batch_size))


@dataclass(frozen=True)
class TrainState:
    """Weights, moments and mean between two steps; arrays are read-only."""

    step: int
    count: int  # updates applied: Adam's t
    weights: Floats
    first: Floats
    second: Floats
    average: Floats = field(default_factory=lambda: np.zeros(0, np.float32))

    def __post_init__(self) -> None:
        for array in self.arrays:
            array.flags.writeable = False

    @property
    def arrays(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Return weights, first and second moment, mean: empty where none is kept."""
        return self.weights, self.first, self.second, self.average

    @property
    def trained(self) -> Floats:
        """Return the weights that are to be used: their mean, where it is kept."""
        return self.average if len(self.average) else self.weights

    def fits(self, setting: "Setting") -> bool:
        """Return whether all arrays are as long as the model asks for."""
        size = setting.layout.size
        mean = size if setting.config.averages else 0
        return [len(array) for array in self.arrays] == [size, size, size, mean]

    def digest(self, fingerprint: bytes) -> bytes:
        """Return the SHA-256 that two equal replicas share."""
        head = struct.pack(
            "<Q32sQQ", DIGEST_VERSION, fingerprint, self.step, self.count
        )
        little = (np.ascontiguousarray(array, "<f4") for array in self.arrays)
        return sha256(head, *(array.data for array in little))


@dataclass(frozen=True)
class Update:
    """All that turns the state of one step into the next.

    Either the trials with their rewards, from which every replica computes the same
    total, or that total itself, which the clients have summed up.
    """

    step: int
    token_batch: int
    trials: int  # N accepted; 0: nothing but the step's number advances
    rate: float
    segments: tuple[Segment, ...]  # ascending; none where the total is given
    rewards: Rewards = field(repr=False)  # of all trials, in the order of segments
    total: Totals = field(default_factory=lambda: np.zeros(0, np.int32), repr=False)

    @property
    def summed(self) -> bool:
        """Return whether the total is given."""
        return len(self.total) > 0


def trials_of(setting: Setting, segments: tuple[Segment, ...]) -> int:
    """Return how many trials segments have."""
    return sum(s.groups for s in segments) * setting.config.trials_per_group


def initial_state(setting: Setting, seed: int, log_frequencies: Floats) -> TrainState:
    """Return the state that a run starts from."""
    weights = initial_weights(setting.layout, seed, log_frequencies)
    zeros = np.zeros_like(weights)
    average = weights.copy() if setting.config.averages else zeros[:0].copy()
    arrays = weights, zeros, zeros.copy(), average
    return TrainState(setting.config.step_num, 0, *arrays)


def segment_seed(run_seed: int, step: int, slot: int) -> int:
    """Return the seed of a slot; without the run's seed nobody can guess it."""
    return int.from_bytes(
        sha256(struct.pack("<QQQ", run_seed, step, slot))[:8], "little"
    )


# Scoring: what a client computes.


@dataclass(frozen=True)
class Scores:
    """Losses of the trials of consecutive groups, nats per character."""

    losses: Floats  # (groups * K,); antithetic pairs: (groups * 2,), L+ before L-
    clean: Floats  # (groups,); antithetic pairs: (0,)


Draw: TypeAlias = Callable[[Setting, Tokens, Sequence[Segment]], Drawn]


def windows_of(setting: Setting, tokens: Tokens, *segments: Segment) -> Tokens:
    """Return the text that the groups read: (characters + 1, groups, windows).

    First what the clean weights read before a window, then the window.
    """
    length, count = setting.config.window_length, setting.config.batch_size
    words = [window_words(s.seed, s.first, s.groups, count) for s in segments]
    starts = window_starts(np.concatenate(words).ravel(), len(tokens), length)
    windows: Tokens = gather_windows(tokens, starts, length)
    return windows.reshape(length + 1, -1, count)


def words_of(setting: Setting, segment: Segment) -> Words:
    """Return the random bits of a segment's directions: (directions, words)."""
    each = setting.config.passes_per_group
    directions = segment.first * each, segment.groups * each
    return setting.noise.words(segment.seed, *directions)


def signs_of(setting: Setting, found: Drawn) -> Signs:
    """Return the signs of some groups' directions, unread characters silenced.

    Where the output layer has trials of its own, two trials share a direction.
    Noise on the row of a character that no window of the group reads cannot have
    caused its loss, so its sign becomes 0: the estimate stays unbiased and varies less.
    Full noise, which is for comparison, is left as it is.
    """
    signs, read = setting.noise.signs_of(found.words), found.read
    if read is not None:
        a = signs[CHARACTERS].reshape(*(len(read), -1), read.shape[1])
        a *= read[:, None, :]
    return signs


def characters_read(windows: Tokens, vocabulary: int) -> Floats:
    """Return 1 for each character that a group reads, else 0: (groups, V)."""
    groups = windows.shape[1]
    read = np.zeros((groups, vocabulary), np.float32)
    read[np.arange(groups)[None, :, None], windows[:-1]] = 1
    return read


# The update: what every replica computes, to the bit.


def pieces(segments: Iterable[Segment], groups: int) -> Iterator[Segment]:
    """Cut segments into pieces of at most that many groups."""
    for segment in segments:
        for offset in range(0, segment.groups, groups):
            size = min(groups, segment.groups - offset)
            yield Segment(segment.seed, segment.first + offset, size)


def chunks(segments: Iterable[Segment], groups: int) -> Iterator[list[Segment]]:
    """Put pieces together that have at most that many groups, in their order."""
    chunk: list[Segment] = []
    room = groups
    for piece in pieces(segments, groups):
        if piece.groups > room:
            yield chunk
            chunk, room = [], groups
        chunk.append(piece)
        room -= piece.groups
    if chunk:
        yield chunk


def chunk_groups(setting: Setting) -> int:
    """Return how many groups are added up at once: exact, and small enough."""
    each = setting.config.passes_per_group
    passes = min(EXACT_TRIALS, max(1, CHUNK_FLOATS // setting.noise.signs_per_trial))
    groups = passes // each
    if setting.by_nodes:
        places, layout = setting.config.places, setting.layout
        floats = places * (places + each + layout.hidden_size + layout.width)
        groups = min(groups, CHUNK_FLOATS // floats)
    return max(1, groups)


def total(
    setting: Setting,
    nodes: Nodes | None,
    tokens: Tokens,
    segments: Iterable[Segment],
    rewards: Rewards,
    groups: int | None = None,
    draw: Draw | None = None,
) -> NDArray[np.int64]:
    """Return the sum over all trials of reward times signs, or of what groups tell.

    Args:
        setting: of the run.
        nodes: of the step, see `Setting.nodes`.
        tokens: that the trials were scored on.
        segments: the trials.
        rewards: of the trials, in the order of segments.
        groups: of one chunk, at most `chunk_groups`; any gives the same integers.
        draw: gives what was drawn for segments; None: `drawn`, from their seeds.

    Returns:
        (P,) integers.
    """
    each = setting.config.trials_per_group
    weights = rewards.astype(np.float32)
    result = np.zeros(setting.layout.size, np.int64)
    start, draw = 0, draw or drawn
    for chunk in chunks(segments, groups or chunk_groups(setting)):
        trials = sum(piece.groups for piece in chunk) * each
        share = weights[start : start + trials]
        start += trials
        found = draw(setting, tokens, chunk)
        about = setting.layout, setting.noise, found, share, nodes
        for t, part in tensor_sums(*about):
            result[t.start : t.start + t.size] += part.ravel().astype(np.int64)
    return result


def nodes_of(setting: Setting, weights: Floats, tokens: Tokens) -> Nodes | None:
    """Return what makes totals of a step's trials, None where they are plain sums."""
    if not setting.by_nodes:
        return None
    return setting.nodes(weights, setting.whiteners(weights, tokens))


def drawn(setting: Setting, tokens: Tokens, segments: Sequence[Segment]) -> Drawn:
    """Return what was drawn for some segments, from their seeds."""
    return drawn_for(setting, windows_of(setting, tokens, *segments), *segments)


def drawn_for(setting: Setting, windows: Tokens, *segments: Segment) -> Drawn:
    """Return the same where the windows of the segments are at hand."""
    words = np.concatenate([words_of(setting, segment) for segment in segments])
    if setting.full:
        return Drawn(words)
    read = characters_read(windows[setting.config.before :], setting.layout.vocab_size)
    return Drawn(words, read > 0, windows)


def halves(
    setting: Setting, segments: Iterable[Segment], shaped: Rewards
) -> tuple[tuple[list[Segment], Rewards], tuple[list[Segment], Rewards]]:
    """Cut every segment in two: two samples of one gradient, of equal size.

    A group is not cut, because its trials share their text. Of odd numbers of groups
    the odd one goes to either side in turn, so that the sides differ by one at most.

    Returns:
        segments and rewards of the first groups, and of the others.
    """
    each = setting.config.trials_per_group
    parts: tuple[list[Segment], list[Segment]] = ([], [])
    cut: tuple[list[Rewards], list[Rewards]] = ([], [])
    start, odd = 0, 1
    for seed, first, groups in ((s.seed, s.first, s.groups) for s in segments):
        middle = (groups + odd) // 2
        odd ^= groups % 2
        for side, begin, end in ((0, 0, middle), (1, middle, groups)):
            if end > begin:
                parts[side].append(Segment(seed, first + begin, end - begin))
                cut[side].append(shaped[start + begin * each : start + end * each])
        start += groups * each
    nothing = np.zeros(0, np.int8)
    one, other = (np.concatenate([nothing, *rewards]) for rewards in cut)
    return (parts[0], one), (parts[1], other)


def advance(
    setting: Setting, state: TrainState, update: Update, tokens: Tokens
) -> TrainState:
    """Return the state after an update; equal inputs give equal bits everywhere.

    Args:
        setting: of the run.
        state: at the update's step.
        update: of that step.
        tokens: the batch that the update names.
    """
    shaped = setting.whiteners(state.weights, tokens) if update.trials else ()
    sums = update.total
    if update.trials and not update.summed:
        nodes = setting.nodes(state.weights, shaped)
        sums = total(setting, nodes, tokens, update.segments, update.rewards)
    return apply(setting, state, update, sums, shaped)


def apply(
    setting: Setting,
    state: TrainState,
    update: Update,
    sums: Totals,
    shaped: Whiteners,
) -> TrainState:
    """Return the state after an update whose total is known.

    Args:
        setting: of the run.
        state: at the update's step.
        update: of that step.
        sums: (P,) the `total` of its trials.
        shaped: what shaped the noise of this step.
    """
    assert state.step == update.step, (state.step, update.step)
    if update.trials == 0:
        return TrainState(state.step + 1, state.count, *state.arrays)
    scale = REWARD_SCALE * math.sqrt(1024 * update.trials)
    gradient = (-_summed(setting, sums, shaped) / scale).astype(np.float32)
    config, count = setting.config, state.count + 1
    rates = np.float32(update.rate) * setting.layout.units
    if config.optimizer == "sgd":
        weights = sgd(state.weights, gradient, rates)
        arrays = weights, state.first, state.second
    else:
        before = Moments(state.first, state.second)
        about = state.weights, before, gradient, rates, count, config
        weights, moments = adam(*about)
        arrays = weights, moments.first, moments.second
    average = state.average
    if len(average):
        average = averaged(average, weights, count)
    return TrainState(state.step + 1, count, *arrays, average)


def _summed(setting: Setting, sums: Totals, shaped: Whiteners) -> NDArray[np.float64]:
    """Return the sum of reward times perturbation, in its own units, of a total."""
    result = sums.astype(np.float64)
    for t in setting.layout.tensors:
        layer = setting.layout.state_read(t)
        if layer is None:
            continue
        part = slice(t.start, t.start + t.size)
        if shaped:
            matrix = sums[part].astype(np.int64).reshape(t.shape)
            result[part] = preconditioned(matrix, shaped[layer]).ravel()
    if setting.units is not None:
        result /= setting.units
    return result

"""Evolution strategies as pure functions: losses -> rewards -> the next state, exactly.

One step of Salimans et al. 2017 with rank-1 signs (EGGROLL, arXiv 2511.16652):

    d = L(w + sigma e) - L(w)                      for each trial          `score`
    r = -round(42 clip((d - median) / (1.4826 MAD), -3, 3))   an int8      `rewards`
    G = sum r e                                    an integer a weight     `total`
    g = float32(-G / (42 sqrt(1024 N)))            then Adam               `advance`

Losses are minimised, rewards maximised. `total` is exact whatever the order, BLAS or
number of threads, and the optimizer uses correctly rounded operations only, therefore
all replicas that apply the same `Update` hold the same bits for ever.

It knows no clients, messages, files or clocks.
"""

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from utilities.config import Config
from utilities.data import gather_windows, window_starts
from utilities.misc import sha256
from utilities.model import (
    CHARACTERS,
    Clean,
    Dense,
    Layout,
    Moments,
    Network,
    Tokens,
    adam,
    initial_weights,
    sgd,
)
from utilities.noise import Floats, Noise, Signs, weighted_sum, window_words
from utilities.population import Population

Rewards: TypeAlias = NDArray[np.int8]

DIGEST_VERSION = 1
REWARD_SCALE = 42  # three deviations fill an int8: 126
REWARD_CLIP = 3.0
MAD_TO_DEVIATION = 1.4826  # of a normal distribution (Rousseeuw and Croux 1993)
WORST_LOSS = 100.0  # nats per character; what is beyond is a broken machine
EXACT_TRIALS = 1 << 17  # 126 * 2^17 < 2^24: float32 still holds every sum
CHUNK_FLOATS = 1 << 20  # 4 MB of signs at a time: they stay in the cache
BLOCK_ROWS = 512  # rows of one forward batch: enough for the matrix product


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
    def fingerprint(self) -> bytes:
        """Return the configuration hash that digests cover."""
        return self.config.fingerprint(self.text_sha256)

    @property
    def block_groups(self) -> int:
        """Return how many groups make one forward batch."""
        rows = self.config.trials_per_group * self.config.batch_size
        return max(1, BLOCK_ROWS // rows)


@dataclass(frozen=True)
class TrainState:
    """Weights and moments between two steps; arrays are read-only."""

    step: int
    count: int  # updates applied: Adam's t
    weights: Floats
    first: Floats
    second: Floats

    def __post_init__(self) -> None:
        for array in self.arrays:
            array.flags.writeable = False

    @property
    def arrays(self) -> tuple[Floats, Floats, Floats]:
        """Return weights, first and second moment."""
        return self.weights, self.first, self.second

    def digest(self, fingerprint: bytes) -> bytes:
        """Return the SHA-256 that two equal replicas share."""
        head = struct.pack(
            "<Q32sQQ", DIGEST_VERSION, fingerprint, self.step, self.count
        )
        little = (np.ascontiguousarray(array, "<f4") for array in self.arrays)
        return sha256(head, *(array.data for array in little))


@dataclass(frozen=True)
class Update:
    """All that turns the state of one step into the next."""

    step: int
    token_batch: int
    trials: int  # N accepted; 0: nothing but the step's number advances
    rate: float
    segments: tuple[Segment, ...]  # ascending
    rewards: Rewards = field(repr=False)  # of all trials, in the order of segments


def initial_state(setting: Setting, seed: int, log_frequencies: Floats) -> TrainState:
    """Return the state that a run starts from."""
    weights = initial_weights(setting.layout, seed, log_frequencies)
    zeros = np.zeros_like(weights)
    return TrainState(setting.config.step_num, 0, weights, zeros, zeros.copy())


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


def windows_of(setting: Setting, tokens: Tokens, segment: Segment) -> Tokens:
    """Return the text that the groups are scored on: (T + 1, groups, windows)."""
    config = setting.config
    words = window_words(segment.seed, segment.first, segment.groups, config.batch_size)
    starts = window_starts(words.ravel(), len(tokens), config.sequence_length)
    flat = gather_windows(tokens, starts, config.sequence_length)
    windows: Tokens = flat.reshape(-1, segment.groups, config.batch_size)
    return windows


def signs_of(setting: Setting, windows: Tokens, segment: Segment) -> Signs:
    """Return the signs of a segment's trials, unread characters silenced.

    Noise on the row of a character that no window of the group reads cannot have
    caused its loss, so its sign becomes 0: the estimate stays unbiased and varies less.
    Full noise, which is for comparison, is left as it is.
    """
    each = setting.config.trials_per_group
    signs = setting.noise.signs(
        segment.seed, segment.first * each, segment.groups * each
    )
    if not setting.full:
        a = signs[CHARACTERS].reshape(segment.groups, each, -1)
        a *= characters_read(windows, setting.layout.vocab_size)[:, None, :]
    return signs


def characters_read(windows: Tokens, vocabulary: int) -> Floats:
    """Return 1 for each character that a group reads, else 0: (groups, V)."""
    groups = windows.shape[1]
    read = np.zeros((groups, vocabulary), np.float32)
    read[np.arange(groups)[None, :, None], windows[:-1]] = 1
    return read


def score(
    setting: Setting, weights: Floats, tokens: Tokens, segment: Segment
) -> Scores:
    """Return the losses of a segment's trials, in one forward batch."""
    windows = windows_of(setting, tokens, segment)
    signs = signs_of(setting, windows, segment)
    score_signs = _score_full if setting.full else _score_low_rank
    losses = score_signs(setting, weights, windows, signs)  # (groups, copies)
    if setting.config.directions_per_window:
        return Scores(losses[:, :-1].ravel(), losses[:, -1].copy())
    return Scores(losses.ravel(), np.zeros(0, np.float32))


def _score_low_rank(
    setting: Setting, weights: Floats, windows: Tokens, signs: Signs
) -> Floats:
    """Return losses of each group's trials and clean weights, or of both sides."""
    groups, each = windows.shape[1], setting.config.trials_per_group
    written = {tensor.outputs for tensor in setting.layout.tensors}
    copies = {}
    for name, e in signs.items():
        copies[name] = np.zeros((groups, each + 1, e.shape[1]), np.float32)
        copies[name][:, :each] = e.reshape(groups, each, -1)
        if setting.config.directions_per_window == 0:  # a b^T and a (-b)^T
            copies[name][:, 1] = -e if name in written else e
    sigma = setting.config.sigma
    population = Population(setting.layout, weights, copies, sigma, windows, each + 1)
    return population.losses()


def _score_full(
    setting: Setting, weights: Floats, windows: Tokens, signs: Signs
) -> Floats:
    """Return the same as `_score_low_rank`, by a product for each trial."""
    config, views = setting.config, setting.layout.views(weights)
    groups, each = windows.shape[1], config.trials_per_group
    shapes = {t.name: t.shape for t in setting.layout.tensors}
    noise = {name: e.reshape(len(e), *shapes[name]) for name, e in signs.items()}
    losses = setting.network.losses
    repeated = np.repeat(windows, each, axis=1)
    plus = losses(Dense(views, noise, config.sigma), repeated).reshape(groups, each)
    if config.directions_per_window:
        other = losses(Clean(views), windows)
    else:
        other = losses(Dense(views, noise, -config.sigma), repeated)
    return np.column_stack([plus, other])


def clean_loss(setting: Setting, weights: Floats, rows: Iterable[Tokens]) -> float:
    """Return the mean loss of unperturbed weights on rows of text.

    Args:
        setting: of the run.
        weights: (P,).
        rows: arrays (T + 1, n) of tokens, each row from a zero state.
    """
    clean = Clean(setting.layout.views(weights))
    total, characters = 0.0, 0
    for array in rows:
        losses = setting.network.losses(clean, array[:, :, None])
        size = (len(array) - 1) * array.shape[1]
        total += float(losses.mean(dtype=np.float64)) * size
        characters += size
    return total / characters


# Rewards: what the server computes.


def usable(scores: Scores) -> bool:
    """Return whether all losses are finite and believable."""
    return all(
        bool(np.all(np.abs(losses) <= WORST_LOSS))  # NaN compares false
        for losses in (scores.losses, scores.clean)
    )


def differences(setting: Setting, scores: Scores) -> NDArray[np.float64]:
    """Return each trial's change of loss: against the clean pass, or half a pair's."""
    losses = scores.losses.astype(np.float64)
    if setting.config.directions_per_window:
        return losses - np.repeat(scores.clean, setting.config.directions_per_window)
    pairs = losses.reshape(-1, 2)
    half: NDArray[np.float64] = (pairs[:, 0] - pairs[:, 1]) / 2
    return half


def mean_loss(setting: Setting, scores: Sequence[Scores]) -> float | None:
    """Return the mean loss of the weights themselves, or of the pairs around them."""
    if not scores:
        return None
    shared = setting.config.directions_per_window > 0
    every = np.concatenate([s.clean if shared else s.losses for s in scores])
    return float(every.mean(dtype=np.float64))


def rewards(changes: NDArray[np.float64]) -> Rewards | None:
    """Return an int8 for each change of loss, positive for better.

    Median and MAD: with mean and deviation one wild loss among a thousand would
    silence all others.

    Returns:
        integers in [-126, 126]; None where the changes do not differ (MAD 0).
    """
    centred = changes - np.median(changes)
    deviation = MAD_TO_DEVIATION * float(np.median(np.abs(centred)))
    if deviation == 0:
        return None
    clipped = np.clip(centred / deviation, -REWARD_CLIP, REWARD_CLIP)
    return (-np.rint(clipped * REWARD_SCALE)).astype(np.int8)


def shape(
    setting: Setting,
    step: int,
    token_batch: int,
    scored: Sequence[tuple[Segment, Scores]],
    seconds: float,
) -> Update:
    """Return the update of a step from all usable losses.

    Args:
        setting: of the run.
        step: that was scored.
        token_batch: number of the text that it was scored on.
        scored: segments and their losses, in any order; equal inputs in another order
            give the same update.
        seconds: that the run has trained, for a decay over time.
    """
    ordered = sorted(scored, key=lambda pair: pair[0])
    changes = [differences(setting, scores) for _, scores in ordered]
    shaped = rewards(np.concatenate(changes)) if changes else None
    if shaped is None:
        return Update(step, token_batch, 0, 0.0, (), np.zeros(0, np.int8))
    rate = setting.config.rate(len(shaped), step, seconds)
    segments = tuple(segment for segment, _ in ordered)
    return Update(step, token_batch, len(shaped), rate, segments, shaped)


# The update: what every replica computes, to the bit.


def pieces(segments: Iterable[Segment], groups: int) -> Iterator[Segment]:
    """Cut segments into pieces of at most that many groups."""
    for segment in segments:
        for offset in range(0, segment.groups, groups):
            size = min(groups, segment.groups - offset)
            yield Segment(segment.seed, segment.first + offset, size)


def chunk_groups(setting: Setting) -> int:
    """Return how many groups are added up at once: exact, and small enough."""
    each = setting.config.trials_per_group
    trials = min(EXACT_TRIALS, max(1, CHUNK_FLOATS // setting.noise.signs_per_trial))
    return max(1, trials // each)


def total(
    setting: Setting, tokens: Tokens, update: Update, groups: int | None = None
) -> NDArray[np.int64]:
    """Return the sum over all trials of reward times perturbation.

    Args:
        setting: of the run.
        tokens: the batch that the update names.
        update: segments and rewards.
        groups: of one chunk; any number gives the same integers.

    Returns:
        (P,) integers.
    """
    each = setting.config.trials_per_group
    weights = update.rewards.astype(np.float32)
    result = np.zeros(setting.layout.size, np.int64)
    start = 0
    for piece in pieces(update.segments, groups or chunk_groups(setting)):
        share = weights[start : start + piece.groups * each]
        start += len(share)
        signs = signs_of(setting, windows_of(setting, tokens, piece), piece)
        for t in setting.layout.tensors:
            if setting.full:
                part = weighted_sum(share, signs[t.name])
            else:
                a = None if t.inputs is None else signs[t.inputs]
                part = weighted_sum(share, signs[t.outputs], a)
            result[t.start : t.start + t.size] += part.ravel().astype(np.int64)
    return result


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
    assert state.step == update.step, (state.step, update.step)
    if update.trials == 0:
        return TrainState(state.step + 1, state.count, *state.arrays)
    scale = REWARD_SCALE * math.sqrt(1024 * update.trials)
    gradient = (-total(setting, tokens, update) / scale).astype(np.float32)
    config, count = setting.config, state.count + 1
    if config.optimizer == "sgd":
        weights = sgd(state.weights, gradient, update.rate)
        return TrainState(state.step + 1, count, weights, state.first, state.second)
    weights, moments = adam(
        state.weights,
        Moments(state.first, state.second),
        gradient,
        update.rate,
        count,
        config,
    )
    return TrainState(state.step + 1, count, weights, moments.first, moments.second)

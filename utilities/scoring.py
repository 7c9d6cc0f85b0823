"""The losses of trials: what a client computes most of the time.

`score` scores the trials of a segment in one forward batch, by `utilities.population`
for rank-1 noise, or by a product for each trial for full noise, which is for
comparison. `clean_loss` scores the weights themselves, on any text.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np

from utilities.evolution import (
    Scores,
    Segment,
    Setting,
    drawn_for,
    signs_of,
    windows_of,
)
from utilities.model import LOGITS, Clean, Dense, Tokens
from utilities.noise import Floats, Signs
from utilities.outputs import OutputTrials
from utilities.population import Population
from utilities.products import Drawn
from utilities.whitening import Whiteners, whitened

Keep: TypeAlias = Callable[[Segment, Drawn], None]


def score(
    setting: Setting,
    weights: Floats,
    tokens: Tokens,
    segment: Segment,
    shaped: Whiteners | None = None,
    keep: Keep | None = None,
) -> Scores:
    """Return the losses of a segment's trials, in one forward batch.

    Args:
        setting: of the run.
        weights: (P,).
        tokens: the step's batch.
        segment: the trials.
        shaped: what shapes the step's noise; None: to be computed.
        keep: takes what was drawn for the trials.
    """
    windows = windows_of(setting, tokens, segment)
    found = drawn_for(setting, windows, segment)
    signs = signs_of(setting, found)
    if keep is not None:
        keep(segment, found)
    if shaped is None:
        shaped = setting.whiteners(weights, tokens)
    for layer, whitener in enumerate(shaped):
        signs[f"state{layer}"] = whitened(signs[f"state{layer}"], whitener)
    score_signs = _score_full if setting.full else _score_low_rank
    losses = score_signs(setting, weights, windows, signs)  # (groups, copies)
    if setting.config.directions_per_window:
        return Scores(losses[:, :-1].ravel(), losses[:, -1].copy())
    return Scores(losses.ravel(), np.zeros(0, np.float32))


def _score_low_rank(
    setting: Setting, weights: Floats, windows: Tokens, signs: Signs
) -> Floats:
    """Return losses of each group's trials and clean weights, or of both sides."""
    groups, each = windows.shape[1], setting.config.passes_per_group
    before, windows = np.split(windows, [setting.config.before])
    begun = _begun(setting, weights, before)
    copies = {}
    for name, e in signs.items():
        by_copy = np.zeros((each + 1, groups, e.shape[1]), np.float32)
        copies[name] = np.swapaxes(by_copy, 0, 1)  # as rows lie in a population
        copies[name][:, :each] = e.reshape(groups, each, -1)
        if setting.config.directions_per_window == 0:  # a b^T and a (-b)^T
            copies[name][:, 1] = -e if name in setting.written else e
    outputs = _outputs(setting, weights, windows, copies) if setting.splits else None
    about = setting.layout, weights, copies, setting.config.sigma, windows, each + 1
    losses = Population(*about, outputs, begun).losses()
    if outputs is None:
        return losses
    return np.hstack([losses[:, :-1], outputs.losses, losses[:, -1:]])


def _begun(setting: Setting, weights: Floats, before: Tokens) -> list[Floats]:
    """Return the states after what the clean weights read: (groups, w, H) each."""
    network, clean = setting.network, Clean(setting.layout.views(weights))
    state = network.start(before.shape[1:])
    for tokens in before:
        state = network.step(clean, tokens, state)
    return state


def _outputs(
    setting: Setting, weights: Floats, windows: Tokens, copies: Signs
) -> OutputTrials:
    """Return the output trials of groups, of the signs of all copies."""
    layout, each = setting.layout, setting.config.passes_per_group
    state = f"state{layout.n_layers - 1}"
    a, b = copies[state][:, :each], copies[LOGITS][:, :each]
    sigma, bias = setting.config.sigma * layout.scales.outputs, layout.views(weights)
    return OutputTrials(bias["bo"], a, b, sigma, windows[1:], 2 * (each + 1))


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

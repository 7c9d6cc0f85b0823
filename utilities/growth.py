"""A trained state for a model with more units, which computes what it computed before.

What the new units read is drawn like the weights of a new model; what the old units and
the logits read of them is zero. So no output changes, and the new weights have
gradients from the first step on (compare Chen et al. 2016, arXiv 1511.05641).

It knows layouts and arrays; it reads no file.
"""

import numpy as np

from utilities.errors import ConfigError
from utilities.evolution import Setting, TrainState
from utilities.misc import camel_case
from utilities.model import CHARACTERS, LOGITS, Floats, Layout, Tensor, initial_weights

SAME = ("model_type", "n_layers", "vocab_size")  # of what grows


def grown(old: Setting, state: TrainState, new: Setting, seed: int) -> TrainState:
    """Return the state of a smaller model, or one as large, for a new one.

    Step, count of updates, moments and mean of the weights go on. The second moments of
    new weights begin at the mean of their tensor, so that Adam's first steps are of the
    size of the others'.

    Args:
        old: that the state belongs to.
        state: of any step.
        new: with at least as many units, and everything else of the model alike.
        seed: of what new units read.

    Raises:
        ConfigError: the models differ in more, or units would be lost.
    """
    check(old, new)
    drawn = initial_weights(new.layout, seed, np.zeros(old.layout.vocab_size, "f4"))
    silent = np.zeros_like(drawn)
    weights = widened(old.layout, state.weights, new.layout, drawn)
    first = widened(old.layout, state.first, new.layout, silent)
    means = tensor_means(old.layout, state.second, new.layout)
    second = _placed(old.layout, state.second, new.layout, means)
    average = np.zeros(0, np.float32)
    if new.config.averages:
        average = widened(old.layout, state.trained, new.layout, drawn)
    return TrainState(state.step, state.count, weights, first, second, average)


def check(old: Setting, new: Setting) -> None:
    """Raise ConfigError unless one model can grow into the other."""
    for name in SAME:
        has, wanted = getattr(old.config, name), getattr(new.config, name)
        if has != wanted:
            key = camel_case(name)
            raise ConfigError(f"{key}: the model that is taken has {has}, got {wanted}")
    before, after = old.config.hidden_size, new.config.hidden_size
    if after < before:
        raise ConfigError(
            f"hiddenSize: a model of {before} units can grow, not shrink to {after}"
        )


def widened(old: Layout, values: Floats, new: Layout, drawn: Floats) -> Floats:
    """Return values for the larger model: what new units read is taken of `drawn`.

    Args:
        old: of the values.
        values: (P,).
        new: of the result.
        drawn: (P',) for the weights of which a new unit is the reader.
    """
    result = drawn.copy()
    views = new.views(result)
    for tensor in new.tensors:
        views[tensor.name][..., _columns(old, new, tensor)] = 0
    return _placed(old, values, new, result)


def tensor_means(old: Layout, values: Floats, new: Layout) -> Floats:
    """Return the mean of each tensor's values for all weights of the larger one."""
    means = {name: view.mean() for name, view in old.views(values).items()}
    each = [np.full(tensor.size, means[tensor.name], "f4") for tensor in new.tensors]
    return np.concatenate(each)


def _placed(old: Layout, values: Floats, new: Layout, result: Floats) -> Floats:
    """Put the values of the smaller model where its units are in the larger one."""
    before, after = old.views(values), new.views(result)
    for tensor in new.tensors:
        after[tensor.name][np.ix_(*_axes(old, new, tensor))] = before[tensor.name]
    return result


def _axes(old: Layout, new: Layout, tensor: Tensor) -> list[list[int]]:
    """Return where the old rows and columns of a tensor are in the larger one."""
    axes = [_columns(old, new, tensor)]
    if len(tensor.shape) == 2:
        fixed = tensor.inputs == CHARACTERS
        axes.insert(0, list(range(old.vocab_size if fixed else old.hidden_size)))
    return axes


def _columns(old: Layout, new: Layout, tensor: Tensor) -> list[int]:
    """Return where the old outputs are: the first units of each gate, or all logits."""
    if tensor.outputs == LOGITS:
        return list(range(old.vocab_size))
    gates = tensor.shape[-1] // new.hidden_size
    starts = range(0, gates * new.hidden_size, new.hidden_size)
    return [start + unit for start in starts for unit in range(old.hidden_size)]

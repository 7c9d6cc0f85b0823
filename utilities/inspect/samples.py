"""A run's model writing the same thing as it learned: the same prompt, the same draws.

Owns: which kept steps are asked, what each writes. Does not own the weights (`runs`) or
how they write (`trained`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from utilities.errors import RunError
from utilities.generation import Sampling
from utilities.runs import Run

PROMPT = "The "


@dataclass(frozen=True)
class Sample:
    """What the weights of a step write."""

    step: int
    text: str | None  # after the prompt; None: these weights cannot write
    trouble: str = ""  # why they cannot
    validation: float | None = None  # nats per character at that step


def spread(steps: Sequence[int], most: int) -> list[int]:
    """Return so many steps at most, evenly over the logarithm, the ends included."""
    if len(steps) <= most:
        return list(steps)
    if most == 1:
        return [steps[-1]]
    logs = np.log1p(np.array(steps, np.float64) - steps[0])
    wanted = np.linspace(0.0, logs[-1], most)
    nearest = {int(np.abs(logs - log).argmin()) for log in wanted}
    return [steps[place] for place in sorted(nearest)]


def kept_steps(run: Run) -> list[int]:
    """Return all steps whose weights lie in a run's folder, ascending."""
    return sorted({*run.weights_steps(), *run.checkpoint_steps()})


def known_prompt(run: Run) -> str:
    """Return a prompt for a text that is not known, nothing where it cannot be read."""
    return PROMPT if set(PROMPT) <= set(run.vocabulary.characters) else ""


def samples(
    run: Run, steps: Sequence[int], prompt: str, length: int, sampling: Sampling
) -> Iterator[Sample]:
    """Yield what the weights of each step write after a prompt.

    Weights that have diverged, are damaged or were removed meanwhile say so and
    hinder no others.
    """
    curve = run.curves.validation("step")
    losses = dict(zip(curve.x.astype(int).tolist(), curve.y.tolist(), strict=True))
    for step in steps:
        validation = losses.get(step)
        try:
            text = run.model(step).write(prompt, length, sampling)
        except RunError as error:
            yield Sample(step, None, str(error), validation)
        else:
            yield Sample(step, text[len(prompt) :], "", validation)

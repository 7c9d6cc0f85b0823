"""A run's model writing the same thing as it learned: the same prompt, the same draws.

Owns: which kept steps are asked, what each writes. Does not own the weights (`runs`) or
how they write (`trained`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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

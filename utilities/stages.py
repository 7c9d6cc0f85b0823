"""A run that has outgrown its model, and the run with more units that follows it.

Each is a run of its own: its folder, journal and checkpoints are of one model. Clients
are asked to come back, and find the larger model at the same port. Owns when that is
due and what is passed on. Does not own how a state grows: that is `growth`.
"""

from dataclasses import replace

from utilities.config import Config
from utilities.options import ServerOptions
from utilities.progress import Growth
from utilities.protocol import End, Goodbye
from utilities.runs import Run
from utilities.textfiles import UTF_8

COME_BACK = Goodbye(End.DROPPED.value, "the run goes on with a larger model")
SETTLED = ("growth", "hiddenSize", "stepNum", "vocabSize")  # by the run before
LEAST_SECONDS = 1.0  # that are worth another run


def outgrown(config: Config, trials: int, steps: int) -> bool:
    """Return whether a run of so many trials and steps is to go on with more units."""
    return Growth.parse(config.growth).due(config.hidden_size, trials, steps)


def worthwhile(steps: int | None, seconds: float | None) -> bool:
    """Return whether what is left is enough for another run; None: without an end."""
    return steps != 0 and (seconds is None or seconds >= LEAST_SECONDS)


def larger(
    options: ServerOptions,
    run: Run,
    port: int,
    steps: int | None,
    seconds: float | None,
) -> ServerOptions:
    """Return the options of the run that follows.

    It has a step and a second at least: clients have been asked to come back.

    Args:
        options: of the run that has ended.
        run: that has ended.
        port: that clients come back to.
        steps: that are left; None: without an end.
        seconds: that are left; None: without an end.
    """
    growth = Growth.parse(run.record.config.growth)
    keys = {key: text for key, text in options.keys.items() if key not in SETTLED}
    return replace(
        options,
        port=port,
        data=(),  # the run before has it; standard input does not come twice
        decoding=UTF_8,
        config=None,
        resume=False,
        resume_number=None,
        salvage=False,
        start_from=run.number,
        max_steps=None if steps is None else max(1, steps),
        max_seconds=None if seconds is None else max(LEAST_SECONDS, seconds),
        keys={**keys, "hiddenSize": str(growth.units), "growth": growth.later},
    )

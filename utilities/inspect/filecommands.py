"""The commands of `python -m utilities.inspect` that read what a run has logged.

Owns: from options to lines, JSON or a file. Does not own what these say.
"""

import math
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utilities import svgplot
from utilities.config import Rule
from utilities.credits import Credit, read_credits
from utilities.curves import BY, thinned
from utilities.disk import DISK
from utilities.display import WIDTH
from utilities.errors import ConfigError, RunError
from utilities.inspect import pngplot
from utilities.inspect.asking import Command, Options, add_output, add_rule
from utilities.inspect.comparison import compare_lines, compared
from utilities.inspect.console import can_show, note, say, say_json
from utilities.inspect.forecast import Law
from utilities.inspect.outlook import default_targets, outlook_json, outlook_lines
from utilities.inspect.summary import list_lines, look, look_at_all, show_lines
from utilities.inspect.textplot import ASCII, PROBE, UNICODE
from utilities.inspect.words import fitted, table
from utilities.misc import RUNS
from utilities.options import Parser
from utilities.plots import loss_plot
from utilities.runfiles import writing
from utilities.runs import Run, RunStore
from utilities.scales import Series
from utilities.yardsticks import levels

_TARGET = Rule(float, "loss to reach, nats per character", high=100, exclusive=True)
_TARGET_BITS = Rule(float, "the same in bits per character", high=100, exclusive=True)


def write_file(path: Path, content: bytes) -> None:
    """Write what was asked for to a file, whole or not at all, and say so.

    Raises:
        RunError: it cannot be written.
    """
    with writing(path):
        DISK.replace(path, content)
    note(f"wrote {path}")


# list, show and compare


def list_runs(store: RunStore, options: Options) -> None:
    """Print one line for each run."""
    now = time.time()
    if options["json"]:
        overviews, damaged = look_at_all(store)
        answer: list[dict[str, Any]] = [each.to_json(now) for each in overviews]
        answer += [{"run": n, "damaged": reason} for n, reason in damaged.items()]
        say_json(answer)
        return
    lines = list_lines(store, now)
    if not lines:
        from utilities.reporting import quoted  # with all of the server: only here

        where = "" if store.root == RUNS else f"--runs {quoted(store.root)} "
        lines = [
            f"No run in {store.root} yet. Start one:",
            f"  python basicServer.py {where}--localClients 2 --maxSeconds 60",
        ]
    for line in lines:
        say(line)


def show(store: RunStore, options: Options) -> None:
    """Print the figures of a run, its loss as a plot, and its configuration."""
    overview = look(store.open(options["number"], lock=False))
    if options["json"]:
        say_json(overview.to_json(time.time()))
        return
    # A file or pipe has no width of its own, whatever terminal there is beside it.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    signs = UNICODE if can_show(PROBE) else ASCII
    for line in show_lines(overview, time.time(), width, signs):
        say(line)


def _opened(store: RunStore, numbers: Sequence[int]) -> list[Run]:
    """Return the named runs, each once, or the newest one."""
    if not numbers:
        return [store.open(lock=False)]
    return [store.open(number, lock=False) for number in dict.fromkeys(numbers)]


def compare(store: RunStore, options: Options) -> None:
    """Print runs side by side.

    Raises:
        ConfigError: fewer than two are named.
    """
    runs = _opened(store, options["numbers"])
    if (different := len(set(options["numbers"]))) < 2:
        raise ConfigError(
            f"compare: expected two different runs or more, got {different or 'none'}; "
            "list shows which there are"
        )
    overviews = [look(run) for run in runs]
    if options["json"]:
        say_json(compared(overviews, time.time()))
        return
    for line in compare_lines(overviews):
        say(line)


# plot


def _plot_options(parser: Parser) -> None:
    group = parser.add_argument_group("the picture")
    parser.option(
        group,
        "by",
        choices=BY,
        default=BY[0],
        help=f"what curves run over; time: seconds trained [{BY[0]}]",
    )
    parser.option(
        group,
        "baselines",
        action="store_true",
        help="draw what trivial methods reach, counted on the newest run's text",
    )
    add_output(parser, group, None, "file: .svg, or .png with matplotlib [loss.svg]")


def plot(store: RunStore, options: Options) -> None:
    """Draw the losses of runs into a file, or print their points."""
    runs = _opened(store, options["numbers"])
    curves = [(run, run.curves) for run in runs]
    if options["json"]:
        by = options["by"]
        say_json(
            [
                {
                    "run": run.number,
                    "by": by,
                    "loss": _points(logs.loss(by)),
                    "validation": _points(logs.validation(by)),
                }
                for run, logs in curves
            ]
        )
    if options["output"] is None and options["json"]:
        return
    path = options["output"] or Path("loss.svg")
    names = [(f"run {run.number}: {run.record.text_name}", c) for run, c in curves]
    yardsticks = levels(runs[-1]) if options["baselines"] else ()
    picture = loss_plot(names, options["by"], yardsticks)
    match path.suffix.lower():
        case ".svg":
            write_file(path, svgplot.draw(picture).encode("utf-8"))
        case ".png":
            write_file(path, pngplot.draw(picture))
        case _:
            raise ConfigError(f"--output: expected .svg or .png at the end, got {path}")


def _points(series: Series) -> dict[str, Any]:
    """Return a curve as plain data, thinned as in a picture."""
    series = thinned(series)
    return {"x": series.x.tolist(), "nats": series.y.tolist()}


# credits


def credits_(store: RunStore, options: Options) -> None:
    """Print each machine's share of a run.

    Raises:
        RunError: the run has no credits, or the file is damaged.
    """
    run = store.open(options["number"], lock=False)
    step, credits = read_credits(run.path)
    if not credits:
        raise RunError(
            f"{run.path}: expected credits.json, found none: it is written with each "
            "checkpoint, and older versions wrote none"
        )
    trials = sum(credit.trials for credit in credits) or 1
    reward = sum(credit.reward for credit in credits) or 1.0
    if options["json"]:
        say_json(
            {
                "run": run.number,
                "step": step,
                "machines": [
                    {
                        "name": credit.name,
                        "steps": credit.steps,
                        "trials": credit.trials,
                        "shareOfTrials": credit.trials / trials,
                        "shareOfGradient": credit.reward / reward,
                    }
                    for credit in credits
                ],
            }
        )
        return
    rows = [("machine", "steps", "trials", "share", "of the gradient")]
    rows += [_credit_row(credit, trials, reward) for credit in credits]
    say(f"run {run.number}, the steps before {step}")
    for line in table(rows, (0,), 0):
        say(line)


def _credit_row(
    credit: Credit, trials: int, reward: float
) -> tuple[str, str, str, str, str]:
    return (
        fitted(credit.name, WIDTH),
        f"{credit.steps:,}",
        f"{credit.trials:,}",
        f"{credit.trials / trials:.1%}",
        f"{credit.reward / reward:.1%}",
    )


# forecast


def _forecast_options(parser: Parser) -> None:
    group = parser.add_argument_group("the target")
    add_rule(parser, group, "target", _TARGET, None, "the next round ones")
    add_rule(parser, group, "targetBits", _TARGET_BITS, None, "none")


def forecast(store: RunStore, options: Options) -> None:
    """Print when a run will reach a loss, and what that rests on.

    Raises:
        RunError: its curve is too short, or does not fall.
    """
    overview = look(store.open(options["number"], lock=False))
    try:
        law = Law(overview.curves)
    except ValueError as error:
        raise RunError(
            f"{overview.run.path}: forecast: {error}; train on: losses come at steps "
            "1, 2, 4, 8 ... and with each checkpoint"
        ) from error
    targets = _targets(options) or default_targets(law.basis.newest)
    if options["json"]:
        say_json(outlook_json(overview, law, targets))
        return
    for line in outlook_lines(overview, law, targets, time.time()):
        say(line)


def _targets(options: Options) -> list[float]:
    targets = [] if options["target"] is None else [options["target"]]
    if options["targetBits"] is not None:
        targets.append(options["targetBits"] * math.log(2))
    return targets


COMMANDS = (
    Command(
        "list",
        "one line for each run",
        "Print one line for each run: model, text, step, validation loss, age, size.\n"
        "Folders that are no run, or a damaged one, are named with the reason.",
        ("list", "list --runs elsewhere", "list --json"),
        list_runs,
        takes="",
    ),
    Command(
        "show",
        "figures, loss and configuration of a run",
        "Print what a run has reached, its loss as a plot in text, and its keys.\n"
        "It only reads: a run may be looked at while it is trained.",
        ("show", "show 3", "show 3 --json"),
        show,
    ),
    Command(
        "plot",
        "the losses of runs as a picture",
        "Draw the losses of one or several runs into a file, without a display.\n"
        "SVG needs nothing else; PNG needs: pip install -r requirements-plots.txt",
        ("plot 3 -o loss.svg", "plot 3 7 9 --by time -o loss.png", "plot 3 --json"),
        plot,
        takes="[N ...]",
        json="print the points as one line of JSON; draw only with -o",
        add_options=_plot_options,
    ),
    Command(
        "compare",
        "runs side by side: what they reached, keys that differ",
        "Print runs side by side: what each has reached, and the keys that differ.\n"
        "Losses compare only where the text is the same.",
        ("compare 3 7 9", "compare 3 7 --json"),
        compare,
        takes="[N ...]",
    ),
    Command(
        "forecast",
        "when a run will reach a loss",
        "Print when a run will reach a validation loss, from its curve so far, with\n"
        "what lies between for most curves that fit, and what all that rests on.",
        ("forecast 3", "forecast 3 --target 2.0", "forecast 3 --targetBits 2.8"),
        forecast,
        add_options=_forecast_options,
    ),
    Command(
        "credits",
        "each machine's share of a run",
        "Print each machine's trials and its share of the gradient, by the name that\n"
        "it gave. They are counted up to the newest checkpoint.",
        ("credits 3", "credits 3 --json"),
        credits_,
    ),
)

"""A forecast in words and as data, with what it rests on.

Owns: which targets are asked for by default, the lines. Does not own the law: that is
`forecast`.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from utilities.display import bits, duration
from utilities.inspect.forecast import FURTHEST, SHARE, Basis, Forecast, Law, Range
from utilities.inspect.summary import Overview
from utilities.inspect.words import span, table
from utilities.misc import camel_case

_STEP = 0.05  # nats between two targets by default
_TARGETS = 4
_ACTIVE_SECONDS = 300.0  # since the last line: a run that is going on
_HEADER = ("nats", "bits", "in", f"{SHARE:.0%} of curves", "about")
_NOT_NOW = len(_HEADER) - 1  # columns of a run that is not going on


def default_targets(newest: float) -> list[float]:
    """Return the next round losses, in nats per character, below the newest one."""
    first = math.ceil(newest / _STEP) - 1
    multiples = range(first, max(0, first - _TARGETS), -1)
    return [round(multiple * _STEP, 2) for multiple in multiples]


def outlook_json(overview: Overview, law: Law, targets: Sequence[float]) -> Any:
    """Return forecasts as plain data; null: never, or too far to be foretold."""
    return {
        "run": overview.run.number,
        "step": overview.figures.step,
        "seconds": overview.figures.seconds,
        "forecasts": [
            {
                "nats": forecast.target,
                "bits": bits(forecast.target),
                "reachedAtSeconds": forecast.reached,
                "secondsFromNow": forecast.seconds and asdict(forecast.seconds),
                "shareOfCurvesThatNeverDo": forecast.never,
            }
            for forecast in map(law.forecast, targets)
        ],
        "restsOn": {camel_case(key): value for key, value in asdict(law.basis).items()},
    }


def outlook_lines(
    overview: Overview, law: Law, targets: Sequence[float], now: float
) -> list[str]:
    """Return forecasts as lines, and what they rest on.

    Args:
        overview: of the run.
        law: that was fitted to it.
        targets: nats per character.
        now: seconds since 1970; of a run that is not going on no moment is told.
    """
    newest, figures = law.basis.newest, overview.figures
    active = now - overview.moment < _ACTIVE_SECONDS
    forecasts = [law.forecast(target) for target in targets]
    columns = len(_HEADER) if active else _NOT_NOW
    rows = [_HEADER, *(_row(forecast, now) for forecast in forecasts)]
    return [
        f"run {overview.run.number} at step {figures.step}: validation loss "
        f"{newest:.4f} nats ({bits(newest):.4f} bits)",
        f"after {duration(law.basis.last)} of training",
        "",
        *table([row[:columns] for row in rows], (3, 4), 3),
        "",
        *_basis(law.basis, overview),
    ]


def _row(forecast: Forecast, now: float) -> tuple[str, ...]:
    """Return a line of the table."""
    head = (f"{forecast.target:.3f}", f"{bits(forecast.target):.3f}")
    if forecast.reached is not None:
        return (*head, "-", f"reached after {duration(forecast.reached)}", "")
    assert forecast.seconds is not None
    seconds = forecast.seconds
    if math.isinf(seconds.low):
        return (*head, "-", "too far to be foretold", "")
    spread = f"{span(seconds.low)} to {_span(seconds.high)}"
    if forecast.never >= 0.01:
        spread += f"; {forecast.never:.0%} never"
    return (*head, _span(seconds.middle), spread, _moment(now, seconds.middle))


def _span(seconds: float) -> str:
    return "too far" if math.isinf(seconds) else span(seconds)


def _moment(now: float, seconds: float) -> str:
    """Return when that is on this machine's clock, with the day if not today."""
    if math.isinf(seconds):
        return ""
    then, today = time.localtime(now + seconds), time.localtime(now)
    same = (then.tm_year, then.tm_yday) == (today.tm_year, today.tm_yday)
    return time.strftime("%H:%M" if same else "%Y-%m-%d %H:%M", then)


def _basis(basis: Basis, overview: Overview) -> Iterator[str]:
    """Yield what the forecasts rest on."""
    yield "This rests on"
    yield (
        f"  {basis.points} validation losses, from {duration(basis.first)} to "
        f"{duration(basis.last)} of training;"
    )
    yield "  the law loss = floor + b / trials^c, which no theory promises, with"
    yield f"  {_range(basis.floor)} nats as floor and {_range(basis.exponent)} as c;"
    yield f"  {basis.rate:,.0f} trials a second, as in the last quarter: machines that"
    yield "  come or go change that;"
    decay = overview.run.record.config.decay
    if decay not in ("auto", "none"):
        yield f"  a rate that goes on falling as so far, though it ends with {decay};"
    if basis.foretold is None:
        yield "  too few losses for a test, in which half of them foretell the newest."
    else:
        foretold = _range(basis.foretold)
        yield f"  a test: the first half of the trials foretells {foretold}"
        hit = basis.foretold.low <= basis.newest <= basis.foretold.high
        verdict = "within" if hit else "outside, so trust it less"
        yield f"  for now; it is {basis.newest:.3f}: {verdict}."
    yield f"What takes more than {FURTHEST:.0f} times the training so far is too far."


def _range(values: Range) -> str:
    return f"{values.low:.3f} to {values.high:.3f}"

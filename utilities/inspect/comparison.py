"""Runs side by side: what they reached, and the keys in which they differ.

Owns: which keys differ, the table. Does not own the figures: `summary` has them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from utilities.config import KEYS
from utilities.display import WIDTH, bits, duration
from utilities.inspect.summary import Overview
from utilities.inspect.words import (
    GAP,
    NO_FIGURE,
    cells,
    count,
    fitted,
    model_name,
    shown,
)

_NOT_SETTINGS = ("stepNum",)  # where a run is at, which says nothing of how it learns
_NAME = 20  # places of a row's name
_LEAST_COLUMN = 12  # places of a run: with more runs the table goes on below


def differing(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys that are not alike in all configurations, in their order."""
    return [
        key
        for key in KEYS
        if key not in _NOT_SETTINGS
        and any(config.get(key) != configs[0].get(key) for config in configs)
    ]


def compared(overviews: Sequence[Overview], now: float) -> dict[str, Any]:
    """Return runs side by side as plain data."""
    configs = [overview.run.record.config.to_json() for overview in overviews]
    return {
        "runs": [overview.to_json(now) for overview in overviews],
        "differing": {
            key: [config[key] for config in configs] for key in differing(configs)
        },
        "sameText": len({x.run.record.text_sha256 for x in overviews}) == 1,
    }


def compare_lines(overviews: Sequence[Overview]) -> list[str]:
    """Return runs side by side as lines of `WIDTH` places.

    So many stand beside each other as there is room for; the others come below.
    """
    rows = [*_figures(overviews), *_keys(overviews)]
    most = (WIDTH - _NAME) // (_LEAST_COLUMN + len(GAP))
    lines: list[str] = []
    for start in range(0, len(overviews), most):
        columns = min(most, len(overviews) - start)
        width = min(28, (WIDTH - _NAME) // columns - len(GAP))
        for name, values in rows:
            cut = (fitted(value, width) for value in values[start : start + columns])
            padded = (GAP + " " * (width - cells(value)) + value for value in cut)
            lines.append(f"{name:<{_NAME}}{''.join(padded)}".rstrip())
        lines.append("")
    return [*lines, *_remarks(overviews)]


def _figures(overviews: Sequence[Overview]) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of what the runs are and what they reached."""
    figures = [overview.figures for overview in overviews]
    records = [overview.run.record for overview in overviews]
    yield "run", [str(overview.run.number) for overview in overviews]
    yield "model", [model_name(record.config) for record in records]
    yield "text", [record.text_name for record in records]
    for name, points in (
        ("validation", [x.validation for x in figures]),
        ("best", [x.best for x in figures]),
    ):
        nats = [point.nats if point else None for point in points]
        yield (
            f"{name}, nats",
            [f"{x:.4f}" if x is not None else NO_FIGURE for x in nats],
        )
        bits_ = [f"{bits(x):.4f}" if x is not None else NO_FIGURE for x in nats]
        yield f"{name}, bits", bits_
    yield "at step", [count(x.validation.step) if x.validation else "" for x in figures]
    yield "steps", [count(x.step) for x in figures]
    yield "trials", [count(x.trials) for x in figures]
    yield "trained", [duration(x.seconds) for x in figures]
    yield "trials a second", [_rate(x.trials, x.seconds) for x in figures]


def _rate(trials: int, seconds: float) -> str:
    return count(round(trials / seconds)) if seconds else NO_FIGURE


def _keys(overviews: Sequence[Overview]) -> Iterator[tuple[str, list[str]]]:
    """Yield the rows of the keys that differ."""
    configs = [overview.run.record.config.to_json() for overview in overviews]
    for key in differing(configs):
        yield f"* {key}", [shown(config[key]) for config in configs]


def _remarks(overviews: Sequence[Overview]) -> Iterator[str]:
    configs = [overview.run.record.config.to_json() for overview in overviews]
    if differing(configs):
        yield "* a key that differs; all others are alike"
    else:
        yield "all keys are alike"
    if len({overview.run.record.text_sha256 for overview in overviews}) > 1:
        yield "The texts differ: losses of different texts cannot be compared."

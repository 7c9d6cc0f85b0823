"""What somebody who looks at a run gets to see, and what of it is new.

Owns: curves and figures as plain data, thinned; who has been told what. Does not own
reading logs (`follow`), what figures come to (`curves`), routes or connections.

The idea: at first one gets a thinned picture of all there is, afterwards only what came
since. Where what was read is not true any more, because a resume has cut the logs
back, everybody gets a new picture.
"""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from utilities.config import Config
from utilities.credits import read_credits
from utilities.curves import Curves, Point, smoothed, thinned
from utilities.errors import RunError
from utilities.follow import Logs
from utilities.logfiles import SAMPLES, read_samples
from utilities.misc import Clock
from utilities.plots import Level
from utilities.runs import CONFIG, Run
from utilities.scales import Doubles, Series, spread
from utilities.sessionfiles import (
    ENDED,
    EVENTS,
    FRESH_SECONDS,
    NOT_RUNNING,
    TRAINING,
    Session,
    read_events,
    read_session,
)

MOST_POINTS = 2000  # of a curve that somebody sees
PICTURE_POINTS = 1500  # of the first picture: the others are for what comes
MOST_ROWS = 500  # of figures of steps: stretches, of which each gives its medians
MOST_SAMPLES = 60
MOST_CLIENTS = 200
SAMPLE_CHARACTERS = 2000  # of one
RECENT = 100  # lines that a recent figure is the median of
LONGEST_STEP = 75.0  # seconds, about: a minute, and waiting for who is late
LOOK_SECONDS = 0.5  # between two looks at the files, whoever asks
_LEAST = -1e18
_LATEST = 3e13  # seconds since 1970
_DIGITS = 6

News: TypeAlias = list[tuple[str, dict[str, Any]]]  # names and contents
Signature: TypeAlias = tuple[int, ...]
Levels: TypeAlias = Callable[[Run], Sequence[Level]]  # finds losses to compare with


# As plain data.


def plain(values: Doubles) -> list[float | None]:
    """Return numbers as JSON has them: None for nan, digits that matter."""
    return [None if v != v else v for v in np.round(values, _DIGITS).tolist()]


def _points(curves: Curves, steps: Doubles, done: Doubles, nats: Doubles) -> Any:
    """Return points over steps, time and trials.

    Args:
        curves: of the run.
        steps: where they are: (n,).
        done: how many steps were done there: (n,).
        nats: what was found there: (n,).
    """
    return {
        "step": plain(steps),
        "time": plain(curves.at("time", done)),
        "trials": plain(curves.at("trials", done)),
        "nats": plain(nats),
    }


def loss_points(
    curves: Curves,
    start: int = 0,
    end: int | None = None,
    most: int = PICTURE_POINTS,
) -> Any:
    """Return the losses of steps as plain data.

    Args:
        curves: of the run.
        start: number of the first one that is wanted.
        end: number of the first one that is not wanted any more; None: there is none.
        most: points.
    """
    losses = curves.losses[start:end]
    numbers = np.arange(start, start + losses.size, dtype=np.float64)
    few = thinned(Series("loss", numbers, losses), most)
    steps = curves.first_step + few.x
    return _points(curves, steps, steps + 1, few.y)


def middle_points(curves: Curves) -> Any:
    """Return the medians of stretches of the losses as plain data."""
    numbers = np.arange(curves.losses.size, dtype=np.float64)
    few = smoothed(Series("loss", numbers, curves.losses))
    there = np.isfinite(few.x)
    if there.any():  # a stretch without figures has a place all the same: a gap
        places = np.arange(few.x.size)
        few = Series(few.name, np.interp(places, places[there], few.x[there]), few.y)
    steps = curves.first_step + few.x
    return _points(curves, steps, steps + 1, few.y)


def validation_points(curves: Curves, most: int = MOST_POINTS) -> Any:
    """Return the validation losses as plain data."""
    few = thinned(curves.validation("step"), most)
    return _points(curves, few.x, few.x, few.y)


def step_columns(curves: Curves) -> dict[str, Doubles]:
    """Return what steps were like at each line: (lines,) each."""
    seconds = curves.seconds
    span = np.diff(seconds, prepend=0.0)
    span = np.where(span > 0, span, np.nan)
    each = np.diff(curves.done, prepend=curves.first_step)
    wall = np.where(each > 0, span / np.maximum(each, 1), np.nan)
    trial, update = (curves.column(key) for key in ("trialSeconds", "updateSeconds"))
    return {
        "step": curves.steps,
        "time": seconds,
        "trials": curves.trials,
        "rate": np.diff(curves.trials, prepend=0.0) / span,
        "trialSeconds": trial,
        "updateSeconds": update,
        "waitingSeconds": np.maximum(wall - trial - update, 0.0),
        "quality": curves.column("gradientQuality", -1.0),
    }


def step_rows(curves: Curves, start: int = 0, most: int = MOST_ROWS) -> Any:
    """Return what steps were like, as columns of plain data.

    Of more lines than `most` each stretch gives the medians of what it has.

    Args:
        curves: of the run.
        start: number of the first line that is wanted.
        most: rows.
    """
    columns = step_columns(curves).items()
    return {key: plain(medians(values[start:], most)) for key, values in columns}


def medians(values: Doubles, most: int) -> Doubles:
    """Return the median of each of so many stretches; one without figures is a gap."""
    if values.size <= most:
        return values
    edges = np.linspace(0, values.size, most + 1).astype(np.intp)
    result = np.full(most, np.nan)
    for place, (start, end) in enumerate(itertools.pairwise(edges.tolist())):
        part = values[start:end]
        part = part[np.isfinite(part)]
        if part.size:
            result[place] = np.median(part)
    return result


def _recent(values: Doubles) -> float | None:
    """Return the median of the last figures."""
    last = values[-RECENT:]
    last = last[np.isfinite(last)]
    return round(float(np.median(last)), _DIGITS) if last.size else None


def _point(point: Point | None) -> dict[str, float] | None:
    return None if point is None else {"step": point.step, "nats": point.nats}


def settings(config: Config) -> dict[str, Any]:
    """Return the keys of a run that say how it learns."""
    return {key: value for key, value in config.to_json().items() if key != "stepNum"}


# What somebody who looks is told.


@dataclass
class Cursor:
    """What somebody has been told already."""

    epoch: int = -1
    lines: int = 0
    losses: int = 0
    validations: int = 0
    added: int = 0  # points since the last whole picture
    versions: dict[str, int] = field(default_factory=dict)


class Feed:
    """A run as its files grow, for any number of those who look; safe for threads."""

    def __init__(
        self,
        run: Run,
        levels: Levels,
        clock: Clock = time.monotonic,
        wall: Clock = time.time,
    ) -> None:
        """Begin; nothing is read yet.

        Args:
            run: to look at.
            levels: finds losses to compare with; asked once.
            clock: for spans of time.
            wall: seconds since 1970.
        """
        self._run, self._levels = run, levels
        self._clock, self._wall = clock, wall
        self._logs = Logs(run.path, run.first_step)
        self._lock = threading.Lock()
        self._next = _LEAST
        self._curves = self._logs.curves(0)
        self._medians: Any = None  # of the losses, where they have been counted
        self._signatures: dict[str, Signature] = {}
        self._sections: dict[str, tuple[int, dict[str, Any]]] = {}

    def news(self, cursor: Cursor) -> News:
        """Return what is new to somebody, and move the cursor.

        Raises:
            RunError: a file of the run cannot be read or is damaged.
        """
        with self._lock:
            self._look()
            if cursor.epoch >= 0 and "levels" not in self._sections:
                # Counting takes a moment: only when the curve is there already.
                self._set("levels", {"levels": _levels(self._levels(self._run))})
            news = [
                (name, content)
                for name, (version, content) in self._sections.items()
                if cursor.versions.get(name) != version
            ]
            cursor.versions = {k: version for k, (version, _) in self._sections.items()}
            curves = self._new_points(cursor)
            return [*news, ("curves", curves)] if curves else news

    def picture(self) -> dict[str, Any]:
        """Return the run's curves and keys, to lay over those of another one.

        Raises:
            RunError: a file of the run cannot be read or is damaged.
        """
        with self._lock:
            self._look()
            return {
                **self._sections["run"][1],
                "middle": self._middle(),
                "validation": validation_points(self._curves),
            }

    # Reading.

    def _look(self) -> None:
        now = self._clock()
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        try:
            self._read()
        except RunError:
            self._signatures.clear()  # what was not read is read when it can be
            raise

    def _read(self) -> None:
        """Read what has changed into sections and curves."""
        if self._changed(CONFIG):
            self._run = Run(self._run.path)
            self._set("run", self._run_section())
        self._logs.read()
        self._curves = self._logs.curves(self._run.record.config.step_num)
        self._medians = None
        if self._changed(SAMPLES):
            self._set("samples", self._samples_section())
        if self._changed(EVENTS):
            self._set("events", {"events": read_events(self._run.path)})
        session = read_session(self._run.path)
        state, active = self._state(session)
        self._set("clients", self._clients_section(session, active))
        self._set("head", self._head_section(session, state))

    def _changed(self, name: str) -> bool:
        """Return whether a file is another one than when this was asked last."""
        signature: Signature = ()
        with suppress(OSError):
            status = (self._run.path / name).stat()
            signature = (status.st_ino, status.st_size, status.st_mtime_ns)
        before, self._signatures[name] = self._signatures.get(name), signature
        return signature != before

    def _set(self, name: str, content: dict[str, Any]) -> None:
        version, before = self._sections.get(name, (0, None))
        if content != before:
            self._sections[name] = (version + 1, content)

    # Sections.

    def _run_section(self) -> dict[str, Any]:
        run, record = self._run, self._run.record
        return {
            "run": run.number,
            "firstStep": run.first_step,
            "text": record.text_name,
            "textSha256": record.text_sha256,
            "program": record.program,
            "config": settings(record.config),
        }

    def _samples_section(self) -> dict[str, Any]:
        texts = dict(read_samples(self._run.path))
        return {
            "samples": [
                {"step": step, "text": texts[step][:SAMPLE_CHARACTERS]}
                for step in spread(sorted(texts), MOST_SAMPLES)
            ]
        }

    def _state(self, session: Session | None) -> tuple[str, bool]:
        """Return how the session stands in words, and whether it goes on."""
        if session is not None:
            state = session.state_at(self._wall())
        else:  # of an older version
            moment = self._curves.figures.moment
            fresh = moment is not None and self._wall() - moment < FRESH_SECONDS
            state = TRAINING if fresh else NOT_RUNNING
        return state, state not in (ENDED, NOT_RUNNING)

    def _clients_section(self, session: Session | None, active: bool) -> dict[str, Any]:
        step, credits = read_credits(self._run.path)
        here = {c["name"]: c for c in session.clients} if session and active else {}
        trials = sum(credit.trials for credit in credits) or 1
        reward = sum(credit.reward for credit in credits) or 1.0
        rows = [
            {
                "name": credit.name,
                "here": credit.name in here,
                **here.pop(credit.name, {}),
                "trials": credit.trials,
                "shareOfTrials": round(credit.trials / trials, 4),
                "shareOfGradient": round(credit.reward / reward, 4),
            }
            for credit in credits
        ]
        rows += [{"here": True, **client} for client in here.values()]  # no credit yet
        rows.sort(key=lambda row: not row["here"])
        more = max(0, len(rows) - MOST_CLIENTS)
        return {"before": step, "clients": rows[:MOST_CLIENTS], "more": more}

    def _head_section(self, session: Session | None, state: str) -> dict[str, Any]:
        curves, figures = self._curves, self._curves.figures
        columns = step_columns(curves)
        recent = {
            key: _recent(columns[key])
            for key in ("trialSeconds", "updateSeconds", "waitingSeconds", "quality")
        }
        return {
            "state": state,
            "join": list(session.join) if session else [],
            "step": max(figures.step, session.step if session else 0),
            "seconds": figures.seconds,
            "trials": figures.trials,
            "trialsAreRough": figures.thinned,
            "lastActive": figures.moment,
            "loss": _point(figures.loss),
            "validation": _point(figures.validation),
            "best": _point(figures.best),
            "rate": _rate(curves),
            "endStep": session.end.step if session else None,
            "endsAt": _ends_at(session, curves) if state == TRAINING else None,
            "asked": _recent(curves.column("timePerStep")),
            **recent,
        }

    # Curves.

    def _middle(self) -> Any:
        """Return the medians of the losses, counted once for all who look."""
        if self._medians is None:
            self._medians = middle_points(self._curves)
        return self._medians

    def _new_points(self, cursor: Cursor) -> dict[str, Any] | None:
        """Return what of the curves is new, or all of it in a picture."""
        curves, lines = self._curves, self._curves.steps.size
        losses = curves.losses.size
        if lines:  # loss.txt may be ahead; time and trials are not known there yet
            losses = min(losses, int(curves.done[-1]) - curves.first_step)
        validations = int(np.isfinite(curves.column("validationLoss")).sum())
        cursor.added += losses - cursor.losses
        whole = (
            cursor.epoch != self._logs.epoch
            or cursor.added > MOST_POINTS - PICTURE_POINTS
        )
        place = (lines, losses, validations)
        if not whole and place == (cursor.lines, cursor.losses, cursor.validations):
            return None
        start = (0, 0) if whole else (cursor.lines, cursor.losses)
        answer = {
            "whole": whole,
            "steps": step_rows(curves, start[0]),
            "loss": loss_points(curves, start[1], losses),
            "middle": self._middle(),
        }
        if whole or validations != cursor.validations:
            answer["validation"] = validation_points(curves)
        if whole:
            cursor.epoch, cursor.added = self._logs.epoch, 0
        cursor.lines, cursor.losses, cursor.validations = place
        return answer


def _levels(levels: Sequence[Level]) -> list[dict[str, Any]]:
    return [
        {"name": level.name, "nats": round(level.nats, _DIGITS)} for level in levels
    ]


def _rate(curves: Curves) -> float | None:
    """Return the trials a second of the last lines."""
    rate = _per_second(curves, curves.trials)
    return None if rate is None else round(rate, 1)


def _per_second(curves: Curves, values: Doubles) -> float | None:
    """Return how fast something has grown over the last lines."""
    there = np.isfinite(curves.seconds)
    seconds, last = (x[there][-RECENT:] for x in (curves.seconds, values))
    if not seconds.size or seconds[-1] <= seconds[0]:
        return None
    return float((last[-1] - last[0]) / (seconds[-1] - seconds[0]))


def _ends_at(session: Session | None, curves: Curves) -> float | None:
    """Return when a session ends, in seconds since 1970; None where nobody knows.

    Of a session that ends with a step that is foretold: by the speed of the last steps,
    from the last one on, so that it stays the same until the next.
    """
    if session is None:
        return None
    moments = [session.end.time]
    speed, moment = _per_second(curves, curves.done), curves.figures.moment
    if session.end.step is not None and speed and moment is not None:
        left = max(0.0, session.end.step - float(curves.done[-1]))
        # No step lasts longer: an older line is of another session.
        moments.append(max(moment, session.time - LONGEST_STEP) + left / speed)
    # Anybody may have written the files: an end in a million years is none.
    known = [moment for moment in moments if moment is not None and moment < _LATEST]
    return round(min(known)) if known else None

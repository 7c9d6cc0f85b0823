"""What the clients report of one step: its figures."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace

from utilities.aggregation import Aggregation
from utilities.audits import Counts
from utilities.evolution import Update
from utilities.pacing import Observed
from utilities.protocol import Result, Sum

NO_AUDITS = Counts()


def median(values: Iterable[float]) -> float | None:
    """Return the median, None of nothing."""
    every = list(values)
    return statistics.median(every) if every else None


@dataclass(frozen=True)
class Closed:
    """A step has closed: its figures."""

    step: int
    seconds: float  # that the run had trained
    loss: float | None  # nats per character; None: no usable losses
    trials: int
    clients: int  # whose digest was the true one
    late: int  # clients and answers that came too late to count
    dropped: int  # segments with unusable losses
    digest: bytes
    aggregation: str = ""  # seeds or sums; empty: nothing was aggregated
    time_per_step: float | None = None  # seconds of trials, where they are given
    trial_seconds: float | None = None  # of trials, median over clients
    update_seconds: float | None = None  # of the update before, median over clients
    gradient_quality: float | None = None  # split-half cosine of the update before
    contributions: tuple[tuple[str, int, int], ...] = ()  # name, trials, sum |reward|
    audits: Counts = NO_AUDITS  # of this session


@dataclass(frozen=True)
class Append:
    """Make a step durable before anything follows its update."""

    update: Update
    closed: Closed


@dataclass(frozen=True)
class Before:
    """What the server knows of the update before, beside what clients report of it."""

    way: str = ""  # seeds or sums; empty: nothing was aggregated
    trials: int = 0  # of all clients
    sum_seconds: float = 0.0  # of a client's own sum, median over clients
    quality: float | None = None  # split-half cosine of the clients' sums


class Tally:
    """Reports of one step."""

    def __init__(self, now: float, before: Before | None = None) -> None:
        """Begin as the step opens.

        Args:
            now: on the coordinator's clock.
            before: of the update before.
        """
        self.began = now
        self._before = before or Before()
        self._trials: dict[int, float] = {}  # seconds by client
        self._updates: dict[int, float] = {}
        self._qualities: dict[int, float] = {}
        self._update = 0.0  # seconds of whoever answered last: all waited for it
        self._sum = 0.0

    def add(self, client: int, result: Result) -> None:
        """Take a report; one without trials was asked for its digest only."""
        if not result.segments:
            return
        before = self._trials.get(client, 0.0)  # a client may score several blocks
        self._trials[client] = before + result.trial_seconds
        self._updates[client] = self._update = result.update_seconds
        if result.gradient_quality is not None:
            self._qualities[client] = result.gradient_quality

    def add_sum(self, message: Sum) -> None:
        """Take the report of a sum."""
        self._sum = message.seconds

    def figures(self) -> tuple[float | None, float | None, float | None]:
        """Return seconds of trials and of the update, and the gradient's quality.

        Medians over clients; all that regenerate the noise report the same quality.
        """
        figures = (self._trials, self._updates, self._qualities)
        trials, update, quality = (median(each.values()) for each in figures)
        if update is not None:
            update += self._before.sum_seconds
        return trials, update, self._before.quality if quality is None else quality

    def teach(self, aggregation: Aggregation) -> None:
        """Tell how long the update before took a typical client, sums left out."""
        updating = median(self._updates.values())
        if updating and self._before.way:
            aggregation.updated(self._before.way, self._before.trials, updating)

    def filled(self, closed: Closed, time_per_step: float | None) -> Closed:
        """Return the figures of the step with what was reported.

        Args:
            closed: all else.
            time_per_step: seconds of trials that were asked for, None where it was a
                number of trials.
        """
        trials, update, quality = self.figures()
        return replace(
            closed,
            time_per_step=time_per_step,
            trial_seconds=trials,
            update_seconds=update,
            gradient_quality=quality,
        )

    def observed(self, now: float, counted: int) -> Observed:
        """Return what the step has shown about its length, as it closes.

        Args:
            now: on the coordinator's clock.
            counted: trials of all clients.
        """
        trials, _, quality = self.figures()
        update = self._update + self._sum
        return Observed(now - self.began, trials or 0.0, update, quality, counted)

"""How long clients run trials in one step, found by the server where it is not given.

A step of T seconds of trials has an overhead o besides: messages and waiting. While T
is far below the time T_n in which the signal grows as large as the noise, a step is
worth as much as its trials; far above, it is worth no more than a shorter one
(McCandlish et al. 2018, arXiv 1812.06162). What is learned per second is then

    T / ((T + T_n) (T + o)),    which is largest at    T = sqrt(o T_n).

T_n follows from the split-half cosine c of the step's gradient, the `gradientQuality`:
each half has T/2 seconds of trials, so c = (T/2) / (T/2 + T_n). The overhead asks for
at least `LEAST` times itself, so that machines are busy with trials, but for no more
than T_n: an overhead that grows with the step would otherwise lengthen it for ever.
What is known to grow with the step, the update, is left out of the overhead.

Of a run that has learned much the cosine is lost in noise, and T_n seems without end.
But the rate grows with no more than `MOST_COUNTED` trials a step, so that a longer step
moves the weights no further: it is no longer than these take, or `ENOUGH` overheads,
since more steps learn more than larger ones.

A young run changes quickly, and few large steps follow it worse than many small ones:
no step is longer than a `YOUNG`-th of the time trained, or `WORTH` overheads.
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass

from utilities.config import Config
from utilities.progress import MOST_COUNTED

FIRST_SECONDS = 0.05
SHORTEST, LONGEST = 0.05, 60.0  # seconds
LEAST = 30.0  # overheads that a step lasts, so that 97 % of it are trials
ENOUGH = 10.0  # overheads that a step lasts where a longer one moves no further
STEPS = 32  # the last steps that medians and means are of
YOUNG = 2000  # steps of a length that the run must have had time for
WORTH = 4.0  # overheads that even a young run's steps may last
GROWTH = 1.1  # of one step against the one before, at most
LEAST_QUALITY = 1e-3  # below, the cosine is lost in its own noise


class Stopwatch:
    """Seconds that a run has trained: time without anybody at work does not count."""

    def __init__(self, seconds: float) -> None:
        """Begin at rest, with what the run had trained before."""
        self._seconds = seconds
        self._since: float | None = None  # when the work began that goes on

    def seconds(self, now: float) -> float:
        """Return the seconds trained, on the clock that `note` is given."""
        return self._seconds + (0.0 if self._since is None else now - self._since)

    def note(self, now: float, *, going: bool) -> None:
        """Take note of whether there is work from now on."""
        self._seconds, self._since = self.seconds(now), now if going else None


@dataclass(frozen=True)
class Observed:
    """What one step gave."""

    wall: float  # seconds from its opening to the opening of the next
    trials: float  # seconds of trials of a typical client
    update: float  # seconds of the update, and of the sum, that all waited for
    quality: float | None  # split-half cosine
    counted: int = 0  # trials of all clients together


def noise_seconds(seconds: float, quality: float) -> float:
    """Return T_n, in which the signal grows as large as the noise.

    Args:
        seconds: of trials in the steps that the quality was seen in.
        quality: split-half cosine; below `LEAST_QUALITY` it counts as that.
    """
    cosine = min(max(quality, LEAST_QUALITY), 1.0)
    return seconds / 2 * (1 - cosine) / cosine


def best_seconds(overhead: float, noise: float | None) -> float:
    """Return how long a step should be.

    Args:
        overhead: seconds of a step besides.
        noise: T_n in seconds, None where nothing is known of it.
    """
    overhead = max(overhead, 0.0)
    busy = LEAST * overhead
    if noise is not None:
        busy = max(min(busy, noise), math.sqrt(overhead * noise))
    return min(max(busy, SHORTEST), LONGEST)


class StepLength:
    """The length of steps, fixed or adapted."""

    def __init__(self, config: Config, trained: float = 0.0) -> None:
        """Begin with the configured length, or with a guess.

        The guess stays where the trials of a step are given: time has no say there.

        Args:
            config: of the run.
            trained: seconds that the run has trained before.
        """
        self._trained = trained
        self._timed = config.trials_per_step is None
        self._adapts = self._timed and config.time_per_step is None
        self._steps: deque[tuple[float, Observed]] = deque(maxlen=STEPS)
        self.seconds = config.time_per_step or FIRST_SECONDS

    @property
    def asked(self) -> float | None:
        """Return the seconds of trials that are asked for; None: a number of trials."""
        return self.seconds if self._timed else None

    def observe(self, observed: Observed) -> None:
        """Take a step into account."""
        if not self._adapts:
            return
        self._steps.append((self.seconds, observed))
        self._trained += max(observed.wall, 0.0)
        lowest, highest = self.seconds / GROWTH, self.seconds * GROWTH
        overhead = self._overhead()
        ripe = max(FIRST_SECONDS, self._trained / YOUNG, WORTH * overhead)
        useful = max(SHORTEST, self._counted(), ENOUGH * overhead)
        wanted = min(best_seconds(overhead, self._noise()), ripe, useful)
        self.seconds = min(max(wanted, lowest), highest)

    def _overhead(self) -> float:
        every = [observed for _, observed in self._steps]
        return statistics.median(o.wall - o.trials - o.update for o in every)

    def _counted(self) -> float:
        """Return in how many seconds there are all trials that the rate grows with."""
        each = [o.counted / seconds for seconds, o in self._steps if o.counted]
        return MOST_COUNTED / statistics.median(each) if each else math.inf

    def _noise(self) -> float | None:
        known = [
            (seconds, observed.quality)
            for seconds, observed in self._steps
            if observed.quality is not None
        ]
        if not known:
            return None
        seconds = statistics.fmean(seconds for seconds, _ in known)
        return noise_seconds(seconds, statistics.fmean(c for _, c in known))

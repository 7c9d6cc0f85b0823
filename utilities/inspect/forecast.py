"""When a run will reach a loss, from its curve so far, and how sure that is.

Owns the law, its fit, what follows from it. Does not own reading logs or words.

The idea: loss = floor + b / trials^c describes the later part of most learning curves.
For each exponent c of a grid the rest is linear: its least squares and their Student's
t distribution are exact; exponents count by how well they fit. Curves are drawn from
that posterior, and each says when it reaches the target, or that it never does: the
spread of the answers is the uncertainty. Neighbouring losses of a run are alike, so
they count as fewer than they are. The law itself may be wrong, which no spread within
it shows: so the fit to the first half is asked for the newest loss, and what came of
that is told beside.
"""

from dataclasses import dataclass

import numpy as np

from utilities.curves import Curves
from utilities.scales import Doubles

LEAST_POINTS = 6
FURTHEST = 100.0  # times what was trained so far: beyond, nothing is foretold
SHARE = 0.8  # of the drawn curves that lie between low and high
_SPAN = 20.0  # the last of so many parts of the trials, in which the law may hold
_EXPONENTS = np.geomspace(0.03, 3.0, 400)  # so close that exact curves do not jump
_LEAST_GROWTH = 1.05  # of the trials over the points: less shows no bend
_MOST_POINTS = 400  # that are fitted: a week has 20,000, which tell no more
_DRAWS = 4000
_LEAST_DRAWS = 100  # with a floor above zero and a falling curve, to say anything
_RATE_SHARE = 0.25  # the last part of the trials, from which their speed is taken


@dataclass(frozen=True)
class Range:
    """A figure with its uncertainty: the middle, and between what `SHARE` lies."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Doubles) -> "Range":
        """Return the range of drawn values, infinities among them."""
        edge = (1 - SHARE) / 2
        ordered = np.sort(values)
        places = np.rint(np.array([edge, 0.5, 1 - edge]) * (ordered.size - 1))
        return cls(*(float(ordered[int(place)]) for place in places))


@dataclass(frozen=True)
class Forecast:
    """When a loss is reached."""

    target: float  # nats per character
    reached: float | None  # seconds trained when it was; None: not yet
    seconds: Range | None  # of training from now on; infinite: never, or too far
    never: float  # share of the drawn curves that end above


@dataclass(frozen=True)
class Basis:
    """What forecasts of a run rest on."""

    points: int
    first: float  # seconds trained at the first of these points
    last: float
    newest: float  # nats per character
    floor: Range  # that the law ends at, nats per character
    exponent: Range
    rate: float  # trials a second
    foretold: Range | None  # the newest loss, from the points of the first half


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Drawn curves; x counts in the trials of the newest point."""

    floor: Doubles  # (draws,)
    scale: Doubles
    exponent: Doubles

    def at(self, x: float) -> Doubles:
        return self.floor + self.scale * x**-self.exponent

    def reach(self, target: float) -> Doubles:
        """Return where each curve is at the target, infinity for never."""
        above = target - self.floor
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            x = np.where(above > 0, (self.scale / above) ** (1 / self.exponent), np.inf)
        return np.asarray(np.maximum(x, 1.0), np.float64)  # it is not there yet


class Law:
    """The law of one run."""

    def __init__(self, curves: Curves) -> None:
        """Fit the law to the validation losses of a run.

        Raises:
            ValueError: they are too few, or do not fall; says so in words.
        """
        by_trials, by_time = (curves.validation(by) for by in ("trials", "time"))
        there = np.isfinite(by_trials.x) & np.isfinite(by_trials.y) & (by_trials.x > 0)
        self._x, self._y = by_trials.x[there], by_trials.y[there]
        self._seconds = by_time.x[there]
        self._now = curves.figures.seconds
        late = _late(self._x)
        drawn = _fit(self._x[late], self._y[late])
        self._drawn = drawn
        self.basis = Basis(
            points=self._x[late].size,
            first=float(self._seconds[late][0]),
            last=float(self._seconds[-1]),
            newest=float(self._y[-1]),
            floor=Range.of(drawn.floor),
            exponent=Range.of(drawn.exponent),
            rate=self._rate(),
            foretold=self._foretold(),
        )

    def _rate(self) -> float:
        last = self._x[-1]
        start = np.interp(last * (1 - _RATE_SHARE), self._x, self._seconds)
        return float(last * _RATE_SHARE / max(self._seconds[-1] - start, 1e-9))

    def _foretold(self) -> Range | None:
        """Return the newest loss as the points of the first half have it."""
        half = self._x <= self._x[-1] / 2
        x, y = self._x[half], self._y[half]
        try:
            drawn = _fit(x[_late(x)], y[_late(x)])
        except ValueError:
            return None
        return Range.of(drawn.at(float(self._x[-1] / x[-1])))

    def forecast(self, target: float) -> Forecast:
        """Return when a loss, in nats per character, is reached."""
        below = np.flatnonzero(self._y <= target)
        if below.size:
            return Forecast(target, float(self._seconds[below[0]]), None, 0.0)
        x = self._drawn.reach(target)
        never = float(np.mean(np.isinf(x)))
        x = np.where(x > FURTHEST, np.inf, x)
        seconds = (x - 1) * float(self._x[-1]) / self.basis.rate
        since = max(0.0, self._now - self.basis.last)  # the newest loss
        seconds = np.maximum(seconds - since, 0.0)
        return Forecast(target, None, Range.of(seconds), never)


def _late(x: Doubles) -> slice:
    """Return which points the law is fitted to: late ones, or the least number."""
    if x.size <= LEAST_POINTS:
        return slice(0, None)
    first = int(np.searchsorted(x, x[-1] / _SPAN))
    return slice(min(first, x.size - LEAST_POINTS), None)


def _fit(x: Doubles, y: Doubles) -> _Drawn:
    """Return curves that the points allow.

    Raises:
        ValueError: there are too few points, or they do not fall.
    """
    count = np.unique(x).size
    if count < LEAST_POINTS:
        raise ValueError(
            f"expected {LEAST_POINTS} validation losses or more, got {count}"
        )
    if x.size > _MOST_POINTS:
        keep = np.linspace(0, x.size - 1, _MOST_POINTS).astype(np.intp)
        x, y = x[keep], y[keep]
    if x[-1] < _LEAST_GROWTH * x[0]:
        raise ValueError("expected validation losses over a longer time")
    designs = np.stack(
        [np.ones((_EXPONENTS.size, x.size)), (x / x[-1]) ** -_EXPONENTS[:, None]], -1
    )  # (exponents, points, 2)
    inverse = np.linalg.inv(designs.transpose(0, 2, 1) @ designs)
    means = inverse @ (designs.transpose(0, 2, 1) @ y)[..., None]  # (exponents, 2, 1)
    residuals = y - (designs @ means)[..., 0]
    squares = (residuals**2).sum(axis=1) + 1e-12  # a perfect fit is none to divide by
    independent = _independent(residuals[squares.argmin()])
    freedom = max(1.0, independent - 3)
    chances = np.exp(-0.5 * freedom * np.log(squares / squares.min()))
    random = np.random.Generator(np.random.Philox(key=1))  # the same answer each time
    chosen = random.choice(_EXPONENTS.size, _DRAWS, p=chances / chances.sum())
    spread = inverse * (squares / freedom * x.size / independent)[:, None, None]
    steps = np.linalg.cholesky(spread)[chosen] @ random.standard_normal((_DRAWS, 2, 1))
    steps /= np.sqrt(random.chisquare(freedom, _DRAWS) / freedom)[:, None, None]
    floor, scale = (means[chosen] + steps)[..., 0].T
    falls = scale > 0
    possible = falls & (floor >= 0)  # a loss cannot fall below zero
    if falls.mean() < 0.5 or possible.sum() < _LEAST_DRAWS:
        raise ValueError("expected validation losses that fall, got others")
    return _Drawn(floor[possible], scale[possible], _EXPONENTS[chosen][possible])


def _independent(residuals: Doubles) -> float:
    """Return as how many points these count, from how alike neighbours are."""
    alike = float(residuals[1:] @ residuals[:-1] / (residuals @ residuals + 1e-12))
    alike = min(max(alike, 0.0), 0.9)
    return max(4.0, residuals.size * (1 - alike) / (1 + alike))

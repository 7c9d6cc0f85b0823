"""What changes as a run goes on: its optimizer's rate, and the size of its model."""

import math
from dataclasses import dataclass, replace

from utilities.errors import ConfigError

LAST_RATE = 0.02  # share of the rate that a linear decay ends at
MOST_COUNTED = 65_536  # trials of a step that its rate still grows with: a factor of 8
AUTO_TRIALS = 4_000_000  # after which an endless decay has fallen to 1 / sqrt 2
AUTO_TRIALS_BY_WEIGHTS = 2_800_000  # the same where trials are taken as of weights
AUTO_TRIALS_NEWEST = 700_000  # the same where weights are not averaged: noise stays
LARGEST_LAYER = 4096  # units
MOST_STAGES = 8  # of growth
MOST_TRIALS = 10**15  # which a float still counts one by one


@dataclass(frozen=True)
class Decay:
    """How the rate falls as a run goes on."""

    unit: str = "none"  # none, auto, steps or seconds
    span: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Decay":
        """Read ``auto``, ``none``, ``5000 steps`` or ``3600seconds``.

        Raises:
            ConfigError: the text is none of these.
        """
        if text in ("auto", "none"):
            return cls(text)
        for unit in ("steps", "seconds"):
            if text.endswith(unit):
                try:
                    span = float(text.removesuffix(unit))
                except ValueError:
                    continue
                if 0 < span <= 1e12:
                    return cls(unit, span)
        raise ConfigError(
            "decay: expected auto, none, or a length such as 5000 steps or "
            f"3600 seconds, got {text}"
        )

    def factor(
        self, step: int, seconds: float, trials: int, half: int = AUTO_TRIALS
    ) -> float:
        """Return the share of the rate that is left.

        Over steps or seconds it falls from 1 to `LAST_RATE`. With ``auto`` it falls as
        one over the square root of the trials so far, which need not know an end.

        Args:
            step: that is about to be applied.
            seconds: that the run has trained.
            trials: of this step, taken for those of all before.
            half: trials after which an endless decay has fallen to 1 / sqrt 2.
        """
        if self.unit == "none":
            return 1.0
        if self.unit == "auto":
            # Beyond the bound the rate grows no more with the trials of a step, so it
            # must not fall with them either: who joins would slow the others down.
            counted = step * min(trials, MOST_COUNTED)
            return 1.0 / math.sqrt(1.0 + counted / half)
        done = (step if self.unit == "steps" else seconds) / self.span
        return 1.0 - (1.0 - LAST_RATE) * min(1.0, done)

    def __str__(self) -> str:
        return f"{self.span:.12g} {self.unit}" if self.span else self.unit


@dataclass(frozen=True)
class Growth:
    """When a run goes on with more units.

    Of a step no more trials count than its rate grows with: of many clients each step
    has more, but a model is not trained in a hundred steps.
    """

    units: int = 0  # 0: never
    trials: int = 0  # of the run that count, after which it does
    later: str = "none"  # how the run that follows grows

    @classmethod
    def parse(cls, text: str) -> "Growth":
        """Read ``none``, or units and trials like ``128@2e7`` or ``128@2e7,256@4e8``.

        Raises:
            ConfigError: the text is neither, or units do not become more.
        """
        stages = (
            [] if text == "none" else [cls._stage(each) for each in text.split(",")]
        )
        units = [each.units for each in stages]
        ascending = units == sorted(set(units))
        if not (all(stages) and ascending and len(stages) <= MOST_STAGES):
            raise ConfigError(
                "growth: expected none, or units and the trials after which there are "
                "so many, such as 128@3e8 or 128@2e7,256@4e8, more of them each time, "
                f"got {text}"
            )
        found = cls()
        for each in reversed(stages):
            found = replace(each, later=str(found))
        return found

    @classmethod
    def _stage(cls, text: str) -> "Growth":
        """Return one stage; what cannot be one is that of a run that never grows."""
        units, _, after = text.partition("@")
        try:
            found = cls(int(units), int(float(after)))
        except (ValueError, OverflowError):
            return cls()
        fits = 1 <= found.units <= LARGEST_LAYER and 1 <= found.trials <= MOST_TRIALS
        return found if fits else cls()

    def __bool__(self) -> bool:
        """Return whether it ever grows."""
        return self.units > 0

    @property
    def largest(self) -> int:
        """Return the units at the end, 0 where it never grows."""
        following = Growth.parse(self.later)
        return following.largest if following else self.units

    def due(self, units: int, trials: int, steps: int) -> bool:
        """Return whether a model of some units is to grow.

        Args:
            units: that it has.
            trials: that it has had.
            steps: that it has had them in.
        """
        counted = min(trials, steps * MOST_COUNTED)
        return self.units > units and counted >= self.trials

    def __str__(self) -> str:
        if not self:
            return "none"
        following = "" if self.later == "none" else f",{self.later}"
        return f"{self.units}@{self.trials}{following}"

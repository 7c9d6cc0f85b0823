"""How a step is opened: by time or in blocks, with seeds that nobody can guess. No I/O.

Owns the slots of a run's steps, of which none is used twice, the times of blocks, which
outlive a step, and up to when steps are opened at all. Does not own for whom.
"""

from collections import deque
from dataclasses import dataclass

from utilities.audits import Audits
from utilities.blocks import BLOCK_TIMES, BlockStep, BlockTimes
from utilities.evolution import Setting, segment_seed
from utilities.steps import OpenStep, TimedStep


@dataclass(frozen=True)
class Limits:
    """When a session ends by itself; None: never."""

    last_step: int | None = None
    end: float | None = None  # on the clock of `now`

    def over(self, step: int, now: float) -> bool:
        """Return whether no further step is to be trained."""
        last, end = self.last_step, self.end
        return (last is not None and step >= last) or (end is not None and now >= end)

    def left(self, step: int, now: float) -> tuple[int | None, float | None]:
        """Return the steps and the seconds that are left; None: without an end."""
        steps = None if self.last_step is None else max(0, self.last_step - step)
        return steps, None if self.end is None else max(0.0, self.end - now)


class Opening:
    """Opens the steps of a run."""

    def __init__(self, setting: Setting, run_seed: int, audits: Audits) -> None:
        """Begin with no slot used.

        Args:
            setting: of the run.
            run_seed: that all segments' seeds derive from; never leaves the server.
            audits: say which trials two clients score.
        """
        self._setting = setting
        self._run_seed = run_seed
        self._audits = audits
        self._step = -1
        self._slots = 0  # of that step
        self._block_times: BlockTimes = deque(maxlen=BLOCK_TIMES)

    def open(
        self, step: int, seconds: float, round_trip: float, *, last: bool
    ) -> OpenStep:
        """Open a step.

        Args:
            step: its number; one that begins anew gets new slots.
            seconds: that clients run trials.
            round_trip: seconds that answers usually take beside the work.
            last: ask for digests only.
        """
        if step != self._step:
            self._step, self._slots = step, 0
        usual = self._setting, step, seconds
        if last or self._setting.config.trials_per_step is None:
            new_seed = self._new_seed
            return TimedStep(*usual, new_seed, last, round_trip, self._audits)
        times = self._block_times
        return BlockStep(*usual, self._seed, times, round_trip, self._audits)

    def _seed(self, slot: int) -> int:
        return segment_seed(self._run_seed, self._step, slot)

    def _new_seed(self) -> int:
        self._slots += 1
        return self._seed(self._slots - 1)

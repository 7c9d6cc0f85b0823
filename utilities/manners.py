"""What a guest on somebody's machine decides: when to work, when to wait, when to ask.

Owns the hours of a day in which a client works, the pause on battery, the pauses
between two tries to reach a server, and how a machine that has slept is told from one
that was busy. No I/O: clocks, readings and random numbers are passed in.
"""

import random
import re
from dataclasses import dataclass
from datetime import datetime

DAY = 24 * 60  # minutes
HOURS_FORM = "hours of the day as 20-08 or 12:30-13,20-08"
_WINDOW = re.compile(
    r"(?P<h1>\d{1,2})(?::(?P<m1>\d\d))?-(?P<h2>\d{1,2})(?::(?P<m2>\d\d))?"
)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before the server is tried again
# Tries that are told one by one; later ones only when their number doubles: a client
# that tries for days does not fill a log.
TOLD_TRIES = 3
SLEPT_SECONDS = 20.0  # by which the clocks must differ before a machine has slept


# Hours.


@dataclass(frozen=True)
class Hours:
    """Parts of each day, in local time, as minutes after midnight."""

    windows: tuple[tuple[int, int], ...]  # from, to; one over midnight ends before it

    def minutes_until(self, minute: int) -> int:
        """Return in how many minutes the hours begin; 0 within them."""
        waits = []
        for first, last in self.windows:
            if (minute - first) % DAY < ((last - first) % DAY or DAY):
                return 0
            waits.append((first - minute) % DAY)
        return min(waits)

    def closed_until(self, moment: datetime) -> str | None:
        """Return the time of day, ``20:00``, at which the hours begin; None within."""
        minute = 60 * moment.hour + moment.minute
        wait = self.minutes_until(minute)
        return clock_time((minute + wait) % DAY) if wait else None

    def __str__(self) -> str:
        return ",".join(f"{clock_time(a)}-{clock_time(b)}" for a, b in self.windows)


def clock_time(minute: int) -> str:
    """Return a minute of the day as people write it: ``08:05``."""
    return f"{minute // 60:02}:{minute % 60:02}"


def parse_hours(text: str) -> Hours:
    """Return hours as they are typed: ``20-08``, ``12:30-13,20-08``, ``0-24``.

    Raises:
        ValueError: says what was expected and what came.
    """
    windows = []
    for part in text.split(","):
        match = _WINDOW.fullmatch(part.strip())
        ends = match and (
            _minute(match["h1"], match["m1"]),
            _minute(match["h2"], match["m2"]),
        )
        if not ends or max(ends) > DAY or ends[0] == DAY or ends[0] == ends[1]:
            raise ValueError(f"expected {HOURS_FORM}, got {text}")
        windows.append((ends[0], ends[1] % DAY))
    return Hours(tuple(windows))


def _minute(hour: str, minute: str | None) -> int:
    """Return a time of day in minutes; what is no time is more than a day."""
    minutes = int(minute or 0)
    return 60 * int(hour) + minutes if minutes < 60 else DAY + 1


@dataclass(frozen=True)
class Manners:
    """When a client works."""

    hours: Hours | None = None  # None: at any time
    mains_only: bool = False

    def pause(self, moment: datetime, on_battery: bool) -> str | None:
        """Return why there is to be no work now, in words; None: work.

        Args:
            moment: local time.
            on_battery: whether the machine has no mains.
        """
        until = self.hours.closed_until(moment) if self.hours else None
        if until is not None:
            return f"paused until {until} (hours {self.hours})"
        if self.mains_only and on_battery:
            return "paused (on battery)"
        return None


# Tries.


class Tries:
    """How long a client waits for a server that does not answer, and what it says.

    Pauses double up to a minute. Jitter: a server that restarts is not met by all its
    clients at once.
    """

    def __init__(self, draws: random.Random) -> None:
        """Begin with the shortest pause."""
        self._draws = draws
        self._longest = FIRST_PAUSE
        self._since: float | None = None  # of the first try in vain
        self.count = 0  # tries since then

    def wait(self, now: float) -> float:
        """Return the seconds until the next try."""
        if self._since is None:
            self._since = now
        self.count += 1
        seconds = self._longest * self._draws.uniform(0.5, 1.0)
        self._longest = min(2 * self._longest, LONGEST_PAUSE)
        return seconds

    def reached(self) -> None:
        """Note that the server has answered; it may still send us away."""
        self._since, self.count = None, 0

    def settled(self) -> None:
        """Note that a session was long enough to begin with short pauses again."""
        self._longest = FIRST_PAUSE

    def seconds(self, now: float) -> float:
        """Return for how long the server has been tried."""
        return 0.0 if self._since is None else now - self._since

    @property
    def told(self) -> bool:
        """Return whether this try is one that is worth a line for good."""
        return self.count <= TOLD_TRIES or self.count & (self.count - 1) == 0


# Sleep.


class Wakefulness:
    """Notices that a machine has slept.

    The clock on the wall went on, the one that counts seconds of work did not. Where
    both go on in sleep, as on Windows, nothing is noticed here: the connection tells.
    """

    def __init__(self, wall: float, steady: float) -> None:
        """Begin with both clocks' readings in seconds."""
        self._ahead = wall - steady

    def slept(self, wall: float, steady: float) -> float | None:
        """Return the seconds slept since the last look; None if it was awake."""
        before, self._ahead = self._ahead, wall - steady
        gone = self._ahead - before
        return gone if gone >= SLEPT_SECONDS else None


def share_of(cores: int, percent: float) -> int:
    """Return how many workers a share of the cores is, at least one."""
    return max(1, int(cores * percent / 100))


def rough(seconds: float) -> str:
    """Return a length of time in its two largest units: ``3 h 5 min``, ``2 d 4 h``."""
    minutes = int(seconds) // 60
    days, hours = minutes // DAY, minutes // 60
    if days:
        return _two(days, "d", hours % 24, "h")
    if hours:
        return _two(hours, "h", minutes % 60, "min")
    return f"{minutes} min" if minutes else f"{int(seconds)} s"


def _two(large: int, unit: str, small: int, second: str) -> str:
    return f"{large} {unit} {small} {second}" if small else f"{large} {unit}"


def lost_words(wait: float, tried: float) -> str:
    """Return what a client that has lost its server says of itself.

    Args:
        wait: seconds until the next try.
        tried: seconds since the first try in vain.
    """
    words = [f"tried for {rough(tried)}"] if tried >= 60 else []
    words.append(f"next try in {max(1, round(wait))} s")
    return "; ".join(words)

"""Who adds up a step's trials: everybody all of them, or each client its own.

Both ways give the same integers, so the cheaper one may be taken step by step. With M
clients, N trials in S segments, P weights, a seconds to add up one trial and a link of
the server that carries B bytes a second, a step waits

    seeds    a N  +  M (N + 24 S) / B
             everybody adds up all trials; a reward is one byte, a segment 24
    sums     a n  +  r  +  (N + 24 S + (b(n) + b(N)) P M) / B
             each adds up its own, the largest share being n; one more round trip r;
             each gets its own rewards, sends P integers and gets P; of the sums of k
             trials each takes b(k) bytes

besides what both ways have in common. a and r are measured, a for each way by itself:
where several clients share a core, adding up everybody's trials takes longer for each
of them, since all are busy for longer. Of the way that is not taken it is what it was
when that was last taken; of sums it is forgotten after a while, so that one bad moment
does not rule them out for ever. Nothing is known of links, so B is taken to be a
gigabit: what a cheap network has, and on a slower one both ways of many clients are
slower alike.
"""

import math
import statistics
from collections import deque
from dataclasses import dataclass

SEEDS, SUMS, AUTO = "seeds", "sums", "auto"
BANDWIDTH = 125e6  # bytes a second: 1 Gbit/s
SEGMENT_BYTES = 24  # three numbers of 64 bits
# By nodes the largest number of a sum over k trials was 320 to 500 sqrt k, in models of
# 32 to 128 units, young and old: most sums fit 16 bits up to here.
SHORT_TRIALS = 5 << 10
STEPS = 16  # the last steps that medians are of
# Lest it changes to and fro: the other way has to be so many times cheaper, by medians,
# and so many steps have to go by before the first change and between two.
MARGIN = 1.25
SETTLED = 4
PENANCE = 256  # steps by seeds after a step whose sums mostly did not come
STALE = 256  # steps after which what was measured of the other way is forgotten


@dataclass(frozen=True)
class Load:
    """What there is to be added up in a step."""

    trials: int  # N
    largest: int  # n, of one client
    segments: int  # S
    clients: int  # M
    weights: int  # P


def seeds_seconds(load: Load, adding: float) -> float:
    """Return what a step waits where everybody adds up all trials.

    Args:
        load: of the step.
        adding: seconds to add up one trial.
    """
    news = load.trials + SEGMENT_BYTES * load.segments
    return adding * load.trials + load.clients * news / BANDWIDTH


def sums_seconds(load: Load, adding: float, round_trip: float) -> float:
    """Return what a step waits where each adds up its own trials.

    Args:
        load: of the step.
        adding: seconds to add up one trial.
        round_trip: seconds from a request to its answer, work left out.
    """
    shares = load.trials + SEGMENT_BYTES * load.segments
    weights, clients = load.weights, load.clients
    sent = shares + sums_bytes(weights, clients, load.largest)
    sent += sums_bytes(weights, clients, load.trials)
    return adding * load.largest + round_trip + sent / BANDWIDTH


def sums_bytes(weights: int, clients: int, trials: float = math.inf) -> int:
    """Return what sums weigh, one for each client.

    Args:
        weights: of the model.
        clients: of the step.
        trials: that each sum is over, as far as that is to be relied upon.
    """
    return (2 if trials <= SHORT_TRIALS else 4) * weights * clients


class Aggregation:
    """The way that is taken: a fixed one, or the cheaper one by what was measured."""

    def __init__(self, wanted: str) -> None:
        """Begin with the way that is wanted; `auto` begins with seeds.

        Args:
            wanted: `seeds`, `sums` or `auto`.
        """
        self.way = SEEDS if wanted == AUTO else wanted
        self._auto = wanted == AUTO
        self._updates: deque[tuple[float, int]] = deque(maxlen=STEPS)  # by seeds
        self._applying: deque[float] = deque(maxlen=STEPS)  # an update by sums
        self._sums: deque[float] = deque(maxlen=STEPS)  # seconds a trial
        self._round_trips: deque[float] = deque(maxlen=STEPS)
        self._trips: dict[int, float] = {}  # of the step at hand, by client
        self._loads: deque[Load] = deque(maxlen=STEPS)
        self._steps = 0  # since the way was taken, with more than one client

    def answered(self, client: int, seconds: float) -> None:
        """Take the round trip of a client's first answer since the last step closed.

        Args:
            client: who has answered.
            seconds: since it was asked, but for those that it has reported as work.
        """
        self._trips.setdefault(client, max(seconds, 0.0))

    @property
    def round_trip(self) -> float:
        """Return the round trip of a typical client that is to be allowed for.

        Of the last steps, or of the very last one where that is longer, since a crowd
        may come at once; 0 where nothing is known.
        """
        trips = self._round_trips
        return max(statistics.median(trips), trips[-1]) if trips else 0.0

    def updated(self, way: str, trials: int, seconds: float) -> None:
        """Take the time of the last update, as a typical client reports it.

        Args:
            way: of that update.
            trials: of all clients.
            seconds: that it took; by sums, without the client's own sum.
        """
        if way == SEEDS:
            self._updates.append((seconds, trials))
        else:
            self._applying.append(seconds)

    def summed(self, seconds: float) -> None:
        """Take the seconds a trial that a typical client took for its own sum."""
        self._sums.append(seconds)

    def failed(self) -> str | None:
        """Give sums up for a while: most came too late; return why, if that changes.

        What is known of the link is an assumption; this is what it has shown.
        """
        if not self._auto or self.way == SEEDS:
            return None
        reason = self._turn(SEEDS, "most sums came too late")
        self._steps = -PENANCE
        return reason

    def choose(self, load: Load) -> str | None:
        """Choose the way of a step, found as `way`; return why, if it has changed."""
        if self._trips:
            # Of two clients the quicker one counts: the other may be the one to blame.
            self._round_trips.append(statistics.median_low(self._trips.values()))
            self._trips.clear()
        if not self._auto:
            return None
        if load.clients < 2:
            self._loads.clear()
            return self._turn(SEEDS, "one client alone")
        self._loads.append(load)
        self._steps += 1
        self._forget()
        known = self._round_trips and (self._updates or self._sums)
        if not known or self._steps < SETTLED:
            return None
        seeds, sums = self._costs()
        reason = (
            f"with {load.clients} clients and {load.trials:,} trials about "
            f"{1000 * seeds:.1f} ms a step by seeds, {1000 * sums:.1f} ms by sums"
        )
        if self.way == SEEDS and MARGIN * sums < seeds:
            return self._turn(SUMS, reason)
        if self.way == SUMS and MARGIN * seeds < sums:
            return self._turn(SEEDS, reason)
        return None

    def _forget(self) -> None:
        """Forget what sums took long ago, maybe in a bad moment: they get a trial."""
        if self.way == SEEDS and self._steps == STALE:
            self._sums.clear()
            self._applying.clear()

    def _costs(self) -> tuple[float, float]:
        """Return what the last steps would have waited by seeds, and by sums."""
        by_seeds, by_sums = self._adding()
        trip = statistics.median(self._round_trips)
        seeds = (seeds_seconds(load, by_seeds) for load in self._loads)
        sums = (sums_seconds(load, by_sums, trip) for load in self._loads)
        return statistics.median(seeds), statistics.median(sums)

    def _adding(self) -> tuple[float, float]:
        """Return the seconds of one trial by seeds, and by sums.

        What is not known of one way is taken from the other.
        """
        applying = statistics.median(self._applying) if self._applying else 0.0
        each = [max(seconds - applying, 0.0) / n for seconds, n in self._updates]
        by_seeds = statistics.median(each or self._sums)
        return by_seeds, statistics.median(self._sums) if self._sums else by_seeds

    def _turn(self, way: str, reason: str) -> str | None:
        """Take a way; return the reason if it is another one."""
        self._steps = 0
        changed, self.way = way != self.way, way
        return reason if changed else None

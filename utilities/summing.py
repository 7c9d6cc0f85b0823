"""The stage in which each client adds up its own trials and the server adds the sums.

A step whose rewards are known enters it instead of being sent out at once. Every client
whose trials count gets `Shares` and answers with a `Sum`, which is checked before it
counts. What does not come in time, and what belongs to a client that has left, the
server computes itself from seeds, rewards and weights, off this thread (`Compute` ->
`Computed`): the total is the same integers. No I/O.

As with results, every request is a debt: a late sum is taken off the account and
ignored, one without a debt breaks the rules. A client that is to blame for a late sum
is not waited for until one comes within its own deadline.
"""

import math
import statistics
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from utilities.aggregation import BANDWIDTH, sums_bytes
from utilities.audits import Resum
from utilities.errors import ProtocolError
from utilities.evolution import Segment, Setting, Totals, Update
from utilities.lateness import grace_seconds, most
from utilities.ledger import Replay
from utilities.model import Tokens
from utilities.peers import REPORTS, Debts, Peer, usual_seconds
from utilities.protocol import Shares, Sum
from utilities.rewards import Rewards
from utilities.sums import Bound, Part, bounds, check, cosine, largest_each, narrowed

Owners: TypeAlias = Mapping[int, Peer]  # who has scored the segment of a seed


# What the shell is asked to compute, and what it answers.


@dataclass(frozen=True)
class Compute:
    """Add up trials off this thread, then report `Computed`."""

    replay: Replay = field(repr=False)  # to the state that they were scored on
    step: int
    token_batch: int
    half: int  # of the step, that they belong to: 0 or 1
    segments: tuple[Segment, ...]
    rewards: Rewards = field(repr=False)


@dataclass(frozen=True)
class Computed:
    """The trials of a `Compute` are added up."""

    step: int
    half: int
    total: Totals = field(repr=False)


# What clients owe.


@dataclass
class Account:
    """What one client owes in sums, and how fast it is."""

    waited: bool = True  # else its part is computed at once, whatever it sends
    debts: Debts[float] = field(default_factory=Debts)  # deadlines
    reports: deque[float] = field(default_factory=lambda: deque(maxlen=REPORTS))

    def allowance(self, peer: Peer, run: float) -> float:
        """Return the seconds that a client may take to add up its trials.

        Args:
            peer: whose account it is; for its first sum it may take as long as for
                an update.
            run: seconds of trials in one step; adding up should not take more.
        """
        if not self.reports:
            return peer.allowance(run)
        return usual_seconds(self.reports, run)

    def owe(self, step: int, deadline: float) -> None:
        """Note that a sum is due."""
        self.debts[step] = deadline
        self.debts.trim()

    def deliver(self, message: Sum, now: float) -> None:
        """Take a sum off the account; within its own deadline it earns trust.

        Raises:
            ProtocolError: none was due.
        """
        if self.debts.never(message.step):
            raise ProtocolError(f"sum: nothing is due of step {message.step}")
        deadline = self.debts.pop(message.step, None)
        if deadline is not None:
            self.waited = self.waited or now <= deadline
        self.reports.append(message.seconds)


class Accounts:
    """The accounts of all clients that are here."""

    def __init__(self) -> None:
        self._accounts = defaultdict[Peer, Account](Account)

    def of(self, peer: Peer) -> Account:
        """Return a client's account."""
        return self._accounts[peer]

    def close(self, peer: Peer) -> None:
        """Forget a client that has left."""
        self._accounts.pop(peer, None)


# Whose trials are whose.


def parts_by_peer(setting: Setting, update: Update, owners: Owners) -> dict[Peer, Part]:
    """Return the trials of each client, as an update that names them has them.

    Args:
        setting: of the run.
        update: with segments and rewards.
        owners: of its segments.
    """
    each = setting.config.trials_per_group
    segments: dict[Peer, list[Segment]] = {}
    shares: dict[Peer, list[Rewards]] = {}
    start = 0
    for segment in update.segments:
        peer, end = owners[segment.seed], start + segment.groups * each
        segments.setdefault(peer, []).append(segment)
        shares.setdefault(peer, []).append(update.rewards[start:end])
        start = end
    return {
        peer: Part(tuple(mine), _together(shares[peer]))
        for peer, mine in segments.items()
    }


def _together(shares: list[Rewards]) -> Rewards:
    return shares[0] if len(shares) == 1 else np.concatenate(shares)


def contributions(parts: Mapping[Peer, Part]) -> tuple[tuple[str, int, int], ...]:
    """Return each client's name, trials, and sum of |reward|."""
    sizes = largest_each([part.rewards for part in parts.values()])
    return tuple(
        (peer.name, part.trials, size)
        for (peer, part), size in zip(parts.items(), sizes, strict=True)
    )


def halved(parts: Mapping[Peer, Part]) -> dict[Peer, int]:
    """Return a half, 0 or 1, for each client, so that trials are about even."""
    halves: dict[Peer, int] = {}
    trials = [0, 0]
    for peer, part in sorted(parts.items(), key=lambda item: -item[1].trials):
        halves[peer] = trials.index(min(trials))
        trials[halves[peer]] += part.trials
    return halves


class Summing:
    """One step's sums."""

    def __init__(
        self,
        setting: Setting,
        update: Update,
        parts: Mapping[Peer, Part],
        tokens: Tokens,
        accounts: Accounts,
        replay: Replay,
        audited: Peer | None = None,
    ) -> None:
        """Begin with nothing asked and nothing known.

        Args:
            setting: of the run.
            update: with segments and rewards.
            parts: the trials of each client, at least one.
            tokens: that the trials were scored on.
            accounts: of what clients owe in sums.
            replay: to the state that they were scored on.
            audited: whose sum is kept.
        """
        self._audited = audited
        self._replay = replay
        self.kept: tuple[Peer, Resum, Totals] | None = None
        self._setting = setting
        self._update = update
        self._parts = parts
        self._tokens = tokens
        self._accounts = accounts
        self._halves = halved(parts)
        size = setting.layout.size
        self._totals = [np.zeros(size, np.int64), np.zeros(size, np.int64)]
        self._due: dict[Peer, float] = {}  # own deadlines of those waited for
        self._next = math.inf  # no deadline is before that
        self._open: list[Peer] = list(parts)  # who is not asked, or did not send
        self._late: dict[Peer, None] = {}
        self._computing = 0
        self._bounds: dict[Peer, Bound] | None = None
        self._seconds: list[float] = []  # of each sum
        self._adding: list[float] = []  # seconds a trial

    def ask(
        self, peers: Iterable[Peer], now: float, run: float, round_trip: float = 0.0
    ) -> list[tuple[Peer, Shares]]:
        """Return what goes to the clients that are here; all of it is owed from now on.

        Args:
            peers: who takes part now.
            now: on the coordinator's clock.
            run: seconds of trials in the step.
            round_trip: seconds that answers usually take beside the work.
        """
        present = [peer for peer in peers if peer in self._parts]
        travel = sums_bytes(self._setting.layout.size, len(present)) / BANDWIDTH
        grace = grace_seconds(self._setting.config, run, round_trip) + travel
        requests: list[tuple[Peer, Shares]] = []
        for peer in present:
            account, part = self._accounts.of(peer), self._parts[peer]
            due = now + account.allowance(peer, run) + grace
            account.owe(self._update.step, due)
            if account.waited:
                self._due[peer] = due
            step, batch = self._update.step, self._update.token_batch
            requests.append((peer, Shares(step, batch, part.segments, part.rewards)))
        self._open = [peer for peer in self._parts if peer not in self._due]
        self._next = min(self._due.values(), default=math.inf)
        return requests

    def prepare(self) -> None:
        """Make the bounds of all sums: best while the clients are busy with them."""
        if self._bounds is None:
            parts = list(self._parts.values())
            made = bounds(self._setting, self._tokens, parts)
            self._bounds = dict(zip(self._parts, made, strict=True))

    def take(self, peer: Peer, message: Sum) -> bool:
        """Add a sum that is waited for, ignore any other; return whether it counts.

        Raises:
            ProtocolError: it cannot be the sum of the client's trials.
        """
        if peer not in self._due:
            return False
        self.prepare()
        assert self._bounds is not None
        check(self._setting, message.total, self._bounds[peer])
        del self._due[peer]
        self._totals[self._halves[peer]] += message.total
        if peer is self._audited:
            self.kept = peer, self._trials_of(peer), message.total
        self._seconds.append(message.seconds)
        self._adding.append(message.seconds / self._parts[peer].trials)
        return True

    def lose(self, peer: Peer) -> None:
        """Wait no more for a client that has left, or whose replica is replaced."""
        self._late.pop(peer, None)
        if self._due.pop(peer, None) is not None:
            self._open.append(peer)

    def overdue(self, now: float) -> list[Peer]:
        """Return whose deadline has passed, and wait for them no more in this step."""
        if now < self._next:
            return []
        late = [peer for peer, due in self._due.items() if due <= now]
        for peer in late:
            self.lose(peer)
        self._late |= dict.fromkeys(late)
        self._next = min(self._due.values(), default=math.inf)
        return late

    @property
    def failed(self) -> bool:
        """Return whether most of those that were waited for came too late."""
        return len(self._late) > len(self._seconds)

    def blame(self) -> None:
        """Wait no more in later steps for those that are to blame for being late.

        Where most are late, only those are that owe the sum of the step before as well.
        """
        slow = most(len(self._late), len(self._seconds))
        for account in map(self._accounts.of, self._late):
            account.waited = slow and self._update.step - 1 not in account.debts

    def compute(self) -> list[Compute]:
        """Return what is to be computed, since nobody else is expected to send it."""
        commands: list[Compute] = []
        for half in (0, 1):
            parts = [self._parts[p] for p in self._open if self._halves[p] == half]
            if parts:
                segments = tuple(s for part in parts for s in part.segments)
                rewards = np.concatenate([part.rewards for part in parts])
                step, batch = self._update.step, self._update.token_batch
                about = self._replay, step, batch, half
                commands.append(Compute(*about, segments, rewards))
        self._computing += len(commands)
        self._open = []
        return commands

    def computed(self, event: Computed) -> None:
        """Add what was computed."""
        assert event.step == self._update.step, (event.step, self._update.step)
        self._totals[event.half] += event.total
        self._computing -= 1

    def complete(self) -> bool:
        """Return whether all parts are added."""
        return not (self._due or self._open or self._computing)

    def wakeup(self, now: float) -> float | None:
        """Return the next moment at which something is to be done."""
        if not self._due:
            return None
        # The bounds are made as soon as everybody has got its request.
        return now if self._bounds is None else self._next

    # What has come of it.

    def update(self) -> Update:
        """Return the update with the total in place of segments and rewards."""
        one, other = self._totals
        total = narrowed(one + other)
        nothing = np.zeros(0, np.int8)
        return replace(self._update, segments=(), rewards=nothing, total=total)

    def quality(self) -> float | None:
        """Return the cosine between the two halves, None where there is only one."""
        return cosine(*self._totals) if len(self._parts) > 1 else None

    def _trials_of(self, peer: Peer) -> Resum:
        """Return what has to be added up to check a client's sum."""
        part, update = self._parts[peer], self._update
        about = self._replay, update.step, update.token_batch
        return Resum(*about, part.segments, part.rewards)

    def seconds(self) -> float:
        """Return the seconds that a typical client took for its sum."""
        return statistics.median(self._seconds) if self._seconds else 0.0

    def adding(self) -> float | None:
        """Return the seconds that a typical client took to add up one trial."""
        return statistics.median(self._adding) if self._adding else None

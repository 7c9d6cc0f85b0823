"""A client as the server sees it: what it owes, how fast it is, what it holds.

Owns the account of one client over all steps, and whether its Hello is acceptable.
Does not own what a step gives out (`steps`) or which state is true (`ledger`).

The idea: every Begin is a debt of one answer. An answer without a debt breaks the
rules, however late it comes; a debt of the step at hand says that an answer computed
by the replica as it is now may still be on its way.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeVar

from utilities.errors import ProtocolError
from utilities.protocol import PROTOCOL_VERSION, Hello, Result
from utilities.selftest import ARITHMETIC_EXPECTED, NOISE_EXPECTED

FIRST_UPDATE_SECONDS = 1.0  # allowed to a client that has not reported an update yet
MOST_TOGETHER = 64  # blocks that a client works on at the same time
REPORTS = 8  # the last reports that an update's time is the median of
LEAST_SECONDS = 1e-3  # that any trials take
REMEMBERED_STEPS = 64  # debts kept of a client that answers rarely

T = TypeVar("T")


class Debts(dict[int, T]):
    """What is owed, by step, ascending; only the newest steps are remembered."""

    def __init__(self) -> None:
        super().__init__()
        self._forgotten = -1  # newest step that is not remembered any more

    def trim(self) -> None:
        """Forget the oldest step where there are too many."""
        if len(self) > REMEMBERED_STEPS:
            self._forgotten = next(iter(self))
            del self[self._forgotten]

    def never(self, step: int) -> bool:
        """Return whether nothing of a step is due, nor can have been forgotten."""
        return step not in self and step > self._forgotten


def usual_seconds(reports: Collection[float], run: float) -> float:
    """Return the seconds that work usually takes, as far as they are allowed.

    Args:
        reports: of the last times, at least one.
        run: seconds of trials in one step; other work should not take more.
    """
    return min(middle(reports), max(1.0, run))


def middle(values: Collection[float]) -> float:
    """Return the median of a few numbers, at least one; asked for every client."""
    ordered, half = sorted(values), len(values) // 2
    if len(values) % 2:
        return ordered[half]
    return (ordered[half - 1] + ordered[half]) / 2


@dataclass
class Debt:
    """What a client owes of one step."""

    deadline: float  # its own, on the coordinator's clock
    asked: float  # since when, on that clock
    answers: int = 0
    state: bool = False  # its state as well, ahead of the answer


@dataclass(eq=False)
class Peer:
    """A client of the run."""

    id: int
    name: str
    ready: bool = False  # it holds a state and takes part
    since: int = 0  # first step that it answers from the state that it was given
    reason: str = ""  # why its state has to be replaced; empty for a joiner
    waited: bool = True  # a step is not closed without it before its deadline
    asked: bool = False  # for its state, in vain
    batches: set[int] = field(default_factory=set)  # token batches that it holds
    reports: deque[float] = field(default_factory=lambda: deque(maxlen=REPORTS))
    debts: Debts[Debt] = field(default_factory=Debts)
    identity: bytes = b""  # of its machine; empty: it keeps none
    announced: str = ""  # the name in its Hello, which others may have too
    # Blocks of a step of fixed size that it has answered at the same moment.
    together: deque[int] = field(default_factory=lambda: deque(maxlen=REPORTS))
    # Groups and seconds of its last trials.
    scored: deque[tuple[int, float]] = field(
        default_factory=lambda: deque(maxlen=REPORTS)
    )

    def speed(self) -> float | None:
        """Return the groups of trials that it scores in a second, None if unknown."""
        if not self.scored:
            return None
        return middle([n / max(s, LEAST_SECONDS) for n, s in self.scored])

    @property
    def ahead(self) -> int:
        """Return how many blocks of a step it may hold: as many behind as in work.

        A client of several workers answers several at a time; what came at once after a
        pause of somebody is not usual.
        """
        each = sorted(self.together) or [1]
        return 2 * min(each[len(each) // 2], MOST_TOGETHER)

    def allowance(self, run: float) -> float:
        """Return the seconds that it may take to apply an update.

        Args:
            run: seconds of trials in one step; an update should not take more.
        """
        if not self.reports:
            return FIRST_UPDATE_SECONDS
        return usual_seconds(self.reports, run)

    def owe(self, step: int, deadline: float, now: float) -> None:
        """Note that one more answer is due."""
        self.debts.setdefault(step, Debt(deadline, now)).answers += 1
        self.debts.trim()

    def owes(self, step: int) -> int:
        """Return how many answers of a step are due."""
        return self.debts[step].answers if step in self.debts else 0

    def answer(self, result: Result, now: float) -> float | None:
        """Take an answer off the account; within its own deadline it earns trust.

        Returns:
            The seconds since it was asked, but for those that it reports as work; None
            where that is not remembered.

        Raises:
            ProtocolError: none was due.
        """
        debt = self.debts.get(result.step)
        if self.debts.never(result.step):
            raise ProtocolError(f"result: nothing is due of step {result.step}")
        if debt is not None:
            self.waited = self.waited or now <= debt.deadline
            debt.answers -= 1
            if not debt.answers:
                del self.debts[result.step]
        if result.update_seconds > 0:  # 0: it has applied none yet
            self.reports.append(result.update_seconds)
        worked = result.update_seconds + result.trial_seconds
        return None if debt is None else now - debt.asked - worked

    def ask_state(self, step: int) -> None:
        """Note that its state is due ahead of an answer of that step."""
        self.debts[step].state = True

    def deliver_state(self, step: int) -> None:
        """Take a state off the account.

        Raises:
            ProtocolError: none was due.
        """
        debt = self.debts.get(step)
        if debt is not None and debt.state:
            debt.state = False
        elif debt is not None or self.debts.never(step):
            raise ProtocolError(f"state: none was asked for at step {step}")


def unique_name(wanted: str, taken: set[str]) -> str:
    """Return the name, or the first of name#2, name#3, ... that is free."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}#{number}"
    return name


def refuse(hello: Hello) -> str | None:
    """Return why a client cannot take part, or None if it can."""
    if hello.protocol != PROTOCOL_VERSION:
        return (
            f"expected protocol {PROTOCOL_VERSION}, got {hello.protocol}: "
            "run the same version of the program on both machines"
        )
    for name, expected, got in (
        ("noise", NOISE_EXPECTED, hello.noise_test),
        ("arithmetic", ARITHMETIC_EXPECTED, hello.arithmetic_test),
    ):
        if got != expected:
            return (
                f"the {name} self-test gives {got.hex()[:12]}, expected "
                f"{expected.hex()[:12]} (numpy {hello.numpy}, Python {hello.python}): "
                "its replica would drift apart; upgrade numpy there"
            )
    return None

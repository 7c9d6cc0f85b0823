"""What a history must look like, written down independently of the program.

It is told what the server got and what it ordered, in that order, and keeps no more
than what is needed to hold one against the other:

- steps close once each, in order, and are written before anything but their update is
  said to whom got that;
- an update goes to a replica once, in order, and is the same for all;
- every trial that counts was given out, was answered in that step by a replica with
  the digest agreed on, and counts once in the whole run;
- rewards are those of plain Python on these answers;
- without failing memory every answer that came in time counts, and all replicas report
  the same digest of a step.
"""

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from tests.messages import comparable
from utilities.evolution import Segment, Setting, Update
from utilities.protocol import Begin, Message, Result, Resume, Shares, Welcome
from utilities.summing import Compute

Losses: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]  # of trials, and clean
Rewarded: TypeAlias = dict[Segment, bytes]
Group: TypeAlias = tuple[int, int]  # its seed and number

WORST = 100.0  # what is beyond, or is no number, counts as no loss
MOST_WAYS = 64  # in which trials that two clients have scored are tried
CROWD = 3  # clients of a step, of whom nobody has more than half of its trials


@dataclass(frozen=True)
class Answer:
    """What one client has scored of one segment."""

    client: int
    digest: bytes
    segment: Segment
    losses: Losses

    @property
    def usable(self) -> bool:
        """Return whether all losses are believable."""
        return all(abs(x) <= WORST for part in self.losses for x in part)

    @property
    def groups(self) -> set[Group]:
        """Return what it has scored."""
        return groups_of(self.segment)

    def first(self, groups: int) -> Losses:
        """Return the losses of its first groups."""
        each, clean = self.losses
        share = len(each) * groups // self.segment.groups
        return each[:share], clean[:groups]


def groups_of(segment: Segment) -> set[Group]:
    """Return the groups of a segment."""
    first, end = segment.first, segment.first + segment.groups
    return {(segment.seed, group) for group in range(first, end)}


def answers_of(client: int, result: Result) -> list[Answer]:
    """Return what a result says of each of its segments."""
    found, before = [], 0
    whole = sum(segment.groups for segment in result.segments)
    for segment in result.segments:
        after = before + segment.groups
        losses, clean = (
            tuple(part[len(part) * before // whole : len(part) * after // whole])
            for part in (result.losses.tolist(), result.clean.tolist())
        )
        found.append(Answer(client, result.digest, segment, (losses, clean)))
        before = after
    return found


@dataclass
class History:
    """All that a server got and ordered."""

    setting: Setting
    faithful: bool = True  # no replica's memory fails
    step: int = 0  # that closes next
    digests: dict[int, bytes] = field(default_factory=dict)
    reported: dict[int, set[bytes]] = field(default_factory=dict)
    trials: int = 0  # counted in all
    checked: int = 0  # rewards that were computed here as well
    _given: set[tuple[int, int]] = field(default_factory=set)  # step, seed
    _counted: set[Group] = field(default_factory=set)
    _answers: list[Answer] = field(default_factory=list)
    _scored: list[Answer] | None = None  # what had come when rewards were first sent
    _rewarded: Rewarded = field(default_factory=dict)  # to be summed up
    _updates: dict[int, tuple[object, ...]] = field(default_factory=dict)
    _replicas: dict[int, int] = field(default_factory=dict)  # step of each session

    # What the server got.

    def got(self, client: int, result: Result) -> Callable[[], None]:
        """Note an answer; return what to call if it is refused."""
        before, reported = self._answers, self.reported.get(result.step, set())
        if result.step == self.step:
            self._answers = [*before, *answers_of(client, result)]
        self.reported[result.step] = reported | {result.digest}

        def refuse() -> None:
            self._answers, self.reported[result.step] = before, reported

        return refuse

    def left(self, client: int) -> None:
        """Note the end of a session; with nobody left, a step begins anew."""
        self._replicas.pop(client, None)
        if not self._replicas and self._scored is None:
            self._answers = []

    # What it ordered.

    def wrote(self, update: Update, digest: bytes) -> None:
        """Note a step that is durable from now on, and the digest before it."""
        assert update.step == self.step, "a step is closed twice or out of turn"
        self.digests[update.step] = digest
        told = self._updates.setdefault(update.step, comparable(update))
        assert told == comparable(update), "another update was written than told"
        rewarded = self._rewarded if update.summed else self._by_segment(update)
        self._count(update, rewarded)
        self.step += 1
        self._answers, self._scored, self._rewarded = [], None, {}

    def computes(self, order: Compute) -> None:
        """Note rewards of trials that the server adds up itself."""
        self._reward(order.step, order.segments, order.rewards.tobytes())

    def sent(self, client: int, message: Message) -> None:
        """Note a message to one session."""
        fresh = isinstance(message, Welcome | Resume)
        ahead = self._replicas.get(client, 0) > self.step
        assert fresh or not ahead, "an update was followed before it was written"
        match message:
            case Welcome() | Resume():
                self._replicas[client] = message.step
            case Begin():
                assert self._replicas[client] == message.step, "asked out of turn"
                self._given |= {(message.step, s.seed) for s in message.segments}
            case Shares():
                self._reward(message.step, message.segments, message.rewards.tobytes())
            case Update():
                self._update(client, message)
            case _:
                pass

    def _reward(self, step: int, segments: Iterable[Segment], rewards: bytes) -> None:
        assert step == self.step, "rewards of another step"
        if self._scored is None:
            self._scored = self._answers
        each, start = self.setting.config.trials_per_group, 0
        for segment in segments:
            end = start + segment.groups * each
            known = self._rewarded.setdefault(segment, rewards[start:end])
            assert known == rewards[start:end], "other rewards of the same trials"
            start = end
        assert start == len(rewards)

    def _update(self, client: int, update: Update) -> None:
        assert self._replicas[client] == update.step, "an update twice or out of turn"
        self._replicas[client] += 1
        told = self._updates.setdefault(update.step, comparable(update))
        assert told == comparable(update), "a fork"

    def _by_segment(self, update: Update) -> Rewarded:
        assert not self._rewarded or not update.trials, "rewards were sent twice"
        each, start, found = self.setting.config.trials_per_group, 0, {}
        for segment in update.segments:
            assert segment not in found, "a trial counts twice in a step"
            end = start + segment.groups * each
            found[segment] = update.rewards[start:end].tobytes()
            start = end
        assert start == len(update.rewards)
        return found

    # What must hold of a step's trials.

    def _count(self, update: Update, rewarded: Rewarded) -> None:
        groups = [group for s in rewarded for group in sorted(groups_of(s))]
        counted, each = set(groups), self.setting.config.trials_per_group
        assert len(counted) == len(groups), "a trial counts twice in a step"
        assert not self._counted & counted, "a trial counts in two steps"
        assert update.trials == each * len(groups), "a trial counts for nothing"
        self._counted |= counted
        self.trials += update.trials
        for segment in rewarded:
            assert (update.step, segment.seed) in self._given, "never given out"
        came = self._answers if self._scored is None else self._scored
        digest = self.digests[update.step]
        usable = [each for each in came if each.digest == digest and each.usable]
        if self.faithful and rewarded:
            hold_complete(usable, counted)
        if rewarded:
            self._compare(usable, rewarded)

    def _compare(self, usable: Sequence[Answer], rewarded: Rewarded) -> None:
        """Hold rewards against those of what had come."""
        ordered, choices = sorted(rewarded), []
        for segment in ordered:
            found = [a for a in usable if groups_of(segment) <= a.groups]
            assert found, "nobody has answered that"
            choices.append(dict.fromkeys(a.first(segment.groups) for a in found))
        expected = b"".join(rewarded[segment] for segment in ordered)
        some = itertools.islice(itertools.product(*choices), MOST_WAYS)
        assert any(plain_rewards(losses) == expected for losses in some)
        self.checked += len(expected)

    # What must hold in the end.

    def check(self, final: int, digests: Iterable[bytes]) -> None:
        """Hold that all steps closed, and that all replicas hold the same state.

        Args:
            final: step that the run ended at.
            digests: that all replicas, and the saved state, have there.
        """
        assert self.step == final
        assert sorted(self._updates) == list(range(final))
        assert len(set(digests)) == 1, "replicas differ in the end"
        if self.faithful:
            for step, digest in self.digests.items():
                assert self.reported.get(step, set()) <= {digest}, step


def hold_complete(usable: Sequence[Answer], counted: set[Group]) -> None:
    """Hold that all counts that has come, but what one client has above half of all."""
    missing = set().union(*(each.groups for each in usable)) - counted
    if not missing:
        return
    mine: dict[int, set[Group]] = {}
    for each in usable:
        mine.setdefault(each.client, set()).update(each.groups)
    assert len(mine) >= CROWD, "an answer in time is left out"
    capped = [client for client, groups in mine.items() if missing <= groups]
    halved = False
    for client in capped:
        others = set().union(*(g for c, g in mine.items() if c != client))
        most, least = (mine[client] & counted), (mine[client] & counted) - others
        halved |= 2 * len(least) <= len(counted) <= 2 * len(most)
    assert halved, "an answer in time is left out"


def plain_rewards(losses: Sequence[Losses]) -> bytes:
    """Return the rewards of trials as int8, by the formula of the design."""
    changes: list[float] = []
    for each, clean in losses:
        if clean:
            share = len(each) // len(clean)
            changes += [x - clean[i // share] for i, x in enumerate(each)]
        else:
            pairs = zip(each[::2], each[1::2], strict=True)
            changes += [(plus - minus) / 2 for plus, minus in pairs]
    middle = statistics.median(changes)
    deviation = 1.4826 * statistics.median(abs(x - middle) for x in changes)
    clipped = (min(3.0, max(-3.0, (x - middle) / deviation)) for x in changes)
    return np.array([-round(x * 42) for x in clipped], np.int8).tobytes()

"""What a history must look like, written down independently of the program.

It is told what the server got and what it ordered, in that order, and keeps no more
than what is needed to hold one against the other:

- steps close once each, in order, and are written before anybody hears of them;
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

WORST = 100.0  # what is beyond, or is no number, counts as no loss
MOST_WAYS = 64  # in which doubled answers are tried


@dataclass
class Answers:
    """What has come of one step, by digest."""

    by_digest: dict[bytes, dict[Segment, list[Losses]]] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Take an answer; one without losses is a digest alone."""
        segments = self.by_digest.setdefault(result.digest, {})
        start = 0
        for segment in result.segments:
            share = len(result.losses) * segment.groups
            end = start + share // sum(s.groups for s in result.segments)
            clean = result.clean[: segment.groups]
            losses = tuple(result.losses[start:end].tolist()), tuple(clean.tolist())
            segments.setdefault(segment, []).append(losses)
            start = end

    def copy(self) -> "Answers":
        """Return what had come by now."""
        return Answers(
            {
                digest: {segment: list(found) for segment, found in every.items()}
                for digest, every in self.by_digest.items()
            }
        )


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
    _counted: set[tuple[int, int]] = field(default_factory=set)  # seed, group
    _answers: Answers = field(default_factory=Answers)
    _scored: Answers | None = None  # what had come when rewards were first sent
    _rewarded: Rewarded = field(default_factory=dict)  # to be summed up
    _updates: dict[int, tuple[object, ...]] = field(default_factory=dict)
    _replicas: dict[int, int] = field(default_factory=dict)  # step of each session

    # What the server got.

    def got(self, result: Result) -> Callable[[], None]:
        """Note an answer; return what to call if it is refused."""
        before, reported = self._answers, self.reported.get(result.step, set())
        if result.step == self.step:
            self._answers = before.copy()
            self._answers.add(result)
        self.reported[result.step] = reported | {result.digest}

        def refuse() -> None:
            self._answers, self.reported[result.step] = before, reported

        return refuse

    def left(self, client: int) -> None:
        """Note the end of a session; with nobody left, a step begins anew."""
        self._replicas.pop(client, None)
        if not self._replicas and self._scored is None:
            self._answers = Answers()

    # What it ordered.

    def wrote(self, update: Update, digest: bytes) -> None:
        """Note a step that is durable from now on, and the digest before it."""
        assert update.step == self.step, "a step is closed twice or out of turn"
        self.digests[update.step] = digest
        self._updates[update.step] = comparable(update)
        rewarded = self._rewarded if update.summed else self._by_segment(update)
        self._count(update, rewarded)
        self.step += 1
        self._answers, self._scored, self._rewarded = Answers(), None, {}

    def computes(self, order: Compute) -> None:
        """Note rewards of trials that the server adds up itself."""
        self._reward(order.step, order.segments, order.rewards.tobytes())

    def sent(self, client: int, message: Message) -> None:
        """Note a message to one session."""
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
            self._scored = self._answers.copy()
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
        assert update.step in self._updates, "told before it was written"
        assert self._updates[update.step] == comparable(update), "a fork"

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
        each = self.setting.config.trials_per_group
        groups = [
            (s.seed, group)
            for s in rewarded
            for group in range(s.first, s.first + s.groups)
        ]
        assert len(set(groups)) == len(groups), "a trial counts twice in a step"
        assert not self._counted & set(groups), "a trial counts in two steps"
        assert update.trials == each * len(groups), "a trial counts for nothing"
        self._counted |= set(groups)
        self.trials += update.trials
        for segment in rewarded:
            assert (update.step, segment.seed) in self._given, "never given out"
        self._compare(update, rewarded)

    def _compare(self, update: Update, rewarded: Rewarded) -> None:
        """Hold rewards against those of what had come."""
        answers = self._scored or self._answers
        agreed = answers.by_digest.get(self.digests[update.step], {})
        usable = {s: [x for x in every if _usable(x)] for s, every in agreed.items()}
        usable = {s: every for s, every in usable.items() if every}
        for segment in rewarded:
            assert segment in usable, f"step {update.step}: nobody has answered that"
        if self.faithful and rewarded:
            seeds = {segment.seed for segment in rewarded}
            assert seeds == {s.seed for s in usable}, "an answer in time is left out"
        ordered = sorted(rewarded)
        ways = itertools.product(*(dict.fromkeys(usable[s]) for s in ordered))
        expected = b"".join(rewarded[segment] for segment in ordered)
        if ordered:
            some = itertools.islice(ways, MOST_WAYS)
            assert any(plain_rewards(losses) == expected for losses in some)
            self.checked += update.trials

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


def _usable(losses: Losses) -> bool:
    return all(abs(x) <= WORST for part in losses for x in part)  # NaN compares false


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

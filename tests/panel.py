"""A crowd of honest clients and perhaps a liar, driven step by step with real losses.

All clients share one replica: what each would compute is computed once, so that a
hundred whole runs take minutes.
"""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np

from tests.desk import (
    Desk,
    first_groups,
    lesson,
    new_coordinator,
    rescored,
    resummed,
)
from utilities.audits import Record
from utilities.data import validation_rows
from utilities.evolution import Scores, Segment
from utilities.protocol import Begin
from utilities.scoring import clean_loss, score
from utilities.whitening import Whiteners

BLOCKS = 2  # that every client scores in a step
LESSON = lesson(batch_size=32, sequence_length=4)

# What a liar makes of its true answer, and of what it said last.
Lie = Callable[[Scores, Scores | None, np.random.Generator], Scores]


def sign_flipped(true: Scores, _: Scores | None, __: np.random.Generator) -> Scores:
    """Tell that what was better is worse."""
    clean = np.repeat(true.clean, len(true.losses) // len(true.clean))
    return replace(true, losses=2 * clean - true.losses)


def constant(true: Scores, _: Scores | None, __: np.random.Generator) -> Scores:
    """Tell the same loss of every trial."""
    return replace(true, losses=np.full_like(true.losses, true.losses.mean()))


def best_of_all(true: Scores, _: Scores | None, __: np.random.Generator) -> Scores:
    """Tell that every trial is as good as the best."""
    clean = np.repeat(true.clean, len(true.losses) // len(true.clean))
    return replace(true, losses=clean + (true.losses - clean).min())


def at_random(true: Scores, _: Scores | None, source: np.random.Generator) -> Scores:
    """Tell what is as likely as the truth."""
    clean = np.repeat(true.clean, len(true.losses) // len(true.clean))
    noise = source.normal(0, float((true.losses - clean).std()), len(clean))
    return replace(true, losses=(clean + noise).astype(np.float32))


def copied(true: Scores, before: Scores | None, _: np.random.Generator) -> Scores:
    """Tell once more what was told of the trials before."""
    return true if before is None or len(before.losses) != len(true.losses) else before


LIES: dict[str, Lie] = {
    "sign-flipped": sign_flipped,
    "constant": constant,
    "best of all": best_of_all,
    "random": at_random,
    "copied": copied,
}


@dataclass
class Liar:
    """Client 1, which lies from some step on, about some of its segments."""

    lie: Lie
    after: int = 0  # audits that it passes first
    share: float = 1.0  # of its segments
    began: int | None = None  # the first step that it lied in
    segments: int = 0  # that it has done since
    expelled: int | None = None  # the step at hand when it was
    last: Scores | None = None


class Panel:
    """A run with eight clients."""

    def __init__(self, seed: int, liar: Liar | None = None, clients: int = 8) -> None:
        """Let everybody join."""
        self.desk = Desk(LESSON)
        source = random.Random(seed)
        self.desk.coordinator = new_coordinator(LESSON, source=source)
        self.liar = liar
        self._source = np.random.default_rng(seed)
        self._known: dict[Segment, Scores] = {}  # of the step at hand
        self._shaped: tuple[int, Whiteners] = (-1, ())
        for client in range(1, clients + 1):
            self.desk.join(client)
            self._work()

    def run(self, steps: int) -> None:
        """Let that many steps go by."""
        end = self.desk.coordinator.step + steps
        while self.desk.coordinator.step < end:
            self.step()

    def step(self) -> None:
        """Let everybody answer; carry out what is ordered."""
        desk, step = self.desk, self.desk.coordinator.step
        self._known.clear()
        for peer in desk.coordinator.clients:
            begins = [b for b in desk.begins(peer.id) if b.step == step]
            if begins:
                desk.begins(peer.id).clear()
                self._answer(peer.id, begins[0])
        self._work()
        assert desk.coordinator.step == step + 1
        names = [peer.name for peer in desk.coordinator.clients]
        if self.liar and self.liar.expelled is None and "c1" not in names:
            self.liar.expelled = step

    def _answer(self, client: int, begin: Begin) -> None:
        groups = BLOCKS * LESSON.setting.block_groups
        done = first_groups(begin.segments, groups)
        told = [self._told(client, segment) for segment in done]
        if self.desk.peer(client).debts[begin.step].state:
            self.desk.send_state(client)
        result = self.desk.result(begin, groups=groups)
        self.desk.send(
            client,
            replace(
                result,
                losses=np.concatenate([scores.losses for scores in told]),
                clean=np.concatenate([scores.clean for scores in told]),
            ),
        )

    def _told(self, client: int, segment: Segment) -> Scores:
        """Return what a client says of a segment."""
        true, liar = self._true(segment), self.liar
        if liar is None or client != 1:
            return true
        records = self.desk.coordinator._audits._records
        passed = records[self.desk.peer(1)].agreed
        if liar.began is None and passed < liar.after:
            return true
        if liar.began is None:
            liar.began = self.desk.coordinator.step
        liar.segments += 1
        if self._source.random() >= liar.share:
            return true
        told = liar.lie(true, liar.last, self._source)
        liar.last = true
        return told

    def _true(self, segment: Segment) -> Scores:
        if segment not in self._known:
            state = self.desk.truth.state(self.desk.coordinator.step)
            tokens = LESSON.corpus.token_batch(0)
            if self._shaped[0] != state.step:
                shaped = LESSON.setting.whiteners(state.weights, tokens)
                self._shaped = state.step, shaped
            run = LESSON.setting, state.weights, tokens
            self._known[segment] = score(*run, segment, self._shaped[1])
        return self._known[segment]

    def _work(self) -> None:
        """Do what the server orders of its other threads."""
        desk, log = self.desk, self.desk.log
        while log.rescores or log.resums or log.replays or log.writing:
            while log.rescores:
                desk.do(rescored(LESSON, log.rescores.pop(0)))
            while log.resums:
                desk.do(resummed(LESSON, log.resums.pop(0)))
            while log.replays:
                desk.replay()
            desk.write()

    def records(self) -> Collection[Record]:
        """Return what audits know of everybody."""
        return self.desk.coordinator._audits._records.values()

    def loss(self) -> float:
        """Return the loss of the weights on text that they were not trained on."""
        state = self.desk.truth.state(self.desk.coordinator.step)
        rows = validation_rows(LESSON.corpus.validation)
        return clean_loss(LESSON.setting, state.weights, rows)

"""Liars in a run: who does not send the losses of its trials is found out.

The slow tests print their figures: pytest -s -m slow tests/test_liars.py
"""

import itertools
import math
import random
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.desk import BY_NODES, Desk, Lesson, added, hello, lesson, replayed
from tests.panel import LIES, Liar, Panel
from tests.wire import Node, Wire
from utilities.audits import FLOOR, TRUST, Audits, Record, Resum, Resummed, chance
from utilities.events import Joined
from utilities.evolution import Segment
from utilities.ledger import Check, Ledger, Purpose
from utilities.noise import Floats
from utilities.peers import Peer
from utilities.protocol import Message, Result, Sum
from utilities.steps import LEAST_PARTS, TimedStep

Lie = Callable[[Floats, np.random.Generator], Floats]


def sign_flipped(losses: Floats, _: np.random.Generator) -> Floats:
    """Return losses in which better and worse have changed places."""
    return np.asarray(2 * losses.mean() - losses, np.float32)


def lying(lie: Lie, seed: int = 1) -> Callable[[Message], Message]:
    """Return what makes of a client's true answers what it sends instead."""
    source = np.random.default_rng(seed)

    def tamper(message: Message) -> Message:
        if isinstance(message, Result) and len(message.losses):
            return replace(message, losses=lie(message.losses, source))
        return message

    return tamper


def run_with_liar(
    lie: Lie, honest: int, steps: int, **keys: Any
) -> tuple[Wire, list[Node]]:
    """Run some steps with a liar among honest clients."""
    wire = Wire(**keys)
    nodes = [wire.node(f"c{number}") for number in range(honest)]
    liar = wire.node("liar")
    liar.tamper = lying(lie)
    wire.run_to(steps)
    return wire, [*nodes, liar]


@pytest.mark.parametrize("honest", [1, 2])
@pytest.mark.parametrize("keys", [{}, {"trials_per_step": 24}])
def test_a_liar_is_expelled_by_name_and_nobody_else(
    honest: int, keys: dict[str, Any]
) -> None:
    wire, nodes = run_with_liar(sign_flipped, honest, 20, **keys)

    assert wire.log.said("liar expelled: its losses of step", warning=True)
    assert [peer.name for peer in wire.coordinator.clients] == [
        node.name for node in nodes[:-1]
    ]
    counts = wire.log.closed[-1].audits
    assert counts.expelled == 1
    assert counts.disagreements >= 1
    assert counts.audits > 2 * (honest - 1)
    assert wire.refusals == []
    wire.check()


def test_whoever_is_expelled_is_told_why_and_refused_from_then_on() -> None:
    wire, (*_, liar) = run_with_liar(sign_flipped, 2, 20)

    first, *others = liar.said_goodbye
    assert (first.end, first.reason[:29]) == (
        "refused",
        "expelled: its losses of step ",
    )
    assert others
    assert {goodbye.end for goodbye in others} == {"refused"}
    assert wire.log.said("liar refused: expelled: its losses of step", warning=True)


def test_a_client_alone_is_audited_by_the_server_when_its_state_was_checked() -> None:
    wire = Wire()
    ann = wire.node("ann")
    wire.run_to(20)
    counts = wire.log.closed[-1].audits
    assert counts.audits > 3
    assert counts.disagreements == 0

    ann.tamper = lying(sign_flipped)
    wire.run(lambda: wire.log.said("ann expelled: its losses of step", warning=True))

    wire.check()


def test_who_has_left_is_expelled_though_no_step_is_open() -> None:
    desk = Desk()
    desk.join(1, "ann")
    (ann,) = desk.coordinator.clients
    desk.leave(1)
    replay = desk.coordinator._ledger.before(0)
    trials = Resum(replay, 7, 0, (Segment(1, 0, 1),), np.ones(12, np.int8))
    desk.coordinator._audits.resum((ann, trials, np.zeros(3, np.int32)))

    desk.do(Resummed(np.ones(3, np.int64)))

    assert desk.log.said("ann expelled: its sum of step", warning=True)
    desk.do(Joined(2, hello("ann")))
    assert desk.log.said("ann refused: expelled: its sum", warning=True)


@pytest.mark.parametrize("keys", [{}, BY_NODES])
@pytest.mark.parametrize("lies", [True, False])
def test_a_sum_that_is_wrong_by_one_is_found_out(
    lies: bool, keys: dict[str, Any]
) -> None:
    wire = Wire(aggregation="sums", **keys)
    liar = wire.node("liar")
    for name in ("ann", "bob"):
        wire.node(name)

    place, by = (-1, 1) if wire.start.setting.by_nodes else (-1, 2)

    def tamper(message: Message) -> Message:
        if isinstance(message, Sum) and lies and message.step > 5:
            total = message.total.copy()
            total[place] += by  # as odd or even as it can be, and as large
            return replace(message, total=total)
        return message

    liar.tamper = tamper
    wire.truth.lied_to = lies
    wire.run_to(30)

    names = {peer.name for peer in wire.coordinator.clients}
    assert names == ({"ann", "bob"} if lies else {"liar", "ann", "bob"})
    words = "liar expelled: its sum of step"
    assert wire.log.said(words, warning=True) == lies
    assert wire.log.resums


def test_sums_are_checked_by_the_weights_that_their_trials_were_scored_on() -> None:
    wire = Wire(aggregation="sums", **BY_NODES)
    for name in ("ann", "bob"):
        wire.node(name)

    wire.run_to(30)

    differ = 0
    for command in wire.log.resums:
        state = replayed(wire.start, command.replay)
        assert state.step == command.step
        digest = state.digest(wire.start.setting.fingerprint)
        assert digest == wire.truth.digest(command.step)
        true = added(wire.start, command, state)
        wrong = added(wire.start, command, wire.start.state)
        differ += true.tolist() != wrong.tolist()
    assert differ > 5
    assert not wire.log.said("expelled")
    assert wire.log.computes == []


# --- the panel of liars ---------------------------------------------------------------

SEEDS = range(20)
STEPS = 60  # of a whole run
SURE = 0.99
SEGMENT_TRIALS = 32  # half of what a client of the panel scores in a step


def predicted(audited: float, lying: float) -> int:
    """Return after how many segments a liar is found out for sure: 99 %.

    Args:
        audited: share of the segments that are compared.
        lying: share of the segments that are lied about.
    """
    return math.ceil(math.log(1 - SURE) / math.log(1 - audited * lying))


def report(what: str, found: list[Liar], expected: int) -> int:
    """Print how long it took to find liars out; return how many were in time."""
    segments = [liar.segments for liar in found if liar.expelled is not None]
    in_time = sum(count <= expected for count in segments)
    limit = f"{expected} segments (about {expected * SEGMENT_TRIALS:,} trials)"
    spent = f"median {statistics.median(segments):g}, most {max(segments)}"
    print(f"\n{what:31} {in_time}/{len(found)} within {limit}: {spent}", end="")
    return in_time


@pytest.mark.slow
@pytest.mark.parametrize("name", LIES)
def test_newcomers_that_lie_are_expelled_in_time(name: str) -> None:
    expected = predicted(chance(0) / LEAST_PARTS / 2, 1.0)  # half of all meet in time
    found = []
    for seed in SEEDS:
        liar = Liar(LIES[name])
        panel = Panel(seed, liar)
        while liar.expelled is None and liar.segments <= expected:
            panel.step()
        assert len(panel.desk.coordinator.clients) >= 7
        found.append(liar)

    assert report(f"newcomer, {name}", found, expected) >= 19


@pytest.mark.slow
@pytest.mark.parametrize("share", [1.0, 0.25])
@pytest.mark.parametrize("name", LIES)
def test_trusted_clients_that_begin_to_lie_are_expelled_in_time(
    name: str, share: float
) -> None:
    expected = predicted(chance(TRUST) / LEAST_PARTS, share)
    found = []
    for seed in SEEDS:
        liar = Liar(LIES[name], share=share)
        panel = Panel(seed, liar)
        for record in panel.records():
            record.agreed, record.due = TRUST, False
        while liar.expelled is None and liar.segments <= expected:
            panel.step()
        assert len(panel.desk.coordinator.clients) >= 7
        found.append(liar)

    what = f"trusted, {name}, {share:.0%} lies"
    assert report(what, found, expected) >= 19


@cache
def honest_loss(seed: int) -> float:
    """Return the loss at the end of a run without the liar."""
    panel = Panel(seed, clients=7)
    panel.run(STEPS)
    counts = panel.desk.coordinator._audits.counts
    assert (counts.disagreements, counts.expelled) == (0, 0)
    return panel.loss()


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, TRUST])
@pytest.mark.parametrize("name", LIES)
def test_a_run_with_a_liar_learns_as_much_as_one_without(name: str, after: int) -> None:
    ratios = []
    for seed in range(4):
        panel = Panel(seed, Liar(LIES[name], after))
        panel.run(STEPS)
        ratios.append(panel.loss() / honest_loss(seed))

    how = f"{name} after {after} audits"
    print(f"\n{how:30} loss x {statistics.fmean(ratios):.3f}", end="")
    assert statistics.fmean(ratios) < 1.05


# --- honest clients -------------------------------------------------------------------


class Honest:
    """Steps of honest clients whose losses differ a little from machine to machine."""

    def __init__(self, seed: int, noise: float, **keys: Any) -> None:
        """Prepare eight clients that are trusted."""
        self.start: Lesson = lesson(**keys)
        self.audits = Audits(self.start.setting, random.Random(seed))
        self.peers = [Peer(n, f"c{n}", ready=True) for n in range(8)]
        for peer in self.peers:
            self.audits._records[peer] = Record(agreed=round(1 / FLOOR))
        self.counted = 0  # trials
        self._ledger = Ledger(self.start.setting, self.start.state)
        self._noise = noise
        self._source = np.random.default_rng(seed)
        self._seeds = itertools.count(1)

    def step(self, number: int, groups: int) -> int:
        """Let a step go by; return how many are suspected."""
        step = TimedStep(
            *(self.start.setting, number, 1.0, self._seeds.__next__),
            audits=self.audits,
        )
        for peer, segments in step.assign(self.peers, 0.0):
            result = self._result(number, segments, groups)
            peer.answer(result, 1.0)
            step.take(peer, result, 1.0)
        scored, _ = step.scored()
        each = self.start.setting.config.trials_per_group
        self.counted += each * sum(segment.groups for segment, _ in scored)
        check = Check(number, b"", tuple(self.peers), Purpose(), 0.0)
        return len(self.audits.close(check, step.pairs(), scored, 0, self._ledger))

    def _result(self, step: int, segments: tuple[Segment, ...], groups: int) -> Result:
        done = []
        for segment in segments:
            part = min(segment.groups, groups)
            groups -= part
            done += [replace(segment, groups=part)] if part else []
        losses = np.concatenate([self._losses(s, 4) for s in done])
        clean = np.concatenate([self._losses(s, 1) for s in done])
        return Result(step, b"", 0.1, 1.0, None, tuple(done), losses, clean)

    def _losses(self, segment: Segment, each: int) -> Floats:
        source = np.random.default_rng([segment.seed, each])
        true = source.normal(2.5, 0.25, segment.groups * each)
        noise = self._source.normal(0, self._noise, len(true))
        return (true + noise).astype(np.float32)


@pytest.mark.slow
def test_nobody_honest_is_suspected_in_a_hundred_thousand_trials() -> None:
    honest = Honest(3, 1e-6, batch_size=16)
    suspected = number = 0
    while honest.audits.counts.repeated < 100_000:
        for peer in honest.peers:
            honest.audits._records[peer].agreed = 0  # audited in every step
        suspected += honest.step(number, 256)
        number += 1

    counts = honest.audits.counts
    print(
        f"\n{counts.repeated:,} honest trials compared, {suspected} suspected", end=""
    )
    assert (suspected, counts.disagreements) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [1, 8, 64])
def test_audits_cost_less_than_three_percent_of_the_trials(blocks: int) -> None:
    honest = Honest(4, 0.0, batch_size=128)  # 512 rows: two groups a block
    for number in range(20):
        honest.step(number, 2 * blocks)  # until speeds are known
    before, counted = honest.audits.counts, honest.counted
    for number in range(20, 820):
        honest.step(number, 2 * blocks)

    after, trials = honest.audits.counts, honest.counted - counted
    repeated = after.repeated - before.repeated
    cost = repeated / (repeated + trials)
    each = 2 * (after.audits - before.audits) / (800 * len(honest.peers))
    print(
        f"\n{blocks} blocks a step: {cost:.2%} of the trials are done twice; "
        f"a client is compared in {each:.1%} of its steps",
        end="",
    )
    assert cost < 0.03
    assert each > 0.02

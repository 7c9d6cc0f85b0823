"""Runs in memory in which a seeded schedule of faults strikes the network.

    python -m tests.attacks.schedules FIRST COUNT   # plays them; prints figures

A schedule that fails is played again alone by its seed: FIRST is that, COUNT is 1.
"""

import json
import random
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from tests.attacks.schedule_model import History
from tests.desk import BY_NODES, Lesson, Log, Truth, lesson
from tests.wire import FINE, Fate, Link, Node, Wire
from utilities.events import Left, Received, Send, Stop
from utilities.orders import Command, Event
from utilities.protocol import Message, Result
from utilities.summing import Compute
from utilities.tally import Append

STEPS_AFTER = 3  # that a run has to go on for when all faults are over
PATIENCE = 120.0  # simulated seconds in which that has to happen
KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"trials_per_step": 24},
    {"directions_per_window": 0, "batch_size": 257},
    {"batch_limit": 200, "new_tokens_interval": 2, "check_point_time": 3.0},
    {"trials_per_step": 16, "check_point_time": 3.0},
    {"aggregation": "sums"},
    {"aggregation": "sums", "trials_per_step": 24},
    BY_NODES | {"aggregation": "sums"},
    {"aggregation": "auto", "batch_limit": 200, "new_tokens_interval": 1},
)
FAULTS = ("delay", "drop", "duplicate", "cut", "partition", "stop", "join", "flip")


class Told(Log):
    """A log that tells a history what was ordered."""

    def __init__(self, truth: Truth, history: History) -> None:
        """Begin with nothing."""
        super().__init__(truth)
        self._history = history

    def take(self, commands: Sequence[Command]) -> None:
        """Sort commands, and tell of them."""
        super().take(commands)
        for command in commands:
            match command:
                case Append():
                    self._history.wrote(command.update, command.closed.digest)
                case Compute():
                    self._history.computes(command)
                case Send():
                    for message in command.messages:
                        self._history.sent(command.client, message)
                case _:
                    pass


class Observed(Wire):
    """A wire whose history is held against the model."""

    def __init__(self, start: Lesson, **settings: Any) -> None:
        """Set up a run without clients."""
        super().__init__(start, **settings)
        self.history = History(start.setting)
        self.log = Told(self.truth, self.history)
        self.log.doubtful = True
        self._refuse: Callable[[], None] | None = None  # takes an answer back

    def happen(self, event: Event) -> None:
        """Tell the history of what the server gets before what follows from it."""
        if isinstance(event, Left):
            self.history.left(event.client)
        if isinstance(event, Received) and isinstance(event.message, Result):
            self._refuse = self.history.got(event.client, event.message)
        super().happen(event)
        self._refuse = None

    def _close(self, client: int, reason: str) -> None:
        if self._refuse is not None:  # it is an answer that broke the rules
            self._refuse()
            self._refuse = None
        super()._close(client, reason)


@dataclass
class Figures:
    """What came of many schedules."""

    schedules: int = 0
    steps: int = 0
    trials: int = 0
    checked: int = 0  # rewards, by the model
    replicas: int = 0  # compared in the end
    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAULTS, 0))
    failed: list[str] = field(default_factory=list)  # seed and why

    def add(self, other: "Figures") -> None:
        """Add what came of others."""
        for name in ("schedules", "steps", "trials", "checked", "replicas"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in FAULTS:
            self.faults[name] += other.faults[name]
        self.failed += other.failed

    def __str__(self) -> str:
        faults = ", ".join(f"{count:,} {name}" for name, count in self.faults.items())
        return (
            f"{self.schedules:,} schedules ({faults}): {self.steps:,} steps, "
            f"{self.trials:,} trials each counted once, {self.checked:,} rewards as in "
            f"the model, {self.replicas:,} replicas equal in the end, "
            f"{len(self.failed)} failed"
        )


class Schedule:
    """One run and its faults."""

    def __init__(self, seed: int, lessons: Sequence[Lesson]) -> None:
        """Draw what kind of run it is, and what strikes it."""
        self.random = random.Random(seed)
        choice = self.random.choice
        self.wire = Observed(
            lessons[seed % len(lessons)],
            encoded=choice([False, False, True]),
            delay=choice([0.0005, 0.05]),
            job_seconds=choice([0.01, 0.5]),
            slow_disk=choice([False, True]),
        )
        self.wire.fate = self._fate
        self.counts = dict.fromkeys(FAULTS, 0)
        # A connection loses nothing of what comes before its end, and nothing twice;
        # whoever is in between may. With it, clients are rightly refused.
        self.lossy = self.random.random() < 0.5
        self.wire.history.faithful = self.random.random() < 0.8
        self._apart: dict[Node, float] = {}  # until when it hears nobody
        self._calm = False
        for _ in range(self.random.randint(1, 3)):
            self.join()

    # Faults of single messages.

    def _fate(self, link: Link, message: Message) -> Fate:
        if self._calm:
            return FINE
        until = max((t for n, t in self._apart.items() if n.link is link), default=0.0)
        if until > self.wire.now:
            return (until - self.wire.now,)  # it is sent again until it arrives
        chance = self.random.random()
        if chance < 0.04:
            return self._noted("delay", self.random.uniform(0, 3))
        if self.lossy and chance < 0.06:
            return self._noted("drop")
        if self.lossy and chance < 0.08:
            return self._noted("duplicate", 0.0, self.random.choice([0.0, 0.7]))
        return FINE

    def _noted(self, fault: str, *late: float) -> Fate:
        self.counts[fault] += 1
        return late

    # Faults of connections, processes and memory.

    def join(self) -> None:
        """Let one more client join, fast or slow, that comes back or not."""
        choice, nodes = self.random.choice, self.wire.nodes
        if len(nodes) < 4:
            seconds, again = choice([0.3, 0.5, 2.5]), choice([0.1, 2.0, None])
            self.wire.node(f"c{len(nodes)}", block_seconds=seconds, rejoin=again)
            self.counts["join"] += 1

    def _partition(self, node: Node) -> None:
        """Part some clients from the server, whose connections may survive it."""
        seconds = self.random.uniform(0.2, 6.0)
        for other in self.wire.nodes:
            if other is node or self.random.random() < 0.4:
                self._apart[other] = self.wire.now + seconds
                if self.random.random() < 0.3:  # a time limit of the system's
                    self.wire.after(seconds, partial(self.wire.cut, other))
        self.counts["partition"] += 1

    def _cut(self, node: Node) -> None:
        self.wire.cut(node)
        self.counts["cut"] += 1

    def _stop(self, node: Node) -> None:
        self.wire.stop(node, self.random.uniform(0.1, 8.0))
        self.counts["stop"] += 1

    def _flip(self, node: Node) -> None:
        if not self.wire.history.faithful and node.worker.step is not None:
            node.corrupt()
            self.counts["flip"] += 1

    def _strike(self) -> None:
        self.wire.run_for(self.random.uniform(0.1, 3.0))
        node = self.random.choice(self.wire.nodes)
        strikes: list[Callable[[Node], None]] = [
            *(self._cut, self._stop, self._partition, self._flip),
            lambda _: self.join(),
        ]
        self.random.choice(strikes)(node)

    # The whole.

    def play(self) -> Figures:
        """Let the faults strike, then hold the run against the model."""
        wire = self.wire
        for _ in range(self.random.randint(2, 6)):
            self._strike()
        self._settle()
        wire.happen(Stop())
        wire.run(lambda: wire.log.finished, PATIENCE)
        final = max(wire.log.saves, key=lambda save: save.state.step)
        replicas = [
            node.worker.digest
            for node in wire.nodes
            if node.worker.step == final.state.step
        ]
        wire.history.check(wire.coordinator.step, [final.digest, *replicas])
        assert final.state.step == wire.coordinator.step
        wire.check()
        if not self.lossy:
            assert wire.refusals == []
            errors = [error for node in wire.nodes for error in node.errors]
            # Where memory fails between its hello and the answer, a client notices.
            flips = not wire.history.faithful
            assert all(flips and e.startswith("resume: expected a") for e in errors)
        history = wire.history
        counted = history.trials, history.checked
        return Figures(1, history.step, *counted, len(replicas), self.counts)

    def _settle(self) -> None:
        """End all faults; the run has to go on with everybody."""
        self._calm = True
        wire = self.wire
        for node in wire.nodes:
            node.rejoin_after = 0.5
            if self.lossy:  # what was lost needs a new session
                wire.cut(node)
            wire.connect(node)
        step = wire.coordinator.step

        def mended() -> bool:
            steps = [node.worker.step or 0 for node in wire.nodes]
            return min(steps) > step and not any(n.deviates for n in wire.nodes)

        wire.run(lambda: wire.coordinator.step >= step + STEPS_AFTER, PATIENCE)
        wire.run(mended, PATIENCE)


def play(seeds: Sequence[int]) -> Figures:
    """Play schedules; those that fail are named with the reason."""
    tiny = {"sequence_length": 4}
    lessons = [lesson(**(tiny | kind)) for kind in KINDS]
    figures = Figures()
    for seed in seeds:
        try:
            figures.add(Schedule(seed, lessons).play())
        except Exception:  # noqa: BLE001 - whatever it is, the seed has to be known
            figures.failed.append(f"seed {seed}: {traceback.format_exc()}")
    return figures


def main() -> None:
    """Play the schedules that are asked for; print the figures."""
    first, count = map(int, sys.argv[1:3])
    print(json.dumps(asdict(play(range(first, first + count)))))


if __name__ == "__main__":
    main()

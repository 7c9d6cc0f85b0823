"""A coordinator and real workers, joined in memory on a simulated clock.

The network of a `Wire` delivers, delays, drops, duplicates and cuts as a test asks;
its nodes have a speed and can be stopped. Messages may pass through bytes. What the
server orders is held against `Truth` as on a `Desk`.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tests.desk import (
    START,
    Lesson,
    Log,
    Truth,
    computed,
    hello,
    lesson,
    new_coordinator,
    replayed,
    rescored,
    resummed,
)
from utilities.audits import Rescore, Resum
from utilities.errors import ProtocolError
from utilities.events import Drop, Joined, Left, Received, Send, Tick
from utilities.evolution import TrainState
from utilities.ledger import Replay, Replayed, Save, Saved
from utilities.opening import Limits
from utilities.orders import Command, Event, ahead
from utilities.protocol import Goodbye, Hello, Message, Welcome
from utilities.returning import Retrace, retrace
from utilities.summing import Compute
from utilities.wire import Inbox, Side, encode
from utilities.worker import Worker

# Simulated time.

Fate = Sequence[float]  # how many copies arrive, and with what delay
FINE: Fate = (0.0,)


@dataclass
class Link:
    """One session between a node and the server; messages keep their order."""

    client: int
    to_server: Inbox = field(default_factory=lambda: Inbox(Side.CLIENT))
    to_node: Inbox = field(default_factory=lambda: Inbox(Side.SERVER))
    open: bool = True
    last_up: float = 0.0
    last_down: float = 0.0


class Node:
    """A client's process: a worker, its speed, and what it has not read yet."""

    def __init__(self, wire: "Wire", name: str, block_seconds: float) -> None:
        """Start a process; it connects when it is told to."""
        self.name = name
        self.worker = Worker(self._clock, self._on_block)
        self.block_seconds = block_seconds
        self.link: Link | None = None
        self.stopped = False
        self.rejoin_after: float | None = None  # None: it stays away
        self.errors: list[str] = []
        self.said_goodbye: list[Goodbye] = []
        self.deviates = False  # a test has tampered with its replica
        self.tamper: Callable[[Message], Message] = lambda message: message
        self._wire = wire
        self._welcomed = False  # in this session
        self._time = wire.now
        self._queue: list[Message] = []

    def _clock(self) -> float:
        self._time += 1e-4  # reading the clock takes a moment, so that updates do too
        return self._time

    def _on_block(self, _: int) -> None:
        self._time += self.block_seconds

    def corrupt(self) -> None:
        """Change the last bit of one weight, another one in every machine.

        The state that an update leads to has it, too, where that is not taken yet.
        """
        state, following = self.worker._state, self.worker._next
        assert state is not None
        self.worker._state = self._flipped(state)
        if following is not None:
            self.worker._next = following[0], self._flipped(following[1])
        self.worker._digest = b""
        self.deviates = True

    def _flipped(self, state: TrainState) -> TrainState:
        weights = state.weights.copy()
        place = self._wire.nodes.index(self)
        weights[place] = np.nextafter(weights[place], np.float32(np.inf))
        return replace(state, weights=weights)

    def arrive(self, message: Message) -> None:
        """Queue a message and read it when there is time."""
        self._queue.append(message)
        self.wake()

    def wake(self) -> None:
        """Go on as soon as the work at hand is done."""
        self._wire.at(max(self._time, self._wire.now), self._run)

    def _run(self) -> None:
        if self.stopped or self.link is None or self._time > self._wire.now + 1e-9:
            return
        self._time = self._wire.now
        try:
            while self._queue:
                self._read(self._queue.pop(0))
        except ProtocolError as error:
            self.errors.append(str(error))
            self._wire.cut(self, "the server broke the rules")
            return
        if self._welcomed and self.worker.busy:
            replies = [self.tamper(reply) for reply in self.worker.work()]
            link = self.link
            self._wire.at(self._time, lambda: self._send(link, replies))
            self.wake()

    def _read(self, message: Message) -> None:
        if isinstance(message, Goodbye):
            self.said_goodbye.append(message)
            return
        self.worker.handle(message)
        self._welcomed = True  # nothing else comes first
        if isinstance(message, Welcome):
            self.deviates = False

    def _send(self, link: Link | None, replies: list[Message]) -> None:
        if self.stopped:
            self._wire.at(self._wire.now + 0.05, lambda: self._send(link, replies))
        elif link is not None and link is self.link:
            for reply in replies:
                self._wire.up(link, reply)

    def forget(self) -> None:
        """Lose what a session that has ended still wanted."""
        self.link, self._welcomed = None, False
        self._queue.clear()


class Wire:
    """A server and any number of clients on one simulated clock."""

    def __init__(
        self,
        start: Lesson | None = None,
        *,
        limits: Limits | None = None,
        seconds: float = 0.0,
        encoded: bool = False,
        delay: float = 0.001,
        job_seconds: float = 0.05,
        slow_disk: bool = False,
        **keys: Any,
    ) -> None:
        """Set up a run without clients.

        Args:
            start: the run, or None for one made of `keys`.
            limits: when it ends by itself.
            seconds: that it has trained before.
            encoded: pass messages through bytes.
            delay: seconds that every message travels.
            job_seconds: that a replay or a save takes.
            slow_disk: send updates ahead of it.
            **keys: of `lesson`.
        """
        self.start = start or lesson(**keys)
        self.coordinator = new_coordinator(self.start, seconds=seconds, limits=limits)
        self.truth = Truth(self.start)
        self.log = Log(self.truth)
        self.now = START
        self.nodes: list[Node] = []
        self.refusals: list[str] = []  # of clients that broke the rules
        self.fate: Callable[[Link, Message], Fate] = lambda link, message: FINE
        self._encoded = encoded
        self._delay = delay
        self._job_seconds = job_seconds
        self._slow_disk = slow_disk
        self._ids = itertools.count(1)
        self._links: dict[int, tuple[Link, Node]] = {}
        self._order = itertools.count()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []

    # Time.

    def at(self, moment: float, action: Callable[[], None]) -> None:
        """Do something at a moment."""
        heapq.heappush(self._agenda, (moment, next(self._order), action))

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something some seconds from now."""
        self.at(self.now + seconds, action)

    def run(self, until: Callable[[], bool], seconds: float = 1e4) -> None:
        """Let time pass until something holds; it has to, within some seconds."""
        end = self.now + seconds
        while not until():
            assert self._agenda, "nothing will ever happen again"
            moment, _, action = heapq.heappop(self._agenda)
            assert moment <= end, f"not within {seconds} s: {self._picture()}"
            self.now = max(self.now, moment)
            action()

    def run_for(self, seconds: float) -> None:
        """Let some seconds pass."""
        passed: list[bool] = []
        self.after(seconds, lambda: passed.append(True))
        self.run(lambda: bool(passed), seconds + 1)

    def run_to(self, step: int) -> None:
        """Let time pass until the server is at a step."""
        self.run(lambda: self.coordinator.step >= step)

    def _picture(self) -> str:
        nodes = [(n.name, n.worker.step, n.stopped, n.link) for n in self.nodes]
        return f"step {self.coordinator.step}, {nodes}, {self.log.notes[-3:]}"

    # The server.

    def happen(self, event: Event) -> None:
        """Give the coordinator an event and carry out what it orders."""
        try:
            commands = self.coordinator.handle(event, self.now)
        except ProtocolError as error:
            assert isinstance(event, Received)
            self.refusals.append(str(error))
            self._close(event.client, str(error))
            return
        commands = ahead(commands) if self._slow_disk else commands
        self.log.take(commands)
        for command in commands:
            self._carry_out(command)
        wakeup = self.coordinator.wakeup(self.now)
        if wakeup is not None:
            self.at(wakeup, lambda: self.happen(Tick()))

    def _carry_out(self, command: Command) -> None:
        match command:
            case Send():
                for message in command.messages:
                    self._down(command.client, message)
            case Drop():
                self._down(command.client, command.goodbye)
                link, node = self._links[command.client]
                self.after(self._delay + 0.01, lambda: self._hang_up(link, node))
            case Replay():
                state = replayed(self.start, command)
                self._later(Replayed(state))
            case Retrace():
                found = retrace(self.start.setting, self.start.corpus, command)
                self._later(found)
            case Compute():
                result = computed(self.start, command)
                self._later(result)
            case Rescore():
                scored = rescored(self.start, command)
                self._later(scored)
            case Resum():
                summed = resummed(self.start, command)
                self._later(summed)
            case Save():
                step = command.state.step
                self._later(Saved(step))

    def _later(self, event: Event) -> None:
        """Report what a thread has done, unless the server is another one by then."""
        server = self.coordinator

        def report() -> None:
            if self.coordinator is server:
                self.happen(event)

        self.after(self._job_seconds, report)

    def _close(self, client: int, reason: str) -> None:
        link, node = self._links[client]
        self._hang_up(link, node)
        self.happen(Left(client, reason))

    def _hang_up(self, link: Link, node: Node) -> None:
        if link.open:
            link.open = False
            node.forget()
            if node.rejoin_after is not None:
                self.after(node.rejoin_after, lambda: self.connect(node))

    # The network.

    def node(
        self, name: str, *, block_seconds: float = 0.3, rejoin: float | None = 0.5
    ) -> Node:
        """Start a client and connect it."""
        node = Node(self, name, block_seconds)
        node.rejoin_after = rejoin
        self.nodes.append(node)
        self.connect(node)
        return node

    def connect(self, node: Node) -> None:
        """Let a client say hello."""
        if node.link is not None or self.log.finished:
            return
        link = Link(next(self._ids))
        node.link = link
        self._links[link.client] = (link, node)
        worker = node.worker
        held = {"last_digest": worker.digest, "batches": worker.batches}
        self.up(link, hello(node.name, last_step=worker.step, **held))

    def restart(self, step: int) -> None:
        """Lose the server, which finds itself at an earlier step when it is back."""
        for link, node in list(self._links.values()):
            self._hang_up(link, node)
        start = replace(self.start, state=self.truth.state(step))
        self.coordinator = new_coordinator(start)

    def cut(self, node: Node, reason: str = "cable pulled") -> None:
        """Break a client's connection; both ends notice."""
        if node.link is not None:
            self._close(node.link.client, reason)

    def up(self, link: Link, message: Message) -> None:
        """Carry a message to the server."""
        for late in self.fate(link, message):
            link.last_up = max(link.last_up, self.now + self._delay + late)
            self.at(link.last_up, lambda: self._arrive(link, message))

    def _arrive(self, link: Link, message: Message) -> None:
        if not link.open:
            return
        try:
            for read in self._as_read(link.to_server, message):
                if isinstance(read, Hello):
                    self.happen(Joined(link.client, read))
                else:
                    self.happen(Received(link.client, read))
        except ProtocolError as error:
            self.refusals.append(str(error))
            self._close(link.client, str(error))

    def _down(self, client: int, message: Message) -> None:
        link, node = self._links[client]
        for late in self.fate(link, message):
            link.last_down = max(link.last_down, self.now + self._delay + late)
            self.at(link.last_down, lambda: self._deliver(link, node, message))

    def _deliver(self, link: Link, node: Node, message: Message) -> None:
        if not (link.open and node.link is link):
            return
        try:
            for read in self._as_read(link.to_node, message):
                node.arrive(read)
        except ProtocolError as error:
            node.errors.append(str(error))
            self.cut(node, "the server broke the rules")

    def _as_read(self, inbox: Inbox, message: Message) -> Iterator[Message]:
        if not self._encoded:
            yield message
            return
        data = b"".join(encode(message))
        for start in range(0, len(data), 1000):
            inbox.feed(data[start : start + 1000])
            yield from inbox.messages()

    # Faults.

    def stop(self, node: Node, seconds: float) -> None:
        """Freeze a process for some seconds, as SIGSTOP does."""
        node.stopped = True

        def go_on() -> None:
            node.stopped = False
            node._time = max(node._time, self.now)
            node.wake()

        self.after(seconds, go_on)

    # What must hold.

    def check(self) -> None:
        """Hold that nothing was counted twice and that replicas are the true state."""
        self.truth.check()
        for node in self.nodes:
            worker, link = node.worker, node.link
            if link is not None and worker.step is not None and not node.deviates:
                assert worker.digest == self.truth.digest(worker.step), node.name

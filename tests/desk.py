"""One coordinator on a clock that only moves when a test says so.

`Desk` drives a coordinator event by event; the test plays all clients. Everything that
is sent is held against `Truth`, which applies each update once, in order, by itself.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tests.messages import comparable
from utilities.audits import Rescore, Rescored, Resum, Resummed
from utilities.config import Config
from utilities.coordinator import Coordinator
from utilities.data import Corpus, Text, build_corpus, build_vocabulary, log_frequencies
from utilities.events import Drop, Finish, Joined, Left, Note, Received, Send, Tick
from utilities.evolution import (
    Segment,
    Setting,
    Totals,
    TrainState,
    Update,
    advance,
    initial_state,
    nodes_of,
    total,
)
from utilities.ledger import Replay, Replayed, Save, Saved
from utilities.model import Tokens
from utilities.noise import Floats
from utilities.opening import Limits
from utilities.orders import Command, Event
from utilities.peers import Peer
from utilities.protocol import (
    PROTOCOL_VERSION,
    Begin,
    Hello,
    Message,
    Result,
    Shares,
    State,
    Sum,
    Welcome,
)
from utilities.rewards import Rewards
from utilities.scheduling import losses_per_group
from utilities.scoring import score
from utilities.selftest import ARITHMETIC_EXPECTED, NOISE_EXPECTED
from utilities.summing import Compute, Computed
from utilities.tally import Append, Closed

TEXT = "the cat sat on the mat. a dog did not. so it goes, day by day, for ever.\n" * 20
RUN_SEED = 5
# A run whose sums need the weights: 42 places of a group, and 525 rows of a block.
BY_NODES: dict[str, Any] = {
    "batch_size": 21,
    "sequence_length": 2,
    "burn_in": 2,
    "directions_per_window": 24,
}
START = 100.0  # the clock does not begin at zero


@dataclass(frozen=True)
class Lesson:
    """A run that is about to begin."""

    setting: Setting
    corpus: Corpus
    state: TrainState


def lesson(batch_limit: int | None = None, **keys: Any) -> Lesson:
    """Return a tiny run; one block is one group of four trials."""
    defaults: dict[str, Any] = {
        "hidden_size": 4,
        "sequence_length": 8,
        "burn_in": 0,
        "directions_per_window": 4,
        "output_trials": "none",
        "batch_size": 129,  # 516 rows: no second group fits a block of 1,024; and more
        # places than nodes are estimated of, so that sums need no weights
        "time_per_step": 1.0,
        "check_point_time": 1e6,
        "aggregation": "seeds",  # a desk has to answer sums by hand
    }
    text = Text("tiny", (TEXT,))
    vocabulary = build_vocabulary(text, None)
    config = Config(**(defaults | {"vocab_size": vocabulary.size} | keys))
    corpus = build_corpus(text, vocabulary, config.window_length)
    if batch_limit is not None:
        corpus = replace(corpus, token_batch_limit=batch_limit)
    setting = Setting(config, text.sha256)
    frequencies = log_frequencies(corpus.train, vocabulary.size)
    return Lesson(setting, corpus, initial_state(setting, 1, frequencies))


def hello(name: str = "ann", **changes: Any) -> Hello:
    """Return what an honest client says first."""
    return replace(
        Hello(
            protocol=PROTOCOL_VERSION,
            program="1.0",
            python="3.12.1",
            numpy="2.1.0",
            name=name,
            noise_test=NOISE_EXPECTED,
            arithmetic_test=ARITHMETIC_EXPECTED,
        ),
        **changes,
    )


def other_digest(digest: bytes) -> bytes:
    """Return a digest that differs in every byte."""
    return bytes(byte ^ 255 for byte in digest)


def state_message(state: TrainState) -> State:
    """Return a state as a client sends it."""
    return State(state.step, state.count, *state.arrays)


def first_groups(segments: Sequence[Segment], groups: int) -> tuple[Segment, ...]:
    """Return the first groups of segments, or all of them where there are fewer."""
    done = []
    for segment in segments:
        part = min(segment.groups, groups)
        groups -= part
        if part:
            done.append(replace(segment, groups=part))
    return tuple(done)


def made_up(
    done: Sequence[Segment], each: int, value: float | None, stream: int = 0
) -> Floats:
    """Return losses that depend on the trial alone, or all the same."""
    losses = [np.zeros(0, np.float32)]
    for segment in done:
        for group in range(segment.first, segment.first + segment.groups):
            source = np.random.default_rng([segment.seed, group, stream])
            losses.append(source.uniform(2, 3, each).astype(np.float32))
    every = np.concatenate(losses)
    return every if value is None else np.full_like(every, value)


class Truth:
    """What everybody must agree on: each update once, applied in order."""

    def __init__(self, start: Lesson) -> None:
        """Begin with the first state."""
        self.start = start
        self.updates: dict[int, Update] = {}
        self.rewarded: dict[int, dict[Segment, bytes]] = {}  # by step, to be summed up
        self._states = {start.state.step: start.state}
        self.lied_to = False  # a liar's sum may be in a total

    def note(self, update: Update) -> None:
        """Take an update that was sent; a step has only one."""
        known = self.updates.setdefault(update.step, update)
        assert comparable(known) == comparable(update)
        if known is update and update.summed and not self.lied_to:
            self._add_up(update)

    def reward(self, part: Shares | Compute) -> None:
        """Take rewards that are to be summed up; a trial has only one."""
        rewarded, start = self.rewarded.setdefault(part.step, {}), 0
        for segment in part.segments:
            end = start + segment.groups * self.start.setting.config.trials_per_group
            rewards = part.rewards[start:end].tobytes()
            assert rewarded.setdefault(segment, rewards) == rewards
            start = end
        assert start == len(part.rewards)

    def _add_up(self, update: Update) -> None:
        """Hold that a total is that of all trials that were rewarded."""
        rewarded = sorted(self.rewarded[update.step].items())
        rewards = np.frombuffer(b"".join(each for _, each in rewarded), np.int8)
        segments = [segment for segment, _ in rewarded]
        tokens = self.start.corpus.token_batch(update.token_batch)
        trials = tokens, segments, rewards
        expected = total_of(self.start, self.state(update.step), *trials)
        assert update.total.tolist() == expected.tolist()
        assert (update.segments, len(update.rewards)) == ((), 0)
        assert update.trials == len(rewards)

    def state(self, step: int) -> TrainState:
        """Return the state before a step."""
        newest = max(known for known in self._states if known <= step)
        while newest < step:
            update = self.updates[newest]
            tokens = self.start.corpus.token_batch(update.token_batch)
            after = advance(self.start.setting, self._states[newest], update, tokens)
            newest += 1
            self._states[newest] = after
        return self._states[step]

    def forget(self, step: int) -> None:
        """Let another history begin at a step."""
        self.updates = {at: u for at, u in self.updates.items() if at < step}
        self._states = {at: s for at, s in self._states.items() if at <= step}

    def digest(self, step: int) -> bytes:
        """Return the digest of the state before a step."""
        return self.state(step).digest(self.start.setting.fingerprint)

    def check(self) -> None:
        """Hold that no trial was counted twice and no seed taken twice."""
        seeds = [s.seed for u in self.updates.values() for s in u.segments]
        summed = [u.step for u in self.updates.values() if u.summed]
        seeds += [s.seed for step in summed for s in self.rewarded[step]]
        assert len(seeds) == len(set(seeds))
        for update in self.updates.values():
            if update.summed:
                continue
            groups = sum(segment.groups for segment in update.segments)
            trials = groups * self.start.setting.config.trials_per_group
            assert trials == update.trials == len(update.rewards)


@dataclass
class Log:
    """What a coordinator has ordered, message by message."""

    truth: Truth
    mail: dict[int, list[Message]] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    drops: list[Drop] = field(default_factory=list)
    closed: list[Closed] = field(default_factory=list)
    saves: list[Save] = field(default_factory=list)
    writing: list[Save] = field(default_factory=list)  # of them; not yet reported
    replays: list[Replay] = field(default_factory=list)
    computes: list[Compute] = field(default_factory=list)
    rescores: list[Rescore] = field(default_factory=list)
    resums: list[Resum] = field(default_factory=list)
    issued: list[tuple[int, Begin]] = field(default_factory=list)
    shares: dict[int, Shares] = field(default_factory=dict)  # the last of each client
    finished: bool = False
    doubtful: bool = False  # a lone client's digest may pass until its state is checked

    def take(self, commands: Sequence[Command]) -> None:
        """Sort commands by kind and hold them against the truth."""
        for command in commands:
            match command:
                case Send():
                    self._send(command)
                case Drop():
                    self.drops.append(command)
                case Note():
                    self.notes.append(command)
                case Append():
                    self.closed.append(command.closed)
                    closed = command.closed
                    true = closed.digest == self.truth.digest(closed.step)
                    assert true or self.doubtful
                case Save():
                    self.saves.append(command)
                    self.writing.append(command)
                    assert command.digest == self.truth.digest(command.state.step)
                case Replay():
                    self.replays.append(command)
                case Rescore():
                    self.rescores.append(command)
                case Resum():
                    self.resums.append(command)
                case Compute():
                    self.computes.append(command)
                    self.truth.reward(command)
                case Finish():
                    assert not self.finished
                    self.finished = True

    def _send(self, send: Send) -> None:
        self.mail.setdefault(send.client, []).extend(send.messages)
        for message in send.messages:
            if isinstance(message, Update):
                self.truth.note(message)
            if isinstance(message, Begin):
                self.issued.append((send.client, message))
            if isinstance(message, Shares):
                self.shares[send.client] = message
                self.truth.reward(message)
            if isinstance(message, Welcome):
                assert message.digest == self.truth.digest(message.step)

    def said(self, words: str, *, warning: bool | None = None) -> bool:
        """Return whether a note has these words in it."""
        return any(
            words in note.text and warning in (None, note.warning)
            for note in self.notes
        )


class NoAudits(random.Random):
    """Chance by which no audit is ever due."""

    def random(self) -> float:
        """Return what is below no probability."""
        return 1.0


def new_coordinator(
    start: Lesson,
    *,
    seconds: float = 0.0,
    limits: Limits | None = None,
    source: random.Random | None = None,
) -> Coordinator:
    """Return a coordinator at the fake clock's start."""
    setting, corpus, state = start.setting, start.corpus, start.state
    begun = state, START, seconds, limits
    return Coordinator(setting, corpus, RUN_SEED, *begun, source=source)


class Desk:
    """One coordinator, and a test that plays everybody else."""

    def __init__(
        self,
        start: Lesson | None = None,
        *,
        limits: Limits | None = None,
        seconds: float = 0.0,
        audited: bool = False,
        **keys: Any,
    ) -> None:
        """Set up a run; keys are those of `lesson`."""
        self.start = start or lesson(**keys)
        source = None if audited else NoAudits()
        self.coordinator = new_coordinator(
            self.start, seconds=seconds, limits=limits, source=source
        )
        self.truth = Truth(self.start)
        self.log = Log(self.truth)
        self.now = START
        self._begins: dict[int, list[Begin]] = {}

    def do(self, event: Event, after: float = 0.0) -> list[Command]:
        """Let something happen some seconds later."""
        self.now += after
        issued = len(self.log.issued)
        commands = self.coordinator.handle(event, self.now)
        self.log.take(commands)
        for client, begin in self.log.issued[issued:]:
            self._begins.setdefault(client, []).append(begin)
        return commands

    def tick(self, after: float = 0.0) -> None:
        """Let time pass."""
        self.do(Tick(), after)

    def join(self, client: int, name: str = "", **changes: Any) -> list[Message]:
        """Let a client join; return what it gets."""
        self.do(Joined(client, hello(name or f"c{client}", **changes)))
        return self.mail(client)

    def leave(self, client: int, reason: str = "cable pulled") -> None:
        """Let a client go."""
        self._begins.pop(client, None)
        self.do(Left(client, reason))

    def mail(self, client: int) -> list[Message]:
        """Return what a client has got since it was last asked."""
        return self.log.mail.pop(client, [])

    def kinds(self, client: int) -> list[str]:
        """Return the kinds of messages that a client has got."""
        return [type(message).__name__ for message in self.mail(client)]

    def begins(self, client: int) -> list[Begin]:
        """Return what a client was asked for and has not answered."""
        return self._begins.setdefault(client, [])

    def result(
        self,
        begin: Begin,
        *,
        digest: bytes | None = None,
        update_seconds: float = 0.01,
        groups: int = 1,
        loss: float | None = None,
    ) -> Result:
        """Return an answer with losses made up, or all the same."""
        each, clean = losses_per_group(self.start.setting)
        done = first_groups(begin.segments, groups)
        return Result(
            begin.step,
            self.truth.digest(begin.step) if digest is None else digest,
            update_seconds,
            1.0,
            None,
            done,
            made_up(done, each, loss),
            made_up(done, clean, None, 1),
        )

    def answer(self, client: int, after: float = 0.0, **how: Any) -> None:
        """Let a client answer its oldest request of the step at hand, as a worker."""
        step = self.coordinator.step
        begins = [begin for begin in self.begins(client) if begin.step == step]
        self._begins[client] = begins[1:]
        self.do(Received(client, self.result(begins[0], **how)), after)

    def answer_late(self, client: int, after: float = 0.0, **how: Any) -> None:
        """Let a client answer its oldest request, whatever step it was of."""
        begin = self.begins(client).pop(0)
        self.do(Received(client, self.result(begin, **how)), after)

    def send(self, client: int, message: Message) -> None:
        """Let a client send anything."""
        self.do(Received(client, message))

    def send_state(self, client: int, state: TrainState | None = None) -> None:
        """Let a client send the true state of the step at hand, or another."""
        true = self.truth.state(self.coordinator.step)
        self.send(client, state_message(state or true))

    def sum(self, client: int, *, seconds: float = 0.01, **changes: Any) -> Sum:
        """Return the sum of the trials that a client was last given rewards of."""
        shares = self.log.shares[client]
        state = self.truth.state(shares.step)
        sums = added(self.start, shares, state).astype(np.int32)
        return replace(Sum(shares.step, seconds, sums), **changes)

    def add_up(self, client: int, after: float = 0.0, **how: Any) -> None:
        """Let a client send the sum of its trials."""
        self.do(Received(client, self.sum(client, **how)), after)

    def compute(self) -> None:
        """Carry out the oldest sum that the server computes itself."""
        self.do(computed(self.start, self.log.computes.pop(0)))

    def replay(self) -> None:
        """Carry out the oldest replay that was ordered."""
        self.do(Replayed(replayed(self.start, self.log.replays.pop(0))))

    def write(self) -> None:
        """Report all states as written that were to be saved."""
        while self.log.writing:
            self.do(Saved(self.log.writing.pop(0).state.step))

    def over(self) -> bool:
        """Return whether the run has ended."""
        return self.log.finished

    def saved(self) -> list[tuple[int, bool]]:
        """Return each step that was to be saved, and whether to resume from it."""
        return [(save.state.step, save.checkpoint) for save in self.log.saves]

    def step(self, *clients: int) -> None:
        """Let these clients answer once each, with the state where it is asked for."""
        for client in clients:
            if self.asked(client):
                self.send_state(client)
            self.answer(client)

    def steps(self, count: int, *clients: int) -> None:
        """Let that many steps go by, with replays as they are ordered."""
        for _ in range(count):
            self.step(*clients)
            while self.log.replays:
                self.replay()

    def close(self, *clients: int) -> None:
        """Let these clients answer whatever they are asked until the step closes."""
        step = self.coordinator.step
        while self.coordinator.step == step:
            for client in clients:
                if any(begin.step == step for begin in self.begins(client)):
                    if self.peer(client).debts[step].state:
                        self.send_state(client)
                    self.answer(client)
            while self.log.replays:
                self.replay()

    def asked(self, client: int) -> bool:
        """Return whether a client's newest request wants its state."""
        return self.begins(client)[-1].state_wanted

    def seeds(self, client: int) -> list[int]:
        """Return the seeds of the requests that a client has not answered."""
        return [s.seed for begin in self.begins(client) for s in begin.segments]

    def peer(self, client: int) -> Peer:
        """Return what the coordinator knows of a client."""
        return next(peer for peer in self.coordinator.clients if peer.id == client)


def total_of(
    start: Lesson,
    state: TrainState,
    tokens: Tokens,
    segments: Sequence[Segment],
    rewards: Rewards,
) -> Totals:
    """Return the sum over trials of reward times signs, or of what they tell."""
    nodes = nodes_of(start.setting, state.weights, tokens)
    return total(start.setting, nodes, tokens, segments, rewards)


def added(start: Lesson, part: Shares | Compute | Resum, state: TrainState) -> Totals:
    """Return the sum of some trials that were scored on a state."""
    tokens = start.corpus.token_batch(part.token_batch)
    return total_of(start, state, tokens, part.segments, part.rewards)


def computed(start: Lesson, command: Compute) -> Computed:
    """Return what the server's own sum comes to."""
    return Computed(command.step, command.half, added_again(start, command))


def resummed(start: Lesson, command: Resum) -> Resummed:
    """Return what the server finds when it adds up trials itself."""
    if not start.setting.by_nodes:
        return Resummed(added_again(start, command))
    digest = replayed(start, command.replay).digest(start.setting.fingerprint)
    return Resummed(added_again(start, command), digest)


def added_again(start: Lesson, command: Compute | Resum) -> Totals:
    """Return a sum that is ordered; by the state that is replayed if that matters."""
    by_nodes = start.setting.by_nodes
    state = replayed(start, command.replay) if by_nodes else start.state
    return added(start, command, state)


def rescored(start: Lesson, command: Rescore) -> Rescored:
    """Return what the server finds when it scores trials itself."""
    state = replayed(start, command.replay)
    tokens = start.corpus.token_batch(command.token_batch)
    scores = score(start.setting, state.weights, tokens, command.segment)
    digest = state.digest(start.setting.fingerprint)
    return Rescored(command.case, digest, scores)


def replayed(start: Lesson, command: Replay) -> TrainState:
    """Return what a replay comes to."""
    state = command.state
    for update in command.updates:
        tokens = start.corpus.token_batch(update.token_batch)
        state = advance(start.setting, state, update, tokens)
    return state


def together(*clients: int, **keys: Any) -> Desk:
    """Return a run that these clients have joined, at the step where all take part.

    All milestones up to 8 are behind it, so that no state is asked for.
    """
    desk = Desk(**keys)
    desk.join(clients[0])
    desk.steps(9, clients[0])
    for client in clients[1:]:
        desk.join(client)
    desk.steps(3 if clients[1:] else 1, clients[0])
    for client in clients:
        desk.mail(client)
    desk.write()
    desk.log.saves.clear()
    desk.log.closed.clear()
    desk.log.notes.clear()
    assert all(len(desk.begins(client)) == 1 for client in clients)
    return desk


def changed(state: TrainState) -> TrainState:
    """Return a state that differs in one weight."""
    weights = state.weights.copy()
    weights[0] += 1
    return replace(state, weights=weights)


def answer_wrongly(desk: Desk, client: int, **how: Any) -> None:
    """Let a client answer with a digest of its own."""
    true = desk.truth.digest(desk.coordinator.step)
    desk.answer(client, digest=bytes(b ^ client for b in true), **how)

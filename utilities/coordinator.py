"""What the server decides: who joins, what a step consists of, which state is true.

`Coordinator.handle(event, now)` takes one event and returns commands; it has no clock,
socket, file or thread of its own, so that a test can drive it with objects and a list.
The shell around it (`utilities.serving`) turns bytes into events and carries commands
out.

The server computes no updates in a step. It holds the last *accepted* state and every
`Update` since; whoever needs the present state gets both. A state is accepted when it
hashes to the digest that at least two results of the step carry; otherwise the server's
own replay of the updates decides, on a thread of its own (`Replay` -> `Replayed`).
"""

from dataclasses import dataclass
from typing import TypeAlias

from utilities import events
from utilities.data import Corpus
from utilities.errors import ProtocolError
from utilities.events import (
    Drop,
    Finish,
    Joined,
    Left,
    Note,
    Received,
    Send,
    Stop,
    Tick,
)
from utilities.evolution import (
    Setting,
    TrainState,
    Update,
    mean_loss,
    segment_seed,
    shape,
)
from utilities.ledger import (
    Check,
    Ledger,
    Purpose,
    Replay,
    Replayed,
    Save,
    Saved,
    Wanted,
)
from utilities.protocol import (
    PROTOCOL_VERSION,
    Begin,
    End,
    Goodbye,
    Hello,
    Message,
    Result,
    State,
    TokenBatch,
    Welcome,
)
from utilities.selftest import ARITHMETIC_EXPECTED, NOISE_EXPECTED
from utilities.steps import BlockStep, OpenStep, Peer, TimedStep


@dataclass(frozen=True)
class Closed:
    """A step has closed: its figures."""

    step: int
    seconds: float
    loss: float | None
    trials: int
    clients: int
    late: int
    dropped: int
    digest: bytes


Event: TypeAlias = events.Event | Replayed | Saved
Command: TypeAlias = events.Command | Replay | Save | Closed


@dataclass(frozen=True)
class Limits:
    """When a session ends by itself; None: never."""

    last_step: int | None = None
    end: float | None = None  # on the clock of `now`


class Coordinator:
    """All decisions of the server."""

    def __init__(
        self,
        setting: Setting,
        corpus: Corpus,
        run_seed: int,
        state: TrainState,
        now: float,
        seconds: float = 0.0,
        limits: Limits | None = None,
    ) -> None:
        """Start from an accepted state.

        Args:
            setting: of the run.
            corpus: gives the token batches.
            run_seed: that all segments' seeds derive from; never leaves the server.
            state: the initial one or a checkpoint's.
            now: on the clock that every event is stamped with.
            seconds: that the run has trained before.
            limits: when to stop.
        """
        self.setting = setting
        self.step = state.step
        self.finished = False
        self._corpus = corpus
        self._run_seed = run_seed
        self._ledger = Ledger(setting, state)
        self._peers: dict[int, Peer] = {}
        self._open: OpenStep | None = None
        self._slots = 0  # of the step that is at hand
        self._wanted: Wanted | None = None
        self._asked: set[Peer] = set()  # who has been asked in vain
        self._check: Check | None = None
        self._replaying = False
        self._stopping = False
        self._last_closed = False
        self._saving = 0  # states on their way to the disk
        self._saved = state.step  # newest step that was written or read
        self._limits = limits or Limits()
        self._began = now - seconds
        self._next_checkpoint = now + setting.config.check_point_time
        self._outbox: dict[Peer, list[Message]] = {}
        self._commands: list[Command] = []

    # The one way in.

    def handle(self, event: Event, now: float) -> list[Command]:
        """Return what is to be done about one event."""
        match event:
            case Joined():
                self._join(event.client, event.hello)
            case Received():
                self._receive(event.client, event.message, now)
            case Left():
                self._leave(event.client, event.reason)
            case Replayed():
                self._replayed(event.state, now)
            case Saved():
                self._saving -= 1
            case Stop():
                self._stopping = True
            case Tick():
                pass
        self._go_on(now)
        self._flush()
        commands, self._commands = self._commands, []
        return commands

    def wakeup(self, now: float) -> float | None:
        """Return the moment at which a Tick is due, if any."""
        moments = [self._open.wakeup(now)] if self._open is not None else []
        if not self._stopping:
            moments.append(self._limits.end)
        return min((m for m in moments if m is not None), default=None)

    @property
    def clients(self) -> list[Peer]:
        """Return who is here."""
        return list(self._peers.values())

    # Clients come and go.

    def _join(self, client: int, hello: Hello) -> None:
        refusal = refuse(hello)
        if refusal is not None:
            self._note(f"{hello.name} refused: {refusal}", warning=True)
            goodbye = Goodbye(End.REFUSED.value, refusal)
            self._commands.append(Drop(client, goodbye))
            return
        peer = Peer(client, self._unique(hello.name))
        self._peers[client] = peer
        again = "" if hello.last_step is None else f" again (was at {hello.last_step})"
        self._note(f"{peer.name} joined{again}; {len(self._peers)} here")
        if not any(other.ready for other in self._peers.values()):
            self._welcome(peer)

    def _unique(self, name: str) -> str:
        taken = {peer.name for peer in self._peers.values()}
        names = [name, *(f"{name}#{n}" for n in range(2, len(taken) + 3))]
        return next(candidate for candidate in names if candidate not in taken)

    def _leave(self, client: int, reason: str) -> None:
        peer = self._peers.pop(client, None)
        if peer is None:
            return
        self._note(f"{peer.name} left: {reason}; {len(self._peers)} here")
        self._outbox.pop(peer, None)
        self._asked.discard(peer)
        if self._open is not None:
            self._open.lose(peer)
        if not self._ready():  # no step is open; the next joiner begins it anew
            self._open = self._wanted = None

    def _ready(self) -> list[Peer]:
        return [peer for peer in self._peers.values() if peer.ready]

    def _welcome(self, peer: Peer) -> None:
        """Send the accepted state and every update since."""
        accepted = self._ledger.state
        self._queue(
            peer,
            Welcome(
                self.setting.config.to_json(),
                self.setting.text_sha256,
                peer.reason,
                accepted.step,
                accepted.count,
                self._ledger.digest,
                *accepted.arrays,
            ),
        )
        peer.ready, peer.reason, peer.waited = True, "", True
        peer.batches.clear()
        for update in self._ledger:
            self._send_update(peer, update)

    def _send_update(self, peer: Peer, update: Update) -> None:
        self._send_tokens(peer, update.token_batch)
        self._queue(peer, update)

    def _send_tokens(self, peer: Peer, number: int) -> None:
        if number not in peer.batches:
            peer.batches.add(number)
            self._queue(peer, TokenBatch(number, self._corpus.token_batch(number)))

    def _resync(self, peer: Peer, reason: str) -> None:
        """Take a replica out until it has got the true state."""
        self._note(f"{peer.name}: {reason}; its state is replaced", warning=True)
        peer.ready, peer.reason = False, reason

    # Messages.

    def _receive(self, client: int, message: Message, now: float) -> None:
        peer = self._peers.get(client)
        if peer is None:
            return
        match message:
            case Result():
                self._take_result(peer, message, now)
            case State():
                self._take_state(peer, message)
            case Goodbye():
                self._leave(client, message.reason or message.end)
            case _:
                raise ProtocolError(f"{type(message).__name__}: not a client's message")

    def _take_result(self, peer: Peer, result: Result, now: float) -> None:
        if result.step > self.step:
            raise ProtocolError(
                f"result: expected step {self.step} or before, got {result.step}"
            )
        peer.report(result, now)
        if self._open is not None and result.step == self.step:
            self._open.take(peer, result, now)
        else:
            peer.late += 1

    def _take_state(self, peer: Peer, message: State) -> None:
        size = self.setting.layout.size
        if len(message.weights) != size:
            raise ProtocolError(
                f"state: expected {size} weights, got {len(message.weights)}"
            )
        wanted = self._wanted
        if wanted is not None and wanted.peer is peer and message.step == self.step:
            arrays = (message.weights, message.first, message.second)
            wanted.offered = TrainState(message.step, message.count, *arrays)

    # Steps.

    def _go_on(self, now: float) -> None:
        """Close and open steps as far as what has come allows."""
        self._stopping = self._stopping or self._over(now)
        while not self.finished:
            if self._open is None and not self._begin(now):
                return
            assert self._open is not None
            self._hand_out(self._open, now)
            if not self._open.complete(now):
                return
            digest = self._agreed(self._open)
            if digest is None:
                self._replay()
                return
            if self._leave_out(self._open, digest):
                self._close(self._open, digest, now)

    def _over(self, now: float) -> bool:
        last, end = self._limits.last_step, self._limits.end
        return (last is not None and self.step >= last) or (
            end is not None and now >= end
        )

    def _begin(self, now: float) -> bool:
        """Open the next step; return whether one is open."""
        if not self._ready():
            self._welcome_waiting()
        saved = self._saved == self.step or self._last_closed
        if self._stopping and (saved or not self._ready()):
            self._end(now)
            return False
        if not self._ready():
            return False
        if self._stopping:
            self._open = TimedStep(self.setting, self.step, self._new_seed, last=True)
        elif self.setting.config.trials_per_step is not None:
            self._open = BlockStep(self.setting, self.step, self._seed)
        else:
            self._open = TimedStep(self.setting, self.step, self._new_seed)
        self._wanted = self._want(now)
        return True

    def _seed(self, slot: int) -> int:
        return segment_seed(self._run_seed, self.step, slot)

    def _new_seed(self) -> int:
        self._slots += 1
        return self._seed(self._slots - 1)

    def _want(self, now: float) -> Wanted | None:
        """Return a wish for the state of the step that opens, if there is one."""
        step = self.step
        fresh = step > self._saved
        checkpoint = fresh and (now >= self._next_checkpoint or self._stopping)
        milestone = fresh and step & (step - 1) == 0
        joiner = any(not peer.ready for peer in self._peers.values())
        if not (checkpoint or milestone or joiner or self._ledger.large):
            return None
        return Wanted(Purpose(checkpoint, milestone))

    def _hand_out(self, step: OpenStep, now: float) -> None:
        config, batch = self.setting.config, self._batch(self.step)
        for peer, segments in step.assign(self._ready(), now):
            self._send_tokens(peer, batch)
            asked = self._ask(peer)
            begin = Begin(self.step, config.time_per_step, batch, asked, segments)
            self._queue(peer, begin)
            self._send_tokens(peer, self._batch(self.step + 1))

    def _ask(self, peer: Peer) -> bool:
        """Return whether this client is the one to be asked for its state."""
        wanted = self._wanted
        if wanted is None or wanted.peer is not None:
            return False
        candidates = [p for p in self._ready() if p.waited and p not in self._asked]
        if not candidates:
            self._asked.clear()
        elif peer not in candidates:
            return False
        wanted.peer = peer
        return True

    def _batch(self, step: int) -> int:
        return self._corpus.batch_of_step(step, self.setting.config.new_tokens_interval)

    def _agreed(self, step: OpenStep) -> bytes | None:
        """Return the digest of the true state, or None if only a replay can tell."""
        if self._ledger.state.step == self.step:
            return self._ledger.digest
        votes = step.votes()
        voters = sum(map(len, votes.values()))
        for digest, peers in votes.items():
            if 2 * len(peers) > voters:
                return digest
        return None

    def _leave_out(self, step: OpenStep, digest: bytes) -> bool:
        """Leave out replicas that differ; return whether the step is still complete."""
        differing = [
            peer
            for other, peers in step.votes().items()
            if other != digest
            for peer in peers
        ]
        if not differing:
            return True
        for peer in differing:
            if peer.ready:
                self._resync(peer, f"its digest differs at step {self.step}")
        step.discard(differing)
        if not self._ready():
            self._welcome_waiting()
        return isinstance(step, TimedStep)

    def _close(self, step: OpenStep, digest: bytes, now: float) -> None:
        """Shape the rewards, send the update, make room for the next step."""
        self._accept_offer(step, digest, now)
        late = step.missing()
        for peer in late:
            if peer.waited:
                peer.waited = False
                self._note(f"{peer.name} is late at step {self.step}; not waited for")
        voters = sum(map(len, step.votes().values()))
        self._open = None
        if isinstance(step, TimedStep) and step.last:
            self._last_closed = True
            return
        scored, dropped = step.scored()
        batch, seconds = self._batch(self.step), now - self._began
        update = shape(self.setting, self.step, batch, scored, seconds)
        loss = mean_loss(self.setting, [scores for _, scores in scored])
        counts = (update.trials, voters, len(late), dropped)
        self._commands.append(Closed(self.step, seconds, loss, *counts, digest))
        self._ledger.append(update)
        for peer in self._ready():
            self._send_update(peer, update)
        self.step += 1
        self._slots = 0
        self._stopping = self._stopping or self._over(now)

    # The true state.

    def _accept_offer(self, step: OpenStep, digest: bytes, now: float) -> None:
        """Accept the state that was asked for, have it checked, or ask the next."""
        wanted, self._wanted = self._wanted, None
        if wanted is None:
            return
        state, seconds = wanted.offered, now - self._began
        agreeing = step.votes().get(digest, [])
        known = self._ledger.state.step == self.step
        if known:
            state = self._ledger.state
        if state is None or wanted.peer is None:
            self._disappointed(wanted)
        elif state.digest(self.setting.fingerprint) != digest:
            if wanted.peer.ready:
                self._resync(wanted.peer, "the state it sent is not the one agreed on")
            self._disappointed(wanted)
        elif known or len(agreeing) >= 2:
            self._asked.clear()
            self._accept(state, wanted.purpose, seconds, now)
        elif not self._replaying:
            self._check = Check(self.step, digest, wanted.purpose, seconds, agreeing)
            self._replay()

    def _disappointed(self, wanted: Wanted) -> None:
        """Ask another client next time; joiners get the last accepted state."""
        if wanted.peer is not None:
            self._asked.add(wanted.peer)
            self._note(f"{wanted.peer.name} did not send its state; the next is asked")
        self._welcome_waiting()

    def _welcome_waiting(self) -> None:
        for peer in list(self._peers.values()):
            if not peer.ready:
                self._welcome(peer)

    def _accept(
        self, state: TrainState, purpose: Purpose, seconds: float, now: float
    ) -> None:
        """Make a state the one that everything later builds on."""
        self._ledger.accept(state)
        if purpose.checkpoint or purpose.milestone:
            self._save(seconds, purpose)
        if purpose.checkpoint:
            self._next_checkpoint = now + self.setting.config.check_point_time
        self._welcome_waiting()

    def _save(self, seconds: float, purpose: Purpose) -> None:
        self._saving += purpose.milestone + purpose.checkpoint
        if purpose.milestone:
            self._commands.append(
                Save(self._ledger.state, self._ledger.digest, seconds, False)
            )
        if purpose.checkpoint:
            self._saved = self._ledger.state.step
            self._commands.append(
                Save(self._ledger.state, self._ledger.digest, seconds, True)
            )

    def _replay(self) -> None:
        """Have the updates since the accepted state applied by the server itself."""
        if not self._replaying:
            self._replaying = True
            self._commands.append(self._ledger.replay())

    def _replayed(self, state: TrainState, now: float) -> None:
        self._replaying = False
        check, self._check = self._check, None
        if state.step <= self._ledger.state.step:
            return
        purpose, seconds = Purpose(), now - self._began
        if check is not None and check.step == state.step:
            purpose, seconds = check.purpose, check.seconds
            if state.digest(self.setting.fingerprint) != check.digest:
                for peer in self._ready():
                    self._resync(
                        peer, f"its digest is not the replay's at {state.step}"
                    )
        self._accept(state, purpose, seconds, now)

    # The end.

    def _end(self, now: float) -> None:
        """End the run once its present state is saved."""
        if self._saved != self.step:
            if self._ledger.state.step != self.step:
                self._replay()
                return
            self._save(now - self._began, Purpose(checkpoint=True))
        if self._saving:
            return
        self.finished = True
        for peer in self._peers.values():
            goodbye = Goodbye(End.FINISHED.value, "the run has ended")
            self._commands.append(Drop(peer.id, goodbye))
        self._commands.append(Finish())

    # Output.

    def _note(self, text: str, *, warning: bool = False) -> None:
        self._commands.append(Note(text, warning))

    def _queue(self, peer: Peer, *messages: Message) -> None:
        self._outbox.setdefault(peer, []).extend(messages)

    def _flush(self) -> None:
        """Send everything that one event caused together, ahead of goodbyes."""
        sends: list[Command] = [
            Send(peer.id, tuple(messages)) for peer, messages in self._outbox.items()
        ]
        self._outbox = {}
        self._commands[:0] = sends


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

"""What the server decides: who joins, what a step consists of, which state is true.

`Coordinator.handle(event, now)` takes one event and returns commands; it has no clock,
socket, file or thread of its own, so that a test can drive it with objects and a list.
The shell around it (`utilities.serving`) turns bytes into events and carries commands
out. Of a thousand clients many say something at once: it lets the coordinator `take`
all that has come, then `go_on` once.

The server computes no updates in a step. It holds the last *accepted* state and every
`Update` since; whoever needs the present state gets both (`utilities.acceptance`). A
step is scored first, then, where each client adds up its own trials, summed; then its
update goes to everybody and the next one opens.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from utilities.acceptance import Acceptance, Outcome
from utilities.aggregation import SEEDS, SUMS, Aggregation, Load
from utilities.audits import Audits, Liars, Rescored, Resummed, audit_random
from utilities.data import Corpus
from utilities.errors import ProtocolError
from utilities.events import Finish, Joined, Left, Note, Received, Stop, Tick
from utilities.evolution import Setting, TrainState, Update
from utilities.history import Entry
from utilities.lateness import blame, late_sums
from utilities.ledger import Check, Purpose, Replayed, Saved
from utilities.losses import mean_loss, shape
from utilities.names import RETURNED, Names, arrival
from utilities.opening import Limits, Opening
from utilities.orders import Command, Event, Orders
from utilities.outbox import Outbox
from utilities.pacing import StepLength, Stopwatch
from utilities.peers import Peer, refuse
from utilities.protocol import (
    Begin,
    End,
    Goodbye,
    Hello,
    Message,
    Recalled,
    Result,
    State,
    Sum,
)
from utilities.returning import Retraced, Returning
from utilities.steps import OpenStep
from utilities.summing import (
    Accounts,
    Computed,
    Owners,
    Summing,
    contributions,
    parts_by_peer,
)
from utilities.tally import Append, Before, Closed, Tally


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
        saved: int | None = None,
        source: random.Random | None = None,
        entries: Iterable[Entry] = (),
    ) -> None:
        """Start from an accepted state.

        Args:
            setting: of the run.
            corpus: gives the token batches.
            run_seed: that all segments' seeds derive from; never leaves the server.
            state: the initial one or what was recovered.
            now: on the clock that every event is stamped with.
            seconds: that the run has trained before.
            limits: when to stop.
            saved: step of the newest checkpoint; None: that of the state.
            source: of what clients must not foresee; None: the run's seed.
            entries: of the steps before the state, as far as they are known.
        """
        self.setting = setting
        self._config = setting.config
        self.step = state.step
        self.finished = False
        self._audits = Audits(setting, source or audit_random(run_seed, state.step))
        self._opening = Opening(setting, run_seed, self._audits)
        self._states = Acceptance(setting, state, now, saved, entries)
        self._ledger = self._states.ledger
        self._peers: dict[int, Peer] = {}
        self._names = Names()
        self._open: OpenStep | None = None
        self._summing: Summing | None = None  # of the step at hand, once it is scored
        self._closing: Closed | None = None  # its figures
        self._accounts = Accounts()
        self._aggregation = Aggregation(setting.config.aggregation)
        self._length = StepLength(setting.config, seconds)
        self._before = Before()
        self._tally = Tally(now, self._before)  # of the step that is at hand
        self._stopping = False
        self._closed_all = False  # no step opens any more
        self._limits = limits or Limits()
        self._trained = Stopwatch(seconds)
        self._outbox = Outbox(setting, corpus)
        self._returning = Returning(setting, run_seed, self._ledger, self._outbox)
        self._orders = Orders()

    # The one way in.

    def handle(self, event: Event, now: float) -> list[Command]:
        """Return what is to be done about one event.

        Raises:
            ProtocolError: as `take`.
        """
        self.take(event, now)
        return self.go_on(now)

    def take(self, event: Event, now: float) -> None:
        """Take note of an event; `go_on` acts upon all that were taken.

        Raises:
            ProtocolError: the client of a `Received` broke the rules; it has to be
                dropped, and `Left` reported.
        """
        match event:
            case Joined():
                self._join(event.client, event.hello, now)
            case Received():
                self._receive(event.client, event.message, now)
            case Left():
                self._leave(event.client, event.reason)
            case Replayed():
                outcome = self._states.replayed(event.state, self.clients, now)
                self._carry_out(outcome)
                self._orders += self._audits.knows(event.state)
            case Saved():
                self._states.archive.saved()
            case Computed():
                assert self._summing is not None, "it waits for what it has ordered"
                self._summing.computed(event)
            case Retraced():
                others = self._ready()  # who hold the state that the server has had
                seconds = self._trained.seconds(now)
                appended, notes = self._returning.regain(event, seconds)
                for peer in others:
                    for each in appended:
                        self._outbox.update(peer, each.update)
                self._orders += [*appended, *notes]
                self.step += len(appended)
            case Rescored():
                self._expel(*self._audits.judged(event))
            case Resummed():
                self._expel(*self._audits.resummed(event, self._ledger))
            case Tick() if self._summing is not None:
                self._summing.prepare()
            case Stop():
                self._stopping = True

    def go_on(self, now: float, heard: float | None = None) -> list[Command]:
        """Return what is to be done about all events that were taken.

        Args:
            now: what is asked for has its time from here on.
            heard: up to when all that has come was taken; None: until now. An answer
                is late that had not come by then: reading a thousand takes a while.
        """
        self._go_on(now, now if heard is None else heard)
        self._trained.note(now, going=bool(self._open or self._summing))
        return self._orders.flush(self._outbox)

    def wakeup(self, heard: float) -> float | None:
        """Return the moment at which a Tick is due, if any.

        Args:
            heard: up to when all that has come was taken.
        """
        stage = self._open or self._summing
        moments = [self._returning.wakeup]
        moments += [stage.wakeup(heard)] if stage is not None else []
        if not self._stopping:
            moments.append(self._limits.end)
        return min((m for m in moments if m is not None), default=None)

    @property
    def clients(self) -> list[Peer]:
        """Return who is here."""
        return list(self._peers.values())

    # Clients come and go.

    def _join(self, client: int, hello: Hello, now: float) -> None:
        refusal = refuse(hello) or self._audits.refusal(hello.name)
        if refusal is not None:
            self._orders.note(f"{hello.name} refused: {refusal}", warning=True)
            self._orders.drop(client, End.REFUSED, refusal)
            return
        if self.finished:
            self._orders.drop(client, End.FINISHED, "the run has ended")
            return
        for ghost in self._names.ghosts(hello, self.clients):
            self._leave(ghost.id, RETURNED)
            self._orders.drop(ghost.id, End.DROPPED, RETURNED)
        seconded = bool(self._ready())  # whose digests show whether its own is true
        peer = self._peers[client] = self._names.peer(client, hello, self.clients)
        text = f"{arrival(peer, hello)}; {len(self._peers)} here"
        self._orders.note(text, kind="join")
        back = peer, hello, self.step, now
        self._orders += self._returning.meet(*back, seconded=seconded)

    def _leave(self, client: int, reason: str) -> None:
        peer = self._peers.pop(client, None)
        if peer is None:
            return
        text = f"{peer.name} left: {reason}; {len(self._peers)} here"
        self._orders.note(text, kind="leave")
        peer.ready = False
        self._outbox.forget(peer)
        self._accounts.close(peer)
        self._returning.lose(peer)
        self._orders += self._audits.forget(peer)
        for stage in (self._open, self._summing):
            if stage is not None:
                stage.lose(peer)

    def _expel(self, liars: Liars, notes: list[Note]) -> None:
        """Send away whose answers are not what the server has computed itself."""
        self._orders += notes
        for peer, reason in liars:
            self._orders.note(f"{peer.name} expelled: {reason}", warning=True)
            if self._open is not None:
                self._open.discard(peer)
            if peer.id in self._peers:
                self._leave(peer.id, "expelled")
                self._orders.drop(peer.id, End.REFUSED, f"expelled: {reason}")

    def _ready(self) -> list[Peer]:
        return [peer for peer in self._peers.values() if peer.ready]

    def _waiting(self) -> list[Peer]:
        """Return who waits for a state and can be given one.

        A replica that still owes an answer of this step computes it from its old state;
        only once that has come, every later answer is known to be from the new one.
        """
        return [p for p in self.clients if not (p.ready or p.owes(self.step))]

    def _welcome_waiting(self) -> None:
        """Send the accepted state and every update since."""
        for peer in self._waiting():
            peer.since = self.step
            self._outbox.welcome(peer, self._ledger)

    def _take_out(self, peers: Sequence[Peer], reason: str) -> None:
        """Let replicas take part no more until they have got the true state."""
        for peer in peers:
            if peer.ready:
                text = f"{peer.name}: {reason}; its state is replaced"
                self._orders.note(text, warning=True, kind="audit")
                peer.ready, peer.reason = False, reason
            if self._open is not None:
                self._open.discard(peer)
            if self._summing is not None:
                self._summing.lose(peer)
        self._expel(self._audits.diverged(peers), [])

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
            case Sum():
                self._take_sum(peer, message, now)
            case Recalled():
                self._orders += self._returning.take(peer, message.update)
            case Goodbye():
                self._leave(client, message.reason or message.end)
                self._orders.drop(client, End.DROPPED, "goodbye")  # should it not close
            case _:
                raise ProtocolError(f"{type(message).__name__}: not a client's message")

    def _take_result(self, peer: Peer, result: Result, now: float) -> None:
        waited, trip = peer.waited, peer.answer(result, now)
        step, digest = result.step, result.digest
        # Of a late one it counts too, else nobody would learn how late they all are;
        # but not of one that is known to be slow.
        if trip is not None and (waited or step == self.step):
            self._aggregation.answered(peer.id, trip)
        if not peer.ready or step < peer.since:
            return  # from before its state was replaced
        if self._open is not None and step == self.step:
            self._open.take(peer, result, now)
            self._tally.add(peer.id, result)
        elif self._ledger.contradicts(step, digest):
            self._take_out([peer], f"its digest differed at step {step}")

    def _take_sum(self, peer: Peer, message: Sum, now: float) -> None:
        self._accounts.of(peer).deliver(message, now)
        if self._summing is None or message.step != self.step:
            return  # too late
        if self._summing.take(peer, message):
            self._tally.add_sum(message)

    def _take_state(self, peer: Peer, message: State) -> None:
        self._states.measure(message)
        peer.deliver_state(message.step)
        if message.step == self.step:
            self._states.offer(peer, message)

    # Steps.

    def _go_on(self, now: float, heard: float) -> None:
        """Close and open steps as far as what has come allows."""
        while not self.finished:
            self._stopping = self._stopping or self._limits.over(self.step, now)
            if self._summing is not None:
                if not self._sum_up(self._summing, now, heard):
                    return
                continue
            if self._returning.waits(heard) and not self._stopping:
                return
            if not any(peer.ready for peer in self._peers.values()):
                self._give_up()  # it begins anew for whoever comes
                self._welcome_waiting()
            step = self._open or self._begin(now)
            if step is None:
                return
            self._hand_out(step, now)
            if not step.complete(heard):
                if step.stuck(heard) and self._relieve():
                    continue
                return
            digest = self._states.agreed(self.step, step.votes())
            if digest is None:
                seconds = self._trained.seconds(now)
                check = Check(self.step, None, (), Purpose(), seconds)
                self._orders += self._ledger.check(check)
                return
            if not self._leave_out(step, digest):
                self._close(step, digest, now)

    def _give_up(self) -> None:
        """Close a step without an update."""
        self._open = None
        self._states.abandon()

    def _begin(self, now: float) -> OpenStep | None:
        """Open the next step, if there is to be one and somebody to do it."""
        saved = self._closed_all or self._states.saved(self.step)
        if self._stopping and (saved or not self._ready()):
            self._end(now)
            return None
        if not self._ready():
            return None
        usual = self._length.seconds, self._aggregation.round_trip
        self._open = self._opening.open(self.step, *usual, last=self._stopping)
        self._tally = Tally(now, self._before)
        self._returning.too_late()
        joiners = bool(self._waiting())
        self._states.open(self.step, now, ending=self._stopping, joiners=joiners)
        return self._open

    def _relieve(self) -> bool:
        """Bring on others where those of a step are silent; end it when stopping."""
        if self._stopping:
            self._give_up()
            self._closed_all = True
            return True
        waiting = self._waiting()
        self._welcome_waiting()
        return bool(waiting)

    def _hand_out(self, step: OpenStep, now: float) -> None:
        seconds, batch = self._length.seconds, self._outbox.batch_of(self.step)
        work = step.assign((p for p in self._peers.values() if p.ready), now)
        asked = self._states.ask(self.step, [peer for peer, _ in work])
        for peer, segments in work:
            begin = Begin(self.step, seconds, batch, peer is asked, segments)
            asked = None if peer is asked else asked  # with its first request only
            self._outbox.begin(peer, begin)

    def _leave_out(self, step: OpenStep, digest: bytes) -> bool:
        """Leave out replicas that differ, and liars; return whether there were any."""
        votes = step.votes()
        agreeing = votes.pop(digest, [])
        differing = [peer for peers in votes.values() for peer in peers]
        self._take_out(differing, f"its digest differs at step {self.step}")
        liars = self._audits.confirmed(self.step, agreeing)
        self._expel(liars, [])
        if not self._ready() or self._ledger.state.step == self.step:
            self._welcome_waiting()
        return bool(differing or liars)

    def _close(self, step: OpenStep, digest: bytes, now: float) -> None:
        """Shape the rewards; send the update, or have it summed up first."""
        self._open = None
        votes, seconds = step.votes(), self._trained.seconds(now)
        answered = [peer for peers in votes.values() for peer in peers]
        self._orders += blame(self.step, step.missing(), answered)
        agreeing = votes.get(digest, [])
        check = Check(self.step, digest, tuple(agreeing), Purpose(), seconds)
        self._carry_out(self._states.settle(check, digest, self.clients, now))
        if step.last:
            self._closed_all = True
            return
        scored, dropped = step.scored()
        batch = self._outbox.batch_of(self.step)
        self._orders += self._audits.capped(step.capped)
        audited = step.pairs(), scored, batch
        self._orders += self._audits.close(check, *audited, self._ledger)
        update = shape(self.setting, self.step, batch, scored, seconds)
        loss = mean_loss(self.setting, [scores for _, scores in scored])
        counts = (update.trials, len(agreeing), step.late(), dropped)
        closed = Closed(
            self.step, seconds, loss, *counts, digest, audits=self._audits.counts
        )
        self._closing = self._tally.filled(closed, self._length.asked)
        self._ledger.agree(self.step, digest)
        self._tally.teach(self._aggregation)
        self._before = Before()
        if update.trials:
            self._aggregate(update, step.owners(), now)
        else:
            self._finish(update, now)

    def _aggregate(self, update: Update, owners: Owners, now: float) -> None:
        """Send the update as it is, or have each client add up its own trials."""
        assert self._closing is not None, "what is aggregated has been scored"
        parts, ready = parts_by_peer(self.setting, update, owners), self._ready()
        most = max(part.trials for part in parts.values())
        size, segments = self.setting.layout.size, len(update.segments)
        load = Load(update.trials, most, segments, len(ready), size)
        self._tell_way(self.step, self._aggregation.choose(load))
        way = self._aggregation.way
        self._closing = replace(
            self._closing, aggregation=way, contributions=contributions(parts)
        )
        if way == SEEDS:
            self._before = Before(way, update.trials)
            self._finish(update, now)
            return
        tokens = self._outbox.tokens_of(update.token_batch)
        audited = self._audits.of_sums(peer for peer in ready if peer in parts)
        about = self._accounts, self._ledger.before(self.step), audited
        self._summing = Summing(self.setting, update, parts, tokens, *about)
        usual = self._length.seconds, self._aggregation.round_trip
        for peer, shares in self._summing.ask(ready, now, *usual):
            self._outbox.shares(peer, shares)

    def _sum_up(self, summing: Summing, now: float, heard: float) -> bool:
        """Have computed what does not come; return whether all sums are in."""
        self._orders += late_sums(self.step, summing.overdue(heard))
        self._orders += summing.compute()
        if not summing.complete():
            return False
        self._summing = None
        summing.blame()
        self._orders += self._audits.resum(summing.kept)
        if summing.failed:
            self._tell_way(self.step + 1, self._aggregation.failed())
        adding, update = summing.adding(), summing.update()
        if adding is not None:
            self._aggregation.summed(adding)
        figures = summing.seconds(), summing.quality()
        self._before = Before(SUMS, update.trials, *figures)
        self._finish(update, now)
        return True

    def _tell_way(self, step: int, reason: str | None) -> None:
        if reason is not None:
            way = self._aggregation.way
            self._orders.note(f"aggregation: {way} from step {step} on: {reason}")

    def _finish(self, update: Update, now: float) -> None:
        """Send the update of a step, and make room for the next one."""
        closed, self._closing = self._closing, None
        assert closed is not None, "what is finished has been scored"
        closed = replace(closed, seconds=self._trained.seconds(now))
        self._orders += [Append(update, closed)]
        self._length.observe(self._tally.observed(now, update.trials))
        self._ledger.append(update, closed.digest)
        for peer in self._ready():
            self._outbox.update(peer, update)
        self.step += 1

    def _carry_out(self, outcome: Outcome) -> None:
        """Do what follows from a decision about states."""
        self._take_out(outcome.taken_out, outcome.reason)
        self._orders += outcome.orders
        if outcome.welcome:
            self._welcome_waiting()

    # The end.

    def _end(self, now: float) -> None:
        """End the run once its present state is saved."""
        seconds = self._trained.seconds(now)
        orders, done = self._states.conclude(self.step, now, seconds)
        self._orders += orders
        if not done:
            return
        self.finished = True
        for peer in self.clients:
            self._orders.drop(peer.id, End.FINISHED, "the run has ended")
        self._peers.clear()
        self._orders += [Finish()]

"""Which trials two clients score, and what follows where they differ. No I/O.

A loss cannot be seen to be true, but the trial that it belongs to can be scored again:
text, seed and index say all about it. So now and then two clients are given the same
trials of a step, unmarked among others, and count once. Equal answers earn both of them
trust; where answers differ, the server scores the trials itself, on the state that it
replays, and whoever is wrong is expelled. Not at once: a bit that has flipped in its
weights spoils losses too. That shows in its digest of the next step, and is mended.

How often is what BOINC calls adaptive replication: a newcomer is audited in every step
until ten answers in a row were right, then in one step of as many as were right since,
but never in fewer than `FLOOR` of them. A client alone cannot be compared: the server
scores some of its trials again whenever its state was checked by a replay.
"""

import random
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from utilities.agreement import Answer, Pair, differing, first_difference
from utilities.events import Note
from utilities.evolution import (
    Scores,
    Segment,
    Setting,
    Totals,
    TrainState,
)
from utilities.ledger import Check, Ledger, Replay
from utilities.misc import sha256
from utilities.peers import Peer
from utilities.rewards import Rewards
from utilities.scheduling import part_of

TRUST = 10  # audits in a row that a client has to pass before they become rare
FLOOR = 0.025  # of the steps of a trusted client; 2 % are promised, and some fail
UNLIKELY = 0.25  # of a client's audits lie anywhere, also where it will hardly come
STRIKES = 3  # audits without one passed at which its state was wrong: it is expelled
OPEN_CASES = 64  # that wait for the server; beyond, differences wait for another audit

Liars: TypeAlias = list[tuple[Peer, str]]  # and why they are expelled
Verdict: TypeAlias = tuple[Liars, list[Note]]


# What the shell is asked to compute, and what it answers.


@dataclass(frozen=True)
class Rescore:
    """Score trials on a state that is replayed, off this thread: `Rescored`."""

    case: int
    replay: Replay
    token_batch: int
    segment: Segment


@dataclass(frozen=True)
class Rescored:
    """The trials of a `Rescore` are scored."""

    case: int
    digest: bytes  # of the state that they were scored on
    scores: Scores


@dataclass(frozen=True)
class Resum:
    """Add up a client's trials off this thread: `Resummed`."""

    replay: Replay = field(repr=False)  # to the state that they were scored on
    step: int
    token_batch: int
    segments: tuple[Segment, ...]
    rewards: Rewards = field(repr=False)


@dataclass(frozen=True)
class Resummed:
    """The trials of a `Resum` are added up."""

    total: Totals = field(repr=False)
    digest: bytes = b""  # of the state that this depends on, if it depends on one


Job: TypeAlias = Rescore | Resum

# Who is trusted.


@dataclass
class Record:
    """What the audits of one client have shown."""

    agreed: int = 0  # in a row
    due: bool = False  # an audit that has not come about yet
    sums: int = 0  # of its sums that were right, in a row
    strikes: int = 0  # audits in a row of a state that was not the true one


def chance(agreed: int) -> float:
    """Return the share of its steps in which a client is audited.

    Args:
        agreed: audits that it has passed in a row.
    """
    return 1.0 if agreed < TRUST else max(FLOOR, 1 / agreed)


@dataclass(frozen=True)
class Counts:
    """What audits have shown in this session."""

    audits: int = 0  # answers that were compared with another one of the same trials
    disagreements: int = 0
    expelled: int = 0  # clients
    repeated: int = 0  # trials that were scored a second time


@dataclass(frozen=True)
class Case:
    """Trials about which the server has the last word."""

    step: int
    digest: bytes  # of the state that they were scored on
    token_batch: int
    segment: Segment
    answers: tuple[Answer, ...]  # of two clients, or of one that was alone

    @property
    def peers(self) -> frozenset[Peer]:
        """Return whose answers they are."""
        return frozenset(peer for peer, _ in self.answers)


def audit_random(run_seed: int, step: int) -> random.Random:
    """Return the source of what clients must not foresee.

    Args:
        run_seed: never leaves the server.
        step: that the session begins with.
    """
    return random.Random(sha256(struct.pack("<6sQQ", b"audits", run_seed, step)))


def _other_state(step: int, what: str) -> Note:
    """Return what is said where the server's own state is not what others have."""
    text = f"audit: the state of step {step} is not the one agreed on; "
    return Note(f"{text}nothing follows from {what}", True)


class Audits:
    """Who is audited, who has lied."""

    def __init__(self, setting: Setting, source: random.Random) -> None:
        """Begin with nobody known.

        Args:
            setting: of the run.
            source: of what clients must not foresee.
        """
        self._setting = setting
        self.random = source
        self._records: dict[Peer, Record] = {}
        self._cases: dict[int, Case] = {}
        self._number = 0  # of the last case
        self._expelled: dict[str, str] = {}  # why, by the name that was announced
        self._suspects: dict[Peer, tuple[int, str]] = {}  # since which step, and why
        self._told: set[Peer] = set()  # whose trials do not all count
        self._sample: Case | None = None  # of a client alone, until its state is known
        self._summed: tuple[Peer, Resum, Totals] | None = None  # is being added up
        self._excused = False  # whether the client's own state has turned out wrong
        self.counts = Counts()

    # Whom.

    def due(self, peers: Iterable[Peer]) -> list[Peer]:
        """Return who is to be audited in a step that opens."""
        found = []
        for peer in peers:
            record = self._records.setdefault(peer, Record())
            drawn = self.random.random() < chance(record.agreed)
            record.due = record.due or drawn
            if record.due:
                found.append(peer)
        return found

    def couples(self, peers: Sequence[Peer]) -> list[tuple[Peer, Peer]]:
        """Return which two clients are to score the same trials in a step that opens.

        Two that are due are put together, so that one comparison serves both. Who is
        with whom is drawn, so that friends seldom are.
        """
        due = self.due(peers)
        if len(peers) < 2:
            return []
        self.random.shuffle(due)
        couples = list(zip(due[::2], due[1::2], strict=False))
        if len(due) % 2:
            odd = due[-1]
            couples.append((odd, self.random.choice([p for p in peers if p != odd])))
        return couples

    def places(self, *lists: tuple[int, int, set[int]]) -> list[int]:
        """Return where a segment stands that two clients share.

        Every place is possible in either list. In one of both, drawn by lot, it is
        among the first, so that the two seldom miss each other.

        Args:
            *lists: of each client, how many of its segments it is likely to do, how
                many it has, and the places that are taken already.
        """
        early, found = self.random.randrange(2), []
        for number, (reached, count, taken) in enumerate(lists):
            most = reached
            if number == early:
                most = -(-reached // 2)
            elif self.random.random() < UNLIKELY:
                most = count
            free = [place for place in range(most) if place not in taken]
            free = free or [place for place in range(count) if place not in taken]
            found.append(self.random.choice(free))
            taken.add(found[-1])
        return found

    def forget(self, peer: Peer) -> list[Note]:
        """Forget a client that has left; return what is to be said of a suspect.

        Its name stays expelled if it is, or is from now on: who leaves under suspicion
        has nothing to show that it was sound.
        """
        self._records.pop(peer, None)
        self._told.discard(peer)
        text = "expelled, though it has left"
        liars = self._convict(peer)
        return [Note(f"{liar.name} {text}: {reason}", True) for liar, reason in liars]

    def capped(self, peer: Peer | None) -> list[Note]:
        """Return what is to be said of a client that does too much, once."""
        if peer is None or peer in self._told:
            return []
        self._told.add(peer)
        text = f"{peer.name} scores more trials than all others together; what is "
        return [Note(f"{text}beyond half of a step's does not count")]

    def refusal(self, announced: str) -> str | None:
        """Return why a client of this name cannot take part, or None if it can."""
        reason = self._expelled.get(announced)
        return None if reason is None else f"expelled: {reason}"

    # Comparing.

    def close(
        self,
        check: Check,
        pairs: Iterable[Pair],
        scored: Sequence[tuple[Segment, Scores]],
        token_batch: int,
        ledger: Ledger,
    ) -> list[Note | Replay | Rescore]:
        """Compare the answers of a step that closes; have differences decided.

        Args:
            check: the step, whose digest is agreed on, and by whom.
            pairs: what two clients have both scored.
            scored: what counts of all clients.
            token_batch: that it was scored on.
            ledger: gives the state before the step.
        """
        orders: list[Note | Replay | Rescore] = []
        for pair in pairs:
            (one, first), (other, last) = pair.answers
            self._count(audits=1, repeated=self._trials(pair.segment))
            group = first_difference(self._setting, first, last)
            if group is None:
                self._passed(one)
                self._passed(other)
                continue
            self._count(disagreements=1)
            case = self._case(check, token_batch, pair.segment, pair.answers, group)
            orders += self._ask(case, ledger)
        alone = len(check.peers) == 1 and not ledger.checking
        if alone and self._sampled(check, token_batch, check.peers[0], scored):
            known = ledger.state.step == check.step
            orders += self.knows(ledger.state) if known else ledger.check(check)
        return orders

    def _case(
        self,
        check: Check,
        token_batch: int,
        segment: Segment,
        answers: tuple[Answer, ...],
        group: int,
    ) -> Case:
        """Return a case about one forward batch of groups, from a group on."""
        groups = min(self._setting.block_groups, segment.groups - group)
        part = Segment(segment.seed, segment.first + group, groups)
        cut = tuple((p, part_of(self._setting, s, group, groups)) for p, s in answers)
        assert check.digest is not None, "a step closes when it is agreed on"
        return Case(check.step, check.digest, token_batch, part, cut)

    def _ask(self, case: Case, ledger: Ledger) -> list[Note | Rescore]:
        """Have the server score the trials of a case."""
        names = " and ".join(peer.name for peer, _ in case.answers)
        text = f"audit: {names} differ about trials of step {case.step}; "
        if any(case.peers <= known.peers for known in self._cases.values()):
            return []  # about whom a decision is on its way
        if len(self._cases) >= OPEN_CASES:
            return [Note(f"{text}too many wait to be decided already")]
        order = self._order(case, ledger.before(case.step))
        return [Note(f"{text}the server scores them itself"), order]

    def _order(self, case: Case, replay: Replay) -> Rescore:
        self._number += 1
        self._cases[self._number] = case
        return Rescore(self._number, replay, case.token_batch, case.segment)

    # A client alone.

    def _sampled(
        self,
        check: Check,
        token_batch: int,
        peer: Peer,
        scored: Sequence[tuple[Segment, Scores]],
    ) -> bool:
        """Keep some trials of a client alone if it is to be audited; say whether.

        The server scores them when it `knows` the state that they were scored on.
        """
        record = self._records.get(peer)
        if record is None or not (record.due and scored):
            return False
        segment, scores = self.random.choice(scored)
        block = self._setting.block_groups
        group = block * self.random.randrange(-(-segment.groups // block))
        answers = ((peer, scores),)
        self._sample = self._case(check, token_batch, segment, answers, group)
        return True

    def knows(self, state: TrainState) -> list[Rescore]:
        """Take a state that is known to be true; trials that wait for it are scored."""
        case = self._sample
        if case is None or state.step < case.step:
            return []
        self._sample = None
        if state.step > case.step:
            return []
        self._count(audits=1, repeated=self._trials(case.segment))
        return [self._order(case, Replay(state, ()))]

    def _trials(self, segment: Segment) -> int:
        return segment.groups * self._setting.config.trials_per_group

    # Deciding.

    def judged(self, event: Rescored) -> Verdict:
        """Return who is expelled for what reason, and what is to be said."""
        case = self._cases.pop(event.case)
        if event.digest != case.digest:
            note = _other_state(case.step, "its trials")
            alone = case.answers[0][0] if len(case.answers) == 1 else None
            return self._struck(alone) if alone else [], [note]
        notes = []
        for peer, scores in case.answers:
            group = first_difference(self._setting, event.scores, scores)
            if group is None:
                self._passed(peer)
                continue
            self._count(disagreements=len(case.answers) == 1)
            reason = self._reason(case.step, event.scores, scores)
            notes.append(self._suspect(peer, case.step, reason))
        gone = [peer for peer, _ in case.answers if peer not in self._records]
        return [liar for peer in gone for liar in self._convict(peer)], notes

    def _suspect(self, peer: Peer, step: int, reason: str) -> Note:
        """Suspect a client of a lie in a step; return what is to be said."""
        self._suspects.setdefault(peer, (step, reason))
        then = "it is expelled if its state is the true one"
        return Note(f"audit: {peer.name}: {reason}; {then}", True)

    def confirmed(self, step: int, agreeing: Iterable[Peer]) -> Liars:
        """Return which suspects hold the true state after all, so that they have lied.

        Args:
            step: whose digest is agreed on.
            agreeing: who has that digest.
        """
        suspects = [peer for peer in agreeing if peer in self._suspects]
        sure = [peer for peer in suspects if self._suspects[peer][0] < step]
        return [liar for peer in sure for liar in self._convict(peer)]

    def diverged(self, peers: Iterable[Peer]) -> Liars:
        """Excuse clients whose state turns out to be wrong, but not time and again."""
        peers = tuple(peers)
        if self._summed is not None and self._summed[0] in peers:
            self._excused = True
        suspects = [peer for peer in peers if self._suspects.pop(peer, None)]
        return [liar for peer in suspects for liar in self._struck(peer)]

    def _convict(self, peer: Peer) -> Liars:
        suspicion = self._suspects.pop(peer, None)
        return self._expel(peer, suspicion[1]) if suspicion else []

    def _struck(self, peer: Peer) -> Liars:
        """Return a client that has had a wrong state too often."""
        record = self._records.get(peer)
        if record is None:
            return []
        record.strikes += 1
        if record.strikes < STRIKES:
            return []
        reason = f"its state was not the true one at {STRIKES} audits"
        return self._expel(peer, reason)

    def _expel(self, peer: Peer, reason: str) -> Liars:
        """Refuse a client from now on, unless that was done; it may have left."""
        if peer.announced in self._expelled and peer not in self._records:
            return []
        self._expelled[peer.announced] = reason
        self._count(expelled=1)
        return [(peer, reason)]

    def _reason(self, step: int, true: Scores, claimed: Scores) -> str:
        """Return what a client is told that has lied."""
        losses = np.concatenate([true.losses, true.clean])
        others = np.concatenate([claimed.losses, claimed.clean])
        at = int(differing(losses, others).argmax())
        return (
            f"its losses of step {step} are not those of its trials "
            f"({others[at]:.6g} where {losses[at]:.6g} is right)"
        )

    def _passed(self, peer: Peer) -> None:
        record = self._records.get(peer)
        if record is not None:
            record.agreed, record.due = record.agreed + 1, False
            record.strikes = 0

    # Sums.

    def of_sums(self, peers: Iterable[Peer]) -> Peer | None:
        """Return whose sum is to be added up by the server too, one at a time."""
        if self._summed is not None:
            return None
        records = {peer: self._records.setdefault(peer, Record()) for peer in peers}
        due = [p for p, r in records.items() if self.random.random() < chance(r.sums)]
        self.random.shuffle(due)
        return min(due, key=lambda peer: records[peer].sums, default=None)

    def resum(self, kept: tuple[Peer, Resum, Totals] | None) -> list[Resum]:
        """Have a client's sum added up by the server too.

        Args:
            kept: whose sum it is, of what, and the sum; None: it did not come.
        """
        if kept is None:
            return []
        self._summed, self._excused = kept, False
        return [kept[1]]

    def resummed(self, event: Resummed, ledger: Ledger) -> Verdict:
        """Return who is expelled for a sum that was wrong, and what is to be said.

        One that depends on weights may come of a bit that has flipped in them, as
        losses may: who sent it is expelled if its state turns out to be the true one.

        Args:
            event: what the server has found.
            ledger: knows the digests that were agreed on.
        """
        assert self._summed is not None, "none was to be added up"
        (peer, trials, total), self._summed = self._summed, None
        if event.digest and ledger.contradicts(trials.step, event.digest):
            return [], [_other_state(trials.step, "a sum")]
        right = np.array_equal(total, event.total)
        self._count(audits=1, disagreements=not right)
        record = self._records.get(peer)
        if right and record is not None:
            record.sums += 1
        reason = f"its sum of step {trials.step} is not that of its trials"
        if right:
            return [], []
        if not event.digest or record is None:
            return self._expel(peer, reason), []
        if self._excused:  # its state was wrong, and is replaced by now
            return self._struck(peer), []
        return [], [self._suspect(peer, trials.step, reason)]

    def _count(self, **more: int) -> None:
        counts = {name: getattr(self.counts, name) + n for name, n in more.items()}
        self.counts = replace(self.counts, **counts)

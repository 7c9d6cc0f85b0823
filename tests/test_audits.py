"""Who is audited how often, and what follows when answers differ."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.desk import NoAudits, lesson, rescored
from utilities.agreement import Pair
from utilities.audits import (
    FLOOR,
    OPEN_CASES,
    STRIKES,
    TRUST,
    Audits,
    Counts,
    Liars,
    Rescore,
    Rescored,
    Resum,
    Resummed,
    audit_random,
    chance,
)
from utilities.events import Note
from utilities.evolution import Scores, Segment
from utilities.ledger import Check, Ledger, Purpose, Replay
from utilities.peers import Peer
from utilities.scoring import score

START = lesson()
SETTING, STATE = START.setting, START.state
TOKENS = START.corpus.token_batch(0)
DIGEST = STATE.digest(SETTING.fingerprint)
SEGMENT = Segment(5, 0, 3)
TRUE = score(SETTING, STATE.weights, TOKENS, SEGMENT)
WRONG = replace(TRUE, losses=np.float32(5.0) - TRUE.losses)
TOTAL = np.array([4, -2, 0], np.int32)


class Room:
    """Audits and two clients that have scored the same trials."""

    def __init__(self) -> None:
        self.audits = Audits(SETTING, random.Random(1))
        self.ann = Peer(1, "ann", announced="ann")
        self.bob = Peer(2, "bob", announced="bob")
        self.audits.due([self.ann, self.bob])
        self.ledger = Ledger(SETTING, STATE)

    def close(
        self,
        *answers: tuple[Peer, Scores],
        digest: bytes = DIGEST,
        segment: Segment = SEGMENT,
        step: int = 0,
    ) -> list[Note | Replay | Rescore]:
        """Close a step in which these answers were given."""
        peers = tuple(peer for peer, _ in answers)
        check = Check(step, digest, peers, Purpose(), 0.0)
        pairs = [Pair(segment, answers)] if len(answers) == 2 else []
        scored = [(segment, answers[0][1])]
        return self.audits.close(check, pairs, scored, 0, self.ledger)

    def judge(self, order: object) -> Liars:
        """Return who is expelled, at the latest when its state was the true one."""
        assert isinstance(order, Rescore)
        liars, _ = self.audits.judged(rescored(START, order))
        assert self.audits.confirmed(0, [self.ann, self.bob]) == []
        return liars + self.audits.confirmed(1, [self.ann, self.bob])

    def agreed(self) -> list[int]:
        """Return how many audits in a row each client has passed."""
        return [record.agreed for record in self.audits._records.values()]


# --- how often ------------------------------------------------------------------------


def test_audits_become_rare_after_ten_agreements_but_never_end() -> None:
    assert [chance(0), chance(TRUST - 1)] == [1.0, 1.0]
    assert [chance(TRUST), chance(20)] == [0.1, 0.05]
    assert chance(10**6) == FLOOR > 0.02


def test_a_newcomer_is_due_until_it_was_audited() -> None:
    room = Room()
    assert room.audits.due([room.ann]) == [room.ann]
    for _ in range(TRUST):
        room.close((room.ann, TRUE), (room.bob, TRUE))
    assert room.agreed() == [TRUST, TRUST]

    due = [bool(room.audits.due([room.ann])) for _ in range(200)]

    assert not due[0]
    assert due == sorted(due)  # once it is due it stays so
    assert due[-1]


def test_who_has_left_is_a_newcomer_when_it_returns() -> None:
    room = Room()
    room.close((room.ann, TRUE), (room.bob, TRUE))
    room.audits.forget(room.ann)
    room.close((room.ann, TRUE), (room.bob, TRUE))  # of a step that was still open

    assert room.agreed() == [2]
    assert room.audits.refusal("ann") is None


@given(st.integers(0, 9), st.integers(0, 2**32))
def test_everybody_who_is_due_has_somebody_to_be_compared_with(
    count: int, seed: int
) -> None:
    audits = Audits(SETTING, random.Random(seed))
    crowd = [Peer(number, f"c{number}") for number in range(count)]

    couples = audits.couples(crowd)

    members = Counter(peer for couple in couples for peer in couple)
    assert len(couples) == ((count + 1) // 2 if count > 1 else 0)
    assert all(one is not other for one, other in couples)
    assert count < 2 or members.keys() == set(crowd)
    assert sum(members.values()) - len(members) <= 1  # the odd one needs somebody


def test_who_is_with_whom_is_drawn() -> None:
    crowd = [Peer(number, f"c{number}") for number in range(4)]
    audits = Audits(SETTING, random.Random(2))

    seen = {frozenset(couple) for _ in range(50) for couple in audits.couples(crowd)}

    assert len(seen) == 6


def test_nobody_is_due_by_bad_luck_alone() -> None:
    audits = Audits(SETTING, NoAudits())

    assert audits.couples([Peer(1, "ann"), Peer(2, "bob")]) == []


def test_the_source_depends_on_the_secret_of_the_run_and_the_step() -> None:
    numbers = {audit_random(seed, step).random() for seed in (1, 2) for step in (0, 7)}

    assert len(numbers) == 4
    assert audit_random(1, 7).random() in numbers


# --- where ----------------------------------------------------------------------------


def test_shared_segments_may_stand_anywhere_and_meet_most_of_the_time() -> None:
    audits = Audits(SETTING, random.Random(3))
    drawn = [audits.places((8, 24, set()), (8, 24, set())) for _ in range(4000)]

    for number in (0, 1):
        assert {places[number] for places in drawn} == set(range(24))
    met = sum(max(places) < 8 for places in drawn) / len(drawn)
    assert met == pytest.approx(1 - 0.25 * 16 / 24, abs=0.03)


def test_no_place_is_taken_twice() -> None:
    audits = Audits(SETTING, random.Random(4))
    mine: set[int] = set()

    places = [audits.places((2, 6, mine), (2, 6, set()))[0] for _ in range(6)]

    assert sorted(places) == list(range(6))


# --- comparing and deciding -----------------------------------------------------------


def test_equal_answers_earn_trust_and_cost_their_trials_once() -> None:
    room = Room()

    assert room.close((room.ann, TRUE), (room.bob, TRUE)) == []

    assert room.agreed() == [1, 1]
    assert room.audits.counts == Counts(audits=1, repeated=12)


@pytest.mark.parametrize("liars", [("ann",), ("bob",), ("ann", "bob")])
def test_the_server_has_the_last_word_where_answers_differ(
    liars: tuple[str, ...],
) -> None:
    room = Room()
    other = replace(TRUE, losses=np.float32(4.0) - TRUE.losses)
    ann = WRONG if "ann" in liars else TRUE
    bob = other if "bob" in liars else TRUE

    note, order = room.close((room.ann, ann), (room.bob, bob))

    assert isinstance(note, Note)
    text = "audit: ann and bob differ about trials of step 0; "
    assert note.text == f"{text}the server scores them itself"
    assert isinstance(order, Rescore)
    assert (order.token_batch, order.segment) == (0, Segment(5, 0, 1))
    expelled = room.judge(order)
    assert [peer.name for peer, _ in expelled] == list(liars)
    for peer, reason in expelled:
        assert reason.startswith("its losses of step 0 are not those of its trials (")
        assert room.audits.refusal(peer.announced) == f"expelled: {reason}"
    assert room.agreed() == [int(name not in liars) for name in ("ann", "bob")]
    counts = room.audits.counts
    assert (counts.disagreements, counts.expelled) == (1, len(liars))


def test_the_server_scores_one_block_from_the_first_difference_on() -> None:
    room = Room()
    losses = TRUE.losses.copy()
    losses[9] += 0.5

    orders = room.close((room.ann, replace(TRUE, losses=losses)), (room.bob, TRUE))

    order = orders[-1]
    assert isinstance(order, Rescore)
    assert order.segment == Segment(5, 2, 1)
    [(liar, reason)] = room.judge(order)
    assert liar is room.ann
    assert reason.endswith(f"({losses[9]:.6g} where {TRUE.losses[9]:.6g} is right)")


def test_a_difference_about_which_a_decision_is_on_its_way_is_not_asked_again() -> None:
    room = Room()
    assert len(room.close((room.ann, WRONG), (room.bob, TRUE))) == 2

    assert room.close((room.ann, WRONG), (room.bob, TRUE)) == []
    assert room.audits.counts.disagreements == 2


def test_a_client_is_expelled_once_whatever_else_is_decided_later() -> None:
    room, eve = Room(), Peer(3, "eve", announced="eve")
    room.audits.due([eve])
    first = room.close((room.ann, WRONG), (room.bob, TRUE))[-1]
    second = room.close((eve, TRUE), (room.ann, WRONG))[-1]
    assert isinstance(first, Rescore)
    assert isinstance(second, Rescore)

    [(liar, _)] = room.judge(first)
    room.audits.forget(liar)

    assert room.judge(second) == []
    assert room.audits.counts.expelled == 1


def test_who_has_left_is_expelled_by_name_all_the_same() -> None:
    room = Room()
    order = room.close((room.ann, WRONG), (room.bob, TRUE))[-1]
    room.audits.forget(room.ann)
    assert isinstance(order, Rescore)

    expelled = room.judge(order)

    assert [peer for peer, _ in expelled] == [room.ann]
    assert room.audits.refusal("ann") is not None


def test_only_so_many_differences_wait_for_the_server() -> None:
    room = Room()
    crowd = [Peer(number, f"c{number}") for number in range(2 * OPEN_CASES)]
    for one, other in zip(crowd[::2], crowd[1::2], strict=True):
        assert len(room.close((one, WRONG), (other, TRUE))) == 2

    [note] = room.close((room.ann, WRONG), (room.bob, TRUE))

    assert isinstance(note, Note)
    assert note.text.endswith("too many wait to be decided already")


def test_nothing_follows_from_trials_of_another_state() -> None:
    room = Room()
    order = room.close((room.ann, WRONG), (room.bob, TRUE), digest=b"x" * 32)[-1]
    assert isinstance(order, Rescore)

    expelled, [note] = room.audits.judged(rescored(START, order))

    assert expelled == []
    assert note == Note(
        "audit: the state of step 0 is not the one agreed on; nothing follows from its "
        "trials",
        True,
    )


# --- lies and broken memory -----------------------------------------------------------


def suspected(room: Room) -> list[Note]:
    """Let the server find that the losses of the first client are wrong."""
    order = room.close((room.ann, WRONG), (room.bob, TRUE))[-1]
    assert isinstance(order, Rescore)
    liars, notes = room.audits.judged(rescored(START, order))
    assert liars == []
    return notes


def test_whose_losses_are_wrong_is_expelled_once_its_state_was_right() -> None:
    room = Room()

    [note] = suspected(room)

    assert note.warning
    assert note.text.startswith("audit: ann: its losses of step 0 are not those of its")
    assert note.text.endswith("; it is expelled if its state is the true one")
    assert room.audits.confirmed(0, [room.ann, room.bob]) == []  # the same state
    assert room.audits.confirmed(1, [room.bob]) == []  # it has not answered
    [(liar, _)] = room.audits.confirmed(2, [room.ann, room.bob])
    assert liar is room.ann
    assert room.audits.confirmed(3, [room.ann]) == []


def test_whose_state_was_wrong_has_not_lied_but_is_not_excused_for_ever() -> None:
    room = Room()
    for _ in range(STRIKES - 1):
        suspected(room)
        assert room.audits.diverged([room.ann, room.bob]) == []
        assert room.audits.confirmed(5, [room.ann]) == []

    suspected(room)
    [(liar, reason)] = room.audits.diverged([room.ann])

    assert liar is room.ann
    assert reason == f"its state was not the true one at {STRIKES} audits"
    assert room.audits.diverged([room.ann]) == []


def test_who_leaves_under_suspicion_is_expelled_by_name() -> None:
    room = Room()
    suspected(room)

    [note] = room.audits.forget(room.ann)

    assert note.warning
    assert note.text.startswith("ann expelled, though it has left: its losses of step")
    assert room.audits.refusal("ann") is not None
    assert room.audits.forget(room.bob) == []


# --- a client alone -------------------------------------------------------------------


def test_a_client_alone_is_audited_on_a_state_that_is_known() -> None:
    room = Room()

    [order] = room.close((room.ann, TRUE))

    assert isinstance(order, Rescore)
    assert order.replay == Replay(STATE, ())
    assert order.segment.groups == 1
    assert room.audits.counts == Counts(audits=1, repeated=4)
    assert room.audits.judged(rescored(START, order)) == ([], [])
    assert room.agreed() == [1, 0]


def test_a_client_alone_that_lies_is_expelled() -> None:
    room = Room()
    [order] = room.close((room.ann, WRONG))
    assert isinstance(order, Rescore)

    [(liar, _)] = room.judge(order)

    assert liar is room.ann
    assert room.audits.counts == Counts(1, 1, 1, 4)


def test_where_the_state_is_not_known_a_replay_is_ordered_first() -> None:
    room = Room()

    [replay] = room.close((room.ann, TRUE), step=3)

    assert isinstance(replay, Replay)
    assert room.ledger.checking
    assert room.audits.knows(replace(STATE, step=2)) == []
    assert room.close((room.ann, TRUE), step=4) == []  # while that is under way
    [order] = room.audits.knows(replace(STATE, step=3))
    assert order.segment.seed == 5
    assert room.audits.knows(replace(STATE, step=3)) == []


def test_what_waits_for_a_state_that_has_passed_is_dropped() -> None:
    room = Room()
    room.close((room.ann, TRUE), step=3)

    assert room.audits.knows(replace(STATE, step=4)) == []
    assert room.audits.knows(replace(STATE, step=3)) == []


def test_a_client_alone_that_is_not_due_is_left_alone() -> None:
    room = Room()
    room.audits._records[room.ann].due = False
    assert room.close((room.ann, TRUE)) == []

    room.audits.forget(room.ann)
    assert room.close((room.ann, TRUE)) == []


def test_a_client_alone_whose_state_is_wrong_time_and_again_is_expelled() -> None:
    room = Room()
    found = []
    for _ in range(STRIKES):
        [order] = room.close((room.ann, TRUE), digest=b"x" * 32)
        assert isinstance(order, Rescore)
        found.append(room.audits.judged(rescored(START, order))[0])

    reason = f"its state was not the true one at {STRIKES} audits"
    assert found == [[]] * (STRIKES - 1) + [[(room.ann, reason)]]


def test_an_audit_that_is_passed_forgives_wrong_states() -> None:
    room = Room()
    for digest in (b"x" * 32, b"x" * 32, DIGEST, b"x" * 32):
        [order] = room.close((room.ann, TRUE), digest=digest)
        assert isinstance(order, Rescore)
        room.audits._records[room.ann].due = True
        assert room.audits.judged(rescored(START, order))[0] == []
        room.audits._records[room.ann].due = True


def test_a_client_that_has_left_before_the_verdict_has_no_strikes() -> None:
    room = Room()
    [order] = room.close((room.ann, TRUE), digest=b"x" * 32)
    assert isinstance(order, Rescore)
    room.audits.forget(room.ann)

    assert room.audits.judged(Rescored(order.case, DIGEST, TRUE))[0] == []


# --- sums -----------------------------------------------------------------------------

TRIALS = Resum(Replay(STATE, ()), 7, 0, (SEGMENT,), np.ones(12, np.int8))


LEDGER = Ledger(SETTING, STATE)


def test_sums_are_added_up_again_one_at_a_time() -> None:
    room = Room()
    peers = [room.ann, room.bob]
    first = room.audits.of_sums(peers)
    assert first is not None
    assert room.audits.resum((first, TRIALS, TOTAL)) == [TRIALS]
    assert room.audits.of_sums(peers) is None
    assert room.audits.resum(None) == []

    assert room.audits.resummed(Resummed(TOTAL.astype(np.int64)), LEDGER) == ([], [])

    assert room.audits.counts == Counts(audits=1)
    second = room.audits.of_sums(peers)
    assert second not in (None, first)  # who was audited least


def test_any_difference_between_sums_expels() -> None:
    room = Room()
    room.audits.resum((room.ann, TRIALS, TOTAL))
    other = TOTAL.copy()
    other[1] += 1

    expelled, _ = room.audits.resummed(Resummed(other), LEDGER)

    reason = "its sum of step 7 is not that of its trials"
    assert expelled == [(room.ann, reason)]
    assert room.audits.refusal("ann") == f"expelled: {reason}"
    assert room.audits.counts == Counts(audits=1, disagreements=1, expelled=1)


WRONG_SUM = Resummed(np.zeros(3, np.int64), DIGEST)  # that depends on weights


def audited_sum() -> Room:
    """Return a room in which a sum that depends on weights is added up again."""
    room = Room()
    room.audits.of_sums([room.ann, room.bob])
    room.audits.resum((room.ann, TRIALS, TOTAL))
    return room


def test_who_sent_a_wrong_sum_with_the_true_weights_is_expelled() -> None:
    room = audited_sum()

    expelled, [note] = room.audits.resummed(WRONG_SUM, LEDGER)

    assert expelled == []
    assert note.text == (
        "audit: ann: its sum of step 7 is not that of its trials; "
        "it is expelled if its state is the true one"
    )
    assert room.audits.confirmed(7, [room.ann]) == []  # it may be of before
    reason = "its sum of step 7 is not that of its trials"
    assert room.audits.confirmed(8, [room.ann, room.bob]) == [(room.ann, reason)]


def test_who_sent_a_wrong_sum_with_a_wrong_state_is_excused() -> None:
    room = audited_sum()
    room.audits.resummed(WRONG_SUM, LEDGER)

    assert room.audits.diverged([room.ann]) == []
    assert room.audits.confirmed(9, [room.ann]) == []


def test_a_state_may_turn_out_wrong_before_its_sum_does() -> None:
    room = audited_sum()
    assert room.audits.diverged([room.bob]) == []
    assert room.audits.diverged([room.ann]) == []

    assert room.audits.resummed(WRONG_SUM, LEDGER) == ([], [])

    assert room.audits.confirmed(9, [room.ann]) == []
    assert room.audits.counts.expelled == 0


def test_a_wrong_sum_of_who_has_left_expels() -> None:
    room = audited_sum()
    room.audits.forget(room.ann)

    [(peer, reason)], notes = room.audits.resummed(WRONG_SUM, LEDGER)

    assert (peer, notes) == (room.ann, [])
    assert room.audits.refusal("ann") == f"expelled: {reason}"


def test_nothing_follows_where_the_server_has_another_state_itself() -> None:
    room = audited_sum()
    ledger = Ledger(SETTING, STATE)
    ledger.agree(7, b"x" * 32)

    expelled, [note] = room.audits.resummed(WRONG_SUM, ledger)

    assert expelled == []
    assert note.warning
    assert "nothing follows from a sum" in note.text
    assert room.audits.counts == Counts()
    assert room.audits.confirmed(9, [room.ann]) == []


def test_sums_of_who_has_left_are_compared_too() -> None:
    room = Room()
    room.audits.resum((room.ann, TRIALS, TOTAL))
    room.audits.forget(room.ann)

    assert room.audits.resummed(Resummed(TOTAL), LEDGER) == ([], [])


def test_sums_become_rare_as_well() -> None:
    room = Room()
    room.audits._records[room.ann].sums = 10**6
    drawn = [room.audits.of_sums([room.ann]) for _ in range(1000)]

    assert 0 < sum(peer is not None for peer in drawn) < 60


# --- what is said ---------------------------------------------------------------------


def test_that_a_client_does_too_much_is_said_once() -> None:
    room = Room()
    assert room.audits.capped(None) == []

    [note] = room.audits.capped(room.ann)

    assert note == Note(
        "ann scores more trials than all others together; what is beyond half of a "
        "step's does not count"
    )
    assert room.audits.capped(room.ann) == []
    room.audits.forget(room.ann)
    assert room.audits.capped(room.ann) == [note]

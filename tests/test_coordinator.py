"""What the server decides, event by event: joins, tokens, steps, departures."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.desk import (
    RUN_SEED,
    START,
    Desk,
    hello,
    lesson,
    new_coordinator,
    other_digest,
    together,
)
from tests.messages import comparable
from utilities.data import Tokens
from utilities.events import Drop, Joined, Left, Received
from utilities.evolution import Scores, Segment, Update, segment_seed
from utilities.losses import shape
from utilities.protocol import (
    PROTOCOL_VERSION,
    Begin,
    Goodbye,
    Message,
    TokenBatch,
    Welcome,
)
from utilities.selftest import ARITHMETIC_EXPECTED, NOISE_EXPECTED
from utilities.steps import FIRST_BLOCKS, PARTS, SPARE

# --- joining --------------------------------------------------------------------------


def test_the_first_joiner_gets_the_accepted_state_tokens_and_a_begin() -> None:
    desk = Desk()
    state = desk.start.state

    welcome, tokens, begin = desk.join(1)

    assert isinstance(welcome, Welcome)
    assert welcome.config == desk.start.setting.config.to_json()
    assert welcome.text_sha256 == desk.start.setting.text_sha256
    assert (welcome.reason, welcome.step, welcome.count) == ("", 0, 0)
    assert welcome.digest == state.digest(desk.start.setting.fingerprint)
    assert welcome.weights is state.weights
    assert isinstance(tokens, TokenBatch)
    assert tokens.number == 0
    assert tokens.tokens is desk.start.corpus.train
    count = PARTS * SPARE
    seeds = [segment_seed(RUN_SEED, 0, slot) for slot in range(count)]
    segments = tuple(Segment(seed, 0, FIRST_BLOCKS) for seed in seeds)
    assert begin == Begin(0, 1.0, 0, False, segments)


def test_a_run_that_is_resumed_welcomes_at_its_step() -> None:
    start = lesson()
    start = replace(start, state=replace(start.state, step=70, count=69))
    desk = Desk(start)

    welcome, _, begin = desk.join(1)

    assert isinstance(welcome, Welcome)
    assert (welcome.step, welcome.count) == (70, 69)
    assert isinstance(begin, Begin)
    assert begin.step == 70


def test_a_client_that_comes_back_is_named_with_the_step_that_it_was_at() -> None:
    desk = Desk()

    desk.join(1, "ann", last_step=3, last_digest=b"d" * 32)

    assert desk.log.said("ann joined again (was at 3); 1 here")


def test_clients_of_one_name_are_told_apart() -> None:
    desk = Desk()

    for client in (1, 2, 3):
        desk.join(client, "ann")

    names = [peer.name for peer in desk.coordinator.clients]
    assert names == ["ann", "ann#2", "ann#3"]


def test_a_client_that_was_cut_off_takes_the_place_of_its_old_session() -> None:
    desk = Desk()
    desk.join(1, "ann", identity=b"i" * 16)
    desk.join(2, "bob")

    desk.join(3, "ann", identity=b"i" * 16, last_step=0, last_digest=b"d" * 32)

    assert [peer.name for peer in desk.coordinator.clients] == ["bob", "ann"]
    (drop,) = desk.log.drops
    assert (drop.client, drop.goodbye.end) == (1, "dropped")
    assert drop.goodbye.reason == "it has connected again"
    assert desk.log.said("ann left: it has connected again; 1 here")
    desk.leave(1)  # as the hub tells it: it has gone already
    assert len(desk.coordinator.clients) == 2


def test_a_joiner_waits_until_a_state_was_asked_for_and_agreed_on() -> None:
    desk = together(1, 2)
    assert desk.join(3) == []
    assert not desk.asked(1)

    desk.step(1, 2)
    assert desk.mail(3) == []
    assert [desk.asked(1), desk.asked(2)] == [True, False]
    step = desk.coordinator.step
    desk.send_state(1)
    desk.answer(1)
    assert desk.mail(3) == []
    desk.answer(2)

    welcome, tokens, update, begin = desk.mail(3)
    assert isinstance(welcome, Welcome)
    assert welcome.step == step
    assert isinstance(tokens, TokenBatch)
    assert isinstance(update, Update)
    assert update.step == step
    assert isinstance(begin, Begin)
    assert (begin.step, begin.state_wanted) == (step + 1, False)
    assert desk.log.replays == []


def test_a_lone_clients_state_is_confirmed_by_a_replay_before_a_joiner_gets_it() -> (
    None
):
    desk = together(1)
    desk.join(2)
    desk.step(1)
    step = desk.coordinator.step

    desk.step(1)
    assert desk.mail(2) == []
    [replay] = desk.log.replays
    assert [update.step for update in replay.updates] == [8, 9, 10]
    assert not desk.asked(1)  # the replay will do

    desk.step(1)
    desk.replay()

    kinds = desk.kinds(2)
    assert kinds == ["Welcome", "TokenBatch", "Update", "Update"]
    assert desk.coordinator.step == step + 2
    desk.step(1)
    assert desk.kinds(2) == ["Update", "Begin"]


def test_a_joiner_gets_the_last_accepted_state_and_all_updates_if_none_is_sent() -> (
    None
):
    desk = together(1, 2)
    desk.join(3)
    desk.step(1, 2)
    assert desk.asked(1)

    desk.answer(1)
    desk.answer(2)

    welcome, tokens, *rest = desk.mail(3)
    assert isinstance(welcome, Welcome)
    assert isinstance(tokens, TokenBatch)
    updates = [message.step for message in rest if isinstance(message, Update)]
    assert updates == list(range(welcome.step, desk.coordinator.step))
    assert len(updates) == 4
    assert isinstance(rest[-1], Begin)
    assert desk.log.said("c1 did not send its state; the next is asked")


def test_after_a_client_that_did_not_send_its_state_the_next_one_is_asked() -> None:
    desk = together(1, 2)
    for joiner, asked in ((3, 1), (4, 2)):
        desk.join(joiner)
        ready = [peer.id for peer in desk.coordinator.clients if peer.ready]
        for client in ready:
            desk.answer(client)
        assert [client for client in ready if desk.asked(client)] == [asked]
        for client in ready:
            desk.answer(client)

    assert desk.peer(4).ready
    assert desk.log.replays == []  # client 3 has not been asked


def test_when_nobody_has_sent_its_state_the_replay_gives_one() -> None:
    desk = together(1)
    desk.join(2)
    desk.step(1)

    desk.answer(1)

    assert desk.kinds(2)[:2] == ["Welcome", "TokenBatch"]
    step = desk.coordinator.step - 1
    assert [update.step for update in desk.log.replays[0].updates][-1] == step - 1
    desk.replay()
    desk.join(3)
    desk.steps(1, 1, 2)
    assert desk.asked(1)  # all that was in vain is forgotten


def test_a_client_that_is_not_waited_for_is_not_asked_for_its_state() -> None:
    desk = together(1, 2)
    desk.join(3)
    desk.peer(1).waited = False
    desk.answer(2)

    assert [desk.asked(1), desk.asked(2)] == [False, True]


def test_a_silent_client_does_not_keep_the_replay_from_giving_a_state() -> None:
    desk = together(1, 2)
    desk.peer(2).waited = False
    desk.join(3)
    desk.answer(1)

    desk.answer(1)

    assert len(desk.log.replays) == 1


def test_an_asked_client_that_leaves_is_not_blamed() -> None:
    desk = together(1, 2)
    desk.join(3)
    desk.step(1, 2)
    assert desk.asked(1)

    desk.leave(1)
    desk.answer(2)

    assert desk.peer(3).ready
    assert not desk.log.said("did not send")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"protocol": PROTOCOL_VERSION + 1},
            f"expected protocol {PROTOCOL_VERSION}, got {PROTOCOL_VERSION + 1}",
        ),
        (
            {"noise_test": b"n" * 32},
            f"noise self-test gives 6e6e6e6e6e6e, expected {NOISE_EXPECTED.hex()[:12]}",
        ),
        (
            {"arithmetic_test": b"a" * 32},
            "arithmetic self-test gives 616161616161, expected "
            f"{ARITHMETIC_EXPECTED.hex()[:12]}",
        ),
    ],
)
def test_a_client_that_cannot_take_part_is_refused_with_both_values(
    changes: dict[str, Any], words: str
) -> None:
    desk = Desk()

    assert desk.join(1, "eve", **changes) == []

    [drop] = desk.log.drops
    assert (drop.client, drop.goodbye.end) == (1, "refused")
    assert words in drop.goodbye.reason
    assert drop.goodbye.reason.isprintable()
    assert desk.log.said(f"eve refused: {drop.goodbye.reason}", warning=True)
    assert desk.coordinator.clients == []
    desk.send(1, Goodbye("dropped", ""))  # whatever else it sends is not heard
    desk.do(Left(1, "gone"))
    assert not desk.log.said("left")


# --- tokens ---------------------------------------------------------------------------


def batches(messages: list[Message]) -> list[object]:
    """Return batch numbers and, as text, the kinds of what needs them."""
    return [
        m.number if isinstance(m, TokenBatch) else f"{type(m).__name__}{m.step}"
        for m in messages
        if isinstance(m, TokenBatch | Update | Begin)
    ]


def test_a_token_batch_goes_out_one_step_before_its_first_use() -> None:
    desk = Desk(batch_limit=100, new_tokens_interval=2)

    got = batches(desk.join(1))
    for _ in range(4):
        desk.steps(1, 1)
        got += batches(desk.mail(1))

    assert got == [
        *(0, "Begin0"),
        *("Update0", "Begin1", 1),
        *("Update1", "Begin2"),
        *("Update2", "Begin3", 2),
        *("Update3", "Begin4"),
    ]


def test_a_joiner_gets_each_token_batch_that_its_updates_need_once() -> None:
    desk = together(1, 2, batch_limit=100, new_tokens_interval=1)
    desk.join(3)
    desk.step(1, 2)
    desk.answer(1)
    desk.answer(2)

    assert batches(desk.mail(3)) == [
        *(10, "Update10"),
        *(11, "Update11"),
        *(12, "Update12"),
        *(13, "Update13"),
        *(14, "Begin14", 15),
    ]


def test_token_batches_that_a_client_has_dropped_are_not_remembered() -> None:
    desk = Desk(batch_limit=100, new_tokens_interval=1)
    desk.join(1)

    desk.steps(20, 1)

    assert desk.peer(1).batches == {20, 21}


def test_updates_name_the_batch_that_their_step_was_scored_on() -> None:
    desk = Desk(batch_limit=100, new_tokens_interval=2)
    desk.join(1)

    desk.steps(5, 1)

    named = [update.token_batch for update in desk.truth.updates.values()]
    assert named == [0, 0, 1, 1, 2]


# --- timed steps ----------------------------------------------------------------------


def test_a_step_closes_as_soon_as_all_have_answered() -> None:
    desk = together(1, 2)
    step = desk.coordinator.step

    desk.answer(1, 0.2)
    assert desk.log.closed == []
    desk.answer(2, 0.3, groups=2)

    [closed] = desk.log.closed
    assert (closed.step, closed.trials, closed.clients) == (step, 12, 2)
    assert (closed.late, closed.dropped) == (0, 0)
    assert closed.seconds == desk.now - START
    assert closed.digest == desk.truth.digest(step)
    assert desk.kinds(1) == desk.kinds(2) == ["Update", "Begin"]


def test_time_without_anybody_is_no_time_trained() -> None:
    desk = Desk(seconds=30.0)
    desk.tick(1000.0)
    desk.join(1)
    desk.answer(1, after=2.0)
    desk.leave(1)
    desk.tick(500.0)
    desk.join(2)
    desk.answer(2, after=3.0)

    assert [closed.seconds for closed in desk.log.closed] == [32.0, 35.0]


def test_the_update_is_shaped_from_all_results_at_once() -> None:
    desk = together(1, 2)
    results = {client: desk.result(desk.begins(client)[0]) for client in (1, 2)}
    step = desk.coordinator.step

    for client in (2, 1):
        desk.send(client, results[client])

    scored = [
        (result.segments[0], Scores(result.losses, result.clean))
        for result in results.values()
    ]
    expected = shape(desk.start.setting, step, 0, scored, desk.now - START)
    got = desk.truth.updates[step]
    assert comparable(got) == comparable(expected)
    clean = np.concatenate([result.clean for result in results.values()])
    assert desk.log.closed[0].loss == pytest.approx(clean.mean())


def test_every_segment_of_a_step_has_a_slot_of_its_own() -> None:
    desk = together(1, 2, 3)
    step = desk.coordinator.step

    seeds = [seed for client in (1, 2, 3) for seed in desk.seeds(client)]

    slots = range(3 + 24 + 24)  # the first one is known to do one block in its time
    assert seeds == [segment_seed(RUN_SEED, step, slot) for slot in slots]


def test_a_step_closes_at_the_deadline_without_those_who_are_late() -> None:
    desk = together(1, 2)
    desk.answer(1)
    due = desk.coordinator.wakeup(desk.now)
    assert due is not None

    desk.tick(due - desk.now - 0.001)
    assert desk.log.closed == []
    desk.tick(0.002)

    assert (desk.log.closed[0].clients, desk.log.closed[0].late) == (1, 1)
    assert desk.log.said("c2 is late at step")
    assert desk.kinds(2) == ["Update", "Begin"]  # it stays in step


def test_the_first_deadline_allows_a_second_for_the_update() -> None:
    desk = Desk(time_per_step=2.0)

    desk.join(1)

    assert desk.coordinator.wakeup(desk.now) == START + 1.0 + 2.0 + 0.5


def test_the_deadline_allows_the_median_of_the_last_eight_updates() -> None:
    desk = Desk(time_per_step=2.0, grace=0.0)
    desk.join(1)
    desk.step(1)
    for seconds in (9.0, 9.0, 9.0, 9.0, 0.5, 0.25, 0.5, 0.25, 0.5, 0.5):
        desk.answer(1, update_seconds=seconds)

    due = desk.coordinator.wakeup(desk.now)

    assert due == pytest.approx(desk.now + 0.5 + 2.0)


@pytest.mark.parametrize(("seconds", "allowed"), [(0.5, 1.0), (3.0, 3.0)])
def test_an_update_is_allowed_no_more_than_a_second_or_the_time_per_step(
    seconds: float, allowed: float
) -> None:
    desk = Desk(time_per_step=seconds, grace=0.0)
    desk.join(1)

    desk.answer(1, update_seconds=60.0)

    due = desk.coordinator.wakeup(desk.now)
    assert due == pytest.approx(desk.now + allowed + seconds)


def test_a_client_that_has_applied_no_update_yet_has_not_reported_its_time() -> None:
    desk = Desk(grace=0.0)
    desk.join(1)

    desk.answer(1, update_seconds=0.0)

    assert desk.coordinator.wakeup(desk.now) == pytest.approx(desk.now + 1.0 + 1.0)


def test_the_deadline_is_the_latest_of_those_who_are_waited_for() -> None:
    desk = together(1, 2, grace=0.0)
    desk.answer(1, update_seconds=0.9)
    desk.answer(2, update_seconds=0.1)
    for _ in range(8):
        desk.answer(1, update_seconds=0.9)
        desk.answer(2, update_seconds=0.1)
    assert desk.coordinator.wakeup(desk.now) == pytest.approx(desk.now + 1.9)

    desk.answer(1)

    assert desk.coordinator.wakeup(desk.now) == pytest.approx(desk.now + 1.1)


def test_a_step_never_closes_without_a_result() -> None:
    desk = together(1, 2)

    desk.tick(1000.0)

    assert desk.log.closed == []
    assert desk.coordinator.wakeup(desk.now) is None
    desk.answer(2)
    assert desk.log.closed[0].clients == 1


def test_a_late_answer_is_dropped_and_its_client_not_waited_for() -> None:
    desk = together(1, 2)
    step = desk.coordinator.step
    desk.answer(1)
    desk.tick(10.0)

    desk.answer_late(2)  # of the step that has closed
    assert not desk.peer(2).waited
    desk.answer(1)

    assert desk.coordinator.step == step + 2
    assert [update.trials for update in list(desk.truth.updates.values())[-2:]] == [
        4,
        4,
    ]
    assert [closed.late for closed in desk.log.closed] == [1, 1]
    notes = [note for note in desk.log.notes if "late" in note.text]
    assert len(notes) == 1


def test_an_answer_within_its_own_deadline_is_waited_for_again_even_after_closing() -> (
    None
):
    desk = together(1, 2)
    desk.answer(1)
    desk.tick(10.0)
    desk.answer(1, 0.1)  # closes without client 2
    assert [closed.late for closed in desk.log.closed] == [1, 1]

    desk.begins(2).pop(0)
    desk.answer_late(2, 0.1)

    assert desk.peer(2).waited
    desk.answer(1)
    assert len(desk.log.closed) == 2  # waits for both
    desk.answer(2)
    assert len(desk.log.closed) == 3


def test_a_client_that_is_not_waited_for_counts_if_it_answers_in_time() -> None:
    desk = together(1, 2)
    desk.answer(1)
    desk.tick(10.0)

    desk.answer(2)
    desk.answer(1)

    assert [closed.clients for closed in desk.log.closed] == [1, 2]


def test_a_silent_client_never_holds_up_a_step_twice() -> None:
    desk = together(1, 2)
    seconds: list[float] = []
    for _ in range(5):
        began = desk.now
        desk.answer(1, 0.5)
        while len(desk.log.closed) <= len(seconds):
            due = desk.coordinator.wakeup(desk.now)
            assert due is not None
            desk.tick(due - desk.now)
        seconds.append(desk.now - began)

    assert seconds[0] <= 1.0 + 1.0 + 0.25
    assert seconds[1:] == pytest.approx([0.5] * 4)


def test_where_nobody_is_waited_for_a_late_answer_closes_the_step() -> None:
    desk = together(1, 2)
    for client in (1, 2):
        desk.peer(client).waited = False
    desk.tick(10.0)

    desk.answer(1)

    assert desk.log.closed[0].clients == 1
    assert not desk.peer(1).waited


def test_an_answer_of_long_ago_is_only_late() -> None:
    desk = together(1, 2)
    desk.answer(1)
    desk.tick(10.0)
    for _ in range(100):
        desk.answer(1)
    assert len(desk.peer(2).debts) == 64

    desk.answer_late(2)

    assert not desk.peer(2).waited
    assert desk.log.drops == []


# --- joins and departures -------------------------------------------------------------


def test_with_no_clients_no_step_is_open_and_it_begins_anew_with_new_slots() -> None:
    desk = together(1, 2)
    step = desk.coordinator.step
    taken = desk.seeds(1) + desk.seeds(2)

    desk.answer(1)
    desk.leave(1)
    desk.leave(2)
    assert desk.coordinator.wakeup(desk.now) is None
    assert desk.log.said("c2 left: cable pulled; 0 here")

    welcome, *_, begin = desk.join(3)
    assert isinstance(welcome, Welcome)
    assert isinstance(begin, Begin)
    assert begin.step == step
    new = range(len(taken), len(taken) + PARTS * SPARE)
    expected = [segment_seed(RUN_SEED, step, slot) for slot in new]
    assert [s.seed for s in begin.segments] == expected
    desk.answer(3)
    assert [s.seed for s in desk.truth.updates[step].segments] == [
        begin.segments[0].seed
    ]


def test_a_step_does_not_wait_for_a_client_that_has_left() -> None:
    desk = together(1, 2)
    desk.answer(1)

    desk.leave(2)

    assert (desk.log.closed[0].clients, desk.log.closed[0].late) == (1, 0)


def test_what_a_client_has_answered_counts_though_it_has_left() -> None:
    desk = together(1, 2)

    desk.answer(1)
    desk.leave(1)
    desk.answer(2)

    assert (desk.log.closed[0].clients, desk.log.closed[0].trials) == (2, 8)


def test_those_who_are_not_waited_for_are_not_waited_for_when_the_others_leave() -> (
    None
):
    desk = together(1, 2)
    desk.peer(2).waited = False

    desk.answer(1)

    assert len(desk.log.closed) == 1


def test_a_joiner_begins_at_once_when_those_before_it_leave() -> None:
    desk = together(1)
    assert desk.join(2) == []

    desk.leave(1)

    kinds = desk.kinds(2)
    assert (kinds[0], kinds[-1]) == ("Welcome", "Begin")
    desk.answer(2)
    assert desk.log.closed[0].clients == 1


def test_a_goodbye_is_a_departure() -> None:
    desk = together(1, 2)

    desk.send(1, Goodbye("finished", "stopped by its user"))
    desk.send(2, Goodbye("finished", ""))

    assert desk.log.said("c1 left: stopped by its user; 1 here")
    assert desk.log.said("c2 left: finished; 0 here")
    desk.do(Left(1, "connection closed"))
    assert desk.coordinator.clients == []


def test_a_client_that_says_goodbye_is_closed_in_case_it_does_not_close() -> None:
    desk = together(1, 2)

    desk.send(1, Goodbye("finished", "stopped by its user"))

    assert desk.log.drops == [Drop(1, Goodbye("dropped", "goodbye"))]
    desk.send(1, Goodbye("finished", "again"))  # it is not heard any more
    assert len(desk.log.drops) == 1


def test_joiners_get_in_where_everybody_before_them_is_silent() -> None:
    desk = together(1)
    step = desk.coordinator.step
    desk.join(2)

    desk.tick(1.2)
    assert desk.mail(2) == []
    desk.tick(0.1)  # now the deadline has passed
    assert desk.kinds(2)[-1] == "Begin"
    desk.answer(2)

    assert desk.log.closed[0].step == step
    assert not desk.peer(1).waited
    desk.answer_late(1)
    desk.answer(1)
    desk.answer(2)
    assert desk.log.closed[1].clients == 2


def test_a_joiner_that_comes_into_silence_gets_in_at_once() -> None:
    desk = together(1)
    desk.tick(50.0)

    kinds = [type(message).__name__ for message in desk.join(2)]

    assert kinds[-1] == "Begin"


def test_a_client_that_was_welcomed_within_a_step_takes_over_when_it_falls_silent() -> (
    None
):
    desk = together(1)
    desk.join(2)
    desk.steps(1, 1)
    desk.step(1)
    desk.replay()
    assert desk.peer(2).ready
    assert desk.begins(2) == []

    desk.leave(1)

    assert len(desk.begins(2)) == 1
    desk.answer(2)
    assert desk.log.closed[-1].clients == 1


def test_tokens_of_a_large_text_are_those_of_the_corpus() -> None:
    desk = Desk(batch_limit=100, new_tokens_interval=1)
    sent: list[Tokens] = [m.tokens for m in desk.join(1) if isinstance(m, TokenBatch)]

    assert [tokens.tolist() for tokens in sent] == [
        desk.start.corpus.token_batch(number).tolist() for number in (0, 1)
    ]


def test_a_coordinator_needs_no_limits() -> None:
    coordinator = new_coordinator(lesson())

    assert coordinator.wakeup(START) is None
    assert coordinator.handle(Joined(1, hello()), START) != []
    assert coordinator.handle(Received(9, Goodbye("dropped", "")), START) == []


def test_other_digests_differ() -> None:
    assert other_digest(b"\x00\xff") == b"\xff\x00"

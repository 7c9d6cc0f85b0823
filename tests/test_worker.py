"""What a client computes: following the server, scoring in time, refusing nonsense."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.desk import Lesson, hello, lesson, state_message
from tests.messages import comparable
from utilities.engine import Halves, OneCore, Scored
from utilities.errors import IncompatibleError, ProtocolError
from utilities.evolution import (
    Scores,
    Segment,
    Setting,
    TrainState,
    Update,
    advance,
    nodes_of,
    pieces,
    total,
)
from utilities.losses import mean_loss, shape
from utilities.model import Floats, Tokens
from utilities.protocol import (
    Begin,
    Goodbye,
    Message,
    Recall,
    Recalled,
    Result,
    Resume,
    Shares,
    State,
    Sum,
    TokenBatch,
    Welcome,
)
from utilities.scoring import score
from utilities.sums import cosine
from utilities.whitening import Whiteners
from utilities.worker import Worker

LESSON = lesson()
BY_NODES = lesson(batch_size=2, burn_in=5, nodes="auto")
LENGTH = LESSON.setting.config.window_length  # of what a trial reads
SEGMENT = Segment(77, 0, 1000)
SIZE = LESSON.setting.layout.size


class Clock:
    """A clock that a test moves, by hand or by a plan of what each block takes."""

    def __init__(self) -> None:
        self.now = 50.0
        self.blocks: Iterator[float] = iter(())
        self.told: list[int] = []

    def __call__(self) -> float:
        return self.now

    def on_block(self, trials: int) -> None:
        self.told.append(trials)
        self.now += next(self.blocks, 0.0)


def welcome(
    start: Lesson = LESSON, state: TrainState | None = None, **changes: Any
) -> Welcome:
    """Return what the server says first."""
    state = state or start.state
    return replace(
        Welcome(
            start.setting.config.to_json(),
            start.setting.text_sha256,
            "",
            state.step,
            state.count,
            state.digest(start.setting.fingerprint),
            *state.arrays,
        ),
        **changes,
    )


def tokens(number: int = 0, start: Lesson = LESSON) -> TokenBatch:
    return TokenBatch(number, start.corpus.token_batch(number))


def begin(step: int = 0, **changes: Any) -> Begin:
    return replace(Begin(step, 1.0, 0, False, (SEGMENT,)), **changes)


SHARED = (Segment(3, 0, 2), Segment(4, 1, 1))  # twelve trials
REWARDS = np.arange(-60, 60, 10).astype(np.int8)


def resume(step: int = 0, **changes: Any) -> Resume:
    keys = LESSON.setting.config.to_json() | changes
    return Resume(keys, LESSON.setting.text_sha256, step)


def shares(step: int = 0, **changes: Any) -> Shares:
    return replace(Shares(step, 0, SHARED, REWARDS), **changes)


def total_alone(total: Any = None, **changes: Any) -> Update:
    """Return an update that has a total in place of seeds and rewards."""
    nothing = np.zeros(0, np.int8)
    sums = np.ones(SIZE, np.int32) if total is None else total
    return replace(Update(0, 0, 12, 0.1, (), nothing, sums), **changes)


def nothing_learned(step: int = 0, batch: int = 0) -> Update:
    return Update(step, batch, 0, 0.0, (), np.zeros(0, np.int8))


def started(start: Lesson = LESSON) -> tuple[Worker, Clock]:
    """Return a worker that has a state and tokens."""
    clock = Clock()
    worker = Worker(clock, clock.on_block)
    worker.handle(welcome(start))
    worker.handle(tokens(0, start))
    return worker, clock


def follow(worker: Worker, update: Update) -> None:
    """Have a worker take an update: it does when something else follows."""
    worker.handle(update)
    worker.handle(tokens(update.token_batch))


def only_result(messages: list[Message]) -> Result:
    [result] = messages
    assert isinstance(result, Result)
    return result


# --- following the server -------------------------------------------------------------


def test_a_new_worker_has_nothing() -> None:
    worker = Worker(Clock())

    assert (worker.step, worker.digest, worker.config) == (None, b"", None)
    assert not worker.busy
    assert (worker.trials, worker.loss) == (0, None)


def test_a_welcome_gives_state_and_configuration() -> None:
    state = replace(LESSON.state, step=9, count=4)
    worker = Worker(Clock())

    worker.handle(welcome(state=state))

    assert (worker.step, worker.config) == (9, LESSON.setting.config)
    assert worker.digest == state.digest(LESSON.setting.fingerprint)
    assert not worker.busy


def test_an_update_is_applied_as_anybody_applies_it() -> None:
    worker, clock = started()
    update = true_update(LESSON.state)
    slow = iter([0.0, 0.25])
    worker._clock = lambda: clock.now + next(slow)

    follow(worker, update)

    after = advance(LESSON.setting, LESSON.state, update, LESSON.corpus.token_batch(0))
    assert worker.step == 1
    assert worker.digest == after.digest(LESSON.setting.fingerprint)
    assert worker.update_seconds == 0.25


def test_an_update_is_the_state_only_when_another_message_follows() -> None:
    worker, _ = started()
    before = worker.digest
    worker.handle(begin(segments=(Segment(3, 0, 2),)))
    worker.work()
    worker.handle(begin(segments=(Segment(4, 0, 2),)))

    worker.handle(true_update(LESSON.state))

    assert (worker.step, worker.digest, worker.share) == (0, before, None)
    assert not worker.busy  # its step is closed, whether or not it is lost
    worker.handle(begin(1))
    assert (worker.step, worker.share) == (1, 0.5)
    assert worker.digest != before


@pytest.mark.parametrize("first", [welcome, lambda: resume(0)], ids=["new", "old"])
def test_an_update_that_nothing_followed_ends_with_its_session(
    first: Callable[[], Message],
) -> None:
    worker, _ = started()
    before = worker.digest
    worker.handle(true_update(LESSON.state))

    worker.handle(first())

    assert (worker.step, worker.digest, worker.share) == (0, before, None)
    worker.handle(tokens())
    follow(worker, nothing_learned())  # the server has lost it, and closes it anew
    assert worker.step == 1


def test_an_update_that_nothing_followed_is_not_handed_back() -> None:
    worker, _ = started()
    digest = worker.digest
    follow(worker, nothing_learned(0))
    worker.handle(nothing_learned(1))

    worker.handle(Recall(0, digest))

    [handed] = worker.work()
    assert comparable(handed) == comparable(Recalled.of(nothing_learned(0)))
    assert worker.step == 1


def true_update(state: TrainState) -> Update:
    """Return an update from real losses."""
    scored = []
    for seed in (3, 4):
        segment = Segment(seed, 0, 2)
        batch = LESSON.corpus.token_batch(0)
        scored.append((segment, score(LESSON.setting, state.weights, batch, segment)))
    return shape(LESSON.setting, state.step, 0, scored, 0.0)


def test_requests_of_closed_steps_are_skipped() -> None:
    worker, _ = started()
    for step in range(3):
        worker.handle(begin(step, segments=(Segment(step, 0, 1),)))
        if step < 2:
            worker.handle(nothing_learned(step))

    result = only_result(worker.work())

    assert (result.step, result.segments) == (2, (Segment(2, 0, 1),))
    assert not worker.busy


def test_an_update_alone_leaves_nothing_to_do() -> None:
    worker, _ = started()
    worker.handle(begin(0))
    assert worker.busy

    worker.handle(nothing_learned(0))

    assert not worker.busy


def test_further_requests_of_a_step_are_answered_one_by_one() -> None:
    start = lesson(trials_per_step=40)
    worker, _ = started(start)
    for slot in range(3):
        worker.handle(begin(0, segments=(Segment(slot, 0, 1),)))

    seeds = []
    while worker.busy:
        seeds.append(only_result(worker.work()).segments[0].seed)

    assert seeds == [0, 1, 2]


def test_another_welcome_replaces_everything() -> None:
    worker, _ = started()
    worker.handle(begin(0))
    worker.handle(nothing_learned(0))
    worker.handle(begin(1))
    other = lesson(hidden_size=5)
    state = replace(other.state, step=30)

    worker.handle(welcome(other, state, reason="its digest differs"))

    assert (worker.step, worker.config) == (30, other.setting.config)
    assert worker.digest == state.digest(other.setting.fingerprint)
    assert not worker.busy
    with pytest.raises(ProtocolError, match="token batch 0 was never sent"):
        worker.handle(begin(30))


def test_token_batches_are_dropped_when_a_later_one_is_used() -> None:
    start = lesson(batch_limit=100)
    worker, _ = started(start)
    for number in (1, 2):
        worker.handle(tokens(number, start))
    worker.handle(begin(0, token_batch=1))

    with pytest.raises(ProtocolError, match="token batch 0 was never sent"):
        worker.handle(begin(0, token_batch=0))
    worker.handle(nothing_learned(0, batch=2))
    with pytest.raises(ProtocolError, match="token batch 1 was never sent"):
        worker.handle(begin(1, token_batch=1))
    worker.handle(begin(1, token_batch=2))
    assert worker.busy


# --- scoring --------------------------------------------------------------------------


def timed_out(*blocks: float, **changes: Any) -> tuple[Result, Clock]:
    """Return the answer to a request whose blocks take that many seconds each."""
    worker, clock = started()
    clock.blocks = iter(blocks)
    worker.handle(begin(**changes))
    return only_result(worker.work()), clock


@pytest.mark.parametrize(
    ("blocks", "done"),
    [
        ((0.25,) * 10, 4),  # the fourth fits exactly
        ((0.375,) * 10, 2),  # a third would not fit
        ((0.125, 0.5, 0.125, 0.125), 2),  # as long as the one before it
        ((5.0,), 1),  # at least one
        ((1.0,), 1),
        ((0.5, 0.25, 0.25, 0.0), 3),  # time is over
    ],
)
def test_blocks_are_scored_until_the_next_would_not_fit(
    blocks: tuple[float, ...], done: int
) -> None:
    result, clock = timed_out(*blocks)

    assert result.segments == (Segment(SEGMENT.seed, 0, done),)
    assert (len(result.losses), len(result.clean)) == (4 * done, done)
    assert result.trial_seconds == sum(blocks[:done])
    assert clock.told == [4 * n for n in range(1, done + 1)]


def test_a_segment_that_is_done_early_is_the_end() -> None:
    result, clock = timed_out(0.125, 0.125, segments=(Segment(7, 3, 2),))

    assert result.segments == (Segment(7, 3, 2),)
    assert clock.now == 50.25


def test_a_fixed_number_of_trials_is_scored_whatever_time_it_takes() -> None:
    start = lesson(trials_per_step=40)
    worker, clock = started(start)
    clock.blocks = iter([9.0] * 3)
    worker.handle(begin(segments=(Segment(7, 0, 3),)))

    result = only_result(worker.work())

    assert result.segments == (Segment(7, 0, 3),)
    assert worker.trials == 12


def test_losses_are_those_of_the_segment_and_the_replica() -> None:
    result, _ = timed_out(0.25, 0.25, segments=(Segment(7, 3, 2),))

    setting, batch = LESSON.setting, LESSON.corpus.token_batch(0)
    parts = [
        score(setting, LESSON.state.weights, batch, piece)
        for piece in pieces([Segment(7, 3, 2)], 1)
    ]
    assert result.losses.tolist() == [x for part in parts for x in part.losses.tolist()]
    assert result.clean.tolist() == [x for part in parts for x in part.clean.tolist()]
    assert [a.dtype.str for a in (result.losses, result.clean)] == ["<f4", "<f4"]


def test_a_result_carries_the_digest_before_the_step_and_the_updates_time() -> None:
    worker, _ = started()
    follow(worker, true_update(LESSON.state))
    worker.update_seconds = 0.5
    digest = worker.digest
    worker.handle(begin(1, segments=(Segment(7, 0, 1),)))

    result = only_result(worker.work())

    assert (result.step, result.digest, result.update_seconds) == (1, digest, 0.5)
    assert worker.loss == mean_loss(
        LESSON.setting, [Scores(result.losses, result.clean)]
    )
    assert worker.trials == 4


def test_a_state_that_is_wanted_comes_before_the_result() -> None:
    worker, _ = started()
    worker.handle(nothing_learned(0))
    worker.handle(begin(1, state_wanted=True, segments=(Segment(7, 0, 1),)))

    state, result = worker.work()

    assert isinstance(state, State)
    assert (state.step, state.count) == (1, 0)
    assert state.weights.tobytes() == LESSON.state.weights.tobytes()
    assert isinstance(result, Result)
    assert state.average.tobytes() == LESSON.state.average.tobytes()
    arrays = state.weights, state.first, state.second, state.average
    sent = TrainState(1, 0, *arrays)
    assert result.digest == sent.digest(LESSON.setting.fingerprint)


def test_a_request_without_segments_is_answered_with_the_digest_alone() -> None:
    result, clock = timed_out(segments=())

    assert (result.segments, len(result.losses), len(result.clean)) == ((), 0, 0)
    assert result.losses.dtype == np.float32
    assert result.digest == LESSON.state.digest(LESSON.setting.fingerprint)
    assert clock.told == []


def test_antithetic_pairs_give_two_losses_a_group() -> None:
    worker, _ = started(lesson(directions_per_window=0))
    worker.handle(begin(segments=(Segment(7, 0, 2),)))

    result = only_result(worker.work())

    assert (len(result.losses), len(result.clean)) == (4, 0)


def test_nobody_needs_to_be_told_of_blocks() -> None:
    worker = Worker(Clock())
    worker.handle(welcome())
    worker.handle(tokens())
    worker.handle(begin(segments=(Segment(7, 0, 2),)))

    assert only_result(worker.work()).segments == (Segment(7, 0, 2),)


def test_there_is_no_work_without_a_request() -> None:
    worker, _ = started()

    with pytest.raises(AssertionError, match="nothing was requested"):
        worker.work()


# --- engines --------------------------------------------------------------------------


class Recorded(OneCore):
    """An engine that notes what it is asked for, and tells nobody of its blocks."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.asked: list[tuple[Any, ...]] = []
        self.given: list[Halves] = []

    def score(self, *arguments: Any) -> Scored:
        self.asked.append(arguments)
        untold = (*arguments[:-1], lambda trials: None)
        return super().score(*untold)

    def halves(self, *arguments: Any) -> Halves:
        self.asked.append(arguments)
        self.given.append(super().halves(*arguments))
        return self.given[-1]


def with_engine(start: Lesson = LESSON) -> tuple[Worker, Recorded, Clock]:
    clock = Clock()
    engine = Recorded(clock)
    worker = Worker(clock, clock.on_block, engine)
    worker.handle(welcome(start))
    worker.handle(tokens(0, start))
    return worker, engine, clock


@pytest.mark.parametrize(
    ("keys", "seconds"), [({}, 2.5), ({"trials_per_step": 8}, None)]
)
def test_an_engine_scores_what_was_requested_in_the_time_that_was_given(
    keys: dict[str, Any], seconds: float | None
) -> None:
    start = lesson(**keys)
    worker, engine, _ = with_engine(start)
    segment = Segment(7, 0, 2)
    worker.handle(begin(time_per_step=2.5, segments=(segment,)))

    result = only_result(worker.work())

    [(setting, weights, batch, shaped, segments, given, _)] = engine.asked
    assert setting == start.setting
    assert weights.tobytes() == start.state.weights.tobytes()
    assert batch.tobytes() == start.corpus.token_batch(0).tobytes()
    [expected] = start.setting.whiteners(weights, batch)
    assert [whitener.tobytes() for whitener in shaped] == [expected.tobytes()]
    assert (segments, given) == ((segment,), seconds)
    assert result.segments == (segment,)
    other, _ = started(start)
    other.handle(begin(segments=(segment,)))
    assert result.losses.tobytes() == only_result(other.work()).losses.tobytes()


BATCHES = lesson(trials_per_step=240, batch_size=10)  # a block is twelve groups


def answers(
    *groups: int, size: int, start: Lesson = BATCHES, wanted: int | None = None
) -> list[list[Message]]:
    """Return what goes out together, asked for segments of so many groups each."""
    worker, engine, _ = with_engine(start)
    engine.size = size
    for slot, count in enumerate(groups):
        segments = (Segment(slot, 0, count),) if count else ()
        worker.handle(begin(segments=segments, state_wanted=slot == wanted))
    sent = []
    while worker.busy:
        sent.append(worker.work())
    return sent


def told(message: Message) -> tuple[tuple[Segment, ...], bytes, bytes]:
    result = only_result([message])
    return result.segments, result.losses.tobytes(), result.clean.tobytes()


def test_several_processes_answer_several_requests_for_blocks_at_once() -> None:
    alone = [told(message) for [message] in answers(12, 12, 12, size=1)]

    first, second = answers(12, 12, 12, size=2)

    assert [told(message) for message in (*first, *second)] == alone
    assert [segments for segments, _, _ in alone] == [
        (Segment(slot, 0, 12),) for slot in range(3)
    ]
    assert len(first) == 2


@pytest.mark.parametrize(
    ("groups", "together"),
    [
        ((12, 5), [2]),
        ((5, 12), [1, 1]),
        ((12, 5, 12), [2, 1]),
        ((0, 12), [1, 1]),
        ((12, 0, 12), [1, 1, 1]),
        ((24, 12, 12, 12), [3, 1]),
    ],
)
def test_what_is_answered_at_once_is_scored_in_the_batches_that_it_has_alone(
    groups: tuple[int, ...], together: list[int]
) -> None:
    sent = answers(*groups, size=3)

    assert [len(messages) for messages in sent] == together
    for messages in sent:  # whoever takes blocks from the beginning finds them whole
        sizes = [part.groups for m in messages for part in told(m)[0]]
        assert not any(size % BATCHES.setting.block_groups for size in sizes[:-1])
    alone = [told(message) for [message] in answers(*groups, size=1)]
    assert [told(message) for messages in sent for message in messages] == alone


def test_a_state_goes_ahead_of_all_answers_that_leave_with_it() -> None:
    [[state, *results]] = answers(12, 12, size=2, wanted=1)

    assert isinstance(state, State)
    assert len([told(message) for message in results]) == 2


def test_the_time_of_what_is_answered_at_once_is_counted_once() -> None:
    clock = Clock()
    engine = OneCore(clock)
    engine.size = 2
    worker = Worker(clock, clock.on_block, engine)
    worker.handle(welcome(BATCHES))
    worker.handle(tokens(0, BATCHES))
    clock.blocks = iter([0.25, 0.5])
    for slot in range(2):
        worker.handle(begin(segments=(Segment(slot, 0, 12),)))

    results = [only_result([message]) for message in worker.work()]

    assert [result.trial_seconds for result in results] == [0.75, 0.0]


def test_of_two_requests_for_the_same_block_each_gets_its_answer() -> None:
    worker, engine, _ = with_engine(BATCHES)
    engine.size = 2
    for _ in range(2):
        worker.handle(begin(segments=(Segment(7, 0, 12),)))

    one, other = worker.work()

    assert told(one) == told(other)
    assert told(one)[0] == (Segment(7, 0, 12),)


def test_requests_for_some_time_are_answered_one_by_one() -> None:
    assert [len(messages) for messages in answers(1, 1, size=2, start=LESSON)] == [1, 1]


def test_a_request_for_blocks_is_not_answered_with_one_for_a_sum() -> None:
    worker, engine, _ = with_engine(BATCHES)
    engine.size = 2
    worker.handle(begin(segments=(Segment(3, 0, 12),)))
    worker._pending.append(shares())

    assert isinstance(worker.work()[0], Result)
    assert isinstance(worker.work()[0], Sum)


def test_trials_are_counted_whether_or_not_an_engine_tells_of_them() -> None:
    worker, _, clock = with_engine()
    for step in range(2):
        worker.handle(begin(step, segments=(Segment(7, 0, 2),)))
        worker.work()
        worker.handle(nothing_learned(step))

    assert worker.trials == 16
    assert clock.told == []


def test_blocks_are_told_with_the_trials_of_their_own_step() -> None:
    worker, clock = started()
    for step in range(2):
        worker.handle(begin(step, segments=(Segment(7, 0, 2),)))
        worker.work()
        worker.handle(nothing_learned(step))

    assert worker.trials == 16
    assert clock.told == [4, 8, 4, 8]


def test_an_engines_halves_make_the_update_and_its_quality() -> None:
    worker, engine, _ = with_engine()
    update = true_update(LESSON.state)
    batch = LESSON.corpus.token_batch(0)

    follow(worker, update)

    [(setting, weights, given, shaped, segments, rewards)] = engine.asked
    assert setting == LESSON.setting
    assert weights.tobytes() == LESSON.state.weights.tobytes()
    expected = setting.whiteners(LESSON.state.weights, batch)
    assert [r.tobytes() for r in shaped] == [r.tobytes() for r in expected]
    assert given.tobytes() == batch.tobytes()
    assert (segments, rewards.tolist()) == (update.segments, update.rewards.tolist())
    after = advance(LESSON.setting, LESSON.state, update, batch)
    assert worker.digest == after.digest(LESSON.setting.fingerprint)
    assert worker.gradient_quality == cosine(*engine.given[0])
    assert worker.gradient_quality is not None
    worker.handle(begin(1, segments=(Segment(7, 0, 1),)))
    result = only_result(worker.work())
    assert result.gradient_quality == worker.gradient_quality
    assert type(result.gradient_quality) is float


@pytest.fixture
def shapings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bytes, bytes]]:
    """Return weights and tokens of which noise was shaped, as that goes on."""
    seen: list[tuple[bytes, bytes]] = []
    real = Setting.whiteners

    def spy(setting: Setting, weights: Floats, tokens: Tokens) -> Whiteners:
        seen.append((weights.tobytes(), tokens.tobytes()))
        return real(setting, weights, tokens)

    monkeypatch.setattr(Setting, "whiteners", spy)
    return seen


def test_what_shapes_noise_is_computed_once_a_step(
    shapings: list[tuple[bytes, bytes]],
) -> None:
    worker, _ = started()
    batch, states, updates = LESSON.corpus.token_batch(0), [LESSON.state], []
    for _ in range(2):
        updates.append(true_update(states[-1]))
        states.append(advance(LESSON.setting, states[-1], updates[-1], batch))
    shapings.clear()

    for step, update in enumerate(updates):
        for first in (0, 2):  # twice in one step
            worker.handle(begin(step, segments=(Segment(7, first, 2),)))
            worker.work()
        follow(worker, update)

    assert worker.digest == states[-1].digest(LESSON.setting.fingerprint)
    assert shapings == [(s.weights.tobytes(), batch.tobytes()) for s in states[:-1]]


def test_a_worker_that_only_follows_shapes_noise_where_there_were_trials(
    shapings: list[tuple[bytes, bytes]],
) -> None:
    worker, _ = started()
    update = true_update(replace(LESSON.state, step=1))
    shapings.clear()

    worker.handle(nothing_learned())
    assert shapings == []
    worker.handle(update)

    assert len(shapings) == 1


def test_other_tokens_and_another_welcome_give_noise_another_shape(
    shapings: list[tuple[bytes, bytes]],
) -> None:
    start = lesson(batch_limit=40)
    worker, _ = started(start)
    worker.handle(tokens(1, start))
    other = replace(start.state, weights=start.state.weights * np.float32(0.5))

    for number in (0, 1):
        worker.handle(begin(token_batch=number, segments=(Segment(7, 0, 1),)))
        worker.work()
    worker.handle(welcome(start, other))
    worker.handle(tokens(1, start))
    worker.handle(begin(token_batch=1, segments=(Segment(7, 0, 1),)))
    worker.work()

    first, second = (start.corpus.token_batch(number).tobytes() for number in (0, 1))
    assert first != second
    assert shapings == [
        (start.state.weights.tobytes(), first),
        (start.state.weights.tobytes(), second),
        (other.weights.tobytes(), second),
    ]


def test_the_quality_of_an_update_without_trials_is_not_known() -> None:
    worker, engine, _ = with_engine()
    worker.handle(true_update(LESSON.state))
    qualities = [worker.gradient_quality]

    worker.handle(nothing_learned(1))
    worker.handle(begin(2, segments=()))
    qualities += [worker.gradient_quality, only_result(worker.work()).gradient_quality]

    assert qualities[0] is not None
    assert qualities[1:] == [None, None]
    assert len(engine.given) == 1


# --- adding up ------------------------------------------------------------------------


def summed(start: Lesson = LESSON, **changes: Any) -> Sum:
    """Return the answer to shares."""
    worker, _ = started(start)
    worker.handle(shares(**changes))
    [answer] = worker.work()
    assert isinstance(answer, Sum)
    return answer


def true_total(start: Lesson = LESSON) -> list[int]:
    setting, batch = start.setting, start.corpus.token_batch(0)
    nodes = nodes_of(setting, start.state.weights, batch)
    sums: list[int] = total(setting, nodes, batch, SHARED, REWARDS).tolist()
    return sums


@pytest.mark.parametrize("start", [LESSON, BY_NODES], ids=["as drawn", "by nodes"])
def test_shares_are_answered_with_the_sum_of_these_trials(start: Lesson) -> None:
    answer = summed(start)

    assert answer.step == 0
    assert answer.total.dtype == np.int16
    assert answer.total.tolist() == true_total(start)
    assert start.setting.by_nodes is (start is BY_NODES)


def test_the_time_of_a_sum_is_reported_and_no_trials_are_counted() -> None:
    worker, clock = started()
    moments = iter([0.0, 0.25])
    worker._clock = lambda: clock.now + next(moments)
    worker.handle(shares())

    [answer] = worker.work()

    assert isinstance(answer, Sum)
    assert answer.seconds == 0.25
    assert (worker.trials, worker.loss, worker.busy) == (0, None, False)


def test_a_sum_beyond_int32_is_sent_as_int64(monkeypatch: pytest.MonkeyPatch) -> None:
    halves = np.full(SIZE, -(2**31)), np.full(SIZE, -1)
    monkeypatch.setattr(OneCore, "halves", lambda *about: halves)

    answer = summed()

    assert answer.total.dtype == np.int64
    assert set(answer.total.tolist()) == {-(2**31) - 1}


def test_what_is_left_of_a_step_counts_no_more_once_it_is_shared() -> None:
    worker, _ = started()
    worker.handle(begin(0))
    worker.handle(shares())

    assert [type(message) for message in worker.work()] == [Sum]
    assert not worker.busy


def test_shares_of_a_step_that_is_over_are_skipped() -> None:
    worker, _ = started()
    worker.handle(shares())
    worker.handle(nothing_learned(0))

    assert not worker.busy


@pytest.mark.parametrize("start", [LESSON, BY_NODES], ids=["as drawn", "by nodes"])
def test_a_total_gives_the_state_that_the_seeds_would_have_given(
    start: Lesson,
) -> None:
    nothing = np.zeros(0, np.int8)
    by_seeds = Update(0, 0, 12, 0.1, SHARED, REWARDS)
    sums = np.array(true_total(start), np.int32)
    by_sums = replace(by_seeds, segments=(), rewards=nothing, total=sums)
    digests = []
    for update in (by_seeds, by_sums):
        worker, _ = started(start)
        follow(worker, update)
        digests.append(worker.digest)

    assert digests[0] == digests[1]
    assert digests[0] != start.state.digest(start.setting.fingerprint)


def test_its_share_are_own_trials_in_all_updates_whichever_way_these_came() -> None:
    worker, _ = started()
    told = [worker.share]
    follow(worker, nothing_learned(0))
    told.append(worker.share)
    worker.handle(begin(1, segments=(Segment(4, 0, 2),)))  # eight trials
    worker.work()
    # Of everybody's sixteen:
    follow(worker, replace(true_update(LESSON.state), step=1))
    told.append(worker.share)
    worker.handle(shares(2))  # twelve
    worker.work()
    follow(worker, total_alone(step=2, trials=84))
    told.append(worker.share)
    # Neither seeds nor shares of a former step count again.
    worker.handle(replace(true_update(LESSON.state), step=3))
    follow(worker, total_alone(step=4, trials=84))
    told.append(worker.share)

    assert told == [None, None, 0.5, 0.2, 0.1]


def test_a_welcome_forgets_what_was_scored_on_another_state() -> None:
    worker, _ = started()
    worker.handle(begin(0, segments=(Segment(4, 0, 2),)))
    worker.work()
    worker.handle(welcome())
    worker.handle(tokens())
    follow(worker, true_update(LESSON.state))

    assert worker.share == 0.0


def test_a_total_that_is_given_has_no_quality_here() -> None:
    worker, _ = started()
    worker.gradient_quality = 0.5

    follow(worker, total_alone())

    assert worker.step == 1
    assert worker.gradient_quality is None


# --- refusing -------------------------------------------------------------------------

BEFORE: dict[str, Callable[[], Message]] = {
    "resume": lambda: resume(),
    "recall": lambda: Recall(0, bytes(32)),
    "tokens": tokens,
    "update": nothing_learned,
    "begin": begin,
    "shares": shares,
}


@pytest.mark.parametrize("kind", BEFORE)
def test_nothing_comes_before_the_welcome(kind: str) -> None:
    with pytest.raises(ProtocolError, match="expected a welcome first"):
        Worker(Clock()).handle(BEFORE[kind]())


def with_segments(*segments: Segment, trials: int, rewards: int) -> Update:
    return Update(0, 0, trials, 0.1, segments, np.zeros(rewards, np.int8))


ILLEGAL: dict[str, tuple[Message, str]] = {
    "tokens that are too few": (
        TokenBatch(3, np.zeros(LENGTH, np.uint8)),
        f"expected more than {LENGTH}, got {LENGTH}",
    ),
    "tokens beyond the vocabulary": (
        TokenBatch(3, np.array([2] * LENGTH + [200], np.uint8)),
        f"expected numbers below {LESSON.setting.config.vocab_size}, got 200",
    ),
    "an update of a step to come": (nothing_learned(1), "expected step 0, got 1"),
    "an update with tokens that were never sent": (
        nothing_learned(0, batch=5),
        "token batch 5 was never sent",
    ),
    "an update with too few rewards": (
        with_segments(Segment(1, 0, 2), trials=8, rewards=7),
        "8 trials in segments, 8 announced, 7 rewards",
    ),
    "an update with another number of trials": (
        with_segments(Segment(1, 0, 2), trials=9, rewards=8),
        "8 trials in segments, 9 announced, 8 rewards",
    ),
    "an update without its segments": (
        with_segments(trials=4, rewards=4),
        "0 trials in segments, 4 announced, 4 rewards",
    ),
    "an update with a total and trials": (
        total_alone(segments=SHARED, rewards=REWARDS),
        "expected a total of [0-9]+ weights alone, got 12 trials in segments, "
        "12 announced, 12 rewards",
    ),
    "an update with a total and rewards": (
        total_alone(rewards=REWARDS),
        "got 0 trials in segments, 12 announced, 12 rewards",
    ),
    "an update with a total of nothing": (
        total_alone(trials=0),
        "got 0 trials in segments, 0 announced, 0 rewards",
    ),
    "an update with a total of another size": (
        total_alone(np.ones(SIZE - 1, np.int32)),
        f"expected a total of {SIZE} weights .* a total of {SIZE - 1}",
    ),
    "shares of a step to come": (shares(1), "shares: expected step 0, got 1"),
    "shares with too few rewards": (
        shares(rewards=REWARDS[1:]),
        "shares: 12 trials in segments, 11 rewards",
    ),
    "shares of nothing": (
        shares(segments=(), rewards=REWARDS[:0]),
        "shares: 0 trials in segments, 0 rewards",
    ),
    "shares with tokens that were never sent": (
        shares(token_batch=2),
        "token batch 2 was never sent",
    ),
    "a state that is not here to go on from": (
        resume(3),
        "resume: expected a state of step 3, got 0",
    ),
    "a request of a step to come": (begin(1), "begin: expected step 0, got 1"),
    "a request of a segment twice": (
        begin(0, segments=(SEGMENT, SEGMENT)),
        "expected segments of 2 seeds, got 1",
    ),
    "a request with tokens that were never sent": (
        begin(0, token_batch=2),
        "token batch 2 was never sent",
    ),
    "a welcome with another digest": (
        welcome(digest=b"x" * 32),
        "does not hash to its digest",
    ),
    "a welcome with another step": (welcome(step=5), "does not hash to its digest"),
    "a welcome of another text": (
        welcome(text_sha256="0" * 64),
        "does not hash to its digest",
    ),
    "a welcome with too few weights": (
        welcome(
            weights=LESSON.state.weights[1:],
            first=LESSON.state.first[1:],
            second=LESSON.state.second[1:],
            average=LESSON.state.average[1:],
        ),
        f"expected {SIZE} weights and their mean, got {SIZE - 1} and {SIZE - 1}",
    ),
    "a welcome without the mean of the weights": (
        welcome(average=LESSON.state.average[:0]),
        f"expected {SIZE} weights and their mean, got {SIZE} and 0",
    ),
    "a hello": (hello(), "Hello: not for a worker"),
    "a result": (
        Result(0, b"", 0.0, 0.0, None, (), *[np.zeros(0, np.float32)] * 2),
        "Result: not for a worker",
    ),
    "a sum": (Sum(0, 0.0, np.zeros(0, np.int32)), "Sum: not for a worker"),
    "a state": (state_message(LESSON.state), "State: not for a worker"),
    "a goodbye": (Goodbye("finished", ""), "Goodbye: not for a worker"),
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_what_does_not_follow_from_before_is_refused_and_changes_nothing(
    name: str,
) -> None:
    message, words = ILLEGAL[name]
    worker, _ = started()
    worker.handle(begin())
    digest = worker.digest

    with pytest.raises(ProtocolError, match=words):
        worker.handle(message)

    assert (worker.step, worker.digest) == (0, digest)
    assert worker.busy


def test_a_step_that_is_over_cannot_be_updated_or_requested_again() -> None:
    worker, _ = started()
    worker.handle(nothing_learned(0))

    with pytest.raises(ProtocolError, match="update: expected step 1, got 0"):
        worker.handle(nothing_learned(0))
    with pytest.raises(ProtocolError, match="begin: expected step 1, got 0"):
        worker.handle(begin(0))


KEYS = LESSON.setting.config.to_json()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({**KEYS, "warmth": 3}, "warmth: no such key"),
        ({**KEYS, "modelType": "transformer"}, "modelType: expected rnn or gru"),
        ({**KEYS, "hiddenSize": -1}, "hiddenSize: expected a whole number"),
        ({**KEYS, "sigma": b"x"}, "sigma: expected a number"),
        ({**KEYS, "sigma": [1]}, "sigma: expected a number"),
        ({**KEYS, "vocabSize": None}, "vocabSize: expected a number, got null"),
        (
            {**KEYS, "hiddenSize": 4096, "nLayers": 16},
            "hiddenSize, nLayers, vocabSize: expected at most",
        ),
        ({}, "vocabSize: expected a number, got null"),
    ],
)
def test_a_configuration_that_is_not_understood_is_incompatible(
    config: Mapping[str, Any], words: str
) -> None:
    worker = Worker(Clock())

    with pytest.raises(IncompatibleError, match=words) as caught:
        worker.handle(welcome(config=config))

    assert "run the same version of the program on both machines" in str(caught.value)
    assert worker.step is None


# --- coming back ----------------------------------------------------------------------


def test_a_worker_goes_on_from_its_own_state_with_keys_that_may_have_changed() -> None:
    worker, _ = started()
    worker.handle(begin())
    digest = worker.digest

    worker.handle(resume(sigma=0.5))

    assert (worker.step, worker.digest, worker.batches) == (0, digest, (0,))
    assert not worker.busy
    assert worker.config is not None
    assert worker.config.sigma == 0.5


def test_a_state_that_has_changed_meanwhile_shows_in_the_next_digest() -> None:
    worker, _ = started()
    digest, state = worker.digest, worker._state
    assert state is not None
    worker._state = replace(state, weights=state.weights + np.float32(1))

    worker.handle(resume())

    assert worker.digest != digest


def test_a_worker_hands_back_what_the_server_has_lost() -> None:
    worker, _ = started()
    digests = []
    for step in range(3):
        digests.append(worker.digest)
        follow(worker, nothing_learned(step))

    worker.handle(Recall(1, digests[1]))
    replies = worker.work()

    updates = [nothing_learned(step) for step in (1, 2)]
    assert [comparable(r) for r in replies] == [
        comparable(Recalled.of(u)) for u in updates
    ]
    for unknown in (Recall(1, digests[0]), Recall(3, worker.digest)):
        worker.handle(unknown)
        assert worker.work() == []

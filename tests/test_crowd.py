"""Clients that only seem to compute: what they say has to pass for the real thing."""

import itertools
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.crowd import (
    LARGE,
    At,
    Heard,
    Passed,
    Replica,
    Skimmer,
    Welcomed,
    heard,
)
from benchmarks.server_load import Story, Window, figures, measure, parser
from tests.desk import hello, lesson
from tests.messages import comparable
from utilities.evolution import Segment, Update, total
from utilities.peers import Peer
from utilities.protocol import (
    Begin,
    Goodbye,
    Message,
    Result,
    Shares,
    State,
    Sum,
    TokenBatch,
    Welcome,
)
from utilities.steps import TimedStep
from utilities.wire import Inbox, Side, encode

LESSON = lesson()
SETTING, STATE = LESSON.setting, LESSON.state
WELCOME = Welcome(
    SETTING.config.to_json(),
    SETTING.text_sha256,
    "",
    STATE.step,
    STATE.count,
    STATE.digest(SETTING.fingerprint),
    *STATE.arrays,
)
TOKENS = TokenBatch(0, LESSON.corpus.token_batch(0))
BEGIN = Begin(0, 1.5, 0, False, (Segment(77, 0, 1000),))
SHARES = Shares(0, 0, (Segment(77, 0, 2),), np.arange(-40, 40, 10).astype(np.int8))


def in_bytes(*messages: Message) -> bytes:
    return b"".join(part for message in messages for part in encode(message))


def read(data: bytes) -> list[Message]:
    """Return what a server reads of a client."""
    inbox = Inbox(Side.CLIENT)
    inbox.feed(in_bytes(hello()) + data)
    return list(inbox.messages())[1:]


# Skimming.

LARGE_UPDATE = Update(
    0, 0, 4 * LARGE, 0.1, (Segment(5, 0, LARGE),), np.ones(4 * LARGE, np.int8)
)
GOODBYE = Goodbye("finished", "the run has ended")
SAID: list[Message] = [WELCOME, TOKENS, BEGIN, SHARES, LARGE_UPDATE, BEGIN, GOODBYE]
STREAM = in_bytes(*SAID)
MEANING = [At(0, update=False), None, BEGIN, SHARES, At(1), BEGIN, GOODBYE]


def understood(chunks: Iterable[bytes]) -> list[Heard]:
    skimmer = Skimmer()
    return [heard(m) for chunk in chunks for m in skimmer.feed(memoryview(chunk))]


def plain(meaning: list[Heard]) -> list[object]:
    """Return what can be compared: arrays cannot."""
    return [comparable(m) if isinstance(m, Shares) else m for m in meaning]


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_a_skimming_client_understands_what_concerns_it(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    chunks = (STREAM[start:end] for start, end in pairwise(edges))

    assert plain(understood(chunks)) == plain(MEANING)


def test_a_skimming_client_understands_one_byte_at_a_time() -> None:
    assert plain(understood(bytes([byte]) for byte in STREAM)) == plain(MEANING)


def test_a_message_is_not_understood_before_its_last_byte() -> None:
    data = in_bytes(LARGE_UPDATE)

    assert understood([data[:-1]]) == []
    assert understood([data[:-1], data[-1:]]) == [At(1)]


# Answering.


@pytest.fixture
def replica() -> Replica:
    replica = Replica(8)
    replica.follow(WELCOME)
    replica.follow(TOKENS)
    return replica


def test_answers_pass_for_those_of_clients_that_compute(replica: Replica) -> None:
    step = TimedStep(SETTING, 0, 1.5, itertools.count(50).__next__)
    work = step.assign([Peer(1, "ann"), Peer(2, "bob")], 0.0)
    for peer, segments in work:
        begin = Begin(0, 1.5, 0, False, segments)
        [result] = read(replica.answer(begin))
        assert isinstance(result, Result)
        assert result.trial_seconds == 1.5
        step.take(peer, result, 1.0)

    assert list(step.votes()) == [WELCOME.digest]
    scored, dropped = step.scored()
    assert ([segment for segment, _ in scored], dropped) == (
        [Segment(50, 0, 2), Segment(74, 0, 2)],  # eight trials, four a group
        0,
    )
    assert not np.array_equal(scored[0][1].losses, scored[1][1].losses)


def test_whoever_is_asked_for_the_state_sends_it_first(replica: Replica) -> None:
    replica.answer(BEGIN)
    begin = Begin(0, 1.5, 0, True, BEGIN.segments)
    state, result = read(replica.answer(begin))

    assert isinstance(state, State)
    assert np.array_equal(state.weights, STATE.weights)
    assert isinstance(result, Result)
    assert result.segments == (Segment(77, 0, 2),)


def test_whoever_is_asked_for_its_digest_gives_nothing_else(replica: Replica) -> None:
    [result] = read(replica.answer(Begin(0, 1.5, 0, False, ())))

    assert isinstance(result, Result)
    assert (result.digest, len(result.losses)) == (WELCOME.digest, 0)


def test_sums_are_the_true_ones(replica: Replica) -> None:
    [answer] = replica.sums([SHARES])

    assert isinstance(answer, Sum)
    expected = total(SETTING, None, TOKENS.tokens, SHARES.segments, SHARES.rewards)
    assert np.array_equal(answer.total, expected)
    assert replica.spent > 0


def test_updates_take_processor_time_that_is_counted(replica: Replica) -> None:
    before = replica.spent
    replica.follow(Update(0, 0, 8, 0.1, SHARES.segments, SHARES.rewards))

    assert replica.step == 1
    assert replica.spent > before


# Measuring.


def test_an_overhead_is_what_neither_trials_nor_the_slowest_replica_took() -> None:
    first, second = Story(), Story()
    for story in (first, second):
        story.take(Welcomed(12.5, 1))
    for step, moment, ours, theirs in (
        (6, 20.0, 1.0, 1.0),
        (7, 21.5, 1.1, 1.3),  # 0.5 s besides trials, of them 0.3 on a replica
        (8, 22.75, 1.3, 1.35),  # 0.25 s, of them 0.2
        (9, 24.25, 1.35, 1.4),  # 0.5 s, of them 0.05
    ):
        first.take(Passed(step, moment, ours))
        second.take(Passed(step, moment + 0.01, theirs))
    window = Window([first, second], 10.0, 6, 0.9, {"rss": 50.0, "peak": 60.0})
    lines = [
        {"step": step, "clients": 5 - (step == 8), "late": int(step == 8)}
        for step in range(12)
    ]

    found = figures(window, options(steps=3), lines)

    assert window.welcomed()
    assert window.newest() == 9
    assert found == {
        "overhead ms, median": 200.0,
        "overhead ms, p99": 450.0,
        "update and sums ms, median": 200.0,
        "server cpu ms of a step": 300.0,
        "server MB": 50.0,
        "server MB, peak": 60.0,
        "joining s": 2.5,
        "connections tried again": 2,
        "fewest clients of a step": 4,
        "late answers": 1,
    }


def options(*more: str, steps: int, **given: object) -> Any:
    words = [f"--{name}={value}" for name, value in given.items()]
    return parser(Path("no text")).parse_args([*words, f"--steps={steps}", *more])


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.parametrize("aggregation", ["seeds", "sums"])
def test_a_real_server_takes_a_crowd_for_clients(
    aggregation: str, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a dog did not, so it goes, day by day.\n" * 200, "utf-8")
    asked = options(
        *("--", "--grace", "30", "--hiddenSize", "8"),  # nobody is late
        steps=2,
        clients=7,
        timePerStep=0.1,
        aggregation=aggregation,
        data=text,
    )
    found = measure(asked)

    assert (found["fewest clients of a step"], found["late answers"]) == (7, 0)

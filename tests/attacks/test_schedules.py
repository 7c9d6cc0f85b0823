"""Two thousand seeded schedules of faults, each held against a small model."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.attacks.audited import ROOT
from tests.attacks.schedule_model import (
    Answer,
    History,
    hold_complete,
    plain_rewards,
)
from tests.attacks.schedules import Figures, Observed, Schedule, play
from tests.desk import lesson
from utilities.evolution import Segment, Update
from utilities.protocol import Begin, Result

SCHEDULES = 2000  # of which the last 50 are played on real sockets
SOCKETS = 50
CHILDREN = 2


def start(first: int, count: int) -> "subprocess.Popen[str]":
    """Play schedules in a child."""
    words = [sys.executable, "-m", "tests.attacks.schedules", str(first), str(count)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT, text=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_schedule_of_faults_makes_a_trial_count_twice_or_replicas_differ() -> None:
    share = (SCHEDULES - SOCKETS) // CHILDREN
    children = [start(number * share, share) for number in range(CHILDREN)]
    total = Figures()
    for child in children:
        output, _ = child.communicate()
        assert child.returncode == 0
        total.add(Figures(**json.loads(output)))

    print(total)
    assert total.failed == []
    assert total.schedules == SCHEDULES - SOCKETS
    assert min(total.faults.values()) > 100
    assert total.replicas > 2 * total.schedules
    assert total.checked > 0.9 * total.trials


def test_a_schedule_is_played_again_by_its_seed() -> None:
    first, again, other = (play([seed]) for seed in (12, 12, 13))

    assert first == again
    assert first != other
    assert first.schedules == 1


def test_a_schedule_that_fails_is_named_by_its_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(History, "check", lambda *_: pytest.fail("it forked"))
    with pytest.raises(pytest.fail.Exception):
        Schedule(3, [lesson()]).play()


# The model notices what must not be.


class Told:
    """A history of two clients, told by hand from a real run."""

    def __init__(self) -> None:
        self.wire = Observed(lesson())
        self.messages: list[tuple[int, Any]] = []
        sent = self.wire.history.sent

        def keep(client: int, message: Any) -> None:
            self.messages.append((client, message))
            sent(client, message)

        self.wire.history.sent = keep  # type: ignore[method-assign]
        self.answers: list[tuple[int, Result]] = []
        got = self.wire.history.got

        def keep_answer(client: int, result: Result) -> Callable[[], None]:
            self.answers.append((client, result))
            return got(client, result)

        self.wire.history.got = keep_answer  # type: ignore[method-assign]
        for name in ("ann", "bob"):
            self.wire.node(name)
        self.wire.run_to(3)
        self.history = History(self.wire.start.setting)
        self.closed = {c.step: c for c in self.wire.log.closed}

    def tell(self, change: Callable[[Update], Update] = lambda update: update) -> None:
        """Tell all again, with every update of a step changed."""
        history, answers = self.history, list(self.answers)
        for client, message in self.messages:
            if isinstance(message, Update):
                while answers and answers[0][1].step <= message.step:
                    history.got(*answers.pop(0))
                changed = change(message)
                if message.step == history.step:
                    history.wrote(changed, self.closed[message.step].digest)
                history.sent(client, changed)
            else:
                history.sent(client, message)


def test_the_model_accepts_what_has_happened() -> None:
    told = Told()
    told.tell()

    assert told.history.step == 3
    assert told.history.trials == told.history.checked > 0


def _twice(update: Update) -> Update:
    segments, rewards = 2 * update.segments, np.tile(update.rewards, 2)
    changed = {"segments": segments, "rewards": rewards, "trials": len(rewards)}
    return replace(update, **changed)  # type: ignore[arg-type]


def _other_rewards(update: Update) -> Update:
    rewards = update.rewards.copy()
    rewards[0] ^= 1
    return replace(update, rewards=rewards)


def _one_less(update: Update) -> Update:
    left = update.segments[1:]
    count = 4 * sum(segment.groups for segment in left)
    rewards = update.rewards[len(update.rewards) - count :]
    return replace(update, segments=left, rewards=rewards, trials=count)


def _invented(update: Update) -> Update:
    first = replace(update.segments[0], seed=update.segments[0].seed ^ 1)
    return replace(update, segments=(first, *update.segments[1:]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_twice, "a trial counts twice in a step"),
        (_other_rewards, "plain_rewards"),
        (_one_less, "an answer in time is left out"),
        (_invented, "never given out"),
        (lambda u: replace(u, trials=u.trials - 4), "a trial counts for nothing"),
        (
            lambda u: replace(u, step=u.step + 1),
            "a step is closed twice or out of turn",
        ),
    ],
)
def test_the_model_refuses(change: Callable[[Update], Update], words: str) -> None:
    told = Told()
    with pytest.raises(AssertionError) as caught:
        told.tell(change)

    assert words in str(caught.value) or words in str(caught.traceback[-1].statement)


def test_the_model_refuses_what_follows_an_update_before_it_is_written() -> None:
    told = Told()
    told.tell()
    history, step = told.history, told.history.step
    last = next(m for c, m in reversed(told.messages) if isinstance(m, Update))
    history._replicas[1] = step + 1

    with pytest.raises(AssertionError, match="was followed before it was written"):
        history.sent(1, Begin(step + 1, 1.0, 0, False, ()))
    history._replicas[1] = history._replicas[2] = step
    history.sent(1, replace(last, step=step))
    with pytest.raises(AssertionError, match="was followed before it was written"):
        history.sent(1, Begin(step + 1, 1.0, 0, False, ()))
    with pytest.raises(AssertionError, match="a fork"):
        history.sent(2, replace(last, step=step, rate=2 * last.rate))
    with pytest.raises(AssertionError, match="another update was written than told"):
        history.wrote(replace(last, step=step, rate=2 * last.rate), b"")
    history._replicas[2] = step + 1
    with pytest.raises(AssertionError, match="was followed before it was written"):
        history.sent(2, replace(last, step=step + 1))


def test_the_model_refuses_a_fork_a_second_closing_and_replicas_that_differ() -> None:
    told = Told()
    told.tell()
    history, closed = told.history, told.closed[0]
    last = next(m for c, m in reversed(told.messages) if isinstance(m, Update))

    with pytest.raises(AssertionError, match="closed twice"):
        history.wrote(last, closed.digest)
    with pytest.raises(AssertionError, match="an update twice or out of turn"):
        history.sent(1, last)
    history._replicas[1] = last.step
    with pytest.raises(AssertionError, match="a fork"):
        history.sent(1, replace(last, rate=2 * last.rate))
    with pytest.raises(AssertionError, match="asked out of turn"):
        history.sent(1, Begin(0, 1.0, 0, False, ()))
    with pytest.raises(AssertionError, match="replicas differ in the end"):
        history.check(3, [b"a", b"b"])
    history.check(3, [b"a", b"a"])
    client, answer = told.answers[0]
    history.got(client, replace(answer, digest=b"x" * 32))
    with pytest.raises(AssertionError):
        history.check(3, [b"a", b"a"])


def answer(client: int, groups: int) -> Answer:
    """Return an answer about a segment of a client's own."""
    return Answer(client, b"", Segment(client, 0, groups), ((), ()))


@pytest.mark.parametrize("kept", [4, 5, 3, 9])
def test_what_one_client_has_above_half_of_a_step_may_be_left_out(kept: int) -> None:
    answers = [answer(1, 9), answer(2, 3), answer(3, 1)]
    counted = {(2, 0), (2, 1), (2, 2), (3, 0), *((1, group) for group in range(kept))}

    if kept in (4, 9):  # just half, or everything
        hold_complete(answers, counted)
        return
    with pytest.raises(AssertionError, match="an answer in time is left out"):
        hold_complete(answers, counted)


def test_of_two_clients_nothing_may_be_left_out() -> None:
    with pytest.raises(AssertionError, match="an answer in time is left out"):
        hold_complete([answer(1, 4), answer(2, 1)], {(1, 0), (2, 0)})


def test_plain_rewards_by_hand() -> None:
    # Changes 1, 2, 3 and 10 against a clean loss of 1: median 2.5, MAD 1.
    rewards = plain_rewards([((2.0, 3.0, 4.0, 11.0), (1.0,))])

    # 1.5 / 1.4826 * 42 = 42.49; 0.5 / 1.4826 * 42 = 14.16; 7.5 is clipped to 3.
    assert list(np.frombuffer(rewards, np.int8)) == [42, 14, -14, -126]

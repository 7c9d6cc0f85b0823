import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.small_runs import NOW, log, metrics, new_run, save, trained_run
from utilities.credits import CREDITS
from utilities.curves import Curves
from utilities.errors import RunError
from utilities.feed import (
    LONGEST_STEP,
    LOOK_SECONDS,
    MOST_CLIENTS,
    MOST_POINTS,
    MOST_ROWS,
    PICTURE_POINTS,
    SAMPLE_CHARACTERS,
    Cursor,
    Feed,
    loss_points,
    medians,
    middle_points,
    plain,
    step_rows,
    validation_points,
)
from utilities.plots import Level
from utilities.runlogs import RunLog
from utilities.runs import Run
from utilities.sessionfiles import EVENTS, SESSION

LEVELS = (Level("evenly", 3.0), Level("by pairs", 2.0))


def logs(steps: int, **changes: Any) -> Curves:
    """Return logs of steps of half a second with 1,024 trials."""
    lines = [metrics(i, **changes).to_json() for i in range(steps)]
    losses = np.array([2 + 1 / (i + 1) for i in range(steps)])
    return Curves(0, 0, lines, losses)


# Curves as plain data.


def test_numbers_become_plain_with_the_digits_that_matter() -> None:
    values = np.array([1.23456789, np.nan, 3.0])
    assert plain(values) == [1.234568, None, 3.0]


def test_losses_have_step_time_and_trials() -> None:
    points = loss_points(logs(3))

    assert points == {
        "step": [0, 1, 2],
        "time": [0.5, 1.0, 1.5],
        "trials": [1024, 2048, 3072],
        "nats": [3.0, 2.5, round(2 + 1 / 3, 6)],
    }
    assert loss_points(logs(5), 3, 4)["step"] == [3]


def test_many_losses_are_thinned_and_keep_the_wildest() -> None:
    curves = logs(3 * MOST_POINTS)
    curves.losses[4321] = 9.0
    curves.losses[1234] = 0.5
    points = loss_points(curves)

    assert len(points["nats"]) <= PICTURE_POINTS
    assert points["nats"][points["step"].index(4321)] == 9.0
    assert points["nats"][points["step"].index(1234)] == 0.5
    assert {len(column) for column in points.values()} == {len(points["nats"])}


def test_a_gap_stays_a_gap_in_losses_and_their_medians() -> None:
    curves = logs(6000)
    curves.losses[2000:3000] = np.nan
    for points in (loss_points(curves), middle_points(curves)):
        inside = [
            nats
            for step, nats in zip(points["step"], points["nats"], strict=True)
            if 2050 < step < 2950
        ]
        assert inside
        assert set(inside) == {None}
        assert points["step"] == sorted(points["step"])


def test_medians_of_nothing_are_nothing() -> None:
    assert middle_points(logs(0))["step"] == []
    curves = logs(2000)
    curves.losses[:] = np.nan
    assert set(middle_points(curves)["nats"]) == {None}


def test_validation_losses_have_step_time_and_trials() -> None:
    lines = [metrics(i).to_json() for i in range(4)]
    lines[2]["validationLoss"] = 2.25
    points = validation_points(Curves(0, 0, lines, np.empty(0)))

    assert points == {"step": [2], "time": [1.0], "trials": [2048], "nats": [2.25]}


def test_a_steps_seconds_are_split_into_trials_update_and_waiting() -> None:
    rows = step_rows(logs(3, trial_seconds=0.375, update_seconds=0.0625))

    assert rows["rate"] == [2048.0] * 3
    assert rows["trialSeconds"] == [0.375] * 3
    assert rows["updateSeconds"] == [0.0625] * 3
    assert rows["waitingSeconds"] == [0.0625] * 3
    assert rows["quality"] == [None] * 3
    assert step_rows(logs(3), 2)["step"] == [2]


def test_steps_between_two_lines_count_for_the_seconds_of_one() -> None:
    lines = [metrics(i, trial_seconds=0.25, update_seconds=0.0) for i in (0, 4)]
    curves = Curves(0, 0, [line.to_json() for line in lines], np.empty(0))
    rows = step_rows(curves)

    # Two seconds for four steps, with as many trials each as the line's.
    assert rows["waitingSeconds"] == [0.25, 0.25]
    assert rows["rate"] == [2048.0, 2048.0]


def test_what_was_not_recorded_is_a_gap_in_the_rows() -> None:
    lines = [metrics(i).to_json() for i in range(3)]
    del lines[1]["seconds"]
    lines[2]["clients"] = 0  # the state that a session ended with: no step
    rows = step_rows(Curves(0, 0, lines, np.empty(0)))

    assert rows["rate"] == [2048.0, None, None]
    assert rows["waitingSeconds"] == [None, None, None]


def test_of_many_rows_stretches_give_medians() -> None:
    values = np.array([1.0, 5.0, 3.0, np.nan, np.nan, 7.0])
    assert medians(values, 2).tolist() == [3.0, 7.0]
    assert np.array_equal(medians(values, 6), values, equal_nan=True)
    gap = medians(np.array([1.0, 1.0, np.nan, np.nan]), 2)
    assert gap[0] == 1.0
    assert math.isnan(gap[1])
    assert len(step_rows(logs(3 * MOST_ROWS))["rate"]) == MOST_ROWS


# News.


class Watched:
    """A run that is trained, its feed, and somebody who looks at it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.now = 0.0
        self.asked = 0
        self.feed = Feed(
            Run(run.path), self.levels, lambda: self.now, lambda: NOW + self.now
        )
        self.cursor = Cursor()

    def levels(self, run: Run) -> tuple[Level, ...]:
        self.asked += 1
        return LEVELS

    def news(self, cursor: Cursor | None = None) -> dict[str, Any]:
        self.now += LOOK_SECONDS
        news = self.feed.news(cursor or self.cursor)
        json.dumps(news, allow_nan=False)  # what a browser can read
        names = [name for name, _ in news]
        assert len(names) == len(set(names))
        return dict(news)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with trained_run(tmp_path) as run:
        yield Watched(run)


def test_at_first_one_gets_all_there_is(watched: Watched) -> None:
    news = watched.news()

    assert news.keys() == {"run", "samples", "events", "clients", "head", "curves"}
    assert news["run"]["run"] == 0
    assert news["run"]["text"] == "Some prose"
    assert news["run"]["config"]["hiddenSize"] == 4
    assert "stepNum" not in news["run"]["config"]
    curves = news["curves"]
    assert curves["whole"]
    assert curves["loss"]["step"] == list(range(101))
    assert curves["validation"]["nats"] == [3.1, 2.25, 2.5]
    assert len(curves["steps"]["rate"]) == 101
    head = news["head"]
    assert (head["step"], head["seconds"], head["trials"]) == (101, 50.5, 101 * 1024)
    assert head["best"] == {"step": 50, "nats": 2.25}
    assert head["validation"] == {"step": 100, "nats": 2.5}
    assert head["rate"] == 2048.0
    assert not head["trialsAreRough"]
    assert head["join"] == []
    assert news["samples"] == {"samples": []}


def test_levels_come_with_the_second_news_and_are_counted_once(
    watched: Watched,
) -> None:
    watched.news()
    news = watched.news()
    assert news["levels"] == {
        "levels": [
            {"name": "evenly", "nats": 3.0},
            {"name": "by pairs", "nats": 2.0},
        ]
    }
    assert watched.asked == 1
    assert "levels" in watched.news(Cursor())  # somebody else gets them at once
    assert watched.asked == 1


def test_later_only_what_came_is_told(watched: Watched) -> None:
    watched.news()
    watched.news()
    assert watched.news() == {}
    run_log = RunLog(watched.run)
    run_log.append_step(metrics(101))
    run_log.append_step(metrics(102, validation_loss=2.125))
    run_log.close()
    news = watched.news()

    assert news.keys() == {"head", "curves"}
    curves = news["curves"]
    assert not curves["whole"]
    assert curves["loss"]["step"] == [101, 102]
    assert curves["loss"]["time"] == [51.0, 51.5]
    assert curves["steps"]["step"] == [101, 102]
    assert curves["validation"]["nats"] == [3.1, 2.25, 2.5, 2.125]
    run_log.append_step(metrics(103))
    run_log.close()
    assert "validation" not in watched.news()["curves"]
    # Somebody who comes now gets a picture of all of it.
    fresh = watched.news(Cursor())["curves"]
    assert fresh["whole"]
    assert len(fresh["loss"]["step"]) == 104


def test_losses_wait_for_the_line_that_says_when_they_were(watched: Watched) -> None:
    watched.news()
    losses = watched.run.path / "loss.txt"
    with losses.open("a") as file:
        file.write("2.0\n2.0\n")
    assert "curves" not in watched.news()
    run_log = RunLog(watched.run)
    run_log.append_step(metrics(103))
    run_log.close()

    points = watched.news()["curves"]["loss"]
    assert points["step"] == [101, 102, 103]
    assert None not in points["time"]


def test_without_lines_losses_are_shown_all_the_same(watched: Watched) -> None:
    (watched.run.path / "metrics.jsonl").unlink()

    points = watched.news()["curves"]["loss"]
    assert len(points["step"]) == 101
    assert points["time"][:2] == [None, None]


def test_files_are_looked_at_twice_a_second_at_most(watched: Watched) -> None:
    watched.news()
    run_log = RunLog(watched.run)
    run_log.append_step(metrics(101))
    run_log.close()
    watched.now += LOOK_SECONDS / 2

    assert "curves" not in dict(watched.feed.news(watched.cursor))
    assert "curves" in watched.news()


def test_after_a_resume_there_is_a_new_picture(watched: Watched) -> None:
    watched.news()
    run_log = RunLog(watched.run)
    run_log.cut_logs(50)
    run_log.append_step(metrics(50, loss=2.75))
    run_log.close()
    curves = watched.news()["curves"]

    assert curves["whole"]
    assert len(curves["loss"]["step"]) == 51
    assert curves["loss"]["nats"][50] == 2.75


def test_who_has_got_many_points_gets_a_thinned_picture_again(
    watched: Watched,
) -> None:
    watched.news()
    run_log = RunLog(watched.run)
    shown, wholes = 101, 0
    for start in range(101, 4000, 300):
        for step in range(start, start + 300):
            run_log.append_step(metrics(step))
        run_log.close()
        curves = watched.news()["curves"]
        points = len(curves["loss"]["step"])
        shown = points if curves["whole"] else shown + points
        wholes += curves["whole"]
        assert shown <= MOST_POINTS

    assert wholes >= 4


def test_samples_are_told_when_there_are_new_ones(watched: Watched) -> None:
    watched.news()
    run_log = RunLog(watched.run)
    run_log.append_sample(50, "The cat")
    run_log.append_sample(100, "x" * 5000)
    samples = watched.news()["samples"]["samples"]

    assert [sample["step"] for sample in samples] == [50, 100]
    assert samples[0]["text"] == "The cat"
    assert len(samples[1]["text"]) == SAMPLE_CHARACTERS


def test_changed_keys_are_told(watched: Watched) -> None:
    watched.news()
    path = watched.run.path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "sigma": 0.5, "stepNum": 200}))
    news = watched.news()

    assert news["run"]["config"]["sigma"] == 0.5
    assert news["head"]["step"] == 200


def test_a_damaged_file_is_an_error_and_then_mended(watched: Watched) -> None:
    path = watched.run.path / "config.json"
    good = path.read_text()
    watched.news()
    path.write_text("{")
    with pytest.raises(RunError, match="damaged"):
        watched.news()
    path.write_text(good.replace("0.02", "0.04"))

    assert watched.news()["run"]["config"]["sigma"] == 0.04


# The session.


def session(run: Run, **changes: Any) -> None:
    content = {"time": NOW, "state": "training", "step": 150, "join": ["line"]}
    clients = [
        {"name": "new", "state": "working", "rate": 10.5, "late": 0, "lateOf": 9},
        {"name": "lab", "state": "working", "machine": "Python", "trials": 5},
    ]
    whole = {**content, "clients": clients, **changes}
    (run.path / SESSION).write_text(json.dumps(whole))


def credit(run: Run, **trials: int) -> None:
    clients = {
        name: {"trials": n, "steps": 3, "reward": 2.0 * n} for name, n in trials.items()
    }
    (run.path / CREDITS).write_text(json.dumps({"step": 101, "clients": clients}))


def test_who_is_here_comes_with_its_share(watched: Watched) -> None:
    credit(watched.run, lab=300, gone=900)
    session(watched.run)
    news = watched.news()

    rows = {row["name"]: row for row in news["clients"]["clients"]}
    assert [*rows] == ["lab", "new", "gone"]
    assert news["clients"]["before"] == 101
    assert rows["lab"]["here"]
    assert (rows["lab"]["trials"], rows["lab"]["shareOfTrials"]) == (300, 0.25)
    assert rows["lab"]["shareOfGradient"] == 0.25
    assert rows["lab"]["machine"] == "Python"
    assert rows["new"]["rate"] == 10.5
    assert "shareOfTrials" not in rows["new"]
    assert not rows["gone"]["here"]
    assert "state" not in rows["gone"]
    assert news["head"]["state"] == "training"
    assert news["head"]["join"] == ["line"]
    assert news["head"]["step"] == 150  # the server is ahead of its logs


def test_an_end_by_the_clock_is_as_announced(watched: Watched) -> None:
    session(watched.run, endTime=NOW + 60)
    head = watched.news()["head"]
    assert (head["endStep"], head["endsAt"]) == (None, NOW + 60)


def test_an_end_by_steps_is_foretold_by_the_speed_of_the_last_ones(
    watched: Watched,
) -> None:
    # 101 steps of half a second; the last one ended at NOW.
    session(watched.run, endStep=141)
    head = watched.news()["head"]
    assert (head["endStep"], head["endsAt"]) == (141, NOW + 20)


def test_of_two_ends_the_first_one_counts(watched: Watched) -> None:
    session(watched.run, endStep=141, endTime=NOW + 10)
    assert watched.news()["head"]["endsAt"] == NOW + 10


def test_speed_of_an_older_session_counts_from_now_on(watched: Watched) -> None:
    session(watched.run, endStep=141, time=NOW + 86_400)
    watched.now = 86_400.0
    ends = watched.news()["head"]["endsAt"]
    assert ends == NOW + 86_400 - LONGEST_STEP + 20


def test_nothing_is_foretold_where_nobody_trains_or_no_end_is_known(
    watched: Watched,
) -> None:
    session(watched.run)
    assert watched.news()["head"]["endsAt"] is None
    session(watched.run, endTime=NOW + 60, state="waiting for clients")
    assert watched.news()["head"]["endsAt"] is None


def test_an_end_that_is_never_reached_is_none(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        log(run, (metrics(i, seconds=1e300 * (i + 1)) for i in range(3)))
        session(run, endStep=10**17)
        assert Watched(run).news()["head"]["endsAt"] is None
        session(run, endStep=10**17, endTime=9e17)
        assert Watched(run).news()["head"]["endsAt"] is None


def test_without_steps_only_an_end_by_the_clock_is_known(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        session(run, endStep=10)
        head = Watched(run).news()["head"]
    assert (head["endStep"], head["endsAt"]) == (10, None)


def test_nobody_is_at_a_session_that_has_ended(watched: Watched) -> None:
    session(watched.run, state="ended")
    news = watched.news()
    assert news["clients"]["clients"] == []
    assert news["head"]["state"] == "ended"

    session(watched.run, time=NOW - 3600)
    assert watched.news()["head"]["state"] == "not running"


def test_of_very_many_clients_some_are_told_and_the_others_counted(
    watched: Watched,
) -> None:
    credit(watched.run, **{f"c{i}": i for i in range(MOST_CLIENTS + 7)})
    clients = watched.news()["clients"]

    assert len(clients["clients"]) == MOST_CLIENTS
    assert clients["more"] == 7


def test_a_run_of_an_older_version_is_active_while_lines_come(
    watched: Watched,
) -> None:
    assert watched.news()["head"]["state"] == "training"
    watched.now += 60
    assert watched.news()["head"]["state"] == "not running"


def test_a_run_without_a_step_shows_what_there_is(tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        save(run, 0)
        news = Watched(run).news()

    assert news["head"]["state"] == "not running"
    assert news["head"]["loss"] is None
    assert news["head"]["rate"] is None
    assert news["curves"]["loss"]["step"] == []


def test_events_are_told_as_they_come(watched: Watched) -> None:
    watched.news()
    event = {"time": NOW, "step": 1, "kind": "join", "text": "lab joined"}
    (watched.run.path / EVENTS).write_text(json.dumps(event) + "\n")

    (told,) = watched.news()["events"]["events"]
    assert told["text"] == "lab joined"


def test_a_picture_has_medians_validation_and_keys(watched: Watched) -> None:
    log_before = watched.feed.picture()

    assert log_before["run"] == 0
    assert log_before["config"]["hiddenSize"] == 4
    assert log_before["middle"]["step"] == list(range(101))
    assert log_before["validation"]["nats"] == [3.1, 2.25, 2.5]


def test_two_who_look_do_not_disturb_each_other(watched: Watched) -> None:
    other = Cursor()
    watched.news()
    log(watched.run, [metrics(101)])
    assert watched.news()["curves"]["loss"]["step"] == [101]
    assert watched.news(other)["curves"]["whole"]
    log(watched.run, [metrics(102)])

    assert watched.news(other)["curves"]["loss"]["step"] == [102]
    # At the same moment, without another look at the files.
    assert dict(watched.feed.news(watched.cursor))["curves"]["loss"]["step"] == [102]

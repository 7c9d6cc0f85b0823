import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.inspecting.curve_runs import RATE, law, law_lines
from tests.small_runs import CONFIG, NOW, new_run
from utilities.inspect.forecast import Law
from utilities.inspect.outlook import default_targets, outlook_json, outlook_lines
from utilities.inspect.summary import Overview, look


def overview(root: Path, points: int = 60, decay: str = "auto") -> Overview:
    with new_run(root, config=replace(CONFIG, decay=decay)) as run:
        lines = law_lines(points, 0.004)
        lines[-1]["time"] = NOW
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (run.path / "metrics.jsonl").write_text(text)
        return look(run)


def lines(seen: Overview, *targets: float, now: float = NOW + 10) -> list[str]:
    return outlook_lines(seen, Law(seen.curves), targets, now)


@pytest.mark.parametrize(
    ("newest", "targets"),
    [
        (2.1788, [2.15, 2.1, 2.05, 2.0]),
        (2.15, [2.1, 2.05, 2.0, 1.95]),
        (0.12, [0.1, 0.05]),
        (0.01, []),
    ],
)
def test_the_next_round_losses_are_asked_for(
    newest: float, targets: list[float]
) -> None:
    assert default_targets(newest) == targets


def test_each_target_has_its_line(tmp_path: Path) -> None:
    seen = overview(tmp_path)
    soon, far, done = float(law(900e3)), 0.5, float(law(200e3))
    said = lines(seen, soon, far, done)

    assert said[0].startswith("run 0 at step 601: validation loss 1.7")
    assert said[1] == "after 10 min 0 s of training"
    assert said[3].split() == ["nats", "bits", "in", "80%", "of", "curves", "about"]
    nats, bits, minutes, unit, low, *_ = said[4].split()
    assert (float(nats), float(bits)) == (
        round(soon, 3),
        round(soon / math.log(2), 3),
    )
    assert (unit, int(minutes)) in [("min", n) for n in range(3, 7)] or unit == "s"
    assert int(low) > 0
    assert said[5].endswith("-  too far to be foretold")
    assert "reached after" in said[6]
    assert all(len(line) <= 80 for line in said)


def test_the_moment_is_told_of_a_run_that_goes_on(tmp_path: Path) -> None:
    seen = overview(tmp_path)
    target = float(law(900e3))
    seconds = Law(seen.curves).forecast(target).seconds
    assert seconds is not None
    now = NOW + 10
    then, today = time.localtime(now + seconds.middle), time.localtime(now)
    same = then.tm_yday == today.tm_yday
    moment = time.strftime("%H:%M" if same else "%Y-%m-%d %H:%M", then)

    assert lines(seen, target)[4].endswith(f"  {moment}")
    later = lines(seen, target, now=NOW + 400)
    assert "about" not in later[3]
    assert not later[4].endswith(moment)


def test_the_moment_of_another_day_has_its_date(tmp_path: Path) -> None:
    seen = overview(tmp_path)
    target = float(law(20_000e3))
    seconds = Law(seen.curves).forecast(target).seconds
    assert seconds is not None
    assert 1e4 < seconds.middle < 5e4
    # From the last second of a day on this machine's clock.
    today = time.localtime(NOW)
    midnight = NOW - 3600 * today.tm_hour - 60 * today.tm_min - today.tm_sec
    now = midnight + 86399
    moved = replace(seen, moment=now)
    line = lines(moved, target, now=now)[4]

    assert line.endswith(
        time.strftime("%Y-%m-%d %H:%M", time.localtime(now + seconds.middle))
    )


def test_what_it_rests_on_is_told(tmp_path: Path) -> None:
    said = "\n".join(lines(overview(tmp_path), 1.8))

    assert "58 validation losses, from 30 s to 10 min 0 s" in said
    assert "loss = floor + b / trials^c, which no theory promises" in said
    assert f"{RATE:,.0f} trials a second" in said
    assert "a test: the first half of the trials foretells 1.7" in said
    assert ": within." in said or "outside, so trust it less" in said
    assert "more than 100 times the training so far is too far" in said
    assert "ends with" not in said


def test_a_decay_that_ends_is_warned_of(tmp_path: Path) -> None:
    said = "\n".join(lines(overview(tmp_path, decay="5000 steps"), 1.8))

    assert (
        "a rate that goes on falling as so far, though it ends with 5000 steps" in said
    )


def test_too_few_losses_for_a_test_are_said(tmp_path: Path) -> None:
    said = "\n".join(lines(overview(tmp_path, points=8), 1.8))

    assert "too few losses for a test" in said


def test_a_test_that_failed_is_a_warning(tmp_path: Path) -> None:
    """The loss falls much faster in the second half than in the first."""
    with new_run(tmp_path) as run:
        found = law_lines(60)
        for line in found[310:]:
            if "validationLoss" in line:
                line["validationLoss"] -= 0.3 * (line["step"] - 300) / 300
        text = "".join(json.dumps(line) + "\n" for line in found)
        (run.path / "metrics.jsonl").write_text(text)
        said = "\n".join(lines(look(run), 1.4))

    assert "outside, so trust it less." in said


def test_an_uncertain_target_says_how_many_curves_never_reach_it(
    tmp_path: Path,
) -> None:
    seen = overview(tmp_path, points=12)
    found = Law(seen.curves)
    target = next(
        nats / 100
        for nats in range(220, 50, -1)
        if 0.02 < found.forecast(nats / 100).never < 0.5
    )
    line = lines(seen, target)[4]

    assert "% never" in line
    assert "to too far" in line


def test_the_middle_may_be_too_far_where_the_earliest_is_not(tmp_path: Path) -> None:
    seen = overview(tmp_path, points=12)
    found = Law(seen.curves)
    targets = (nats / 100 for nats in range(220, 50, -1))
    target = next(
        nats
        for nats in targets
        if (s := found.forecast(nats).seconds)
        and math.isinf(s.middle)
        and math.isfinite(s.low)
    )

    assert lines(seen, target)[4].split()[2:4] == ["too", "far"]
    assert lines(seen, target)[4].rstrip()[-1] not in "0123456789"


def test_the_same_is_plain_data(tmp_path: Path) -> None:
    seen = overview(tmp_path)
    targets = [float(law(900e3)), float(law(200e3))]
    answer: dict[str, Any] = outlook_json(seen, Law(seen.curves), targets)

    assert (answer["run"], answer["step"], answer["seconds"]) == (0, 601, 601.0)
    soon, done = answer["forecasts"]
    assert soon["nats"] == targets[0]
    assert soon["secondsFromNow"]["low"] < soon["secondsFromNow"]["high"]
    assert (soon["reachedAtSeconds"], done["secondsFromNow"]) == (None, None)
    assert done["reachedAtSeconds"] > 0
    assert soon["shareOfCurvesThatNeverDo"] == 0
    assert answer["restsOn"]["points"] == 58

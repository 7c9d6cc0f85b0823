"""Who has taught a run: from the clients' processes to what is printed."""

import json

import pytest

from tests.processes_under_test import ROOT, Lab


@pytest.mark.parametrize("way", ["seeds", "sums"])
def test_both_local_clients_are_credited_after_a_short_run(lab: Lab, way: str) -> None:
    line = f"{lab.small} --timePerStep 0.03 --localClients 2 --maxSteps 40"
    server = lab.server(f"{line} --aggregation {way}")
    assert server.ended() == 0, server
    assert server.err == ""

    words = ["-m", "utilities.inspect", "credits", 0, "--runs", lab.runs, "--json"]
    inspect = lab.start("inspect", *words, cwd=ROOT)
    assert inspect.ended() == 0, inspect
    told = json.loads(inspect.out)

    metrics = lab.metrics()
    assert told["step"] == 40
    assert len(told["machines"]) == 2
    trials = sum(machine["trials"] for machine in told["machines"])
    assert trials == sum(line["trials"] for line in metrics)
    assert all(0 < machine["steps"] <= 40 for machine in told["machines"])
    assert all(machine["shareOfGradient"] > 0 for machine in told["machines"])
    shares = sum(machine["shareOfGradient"] for machine in told["machines"])
    assert shares == pytest.approx(1.0)
    assert {line["timePerStep"] for line in metrics} == {0.03}


def test_a_resume_goes_on_counting_and_time_is_not_asked_for(lab: Lab) -> None:
    line = f"{lab.small} --trialsPerStep 512 --batchSize 2 --localClients 1"
    for more in ("--maxSteps 10", "--maxSteps 5 --resume 0"):
        server = lab.server(f"{line} {more}")
        assert server.ended() == 0, server

    credits = json.loads((lab.runs / "0" / "credits.json").read_text("ascii"))

    assert credits["step"] == 15
    [machine] = credits["clients"].values()
    assert (machine["trials"], machine["steps"]) == (15 * 512, 15)
    assert {line["timePerStep"] for line in lab.metrics()} == {None}

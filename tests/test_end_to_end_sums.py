"""Real servers and clients whose steps are summed up by the clients."""

import signal

from tests.processes_under_test import Lab

FIXED = "--trialsPerStep 1024 --batchSize 2 --seed 3 "  # two blocks a step


def test_seeds_and_sums_give_the_same_digests_with_two_clients(lab: Lab) -> None:
    ways = ("seeds", "sums")
    for way in ways:
        line = f"{lab.small} {FIXED} --localClients 2 --maxSteps 30 --aggregation {way}"
        server = lab.server(line)
        assert server.ended() == 0, server
        assert server.err == ""

    runs = [lab.metrics(run) for run in (0, 1)]
    assert [{m["aggregation"] for m in run} for run in runs] == [{w} for w in ways]
    digests = [[m["digest"] for m in run] for run in runs]
    assert len(digests[0]) == 30
    assert digests[0] == digests[1]


def test_a_client_that_is_killed_or_stopped_holds_up_no_sums_for_long(lab: Lab) -> None:
    server = lab.server(f"{lab.small} --timePerStep 0.05 --aggregation sums")
    names = ("stays", "stopped", "killed")
    stays, stopped, killed = (lab.recorded(server.port, name) for name in names)
    for client in (stays, stopped, killed):
        client.reaches(1)
    stopped.program.signal(signal.SIGSTOP)
    killed.program.kill()
    stays.reaches(stays.step + 20)
    stopped.program.signal(signal.SIGCONT)
    stopped.reaches(stays.step + 20)
    server.signal(signal.SIGINT)
    assert server.ended() == 0, server

    assert [client.program.ended() for client in (stays, stopped)] == [0, 0]
    both = stays.digests.keys() & stopped.digests.keys()
    assert len(both) > 20
    assert {n for n in both if stays.digests[n] != stopped.digests[n]} == set()
    metrics = lab.metrics()
    assert {m["aggregation"] for m in metrics} == {"sums"}
    assert any(m["gradientQuality"] is not None for m in metrics)
    assert metrics[-1]["updateSeconds"] > 0
    assert lab.last_checkpoint() == (stays.step, stays.digests[stays.step])

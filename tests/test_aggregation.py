"""Which way of adding up is cheaper: figures worked by hand, and when it changes."""

import pytest

from utilities.aggregation import (
    MARGIN,
    PENANCE,
    SETTLED,
    STALE,
    STEPS,
    Aggregation,
    Load,
    seeds_seconds,
    sums_bytes,
    sums_seconds,
)

# 64 clients of 2,500 trials each; a model of 5,000 weights.
CROWD = Load(trials=160_000, largest=2_500, segments=64, clients=64, weights=5_000)
PAIR = Load(trials=5_000, largest=2_500, segments=2, clients=2, weights=5_000)
LONE = Load(trials=2_500, largest=2_500, segments=1, clients=1, weights=5_000)


def test_seeds_cost_everybody_all_trials_and_the_link_all_rewards_for_everybody() -> (
    None
):
    # 160,000 trials of 1 microsecond; 64 times 160,000 + 24 * 64 = 161,536 bytes.
    assert seeds_seconds(CROWD, 1e-6) == pytest.approx(0.16 + 64 * 161_536 / 125e6)
    assert seeds_seconds(CROWD, 1e-6) == pytest.approx(0.242706, abs=1e-6)


def test_sums_cost_the_largest_share_a_round_trip_and_the_sums_both_ways() -> None:
    # 64 * 5,000 numbers: in, of 2,500 trials each, 0.64 MB in two bytes, out, of all,
    # 1.28 MB in four; and 161,536 bytes once.
    expected = 0.0025 + 0.003 + (161_536 + 640_000 + 1_280_000) / 125e6

    assert sums_bytes(5_000, 64, 5_120) == 640_000
    assert sums_bytes(5_000, 64, 5_121) == 1_280_000
    assert sums_seconds(CROWD, 1e-6, 0.003) == pytest.approx(expected)
    assert expected == pytest.approx(0.022152, abs=1e-6)


def measured(
    way: str = "auto", adding: float = 1e-6, round_trip: float = 0.001
) -> Aggregation:
    """Return one that knows its figures."""
    aggregation = Aggregation(way)
    aggregation.summed(adding)
    aggregation.answered(1, round_trip)
    return aggregation


def test_the_round_trip_is_that_of_a_typical_client_of_late() -> None:
    aggregation = Aggregation("seeds")
    found = [aggregation.round_trip]
    for trips in ((0.5, 0.25, 9.0), (0.125, 60.0), (-1.0,), (2.0,)):
        for client, seconds in enumerate(trips):
            aggregation.answered(client, seconds)
            aggregation.answered(client, 99.0)  # the first one counts
        aggregation.choose(PAIR)
        found.append(aggregation.round_trip)

    # Of two clients the quicker one counts, and no time is negative. Medians of 0.5;
    # 0.5, 0.125; 0.5, 0.125, 0; of 0.5, 0.125, 0, 2 the last one is longer.
    assert found == [0.0, 0.5, 0.3125, 0.125, 2.0]


def settled(aggregation: Aggregation, load: Load) -> str | None:
    """Let as many steps go by as a change takes; return the last one's word."""
    for _ in range(SETTLED - 1):
        assert aggregation.choose(load) is None
    return aggregation.choose(load)


def test_auto_begins_with_seeds_and_takes_sums_where_they_are_cheaper() -> None:
    aggregation = measured()
    assert aggregation.way == "seeds"

    reason = settled(aggregation, CROWD)

    # 0.0025 + 0.001 + 2,081,536 / 125e6 = 0.02015 s
    assert aggregation.way == "sums"
    assert reason == (
        "with 64 clients and 160,000 trials about 242.7 ms a step by seeds, "
        "20.2 ms by sums"
    )
    assert aggregation.choose(CROWD) is None  # no change, no word


def test_two_clients_of_a_small_step_stay_with_seeds() -> None:
    aggregation = measured(round_trip=0.0015)

    # By seeds 5.00 + 0.08 ms, by sums 2.50 + 1.50 + 0.36 ms: not 1.25 times cheaper.
    assert settled(aggregation, PAIR) is None
    assert aggregation.way == "seeds"


@pytest.mark.parametrize("way", ["seeds", "sums"])
def test_a_fixed_way_never_changes(way: str) -> None:
    aggregation = measured(way)

    for load in (LONE, PAIR, CROWD):
        assert settled(aggregation, load) is None
        assert aggregation.way == way


def test_one_client_alone_goes_back_to_seeds() -> None:
    aggregation = measured()
    settled(aggregation, CROWD)

    assert aggregation.choose(LONE) == "one client alone"
    assert aggregation.way == "seeds"
    assert aggregation.choose(LONE) is None


def test_nothing_changes_before_both_figures_are_known() -> None:
    without_trip, without_adding = Aggregation("auto"), Aggregation("auto")
    without_trip.summed(1e-6)
    without_adding.answered(1, 0.001)

    for aggregation in (without_trip, without_adding):
        assert settled(aggregation, CROWD) is None
        assert aggregation.way == "seeds"


def test_what_adding_up_takes_is_known_of_each_way_by_itself() -> None:
    """Six clients on two cores: three at a time are held up by each other."""
    aggregation = measured(adding=1e-6)
    for _ in range(STEPS):
        aggregation.updated("seeds", 160_000, 0.480)
        aggregation.updated("sums", 160_000, 0.080)  # is only applied

    reason = settled(aggregation, CROWD)

    # 0.48 - 0.08 s of the update are for adding up: 2.5 us a trial; and 82.7 ms.
    assert reason is not None
    assert "about 482.7 ms a step by seeds, 20.2 ms by sums" in reason


def test_what_is_not_known_of_sums_is_taken_from_seeds() -> None:
    aggregation = Aggregation("auto")
    aggregation.answered(1, 0.001)
    aggregation.updated("seeds", 160_000, 0.16)

    reason = settled(aggregation, CROWD)

    assert reason is not None
    assert "about 242.7 ms a step by seeds, 20.2 ms by sums" in reason


def test_an_update_is_never_faster_than_nothing() -> None:
    aggregation = measured()
    aggregation.updated("seeds", 5_000, 0.001)
    aggregation.updated("sums", 5_000, 0.002)

    assert settled(aggregation, PAIR) is None
    assert aggregation._costs()[0] == pytest.approx(2 * 5_048 / 125e6)


def test_what_one_client_alone_had_to_do_says_nothing_about_two() -> None:
    aggregation = measured()
    for _ in range(STEPS):
        aggregation.choose(LONE)

    assert settled(aggregation, CROWD) is not None


def test_a_single_step_does_not_change_the_way() -> None:
    aggregation = measured(round_trip=0.0015)
    for load in (PAIR, PAIR, PAIR, CROWD, CROWD, PAIR, PAIR):
        assert aggregation.choose(load) is None
    assert aggregation.way == "seeds"

    # By now 5 of 10 and then 6 of 11 steps were large.
    reasons = [aggregation.choose(CROWD) for _ in range(4)]

    assert reasons[:2] == [None, None]
    assert aggregation.way == "sums"


def test_after_a_change_some_steps_go_by_before_the_next() -> None:
    aggregation = measured()
    settled(aggregation, CROWD)
    for _ in range(STEPS):
        aggregation.answered(1, 9.0)
        aggregation._round_trips.append(9.0)

    assert settled(aggregation, CROWD) is not None
    assert aggregation.way == "seeds"


def test_the_way_does_not_change_to_and_fro_where_both_cost_alike() -> None:
    # By seeds 5.08 ms whatever the round trip; by sums 2.86 ms and the round trip.
    aggregation = measured(round_trip=0.0011)  # 3.96 ms: cheaper by 1.283
    assert settled(aggregation, PAIR) is not None
    assert aggregation.way == "sums"

    for round_trip in (0.0013, 0.0022, 0.0033, 0.0034):  # up to 6.26 ms
        for _ in range(STEPS):
            aggregation.answered(1, round_trip)
            assert aggregation.choose(PAIR) is None
    reasons = []
    for _ in range(STEPS):
        aggregation.answered(1, 0.0038)  # 6.66 ms: dearer by 1.31
        reasons.append(aggregation.choose(PAIR))

    assert MARGIN == 1.25
    assert len([reason for reason in reasons if reason is not None]) == 1
    assert aggregation.way == "seeds"


def test_what_sums_took_in_a_bad_moment_is_forgotten_after_a_while() -> None:
    # Seeds 1 us a trial: 5.08 ms; by sums 2.86 ms and the round trip of 1.1 ms.
    aggregation = measured(round_trip=0.0011)
    assert settled(aggregation, PAIR) is not None
    assert aggregation.way == "sums"
    aggregation.updated("seeds", 5_000, 0.005)
    for _ in range(STEPS):
        aggregation.summed(4e-6)
        aggregation.updated("sums", 5_000, 0.0)
    reasons = [aggregation.choose(PAIR) for _ in range(SETTLED)]
    assert any(reasons)
    assert aggregation.way == "seeds"

    waiting = [aggregation.choose(PAIR) for _ in range(STALE - 1)]
    again = aggregation.choose(PAIR)

    assert waiting == [None] * (STALE - 1)
    assert again is not None
    assert again.endswith("5.1 ms a step by seeds, 4.0 ms by sums")
    assert aggregation.way == "sums"


def test_a_round_trip_is_the_median_of_first_answers_and_never_negative() -> None:
    aggregation = measured(round_trip=-5.0)
    for client, seconds in ((2, 0.002), (3, 9.0)):
        aggregation.answered(client, seconds)
    aggregation.answered(3, 0.0)  # a second block of the same client

    reason = settled(aggregation, CROWD)

    # The median of 0, 2 ms and 9 s: 2.5 + 2 + 16.65 ms.
    assert reason is not None
    assert reason.endswith("21.2 ms by sums")


def test_the_newest_steps_decide() -> None:
    aggregation = measured(adding=1.0)
    for _ in range(STEPS):
        aggregation.summed(1e-9)

    # By seeds 0.00016 + 0.08271 s, by sums 0.001 + 0.01665 s.
    reason = settled(aggregation, CROWD)

    assert reason is not None
    assert "about 82.9 ms a step by seeds, 17.7 ms by sums" in reason


def test_sums_that_mostly_come_too_late_are_given_up_for_a_long_while() -> None:
    aggregation = measured()
    settled(aggregation, CROWD)
    assert aggregation.way == "sums"

    assert aggregation.failed() == "most sums came too late"
    assert aggregation.way == "seeds"
    reasons = [aggregation.choose(CROWD) for _ in range(PENANCE + SETTLED)]
    assert [reason is not None for reason in reasons].index(True) == (
        PENANCE + SETTLED - 1
    )


@pytest.mark.parametrize("way", ["seeds", "sums"])
def test_a_fixed_way_is_not_given_up(way: str) -> None:
    aggregation = Aggregation(way)

    assert aggregation.failed() is None
    assert aggregation.way == way

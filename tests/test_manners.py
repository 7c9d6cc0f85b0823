"""When a guest works, pauses, tries again; with clocks and readings from outside."""

import random
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilities.manners import (
    DAY,
    Hours,
    Manners,
    Tries,
    Wakefulness,
    clock_time,
    lost_words,
    parse_hours,
    rough,
    share_of,
)

NIGHT = Hours(((1200, 480),))  # 20 to 8


def at(time: str) -> datetime:
    return datetime.fromisoformat(f"2026-03-01T{time}:00")


# Hours.


@pytest.mark.parametrize(
    ("text", "windows"),
    [
        ("20-08", ((1200, 480),)),
        ("9-17", ((540, 1020),)),
        ("12:30-13, 20-8:05", ((750, 780), (1200, 485))),
        ("0-24", ((0, 0),)),
        ("22-24", ((1320, 0),)),
        ("23:59-0", ((1439, 0),)),
    ],
)
def test_hours_are_read_as_people_write_them(
    text: str, windows: tuple[tuple[int, int], ...]
) -> None:
    assert parse_hours(text) == Hours(windows)


@pytest.mark.parametrize(
    "text",
    [
        *["", "20", "20-", "-8", "20-8-9", "20–08", "25-8", "8-25", "24-8", "24:00-8"],
        *["8-8", "20:60-8", "20:5-8", "20.30-8", "20-08,", "a-b", "8-24:01", "100-8"],
    ],
)
def test_what_are_no_hours_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="expected hours of the day as 20-08") as told:
        parse_hours(text)

    assert str(told.value).endswith(f", got {text}")


@pytest.mark.parametrize(
    ("time", "until"),
    [
        *[("19:59", "20:00"), ("20:00", None), ("23:59", None), ("00:00", None)],
        *[("07:59", None), ("08:00", "20:00"), ("12:00", "20:00")],
    ],
)
def test_hours_may_go_over_midnight(time: str, until: str | None) -> None:
    assert NIGHT.closed_until(at(time)) == until


@pytest.mark.parametrize(
    ("time", "until"),
    [
        *[("00:00", "12:30"), ("12:29", "12:30"), ("12:30", None), ("12:59", None)],
        *[("13:00", "20:00"), ("19:59", "20:00"), ("20:00", None), ("23:59", None)],
    ],
)
def test_of_several_hours_the_next_ones_are_waited_for(
    time: str, until: str | None
) -> None:
    assert parse_hours("20-24,12:30-13").closed_until(at(time)) == until


def test_all_day_is_all_day() -> None:
    assert all(parse_hours("0-24").minutes_until(minute) == 0 for minute in range(DAY))


WINDOWS = st.lists(
    st.tuples(st.integers(0, DAY - 1), st.integers(0, DAY - 1)).filter(
        lambda ends: ends[0] != ends[1]
    ),
    min_size=1,
    max_size=4,
)


@given(WINDOWS, st.integers(0, DAY - 1))
def test_hours_begin_when_it_is_said_and_not_before(
    windows: list[tuple[int, int]], minute: int
) -> None:
    def within(now: int) -> bool:  # the slow way
        return any(a <= now < b if a < b else now >= a or now < b for a, b in windows)

    expected = next(n for n in range(DAY) if within((minute + n) % DAY))

    assert Hours(tuple(windows)).minutes_until(minute) == expected


@given(WINDOWS)
def test_hours_that_are_shown_are_read_as_the_same(
    windows: list[tuple[int, int]],
) -> None:
    assert parse_hours(str(Hours(tuple(windows)))) == Hours(tuple(windows))


def test_a_minute_is_shown_as_a_clock_has_it() -> None:
    assert [clock_time(minute) for minute in (0, 485, 1439)] == [
        *("00:00", "08:05", "23:59")
    ]


# Pauses.


@pytest.mark.parametrize(
    ("manners", "time", "battery", "words"),
    [
        (Manners(), "12:00", True, None),
        (Manners(NIGHT), "22:00", True, None),
        (Manners(NIGHT), "12:00", False, "paused until 20:00 (hours 20:00-08:00)"),
        (Manners(None, True), "12:00", True, "paused (on battery)"),
        (Manners(None, True), "12:00", False, None),
        (Manners(NIGHT, True), "22:00", True, "paused (on battery)"),
        (Manners(NIGHT, True), "9:00", True, "paused until 20:00 (hours 20:00-08:00)"),
    ],
)
def test_a_pause_says_why(
    manners: Manners, time: str, battery: bool, words: str | None
) -> None:
    assert manners.pause(at(time.zfill(5)), battery) == words


# Tries.


class Middle(random.Random):
    """Draws the middle of each range."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def test_pauses_double_up_to_a_minute() -> None:
    tries = Tries(Middle())

    assert [tries.wait(0.0) for _ in range(9)] == [
        *(0.75, 1.5, 3.0, 6.0, 12.0, 24.0, 45.0, 45.0, 45.0)
    ]


def test_pauses_differ_between_clients() -> None:
    waits = {Tries(random.Random(seed)).wait(0.0) for seed in range(20)}

    assert len(waits) == 20
    assert all(0.5 <= wait <= 1.0 for wait in waits)


def test_a_server_that_answers_and_sends_us_away_is_not_met_sooner() -> None:
    tries = Tries(Middle())
    tries.wait(0.0)
    tries.reached()
    assert tries.wait(5.0) == 1.5
    tries.settled()
    assert tries.wait(6.0) == 0.75


def test_the_time_of_trying_is_that_since_the_first_try() -> None:
    tries = Tries(Middle())
    assert tries.seconds(7.0) == 0.0
    tries.wait(10.0)
    tries.wait(30.0)
    assert tries.seconds(100.0) == 90.0
    tries.reached()
    assert tries.seconds(101.0) == 0.0


def test_of_many_tries_few_are_told() -> None:
    tries = Tries(Middle())
    told = []
    for number in range(1, 3000):
        tries.wait(0.0)
        told += [number] if tries.told else []

    assert told == [1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]


@pytest.mark.parametrize(
    ("wait", "tried", "words"),
    [
        (0.2, 0.0, "next try in 1 s"),
        (11.6, 59.0, "next try in 12 s"),
        (58.0, 60.0, "tried for 1 min; next try in 58 s"),
        (58.0, 3 * 3600.0, "tried for 3 h; next try in 58 s"),
    ],
)
def test_who_has_lost_its_server_says_for_how_long_and_when_it_tries_again(
    wait: float, tried: float, words: str
) -> None:
    assert lost_words(wait, tried) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *[(0.9, "0 s"), (59.0, "59 s"), (60.0, "1 min"), (3599.0, "59 min")],
        *[(3600.0, "1 h"), (11_100.0, "3 h 5 min"), (86_400.0, "1 d")],
        *[(187_200.0, "2 d 4 h"), (86_399.0, "23 h 59 min")],
    ],
)
def test_a_long_time_has_two_units(seconds: float, words: str) -> None:
    assert rough(seconds) == words


# Sleep.


def test_a_machine_that_has_slept_is_told_from_one_that_was_busy() -> None:
    awake = Wakefulness(1000.0, 50.0)

    assert awake.slept(1100.0, 150.0) is None
    assert awake.slept(1105.0, 150.0) is None  # the clock was set
    assert awake.slept(2905.0, 150.0) == 1800.0
    assert awake.slept(2906.0, 151.0) is None
    assert awake.slept(2000.0, 152.0) is None  # it was set back


@pytest.mark.parametrize(
    ("cores", "percent", "count"),
    [(8, 50.0, 4), (8, 100.0, 8), (3, 50.0, 1), (1, 1, 1)],
)
def test_a_share_of_the_cores_is_at_least_one(
    cores: int, percent: float, count: int
) -> None:
    assert share_of(cores, percent) == count

"""What readings mean, and how it is told."""

import json
from datetime import datetime
from typing import Any

import pytest

from utilities import doctor
from utilities.doctor import FAIL, OK, WARN, Row
from utilities.errors import ConfigError, IncompatibleError, NetworkError

NOON = datetime(2026, 3, 1, 12, 0)
GOOD = Row("speed", OK, "fast")
ODD = Row("disk", WARN, "small", ("free some", "buy another"))
BAD = Row("numbers", FAIL, "wrong", ("upgrade",), 4)
LOST = Row("connection", FAIL, "none", (), 3)


# Readings.


@pytest.mark.parametrize(
    ("noise", "arithmetic", "state", "words"),
    [
        (True, True, OK, "noise and arithmetic as on all other machines"),
        (False, True, FAIL, "noise differ"),
        (True, False, FAIL, "arithmetic differ"),
        (False, False, FAIL, "noise and arithmetic differ"),
    ],
)
def test_other_numbers_are_a_matter_of_versions(
    noise: bool, arithmetic: bool, state: str, words: str
) -> None:
    row = doctor.numbers(noise=noise, arithmetic=arithmetic)

    assert row.state == state
    assert row.found.startswith(words)
    assert row.exit_code == (4 if state == FAIL else 0)
    assert bool(row.advice) == (state == FAIL)


@pytest.mark.parametrize(
    ("count", "product", "load", "state", "words"),
    [
        (1, 1.0, None, OK, "1 core, one for each matrix product"),
        (8, 1.02, 0.4, OK, "8 cores, one for each matrix product; other programs take"),
        (8, 7.6, 0.4, WARN, "8 cores; one matrix product takes 7.6"),
        (4, 0.3, 2.1, WARN, "4 cores, one for each matrix product; other programs"),
        (4, 0.3, 2.0, OK, "4 cores, one for each"),
    ],
)
def test_cores_are_counted_and_who_else_uses_them(
    count: int, product: float, load: float | None, state: str, words: str
) -> None:
    row = doctor.cores(count, product, load)

    assert row.state == state
    assert row.found.startswith(words)


def test_a_speed_is_told_beside_what_is_usual() -> None:
    assert doctor.speed(45_678.9) == Row(
        "speed",
        OK,
        "45,679 trials/s on one core (measured elsewhere: 710,000 with AVX-512, "
        "550,000 with AVX2, 210,000 with SSE only)",
    )
    assert doctor.speed(doctor.SLOW - 1).state == WARN


@pytest.mark.parametrize(
    ("resolution", "moved", "today", "state"),
    [
        (1e-9, 0.2, NOON, OK),
        (0.0156, 0.2, NOON, OK),  # Windows
        (1e-9, 0.0, NOON, WARN),
        (1.0, 1.0, NOON, WARN),
        (1e-9, 0.2, datetime(1970, 1, 1), WARN),
        (1e-9, 0.2, datetime(2100, 1, 1), WARN),
    ],
)
def test_a_clock_must_move_and_a_date_be_plausible(
    resolution: float, moved: float, today: datetime, state: str
) -> None:
    row = doctor.clocks(resolution, moved, today)

    assert row.state == state
    assert f"{today:%Y-%m-%d}" in row.found


@pytest.mark.parametrize(
    ("row", "state", "words"),
    [
        (doctor.versions("1.0", "3.12", "2.1"), OK, "version 1.0, Python 3.12, numpy"),
        (doctor.power(None), OK, "the system does not tell"),
        (doctor.power(False), OK, "on mains"),
        (doctor.power(True), WARN, "on battery"),
        (doctor.disk(81_900_000_000, "/c", kept=True), OK, "81.9 GB free; who it is"),
        (
            doctor.disk(81_900_000_000, "/c", kept=False),
            WARN,
            "81.9 GB free; /c cannot",
        ),
        (doctor.disk(10_000_000, "/c", kept=True), WARN, "0.0 GB free"),
        (doctor.names("10.0.0.1", ["10.0.0.1"]), OK, "is an address"),
        (doctor.names("lab", ["10.0.0.1", "::7"]), OK, "10.0.0.1, ::7"),
        (doctor.route("10.0.0.2", "10.0.0.1"), OK, "from 10.0.0.2 to 10.0.0.1"),
        (doctor.route("10.0.0.1", "10.0.0.1"), OK, "this machine itself"),
        (doctor.connection(0.0123), OK, "within 12.3 ms"),
        (
            doctor.server(7, "rnn", 7881, 0.4),
            OK,
            "step 7 of rnn, 7,881 weights, 0.40 s",
        ),
        (doctor.server_waits(30.2), WARN, "it listens, and has sent nothing for 30 s"),
    ],
)
def test_each_reading_has_its_words(row: Row, state: str, words: str) -> None:
    assert row.state == state
    assert row.found.startswith(words)
    assert bool(row.advice) == (state == WARN)


def test_without_a_route_the_network_is_to_blame() -> None:
    row = doctor.no_route("10.0.0.1", "Network is unreachable")

    assert (row.state, row.exit_code) == (FAIL, 3)
    assert row.found == "none to 10.0.0.1: Network is unreachable"


def test_firewalls_are_named_only_where_no_answer_came() -> None:
    refused, silent = NetworkError("refused"), NetworkError("no answer")
    refused.__cause__, silent.__cause__ = ConnectionRefusedError(), TimeoutError()

    assert len(doctor.no_connection(refused, 4711).advice) == 1
    advice = doctor.no_connection(silent, 4711).advice
    assert "  sudo ufw allow 4711/tcp" in advice
    assert doctor.no_connection(silent, 4711).exit_code == 3


def test_an_error_gives_its_sentence_and_its_code() -> None:
    row = doctor.failed("server", IncompatibleError("too old"), ["upgrade"])

    assert row == Row("server", FAIL, "too old", ("upgrade",), 4)


# Together.


@pytest.mark.parametrize(
    ("rows", "code"),
    [([], 0), ([GOOD, ODD], 0), ([ODD, BAD, LOST], 4), ([LOST, BAD], 3)],
)
def test_the_first_failure_gives_the_exit_code(rows: list[Row], code: int) -> None:
    assert doctor.exit_code(rows) == code


def test_a_verdict_names_what_is_wrong_or_worth_a_look() -> None:
    assert doctor.verdict([GOOD]) == "Verdict: this machine can take part."
    assert doctor.verdict([GOOD, ODD]) == (
        "Verdict: this machine can take part. Worth a look: disk."
    )
    assert doctor.verdict([ODD, BAD, LOST]) == (
        "Verdict: this machine cannot take part yet (numbers, connection)."
    )


def test_the_table_has_a_line_for_each_check_then_the_verdict_then_what_to_do() -> None:
    rows = [GOOD, ODD, BAD, *doctor.left_out(["server"], "needs numbers")]

    assert doctor.table("lab:80", rows) == [
        "From this machine to lab:80",
        "speed      ok    fast",
        "disk       warn  small",
        "numbers    FAIL  wrong",
        "server     -     needs numbers",
        "",
        "Verdict: this machine cannot take part yet (numbers).",
        "What to do:",
        "  disk:       free some",
        "              buy another",
        "  numbers:    upgrade",
    ]


def test_long_words_are_wrapped_and_commands_are_not() -> None:
    silent = NetworkError("cannot reach 10.0.0.1:4711: " + "no answer " * 20)
    silent.__cause__ = TimeoutError()
    lines = doctor.table("10.0.0.1:4711", [doctor.no_connection(silent, 4711)])
    commands = [line for line in lines if line.startswith(" " * 16)]

    assert len(commands) >= 3 + 2
    assert all(len(line) <= 80 for line in lines if "netsh" not in line)
    assert any(line.endswith("profile=private") for line in lines)


def test_a_row_that_found_nothing_is_a_row() -> None:
    assert doctor.table("x:1", [Row("name", OK, "")])[1] == "name       ok"


def test_json_has_the_same() -> None:
    answer: dict[str, Any] = json.loads(doctor.as_json("lab:80", [ODD, BAD]))

    assert answer == {
        "address": "lab:80",
        "checks": [
            {
                "name": "disk",
                "state": "warn",
                "found": "small",
                "advice": ["free some", "buy another"],
                "exitCode": 0,
            },
            {
                "name": "numbers",
                "state": "FAIL",
                "found": "wrong",
                "advice": ["upgrade"],
                "exitCode": 4,
            },
        ],
        "verdict": "Verdict: this machine cannot take part yet (numbers).",
        "exitCode": 4,
    }


def test_codes_of_failures_are_those_of_errors() -> None:
    assert doctor.failed("x", ConfigError("y")).exit_code == ConfigError.exit_code

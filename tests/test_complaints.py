"""Lines that a log can bear."""

from utilities.complaints import LINES, STRETCH, Complaints


def test_a_few_lines_pass_and_the_rest_is_counted() -> None:
    complaints = Complaints("more came")
    passed = [complaints.passes(f"line {n}", 100.0 + n / 1000) for n in range(2000)]

    assert passed == [True] * LINES + [False] * (2000 - LINES)
    assert complaints.summary(100.0 + STRETCH - 0.1) is None
    said = complaints.summary(100.0 + STRETCH)
    assert said == f"{2000 - LINES} more came in 10 s; the last: line 1999"
    assert complaints.summary(200.0) is None


def test_after_a_summary_some_pass_again() -> None:
    complaints = Complaints("more came")
    for n in range(LINES + 1):
        complaints.passes(str(n), 0.0)
    assert complaints.summary(STRETCH) is not None

    again = [complaints.passes("new", STRETCH + n / 1000) for n in range(LINES + 1)]
    assert again == [True] * LINES + [False]
    assert complaints.summary(2 * STRETCH) == "1 more came in 10 s; the last: new"


def test_who_complains_rarely_is_always_heard() -> None:
    complaints = Complaints("more came")

    assert all(complaints.passes("now and then", 5.0 * n) for n in range(1000))
    assert complaints.summary(1e6) is None


def test_what_was_held_is_told_before_more_passes() -> None:
    complaints = Complaints("more came")
    for n in range(LINES + 5):
        complaints.passes(str(n), 0.0)

    assert not complaints.passes("much later", 1000.0), "nobody has asked meanwhile"
    assert complaints.summary(1000.0) == "6 more came in 1000 s; the last: much later"
    assert complaints.passes("and then", 1000.1)


def test_a_log_grows_by_a_bounded_number_of_lines_a_second() -> None:
    complaints, lines, now = Complaints("more came"), 0, 0.0
    for _ in range(200 * 60):  # two hundred a second for a minute
        now += 1 / 200
        lines += complaints.passes("bad code", now)
        lines += complaints.summary(now) is not None

    assert lines <= (LINES + 1) * 7

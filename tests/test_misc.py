"""Spelling, digests, deadlines."""

import hashlib

import pytest

from utilities.misc import (
    Deadline,
    camel_case,
    kebab_case,
    sha256,
)

SPELLINGS = [
    ("time_per_step", "timePerStep", "time-per-step"),
    ("n_layers", "nLayers", "n-layers"),
    ("check_point_time", "checkPointTime", "check-point-time"),
    ("beta1", "beta1", "beta1"),
    ("sigma", "sigma", "sigma"),
]


@pytest.mark.parametrize(("python", "user", "flag"), SPELLINGS)
def test_a_name_has_one_spelling_in_python_and_two_for_the_user(
    python: str, user: str, flag: str
) -> None:
    assert camel_case(python) == user
    assert kebab_case(user) == flag


def test_kebab_case_cuts_after_a_digit_too() -> None:
    assert kebab_case("beta2Power") == "beta2-power"


def test_sha256_hashes_the_parts_one_after_the_other() -> None:
    assert sha256(b"ab", memoryview(b"c"), b"") == hashlib.sha256(b"abc").digest()
    assert sha256() == hashlib.sha256().digest()


def test_deadline_shares_one_moment_between_waits_and_never_goes_below_zero() -> None:
    now = [100.0]
    deadline = Deadline.after(2.5, lambda: now[0])

    left = [deadline.left()]
    for now[0] in (101.0, 102.5, 200.0):
        left.append(deadline.left())

    assert deadline.moment == 102.5
    assert left == [2.5, 1.5, 0.0, 0.0]

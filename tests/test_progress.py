"""The rate's decay and the model's growth, by hand-worked numbers."""

import pytest

from utilities.config import Config, from_json
from utilities.errors import ConfigError
from utilities.progress import LAST_RATE, Decay, Growth


@pytest.mark.parametrize(
    ("text", "unit", "span", "shown"),
    [
        ("none", "none", 0.0, "none"),
        ("5000 steps", "steps", 5000.0, "5000 steps"),
        ("5000steps", "steps", 5000.0, "5000 steps"),
        ("3600 seconds", "seconds", 3600.0, "3600 seconds"),
        ("  2.5  seconds", "seconds", 2.5, "2.5 seconds"),
        ("1e3 steps", "steps", 1000.0, "1000 steps"),
        ("1e12 steps", "steps", 1e12, "1e+12 steps"),
    ],
)
def test_decay_is_none_or_a_length_in_steps_or_seconds(
    text: str, unit: str, span: float, shown: str
) -> None:
    assert Decay.parse(text) == Decay(unit, span)
    assert str(Decay.parse(text)) == shown
    assert Decay.parse(shown) == Decay(unit, span)
    assert Config(decay=text).decay == shown


@pytest.mark.parametrize(
    "text",
    [
        *("", "None", "steps", "5000", "5000 minutes", "5000 steps ", "x steps"),
        *("0 steps", "-1 seconds", "nan steps", "inf seconds", "1.1e12 steps"),
    ],
)
def test_any_other_decay_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(decay=text)

    assert str(caught.value) == (
        "decay: expected auto, none, or a length such as 5000 steps or 3600 seconds, "
        f"got {text}"
    )


@pytest.mark.parametrize("value", [None, 5000, 1.5, True, ["none"]])
def test_a_decay_that_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^decay: expected "):
        from_json({"decay": value})


def test_the_rate_falls_linearly_to_two_percent_and_stays_there() -> None:
    decay = Decay.parse("200 steps")

    factors = [decay.factor(step, 1e9, 16) for step in (0, 50, 100, 200, 201, 10**9)]

    assert pytest.approx([1.0, 0.755, 0.51, 0.02, 0.02, 0.02]) == factors
    assert LAST_RATE == 0.02


def test_a_decay_over_seconds_looks_at_the_seconds_alone() -> None:
    decay = Decay.parse("40 seconds")

    assert decay.factor(10**9, 10.0, 16) == pytest.approx(0.755)
    assert decay.factor(0, 40.0, 16) == pytest.approx(0.02)


def test_without_an_end_the_rate_falls_with_the_root_of_the_trials_so_far() -> None:
    decay = Decay.parse("auto")

    # 1 / sqrt(1 + step trials / 4,000,000): half after three times as many trials.
    assert decay.factor(0, 1e9, 40_000) == 1.0
    assert decay.factor(100, 1e9, 40_000) == pytest.approx(0.5**0.5)
    assert decay.factor(300, 1e9, 40_000) == 0.5
    assert decay.factor(600, 0.0, 20_000) == 0.5
    assert decay.factor(9900, 0.0, 40_000) == pytest.approx(0.1)


def test_without_decay_the_rate_stays() -> None:
    assert Decay.parse("none").factor(10**9, 1e9, 16) == 1.0


# --- growth ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "units", "trials", "shown"),
    [
        ("none", 0, 0, "none"),
        ("128@400000000", 128, 400_000_000, "128@400000000"),
        ("128@4e8", 128, 400_000_000, "128@400000000"),
        ("1@1", 1, 1, "1@1"),
        ("128@2.9", 128, 2, "128@2"),
        ("4096@1e15", 4096, 10**15, "4096@1000000000000000"),
        ("128@999999999999999", 128, 10**15 - 1, "128@999999999999999"),
    ],
)
def test_growth_is_none_or_units_and_the_trials_before_them(
    text: str, units: int, trials: int, shown: str
) -> None:
    assert Growth.parse(text) == Growth(units, trials)
    assert str(Growth.parse(text)) == shown
    assert Growth.parse(shown) == Growth(units, trials)
    assert Config(growth=text).growth == shown


def test_growth_may_have_several_stages_each_of_a_run_of_its_own() -> None:
    growth = Growth.parse("128@2e7,256@4e8,512@9")

    assert growth == Growth(128, 20_000_000, "256@400000000,512@9")
    assert str(growth) == "128@20000000,256@400000000,512@9"
    assert Growth.parse(growth.later) == Growth(256, 400_000_000, "512@9")
    assert [Growth.parse(text).largest for text in (str(growth), "7@5", "none")] == [
        *(512, 7, 0),
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("", "None", "auto", "128", "128@", "@5", "@", "4e8@128@5", "x@5", "64@x"),
        *("0@5", "-1@5", "4097@5", "1.5@5", "128@0", "128@-1", "128@0.9"),
        *("128@inf", "128@-inf", "128@nan", "128@1e400", "128@1000000000000001"),
        *(f"128@{'9' * 5000}", f"{'9' * 5000}@5"),
        *("128@5,", ",128@5", "128@5,none", "none,128@5", "128@5,x@5", "128@5;256@5"),
        *("128@5,128@9", "256@5,128@9", "64@5,256@5,128@9", "128@5,256@0"),
        ",".join(f"{units}@5" for units in range(1, 10)),
    ],
)
def test_any_other_growth_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(growth=text)

    assert str(caught.value) == (
        "growth: expected none, or units and the trials after which there are so many, "
        "such as 128@3e8 or 128@2e7,256@4e8, more of them each time, "
        f"got {text}"
    )


@pytest.mark.parametrize("value", [None, 128, 4e8, True, ["128@5"]])
def test_a_growth_that_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^growth: expected "):
        from_json({"growth": value})


def test_growth_is_due_once_there_are_the_trials_and_fewer_units() -> None:
    growth = Growth.parse("128@1000")

    assert [growth.due(64, trials, 1) for trials in (0, 999, 1000, 1001)] == [
        *(False, False),
        *(True, True),
    ]
    assert growth.due(127, 1000, 1)
    assert not growth.due(128, 10**9, 1)
    assert not growth.due(256, 10**9, 1)
    assert not Growth().due(1, 10**9, 1)


def test_of_a_step_no_more_trials_count_for_growth_than_its_rate_grows_with() -> None:
    growth = Growth.parse("128@131073")  # two steps of 65,536, and one trial

    assert [growth.due(64, 10**9, steps) for steps in (0, 1, 2, 3)] == [
        *(False, False, False),
        True,
    ]
    assert not growth.due(64, 131_072, 3)

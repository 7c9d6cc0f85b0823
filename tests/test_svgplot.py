import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utilities.curves import Curves
from utilities.plots import Level
from utilities.svgplot import HEIGHT, WIDTH, loss_svg

NS = "{http://www.w3.org/2000/svg}"


def logs(losses: list[float], validations: dict[int, float] | None = None) -> Curves:
    found = validations or {}
    lines = [
        {
            "step": i,
            "clients": 1,
            "seconds": i + 1.0,
            "trials": 100,
            "validationLoss": found.get(i),
        }
        for i in range(len(losses))
    ]
    return Curves(0, 0, lines, np.array(losses, np.float64))


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def paths(svg: str, kind: str) -> list[str]:
    return [
        str(path.get("d"))
        for path in parsed(svg).iter(f"{NS}path")
        if str(path.get("class")).split()[0] == kind
    ]


def words(svg: str) -> list[str]:
    return ["".join(text.itertext()) for text in parsed(svg).iter(f"{NS}text")]


def test_a_picture_is_a_document_that_needs_nothing_else() -> None:
    svg = loss_svg([("run 7", logs([3.0, 2.5, 2.0], {1: 2.75}))], "step")
    root = parsed(svg)

    assert root.get("viewBox") == f"0 0 {WIDTH} {HEIGHT + 20}"
    assert root.get("aria-label") == "Loss of run 7"
    assert "run 7" in words(svg)
    assert "nats per character" in words(svg)
    assert "bits per character" in words(svg)
    assert "step" in words(svg)
    outside = re.findall(r"(?:href|src|url|@import|https?:)[^ ]*", svg)
    assert outside == ['http://www.w3.org/2000/svg"'[:-1] + '"']
    assert "prefers-color-scheme:dark" in svg


def test_curves_lie_where_their_figures_say() -> None:
    # 632 units wide, 348 high; the range 2 ... 3 has 3 % above and below.
    svg = loss_svg([("a", logs([3.0, 2.0], {1: 2.5}))], "step")

    high, low = 348 * 0.03 / 1.06, 348 * 1.03 / 1.06
    assert paths(svg, "middle") == [f"M0.0 {high:.1f}L632.0 {low:.1f}"]
    assert paths(svg, "raw") == paths(svg, "middle")
    circle = next(parsed(svg).iter(f"{NS}circle"))
    assert (circle.get("cx"), circle.get("cy")) == ("632.0", "174.0")


def test_of_many_validations_some_are_dots_the_newest_among_them() -> None:
    validations = {i: 3.0 - i / 1000 for i in range(0, 500, 2)}
    svg = loss_svg([("a", logs([2.75] * 500, validations))], "step")
    circles = list(parsed(svg).iter(f"{NS}circle"))

    assert len(circles) == 50
    assert circles[0].get("cx") == f"{498 / 499 * 632:.1f}"
    assert paths(svg, "join")[0].count("L") == 249


def test_missing_figures_are_gaps_and_a_lone_one_is_a_dot() -> None:
    svg = loss_svg([("a", logs([3.0, math.nan, 2.0, math.nan, 2.0, 3.0]))], "step")

    assert [part[0] for part in re.findall("[ML]", paths(svg, "middle")[0])] == list(
        "MMML"
    )
    assert paths(svg, "middle")[0].count("h0") == 2


def test_numbers_at_both_sides_are_the_same_losses() -> None:
    svg = loss_svg([("a", logs([4.0, 2.0]))], "step")
    nats, in_bits = {}, {}
    for text in parsed(svg).iter(f"{NS}text"):
        place = float(text.get("y", "0"))
        if text.get("text-anchor") == "end":
            nats[text.text] = place
        elif float(text.get("x", "0")) > WIDTH - 64:
            in_bits[text.text] = place

    assert list(nats) == ["2.0", "2.5", "3.0", "3.5", "4.0"]
    assert list(in_bits) == ["3.0", "3.5", "4.0", "4.5", "5.0", "5.5"]
    # 3 nats are 4.328 bits.
    share = (4.328 - 4.0) / 0.5
    between = in_bits["4.0"] + share * (in_bits["4.5"] - in_bits["4.0"])
    assert nats["3.0"] == pytest.approx(between, abs=0.2)


def test_levels_are_named() -> None:
    levels = [Level("by pairs", 2.5), Level("top", 3.02), Level("far", 9.0)]
    svg = loss_svg([("a", logs([3.0, 2.0]))], "step", levels)

    assert "by pairs" in words(svg)
    assert "far" not in words(svg)
    assert len(paths(svg, "level")) == 2
    ys = [
        float(t.get("y", "0")) for t in parsed(svg).iter(f"{NS}text") if t.text == "top"
    ]
    assert 0 < ys[0] < 20


def test_many_runs_have_colours_in_turn_and_a_legend_of_several_rows() -> None:
    runs = [(f"run {i}: a long name of a text", logs([3.0, 2.0])) for i in range(9)]
    svg = loss_svg(runs, "step")
    classes = {str(line.get("class")) for line in parsed(svg).iter(f"{NS}line")}

    assert len(classes) == 7
    assert int(parsed(svg).get("height", "0")) > HEIGHT + 40
    assert sum("a long name" in text for text in words(svg)) == 9


def test_names_are_text_whatever_they_hold() -> None:
    name = '<script>alert(1)</script> & "quotes"'
    svg = loss_svg([(name, logs([2.0]))], "step", [Level("<b>", 2.0)])

    assert name in words(svg)
    assert "<b>" in words(svg)
    assert "<script" not in svg


def test_what_xml_does_not_allow_is_replaced() -> None:
    svg = loss_svg([("a\x1b\x00\udcffb", logs([2.0]))], "step")

    assert "a???b" in words(svg)
    svg.encode("utf-8")


@pytest.mark.parametrize("by", ["step", "time", "trials"])
def test_an_empty_run_says_so(by: str) -> None:
    svg = loss_svg([("a", logs([]))], by)

    assert "no loss yet" in words(svg)
    assert paths(svg, "middle") == []
    assert list(parsed(svg).iter(f"{NS}circle")) == []


@settings(deadline=None)
@given(
    st.lists(st.floats(), max_size=30),
    st.dictionaries(st.integers(0, 29), st.floats()),
    st.sampled_from(["step", "time", "trials"]),
)
def test_every_log_gives_a_picture_with_places_that_are_numbers(
    losses: list[float], validations: dict[int, float], by: str
) -> None:
    svg = loss_svg([("a", logs(losses, validations))], by)
    parsed(svg)

    assert "nan" not in svg
    assert "inf" not in svg

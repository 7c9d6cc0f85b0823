"""The page in a real browser, over runs that have ended: figures, gaps, sizes, keys."""

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Tab, chromium
from tests.processes_under_test import PATIENCE, until
from tests.small_runs import CONFIG, metrics, new_run
from utilities.feed import MOST_POINTS
from utilities.page import Page
from utilities.pageserver import page_open
from utilities.plots import Level
from utilities.runlogs import RunLog
from utilities.runs import Run, RunStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(6 * PATIENCE)]

LEVELS = (Level("guessing evenly", 4.0), Level("by frequency", 3.0))
STEPS = 40_000
# How many pixels of a chart's plot are drawn upon, column by column.
INK = """id => {
  const canvas = document.querySelector(`#${id} canvas`);
  const plot = document.querySelector(`#${id} .u-over`);
  const scale = canvas.width / canvas.clientWidth;
  const [left, top, width, height] =
    [plot.offsetLeft, plot.offsetTop, plot.offsetWidth, plot.offsetHeight]
      .map(n => Math.floor(n * scale));
  const pixels = canvas.getContext('2d').getImageData(left, top, width, height).data;
  return [...Array(width).keys()].map(x => {
    let ink = 0;
    for (let y = 0; y < height; y++) ink += pixels[4 * (y * width + x) + 3] > 200;
    return ink;
  });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def long_run(root: Path) -> Run:
    """Return a run of a night, with stretches in which things are missing."""
    run = new_run(root, text_name="A <i>long</i> run")
    run_log = RunLog(run, clock=lambda: 0.0)
    for step in range(STEPS):
        recorded = {} if 20_000 < step < 24_000 else {"trial_seconds": 0.375}
        run_log.append_step(
            metrics(
                step,
                loss=None if 10_000 <= step < 15_000 else 2 + 1.5 / (1 + step / 500),
                validation_loss=2 + 1.5 / (1 + step / 500) if step % 500 == 0 else None,
                update_seconds=0.0625,
                gradient_quality=0.05,
                **recorded,
            )
        )
    run_log.close()
    for step in (0, 1000, 39_000):
        run_log.append_sample(step, f"written at {step} <b>")
    return run


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("runs")
    with long_run(root):
        new_run(root, config=replace(CONFIG, sigma=0.5)).close()
        page = Page(RunStore(root), time.monotonic, known=lambda _run: LEVELS)
        with page_open(page, "127.0.0.1", 0) as server:
            yield f"http://127.0.0.1:{server.port}/"


@pytest.fixture
def tab(browser: Any, url: str) -> Iterator[Tab]:
    tab = Tab(browser, PATIENCE, viewport={"width": 1280, "height": 900})
    yield tab
    assert tab.complaints == []
    assert tab.hosts() == {url.split("/")[2]}
    tab.page.close()


def opened(tab: Tab, url: str, words: str = "run=0") -> None:
    tab.page.goto(f"{url}#{words}")
    until(tab.points, "the curve")
    until(lambda: "by frequency" in tab.text("#levels"), "the levels")


def test_a_nights_run_is_shown_with_its_gaps(tab: Tab, url: str) -> None:
    opened(tab, url)

    assert tab.step == STEPS
    assert 500 < tab.points() <= MOST_POINTS
    assert tab.text("#about").startswith("A <i>long</i> run · rnn 1 × 4")
    assert tab.page.title() == "Run 0: A <i>long</i> run"
    # Nothing is drawn where the seconds of trials were not recorded.
    ink = tab.page.evaluate(INK, "time")
    place = len(ink) * 22 // 40
    assert max(ink[place - 4 : place + 4]) <= 8  # but for the grid
    assert min(ink[len(ink) // 10 : len(ink) * 4 // 10]) > 50


def test_losses_are_in_nats_or_bits_over_steps_time_or_trials(
    tab: Tab, url: str
) -> None:
    opened(tab, url)
    nats = float(tab.figure("Validation, nats"))
    tab.page.get_by_text("bits", exact=True).first.click()
    until(lambda: tab.page.locator("text=Validation, bits").count(), "bits")

    assert float(tab.figure("Validation, bits")) == pytest.approx(
        nats / math.log(2), abs=0.002
    )
    assert f"by frequency {3 / math.log(2):.3f}" in tab.text("#levels")
    tab.page.get_by_text("time", exact=True).first.click()
    until(lambda: "time trained" in tab.text("#loss .u-legend"), "time")
    tab.page.get_by_text("trials", exact=True).first.click()
    until(lambda: "time trained" not in tab.text("#loss .u-legend"), "trials")
    tab.page.get_by_label("log", exact=True).check()
    tab.page.get_by_label("baselines").uncheck()
    assert tab.points() > 500
    # The address keeps all that, and whom it is sent to sees the same.
    words = tab.page.evaluate("location.hash").lstrip("#")
    assert set(words.split("&")) == {"run=0", "unit=bits", "by=trials", "log=1"}
    tab.page.goto("about:blank")
    opened(tab, url, words)
    assert tab.page.locator("input[value=bits]").is_checked()
    assert tab.page.locator("#log").is_checked()


def test_samples_lie_under_a_slider(tab: Tab, url: str) -> None:
    opened(tab, url)
    until(lambda: "39,000" in tab.text("#sample-step"), "the newest sample")
    assert tab.text("#sample") == "written at 39000 <b>"
    slider = tab.page.locator("#sample-slider")
    slider.focus()
    slider.press("ArrowLeft")
    assert tab.text("#sample") == "written at 1000 <b>"
    slider.press("Home")
    assert tab.text("#sample-step") == "step 0"
    assert slider.get_attribute("aria-valuetext") == "step 0"


def test_another_run_is_shown_by_choosing_it(tab: Tab, url: str) -> None:
    tab.page.goto(url)  # the newest one has no step yet
    until(lambda: tab.text("#loss") == "nothing yet", "the newest run")
    assert tab.page.locator("#run").input_value() == "1"
    tab.page.locator("#run").select_option("0")
    until(lambda: tab.points() > 500, "the curve")
    assert "run=0" in tab.page.evaluate("location.hash")


def test_who_looks_at_a_run_that_has_ended_gets_the_next_one(
    tmp_path: Path, browser: Any
) -> None:
    new_run(tmp_path).close()
    page = Page(RunStore(tmp_path), time.monotonic, known=lambda _run: ())
    with page_open(page, "127.0.0.1", 0) as server:
        tab = Tab(browser, PATIENCE)
        tab.page.clock.install()
        tab.page.goto(f"http://127.0.0.1:{server.port}/")
        until(lambda: tab.text("#status") == "not running", "the first run")
        new_run(tmp_path).close()
        tab.page.clock.fast_forward(11_000)
        until(lambda: tab.page.title().startswith("Run 1:"), "the second run")
        assert tab.complaints == []
        tab.page.close()


def test_overlays_can_be_in_the_address(tab: Tab, url: str) -> None:
    opened(tab, url, "run=0&with=1")

    until(lambda: "run 1 median" in tab.text("#loss .u-legend"), "the other run")
    rows = tab.page.locator("#differences tr.differs").all_inner_texts()
    assert [re.split(r"\s+", row) for row in rows] == [["sigma", "0.02", "0.5"]]


def test_a_run_that_is_not_there_is_said(tab: Tab, url: str) -> None:
    tab.server_is_gone = True  # the browser complains of an answer that says no
    tab.page.goto(f"{url}#run=7")
    until(lambda: "run 7" in tab.text("#trouble"), "the reason")
    tab.complaints = [c for c in tab.complaints if "404" not in c]


def test_all_can_be_reached_with_the_keyboard(tab: Tab, url: str) -> None:
    opened(tab, url)
    reached = []
    for _ in range(30):
        tab.page.keyboard.press("Tab")
        reached.append(
            tab.page.evaluate(
                "document.activeElement.id || document.activeElement.name || "
                "document.activeElement.tagName"
            )
        )
        seen = tab.page.evaluate(
            "(e => getComputedStyle(e).outlineStyle !== 'none' || "
            "getComputedStyle(e.nextElementSibling ?? e).outlineStyle !== 'none')"
            "(document.activeElement)"
        )
        assert seen or reached[-1] == "BODY", reached[-1]
    for name in (
        "run",
        "unit",
        "by",
        "log",
        "baselines",
        "loss",
        "rate",
        "sample-slider",
    ):
        assert name in reached, name

    tab.page.locator("#loss").focus()
    before = tab.text("#loss .u-legend")
    for _ in range(10):
        tab.page.keyboard.press("ArrowLeft")
    assert tab.text("#loss .u-legend") != before


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_small_and_large_windows_by_day_and_night(
    width: int, scheme: str, browser: Any, url: str
) -> None:
    size = {"width": width, "height": 800}
    tab = Tab(browser, PATIENCE, viewport=size, color_scheme=scheme)
    opened(tab, url, "run=0&with=1")
    until(lambda: tab.page.locator("#differences tr.differs").count(), "the keys")

    inside = tab.page.evaluate(
        "[...document.querySelectorAll('.card, canvas, header, #figures > div')]"
        ".every(e => e.getBoundingClientRect().left >= 0 && "
        "e.getBoundingClientRect().right <= innerWidth)"
    )
    assert inside
    assert tab.page.evaluate("document.documentElement.scrollWidth") == width
    paper = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = max(map(int, re.findall(r"\d+", paper)))
    assert (brightness < 60) == (scheme == "dark")
    # Text is told from what is behind it: at least 4.5 to 1.
    assert tab.page.evaluate(_CONTRAST) >= 4.5
    assert tab.complaints == []
    tab.page.close()


_CONTRAST = """(() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = e => {
    for (; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (!colour.endsWith(', 0)')) return colour;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  const texts = [...document.querySelectorAll('body *')].filter(e =>
    e.offsetParent && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  return Math.min(...texts.map(e => {
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
})()"""


def test_the_clients_line_can_be_copied(tmp_path: Path, browser: Any) -> None:
    line = "python basicClient.py 10.0.0.1:55551"
    with new_run(tmp_path) as run:
        session = {"time": time.time(), "state": "training", "step": 3, "join": [line]}
        (run.path / "session.json").write_text(json.dumps({**session, "clients": []}))
        page = Page(RunStore(tmp_path), time.monotonic, known=lambda _run: ())
        with page_open(page, "127.0.0.1", 0) as server:
            tab = Tab(browser, PATIENCE)
            address = f"http://127.0.0.1:{server.port}"
            tab.page.context.grant_permissions(
                ["clipboard-read", "clipboard-write"], origin=address
            )
            tab.page.goto(address)
            tab.page.get_by_role("button", name="Copy").click()
            until(lambda: tab.text("#join button") == "Copied", "the copy")
            assert tab.page.evaluate("navigator.clipboard.readText()") == line
            assert tab.complaints == []
            tab.page.close()


def test_files_can_be_kept(tab: Tab, url: str) -> None:
    opened(tab, url)
    for words, name in (("metrics", "run-0-metrics.csv"), ("loss", "run-0-loss.svg")):
        with tab.page.expect_download() as waiting:
            tab.page.locator("#files").get_by_text(words).click()
        assert waiting.value.suggested_filename == name
        assert Path(waiting.value.path()).stat().st_size > 1000


def test_the_end_of_a_session_is_foretold(browser: Any, tmp_path: Path) -> None:
    with new_run(tmp_path) as run:
        now = time.time()
        session = {"time": now + 10, "state": "training", "step": 3, "join": []}
        ends = {"endStep": 1000, "endTime": now + 3600 * 5.5}
        (run.path / "session.json").write_text(json.dumps({**session, **ends}))
        page = Page(RunStore(tmp_path), time.monotonic, known=lambda _run: LEVELS)
        with page_open(page, "127.0.0.1", 0) as server:
            tab = Tab(browser, PATIENCE, viewport={"width": 360, "height": 700})
            tab.page.goto(f"http://127.0.0.1:{server.port}/")
            until(lambda: "ends in about 5 h" in tab.text("#figures"), "the end")
            assert "of 1,000" in tab.text("#figures")
            tab.page.close()

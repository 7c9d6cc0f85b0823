"""A report as a browser on a small screen lays it out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium
from tests.small_runs import NOW, trained_run
from utilities.credits import Credit
from utilities.inspect.report import Content, report_html
from utilities.inspect.summary import look

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# Pixels of a table that are out of sight.
HIDDEN = """() => Math.max(...[...document.querySelectorAll('div.wide')]
  .filter(box => box.querySelector('table'))
  .map(box => box.scrollWidth - box.clientWidth))"""
LINE = """() => {
  const pre = document.querySelector('.wide pre'), range = document.createRange();
  range.selectNodeContents(pre);
  return new Set([...range.getClientRects()].map(box => box.top)).size;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def test_tables_of_a_report_fit_a_telephone(tmp_path: Path, browser: Any) -> None:
    with trained_run(tmp_path, 30) as run:
        content = Content(
            overview=look(run),
            now=NOW + 300,
            date="2026-01-02 03:04",
            levels=(),
            prompt="",
            samples=(),
            credits=[Credit("local-1", 639_120, 233, 60.0)],
            forecast=[" nats   bits  in  80% of curves " + 60 * "x", "2.1  3.1  5 s"],
        )
    page = browser.new_page(viewport={"width": 360, "height": 740})
    file = tmp_path / "report.html"
    file.write_text(report_html(content), encoding="utf-8")
    page.goto(file.as_uri())

    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(HIDDEN) <= 0
    assert page.evaluate(LINE) == 2  # as many as there are
    heights = page.locator("td.n").evaluate_all("c => c.map(x => x.clientHeight)")
    assert len(heights) == 4
    assert max(heights) < 30  # one line each
    page.close()

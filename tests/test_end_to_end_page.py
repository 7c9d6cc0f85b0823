"""The live page in a real browser, of a real server with real clients."""

import re
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser import Tab, chromium
from tests.processes_under_test import CLIENT, PATIENCE, Lab, Program, until
from utilities.sessionfiles import read_events

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(8 * PATIENCE),
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals"),
]

PLACE = re.compile(r"^The page: (http://127\.0\.0\.1:(\d+)/)", re.MULTILINE)
SCRIPT = "<script>alert(1)</script>"
IMAGE = '<img src=/x onerror="alert(2)">'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def with_page(lab: Lab, line: str, port: int = 0) -> tuple[Program, str]:
    """Start a server and return it with the address of its page."""
    server = lab.server(f"{lab.small} --page {port} {line}")
    return server, server.has_said(PLACE.pattern)[1]


def ended_run(lab: Lab) -> None:
    """Leave a short run behind, number 0."""
    line = f"{lab.small} --localClients 1 --maxSteps 12 --sigma 0.05"
    assert lab.server(line).ended() == 0


def test_the_page_grows_with_the_run_and_survives_a_restart(
    lab: Lab, browser: Any
) -> None:
    ended_run(lab)
    server, url = with_page(lab, "--checkPointTime 1")
    for name in (SCRIPT, IMAGE):
        address = f"127.0.0.1:{server.port}"
        lab.start("client", CLIENT, address, *lab.code, "--name", name)
    tab = Tab(browser, PATIENCE)
    tab.page.goto(url)

    # It grows.
    until(lambda: tab.page.locator("#figures dd").count(), "a figure")
    first = until(lambda: tab.step, "a step")
    until(lambda: tab.step > first + 5 and tab.points() > 5, "growth")
    assert tab.text("#status") == "training"

    # Names are text.
    until(lambda: tab.page.locator("#clients tbody tr").count() == 2, "two clients")
    names = tab.page.locator("#clients tbody th > span:nth-child(2)").all_inner_texts()
    assert sorted(names) == sorted([SCRIPT, IMAGE])
    assert tab.page.locator("main img, main script").count() == 0
    assert f"{SCRIPT} joined" in tab.text("#events")

    # One of them goes.
    lab.programs[-1].kill()
    until(lambda: f"{IMAGE} left" in tab.text("#events"), "the news")
    rows = tab.page.locator("#clients tbody tr:not(.gone)")
    until(lambda: rows.count() == 1, "one client")

    # A second run is laid over it, and what differs is marked.
    tab.page.locator("summary").click()
    tab.page.get_by_label(re.compile("^0 ·")).check()
    until(lambda: "run 0 median" in tab.text("#loss"), "a second curve")
    differing = tab.page.locator("#differences tr.differs th").all_inner_texts()
    assert "sigma" in differing

    # The server goes and comes again, at the same port.
    tab.server_is_gone = True
    server.signal(signal.SIGINT)
    assert server.ended() == 0
    until(lambda: tab.text("#status").startswith("not connected"), "the loss")
    before = tab.step
    port = int(PLACE.search(server.out)[2])  # type: ignore[index]
    server, again = with_page(lab, "--resume --localClients 1", port)
    assert again == url
    until(lambda: tab.text("#status") == "training", "the server")
    tab.server_is_gone = False
    until(lambda: tab.step > before + 3, "new steps")

    # All that happened is in the run's folder.
    kinds = [event["kind"] for event in read_events(lab.runs / "1")]
    assert kinds[0] == "session"
    assert {"join", "leave", "checkpoint"} <= {*kinds}
    assert tab.text("#events").count("the run begins") == 1
    assert tab.text("#events").count("the run goes on") == 1

    assert tab.complaints == []
    assert tab.hosts() == {f"127.0.0.1:{port}"}

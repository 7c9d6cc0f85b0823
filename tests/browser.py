"""A real Chromium without a window, for tests of the live page.

It is the system's own, driven by Playwright (requirements-dev.txt), which downloads
none. Where either is missing, the tests skip and say so.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Nothing of the browser's own is to be loaded: what it asks for is the page's doing.
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update"),
)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser; skip the test where there is none."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="no Playwright: requirements-dev.txt has it"
    )
    path = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, NAMES)), None
    )
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium, or CHROMIUM=its path")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


class Tab:
    """A tab, all that it asks for and all that it complains about."""

    def __init__(self, browser: Any, patience: float, **settings: Any) -> None:
        """Open it.

        Args:
            browser: as `chromium` gives it.
            patience: seconds until what is waited for has to be there.
            settings: of the tab, as Playwright knows them.
        """
        self.page = browser.new_page(**settings)
        self.page.set_default_timeout(1000 * patience)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.server_is_gone = False  # then it may say that it reaches nobody
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self._dialog(dialog))
        self.page.on("console", self._console)

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, message: Any) -> None:
        expected = self.server_is_gone and "net::ERR_" in message.text
        if message.type in ("error", "warning") and not expected:
            self.complaints.append(message.text)

    def hosts(self) -> set[str]:
        """Return whom it has asked for anything."""
        return {urlsplit(url).netloc for url in self.asked}

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).inner_text())

    def figure(self, name: str) -> str:
        """Return the figure below a name, without the small print."""
        found = self.page.locator(f"#figures div:has(dt:text-is('{name}')) dd")
        return str(found.inner_text()).split("\n")[0]

    @property
    def step(self) -> int:
        return int(self.figure("Step").replace(",", ""))

    def points(self, chart: str = "loss") -> int:
        return int(self.page.locator(f"#{chart}").get_attribute("data-points") or 0)

    def waits_for(self, condition: str) -> None:
        """Wait until a condition in JavaScript holds."""
        self.page.wait_for_function(condition)

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.small_runs import NOW, new_run, trained_run
from utilities.config import KEYS
from utilities.credits import Credit
from utilities.inspect.report import Content, report_html
from utilities.inspect.samples import Sample
from utilities.inspect.summary import look
from utilities.plots import Level

EVIL = "<script>alert(1)</script>\"'&\x1b[2J"


class Page(HTMLParser):
    """What a browser would make of a page: tags, and text by tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(
        self, tag: str, attributes: list[tuple[str, str | None]]
    ) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.texts.append((self.tags[-1][0] if self.tags else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def words(self) -> str:
        kept = (data for tag, data in self.texts if tag not in ("style", "script"))
        return " ".join(" ".join(kept).split())


@pytest.fixture
def content(tmp_path: Path) -> Content:
    with trained_run(tmp_path, 30) as run:
        return Content(
            overview=look(run),
            now=NOW + 300,
            date="2026-01-02 03:04",
            levels=[Level("by pairs", 2.5)],
            prompt="ab",
            samples=[Sample(1, " c\n<d>", "", 3.0), Sample(2, None, "they diverged")],
            credits=[Credit("lab-1", 300, 3, 60.0), Credit("lab-2", 100, 2, 20.0)],
            forecast=["in 5 min", "  rests on <it>"],
        )


def test_a_page_shows_all_there_is(content: Content) -> None:
    page = Page(report_html(content))
    words = page.words()

    assert "Run 0: Some prose" in words
    assert "Written 2026-01-02 03:04." in words
    assert "trials 30,720" in words
    assert "by pairs 2.500 (3.607)" in words
    assert "step 1, validation loss 3.000 nats (4.328 bits) ab c <d>" in words
    assert "step 2 they diverged" in words
    assert "in 5 min rests on <it>" in words
    assert "lab-1 3 300 75.0% 75.0% lab-2 2 100 25.0% 25.0%" in words
    assert len(page.all("svg")) == 2 * 3
    assert [tab.get("id") for tab in page.all("input")] == [
        "by0",
        "by1",
        "by2",
        "slider",
    ]
    assert "checked" in page.all("input")[0]
    for key in KEYS:
        assert f" {key} " in words
    assert page.all("tr")[-len(KEYS) :].count({"class": "differs"}) == 4


def test_a_page_needs_nothing_else_and_runs_its_own_script_only(
    content: Content,
) -> None:
    html = report_html(content)
    page = Page(html)

    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "base", "object", "form")
        assert not {"src", "href", "onclick", "onload", "style"} & attributes.keys(), (
            tag
        )
    assert set(re.findall(r"https?://[^\"' ]*", html)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in html
    assert "@import" not in html
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_what_others_have_chosen_stays_text(tmp_path: Path) -> None:
    with new_run(tmp_path, text_name=EVIL, program=EVIL) as run:
        content = Content(
            overview=look(run),
            now=NOW,
            date=EVIL,
            levels=[Level(EVIL, 2.5)],
            prompt=EVIL,
            samples=[Sample(1, EVIL)],
            credits=[Credit(EVIL, 1, 1, 1.0)],
            forecast=[EVIL],
        )
        html = report_html(content)
    page = Page(html)

    assert len(page.all("script")) == 1
    assert html.count("<script") == 1
    assert "\x1b" not in html
    assert "<script>alert(1)</script>\"'&?[2J" in page.words()


def test_what_a_run_lacks_is_left_out(content: Content) -> None:
    nothing = replace(
        content, levels=[], samples=[], credits=[], forecast=[], prompt=""
    )
    words = Page(report_html(nothing)).words()

    for title in ("Watch it learn", "Forecast", "Machines", "For comparison"):
        assert title not in words
    assert "Loss" in words
    assert "Configuration" in words


def test_an_empty_prompt_is_said(content: Content) -> None:
    page = Page(report_html(replace(content, prompt="")))

    assert "What it writes from nothing" in page.words()


def test_machines_without_trials_have_no_share(content: Content) -> None:
    idle = replace(content, credits=[Credit("lab-1", 0, 0, 0.0)])

    assert "lab-1 0 0 0.0% 0.0%" in Page(report_html(idle)).words()

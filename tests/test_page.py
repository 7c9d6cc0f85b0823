import json
import re
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.small_runs import CONFIG, metrics, new_run, trained_run
from utilities.downloads import ROUTES
from utilities.errors import RunError
from utilities.page import (
    HEADERS,
    MOST_FEEDS,
    QUIET_SECONDS,
    WEB,
    Answer,
    Page,
    Stream,
    event,
    host_name,
    machine_names,
    welcome,
)
from utilities.runs import Run, RunStore

HERE = "127.0.0.1:55580"


class Turns(threading.Event):
    """Ends streams by itself after some turns, and takes no time."""

    def __init__(self, turns: int = 3) -> None:
        super().__init__()
        self.left = turns

    def wait(self, timeout: float | None = None) -> bool:
        self.left -= 1
        if self.left <= 0:
            self.set()
        return self.is_set()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    with trained_run(tmp_path):
        yield tmp_path


@pytest.fixture
def page(root: Path) -> Page:
    page = Page(RunStore(root), Clock(), names={"Lab-Host"}, known=lambda _run: ())
    page.closing = Turns()
    return page


def got(page: Page, target: str, host: str | None = HERE) -> Answer:
    answer = page.answer("GET", target, host)
    assert isinstance(answer, Answer)
    return answer


def data(page: Page, target: str) -> Any:
    answer = got(page, target)
    assert answer.status == 200, answer.body
    assert answer.kind == "application/json"
    return json.loads(answer.body)


def events(page: Page, target: str) -> list[tuple[str, Any]]:
    """Return names and contents of what a stream gives until it ends."""
    stream = page.answer("GET", target, HERE)
    assert isinstance(stream, Stream)
    assert stream.kind.startswith("text/event-stream")
    text = b"".join(stream.pieces).decode()
    found = re.findall(r"^event: (\w+)\ndata: (.*)$", text, re.MULTILINE)
    return [(name, json.loads(content)) for name, content in found]


# Who may ask.


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost", "localhost"),
        ("LocalHost:80", "localhost"),
        ("127.0.0.1:55580", "127.0.0.1"),
        ("[::1]:55580", "::1"),
        ("[fe80::1]", "fe80::1"),
        ("lab_host.local:5", "lab_host.local"),
        ("", None),
        ("a b", None),
        ("localhost:port", None),
        ("localhost/../", None),
        ("[localhost]", None),
        ("me@localhost", None),
        ("localhost\n", None),
    ],
)
def test_a_host_header_is_a_name_with_or_without_a_port(
    header: str, name: str | None
) -> None:
    assert host_name(header) == name


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("localhost:55580", True),
        ("192.168.1.10", True),
        ("[2001:db8::1]:55580", True),
        ("LAB-host:55580", True),
        (None, False),
        ("", False),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("lab-host.evil.example", False),
        ("127.1", False),
    ],
)
def test_only_addresses_and_names_of_this_machine_are_welcome(
    header: str | None, taken: bool, page: Page
) -> None:
    assert welcome(header, {"Lab-Host"}) == taken
    assert got(page, "/runs", header).status == (200 if taken else 421)
    for route in ROUTES:
        assert got(page, f"{route}?run=0", header).status == (200 if taken else 421)
    live = page.answer("GET", "/live?run=0", header)
    assert isinstance(live, Stream) == taken


def test_a_machine_is_known_by_its_name_and_what_it_listens_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.node", lambda: "desk")
    assert machine_names("10.0.0.1") == {"10.0.0.1", "desk", "desk.local"}
    monkeypatch.setattr("platform.node", lambda: "")
    assert machine_names("") == set()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", "BREW"])
def test_the_page_is_only_read(method: str, page: Page) -> None:
    answer = page.answer(method, "/", HERE)

    assert isinstance(answer, Answer)
    assert answer.status == 405
    assert answer.headers == {"Allow": "GET, HEAD"}
    head = page.answer("HEAD", "/", HERE)
    assert isinstance(head, Answer)
    assert head.status == 200


# Files.


def test_routes_give_their_files(page: Page) -> None:
    for route, name, kind in (
        ("/", "index.html", "text/html"),
        ("/page.js", "page.js", "text/javascript"),
        ("/page.css", "page.css", "text/css"),
        ("/icon.svg", "icon.svg", "image/svg+xml"),
        ("/uplot.js", "uplot/uPlot.iife.min.js", "text/javascript"),
    ):
        answer = got(page, route)
        assert answer.status == 200
        assert answer.kind.split(";")[0] == kind
        assert answer.body == (WEB / name).read_bytes()


@pytest.mark.parametrize(
    "target",
    [
        "/index.html",
        "/../config.json",
        "/..%2f..%2fetc/passwd",
        "/web/page.js",
        "/page.js/",
        "//page.js",
        "/0/config.json",
        "/uplot",
        "/favicon.ico",
    ],
)
def test_nothing_else_is_there(target: str, page: Page) -> None:
    assert got(page, target).status == 404


@pytest.mark.parametrize(
    "target", ["", "page.js", "http://a/", "*", "//[", "/" + "a" * 200]
)
def test_what_is_no_request_is_refused(target: str, page: Page) -> None:
    assert got(page, target).status == 400


@given(st.text(max_size=60))
def test_any_target_is_answered(
    tmp_path_factory: pytest.TempPathFactory, target: str
) -> None:
    page = Page(RunStore(tmp_path_factory.mktemp("none")), Clock())
    answer = page.answer("GET", f"/{target}", HERE)

    assert isinstance(answer, Answer)
    assert answer.status in (200, 400, 404)


def test_without_its_files_there_is_no_page(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("utilities.page.WEB", root)
    with pytest.raises(RunError, match=r"index\.html: cannot be read"):
        Page(RunStore(root), Clock())


def test_the_page_loads_nothing_from_elsewhere() -> None:
    ours = [path for path in WEB.iterdir() if path.is_file()]
    assert len(ours) == 5
    for path in ours:
        text = path.read_text(encoding="utf-8")
        places = set(re.findall(r"(?:https?:)?//[a-z][\w.-]+", text))
        assert places <= {"http://www.w3.org"}, path  # the name of SVG
    page = (WEB / "index.html").read_text(encoding="utf-8")
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert set(loaded) == {
        "/icon.svg",
        "/uplot.css",
        "/page.css",
        "/uplot.js",
        "/page.js",
    }
    assert not re.findall(r"<style|\son\w+=|\sstyle=|<script(?![^>]*src=)", page)


def test_the_script_never_makes_markup_of_text() -> None:
    for name in ("page.js", "charts.js"):
        text = (WEB / name).read_text(encoding="utf-8")
        assert not re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|"
            r"new Function|setAttribute\('(?:style|on|src|href)",
            text,
        )


def test_the_vendored_files_are_those_that_are_noted() -> None:
    folder = WEB / "uplot"
    notes = (folder / "README.txt").read_text(encoding="utf-8")
    noted = dict(reversed(x) for x in re.findall(r"^(\w{64})  (\S+)$", notes, re.M))
    found = {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "README.txt"
    }

    assert found == noted
    assert "LICENSE" in found
    assert "MIT" in notes
    assert re.search(r"uPlot \d+\.\d+\.\d+", notes)


def test_headers_let_nothing_in() -> None:
    policy = dict(
        part.strip().split(" ", 1)
        for part in HEADERS["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert HEADERS["X-Content-Type-Options"] == "nosniff"
    assert HEADERS["Referrer-Policy"] == "no-referrer"


# Runs.


def test_all_runs_are_listed_with_the_newest_first(page: Page, root: Path) -> None:
    with new_run(root, text_name="Other <b>prose</b>"):
        answer = data(page, "/runs")

    assert answer["newest"] == 1
    assert [entry["run"] for entry in answer["runs"]] == [1, 0]
    assert answer["runs"][0]["text"] == "Other <b>prose</b>"
    assert answer["runs"][1] == {
        "run": 0,
        "text": "Some prose",
        "model": f"rnn 1x{CONFIG.hidden_size}",
        "step": 101,
    }


def test_the_run_that_is_being_trained_is_the_first_to_show(
    page: Page, root: Path
) -> None:
    new_run(root).close()
    page.first = 0
    assert data(page, "/runs")["newest"] == 0
    page.first = 17  # it has been removed
    assert data(page, "/runs")["newest"] == 1


def test_where_there_is_no_run_none_is_listed(tmp_path: Path) -> None:
    page = Page(RunStore(tmp_path), Clock())
    assert data(page, "/runs") == {"newest": None, "runs": []}


def test_a_damaged_run_hides_no_other(page: Page, root: Path) -> None:
    new_run(root).close()
    (root / "1" / "config.json").write_text("{")

    assert [entry["run"] for entry in data(page, "/runs")["runs"]] == [0]


def test_a_list_entry_is_read_again_when_it_has_changed(
    page: Page, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data(page, "/runs")["runs"][0]["step"] == 101
    opened = []

    def opening(path: Path) -> Run:
        opened.append(path)
        return Run(path)

    monkeypatch.setattr("utilities.page.Run", opening)
    data(page, "/runs")
    assert opened == []
    config = root / "0" / "config.json"
    config.write_text(config.read_text().replace('"stepNum": 101', '"stepNum": 105'))

    assert data(page, "/runs")["runs"][0]["step"] == 105
    assert len(opened) == 1


def test_a_picture_is_of_the_run_that_is_asked_for(page: Page) -> None:
    picture = data(page, "/picture?run=0")

    assert picture == data(page, "/picture?run=0")
    assert picture["run"] == 0
    assert picture["validation"]["nats"] == [3.1, 2.25, 2.5]


@pytest.mark.parametrize(
    "query",
    ["", "run=", "run=x", "run=-1", "run=01", "run=7", "run=../0", "run=99999999999"],
)
@pytest.mark.parametrize("route", ["/picture", "/live", *ROUTES])
def test_a_run_that_is_not_there_is_named(route: str, query: str, page: Page) -> None:
    answer = got(page, f"{route}?{query}")

    assert answer.status == 404
    assert answer.kind.startswith("text/plain")


@pytest.mark.parametrize("route", ROUTES)
def test_files_are_kept_under_their_own_name(
    route: str, page: Page, root: Path
) -> None:
    answer = got(page, f"{route}?run=0&name=../../x")

    with RunStore(root).open(0, lock=False) as run:
        file = ROUTES[route](run)
    assert (answer.status, answer.kind) == (200, file.kind)
    kept = f'attachment; filename="{file.name}"'
    assert answer.headers == {"Content-Disposition": kept}
    assert re.fullmatch(r"[a-z0-9.-]+", file.name)
    assert answer.body == file.content


def test_a_run_without_weights_says_so(page: Page, root: Path) -> None:
    new_run(root).close()
    answer = got(page, "/weights.npz?run=1")

    assert answer.status == 404
    assert answer.kind.startswith("text/plain")
    assert "Content-Disposition" not in answer.headers


def test_a_query_of_many_fields_is_refused(page: Page) -> None:
    assert got(page, "/picture?a=1&b=1&c=1&d=1&e=1").status == 400


# Streams.


def test_a_stream_tells_all_and_then_what_is_new(page: Page, root: Path) -> None:
    told = events(page, "/live?run=0")
    names = [name for name, _ in told]

    assert names[:6] == ["run", "samples", "events", "clients", "head", "curves"]
    assert names.count("curves") == 1
    assert ("levels", {"levels": []}) in told


def test_a_stream_goes_on_as_the_run_grows(page: Page, root: Path) -> None:
    page.closing = Turns(4)
    stream = page.answer("GET", "/live?run=0", HERE)
    assert isinstance(stream, Stream)
    pieces = iter(stream.pieces)
    assert next(pieces).startswith(b"retry: ")
    assert b'"whole":true' in next(pieces)
    line = json.dumps(metrics(101).to_json())
    with (root / "0" / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with (root / "0" / "loss.txt").open("a") as file:
        file.write("2.009804\n")

    piece = next(pieces)
    assert b'"whole":false' in piece
    assert b'"step":[101.0]' in piece


def test_a_stream_that_has_nothing_to_tell_says_that_it_lives(page: Page) -> None:
    page.closing = Turns(3 * int(QUIET_SECONDS))
    stream = page.answer("GET", "/live?run=0", HERE)
    assert isinstance(stream, Stream)
    quiet = [piece for piece in stream.pieces if piece.startswith(b":")]

    # Two readings of the clock a turn: a comment for each five turns or so.
    assert 3 <= len(quiet) <= 8


def test_trouble_with_the_files_is_told_once_and_ends_when_it_is_mended(
    page: Page, root: Path
) -> None:
    config = root / "0" / "config.json"
    good = config.read_text()
    page.closing = Turns(20)
    stream = page.answer("GET", "/live?run=0", HERE)
    assert isinstance(stream, Stream)
    pieces = iter(stream.pieces)
    next(pieces)
    config.write_text("{")
    trouble = next(pieces)
    assert trouble.startswith(b"event: trouble\n")
    assert b"config.json" in trouble
    assert next(pieces).startswith(b":")  # for some turns there is nothing more to say
    config.write_text(good)
    assert b"event: head\n" in next(pieces)


def test_an_event_is_one_line_whatever_it_holds() -> None:
    whole = event("run", {"text": "a\nb\r\n\u2028data: c\n\n"})

    assert whole.startswith(b"event: run\ndata: {")
    assert whole.endswith(b"}\n\n")
    assert whole.count(b"\n") == 3


def test_few_runs_are_held_in_memory(page: Page, root: Path) -> None:
    for _ in range(MOST_FEEDS + 2):
        new_run(root).close()
    first = data(page, "/picture?run=0")
    for number in range(1, MOST_FEEDS + 3):
        data(page, f"/picture?run={number}")

    assert len(page._feeds) == MOST_FEEDS
    assert 0 not in page._feeds
    assert data(page, "/picture?run=0") == first

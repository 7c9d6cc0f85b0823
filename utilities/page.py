"""The live page: who may ask for what, and the answers. No connections.

    /            the page; its script, its style and its icon have routes of their own
    /runs        the runs that there are, newest first
    /picture     ?run=3: the curves and keys of a run, to lay over another one
    /live        ?run=3: server-sent events, for as long as somebody listens
    /metrics.csv, /loss.svg, /weights.npz    ?run=3: files to keep

Owns: routes, what each answers, the headers that keep other sites and what clients have
chosen from doing harm. Does not own: reading runs (`feed`), bytes and threads
(`pageserver`).

The idea: nothing that is asked for becomes a path. Routes are a table, a run is a
number that is looked up. Somebody's website may not read the page by having its own
name point here (DNS rebinding): the name that a browser believes to talk to has to be
an address or this machine. Whatever text the page gets, its policy runs no script but
its own, and loads nothing from elsewhere.
"""

import functools
import ipaddress
import json
import platform
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from utilities.downloads import ROUTES, Download
from utilities.errors import RunError, TrainingError
from utilities.feed import Cursor, Feed, Levels
from utilities.misc import Clock
from utilities.runfiles import reading
from utilities.runs import CONFIG, Run, RunStore
from utilities.yardsticks import levels

WEB = Path(__file__).resolve().parent / "web"
MOST_FEEDS = 16  # runs that are held in memory
MOST_RUNS = 500  # in the list
TURN_SECONDS = 1.0  # between two looks for news
QUIET_SECONDS = 10.0  # after which a comment says that the connection lives
RETRY_MILLISECONDS = 2000  # that a browser waits before it comes again
LONGEST_TARGET = 200  # characters
_NUMBER = re.compile("0|[1-9][0-9]{0,9}")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TEXT, _JSON = "text/plain; charset=utf-8", "application/json"
_EVENTS = "text/event-stream; charset=utf-8"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/uplot.js": ("uplot/uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    "/uplot.css": ("uplot/uPlot.min.css", "text/css; charset=utf-8"),
}


@dataclass(frozen=True)
class Answer:
    """What somebody gets who has asked."""

    status: int
    kind: str  # content type
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)  # beside `HEADERS`


@dataclass(frozen=True)
class Stream:
    """Pieces that somebody gets as they come."""

    pieces: Iterator[bytes]
    kind: str = _EVENTS


def refusal(status: int, text: str, **headers: str) -> Answer:
    """Return an answer that says in one line why there is none."""
    return Answer(status, _TEXT, f"{text}\n".encode(), headers)


def _as_json(content: object) -> bytes:
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def event(name: str, content: object) -> bytes:
    """Return a server-sent event; JSON has no line ends of its own."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), _as_json(content))


# Who may ask.


def host_name(header: str) -> str | None:
    """Return the name in a Host header, in lower case; None where it is none."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", header)
    return match[1].strip("[]").lower() if match else None


def welcome(header: str | None, names: Collection[str]) -> bool:
    """Return whether a Host header is one that a page of ours would send.

    Args:
        header: as it came.
        names: of this machine, beside localhost and addresses.
    """
    name = host_name(header or "")
    if name is None:
        return False
    if name == "localhost" or name in {known.lower() for known in names}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def machine_names(host: str) -> set[str]:
    """Return names that only this machine should have, by which it may be asked.

    Args:
        host: that the page listens on.
    """
    node = platform.node()
    return {host, node, f"{node}.local"} - {"", ".local"}


# What they get.

Asked: TypeAlias = dict[str, str]  # the query


def _run_number(asked: Asked) -> int:
    """Return the number of the run that is asked for.

    Raises:
        RunError: it is none.
    """
    text = asked.get("run", "")
    if not _NUMBER.fullmatch(text):
        raise RunError(f"expected a query like run=3, got run={text[:20]}")
    return int(text)


def _given(answer: Answer, _asked: Asked) -> Answer:
    return answer


class Page:
    """All answers about the runs below a folder; safe for threads."""

    def __init__(
        self,
        store: RunStore,
        clock: Clock,
        *,
        names: Collection[str] = (),
        known: Levels = levels,
    ) -> None:
        """Read the files of the page.

        Args:
            store: the runs.
            clock: for spans of time.
            names: of this machine, by which it may be asked.
            known: finds losses to compare with.

        Raises:
            RunError: a file of the page is missing.
        """
        self._store, self._clock, self._names = store, clock, frozenset(names)
        self.first: int | None = None  # run to show; None: the newest
        self.known = known
        self._feeds: dict[int, Feed] = {}
        self._lock = threading.Lock()
        self._listed: dict[int, tuple[float, dict[str, Any]]] = {}
        self.closing = threading.Event()  # streams end
        self._routes: dict[str, Callable[[Asked], Answer | Stream]] = {
            "/runs": self._runs,
            "/picture": self._picture,
            "/live": self._live,
        }
        for route, make in ROUTES.items():
            self._routes[route] = functools.partial(self._file, make)
        for route, (name, kind) in _FILES.items():
            with reading(WEB / name):
                answer = Answer(200, kind, (WEB / name).read_bytes())
            self._routes[route] = functools.partial(_given, answer)

    def answer(self, method: str, target: str, host: str | None) -> Answer | Stream:
        """Return what a request gets; whatever is wrong with it is said there.

        Args:
            method: ``GET`` or another one.
            target: path and query, as they came.
            host: the Host header.
        """
        if method not in ("GET", "HEAD"):
            return refusal(405, "this page is only read: GET", Allow="GET, HEAD")
        if not welcome(host, self._names):
            return refusal(421, "ask for this page by address, or as localhost")
        if len(target) > LONGEST_TARGET or not target.startswith("/"):
            return refusal(400, "no such request")
        try:
            parts = urlsplit(target)
        except ValueError:  # such as //[ that begins an address and does not end it
            return refusal(400, "no such request")
        route = self._routes.get(parts.path)
        if route is None:
            return refusal(404, "there is nothing here")
        try:
            return route(dict(parse_qsl(parts.query, max_num_fields=4)))
        except ValueError:
            return refusal(400, "too many fields")
        except TrainingError as error:
            return refusal(404, str(error))

    # Routes.

    def _runs(self, _asked: Asked) -> Answer:
        numbers = self._store.numbers()
        newest = max(numbers, default=None)
        content = {
            "newest": self.first if self.first in numbers else newest,
            "runs": [
                entry
                for number in numbers[::-1][:MOST_RUNS]
                if (entry := self._entry(number)) is not None
            ],
        }
        return Answer(200, _JSON, _as_json(content))

    def _entry(self, number: int) -> dict[str, Any] | None:
        """Return a line of the list of runs; None for one that is damaged."""
        path = self._store.root / str(number)
        try:
            changed = (path / CONFIG).stat().st_mtime
            known = self._listed.get(number)
            if known is not None and known[0] == changed:
                return known[1]
            record = Run(path).record
        except (OSError, RunError):
            return None
        config = record.config
        entry = {
            "run": number,
            "text": record.text_name,
            "model": f"{config.model_type} {config.n_layers}x{config.hidden_size}",
            "step": config.step_num,  # of the newest checkpoint
        }
        self._listed[number] = (changed, entry)
        return entry

    def _picture(self, asked: Asked) -> Answer:
        return Answer(200, _JSON, _as_json(self._feed(asked).picture()))

    def _live(self, asked: Asked) -> Stream:
        return Stream(self._news(self._feed(asked)))

    def _file(self, make: Callable[[Run], Download], asked: Asked) -> Answer:
        file = make(self._store.open(_run_number(asked), lock=False))
        kept = f'attachment; filename="{file.name}"'
        return Answer(200, file.kind, file.content, {"Content-Disposition": kept})

    def _feed(self, asked: Asked) -> Feed:
        """Return the feed of the run that is asked for.

        Raises:
            RunError: there is no such run, or it is damaged.
        """
        number = _run_number(asked)
        with self._lock:
            feed = self._feeds.pop(number, None)
            if feed is None:
                run = self._store.open(number, lock=False)
                feed = Feed(run, self.known, self._clock)
            self._feeds[number] = feed  # the newest one last
            while len(self._feeds) > MOST_FEEDS:
                del self._feeds[next(iter(self._feeds))]
        return feed

    def _news(self, feed: Feed) -> Iterator[bytes]:
        """Yield events as a run goes on."""
        cursor, trouble = Cursor(), ""
        yield b"retry: %d\n\n" % RETRY_MILLISECONDS
        said = self._clock()
        while not self.closing.is_set():
            pieces = []
            try:
                pieces = [event(*news) for news in feed.news(cursor)]
                trouble = ""
            except RunError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    pieces = [event("trouble", {"text": trouble})]
            now = self._clock()
            if not pieces and now - said >= QUIET_SECONDS:
                pieces = [b": still here\n\n"]
            if pieces:
                said = now
                yield b"".join(pieces)
            self.closing.wait(TURN_SECONDS)

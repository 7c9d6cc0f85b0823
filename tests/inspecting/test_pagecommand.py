"""The command `serve`; the page itself has its own tests."""

import http.client
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.inspecting.asked import Ask, complaint
from tests.processes_under_test import PATIENCE, Lab, until
from tests.small_runs import trained_run
from utilities.inspect import pagecommand
from utilities.page import Page
from utilities.pageserver import PageServer
from utilities.runs import RunStore


def status(host: str, port: int, target: str) -> int:
    with closing(http.client.HTTPConnection(host, port, timeout=PATIENCE)) as browser:
        browser.request("GET", target)
        return browser.getresponse().status


@pytest.fixture
def asked_while_serving(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have a signal come as soon as the page has been asked for; keep the answers."""
    statuses: list[int] = []

    @contextmanager
    def one_signal(handler: Callable[[], None]) -> Iterator[None]:
        def browse() -> None:
            server = handler.__self__  # type: ignore[attr-defined]
            assert isinstance(server, PageServer)
            statuses.append(status("127.0.0.1", server.port, "/runs"))
            handler()

        thread = threading.Thread(target=browse)
        thread.start()
        yield
        thread.join()

    monkeypatch.setattr(pagecommand, "signals", one_signal)
    return statuses


def test_the_page_is_served_until_a_signal(
    ask: Ask, asked_while_serving: list[int]
) -> None:
    out, err, code = ask("serve", "--port", "0")

    assert (out, code) == ("", 0)
    assert re.fullmatch(
        r"The page: http://127\.0\.0\.1:\d+/  \(Ctrl-C ends it\)\n", err
    )
    assert asked_while_serving == [200]


def test_who_opens_it_to_others_is_told(
    ask: Ask, asked_while_serving: list[int]
) -> None:
    _, err, code = ask("serve", "--port", "0", "--host", "0.0.0.0")

    assert code == 0
    assert "http://127.0.0.1:" in err
    assert err.endswith("Whoever reaches this port can read all of these runs.\n")
    assert asked_while_serving == [200]


def test_an_address_that_cannot_be_is_refused(ask: Ask) -> None:
    assert "--host: expected an address" in complaint(ask("serve", "--host", " "))
    assert "--port" in complaint(ask("serve", "--port", "65536"))


def test_a_port_that_is_taken_is_said(root: Path, ask: Ask) -> None:
    page = Page(RunStore(root), lambda: 0.0)
    server = PageServer(page, "127.0.0.1", 0)
    with closing(server.socket):
        said = complaint(ask("serve", "--port", str(server.port)))

    assert said.startswith("the page: ")
    assert str(server.port) in said


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_ends_it_also_while_somebody_listens(tmp_path: Path) -> None:
    trained_run(tmp_path / "runs").close()
    lab = Lab(tmp_path)
    words = ("-m", "utilities.inspect", "--runs", lab.runs, "serve", "--port", 0)
    here = Path(__file__).parents[2]
    try:
        program = lab.start("page", *words, cwd=here)
        said = re.compile(r"http://127\.0\.0\.1:(\d+)/")

        def port() -> int:
            found = said.search(program.err)
            return int(found[1]) if found else 0

        stream = http.client.HTTPConnection("127.0.0.1", until(port), timeout=PATIENCE)
        with closing(stream):
            stream.request("GET", "/live?run=0")
            assert stream.getresponse().readline() == b"retry: 2000\n"
            program.signal(signal.SIGINT)
            assert program.ended() == 0
        assert program.err.count("\n") == 1
    finally:
        lab.close()

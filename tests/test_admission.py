"""How servers and clients come by their codes, and what they say about them."""

import getpass
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.loopback import (
    CERTIFICATE,
    CERTIFICATES,
    CODE,
    HELLO,
    PARAMETERS,
    RUN,
    certificate,
)
from tests.loopback import gate as usual_gate
from utilities import admission
from utilities.admission import (
    TRIES,
    Door,
    gate_of,
    known_code,
    secret_origin,
    tls_of,
)
from utilities.clientoptions import ClientOptions, parse_client
from utilities.codefiles import keep_code, kept_code, server_code
from utilities.communication import Gate, Hub
from utilities.errors import (
    AuthenticationError,
    ConfigError,
    NetworkError,
    TrainingError,
)
from utilities.joincodes import OPEN, Code, new_code
from utilities.lines import ServerTls, listen
from utilities.machine import config_folder
from utilities.options import ServerOptions

OTHER = Code(b"another 16 bytes")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where codes are kept; nothing is in the environment."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("ES_JOIN_CODE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    found = config_folder()
    assert found is not None
    return found


# A server.


def gate(options: ServerOptions, tls: ServerTls | None, run: str) -> Gate:
    return gate_of(options, known_code(options), tls, run)


def test_a_server_makes_its_secret_below_its_runs_and_finds_it_again(
    tmp_path: Path,
) -> None:
    options = ServerOptions(runs=tmp_path / "runs")
    made = gate(options, None, "0").code

    assert gate(options, None, "1").code == made
    assert server_code(tmp_path / "runs" / "join-code") == made
    assert secret_origin(options) == f"kept in {tmp_path / 'runs' / 'join-code'}"
    assert tls_of(options) is None


def test_a_token_file_comes_before_the_environment_and_that_before_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ServerOptions(runs=tmp_path)
    file = ServerOptions(runs=tmp_path, token_file=tmp_path / "elsewhere")
    gate(own, None, "0")
    monkeypatch.setenv("ES_JOIN_CODE", CODE.shown())

    assert gate(own, None, "0").code == CODE
    assert secret_origin(own) == "from the variable ES_JOIN_CODE"
    assert gate(file, None, "0").code == server_code(tmp_path / "elsewhere") != CODE
    assert secret_origin(file) == f"kept in {tmp_path / 'elsewhere'}"


def test_a_code_names_the_certificate_that_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ES_JOIN_CODE", Code(CODE.secret, b"o" * 19).shown())
    options = ServerOptions(runs=tmp_path, tls_cert=CERTIFICATE)
    tls = tls_of(options)
    assert tls is not None
    found = gate(options, tls, "0")

    assert found.code == Code(CODE.secret, tls.bind[:19]), "not the one it had before"
    assert len(found.code.shown()) == 71


def test_without_authentication_everybody_has_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ES_JOIN_CODE", CODE.shown())
    options = ServerOptions(runs=tmp_path / "runs", no_auth=True)

    assert gate(options, None, "0").code == OPEN
    assert not (tmp_path / "runs").exists()


def test_what_is_wrong_with_a_code_is_found_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "runs" / "join-code"
    options = ServerOptions(runs=tmp_path / "runs")
    assert known_code(options) is None
    assert not file.parent.exists()
    file.parent.mkdir()
    file.write_text("not a code", "ascii")
    with pytest.raises(ConfigError, match="join-code: the join code has a"):
        known_code(options)
    monkeypatch.setenv("ES_JOIN_CODE", "not a code")
    with pytest.raises(ConfigError, match="ES_JOIN_CODE: the join code has a"):
        known_code(options)


def test_a_run_is_known_by_its_own_mark(tmp_path: Path) -> None:
    options = ServerOptions(runs=tmp_path)
    marks = [gate(options, None, name).run for name in ("0", "1", "0")]

    assert marks[0] == marks[2] != marks[1]
    assert {len(mark) for mark in marks} == {16}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (("none.pem", None), "none.pem: No such file"),
        (("text.pem", None), "text.pem: "),
        (("first.pem", "text.pem"), "with "),
        (("only-certificate.pem", "second.pem"), "with "),
        (("only-certificate.pem", None), "only-certificate.pem: "),
    ],
)
def test_certificates_that_cannot_be_used_are_told(
    tmp_path: Path, files: tuple[str, str | None], told: str
) -> None:
    for name in ("first.pem", "second.pem"):
        (tmp_path / name).write_bytes((CERTIFICATES / name).read_bytes())
    whole = CERTIFICATE.read_text("ascii")
    end = whole.index("-----BEGIN PRIVATE")
    (tmp_path / "only-certificate.pem").write_text(whole[:end], "ascii")
    (tmp_path / "text.pem").write_text("no certificate", "ascii")
    cert, key = files
    options = ServerOptions(
        tls_cert=tmp_path / cert, tls_key=None if key is None else tmp_path / key
    )
    with pytest.raises(ConfigError) as caught:
        tls_of(options)

    said = str(caught.value)
    assert said.startswith("--tlsCert: cannot use ")
    assert told in said
    assert "\n" not in said


def test_a_key_with_a_pass_phrase_is_told(tmp_path: Path) -> None:
    whole = CERTIFICATE.read_text("ascii")
    locked = (CERTIFICATES / "locked-key.pem").read_text("ascii")
    cert, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    cert.write_text(whole[: whole.index("-----BEGIN PRIVATE")], "ascii")
    key.write_text(locked, "ascii")
    with pytest.raises(ConfigError, match="asks for a pass phrase"):
        tls_of(ServerOptions(tls_cert=cert, tls_key=key))


# A client at a server's door.


class Serving:
    """A hub that another thread polls."""

    def __init__(self, opened: Gate) -> None:
        self.hub = Hub(listen("127.0.0.1", 0), opened, PARAMETERS, time.monotonic)
        self._ends = False
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    def _poll(self) -> None:
        while not self._ends:
            self.hub.poll(0.02)

    def close(self) -> None:
        self._ends = True
        self._thread.join()
        self.hub.close()


@pytest.fixture
def serving() -> Iterator[Serving]:
    served = Serving(usual_gate())
    yield served
    served.close()


@pytest.fixture
def safe() -> Iterator[Serving]:
    served = Serving(usual_gate(certificate()))
    yield served
    served.close()


class Doorman:
    """A client's door, and what its user sees and types."""

    def __init__(
        self, port: int, monkeypatch: pytest.MonkeyPatch, *typed: str, **options: Any
    ) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self._typed = list(typed)
        monkeypatch.setattr(admission, "_terminal", lambda: bool(typed))
        monkeypatch.setattr(getpass, "getpass", self._ask)
        address = f"127.0.0.1:{port}"
        asked = ClientOptions(address, "desk", **options)
        self.door = Door(asked, "127.0.0.1", port, self.said.append)

    def _ask(self, prompt: str) -> str:
        self.asked.append(prompt)
        return self._typed.pop(0)

    def enters(self) -> bytes:
        """Return which run it has got into."""
        connection = self.door.first()
        connection.send([HELLO])
        connection.close()
        return connection.run

    def refused(self, kind: type[TrainingError] = AuthenticationError) -> str:
        with pytest.raises(kind) as caught:
            self.door.first()
        said = str(caught.value)
        assert "\n" not in said
        return said


Patch = pytest.MonkeyPatch


def address(serving: Serving) -> str:
    return f"127.0.0.1:{serving.hub.port}"


def test_a_typed_code_is_kept_and_used_again(
    serving: Serving, folder: Path, monkeypatch: Patch
) -> None:
    port = serving.hub.port
    assert Doorman(port, monkeypatch, code=CODE).enters() == RUN
    assert kept_code(folder, address(serving)) == CODE
    again = Doorman(port, monkeypatch)

    assert again.enters() == RUN
    assert not again.asked


def test_who_has_no_code_is_asked_once(
    serving: Serving, folder: Path, monkeypatch: Patch
) -> None:
    port = serving.hub.port
    first = Doorman(port, monkeypatch, CODE.shown().lower())
    assert first.enters() == RUN
    assert first.asked == [f"Join code of 127.0.0.1:{port}: "]
    assert Doorman(port, monkeypatch).enters() == RUN
    assert kept_code(folder, address(serving)) == CODE


def test_typing_errors_and_wrong_codes_are_told_and_asked_again(
    serving: Serving, folder: Path, monkeypatch: Patch
) -> None:
    wrong = OTHER.shown()
    typed = Doorman(serving.hub.port, monkeypatch, "ABC", wrong, CODE.shown())

    assert typed.enters() == RUN
    assert len(typed.asked) == TRIES
    first, second = typed.said
    assert "typing error" in first
    assert "the server does not accept the join code" in second
    assert wrong not in second
    assert kept_code(folder, address(serving)) == CODE


def test_who_types_nothing_and_ends_the_input_is_told(
    serving: Serving, monkeypatch: Patch
) -> None:
    def ended(_prompt: str) -> str:
        raise EOFError

    lost = Doorman(serving.hub.port, monkeypatch, "something")
    monkeypatch.setattr(getpass, "getpass", ended)

    assert lost.refused(ConfigError) == "no join code was typed"
    assert len(lost.said) == TRIES - 1


def test_after_three_wrong_codes_it_ends_and_nothing_is_kept(
    serving: Serving, folder: Path, monkeypatch: Patch
) -> None:
    typed = Doorman(serving.hub.port, monkeypatch, *[OTHER.shown()] * TRIES)

    assert "does not accept" in typed.refused()
    assert kept_code(folder, address(serving)) is None


def test_without_a_terminal_the_ways_are_told(
    serving: Serving, monkeypatch: Patch
) -> None:
    said = Doorman(serving.hub.port, monkeypatch).refused()

    for way in ("CODE@HOST:PORT", "--tokenFile", "ES_JOIN_CODE"):
        assert way in said


def test_a_wrong_address_comes_before_the_question(monkeypatch: Patch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    asked = Doorman(port, monkeypatch, CODE.shown())

    assert "nothing listens there" in asked.refused(NetworkError)
    assert not asked.asked


@pytest.mark.parametrize("source", ["file", "environment", "kept", "typed"])
def test_a_wrong_code_is_one_line_on_both_sides_that_says_where_it_came_from(
    serving: Serving,
    folder: Path,
    tmp_path: Path,
    monkeypatch: Patch,
    source: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options: dict[str, Any] = {}
    file = tmp_path / "token"
    if source == "file":
        file.write_text(OTHER.shown(), "ascii")
        file.chmod(0o600)
        options["token_file"] = file
    elif source == "environment":
        monkeypatch.setenv("ES_JOIN_CODE", OTHER.shown())
    elif source == "kept":
        keep_code(folder, address(serving), OTHER)
    else:
        options["code"] = OTHER
    said = Doorman(serving.hub.port, monkeypatch, **options).refused()

    told = f"{address(serving)}: the server does not accept the join code"
    assert said.startswith(told)
    hints = {"file": f"from {file}", "environment": "from ES_JOIN_CODE", "typed": ""}
    assert hints.get(source, "delete that file to be asked again") in said
    _wait_for(lambda: caplog.records)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "client 1 (127.0.0.1) is turned away: it does not have this server's join code"
    )
    assert caplog.records[0].levelno == logging.WARNING
    if source == "typed":
        assert kept_code(folder, address(serving)) is None


def _wait_for(condition: Any) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_kept_code_that_is_not_right_any_more_is_asked_for_on_a_terminal(
    serving: Serving, folder: Path, monkeypatch: Patch
) -> None:
    keep_code(folder, address(serving), OTHER)
    typed = Doorman(serving.hub.port, monkeypatch, CODE.shown())

    assert typed.enters() == RUN
    assert "is not right any more" in typed.said[0]
    assert kept_code(folder, address(serving)) == CODE


def test_a_typed_code_comes_before_all_others(
    serving: Serving, folder: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    keep_code(folder, address(serving), OTHER)
    monkeypatch.setenv("ES_JOIN_CODE", OTHER.shown())
    options = {"code": CODE, "token_file": tmp_path / "none"}

    assert Doorman(serving.hub.port, monkeypatch, **options).enters() == RUN


def test_the_environment_comes_before_what_was_kept_and_is_not_kept(
    serving: Serving, folder: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("ES_JOIN_CODE", CODE.shown())

    assert Doorman(serving.hub.port, monkeypatch).enters() == RUN
    assert kept_code(folder, address(serving)) is None


def test_who_is_open_needs_a_server_that_is(monkeypatch: Patch) -> None:
    open_one = Serving(Gate(OPEN, RUN))
    try:
        port = open_one.hub.port
        assert Doorman(port, monkeypatch, no_auth=True).enters() == RUN
        said = Doorman(port, monkeypatch, code=new_code()).refused()
        assert "asks nobody for a code" in said
    finally:
        open_one.close()


def test_a_server_that_asks_is_not_entered_without_a_code(
    serving: Serving, monkeypatch: Patch
) -> None:
    said = Doorman(serving.hub.port, monkeypatch, no_auth=True).refused()

    assert "run this without --noAuth" in said


@pytest.mark.parametrize("terminal", [False, True])
def test_only_at_a_terminal_there_is_somebody_to_ask(
    monkeypatch: Patch, terminal: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: terminal))
    assert admission._terminal() is terminal
    monkeypatch.setattr(sys, "stdin", None)
    assert not admission._terminal()


# Coming back.


def test_a_code_that_was_right_is_tried_again_a_few_times(
    serving: Serving, monkeypatch: Patch
) -> None:
    client = Doorman(serving.hub.port, monkeypatch, code=CODE)
    client.enters()
    client.door.again().close()
    client.door._code = OTHER  # as if the server had got another one
    for _ in range(TRIES - 1):
        with pytest.raises(NetworkError, match="does not accept"):
            client.door.again()
    with pytest.raises(AuthenticationError, match="does not accept"):
        client.door.again()


def test_a_refusal_between_successes_counts_for_nothing(
    serving: Serving, monkeypatch: Patch
) -> None:
    client = Doorman(serving.hub.port, monkeypatch, code=CODE)
    client.enters()
    for _ in range(3 * TRIES):
        client.door._code = OTHER
        with pytest.raises(NetworkError):
            client.door.again()
        client.door._code = CODE
        client.door.again().close()


def test_another_run_is_told(serving: Serving, monkeypatch: Patch) -> None:
    client = Doorman(serving.hub.port, monkeypatch, code=CODE)
    client.enters()
    client.door.again().close()
    assert client.said == []
    client.door._run = b"another run"
    client.door.again().close()

    assert client.said == ["The server is at another run now."]


# TLS.


def test_a_code_with_a_certificate_gets_in_and_is_kept_as_a_whole(
    safe: Serving, folder: Path, monkeypatch: Patch
) -> None:
    code = usual_gate(certificate()).code
    assert Doorman(safe.hub.port, monkeypatch, code=code).enters() == RUN
    assert kept_code(folder, address(safe)) == code
    assert Doorman(safe.hub.port, monkeypatch).enters() == RUN


def test_another_certificate_is_refused_before_anything_is_said(
    safe: Serving, monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    code = Code(CODE.secret, b"o" * 19)
    said = Doorman(safe.hub.port, monkeypatch, code=code).refused()

    assert "shows another certificate" in said
    _wait_for(lambda: not safe.hub._links)
    assert not [r for r in caplog.records if "join code" in r.getMessage()]


def test_a_code_for_tls_does_not_get_into_a_server_without(
    serving: Serving, monkeypatch: Patch
) -> None:
    code = usual_gate(certificate()).code
    said = Doorman(serving.hub.port, monkeypatch, code=code).refused(NetworkError)

    assert "does not speak TLS, though its join code says so" in said


def test_a_code_without_a_certificate_does_not_get_into_a_server_with_tls(
    safe: Serving, monkeypatch: Patch
) -> None:
    monkeypatch.setattr("utilities.connection.CONNECT_SECONDS", 0.3)
    said = Doorman(safe.hub.port, monkeypatch, code=CODE).refused(NetworkError)

    assert "60 characters" in said


# Nothing shows a secret.


def test_options_and_gates_do_not_show_what_is_secret() -> None:
    options = parse_client([f"{CODE.shown()}@lab:80"], "desk")

    assert (options.address, options.code) == ("lab:80", CODE)
    for shown in (
        repr(options),
        str(options),
        repr(usual_gate()),
        repr(usual_gate().code),
    ):
        assert CODE.shown() not in shown
        assert "secrets!" not in shown

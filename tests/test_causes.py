"""Each usual cause has a sentence of its own."""

import errno
import re
import sys

import pytest

from utilities.causes import (
    because,
    cannot_connect,
    cannot_listen,
    no_proof,
    no_server,
)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EPIPE, "Broken pipe"), "Broken pipe"),
        (OSError("odd"), "odd"),
        (OSError(), "connection broken"),
        (OSError(1, "Taken (while attempting to bind)"), "Taken"),
    ],
)
def test_an_error_is_told_in_the_systems_words(error: OSError, words: str) -> None:
    assert because(error) == words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UnicodeError("label"), "not a name; --host takes an address"),
        (OSError(errno.EADDRINUSE, "used"), "the port is taken or reserved; "),
        (OSError(errno.EACCES, "no"), "below 1024 are for administrators; choose "),
        (OSError(10013, "Windows"), "Windows has reserved the port, often for Hyper-V"),
        (OSError(10048, "Windows"), "the port is taken or reserved; "),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign"), "Cannot assign; --host takes"),
    ],
)
def test_where_nobody_can_listen_the_way_out_is_named(
    error: OSError | UnicodeError, words: str
) -> None:
    told = cannot_listen("lab:7", error)

    assert told.startswith("cannot listen on lab:7: ")
    assert words in told


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EADDRINUSE, "Taken"),
        OSError(errno.EACCES, "Denied"),
        OSError(10013, "Reserved"),
        OSError(errno.EADDRNOTAVAIL, "Not here"),
    ],
)
def test_the_way_out_is_named_as_the_user_knows_it(error: OSError) -> None:
    told = cannot_listen("lab:7", error, ("--pageHost", "--page"))

    assert re.search(r"--page(Host takes| \(0: any free one)", told)
    assert "--port" not in told


@pytest.mark.parametrize("address", ["127.0.0.1:7", "localhost:7", "[::1]:7"])
def test_who_finds_no_server_here_is_told_to_name_the_machine(address: str) -> None:
    error = ConnectionRefusedError()
    told = cannot_connect(address, error, unknown=False, waited=1)

    assert "nothing listens there; is the server running on this machine" in told
    assert told.endswith("name that: basicClient.py HOST")


@pytest.mark.parametrize(
    ("error", "platform", "words"),
    [
        (UnicodeError("label"), "linux", "the name is not known"),
        (ConnectionRefusedError(), "linux", "nothing listens there"),
        (TimeoutError(), "linux", "no answer within 3.5 s; wrong address"),
        (OSError(errno.EHOSTUNREACH, "No route"), "linux", "no machine of its network"),
        (OSError(10065, "No route"), "win32", "no machine of its network answers"),
        (OSError(10051, "No network"), "win32", "no network of this machine leads"),
        (OSError(errno.EPERM, "Not permitted"), "linux", "own firewall or policy"),
        (OSError(errno.EIO, "Odd"), "linux", "Odd"),
        (OSError(errno.EHOSTUNREACH, "No route"), "darwin", "macOS blocks it"),
        (OSError(errno.ENETUNREACH, "No"), "darwin", "no network of this machine"),
    ],
)
def test_where_a_server_cannot_be_reached_the_likely_reason_is_named(
    error: OSError | UnicodeError,
    platform: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    told = cannot_connect("lab:7", error, unknown=False, waited=3.5)

    assert told.startswith("cannot reach lab:7: ")
    assert words in told


def test_windows_own_number_counts_where_there_is_one() -> None:
    error = OSError(errno.EACCES, "forbidden")
    setattr(error, "winerror", 10013)  # noqa: B010 - only Windows has it

    assert "Windows has reserved the port" in cannot_listen("lab:7", error)


def test_who_answers_but_is_no_server_of_ours_is_told() -> None:
    assert no_server("lab:80", "tag too long") == (
        "lab:80 does not answer as basicServer.py of this version does (tag too long): "
        "check the port, and run the same version on both machines"
    )


def test_a_name_that_nobody_knows_is_told_whatever_the_system_says() -> None:
    told = cannot_connect("lab:7", OSError(-2, "odd"), unknown=True, waited=3.5)

    assert "the name is not known" in told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(5, "Input/output error"), "Input/output error"),
        (OSError(), "connection broken"),
        (OSError("timed out"), "timed out"),
        (OSError(98, "Address in use (while attempting to bind)"), "Address in use"),
        (OSError(1, "[SSL: HTTP_REQUEST] http request (_ssl.c:1006)"), "http request"),
    ],
)
def test_what_the_system_says_is_told_without_its_ornaments(
    error: OSError, told: str
) -> None:
    assert because(error) == told


def test_who_does_not_prove_itself_is_told_with_what_to_look_at() -> None:
    said = no_proof("timed out")

    assert said.startswith("the server did not prove that it has the join code: timed ")
    assert "60 characters" in said

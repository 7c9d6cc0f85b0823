"""Codes, certificates and strangers, with real servers and clients."""

import os
import re
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import CERTIFICATES
from tests.processes_under_test import CLIENT, Lab, Program, until
from utilities.codefiles import kept_file, read_file
from utilities.joincodes import PIN_BYTES, new_code

SHORT = "--timePerStep 0.1 --sequenceLength 8 --hiddenSize 4 "


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    lab = Lab(tmp_path)
    yield lab
    lab.close()


def code_of(lab: Lab) -> str:
    return (lab.runs / "join-code").read_text("ascii").strip()


def client(lab: Lab, *words: object, **settings: object) -> Program:
    return lab.start("client", CLIENT, *words, **settings)


def ended(server: Program) -> None:
    server.signal(signal.SIGINT)
    assert server.ended() == 0, server


def joined(server: Program) -> None:
    server.has_said(r"joined; 1 here")


def everything(lab: Lab) -> str:
    """Return all that was written and said, but for where the code belongs."""
    own = {"join-code"}
    files = [p for p in lab.folder.rglob("*") if p.is_file() and p.name not in own]
    files = [p for p in files if "config" not in p.parts]
    return "\n".join(p.read_bytes().decode("utf-8", "replace") for p in files)


def test_a_wrong_code_is_one_line_on_both_sides_and_an_exit_code_of_its_own(
    lab: Lab,
) -> None:
    server = lab.server(f"{lab.small} {SHORT}")
    wrong = new_code().shown()
    stranger = client(lab, f"{wrong}@127.0.0.1:{server.port}")
    assert stranger.ended() == 7, stranger
    line = f"127.0.0.1:{server.port}: the server does not accept the join code"
    hint = "; the server prints its own at its start"
    assert stranger.err == f"basicClient.py: {line}{hint}\n"
    assert stranger.out == ""
    until(lambda: server.err)
    ended(server)

    assert re.fullmatch(
        r"client 1 \(127\.0\.0\.1\) is turned away: "
        r"it does not have this server's join code\n",
        server.err,
    )
    assert wrong not in everything(lab)


def test_without_a_code_and_without_a_terminal_the_ways_are_told(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {SHORT}")
    lost = client(lab, f"127.0.0.1:{server.port}")

    assert lost.ended() == 7, lost
    assert len(lost.err.splitlines()) == 1
    for way in ("CODE@HOST:PORT", "--tokenFile", "ES_JOIN_CODE"):
        assert way in lost.err
    ended(server)


@pytest.mark.parametrize("way", ["typed", "file", "environment", "kept"])
def test_every_way_to_a_code_leads_in_and_nothing_repeats_it(
    lab: Lab, way: str
) -> None:
    server = lab.server(f"{lab.small} {SHORT} --maxSeconds 60")
    address = f"127.0.0.1:{server.port}"
    code = code_of(lab)
    if way in ("typed", "kept"):
        first = client(lab, f"{code}@{address}")
        joined(server)
        if way == "kept":
            first.signal(signal.SIGINT)
            assert first.ended() == 0, first
            client(lab, address)
            server.has_said(r"(?s)joined; 1 here.*joined; 1 here")
    elif way == "file":
        client(lab, address, "--tokenFile", lab.runs / "join-code")
        joined(server)
    else:
        client(lab, address, env={**os.environ, "ES_JOIN_CODE": code})
        joined(server)
    ended(server)
    kept = kept_file(lab.folder / "config" / "basicClient", address)

    assert server.out.count(code) == 1, "it is printed once"
    whole = everything(lab)
    assert whole.count(code) == 1
    secret = read_file(lab.runs / "join-code").secret
    assert secret.hex() not in whole
    assert kept.exists() is (way in ("typed", "kept"))
    if kept.exists():
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_resumed_run_has_the_same_code(lab: Lab) -> None:
    line = f"{lab.small} {SHORT} --localClients 1 --maxSteps 3"
    assert lab.server(line).ended() == 0
    code = code_of(lab)
    again = lab.server("--resume --localClients 1 --maxSteps 2")

    assert again.ended() == 0, again
    assert code in again.out
    assert code_of(lab) == code


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_local_clients_do_not_show_the_code_to_others(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {SHORT} --localClients 1 --maxSeconds 60")
    joined(server)
    code = code_of(lab)
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_bytes())
        except OSError:  # it has just ended
            continue
    ended(server)

    assert any(b"local-1" in line for line in lines)
    assert not any(code.encode() in line for line in lines)


def test_a_server_without_authentication_and_its_clients_say_so(lab: Lab) -> None:
    server = lab.server(f"{lab.small} {SHORT} --noAuth --localClients 1")
    joined(server)
    guest = client(lab, f"127.0.0.1:{server.port}", "--noAuth")
    server.has_said("joined; 2 here")
    shy = client(lab, f"{new_code().shown()}@127.0.0.1:{server.port}")
    assert shy.ended() == 7, shy
    assert "add --noAuth here" in shy.err
    ended(server)

    assert guest.ended() == 0, guest
    assert "Nobody is asked for a code" in server.out
    assert not (lab.runs / "join-code").exists()


def test_an_open_server_on_all_addresses_is_refused_before_it_makes_a_run(
    lab: Lab,
) -> None:
    server = lab.server(f"{lab.small} --noAuth --host 0.0.0.0")

    assert server.ended() == 2
    assert "--anybodyMayJoin" in server.err
    assert not lab.runs.exists()


def test_a_run_over_tls_trains_and_takes_nobody_with_another_certificate(
    lab: Lab,
) -> None:
    certificate = CERTIFICATES / "first.pem"
    server = lab.server(
        f"{lab.small} {SHORT} --localClients 1 --checkPointTime 1",
        "--tlsCert",
        certificate,
    )
    joined(server)
    shown = server.has_said(r"^  ((?:[0-9A-Z]{5}-){11}[0-9A-Z]{5})$")[1]
    guest = client(lab, f"{shown}@127.0.0.1:{server.port}")
    server.has_said("joined; 2 here")
    plain = client(lab, f"{code_of(lab)}@127.0.0.1:{server.port}")
    assert plain.ended() == 3, plain
    until(lambda: (lab.runs / "0" / "metrics.jsonl").exists())
    until(lambda: len(lab.metrics()) >= 5)
    ended(server)
    assert guest.ended() == 0, guest

    other = lab.server(
        f"{lab.small} {SHORT} --maxSeconds 60", "--tlsCert", CERTIFICATES / "second.pem"
    )
    liar = client(lab, f"{shown}@127.0.0.1:{other.port}")
    assert liar.ended() == 7, liar
    assert "shows another certificate" in liar.err
    assert len(liar.err.splitlines()) == 1
    ended(other)
    pinned = other.has_said(r"^  ((?:[0-9A-Z]{5}-){11}[0-9A-Z]{5})$")[1]
    assert pinned[:30] == shown[:30], "the same secret"
    assert pinned[-20:] != shown[-20:], "another certificate"
    assert PIN_BYTES >= 16


def test_a_client_whose_server_has_got_another_code_gives_up_after_some_tries(
    lab: Lab,
) -> None:
    server = lab.server(f"{lab.small} {SHORT} --maxSeconds 60")
    port = server.port
    guest = lab.client(port)
    joined(server)
    server.kill()
    (lab.runs / "join-code").unlink()
    again = lab.server(f"{lab.small} {SHORT} --port {port}")
    again.has_said("Listening")

    assert guest.ended() == 7, guest
    assert guest.err.count("the server does not accept the join code") == 3
    ended(again)

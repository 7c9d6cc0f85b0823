"""Commands that people copy: each system's own, and none of another one."""

from pathlib import Path

import pytest

from utilities.hints import firewalls, nobody_came, on_the_way, open_port

LINE = "python basicClient.py 10.9.8.7:4711"
DOCTOR = "python basicClient.py --doctor 10.9.8.7:4711"


@pytest.mark.parametrize(
    ("content", "runs", "found"),
    [
        ("# comment\nENABLED=yes\nLOGLEVEL=low\n", False, {"ufw"}),
        ("ENABLED = YES\n", False, {"ufw"}),
        ("ENABLED=no\n", False, set()),
        ("# ENABLED=yes\n", False, set()),
        (None, True, {"firewalld"}),
        (None, False, set()),
        ("ENABLED=yes\n", True, {"ufw", "firewalld"}),
    ],
)
def test_firewalls_are_known_by_their_files(
    tmp_path: Path, content: str | None, runs: bool, found: set[str]
) -> None:
    config, pid = tmp_path / "ufw.conf", tmp_path / "firewalld.pid"
    if content is not None:
        config.write_text(content, encoding="utf-8")
    if runs:
        pid.write_text("7\n", encoding="utf-8")

    assert firewalls(config, [tmp_path / "other", pid]) == found


@pytest.mark.parametrize(
    ("platform", "found", "commands"),
    [
        ("linux", {"ufw"}, ["sudo ufw allow 4711/tcp"]),
        (
            "linux",
            {"firewalld"},
            [
                "sudo firewall-cmd --add-port=4711/tcp    "
                "(until it restarts; --permanent as well: for good)"
            ],
        ),
        ("linux", set(), ["sudo nft list ruleset"]),
        (
            "win32",
            set(),
            [
                'netsh advfirewall firewall add rule name="basicServer" dir=in '
                "action=allow protocol=TCP localport=4711 profile=private",
                "New-NetFirewallRule -DisplayName basicServer -Direction Inbound "
                "-Action Allow -Protocol TCP -LocalPort 4711 -Profile Private",
            ],
        ),
        (
            "darwin",
            {"ufw"},
            [
                "sudo /usr/libexec/ApplicationFirewall/socketfilterfw --add "
                '"/my env/python"',
                "sudo /usr/libexec/ApplicationFirewall/socketfilterfw --unblockapp "
                '"/my env/python"',
            ],
        ),
    ],
)
def test_each_system_has_its_own_commands(
    platform: str, found: set[str], commands: list[str]
) -> None:
    lines = open_port(platform, 4711, "/my env/python", found).splitlines()

    assert [line[2:] for line in lines if line.startswith("  ")] == commands


def test_two_firewalls_are_both_opened() -> None:
    told = open_port("linux", 4711, "python", {"firewalld", "ufw"})

    assert told.splitlines()[0] == "this machine's firewall, ufw and firewalld:"
    assert told.count("  sudo ") == 2


@pytest.mark.parametrize("platform", ["linux", "win32", "darwin"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.9.8.7"])
def test_who_waits_in_vain_is_told_the_usual_reasons(platform: str, host: str) -> None:
    firewall = open_port(platform, 4711, "python", set())
    lines = nobody_came(host, LINE, DOCTOR, firewall)

    assert lines[0] == "Nobody has come for a minute. The usual reasons:"
    assert f"  {LINE}" in lines
    assert lines[-1] == f"  {DOCTOR}"
    assert [line[:3] for line in lines if line[0].isdigit()] == ["1. ", "2. ", "3. "]
    assert all(len(line) <= 80 for line in lines if not line.startswith("  "))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_server_for_this_machine_only_says_that_first(host: str) -> None:
    lines = nobody_came(host, LINE, DOCTOR, "no matter")

    assert f"others cannot reach {host}; --host" in lines[1]
    assert "--localClients 2" in lines[2]
    assert lines[-1] == f"  {LINE}"


def test_who_sees_only_the_clients_side_gets_the_commands_of_all_systems() -> None:
    told = "\n".join(on_the_way(4711))

    for words in (
        "ufw allow 4711/tcp",
        "--add-port=4711/tcp",
        "localport=4711 ",
        "mac",
    ):
        assert words in told

"""What may be typed after basicClient.py."""

from pathlib import Path

import pytest

from tests.loopback import CODE
from utilities.clientoptions import NICE, ClientOptions, parse_client
from utilities.errors import ConfigError
from utilities.manners import Hours


def client_refusal(*arguments: str) -> str:
    """Return the one line with which basicClient.py refuses its arguments."""
    with pytest.raises(ConfigError) as caught:
        parse_client(arguments, "desk")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_client_without_options_has_the_name_of_its_machine() -> None:
    assert parse_client([], "desk") == ClientOptions("127.0.0.1", "desk")


@pytest.mark.parametrize(
    ("variable", "typed", "host"),
    [("", [], "127.0.0.1"), ("lab", [], "lab"), ("lab", ["desk"], "desk")],
)
def test_where_no_server_is_named_a_variable_names_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, typed: list[str], host: str
) -> None:
    monkeypatch.setenv("ES_SERVER", variable)

    assert parse_client(typed, "m") == ClientOptions(host, "m")


@pytest.mark.parametrize(
    ("variable", "typed", "host"),
    [("", [], "last:7"), ("lab", [], "lab"), ("", ["desk"], "desk")],
)
def test_where_nobody_names_a_server_it_is_the_last_one(
    monkeypatch: pytest.MonkeyPatch, variable: str, typed: list[str], host: str
) -> None:
    monkeypatch.setenv("ES_SERVER", variable)
    remembered = host == "last:7"

    assert parse_client(typed, "m", "last:7") == (
        ClientOptions(host, "m", remembered=remembered)
    )


def test_a_code_in_the_variable_is_taken_but_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ES_SERVER", f"{CODE.shown()}@lab:80")
    assert parse_client([], "m").code == CODE

    monkeypatch.setenv("ES_SERVER", f"{CODE.shown()}@lab:port")
    assert CODE.shown() not in client_refusal()


@pytest.mark.parametrize(
    ("machine", "name"),
    [("", "client"), ("a\tb", "ab"), ("\n", "client"), ("x" * 99, "x" * 64)],
)
def test_a_machine_with_an_odd_name_is_named_as_far_as_it_goes(
    machine: str, name: str
) -> None:
    assert parse_client([], machine).name == name


def test_every_option_of_a_client_is_read() -> None:
    line = (
        "lab:80 --name Bärbel --quiet --endWithParent --workers 7 --nice 19 --once "
        "--hours 20-08 --noBattery --wait --doctor --json --debug"
    )

    assert parse_client(line.split(), "desk") == ClientOptions(
        "lab:80",
        "Bärbel",
        quiet=True,
        end_with_parent=True,
        workers=7,
        nice=19,
        hours=Hours(((1200, 480),)),
        no_battery=True,
        wait=True,
        once=True,
        doctor=True,
        json=True,
        debug=True,
    )


@pytest.mark.parametrize("count", [0, 1, 256])
def test_workers_are_counted_or_left_to_the_machine(count: int) -> None:
    assert parse_client(["--workers", str(count)], "desk").workers == count


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 65, "\x1b[31m", "\udcff"])
def test_a_name_that_could_not_be_shown_is_refused(name: str) -> None:
    message = client_refusal(f"--name={name}")

    assert message.startswith("--name: expected 1 to 64 printable characters, got '")
    assert message.isprintable()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--nam x", "--nam: no such option; did you mean --name?"),
        ("--name", "argument --name: expected one argument"),
        ("lab desk", "desk: not an option"),
        ("--workers -1", "--workers: expected a whole number from 0 to 256, got -1"),
        ("--workers 2.5", "--workers: expected a whole number from 0 to 256"),
        ("--worker 2", "--worker: no such option; did you mean --workers?"),
        ("--workers 0%", "--workers: expected a number from 1 to 100, got 0"),
        ("--workers half", "--workers: expected a whole number from 0 to 256"),
        ("--nice 20", "--nice: expected a whole number from 0 to 19, got 20"),
        ("--hours 20", "--hours: expected hours of the day as 20-08 or 12:30-13,20-08"),
        ("--json", "--json: only --doctor answers in JSON"),
        ("http://lab:80", "expected HOST or HOST:PORT with a port from 1 to 65535, "),
        ("lab:99999", "with a port from 1 to 65535, got lab:99999"),
    ],
)
def test_what_a_client_does_not_accept_is_refused(arguments: str, message: str) -> None:
    assert message in client_refusal(*arguments.split())


def test_workers_may_be_a_share_of_the_cores() -> None:
    options = parse_client(["--workers", "50%"], "desk")

    assert (options.workers, options.worker_percent) == (1, 50.0)


@pytest.mark.parametrize(
    ("line", "level"),
    [
        *[("", NICE), ("--nice 0", 0), ("--noNice", 0), ("--no-nice", 0)],
        *[("--nice 5", 5), ("--nice 5 --noNice", 0)],
    ],
)
def test_a_client_gives_way_to_other_programs_unless_told_otherwise(
    line: str, level: int
) -> None:
    assert parse_client(line.split(), "desk").nice == level


def test_what_is_typed_with_hyphens_is_the_same() -> None:
    typed = parse_client(["--no-battery"], "desk")

    assert typed == parse_client(["--noBattery"], "desk")
    assert typed.no_battery


def test_help_ends_the_program_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_client(["--help"], "desk")

    assert caught.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    assert (
        "[the variable ES_SERVER, else the server reached last, else 127.0.0.1:55551]"
    ) in told


def test_a_code_may_stand_before_the_address() -> None:
    for address in ("lab", "10.0.0.7:80", "[::1]:80"):
        options = parse_client([f"{CODE.shown()}@{address}"], "desk")
        assert (options.code, options.address) == (CODE, address)
    assert parse_client(["lab:80"], "desk").code is None
    assert parse_client(["lab", "--tokenFile", "t"], "desk").token_file == Path("t")
    assert parse_client(["lab", "--noAuth"], "desk").no_auth


def test_a_code_with_a_typing_error_is_told_without_it() -> None:
    wrong = CODE.shown()[:-1] + "?"
    for typed in (wrong, CODE.shown()[:-2], "hunter2"):
        said = client_refusal(f"{typed}@lab")
        assert said.startswith("CODE@HOST:PORT: the join code has a ")
        assert typed not in said
        assert CODE.shown()[:5] not in said


@pytest.mark.parametrize(
    "line", [f"{CODE.shown()}@lab --noAuth", "lab --noAuth --tokenFile t"]
)
def test_a_client_without_authentication_takes_no_code(line: str) -> None:
    assert "one is given" in client_refusal(*line.split())


def test_a_code_in_a_wrong_place_is_not_repeated() -> None:
    said = client_refusal("lab", CODE.shown())

    assert said == "[join-code]: not an option; --help lists them all"


def test_options_do_not_show_a_code() -> None:
    options = parse_client([f"{CODE.shown()}@lab"], "desk")
    assert CODE.shown() not in repr(options)
    assert "secrets" not in repr(options)

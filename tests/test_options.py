import re
from pathlib import Path
from typing import Any

import pytest

from utilities.config import KEYS, Config
from utilities.errors import ConfigError
from utilities.joincodes import Code
from utilities.misc import RUNS, kebab_case
from utilities.options import (
    EXIT_CODES,
    GROUPS,
    ServerOptions,
    parse_server,
    server_parser,
)
from utilities.textfiles import STANDARD_INPUT, UTF_8, Decoding


def refusal(*arguments: str) -> str:
    """Return the one line with which basicServer.py refuses its arguments."""
    with pytest.raises(ConfigError) as caught:
        parse_server(arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The server's options.


def test_without_options_everything_has_its_default() -> None:
    options = parse_server([])

    assert options == ServerOptions()
    assert (options.host, options.listens_on, options.port) == (None, "*", 55551)
    assert options.runs == RUNS == Path("trainingRuns")
    assert not options.resume
    assert options.keys == {}


def test_every_option_is_read() -> None:
    line = (
        "--host 0.0.0.0 --port 0 --data a b.gz --config c.json --runs r --resume 12 "
        "--localClients 2 --maxSteps 3 --maxSeconds 4.5 --seed 18446744073709551615 "
        "--quiet --debug --timePerStep 0.2 --noise full"
    )

    assert parse_server(line.split()) == ServerOptions(
        host="0.0.0.0",
        port=0,
        data=(Path("a"), Path("b.gz")),
        config=Path("c.json"),
        runs=Path("r"),
        resume=True,
        resume_number=12,
        local_clients=2,
        max_steps=3,
        max_seconds=4.5,
        seed=(1 << 64) - 1,
        quiet=True,
        debug=True,
        keys={"timePerStep": "0.2", "noise": "full"},
    )


def test_a_page_is_asked_for_with_or_without_a_port() -> None:
    assert parse_server([]).page is None
    assert parse_server(["--page"]).page == 55580
    assert parse_server(["--page", "0", "--quiet"]).page == 0
    assert parse_server(["--page"]).page_host == "127.0.0.1"
    shared = parse_server(["--page", "--page-host", "0.0.0.0"])
    assert shared.page_host == "0.0.0.0"
    with pytest.raises(ConfigError, match=r"--page: expected a whole number from 0 to"):
        parse_server(["--page", "65536"])
    with pytest.raises(ConfigError, match=r"--pageHost: expected an address"):
        parse_server(["--pageHost", " "])


@pytest.mark.parametrize(
    ("flag", "value"),
    [("maxSteps", "3"), ("maxSeconds", "3.0"), ("localClients", "3")],
)
def test_an_option_has_a_second_spelling(flag: str, value: str) -> None:
    first = parse_server([f"--{flag}", value])

    assert first != ServerOptions()
    assert parse_server([f"--{kebab_case(flag)}={value}"]) == first


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_a_flag_in_both_spellings(key: str) -> None:
    default = getattr(Config(), KEYS[key])
    value = "null" if default is None else str(default)

    for flag in (key, kebab_case(key)):
        assert parse_server([f"--{flag}", value]).keys == {key: value}


def test_texts_may_be_named_together_or_one_by_one() -> None:
    together = parse_server(["--data", "a", "b", "c"]).data

    assert together == (Path("a"), Path("b"), Path("c"))
    assert parse_server(["--data", "a", "--quiet", "--data", "b", "c"]).data == together
    assert parse_server([]).data == ()


def test_an_encoding_goes_by_the_name_that_python_has_for_it() -> None:
    given = parse_server(["--data", "-", "--encoding", "Latin1", "--errors", "replace"])

    assert given.data == (STANDARD_INPUT,)
    assert given.decoding == Decoding("iso8859-1", "replace")
    assert parse_server(["--data", "a", "--encoding", "UTF8"]).decoding == UTF_8


@pytest.mark.parametrize("name", ["klingon", "base64", "rot13", "undefined", "a\0b"])
def test_what_is_no_encoding_of_texts_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--encoding: expected an encoding, like"):
        parse_server(["--data", "a", "--encoding", name])


def test_of_errors_there_are_two_ways() -> None:
    with pytest.raises(ConfigError, match="expected one of strict, replace, got skip"):
        parse_server(["--data", "a", "--errors", "skip"])


@pytest.mark.parametrize("words", [["encoding", "cp1252"], ["errors", "replace"]])
def test_how_files_are_read_needs_files(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=f"--{words[0]}: says how --data is read"):
        parse_server([f"--{words[0]}", words[1]])


def test_the_newest_run_is_resumed_where_none_is_named() -> None:
    options = parse_server(["--resume", "--quiet"])

    assert options.resume
    assert options.resume_number is None


@pytest.mark.parametrize("number", ["0", "7"])
def test_a_run_is_resumed_by_its_number(number: str) -> None:
    assert parse_server([f"--resume={number}"]).resume_number == int(number)


@pytest.mark.parametrize("number", [0, 7])
def test_a_run_begins_with_the_model_of_another_by_its_number(number: int) -> None:
    assert parse_server([]).start_from is None
    for flag in ("--startFrom", "--start-from"):
        given = parse_server([flag, str(number), "--hiddenSize", "128"])
        assert given == ServerOptions(start_from=number, keys={"hiddenSize": "128"})


@pytest.mark.parametrize("resume", ["--resume", "--resume 1"])
def test_a_new_run_is_not_an_old_one(resume: str) -> None:
    message = "--startFrom: begins a new run; --resume goes on with an old one"
    assert refusal("--startFrom", "0", *resume.split()) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--startFrom", "argument --startFrom: expected one argument"),
        ("--startFrom -1", "--startFrom: expected a whole number from 0 to 2147483648"),
        ("--startFrom last", "--startFrom: expected a whole number from 0"),
        ("--startFrom 0 --salvage", "--salvage: mends a run that is resumed"),
        (
            "--port 65536",
            "argument --port: expected a whole number from 0 to 65535, got",
        ),
        ("--port x", "argument --port: expected a whole number from 0 to 65535, got x"),
        ("--port", "argument --port: expected one argument"),
        ("--data", "argument --data: expected at least one argument"),
        ("--localClients -1", "expected a whole number from 0 to 256, got -1"),
        ("--maxSteps 0", "expected a whole number from 1 to 281474976710656, got 0"),
        ("--maxSeconds nan", "expected a number from 0.001 to 1000000000, got nan"),
        ("--maxSeconds inf", "got inf"),
        ("--seed -1", "from 0 to 18446744073709551615, got -1"),
        ("--seed 1.0", "got 1.0"),
        (
            "--resume last",
            "--resume: expected a whole number from 0 to 2147483648, got",
        ),
        ("--resume -1", "--resume: expected a whole number from 0"),
        ("--sigma 0", "sigma: expected a number above 0 to 10, got 0"),
        ("--sigma -1", "sigma: expected a number above 0 to 10, got -1"),
        ("--noise=", "noise: expected lowRank or full, got "),
        ("--noise Full", "noise: expected lowRank or full, got Full"),
        ("--hiddenSize 1e3", "hiddenSize: expected a whole number from 1 to 4096, got"),
        (
            "--learningRat 1",
            "--learningRat: no such option; did you mean --learningRate",
        ),
        (
            "--learning-rat=1",
            "--learning-rat: no such option; did you mean --learning-",
        ),
        ("--Sigma 1", "--Sigma: no such option; did you mean --sigma?"),
        ("--time 1", "--time: no such option"),
        ("--xyzzy", "--xyzzy: no such option"),
        ("-x", "-x: no such option"),
        ("book.txt", "book.txt: not an option; --help lists them all"),
        ("--resume 1 2", "2: not an option"),
    ],
)
def test_what_is_not_accepted_is_refused_in_one_line(
    arguments: str, message: str
) -> None:
    assert message in refusal(*arguments.split())


def test_options_are_not_abbreviated() -> None:
    assert "did you mean --quiet?" in refusal("--quie")


# Help.


def help_text(parser: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    return str(parser.format_help())


def test_help_shows_each_key_once_in_the_users_spelling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = help_text(server_parser(), monkeypatch)

    for key in KEYS:
        assert len(re.findall(rf"^  --{key} ", text, re.MULTILINE)) == 1, key
        assert kebab_case(key) == key or f"--{kebab_case(key)} " not in text


def test_help_tells_defaults_units_and_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(help_text(server_parser(), monkeypatch).split())

    assert "--timePerStep S time that clients run trials in one step; auto: " in text
    assert "as overhead and noise ask for [auto]" in text
    assert "--checkPointTime S time between checkpoints [30 s]" in text
    assert "--aggregation {auto,seeds,sums}" in text
    assert "--noise {lowRank,full}" in text
    assert "--trialsPerStep N" in text
    assert "as many as fit [null]" in text
    assert "linearly to 2 % over 5000 steps" in text


def test_help_ends_the_program_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_server(["--help"])

    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: basic")


def test_every_key_belongs_to_one_group() -> None:
    assert sorted(key for keys in GROUPS.values() for key in keys) == sorted(KEYS)


def test_exit_codes_are_all_explained() -> None:
    assert re.findall(r"\d+", EXIT_CODES) == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "130",
    ]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *[("0", 0), ("12", 12), ("./12", Path("12")), ("c.json", Path("c.json"))],
        *[("012", Path("012")), ("9" * 10, Path("9" * 10)), ("-1", Path("-1"))],
    ],
)
def test_keys_come_from_a_file_or_from_a_run(given: str, meant: object) -> None:
    assert parse_server(["--config", given]).config == meant


def test_an_empty_host_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--host: expected an address; \* stands"):
        parse_server(["--host", ""])


# Who may take part.

CODE = Code(b"sixteen secrets!")


def test_a_server_listens_on_all_addresses_unless_it_is_open_to_all() -> None:
    assert parse_server([]).listens_on == "*"
    assert parse_server(["--noAuth"]).listens_on == "127.0.0.1"
    assert parse_server(["--host", "10.0.0.7"]).listens_on == "10.0.0.7"


def test_the_options_of_admission_are_read() -> None:
    line = "--tokenFile t --tls-cert c --tlsKey k"
    options = parse_server(line.split())
    assert (options.token_file, options.tls_cert, options.tls_key) == (
        Path("t"),
        Path("c"),
        Path("k"),
    )
    options = parse_server(["--noAuth", "--anybodyMayJoin", "--host", "::"])
    assert (options.no_auth, options.anybody_may_join) == (True, True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "*", "10.0.0.7", "lab"])
def test_an_open_server_on_other_addresses_needs_a_second_word(host: str) -> None:
    said = refusal("--noAuth", "--host", host)

    assert f"with --host {host} whoever reaches this port could take part" in said
    assert "--anybodyMayJoin" in said
    with pytest.raises(ConfigError):
        ServerOptions(host=host, no_auth=True)
    assert ServerOptions(host=host, no_auth=True, anybody_may_join=True).no_auth


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_an_open_server_for_this_machine_needs_none(host: str) -> None:
    assert parse_server(["--noAuth", "--host", host]).listens_on == host


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--noAuth --tokenFile t", "--noAuth: there is no code with it"),
        ("--noAuth --tlsCert c", "--noAuth: there is no code with it"),
        ("--tlsKey k", "--tlsKey: expected --tlsCert as well"),
    ],
)
def test_options_of_admission_that_do_not_go_together_are_refused(
    line: str, told: str
) -> None:
    assert told in refusal(*line.split())


def test_a_servers_code_in_a_wrong_place_is_not_repeated() -> None:
    assert CODE.shown() not in refusal("--host", "lab", CODE.shown())
    assert CODE.shown() not in refusal(f"--hast={CODE.shown()}")

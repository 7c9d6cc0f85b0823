"""When a run goes on with more units, and with which options."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.small_runs import CONFIG, new_run
from utilities.config import Config
from utilities.options import ServerOptions, parse_server
from utilities.protocol import End
from utilities.runs import Run
from utilities.stages import COME_BACK, larger, outgrown, worthwhile
from utilities.textfiles import UTF_8


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Return a run of 4 units that is to go on with 9."""
    with new_run(tmp_path, config=replace(CONFIG, growth="9@1000")) as run:
        yield run


def following(
    run: Run, line: str, steps: int | None = None, seconds: float | None = None
) -> ServerOptions:
    """Return how the run goes on that was started with some options."""
    return larger(parse_server(line.split()), run, 4711, steps, seconds)


def test_a_run_is_outgrown_after_so_many_trials_unless_it_has_the_units() -> None:
    small = Config(hidden_size=4, growth="9@1000")

    assert [outgrown(small, trials, 1) for trials in (0, 999, 1000, 5000)] == [
        *(False, False),
        *(True, True),
    ]
    assert not outgrown(Config(hidden_size=9, growth="9@1000"), 5000, 1)
    assert not outgrown(Config(hidden_size=4), 1 << 62, 1 << 62)


@pytest.mark.parametrize(
    ("steps", "seconds", "enough"),
    [
        *[(None, None, True), (1, None, True), (0, None, False)],
        *[(None, 1.0, True), (None, 0.999, False), (None, 0.0, False)],
        *[(1, 1.0, True), (0, 9.0, False), (9, 0.0, False)],
    ],
)
def test_another_run_is_worth_a_step_and_a_second(
    steps: int | None, seconds: float | None, enough: bool
) -> None:
    assert worthwhile(steps, seconds) is enough


def test_clients_are_asked_to_come_back() -> None:
    assert COME_BACK.end == End.DROPPED.value
    assert COME_BACK.reason == "the run goes on with a larger model"


def test_the_larger_model_begins_where_the_run_has_ended(run: Run) -> None:
    assert following(run, "") == ServerOptions(
        port=4711, start_from=0, keys={"hiddenSize": "9", "growth": "none"}
    )


def test_the_larger_model_grows_on_where_there_are_more_stages(tmp_path: Path) -> None:
    config = replace(CONFIG, growth="9@1000,12@5,20@7")
    with new_run(tmp_path, config=config) as run:
        after = following(run, "--growth 7@5")

    assert after.keys == {"hiddenSize": "9", "growth": "12@5,20@7"}


def test_what_a_server_does_beside_its_run_goes_on(run: Run) -> None:
    line = (
        "--runs r --host 127.0.0.1 --localClients 2 --page 0 --seed 5 --quiet --debug "
        "--tokenFile t --tlsCert c --tlsKey k --sigma 0.5"
    )
    before, after = parse_server(line.split()), following(run, line)

    kept = (
        *("runs", "host", "local_clients", "page", "page_host", "seed", "quiet"),
        *("debug", "token_file", "tls_cert", "tls_key", "no_auth"),
    )
    assert [getattr(after, name) for name in kept] == [
        getattr(before, name) for name in kept
    ]
    assert after.keys == {"sigma": "0.5", "hiddenSize": "9", "growth": "none"}


def test_what_the_run_before_has_settled_is_not_given_again(run: Run) -> None:
    after = following(
        run,
        "--data - --encoding cp1252 --config c.json --port 0 --hiddenSize 4 "
        "--growth 9@1000 --stepNum 70 --vocabSize none",
    )

    assert (after.data, after.decoding, after.config) == ((), UTF_8, None)
    assert after.port == 4711
    assert after.keys == {"hiddenSize": "9", "growth": "none"}


def test_a_run_that_was_resumed_is_not_resumed_by_the_one_after_it(run: Run) -> None:
    after = following(run, "--resume 0 --salvage --growth 7@5")

    assert (after.resume, after.resume_number, after.salvage) == (False, None, False)
    assert after.start_from == 0
    assert after.keys["hiddenSize"] == "9"  # as the run has it


@pytest.mark.parametrize(
    ("left", "given"),
    [
        *[((None, None), (None, None)), ((3, 4.5), (3, 4.5))],
        ((0, 0.25), (1, 1.0)),  # clients have been asked to come back
    ],
)
def test_what_is_left_of_a_session_is_for_the_larger_model(
    run: Run,
    left: tuple[int | None, float | None],
    given: tuple[int | None, float | None],
) -> None:
    after = following(run, "--maxSteps 50 --maxSeconds 60", *left)

    assert (after.max_steps, after.max_seconds) == given

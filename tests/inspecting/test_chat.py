from pathlib import Path

import pytest

from tests.small_runs import CONFIG, VOCABULARY, state_at
from utilities.data import STOP
from utilities.errors import RunError
from utilities.generation import Beam, Sampling
from utilities.inspect.chat import HELP, REMEMBERED, Chat, Load
from utilities.trained import Model


def load(step: int | None) -> Model:
    number = 101 if step is None else step
    if number not in (7, 101):
        raise RunError(f"expected a checkpoint of step {step}, found 7, 101")
    weights = state_at(number).trained
    return Model.checked(Path("0"), CONFIG, VOCABULARY, number, weights)


def open_run(number: int | None) -> Load:
    """Return what loads models of run 3, which has step 7 only."""
    if number not in (None, 3):
        raise RunError(f"expected run {number}, found run 3")
    return lambda step: load(7 if step is None else step)


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def chat() -> Chat:
    return Chat(load, None, open_run, write)


def say(chat: Chat, line: str) -> str:
    return "".join(chat.answer(line))


def test_a_line_is_the_beginning_of_a_text(chat: Chat) -> None:
    say(chat, ":seed 3")

    assert say(chat, "ab") == load(None).write("ab", 200, Sampling(0.8, seed=3))


def test_an_empty_line_goes_on_with_the_last_text(chat: Chat) -> None:
    say(chat, ":seed 3")
    first = say(chat, "ab")
    second = say(chat, "")

    whole = load(None).write(first, 200, Sampling(0.8, seed=3))
    assert first + second == whole


def test_a_first_empty_line_begins_a_document(chat: Chat) -> None:
    say(chat, ":seed 3")

    assert say(chat, "") == load(None).write("", 200, Sampling(0.8, seed=3))


def test_only_the_end_of_a_long_text_is_remembered(chat: Chat) -> None:
    for setting in (":seed 3", ":length 5"):
        say(chat, setting)
    prompt = "abcde" * 300
    first = say(chat, prompt)

    assert first.startswith(prompt)
    written = load(None).write(prompt[-REMEMBERED:], 5, Sampling(0.8, seed=3))
    assert first[len(prompt) :] == written[REMEMBERED:]


def test_an_answer_that_was_broken_off_is_gone_on_with(chat: Chat) -> None:
    say(chat, ":seed 3")
    pieces = chat.answer("ab")
    begun = "".join(next(pieces) for _ in range(4))
    del pieces

    whole = load(None).write(begun, 200, Sampling(0.8, seed=3))
    assert begun + say(chat, "") == whole


def test_settings_reach_the_draws(chat: Chat) -> None:
    for line in (":temp 2", ":topk 5", ":topp 0.7", ":seed 5", ":length 30", ":step 7"):
        said = say(chat, line)
    assert said == ("step 7, temp 2, topk 5, topp 0.7, beams 0, seed 5, length 30")

    sampling = Sampling(2.0, 5, 0.7, 5)
    assert say(chat, "ab") == load(7).write("ab", 30, sampling)
    assert say(chat, ":topk null") == (
        "step 7, temp 2, topk null, topp 0.7, beams 0, seed 5, length 30"
    )


def test_beams_search_the_likeliest(chat: Chat) -> None:
    say(chat, ":beams 3")
    say(chat, ":length 9")

    assert say(chat, "ab") == "ab" + load(None).likeliest("ab", 9, Beam(3, 0, STOP))[0]


def test_without_a_seed_answers_differ(chat: Chat) -> None:
    assert say(chat, "ab") != say(chat, "ab")


def test_weights_can_be_changed_to_the_newest(chat: Chat) -> None:
    assert say(chat, ":step 7").startswith("step 7, ")
    assert say(chat, ":step null").startswith("step 101, ")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (":temp -1", ":temp: expected a number from 0 to 1000000, got -1"),
        (":temp", ":temp: expected a number from 0 to 1000000, got "),
        (":length 0", ":length: expected a whole number from 1 to 1000000, got 0"),
        (":step 8", "expected a checkpoint of step 8, found 7, 101"),
        (":step x", ":step: expected a whole number from 0 to 281474976710656, or"),
        (":speed 1", ":speed: no such command; :help lists them"),
        (": temp 1", ":: no such command; :help lists them"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(
    chat: Chat, line: str, answer: str
) -> None:
    before = chat.settings

    assert say(chat, line).startswith(answer)
    assert chat.settings == before
    assert chat.model.step == 101


def test_help_and_settings_are_told(chat: Chat) -> None:
    assert say(chat, ":help").splitlines() == list(HELP)
    assert all(len(line) <= 80 for line in HELP)
    assert say(chat, ":settings") == (
        "step 101, temp 0.8, topk null, topp null, beams 0, seed null, length 200"
    )


@pytest.mark.parametrize("line", [":q", ":quit"])
def test_it_ends_when_asked(chat: Chat, line: str) -> None:
    assert not chat.ended
    assert say(chat, line) == ""
    assert chat.ended


def test_a_step_that_is_not_there_is_refused_at_the_start() -> None:
    with pytest.raises(RunError, match="expected a checkpoint of step 9"):
        Chat(load, 9, open_run, write)


def test_another_run_goes_on_with_the_same_text_and_settings(chat: Chat) -> None:
    say(chat, ":seed 3")
    first = say(chat, "ab")

    assert say(chat, ":run 3").startswith("step 7, temp 0.8, ")
    whole = load(7).write(first, 200, Sampling(0.8, seed=3))
    assert first + say(chat, "") == whole
    assert say(chat, ":step null").startswith("step 7, ")  # the newest of that run
    assert say(chat, ":run null").startswith("step 7, ")


def test_a_run_that_is_not_there_changes_nothing(chat: Chat) -> None:
    assert say(chat, ":run 4") == "expected run 4, found run 3"
    assert say(chat, ":run x").startswith(":run: expected a whole number")
    assert say(chat, ":settings").startswith("step 101, ")


def test_all_that_was_said_is_saved_and_no_commands(chat: Chat, tmp_path: Path) -> None:
    say(chat, ":length 5")
    first, second = say(chat, "ab"), say(chat, "")
    say(chat, ":topk 3")
    third = say(chat, "ba")
    path = tmp_path / "said.txt"

    whole = f"{first}{second}\n{third}"
    assert say(chat, f":save {path}") == f"{len(whole)} characters"
    assert path.read_text(encoding="utf-8") == f"{whole}\n"


def test_saving_needs_a_name_and_a_place(tmp_path: Path) -> None:
    def refuse(path: Path, text: str) -> None:
        raise RunError(f"{path}: cannot be written ({len(text)})")

    chat = Chat(load, None, open_run, refuse)

    assert say(chat, ":save") == ":save: expected the name of a file"
    assert say(chat, f":save {tmp_path}").endswith("cannot be written (1)")

"""Join codes as people see, type and mistype them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utilities.errors import ConfigError
from utilities.joincodes import (
    ALPHABET,
    OPEN,
    PIN_BYTES,
    SECRET_BYTES,
    Code,
    masked,
    new_code,
    read_code,
)
from utilities.misc import sha256

ZEROS = Code(bytes(16))
codes = st.builds(
    Code,
    st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES),
    st.sampled_from([b"", bytes(PIN_BYTES), bytes(range(PIN_BYTES))]),
)


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read_code(text)
    return str(caught.value)


@given(codes)
def test_what_is_shown_reads_back(code: Code) -> None:
    shown = code.shown()
    groups = shown.split("-")

    assert read_code(shown) == code
    assert len(groups) == (12 if code.pin else 6)
    assert {len(group) for group in groups} == {5}
    assert set("".join(groups)) <= set(ALPHABET)


def test_a_code_is_its_bits_five_by_five_then_a_check() -> None:
    # 0 … 0 1 in 128 bits, two zeros after it: the 26th character has the bits 00100.
    code = Code(bytes(15) + b"\x01")
    body = "0" * 25 + "4"
    check = int.from_bytes(sha256(b"es1 check" + body.encode())[:4], "big")
    expected = body + "".join(ALPHABET[check >> 5 * place & 31] for place in range(4))

    assert code.shown().replace("-", "") == expected


def test_codes_are_read_in_any_case_with_any_gaps_and_letters_for_digits() -> None:
    shown = new_code().shown()
    sloppy = shown.lower().replace("-", " ").replace("0", "o").replace("1", "l")

    assert read_code(f"  {sloppy}\n") == read_code(shown)
    assert read_code(shown.replace("-", "").replace("1", "I")) == read_code(shown)


def test_every_single_typing_error_is_said_to_be_one() -> None:
    shown = "".join(new_code().shown().split("-"))
    missed, told = 0, set()
    for place in range(len(shown)):
        for other in ALPHABET:
            if other != shown[place]:
                typed = shown[:place] + other + shown[place + 1 :]
                try:
                    read_code(typed)
                    missed += 1
                except ConfigError as error:
                    told.add(str(error))

    assert missed <= 1, "one in a million"
    assert all("typing error" in said for said in told)


def test_swapped_neighbours_are_said_to_be_a_typing_error() -> None:
    shown = list(ZEROS.shown().replace("-", ""))
    shown[-1], shown[-2] = shown[-2], shown[-1]
    assert shown[-1] != shown[-2], "a code for which this says something"

    assert "last four characters do not fit" in refusal("".join(shown))


@pytest.mark.parametrize("text", ["", "ABC", "A" * 29, "A" * 31, "A" * 59, "A" * 5000])
def test_a_wrong_length_is_told_with_the_right_ones(text: str) -> None:
    assert f"expected 30 or 60 digits and letters, got {len(text)}" in refusal(text)


@pytest.mark.parametrize("sign", ["U", "é", "?", "@", "\0"])
def test_a_character_that_no_code_has_is_told_without_the_code(sign: str) -> None:
    shown = new_code().shown()
    said = refusal(sign + shown[1:])

    assert said.startswith("the join code has a character that no code has")
    assert shown[1:6] not in said


def test_secrets_are_fresh_and_have_128_bits() -> None:
    made = {new_code().secret for _ in range(100)}

    assert len(made) == 100
    assert {len(secret) for secret in made} == {16}
    assert not any(new_code().open for _ in range(10))
    assert OPEN.open


@pytest.mark.parametrize("code", [ZEROS, Code(b"sixteen secrets!", b"p" * PIN_BYTES)])
def test_a_code_never_shows_its_secret_by_itself(code: Code) -> None:
    for text in (str(code), repr(code), f"{code}", repr([code])):
        assert "secrets!" not in text
        assert "\\x00\\x00" not in text
        assert code.shown() not in text


@given(codes)
def test_a_code_in_a_text_is_masked(code: Code) -> None:
    shown = code.shown()
    for typed in (
        shown,
        shown.lower(),
        shown.replace("-", ""),
        shown.replace("-", " "),
    ):
        hidden = masked(f"unknown: {typed}@lab:80, sorry")
        assert hidden == "unknown: [join-code]@lab:80, sorry"


def test_other_text_is_not_masked() -> None:
    text = "cannot read /home/somebody/a-folder/another-folder/text.txt: no such file"
    assert masked(text) == text

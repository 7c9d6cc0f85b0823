"""What every message consists of, and what each of its fields and arrays may hold."""

import itertools
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from tests.messages import SAMPLES
from tests.slow_protocol import ARRAYS, DTYPES, FIELDS, OF_EVERY_TYPE, RULES, most_rows
from utilities.misc import camel_case
from utilities.protocol import KIND_OF, SPECS, ArraySpec, End, octets, real, text, whole

EACH_FIELD = pytest.mark.parametrize(
    ("kind", "name"), [(k, name) for k, spec in SPECS.items() for name in spec.plain]
)
EACH_ARRAY = pytest.mark.parametrize(
    ("kind", "name"), [(k, name) for k, spec in SPECS.items() for name in spec.arrays]
)


# --- messages -------------------------------------------------------------------------


def test_every_kind_has_a_sample_and_is_described_independently() -> None:
    assert list(SPECS) == list(SAMPLES) == list(ARRAYS) == list(FIELDS)
    for kind, spec in SPECS.items():
        assert spec.kind == kind
        assert spec.type is type(SAMPLES[kind])
        assert KIND_OF[spec.type] == kind
        assert tuple(spec.arrays) == ARRAYS[kind]
        assert [*map(camel_case, spec.plain)] == [*FIELDS[kind]]
        names = [field.name for field in fields(spec.type)]
        assert names == [*spec.plain, *spec.arrays]
    assert len(KIND_OF) == len(SPECS)


@pytest.mark.parametrize("kind", SPECS)
def test_a_message_cannot_be_changed_and_its_arrays_are_not_shown(kind: str) -> None:
    message: Any = SAMPLES[kind]
    name = fields(message)[0].name

    with pytest.raises(FrozenInstanceError):
        setattr(message, name, None)
    for array in set(ARRAYS[kind]) - {"segments"}:
        assert f"{array}=" not in repr(message)


def test_sessions_end_in_three_ways() -> None:
    check = SPECS["goodbye"].plain["end"]

    assert [end.value for end in End] == ["finished", "refused", "dropped"]
    assert all(check(end.value) for end in End)
    assert all(check(end) for end in End)  # each is a str


# --- fields ---------------------------------------------------------------------------


@EACH_FIELD
def test_a_field_may_hold_what_its_rule_allows_and_nothing_else(
    kind: str, name: str
) -> None:
    types, legal, illegal = RULES[FIELDS[kind][camel_case(name)]]
    check = SPECS[kind].plain[name]

    assert [value for value in legal if not check(value)] == []
    assert [value for value in illegal if check(value)] == []
    others = [value for value in OF_EVERY_TYPE if type(value) not in types]
    assert [value for value in others if check(value)] == []


def test_checks_by_hand() -> None:
    assert [whole(1, 3)(n) for n in (0, 1, 3, 4, True, 1.0)] == [
        *(False, True, True, False, False, False),
    ]
    assert [real(0, 1)(x) for x in (-0.1, 0.0, 1.0, 1.1, 1, float("nan"))] == [
        *(False, True, True, False, False, False),
    ]
    assert [text(2)(x) for x in ("", "ab", "abc", "a\n", b"a")] == [
        *(True, True, False, False, False),
    ]
    assert [octets(0, 2)(x) for x in (b"", b"a", b"ab", "ab", bytearray(2))] == [
        *(True, False, True, False, False),
    ]


# --- arrays ---------------------------------------------------------------------------


@EACH_ARRAY
def test_an_array_has_its_dtypes_its_form_and_its_limit(kind: str, name: str) -> None:
    spec = SPECS[kind].arrays[name]
    columns = 3 if name == "segments" else 1

    assert spec.dtypes == DTYPES[name]
    assert spec.most == most_rows(kind, name) * columns
    shapes = [(), (1,), (0,), (3,), (0, 3), (2, 3), (3, 2), (2, 3, 1)]
    fitting = {(0, 3), (2, 3)} if name == "segments" else {(1,), (0,), (3,)}
    known = {dtype for dtypes in DTYPES.values() for dtype in dtypes}
    for dtype, shape in itertools.product(known | {"<f8", ">f4"}, shapes):
        expected = dtype in DTYPES[name] and shape in fitting
        assert spec.check(dtype, shape) is expected, (dtype, shape)


def test_a_matrix_has_its_columns() -> None:
    spec = ArraySpec(("<u8",), 6, columns=2)

    assert spec.check("<u8", (3, 2))
    assert not spec.check("<u8", (2, 3))
    assert not spec.check("<u8", (2,))

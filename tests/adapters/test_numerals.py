"""Numbers in text are ASCII, whole and finite, whatever Python itself would take."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.numerals import parse_integer, parse_number

NEITHER = [
    "",
    " 1",
    "1 ",
    "1\n",
    "1_000",
    "٣",
    "²",
    "１",
    "+-1",
    "0x10",
    "nan",
    "inf",
    "-Infinity",
    "1,5",
    "1e",
    ".",
]


@pytest.mark.parametrize("text", NEITHER)
def test_what_only_python_takes_is_refused(text: str) -> None:
    for parse in (parse_integer, parse_number):
        with pytest.raises(ValueError, match=r"integer|number"):
            parse(text)


def test_a_number_past_every_float_is_refused() -> None:
    for text in ("1e400", "-1e400", "9" * 400):
        with pytest.raises(ValueError, match="finite"):
            parse_number(text)


@given(st.integers(min_value=-(10**40), max_value=10**40))
def test_integers_are_read(number: int) -> None:
    assert parse_integer(str(number)) == number
    assert parse_integer(f"{number:+d}") == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_finite_numbers_are_read(number: float) -> None:
    for text in (repr(number), f"{number:e}"):
        assert parse_number(text) == float(text)


def test_the_short_forms_are_read() -> None:
    assert [parse_number(text) for text in ("5", "5.", ".5", "+1E3")] == [5.0, 5.0, 0.5, 1000.0]
    assert math.copysign(1, parse_number("-0")) == -1

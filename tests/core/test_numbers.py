"""A number is what every program reads as that number, and nothing else."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mocme.core.numbers import parse_number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_what_python_writes_is_read(number: float) -> None:
    assert parse_number(repr(number)) == number
    assert parse_number(f" {number:e}\t") == pytest.approx(number, rel=1e-6)


@pytest.mark.parametrize("text", ["1", "+1.5", "-.5", "5.", "1E-3", "007", " 2 ", "1e308"])
def test_common_forms(text: str) -> None:
    assert parse_number(text) == float(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1_000", "without separators of thousands"),
        ("1,234", "without separators of thousands"),
        ("1,234,567.5", "without separators of thousands"),
        ("1.234.567,5", "without separators of thousands"),
        ("1'000", "without separators of thousands"),
        ("1 000", "without separators of thousands"),
        ("1\u202f000", "without separators of thousands"),
        ("3,14", "a point for the decimal comma"),
        ("\u0661\u0662\u0663", "digits 0 to 9"),
        ("\uff11", "digits 0 to 9"),
        ("inf", "not finite"),
        ("-Infinity", "not finite"),
        ("nan", "not finite"),
        ("1e999", "not finite"),
        ("0x10", "not a number"),
        ("1_0e1_0", "not a number"),
        ("", "not a number"),
        ("1e", "not a number"),
        ("12 m", "not a number"),
        ("1\0", "not a number"),
    ],
)
def test_what_only_python_reads_is_no_number(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_number(text)


@given(st.text("0123456789_.,eE+-inf \u0661\u00a0", max_size=8))
def test_a_number_is_written_in_ascii_without_separators(text: str) -> None:
    form = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
    if re.fullmatch(form, text.strip()) and math.isfinite(float(text)):
        assert parse_number(text) == float(text)
        return
    with pytest.raises(ValueError, match=r"^not (a number|finite)"):
        parse_number(text)

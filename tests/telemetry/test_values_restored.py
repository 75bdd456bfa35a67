"""What `jsonable` made of a value is that value again, where JSON has no form for it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry import SpanContext
from telemetry.values import jsonable, restore_number, restore_span, restore_time_ns

ids = st.integers(1, 2**64 - 1)


@given(st.recursive(st.floats() | st.integers(-(2**99), 2**99), st.lists))
def test_numbers_come_back(value):
    assert repr(restore_number(jsonable(value))) == repr(value)


@given(st.builds(SpanContext, ids, st.none() | ids, ids))
def test_spans_come_back(context):
    found = restore_span(jsonable(context))
    assert found == context
    assert type(found) is SpanContext


@given(st.text() | st.sampled_from(["-9223372036854775808", "18446744073709551615", "1e999"]))
def test_a_text_stays_one_unless_it_stands_for_a_number(text):
    """It would have been written as a number, had it been one of 64 bits."""
    found = restore_number(text)
    assert found == text or text in ("NaN", "Infinity", "-Infinity") or abs(int(text)) >= 2**63


def test_the_limits_of_64_bits():
    assert restore_number(str(2**64)) == 2**64
    assert restore_number(str(-(2**63) - 1)) == -(2**63) - 1
    assert restore_number(str(2**64 - 1)) == "18446744073709551615"
    assert math.isinf(restore_number("-Infinity"))


@pytest.mark.parametrize(
    "value",
    [
        {"span_id": "ff", "parent_id": None, "trace_id": "ff"},
        {"span_id": "00000000000000FF", "parent_id": None, "trace_id": "00000000000000ff"},
        {"span_id": "0" * 16, "parent_id": None, "trace_id": "0" * 16},
        {"span_id": "0" * 15 + "1", "parent_id": None, "trace_id": "0" * 15 + "1", "more": 1},
        {"span_id": 1, "parent_id": None, "trace_id": 1},
        "text",
        None,
    ],
)
def test_a_context_that_is_none_of_ours_is_left_as_it_is(value):
    assert restore_span(value) is value


def test_a_time_is_exact_and_has_a_zone():
    assert restore_time_ns("2026-11-21T11:30:00.123456+01:00") == 1795257000123456000
    for text in ("2026-11-21T10:30:00", "yesterday", None, 5):
        with pytest.raises(ValueError, match="no time with its zone: "):
            restore_time_ns(text)

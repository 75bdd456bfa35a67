"""What a line of JSON says, beyond what JSON allows."""

import math

import pytest

from telemetry.viewer.logs.parsing import parse_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": -Infinity}', -math.inf),
        (b'{"a": inf}', math.inf),
        (b'{"a": 1e999}', math.inf),
        (b'{"b": "\\"NaN\\" inf", "a": Infinity}', math.inf),
    ],
)
def test_numbers_that_json_has_not_are_numbers(text, value):
    assert parse_json(text)["a"] == value


def test_what_is_in_text_stays_text():
    assert parse_json(b'{"a": "NaN, inf", "b": NaN}')["a"] == "NaN, inf"


def test_a_torn_line_full_of_quotes_is_refused_as_fast_as_any():
    """Its megabyte would take an hour if each quote were looked at as the beginning of a text."""
    with pytest.raises(ValueError, match="unexpected end"):
        parse_json(b'{"event": "e", "metadata": {"config": "' + rb"\"key\": 1, " * 100_000)

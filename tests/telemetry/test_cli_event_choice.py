"""Which events `--event` and `--where` mean."""

import pytest

from telemetry.cli.event_choice import Chosen


@pytest.mark.parametrize(
    ("said", "value", "is_meant"),
    [
        ("9007199254740993", 9007199254740993, True),
        ("9007199254740993", 9007199254740992, False),  # one as a float
        ("1000", 1000.0, True),
        ("1e3", 1000, True),
        ("0.1", 0.1, True),
        ("x", 1, False),
        ("true", 1, False),
        ("true", True, True),
        ("1", True, False),
        ("none", None, True),
        ("param.0", ["param", 0], True),
        ("param", ["param", 0], False),
        ("a", "a", True),
        ("1", "1", True),
    ],
)
def test_a_value_is_compared_as_what_it_is(said, value, is_meant):
    assert Chosen(where=[f"key={said}"])(("a",), {"key": value}) is is_meant

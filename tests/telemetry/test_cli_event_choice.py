"""Which events `--event` and `--where` mean."""

import math
from pathlib import Path

import pytest

from telemetry.cli.options.event_choice import Chosen
from telemetry.viewer.logs.entries import entry_of
from telemetry.viewer.logs.lines import Line


@pytest.mark.parametrize(
    ("said", "value", "is_meant"),
    [
        ("9007199254740993", 9007199254740993, True),
        ("9007199254740993", 9007199254740992, False),  # one as a float
        ("1000", 1000.0, True),
        ("1e3", 1000, True),
        ("0.1", 0.1, True),
        ("1.", 1, True),
        (".5", 0.5, True),
        ("+1", 1, True),
        ("01", 1, True),
        ("1e-3", 0.001, True),
        ("NaN", math.nan, True),
        ("NaN", 1.0, False),
        ("nan", 2**2000, False),  # more than a float has room for
        ("-Infinity", -math.inf, True),
        ("x", 1, False),
        ("true", 1, False),
        ("true", True, True),
        ("1", True, False),
        ("none", None, True),
        ("null", None, True),
        ("nil", None, False),
        ("param.0", ["param", 0], True),
        ("param", ["param", 0], False),
        ("a", "a", True),
        ("1", "1", True),
    ],
)
def test_a_value_is_compared_as_what_it_is(said, value, is_meant):
    assert Chosen(where=[f"key={said}"])(("a",), {"key": value}) is is_meant


@pytest.mark.parametrize("pattern", ["training.step", "training/step", "training", "*.step"])
@pytest.mark.parametrize(
    "name", ["training.step", "training/step", r"training\/step", r"train\u0069ng/step"]
)
def test_a_name_is_found_however_a_line_spells_it(pattern, name):
    line = f'{{"event":"{name}","loss":1}}'.encode()
    chosen = Chosen([pattern])
    entry = entry_of(Line(Path("run.jsonl"), 1, line))
    assert (chosen.may_be_in(line), chosen(entry.event, entry.metadata)) == (True, True)


def test_lines_without_the_name_are_not_read():
    chosen = Chosen(["training.step", "rl"])
    assert not chosen.may_be_in(b'{"event":"training.epoch","measurements":{}}')
    assert not chosen.may_be_in(b'{"event":"trainingxstep","measurements":{}}')
    assert Chosen(['a"b']).may_be_in(b'{"event":"a\\"b","measurements":{}}')  # it has escapes


def test_near_names_are_offered_for_slashes_too():
    assert Chosen(["training/stpe"]).hint([]).startswith(" Did you mean training.step")
    assert Chosen(["training/step"]).hint([]) == Chosen(["training.step"]).hint([]) == ""

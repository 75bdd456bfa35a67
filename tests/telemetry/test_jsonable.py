import collections
import dataclasses
import datetime
import enum
import importlib
import math
import pathlib
import types
import uuid
from typing import NamedTuple

import numpy as np
import orjson
import pytest

from telemetry import SpanContext
from telemetry.values import jsonable


class Colour(enum.Enum):
    RED = "red"
    TUPLE = (1, 2.5)
    NOTHING = None


class Level(enum.IntEnum):
    HIGH = 3


class Flag(enum.Flag):
    A = 1


@dataclasses.dataclass
class Config:
    lr: float
    path: pathlib.Path
    inner: object = None


class Point(NamedTuple):
    x: int
    y: float


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (2.5, 2.5),
        ("text", "text"),
        ("Grüße ☃ \U0001f600", "Grüße ☃ \U0001f600"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (np.float32("nan"), "NaN"),
        (np.array([1.0, math.inf]), [1.0, "Infinity"]),
        (2**64 - 1, 2**64 - 1),
        (2**64, "18446744073709551616"),
        (-(2**63), -(2**63)),
        (-(2**63) - 1, "-9223372036854775809"),
        (np.int64(3), 3),
        (np.float64(0.1), 0.1),
        (np.longdouble(1.5), 1.5),
        (np.bool_(0), False),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (1 + 2j, "(1+2j)"),
        (np.complex64(1 + 2j), "(1+2j)"),
        ((1, [2, (3,)]), [1, [2, [3]]]),
        (Point(1, 2.5), [1, 2.5]),
        ({"a": {"b": (1,)}}, {"a": {"b": [1]}}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (collections.ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
        (
            SpanContext(255, None, 2**64 - 1),
            {"span_id": "00000000000000ff", "parent_id": None, "trace_id": "ffffffffffffffff"},
        ),
        (pathlib.PurePosixPath("/a/b.pt"), "/a/b.pt"),
        (Colour.RED, "red"),
        (Colour.TUPLE, [1, 2.5]),
        (Level.HIGH, 3),
        (Flag.A, 1),
        (
            Config(0.5, pathlib.PurePosixPath("x"), Config(1, pathlib.PurePosixPath("y"))),
            {"lr": 0.5, "path": "x", "inner": {"lr": 1, "path": "y", "inner": None}},
        ),
        (Config, "<class 'test_jsonable.Config'>"),
        (datetime.datetime(2026, 11, 21, 10, 30, tzinfo=datetime.UTC), "2026-11-21T10:30:00+00:00"),
        (datetime.date(2026, 11, 21), "2026-11-21"),
        (datetime.time(10, 30), "10:30:00"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"\xff", "b'\\xff'"),
        ({1}, "{1}"),
        (ValueError("bad"), "ValueError('bad')"),
        ("\ud800 lone", "\\ud800 lone"),
        (["\udfff"], ["\\udfff"]),
        (type("Text", (str,), {})("sub"), "sub"),
    ],
)
def test_what_becomes_of_a_value(value, wanted):
    got = jsonable(value)
    if wanted == "<class 'test_jsonable.Config'>":
        wanted = repr(Config)
    assert got == wanted
    assert type(got) is type(wanted)
    assert orjson.loads(orjson.dumps(got)) == wanted


def test_an_integer_beyond_the_interpreters_digits_is_named_by_its_size():
    assert jsonable([2**20000]) == ["<int of 20001 bits>"]


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("a", "a"),
        ("\ud800", "\\ud800"),
        (1, "1"),
        (0, "0"),
        (2.5, "2.5"),
        (True, "True"),
        (False, "False"),
        (None, "None"),
        (math.nan, "NaN"),
        (2**70, "1180591620717411303424"),
        (("param", "0"), "('param', '0')"),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        (Colour.RED, "red"),
        (Colour.NOTHING, "<Colour.NOTHING: None>"),
    ],
    ids=repr,
)
def test_keys_become_strings(key, wanted):
    got = jsonable({key: 1})
    assert got == {wanted: 1}
    assert [type(k) for k in got] == [str]


def test_what_contains_itself_ends_in_its_repr():
    loop = [1]
    loop.append(loop)
    assert jsonable(loop) == [1, "[1, [...]]"]
    table = {}
    table["me"] = [table]
    assert jsonable(table) == {"me": ["{'me': [{...}]}"]}


def test_what_is_met_twice_but_not_inside_itself_is_written_twice():
    shared = [1]
    assert jsonable({"a": shared, "b": [shared, shared]}) == {"a": [1], "b": [[1], [1]]}


def test_deep_nesting_ends_in_a_repr():
    deep = 7
    for _ in range(40):
        deep = [deep]
    got = jsonable(deep)
    for _ in range(32):
        assert isinstance(got, list)
        (got,) = got
    assert got == "[" * 8 + "7" + "]" * 8


def test_nesting_beyond_the_recursion_limit_is_contained():
    deep = {}
    for _ in range(100_000):
        deep = {"d": deep}
    orjson.dumps(jsonable(deep))


def test_a_long_repr_is_cut():
    class Long:
        def __repr__(self):
            return "x" * 5000

    got = jsonable(Long())
    assert len(got) == 1000
    assert got == "x" * 999 + "…"


def test_a_long_string_of_the_user_is_not_cut():
    assert jsonable("x" * 5000) == "x" * 5000


def test_tensors_are_numbers_and_what_cannot_be_read_is_its_repr():
    torch = importlib.import_module("torch")
    assert jsonable({"loss": torch.tensor(0.5), "norms": torch.tensor([1.0, math.nan])}) == {
        "loss": 0.5,
        "norms": [1.0, "NaN"],
    }
    assert jsonable(torch.empty((), device="meta")) == "tensor(..., device='meta', size=())"


def test_the_value_itself_is_not_changed():
    inner = [math.nan]
    value = {"a": inner, 1: (2,)}
    jsonable(value)
    assert list(value) == ["a", 1]
    assert value["a"] is inner
    assert math.isnan(inner[0])

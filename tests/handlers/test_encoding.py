import dataclasses
import enum
import importlib
import json
import math
from collections import UserDict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import handlers
from handlers.device import needs_device
from handlers.encoding import WouldWaitError, encode, host_only
from handlers.timestamps import timestamp
from telemetry import Registry, SpanContext
from telemetry.values import jsonable, on_device

STEP = ("training", "step")
NOON = 1795257000123456789  # 2026-11-21T10:30:00.123456789Z


class Hostile:
    """Whatever is asked of it, it raises."""

    def __repr__(self):
        raise RuntimeError("no")

    def __float__(self):
        raise RuntimeError("no")

    def __eq__(self, other):
        raise RuntimeError("no")

    def __hash__(self):
        return 1


class HostileMapping(dict):
    def items(self):
        raise RuntimeError("no")

    def keys(self):
        raise RuntimeError("no")

    values = keys


@dataclass
class Config:
    layers: int
    _private: str = "kept"


class Colour(enum.Enum):
    RED = "red"


def cycle():
    loop = []
    loop.append(loop)
    return loop


def nested(depth):
    value = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.fixture
def written(bus, tmp_path):
    """What the fast way through the handler makes of an event."""

    def written(measurements, metadata=None, event=STEP):
        path = tmp_path / "m.jsonl"
        path.unlink(missing_ok=True)
        with handlers.attach("jsonl", path=path, registry=bus):
            bus.execute(event, measurements, *([] if metadata is None else [metadata]))
        (line,) = path.read_text().splitlines()
        return json.loads(line, parse_constant=pytest.fail)

    return written


def test_a_line_as_it_is_specified():
    line = encode(NOON, STEP, {"loss": 2.5432, "lr": 0.0002}, {"step": 1, "total_steps": 1000})
    assert line == (
        b'{"timestamp":"2026-11-21T10:30:00.123456Z","event":"training.step",'
        b'"measurements":{"loss":2.5432,"lr":0.0002},"metadata":{"step":1,"total_steps":1000}}\n'
    )


def test_the_handler_writes_the_same_line(bus, tmp_path):
    with handlers.attach("jsonl", path=tmp_path / "m", registry=bus):
        bus.execute(STEP, {"loss": 2.5432, "lr": 0.0002}, {"step": 1, "total_steps": 1000})
    line = (tmp_path / "m").read_bytes()
    time = json.loads(line)["timestamp"]
    assert line.replace(time.encode(), b"2026-11-21T10:30:00.123456Z") == encode(
        NOON, STEP, {"loss": 2.5432, "lr": 0.0002}, {"step": 1, "total_steps": 1000}
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (None, None),
        ([1.0, math.nan, None], [1.0, "NaN", None]),
        (0.1, 0.1),
        (-0.0, -0.0),
        (2**63 - 1, 2**63 - 1),
        (2**64, "18446744073709551616"),
        (-(2**70), "-1180591620717411303424"),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), "NaN"),
        (np.int64(3), 3),
        (np.bool_(1), True),
        (np.array(2.5), 2.5),
        (np.arange(3), [0, 1, 2]),
        (np.array([1.0, np.inf]), [1.0, "Infinity"]),
        (np.arange(6).reshape(2, 3)[:, ::2], [[0, 2], [3, 5]]),
        (np.array([0.5], dtype="float16"), [0.5]),
        ("null", "null"),
        ("a\ud800b", "a\\ud800b"),
        (("layer", "conv1"), ["layer", "conv1"]),
        ({"a": {1: (2, 3)}}, {"a": {"1": [2, 3]}}),
        (Config(3), {"layers": 3, "_private": "kept"}),
        (Colour.RED, "red"),
        (Path("/runs/a"), "/runs/a"),
        (b"bytes", "b'bytes'"),
        (
            SpanContext(0x1F, None, 0x1F),
            {"span_id": "000000000000001f", "parent_id": None, "trace_id": "000000000000001f"},
        ),
        (ValueError("bad"), "ValueError('bad')"),
        (Hostile(), "<unprintable Hostile object>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_value_has_its_form_on_both_ways(written, value, expected):
    for measurements, metadata in (
        ({"x": value}, {}),
        ({}, {"x": value}),
        ({"x": value}, {"n": None}),
    ):
        record = written(measurements, metadata)
        part = record["measurements"] or record["metadata"]
        assert part["x"] == expected
        slow = json.loads(encode(NOON, STEP, measurements, metadata))
        assert (slow["measurements"], slow["metadata"]) == (
            record["measurements"],
            record["metadata"],
        )


@pytest.mark.parametrize(
    "value",
    [cycle(), nested(300), "x" * 10**6, 10**5000, object()],
    ids=["cycle", "deep", "long", "huge", "object"],
)
def test_what_has_no_form_is_bounded(written, value):
    record = written({"x": value, "loss": 0.5})
    assert record["measurements"]["loss"] == 0.5
    if not isinstance(value, str):
        assert len(json.dumps(record)) < 2000


def test_frameworks_values(written):
    torch = importlib.import_module("torch")
    jnp = importlib.import_module("jax.numpy")
    tf = importlib.import_module("tensorflow")
    for make in (torch.tensor, jnp.array, tf.constant):
        record = written({"loss": make(0.5), "norms": make([0.5, 1.5]), "bad": make(float("nan"))})
        assert record["measurements"] == {"loss": 0.5, "norms": [0.5, 1.5], "bad": "NaN"}


def test_a_hostile_value_costs_no_other(written):
    record = written({"loss": 0.5, "bad": HostileMapping(a=1)}, {"step": 1, "n": None})
    assert record["measurements"]["loss"] == 0.5
    assert record["metadata"] == {"step": 1, "n": None}


def test_a_mapping_that_cannot_be_read_is_said_to_be():
    record = json.loads(encode(NOON, STEP, HostileMapping(a=1), {"step": 1}))
    assert record["measurements"] == {"unreadable": "{'a': 1}"}
    assert record["metadata"] == {"step": 1}


def test_a_hostile_mapping_does_not_cost_the_event(written):
    record = written(HostileMapping(a=1), {"step": 1})
    assert record["event"] == "training.step"
    assert record["metadata"] == {"step": 1}


def test_keys_and_names_that_are_strange(written):
    record = written({1: 0.5, (2, "a"): 1, "\ud800": 2, None: 3}, event=('a"b', "\n", "\ud800"))
    assert record["event"] == 'a"b.\n.\\ud800'
    assert list(record["measurements"].values()) == [0.5, 1, 2, 3]
    assert set(record["measurements"]) == {"1", "(2, 'a')", "\\ud800", "None"}


def test_no_metadata_is_an_empty_object(written):
    assert written({"x": 1})["metadata"] == {}


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.complex_numbers()
    | st.builds(Hostile)
    | st.builds(cycle)
    | st.builds(np.float32, st.floats(width=32))
    | st.datetimes()
    | st.uuids()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters()) | st.integers() | st.none(), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=10,
)


def same(a, b):
    if isinstance(a, float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-6)  # orjson writes a float32 shorter
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return set(a) == set(b) and all(same(a[key], b[key]) for key in a)
    return a == b


@given(
    st.dictionaries(st.text(st.characters()), values),
    st.dictionaries(st.text(st.characters()), values),
)
def test_any_event_is_one_whole_line_of_strict_json(tmp_path_factory, measurements, metadata):
    path = tmp_path_factory.mktemp("any") / "m.jsonl"
    bus = Registry()
    with handlers.attach("jsonl", path=path, registry=bus):
        bus.execute(STEP, measurements, metadata)
    data = path.read_bytes()
    assert data.count(b"\n") == 1
    record = json.loads(data, parse_constant=pytest.fail)
    assert list(record) == ["timestamp", "event", "measurements", "metadata"]
    for part, given_part in (("measurements", measurements), ("metadata", metadata)):
        assert same(record[part], json.loads(json.dumps(jsonable(given_part))))


# timestamps


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (999, "1970-01-01T00:00:00.000000Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
        (999_999_999, "1970-01-01T00:00:00.999999Z"),
        (NOON, "2026-11-21T10:30:00.123456Z"),
        (1_709_164_800_000_000_000, "2024-02-29T00:00:00.000000Z"),
        (-1_000, "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_timestamps(time_ns, text):
    for _ in range(2):
        assert timestamp(time_ns) == text


@given(st.lists(st.integers(min_value=0, max_value=4 * 10**18), max_size=20))
def test_timestamps_are_those_of_the_standard_library(times):
    from datetime import UTC, datetime, timedelta

    for time_ns in times:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000)
        assert timestamp(time_ns) == moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


VALUES = [
    np.float32(0.1),
    np.float16(0.1),
    np.float64(0.1),
    np.int8(3),
    np.array([0.1, 0.2], np.float32),
    np.datetime64("2020-01-01"),
    np.array(["2020-01-01"], "datetime64[ns]"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_looks_the_same_whatever_stands_beside_it(tmp_path, bus, value):
    with handlers.attach("jsonl", path=tmp_path / "m.jsonl", registry=bus):
        bus.execute(("a",), {"value": value})
        bus.execute(("a",), {"value": value, "loss": float("nan")})  # the other way of encoding
    plain, beside = map(orjson.loads, (tmp_path / "m.jsonl").read_bytes().splitlines())
    assert beside["measurements"]["value"] == plain["measurements"]["value"]


def test_keys_that_look_alike_are_both_kept():
    line = encode(0, ("a",), {}, {1: 2, "1": 3, "nan": float("nan")})
    assert orjson.loads(line)["metadata"] == {"1": 2, "1 (str)": 3, "nan": "NaN"}


@pytest.mark.parametrize("beside", [None, "nullable", float("nan"), [None], [float("inf")]])
def test_none_and_nan_stay_apart_in_one_line(tmp_path, bus, beside):
    with handlers.attach("jsonl", path=tmp_path / "m.jsonl", registry=bus):
        bus.execute(("a",), {"none": None, "nan": float("nan")}, {"beside": beside})
        bus.execute(("a",), {"none": None}, {"beside": beside})
    first, second = map(orjson.loads, (tmp_path / "m.jsonl").read_bytes().splitlines())
    assert first["measurements"] == {"none": None, "nan": "NaN"}
    assert second["measurements"] == {"none": None}
    assert first["metadata"] == second["metadata"] == {"beside": jsonable(beside)}


class Held(NamedTuple):
    tensor: object


@dataclasses.dataclass
class Record:
    tensor: object


@pytest.mark.parametrize(
    "hold",
    [Held, Record, lambda t: [t], lambda t: {"t": (t,)}],
    ids=["object", "record", "list", "mapping"],
)
def test_a_value_on_a_device_is_found_inside_of_others(hold):
    import torch

    class OnDevice(torch.Tensor):
        device = torch.device("cuda")

    tensor = torch.tensor(1.0).as_subclass(OnDevice)
    assert on_device(tensor)
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- orjson wraps it
        orjson.dumps(hold(tensor), host_only, orjson.OPT_PASSTHROUGH_DATACLASS)
    assert isinstance(caught.value.__cause__, WouldWaitError)
    assert needs_device({"x": hold(tensor)}, {}) is not (hold is Record)


class Shy(UserDict):
    def values(self):
        raise RuntimeError("not for you")


def test_a_mapping_that_hides_its_values_is_written_all_the_same(tmp_path, bus):
    with handlers.attach("jsonl", path=tmp_path / "m.jsonl", registry=bus):
        bus.execute(("a",), Shy(none=None, loss=1.5))
    (record,) = map(orjson.loads, (tmp_path / "m.jsonl").read_bytes().splitlines())
    assert record["measurements"] == {"none": None, "loss": 1.5}

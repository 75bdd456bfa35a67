"""The one conversion of measurements, over numbers and the arrays of every framework."""

import array
import decimal
import fractions
import importlib
import math
import os
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.values import on_device, to_python, to_python_many

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def numpy_array(values, dtype="float32"):
    return np.array(values, dtype)


def torch_array(values, dtype="float32"):
    torch = importlib.import_module("torch")
    return torch.tensor(values, dtype=getattr(torch, dtype))


def jax_array(values, dtype="float32"):
    numpy = importlib.import_module("jax.numpy")
    return numpy.array(values, dtype).block_until_ready()


def tensorflow_array(values, dtype="float32"):
    tensorflow = importlib.import_module("tensorflow")
    return tensorflow.constant(values, dtype)


MAKERS = {
    "numpy": numpy_array,
    "torch": torch_array,
    "jax": jax_array,
    "tensorflow": tensorflow_array,
}


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


def same(got, wanted):
    assert type(got) is type(wanted)
    if isinstance(wanted, list):
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted, strict=True):
            same(a, b)
    else:
        assert repr(got) == repr(wanted)  # tells -0.0 from 0.0 and knows NaN


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("float32", [0.5, -2.0, 0.0, 2.0**100]),
        ("float16", [0.5, -2.0, 65504.0]),
        ("bfloat16", [0.5, -2.0, 2.0**100]),
        ("float32", [math.nan, math.inf, -math.inf]),
        ("int32", [0, -1, 2**31 - 1]),
        ("int8", [-128, 127]),
        ("uint8", [0, 255]),
        ("bool", [True, False]),
        ("complex64", [1 + 2j, 0j]),
        ("float32", [[1.0, 2.0], [3.0, 4.0]]),
        ("float32", []),
        ("float32", [[], []]),
    ],
    ids=repr,
)
def test_arrays_of_any_framework_are_lists_and_their_scalars_numbers(make, dtype, values):
    if make is numpy_array and dtype == "bfloat16":
        dtype = importlib.import_module("ml_dtypes").bfloat16
    same(to_python(make(values, dtype)), values)
    for value in values:
        same(to_python(make(value, dtype)), value)


@pytest.mark.parametrize("maker", [numpy_array, torch_array, tensorflow_array])
@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("float64", [0.1, math.pi, 1e308, 5e-324]),
        ("int64", [2**63 - 1, -(2**63)]),
        ("uint64", [2**64 - 1]),
        ("uint16", [65535]),
        ("complex128", [0.1 + 1e300j]),
    ],
    ids=repr,
)
def test_wide_numbers_are_exact(maker, dtype, values):
    same(to_python(maker(values, dtype)), values)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (3, 3),
        (2.5, 2.5),
        (True, True),
        (2**100, 2**100),
        (1 + 2j, 1 + 2j),
        (np.float64(0.1), 0.1),
        (np.float16(0.5), 0.5),
        (np.float32(-0.0), -0.0),
        (np.longdouble(1.5), 1.5),
        (np.clongdouble(1 + 2j), 1 + 2j),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(1), True),
        (np.complex64(1 + 2j), 1 + 2j),
        (np.complex128(1 + 2j), 1 + 2j),
        (np.array([1.5], np.longdouble), [1.5]),
        (np.array([[1.5], [math.inf]], np.longdouble), [[1.5], [math.inf]]),
        (np.ma.array([1.0, 2.0]), [1.0, 2.0]),
        (fractions.Fraction(1, 4), 0.25),
        (array.array("d", [1.0, 2.0]), [1.0, 2.0]),
        (type("Steps", (int,), {})(7), 7),
        (type("Loss", (float,), {})(0.5), 0.5),
    ],
    ids=repr,
)
def test_numbers_of_any_type_are_python_numbers(value, wanted):
    same(to_python(value), wanted)


@pytest.mark.parametrize(
    "value",
    [None, "text", b"bytes", object(), [1, 2], {"a": 1}, {1}, decimal.Decimal("0.1"), print],
    ids=type,
)
def test_anything_else_is_returned_unchanged(value):
    assert to_python(value) is value
    assert on_device(value) is False


class Raising:
    """Every way of looking at it fails."""

    def __getattribute__(self, name):
        raise RuntimeError(name)

    def __repr__(self):
        raise RuntimeError

    def __float__(self):
        raise RuntimeError

    def __eq__(self, other):
        raise RuntimeError

    __hash__ = None


class RaisingToList:
    def tolist(self):
        raise ValueError


class NumpyThatIsNone:
    def numpy(self):
        return None


class PretendsToBeAFloat:
    @property
    def __class__(self):
        return float

    def __float__(self):
        raise RuntimeError


class ClassRaises:
    @property
    def __class__(self):
        raise RuntimeError


class Meta(type):
    def __hash__(cls):
        raise RuntimeError

    def __eq__(cls, other):
        raise RuntimeError


class UnhashableType(metaclass=Meta):
    pass


class HugeFloat(float):
    def __float__(self):
        raise OverflowError


HOSTILE = [
    Raising,
    RaisingToList,
    NumpyThatIsNone,
    PretendsToBeAFloat,
    ClassRaises,
    UnhashableType,
    HugeFloat,
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=type.__repr__)
def test_a_strange_value_is_returned_unchanged_and_never_raises(hostile):
    value = hostile()
    assert to_python(value) is value
    assert on_device(value) is False
    (converted,) = to_python_many([{"x": value, "loss": np.float32(0.5)}])
    assert converted["x"] is value
    assert converted["loss"] == 0.5


def test_to_python_many_makes_a_new_dictionary_of_each_in_order(make):
    given_mappings = [{"loss": make(0.5), "lr": 2e-4}, {}, {"norms": make([1.0, 2.0]), "tag": "x"}]
    before = [dict(mapping) for mapping in given_mappings]
    got = to_python_many(given_mappings)
    assert got == [{"loss": 0.5, "lr": 2e-4}, {}, {"norms": [1.0, 2.0], "tag": "x"}]
    for old, now, new in zip(before, given_mappings, got, strict=True):
        assert new is not now
        assert all(now[key] is old[key] for key in old)


def test_to_python_many_takes_frameworks_mixed():
    made = {name: make([0.5, 2.0]) for name, make in MAKERS.items()}
    assert to_python_many([made, made]) == [{name: [0.5, 2.0] for name in MAKERS}] * 2


def test_to_python_many_of_nothing():
    assert to_python_many([]) == []


@given(st.lists(st.dictionaries(st.text(), st.one_of(st.integers(), st.floats(), st.text()))))
def test_plain_values_come_through_to_python_many_as_they_are(mappings):
    for old, new in zip(mappings, to_python_many(mappings), strict=True):
        assert list(old) == list(new)
        assert all(old[key] is new[key] for key in old)


def test_what_is_on_the_host_waits_for_no_device(make):
    assert on_device(make(0.5)) is False


# without frameworks


LEAN = """
import sys
from telemetry.values import jsonable, on_device, to_python, to_python_many

class Odd:
    def tolist(self):
        return [1, 2]

assert to_python(Odd()) == [1, 2]
assert to_python_many([{"a": 1, "b": Odd()}]) == [{"a": 1, "b": [1, 2]}]
assert not on_device(Odd())
assert jsonable({"a": Odd()}) == {"a": [1, 2]}
print([name for name in ("numpy", "torch", "jax", "tensorflow", "orjson") if name in sys.modules])
"""


def test_no_framework_is_imported_for_a_conversion(run_script):
    done = run_script(LEAN)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_module_that_is_half_imported_is_passed_over(monkeypatch):
    import types

    for name in ("torch", "jax", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    assert on_device(object()) is False
    assert to_python_many([{"x": np.float32(0.5)}]) == [{"x": 0.5}]

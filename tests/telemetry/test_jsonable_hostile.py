"""Whatever it is given, `jsonable` gives JSON and does not raise."""

import dataclasses
import enum
import json

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry import SpanContext
from telemetry.values import jsonable


class Colour(enum.Enum):
    RED = "red"
    TUPLE = (1, 2.5)
    NOTHING = None


class Text(str):
    __slots__ = ()

    def __str__(self):
        raise RuntimeError

    def __len__(self):
        raise RuntimeError


class NoRepr:
    def __repr__(self):
        raise RuntimeError


class BadRepr:
    def __repr__(self):
        return 3


class SurrogateRepr:
    def __repr__(self):
        return "\ud800"


class SubclassRepr:
    def __repr__(self):
        return Text("text")


class NoRepresentationAtAll:
    def __getattribute__(self, name):
        raise RuntimeError

    def __repr__(self):
        raise RuntimeError


class ClassRaises:
    @property
    def __class__(self):
        raise RuntimeError


class NamelessMeta(type):
    @property
    def __name__(cls):
        raise RuntimeError

    def __hash__(cls):
        raise RuntimeError


class Nameless(metaclass=NamelessMeta):
    def __repr__(self):
        raise RuntimeError


class RaisingItems(dict):
    def items(self):
        raise RuntimeError

    def __repr__(self):
        raise RuntimeError


class RaisingIter(list):
    def __iter__(self):
        raise RuntimeError


class RaisingInt(int):
    def __int__(self):
        raise RuntimeError

    def __eq__(self, other):
        raise RuntimeError

    __hash__ = int.__hash__


class RaisingFloat(float):
    def __float__(self):
        raise RuntimeError


class RaisingPath:
    def __fspath__(self):
        raise RuntimeError


class PathOfNothing:
    def __fspath__(self):
        return None


class EndlessToList:
    def tolist(self):
        return EndlessToList()


@dataclasses.dataclass
class MissingField:
    a: int

    def __post_init__(self):
        del self.a


HOSTILE = {
    "no repr": NoRepr(),
    "repr of an int": BadRepr(),
    "repr of a surrogate": SurrogateRepr(),
    "repr of a subclass": SubclassRepr(),
    "no attributes": NoRepresentationAtAll(),
    "no class": ClassRaises(),
    "nameless class": Nameless(),
    "mapping": RaisingItems(a=1),
    "list": RaisingIter([1]),
    "int": RaisingInt(3),
    "float": RaisingFloat(0.5),
    "path": RaisingPath(),
    "path of nothing": PathOfNothing(),
    "endless tolist": EndlessToList(),
    "dataclass": MissingField(1),
    "str": Text("text"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_value_is_contained_and_spoils_no_other(name):
    value = HOSTILE[name]
    got = jsonable({"loss": 2.5, "bad": value, "list": [1, value, 2]})
    assert got["loss"] == 2.5
    assert got["list"][::2] == [1, 2]
    text = json.dumps(got, allow_nan=False)
    assert json.loads(orjson.dumps(got)) == json.loads(text)


class HostileKey(NoRepr):
    pass


def test_a_hostile_key_spoils_no_other():
    got = jsonable({"loss": 2.5, HostileKey(): 1, Text("text"): 2})
    assert got == {"loss": 2.5, "<unprintable HostileKey object>": 1, "text": 2}
    orjson.dumps(got)


def test_what_cannot_be_printed_is_named_by_its_type():
    assert jsonable(NoRepr()) == "<unprintable NoRepr object>"


def test_a_mapping_that_changes_while_it_is_read_is_contained():
    class Changing(dict):
        def items(self):
            for item in list(super().items()):
                self[len(self)] = 1
                yield item
            raise RuntimeError("changed size during iteration")

    got = jsonable({"loss": 1.0, "bad": Changing(a=1)})
    assert got["loss"] == 1.0
    assert isinstance(got["bad"], str)


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.complex_numbers(),
    st.text(st.characters(exclude_categories=())),
    st.binary(),
    st.dates(),
    st.uuids(),
    st.sampled_from(list(HOSTILE)).map(lambda name: HOSTILE[name]),
    st.sampled_from([*Colour, SpanContext(1, 2, 3), np.float32(0.5), print, int]),
)
keys = st.one_of(
    st.text(st.characters(exclude_categories=())),
    st.integers(),
    st.floats(),
    st.none(),
    st.booleans(),
    st.binary(),
    st.tuples(st.integers()),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=15,
)


@given(values)
def test_the_result_is_always_valid_json_for_both_libraries(value):
    got = jsonable(value)
    text = json.dumps(got, allow_nan=False)
    text.encode("utf-8")
    assert json.loads(orjson.dumps(got)) == json.loads(text)


plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=15,
)


@given(plain)
def test_what_json_has_a_form_for_comes_back_unchanged(value):
    assert orjson.loads(orjson.dumps(jsonable(value))) == value
    assert jsonable(value) == value


class Step(int):
    """What some frameworks count with."""


class Loss(float):
    pass


def test_subclasses_of_numbers_are_numbers_at_once():
    assert jsonable([Step(5), Loss(0.5), Step(2**64), Loss("nan")]) == [5, 0.5, str(2**64), "NaN"]
    assert [type(x) for x in jsonable([Step(5), Loss(0.5)])] == [int, float]

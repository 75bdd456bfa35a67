from dataclasses import FrozenInstanceError, dataclass

import pytest

from regularizers.resolved import Resolved, read_all


class Lazy:
    """A scalar that counts how often it was read."""

    def __init__(self, value):
        self.value = value
        self.reads = 0

    def tolist(self):
        self.reads += 1
        return self.value


def read(lazy):
    return lazy.tolist() if hasattr(lazy, "tolist") else lazy


@dataclass(frozen=True)
class Record:
    name: str
    value: Resolved[float] = Resolved(read)  # noqa: RUF009 -- a descriptor
    custom: Resolved[dict] = Resolved(dict)  # noqa: RUF009 -- a descriptor


def test_a_field_is_read_once_and_only_when_looked_at():
    lazy = Lazy(2.5)
    record = Record("a", lazy, {})
    assert lazy.reads == 0
    assert [record.value, record.value] == [2.5, 2.5]
    assert lazy.reads == 1


def test_what_a_device_computed_is_kept_beside_what_was_read():
    lazies = Lazy(1.0), Lazy(2.0)
    record = Record("a", lazies[0], {"m": lazies[1]})
    read_all([record])
    assert (record.value, record.custom) == (1.0, {"m": 2.0})
    assert vars(record)["value"] is lazies[0]
    assert vars(record)["custom"]["m"] is lazies[1]


def test_a_field_cannot_be_set():
    record = Record("a", 1.0, {})
    with pytest.raises(FrozenInstanceError):
        record.value = 2.0


def test_fields_have_no_default():
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        Record("a")


def test_all_fields_of_many_records_are_read_at_once():
    lazies = [Lazy(1.0), Lazy(2.0), Lazy(3.0)]
    records = [Record("a", lazies[0], {"m": lazies[1]}), Record("b", lazies[2], {})]
    read_all(records)
    assert [lazy.reads for lazy in lazies] == [1, 1, 1]
    assert [(r.value, r.custom) for r in records] == [(1.0, {"m": 2.0}), (3.0, {})]
    assert [lazy.reads for lazy in lazies] == [1, 1, 1]

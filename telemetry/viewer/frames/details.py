"""The metadata of records, as columns of a frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from telemetry.viewer.logs.engine import identifier, quoted
from telemetry.viewer.logs.foreign import EVENTS, PLACES, RESERVED, TIMES
from telemetry.viewer.logs.parsing import parse_json
from telemetry.viewer.logs.records import FLAT, NESTED, OURS, SINGLE, Records

if TYPE_CHECKING:
    from numpy import ndarray

MOST_VALUES: Final = 1000
"""Different values of a key up to which they are kept once each."""
LEFT_OUT: Final = frozenset({"telemetry_span_context", "stacktrace"})
"""Long, and another for each record."""
_METRICS: Final = {
    NESTED: frozenset({"metrics"}),
    SINGLE: frozenset({"metric", "value"}),
    FLAT: frozenset[str](),
}
_NUMBERS: Final = frozenset({"UBIGINT", "BIGINT", "HUGEINT", "UHUGEINT", "DOUBLE", "BOOLEAN"})


def find_details(records: Records) -> list[str]:
    """The keys of the metadata that are columns, in the order in which they come."""
    found = dict.fromkeys((*_of_ours(records), *_of_others(records)))
    return [key for key in found if key and key not in LEFT_OUT | {"step", "epoch"}]


def names_of(keys: Sequence[str], metrics: Collection[str]) -> list[str]:
    """What the columns are called: as the keys, unless something else is called so.

    Example:
        >>> names_of(["split", "event", "loss"], {"loss"})
        ['split', 'metadata.event', 'metadata.loss']
        >>> names_of(["event", "metadata.event"], ())
        ['metadata.metadata.event', 'metadata.event']
    """
    taken = {*RESERVED, *metrics}
    names = {key: key for key in keys if key not in taken}
    taken.update(names)
    for key in keys:
        if key not in names:
            names[key] = f"metadata.{key}"
            while names[key] in taken:
                names[key] = f"metadata.{names[key]}"
            taken.add(names[key])
    return [names[key] for key in keys]


class Kept(NamedTuple):
    """How a column is fetched.

    Attributes:
        expression: Its value or its code, in SQL.
        texts: The JSON texts that the codes stand for; None where there are none.
    """

    expression: str
    texts: list[str] | None


def kept_as(records: Records, columns: Sequence[str]) -> list[Kept]:
    """How columns of the table ``parsed`` with values of JSON are fetched.

    Args:
        records: The records.
        columns: Their names, in SQL.
    """
    if not columns:
        return []
    counts = ", ".join(f"approx_count_distinct({name})" for name in columns)
    (found,) = records.rows(f"SELECT {counts} FROM parsed")
    return [
        _one_by_one(records, name) if different > MOST_VALUES else _once_each(records, name)
        for name, different in zip(columns, found, strict=True)
    ]


def _one_by_one(records: Records, name: str) -> Kept:
    text = f"{name}::VARCHAR"
    number = f"coalesce(try_cast({text} AS DOUBLE), try_cast({text} AS BOOLEAN)::DOUBLE)"
    ((texts,),) = records.rows(f"SELECT count({name}) - count({number}) FROM parsed")
    if texts:
        return Kept(f"json_extract_string({name}, '$')", None)
    return Kept(f"coalesce({number}, 'NaN')", None)


def _once_each(records: Records, name: str) -> Kept:
    rows = records.rows(
        f"SELECT {name}::VARCHAR FROM parsed WHERE {name} IS NOT NULL "
        "GROUP BY 1 ORDER BY min(rowid)"
    )
    values = [value for (value,) in rows]
    if len(values) <= 1:
        return Kept(f"({name} IS NOT NULL)::INTEGER", values)
    kind = identifier(f"values of {name}")
    records.rows(f"CREATE OR REPLACE TYPE {kind} AS ENUM ({', '.join(map(quoted, values))})")
    return Kept(f"coalesce(enum_code({name}::VARCHAR::{kind})::INTEGER + 1, 0)", values)


def as_column(fetched: ndarray[Any, Any], values: list[str] | None) -> Any:
    """A column as a frame has it: numbers, booleans, or text, as is also what is beside text.

    Booleans beside numbers are 0 and 1.

    Args:
        fetched: The values, or codes that begin at 1.
        values: The JSON texts that the codes stand for.
    """
    import numpy as np  # noqa: PLC0415 -- of the extra
    import pandas as pd  # noqa: PLC0415 -- as above

    if values is None:
        missing = np.ma.getmaskarray(fetched)
        plain = np.ma.getdata(fetched)
        return np.where(missing, np.array(None), plain) if missing.any() else plain
    decoded = [_decoded(value) for value in values]
    codes = fetched.astype(np.int32)
    if decoded and all(type(value) is bool for value in decoded):
        return np.array([None, *decoded], dtype=object)[codes]
    if decoded and all(isinstance(value, (int, float)) for value in decoded):
        return np.array([np.nan, *decoded], dtype=np.float64)[codes]
    texts = [
        one if isinstance(one, str) else text for one, text in zip(decoded, values, strict=True)
    ]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    of_text = np.array([-1, *(numbers[text] for text in texts)], dtype=np.int32)
    categories = pd.Index(list(numbers), dtype="object")
    return pd.Categorical.from_codes(of_text[codes], categories=categories)


def _decoded(text: str) -> object:
    """A value of JSON; what is nested stays text."""
    return text if text[:1] in ("{", "[") else parse_json(text.encode())


def _of_ours(records: Records) -> Iterator[str]:
    rows = records.rows(
        f"SELECT json_keys(metadata) FROM records WHERE form = {OURS} AND metadata IS NOT NULL "
        "GROUP BY ALL ORDER BY min(rowid)"
    )
    for (keys,) in rows:
        yield from keys


def _of_others(records: Records) -> Iterator[str]:
    rows = records.rows(
        f"SELECT form, json_structure(metadata) FROM records WHERE form <> {OURS} "
        "GROUP BY ALL ORDER BY min(rowid)"
    )
    kinds: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for form, structure in rows:
        read = orjson.loads(structure)
        for key, kind in read.items() if isinstance(read, dict) else ():
            kinds[form][key].add(str(kind))
    for form, found in kinds.items():
        for key, of_key in found.items():
            is_metric = key in _METRICS[form] or (
                form == FLAT and key not in PLACES and of_key & _NUMBERS
            )
            if not is_metric and key not in (*TIMES, *EVENTS):
                yield key

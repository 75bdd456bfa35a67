"""Which metrics some records have: the name of each, and where its values are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from telemetry.metrics import Reporter, tracking
from telemetry.metrics.naming import fields_of, known
from telemetry.metrics.units import divisor
from telemetry.viewer.logs.engine import quoted
from telemetry.viewer.logs.foreign import PLACES, metric_name
from telemetry.viewer.logs.parsing import parse_json
from telemetry.viewer.logs.records import FLAT, OURS, Records

ENDLESS: Final = 2**62
_NUMBERS: Final = frozenset({"UBIGINT", "BIGINT", "HUGEINT", "UHUGEINT", "DOUBLE", "BOOLEAN"})
"""The engine's names of the types of JSON that can be numbers, beside text such as "NaN"."""
_RESTORED: Final = (
    "({0} IN ('NaN', 'Infinity', '-Infinity') OR (regexp_full_match({0}, '-?[1-9][0-9]{{18,999}}') "
    "AND try_cast({0} AS BIGINT) IS NULL AND try_cast({0} AS UBIGINT) IS NULL))"
)
"""Which text is a number."""
_PERHAPS: Final = '"(NaN|-?Infinity|-?[1-9][0-9]{18,999})"'
"""What such text looks like in JSON."""


class Place(NamedTuple):
    """Where values of a metric are.

    Attributes:
        forms: Of which forms the records are (see `telemetry.viewer.logs.records`).
        event: Of which event, None for any.
        path: The keys that lead to it in the measurements.
        naming: Keys of the metadata with the JSON text that they have, where these make the name.
        factor: What a value is multiplied by to be as it is reported.
        textual: Whether some values are text, of which only ``"NaN"``, the infinities and integers
            beyond 64 bits are numbers (see `telemetry.values.restore_number`).
        only_text: Whether all values are text, as far as is known.
    """

    forms: tuple[int, ...]
    event: str | None
    path: tuple[str, ...]
    naming: tuple[tuple[str, str | None], ...] = ()
    factor: float = 1.0
    textual: bool = False
    only_text: bool = False

    @property
    def condition(self) -> str:
        """Which records have it, in SQL."""
        terms = [f"form IN ({', '.join(map(str, self.forms))})"]
        if self.event is not None:
            terms.append(f"event = {quoted(self.event)}")
        terms += [
            f"json_extract(metadata, {quoted(pointer(key))}) IS NOT DISTINCT FROM "
            + ("NULL" if value is None else quoted(value))
            for key, value in self.naming
        ]
        return " AND ".join(terms)

    def scaled(self, value: str) -> str:
        """A value as it is reported, in SQL."""
        inverse = divisor(self.factor)
        if self.factor == 1:
            return value
        return f"{value} / {inverse}.0" if inverse else f"{value} * {self.factor!r}"

    @property
    def top(self) -> tuple[str, ...]:
        """Its key where the measurements themselves have it as a number, else ()."""
        return self.path if len(self.path) == 1 and not self.textual else ()

    @property
    def value(self) -> str:
        """The value in a record that has it, in SQL; NULL where it is no number."""
        *above, key = self.path
        inside = f"measurements->{quoted(pointer(*above))}" if above else "measurements"
        shape = quoted(orjson.dumps({key: "DOUBLE"}).decode())
        value = f"struct_extract(from_json({inside}, {shape}), {quoted(key)})"
        if self.textual:
            text = f"json_extract_string(measurements, {quoted(pointer(*self.path))})"
            kind = f"json_type(measurements, {quoted(pointer(*self.path))})"
            value = f"CASE WHEN {kind} <> 'VARCHAR' OR {_RESTORED.format(text)} THEN {value} END"
        return self.scaled(value)


class Column(NamedTuple):
    """A metric.

    Attributes:
        name: Its reported name.
        places: Where its values are.
    """

    name: str
    places: tuple[Place, ...]

    @property
    def condition(self) -> str:
        """Which records can have it, in SQL."""
        return " OR ".join(f"({place.condition})" for place in self.places)

    @property
    def value(self) -> str:
        """Its value in such a record, in SQL; NULL where it is no number."""
        return self.first_of([place.value for place in self.places])

    def first_of(self, values: Sequence[str]) -> str:
        """The value of the first of its places that has one, in SQL, in the order of their paths.

        Args:
            values: What there is in each place.
        """
        if len(values) == 1:
            return values[0]
        by_path = sorted(zip(self.places, values, strict=True), key=lambda pair: pair[0].path)
        cases = [f"CASE WHEN {place.condition} THEN {value} END" for place, value in by_path]
        return f"coalesce({', '.join(cases)})"


def find_columns(
    records: Records, *, after: int = -1, until: int | None = None
) -> dict[str, Column]:
    """The metrics that some records have, by name, in the order in which they come.

    Our own records are named as `telemetry.metrics` reports them to a tracker; in those of other
    programs the slashes of names become dots.

    Args:
        records: The records.
        after: Only those behind this ``rowid`` are looked at.
        until: And only those up to this one, None for all.
    """
    rows = (after, ENDLESS if until is None else until)
    places: dict[str, list[Place]] = defaultdict(list)
    for name, place in (*_reported(records, rows), *_foreign(records, rows)):
        places[name].append(place)
    return {name: Column(name, tuple(found)) for name, found in places.items()}


def with_values(records: Records, columns: Collection[Column]) -> list[Column]:
    """Those that can have a number: what other programs wrote may be text that stands for none.

    Args:
        records: The records.
        columns: Their metrics.
    """
    unsure = {
        column.name: {place.path[-1] for place in column.places}
        for column in columns
        if all(place.only_text for place in column.places)
    }
    if not unsure:
        return list(columns)
    restored = _RESTORED.format("one.atom->>'$'")
    found = records.rows(
        "SELECT DISTINCT one.key FROM records, json_tree(measurements) AS one "
        f"WHERE form <> {OURS} AND regexp_matches(measurements::VARCHAR, '{_PERHAPS}') "
        f"AND one.type = 'VARCHAR' AND {restored}"
    )
    keys = {key for (key,) in found}
    return [column for column in columns if column.name not in unsure or unsure[column.name] & keys]


def pointer(*keys: str) -> str:
    """The JSON pointer to what some keys lead to (RFC 6901).

    Example:
        >>> pointer("train/loss", "a")
        '/train~1loss/a'
    """
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


def _reported(records: Records, rows: tuple[int, int]) -> Iterator[tuple[str, Place]]:
    reporter = Reporter(tracking())
    found = records.rows(
        f"SELECT event, json_keys(measurements) AS keys FROM records WHERE form = {OURS} "
        "AND rowid > ? AND rowid <= ? GROUP BY ALL ORDER BY min(rowid)",
        rows,
    )
    textual = _textual(records, rows)
    keys_of: dict[str, dict[str, None]] = {}
    for event, keys in found:
        keys_of.setdefault(event, {}).update(dict.fromkeys(keys))
    for event, keys in keys_of.items():
        for metadata, naming in _namings(records, event, rows):
            for name, place in _names(reporter, event, filter(None, keys), metadata, naming):
                yield name, place._replace(textual=(event, *place.path) in textual)


def _textual(records: Records, rows: tuple[int, int]) -> set[tuple[str, str]]:
    """The events and keys of measurements that are text in some record."""
    return set(
        records.rows(
            "SELECT DISTINCT records.event, one.key FROM records, json_each(measurements) AS one "
            f"WHERE form = {OURS} AND records.rowid > ? AND records.rowid <= ? "
            "AND (contains(measurements, ':\"') OR contains(measurements, ': \"')) "
            "AND one.type = 'VARCHAR'",
            rows,
        )
    )


def _names(
    reporter: Reporter,
    event: str,
    keys: Iterable[str],
    metadata: Mapping[str, Any],
    naming: tuple[tuple[str, str | None], ...],
) -> Iterator[tuple[str, Place]]:
    for key in keys:
        for sample in reporter.samples(tuple(event.split(".")), {key: 1.0}, metadata):
            yield sample.name, Place((OURS,), event, (key,), naming, sample.metric.factor)


def _namings(
    records: Records, event: str, rows: tuple[int, int]
) -> list[tuple[dict[str, Any], tuple[tuple[str, str | None], ...]]]:
    """What the metadata of an event's records has that makes names."""
    template = known(tuple(event.split(".")), "").report_as
    fields = sorted(fields_of(template) - {"event", "measurement"})
    if not fields:
        return [({}, ())]
    texts = ", ".join(f"json_extract(metadata, {quoted(pointer(field))})" for field in fields)
    found = records.rows(
        f"SELECT {texts} FROM records WHERE form = {OURS} AND event = ? "
        "AND rowid > ? AND rowid <= ? GROUP BY ALL ORDER BY min(rowid)",
        [event, *rows],
    )
    return [
        (
            {f: parse_json(t.encode()) for f, t in zip(fields, row, strict=True) if t is not None},
            tuple(zip(fields, row, strict=True)),
        )
        for row in found
    ]


def _foreign(records: Records, rows: tuple[int, int]) -> Iterator[tuple[str, Place]]:
    found = records.rows(
        f"SELECT form, json_structure(measurements) FROM records WHERE form <> {OURS} "
        "AND rowid > ? AND rowid <= ? GROUP BY ALL ORDER BY min(rowid)",
        rows,
    )
    forms: dict[tuple[str, ...], set[int]] = defaultdict(set)
    kinds: dict[tuple[str, ...], set[bool]] = defaultdict(set)
    for form, structure in found:
        for path, kind in _numbers(orjson.loads(structure)):
            if form != FLAT or path[0] not in PLACES:
                forms[path].add(form)
                kinds[path].add(kind == "VARCHAR")
    for path, of in forms.items():
        has_text, only_text = True in kinds[path], False not in kinds[path]
        place = Place(tuple(sorted(of)), None, path, textual=has_text, only_text=only_text)
        yield metric_name(path), place


def _numbers(structure: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The paths to what can be a number, and what the engine calls it."""
    if isinstance(structure, dict):
        for key, inner in structure.items():
            if key:
                yield from _numbers(inner, (*above, key))
    elif above and isinstance(structure, str) and structure in _NUMBERS | {"VARCHAR"}:
        yield above, structure

"""Many keys of JSON objects, parsed at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import orjson

from telemetry.viewer.logs.columns import Column
from telemetry.viewer.logs.engine import identifier, quoted

MOST_KEYS: Final = 500
"""Keys that are parsed at once."""


class Shapes:
    """The structures that hold some keys of an object, for the engine's ``from_json``.

    The engine's structures tell no upper from lower case, so keys that differ in that alone are in
    several.

    Args:
        prefix: How the structures are called.
        source: The object, in SQL.
        keys: The keys.
        kind: The type of their values.

    Example:
        >>> shapes = Shapes("m", "measurements", ["loss", "Loss"], "DOUBLE")
        >>> len(shapes.parsed()), shapes["Loss"]
        (2, '"m1"."Loss"')
    """

    def __init__(self, prefix: str, source: str, keys: Iterable[str], kind: str) -> None:
        self._prefix = prefix
        self._source = source
        self._kind = kind
        self._layers: list[dict[str, str]] = []
        self._layer_of = {key: self._place(key) for key in dict.fromkeys(keys)}

    def __getitem__(self, key: str) -> str:
        """The value of a key, in SQL."""
        return f"{identifier(self._name(self._layer_of[key]))}.{identifier(key)}"

    def parsed(self) -> list[str]:
        """The structures, in SQL."""
        return [
            f"from_json({self._source}, {quoted(self._shape(layer))}) AS "
            f"{identifier(self._name(number))}"
            for number, layer in enumerate(self._layers)
        ]

    def _shape(self, layer: dict[str, str]) -> str:
        return orjson.dumps(dict.fromkeys(layer.values(), self._kind)).decode()

    def _name(self, number: int) -> str:
        return f"{self._prefix}{number}"

    def _place(self, key: str) -> int:
        folded = key.casefold()
        for number, layer in enumerate(self._layers):
            if folded not in layer and len(layer) < MOST_KEYS:
                layer[folded] = key
                return number
        self._layers.append({folded: key})
        return len(self._layers) - 1


class Numbers(Shapes):
    """The measurements of some metrics, parsed at once.

    Args:
        columns: The metrics.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        top = [key for column in columns for place in column.places for key in place.top]
        super().__init__("numbers", "measurements", top, "DOUBLE")

    def value(self, column: Column) -> str:
        """The value of one of the metrics, in SQL; NULL in a record that has none."""
        return f"CASE WHEN {column.condition} THEN {self.within(column)} END"

    def within(self, column: Column) -> str:
        """Its value in a record that can have it, in SQL."""
        values = [
            place.scaled(self[place.path[0]]) if place.top else place.value
            for place in column.places
        ]
        return column.first_of(values)

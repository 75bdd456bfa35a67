"""Which time series a sink has made: their number is bounded, and a name means one thing."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

MAX_NAMES: Final = 2000
"""Names of metrics; they can have values of the metadata in them."""

Refusal: TypeAlias = Literal["", "name_taken", "max_series"]

Labels: TypeAlias = tuple[str, ...]


class Series:
    """Admits the series of a sink for which each costs memory, here and where they are kept.

    The first metric of a name says what its kind and its labels are. Another kind, or other
    labels, cannot have the same name; nor can a metric that is reported under another name, and
    only has this one because of the characters that a name may have here.

    Args:
        most: How many series a metric may have, one for each set of values of its labels.

    Example:
        >>> series = Series(2)
        >>> for value in ("a", "a", "b", "c"):
        ...     print(repr(series.admit("my_loss", "my.loss", "gauge", ("run_id",), (value,))))
        ''
        ''
        ''
        'max_series'
        >>> series.admit("my_loss", "my.loss", "counter", ("run_id",), ("a",))
        'name_taken'
        >>> series.admit("my_loss", "my-loss", "gauge", ("run_id",), ("a",))
        'name_taken'
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._shapes: dict[str, tuple[str, str, Labels]] = {}
        self._known: dict[str, set[Labels]] = {}

    def admit(self, name: str, reported: str, kind: str, labels: Labels, values: Labels) -> Refusal:
        """Whether a value may be kept; if not, why.

        Args:
            name: The metric's, as the sink writes it.
            reported: The same, as it is reported.
            kind: How its values are combined.
            labels: The names of its labels, as they are reported.
            values: Theirs, in the same order.
        """
        shape = self._shapes.get(name)
        if shape is None:
            if len(self._shapes) >= MAX_NAMES:
                return "max_series"
            shape = self._shapes[name] = (reported, kind, labels)
            self._known[name] = set()
        if shape != (reported, kind, labels):
            return "name_taken"
        known = self._known[name]
        if values not in known:
            if len(known) >= self._most:
                return "max_series"
            known.add(values)
        return ""

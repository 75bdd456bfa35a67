"""What a row of the event catalogue says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from telemetry.events.reported import bind, fill, measured_in, reported_in, with_unit
from telemetry.records import Pattern


@dataclass(frozen=True, slots=True)
class Field:
    """One measurement or one key of the metadata."""

    name: str
    about: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class EventSpec:
    """One row of the catalogue.

    Attributes:
        name: The event, ``"*"`` standing for what its emitter names.
        about: When it is emitted.
        emitter: The package that emits it; ``"your code"`` where the name is a convention.
        reported: Template of the name under which a measurement is shown in plots and by sinks.
        measurements: Those it may have; events of ``your code`` may have any others as well.
        metadata: Likewise.
        detail: Whether it comes many times a step, and is left out where a person reads along.
    """

    name: Pattern
    about: str
    emitter: str
    reported: str
    measurements: tuple[Field, ...] = ()
    metadata: tuple[Field, ...] = ()
    detail: bool = field(default=False, kw_only=True)

    @property
    def dotted(self) -> str:
        """The name as it is written in files and on the command line."""
        return ".".join(self.name)

    def reported_name(self, measurement: str, metadata: Mapping[str, Any]) -> str:
        """The name under which a measurement is shown, durations in milliseconds.

        Args:
            measurement: Its name in the event.
            metadata: The event's, which names splits, regularizers, operations and groups. What
                it lacks is shown as ``?``.
        """
        unit = next((field.unit for field in self.measurements if field.name == measurement), "")
        unit = reported_in(measurement, measured_in(self.name, measurement, unit))
        template = with_unit(self.reported, measurement, unit)
        return fill(bind(template, self.name, measurement), metadata)

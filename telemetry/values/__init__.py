"""Measurements as Python values: the one place where a tensor becomes a number.

No framework is imported for it; a value is recognised through the modules that its owner has
imported already.
"""

from telemetry.values.host import on_device, to_python, to_python_many
from telemetry.values.jsonable import LARGEST, SMALLEST, jsonable
from telemetry.values.nesting import DEEPEST, is_too_deep
from telemetry.values.restored import (
    END_OF_TIME,
    check_time_ns,
    restore_metadata,
    restore_number,
    restore_span,
    restore_time_ns,
)

__all__ = [
    "DEEPEST",
    "END_OF_TIME",
    "LARGEST",
    "SMALLEST",
    "check_time_ns",
    "is_too_deep",
    "jsonable",
    "on_device",
    "restore_metadata",
    "restore_number",
    "restore_span",
    "restore_time_ns",
    "to_python",
    "to_python_many",
]

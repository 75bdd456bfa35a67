"""Measurements as Python values: the one place where a tensor becomes a number.

No framework is imported for it; a value is recognised through the modules that its owner has
imported already.
"""

from telemetry.values.host import on_device, to_python, to_python_many
from telemetry.values.jsonable import jsonable

__all__ = ["jsonable", "on_device", "to_python", "to_python_many"]

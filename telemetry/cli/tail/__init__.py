"""``telemetry tail``."""

from telemetry.cli.tail.command import tail

__all__ = ["tail"]

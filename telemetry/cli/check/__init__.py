"""``telemetry check``."""

from telemetry.cli.check.command import check

__all__ = ["check"]

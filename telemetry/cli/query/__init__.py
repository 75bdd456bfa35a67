"""``telemetry query``."""

from telemetry.cli.query.command import query

__all__ = ["query"]

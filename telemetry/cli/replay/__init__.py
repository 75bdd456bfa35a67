"""``telemetry replay``."""

from telemetry.cli.replay.command import replay

__all__ = ["replay"]

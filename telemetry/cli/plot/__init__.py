"""``telemetry plot``."""

from telemetry.cli.plot.command import plot

__all__ = ["plot"]

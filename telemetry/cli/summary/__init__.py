"""``telemetry summary``."""

from telemetry.cli.summary.command import summary

__all__ = ["summary"]

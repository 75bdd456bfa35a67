"""The command ``telemetry``."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

from telemetry.cli.endings import Commands

__all__ = ["main"]

NAMES: Final = (
    "alerts",
    "check",
    "completion",
    "demo",
    "events",
    "plot",
    "query",
    "relay",
    "replay",
    "summary",
    "tail",
    "view",
)
"""The commands; each is in the module or the package that is called like it."""


class _Telemetry(Commands):
    """Imports a command when it is asked for: the others may take longer than what it does."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands."""
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name."""
        if cmd_name not in NAMES:
            return None
        command: click.Command = getattr(import_module(f"telemetry.cli.{cmd_name}"), cmd_name)
        return command


@click.group(
    cls=_Telemetry,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="trainbus", prog_name="telemetry")
def commands() -> None:
    """A telemetry event bus for machine-learning training."""


def main() -> None:
    """Run the command line; the console script's entry point."""
    commands(prog_name="telemetry")

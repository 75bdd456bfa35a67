"""The command ``telemetry``."""

from __future__ import annotations

import click

from telemetry.cli.alerts import alerts
from telemetry.cli.check import check
from telemetry.cli.completion import completion
from telemetry.cli.demo import demo
from telemetry.cli.events import events
from telemetry.cli.relay import relay

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="trainbus", prog_name="telemetry")
def commands() -> None:
    """A telemetry event bus for machine-learning training."""


commands.add_command(alerts)
commands.add_command(check)
commands.add_command(completion)
commands.add_command(demo)
commands.add_command(events)
commands.add_command(relay)


def main() -> None:
    """Run the command line; the console script's entry point."""
    commands(prog_name="telemetry")

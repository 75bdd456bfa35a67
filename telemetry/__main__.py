"""``python -m telemetry``: the command line."""

from telemetry.cli import main

main()

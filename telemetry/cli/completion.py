"""``telemetry completion``: complete commands and options in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "fish", "zsh"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that makes SHELL complete commands and options.

    For this session of bash: eval "$(telemetry completion bash)"
    """
    script = get_completion_class(shell)
    if script is None:
        raise click.ClickException(f"No completion for {shell!r}.")
    root = context.find_root()
    click.echo(script(root.command, {}, "telemetry", "_TELEMETRY_COMPLETE").source())

"""``telemetry alerts``: check a file of alert rules."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import click

from telemetry.alerts import Rule, load
from telemetry.alerts.words import condition, more_of
from telemetry.cli.options.named_path import NamedPath
from telemetry.cli.output.printable import printable

HEADER = ("rule", "severity", "metric", "condition", "and")
COLOURS = {"critical": "red", "error": "red", "warning": "yellow", "info": "cyan"}


@click.command()
@click.argument("file", type=NamedPath())
def alerts(file: Path) -> None:
    """Check FILE, a TOML file of alert rules, and print its rules.

    The exit status is 1 if one of them cannot be; each error is printed with its line, and so is
    each name that is probably misspelt.
    """
    try:
        with warnings.catch_warnings(record=True) as doubts:
            warnings.simplefilter("always")
            rules = load(file)
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    for doubt in doubts:
        click.echo(f"Warning: {doubt.filename}:{doubt.lineno}: {doubt.message}", err=True)
    for line in as_table(rules):
        click.echo(line)


def as_table(rules: tuple[Rule, ...]) -> Iterator[str]:
    """The lines of a table, one for each rule and one for its message."""
    rows = [
        HEADER,
        *(
            (printable(r.name), r.severity, printable(r.metric), condition(r), more_of(r))
            for r in rules
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, rule in zip(rows, (None, *rules), strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        if rule is None:
            yield click.style("  ".join(cells).rstrip(), bold=True)
            continue
        cells[1] = click.style(cells[1], fg=COLOURS[rule.severity])
        yield "  ".join(cells).rstrip()
        if rule.message:
            yield f"    {printable(rule.message)}"

"""``telemetry events``: print the event catalogue."""

from __future__ import annotations

import dataclasses
import difflib
from itertools import groupby

import click

from telemetry.cli.options.event_choice import complete_event, parse_pattern
from telemetry.events import CATALOGUE, EventSpec, Field, select
from telemetry.names import overlaps


@click.command()
@click.argument("prefix", default="", shell_complete=complete_event)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "json"]),
    default="text",
    show_default=True,
    help="How to print it.",
)
@click.option("--json", "form", flag_value="json", help="The same as --format json.")
def events(prefix: str, form: str) -> None:
    """Print the event catalogue, or the part of it that begins with PREFIX.

    PREFIX is dotted, such as training or smartclip.clip.stop; with * and ** it is a pattern of
    whole names.
    """
    pattern = parse_pattern(prefix, "PREFIX")
    if "*" in prefix:
        specs = select(pattern)
    else:
        specs = [spec for spec in CATALOGUE if overlaps(spec.name, pattern)]
    if not specs:
        raise click.ClickException(_unknown(prefix))
    printers = {"text": as_text, "markdown": as_markdown, "json": as_json}
    click.echo(printers[form](specs))


def as_text(specs: list[EventSpec]) -> str:
    """The catalogue as a terminal shows it."""
    return "\n\n".join("\n".join(_text_lines(spec)) for spec in specs)


def as_markdown(specs: list[EventSpec]) -> str:
    """The catalogue as a section of the documentation for each first segment."""
    families = groupby(specs, key=lambda spec: spec.name[0])
    return "\n\n".join(_markdown_section(name, list(family)) for name, family in families)


def as_json(specs: list[EventSpec]) -> str:
    """The catalogue as a list of objects."""
    import orjson  # noqa: PLC0415 -- the other formats do without

    records = [dataclasses.asdict(spec) | {"name": spec.dotted} for spec in specs]
    return orjson.dumps(records, option=orjson.OPT_INDENT_2).decode()


def _unknown(prefix: str) -> str:
    names = [spec.dotted for spec in CATALOGUE]
    near = difflib.get_close_matches(prefix, names, n=3, cutoff=0.4)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return f"No event begins with {prefix!r}.{hint} All of them: telemetry events"


def _reported(spec: EventSpec) -> str:
    return spec.reported.replace("{measurement}", "*").replace("{", "<").replace("}", ">")


def _text_lines(spec: EventSpec) -> list[str]:
    lines = [
        click.style(spec.dotted, bold=True),
        f"  {spec.about} (emitted by {spec.emitter}, reported as {_reported(spec)})",
    ]
    for title, fields in (("measurements", spec.measurements), ("metadata", spec.metadata)):
        lines += [f"  {title}:"] if fields else []
        lines += [f"    {f.name:<28} {f.about}{f' [{f.unit}]' if f.unit else ''}" for f in fields]
    return lines


def _markdown_section(name: str, specs: list[EventSpec]) -> str:
    emitters = ", ".join(dict.fromkeys(spec.emitter for spec in specs))
    lines = [f"## {name}", "", f"Emitted by: {emitters}.", ""]
    lines += ["| event | measurements | metadata |", "|---|---|---|"]
    for spec in specs:
        measurements, metadata = map(_markdown_fields, (spec.measurements, spec.metadata))
        event = f"`{spec.dotted}`<br>{spec.about}<br>reported as `{_reported(spec)}`"
        lines.append(f"| {event} | {measurements} | {metadata} |")
    return "\n".join(lines)


def _markdown_fields(fields: tuple[Field, ...]) -> str:
    return "<br>".join(
        f"`{field.name}`{f' [{field.unit}]' if field.unit else ''}: {field.about}"
        for field in fields
    )

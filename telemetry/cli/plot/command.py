"""``telemetry plot``: metrics of runs as a picture, a window, or characters in the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from telemetry.cli.options.many_values import ManyValues, ManyValuesCommand
from telemetry.cli.options.named_path import NamedPath
from telemetry.cli.plot.places import Places, places_of

MODES: Final = ("mean", "centered", "ema", "median")
BANDS: Final = ("minmax", "std")
QUICK: Final = 20_000_000
"""Bytes of a log that is read to complete the name of a metric."""


LISTING: Final = frozenset({"paths", "inputs", "metrics", "listed", "as_json"})
"""The options that go with --list."""
SHAPES: Final = frozenset({"size", "dpi"})
"""Those that only a picture or a window has a use for."""


def _has_inches(asked: Mapping[str, Any]) -> bool:
    return asked["out"] is not None or asked["show"]


def _has_pixels(asked: Mapping[str, Any]) -> bool:
    return asked["out"] is not None and asked["out"].suffix.lower() not in (".svg", ".pdf")


class Company(NamedTuple):
    """What an option is for, and whether that is there with the options beside it."""

    purpose: str
    serves: Callable[[Mapping[str, Any]], object]


COMPANY: Final = {
    "as_json": Company("--list", itemgetter("listed")),
    "smooth_mode": Company("--smooth POINTS, such as --smooth 20", itemgetter("smooth")),
    "size": Company("a picture or a window: --out or --show", _has_inches),
    "dpi": Company("a .png, such as --out metrics.png", _has_pixels),
}


class Size(click.ParamType[tuple[float, float]]):
    """Width and height in inches.

    Example:
        >>> Size().convert("8x4.5", None, None)
        (8.0, 4.5)
    """

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, float]:
        """The numbers, or an error that says what is allowed."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)", str(value))
        size = (float(found[1]), float(found[2])) if found else (0.0, 0.0)
        if not all(1 <= side <= 100 for side in size):  # noqa: PLR2004 -- inches
            self.fail(
                f"{value!r} is not WIDTHxHEIGHT in inches, from 1 to 100, such as 8x4.5.",
                param,
                ctx,
            )
        return size


def complete_metric(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The metrics of the logs that are written before, if they are quickly read."""
    paths = [*(context.params.get("paths") or ()), *(context.params.get("inputs") or ())]
    try:
        from telemetry.cli.plot.drawing import metrics_in, sources_of  # noqa: PLC0415 -- it needs NumPy

        sources = sources_of([Path(path) for path in paths], quiet=True)
        if sum(source.path.stat().st_size for source in sources) > QUICK:
            return []
        names = metrics_in(sources)
    except (ImportError, OSError, ValueError, click.ClickException):
        return []  # nothing to complete for logs that cannot be read
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command(
    cls=ManyValuesCommand,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.argument("paths", nargs=-1, metavar="[LOG]...", type=NamedPath())
@click.option(
    "--input",
    "inputs",
    cls=ManyValues,
    metavar="LOG...",
    type=NamedPath(),
    help="Logs, as the arguments are.",
)
@click.option(
    "--metrics",
    cls=ManyValues,
    metavar="NAME...",
    shell_complete=complete_metric,
    help="Names (train.loss), prefixes (val.) or patterns ('*.loss'). Slashes are dots, and "
    "train. is training.  [default: losses, gradient norms, the learning rate, evaluations]",
)
@click.option(
    "--x-key",
    metavar="COLUMN",
    help="The horizontal axis: step, epoch, time (since each run's first record), or any number of "
    "the records; record, its number in its run, in a log without step, epoch and time.  [default: "
    "the first of these that there is]",
)
@click.option(
    "--smooth",
    type=click.IntRange(min=0),
    default=0,
    metavar="POINTS",
    help="Window of the moving average; what was measured stays behind it. Curves with no more "
    "points than that stay as they are.  [default: 0, none]",
)
@click.option(
    "--smooth-mode",
    type=click.Choice(MODES),
    default="mean",
    show_default=True,
    help="mean of the points before; centered; ema, debiased, alpha = 2 / (POINTS + 1); median.",
)
@click.option(
    "--downsample",
    type=int,
    default=2000,
    show_default=True,
    metavar="POINTS",
    help="Most points of a line, after smoothing; its extremes stay. 0 draws all.",
)
@click.option("--prefer-avg", is_flag=True, help="train.avg_loss in place of train.loss.")
@click.option(
    "--clip-pct",
    "clip",
    cls=ManyValues,
    type=float,
    metavar="[LOW] HIGH",
    help="Clamp what is above this percentile; with two, also what is below the first.",
)
@click.option("--log", is_flag=True, help="A logarithmic vertical axis.")
@click.option(
    "--band",
    type=click.Choice(BANDS),
    help="Runs that differ only in their seed or last number as their mean, with a band from the "
    "lowest to the highest, or of one standard deviation.",
)
@click.option("--labels", cls=ManyValues, metavar="TEXT...", help="A name for each run.")
@click.option("--title", help="What stands above the picture.")
@click.option("--size", type=Size(), metavar="WxH", help="Inches, such as 8x4.5.")
@click.option("--dpi", type=click.IntRange(20, 1200), default=120, show_default=True)
@click.option(
    "--out",
    type=NamedPath(),
    help="A .png, .svg or .pdf file. Its folders are made.  [default: metrics.png here, unless "
    "--show, --terminal or --list is given]",
)
@click.option("--show", is_flag=True, help="Open a window.")
@click.option(
    "--terminal",
    is_flag=True,
    help="Draw with characters. So it is by default in a terminal that has no display, unless "
    "--size or --dpi is given.",
)
@click.option("--follow", is_flag=True, help="Draw again when a log grows, until Ctrl-C.")
@click.option(
    "--list",
    "listed",
    is_flag=True,
    help="List the metrics, or those of --metrics: how many values each has, the last.",
)
@click.option("--json", "as_json", is_flag=True, help="With --list: as JSON.")
def plot(paths: tuple[Path, ...], inputs: tuple[Path, ...], **asked: Any) -> None:
    """Plot metrics of one run or several.

    LOG is a JSONL file, plain or gzipped, a pattern, or a directory, of which the log that was
    written last is meant. By default it is the directory runs, or this one where there is none.
    Several logs are several lines of one chart. Metrics whose names end alike share a panel.

    \b
    telemetry plot runs                         a first look at the newest run
    telemetry plot runs --list                  what there is to look at
    telemetry plot a.jsonl b.jsonl --metrics train.loss val.loss --smooth 20 --out loss.png
    telemetry plot runs/*/metrics.jsonl --metrics val.loss --x-key time --band minmax
    telemetry plot runs --terminal --follow     in a terminal, while it trains

    The exit status is 1 if a log has no metrics or none of those named, 2 if an option is wrong.
    """  # noqa: D301 -- click looks for the character itself
    from telemetry.cli.plot.drawing import Request, run, sources_of  # noqa: PLC0415 -- as above
    from telemetry.cli.plot.listing import list_metrics  # noqa: PLC0415 -- it needs NumPy

    context = click.get_current_context()
    shaped = not _given(context).keys().isdisjoint(SHAPES)
    places = places_of(asked["out"], asked["show"], asked["terminal"], shaped=shaped)
    _check_company(context, places)
    as_json, listed = asked.pop("as_json"), asked.pop("listed")
    sources = sources_of([*paths, *inputs])
    if listed:
        list_metrics(sources, asked["metrics"], as_json=as_json)
        return
    run(sources, Request(**asked | places._asdict()))


def _check_company(context: click.Context, places: Places) -> None:
    """Raise for options that would do nothing beside the others."""
    asked = context.params | places._asdict()
    for name, flag in _given(context).items():
        if asked["listed"] and name not in LISTING:
            raise click.UsageError(f"--list draws nothing, and takes no {flag}.")
        if name in COMPANY and not COMPANY[name].serves(asked):
            raise click.UsageError(f"{flag} is for {COMPANY[name].purpose}.")


def _given(context: click.Context) -> dict[str, str]:
    """The options that were written, by their names."""
    return {
        option.name or "": option.opts[0]
        for option in context.command.params
        if context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
    }

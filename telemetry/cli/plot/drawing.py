"""What ``telemetry plot`` does: read, work out the chart, and draw it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from telemetry.cli.output.file_errors import file_errors
from telemetry.cli.output.printable import printable
from telemetry.cli.output.progress import write_anew
from telemetry.cli.plot.picture_warnings import in_sentences
from telemetry.errors import MissingExtraError
from telemetry.viewer.charts.bands import Band
from telemetry.viewer.charts.chart import Chart, chart_of, check_frames, without_metrics
from telemetry.viewer.charts.labels import check_labels
from telemetry.viewer.charts.treatment import Treatment, check_treatment
from telemetry.viewer.frames.axes import check_axis, metric_called, usual_axis
from telemetry.viewer.frames.frame import frame_of
from telemetry.viewer.frames.limits import Percentiles
from telemetry.viewer.frames.points import runs_of
from telemetry.viewer.frames.selection import default_metrics, match_metrics, prefer_averages
from telemetry.viewer.frames.smoothing import SmoothMode
from telemetry.viewer.logs.columns import Column, find_columns, with_values
from telemetry.viewer.logs.records import Records
from telemetry.viewer.logs.runs import find_runs
from telemetry.viewer.logs.sources import Source, find_logs, newest_log

if TYPE_CHECKING:
    from pandas import DataFrame

HOME: Final = Path("runs")
LARGE: Final = 100_000_000
"""Bytes from which on reading takes more than a moment."""
CANDIDATES: Final = 24
"""Panels of metrics that are read when none is named; those without the axis are then left out."""


class Request(NamedTuple):
    """What was asked for, as the options say it; and where it goes, as `places_of` says it."""

    metrics: tuple[str, ...]
    x_key: str | None
    smooth: int
    smooth_mode: SmoothMode
    downsample: int
    prefer_avg: bool
    clip: tuple[float, ...]
    log: bool
    band: Band | None
    labels: tuple[str, ...]
    title: str | None
    size: tuple[float, float] | None
    dpi: int
    out: Path | None
    show: bool
    terminal: bool
    follow: bool


def sources_of(paths: Sequence[Path], *, quiet: bool = False) -> tuple[Source, ...]:
    """The logs that are meant: of a directory the one that was written last, which is said.

    Args:
        paths: Files, patterns and directories.
        quiet: Whether nothing is said.

    Raises:
        click.ClickException: There is none, or it cannot be read.
    """
    with file_errors():
        given = list(paths) or [HOME if HOME.is_dir() else Path()]
        meant = [newest_log(path) if path.is_dir() else path for path in given]
        for path, file in zip(given, meant, strict=True):
            others = len(find_logs([path])) if path != file and not quiet else 1
            if others > 1:
                said = f"{file} is the newest of {others} logs in {path}. Others are drawn by name."
                click.echo(printable(said), err=True)
        return find_logs(meant)


def metrics_in(sources: Sequence[Source]) -> list[str]:
    """The names of the metrics of some logs."""
    with warnings.catch_warnings(action="ignore"), Records(sources) as records:
        return list(find_columns(records))


def run(sources: Sequence[Source], asked: Request) -> None:
    """Draw once, or until Ctrl-C.

    Raises:
        click.ClickException: There is nothing to draw, or it cannot be drawn or written.
    """
    from telemetry.cli.plot.following import follow  # noqa: PLC0415 -- it needs a Request
    from telemetry.cli.plot.outputs import outputs_of  # noqa: PLC0415 -- it needs a Request

    if asked.title is None and len(sources) == 1:
        asked = asked._replace(title=printable(str(sources[0].path)))
    try:
        treatment = check_treatment(
            asked.smooth, asked.smooth_mode, _percentiles(asked), asked.band, asked.downsample
        )
        outputs = outputs_of(asked)
    except (MissingExtraError, OSError) as error:
        raise click.ClickException(_words(error)) from error
    except ValueError as error:
        raise click.UsageError(printable(str(error))) from error
    if asked.follow:
        follow(sources, asked, treatment, outputs)
    with reading(sources, follow=False) as records, told():
        chart = read_chart(records, asked, treatment)
        for output in outputs:
            output(chart)


def read_chart(records: Records, asked: Request, treatment: Treatment) -> Chart:
    """The chart of what was recorded by now.

    Raises:
        ValueError: There is nothing to draw.
    """
    columns = find_columns(records)
    if asked.metrics:
        names = _matched(asked.metrics, columns, records) if columns else []
    else:
        names = default_metrics(columns, panels=CANDIDATES)
    if asked.prefer_avg:
        names = prefer_averages(names, columns)
    axis_metric = metric_called(asked.x_key, list(columns)) if asked.x_key else []
    first = [name for name in axis_metric if name not in names]
    frame = frame_of(records, [columns[name] for name in (*first, *names)], only=bool(names))
    frame.attrs["metrics"] = [name for name in frame.attrs["metrics"] if name not in first]
    frame.attrs["sources"] = _files_of(records)
    frames = check_frames(frame, "plot_metrics")
    if asked.x_key is None:
        axis = usual_axis(frames)
    elif first:
        axis = first[0]
    else:
        axis = check_axis(frames, asked.x_key, list(columns))
    runs = _runs_of(records, list(frame.attrs["origins"]))
    by_run = dict(zip(runs, check_labels(asked.labels or runs, runs), strict=True))
    labels = [by_run[run] for run, _ in runs_of(frame)] if asked.labels else None
    chart = chart_of(frames, names if asked.metrics else None, axis, labels, treatment)
    _warn_of_missing(frame, _meant(asked, columns) or {"": list(chart.metrics)}, by_run)
    return chart


def _runs_of(records: Records, runs: Sequence[str]) -> list[str]:
    """The labels of all runs in the order of their logs, also of logs that have no record."""
    firsts: dict[str, int] = dict(records.rows("SELECT run, min(source) FROM current GROUP BY run"))
    filled = {source for (source,) in records.rows("SELECT DISTINCT source FROM records")}
    empty = {
        source.label: number
        for number, source in enumerate(records.sources)
        if number not in filled
    }
    return sorted([*runs, *empty], key={**empty, **firsts}.__getitem__)


def _meant(asked: Request, columns: dict[str, Column]) -> dict[str, list[str]]:
    """The metrics that are meant by each name."""
    meant = {name: match_metrics(name, columns) for name in asked.metrics}
    if not asked.prefer_avg:
        return meant
    return {name: prefer_averages(found, columns) for name, found in meant.items()}


def _warn_of_missing(frame: DataFrame, meant: dict[str, list[str]], labels: dict[str, str]) -> None:
    """Say which runs have nothing of what was named, or of what is drawn where nothing was."""
    found = {run: frame.iloc[rows] for run, rows in runs_of(frame)}
    for run, label in labels.items():
        missing = [
            name
            for name, metrics in meant.items()
            if run not in found
            or not any(found[run][each].notna().any() for each in metrics if each in frame.columns)
        ]
        if missing:
            what = f"no {', '.join(missing)}" if any(missing) else "nothing of what is drawn"
            warnings.warn(f"{label} has {what}.", stacklevel=2)


def _matched(wanted: Sequence[str], columns: dict[str, Column], records: Records) -> list[str]:
    try:
        return match_metrics(wanted, columns)
    except ValueError:
        names = names_with_values(records, columns)  # texts could have been numbers
    try:
        return match_metrics(wanted, names)
    except ValueError as error:
        paths = [name for name in wanted if _is_path(name)]
        if not paths:
            raise
        raise ValueError(
            f"{error} {paths[0]!r} is a file or directory: name logs before --metrics, or after "
            "--input."
        ) from error


def names_with_values(records: Records, columns: dict[str, Column]) -> list[str]:
    """The metrics that have any number.

    Raises:
        ValueError: There are none.
    """
    find_runs(records)
    names = [column.name for column in with_values(records, columns.values())]
    if not names:
        raise without_metrics("plot_metrics", _files_of(records))
    return names


def _is_path(name: str) -> bool:
    try:
        return name != "" and Path(name).exists()
    except OSError:  # too long for one
        return False


def _files_of(records: Records) -> list[str]:
    return [str(source.path) for source in records.sources]


def _tell(text: str) -> None:
    click.echo(printable(text), err=True)


@contextmanager
def told(tell: Callable[[str], None] = _tell) -> Iterator[None]:
    """Tell warnings and errors of reading and drawing as a command does.

    Args:
        tell: What has each warning; by default it is printed.
    """
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        except BrokenPipeError:
            raise  # of the output
        except (OSError, TypeError, ValueError, MissingExtraError) as error:
            raise click.ClickException(_words(error)) from error
        finally:
            for text in in_sentences(str(doubt.message) for doubt in doubts):
                tell(f"Warning: {text}")


@contextmanager
def reading(
    sources: Sequence[Source], *, follow: bool, tell: Callable[[str], None] = _tell
) -> Iterator[Records]:
    """The records of some logs; says on a terminal that it reads them if that takes a while.

    Args:
        sources: The logs.
        follow: Whether they may grow.
        tell: What has each warning, as `told` has it.
    """
    with file_errors():
        size = sum(source.path.stat().st_size for source in sources)
    shown = size > LARGE and sys.stderr.isatty()
    if shown:
        click.echo(f"Reading {size / 1e6:,.0f} MB ...", err=True, nl=False)
    with told(tell):
        records = Records(sources, follow=follow)
    with records:
        if shown:
            write_anew()
        yield records


def _percentiles(asked: Request) -> Percentiles | None:
    if len(asked.clip) > 2:  # noqa: PLR2004 -- lower and upper
        raise ValueError(f"--clip-pct takes one number or two, got {len(asked.clip)}.")
    if len(asked.clip) == 1:
        return asked.clip[0]
    return (asked.clip[0], asked.clip[1]) if asked.clip else None


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return printable(f"{error.filename}: {error.strerror}.")
    words = str(error.args[-1]) if isinstance(error, OSError) and error.args else str(error)
    return words if isinstance(error, MissingExtraError) else printable(words)

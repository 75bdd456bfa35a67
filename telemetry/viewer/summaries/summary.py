"""What became of runs, in a few numbers each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from telemetry.viewer.frames.selection import default_metrics, match_metrics
from telemetry.viewer.logs.columns import Column, find_columns, with_values
from telemetry.viewer.logs.records import Records
from telemetry.viewer.logs.runs import find_runs
from telemetry.viewer.logs.sources import Paths, find_logs
from telemetry.viewer.summaries.courses import Course, courses
from telemetry.viewer.summaries.metric_ends import MetricEnd, metric_ends
from telemetry.viewer.summaries.paces import ClipTotals, Pace, clip_totals, paces
from telemetry.viewer.summaries.troubles import Alert, Drop, Failure, alerts, drops, failures

_TOLD: Final = ("alert.", "telemetry.", "workflow.")
"""What metrics begin with that are told of otherwise."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a run.

    Attributes:
        run: Its label, as in the column ``run`` of `read_jsonl`.
        files: What it was read from.
        records: How many records it has.
        course: From when to when, and how it ended.
        pace: How far it came, and how fast.
        metrics: Where its metrics ended, and how good they were at best.
        clipping: What its gradient clipper did; None where it has none.
        alerts: What was raised.
        failures: Spans, handlers and probes that failed.
        drops: Events that handlers have lost.
        bad_lines: Lines of its files that are no records; those of a file with several runs
            count for each of them.
    """

    run: str
    files: tuple[str, ...]
    records: int
    course: Course
    pace: Pace
    metrics: tuple[MetricEnd, ...]
    clipping: ClipTotals | None
    alerts: tuple[Alert, ...]
    failures: tuple[Failure, ...]
    drops: tuple[Drop, ...]
    bad_lines: int


def summarize(paths: Paths, *, metrics: str | Iterable[str] | None = None) -> list[Summary]:
    r"""Sum up runs.

    Where several attempts at a run left records of the same steps, those of the later attempt are
    valid, as in `read_jsonl`; alerts, failures and drops are those of all attempts.

    Args:
        paths: A file, a pattern with ``*``, a directory, or several of these.
        metrics: Names, prefixes or patterns of the metrics to tell of, as for `read_jsonl`. By
            default those that one looks at first: losses, gradient norms, the learning rate,
            evaluations.

    Returns:
        A summary of each run, in the order in which they begin.

    Raises:
        FileNotFoundError: A file is missing, or a directory or pattern has no log.
        OSError: A file cannot be read.
        TypeError: A path or a metric is none.
        ValueError: No metric is called so; the nearest are offered.
        MissingExtraError: DuckDB is not installed.

    Warns:
        BadLinesWarning: Lines are no records; they are left out.

    Example:
        >>> import json, pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = pathlib.Path(folder, "metrics.jsonl")
        ...     records = [{"event": "training.step", "measurements": {"loss": loss},
        ...                 "metadata": {"step": step}} for step, loss in [(1, 2.5), (2, 1.5)]]
        ...     _ = log.write_text("\n".join(map(json.dumps, records)))
        ...     (summary,) = summarize(log)
        >>> summary.pace.step, [(end.name, end.last, end.best) for end in summary.metrics]
        (2.0, [('training.loss', 1.5, 1.5)])
    """
    with Records(find_logs(paths)) as records:
        return summaries(records, metrics)


def summaries(records: Records, metrics: str | Iterable[str] | None = None) -> list[Summary]:
    """Sum up the runs of some records; see `summarize`."""
    runs = find_runs(records)
    files = _files(records)
    ends = _ends(records, _chosen(records, metrics))
    course, pace, clips = courses(records), paces(records), clip_totals(records)
    raised, failed, dropped = alerts(records), failures(records), drops(records)
    return [
        Summary(
            run,
            tuple(str(records.sources[number].path) for number in files[place][1]),
            files[place][0],
            course[place],
            pace.get(place, Pace()),
            tuple(ends.get(place, ())),
            clips.get(place),
            tuple(raised.get(place, ())),
            tuple(failed.get(place, ())),
            tuple(dropped.get(place, ())),
            sum(records.bad_lines[number] for number in files[place][1]),
        )
        for place, run in enumerate(runs)
    ]


def _chosen(records: Records, metrics: str | Iterable[str] | None) -> list[Column]:
    columns = {each.name: each for each in with_values(records, find_columns(records).values())}
    usual = [name for name in columns if not name.startswith(_TOLD)]
    named = default_metrics(usual) if metrics is None else match_metrics(metrics, columns)
    return [columns[name] for name in named]


def _ends(records: Records, columns: Sequence[Column]) -> dict[int, list[MetricEnd]]:
    found: dict[int, list[MetricEnd]] = {}
    for place, end in metric_ends(records, columns):
        found.setdefault(place, []).append(end)
    return found


def _files(records: Records) -> dict[int, tuple[int, list[int]]]:
    """How many records each run has, and in which files."""
    rows = records.rows(
        "SELECT place, count(*), list(DISTINCT source ORDER BY source) FROM told GROUP BY place"
    )
    return {place: (count, numbers) for place, count, numbers in rows}

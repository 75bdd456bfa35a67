"""What went wrong in runs: alerts, failed handlers, lost events, exceptions, bad gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from telemetry.viewer.page.objects import object_in
from telemetry.viewer.page.watched import Snapshot

MOST_PROBLEMS: Final = 300
"""The latest are told; the others are counted."""
LONGEST: Final = 2000
"""Characters of what is told of one."""

_WHICH: Final = """
FROM current WHERE starts_with(event, 'alert.') OR ends_with(event, '.exception')
    OR event IN ('telemetry.handler.failure', 'telemetry.handler.overflow',
        'telemetry.probe.failure', 'smartclip.clip.nonfinite')"""


def problems_told(snapshot: Snapshot) -> dict[str, Any]:
    """What went wrong in all runs, the latest first.

    Args:
        snapshot: What was read of the logs.

    Returns:
        ``problems``, each with its ``kind``, ``severity`` (``"critical"``, ``"warning"`` or
        ``"info"``), ``text``, ``run``, ``time`` in seconds since 1970, ``step`` and ``row``;
        ``count``, how many there are in all; ``alarms``, how many of them no good news; ``last``,
        the ``row`` up to which records were looked at.
    """
    cursor = snapshot.records.connection.cursor()
    ((count, alarms),) = cursor.execute(
        f"SELECT count(*), count(*) FILTER (event <> 'alert.cleared') {_WHICH}"
    ).fetchall()
    rows = cursor.execute(
        f"SELECT run, rowid, epoch_us(timestamp) / 1e6, step, event, measurements, metadata "
        f"{_WHICH} ORDER BY timestamp DESC NULLS LAST, rowid DESC LIMIT {MOST_PROBLEMS}"
    ).fetchall()
    problems = [_problem(*row) for row in rows]
    return {"count": count, "alarms": alarms, "last": snapshot.last, "problems": problems}


def _problem(
    run: str,
    row: int,
    time: float | None,
    step: float | None,
    event: str,
    measurements: str | None,
    metadata: str | None,
) -> dict[str, Any]:
    severity, text = _words(event, object_in(measurements), object_in(metadata))
    return {
        "kind": event,
        "severity": severity,
        "text": text[:LONGEST],
        "run": run,
        "row": row,
        "time": time,
        "step": step,
    }


def _words(event: str, measured: Mapping[str, Any], told: Mapping[str, Any]) -> tuple[str, str]:
    """How bad it is, and what it is."""
    if event == "alert.cleared":
        return "info", str(told.get("message") or told.get("rule", ""))
    if event.startswith("alert."):
        text = str(told.get("message") or told.get("rule", ""))
        return _severity(told.get("severity")), text
    if event == "telemetry.handler.overflow":
        lost = f"{measured.get('dropped', '?')} events ({told.get('policy', '?')})"
        return "warning", f"handler {told.get('handler_id', '?')} lost {lost}"
    if event == "telemetry.handler.failure":
        name = told.get("event_name", "?")
        of = ".".join(map(str, name)) if isinstance(name, list) else str(name)
        return "critical", f"handler {told.get('handler_id', '?')} failed at {of}: {_reason(told)}"
    if event == "telemetry.probe.failure":
        return "warning", f"probe {told.get('probe', '?')} failed: {_reason(told)}"
    if event == "smartclip.clip.nonfinite":
        count, policy = measured.get("count", "?"), told.get("policy", "?")
        return "warning", f"gradient norm {measured.get('grad_norm')}, groups: {count} ({policy})"
    return "critical", _reason(told)


def _severity(told: object) -> str:
    return "critical" if told in ("critical", "error", "fatal") else "warning"


def _reason(told: Mapping[str, Any]) -> str:
    return str(told.get("reason") or told.get("error") or "no reason was recorded")

"""Write the tables of default names into docs/handlers/metrics.md: ``make docs``."""

from collections.abc import Iterator
from pathlib import Path

from telemetry.events import CATALOGUE, EventSpec
from telemetry.metrics import Reporter, Sample, monitoring, tracking

PAGE = Path(__file__).parent / "handlers" / "metrics.md"
BEGIN, END = "<!-- names -->\n", "<!-- end of names -->\n"
HEAD = """\
| event | measurement | trackers: a curve | databases: a series | as |
|---|---|---|---|---|
"""
ANY = "any_of_yours"
"""A measurement of the user's, shown as ``*`` afterwards; ``*`` itself is named otherwise."""
USUAL = ("run_id", "user_id")


def render() -> str:
    """The page, with its tables as the code has them now."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    rows = [row for spec in CATALOGUE for row in _rows(spec)]
    return before + BEGIN + HEAD + "".join(f"{row}\n" for row in rows) + END + after


def _rows(spec: EventSpec) -> Iterator[str]:
    metadata = {field.name: f"{{{field.name}}}" for field in spec.metadata}
    metadata |= {key: key for key in USUAL}
    measurements = dict.fromkeys((field.name for field in spec.measurements), 1)
    if spec.emitter == "your code" and spec.name[-1] not in ("start", "exception"):
        measurements[ANY] = 1
    curves = _by_measurement(Reporter(tracking()).samples(spec.name, measurements, metadata))
    series = _by_measurement(Reporter(monitoring()).samples(spec.name, measurements, metadata))
    for measurement in dict.fromkeys([*series, *curves]):
        yield _row(spec, measurement, curves.get(measurement), series.get(measurement))


def _row(spec: EventSpec, measurement: str, curve: Sample | None, one: Sample | None) -> str:
    kind = ""
    if one is not None:
        tags = [f"`{tag}`" for tag in one.tags if tag not in USUAL]
        kind = one.metric.kind + (f", by {', '.join(tags)}" if tags else "")
    shown = f"`{measurement.replace(ANY, '*')}`"
    measured = "" if one is not None and one.metric.kind == "counter" else shown
    cells = [f"`{spec.dotted}`", measured, _name(curve), _name(one), kind]
    return f"| {' | '.join(cells)} |"


def _by_measurement(samples: list[Sample]) -> dict[str, Sample]:
    return {sample.metric.measurement: sample for sample in samples}


def _name(sample: Sample | None) -> str:
    return f"`{sample.name.replace(ANY, '*')}`" if sample else "-"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")

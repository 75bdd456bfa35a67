"""Write docs/events.md from the event catalogue: ``make docs``."""

from pathlib import Path

from telemetry.cli.events import as_markdown
from telemetry.events import CATALOGUE

HEAD = """\
# Event catalogue

What is emitted, by whom, with which measurements and metadata. This page is rendered from
`telemetry.events` by `make docs`; `telemetry events` prints the same in the terminal.

- Times are integer nanoseconds. `monotonic_time` is comparable within a process only.
- A measurement is a number, a 0-d array or tensor of any framework, or a 1-d one for per-group
  detail. Events of *your code* are conventions: any measurement may be added to them.
- The metadata of every event has the ambient `telemetry.context` merged under it.
- *Reported as* is the name under which plots and sinks show a measurement (`*`); parts in `<>`
  come from the metadata.

"""


def render() -> str:
    """The page."""
    return HEAD + as_markdown(list(CATALOGUE)) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("events.md").write_text(render(), encoding="utf-8")

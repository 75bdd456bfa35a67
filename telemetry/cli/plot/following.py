"""``telemetry plot --follow``: draw whenever logs have grown, until Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import click

from telemetry.cli.endings import reader_is_gone
from telemetry.cli.output.printable import printable
from telemetry.cli.plot.drawing import Request, read_chart, reading, told
from telemetry.cli.plot.outputs import Output, Window
from telemetry.cli.plot.pace import pause_after
from telemetry.cli.plot.terminal import Screen

if TYPE_CHECKING:
    from telemetry.viewer.charts.chart import Chart
    from telemetry.viewer.charts.treatment import Treatment
    from telemetry.viewer.logs.records import Records
    from telemetry.viewer.logs.sources import Source


class Remarks:
    """What there is to say beside a chart.

    Each remark is told on standard error, and not again as long as it holds. Where that is a screen
    which each drawing clears, it stands below each drawing for which it holds instead.

    Args:
        screen: That screen.
    """

    def __init__(self, screen: Screen | None) -> None:
        self._screen = screen if sys.stderr.isatty() else None
        self._of_logs: list[str] = []
        self._of_chart: list[str] = []
        self._told: set[str] = set()

    def of_logs(self, text: str) -> None:
        """Remark on what was read, which holds until a log is read anew."""
        self._of_logs.append(text)

    def read_anew(self) -> None:
        """A log is another by now: what was remarked on logs may hold no longer."""
        self._of_logs.clear()

    def of_chart(self, text: str) -> None:
        """Remark on what is drawn now."""
        self._of_chart.append(text)

    def begin(self) -> None:
        """Another chart is worked out: what was remarked on the one before holds no longer."""
        self._of_chart.clear()

    def _all(self) -> list[str]:
        return list(dict.fromkeys([*self._of_chart, *self._of_logs]))

    def show(self) -> None:
        """Have the next drawing of the screen say what there is by now."""
        if self._screen is not None:
            self._screen.remarks = self._all()

    @contextmanager
    def told_at_a_failure(self) -> Iterator[None]:
        """Tell what is left when nothing more will be drawn."""
        try:
            yield
        except click.ClickException:
            self.tell(drawn=False)
            raise

    def tell(self, *, drawn: bool) -> None:
        """Tell what did not hold the time before, unless it was drawn."""
        remarks = self._all()
        for text in remarks:
            if not (drawn and self._screen) and text not in self._told:
                click.echo(printable(text), err=True)
        self._told = set(remarks)


def follow(
    sources: Sequence[Source], asked: Request, treatment: Treatment, outputs: Sequence[Output]
) -> NoReturn:
    """Draw whenever there are other records than before; what is missing may still come.

    Raises:
        click.ClickException: It cannot be read, drawn or written.
    """
    window = next((each for each in outputs if isinstance(each, Window)), None)
    remarks = Remarks(next((each for each in outputs if isinstance(each, Screen)), None))
    wait = time.sleep if window is None else window.wait
    look = 0
    with (
        remarks.told_at_a_failure(),
        reading(sources, follow=True, tell=remarks.of_logs) as records,
    ):
        while True:
            began, restarts = time.process_time(), records.restarts
            with told(remarks.of_logs):
                more = records.refresh() if look else 0
                if records.restarts != restarts:
                    remarks.read_anew()  # what is told of it comes behind this
            if not look or more or records.restarts != restarts:
                _draw(_chart(records, asked, treatment, remarks), outputs, remarks)
            wait(pause_after(time.process_time() - began, first=not look))
            look += 1
            if reader_is_gone() or (window is not None and not window.is_open()):
                sys.exit(0)


def _chart(
    records: Records, asked: Request, treatment: Treatment, remarks: Remarks
) -> Chart | None:
    """The chart of what was recorded by now, if there is anything to draw."""
    remarks.begin()
    with told(remarks.of_chart):
        try:
            return read_chart(records, asked, treatment)
        except ValueError as missing:
            remarks.of_chart(f"{missing} Waiting for more.")
    return None


def _draw(chart: Chart | None, outputs: Sequence[Output], remarks: Remarks) -> None:
    if chart is not None:
        for output in outputs:
            remarks.show()
            with told(remarks.of_chart):
                output(chart)
    remarks.tell(drawn=chart is not None)

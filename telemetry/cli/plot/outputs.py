"""Where ``telemetry plot`` draws: into a file, a window, or the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click

from telemetry.cli.output.printable import printable
from telemetry.cli.plot.drawing import Request
from telemetry.cli.plot.terminal import Screen, Terminal
from telemetry.extras import import_extra
from telemetry.viewer.charts.chart import Chart
from telemetry.viewer.charts.pictures import check_picture, check_pixels, save_plot
from telemetry.viewer.charts.plot import draw_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ANSWER: Final = 0.2
"""Seconds between two looks whether a window was closed."""
Output: TypeAlias = Callable[[Chart], None]


def outputs_of(asked: Request) -> list[Output]:
    """What draws a chart in each place that was asked for.

    Raises:
        ValueError: The file's suffix is none of a picture, or the picture would be too large.
        OSError: The file cannot be written.
        click.ClickException: There is no display for a window.
    """
    outputs: list[Output] = []
    if asked.terminal:
        is_screen = asked.follow and sys.stdout.isatty()
        outputs.append(Screen(asked) if is_screen else Terminal(asked))
    if asked.out:
        if asked.size:
            check_pixels(asked.out, *asked.size, asked.dpi)
        outputs.append(Picture(asked, check_picture(asked.out)))
    if asked.show:
        outputs.append(Window(asked))
    # A screen is last: it has what was remarked on the others.
    return sorted(outputs, key=lambda output: isinstance(output, Screen))


class Picture:
    """A file, which is said once, however often it is drawn."""

    def __init__(self, asked: Request, path: Path) -> None:
        self._asked = asked
        self._path = path
        self._is_said = False

    def __call__(self, chart: Chart) -> None:
        """Replace the file."""
        asked = self._asked
        figure = draw_chart(chart, log=asked.log, title=asked.title, size=asked.size)
        save_plot(figure, self._path, dpi=asked.dpi)
        if not self._is_said:
            click.echo(f"Wrote {printable(str(self._path))}", err=asked.terminal)
            self._is_said = True


class Window:
    """A window, which stays until it is closed; while a log is followed, as long as that takes."""

    def __init__(self, asked: Request) -> None:
        self._asked = asked
        self._pyplot: Any = import_extra("matplotlib.pyplot", extra="viewer", feature="--show")
        try:
            self._figure: Figure = self._pyplot.figure(figsize=asked.size, layout="constrained")
        except ImportError as error:  # of the backend that is asked for
            raise click.ClickException(f"--show cannot open a window. {error}.") from error
        if self._figure.canvas.required_interactive_framework is None:
            self._pyplot.close(self._figure)
            raise click.ClickException(
                "--show needs a display, and matplotlib finds none here (its backend is "
                f"{self._pyplot.get_backend()}). Use --out for a file, or --terminal."
            )

    def __call__(self, chart: Chart) -> None:
        """Draw anew."""
        draw_chart(chart, log=self._asked.log, title=self._asked.title, figure=self._figure)
        if self._asked.follow:
            self._pyplot.pause(0.1)
        else:
            self._pyplot.show()

    def wait(self, seconds: float) -> None:
        """Answer who uses the window for so long, or until it is closed."""
        end = time.monotonic() + seconds
        while self.is_open() and (left := end - time.monotonic()) > 0:
            self._figure.canvas.start_event_loop(min(left, ANSWER))  # `pause` would raise it

    def is_open(self) -> bool:
        """Whether nobody has closed it."""
        return bool(self._pyplot.fignum_exists(self._figure.number))

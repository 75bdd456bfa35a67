"""``telemetry plot --follow`` as a process: what fits a screen, other files, windows."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parent.parent.parent
PLOT = [sys.executable, "-W", "error", "-m", "telemetry", "plot"]
WAIT = 120


@pytest.fixture
def environment():
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "NO_COLOR", "MPLBACKEND")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def lines_of(steps, **metrics):
    return b"".join(
        orjson.dumps({"step": step, "metrics": metrics or {"train.loss": 1 / step}}) + b"\n"
        for step in steps
    )


def wait_until(condition, what):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_no_more_panels_are_drawn_than_the_screen_has_room_for(tmp_path, environment):
    names = ["loss", "lr", "grad_norm", "accuracy", "tokens"]
    (tmp_path / "a.jsonl").write_bytes(lines_of(range(1, 9), **dict.fromkeys(names, 1.0)))
    parent, child = pty.openpty()
    environment |= {"COLUMNS": "72", "LINES": "30", "TERM": "xterm-256color"}
    with subprocess.Popen(
        [*PLOT, "a.jsonl", "--terminal", "--follow"],
        cwd=tmp_path,
        env=environment,
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
    ) as process:
        try:
            text = b""
            while b"name --metrics" not in text:
                assert select.select([parent], [], [], WAIT)[0], text
                text += os.read(parent, 65536)
        finally:
            process.kill()
            os.close(child)
            os.close(parent)
    lines = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text.decode()).rstrip().splitlines()
    assert [line for line in lines if line in names] == ["loss", "grad_norm"]
    assert lines[-1] == "and 3 more panels: lr, accuracy, tokens; name --metrics"
    assert len(lines) < 30  # the cursor has a line of its own


def test_another_file_with_as_many_records_is_drawn(tmp_path, environment):
    log, picture = tmp_path / "a.jsonl", tmp_path / "live.svg"
    log.write_bytes(lines_of(range(1, 10)))
    with subprocess.Popen(
        [*PLOT, "a.jsonl", "--follow", "--out", "live.svg"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            wait_until(picture.exists, "no picture")
            before = picture.read_bytes()
            (tmp_path / "other").write_bytes(lines_of(range(101, 110)))
            (tmp_path / "other").replace(log)
            wait_until(lambda: picture.read_bytes() != before, "the same picture")
        finally:
            process.kill()


BACKEND = """
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib._pylab_helpers import Gcf
import pathlib

class FigureManager(FigureManagerBase):
    pass

class FigureCanvas(FigureCanvasAgg):
    required_interactive_framework = "headless"
    manager_class = FigureManager

    def flush_events(self):
        if pathlib.Path("close").exists():
            Gcf.destroy_all()

def show(**options):
    for manager in Gcf.get_all_fig_managers():
        manager.canvas.print_png("window.png")
"""


def test_a_window_that_is_closed_ends_what_follows_a_log(tmp_path, environment):
    """With a backend of matplotlib's kind that has no screen."""
    (tmp_path / "a.jsonl").write_bytes(lines_of(range(1, 10)))
    (tmp_path / "window_backend.py").write_text(BACKEND)
    environment |= {"MPLBACKEND": "module://window_backend", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with subprocess.Popen(
        [*PLOT, "a.jsonl", "--show", "--follow"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_until((tmp_path / "window.png").exists, "no window")
            (tmp_path / "close").touch()
            _, said = process.communicate(timeout=WAIT)
        finally:
            process.kill()
    assert (process.returncode, said) == (0, "")

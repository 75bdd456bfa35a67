"""``telemetry plot --follow`` as a process: what fits a screen, other files, windows."""

import contextlib
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

from telemetry.cli.plot.following import Remarks

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


@contextlib.contextmanager
def on_screen(folder, environment, *arguments, lines=30, **options):
    """The command on a terminal, of which a function reads until it has a text."""
    parent, child = pty.openpty()
    environment |= {"COLUMNS": "72", "LINES": str(lines), "TERM": "xterm-256color"}
    with subprocess.Popen(
        [*PLOT, *arguments, "--terminal", "--follow"],
        cwd=folder,
        env=environment,
        stdin=child,
        stdout=child,
        stderr=options.get("stderr", child),
        start_new_session=True,
    ) as process:

        def read_until(wanted):
            text = b""
            while wanted not in text or not text.endswith(b"\r\n"):
                assert select.select([parent], [], [], WAIT)[0], text
                text += os.read(parent, 65536)
            return text.decode()

        try:
            yield read_until
        finally:
            process.kill()
            os.close(child)
            os.close(parent)


def screen_of(text):
    """The lines that a terminal shows: those after it was cleared last."""
    shown = text.rsplit("\x1b[2J", 1)[-1]
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", shown).rstrip().splitlines()


def test_no_more_panels_are_drawn_than_the_screen_has_room_for(tmp_path, environment):
    names = ["loss", "lr", "grad_norm", "accuracy", "tokens"]
    (tmp_path / "a.jsonl").write_bytes(lines_of(range(1, 9), **dict.fromkeys(names, 1.0)))
    with on_screen(tmp_path, environment, "a.jsonl") as read_until:
        lines = screen_of(read_until(b"name --metrics"))
    assert [line for line in lines if line in names] == ["loss", "grad_norm"]
    assert lines[-1] == "and 3 more panels: lr, accuracy, tokens; name --metrics"
    assert len(lines) < 30  # the cursor has a line of its own


def test_warnings_stand_below_each_drawing_while_they_hold(tmp_path, environment):
    other, log = tmp_path / "other.jsonl", tmp_path / "a.jsonl"
    log.write_bytes(lines_of(range(1, 9)) + b"garbage\n")
    other.write_bytes(lines_of(range(1, 9), **{"train.lr": 0.1}))
    given = ("a.jsonl", "other.jsonl", "--metrics", "train.loss", "train.lr")
    bad = "Warning: a.jsonl: no record in line 9 ("
    missing = ["Warning: a has no train.lr.", "Warning: other has no train.loss."]

    def warnings_of(lines):
        return [line for line in lines if line.startswith("Warning: ")]

    with on_screen(tmp_path, environment, *given) as read_until:
        first = screen_of(read_until(b"no record in"))
        for steps, metrics in [(range(9, 12), {}), (range(12, 15), {"train.lr": 0.2})]:
            with log.open("ab") as file:
                file.write(lines_of(steps, **metrics))
            second = screen_of(read_until(b"no record in"))
            if not metrics:
                assert warnings_of(second) == warnings_of(first)
    assert warnings_of(first)[:2] == missing
    assert warnings_of(first)[2].startswith(bad)
    assert warnings_of(second)[0] == missing[1]
    assert warnings_of(second)[1].startswith(bad)
    for lines in (first, second):
        assert len(lines) < 30
        assert lines[0].startswith("training.loss" if "training.loss" in lines[0] else "train.loss")
        assert max(map(len, lines)) <= 72


def test_what_was_said_of_a_file_is_gone_with_it(tmp_path, environment):
    log, other = tmp_path / "a.jsonl", tmp_path / "other"
    log.write_bytes(lines_of(range(1, 9)) + b"garbage\n")
    with on_screen(tmp_path, environment, "a.jsonl") as read_until:
        read_until(b"no record in line 9")
        for first, found in [(b"garbage\n", b"no record in line 1 "), (b"", b"step\r\n")]:
            other.write_bytes(first + lines_of(range(101, 109)))
            other.replace(log)
            lines = screen_of(read_until(found))
            said = [line for line in lines if "no record" in line]
            assert ["in line 1 " in line for line in said] == [True] * bool(first)


def test_that_a_picture_is_not_drawn_is_said_each_time(tmp_path, environment):
    log, picture, said = (tmp_path / name for name in ("a.jsonl", "live.svg", "said"))
    waiting = "Waiting for more."

    def take(content):
        (tmp_path / "other").write_bytes(content)
        (tmp_path / "other").replace(log)

    log.touch()
    with (
        said.open("wb") as file,
        subprocess.Popen(
            [*PLOT, "a.jsonl", "--follow", "--out", "live.svg"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=file,
        ) as process,
    ):
        try:
            for number in (1, 2):
                wait_until(lambda n=number: said.read_text().count(waiting) == n, "not said")
                picture.unlink(missing_ok=True)
                take(lines_of(range(1, 9 + number)))
                wait_until(picture.exists, "no picture")
                take(b"{}\n" * number)
        finally:
            process.kill()


def test_what_two_outputs_remark_on_is_said_once(capsys):
    remarks = Remarks(None)
    for _ in ("a picture", "a window"):
        remarks.of_chart("The font has no 损.")
    for _ in ("a drawing", "the next"):
        remarks.tell(drawn=True)
    assert capsys.readouterr().err == "The font has no 损.\n"


def test_without_colours_a_screen_is_cleared_all_the_same(tmp_path, environment):
    log = tmp_path / "a.jsonl"
    log.write_bytes(lines_of(range(1, 9)))
    with on_screen(tmp_path, environment | {"NO_COLOR": "1"}, "a.jsonl") as read_until:
        shown = read_until(b"step\r\n")
        with log.open("ab") as file:
            file.write(lines_of(range(9, 99)))
        shown += read_until(b"step\r\n")
    assert shown.count("\x1b[H\x1b[2Ja.jsonl") == 2
    assert "\x1b" not in shown.replace("\x1b[H\x1b[2J", "")


def test_a_screen_does_not_have_warnings_that_go_elsewhere(tmp_path, environment):
    (tmp_path / "a.jsonl").write_bytes(lines_of(range(1, 9)) + b"garbage\n")
    with (
        (tmp_path / "said").open("wb") as said,
        on_screen(tmp_path, environment, "a.jsonl", stderr=said) as read_until,
    ):
        lines = screen_of(read_until(b"step"))
        with (tmp_path / "a.jsonl").open("ab") as file:
            file.write(lines_of(range(9, 12)))
        read_until(b"step")
    assert not any("Warning" in line for line in lines)
    assert (tmp_path / "said").read_text().count("no record in line 9") == 1


def test_more_warnings_than_there_is_room_for_leave_room_for_the_chart(tmp_path, environment):
    for number in range(20):
        metrics = {"train.lr" if number else "train.loss": 0.1}
        (tmp_path / f"a{number}.jsonl").write_bytes(lines_of(range(1, 9), **metrics))
    given = [f"a{number}.jsonl" for number in range(20)]
    given += ["--metrics", "train.loss", "train.lr"]
    with on_screen(tmp_path, environment, *given, lines=27) as read_until:
        lines = screen_of(read_until("…\r\n".encode()))
    assert len(lines) < 27
    assert lines[-1] == "…"
    assert sum(line.startswith("Warning: ") for line in lines) == 8
    assert "└" in "".join(lines)


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

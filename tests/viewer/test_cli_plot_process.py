"""``telemetry plot`` as a process: pipes, terminals, Ctrl-C, and logs that grow."""

import os
import pty
import re
import select
import shutil
import signal
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


def append(path, steps):
    with path.open("ab") as file:
        for step in steps:
            file.write(orjson.dumps({"step": step, "metrics": {"train.loss": 1 / step}}) + b"\n")


def wait_until(condition, what):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_who_reads_the_first_lines_only_gets_them_and_no_complaint(tmp_path, environment):
    append(tmp_path / "a.jsonl", range(1, 50))
    command = f"{sys.executable} -W error -m telemetry plot a.jsonl --terminal"
    shell = f"{command} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout == "a.jsonl\n0\n"


def test_a_followed_log_is_drawn_again_until_ctrl_c_and_the_picture_stays(tmp_path, environment):
    log, picture = tmp_path / "a.jsonl", tmp_path / "live.svg"
    append(log, range(1, 10))
    with subprocess.Popen(
        [*PLOT, "a.jsonl", "--follow", "--out", "live.svg"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            wait_until(lambda: picture.exists() or process.poll() is not None, "no picture")
            before = picture.read_bytes()
            append(log, range(10, 400))
            wait_until(lambda: picture.read_bytes() != before, "the same picture")
            after = picture.read_bytes()
            assert after.startswith(b"<?xml")
            assert after.rstrip().endswith(b"</svg>")
            process.send_signal(signal.SIGINT)
            out, error = process.communicate(timeout=WAIT)
        finally:
            process.kill()
    assert (process.returncode, out, error.strip()) == (130, "Wrote live.svg\n", "")
    assert picture.read_bytes().rstrip().endswith(b"</svg>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "live.svg"]


def test_a_followed_log_that_is_empty_yet_is_waited_for(tmp_path, environment):
    log, picture = tmp_path / "a.jsonl", tmp_path / "live.png"
    log.touch()
    with subprocess.Popen(
        [*PLOT, "a.jsonl", "--follow", "--metrics", "train.loss", "--out", "live.png"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said = process.stderr.readline()
            assert said.startswith("Empty DataFrame provided to plot_metrics: a.jsonl has no")
            assert said.endswith("top level. Waiting for more.\n")
            append(log, range(1, 10))
            wait_until(picture.exists, "no picture")
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT) == 130
        finally:
            process.kill()


def read_terminal(number, enough):
    """What a program has written to its terminal, until that is enough."""
    text = b""
    while not enough(text):
        assert select.select([number], [], [], WAIT)[0], text
        text += os.read(number, 65536)
    return text.decode()


def test_a_terminal_without_a_display_gets_characters_which_are_drawn_again(tmp_path, environment):
    log = tmp_path / "a.jsonl"
    append(log, range(1, 10))
    parent, child = pty.openpty()
    environment |= {"COLUMNS": "60", "LINES": "24", "TERM": "xterm-256color"}
    with subprocess.Popen(
        [*PLOT, "a.jsonl", "--follow"],
        cwd=tmp_path,
        env=environment,
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
    ) as process:
        try:
            first = read_terminal(parent, lambda text: b"step" in text)
            append(log, range(10, 200))
            second = read_terminal(parent, lambda text: b"step" in text)
            process.send_signal(signal.SIGINT)
            assert process.wait(WAIT) == 130
        finally:
            process.kill()
            os.close(child)
            os.close(parent)
    assert "\x1b[38;5;12m" in first
    assert second.startswith("\x1b[H\x1b[2Ja.jsonl")
    for drawn in (first, second):
        lines = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", drawn).splitlines()
        assert len(lines) <= 24
        assert max(map(len, lines)) <= 60
    assert list(tmp_path.iterdir()) == [log]  # no picture that nobody asked for


@pytest.mark.parametrize("given", [["--size", "5x2"], ["--dpi", "30"]])
def test_who_says_how_large_a_picture_is_gets_one_also_without_a_display(
    tmp_path, environment, given
):
    append(tmp_path / "a.jsonl", range(1, 10))
    parent, child = pty.openpty()
    done = subprocess.run(
        [*PLOT, "a.jsonl", *given],
        cwd=tmp_path,
        env=environment,
        stdout=child,
        stderr=child,
        timeout=WAIT,
        check=False,
    )
    os.close(child)
    shown = os.read(parent, 65536)
    os.close(parent)
    assert (done.returncode, shown) == (0, b"Wrote metrics.png\r\n")
    assert (tmp_path / "metrics.png").read_bytes().startswith(b"\x89PNG")


BACKEND = """
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib._pylab_helpers import Gcf

class FigureManager(FigureManagerBase):
    pass

class FigureCanvas(FigureCanvasAgg):
    required_interactive_framework = "headless"
    manager_class = FigureManager

def show(**options):
    for manager in Gcf.get_all_fig_managers():
        manager.canvas.print_png("window.png")
"""


def test_a_window_shows_the_figure(tmp_path, environment):
    """With a backend of matplotlib's kind that has no screen."""
    append(tmp_path / "a.jsonl", range(1, 10))
    (tmp_path / "window_backend.py").write_text(BACKEND)
    environment |= {"MPLBACKEND": "module://window_backend", "PYTHONPATH": f"{tmp_path}:{ROOT}"}

    def run(*arguments):
        return subprocess.run(
            [*PLOT, "a.jsonl", "--show", "--size", "5x2", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )

    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "window.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "metrics.png").exists()
    assert run("--out", "x.png").stdout == "Wrote x.png\n"
    environment["MPLBACKEND"] = "module://not_there"
    failed = run()
    assert failed.returncode == 1
    assert failed.stderr == "Error: --show cannot open a window. No module named 'not_there'.\n"


@pytest.fixture
def checkout(tmp_path):
    """A copy, so that what is drawn is not drawn by an installed package."""
    for folder in ("telemetry", "scripts", "clipping", "regularizers", "handlers"):
        hidden = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / "checkout" / folder, ignore=hidden)
    command = tmp_path / "checkout" / "telemetry" / "cli" / "plot" / "command.py"
    command.write_text(command.read_text().replace("Plot metrics of one run", "Copied: one run"))
    return tmp_path / "checkout"


def test_the_script_is_the_command_of_its_checkout(checkout, tmp_path, environment):
    append(tmp_path / "a.jsonl", range(1, 10))

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-W", "error", checkout / "scripts" / "plot_jsonl.py", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )

    done = run("--input", "a.jsonl", "--metrics", "train.loss", "--out", "outputs/loss.png")
    assert (done.returncode, done.stdout, done.stderr) == (0, "Wrote outputs/loss.png\n", "")
    assert (tmp_path / "outputs" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "Copied: one run" in run("--help").stdout
    failed = run("--input", "a.jsonl", "--metrics", "train.lss")
    assert (failed.returncode, failed.stderr) == (
        1,
        "Error: There is no metric 'train.lss'. Nearest: train.loss.\n",
    )

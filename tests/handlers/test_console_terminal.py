import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pyte
import pytest

DISTURBING = {"NO_COLOR", "TERM", "FORCE_COLOR", "COLUMNS", "LINES"}


class Terminal:
    """Runs a program on a terminal, and draws what it wrote."""

    def __init__(self, columns=80, rows=24):
        self.columns, self.rows = columns, rows
        self.raw = b""

    def run(self, source, expect=0, **environment):
        parent, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, self.columns, 0, 0))
        env = {k: v for k, v in os.environ.items() if k not in DISTURBING}
        env |= {"TERM": "xterm-256color", **environment}
        head = "import os, sys\nimport handlers, telemetry\nSTEP = ('training', 'step')\n"
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", head + source],
            stdout=child,
            stderr=subprocess.PIPE,
            stdin=child,
            env=env,
        )
        os.close(child)
        try:
            while chunk := os.read(parent, 65536):
                self.raw += chunk
        except OSError:
            pass  # the other end is closed: Linux says EIO
        os.close(parent)
        error = process.stderr.read()
        process.stderr.close()
        assert process.wait(60) == expect, error
        assert error == b""
        return self

    @property
    def lines(self):
        screen = pyte.Screen(self.columns, self.rows)
        pyte.ByteStream(screen).feed(self.raw)
        self.cursor_hidden = screen.cursor.hidden
        return [line.rstrip() for line in screen.display if line.strip()]


RUN = """
handlers.attach("console")
with telemetry.span(("workflow", "run"), {"workflow": "W"}):
    for step in range(1, 101):
        telemetry.execute(STEP, {"loss": 1 / step}, {"step": step, "total_steps": 100})
        if step == 50:
            epoch = {"epoch": 1, "total_epochs": 2}
            telemetry.execute(("training", "epoch"), {"epoch_loss": 0.5}, epoch)
"""


def test_a_bar_moves_below_the_lines_and_stays_at_its_end():
    terminal = Terminal().run(RUN)
    started, epoch, bar, completed = terminal.lines
    assert started == "Workflow started: W"
    assert epoch == "Epoch 1/2 complete | epoch_loss=0.5"
    assert bar.startswith("Step ━━━━━━━━━━━━━━━━━━━━ 100/100 loss=0.01")
    assert completed.startswith("Workflow completed in ")
    assert not terminal.cursor_hidden
    assert b"Step 1/100" not in terminal.raw
    assert b"\x1b[36m" in terminal.raw  # the epoch's colour


def test_a_process_that_is_killed_leaves_the_cursor_visible():
    terminal = Terminal().run(
        """
import signal
handlers.attach("console")
telemetry.execute(STEP, {}, {"step": 1, "total_steps": 10})
os.kill(os.getpid(), signal.SIGKILL)
""",
        expect=-9,
    )
    assert terminal.lines[0].startswith("Step")
    assert not terminal.cursor_hidden


def test_the_bar_is_drawn_at_most_ten_times_a_second():
    timed = f"import time\nbegan = time.monotonic()\n{RUN}\nprint(time.monotonic() - began)"
    terminal = Terminal().run(timed.replace("101", "20001").replace("100}", "20000}"))
    seconds = float(terminal.lines[-1])
    assert terminal.raw.count(b"Step") < 10 + 10 * seconds


def test_no_color_leaves_the_bar_without_colours():
    terminal = Terminal().run(RUN, NO_COLOR="1")
    assert len(terminal.lines) == 4
    styles = set(re.findall(rb"\x1b\[([0-9;]*)m", terminal.raw))
    assert styles <= {b"0", b"1"}


def test_a_dumb_terminal_gets_plain_lines():
    terminal = Terminal(rows=200).run(RUN, TERM="dumb")
    assert b"\x1b" not in terminal.raw
    assert len(terminal.lines) == 103
    assert terminal.lines[1] == "Step 1/100 | loss=1"


def test_without_a_total_or_without_progress_each_step_is_a_line():
    terminal = Terminal().run("""
handlers.attach("console")
for step, total in ((1, None), (2, 0), (3, float("nan")), (4, "many")):
    telemetry.execute(STEP, {}, {"step": step, "total_steps": total})
telemetry.detach("console")
handlers.attach("console", progress=False)
telemetry.execute(STEP, {}, {"step": 5, "total_steps": 10})
""")
    assert terminal.lines == ["Step 1", "Step 2/0", "Step 3/nan", "Step 4/many", "Step 5/10"]


def test_a_run_that_stops_early_leaves_its_bar_and_a_second_run_gets_its_own():
    terminal = Terminal().run("""
handlers.attach("console")
for run in range(2):
    with telemetry.span(("workflow", "run"), {"workflow": run}):
        for step in range(1, 4):
            telemetry.execute(STEP, {"loss": 0.5}, {"step": step, "total_steps": 10})
telemetry.execute(STEP, {"loss": 0.5}, {"step": 7, "total_steps": 10})
telemetry.detach("console")
print("the end")
""")
    bars = [line for line in terminal.lines if line.startswith("Step")]
    assert [bar.split()[2:4] for bar in bars] == [
        ["3/10", "loss=0.5"],
        ["3/10", "loss=0.5"],
        ["7/10", "loss=0.5"],
    ]
    assert terminal.lines[-1] == "the end"


def test_a_step_that_goes_back_begins_another_bar():
    terminal = Terminal().run("""
handlers.attach("console")
for step in (1, 5, 2, 3):
    telemetry.execute(STEP, {}, {"step": step, "total_steps": 10})
""")
    assert [line.split()[2] for line in terminal.lines] == ["5/10", "3/10"]


def test_hostile_values_do_not_reach_the_terminal():
    terminal = Terminal().run(r"""
handlers.attach("console")
hostile = "\x1b[2J[bold]\r\n{task} :smile: \u202e"
telemetry.execute(STEP, {"loss": hostile}, {"step": 1, "total_steps": 2})
telemetry.execute(("my", "event"), {hostile: 1}, {"note": hostile})
telemetry.execute(STEP, {"loss": hostile}, {"step": 2, "total_steps": 2})
""")
    assert b"\x1b[2J" not in terminal.raw
    text = "\n".join(terminal.lines)
    assert "\\x1b[2J[bold]\\r\\n{task} :smile: \\u202e" in text.replace("\n", "")


def test_a_narrow_terminal_keeps_the_bar_on_one_line():
    terminal = Terminal(columns=40).run("""
handlers.attach("console")
values = {f"measurement{n}": n for n in range(20)}
for step in range(1, 11):
    telemetry.execute(STEP, values, {"step": step, "total_steps": 10})
""")
    assert len(terminal.lines) == 1


def test_many_values_leave_the_bar_its_place():
    terminal = Terminal(columns=60).run("""
handlers.attach("console")
values = {f"measurement{n}": n for n in range(20)}
for step in range(1, 11):
    telemetry.execute(STEP, values, {"step": step, "total_steps": 10})
""")
    (bar,) = terminal.lines
    assert bar.startswith("Step ━━━━━━━━━━━━━━━━━━━━ 10/10 measurement0=0")
    assert "…" in bar


def test_a_forked_child_prints_plainly_and_does_not_draw():
    terminal = Terminal().run("""
handlers.attach("console")
telemetry.execute(STEP, {}, {"step": 1, "total_steps": 10})
sys.stdout.flush()
child = os.fork()
if child == 0:
    telemetry.execute(STEP, {}, {"step": 2, "total_steps": 10})
    telemetry.detach("console")
    os._exit(0)
os.waitpid(child, 0)
""")
    assert b"Step 2/10\r\n" in terminal.raw
    assert b"2/10 " not in terminal.raw
    assert terminal.lines[0] == "Step 2/10"  # not behind the bar


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_of_another_encoding_gets_what_it_can_take(encoding):
    terminal = Terminal(columns=70).run(
        """
attachment = handlers.attach("console")
values = {"Δx": 0.5, "long": "…" * 40}
telemetry.execute(("my", "event"), {"Δx": 0.5})
for step in range(1, 3):
    telemetry.execute(STEP, values, {"step": step, "total_steps": 2})
assert attachment.active
""",
        PYTHONIOENCODING=encoding,
        PYTHONUTF8="0",
    )
    line, bar = terminal.lines
    assert line == "my.event | \\u0394x=0.5"
    assert bar.startswith("Step -------------------- 2/2 \\u0394x=0.5 | long=\\u2026")
    assert len(bar) <= 70
    assert terminal.raw.isascii()


def test_steps_beyond_the_total_are_lines_below_the_bar():
    terminal = Terminal().run("""
handlers.attach("console")
for step in range(1, 6):
    telemetry.execute(STEP, {}, {"step": step, "total_steps": 2})
telemetry.execute(STEP, {}, {"step": 1, "total_steps": 2})
""")
    lines = terminal.lines
    assert lines[0].startswith("Step ━━━━━━━━━━━━━━━━━━━━ 2/2")
    assert lines[1:4] == ["Step 3/2", "Step 4/2", "Step 5/2"]
    assert lines[4].split()[2] == "1/2"
    assert len(lines) == 5


INTERLEAVED = """
handlers.attach("console")
for step in range(1, 8):
    for run, total in ((1, 6), (2, 50)):
        metadata = {"step": step, "total_steps": total, "run_id": run}
        telemetry.execute(STEP, {}, metadata)
"""


@pytest.mark.parametrize("source", [INTERLEAVED, INTERLEAVED.replace("50", "6")])
def test_of_two_runs_at_the_same_time_the_first_has_the_bar(source):
    lines = Terminal().run(source).lines
    bars = [line.split()[2] for line in lines if "━" in line]
    assert bars[0] == "6/6"
    assert len(bars) <= 2  # the second run's, once the first has ended
    plain = [line.split()[1].split("/")[0] for line in lines if "━" not in line]
    assert plain[:5] == ["1", "2", "3", "4", "5"]


def test_a_run_that_is_alone_for_a_while_takes_the_bar_over():
    lines = (
        Terminal()
        .run("""
handlers.attach("console")
telemetry.execute(STEP, {}, {"step": 3, "total_steps": 8})
for step in range(1, 21):
    telemetry.execute(STEP, {}, {"step": step, "total_steps": 20})
""")
        .lines
    )
    assert lines[:10] == [f"Step {step}/20" for step in range(1, 11)]
    assert [line.split()[2] for line in lines[10:]] == ["3/8", "20/20"]


def test_a_total_that_grows_with_every_step_has_one_bar():
    terminal = Terminal(rows=60).run("""
handlers.attach("console")
for step in range(1, 31):
    telemetry.execute(STEP, {}, {"step": step, "total_steps": step + 1})
""")
    assert len([line for line in terminal.lines if "━" in line]) == 1
    assert len(terminal.lines) == 30

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading

import pyte
import pytest

import handlers

STEP = ("training", "step")


@pytest.fixture
def printed(bus):
    """Attach a console that writes into a string."""

    def printed(**options):
        stream = io.StringIO()
        handlers.attach("console", stream=stream, registry=bus, **options)
        return stream

    return printed


def test_plain_lines_where_it_is_no_terminal(bus, printed):
    stream = printed()
    bus.execute(STEP, {"loss": 2.5432, "lr": 2e-4}, {"step": 1, "total_steps": 1000})
    with bus.span(("workflow", "run"), {"workflow": "MyWorkflow"}):
        pass
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["Step 1/1000 | loss=2.5432 | lr=0.0002", "Workflow started: MyWorkflow"]
    assert lines[2].startswith("Workflow completed in ")
    assert "\x1b" not in stream.getvalue()


def test_the_default_stream_is_standard_output_at_the_time_of_each_line(bus, capsys, monkeypatch):
    handlers.attach("console", registry=bus)
    bus.execute(STEP, {}, {"step": 1})
    assert capsys.readouterr().out == "Step 1\n"
    other = io.StringIO()
    monkeypatch.setattr(sys, "stdout", other)
    bus.execute(STEP, {}, {"step": 2})
    monkeypatch.setattr(sys, "stdout", None)
    bus.execute(STEP, {}, {"step": 3})
    monkeypatch.undo()
    assert other.getvalue() == "Step 2\n"
    assert capsys.readouterr().out == ""


DETAIL = [
    ("smartclip", "clip", "start"),
    ("smartclip", "clip", "stop"),
    ("smartclip", "clip", "group"),
    ("custom_loss", "start"),
    ("custom_loss", "stop"),
    ("regularizer", "compute", "start"),
    ("regularizer", "compute", "stop"),
    ("dataset", "batch"),
    ("performance", "sample"),
    ("performance", "operation", "start"),
    ("performance", "operation", "stop"),
]
TROUBLE = [
    ("smartclip", "clip", "nonfinite"),
    ("smartclip", "clip", "exception"),
    ("custom_loss", "exception"),
    ("regularizer", "compute", "exception"),
    ("performance", "operation", "exception"),
    ("my", "own"),
]


def test_what_comes_many_times_a_step_is_left_out_unless_it_was_chosen(bus, printed):
    everything, chosen = printed(), printed(id="chosen", events=[*DETAIL, *TROUBLE])
    for event in DETAIL:
        bus.execute(event, {"x": 1})
    assert everything.getvalue() == ""
    assert len(chosen.getvalue().splitlines()) == len(DETAIL)
    for event in TROUBLE:
        bus.execute(event, {"x": 1})
    assert len(everything.getvalue().splitlines()) == len(TROUBLE)


def test_lines_of_threads_do_not_mix(bus, printed):
    stream = printed()
    threads = [
        threading.Thread(target=lambda: [bus.execute(STEP, {}, {"step": 7}) for _ in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stream.getvalue() == "Step 7\n" * 800


def test_a_stream_of_another_encoding_gets_what_it_can_take(bus):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    handlers.attach("console", stream=stream, registry=bus)
    bus.execute(STEP, {"größe": "漢"}, {"step": 1})
    assert raw.getvalue() == b"Step 1 | gr\\xf6\\xdfe=\\u6f22\n"


def test_each_line_is_flushed(bus, tmp_path):
    with (tmp_path / "log").open("w") as stream:
        handlers.attach("console", stream=stream, registry=bus)
        bus.execute(STEP, {}, {"step": 1})
        assert (tmp_path / "log").read_text() == "Step 1\n"


def test_a_stream_that_is_closed_is_a_failure_of_the_handler(bus, caplog):
    stream = io.StringIO()
    attachment = handlers.attach("console", stream=stream, registry=bus)
    stream.close()
    bus.execute(STEP, {})
    assert not attachment.active
    assert "I/O operation on closed file" in caplog.text


def test_options_that_are_refused(bus):
    with pytest.raises(TypeError) as caught:
        handlers.attach("console", stream=3, registry=bus)
    assert str(caught.value) == (
        "Handler 'console': stream must be a text stream with a write method, got 3 (int). "
        "Write stream=sys.stderr."
    )
    with pytest.raises(TypeError) as caught:
        handlers.attach("console", progress="yes", registry=bus)
    assert str(caught.value) == (
        "Handler 'console': progress must be None, True or False, got 'yes' (str)."
    )


def test_device_values_do_not_reorder_the_lines(bus, printed):
    torch = pytest.importorskip("torch")

    class OnDevice(torch.Tensor):
        @property
        def device(self):
            return torch.device("cuda")

    stream = printed()
    bus.execute(STEP, {"loss": torch.tensor(0.25).as_subclass(OnDevice)}, {"step": 1})
    bus.execute(STEP, {"loss": 0.5}, {"step": 2})
    bus.detach("console")
    assert stream.getvalue() == "Step 1 | loss=0.25\nStep 2 | loss=0.5\n"


# on a terminal


DISTURBING = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"}


class Terminal:
    """Runs a program on a terminal, and draws what it wrote."""

    def __init__(self, columns=80, rows=24):
        self.columns, self.rows = columns, rows
        self.raw = b""

    def run(self, source, expect=0, **environment):
        parent, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, self.columns, 0, 0))
        env = {
            k: v
            for k, v in os.environ.items()
            if k not in ("NO_COLOR", "TERM", "FORCE_COLOR", "COLUMNS", "LINES")
        }
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
        assert process.wait(30) == expect, error
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
    terminal = Terminal().run(RUN.replace("101", "20001").replace("100}", "20000}"))
    assert terminal.raw.count(b"Step") < 60


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


def test_a_forked_child_does_not_draw_on_another_stream_either(bus, monkeypatch):
    attachment = handlers.attach("console", progress=True, registry=bus)
    attachment.handler.after_fork()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    bus.execute(STEP, {}, {"step": 1, "total_steps": 10})
    monkeypatch.undo()
    assert stream.getvalue() == "Step 1/10\n"


def test_progress_true_takes_any_stream_for_a_terminal(bus, printed):
    stream = printed(progress=True)
    bus.execute(STEP, {"loss": 0.5}, {"step": 10, "total_steps": 10})
    assert "10/10" in stream.getvalue()

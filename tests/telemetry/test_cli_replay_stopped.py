"""`telemetry replay --to` that is stopped before its handlers have what they were given."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from telemetry.cli import commands

TELEMETRY = [sys.executable, "-W", "error", "-m", "telemetry", "replay"]


@pytest.fixture
def log(tmp_path):
    """Alerts, which a webhook posts one by one."""

    def record(number):
        alert = {"timestamp": "2026-11-21T10:30:00Z", "event": "alert.raised"}
        alert |= {"measurements": {"value": 0.5}}
        return alert | {"metadata": {"rule": f"r{number}", "severity": "critical"}}

    path = tmp_path / "my run.jsonl"
    path.write_text("".join(f"{json.dumps(record(number))}\n" for number in range(5)))
    return path


class Hanging(ThreadingHTTPServer):
    """A server that has not answered yet."""

    daemon_threads = True

    def __init__(self):
        self.asked, self.gate = threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), Waiting)


class Waiting(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.asked.set()
        self.server.gate.wait(300)

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def hanging():
    with Hanging() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.gate.set()
        server.shutdown()
        thread.join()


def to_webhook(server, flush_timeout):
    options = {"url": f"http://127.0.0.1:{server.server_port}/", "timeout": 300}
    options["flush_timeout"] = flush_timeout
    told = [text for key, value in options.items() for text in ("--option", f"{key}={value}")]
    return ["--to", "webhook", *told]


def test_no_line_is_left_out_of_what_is_to_be_sent_again(log, hanging, monkeypatch):
    monkeypatch.setattr("handlers.stopping.GRACE", 0.1)

    def stop():
        assert hanging.asked.wait(60)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=stop)
    thread.start()
    done = CliRunner().invoke(commands, ["replay", str(log), *to_webhook(hanging, 0.1)])
    thread.join()
    assert done.exit_code == 130
    *_, summary, end = done.stderr.splitlines()
    assert summary.startswith("Replayed 5 events in ")
    assert summary.endswith("; lost: 5 (block).")
    assert end == (
        f"Stopped before any event is known to have arrived. To go on: '{log}' --from-line 1"
    )
    assert "Handler 'webhook' has not delivered in time." in done.stderr


def ask_until_it_ends(process):
    for _ in range(600):
        process.send_signal(signal.SIGINT)
        try:
            process.wait(0.1)
            break
        except subprocess.TimeoutExpired:
            continue
    process.kill()


def test_asked_twice_it_ends_at_once(log, hanging):
    """The handler would have ten minutes to end."""
    arguments = [str(log), *to_webhook(hanging, 600)]
    process = subprocess.Popen([*TELEMETRY, *arguments], stderr=subprocess.PIPE, text=True)
    with process:
        assert hanging.asked.wait(60)
        ask_until_it_ends(process)
        errors = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in errors
    summary, end = errors.strip().splitlines()
    assert summary.startswith("Replayed 5 events in ")
    assert end.endswith(f"To go on: '{log}' --from-line 1")


@pytest.mark.skipif(sys.platform != "linux", reason="names are UTF-8 there")
def test_asked_twice_it_ends_at_once_whatever_the_file_is_called(log, hanging):
    named = os.fsencode(log.parent) + b"/w\xff\x1b.jsonl"
    os.rename(log, named)  # noqa: PTH104 -- bytes
    arguments = [named, *to_webhook(hanging, 600)]
    process = subprocess.Popen([*TELEMETRY, *arguments], stderr=subprocess.PIPE)
    with process:
        assert hanging.asked.wait(60)
        ask_until_it_ends(process)
        errors = process.stderr.read()
    assert process.returncode == 130
    _, end = errors.decode().strip().splitlines()
    assert end.endswith("/w\\xff\\x1b.jsonl' --from-line 1")
    assert "To go on: $'" in end


def test_it_stops_where_no_event_is_meant(tmp_path):
    """The log is a pipe, so that it has not ended when it is to stop."""
    pipe = tmp_path / "run.jsonl"
    os.mkfifo(pipe)
    arguments = [str(pipe), "--event", "alert", "--to", "memory"]
    process = subprocess.Popen([*TELEMETRY, *arguments], stderr=subprocess.PIPE, text=True)
    with process, pipe.open("wb", buffering=0) as file:
        records = b'{"event":"a.b","loss":1}\n' * 100
        file.write(records * 400)  # far more than a pipe holds, so some were looked at
        process.send_signal(signal.SIGINT)
        with suppress(BrokenPipeError):
            for _ in range(600):
                file.write(records)
                if process.poll() is not None:
                    break
                time.sleep(0.1)
        errors = process.stderr.read()
    assert process.returncode == 130
    summary, end = errors.strip().splitlines()
    left_out = re.fullmatch(r"Replayed 0 events in [0-9.]+ s; left out: ([0-9,]+)\.", summary)
    assert left_out
    line = int(left_out[1].replace(",", ""))
    assert end == (
        f"Stopped after line {line:,} of {pipe}. To go on: {pipe} --from-line {line + 1}"
    )


def test_a_reader_of_the_console_that_has_enough_ends_it_quietly(log):
    log.write_text(log.read_text() * 5000)
    pipe = f"{sys.executable} -m telemetry replay '{log}' --to console | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"{pipe}; echo ${{PIPESTATUS[0]}} >&2"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == "0\n"

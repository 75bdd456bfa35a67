"""``telemetry replay --clipper`` as a process: closed pipes, Ctrl-C, a terminal."""

import json
import os
import pty
import signal
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "telemetry", "replay"]
PATIENCE = 120.0


@pytest.fixture
def log(tmp_path):
    def make(norms):
        path = tmp_path / "run.jsonl"
        line = '{"event":"training.step","measurements":{"grad_norm":%g},"metadata":{"step":%d}}\n'
        path.write_text("".join(line % (1 + n % 7, n) for n in range(norms)))
        return path

    return make


def rest_of(controller):
    """What a terminal still gets to see."""
    seen = b""
    with open(controller, "rb", buffering=0) as rest:  # noqa: PTH123 -- it is no path
        while True:
            try:
                data = rest.read(1000)
            except OSError:  # how Linux says that the other end of a terminal is closed
                return seen
            if not data:
                return seen
            seen += data


def test_a_reader_that_is_gone_ends_it_quietly(log):
    source, target = os.pipe()
    os.close(source)
    ended = subprocess.run(
        [*COMMAND, log(10), "--clipper", "zscore"],
        stdout=target, stderr=subprocess.PIPE, timeout=PATIENCE, check=False,
    )  # fmt: skip
    os.close(target)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_nothing_but_the_result_is_on_the_output(log):
    ended = subprocess.run(
        [*COMMAND, log(10), "--clipper", "zscore", "--json"],
        capture_output=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert json.loads(ended.stdout)[0]["clippers"][0]["steps"] == 10
    assert ended.stderr == b""


def test_json_on_a_terminal_has_no_control_characters(tmp_path):
    """U+009B, which some terminals take for the beginning of a command, is no matter to JSON."""
    line = '{"event":"training.step","measurements":{"grad_norm":1},"metadata":{"run_id":"%s"}}\n'
    path = tmp_path / "run.jsonl"
    path.write_text("".join(line % run for run in ("a\x9b31m", "b")), encoding="utf-8")
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, path, "--clipper", "zscore", "--json"], stdin=terminal, stdout=terminal
    ) as process:
        os.close(terminal)
        shown = rest_of(controller).decode()
    assert process.returncode == 0
    assert [told["run"] for told in json.loads(shown)] == ["a\x9b31m", "b"]
    assert "\x9b" not in shown


def test_a_terminal_sees_how_far_it_is_and_ctrl_c_ends_it(log):
    """Half a million norms would take a minute; the line of progress comes within one."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, log(500_000), "--clipper", "autoclip"],
        stdin=terminal, stdout=subprocess.PIPE, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    seen = b""
    while b" a second, of 500,000" not in seen:
        seen += os.read(controller, 1000)
    process.send_signal(signal.SIGINT)
    seen += rest_of(controller)
    output, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (130, b"")
    assert b"Traceback" not in seen

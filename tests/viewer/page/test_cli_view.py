"""``telemetry view`` as its user runs it."""

import importlib.metadata
import os
import signal
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

from telemetry.cli import commands

from .conftest import WAIT, line


def refused(*arguments):
    """What the command says when it ends at once, and its status."""
    result = CliRunner().invoke(commands, ["view", "--no-browser", *map(str, arguments)])
    return result.exit_code, result.stderr


def test_a_missing_file_is_said(tmp_path):
    missing = tmp_path / "nothing.jsonl"
    assert refused(missing) == (1, f"Error: There is no file or directory '{missing}'.\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_cannot_be_read_is_said(log):
    log().steps([1.0]).path.chmod(0)
    assert refused(log().path) == (1, f"Error: The file '{log().path}' cannot be read.\n")


def test_a_taken_port_is_said_with_the_next_free_one(log):
    log().steps([1.0])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, text = refused(log().path, "--port", port)
    assert status == 1
    assert text.startswith(
        f"Error: Port {port} of 127.0.0.1 is taken by another program. "
        "The next one that is free: --port "
    )
    assert port < int(text.split("--port ")[1].rstrip(".\n")) <= port + 100


def test_an_address_that_is_not_this_machines_is_said(log):
    log().steps([1.0])
    status, text = refused(log().path, "--host", "192.0.2.7", "--port", "0")
    assert status == 1
    assert text == (
        "Error: The page cannot be served at '192.0.2.7', port 0: Cannot assign requested address. "
        "--host takes an address of this machine, and --port 0 any port that is free.\n"
    )


@pytest.mark.parametrize("host", ["not a name", "x" * 70])
def test_a_host_that_is_none_is_named(log, host):
    log().steps([1.0])
    status, text = refused(log().path, "--host", host)
    assert status == 1
    assert text.startswith(f"Error: The page cannot be served at '{host}': ")
    assert "None" not in text


def test_a_path_in_the_home_directory_is_found_without_a_shell(run_command, log, monkeypatch):
    log().steps([1.0])
    monkeypatch.setenv("HOME", str(log().path.parent))
    served = run_command("~/run.jsonl")
    while '"ready":true' not in (state := served.get("api/state")[2]):
        pass
    assert '"runs":["run"]' in state
    assert refused("~nobody-is-called-so/x.jsonl")[0] == 1


@pytest.mark.parametrize(
    "arguments", [("--port", "99999"), ("--smooth", "-1"), ("--x-key", "loss")]
)
def test_an_option_that_is_not_allowed_is_said(log, arguments):
    log().steps([1.0])
    status, text = refused(log().path, *arguments)
    assert status == 2
    assert arguments[0] in text


def test_without_the_extra_it_is_said_how_to_get_it(log, monkeypatch):
    log().steps([1.0])
    find = importlib.util.find_spec
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda n: None if n == "uvicorn" else find(n))
    assert refused(log().path, "--port", "0") == (
        1,
        (
            "Error: telemetry view needs the module 'uvicorn', which cannot be imported. "
            "Install it with: pip install 'trainbus[viewer]'\n"
        ),
    )


def test_an_empty_directory_is_waited_for_and_that_is_said(run_command, tmp_path):
    served = run_command(tmp_path)
    assert served.get("api/state")[0] == 200
    served.process.send_signal(signal.SIGINT)
    _, said = served.process.communicate(timeout=WAIT)
    assert said.startswith(f"The directory '{tmp_path}' has no log: ")
    assert "Waiting for it." in said


@pytest.mark.parametrize("listened", [False, True])
def test_ctrl_c_ends_it_quietly_even_while_a_page_listens(run_command, log, listened):
    log().steps([1.0])
    served = run_command(log().path)
    host, port = served.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=WAIT) as connection:
        if listened:
            connection.sendall(f"GET /api/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert b"200 OK" in connection.recv(100)
        served.process.send_signal(signal.SIGINT)
        _, said = served.process.communicate(timeout=WAIT)
    assert served.process.returncode == 130
    assert said.strip() == "Ctrl-C ends it."


def test_bad_lines_are_said_and_do_not_end_it(run_command, log):
    log().steps([1.0]).write("no json\n").steps([2.0], first=2)
    served = run_command(log().path)
    while '"ready":true' not in (state := served.get("api/state")[2]):
        pass
    assert '"left_out":1' in state
    served.process.send_signal(signal.SIGINT)
    _, said = served.process.communicate(timeout=WAIT)
    assert f"Warning: {log().path}: no record in line 2 (" in said


def test_a_token_can_be_wanted_on_this_machine_as_well(run_command, log):
    log().steps([1.0])
    served = run_command(log().path, "--token")
    assert "#token=" in served.url
    assert served.get("api/state")[0] == 401


def test_options_are_where_the_page_begins(run_command, log):
    log().write(line("training.step", 0.0, {"loss": 1.0}, step=1))
    served = run_command(log().path, "--smooth", "20", "--smooth-mode", "ema", "--x-key", "time")
    assert '"settings":{"smooth":20,"mode":"ema","axis":"time"}' in served.get("api/state")[2]


def test_the_help_imports_nothing_heavy():
    code = (
        "import sys; from telemetry.cli import commands\n"
        "commands(['view', '-h'], standalone_mode=False)\n"
        "print([m for m in ('duckdb', 'numpy', 'pandas', 'starlette', 'uvicorn', 'plotly')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "telemetry view runs --host 0.0.0.0" in done.stdout

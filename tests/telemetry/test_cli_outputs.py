"""What commands write to outputs that are closed, and to terminals; nasty names."""

import os
import pty
import subprocess
import sys
import threading
from contextlib import suppress

import click
import pytest
from click.testing import CliRunner

from telemetry.cli import commands
from telemetry.cli.output.printable import shell_word
from telemetry.cli.output.progress import Progress

TELEMETRY = [sys.executable, "-W", "error", "-m", "telemetry"]
RECORD = '{"event":"alert.raised","measurements":{"value":1},"metadata":{"severity":"critical"}}\n'
NASTY = "a\a\x1b[31mred.jsonl"


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.jsonl"
    path.write_text(RECORD)
    return path


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    "arguments",
    [
        "events",
        "--help",
        "tail run.jsonl",
        "tail --json run.jsonl",
        "replay run.jsonl --to memory",
        "replay run.jsonl --to console",
    ],
)
@pytest.mark.usefixtures("log")
def test_an_output_that_is_closed_gets_nothing(arguments, closed):
    script = f"{sys.executable} -W error -m telemetry {arguments} {closed}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0
    assert b"Traceback" not in done.stdout + done.stderr
    assert bool(done.stdout) == (closed == "2>&-" and "memory" not in arguments)


@pytest.mark.usefixtures("log")
def test_an_error_with_nowhere_to_go_is_the_status():
    script = f"{sys.executable} -W error -m telemetry tail no.jsonl 2>&-"
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, b"")


def on_a_terminal(*arguments, **variables):
    master, slave = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"TERM": "xterm", **variables}
    process = subprocess.Popen(
        [*TELEMETRY, *arguments], stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    shown = b""
    with suppress(OSError):  # what Linux says at the end of a terminal
        while data := os.read(master, 4096):
            shown += data
    process.wait(60)
    os.close(master)
    return shown.decode()


@pytest.mark.parametrize("arguments", [["tail", "run.jsonl"], ["events", "training.eval"]])
@pytest.mark.usefixtures("log")
def test_colours_are_left_out_where_nobody_wants_them(arguments):
    coloured = on_a_terminal(*arguments)
    assert "\x1b[" in coloured
    assert on_a_terminal(*arguments, NO_COLOR="") == coloured
    assert on_a_terminal(*arguments, NO_COLOR="1") == click.unstyle(coloured)


def test_what_another_thread_logs_has_the_colours_of_the_command(capsys):
    """Such as a handler's worker, where click knows of no command."""
    for wanted, shown in ((True, click.style("a", fg="red")), (False, "a")):
        with click.Context(commands, color=wanted).scope():
            progress = Progress(shown=False)
            thread = threading.Thread(target=progress.log, args=("a", True))
            thread.start()
            thread.join()
        assert capsys.readouterr().err == f"{shown}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["tail", NASTY],
        ["tail", "no" + NASTY],
        ["tail", NASTY, "--event", "no"],
        ["tail", "empty" + NASTY],
        ["replay", NASTY, "--to", "memory"],
        ["replay", "empty" + NASTY, "--to", "memory"],
        ["replay", NASTY, "--to", "memory", "--dry-run"],
        ["replay", NASTY, "--to", "memory", "--event", "no"],
        ["replay", NASTY, "--to", "jsonl", "--option", f"path={NASTY}"],
        ["replay", NASTY, "--to", NASTY],
        ["replay", NASTY, "--to", "memory", "--where", NASTY],
        ["replay", NASTY, "--clipper", "zscore"],
        ["summary", NASTY],
        ["summary", "no" + NASTY],
        ["query", "select count(*) from records", NASTY],
        ["query", "select count(*) from records", "no" + NASTY],
        ["plot", NASTY, "--out", "a.png"],
        ["plot", NASTY, "--out", NASTY],
        ["plot", "no" + NASTY, "--out", "a.png"],
        ["events", NASTY],
        [NASTY],
    ],
)
def test_names_do_not_command_a_terminal(log, arguments):
    log.with_name(NASTY).write_text(f"garbage\n{RECORD}")
    log.with_name("empty" + NASTY).touch()
    done = CliRunner().invoke(commands, arguments)
    assert done.output
    assert not {"\a", "\x1b"} & set(done.output), done.output
    assert type(done.exception) in (type(None), SystemExit)


def test_a_name_is_a_word_of_the_shell_whatever_is_in_it():
    for name in ("run.jsonl", "my run.jsonl", "it's", NASTY, "a'\\\n\x1bb", "w\udcffé\u202e"):
        said = subprocess.run(
            ["bash", "-c", f"printf %s {shell_word(name)}"], capture_output=True, check=True
        )
        assert said.stdout == os.fsencode(name)
        assert shell_word(name).isprintable()

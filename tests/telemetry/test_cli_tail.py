"""`telemetry tail`, run as its users run it."""

import gzip
import json
import os
import pty
import subprocess
import sys
import time

import click
import pytest
from click.testing import CliRunner

from telemetry.cli import commands

TELEMETRY = [sys.executable, "-W", "error", "-m", "telemetry", "tail"]


def record(event, measurements, timestamp="2026-11-21T10:30:00.123456Z", **metadata):
    whole = {"timestamp": timestamp, "event": event}
    whole |= {"measurements": measurements, "metadata": metadata}
    return json.dumps(whole)


def step(number, **more):
    return record("training.step", {"loss": 2.5}, step=number, **more)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty directory, far away from UTC."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield tmp_path
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def tail(place):
    return lambda *arguments: CliRunner().invoke(commands, ["tail", *map(str, arguments)])


@pytest.fixture
def write(place):
    def write(name, *lines):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write


def test_the_last_ten_events_are_lines_for_people(tail, write):
    log = write("run.jsonl", *map(step, range(1, 31)))
    assert tail(log).output.splitlines() == [
        f"2026-11-21 19:30:00  Step {number} | loss=2.5" for number in range(21, 31)
    ]


def test_as_json_they_are_the_lines_of_the_file(tail, write):
    lines = [step(1), '{"step":  2, "loss":1.50}', step(3)]
    log = write("run.jsonl", *lines)
    assert tail(log, "--json", "-n", 2).output == f"{lines[1]}\n{lines[2]}\n"


def test_without_a_path_it_is_the_newest_log_of_the_runs(tail, write, place):
    newest, older = write("runs/b/m.jsonl", step(1)), write("runs/a/m.jsonl", step(2))
    os.utime(older, (1, 1))
    assert newest.stat().st_mtime > 1
    write("other.jsonl", step(3))
    assert tail().output == "2026-11-21 19:30:00  Step 1 | loss=2.5\n"
    (place / "runs").rename(place / "sunr")
    os.utime(place / "sunr/b/m.jsonl", (1, 1))
    assert tail().output == "2026-11-21 19:30:00  Step 3 | loss=2.5\n"
    assert tail("sunr").output != ""


def test_a_compressed_log_is_read_as_well(tail, place):
    log = place / "run.jsonl.gz"
    log.write_bytes(gzip.compress("".join(f"{step(n)}\n" for n in range(30)).encode()))
    assert [line.split()[3] for line in tail(log, "-n", 2).output.splitlines()] == ["28", "29"]


def test_several_files_are_told_apart_and_in_the_order_of_time(tail, write):
    times = [f"2026-11-21T10:30:0{second}Z" for second in range(4)]
    write("run.0.jsonl", step(1, timestamp=times[0]), step(2, timestamp=times[2]))
    write("run.1.jsonl", step(3, timestamp=times[1]), step(4, timestamp=times[3]))
    assert tail("run.0.jsonl", "run.1.jsonl").output.splitlines() == [
        "run.0  2026-11-21 19:30:00  Step 1 | loss=2.5",
        "run.1  2026-11-21 19:30:01  Step 3 | loss=2.5",
        "run.0  2026-11-21 19:30:02  Step 2 | loss=2.5",
        "run.1  2026-11-21 19:30:03  Step 4 | loss=2.5",
    ]


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        (["--event", "training"], [1, 2, 4]),
        (["--event", "training.step"], [1, 2]),
        (["--event", "training/step", "--event", "alert"], [1, 2, 3]),
        (["--event", "*.step"], [1, 2]),
        (["--event", "**"], [1, 2, 3, 4, 5]),
        (["--where", "rank=0"], [1, 4]),
        (["--where", "rank=0", "--where", "split=val"], [4]),
        (["--where", "done=true"], [2]),
        (["--event", "training", "--where", "rank=1"], [2]),
        (["--event", "record"], [5]),
    ],
)
def test_events_are_chosen_by_name_and_metadata(tail, write, given, steps):
    log = write(
        "run.jsonl",
        step(1, rank=0),
        step(2, rank=1, done=True),
        record("alert.raised", {"value": 1}, step=3, rule="training"),
        record("training.eval", {"loss": 1}, step=4, rank=0, split="val"),
        '{"step": 5, "loss": 1}',
    )
    found = [json.loads(line) for line in tail(log, "--json", *given).output.splitlines()]
    assert [one.get("metadata", one)["step"] for one in found] == steps


def test_the_number_counts_those_that_are_chosen(tail, write):
    lines = [record("alert.raised", {"value": n}) if n % 100 == 0 else step(n) for n in range(500)]
    log = write("run.jsonl", *lines)
    assert (
        tail(log, "--json", "-n", 2, "--event", "alert").output == f"{lines[300]}\n{lines[400]}\n"
    )


def test_a_last_line_that_has_no_end_is_shown_when_it_is_a_record(tail, place):
    log = place / "run.jsonl"
    log.write_text(f"{step(1)}\n{step(2)}")
    assert tail(log, "--json").output == f"{step(1)}\n{step(2)}\n"
    assert tail(log, "--json", "-n", 1).output == f"{step(2)}\n"


def test_lines_that_are_no_records_are_counted(tail, write):
    log = write("run.jsonl", "garbage", step(1), "[]")
    result = tail(log, "--json")
    reason = "no JSON object, but list"
    assert result.stdout == f"{step(1)}\n"
    assert result.stderr.splitlines() == [
        f"{log}: the line at byte {len(step(1)) + 9} is no record, and left out: {reason}",
        "Lines that are no records, and left out: 2",
    ]


def test_control_characters_do_not_reach_the_terminal(tail, write):
    nasty = "a\x1b[31m\x07\u202eb"
    log = write("run.jsonl", record("x.y", {nasty: 1.0}, note=nasty))
    (line,) = tail(log).output.splitlines()
    assert line == (
        r"2026-11-21 19:30:00  x.y | a\x1b[31m\x07\u202eb=1 | note=a\x1b[31m\x07\u202eb"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 1, "The directory '.' has no log: no file ends in .jsonl or .jsonl.gz."),
        (["no.jsonl"], 1, "There is no file 'no.jsonl'."),
        (["*.jsonl"], 1, "No file matches '*.jsonl'."),
        (["--event", "a..b"], 2, "segment"),
        (["--event", ""], 2, "must not be empty"),
        (["--where", "rank"], 2, "It must be KEY=VALUE, such as severity=critical, got 'rank'."),
    ],
)
def test_what_cannot_be_is_said(tail, arguments, status, message):
    result = tail(*arguments)
    assert result.exit_code == status
    assert message in result.output


def test_nothing_to_show_is_said_with_names_that_are_near(tail, write):
    empty, log = write("empty.jsonl"), write("run.jsonl", record("sampler.draw", {"n": 1}))
    result = tail(empty)
    assert (result.exit_code, result.output) == (1, f"Error: There is no record in {empty}.\n")
    result = tail(log, "--event", "sampelr")
    assert result.exit_code == 1
    assert result.output == (f"Error: No record in {log} is such an event. Did you mean sampler?\n")
    result = tail(log, "--event", "alert.rasied", "-n", 1)
    assert result.output.endswith("Did you mean alert.raised, alert.cleared?\n")
    assert tail(log, "-n", 0).exit_code == 0


@pytest.fixture
def follow(place):
    """Start following, and end it when the test does."""
    started = []

    def follow(*arguments, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        process = subprocess.Popen([*TELEMETRY, "-f", *map(str, arguments)], **options)
        started.append(process)
        return process

    yield follow
    for process in started:
        process.kill()
        process.communicate()


def append(path, text):
    with path.open("a") as file:
        file.write(text)


def test_what_comes_is_shown_when_its_line_is_whole(follow, write):
    log = write("run.jsonl", step(1), step(2))
    process = follow("--json", "-n", 1, log)
    assert process.stdout.readline() == f"{step(2)}\n"
    append(log, step(3)[:9])
    append(log, f"{step(3)[9:]}\n{step(4)}\n")
    assert process.stdout.readline() == f"{step(3)}\n"
    assert process.stdout.readline() == f"{step(4)}\n"
    log.rename(log.with_suffix(".old"))
    log.write_text(f"{step(5)}\n")
    assert process.stdout.readline() == f"{step(5)}\n"


def test_a_file_and_a_directory_that_are_empty_are_waited_for(follow, place):
    process = follow("--json", "later.jsonl")
    assert process.stderr.readline() == "There is no file 'later.jsonl'. Waiting for it.\n"
    append(place / "later.jsonl", f"{step(1)}\n")
    assert process.stdout.readline() == f"{step(1)}\n"
    (place / "runs").mkdir()
    process = follow("--json")
    assert process.stderr.readline() == (
        "The directory 'runs' has no log: no file ends in .jsonl or .jsonl.gz. Waiting for it.\n"
    )
    append(place / "runs/first.jsonl", f"{step(2)}\n")
    assert process.stdout.readline() == f"{step(2)}\n"


def test_following_ends_when_nobody_reads_any_more(follow, write):
    process = follow("--json", write("run.jsonl", step(1)))
    assert process.stdout.readline() == f"{step(1)}\n"
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr.read() == ""


def test_on_a_terminal_failures_and_alerts_stand_out(follow, write):
    log = write(
        "run.jsonl",
        record("alert.raised", {"value": 0.2}, rule="kl", severity="critical"),
        record("custom_loss.exception", {"duration": 5_000_000}, reason="ValueError('x')"),
        record("telemetry.handler.failure", {}, event_name=["a", "b"], handler_id="w", reason="no"),
        step(1),
    )
    master, slave = pty.openpty()
    process = follow(log, stdout=slave, env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    shown = b""
    while b"Step 1" not in shown:
        shown += os.read(master, 4096)
    process.kill()
    process.wait()
    os.close(master)
    dim = click.style("2026-11-21 19:30:00", dim=True)
    red = [
        "Alert raised (critical): kl | value=0.2",
        "custom_loss failed after 5ms: ValueError('x')",
        "Handler w failed on a.b: no",
    ]
    lines = shown.decode().splitlines()
    assert lines[:3] == [f"{dim}  {click.style(one, fg='red', bold=True)}" for one in red]
    assert click.unstyle(lines[3]).startswith("2026-11-21 19:30:00  Step 1")

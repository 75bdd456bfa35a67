"""`telemetry tail` on files of every kind: torn, huge, piped, unreadable, and those that come."""

import gzip
import json
import os
import pty
import subprocess
import sys
import tracemalloc

import pytest
from click.testing import CliRunner

from telemetry.cli import commands

TELEMETRY = [sys.executable, "-W", "error", "-m", "telemetry", "tail"]


def step(number):
    return json.dumps({"step": number, "loss": 2.5})


def lines(*numbers):
    return "".join(f"{step(number)}\n" for number in numbers)


def tail(*arguments):
    return CliRunner().invoke(commands, ["tail", "--json", *map(str, arguments)])


def test_a_last_line_without_its_end_is_shown_from_gzip_as_well(tmp_path):
    log = tmp_path / "run.jsonl.gz"
    log.write_bytes(gzip.compress((lines(1) + step(2)).encode()))
    assert tail(log).stdout == lines(1, 2)
    assert tail(log, "-n", 1).stdout == lines(2)


def test_a_bad_line_of_a_compressed_file_is_named_by_its_number(tmp_path):
    log = tmp_path / "run.jsonl.gz"
    log.write_bytes(gzip.compress(f"{lines(1)}garbage\n".encode()))
    assert tail(log).stderr.startswith(f"{log}: line 2 is no record, and left out: ")


def test_text_that_is_called_gzip_is_said_to_be_none(tmp_path):
    log = tmp_path / "run.jsonl.gz"
    log.write_text(lines(1))
    assert "it is no gzip file" in tail(log).stderr


def test_a_line_that_never_ends_is_not_kept_in_memory(tmp_path):
    log = tmp_path / "run.jsonl"
    with log.open("wb") as file:
        file.write(lines(1).encode())
        file.truncate(3 << 30)  # a hole, which takes no room on the disk
    tracemalloc.start()
    done = tail(log)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert done.stdout == lines(1)
    assert done.stderr == (
        f"{log}: the line at byte {len(lines(1))} is no record, and left out: "
        "longer than 16,777,216 bytes\n"
    )
    assert peak < 300e6


def test_a_mark_of_byte_order_is_no_part_of_the_first_line(tmp_path):
    log = tmp_path / "run.jsonl"
    log.write_bytes(b"\xef\xbb\xbf" + lines(1, 2).encode())
    assert tail(log).output == lines(1, 2)


@pytest.mark.parametrize("arguments", [[], ["-f"]])
def test_a_pipe_is_read_from_its_start(tmp_path, arguments):
    process = subprocess.Popen(
        [*TELEMETRY, "--json", "-n", "2", "/dev/stdin", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        process.stdin.write(lines(1, 2, 3))
        process.stdin.close()
        shown = lines(1, 2, 3) if arguments else lines(2, 3)
        assert process.stdout.read(len(shown)) == shown
        process.kill() if arguments else process.wait(60)
        errors = process.stderr.read()
    assert errors == ""


@pytest.mark.parametrize("command", [["tail"], ["replay", "--to", "memory", "--dry-run"]])
def test_what_cannot_be_read_is_said(tmp_path, command):
    loop, long = tmp_path / "loop.jsonl", tmp_path / ("x" * 300)
    loop.symlink_to(loop)
    for path, reason in ((loop, "Too many levels of symbolic links"), (long, "File name too long")):
        done = CliRunner().invoke(commands, [*command, str(path)])
        assert (done.exit_code, type(done.exception)) == (1, SystemExit)
        assert done.stderr in (
            f"Error: {path} cannot be read: {reason}.\n",
            f"Error: There is no file '{path}'.\n",
        )


@pytest.mark.parametrize("command", [["tail"], ["replay", "--to", "memory", "--dry-run"]])
def test_what_is_called_like_a_log_and_is_none_is_passed_over(tmp_path, command):
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "run.jsonl").write_text(lines(1))
    done = CliRunner().invoke(commands, [*command, str(tmp_path)])
    assert (done.exit_code, done.stderr) == (0, "")


def test_more_lines_than_anything_can_hold_are_refused(tmp_path):
    assert tail(tmp_path, "-n", "9" * 20).exit_code == 2


def test_a_file_under_several_names_is_one(tmp_path):
    log, link = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    log.write_text(lines(1))
    link.symlink_to(log)
    assert tail(log, log, link).output == lines(1)


@pytest.fixture
def follow():
    """Start following, and end it when the test does."""
    started = []

    def follow(*arguments, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        command = [*TELEMETRY, "--json", "-f", *map(str, arguments)]
        started.append(subprocess.Popen(command, **options))
        return started[-1]

    yield follow
    for process in started:
        process.kill()
        process.communicate()


def test_files_that_come_to_fit_a_pattern_are_followed(follow, tmp_path):
    (tmp_path / "run-0.jsonl").write_text(lines(1))
    process = follow(tmp_path / "no.jsonl", tmp_path / "none-*.jsonl", tmp_path / "run-*.jsonl")
    said = [process.stderr.readline() for _ in range(2)]
    assert said == [
        f"There is no file '{tmp_path}/no.jsonl'. Waiting for it.\n",
        f"No file matches '{tmp_path}/none-*.jsonl'. Waiting for it.\n",
    ]
    assert process.stdout.readline() == lines(1)
    (tmp_path / "run-1.jsonl").write_text(lines(2))
    assert process.stdout.readline() == lines(2)
    (tmp_path / "run-0.jsonl").rename(tmp_path / "run-0.old.jsonl")  # still the first
    (tmp_path / "no.jsonl").write_text(lines(3))
    assert process.stdout.readline() == lines(3)


def test_a_run_that_begins_in_a_directory_is_followed(follow, tmp_path):
    old, first = tmp_path / "old.jsonl", tmp_path / "first.jsonl"
    first.write_text(lines(1))
    old.write_text(lines(0))
    os.utime(old, (1, 1))
    process = follow(tmp_path)
    assert process.stdout.readline() == lines(1)
    with old.open("a") as file:
        file.write(lines(9))
    (tmp_path / "second.jsonl").write_text(lines(2))
    assert process.stdout.readline() == lines(2)


def test_a_file_has_another_label_when_one_has_come_that_is_called_so_too(tmp_path):
    first, second = tmp_path / "a/metrics.jsonl", tmp_path / "b/metrics.jsonl"
    first.parent.mkdir()
    second.parent.mkdir()
    first.write_text(lines(1))
    command = [part for part in TELEMETRY if part != "--json"]
    process = subprocess.Popen([*command, "-f", tmp_path], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "record | loss=2.5 | step=1\n"
        second.write_text(lines(2))
        assert process.stdout.readline() == "b/metrics  record | loss=2.5 | step=2\n"
        with first.open("a") as file:
            file.write(lines(3))
        assert process.stdout.readline() == "a/metrics  record | loss=2.5 | step=3\n"
        process.kill()


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_a_pipe_is_shown_as_it_comes(follow, name):
    process = follow(name, stdin=subprocess.PIPE)
    for number in range(3):
        process.stdin.write(lines(number))
        process.stdin.flush()
        assert process.stdout.readline() == lines(number)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
@pytest.mark.parametrize("arguments", ["", "-f"])
def test_standard_input_that_is_closed_is_not_waited_for(name, arguments):
    command = f"{sys.executable} -W error -m telemetry tail {arguments} {name} <&-"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: Standard input is closed.\n"


def test_standard_input_is_called_so(tmp_path):
    (tmp_path / "run.jsonl").write_text(lines(1))

    def shown(*arguments, given):
        return subprocess.run(
            [*TELEMETRY, *arguments],
            input=given,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    both = shown("-", "run.jsonl", given=lines(2))
    assert both.stdout.splitlines() == [
        "standard input  record | loss=2.5 | step=2",
        "run  record | loss=2.5 | step=1",
    ]
    assert shown("-", given="").stderr == "Error: There is no record in standard input.\n"
    bad = shown("-", given=f"garbage\n{lines(1)}").stderr
    assert bad.startswith("standard input: the line at byte 0 is no record, and left out: ")


def test_a_pipe_is_not_followed_beside_others(follow, tmp_path):
    pipe, log = tmp_path / "pipe.jsonl", tmp_path / "run.jsonl"
    os.mkfifo(pipe)
    log.write_text(lines(1))
    _, errors = follow(pipe, log).communicate(timeout=60)
    assert errors == "Error: A pipe is followed alone. Leave --follow, or the other files.\n"


def test_as_json_a_terminal_gets_no_control_characters(tmp_path):
    log = tmp_path / "run.jsonl"
    log.write_text('{"loss": 1, "x": "\x9b31m\u202e\U000e0001é"}\n', encoding="utf-8")
    master, slave = pty.openpty()
    command = [*TELEMETRY, "--json", str(log)]
    process = subprocess.Popen(command, stdout=slave)
    assert process.wait(60) == 0
    shown = os.read(master, 4096).decode()
    os.close(slave)
    os.close(master)
    assert shown == '{"loss": 1, "x": "\\u009b31m\\u202e\\udb40\\udc01é"}\r\n'
    assert json.loads(shown) == json.loads(log.read_text(encoding="utf-8"))


def test_names_that_are_offered_are_printable(tmp_path):
    log = tmp_path / "run.jsonl"
    name = "sampler\x1b]0;x\x07"
    record = {"event": name, "measurements": {"n": 1}, "metadata": {}}
    log.write_text(json.dumps(record) + "\n")
    done = tail(log, "--event", "sampler0;x")
    assert done.stderr.endswith("Did you mean sampler\\x1b]0;x\\x07?\n")

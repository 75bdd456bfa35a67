"""How commands end: at a closed pipe, a full disk, Ctrl-C; with a real shell's processes."""

import os
import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from telemetry.cli import commands
from telemetry.cli.endings import Commands

TELEMETRY = [sys.executable, "-W", "error", "-m", "telemetry"]
FULL = "Error: The output cannot be written: No space left on device.\n"


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def buffering(request, monkeypatch):
    """Whether the interpreter keeps output back, which it then tries to write once more."""
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


@pytest.mark.parametrize("arguments", [["events"], ["--help"], ["completion", "bash"]])
@pytest.mark.usefixtures("buffering")
def test_a_closed_pipe_ends_a_command_quietly(arguments):
    read, write = os.pipe()
    os.close(read)
    command = [*TELEMETRY, *arguments]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_has_enough_ends_a_command_quietly():
    pipe = f"{sys.executable} -m telemetry events --format json | head -c 100"
    first = subprocess.run(
        ["bash", "-c", f"{pipe}; echo ${{PIPESTATUS[0]}} >&2"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert len(first.stdout) == 100
    assert first.stderr == b"0\n"


@pytest.mark.parametrize("arguments", [["events"], ["--help"]])
@pytest.mark.usefixtures("buffering")
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")  # noqa: PTH110 -- a device
def test_a_full_disk_is_an_error_in_words(arguments):
    with open("/dev/full", "w") as full:  # noqa: PTH123 -- a device
        done = subprocess.run(
            [*TELEMETRY, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (1, FULL)


def test_ctrl_c_ends_a_command_with_130(tmp_path):
    log = tmp_path / "run.jsonl"
    log.write_text('{"step":1,"loss":2.5}\n')
    process = subprocess.Popen(
        [*TELEMETRY, "tail", "--follow", str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "record | loss=2.5 | step=1\n"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert (process.returncode, rest, errors.strip()) == (130, "", "")


@pytest.fixture
def group():
    return Commands("telemetry")


def test_an_error_that_is_nobodys_fault_but_ours_keeps_its_traceback(group):
    @group.command()
    def broken():
        raise OSError(99, "strange")

    result = CliRunner().invoke(group, ["broken"])
    assert type(result.exception) is OSError


def test_another_pipe_that_breaks_is_no_quiet_end(group):
    @group.command()
    def broken():
        raise BrokenPipeError

    result = CliRunner().invoke(group, ["broken"])
    assert result.exit_code == 1
    assert result.output == "Error: A connection was closed by its other end.\n"


def test_errors_and_statuses_are_those_of_click(group):
    @group.command()
    @click.pass_context
    def leave(context):
        context.exit(3)

    @group.command()
    def fail():
        raise click.ClickException("no")

    @group.command()
    def give():
        return "something"

    runner = CliRunner()
    assert runner.invoke(group, ["leave"]).exit_code == 3
    assert runner.invoke(group, ["give"]).exit_code == 0
    failed = runner.invoke(group, ["fail"])
    assert (failed.exit_code, failed.output) == (1, "Error: no\n")
    assert runner.invoke(group, ["fial"]).exit_code == 2
    assert group.main(["give"], standalone_mode=False) == "something"
    with pytest.raises(click.ClickException):
        group.main(["fail"], standalone_mode=False)


def test_a_file_is_named_in_an_error_as_it_is(group, tmp_path):
    """Click would take out of the name what could be a colour, and leave that of another file."""

    @group.command()
    @click.argument("path", type=click.Path(exists=True))
    def read(path):
        raise click.ClickException(f"{path} cannot be read.\nNor can others.")

    path = tmp_path / "e\x1b[31mvil"
    path.touch()
    failed = CliRunner().invoke(group, ["read", str(path)])
    shown = f"{tmp_path}/e\\x1b[31mvil"
    assert failed.stderr == f"Error: {shown} cannot be read.\nNor can others.\n"
    missing = CliRunner().invoke(group, ["read", f"{path}er"])
    assert f"{shown}er" in missing.stderr
    assert "\x1b" not in missing.stderr


def test_ctrl_c_inside_of_the_process_too(group):
    @group.command()
    def interrupted():
        raise KeyboardInterrupt

    assert CliRunner().invoke(group, ["interrupted"]).exit_code == 130


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["repl"], ["replay"]),
        (["tail", "--event", "alert"], ["alert", "alert.cleared", "alert.raised"]),
        (["replay", "x", "--event", "training.st"], ["training.step"]),
        (["events", "training.st"], ["training.step"]),
    ],
)
def test_completion_still_works(words, found):
    place = {"COMP_WORDS": " ".join(["telemetry", *words]), "COMP_CWORD": str(len(words))}
    done = subprocess.run(
        [sys.executable, "-m", "telemetry"],
        env=os.environ | {"_TELEMETRY_COMPLETE": "bash_complete"} | place,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == [f"plain,{name}" for name in found]


def test_ctrl_c_while_a_command_is_imported_ends_it_with_130():
    class Slow(Commands):
        def get_command(self, ctx, cmd_name):
            raise KeyboardInterrupt

    assert CliRunner().invoke(Slow("telemetry"), ["tail"]).exit_code == 130


def test_a_command_is_imported_when_it_is_asked_for():
    probe = "import sys, telemetry.cli; print(*sorted(n for n in sys.modules if '.cli.' in n))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    loaded = ["endings", "output", "output.printable"]
    assert done.stdout.split() == [f"telemetry.cli.{name}" for name in loaded]


def test_every_command_is_there():
    context = click.Context(commands)
    names = commands.list_commands(context)
    assert names == sorted(names)
    assert [commands.get_command(context, name).name for name in names] == names
    assert commands.get_command(context, "endings") is None


def test_the_completion_script_is_printed():
    result = CliRunner().invoke(commands, ["completion", "bash"])
    assert (result.exit_code, "_TELEMETRY_COMPLETE" in result.output) == (0, True)

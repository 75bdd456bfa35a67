"""The command `telemetry`, run as its users run it."""

import json
import shlex
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from telemetry.cli import commands
from telemetry.events import CATALOGUE

TELEMETRY = [sys.executable, "-W", "error", "-m", "telemetry"]


@pytest.fixture
def telemetry():
    runner = CliRunner()
    return lambda *arguments: runner.invoke(commands, arguments, prog_name="telemetry")


def test_events_prints_the_whole_catalogue(telemetry):
    result = telemetry("events")
    assert result.exit_code == 0
    lines = click.unstyle(result.output).splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == [
        spec.dotted for spec in CATALOGUE
    ]
    block = lines[lines.index("training.checkpoint") :]
    assert block[:7] == [
        "training.checkpoint",
        "  a checkpoint was saved (emitted by your code, reported as training.checkpoint.*)",
        "  measurements:",
        "    size_bytes                   on disk [bytes]",
        "  metadata:",
        "    checkpoint_name              its name",
        "    path                         where it was saved",
    ]


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("smartclip.clip.stop", ["smartclip.clip.stop"]),
        ("custom_loss", ["custom_loss.start", "custom_loss.stop", "custom_loss.exception"]),
        ("training/step", ["training.step"]),
        ("alert.", ["alert.raised", "alert.cleared"]),
    ],
)
def test_events_takes_a_prefix(telemetry, prefix, names):
    result = telemetry("events", prefix, "--format", "json")
    assert [row["name"] for row in json.loads(result.output)] == names


def test_events_as_json_is_asked_for_as_of_other_commands(telemetry):
    told = telemetry("events", "training", "--json").output
    assert told == telemetry("events", "training", "--format", "json").output


def test_events_as_json_has_all_of_it(telemetry):
    rows = json.loads(telemetry("events", "--format", "json").output)
    assert len(rows) == len(CATALOGUE)
    (step,) = (row for row in rows if row["name"] == "training.step")
    assert step == {
        "name": "training.step",
        "about": "an optimizer step was made",
        "emitter": "your code",
        "reported": "training.{measurement}",
        "measurements": [
            {"name": "loss", "about": "training loss", "unit": ""},
            {"name": "lr", "about": "learning rate", "unit": ""},
            {"name": "grad_norm", "about": "L2 norm of the gradient", "unit": ""},
        ],
        "metadata": [
            {"name": "step", "about": "counted from 1", "unit": ""},
            {"name": "total_steps", "about": "of the whole run", "unit": ""},
            {"name": "epoch", "about": "counted from 1", "unit": ""},
        ],
        "detail": False,
    }


def test_events_as_markdown_is_a_table_for_each_family(telemetry):
    lines = telemetry("events", "--format", "markdown").output.splitlines()
    rows = [line for line in lines if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [spec.dotted for spec in CATALOGUE]
    assert {row.count(" | ") for row in rows} == {2}
    headings = [line for line in lines if line.startswith("## ")]
    assert headings == [f"## {name}" for name in dict.fromkeys(spec.name[0] for spec in CATALOGUE)]
    assert lines.count("| event | measurements | metadata |") == len(headings)
    (checkpoint,) = (row for row in rows if row.startswith("| `training.checkpoint`"))
    assert checkpoint == (
        "| `training.checkpoint`<br>a checkpoint was saved"
        "<br>reported as `training.checkpoint.*` "
        "| `size_bytes` [bytes]: on disk "
        "| `checkpoint_name`: its name<br>`path`: where it was saved"
        "<br>`step`: at which optimizer step<br>`epoch`: in which epoch |"
    )


def test_an_unknown_event_is_answered_with_near_names(telemetry):
    result = telemetry("events", "training.stpe")
    assert result.exit_code == 1
    assert result.output == (
        "Error: No event begins with 'training.stpe'. Did you mean training.step, "
        "training.eval, training.epoch? All of them: telemetry events\n"
    )


def test_an_unknown_event_near_to_none_is_answered_without(telemetry):
    result = telemetry("events", "zzz")
    assert result.exit_code == 1
    assert result.output == "Error: No event begins with 'zzz'. All of them: telemetry events\n"


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        (
            "a..b",
            "Event pattern ('a', '', 'b') has an empty segment. Every segment needs a name.",
        ),
        (
            "st*",
            (
                "Event pattern ('st*',) has a '*' inside segment 'st*'. "
                "A wildcard is a whole segment: '*' for any one, a last '**' for any further ones."
            ),
        ),
    ],
)
def test_a_bad_prefix_is_refused(telemetry, prefix, reason):
    result = telemetry("events", prefix)
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == f"Error: Invalid value for PREFIX: {reason}"


def test_an_unknown_format_is_refused(telemetry):
    result = telemetry("events", "--format", "xml")
    assert result.exit_code == 2
    assert "'xml' is not one of 'text', 'markdown', 'json'" in result.output


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["events", "--help"]], ids=" ".join)
def test_help(telemetry, arguments):
    result = telemetry(*arguments)
    assert result.exit_code == 0
    assert result.output.startswith("Usage: telemetry")


def test_version(telemetry):
    from importlib.metadata import version

    assert telemetry("--version").output == f"telemetry, version {version('trainbus')}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(telemetry, shell):
    result = telemetry("completion", shell)
    assert result.exit_code == 0
    assert "_TELEMETRY_COMPLETE" in result.output


def test_completion_knows_the_commands():
    done = subprocess.run(
        [*TELEMETRY[:-1], "telemetry"],
        env={
            "_TELEMETRY_COMPLETE": "bash_complete",
            "COMP_WORDS": "telemetry ev",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "plain,events\n"


def test_a_reader_that_goes_away_is_no_error():
    command = f"set -o pipefail; {shlex.join(TELEMETRY)} events | head -1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stdout == "smartclip.clip.start\n"
    assert done.stderr == ""


def test_output_that_is_no_terminal_has_no_colours():
    done = subprocess.run(
        [*TELEMETRY, "events", "training.step"], capture_output=True, text=True, check=True
    )
    assert "\x1b" not in done.stdout
    assert done.stdout.startswith("training.step\n")


@pytest.mark.parametrize("command", ["check", "completion", "demo", "events", "relay"])
def test_a_help_text_shows_no_markup(command):
    shown = CliRunner().invoke(commands, [command, "--help"])
    assert shown.exit_code == 0
    assert "\\b" not in shown.output
    assert "\b" not in shown.output

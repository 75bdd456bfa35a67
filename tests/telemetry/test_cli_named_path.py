"""Paths on command lines."""

import pytest
from click.testing import CliRunner

from telemetry.cli import commands


@pytest.mark.parametrize(
    "command",
    [
        "tail",
        "summary",
        "view",
        "plot",
        "replay --to console",
        "replay --clipper agc",
        "alerts",
    ],
)
def test_no_command_takes_an_empty_path_for_this_directory(command):
    done = CliRunner().invoke(commands, [*command.split(), ""])
    assert done.exit_code == 2
    assert "The path is empty. Is the variable set that it comes from?" in done.stderr


def test_a_query_of_an_empty_path_is_refused_as_well():
    done = CliRunner().invoke(commands, ["query", "select 1", ""])
    assert (done.exit_code, done.stderr) == (
        1,
        "Error: The path of a log is empty. Name a .jsonl file, or the directory of a run.\n",
    )

"""`telemetry replay --to` of logs that other programs wrote."""

import json

import pytest
from click.testing import CliRunner

from telemetry.cli import commands


@pytest.fixture
def replayed(tmp_path):
    """What the handler `jsonl` makes of a line."""

    def replayed(line, *arguments):
        log, out = tmp_path / "run.jsonl", tmp_path / "out.jsonl"
        log.write_text(f"{line}\n")
        to = ["--to", "jsonl", "--option", f"path={out}"]
        done = CliRunner().invoke(commands, ["replay", str(log), *to, *arguments])
        assert done.exit_code == 0, done.output
        return json.loads(out.read_text())

    return replayed


@pytest.mark.parametrize(
    ("bare", "written"),
    [
        ("NaN", "NaN"),
        ("nan", "NaN"),
        ("Infinity", "Infinity"),
        ("-inf", "-Infinity"),
        ("1e999", "Infinity"),
    ],
)
def test_a_bare_number_that_json_does_not_have_gets_the_form_of_ours(replayed, bare, written):
    record = replayed(f'{{"step": 1, "loss": {bare}, "extra": [{bare}]}}')
    assert record["measurements"] == {"loss": written}
    assert record["metadata"] == {"step": 1, "extra": [written]}


@pytest.mark.parametrize("name", ["training/step", r"training\/step"])
def test_a_name_with_slashes_is_chosen_by_its_dots(replayed, name):
    record = replayed(f'{{"event": "{name}", "loss": 1}}', "--event", "training.step")
    assert record["event"] == "training.step"

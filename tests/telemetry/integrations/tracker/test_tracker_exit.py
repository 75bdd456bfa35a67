"""How a run that is tracked with accelerate ends when nobody ends it."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

SCRIPT = """
import sys
import os
import accelerate, handlers
from telemetry.integrations.accelerate import TelemetryTracker

handlers.attach("jsonl", path=sys.argv[1])
accelerator = accelerate.Accelerator(cpu=True, log_with=TelemetryTracker("digits"))
accelerator.init_trackers("project")
accelerator.log({"loss": 2.5}, step=1)
"""


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        ("raise ValueError('no data')", "ValueError: no data"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        (
            "sys.exit(3)",
            (
                "RuntimeError: The run of TelemetryTracker('digits') was not ended: the process is "
                "ending. Call accelerator.end_training()."
            ),
        ),
        (
            "if os.fork() == 0: sys.exit()\nos.wait()\naccelerator.end_training()",
            None,
        ),
    ],
    ids=["error", "interrupt", "exit", "fork"],
)
def test_the_handlers_hear_how_it_ended(tmp_path, ending, error):
    path = tmp_path / "metrics.jsonl"
    script = tmp_path / "training.py"
    script.write_text(SCRIPT + ending)
    subprocess.run(
        [sys.executable, script, path], check=False, capture_output=True, cwd=tmp_path, timeout=300
    )
    records = [json.loads(line) for line in path.read_text().splitlines()]
    last = "workflow.run.stop" if error is None else "workflow.run.exception"
    assert [r["event"] for r in records] == ["workflow.run.start", "training.step", last]
    assert records[-1]["metadata"].get("error") == error

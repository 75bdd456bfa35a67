"""What is in trackio's database of a project, compared with what was emitted."""

import json
import math
import subprocess
import sys
import time
from datetime import datetime

import pytest

from handlers.axes import Place
from handlers.rows import Row
from telemetry.metrics import last_value

STEP = ("training", "step")


def test_names_values_and_steps_are_those_that_were_emitted(attach, bus, rows, select):
    with attach(group="g", config={"lr": 0.1}, flush_interval=3600.0) as attachment:
        bus.execute(STEP, {"loss": 2.5, "lr": 2e-4}, {"step": 7})
        group = {"key": ("layer", "conv.1"), "algo": "agc", "scope": "per_layer", "step": 7}
        bus.execute(("smartclip", "clip", "group"), {"grad_norm": 3.0, "clipped": True}, group)
        bus.execute(("custom_loss", "stop"), {"duration": 2_500_000}, {"step": 7})
        bus.execute(STEP, {"loss": 1.5}, {"step": 3})
    assert rows() == [
        (
            7,
            {
                "training/loss": 2.5,
                "training/lr": 2e-4,
                "smartclip/grad_norm[layer/conv.1]": 3.0,
                "smartclip/clipped[layer/conv.1]": 1.0,
                "custom_loss/duration_ms": 2.5,
            },
        ),
        (3, {"training/loss": 1.5}),
    ]
    run = attachment.handler.run
    assert select("select distinct run_id, run_name from metrics") == [(run.id, "a")]
    ((config,),) = select("select config from configs")
    found = json.loads(config)
    assert (found["lr"], found["_Group"]) == (0.1, "g")


def test_what_is_counted_otherwise_is_said_beside_it(attach, bus, rows):
    with attach():
        bus.execute(("training", "epoch"), {"epoch_loss": 4.5}, {"epoch": 2})
    assert rows() == [(2, {"training/epoch_loss": 4.5, "training/epoch": 2.0})]


def test_a_second_value_of_a_step_is_another_row(attach, bus, rows):
    with attach():
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
        bus.execute(STEP, {"loss": 2.0}, {"step": 1})
    assert rows() == [(1, {"training/loss": 1.0}), (1, {"training/loss": 2.0})]


def test_what_has_no_step_gets_trackios_next(attach, bus, rows):
    with attach():
        bus.execute(STEP, {"loss": 1.0}, {"step": 4})
        bus.execute(STEP, {"loss": 3.0}, {"step": 2**63})
        bus.execute(("performance", "sample"), {"queue_depth": 3})
    assert [
        values for _, values in sorted(rows(), key=lambda row: row[1].get("training/loss", 9))
    ] == [
        {"training/loss": 1.0},
        {"training/loss": 3.0},
        {"performance/queue_depth": 3.0},
    ]
    assert all(0 <= step <= 6 for step, _ in rows())


def test_what_is_not_finite_is_kept_as_trackio_writes_it(attach, bus, rows):
    with attach():
        bus.execute(STEP, {"a": math.nan, "b": math.inf, "c": -math.inf}, {"step": 1})
    assert rows() == [
        (1, {"training/a": "NaN", "training/b": "Infinity", "training/c": "-Infinity"})
    ]


def test_the_time_of_a_row_is_that_of_its_first_event(attach, bus, select):
    before = time.time()
    with attach(flush_interval=3600.0):
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
        after = time.time()
        time.sleep(0.2)
        bus.execute(("rl", "step"), {"entropy": 1.0}, {"step": 1})
    ((text,),) = select("select timestamp from metrics")
    assert int(before * 1e6) <= round(datetime.fromisoformat(text).timestamp() * 1e6) <= after * 1e6


def test_a_row_is_written_without_another_one_pushing_it(attach, bus, rows, wait_until):
    with attach():
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
        assert wait_until(rows) == [(1, {"training/loss": 1.0})]


def test_reserved_names_are_changed_as_trackio_does(attach, bus, rows):
    with attach(metrics=[last_value("training.step.loss", report_as="time")]):
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    assert rows() == [(1, {"__time": 1.0})]


def test_alerts_become_alerts_of_the_run(attach, bus, select):
    with attach():
        for severity in ("critical", "warning", "info"):
            metadata = {"rule": "kl", "severity": severity, "message": f"{severity}: 0.2 > 0.1"}
            bus.execute(("alert", "raised"), {"value": 0.2}, {**metadata, "step": 4})
    assert select("select title, text, level, step, run_name from alerts order by id") == [
        ("kl", "critical: 0.2 > 0.1", "error", 4, "a"),
        ("kl", "warning: 0.2 > 0.1", "warn", 4, "a"),
        ("kl", "info: 0.2 > 0.1", "info", 4, "a"),
    ]


def test_a_run_goes_on_or_begins_anew(attach, bus, rows, select):
    ids = []
    for resume, step in (("never", 1), ("allow", 2), ("never", 3)):
        with attach(resume=resume, id=resume) as attachment:
            bus.execute(STEP, {"loss": 1.0}, {"step": step})
            ids.append(attachment.handler.run.id)
    assert ids[0] == ids[1] != ids[2]
    assert select("select run_id, step from metrics order by id") == [
        (ids[0], 1),
        (ids[0], 2),
        (ids[2], 3),
    ]


def test_a_run_without_a_name_gets_one(attach, bus, select):
    with attach(name=None) as attachment:
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    name = attachment.handler.run.name
    assert name
    assert select("select run_name from metrics") == [(name,)]


def test_what_is_written_again_is_not_there_twice(attach, rows):
    with attach() as attachment:
        run = attachment.handler.run
    again = [(run.new_id(), Row(Place("step", step), 0, {"loss": 1.0})) for step in (1, 2)]
    run.write(again)
    run.write(again)
    assert rows() == [(1, {"loss": 1.0}), (2, {"loss": 1.0})]


def test_what_comes_late_is_written(attach, bus, rows):
    with attach() as attachment:
        late = attachment.handler
    late(STEP, {"loss": 1.0}, {"step": 1}, None)
    assert rows() == [(1, {"training/loss": 1.0})]


def test_a_forked_child_writes_nothing(attach, bus, drops, rows, in_child):
    with attach() as attachment:
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})

        def child():
            bus.execute(STEP, {"loss": -1.0}, {"step": 2})
            attachment.flush()  # after it comes the announcement, which is none itself
            attachment.flush()
            attachment.detach()
            assert drops == [(1, {"handler_id": "trackio", "policy": "forked"})]

        in_child(child)
        bus.execute(STEP, {"loss": 3.0}, {"step": 3})
    assert rows() == [(1, {"training/loss": 1.0}), (3, {"training/loss": 3.0})]


ENDING = """
import handlers, sys, telemetry
handlers.attach("trackio", project=sys.argv[1], name="a", dir=sys.argv[2])
for step in range(1, 301):
    telemetry.execute(("training", "step"), {"loss": step / 4}, {"step": step})
if len(sys.argv) > 3:
    import os, pathlib, sqlite3, time
    (file,) = pathlib.Path(sys.argv[2]).glob("*.db")
    database = sqlite3.connect(file)
    while database.execute("select count(*) from metrics").fetchone() != (300,):
        time.sleep(0.05)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("killed", [False, True])
def test_a_program_has_its_rows_where_it_said(run_script, rows, project, tmp_path, killed):
    folder = tmp_path / "runs"
    done = run_script(ENDING, project, folder, *["killed"] * killed, expect=-9 if killed else 0)
    assert rows(folder) == [(step, {"training/loss": step / 4}) for step in range(1, 301)]
    assert (done.stdout, done.stderr) == ("", "")


def test_trackios_own_command_reads_it(attach, bus, project):
    with attach():
        for step in (1, 2):
            bus.execute(STEP, {"loss": step / 4}, {"step": step})
    command = ["get", "metric", "--project", project, "--run", "a", "--metric", "training/loss"]
    done = subprocess.run(
        [sys.executable, "-m", "trackio.cli", *command, "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    found = json.loads(done.stdout)
    assert [(point["step"], point["value"]) for point in found["values"]] == [(1, 0.25), (2, 0.5)]

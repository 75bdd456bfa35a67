"""What is in the file of a run, compared with what was emitted."""

import math
import time

from telemetry import alerts
from telemetry.metrics import counter, last_value

STEP = ("training", "step")


def test_names_values_and_types_are_those_that_were_emitted(attach, bus, runs, values):
    config = {"lr": 0.1, "layers": [1, 2]}
    with attach(name="first", tags=["a", "b"], config=config, flush_interval=3600.0):
        bus.execute(STEP, {"loss": 2.5, "lr": 2e-4}, {"step": 1})
        group = {"algo": "autoclip", "key": ("layer", "conv.1"), "scope": "per_layer", "step": 1}
        bus.execute(("smartclip", "clip", "group"), {"grad_norm": 3.0, "clipped": True}, group)
        whole = {**group, "key": ("global",)}
        bus.execute(("smartclip", "clip", "group"), {"grad_norm": 4.0, "clipped": False}, whole)
        bus.execute(("custom_loss", "stop"), {"duration": 2_500_000, "loss_total": 7}, {"step": 1})
    (run,) = runs()
    assert [values(row) for row in run.rows] == [
        {
            "training/loss": 2.5,
            "training/lr": 2e-4,
            "training/step": 1,
            "smartclip/grad_norm[layer/conv.1]": 3,
            "smartclip/clipped[layer/conv.1]": 1,
            "smartclip/grad_norm[global]": 4,
            "smartclip/clipped[global]": 0,
            "smartclip/step": 1,
            "custom_loss/duration_ms": 2.5,
            "custom_loss/loss_total": 7,
            "custom_loss/step": 1,
        }
    ]
    assert (run.project, run.name, run.tags) == ("demo", "first", ["a", "b"])
    assert run.config["lr"] == 0.1
    assert run.config["layers"] == [1, 2]
    assert run.exits == [0]


def test_each_family_has_an_axis_of_its_own(attach, bus, runs, values):
    with attach():
        bus.execute(STEP, {"loss": 2.5}, {"step": 7})
        bus.execute(("training", "eval"), {"loss": 3.5}, {"split": "val", "step": 5})
        bus.execute(("training", "epoch"), {"epoch_loss": 4.5}, {"epoch": 2})
        bus.execute(("rl", "step"), {"entropy": 1.5}, {"step": 9})
    (run,) = runs()
    assert run.axes == {
        "training/*": "training/step",
        "val/*": "val/step",
        "training/epoch_loss": "training/epoch",
        "rl/*": "rl/step",
    }
    assert run.hidden == {"training/step", "val/step", "training/epoch", "rl/step"}
    assert [values(row) for row in run.rows] == [
        {"training/loss": 2.5, "training/step": 7},
        {"val/loss": 3.5, "val/step": 5},
        {"training/epoch_loss": 4.5, "training/epoch": 2},
        {"rl/entropy": 1.5, "rl/step": 9},
    ]


def test_a_curve_over_steps_that_has_an_epoch_later_is_drawn_over_epochs(attach, bus, runs):
    with attach():
        bus.execute(STEP, {"loss": 2.5}, {"step": 7})
        bus.execute(STEP, {"loss": 1.5}, {"epoch": 2})
        bus.execute(STEP, {"loss": 0.5}, {"step": 8})
    (run,) = runs()
    assert run.axes == {"training/*": "training/step", "training/loss": "training/epoch"}


def test_a_step_that_goes_backwards_is_a_row_like_any_other(attach, bus, runs, values):
    steps = [5, 6, 3, 4, 1000, 0, 6]
    with attach():
        for position, step in enumerate(steps):
            bus.execute(STEP, {"loss": float(position)}, {"step": step})
    (run,) = runs()
    expected = [
        {"training/loss": position, "training/step": step} for position, step in enumerate(steps)
    ]
    assert [values(row) for row in run.rows] == expected
    assert [row["_step"] for row in run.rows] == list(range(7))


def test_a_second_value_of_a_step_is_another_row(attach, bus, runs, values):
    with attach(flush_interval=3600.0):
        bus.execute(STEP, {"loss": 1.0, "lr": 0.5}, {"step": 1})
        bus.execute(STEP, {"loss": 2.0}, {"step": 1})
        bus.execute(("rl", "step"), {"entropy": 3.0}, {"step": 1})
    (run,) = runs()
    assert [values(row) for row in run.rows] == [
        {"training/loss": 1, "training/lr": 0.5, "training/step": 1},
        {"training/loss": 2, "training/step": 1, "rl/entropy": 3, "rl/step": 1},
    ]


def test_what_has_no_step_gets_none(attach, bus, runs, values):
    with attach() as attachment:
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
        attachment.flush()
        bus.execute(STEP, {"loss": 2.0})
        bus.execute(("performance", "sample"), {"queue_depth": 3})
    (run,) = runs()
    without = [values(row) for row in run.rows if "training/step" not in row]
    assert without == [{"training/loss": 2}, {"performance/queue_depth": 3}]


def test_what_is_not_finite_is_kept(attach, bus, runs):
    with attach():
        bus.execute(STEP, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 10**400}, {"step": 1})
    (run,) = runs()
    (row,) = run.rows
    assert math.isnan(row["training/a"])
    assert [row[f"training/{name}"] for name in "bcd"] == [math.inf, -math.inf, math.inf]


def test_the_time_of_a_row_is_that_of_its_first_event(attach, bus, runs):
    before = time.time()
    with attach(flush_interval=3600.0):
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
        after = time.time()
        time.sleep(0.2)
        bus.execute(("rl", "step"), {"entropy": 1.0}, {"step": 1})
    (run,) = runs()
    (row,) = run.rows
    assert before <= row["_timestamp"] <= after


def test_a_row_is_written_without_another_one_pushing_it(attach, bus, written, wait_until):
    with attach():
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
        wait_until(lambda: any(run.rows for run in written()))
        assert written()[0].exits == []


def test_a_row_does_not_wait_for_the_next_of_its_axis(attach, bus, written, wait_until):
    steps = iter(range(10**6))

    def epoch_is_there():
        bus.execute(STEP, {"loss": 1.0}, {"step": next(steps)})
        return any("training/epoch" in row for run in written() for row in run.rows)

    with attach():
        bus.execute(("training", "epoch"), {"epoch_loss": 4.5}, {"epoch": 1})
        wait_until(epoch_is_there)


def test_definitions_say_what_is_reported(attach, bus, runs, values):
    metrics = [
        last_value("training.step.loss", report_as="best", tags=["run_id"]),
        counter("training.step.count", report_as="steps.seen"),
    ]
    with attach(metrics=metrics):
        for step in (1, 2):
            bus.execute(STEP, {"loss": float(step), "lr": 1.0}, {"step": step, "run_id": "a"})
    (run,) = runs()
    assert [values(row) for row in run.rows] == [
        {"best[run_id=a]": 1, "step": 1, "steps/seen": 1, "steps/step": 1},
        {"best[run_id=a]": 2, "step": 2, "steps/seen": 2, "steps/step": 2},
    ]
    assert run.axes == {"best[run_id=a]": "step", "steps/*": "steps/step"}


def test_a_run_goes_on_under_its_id(attach, bus, runs, values):
    for part in ([1, 2], [2, 3]):
        with attach(run_id="again", resume="allow"):
            for step in part:
                bus.execute(STEP, {"loss": float(step)}, {"step": step})
    found = runs()
    assert [run.id for run in found] == ["again", "again"]
    steps = [[row["training/step"] for row in run.rows] for run in found]
    assert sorted(steps) == [[1, 2], [2, 3]]


def test_a_hostile_name_arrives_as_a_name(attach, bus, runs, values):
    name = 'a"b\n=|:\ud800[x.y'
    with attach(background=False):
        bus.execute(STEP, {name: 1.0}, {"step": 1})
    (run,) = runs()
    arrived = 'training/a"b\n=|:\\ud800[x.y'
    assert [values(row) for row in run.rows] == [{arrived: 1, "training/step": 1}]


def test_alerts_become_alerts_of_the_run(attach, bus, runs):
    def alert(severity):
        metadata = {"rule": "kl", "severity": severity, "message": f"{severity}: 0.2 > 0.1"}
        bus.execute(("alert", "raised"), {"value": 0.2, "limit": 0.1}, {**metadata, "step": 4})

    with attach():
        for severity in ("critical", "warning", "info"):
            alert(severity)
        bus.execute(("alert", "raised"), {"value": 1.0}, {"rule": "r" * 100})
    (run,) = runs()
    pause = 1000  # milliseconds in which W&B hides an alert of the same title
    assert run.alerts == [
        ("kl", "critical: 0.2 > 0.1", "ERROR", pause),
        ("kl", "warning: 0.2 > 0.1", "WARN", pause),
        ("kl", "info: 0.2 > 0.1", "INFO", pause),
        ("r" * 63, "r" * 100, "INFO", pause),
    ]
    assert [row["alert/kl/value"] for row in run.rows if "alert/kl/value" in row] == [0.2] * 3


def test_an_alert_of_a_rule_becomes_one_of_the_run(attach, bus, runs):
    rule = alerts.Rule("kl", "rl.kl_divergence", above=0.1, severity="warning")
    with attach(), alerts.attach([rule], registry=bus):
        for step, divergence in enumerate((0.05, 0.2, 0.05)):
            bus.execute(("rl", "step"), {"kl_divergence": divergence}, {"step": step})
    (run,) = runs()
    assert run.alerts == [("kl", "rl.kl_divergence is 0.2: above 0.1.", "WARN", 1000)]


def test_alerts_can_be_left_out(attach, bus, runs):
    with attach(alerts=False):
        bus.execute(("alert", "raised"), {"value": 0.2}, {"rule": "kl", "severity": "critical"})
    (run,) = runs()
    assert run.alerts == []
    assert len(run.rows) == 1

"""`telemetry replay --to wandb`: a recorded run gives the rows that the live one gave."""

import json

from click.testing import CliRunner

import handlers
from handlers.clock import at_time
from telemetry.cli import commands

START = 1795257000_000_000_000
MICROSECOND = 1000


def train(bus):
    """Some steps, a microsecond apart, because that is what a file tells apart."""
    moments = iter(range(START, START + 1_000_000 * MICROSECOND, MICROSECOND))

    def emit(event, measurements, metadata):
        with at_time(next(moments)):
            bus.execute(event, measurements, metadata)

    for step in range(1, 41):
        place = {"step": step, "epoch": 1 + step // 20, "run_id": "r"}
        group = {**place, "algo": "agc", "key": ("layer", "conv.1"), "scope": "per_layer"}
        emit(("smartclip", "clip", "start"), {"system_time": 1}, place)
        emit(("smartclip", "clip", "group"), {"grad_norm": 1.0 / step, "clipped": True}, group)
        emit(("smartclip", "clip", "stop"), {"duration": 2_500_000, "grad_norm": 0.5}, place)
        loss = float("nan") if step == 7 else float("inf") if step == 8 else 2.5 / step
        emit(("training", "step"), {"loss": loss, "lr": 2e-4, "seen": 2**70}, place)
        if step % 20 == 0:
            emit(("training", "eval"), {"loss": 0.1 * step}, {"split": "val", "step": step})
            emit(("training", "epoch"), {"epoch_loss": 0.2}, {"epoch": step // 20})
    raised = {"rule": "kl", "severity": "critical", "metric": "rl.step.kl", "message": "too far"}
    emit(("alert", "raised"), {"value": 0.2, "limit": 0.1}, {**raised, "step": 40})
    emit(("training", "step"), {"loss": 9.0}, {"step": 3})


def test_a_replayed_run_has_the_rows_of_the_live_one(bus, attach, tmp_path, runs):
    log = tmp_path / "run.jsonl"
    patient = {"flush_interval": 3600.0}
    with attach(**patient), handlers.attach("jsonl", registry=bus, path=log, background=True):
        train(bus)
    (live,) = runs()
    options = {"project": "demo", "mode": "offline", "dir": str(tmp_path / "again"), **patient}
    options["settings"] = {"x_disable_stats": True, "x_disable_machine_info": True}
    (tmp_path / "again").mkdir()
    given = [f"--option={key}={_text(value)}" for key, value in options.items()]
    done = CliRunner().invoke(commands, ["replay", str(log), "--to", "wandb", *given])
    assert done.exit_code == 0, done.output
    (again,) = runs(tmp_path / "again")
    assert len(live.rows) > 40
    assert [_told(row) for row in again.rows] == [_told(row) for row in live.rows]
    assert again.rows[0]["_timestamp"] == (START + MICROSECOND) / 1e9  # the first is a start
    assert (again.axes, again.hidden, again.alerts) == (live.axes, live.hidden, live.alerts)
    assert again.exits == [0]


def _text(value):
    return json.dumps(value) if isinstance(value, dict) else value


def _told(row):
    """A row without what W&B measures by itself; as text, because no NaN equals another."""
    told = {key: value for key, value in row.items() if key != "_runtime"}
    return json.dumps(told, sort_keys=True)  # W&B writes them in any order

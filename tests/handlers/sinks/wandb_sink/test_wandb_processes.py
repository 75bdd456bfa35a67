"""Runs of programs that are killed, that fork, or that simply end."""

import signal

import pytest

PROGRAM = """
import os, pathlib, sys, time
import handlers, telemetry

QUICK = {"x_disable_stats": True, "x_disable_machine_info": True, "disable_git": True}
OPTIONS = dict(project="demo", mode="offline", dir=os.environ["WANDB_DIR"], settings=QUICK)
"""

KILLED = (
    PROGRAM
    + """
handlers.attach("wandb", **OPTIONS)
emitted = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
for step in range(1, 1001):
    with telemetry.context(step=step):
        telemetry.execute(("training", "step"), {"loss": step / 4})
        group = {"key": ("global",), "algo": "autoclip", "scope": "global"}
        telemetry.execute(("smartclip", "clip", "group"), {"grad_norm": step * 2.0}, group)
        telemetry.execute(("custom_loss", "stop"), {"loss_total": step * 3.0})
        telemetry.execute(("rl", "step"), {"entropy": step / 8})
    os.write(emitted, b"%d %f\\n" % (step, time.monotonic()))
    time.sleep(float(sys.argv[2]))
time.sleep(float(sys.argv[3]))
os.write(emitted, b"killed %f\\n" % time.monotonic())
# With it W&B's own process, as where a container ends: it would write what it has got so far.
for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    if stat.read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
        os.kill(int(stat.parent.name), 9)
os.kill(os.getpid(), 9)
"""
)

ENDING = (
    PROGRAM
    + """
handlers.attach("wandb", **OPTIONS)
for step in range(1, 11):
    telemetry.execute(("training", "step"), {"loss": step / 4}, {"step": step})
"""
)

HANGING = (
    PROGRAM
    + """
handlers.attach("wandb", **OPTIONS | dict(mode="online", api_key="k" * 40, finish_timeout=1.0))
telemetry.execute(("training", "step"), {"loss": 0.5}, {"step": 1})
"""
)

FORKING = (
    PROGRAM
    + """
import torch

drops = []
wandb = handlers.attach("wandb", **OPTIONS)

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        telemetry.execute(("dataset", "batch"), {"batch_size": 1}, {"batch_idx": index})
        return index

for step, batch in enumerate(torch.utils.data.DataLoader(Data(), num_workers=1), 1):
    telemetry.execute(("training", "step"), {"loss": float(batch)}, {"step": step})
child = os.fork()
if child == 0:
    overflow = ("telemetry", "handler", "overflow")
    telemetry.attach("drops", overflow, lambda *event: drops.append(event))
    telemetry.execute(("training", "step"), {"loss": -1.0}, {"step": 100})
    wandb.detach()
    print([(measurements, metadata["policy"]) for _, measurements, metadata, _ in drops])
    sys.exit()
os.waitpid(child, 0)
telemetry.execute(("training", "step"), {"loss": 5.0}, {"step": 5})
"""
)


LAST = 3.0
"""Seconds: one is the handler's, the others are for a busy machine."""


@pytest.mark.parametrize(("between", "at_the_end"), [(0.006, 0.0), (0.0, LAST + 0.5)])
def test_a_killed_run_has_all_but_its_last_second(
    run_script, tmp_path, wandb_home, written, values, between, at_the_end
):
    log = tmp_path / "emitted"
    run_script(KILLED, log, between, at_the_end, expect=-signal.SIGKILL)
    *emitted, (_, killed) = [line.split() for line in log.read_text().splitlines()]
    assert len(emitted) == 1000
    safe = {int(step) for step, moment in emitted if float(moment) < float(killed) - LAST}
    assert len(safe) > 100
    (run,) = written(wandb_home)
    found = {}
    for row in map(values, run.rows):  # a busy machine may have made two of one step
        (step,) = {value for key, value in row.items() if key.endswith("/step")}
        found[step] = {**found.get(step, {}), **row}
    for step in safe:
        assert found[step] == {
            "training/loss": step / 4,
            "training/step": step,
            "smartclip/grad_norm[global]": step * 2,
            "smartclip/step": step,
            "custom_loss/loss_total": step * 3,
            "custom_loss/step": step,
            "rl/entropy": step / 8,
            "rl/step": step,
        }


def test_a_program_that_just_ends_has_all_its_rows(run_script, wandb_home, runs, values):
    done = run_script(ENDING)
    (run,) = runs(wandb_home)
    assert [values(row) for row in run.rows] == [
        {"training/loss": step / 4, "training/step": step} for step in range(1, 11)
    ]
    assert run.exits == [0]
    assert (done.stdout, done.stderr) == ("", "")


def test_a_server_that_hangs_ends_no_later_than_is_allowed(
    run_script, wandb_home, online, written, values
):
    online.hangs_on = "/file_stream"
    done = run_script(HANGING)
    (run,) = written(wandb_home)
    assert [values(row) for row in run.rows] == [{"training/loss": 0.5, "training/step": 1}]
    assert "Timed out finishing run." in done.stderr


def test_what_forked_children_emit_is_announced_and_not_written(
    run_script, wandb_home, runs, values
):
    done = run_script(FORKING)
    (run,) = runs(wandb_home)
    assert [values(row) for row in run.rows] == [
        {"training/loss": loss, "training/step": step}
        for step, loss in enumerate([0, 1, 2, 3, 5], 1)
    ]
    assert run.exits == [0]
    assert "[({'dropped': 1}, 'forked')]" in done.stdout
    assert "(forked)" in done.stderr

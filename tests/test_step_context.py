"""All that is said of one optimizer step carries the same run, attempt, epoch and step."""

import json
import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest

import clipping
import telemetry
from regularizers import CustomLoss, RegularizerSpec, custom_loss, penalties
from telemetry.testing import capture

KEYS = ("run_id", "attempt", "epoch", "step")
CLIP = ["smartclip.clip.start", "smartclip.clip.group", "smartclip.clip.stop"]
LOSS = ["custom_loss.start", "custom_loss.stop"]
TERM = ["regularizer.compute.start", "regularizer.compute.stop"]
STEP = ["training.step", "training.timing"]


def by_place(events):
    """How often which event came, at each place; what belongs to no step is left out."""
    places = {}
    for event in events:
        name = ".".join(event.event)
        if not name.startswith(("workflow.", "stage.")):
            place = tuple(event.metadata.get(key) for key in KEYS)
            places.setdefault(place, Counter())[name] += 1
    return places


def penalty(data, logprobs):
    telemetry.execute(("mine",), {})
    return (logprobs**2).sum()


async def awaited(data, logprobs):
    import asyncio

    await asyncio.sleep(0)
    telemetry.execute(("mine",), {})
    return (logprobs**2).sum()


def base(data, logprobs):
    return logprobs.sum()


SPECS = [
    RegularizerSpec(penalty, 0.1, "own"),
    RegularizerSpec(awaited, 0.1, "awaited"),
    RegularizerSpec(penalties.l1, 0.1, "l1"),
]


@pytest.fixture
def run():
    """The events of a run, by their place."""
    with capture() as events, telemetry.workflow_run("test", run_id="r1", attempt=2):
        yield events


def expected(steps, names):
    return {("r1", 2, epoch, step): Counter(names) for epoch, step in steps}


@pytest.mark.parametrize("parallel", [False, True])
def test_a_torch_loop_with_a_clip_context(run, parallel):
    import torch

    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = CustomLoss(base, SPECS, parallel=parallel, track_grad_norms=True)
    loader = torch.utils.data.DataLoader(torch.randn(8, 3), batch_size=4)
    with clipping.clip_context(model, optimizer, clipping.AutoClip()):
        for epoch in (1, 2):
            for batch in telemetry.track(loader, epoch=epoch, total_epochs=2):
                optimizer.zero_grad()
                output = loss(batch, model(batch))
                output.loss.backward()
                optimizer.step()
                telemetry.emit_step(loss=output.loss.detach())
    names = [*CLIP, *LOSS, *TERM * 3, "mine", "mine", *STEP]
    assert by_place(run) == expected([(1, 1), (1, 2), (2, 3), (2, 4)], names)
    assert all(
        event.metadata["total_steps"] == 4 for event in run if event.event == ("training", "step")
    )


def test_a_torch_loop_that_accumulates_and_clips_by_hand(run):
    import torch

    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    clipper = clipping.ZScoreClip()
    batches = telemetry.track(torch.randn(5, 4, 3), epoch=1, accumulate=2)
    for number, batch in enumerate(batches, start=1):
        custom_loss(batch, model(batch), base).loss.backward()
        if number % 2 == 0 or number == len(batches):
            clipping.step(model, optimizer, clipper)
            telemetry.emit_step({"lr": 0.1})
            optimizer.zero_grad()
    double = [*CLIP, *LOSS * 2, *STEP]
    assert by_place(run) == {
        **expected([(1, 1), (1, 2)], double),
        **expected([(1, 3)], [*CLIP, *LOSS, *STEP]),
    }


def test_gradients_that_are_not_finite_are_said_at_their_step(run):
    import torch

    model = torch.nn.Linear(3, 1)
    clipper = clipping.AutoClip()
    for number in telemetry.track([1.0, float("nan"), 1.0], epoch=1):
        model(torch.full((1, 3), number)).sum().backward()
        clipping.apply(model, clipper)
        model.zero_grad()
    nonfinite = ("smartclip", "clip", "nonfinite")
    assert [event.metadata["step"] for event in run if event.event == nonfinite] == [2]
    assert len(by_place(run)) == 3


@pytest.mark.parametrize("parallel", [False, True])
def test_a_numpy_loop(run, parallel):
    weight, clipper = np.zeros(3), clipping.AutoClip()
    for batch in telemetry.track(np.ones((2, 4, 3)), epoch=1):
        custom_loss(batch, batch @ weight, base, regularizers=SPECS, parallel=parallel)
        (gradient,) = clipping.numpy.apply_grads([batch.mean(axis=0)], [weight], clipper)
        weight = weight - 0.1 * gradient
        telemetry.emit_step(loss=1.0)
    names = [*CLIP, *LOSS, *TERM * 3, "mine", "mine", *STEP]
    assert by_place(run) == expected([(1, 1), (1, 2)], names)


def test_a_loop_with_stages_and_an_evaluation_inside(run):
    for batch in telemetry.track("ab", epoch=1):
        with telemetry.stage_run("forward"), telemetry.time_operation("forward"):
            telemetry.emit_step(loss=1.0)
        telemetry.emit_eval(split="val", loss=0.5)
        if batch == "b":
            telemetry.emit_checkpoint(path="b.pt")
    timed = ["performance.operation.start", "performance.operation.stop"]
    names = [*STEP, "training.eval", *timed]
    assert by_place(run) == {
        **expected([(1, 1)], names),
        **expected([(1, 2)], [*names, "training.checkpoint"]),
    }


def test_the_step_reaches_a_thread_that_is_handed_the_context(run):
    import contextvars

    for _ in telemetry.track("ab", epoch=1):
        here = contextvars.copy_context()
        thread = threading.Thread(target=here.run, args=(telemetry.emit_step, {"loss": 1.0}))
        thread.start()
        thread.join()
    assert by_place(run) == expected([(1, 1), (1, 2)], STEP)


# A resumed run


def test_a_resumed_run_is_a_new_attempt_that_counts_on(tmp_path):
    saved = {}
    with capture(("training", "step")) as events:
        for attempt in (1, 2):
            run_id = saved.get("run_id")
            with telemetry.workflow_run("w", run_id=run_id, attempt=attempt) as run:
                for epoch in range(saved.get("epoch", 0) + 1, attempt + 1):
                    for _ in telemetry.track("ab", epoch=epoch, total_epochs=2):
                        telemetry.emit_step(loss=1.0)
                    saved = {"run_id": run.run_id, "epoch": epoch}
    places = [tuple(event.metadata[key] for key in KEYS) for event in events]
    run_id = saved["run_id"]
    assert places == [(run_id, 1, 1, 1), (run_id, 1, 1, 2), (run_id, 2, 2, 3), (run_id, 2, 2, 4)]


RESTARTED = """
import os, sys
from pathlib import Path
import handlers, telemetry

saved = Path("epochs")
handlers.attach("jsonl", path="metrics.jsonl")
with telemetry.workflow_run("restarted"):
    for epoch in range(len(list(saved.glob("*"))) + 1, 3):
        for batch in telemetry.track("ab", epoch=epoch, total_epochs=2):
            telemetry.emit_step(loss=1.0)
        saved.mkdir(exist_ok=True)
        (saved / str(epoch)).touch()
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            sys.exit(1)
"""


def test_a_job_that_torchrun_restarts_is_the_same_run_in_another_attempt(tmp_path):
    (tmp_path / "train.py").write_text(RESTARTED)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"),
            *("--max-restarts=1", "--monitor-interval=0.1", "train.py"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = [line["metadata"] for line in lines if line["event"] == "training.step"]
    run_ids = {metadata["run_id"] for metadata in found}
    assert len(run_ids) == 1
    assert [tuple(metadata[key] for key in KEYS[1:]) for metadata in found] == [
        (1, 1, 1),
        (1, 1, 2),
        (2, 2, 3),
        (2, 2, 4),
    ]
    ends = [line["event"] for line in lines if line["event"].startswith("workflow")]
    assert [name.removeprefix("workflow.run.") for name in ends] == [
        "start",
        "exception",
        "start",
        "stop",
    ]

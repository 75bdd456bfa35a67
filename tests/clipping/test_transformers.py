import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import clipping
import telemetry
from clipping import deferred
from telemetry.testing import capture

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from clipping.integrations.transformers import ClipCallback  # noqa: E402 -- needs transformers

STOP = ("smartclip", "clip", "stop")
FAILURE = ("telemetry", "handler", "failure")
BATCHES, LR, Q = 30, 0.005, 60.0
INPUTS = np.random.default_rng(1).normal(size=(BATCHES, 8, 4))
TARGETS = np.random.default_rng(0).standard_t(2, size=(BATCHES, 8, 3))


@pytest.fixture(autouse=True)
def _one_thread():
    """More only get in each other's way in models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def clipper(**options):
    """A percentile of the last ten norms, from the fourth step on."""
    defaults = {"percentile": Q, "window_size": 10, "warmup_steps": 3, "min_history": 2}
    return clipping.AutoClip(mode="percentile", history="window", **(defaults | options))


def reference(batches, accumulate=1):
    """The same in NumPy: weights, norms, and how many steps were clipped."""
    weights, norms, clipped = np.zeros((4, 3)), [], 0
    for step, start in enumerate(range(0, len(batches), accumulate)):
        group = batches[start : start + accumulate]
        gradient = sum(
            2 * INPUTS[b].T @ (INPUTS[b] @ weights - TARGETS[b]) / len(group) for b in group
        )
        norms.append(np.sqrt((gradient**2).sum()))
        threshold = np.percentile(norms[-10:], Q)
        if step >= 3 and norms[-1] > threshold:
            gradient = gradient * threshold / (norms[-1] + 1e-8)
            clipped += 1
        weights = weights - LR * gradient
    return weights, norms, clipped


class Regression(torch.nn.Module):
    """Summed squared error of one batch; it remembers which batches it has seen."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3, bias=False, dtype=dtype)
        torch.nn.init.zeros_(self.linear.weight)
        self.seen = []

    def forward(self, batch):
        self.seen.append(int(batch))
        dtype = self.linear.weight.dtype
        inputs, targets = (torch.tensor(x[int(batch)], dtype=dtype) for x in (INPUTS, TARGETS))
        return {"loss": ((self.linear(inputs) - targets) ** 2).sum()}

    @property
    def weights(self):
        return self.linear.weight.detach().double().numpy().T.copy()


def trainer(model, tmp_path, *callbacks, optimizer=torch.optim.SGD, **options):
    quiet = {
        "max_grad_norm": 0.0,
        "max_steps": BATCHES,
        "per_device_train_batch_size": 1,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
    }
    arguments = transformers.TrainingArguments(str(tmp_path), **(quiet | options))
    steps = optimizer(model.parameters(), lr=LR)
    return transformers.Trainer(
        model,
        arguments,
        train_dataset=[{"batch": batch} for batch in range(BATCHES)],
        callbacks=list(callbacks),
        optimizers=(steps, torch.optim.lr_scheduler.ConstantLR(steps, 1.0)),
    )


def test_thirty_steps_equal_a_hand_written_loop(tmp_path):
    model = Regression()
    with capture(STOP) as events:
        trainer(model, tmp_path, ClipCallback(clipper())).train()
    expected, norms, clipped = reference(model.seen)
    assert clipped > 5
    np.testing.assert_allclose(model.weights, expected, rtol=1e-9)
    np.testing.assert_allclose([e.measurements["grad_norm"] for e in events], norms, rtol=1e-9)
    assert [e.metadata["step"] for e in events] == list(range(1, BATCHES + 1))
    assert {e.metadata["epoch"] for e in events} == {1}


def test_accumulated_gradients_are_clipped_once_when_they_step(tmp_path):
    model = Regression()
    options = {"gradient_accumulation_steps": 4, "max_steps": -1, "num_train_epochs": 2}
    with capture(STOP) as events:
        trainer(model, tmp_path, ClipCallback(clipper()), **options).train()
    epochs = model.seen[:BATCHES], model.seen[BATCHES:]
    assert len(epochs[1]) == BATCHES
    assert [e.metadata["epoch"] for e in events] == [1] * 8 + [2] * 8
    _, norms, _ = reference(epochs[0], accumulate=4)
    seen = [e.measurements["grad_norm"] for e in events[:8]]
    np.testing.assert_allclose(seen, norms, rtol=1e-9)


def test_bf16_clips_what_the_optimizer_gets(tmp_path):
    model = Regression(torch.float32)
    with capture(STOP) as events:
        trainer(model, tmp_path, ClipCallback(clipper()), bf16=True).train()
    expected, norms, _ = reference(model.seen)
    seen = [e.measurements["grad_norm"] for e in events]
    np.testing.assert_allclose(seen, norms, rtol=0.03)
    np.testing.assert_allclose(model.weights, expected, atol=0.02)


@pytest.fixture
def use_fp16(monkeypatch):
    """What accelerate sets up under fp16 on a GPU; on the CPU it leaves it out."""

    def use(training, scaler):
        monkeypatch.setattr(training.accelerator, "scaler", scaler)
        monkeypatch.setattr(training.accelerator, "native_amp", True)
        monkeypatch.setattr(training.accelerator.state, "_mixed_precision", "fp16")

    return use


@pytest.mark.parametrize("fused", [False, True])
def test_fp16_clips_unscaled_gradients(tmp_path, use_fp16, fused):
    model = Regression(torch.float32)
    training = trainer(
        model,
        tmp_path,
        ClipCallback(clipper()),
        optimizer=lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, fused=fused),
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    use_fp16(training, scaler)
    with capture(STOP) as events:
        training.train()
    assert scaler.state_dict()["_growth_tracker"] == BATCHES
    expected, norms, _ = reference(model.seen)
    seen = [e.measurements["grad_norm"] for e in events]
    np.testing.assert_allclose(seen, norms, rtol=0.03)
    np.testing.assert_allclose(model.weights, expected, atol=0.02)


def test_dry_runs_before_the_one_that_acts_measure_the_same_gradients(tmp_path):
    model = Regression()
    dry = [ClipCallback(clipper(dry_run=True, percentile=q)) for q in (10.0, 90.0)]
    with capture(STOP) as events:
        trainer(model, tmp_path, *dry, ClipCallback(clipper())).train()
    expected, norms, _ = reference(model.seen)
    np.testing.assert_allclose(model.weights, expected, rtol=1e-9)
    for first in range(3):
        seen = [e.measurements["grad_norm"] for e in events[first::3]]
        np.testing.assert_allclose(seen, norms, rtol=1e-9)


def test_training_again_is_not_taken_for_a_second_callback(tmp_path):
    mine = clipper()
    training = trainer(Regression(), tmp_path, ClipCallback(mine), max_steps=3)
    training.train()
    training.train()
    assert mine.state_dict()["steps"] == 6


class Underway:
    """A value of a device that arrives only for who waits."""

    def ready(self):
        return False

    def value(self):
        return "settled"


def test_what_is_underway_is_sent_when_training_ends(tmp_path):
    settled = []
    model = Regression()
    deferred.when_known(Underway(), lambda value: settled.append((value, len(model.seen))))
    trainer(model, tmp_path, ClipCallback(), max_steps=3).train()
    assert settled == [("settled", 3)]


def test_on_metrics_that_raises_is_announced_and_left_alone_until_the_next_training(tmp_path):
    heard = []

    def broken(record):
        heard.append(record)
        raise RuntimeError("no disk")

    callback = ClipCallback(clipper(), on_metrics=broken)
    training = trainer(Regression(), tmp_path, callback, max_steps=3)
    with capture(FAILURE) as failures:
        training.train()
        training.train()
    assert [record["key"] for record in heard] == [("global",), ("global",)]
    assert len(failures) == 2


def test_step_that_the_caller_says_wins(tmp_path):
    training = trainer(Regression(), tmp_path, ClipCallback(), max_steps=2)
    with capture(STOP) as events, telemetry.context(step=7, run_id="r"):
        training.train()
    assert [(e.metadata["step"], e.metadata["run_id"], e.metadata["epoch"]) for e in events] == [
        (7, "r", 1),
        (7, "r", 1),
    ]


SAVING = {"save_strategy": "steps", "save_steps": 10, "optimizer": torch.optim.Adam}


def test_resumed_training_is_bit_identical(tmp_path):
    """Stopped in the middle of an epoch, between two of several checkpoints."""
    whole, rest, straight, resumed = clipper(), clipper(), Regression(), Regression()
    trainer(straight, tmp_path, ClipCallback(whole), **SAVING).train()
    with capture(STOP) as events:
        trainer(resumed, tmp_path, ClipCallback(rest), **SAVING).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-20")
        )
    assert [e.metadata["step"] for e in events] == list(range(21, 31))
    assert resumed.seen == straight.seen[20:]
    np.testing.assert_array_equal(resumed.weights, straight.weights)
    assert rest.state_dict() == whole.state_dict()
    assert rest.state_dict()["steps"] == BATCHES


def test_the_last_of_several_saved_states_is_restored(tmp_path):
    """A checkpoint that is written without `on_save` leaves its state with the trainer."""
    trainer(Regression(), tmp_path, ClipCallback(clipper()), **SAVING).train()
    path = tmp_path / "checkpoint-20" / "trainer_state.json"
    stored = json.loads(path.read_text())
    stored["stateful_callbacks"]["ClipCallback"].insert(0, ClipCallback(clipper()).state())
    path.write_text(json.dumps(stored))
    mine = clipper()
    trainer(Regression(), tmp_path, ClipCallback(mine), **SAVING).train(
        resume_from_checkpoint=str(path.parent)
    )
    assert mine.state_dict()["steps"] == BATCHES


def test_several_callbacks_resume_each_with_its_own_state(tmp_path):
    def clippers():
        return [clipper(dry_run=True, window_size=n) for n in (5, 15)] + [clipper()]

    def run(these, **resume):
        callbacks = [ClipCallback(each) for each in these]
        trainer(Regression(), tmp_path, *callbacks, **SAVING).train(**resume)
        return [each.state_dict() for each in these]

    straight = run(clippers())
    stored = json.loads((tmp_path / "checkpoint-20" / "trainer_state.json").read_text())
    assert [
        entry["attributes"]["learned"]["steps"]
        for entry in stored["stateful_callbacks"]["ClipCallback"]
    ] == [20, 20, 20]
    again = run(clippers(), resume_from_checkpoint=str(tmp_path / "checkpoint-20"))
    assert again == straight


def test_checkpoint_from_before_the_callback_was_added_starts_a_new_history(tmp_path):
    trainer(Regression(), tmp_path, **SAVING).train()
    mine = clipper()
    trainer(Regression(), tmp_path, ClipCallback(mine), **SAVING).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-20")
    )
    assert mine.state_dict()["steps"] == 10
    again = clipper()
    trainer(Regression(), tmp_path, ClipCallback(again), **(SAVING | {"max_steps": 40})).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-30")
    )
    assert again.state_dict()["steps"] == 20


def test_checkpoint_of_another_clipper_is_refused(tmp_path):
    trainer(Regression(), tmp_path, ClipCallback(clipper()), **SAVING).train()
    path = tmp_path / "checkpoint-20" / "trainer_state.json"
    path.write_text(path.read_text().replace('"autoclip"', '"other"'))
    with pytest.raises(ValueError, match="'algo' is 'other'"):
        trainer(Regression(), tmp_path, ClipCallback(clipper()), **SAVING).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-20")
        )


RANKS = """
    import sys, warnings
    warnings.simplefilter("ignore")  # the vendor's
    sys.path.insert(0, sys.argv[1])
    import json
    import test_transformers as shared
    from telemetry.testing import capture

    model = shared.Regression()
    with capture(shared.STOP) as events:
        callback = shared.ClipCallback(shared.clipper())
        shared.trainer(model, sys.argv[2], callback, max_steps=15, ddp_backend="gloo").train()
    norms = [event.measurements["grad_norm"] for event in events]
    with open(f"{sys.argv[2]}/rank{shared.torch.distributed.get_rank()}.json", "w") as file:
        json.dump([model.weights.tolist(), norms, model.seen], file)
"""


def test_two_ranks_see_the_norms_of_both_their_batches(tmp_path):
    """DDP averages the gradients of the ranks, as accumulation does those of two batches."""
    script = tmp_path / "ranks.py"
    script.write_text(textwrap.dedent(RANKS))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        [sys.executable, *launch, str(Path(__file__).parent), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    batches = [batch for pair in zip(ranks[0][2], ranks[1][2], strict=True) for batch in pair]
    assert len(set(batches)) == BATCHES
    expected, norms, _ = reference(batches, accumulate=2)
    for weights, seen, _ in ranks:
        np.testing.assert_allclose(seen, norms, rtol=1e-9)
        np.testing.assert_allclose(weights, expected, rtol=1e-9)

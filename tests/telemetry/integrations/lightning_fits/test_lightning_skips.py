"""What other callbacks, and the module, do to the steps between two hooks."""

import pytest

import telemetry
from telemetry.integrations.lightning import TelemetryCallback
from telemetry.testing import capture

pl = pytest.importorskip("lightning.pytorch")

EPOCH = ("training", "epoch")
STEP = ("training", "step")
TIMING = ("training", "timing")


def leaving(kind):
    """A module that leaves its first epoch with the third batch, which makes no step."""

    class Leaving(kind):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if self.current_epoch == 0 and batch_idx == 2 else None

    return Leaving()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_batch_that_is_left_out_is_in_no_step_and_in_no_epoch(
    trainer, known, batches, lines, accumulate
):
    with capture() as events:
        fitted = trainer(max_epochs=2, accumulate_grad_batches=accumulate)
        fitted.fit(leaving(known), batches(12, batch_size=3))
    steps, left = (4, 2) if accumulate == 1 else (2, 1)
    told = [each for each in events if each.event == TIMING]
    assert [each.measurements["batch_size"] for each in told] == [3 * accumulate] * (left + steps)
    ended = [line for line in lines(events) if line.startswith("training.epoch")]
    assert ended == [f"training.epoch @ 1/{left}", f"training.epoch @ 2/{left + steps}"]


class Phases(pl.Callback):
    """Is in a `context` from one hook to another."""

    def on_train_epoch_start(self, trainer, pl_module):
        self._phase = telemetry.context(phase=trainer.current_epoch)
        self._phase.__enter__()

    def on_train_epoch_end(self, trainer, pl_module):
        self._phase.__exit__(None, None, None)


@pytest.mark.parametrize("first", ["ours", "other"])
def test_a_context_of_another_callback_holds_and_leaves_the_steps_alone(
    trainer, known, batches, first
):
    both = [TelemetryCallback("w", run_id="r", without=["git_commit"]), Phases()]
    if first == "other":
        both.reverse()
    with capture() as events:
        trainer(*both, max_epochs=2).fit(known(), batches(3))
        telemetry.execute(("after",), {})
    told = [each.metadata for each in events if each.event in (STEP, TIMING)]
    assert [(each["epoch"], each["step"], each["phase"]) for each in told] == [
        *[(1, step, 0) for step in (1, 1, 2, 2, 3, 3)],
        *[(2, step, 1) for step in (4, 4, 5, 5, 6, 6)],
    ]
    ends = [each.metadata for each in events if each.event == EPOCH]
    assert [(each["epoch"], each["step"]) for each in ends] == [(1, 3), (2, 6)]
    assert events[-1].metadata == {}

"""Ends of a Lightning fit that a callback is told late, early or never; and copies of it."""

import copy
import pickle

import pytest

import telemetry
from telemetry.testing import capture

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")

from telemetry.integrations.lightning import TelemetryCallback  # noqa: E402 -- needs lightning

STARTED = ["workflow.run.start w r/1", "stage.run.start fit"]


def loaders(function, batches):
    return [batches(1)] * (2 if function == "fit" else 1)


class Unlucky(pl.Callback):
    """Its on_exception fails as well, which keeps Lightning from asking the later callbacks."""

    def __init__(self):
        self.fails = True

    def on_train_batch_start(self, *_):
        if self.fails:
            raise RuntimeError("no step")

    def on_exception(self, *_):
        raise LookupError("no end")


@pytest.mark.parametrize("same_trainer", [True, False])
@pytest.mark.parametrize("function", ["fit", "validate", "test", "predict"])
def test_a_run_whose_end_nobody_told_ends_when_the_next_begins(
    trainer, validated, batches, lines, function, same_trainer
):
    mine, unlucky = TelemetryCallback("w", run_id="r"), Unlucky()
    fails = trainer(unlucky, mine)
    with capture() as events:
        with pytest.raises(LookupError):
            fails.fit(validated(), batches(1), batches(1))
        unlucky.fails = False
        again = fails if same_trainer else trainer(mine)
        getattr(again, function)(validated(), *loaders(function, batches))
        telemetry.execute(("after",), {})
    told = lines(events)
    assert told[:4] == [*STARTED, "stage.run.exception fit @ 1/1", "workflow.run.exception w r/1"]
    assert "without telling why" in events[3].metadata["error"]
    attempt = 2 if function == "fit" else 1  # an evaluation is of the attempt that has trained
    assert told[4:6] == [f"workflow.run.start w r/{attempt}", f"stage.run.start {function}"]
    assert told[-2:] == [f"workflow.run.stop w r/{attempt}", "after"]
    assert events[-1].metadata == {}


@pytest.mark.parametrize("function", ["fit", "validate"])
def test_a_callback_of_a_running_trainer_is_refused(
    trainer, known, validated, batches, lines, function
):
    mine = TelemetryCallback("w", run_id="r")

    class Nested(pl.Callback):
        def on_train_batch_start(self, *_):
            with pytest.raises(ValueError, match="Give each trainer its own"):
                getattr(trainer(mine), function)(validated(), *loaders(function, batches))

    with capture() as events:
        trainer(mine, Nested()).fit(known(), batches(1))
    assert lines(events) == [
        *STARTED,
        "training.step @ 1/1",
        "training.epoch @ 1/1",
        "stage.run.stop fit",
        "workflow.run.stop w r/1",
    ]


def test_every_fit_that_fails_before_its_setup_is_told(trainer, known, batches, lines):
    class Data(pl.LightningDataModule):
        missing = True

        def prepare_data(self):
            if self.missing:
                raise OSError("no data")

        def train_dataloader(self):
            return batches(1)

    data, fitted, module = Data(), trainer(), known()
    told = []
    for data.missing in (True, False, True):
        with capture() as events:
            try:
                fitted.fit(module, datamodule=data)
            except OSError:
                assert data.missing
        told.append([line for line in lines(events) if "run." in line])
    ends = ["exception", "stop", "exception"]
    assert told == [
        [
            f"workflow.run.start w r/{attempt}",
            "stage.run.start fit",
            f"stage.run.{end} fit",
            f"workflow.run.{end} w r/{attempt}",
        ]
        for attempt, end in enumerate(ends, 1)
    ]


def test_a_teardown_that_fails_is_no_further_run(trainer, known, batches, lines):
    class Bad(known):
        def teardown(self, stage):
            raise OSError("no disk")

    with capture() as events, pytest.raises(OSError, match="no disk"):
        trainer().fit(Bad(), batches(1))
    assert [line for line in lines(events) if line.startswith("workflow")] == [
        "workflow.run.start w r/1",
        "workflow.run.stop w r/1",
    ]


def test_metrics_are_not_computed_for_a_fit_that_has_failed(trainer, known, batches):
    """It could take other ranks, which wait elsewhere."""
    asked = []

    class Counted(pl.Trainer):
        @property
        def callback_metrics(self):
            asked.append(failing)
            return super().callback_metrics

    class Bad(known):
        def on_train_epoch_end(self):
            nonlocal failing
            failing = True
            raise RuntimeError("no epoch")

    failing = False
    fitted = trainer()
    fitted.__class__ = Counted
    with capture(("training", "epoch")) as events, pytest.raises(RuntimeError, match="no epoch"):
        fitted.fit(Bad(), batches(3))
    assert [float(event.measurements["epoch_loss"]) for event in events] == [2.0]
    assert asked
    assert not any(asked)


def pickled(callback):
    return pickle.loads(pickle.dumps(callback))  # noqa: S301 -- of this very test


@pytest.mark.parametrize("copied", [pickled, copy.deepcopy])
def test_a_callback_is_copied_before_and_after_a_fit(trainer, known, batches, copied):
    """As launchers that spawn processes do."""
    mine = copied(TelemetryCallback(run_id="r"))
    fitted, module = trainer(mine), known()
    fitted.fit(module, batches(2))
    again = copied(mine)
    assert again.state_dict() == {"run_id": "r", "attempt": 1}
    with capture(("training", "step")) as events:
        trainer(again).fit(known(), batches(2))
    assert [event.metadata["step"] for event in events] == [1, 2]
    with capture(("training", "step")) as events:
        other = copied(fitted)
        other.fit_loop.max_epochs = 2
        other.fit(copied(module), batches(2))
    assert [(event.metadata["attempt"], event.metadata["step"]) for event in events] == [
        (2, 3),
        (2, 4),
    ]

"""Which run a Lightning fit is, and which attempt at it."""

import pytest

from telemetry.testing import capture

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")

from telemetry.integrations.lightning import TelemetryCallback  # noqa: E402 -- needs lightning

STEP = ("training", "step")
RUN = ("workflow", "run", "start")


def runs(events):
    return [(e.metadata["run_id"], e.metadata["attempt"]) for e in events if e.event == RUN]


def steps(events):
    return [event.metadata["step"] for event in events if event.event == STEP]


@pytest.fixture
def saved(trainer, known, batches, tmp_path):
    """A checkpoint of the run "first", after two epochs of three steps."""
    fitted = trainer(TelemetryCallback(run_id="first"), max_epochs=2)
    fitted.fit(known(), batches(3))
    fitted.save_checkpoint(tmp_path / "saved.ckpt")
    return tmp_path / "saved.ckpt"


def test_a_fit_from_a_checkpoint_is_the_next_attempt(trainer, known, batches, saved, lines):
    mine = TelemetryCallback("w")
    with capture() as events:
        trainer(mine, max_epochs=3).fit(known(), batches(3), ckpt_path=saved)
    assert lines(events) == [
        "workflow.run.start w first/2",
        "stage.run.start fit",
        "training.step @ 3/7",
        "training.step @ 3/8",
        "training.step @ 3/9",
        "training.epoch @ 3/9",
        "stage.run.stop fit",
        "workflow.run.stop w first/2",
    ]
    assert mine.state_dict() == {"run_id": "first", "attempt": 2}


def test_attempts_add_up(trainer, known, batches, saved):
    for attempt in (2, 3):
        again = trainer(TelemetryCallback(), max_epochs=attempt + 1)
        with capture(RUN) as events:
            again.fit(known(), batches(3), ckpt_path=saved)
        assert runs(events) == [("first", attempt)]
        again.save_checkpoint(saved)


def test_resuming_in_the_middle_of_an_epoch(trainer, known, batches, tmp_path):
    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "two.ckpt")

    trainer(Saves()).fit(known(), batches(4))
    with capture() as events:
        trainer(TelemetryCallback()).fit(known(), batches(4), ckpt_path=tmp_path / "two.ckpt")
    assert runs(events) == [("r", 2)]
    assert steps(events) == [3, 4]
    assert {event.metadata["epoch"] for event in events if event.event == STEP} == {1}


def test_a_resumed_fit_with_nothing_left_to_do(trainer, known, batches, saved, lines):
    with capture() as events:
        trainer(TelemetryCallback("w"), max_epochs=2).fit(known(), batches(3), ckpt_path=saved)
    assert lines(events) == [
        "workflow.run.start w first/2",
        "stage.run.start fit",
        "stage.run.stop fit",
        "workflow.run.stop w first/2",
    ]


def test_what_is_given_wins_over_the_checkpoint(trainer, known, batches, saved):
    with capture(RUN) as events:
        for mine in (
            TelemetryCallback(attempt=9),
            TelemetryCallback(run_id="other"),
            TelemetryCallback(run_id="first"),
        ):
            trainer(mine, max_epochs=3).fit(known(), batches(3), ckpt_path=saved)
    assert runs(events) == [("first", 9), ("other", 1), ("first", 2)]


def test_a_further_fit_of_the_same_trainer_goes_on_as_another_attempt(trainer, known, batches):
    mine, module = trainer(TelemetryCallback()), known()
    with capture() as events:
        mine.fit(module, batches(2))
        mine.fit_loop.max_epochs = 2
        mine.fit(module, batches(2))
    (first, one), (second, two) = runs(events)
    assert (first, one, two) == (second, 1, 2)
    assert steps(events) == [1, 2, 3, 4]


def test_a_new_trainer_begins_a_new_run(trainer, known, batches):
    mine = TelemetryCallback()
    with capture() as events:
        trainer(mine).fit(known(), batches(2))
        trainer(mine).fit(known(), batches(2))
    (first, one), (second, two) = runs(events)
    assert first != second
    assert (one, two) == (1, 1)
    assert steps(events) == [1, 2, 1, 2]


def test_evaluations_belong_to_the_attempt_that_has_trained(trainer, validated, batches, saved):
    mine = trainer(TelemetryCallback(), max_epochs=3)
    module = validated()
    with capture(RUN) as events:
        mine.validate(module, batches(1), verbose=False)
        mine.fit(module, batches(3), batches(1))
        mine.test(module, batches(1), verbose=False)
    assert len(set(runs(events))) == 1
    with capture(RUN) as events:
        trainer(TelemetryCallback()).test(module, batches(1), ckpt_path=saved, verbose=False)
    assert runs(events) == [("first", 1)]


class Tuned(pl.LightningModule):
    """Has a learning rate that can be searched for."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.lr = 0.1

    def training_step(self, batch, batch_idx):
        return (self.weight - batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def test_a_tuner_leaves_no_trace(trainer, batches):
    """It fits and saves by itself, and leaves before the fit has begun for anybody else."""

    mine, module = trainer(), Tuned()
    tuner = pl.tuner.Tuner(mine)
    with capture() as events:
        tuner.lr_find(module, batches(30), num_training=10, update_attr=False)
    assert events == []
    with capture() as events:
        mine.fit(module, batches(3))
    assert runs(events) == [("r", 1)]
    assert steps(events) == [1, 2, 3]


def test_a_finder_inside_a_fit_is_no_part_of_it(trainer, batches, lines):
    """Neither its steps nor what it saves and restores; one may also search between epochs."""

    class Finder(pl.callbacks.LearningRateFinder):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                self.lr_find(trainer, module)

    mine = TelemetryCallback("w")
    with capture() as events:
        trainer(mine, Finder(num_training_steps=2), max_epochs=2).fit(Tuned(), batches(3))
    ((run_id, attempt),) = runs(events)
    assert attempt == 1
    assert lines(events) == [
        f"workflow.run.start w {run_id}/1",
        "stage.run.start fit",
        *[f"training.step @ 1/{step}" for step in (1, 2, 3)],
        "training.epoch @ 1/3",
        *[f"training.step @ 2/{step}" for step in (4, 5, 6)],
        "training.epoch @ 2/6",
        "stage.run.stop fit",
        f"workflow.run.stop w {run_id}/1",
    ]
    with capture(RUN) as events:
        trainer(mine).fit(Tuned(), batches(1))
    ((another, attempt),) = runs(events)
    assert another != run_id
    assert attempt == 1


def test_a_fit_that_a_tuner_leaves_has_stopped(trainer, known, batches, lines):
    """Lightning calls neither the end of training nor `on_exception`."""
    from lightning.pytorch.utilities.exceptions import _TunerExitException

    class Leaves(pl.Callback):
        def on_train_batch_end(self, *_):
            raise _TunerExitException

    with capture() as events:
        trainer(Leaves()).fit(known(), batches(3))
    assert lines(events)[-2:] == ["stage.run.stop fit", "workflow.run.stop w r/1"]

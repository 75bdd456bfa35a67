"""What a Lightning fit reports when all goes well, in order and with its numbers."""

import math

import pytest

import telemetry
from telemetry.testing import capture

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")

from telemetry.integrations.lightning import TelemetryCallback  # noqa: E402 -- needs lightning

STEP = ("training", "step")
EPOCH = ("training", "epoch")
EVAL = ("training", "eval")
TIMING = ("training", "timing")


def steps(events):
    return [event.metadata["step"] for event in events if event.event == STEP]


def measured(events, name, key):
    return [float(each.measurements[key]) for each in events if each.event == name]


def test_a_fit_with_accumulation_validation_and_checkpoints(
    trainer, validated, batches, lines, tmp_path
):
    """Five batches, a step every two: the last step of an epoch has one batch."""
    saves = pl.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}-{step}", save_top_k=-1)
    options = {"max_epochs": 2, "accumulate_grad_batches": 2, "num_sanity_val_steps": 1}
    with capture() as events:
        trainer(saves, **options).fit(validated(), batches(5), batches(2))
    assert lines(events) == [
        "workflow.run.start w r/1",
        "stage.run.start fit",
        "stage.run.start sanity_check",
        "stage.run.stop sanity_check",
        "training.step @ 1/1",
        "training.step @ 1/2",
        "training.step @ 1/3",
        "stage.run.start validate @ 1/3",
        "training.eval val @ 1/3",
        "stage.run.stop validate @ 1/3",
        "training.checkpoint epoch=0-step=3 @ 1/3",
        "training.epoch @ 1/3",
        "training.step @ 2/4",
        "training.step @ 2/5",
        "training.step @ 2/6",
        "stage.run.start validate @ 2/6",
        "training.eval val @ 2/6",
        "stage.run.stop validate @ 2/6",
        "training.checkpoint epoch=1-step=6 @ 2/6",
        "training.epoch @ 2/6",
        "stage.run.stop fit",
        "workflow.run.stop w r/1",
    ]
    assert {(e.metadata["run_id"], e.metadata["attempt"]) for e in events} == {("r", 1)}
    assert all(e.metadata["total_steps"] == 6 for e in events if e.event in (STEP, TIMING))
    assert all(e.metadata["total_epochs"] == 2 for e in events if e.event == EPOCH)


def test_losses_and_rates_are_those_of_the_step(trainer, known, batches):
    """Lightning halves each loss, also that of the lone last batch; the rate is halved after it."""
    with capture() as events:
        trainer(max_epochs=2, accumulate_grad_batches=2).fit(known(), batches(5))
    assert measured(events, STEP, "loss") == [1.5, 3.5, 5.0] * 2
    assert measured(events, STEP, "lr") == [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625]
    assert measured(events, EPOCH, "epoch_loss") == [3.0, 3.0]


def test_an_epoch_of_many_steps_has_the_mean_of_all(trainer, known, batches):
    """More than are summed up at once: the mean of 1 to 150."""
    with capture(EPOCH) as events:
        trainer().fit(known(), batches(150))
    assert measured(events, EPOCH, "epoch_loss") == [75.5]


def test_losses_of_half_precision_are_summed_in_single(trainer, known, batches):
    """The sum of 602 halves is 301, which is no bfloat16: those near it are 300 and 302."""

    class Half(known):
        def loss(self, batch):
            return super().loss(batch).clamp(max=1.0).bfloat16()

    with capture(EPOCH, STEP) as events:
        trainer(accumulate_grad_batches=2).fit(Half(), batches(602))
    assert measured(events, EPOCH, "epoch_loss") == [1.0]
    assert steps(events) == list(range(1, 302))


def test_a_strategy_that_accumulates_by_itself(trainer, known, batches):
    """As DeepSpeed does: Lightning then asks the optimizer to step after every batch."""

    class Accumulates(pl.strategies.SingleDeviceStrategy):
        handles_gradient_accumulation = True

    strategy = Accumulates(device=torch.device("cpu"))
    with capture(STEP, EPOCH) as events:
        trainer(strategy=strategy, accumulate_grad_batches=2).fit(known(), batches(4))
    assert steps(events) == [1, 2]
    assert measured(events, STEP, "loss") == [1.5, 3.5]


def test_times_count_the_items_of_all_batches_of_a_step(trainer, known, batches):
    with capture(TIMING) as events:
        trainer(accumulate_grad_batches=2).fit(known(), batches(10, batch_size=3))
    assert [event.measurements["batch_size"] for event in events] == [6, 4]
    for event in events:
        took = event.measurements["step_duration"]
        assert 0 <= event.measurements["data_duration"] <= took
        rate = event.measurements["batch_size"] * 1e9 / took
        assert event.measurements["samples_per_second"] == pytest.approx(rate)


def test_a_training_step_without_a_loss_is_no_step(trainer, known, batches):
    """Lightning counts it, so the number is left out, too."""

    class Skips(known):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

    with capture() as events:
        trainer().fit(Skips(), batches(3))
    assert steps(events) == [1, 3]
    assert [event.metadata["step"] for event in events if event.event == TIMING] == [1, 3]
    assert measured(events, EPOCH, "epoch_loss") == [2.0]


def test_a_batch_without_a_loss_does_not_count_in_the_mean_of_its_step(trainer, known, batches):
    class Skips(known):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

    with capture() as events:
        trainer(accumulate_grad_batches=2).fit(Skips(), batches(4))
    assert measured(events, STEP, "loss") == [1.0, 3.5]
    assert measured(events, EPOCH, "epoch_loss") == [pytest.approx((1 + 3 + 4) / 3)]


def test_scalars_that_training_step_returns_are_measured(trainer, known, batches):
    class Returns(known):
        def training_step(self, batch, batch_idx):
            hits = torch.tensor(batch_idx + 0.25)
            return {"loss": self.loss(batch), "hits": hits, "tokens": 7, "logits": batch[0]}

    with capture(STEP) as events:
        trainer().fit(Returns(), batches(2))
    assert [set(event.measurements) for event in events] == [{"loss", "lr", "hits", "tokens"}] * 2
    assert measured(events, STEP, "hits") == [0.25, 1.25]
    assert measured(events, STEP, "tokens") == [7, 7]


def test_epoch_has_what_was_logged_for_it_by_all_hooks(trainer, known, batches):
    class Logs(known):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("train/twice", 2 * loss, on_step=True, on_epoch=True)
            self.log("only_by_step", loss)
            return loss

        def on_train_epoch_end(self):
            self.log("train_f1", float(self.current_epoch))

    with capture(EPOCH) as events:
        trainer(max_epochs=2).fit(Logs(), batches(3))
    assert [dict(event.measurements) for event in events] == [
        {"epoch_twice": 4.0, "epoch_f1": 0.0, "epoch_loss": 2.0},
        {"epoch_twice": 4.0, "epoch_f1": 1.0, "epoch_loss": 2.0},
    ]


def test_validation_in_the_middle_of_an_epoch(trainer, validated, batches, lines):
    with capture(STEP, EVAL, EPOCH) as events:
        trainer(val_check_interval=2).fit(validated(), batches(4), batches(1))
    assert lines(events) == [
        "training.step @ 1/1",
        "training.step @ 1/2",
        "training.eval val @ 1/2",
        "training.step @ 1/3",
        "training.step @ 1/4",
        "training.eval val @ 1/4",
        "training.epoch @ 1/4",
    ]


def test_an_evaluation_between_the_batches_of_a_step_has_the_steps_that_are_made(
    trainer, validated, batches, lines
):
    options = {"val_check_interval": 1, "accumulate_grad_batches": 2}
    with capture(STEP, EVAL, ("stage", "run", "start")) as events:
        trainer(**options).fit(validated(), batches(4), batches(1))
    assert [line for line in lines(events) if line != "stage.run.start fit"] == [
        "stage.run.start validate @ 1/0",
        "training.eval val @ 1/0",
        "training.step @ 1/1",
        "stage.run.start validate @ 1/1",
        "training.eval val @ 1/1",
        "stage.run.start validate @ 1/1",
        "training.eval val @ 1/1",
        "training.step @ 1/2",
        "stage.run.start validate @ 1/2",
        "training.eval val @ 1/2",
    ]


@pytest.mark.parametrize("order", [("val_loss", "loss"), ("loss", "val_loss")])
def test_a_metric_whose_short_name_another_one_has_keeps_its_own(
    trainer, validated, batches, order
):
    class Logs(validated):
        def validation_step(self, batch, batch_idx):
            for name in order:
                self.log(name, 0.25 if name == "loss" else 0.5)

    with capture(EVAL) as events:
        trainer().fit(Logs(), batches(1), batches(1))
    assert dict(events[0].measurements) == {"loss": 0.25, "val_loss": 0.5}


def test_losses_that_the_module_logs_itself_are_not_lost(trainer, known, batches):
    class Logs(known):
        def training_step(self, batch, batch_idx):
            self.log("train_loss", 7.0, on_step=True, on_epoch=True)
            self.log("loss", 8.0, on_step=False, on_epoch=True)
            return super().training_step(batch, batch_idx)

    with capture(EPOCH) as events:
        trainer().fit(Logs(), batches(3))
    assert dict(events[0].measurements) == {
        "epoch_loss": 2.0,
        "epoch_train_loss": 7.0,
        "epoch_logged_loss": 8.0,
    }


def test_evaluations_have_their_own_metrics_by_short_names(trainer, validated, batches):
    class Logs(validated):
        def training_step(self, batch, batch_idx):
            self.log("train_acc", 0.25, on_epoch=True)
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log("val_loss", self.loss(batch), on_step=True, on_epoch=True)
            if dataloader_idx == 0:
                self.log("val/acc", 0.5, add_dataloader_idx=False)
                self.log("margin", 2.0, add_dataloader_idx=False)

    with capture(EVAL) as events:
        trainer(max_epochs=2).fit(Logs(), batches(2), batches(3))
        trainer().fit(Logs(), batches(2), [batches(3), batches(5)])
    alone, second, several = [dict(event.measurements) for event in events]
    assert alone == second == {"loss": 2.0, "acc": 0.5, "margin": 2.0}
    own = {"loss/dataloader_idx_0": 2.0, "loss/dataloader_idx_1": 3.0}
    assert several == own | {"acc": 0.5, "margin": 2.0}


def test_early_stopping_and_limits_of_steps(trainer, validated, batches, lines):
    class Stops(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == 2

    with capture(STEP, EVAL, EPOCH) as events:
        trainer(Stops(), max_epochs=3).fit(validated(), batches(4), batches(1))
    stopped = ["training.step @ 1/1", "training.step @ 1/2"]
    assert lines(events) == [*stopped, "training.eval val @ 1/2", "training.epoch @ 1/2"]
    with capture(STEP, EPOCH) as events:
        trainer(max_steps=3, max_epochs=-1).fit(validated(), batches(2), batches(1))
    assert steps(events) == [1, 2, 3]
    assert lines(events)[-1] == "training.epoch @ 2/3"
    assert "total_epochs" not in events[-1].metadata
    with capture(STEP) as events:
        trainer(limit_train_batches=2, max_epochs=2).fit(validated(), batches(5), batches(1))
    assert steps(events) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "total"),
    [
        ({"max_epochs": 3}, 9),
        ({"max_epochs": 3, "accumulate_grad_batches": 2}, 6),
        ({"max_epochs": 3, "max_steps": 4}, 4),
        ({"max_epochs": -1, "max_steps": 2}, 2),
        ({"max_epochs": 3, "limit_train_batches": 1}, 3),
    ],
)
def test_total_steps_is_what_the_trainer_will_make(trainer, known, batches, options, total):
    with capture(STEP) as events:
        trainer(**options).fit(known(), batches(3))
    assert {event.metadata["total_steps"] for event in events} == {total}
    assert steps(events)[-1] == total


def test_total_steps_is_left_out_where_nobody_knows(trainer, known, batches):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([torch.ones(1)])

    schedule = pl.callbacks.GradientAccumulationScheduler({0: 1, 1: 2})
    with capture(STEP) as events:
        trainer(max_epochs=2).fit(
            known(), torch.utils.data.DataLoader(Stream(), collate_fn=lambda rows: rows)
        )
        trainer(schedule, max_epochs=2).fit(known(), batches(4))
    assert steps(events) == [1, 2, 1, 2, 3, 4, 5, 6]
    assert not any("total_steps" in event.metadata for event in events)
    assert not any(math.isnan(event.measurements["loss"]) for event in events)


def test_evaluations_alone_are_runs_of_the_same_name(trainer, validated, batches, lines):
    alone = trainer()
    with capture() as events:
        alone.validate(validated(), batches(1), verbose=False)
        alone.test(validated(), batches(1), verbose=False)
        alone.predict(validated(), batches(1))
    expected = []
    for stage, told in [("validate", "val"), ("test", "test"), ("predict", None)]:
        expected += ["workflow.run.start w r/1", f"stage.run.start {stage}"]
        expected += [f"training.eval {told}"] if told else []
        expected += [f"stage.run.stop {stage}", "workflow.run.stop w r/1"]
    assert lines(events) == expected


def test_an_evaluation_of_a_checkpoint_has_its_step(trainer, validated, batches, tmp_path):
    fitted = trainer(max_epochs=2)
    fitted.fit(validated(), batches(3), batches(1))
    fitted.save_checkpoint(tmp_path / "six.ckpt")
    fitted.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)
    bare = torch.load(tmp_path / "six.ckpt", weights_only=False)
    del bare["global_step"]
    torch.save(bare, tmp_path / "bare.ckpt")
    with capture(EVAL) as events:
        fitted.test(validated(), batches(1), verbose=False)
        for name in ("six", "weights", "bare"):
            path = tmp_path / f"{name}.ckpt"
            trainer().test(validated(), batches(1), ckpt_path=path, verbose=False)
    assert [each.metadata.get("step") for each in events] == [6, 6, None, None]


def test_stages_of_a_run_of_yours(trainer, validated, batches, lines):
    mine = trainer(TelemetryCallback())
    with capture() as events, telemetry.workflow_run("mine", run_id="a", attempt=7):
        mine.fit(validated(), batches(1), batches(1))
        mine.test(validated(), batches(1), verbose=False)
    told = lines(events)
    assert (told[0], told[-1]) == ("workflow.run.start mine a/7", "workflow.run.stop mine a/7")
    assert sum(line.startswith("workflow.") for line in told) == 2
    assert "stage.run.start test" in told
    assert {(e.metadata["run_id"], e.metadata["attempt"]) for e in events} == {("a", 7)}


def test_names_come_from_the_module(trainer, validated, batches):
    with capture(("*", "run", "start")) as events:
        trainer(TelemetryCallback(without=["command"])).fit(validated(), batches(1), batches(1))
    run, stage, validation = events
    assert run.metadata["workflow"] == "Validated"
    assert "host" in run.metadata
    assert "command" not in run.metadata
    assert stage.metadata["module"] == validation.metadata["module"] == validated.__module__


def test_nothing_of_a_fit_is_left_in_the_context(trainer, validated, batches):
    with capture(("after",)) as events:
        trainer().fit(validated(), batches(2), batches(1))
        telemetry.execute(("after",), {})
    assert events[0].metadata == {}


def test_two_callbacks_are_refused(trainer):
    """By Lightning, which could not tell their states apart."""
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        trainer(TelemetryCallback(), TelemetryCallback("other"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"workflow": 3}, TypeError, "workflow must be a string, got 3"),
        ({"workflow": ""}, ValueError, "workflow must not be empty"),
        ({"attempt": 0}, ValueError, "attempt must be a whole number of at least 1, got 0"),
        ({"without": ["git"]}, ValueError, "git"),
    ],
)
def test_bad_arguments_are_refused_at_once(options, error, message):
    with pytest.raises(error, match=message):
        TelemetryCallback(**options)

"""What is logged in a training of transformers, and with which learning rate a step is made."""

import os

import pytest

from telemetry.integrations import transformers_values
from telemetry.testing import capture

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from telemetry.integrations.transformers import TelemetryCallback  # noqa: E402 -- after the skips

STEP = ("training", "step")
EPOCH = ("training", "epoch")
CHECKPOINT = ("training", "checkpoint")


class Fixed(torch.optim.Optimizer):
    """An optimizer without a learning rate."""

    def __init__(self, parameters):
        super().__init__(parameters, {"eta": 0.1})

    def step(self, closure=None):
        pass


class Idle:
    """Its scheduler."""

    def step(self):
        pass

    def get_last_lr(self):
        return [0.1]


def test_an_optimizer_without_a_learning_rate(make):
    trainer = make(TelemetryCallback(), max_steps=2)
    trainer.optimizer, trainer.lr_scheduler = Fixed(trainer.model.parameters()), Idle()
    with capture(STEP) as events:
        trainer.train()
    assert [set(e.measurements) for e in events] == [{"loss"}] * 2


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("logging", ["no", "steps"])
def test_what_is_logged_between_two_steps_is_on_one_of_them(make, hook, is_first, logging):
    """By a callback that comes before ours in the list, or after it."""
    logger = hook("on_step_end", lambda it: trainer.log({"reward": it.state.global_step * 1.0}))
    callbacks = [logger, TelemetryCallback()]
    trainer = make(
        *(callbacks if is_first else callbacks[::-1]),
        max_steps=3,
        logging_strategy=logging,
        logging_steps=1,
    )
    with capture(STEP, EPOCH) as events:
        trainer.train()
    found = [e.measurements.get("reward") for e in events]
    own = is_first or logging == "steps"
    assert found == ([1.0, 2.0, 3.0, None] if own else [None, 1.0, 2.0, 3.0])


def test_what_is_logged_at_the_end_of_an_epoch_is_on_its_event(make, hook):
    trainer = make(TelemetryCallback(), num_train_epochs=2)
    trainer.add_callback(
        hook("on_epoch_end", lambda it: trainer.log({"kl": it.state.global_step * 1.0}))
    )
    with capture(STEP, EPOCH) as events:
        trainer.train()
    assert [e.measurements["kl"] for e in events if e.event == EPOCH] == [5.0, 10.0]
    assert all("kl" not in e.measurements for e in events if e.event == STEP)


def test_what_is_logged_before_the_first_step_is_on_it(make, hook):
    trainer = make(TelemetryCallback(), max_steps=2)
    trainer.add_callback(hook("on_train_begin", lambda _: trainer.log({"samples": 10})))
    with capture(STEP) as events:
        trainer.train()
    assert [e.measurements.get("samples") for e in events] == [10, None]


def test_results_are_on_no_step(make):
    """Those of evaluations, and of the training as a whole."""
    with capture(STEP, EPOCH) as events:
        make(TelemetryCallback(), max_steps=3, eval_strategy="steps", eval_steps=1).train()
    names = {name for event in events for name in event.measurements}
    assert names == {"loss", "lr", "epoch_loss"}


def test_a_log_with_a_loss_is_of_a_step_although_it_has_a_runtime():
    """With `include_num_input_tokens_seen` the `Trainer` logs both."""
    assert transformers_values.is_of_a_step({"loss": 1.0, "train_runtime": 2.0})


def test_checkpoints_of_a_hyperparameter_search_say_where_they_are(make, tmp_path):
    """As a sweep of W&B makes one: a folder with the run's name, and a trial that is a dict."""
    wandb = pytest.importorskip("wandb")
    trainer = make(TelemetryCallback(), max_steps=2, save_strategy="steps", save_steps=2)
    trainer.hp_search_backend = transformers.trainer_utils.HPSearchBackend.WANDB
    trainer.hp_name = None
    with wandb.init(mode="disabled", dir=tmp_path) as run, capture(CHECKPOINT) as events:
        trainer.train(trial={"learning_rate": 0.5})
    wandb.finish()  # the end of the block leaves a disabled run the active one
    directory = tmp_path / f"run-{run.id}" / "checkpoint-2"
    assert events[0].metadata["path"] == os.fspath(directory)
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert events[0].measurements == {"size_bytes": sum(path.stat().st_size for path in files)}


def test_a_loop_that_tells_of_no_epoch_is_in_the_first(make):
    class Trainer(transformers.Trainer):
        def train(self):
            handler, asked = self.callback_handler, (self.args, self.state, self.control)
            handler.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5)
            handler.on_train_begin(*asked)
            handler.on_step_begin(*asked)
            self.state.global_step += 1
            handler.on_step_end(*asked)
            handler.on_train_end(*asked)

    with capture(STEP) as events:
        make(TelemetryCallback(), kind=Trainer).train()
    assert [(e.metadata["step"], e.metadata["epoch"]) for e in events] == [(1, 1)]

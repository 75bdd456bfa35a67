"""Whatever ends a Lightning fit, its stage and run end with it, and say why."""

import signal

import pytest

import telemetry
from telemetry.testing import capture

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")

STARTED = ["workflow.run.start w r/1", "stage.run.start fit"]
SANITY = ["stage.run.start sanity_check", "stage.run.stop sanity_check"]
STEPS = ["training.step @ 1/1", "training.step @ 1/2"]


def failed(at=None):
    """How a fit ends, which says where it was."""
    stage = "stage.run.exception fit" if at is None else f"stage.run.exception fit @ {at}"
    return [stage, "workflow.run.exception w r/1"]


class Fails(pl.Callback):
    """Raises in the hook that has this name, at the given optimizer step."""

    def __init__(self, hook, error, step=0):
        def fail(trainer, *_, **__):
            if trainer.global_step == step:
                raise error

        setattr(self, hook, fail)


def fail(fit, error):
    """The events of a fit that fails, and of one that comes after it."""
    with capture() as events:
        with pytest.raises(type(error)) as raised:
            fit()
        telemetry.execute(("after",), {})
    assert raised.value is error
    assert events.pop().metadata == {}  # nothing is left in the context
    return events


@pytest.mark.parametrize(
    ("hook", "step", "told"),
    [
        ("setup", 0, [*STARTED, *failed()]),
        ("on_fit_start", 0, [*STARTED, *failed()]),
        (
            "on_sanity_check_start",
            0,
            [*STARTED, SANITY[0], "stage.run.exception sanity_check", *failed()],
        ),
        ("on_train_start", 0, [*STARTED, *SANITY, *failed("1/1")]),
        ("on_train_batch_start", 1, [*STARTED, *SANITY, *STEPS[:1], *failed("1/2")]),
        ("on_before_optimizer_step", 0, [*STARTED, *SANITY, *failed("1/1")]),
        ("on_train_batch_end", 2, [*STARTED, *SANITY, *STEPS, *failed("1/2")]),
        (
            "on_validation_epoch_end",
            2,
            [
                *STARTED,
                *SANITY,
                *STEPS,
                "stage.run.start validate @ 1/2",
                "stage.run.exception validate @ 1/2",
                *failed("1/2"),
            ],
        ),
    ],
)
def test_another_callback_fails(trainer, validated, batches, lines, hook, step, told):
    error = RuntimeError(f"no {hook}")
    fits = trainer(Fails(hook, error, step), num_sanity_val_steps=1)
    events = fail(lambda: fits.fit(validated(), batches(2), batches(1)), error)
    assert lines(events) == told
    for event in events[-2:]:
        assert event.metadata["reason"] is error
        assert event.metadata["kind"] == "error"
        assert event.metadata["error"] == f"RuntimeError: no {hook}"


def test_training_step_fails(trainer, known, batches, lines):
    error = ZeroDivisionError("in the middle")

    class Bad(known):
        def training_step(self, batch, batch_idx):
            if batch_idx == 2:
                raise error
            return super().training_step(batch, batch_idx)

    events = fail(lambda: trainer().fit(Bad(), batches(4)), error)
    assert lines(events) == [*STARTED, *STEPS, *failed("1/3")]


def test_validation_step_fails(trainer, validated, batches, lines):
    error = ZeroDivisionError("in the middle")

    class Bad(validated):
        def validation_step(self, batch, batch_idx):
            raise error

    events = fail(lambda: trainer().fit(Bad(), batches(1), batches(1)), error)
    assert lines(events) == [
        *STARTED,
        "training.step @ 1/1",
        "stage.run.start validate @ 1/1",
        "stage.run.exception validate @ 1/1",
        *failed("1/1"),
    ]


def test_dataloader_fails(trainer, known, lines):
    error = OSError("no such file")

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index == 2:
                raise error
            return (torch.ones(()),)

    events = fail(lambda: trainer().fit(known(), torch.utils.data.DataLoader(Rows())), error)
    assert lines(events) == [*STARTED, *STEPS, *failed("1/2")]
    assert events[-1].metadata["error"] == "OSError: no such file"


@pytest.mark.parametrize("function", ["validate", "test", "predict"])
def test_an_evaluation_alone_fails(trainer, validated, batches, lines, function):
    error = RuntimeError("no evaluation")
    hook = f"on_{'validation' if function == 'validate' else function}_batch_end"
    fails = trainer(Fails(hook, error))
    events = fail(lambda: getattr(fails, function)(validated(), batches(1)), error)
    assert lines(events) == [
        "workflow.run.start w r/1",
        f"stage.run.start {function}",
        f"stage.run.exception {function}",
        "workflow.run.exception w r/1",
    ]


def test_an_interrupt_is_an_exit(trainer, known, batches, lines):
    """Lightning takes it, and leaves the process with the status 1."""
    interrupted = trainer(Fails("on_train_batch_end", KeyboardInterrupt(), 1))
    before = signal.getsignal(signal.SIGINT)
    try:
        with capture() as events, pytest.raises(SystemExit):
            interrupted.fit(known(), batches(3))
    finally:
        signal.signal(signal.SIGINT, before)
    assert lines(events) == [*STARTED, "training.step @ 1/1", *failed("1/1")]
    assert [event.metadata["kind"] for event in events[-2:]] == ["exit", "exit"]


def test_the_same_trainer_fits_after_a_failure(trainer, known, batches, lines):
    """Lightning has kept its counts: the fit goes on, as another attempt."""
    error = RuntimeError("no network")
    again = trainer(Fails("on_train_batch_end", error, 1))
    module = known()
    fail(lambda: again.fit(module, batches(3)), error)
    with capture() as events:
        again.fit(module, batches(3))
    assert lines(events)[0] == "workflow.run.start w r/2"
    assert lines(events)[-1] == "workflow.run.stop w r/2"
    steps = [line for line in lines(events) if line.startswith("training.step")]
    assert steps[0] == "training.step @ 1/2"


def test_an_epoch_that_has_ended_is_told_before_the_failure(trainer, known, batches, lines):
    error = RuntimeError("no epoch")

    class Bad(known):
        def on_train_epoch_end(self):
            raise error

    events = fail(lambda: trainer().fit(Bad(), batches(1)), error)
    assert lines(events) == [
        *STARTED,
        "training.step @ 1/1",
        "training.epoch @ 1/1",
        *failed("1/1"),
    ]


def test_a_step_that_another_callback_fails_after_is_told_without_its_loss(
    trainer, known, batches, lines
):
    error = RuntimeError("no batch end")
    mine = trainer().callbacks[0]
    fits = trainer(Fails("on_train_batch_end", error, 2), mine)
    events = fail(lambda: fits.fit(known(), batches(3)), error)
    assert lines(events) == [*STARTED, *STEPS, *failed("1/2")]
    steps = [event for event in events if event.event == ("training", "step")]
    assert [set(event.measurements) for event in steps] == [{"loss", "lr"}, {"lr"}]

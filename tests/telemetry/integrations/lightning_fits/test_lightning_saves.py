"""Checkpoints are reported when they are there, with their size and step."""

import threading
from pathlib import Path

import pytest

from telemetry.testing import capture

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")

from lightning.pytorch.plugins.io import (  # noqa: E402 -- needs lightning
    AsyncCheckpointIO,
    TorchCheckpointIO,
)

from telemetry.integrations.lightning import TelemetryCallback  # noqa: E402 -- needs lightning

CHECKPOINT = ("training", "checkpoint")


def told(events):
    """Name, step and size of each checkpoint, whose file must be there."""
    found = []
    for event in events:
        path = Path(event.metadata["path"])
        size = sum(each.stat().st_size for each in [path, *path.rglob("*")] if each.is_file())
        assert event.measurements["size_bytes"] == size > 0
        found.append((event.metadata["checkpoint_name"], event.metadata["step"]))
    return found


def test_files_of_a_model_checkpoint(trainer, known, batches, tmp_path):
    saves = pl.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1, save_last=True
    )
    with capture(CHECKPOINT) as events:
        trainer(saves, accumulate_grad_batches=2).fit(known(), batches(8))
    assert [(each.metadata["checkpoint_name"], each.metadata["step"]) for each in events] == [
        ("step=2", 2),
        ("last", 2),
        ("step=4", 4),
        ("last", 4),
    ]
    assert told(events[-2:]) == [("step=4", 4), ("last", 4)]
    assert all(event.metadata["path"].startswith(str(tmp_path)) for event in events)
    assert {(event.metadata["run_id"], event.metadata["epoch"]) for event in events} == {("r", 1)}


def test_a_save_in_the_middle_of_a_step_has_the_steps_that_are_in_it(
    trainer, known, batches, tmp_path
):
    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            trainer.save_checkpoint(tmp_path / f"{batch_idx}.ckpt")

    with capture(CHECKPOINT) as events:
        trainer(Saves(), accumulate_grad_batches=2).fit(known(), batches(4))
    assert told(events) == [("0", 0), ("1", 1), ("2", 1), ("3", 2)]


def test_a_save_after_the_fit_belongs_to_its_run(trainer, known, batches, tmp_path):
    fitted = trainer()
    fitted.fit(known(), batches(3))
    with capture(CHECKPOINT) as events:
        fitted.save_checkpoint(tmp_path / "final=1.5.ckpt")
        fitted.save_checkpoint(filepath=str(tmp_path / "weights"), weights_only=True)
    assert told(events) == [("final=1.5", 3), ("weights", 3)]
    assert [event.metadata["run_id"] for event in events] == ["r", "r"]
    assert [event.metadata["attempt"] for event in events] == [1, 1]


def test_a_save_that_fails_is_none(trainer, known, batches, tmp_path):
    class Full(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            raise OSError(28, "No space left on device")

    fitted = trainer(plugins=[Full()])
    fitted.fit(known(), batches(1))
    with capture(CHECKPOINT) as events, pytest.raises(OSError, match="No space left"):
        fitted.save_checkpoint(tmp_path / "full.ckpt")
    assert events == []


def test_a_directory_is_as_large_as_its_files(trainer, known, batches, tmp_path):
    class Sharded(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            for shard in ("a", "b"):
                super().save_checkpoint(checkpoint, Path(path) / "shards" / shard)

    fitted = trainer(plugins=[Sharded()])
    fitted.fit(known(), batches(1))
    with capture(CHECKPOINT) as events:
        fitted.save_checkpoint(tmp_path / "sharded-0.5")
        fitted.save_checkpoint(tmp_path / "sharded-0.5")
    assert told(events) == [("sharded-0.5", 1)] * 2


def test_a_file_that_is_written_meanwhile_is_told_when_it_is_there(
    trainer, known, batches, tmp_path
):
    """Also where it replaces another one."""
    (tmp_path / "slow.ckpt").write_bytes(b"of another run")
    may_write = threading.Event()

    class Slow(TorchCheckpointIO):
        def save_checkpoint(self, *args, **options):
            assert may_write.wait(60)
            super().save_checkpoint(*args, **options)

    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "slow.ckpt")

        def on_train_end(self, *_):
            seen.append(list(events))
            may_write.set()

    seen = []
    with capture(CHECKPOINT) as events:
        trainer(Saves(), plugins=[AsyncCheckpointIO(Slow())]).fit(known(), batches(3))
    assert seen == [[]]
    assert told(events) == [("slow", 2)]


class Waits(TorchCheckpointIO):
    """Writes when it may."""

    def __init__(self):
        super().__init__()
        self.may_write = threading.Event()

    def save_checkpoint(self, *args, **options):
        assert self.may_write.wait(60)
        super().save_checkpoint(*args, **options)


def test_a_file_that_is_not_there_when_the_fit_fails_is_told_with_that_fit(
    trainer, known, batches, tmp_path
):
    class Fails(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "late.ckpt")
                raise ZeroDivisionError

        def on_exception(self, *_):
            waits.may_write.set()

    waits, mine = Waits(), TelemetryCallback()
    fails = trainer(mine, Fails(), plugins=[AsyncCheckpointIO(waits)])
    with capture(CHECKPOINT, ("workflow", "run", "*")) as events:
        with pytest.raises(ZeroDivisionError):
            fails.fit(known(), batches(3))
        trainer(mine).fit(known(), batches(1))
    assert [event.event[-1] for event in events] == [
        "start",
        "checkpoint",
        "exception",
        "start",
        "stop",
    ]
    started, saved = events[:2]
    assert saved.measurements == {}
    assert saved.metadata["run_id"] == started.metadata["run_id"]
    assert (saved.metadata["epoch"], saved.metadata["step"]) == (1, 2)


def test_a_file_that_appears_in_the_next_epoch_belongs_to_that_of_its_step(
    trainer, known, batches, tmp_path
):
    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "late.ckpt")
            if trainer.global_step == 3:
                waits.may_write.set()
                plugin.teardown()  # waits for the file

    waits = Waits()
    plugin = AsyncCheckpointIO(waits)
    with capture(CHECKPOINT, ("training", "step")) as events:
        trainer(Saves(), max_epochs=2, plugins=[plugin]).fit(known(), batches(2))
    assert [event.event[-1] for event in events] == ["step"] * 4 + ["checkpoint"]
    assert told(events[-1:]) == [("late", 2)]
    assert events[-1].metadata["epoch"] == 1


def test_what_is_stored_elsewhere_has_no_size(trainer, known, batches):
    class Elsewhere(TorchCheckpointIO):
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            stored.append(path)

    stored = []
    fitted = trainer(plugins=[Elsewhere()])

    class Saves(pl.Callback):
        def on_train_end(self, trainer, *_):
            trainer.save_checkpoint("s3://bucket/final.ckpt")
            trainer.save_checkpoint("nowhere.ckpt")

    fitted.callbacks.append(Saves())
    with capture(CHECKPOINT) as events:
        fitted.fit(known(), batches(1))
    assert stored == ["s3://bucket/final.ckpt", "nowhere.ckpt"]
    assert [event.measurements for event in events] == [{}, {}]
    assert [event.metadata["checkpoint_name"] for event in events] == ["final", "nowhere"]


def test_a_trainer_that_was_watched_before_tells_once(trainer, known, batches, tmp_path):
    fitted, module = trainer(), known()
    for _ in range(2):
        fitted.fit(module, batches(1))
    with capture(CHECKPOINT) as events:
        fitted.save_checkpoint(tmp_path / "once.ckpt")
    assert told(events) == [("once", 1)]

"""Runs that are interrupted and go on from a backup, and other checkpoints."""

import json
import tempfile
from pathlib import Path

import keras
from keras_checking import (
    check,
    check_told,
    failed,
    fit,
    fitted,
    interrupt,
    linear,
    steps,
    telling,
    told,
)

CHECKPOINT = ("training", "checkpoint")


def stopping(epoch):
    def stop(now, logs=None):
        if now == epoch:
            raise KeyboardInterrupt

    return keras.callbacks.LambdaCallback(on_epoch_begin=stop)


def identity(events):
    (found,) = {(e.metadata["run_id"], e.metadata["attempt"]) for e in events}
    return found


@check()
def fit_that_goes_on_from_a_backup_is_a_new_attempt_at_its_run():
    with tempfile.TemporaryDirectory() as folder:
        attempts = []
        for epoch in (1, 2):
            backup = keras.callbacks.BackupAndRestore(f"{folder}/b")
            act = lambda: fit(linear(), telling(), backup, stopping(epoch), epochs=3)  # noqa: B023, E731 -- at once
            attempts.append(failed(KeyboardInterrupt, act)[0])
        backup = keras.callbacks.BackupAndRestore(f"{folder}/b")
        attempts.append(fitted(linear(), backup, telling(), epochs=3))
        assert not Path(folder, "b").exists()
        fresh = fitted(linear(), keras.callbacks.BackupAndRestore(f"{folder}/b"), telling())
    run_id, _ = identity(attempts[0])
    assert [identity(events) for events in attempts] == [(run_id, 1), (run_id, 2), (run_id, 3)]
    assert [steps(events) for events in attempts] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    check_told(attempts[1][2:3], ["training.step e2 s4/9"])
    assert identity(fresh)[0] != run_id
    assert identity(fresh)[1] == 1


@check("torch")
def attempt_that_fails_before_its_first_backup_counts():
    with tempfile.TemporaryDirectory() as folder:
        backup = keras.callbacks.BackupAndRestore(folder)
        failed(KeyboardInterrupt, lambda: fit(linear(), telling(), backup, stopping(1), epochs=2))
        found = []
        for _ in range(2):
            again = lambda: fit(linear(), telling(), backup, interrupt(0), epochs=2)  # noqa: E731
            found.append(identity(failed(KeyboardInterrupt, again)[0])[1])
    assert found == [2, 3]


@check("torch")
def explicit_run_is_no_attempt_at_another():
    with tempfile.TemporaryDirectory() as folder:
        backup = keras.callbacks.BackupAndRestore(folder)
        act = lambda: fit(linear(), telling(run_id="a"), backup, stopping(1), epochs=2)  # noqa: E731
        failed(KeyboardInterrupt, act)
        kept = json.loads(Path(folder, "telemetry_run.json").read_text())
        assert kept == {"run_id": "a", "attempt": 1}
        other = fitted(linear(), telling(run_id="b"), backup, interrupt(9), epochs=2)
        assert identity(other) == ("b", 1)
    with tempfile.TemporaryDirectory() as folder:
        backup = keras.callbacks.BackupAndRestore(folder)
        failed(KeyboardInterrupt, act)
        seventh = fitted(linear(), telling(run_id="a", attempt=7), backup, epochs=2)
        assert identity(seventh) == ("a", 7)


@check("torch")
def damaged_note_of_the_run_is_no_obstacle():
    import logging

    records, watcher = [], logging.Handler()
    watcher.emit = records.append
    logging.getLogger("telemetry").addHandler(watcher)
    try:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "telemetry_run.json").write_text("{")
            events = fitted(linear(), telling(), keras.callbacks.BackupAndRestore(folder))
    finally:
        logging.getLogger("telemetry").removeHandler(watcher)
    assert steps(events) == [1, 2, 3]
    assert [record.getMessage() for record in records] == [
        f"Cannot read in {folder} which run the backup is of."
    ]


@check("torch")
def whatever_saves_the_model_is_told_with_the_step_that_it_is_of():
    class Saving(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                self.model.save_weights(f"{folder}/two.weights.h5")

    with tempfile.TemporaryDirectory() as folder:
        keep = keras.callbacks.ModelCheckpoint(
            f"{folder}/{{batch}}.weights.h5", save_weights_only=True, save_freq=3
        )
        backup = keras.callbacks.BackupAndRestore(f"{folder}/b")
        events = fitted(linear(), keep, backup, telling(), Saving())
        sizes = [e.measurements["size_bytes"] for e in events if e.event == CHECKPOINT]
        assert sizes[0] == Path(folder, "two.weights.h5").stat().st_size
    check_told(
        [e for e in events if e.event == CHECKPOINT],
        [
            "training.checkpoint two.weights.h5 e1 s2",
            "training.checkpoint 3.weights.h5 e1 s3",
            "training.checkpoint latest.weights.h5 e1 s3",
        ],
    )


@check("torch")
def model_that_is_saved_outside_of_a_fit_is_not_told_of():
    model = linear()
    fitted(model, telling())
    with tempfile.TemporaryDirectory() as folder:
        events, _ = failed(ZeroDivisionError, lambda: (model.save(f"{folder}/m.keras"), 1 / 0))
        assert told(events) == []
        loaded = keras.saving.load_model(f"{folder}/m.keras")
    assert (loaded.get_weights()[0] == model.get_weights()[0]).all()


@check("torch")
def run_can_be_handed_on_by_hand():
    first = telling()
    assert first.run == {}
    fitted(linear(), first)
    second = telling()
    second.run = first.run
    assert identity(fitted(linear(), second)) == (first.run["run_id"], 2)


@check("torch")
def model_has_its_own_way_to_save_again():
    def own_save(path):
        saved.append(path)

    saved, model = [], linear()
    model.save = own_save
    saving = keras.callbacks.LambdaCallback(on_train_end=lambda logs: model.save("out/"))
    events = fitted(model, saving, telling())
    assert vars(model)["save"] is own_save
    assert saved == ["out/"]
    assert "training.checkpoint out e1 s3" in told(events)


class Renamed(keras.Sequential):
    """Saves under a name of its own for the path, or without one, and takes everything."""

    def save(self, place="here", *, form="keras"):
        return place + form

    def save_weights(self, *args, **kwargs):
        return args, kwargs


@check("torch")
def saving_with_other_parameters_works_as_without_the_callback():
    answers = []

    class Saving(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            answers.append([self.model.save(place="a.k"), self.model.save(), self.model.save("b")])
            answers.append(
                [self.model.save_weights(filepath="c"), self.model.save_weights(b"\xff")]
            )
            answers.append([self.model.save_weights("d\0\ud800")])

    names = []
    for others in ((), (telling(),)):
        model = Renamed([keras.Input((3,)), keras.layers.Dense(1)])
        model.compile("sgd", loss="mse")
        events = fitted(model, Saving(), *others)
        names = [e.metadata["checkpoint_name"] for e in events if e.event == CHECKPOINT]
    assert answers[:3] == answers[3:]
    assert names == ["a.k", "b", "c", "d\0\ud800"]

"""A clipper's state in what Keras saves."""

import os
import shutil
import tempfile

import keras
from keras_checking import check, close, interrupted, refused, same
from keras_models import BATCH, INPUTS, TARGETS, deep, first_fit, fit, linear, percentile

from clipping.integrations.keras import ClipCallback, saved_state


@check()
def state_continues_from_a_saved_model():
    through, clipper, seen = deep(), percentile(), []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(clipper.state_dict()["steps"])
    )
    fit(through, clipper, look, epochs=2)
    assert seen == [30, 60]
    assert clipper.threshold_any() == clipper.state_dict()["thresholds"][0]
    first, half = deep(), percentile()
    fit(first, half)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.keras"
        first.save(path)
        assert saved_state(path) == half.state_dict()
        loaded, resumed = keras.saving.load_model(path), percentile()
        resumed.load_state_dict(saved_state(path))
    assert resumed.state_dict() == half.state_dict()
    fit(loaded, resumed, epochs=2, initial_epoch=1)
    assert same(loaded, through)
    assert resumed.state_dict() == clipper.state_dict()


@check("torch", "jax")
def state_continues_in_another_process():
    """On another backend too: the first half on torch, the second on JAX."""
    path, half = f"{os.environ['SHARED']}/half.weights.h5", 15 * BATCH
    if keras.backend.backend() == "torch":
        fit(model := linear(), percentile(), inputs=INPUTS[:half], targets=TARGETS[:half])
        model.save_weights(path)
        return
    model, clipper = linear(), percentile()
    model.optimizer.build(model.trainable_variables)
    model.load_weights(path)
    clipper.load_state_dict(saved_state(path))
    fit(model, clipper, inputs=INPUTS[half:], targets=TARGETS[half:])
    close(model, first_fit()[1])
    assert clipper.state_dict()["steps"] == 30


@check("torch")
def state_continues_from_saved_weights():
    through, clipper = deep(), percentile(scope="per_layer")
    fit(through, clipper, epochs=2)
    first = deep()
    fit(first, percentile(scope="per_layer"))
    loaded, resumed = deep(), percentile(scope="per_layer")
    loaded.optimizer.build(loaded.trainable_variables)
    ClipCallback(resumed).set_model(loaded)
    with tempfile.TemporaryDirectory() as folder:
        first.save_weights(f"{folder}/m.weights.h5")
        loaded.load_weights(f"{folder}/m.weights.h5")
    fit(loaded, resumed, epochs=2, initial_epoch=1)
    assert same(loaded, through)
    assert resumed.state_dict() == clipper.state_dict()


@check("torch", "jax")
def state_continues_from_a_backup():
    through, clipper = deep(), percentile()
    fit(through, clipper, epochs=3)

    def stop(epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as folder:
        backup = keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False)
        killer = keras.callbacks.LambdaCallback(on_epoch_begin=stop)
        interrupted(lambda: fit(deep(), percentile(), backup, killer, epochs=3))
        for order in (1, -1):
            model, resumed = deep(), percentile()
            restored = f"{folder}/{order}"
            shutil.copytree(folder, restored, ignore=shutil.ignore_patterns("*1"))
            callbacks = [ClipCallback(resumed), keras.callbacks.BackupAndRestore(restored)]
            options = {"batch_size": BATCH, "shuffle": False, "verbose": 0, "epochs": 3}
            model.fit(INPUTS, TARGETS, callbacks=callbacks[::order], **options)
            assert same(model, through)
            assert resumed.state_dict() == clipper.state_dict()


@check("torch", "jax")
def state_continues_from_a_checkpoint_in_the_middle_of_an_epoch():
    through, clipper = deep(), percentile()
    with tempfile.TemporaryDirectory() as folder:
        keep = keras.callbacks.ModelCheckpoint(f"{folder}/{{batch}}.keras", save_freq=7)
        fit(through, clipper, keep)
        path = f"{folder}/14.keras"
        loaded, resumed = keras.saving.load_model(path), percentile()
        resumed.load_state_dict(saved_state(path))
    assert resumed.state_dict()["steps"] == 14
    assert len(loaded.optimizer.variables) == 2 + 4
    fit(loaded, resumed, inputs=INPUTS[14 * BATCH :], targets=TARGETS[14 * BATCH :])
    assert same(loaded, through)
    assert resumed.state_dict() == clipper.state_dict()


@check("torch")
def file_without_a_state_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/plain.keras"
        linear().save(path)
        assert refused(ValueError, lambda: saved_state(path)) == (
            f"There is no clipper's state in {path!r}. Allowed: a file of a model that was fitted "
            "with a ClipCallback and saved with its optimizer."
        )
    assert refused(ValueError, lambda: saved_state("model.pt")) == (
        "path must end with '.keras' or '.weights.h5', got 'model.pt'."
    )


@check("torch")
def variables_have_paths_of_their_own():
    """By which OrbaxCheckpoint and HDF5 files tell them apart."""
    trees, model = [], linear()
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: trees.append(model.get_state_tree())
    )
    fit(model, percentile(), look, inputs=INPUTS[:BATCH], targets=TARGETS[:BATCH])
    (names,) = trees[0]["optimizer_variables"].values()
    ours = [name for name in names if name.startswith("clipper")]
    assert len(ours) >= 4
    assert ours == [f"clipper_{place}" for place in range(len(ours))]


@check("torch")
def legacy_files_are_written_without_the_state():
    model = linear(keras.optimizers.SGD(0.05, momentum=0.9))
    with tempfile.TemporaryDirectory() as folder:
        fit(model, percentile(), keras.callbacks.ModelCheckpoint(f"{folder}/m.h5"))
        loaded = keras.saving.load_model(f"{folder}/m.h5", compile=False)
    assert same(loaded, model)


@check("torch")
def orbax_does_not_bring_the_clipper_back():
    model = linear(keras.optimizers.SGD(0.05, momentum=0.9))
    with tempfile.TemporaryDirectory() as folder:
        keep = keras.callbacks.OrbaxCheckpoint(folder, save_freq="epoch", save_on_background=False)
        fit(model, percentile(), keep, epochs=2)
        loaded = keras.saving.load_model(folder)
    assert len(loaded.optimizer.variables) == 2 + 2
    assert not hasattr(loaded.optimizer, "clipper_state")

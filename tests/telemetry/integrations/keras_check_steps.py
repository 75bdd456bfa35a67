"""The numbers of steps where a batch and a step are not the same."""

import keras
import numpy as np
from keras_checking import (
    BATCH,
    INPUTS,
    TARGETS,
    TIMING,
    check,
    check_told,
    fitted,
    linear,
    steps,
    telling,
    values,
)

TEN = {"x": np.tile(INPUTS, (4, 1)), "y": np.tile(TARGETS, (4, 1)), "batch_size": BATCH}


def iterations(model):
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def unknown(batches):
    """A generator of some batches of four, which does not say how many."""
    for _ in range(batches):
        yield INPUTS[:BATCH], TARGETS[:BATCH]


def sizes(events):
    return [e.measurements.get("batch_size") for e in events if e.event == TIMING]


@check()
def step_with_accumulated_gradients_is_told_when_the_optimizer_steps():
    """Of 2 x 10 batches, 3 make a step; the last of an epoch wait for the next one."""
    model = linear(keras.optimizers.SGD(0.01, gradient_accumulation_steps=3))
    seen = []
    events = fitted(model, telling(), noting_steps(seen), epochs=2, **TEN)
    assert steps(events) == [1, 2, 3, 4, 5, 6]
    assert iterations(model) == 6
    places = [(e.metadata["epoch"], e.metadata["total_steps"]) for e in events if e.event == TIMING]
    assert places == [(1, 6)] * 3 + [(2, 6)] * 3
    assert sizes(events) == [12] * 6
    assert seen == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7]
    epochs = [e.metadata["step"] for e in events if e.event == ("training", "epoch")]
    assert epochs == [3, 6]
    later = fitted(model, telling(), **TEN)
    assert steps(later) == [7, 8, 9, 10]
    assert {e.metadata["total_steps"] for e in later if e.event == TIMING} == {10}
    assert sizes(later) == [4, 12, 12, 12]


def noting_steps(seen):
    """A callback that notes which step the context says at the end of each batch."""
    from telemetry.ambient import ambient_metadata

    return keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(ambient_metadata()["step"])
    )


@check("tensorflow", "jax")
def several_steps_per_execution_are_told_as_the_last_of_them():
    model = linear(steps_per_execution=4)
    events = fitted(model, telling(), epochs=2, **TEN)
    assert steps(events) == [4, 8, 10, 14, 18, 20]
    assert iterations(model) == 20
    assert {e.metadata["total_steps"] for e in events if e.event == TIMING} == {20}
    assert sizes(events) == [4] * 6
    expected = ["training.step e1 s4/20", "training.timing e1 s4/20"]
    check_told(events[2:4], expected)


@check("tensorflow", "jax")
def several_executions_may_make_one_step():
    """10 batches, of which 3 make a step, told in fours: 4, 8, 10."""
    optimizer = keras.optimizers.SGD(0.01, gradient_accumulation_steps=3)
    events = fitted(linear(optimizer, steps_per_execution=2), telling(), **TEN)
    assert steps(events) == [1, 2, 3]
    assert sizes(events) == [16, 8, 16]


@check()
def batches_that_nobody_has_counted_are():
    """Keras begins a sixth, which is not there: what comes then is still of the fifth."""
    validation = (INPUTS, TARGETS)
    events = fitted(linear(), telling(), x=unknown(5), validation_data=validation)
    assert steps(events) == [1, 2, 3, 4, 5]
    assert "total_steps" not in events[2].metadata
    expected = [
        "stage.run.start validate e1 s5",
        "training.eval val e1 s5",
        "stage.run.stop validate e1 s5",
        "training.epoch e1 s5",
    ]
    check_told(events[-6:-2], expected)
    if keras.backend.backend() != "torch":
        model = linear(steps_per_execution=2)
        assert steps(fitted(model, telling(), x=unknown(5))) == [2, 4, 5]
        assert iterations(model) == 5


@check()
def batch_that_overflows_under_a_loss_scale_is_no_step():
    """The scale of 2**127 is halved until the gradients, of about 2**6, are finite in float32."""
    inner, data = keras.optimizers.SGD(2.0**-7), {**TEN, "y": TEN["y"] * 4}
    model = linear(keras.optimizers.LossScaleOptimizer(inner, initial_scale=2.0**127))
    events = fitted(model, telling(), epochs=2, **data)
    made = iterations(model)
    assert 10 < made < 20
    assert steps(events) == list(range(1, made + 1))
    assert values(events, "lr") == [2.0**-7] * made
    assert sizes(events)[0] > 4
    assert sum(sizes(events)) == 80


@check("torch", "tensorflow")
def model_with_an_optimizer_of_several_tells_its_steps_without_a_rate():
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        return
    one = keras.optimizers.SGD(0.01)
    both = keras.optimizers.MultiOptimizer(lambda variable: one)
    events = fitted(linear(both), telling())
    assert steps(events) == [1, 2, 3]
    assert set(events[2].measurements) == {"loss", "mae"}

"""What a fit leaves behind, also one that was interrupted."""

import keras
from keras_checking import check, interrupt, interrupted, refused, same
from keras_models import BATCH, INPUTS, TARGETS, deep, fit, linear, percentile

from telemetry.testing import capture


@check()
def optimizer_and_model_are_left_as_they_were():
    model = linear(keras.optimizers.Adam(0.01))
    model.optimizer.build(model.trainable_variables)
    attributes, variables = set(vars(model.optimizer)), model.optimizer.variables
    fit(model, percentile())
    assert set(vars(model.optimizer)) - attributes == {"clipper_state"}
    assert list(map(id, model.optimizer.variables)) == list(map(id, variables))
    plain = linear(keras.optimizers.Adam(0.01))
    plain.fit(INPUTS, TARGETS, batch_size=BATCH, verbose=0)
    assert set(vars(model)) == set(vars(plain))
    with capture(("smartclip", "**")) as events:
        model.fit(INPUTS, TARGETS, batch_size=BATCH, verbose=0)
    assert events == []


@check("tensorflow", "jax")
def fits_follow_each_other_each_with_its_own_clipper():
    """Of states of one shape, so that a step compiled for the first would do for the second."""
    model, expected = linear(), linear()
    fit(model, percentile(percentile=1.0))
    fit(model, clipper := percentile())
    fit(expected, percentile(percentile=1.0))
    expected.optimizer = keras.optimizers.SGD(0.05)
    expected.compile(expected.optimizer, loss="mse")
    fit(expected, percentile())
    assert same(model, expected)
    assert clipper.state_dict()["steps"] == 30


@check()
def fit_after_an_interrupted_one_is_clean():
    model, clipper = deep(), percentile()
    variables = len(model.optimizer.variables)
    interrupted(lambda: fit(model, clipper, interrupt(9)))
    with capture(("smartclip", "**")) as events:
        model.fit(INPUTS, TARGETS, batch_size=BATCH, verbose=0)
    assert events == []
    assert clipper.state_dict()["steps"] == 10
    assert "_clip_gradients" not in vars(model.optimizer)
    assert len(model.optimizer.variables) <= variables + 4
    interrupted(lambda: fit(model, clipper, interrupt(9)))
    fit(model, clipper)
    assert clipper.state_dict()["steps"] == 50


@check()
def step_that_fails_costs_the_clipper_nothing():
    """Keras on JAX loses all variables then, the weights of the model among them."""
    model, clipper = linear(), percentile()
    fit(model, clipper)
    before = clipper.state_dict()
    refused(ValueError, lambda: fit(model, clipper, inputs=INPUTS[:, :3]))
    model.make_train_function()
    assert "_clip_gradients" not in vars(model.optimizer)
    assert clipper.state_dict() == before


@check("torch")
def state_loaded_during_a_fit_wins():
    clipper, other = percentile(), percentile()
    fit(linear(), other, inputs=INPUTS[: 5 * BATCH], targets=TARGETS[: 5 * BATCH])
    load = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: clipper.load_state_dict(other.state_dict())
    )
    fit(model := linear(), clipper, load, epochs=2)
    assert clipper.state_dict() == other.state_dict()
    fit(model, clipper)
    assert clipper.state_dict()["steps"] == 35


@check("torch")
def training_step_of_its_own_inside_fit_is_found_out():
    model = linear()

    class Train(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.train_on_batch(INPUTS[:4], TARGETS[:4])

    message = refused(RuntimeError, lambda: fit(model, percentile(), Train()))
    assert message.startswith("Something in this fit has asked for a new training step")

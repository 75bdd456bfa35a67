"""The numbers of steps where the batches are no steps of the model's own optimizer."""

import keras
from keras_checking import STEP, check, fit, fitted, linear, steps, telling, values

from telemetry.testing import capture


class Own(keras.Sequential):
    """Steps an optimizer as often as ``times`` says, batch by batch."""

    def follow(self, optimizer, times):
        self.stepped, self.times = optimizer, iter(times)
        return self

    def train_step(self, data):
        loss, gradients, weights = self.differentiate(*data)
        for _ in range(next(self.times)):
            self.stepped.apply(gradients, weights)
        return {"loss": loss}

    def differentiate(self, inputs, targets):
        weights = list(self.trainable_weights)
        if keras.backend.backend() == "torch":
            self.zero_grad()
            loss = self.compute_loss(inputs, targets, self(inputs, training=True))
            loss.backward()
            return loss.detach(), [weight.value.grad for weight in weights], weights
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = self.compute_loss(inputs, targets, self(inputs, training=True))
        return loss, tape.gradient(loss, [weight.value for weight in weights]), weights


def own(times, optimizer=None, rate=0.125):
    model = Own([keras.Input((3,)), keras.layers.Dense(1)], name="net")
    model.compile(keras.optimizers.SGD(rate), loss="mse", run_eagerly=True)
    return model.follow(optimizer or model.optimizer, times)


def totals(events):
    return {event.metadata["total_steps"] for event in events if event.event == STEP}


@check("torch", "tensorflow")
def batches_of_a_model_that_steps_another_optimizer_are_its_steps():
    events = fitted(own([1] * 6, keras.optimizers.SGD(0.5)), telling(), epochs=2)
    assert steps(events) == [1, 2, 3, 4, 5, 6]
    assert totals(events) == {6}
    assert set(events[2].measurements) == {"loss"}  # the rate is of an optimizer that is not used


@check("torch", "tensorflow")
def batches_that_are_not_each_a_step_count_themselves():
    for times in ([0, 1] * 3, [1, 0] * 3, [2] * 6, [1, 1, 1, 0, 1, 1]):
        events = fitted(own(times), telling(), epochs=2)
        assert steps(events) == [1, 2, 3, 4, 5, 6], times
        assert totals(events) == {6}
        assert values(events[-5:], "lr") == [0.125]


@check("tensorflow")
def rate_of_a_schedule_is_not_told_where_its_place_is_not_known():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    events = fitted(own([2] * 3, rate=schedule), telling())
    assert steps(events) == [1, 2, 3]
    assert set(events[2].measurements) == {"loss"}


@check()
def other_steps_between_those_of_the_fit_do_not_count():
    """``train_on_batch`` steps the optimizer too, out of sight of the fit."""

    class More(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.optimizer.iterations.assign_add(epoch)

    model = linear()
    events = fitted(model, telling(), More(), epochs=3)
    assert steps(events) == list(range(1, 10))
    assert totals(events) == {9}


@check("torch", "tensorflow")
def model_without_anything_to_train_is_told_batch_by_batch():
    import warnings

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, trainable=False)])
    model.compile("sgd", loss="mse")
    with capture() as events, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of Keras: there is nothing to train
        fit(model, telling(), epochs=2)
    assert steps(events) == [1, 2, 3, 4, 5, 6]

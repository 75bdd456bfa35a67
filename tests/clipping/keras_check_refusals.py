"""What the callback refuses."""

import warnings

import keras
import numpy as np
from keras_checking import check, refused
from keras_models import fit, linear, percentile

import clipping
from clipping.integrations.keras import ClipCallback


@check("torch")
def own_clipping_of_the_optimizer_is_refused():
    for option in ({"clipnorm": 1.0}, {"clipvalue": 0.5}, {"global_clipnorm": 2.0}):
        ((name, value),) = option.items()
        inner = keras.optimizers.SGD(0.1, **option)
        message = (
            f"SGD clips by itself ({name}={value}), on top of ClipCallback. Leave that out, or do "
            "without the callback."
        )
        for optimizer in (inner, keras.optimizers.LossScaleOptimizer(inner)):
            model = linear(optimizer)
            assert refused(ValueError, lambda m=model: fit(m, percentile())) == message
            assert all((w == 0).all() for w in model.get_weights())


@check("torch")
def second_callback_is_refused():
    model = linear()
    two = ClipCallback(percentile())
    assert refused(RuntimeError, lambda: fit(model, percentile(), two)) == (
        "A ClipCallback is active on this SGD, so its gradients would be clipped twice. "
        "Allowed: one in callbacks=[...]."
    )
    fit(model, clipper := percentile())
    assert clipper.state_dict()["steps"] == 30


@check("torch")
def several_optimizers_are_refused():
    chosen = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1))
    model = linear(keras.optimizers.MultiOptimizer(chosen))
    assert refused(ValueError, lambda: fit(model, percentile())) == (
        "ClipCallback clips for one optimizer, got MultiOptimizer. Allowed: a "
        "keras.optimizers.Optimizer that is no MultiOptimizer, or a LossScaleOptimizer of one."
    )


@check("torch")
def optimizer_that_never_asks_is_found_out():
    class Own(keras.optimizers.SGD):
        def _backend_apply_gradients(self, gradients, variables):
            self._backend_update_step(gradients, variables, self.learning_rate)

    assert refused(RuntimeError, lambda: fit(linear(Own(0.1)), percentile())) == (
        "Own steps without asking for its gradients to be clipped, so ClipCallback cannot. "
        "Allowed: Keras's optimizers, and subclasses that leave apply() as it is."
    )


@check("torch")
def model_that_does_not_fit_is_refused():
    model, clipper = linear(), percentile(scope="per_param")
    three = [np.ones(2)] * 3
    clipping.numpy.apply_grads(three, three, clipper)
    assert "history is of the groups" in refused(ValueError, lambda: fit(model, clipper))
    frozen = linear()
    frozen.trainable = False
    frozen.compile("sgd", loss="mse")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        message = refused(ValueError, lambda: fit(frozen, percentile()))
    assert message == (
        "Cannot clip a model without trainable variables, got 'net'. Add layers, or set "
        "trainable=True and compile again."
    )


@check("torch")
def mistakes_are_found_at_the_call():
    assert refused(TypeError, lambda: ClipCallback(3)).startswith("clipper must be a clipper")
    assert refused(TypeError, lambda: ClipCallback(on_metrics=3)).startswith("on_metrics must be")
    assert ClipCallback().clipper.mode == "auto"

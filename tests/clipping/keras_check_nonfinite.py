"""Gradients that are not finite, under every policy."""

import keras
import numpy as np
from keras_checking import check, refused, same
from keras_models import BATCH, INPUTS, NONFINITE, TARGETS, fit, linear, percentile

from telemetry.testing import capture


@check()
def non_finite_gradients_leave_finite_weights_and_history():
    inputs = INPUTS.copy()
    inputs[5 * BATCH] = np.nan
    policies = ("skip", "zero") if keras.backend.backend() == "torch" else ("zero",)
    for policy in policies:
        clipper, model = percentile(scope="per_param", on_nonfinite=policy), linear()
        with capture(NONFINITE) as events:
            fit(model, clipper, inputs=inputs)
        (event,) = events
        assert event.measurements["count"] == 2
        assert event.metadata["keys"] == (("param", "0"), ("param", "1"))
        assert (event.metadata["policy"], event.metadata["clipper_step"]) == (policy, 6)
        assert all(np.isfinite(w).all() for w in model.get_weights())
        assert np.isfinite(clipper.state_dict()["norms"]).all()


@check("torch")
def non_finite_gradients_go_through_if_asked():
    inputs = INPUTS.copy()
    inputs[5 * BATCH] = np.nan
    model = linear()
    fit(model, percentile(on_nonfinite="propagate"), inputs=inputs)
    assert not np.isfinite(model.get_weights()[0]).all()


@check()
def non_finite_gradients_raise_if_asked():
    inputs = INPUTS.copy()
    inputs[5 * BATCH] = np.inf
    clipper, model = percentile(on_nonfinite="raise"), linear()
    model.optimizer.build(model.trainable_variables)
    before = set(vars(model.optimizer))
    message = refused(FloatingPointError, lambda: fit(model, clipper, inputs=inputs))
    assert message == (
        "Gradients were not finite in 1 of 1 groups, [('global',)]: the model's gradient norm was "
        "nan. The step was made with zeros in place of all gradients; the history is untouched. "
        "on_nonfinite='raise' allows finite gradients only; to go on without such steps: "
        "on_nonfinite='skip'."
    )
    short = linear()
    fit(short, percentile(), inputs=INPUTS[: 5 * BATCH], targets=TARGETS[: 5 * BATCH])
    assert same(model, short)
    assert set(vars(model.optimizer)) <= before | {"clipper_state"}
    assert (clipper.state_dict()["steps"], clipper.state_dict()["counts"]) == (6, [5])

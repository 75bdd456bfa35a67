"""What functions return: tensors of several frameworks, metrics, numpy's gradients."""

from itertools import permutations

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import torch

from regularizers import RegularizerError, RegularizerSpec, custom_loss, penalties
from telemetry.testing import capture

TENSORS = {
    "torch": lambda: torch.tensor(2.0, requires_grad=True),
    "jax": lambda: jnp.array(2.0),
    "tensorflow": lambda: tf.constant(2.0),
}
NUMBERS = [2, 2.0, np.float32(2.0), np.array(2.0), np.array(2.0, np.float32), np.array(2)]


def returning(result):
    return lambda data, logprobs: result


def adding(base, *results, **options):
    specs = [RegularizerSpec(returning(result), 0.5, str(i)) for i, result in enumerate(results)]
    return custom_loss(None, np.ones(2), returning(base), regularizers=specs, **options)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(("base", "other"), list(permutations(TENSORS, 2)))
def test_tensors_of_two_frameworks_are_not_added(base, other, parallel):
    with capture() as events, pytest.raises(RegularizerError) as caught:
        adding(TENSORS[base](), 1.0, TENSORS[other](), parallel=parallel)
    assert list(caught.value.failures) == ["1"]
    assert f"cannot be added to tensors of {base}" in str(caught.value)
    ends = {e.metadata.get("regularizer_name"): e.event[-1] for e in events}
    assert ends == {"0": "stop", "1": "exception", None: "exception"}


def test_regularizers_of_two_frameworks_are_not_added_to_a_number():
    with pytest.raises(RegularizerError, match=r"'1' returned .* to tensors of torch"):
        adding(1.0, TENSORS["torch"](), TENSORS["jax"]())


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("number", NUMBERS, ids=repr)
def test_numbers_and_tensors_are_added_in_both_orders(name, number):
    for output in (adding(number, TENSORS[name]()), adding(TENSORS[name](), number)):
        assert type(output.loss) is type(TENSORS[name]())
        assert output.loss_total == 3.0


@pytest.mark.parametrize(
    "metric",
    [np.array("x"), np.array(None), np.array(1j), np.complex64(1j), torch.tensor(1j)],
    ids=repr,
)
def test_a_metric_that_is_no_real_number_is_refused(metric):
    with pytest.raises(TypeError, match=r"^base_loss_fn returned .* metric 'm'. A metric is a num"):
        custom_loss(None, [1.0], returning((1.0, {"m": metric})))


@pytest.mark.parametrize("metric", [True, np.bool_(1), torch.tensor(True), tf.constant(True)])  # noqa: FBT003 -- its value
def test_a_metric_may_be_a_bool(metric):
    assert custom_loss(None, [1.0], returning((1.0, {"m": metric}))).base_loss.custom == {"m": 1.0}


@pytest.mark.parametrize("gradient", [np.array(["1", "2"]), np.array([1j, 2]), np.array([{}, {}])])
def test_a_gradient_that_is_not_of_real_numbers_is_refused(gradient):
    def compute(logprobs, gradient):
        spec = RegularizerSpec(returning(1.0), 0.5, "a", grad_fn=returning(gradient))
        custom_loss(None, logprobs, penalties.l2, regularizers=[spec], track_grad_norms=True)

    with pytest.raises(RegularizerError) as caught:
        compute({"w": np.ones(2)}, {"w": gradient})
    assert str(caught.value.__cause__) == (
        "The gradient function of Regularizer 'a' returned numpy.ndarray of shape (2,) and dtype "
        f"{gradient.dtype} as gradient['w']. A gradient is of real numbers."
    )


def test_the_output_has_a_gradient_of_its_own():
    buffer = np.ones(2)
    output = custom_loss(
        None, np.ones(2), returning(1.0), base_grad_fn=returning(buffer), track_grad_norms=True
    )
    buffer[:] = 7.0
    np.testing.assert_array_equal(output.grad, [1.0, 1.0])

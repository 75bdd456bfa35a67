"""What the penalties refuse of the tensors that they are handed."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import torch

from regularizers import RegularizerError, RegularizerSpec, custom_loss, penalties

TENSORS = {"numpy": np.array, "torch": torch.tensor, "jax": jnp.array, "tensorflow": tf.constant}
COMPARING = [penalties.kl_divergence, penalties.consistency]
ALL = [
    *COMPARING,
    penalties.l1,
    penalties.l2,
    penalties.elastic_net,
    penalties.entropy,
    penalties.orthogonality,
    partial(penalties.gradient_penalty, function=lambda data, x: x * x),
]


def name_of(penalty):
    return getattr(penalty, "func", penalty).__name__


def both(penalty):
    """The value, and the gradient with the same options."""
    if isinstance(penalty, partial):
        return penalty, partial(penalty.func.grad, **penalty.keywords)
    return penalty, penalty.grad


@pytest.mark.parametrize("penalty", ALL, ids=name_of)
@pytest.mark.parametrize("framework", TENSORS)
def test_complex_numbers_are_refused(framework, penalty):
    complex_ones = TENSORS[framework]([[3.0 + 4.0j, 1.0 + 0.0j]])
    for function in both(penalty):
        with pytest.raises(TypeError, match=f"^{name_of(penalty)} got .*complex.* real numbers"):
            function(complex_ones, complex_ones)


@pytest.mark.parametrize("penalty", COMPARING, ids=name_of)
def test_a_complex_reference_is_refused(penalty):
    with pytest.raises(TypeError) as caught:
        penalty(torch.tensor([1j]), torch.ones(1))
    assert str(caught.value) == (
        f"{name_of(penalty)} got torch.Tensor of shape (1,) and dtype torch.complex64. It takes "
        "real numbers; of complex ones hand over the absolute values, or the real and the "
        "imaginary parts."
    )


@pytest.mark.parametrize("penalty", [penalties.entropy, penalties.kl_divergence], ids=name_of)
@pytest.mark.parametrize("framework", TENSORS)
def test_one_outcome_is_no_distribution(framework, penalty):
    """Two numbers in a list are two leaves, and would be two distributions."""
    fair_coin = [TENSORS[framework](-0.7), TENSORS[framework](-0.7)]
    for function in both(penalty):
        with pytest.raises(ValueError, match="outcomes") as caught:
            function(fair_coin, fair_coin)
        assert str(caught.value) == (
            f"{name_of(penalty)} got logprobs[0] of shape (). It takes distributions, or stacks of "
            "them: tensors of one axis or more, of which the last has the outcomes."
        )


def test_python_numbers_are_no_distribution():
    with pytest.raises(ValueError, match=r"^entropy got logprobs\['a'\] of shape \(\)\. It takes"):
        penalties.entropy(None, {"a": -0.7})


def test_a_graph_that_does_not_know_how_many_axes_there_are_is_not_refused():
    function = tf.function(
        lambda x: penalties.entropy(None, x), input_signature=[tf.TensorSpec(None, tf.float32)]
    )
    assert function(tf.constant([0.0, -np.inf])).numpy() == 0.0


@pytest.mark.parametrize("penalty", COMPARING, ids=name_of)
@pytest.mark.parametrize("theirs", ["torch", "jax", "tensorflow"])
@pytest.mark.parametrize("ours", TENSORS)
def test_a_reference_of_another_framework_is_refused(ours, theirs, penalty):
    logprobs, data = TENSORS[ours]([-0.5, -0.5]), {"r": TENSORS[theirs]([-0.5, -0.5])}
    for function in both(penalty):
        if ours == theirs:
            function(data, logprobs, reference="r")
            continue
        with pytest.raises(TypeError, match="differ") as caught:
            function(data, logprobs, reference="r")
        assert str(caught.value) == (
            f"{name_of(penalty)} compares logprobs with data['r'], but the frameworks differ: "
            f"{theirs}, where logprobs has {ours}. Convert it first; no gradient flows from one "
            "framework to another."
        )


def test_no_gradient_is_lost_to_another_framework_in_a_loss():
    """With a reference of torch the loss was one, and TensorFlow's tape knew nothing of it."""
    logprobs = tf.Variable([3.0, 4.0])
    spec = RegularizerSpec(partial(penalties.consistency, reference="r"), 0.5, "near")

    def run(reference):
        with tf.GradientTape() as tape:
            loss = custom_loss({"r": reference}, logprobs, penalties.l1, regularizers=[spec]).loss
        return tape.gradient(loss, logprobs).numpy().tolist()

    assert run(np.zeros(2)) == [1.0 + 3.0, 1.0 + 4.0]
    with pytest.raises(RegularizerError, match=r"'near' failed: .*the frameworks differ: torch"):
        run(torch.zeros(2))


@pytest.mark.parametrize("ours", TENSORS)
def test_plain_numbers_and_arrays_of_numpy_are_converted(ours):
    """By hand: (3 - 1)^2 and (4 - 1)^2, in the framework of logprobs."""
    logprobs = [TENSORS[ours](3.0), TENSORS[ours](4.0)]
    for reference in ([1.0, 1], [np.float64(1.0), np.array(1.0)]):
        value = penalties.consistency(reference, logprobs)
        assert float(value) == 13.0
        if ours != "numpy":
            assert type(value) is type(logprobs[0])


@pytest.mark.parametrize("reference", [True, False])
@pytest.mark.parametrize("penalty", COMPARING, ids=name_of)
def test_true_and_false_are_no_index(penalty, reference):
    for function in both(penalty):
        with pytest.raises(TypeError) as caught:
            function([np.zeros(2), np.ones(2)], np.zeros(2), reference=reference)
        assert str(caught.value) == (
            f"{name_of(penalty)} got reference={reference} (bool). reference is a key of data, a "
            "function of it, or None for data itself."
        )

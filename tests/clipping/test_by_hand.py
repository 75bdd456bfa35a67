from types import SimpleNamespace

import numpy as np
import pytest

import clipping

ALLOWED = (
    "Allowed: a torch.nn.Module, or an object whose parameters() gives trainable torch tensors or "
    "objects with NumPy arrays .data and .grad."
)


def test_apply_scales_every_gradient_by_the_same_factor(kit, percentile):
    clipper = percentile(50.0)
    model = kit.model(np.zeros(2), np.zeros((1, 2)), np.zeros(1))
    kit.set_grads(model, [1.0, 2.0], [[2.0, 4.0]], None)
    assert clipping.apply(model, clipper) is model
    kit.set_grads(model, [3.0, 6.0], [[6.0, 12.0]], None)
    clipping.apply(model, clipper)
    # Norms 5 and 15: the median is 10, so the factor is 10 / 15.
    first, second, third = kit.grads(model)
    assert first == pytest.approx([2.0, 4.0])
    assert second == pytest.approx(np.array([[4.0, 8.0]]))
    assert third is None


def test_gradient_below_the_threshold_is_left_bit_for_bit(kit, percentile):
    clipper = percentile(100.0)
    model = kit.model(np.zeros(3))
    grads = np.random.default_rng(0).normal(size=3)
    kit.set_grads(model, grads)
    clipping.apply(model, clipper)
    assert kit.grads(model)[0].tolist() == grads.tolist()


def test_zero_gradients_stay_zeros(kit, percentile):
    clipper = percentile(50.0)
    model = kit.model(np.zeros(2))
    for _ in range(3):
        kit.set_grads(model, [0.0, 0.0])
        clipping.apply(model, clipper)
    assert kit.grads(model)[0].tolist() == [0.0, 0.0]
    assert clipper.threshold_any() == 0.0


def test_empty_and_scalar_gradients_count_as_what_they_are(kit, percentile):
    clipper = percentile(50.0)
    model = kit.model(np.zeros((0, 3)), np.zeros(()))
    kit.set_grads(model, np.zeros((0, 3)), 3.0)
    clipping.apply(model, clipper)
    assert clipper.threshold_any() == 3.0


def test_step_clips_then_steps(kit, percentile):
    clipper = percentile(50.0)
    model = kit.model(np.array([10.0]))
    optimizer = kit.sgd(model, 1.0)
    for grad in (1.0, 3.0):
        kit.set_grads(model, [grad])
        clipping.step(model, optimizer, clipper)
    # The second gradient, 3, is cut to the median of 1 and 3.
    assert kit.weights(model)[0] == pytest.approx([10.0 - 1.0 - 2.0])


def test_step_returns_what_the_optimizer_returns(kit):
    model = kit.model(np.zeros(1))
    kit.set_grads(model, [1.0])
    optimizer = SimpleNamespace(step=lambda: 0.25)
    assert clipping.step(model, optimizer, clipping.AutoClip()) == 0.25


def test_optimizer_without_step_is_refused(kit):
    model = kit.model(np.zeros(1))
    kit.set_grads(model, [1.0])
    with pytest.raises(TypeError) as refused:
        clipping.step(model, 3, clipping.AutoClip())
    assert str(refused.value) == (
        "optimizer must have a step() method, got 3 (int). "
        "The order is clipping.step(model, optimizer, clipper)."
    )


@pytest.mark.parametrize(
    ("clipper", "shown", "kind", "hint"),
    [
        (0.5, "0.5", "float", ""),
        (None, "None", "NoneType", ""),
        (
            clipping.AutoClip,
            repr(clipping.AutoClip),
            "ABCMeta",
            " That is the class; write clipping.AutoClip().",
        ),
    ],
)
def test_what_is_no_clipper_is_refused(kit, clipper, shown, kind, hint):
    model = kit.model(np.zeros(1))
    with pytest.raises(TypeError) as refused:
        clipping.apply(model, clipper)
    assert str(refused.value) == (
        f"clipper must be a clipper, such as clipping.AutoClip(), got {shown} ({kind}).{hint}"
    )


def test_model_without_gradients_is_refused(kit, percentile):
    clipper = percentile(50.0)
    model = kit.model(np.zeros(1))
    what = {"numpy": "SimpleNamespace whose parameters", "torch": "Module whose parameters"}
    hint = {"numpy": "Set the gradients first.", "torch": "Call loss.backward() first."}
    with pytest.raises(ValueError, match="without gradients") as refused:
        clipping.apply(model, clipper)
    assert str(refused.value) == (
        f"Cannot clip a model without gradients, got {what[kit.name]} all have .grad None. "
        f"{hint[kit.name]}"
    )
    assert clipper.state_dict()["steps"] == 0


def test_model_without_parameters_is_refused(kit):
    model = kit.model()
    with pytest.raises(ValueError, match="no parameters") as refused:
        clipping.apply(model, clipping.AutoClip())
    assert str(refused.value) == (
        f"Cannot clip a model that has no parameters, got {type(model).__name__}. {ALLOWED}"
    )


@pytest.mark.parametrize("model", [3, [np.zeros(1)], SimpleNamespace], ids=repr)
def test_what_is_no_model_is_refused(model):
    with pytest.raises(TypeError) as refused:
        clipping.apply(model, clipping.AutoClip())
    assert str(refused.value) == (
        f"Cannot clip a model without parameters(), got {model!r} ({type(model).__name__}). "
        f"{ALLOWED} For bare gradients: apply_grads of clipping.torch, clipping.jax, "
        "clipping.tensorflow or clipping.numpy. For Keras: clipping.integrations.keras."
    )


def test_parameters_of_an_unknown_framework_are_refused():
    model = SimpleNamespace(parameters=lambda: iter([1.5]))
    with pytest.raises(TypeError) as refused:
        clipping.apply(model, clipping.AutoClip())
    assert str(refused.value) == (
        "Cannot clip the parameters of SimpleNamespace: the first is 1.5 (builtins.float). "
        f"{ALLOWED}"
    )

import collections
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

import clipping


class Pair(NamedTuple):
    w: object
    b: object


def test_structure_types_and_order_are_kept(halving):
    grads = {
        "z": [np.array([1.0]), None],
        "a": Pair(np.array([[1.0, 1.0]], np.float32), (np.float64(1.0), np.array(0.0))),
        "empty": {},
    }
    params = {
        "a": Pair(np.zeros((1, 2)), (0.0, np.zeros(()))),
        "empty": {},
        "z": [np.zeros(1), np.zeros(4)],
    }
    clipped = clipping.numpy.apply_grads(grads, params, halving)
    assert list(clipped) == ["z", "a", "empty"]
    assert clipped["z"][0] == pytest.approx(0.5)
    assert clipped["z"][1] is None
    assert type(clipped["a"]) is Pair
    assert clipped["a"].w.dtype == np.float32
    assert clipped["a"].w == pytest.approx(np.array([[0.5, 0.5]]))
    assert type(clipped["a"].b) is tuple
    assert [type(leaf) for leaf in clipped["a"].b] == [np.float64, np.ndarray]
    assert clipped["a"].b[0] == pytest.approx(0.5)


def test_input_is_not_written_to_nor_shared(halving):
    grads = collections.OrderedDict(w=np.array([2.0, 0.0]))
    calm = collections.OrderedDict(w=np.array([0.5, 0.0]))
    for given in (grads, calm):
        before = given["w"].tolist()
        given["w"].flags.writeable = False
        clipped = clipping.numpy.apply_grads(given, {"w": np.zeros(2)}, halving)
        assert type(clipped) is collections.OrderedDict
        assert not np.shares_memory(clipped["w"], given["w"])
        clipped["w"] += 1
        assert given["w"].tolist() == before


def test_half_precision_is_scaled_in_a_wider_one():
    clipper = clipping.AutoClip(mode="percentile", percentile=1e-9, warmup_steps=0, min_history=1)
    clipping.numpy.apply_grads(np.array([1e-6]), np.zeros(1), clipper)
    (clipped,) = clipping.numpy.apply_grads([np.array([100.0], np.float16)], [np.zeros(1)], clipper)
    # The factor 1e-8 is 0 in float16, the result is not: it rounds to the multiple of 2**-24.
    assert clipped.dtype == np.float16
    assert clipped[0] == np.float16(1e-6) > 0


def test_norm_is_accumulated_in_float64():
    clipper = clipping.AutoClip(mode="percentile")
    clipping.numpy.apply_grads(np.full(10_000, 100.0, np.float16), np.zeros(10_000), clipper)
    assert clipper.threshold_any() == 10_000.0
    clipper = clipping.AutoClip(mode="percentile")
    clipping.numpy.apply_grads(np.full(2, 3e30, np.float32), np.zeros(2), clipper)
    assert clipper.threshold_any() == pytest.approx(3e30 * np.sqrt(2), rel=1e-6)


def test_complex_gradients_have_their_modulus(halving):
    clipped = clipping.numpy.apply_grads(np.array([1.2 + 1.6j]), np.zeros(1), halving)
    assert clipped == pytest.approx(np.array([0.6 + 0.8j]))


def test_norm_that_overflows_counts_as_infinite():
    clipped = clipping.numpy.apply_grads(np.array([1e200]), np.zeros(1), clipping.AutoClip())
    assert clipped.tolist() == [0.0]


@pytest.mark.parametrize(
    ("grads", "path", "shown", "kind"),
    [
        ({"w": [1.0]}, "['w'][0]", "1.0", "float"),
        ({"w": np.array([1])}, "['w']", "array([1])", "int64"),
        ([np.array(["a"])], "[0]", "array(['a'], dtype='<U1')", "<U1"),
        ("grads", "", "'grads'", "str"),
    ],
)
def test_what_is_no_gradient_is_refused(grads, path, shown, kind):
    with pytest.raises(TypeError) as refused:
        clipping.numpy.apply_grads(grads, grads, clipping.AutoClip())
    assert str(refused.value) == (
        f"The gradient grads{path} must be a NumPy array of floating-point or complex numbers, "
        f"got {shown} ({kind}). The gradients are untouched."
    )


def test_tree_that_does_not_match_is_refused():
    one = np.zeros(1)
    with pytest.raises(ValueError, match="does not match") as refused:
        clipping.numpy.apply_grads(
            {"w": one, "b": [one]}, {"w": one, "b": [one, one], "c": one}, clipping.AutoClip()
        )
    assert str(refused.value) == (
        "The tree of the gradients does not match that of the parameters: only gradients have [], "
        "only parameters [\"['b'][1]\", \"['c']\"]. The gradients are untouched."
    )


def test_shape_that_does_not_match_is_refused():
    with pytest.raises(ValueError, match="has shape") as refused:
        clipping.numpy.apply_grads({"w": np.zeros((3, 4))}, {"w": np.zeros(3)}, clipping.AutoClip())
    assert str(refused.value) == (
        "The gradient grads['w'] has shape (3, 4), its parameter (3,). "
        "They must be equal; the gradients are untouched."
    )


@pytest.mark.parametrize("grads", [{}, [None], ()])
def test_tree_without_gradients_is_refused(grads):
    with pytest.raises(ValueError, match="no gradient") as refused:
        clipping.numpy.apply_grads(grads, grads, clipping.AutoClip())
    assert str(refused.value) == (
        f"There is no gradient to clip in {grads!r}. Give at least one array."
    )


def test_read_only_gradient_of_a_model_is_replaced(halving):
    grad = np.array([2.0])
    grad.flags.writeable = False
    parameter = SimpleNamespace(data=np.zeros(1), grad=grad)
    clipping.apply(SimpleNamespace(parameters=lambda: [parameter]), halving)
    assert parameter.grad == pytest.approx([1.0])
    assert grad.tolist() == [2.0]


def test_writable_gradient_of_a_model_is_scaled_in_place(halving):
    grad = np.array([2.0])
    parameter = SimpleNamespace(data=np.zeros(1), grad=grad)
    clipping.apply(SimpleNamespace(parameters=lambda: [parameter]), halving)
    assert parameter.grad is grad
    assert grad == pytest.approx([1.0])


def test_shared_parameter_counts_once(halving):
    parameter = SimpleNamespace(data=np.zeros(1), grad=np.array([2.0]))
    clipping.apply(SimpleNamespace(parameters=lambda: [parameter, parameter]), halving)
    assert parameter.grad == pytest.approx([1.0])


def test_gradient_of_another_shape_than_its_parameter_is_refused():
    parameter = SimpleNamespace(data=np.zeros(3), grad=np.zeros((1, 3)))
    with pytest.raises(ValueError, match="has shape") as refused:
        clipping.apply(SimpleNamespace(parameters=lambda: [parameter]), clipping.AutoClip())
    assert str(refused.value) == (
        "A parameter's .grad has shape (1, 3), its .data (3,). "
        "They must be equal; the gradients are untouched."
    )


def test_gradient_of_a_model_that_is_no_array_is_refused():
    parameter = SimpleNamespace(data=np.zeros(1), grad=[1.0])
    with pytest.raises(TypeError) as refused:
        clipping.apply(SimpleNamespace(parameters=lambda: [parameter]), clipping.AutoClip())
    assert str(refused.value) == (
        "A parameter's .grad must be a NumPy array of floating-point or complex numbers, "
        "got [1.0] (list). The gradients are untouched."
    )


def numpy_model():
    parameter = SimpleNamespace(data=np.zeros(1), grad=np.array([1.0]))
    return SimpleNamespace(parameters=lambda: [parameter])


class Slotted:
    __slots__ = ()

    def step(self):
        return "stepped"


def test_optimizer_that_takes_no_attributes_is_refused():
    with pytest.raises(TypeError) as refused, clipping.clip_context(numpy_model(), Slotted()):
        pass
    assert str(refused.value) == (
        "The step method of Slotted cannot be wrapped: 'Slotted' object attribute 'step' is "
        "read-only. Call clipping.step(model, optimizer, clipper) instead of optimizer.step()."
    )


def test_step_takes_and_returns_what_it_did():
    optimizer = SimpleNamespace(step=lambda *args, **kwargs: (args, kwargs))
    before = optimizer.step
    with clipping.clip_context(numpy_model(), optimizer):
        assert optimizer.step is not before
        assert optimizer.step(1, lr=0.1) == ((1,), {"lr": 0.1})
    assert optimizer.step is before


def test_wrapper_that_was_put_on_top_stays_and_no_longer_clips():
    optimizer = SimpleNamespace(step=lambda: "stepped")
    with clipping.clip_context(numpy_model(), optimizer) as clipper:
        ours = optimizer.step

        def theirs():
            return ours()

        optimizer.step = theirs
        optimizer.step()
    assert optimizer.step is theirs
    assert optimizer.step() == "stepped"
    assert clipper.state_dict()["steps"] == 1

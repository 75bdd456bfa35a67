import pickle
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import torch
from hypothesis import given
from hypothesis import strategies as st

from regularizers import RegularizerError, RegularizerSpec, custom_loss, penalties
from telemetry.testing import capture


def total(data, logprobs):
    return logprobs.sum()


def boom(data, logprobs):
    raise KeyError("mask")


def returning(result):
    return lambda data, logprobs: result


def failure_of(result, **options):
    """The message for a regularizer that returns this."""
    spec = RegularizerSpec(returning(result), 1.0, "bad")
    with pytest.raises(RegularizerError) as caught:
        custom_loss(None, [1.0], returning(1.0), regularizers=[spec], **options)
    return type(caught.value.__cause__), str(caught.value.__cause__)


def test_a_failing_regularizer_is_named_and_chained():
    with pytest.raises(RegularizerError) as caught:
        custom_loss(
            None, [1.0], returning(1.0), regularizers=[RegularizerSpec(boom, 1.0, "sparsity")]
        )
    assert str(caught.value) == "Regularizer 'sparsity' failed: KeyError('mask')."
    assert isinstance(caught.value.__cause__, KeyError)
    assert list(caught.value.failures) == ["sparsity"]


def test_several_failing_regularizers_are_all_named_and_chained():
    specs = [
        RegularizerSpec(boom, 1.0, "a"),
        RegularizerSpec(returning(1.0), 1.0, "b"),
        RegularizerSpec(lambda d, x: 1 / 0, 1.0, "c"),
    ]
    with pytest.raises(RegularizerError) as caught:
        custom_loss(None, [1.0], returning(1.0), regularizers=specs)
    assert str(caught.value) == (
        "Regularizer 'a' failed: KeyError('mask'). "
        "Regularizer 'c' failed: ZeroDivisionError('division by zero')."
    )
    cause = caught.value.__cause__
    assert isinstance(cause, ExceptionGroup)
    assert list(cause.exceptions) == list(caught.value.failures.values())


def test_a_regularizer_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(RegularizerError({"a": KeyError("mask")})))  # noqa: S301 -- our own bytes
    assert str(error) == "Regularizer 'a' failed: KeyError('mask')."


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("text", "returned 'text' (str)"),
        (None, "returned None (NoneType)"),
        (1j, "returned 1j (complex)"),
        ((1.0, {}, {}), "returned (1.0, {}, {}) (tuple)"),
        ((1.0, [2.0]), "returned (1.0, [2.0]) (tuple)"),
        ([1.0], "returned [1.0] (list)"),
    ],
)
def test_a_result_that_is_no_scalar_is_refused(result, message):
    assert failure_of(result) == (
        TypeError,
        (
            f"Regularizer 'bad' {message}. "
            "Allowed: a scalar, or a pair of a scalar and a dict of metrics."
        ),
    )


@pytest.mark.parametrize(
    ("result", "shape"),
    [
        (np.ones(3), "numpy.ndarray of shape (3,) and dtype float64"),
        (np.ones((1, 1)), "numpy.ndarray of shape (1, 1) and dtype float64"),
        (torch.ones(3), "torch.Tensor of shape (3,) and dtype torch.float32"),
        (torch.ones(1), "torch.Tensor of shape (1,) and dtype torch.float32"),
        ((torch.ones(0), {}), "torch.Tensor of shape (0,) and dtype torch.float32"),
    ],
)
def test_a_result_with_dimensions_is_refused(result, shape):
    assert failure_of(result) == (
        ValueError,
        (
            f"Regularizer 'bad' returned {shape}. "
            "A loss is a scalar, of shape (): reduce it, with .sum() or .mean()."
        ),
    )


NOT_REAL = {
    "numpy": [np.array(1j), np.complex64(1j), np.array("a"), np.bool_(True)],  # noqa: FBT003 -- its value
    "torch": [torch.tensor(1j), torch.tensor(True)],  # noqa: FBT003 -- its value
    "jax": [jnp.array(1j), jnp.array(True), jax.random.key(0)],  # noqa: FBT003 -- its value
    "tensorflow": [tf.constant(1j), tf.constant("a"), tf.Variable(True)],  # noqa: FBT003 -- its value
    "python": [True],
}


@pytest.mark.parametrize("result", [pair for pair in NOT_REAL.values() for pair in pair])
def test_a_loss_that_is_no_real_number_is_refused(result):
    kind, message = failure_of(result)
    shown = f"dtype {result.dtype}" if hasattr(result, "dtype") else "True (bool)"
    assert kind is TypeError
    assert message.startswith("Regularizer 'bad' returned ")
    assert message.endswith(f"{shown}. A loss is a real number, a float or an integer.")
    with pytest.raises(TypeError, match=r"^base_loss_fn returned .* A loss is a real number"):
        custom_loss(None, [1.0], returning(result))


def test_a_complex_loss_is_refused_before_it_is_differentiated():
    for x, turned in (
        (torch.ones(2, requires_grad=True), lambda data, x: x[0] * 1j),
        (jnp.ones(2), lambda data, x: x[0] * 1j),
        (tf.ones(2), lambda data, x: tf.complex(x[0], x[0])),
    ):
        with pytest.raises(TypeError, match=r"dtype .*complex.* A loss is a real number"):
            custom_loss(None, x, turned, track_grad_norms=True)


def test_a_base_loss_with_dimensions_is_refused(framework):
    with pytest.raises(ValueError, match=r"^base_loss_fn returned .* of shape \(2,\) and dtype"):
        custom_loss(None, framework.tensor([1.0, 2.0]), lambda data, logprobs: logprobs)


def test_a_metric_that_is_no_number_is_refused():
    assert failure_of((1.0, {"note": "text"})) == (
        TypeError,
        (
            "Regularizer 'bad' returned 'text' (str) as the metric 'note'. "
            "A metric is a number, or an array or tensor of shape ()."
        ),
    )


def test_a_metric_with_dimensions_is_refused():
    assert failure_of((1.0, {"all": np.ones(2)})) == (
        TypeError,
        (
            "Regularizer 'bad' returned numpy.ndarray of shape (2,) and dtype float64 as the "
            "metric 'all'. A metric is a number, or an array or tensor of shape ()."
        ),
    )


def test_a_metric_without_a_name_is_refused():
    assert failure_of((1.0, {3: 1.0})) == (
        TypeError,
        "Regularizer 'bad' returned a metric named 3 (int). A metric's name is a string.",
    )


@pytest.mark.parametrize(
    ("function", "returned"),
    [
        (lambda d, x: x.detach().sum(), "torch.Tensor of shape () and dtype torch.float32"),
        (lambda d, x: x.sum().item(), "2.0 (float)"),
        (lambda d, x: (x > 0).sum(), "torch.Tensor of shape () and dtype torch.int64"),
    ],
    ids=["detached", "number", "count"],
)
def test_a_function_that_cannot_be_differentiated_is_refused_when_tracking(function, returned):
    """Never reported as a norm of 0."""
    x = torch.ones(2, requires_grad=True)
    spec = RegularizerSpec(function, 1.0, "flat")
    with capture(("regularizer", "**")) as events, pytest.raises(RegularizerError) as caught:
        custom_loss(None, x, total, regularizers=[spec], track_grad_norms=True)
    assert str(caught.value.__cause__) == (
        f"track_grad_norms=True, but Regularizer 'flat' returned {returned}, through which torch "
        "cannot differentiate. Return a tensor computed from tensors that require grad, without "
        "detach(), item() or torch.no_grad(), or call with track_grad_norms=False."
    )
    assert events[-1].event == ("regularizer", "compute", "exception")
    assert "grad_norm" not in events[-1].measurements
    assert custom_loss(None, x, total, regularizers=[spec]).loss_total == 4.0


def test_logprobs_that_do_not_require_grad_are_refused_when_tracking():
    with capture() as events, pytest.raises(ValueError, match="requires grad") as caught:
        custom_loss(None, {"a": torch.ones(2), "b": 3.0}, total, track_grad_norms=True)
    assert str(caught.value) == (
        "track_grad_norms=True, but of the tensors that gradients would be taken by (1) none "
        "requires grad. Call logprobs.requires_grad_() before the call, or give the parameters: "
        "wrt=model.parameters()."
    )
    assert events == []


def test_a_tree_without_tensors_is_refused_when_tracking():
    with pytest.raises(ValueError, match="no tensor") as caught:
        custom_loss(None, {"a": None}, total, track_grad_norms=True)
    assert str(caught.value) == (
        "track_grad_norms=True, but there is no tensor to take gradients by in {'a': None}. "
        "Give logprobs, or the parameters: wrt=model.parameters()."
    )


def test_a_leaf_that_is_no_tensor_is_refused_when_tracking():
    with pytest.raises(TypeError) as caught:
        custom_loss(None, [np.ones(2), "text"], total, track_grad_norms=True)
    assert str(caught.value) == (
        "Found 'text' (str) among the tensors. Allowed: tensors of torch, jax, tensorflow, numpy, "
        "numbers, and dicts, lists and tuples of them."
    )


def test_numpy_needs_gradient_functions():
    specs = [RegularizerSpec(total, 1.0, "a"), RegularizerSpec(penalties.l1, 1.0, "b")]
    with capture() as events, pytest.raises(ValueError, match="does not differentiate") as caught:
        custom_loss(None, np.ones(2), total, regularizers=specs, track_grad_norms=True)
    assert str(caught.value) == (
        "track_grad_norms=True, but numpy does not differentiate, and no gradient was given for: "
        "base_loss_fn, Regularizer 'a'. Give base_grad_fn= to custom_loss and grad_fn= to each "
        "RegularizerSpec, functions of (data, logprobs) that return the gradient by logprobs, or "
        "call with track_grad_norms=False."
    )
    assert events == []


def test_numpy_takes_gradients_by_logprobs_only():
    with pytest.raises(ValueError, match="Leave wrt out") as caught:
        custom_loss(None, np.ones(2), penalties.l1, track_grad_norms=True, wrt=[np.ones(3)])
    assert str(caught.value) == (
        "wrt= was given numpy arrays, but numpy does not differentiate. "
        "Leave wrt out: the gradient functions return the gradient by logprobs."
    )


def test_a_gradient_of_the_wrong_shape_is_refused():
    spec = RegularizerSpec(total, 1.0, "a", grad_fn=lambda data, logprobs: 1.0)
    with pytest.raises(RegularizerError) as caught:
        custom_loss(None, np.ones(2), penalties.l1, regularizers=[spec], track_grad_norms=True)
    assert str(caught.value.__cause__) == (
        "The gradient function of Regularizer 'a' returned arrays of shapes (). "
        "It returns one array for each of logprobs, of the same shape: (2,)."
    )


def test_a_gradient_with_a_leaf_missing_is_refused():
    tree = {"w": np.ones(2), "b": [np.ones(())]}
    with pytest.raises(ValueError, match="gradient function") as caught:
        custom_loss(
            None,
            tree,
            returning(1.0),
            track_grad_norms=True,
            base_grad_fn=lambda data, logprobs: {"w": np.ones(2)},
        )
    assert str(caught.value) == (
        "The gradient function of base_loss_fn returned arrays of shapes ['w'] (2,). "
        "It returns one array for each of logprobs, of the same shape: ['w'] (2,), ['b'][0] ()."
    )


def test_gradients_are_matched_by_key_and_not_by_order():
    tree = {"w": np.ones(2), "b": np.ones(3)}
    output = custom_loss(
        None,
        tree,
        returning(1.0),
        track_grad_norms=True,
        base_grad_fn=lambda data, logprobs: {"b": np.zeros(3), "w": np.array([3.0, 4.0])},
    )
    assert output.base_loss.grad_norm == 5.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"base_loss_fn": 3},
            (
                "custom_loss got base_loss_fn=3 (int), which cannot be called. "
                "base_loss_fn is a function of (data, logprobs)."
            ),
        ),
        (
            {"base_grad_fn": 3},
            (
                "custom_loss got base_grad_fn=3 (int), which cannot be called. "
                "base_grad_fn is a function of (data, logprobs)."
            ),
        ),
        (
            {"regularizers": 3},
            (
                "custom_loss got regularizers=3 (int). "
                "It takes a list: [RegularizerSpec(fn=..., weight=..., name=...)]."
            ),
        ),
        (
            {"regularizers": [{"weight": 1}]},
            (
                "custom_loss got {'weight': 1} (dict) among its regularizers. "
                "Each is a RegularizerSpec(fn=..., weight=..., name=...)."
            ),
        ),
    ],
    ids=["base_loss_fn", "base_grad_fn", "regularizers", "a regularizer"],
)
def test_arguments_of_a_wrong_type_are_refused(arguments, message):
    with capture() as events, pytest.raises(TypeError) as caught:
        custom_loss(None, [1.0], **{"base_loss_fn": returning(1.0), **arguments})
    assert str(caught.value) == message
    assert events == []


def test_a_base_loss_function_of_the_wrong_arity_is_refused():
    def lonely(logprobs):
        return logprobs

    with pytest.raises(TypeError) as caught:
        custom_loss(None, [1.0], lonely)
    assert str(caught.value) == (
        f"custom_loss got base_loss_fn={lonely!r} with signature (logprobs), which cannot take the "
        "two arguments (data, logprobs): too many positional arguments."
    )


def test_a_name_used_twice_is_refused():
    spec = RegularizerSpec(penalties.l1, 1.0, "l1")
    with pytest.raises(ValueError, match="'l1'") as caught:
        custom_loss(None, [1.0], returning(1.0), regularizers=[spec, spec])
    assert str(caught.value) == (
        "custom_loss got two regularizers with the name 'l1'. "
        "Each needs a name of its own, because the output is keyed by it."
    )


OUTCOMES = {
    "fine": lambda data, logprobs: logprobs.sum(),
    "raises": boom,
    "array": lambda data, logprobs: logprobs,
    "interrupts": lambda data, logprobs: (_ for _ in ()).throw(KeyboardInterrupt()),
    "leaves": lambda data, logprobs: (_ for _ in ()).throw(GeneratorExit()),
}


@given(
    base=st.sampled_from(sorted(OUTCOMES)),
    regularizers=st.lists(st.sampled_from(sorted(OUTCOMES)), max_size=5),
    track=st.booleans(),
)
def test_every_span_that_starts_ends_once(base, regularizers, track):
    specs = [
        RegularizerSpec(OUTCOMES[outcome], 1.0, f"{index}")
        for index, outcome in enumerate(regularizers)
    ]
    x = torch.ones(2, requires_grad=True)
    with capture() as events:
        try:
            custom_loss(None, x, OUTCOMES[base], regularizers=specs, track_grad_norms=track)
        except BaseException as error:  # the point is what was emitted
            last = error
        else:
            last = None
    starts, ends = Counter(), Counter()
    for event, _, metadata in events:
        counter = starts if event[-1] == "start" else ends
        counter[metadata["telemetry_span_context"].span_id] += 1
    assert starts == ends
    assert set(starts.values()) == {1}
    assert events[-1].event == ("custom_loss", "stop" if last is None else "exception")
    assert (last is None) == ({base, *regularizers} == {"fine"})

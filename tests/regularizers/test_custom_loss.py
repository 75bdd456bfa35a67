"""`CustomLoss`, the object for loops."""

import copy
import math
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from regularizers import (
    CustomLoss,
    RegularizerError,
    RegularizerSpec,
    custom_loss,
    penalties,
    schedules,
)
from telemetry.testing import capture


def base(data, logprobs):
    return 1.0


def by_step(step):
    return step


def loss_by_step(**options):
    """Its regularizer's weight is the step."""
    return CustomLoss(base, [RegularizerSpec(penalties.l1, by_step, "step")], **options)


def step_of(output):
    return output.regularizers["step"].weight


def test_it_counts_its_calls_from_zero():
    loss = loss_by_step()
    assert loss.step == 0
    assert [step_of(loss([], [1.0])) for _ in range(4)] == [0, 1, 2, 3]
    assert loss.step == 4


def test_a_step_that_is_told_goes_on_from_there():
    loss = loss_by_step()
    loss([], [1.0])
    assert step_of(loss([], [1.0], step=100)) == 100
    assert step_of(loss([], [1.0])) == 101
    assert step_of(loss([], [1.0], step=7)) == 7
    assert loss.step == 8


def test_the_step_can_be_set():
    loss = loss_by_step()
    loss.step = 1000
    assert [step_of(loss([], [1.0])) for _ in range(2)] == [1000, 1001]


@pytest.mark.parametrize(
    ("step", "following"),
    [(np.int64(5), 6), (np.int8(127), 128), (2.5, 3.5), (np.float32(2.5), 3.5), (0, 1)],
)
def test_any_number_is_counted(step, following):
    loss = loss_by_step()
    assert step_of(loss([], [1.0], step=step)) == step
    assert loss.step == following
    assert type(loss.step) in (int, float)


def test_a_step_on_a_device_is_used_and_not_counted():
    loss = loss_by_step()
    assert step_of(loss([], [1.0], step=torch.tensor(5.0))) == 5.0
    assert loss.step == 0


def fails_at(step_to_fail):
    def fn(data, logprobs):
        if data == step_to_fail:
            raise RuntimeError("out of memory")
        return 1.0

    return fn


def test_a_call_that_fails_is_not_counted():
    loss = CustomLoss(base, [RegularizerSpec(fails_at("bad"), by_step, "step")])
    loss("good", [1.0])
    with pytest.raises(RegularizerError):
        loss("bad", [1.0])
    assert loss.step == 1
    with pytest.raises(RegularizerError):
        loss("bad", [1.0], step=50)
    assert loss.step == 1
    assert step_of(loss("good", [1.0])) == 1


def test_a_base_loss_that_fails_is_not_counted():
    loss = CustomLoss(fails_at("bad"))
    with pytest.raises(RuntimeError, match="out of memory"):
        loss("bad", [1.0])
    assert loss.step == 0


def test_a_weight_that_fails_is_not_counted():
    loss = CustomLoss(base, [RegularizerSpec(penalties.l1, lambda step: -1.0, "a")])
    with pytest.raises(ValueError, match="at step 0 has the weight"):
        loss([], [1.0])
    assert loss.step == 0


def test_once_does_not_count():
    loss = loss_by_step()
    assert step_of(loss.once([], [1.0], step=9)) == 9
    assert loss.step == 0
    with pytest.raises(ValueError, match="no step was given"):
        loss.once([], [1.0])


def test_under_a_compiler_a_weight_needs_the_step_told():
    loss = loss_by_step()
    with pytest.raises(ValueError, match="no step was given"):
        jax.jit(lambda x: loss([], x).loss)(jnp.ones(2))
    assert loss.step == 0
    compiled = jax.jit(lambda x, step: loss([], x, step=step).loss)
    assert [float(compiled(jnp.ones(2), step)) for step in (1.0, 3.0)] == [3.0, 7.0]
    assert loss.step == 0


def test_a_step_that_is_told_while_code_is_compiled_is_not_counted():
    """It is told once, however often the code then runs."""
    loss = loss_by_step()
    jax.jit(lambda x: loss([], x, step=7).loss)(jnp.ones(2))
    assert loss.step == 0


def test_it_gives_what_custom_loss_gives():
    """On every framework's tensors the same, so with torch for all."""
    logprobs = torch.tensor([3.0, -4.0], requires_grad=True)
    specs = [RegularizerSpec(penalties.l2, schedules.linear_warmup(0.1, 4), "decay")]
    options = {"model_id": "m", "track_grad_norms": True, "parallel": True, "timeout": 30.0}
    loss = CustomLoss(lambda data, x: x.sum(), specs, **options)
    loss.step = 2
    with capture() as events:
        ours = loss([1, 2, 3], logprobs)
    with capture() as theirs:
        expected = custom_loss(
            [1, 2, 3], logprobs, lambda data, x: x.sum(), regularizers=specs, step=2, **options
        )
    assert ours == expected
    assert ours.metadata == expected.metadata
    # By hand: -1 + 0.05 * 25.
    assert ours.loss_total == pytest.approx(0.25)
    assert [event.event for event in events] == [event.event for event in theirs]


def test_specs_from_a_generator_are_there_in_every_step():
    loss = CustomLoss(base, (RegularizerSpec(penalties.l1, 1.0, name) for name in "ab"))
    assert [list(loss([], [1.0]).regularizers) for _ in range(2)] == [["a", "b"], ["a", "b"]]


def test_a_list_that_is_changed_afterwards_changes_nothing():
    specs = [RegularizerSpec(penalties.l1, 1.0, "a")]
    loss = CustomLoss(base, specs)
    specs.clear()
    assert list(loss([], [1.0]).regularizers) == ["a"]


def test_it_can_be_called_from_several_threads_that_tell_the_step():
    loss = loss_by_step()
    start = threading.Barrier(4)

    def work(worker):
        start.wait()
        steps = range(worker * 100, worker * 100 + 50)
        return [step_of(loss([], [1.0], step=step)) == step for step in steps]

    with ThreadPoolExecutor(4) as pool:
        assert all(all(right) for right in pool.map(work, range(4)))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])  # noqa: S301 -- our own bytes
def test_it_can_be_copied_and_pickled_with_its_step(copied):
    loss = loss_by_step()
    loss([], [1.0])
    other = copied(loss)
    assert step_of(other([], [1.0])) == 1
    assert (other.step, loss.step) == (2, 1)


def test_it_says_what_it_is_made_of():
    loss = CustomLoss(
        base, [RegularizerSpec(penalties.l1, 1.0, "l1"), RegularizerSpec(penalties.l2, 1.0, "l2")]
    )
    loss([], [1.0])
    assert repr(loss) == "<CustomLoss of base with ['l1', 'l2'] at step 1>"


def calls(**arguments):
    """The same wrong argument, given to the object and to the function."""

    def to_object():
        step = {"step": arguments["step"]} if "step" in arguments else {}
        rest = {name: value for name, value in arguments.items() if name != "step"}
        return CustomLoss(base, **rest)([], [1.0], **step)

    def to_function():
        return custom_loss([], [1.0], base, **arguments)

    return [to_object, to_function]


A_STEP = "It takes a number, such as that of the optimizer step, or an array or tensor of shape ()."
SPEC = "RegularizerSpec(fn=..., weight=..., name=...)"


@pytest.mark.parametrize(
    ("name", "value", "refusal"),
    [
        ("model_id", 3, "model_id=3 (int). It takes a string, such as 'm', or None."),
        (
            "timeout",
            "3",
            "timeout='3' (str). It takes seconds, such as 30.0, or None for no limit.",
        ),
        ("regularizers", 3, f"regularizers=3 (int). It takes a list: [{SPEC}]."),
        (
            "regularizers",
            [penalties.l1],
            f"<Penalty l1> (Penalty) among its regularizers. Each is a {SPEC}.",
        ),
        (
            "base_grad_fn",
            3,
            (
                "base_grad_fn=3 (int), which cannot be called. base_grad_fn is a function of "
                "(data, logprobs)."
            ),
        ),
        ("step", "3", f"step='3' (str). {A_STEP}"),
        ("step", True, f"step=True (bool). {A_STEP}"),
        (
            "step",
            torch.ones(2, device="meta"),
            f"step=torch.Tensor of shape (2,) and dtype torch.float32. {A_STEP}",
        ),
    ],
)
def test_a_wrong_argument_is_refused_by_both_in_the_same_words(name, value, refusal):
    for call in calls(**{name: value}):
        with capture() as events, pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value) == f"custom_loss got {refusal}"
        assert events == []


@pytest.mark.parametrize("flag", ["parallel", "track_grad_norms", "live"])
@pytest.mark.parametrize("value", ["false", 1, None])
def test_a_flag_that_is_neither_true_nor_false_is_refused(flag, value):
    for call in calls(**{flag: value}):
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value) == (
            f"custom_loss got {flag}={value!r} ({type(value).__name__}). It takes True or False; "
            f"of something else, write {flag}=bool(...)."
        )


@pytest.mark.parametrize("timeout", [0, -1.0, math.nan])
def test_a_timeout_out_of_range_is_refused_by_both_in_the_same_words(timeout):
    for call in calls(timeout=timeout):
        with pytest.raises(ValueError, match="timeout") as caught:
            call()
        assert str(caught.value) == (
            f"custom_loss got timeout={timeout!r}. "
            "It takes seconds above 0, such as 30.0, or None for no limit."
        )

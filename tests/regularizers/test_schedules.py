import math
import pickle
import subprocess
import sys
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorflow as tf
import torch

from regularizers import schedules
from regularizers.schedules import constant, cosine_warmup, linear_warmup

# By hand: a line, and half a cosine, from 1 to 3 in 4 steps.
COSINE = 1 - math.sqrt(0.5)  # (1 - cos(pi / 4)) / 2 * (3 - 1)
LINE = {-5: 1.0, 0: 1.0, 1: 1.5, 2: 2.0, 3: 2.5, 4: 3.0, 5: 3.0, 10**9: 3.0}
CURVE = {-5: 1.0, 0: 1.0, 1: 1 + COSINE, 2: 2.0, 3: 3 - COSINE, 4: 3.0, 5: 3.0, 10**9: 3.0}

WARMUPS = [
    pytest.param(linear_warmup(3.0, 4, start=1.0), LINE, id="linear"),
    pytest.param(cosine_warmup(3.0, 4, start=1.0), CURVE, id="cosine"),
]
HOST_STEPS = [int, float, Fraction, np.int64, np.int32, np.float32, np.uint64, np.array]


@pytest.mark.parametrize(("schedule", "expected"), WARMUPS)
@pytest.mark.parametrize("as_step", HOST_STEPS)
def test_a_step_on_the_host_gives_a_float(schedule, expected, as_step):
    for step, weight in expected.items():
        if step < 0 and as_step is np.uint64:
            continue
        found = schedule(as_step(step))
        assert type(found) is float
        assert found == pytest.approx(weight, rel=1e-15)


DEVICE_STEPS = [
    pytest.param(torch.tensor, torch.Tensor, id="torch"),
    pytest.param(jnp.asarray, jax.Array, id="jax"),
    pytest.param(tf.constant, tf.Tensor, id="tensorflow"),
]


@pytest.mark.parametrize(("schedule", "expected"), WARMUPS)
@pytest.mark.parametrize("dtype", [int, float])
@pytest.mark.parametrize(("as_step", "kind"), DEVICE_STEPS)
def test_a_tensor_gives_a_tensor_of_its_framework(schedule, expected, dtype, as_step, kind):
    for step, weight in expected.items():
        found = schedule(as_step(dtype(step)))
        assert isinstance(found, kind)
        assert "float32" in str(found.dtype)
        assert found.shape == ()
        assert float(found) == pytest.approx(weight, rel=1e-6)


@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize(("schedule", "expected"), WARMUPS)
def test_in_compiled_code_the_step_may_be_unknown_yet(schedule, expected):
    compiled = [
        (jax.jit(schedule), jnp.asarray),
        (tf.function(schedule, autograph=False), tf.constant),
        (torch.compile(schedule, backend="eager"), torch.tensor),
    ]
    for function, as_step in compiled:
        found = [float(function(as_step(step))) for step in expected]
        assert found == pytest.approx(list(expected.values()), rel=1e-6)


def test_nothing_is_read_from_a_device():
    step = torch.tensor(3, device="meta")
    assert linear_warmup(0.1, 4)(step).device.type == "meta"
    assert cosine_warmup(0.1, 4)(step).device.type == "meta"


def test_an_array_of_steps_gives_the_curve():
    found = linear_warmup(3.0, 4, start=1.0)(np.array(list(LINE)))
    np.testing.assert_allclose(found, list(LINE.values()), rtol=1e-15)


@pytest.mark.parametrize("warmup", [linear_warmup, cosine_warmup])
@pytest.mark.parametrize(("weight", "start"), [(0.3, 0.1), (0.1, 0.7), (1e-9, 1e9), (0.1, 0.1)])
def test_both_ends_are_met_exactly(warmup, weight, start):
    schedule = warmup(weight, 7, start=start)
    assert [schedule(0), schedule(7), schedule(8)] == [start, weight, weight]


def test_a_warmup_starts_at_zero_unless_told():
    assert linear_warmup(0.1, 10)(0) == 0.0
    assert cosine_warmup(0.1, 10)(0) == 0.0
    assert linear_warmup(0.1, 10) == linear_warmup(0.1, 10, 0.0)


def test_the_line_is_that_of_optax():
    theirs = optax.linear_schedule(0.2, 0.8, transition_steps=10)
    ours = linear_warmup(0.8, 10, start=0.2)
    assert [ours(step) for step in range(15)] == pytest.approx(
        [float(theirs(step)) for step in range(15)], rel=1e-6
    )


def test_the_cosine_is_that_of_optax_run_upwards():
    theirs = optax.cosine_decay_schedule(1.0, decay_steps=10)
    ours = cosine_warmup(1.0, 10)
    assert [ours(step) for step in range(15)] == pytest.approx(
        [1.0 - float(theirs(step)) for step in range(15)], abs=1e-6
    )


@pytest.mark.parametrize("step", [0, 5.5, torch.tensor(3), jnp.asarray(3)])
def test_a_constant_is_the_same_float_at_every_step(step):
    assert constant(0.25)(step) == 0.25
    assert type(constant(0.25)(step)) is float


def test_a_step_that_is_nan_gives_nan():
    for warmup in (linear_warmup, cosine_warmup):
        assert math.isnan(warmup(0.1, 10)(math.nan))
        for as_step, _ in (param.values for param in DEVICE_STEPS):
            assert math.isnan(float(warmup(0.1, 10)(as_step(math.nan))))


def test_a_step_that_is_infinite_is_at_an_end():
    for warmup in (linear_warmup, cosine_warmup):
        assert warmup(0.3, 10, start=0.1)(math.inf) == 0.3
        assert warmup(0.3, 10, start=0.1)(-math.inf) == 0.1


SCHEDULES = [constant(0.1), linear_warmup(0.1, 100), cosine_warmup(0.1, 100, start=0.01)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_schedule_can_be_pickled_compared_and_hashed(schedule):
    copied = pickle.loads(pickle.dumps(schedule))  # noqa: S301 -- our own bytes
    assert copied == schedule
    assert hash(copied) == hash(schedule)
    assert [other for other in SCHEDULES if other == schedule] == [schedule]


def test_schedules_of_other_numbers_are_not_equal():
    assert linear_warmup(0.1, 100) != linear_warmup(0.1, 101)
    assert linear_warmup(0.1, 100) != linear_warmup(0.2, 100)
    assert linear_warmup(0.1, 100) != cosine_warmup(0.1, 100)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_schedule_shows_how_it_is_made(schedule):
    assert eval(repr(schedule), vars(schedules)) == schedule  # noqa: S307 -- our own text


def test_the_text_of_a_schedule():
    assert repr(constant(1)) == "constant(1.0)"
    assert repr(linear_warmup(0.1, 100)) == "linear_warmup(0.1, steps=100, start=0.0)"
    assert repr(cosine_warmup(0.1, 100)) == "cosine_warmup(0.1, steps=100, start=0.0)"


@pytest.mark.parametrize("field", ["weight", "steps"])
def test_a_schedule_is_frozen(field):
    with pytest.raises(AttributeError):
        setattr(linear_warmup(0.1, 100), field, 1)


@pytest.mark.parametrize("weight", ["0.1", None, True, [0.1]], ids=repr)
def test_a_weight_that_is_no_number_is_refused(weight):
    shown = f"{weight!r} ({type(weight).__name__}). A weight is a number, such as 0.01."
    with pytest.raises(TypeError) as caught:
        linear_warmup(weight, 10)
    assert str(caught.value) == f"linear_warmup got weight={shown}"
    with pytest.raises(TypeError) as caught:
        cosine_warmup(0.1, 10, start=weight)
    assert str(caught.value) == f"cosine_warmup got start={shown}"
    with pytest.raises(TypeError) as caught:
        constant(weight)
    assert str(caught.value) == f"constant got weight={shown}"


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_weight_that_is_negative_or_not_finite_is_refused(weight):
    shown = f"{weight!r}. A weight is finite and at least 0."
    with pytest.raises(ValueError, match="linear_warmup") as caught:
        linear_warmup(0.1, 10, start=weight)
    assert str(caught.value) == f"linear_warmup got start={shown}"
    with pytest.raises(ValueError, match="constant") as caught:
        constant(weight)
    assert str(caught.value) == f"constant got weight={shown}"


@pytest.mark.parametrize("steps", [10.0, "10", None, True], ids=repr)
def test_a_number_of_steps_that_is_no_integer_is_refused(steps):
    with pytest.raises(TypeError) as caught:
        cosine_warmup(0.1, steps)
    assert str(caught.value) == (
        f"cosine_warmup got steps={steps!r} ({type(steps).__name__}). "
        "It takes a number of steps, such as 1000."
    )


@pytest.mark.parametrize("steps", [0, -1])
def test_a_number_of_steps_below_one_is_refused(steps):
    with pytest.raises(ValueError, match="at least 1 step") as caught:
        linear_warmup(0.1, steps)
    assert str(caught.value) == f"linear_warmup got steps={steps}. It takes at least 1 step."


@pytest.mark.parametrize("warmup", [linear_warmup, cosine_warmup])
def test_more_steps_than_a_float_can_count_are_never_over(warmup):
    schedule = warmup(0.3, 10**400, start=0.1)
    assert [schedule(0), schedule(10**9)] == [0.1, 0.1]
    assert float(schedule(torch.tensor(10**9))) == pytest.approx(0.1)


def test_a_numpy_integer_is_a_number_of_steps():
    assert linear_warmup(0.1, np.int64(10)) == linear_warmup(0.1, 10)


def test_a_step_that_is_no_number_is_refused():
    with pytest.raises(TypeError) as caught:
        linear_warmup(0.1, 10)("3")
    assert str(caught.value) == (
        "linear_warmup(0.1, steps=10, start=0.0) was called with the step '3' (str). "
        "A step is a number, or an array or tensor."
    )


def test_a_schedule_works_before_anybody_has_imported_numpy():
    program = "from regularizers.schedules import cosine_warmup; print(cosine_warmup(0.5, 2)(2))"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout == "0.5\n"

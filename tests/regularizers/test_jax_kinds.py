"""What JAX is given: dtypes, pytrees, threads, asynchronous functions; and what it refuses."""

import asyncio
import copy
import dataclasses
import math
import pickle
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from regularizers import CustomLoss, RegularizerError, RegularizerSpec, custom_loss, penalties
from telemetry.testing import capture

X = jnp.array([0.5, -1.0, 2.0])


def squares(data, x):
    return (x * x).sum()


def test_norms_of_half_precision_are_taken_in_float32():
    """By hand: 2 * 300 in each of 4 places; its square is beyond float16."""
    x = jnp.full(4, 300.0, dtype=jnp.float16)
    specs = [RegularizerSpec(lambda d, x: (x * 0.5).sum(), 2.0, "half")]
    output = custom_loss(
        None,
        x,
        lambda d, x: (600 * x.astype(jnp.float32)).sum(),
        regularizers=specs,
        track_grad_norms=True,
    )
    assert vars(output.base_loss)["grad_norm"].dtype == jnp.float32
    assert output.base_loss.grad_norm == 1200.0
    assert output.total_grad_norm == 1202.0


def test_a_gradient_of_bfloat16_is_added_up_in_float32():
    """By hand: 256 + 1 is 257, which bfloat16 rounds to 256."""
    x = jnp.ones(1, dtype=jnp.bfloat16)
    specs = [RegularizerSpec(lambda d, x: x.sum(), 1.0, "one")]
    output = custom_loss(
        None, x, lambda d, x: (256 * x).sum(), regularizers=specs, track_grad_norms=True
    )
    assert output.total_grad_norm == 257.0


def test_complex_logprobs_have_the_norm_of_real_and_imaginary_parts():
    """By hand: |z|**2 has the gradient 2 z, of the norm 2 * 5."""
    z = jnp.array([3.0 + 4.0j])
    output = custom_loss(None, z, lambda d, z: (jnp.abs(z) ** 2).sum(), track_grad_norms=True)
    assert output.base_loss.grad_norm == pytest.approx(10.0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Model:
    weight: jax.Array
    step: jax.Array
    scale: float


def test_logprobs_can_be_any_pytree():
    """By hand: l2 of (3, 4) by weight 10, and of scale 2 by 4; integers have no gradient."""
    model = {"m": Model(jnp.array([3.0, 4.0]), jnp.array(7), 2.0), "key": jax.random.key(0)}

    def penalty(data, tree):
        return (tree["m"].weight ** 2).sum() + tree["m"].scale ** 2 * 1.0

    output = custom_loss(None, model, penalty, track_grad_norms=True)
    assert output.base_loss.value == 29.0
    assert output.base_loss.grad_norm == pytest.approx(math.sqrt(116))


def test_penalties_walk_what_is_registered_with_jax():
    model = Model(jnp.array([3.0, -4.0]), jnp.array(1), 2.0)
    assert float(penalties.l1(None, model)) == 10.0
    assert custom_loss(None, model, penalties.l2).loss_total == 30.0
    assert penalties.l2.grad(None, model).weight.tolist() == [6.0, -8.0]


def test_gradients_by_the_parameters_of_a_flax_model():
    """By hand: outputs = 2 w for inputs of 1; their sum of squares has the slope 8 w = 24."""
    model = nnx.Linear(1, 1, use_bias=False, rngs=nnx.Rngs(0))
    model.kernel[...] = jnp.array([[3.0]])
    graph, params = nnx.split(model)
    inputs = jnp.array([[2.0]])
    output = custom_loss(
        inputs,
        lambda params: nnx.merge(graph, params)(inputs),
        squares,
        track_grad_norms=True,
        wrt=params,
    )
    assert output.base_loss.grad_norm == pytest.approx(24.0)


def test_an_optax_schedule_is_a_weight():
    schedule = optax.linear_schedule(0.0, 1.0, transition_steps=4)
    loss = CustomLoss(squares, [RegularizerSpec(penalties.l1, schedule, "l1")])
    outputs = [loss(None, X) for _ in range(3)]
    assert [o.regularizers["l1"].weight for o in outputs] == [0.0, 0.25, 0.5]
    assert [o.loss_total for o in outputs] == [5.25, 5.25 + 0.875, 5.25 + 1.75]

    @jax.jit
    def compiled(step):
        return loss(None, X, step=step)

    assert compiled(2).regularizers["l1"].weight == 0.5
    assert compiled(2).regularizers["l1"].contribution == 1.75


def test_metrics_keep_their_order_and_are_not_differentiated():
    def base(data, x):
        return x.sum(), {"z": x.max(), "a": 3, "m": np.float32(0.5)}

    def loss(x):
        output = custom_loss(None, x, base, track_grad_norms=True)
        return output.loss, output

    for way in (lambda x: loss(x)[1], lambda x: jax.jit(jax.grad(loss, has_aux=True))(x)[1]):
        custom = way(X).base_loss.custom
        assert list(custom.items()) == [("z", 2.0), ("a", 3), ("m", 0.5)]


@pytest.mark.parametrize("track", [False, True])
def test_threads_are_not_used_inside_a_transformation(track):
    threads = []

    def where(data, x):
        threads.append(threading.current_thread())
        return (x * x).sum()

    def loss(x):
        specs = [RegularizerSpec(where, 1.0, "a"), RegularizerSpec(where, 1.0, "b")]
        return custom_loss(
            None, x, squares, regularizers=specs, parallel=True, track_grad_norms=track
        ).loss

    for transform in (jax.jit, jax.grad, lambda f: lambda x: jax.vmap(f)(x[None])):
        threads.clear()
        transform(loss)(X)
        assert set(threads) == {threading.current_thread()}
    threads.clear()
    loss(X)
    assert len(set(threads)) == 2
    assert threading.current_thread() not in threads


def test_threads_have_the_precision_that_is_set_in_the_callers():
    dtypes = []

    def wide(data, x):
        dtypes.append(jnp.asarray(np.float64(1)).dtype)
        return (x * x).sum()

    specs = [RegularizerSpec(wide, 1.0, "a")]
    with jax.enable_x64(True), jax.default_matmul_precision("float32"):  # noqa: FBT003 -- its only argument
        x = jnp.array([1.0, 2.0], dtype=jnp.float64)
        output = custom_loss(
            None, x, squares, regularizers=specs, parallel=True, track_grad_norms=True
        )
    assert dtypes == [jnp.float64]
    assert output.loss.dtype == jnp.float64
    assert output.regularizers["a"].grad_norm == pytest.approx(math.sqrt(20), rel=1e-12)


@pytest.mark.parametrize(
    "setting",
    [
        lambda: jax.default_prng_impl("rbg"),
        lambda: jax.threefry_partitionable(False),  # noqa: FBT003 -- its only argument
    ],
    ids=["default_prng_impl", "threefry_partitionable"],
)
def test_random_numbers_in_threads_are_those_of_the_sequence(setting):
    def noise(data, x):
        return (x * jax.random.normal(jax.random.key(0), x.shape)).sum()

    def value(*, parallel):
        output = custom_loss(None, X, squares, regularizers=specs, parallel=parallel)
        return output.regularizers["noise"].value

    specs = [RegularizerSpec(noise, 1.0, "noise")]
    default = value(parallel=False)
    with setting():
        assert value(parallel=True) == value(parallel=False) != default


def test_threads_guard_transfers_as_the_callers():
    guards = []

    def note(data, x):
        ways = ("host_to_device", "device_to_device", "device_to_host")
        guards.append([getattr(jax.config, f"jax_transfer_guard_{way}") for way in ways])
        return (x * x).sum()

    specs = [RegularizerSpec(note, 1.0, "note")]
    with jax.transfer_guard("log"), jax.transfer_guard_device_to_device("log_explicit"):
        custom_loss(None, X, squares, regularizers=specs, parallel=True)
    assert guards == [["log", "log_explicit", "log"]]


def test_threads_have_the_mesh_that_is_set_in_the_callers():
    spec = jax.sharding.PartitionSpec("devices")

    def sharded(data, x):
        return (jax.reshard(x, spec) ** 2).sum()

    specs = [RegularizerSpec(sharded, 1.0, "a")]
    with jax.set_mesh(jax.make_mesh((1,), ("devices",))):
        output = custom_loss(None, X, squares, regularizers=specs, parallel=True)
    assert output.loss_total == 10.5


def slow(data, x):
    async def later():
        await asyncio.sleep(0.2)
        return (x * x).sum()

    return later()


def test_asynchronous_functions_are_awaited_together_unless_they_are_traced():
    called, complete = [], asyncio.Event()

    def together(data, x):
        async def later():
            called.append(True)
            if len(called) == 3:
                complete.set()
            await complete.wait()
            return (x * x).sum()

        return later()

    specs = [RegularizerSpec(together, 1.0, name) for name in "abc"]
    output = custom_loss(None, X, squares, regularizers=specs, timeout=60.0)
    assert output.loss_total == pytest.approx(21.0)
    specs = [RegularizerSpec(slow, 1.0, name) for name in "abc"]

    def loss(x):
        output = custom_loss(None, x, squares, regularizers=specs, track_grad_norms=True)
        return output.loss, output

    for differentiate in (jax.grad(loss, has_aux=True), jax.jit(jax.grad(loss, has_aux=True))):
        begun = time.monotonic()
        gradient, output = differentiate(X)
        assert time.monotonic() - begun > 0.6
        np.testing.assert_allclose(gradient, 8 * X)
        assert output.regularizers["c"].grad_norm == pytest.approx(2 * math.sqrt(5.25))


def test_an_output_can_be_pickled_and_copied():
    spec = RegularizerSpec(penalties.l1, 0.1, "sparsity")
    output = custom_loss(None, X, squares, regularizers=[spec], track_grad_norms=True)
    compiled = jax.jit(lambda: output)()
    for one in (output, compiled):
        assert pickle.loads(pickle.dumps(one)).to_dict() == output.to_dict()  # noqa: S301 -- our own
        assert copy.deepcopy(one) == output


NOT_DIFFERENTIABLE = {
    "stopped": lambda d, x: jax.lax.stop_gradient(x * x).sum(),
    "stopped inside": lambda d, x: jax.jit(lambda x: jax.lax.stop_gradient(x).sum())(x),
    "integer": lambda d, x: x.astype(int).sum(),
    "rounded": lambda d, x: jnp.round(x).sum(),
    "compared": lambda d, x: (x > 0).mean(),
    "constant": lambda d, x: jnp.ones(()),
    "number": lambda d, x: 3.0,
    "numpy": lambda d, x: np.float32(3.0),
}


@pytest.mark.parametrize("kind", NOT_DIFFERENTIABLE)
@pytest.mark.parametrize(
    "transform", [lambda f: f, jax.grad, jax.jit, lambda f: jax.jit(jax.grad(f))]
)
def test_what_jax_cannot_differentiate_through_is_an_error_and_never_zero(kind, transform):
    def loss(x):
        spec = RegularizerSpec(NOT_DIFFERENTIABLE[kind], 0.0, "bad")
        return custom_loss(None, x, squares, regularizers=[spec], track_grad_norms=True).loss

    with pytest.raises(RegularizerError) as failed:
        transform(loss)(X)
    (error,) = failed.value.failures.values()
    assert isinstance(error, ValueError)
    assert str(error).startswith("track_grad_norms=True, but Regularizer 'bad' returned ")
    assert str(error).endswith(
        "through which JAX cannot differentiate. Return a real number computed from logprobs, "
        "without stop_gradient, rounding or float(), or call with track_grad_norms=False."
    )


def test_a_base_loss_that_cannot_be_differentiated_is_named():
    with pytest.raises(ValueError, match=r"^track_grad_norms=True, but base_loss_fn returned 2\.0"):
        custom_loss(None, X, lambda d, x: 2.0, track_grad_norms=True)


def test_without_a_leaf_to_differentiate_by_nothing_is_evaluated():
    calls = []
    for wrt in (None, {"n": jnp.arange(2)}):
        logprobs = {"n": jnp.arange(3)} if wrt is None else calls.append
        with capture() as events, pytest.raises(ValueError, match="none is of floating-point"):
            custom_loss(
                None, logprobs, lambda d, x: calls.append(x), track_grad_norms=True, wrt=wrt
            )
        assert not calls
        assert not events


def test_wrt_needs_the_logprobs_to_be_a_function_of_it():
    calls = []
    with pytest.raises(ValueError, match="wrt") as failed:
        custom_loss(None, X, lambda d, x: calls.append(x), track_grad_norms=True, wrt={"w": X})
    assert str(failed.value) == (
        "wrt= was given JAX arrays, but logprobs is not a function of them, and JAX keeps no graph "
        "of how it was computed. Write it as a function, which is called once: "
        "logprobs=lambda params: ..., wrt=params."
    )
    assert not calls


def test_logprobs_that_do_not_depend_on_wrt_are_an_error():
    with pytest.raises(ValueError, match="JAX cannot differentiate by wrt"):
        custom_loss(None, jax.lax.stop_gradient, squares, track_grad_norms=True, wrt=X)


def test_an_error_of_a_function_goes_through_as_it_is():
    def bad(data, x):
        raise KeyError("mask")

    with pytest.raises(KeyError, match="mask"):
        jax.grad(lambda x: custom_loss(None, x, bad, track_grad_norms=True).loss)(X)
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        custom_loss(None, X, lambda d, x: x, track_grad_norms=True)

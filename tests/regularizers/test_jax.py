"""Values, gradients and norms on JAX, in and outside of its transformations."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regularizers import RegularizerSpec, custom_loss, penalties
from telemetry.testing import capture

# By hand, for base = -sum(d * x), l1 = sum|x| with weight 0.1, l2 = sum(x**2) with weight 0.01:
# the values are 7.5, 3.5 and 5.25, the total is 7.5 + 0.35 + 0.0525,
# the gradients are (-1, -2, 3), (1, -1, 1) and (1, -2, 4), the total's is below.
DATA = jnp.array([1.0, 2.0, -3.0])
LOGPROBS = jnp.array([0.5, -1.0, 2.0])
TOTAL_GRADIENT = [-0.89, -2.12, 3.14]
SPECS = [
    RegularizerSpec(penalties.l1, 0.1, "sparsity"),
    RegularizerSpec(penalties.l2, 0.01, "decay"),
]


@pytest.fixture
def _no_leaks():
    with jax.checking_leaks():
        yield


def weighted_nll(data, logprobs):
    return -(data * logprobs).sum()


def total(logprobs, base=weighted_nll, regularizers=SPECS, **options):
    """What `jax.value_and_grad(..., has_aux=True)` wants of a function."""
    options = {"track_grad_norms": True, **options}
    output = custom_loss(DATA, logprobs, base, regularizers=regularizers, **options)
    return output.loss, output


def eager(function, x):
    return function(x)[1], None


def in_value_and_grad(function, x):
    (_, output), gradient = jax.value_and_grad(function, has_aux=True)(x)
    return output, gradient


def in_jit(function, x):
    return jax.jit(function)(x)[1], None


def in_jit_of_value_and_grad(function, x):
    (_, output), gradient = jax.jit(jax.value_and_grad(function, has_aux=True))(x)
    return output, gradient


def in_value_and_grad_of_jit(function, x):
    return in_value_and_grad(jax.jit(function), x)


def in_scan(function, x):
    def step(carry, x):
        (_, output), gradient = jax.value_and_grad(function, has_aux=True)(x)
        return carry, (output, gradient)

    _, stack = jax.lax.scan(step, 0, x[None])
    return jax.tree.map(lambda leaf: leaf[0], stack)


def in_vmap(function, x):
    (_, outputs), gradients = jax.vmap(jax.value_and_grad(function, has_aux=True))(x[None])
    return jax.tree.map(lambda leaf: leaf[0], (outputs, gradients))


def in_pmap(function, x):
    (_, outputs), gradients = jax.pmap(jax.value_and_grad(function, has_aux=True))(x[None])
    return jax.tree.map(lambda leaf: leaf[0], (outputs, gradients))


def in_shard_map(function, x):
    mesh, spec = jax.make_mesh((1,), ("devices",)), jax.sharding.PartitionSpec("devices")

    def one(x):
        (_, output), gradient = jax.value_and_grad(function, has_aux=True)(x[0])
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], (output, gradient))

    sharded = jax.device_put(x[None], jax.sharding.NamedSharding(mesh, spec))
    stack = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=spec, out_specs=spec))(sharded)
    return jax.tree.map(lambda leaf: leaf[0], stack)


def in_checkpoint(function, x):
    return in_value_and_grad(jax.checkpoint(function), x)


WAYS = [
    eager,
    in_value_and_grad,
    in_jit,
    in_jit_of_value_and_grad,
    in_value_and_grad_of_jit,
    in_scan,
    in_vmap,
    in_pmap,
    in_shard_map,
    in_checkpoint,
]
every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@every_way
@pytest.mark.usefixtures("_no_leaks")
def test_values_and_norms_are_the_closed_forms(way):
    output, gradient = way(total, LOGPROBS)
    assert output.loss_total == pytest.approx(7.9025)
    assert output.regularizer_total == pytest.approx(0.4025)
    assert output.base_loss.value == pytest.approx(7.5)
    assert output.base_loss.grad_norm == pytest.approx(math.sqrt(14))
    assert list(output.regularizers) == ["sparsity", "decay"]
    sparsity, decay = output.regularizers.values()
    assert (sparsity.name, sparsity.weight, sparsity.value) == ("sparsity", 0.1, 3.5)
    assert sparsity.contribution == pytest.approx(0.35)
    assert sparsity.grad_norm == pytest.approx(math.sqrt(3))
    assert sparsity.grad_norm_weighted == pytest.approx(0.1 * math.sqrt(3))
    assert decay.grad_norm == pytest.approx(math.sqrt(21))
    assert output.total_grad_norm == pytest.approx(math.sqrt(15.1461))
    assert output.metadata["regularizer_count"] == 2
    if gradient is not None:
        np.testing.assert_allclose(gradient, TOTAL_GRADIENT, rtol=1e-6)


@every_way
@pytest.mark.usefixtures("_no_leaks")
def test_without_tracking_the_loss_differentiates_all_the_same(way):
    output, gradient = way(lambda x: total(x, track_grad_norms=False), LOGPROBS)
    assert output.loss_total == pytest.approx(7.9025)
    assert output.total_grad_norm is None
    assert output.regularizers["decay"].grad_norm is None
    if gradient is not None:
        np.testing.assert_allclose(gradient, TOTAL_GRADIENT, rtol=1e-6)


@every_way
@pytest.mark.parametrize("track", [False, True])
def test_each_function_is_called_once(way, track):
    calls = []

    def named(name, function):
        def call(data, logprobs):
            calls.append(name)
            return function(data, logprobs)

        return call

    specs = [RegularizerSpec(named(s.name, s.fn), s.weight, s.name) for s in SPECS]
    base = named("base", weighted_nll)
    way(lambda x: total(x, base, specs, track_grad_norms=track), LOGPROBS)
    assert calls == ["base", "sparsity", "decay"]


def curved(data, x):
    return (data * jnp.sin(x)).sum() * jnp.exp(x[0])


def peak(data, x):
    return jax.nn.logsumexp(x) + x[1] ** 3


CURVED = [
    RegularizerSpec(peak, 0.7, "peak"),
    RegularizerSpec(lambda d, x: jnp.linalg.norm(jnp.sort(x)[1:]), 0.2, "norm"),
]


def differences(function, x, step=1e-6):
    steps = step * np.eye(len(x))
    return np.array([(function(x + d) - function(x - d)) / (2 * step) for d in steps])


@every_way
@pytest.mark.usefixtures("_no_leaks")
def test_norms_agree_with_finite_differences(way):
    with jax.enable_x64(True):  # noqa: FBT003 -- its only argument
        x = jnp.array([0.5, -1.0, 2.0], dtype=jnp.float64)
        output, gradient = way(lambda x: total(x, curved, CURVED), x)
        by_hand = [
            differences(lambda x, f=f: float(f(DATA, jnp.array(x))), np.asarray(x))
            for f in (curved, *(spec.fn for spec in CURVED))
        ]
    expected = by_hand[0] + 0.7 * by_hand[1] + 0.2 * by_hand[2]
    measured = [output.base_loss, *output.regularizers.values()]
    for term, slope in zip(measured, by_hand, strict=True):
        assert term.grad_norm == pytest.approx(np.linalg.norm(slope), rel=1e-7)
    assert output.total_grad_norm == pytest.approx(np.linalg.norm(expected), rel=1e-7)
    if gradient is not None:
        np.testing.assert_allclose(gradient, expected, rtol=1e-7)


@every_way
def test_gradients_by_parameters_go_through_the_function_of_them(way):
    """By hand: w = (2, 3, 1), logprobs = w * (1, -1, 0); base by w: 2 (2, 3, 0); l1: (1, 1, 0)."""
    signs = jnp.array([1.0, -1.0, 0.0])
    calls = []

    def loss(w):
        def logprobs(params):
            calls.append("logprobs")
            return {"x": params["w"] * signs, "count": jnp.array(3)}

        output = custom_loss(
            None,
            logprobs,
            lambda data, tree: (tree["x"] ** 2).sum(),
            regularizers=[RegularizerSpec(lambda d, tree: jnp.abs(tree["x"]).sum(), 2.0, "l1")],
            track_grad_norms=True,
            wrt={"w": w, "name": None},
        )
        return output.loss, output

    output, gradient = way(loss, jnp.array([2.0, 3.0, 1.0]))
    assert calls == ["logprobs"]
    assert output.base_loss.value == 13.0
    assert output.base_loss.grad_norm == pytest.approx(math.sqrt(52))
    assert output.regularizers["l1"].grad_norm == pytest.approx(math.sqrt(2))
    assert output.total_grad_norm == pytest.approx(10.0)  # (6, 8, 0)
    if gradient is not None:
        np.testing.assert_allclose(gradient, [6.0, 8.0, 0.0])


@pytest.mark.usefixtures("_no_leaks")
def test_events_inside_eager_value_and_grad_hold_arrays_and_no_tracers():
    @jax.custom_vjp
    def scaled(x):
        return (3 * x).sum()

    scaled.defvjp(lambda x: (scaled(x), x), lambda x, g: (g * 3 * jnp.ones_like(x),))
    specs = [
        *SPECS,
        RegularizerSpec(lambda d, x: (jnp.sin(x).sum(), {"top": x.max()}), lambda s: s * x0, "a"),
        RegularizerSpec(lambda d, x: scaled(x), 1.0, "custom"),
        RegularizerSpec(lambda d, x: jax.checkpoint(lambda y: (y**3).sum())(x), 1.0, "again"),
        RegularizerSpec(
            lambda d, x: jax.lax.scan(lambda c, e: (c * e, None), 1.0, x)[0], 1.0, "scan"
        ),
        RegularizerSpec(lambda d, x: jnp.sort(x)[jnp.argmax(x)], 1.0, "index"),
    ]
    x0 = None

    def loss(x):
        nonlocal x0
        x0 = x[0]  # a weight that is learned, 0.5
        return total(x, regularizers=specs, step=2)

    with capture() as events:
        (_, output), _ = jax.value_and_grad(loss, has_aux=True)(LOGPROBS)
    x0 = None
    stops = [event for event in events if event.event[-1] == "stop"]
    assert len(stops) == 8
    held = [v for e in stops for v in (*e.measurements.values(), *e.metadata.values())]
    assert not [value for value in held if isinstance(value, jax.core.Tracer)]
    norms = {e.metadata.get("regularizer_name"): e.measurements.get("grad_norm") for e in stops}
    assert float(norms["a"]) == pytest.approx(float(jnp.linalg.norm(jnp.cos(LOGPROBS))))
    assert float(norms["custom"]) == pytest.approx(math.sqrt(27))
    assert float(norms["scan"]) == pytest.approx(math.sqrt(4 + 1 + 0.25))
    assert float(norms["index"]) == 1.0
    assert output.regularizers["a"].weight == 1.0
    assert output.regularizers["a"].custom == {"top": 2.0}


@pytest.mark.usefixtures("_no_leaks")
def test_events_of_gradients_by_parameters_hold_no_tracers_either():
    """By hand: logprobs = w**2 = (4, 9); l1 by w is 2 w = (4, 6), with weight 0.5 and base 0.5."""

    def loss(w):
        output = custom_loss(
            None,
            lambda w: w * w,
            lambda d, x: x.sum() / 2,
            regularizers=[RegularizerSpec(penalties.l1, 0.5, "l1")],
            track_grad_norms=True,
            wrt=w,
        )
        return output.loss

    with capture() as events:
        jax.grad(loss)(jnp.array([2.0, 3.0]))
    held = [value for event in events for value in event.measurements.values()]
    assert not [value for value in held if isinstance(value, jax.core.Tracer)]
    assert events[-1].measurements["total_grad_norm"] == pytest.approx(math.sqrt(52))


def test_norms_have_no_part_in_the_differentiation_around_them():
    """The rule of the backward pass sees no tracer, neither for the norm nor for the gradient."""
    seen = []

    @jax.custom_vjp
    def cubes(x):
        return (x**3).sum()

    def backward(x, cotangent):
        seen.append(isinstance(x, jax.core.Tracer) or isinstance(cotangent, jax.core.Tracer))
        return (cotangent * 3 * x * x,)

    cubes.defvjp(lambda x: (cubes(x), x), backward)
    output, _ = in_value_and_grad(lambda x: total(x, lambda d, x: cubes(x), ()), LOGPROBS)
    assert output.total_grad_norm == pytest.approx(3 * math.sqrt(0.25**2 + 1 + 16))
    assert seen == [False, False]


def test_the_loss_can_be_differentiated_twice():
    """By hand: the Hessian of sum(x**2) * 0.01 is 0.02 on the diagonal."""
    hessian = jax.hessian(lambda x: total(x)[0])(LOGPROBS)
    np.testing.assert_allclose(hessian, 0.02 * np.eye(3), atol=1e-7)


def test_a_term_that_depends_on_other_parameters_only_has_norm_zero():
    def loss(w):
        specs = [
            RegularizerSpec(lambda d, x: (w * 5).sum(), 1.0, "b"),
            RegularizerSpec(penalties.l2, 0.5, "a"),
        ]
        return total(jnp.array([2.0]), lambda d, x: (w * w).sum(), specs)

    for way in (in_value_and_grad, in_jit_of_value_and_grad):
        output, gradient = way(loss, jnp.array([3.0]))
        assert output.base_loss.grad_norm == output.regularizers["b"].grad_norm == 0.0
        assert output.total_grad_norm == 2.0
        np.testing.assert_allclose(gradient, [11.0])

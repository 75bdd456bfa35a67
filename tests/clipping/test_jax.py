"""JAX, eager and compiled, against the float64 NumPy backend."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clipping
from telemetry.testing import capture

GATES = {"warmup_steps": 3, "min_history": 2}
KINDS = {
    "auto": (clipping.AutoClip, {"window_size": 16, **GATES}),
    "window": (
        clipping.AutoClip,
        {"mode": "percentile", "history": "window", "percentile": 80.0, "window_size": 16, **GATES},
    ),
    "ema": (
        clipping.AutoClip,
        {"mode": "percentile", "percentile": 80.0, "ema_decay": 0.9, "window_size": 32, **GATES},
    ),
    "zscore": (clipping.ZScoreClip, {"zmax": 1.5, "ema_decay": 0.5, **GATES}),
    "agc": (clipping.AGC, {"clipping": 0.3, "exclude_bias_bn": True}),
}
CASES = [(kind, scope) for kind, (maker, _) in KINDS.items() for scope in maker.scopes]
POLICIES = ("skip", "zero", "propagate")
SHAPES = {"conv": {"bias": (4,), "kernel": (3, 3, 2, 4)}, "dense": {"kernel": (4, 3)}}
STEPS = 40


def tree(make):
    """In the order in which JAX flattens it, which NumPy's backend takes as it is."""
    return {a: {b: make(shape) for b, shape in inner.items()} for a, inner in SHAPES.items()}


@pytest.fixture(scope="module")
def run():
    """Weights, and gradients of 40 steps in which now and then something is not finite."""
    rng = np.random.default_rng(5)
    weights = tree(lambda shape: rng.normal(size=shape).astype(np.float32))
    weights["dense"]["kernel"][:, 1] = 0
    steps = []
    for _ in range(STEPS):
        size = rng.lognormal(sigma=1.2)
        steps.append(tree(lambda shape, size=size: np.float32(rng.normal(size=shape) * size)))
    steps[9]["conv"]["bias"][2] = np.nan
    steps[17]["dense"]["kernel"][0, 0] = np.inf
    steps[18]["conv"]["kernel"][1, 1, 1, 1] = -np.inf
    steps[29] = jax.tree.map(lambda g: np.full_like(g, np.nan), steps[29])
    return weights, steps


def make(kind, scope, policy):
    maker, options = KINDS[kind]
    return maker(scope=scope, on_nonfinite=policy, **options)


def oracle(clipper, weights, steps):
    return [clipping.numpy.apply_grads(grads, weights, clipper) for grads in steps]


def assert_same(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(one), other, rtol=5e-4, atol=1e-30)


@pytest.fixture(scope="module")
def expected(run):
    """What NumPy makes of it, for every policy of a case."""
    known = {}

    def of(kind, scope):
        if (kind, scope) not in known:
            clippers = {policy: make(kind, scope, policy) for policy in POLICIES}
            clipped = {policy: oracle(c, *run) for policy, c in clippers.items()}
            known[kind, scope] = clippers, clipped
        return known[kind, scope]

    return of


def together(kind, scope):
    """One transformation for each policy, to be compiled at once."""
    parts = {p: clipping.jax.transformation(make(kind, scope, p)) for p in POLICIES}

    def init(weights):
        return {policy: part.init(weights) for policy, part in parts.items()}

    def update(states, grads, weights):
        done = {p: part.update(grads, states[p], weights) for p, part in parts.items()}
        return {p: d[1] for p, d in done.items()}, {p: d[0] for p, d in done.items()}

    return init, update


@pytest.mark.parametrize(("kind", "scope"), CASES)
def test_scanned_transformation_equals_numpy(run, expected, kind, scope):
    weights, steps = run
    init, update = together(kind, scope)
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *steps)
    states, clipped = jax.jit(
        lambda states: jax.lax.scan(lambda s, g: update(s, g, weights), states, stacked)
    )(init(weights))
    clippers, wanted = expected(kind, scope)
    for policy in POLICIES:
        for index in range(STEPS):
            got = jax.tree.map(lambda x, index=index: x[index], clipped[policy])
            assert_same(got, wanted[policy][index])
        got = clipping.jax.state_dict(states[policy], make(kind, scope, policy))
        same = clippers[policy].state_dict()
        assert got["keys"] == same["keys"]
        assert got["steps"] == STEPS
        finite = [t is None for t in same.get("thresholds", [])]
        assert [t is None for t in got.get("thresholds", [])] == finite


@pytest.mark.parametrize(("kind", "scope"), CASES)
def test_jitted_transformation_with_a_donated_state_equals_numpy(run, expected, kind, scope):
    weights, steps = run
    init, update = together(kind, scope)
    states = init(weights)
    update = jax.jit(update, donate_argnums=0)
    _, wanted = expected(kind, scope)
    for index, grads in enumerate(steps[:20]):
        states, clipped = update(states, grads, weights)
        for policy in POLICIES:
            assert_same(clipped[policy], wanted[policy][index])
    assert update._cache_size() == 1


# The policies in turn, since each case is compiled.
@pytest.mark.parametrize(
    ("kind", "scope", "policy"), [(*case, POLICIES[i % 3]) for i, case in enumerate(CASES)]
)
def test_eager_clipping_equals_numpy(run, expected, kind, scope, policy):
    weights, steps = run
    clipper = make(kind, scope, policy)
    clippers, wanted = expected(kind, scope)
    for grads, same in zip(steps, wanted[policy], strict=True):
        assert_same(clipping.jax.apply_grads(grads, weights, clipper), same)
    np.testing.assert_allclose(clipper.threshold_any(), clippers[policy].threshold_any(), rtol=5e-4)
    assert clipper.state_dict()["keys"] == clippers[policy].state_dict()["keys"]


@pytest.mark.parametrize("kind", ["auto", "ema", "zscore", "agc"])
def test_eager_policy_raise_leaves_history_alone(run, kind):
    weights, steps = run
    clipper, same = make(kind, "per_layer", "raise"), make(kind, "per_layer", "raise")
    raised = []
    for index, grads in enumerate(steps):
        finite = all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
        if finite:
            wanted = clipping.numpy.apply_grads(grads, weights, same)
            assert_same(clipping.jax.apply_grads(grads, weights, clipper), wanted)
            continue
        with (
            capture(("smartclip", "clip", "nonfinite")) as events,
            pytest.raises(FloatingPointError, match="on_nonfinite='raise' allows finite") as caught,
        ):
            clipping.jax.apply_grads(grads, weights, clipper)
        raised.append(index)
        named = {key[1] for key in events[0].metadata["keys"]}
        if index == 17:
            assert named == {"dense"}
            assert "1 of " in str(caught.value)
    assert raised == [9, 17, 18, 29]
    assert clipper.state_dict()["steps"] == same.state_dict()["steps"] == STEPS - 4


@pytest.mark.parametrize(
    "shape", [(7, 5), (3, 3, 4, 6), (3, 4, 6), (4, 2, 3), (6,), (1, 6), (), (2, 3, 4, 5, 6)]
)
def test_agc_per_unit_equals_optax(shape):
    import optax

    rng = np.random.default_rng(0)
    weights = {"w": jnp.asarray(rng.normal(size=shape), jnp.float32)}
    grads = {"w": jnp.asarray(rng.normal(size=shape) * 0.05, jnp.float32)}
    reference = optax.adaptive_grad_clip(0.05, 1e-3)
    wanted, _ = jax.jit(reference.update)(grads, reference.init(weights), weights)
    clipper = clipping.AGC(clipping=0.05, scope="per_unit", exclude_bias_bn=False)
    ours = clipping.jax.transformation(clipper)
    got, _ = jax.jit(ours.update)(grads, ours.init(weights), weights)
    np.testing.assert_allclose(got["w"], wanted["w"], rtol=1e-6, atol=0)
    eager = clipping.jax.apply_grads(grads, weights, clipper)
    np.testing.assert_allclose(eager["w"], wanted["w"], rtol=1e-6, atol=0)
    assert (wanted["w"] != grads["w"]).any()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.complex64])
def test_dtype_stays_and_norms_are_accumulated_in_float32(halving, dtype):
    # Added up in bfloat16, 4,096 ones stop at 256; added up in float16 they overflow at 65,504.
    grads = {"w": jnp.full((4096, 16), 2, dtype)}
    clipped = clipping.jax.apply_grads(grads, grads, halving)
    assert clipped["w"].dtype == dtype
    # The norm is 2 * sqrt(65,536) = 512, and 1 is allowed.
    np.testing.assert_array_equal(np.asarray(clipped["w"], np.complex64), np.float32(2 / 512))


def test_numpy_and_jax_share_a_clipper():
    clipper, same = make("auto", "global", "skip"), make("auto", "global", "skip")
    for norm in (1.0, 1.1, 0.9, 1.2, 30.0, 1.0):
        numbers = [np.array([norm], np.float32)]
        one = clipping.jax.apply_grads(numbers, numbers, clipper)
        other = clipping.numpy.apply_grads(numbers, numbers, same)
        clipper.load_state_dict(clipper.state_dict())
        np.testing.assert_allclose(one[0], other[0], rtol=1e-5)
    resumed = clipping.AutoClip(window_size=16, **GATES)
    resumed.load_state_dict(clipper.state_dict())
    numbers = [np.array([25.0], np.float32)]
    np.testing.assert_allclose(
        clipping.numpy.apply_grads(numbers, numbers, resumed)[0],
        clipping.jax.apply_grads(numbers, numbers, clipper)[0],
        rtol=1e-5,
    )


def test_a_parameter_without_a_gradient_has_no_part_in_it():
    clipper, same = (
        clipping.AutoClip(
            mode="percentile",
            percentile=50.0,
            history="window",
            scope="per_param",
            warmup_steps=0,
            min_history=1,
        )
        for _ in range(2)
    )
    weights = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    for norm in (1.0, 2.0, 9.0):
        grads = {"a": np.float32([norm, 0]), "b": None if norm == 2 else np.float32([0, norm])}
        with capture(("smartclip", "clip", "*")) as events:
            got = clipping.jax.apply_grads(grads, weights, clipper)
        wanted = clipping.numpy.apply_grads(grads, weights, same)
        assert (got["b"] is None) == (norm == 2)
        assert_same(got, wanted)
        assert events[-1].measurements["groups"] == len(events) - 2 == (1 if norm == 2 else 2)


def test_dry_run_returns_the_gradients_themselves():
    clipper = clipping.AGC(clipping=1e-3, scope="global", exclude_bias_bn=False, dry_run=True)
    grads = {"w": jnp.ones(3)}
    assert clipping.jax.apply_grads(grads, grads, clipper) is grads
    ours = clipping.jax.transformation(clipper)
    updates, state = ours.update(grads, ours.init(grads), grads)
    assert updates is grads
    np.testing.assert_allclose(state.last.scale, [1e-3])


def test_events_of_an_eager_step_are_on_the_device():
    clipper = clipping.AutoClip(scope="per_layer")
    grads = {"a": {"w": jnp.array([3.0, 4.0])}, "b": jnp.array([12.0])}
    with capture(("smartclip", "clip", "*")) as events:
        clipping.jax.apply_grads(grads, grads, clipper)
    start, *groups, stop = events
    assert start.metadata["backend"] == "jax"
    assert start.metadata["dry_run"] is False
    assert [e.metadata["key"] for e in groups] == [("layer", "a"), ("layer", "root")]
    assert isinstance(groups[0].measurements["grad_norm"], jax.Array)
    assert [float(e.measurements["grad_norm"]) for e in groups] == [5.0, 12.0]
    assert float(stop.measurements["grad_norm"]) == 13.0
    assert stop.measurements["groups"] == 2
    assert "duration" in stop.measurements
    assert "outcome" not in stop.metadata


def test_on_metrics_gets_numbers():
    records = []
    clipper = clipping.AutoClip()
    grads = {"w": jnp.array([3.0, 4.0])}
    clipping.jax.apply_grads(grads, grads, clipper, on_metrics=records.append)
    assert records == [
        {
            "algo": "autoclip",
            "key": ("global",),
            "scope": "global",
            "grad_norm": 5.0,
            "threshold": float("inf"),
            "scale": 1.0,
            "clipped": False,
        }
    ]


def test_the_step_is_compiled_once():
    from clipping.backends import jax as backend

    clipper = clipping.AutoClip()
    for norm in (1.0, 2.0, 3.0):
        grads = {"w": jnp.array([norm])}
        clipping.jax.apply_grads(grads, grads, clipper)
    assert backend._calls[clipper].step.compiled._cache_size() == 1


def test_a_clipper_is_not_kept_alive():
    clipper = clipping.AutoClip()
    grads = {"w": jnp.ones(1)}
    clipping.jax.apply_grads(grads, grads, clipper)
    gone = weakref.ref(clipper)
    del clipper
    gc.collect()
    assert gone() is None


TRACED = (
    "clipping.jax.apply_grads() is for eager code, and is being traced here (by jit, grad, vmap or "
    "scan). The gradients are untouched. In compiled code use "
    "optax.chain(clipping.jax.transformation(clipper), ...), or clip the gradients outside."
)


def traced_argument(clipper, grads):
    jax.jit(lambda g: clipping.jax.apply_grads(g, grads, clipper))(grads)


def traced_surroundings(clipper, grads):
    jax.jit(lambda: clipping.jax.apply_grads(grads, grads, clipper))()


@pytest.mark.parametrize("misuse", [traced_argument, traced_surroundings])
def test_eager_clipping_refuses_to_be_traced(misuse):
    clipper, grads = clipping.AutoClip(), {"w": jnp.ones(2)}
    with pytest.raises(TypeError) as caught:
        misuse(clipper, grads)
    assert str(caught.value) == TRACED
    clipping.jax.apply_grads(grads, grads, clipper)
    assert clipper.state_dict()["steps"] == 1


ONE = {"w": jnp.ones(2)}


@pytest.mark.parametrize(
    ("grads", "params", "error", "message"),
    [
        (
            {"w": jnp.ones(2, int)},
            ONE,
            TypeError,
            (
                "grads['w'] must be an array of floating-point or complex numbers, got int32. The "
                "gradients are untouched. For integers among the parameters see optax.masked."
            ),
        ),
        (
            {"w": "text"},
            ONE,
            TypeError,
            (
                "grads['w'] must be an array of floating-point or complex numbers, got str. The "
                "gradients are untouched."
            ),
        ),
        (
            {"v": jnp.ones(2)},
            ONE,
            ValueError,
            (
                "The tree of the gradients does not match that of the parameters: only gradients "
                "have ['v'], only parameters ['w']. The gradients are untouched. Both must have "
                "the same paths; for gradients of a part of the parameters see optax.masked."
            ),
        ),
        (
            {"w": jnp.ones(3)},
            ONE,
            ValueError,
            (
                "The gradient 'w' has shape (3,), its parameter (2,). They must be equal. The "
                "gradients are untouched."
            ),
        ),
        (
            {"w": None},
            ONE,
            ValueError,
            "There is no gradient to clip in {'w': None}. Give at least one array.",
        ),
        ({}, {}, ValueError, "There is no gradient to clip in {}. Give at least one array."),
    ],
    ids=["integers", "text", "names", "shape", "none", "empty"],
)
def test_bad_gradients_are_refused(grads, params, error, message):
    clipper = clipping.AutoClip()
    with pytest.raises(error) as caught:
        clipping.jax.apply_grads(grads, params, clipper)
    assert str(caught.value) == message
    assert clipper.state_dict()["steps"] == 0


def test_a_clipper_of_another_model_is_refused():
    clipper = clipping.AutoClip(scope="per_layer")
    grads = {"a": {"w": jnp.ones(1)}}
    clipping.jax.apply_grads(grads, grads, clipper)
    with pytest.raises(ValueError, match="history is of the groups"):
        clipping.jax.apply_grads({"b": {"w": jnp.ones(1)}}, {"b": {"w": jnp.ones(1)}}, clipper)


def test_what_is_no_clipper_is_refused():
    for misuse in (
        lambda: clipping.jax.apply_grads(ONE, ONE, clipping.AutoClip),
        lambda: clipping.jax.transformation("auto"),
    ):
        with pytest.raises(TypeError, match=r"clipper must be a clipper, such as clipping\.Auto"):
            misuse()

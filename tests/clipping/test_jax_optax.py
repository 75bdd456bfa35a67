"""The transformation inside optax, Flax and checkpoints."""

import pickle
import subprocess
import sys
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipping
from telemetry.testing import capture

WINDOW = {"mode": "percentile", "percentile": 60.0, "history": "window", "window_size": 8}
ACTIVE = {"warmup_steps": 2, "min_history": 1}
PARAMS = {"dense": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.zeros(2)}}
INPUTS = np.random.default_rng(2).normal(size=(40, 8, 2)).astype(np.float32)
INPUTS[[5, 12, 20]] *= 50


def loss(params, x):
    return jnp.mean((x @ params["dense"]["kernel"] + params["dense"]["bias"] - 1) ** 2)


def clipper(**options):
    return clipping.AutoClip(**(WINDOW | ACTIVE | options))


@lru_cache
def compiled_step(optimizer):
    @jax.jit
    def step(params, state, x):
        updates, state = optimizer.update(jax.grad(loss)(params, x), state, params)
        return optax.apply_updates(params, updates), state

    return step


def train(optimizer, params=PARAMS, steps=range(30), state=None):
    state = optimizer.init(params) if state is None else state
    for index in steps:
        params, state = compiled_step(optimizer)(params, state, INPUTS[index])
    return params, state


def by_hand(learning_rate, steps):
    """The same training in float64, clipped to the 60th percentile of the last 8 norms."""
    kernel = np.asarray(PARAMS["dense"]["kernel"], np.float64)
    bias, norms, cut = np.zeros(2), [], 0
    for index in range(steps):
        x = INPUTS[index].astype(np.float64)
        ahead = 2 * (x @ kernel + bias - 1) / (8 * 2)
        kernel_grad, bias_grad = x.T @ ahead, ahead.sum(axis=0)
        norm = np.sqrt((kernel_grad**2).sum() + (bias_grad**2).sum())
        norms.append(norm)
        threshold = np.percentile(norms[-8:], 60.0)
        scale = threshold / (norm + 1e-8) if index >= 2 and norm > threshold else 1.0
        cut += scale < 1
        kernel -= learning_rate * scale * kernel_grad
        bias -= learning_rate * scale * bias_grad
    return kernel, bias, cut


def test_weights_after_30_steps_equal_a_loop_by_hand():
    params, _ = train(optax.chain(clipping.jax.transformation(clipper()), optax.sgd(0.05)))
    kernel, bias, cut = by_hand(0.05, 30)
    assert cut >= 3
    np.testing.assert_allclose(params["dense"]["kernel"], kernel, rtol=2e-5)
    np.testing.assert_allclose(params["dense"]["bias"], bias, rtol=2e-5)


def assert_equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


RESUMED = {
    "autoclip": lambda: clipper(scope="per_layer"),
    "zscore": lambda: clipping.ZScoreClip(zmax=0.5, **ACTIVE),
    "agc": lambda: clipping.AGC(clipping=0.05, scope="per_unit"),
}


@lru_cache
def half_and_whole(name):
    """The state after 13 steps, and after 30 without an interruption."""
    optimizer = optax.chain(clipping.jax.transformation(RESUMED[name]()), optax.adam(0.05))
    saved = train(optimizer, steps=range(13))
    return saved, train(optimizer, saved[0], range(13, 30), saved[1])


def through_pickle(saved, template, tmp_path):
    return pickle.loads(pickle.dumps(saved))  # noqa: S301 -- its own data


def through_orbax(saved, template, tmp_path):
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", saved)
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(tmp_path / "state", template)


def through_flax(saved, template, tmp_path):
    from flax import serialization

    return serialization.from_bytes(template, serialization.to_bytes(saved))


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("through", [through_pickle, through_orbax, through_flax])
@pytest.mark.parametrize("name", RESUMED)
def test_resuming_is_bit_identical_and_keeps_the_groups(name, through, tmp_path):
    saved, whole = half_and_whole(name)
    again = optax.chain(clipping.jax.transformation(RESUMED[name]()), optax.adam(0.05))
    restored = through(saved, (PARAMS, again.init(PARAMS)), tmp_path)
    assert jax.tree.structure(restored) == jax.tree.structure(saved)
    assert_equal(train(again, restored[0], range(13, 30), restored[1]), whole)
    with capture(("smartclip", "clip", "group")) as events:
        clipping.jax.emit(saved[1])
        clipping.jax.emit(restored[1])
    names = [event.metadata["key"] for event in events]
    assert names[: len(names) // 2] == names[len(names) // 2 :] != []


def advance_scanned(transformation, state):
    def step(state, _):
        return transformation.update(PARAMS, state)[1], None

    return jax.jit(lambda state: jax.lax.scan(step, state, None, length=2)[0])(state)


def advance_accumulating(transformation, state):
    accumulating = optax.MultiSteps(transformation, 2)
    outer = accumulating.init(PARAMS)._replace(inner_opt_state=state)
    for _ in range(2):
        _, outer = jax.jit(accumulating.update)(PARAMS, outer, PARAMS)
    return outer.inner_opt_state


def advance_by_hand(transformation, state):
    return jax.jit(transformation.update)(PARAMS, state)[1]


@pytest.mark.parametrize("through", [through_pickle, through_flax])
@pytest.mark.parametrize("advance", [advance_scanned, advance_by_hand])
def test_a_restored_state_takes_the_options_of_the_present_clipper(advance, through, tmp_path):
    before = clipping.jax.transformation(clipper(dry_run=True))
    after = clipping.jax.transformation(clipper(on_nonfinite="zero"))
    restored = through(before.init(PARAMS), after.init(PARAMS), tmp_path)
    state = advance(after, restored)
    with capture(("smartclip", "clip", "stop")) as events:
        clipping.jax.emit(state)
    assert events[0].metadata["dry_run"] is False
    assert (state.about.policy, state.about.dry_run) == ("zero", False)
    assert jax.tree.structure(state) == jax.tree.structure(before.init(PARAMS))
    assert state.about == restored.about  # a tuple compares all by default


def test_a_restored_state_accumulates_with_the_options_of_the_present_clipper():
    before = clipping.jax.transformation(clipper(dry_run=True))
    after = clipping.jax.transformation(clipper())
    restored = before.init(PARAMS)
    assert advance_accumulating(after, restored).clipper.steps == 1
    # Its branch that does not step has the options that the state came with.
    structure = jax.tree.structure(after.init(PARAMS))
    renewed = jax.tree.unflatten(structure, jax.tree.leaves(restored))
    assert advance_accumulating(after, renewed).about.dry_run is False


def test_a_pickled_state_is_understood_by_a_new_process(tmp_path):
    transformation = clipping.jax.transformation(clipper(scope="per_layer"))
    _, state = transformation.update(PARAMS, transformation.init(PARAMS))
    (tmp_path / "state.pkl").write_bytes(pickle.dumps(state))
    program = (
        "import pickle, sys, clipping, telemetry\n"
        "state = pickle.load(open(sys.argv[1], 'rb'))\n"
        "with telemetry.testing.capture(('smartclip', 'clip', 'group')) as events:\n"
        "    clipping.jax.emit(state)\n"
        "print(*(e.metadata['key'][1] for e in events))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "state.pkl"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["dense"]


def test_state_dict_moves_into_a_clipper():
    source = clipper()
    _, state = train(optax.chain(clipping.jax.transformation(source), optax.sgd(0.05)))
    saved = clipping.jax.state_dict(state, source)
    target = clipper()
    target.load_state_dict(saved)
    assert target.state_dict() == saved
    assert saved["steps"] == 30
    assert target.threshold_any() == float(state[0].clipper.threshold[0])


def test_state_dict_wants_one_state_of_its_clipper():
    transformation = clipping.jax.transformation(clipper())
    state = transformation.init(PARAMS)
    with pytest.raises(ValueError, match=r"There must be one state .*, got 2\. Give the part"):
        clipping.jax.state_dict((state, state), clipper())
    with pytest.raises(
        ValueError,
        match=r"The state is of algo and scope \('autoclip', 'global'\), the clipper of "
        r"\('zscore', 'global'\)\. Give the clipper that transformation\(\) was given\.",
    ):
        clipping.jax.state_dict(state, clipping.ZScoreClip())


def plain():
    return optax.chain(clipping.jax.transformation(clipper()), optax.sgd(0.05))


@pytest.mark.parametrize("wrap", ["inject", "multi_transform", "masked", "apply_if_finite"])
def test_wrapped_by_optax_it_trains_the_same(wrap):
    everything = jax.tree.map(lambda _: True, PARAMS)
    wrapped = {
        "inject": lambda: optax.inject_hyperparams(
            lambda learning_rate: optax.chain(
                clipping.jax.transformation(clipper()), optax.sgd(learning_rate)
            )
        )(learning_rate=0.05),
        # The label that nothing has gets a tree without leaves.
        "multi_transform": lambda: optax.multi_transform(
            {"a": plain(), "b": plain()}, jax.tree.map(lambda _: "a", PARAMS)
        ),
        "masked": lambda: optax.masked(plain(), everything),
        "apply_if_finite": lambda: optax.apply_if_finite(plain(), 3),
    }[wrap]()
    params, state = train(wrapped, steps=range(15))
    same, _ = train(plain(), steps=range(15))
    for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(same), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    with capture(("smartclip", "clip", "stop")) as events:
        clipping.jax.emit(state)
    assert len(events) == 1


def test_masked_clips_its_part_only():
    masked = optax.masked(
        clipping.jax.transformation(clipping.AGC(clipping=0.1, exclude_bias_bn=False)),
        {"a": True, "b": False},
    )
    params = {"a": jnp.ones(4), "b": jnp.ones(4)}  # of norm 2, so 0.2 is allowed
    updates, state = masked.update(params, masked.init(params), params)
    np.testing.assert_allclose(updates["a"], np.full(4, 0.1), rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], np.ones(4))
    assert state.inner_state.last.norms.shape == (1,)


def test_multi_steps_clips_the_mean_of_what_it_accumulates():
    accumulating = optax.MultiSteps(clipping.jax.transformation(clipper()), 2)
    params = {"w": jnp.zeros(1)}

    def step(state, norm):
        _, state = accumulating.update({"w": norm[None]}, state, params)
        return state, state

    norms = jnp.array([1.0, 3.0, 2.0, 6.0, 5.0, 5.0])
    _, stack = jax.lax.scan(step, accumulating.init(params), norms)
    with capture(("smartclip", "clip", "stop")) as events:
        clipping.jax.emit(stack)
    assert [e.measurements["grad_norm"] for e in events] == [2.0, 4.0, 5.0]
    assert [e.metadata["clipper_step"] for e in events] == [1, 2, 3]


def test_vmapped_members_have_histories_of_their_own():
    transformation = clipping.jax.transformation(clipper())
    params = {"w": jnp.zeros((3, 1))}
    state = jax.vmap(transformation.init)(params)
    update = jax.jit(jax.vmap(transformation.update))
    for size in (1.0, 1.0, 10.0):
        updates, state = update({"w": size * jnp.array([[1.0], [2.0], [4.0]])}, state)
    # The 60th percentile of 1, 1, 10 is 1 + 0.2 * 9.
    np.testing.assert_allclose(updates["w"][:, 0], 2.8 * np.array([1, 2, 4]), rtol=1e-6)
    with capture(("smartclip", "clip", "stop")) as events:
        clipping.jax.emit(state)
    assert [e.measurements["grad_norm"] for e in events] == [10.0, 20.0, 40.0]


@pytest.mark.parametrize("scope", clipping.AutoClip.scopes)
def test_gradients_of_another_shape_than_in_init_are_refused(scope):
    transformation = clipping.jax.transformation(clipper(scope=scope))
    state = transformation.init({"w": jnp.ones((3, 2))})
    with pytest.raises(ValueError, match=r"'w' has shape \(1, 2\), its parameter had \(3, 2\)"):
        jax.vmap(lambda g: transformation.update({"w": g}, state))(jnp.ones((4, 1, 2)))
    transformation.update({"w": jnp.ones((3, 2))}, state)


def test_map_params_finds_a_state_without_params_in_it():
    optimizer = optax.chain(clipping.jax.transformation(clipper()), optax.trace(0.9))
    state = optimizer.init(PARAMS)
    doubled = optax.tree.map_params(optimizer, lambda x: x + 1, state)
    assert jax.tree.structure(doubled) == jax.tree.structure(state)
    assert_equal(doubled[0], state[0])
    np.testing.assert_array_equal(doubled[1].trace["dense"]["bias"], [1, 1])


@pytest.mark.parametrize("nothing", [{}, {"a": None}, {"a": optax.MaskedNode()}])
def test_trees_without_leaves_are_passed_through(nothing):
    transformation = clipping.jax.transformation(clipper())
    updates, state = transformation.update(nothing, transformation.init(nothing), nothing)
    assert jax.tree.structure(updates) == jax.tree.structure(nothing)
    with pytest.raises(ValueError, match="no state of this transformation for gradients"):
        transformation.update({"a": jnp.ones(1)}, state)


def test_none_leaves_are_passed_through():
    transformation = clipping.jax.transformation(clipper())
    params = {"a": jnp.ones(2), "b": None}
    updates, _ = transformation.update(params, transformation.init(params))
    assert updates["b"] is None


def test_with_64_bits_enabled_the_state_stays_in_32():
    with jax.enable_x64(new_val=True):
        transformation = clipping.jax.transformation(clipper())
        params = {"w": jnp.array([3.0, 4.0])}
        assert params["w"].dtype == jnp.float64
        updates, state = jax.lax.scan(
            lambda s, g: transformation.update({"w": g}, s)[::-1],
            transformation.init(params),
            jnp.stack([params["w"]] * 3),
        )[::-1]
        assert updates["w"].dtype == jnp.float64
        dtypes = {x.dtype.name for x in jax.tree.leaves(state)}
    assert dtypes == {"float32", "int32", "bool"}


def test_flax_train_state_and_nnx_optimizer():
    from flax import nnx
    from flax.training.train_state import TrainState

    state = TrainState.create(apply_fn=None, params=PARAMS, tx=plain())
    state = jax.jit(lambda s, x: s.apply_gradients(grads=jax.grad(loss)(s.params, x)))(
        state, INPUTS[0]
    )
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    model.kernel[...], model.bias[...] = PARAMS["dense"]["kernel"], PARAMS["dense"]["bias"]
    of_layers = clipping.jax.transformation(clipper(scope="per_layer"))
    optimizer = nnx.Optimizer(model, optax.chain(of_layers, optax.sgd(0.05)), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x):
        grads = nnx.grad(lambda model: jnp.mean((model(x) - 1) ** 2))(model)
        optimizer.update(model, grads)

    step(model, optimizer, INPUTS[0])
    np.testing.assert_allclose(model.kernel[...], state.params["dense"]["kernel"], rtol=1e-6)
    with capture(("smartclip", "clip", "*")) as events:
        clipping.jax.emit(state)
        clipping.jax.emit(optimizer.opt_state)
    group, stop, of_layer, last = events
    assert group.metadata["key"] == ("global",)
    assert of_layer.metadata["key"] == ("layer", "root")
    np.testing.assert_allclose(
        float(stop.measurements["grad_norm"]), float(last.measurements["grad_norm"]), rtol=1e-6
    )


def test_layers_are_the_paths_above_the_leaves():
    params = {
        "params": {"Dense_0": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}},
        "scale": jnp.ones(1),
        "blocks": [{"w": jnp.ones(1)}],
    }
    state = clipping.jax.transformation(clipper(scope="per_layer")).init(params)
    names = [name[1] for name in state.about.groups.names]
    assert names == ["blocks/0", "params/Dense_0", "root"]
    state = clipping.jax.transformation(clipper(scope="per_param")).init(params)
    assert state.about.groups.names == tuple(("param", str(i)) for i in range(4))


class Attention(NamedTuple):
    query: object
    key: object
    value: object


@pytest.mark.parametrize("query", [jnp.ones(1), None])
def test_a_field_named_value_is_no_box(query):
    from flax import linen as nn
    from flax import nnx

    params = {
        "block": {"attn": Attention(query, None, jnp.ones(1))},
        "dense": {"boxed": nn.Partitioned(jnp.ones(1), names=("a",)), "var": nnx.Param(1.0)},
    }
    transformation = clipping.jax.transformation(clipper(scope="per_layer"))
    state = transformation.init(params)
    assert [name[1] for name in state.about.groups.names] == ["block/attn", "dense"]
    assert state.about.paths[-3:] == ["block/attn/value", "dense/boxed", "dense/var"]
    eager = clipper(scope="per_layer")
    attn = {"attn": Attention(jnp.ones(1), None, jnp.ones(1))}
    clipping.jax.apply_grads({"attn": Attention(None, None, jnp.ones(1))}, attn, eager)
    assert eager.state_dict()["keys"] == [["layer", "attn"]]


def test_policy_raise_is_refused():
    with pytest.raises(ValueError, match="cannot raise") as caught:
        clipping.jax.transformation(clipper(on_nonfinite="raise"))
    assert str(caught.value) == (
        "on_nonfinite='raise' cannot raise from inside a compiled function. Allowed in a "
        "transformation: 'skip', 'zero' and 'propagate'; or clip eagerly with "
        "clipping.jax.apply_grads()."
    )
    clipping.jax.transformation(clipper(on_nonfinite="raise", dry_run=True))


def update(grads, params=PARAMS, using=None, state_of=None, given=None):
    transformation = clipping.jax.transformation(using or clipper())
    maker = clipping.jax.transformation(state_of) if state_of else transformation
    state = maker.init(params)
    return jax.jit(transformation.update)(grads, state, given)


AGC = clipping.AGC(scope="per_unit", exclude_bias_bn=False)


@pytest.mark.parametrize(
    ("misuse", "error", "message"),
    [
        (
            lambda: update(PARAMS, using=AGC),
            ValueError,
            (
                "AGC holds gradients against weights, but update() got no params. Call "
                "update(grads, state, params). The gradients are untouched."
            ),
        ),
        (
            lambda: update({"dense": {"kernel": jnp.ones((2, 2))}}),
            ValueError,
            (
                "The tree of the gradients does not match that of the params given to init(): "
                "only gradients have [], only parameters ['dense/bias']. The gradients are "
                "untouched. Both must have the same paths; for gradients of a part of the "
                "parameters see optax.masked."
            ),
        ),
        (
            lambda: update({"w": jnp.ones(2)}, {"w": jnp.ones(2)}, AGC, given={"w": jnp.ones(3)}),
            ValueError,
            (
                "The gradient 'w' has shape (2,), its parameter (3,). They must be equal. The "
                "gradients are untouched."
            ),
        ),
        (
            lambda: update({"w": jnp.ones((2, 3))}, {"w": jnp.ones((2, 2))}, AGC),
            ValueError,
            (
                "The gradient 'w' has shape (2, 3), its parameter had (2, 2) in init(). They must "
                "be equal. The gradients are untouched. Inside shard_map give gradients that are "
                "not sharded; if update() is inside vmap or pmap, init() must be given what one "
                "member or device has."
            ),
        ),
        (
            lambda: update(PARAMS, using=clipper(window_size=16), state_of=clipper()),
            ValueError,
            (
                "The state holds a window of 8 norms, the clipper has window_size=16. They must "
                "be equal. The gradients are untouched. Give window_size=8, or begin anew with "
                "init(); for apply_grads() what was learned can be moved by "
                "clipping.jax.state_dict()."
            ),
        ),
        (
            lambda: update(PARAMS, state_of=clipping.ZScoreClip()),
            ValueError,
            (
                "The state is of algo and scope ('zscore', 'global'), the transformation of "
                "('autoclip', 'global'). Give the state that this transformation's init() or "
                "update() returned. The gradients are untouched."
            ),
        ),
        (
            lambda: update({"w": np.zeros(2, jax.dtypes.float0)}, {"w": jnp.ones(2)}),
            TypeError,
            (
                "updates['w'] must be an array of floating-point or complex numbers, got "
                "[('float0', 'V')]. The gradients are untouched. For integers among the "
                "parameters see optax.masked."
            ),
        ),
        (
            lambda: clipping.jax.transformation(clipper()).init({"step": jnp.ones(2, int)}),
            TypeError,
            (
                "params['step'] must be an array of floating-point or complex numbers, got "
                "int32. The gradients are untouched. For integers among the parameters see "
                "optax.masked."
            ),
        ),
    ],
    ids=["no params", "part", "shape", "units", "window", "another", "float0", "integers"],
)
def test_misuse_is_refused_when_it_is_traced(misuse, error, message):
    with pytest.raises(error) as caught:
        misuse()
    assert str(caught.value) == message

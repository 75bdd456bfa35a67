"""Several devices: four of the CPU, in a process of its own that runs this file."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import clipping
from telemetry.testing import capture

rng = np.random.default_rng(0)
WEIGHTS = {"a": np.float32(rng.normal(size=(8, 4))), "b": np.float32(rng.normal(size=8))}
SPECS = {"a": P("d", None), "b": P()}
GRADS = [
    {"a": np.float32(rng.normal(size=(8, 4)) * s), "b": np.float32(rng.normal(size=8) * s)}
    for s in (1.0, 1.1, 9.0, 1.0)
]
MESH = Mesh(np.array(jax.devices()), ("d",))
CLIPPERS = [
    lambda: clipping.AutoClip(
        mode="percentile", percentile=50.0, history="window", warmup_steps=0, min_history=1
    ),
    lambda: clipping.AGC(clipping=0.2, scope="per_unit", exclude_bias_bn=False),
]


def one_device(make):
    """What NumPy makes of it."""
    clipper = make()
    return [clipping.numpy.apply_grads(grads, WEIGHTS, clipper) for grads in GRADS]


def assert_close(got, wanted):
    for name in wanted:
        np.testing.assert_allclose(np.asarray(got[name]), wanted[name], rtol=1e-4, atol=1e-7)


def placed(tree):
    return {n: jax.device_put(x, NamedSharding(MESH, SPECS[n])) for n, x in tree.items()}


def sharded():
    """Under jit norms are of the whole, whatever the sharding."""
    for make in CLIPPERS:
        transformation = clipping.jax.transformation(make())
        weights, eager = placed(WEIGHTS), make()
        state, update = transformation.init(weights), jax.jit(transformation.update)
        for grads, wanted in zip(GRADS, one_device(make), strict=True):
            updates, state = update(placed(grads), state, weights)
            assert updates["a"].sharding.spec == P("d", None) or updates["a"].sharding.spec == P(
                "d"
            )
            assert_close(updates, wanted)
            assert_close(clipping.jax.apply_grads(placed(grads), weights, eager), wanted)
        with capture(("smartclip", "clip", "stop")) as events:
            clipping.jax.emit(state)
        norm = np.sqrt(sum((g.astype(float) ** 2).sum() for g in GRADS[-1].values()))
        np.testing.assert_allclose(float(events[0].measurements["grad_norm"]), norm, rtol=1e-5)
        assert len(events[0].measurements["grad_norm"].devices()) == 1


def parts(grads):
    """Gradients of four devices whose mean they are."""
    noise = [{n: np.float32(rng.normal(size=g.shape)) for n, g in grads.items()} for _ in range(3)]
    last = {n: 4 * g - sum(part[n] for part in noise) for n, g in grads.items()}
    return {n: np.stack([part[n] for part in (*noise, last)]) for n in grads}


def pmap():
    """Averaged gradients give replicas that are equal, of which one is emitted."""
    transformation = clipping.jax.transformation(CLIPPERS[0]())
    state = jax.tree.map(lambda x: jnp.stack([x] * 4), transformation.init(WEIGHTS))
    update = jax.pmap(lambda g, s: transformation.update(jax.lax.pmean(g, "d"), s), axis_name="d")
    for grads, wanted in zip(GRADS, one_device(CLIPPERS[0]), strict=True):
        updates, state = update(parts(grads), state)
        for device in range(4):
            assert_close({n: u[device] for n, u in updates.items()}, wanted)
    with capture(("smartclip", "clip", "stop")) as events:
        clipping.jax.emit(state)
    assert [e.metadata["clipper_step"] for e in events] == [4]


def shard_map():
    """Averaged gradients give one state."""
    transformation = clipping.jax.transformation(CLIPPERS[0]())
    state = transformation.init(WEIGHTS)

    @jax.jit
    @lambda f: jax.shard_map(f, mesh=MESH, in_specs=(P("d"), P()), out_specs=P())
    def update(grads, state):
        mean = jax.lax.pmean(jax.tree.map(lambda g: g[0], grads), "d")
        return transformation.update(mean, state)

    for grads, wanted in zip(GRADS, one_device(CLIPPERS[0]), strict=True):
        updates, state = update(parts(grads), state)
        assert_close(updates, wanted)
    with capture(("smartclip", "clip", "stop")) as events:
        clipping.jax.emit(state)
    assert len(events) == 1


def unaveraged():
    """What is sharded inside shard_map is refused, also where JAX does not check."""
    for make in (*CLIPPERS, lambda: clipping.AGC(scope="per_layer", exclude_bias_bn=False)):
        transformation = clipping.jax.transformation(make())
        specs = {"mesh": MESH, "in_specs": (SPECS, P(), SPECS), "out_specs": (SPECS, P())}
        update = jax.shard_map(transformation.update, **specs, check_vma=False)
        with pytest.raises(ValueError, match="Inside shard_map give gradients that are not"):
            update(GRADS[0], transformation.init(WEIGHTS), WEIGHTS)


def mixed():
    """Gradients on several devices are refused, and the clipper goes on."""
    clipper, devices = CLIPPERS[0](), jax.devices()
    apart = {n: jax.device_put(g, d) for (n, g), d in zip(GRADS[0].items(), devices, strict=False)}
    with pytest.raises(ValueError, match="incompatible devices"):
        clipping.jax.apply_grads(apart, WEIGHTS, clipper)
    clipping.jax.apply_grads(GRADS[0], WEIGHTS, clipper)
    assert clipper.state_dict()["steps"] == 1


CHECKS = (sharded, pmap, shard_map, unaveraged, mixed)


def test_several_devices_give_what_one_gives():
    flags = "--xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__],
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [check.__name__ for check in CHECKS]


if __name__ == "__main__":
    for check in CHECKS:
        check()
        print(check.__name__)

"""What clipping costs under ``jit``, beside optax: state donated, every step clipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import clipping
import telemetry
from benchmarks.table import Bound, print_table
from benchmarks.timing import WALL_NS, Contender, measure

OPTAX = "optax.clip_by_global_norm"
GLOBAL = "AutoClip, window of 1,024"
HEARD = f"{GLOBAL}, emit, a handler"
OPTAX_AGC = "optax.adaptive_grad_clip"
AGC = "AGC, per_unit"
LIMIT = 1.3
STOP = ("smartclip", "clip", "stop")
Shapes = Sequence[tuple[int, ...]]


def run(rounds: int) -> None:
    rounds = max(5, rounds // 5)  # a call takes as long as hundreds of those of the other tables
    bounds = [Bound(GLOBAL, OPTAX, LIMIT), Bound(HEARD, OPTAX, LIMIT), Bound(AGC, OPTAX_AGC, LIMIT)]
    for title, shapes in MODELS.items():
        makers: list[tuple[str, Callable[[Any], Any]]] = [
            (OPTAX, lambda params: _step(optax.clip_by_global_norm(1.0), params)),
            (GLOBAL, lambda params: _step(*_full(clipping.AutoClip(), params))),
            (HEARD, lambda params: _heard(*_full(clipping.AutoClip(), params))),
            (OPTAX_AGC, lambda params: _step(optax.adaptive_grad_clip(0.01), params)),
            (AGC, lambda params: _step(_agc(), params)),
        ]
        _compare(f"clipping in jax, {title} (wall time)", shapes, makers, OPTAX, bounds, rounds)
    groups: list[tuple[str, Callable[[Any], Any]]] = [
        (OPTAX, lambda params: _step(optax.clip_by_global_norm(1.0), params)),
        ("AutoClip, per_param", lambda params: _step(*_full(_by_param(), params))),
        ("ZScoreClip, per_param", lambda params: _step(_zscore(), params)),
    ]
    _compare(
        "clipping in jax, 200 of 64x64 (wall time)", [(64, 64)] * 200, groups, OPTAX, (), rounds
    )


def _compare(
    title: str,
    shapes: Shapes,
    makers: Sequence[tuple[str, Callable[[Any], Any]]],
    peer: str,
    bounds: Sequence[Bound],
    rounds: int,
) -> None:
    rng = np.random.default_rng(0)
    grads = {
        f"p{i:04d}": jnp.asarray(rng.normal(size=s), jnp.float32) for i, s in enumerate(shapes)
    }
    params = jax.tree.map(lambda g: 10 * g, grads)
    contenders = [
        Contender(
            name, "step(grads, params)", {"step": make(params), "grads": grads, "params": params}
        )
        for name, make in makers
    ]
    with telemetry.attach("benchmarks", STOP, lambda *_: None):
        print_table(title, measure(contenders, rounds, WALL_NS), peer, bounds)


def _step(tx: Any, params: Any, state: Any = None) -> Callable[[Any, Any], Any]:
    return _stepping(tx, tx.init(params) if state is None else state)[0]


def _heard(tx: Any, params: Any, state: Any) -> Callable[[Any, Any], None]:
    step, held = _stepping(tx, state)

    def step_and_emit(grads: Any, params: Any) -> None:
        step(grads, params)
        clipping.jax.emit(held[0])

    return step_and_emit


def _stepping(tx: Any, state: Any) -> tuple[Callable[[Any, Any], None], list[Any]]:
    update = jax.jit(tx.update, donate_argnums=1)
    held = [state]

    def step(grads: Any, params: Any) -> None:
        updates, held[0] = update(grads, held[0], params)
        jax.block_until_ready((updates, held[0]))

    return step, held


def _full(clipper: clipping.AutoClip, params: Any) -> tuple[Any, Any, Any]:
    """A transformation and its state after 5,000 steps of small norms."""
    tx = clipping.jax.transformation(clipper)
    state = tx.init(params)
    ring, count = state.clipper.history
    rng = np.random.default_rng(1)
    history = state.clipper.history._replace(
        ring=jnp.asarray(rng.normal(1, 0.1, size=ring.shape), jnp.float32),
        count=jnp.full_like(count, 5000),
    )
    known = state.clipper._replace(steps=jnp.full_like(state.clipper.steps, 5000), history=history)
    return tx, params, state._replace(clipper=known)


def _agc() -> Any:
    return clipping.jax.transformation(clipping.AGC(scope="per_unit", exclude_bias_bn=False))


def _by_param() -> clipping.AutoClip:
    return clipping.AutoClip(scope="per_param")


def _zscore() -> Any:
    return clipping.jax.transformation(clipping.ZScoreClip(scope="per_param"))


def _resnet50() -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = [(7, 7, 3, 64), (64,), (64,)]
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            convolutions = [(1, 1, inputs, width), (3, 3, width, width), (1, 1, width, 4 * width)]
            convolutions += [] if block else [(1, 1, inputs, 4 * width)]
            for shape in convolutions:
                shapes += [shape, shape[-1:], shape[-1:]]
            inputs = 4 * width
    return [*shapes, (2048, 1000), (1000,)]


def _gpt2() -> list[tuple[int, ...]]:
    width = 768
    norm: list[tuple[int, ...]] = [(width,), (width,)]
    dense = ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width))
    block = [*norm, *norm, *(shape for kernel in dense for shape in (kernel, kernel[-1:]))]
    return [(50257, width), (1024, width), *block * 12, *norm]


MODELS = {
    "ResNet-50": _resnet50(),
    "GPT-2 small": _gpt2(),
    "2,000 of 64x64": [(64, 64)] * 2000,
}

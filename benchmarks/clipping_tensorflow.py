"""What clipping costs inside a ``tf.function``, beside ``tf.clip_by_global_norm``.

One thread; wall time, because TensorFlow works in threads of its own. Every step is clipped, out of
full histories of 1,024 norms a group. ``emit`` with a handler attached is timed on its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped] # it ships no types

import clipping
import clipping.tensorflow as sc_tf
import telemetry
from benchmarks.clipping_torch import SHAPES
from benchmarks.table import Bound, print_table
from benchmarks.timing import WALL_NS, Contender, measure

PEER = "tf.clip_by_global_norm"
OURS = "AutoClip auto global"
LIMIT = 1.5
WINDOW = 1024
FEW = 0.02
"""The norms in the histories, as a share of the gradients' own."""
STOP = ("smartclip", "clip", "stop")


def run(rounds: int) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    for title, shapes in SHAPES.items():
        _run_on(title, shapes(), max(5, rounds // 15))


def _run_on(title: str, shapes: list[tuple[int, ...]], rounds: int) -> None:
    rng = np.random.default_rng(0)
    grads = [tf.constant(rng.standard_normal(shape, np.float32)) for shape in shapes]
    weights = [tf.Variable(tf.ones(shape), name=f"{i // 2}/w") for i, shape in enumerate(shapes)]
    clippers = {name: _filled(make(), weights) for name, make in _cases(many=len(shapes) == 2000)}
    steps = {PEER: _compiled(lambda given: tf.clip_by_global_norm(given, 1e-3)[0])}
    steps |= {name: _ours(clipper, weights) for name, clipper in clippers.items()}
    for name, step in steps.items():
        clipped = step(grads)
        if tf.linalg.global_norm(clipped) > 0.5 * tf.linalg.global_norm(grads):
            raise RuntimeError(f"{name} does not clip")
    contenders = [
        Contender(name, "step(grads)", {"step": s, "grads": grads}) for name, s in steps.items()
    ]
    names = {"apply_grads": sc_tf.apply_grads, "clipper": _filled(clipping.AutoClip(), weights)}
    names |= {"grads": grads, "weights": weights}
    eager = Contender(f"{OURS}, eager", "apply_grads(grads, weights, clipper)", names)
    emit = {"emit": sc_tf.emit, "clipper": clippers[OURS]}
    sending = Contender("emit, a handler hears stop", "emit(clipper)", emit)
    with telemetry.attach("benchmark", STOP, lambda *_: None):
        results = measure([*contenders, eager, sending], rounds, WALL_NS)
    heading = f"clipping on tensorflow, {title} (wall time, {rounds} rounds)"
    print_table(heading, results, PEER, [Bound(OURS, PEER, LIMIT)])


def _cases(*, many: bool) -> Iterator[tuple[str, Callable[[], clipping.Clipper]]]:
    yield OURS, clipping.AutoClip
    yield "ZScoreClip global", clipping.ZScoreClip
    yield "AutoClip auto per_param", partial(clipping.AutoClip, scope="per_param")
    if not many:  # each of them takes a minute to trace there
        percentile = partial(clipping.AutoClip, mode="percentile", percentile=10.0)
        yield "AutoClip window global", partial(percentile, history="window")
        yield "AutoClip ema global", partial(percentile, history="ema")
        yield "AutoClip auto per_layer", partial(clipping.AutoClip, scope="per_layer")
        agc = partial(clipping.AGC, exclude_bias_bn=False)
        yield "AGC per_param", partial(agc, scope="per_param", clipping=1e-3)
        yield "AGC per_unit", partial(agc, scope="per_unit", clipping=1e-3)


def _compiled(function: Callable[[list[Any]], list[Any]]) -> Callable[[list[Any]], list[Any]]:
    step: Callable[[list[Any]], list[Any]] = tf.function(function, autograph=False)
    return step


def _ours(clipper: clipping.Clipper, weights: list[Any]) -> Callable[[list[Any]], list[Any]]:
    return _compiled(lambda grads: sc_tf.apply_grads(grads, weights, clipper))


def _filled(clipper: clipping.Clipper, weights: list[Any]) -> clipping.Clipper:
    """A clipper with a full history."""
    sc_tf.variables(clipper, weights)
    state = clipper.state_dict()
    groups, size = len(state["keys"]), sum(int(tf.size(weight)) for weight in weights)
    norm = FEW * math.sqrt(size) / groups
    noise = np.random.default_rng(0).lognormal(0.0, 0.1, WINDOW) * norm
    full: dict[str, Any] = {
        "means": norm,
        "variances": (0.1 * norm) ** 2,
        "norms": noise.tolist(),
        "counts": WINDOW,
        "thresholds": norm,
    }
    state |= {name: [full[name]] * groups for name in state.keys() & full.keys()}
    clipper.load_state_dict(state | {"steps": WINDOW})
    return clipper

"""What `benchmarks.callback_keras` runs on each backend of Keras, in a process of its own.

``KERAS_BACKEND=torch python -m benchmarks.keras_fits 15``
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import keras
import numpy as np

import telemetry
from benchmarks.timing import THREAD_CPU_NS, Contender, measure
from telemetry.integrations.keras import TelemetryCallback
from telemetry.runs import RUN_META

STEPS = 400
LIMIT_US = 20.0


def main() -> None:
    rounds, backend = int(sys.argv[1]), keras.backend.backend()
    plain, watched = _model(), _model()
    fits: dict[str, Callable[[], float]] = {
        "fit": lambda: _fit(plain),
        "fit, with a Callback that does nothing": lambda: _fit(plain, keras.callbacks.Callback()),
        "fit, with the TelemetryCallback": lambda: _fit(watched, _callback()),
    }
    with telemetry.attach("nobody", telemetry.ALL, _nothing):
        samples = [[fit() for fit in fits.values()] for _ in range(max(3, rounds // 8) + 1)]
        hooks = _hooks(rounds)
    del samples[0]  # compiles
    print(f"trainbus TelemetryCallback in Keras on {backend}, us per step ({len(samples)} rounds)")
    for name, column in zip(fits, zip(*samples, strict=True), strict=True):
        print(f"  {name:<42}{median(column):>9.1f}")
    added = median(ours - empty for _, empty, ours in samples)
    for name, cost in (("added to a Callback's own", added), ("its hooks by themselves", hooks)):
        print(f"  {name:<42}{cost:>9.1f}   bound <= {LIMIT_US:.0f}")
    print(flush=True)


def _model() -> Any:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), loss="mse")
    return model


def _fit(model: Any, *callbacks: Any) -> float:
    marks: list[int] = []
    stopwatch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: marks.append(time.thread_time_ns()),
        on_epoch_end=lambda *_: marks.append(time.thread_time_ns()),
    )
    rows, targets = np.zeros((STEPS * 8, 4), "float32"), np.zeros((STEPS * 8, 1), "float32")
    model.fit(rows, targets, batch_size=8, verbose=0, callbacks=[*callbacks, stopwatch])
    return (marks[1] - marks[0]) / 1e3 / STEPS


def _hooks(rounds: int) -> float:
    """All that happens in a step, around one that does nothing, called by hand in a fit."""
    rows, targets = np.zeros((8, 4), "float32"), np.zeros((8, 1), "float32")
    model, callback, logs = _model(), _callback(), {"loss": keras.ops.ones(())}

    def on_jax(state: Any, iterator: Any) -> Any:
        next(iterator)
        return logs, state

    class Tries(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            step = on_jax if keras.backend.backend() == "jax" else lambda _: logs
            self._model.train_function = step
            callback.on_train_batch_begin(0)
            self.ns = _cost(callback, self._model.train_function, _arguments(model, rows, targets))
            raise KeyboardInterrupt

    def _cost(callback: Any, step: Any, arguments: Any) -> float:
        def one_step() -> None:
            callback.on_train_batch_begin(0)
            step(*arguments)
            callback.on_train_batch_end(0, logs)

        names = {"one_step": one_step}
        return measure([Contender("hooks", "one_step()", names)], rounds, THREAD_CPU_NS)[0].ns

    tries = Tries()
    with contextlib.suppress(KeyboardInterrupt):
        model.fit(rows, targets, verbose=0, callbacks=[callback, tries])
    return tries.ns / 1e3


def _arguments(model: Any, *batch: Any) -> Any:
    """What Keras would call a step with, on its backend."""
    if keras.backend.backend() == "torch":
        return ([tuple(map(keras.ops.convert_to_tensor, batch))],)
    if keras.backend.backend() == "tensorflow":
        return (None,)
    optimizer = [variable.value for variable in model.optimizer.variables]
    return ([], [], optimizer, []), itertools.repeat(batch)


def _callback() -> Any:
    return TelemetryCallback(without=RUN_META)


def _nothing(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
    """Listen."""


if __name__ == "__main__":
    main()

"""What `telemetry.integrations.lightning.TelemetryCallback` adds to an optimizer step.

In one fit the callback is asleep in every other block of steps, so that whatever disturbs the steps
with it disturbs those without it. One handler, which does nothing, hears everything.
"""

from __future__ import annotations

import logging
import time
import warnings
from statistics import median
from typing import Any, Final

import lightning.pytorch as pl
import torch

import telemetry
from benchmarks.timing import THREAD_CPU_NS, Contender, measure
from telemetry.integrations.lightning import TelemetryCallback
from telemetry.runs import RUN_META

BLOCK: Final = 20
UNSETTLED: Final = 4
"""Steps at the start of a block that are not looked at."""
LIMIT_US: Final = 20


class Tiny(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Sleeper(TelemetryCallback):
    """Does nothing in a step while it is asleep, as a Callback that overrides nothing."""

    asleep = False

    def on_train_batch_start(self, *arguments: Any) -> None:
        if not self.asleep:
            super().on_train_batch_start(*arguments)

    def on_before_optimizer_step(self, *arguments: Any) -> None:
        if not self.asleep:
            super().on_before_optimizer_step(*arguments)

    def on_train_batch_end(self, *arguments: Any) -> None:
        if not self.asleep:
            super().on_train_batch_end(*arguments)


class Timed(TelemetryCallback):
    """Adds up what a step spends in its hooks."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.steps: list[float] = []
        self._spent = 0

    def on_train_batch_start(self, *arguments: Any) -> None:
        since = time.perf_counter_ns()
        super().on_train_batch_start(*arguments)
        self._spent = time.perf_counter_ns() - since

    def on_before_optimizer_step(self, *arguments: Any) -> None:
        since = time.perf_counter_ns()
        super().on_before_optimizer_step(*arguments)
        self._spent += time.perf_counter_ns() - since

    def on_train_batch_end(self, *arguments: Any) -> None:
        since = time.perf_counter_ns()
        super().on_train_batch_end(*arguments)
        self.steps.append((self._spent + time.perf_counter_ns() - since) / 1e3)


class Stopwatch(pl.Callback):
    """The thread's own time of each step, by blocks; wakes the sleeper and sends it to sleep."""

    def __init__(self, sleeper: Sleeper) -> None:
        self.awake: list[float] = []
        self.asleep: list[float] = []
        self._sleeper = sleeper
        self._steps: list[int] = []
        self._since = 0

    def on_train_batch_end(self, *_: Any) -> None:
        self._steps.append(time.thread_time_ns() - self._since)
        if len(self._steps) == BLOCK:
            into = self.asleep if self._sleeper.asleep else self.awake
            into.append(median(self._steps[UNSETTLED:]) / 1e3)
            self._steps = []
            self._sleeper.asleep = not self._sleeper.asleep
        self._since = time.thread_time_ns()


class Tries(pl.Callback):
    """The hooks of one step, one after the other, again and again."""

    def __init__(self, callback: TelemetryCallback, rounds: int) -> None:
        self.us = 0.0
        self._callback, self._rounds = callback, rounds

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        callback, optimizer = self._callback, trainer.optimizers[0]
        batch, outputs = [torch.zeros(8, 4)], {"loss": torch.ones(())}

        def one_step() -> None:
            callback.on_train_batch_start(trainer, module, batch, 0)
            callback.on_before_optimizer_step(trainer, module, optimizer)
            callback.on_train_batch_end(trainer, module, outputs, batch, 0)

        hooks = Contender("hooks", "one_step()", {"one_step": one_step})
        self.us = measure([hooks], self._rounds, THREAD_CPU_NS)[0].ns / 1e3


def run(rounds: int) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings(), telemetry.attach("nobody", telemetry.ALL, _nothing):
            warnings.simplefilter("ignore")
            _report(rounds)
    finally:
        torch.set_num_threads(threads)


def _report(rounds: int) -> None:
    sleeper = Sleeper(without=RUN_META)
    stopwatch = Stopwatch(sleeper)
    _fit(2 * BLOCK * rounds, sleeper, stopwatch)
    added = median(b - a for a, b in zip(stopwatch.asleep, stopwatch.awake, strict=True))
    timed = Timed(without=RUN_META)
    _fit(BLOCK * rounds, timed)
    alone = TelemetryCallback(without=RUN_META)
    tries = Tries(alone, rounds)
    _fit(1, alone, tries)
    print(f"trainbus TelemetryCallback in Lightning, us a step (thread CPU time, {rounds} rounds)")
    print(f"  {'asleep':<46}{median(stopwatch.asleep):>8.1f}")
    print(f"  {'awake':<46}{median(stopwatch.awake):>8.1f}")
    costs = {
        "added, with what it displaces from the caches": added,
        "spent in its hooks": median(timed.steps),
        "its hooks by themselves": tries.us,
    }
    for name, cost in costs.items():
        verdict = "holds" if cost <= LIMIT_US else "BROKEN"
        print(f"  {name:<46}{cost:>8.1f}   bound <= {LIMIT_US} {verdict}")
    print()


def _fit(steps: int, *callbacks: pl.Callback) -> None:
    rows = torch.utils.data.TensorDataset(torch.zeros(8 * steps, 4))
    pl.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=1,
        callbacks=list(callbacks),
    ).fit(Tiny(), torch.utils.data.DataLoader(rows, batch_size=8))


def _nothing(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
    """Listen."""


if __name__ == "__main__":
    run(151)

"""What `telemetry.integrations.lightning.TelemetryCallback` adds to an optimizer step.

In one fit blocks of steps with it take turns with blocks of steps with an empty callback in its
place, and with none, so that whatever disturbs one disturbs all. One handler, which does nothing,
hears everything.
"""

from __future__ import annotations

import itertools
import logging
import time
import warnings
from statistics import mean, median
from typing import Any, Final

import lightning.pytorch as pl
import torch

import telemetry
from benchmarks.timing import THREAD_CPU_NS, Contender, measure
from telemetry.integrations.lightning import TelemetryCallback
from telemetry.runs import RUN_META

UNSETTLED: Final = 4
"""Steps at the start of a block that are not looked at."""
BLOCK: Final = UNSETTLED + 64
"""Steps, of which one adds up the losses of 64."""
LIMIT_US: Final = 20


class Tiny(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


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
    """The thread's own time of a step, by blocks; changes the callback beside it."""

    def __init__(self, ours: TelemetryCallback) -> None:
        self.blocks: dict[str, list[float]] = {"none": [], "empty": [], "ours": []}
        self._lists = {"none": [self], "empty": [pl.Callback(), self], "ours": [ours, self]}
        self._turns = itertools.cycle(self.blocks)
        self._turn = next(self._turns)
        self._steps: list[int] = []
        self._since = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        vars(trainer)["callbacks"] = self._lists[self._turn]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._steps.append(time.thread_time_ns() - self._since)
        if len(self._steps) == BLOCK:
            self.blocks[self._turn].append(mean(self._steps[UNSETTLED:]) / 1e3)
            self._steps = []
            self._turn = next(self._turns)
            vars(trainer)["callbacks"] = self._lists[self._turn]
        self._since = time.thread_time_ns()

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        vars(trainer)["callbacks"] = self._lists["ours"]


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
    beside = TelemetryCallback(without=RUN_META)
    stopwatch = Stopwatch(beside)
    _fit(3 * BLOCK * rounds, beside, stopwatch)
    timed = Timed(without=RUN_META)
    _fit(BLOCK * rounds, timed)
    alone = TelemetryCallback(without=RUN_META)
    tries = Tries(alone, rounds)
    _fit(1, alone, tries)
    print(f"trainbus TelemetryCallback in Lightning, us a step (thread CPU time, {rounds} rounds)")
    none, empty, ours = stopwatch.blocks.values()
    for name, blocks in (("no callback", none), ("an empty Callback", empty), ("ours", ours)):
        print(f"  {name:<46}{median(blocks):>8.1f}")
    print(f"  {'ours, more than none':<46}{_more(ours, none):>8.1f}")
    costs = {
        "ours, more than an empty Callback": _more(ours, empty),
        "of that, spent in its hooks": _usual(timed.steps),
        "its hooks by themselves": tries.us,
    }
    for name, cost in costs.items():
        verdict = "holds" if cost <= LIMIT_US else "BROKEN"
        print(f"  {name:<46}{cost:>8.1f}   bound <= {LIMIT_US} {verdict}")
    print()


def _usual(steps: list[float]) -> float:
    whole = BLOCK - UNSETTLED
    return median(mean(steps[at : at + whole]) for at in range(whole, len(steps), whole))


def _more(blocks: list[float], peers: list[float]) -> float:
    return median(block - peer for block, peer in zip(blocks, peers, strict=True))


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

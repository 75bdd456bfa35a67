"""What the callback of transformers and the tracker of accelerate add to an optimizer step."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from statistics import median
from types import SimpleNamespace
from typing import Any

import accelerate
import torch
import transformers

import telemetry
from benchmarks.timing import THREAD_CPU_NS, Contender, measure
from telemetry.integrations.accelerate import TelemetryTracker
from telemetry.integrations.transformers import TelemetryCallback
from telemetry.integrations.transformers_watch import Watch
from telemetry.runs import RUN_META

STEPS = 300
ROUNDS = 15
LIMIT_US = 20.0


class Tiny(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def forward(self, x: torch.Tensor, return_loss: bool = True) -> dict[str, torch.Tensor]:
        return {"loss": self.layer(x).square().mean()}


class Stopwatch(transformers.TrainerCallback):
    """The thread's own time in the steps of a training, without what is around them."""

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.ns = -time.thread_time_ns()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.ns += time.thread_time_ns()


def run(rounds: int) -> None:
    warnings.simplefilter("ignore")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as directory:
            _report(directory, rounds)
    finally:
        torch.set_num_threads(threads)


def _report(directory: str, rounds: int) -> None:
    trainings: dict[str, Callable[[], float]] = {
        "train": lambda: _train(directory),
        "train, with a callback that does nothing": lambda: _train(
            directory, transformers.TrainerCallback()
        ),
        "train, with the TelemetryCallback": lambda: _train(directory, _callback()),
    }
    with telemetry.attach("nobody", telemetry.ALL, _nothing):
        _train(directory, _callback())  # what is imported or compiled once is in no round
        samples = [_round(trainings, number) for number in range(max(ROUNDS, rounds // 3))]
        hooks, log = _hooks(directory, rounds), _log(rounds)
    columns = {name: [sample[name] for sample in samples] for name in trainings}
    _, empty, ours = columns.values()
    added = [cost - peer for cost, peer in zip(ours, empty, strict=True)]
    print(f"trainbus in transformers and accelerate, us per step ({len(samples)} rounds)")
    print(f"  {'':<42}{'minimum':>9}{'median':>9}")
    for name, column in columns.items():
        print(f"  {name:<42}{min(column):>9.1f}{median(column):>9.1f}")
    costs = {
        "added to an empty callback's own": (min(ours) - min(empty), median(added)),
        "the TelemetryCallback's hooks": (min(hooks), median(hooks)),
        "accelerator.log to a TelemetryTracker": (min(log), median(log)),
    }
    for name, (least, usual) in costs.items():
        print(f"  {name:<42}{least:>9.1f}{usual:>9.1f}   bound <= {LIMIT_US:.0f}")
    print()


def _round(trainings: dict[str, Callable[[], float]], number: int) -> dict[str, float]:
    """Each once, in an order that rotates."""
    names = list(trainings)
    return {name: trainings[name]() for name in names[number % 3 :] + names[: number % 3]}


def _train(directory: str, *callbacks: transformers.TrainerCallback) -> float:
    stopwatch = Stopwatch()
    _trainer(directory, *callbacks, stopwatch).train()
    return stopwatch.ns / 1e3 / STEPS


def _hooks(directory: str, rounds: int) -> list[float]:
    """All that happens in an optimizer step of one batch, called by hand.

    A ``training_step`` that does nothing is called through what stands in for it.
    """
    callback, trainer = _callback(), _trainer(directory)
    args, state, control = trainer.args, trainer.state, trainer.control
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.1}])
    batch, loss = {"x": torch.zeros(8, 4)}, torch.ones(())
    trainer.training_step = lambda *_: loss
    watch = Watch(trainer)
    watch.take(callback)
    callback.on_train_begin(args, state, control, model=trainer.model)
    callback.on_epoch_begin(args, state, control)

    def one_step() -> None:
        callback.on_step_begin(args, state, control)
        trainer.training_step(trainer.model, batch)
        callback.on_pre_optimizer_step(args, state, control, optimizer=optimizer)
        state.global_step += 1
        callback.on_step_end(args, state, control)

    names = {"one_step": one_step}
    result = measure([Contender("hooks", "one_step()", names)], rounds, THREAD_CPU_NS)[0]
    watch.end()
    return [ns / 1e3 for ns in result.samples]


def _log(rounds: int) -> list[float]:
    tracker = TelemetryTracker("benchmark", without=RUN_META)
    accelerator = accelerate.Accelerator(cpu=True, log_with=tracker)
    accelerator.init_trackers("benchmark")
    names = {"log": accelerator.log, "values": {"train_loss": 2.5, "learning_rate": 0.1}}
    result = measure([Contender("log", "log(values, step=1)", names)], rounds, THREAD_CPU_NS)[0]
    accelerator.end_training()
    return [ns / 1e3 for ns in result.samples]


def _callback() -> TelemetryCallback:
    return TelemetryCallback(without=RUN_META)


def _trainer(directory: str, *callbacks: transformers.TrainerCallback) -> transformers.Trainer:
    arguments = transformers.TrainingArguments(
        directory,
        max_grad_norm=0.0,
        num_train_epochs=1,
        per_device_train_batch_size=1,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        dataloader_pin_memory=False,
    )
    data = [{"x": torch.zeros(4)}] * STEPS
    trainer = transformers.Trainer(Tiny(), arguments, train_dataset=data, callbacks=list(callbacks))
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _nothing(event: Any, measurements: Any, metadata: Any, config: Any) -> None:
    """Listen."""

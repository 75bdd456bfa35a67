"""The training run of the demo: attach, train, look, detach."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

import clipping
import handlers
import telemetry
from telemetry.demo.digits import Batch, batches, load_digits
from telemetry.demo.learners import LEARNERS, Learner
from telemetry.demo.picture import draw

BATCH_SIZE: Final = 64
PEAK_LR: Final = 0.2
CONSOLE_EVERY: Final = 20


@dataclass(frozen=True)
class Options:
    """What can be chosen on the command line."""

    backend: str
    epochs: int
    seed: int
    directory: Path
    every_step: bool


@dataclass(frozen=True)
class Result:
    """What the run has come to."""

    accuracy: float
    outcomes: Mapping[str, int]
    log: Path
    picture: Path


def count_outcomes(
    event: telemetry.EventName,
    measurements: Mapping[str, Any],
    metadata: Mapping[str, Any],
    outcomes: Counter[str],
) -> None:
    """A handler of our own: how often the clipper had to act."""
    outcomes[metadata["outcome"]] += 1


def run(options: Options) -> Result:
    """Train, with the console, a JSONL file and our own handler listening."""
    log = options.directory / "metrics.jsonl"
    picture = options.directory / "training.png"
    outcomes: Counter[str] = Counter()
    telemetry.attach("demo-outcomes", ("smartclip", "clip", "stop"), count_outcomes, outcomes)
    where = None if options.every_step else _is_worth_a_line
    with handlers.attach("console", where=where), handlers.attach("jsonl", path=log):
        accuracy = _train(options)
    telemetry.detach("demo-outcomes")
    draw(log, picture, f"{options.directory.name}: digits, {options.backend}")
    return Result(accuracy, outcomes, log, picture)


def _is_worth_a_line(
    event: telemetry.EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
) -> bool:
    return event != ("training", "step") or metadata["step"] % CONSOLE_EVERY == 0


def _train(options: Options) -> float:
    random = np.random.default_rng(options.seed)
    train, test = load_digits(random)
    learner = LEARNERS[options.backend](random)
    clipper = clipping.AutoClip(
        mode="percentile",
        history="window",
        percentile=90.0,
        window_size=50,
        warmup_steps=10,
        min_history=10,
    )
    with (
        telemetry.workflow_run("digits", run_id=options.directory.name),
        clipping.clip_context(learner.network, optimizer=learner.optimizer, clipper=clipper),
    ):
        return _train_epochs(learner, train, test, options.epochs, random)


def _train_epochs(
    learner: Learner, train: Batch, test: Batch, epochs: int, random: np.random.Generator
) -> float:
    accuracy = 0.0
    per_epoch = math.ceil(len(train.labels) / BATCH_SIZE)
    total_steps = epochs * per_epoch
    for epoch in range(1, epochs + 1):
        losses = []
        steps = telemetry.track(
            batches(train, BATCH_SIZE, random),
            epoch=epoch,
            start=(epoch - 1) * per_epoch,
            total_steps=total_steps,
        )
        for batch in steps:
            lr = PEAK_LR * (1 + math.cos(math.pi * (steps.step - 1) / total_steps)) / 2
            losses.append(_train_step(learner, batch, lr))
        accuracy = learner.accuracy(test)
        with telemetry.context(epoch=epoch, step=steps.step):
            telemetry.emit_eval(split="test", accuracy=accuracy)
            telemetry.emit_epoch(epoch_loss=sum(losses) / len(losses), total_epochs=epochs)
    return accuracy


def _train_step(learner: Learner, batch: Batch, lr: float) -> float:
    learner.set_lr(lr)
    output = learner.loss(batch)
    learner.backward(output)
    learner.optimizer.step()  # clips first
    telemetry.emit_step(loss=output.loss_total, lr=lr)
    return output.loss_total

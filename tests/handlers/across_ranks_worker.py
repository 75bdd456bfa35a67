"""What one rank of tests/handlers/test_across_ranks.py does; started by torchrun.

Each rank writes what it saw to ``<folder>/<rank>.json``.
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from across_ranks_sink import STEP, attach, emit, install, kept, left, reduced
from torch import distributed as dist

import handlers
import handlers.torch_ranks
import telemetry
from telemetry.metrics import counter, last_value

FAILURE = ("telemetry", "handler", "failure")
IS_HOST = handlers.torch_ranks.is_host
NAN, INF = float("nan"), float("inf")


class Counted:
    """Counts the calls of one function of torch.distributed."""

    def __init__(self, name):
        self.calls = 0
        self._function = getattr(dist, name)
        setattr(dist, name, self)

    def __call__(self, *arguments, **options):
        self.calls += 1
        return self._function(*arguments, **options)


def check_early(rank, world):
    """Attached before there is a process group."""
    attachment = EARLY
    emit({"loss": rank + 1})
    attachment.detach()
    return kept(attachment)


def check_by_hand(rank, world):
    """Every rank in its own type: an integer, a tensor, an array, a number."""
    value = [1, torch.tensor(2, dtype=torch.bfloat16), np.float32(3), 4.0][rank]
    flag = [True, torch.zeros((), dtype=torch.bool), np.array([True])[0], 1][rank]
    with attach(reduced("loss", "flag")) as attachment:
        emit({"loss": value, "flag": flag, "other": 9})
        return kept(attachment)


def check_absent(rank, world):
    """The value is missing on rank 1, on the one that reports, on all, and not a single one."""
    with attach(reduced("loss")) as attachment:
        emit({} if rank == 1 else {"loss": rank + 1})
        emit({} if rank == 0 else {"loss": torch.tensor(rank + 1.0)})
        emit({})
        emit({"loss": ["text", torch.ones(2), None, np.ones(1)][rank]})
        emit({"loss": [1, "text", 1j, torch.tensor(1j)][rank]})
        return kept(attachment)


def check_special(rank, world):
    with attach(reduced("loss")) as attachment:
        emit({"loss": NAN if rank == 2 else rank + 1.0})
        emit({"loss": torch.tensor(NAN) if rank == 3 else rank + 1.0})
        emit({"loss": INF if rank == 1 else 1})
        emit({"loss": -INF})
        emit({"loss": 10**400 if rank == 1 else 1})
        return kept(attachment)


def check_filters(rank, world):
    """Only what is reported is filtered: all ranks reduce all events."""
    calls = Counted("all_reduce")
    seen = []

    def where(event, measurements, metadata):
        seen.append(measurements["loss@mean"])
        return measurements["loss@mean"] != 3.5

    with attach(reduced("loss", kinds=["mean"]), where=where, every=2) as attachment:
        emit(*({"loss": rank + n} for n in range(6)))
        return kept(attachment), seen, calls.calls


def check_all_ranks(rank, world):
    with attach(reduced("loss"), ranks="all") as attachment:
        emit({"loss": rank})
        return kept(attachment)


def check_collectives(rank, world):
    """How many there are: without a reduction, with one, with all, and with many measurements."""
    calls, groups, found = Counted("all_reduce"), Counted("new_group"), []
    many = {f"m{n}": rank for n in range(33)}
    for metrics in (
        [last_value("training.step.loss"), counter("training.step.count")],
        reduced("loss", kinds=["mean"]),
        reduced("loss", kinds=["mean", "sum"]),
        reduced("loss", kinds=["max", "min"]),
        reduced("loss", "flag"),
        reduced(*many, kinds=["sum"]),
        [last_value("other.event.x", reduce="mean")],
    ):
        before = calls.calls, groups.calls
        with attach(metrics) as attachment:
            emit({"loss": 1.0, **many})
            emit({"loss": 1.0, **many})
        found.append([calls.calls - before[0], groups.calls - before[1]])
    return found, kept(attachment)


def check_on_device(rank, world):
    """What is reduced on an accelerator, which nobody waits for, computed on the CPU."""
    handlers.torch_ranks.is_host = lambda device: False
    seen = []

    def where(event, measurements, metadata):
        seen.append(sorted(type(v).__name__ for k, v in measurements.items() if "@" in k))
        return True

    with attach(reduced("loss"), where=where, ranks="all") as attachment:
        emit({"loss": torch.tensor(rank + 1)})
        emit({} if rank == 0 else {"loss": torch.tensor(rank + 1.0)})
        emit({})
        emit({"loss": torch.tensor(NAN) if rank == 2 else rank})
        found = kept(attachment), seen
    handlers.torch_ranks.is_host = IS_HOST
    return found


def check_failing_sink(rank, world):
    """The sink of rank 0 fails; the other ranks do not wait for it."""
    with attach(reduced("loss")) as attachment:
        emit({"loss": rank + 1})
        if rank == 0:
            attachment.handler.error = OSError("gone")
        failures = []
        telemetry.attach(
            "failures", FAILURE, lambda e, m, md, c: failures.append(repr(md["reason"]))
        )
        calls = Counted("all_reduce")
        for _ in range(4):
            emit({"loss": rank + 1})
        telemetry.detach("failures")
        active = attachment.active
    return kept(attachment), failures, calls.calls, active, left()


def check_one_of_many_sinks_fails(rank, world):
    attachment = attach(reduced("loss", kinds=["mean"]), ranks="all")
    emit({"loss": rank})
    if rank == 2:
        attachment.handler.error = OSError("gone")
    emit({"loss": rank}, {"loss": rank}, {"loss": rank})
    during = left()
    attachment.detach()
    return kept(attachment), during, left()


def check_pattern(rank, world):
    """All events are reduced; on one rank a handler fails, which the bus announces there."""
    metrics = [last_value("**.loss", reduce="mean", report_as="mean loss")]
    attachment = handlers.attach("keeping", metrics=metrics, ranks="all")
    failures = []
    telemetry.attach("failures", FAILURE, lambda *event: failures.append(event))
    if rank == 1:
        telemetry.attach("fails", STEP, lambda *event: 1 / 0)
    emit({"loss": rank}, {"loss": rank + 1})
    telemetry.detach("failures")
    attachment.detach()
    return [one for one in kept(attachment) if one], bool(failures)


def check_fork(rank, world):
    """A forked child has values of its own, and does not speak for its parent."""
    with attach(reduced("loss", kinds=["mean"]), ranks="all") as attachment:
        emit({"loss": rank})
        child = os.fork()
        if child == 0:
            emit({"loss": 100 + rank})
            os._exit(0 if attachment.handler.kept[1:] == [{"mean loss": repr(100.0 + rank)}] else 1)
        _, status = os.waitpid(child, 0)
        emit({"loss": rank})
        return kept(attachment), os.waitstatus_to_exitcode(status)


def check_disagreement(rank, world):
    """The ranks emit different events at the same time."""
    failures = []
    metrics = [last_value("training.*.loss", reduce="mean")]
    attachment = handlers.attach("keeping", metrics=metrics)
    telemetry.attach("failures", FAILURE, lambda e, m, md, c: failures.append(str(md["reason"])))
    telemetry.execute(STEP if rank else ("training", "epoch"), {"loss": 1}, {})
    telemetry.execute(STEP, {"loss": 1}, {})
    telemetry.detach("failures")
    return failures, attachment.active, left()


def check_alone(rank, world):
    """One rank emits an event that the others do not emit; what they train goes on."""
    failures = []
    attachment = attach(reduced("loss", kinds=["mean"]), on_failure="keep")
    telemetry.attach("failures", FAILURE, lambda e, m, md, c: failures.append(str(md["reason"])))
    emit({"loss": 1})
    if rank == 1:
        emit({"loss": 2})
    trained = torch.tensor(1.0)
    dist.all_reduce(trained)
    emit({"loss": 3}, {"loss": 4})
    dist.all_reduce(trained)
    telemetry.detach("failures")
    found = kept(attachment), failures, trained.item(), attachment.active
    attachment.detach()
    return *found, left()


CHECKS = {name[6:]: check for name, check in list(globals().items()) if name.startswith("check_")}


def main(folder, seconds, *names):
    global EARLY
    torch.set_num_threads(1)
    install(folder)
    if "early" in names:
        EARLY = attach(reduced("loss", kinds=["sum"]), id="early")
        emit({"loss": 7})
    dist.init_process_group("gloo", timeout=timedelta(seconds=float(seconds)))
    found = {}
    for name in names:
        found[name] = CHECKS[name](dist.get_rank(), dist.get_world_size())
    found["left"] = left()
    Path(folder, f"{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What is reduced across ranks where there is one process, or a device that cannot be read."""

import sys
import types

import pytest

import handlers
import handlers.torch_ranks
from handlers.across_ranks import AcrossRanks
from handlers.rank_groups import group_of_run
from handlers.records import Site
from telemetry import ALL, Registry
from telemetry.metrics import Reporter, counter, last_value

STEP = ("training", "step")
MEAN = last_value("training.step.loss", reduce="mean")
PLAIN = last_value("training.step.lr")


class Keeping:
    """A sink that keeps what it is given and what it reports."""

    delivery = "direct"

    def __init__(self, site, *, metrics):
        self.reporter = None if metrics == "all" else Reporter(metrics)
        self.error = None
        self.given = []
        self.reported = []
        self.closed = 0

    def __call__(self, event, measurements, metadata, config):
        if self.error is not None:
            raise self.error
        self.given.append(dict(measurements))
        if self.reporter is not None:
            samples = self.reporter.samples(event, measurements, metadata)
            self.reported.append({sample.name: sample.value for sample in samples})

    def close(self):
        self.closed += 1


@pytest.fixture
def attach(bus, install, monkeypatch):
    for variable in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        monkeypatch.delenv(variable, raising=False)
    module = types.ModuleType("keeping_sinks")
    module.create = Keeping
    monkeypatch.setitem(sys.modules, "keeping_sinks", module)
    install("keeping-sinks", keeping="keeping_sinks:create")

    def attach(metrics, **options):
        return handlers.attach("keeping", metrics=metrics, registry=bus, **options)

    return attach


def test_alone_the_value_is_the_own_one(attach, bus):
    attachment = attach([MEAN, PLAIN])
    bus.execute(STEP, {"loss": 2.5, "lr": 1.0})
    bus.execute(STEP, {"lr": 1.0})
    bus.execute(("other",), {"loss": 1.0})
    sink = attachment.handler
    assert sink.reported == [{"training.loss": 2.5, "training.lr": 1.0}, {"training.lr": 1.0}, {}]
    assert sink.given[0] == {"loss": 2.5, "lr": 1.0, "loss@mean": 2.5}
    assert sink.given[1:] == [{"lr": 1.0}, {"loss": 1.0}]


def test_what_was_emitted_is_not_touched(attach, bus):
    attach([MEAN])
    measurements = {"loss": 2.5}
    bus.execute(STEP, measurements)
    assert measurements == {"loss": 2.5}


def test_nothing_is_changed_for_a_handler_that_reduces_nothing(attach, bus):
    attachment = attach([PLAIN, counter("training.step.count")], ranks="all")
    (info,) = bus.list_handlers()
    assert info.function == attachment.handler.__call__
    bus.execute(STEP, {"loss": 2.5})
    assert attachment.handler.given == [{"loss": 2.5}]


def test_definitions_can_come_from_an_iterator(attach, bus):
    attachment = attach(iter([MEAN, PLAIN]))
    bus.execute(STEP, {"loss": 2.5, "lr": 1.0})
    assert attachment.handler.reported == [{"training.loss": 2.5, "training.lr": 1.0}]


def test_an_option_of_that_name_may_mean_something_else(attach, bus):
    attachment = attach("all")
    bus.execute(STEP, {"loss": 2.5})
    assert attachment.handler.given == [{"loss": 2.5}]
    assert len(bus.list_handlers()) == 1


@pytest.mark.parametrize("end", ["attachment", "context", "bus", "failure", "background failure"])
def test_nothing_is_left_of_a_handler_that_ended(attach, bus, end):
    attachment = attach([MEAN], background=end == "background failure")
    bus.execute(STEP, {"loss": 2.5})
    assert len(bus.list_handlers()) == 2
    if end == "attachment":
        attachment.detach()
    elif end == "context":
        attachment.__exit__(None, None, None)
    elif end == "bus":
        bus.detach("keeping")
    else:
        attachment.flush()
        attachment.handler.error = OSError("gone")
        bus.execute(STEP, {"loss": 2.5})
        attachment.flush()
        bus.execute(STEP, {"loss": 2.5})
    assert bus.list_handlers() == []
    assert attachment.handler.closed == 1
    bus.execute(STEP, {"loss": 2.5})
    assert len(attachment.handler.given) == 1


def test_a_sink_that_fails_is_announced_as_its_handler(attach, bus):
    failures = []
    bus.attach(
        "failures", ("telemetry", "handler", "failure"), lambda e, m, md, c: failures.append(md)
    )
    attachment = attach([MEAN], on_failure="keep", events=[STEP])
    attachment.handler.error = OSError("gone")
    bus.execute(STEP, {"loss": 2.5})
    attachment.handler.error = None
    bus.execute(STEP, {"loss": 2.5})
    (failure,) = failures
    assert failure["handler_id"] == "keeping"
    assert failure["event_name"] == STEP
    assert failure["reason"].args == ("gone",)
    assert attachment.handler.reported == [{"training.loss": 2.5}]


class Broken:
    """Ranks that cannot be reached."""

    size = 2
    asked = 0

    def reduce(self, *arguments, asks):
        self.asked += 1
        raise RuntimeError("connection closed")


def test_ranks_that_cannot_be_reached_are_asked_once(attach, bus, monkeypatch):
    failures, ranks = [], Broken()
    monkeypatch.setattr("handlers.across_ranks.group_of_run", lambda known: ranks)
    bus.attach("f", ("telemetry", "handler", "failure"), lambda e, m, md, c: failures.append(md))
    attachment = attach([MEAN], on_failure="keep", events=[STEP])
    for _ in range(4):
        bus.execute(STEP, {"loss": 2.5})
    assert attachment.handler.given == []
    assert ranks.asked == 1
    told = (
        "Cannot reduce loss of training.step over 2 ranks. Every rank must attach the handler with "
        "the same metrics, and emit the event as often as the others, in the same order, from one "
        "thread. To report each rank's own value: leave out reduce=. The error was: connection "
        "closed"
    )
    assert {str(failure["reason"]) for failure in failures} == {told}
    first, *others = (len(failure["stacktrace"]) for failure in failures)
    assert others == [first] * 3


class Unreadable(dict):
    def get(self, key, default=None):
        raise RuntimeError("no")


def test_measurements_that_cannot_be_read_are_not_reduced(attach, bus):
    attachment = attach([MEAN])
    bus.execute(STEP, Unreadable(loss=1))
    assert attachment.handler.given == [{"loss": 1}]


def test_names_without_end_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr("handlers.across_ranks.MAX_PLANS", 3)
    site = Site("x", Registry(), (ALL,), "zero")
    seen = []
    metrics = (last_value("**.loss", reduce="mean"),)
    across = AcrossRanks(site, metrics, lambda *given: seen.append(given[1]), asks=True)
    across.start(across.watched(site.registry.attach("x", ALL, lambda *_: None)))
    for n in range(10):
        across(("my", str(n)), {"loss": n}, {}, None)
        assert len(across._plans) <= 3
    assert seen == [{"loss": n, "loss@mean": n} for n in range(10)]


@pytest.fixture
def fake_ranks():
    """A process group of two whose collectives do nothing."""
    torch = pytest.importorskip("torch")
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def start():
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)

    start()
    yield start
    torch.distributed.destroy_process_group()


def test_nothing_is_read_from_a_device(attach, bus, fake_ranks, monkeypatch):
    """On torch's meta device a read would fail."""
    import torch

    meta = torch.device("meta")
    monkeypatch.setattr(handlers.torch_ranks, "_device", lambda *_: meta)
    metrics = [
        last_value("training.step.loss", reduce=kind) for kind in ("mean", "sum", "max", "min")
    ]
    attachment = attach(metrics, ranks="all")
    bus.execute(STEP, {"loss": torch.ones((), device=meta, requires_grad=True)})
    bus.execute(STEP, {"loss": torch.ones((), device=meta, dtype=torch.bool)})
    bus.execute(STEP, {"loss": 2})
    bus.execute(STEP, {})
    bus.execute(STEP, {"loss": torch.ones(10, device=meta)})
    keys = ["loss@max", "loss@mean", "loss@min", "loss@ranks", "loss@sum"]
    for given in attachment.handler.given:
        values = {key: value for key, value in given.items() if "@" in key}
        assert sorted(values) == keys
        assert all(v.device == meta and not v.requires_grad for v in values.values())
        assert all(v.shape == () for v in values.values())


def test_a_new_run_has_a_new_group(fake_ranks):
    import torch

    first = group_of_run(None)
    assert group_of_run(first) is first
    torch.distributed.destroy_process_group()
    assert group_of_run(first) is None
    fake_ranks()
    assert group_of_run(first) is not first


class Accelerator:
    def __init__(self, available=True):
        self.is_available = lambda: available
        self.current_device = lambda: 3


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("cpu:gloo,cuda:gloo", "cpu"),
        ("cuda:nccl", "cuda:3"),
        ("cpu:gloo,cuda:nccl", "cuda:3"),
        ("cpu:gloo,xpu:ccl", "cpu"),  # no such device here
        ("cpu:mpi", "cpu"),
        ("cpu:gloo,absent:x", "cpu"),
    ],
)
def test_where_a_group_reduces(config, expected):
    torch = types.SimpleNamespace(
        cuda=Accelerator(),
        xpu=Accelerator(available=False),
        device=lambda kind, index=None: kind if index is None else f"{kind}:{index}",
    )
    assert handlers.torch_ranks._device(torch, config) == expected

"""`telemetry.poller`: what is sampled, and what is refused."""

import math
import queue
import threading
import time

import numpy as np
import psutil
import pytest

import telemetry
from telemetry import poller
from telemetry.poller.poller import next_due

SAMPLE = ("performance", "sample")
SOON = 0.01
HANG = 60
"""Seconds that nothing here takes, unless it hangs."""


class Sink:
    """A handler that a test can wait for."""

    def __init__(self):
        self.events = queue.SimpleQueue()

    def __call__(self, event, measurements, metadata, config):
        self.events.put(telemetry.Event(event, dict(measurements), dict(metadata)))

    def next(self):
        return self.events.get(timeout=HANG)


@pytest.fixture
def samples(bus):
    sink = Sink()
    bus.attach("sink", SAMPLE, sink)
    return sink


# What is measured


def test_the_machine_and_the_process_are_what_psutil_says(start, samples):
    start(host=True)
    first, second = samples.next().measurements, samples.next().measurements
    assert first.keys() == {"memory_used_gb", "memory_utilization", "process_memory_gb"}
    assert second.keys() == first.keys() | {"cpu_utilization", "process_cpu_utilization"}
    resident = psutil.Process().memory_info().rss / 1e9
    assert second["process_memory_gb"] == pytest.approx(resident, rel=0.5)
    memory = psutil.virtual_memory()
    taken = (memory.total - memory.available) / 1e9  # `used` is something else in older versions
    assert second["memory_used_gb"] == pytest.approx(taken, rel=0.5)
    assert second["memory_utilization"] == pytest.approx(
        100 * second["memory_used_gb"] * 1e9 / memory.total, rel=0.01
    )
    assert 0 <= second["cpu_utilization"] <= 100
    assert second["process_cpu_utilization"] >= 0


def test_work_of_this_process_shows(start, samples):
    start(interval=0.2, host=True)
    samples.next()
    deadline = time.monotonic() + HANG
    while time.monotonic() < deadline:
        sum(range(10_000))
        if (
            not samples.events.empty()
            and samples.next().measurements["process_cpu_utilization"] > 10
        ):
            return
    pytest.fail("a busy process had no share of the CPU")


def test_the_depth_of_a_queue_is_what_its_function_says(start, samples):
    waiting = queue.Queue()
    waiting.put("a")
    waiting.put("b")
    start(queue_depth=waiting.qsize)
    assert samples.next().measurements == {"queue_depth": 2}


def test_probes_by_name_measure_one_value_each(start, samples):
    start(probes={"room": lambda: 7, "share": lambda: np.float32(0.5), "nothing": lambda: None})
    assert samples.next().measurements == {"room": 7, "share": 0.5}


def test_one_probe_may_measure_several_values(start, samples):
    start(probes=lambda: {"a": 1, "b": math.inf, "c": None}, queue_depth=lambda: 3)
    assert samples.next().measurements == {"queue_depth": 3, "a": 1, "b": math.inf}


def test_a_tensor_is_handed_over_unread(start, samples):
    import torch

    value = torch.empty((), device="meta")  # any read of it would fail
    start(probes={"on_device": lambda: value})
    assert samples.next().measurements["on_device"] is value


def test_samples_go_on_at_the_interval(start, samples):
    counted = iter(range(1_000_000))
    start(probes={"n": lambda: next(counted)})
    assert [samples.next().measurements["n"] for _ in range(5)] == [0, 1, 2, 3, 4]


def test_the_first_sample_is_taken_at_once_even_by_one_that_is_stopped_at_once(start, samples):
    with start(interval=1e9, probes={"n": lambda: 1}):
        pass
    assert samples.next().measurements == {"n": 1}
    assert samples.events.empty()


def test_missed_samples_are_not_made_up_for():
    due = [0.0]
    for now in (1.0, 12.0, 37.0, 38.0):  # when a sample was done; the third took very long
        due.append(next_due(due[-1], 10.0, now))
    assert due == [0.0, 10.0, 20.0, 37.0, 47.0]


class Asked(telemetry.Registry):
    """A bus that counts how often it is asked whether anybody listens."""

    def __init__(self):
        super().__init__()
        self.asked = queue.SimpleQueue()

    def enabled(self, event):
        self.asked.put(event)
        return super().enabled(event)


def test_while_nobody_listens_nothing_is_measured():
    bus, sink, measured = Asked(), Sink(), []
    options = {"host": False, "gpu": False, "registry": bus}
    with poller.start(SOON, probes={"n": lambda: measured.append(1) or 1}, **options):
        for _ in range(3):
            assert bus.asked.get(timeout=HANG) == SAMPLE
        assert measured == []
        bus.attach("sink", SAMPLE, sink)
        assert sink.next().measurements == {"n": 1}


def test_a_sample_without_a_value_is_not_sent(start, samples):
    asked = queue.SimpleQueue()
    with start(probes={"n": lambda: asked.put(1)}):
        asked.get(timeout=HANG)
        asked.get(timeout=HANG)
    assert samples.events.empty()


def test_run_and_attempt_are_on_the_samples_and_the_step_is_not(start, samples):
    with telemetry.context(run_id="r1", attempt=2, epoch=3, step=4, total_steps=9, trial="x"):
        start(probes={"n": lambda: 1})
    assert samples.next().metadata == {"run_id": "r1", "attempt": 2}


def test_what_a_probe_emits_has_them_too(bus, start, samples):
    sink = Sink()
    bus.attach("mine", ("mine",), sink)
    with telemetry.workflow_run("w", run_id="r1", registry=bus):
        start(probes={"n": lambda: bus.execute(("mine",), {}) or 1})
    assert sink.next().metadata == {"run_id": "r1", "attempt": 1}


def test_without_a_run_the_samples_have_no_metadata(start, samples):
    start(probes={"n": lambda: 1})
    assert samples.next().metadata == {}


def test_two_pollers_do_not_disturb_each_other(start, samples):
    one, two = start(probes={"a": lambda: 1}), start(probes={"b": lambda: 2})
    seen = set()
    while seen != {"a", "b"}:
        seen |= samples.next().measurements.keys()
    one.stop()
    assert (one.active, two.active) == (False, True)


# Bad input


@pytest.mark.parametrize("interval", [0, -1, -0.5, math.nan, math.inf, 10**400])
def test_an_interval_has_to_be_above_zero(interval):
    with pytest.raises(ValueError, match="interval") as refused:
        poller.start(interval)
    assert str(refused.value) == (
        f"interval must be a finite number of seconds above 0, got {interval!r}. "
        "Write interval=10.0."
    )


@pytest.mark.parametrize("interval", ["10", None, True, [1]])
def test_an_interval_has_to_be_a_number(interval):
    with pytest.raises(TypeError) as refused:
        poller.start(interval)
    assert str(refused.value) == (
        f"interval must be a finite number of seconds above 0, got {interval!r} "
        f"({type(interval).__name__}). Write interval=10.0."
    )


def test_a_message_is_never_longer_than_a_screen():
    for wrong in ({"interval": "9" * 10**6}, {"probes": "x" * 10**6}, {"queue_depth": "x" * 10**6}):
        with pytest.raises(TypeError) as refused:
            poller.start(**wrong)
        assert len(str(refused.value)) < 1500


def test_a_depth_that_is_no_function_is_refused():
    with pytest.raises(TypeError) as refused:
        poller.start(queue_depth=3)
    assert str(refused.value) == (
        "Probe 'queue_depth' must be a function without arguments, got 3 (int). "
        "Write queue_depth=queue.qsize."
    )


def test_a_probe_that_is_no_function_is_refused():
    with pytest.raises(TypeError) as refused:
        poller.start(probes={"room": 3})
    assert str(refused.value) == (
        "Probe 'room' must be a function without arguments, got 3 (int). "
        "Write probes={'open_files': count_open_files}."
    )


@pytest.mark.parametrize("probes", [3, "room", [len]])
def test_probes_are_a_mapping_or_a_function(probes):
    with pytest.raises(TypeError) as refused:
        poller.start(probes=probes)
    assert str(refused.value) == (
        "probes must be a mapping of names to functions, or a function that returns a mapping of "
        f"names to numbers, got {probes!r} ({type(probes).__name__})."
    )


def test_a_probe_that_wants_arguments_is_refused():
    def room(floor):
        return floor

    with pytest.raises(TypeError, match="cannot be called without arguments") as refused:
        poller.start(probes={"room": room})
    assert "Probe 'room' is" in str(refused.value)
    assert "signature (floor)" in str(refused.value)


async def later():
    return 1


def generated():
    yield 1


@pytest.mark.parametrize("function", [later, generated])
def test_a_probe_whose_body_would_not_run_is_refused(function):
    with pytest.raises(TypeError, match="whose body would not run when it is called"):
        poller.start(probes={"room": function})


@pytest.mark.parametrize("name", ["", 3])
def test_a_probe_needs_a_name(name):
    with pytest.raises(ValueError if name == "" else TypeError, match="Name of a probe must"):
        poller.start(probes={name: lambda: 1})


@pytest.mark.parametrize(
    ("name", "other", "options"),
    [
        ("cpu_utilization", "cpu", {}),
        ("process_memory_gb", "process", {}),
        ("gpu_utilization", "gpu", {}),
        ("queue_depth", "queue_depth", {"queue_depth": lambda: 1}),
    ],
)
def test_a_name_that_is_taken_is_refused(name, other, options):
    with pytest.raises(ValueError, match="measures already") as refused:
        poller.start(probes={name: lambda: 1}, **options)
    assert str(refused.value) == (
        f"Probe {name!r} measures {name!r}, which probe {other!r} measures already. Name it "
        "otherwise, or switch the other one off (host=False, gpu=False)."
    )


def test_a_name_is_free_where_nothing_else_measures_it(start, samples):
    start(probes={"gpu_utilization": lambda: 40})
    assert samples.next().measurements == {"gpu_utilization": 40}


def test_a_bus_that_is_none_is_refused():
    with pytest.raises(TypeError, match=r"registry must be a telemetry.Registry, got 'bus'"):
        poller.start(registry="bus")


def test_nothing_runs_after_a_refusal():
    before = threading.active_count()
    with pytest.raises(ValueError, match="interval"):
        poller.start(-1, probes={"n": lambda: 1})
    assert threading.active_count() == before


def test_a_timeout_of_stop_is_checked(start):
    started = start(probes={"n": lambda: 1})
    with pytest.raises(ValueError, match="timeout must be a finite number of seconds of at least"):
        started.stop(timeout=-1)
    with pytest.raises(TypeError, match="timeout must be"):
        started.stop(timeout="soon")
    assert started.active


def test_the_catalogue_has_what_is_measured(start, samples):
    start(host=True, queue_depth=lambda: 1)
    samples.next()
    known = {field.name: field.unit for field in telemetry.events.find(SAMPLE).measurements}
    measured = samples.next().measurements
    assert measured.keys() <= known.keys()
    for name in measured:
        unit = "GB" if name.endswith("_gb") else "percent" if "utilization" in name else ""
        assert known[name] == unit

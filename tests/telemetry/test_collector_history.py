"""`metrics_history`: bounded, readable, and no load on a device."""

import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from telemetry import MetricsCollector, Registry
from telemetry.collector import MetricsHistory
from telemetry.collector.keepable import LARGEST
from telemetry.collector.unread import BATCH


@pytest.fixture
def collector(bus):
    return MetricsCollector("r", registry=bus, history_size=1000)


def remote_tensors(ready=None):
    """Tensors of torch that say they are on an accelerator, and the threads that read them.

    Reading one waits until ``ready`` is set, as for a device that has not computed it.
    """
    import torch

    readers = []

    class Tensor(torch.Tensor):
        @property
        def device(self):
            return torch.device("cuda")

        def contiguous(self):
            readers.append(threading.current_thread())
            if ready is not None:
                ready.wait(60)
            return self.as_subclass(torch.Tensor).contiguous()

    return (lambda value: torch.tensor(value).as_subclass(Tensor)), readers


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_record_says_when_what_and_where(collector):
    before = time.time()
    collector.collect_training_metrics(0.5, None, 0.1, 7)
    collector.collect_performance_metrics(queue_depth=3)
    first, second = collector.metrics_history
    assert first == {
        "timestamp": pytest.approx(before, abs=60),
        "event": "training.step",
        "step": 7,
        "metrics": {"loss": 0.5, "lr": 0.1},
    }
    assert (second["event"], second["step"]) == ("performance.sample", None)
    assert second["timestamp"] >= first["timestamp"]


def test_it_is_a_sequence(collector):
    for step in range(5):
        collector.collect_rl_metrics(step, entropy=step / 2)
    history = collector.metrics_history
    assert len(history) == 5
    assert history[0]["step"] == 0
    assert history[-1]["metrics"] == {"entropy": 2.0}
    assert [record["step"] for record in history[1:3]] == [1, 2]
    assert [record["step"] for record in reversed(history)] == [4, 3, 2, 1, 0]
    assert bool(history)
    with pytest.raises(IndexError):
        history[5]
    assert repr(history) == "<MetricsHistory of 5 records, at most 1000>"
    history.clear()
    assert list(history) == []
    assert not history


def test_going_through_it_backwards_reads_it_once(collector, monkeypatch):
    for step in range(100):
        collector.collect_rl_metrics(step)
    history = collector.metrics_history
    looks = []
    monkeypatch.setattr(
        MetricsHistory, "_records", lambda self: looks.append(1) or list(self._kept)
    )
    assert [record["step"] for record in reversed(history)] == list(range(99, -1, -1))
    assert len(looks) == 1


def test_times_are_those_of_the_clock_on_the_wall(collector):
    began = time.time()
    collector.collect_rl_metrics(1)
    with collector.time_operation("x"):
        pass
    ended = time.time()
    first, second = (record["timestamp"] for record in collector.metrics_history)
    assert began <= first <= second + 0.001  # which the two clocks may differ by
    assert second <= ended + 0.001


def test_an_operation_is_timed_by_the_wall_as_of_the_last_record(collector):
    collector.metrics_history.epoch -= 3_600_000_000_000  # the computer was asleep for an hour
    for _ in range(2):
        with collector.time_operation("x"):
            pass
        collector.collect_rl_metrics(1)
    early, first, late, second = (record["timestamp"] for record in collector.metrics_history)
    assert first - early == pytest.approx(3600, abs=60)
    assert first <= late + 0.001 <= second + 0.002


def test_what_is_read_can_be_changed_without_harm(collector):
    collector.collect_rl_metrics(1, entropy=0.5)
    collector.metrics_history[0]["metrics"]["entropy"] = 9.0
    assert collector.metrics_history[0]["metrics"]["entropy"] == 0.5


def test_the_oldest_records_make_room_and_the_total_goes_on(bus):
    collector = MetricsCollector("r", registry=bus, history_size=3)
    for step in range(10):
        collector.collect_rl_metrics(step)
        with collector.time_operation("x"):
            pass
    assert [record["step"] for record in collector.metrics_history] == [None, 9, None]
    for _ in range(3):
        assert collector.get_metrics_summary()["num_metrics"] == 20


def test_state_stays_bounded_over_many_events_of_many_names():
    collector = MetricsCollector("r", registry=Registry(), history_size=100)
    for number in range(20_000):
        with collector.time_operation(f"operation_{number}"):
            pass
        collector.collect_training_metrics(1.0, None, None, number, {f"metric_{number}": 1.0})
    assert len(collector.metrics_history) == 100
    assert len(collector._operations) <= 1024
    assert len(collector.get_metrics_summary()["latest"]) <= 2 * 100


def test_numbers_of_arrays_and_tensors_on_the_host_are_plain(collector):
    import torch

    collector.collect_training_metrics(
        torch.tensor(0.5, requires_grad=True),
        np.float32(0.25),
        np.float64(0.125),
        np.int64(3),
        {"two": torch.tensor([1.0, 2.0]), "flag": np.bool_(1)},
    )
    record = collector.metrics_history[0]
    assert record["metrics"] == {
        "loss": 0.5,
        "grad_norm": 0.25,
        "lr": 0.125,
        "two": [1.0, 2.0],
        "flag": True,
    }
    assert record["step"] == 3
    assert {type(value) for value in record["metrics"].values()} == {float, list, bool}
    assert type(record["step"]) is int


def test_what_is_large_or_strange_is_kept_as_its_kind(collector):
    import torch

    collector.collect_training_metrics(
        torch.zeros(1000, 10),
        torch.zeros((), device="meta"),
        object(),
        1,
        {"most": np.zeros(LARGEST), "more": np.zeros(LARGEST + 1), "text": "x" * 5000},
    )
    assert collector.metrics_history[0]["metrics"] == {
        "loss": "<Tensor of shape (1000, 10)>",
        "grad_norm": "<Tensor>",
        "lr": "<object>",
        "most": [0.0] * LARGEST,
        "more": f"<ndarray of shape ({LARGEST + 1},)>",
        "text": "x" * 1000,
    }


def test_the_graph_that_computed_a_loss_is_not_kept(collector):
    make, _ = remote_tensors()
    loss = make(0.5).requires_grad_() * 2
    assert loss.grad_fn is not None
    collector.collect_training_metrics(loss, None, None, 1)
    assert collector.metrics_history._kept[0][3]["loss"].grad_fn is None


def test_a_value_on_a_device_is_read_when_the_summary_is_asked_for(collector):
    make, readers = remote_tensors()
    collector.collect_training_metrics(make(0.5), make(2.0), 0.1, make(7))
    assert readers == []
    summary = collector.get_metrics_summary()
    assert (summary["last_step"], summary["last_loss"]) == (7, 0.5)
    assert summary["latest"] == {
        "training.loss": 0.5,
        "training.grad_norm": 2.0,
        "training.lr": 0.1,
    }


def test_values_on_a_device_are_read_a_batch_at_a_time_on_another_thread(collector):
    make, readers = remote_tensors()
    tensors = weakref.WeakSet()
    for step in range(BATCH):
        loss = make(float(step))
        tensors.add(loss)
        collector.collect_training_metrics(loss, None, None, step)
    del loss
    records = [record[3] for record in collector.metrics_history._kept]
    wait_until(lambda: all(type(record["loss"]) is float for record in records))
    assert [record["loss"] for record in records] == [float(step) for step in range(BATCH)]
    assert threading.current_thread() not in readers


def test_collecting_waits_for_no_device(collector):
    ready = threading.Event()
    make, readers = remote_tensors(ready)
    for step in range(3 * BATCH):
        collector.collect_training_metrics(make(0.5), None, None, step)
    assert len(collector.metrics_history) == 3 * BATCH
    assert threading.current_thread() not in readers
    ready.set()
    assert collector.get_metrics_summary()["last_loss"] == 0.5


def test_while_a_device_hangs_no_more_is_held_than_the_history_and_one_batch(bus):
    ready = threading.Event()
    make, readers = remote_tensors(ready)
    collector = MetricsCollector("r", registry=bus, history_size=100)
    for step in range(1000):
        collector.collect_training_metrics(make(0.5), None, None, step)
    history = collector.metrics_history
    assert len(history._kept) == 100
    assert len(history._unread._waiting) <= 100
    assert len(set(readers)) <= 1
    ready.set()
    records = [record[3] for record in history._kept]
    wait_until(lambda: all(type(record["loss"]) is float for record in records))


def test_clearing_lets_go_of_what_is_on_a_device(collector):
    make, _ = remote_tensors()
    loss = make(0.5)
    collector.metrics_history.add(("rl", "step"), {}, {"loss": loss})
    held = weakref.ref(collector.metrics_history._kept[0][3]["loss"])
    collector.metrics_history.clear()
    gc.collect()
    assert held() is None


def test_a_thread_reads_while_others_collect():
    history = MetricsHistory(50)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            history.add(("rl", "step"), {"step": 1}, {"entropy": 0.5})

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(300):
            assert all(record["metrics"] == {"entropy": 0.5} for record in history)
    finally:
        stop.set()
        for writer in writers:
            writer.join()


FORK = """
import os, sys
import telemetry

collector = telemetry.create_metrics_collector("r")
collector.collect_training_metrics(1.0, None, None, 1)
collector.metrics_history._looking.acquire()  # another thread is in the middle of it
collector.metrics_history._unread._starting.acquire()
pid = os.fork()
if pid == 0:
    for step in range(100):
        collector.collect_training_metrics(1.0, None, None, step)
        collector.metrics_history._unread.add({"x": 1.0})
    os._exit(collector.get_metrics_summary()["num_metrics"])
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_goes_on(run_script):
    done = run_script(FORK)
    assert (done.stdout, done.stderr) == ("101\n", "")


EXIT = """
import threading
import torch
import telemetry

class Tensor(torch.Tensor):
    @property
    def device(self):
        return torch.device("cuda")

    def contiguous(self):
        reading.set()
        threading.Event().wait(600)

reading = threading.Event()
collector = telemetry.create_metrics_collector("r")
for step in range(200):
    loss = torch.tensor(0.5).as_subclass(Tensor)
    collector.collect_training_metrics(loss, None, None, step)
reading.wait()
print("end")
"""


def test_a_program_ends_while_a_device_hangs(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(EXIT)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr

"""`MetricsCollector` and what should not be given to it: it hurts no training and stays plain."""

import decimal
import fractions
import json
import sys
import threading

import numpy as np
import pytest

import telemetry
from telemetry import MetricsCollector
from telemetry.testing import capture


@pytest.fixture
def collector(bus):
    return MetricsCollector("r", registry=bus)


def metrics(collector):
    """Those of the only record, which JSON has a form for."""
    (record,) = json.loads(json.dumps(list(collector.metrics_history)))
    json.dumps(collector.get_metrics_summary())
    return record["metrics"]


class Unbound:
    """As a proxy of werkzeug or celery outside of its context."""

    @property
    def __class__(self):
        raise RuntimeError("unbound proxy")


class Text(str):
    __slots__ = ()

    def __getitem__(self, part):
        raise RuntimeError("no parts")

    def __str__(self):
        raise RuntimeError("no text")


class Number(float):
    def __float__(self):
        raise RuntimeError("no number")

    def __getattribute__(self, name):
        raise RuntimeError("nothing at all")


def test_values_that_can_do_nothing_raise_nothing(collector, heard):
    given = {"proxy": Unbound(), "text": Text("x"), "number": Number(2.5)}
    collector.collect_training_metrics(0.5, None, None, 1, given)
    assert heard[0].measurements["proxy"] is given["proxy"]
    kept = metrics(collector)
    assert (kept["loss"], kept["proxy"], kept["text"]) == (0.5, "<Unbound>", "x")


def test_an_extra_metrics_that_can_do_nothing_is_a_clear_error(collector, heard):
    with pytest.raises(TypeError, match=r"^extra_metrics of event .* must be a mapping"):
        collector.collect_training_metrics(0.5, None, None, 1, Unbound())
    assert heard == []


def test_what_is_no_number_for_json_is_one_or_is_told_by_its_type(collector):
    collector.collect_training_metrics(
        decimal.Decimal("0.5"),
        fractions.Fraction(1, 4),
        1j,
        1,
        {
            "huge": 10**5000,
            "complex": np.complex64(1j),
            "date": np.datetime64("2026-01-01"),
            "object": np.array(decimal.Decimal("0.5"), dtype=object),
            "huge_fraction": fractions.Fraction(10**400),
            ("a", "tuple"): 1.0,
            np.str_("text"): 2.0,
        },
    )
    assert metrics(collector) == {
        "loss": 0.5,
        "grad_norm": 0.25,
        "lr": "<complex>",
        "huge": "<int of 16610 bits>",  # 5000 * log2(10) = 16609.6
        "complex": "<complex>",
        "date": "<date>",
        "object": "<Decimal>",
        "huge_fraction": "<Fraction>",
        "('a', 'tuple')": 1.0,
        "text": 2.0,
    }
    summary = collector.get_metrics_summary()
    assert (summary["last_loss"], summary["mean_loss"]) == (0.5, 0.5)


def test_the_mean_of_losses_whose_sum_is_no_float(collector):
    for loss in (1e308, 1e308, 1.6e308):
        collector.collect_training_metrics(loss, None, None, 1)
    summary = collector.get_metrics_summary()
    assert summary["mean_loss"] == pytest.approx(1.2e308, rel=1e-12)
    assert summary["min_loss"] == 1e308


def test_a_loss_that_no_float_can_hold_is_in_no_mean(collector):
    collector.collect_training_metrics(10**400, None, None, 1)
    collector.collect_training_metrics(2, None, None, 2)
    summary = collector.get_metrics_summary()
    assert (summary["mean_loss"], summary["min_loss"], summary["last_loss"]) == (2.0, 2, 2)


def test_an_array_of_jax_that_was_deleted_is_told_by_its_type(collector):
    import jax

    ready = jax.numpy.ones(())
    ready.block_until_ready()
    held = {"loss": ready}  # as if it had not been ready when it was collected
    collector.metrics_history.keep((0, ("training", "step"), {"step": 1}, held))
    collector._last["loss"] = held
    ready.delete()
    assert metrics(collector) == {"loss": "<ArrayImpl>"}
    assert collector.get_metrics_summary()["last_loss"] == "<ArrayImpl>"


def test_without_a_thread_to_be_had_the_bus_and_the_history_have_everything(bus, heard):
    import torch

    class Tensor(torch.Tensor):
        @property
        def device(self):
            return torch.device("cuda")

        def contiguous(self):
            return self.as_subclass(torch.Tensor).contiguous()

    def start(self):
        raise RuntimeError("can't start new thread")

    collector = MetricsCollector("r", registry=bus)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for step in range(100):
            loss = torch.tensor(step / 2).as_subclass(Tensor)
            collector.collect_training_metrics(loss, None, None, step)
    assert len(heard) == 100
    assert [record["metrics"]["loss"] for record in collector.metrics_history][-1] == 49.5
    from telemetry.collector.unread import _await_readers

    _await_readers()  # as at the end of the program: what never started cannot be joined


def test_the_bus_has_the_event_whatever_becomes_of_the_history(collector, heard):
    def fail(*_):
        raise MemoryError

    collector.metrics_history.keep = fail
    with pytest.raises(MemoryError):
        collector.collect_training_metrics(0.5, None, None, 1)
    assert [event.measurements for event in heard] == [{"loss": 0.5}]


def test_functions_that_were_decorated_before_the_end_go_on_and_are_not_kept(collector, heard):
    @collector.time_operation("decorated")
    def decorated():
        return 3

    decorated()
    with collector.time_operation("block"):
        collector.close()
    assert decorated() == 3
    assert [event.event[-1] for event in heard] == ["start", "stop"] * 3
    assert len(collector.metrics_history) == 1
    assert collector.get_metrics_summary()["num_metrics"] == 1


def test_a_collector_of_another_run_has_an_attempt_of_its_own(bus, heard):
    collector = MetricsCollector("other", registry=bus)
    with telemetry.workflow_run("w", run_id="x", attempt=5):
        collector.collect_training_metrics(1.0, None, None, 1)
        with collector.time_operation("a"):
            pass
        MetricsCollector("x", registry=bus).collect_rl_metrics(1)
    assert [(event.metadata["run_id"], event.metadata["attempt"]) for event in heard] == [
        *[("other", 1)] * 3,
        ("x", 5),
    ]


def test_an_attempt_of_no_run_is_the_collectors(collector, heard):
    with telemetry.context(attempt=4):
        collector.collect_rl_metrics(1)
    assert heard[0].metadata == {"run_id": "r", "attempt": 4, "step": 1}


@pytest.mark.parametrize("registry", [None, "bus", telemetry])
def test_a_bus_that_is_none_is_refused(registry):
    with pytest.raises(TypeError) as caught:
        MetricsCollector("r", registry=registry)
    assert str(caught.value) == (
        f"registry must be a telemetry.Registry, got {registry!r} ({type(registry).__name__}). "
        "Leave it out for the default one."
    )


def test_a_history_that_no_sequence_could_be_is_refused():
    with pytest.raises(ValueError, match="history_size") as caught:
        MetricsCollector("r", history_size=2**70)
    assert str(caught.value) == (
        f"history_size must be at most {sys.maxsize}, got 1180591620717411303424."
    )
    assert MetricsCollector("r", history_size=2**40).metrics_history.size == 2**40


KERAS = """
import os
os.environ["KERAS_BACKEND"] = "torch"
import keras, telemetry, torch

class Tensor(torch.Tensor):
    @property
    def device(self):
        return torch.device("cuda")

    def tolist(self):
        reads.append(1)
        return self.as_subclass(torch.Tensor).tolist()

    def contiguous(self):
        reads.append(1)
        return self.as_subclass(torch.Tensor).contiguous()

    def numpy(self):
        reads.append(1)
        return self.as_subclass(torch.Tensor).numpy()

reads = []
rate = keras.Variable(0.5)
rate._value = torch.tensor(0.5).as_subclass(Tensor)
assert telemetry.values.on_device(rate)
collector = telemetry.create_metrics_collector("r")
collector.collect_training_metrics(1.0, None, rate, 1)
assert not reads
rate._value.fill_(0.25)
print(collector.get_metrics_summary()["last_learning_rate"])
"""


def test_a_variable_of_keras_on_a_device_is_not_read_in_the_training_thread(run_script):
    done = run_script(KERAS)
    assert (done.stdout, done.returncode) == ("0.5\n", 0), done.stderr


def test_the_helpers_tell_a_step_that_can_do_nothing():
    with pytest.raises(TypeError, match=r"^step must be a whole number of at least 0, got "):
        telemetry.emit_step(step=Unbound())
    with pytest.raises(TypeError, match=r"^run_id must be a string, got "):
        telemetry.emit_step(run_id=Unbound())
    with capture() as events:
        telemetry.emit_step(step=fractions.Fraction(10**400))
    assert events[0].metadata["step"] == 10**400

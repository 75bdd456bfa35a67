"""`MetricsCollector`: what it puts on the bus, and what it tells of it."""

import asyncio
import inspect
import math
import threading

import pytest

import telemetry
from telemetry import MetricsCollector, create_metrics_collector
from telemetry.testing import capture


@pytest.fixture
def collector(bus):
    return MetricsCollector("run_123", "user_456", registry=bus)


WHO = {"run_id": "run_123", "user_id": "user_456"}


def test_the_seeds_training_metrics(collector, heard):
    collector.collect_training_metrics(
        loss=0.5,
        grad_norm=2.3,
        learning_rate=1e-4,
        step=100,
        extra_metrics={"perplexity": 5.2, "tokens_per_second": 1500},
    )
    assert heard == [
        (
            ("training", "step"),
            {
                "loss": 0.5,
                "grad_norm": 2.3,
                "lr": 1e-4,
                "perplexity": 5.2,
                "tokens_per_second": 1500,
            },
            {"step": 100, **WHO},
        )
    ]


def test_the_seeds_rl_metrics(collector, heard):
    measured = {
        "policy_loss": -2.3,
        "value_loss": 0.5,
        "entropy": 3.2,
        "kl_divergence": 0.01,
        "clip_fraction": 0.2,
        "advantage_mean": 0.1,
        "advantage_std": 0.9,
        "explained_variance": 0.8,
        "reward_mean": 5.2,
    }
    collector.collect_rl_metrics(step=100, **measured)
    collector.collect_rl_metrics(101, *measured.values(), extra_metrics={"kl_coef": 0.2})
    assert heard == [
        (("rl", "step"), measured, {"step": 100, **WHO}),
        (("rl", "step"), {**measured, "kl_coef": 0.2}, {"step": 101, **WHO}),
    ]


def test_the_seeds_performance_metrics(collector, heard):
    measured = {
        "forward_backward_duration_ms": 250.5,
        "optim_step_duration_ms": 50.2,
        "queue_depth": 3,
        "gpu_utilization": 95.5,
        "gpu_memory_used_gb": 38.2,
    }
    collector.collect_performance_metrics(**measured)
    assert heard == [(("performance", "sample"), measured, WHO)]


def test_signatures_are_the_seeds():
    def of(function):
        parameters = inspect.signature(function).parameters.values()
        return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert of(MetricsCollector) == ["run_id", "user_id", "enable_datadog"]
    assert of(create_metrics_collector) == ["run_id", "user_id", "enable_datadog"]
    assert of(MetricsCollector.collect_training_metrics) == [
        *("self", "loss", "grad_norm", "learning_rate", "step", "extra_metrics")
    ]
    assert of(MetricsCollector.collect_rl_metrics)[:3] == ["self", "step", "policy_loss"]
    assert of(MetricsCollector.time_operation) == ["self", "operation_name"]


def test_none_is_left_out_and_zero_is_not(collector, heard):
    collector.collect_training_metrics(0.0, None, None, 1, {"a": None, "b": 0})
    collector.collect_rl_metrics(step=1, entropy=None)
    collector.collect_performance_metrics()
    assert [event.measurements for event in heard] == [{"loss": 0.0, "b": 0}, {}, {}]
    assert [record["metrics"] for record in collector.metrics_history] == [
        {"loss": 0.0, "b": 0},
        {},
        {},
    ]


def test_what_is_named_wins_over_extra_metrics(collector, heard):
    collector.collect_training_metrics(0.5, None, None, 1, {"loss": 9.0, "grad_norm": 2.0})
    assert heard[0].measurements == {"loss": 0.5, "grad_norm": 2.0}


def test_without_a_user_there_is_no_user_id():
    with capture() as events, create_metrics_collector("r") as collector:
        collector.collect_rl_metrics(step=1)
    assert events[0].metadata == {"step": 1, "run_id": "r"}
    assert (collector.run_id, collector.user_id) == ("r", None)


def test_the_context_around_is_carried_and_the_collectors_run_wins(collector, heard):
    with telemetry.context(run_id="another", attempt=2, epoch=3):
        collector.collect_training_metrics(0.5, None, None, 1)
    assert heard[0].metadata == {**WHO, "attempt": 1, "epoch": 3, "step": 1}


def test_time_operation_is_a_span_whose_duration_is_kept(collector, heard):
    with collector.time_operation("forward_backward") as operation:
        operation.measure(tokens=5)
    start, stop = heard
    assert start.event == ("performance", "operation", "start")
    assert stop.event == ("performance", "operation", "stop")
    assert stop.metadata.items() >= {**WHO, "operation": "forward_backward"}.items()
    assert stop.measurements["tokens"] == 5
    (record,) = collector.metrics_history
    assert record["event"] == "performance.operation.stop"
    assert record["step"] is None
    kept = record["metrics"]["forward_backward_duration_ms"]
    assert kept == stop.measurements["duration"] / 1e6


def test_operations_nest_in_the_tree_of_spans(collector, heard, bus):
    with (
        bus.span(("outer",)) as outer,
        collector.time_operation("inner"),
        bus.span(("innermost",)),
    ):
        pass
    parents = {
        event.event[0]: event.metadata["telemetry_span_context"].parent_id for event in heard
    }
    inner = heard[1].metadata["telemetry_span_context"]
    assert parents == {
        "outer": None,
        "performance": outer.context.span_id,
        "innermost": inner.span_id,
    }


def test_time_operation_decorates_functions_and_coroutines(collector, heard):
    @collector.time_operation("add")
    def add(a, b):
        return a + b

    @collector.time_operation("wait")
    async def wait():
        await asyncio.sleep(0)
        return "done"

    async def main():
        async with collector.time_operation("both"):
            assert await wait() == "done"

    assert add(1, 2) == 3
    assert add(3, 4) == 7
    asyncio.run(main())
    ended = [event.metadata["operation"] for event in heard if event.event[-1] == "stop"]
    assert ended == ["add", "add", "wait", "both"]
    assert [list(record["metrics"]) for record in collector.metrics_history] == [
        ["add_duration_ms"],
        ["add_duration_ms"],
        ["wait_duration_ms"],
        ["both_duration_ms"],
    ]


@pytest.mark.parametrize("listening", [True, False])
def test_an_operation_that_fails_is_on_the_bus_only(bus, recorder, collector, listening):
    if listening:
        bus.attach("recorder", telemetry.ALL, recorder)
    with pytest.raises(ZeroDivisionError), collector.time_operation("bad"):
        raise ZeroDivisionError
    assert len(collector.metrics_history) == 0
    assert [event.event[-1] for event in recorder] == (["start", "exception"] if listening else [])


@pytest.mark.parametrize("listening", [True, False])
def test_an_operation_happens_once(bus, recorder, collector, listening):
    if listening:
        bus.attach("recorder", telemetry.ALL, recorder)
    with collector.time_operation("x") as operation:
        operation.stop()
    operation.stop()
    with pytest.raises(RuntimeError, match="has begun already"), operation:
        pass
    assert len(collector.metrics_history) == 1


def test_who_listens_only_when_it_ends_hears_the_end(collector, bus, recorder):
    with collector.time_operation("x"):
        bus.attach("recorder", telemetry.ALL, recorder)
    assert [event.event[-1] for event in recorder] == ["stop"]
    assert recorder[0].metadata["operation"] == "x"
    assert len(collector.metrics_history) == 1


def test_an_operation_by_hand(collector, heard):
    operation = collector.time_operation("x")
    operation.begin()
    operation.stop()
    assert [event.event[-1] for event in heard] == ["start", "stop"]
    assert len(collector.metrics_history) == 1


def test_the_summary_without_any_metric(bus):
    assert MetricsCollector("r", registry=bus).get_metrics_summary() == {
        "run_id": "r",
        "user_id": None,
        "num_metrics": 0,
        "last_step": None,
        "last_loss": None,
        "last_grad_norm": None,
        "last_learning_rate": None,
        "mean_loss": None,
        "min_loss": None,
        "latest": {},
    }


def test_the_summary_of_what_was_collected(collector):
    collector.collect_training_metrics(1.0, 2.0, 0.1, 1, {"perplexity": 3.0})
    collector.collect_training_metrics(0.5, None, 0.2, 2)
    collector.collect_rl_metrics(step=3, kl_divergence=0.25)
    collector.collect_performance_metrics(queue_depth=4)
    assert collector.get_metrics_summary() == {
        **WHO,
        "num_metrics": 4,
        "last_step": 3,
        "last_loss": 0.5,
        "last_grad_norm": 2.0,
        "last_learning_rate": 0.2,
        "mean_loss": 0.75,
        "min_loss": 0.5,
        "latest": {
            "training.loss": 0.5,
            "training.grad_norm": 2.0,
            "training.lr": 0.2,
            "training.perplexity": 3.0,
            "rl.kl_divergence": 0.25,
            "performance.queue_depth": 4,
        },
    }


def test_a_loss_that_is_not_finite_is_the_last_and_in_no_mean(collector):
    for step, loss in enumerate([2.0, math.inf, 4.0, math.nan]):
        collector.collect_training_metrics(loss, None, None, step)
    summary = collector.get_metrics_summary()
    assert math.isnan(summary["last_loss"])
    assert (summary["last_step"], summary["mean_loss"], summary["min_loss"]) == (3, 3.0, 2.0)


def test_a_training_that_only_had_bad_losses_has_no_mean(collector):
    collector.collect_training_metrics(math.nan, None, None, 1)
    summary = collector.get_metrics_summary()
    assert (summary["mean_loss"], summary["min_loss"]) == (None, None)


def test_the_summary_outlives_a_cleared_history(collector):
    collector.collect_training_metrics(0.5, 2.0, 0.1, 7)
    collector.metrics_history.clear()
    summary = collector.get_metrics_summary()
    assert (summary["num_metrics"], summary["last_step"], summary["last_loss"]) == (1, 7, 0.5)
    assert summary["latest"] == {}


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.collect_training_metrics(0.5, None, None, 1),
        lambda c: c.collect_rl_metrics(1),
        lambda c: c.collect_performance_metrics(queue_depth=1),
        lambda c: c.time_operation("known"),
        lambda c: c.time_operation("new"),
        lambda c: c.__enter__(),
    ],
)
def test_a_closed_collector_takes_no_more_and_says_so(bus, heard, call):
    collector = MetricsCollector("r", registry=bus)
    with collector, collector.time_operation("known"):
        pass
    collector.close()
    with pytest.raises(RuntimeError) as caught:
        call(collector)
    assert str(caught.value) == (
        "The collector of run 'r' is closed and takes no more metrics. "
        "Make a new one: telemetry.create_metrics_collector('r')."
    )
    assert repr(collector) == "<MetricsCollector of run 'r', closed>"
    assert len(heard) == 2
    assert collector.get_metrics_summary()["num_metrics"] == 1
    assert len(list(collector.metrics_history)) == 1


def test_what_is_timed_while_the_collector_is_closed_ends_well(collector, heard):
    @collector.time_operation("decorated")
    def decorated():
        return 3

    with collector.time_operation("x"):
        collector.close()
    assert decorated() == 3
    assert [event.event[-1] for event in heard] == ["start", "stop", "start", "stop"]


def test_a_failing_block_closes_the_collector_too(bus):
    with pytest.raises(ZeroDivisionError), MetricsCollector("r", registry=bus) as collector:
        raise ZeroDivisionError
    with pytest.raises(RuntimeError, match="is closed"):
        collector.collect_rl_metrics(1)


def test_two_collectors_of_a_run_know_nothing_of_each_other(bus, heard):
    first, second = (MetricsCollector("r", registry=bus) for _ in range(2))
    first.collect_training_metrics(1.0, None, None, 1)
    first.close()
    second.collect_training_metrics(2.0, None, None, 2)
    assert [event.measurements["loss"] for event in heard] == [1.0, 2.0]
    assert len(first.metrics_history) == len(second.metrics_history) == 1


def test_threads_lose_nothing(collector, heard):
    def work(number):
        for step in range(500):
            collector.collect_training_metrics(1.0, None, None, step)
            with collector.time_operation(f"operation_{number}"):
                pass
            if step % 50 == 0:
                collector.get_metrics_summary()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heard) == 4 * 500 * 3
    assert collector.get_metrics_summary()["num_metrics"] == 4 * 500 * 2
    assert len(collector.metrics_history) == 4 * 500 * 2


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"run_id": None}, TypeError, "run_id must be a string, got None (NoneType)."),
        ({"run_id": ""}, ValueError, "run_id must not be empty."),
        ({"user_id": 7}, TypeError, "user_id must be a string, got 7 (int)."),
        (
            {"history_size": 0},
            ValueError,
            "history_size must be a whole number of at least 1, got 0 (int).",
        ),
        (
            {"history_size": "9"},
            TypeError,
            "history_size must be a whole number of at least 1, got '9' (str).",
        ),
    ],
)
def test_a_bad_argument_is_refused(bus, given, error, said):
    with pytest.raises(error) as caught:
        MetricsCollector(**{"run_id": "r", "registry": bus, **given})
    assert str(caught.value) == said


def test_bad_metrics_are_refused_and_nothing_is_recorded(collector, heard):
    with pytest.raises(TypeError, match=r"^step must be a whole number .* got 'one' \(str\)"):
        collector.collect_training_metrics(0.5, None, None, "one")
    with pytest.raises(ValueError, match=r"^step must be a whole number .* got -1 \(int\)"):
        collector.collect_rl_metrics(-1)
    with pytest.raises(TypeError, match=r"^step must be a whole number .* got None"):
        collector.collect_rl_metrics(None)
    with pytest.raises(TypeError, match=r"^extra_metrics of event .* must be a mapping, got \[1\]"):
        collector.collect_training_metrics(0.5, None, None, 1, [1])
    for name in ("", None, ["x"]):
        with pytest.raises((TypeError, ValueError), match=r"^operation_name must "):
            collector.time_operation(name)
    assert heard == []
    assert collector.get_metrics_summary()["num_metrics"] == 0

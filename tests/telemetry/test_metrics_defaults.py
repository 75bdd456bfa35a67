"""What is reported when nobody says what, held against the documents that name it."""

import pytest

from telemetry.events import CATALOGUE
from telemetry.metrics import Reporter, counter, last_value, monitoring, summary, tracking

NS = 1_000_000  # a millisecond
GROUP = ("smartclip", "clip", "group")


def told(metrics, event, measurements, metadata=None):
    samples = Reporter(metrics).samples(tuple(event.split(".")), measurements, metadata or {})
    return {sample.name: (sample.metric.kind, sample.value) for sample in samples}


GAUGE, COUNTER, SUM, SUMMARY = "last_value", "counter", "sum", "summary"
EVENTS = {
    # event: (measurements, metadata, what a monitoring system gets)
    "training.step": (
        {"loss": 2.5, "lr": 2e-4, "grad_norm": 1.5, "tokens_per_second": 1500},
        {"step": 7},
        {
            "training.step": (COUNTER, 1),
            "training.loss": (GAUGE, 2.5),
            "training.lr": (GAUGE, 2e-4),
            "training.grad_norm": (GAUGE, 1.5),
            "training.tokens_per_second": (GAUGE, 1500),
        },
    ),
    "training.epoch": ({"epoch_loss": 2.0}, {}, {"training.epoch_loss": (GAUGE, 2)}),
    "training.checkpoint": (
        {"size_bytes": 4096},
        {"checkpoint_name": "epoch_1"},
        {"training.checkpoint.size_bytes": (GAUGE, 4096)},
    ),
    "training.eval": (
        {"loss": 0.5, "accuracy": 0.9},
        {"split": "val"},
        {"val.loss": (GAUGE, 0.5), "val.accuracy": (GAUGE, 0.9)},
    ),
    "eval.complete": ({"f1": 0.75}, {"model": "m"}, {"eval.f1": (GAUGE, 0.75)}),
    "rl.step": (
        {
            "policy_loss": -2.3,
            "value_loss": 0.5,
            "entropy": 3.2,
            "kl_divergence": 0.01,
            "clip_fraction": 0.2,
            "advantage_mean": 0.1,
            "advantage_std": 0.9,
            "explained_variance": 0.8,
            "reward_mean": 5.2,
        },
        {"step": 100},
        {
            "rl.policy_loss": (GAUGE, -2.3),
            "rl.value_loss": (GAUGE, 0.5),
            "rl.entropy": (GAUGE, 3.2),
            "rl.kl_divergence": (GAUGE, 0.01),
            "rl.clip_fraction": (GAUGE, 0.2),
            "rl.advantage_mean": (GAUGE, 0.1),
            "rl.advantage_std": (GAUGE, 0.9),
            "rl.explained_variance": (GAUGE, 0.8),
            "rl.reward_mean": (GAUGE, 5.2),
        },
    ),
    "performance.sample": (
        {
            "forward_backward_duration_ms": 250.5,
            "optim_step_duration_ms": 50.2,
            "queue_depth": 3,
            "gpu_utilization": 95.5,
            "gpu_memory_used_gb": 38.2,
        },
        {},
        {
            "performance.forward_backward_duration_ms": (SUMMARY, 250.5),
            "performance.optim_step_duration_ms": (SUMMARY, 50.2),
            "performance.queue_depth": (GAUGE, 3),
            "performance.gpu_utilization": (GAUGE, 95.5),
            "performance.gpu_memory_used_gb": (GAUGE, 38.2),
        },
    ),
    "performance.operation.stop": (
        {"duration": 250 * NS, "monotonic_time": 5, "tokens": 9},
        {"operation": "forward_backward"},
        {
            "performance.forward_backward_duration_ms": (SUMMARY, 250),
            "performance.forward_backward_tokens": (GAUGE, 9),
        },
    ),
    "performance.operation.exception": (
        {"duration": 250 * NS, "monotonic_time": 5},
        {"operation": "forward_backward"},
        {"performance.forward_backward_exceptions": (COUNTER, 1)},
    ),
    "smartclip.clip.stop": (
        {"grad_norm": 4.0, "scale": 0.25, "groups": 9, "duration": 3 * NS},
        {"algo": "agc"},
        {
            "smartclip.grad_norm": (GAUGE, 4),
            "smartclip.scale": (GAUGE, 0.25),
            "smartclip.groups": (GAUGE, 9),
            "smartclip.duration_ms": (SUMMARY, 3),
        },
    ),
    "smartclip.clip.group": (
        {"grad_norm": 4.0, "threshold": 1.0, "clipped": True},
        {"key": ("layer", "conv1")},
        {
            "smartclip.group.grad_norm": (SUMMARY, 4),
            "smartclip.group.threshold": (SUMMARY, 1),
            "smartclip.group.clipped": (SUMMARY, 1),
        },
    ),
    "smartclip.clip.nonfinite": (
        {"grad_norm": float("nan"), "count": 2},
        {"policy": "skip"},
        {"smartclip.nonfinite.count": (SUM, 2)},
    ),
    "custom_loss.stop": (
        {"loss_total": 2.8, "regularizer_total": 0.3, "duration": 2 * NS},
        {"model_id": "m"},
        {
            "custom_loss.loss_total": (GAUGE, 2.8),
            "custom_loss.regularizer_total": (GAUGE, 0.3),
            "custom_loss.duration_ms": (SUMMARY, 2),
        },
    ),
    "regularizer.compute.stop": (
        {"value": 3.0, "contribution": 0.3, "duration": NS},
        {"regularizer_name": "sparsity"},
        {
            "regularizer.sparsity.value": (GAUGE, 3),
            "regularizer.sparsity.contribution": (GAUGE, 0.3),
            "regularizer.sparsity.duration_ms": (SUMMARY, 1),
        },
    ),
    "workflow.run.stop": (
        {"duration": 60_000 * NS},
        {"workflow": "w"},
        {"workflow.duration_ms": (SUMMARY, 60_000)},
    ),
    "workflow.run.exception": ({"duration": 9}, {}, {"workflow.exceptions": (COUNTER, 1)}),
    "stage.run.stop": (
        {"duration": 1200 * NS},
        {"stage": "load"},
        {"stage.load.duration_ms": (SUMMARY, 1200)},
    ),
    "dataset.load": (
        {"size": 50_000, "duration": 800 * NS},
        {"name": "mnist"},
        {"dataset.size": (GAUGE, 50_000), "dataset.duration_ms": (SUMMARY, 800)},
    ),
    "dataset.batch": ({"batch_size": 32}, {}, {"dataset.batch_size": (GAUGE, 32)}),
    "model.registered": (
        {"size": 7},
        {},
        {"model.registered": (COUNTER, 1), "model.size": (GAUGE, 7)},
    ),
    "alert.raised": (
        {"value": 0.3, "limit": 0.1},
        {"rule": "kl"},
        {
            "alert.kl.raised": (COUNTER, 1),
            "alert.kl.value": (GAUGE, 0.3),
            "alert.kl.limit": (GAUGE, 0.1),
        },
    ),
    "alert.cleared": (
        {"value": 0.05, "limit": 0.1},
        {"rule": "kl"},
        {
            "alert.kl.cleared": (COUNTER, 1),
            "alert.kl.value": (GAUGE, 0.05),
            "alert.kl.limit": (GAUGE, 0.1),
        },
    ),
    "telemetry.handler.failure": (
        {"monotonic_time": 1, "system_time": 2},
        {"handler_id": "wandb"},
        {"telemetry.handler.failure": (COUNTER, 1)},
    ),
    "telemetry.handler.overflow": (
        {"dropped": 12},
        {"handler_id": "wandb"},
        {"telemetry.handler.overflow.dropped": (SUM, 12)},
    ),
    "my.event": ({"x": 1.5}, {}, {"my.event.x": (GAUGE, 1.5)}),
    "my.batch.stop": (
        {"duration": 4 * NS, "x": 1},
        {},
        {"my.batch.duration_ms": (SUMMARY, 4), "my.batch.x": (GAUGE, 1)},
    ),
    "my.batch.start": ({"monotonic_time": 1, "system_time": 2}, {}, {}),
    "my.batch.exception": ({"duration": 4}, {}, {}),
}


@pytest.mark.parametrize("event", EVENTS)
def test_a_monitoring_system_gets_gauges_counts_and_durations(event):
    measurements, metadata, expected = EVENTS[event]
    assert told(monitoring(), event, measurements, metadata) == expected


CURVES = {
    "training.step": {
        "training.loss",
        "training.lr",
        "training.grad_norm",
        "training.tokens_per_second",
    },
    "training.eval": {"val.loss", "val.accuracy"},
    "smartclip.clip.stop": {
        *("smartclip.grad_norm", "smartclip.scale", "smartclip.groups"),
        "smartclip.duration_ms",
    },
    "smartclip.clip.group": {
        "smartclip.grad_norm[layer/conv1]",
        "smartclip.threshold[layer/conv1]",
        "smartclip.clipped[layer/conv1]",
    },
    "smartclip.clip.nonfinite": {"smartclip.nonfinite.grad_norm", "smartclip.nonfinite.count"},
    "custom_loss.stop": {
        *("custom_loss.loss_total", "custom_loss.regularizer_total"),
        "custom_loss.duration_ms",
    },
    "regularizer.compute.stop": {
        *("regularizer.sparsity.value", "regularizer.sparsity.contribution"),
        "regularizer.sparsity.duration_ms",
    },
    "performance.operation.stop": {
        "performance.forward_backward_duration_ms",
        "performance.forward_backward_tokens",
    },
    "performance.operation.exception": set(),
    "alert.raised": {"alert.kl.value", "alert.kl.limit"},
    "telemetry.handler.failure": set(),
    "my.event": {"my.event.x"},
}


@pytest.mark.parametrize("event", CURVES)
def test_a_tracker_gets_a_curve_for_each_measurement(event):
    measurements, metadata, _ = EVENTS[event]
    assert set(told(tracking(), event, measurements, metadata)) == CURVES[event]


def test_durations_are_milliseconds_on_a_curve_too():
    assert told(tracking(), "custom_loss.stop", {"duration": 2_500_000}) == {
        "custom_loss.duration_ms": ("summary", 2.5)
    }


def test_every_measurement_of_the_catalogue_is_reported_or_meant_to_be_left_out():
    for spec in CATALOGUE:
        measurements = {field.name: 1 for field in spec.measurements}
        metadata = {field.name: "m" for field in spec.metadata}
        names = told(monitoring(), spec.dotted, measurements, metadata)
        clocks = {"monotonic_time", "system_time"}
        if spec.name[-1] in ("start", "exception"):
            assert len(names) == (spec.name[-1] == "exception")
        elif spec.name[-1] != "failure":
            left_out = clocks | ({"grad_norm"} if spec.name[-1] == "nonfinite" else set())
            counts = sum(kind == "counter" for kind, _ in names.values())
            assert len(names) - counts == len(measurements.keys() - left_out), spec.dotted
        assert not any("?" in name for name in names)


def test_no_default_tag_has_many_values():
    many = {"step", "key", "telemetry_span_context", "batch_idx", "path", "message", "epoch"}
    for metric in monitoring():
        assert not many & set(metric.tags)
        assert not {f"{{{key}}}" for key in many} & {metric.report_as}
    (samples,) = Reporter(tracking()).samples(("a",), {"x": 1}, {"run_id": "r"})
    assert samples.tags == {}


def test_events_are_told_apart_by_run_user_and_keys_with_few_values():
    metadata = {"run_id": "r", "user_id": "u", "algo": "agc", "step": 3, "key": ("global",)}
    for sample in Reporter(monitoring()).samples(GROUP, {"grad_norm": 1}, metadata):
        assert sample.tags == {"run_id": "r", "user_id": "u", "algo": "agc"}
    (f1,) = Reporter(monitoring()).samples(("eval", "complete"), {"f1": 1}, {"model": "m"})
    assert f1.tags == {"model": "m"}
    (own,) = Reporter(monitoring()).samples(("my", "event"), {"x": 1}, {"run_id": "r", "z": 1})
    assert own.tags == {"run_id": "r"}


def test_a_definition_of_yours_replaces_the_default_of_the_same_measurement():
    mine = summary("training.step.loss", report_as="my_loss")
    step = ("training.step", {"loss": 2.5, "lr": 1.0})
    assert told(monitoring(mine), *step) == {
        "my_loss": ("summary", 2.5),
        "training.step": ("counter", 1),
        "training.lr": ("last_value", 1),
    }
    assert told(tracking(mine), *step) == {
        "my_loss": ("summary", 2.5),
        "training.lr": ("last_value", 1),
    }
    silent = last_value("**.*", drop=lambda metadata: True)
    assert told(tracking(silent), *step) == {}


def test_counting_a_measurement_does_not_replace_its_value():
    metrics = monitoring(counter("custom_loss.stop.loss_total", report_as="losses"))
    event, metadata = ("custom_loss", "stop"), {"model_id": "m"}
    samples = Reporter(metrics).samples(event, {"loss_total": 2.5}, metadata)
    assert [(s.name, s.metric.kind, s.value, s.tags) for s in samples] == [
        ("losses", "counter", 1, {}),
        ("custom_loss.loss_total", "last_value", 2.5, {"model_id": "m"}),
    ]


def test_nothing_else_is_reported_under_the_name_of_a_counter():
    assert told(monitoring(), "training.step", {"step": 7}) == {"training.step": ("counter", 1)}
    assert told(tracking(), "training.step", {"step": 7}) == {"training.step": ("last_value", 7)}


def test_changes_that_are_no_definitions_are_refused():
    with pytest.raises(TypeError, match="which is no definition"):
        monitoring("training.step.loss")

"""Definitions of what is reported: what they hold, and of what they warn."""

import warnings
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from telemetry import metrics
from telemetry.metrics import (
    counter,
    distribution,
    last_value,
    sum_,
    summary,
)

KINDS = {
    counter: "counter",
    last_value: "last_value",
    sum_: "sum",
    summary: "summary",
    distribution: "distribution",
}


def test_the_package_exports_these_names():
    assert sorted(metrics.__all__) == [
        *("Kind", "Metric", "Predicate", "Reduction", "Reporter", "Sample", "check_metrics"),
        *("counter", "distribution", "last_value", "monitoring", "sum_", "summary", "tracking"),
    ]
    assert all(hasattr(metrics, name) for name in metrics.__all__)


@pytest.mark.parametrize("define", KINDS)
def test_a_name_is_the_event_and_then_the_measurement(define):
    metric = define("training.step.loss")
    assert metric.kind == KINDS[define]
    assert metric.event == ("training", "step")
    assert metric.measurement == "loss"


@pytest.mark.parametrize("define", KINDS)
def test_a_definition_takes_the_options_of_all_kinds(define):
    metric = define(
        "rl.step.reward_mean",
        report_as="reward",
        tags=["run_id", "policy"],
        description="how well it does",
        keep=bool,
        sampling_rate=0.25,
    )
    assert (metric.report_as, metric.tags) == ("reward", ("run_id", "policy"))
    assert (metric.description, metric.keep, metric.sampling_rate) == (
        "how well it does",
        bool,
        0.25,
    )


def test_a_definition_cannot_be_changed():
    metric = last_value("training.step.loss")
    with pytest.raises(FrozenInstanceError):
        metric.kind = "sum"


def test_what_the_catalogue_knows_need_not_be_said():
    duration = summary("custom_loss.stop.duration")
    assert (duration.unit, duration.factor) == ("ms", 1e-6)
    assert duration.description == "from start to end"
    memory = last_value("performance.sample.gpu_memory_used_gb")
    assert (memory.unit, memory.factor) == ("GB", 1.0)
    own = summary("my.batch.stop.duration")  # every span's duration is in nanoseconds
    assert (own.unit, own.factor, own.description) == ("ms", 1e-6, "")
    assert (last_value("my.event.duration").unit, last_value("my.event.duration").factor) == ("", 1)


@pytest.mark.parametrize(
    ("name", "unit", "factor"),
    [
        ("custom_loss.stop.duration", "ns", 1.0),
        ("custom_loss.stop.duration", "us", 1e-3),
        ("custom_loss.stop.duration", "ms", 1e-6),
        ("custom_loss.stop.duration", "s", 1e-9),
        ("custom_loss.stop.duration", "min", 1 / 60e9),
        ("custom_loss.stop.duration", "h", 1 / 3600e9),
        ("my.event.duration", ("s", "ms"), 1000.0),
        ("my.event.took", ("h", "min"), 60.0),
        ("training.checkpoint.size_bytes", "MB", 1e-6),
        ("training.checkpoint.size_bytes", "MiB", 1 / 1048576),
        ("my.event.memory", ("GiB", "kB"), 1073741.824),
        ("my.event.share", ("ratio", "percent"), 100.0),
        ("performance.sample.gpu_utilization", "ratio", 0.01),
    ],
)
def test_units_are_converted(name, unit, factor):
    metric = last_value(name, unit=unit)
    assert metric.unit == (unit if isinstance(unit, str) else unit[1])
    assert metric.factor == factor


def test_a_unit_of_what_nobody_knows_is_a_label():
    metric = last_value("my.event.speed", unit="tokens per second")
    assert (metric.unit, metric.factor) == ("tokens per second", 1.0)


def test_a_duration_has_its_unit_in_its_default_name():
    names = {
        "ms": "custom_loss.{measurement}_ms",
        "s": "custom_loss.{measurement}_s",
    }
    for unit, name in names.items():
        assert summary("custom_loss.stop.duration", unit=unit).report_as == name
    named = "performance.sample.optim_step_duration_ms"
    assert summary(named).report_as == "performance.{measurement}"
    assert summary(named, unit="s").report_as == "performance.optim_step_duration_s"
    operation = "performance.operation.stop.duration"
    assert summary(operation).report_as == "performance.{operation}_{measurement}_ms"
    assert summary(operation, unit="s").report_as == "performance.{operation}_{measurement}_s"
    assert summary("custom_loss.stop.duration", report_as="took").report_as == "took"


def test_what_is_no_duration_has_no_unit_in_its_name():
    name = "performance.{operation}_{measurement}"
    assert last_value("performance.operation.stop.tokens").report_as == name
    assert counter("performance.operation.stop.count").report_as == name


def test_what_is_dropped_is_what_is_not_kept():
    kept = last_value("training.eval.loss", keep=lambda metadata: metadata["split"] == "val")
    dropped = last_value("training.eval.loss", drop=lambda metadata: metadata["split"] == "val")
    for split in ("val", "test"):
        assert kept.keep({"split": split}) is (split == "val")
        assert dropped.keep({"split": split}) is (split != "val")


def test_buckets_are_ascending_numbers():
    assert distribution("rl.step.kl_divergence", buckets=[0, 0.05, 1]).buckets == (0.0, 0.05, 1.0)
    assert distribution("rl.step.kl_divergence").buckets == ()
    for many in (np.linspace(0, 1, 3, dtype=np.float32), np.array([0, 0.5, 1]), (0, 0.5, 1)):
        found = distribution("rl.step.kl_divergence", buckets=many).buckets
        assert found == (0.0, 0.5, 1.0)
        assert {type(bound) for bound in found} == {float}


def test_a_tag_that_is_given_twice_is_one():
    assert last_value("training.step.loss", tags=["run_id", "split", "run_id"]).tags == (
        "run_id",
        "split",
    )


def test_the_unit_of_a_duration_may_stand_in_its_name():
    wait = last_value("my.event.wait_duration_ms")
    assert (wait.unit, wait.factor, wait.report_as) == ("ms", 1.0, "{event}.{measurement}")
    seconds = last_value("my.event.wait_duration_ms", unit="s")
    assert (seconds.unit, seconds.factor) == ("s", 1e-3)
    assert seconds.report_as == "{event}.wait_duration_s"
    assert last_value("my.event.wait_duration_ns").unit == "ns"
    assert last_value("my.event.items").unit == ""
    assert last_value("my.event.delay_ms").unit == ""  # who knows


@pytest.mark.parametrize(
    ("reduction", "source"),
    [("mean", "loss@mean"), ("sum", "loss@sum"), ("max", "loss@max"), ("min", "loss@min")],
)
def test_a_reduced_value_has_a_key_of_its_own(reduction, source):
    metric = last_value("training.step.loss", reduce=reduction)
    assert (metric.reduce, metric.source, metric.presence) == (reduction, source, "loss@ranks")
    assert last_value("training.step.loss").source == "loss"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "trainning.step.loss",
            (
                "trainning.step is not in the event catalogue. "
                "Nearest: training.step, training.epoch, training.eval."
            ),
        ),
        (
            "training.stepp.loss",
            (
                "training.stepp is not in the event catalogue. "
                "Nearest: training.step, training.epoch, training.eval."
            ),
        ),
        (
            "train.step.loss",
            (
                "train.step is not in the event catalogue. "
                "Nearest: training.step, training.epoch, training.eval."
            ),
        ),
        (
            "datasets.loaded.size",
            "datasets.loaded is not in the event catalogue. Nearest: dataset.load, dataset.batch.",
        ),
        (
            "modle.registered.size",
            "modle.registered is not in the event catalogue. Nearest: model.registered.",
        ),
        (
            "custom_loss.stop.loss_totl",
            (
                "custom_loss.stop has no measurement 'loss_totl' in the event catalogue. "
                "Nearest: loss_total."
            ),
        ),
        (
            "alert.zzz.value",
            "alert.zzz is not in the event catalogue. Nearest: alert.raised, alert.cleared.",
        ),
    ],
)
def test_a_probable_slip_is_warned_of_where_it_was_made(name, text):
    with pytest.warns(UserWarning, match="Metric") as caught:
        last_value(name)
    (warning,) = caught
    assert str(warning.message) == f"Metric {name!r}: {text}"
    assert warning.filename == __file__


@pytest.mark.parametrize(
    "name",
    [
        "my.event.loss",  # families of somebody's own, and what they mostly call events
        "my.step.loss",
        "my.training.step.loss",
        "my.batch.stop.duration",
        "my.eval.loss",
        "step.loss",
        "gan.step.g_loss",
        "distill.step.loss",
        "val.step.loss",
        "validation.step.loss",
        "finetuning.step.loss",
        "job.run.stop.duration",
        "epoch.stop.duration",
        "data.load.size",
        "training.step.perplexity",  # events of your code may have more measurements
        "training.eval.accuracy",
        "performance.operation.stop.anything",
        "smartclip.**.grad_norm",
        "*.step.loss",
        "**.duration",
        "**.*",
    ],
)
def test_what_is_no_slip_is_not_warned_of(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        last_value(name)


def test_a_counter_may_count_under_any_name():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert counter("smartclip.clip.group.whatever").measurement == "whatever"

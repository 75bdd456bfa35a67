import collections
import dataclasses
import re
import string

import pytest

from telemetry import events, workflow_run
from telemetry.events import CATALOGUE, EventSpec, Field, find, select
from telemetry.metrics import Reporter, tracking
from telemetry.names import check_event

DESIGN = [
    "smartclip.clip.start",
    "smartclip.clip.stop",
    "smartclip.clip.exception",
    "smartclip.clip.group",
    "smartclip.clip.nonfinite",
    "custom_loss.start",
    "custom_loss.stop",
    "custom_loss.exception",
    "regularizer.compute.start",
    "regularizer.compute.stop",
    "regularizer.compute.exception",
    "workflow.run.start",
    "workflow.run.stop",
    "workflow.run.exception",
    "stage.run.start",
    "stage.run.stop",
    "stage.run.exception",
    "training.step",
    "training.timing",
    "training.epoch",
    "training.checkpoint",
    "training.eval",
    "eval.complete",
    "model.registered",
    "dataset.load",
    "dataset.batch",
    "rl.step",
    "performance.sample",
    "performance.operation.start",
    "performance.operation.stop",
    "performance.operation.exception",
    "alert.raised",
    "alert.cleared",
    "telemetry.handler.failure",
    "telemetry.handler.overflow",
    "telemetry.probe.failure",
]

MEASUREMENTS = {
    "smartclip.clip.stop": "duration grad_norm clipped_grad_norm scale threshold target "
    "weight_norm groups groups_clipped",
    "smartclip.clip.group": "grad_norm threshold target weight_norm scale clipped",
    "smartclip.clip.nonfinite": "grad_norm count",
    "custom_loss.stop": "duration loss_total regularizer_total total_grad_norm",
    "regularizer.compute.stop": "duration value contribution grad_norm",
    "workflow.run.stop": "duration",
    "stage.run.stop": "duration",
    "training.step": "loss lr grad_norm",
    "training.timing": "step_duration data_duration batch_size samples_per_second",
    "training.epoch": "epoch_loss",
    "training.checkpoint": "size_bytes",
    "dataset.load": "size duration",
    "dataset.batch": "batch_size",
    "rl.step": "policy_loss value_loss entropy kl_divergence clip_fraction advantage_mean "
    "advantage_std explained_variance reward_mean",
    "performance.sample": "queue_depth gpu_utilization gpu_memory_used_gb cpu_utilization "
    "memory_used_gb memory_utilization process_cpu_utilization process_memory_gb",
    "performance.operation.stop": "duration",
    "alert.raised": "value limit",
    "alert.cleared": "value limit",
    "telemetry.handler.failure": "monotonic_time system_time",
    "telemetry.handler.overflow": "dropped",
    "telemetry.probe.failure": "monotonic_time system_time",
}

METADATA = {
    "smartclip.clip.start": "algo scope backend dry_run",
    "smartclip.clip.stop": "algo scope backend dry_run outcome clipper_step",
    "smartclip.clip.group": "algo key scope clipper_step",
    "smartclip.clip.nonfinite": "algo keys policy clipper_step",
    "custom_loss.start": "model_id data_count regularizer_count track_grad_norms",
    "regularizer.compute.start": "regularizer_name weight async",
    "workflow.run.start": "workflow run_id attempt host user pid world_size command python "
    "frameworks git_commit",
    "stage.run.start": "stage module",
    "stage.run.stop": "success",
    "stage.run.exception": "error",
    "training.step": "step total_steps",
    "training.timing": "step total_steps",
    "training.epoch": "epoch total_epochs",
    "training.checkpoint": "checkpoint_name path",
    "training.eval": "split step",
    "eval.complete": "model",
    "model.registered": "name version model_id",
    "dataset.load": "name",
    "dataset.batch": "batch_idx",
    "rl.step": "step run_id user_id",
    "performance.operation.start": "operation",
    "alert.raised": "rule severity metric message",
    "alert.cleared": "rule severity metric message",
    "telemetry.handler.failure": "event_name handler_id handler_config kind reason stacktrace",
    "telemetry.handler.overflow": "handler_id policy",
    "telemetry.probe.failure": "probe kind reason stacktrace",
}


def spec_of(dotted):
    return events.find(tuple(dotted.split(".")))


def test_every_event_of_the_design_has_one_row_and_there_are_no_others():
    assert sorted(spec.dotted for spec in CATALOGUE) == sorted(DESIGN)


def test_no_name_is_there_twice():
    counts = collections.Counter(spec.name for spec in CATALOGUE)
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.dotted)
def test_a_row_is_well_formed(spec):
    assert check_event(spec.name) == spec.name
    assert spec.about
    assert spec.about == spec.about.strip(" .")
    assert spec.emitter in ("clipping", "regularizers", "handlers", "telemetry", "your code")
    for fields in (spec.measurements, spec.metadata):
        names = [field.name for field in fields]
        assert len(names) == len(set(names))
        assert all(field.about and field.name.isidentifier() for field in fields)
    keys = [key for _, key, _, _ in string.Formatter().parse(spec.reported) if key]
    assert keys[-1] == "measurement" or keys == ["measurement", "key"]
    known = {"measurement", *(field.name for field in spec.metadata)}
    assert set(keys) <= known


@pytest.mark.parametrize("dotted", MEASUREMENTS)
def test_measurements_are_those_of_the_design(dotted):
    names = {field.name for field in spec_of(dotted).measurements}
    assert names >= set(MEASUREMENTS[dotted].split())


@pytest.mark.parametrize("dotted", METADATA)
def test_metadata_are_those_of_the_design(dotted):
    names = {field.name for field in spec_of(dotted).metadata}
    assert names >= set(METADATA[dotted].split())


@pytest.mark.parametrize(
    "prefix", sorted({d.rpartition(".")[0] for d in DESIGN if d.endswith(".exception")})
)
def test_spans_have_what_the_bus_adds(prefix):
    start, stop, failed = (spec_of(f"{prefix}.{last}") for last in ("start", "stop", "exception"))
    assert {f.name for f in start.measurements} == {"monotonic_time", "system_time"}
    assert {f.name for f in stop.measurements} >= {"monotonic_time", "duration"}
    assert {f.name for f in failed.measurements} == {"monotonic_time", "duration"}
    assert {f.name for f in failed.metadata} >= {"kind", "reason", "stacktrace"}
    assert {f.name for f in failed.metadata} >= {f.name for f in start.metadata}
    assert {f.name for f in stop.metadata} >= {f.name for f in start.metadata}
    assert "telemetry_span_context" in {f.name for f in start.metadata}


def test_times_are_in_nanoseconds_and_units_are_given_where_names_leave_doubt():
    for spec in CATALOGUE:
        for field in spec.measurements:
            if field.name in ("duration", "monotonic_time", "system_time"):
                assert field.unit == "ns"
            if field.name.endswith("_ms"):
                assert field.unit == "ms"
            if field.name.endswith("_gb"):
                assert field.unit == "GB"


@pytest.mark.parametrize(
    ("event", "measurement", "metadata", "reported"),
    [
        ("training.step", "loss", {"step": 1}, "training.loss"),
        ("training.step", "lr", {}, "training.lr"),
        ("training.step", "mine", {}, "training.mine"),
        ("training.epoch", "epoch_loss", {"epoch": 1}, "training.epoch_loss"),
        ("training.eval", "loss", {"split": "val"}, "val.loss"),
        ("training.eval", "accuracy", {"split": "test", "step": 3}, "test.accuracy"),
        ("smartclip.clip.stop", "grad_norm", {"algo": "autoclip"}, "smartclip.grad_norm"),
        ("smartclip.clip.group", "grad_norm", {"key": ("global",)}, "smartclip.grad_norm[global]"),
        (
            "smartclip.clip.group",
            "scale",
            {"key": ("layer", "conv1")},
            "smartclip.scale[layer/conv1]",
        ),
        ("custom_loss.stop", "loss_total", {"model_id": "m"}, "custom_loss.loss_total"),
        (
            "regularizer.compute.stop",
            "value",
            {"regularizer_name": "sparsity"},
            "regularizer.sparsity.value",
        ),
        ("rl.step", "kl_divergence", {"step": 1}, "rl.kl_divergence"),
        ("performance.sample", "queue_depth", {}, "performance.queue_depth"),
        (
            "performance.operation.stop",
            "duration",
            {"operation": "forward"},
            "performance.forward_duration_ms",
        ),
        (
            "performance.operation.stop",
            "tokens",
            {"operation": "forward"},
            "performance.forward_tokens",
        ),
        ("custom_loss.stop", "duration", {}, "custom_loss.duration_ms"),
        ("training.timing", "step_duration", {}, "training.step_duration_ms"),
        ("performance.sample", "optim_step_duration_ms", {}, "performance.optim_step_duration_ms"),
        ("training.eval", "loss", {"split": None}, "?.loss"),
    ],
)
def test_the_name_under_which_a_measurement_is_reported(event, measurement, metadata, reported):
    assert spec_of(event).reported_name(measurement, metadata) == reported


@pytest.mark.parametrize("spec", CATALOGUE, ids=lambda spec: spec.dotted)
def test_a_tracker_reports_under_the_same_names(spec):
    metadata = {key: f"a {key}" for key in ("split", "operation", "rule", "stage", "key")}
    metadata |= {"regularizer_name": True}
    reporter = Reporter(tracking())
    for measurement in (*(field.name for field in spec.measurements), "mine", "my_duration_ms"):
        for sample in reporter.samples(spec.name, {measurement: 1.0}, metadata):
            assert spec.reported_name(measurement, metadata) == sample.name


def test_what_the_metadata_lack_is_a_question_mark():
    assert spec_of("training.eval").reported_name("loss", {}) == "?.loss"


def test_metadata_cannot_change_the_measurement_or_the_template():
    spec = spec_of("training.eval")
    assert spec.reported_name("loss", {"measurement": "x", "split": "{measurement}"}) == (
        "{measurement}.loss"
    )
    assert spec.reported_name("loss", {"split": "a{0}b", 3: "not a string key"}) == "a{0}b.loss"


def test_find_knows_exact_names_only():
    assert events.find(("training", "step")).name == ("training", "step")
    for unknown in (("training",), ("training", "step", "x"), ("mine",)):
        assert events.find(unknown) is None


def test_select_takes_a_pattern():
    assert [s.dotted for s in events.select(("training", "*"))] == [
        "training.step",
        "training.timing",
        "training.epoch",
        "training.checkpoint",
        "training.eval",
    ]
    assert events.select(("**",)) == list(CATALOGUE)
    assert events.select(("mine", "**")) == []


def test_rows_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CATALOGUE[0].about = "x"
    with pytest.raises(dataclasses.FrozenInstanceError):
        CATALOGUE[0].measurements[0].name = "x"
    assert isinstance(CATALOGUE, tuple)


def test_what_comes_many_times_a_step_is_marked_as_detail():
    details = {s.dotted for s in CATALOGUE if s.detail}
    assert "training.step" not in details
    assert "smartclip.clip.group" in details
    assert not any(d.endswith(("exception", "nonfinite", "failure", "raised")) for d in details)


# The bus's own events against their row


def test_the_bus_sends_failure_as_the_catalogue_says(bus, recorder):
    bus.attach("bad", ("a",), lambda *_: 1 / 0)
    bus.attach("h", ("telemetry", "handler", "failure"), recorder)
    bus.execute(("a",), {})
    spec = events.find(recorder[0].event)
    assert {f.name for f in spec.measurements} == recorder[0].measurements.keys()
    assert {f.name for f in spec.metadata} == recorder[0].metadata.keys()


def test_spans_send_what_the_catalogue_says(bus, recorder):
    bus.attach("h", ("workflow", "**"), recorder)
    with workflow_run("w", registry=bus):
        pass
    with pytest.raises(KeyError), workflow_run("w", registry=bus):
        raise KeyError
    sent = {e.event: e for e in recorder}
    assert len(sent) == 3
    unknown_to_some = {"user", "git_commit"}  # in a container, and outside of a checkout
    for event, sample in sent.items():
        spec = events.find(event)
        names = {f.name for f in spec.metadata}
        assert {f.name for f in spec.measurements} == sample.measurements.keys()
        assert names - unknown_to_some <= sample.metadata.keys() <= names


def test_a_row_can_be_made_by_others():
    spec = EventSpec(("mine",), "mine", "me", "mine.{measurement}", (Field("x", "an x", "m"),))
    assert spec.dotted == "mine"
    assert not spec.detail
    assert re.fullmatch(r"mine\.x", spec.reported_name("x", {}))


def test_names_and_patterns_are_checked():
    with pytest.raises(
        TypeError, match=r"Event name must be a tuple of strings, got 'training.step'"
    ):
        find("training.step")
    with pytest.raises(ValueError, match="Event pattern must not be empty"):
        select(())


def test_a_pattern_selects_whole_names():
    assert [spec.dotted for spec in select(("training", "*"))] == [
        "training.step",
        "training.timing",
        "training.epoch",
        "training.checkpoint",
        "training.eval",
    ]

"""Emit helpers: what each call puts on the bus."""

import collections
import fractions
import functools
import inspect

import numpy as np
import pytest

import telemetry
from telemetry import emit
from telemetry.events import CATALOGUE
from telemetry.testing import capture

OF_THE_BUS = {"monotonic_time", "system_time", "telemetry_span_context"}
OF_THE_BUS |= {"kind", "reason", "stacktrace"}

HELPERS = {
    ("training", "step"): telemetry.emit_step,
    ("training", "timing"): telemetry.emit_timing,
    ("training", "epoch"): telemetry.emit_epoch,
    ("training", "checkpoint"): telemetry.emit_checkpoint,
    ("training", "eval"): telemetry.emit_eval,
    ("eval", "complete"): telemetry.emit_eval_complete,
    ("model", "registered"): telemetry.emit_model_registered,
    ("dataset", "load"): telemetry.emit_dataset_load,
    ("dataset", "batch"): telemetry.emit_dataset_batch,
    ("rl", "step"): telemetry.emit_rl_step,
    ("performance", "sample"): telemetry.emit_performance,
}
SPANS = {
    ("workflow", "run"): lambda **given: telemetry.workflow_run(given.pop("workflow"), **given),
    ("stage", "run"): lambda **given: telemetry.stage_run(given.pop("stage"), **given),
    ("performance", "operation"): lambda **given: telemetry.time_operation(
        given.pop("operation"), **given
    ),
}
YOURS = [spec for spec in CATALOGUE if spec.emitter == "your code"]
COUNTS = {"step", "total_steps", "epoch", "total_epochs", "batch_idx", "attempt"}


OTHERS = {"measurements", "metadata", "registry", "more"}


def metadata_of(spec):
    names = [field.name for field in spec.metadata if field.name not in OF_THE_BUS]
    return {name: 7 if name in COUNTS else f"a {name}" for name in names}


@pytest.mark.parametrize(
    "spec",
    [spec for spec in YOURS if spec.name[:-1] not in SPANS],
    ids=lambda spec: spec.dotted,
)
def test_each_event_of_your_code_has_a_helper_with_its_row_as_keywords(spec):
    measurements = {field.name: n + 0.5 for n, field in enumerate(spec.measurements)}
    metadata = metadata_of(spec)
    with capture() as events:
        HELPERS[spec.name](**measurements, **metadata)
    assert events == [(spec.name, measurements, metadata)]


@pytest.mark.parametrize(
    "spec",
    [spec for spec in YOURS if spec.name[:-1] not in SPANS],
    ids=lambda spec: spec.dotted,
)
def test_a_signature_has_its_row_and_nothing_else(spec):
    row = {field.name for field in (*spec.measurements, *spec.metadata)}
    assert set(inspect.signature(HELPERS[spec.name]).parameters) - OTHERS == row


@pytest.mark.parametrize(
    "spec", [spec for spec in YOURS if spec.name[:-1] in SPANS], ids=lambda spec: spec.dotted
)
def test_each_span_of_your_code_has_a_helper_with_its_row_as_keywords(spec):
    end = spec.name[-1]
    given = metadata_of(spec)
    later = {name: given.pop(name) for name in ("success", "error") if name in given}
    with capture(spec.name) as events:
        span = SPANS[spec.name[:-1]](**given)
        span.begin()
        span.annotate({key: value for key, value in later.items() if key != "error"})
        if end == "exception":
            span.exception(ValueError("a problem"))
        else:
            span.stop()
    (event,) = events
    if "error" in later:
        later["error"] = "ValueError: a problem"
    expected = {**given, **later}
    assert {key: event.metadata.get(key) for key in expected} == expected
    assert event.metadata.keys() <= {field.name for field in spec.metadata}
    assert {field.name for field in spec.measurements} == event.measurements.keys()


def test_the_seeds_form_takes_two_mappings():
    with capture() as events:
        telemetry.emit_step({"loss": 2.5432, "lr": 0.0002}, {"step": 1, "total_steps": 1000})
        telemetry.emit_epoch({"epoch_loss": 1.3}, {"epoch": 1, "total_epochs": 3})
    assert events == [
        (("training", "step"), {"loss": 2.5432, "lr": 0.0002}, {"step": 1, "total_steps": 1000}),
        (("training", "epoch"), {"epoch_loss": 1.3}, {"epoch": 1, "total_epochs": 3}),
    ]


def test_keywords_win_over_mappings_and_none_is_not_given():
    with capture() as events:
        telemetry.emit_step({"loss": 1.0, "lr": 0.1}, {"step": 1}, loss=2.0, lr=None, step=2)
    assert events[0][1:] == ({"loss": 2.0, "lr": 0.1}, {"step": 2})


def test_zero_and_nan_are_given():
    with capture() as events:
        telemetry.emit_step(loss=0.0, grad_norm=float("nan"), step=0)
    assert events[0].measurements["loss"] == 0.0
    assert np.isnan(events[0].measurements["grad_norm"])
    assert events[0].metadata == {"step": 0}


def test_keywords_that_a_helper_does_not_know_are_measurements():
    with capture() as events:
        telemetry.emit_eval(split="val", step=3, accuracy=0.9, confusion=4)
        telemetry.emit_model_registered(name="m", version=3, size=12)
    assert events[0][1:] == ({"accuracy": 0.9, "confusion": 4}, {"split": "val", "step": 3})
    assert events[1][1:] == ({"size": 12}, {"name": "m", "version": 3})


def test_the_context_around_is_under_what_is_given():
    with capture() as events, telemetry.context(run_id="r", epoch=1, step=4):
        telemetry.emit_step(loss=1.0)
        telemetry.emit_step(loss=1.0, step=5)
    assert [event.metadata for event in events] == [
        {"run_id": "r", "epoch": 1, "step": 4},
        {"run_id": "r", "epoch": 1, "step": 5},
    ]


def test_mappings_of_any_kind_are_taken_and_not_written_to():
    given = collections.ChainMap({"loss": 1.0}, {"lr": 0.1})
    place = {"step": 1}
    with capture() as events:
        telemetry.emit_step(given, place, grad_norm=2.0, epoch=1)
    assert events[0][1:] == ({"loss": 1.0, "lr": 0.1, "grad_norm": 2.0}, {"step": 1, "epoch": 1})
    assert (dict(given), place) == ({"loss": 1.0, "lr": 0.1}, {"step": 1})


def test_device_scalars_are_handed_over_as_they_are():
    import torch

    on_no_device = torch.empty((), device="meta")  # any read of it raises
    with capture() as events:
        telemetry.emit_step(loss=on_no_device, step=on_no_device)
    assert events[0].measurements["loss"] is on_no_device
    assert events[0].metadata["step"] is on_no_device


@pytest.mark.parametrize("listening", [True, False])
@pytest.mark.parametrize(
    ("step", "error", "shown"),
    [
        ("3", TypeError, "'3' (str)"),
        (True, TypeError, "True (bool)"),
        ([1], TypeError, "[1] (list)"),
        (1j, TypeError, "1j (complex)"),
        (np.zeros(2), TypeError, "array([0., 0.]) (ndarray)"),
        (-1, ValueError, "-1 (int)"),
        (1.5, ValueError, "1.5 (float)"),
        (float("nan"), ValueError, "nan (float)"),
        (float("inf"), ValueError, "inf (float)"),
        (np.int64(-2), ValueError, f"{np.int64(-2)!r} (int64)"),
        (fractions.Fraction(1, 2), ValueError, "Fraction(1, 2) (Fraction)"),
    ],
)
def test_a_step_that_is_no_count_is_refused_whoever_listens(step, error, shown, listening):
    def emit_all():
        for call in (
            lambda: telemetry.emit_step(loss=1.0, step=step),
            lambda: telemetry.emit_step({"loss": 1.0}, {"step": step}),
        ):
            with pytest.raises(error) as caught:
                call()
            said = f"step must be a whole number of at least 0, got {shown}."
            assert str(caught.value) == said

    if listening:
        with capture() as events:
            emit_all()
        assert events == []
    else:
        emit_all()


@pytest.mark.parametrize("step", [0, 3, 3.0, np.int32(3), np.float64(3), fractions.Fraction(3)])
def test_what_is_a_count_passes_as_it_is(step):
    with capture() as events:
        telemetry.emit_step(step=step)
    assert events[0].metadata["step"] is step


@pytest.mark.parametrize(
    ("helper", "name"),
    [
        (telemetry.emit_step, "total_steps"),
        (telemetry.emit_epoch, "epoch"),
        (telemetry.emit_epoch, "total_epochs"),
        (telemetry.emit_checkpoint, "step"),
        (functools.partial(telemetry.emit_eval, split="val"), "step"),
        (telemetry.emit_dataset_batch, "batch_idx"),
        (telemetry.emit_rl_step, "step"),
        (telemetry.emit_timing, "epoch"),
    ],
)
def test_every_count_is_checked_by_its_name(helper, name):
    with pytest.raises(ValueError, match=f"^{name} must be a whole number of at least 0, got -1"):
        helper(**{name: -1})


@pytest.mark.parametrize("listening", [True, False])
def test_what_is_no_mapping_is_refused_whoever_listens(listening):
    with capture(*([] if listening else [("nothing",)])):
        with pytest.raises(TypeError) as caught:
            telemetry.emit_step([("loss", 1.0)])
        assert str(caught.value) == (
            "Measurements of event ('training', 'step') must be a mapping, "
            "got [('loss', 1.0)] (list). Write {'name': value}."
        )
        with pytest.raises(TypeError, match=r"^Metadata of event .* must be a mapping, got 3 "):
            telemetry.emit_step({}, 3)


def test_an_error_does_not_print_all_of_what_was_given():
    with pytest.raises(TypeError) as caught:
        telemetry.emit_step(step=list(range(100_000)))
    assert len(str(caught.value)) < 1200


def test_a_strange_object_as_a_step_is_a_clear_error():
    class Strange:
        dtype = "float32"

        @property
        def shape(self):
            raise RuntimeError("of unknown rank")

        def __repr__(self):
            raise RuntimeError("unprintable")

    with pytest.raises(TypeError, match="got <unprintable Strange object> "):
        telemetry.emit_step(step=Strange())


def test_all_helpers_are_exported():
    helpers = {function.__name__ for function in HELPERS.values()} | {"time_operation"}
    assert set(emit.__all__) == helpers
    assert helpers <= set(telemetry.__all__)


def test_time_operation_times_blocks_and_functions():
    @telemetry.time_operation("forward", device="cpu")
    def forward():
        return 3

    with capture(("performance", "operation", "stop")) as events:
        with telemetry.time_operation("load") as operation:
            operation.measure(items=4)
        assert forward() == 3
    assert [event.metadata["operation"] for event in events] == ["load", "forward"]
    assert events[0].measurements["items"] == 4
    assert events[1].metadata["device"] == "cpu"


def test_time_operation_takes_a_bus_and_checks_where(bus, heard):
    with telemetry.time_operation("load", registry=bus, step=3):
        pass
    assert [event.metadata["step"] for event in heard] == [3, 3]
    with pytest.raises(TypeError, match=r"^registry must be a telemetry\.Registry, got None"):
        telemetry.time_operation("load", registry=None)
    with pytest.raises(TypeError, match=r"^step must be a whole number .* got 'x'"):
        telemetry.time_operation("load", step="x")


@pytest.mark.parametrize(("name", "error"), [("", ValueError), (None, TypeError), (3, TypeError)])
def test_an_operation_has_a_name(name, error):
    with pytest.raises(error, match=r"^operation must "):
        telemetry.time_operation(name)

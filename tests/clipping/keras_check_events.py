"""The events of a fit, and what ``on_metrics`` is given."""

import keras
import numpy as np
import pytest
from keras_checking import check, close
from keras_models import (
    BATCH,
    GROUP,
    INPUTS,
    NONFINITE,
    STOP,
    TARGETS,
    Percentile,
    first_fit,
    fit,
    linear,
    percentile,
    reference,
)

import telemetry
from clipping.integrations.keras import ClipCallback
from telemetry.testing import capture


@check()
def events_have_what_is_known_and_no_duration():
    clip, _, _, events = first_fit()
    assert [e.event for e in events] == [GROUP, STOP] * 30
    group, stop = events[-2:]
    threshold = np.percentile(clip.norms[-10:], 60.0)
    scale = min(1.0, threshold / clip.norms[-1])
    expected = {"grad_norm": clip.norms[-1], "threshold": threshold, "scale": scale}
    totals = {
        "clipped_grad_norm": clip.norms[-1] * scale,
        "groups": 1,
        "groups_clipped": int(scale < 1),
    }
    about = {"algo": "autoclip", "scope": "global", "step": 30, "epoch": 1, "clipper_step": 30}
    assert group.measurements == pytest.approx(expected | {"clipped": scale < 1}, rel=1e-5)
    assert group.metadata == about | {"key": ("global",)}
    assert stop.measurements == pytest.approx(expected | totals, rel=1e-5)
    outcome = "applied" if scale < 1 else "unclipped"
    backend = {"backend": keras.backend.backend(), "dry_run": False, "outcome": outcome}
    assert stop.metadata == about | backend
    assert {type(x) for x in stop.measurements.values()} == {float, int}


@check("torch")
def context_around_fit_wins():
    with capture(STOP) as events, telemetry.context(run="r", step=7):
        fit(linear(), percentile(), epochs=2)
    assert {(e.metadata["run"], e.metadata["step"]) for e in events} == {("r", 7)}
    assert [e.metadata["epoch"] for e in events] == [1] * 30 + [2] * 30


@check("tensorflow", "jax")
def several_steps_per_execution_report_the_last():
    clip = Percentile()
    expected = reference(clip)
    clipper, model = percentile(), linear(steps_per_execution=4)
    with capture(STOP) as events:
        fit(model, clipper)
    close(model, expected)
    assert [e.metadata["clipper_step"] for e in events] == [4, 8, 12, 16, 20, 24, 28, 30]
    norms = [clip.norms[e.metadata["clipper_step"] - 1] for e in events]
    np.testing.assert_allclose([e.measurements["grad_norm"] for e in events], norms, rtol=1e-5)


@check("tensorflow", "jax")
def several_steps_per_execution_report_non_finite_ones_wherever_they_are():
    inputs = INPUTS.copy()
    inputs[5 * BATCH] = np.nan
    with capture(NONFINITE, STOP) as events:
        fit(linear(steps_per_execution=4), percentile(), inputs=inputs)
    assert [e.event for e in events] == [STOP, NONFINITE] + [STOP] * 7
    assert np.isnan(events[1].measurements["grad_norm"])
    assert np.isfinite(events[2].measurements["grad_norm"])


@check()
def measurements_stay_on_a_device_that_is_not_the_cpu():
    """With a stand-in for the device: the CPU, taken for something else."""
    clip = Percentile()
    expected, model, records = reference(clip), linear(), []
    with pytest.MonkeyPatch.context() as patch, capture(("smartclip", "**")) as events:
        patch.setattr("clipping.integrations.keras_reading.on_cpu", lambda value: False)
        fit(model, percentile(), on_metrics=records.append)
    close(model, expected)
    assert [e.event for e in events] == [GROUP, STOP] * 30
    assert "outcome" not in events[-1].metadata
    assert [e.metadata["clipper_step"] for e in events[1::2]] == list(range(1, 31))
    found = [e.measurements["grad_norm"] for e in events[1::2]]
    assert not any(isinstance(norm, float) for norm in found)
    np.testing.assert_allclose([float(norm) for norm in found], clip.norms, rtol=1e-5)
    assert {type(record["grad_norm"]) for record in records} == {float}


@check("torch")
def on_metrics_gets_a_record_of_each_group():
    records = []
    with capture(GROUP) as events:
        fit(linear(), percentile(scope="per_param"), on_metrics=records.append)
    for record, event in zip(records, events, strict=True):
        assert record == {k: event.metadata[k] for k in ("algo", "key", "scope")} | dict(
            event.measurements
        )
        assert {type(record[k]) for k in ("grad_norm", "threshold", "scale")} == {float}
        assert type(record["clipped"]) is bool


@check("torch")
def on_metrics_that_raises_is_not_called_again_in_that_fit():
    calls = []

    def broken(record):
        calls.append(record)
        raise ValueError("broken")

    callback = ClipCallback(percentile(), broken)
    model = linear()
    options = {"batch_size": BATCH, "verbose": 0, "callbacks": [callback]}
    with capture(("telemetry", "handler", "failure")) as events:
        model.fit(INPUTS, TARGETS, **options)
        assert len(calls) == len(events) == 1
        model.fit(INPUTS, TARGETS, **options)
    assert len(calls) == len(events) == 2

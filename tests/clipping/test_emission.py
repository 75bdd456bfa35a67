import contextlib
import math

import numpy as np
import pytest

import clipping
import telemetry
from clipping import emission
from clipping.engine import clip
from clipping.groups import Leaf, arrange
from clipping.host import HOST
from clipping.records import Decision, Measured
from telemetry.events import find
from telemetry.testing import capture

CLIP = ("smartclip", "clip")
ABOUT = {"algo": "autoclip", "scope": "global"}


@pytest.fixture
def second_step(kit, percentile):
    """The events of a step of norm 3 after one of norm 1, with the median for a threshold."""

    def run(*patterns, **options):
        clipper = percentile(50.0, **options)
        model = kit.model(np.zeros(2))
        kit.set_grads(model, [1.0, 0.0])
        clipping.apply(model, clipper)
        kit.set_grads(model, [0.0, 3.0])
        with capture(*patterns) as events:
            clipping.apply(model, clipper)
        return events

    return run


def test_events_come_in_order(second_step):
    assert [e.event for e in second_step()] == [(*CLIP, "start"), (*CLIP, "group"), (*CLIP, "stop")]


def test_stop_measures_the_whole_step(second_step, kit):
    (stop,) = second_step((*CLIP, "stop"))
    measured = dict(stop.measurements)
    assert measured.pop("duration") > 0
    assert measured.pop("monotonic_time") > 0
    assert measured == {
        "grad_norm": 3.0,
        "clipped_grad_norm": pytest.approx(2.0),
        "scale": pytest.approx(2 / 3),
        "groups": 1,
        "groups_clipped": 1,
        "threshold": 2.0,
    }
    metadata = dict(stop.metadata)
    assert isinstance(metadata.pop("telemetry_span_context"), telemetry.SpanContext)
    assert metadata == ABOUT | {"backend": kit.name, "dry_run": False, "outcome": "applied"}


def test_measurements_are_python_numbers(second_step):
    for event in second_step((*CLIP, "stop"), (*CLIP, "group")):
        assert {type(value) for value in event.measurements.values()} <= {int, float, bool}


def test_start_says_what_is_about_to_happen(second_step, kit):
    (start,) = second_step((*CLIP, "start"), dry_run=True)
    metadata = dict(start.metadata)
    assert isinstance(metadata.pop("telemetry_span_context"), telemetry.SpanContext)
    assert metadata == ABOUT | {"backend": kit.name, "dry_run": True}


def test_group_event_has_the_documented_fields(second_step):
    (group,) = second_step((*CLIP, "group"))
    assert group.measurements == {
        "grad_norm": 3.0,
        "threshold": 2.0,
        "scale": pytest.approx(2 / 3),
        "clipped": True,
    }
    assert group.metadata == ABOUT | {"key": ("global",)}


def test_step_that_clips_nothing_is_unclipped(kit):
    model = kit.model(np.zeros(1))
    kit.set_grads(model, [3.0])
    with capture((*CLIP, "stop")) as events:
        clipping.apply(model, clipping.AutoClip())
    (stop,) = events
    assert stop.metadata["outcome"] == "unclipped"
    assert stop.measurements["scale"] == 1.0
    assert stop.measurements["groups_clipped"] == 0
    assert stop.measurements["clipped_grad_norm"] == stop.measurements["grad_norm"] == 3.0
    assert stop.measurements["threshold"] == math.inf


def test_dry_run_reports_what_it_would_do(second_step):
    (stop,) = second_step((*CLIP, "stop"), dry_run=True)
    assert stop.metadata["outcome"] == "applied"
    assert stop.metadata["dry_run"] is True
    assert stop.measurements["clipped_grad_norm"] == pytest.approx(2.0)


def test_ambient_metadata_arrives(kit):
    model = kit.model(np.zeros(1))
    kit.set_grads(model, [3.0])
    with capture(("smartclip", "**")) as events, telemetry.context(run_id="r", step=7):
        clipping.apply(model, clipping.AutoClip())
    assert {(e.metadata["run_id"], e.metadata["step"]) for e in events} == {("r", 7)}


def test_what_is_sent_is_in_the_catalogue(kit):
    model = kit.model(np.zeros(1))
    clipper = clipping.AutoClip(on_nonfinite="raise")
    with capture(("smartclip", "**")) as events:
        for grad in (1.0, math.nan):
            kit.set_grads(model, [grad])
            with contextlib.suppress(FloatingPointError):
                clipping.apply(model, clipper)
    assert {e.event[-1] for e in events} == {"start", "stop", "exception", "group", "nonfinite"}
    for event in events:
        spec = find(event.event)
        assert set(event.measurements) <= {field.name for field in spec.measurements}
        assert set(event.metadata) <= {field.name for field in spec.metadata}
    stop = next(e for e in events if e.event[-1] == "stop")
    measured = {f.name for f in find((*CLIP, "stop")).measurements}
    assert set(stop.measurements) == measured - {"target", "weight_norm"}  # AGC's
    said = {f.name for f in find((*CLIP, "stop")).metadata}
    assert set(stop.metadata) == said - {"clipper_step"}  # compiled steps'


class Counting:
    """The host's operations, with a count of what is fetched for events."""

    def __init__(self):
        self.exported = 0

    def __getattr__(self, name):
        return getattr(HOST, name)

    def export(self, x):
        self.exported += 1
        return HOST.export(x)


class OneGroup:
    backend = "numpy"
    groups = arrange(clipping.AutoClip(), [Leaf((1,), None, 1)])

    def __init__(self):
        self.ops = Counting()

    def measure(self, *, weights):
        return Measured(np.array([3.0]))

    def present(self):
        return None

    def rescale(self, decision):
        pass


def test_nothing_is_computed_for_events_that_nobody_hears():
    gradients = OneGroup()
    clipper = clipping.AutoClip()
    clip(gradients, clipper)
    assert gradients.ops.exported == 0
    with capture((*CLIP, "start")):
        clip(gradients, clipper)
    assert gradients.ops.exported == 0
    with capture((*CLIP, "group")):
        clip(gradients, clipper)
    assert gradients.ops.exported == 4


def test_totals_of_several_groups_are_those_of_the_whole_model():
    decision = Decision(
        norms=np.array([3.0, 4.0, math.nan]),
        limits={"threshold": np.array([6.0, 2.0, 1.0])},
        scale=np.array([1.0, 0.5, 0.0]),
        nonfinite=np.array([False, False, True]),
        zeroed=np.array([False, False, True]),
    )
    clipper = clipping.AutoClip(scope="per_param")
    groups = arrange(clipper, [Leaf((1,), None, 1)] * 3)
    totals = emission.totals(HOST, groups, Measured(decision.norms), decision)
    assert math.isnan(totals.pop("grad_norm"))
    assert totals == {
        "clipped_grad_norm": pytest.approx(math.sqrt(9 + 4)),
        "scale": 0.0,
        "groups": 3,
        "groups_clipped": 2,
    }
    assert emission.outcome(HOST, decision) == {"outcome": "applied"}


def stop_of(clipper, grads, weights=None):
    given = {name: None if g is None else np.asarray(g, float) for name, g in grads.items()}
    owned = weights or {name: np.ones_like(g) for name, g in given.items() if g is not None}
    owned = {name: owned.get(name, np.ones(1)) for name in given}
    with capture((*CLIP, "stop")) as events:
        clipping.numpy.apply_grads(given, owned, clipper)
    return events[0]


@pytest.mark.parametrize(("policy", "outcome"), [("skip", "skipped"), ("zero", "skipped")])
def test_parameters_without_gradients_are_not_counted(policy, outcome):
    clipper = clipping.AutoClip(scope="per_param", on_nonfinite=policy)
    stop = stop_of(clipper, {"a": [math.nan], "b": None, "c": None})
    assert (stop.measurements["groups"], stop.measurements["groups_clipped"]) == (1, 1)
    assert stop.metadata["outcome"] == outcome


def test_parameters_in_no_group_are_not_counted():
    clipper = clipping.AGC(clipping=1.0, scope="per_param", on_nonfinite="zero")
    stop = stop_of(clipper, {"bias": [math.nan], "w": [[1.0, 1.0]]})
    counted = ("groups", "groups_clipped", "scale")
    assert [stop.measurements[name] for name in counted] == [1, 0, 1.0]
    assert stop.metadata["outcome"] == "applied"  # the bias is zeros now

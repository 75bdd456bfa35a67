"""The events of `clipping.tensorflow`: at once in eager code, by `emit` for a graph."""

import contextlib
import threading

import numpy as np
import pytest

import clipping
import telemetry
from telemetry.testing import capture

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

import clipping.tensorflow as sc_tf  # noqa: E402 -- after the check that it can be imported
from clipping.backends import tensorflow as backend  # noqa: E402

CLIP = ("smartclip", "clip")


@pytest.fixture
def accelerator(monkeypatch):
    """Within it the CPU is taken for a device, and a read by the thread that trains fails.

    Steps are compiled: op by op TensorFlow itself reads shapes.
    """
    base = next(c for c in type(tf.constant(0.0)).__mro__ if "_numpy" in vars(c))
    read = base._numpy

    @contextlib.contextmanager
    def within():
        training = threading.current_thread()

        def refuse(tensor):
            if threading.current_thread() is training:
                raise AssertionError("A tensor was read by the thread that trains.")
            return read(tensor)

        with monkeypatch.context() as patch:
            patch.setattr(backend, "on_cpu", lambda tensor: False)
            patch.setattr(base, "_numpy", refuse)
            tf.config.run_functions_eagerly(run_eagerly=False)
            yield

    return within


@pytest.mark.usefixtures("op_by_op")
class TestEvents:
    def test_a_step_is_a_span(self, clip_tensors, make_halving):
        clipper = make_halving()
        with telemetry.context(run="r1"), capture(telemetry.ALL) as events:
            clip_tensors(tf.constant([3.0, 4.0]), clipper=clipper)
        assert [event.event[-1] for event in events] == ["start", "group", "stop"]
        start, group, stop = events
        about = {"algo": "autoclip", "scope": "global", "backend": "tensorflow", "dry_run": False}
        assert start.metadata.items() >= about.items()
        assert stop.metadata.items() >= (about | {"outcome": "applied", "run": "r1"}).items()
        assert "clipper_step" not in stop.metadata
        measured = dict(stop.measurements)
        assert measured.pop("duration") > 0
        assert measured.pop("monotonic_time") > 0
        assert measured == {
            "grad_norm": 5.0,
            "clipped_grad_norm": pytest.approx(1.0),
            "scale": pytest.approx(0.2),
            "groups": 1,
            "groups_clipped": 1,
            "threshold": pytest.approx(1.0),
        }
        assert group.measurements["clipped"] is True

    def test_units_are_reported_as_arrays(self):
        clipper = clipping.AGC(clipping=1.0, scope="per_unit")
        weights = tf.Variable([[3.0, 1.0], [4.0, 0.0]])
        seen = []
        with capture((*CLIP, "group")) as events:
            sc_tf.apply_grads([tf.fill((2, 2), 3.0)], [weights], clipper, seen.append)
        (event,) = events
        np.testing.assert_allclose(event.measurements["weight_norm"], [5.0, 1.0])
        assert seen[0]["clipped"] == [False, True]

    def test_on_an_accelerator_nothing_is_read(self, accelerator, clip_tensors, make_halving):
        clippers = make_halving(), make_halving()
        for clipper in clippers:  # which makes the variables
            clip_tensors(tf.constant([1.0]), clipper=clipper)
        with accelerator(), capture(telemetry.ALL) as events:
            clip_tensors(tf.constant([3.0, 4.0]), clipper=clippers[0])
            clip_tensors(tf.constant([np.nan]), clipper=clippers[1])
            clipping.deferred.settle_all()
        stops = [event for event in events if event.event[-1] == "stop"]
        assert isinstance(stops[0].measurements["grad_norm"], tf.Tensor)
        assert float(stops[0].measurements["clipped_grad_norm"]) == pytest.approx(1.0)
        assert "outcome" not in stops[0].metadata
        (nonfinite,) = [event for event in events if event.event[-1] == "nonfinite"]
        assert nonfinite.metadata["keys"] == (("global",),)

    @pytest.mark.parametrize("scope", ["per_param", "per_unit"])
    def test_on_an_accelerator_the_same_is_reported(self, accelerator, scope):
        def events():
            clipper = clipping.AGC(clipping=0.1, scope=scope, exclude_bias_bn=False)
            weights = [
                tf.Variable([[3.0, 1.0], [4.0, 0.0]]),
                tf.Variable([2.0]),
                tf.Variable([1.0]),
            ]
            grads = [tf.fill((2, 2), 0.3), tf.constant([0.1]), None]
            with capture((*CLIP, "stop"), (*CLIP, "group")) as captured:
                sc_tf.apply_grads(grads, weights, clipper)
            return captured

        here = events()
        with accelerator():
            there = events()
        assert len(here) == len(there) == 3
        for ours, theirs in zip(there, here, strict=True):
            assert ours.metadata.get("key") == theirs.metadata.get("key")
            for name in theirs.measurements.keys() - {"duration", "monotonic_time"}:
                expected = theirs.measurements[name]
                np.testing.assert_allclose(ours.measurements[name], expected, rtol=1e-6)

    @pytest.mark.parametrize("policy", ["skip", "zero"])
    def test_a_parameter_without_a_gradient_does_not_count(self, policy):
        clipper = clipping.AutoClip(scope="per_param", on_nonfinite=policy)
        weights = [tf.Variable(0.0), tf.Variable(0.0)]
        with capture((*CLIP, "stop")) as events:
            sc_tf.apply_grads([tf.constant(np.nan), None], weights, clipper)
        assert events[0].metadata["outcome"] == "skipped"
        assert events[0].measurements["groups"] == events[0].measurements["groups_clipped"] == 1

    def test_the_norm_of_the_model_is_not_bounded_by_squares_in_float32(self):
        clipper = clipping.AutoClip(scope="per_param")
        weights = [tf.Variable(0.0, dtype=tf.float64), tf.Variable(0.0, dtype=tf.float64)]
        grads = [tf.constant(size, tf.float64) for size in (3e20, 4e20)]
        with capture((*CLIP, "stop")) as events:
            sc_tf.apply_grads(grads, weights, clipper)
        assert events[0].measurements["grad_norm"] == pytest.approx(5e20)

    def test_a_raising_callback_is_announced(self, clip_tensors, make_halving):
        with capture(("telemetry", "handler", "failure")) as events:
            (clipped,) = clip_tensors(
                tf.constant([3.0, 4.0]), clipper=make_halving(), on_metrics=lambda r: 1 / 0
            )
        np.testing.assert_allclose(clipped, [0.6, 0.8], rtol=1e-6)
        assert len(events) == 1


class TestEmit:
    def test_the_last_step_is_reported_when_it_is_asked_for(self, compiled_clip, make_halving):
        clipper = make_halving()
        step = compiled_clip(clipper)
        step(tf.constant([3.0, 4.0]))
        with telemetry.context(run="r1"), capture(telemetry.ALL) as events:
            sc_tf.emit(clipper)
        group, stop = events
        assert (group.event, stop.event) == ((*CLIP, "group"), (*CLIP, "stop"))
        assert stop.measurements == {
            "grad_norm": 5.0,
            "clipped_grad_norm": pytest.approx(1.0),
            "scale": pytest.approx(0.2),
            "groups": 1,
            "groups_clipped": 1,
            "threshold": pytest.approx(1.0),
        }
        assert stop.metadata == {
            "algo": "autoclip",
            "scope": "global",
            "backend": "tensorflow",
            "dry_run": False,
            "outcome": "applied",
            "clipper_step": 2,
            "run": "r1",
        }
        assert group.metadata["key"] == ("global",)
        assert group.measurements["clipped"] is True

    def test_on_metrics_hears_what_is_emitted(self, compiled_clip, make_halving):
        clipper, seen = make_halving(), []
        compiled_clip(clipper)(tf.constant([3.0, 4.0]))
        sc_tf.emit(clipper, on_metrics=seen.append)
        assert seen[0]["grad_norm"] == 5.0
        assert type(seen[0]["scale"]) is float

    def test_what_is_not_finite_is_named(self):
        clipper = clipping.AutoClip(scope="per_param", on_nonfinite="zero")
        weights = [tf.Variable([0.0]), tf.Variable([0.0])]

        @tf.function(autograph=False)
        def step(a, b):
            return sc_tf.apply_grads([a, b], weights, clipper)

        step(tf.constant([1.0]), tf.constant([np.nan]))
        with capture((*CLIP, "nonfinite")) as events:
            sc_tf.emit(clipper)
        (event,) = events
        assert event.metadata["keys"] == (("param", "1"),)
        assert event.metadata["clipper_step"] == 1
        assert event.measurements["count"] == 1

    def test_groups_without_a_gradient_in_that_step_are_left_out(self):
        clipper = clipping.AutoClip(scope="per_param")
        weights = [tf.Variable([0.0]), tf.Variable([0.0])]

        @tf.function(autograph=False)
        def step(a, b):
            return sc_tf.apply_grads([a, b], weights, clipper)

        def emitted():
            with capture((*CLIP, "group")) as events:
                sc_tf.emit(clipper)
            return [event.metadata["key"][1] for event in events]

        one = tf.constant([1.0])
        step(one, one)
        assert emitted() == ["0", "1"]
        step(None, one)
        assert emitted() == ["1"]
        step(one, one)
        assert emitted() == ["0", "1"]

    def test_on_an_accelerator_nothing_is_read(self, accelerator, compiled_clip, make_halving):
        clipper = make_halving()
        compiled_clip(clipper)(tf.constant([3.0, 4.0]))
        with accelerator(), capture((*CLIP, "stop")) as events:
            sc_tf.emit(clipper)
        assert isinstance(events[0].measurements["grad_norm"], tf.Tensor)
        assert not {"outcome", "clipper_step"} & events[0].metadata.keys()

    def test_on_an_accelerator_groups_without_a_gradient_need_no_read(self, accelerator):
        """Where the function was traced once; else it is read which of the kinds ran last."""
        clipper = clipping.AutoClip(scope="per_param")
        weights = [tf.Variable([0.0]), tf.Variable([0.0])]

        @tf.function(autograph=False)
        def step(gradient):
            return sc_tf.apply_grads([None, gradient], weights, clipper)

        step(tf.constant([1.0]))
        with accelerator(), capture((*CLIP, "group")) as events:
            sc_tf.emit(clipper)
        assert [event.metadata["key"] for event in events] == [("param", "1")]

    def test_what_was_before_a_state_was_loaded_is_not_emitted(self, compiled_clip, make_halving):
        clipper = make_halving()
        step = compiled_clip(clipper)
        step(tf.constant([3.0, 4.0]))
        clipper.load_state_dict(make_halving().state_dict())
        with pytest.raises(ValueError, match=r"or not since load_state_dict\(\)"):
            sc_tf.emit(clipper)
        step(tf.constant([6.0, 8.0]))
        with capture((*CLIP, "stop")) as events:
            sc_tf.emit(clipper)
        assert events[0].measurements["grad_norm"] == 10.0
        assert events[0].metadata["clipper_step"] == 2

    def test_before_the_first_step_there_is_nothing(self, compiled_clip):
        clipper = clipping.AutoClip()
        with pytest.raises(ValueError, match=r"a tf.function traced no step of it yet"):
            sc_tf.emit(clipper)
        step = compiled_clip(clipper)
        step.get_concrete_function(tf.TensorSpec([2]))
        with pytest.raises(ValueError, match=r"has not run yet"):
            sc_tf.emit(clipper)

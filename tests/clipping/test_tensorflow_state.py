"""What a clipper learns on TensorFlow: one state for eager code and graphs, saved and loaded."""

import copy
import json

import numpy as np
import pytest

import clipping

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

import clipping.tensorflow as sc_tf  # noqa: E402 -- after the check that it can be imported


class TestState:
    def test_the_state_is_json_and_goes_on_bit_identically(self):
        rng = np.random.default_rng(5)
        steps = [
            tf.constant(rng.standard_normal(3), tf.float32) * s for s in rng.lognormal(size=30)
        ]
        weight = tf.Variable(tf.zeros(3))

        def make():
            return clipping.AutoClip(window_size=8, warmup_steps=2, min_history=2)

        whole, first, second = make(), make(), make()
        expected = [sc_tf.apply_grads([g], [weight], whole)[0] for g in steps]
        found = [sc_tf.apply_grads([g], [weight], first)[0] for g in steps[:15]]
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        found += [sc_tf.apply_grads([g], [weight], second)[0] for g in steps[15:]]
        np.testing.assert_array_equal(found, expected)
        assert second.state_dict() == whole.state_dict()
        assert any(
            (f.numpy() != g.numpy()).any() for f, g in zip(found[15:], steps[15:], strict=True)
        )

    @pytest.mark.usefixtures("op_by_op")
    def test_a_history_moves_between_frameworks(self, clip_tensors, make_halving):
        clipper = make_halving()
        clip_tensors(tf.constant([2.0]), clipper=clipper)
        clipping.numpy.apply_grads(np.array([3.0]), np.zeros(1), clipper)
        clip_tensors(tf.constant([4.0]), clipper=clipper)
        assert clipper.state_dict()["norms"] == [[1.0, 2.0, 3.0, 4.0]]

    @pytest.mark.usefixtures("op_by_op")
    def test_a_copy_goes_its_own_way(self, clip_tensors, make_halving):
        clipper = make_halving()
        clip_tensors(tf.constant([2.0]), clipper=clipper)
        twin = copy.deepcopy(clipper)
        clip_tensors(tf.constant([3.0]), clipper=twin)
        assert clipper.state_dict()["norms"] == [[1.0, 2.0]]
        assert twin.state_dict()["norms"] == [[1.0, 2.0, 3.0]]
        twin.load_state_dict(clipper.state_dict())
        clip_tensors(tf.constant([5.0]), clipper=twin)
        assert twin.state_dict()["norms"] == [[1.0, 2.0, 5.0]]

    @pytest.mark.usefixtures("op_by_op")
    def test_a_checkpoint_of_tensorflow_holds_the_variables(self, tmp_path, make_halving):
        weight = tf.Variable([0.0])

        def tracked(clipper):
            module = tf.Module()
            module.clipper = sc_tf.variables(clipper, [weight])
            return tf.train.Checkpoint(clipper=module)

        saved, loaded = make_halving(), make_halving()
        sc_tf.apply_grads([tf.constant([2.0])], [weight], saved)
        path = tracked(saved).save(str(tmp_path / "checkpoint"))
        tracked(loaded).restore(path).assert_consumed()
        assert loaded.state_dict() == saved.state_dict()

    @pytest.mark.usefixtures("op_by_op")
    def test_a_clipper_that_is_forgotten_leaves_nothing_behind(self, clip_tensors, make_halving):
        import gc
        import weakref

        clipper = make_halving()
        clip_tensors(tf.constant([2.0]), clipper=clipper)
        gone = weakref.ref(clipper)
        del clipper
        gc.collect()
        assert gone() is None


def test_eager_code_and_graphs_share_one_history(compiled_clip, make_halving):
    clipper, weight = make_halving(), tf.Variable([0.0, 0.0])
    step = compiled_clip(clipper, weight)
    sc_tf.apply_grads([tf.constant([3.0, 4.0])], [weight], clipper)
    np.testing.assert_allclose(step(tf.constant([6.0, 8.0])), [0.6, 0.8], rtol=1e-6)
    sc_tf.apply_grads([tf.constant([0.0, 7.0])], [weight], clipper)
    assert clipper.state_dict()["norms"] == [[1.0, 5.0, 10.0, 7.0]]
    assert clipper.threshold_any() == pytest.approx(1.0)


def test_the_state_survives_retracing(compiled_clip, make_halving):
    clipper, table = make_halving(), tf.Variable(tf.zeros((4, 1)))
    step = compiled_clip(clipper, table)
    step(tf.constant([[5.0]] * 4))
    for rows in (2, 3):  # sparse gradients of other sizes are traced anew
        indices = tf.range(rows)
        step(tf.IndexedSlices(tf.ones((rows, 1)), indices, tf.constant([4, 1])))
    assert step.experimental_get_tracing_count() > 2
    assert clipper.state_dict()["norms"][0] == pytest.approx([1, 10, np.sqrt(2), np.sqrt(3)])


def test_loading_after_tracing_takes_effect_in_the_graph(compiled_clip, make_halving):
    clipper = make_halving()
    step = compiled_clip(clipper)
    calm = clipper.state_dict()
    step(tf.constant([0.5, 0.0]))
    assert clipper.threshold_any() == pytest.approx(0.5)
    clipper.load_state_dict(calm)
    assert clipper.state_dict() == calm
    np.testing.assert_allclose(step(tf.constant([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)
    assert clipper.state_dict()["norms"] == [[1.0, 5.0]]


def test_loading_an_unused_clipper_starts_anew(compiled_clip, make_halving):
    clipper = make_halving()
    step = compiled_clip(clipper)
    step(tf.constant([3.0, 4.0]))
    clipper.load_state_dict(clipping.AutoClip().state_dict())
    np.testing.assert_array_equal(step(tf.constant([6.0, 8.0])), [6.0, 8.0])
    assert clipper.state_dict()["norms"] == [[10.0]]


def test_loading_the_state_of_another_model_after_tracing_is_refused(compiled_clip):
    clipper, other = clipping.AutoClip(scope="per_param"), clipping.AutoClip(scope="per_param")
    step = compiled_clip(clipper)
    step(tf.constant([3.0, 4.0]))
    clipping.numpy.apply_grads([np.ones(1)] * 2, [np.ones(1)] * 2, other)
    before = clipper.state_dict()
    with pytest.raises(ValueError, match=r"is of 2 groups.*Load it into a new clipper"):
        clipper.load_state_dict(other.state_dict())
    assert clipper.state_dict() == before


def test_it_resumes_bit_identically(compiled_clip):
    rng = np.random.default_rng(5)
    steps = [tf.constant(rng.standard_normal(2) * s, tf.float32) for s in rng.lognormal(size=24)]

    def make():
        return clipping.ZScoreClip(zmax=0.5, warmup_steps=2, min_history=2)

    whole, first, second = make(), make(), make()
    expected = list(map(compiled_clip(whole), steps))
    found = list(map(compiled_clip(first), steps[:12]))
    second.load_state_dict(first.state_dict())
    found += list(map(compiled_clip(second), steps[12:]))
    np.testing.assert_array_equal(found, expected)
    assert second.state_dict() == whole.state_dict()
    assert (np.array(found[12:]) != np.array(steps[12:])).any()


ELSEWHERE = r"compiled functions may refer to.*new\.load_state_dict\(clipper\.state_dict\(\)\)"


def test_a_state_that_a_graph_holds_is_refused_to_other_frameworks(compiled_clip):
    clipper = clipping.AutoClip()
    step = compiled_clip(clipper)
    step(tf.constant([1.0, 0.0]))
    gradient = np.array([2.0])
    with pytest.raises(ValueError, match=ELSEWHERE):
        clipping.numpy.apply_grads(gradient, np.zeros(1), clipper)
    step(tf.constant([3.0, 0.0]))
    assert clipper.state_dict()["norms"] == [[1.0, 3.0]]
    assert clipper.state_dict()["steps"] == 2

    elsewhere = clipping.AutoClip()
    elsewhere.load_state_dict(clipper.state_dict())
    clipping.numpy.apply_grads(gradient, np.zeros(1), elsewhere)
    clipper.load_state_dict(elsewhere.state_dict())
    step(tf.constant([4.0, 0.0]))
    assert clipper.state_dict()["norms"] == [[1.0, 3.0, 2.0, 4.0]]


@pytest.mark.usefixtures("op_by_op")
def test_a_state_whose_variables_were_handed_out_is_refused_to_other_frameworks():
    clipper, weight = clipping.AutoClip(), tf.Variable([0.0])
    sc_tf.apply_grads([tf.constant([1.0])], [weight], clipper)
    steps, *_ = sc_tf.variables(clipper, [weight])
    with pytest.raises(ValueError, match=ELSEWHERE):
        clipping.numpy.apply_grads(np.array([2.0]), np.zeros(1), clipper)
    sc_tf.apply_grads([tf.constant([3.0])], [weight], clipper)
    assert steps.numpy() == clipper.state_dict()["steps"] == 2


@pytest.mark.usefixtures("op_by_op")
def test_loading_between_eager_steps_takes_effect(make_halving, clip_tensors):
    clipper = make_halving()
    calm = clipper.state_dict()
    clip_tensors(tf.constant([0.5]), clipper=clipper)
    clipper.load_state_dict(calm)
    assert clipper.state_dict() == calm
    (clipped,) = clip_tensors(tf.constant([2.0]), clipper=clipper)
    np.testing.assert_allclose(clipped, [1.0], rtol=1e-6)
    assert clipper.state_dict()["norms"] == [[1.0, 2.0]]

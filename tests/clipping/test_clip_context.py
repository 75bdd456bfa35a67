import numpy as np
import pytest

import clipping
from telemetry.testing import capture

TARGETS = np.random.default_rng(0).standard_t(2, size=(30, 8, 3))
INPUTS = np.random.default_rng(1).normal(size=(30, 8, 4))


def regression_gradient(weights, step):
    """Of the summed squared error, with heavy-tailed targets: some steps are outliers."""
    error = INPUTS[step] @ weights - TARGETS[step]
    return 2 * INPUTS[step].T @ error


def reference_weights(lr, q):
    weights, norms, clipped = np.zeros((4, 3)), [], 0
    for step in range(30):
        gradient = regression_gradient(weights, step)
        norms.append(np.sqrt((gradient**2).sum()))
        threshold = np.percentile(norms[-10:], q)
        if step >= 3 and norms[-1] > threshold:
            gradient = gradient * threshold / (norms[-1] + 1e-8)
            clipped += 1
        weights = weights - lr * gradient
    return weights, clipped


def test_thirty_steps_equal_a_hand_written_loop(kit):
    expected, clipped = reference_weights(0.005, 60.0)
    assert clipped > 5
    clipper = clipping.AutoClip(
        mode="percentile",
        percentile=60.0,
        history="window",
        window_size=10,
        warmup_steps=3,
        min_history=2,
    )
    model = kit.model(np.zeros((4, 3)))
    optimizer = kit.sgd(model, 0.005)
    with clipping.clip_context(model, optimizer=optimizer, clipper=clipper):
        for step in range(30):
            kit.set_grads(model, regression_gradient(kit.weights(model)[0], step))
            optimizer.step()
    np.testing.assert_allclose(kit.weights(model)[0], expected, rtol=1e-9)


def stepped_to(kit, model, optimizer, grad):
    """What one step makes of weight 0 with learning rate 1: the negated gradient it used."""
    before = kit.weights(model)[0]
    kit.set_grads(model, [grad])
    optimizer.step()
    return (before - kit.weights(model)[0]).item()


def test_it_clips_inside_the_block_only(kit, percentile):
    model = kit.model(np.zeros(1))
    optimizer = kit.sgd(model, 1.0)
    with clipping.clip_context(model, optimizer, percentile(50.0)):
        inside = [stepped_to(kit, model, optimizer, grad) for grad in (1.0, 3.0)]
    assert inside == pytest.approx([1.0, 2.0])
    assert stepped_to(kit, model, optimizer, 100.0) == pytest.approx(100.0)


def test_it_gives_the_clipper_and_makes_one_if_there_is_none(kit):
    model = kit.model(np.zeros(1))
    mine = clipping.AutoClip()
    with clipping.clip_context(model, kit.sgd(model, 1.0), mine) as given:
        assert given is mine
    with clipping.clip_context(model, kit.sgd(model, 1.0)) as made:
        assert (made.mode, made.scope) == ("auto", "global")


def test_it_is_undone_when_the_block_raises(kit, percentile):
    model = kit.model(np.zeros(1))
    optimizer = kit.sgd(model, 1.0)
    before = set(vars(optimizer))
    with pytest.raises(KeyboardInterrupt), clipping.clip_context(model, optimizer, percentile()):
        raise KeyboardInterrupt
    assert set(vars(optimizer)) == before
    with capture(("smartclip", "**")) as events:
        stepped_to(kit, model, optimizer, 1.0)
    assert events == []
    with clipping.clip_context(model, optimizer, percentile()):
        pass


def test_second_context_on_the_same_optimizer_is_refused(kit, percentile):
    model = kit.model(np.zeros(1))
    optimizer = kit.sgd(model, 1.0)
    message = (
        f"A clip_context is active on this {type(optimizer).__name__}, so its gradients would be "
        "clipped twice. Allowed: one context per optimizer at a time, and in it plain "
        "optimizer.step(). Leave the other block first."
    )
    clipper = percentile(50.0)
    with clipping.clip_context(model, optimizer, clipper):
        with (
            pytest.raises(RuntimeError) as refused,
            clipping.clip_context(model, optimizer, percentile()),
        ):
            pass
        assert str(refused.value) == message
        kit.set_grads(model, [1.0])
        with pytest.raises(RuntimeError) as refused:
            clipping.step(model, optimizer, percentile())
        assert str(refused.value) == message
        stepped_to(kit, model, optimizer, 1.0)
    assert clipper.state_dict()["steps"] == 1


def test_two_optimizers_may_have_a_context_each(kit, percentile):
    models = [kit.model(np.zeros(1)) for _ in range(2)]
    optimizers = [kit.sgd(model, 1.0) for model in models]
    first, second = percentile(50.0), percentile(50.0)
    with (
        clipping.clip_context(models[0], optimizers[0], first),
        clipping.clip_context(models[1], optimizers[1], second),
    ):
        stepped_to(kit, models[0], optimizers[0], 1.0)
        stepped_to(kit, models[1], optimizers[1], 5.0)
    assert (first.threshold_any(), second.threshold_any()) == (1.0, 5.0)


def test_contexts_follow_each_other_with_one_clipper(kit, percentile):
    model = kit.model(np.zeros(1))
    optimizer = kit.sgd(model, 1.0)
    clipper = percentile(50.0)
    for grad in (1.0, 3.0):
        with clipping.clip_context(model, optimizer, clipper):
            stepped_to(kit, model, optimizer, grad)
    assert clipper.threshold_any() == 2.0


def test_optimizer_is_required(kit):
    with pytest.raises(ValueError, match="needs the optimizer") as refused:
        clipping.clip_context(kit.model(np.zeros(1)), clipper=clipping.AutoClip())
    assert str(refused.value) == (
        "clip_context needs the optimizer before whose steps it is to clip, got None. "
        "Give optimizer=..., or call clipping.apply(model, clipper) before each step."
    )


def test_mistakes_are_found_at_the_call(kit):
    """Not on entering, and not in the first step."""
    model = kit.model(np.zeros(1))
    optimizer = kit.sgd(model, 1.0)
    with pytest.raises(TypeError, match="clipper must be a clipper"):
        clipping.clip_context(model, optimizer, 3)
    with pytest.raises(TypeError, match="on_metrics must be a function"):
        clipping.clip_context(model, optimizer, on_metrics=3)
    with pytest.raises(TypeError, match=r"without parameters\(\)"):
        clipping.clip_context(optimizer, model)


def test_wrong_kind_of_optimizer_is_refused(kit):
    required = {"numpy": "have a step() method", "torch": "be a torch.optim.Optimizer"}
    with pytest.raises(TypeError) as refused:
        clipping.clip_context(kit.model(np.zeros(1)), "sgd")
    assert str(refused.value) == (
        f"optimizer must {required[kit.name]}, got 'sgd' (str). "
        "The order is clip_context(model, optimizer, clipper)."
    )


def test_step_raises_what_apply_raises(kit, percentile):
    model = kit.model(np.zeros(1))
    optimizer = kit.sgd(model, 1.0)
    with clipping.clip_context(model, optimizer, percentile(on_nonfinite="raise")):
        with pytest.raises(ValueError, match="without gradients"):
            optimizer.step()
        with pytest.raises(FloatingPointError, match="not finite"):
            stepped_to(kit, model, optimizer, float("nan"))
    assert kit.weights(model)[0].tolist() == [0.0]

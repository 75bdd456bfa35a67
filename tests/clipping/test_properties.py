"""What must hold for any gradients."""

import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import clipping

values = st.floats(-1e6, 1e6).map(lambda x: 0.0 if abs(x) < 1e-6 else x)
gradients = hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=4), elements=values)
histories = st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=12)


def numpy_clip(gradient, clipper):
    return clipping.numpy.apply_grads(gradient, np.zeros_like(gradient), clipper)


def torch_clip(gradient, clipper):
    torch = importlib.import_module("torch")
    return clipping.torch.apply_grads(torch.tensor(gradient), clipper)[0].numpy()


def modes(test):
    both = [{"mode": "auto"}, {"mode": "percentile", "percentile": 60.0, "history": "window"}]
    test = pytest.mark.parametrize("options", both, ids=["auto", "percentile"])(test)
    return pytest.mark.parametrize("clip", [numpy_clip, torch_clip], ids=["numpy", "torch"])(test)


def clipped(clip, options, history, gradient):
    clipper = clipping.AutoClip(**options, warmup_steps=len(history), min_history=1)
    for norm in history:
        clip(np.array([norm]), clipper)
    return clip(gradient, clipper), clipper.threshold_any()


@modes
@given(history=histories, gradient=gradients)
def test_norm_after_clipping_is_at_most_the_threshold(clip, options, history, gradient):
    result, threshold = clipped(clip, options, history, gradient)
    assert np.linalg.norm(result) <= threshold * (1 + 1e-9)


@modes
@given(history=histories, gradient=gradients)
def test_direction_is_kept(clip, options, history, gradient):
    result, _ = clipped(clip, options, history, gradient)
    norms = np.linalg.norm(result), np.linalg.norm(gradient)
    np.testing.assert_allclose(result * norms[1], gradient * norms[0], rtol=1e-9, atol=1e-300)


@modes
@given(history=histories, gradient=gradients)
def test_gradient_at_or_below_the_threshold_is_itself(clip, options, history, gradient):
    result, threshold = clipped(clip, options, history, gradient)
    if np.linalg.norm(gradient) <= threshold * (1 - 1e-12):
        assert result.tobytes() == gradient.tobytes()


@modes
@given(history=histories, gradient=gradients, last=gradients)
def test_dry_run_learns_the_same(clip, options, history, gradient, last):
    acting = clipping.AutoClip(**options, warmup_steps=0, min_history=1)
    dry = clipping.AutoClip(**options, warmup_steps=0, min_history=1, dry_run=True)
    for given_gradient in (*(np.array([norm]) for norm in history), gradient, last):
        clip(given_gradient, acting)
        assert clip(given_gradient, dry).tobytes() == given_gradient.tobytes()
    assert dry.state_dict() == acting.state_dict()

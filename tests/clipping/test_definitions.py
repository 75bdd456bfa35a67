"""Every clipper on every framework against its definition, written out from the papers."""

import importlib
import math

import numpy as np
import optax
import pytest

import clipping
from telemetry.testing import capture


def weighted_quantile(norms, weights, q):
    """Linear interpolation between ranks: the share of the others' weight below a norm."""
    order = sorted(range(len(norms)), key=lambda i: norms[i])
    total = sum(weights)
    below, ranks = 0.0, []
    for i in order:
        others = total - weights[i]
        ranks.append(below / others if others > 0 else 0.0)
        below += weights[i]
    return float(np.interp(q, ranks, [norms[i] for i in order]))


class Reference:
    """One group of one clipper; NaN and infinity are not for it."""

    def __init__(self, warmup_steps, min_history, eps):
        self.gates = warmup_steps, min_history
        self.eps = eps
        self.steps = 0
        self.past = []

    def step(self, norm):
        """The factor of this step, and its threshold."""
        ready = self.steps >= self.gates[0] and len(self.past) >= max(self.gates[1], 1)
        threshold = self.threshold(norm)
        scale = threshold / (norm + self.eps) if ready and norm > threshold else 1.0
        self.steps += 1
        self.past.append(self.remembered(norm, scale))
        return scale, threshold


class Auto(Reference):
    def __init__(self, window_size, **gates):
        super().__init__(**gates)
        self.window_size = window_size

    def threshold(self, norm):
        window = self.past[-self.window_size :]
        if len(window) < 2:
            return math.inf
        threshold = np.median(window) + 3 * np.std(window, ddof=1)
        return threshold if threshold > 0 else math.inf

    def remembered(self, norm, scale):
        return norm * scale


class Percentile(Reference):
    def __init__(self, percentile, window_size, decay=None, **gates):
        super().__init__(**gates)
        self.percentile, self.window_size, self.decay = percentile, window_size, decay

    def threshold(self, norm):
        window = [*self.past, norm][-self.window_size :]
        if self.decay is None:
            return np.percentile(window, self.percentile)
        weights = [self.decay**age for age in reversed(range(len(window)))]
        return weighted_quantile(window, weights, self.percentile / 100)

    def remembered(self, norm, scale):
        return norm


class ZScore(Reference):
    def __init__(self, zmax, decay, **gates):
        super().__init__(**gates)
        self.zmax, self.decay = zmax, decay

    def threshold(self, norm):
        if not self.past:
            return math.inf
        weights = np.array([self.decay**age for age in reversed(range(len(self.past)))])
        weights /= weights.sum()
        mean = weights @ self.past
        threshold = mean + self.zmax * math.sqrt(weights @ np.square(np.array(self.past) - mean))
        return threshold if threshold > 0 else math.inf

    def remembered(self, norm, scale):
        return norm * scale


def agc(grad, weight, clipping, eps):
    """One group of arrays, flattened: what the gradient becomes."""
    norm, target = np.linalg.norm(grad), clipping * max(np.linalg.norm(weight), eps)
    return grad * (target / max(norm, 1e-6)) if norm > target else grad


GATES = {"warmup_steps": 3, "min_history": 2, "eps": 1e-8}
DEFINED = {
    "auto": (
        clipping.AutoClip,
        {"mode": "auto", "window_size": 16},
        lambda: Auto(16, **GATES),
    ),
    "window": (
        clipping.AutoClip,
        {"mode": "percentile", "history": "window", "percentile": 80.0, "window_size": 16},
        lambda: Percentile(80.0, 16, **GATES),
    ),
    "ema": (
        clipping.AutoClip,
        {"mode": "percentile", "percentile": 80.0, "ema_decay": 0.9, "window_size": 32},
        lambda: Percentile(80.0, 32, 0.9, **GATES),
    ),
    "zscore": (
        clipping.ZScoreClip,
        {"zmax": 1.5, "ema_decay": 0.9},
        lambda: ZScore(1.5, 0.9, **GATES),
    ),
}
SHAPES = {"conv/bias": (4,), "conv/kernel": (3, 3, 2, 4), "dense/kernel": (4, 3)}
"""In the layout of jax and tensorflow, in the order of jax; torch's has the outputs first."""


class OnNumpy:
    rtol = 1e-12

    def clip(self, grads, weights, clipper):
        clipped = clipping.numpy.apply_grads(nested(grads), nested(weights), clipper)
        return flat(clipped)


class OnTorch:
    rtol = 3e-6

    def clip(self, grads, weights, clipper):
        torch = importlib.import_module("torch")
        model = torch.nn.Module()
        for name, weight in weights.items():
            layer, leaf = name.split("/")
            if not hasattr(model, layer):
                model.add_module(layer, torch.nn.Module())
            parameter = torch.nn.Parameter(torch.tensor(outputs_first(weight), dtype=torch.float32))
            parameter.grad = torch.tensor(outputs_first(grads[name]), dtype=torch.float32)
            getattr(model, layer).register_parameter(leaf, parameter)
        clipping.apply(model, clipper)
        named = {name.replace(".", "/"): p.grad.numpy() for name, p in model.named_parameters()}
        return {name: outputs_last(grad) for name, grad in named.items()}


class OnJax:
    rtol = 3e-6

    def clip(self, grads, weights, clipper):
        jax = importlib.import_module("jax")
        given = (jax.tree.map(np.float32, nested(tree)) for tree in (grads, weights))
        return flat(clipping.jax.apply_grads(*given, clipper))


class OnTensorflow:
    rtol = 3e-6

    def __init__(self):
        self.model = None

    def clip(self, grads, weights, clipper):
        tf = importlib.import_module("tensorflow")
        if self.model is None:
            named = {
                name: tf.Variable(w, name=name, dtype="float32") for name, w in weights.items()
            }
            self.model = list(named.values())
        given = [tf.constant(grads[name], "float32") for name in weights]
        clipped = clipping.tensorflow.apply_grads(given, self.model, clipper)
        return {name: g.numpy() for name, g in zip(weights, clipped, strict=True)}


def outputs_first(array):
    return np.moveaxis(array, -1, 0) if array.ndim > 1 else array


def outputs_last(array):
    return np.moveaxis(array, 0, -1) if array.ndim > 1 else array


def nested(named):
    tree = {}
    for name, array in named.items():
        layer, leaf = name.split("/")
        tree.setdefault(layer, {})[leaf] = array
    return tree


def flat(tree):
    return {f"{layer}/{leaf}": np.asarray(x) for layer, d in tree.items() for leaf, x in d.items()}


@pytest.fixture(params=[OnNumpy, OnTorch, OnJax, OnTensorflow], ids=lambda kind: kind.__name__)
def framework(request):
    return request.param()


def groups_of(scope):
    if scope == "global":
        return {("global",): list(SHAPES)}
    if scope == "per_layer":
        return {
            ("layer", "conv"): ["conv/kernel", "conv/bias"],
            ("layer", "dense"): ["dense/kernel"],
        }
    return {("param", str(i)): [name] for i, name in enumerate(SHAPES)}


def whole(arrays, names):
    return np.concatenate([np.ravel(arrays[name]) for name in names])


@pytest.mark.parametrize("scope", ["global", "per_layer", "per_param"])
@pytest.mark.parametrize("name", DEFINED)
def test_clipper_does_what_its_definition_says(framework, name, scope):
    kind, options, reference = DEFINED[name]
    clipper = kind(**options, **GATES, scope=scope)
    groups = groups_of(scope)
    references = {key: reference() for key in groups}
    rng = np.random.default_rng(7)
    weights = {leaf: rng.normal(size=shape).astype(np.float32) for leaf, shape in SHAPES.items()}
    clipped_once = False
    for _ in range(45):
        size = rng.lognormal(sigma=1.2)
        grads = {
            leaf: (rng.normal(size=shape) * size * rng.lognormal(sigma=0.3)).astype(np.float32)
            for leaf, shape in SHAPES.items()
        }
        with capture(("smartclip", "clip", "group")) as events:
            got = framework.clip(grads, weights, clipper)
        assert {e.metadata["key"] for e in events} == set(groups)
        for event in events:
            names = groups[event.metadata["key"]]
            norm = np.linalg.norm(whole(grads, names).astype(np.float64))
            scale, threshold = references[event.metadata["key"]].step(norm)
            close = {"rtol": framework.rtol * 10, "atol": 0}
            np.testing.assert_allclose(float(event.measurements["grad_norm"]), norm, **close)
            np.testing.assert_allclose(
                float(event.measurements["threshold"]), threshold, **close | {"rtol": 1e-4}
            )
            for leaf in names:
                np.testing.assert_allclose(got[leaf], grads[leaf] * scale, rtol=1e-4, atol=0)
            assert bool(event.measurements["clipped"]) == (scale < 1)
            clipped_once = clipped_once or scale < 1
    assert clipped_once


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("scope", ["global", "per_layer", "per_param", "per_unit"])
def test_agc_does_what_its_definition_says(framework, scope, exclude):
    clipper = clipping.AGC(clipping=0.1, scope=scope, exclude_bias_bn=exclude)
    rng = np.random.default_rng(3)
    weights = {leaf: rng.normal(size=shape).astype(np.float32) for leaf, shape in SHAPES.items()}
    weights["dense/kernel"][:, 1] = 0
    grads = {
        leaf: (rng.normal(size=shape) * 0.3).astype(np.float32) for leaf, shape in SHAPES.items()
    }
    grads["conv/kernel"] *= 0.3
    got = framework.clip(grads, weights, clipper)
    expected = dict(grads)
    left_out = {"conv/bias"} if exclude else set()
    if scope == "per_unit":
        for leaf in set(SHAPES) - left_out:
            if leaf == "conv/bias":
                expected[leaf] = agc(grads[leaf], weights[leaf], 0.1, 1e-3)
                continue
            units = [
                agc(grads[leaf][..., i], weights[leaf][..., i], 0.1, 1e-3)
                for i in range(SHAPES[leaf][-1])
            ]
            expected[leaf] = np.stack(units, axis=-1)
    else:
        for names in groups_of(scope).values():
            kept = [leaf for leaf in names if leaf not in left_out]
            if kept:
                g, w = whole(grads, kept), whole(weights, kept)
                scaled = agc(g.astype(np.float64), w.astype(np.float64), 0.1, 1e-3)
                expected |= {leaf: grads[leaf] * (scaled[0] / g[0]) for leaf in kept}
    assert any((expected[leaf] != grads[leaf]).any() for leaf in SHAPES)
    for leaf in SHAPES:
        np.testing.assert_allclose(got[leaf], expected[leaf], rtol=2e-6, atol=0)


@pytest.mark.parametrize("shape", [(7, 5), (3, 3, 4, 6), (4, 2, 3), (6,), (1, 6), ()])
def test_agc_per_unit_equals_optax(shape):
    rng = np.random.default_rng(0)
    weight = np.asarray(rng.normal(size=shape), np.float32)
    grad = np.asarray(rng.normal(size=shape) * 0.05, np.float32)
    reference = optax.adaptive_grad_clip(0.05, 1e-3)
    expected, _ = reference.update({"w": grad}, reference.init({"w": weight}), {"w": weight})
    clipper = clipping.AGC(clipping=0.05, scope="per_unit", exclude_bias_bn=False)
    got = clipping.numpy.apply_grads({"w": grad}, {"w": weight}, clipper)
    np.testing.assert_allclose(got["w"], expected["w"], rtol=1e-6, atol=0)
    assert (np.asarray(expected["w"]) != grad).any()


@pytest.mark.parametrize("name", ["auto", "ema", "zscore"])
def test_spike_is_cut_to_the_calm_threshold_and_leaves_no_trace(framework, name):
    kind, options, _ = DEFINED[name]
    clipper = kind(**options | ({"window_size": 200} if name != "zscore" else {}), **GATES)
    rng = np.random.default_rng(11)
    weights = {"a/w": np.zeros(1, np.float32)}

    def step(norm):
        grads = {"a/w": np.array([norm], np.float32)}
        return abs(float(framework.clip(grads, weights, clipper)["a/w"][0]))

    for norm in rng.normal(1.0, 0.05, size=200):
        step(norm)
    calm = clipper.threshold_any()
    assert 0.9 < calm < 1.3
    assert step(1000.0) == pytest.approx(calm, rel=0.1)
    for norm in rng.normal(1.0, 0.05, size=30):
        step(norm)
        assert clipper.threshold_any() == pytest.approx(calm, rel=0.1)

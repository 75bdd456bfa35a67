"""The same small model on every backend, and histories fed through the public API."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

import clipping


class NumpyKit:
    name = "numpy"

    def model(self, *arrays):
        """A model whose parameters are copies of some arrays."""
        parameters = [SimpleNamespace(data=np.array(a), grad=None) for a in arrays]
        return SimpleNamespace(parameters=lambda: parameters)

    def set_grads(self, model, *arrays):
        for parameter, array in zip(model.parameters(), arrays, strict=True):
            parameter.grad = None if array is None else np.array(array)

    def grads(self, model):
        return [None if p.grad is None else p.grad.copy() for p in model.parameters()]

    def weights(self, model):
        return [p.data.copy() for p in model.parameters()]

    def sgd(self, model, lr):
        return NumpySgd(model, lr)


class NumpySgd:
    def __init__(self, model, lr):
        self.model = model
        self.lr = lr

    def step(self):
        for parameter in self.model.parameters():
            parameter.data -= self.lr * parameter.grad


class TorchKit:
    name = "torch"

    def __init__(self):
        self.torch = importlib.import_module("torch")

    def model(self, *arrays):
        module = self.torch.nn.Module()
        for index, array in enumerate(arrays):
            parameter = self.torch.nn.Parameter(self.torch.tensor(np.array(array)))
            module.register_parameter(f"p{index}", parameter)
        return module

    def set_grads(self, model, *arrays):
        for parameter, array in zip(model.parameters(), arrays, strict=True):
            parameter.grad = None if array is None else self.torch.tensor(np.array(array))

    def grads(self, model):
        return [None if p.grad is None else p.grad.numpy().copy() for p in model.parameters()]

    def weights(self, model):
        return [p.detach().numpy().copy() for p in model.parameters()]

    def sgd(self, model, lr):
        return self.torch.optim.SGD(model.parameters(), lr=lr)


@pytest.fixture(params=[NumpyKit, TorchKit], ids=["numpy", "torch"])
def kit(request):
    return request.param()


@pytest.fixture
def feed(kit):
    """Clip one gradient after the other; what each became, and the thresholds meanwhile."""

    def run(clipper, norms):
        model = kit.model(np.zeros(1))
        clipped, thresholds = [], []
        for norm in norms:
            kit.set_grads(model, [float(norm)])
            clipping.apply(model, clipper)
            clipped.append(kit.grads(model)[0].item())
            thresholds.append(clipper.threshold_any())
        return np.array(clipped), np.array(thresholds)

    return run


@pytest.fixture
def percentile():
    """A clipper by percentile that acts from the second step on."""

    def make(q=95.0, **options):
        defaults = {"history": "window", "warmup_steps": 0, "min_history": 1}
        return clipping.AutoClip(mode="percentile", percentile=q, **(defaults | options))

    return make


@pytest.fixture
def make_halving():
    """Makes a clipper that has seen norm 1 in one group and cuts any larger one to that."""

    def make(**options):
        clipper = clipping.AutoClip(
            mode="percentile",
            percentile=1e-9,
            history="window",
            warmup_steps=0,
            min_history=1,
            **options,
        )
        clipping.numpy.apply_grads(np.array([1.0]), np.zeros(1), clipper)
        return clipper

    return make


@pytest.fixture
def halving(make_halving):
    """A clipper that has seen norm 1 and cuts any larger one to that, such as 2."""
    return make_halving()


@pytest.fixture
def op_by_op():
    """TensorFlow compiles nothing, which takes longer than a few steps of a small model."""
    tf = importlib.import_module("tensorflow")
    tf.config.run_functions_eagerly(run_eagerly=True)
    yield
    tf.config.run_functions_eagerly(run_eagerly=False)


@pytest.fixture
def clip_tensors():
    """Clips gradients of TensorFlow variables that are made for them."""
    tf, sc_tf = map(importlib.import_module, ("tensorflow", "clipping.tensorflow"))

    def clip(*grads, clipper, **options):
        variables = [tf.Variable(tf.zeros_like(g)) for g in grads]
        return sc_tf.apply_grads(list(grads), variables, clipper, **options)

    return clip


@pytest.fixture
def compiled_clip():
    """Makes a tf.function that clips one gradient."""
    tf, sc_tf = map(importlib.import_module, ("tensorflow", "clipping.tensorflow"))

    def make(clipper, weight=None, **options):
        weight = tf.Variable([0.0, 0.0]) if weight is None else weight

        @tf.function(autograph=False, **options)
        def step(gradient):
            return sc_tf.apply_grads([gradient], [weight], clipper)[0]

        return step

    return make

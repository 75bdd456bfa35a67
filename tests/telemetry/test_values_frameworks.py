"""What is particular to the values of one framework."""

import importlib
import math

import pytest

import telemetry
from telemetry.values import on_device, to_python, to_python_many


def same(got, wanted):
    assert type(got) is type(wanted)
    if isinstance(wanted, list):
        assert len(got) == len(wanted)
        for a, b in zip(got, wanted, strict=True):
            same(a, b)
    else:
        assert repr(got) == repr(wanted)  # tells -0.0 from 0.0 and knows NaN


# torch


def test_torch_tensors_that_are_part_of_a_graph(monkeypatch):
    torch = importlib.import_module("torch")
    leaf = torch.tensor([3.0, 4.0], requires_grad=True)
    assert to_python(leaf) == [3.0, 4.0]
    assert to_python(leaf.norm()) == 5.0
    assert to_python(torch.nn.Parameter(torch.tensor(2.0))) == 2.0
    assert leaf.grad is None


def test_torch_views_are_read_as_they_appear():
    torch = importlib.import_module("torch")
    base = torch.arange(6.0).reshape(2, 3)
    assert to_python(base.T) == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    assert to_python(base[:, 1]) == [1.0, 4.0]
    assert to_python(torch.tensor(2.0).expand(3)) == [2.0] * 3
    assert to_python(torch.tensor([1 + 2j]).conj()) == [1 - 2j]


def test_torch_meta_tensors_are_unchanged_and_not_waited_for():
    torch = importlib.import_module("torch")
    for shape in ((), (2,)):
        tensor = torch.empty(shape, device="meta")
        assert to_python(tensor) is tensor
        assert on_device(tensor) is False
        assert to_python_many([{"x": tensor, "y": 1}])[0]["x"] is tensor


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
def test_torch_sparse_tensors_have_no_list_and_are_unchanged():
    torch = importlib.import_module("torch")
    dense = torch.tensor([[0.0, 1.0]])
    for tensor in (dense.to_sparse(), dense.to_sparse_csr()):
        assert to_python(tensor) is tensor


def torch_samples():
    torch = importlib.import_module("torch")
    floats = [0.5, -2.0, -0.0]
    by_dtype = {
        torch.bool: [True, False, True],
        torch.complex64: [1 + 2j, 0j, -1j],
        torch.complex128: [0.1 + 1e300j, 0j, -1j],
    }
    for dtype in (torch.uint8, torch.uint16, torch.uint32, torch.uint64):
        by_dtype[dtype] = [0, 1, torch.iinfo(dtype).max]
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        by_dtype[dtype] = [torch.iinfo(dtype).min, -1, torch.iinfo(dtype).max]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        by_dtype[dtype] = [*floats, torch.finfo(dtype).max, torch.finfo(dtype).tiny, math.inf]
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        by_dtype[dtype] = floats
    return torch, by_dtype


def test_one_copy_for_all_torch_tensors_of_a_device_is_exact_for_every_dtype():
    """What tensors on an accelerator go through, fed with tensors of the CPU."""
    from telemetry.values.host import _fetch_torch

    torch, samples = torch_samples()
    tensors, wanted = [], []
    for dtype, values in samples.items():
        whole = torch.tensor(values, dtype=dtype)
        for tensor, value in [
            (whole, values),
            (whole[0], values[0]),
            (whole[1:], values[1:]),
            (whole.reshape(1, -1), [values]),
            (whole[:0], []),
        ]:
            tensors.append(tensor)
            wanted.append(value)
    for got, value in zip(_fetch_torch(tensors), wanted, strict=True):
        same(got, value)
    for got, value in zip(_fetch_torch(tensors[::-1]), wanted[::-1], strict=True):
        same(got, value)


def test_that_copy_takes_graphs_views_repeats_and_nan():
    from telemetry.values.host import _fetch_torch

    torch = importlib.import_module("torch")
    leaf = torch.tensor([3.0, 4.0], requires_grad=True)
    tensors = [leaf, leaf.norm(), leaf, torch.arange(6).reshape(2, 3).T, torch.tensor(math.nan)]
    got = _fetch_torch(tensors)
    assert got[:4] == [[3.0, 4.0], 5.0, [3.0, 4.0], [[0, 3], [1, 4], [2, 5]]]
    assert math.isnan(got[4])


def test_one_bad_tensor_does_not_spoil_the_others():
    from telemetry.values.host import _attempt, _fetch_torch

    torch = importlib.import_module("torch")
    sparse = torch.tensor([0.0, 1.0]).to_sparse()
    got = _attempt(_fetch_torch, [torch.tensor(0.5), sparse, torch.tensor([1 + 2j]).conj()])
    assert got[0] == 0.5
    assert got[1] is sparse
    assert got[2] == [1 - 2j]


# jax


def test_jax_tracers_are_unchanged_and_not_waited_for():
    jax = importlib.import_module("jax")
    seen = []

    @jax.jit
    def function(x):
        seen.append((to_python(x), x, on_device(x), to_python_many([{"x": x}])[0]["x"]))
        return x * 2

    assert to_python(function(1.5)) == 3.0
    ((converted, tracer, waits, of_many),) = seen
    assert converted is tracer
    assert of_many is tracer
    assert waits is False


def test_jax_arrays_that_were_given_away_are_unchanged():
    jnp = importlib.import_module("jax.numpy")
    array = jnp.arange(3.0)
    array.delete()
    assert to_python(array) is array
    assert on_device(array) is False
    assert to_python_many([{"x": array, "y": jnp.float32(1.5)}]) == [{"x": array, "y": 1.5}]


def test_jax_arrays_are_fetched_together_exactly():
    from telemetry.values.host import _fetch_jax

    jnp = importlib.import_module("jax.numpy")
    values = [2.5, [1, 2], [[True]], [0.5]]
    arrays = [jnp.array(v) for v in values[:3]] + [jnp.array([0.5], jnp.bfloat16)]
    for got, value in zip(_fetch_jax(arrays), values, strict=True):
        same(got, value)


def test_a_jax_array_that_is_not_computed_yet_is_waited_for():
    jnp = importlib.import_module("jax.numpy")
    array = jnp.ones((1500, 1500))
    for _ in range(4):
        array = array @ array / 1500
    array = array[0, 0]
    before = array.is_ready()
    waits = on_device(array)
    assert waits in (not before, not array.is_ready())  # it may have finished in between
    assert to_python_many([{"x": array}]) == [{"x": 1.0}]
    assert on_device(array) is False


# tensorflow


def test_tensorflow_variables_and_strings():
    tf = importlib.import_module("tensorflow")
    assert to_python(tf.Variable(2.5)) == 2.5
    assert to_python(tf.Variable([1, 2])) == [1, 2]
    assert on_device(tf.Variable(2.5)) is False
    text = tf.constant("x")
    assert to_python(text) is text


def test_tensorflow_symbols_are_unchanged_and_not_waited_for():
    tf = importlib.import_module("tensorflow")
    seen = []

    @tf.function
    def function(x):
        seen.append((to_python(x), x, on_device(x), to_python_many([{"x": x}])[0]["x"]))
        return x * 2

    assert to_python(function(tf.constant(1.5))) == 3.0
    converted, symbol, waits, of_many = seen[0]
    assert converted is symbol
    assert of_many is symbol
    assert waits is False


def test_emitting_while_tensorflow_traces_is_quiet(capfd):
    import tensorflow as tf

    bus = telemetry.Registry()
    seen = []
    bus.attach("h", ("a",), lambda event, measurements, metadata, config: seen.append(measurements))

    @tf.function
    def step(x):
        bus.execute(("a",), {"x": x})
        return x + 1

    assert float(step(tf.constant(1.0))) == 2.0
    assert len(seen) == 1
    assert "AutoGraph" not in capfd.readouterr().err

import numpy as np
import pytest
import torch

from regularizers.backends import backend_for, find_backend


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (1, "numpy"),
        (1.5, "numpy"),
        (np.float32(1), "numpy"),
        (np.ones(2), "numpy"),
        (torch.ones(2), "torch"),
        (torch.nn.Parameter(torch.ones(2)), "torch"),
    ],
)
def test_a_value_belongs_to_the_framework_of_its_type(value, name):
    assert find_backend(value).name == name


@pytest.mark.parametrize("value", ["text", None, 1j, np.str_("text"), object(), [1.0]])
def test_what_is_no_tensor_belongs_to_none(value):
    assert find_backend(value) is None


def test_a_backend_is_loaded_once():
    assert find_backend(1.0) is find_backend(np.ones(2))


def test_a_framework_goes_before_numpy():
    assert backend_for([1.0, np.ones(2), torch.ones(2)]).name == "torch"


def test_nothing_is_for_numpy():
    assert backend_for([]).name == "numpy"


def test_a_stranger_is_refused():
    with pytest.raises(TypeError) as caught:
        backend_for([1.0, {1}])
    assert str(caught.value) == (
        "Found {1} (set) among the tensors. Allowed: tensors of torch, jax, tensorflow, numpy, "
        "numbers, and dicts, lists and tuples of them."
    )


def test_the_norm_is_that_of_all_arrays_together():
    """By hand: sqrt(9 + 16 + 144) = 13."""
    numpy, framework = find_backend(1.0), find_backend(torch.ones(1))
    assert numpy.norm([np.array([3.0, 4.0]), np.array(12.0)]) == 13.0
    assert framework.norm([torch.tensor([3.0, 4.0]), None, torch.tensor(12.0)]) == 13.0


def test_the_norm_of_nothing_is_zero():
    assert find_backend(1.0).norm([]) == 0.0
    assert find_backend(torch.ones(1)).norm([None]) == 0.0

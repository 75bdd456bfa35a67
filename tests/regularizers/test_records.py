import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch

from regularizers import BaseLossOutput, CustomLossOutput, RegularizerOutput, custom_loss

# The example of the documented structure.
DOCUMENTED = {
    "loss_total": 2.847,
    "base_loss": {"value": 2.5, "grad_norm": 3.14, "custom": {"perplexity": 12.18}},
    "regularizers": {
        "sparsity": {
            "value": 22.4,
            "weight": 0.01,
            "contribution": 0.224,
            "grad_norm": 7.48,
            "grad_norm_weighted": 0.0748,
            "custom": {"l1_mean": 22.4},
        }
    },
    "regularizer_total": 0.224,
    "total_grad_norm": 5.67,
}


def example(as_held=float, **changes):
    """The documented example; ``as_held`` makes of a number what the output holds."""
    return CustomLossOutput(
        **{
            "loss": None,
            "loss_total": as_held(2.847),
            "base_loss": BaseLossOutput(
                value=as_held(2.5),
                grad_norm=as_held(3.14),
                custom={"perplexity": as_held(12.18)},
            ),
            "regularizers": {
                "sparsity": RegularizerOutput(
                    name="sparsity",
                    value=as_held(22.4),
                    weight=0.01,
                    contribution=as_held(0.224),
                    grad_norm=as_held(7.48),
                    grad_norm_weighted=as_held(0.0748),
                    custom={"l1_mean": as_held(22.4)},
                )
            },
            "regularizer_total": as_held(0.224),
            "total_grad_norm": as_held(5.67),
            **changes,
        }
    )


def untracked():
    return CustomLossOutput(
        loss=None,
        loss_total=2.5,
        base_loss=BaseLossOutput(value=2.0, grad_norm=None, custom={}),
        regularizers={
            "l1": RegularizerOutput(
                name="l1",
                value=5.0,
                weight=0.1,
                contribution=0.5,
                grad_norm=None,
                grad_norm_weighted=None,
                custom={},
            )
        },
        regularizer_total=0.5,
        total_grad_norm=None,
    )


HELD = [
    pytest.param(float, id="float"),
    pytest.param(np.float64, id="numpy"),
    pytest.param(lambda x: torch.tensor(x, dtype=torch.float64), id="torch"),
]


@pytest.mark.parametrize("as_held", HELD)
def test_to_dict_is_the_structure_that_is_documented(as_held):
    assert example(as_held).to_dict() == DOCUMENTED


@pytest.mark.parametrize("as_held", HELD)
def test_to_dict_has_python_numbers_only(as_held):
    def numbers(tree):
        if isinstance(tree, dict):
            return [number for branch in tree.values() for number in numbers(branch)]
        return [tree]

    assert {type(number) for number in numbers(example(as_held).to_dict())} == {float}


def test_keys_come_in_the_order_that_is_documented():
    assert json.dumps(example().to_dict()) == json.dumps(DOCUMENTED)


@pytest.mark.parametrize("as_held", HELD)
def test_to_json_is_the_same_as_json(as_held):
    assert json.loads(example(as_held).to_json()) == DOCUMENTED


def test_gradient_norms_that_were_not_tracked_are_absent():
    assert untracked().to_dict() == {
        "loss_total": 2.5,
        "base_loss": {"value": 2.0, "custom": {}},
        "regularizers": {"l1": {"value": 5.0, "weight": 0.1, "contribution": 0.5, "custom": {}}},
        "regularizer_total": 0.5,
    }


def test_what_json_has_no_number_for_is_a_string():
    output = example(
        loss_total=math.nan, regularizer_total=math.inf, total_grad_norm=torch.tensor(-math.inf)
    )
    read = json.loads(output.to_json())
    assert read == {
        **DOCUMENTED,
        "loss_total": "NaN",
        "regularizer_total": "Infinity",
        "total_grad_norm": "-Infinity",
    }


@pytest.mark.parametrize("as_held", HELD)
def test_numbers_are_python_numbers_when_read(as_held):
    output = example(as_held)
    sparsity = output.regularizers["sparsity"]
    read = [
        output.loss_total,
        output.regularizer_total,
        output.total_grad_norm,
        output.base_loss.value,
        output.base_loss.custom["perplexity"],
        sparsity.contribution,
        sparsity.grad_norm_weighted,
    ]
    assert read == [2.847, 0.224, 5.67, 2.5, 12.18, 0.224, 0.0748]
    assert {type(number) for number in read} == {float}


@pytest.mark.parametrize("as_held", HELD)
def test_outputs_with_the_same_numbers_are_equal(as_held):
    assert example(as_held) == example(float)
    assert example(as_held) != example(float, loss_total=0.0)


def test_the_differentiable_loss_is_not_compared_or_shown():
    loss = torch.ones(2)
    output = example(loss=loss)
    assert output.loss is loss
    assert output == example()
    assert repr(output) == repr(example())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])  # noqa: S301 -- our own bytes
def test_outputs_can_be_copied_and_pickled(copied):
    output = example(torch.tensor)
    assert copied(output) == output


def test_every_field_has_to_be_given():
    with pytest.raises(TypeError, match="missing 3 required keyword-only arguments"):
        BaseLossOutput()


def test_changing_the_dictionary_leaves_the_output_alone():
    output = custom_loss([], [], lambda data, logprobs: (1.0, {"m": 2.0}))
    output.to_dict()["base_loss"]["custom"]["m"] = 9.0
    assert output.base_loss.custom == {"m": 2.0}

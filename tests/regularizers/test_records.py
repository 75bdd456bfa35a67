import copy
import json
import math
import pickle
from unittest.mock import ANY

import numpy as np
import pytest
import torch

from regularizers import (
    BaseLossOutput,
    CustomLossOutput,
    RegularizerOutput,
    RegularizerSpec,
    custom_loss,
    penalties,
)

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


def test_an_output_is_equal_to_nothing_else():
    output = example()
    for other in (output.base_loss, output.regularizers["sparsity"], output.to_dict(), None):
        assert output != other
    assert output == ANY  # which decides itself


def test_an_output_cannot_be_hashed():
    """It has dictionaries, which can change."""
    for record in (example(), example().base_loss, *example().regularizers.values()):
        with pytest.raises(TypeError, match="unhashable"):
            hash(record)


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


def test_reading_an_output_changes_nothing_when_it_is_copied():
    output = example(torch.tensor)
    output.to_dict()
    again = pickle.loads(pickle.dumps(output))  # noqa: S301 -- our own bytes
    assert again == output == example(torch.tensor)
    assert again.to_dict() == output.to_dict()


def test_every_field_has_to_be_given():
    with pytest.raises(TypeError, match="missing 3 required keyword-only arguments"):
        BaseLossOutput()


def test_changing_the_dictionary_leaves_the_output_alone():
    output = custom_loss([], [], lambda data, logprobs: (1.0, {"m": 2.0}))
    output.to_dict()["base_loss"]["custom"]["m"] = 9.0
    assert output.base_loss.custom == {"m": 2.0}


@pytest.mark.parametrize("as_held", HELD)
def test_an_output_is_read_back_from_its_dictionary_and_from_json(as_held):
    output = example(as_held)
    assert CustomLossOutput.from_dict(output.to_dict()) == output
    assert CustomLossOutput.from_json(output.to_json()) == output
    assert CustomLossOutput.from_json(output.to_json().encode()) == output
    assert CustomLossOutput.from_dict(json.loads(output.to_json())) == output


def test_what_is_read_back_has_the_documented_numbers():
    output = CustomLossOutput.from_dict(DOCUMENTED)
    assert output == example()
    assert output.to_dict() == DOCUMENTED
    assert output.regularizers["sparsity"].name == "sparsity"
    assert (output.loss, output.grad, output.metadata, output.reported) == (None, None, {}, True)


def test_gradient_norms_that_are_absent_are_read_as_none():
    output = CustomLossOutput.from_json(untracked().to_json())
    assert output == untracked()
    assert output.total_grad_norm is None
    assert output.base_loss.grad_norm is None
    assert output.regularizers["l1"].grad_norm_weighted is None
    assert CustomLossOutput.from_dict({**untracked().to_dict(), "total_grad_norm": None}) == output


def test_a_real_output_is_read_back():
    logprobs = torch.tensor([3.0, -4.0], requires_grad=True)
    output = custom_loss(
        [1],
        logprobs,
        lambda data, x: (x.sum(), {"largest": x.max(), "seen": 2**70, "finished": True}),
        regularizers=[RegularizerSpec(penalties.l1, 0.1, "l1")],
        track_grad_norms=True,
    )
    assert CustomLossOutput.from_json(output.to_json()) == output
    assert CustomLossOutput.from_json(output.to_json()).base_loss.custom == {
        "largest": 3.0,
        "seen": 2**70,
        "finished": True,
    }


@pytest.mark.parametrize("number", [math.inf, -math.inf, 2**70, -(2**64), 0, -0.5, 1e-300])
def test_numbers_of_any_size_are_read_back(number):
    output = example(loss_total=number, total_grad_norm=number)
    for read in (
        CustomLossOutput.from_dict(output.to_dict()),
        CustomLossOutput.from_json(output.to_json()),
    ):
        assert read == output
        assert (read.loss_total, read.total_grad_norm) == (number, number)


def test_nan_is_read_back_and_equal_where_it_was():
    def with_nan():
        base = BaseLossOutput(
            value=float("nan"), grad_norm=torch.tensor(math.nan), custom={"m": np.float32("nan")}
        )
        return example(loss_total=torch.tensor(math.nan), base_loss=base)

    output = with_nan()
    assert output == with_nan()
    assert output != example()
    read = CustomLossOutput.from_json(output.to_json())
    assert read == output
    assert math.isnan(read.loss_total)
    assert math.isnan(read.base_loss.custom["m"])
    assert CustomLossOutput.from_dict(output.to_dict()) == output


def changed(path, value):
    """The documented structure with something else in one place; ... takes it away."""
    data = copy.deepcopy(DOCUMENTED)
    *above, last = path
    place = data
    for key in above:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            ["loss_total"],
            (
                "output['loss_total'] is missing. "
                "Required: loss_total, base_loss, regularizers, regularizer_total."
            ),
        ),
        (
            ["base_loss", "value"],
            "output['base_loss']['value'] is missing. Required: value, custom.",
        ),
        (
            ["regularizers", "sparsity", "weight"],
            (
                "output['regularizers']['sparsity']['weight'] is missing. "
                "Required: value, weight, contribution, custom."
            ),
        ),
    ],
)
def test_a_missing_key_is_named(path, message):
    with pytest.raises(ValueError, match="missing") as caught:
        CustomLossOutput.from_dict(changed(path, ...))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            ["loss"],
            (
                "output['loss'] is unknown. Allowed: loss_total, base_loss, regularizers, "
                "regularizer_total, total_grad_norm."
            ),
        ),
        (
            ["base_loss", "weight"],
            "output['base_loss']['weight'] is unknown. Allowed: value, custom, grad_norm.",
        ),
        (
            ["regularizers", "sparsity", "name"],
            (
                "output['regularizers']['sparsity']['name'] is unknown. Allowed: value, weight, "
                "contribution, custom, grad_norm, grad_norm_weighted."
            ),
        ),
    ],
)
def test_an_unknown_key_is_named(path, message):
    with pytest.raises(ValueError, match="unknown") as caught:
        CustomLossOutput.from_dict(changed(path, 1.0))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["base_loss"], 2.5, "output['base_loss'] must be a dictionary, got 2.5 (float)."),
        (["regularizers"], [], "output['regularizers'] must be a dictionary, got [] (list)."),
        (
            ["regularizers", "sparsity"],
            None,
            "output['regularizers']['sparsity'] must be a dictionary, got None (NoneType).",
        ),
        (["loss_total"], [1.0], "output['loss_total'] must be a number, got [1.0] (list)."),
        (["loss_total"], None, "output['loss_total'] must be a number, got None (NoneType)."),
        (
            ["base_loss", "custom", "perplexity"],
            {},
            "output['base_loss']['custom']['perplexity'] must be a number, got {} (dict).",
        ),
        (["regularizers", 3], {}, "output['regularizers'] has the key 3 (int). Keys are strings."),
    ],
)
def test_what_is_of_a_wrong_type_is_named(path, value, message):
    with pytest.raises(TypeError) as caught:
        CustomLossOutput.from_dict(changed(path, value))
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["nan", "inf", "", "1.5", "1_000", " 1", "9" * 5000, "٣"])
def test_a_string_that_stands_for_no_number_is_refused(text):
    with pytest.raises(ValueError, match="total_grad_norm") as caught:
        CustomLossOutput.from_dict(changed(["total_grad_norm"], text))
    assert str(caught.value) == (
        f"output['total_grad_norm'] must be a number, got {text!r}. "
        "Of strings, those of digits are allowed, and NaN, Infinity, -Infinity."
    )


@pytest.mark.parametrize("text", ["", "{", '{"loss_total": NaN}', "nothing"])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValueError, match="line 1 column"):
        CustomLossOutput.from_json(text)


def test_what_is_no_dictionary_is_refused():
    with pytest.raises(TypeError) as caught:
        CustomLossOutput.from_json("[1, 2]")
    assert str(caught.value) == "output must be a dictionary, got [1, 2] (list)."

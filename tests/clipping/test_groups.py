"""Which parameters form a group, which rows they have, and what a unit is."""

import importlib

import numpy as np
import pytest

import clipping
from clipping import units
from clipping.groups import Leaf, arrange
from clipping.host import HOST
from telemetry.testing import capture

MATRIX, BIAS = (4, 3), (4,)
LEAVES = [
    Leaf(MATRIX, "a", 3),
    Leaf(BIAS, "a", 1),
    Leaf(MATRIX, "b", 3),
    Leaf((2, 2), "a", 2),
]
"""Layers interleaved, as in a model that comes back to its first layer; a bias in the middle."""


def auto(scope):
    return arrange(clipping.AutoClip(scope=scope), LEAVES)


def agc(scope, leaves=LEAVES, **options):
    return arrange(clipping.AGC(scope=scope, **options), leaves)


def test_global_is_one_row_of_everything():
    groups = auto("global")
    assert groups.names == groups.keys == (("global",),)
    assert (groups.count, groups.rows) == (1, 1)
    assert groups.first.tolist() == [0, 0, 0, 0]
    assert groups.grouped is None


def test_layers_that_are_interleaved_are_one_group_each_in_order_of_appearance():
    groups = auto("per_layer")
    assert groups.keys == (("layer", "a"), ("layer", "b"))
    assert (groups.count, groups.rows) == (2, 2)
    assert groups.first.tolist() == [0, 0, 1, 0]


def test_parameters_of_the_model_itself_are_the_layer_root():
    groups = arrange(clipping.AutoClip(scope="per_layer"), [Leaf(BIAS, "", 1), Leaf(BIAS, "a", 1)])
    assert groups.keys == (("layer", "root"), ("layer", "a"))


def test_every_parameter_is_a_group():
    groups = auto("per_param")
    assert groups.keys == tuple(("param", str(i)) for i in range(4))
    assert groups.first.tolist() == groups.owner.tolist() == [0, 1, 2, 3]
    assert not groups.unitwise


def test_every_unit_is_a_row_of_its_parameter():
    groups = agc("per_unit", exclude_bias_bn=False)
    assert groups.keys == tuple(("param", str(i)) for i in range(4))
    assert groups.rows == 3 + 1 + 3 + 2
    assert groups.first.tolist() == [0, 3, 4, 7]
    assert groups.owner.tolist() == [0, 0, 0, 1, 2, 2, 2, 3, 3]
    assert groups.unitwise


def test_excluded_parameter_keeps_its_index_and_has_a_row_behind_the_groups():
    groups = agc("per_param")
    assert groups.keys == (("param", "0"), ("param", "2"), ("param", "3"))
    assert groups.names == (*groups.keys, ("param", "1"))
    assert (groups.count, groups.rows) == (3, 4)
    assert groups.first.tolist() == [0, 1, 2, 3]
    assert groups.owner.tolist() == [0, 3, 1, 2]
    assert groups.grouped.tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("scope", "keys", "first"),
    [
        ("global", (("global",),), [0, 1, 0, 0]),
        ("per_layer", (("layer", "a"), ("layer", "b")), [0, 2, 1, 0]),
    ],
)
def test_excluded_parameter_is_in_no_shared_row(scope, keys, first):
    groups = agc(scope)
    assert groups.keys == keys
    assert groups.names == (*keys, ("param", "1"))
    assert groups.first.tolist() == first
    assert groups.grouped.tolist() == [True] * len(keys) + [False]


def test_layer_of_excluded_parameters_only_is_no_group():
    leaves = [Leaf(BIAS, "norm", 1), Leaf(MATRIX, "dense", 3)]
    assert agc("per_layer", leaves).names == (("layer", "dense"), ("param", "0"))


def test_excluded_parameter_is_one_row_also_per_unit():
    groups = agc("per_unit")
    assert groups.rows == 3 + 1 + 3 + 2
    assert groups.owner.tolist() == [0, 0, 0, 3, 1, 1, 1, 2, 2]
    assert groups.bounds == [(0, 3), (4, 7), (7, 9)]


def test_norms_of_a_groups_parameters_are_combined():
    norms = np.array([3.0, 4.0, 7.0, 12.0])
    assert auto("global").combine(HOST, norms) == pytest.approx([np.sqrt(9 + 16 + 49 + 144)])
    assert auto("per_layer").combine(HOST, norms) == pytest.approx([13.0, 7.0])
    assert agc("per_layer").combine(HOST, norms) == pytest.approx([np.sqrt(9 + 144), 7.0, 4.0])
    assert auto("per_param").combine(HOST, norms).tolist() == norms.tolist()


def test_norms_of_units_are_rows_already():
    norms = np.arange(9.0)
    assert agc("per_unit").combine(HOST, norms).tolist() == norms.tolist()


@pytest.mark.parametrize(
    ("groups", "has", "rows"),
    [
        (auto("per_layer"), [True, False, True, False], None),
        (auto("per_layer"), [True, True, False, True], [True, False]),
        (auto("per_layer"), [False, False, True, False], [False, True]),
        (auto("per_param"), [True, False, True, True], [True, False, True, True]),
        (agc("per_layer"), [True, False, True, True], [True, True, False]),
        (agc("per_unit"), [False, True, False, True], [0, 0, 0, 1, 0, 0, 0, 1, 1]),
    ],
)
def test_row_is_present_if_one_of_its_parameters_is(groups, has, rows):
    present = groups.present(np.array(has))
    expected = [True] * groups.rows if rows is None else [bool(row) for row in rows]
    assert present.tolist() == expected


def test_present_is_none_where_nothing_is_absent():
    assert auto("per_param").present(np.array([True] * 4)) is None


def test_names_of_rows_are_given_once():
    groups = agc("per_unit")
    rows = np.array([0, 1, 1, 1, 0, 0, 0, 0, 1], bool)
    assert groups.named(rows) == [("param", "0"), ("param", "3"), ("param", "1")]


def test_values_are_split_by_group():
    assert auto("per_layer").split([10, 20]) == [10, 20]
    assert agc("per_param").split(np.arange(4)) == [0, 2, 3]
    parts = agc("per_unit").split(np.arange(9))
    assert [part.tolist() for part in parts] == [[0, 1, 2], [4, 5, 6], [7, 8]]


def test_layers_without_names_are_refused():
    with pytest.raises(ValueError, match="per_layer") as refused:
        arrange(clipping.AutoClip(scope="per_layer"), [Leaf(BIAS, None, 1)])
    assert str(refused.value) == (
        "scope='per_layer' needs the names of the layers, and bare gradients have none. Allowed "
        "here: 'global' and 'per_param'; or give the whole model to clipping.apply."
    )


@pytest.mark.parametrize("scope", ["global", "per_layer", "per_param", "per_unit"])
def test_nothing_left_to_clip_is_refused(scope):
    with pytest.raises(ValueError, match="leaves out") as refused:
        agc(scope, [Leaf(BIAS, "a", 1), Leaf((), "b", 1)])
    assert str(refused.value) == (
        "AGC leaves out all of the 2 parameters, because none has more than one dimension. "
        "Allowed: at least one that is clipped; give exclude_bias_bn=False to clip biases too."
    )


@pytest.mark.parametrize(
    ("shape", "last", "first"),
    [
        ((), (), ()),
        ((10,), (0,), (0,)),
        ((64, 10), (0,), (1,)),
        ((8, 4, 16), (0,), (1, 2)),
        ((3, 3, 16, 32), (0, 1, 2), (1, 2, 3)),
        ((2, 3, 3, 16, 32), (0, 1, 2, 3), (1, 2, 3, 4)),
        ((1, 10), (0, 1), (1,)),
        ((10, 1), (0, 1), (1,)),
        ((0, 5), (0, 1), (0, 1)),
    ],
)
def test_axes_within_a_unit(shape, last, first):
    assert units.last_axis(shape) == last
    assert units.first_axis(shape) == first


@pytest.mark.parametrize(
    ("shape", "within", "count"),
    [((64, 10), (0,), 10), ((3, 3, 16, 32), (0, 1, 2), 32), ((), (), 1), ((0, 5), (0, 1), 1)],
)
def test_number_of_units(shape, within, count):
    assert units.count(shape, within) == count


SEEN = ("smartclip", "clip", "group"), ("smartclip", "clip", "stop")


def test_parameter_without_a_gradient_keeps_its_history_and_sends_no_event(kit):
    clipper = clipping.ZScoreClip(scope="per_param", warmup_steps=0, min_history=1)
    model = kit.model([0.0], [0.0])
    kit.set_grads(model, [1.0], [5.0])
    clipping.apply(model, clipper)
    kit.set_grads(model, [2.0], None)
    with capture(*SEEN) as events:
        clipping.apply(model, clipper)
    group, stop = events
    assert group.metadata["key"] == ("param", "0")
    assert (stop.measurements["groups"], stop.measurements["grad_norm"]) == (1, 2.0)
    state = clipper.state_dict()
    assert (state["steps"], state["counts"], state["means"][1]) == (2, [2, 1], 5.0)
    # The threshold last used: there was none in the first step, and the second used none.
    assert state["thresholds"] == [1.0, None]


def test_layer_without_a_gradient_keeps_its_history_and_sends_no_event():
    torch = importlib.import_module("torch")
    model = torch.nn.Sequential(*(torch.nn.Linear(1, 1, bias=False) for _ in range(2)))
    clipper = clipping.ZScoreClip(scope="per_layer", warmup_steps=0, min_history=1)
    model[0].weight.grad, model[1].weight.grad = torch.tensor([[1.0]]), torch.tensor([[5.0]])
    clipping.apply(model, clipper)
    model[1].weight.grad = None
    with capture(*SEEN) as events:
        clipping.apply(model, clipper)
    group, stop = events
    assert group.metadata["key"] == ("layer", "0")
    assert stop.measurements["groups"] == 1
    state = clipper.state_dict()
    assert state["keys"] == [["layer", "0"], ["layer", "1"]]
    assert (state["counts"], state["means"][1]) == ([2, 1], 5.0)

import numpy as np

from regularizers import (
    BaseLossOutput,
    CustomLoss,
    CustomLossOutput,
    RegularizerOutput,
    RegularizerSpec,
    penalties,
    schedules,
)
from regularizers.packing import pack, unpack
from regularizers.trees import flatten, map_leaves


def output_of(number, *, norm=None, weight=0.1):
    regularizers = [
        RegularizerOutput(
            name=name,
            value=number(2.0),
            weight=weight,
            contribution=number(0.2),
            grad_norm=norm,
            grad_norm_weighted=norm,
            custom={"q": number(5.0), "c": number(6.0)},
            asynchronous=name == "z",
        )
        for name in ("z", "a")
    ]
    return CustomLossOutput(
        loss=number(3.4),
        loss_total=number(3.4),
        base_loss=BaseLossOutput(value=number(3.0), grad_norm=norm, custom={"b": number(1.0)}),
        regularizers={one.name: one for one in regularizers},
        regularizer_total=number(0.4),
        total_grad_norm=norm,
        grad={"w": number(7.0)},
        metadata={"model_id": "m", "data_count": 3},
        reported=False,
    )


def test_unpacking_gives_what_was_packed():
    for norm in (None, 0.5):
        for weight in (0.1, np.float32(0.25)):
            output = output_of(np.float32, norm=norm, weight=weight)
            again = unpack(*pack(output))
            assert again == output
            assert list(again.regularizers) == ["z", "a"]
            assert list(again.regularizers["z"].custom) == ["q", "c"]
            assert [one.asynchronous for one in again.regularizers.values()] == [True, False]
            assert (again.loss, again.grad) == (output.loss, output.grad)
            assert (again.metadata, again.reported) == (output.metadata, False)


def test_packing_reads_nothing():
    array = np.ones(())
    numbers, _ = pack(output_of(lambda value: array, norm=array))
    leaves = list(flatten(numbers).values())
    assert len(leaves) == 2 + 3 + 3 + 2 * 6
    assert all(leaf is array for leaf in leaves)
    assert all(
        value is array for value in vars(unpack(*pack(output_of(lambda v: array))))["grad"].values()
    )


def test_the_numbers_can_be_replaced():
    numbers, skeleton = pack(output_of(float, norm=1.0))
    doubled = unpack(map_leaves(lambda number: 2 * number, numbers), skeleton)
    assert doubled.loss_total == 6.8
    assert doubled.regularizers["a"].custom == {"q": 10.0, "c": 12.0}
    assert doubled.regularizers["a"].weight == 0.1
    assert doubled.total_grad_norm == 2.0


def test_what_is_fixed_can_be_hashed_and_compared():
    """A compiler takes two outputs for one shape if their numbers alone differ."""
    _, one = pack(output_of(float))
    _, other = pack(output_of(lambda value: value + 1))
    assert one == other
    assert hash(one) == hash(other)
    assert one != pack(output_of(float, weight=0.2))[1]


def test_a_weight_that_was_computed_is_one_of_the_numbers():
    numbers, skeleton = pack(output_of(float, weight=np.float32(0.25)))
    assert [one.weight for one in skeleton.regularizers] == [None, None]
    assert unpack(numbers, skeleton).regularizers["a"].weight == 0.25


def test_reading_an_output_changes_nothing_that_is_packed():
    array = np.full((), 0.25, np.float32)
    output = output_of(lambda value: array, norm=array, weight=array)
    numbers, skeleton = pack(output)
    assert output.to_dict()["regularizers"]["a"]["weight"] == 0.25
    again, same = pack(output)
    assert same == skeleton
    assert all(leaf is array for leaf in flatten(again).values())
    assert flatten(again).keys() == flatten(numbers).keys()


def test_the_steps_of_a_schedule_differ_in_numbers_alone():
    warming = RegularizerSpec(penalties.l1, schedules.linear_warmup(0.1, steps=2), "a")
    fixed = RegularizerSpec(penalties.l1, 0.5, "b")
    loss = CustomLoss(penalties.l2, [warming, fixed])
    packed = [pack(loss(None, np.ones(2))) for _ in range(3)]
    assert len({skeleton for _, skeleton in packed}) == 1
    unpacked = [unpack(*one).regularizers for one in packed]
    assert [one["a"].weight for one in unpacked] == [0.0, 0.05, 0.1]
    assert [(one["a"].scheduled, one["b"].scheduled) for one in unpacked] == [(True, False)] * 3
    assert [one.weight for one in packed[0][1].regularizers] == [None, 0.5]


def test_what_is_none_is_not_among_the_numbers():
    def nones(numbers):
        if isinstance(numbers, tuple):
            return sum(map(nones, numbers))
        return numbers is None

    numbers, skeleton = pack(output_of(float))
    assert nones(numbers) == 0
    output = unpack(numbers, skeleton)
    assert output.total_grad_norm is None
    assert output.base_loss.grad_norm is None
    assert output.regularizers["a"].grad_norm_weighted is None

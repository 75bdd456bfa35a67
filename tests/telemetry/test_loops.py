"""`track`: which step a batch belongs to, and that nothing of it stays behind."""

import gc

import pytest

import telemetry
from telemetry.ambient import Layer
from telemetry.testing import capture


def here():
    """What the context says where this is called."""
    with capture(("here",)) as events:
        telemetry.execute(("here",), {})
    return dict(events[0].metadata)


def places(loop):
    return [here() for _ in loop]


def steps(loop):
    return [place["step"] for place in places(loop)]


class Stream:
    """Batches that nobody knows the number of."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter(range(self.count))


# Which step


def test_the_batches_come_through_unchanged_and_in_order():
    batches = [object(), object(), object()]
    assert list(telemetry.track(batches)) == batches


def test_each_batch_is_a_step_of_its_epoch():
    assert places(telemetry.track("ab", epoch=2, total_epochs=3)) == [
        {"epoch": 2, "total_steps": 6, "step": 3},
        {"epoch": 2, "total_steps": 6, "step": 4},
    ]


def test_without_an_epoch_the_pass_is_the_whole_run():
    assert places(telemetry.track("ab")) == [
        {"total_steps": 2, "step": 1},
        {"total_steps": 2, "step": 2},
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"epoch": 1}, {"epoch": 1, "step": 1}),  # how many epochs follow is not known
        ({"epoch": 3}, {"epoch": 3, "step": 9}),
        ({"start": 7}, {"step": 8}),  # whether 7 were made of this pass or of others is not known
        ({"start": 7, "total_steps": 99}, {"step": 8, "total_steps": 99}),
        ({"epoch": 2, "start": 7}, {"epoch": 2, "step": 8}),
        ({"epoch": 2, "total_epochs": 5}, {"epoch": 2, "step": 5, "total_steps": 20}),
        ({"total_epochs": 5}, {"step": 1, "total_steps": 20}),
        ({"epoch": 2, "total_epochs": 5, "accumulate": 3}, {"epoch": 2, "step": 3}),
    ],
)
def test_where_the_first_of_four_batches_stands(arguments, expected):
    first = places(telemetry.track("abcd", **arguments))[0]
    assert expected.items() <= first.items()
    if "accumulate" in arguments:
        assert first["total_steps"] == 10  # two steps an epoch: of three batches, and of one
    else:
        assert first == expected


def test_accumulated_batches_share_a_step_and_the_rest_of_an_epoch_is_one():
    first = telemetry.track(range(5), epoch=1, total_epochs=2, accumulate=2)
    second = telemetry.track(range(5), epoch=2, total_epochs=2, accumulate=2)
    assert steps(first) == [1, 1, 2, 2, 3]
    assert steps(second) == [4, 4, 5, 5, 6]
    assert second.total_steps == 6


def test_a_stream_goes_on_where_it_is_told_to():
    first = telemetry.track(Stream(2), epoch=1, accumulate=2)
    assert steps(first) == [1, 1]
    second = telemetry.track(Stream(3), epoch=2, start=first.step, total_steps=10)
    assert places(second)[-1] == {"epoch": 2, "step": 4, "total_steps": 10}


def test_an_epoch_of_a_stream_cannot_begin_at_a_step_that_nobody_knows():
    with pytest.raises(ValueError, match="track cannot know") as refused:
        telemetry.track(Stream(2), epoch=2)
    assert str(refused.value) == (
        "track cannot know at which step epoch 2 begins, because Stream has no length. Give the "
        "optimizer steps made before as start=...: the `step` of the epoch before, as in "
        "batches = track(stream, epoch=1); ...; start=batches.step."
    )


def test_iterated_over_again_it_is_the_next_epoch():
    batches = telemetry.track(range(3), epoch=1, total_epochs=3, accumulate=2)
    assert [(p["epoch"], p["step"]) for _ in range(3) for p in places(batches)] == [
        (1, 1), (1, 1), (1, 2),
        (2, 3), (2, 3), (2, 4),
        (3, 5), (3, 5), (3, 6),
    ]  # fmt: skip
    assert (batches.epoch, batches.step, batches.total_steps) == (3, 6, 6)


def test_more_steps_than_were_said_have_no_total():
    batches = telemetry.track("ab")  # two steps, if it is the whole run
    assert [places(batches), places(batches)] == [
        [{"total_steps": 2, "step": 1}, {"total_steps": 2, "step": 2}],
        [{"step": 3}, {"step": 4}],
    ]
    assert batches.total_steps is None
    seen = places(telemetry.track("abc", start=2, total_steps=4))
    assert [place.get("total_steps") for place in seen] == [4, 4, None]


def test_the_rest_of_an_epoch_goes_on_at_the_step_that_was_reached():
    rest = telemetry.track(iter("cd"), epoch=2, start=6, total_steps=8)
    assert places(rest) == [
        {"epoch": 2, "total_steps": 8, "step": 7},
        {"epoch": 2, "total_steps": 8, "step": 8},
    ]


def test_a_look_at_the_first_batch_counts_for_nothing():
    batches = telemetry.track("abc", epoch=1)
    assert next(iter(batches)) == "a"
    assert places(batches)[0] == {"epoch": 1, "step": 1}


def test_an_epoch_that_is_cut_short_is_one():
    batches = telemetry.track(range(100), epoch=1)
    for batch in batches:
        if batch == 2:
            break
    assert batches.step == 3
    assert next(map(dict, places(batches)[:1])) == {"epoch": 2, "step": 4}


def test_no_batches_are_no_step():
    batches = telemetry.track([], epoch=1, total_epochs=2)
    assert steps(batches) == []
    assert (batches.step, batches.total_steps) == (0, None)


def test_the_epoch_of_the_context_around_stays_if_none_is_given():
    with telemetry.context(run_id="r", epoch=7, step=0):
        assert places(telemetry.track("a"))[0] == {
            "run_id": "r", "epoch": 7, "step": 1, "total_steps": 1
        }  # fmt: skip


def test_what_draws_a_batch_is_done_for_its_step():
    seen = []

    def draw():
        for _ in range(4):
            seen.append(here()["step"])
            yield
        seen.append("end")

    for _ in telemetry.track(draw(), accumulate=2):
        pass
    assert seen == [1, 1, 2, 2, "end"]


def test_a_source_may_have_contexts_of_its_own():
    def shards():
        for shard in ("a", "b"):
            with telemetry.context(shard=shard):
                yield
                yield
        yield

    assert [(p["step"], p.get("shard")) for p in places(telemetry.track(shards()))] == [
        (1, "a"),
        (2, "a"),
        (3, "b"),
        (4, "b"),
        (5, None),
    ]
    assert here() == {}


def long():
    yield from range(10_000)


def long_with_contexts():
    for shard in range(10_000):
        with telemetry.context(shard=shard):
            yield


def two_loops():
    yield from zip(telemetry.track(long()), telemetry.track(long()), strict=True)


def count_layers():
    gc.collect()
    return sum(type(thing) is Layer for thing in gc.get_objects())


@pytest.mark.parametrize("source", [long, long_with_contexts, two_loops])
def test_steps_that_are_over_are_forgotten(source):
    before = count_layers()
    for _ in telemetry.track(source()):
        if here()["step"] == 10_000:
            assert count_layers() <= before + 3
    assert here() == {}


def test_the_step_event_has_the_total_that_the_bar_of_the_console_needs():
    with capture(("training", "step")) as events:
        for _ in telemetry.track("ab", epoch=1, total_epochs=2):
            telemetry.emit_step(loss=0.5)
    assert [event.metadata for event in events] == [
        {"epoch": 1, "total_steps": 4, "step": 1},
        {"epoch": 1, "total_steps": 4, "step": 2},
    ]


# Lengths


def test_it_has_a_length_where_the_iterable_has_one():
    assert len(telemetry.track("abc", accumulate=2)) == 3
    with pytest.raises(TypeError, match=r"object of type 'Track' has no len\(\)"):
        len(telemetry.track(Stream(3)))
    assert bool(telemetry.track(Stream(3))) is True


def test_tqdm_around_it_shows_its_total_and_leaves_it_well():
    import io

    from tqdm import tqdm

    shown = io.StringIO()
    with tqdm(telemetry.track("abcd"), file=shown) as bar:
        assert bar.total == 4
        for batch in bar:
            if batch == "c":
                break
    del bar
    assert here() == {}


def test_a_data_loader_of_a_stream_has_no_length():
    import torch

    class Numbers(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(range(6))

    loader = torch.utils.data.DataLoader(Numbers(), batch_size=4)
    assert steps(telemetry.track(loader, epoch=1)) == [1, 2]
    with pytest.raises(ValueError, match="because DataLoader has no length"):
        telemetry.track(loader, epoch=2)


def test_a_data_loader_with_workers_is_tracked_epoch_for_epoch():
    import torch

    loader = torch.utils.data.DataLoader(range(6), batch_size=4, num_workers=1)
    for epoch, expected in ((1, [1, 2]), (2, [3, 4])):
        batches = telemetry.track(loader, epoch=epoch, total_epochs=2)
        assert steps(batches) == expected


class Moody(Stream):
    """Batches whose number cannot be asked for."""

    def __init__(self, length):
        super().__init__(2)
        self.length = length

    def __len__(self):
        if isinstance(self.length, Exception):
            raise self.length
        return self.length


@pytest.mark.parametrize("length", [RuntimeError("not yet"), KeyError(), -1, 2**70, "two"])
def test_a_length_that_cannot_be_had_is_none(length):
    batches = telemetry.track(Moody(length), epoch=1)
    assert not hasattr(batches, "__len__")
    assert steps(batches) == [1, 2]


def test_its_repr_says_where_it_is():
    batches = telemetry.track([1, 2], epoch=2, total_epochs=3)
    assert repr(batches) == "<track of list: epoch 2, step 2 of 6>"
    assert repr(telemetry.track(Stream(1))) == "<track of Stream: step 0>"

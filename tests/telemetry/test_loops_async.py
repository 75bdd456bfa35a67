"""`track` with ``async for``."""

import asyncio

import pytest

import telemetry
from telemetry.testing import capture


def here():
    with capture(("here",)) as events:
        telemetry.execute(("here",), {})
    return dict(events[0].metadata)


async def stream(count, seen=None):
    for number in range(count):
        await asyncio.sleep(0)
        if seen is not None:
            seen.append(here())
        yield number


def run(main):
    asyncio.run(main())


def test_each_batch_is_a_step():
    async def main():
        seen = [(b, here()) async for b in telemetry.track(stream(3), epoch=1, accumulate=2)]
        assert seen == [
            (0, {"epoch": 1, "step": 1}),
            (1, {"epoch": 1, "step": 1}),
            (2, {"epoch": 1, "step": 2}),
        ]
        assert here() == {}

    run(main)


def test_timing_comes_once_a_step():
    async def main():
        with capture(("training", "timing")) as events:
            async for _ in telemetry.track(stream(3), accumulate=2, batch_size=4):
                pass
        assert [(e.metadata["step"], e.measurements["batch_size"]) for e in events] == [
            (1, 8),
            (2, 4),
        ]

    run(main)


def test_what_draws_a_batch_is_done_for_its_step():
    async def main():
        seen = []
        async for _ in telemetry.track(stream(2, seen)):
            pass
        assert seen == [{"step": 1}, {"step": 2}]

    run(main)


def test_the_context_is_as_it_was_after_a_break():
    async def main():
        with telemetry.context(run_id="r"):
            async for _ in telemetry.track(stream(3)):
                break
            assert here() == {"run_id": "r"}

    run(main)


def test_the_context_is_as_it_was_after_an_exception_in_the_loop():
    async def fail():
        async for _ in telemetry.track(stream(3)):
            raise KeyError

    async def main():
        with pytest.raises(KeyError):
            await fail()
        assert here() == {}

    run(main)


def test_the_context_is_as_it_was_after_a_failed_draw():
    async def failing():
        yield 1
        raise RuntimeError("disk")

    async def main():
        with pytest.raises(RuntimeError, match="disk"):
            async for _ in telemetry.track(failing()):
                pass
        assert here() == {}

    run(main)


def test_the_context_is_as_it_was_after_a_cancellation():
    async def endless():
        yield 1
        await asyncio.Event().wait()

    async def main():
        drawing = asyncio.Event()

        async def train():
            try:
                async for _ in telemetry.track(endless()):
                    drawing.set()
            finally:
                assert here() == {}

        task = asyncio.create_task(train())
        await drawing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main)


def test_a_source_with_blocks_leaves_no_step_behind_after_a_break():
    async def shard(count):
        with telemetry.context(shard=0):
            async for number in stream(count):
                yield number

    async def main():
        source = shard(3)
        async for number in telemetry.track(source, epoch=1):
            if number == 1:
                break
        assert here() == {"shard": 0}  # which the source has not been closed to take back
        await source.aclose()
        assert here() == {}

    run(main)


def test_a_task_that_outlives_its_step_keeps_it():
    async def upload(go):
        await go.wait()
        with telemetry.context(phase="upload"):
            await asyncio.sleep(0)
        return here()["step"]

    async def main():
        go = asyncio.Event()
        tasks = [asyncio.create_task(upload(go)) async for _ in telemetry.track(stream(3), epoch=1)]
        go.set()
        assert await asyncio.gather(*tasks) == [1, 2, 3]

    run(main)


def test_a_pass_that_is_dropped_late_does_not_set_back_the_next():
    class Source:
        def __init__(self):
            self.counts = iter((2, 2, 0, 2))

        def __aiter__(self):
            return stream(next(self.counts))

    async def main():
        batches = telemetry.track(Source(), epoch=1)
        first = aiter(batches)
        seen = [(batches.epoch, batches.step) async for _ in first]
        async for _ in batches:
            first = None
            seen.append((batches.epoch, batches.step))
        first = aiter(batches)
        assert [_ async for _ in first] == []
        first = None
        seen += [(batches.epoch, batches.step) async for _ in batches]
        assert seen == [(1, 1), (1, 2), (2, 3), (2, 4), (4, 5), (4, 6)]

    run(main)


def test_tasks_have_steps_of_their_own():
    async def train(epoch):
        return [here() async for _ in telemetry.track(stream(3), epoch=epoch, start=10 * epoch)]

    async def main():
        one, two = await asyncio.gather(train(1), train(2))
        assert one == [{"epoch": 1, "step": step} for step in (11, 12, 13)]
        assert two == [{"epoch": 2, "step": step} for step in (21, 22, 23)]

    run(main)


def test_after_its_end_there_is_nothing_more():
    async def main():
        batches = aiter(telemetry.track(stream(1)))
        assert await anext(batches) == 0
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(batches)
        assert here() == {}

    run(main)


def test_each_kind_of_loop_takes_what_python_takes():
    async def main():
        with pytest.raises(TypeError, match="'list' object is not an async iterable"):
            async for _ in telemetry.track([1]):
                pass
        with pytest.raises(TypeError, match="'async_generator' object is not iterable"):
            for _ in telemetry.track(stream(1)):
                pass
        assert here() == {}

    run(main)

import asyncio
import gc
import inspect

import pytest

START, STOP, EXCEPTION = (("s", last) for last in ("start", "stop", "exception"))


def parents(events):
    """``{event name without its last part: parent span's name}``."""
    spans = {e.metadata["telemetry_span_context"].span_id: e.event[:-1] for e in events}
    return {e.event[:-1]: spans.get(e.metadata["telemetry_span_context"].parent_id) for e in events}


# Generators


def talk(log=None):
    """Yields, takes what is sent, answers what is thrown, returns the last that was sent."""
    said = None
    for number in range(3):
        try:
            said = yield (number, said)
        except KeyError as error:
            said = f"caught {error}"
    return said


def drive(generator):
    """Everything a generator can be asked to do, and what it answered."""
    answers = [next(generator), generator.send("sent"), generator.throw(KeyError("thrown"))]
    try:
        generator.send("last")
    except StopIteration as end:
        answers.append(end.value)
    return answers


def test_a_generator_is_the_same_generator(bus, heard):
    wrapped = bus.span(("s",))(talk)
    assert inspect.isgeneratorfunction(wrapped)
    assert drive(wrapped()) == drive(talk())
    assert drive(talk()) == [(0, None), (1, "sent"), (2, "caught 'thrown'"), "last"]
    assert heard.names == [START, STOP]


def test_a_generator_begins_when_it_is_first_asked(bus, heard):
    generator = bus.span(("s",))(talk)()
    assert heard == []
    next(generator)
    assert heard.names == [START]
    generator.close()


def test_a_generator_delegated_to_gives_its_return_value(bus, heard):
    wrapped = bus.span(("s",))(talk)

    def outer():
        return (yield from wrapped())

    assert drive(outer()) == drive(talk())


@pytest.mark.parametrize("how", ["close", "garbage", "break"])
def test_a_generator_closed_early_has_stopped(bus, heard, how):
    cleaned = []

    @bus.span(("s",))
    def steps():
        try:
            yield 1
            yield 2
        finally:
            cleaned.append(how)

    generator = steps()
    next(generator)
    if how == "close":
        generator.close()
        generator.close()
    elif how == "garbage":
        del generator
        gc.collect()
    else:
        for _ in steps():
            break
        gc.collect()
        generator.close()
    assert set(heard.names) == {START, STOP}
    assert heard.names.count(START) == heard.names.count(STOP) == len(cleaned)


def test_a_generator_never_asked_has_no_span(bus, heard):
    bus.span(("s",))(talk)().close()
    assert heard == []


def test_a_generator_that_raises_has_failed(bus, heard):
    @bus.span(("s",))
    def steps():
        yield 1
        raise ValueError("x")

    generator = steps()
    next(generator)
    with pytest.raises(ValueError, match="x"):
        next(generator)
    assert heard.names == [START, EXCEPTION]
    with pytest.raises(StopIteration):
        next(generator)


def test_what_is_thrown_in_and_not_caught_comes_out_and_has_failed(bus, heard):
    generator = bus.span(("s",))(talk)()
    next(generator)
    error = OSError("thrown")
    with pytest.raises(OSError, match="thrown") as caught:
        generator.throw(error)
    assert caught.value is error
    assert heard.names == [START, EXCEPTION]
    assert heard[1].metadata["reason"] is error


def test_a_generator_that_fails_while_it_is_closed_has_failed(bus, heard):
    @bus.span(("s",))
    def steps():
        try:
            yield 1
        finally:
            raise ValueError("cleaning up")

    generator = steps()
    next(generator)
    with pytest.raises(ValueError, match="cleaning up"):
        generator.close()
    assert heard.names == [START, EXCEPTION]


def test_a_generator_that_will_not_close_has_failed(bus, heard):
    @bus.span(("s",))
    def steps():
        try:
            yield 1
        except GeneratorExit:
            yield 2

    generator = steps()
    next(generator)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        generator.close()
    assert heard.names == [START, EXCEPTION]


def test_the_consumer_of_a_generator_is_not_inside_its_span(bus, heard):
    @bus.span(("s",))
    def steps():
        for _ in range(2):
            with bus.span(("inner",)):
                pass
            yield

    with bus.span(("root",)):
        for _ in steps():
            with bus.span(("consumer",)):
                pass
    assert parents(heard) == {
        ("root",): None,
        ("s",): ("root",),
        ("inner",): ("s",),
        ("consumer",): ("root",),
    }


def test_an_unheard_generator_still_nests_what_is_in_it(bus, recorder):
    bus.attach("h", ("heard", "**"), recorder)

    @bus.span(("unheard",))
    def steps():
        with bus.span(("heard", "inner")):
            yield 1

    with bus.span(("heard", "root")):
        assert list(steps()) == [1]
    assert parents(recorder)["heard", "inner"] == ("heard", "root")


# Asynchronous generators


async def talk_async():
    said = None
    for number in range(3):
        try:
            said = yield (number, said)
        except KeyError as error:
            said = f"caught {error}"
        await asyncio.sleep(0)


async def drive_async(generator):
    answers = [
        await anext(generator),
        await generator.asend("sent"),
        await generator.athrow(KeyError("thrown")),
    ]
    with pytest.raises(StopAsyncIteration):
        await generator.asend("last")
    return answers


def test_an_async_generator_is_the_same_generator(bus, heard):
    wrapped = bus.span(("s",))(talk_async)
    assert inspect.isasyncgenfunction(wrapped)
    assert asyncio.run(drive_async(wrapped())) == asyncio.run(drive_async(talk_async()))
    assert heard.names == [START, STOP]


def test_an_async_generator_closed_early_has_stopped(bus, heard):
    cleaned = []

    @bus.span(("s",))
    async def steps():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    async def main():
        generator = steps()
        await anext(generator)
        await generator.aclose()
        await generator.aclose()

    asyncio.run(main())
    assert heard.names == [START, STOP]
    assert cleaned == [True]


def test_an_async_generator_left_by_a_break_has_stopped_once_the_loop_closes_it(bus, heard):
    wrapped = bus.span(("s",))(talk_async)

    async def main():
        closed = asyncio.Event()
        bus.attach("closed", STOP, lambda *_: closed.set())
        async for _ in wrapped():
            break
        await closed.wait()

    asyncio.run(main())
    assert heard.names == [START, STOP]


def test_an_async_generator_that_raises_has_failed(bus, heard):
    @bus.span(("s",))
    async def steps():
        yield 1
        raise ValueError("x")

    async def main():
        return [item async for item in steps()]

    with pytest.raises(ValueError, match="x"):
        asyncio.run(main())
    assert heard.names == [START, EXCEPTION]


def test_an_async_generator_thrown_into_or_failing_to_close_has_failed(bus, heard):
    @bus.span(("s",))
    async def steps():
        try:
            yield 1
        except GeneratorExit:
            raise ValueError("cleaning up") from None

    async def main():
        generator = steps()
        await anext(generator)
        with pytest.raises(OSError, match="thrown"):
            await generator.athrow(OSError("thrown"))
        generator = steps()
        await anext(generator)
        with pytest.raises(ValueError, match="cleaning up"):
            await generator.aclose()

    asyncio.run(main())
    assert heard.names == [START, EXCEPTION] * 2


def test_a_cancelled_async_generator_exits(bus, heard):
    @bus.span(("s",))
    async def steps():
        await asyncio.get_running_loop().create_future()
        yield 1

    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(steps())

    asyncio.run(main())
    assert heard.names == [START, EXCEPTION]
    assert heard[1].metadata["kind"] == "exit"


def test_the_consumer_of_an_async_generator_is_not_inside_its_span(bus, heard):
    @bus.span(("s",))
    async def steps():
        for _ in range(2):
            async with bus.span(("inner",)):
                await asyncio.sleep(0)
            yield

    async def main():
        async with bus.span(("root",)):
            async for _ in steps():
                with bus.span(("consumer",)):
                    pass

    asyncio.run(main())
    assert parents(heard) == {
        ("root",): None,
        ("s",): ("root",),
        ("inner",): ("s",),
        ("consumer",): ("root",),
    }

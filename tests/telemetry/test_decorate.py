import asyncio
import inspect

import pytest

START, STOP, EXCEPTION = (("s", last) for last in ("start", "stop", "exception"))


def test_each_call_of_a_function_is_a_span(bus, heard):
    @bus.span(("s",), {"m": 1})
    def double(x, *, y=0):
        """Twice."""
        return 2 * x + y

    assert [double(3), double(3, y=1)] == [6, 7]
    assert heard.names == [START, STOP] * 2
    assert len({e.metadata["telemetry_span_context"] for e in heard}) == 2
    assert all(e.metadata["m"] == 1 for e in heard)
    assert (double.__name__, double.__doc__) == ("double", "Twice.")
    assert list(inspect.signature(double).parameters) == ["x", "y"]


def test_a_functions_exception_goes_on(bus, heard):
    @bus.span(("s",))
    def fail():
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        fail()
    assert heard.names == [START, EXCEPTION]
    assert heard[1].metadata["stacktrace"][-1].name == "fail"


def test_methods_static_and_class_methods(bus, heard):
    class Model:
        size = 3

        @bus.span(("s",))
        def method(self):
            return self.size

        @staticmethod
        @bus.span(("s",))
        def static(x):
            return x

        @classmethod
        @bus.span(("s",))
        def of_class(cls):
            return cls.size

    assert (Model().method(), Model.static(1), Model.of_class()) == (3, 1, 3)
    assert heard.names == [START, STOP] * 3


def test_recursion_nests(bus, heard):
    @bus.span(("s",))
    def down(n):
        return n and down(n - 1)

    down(2)
    contexts = [e.metadata["telemetry_span_context"] for e in heard[:3]]
    assert [c.parent_id for c in contexts] == [None, contexts[0].span_id, contexts[1].span_id]
    assert heard.names == [START] * 3 + [STOP] * 3


@pytest.mark.parametrize("thing", [int, 3, None], ids=["class", "3", "None"])
def test_what_is_no_function_is_refused(bus, thing):
    with pytest.raises(TypeError) as caught:
        bus.span(("s",))(thing)
    assert str(caught.value) == (
        "A span can decorate functions, coroutine functions and generator functions, "
        f"got {thing!r} ({type(thing).__name__})."
    )


def function(x):
    return x


async def coroutine(x):
    return x


def generator(x):
    yield x


async def async_generator(x):
    yield x


async def first_of(iterator):
    return await anext(iterator)


@pytest.mark.parametrize(
    ("decorated", "run"),
    [
        (function, lambda call: call()),
        (coroutine, lambda call: asyncio.run(call())),
        (generator, lambda call: list(call())),
        (async_generator, lambda call: asyncio.run(first_of(call()))),
    ],
    ids=["function", "coroutine", "generator", "async generator"],
)
def test_arguments_that_do_not_fit_leave_no_open_span(bus, heard, decorated, run):
    wrapped = bus.span(("s",))(decorated)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        run(wrapped)
    assert heard.names.count(START) == heard.names.count(EXCEPTION)
    assert STOP not in heard.names


def test_each_await_of_a_coroutine_function_is_a_span(bus, heard):
    @bus.span(("s",))
    async def work(x):
        await asyncio.sleep(0)
        return x

    assert inspect.iscoroutinefunction(work)

    async def main():
        made = work(1)
        assert heard == []  # nothing runs before it is awaited
        return await made, await asyncio.gather(work(2), work(3))

    assert asyncio.run(main()) == (1, [2, 3])
    assert sorted(heard.names) == sorted([START, STOP] * 3)
    assert {e.metadata["telemetry_span_context"].parent_id for e in heard} == {None}


def test_a_cancelled_coroutine_exits(bus, heard):
    @bus.span(("s",))
    async def work():
        await asyncio.get_running_loop().create_future()

    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(work(), 0.01)

    asyncio.run(main())
    assert heard.names == [START, EXCEPTION]
    assert heard[1].metadata["kind"] == "exit"


def test_static_and_class_methods_stay_what_they_are(bus, heard):
    class Loader:
        @bus.span(("s",))
        @staticmethod
        def add(a, b):
            return a + b

        @bus.span(("s",))
        @classmethod
        def name(cls):
            return cls.__name__

    assert (Loader.add(1, 2), Loader().add(1, 2), Loader().name()) == (3, 3, "Loader")
    assert heard.names == [START, STOP] * 3


def test_the_span_of_an_object_with_an_async_call_ends_with_its_work(bus, heard):
    class Load:
        async def __call__(self):
            bus.execute(("inside",), {})

    asyncio.run(bus.span(("s",))(Load())())
    assert heard.names == [START, ("inside",), STOP]

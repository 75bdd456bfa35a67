"""What `attach` refuses, with the whole text."""

import functools

import pytest

from telemetry import HandlerExistsError, HandlerNotFoundError, Registry


def no_arguments():
    pass


def three(event, measurements, metadata):
    pass


def five(event, measurements, metadata, config, more):
    pass


def needs_keyword(event, measurements, metadata, config, *, flush):
    pass


async def coroutine(event, measurements, metadata, config):
    pass


async def async_generator(event, measurements, metadata, config):
    yield


def generator(event, measurements, metadata, config):
    yield


class Awaited:
    async def __call__(self, event, measurements, metadata, config):
        pass


class Sink:
    def method(self, event, measurements, metadata, config):
        pass

    def short(self, event, measurements):
        pass

    @staticmethod
    def static(event, measurements, metadata, config):
        pass

    @classmethod
    def of_class(cls, event, measurements, metadata, config):
        pass

    def __call__(self, *event):
        pass


@pytest.mark.parametrize(
    ("function", "signature", "mismatch"),
    [
        (no_arguments, "()", "too many positional arguments"),
        (three, "(event, measurements, metadata)", "too many positional arguments"),
        (
            five,
            "(event, measurements, metadata, config, more)",
            "missing a required argument: 'more'",
        ),
        (
            needs_keyword,
            "(event, measurements, metadata, config, *, flush)",
            "missing a required argument: 'flush'",
        ),
        (Sink().short, "(event, measurements)", "too many positional arguments"),
        ([].append, "(object, /)", "too many positional arguments"),
    ],
)
def test_a_function_of_the_wrong_arity_is_refused(bus, function, signature, mismatch):
    with pytest.raises(TypeError) as caught:
        bus.attach("h", ("a",), function)
    assert str(caught.value) == (
        f"Handler 'h' is {function!r} with signature {signature}, which cannot take "
        f"the four arguments (event, measurements, metadata, config): {mismatch}."
    )
    assert bus.list_handlers() == []


@pytest.mark.parametrize(
    "function",
    [coroutine, async_generator, generator, Awaited(), functools.partial(coroutine)],
    ids=["coroutine", "async generator", "generator", "async __call__", "partial"],
)
def test_a_function_whose_body_would_not_run_is_refused(bus, function):
    with pytest.raises(TypeError) as caught:
        bus.attach("h", ("a",), function)
    assert str(caught.value) == (
        f"Handler 'h' is {function!r}, whose body would not run when it is called. "
        "Handlers are called in the emitter's thread and not awaited: give a plain function."
    )


@pytest.mark.parametrize("function", [None, "print", 3, object()], ids=type)
def test_what_cannot_be_called_is_refused(bus, function):
    with pytest.raises(TypeError) as caught:
        bus.attach("h", ("a",), function)
    assert str(caught.value) == (
        f"Handler 'h' must be a function, got {function!r} ({type(function).__name__}). "
        "It is called as function(event, measurements, metadata, config)."
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda *event: None,
        lambda event, measurements, metadata, config=None: None,
        lambda event, measurements, metadata, config, more=0, **rest: None,
        functools.partial(five, more=1),
        Sink().method,
        Sink.static,
        Sink.of_class,
        Sink(),
        print,
        dict,  # a builtin that does not tell its signature
    ],
)
def test_whatever_takes_four_positional_arguments_is_accepted(bus, function):
    assert bus.attach("h", ("a",), function).active


def test_a_taken_id_is_refused_and_the_first_handler_stays(bus, recorder, new_recorder):
    bus.attach("h", ("a",), recorder)
    newcomer = new_recorder()
    with pytest.raises(HandlerExistsError) as caught:
        bus.attach_many("h", [("b",), ("a",)], newcomer)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == (
        "Handler id 'h' is already attached. "
        "Choose another id, or detach it first: telemetry.detach('h')."
    )
    bus.execute(("a",), {})
    bus.execute(("b",), {})
    assert recorder.names == [("a",)]
    assert newcomer == []


def test_an_unknown_id_is_named_with_the_known_ones(bus, recorder):
    with pytest.raises(HandlerNotFoundError) as caught:
        bus.detach("h")
    assert isinstance(caught.value, LookupError)
    assert str(caught.value) == "No handler with id 'h' is attached. Attached ids: none."
    bus.attach("console", ("a",), recorder)
    bus.attach(("jsonl", 1), ("a",), recorder)
    with pytest.raises(HandlerNotFoundError) as caught:
        bus.detach("h")
    assert str(caught.value) == (
        "No handler with id 'h' is attached. Attached ids: 'console', ('jsonl', 1)."
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda bus: bus.attach(["h"], ("a",), print),
        lambda bus: bus.attach_many(["h"], [("a",)], print),
        lambda bus: bus.detach(["h"]),
        lambda bus: bus.detach(["h"], missing_ok=True),
    ],
)
def test_an_unhashable_id_is_refused(bus, call):
    with pytest.raises(TypeError) as caught:
        call(bus)
    assert str(caught.value) == "Handler id must be hashable, got ['h'] (list). Use a string."


@pytest.mark.parametrize("policy", ["ignore", None, True, ["keep"]], ids=repr)
def test_an_unknown_policy_is_refused(bus, policy):
    with pytest.raises(ValueError, match="on_failure") as caught:
        bus.attach("h", ("a",), print, on_failure=policy)
    assert str(caught.value) == f"on_failure must be one of ('detach', 'keep'), got {policy!r}."
    assert bus.list_handlers() == []


@pytest.mark.parametrize(
    ("events", "error", "text"),
    [
        (
            "training.step",
            TypeError,
            (
                "Events must be a list of tuples of strings, got 'training.step' (str). "
                "Write [('training', 'step')]."
            ),
        ),
        (
            7,
            TypeError,
            (
                "Events must be a list of tuples of strings, got 7 (int). "
                "Write [('training', 'step')]."
            ),
        ),
        (
            ("training", "step"),
            TypeError,
            (
                "Events must be a list of tuples of strings, got the single event "
                "('training', 'step'). Write [('training', 'step')], or use attach()."
            ),
        ),
        (
            [],
            ValueError,
            (
                "Events must not be empty: the handler would never be called. "
                "Write [telemetry.ALL] to hear everything."
            ),
        ),
        (
            ["training"],
            TypeError,
            "Event pattern must be a tuple of strings, got 'training' (str). Write ('training',).",
        ),
    ],
    ids=repr,
)
def test_bad_lists_of_events_are_refused(bus, events, error, text):
    with pytest.raises(error) as caught:
        bus.attach_many("h", events, print)
    assert str(caught.value) == text
    assert bus.list_handlers() == []


def test_what_is_refused_leaves_the_others_attached(bus, recorder):
    bus.attach("good", ("a",), recorder)
    for attempt in (
        lambda: bus.attach("h", ["a"], print),
        lambda: bus.attach("h", ("a",), three),
        lambda: bus.attach("good", ("a",), print),
    ):
        with pytest.raises((TypeError, ValueError)):
            attempt()
    bus.execute(("a",), {"n": 1})
    assert [e.measurements for e in recorder] == [{"n": 1}]


@pytest.mark.parametrize(
    "measurements", [3, None, [("loss", 1)], ("loss", 1), {"loss"}, "loss"], ids=repr
)
def test_measurements_that_are_no_mapping_are_refused_when_somebody_listens(
    bus, recorder, measurements
):
    bus.execute(("a",), measurements)  # nobody listens: not looked at
    bus.attach("h", ("a",), recorder)
    with pytest.raises(TypeError) as caught:
        bus.execute(("a",), measurements)
    assert str(caught.value) == (
        f"Measurements of event ('a',) must be a mapping, got {measurements!r} "
        f"({type(measurements).__name__}). Write {{'name': value}}."
    )
    assert recorder == []
    assert bus.list_handlers() != []


@pytest.mark.parametrize("metadata", [3, "", [("loss", 1)]], ids=repr)
def test_metadata_of_a_span_that_are_no_mapping_are_refused(metadata):
    with pytest.raises(TypeError) as caught:
        Registry().span(("a",), metadata)
    assert str(caught.value) == (
        f"Metadata of span ('a',) must be a mapping, got {metadata!r} "
        f"({type(metadata).__name__}). Write {{'name': value}}."
    )


def test_the_signature_that_counts_is_the_one_that_is_called(bus):
    def handler(session, event, measurements, metadata, config): ...

    @functools.wraps(handler)
    def with_session(event, measurements, metadata, config): ...

    bus.attach("fine", ("a",), with_session)

    @functools.wraps(with_session)
    def with_too_few(event, measurements, metadata): ...

    with pytest.raises(TypeError, match="cannot take the four arguments"):
        bus.attach("bad", ("a",), with_too_few)


def test_an_id_that_cannot_be_hashed_is_refused_at_any_depth(bus, recorder):
    with pytest.raises(TypeError) as caught:
        bus.attach(("a", []), ("a",), recorder)
    assert str(caught.value) == "Handler id must be hashable, got ('a', []) (tuple). Use a string."


@pytest.mark.parametrize(
    ("method", "what"), [("measure", "Measurements"), ("annotate", "Metadata")]
)
def test_what_is_added_to_a_span_must_be_a_mapping(bus, method, what):
    with bus.span(("a",)) as span, pytest.raises(TypeError) as caught:
        getattr(span, method)(3)
    assert str(caught.value) == (
        f"{what} of span ('a',) must be a mapping, got 3 (int). Write {{'name': value}}."
    )

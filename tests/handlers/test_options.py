import functools

import pytest

import handlers

COMMON = (
    "id, events, where, every, sample, ranks, background, queue_size, overflow, flush_timeout, "
    "on_failure, registry"
)
STEP = ("training", "step")


def refused(error, text, *arguments, **options):
    with pytest.raises(error) as caught:
        handlers.attach(*arguments, **options)
    assert type(caught.value) is error
    assert str(caught.value) == text
    return caught.value


def test_an_unknown_option_names_the_allowed_and_the_nearest(tmp_path):
    refused(
        TypeError,
        "Handler 'jsonl' has no option 'pth'. Its options: path; those of all handlers: "
        f"{COMMON}. Did you mean 'path'?",
        "jsonl",
        pth=tmp_path / "m.jsonl",
    )
    refused(
        TypeError,
        "Handler 'memory' has no option 'evry'. Its options: maxlen; those of all handlers: "
        f"{COMMON}. Did you mean 'every'?",
        "memory",
        evry=3,
    )


def test_a_missing_option():
    refused(
        TypeError,
        "Handler 'jsonl' needs the option 'path'. Write handlers.attach('jsonl', path=...).",
        "jsonl",
    )


@pytest.mark.parametrize(
    ("option", "error", "text"),
    [
        ({"every": 0}, ValueError, "every must be 1 or more, got 0."),
        (
            {"every": 1.5},
            TypeError,
            "every must be an integer, got 1.5 (float). Allowed: 1 or more.",
        ),
        (
            {"every": True},
            TypeError,
            "every must be an integer, got True (bool). Allowed: 1 or more.",
        ),
        ({"sample": 0}, ValueError, "sample must be more than 0 and at most 1, got 0."),
        ({"sample": 1.5}, ValueError, "sample must be more than 0 and at most 1, got 1.5."),
        (
            {"sample": float("nan")},
            ValueError,
            "sample must be more than 0 and at most 1, got nan.",
        ),
        (
            {"sample": "x"},
            TypeError,
            "sample must be a number, got 'x' (str). Allowed: more than 0, at most 1.",
        ),
        ({"ranks": 1}, ValueError, "ranks must be one of ('zero', 'all'), got 1."),
        (
            {"background": 1},
            TypeError,
            "background must be None (the handler's own choice), True or False, got 1 (int).",
        ),
        ({"queue_size": 0}, ValueError, "queue_size must be 1 or more, got 0."),
        (
            {"overflow": "drop"},
            ValueError,
            "overflow must be one of ('drop_oldest', 'drop_newest', 'block'), got 'drop'.",
        ),
        (
            {"flush_timeout": -1},
            ValueError,
            "flush_timeout must be a finite number of seconds, 0 or more, got -1.",
        ),
        (
            {"flush_timeout": None},
            TypeError,
            "flush_timeout must be a number of seconds, got None (NoneType).",
        ),
        (
            {"on_failure": "ignore"},
            ValueError,
            "on_failure must be one of ('detach', 'keep'), got 'ignore'.",
        ),
        (
            {"where": 3},
            TypeError,
            "where must be a plain function where(event, measurements, metadata), got 3 (int).",
        ),
        (
            {"events": 3},
            TypeError,
            (
                "events must be a pattern or a list of patterns, got 3 (int). Write "
                "[('training', 'step')]."
            ),
        ),
        (
            {"events": "training.step"},
            TypeError,
            (
                "events must be a pattern or a list of patterns, got 'training.step' (str). "
                "Write [('training', 'step')]."
            ),
        ),
        (
            {"path": 3},
            TypeError,
            (
                "Handler 'jsonl': path must be a string or an os.PathLike, got 3 (int). Write "
                "path='runs/metrics.jsonl'."
            ),
        ),
        (
            {"path": ""},
            ValueError,
            "Handler 'jsonl': path must name a file, got ''. Write path='runs/metrics.jsonl'.",
        ),
        (
            {"path": "a\0b"},
            ValueError,
            (
                "Handler 'jsonl': path must name a file, got 'a\\x00b'. Write "
                "path='runs/metrics.jsonl'."
            ),
        ),
    ],
    ids=repr,
)
def test_a_wrong_value_is_refused_before_anything_is_opened(tmp_path, bus, option, error, text):
    refused(
        error, text, "jsonl", **{"path": tmp_path / "new" / "m.jsonl", "registry": bus, **option}
    )
    assert list(tmp_path.iterdir()) == []
    assert bus.list_handlers() == []


@pytest.mark.parametrize("events", [[], [()], [("a.b",)], [("**", "a")], ["a"], [["a"]], ()])
def test_bad_events_are_refused_before_anything_is_opened(tmp_path, bus, events):
    with pytest.raises((TypeError, ValueError)):
        handlers.attach("jsonl", path=tmp_path / "m.jsonl", events=events, registry=bus)
    assert list(tmp_path.iterdir()) == []


def test_a_where_that_does_not_take_three_arguments(bus):
    def wants(measurements):
        return True

    refused(
        TypeError,
        f"where is {wants!r} with signature (measurements), which cannot take the three "
        "arguments (event, measurements, metadata): too many positional arguments.",
        "memory",
        where=wants,
        registry=bus,
    )
    handlers.attach("memory", where=functools.partial(wants_all, 1), registry=bus)
    handlers.attach("memory", id="builtin", where=max, registry=bus)


def wants_all(_one, _event, _measurements, _metadata):
    return True


# what a factory makes


class Sink:
    """A sink that notes its end."""

    closed = False

    def __call__(self, event, measurements, metadata, config):
        pass

    def close(self):
        type(self).closed = True


@pytest.fixture
def attach_made(bus, gated, monkeypatch):
    """Attach a handler whose factory makes this, behind a filter and a worker."""
    import gated_sinks

    def attach_made(made):
        monkeypatch.setattr(gated_sinks, "create", lambda site: made)
        refuse = {"id": "other", "every": 2, "background": True, "registry": bus}
        with pytest.raises((TypeError, ValueError)) as caught:
            handlers.attach("gated", **refuse)
        assert bus.list_handlers() == []
        return caught.value

    return attach_made


@pytest.mark.parametrize("made", [None, 3])
def test_a_factory_that_makes_nothing_to_call(attach_made, made):
    error = attach_made(made)
    assert type(error) is TypeError
    assert str(error) == (
        f"The factory of handler 'gated' made {made!r} ({type(made).__name__}), which cannot be "
        "called. It must return a sink(event, measurements, metadata, config)."
    )


def test_a_sink_that_takes_other_arguments_is_refused_and_closed(attach_made):
    class Narrow(Sink):
        def __call__(self, event, measurements):
            pass

    made = Narrow()
    error = attach_made(made)
    assert type(error) is TypeError
    assert str(error) == (
        f"Handler 'gated' is {made!r} with signature (event, measurements), which cannot take the "
        "four arguments (event, measurements, metadata, config): too many positional arguments."
    )
    assert Narrow.closed


def test_a_sink_that_would_have_to_be_awaited(attach_made):
    class Async(Sink):
        async def __call__(self, event, measurements, metadata, config):
            pass

    made = Async()
    error = attach_made(made)
    assert type(error) is TypeError
    assert str(error) == (
        f"Handler 'gated' is {made!r}, whose body would not run when it is called. "
        "Handlers are called in the emitter's thread and not awaited: give a plain function."
    )


def test_what_an_eager_sink_delivers_with_is_looked_at_too(attach_made):
    class Wrong(Sink):
        defer = None

        def deliver(self, event):
            pass

    error = attach_made(Wrong())
    assert type(error) is TypeError
    assert "with signature (event), which cannot take the four arguments" in str(error)


def test_a_delivery_that_does_not_exist(attach_made):
    class Odd(Sink):
        delivery = "later"

    error = attach_made(Odd())
    assert type(error) is ValueError
    assert str(error) == (
        "delivery of handler 'gated' must be one of "
        "('direct', 'eager', 'ordered', 'background'), got 'later'."
    )
    assert Odd.closed

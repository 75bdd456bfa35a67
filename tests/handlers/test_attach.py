import functools
import json
import re

import pytest

import handlers
import telemetry
from telemetry import HandlerExistsError, ShadowedPackageError

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


def test_the_id_is_the_name_unless_another_is_given(bus):
    assert handlers.attach("memory", registry=bus).id == "memory"
    assert handlers.attach("memory", id=("m", 2), registry=bus).id == ("m", 2)
    assert [info.id for info in bus.list_handlers()] == ["memory", ("m", 2)]


def test_everything_is_heard_by_default_on_the_default_bus():
    with handlers.attach("memory") as memory:
        telemetry.execute(STEP, {"loss": 2.5}, {"step": 1})
        telemetry.execute(("any",), {})
        assert telemetry.list_handlers()[0].event == telemetry.ALL
    telemetry.execute(STEP, {"loss": 2.5}, {"step": 2})
    assert memory.handler.events == [(STEP, {"loss": 2.5}, {"step": 1}), (("any",), {}, {})]


@pytest.mark.parametrize(
    "events",
    [STEP, [STEP], (STEP,), iter([STEP]), ("training", "*"), [("training", "**"), STEP]],
    ids=repr,
)
def test_events_are_one_pattern_or_several(bus, events):
    memory = handlers.attach("memory", events=events, registry=bus)
    bus.execute(STEP, {})
    bus.execute(("other",), {})
    assert [event.event for event in memory.handler.events] == [STEP]


def test_detaching_by_id_by_attachment_and_by_leaving_are_the_same(bus):
    memory = handlers.attach("memory", registry=bus)
    assert memory.active
    bus.detach("memory")
    assert not memory.active
    memory.detach()
    with handlers.attach("memory", registry=bus) as second:
        memory.detach()
        assert second.active
    assert bus.list_handlers() == []


# names


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    refused(
        ValueError,
        "Unknown handler 'jsnl'. Known handlers: console, jsonl, memory. Did you mean 'jsonl'?",
        "jsnl",
    )
    refused(ValueError, "Unknown handler 'xyz'. Known handlers: console, jsonl, memory.", "xyz")


def test_the_name_of_an_extra_comes_with_the_command_that_installs_it():
    refused(
        ValueError,
        "Unknown handler 'no-such'. Known handlers: console, jsonl, memory.",
        "no-such",
    )
    missing = [name for name in ("wandb", "redis") if name not in handlers.lookup.known_names()]
    for name in missing:
        with pytest.raises(ValueError, match=re.escape(f"pip install -U 'trainbus[{name}]'")):
            handlers.attach(name)


def test_a_name_that_is_no_string():
    refused(
        TypeError,
        "Handler name must be a string, got 3 (int). "
        "For a function of your own, use telemetry.attach().",
        3,
    )


def test_a_handler_of_another_distribution(bus, gated):
    attachment = handlers.attach("gated", registry=bus, events=STEP)
    assert isinstance(attachment.handler, gated)
    site = attachment.handler.site
    assert (site.handler_id, site.registry, site.events, site.ranks) == (
        "gated",
        bus,
        (STEP,),
        "zero",
    )


def test_a_name_that_two_distributions_register(install):
    install("one", twice="one:create")
    install("two", twice="two:create")
    with pytest.raises(ValueError, match="twice") as caught:
        handlers.attach("twice")
    assert str(caught.value) in {
        "Handler name 'twice' is registered by several distributions: "
        f"{first} ({first}:create), {second} ({second}:create). Uninstall all but one of them."
        for first, second in (("one", "two"), ("two", "one"))
    }


def test_a_file_that_hides_the_module_of_a_handler(install, monkeypatch, tmp_path):
    install("theirs", hidden="hidden_sinks.sub:create", lost="hidden_sinks:create")
    (tmp_path / "site" / "hidden_sinks.py").write_text("")
    for name, value in (("hidden", "hidden_sinks.sub:create"), ("lost", "hidden_sinks:create")):
        refused(
            ShadowedPackageError,
            f"Handler {name!r} is {value} of the distribution theirs, but it is not in what was "
            f"imported: <module 'hidden_sinks' from '{tmp_path}/site/hidden_sinks.py'>. A file or "
            "folder of that name hides it: rename that, or start Python from another directory.",
            name,
        )


def test_a_handler_whose_own_import_is_missing_says_so(install, tmp_path):
    install("theirs", needy="needy_sinks:create")
    (tmp_path / "site" / "needy_sinks.py").write_text("import a_module_that_is_not_there")
    with pytest.raises(ModuleNotFoundError, match="'a_module_that_is_not_there'"):
        handlers.attach("needy")


def test_an_entry_that_is_no_function(install, tmp_path):
    install("theirs", wrong="wrong_sinks:create")
    (tmp_path / "site" / "wrong_sinks.py").write_text("create = 3")
    refused(
        TypeError,
        "Handler 'wrong' of the distribution theirs is wrong_sinks:create, which is 3. "
        "It must be a function create(site, *, option, ...).",
        "wrong",
    )


# options


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


def test_a_taken_id_is_found_before_a_file_is_made(tmp_path, bus):
    bus.attach("jsonl", STEP, lambda *event: None)
    refused(
        HandlerExistsError,
        "Handler id 'jsonl' is already attached. Choose another with id=..., or detach it first: "
        "telemetry.detach('jsonl').",
        "jsonl",
        path=tmp_path / "m.jsonl",
        registry=bus,
    )
    assert list(tmp_path.iterdir()) == []


def test_an_id_taken_while_the_sink_is_built_closes_the_sink(bus, gated, monkeypatch):
    built = []

    def create(site):
        bus.attach("gated", STEP, lambda *event: None)
        built.append(gated(site))
        return built[0]

    import gated_sinks

    monkeypatch.setattr(gated_sinks, "create", create)
    with pytest.raises(HandlerExistsError):
        handlers.attach("gated", registry=bus)
    assert built[0].closed.is_set()


# paths that cannot be written


def test_a_directory_as_path(tmp_path, bus):
    refused(
        IsADirectoryError,
        f"[Errno 21] Handler 'jsonl' cannot write '{tmp_path}': Is a directory. "
        "Give a file that can be written: path='runs/metrics.jsonl'.",
        "jsonl",
        path=tmp_path,
        registry=bus,
    )
    assert bus.list_handlers() == []


def test_a_directory_that_cannot_be_made(tmp_path, bus):
    (tmp_path / "file").write_text("")
    for suffix in ("", ".gz"):
        path = tmp_path / "file" / f"m.jsonl{suffix}"
        with pytest.raises(OSError, match=r"Not a directory|File exists") as caught:
            handlers.attach("jsonl", path=path, registry=bus)
        assert str(path) in str(caught.value)


# failures


def test_a_failing_handler_is_detached_and_closed(bus, gated, caplog):
    attachment = handlers.attach("gated", registry=bus, background=False)
    attachment.handler.error = OSError("gone")
    bus.execute(STEP, {})
    assert not attachment.active
    assert attachment.handler.closed.is_set()
    assert "Handler 'gated' failed on event training.step and was detached" in caplog.text


def test_a_failing_handler_that_is_kept_stays_open(bus, gated):
    attachment = handlers.attach("gated", registry=bus, background=False, on_failure="keep")
    attachment.handler.error = OSError("gone")
    bus.execute(STEP, {})
    attachment.handler.error = None
    bus.execute(STEP, {}, {"step": 2})
    assert attachment.active
    assert attachment.handler.steps == [2]
    assert not attachment.handler.closed.is_set()


def test_fail_is_what_raising_is(bus, gated):
    attachment = handlers.attach("gated", registry=bus)
    failures = []
    bus.attach("f", ("telemetry", "handler", "failure"), lambda e, m, md, c: failures.append(md))
    attachment.fail(STEP, OSError("late"))
    assert not attachment.active
    assert attachment.handler.closed.is_set()
    assert [(f["handler_id"], f["event_name"], str(f["reason"])) for f in failures] == [
        ("gated", STEP, "late")
    ]


def test_flush_reaches_a_sink_in_the_emitters_thread(bus, gated):
    attachment = handlers.attach("gated", registry=bus, background=False)
    assert attachment.flush() is True
    assert attachment.handler.flushed == 1
    assert handlers.attach("memory", registry=bus).flush() is True


def test_a_taken_id_can_be_used_again_after_detaching(tmp_path, bus):
    for number in range(3):
        with handlers.attach("jsonl", path=tmp_path / "m.jsonl", registry=bus):
            bus.execute(STEP, {}, {"step": number})
    records = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [record["metadata"]["step"] for record in records] == [0, 1, 2]


def test_what_is_attached_says_what_it_is(bus):
    attachment = handlers.attach("memory", registry=bus)
    assert repr(attachment) == "<SinkAttachment 'memory' active>"
    attachment.detach()
    assert repr(attachment) == "<SinkAttachment 'memory' detached>"


def test_a_registry_that_is_none_is_refused():
    with pytest.raises(TypeError) as caught:
        handlers.attach("memory", registry=3)
    assert str(caught.value) == (
        "registry must be a telemetry.Registry, got 3 (int). "
        "Leave it out for the bus of the functions of telemetry."
    )

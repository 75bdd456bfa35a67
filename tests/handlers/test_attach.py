import json

import pytest

import handlers
import telemetry
from telemetry import HandlerExistsError

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
    ids=["name", "list", "tuple", "iterator", "pattern", "patterns"],
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

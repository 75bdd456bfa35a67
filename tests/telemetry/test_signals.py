import logging

import pytest

from telemetry import Registry, signals


@pytest.fixture
def heard():
    """Every signal that is sent meanwhile, as ``(name, sender, message)``."""
    seen = []

    def receiver(name):
        return lambda sender, **message: seen.append((name, sender, message))

    receivers = {name: receiver(name) for name in signals.__all__}
    for name, function in receivers.items():
        getattr(signals, name).connect(function)
    yield seen
    for name, function in receivers.items():
        getattr(signals, name).disconnect(function)


def test_attaching_and_detaching_send_the_registry_and_the_id(bus, recorder, heard):
    bus.attach("h", ("a",), recorder)
    bus.attach_many("m", [("a",), ("b",)], recorder)
    bus.detach("h")
    assert heard == [
        ("handler_attached", bus, {"handler_id": "h"}),
        ("handler_attached", bus, {"handler_id": "m"}),
        ("handler_detached", bus, {"handler_id": "h"}),
    ]


def test_nothing_is_sent_when_nothing_changes(bus, recorder, heard):
    attachment = bus.attach("h", ("a",), recorder)
    attachment.detach()
    del heard[:]
    attachment.detach()
    bus.detach("h", missing_ok=True)
    with pytest.raises(LookupError):
        bus.detach("h")
    with pytest.raises(TypeError):
        bus.attach("h", "a", recorder)
    assert heard == []


def test_an_automatic_detach_sends_detached_too(bus, heard):
    error = ValueError("bad")

    def fail(*_):
        raise error

    bus.attach("h", ("a",), fail)
    bus.execute(("a",), {})
    assert heard[1:] == [
        ("handler_detached", bus, {"handler_id": "h"}),
        ("handler_failed", bus, {"handler_id": "h", "error": error}),
    ]


def test_a_kept_handler_sends_failed_only(bus, heard):
    bus.attach("h", ("a",), lambda *_: 1 / 0, on_failure="keep")
    bus.execute(("a",), {})
    assert [name for name, _, _ in heard] == ["handler_attached", "handler_failed"]


def test_the_table_has_changed_when_a_signal_is_sent(bus, recorder):
    states = []
    attachment = bus.attach("h", ("a",), recorder)

    def receiver(sender, handler_id):
        states.append((attachment.active, sender.list_handlers()))

    with signals.handler_detached.connected_to(receiver, bus):
        attachment.detach()
    assert states == [(False, [])]


def test_receivers_can_choose_one_registry(bus, recorder):
    seen = []

    def receiver(sender, handler_id):
        seen.append(handler_id)

    with signals.handler_attached.connected_to(receiver, bus):
        Registry().attach("elsewhere", ("a",), recorder)
        bus.attach("here", ("a",), recorder)
    assert seen == ["here"]


def test_receivers_are_weakly_referenced(bus, recorder):
    seen = []

    def connect():
        def receiver(sender, handler_id):
            seen.append(handler_id)

        signals.handler_attached.connect(receiver)

    connect()
    bus.attach("h", ("a",), recorder)
    assert seen == []


def test_a_receiver_that_raises_is_logged_and_the_others_run(bus, recorder, heard, caplog):
    def bad(sender, handler_id):
        raise RuntimeError("bad receiver")

    with signals.handler_attached.connected_to(bad, bus):
        attachment = bus.attach("h", ("a",), recorder)
    assert attachment.active
    assert [name for name, _, _ in heard] == ["handler_attached"]
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.name == "telemetry"
    assert (
        record.getMessage()
        == f"Receiver {bad!r} of a telemetry signal failed: RuntimeError('bad receiver')"
    )
    assert str(record.exc_info[1]) == "bad receiver"


def test_a_receiver_may_attach_and_detach(bus, recorder):
    def receiver(sender, handler_id):
        if handler_id == "h":
            sender.attach("companion", ("a",), recorder)
            sender.detach("h")

    with signals.handler_attached.connected_to(receiver, bus):
        attachment = bus.attach("h", ("a",), recorder)
    assert not attachment.active
    assert [info.id for info in bus.list_handlers()] == ["companion"]


def test_a_muted_signal_is_not_sent(bus, recorder, heard):
    with signals.handler_attached.muted():
        bus.attach("h", ("a",), recorder)
    assert heard == []

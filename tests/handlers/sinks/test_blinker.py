"""The handler "blinker": real signals, and receivers that fail."""

import gc
import logging
from functools import partial

import blinker
import numpy as np
import pytest

import handlers
import telemetry

STEP = ("training", "step")


@pytest.fixture
def namespace():
    return blinker.Namespace()


@pytest.fixture
def attach(bus, namespace):
    return lambda **options: handlers.attach(
        "blinker", registry=bus, namespace=namespace, **options
    )


@pytest.fixture
def received():
    return []


@pytest.fixture
def receive(received):
    def receive(sender, event, measurements, metadata):
        received.append((sender, event, measurements, metadata))

    return receive


def test_a_receiver_of_any_sender_gets_the_event_as_it_was_emitted(
    attach, bus, namespace, received, receive
):
    namespace.signal("training.step").connect(receive)
    measurements, metadata = {"loss": np.float32(0.5)}, {"step": 1}
    with attach():
        bus.execute(STEP, measurements, metadata)
        bus.execute(("training", "epoch"), {}, {})
    bus.execute(STEP, {}, {})
    ((sender, event, measured, said),) = received
    assert sender is bus
    assert event == STEP
    assert measured["loss"] is measurements["loss"]
    assert said == {"step": 1}


def test_a_receiver_of_one_registry_hears_no_other(attach, bus, namespace, received, receive):
    other = telemetry.Registry()
    signal = namespace.signal("training.step")
    signal.connect(receive, sender=other)
    with attach(), handlers.attach("blinker", registry=other, namespace=namespace):
        bus.execute(STEP, {}, {"step": 1})
        other.execute(STEP, {}, {"step": 2})
    assert [metadata for _, _, _, metadata in received] == [{"step": 2}]


def test_by_default_it_is_the_namespace_of_blinker_itself(bus, received, receive):
    with (
        handlers.attach("blinker", registry=bus),
        blinker.signal("training.step").connected_to(receive),
    ):
        bus.execute(STEP, {}, {"step": 1})
    assert len(received) == 1


def test_a_receiver_that_fails_silences_no_other(
    attach, bus, namespace, received, receive, drops, caplog
):
    def broken(sender, **message):
        raise ValueError("broken receiver")

    def also_broken(sender, **message):
        raise KeyError("also")

    signal = namespace.signal("training.step")
    for receiver in (broken, receive, also_broken):
        signal.connect(receiver)
    with attach() as attachment:
        for step in range(3):
            bus.execute(STEP, {}, {"step": step})
        assert attachment.active
    assert [metadata["step"] for _, _, _, metadata in received] == [0, 1, 2]
    assert sum(count for count, _ in drops) == 6
    assert {metadata["policy"] for _, metadata in drops} == {"receiver_failed"}
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].exc_info is not None
    assert {broken, also_broken, receive} == set(signal.receivers_for(bus))


def test_a_coroutine_function_is_a_receiver_that_fails(attach, bus, namespace, drops, caplog):
    async def receiver(sender, **message):
        pass

    namespace.signal("training.step").connect(receiver)
    with attach():
        bus.execute(STEP, {}, {})
    assert sum(count for count, _ in drops) == 1
    assert "must be a plain function" in caplog.text


class Asynchronous:
    async def __call__(self, sender, **message):
        """Never awaited by blinker, nor by the handler."""


@pytest.mark.parametrize("make", [Asynchronous, lambda: partial(Asynchronous().__call__)])
def test_an_object_that_is_called_as_a_coroutine_is_a_receiver_that_fails(
    attach, bus, namespace, drops, caplog, received, receive, make
):
    receiver = make()
    signal = namespace.signal("training.step")
    signal.connect(receiver)
    signal.connect(receive)
    with attach():
        bus.execute(STEP, {}, {})
    assert sum(count for count, _ in drops) == 1
    assert "must be a plain function" in caplog.text
    assert len(received) == 1


class UnprintableError(Exception):
    def __repr__(self):
        raise RuntimeError("no repr")

    __str__ = __repr__


class Unprintable:
    def __call__(self, sender, **message):
        raise UnprintableError

    def __repr__(self):
        raise RuntimeError("no repr")


def test_a_receiver_and_an_error_without_a_repr_silence_no_other(
    attach, bus, namespace, drops, caplog, received, receive
):
    receiver = Unprintable()
    signal = namespace.signal("training.step")
    signal.connect(receiver)
    signal.connect(receive)
    with attach() as attachment:
        bus.execute(STEP, {}, {"step": 1})
        bus.execute(STEP, {}, {"step": 2})
        assert attachment.active
    assert [metadata["step"] for _, _, _, metadata in received] == [1, 2]
    assert sum(count for count, _ in drops) == 2
    assert "Receiver <unprintable Unprintable object> of signal 'training.step'" in caplog.text
    assert "<unprintable UnprintableError object>" in caplog.text


def test_receivers_are_held_weakly_as_ever(attach, bus, namespace, received):
    class Listener:
        def hear(self, sender, **message):
            received.append(message)

    listener = Listener()
    namespace.signal("training.step").connect(listener.hear)
    with attach():
        bus.execute(STEP, {}, {})
        del listener
        gc.collect()
        bus.execute(STEP, {}, {})
    assert len(received) == 1


def test_a_muted_signal_is_silent_and_an_unasked_one_is_not_made(
    attach, bus, namespace, received, receive
):
    signal = namespace.signal("training.step")
    signal.connect(receive)
    with attach():
        with signal.muted():
            bus.execute(STEP, {}, {})
        for number in range(10):
            bus.execute(("made", f"up{number}"), {}, {})
    assert received == []
    assert set(namespace) == {"training.step"}


def test_a_receiver_may_connect_disconnect_and_emit(attach, bus, namespace, received, receive):
    signal = namespace.signal("training.step")

    def once(sender, event, measurements, metadata):
        signal.disconnect(once)
        signal.connect(receive)
        bus.execute(STEP, {}, {"step": 2})

    signal.connect(once)
    with attach():
        bus.execute(STEP, {}, {"step": 1})
    assert [metadata["step"] for _, _, _, metadata in received] == [2]


def test_a_namespace_that_is_none(bus):
    with pytest.raises(TypeError) as caught:
        handlers.attach("blinker", registry=bus, namespace={})
    assert str(caught.value) == (
        "Handler 'blinker': namespace must be a blinker.Namespace, got {} (dict). "
        "Write namespace=blinker.Namespace()."
    )

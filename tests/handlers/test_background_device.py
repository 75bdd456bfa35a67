import importlib
import threading

import handlers

STEP = ("training", "step")


class Remote:
    """Makes torch tensors that say they are on an accelerator, and note who reads them."""

    def __init__(self):
        torch = importlib.import_module("torch")
        self.readers = readers = []

        class Tensor(torch.Tensor):
            @property
            def device(self):
                return torch.device("cuda")

            def tolist(self):
                readers.append(threading.current_thread())
                return self.as_subclass(torch.Tensor).tolist()

        self.make = lambda value: torch.tensor(value).as_subclass(Tensor)


def test_only_an_event_with_a_value_on_a_device_goes_to_the_worker(bus, gated):
    remote = Remote()
    gated.delivery = "ordered"
    attachment = handlers.attach("gated", registry=bus)
    gated.delivery = "background"
    bus.execute(STEP, {"loss": 0.5}, {"step": 1})
    assert attachment.handler.threads == [threading.main_thread()]
    bus.execute(STEP, {"loss": remote.make(0.25)}, {"step": 2})
    bus.execute(STEP, {"loss": 0.5}, {"step": remote.make(3)})
    assert attachment.flush()
    assert attachment.handler.events == [
        (STEP, {"loss": 0.5}, {"step": 1}),
        (STEP, {"loss": 0.25}, {"step": 2}),
        (STEP, {"loss": 0.5}, {"step": 3}),
    ]
    assert threading.main_thread() not in attachment.handler.threads[1:] + remote.readers


def test_ordered_delivery_lets_nothing_overtake(bus, gated):
    remote = Remote()
    gated.delivery = "ordered"
    attachment = handlers.attach("gated", registry=bus)
    gated.delivery = "background"
    attachment.handler.gate.clear()
    bus.execute(STEP, {"loss": remote.make(0.25)}, {"step": 1})
    bus.execute(STEP, {"loss": 0.5}, {"step": 2})
    attachment.handler.gate.set()
    assert attachment.flush()
    assert attachment.handler.steps == [1, 2]


def test_a_value_on_a_device_that_comes_after_the_close_is_read(bus, gated):
    remote = Remote()
    gated.delivery = "ordered"
    attachment = handlers.attach("gated", registry=bus)
    gated.delivery = "background"
    attachment.detach()
    attachment._worker(STEP, {"loss": remote.make(0.25)}, {"step": 1}, None)
    assert attachment.handler.events == [(STEP, {"loss": 0.25}, {"step": 1})]


def test_memory_keeps_a_tensor_as_it_is(bus):
    remote = Remote()
    memory = handlers.attach("memory", registry=bus)
    tensor = remote.make(0.25)
    bus.execute(STEP, {"loss": tensor})
    assert memory.handler.events[0].measurements["loss"] is tensor
    assert remote.readers == []

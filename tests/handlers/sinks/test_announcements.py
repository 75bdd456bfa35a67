"""What announces losses is no loss: sinks that lose everything do not keep each other going."""

import os
import time
from functools import partial
from pathlib import Path

import blinker
import pytest

import handlers
from handlers.datadog_rollup import Rollup
from telemetry.metrics import last_value

STEP = ("training", "step")
OVERFLOW = ("telemetry", "handler", "overflow")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Announce each loss at once, so that what goes on for ever goes on fast."""
    monkeypatch.setattr("handlers.losses.INTERVAL", 0.0)


def hear(_sender, **_message):
    raise ValueError("broken receiver")


@pytest.fixture
def options(receiver, monkeypatch, tmp_path):
    """Options with which a sink loses all that it is given, announcements included."""
    receiver.always = (400, {})
    namespace = blinker.Namespace()
    for event in (STEP, OVERFLOW):
        namespace.signal(".".join(event)).connect(hear)
    of_all = [
        last_value("*.*.loss", tags=["step"]),
        last_value("*.*.*.dropped", tags=["handler_id"]),
    ]
    given = {
        "webhook": {"url": f"{receiver.url}/hook"},
        "opentelemetry": {"endpoint": receiver.url, "export_interval": 0.05},
        "prometheus": {"port": 0, "max_series": 1, "metrics": of_all},
        "datadog": {"transport": "api", "api_key": "f" * 32, "api_host": receiver.url},
        "jsonl": {"path": "/dev/full"},
        "blinker": {"namespace": namespace},
        "tensorboard": {"log_dir": tmp_path / "runs"},
    }
    take = Rollup.take  # what is summed up for ten seconds is sent at once
    monkeypatch.setattr("handlers.datadog_api.Rollup.take", lambda self, now: take(self, None))
    return given


@pytest.fixture
def announced(bus):
    found = []
    bus.attach("announced", OVERFLOW, lambda e, m, metadata, c: found.append((m, metadata)))
    return found


def lost_of(announced):
    """How many events each handler has announced as lost."""
    lost = {}
    for measurements, metadata in announced:
        name = metadata["handler_id"]
        lost[name] = lost.get(name, 0) + measurements["dropped"]
    return lost


def until_it_is_quiet(announced, wait_until, least):
    """Wait until so much is announced as has to be, and then until no more is for a while."""
    wait_until(lambda: all(lost_of(announced).get(name, 0) >= n for name, n in least.items()))
    before = -1
    while before < len(announced) < 50:
        before = len(announced)
        time.sleep(0.5)


SINKS = ("webhook", "opentelemetry", "prometheus", "datadog", "jsonl", "blinker")


@pytest.mark.parametrize("sink", SINKS)
def test_two_that_lose_everything_end_quiet(bus, options, announced, wait_until, sink):
    pair = [
        handlers.attach(sink, id=f"{sink}{number}", registry=bus, **options[sink])
        for number in (1, 2)
    ]
    bus.execute(STEP, {"loss": 0.5}, {"step": 1})
    bus.execute(STEP, {"loss": 0.5}, {"step": 2})
    # Of the two events, one series has room for one in Prometheus.
    each = {"prometheus": 1, "opentelemetry": None, "datadog": None}.get(sink, 2)
    until_it_is_quiet(announced, wait_until, {f"{sink}{number}": each or 1 for number in (1, 2)})
    lost = lost_of(announced)
    for attachment in pair:
        attachment.detach()
    assert set(lost) == {f"{sink}1", f"{sink}2"}
    assert each is None or set(lost.values()) == {each}
    assert len(announced) <= 8


def test_an_event_that_an_otlp_endpoint_refuses_is_announced_once(
    bus, options, announced, wait_until
):
    attachment = handlers.attach("opentelemetry", registry=bus, **options["opentelemetry"])
    bus.execute(("my", "note"), {}, {"text": "hello"})
    until_it_is_quiet(announced, wait_until, {"opentelemetry": 1})
    attachment.detach()
    (found,) = announced
    assert found == ({"dropped": 1}, {"handler_id": "opentelemetry", "policy": "refused"})


def test_a_disk_that_is_full_for_two_is_announced_twice(
    bus, options, announced, wait_until, monkeypatch
):
    pair = [
        handlers.attach("tensorboard", id=f"board{number}", registry=bus, **options["tensorboard"])
        for number in (1, 2)
    ]
    names = tuple(str(attachment.handler.path) for attachment in pair)
    write = os.write

    def full(number, data):
        if str(Path(f"/proc/self/fd/{number}").readlink()) in names:
            raise OSError(28, "No space left on device")
        return write(number, data)

    monkeypatch.setattr("handlers.event_file.os.write", full)
    bus.execute(STEP, {"loss": 0.5}, {"step": 1})
    until_it_is_quiet(announced, wait_until, {"board1": 1, "board2": 1})
    assert sorted(metadata["handler_id"] for _, metadata in announced) == ["board1", "board2"]
    for attachment in pair:
        attachment.detach()


@pytest.mark.parametrize("sink", ["prometheus", "opentelemetry"])
def test_an_announcement_after_the_end_is_no_loss(bus, options, announced, sink):
    attachment = handlers.attach(sink, registry=bus, **options[sink])
    attachment.detach()
    attachment.handler(OVERFLOW, {"dropped": 1}, {"handler_id": "other", "policy": "x"}, None)
    assert announced == []
    attachment.handler(STEP, {"loss": 1.0}, {}, None)
    assert [metadata["policy"] for _, metadata in announced] == ["closed"]


def test_in_the_emitters_thread_an_announcement_that_nobody_takes_is_no_loss(
    bus, announced, free_port
):
    nobody = f"http://127.0.0.1:{free_port}"
    attach = partial(handlers.attach, registry=bus, background=False)
    options = {
        "webhook": {"url": f"{nobody}/hook"},
        "redis": {"url": f"redis://127.0.0.1:{free_port}/0"},
        "datadog": {"host": "127.0.0.1", "port": free_port},
        "mlflow": {"tracking_uri": nobody},
    }
    attached = [attach(sink, **given) for sink, given in options.items()]
    bus.execute(STEP, {"loss": 0.5}, {"step": 1})
    bus.execute(STEP, {"loss": 0.5}, {"step": 2})
    lost = lost_of(announced)
    assert {name: lost[name] for name in ("webhook", "redis", "mlflow")} == {
        "webhook": 2,
        "redis": 2,
        "mlflow": 2,
    }
    for attachment in attached:
        attachment.detach()

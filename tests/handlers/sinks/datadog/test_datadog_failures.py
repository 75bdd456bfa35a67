"""An agent that is not there, hangs, or comes back; forked children; late events."""

import contextlib
import os
import socket
import threading

import pytest

from handlers.datagrams import Address, DatagramSocket
from telemetry.metrics import last_value

METRICS = [last_value("my.event.x")]
EVENT = ("my", "event")


def values(lines):
    return [line.values[0] for line in lines]


def test_an_agent_that_is_down_is_announced_once_and_gets_all_when_it_is_back(
    bus, attach, free_port, caplog, wait_until
):
    handler = attach(metrics=METRICS, host="127.0.0.1", port=free_port)
    for number in range(3):
        bus.execute(EVENT, {"x": number}, {})
        assert not handler.flush(0.3)
    wait_until(lambda: "cannot reach" in caplog.text)
    assert caplog.text.count("cannot reach udp://127.0.0.1") == 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", free_port))
        bound.settimeout(30)
        assert handler.flush(60)
        lines = []
        while len(lines) < 3:
            lines += bound.recv(65536).decode().split("\n")
    handler.detach()

    assert lines == ["my.event.x:0|g", "my.event.x:1|g", "my.event.x:2|g"]
    assert f"Handler 'datadog' reaches udp://127.0.0.1:{free_port} again" in caplog.text


def test_a_socket_that_is_not_there_yet_is_waited_for(bus, attach, tmp_path, caplog, wait_until):
    path = tmp_path / "dsd.socket"
    handler = attach(metrics=METRICS, socket_path=str(path))
    bus.execute(EVENT, {"x": 1}, {})
    assert not handler.flush(0.3)
    wait_until(lambda: "cannot reach" in caplog.text)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(path))
        assert handler.flush(60)
        assert bound.recv(100) == b"my.event.x:1|g"
    assert caplog.text.count(f"cannot reach unix://{path}") == 1


def test_a_name_that_nobody_knows_does_not_fail_the_attachment(bus, attach, drops, caplog, ended):
    with attach(metrics=METRICS, host="nowhere.invalid", flush_timeout=0.2) as handler:
        bus.execute(EVENT, {"x": 1}, {})
    ended(handler)
    assert caplog.text.count("cannot reach udp://nowhere.invalid:8125") <= 1
    assert [count for count, _ in drops] == [1]


def test_an_agent_that_hangs_holds_nobody_and_what_it_missed_is_counted(
    bus, attach, unix_agent, drops
):
    handler = attach(metrics=METRICS, queue_size=50, flush_timeout=0.5, **unix_agent.address)
    bus.execute(EVENT, {"x": 0}, {})
    assert handler.flush(60)
    for number in range(1, 5000):  # more than the socket holds
        bus.execute(EVENT, {"x": number}, {})
        if number % 100 == 0:
            handler.flush(0.01)
    handler.detach()

    received = [line for each in unix_agent.datagrams() for line in each.split(b"\n")]

    lost = sum(count for count, _ in drops)
    assert 0 < lost < 5000
    assert len(received) + lost >= 5000


def test_a_full_socket_has_no_more_room_for_who_comes_again(unix_agent, monkeypatch):
    """What a sender has under way is bounded as well, and a new socket would be another sender."""
    monkeypatch.setattr("handlers.datagrams.TIMEOUT", 0.05)
    sender = DatagramSocket(Address("", 0, unix_agent.address["socket_path"]))

    def send_many():
        for _ in range(20):
            sender.send(b"x" * 8000)

    for _ in range(4):
        with pytest.raises(TimeoutError):
            send_many()
    assert len(list(unix_agent.datagrams())) < 10  # those that its socket could hold
    sender.send(b"x:1|c")
    assert values(unix_agent.read()) == [1]
    sender.close()


def fill(address):
    """Leave no room in the receiver's queue; how many datagrams that took."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling:
        filling.connect(address["socket_path"])
        filling.settimeout(0)
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while filling.send(b"filling:1|c"):
                filled += 1
    return filled


def test_what_was_given_up_is_not_sent_after_all(bus, attach, unix_agent, drops, wait_until):
    metrics = [last_value("my.event.x", tags=["long"])]
    handler = attach(metrics=metrics, flush_timeout=0.2, **unix_agent.address)
    filled = fill(unix_agent.address)
    for number in range(256):  # one batch, of several datagrams
        bus.execute(EVENT, {"x": number}, {"long": "x" * 190})
    handler.detach()
    assert sum(count for count, _ in drops) == 256
    for _ in range(filled):
        unix_agent.socket.recv(100)
    wait_until(lambda: "trainbus-datadog" not in {each.name for each in threading.enumerate()})

    assert len(list(unix_agent.datagrams())) <= 1  # the one that was being sent


def test_in_the_emitters_thread_there_is_one_attempt_and_the_rest_is_counted(
    bus, attach, free_port, drops
):
    handler = attach(metrics=METRICS, background=False, host="127.0.0.1", port=free_port)
    for number in range(100):
        bus.execute(EVENT, {"x": number}, {})
    handler.detach()

    assert sum(count for count, _ in drops) == 100
    assert {metadata["policy"] for _, metadata in drops} == {"no_connection"}


def test_a_late_event_is_delivered(bus, attach, agent):
    handler = attach(metrics=METRICS, **agent.address)
    sink = handler.handler
    handler.detach()
    sink(EVENT, {"x": 1}, {}, None)

    assert values(agent.read()) == [1]
    sink.close()


def test_a_child_sends_its_own_and_nothing_of_its_parents(bus, attach, agent, in_child):
    handler = attach(metrics=METRICS, **agent.address)
    bus.execute(EVENT, {"x": 1}, {})
    assert handler.flush()
    bus.execute(EVENT, {"x": 2}, {})  # waits in the parent

    def child():
        bus.execute(EVENT, {"x": 3}, {})
        assert handler.flush(60)

    in_child(child)
    assert handler.flush(60)

    assert sorted(values(agent.read())) == [1, 2, 3]


def test_a_child_has_a_socket_of_its_own(bus, attach, agent, in_child):
    handler = attach(metrics=METRICS, **agent.address)
    bus.execute(EVENT, {"x": 1}, {})
    assert handler.flush()

    def child():
        bus.execute(EVENT, {"x": 2}, {})
        assert handler.flush(60)

    in_child(child)

    (first, of_parent), (second, of_child) = (agent.socket.recvfrom(100) for _ in range(2))
    assert (first, second) == (b"my.event.x:1|g", b"my.event.x:2|g")
    assert of_parent != of_child


def test_a_child_of_a_thread_that_is_sending_does_not_deadlock(bus, attach, agent, in_child):
    handler = attach(metrics=METRICS, background=False, **agent.address)
    stop = threading.Event()

    def emit():
        while not stop.is_set():
            bus.execute(EVENT, {"x": 1}, {})

    emitting = threading.Thread(target=emit)
    emitting.start()
    try:
        for _ in range(20):
            in_child(lambda: [bus.execute(EVENT, {"x": 2}, {}) for _ in range(3)])
            list(agent.datagrams())
    finally:
        stop.set()
        emitting.join()
    assert handler.active


def test_a_child_sends_while_the_parent_is_held_by_a_hanging_agent(
    bus, attach, unix_agent, in_child
):
    handler = attach(metrics=METRICS, flush_timeout=0.5, **unix_agent.address)
    filled = fill(unix_agent.address)
    bus.execute(EVENT, {"x": 1}, {})
    assert not handler.flush(0.3)  # the worker waits in send(), with the sink's lock

    def child():
        for _ in range(filled):
            unix_agent.socket.recv(100)
        bus.execute(EVENT, {"x": 2}, {})
        assert handler.flush(60)

    in_child(child)
    assert handler.flush(60)

    assert sorted(values(unix_agent.read())) == [1, 2]


def test_what_waits_at_the_end_of_a_program_is_sent(agent, run_script):
    run_script(
        "import sys, handlers, telemetry\n"
        "handlers.attach('datadog', host='127.0.0.1', port=int(sys.argv[1]))\n"
        "telemetry.execute(('training', 'step'), {'loss': 2.5}, {'step': 1})\n",
        agent.address["port"],
        env={"PATH": os.environ["PATH"], "DD_ORIGIN_DETECTION_ENABLED": "false"},
    )

    assert {line.name for line in agent.read()} == {"training.step", "training.loss"}

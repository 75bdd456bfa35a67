"""The handler "redis", against a real server: what lies on the stream is what was emitted."""

import json
import math
import os
import signal
import socket
import threading
import time

import pytest
import redis as vendor

import handlers
from telemetry import SpanContext

STEP = ("training", "step")


@pytest.fixture
def attach(bus, url):
    return lambda **options: handlers.attach("redis", registry=bus, **{"url": url, **options})


def records(entries):
    return [json.loads(fields["record"]) for fields in entries]


def steps(entries):
    return [record["metadata"]["step"] for record in records(entries)]


def test_an_entry_is_the_event_and_where_it_came_from(server, attach, bus, entries):
    before = time.time_ns()
    with attach():
        bus.execute(
            STEP,
            {"loss": 2.5, "bad": math.nan, "worse": -math.inf, "norms": [1, 2.5]},
            {"step": 1, "name": "Grüße", "span": SpanContext(1, None, 255), "seed": 2**70},
        )
        bus.execute(("alert", "raised"), {}, {})
    first, second = entries()
    assert json.loads(first["record"]) == {
        "timestamp": json.loads(first["record"])["timestamp"],
        "event": "training.step",
        "measurements": {"loss": 2.5, "bad": "NaN", "worse": "-Infinity", "norms": [1, 2.5]},
        "metadata": {
            "step": 1,
            "name": "Grüße",
            "span": {
                "span_id": "0000000000000001",
                "parent_id": None,
                "trace_id": "00000000000000ff",
            },
            "seed": "1180591620717411303424",
        },
    }
    assert json.loads(second["record"])["event"] == "alert.raised"
    assert set(first) == {"record", "time_ns", "id", "host", "pid"}
    assert (first["host"], first["pid"]) == (socket.gethostname(), str(os.getpid()))
    assert before <= int(first["time_ns"]) <= int(second["time_ns"]) <= time.time_ns()
    assert first["id"].removesuffix("-1") == second["id"].removesuffix("-2")


def test_events_keep_their_order_and_have_numbers_of_their_own(
    server, attach, step, entries, monkeypatch
):
    monkeypatch.setenv("RANK", "0")
    with attach():
        for number in range(2000):
            step(number)
    found = entries()
    assert steps(found) == list(range(2000))
    assert len({fields["id"] for fields in found}) == 2000
    assert {fields["rank"] for fields in found} == {"0"}


def test_a_stream_is_bounded(server, attach, step, client, entries):
    with attach(max_length=500, stream="short"):
        for number in range(3000):
            step(number)
    assert 500 <= client.xlen("short") <= 700  # Redis removes whole blocks of a hundred
    assert steps(entries("short"))[-1] == 2999


@pytest.mark.parametrize("background", [None, False])
def test_the_server_can_be_away_when_it_is_attached(
    start, attach, step, entries, wait_until, caplog, drops, background
):
    attachment = attach(background=background)
    step(0)
    wait_until(lambda: "cannot reach" in caplog.text)
    start()
    if background is False:
        # The emitter's thread does not wait: what it could not send is lost, and counted.
        wait_until(lambda: step(1) or entries())
        assert sum(dropped for dropped, _ in drops) >= 1
        assert drops[0][1] == {"handler_id": "redis", "policy": "redis_unreachable"}
    else:
        assert attachment.flush()
        assert steps(entries()) == [0]
    assert attachment.active
    assert caplog.text.count("cannot reach") == 1
    assert caplog.text.count("reaches unix:") == 1


def test_a_server_that_is_restarted_gets_what_was_emitted_meanwhile(
    start, attach, step, entries, wait_until, caplog, tmp_path
):
    persistent = ("--appendonly", "yes", "--appendfsync", "always", "--dir", tmp_path)
    first = start(*persistent)
    attachment = attach()
    step(0)
    assert attachment.flush()
    first.kill()
    first.wait()
    for number in range(1, 400):
        step(number)
    wait_until(lambda: "cannot reach" in caplog.text)
    start(*persistent)
    assert attachment.flush(60)
    found = entries()
    by_id = {fields["id"]: json.loads(fields["record"])["metadata"]["step"] for fields in found}
    assert list(by_id.values()) == list(range(400))


def test_a_server_that_died_does_not_hold_the_program(
    server, attach, step, caplog, wait_until, ended
):
    attachment = attach(flush_timeout=0.5, queue_size=100, events=STEP)
    step(0)
    assert attachment.flush(60)
    server.kill()
    server.wait()
    for number in range(1000):
        step(number)
    wait_until(lambda: "cannot reach" in caplog.text)
    attachment.detach()
    ended(attachment)
    assert caplog.text.count("cannot reach") == 1
    assert "Handler 'redis', events lost so far: 1000" in caplog.text


def test_a_server_that_is_frozen_does_not_hold_the_program(
    server, attach, step, caplog, wait_until, ended, drops
):
    attachment = attach(flush_timeout=0.5, timeout=0.2, events=STEP)
    step(0)
    assert attachment.flush(60)
    server.send_signal(signal.SIGSTOP)
    try:
        step(1)
        wait_until(lambda: "cannot reach" in caplog.text)
        assert "Timeout" in caplog.text
        assert not attachment.flush(0.5)
        attachment.detach()
        ended(attachment)
    finally:
        server.send_signal(signal.SIGCONT)
    assert [dropped for dropped, _ in drops] == [1]


def test_the_vendor_itself_tries_once(bus, step, free_port, wait_until):
    """The emitter's thread must not wait for ten attempts of the vendor's client."""
    visits = []

    def hang_up(listener):
        while True:
            try:
                visitor, _ = listener.accept()
            except OSError:
                return
            visits.append(None)
            visitor.close()

    with socket.create_server(("127.0.0.1", free_port)) as listener:
        thread = threading.Thread(target=hang_up, args=(listener,), daemon=True)
        thread.start()
        url = f"redis://127.0.0.1:{free_port}/0"
        with handlers.attach("redis", registry=bus, url=url, background=False, events=STEP):
            step(0)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(visits) == 1


def test_a_server_out_of_memory_gets_each_event_when_it_has_room(
    server, attach, step, client, entries, wait_until, caplog
):
    client.config_set("maxmemory", 1)
    attachment = attach()
    step(0)
    step(1)
    wait_until(lambda: "OutOfMemoryError" in caplog.text)
    client.config_set("maxmemory", 0)
    assert attachment.flush(60)
    assert steps(entries()) == [0, 1]


def test_a_wrong_password_is_an_error_that_does_not_show_it(
    start, bus, socket_path, step, wait_until, caplog
):
    start("--requirepass", "correct-horse")
    url = f"unix://someone:wrong-staple@{socket_path}?db=0"
    attachment = handlers.attach("redis", registry=bus, url=url)
    failures = []
    bus.attach(
        "failures", ("telemetry", "handler", "failure"), lambda *event: failures.append(event)
    )
    step(0)
    wait_until(lambda: failures)
    assert not attachment.active
    (failure,) = failures
    reason = failure[2]["reason"]
    assert type(reason) is handlers.CredentialsError
    assert str(reason) == (
        f"Handler 'redis', stream 'trainbus': unix://***@{socket_path}?db=*** does not accept who "
        "is sending (AuthenticationError: invalid username-password pair or user is disabled.). "
        "User and password come from the option 'url' or, without it, from the variable "
        "REDIS_URL: redis://USER:PASSWORD@HOST:PORT/DB."
    )
    assert reason.__cause__ is None
    wait_until(lambda: "was detached" in caplog.text)
    assert "wrong-staple" not in caplog.text
    assert "someone" not in caplog.text


def test_a_missing_password_is_an_error(start, attach, step, wait_until, caplog):
    start("--requirepass", "correct-horse")
    attach()
    step(0)
    wait_until(lambda: "CredentialsError" in caplog.text)


def test_the_right_password_from_the_environment_is_accepted(
    start, bus, socket_path, step, monkeypatch
):
    start("--requirepass", "correct horse")
    monkeypatch.setenv("REDIS_URL", f"unix://:correct%20horse@{socket_path}?db=3")
    with handlers.attach("redis", registry=bus):
        step(7)
    with vendor.Redis(unix_socket_path=str(socket_path), password="correct horse", db=3) as client:  # noqa: S106 -- of a server that ends with the test
        assert client.xlen("trainbus") == 1


def test_a_key_that_is_no_stream_is_an_error(server, attach, step, client, ended, caplog):
    client.set("trainbus", "a string")
    attachment = attach()
    step(0)
    ended(attachment)
    assert not attachment.active
    assert "refuses it: ResponseError: WRONGTYPE" in caplog.text
    assert client.get("trainbus") == "a string"


def test_of_a_batch_only_what_was_refused_is_sent_again(
    server, attach, bus, client, entries, wait_until, caplog
):
    attachment = attach()
    # There is room for some of the entries, of 100 kB each, and not for all.
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 3_000_000)
    for number in range(60):
        bus.execute(STEP, {"loss": 0.5}, {"step": number, "text": "x" * 100_000})
    wait_until(lambda: "OutOfMemoryError" in caplog.text)
    before = len(entries())
    client.config_set("maxmemory", 0)
    assert attachment.flush(60)
    assert 0 < before < 60
    assert steps(entries()) == list(range(60))


def test_a_server_without_its_replicas_is_waited_for(
    server, attach, step, client, entries, wait_until, caplog
):
    attachment = attach()
    client.config_set("min-replicas-to-write", 1)
    step(1)
    wait_until(lambda: "NOREPLICAS" in caplog.text)
    client.config_set("min-replicas-to-write", 0)
    assert attachment.flush(60)
    assert steps(entries()) == [1]


def test_a_child_sends_its_own_and_nothing_of_its_parent(
    server, attach, step, entries, in_child, bus
):
    attachment = attach()
    step(0)
    assert attachment.flush()
    in_child(lambda: (step(1), bus.detach("redis")))
    step(2)
    attachment.detach()
    found = entries()
    assert steps(found) == [0, 1, 2]
    assert [fields["pid"] == str(os.getpid()) for fields in found] == [True, False, True]
    assert len({fields["id"] for fields in found}) == 3


def test_a_fork_while_the_server_hangs_ends(
    server, attach, step, in_child, wait_until, caplog, bus
):
    attachment = attach(timeout=0.5, flush_timeout=0.5)
    step(0)
    assert attachment.flush(60)
    server.send_signal(signal.SIGSTOP)
    try:
        step(1)
        in_child(lambda: (step(2), bus.detach("redis")))
        attachment.detach()
    finally:
        server.send_signal(signal.SIGCONT)


def test_an_event_after_the_end_is_delivered(server, attach, step, entries):
    attachment = attach()
    sink = attachment.handler
    attachment.detach()
    sink(STEP, {"loss": 0.5}, {"step": 9}, None)
    assert steps(entries()) == [9]


def test_only_rank_zero_sends_by_default(server, attach, step, entries, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with attach():
        step(0)
    assert entries() == []

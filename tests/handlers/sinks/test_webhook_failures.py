"""The handler "webhook", when the other end does not do what it should."""

import http.server
import json
import logging
import math
import multiprocessing
import socket
import threading
import time

import pytest

import handlers
from handlers import CredentialsError, DeliveryError
from handlers.retrying import LONGEST_WAIT
from handlers.webhook_client import asked_in

STEP = ("training", "step")
CHECKPOINT = ("training", "checkpoint")
FAILURE = ("telemetry", "handler", "failure")


@pytest.fixture
def attach(bus, receiver):
    def attach(**options):
        options = {"url": receiver.url + "/hook", "rate_limit": math.inf, **options}
        return handlers.attach("webhook", registry=bus, **options)

    return attach


@pytest.fixture
def failures(bus):
    found = []
    bus.attach("failures", FAILURE, lambda e, m, metadata, c: found.append(metadata))
    return found


def steps_posted(receiver):
    return [json.loads(body)["metadata"]["step"] for _, _, body in receiver.requests]


def warnings_of(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "telemetry"]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_passes_is_tried_again(attach, step, receiver, drops, failures, status):
    receiver.answers = [(status, {})]
    with attach() as webhook:
        step(1)
        step(2)
        assert webhook.flush(60)
    assert steps_posted(receiver) == [1, 1, 2]
    assert (drops, failures) == ([], [])


def test_an_outage_is_said_once_and_its_end_once(attach, step, receiver, caplog):
    receiver.answers = [(500, {}), (500, {}), (503, {})]
    with attach() as webhook:
        step(1)
        step(2)
        assert webhook.flush(60)
    assert steps_posted(receiver) == [1, 1, 1, 1, 2]
    down, up = warnings_of(caplog)
    assert down == (
        f"Handler 'webhook' cannot reach {receiver.url}/*** (BusyError: it answered 500 Internal "
        "Server Error ({})); it goes on trying."
    )
    assert up.startswith(f"Handler 'webhook' reaches {receiver.url}/*** again, after ")


def test_a_server_says_how_long_to_wait(attach, step, receiver):
    receiver.answers = [(429, {"Retry-After": "2"})]
    with attach() as webhook:
        step(1)
        assert webhook.flush(60)
    first, second = receiver.times
    assert second - first >= 2  # without it, at most half a second
    assert steps_posted(receiver) == [1, 1]


def test_discord_says_how_long_to_wait_in_its_answer():
    # https://docs.discord.com/developers/topics/rate-limits#exceeding-a-rate-limit-examples
    discord = b'{"message": "You are being rate limited.", "retry_after": 64.57, "global": false}'
    assert asked_in(discord) == 64.57
    for nonsense in (b"[]", b"", b'{"retry_after": null}', b'{"retry_after": -1}', b"{}"):
        assert asked_in(nonsense) == 0.0
    assert asked_in(b'{"retry_after": 1e300}') == LONGEST_WAIT


def test_at_the_end_a_server_is_not_asked_before_the_time_that_it_wants(
    attach, step, receiver, drops, wait_until
):
    receiver.always = (429, {"Retry-After": "600"})
    webhook = attach(flush_timeout=60.0)
    step(1)
    step(2)
    wait_until(lambda: receiver.requests)
    webhook.detach()  # which does not wait for a minute either
    assert len(receiver.requests) == 1
    assert sum(count for count, _ in drops) == 2


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_url_that_is_no_webhook_detaches_with_a_clear_error(
    attach, step, receiver, failures, ended, status
):
    receiver.always = (status, {})
    webhook = attach()
    step(1)
    step(2)
    ended(webhook)
    (failure,) = failures
    error = failure["reason"]
    assert type(error) is CredentialsError
    assert str(error).startswith(f"Handler 'webhook': {receiver.url}/*** answered {status} ")
    assert "the option url" in str(error)
    assert (error.__cause__, error.__context__) == (None, None)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(("status", "headers"), [(302, {"Location": "/other"}), (405, {})])
def test_what_no_attempt_would_change_detaches(
    attach, step, receiver, failures, ended, status, headers
):
    receiver.always = (status, headers)
    webhook = attach()
    step(1)
    ended(webhook)
    (failure,) = failures
    assert type(failure["reason"]) is DeliveryError
    assert len(receiver.requests) == 1, "a redirection is not followed with what is secret"


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_message_that_is_refused_is_counted_and_the_next_one_sent(
    attach, step, receiver, drops, failures, status
):
    receiver.answers = [(status, {})]
    with attach(events=STEP):
        step(1)
        step(2)
    assert steps_posted(receiver) == [1, 2]
    assert drops == [(1, {"handler_id": "webhook", "policy": "undelivered"})]
    assert failures == []


def test_an_announcement_of_losses_that_is_lost_is_not_announced(
    attach, step, receiver, drops, wait_until, monkeypatch
):
    monkeypatch.setattr("handlers.losses.INTERVAL", 0.0)  # not a second between announcements
    receiver.always = (400, {})
    with attach() as webhook:
        step(1)
        wait_until(lambda: len(receiver.requests) == 2)  # the step, and the announcement of it
        assert webhook.flush(60)
        step(2)
        wait_until(lambda: len(receiver.requests) == 4)
        assert webhook.flush(60)
    events = [json.loads(body)["event"] for _, _, body in receiver.requests]
    assert events == ["training.step", "telemetry.handler.overflow"] * 2
    assert [count for count, _ in drops] == [1, 1]


def test_nobody_there_then_somebody(bus, step, free_port, wait_until, caplog):
    webhook = handlers.attach("webhook", registry=bus, url=f"http://127.0.0.1:{free_port}/hook")
    step(1)
    step(2)
    wait_until(lambda: warnings_of(caplog))
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", free_port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    assert webhook.flush(60)
    webhook.detach()
    server.shutdown()
    thread.join()
    server.server_close()
    assert [body["metadata"]["step"] for body in got] == [1, 2]
    assert len(warnings_of(caplog)) == 2  # down, and up again


def test_a_server_that_hangs_holds_nobody(attach, step, receiver, drops):
    receiver.hangs = True
    webhook = attach(timeout=60.0, flush_timeout=0.3)
    for number in range(10):
        step(number)
    start = time.monotonic()
    webhook.detach()
    assert time.monotonic() - start < 20  # not the minute that the answer may take
    assert sum(count for count, _ in drops) == 10


def test_an_answer_that_does_not_come_is_a_reason_to_try_again(attach, step, receiver, wait_until):
    receiver.hangs = True
    with attach(timeout=0.2) as webhook:
        step(1)
        wait_until(lambda: len(receiver.requests) > 1)
        receiver.hangs = False
        receiver.released.set()
        assert webhook.flush(60)
    assert set(steps_posted(receiver)) == {1}


def test_an_answer_that_breaks_off_after_its_status_is_an_answer(attach, step, receiver, drops):
    receiver.breaks = True
    with attach() as webhook:
        step(1)
        step(2)
        assert webhook.flush(60)
    assert steps_posted(receiver) == [1, 2]
    assert drops == []


def test_what_answers_no_http_is_tried_again(bus, step, wait_until, caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        port = server.getsockname()[1]
        webhook = handlers.attach(
            "webhook", registry=bus, url=f"http://127.0.0.1:{port}/hook", flush_timeout=0.1
        )
        step(1)
        for _ in range(2):
            connection, _ = server.accept()
            connection.sendall(b"hello\r\n\r\n")
            connection.close()
        webhook.detach()
    assert "cannot reach" in warnings_of(caplog)[0]


def test_in_the_emitters_thread_there_is_one_attempt(attach, step, receiver, drops, monkeypatch):
    monkeypatch.setattr("handlers.retrying.FIRST", 3600.0)
    receiver.always = (503, {})
    with attach(background=False, events=STEP):
        step(1)
        step(2)  # not even tried: the back-off lasts
    assert len(receiver.requests) == 1
    assert sum(count for count, _ in drops) == 2


def test_over_the_rate_limit_messages_wait_but_the_end_does_not(
    attach, bus, receiver, drops, wait_until
):
    with attach(style="slack", rate_limit=0.01):
        for number in range(8):
            bus.execute(CHECKPOINT, {}, {"checkpoint_name": number})
        wait_until(lambda: len(receiver.requests) == 5)
        time.sleep(0.3)
        assert len(receiver.requests) == 5
    texts = [json.loads(body)["text"] for _, _, body in receiver.requests]
    assert texts == [f"Checkpoint saved: {number}" for number in range(8)]
    assert drops == []


def test_over_the_rate_limit_where_nobody_waits_messages_are_counted(attach, bus, receiver, drops):
    with attach(style="slack", rate_limit=0.01, background=False):
        for number in range(8):
            bus.execute(CHECKPOINT, {}, {"checkpoint_name": number})
    assert len(receiver.requests) == 5
    assert sum(count for count, _ in drops) == 3


def test_a_template_that_raises_is_a_failure_of_the_handler(attach, bus, failures, wait_until):
    attach(style="slack", templates={STEP: lambda event, measurements, metadata: metadata["no"]})
    bus.execute(STEP, {}, {})
    wait_until(lambda: failures)
    assert [repr(failure["reason"]) for failure in failures] == ["KeyError('no')"]


def test_a_template_that_returns_no_text_is_a_failure_of_the_handler(
    attach, bus, failures, wait_until
):
    attach(style="slack", templates={STEP: lambda event, measurements, metadata: 5})
    bus.execute(STEP, {}, {})
    (failure,) = wait_until(lambda: failures)
    assert str(failure["reason"]) == (
        "The template for ('training', 'step') returned 5 (int). "
        "It must return a string, or None for no message."
    )


def test_its_own_failure_is_not_sent(attach, bus, receiver):
    receiver.answers = [(405, {})]
    with attach(style="slack", on_failure="keep") as webhook:
        bus.execute(CHECKPOINT, {}, {"checkpoint_name": "a"})
        assert webhook.flush(60)
        bus.execute(CHECKPOINT, {}, {"checkpoint_name": "b"})
    texts = [json.loads(body)["text"] for _, _, body in receiver.requests]
    assert texts == ["Checkpoint saved: a", "Checkpoint saved: b"]


def test_after_close_a_late_event_is_delivered_once_more(attach, receiver):
    webhook = attach()
    webhook.detach()
    webhook.handler(STEP, {}, {"step": 9}, None)
    assert steps_posted(receiver) == [9]


@pytest.fixture
def connections(receiver, monkeypatch):
    """The ports from which somebody connected to the receiver."""
    ports = []
    monkeypatch.setattr(
        receiver, "verify_request", lambda request, address: ports.append(address[1]) or True
    )
    return ports


def test_a_connection_is_kept_for_the_next_message(attach, step, receiver, connections):
    with attach():
        for number in range(20):
            step(number)
    assert steps_posted(receiver) == list(range(20))
    assert len(connections) == 1


def test_a_forked_child_posts_its_own_over_its_own_connection(
    attach, step, receiver, in_child, connections
):
    with attach() as webhook:
        step(1)
        assert webhook.flush(60)

        def child():
            step(2)
            assert webhook.flush(60)

        in_child(child)
        step(3)
        assert webhook.flush(60)
    assert steps_posted(receiver) == [1, 2, 3]
    assert len(connections) == 2


def test_what_its_libraries_log_does_not_show_the_url(attach, step, receiver, caplog):
    caplog.set_level(logging.DEBUG)
    with attach(url=receiver.url + "/services/T0/B0/verysecrettoken?x=hiddenvalue"):
        step(1)
    assert "urllib3.connectionpool" in {record.name for record in caplog.records}
    for secret in ("T0/B0", "verysecrettoken", "hiddenvalue"):
        assert secret not in caplog.text


def test_a_child_of_multiprocessing_flushes_at_its_end(attach, step, receiver):
    with attach():
        process = multiprocessing.get_context("fork").Process(target=step, args=(7,))
        process.start()
        process.join(60)
        assert process.exitcode == 0
    assert steps_posted(receiver) == [7]

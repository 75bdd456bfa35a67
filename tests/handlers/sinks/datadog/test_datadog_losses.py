"""What is lost on the way is counted in events, once, and announced."""

import faulthandler
import json
import socket
import threading

import pytest

from handlers.clock import at_time
from telemetry.metrics import counter, distribution, last_value

KEY = "0123456789abcdef0123456789abcdef"
EVENT = ("my", "event")
START = 1_000_000_000
METRICS = [counter("my.event.n", report_as="n"), last_value("my.event.*", tags=["layer"])]


@pytest.fixture
def attach_api(attach, receiver):
    def attach_api(**options):
        given = {"api_key": KEY, "api_host": receiver.url, "metrics": METRICS, "dd_events": ()}
        return attach(**{**given, **options})

    return attach_api


def emit(bus, number, at=START, **metadata):
    with at_time(at * 10**9):
        for each in range(number):
            bus.execute(EVENT, {"x": each, "y": 1}, metadata)


def total(drops):
    return sum(count for count, _ in drops)


def series(receiver, path="/api/v1/series"):
    return [
        one
        for where, _, body in receiver.requests
        if where == path
        for one in json.loads(body)["series"]
    ]


LATER = 2 * START
"""In an interval that does not end in a test: it is sent by a flush, and by nothing before."""


def test_points_that_wait_behind_an_api_that_hangs_are_counted_at_the_end(
    bus, attach_api, receiver, drops
):
    receiver.hangs = True
    handler = attach_api(flush_timeout=0.5)
    emit(bus, 30)
    assert not handler.flush(0.3)  # the worker has them under way
    emit(bus, 7)
    handler.detach()

    assert total(drops) == 37  # before the API has answered
    receiver.released.set()


def test_the_log_tells_at_the_end_of_a_program_what_was_lost(receiver, run_script):
    receiver.hangs = True
    result = run_script(
        "import sys, time, handlers, telemetry\n"
        "from telemetry.metrics import last_value\n"
        f"handlers.attach('datadog', api_key='{KEY}', api_host=sys.argv[1], flush_timeout=0.5,\n"
        "    metrics=[last_value('my.event.x')], dd_events=())\n"
        "for number in range(20):\n"
        "    telemetry.execute(('my', 'event'), {'x': number}, {})\n"
        "time.sleep(0.2)\n",
        receiver.url,
    )
    assert "events lost so far: 20 " in getattr(result, "stderr", str(result))


def test_an_event_that_is_a_message_and_points_is_lost_once(bus, attach_api, receiver, drops):
    receiver.always = (503, {})
    handler = attach_api(dd_events=[EVENT], flush_timeout=0.3)
    emit(bus, 10)
    handler.flush(0.2)
    emit(bus, 20)
    handler.detach()

    assert total(drops) == 30


def test_in_the_emitters_thread_an_event_is_lost_once(bus, attach_api, receiver, drops):
    receiver.always = (503, {})
    handler = attach_api(
        metrics=[last_value("alert.raised.*")], dd_events=[("alert", "*")], background=False
    )
    for number in range(10):  # each is an event, a service check and a point
        bus.execute(("alert", "raised"), {"value": number}, {"rule": "r"})
    handler.detach()

    assert total(drops) == 10


def test_what_waits_when_the_key_is_refused_is_counted(
    bus, attach_api, receiver, drops, wait_until, ended
):
    receiver.always = (401, {})
    handler = attach_api(dd_events=[("other", "event")])
    emit(bus, 25, at=LATER)
    wait_until(lambda: handler.handler.kept() == 25)
    bus.execute(("other", "event"), {}, {})
    ended(handler)

    assert not handler.active
    assert (25, "refused") in [(count, metadata["policy"]) for count, metadata in drops]


def test_lines_of_an_event_count_as_one(bus, attach, free_port, drops):
    handler = attach(background=False, host="127.0.0.1", port=free_port)
    for _ in range(10):
        bus.execute(("training", "step"), {"loss": 1.0, "lr": 1.0, "grad_norm": 1.0}, {})
    handler.detach()

    assert 9 <= total(drops) <= 10  # the first datagram finds out that nobody listens


def test_a_request_that_is_too_large_is_cut(bus, attach_api, receiver, drops):
    receiver.answers = [(413, {}), (413, {})]
    handler = attach_api(metrics=[last_value("my.event.x", tags=["layer"])], max_tag_values=5000)
    with at_time(LATER * 10**9):
        for number in range(8):
            bus.execute(EVENT, {"x": number}, {"layer": f"l{number}"})
    assert handler.flush(60)
    handler.detach()

    sizes = [len(json.loads(body)["series"]) for _, _, body in receiver.requests]
    assert sizes == [8, 4, 2, 2, 4]
    assert drops == []


def test_many_series_are_several_requests(bus, attach_api, receiver, drops):
    tags = [f"team:{'x' * 190}{number}" for number in range(5)]
    handler = attach_api(
        metrics=[last_value("my.event.x", tags=["layer"])], max_tag_values=5000, tags=tags
    )
    with at_time(START * 10**9):
        for number in range(2500):
            bus.execute(EVENT, {"x": number}, {"layer": f"l{number}"})
    assert handler.flush(60)

    assert all(len(body) <= 2_000_000 for _, _, body in receiver.requests)
    assert len(receiver.requests) >= 3
    assert sorted(one["points"][0][1] for one in series(receiver)) == list(range(2500))


def test_a_series_that_is_too_large_alone_is_counted_in_events(bus, attach_api, receiver, drops):
    receiver.always = (413, {})
    with attach_api() as handler:
        emit(bus, 12)
        handler.flush(60)

    assert [(count, metadata["policy"]) for count, metadata in drops] == [(12, "refused")]


def test_a_distribution_keeps_all_its_values(bus, attach_api, receiver, drops):
    metrics = [distribution("my.event.x", report_as="d", sampling_rate=0.5)]
    handler = attach_api(metrics=metrics)
    emit(bus, 2500, at=LATER)
    assert handler.flush(60)

    sent = [one["points"] for one in series(receiver, "/api/v1/distribution_points")]
    assert {points[0][0] for points in sent} == {LATER}
    assert sorted(value for points in sent for value in points[0][1]) == list(range(2500))
    assert max(len(points[0][1]) for points in sent) == 1000


def test_points_that_come_after_their_interval_are_added_to_it(
    bus, attach_api, receiver, wait_until
):
    handler = attach_api(metrics=[counter("my.event.n", report_as="n")])
    emit(bus, 5)
    wait_until(lambda: series(receiver))
    emit(bus, 1)
    assert handler.flush(60)

    assert [one["points"] for one in series(receiver)][-1] == [[START, 6]]


def test_an_integer_of_any_size_does_not_cost_what_waits_with_it(client, receiver):
    metrics = client(api_key=KEY, api_host=receiver.url)
    for name, value in (("small", 1), ("large", 2**70), ("true", True)):
        metrics.gauge(name, value)
    assert metrics.flush(60)

    found = {one["metric"]: one["points"][0][1] for one in series(receiver)}
    assert found == {"small": 1, "large": float(2**70), "true": 1}


def test_ranks_are_told_apart(bus, attach, agent, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    with attach(ranks="all", **agent.address):
        bus.execute(("training", "step"), {"loss": 1.0}, {})
    with attach(ranks="all", tags=["rank:mine"], **agent.address):
        bus.execute(("training", "step"), {"loss": 1.0}, {})

    assert [line.tags for line in agent.read()] == [{"rank:3"}] * 2 + [{"rank:mine"}] * 2


def test_two_that_lose_in_the_emitters_threads_do_not_wait_for_each_other(bus, attach):
    """Each hears what the other announces, which must not happen under its lock."""
    ports = []
    for _ in range(2):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
            unused.bind(("127.0.0.1", 0))
            ports.append(unused.getsockname()[1])
    first = attach(id="first", background=False, host="127.0.0.1", port=ports[0])
    second = attach(id="second", background=False, host="127.0.0.1", port=ports[1])
    meeting = threading.Barrier(2)
    announced = []

    def meet(event, measurements, metadata, config):
        """Hold whoever announces until the other one does, with what locks they have."""
        announced.append(metadata["handler_id"])
        meeting.wait(60)
        other = second if metadata["handler_id"] == "first" else first
        other.handler(("training", "step"), {"loss": 1.0}, {}, None)

    def lose(handler):
        for _ in range(3):
            handler.handler(("training", "step"), {"loss": 1.0}, {}, None)

    bus.detach("first")
    bus.detach("second")
    first, second = (
        attach(id=name, background=False, host="127.0.0.1", port=port, events=[("no", "event")])
        for name, port in zip(("first", "second"), ports, strict=True)
    )
    bus.attach("meet", ("telemetry", "handler", "overflow"), meet)
    threads = [threading.Thread(target=lose, args=(each,), daemon=True) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    stuck = any(thread.is_alive() for thread in threads)
    if stuck:
        faulthandler.dump_traceback()
    bus.detach("meet")
    assert not stuck
    assert set(announced[:2]) == {"first", "second"}

"""What Prometheus fetches: read by the vendor's own parser from a real HTTP endpoint."""

import math
import os
import socket
import sys
import threading
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

import handlers
from telemetry.metrics import counter, distribution, last_value, sum_, summary

STEP = ("training", "step")


@pytest.fixture
def prometheus(bus):
    def attach(**options):
        return handlers.attach("prometheus", registry=bus, **{"port": 0, **options})

    return attach


@pytest.fixture
def scrape():
    def scrape(attachment):
        """The families that an HTTP client gets, by name."""
        assert attachment.flush()
        url = f"http://127.0.0.1:{attachment.handler.port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            text = answer.read().decode()
        return {family.name: family for family in text_string_to_metric_families(text)}

    return scrape


def samples(family):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for sample in family.samples
    }


def value(family, **labels):
    (found,) = [s.value for s in family.samples if s.name == family.name and s.labels == labels]
    return found


def test_each_kind_becomes_the_metric_that_prometheus_has_for_it(bus, prometheus, scrape):
    attachment = prometheus(
        metrics=[
            last_value("training.step.loss", tags=["run_id"], description="Training loss"),
            counter("training.step.count", report_as="steps", tags=["run_id"]),
            sum_("training.step.tokens", report_as="tokens"),
            distribution("training.step.wait", report_as="wait", buckets=[1, 2, 4]),
        ]
    )
    for loss, tokens, wait in ((2.5, 10, 0.5), (1.5, -4, 2.0), (0.25, 3, 9.0)):
        bus.execute(STEP, {"loss": loss, "tokens": tokens, "wait": wait}, {"run_id": "a"})
    bus.execute(STEP, {"loss": 7.0}, {"run_id": "b"})
    found = scrape(attachment)

    assert found["training_loss"].type == "gauge"
    assert found["training_loss"].documentation == "Training loss"
    assert value(found["training_loss"], run_id="a") == 0.25
    assert value(found["training_loss"], run_id="b") == 7.0
    assert found["steps"].type == "counter"
    assert samples(found["steps"])[("steps_total", (("run_id", "a"),))] == 3
    assert samples(found["steps"])[("steps_total", (("run_id", "b"),))] == 1
    assert found["tokens"].type == "gauge"  # a sum can go down, a counter cannot
    assert value(found["tokens"]) == 10 - 4 + 3
    assert found["wait"].type == "histogram"
    assert samples(found["wait"]) == {
        ("wait_bucket", (("le", "1.0"),)): 1,  # 0.5
        ("wait_bucket", (("le", "2.0"),)): 2,  # and 2.0, which is not above it
        ("wait_bucket", (("le", "4.0"),)): 2,
        ("wait_bucket", (("le", "+Inf"),)): 3,
        ("wait_sum", ()): 11.5,
        ("wait_count", ()): 3,
    }


def test_without_definitions_the_catalogue_says_what_is_served(bus, prometheus, scrape):
    attachment = prometheus()
    bus.execute(STEP, {"loss": 2.5, "accuracy": 0.5}, {"step": 3, "run_id": "a"})
    duration = {"duration": 1_500_000, "loss_total": 2.0, "monotonic_time": 5}
    bus.execute(("custom_loss", "stop"), duration, {"model_id": "m"})
    found = scrape(attachment)
    nobody = {"run_id": "", "user_id": ""}
    assert value(found["training_loss"], **{**nobody, "run_id": "a"}) == 2.5
    assert value(found["training_accuracy"], **{**nobody, "run_id": "a"}) == 0.5
    assert found["training_step"].type == "counter"
    assert value(found["custom_loss_loss_total"], **nobody, model_id="m") == 2.0
    histogram = samples(found["custom_loss_duration_ms"])
    labels = (*sorted(nobody.items()), ("model_id", "m"))
    assert histogram[("custom_loss_duration_ms_sum", tuple(sorted(labels)))] == 1.5
    below = {
        float(s.labels["le"]): s.value
        for s in found["custom_loss_duration_ms"].samples
        if s.name.endswith("_bucket")
    }
    assert below[1.0] == 0
    assert below[2.5] == 1
    assert (min(below), sorted(below)[-2]) == (0.1, 1e7)  # from 0.1 ms to 2.8 hours
    assert not [name for name in found if "step_step" in name or "monotonic" in name]


def test_a_gauge_may_be_nan_or_infinite_and_nothing_else(bus, prometheus, scrape, drops):
    attachment = prometheus(
        metrics=[
            last_value("training.step.loss"),
            summary("training.step.wait", report_as="wait"),
            sum_("training.step.tokens", report_as="tokens"),
        ]
    )
    for odd in (math.nan, math.inf, -math.inf):
        bus.execute(STEP, {"loss": odd, "wait": odd, "tokens": odd})
        bus.execute(STEP, {"wait": 1.0, "tokens": 2.0})
        assert math.isclose(value(scrape(attachment)["training_loss"]), odd) or math.isnan(odd)
    found = scrape(attachment)
    assert samples(found["wait"])[("wait_sum", ())] == 3.0
    assert value(found["tokens"]) == 6.0
    attachment.detach()
    assert sum(count for count, _ in drops) == 6
    assert {metadata["policy"] for _, metadata in drops} == {"not_finite"}


def test_names_and_labels_are_made_legal_whatever_they_are(bus, prometheus, scrape):
    attachment = prometheus(
        metrics=[
            last_value("x.y.z", report_as="9 µ{name}!", tags=["le", "a.b", "__name__"]),
            last_value("x.y.w", report_as="{name}"),
        ]
    )
    bus.execute(("x", "y"), {"z": 1.0}, {"name": "-é\n", "le": 'a"b\\c\nd', "a.b": "\ud800"})
    bus.execute(("x", "y"), {"w": 2.0}, {"name": "\x00"})
    found = scrape(attachment)
    assert value(found["_9"], tag_le='a"b\\c\nd', a_b="\\ud800", tag_name__="") == 1.0
    assert value(found["unnamed"]) == 2.0


def test_a_name_under_the_namespace_is_not_prefixed_twice(bus, prometheus, scrape):
    attachment = prometheus(
        namespace="demo",
        metrics=[
            last_value("training.step.loss", report_as="demo.loss"),
            last_value("training.step.lr", report_as="lr"),
        ],
    )
    bus.execute(STEP, {"loss": 1.0, "lr": 2.0})
    assert {"demo_loss", "demo_lr"} <= scrape(attachment).keys()


def test_the_first_metric_of_a_name_keeps_it(bus, prometheus, scrape, drops, caplog):
    attachment = prometheus(
        metrics=[
            summary("a.b.x", report_as="first"),
            last_value("a.b.y", report_as="first"),  # another kind
            last_value("a.b.z", report_as="first_count"),  # a series of the histogram
            last_value("a.b.w", report_as="fourth", tags=["run_id"]),
            last_value("a.b.v", report_as="fourth"),  # other labels
        ]
    )
    bus.execute(("a", "b"), {"x": 1.0, "y": 2.0, "z": 3.0, "w": 4.0, "v": 5.0}, {"run_id": "a"})
    found = scrape(attachment)
    assert found["first"].type == "histogram"
    assert samples(found["fourth"]) == {("fourth", (("run_id", "a"),)): 4.0}
    assert attachment.active
    attachment.detach()
    assert sum(count for count, _ in drops) == 3
    assert {metadata["policy"] for _, metadata in drops} == {"name_taken"}
    (logged,) = [r.getMessage() for r in caplog.records if "first 'first'" in r.getMessage()]
    assert "their name is that of another metric, kind or set of labels" in logged


def test_series_are_bounded(bus, prometheus, scrape, drops):
    attachment = prometheus(
        max_series=3, metrics=[last_value("training.step.loss", tags=["worker"])]
    )
    for worker in range(10):
        bus.execute(STEP, {"loss": float(worker)}, {"worker": worker})
    bus.execute(STEP, {"loss": 5.0}, {"worker": 2})
    family = scrape(attachment)["training_loss"]
    assert {s.labels["worker"]: s.value for s in family.samples} == {"0": 0, "1": 1, "2": 5}
    attachment.detach()
    assert sum(count for count, _ in drops) == 7


def test_the_names_of_metrics_are_bounded(bus, prometheus, drops, monkeypatch):
    monkeypatch.setattr("handlers.series.MAX_NAMES", 5)
    attachment = prometheus(metrics=[last_value("a.b.x", report_as="x{worker}")])
    for worker in range(12):
        bus.execute(("a", "b"), {"x": 1.0}, {"worker": worker})
    assert attachment.flush()
    assert len(list(attachment.handler.registry.collect())) == 5
    attachment.detach()
    assert sum(count for count, _ in drops) == 7


def test_it_listens_on_loopback_only_and_no_more_when_detached(bus, prometheus):
    attachment = prometheus()
    port = attachment.handler.port
    assert attachment.handler.endpoint._server.server_address == ("127.0.0.1", port)
    attachment.detach()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_taken_port_is_found_when_it_is_attached(bus, prometheus):
    first = prometheus()
    port = first.handler.port
    with pytest.raises(OSError, match="cannot listen") as raised:
        prometheus(port=port, id="second")
    assert raised.value.strerror == (
        f"Handler 'second' cannot listen on 127.0.0.1:{port}: Address already in use. Give an "
        "address of this machine and a port that is free: addr='127.0.0.1', port=0 for any."
    )
    assert {info.id for info in bus.list_handlers()} == {"prometheus"}


def test_each_rank_has_a_port_of_its_own(bus, prometheus, free_port, monkeypatch):
    monkeypatch.setenv("RANK", "2")
    attachment = prometheus(port=free_port - 2, ranks="all")
    assert attachment.handler.port == free_port


def test_a_forked_child_neither_serves_nor_hangs(bus, prometheus, scrape, in_child):
    attachment = prometheus(metrics=[counter("training.step.count", report_as="steps")])
    bus.execute(STEP, {})
    assert attachment.flush()
    port = attachment.handler.port

    def child():
        announced = []
        bus.attach(
            "drops", ("telemetry", "handler", "overflow"), lambda *args: announced.append(args)
        )
        for _ in range(3):
            bus.execute(STEP, {})
        attachment.detach()
        assert sum(measurements["dropped"] for _, measurements, _, _ in announced) == 3
        assert {metadata["policy"] for _, _, metadata, _ in announced} == {"forked"}

    in_child(child)
    found = scrape(attachment)
    assert samples(found["steps"])[("steps_total", ())] == 1
    assert attachment.handler.port == port


def test_a_child_does_not_hold_the_port_of_its_parent(bus, prometheus):
    attachment = prometheus()
    port = attachment.handler.port
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        attachment.detach()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)
        for end in (*ready, *done):
            os.close(end)


def test_an_event_after_the_end_is_counted(bus, prometheus, drops):
    attachment = prometheus()
    sink = attachment.handler
    attachment.detach()
    sink(STEP, {"loss": 1.0}, {}, None)
    assert [(count, metadata["policy"]) for count, metadata in drops] == [(1, "closed")]


def test_a_missing_package_names_the_extra(bus, prometheus, monkeypatch):
    import telemetry

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(telemetry.MissingExtraError) as raised:
        prometheus()
    assert str(raised.value) == (
        "The handler 'prometheus' needs the module 'prometheus_client', which cannot be imported. "
        "Install it with: pip install 'trainbus[prometheus]'"
    )
    assert isinstance(raised.value.__cause__, ImportError)


def test_many_threads_emit_while_it_is_fetched(bus, prometheus, scrape):
    attachment = prometheus(
        background=False,
        max_series=1000,
        metrics=[counter("training.step.count", report_as="c{number}", tags=["number"])],
    )
    together = threading.Barrier(4)

    def emit():
        together.wait(60)
        for number in range(300):
            bus.execute(STEP, {}, {"number": number})

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=emit) for _ in range(4)]
        for thread in threads:
            thread.start()
        scrape(attachment)
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    counted = [
        value
        for f in scrape(attachment).values()
        for (name, _), value in samples(f).items()
        if name.endswith("_total")
    ]
    assert counted == [4] * 300


def test_two_reported_names_that_would_be_one_are_not_merged(bus, prometheus, scrape, drops):
    attachment = prometheus(
        metrics=[
            counter("a.b.count", report_as="my.count"),
            counter("a.b.count", report_as="my_count"),
            last_value("a.b.x", report_as="labels", tags=["model.id"]),
            last_value("a.b.y", report_as="labels", tags=["model_id"]),
        ]
    )
    bus.execute(("a", "b"), {"x": 1.0, "y": 2.0}, {"model.id": "m", "model_id": "n"})
    found = scrape(attachment)
    assert samples(found["my_count"])[("my_count_total", ())] == 1
    assert samples(found["labels"]) == {("labels", (("model_id", "m"),)): 1.0}
    attachment.detach()
    assert sum(count for count, _ in drops) == 2
    assert {metadata["policy"] for _, metadata in drops} == {"name_taken"}

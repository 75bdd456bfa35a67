"""Metrics in the real Prometheus and Pushgateway, and gateways that do not do as they should."""

import base64
import http.server
import json
import threading
import urllib.parse
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

import handlers
from telemetry.metrics import counter, distribution, last_value, sum_

STEP = ("training", "step")
DEFINED = (
    last_value("training.step.loss", tags=["run_id"]),
    counter("training.step.count", report_as="steps"),
)


def fetch(url):
    with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 -- a URL of loopback
        return answer.read().decode()


@pytest.fixture
def push(bus):
    def attach(gateway, **options):
        given = {"push_interval": 0.05, "metrics": DEFINED, **options}
        return handlers.attach("prometheus", registry=bus, pushgateway=gateway, **given)

    return attach


@pytest.fixture
def gateway(program, free_port, answers):
    url = f"http://127.0.0.1:{free_port}"
    program(
        "prometheus-pushgateway",
        f"--web.listen-address=127.0.0.1:{free_port}",
        ready=lambda: answers(f"{url}/-/ready"),
    )
    return url


def pushed(url):
    """What the gateway has: {(sample, labels): value}."""
    families = text_string_to_metric_families(fetch(f"{url}/metrics"))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("job") == "demo"
    }


def test_prometheus_itself_reads_the_values_the_labels_and_the_histograms(
    bus, program, free_port, tmp_path, answers, wait_until
):
    attachment = handlers.attach(
        "prometheus",
        port=0,
        registry=bus,
        metrics=[*DEFINED, distribution("training.step.wait", report_as="wait", buckets=[1, 2])],
    )
    for loss, wait in ((2.5, 0.5), (float("nan"), 1.5), (0.25, 7.0)):
        bus.execute(STEP, {"loss": loss, "wait": wait}, {"run_id": 'a"\\'})
    assert attachment.flush()
    # The interval is how long an answer may take as well.
    (tmp_path / "prometheus.yml").write_text(
        "scrape_configs:\n- job_name: demo\n  scrape_interval: 2s\n  static_configs:\n"
        f"  - targets: ['127.0.0.1:{attachment.handler.port}']\n"
    )

    url = f"http://127.0.0.1:{free_port}"

    def query(expression):
        asked = urllib.parse.urlencode({"query": expression})
        return json.loads(fetch(f"{url}/api/v1/query?{asked}"))["data"]["result"]

    program(
        "prometheus",
        "--config.file=prometheus.yml",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{free_port}",
        ready=lambda: answers(f"{url}/-/ready"),
    )
    (loss,) = wait_until(lambda: query("training_loss"))
    assert loss["value"][1] == "0.25"
    assert {k: v for k, v in loss["metric"].items() if k not in ("instance", "job")} == {
        "__name__": "training_loss",
        "run_id": 'a"\\',
    }
    (steps,) = wait_until(lambda: query("steps_total"))
    assert steps["value"][1] == "3"
    buckets = wait_until(lambda: query("wait_bucket"))
    assert {one["metric"]["le"]: one["value"][1] for one in buckets} == {
        "1.0": "1",
        "2.0": "2",
        "+Inf": "3",
    }
    asked = urllib.parse.urlencode({"metric": "training_loss"})
    about = json.loads(fetch(f"{url}/api/v1/metadata?{asked}"))
    assert about["data"]["training_loss"] == [
        {"type": "gauge", "help": "training loss", "unit": ""}
    ]


def test_the_gateway_has_what_was_pushed_last_and_keeps_it(bus, push, gateway):
    attachment = push(gateway, job="demo", grouping_key={"run": "a/b"})
    assert attachment.handler.port is None
    bus.execute(STEP, {"loss": 2.5}, {"run_id": "a"})
    assert attachment.flush()
    labels = (("instance", ""), ("job", "demo"), ("run", "a/b"))
    loss = ("training_loss", tuple(sorted((*labels, ("run_id", "a")))))
    assert pushed(gateway)[loss] == 2.5
    bus.execute(STEP, {"loss": 0.5}, {"run_id": "a"})
    attachment.detach()  # the last push
    found = pushed(gateway)
    assert found[loss] == 0.5
    assert found[("steps_total", labels)] == 2


def test_what_was_pushed_can_be_taken_away_at_the_end(bus, push, gateway):
    attachment = push(gateway, job="demo", delete_on_close=True)
    bus.execute(STEP, {"loss": 2.5})
    assert attachment.flush()
    assert pushed(gateway)
    attachment.detach()
    assert pushed(gateway) == {}


def test_it_is_pushed_now_and_then_without_being_asked(bus, push, gateway, wait_until):
    push(gateway, job="demo", push_interval=0.1)
    for _ in range(5):
        bus.execute(STEP, {"loss": 2.5})
    labels = (("instance", ""), ("job", "demo"))
    wait_until(lambda: pushed(gateway).get(("steps_total", labels)) == 5)


def test_ranks_do_not_replace_one_another(bus, push, gateway, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    attachment = push(gateway, job="demo", ranks="all")
    bus.execute(STEP, {"loss": 2.5})
    attachment.detach()
    assert {dict(labels)["rank"] for _, labels in pushed(gateway)} == {"3"}


def test_credentials_are_sent_and_not_shown(bus, push, receiver):
    url = receiver.url.replace("http://", "http://us%40er:hunter%2F22@")
    attachment = push(url)
    bus.execute(STEP, {"loss": 2.5})
    assert attachment.flush()
    path, headers, body = receiver.requests[0]
    assert path == "/metrics/job/trainbus"
    sent = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode()
    assert sent == "us@er:hunter/22"
    assert b'training_loss{run_id=""} 2.5' in body
    assert "hunter" not in repr(vars(attachment.handler))


def test_refused_credentials_end_it_and_name_the_option(bus, push, receiver, caplog, ended):
    receiver.always = (401, {})
    attachment = push(receiver.url.replace("http://", "http://user:hunter22@"))
    failures = []
    bus.attach("failures", ("telemetry", "handler", "failure"), lambda *args: failures.append(args))
    bus.execute(STEP, {"loss": 2.5})
    ended(attachment)
    ((_, _, metadata, _),) = failures
    assert isinstance(metadata["reason"], handlers.CredentialsError)
    assert str(metadata["reason"]) == (
        f"Handler 'prometheus': the pushgateway {receiver.url} answered 401 Unauthorized. Give a "
        "user and a password that it accepts: pushgateway='http://user:password@host:9091'."
    )
    assert not attachment.active
    assert len(receiver.requests) == 1  # the end does not ask again
    assert "hunter22" not in caplog.text
    assert "hunter22" not in repr(metadata)


def test_a_gateway_that_refuses_is_not_asked_again_at_the_end(bus, push, receiver, ended, drops):
    attachment = push(receiver.url, push_interval=3.0)
    bus.execute(STEP, {"loss": 2.5})
    assert attachment.flush()
    receiver.always = (403, {})
    bus.execute(STEP, {"loss": 1.5})  # pushed a little later, when nothing else comes
    ended(attachment)
    assert len(receiver.requests) == 2
    assert [(count, metadata["policy"]) for count, metadata in drops] == [(1, "not_pushed")]


def test_a_request_that_the_gateway_refuses_is_an_error_that_says_why(bus, push, gateway, ended):
    failures = []
    bus.attach("failures", ("telemetry", "handler", "failure"), lambda *args: failures.append(args))
    attachment = push(f"{gateway}/nowhere")
    bus.execute(STEP, {"loss": 2.5})
    ended(attachment)
    ((_, _, metadata, _),) = failures
    assert isinstance(metadata["reason"], handlers.DeliveryError)
    assert "/nowhere answered 404 Not Found" in str(metadata["reason"])


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_gateway_with_a_moment_of_weakness_gets_everything(bus, push, receiver, status, caplog):
    receiver.answers = [(status, {})]
    attachment = push(receiver.url)
    bus.execute(STEP, {"loss": 2.5})
    bus.execute(STEP, {"loss": 1.5})
    assert attachment.flush(60)
    attachment.detach()
    assert b"steps_total 2.0" in receiver.requests[-1][2]
    said = [r.getMessage() for r in caplog.records if r.name == "telemetry"]
    assert len([text for text in said if "cannot reach" in text]) == 1
    assert len([text for text in said if "again" in text]) == 1


def test_a_gateway_that_is_down_is_announced_once_and_loses_nothing_that_comes_later(
    bus, push, free_port, caplog, wait_until
):
    attachment = push(f"http://127.0.0.1:{free_port}", flush_timeout=1.0)
    for step in range(200):
        bus.execute(STEP, {"loss": 2.5}, {"step": step})
    assert attachment.flush(0.5) is False
    assert attachment.active
    registry = attachment.handler.registry
    wait_until(lambda: registry.get_sample_value("steps_total") == 200)
    wait_until(lambda: "cannot reach" in caplog.text)
    attachment.detach()
    said = [r.getMessage() for r in caplog.records if "cannot reach" in r.getMessage()]
    assert len(said) == 1
    assert f"the pushgateway http://127.0.0.1:{free_port}" in said[0]


def test_what_the_gateway_never_heard_of_is_counted_at_the_end(
    bus, push, receiver, wait_until, ended, drops
):
    receiver.always = (503, {})
    attachment = push(receiver.url, flush_timeout=0.5)
    for step in range(20):
        bus.execute(STEP, {"loss": 2.5}, {"step": step})
    wait_until(lambda: receiver.requests)
    attachment.detach()
    ended(attachment)
    assert sum(count for count, _ in drops) == 20


@pytest.mark.parametrize("trouble", ["hangs", "breaks"])
def test_a_gateway_that_hangs_or_breaks_off_does_not_hold_the_end(
    bus, push, receiver, wait_until, trouble
):
    setattr(receiver, trouble, True)
    attachment = push(receiver.url, flush_timeout=0.5)
    bus.execute(STEP, {"loss": 2.5})
    wait_until(lambda: receiver.requests)
    attachment.detach()
    receiver.released.set()
    assert not attachment.active


def test_a_forked_child_pushes_nothing(bus, push, gateway, in_child):
    attachment = push(gateway, job="demo")
    bus.execute(STEP, {"loss": 2.5}, {"run_id": "a"})
    assert attachment.flush()
    before = pushed(gateway)

    def child():
        for _ in range(3):
            bus.execute(STEP, {"loss": 9.0}, {"run_id": "child"})
        attachment.detach()

    in_child(child)
    assert pushed(gateway) == before


def test_a_flush_to_a_gateway_that_is_down_keeps_nobody_from_counting(
    bus, push, free_port, drops, wait_until
):
    attachment = push(f"http://127.0.0.1:{free_port}", flush_timeout=0.5)
    bus.execute(STEP, {"loss": 2.5})
    assert attachment.flush(0.3) is False
    for _ in range(100):
        bus.execute(STEP, {"loss": 2.5})
    assert attachment.flush(0.3) is False
    registry = attachment.handler.registry
    wait_until(lambda: registry.get_sample_value("steps_total") == 101)
    assert drops == []


def test_a_flush_waits_for_a_gateway_that_comes_back(bus, push, receiver):
    receiver.answers = [(503, {})] * 2
    attachment = push(receiver.url, push_interval=60.0)
    bus.execute(STEP, {"loss": 2.5})
    assert attachment.flush(60)
    assert b"steps_total 1.0" in receiver.requests[2][2]


def test_what_a_flush_is_refused_is_a_failure_of_the_handler(bus, push, receiver):
    attachment = push(receiver.url, push_interval=3600.0)
    bus.execute(STEP, {"loss": 2.5})
    assert attachment.flush()
    receiver.always = (403, {})
    failures = []
    bus.attach("failures", ("telemetry", "handler", "failure"), lambda *args: failures.append(args))
    bus.execute(STEP, {"loss": 1.5})
    with pytest.raises(handlers.CredentialsError):
        attachment.flush()
    assert not attachment.active
    assert [metadata["event_name"] for _, _, metadata, _ in failures] == [STEP]


def test_a_gateway_is_not_shown_to_repeat_a_secret(bus, push, ended):
    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            said = b"x" * 296 + b"hunter2222"  # of which the first 300 bytes show a half
            self.send_response(400)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *arguments):
            """Nothing on the test's standard error."""

    with http.server.HTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        attachment = push(f"http://user:hunter2222@127.0.0.1:{server.server_port}")
        failures = []
        failure = ("telemetry", "handler", "failure")
        bus.attach("failures", failure, lambda *args: failures.append(str(args[2]["reason"])))
        bus.execute(STEP, {"loss": 2.5})
        ended(attachment)
        server.shutdown()
        thread.join()
    (said,) = failures
    assert "answered 400 Bad Request: xxx" in said
    assert "hunt" not in said


def test_an_announcement_that_the_gateway_never_heard_of_does_not_count(
    bus, push, receiver, wait_until, ended, drops
):
    receiver.always = (503, {})
    losses = sum_("telemetry.handler.overflow.dropped")
    attachment = push(receiver.url, flush_timeout=0.5, metrics=[*DEFINED, losses])
    bus.execute(STEP, {"loss": 2.5})
    wait_until(lambda: receiver.requests)
    overflow = ("telemetry", "handler", "overflow")
    bus.execute(overflow, {"dropped": 5}, {"handler_id": "other", "policy": "full"})
    attachment.detach()
    ended(attachment)
    assert sum(count for count, said in drops if said["handler_id"] == "prometheus") == 1

"""Events of the bus that are events and service checks of Datadog."""

import pytest

ALERT = {
    "rule": "kl_high",
    "severity": "critical",
    "metric": "rl.step.kl_divergence",
    "message": "KL divergence 0.2000 exceeds threshold 0.1",
    "run_id": "run_1",
}


def messages(agent):
    return [line for line in agent.read() if type(line).__name__ != "Metric"]


def test_an_alert_is_an_event_and_a_service_check(bus, attach, agent, wait_until):
    import time

    handler = attach(tags=["env:production"], **agent.address)
    before = int(time.time())
    bus.execute(("alert", "raised"), {"value": 0.2, "limit": 0.1}, ALERT)
    assert handler.flush()

    event, check = messages(agent)

    tags = {"rule:kl_high", "severity:critical", "run_id:run_1", "env:production"}
    assert (event.title, event.text) == ("Alert: kl_high", ALERT["message"])
    assert (event.alert_type, event.key, event.tags) == ("error", "alert.kl_high", tags)
    assert (check.name, check.status, check.tags) == ("rl.kl_divergence", 2, tags)
    assert check.message == ALERT["message"]
    assert before <= event.timestamp == check.timestamp <= time.time()


@pytest.mark.parametrize(
    ("severity", "alert_type", "status"),
    [
        ("info", "info", 0),
        ("warning", "warning", 1),
        ("critical", "error", 2),
        ("odd", "warning", 1),
    ],
)
def test_the_severity_says_the_status(bus, attach, agent, severity, alert_type, status):
    handler = attach(**agent.address)
    bus.execute(("alert", "raised"), {"value": 1}, {**ALERT, "severity": severity})
    assert handler.flush()

    event, check = messages(agent)

    assert (event.alert_type, check.status) == (alert_type, status)


def test_an_alert_that_is_over_is_a_success_and_ok(bus, attach, agent):
    handler = attach(**agent.address)
    bus.execute(("alert", "cleared"), {"value": 0.04, "limit": 0.1}, {**ALERT, "message": ""})
    assert handler.flush()

    event, check = messages(agent)

    assert (event.title, event.alert_type, event.key) == (
        "Alert is over: kl_high",
        "success",
        "alert.kl_high",
    )
    assert event.text == "value 0.04, limit 0.1"
    assert (check.name, check.status) == ("rl.kl_divergence", 0)


def test_an_alert_on_a_metric_of_your_own_has_its_name(bus, attach, agent):
    handler = attach(**agent.address)
    for metric in ("my.own.number", "loss", "a..b", None):
        bus.execute(("alert", "raised"), {"value": 1}, {"rule": "r", "metric": metric})
    assert handler.flush()

    names = [line.name for line in messages(agent) if hasattr(line, "status")]

    assert names == ["my.own.number", "loss", "a.b", "alert.r"]


def test_a_failed_run_is_an_error(bus, attach, agent):
    handler = attach(**agent.address)
    with pytest.raises(ZeroDivisionError), bus.span(("workflow", "run"), {"workflow": "demo"}):
        print(1 // 0)
    assert handler.flush()

    (event,) = messages(agent)

    assert (event.title, event.alert_type) == ("workflow demo failed", "error")
    assert event.text.startswith("ZeroDivisionError: integer division or modulo by zero\n")
    assert "stacktrace" not in event.text
    assert event.tags == {"workflow:demo"}


def test_a_checkpoint_and_a_registered_model_are_events(bus, attach, agent):
    handler = attach(**agent.address)
    bus.execute(
        ("training", "checkpoint"),
        {"size_bytes": 1000},
        {"checkpoint_name": "step_100", "path": "ckpt/100.pt", "run_id": "r"},
    )
    bus.execute(("model", "registered"), {}, {"name": "llama", "version": "3", "model_id": "m1"})
    assert handler.flush()

    saved, registered = messages(agent)

    assert (saved.title, saved.alert_type) == ("Checkpoint step_100 was saved", "info")
    assert saved.text == (
        "size_bytes: 1000\ncheckpoint_name: step_100\npath: ckpt/100.pt\nrun_id: r"
    )
    assert (registered.title, registered.alert_type) == ("Model llama 3 was registered", "success")
    assert registered.tags == {"model_id:m1"}


def test_you_choose_which_events_are_messages(bus, attach, agent):
    handler = attach(dd_events=[("my", "*")], metrics=[], **agent.address)
    bus.execute(("alert", "raised"), {"value": 1}, ALERT)
    bus.execute(("my", "milestone"), {"accuracy": 0.9}, {"who": "me"})
    assert handler.flush()

    (event,) = agent.read()

    assert (event.title, event.text, event.alert_type) == (
        "my.milestone",
        "accuracy: 0.9\nwho: me",
        "info",
    )


def test_no_events_at_all(bus, attach, agent):
    handler = attach(dd_events=(), metrics=[], **agent.address)
    bus.execute(("alert", "raised"), {"value": 1}, ALERT)
    assert handler.flush()

    assert agent.read() == []


def test_a_long_message_is_cut_to_fit_into_a_datagram(bus, attach, agent, unix_agent):
    message = "KL é|m: " * 1000
    for each in (agent, unix_agent):
        with attach(metrics=[], **each.address):
            bus.execute(("alert", "raised"), {"value": 1}, {**ALERT, "message": message})

        event, check = messages(each)

        assert event.text.endswith("…") == (each is agent)
        assert len(event.text) > 600
        assert message.startswith(event.text.rstrip("…"))
        assert message.replace("|", "/").startswith(check.message.rstrip("…"))


def test_a_secret_in_a_message_is_hidden(bus, attach, agent):
    handler = attach(api_key="0123456789abcdef0123456789abcdef", **agent.address)
    message = "401 for 0123456789abcdef0123456789abcdef at redis://me:pass@host/0"
    bus.execute(("alert", "raised"), {"value": 1}, {**ALERT, "message": message})
    assert handler.flush()

    event, check = messages(agent)

    assert event.text == check.message == "401 for *** at redis://***@host/0"


def test_what_a_program_puts_into_the_metadata_does_not_detach_the_handler(bus, attach, agent):
    np = pytest.importorskip("numpy")

    class Hostile:
        def __str__(self):
            raise RuntimeError("no")

        __repr__ = __bool__ = __str__

    handler = attach(**agent.address)
    for value in (Hostile(), np.array([1, 2]), [Hostile()]):
        keys = ("rule", "severity", "message", "run_id", "checkpoint_name", "name", "version")
        metadata = dict.fromkeys((*keys, "error", "stage", "model", "metric"), value)
        for event in (("alert", "raised"), ("stage", "run", "exception"), ("model", "registered"),
                      ("training", "checkpoint"), ("training", "step")):  # fmt: skip
            bus.execute(event, {"loss": 1.0}, metadata)
    assert handler.flush()

    kinds = [type(line).__name__ for line in agent.read()]
    assert handler.active
    assert (kinds.count("Event"), kinds.count("Check")) == (12, 3)


def test_tags_of_messages_are_those_of_metrics(bus, attach, agent):
    from telemetry.metrics import last_value

    metrics = [last_value("model.registered.size", tags=["model"])]
    handler = attach(metrics=metrics, **agent.address)
    bus.execute(("model", "registered"), {"size": 1}, {"model": ("a", "b")})
    assert handler.flush()

    assert [line.tags for line in agent.read()] == [{"model:a/b"}] * 2


def test_a_key_is_hidden_wherever_it_stands(bus, attach, agent):
    key = "0123456789abcdef0123456789abcdef"
    handler = attach(api_key=key, **agent.address)
    bus.execute(("alert", "raised"), {"value": 1}, {"rule": key, "run_id": key, "metric": key})
    bus.execute(("training", "step"), {"loss": 1, key: 2}, {"run_id": key})
    assert handler.flush()

    assert key.encode() not in b"".join(agent.datagrams())


def test_an_event_whose_title_alone_is_too_long_is_given_up():
    from handlers.datadog_statements import Notice
    from handlers.dogstatsd import DogStatsdLines

    lines = DogStatsdLines("A test", 150)
    assert lines.lines(Notice("x" * 200, "y" * 100, "info", ("a:b",), 0)) == ([], 1)
    (line,), too_long = lines.lines(Notice("x", "y" * 500, "info", (), 0))
    assert len(line) <= 150
    assert too_long == 0

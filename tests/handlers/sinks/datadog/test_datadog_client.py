"""``DatadogMetrics``, alone: each call, and what arrives."""

import asyncio
import logging
import math
import time

import pytest

from handlers.datadog import DatadogMetrics


def test_each_method_sends_its_type(client, agent):
    metrics = client(namespace="signal", constant_tags=["env:production"], **agent.address)
    metrics.gauge("signal.custom.my_metric", 42.0, tags=["run_id:123"])
    metrics.histogram("signal.custom.latency_ms", 125.3)
    metrics.distribution("custom.spread", 250.5)
    metrics.timing("custom.timing", 50)
    metrics.increment("signal.custom.event_count", value=1)
    metrics.increment("custom.more", 2.5)
    metrics.decrement("custom.less", 3)
    metrics.set("custom.users", "ann")
    assert metrics.flush()

    lines = agent.read()

    assert [(line.name, line.kind, *line.values) for line in lines] == [
        ("signal.custom.my_metric", "g", 42.0),
        ("signal.custom.latency_ms", "h", 125.3),
        ("signal.custom.spread", "d", 250.5),
        ("signal.custom.timing", "ms", 50.0),
        ("signal.custom.event_count", "c", 1.0),
        ("signal.custom.more", "c", 2.5),
        ("signal.custom.less", "c", -3.0),
        ("signal.custom.users", "s", "ann"),
    ]
    assert lines[0].tags == {"run_id:123", "env:production"}
    assert all(line.tags == {"env:production"} for line in lines[1:])


def test_an_event_and_a_service_check(client, agent):
    metrics = client(**agent.address)
    metrics.event(
        title="Training Milestone Reached",
        text="Model reached 1000 steps\nwith loss 0.5000",
        alert_type="success",
        tags=["run_id:1", "milestone:1000"],
    )
    metrics.service_check(
        check_name="rl.kl_divergence",
        status="CRITICAL",
        message="KL divergence 0.2000 exceeds 0.1",
        tags=["run_id:1"],
    )
    metrics.service_check("other", 1)
    assert metrics.flush()

    event, check, other = agent.read()

    assert event[:4] == (
        "Training Milestone Reached",
        "Model reached 1000 steps\nwith loss 0.5000",
        "success",
        {"run_id:1", "milestone:1000"},
    )
    assert abs(event.timestamp - time.time()) < 60
    assert check[:4] == ("rl.kl_divergence", 2, "KL divergence 0.2000 exceeds 0.1", {"run_id:1"})
    assert other[:2] == ("other", 1)


def test_timed_measures_blocks_functions_and_coroutines(client, agent):
    metrics = client(**agent.address)

    @metrics.timed("decorated", tags=["kind:function"])
    def double(x):
        time.sleep(0.01)
        return 2 * x

    @metrics.timed("awaited")
    async def awaited():
        await asyncio.sleep(0.01)
        return 7

    @metrics.timed("failed")
    def fail():
        raise KeyError

    with metrics.timed("block"):
        assert double(4) == 8
    assert asyncio.run(awaited()) == 7
    with pytest.raises(KeyError):
        fail()
    assert double.__name__ == "double"
    assert metrics.flush()

    lines = {line.name: line for line in agent.read()}

    assert {line.kind for line in lines.values()} == {"ms"}
    assert all(10 <= lines[name].values[0] < 10_000 for name in ("decorated", "block", "awaited"))
    assert 0 <= lines["failed"].values[0] < 10_000
    assert lines["decorated"].tags == {"kind:function"}


def test_the_value_of_a_set_is_read_by_the_worker(client, agent):
    import threading

    readers = []

    class User:
        def __str__(self):
            readers.append(threading.current_thread().name)
            return "ann"

    metrics = client(**agent.address)
    metrics.set("users", User())
    assert metrics.flush()

    assert [line.values for line in agent.read()] == [["ann"]]
    assert set(readers) == {"trainbus-DatadogMetrics"}


def test_no_arguments_are_needed(client, agent, monkeypatch):
    monkeypatch.setenv("DD_AGENT_HOST", "127.0.0.1")
    monkeypatch.setenv("DD_DOGSTATSD_PORT", str(agent.address["port"]))
    metrics = client()
    metrics.gauge("test.metric", 1.0)
    assert metrics.flush()

    assert [(line.name, line.values) for line in agent.read()] == [("test.metric", [1.0])]


def test_datadog_enabled_switches_it_off(client, agent, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="telemetry")
    monkeypatch.setenv("DATADOG_ENABLED", "False")
    metrics = client(**agent.address)
    metrics.gauge("test.metric", 1.0)
    with metrics.timed("t"):
        pass
    assert metrics.flush()
    metrics.close()

    assert agent.read() == []
    assert "DatadogMetrics sends nothing: DATADOG_ENABLED is 'False'." in caplog.messages


def test_sample_rates_multiply_and_are_told(client, agent):
    metrics = client(sample_rate=0.5, **agent.address)
    for _ in range(400):
        metrics.increment("n", sample_rate=0.5)
    assert metrics.flush()

    lines = agent.read()

    assert {line.rate for line in lines} == {0.25}
    assert 40 < len(lines) < 160


def test_a_tensor_is_read_by_the_worker_and_none_is_left_out(client, agent):
    np = pytest.importorskip("numpy")
    metrics = client(**agent.address)
    metrics.gauge("a", np.float32(0.5))
    metrics.gauge("b", None)
    metrics.decrement("c", np.array(2))
    assert metrics.flush()

    assert [(line.name, line.values) for line in agent.read()] == [("a", [0.5]), ("c", [-2.0])]


def test_what_is_no_number_is_counted_and_logged(client, agent, caplog):
    metrics = client(**agent.address)
    for value in (math.nan, math.inf, [1, 2], object(), 10**400, 1.5):
        metrics.gauge("x", value)
    metrics.close()

    assert [line.values for line in agent.read()] == [[1.5]]
    assert "'DatadogMetrics', events lost so far: 5 (not_finite)" in caplog.text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: m.gauge("x", "1"),
            "DatadogMetrics.gauge: the value of 'x' must be a number, got '1' (str).",
        ),
        (
            lambda m: m.gauge("x", 1, tags="a:b"),
            "DatadogMetrics: tags must be a list of strings, got 'a:b' (str). Write tags=['a:b'].",
        ),
        (
            lambda m: m.gauge("x", 1, sample_rate=2),
            "DatadogMetrics.gauge: sample_rate is 2. Allowed: more than 0, at most 1.",
        ),
        (
            lambda m: m.gauge("x", 1, tags={"env": "prod"}),
            (
                "DatadogMetrics: tags must be a list of strings, got {'env': 'prod'} (dict). "
                "Write tags=['env:prod']."
            ),
        ),
        (
            lambda m: m.gauge("x", 1, tags=5),
            (
                "DatadogMetrics: tags must be a list of strings, got 5 (int). "
                "Write tags=['env:production']."
            ),
        ),
        (
            lambda m: m.gauge("x", 1, sample_rate="a"),
            (
                "DatadogMetrics.gauge: sample_rate must be a number, got 'a' (str). "
                "Allowed: more than 0, at most 1."
            ),
        ),
        (
            lambda m: m.service_check("x", [0, 1]),
            (
                "DatadogMetrics.service_check: status is [0, 1]. "
                "Allowed: 'OK', 'WARNING', 'CRITICAL', 'UNKNOWN', or 0 to 3."
            ),
        ),
        (
            lambda m: m.event("x", "y", alert_type="bad"),
            (
                "DatadogMetrics.event: alert_type is 'bad'. "
                "Allowed: 'info', 'success', 'warning', 'error'."
            ),
        ),
        (
            lambda m: m.service_check("x", "BAD"),
            (
                "DatadogMetrics.service_check: status is 'BAD'. "
                "Allowed: 'OK', 'WARNING', 'CRITICAL', 'UNKNOWN', or 0 to 3."
            ),
        ),
        (
            lambda m: DatadogMetrics(hostname="x"),
            (
                "DatadogMetrics has no option 'hostname'. Allowed: namespace, constant_tags, host, "
                "port, socket_path, transport, api_key, app_key, api_host, dialect, sample_rate, "
                "max_tag_values, enabled."
            ),
        ),
    ],
)
def test_a_wrong_argument_is_refused(client, agent, call, message):
    with pytest.raises((TypeError, ValueError)) as refused:
        call(client(**agent.address))
    assert str(refused.value) == message


def test_what_is_said_after_close_is_counted_and_does_not_fail(client, agent, caplog):
    metrics = client(**agent.address)
    metrics.close()
    metrics.gauge("x", 1)
    metrics.close()

    assert agent.read() == []
    assert "events lost so far: 1 (closed)" in caplog.text


def test_with_a_key_it_needs_no_agent(client, receiver):
    import json

    metrics = client(
        enabled=True,
        api_key="0123456789abcdef",
        app_key="fedcba9876543210",
        api_host=receiver.url,
        namespace="signal",
        constant_tags=["env:production", "team:ml"],
    )
    assert "0123456789abcdef" not in repr(metrics)
    metrics.gauge("training.loss", 0.5)
    metrics.event("title", "text")
    assert metrics.flush(60)

    found = {path: json.loads(body) for path, _, body in receiver.requests}

    (series,) = found["/api/v1/series"]["series"]
    assert (series["metric"], series["type"], series["points"][0][1]) == (
        "signal.training.loss",
        "gauge",
        0.5,
    )
    assert series["tags"] == ["env:production", "team:ml"]
    assert found["/api/v1/events"]["title"] == "title"


def test_a_child_uses_a_socket_of_its_own(client, agent, in_child):
    metrics = client(**agent.address)
    metrics.gauge("parent", 1)

    def child():
        metrics.gauge("child", 2)
        assert metrics.flush(60)

    in_child(child)
    assert metrics.flush()

    assert sorted(line.name for line in agent.read()) == ["child", "parent"]

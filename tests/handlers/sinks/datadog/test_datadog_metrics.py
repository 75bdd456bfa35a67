"""What the handler sends to an agent, read by a strict parser of DogStatsD's grammar."""

import math
import time

import pytest

from telemetry.metrics import counter, distribution, last_value, sum_, summary

STEP = ("training", "step")


def by_name(lines):
    return {line.name: line for line in lines}


def test_a_training_step_is_gauges_and_a_count_under_the_namespace(bus, attach, agent):
    handler = attach(namespace="signal", tags=["env:production"], **agent.address)
    metadata = {"step": 100, "run_id": "run_123", "user_id": "user_456"}
    bus.execute(STEP, {"loss": 0.5, "grad_norm": 2.3, "lr": 1e-4, "perplexity": 5.2}, metadata)
    assert handler.flush()

    lines = agent.read()

    assert {(line.name, line.kind, *line.values) for line in lines} == {
        ("signal.training.loss", "g", 0.5),
        ("signal.training.grad_norm", "g", 2.3),
        ("signal.training.learning_rate", "g", 0.0001),
        ("signal.training.perplexity", "g", 5.2),
        ("signal.training.step", "c", 1.0),
    }
    assert len(lines) == 5
    tags = {"run_id:run_123", "user_id:user_456", "env:production"}
    assert all(line.tags == tags for line in lines)


def test_rl_and_performance_have_the_names_and_kinds_of_the_published_tables(bus, attach, agent):
    handler = attach(namespace="signal", **agent.address)
    rl = {"policy_loss": -2.3, "value_loss": 0.5, "entropy": 3.2, "kl_divergence": 0.01,
          "clip_fraction": 0.2, "advantage_mean": 0.1, "advantage_std": 0.9,
          "explained_variance": 0.8, "reward_mean": 5.2}  # fmt: skip
    bus.execute(("rl", "step"), rl, {"step": 100})
    gauges = {"queue_depth": 3, "gpu_utilization": 95.5, "gpu_memory_used_gb": 38.2}
    times = {"forward_backward_duration_ms": 250.5, "optim_step_duration_ms": 50.2}
    bus.execute(("performance", "sample"), {**gauges, **times}, {})
    assert handler.flush()

    found = {(line.name, line.kind, *line.values) for line in agent.read()}

    assert found == {
        *((f"signal.rl.{name}", "g", value) for name, value in rl.items()),
        *((f"signal.performance.{name}", "g", value) for name, value in gauges.items()),
        *((f"signal.performance.{name}", "h", value) for name, value in times.items()),
    }


def test_a_span_is_a_histogram_of_milliseconds(bus, attach, agent):
    handler = attach(events=("performance", "**"), **agent.address)
    with bus.span(("performance", "operation"), {"operation": "forward_backward"}) as span:
        time.sleep(0.01)
    stop = []
    bus.attach("stop", ("performance", "**"), lambda e, m, metadata, c: stop.append(m))
    with bus.span(("performance", "operation"), {"operation": "forward_backward"}):
        pass
    assert span is not None
    assert handler.flush()

    first, second = agent.read()

    assert first.name == "performance.forward_backward_duration_ms"
    assert first.kind == "h"
    assert 10 <= first.values[0] < 10_000
    assert second.values[0] == pytest.approx(stop[-1]["duration"] / 1e6)


def test_each_kind_of_definition_has_its_type(bus, attach, agent):
    metrics = [
        counter("my.event.n", report_as="c"),
        last_value("my.event.x", report_as="g", tags=["who"]),
        sum_("my.event.x", report_as="s"),
        summary("my.event.x", report_as="h"),
        distribution("my.event.x", report_as="d"),
    ]
    handler = attach(metrics=metrics, **agent.address)
    bus.execute(("my", "event"), {"x": 2.5, "y": 7}, {"who": "Ann, of R&D"})
    assert handler.flush()

    found = by_name(agent.read())

    assert {name: (line.kind, line.values) for name, line in found.items()} == {
        "c": ("c", [1.0]),
        "g": ("g", [2.5]),
        "s": ("c", [2.5]),
        "h": ("h", [2.5]),
        "d": ("d", [2.5]),
    }
    assert found["g"].tags == {"who:ann__of_r_d"}


@pytest.mark.parametrize("kind", [float, int])
def test_values_arrive_as_they_were(bus, attach, agent, kind):
    values = [0.1, -2.5, 1e-300, 1.7976931348623157e308, 5e-324, 123456789.123, -0.0, 2.0**60]
    values = [value for value in values if kind is float or float(value).is_integer()]
    handler = attach(metrics=[last_value("my.event.x")], **agent.address)
    for value in values:
        bus.execute(("my", "event"), {"x": kind(value)}, {})
    assert handler.flush()

    assert [line.values[0] for line in agent.read()] == values


def test_a_tensor_arrives_as_its_number(bus, attach, agent):
    torch = pytest.importorskip("torch")
    handler = attach(metrics=[last_value("my.event.x")], **agent.address)
    bus.execute(("my", "event"), {"x": torch.tensor(2.5)}, {})
    assert handler.flush()

    assert [line.values for line in agent.read()] == [[2.5]]


def test_a_name_under_the_namespace_is_not_prefixed_twice(bus, attach, agent):
    metrics = [last_value("my.event.x", report_as=name) for name in ("signal.x", "signalling.x")]
    handler = attach(namespace="signal", metrics=metrics, **agent.address)
    bus.execute(("my", "event"), {"x": 1}, {})
    assert handler.flush()

    assert [line.name for line in agent.read()] == ["signal.x", "signal.signalling.x"]


def test_nan_and_infinity_are_counted_and_announced_and_never_sent(
    bus, attach, agent, drops, caplog
):
    handler = attach(events=STEP, **agent.address)
    for loss in (math.nan, 0.5, math.inf, -math.inf, 10**400):
        bus.execute(STEP, {"loss": loss}, {"step": 1})
    assert handler.flush()
    handler.detach()

    lines = agent.read()

    assert [line.values for line in lines if line.name == "training.loss"] == [[0.5]]
    assert sum(line.name == "training.step" for line in lines) == 5
    assert {metadata["policy"] for _, metadata in drops} == {"not_finite"}
    assert sum(count for count, _ in drops) == 4
    assert "training.loss" in caplog.text


def test_a_sampled_metric_tells_its_rate_and_a_sampled_gauge_is_thinned(bus, attach, agent):
    metrics = [
        counter("my.event.n", report_as="c", sampling_rate=0.5),
        last_value("my.event.x", report_as="g", sampling_rate=0.5),
    ]
    handler = attach(metrics=metrics, sample_rate=0.5, **agent.address)
    for _ in range(2000):
        bus.execute(("my", "event"), {"x": 1}, {})
    assert handler.flush()

    lines = agent.read()

    # A quarter of 2000, within 6 standard deviations.
    for name, rate in (("c", 0.25), ("g", 1.0)):
        mine = [line for line in lines if line.name == name]
        assert 500 - 116 < len(mine) < 500 + 116
        assert {line.rate for line in mine} == {rate}
        assert {tuple(line.values) for line in mine} == {(1.0,)}


def test_a_gauge_that_comes_late_tells_its_time_and_a_prompt_one_does_not(bus, attach, agent):
    from handlers.clock import at_time

    handler = attach(metrics=[last_value("my.event.x")], **agent.address)
    past = time.time_ns() - 60 * 10**9
    with at_time(past):
        bus.execute(("my", "event"), {"x": 1}, {})
    bus.execute(("my", "event"), {"x": 2}, {})
    assert handler.flush()

    assert [line.timestamp for line in agent.read()] == [past // 10**9, None]


def test_many_events_share_datagrams_and_none_is_lost(bus, attach, unix_agent):
    received = []
    handler = attach(metrics=[last_value("my.event.x")], **unix_agent.address)
    for batch in range(50):
        for number in range(100):
            bus.execute(("my", "event"), {"x": batch * 100 + number}, {})
        assert handler.flush()
        datagrams = list(unix_agent.datagrams())
        assert len(datagrams) < 10
        received += datagrams

    from itertools import chain

    lines = chain.from_iterable(datagram.decode().split("\n") for datagram in received)
    assert list(lines) == [f"my.event.x:{number}|g" for number in range(5000)]


def test_values_of_one_metric_have_the_tags_of_their_own_event(bus, attach, agent):
    handler = attach(metrics=[last_value("training.step.loss", tags=["run_id"])], **agent.address)
    for loss, run in [(1, "a"), (2, None), (3, "b"), (4, "a"), (5, None)]:
        bus.execute(STEP, {"loss": loss}, {} if run is None else {"run_id": run})
    assert handler.flush()
    assert [(line.values, line.tags) for line in agent.read()] == [
        ([1.0], {"run_id:a"}),
        ([2.0], set()),
        ([3.0], {"run_id:b"}),
        ([4.0], {"run_id:a"}),
        ([5.0], set()),
    ]


def test_a_tag_has_a_bounded_number_of_values(bus, attach, agent, caplog):
    metrics = [last_value("my.event.x", tags=["user", "step"])]
    handler = attach(metrics=metrics, max_tag_values=3, **agent.address)
    for number in range(6):
        bus.execute(("my", "event"), {"x": number}, {"user": "ann", "step": number})
    assert handler.flush()

    tags = [line.tags for line in agent.read()]

    assert tags == [
        {"user:ann", "step:0"},
        {"user:ann", "step:1"},
        {"user:ann", "step:2"},
        *[{"user:ann", "step:other"}] * 3,
    ]
    said = [record.message for record in caplog.records if "max_tag_values" in record.message]
    assert said == [
        (
            "Handler 'datadog': more than 3 values of the tag 'step'; further ones are sent as "
            "'other'. Raise max_tag_values, or leave the tag out of the definitions."
        )
    ]


def test_a_metric_that_fits_into_no_datagram_is_counted_and_those_beside_it_are_sent(
    bus, attach, agent, drops
):
    keys = [f"k{number}" for number in range(20)]
    metrics = [
        last_value("my.event.x", report_as="long", tags=keys),
        last_value("my.event.x", report_as="short"),
    ]
    handler = attach(metrics=metrics, **agent.address)
    bus.execute(("my", "event"), {"x": 1}, dict.fromkeys(keys, "v" * 100))
    assert handler.flush()
    handler.detach()

    assert [line.name for line in agent.read()] == ["short"]
    assert [(count, metadata["policy"]) for count, metadata in drops] == [(1, "too_long")]


def test_an_agent_with_a_stream_socket_gets_each_packet_with_its_length(bus, attach, tmp_path):
    import socket
    import struct

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "dsd.socket"))
        listening.listen()
        handler = attach(
            metrics=[last_value("my.event.x")], socket_path=f"unix://{tmp_path}/dsd.socket"
        )
        bus.execute(("my", "event"), {"x": 1.5}, {})
        assert handler.flush()
        connection, _ = listening.accept()
        with connection:
            packet = connection.recv(4096)

    assert packet == struct.pack("<I", 16) + b"my.event.x:1.5|g"


def test_one_value_a_tag_is_no_bound_on_how_many_tags_there_are(bus, attach, agent):
    tags = ["run_id", "user_id", "algo", "scope"]
    handler = attach(
        metrics=[last_value("my.event.x", tags=tags)], max_tag_values=1, **agent.address
    )
    bus.execute(("my", "event"), {"x": 1}, dict.fromkeys(tags, "a"))
    assert handler.flush()

    assert [line.tags for line in agent.read()] == [{f"{tag}:a" for tag in tags}]

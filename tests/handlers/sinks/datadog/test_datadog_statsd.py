"""``dialect="statsd"``: servers that take Etsy's protocol and no more."""

import re

from telemetry.metrics import counter, distribution, last_value, summary

LINE = re.compile(rb"[A-Za-z][A-Za-z0-9_.]*:(-?\d+(\.\d+)?\|(g|c|ms)|[\w\-./]+\|s)(\|@0\.\d+)?")


def lines(agent):
    found = [line for datagram in agent.datagrams() for line in datagram.split(b"\n")]
    assert all(LINE.fullmatch(line) for line in found), found
    return found


def test_each_line_is_a_name_a_number_and_a_type(bus, attach, agent, monkeypatch, caplog):
    monkeypatch.setenv("DD_ENV", "prod")
    monkeypatch.setenv("DD_EXTERNAL_ENV", "it-false,cn-x")
    metrics = [
        counter("my.event.n", report_as="c"),
        last_value("my.event.x", report_as="g", tags=["who"]),
        summary("my.event.x", report_as="h"),
        distribution("my.event.x", report_as="d"),
    ]
    handler = attach(dialect="statsd", namespace="signal", metrics=metrics, **agent.address)
    bus.execute(("my", "event"), {"x": 2.5e-05}, {"who": "ann"})
    assert handler.flush()

    assert lines(agent) == [
        b"signal.c:1|c",
        b"signal.g:0.000025|g",
        b"signal.h:0.000025|ms",
        b"signal.d:0.000025|ms",
    ]
    assert "leaves the tags env:prod out: plain StatsD has none" in caplog.text


def test_a_negative_gauge_is_set_and_not_changed_by(bus, attach, agent):
    handler = attach(dialect="statsd", metrics=[last_value("my.event.x")], **agent.address)
    for value in (-2.5, 3, -0.0, -1e20):
        bus.execute(("my", "event"), {"x": value}, {})
    assert handler.flush()

    # A server that keeps gauges as https://github.com/statsd/statsd has it.
    gauge, seen = 0.0, []
    for line in lines(agent):
        text = line.decode().removeprefix("my.event.x:").removesuffix("|g")
        gauge = gauge + float(text) if text[0] in "+-" else float(text)
        seen.append(gauge)
    assert seen == [0, -2.5, 3, 0, 0, -1e20]


def test_sampled_counts_tell_their_rate_and_gauges_do_not(bus, attach, agent):
    metrics = [counter("my.event.n", report_as="c"), last_value("my.event.x", report_as="g")]
    handler = attach(dialect="statsd", metrics=metrics, sample_rate=0.5, **agent.address)
    for _ in range(500):
        bus.execute(("my", "event"), {"x": 1}, {})
    assert handler.flush()

    found = lines(agent)

    assert set(found) == {b"c:1|c|@0.5", b"g:1|g"}
    assert 150 < found.count(b"g:1|g") < 350


def test_messages_are_left_out_by_default_and_said_to_be_when_asked_for(client, agent, caplog):
    metrics = client(dialect="statsd", **agent.address)
    metrics.event("title", "text")
    metrics.service_check("check", "OK")
    metrics.set("users", "ann|bob")
    assert metrics.flush()

    assert lines(agent) == [b"users:ann_bob|s"]
    assert caplog.text.count("leaves events and service checks out") == 1


def test_a_small_rate_has_no_exponent_and_tags_are_not_spoken_of(bus, attach, agent, caplog):
    from handlers.datadog_statements import Point
    from handlers.plain_statsd import PlainStatsdLines

    dialect = PlainStatsdLines("datadog", 1432)
    point = Point("count", "n", 1.0, (), 5e-05, 0)
    written = (dialect.lines(point)[0] for _ in range(10_000_000))
    assert next(line for line in written if line) == [b"n:1|c|@0.00005"]

    metrics = [last_value("my.event.x", tags=["run"])]
    with attach(dialect="statsd", max_tag_values=1, metrics=metrics, **agent.address):
        for number in range(3):
            bus.execute(("my", "event"), {"x": 1}, {"run": number})
    assert "more than" not in caplog.text

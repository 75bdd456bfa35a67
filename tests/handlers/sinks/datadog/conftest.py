"""An agent on loopback, which takes what the published grammar of DogStatsD allows and no more.

https://docs.datadoghq.com/extend/dogstatsd/datagram_shell (v1.0 to v1.3)
"""

import math
import re
import socket
from typing import NamedTuple

import pytest

import handlers
from handlers.datadog import DatadogMetrics

NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,199}")
ALERT_TYPES = {"error", "warning", "info", "success"}
METRIC_FIELDS = {"@": "rate", "#": "tags", "c:": "container", "e:": "external", "T": "timestamp"}
EVENT_FIELDS = {
    "d:": "timestamp",
    "h:": "host",
    "k:": "key",
    "p:": "priority",
    "s:": "source",
    "t:": "alert_type",
    "#": "tags",
    "c:": "container",
}
CHECK_FIELDS = {"d:": "timestamp", "h:": "host", "#": "tags", "m:": "message", "c:": "container"}


class Metric(NamedTuple):
    name: str
    values: list
    kind: str
    rate: float
    tags: set
    timestamp: int | None


class Event(NamedTuple):
    title: str
    text: str
    alert_type: str
    tags: set
    timestamp: int
    key: str | None


class Check(NamedTuple):
    name: str
    status: int
    message: str
    tags: set
    timestamp: int


def parse(datagram):
    """The lines of a datagram; AssertionError if one is not as the grammar has it."""
    text = datagram.decode("utf-8")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text), text
    return [parse_line(line) for line in text.removesuffix("\n").split("\n")]


def parse_line(line):
    if line.startswith("_e{"):
        return parse_event(line)
    return parse_check(line) if line.startswith("_sc|") else parse_metric(line)


def parse_metric(line):
    head, kind, *rest = line.split("|")
    name, *packed = head.split(":")
    assert NAME.fullmatch(name), line
    assert kind in {"c", "g", "ms", "h", "s", "d"}, line
    assert packed, line
    if kind == "s":
        assert len(packed) == 1, line
        assert packed[0], line
        values = packed
    else:
        assert all(NUMBER.fullmatch(value) for value in packed), line
        values = [float(value) for value in packed]
        assert all(map(math.isfinite, values)), line
    fields = parse_fields(rest, METRIC_FIELDS)
    rate = 1.0
    if "rate" in fields:
        assert kind in {"c", "ms", "h", "d"}, f"{line}: no sample rate of such a metric"
        assert NUMBER.fullmatch(fields["rate"]), line
        rate = float(fields["rate"])
        assert 0 < rate <= 1, line
    timestamp = fields.get("timestamp")
    assert timestamp is None or (kind in {"c", "g"} and timestamp.isdigit()), line
    tags = parse_tags(fields)
    return Metric(name, values, kind, rate, tags, None if timestamp is None else int(timestamp))


def parse_event(line):
    header = re.match(r"_e\{(\d+),(\d+)\}:", line)
    assert header, line
    title_size, text_size = map(int, header.groups())
    assert title_size > 0, line
    assert text_size > 0, line
    body = line[header.end() :].encode()
    title, bar, text = (
        body[:title_size],
        body[title_size : title_size + 1],
        body[title_size + 1 : title_size + 1 + text_size],
    )
    assert bar == b"|", line
    assert len(text) == text_size, line
    rest = body[title_size + 1 + text_size :].decode()
    assert rest.startswith("|"), line
    fields = parse_fields(rest[1:].split("|"), EVENT_FIELDS)
    assert fields.get("alert_type", "info") in ALERT_TYPES, line
    return Event(
        title.decode(),
        text.decode().replace("\\n", "\n"),
        fields.get("alert_type", "info"),
        parse_tags(fields),
        int(fields["timestamp"]),
        fields.get("key"),
    )


def parse_check(line):
    _, name, status, *rest = line.split("|")
    assert NAME.fullmatch(name), line
    assert status in {"0", "1", "2", "3"}, line
    fields = parse_fields(rest, CHECK_FIELDS)
    order = [key for key in fields if key != "container"]
    assert "message" not in order or order[-1] == "message", f"{line}: the message comes last"
    message = fields.get("message", "")
    assert not re.search(r"(?<!\\)m:|(?<=m)(?<!\\):", message.replace("m\\:", "")), line
    message = message.replace("\\n", "\n").replace("m\\:", "m:")
    return Check(name, int(status), message, parse_tags(fields), int(fields["timestamp"]))


def parse_fields(parts, known):
    fields = {}
    for part in parts:
        sign = next((sign for sign in known if part.startswith(sign)), None)
        assert sign is not None, f"{part!r} is no field"
        assert known[sign] not in fields, f"{part!r} is there twice"
        fields[known[sign]] = part.removeprefix(sign)
    return fields


def parse_tags(fields):
    if "tags" not in fields:
        return set()
    tags = fields["tags"].split(",")
    for tag in tags:
        assert tag[:1].isalpha(), tag
        assert len(tag) <= 200, tag
        assert re.fullmatch(r"[\w\-:./]+", tag), tag
        assert tag == tag.lower(), tag
        assert not tag.endswith(":"), tag
    assert len(set(tags)) == len(tags), tags
    return set(tags)


class Agent:
    """What a sink sends to, with the end that a test reads."""

    def __init__(self, bound, size, **address):
        self.socket = bound
        self.socket.setblocking(False)  # noqa: FBT003 -- sockets have it so
        self.size = size
        self.address = address

    def datagrams(self):
        """What has come by now."""
        while True:
            try:
                datagram = self.socket.recv(65536)
            except BlockingIOError:
                return
            assert 0 < len(datagram) <= self.size
            yield datagram

    def read(self):
        """What has come by now, parsed."""
        return [line for datagram in self.datagrams() for line in parse(datagram)]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """Without what this machine's environment says to Datadog's client."""
    import os

    for name in os.environ:
        if name.startswith(("DD_", "DATADOG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DD_ORIGIN_DETECTION_ENABLED", "false")


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch):
    """A busy machine has its time: five seconds are for users, who wait for them."""
    monkeypatch.setattr("handlers.datadog_client.FLUSH_TIMEOUT", 60.0)


@pytest.fixture
def agent():
    """An agent that listens on UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        bound.bind(("127.0.0.1", 0))
        yield Agent(bound, 1432, host="127.0.0.1", port=bound.getsockname()[1])


@pytest.fixture
def unix_agent(tmp_path):
    """An agent that listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "dsd.socket"))
        yield Agent(bound, 8192, socket_path=str(tmp_path / "dsd.socket"))


@pytest.fixture
def attach(bus):
    """Attach the handler to the test's bus."""

    def attach(**options):
        return handlers.attach("datadog", registry=bus, **options)

    return attach


@pytest.fixture
def client():
    """Make clients, which are closed at the end."""
    made = []

    def make(**options):
        made.append(DatadogMetrics(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def grammar():
    """The parser itself."""
    return parse

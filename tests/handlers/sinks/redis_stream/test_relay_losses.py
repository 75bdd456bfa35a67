"""`telemetry relay`, when a handler loses something, or the server has lost it before."""

import os
import signal
import threading
import time

import pytest

import handlers.stopping

END = ("--until-idle", 0)
STEPS = ("--option", "events=training.*")  # and not what is announced on the relay's own bus
JSONL = ("--to", "jsonl", "--option", "path=m.jsonl")


def announced(records):
    """How many events each announcement says were lost."""
    return [
        record["measurements"]["dropped"]
        for record in records
        if record["event"] == "telemetry.handler.overflow"
    ]


def test_what_a_full_disk_did_not_take_is_not_acknowledged(server, send, relay, pending):
    send(0, 1, 2)
    done = relay("--to", "jsonl", "--option", "path=/dev/full", *STEPS, *END, expect=1)
    assert done.stderr.splitlines()[-2:] == [
        "Relayed 0 events.",
        (
            "Error: Handler 'jsonl' could not deliver all that it was given last (events lost: 3). "
            "It is not acknowledged: the next relay of the group gets it."
        ),
    ]
    assert pending() == 3


def test_what_the_other_end_refuses_is_counted_and_acknowledged(
    server, send, relay, pending, receiver
):
    receiver.answers = [(400, {}), (200, {}), (400, {})]
    send(0, 1, 2)
    done = relay("--to", "webhook", "--option", f"url={receiver.url}", *STEPS, *END, expect=1)
    assert done.stderr.splitlines()[-1] == "Relayed 3 events; lost: 2 (undelivered)."
    assert pending() == 0


def test_losses_that_were_relayed_are_not_those_of_the_relay(
    server, bus, url, relay, read, tmp_path
):
    with handlers.attach("redis", registry=bus, url=url):
        metadata = {"handler_id": "jsonl", "policy": "disk_full"}
        bus.execute(("telemetry", "handler", "overflow"), {"dropped": 7}, metadata)
    done = relay(*JSONL, *END)
    assert done.stderr.splitlines()[-1] == "Relayed 1 events."
    assert announced(read(tmp_path / "m.jsonl")) == [7]


def test_a_first_relay_tells_what_the_bound_had_removed_before(
    server, bus, url, relay, tmp_path, read, client, start_relay, wait_until
):
    options = {"url": url, "max_length": 500, "overflow": "block"}
    with handlers.attach("redis", registry=bus, **options):
        for step in range(3000):
            bus.execute(("training", "step"), {"loss": 0.5}, {"step": step})
    left = client.xlen("trainbus")
    assert left < 1000
    path = tmp_path / "m.jsonl"
    relay = start_relay("--to", "jsonl", "--option", f"path={path}", "--until-idle", 2.5)
    relay.communicate(timeout=300)
    assert relay.returncode == 0
    records = read(path)
    assert announced(records) == [3000 - left]
    assert len(records) == left + 1


def test_of_a_read_that_was_trimmed_the_rest_is_still_its_own(
    server, send, relay, client, tmp_path, read, pending
):
    """The first 500 of its entries are gone, and those behind them are not."""
    send(*range(600))
    client.xgroup_create("trainbus", "relay", "0")
    client.xreadgroup("relay", "c", {"trainbus": ">"}, count=600)
    client.xtrim("trainbus", maxlen=100, approximate=False)
    relay("--consumer", "c", *JSONL, *END)
    records = read(tmp_path / "m.jsonl")
    steps = [r["metadata"]["step"] for r in records if r["event"] == "training.step"]
    assert steps == list(range(500, 600))
    assert sum(announced(records)) == 500
    assert pending() == 0


DEEP = "[" * 900 + "1" + "]" * 900
RECORD = '{"timestamp":"2026-11-21T10:30:00Z","event":"a.b","measurements":%s,"metadata":%s}'


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"record": RECORD % (f'{{"x":{DEEP}}}', "{}")},
            "'measurements' is nested deeper than 100 levels",
        ),
        (
            {"record": RECORD % ("{}", f'{{"x":{DEEP}}}')},
            "'metadata' is nested deeper than 100 levels",
        ),
        (
            {"record": RECORD % ("{}", "{}"), "time_ns": "9" * 30},
            "its time is not between 1970 and 2262",
        ),
        (
            {"record": RECORD % ("{}", "{}"), "time_ns": "-1"},
            "its time is not between 1970 and 2262",
        ),
        (
            {
                "record": (RECORD % ("{}", "{}")).replace(
                    "2026-11-21T10:30:00Z", "0001-01-01T00:00Z"
                )
            },
            "its time is not between 1970 and 2262",
        ),
    ],
)
def test_an_entry_that_no_handler_could_take_is_left_out(
    server, send, relay, client, tmp_path, read, steps, pending, fields, problem
):
    key = client.xadd("trainbus", fields)
    send(0)
    done = relay(*JSONL, *END)
    assert f"Entry {key} is left out: {problem}." in done.stderr
    assert done.stderr.splitlines()[-1] == "Relayed 1 events; left out: 1 that are no events."
    assert steps(read(tmp_path / "m.jsonl")) == [0]
    assert pending() == 0


def test_a_server_that_is_away_does_not_keep_a_relay_that_ends_by_itself(relay, socket_path):
    began = time.monotonic()
    done = relay(*JSONL, "--until-idle", 0.2, "--consumer", "c", expect=1)
    assert time.monotonic() - began < 30
    assert done.stderr.splitlines()[-2:] == [
        "Relayed 0 events.",
        (
            "Error: The server cannot be reached: stream 'trainbus' of "
            f"unix://{socket_path}?db=*** (group 'relay', consumer 'c')."
        ),
    ]


@pytest.mark.parametrize("option", ["--until-idle", "--claim-after"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e12", "soon"])
def test_seconds_that_nobody_can_wait_for_are_refused(relay, option, value):
    said = relay(*JSONL, option, value, expect=2).stderr.splitlines()[-1]
    assert said.startswith(f"Error: Invalid value for '{option}': ")


def test_a_relay_onto_the_stream_that_it_reads_is_refused(server, relay, url):
    arguments = ("--to", "redis", "--option", f"url={url}", *END)
    done = relay(*arguments, expect=1)
    assert done.stderr.splitlines()[-1].startswith(
        "Error: Handler 'redis' would write to the stream that is read, 'trainbus' of unix://"
    )
    relay(*arguments, "--option", "stream=other")
    relay("--to", "redis", "--option", f"url={url.replace('db=0', 'db=1')}", *END)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("redis://localhost", "redis://127.0.0.1:6379/0", True),
        ("redis://h:6379/1", "redis://u:p@h?db=1", True),
        ("redis://h/1", "redis://h/2", False),
        ("redis://h:1/0", "redis://h:2/0", False),
        ("unix:///a?db=1", "unix:///a?db=1&protocol=3", True),
        ("unix:///a", "unix:///b", False),
    ],
)
def test_two_urls_of_one_database_are_told(one, other, same):
    from handlers.redis_server import RedisServer

    places = [RedisServer("r", url, timeout=1.0).place for url in (one, other)]
    assert (places[0] == places[1]) is same


def test_a_batch_is_held_however_slow_its_handlers_are(
    server, send, start_relay, tmp_path, read, steps, client, wait_until
):
    """A flush takes longer than a relay may be silent, and than it waits at once."""
    slow = tmp_path / "slow_site"
    (slow / "slow-1.dist-info").mkdir(parents=True)
    (slow / "slow-1.dist-info" / "METADATA").write_text("Name: slow\nVersion: 1\n")
    (slow / "slow-1.dist-info" / "entry_points.txt").write_text(
        "[trainbus.handlers]\nslow = slow_sink:create\n"
    )
    (slow / "slow_sink.py").write_text(SLOW)
    sinks = [part for n in range(3) for part in ("--to", "slow", "--option", f"path=s{n}")]
    send(0)
    relays = [
        start_relay(*sinks, "--claim-after", 4.5, "--consumer", name, site=slow) for name in "ab"
    ]
    wait_until(lambda: client.exists("trainbus") and client.xinfo_groups("trainbus"))
    wait_until(
        lambda: (
            client.xinfo_groups("trainbus")[0]["pending"] == 0
            and client.xinfo_groups("trainbus")[0]["lag"] == 0
        )
    )
    for one in relays:
        one.terminate()
        one.communicate(timeout=300)
    assert [(tmp_path / f"s{n}").read_text() for n in range(3)] == ["x", "x", "x"]


SLOW = """
import time


class Slow:
    delivery = "background"

    def __init__(self, path):
        self.path = path

    def __call__(self, event, measurements, metadata, config):
        with open(self.path, "a") as file:
            file.write("x")

    def flush(self):
        time.sleep(6)


def create(site, *, path):
    return Slow(path)
"""


def test_handlers_that_hang_end_together(server, send, relay, monkeypatch, receiver, wait_until):
    monkeypatch.setattr(handlers.stopping, "GRACE", 0.1)
    send(0)
    receiver.hangs = True
    sinks = [
        part
        for number in range(6)
        for part in (
            *("--to", "webhook", "--option", f"url={receiver.url}", "--option", f"id=w{number}"),
            *("--option", "flush_timeout=3", "--option", "timeout=60"),
        )
    ]
    began = []

    def interrupt():
        wait_until(lambda: len(receiver.requests) == 6)
        began.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    relay(*sinks, expect=1)
    assert time.monotonic() - began[0] < 15  # and not six times three seconds
    interrupting.join()


def test_a_mapping_can_have_what_comes_from_a_variable(server, send, relay, receiver):
    send(0)
    header = 'headers={"Authorization": "env:T"}'
    relay("--to", "webhook", "--option", f"url={receiver.url}", "--option", header, *END, T="key")
    assert [headers["Authorization"] for _, headers, _ in receiver.requests] == ["key"]

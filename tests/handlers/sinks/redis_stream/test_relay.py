"""`telemetry relay`: from a stream to handlers, with the times, values and order of the events."""

import os
import socket
import subprocess
import sys

import handlers
from handlers.clock import at_time

LONG_AGO = 1795257000123456789


def test_a_file_behind_a_relay_is_the_file_beside_it(server, url, bus, relay, tmp_path, read):
    with (
        handlers.attach("redis", registry=bus, url=url),
        handlers.attach("jsonl", registry=bus, path=tmp_path / "beside.jsonl", background=True),
        at_time(LONG_AGO),  # two handlers look at the clock at two moments
    ):
        bus.execute(("training", "step"), {"loss": 2.5, "bad": float("nan")}, {"step": 1})
        bus.execute(("training", "step"), {"norms": [1.5, float("-inf")]}, {"name": "NaN"})
        with bus.span(("custom_loss",), {"model_id": "m"}), bus.span(("inner",)):
            pass
        bus.execute(("alert", "raised"), {"n": 2**70}, {"path": tmp_path, "none": None})
    relay("--to", "jsonl", "--option", "path=behind.jsonl", "--until-idle", 0)
    behind = read(tmp_path / "behind.jsonl")
    assert {record["timestamp"] for record in behind} == {"2026-11-21T10:30:00.123456Z"}
    assert [record["metadata"].pop("host") for record in behind] == [socket.gethostname()] * 7
    assert behind == read(tmp_path / "beside.jsonl")


def test_what_was_relayed_is_not_relayed_again(
    server, send, relay, tmp_path, read, steps, client, pending
):
    arguments = ("--to", "jsonl", "--option", "path=m.jsonl", "--until-idle", 0)
    send(*range(1200))
    first = relay(*arguments)
    assert first.stderr.splitlines()[-1] == "Relayed 1,200 events."
    assert first.stdout == ""
    send(1200, 1201)
    relay(*arguments)
    assert steps(read(tmp_path / "m.jsonl")) == list(range(1202))
    assert pending() == 0
    assert client.xinfo_consumers("trainbus", "relay") == []  # none is left behind


def test_each_group_gets_everything(server, send, relay, tmp_path, read, steps):
    send(0, 1, 2)
    for group in ("a", "b"):
        option = f"path={group}.jsonl"
        relay("--group", group, "--to", "jsonl", "--option", option, "--until-idle", 0)
    assert steps(read(tmp_path / "a.jsonl")) == [0, 1, 2]
    assert steps(read(tmp_path / "b.jsonl")) == [0, 1, 2]


def test_a_new_group_can_begin_with_what_comes(
    server, send, start_relay, tmp_path, read, steps, client, wait_until
):
    send(0, 1)
    relay = start_relay("--new", "--count", 2, "--to", "jsonl", "--option", "path=m.jsonl")
    wait_until(lambda: client.xinfo_groups("trainbus"))
    send(2, 3, 4)
    assert relay.wait(60) == 0
    assert steps(read(tmp_path / "m.jsonl")) == [2, 3]


def test_several_handlers_each_with_its_options(server, send, relay, tmp_path, read, steps):
    send(0, 1, 2, 3)
    done = relay(
        *("--to", "jsonl", "--option", "path=all.jsonl"),
        *("--to", "jsonl", "--option=path=few.jsonl", "--option", "every=2"),
        *("--to=tensorboard", "--option", "log_dir=board"),
        *("--until-idle", 0),
    )
    assert "to jsonl, jsonl-2, tensorboard." in done.stderr
    assert steps(read(tmp_path / "all.jsonl")) == [0, 1, 2, 3]
    assert steps(read(tmp_path / "few.jsonl")) == [0, 2]
    assert len(list((tmp_path / "board").glob("events.out.*"))) == 1


def test_handlers_from_a_file(server, send, relay, tmp_path, read, steps):
    (tmp_path / "relay.toml").write_text(
        """
        [[to]]
        handler = "jsonl"
        path = "all.jsonl"

        [[to]]
        handler = "jsonl"
        id = "evaluations"
        path = "env:WHERE"
        events = ["training.eval", "alert.**"]
        """
    )
    send(0, 1)
    relay("--config", "relay.toml", "--until-idle", 0, WHERE="few.jsonl")
    assert steps(read(tmp_path / "all.jsonl")) == [0, 1]
    assert read(tmp_path / "few.jsonl") == []


def test_the_rank_and_the_host_are_told_unless_the_event_says_them(
    server, send, relay, tmp_path, read, monkeypatch
):
    monkeypatch.setenv("RANK", "3")
    send(0)
    send(1, rank="mine", host="here")
    monkeypatch.delenv("RANK")
    relay("--to", "jsonl", "--option", "path=m.jsonl", "--until-idle", 0)
    assert [record["metadata"] for record in read(tmp_path / "m.jsonl")] == [
        {"step": 0, "rank": 3, "host": socket.gethostname()},
        {"step": 1, "rank": "mine", "host": "here"},
    ]


def test_an_entry_that_was_sent_twice_is_relayed_once(
    server, send, relay, client, tmp_path, read, steps
):
    send(0, 1)
    for fields in [fields for _, fields in client.xrange("trainbus")]:
        client.xadd("trainbus", fields)
    send(2)
    done = relay("--to", "jsonl", "--option", "path=m.jsonl", "--until-idle", 0)
    assert steps(read(tmp_path / "m.jsonl")) == [0, 1, 2]
    assert done.stderr.splitlines()[-1] == "Relayed 3 events; left out: 2 that came twice."


def test_an_entry_that_is_no_event_is_left_out_and_counted(
    server, send, relay, client, tmp_path, read, steps, pending
):
    strange = client.xadd("trainbus", {"temperature": 21})
    client.xadd("trainbus", {"record": "{"})
    send(0)
    done = relay("--to", "jsonl", "--option", "path=m.jsonl", "--until-idle", 0)
    assert steps(read(tmp_path / "m.jsonl")) == [0]
    assert f"Entry {strange} is left out: it has no field 'record'." in done.stderr
    assert done.stderr.count("is left out") == 1
    assert done.stderr.splitlines()[-1] == "Relayed 1 events; left out: 2 that are no events."
    assert pending() == 0


def test_a_reader_that_speaks_the_newer_protocol(server, send, url, relay, tmp_path, read, steps):
    send(0, 1)
    arguments = ("--to", "jsonl", "--option", "path=m.jsonl", "--until-idle", 0)
    relay(*arguments, place=f"{url}&protocol=3&decode_responses=True")
    assert steps(read(tmp_path / "m.jsonl")) == [0, 1]


FOUR = """
import sys
import handlers, telemetry

handlers.attach("redis", url=sys.argv[1], ranks="all")
for step in range(250):
    telemetry.execute(("training", "step"), {"loss": 0.5}, {"step": step})
telemetry.detach("redis")
"""


def test_four_ranks_and_a_relay_make_one_file(server, url, relay, tmp_path, read, entries):
    script = tmp_path / "rank.py"
    script.write_text(FOUR)
    command = [sys.executable, "-W", "error", script, url]
    ranks = [subprocess.Popen(command, env={**os.environ, "RANK": str(n)}) for n in range(4)]
    assert [rank.wait(60) for rank in ranks] == [0, 0, 0, 0]
    sent = entries()
    assert len({fields["id"] for fields in sent}) == 1000
    assert {(int(fields["rank"]), int(fields["pid"])) for fields in sent} == {
        (number, rank.pid) for number, rank in enumerate(ranks)
    }
    relay("--to", "jsonl", "--option", "path=m.jsonl", "--until-idle", 0)
    records = read(tmp_path / "m.jsonl")
    by_rank = {
        rank: [r["metadata"]["step"] for r in records if r["metadata"]["rank"] == rank]
        for rank in range(4)
    }
    assert by_rank == {rank: list(range(250)) for rank in range(4)}

"""`telemetry relay`, when something goes wrong: nothing is acknowledged that was not delivered."""

import os
import signal
import threading
import time

import pytest

import handlers.stopping


def test_a_relay_that_is_killed_loses_nothing(
    server, send, start_relay, relay, tmp_path, read, steps, wait_until, pending
):
    """What it had not acknowledged comes again, to the relay that takes its name."""
    path = tmp_path / "m.jsonl"
    arguments = ("--consumer", "c", "--to", "jsonl", "--option", f"path={path}")
    send(*range(6000))
    first = start_relay(*arguments)
    wait_until(lambda: path.exists() and path.stat().st_size > 0)
    first.kill()
    first.wait()
    left = pending()
    relay(*arguments, "--until-idle", 0)
    found = steps(read(path))
    assert sorted(set(found)) == list(range(6000))
    assert len(found) - 6000 <= left <= 500
    assert pending() == 0


def test_another_relay_takes_what_a_dead_one_left(
    server, send, relay, client, tmp_path, read, steps, pending
):
    send(0, 1, 2)
    client.xgroup_create("trainbus", "relay", "0")
    client.xreadgroup("relay", "dead", {"trainbus": ">"}, count=2)
    arguments = ("--to", "jsonl", "--option", "path=m.jsonl", "--until-idle")
    relay(*arguments, 0)
    assert steps(read(tmp_path / "m.jsonl")) == [2]
    assert pending() == 2
    time.sleep(0.01)
    relay(*arguments, 0, "--claim-after", 0.001)
    assert steps(read(tmp_path / "m.jsonl")) == [2, 0, 1]
    assert pending() == 0


def test_two_relays_of_a_group_share_the_events(
    server, send, start_relay, tmp_path, read, steps, client, wait_until
):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    relays = [start_relay("--to", "jsonl", "--option", f"path={path}") for path in paths]

    def both_wait():
        groups = client.xinfo_groups("trainbus") if client.exists("trainbus") else []
        return groups and groups[0]["consumers"] == 2

    wait_until(both_wait)
    sent = 0

    def both_have_some():
        nonlocal sent
        send(*range(sent, sent + 100))
        sent += 100
        return all(path.exists() and path.stat().st_size for path in paths)

    wait_until(both_have_some)
    wait_until(lambda: client.xinfo_groups("trainbus")[0]["lag"] == 0)
    for one in relays:
        one.terminate()
        assert one.wait(60) == 0
    shares = [steps(read(path)) for path in paths]
    assert sorted(shares[0] + shares[1]) == list(range(sent))
    assert all(shares)
    assert all(share == sorted(share) for share in shares)


def test_a_handler_that_fails_ends_the_relay_and_nothing_is_acknowledged(
    server, send, relay, client, tmp_path, pending
):
    client.set("elsewhere", "no stream")
    send(0, 1)
    url = f"url=unix://{tmp_path}/redis.sock"
    done = relay(
        *("--to", "redis", "--option", url, "--option", "stream=elsewhere"),
        *("--until-idle", 0),
        expect=1,
    )
    assert "Handler 'redis' failed on event training.step and was detached" in done.stderr
    assert done.stderr.splitlines()[-1] == (
        "Error: Handler 'redis' has failed and was detached. What it was given last is not "
        "acknowledged: the next relay of the group gets it."
    )
    assert pending() == 2


def test_a_handler_that_cannot_deliver_is_waited_for_until_the_relay_is_told_to_stop(
    server, send, tmp_path, wait_until, client, pending, relay, read, steps, monkeypatch
):
    monkeypatch.setattr(handlers.stopping, "GRACE", 0.1)
    send(0)

    def interrupt():
        wait_until(lambda: client.xinfo_groups("trainbus"))
        wait_until(lambda: pending() == 1)
        os.kill(os.getpid(), signal.SIGINT)

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    nobody_listens = ("--option", "url=redis://127.0.0.1:1/0", "--option", "flush_timeout=0.1")
    done = relay("--to", "redis", *nobody_listens, expect=1)
    interrupting.join()
    assert "Relayed 0 events." in done.stderr.splitlines()
    assert done.stderr.splitlines()[-1] == (
        "Error: Handler 'redis' has not delivered in time what it was given last (entries: 1). It "
        "is not acknowledged: the next relay of the group gets it."
    )
    assert pending() == 1
    time.sleep(0.01)
    relay("--to", "jsonl", "--option", "path=m.jsonl", "--until-idle", 0, "--claim-after", 0.001)
    assert steps(read(tmp_path / "m.jsonl")) == [0]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_relay_in_good_order(
    server, send, start_relay, tmp_path, read, steps, wait_until, pending, name
):
    path = tmp_path / "m.jsonl"
    relay = start_relay("--to", "jsonl", "--option", f"path={path}")
    send(*range(100))
    wait_until(lambda: path.exists() and path.stat().st_size > 0)
    relay.send_signal(getattr(signal, name))
    _, said = relay.communicate(timeout=300)
    assert relay.returncode == 0
    assert said.splitlines()[-1].startswith("Relayed ")
    delivered = steps(read(path))
    assert delivered == list(range(len(delivered)))
    assert pending() == 0


def test_a_relay_waits_for_a_server_that_is_away(
    start, send, start_relay, tmp_path, read, steps, wait_until
):
    path = tmp_path / "m.jsonl"
    relay = start_relay("--count", 2, "--to", "jsonl", "--option", f"path={path}")
    before = [next(relay.stderr) for _ in range(2)]
    assert before[1].startswith("Handler 'telemetry relay' cannot reach unix://")
    start()
    send(0, 1)
    _, after = relay.communicate(timeout=300)
    assert relay.returncode == 0
    assert steps(read(path)) == [0, 1]
    assert after.count("reaches unix://") == 1
    assert "cannot reach" not in after


def test_a_relay_goes_on_when_the_server_has_lost_the_stream(
    server, send, start_relay, tmp_path, read, steps, client, wait_until
):
    path = tmp_path / "m.jsonl"
    relay = start_relay("--to", "jsonl", "--option", f"path={path}", "--count", 2)
    send(0)
    wait_until(lambda: path.exists() and path.stat().st_size > 0)
    client.delete("trainbus")
    send(1)
    _, said = relay.communicate(timeout=300)
    assert relay.returncode == 0
    assert steps(read(path)) == [0, 1]
    assert "Stream 'trainbus' has lost its group 'relay'" in said


def test_what_the_bound_removed_unread_is_announced(server, send, relay, client, tmp_path, read):
    arguments = ("--to", "jsonl", "--option", "path=m.jsonl", "--until-idle", 0)
    send(0)
    relay(*arguments)
    send(*range(1, 101))
    client.xtrim("trainbus", maxlen=40, approximate=False)
    done = relay(*arguments)
    assert (
        "Handler 'telemetry relay', events lost so far: 60 (trimmed): the stream is longer than "
        "it may be"
    ) in done.stderr
    records = read(tmp_path / "m.jsonl")
    announced = [record for record in records if record["event"] == "telemetry.handler.overflow"]
    assert [record["measurements"] for record in announced] == [{"dropped": 60}]
    assert len(records) == 1 + 40 + 1


def test_what_was_removed_before_it_was_acknowledged_is_announced(
    server, send, relay, client, tmp_path, read, pending
):
    send(0, 1, 2)
    client.xgroup_create("trainbus", "relay", "0")
    client.xreadgroup("relay", "c", {"trainbus": ">"})
    client.xtrim("trainbus", maxlen=1, approximate=False)
    done = relay(
        *("--consumer", "c", "--to", "jsonl", "--option", "path=m.jsonl", "--until-idle", 0)
    )
    assert "events lost so far: 2 (trimmed)" in done.stderr
    records = read(tmp_path / "m.jsonl")
    assert [r["metadata"]["step"] for r in records if r["event"] == "training.step"] == [2]
    assert [r["measurements"] for r in records if r["event"] != "training.step"] == [{"dropped": 2}]
    assert pending() == 0


def test_a_wrong_password_ends_a_relay_and_is_not_shown(start, socket_path, relay):
    start("--requirepass", "correct-horse")
    done = relay("--to", "memory", place=f"unix://:wrong-staple@{socket_path}", expect=1)
    assert "does not accept who is sending" in done.stderr
    assert "wrong-staple" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "Error: No handler is given. Write --to NAME, or --config FILE."),
        (
            ["--option", "path=x", "--to", "jsonl"],
            2,
            "Error: --option belongs to the --to before it: --to NAME --option ...",
        ),
        (
            ["--to", "jsonl"],
            2,
            (
                "Error: Invalid value for --option: Handler 'jsonl' needs the option 'path'. "
                "Write --option path=VALUE."
            ),
        ),
        (
            ["--to", "jsonl", "--option", "path=a", "--to", "console", "--option", "id=jsonl"],
            1,
            (
                "Error: Handler id 'jsonl' is already attached. Choose another with id=..., or "
                "detach it first: telemetry.detach('jsonl')."
            ),
        ),
        (
            ["--to", "jsonn"],
            1,
            (
                "Error: Unknown handler 'jsonn'. Known handlers: blinker, console, datadog, jsonl, "
                "memory, mlflow, opentelemetry, prometheus, redis, tensorboard, trackio, wandb, "
                "webhook. Did you mean 'jsonl'?"
            ),
        ),
        (
            ["--to", "jsonl", "--option", "path=a", "--option", "events=training..step"],
            1,
            (
                "Error: Event pattern ('training', '', 'step') has an empty segment. Every "
                "segment needs a name."
            ),
        ),
        (
            ["--config", "odd.toml"],
            2,
            (
                "Error: The file 'odd.toml' must have a table [[to]] for each handler, with its "
                'name as handler = "NAME" and its options, and nothing else.'
            ),
        ),
    ],
)
def test_a_command_that_cannot_be_run(relay, arguments, status, message, tmp_path):
    (tmp_path / "odd.toml").write_text("[[to]]\nname = 'jsonl'\n")
    said = relay(*arguments, expect=status).stderr.splitlines()[-1]
    assert said == message


def test_a_process_of_another_rank_runs_no_relay(relay):
    done = relay("--to", "memory", expect=1, RANK="1")
    assert done.stderr == (
        "Error: RANK=1 says that this is a process of a distributed run, and not its first, so "
        "handlers are not built. Start it with: env -u RANK ...\n"
    )


def test_a_bad_url_is_named_before_anything_is_opened(relay, tmp_path):
    arguments = ("--to", "jsonl", "--option", "path=m.jsonl")
    done = relay(*arguments, place="redis://u:hidden@h:0", expect=1)
    assert done.stderr == (
        "Error: url 'redis://***@h:0' is malformed. It must begin with redis:// or rediss:// or "
        "unix:// and name a host, with a port from 1 to 65535 if any, such as "
        "'redis://127.0.0.1:6379/0'.\n"
    )
    assert not (tmp_path / "m.jsonl").exists()

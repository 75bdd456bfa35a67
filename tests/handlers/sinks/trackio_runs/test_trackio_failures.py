"""A database that cannot be written, and events that nobody expects."""

import sqlite3
import time

import pytest

from handlers import DeliveryError

STEP = ("training", "step")


@pytest.fixture
def failures(bus):
    """What ``telemetry.handler.failure`` says."""
    failures = []
    bus.attach("failures", ("telemetry", "handler", "failure"), lambda *e: failures.append(e[2]))
    return failures


@pytest.fixture
def lock(database):
    """Lock the database, as another program does."""
    connections = []

    def lock():
        connections.append(sqlite3.connect(database, isolation_level=None))
        connections[-1].execute("BEGIN IMMEDIATE")
        return connections[-1]

    yield lock
    for connection in connections:
        connection.close()


def test_a_database_that_is_locked_gets_its_rows_later(
    attach, bus, rows, wait_until, caplog, database
):
    with attach() as attachment:
        kept = database.rename(database.with_suffix(".kept"))
        database.mkdir()  # "unable to open database file"
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
        wait_until(lambda: "cannot reach trackio's database" in caplog.text)
        bus.execute(STEP, {"loss": 2.0}, {"step": 2})
        assert attachment.active
        database.rmdir()
        kept.rename(database)
        wait_until(lambda: "again, after" in caplog.text)
    assert rows() == [(1, {"training/loss": 1.0}), (2, {"training/loss": 2.0})]


def test_what_cannot_be_written_to_the_end_is_counted(attach, bus, drops, database, ended):
    with attach(flush_timeout=0.3) as attachment:
        database.unlink()
        database.mkdir()
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
        bus.execute(STEP, {"loss": 1.0}, {"step": 2})
    ended(attachment)
    assert drops == [(2, {"handler_id": "trackio", "policy": "drop_oldest"})]
    database.rmdir()


def test_of_rows_that_wait_the_oldest_go(
    attach, bus, rows, drops, database, monkeypatch, wait_until
):
    monkeypatch.setattr("handlers.trackio.MOST", 3)
    with attach(events=STEP) as attachment:
        kept = database.rename(database.with_suffix(".kept"))
        database.mkdir()
        for step in range(1, 6):
            bus.execute(STEP, {"loss": 1.0}, {"step": step})
        assert attachment.flush(0.5) is False
        wait_until(lambda: attachment.lost == {"trackio_unwritable": 2})
        database.rmdir()
        kept.rename(database)
    assert [step for step, _ in rows()] == [3, 4, 5]
    assert sum(count for count, _ in drops) == 2
    assert {metadata["policy"] for _, metadata in drops} == {"trackio_unwritable"}


def test_a_database_that_is_none_detaches_the_handler(
    attach, bus, project, database, failures, ended
):
    with attach() as attachment:
        for file in database.parent.glob(f"{database.name}*"):
            file.unlink()
        database.write_text("no database" * 100)
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
        ended(attachment)
    assert not attachment.active
    (failure,) = failures
    assert isinstance(failure["reason"], DeliveryError)
    assert str(failure["reason"]) == (
        f"Handler 'trackio' cannot write the run 'a' of trackio's project {project!r}: "
        "DatabaseError: file is not a database"
    )


def test_what_a_locked_database_does_not_take_is_counted_when_detached(
    attach, bus, drops, rows, lock, wait_until
):
    attachment = attach(events=STEP, flush_timeout=1.5)
    bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    assert attachment.flush(60)
    holder = lock()
    for step in range(2, 102):
        bus.execute(STEP, {"loss": 1.0}, {"step": step})
    time.sleep(0.6)
    for step in range(102, 152):
        bus.execute(STEP, {"loss": 1.0}, {"step": step})
    attachment.detach()
    wait_until(lambda: sum(count for count, _ in drops) == 150)
    holder.close()
    assert [step for step, _ in rows()] == [1]


def test_a_flush_that_is_not_possible_lets_the_worker_go_on(attach, bus, drops, rows, lock):
    with attach(events=STEP, queue_size=50) as attachment:
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
        assert attachment.flush(60)
        holder = lock()
        bus.execute(STEP, {"loss": 1.0}, {"step": 2})
        assert attachment.flush(0.2) is False
        # More than wait in the queue, in a time in which it is emptied once at least.
        for step in range(3, 103):
            bus.execute(STEP, {"loss": 1.0}, {"step": step})
            time.sleep(0.03)
        holder.close()
    assert [step for step, _ in rows()] == list(range(1, 103))
    assert drops == []


def test_an_error_that_does_not_pass_counts_what_waited(
    attach, bus, drops, failures, lock, database, wait_until, ended, caplog
):
    with attach(events=STEP, flush_interval=0.2) as attachment:
        holder = lock()
        for step in (1, 2, 3):
            bus.execute(STEP, {"loss": 1.0}, {"step": step})
        wait_until(lambda: "cannot reach trackio's database" in caplog.text)
        holder.close()
        for file in database.parent.glob(f"{database.name}*"):
            file.unlink()
        database.write_text("no database" * 100)
        ended(attachment)
    assert not attachment.active
    assert [metadata["policy"] for _, metadata in drops] == ["refused"]
    assert sum(count for count, _ in drops) == 3
    assert len(failures) == 1
    assert "while it was being closed" not in caplog.text


class Mute:
    def __str__(self):
        raise RuntimeError("nothing to say")


def test_an_alert_may_say_anything(attach, bus, failures, select):
    with attach() as attachment:
        for text in ("a\ud800", Mute()):
            metadata = {"rule": text, "message": text, "severity": text, "step": 1}
            bus.execute(("alert", "raised"), {"value": 1.0}, metadata)
        assert attachment.flush(60)
        assert attachment.active
    assert failures == []
    found = select("select title, text, level from alerts order by id")
    assert found[0] == ("a\\ud800", "a\\ud800", "info")
    assert "Mute" in found[1][0]


def test_a_place_beyond_64_bits_is_none(attach, bus, rows, failures):
    with attach() as attachment:
        bus.execute(("training", "epoch"), {"loss": 1.0}, {"epoch": 10**400})
        assert attachment.flush(60)
    assert failures == []
    assert rows() == [(0, {"training/loss": 1.0})]

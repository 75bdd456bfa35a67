"""The way of lines into the engine."""

import os
import signal
import threading

import pytest

from telemetry.viewer.logs.columns import find_columns, pointer
from telemetry.viewer.logs.content import Content
from telemetry.viewer.logs.depth import depth_of
from telemetry.viewer.logs.engine import connect, interruptible


def test_ctrl_c_ends_work_of_the_engine():
    with connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT random() AS x FROM range(2_000_000)")
        begun = threading.Event()

        def work():
            begun.set()
            return connection.execute("SELECT count(*) FROM t a, t b WHERE a.x < b.x").fetchall()

        def press():
            begun.wait()
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=press).start()
        with pytest.raises(KeyboardInterrupt):  # it would take hours
            interruptible(connection, work)
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_an_error_of_the_work_is_its_own():
    with connect() as connection:
        with pytest.raises(ZeroDivisionError):
            interruptible(connection, lambda: 1 / 0)
        assert interruptible(connection, lambda: connection.execute("SELECT 2").fetchall()) == [
            (2,)
        ]


def test_another_thread_works_itself():
    with connect() as connection:
        seen = []
        thread = threading.Thread(
            target=lambda: seen.append(interruptible(connection, threading.current_thread))
        )
        thread.start()
        thread.join()
        assert seen == [thread]


def test_content_comes_in_whole_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"one\ntw")
    content = Content(path)
    assert content.unread == 6
    assert list(content.whole_lines()) == [b"one\n"]
    with path.open("ab") as file:
        file.write(b"o")
    assert list(content.whole_lines()) == []
    with path.open("ab") as file:
        file.write(b"\nthree\nfo")
    assert list(content.whole_lines()) == [b"two\nthree\n"]
    assert list(content.lines()) == [b"fo"]
    assert content.unread == 0
    assert not content.has_begun_anew()
    path.write_bytes(b"x\n")
    assert content.has_begun_anew()
    path.unlink()
    assert (content.has_begun_anew(), content.unread) == (False, 0)


def test_as_many_bytes_are_read_as_are_asked_for(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"one\ntwo\nthree\n")
    content = Content(path)
    pieces = [(list(content.whole_lines(5)), content.unread) for _ in range(3)]
    assert pieces == [([b"one\n"], 9), ([b"two\n"], 4), ([b"three\n"], 0)]


@pytest.mark.parametrize(
    ("text", "depth"),
    [("1", 0), ("{}", 1), ('{"a":[{}]}', 3), ('"[[["', 0), (r'{"\"[":1}', 1), ("[" * 9, 9)],
)
def test_how_deep_a_text_is(text, depth):
    assert depth_of(text) == depth


def test_pointers_escape_what_they_must():
    assert pointer("a/b", "c~d", "") == "/a~1b/c~0d/"


def test_columns_are_found_in_what_is_new(write, step_of, open_records):
    log = write("log.jsonl", [step_of(1, 1.0), {"loss": 1}])
    records = open_records(log)
    assert list(find_columns(records)) == ["training.loss", "loss"]
    assert list(find_columns(records, after=0)) == ["loss"]
    assert list(find_columns(records, after=1)) == []


def test_a_key_of_text_is_no_column_of_numbers(write, open_records):
    measured = [{"x": 1, "note": "7"}, {"x": "NaN"}, {"x": "12"}, {"x": str(2**64)}]
    lines = [{"event": "a", "measurements": each, "metadata": {}} for each in measured]
    records = open_records(write("log.jsonl", lines))
    columns = find_columns(records)
    values = ", ".join(columns[name].value for name in ("a.x", "a.note"))
    rows = records.rows(f"SELECT {values} FROM records")  # noqa: S608 -- the columns' own SQL
    assert rows[0] == (1.0, None)
    assert rows[1][0] != rows[1][0]
    assert rows[2:] == [(None, None), (18446744073709551616.0, None)]

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading

import pytest

import handlers
from telemetry import Registry

STEP = ("training", "step")
OVERFLOW = ("telemetry", "handler", "overflow")

# Emits events as fast as it can, and says through a pipe after each that execute has returned.
EMITTER = """
import os, sys
import handlers, telemetry
handlers.attach("jsonl", path=sys.argv[1])
step = 0
while True:
    text = "x" * (step % 300)
    telemetry.execute(("training", "step"), {"loss": 0.5, "text": text}, {"step": step})
    os.write(1, b".")
    step += 1
"""


def emit_all(path, count=1, registry=None):
    bus = registry or Registry()
    with handlers.attach("jsonl", path=path, registry=bus):
        for number in range(count):
            bus.execute(STEP, {"loss": 0.5}, {"step": number})


# several writers


def test_eight_threads_leave_whole_lines(bus, tmp_path, read):
    path = tmp_path / "m.jsonl"
    handlers.attach("jsonl", path=path, registry=bus)

    def emit(thread):
        for number in range(300):
            bus.execute(STEP, {"text": "x" * random.randrange(5000)}, {"step": (thread, number)})

    threads = [threading.Thread(target=emit, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = [tuple(record["metadata"]["step"]) for record in read(path)]
    assert sorted(seen) == [(thread, number) for thread in range(8) for number in range(300)]


def test_four_processes_leave_whole_lines(tmp_path, read):
    path = tmp_path / "m.jsonl"
    source = """
import sys
import handlers, telemetry
handlers.attach("jsonl", path=sys.argv[1])
for step in range(500):
    text = "x" * (step * 37 % 9000)
    telemetry.execute(("training", "step"), {"text": text}, {"step": step, "who": sys.argv[2]})
"""
    children = [
        subprocess.Popen([sys.executable, "-c", source, path, who]) for who in ("a", "b", "c", "d")
    ]
    assert [child.wait(60) for child in children] == [0] * 4
    records = read(path)
    for who in ("a", "b", "c", "d"):
        assert [r["metadata"]["step"] for r in records if r["metadata"]["who"] == who] == list(
            range(500)
        )


def test_threads_that_write_while_the_handler_is_detached_write_to_no_other_file(tmp_path, read):
    other = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR)
    os.close(other)
    for round_number in range(30):
        bus = Registry()
        path = tmp_path / f"{round_number}.jsonl"
        attachment = handlers.attach("jsonl", path=path, registry=bus)
        started = threading.Barrier(3)
        emitted = []

        def emit(bus=bus, started=started, emitted=emitted):
            started.wait()
            for number in range(50):
                bus.execute(STEP, {"x": 1}, {"step": number})
            emitted.append(None)

        threads = [threading.Thread(target=emit) for _ in range(2)]
        for thread in threads:
            thread.start()
        started.wait()
        attachment.detach()
        number = os.open(tmp_path / "other", os.O_RDWR)  # takes the number that was closed
        for thread in threads:
            thread.join()
        assert os.fstat(number).st_size == 0
        os.close(number)
        read(path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_process_killed_at_any_moment_has_lost_nothing_that_execute_returned_from(
    tmp_path, suffix
):
    dice = random.Random(11)
    for number in range(6):
        path = tmp_path / f"{number}.jsonl{suffix}"
        with subprocess.Popen(
            [sys.executable, "-c", EMITTER, path], stdout=subprocess.PIPE
        ) as child:
            acknowledged = len(os.read(child.stdout.fileno(), 1))
            while acknowledged < dice.randrange(1, 400):
                acknowledged += len(os.read(child.stdout.fileno(), 64))
            child.send_signal(signal.SIGKILL)
            acknowledged += len(child.stdout.read())
        if suffix:
            emit_all(path, 0)  # opening it again mends it
        data = gzip.decompress(path.read_bytes()) if suffix else path.read_bytes()
        *lines, rest = data.split(b"\n")
        assert [json.loads(line)["metadata"]["step"] for line in lines][:acknowledged] == list(
            range(acknowledged)
        )
        assert len(lines) - acknowledged in (0, 1)
        assert rest == b""


# a full disk


def announced(bus):
    found = []
    bus.attach("drops", OVERFLOW, lambda e, m, metadata, c: found.append((m["dropped"], metadata)))
    return found


def test_a_full_device_is_counted_announced_and_survived(bus, caplog):
    drops = announced(bus)
    attachment = handlers.attach("jsonl", path="/dev/full", events=STEP, registry=bus)
    for _ in range(5):
        bus.execute(STEP, {})
    assert attachment.active
    assert drops == [(1, {"handler_id": "jsonl", "policy": "disk_full"})]
    attachment.detach()
    assert [count for count, _ in drops] == [1, 4]
    assert [record.getMessage() for record in caplog.records] == [
        "Handler 'jsonl', events lost so far: 1 (disk_full): [Errno 28] No space left on device",
        "Handler 'jsonl', events lost so far: 5 (disk_full)",
    ]


FULL_DISK = """
import json, resource, signal, sys
import handlers, telemetry
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
drops = []
overflow = ("telemetry", "handler", "overflow")
telemetry.attach("drops", overflow, lambda e, m, md, c: drops.append(m["dropped"]))
attachment = handlers.attach("jsonl", path=sys.argv[1], events=("training", "step"))
def emit(first, last):
    for step in range(first, last):
        telemetry.execute(("training", "step"), {"loss": 0.5}, {"step": step})
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
emit(0, 10)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), hard))
emit(10, 20)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
emit(20, 30)
assert attachment.active
attachment.detach()
print(json.dumps(drops))
"""


@pytest.mark.parametrize("room", [0, 1, 60, 139, 140, 500])
def test_a_disk_that_fills_up_in_the_middle_of_a_line(tmp_path, run_script, room):
    path = tmp_path / "m.jsonl"
    emit_all(tmp_path / "length")
    length = len((tmp_path / "length").read_bytes())
    done = run_script(FULL_DISK, path, 10 * length + room)
    lines = path.read_bytes().splitlines()
    whole, torn = [], []
    for line in lines:
        try:
            whole.append(json.loads(line)["metadata"]["step"])
        except ValueError:
            torn.append(line)
    fitting = room // (length + 1)  # steps of two digits are longer
    assert whole == [*range(10 + fitting), *range(20, 30)]
    assert len(torn) <= 1
    assert sum(json.loads(done.stdout)) == 10 - fitting


@pytest.mark.parametrize("room", [0, 1, 20, 200])
def test_a_disk_that_fills_up_leaves_a_whole_gzip_file(tmp_path, run_script, room):
    path = tmp_path / "m.jsonl.gz"
    with handlers.attach("jsonl", path=path, registry=(bus := Registry())):
        for step in range(10):
            bus.execute(STEP, {"loss": 0.5}, {"step": step})
        size = path.stat().st_size
    path.unlink()
    done = run_script(FULL_DISK, path, size + room)
    kept = [
        json.loads(line)["metadata"]["step"]
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]
    lost = sum(json.loads(done.stdout))
    assert [step for step in kept if not 10 <= step < 20] == [*range(10), *range(20, 30)]
    assert len(kept) + lost == 30
    assert lost == 10 or room > 0


def test_the_announcement_of_a_loss_does_not_recurse_into_the_full_file(bus):
    attachment = handlers.attach("jsonl", path="/dev/full", registry=bus)  # hears its own overflow
    drops = announced(bus)
    bus.execute(STEP, {})
    assert [count for count, _ in drops] == [1]
    attachment.detach()
    assert [count for count, _ in drops] == [1]  # the announcement, lost as well, is no loss


def test_an_error_while_writing_is_no_failure_of_the_handler(bus, tmp_path, monkeypatch):
    drops = announced(bus)
    path = tmp_path / "m.jsonl"
    attachment = handlers.attach("jsonl", path=path, events=STEP, registry=bus)
    bus.execute(STEP, {}, {"step": 0})
    number = attachment.handler._file.descriptor.number
    readonly = os.open(path, os.O_RDONLY)
    keep = os.dup(number)
    os.dup2(readonly, number)
    bus.execute(STEP, {}, {"step": 1})
    os.dup2(keep, number)
    bus.execute(STEP, {}, {"step": 2})
    os.close(keep)
    os.close(readonly)
    attachment.detach()
    assert [json.loads(line)["metadata"]["step"] for line in path.read_text().splitlines()] == [
        0,
        2,
    ]
    assert [count for count, _ in drops] == [1]


# fork


@pytest.mark.filterwarnings("ignore:os.fork")  # jax warns of it, wherever it was imported
def test_a_forked_child_writes_to_the_same_file(bus, tmp_path, read, steps):
    path = tmp_path / "m.jsonl"
    handlers.attach("jsonl", path=path, registry=bus)
    bus.execute(STEP, {}, {"step": 0})
    child = os.fork()
    if child == 0:
        bus.execute(STEP, {}, {"step": 1})
        bus.detach("jsonl")
        os._exit(0)
    os.waitpid(child, 0)
    bus.execute(STEP, {}, {"step": 2})
    assert steps(read(path)) == [0, 1, 2]


def test_a_writer_that_failed_closes_off_another_ones_half_line(tmp_path, bus):
    path = tmp_path / "m.jsonl"
    attachment = handlers.attach("jsonl", path=path, registry=bus)
    with path.open("ab") as other:
        other.write(b'{"half":')
    attachment.handler._file.suspect()
    bus.execute(("a",), {})
    attachment.detach()
    half, whole = path.read_bytes().splitlines()
    assert half == b'{"half":'
    assert json.loads(whole)["event"] == "a"


def test_an_emitter_never_waits_for_a_torn_line_to_settle(tmp_path, bus, monkeypatch):
    path = tmp_path / "m.jsonl"
    attachment = handlers.attach("jsonl", path=path, registry=bus)
    waits = []
    monkeypatch.setattr("handlers.line_file.time.sleep", waits.append)
    for step in range(3):
        with path.open("ab") as other:
            other.write(b'{"half":')
        attachment.handler._file.suspect()
        bus.execute(("a",), {"step": step})
    attachment.detach()
    lines = path.read_bytes().splitlines()
    assert lines[::2] == [b'{"half":'] * 3
    assert [json.loads(line)["measurements"]["step"] for line in lines[1::2]] == [0, 1, 2]
    assert waits == []

"""What waits is delivered before the process dies of SIGTERM."""

import gzip
import json
import os
import signal
import subprocess
import sys

import pytest

SINKS = r"""
import os, threading, time

class File:
    "A sink that takes its time, and writes steps to a file."
    delivery = "background"
    lock = threading.Lock()
    def __init__(self, path, seconds):
        self.path = path
        self.seconds = seconds
    def __call__(self, event, measurements, metadata, config):
        if "step" not in metadata:
            return  # an announcement
        if metadata["step"] == "hang":
            time.sleep(600)
        time.sleep(self.seconds)
        with self.lock, open(self.path, "a") as file:
            file.write(f"{metadata['step']}\n")
    def close(self):
        if self.seconds > 60:
            time.sleep(self.seconds)
        with open(self.path, "a") as file:
            file.write("closed\n")

def create(site, *, path="steps", seconds=0.0):
    return File(path, seconds)
"""

START = r"""
import os, signal, sys, threading, time
import handlers, telemetry, slow_sinks
STEP = ("training", "step")
def step(number):
    telemetry.execute(STEP, {"loss": 0.5}, {"step": number})
def ready():
    print("ready", flush=True)
"""


@pytest.fixture
def start(install, tmp_path):
    """Start a program in which the handler "slow" writes a file, and wait until it is ready."""
    site = install("slow-sinks", slow="slow_sinks:create")
    (site / "slow_sinks.py").write_text(SINKS)
    running = []

    def start(source):
        script = tmp_path / "script.py"
        script.write_text(START + source)
        process = subprocess.Popen(
            [sys.executable, "-W", "error", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)},
        )
        running.append(process)
        line = process.stdout.readline()
        assert line == "ready\n", process.communicate()
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def lines(tmp_path):
    return lambda: (tmp_path / "steps").read_text().split()


def terminate(process):
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=300)
    assert "Traceback" not in errors
    return output


def test_everything_emitted_before_arrives_and_the_status_is_that_of_the_signal(
    start, lines, tmp_path
):
    process = start("""
handlers.attach("jsonl", path="m.jsonl.gz")
handlers.attach("slow", seconds=0.001, flush_timeout=60)
for number in range(300):
    step(number)
ready()
time.sleep(600)
""")
    terminate(process)
    assert process.returncode == -signal.SIGTERM
    assert lines() == [*map(str, range(300)), "closed"]
    records = gzip.decompress((tmp_path / "m.jsonl.gz").read_bytes()).splitlines()
    assert [json.loads(line)["metadata"]["step"] for line in records] == list(range(300))


def test_a_loop_that_goes_on_emitting_loses_nothing_in_between(start, lines, tmp_path):
    process = start("""
handlers.attach("jsonl", path="m.jsonl")
handlers.attach("slow", queue_size=1_000_000, flush_timeout=60)
import itertools
for number in itertools.count():
    step(number)
    if number == 500:
        ready()
    if number % 4 == 0:
        time.sleep(0.001)
""")
    terminate(process)
    assert process.returncode == -signal.SIGTERM
    written = [line for line in lines() if line != "closed"]
    assert len(written) > 500
    # What is emitted after the close is delivered too, until the signal takes effect.
    assert written == [str(number) for number in range(len(written))]
    assert "closed" in lines()
    data = (tmp_path / "m.jsonl").read_bytes()
    assert data.endswith(b"\n")
    assert len(data.splitlines()) >= len(written)


def test_a_lock_that_the_interrupted_line_holds_is_let_go(start, lines):
    process = start("""
handlers.attach("slow", flush_timeout=60)
with slow_sinks.File.lock:
    step(1)
    ready()
    time.sleep(0.5)  # the signal comes here
time.sleep(600)
""")
    terminate(process)
    assert process.returncode == -signal.SIGTERM
    assert lines() == ["1", "closed"]


def test_a_sink_that_hangs_is_waited_for_no_longer_than_its_timeout(start, lines):
    process = start("""
for number in range(3):
    handlers.attach("slow", id=number, path=f"hung{number}", flush_timeout=0.5)
step("hang")
handlers.attach("slow", flush_timeout=60)
step(1)
ready()
time.sleep(600)
""")
    terminate(process)
    assert process.returncode == -signal.SIGTERM
    assert lines() == ["1", "closed"]


def test_a_sink_without_a_worker_that_hangs_is_not_waited_for_either(start, lines):
    process = start("""
handlers.attach("slow", id="hangs", background=False, seconds=600, flush_timeout=0.2)
handlers.attach("slow", flush_timeout=0.2)
telemetry.detach("slow")
ready()
time.sleep(600)
""")
    terminate(process)
    assert process.returncode == -signal.SIGTERM
    assert lines() == ["closed"]


def test_a_second_signal_ends_it_at_once(start):
    process = start("""
handlers.attach("slow", flush_timeout=600)
step("hang")
ready()
end = time.monotonic() + 600
while signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL and time.monotonic() < end:
    time.sleep(0.01)
print("first", flush=True)
time.sleep(600)
""")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "first\n"
    terminate(process)
    assert process.returncode == -signal.SIGTERM


def test_a_signal_while_a_sink_is_being_closed_lets_that_finish(start, lines):
    process = start("""
handlers.attach("slow", seconds=0.01, flush_timeout=60)
for number in range(50):
    step(number)
ready()
telemetry.detach("slow")
time.sleep(600)
""")
    terminate(process)
    assert process.returncode == -signal.SIGTERM
    assert lines() == [*map(str, range(50)), "closed"]


def test_a_signal_while_the_program_exits_loses_nothing(start, lines):
    process = start("""
import atexit
handlers.attach("slow", seconds=0.01, flush_timeout=60)
for number in range(50):
    step(number)
atexit.register(ready)
""")
    terminate(process)
    assert process.returncode in (-signal.SIGTERM, 0)  # whichever comes first
    assert lines() == [*map(str, range(50)), "closed"]


def test_where_no_thread_can_be_started_the_signal_is_handled_without(start, lines):
    process = start("""
handlers.attach("slow", seconds=0.01, flush_timeout=60)
for number in range(20):
    step(number)
def start(self):
    raise RuntimeError("can't create new thread at interpreter shutdown")
threading.Thread.start = start
ready()
time.sleep(600)
""")
    terminate(process)
    assert process.returncode == -signal.SIGTERM
    assert lines() == [*map(str, range(20)), "closed"]


def test_an_other_handler_is_left_alone_and_a_later_one_wins(run_script):
    run_script("""
import signal, sys, threading
import handlers

def own(*_):
    "The program's."

signal.signal(signal.SIGTERM, own)
handlers.attach("jsonl", path=sys.argv[0] + ".jsonl")
assert signal.getsignal(signal.SIGTERM) is own
handlers.detach_all()

signal.signal(signal.SIGTERM, signal.SIG_IGN)
handlers.attach("jsonl", path=sys.argv[0] + ".jsonl")
assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
handlers.detach_all()

signal.signal(signal.SIGTERM, signal.SIG_DFL)
attach = lambda: handlers.attach("jsonl", path=sys.argv[0] + ".jsonl")
thread = threading.Thread(target=attach)
thread.start()
thread.join()
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
handlers.detach_all()

handlers.attach("memory")  # has nothing to lose
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
attach()
assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
before = signal.signal(signal.SIGTERM, own)
handlers.attach("jsonl", id="second", path=sys.argv[0] + ".jsonl")
assert signal.getsignal(signal.SIGTERM) is own
# Who looks whether there was a handler finds the default one, and may put it back.
assert before == signal.SIG_DFL and before in (None, signal.SIG_DFL)
assert before != signal.SIG_IGN and before != own
signal.signal(signal.SIGTERM, before)
""")


def test_a_handler_that_ends_the_program_itself_has_the_sinks_closed_by_the_exit(start, lines):
    process = start("""
handlers.attach("slow", seconds=0.001, flush_timeout=60)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
for number in range(100):
    step(number)
ready()
time.sleep(600)
""")
    terminate(process)
    assert process.returncode == 3
    assert lines() == [*map(str, range(100)), "closed"]


def test_a_forked_child_is_terminated_as_if_nobody_listened(start, lines):
    process = start("""
import multiprocessing

def child():
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    step("hang")
    with open("steps", "a") as file:
        file.write("child\\n")
    time.sleep(600)

handlers.attach("slow", flush_timeout=600)
child = multiprocessing.get_context("fork").Process(target=child)
child.start()
end = time.monotonic() + 60
while not os.path.exists("steps") and time.monotonic() < end:
    time.sleep(0.01)
child.terminate()
child.join(60)
step("parent")
ready()
print(child.exitcode, flush=True)
time.sleep(600)
""")
    assert process.stdout.readline() == f"{-signal.SIGTERM}\n"
    terminate(process)
    assert process.returncode == -signal.SIGTERM
    assert lines() == ["child", "parent", "closed"]


def test_a_forked_child_that_attaches_its_own_is_flushed(start, lines):
    process = start("""
import multiprocessing

def child():
    handlers.attach("slow", seconds=0.001, flush_timeout=60)
    for number in range(100):
        step(number)
    os.write(1, b"ready\\n")
    time.sleep(600)

handlers.attach("slow", id="parent's", path="others")
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
sys.stdin.readline()
process.terminate()
process.join()
print(process.exitcode, flush=True)
""")
    output, _ = process.communicate("go\n", timeout=300)
    assert output == f"{-signal.SIGTERM}\n"
    assert lines() == [*map(str, range(100)), "closed"]


def test_a_program_that_ends_waits_for_a_thread_that_is_closing_a_handler(start, lines):
    process = start("""
import threading
handlers.attach("slow", seconds=0.02, flush_timeout=60)
for number in range(50):
    step(number)
threading.Thread(target=telemetry.detach, args=("slow",), daemon=True).start()
time.sleep(0.2)
ready()
""")
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    assert lines() == [*map(str, range(50)), "closed"]

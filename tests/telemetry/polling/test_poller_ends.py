"""The end of a poller: stopped, left behind, forked, at exit."""

import json
import os
import subprocess
import sys
import threading

import pytest

import telemetry
from telemetry import poller

SAMPLE = ("performance", "sample")
SOON = 0.01
HANG = 60
LEFT_BEHIND = "has not come back within 0.1 s; the poller has stopped without it."


def test_stopping_ends_the_thread_and_may_be_done_twice(start, heard, failing_on):
    started = start(probes={"n": failing_on()})
    heard.get(timeout=HANG)
    assert started.active
    assert repr(started) == "<Poller every 0.01 s, active>"
    started.stop()
    assert not any(thread.name == "trainbus-poller" for thread in threading.enumerate())
    started.stop()
    assert repr(started) == "<Poller every 0.01 s, stopped>"


class Leaving(telemetry.Registry):
    """A bus that ends every thread that asks it."""

    def enabled(self, event):
        raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_whose_thread_has_ended_is_not_active():
    started = poller.start(host=False, gpu=False, probes={"n": lambda: 1}, registry=Leaving())
    for thread in threading.enumerate():
        if thread.name == "trainbus-poller":
            thread.join(HANG)
    assert not started.active
    started.stop()


def test_the_thread_does_not_keep_a_program_from_ending(start, failing_on):
    start(probes={"n": failing_on()})
    (thread,) = [one for one in threading.enumerate() if one.name == "trainbus-poller"]
    assert thread.daemon


def test_a_sample_that_was_begun_is_finished(start, heard):
    asked, gate = threading.Event(), threading.Event()

    def slow():
        asked.set()
        gate.wait(HANG)
        return 1

    started = start(probes={"n": slow})
    asked.wait(HANG)
    threading.Timer(0.2, gate.set).start()
    started.stop(timeout=HANG)
    assert heard.get_nowait().measurements == {"n": 1}


def test_a_probe_that_hangs_is_left_behind_and_says_nothing_more(bus, start, heard, caplog):
    asked, gate = threading.Event(), threading.Event()

    def hang():
        asked.set()
        gate.wait(HANG)
        raise OSError("too late")

    started = start(probes={"stuck": hang, "n": lambda: 1})
    (thread,) = [one for one in threading.enumerate() if one.name == "trainbus-poller"]
    asked.wait(HANG)
    started.stop(timeout=0.1)
    assert caplog.messages == [f"Probe 'stuck' of the poller {LEFT_BEHIND}"]
    gate.set()
    thread.join(HANG)
    assert not thread.is_alive()
    assert heard.empty()


def test_a_handler_that_hangs_is_left_behind_too(bus, start, caplog):
    hears, gate = threading.Event(), threading.Event()

    def hang(*_):
        hears.set()
        gate.wait(HANG)

    bus.attach("hanging", SAMPLE, hang)
    started = start(probes={"n": lambda: 1})
    hears.wait(HANG)
    started.stop(timeout=0.1)
    gate.set()
    assert caplog.messages == [f"A handler of performance.sample {LEFT_BEHIND}"]


def test_a_probe_or_a_handler_may_stop_the_poller(bus, start):
    ended = threading.Event()
    started = []

    def end(*_):
        started[0].stop()
        ended.set()

    gate = threading.Event()
    bus.attach("ending", SAMPLE, end)
    started.append(start(probes={"n": lambda: gate.wait(HANG)}))
    gate.set()
    assert ended.wait(HANG)
    assert not started[0].active


def test_a_forked_child_does_not_poll(start, heard):
    started = start(probes={"pid": os.getpid})
    heard.get(timeout=HANG)
    child = os.fork()
    if child == 0:
        try:
            while not heard.empty():  # what came before the fork
                heard.get_nowait()
            # Other libraries may start threads of their own in a child.
            names = [thread.name for thread in threading.enumerate()]
            quiet = not any("poller" in name for name in names) and not started.active
            started.stop()
            os._exit(0 if quiet and heard.empty() else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert started.active
    assert heard.get(timeout=HANG).measurements == {"pid": os.getpid()}


def run_script(tmp_path, source):
    script = tmp_path / "script.py"
    script.write_text(source)
    return subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# Of the hooks of atexit that of the file, which was attached last, is the first.
AT_EXIT = """
import atexit, sys, threading, time
import telemetry, handlers
from telemetry import poller

first = threading.Event()
telemetry.attach("first", ("performance", "sample"), lambda *_: first.set())
started = poller.start(0.001, host=False, gpu=False, probes={"n": lambda: 1})
first.wait(60)
atexit.register(lambda: print("at exit, active:", started.active))
handlers.attach("jsonl", path="metrics.jsonl")
second = threading.Event()
telemetry.attach("second", ("performance", "sample"), lambda *_: second.set())
second.wait(60)
"""


def test_at_exit_it_is_stopped_before_the_handlers_are_closed(tmp_path):
    done = run_script(tmp_path, AT_EXIT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "at exit, active: False\n", "")
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["measurements"] == {"n": 1}


IN_A_CHILD = """
import multiprocessing, sys, threading
import telemetry
from multiprocessing import util
from telemetry import poller

def work():
    first = threading.Event()
    telemetry.attach("first", ("performance", "sample"), lambda *_: first.set())
    started = poller.start(0.001, host=False, gpu=False, probes={"n": lambda: 1})
    first.wait(60)
    # A sink that is closed at the end of a child has this priority.
    util.Finalize(None, lambda: print("closing, active:", started.active, flush=True),
                  exitpriority=0)

if __name__ == "__main__":
    poller.start(1, host=False, gpu=False, probes={"n": lambda: 1})
    context = multiprocessing.get_context(sys.argv[1] if sys.argv[1:] else "fork")
    child = context.Process(target=work)
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


def test_at_the_end_of_a_child_as_well(tmp_path):
    done = run_script(tmp_path, IN_A_CHILD)
    assert (done.returncode, done.stdout, done.stderr) == (0, "closing, active: False\n", "")


STARTED_AT_EXIT = """
import atexit
from telemetry import poller
from telemetry.poller import exit

@atexit.register
def late():
    try:
        poller.start(1, host=False, gpu=False, probes={"n": lambda: 1})
    except RuntimeError as error:
        print(error)
        print(type(error.__cause__).__name__, len(exit._living))
"""


def test_one_that_is_started_at_exit_is_refused(tmp_path):
    done = run_script(tmp_path, STARTED_AT_EXIT)
    assert (done.returncode, done.stderr) == (0, "")
    message, cause = done.stdout.splitlines()
    assert message.startswith("telemetry.poller could not be started: can't ")
    assert message.endswith(
        ". A program that is ending takes no new thread: start it before, not in an atexit hook."
    )
    assert cause == "RuntimeError 0"


HANGING_AT_EXIT = """
import threading
import telemetry
from telemetry import poller

asked = threading.Event()

def hang():
    asked.set()
    threading.Event().wait()

telemetry.attach("any", ("performance", "sample"), lambda *_: None)
poller.start(1, host=False, gpu=False, probes={"stuck": hang})
asked.wait(60)
print("done")
"""


def test_a_probe_that_hangs_does_not_keep_a_program_from_ending(tmp_path):
    done = run_script(tmp_path, HANGING_AT_EXIT)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "Probe 'stuck' of the poller has not come back within 5.0 s" in done.stderr


WITHOUT = """
import sys
sys.modules[sys.argv[1] if sys.argv[1:] else "{module}"] = None
from telemetry import MissingExtraError, poller
try:
    poller.start()
except MissingExtraError as error:
    print(error)
    assert isinstance(error.__cause__, ImportError)
poller.start({off}=False, probes={{"n": lambda: 1}}).stop()
"""


@pytest.mark.parametrize(("module", "off"), [("psutil", "host"), ("pynvml", "gpu")])
def test_a_missing_package_is_said_at_the_start(tmp_path, module, off):
    done = run_script(tmp_path, WITHOUT.format(module=module, off=off))
    assert done.stderr == ""
    assert done.stdout == (
        f"telemetry.poller needs the module {module!r}, which cannot be imported. "
        "Install it with: pip install 'trainbus[poller]'\n"
    )

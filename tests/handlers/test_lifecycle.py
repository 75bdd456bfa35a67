import gc
import json
import multiprocessing
import os
import signal
import threading
import weakref

import pytest

import handlers
from telemetry import Registry, signals

STEP = ("training", "step")

SLOW_SINK = r"""
import os, sys, types
import handlers, telemetry
from importlib import metadata

class Sink:
    delivery = "background"
    def __init__(self, site):
        self.site = site
    def __call__(self, event, measurements, metadata, config):
        os.write(1, f"{self.site.handler_id} {metadata['step']}\n".encode())  # whole lines
    def close(self):
        os.write(1, f"{self.site.handler_id} closed\n".encode())

module = types.ModuleType("told")
module.create = lambda site: Sink(site)
sys.modules["told"] = module
"""


@pytest.fixture
def told(install, tmp_path, run_script):
    """Run a program in which the handler "told" prints what it gets."""
    site = install("told-sinks", told="told:create")

    def told(source, *arguments, **options):
        env = {**os.environ, "PYTHONPATH": str(site)}
        done = run_script(SLOW_SINK + source, *arguments, env=env, **options)
        return done.stdout.split("\n")[:-1]

    return told


def test_what_waits_at_exit_is_delivered(told):
    lines = told("""
for name in ("a", "b"):
    handlers.attach("told", id=name)
for step in range(3):
    telemetry.execute(("training", "step"), {}, {"step": step})
""")
    for name in ("a", "b"):
        assert [line for line in lines if line.startswith(name)] == [
            f"{name} 0",
            f"{name} 1",
            f"{name} 2",
            f"{name} closed",
        ]


def test_of_sinks_without_a_worker_the_newest_is_closed_first(told):
    lines = told("""
for name in ("a", "b", "c"):
    handlers.attach("told", id=name, background=False)
""")
    assert lines == ["c closed", "b closed", "a closed"]


TOGETHER = """
import threading
everybody = threading.Barrier(10)

class Together(Sink):
    def close(self):
        everybody.wait(60)  # one after the other, they would not get past it
        super().close()

module.create = Together
for number in range(10):
    handlers.attach("told", id=number, flush_timeout=60)
telemetry.execute(("training", "step"), {}, {"step": "step"})
"""


@pytest.mark.parametrize("end", ["", "handlers.detach_all()"], ids=["at exit", "detached"])
def test_sinks_are_closed_at_the_same_time(told, end):
    lines = told(f"{TOGETHER}\n{end}")
    assert sorted(lines) == sorted(
        f"{number} {what}" for number in range(10) for what in ("step", "closed")
    )


def test_sinks_of_a_child_are_closed_at_the_same_time(told):
    child = "def child():\n    " + TOGETHER.replace("\n", "\n    ")
    lines = told(f"""
import multiprocessing
{child}
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
assert process.exitcode == 0
""")
    assert sorted(lines) == sorted(
        f"{number} {what}" for number in range(10) for what in ("step", "closed")
    )


LOSING = """
import signal, time

class Losing(Sink):
    delivery = "background"
    def close(self):
        time.sleep(0.3)  # the file would be closed by now, if it were not waited with
        handlers.Losses(self.site, "gone").add(3)

module.create = Losing
STEP = ("training", "step")
path = sys.argv[1]
"""
ENDS = {
    "exit": "",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(200)",
    "detach_all": "handlers.detach_all()",
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("file_is", ["first", "last"])
@pytest.mark.parametrize("background", [None, True])
def test_what_a_sink_loses_at_its_end_is_in_the_file(
    told, tmp_path, read, background, file_is, end
):
    lines = [
        f"handlers.attach('jsonl', path=path, background={background})",
        "handlers.attach('told', id='a', events=STEP)",
        "handlers.attach('told', id='b', events=STEP, background=False)",
    ]
    program = "\n".join([LOSING, *(lines if file_is == "first" else lines[::-1]), ENDS[end]])
    path = tmp_path / "m.jsonl"
    told(program, path, expect=-signal.SIGTERM if end == "SIGTERM" else 0)
    assert sorted(
        (one["metadata"]["handler_id"], one["measurements"]["dropped"])
        for one in read(path)
        if one["event"] == "telemetry.handler.overflow"
    ) == [("a", 3), ("b", 3)]


def test_all_are_detached_from_whatever_bus(bus, gated):
    other = Registry()
    first = handlers.attach("gated", registry=bus)
    second = handlers.attach("gated", registry=other)
    handlers.detach_all()
    assert (first.active, second.active) == (False, False)
    assert (bus.list_handlers(), other.list_handlers()) == ([], [])
    assert first.handler.closed.is_set()
    assert second.handler.closed.is_set()


def test_what_other_exit_hooks_emit_is_delivered_too(told):
    lines = told("""
import atexit
atexit.register(telemetry.execute, ("training", "step"), {}, {"step": 9})
handlers.attach("told")
""")
    assert lines == ["told closed", "told 9"]


def test_a_sink_is_closed_before_its_vendor_cleans_up(told):
    lines = told("""
import atexit

def create(site):
    atexit.register(print, "vendor ends", flush=True)  # as clients do when imported
    return Sink(site)

module.create = create
handlers.attach("told")
telemetry.execute(("training", "step"), {}, {"step": 1})
""")
    assert lines == ["told 1", "told closed", "vendor ends"]


def test_an_exception_that_ends_the_program_loses_nothing(told):
    lines = told(
        """
handlers.attach("told")
telemetry.execute(("training", "step"), {}, {"step": 1})
raise SystemExit(3)
""",
        expect=3,
    )
    assert lines == ["told 1", "told closed"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_delivers_and_closes(told, method):
    lines = told(f"""
import multiprocessing

def child():
    if {method!r} != "fork":
        handlers.attach("told")
    telemetry.execute(("training", "step"), {{}}, {{"step": "child"}})

if __name__ == "__main__":
    handlers.attach("told")
    telemetry.execute(("training", "step"), {{}}, {{"step": "parent"}})
    process = multiprocessing.get_context({method!r}).Process(target=child)
    process.start()
    process.join()
    print("joined", process.exitcode, flush=True)
""")
    assert sorted(lines) == sorted(
        ["told child", "told closed", "told parent", "told closed", "joined 0"]
    )
    assert lines.index("told child") < lines.index("joined 0")


def test_a_handler_attached_in_a_forked_child_is_closed_at_its_end(told):
    lines = told("""
import multiprocessing

def child():
    handlers.attach("told")
    telemetry.execute(("training", "step"), {}, {"step": 1})

process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
""")
    assert lines == ["told 1", "told closed"]


def test_a_gzip_file_is_whole_after_an_exit(run_script, tmp_path):
    import gzip

    path = tmp_path / "m.jsonl.gz"
    run_script(
        """
import sys
import handlers, telemetry
handlers.attach("jsonl", path=sys.argv[1])
telemetry.execute(("training", "step"), {}, {"step": 1})
""",
        path,
    )
    assert json.loads(gzip.decompress(path.read_bytes()))["metadata"] == {"step": 1}


def test_a_sink_is_closed_once_whoever_detaches(bus, gated):
    attachment = handlers.attach("gated", registry=bus)
    threads = [threading.Thread(target=attachment.detach) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert attachment.handler.closed.is_set()
    attachment._lifecycle.end()


def test_detaching_another_handler_of_the_same_id_on_another_bus_closes_nothing(bus, gated):
    attachment = handlers.attach("gated", registry=bus)
    other = Registry()
    other.attach("gated", STEP, lambda *event: None)
    other.detach("gated")
    bus.attach("unrelated", STEP, lambda *event: None)
    bus.detach("unrelated")
    assert not attachment.handler.closed.is_set()


def test_a_newcomer_with_the_id_is_not_closed_for_the_other(bus, gated):
    first = handlers.attach("gated", registry=bus)
    taken = []

    def take_the_id(registry, handler_id):
        if handler_id == "gated" and not taken:
            taken.append(handlers.attach("gated", registry=bus))

    with signals.handler_detached.connected_to(take_the_id, sender=bus):
        first.detach()
    assert first.handler.closed.is_set()
    assert not taken[0].handler.closed.is_set()
    assert taken[0].active


def test_a_signal_meant_for_an_earlier_owner_of_the_id_closes_nothing(bus, gated):
    attachment = handlers.attach("gated", registry=bus)
    signals.handler_detached.send(bus, handler_id="gated")  # sent late: the id is taken again
    assert attachment.active
    assert not attachment.handler.closed.is_set()
    attachment.detach()
    assert attachment.handler.closed.is_set()


def test_a_detached_handler_is_forgotten(bus, tmp_path):
    attachment = handlers.attach("jsonl", path=tmp_path / "m.jsonl", registry=bus)
    bus.execute(STEP, {})
    sink = weakref.ref(attachment.handler)
    bus.detach("jsonl")
    del attachment
    gc.collect()
    assert sink() is None
    assert list(signals.handler_detached.receivers_for(bus)) == []


def _emit_in_pool(number):
    import telemetry

    telemetry.execute(STEP, {"loss": 0.5}, {"step": number})
    return os.getpid()


@pytest.mark.filterwarnings("ignore:os.fork")  # jax warns of it, wherever it was imported
def test_a_pool_of_forked_workers_writes_each_event_once(tmp_path, read, steps):
    path = tmp_path / "m.jsonl"
    with handlers.attach("jsonl", path=path, background=True) as attachment:
        _emit_in_pool(-1)
        pool = multiprocessing.get_context("fork").Pool(2)
        pool.map(_emit_in_pool, range(20), chunksize=1)
        pool.close()
        pool.join()
        assert attachment.flush()
    assert sorted(steps(read(path))) == list(range(-1, 20))

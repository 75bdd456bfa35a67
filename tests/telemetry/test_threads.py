import itertools
import sys
import threading

import pytest

from telemetry import ALL, HandlerExistsError

THREADS, EVENTS = 8, 400


@pytest.fixture(autouse=True)
def _switch_often():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def run_all(*functions):
    barrier = threading.Barrier(len(functions))
    errors = []

    def run(function):
        barrier.wait(60)
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_emitting_while_others_attach_and_detach_loses_and_duplicates_nothing(bus):
    received = []
    bus.attach("always", ("a", "*"), lambda e, m, md, c: received.append((m["thread"], m["n"])))
    emitting = threading.Semaphore(0)
    done = threading.Event()

    def emit(thread):
        for n in range(EVENTS):
            bus.execute(("a", "bc"[n % 2]), {"thread": thread, "n": n})
        emitting.release()

    def churn(handler_id, pattern):
        for _ in itertools.takewhile(lambda _: not done.is_set(), itertools.count()):
            with bus.attach(handler_id, pattern, lambda *_: None):
                pass

    def wait():
        for _ in range(THREADS):
            emitting.acquire()
        done.set()

    run_all(
        wait,
        *(lambda thread=t: emit(thread) for t in range(THREADS)),
        *(lambda i=i, p=p: churn(i, p) for i, p in enumerate([("a", "b"), ALL, ("a", "**")])),
    )
    assert len(received) == THREADS * EVENTS
    for thread in range(THREADS):
        assert [n for t, n in received if t == thread] == list(range(EVENTS))
    assert [info.id for info in bus.list_handlers()] == ["always"]


def test_handlers_that_come_and_go_hear_a_run_without_gaps(bus):
    """While it is attached, a handler misses nothing that one thread emits."""
    runs = []
    done = threading.Event()

    def emit():
        for n in range(3000):
            bus.execute(("a",), {"n": n})
        done.set()

    def listen():
        while not done.is_set():
            heard = []
            with bus.attach("visitor", ("a",), lambda e, m, md, c, into=heard: into.append(m["n"])):
                pass
            runs.append(heard)

    run_all(emit, listen)
    for heard in runs:
        assert heard == list(range(heard[0], heard[0] + len(heard))) if heard else True
    flat = [n for heard in runs for n in heard]
    assert len(flat) == len(set(flat))


def test_threads_that_attach_at_once_are_all_attached(bus):
    def attach(thread):
        for n in range(20):
            bus.attach((thread, n), ("a",), lambda *_: None)

    run_all(*(lambda thread=t: attach(thread) for t in range(THREADS)))
    assert len({info.id for info in bus.list_handlers()}) == THREADS * 20
    for thread in range(THREADS):
        mine = [info.id[1] for info in bus.list_handlers() if info.id[0] == thread]
        assert mine == list(range(20))


def test_of_threads_that_want_the_same_id_one_gets_it(bus):
    got = []

    def attach(thread):
        try:
            bus.attach("h", ("a",), lambda *_: None, thread)
        except HandlerExistsError:
            return
        got.append(thread)

    run_all(*(lambda thread=t: attach(thread) for t in range(THREADS)))
    assert [info.config for info in bus.list_handlers()] == got
    assert len(got) == 1


def test_of_threads_that_detach_the_same_handler_one_does(bus):
    detached = []
    for _ in range(20):
        bus.attach("h", ("a",), lambda *_: None)

        def detach():
            try:
                bus.detach("h")
            except LookupError:
                return
            detached.append(True)

        run_all(detach, detach, detach)
    assert len(detached) == 20
    assert bus.list_handlers() == []


def test_a_handler_failing_in_many_threads_is_detached_and_hurts_nobody(bus):
    received = []
    bus.attach("bad", ("a",), lambda *_: 1 / 0)
    bus.attach("good", ("a",), lambda e, m, md, c: received.append(m["n"]))

    def emit():
        for n in range(50):
            bus.execute(("a",), {"n": n})

    run_all(*[emit] * THREADS)
    assert len(received) == THREADS * 50
    assert [info.id for info in bus.list_handlers()] == ["good"]

"""Fork, and the end of the interpreter, each in a process of its own."""

FORK_WITH_THE_LOCK_HELD = """
import os, sys, threading
import telemetry

inside, leave = threading.Event(), threading.Event()

class Slow:
    def __eq__(self, other):
        inside.set()
        leave.wait()
        return self is other
    def __hash__(self):
        return 1

bus = telemetry.Registry()
for registry in (bus, telemetry.default_registry):
    registry.attach(Slow(), ("other",), print)
thread = threading.Thread(target=bus.attach, args=("thread", ("a",), print))
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    leave.set()
    def handle(event, measurements, metadata, config):
        os.write(1, measurements["text"].encode())
    for registry in (bus, telemetry.default_registry):
        registry.attach("child", ("a",), handle)
        registry.execute(("a",), {"text": "heard "})
        registry.detach("child")
        registry.attach("bad", ("a",), lambda *_: 1 / 0)
        registry.execute(("a",), {})
    os._exit(len(telemetry.list_handlers(("a",))))
_, status = os.waitpid(child, 0)
leave.set()
thread.join()
assert [info.id for info in bus.list_handlers(("a",))] == ["thread"]
os.write(1, b"exit %d" % os.waitstatus_to_exitcode(status))
"""


def test_a_child_forked_while_another_thread_attaches_can_attach(run_script):
    done = run_script(FORK_WITH_THE_LOCK_HELD)
    assert done.stdout == "heard heard exit 0"
    assert done.returncode == 0


FORK_KEEPS_HANDLERS = """
import os
import telemetry

def handle(event, measurements, metadata, config):
    os.write(1, f"{metadata['run_id']} ".encode())

telemetry.attach("h", ("a",), handle)
with telemetry.context(run_id="r"):
    if os.fork() == 0:
        telemetry.execute(("a",), {})
        telemetry.detach("h")
        telemetry.execute(("a",), {})
        os._exit(0)
    os.wait()
    telemetry.execute(("a",), {})
"""


def test_a_child_inherits_handlers_and_context_and_changes_only_its_own(run_script):
    done = run_script(FORK_KEEPS_HANDLERS)
    assert (done.stdout, done.stderr) == ("r r ", "")


FORK_INSIDE_A_SPAN = """
import os
import telemetry

def handle(event, measurements, metadata, config):
    context = metadata["telemetry_span_context"]
    os.write(1, f"{event[0]} {event[1]} {context.parent_id == root.context.span_id}\\n".encode())

root = telemetry.span(("root",))
telemetry.attach("root", ("root", "*"), lambda *_: None)
with root:
    telemetry.attach("h", ("child", "*"), handle)
    if os.fork() == 0:
        with telemetry.span(("child",)):
            pass
        os._exit(0)
    os.wait()
"""


def test_a_span_of_a_forked_child_nests_in_the_one_it_was_forked_in(run_script):
    done = run_script(FORK_INSIDE_A_SPAN)
    assert (done.stdout, done.stderr) == ("child start True\nchild stop True\n", "")


SHUTDOWN = """
import atexit, os
import telemetry
from telemetry import execute, span

seen = []
telemetry.attach("h", telemetry.ALL, lambda event, *_: seen.append(event))
telemetry.attach("bad", ("bad",), lambda *_: 1 / 0)

class Emitter:
    def __init__(self):
        self.me = self
    def emit(self):
        execute(("a",), {"n": 1}, {"step": 1})
        with span(("s",)):
            pass
    def __del__(self, telemetry=telemetry, write=os.write):
        self.emit()
        telemetry.detach("h", missing_ok=True)
        telemetry.execute(("b",), {})
        telemetry.attach("h", telemetry.ALL, print_nothing)
        write(1, b"finalized\\n")

def print_nothing(*_):
    pass

emitter = Emitter()
emitter.later = Emitter()
telemetry.kept_to_the_end = Emitter()
open_span = telemetry.start_span(("open",))
atexit.register(emitter.emit)
atexit.register(lambda: print(len(seen), flush=True))

def steps():
    with span(("generator",)), telemetry.context(step=1):
        yield 1
        yield 2

suspended = steps()
next(suspended)
"""


def test_emitting_while_the_interpreter_ends_is_quiet(run_script):
    done = run_script(SHUTDOWN)
    assert (done.stdout, done.stderr, done.returncode) == ("2\n" + "finalized\n" * 3, "", 0)


DAEMON = """
import threading
import telemetry

telemetry.attach("h", ("a",), lambda *_: started.set())
started = threading.Event()

def emit():
    while True:
        telemetry.execute(("a",), {"n": 1}, {})
        with telemetry.span(("a",)):
            pass

threading.Thread(target=emit, daemon=True).start()
started.wait()
"""


def test_a_daemon_thread_emitting_to_the_end_is_quiet(run_script):
    done = run_script(DAEMON)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)

import json
import pickle
import random

from telemetry import SpanContext
from telemetry.span_context import new_span_context


def test_a_root_has_no_parent_and_is_its_own_trace():
    context = new_span_context()
    assert context == SpanContext(context.span_id, None, context.span_id)
    assert context._fields == ("span_id", "parent_id", "trace_id")


def test_ids_are_nonzero_and_fit_64_bits_and_use_them():
    ids = [new_span_context().span_id for _ in range(2000)]
    assert len(set(ids)) == 2000
    assert all(0 < i < 2**64 for i in ids)
    assert any(i >= 2**63 for i in ids)


def test_seeding_random_gives_the_same_numbers_with_and_without_spans(bus, recorder):
    bus.attach("h", ("s", "**"), recorder)

    def draw(with_spans):
        random.seed(7)
        numbers = []
        for _ in range(5):
            if with_spans:
                with bus.span(("s",)):
                    numbers.append(random.random())
            numbers += [] if with_spans else [random.random()]
        return numbers

    assert draw(with_spans=True) == draw(with_spans=False)
    assert len(recorder) == 10


def test_seeding_random_does_not_repeat_ids():
    random.seed(7)
    first = new_span_context()
    random.seed(7)
    assert new_span_context() != first


def test_it_survives_pickling():
    context = SpanContext(1, None, 1)
    assert pickle.loads(pickle.dumps(context)) == context  # noqa: S301 -- our own bytes


FORKING = """
import json, os, random
import telemetry

contexts = []
telemetry.attach("h", ("s", "start"), lambda e, m, md, c: contexts.append(md))

def span_ids(count):
    del contexts[:]
    for _ in range(count):
        with telemetry.span(("s",)):
            pass
    return [md["telemetry_span_context"].span_id for md in contexts]

random.seed(1)
span_ids(3)
outputs = []
for _ in range(3):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, json.dumps(span_ids(50)).encode())
        os._exit(0)
    os.close(write)
    os.wait()
    with os.fdopen(read) as pipe:
        outputs.append(json.load(pipe))
print(json.dumps([*outputs, span_ids(50)]))
"""


def test_ids_are_unique_across_forked_processes(run_script):
    done = run_script(FORKING)
    assert done.stderr == ""
    ids = [i for child in json.loads(done.stdout) for i in child]
    assert len(ids) == len(set(ids)) == 200

"""Event files, read back by TensorBoard's own reader."""

import errno
import json
import logging
import math
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import handlers
from handlers.event_file import EventFile, NotWrittenError
from telemetry.metrics import counter, last_value

STEP = ("training", "step")


@pytest.fixture(autouse=True)
def _light_reader(monkeypatch, caplog):
    """TensorBoard's own switch for reading without TensorFlow, which takes seconds to import."""
    monkeypatch.setitem(sys.modules, "tensorboard.compat.notf", types.ModuleType("notf"))
    caplog.set_level(logging.CRITICAL, logger="tensorboard")


@pytest.fixture
def log_dir(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def attach(bus, log_dir):
    def attach(**options):
        return handlers.attach("tensorboard", registry=bus, **{"log_dir": log_dir, **options})

    return attach


def scalars(directory):
    """Each curve's points as (step, value), in the order of the files."""
    reader = EventAccumulator(str(directory), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    return {
        tag: [(point.step, point.value) for point in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def files_in(directory):
    return sorted(path for path in directory.iterdir() if ".tfevents." in path.name)


def single(value):
    """A number as 32 bits hold it."""
    return struct.unpack("f", struct.pack("f", value))[0]


def test_each_measurement_is_a_scalar_with_its_step(bus, attach, log_dir):
    with attach():
        bus.execute(STEP, {"loss": 2.5, "lr": 2e-4}, {"step": 1, "total_steps": 1000})
        bus.execute(STEP, {"loss": 1.25}, {"step": 2})
        bus.execute(
            ("smartclip", "clip", "group"),
            {"grad_norm": 0.75},
            {"key": ("layer", "encoder.0"), "step": 2},
        )
    assert scalars(log_dir) == {
        "training/loss": [(1, 2.5), (2, 1.25)],
        "training/lr": [(1, single(2e-4))],
        "smartclip/grad_norm[layer/encoder.0]": [(2, 0.75)],
    }


def test_the_wall_time_is_that_of_the_event(bus, attach, log_dir):
    before = time.time()
    attachment = attach()
    bus.execute(STEP, {"loss": 2.5}, {"step": 1})
    after = time.time()
    attachment.detach()
    (point,) = EventAccumulator(str(log_dir)).Reload().Scalars("training/loss")
    assert before <= point.wall_time <= after


def test_steps_that_go_backwards_are_all_kept(bus, attach, log_dir):
    points = [(1, 4.0), (2, 3.0), (3, 2.0), (2, 1.0), (2, 0.5)]
    with attach():
        for step, loss in points:
            bus.execute(STEP, {"loss": loss}, {"step": step})
    assert scalars(log_dir) == {"training/loss": points}


def test_a_run_that_is_resumed_in_its_directory_keeps_both_parts(bus, attach, log_dir):
    with attach() as first:
        bus.execute(STEP, {"loss": 4.0}, {"step": 1})
        bus.execute(STEP, {"loss": 3.0}, {"step": 2})
    before = first.handler.path.read_bytes()
    with attach():
        bus.execute(STEP, {"loss": 2.5}, {"step": 2})
    assert scalars(log_dir) == {"training/loss": [(1, 4.0), (2, 3.0), (2, 2.5)]}
    assert first.handler.path.read_bytes() == before
    assert len(files_in(log_dir)) == 2


def test_an_event_without_a_step_is_at_zero_and_one_with_an_epoch_at_its_epoch(
    bus, attach, log_dir
):
    with attach():
        bus.execute(("performance", "sample"), {"queue_depth": 7})
        bus.execute(("performance", "sample"), {"queue_depth": 8})
        bus.execute(("training", "epoch"), {"epoch_loss": 0.25}, {"epoch": 3})
        bus.execute(STEP, {"loss": 1.0}, {"step": 2**63})
    assert scalars(log_dir) == {
        "performance/queue_depth": [(0, 7.0), (0, 8.0)],
        "training/epoch_loss": [(3, 0.25)],
        "training/loss": [(0, 1.0)],
    }


def test_nan_and_infinity_are_kept_and_what_32_bits_cannot_hold_is_infinite(bus, attach, log_dir):
    with attach():
        for step, loss in enumerate([math.nan, math.inf, -math.inf, 1e300]):
            bus.execute(STEP, {"loss": loss}, {"step": step})
    (nan, *others) = scalars(log_dir)["training/loss"]
    assert math.isnan(nan[1])
    assert others == [(1, math.inf), (2, -math.inf), (3, math.inf)]


def test_definitions_say_what_is_reported(bus, attach, log_dir):
    metrics = [
        counter("training.step.count", report_as="steps"),
        last_value("training.step.loss", tags=["split"], report_as="loss"),
    ]
    with attach(metrics=metrics):
        for step, split in [(1, "train"), (2, "val"), (3, "train")]:
            bus.execute(STEP, {"loss": step / 2, "lr": 1.0}, {"step": step, "split": split})
    assert scalars(log_dir) == {
        "steps": [(1, 1.0), (2, 2.0), (3, 3.0)],
        "loss[split=train]": [(1, 0.5), (3, 1.5)],
        "loss[split=val]": [(2, 1.0)],
    }


def test_names_that_are_no_text_are_written_all_the_same(bus, attach, log_dir):
    metrics = [last_value("training.step.loss", report_as="lo\udc00ss"), last_value("**.*")]
    with attach(metrics=metrics):
        bus.execute(STEP, {"loss": 1.0, "größe": 2.0}, {"step": 1})
    assert scalars(log_dir) == {"lo\\udc00ss": [(1, 1.0)], "training/größe": [(1, 2.0)]}


def test_ranks_have_directories_of_their_own(bus, attach, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    with attach(ranks="all"):
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    assert scalars(tmp_path / "run" / "rank3") == {"training/loss": [(1, 1.0)]}
    with attach(ranks="all", log_dir=tmp_path / "of-{rank}" / "a") as other:
        pass
    assert other.handler.path.parent == tmp_path / "of-3" / "a"


def test_a_killed_process_keeps_what_it_was_a_second_ago(log_dir, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import time
import handlers, telemetry
attachment = handlers.attach("tensorboard", log_dir={str(log_dir)!r})
for step in range(1, 501):
    telemetry.execute(("training", "step"), {{"loss": step / 2}}, {{"step": step}})
assert attachment.flush(60)
print("written", flush=True)
time.sleep(60)
"""
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    assert scalars(log_dir) == {"training/loss": [(step, step / 2) for step in range(1, 501)]}


def test_the_end_of_the_program_writes_what_waits(run_script, log_dir):
    run_script(
        f"""
import handlers, telemetry
handlers.attach("tensorboard", log_dir={str(log_dir)!r})
telemetry.execute(("training", "step"), {{"loss": 0.5}}, {{"step": 1}})
"""
    )
    assert scalars(log_dir) == {"training/loss": [(1, 0.5)]}


def test_an_event_that_comes_after_the_end_is_written(bus, attach, log_dir):
    with attach() as attachment:
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    attachment.handler(STEP, {"loss": 2.0}, {"step": 2}, None)
    attachment.handler.close()
    assert scalars(log_dir) == {"training/loss": [(1, 1.0), (2, 2.0)]}
    assert len(files_in(log_dir)) == 1


def test_a_forked_child_has_a_file_of_its_own(bus, attach, log_dir, in_child):
    attachment = attach()
    bus.execute(STEP, {"loss": 1.0}, {"step": 1})  # may still wait when the child is made

    def child():
        bus.execute(STEP, {"child": 2.0}, {"step": 2})
        assert attachment.flush(60)
        attachment.detach()

    in_child(lambda: None)
    in_child(child)
    bus.execute(STEP, {"loss": 3.0}, {"step": 3})
    attachment.detach()
    assert scalars(attachment.handler.path) == {"training/loss": [(1, 1.0), (3, 3.0)]}
    (of_child,) = set(files_in(log_dir)) - {attachment.handler.path}
    assert scalars(of_child) == {"training/child": [(2, 2.0)]}


def test_a_forked_child_that_writes_nothing_has_lost_nothing(bus, attach, drops, in_child):
    attachment = attach()

    def child():
        attachment.detach()
        assert drops == []

    in_child(child)
    attachment.detach()


def test_events_of_several_threads_are_whole(bus, attach, log_dir):
    def emit(name):
        for step in range(200):
            bus.execute(STEP, {name: float(step)}, {"step": step})

    with attach(background=False):
        threads = [threading.Thread(target=emit, args=(f"t{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    expected = [(step, float(step)) for step in range(200)]
    assert scalars(log_dir) == {f"training/t{n}": expected for n in range(4)}


def test_a_full_disk_is_told_and_what_comes_when_there_is_room_is_written(run_script, log_dir):
    """The limit stands for a disk: what is written last is torn, and the rest of it comes later."""
    done = run_script(
        f"""
import json, resource, signal
import handlers, telemetry
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
told = []
overflow = ("telemetry", "handler", "overflow")
telemetry.attach("told", overflow, lambda e, m, d, c: told.append((m["dropped"], d["policy"])))
events = [("training", "step")]
attachment = handlers.attach("tensorboard", log_dir={str(log_dir)!r}, events=events)
def emit(steps):
    for step in steps:
        telemetry.execute(("training", "step"), {{"loss": step / 2}}, {{"step": step}})
    assert attachment.flush(60)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
emit(range(10))
size = attachment.handler.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
emit(range(10, 20))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
emit(range(20, 30))
telemetry.detach("tensorboard")
print(json.dumps(told))
"""
    )
    steps = [step for step, _ in scalars(log_dir)["training/loss"]]
    lost = sorted(set(range(30)) - set(steps))
    told = json.loads(done.stdout)
    assert steps == sorted(steps)
    assert lost == list(range(lost[0], 20)), "what fitted, and what came later, is there"
    assert 8 <= len(lost) == sum(count for count, _ in told)
    assert {policy for _, policy in told} == {"disk_full"}


def test_a_record_that_was_torn_is_completed_by_the_next_call(tmp_path, monkeypatch):
    file = EventFile(tmp_path, lambda messages: [b"<" + one + b">" for one in messages], b"header")
    room = 10

    def write(descriptor, data, real=os.write):
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(descriptor, data[:room])
        room -= written
        return written

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(NotWrittenError) as caught:
        file.write([b"one", b"two", b"three"])
    assert caught.value.lost == 2
    assert file.path.read_bytes() == b"<header><o"
    assert file.close() == 1
    with pytest.raises(NotWrittenError) as caught:
        file.write([b"nothing fits"])
    assert caught.value.lost == 1
    room = 7
    with pytest.raises(NotWrittenError) as caught:
        file.write([b"four", b"five"])
    assert caught.value.lost == 1
    room = 100
    file.write([b"six"])
    assert file.path.read_bytes() == b"<header><one><four><six>"
    assert file.close() == 0


@pytest.mark.parametrize(
    ("log_dir", "error", "message"),
    [
        (
            3,
            TypeError,
            (
                "Handler 'tensorboard': log_dir must be a string or an os.PathLike, got 3 (int). "
                "Write log_dir='runs/a'."
            ),
        ),
        (
            "gs://bucket/run",
            ValueError,
            (
                "Handler 'tensorboard': log_dir must be a directory of this machine, got "
                "'gs://bucket/run'. Write log_dir='runs/a'."
            ),
        ),
        (
            "",
            ValueError,
            (
                "Handler 'tensorboard': log_dir must be a directory of this machine, got ''. "
                "Write log_dir='runs/a'."
            ),
        ),
    ],
)
def test_a_mistake_fails_when_it_is_attached(bus, log_dir, error, message):
    with pytest.raises(error) as caught:
        handlers.attach("tensorboard", log_dir=log_dir, registry=bus)
    assert str(caught.value) == message
    assert bus.list_handlers() == []


def test_a_directory_that_cannot_be_written_fails_when_it_is_attached(bus, tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "run"
    with pytest.raises(OSError, match="cannot write in") as caught:
        handlers.attach("tensorboard", log_dir=path, registry=bus)
    assert caught.value.strerror == (
        f"Handler 'tensorboard' cannot write in {str(path)!r}: Not a directory. "
        "Give a directory that can be written: log_dir='runs/a'."
    )
    assert bus.list_handlers() == []


def test_neither_the_import_nor_the_sink_imports_tensorflow(run_script, log_dir):
    run_script(
        f"""
import sys
import handlers.tensorboard
assert "tensorboard" not in sys.modules
handlers.attach("tensorboard", log_dir={str(log_dir)!r}).detach()
assert "tensorboard" in sys.modules
assert "tensorflow" not in sys.modules
"""
    )


def test_without_the_package_the_error_says_how_to_get_it(run_script):
    run_script(
        """
import sys
sys.modules["tensorboard"] = None
import handlers, telemetry
try:
    handlers.attach("tensorboard", log_dir="run")
except telemetry.MissingExtraError as error:
    assert "pip install 'trainbus[tensorboard]'" in str(error), error
    assert isinstance(error.__cause__, ImportError)
else:
    raise AssertionError
"""
    )

import gzip
import json
import os
import random
import subprocess
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import handlers
from handlers import gzip_repair
from telemetry import Registry

STEP = ("training", "step")
FLUSHED = b"\x00\x00\xff\xff"


def emit(path, numbers, text=""):
    bus = Registry()
    with handlers.attach("jsonl", path=path, registry=bus):
        for number in numbers:
            bus.execute(STEP, {"loss": 0.5, "text": text}, {"step": number})


def unpack(path):
    """The steps in a file, as gzip itself reads it: whole members only, checksums and all."""
    done = subprocess.run(["gzip", "-dc", path], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == gzip.decompress(path.read_bytes())
    assert done.stdout == b"" or done.stdout.endswith(b"\n")
    return [json.loads(line)["metadata"]["step"] for line in done.stdout.splitlines()]


def test_a_file_is_compressed_and_appended_to(tmp_path):
    path = tmp_path / "a" / "m.jsonl.gz"
    emit(path, range(100))
    emit(path, range(100, 103))
    assert unpack(path) == list(range(103))
    assert path.stat().st_size < 5000
    assert path.read_bytes().count(b"\x1f\x8b\x08") >= 2


def test_a_file_without_events_is_a_gzip_file_of_nothing(tmp_path):
    path = tmp_path / "m.jsonl.gz"
    emit(path, [])
    assert unpack(path) == []
    emit(path, [])
    emit(path, [1])
    assert unpack(path) == [1]


def test_each_line_can_be_read_when_execute_returns(bus, tmp_path):
    path = tmp_path / "m.jsonl.gz"
    handlers.attach("jsonl", path=path, registry=bus)
    for number in range(3):
        bus.execute(STEP, {}, {"step": number})
        lines = zlib.decompressobj(31).decompress(path.read_bytes()).splitlines()
        assert [json.loads(line)["metadata"]["step"] for line in lines] == list(range(number + 1))


def test_an_event_after_the_close_is_a_member_of_its_own(bus, tmp_path):
    path = tmp_path / "m.jsonl.gz"
    attachment = handlers.attach("jsonl", path=path, registry=bus)
    bus.execute(STEP, {}, {"step": 0})
    attachment.detach()
    for step in (1, 2):
        attachment.handler(STEP, {}, {"step": step}, None)
        assert unpack(path) == list(range(step + 1))


@pytest.fixture(scope="module")
def torn_at(tmp_path_factory):
    """A file of two members, the second of which was not ended, and where its lines end."""
    path = tmp_path_factory.mktemp("whole") / "m.jsonl.gz"
    emit(path, range(3))
    bus = Registry()
    attachment = handlers.attach("jsonl", path=path, registry=bus)
    ends = [path.stat().st_size]
    for number in range(3, 8):
        bus.execute(STEP, {"loss": number / 7}, {"step": number})
        ends.append(path.stat().st_size)
    unfinished = path.read_bytes()
    attachment.detach()
    return unfinished, path.read_bytes(), ends


def test_a_member_torn_at_any_byte_is_mended_and_appended_to(tmp_path, torn_at):
    unfinished, whole, ends = torn_at
    assert whole.startswith(unfinished)
    path = tmp_path / "m.jsonl.gz"
    for size in range(ends[0], len(whole) + 1):
        path.write_bytes(whole[:size])
        emit(path, [99])
        kept = sum(1 for end in ends[1:] if end <= size)
        assert unpack(path) == [*range(3 + kept), 99], size


def test_a_first_member_torn_at_any_byte(tmp_path):
    path = tmp_path / "m.jsonl.gz"
    emit(path, [0])
    whole = path.read_bytes()
    end = whole.index(FLUSHED) + 4
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        emit(path, [])
        assert unpack(path) == ([0] if size >= end else []), size


@given(texts=st.lists(st.binary(max_size=200), min_size=1, max_size=8), data=st.data())
def test_no_whole_line_is_ever_cut_off(tmp_path_factory, texts, data):
    """Whatever the compressed bytes look like, the four bytes of a flush among them included."""
    path = tmp_path_factory.mktemp("any") / "m.gz"
    compressor = zlib.compressobj(level=data.draw(st.integers(0, 9)), wbits=31)
    bodies = [text.replace(b"\n", b"") + FLUSHED * (len(text) % 3) for text in texts]
    lines = [gzip_repair.OURS + body + b"\n" for body in bodies]  # what is not ours is refused
    packed, ends = b"", []
    for line in lines:
        packed += compressor.compress(line) + compressor.flush(zlib.Z_SYNC_FLUSH)
        ends.append(len(packed))
    size = data.draw(st.integers(0, len(packed)))
    path.write_bytes(packed[:size])
    number = os.open(path, os.O_RDWR | os.O_APPEND)
    assert gzip_repair.repair(number) == path.stat().st_size
    os.close(number)
    kept = sum(1 for end in ends if end <= size)
    assert gzip.decompress(path.read_bytes()) == b"".join(lines[:kept])


def test_a_long_file_is_mended_chunk_by_chunk(tmp_path, monkeypatch, torn_at):
    monkeypatch.setattr(gzip_repair, "CHUNK", 7)
    _, whole, ends = torn_at
    path = tmp_path / "m.jsonl.gz"
    for size in range(ends[2], len(whole) + 1):
        path.write_bytes(whole[:size])
        emit(path, [])
        assert unpack(path) == list(range(3 + sum(1 for end in ends[1:] if end <= size))), size


def test_what_is_no_gzip_file_is_left_alone(tmp_path, bus):
    path = tmp_path / "m.jsonl.gz"
    path.write_bytes(b'{"plain": true}\n')
    with pytest.raises(OSError, match="cannot write") as caught:
        handlers.attach("jsonl", path=path, registry=bus)
    assert str(caught.value) == (
        f"[Errno 22] Handler 'jsonl' cannot write '{path}': it is no whole gzip file (Error -3 "
        "while decompressing data: incorrect header check); move it away. "
        "Give a file that can be written: path='runs/metrics.jsonl'."
    )
    assert path.read_bytes() == b'{"plain": true}\n'


def test_a_torn_file_of_another_program_is_left_alone(tmp_path, bus):
    path = tmp_path / "m.jsonl.gz"
    torn = gzip.compress(b"".join(b"%d a line\n" % n for n in range(1000)))[:-20]
    path.write_bytes(torn)
    with pytest.raises(OSError, match="its end is torn, and was not written by this handler"):
        handlers.attach("jsonl", path=path, registry=bus)
    assert path.read_bytes() == torn


def test_a_whole_file_of_another_program_is_appended_to(tmp_path):
    path = tmp_path / "m.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"metadata":{"step":7}}\n'))
    emit(path, [8])
    assert unpack(path) == [7, 8]


def test_a_second_writer_is_refused_and_told_why(tmp_path, bus):
    path = tmp_path / "m.jsonl.gz"
    handlers.attach("jsonl", path=path, registry=bus)
    bus.execute(STEP, {}, {"step": 1})
    source = f"import handlers; handlers.attach('jsonl', path={str(path)!r})"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1] == (
        f"BlockingIOError: [Errno 11] Handler 'jsonl' cannot write '{path}': another process or "
        "handler is writing it, and a gzip file has one writer (a path that ends in '.jsonl' can "
        "be shared, and '{rank}' in it gives each rank a file). "
        "Give a file that can be written: path='runs/metrics.jsonl'."
    )
    bus.detach("jsonl")
    assert unpack(path) == [1]


@pytest.mark.filterwarnings("ignore:os.fork")  # jax warns of it, wherever it was imported
def test_a_forked_child_writes_a_file_of_its_own(bus, tmp_path):
    path = tmp_path / "m.jsonl.gz"
    attachment = handlers.attach("jsonl", path=path, registry=bus)
    bus.execute(STEP, {}, {"step": 0})
    child = os.fork()
    if child == 0:
        bus.execute(STEP, {}, {"step": 1})
        attachment.detach()
        os._exit(0)
    os.waitpid(child, 0)
    bus.execute(STEP, {}, {"step": 2})
    attachment.detach()
    assert unpack(path) == [0, 2]
    assert unpack(tmp_path / f"m.{child}.jsonl.gz") == [1]


@pytest.mark.filterwarnings("ignore:os.fork")  # jax warns of it, wherever it was imported
def test_a_child_that_emits_nothing_makes_no_file(bus, tmp_path):
    attachment = handlers.attach("jsonl", path=tmp_path / "m.jsonl.gz", registry=bus)
    child = os.fork()
    if child == 0:
        attachment.detach()
        os._exit(0)
    os.waitpid(child, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl.gz"]


@pytest.mark.parametrize(
    "text", [b'{"a":1}\n' + random.Random(0).randbytes(50_000), random.Random(1).randbytes(50_000)]
)
def test_a_torn_file_of_somebody_else_is_left_alone(tmp_path, bus, text):
    path = tmp_path / "theirs.jsonl.gz"
    path.write_bytes(gzip.compress(text)[:40_000])
    before = path.read_bytes()
    with pytest.raises(OSError, match="was not written by this handler; move it away"):
        handlers.attach("jsonl", path=path, registry=bus)
    assert path.read_bytes() == before

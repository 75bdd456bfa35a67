"""Gzip files are decompressed piece by piece, whatever is in them."""

import gzip
import tracemalloc
import zlib

from hypothesis import given
from hypothesis import strategies as st

from telemetry.viewer.logs import inflating
from telemetry.viewer.logs.bad_lines import BadLines
from telemetry.viewer.logs.content import Content
from telemetry.viewer.logs.inflating import Inflater
from telemetry.viewer.logs.lines import read_lines

BIG = 1 << 28


def inflated(pieces):
    inflater = Inflater()
    return b"".join(text for piece in pieces for text in inflater.feed(piece)), inflater


def test_it_is_the_text_whatever_the_pieces(monkeypatch):
    @given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 40), st.integers(1, 40))
    def check(texts, size, limit):
        monkeypatch.setattr(inflating, "PIECE", limit)
        data = b"".join(map(gzip.compress, texts))
        pieces = [data[place : place + size] for place in range(0, len(data), size)]
        text, inflater = inflated(pieces)
        assert (text, inflater.damage) == (b"".join(texts), "")

    check()


def test_members_that_come_at_once_are_read_one_after_another(monkeypatch):
    monkeypatch.setattr(inflating, "PIECE", 100)
    texts = [b"one\n" * 1000, b"two\n" * 1000, b"", b"three\n"]
    assert inflated([b"".join(map(gzip.compress, texts))])[0] == b"".join(texts)


def test_a_file_that_ends_anywhere_is_read_as_far_as_it_goes(monkeypatch):
    """What was taken from the file may have more to give than was asked for at once."""
    data = gzip.compress(b"a" * 5000 + bytes(range(256)) + b"b" * 700)
    for cut in range(len(data)):
        whole = zlib.decompressobj(31).decompress(data[:cut])
        with monkeypatch.context() as patch:
            patch.setattr(inflating, "PIECE", 10)
            assert inflated([data[:cut]])[0] == whole


def test_what_is_before_damage_is_all_there(monkeypatch):
    monkeypatch.setattr(inflating, "PIECE", 100)
    data = bytearray(gzip.compress(b"line\n" * 1000))
    data[-8] ^= 0xFF  # the checksum
    text, inflater = inflated([bytes(data)])
    assert text == b"line\n" * 1000
    assert inflater.damage == (
        "the gzip file is damaged: Error -3 while decompressing data: incorrect data check"
    )


def test_what_is_no_gzip_at_all_is_told_from_what_is_damaged():
    assert inflated([b"plain text"])[1].damage == "it is no gzip file"
    assert inflated([gzip.compress(b"a") + b"plain"])[1].damage.startswith("the gzip file is dam")


def bomb(path):
    """A quarter of a gigabyte of one line in a quarter of a megabyte."""
    compressor = zlib.compressobj(9, wbits=31)
    with path.open("wb") as file:
        file.write(compressor.compress(b'{"loss":1}\n'))
        for _ in range(BIG >> 20):
            file.write(compressor.compress(bytes(1 << 20)))
        file.write(compressor.compress(b'\n{"loss":2}\n') + compressor.flush())


def test_a_line_beyond_all_bounds_is_not_held_in_memory(tmp_path):
    log = tmp_path / "run.jsonl.gz"
    bomb(log)
    bad = BadLines(log)
    tracemalloc.start()
    texts = [line.text for line in read_lines(log, bad)]
    _, peak = tracemalloc.get_traced_memory()
    assert (texts, bad.count) == ([b'{"loss":1}', b'{"loss":2}'], 1)
    assert peak < 200e6
    tracemalloc.reset_peak()
    pieces = list(Content(log).whole_lines())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [pieces[0], pieces[-1][-11:]] == [b'{"loss":1}\n', b'{"loss":2}\n']
    assert peak < 200e6

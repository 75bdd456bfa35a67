"""The files in which the engine gets bytes that come in pieces."""

import os
import tempfile
import threading
from pathlib import Path

import pytest

from telemetry.viewer.logs import blocks as module
from telemetry.viewer.logs.blocks import blocks_of
from telemetry.viewer.logs.engine import connect, lines_of


@pytest.fixture(params=["memory", "disk"])
def _kept(request, monkeypatch, tmp_path):
    """Blocks in memory, and on disk as where the system has no files in memory."""
    if request.param == "disk":
        monkeypatch.delattr(os, "memfd_create")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def open_files():
    return len(list(Path("/dev/fd").iterdir()))


@pytest.mark.usefixtures("_kept")
def test_pieces_are_in_files_one_after_another():
    pieces = [b"a\n" * 1000, b"b\n", b"", b"c\n" * 500, b"d\n"]
    found = [Path(path).read_bytes() for path in blocks_of(pieces, size=1001)]
    assert found == [b"a\n" * 1000, b"b\n" + b"c\n" * 500, b"d\n"]


@pytest.mark.usefixtures("_kept")
def test_no_file_is_left(tmp_path):
    before = open_files()
    for path in blocks_of([b"a\n", b"b\n", b"c\n"], size=1):
        assert Path(path).exists()
    assert open_files() == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_kept")
def test_the_engine_reads_what_is_in_a_file_that_takes_the_place_of_another():
    with connect() as connection:
        read = [
            connection.execute(f"FROM {lines_of(path)}").fetchall()
            for data in (b"one\n", b"two\n", b"three\nfour\n")
            for path in blocks_of([data])
        ]
    assert read == [[("one",)], [("two",)], [("three",), ("four",)]]


@pytest.mark.usefixtures("_kept")
def test_what_is_raised_while_pieces_are_made_is_raised(tmp_path):
    def pieces():
        yield b"a\n"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(blocks_of(pieces()))
    assert list(tmp_path.iterdir()) == []


def test_what_follows_is_raised_after_what_was_read():
    def pieces():
        yield b"a\n"
        raise OSError("gone")

    paths = blocks_of(pieces(), size=1)
    assert Path(next(paths)).read_bytes() == b"a\n"
    with pytest.raises(OSError, match="gone"):
        next(paths)


@pytest.mark.usefixtures("_kept")
def test_a_reader_that_has_enough_leaves_no_thread_and_no_file(tmp_path):
    before = threading.active_count(), open_files()
    paths = blocks_of([b"a\n", b"b\n", b"c\n"], size=1)
    next(paths)
    paths.close()
    assert (threading.active_count(), open_files()) == before
    assert list(tmp_path.iterdir()) == []


def test_a_block_is_large_enough_for_several_threads_and_bounded():
    assert 2**26 <= module.BLOCK <= 2**28

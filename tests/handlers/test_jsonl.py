import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import handlers
from telemetry import Registry

STEP = ("training", "step")

# Emits events as fast as it can, and says through a pipe after each that execute has returned.


def open_files():
    """What this process has open, by number."""
    numbers = {entry.name: entry for entry in Path("/proc/self/fd").iterdir()}
    return {name: os.path.realpath(entry) for name, entry in numbers.items() if entry.is_symlink()}


def emit_all(path, count=1, registry=None):
    bus = registry or Registry()
    with handlers.attach("jsonl", path=path, registry=bus):
        for number in range(count):
            bus.execute(STEP, {"loss": 0.5}, {"step": number})


def test_directories_are_made_and_a_path_may_be_of_any_kind(tmp_path, read):
    emit_all(tmp_path / "a" / "b" / "m.jsonl")
    emit_all(str(tmp_path / "c" / "m.jsonl"))
    assert len(read(tmp_path / "a" / "b" / "m.jsonl")) == len(read(tmp_path / "c" / "m.jsonl")) == 1


def test_a_relative_path_and_one_without_a_directory(tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    emit_all("m.jsonl")
    assert len(read(tmp_path / "m.jsonl")) == 1


def test_an_existing_file_is_appended_to(tmp_path, read, steps):
    path = tmp_path / "m.jsonl"
    emit_all(path, 2)
    emit_all(path, 2)
    assert steps(read(path)) == [0, 1, 0, 1]


def test_a_line_is_in_the_file_when_execute_returns(bus, tmp_path, read):
    path = tmp_path / "m.jsonl"
    handlers.attach("jsonl", path=path, registry=bus)
    for number in range(3):
        bus.execute(STEP, {}, {"step": number})
        assert len(read(path)) == number + 1


def test_a_torn_last_line_is_closed_off(tmp_path, steps):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"timestamp":"2026')
    emit_all(path, 2)
    torn, *whole = path.read_text().splitlines()
    assert torn == '{"timestamp":"2026'
    assert steps(map(json.loads, whole)) == [0, 1]


def test_a_line_that_another_process_is_just_writing_is_not_torn(tmp_path, monkeypatch):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"half":')
    complete = b'{"half": 1}\n'
    monkeypatch.setattr("handlers.line_file.time.sleep", lambda _: path.write_bytes(complete))
    emit_all(path)
    assert len(path.read_text().splitlines()) == 2


def test_the_handler_closes_its_file(bus, tmp_path):
    before = open_files()
    attachment = handlers.attach("jsonl", path=tmp_path / "m.jsonl", registry=bus)
    bus.execute(STEP, {})
    assert len(open_files()) == len(before) + 1
    attachment.detach()
    assert open_files() == before


def test_the_descriptor_is_not_inherited_by_other_programs(bus, tmp_path):
    handlers.attach("jsonl", path=tmp_path / "m.jsonl", registry=bus)
    listing = subprocess.run(
        [sys.executable, "-c", "import os; print(os.listdir('/proc/self/fd'))"],
        capture_output=True,
        text=True,
        check=True,
        close_fds=False,
    )
    assert str(tmp_path / "m.jsonl") in open_files().values()
    assert "m.jsonl" not in listing.stdout


def test_an_event_that_comes_after_the_close_is_not_lost(bus, tmp_path, read, steps):
    path = tmp_path / "m.jsonl"
    attachment = handlers.attach("jsonl", path=path, registry=bus)
    bus.execute(STEP, {}, {"step": 0})
    attachment.detach()
    attachment.handler(STEP, {}, {"step": 1}, None)
    attachment.handler(STEP, {}, {"step": 2}, None)
    assert steps(read(path)) == [0, 1, 2]
    assert str(path) not in open_files().values()


def test_the_timestamp_is_the_time_of_execute(bus, tmp_path, read):
    from datetime import UTC, datetime

    path = tmp_path / "m.jsonl"
    handlers.attach("jsonl", path=path, registry=bus, background=True)
    before = datetime.now(UTC)
    bus.execute(STEP, {})
    after = datetime.now(UTC)
    bus.detach("jsonl")
    assert before <= datetime.fromisoformat(read(path)[0]["timestamp"]) <= after


def test_the_file_has_the_permissions_of_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        emit_all(tmp_path / "m.jsonl")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "m.jsonl").stat().st_mode) == 0o640


def test_a_file_that_may_not_be_written(tmp_path, bus):
    path = tmp_path / "m.jsonl"
    path.touch(0o400)
    if os.geteuid() == 0:  # to whom the mode means nothing
        path = Path("/proc/sys/kernel/osrelease")
    with pytest.raises(PermissionError) as caught:
        handlers.attach("jsonl", path=path, registry=bus)
    assert str(caught.value) == (
        f"[Errno 13] Handler 'jsonl' cannot write '{path}': Permission denied. "
        "Give a file that can be written: path='runs/metrics.jsonl'."
    )
    assert isinstance(caught.value.__cause__, PermissionError)


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch, bus):
    monkeypatch.setenv("HOME", str(tmp_path))
    with handlers.attach("jsonl", path="~/logs/m.jsonl", registry=bus):
        bus.execute(("a",), {})
    assert len((tmp_path / "logs" / "m.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("path", ["/", ".", "..", "a\0b", "\ud800.jsonl", ""])
@pytest.mark.parametrize("ranks", ["zero", "all"])
def test_a_path_that_names_no_file_is_refused(tmp_path, monkeypatch, bus, path, ranks):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="path must name a file, got"):
        handlers.attach("jsonl", path=path, ranks=ranks, registry=bus)
    assert list(tmp_path.iterdir()) == []


def test_a_relative_path_is_where_it_was_when_it_was_attached(tmp_path, monkeypatch, bus):
    monkeypatch.chdir(tmp_path)
    attachment = handlers.attach("jsonl", path="m.jsonl", registry=bus)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    attachment.detach()
    attachment.handler(("late",), {}, {}, None)
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 1

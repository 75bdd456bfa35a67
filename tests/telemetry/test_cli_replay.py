"""`telemetry replay --to`: what was recorded reaches handlers as it was."""

import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import handlers
from telemetry import Registry
from telemetry.cli import commands
from telemetry.cli.output.progress import Progress

TELEMETRY = [sys.executable, "-W", "error", "-m", "telemetry", "replay"]
HOUR = "2026-11-21T11:30:00.000001Z"


def invoke(*arguments):
    return CliRunner().invoke(commands, ["replay", *map(str, arguments)])


@pytest.fixture
def into(tmp_path, monkeypatch):
    """Replay into `out.jsonl`, and what it has then."""
    monkeypatch.chdir(tmp_path)

    def into(*arguments, path="out.jsonl"):
        done = invoke(*arguments, "--to", "jsonl", "--option", f"path={path}")
        return done, (tmp_path / path).read_text() if (tmp_path / path).exists() else None

    return into


def record(event="training.step", timestamp="2026-11-21T10:30:00.123456Z", **metadata):
    whole = {"timestamp": timestamp, "event": event}
    whole |= {"measurements": {"loss": 2.5}, "metadata": metadata}
    return json.dumps(whole, separators=(",", ":"))  # as the handler writes it


@pytest.fixture
def write(tmp_path):
    def write(name, *lines):
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write


def emit_all_sorts(bus):
    """What has no form in JSON, and what looks like something else when it is read."""
    measured = {"nan": float("nan"), "inf": [1.5, float("-inf")], "big": 2**70, "list": [1, [2.0]]}
    measured |= {"tiny": 5e-324, "huge": 1.7e308, "minus": -0.0, "text": "NaN", "digits": "9" * 19}
    measured |= {"half": np.float16(0.1), "array": np.arange(3), "flag": np.array([True])[0]}
    bus.execute(("training", "step"), measured, {"step": 1, "name": "NaN", "big": -(2**99)})
    nasty = {"é\u2028": "\x1b[31m\ud800", 3: (1, 2), "path": os, "none": None, "deep": {"a": {}}}
    bus.execute(("a b", "ä/ö"), {}, nasty)
    own = {"span_id": "1F", "parent_id": None, "trace_id": "0"}
    bus.execute(("own",), {"n": 1}, {"telemetry_span_context": own})
    with suppress(ValueError), bus.span(("outer",), {"model_id": "m"}):
        with bus.span(("inner",)) as span:
            span.measure(value=1)
        raise ValueError("broken: \n'quoted'")
    bus.execute(("telemetry", "handler", "overflow"), {"dropped": 3}, {"policy": "failed"})


def test_a_replayed_file_is_the_file_that_was_recorded(into, tmp_path):
    log, bus = tmp_path / "run.jsonl", Registry()
    with handlers.attach("jsonl", registry=bus, path=log):
        emit_all_sorts(bus)
    done, text = into(log)
    assert done.exit_code == 0, done.output
    assert text.encode() == log.read_bytes()
    assert text.count("\n") == 8
    assert done.stdout == ""
    assert done.stderr.startswith("Replayed 8 events in ")


texts = st.text(max_size=9)
values = st.floats() | st.integers(-(2**80), 2**80) | st.booleans() | st.none() | texts
nested = st.recursive(values, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
mappings = st.dictionaries(texts, nested, max_size=4)


@settings(max_examples=30)  # each of them attaches handlers
@given(st.lists(st.tuples(mappings, mappings), min_size=5, max_size=9))
def test_whatever_was_recorded_is_replayed_byte_for_byte(tmp_path_factory, events):
    folder, bus = tmp_path_factory.mktemp("run"), Registry()
    with handlers.attach("jsonl", registry=bus, path=folder / "run.jsonl"):
        for measurements, metadata in events:
            bus.execute(("a", "b"), measurements, metadata)
    option = f"path={folder / 'out.jsonl'}"
    done = invoke(folder / "run.jsonl", "--to", "jsonl", "--option", option)
    assert done.exit_code == 0, done.output
    assert (folder / "out.jsonl").read_bytes() == (folder / "run.jsonl").read_bytes()


def test_compressed_files_and_several_of_them(write, tmp_path):
    first = write("b.jsonl", record(step=1), record(step=2))
    second = tmp_path / "a.jsonl.gz"
    second.write_bytes(gzip.compress(f"{record(step=3)}\n".encode()))
    out = tmp_path / "out.jsonl.gz"
    invoke(first, second, "--to", "jsonl", "--option", f"path={out}")
    out = gzip.decompress(out.read_bytes()).decode().splitlines()
    assert [json.loads(line)["metadata"]["step"] for line in out] == [1, 2, 3]


def test_a_folder_stands_for_its_logs(into, write, tmp_path):
    (tmp_path / "runs").mkdir()
    write("runs/a.jsonl", record(step=1))
    write("runs/b.jsonl", record(step=2))
    write("runs/notes.txt", "nothing")
    _, text = into("runs")
    assert [json.loads(line)["metadata"]["step"] for line in text.splitlines()] == [1, 2]


def test_only_what_is_chosen_is_sent(into, write):
    log = write(
        "run.jsonl",
        record(step=1, rank=0),
        record("training.eval", step=2, rank=0),
        record(step=3, rank=1),
        record("alert.raised", step=4, rank=0),
    )
    done, text = into(log, "--event", "training", "--event", "own", "--where", "rank=0")
    assert [json.loads(line)["metadata"]["step"] for line in text.splitlines()] == [1, 2]
    assert done.stderr.startswith("Replayed 2 events in ")
    assert done.stderr.endswith("; left out: 2.\n")


def test_records_of_other_programs_are_sent_with_their_time_or_that_of_now(into, write):
    log = write(
        "run.jsonl",
        '{"step": 1, "timestamp": "2020-01-01T00:00:00Z", "metrics": {"train/loss": 2.5}}',
        '{"step": 2, "metrics": {"train/loss": 1.5}}',
    )
    done, text = into(log)
    first, second = map(json.loads, text.splitlines())
    assert first == {
        "timestamp": "2020-01-01T00:00:00.000000Z",
        "event": "record",
        "measurements": {"train.loss": 2.5},
        "metadata": {"step": 1},
    }
    assert second["timestamp"] > "2026"
    assert "without a time, so sent with that of now: 1." in done.stderr


def test_lines_that_are_no_records_are_named_and_the_rest_is_sent(into, write):
    log = write("run.jsonl", record(step=1), "garbage", record(step=2), '{"torn"')
    done, text = into(log)
    assert done.exit_code == 0
    assert len(text.splitlines()) == 2
    assert f"{log}: no record in lines 2, 4 (" in done.stderr


def test_the_summary_is_there_for_scripts_too(into, write):
    log = write("run.jsonl", record(step=1), "garbage", record("own"))
    done, _ = into(log, "--json", "--event", "training")
    told = json.loads(done.stdout)
    assert told.pop("seconds") >= 0
    assert told == {
        "events": 1,
        "left_out": 1,
        "undated": 0,
        "bad_lines": 1,
        "lost": {},
        "delivered": {"file": str(log), "line": 1},
    }


def test_a_dry_run_sends_nothing_and_says_what_it_would(into, write):
    log = write("run.jsonl", record(step=1), record(step=2, timestamp=HOUR), record("own"))
    done, text = into(log, "--dry-run", "--event", "training")
    assert (done.exit_code, text) == (0, None)
    assert done.stdout == (
        "           2  training.step\n"
        "           2  events would be sent to jsonl, from 2026-11-21T10:30:00+00:00 to "
        "2026-11-21T11:30:00+00:00.\n"
    )
    done, text = into(log, "--dry-run", "--json")
    assert (json.loads(done.stdout), text) == (
        {
            "to": ["jsonl"],
            "events": {"training.step": 2, "own": 1},
            "total": 3,
            "from": "2026-11-21T10:30:00+00:00",
            "until": "2026-11-21T11:30:00+00:00",
        },
        None,
    )


def test_a_lost_event_is_the_exit_status(write):
    log = write("run.jsonl", record(step=1), record(step=2))
    done = invoke(log, "--to", "jsonl", "--option", "path=/dev/full")
    assert done.exit_code == 1
    assert done.stderr.endswith("; lost: 2 (disk_full).\n")


def test_the_file_that_is_read_is_not_written(into, write, tmp_path):
    log = write("run.jsonl", record(step=1))
    (tmp_path / "link.jsonl").symlink_to(log)
    for name in ("run.jsonl", "link.jsonl"):
        for dry in ([], ["--dry-run"]):
            done, text = into(log, *dry, path=name)
            assert done.exit_code == 1
            assert done.output == (
                f"Error: Handler 'jsonl' would write to the file that is read, {tmp_path / name}. "
                "Give it another: --option path=FILE.\n"
            )
            assert text == f"{record(step=1)}\n"


def test_a_file_that_is_read_is_not_even_mended(into, tmp_path):
    """The handler cuts off the torn end of a compressed file when it opens it."""
    log = tmp_path / "run.jsonl.gz"
    torn = gzip.compress("".join(f"{record(step=step)}\n" for step in range(99)).encode())[:-20]
    log.write_bytes(torn)
    done, _ = into(log, "--json", path="out.jsonl")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["events"] > 0
    done = invoke(log, "--to", "jsonl", "--option", f"path={log}")
    assert (done.exit_code, "is read" in done.output) == (1, True)
    assert log.read_bytes() == torn


def test_a_tilde_before_what_is_nobodys_name_is_a_folder_called_so(into, write, tmp_path):
    log = write("run.jsonl", record(step=1))
    done, _ = into(log, path="~no-such-user/out.jsonl")
    assert (done.exit_code, done.exception) == (0, None)
    assert (tmp_path / "~no-such-user" / "out.jsonl").read_bytes() == log.read_bytes()


def test_two_handlers_do_not_write_one_file(into, write, tmp_path):
    log = write("run.jsonl", record(step=1))
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "out.jsonl")
    done, text = into(log, "--to", "jsonl", "--option", "path=link.jsonl")
    assert (done.exit_code, text) == (1, None)
    assert done.stderr == (
        "Error: Two handlers would write to out.jsonl. Give each its own: --option path=FILE.\n"
    )


def test_a_file_that_is_named_twice_is_sent_once(into, write, tmp_path):
    log = write("run.jsonl", record(step=1))
    (tmp_path / "link.jsonl").symlink_to(log)
    _, text = into(log, "link.jsonl", log)
    assert text == log.read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["run.jsonl"], 2, "Write --to NAME or --clipper NAME."),
        (["run.jsonl", "--to", "memory", "--clipper", "agc"], 2, "exclude each other"),
        (["run.jsonl", "--clipper", "agc", "--speed", "1"], 2, "--speed is an option of --to."),
        (["run.jsonl", "--to", "memory", "--out", "x.png"], 2, "--out is an option of --clipper."),
        (["run.jsonl", "--to", "memroy"], 1, "Did you mean 'memory'?"),
        (["run.jsonl", "--to", "memory", "--option", "maxlne=2"], 2, "'maxlen'"),
        (["run.jsonl", "--to", "memory", "--dry-run", "--option", "maxlne=2"], 2, "'maxlen'"),
        (
            ["run.jsonl", "--to", "jsonl", "--option", "path=/proc/no/x"],
            1,
            "Error: Handler 'jsonl'",
        ),
        (["run.jsonl", "--to", "memory", "--speed", "-1"], 2, "--speed"),
        (["run.jsonl", "--to", "memory", "--speed", "nan"], 2, "must be a number, got nan"),
        (["run.jsonl", "--to", "memory", "--event", "trainign"], 1, "Did you mean training?"),
        (["run.jsonl", "--to", "memory", "--from-line", "9"], 1, "run.jsonl from line 9 on."),
        (["run.jsonl", "empty.jsonl", "--to", "memory", "--from-line", "2"], 2, "of one file"),
        (["empty.jsonl", "--to", "memory"], 1, "There is no record in empty.jsonl."),
        (["empty.jsonl", "--to", "memory", "--dry-run"], 1, "There is no record in empty.jsonl."),
        (["no.jsonl", "--to", "memory"], 1, "There is no file 'no.jsonl'."),
        (["folder", "--to", "memory"], 1, "has no log"),
        ([], 2, "Missing argument 'FILE...'"),
    ],
)
def test_what_cannot_be_is_said(write, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    write("run.jsonl", record(step=1))
    write("empty.jsonl")
    (tmp_path / "folder").mkdir()
    done = invoke(*arguments)
    assert done.exit_code == status, done.output
    assert message in done.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_good_order_it_says_where_to_go_on(into, write, tmp_path, number):
    """An hour passes between two events, at the speed at which they were recorded."""
    later = [record(step=step, timestamp=HOUR) for step in (3, 4)]
    log = write("run.jsonl", record(step=1), record(step=2), *later)
    out = tmp_path / "out.jsonl"
    arguments = [log, "--to", "jsonl", "--option", f"path={out}", "--speed", "1"]
    process = subprocess.Popen([*TELEMETRY, *arguments], stderr=subprocess.PIPE, text=True)
    with process:
        while not (out.exists() and len(out.read_text().splitlines()) == 2):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == (
        f"Stopped after line 2 of {log}. To go on: {log} --from-line 3"
    )
    assert into(log, "--from-line", 3)[0].exit_code == 0
    assert out.read_text() == log.read_text()


def test_a_line_says_how_far_it_is_twice_a_second(capsys):
    now = [100.0]
    progress = Progress(shown=True, clock=lambda: now[0])
    for moment, events in ((100.25, 10), (100.5, 20), (100.75, 5000), (102.5, 4020)):
        now[0] = moment
        progress(events, lambda: "50% of 1.0 MB")
    progress.say("done")
    assert capsys.readouterr().err == (
        "\r\x1b[K20 events, 40 a second, 50% of 1.0 MB"
        "\r\x1b[K4,020 events, 2,000 a second, 50% of 1.0 MB"
        "\r\x1b[Kdone\n"
    )


@pytest.mark.parametrize("without_colour", ["", "1"])
def test_on_a_terminal_a_line_says_how_far_it_is(write, tmp_path, monkeypatch, without_colour):
    monkeypatch.setenv("NO_COLOR", without_colour)
    log = write("run.jsonl", *(record(step=step) for step in range(2000)))
    master, slave = pty.openpty()
    arguments = [log, "--to", "jsonl", "--option", f"path={tmp_path / 'out.jsonl'}"]
    always = (
        "from telemetry.cli import main; from telemetry.cli.output import progress; "
        "progress.REFRESH = 0; main()"
    )
    command = [sys.executable, "-W", "error", "-c", always, "replay", *arguments]
    process = subprocess.Popen(command, stderr=slave)
    os.close(slave)
    shown = b""
    with suppress(OSError):  # what Linux says at the end of a terminal
        while data := os.read(master, 4096):
            shown += data
    assert process.wait(60) == 0
    os.close(master)
    *progress, last = shown.decode().split("\r\x1b[K")[1:]
    assert last.startswith("Replayed 2,000 events in ")
    megabytes = re.escape(f"{log.stat().st_size / 1e6:.1f}")
    form = re.compile(rf"[0-9,]+ events, [0-9,]+ a second, [0-9]+% of {megabytes} MB")
    assert len(progress) >= 2000
    assert all(form.fullmatch(line) for line in progress)

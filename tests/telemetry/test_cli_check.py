"""`telemetry check`: what becomes of a test event, stage by stage."""

import json
import re
import subprocess
import sys
import types
from importlib.metadata import version

import pytest
from click.testing import CliRunner

from telemetry.cli import commands

OURS = version("trainbus")


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Run the command; the lines that it prints."""
    monkeypatch.chdir(tmp_path)

    def check(*arguments, expect=0, **environment):
        done = CliRunner(env=environment).invoke(commands, ["check", *arguments])
        assert done.exit_code == expect, done.output
        return re.sub(r"\d+\.\d\d s$", "T s", done.output, flags=re.MULTILINE).splitlines()

    return check


@pytest.fixture
def register(tmp_path, monkeypatch):
    """Register the handler "mine" of another distribution."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def register(create):
        module = types.ModuleType("my_sinks", "Reads ``MY_KEY`` and ``MY_OTHER_*``.")
        module.create = create
        create.__module__ = "my_sinks"
        monkeypatch.setitem(sys.modules, "my_sinks", module)
        folder = tmp_path / "site" / "my_sinks-2.5.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: my-sinks\nVersion: 2.5\n")
        (folder / "entry_points.txt").write_text("[trainbus.handlers]\nmine = my_sinks:create\n")

    return register


def test_an_event_that_was_delivered(check, tmp_path):
    assert check("jsonl", "--option", "path=m.jsonl") == [
        f"ok      registered  jsonl, of trainbus {OURS} (handlers.jsonl:create)",
        "ok      installed   needs no other package",
        "ok      options     accepted: path",
        "ok      attached    it delivers in the thread that emits",
        "ok      emitted     training.step with loss=1.0, step=1, run_id=telemetry-check",
        "ok      delivered   in T s",
        "ok      closed      in T s",
        "",
        f"Look for it here: {tmp_path / 'm.jsonl'}",
    ]
    (line,) = (tmp_path / "m.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["event"] == "training.step"
    assert record["measurements"] == {"loss": 1.0}
    assert record["metadata"] == {"step": 1, "run_id": "telemetry-check"}


def test_several_events(check, tmp_path):
    lines = check("jsonl", "--option", "path=m.jsonl", "--events", "4")
    assert lines[4] == (
        "ok      emitted     training.step with loss=1.0, step=1 to 4, run_id=telemetry-check"
    )
    records = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [record["metadata"]["step"] for record in records] == [1, 2, 3, 4]
    assert [record["measurements"]["loss"] for record in records] == [1, 1 / 2, 1 / 3, 1 / 4]


def test_a_name_that_nobody_registered(check):
    (line,) = check("jsonn", expect=1)
    assert line.startswith("FAILED  registered  Unknown handler 'jsonn'. Known handlers: blinker,")
    assert line.endswith("Did you mean 'jsonl'?")


def test_a_package_that_is_missing(check, monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    assert check("redis", expect=1)[1:] == [
        (
            "FAILED  installed   Handler 'redis' needs the module 'redis', which cannot be "
            "imported. Install it with: pip install 'trainbus[redis]'"
        )
    ]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "path=",
            "Handler 'jsonl': path must name a file, got ''. Write path='runs/metrics.jsonl'.",
        ),
        ("pth=x", "Handler 'jsonl' has no option 'pth'. Its options: path. Did you mean 'path'?"),
    ],
)
def test_an_option_that_is_refused(check, option, message):
    assert check("jsonl", "--option", option, expect=1)[1:] == [
        "ok      installed   needs no other package",
        f"FAILED  options     {message}",
    ]


def test_environment_variables_are_named_and_not_shown(check):
    url = "redis://u:hidden-word@h/a"
    assert check("redis", expect=1, REDIS_URL=url)[1:] == [
        f"ok      installed   redis {version('redis')}",
        (
            "FAILED  options     Handler 'redis': url 'redis://***@h/a' is malformed. After the "
            "host it can have the number of a database: 'redis://127.0.0.1:6379/0'."
        ),
        "                    environment, set: REDIS_URL",
    ]


def test_a_file_that_cannot_be_opened(check, tmp_path):
    (tmp_path / "file").touch()
    lines = check("jsonl", "--option", "path=file/m.jsonl", expect=1)
    assert lines[2:] == [
        "ok      options     accepted: path",
        (
            f"FAILED  attached    Handler 'jsonl' cannot write '{tmp_path}/file/m.jsonl': "
            "File exists. Give a file that can be written: path='runs/metrics.jsonl'."
        ),
    ]


def test_another_end_that_is_not_there(check):
    url = "url=redis://u:hidden-word@127.0.0.1:1/0"
    lines = check("redis", "--option", url, "--timeout", "2", expect=1)
    lines.remove(  # it comes with the stage at which the worker found out
        "                    Handler 'redis' cannot reach redis://***@127.0.0.1:1/0 "
        "(ConnectionError: Error 111 connecting to 127.0.0.1:1. Connection refused.); it goes "
        "on trying."
    )
    assert lines[6:] == [
        "FAILED  delivered   not within 2 s",
        "FAILED  closed      lost: 1 (drop_oldest)",
        (
            "                    Handler 'redis', events lost so far: 1 (drop_oldest): no end "
            "within 2.0 s"
        ),
    ]


def test_a_handler_of_another_distribution_that_fails(check, register):
    def create(site, *, word="x"):
        def sink(event, measurements, metadata, config):
            raise RuntimeError(f"refused: {word}")

        return sink

    register(create)
    assert check("mine", "--option", "word=no", expect=1, MY_KEY="hidden", MY_OTHER_ONE="") == [
        "ok      registered  mine, of my-sinks 2.5 (my_sinks:create)",
        "ok      installed   needs no other package",
        "ok      options     accepted: word",
        "                    environment, set: MY_KEY, MY_OTHER_ONE",
        "ok      attached    it delivers in the thread that emits",
        "ok      emitted     training.step with loss=1.0, step=1, run_id=telemetry-check",
        "FAILED  delivered   RuntimeError: refused: no",
        "ok      closed      in T s",
    ]


def test_a_handler_that_cannot_be_closed(check, register):
    class Sink:
        delivery = "background"

        def __call__(self, event, measurements, metadata, config):
            pass

        def close(self):
            raise RuntimeError("no end")

    def create(site):
        return Sink()

    register(create)
    delivered, closed = check("mine", expect=1)[-2:]
    assert delivered == "ok      delivered   in T s"
    failure = "Handler 'mine' failed while it was being closed: RuntimeError: no end"
    assert closed == f"FAILED  closed      {failure}"


def test_a_process_of_another_rank_is_told_so(check):
    lines = check("memory", expect=1, RANK="2")
    assert lines == [
        (
            "Error: RANK=2 says that this is a process of a distributed run, and not its first, so "
            "handlers are not built. Start it with: env -u RANK ..."
        )
    ]


def test_colours_are_for_terminals():
    command = [sys.executable, "-W", "error", "-m", "telemetry", "check", "memory"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    coloured = CliRunner().invoke(commands, ["check", "memory"], color=True)
    assert coloured.stdout.startswith("\x1b[32mok\x1b[0m      registered")

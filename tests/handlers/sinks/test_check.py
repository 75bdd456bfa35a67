"""`telemetry check` and sinks: what is sent where, and what sends nothing says so."""

import json
import socket
import sys
import time
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from telemetry.cli import commands


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Run the command; the lines that it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)

    def check(handler, *options, expect=0, events=1, **environment):
        given = ["--events", str(events)]
        given += [part for option in options for part in ("--option", option)]
        done = CliRunner(env=environment).invoke(commands, ["check", handler, *given])
        assert done.exit_code == expect, done.output
        assert done.exception is None or type(done.exception) is SystemExit
        return done.output.splitlines()

    return check


@pytest.fixture
def register(tmp_path, monkeypatch):
    """Register the handler "mine" of another distribution."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def register(create):
        module = types.ModuleType("my_sinks")
        module.create = create
        monkeypatch.setitem(sys.modules, "my_sinks", module)
        folder = tmp_path / "site" / "my_sinks-2.5.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: my-sinks\nVersion: 2.5\n")
        (folder / "entry_points.txt").write_text("[trainbus.handlers]\nmine = my_sinks:create\n")

    return register


@pytest.mark.parametrize(
    ("style", "said"),
    [
        ("slack", {"text": "Alert (info): telemetry check"}),
        (
            "discord",
            {"content": "Alert (info): telemetry check", "allowed_mentions": {"parse": []}},
        ),
    ],
)
def test_a_chat_is_told_of_an_alert(check, receiver, style, said):
    lines = check("webhook", f"url={receiver.url}/hook", f"style={style}")
    assert lines[4] == (
        "ok      emitted     alert.raised with rule=telemetry-check, severity=info, "
        "message=telemetry check, step=1, run_id=telemetry-check"
    )
    (request,) = receiver.requests
    assert json.loads(request[2]) == said


def test_any_other_url_is_told_of_a_step(check, receiver):
    check("webhook", f"url={receiver.url}/hook", "style=json")
    (request,) = receiver.requests
    assert json.loads(request[2])["event"] == "training.step"


@pytest.mark.parametrize(
    ("handler", "options", "environment", "because"),
    [
        ("datadog", [], {"DATADOG_ENABLED": "false"}, "DATADOG_ENABLED is 'false'"),
        ("wandb", ["mode=disabled"], {}, "the run's mode is 'disabled'"),
        (
            "opentelemetry",
            ["endpoint=http://127.0.0.1:1"],
            {"OTEL_SDK_DISABLED": "True"},
            "OTEL_SDK_DISABLED is true",
        ),
    ],
)
def test_what_is_switched_off_says_so(check, handler, options, environment, because):
    lines = check(handler, *options, expect=1, **environment)
    (failed,) = [line for line in lines if line.startswith("FAILED")]
    assert failed == f"FAILED  attached    it sends nothing: {because}"
    assert not [line for line in lines if "emitted" in line or "Look" in line]


@pytest.mark.parametrize(
    ("handler", "options", "place"),
    [
        ("mlflow", ["tracking_uri=sqlite:///m.db"], "MLflow at 'HERE/m.db', run "),
        ("opentelemetry", ["endpoint=RECEIVER"], "RECEIVER/v1/traces, RECEIVER/v1/metrics, "),
        ("prometheus", ["port=0"], "http://127.0.0.1:"),
        ("prometheus", ["pushgateway=RECEIVER", "job=j"], "RECEIVER, job j"),
        (
            "datadog",
            ["host=127.0.0.1", "port=PORT", "namespace=n"],
            "udp://127.0.0.1:PORT, metric n.training.loss",
        ),
    ],
)
def test_where_to_look(check, receiver, tmp_path, handler, options, place):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        words = {
            "RECEIVER": receiver.url,
            "HERE": str(tmp_path),
            "PORT": str(agent.getsockname()[1]),
        }
        for word, meant in words.items():
            options = [option.replace(word, meant) for option in options]
            place = place.replace(word, meant)
        last = check(handler, *options)[-1]
    assert last.startswith(f"Look for it here: {place}")


def test_an_offline_run_is_where_it_can_be_sent_from(check, tmp_path):
    last = check("wandb", "mode=offline", "project=p")[-1]
    command, _, directory = last.removeprefix("Look for it here: ").rpartition(" ")
    assert command == "wandb sync"
    assert Path(directory).is_absolute()
    assert list(Path(directory).glob("run-*.wandb"))


def test_a_factory_that_ends_the_program_is_a_failure(check, register):
    def create(site):
        raise SystemExit("no licence")

    register(create)
    assert check("mine", expect=1)[-1] == "FAILED  attached    SystemExit: no licence"


def test_hints_that_cannot_be_read_are_no_failure(check, register):
    def create(site, *, word: "1/0" = "x"):
        return lambda event, measurements, metadata, config: None

    register(create)
    assert check("mine", "word=a")[2] == "ok      options     accepted: word"


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (lambda: None, []),
        (lambda: 1 / 0, ["FAILED  delivered   ZeroDivisionError: division by zero"]),
    ],
)
def test_a_sink_that_does_not_say_where_is_closed_all_the_same(check, register, answer, failed):
    closed = []

    class Sink:
        def __call__(self, event, measurements, metadata, config):
            pass

        def where_to_look(self):
            return answer()

        def close(self):
            closed.append(True)

    register(lambda site: Sink())
    lines = check("mine", expect=len(failed))
    assert [line for line in lines if line.startswith("FAILED")] == failed
    assert closed == [True]
    assert "Look" not in "".join(lines)


def test_many_events_find_room(check, register):
    class Slow:
        delivery = "background"

        def __call__(self, event, measurements, metadata, config):
            if metadata["step"] == 1:
                time.sleep(1)  # all others come meanwhile

    register(lambda site: Slow())
    lines = check("mine", events=10_500)
    assert not [line for line in lines if "FAILED" in line or "lost" in line]


def test_what_comes_from_elsewhere_is_not_printed(check, register, tmp_path):
    def create(site, *, token, headers: dict[str, str]):
        raise ValueError(f"neither {token} nor {headers}")

    register(create)
    (tmp_path / "token").write_text("hidden-word\n")
    lines = check(
        "mine",
        "token=@token",
        'headers={"Authorization": "env:T", "Other": "plain"}',
        expect=1,
        T="other-word",
    )
    assert lines[-1] == (
        "FAILED  options     neither *** nor {'Authorization': '***', 'Other': 'plain'}"
    )


def test_variables_are_those_of_before(check, register):
    import os

    def create(site):
        """Reads ``MY_DIRECTORY`` and ``MY_KEY``, and sets one."""
        os.environ["MY_DIRECTORY"] = "x"
        return lambda event, measurements, metadata, config: None

    register(create)
    try:
        lines = check("mine", MY_KEY="x")
    finally:
        os.environ.pop("MY_DIRECTORY", None)
    assert lines[3:5] == [
        "                    environment, set: MY_KEY",
        "                    environment, not set: MY_DIRECTORY",
    ]

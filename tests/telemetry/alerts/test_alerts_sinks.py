"""What becomes of real alerts in the sinks that show them, read back from their other ends."""

import contextlib
import http.server
import io
import json
import os
import socket
import threading
from math import nan
from pathlib import Path

import pytest

import handlers
from telemetry import alerts

RULES = [
    alerts.Rule("kl", "rl.kl_divergence", above=0.1, message="Lower the learning rate."),
    alerts.Rule("entropy", "rl.entropy", below=1.0, severity="info"),
    alerts.Rule("nan", "training.loss", nonfinite=True, severity="error"),
]


@pytest.fixture
def emit(bus):
    """Raise an alert of each severity and end one; detach whatever was attached."""

    def emit():
        with alerts.attach(RULES, registry=bus):
            bus.execute(("rl", "step"), {"kl_divergence": 0.2}, {"step": 1, "run_id": "a"})
            bus.execute(("rl", "step"), {"entropy": 0.5}, {"step": 2, "run_id": "a"})
            bus.execute(("training", "step"), {"loss": nan}, {"step": 3, "run_id": "a"})
            bus.execute(("rl", "step"), {"kl_divergence": 0.1}, {"step": 4, "run_id": "a"})
        for info in bus.list_handlers():
            bus.detach(info.id, missing_ok=True)

    return emit


KL = "rl.kl_divergence is 0.2: above 0.1. Lower the learning rate."
OVER = "rl.kl_divergence is 0.1: no longer above 0.1."


def test_the_console_shows_the_severity_by_a_colour(bus, emit):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    handlers.attach("console", stream=stream, events=[("alert", "*")], registry=bus)
    emit()
    red, cyan, green = "\x1b[31m", "\x1b[36m", "\x1b[32m"
    lines = [line for line in stream.getvalue().replace("\x1b[0m", "").splitlines() if line.strip()]
    assert [line[line.index("\x1b[3") :].rstrip() for line in lines] == [
        f"{red}Alert raised (critical): kl | value=0.2 | limit=0.1 | {KL}",
        f"{cyan}Alert raised (info): entropy | value=0.5 | limit=1 | rl.entropy is 0.5: below 1.",
        f"{red}Alert raised (error): nan | value=nan | training.loss is nan: not finite.",
        f"{green}Alert cleared (critical): kl | value=0.1 | limit=0.1 | {OVER}",
    ]


def test_jsonl_has_the_numbers_and_where_they_come_from(bus, emit, tmp_path):
    path = tmp_path / "m.jsonl"
    handlers.attach("jsonl", path=path, events=[("alert", "*")], registry=bus)
    emit()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["measurements"] for record in records] == [
        {"value": 0.2, "limit": 0.1},
        {"value": 0.5, "limit": 1.0},
        {"value": "NaN"},
        {"value": 0.1, "limit": 0.1},
    ]
    assert records[0]["metadata"] == {
        "step": 1,
        "run_id": "a",
        "rule": "kl",
        "severity": "critical",
        "metric": "rl.step.kl_divergence",
        "message": KL,
    }


@pytest.fixture
def chat():
    """An other end for webhooks: where to post, and what was posted."""
    posted = []

    class Chat(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Chat) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/hook", posted
        server.shutdown()


@pytest.mark.parametrize(("style", "key"), [("slack", "text"), ("discord", "content")])
def test_a_chat_is_told_what_to_do(bus, emit, chat, style, key):
    url, posted = chat
    handlers.attach("webhook", url=url, style=style, registry=bus, events=[("alert", "*")],
                    flush_timeout=60.0)  # fmt: skip
    emit()
    assert [message[key].replace("\\", "") for message in posted] == [
        f"Alert (critical): {KL}",
        "Alert (info): rl.entropy is 0.5: below 1.",
        "Alert (error): training.loss is nan: not finite.",
        f"Alert cleared: {OVER}",
    ]


def test_datadog_has_an_event_and_a_service_check(bus, emit):
    pytest.importorskip("datadog")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        agent.settimeout(60)
        handlers.attach("datadog", host="127.0.0.1", port=agent.getsockname()[1], registry=bus,
                        events=[("alert", "*")], flush_timeout=60.0)  # fmt: skip
        emit()
        agent.settimeout(0.2)
        lines = list(received(agent))
    checks = [line.split("|")[1:3] for line in lines if line.startswith("_sc")]
    assert checks == [
        ["rl.kl_divergence", "2"],
        ["rl.entropy", "0"],
        ["training.loss", "2"],
        ["rl.kl_divergence", "0"],
    ]
    events = [line for line in lines if line.startswith("_e")]
    titles = [line.partition(":")[2].split("|")[0] for line in events]
    assert titles == ["Alert: kl", "Alert: entropy", "Alert: nan", "Alert is over: kl"]
    assert KL in events[0]
    assert [line.split("|t:")[1].split("|")[0] for line in events] == [
        "error",
        "info",
        "error",
        "success",
    ]


def received(agent):
    # Detaching has sent it all: on loopback, it is there.
    while True:
        try:
            yield from agent.recv(65536).decode().splitlines()
        except TimeoutError:
            return


def test_trackio_keeps_an_alert_with_its_level(bus, emit):
    pytest.importorskip("trackio")
    import sqlite3

    handlers.attach("trackio", project="alerts-of-rules", registry=bus, flush_timeout=60.0)
    emit()
    file = Path(os.environ["TRACKIO_DIR"]) / "alerts-of-rules.db"
    with contextlib.closing(sqlite3.connect(file)) as database:
        rows = database.execute(
            "select title, text, level, step from alerts order by id"
        ).fetchall()
    assert rows == [
        ("kl", KL, "error", 1),
        ("entropy", "rl.entropy is 0.5: below 1.", "info", 2),
        ("nan", "training.loss is nan: not finite.", "error", 3),
    ]

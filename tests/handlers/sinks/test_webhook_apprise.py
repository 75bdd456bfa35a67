"""The handler "webhook" through apprise, whose own service for JSON can be had on loopback."""

import json
import logging
import types
from urllib.parse import urlsplit

import pytest

import handlers
from handlers import CredentialsError

CHECKPOINT = ("training", "checkpoint")
SAVED = (CHECKPOINT, {}, {"checkpoint_name": "<a> & é😀"})
MARK = "verysecrettoken"


@pytest.fixture
def attach(bus, receiver):
    def attach(**options):
        url = f"json://user:hiddenpassword@{urlsplit(receiver.url).netloc}/{MARK}"
        return handlers.attach("webhook", registry=bus, url=url, **options)

    return attach


def messages(receiver):
    return [json.loads(body)["message"] for _, _, body in receiver.requests]


def test_a_message_goes_through_apprise(attach, bus, receiver):
    with attach(templates={("a",): "hello"}):
        bus.execute(*SAVED)
        bus.execute(("a",), {})
        bus.execute(("b",), {})
    assert messages(receiver) == ["Checkpoint saved: <a> & é😀", "hello"]
    assert {path for path, _, _ in receiver.requests} == {f"/{MARK}"}


def test_apprise_does_not_sleep_between_two_messages(bus, receiver, monkeypatch):
    slept = []
    monkeypatch.setattr("apprise.url.time", types.SimpleNamespace(sleep=slept.append))
    url = f"ntfy://{urlsplit(receiver.url).netloc}/{MARK}"
    with handlers.attach("webhook", registry=bus, url=url) as webhook:
        bus.execute(*SAVED)
        bus.execute(*SAVED)
        assert webhook.flush()
    assert slept == []  # apprise's own pace for ntfy is a message in 5.5 seconds
    # https://docs.ntfy.sh/publish/#publish-as-json
    bodies = [json.loads(body) for _, _, body in receiver.requests]
    assert [(body["topic"], body["message"]) for body in bodies] == [
        (MARK, "Checkpoint saved: <a> & é😀")
    ] * 2


def test_what_passes_is_tried_again_and_nothing_secret_is_logged(attach, bus, receiver, caplog):
    caplog.set_level(logging.DEBUG)
    receiver.answers = [(503, {}), (429, {})]
    with attach() as webhook:
        bus.execute(*SAVED)
        assert webhook.flush(60)
    assert messages(receiver) == ["Checkpoint saved: <a> & é😀"] * 3
    assert "cannot reach json://***" in caplog.text
    assert "apprise" in {record.name for record in caplog.records}
    assert MARK not in caplog.text
    assert "hiddenpassword" not in caplog.text


def test_a_refusal_detaches(attach, bus, receiver, ended):
    receiver.always = (403, {})
    failures = []
    bus.attach("f", ("telemetry", "handler", "failure"), lambda e, m, md, c: failures.append(md))
    webhook = attach()
    bus.execute(*SAVED)
    ended(webhook)
    (failure,) = failures
    assert type(failure["reason"]) is CredentialsError
    assert str(failure["reason"]).startswith("Handler 'webhook': json://*** answered ")


def test_nobody_there_is_tried_again(bus, free_port, caplog, wait_until):
    webhook = handlers.attach(
        "webhook", registry=bus, url=f"json://127.0.0.1:{free_port}/{MARK}", flush_timeout=0.1
    )
    bus.execute(*SAVED)
    wait_until(lambda: "it goes on trying" in caplog.text)
    webhook.detach()
    assert MARK not in caplog.text

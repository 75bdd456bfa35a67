"""A sink to which events of some names mean nothing does not get them."""

import sys
import types

import pytest

import handlers

STEP = ("training", "step")
START = ("custom_loss", "start")


class Choosy:
    """Hears training steps only, and keeps what it was asked and what it got."""

    delivery = "background"

    def __init__(self, site):
        self.asked = []
        self.events = []

    def hears(self, event):
        self.asked.append(event)
        return event == STEP

    def __call__(self, event, measurements, metadata, config):
        self.events.append(event)


@pytest.fixture
def attach_choosy(bus, install, monkeypatch):
    module = types.ModuleType("choosy_sinks")
    module.create = Choosy
    monkeypatch.setitem(sys.modules, "choosy_sinks", module)
    install("choosy-sinks", choosy="choosy_sinks:create")
    return lambda **options: handlers.attach("choosy", registry=bus, **options)


@pytest.mark.parametrize("background", [None, False], ids=["worker", "emitter"])
def test_a_sink_gets_the_events_that_it_hears(bus, attach_choosy, background):
    attachment = attach_choosy(background=background)
    for event in (START, STEP, START, STEP):
        bus.execute(event, {"loss": 0.5}, {})
    assert attachment.flush(60)
    assert attachment.handler.events == [STEP, STEP]


def test_it_is_asked_once_for_each_name(bus, attach_choosy):
    attachment = attach_choosy()
    for event in (START, STEP, START, STEP):
        bus.execute(event, {}, {})
    assert attachment.flush(60)
    assert attachment.handler.asked == [START, STEP]


def test_what_it_does_not_hear_takes_no_room(bus, attach_choosy, drops):
    attachment = attach_choosy(queue_size=1, overflow="drop_newest")
    for _ in range(100):
        bus.execute(START, {}, {})
    bus.execute(STEP, {}, {})
    assert attachment.flush(60)
    assert attachment.handler.events == [STEP]
    assert drops == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tensorboard", {"log_dir": "board"}),
        ("trackio", {"project": "p"}),
        ("wandb", {"project": "p", "mode": "offline"}),
        ("mlflow", {"tracking_uri": "http://127.0.0.1:1"}),
        ("prometheus", {"port": 0}),
        ("datadog", {"host": "127.0.0.1"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_start_measures_nothing_for_who_keeps_numbers(bus, name, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    sink = handlers.attach(name, registry=bus, **options).handler
    assert [sink.hears(event) for event in (START, STEP, ("my", "span", "stop"))] == [
        False,
        True,
        True,
    ]


def test_a_chat_hears_what_it_has_a_template_for(bus):
    options = {"url": "http://127.0.0.1:1/hook", "registry": bus}
    slack = handlers.attach("webhook", id="slack", style="slack", **options).handler
    json = handlers.attach("webhook", id="json", style="json", **options).handler
    failed = ("workflow", "run", "exception")
    assert [slack.hears(event) for event in (STEP, failed)] == [False, True]
    assert [json.hears(event) for event in (STEP, failed)] == [True, True]

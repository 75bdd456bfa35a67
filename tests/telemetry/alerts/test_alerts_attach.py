"""Attaching rules, and their end."""

import multiprocessing
import subprocess
import sys

import pytest

import telemetry
from telemetry import alerts
from telemetry.errors import HandlerExistsError

STEP = ("training", "step")
HIGH = alerts.Rule("high", "training.loss", above=1.0)
SILENT = alerts.Rule("silent", "training.step", stalled=3600)


@pytest.mark.parametrize(
    ("rules", "error", "text"),
    [
        (
            HIGH,
            TypeError,
            (
                f"rules must be a list of rules, got {HIGH!r} (Rule). "
                "Write alerts.attach([alerts.Rule(...)])."
            ),
        ),
        (
            "rules.toml",
            TypeError,
            (
                "rules must be a list of rules, got 'rules.toml' (str). "
                "Write alerts.attach([alerts.Rule(...)])."
            ),
        ),
        (
            ["rules.toml"],
            TypeError,
            (
                "rules has 'rules.toml' (str), which is no alerts.Rule. "
                "Rules of a file: alerts.load(path)."
            ),
        ),
        ([], ValueError, "rules must not be empty: nothing would be watched."),
        (
            [HIGH, alerts.Rule("high", "training.lr", above=1.0)],
            ValueError,
            (
                "Two rules have the name 'high', by which alerts are told apart. "
                "Rename one of them: dataclasses.replace(rule, name=...)."
            ),
        ),
    ],
)
def test_what_are_no_rules_is_refused(bus, rules, error, text):
    with pytest.raises(error) as raised:
        alerts.attach(rules, registry=bus)
    assert str(raised.value) == text
    assert bus.list_handlers() == []


def test_an_id_is_taken_once_and_free_again(bus, said):
    first = alerts.attach([HIGH], registry=bus)
    with pytest.raises(HandlerExistsError, match="'alerts' is already attached"):
        alerts.attach([HIGH], registry=bus)
    with alerts.attach([HIGH], "others", registry=bus) as second:
        bus.execute(STEP, {"loss": 2.0})
        assert len(said) == 2
        assert (first.id, second.id) == ("alerts", "others")
    first.detach()
    first.detach()
    with alerts.attach([HIGH], registry=bus) as third:
        first.detach()
        assert third.active


def test_the_default_bus_is_the_default():
    with (
        alerts.attach([HIGH, SILENT]) as attachment,
        telemetry.testing.capture(("alert", "*")) as said,
    ):
        telemetry.emit_step(loss=2.0, step=1)
        assert attachment.rules == (HIGH, SILENT)
        assert {info.event for info in telemetry.list_handlers()} >= {STEP}
        assert telemetry.enabled(STEP)
        assert not telemetry.enabled(("rl", "step"))
    assert [one.event[1] for one in said] == ["raised"]


def test_detaching_by_the_id_ends_the_threads(bus):
    attachment = alerts.attach([HIGH, SILENT], registry=bus)
    thread = attachment._watcher.silence._thread
    assert thread.is_alive()
    bus.detach("alerts")
    thread.join(300)
    assert not thread.is_alive()


def run(source):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


SLOW = """
import threading, time, torch, telemetry
from telemetry import alerts

class OnDevice(torch.Tensor):
    @property
    def device(self):
        return torch.device("cuda")
    def detach(self):
        time.sleep(0.2)
        return self.as_subclass(torch.Tensor).detach()

def remote(value):
    return torch.tensor(value).as_subclass(OnDevice)

def say(event, measurements, metadata, config):
    print(event[1], metadata["step"], flush=True)

telemetry.attach("say", ("alert", "*"), say)
rules = [alerts.Rule("r", "training.loss", above=1), alerts.Rule("s", "my.x", stalled=3600)]
alerts.attach(rules)
"""


def test_what_waits_is_judged_when_a_program_and_when_its_child_ends():
    """Before the hooks that were there before; what these emit is judged in their own thread."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork")
    hook = """
import atexit, multiprocessing.util
def late():
    print("hook", flush=True)
    telemetry.emit_step(loss=remote(0.5), step=2)
atexit.register(late)
"""
    ends = """
context = multiprocessing.get_context("fork")
child = context.Process(target=lambda: telemetry.emit_step(loss=remote(2.0), step=7))
child.start()
child.join()
telemetry.emit_step(loss=remote(2.0), step=1)
"""
    said = " ".join(run(SLOW.replace("rules = [", f"{hook}\nrules = [") + ends))
    assert said == "raised 7 raised 1 hook cleared 2"


def test_a_forked_child_judges_by_itself_and_starts_anew():
    if not hasattr(__import__("os"), "fork"):
        pytest.skip("this system has no fork")
    source = """
import os, telemetry
from telemetry import alerts

def say(event, measurements, metadata, config):
    print(event[1], metadata["where"], flush=True)

def loss(value, where):
    telemetry.execute(("training", "step"), {"loss": value}, {"where": where})

telemetry.attach("say", ("alert", "*"), say)
rules = [alerts.Rule("r", "training.loss", above=1), alerts.Rule("s", "my.x", stalled=3600)]
attachment = alerts.attach(rules)
loss(2.0, "parent")
telemetry.execute(("my", "x"), {}, {})
pid = os.fork()
if not pid:
    assert attachment._watcher.silence._thread is None
    loss(2.0, "child")
    loss(0.5, "child")
    telemetry.execute(("my", "x"), {}, {})
    assert attachment._watcher.silence._thread.is_alive()
    telemetry.detach("alerts")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
loss(0.5, "parent")
"""
    said = " ".join(run(source))
    assert said == "raised parent raised child cleared child cleared parent"

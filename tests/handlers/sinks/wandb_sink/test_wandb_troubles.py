"""Names, alerts and ends that W&B itself does not take."""

import os
import pty
import sys
from pathlib import Path

import pytest

from handlers import CredentialsError

STEP = ("training", "step")
KEY = "0123456789abcdef" * 3


class Mute:
    def __str__(self):
        raise RuntimeError("nothing to say")


@pytest.fixture
def failures(bus):
    """What ``telemetry.handler.failure`` says."""
    failures = []
    bus.attach("failures", ("telemetry", "handler", "failure"), lambda *e: failures.append(e[2]))
    return failures


def told(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "telemetry"]


def test_a_star_in_a_name_has_no_axis_and_is_logged(attach, bus, runs, values, failures, caplog):
    with attach(flush_interval=3600.0) as attachment:
        bus.execute(("training", "epoch"), {"lo*ss": 1.0, "acc*": 2.0}, {"epoch": 1})
        bus.execute(("training", "eval"), {"loss": 3.0}, {"split": "*", "step": 1})
        bus.execute(STEP, {"a*": 4.0}, {"step": 1})
        assert attachment.flush(60)
    (run,) = runs()
    assert [values(row) for row in run.rows] == [
        {"training/lo*ss": 1, "training/acc*": 2, "training/epoch": 1},
        {"*/loss": 3, "*/step": 1, "training/a*": 4, "training/step": 1},
    ]
    assert run.axes == {"training/*": "training/step"}
    assert failures == []
    assert told(caplog) == []


def test_a_measurement_that_is_called_like_its_axis_does_not_hide_it(attach, bus, runs, values):
    with attach():
        bus.execute(STEP, {"loss": 1.0, "step": 7.0}, {"step": 3})
    assert [values(row) for row in runs()[0].rows] == [
        {"training/loss": 1, "training/step_value": 7, "training/step": 3}
    ]


def test_an_alert_may_say_anything(attach, bus, runs, failures):
    with attach():
        for text in ("a\ud800", Mute()):
            metadata = {"rule": text, "message": text, "severity": text, "step": 1}
            bus.execute(("alert", "raised"), {"value": 1.0}, metadata)
    first, second = runs()[0].alerts
    assert first == ("a\\ud800", "a\\ud800", "INFO", 1000)
    assert "Mute" in second[0]
    assert failures == []


def test_after_a_failure_its_own_run_is_finished_and_the_next_is_another(
    attach, bus, vendor, runs, failures, wait_until, ended, drops, monkeypatch
):
    first = attach(events=STEP, flush_interval=60)
    sink = first.handler
    bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    wait_until(lambda: sink.kept() == 1)
    monkeypatch.setattr(sink._axes, "placed", lambda row: 1 / 0)  # an error that nobody foresaw
    bus.execute(STEP, {"loss": 2.0}, {"step": 2})
    ended(first)
    assert not first.active
    assert vendor.run is None
    assert len(failures) == 1
    assert drops == [(1, {"handler_id": "wandb", "policy": "refused"})]
    with attach() as second:
        assert second.handler.run is not sink.run
    assert [found.exits for found in runs()] == [[1], [0]]


DIES = """
import handlers, os, pathlib, telemetry, time, wandb
first = handlers.attach("wandb", project="demo", mode="offline")
telemetry.execute(("training", "step"), {"loss": 1.0}, {"step": 1})
first.flush()
for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    if stat.read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
        os.kill(int(stat.parent.name), 9)
time.sleep(0.5)
for step in range(2, 5):
    telemetry.execute(("training", "step"), {"loss": 1.0}, {"step": step})
    time.sleep(0.2)
first.detach()
first._worker._thread.join(60)  # where it was detached before, by its failure
assert wandb.run is None
os._exit(0)  # W&B itself cannot end without its process
"""


def test_a_run_whose_process_died_is_not_the_active_one_any_more(run_script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_script(DIES)


def test_an_upload_that_is_not_finished_in_time_is_said_in_one_line(attach, bus, online, caplog):
    with attach(mode="online", api_key=KEY, finish_timeout=0.5) as attachment:
        run = attachment.handler.run
        online.hangs = True
        bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    (line,) = told(caplog)
    assert line == (
        "Handler 'wandb': the upload to W&B was not finished in time. It is on disk: wandb sync "
        f"{Path(run.dir).parent}"
    )


def test_a_password_in_the_address_is_refused_and_not_shown(attach, monkeypatch, vendor):
    secret = "Sekr3tPassw"  # noqa: S105 -- the secret of a test
    url = f"http://user:{secret}@127.0.0.1:9"
    for options in ({"settings": {"base_url": url}}, {}):
        with pytest.raises(ValueError, match="has a user or a password in it") as caught:
            attach(mode="online", api_key=KEY, **options)
        assert secret not in str(caught.value)
        monkeypatch.setenv("WANDB_BASE_URL", url)
        vendor.teardown()  # it reads the environment once


def test_the_mode_of_the_settings_counts(attach, written, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    with attach(mode=None, settings={"mode": "offline"}) as attachment:
        assert attachment.handler.run.offline


def test_an_error_names_the_address_of_the_settings(attach, online):
    with pytest.raises(CredentialsError) as caught:
        attach(mode="online", settings={"base_url": "http://127.0.0.1:9"})
    assert "no key for W&B at http://127.0.0.1:9. " in str(caught.value)


ASKED = """
import handlers
try:
    handlers.attach("wandb", project="demo", mode="online")
except handlers.CredentialsError as error:
    print("REFUSED", error)
"""


def test_nobody_is_asked_for_a_key_at_a_terminal(online, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", ASKED])  # noqa: S606 -- this very Python
    said = b""
    try:
        while b"Enter your choice" not in said:
            said += os.read(terminal, 4096)
    except OSError:
        pass  # the end of it
    finally:
        os.close(terminal)  # which ends it, whatever it waits for
        os.waitpid(pid, 0)
    assert b"REFUSED Handler 'wandb' has no key for W&B at" in said, said.decode()
    assert b"choice" not in said


def test_ranks_have_names_of_their_own(attach, written, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with attach(ranks="all", name="a", run_id="mine-{rank}") as attachment:
        assert (attachment.handler.run.name, attachment.handler.run.id) == ("a-rank1", "mine-1")


def test_losses_after_the_end_are_all_announced(attach, bus, drops):
    with attach() as attachment:
        late = attachment.handler
    for step in range(3):
        late(STEP, {"loss": 1.0}, {"step": step}, None)
    assert sum(count for count, _ in drops) == 3
    assert {metadata["policy"] for _, metadata in drops} == {"finished"}


def test_a_run_of_its_own_says_nothing_of_the_interval(attach, caplog):
    with attach():
        pass
    assert told(caplog) == []

"""MLflow's own library on an SQLite file, read back by its own client."""

import math
import os
import shutil
import sqlite3
import sys
import threading
import time

import mlflow
import pytest

import handlers
from telemetry.metrics import counter, last_value, sum_

STEP = ("training", "step")


@pytest.fixture
def attach(bus, uri):
    def attach(**options):
        return handlers.attach("mlflow", tracking_uri=uri, registry=bus, **options)

    return attach


def test_each_measurement_arrives_with_its_step_and_the_time_of_its_event(bus, attach, client):
    attachment = attach()
    before = time.time_ns() // 1_000_000
    bus.execute(STEP, {"loss": 2.5, "lr": 2e-4}, {"step": 1, "total_steps": 1000})
    after = time.time_ns() // 1_000_000
    attachment.detach()
    (loss,) = client.get_metric_history(attachment.handler.run_id, "training.loss")
    (lr,) = client.get_metric_history(attachment.handler.run_id, "training.lr")
    assert (loss.value, loss.step, lr.value, lr.step) == (2.5, 1, 2e-4, 1)
    assert before <= loss.timestamp == lr.timestamp <= after


def test_the_time_is_the_events_and_not_that_of_delivery(bus, attach, client, uri):
    attachment = attach()
    with sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        bus.execute(STEP, {"loss": 2.5}, {"step": 1})
        emitted_before = time.time_ns() // 1_000_000
        time.sleep(0.3)
        holder.execute("ROLLBACK")
    holder.close()
    assert attachment.flush(60)
    (loss,) = client.get_metric_history(attachment.handler.run_id, "training.loss")
    assert loss.timestamp <= emitted_before
    attachment.detach()


def test_backward_steps_and_repeated_steps_are_all_kept(bus, attach, history):
    attachment = attach()
    for step, loss in [(1, 4.0), (2, 3.0), (3, 2.0), (2, 1.0), (3, 0.5)]:
        bus.execute(STEP, {"loss": loss}, {"step": step})
    attachment.detach()
    found = history(attachment.handler.run_id, "training.loss")
    assert found == [(1, 4.0), (2, 1.0), (2, 3.0), (3, 0.5), (3, 2.0)]


def test_an_event_without_a_step_is_at_zero_and_one_with_an_epoch_at_its_epoch(
    bus, attach, history
):
    attachment = attach()
    bus.execute(("performance", "sample"), {"queue_depth": 7})
    bus.execute(("training", "epoch"), {"epoch_loss": 0.25}, {"epoch": 3})
    bus.execute(STEP, {"loss": 1.0}, {"step": 2**63})
    attachment.detach()
    run = attachment.handler.run_id
    assert history(run, "performance.queue_depth") == [(0, 7.0)]
    assert history(run, "training.epoch_loss") == [(3, 0.25)]
    assert history(run, "training.loss") == [(0, 1.0)]


def test_thousands_of_metrics_arrive_in_batches_that_mlflow_accepts(bus, attach, client, history):
    attachment = attach()
    bus.execute(STEP, {f"m{i:04}": float(i) for i in range(2500)}, {"step": 1})
    for step in range(1500):
        bus.execute(STEP, {"loss": step / 4}, {"step": step})
    attachment.flush(60)
    attachment.detach()
    run = attachment.handler.run_id
    assert history(run, "training.loss") == [(step, step / 4) for step in range(1500)]
    assert len(client.get_run(run).data.metrics) == 2501
    assert history(run, "training.m2499") == [(1, 2499.0)]


def test_nan_is_kept_and_infinity_is_the_largest_number_of_the_file(bus, attach, history):
    attachment = attach()
    for step, loss in enumerate([math.inf, -math.inf, math.nan]):
        bus.execute(STEP, {"loss": loss}, {"step": step})
    attachment.detach()
    plus, minus, nan = history(attachment.handler.run_id, "training.loss")
    assert (plus, minus) == ((0, sys.float_info.max), (1, -sys.float_info.max))
    assert nan[0] == 2
    assert math.isnan(nan[1])


def test_a_groups_key_becomes_a_path(bus, attach, client):
    attachment = attach()
    bus.execute(
        ("smartclip", "clip", "group"), {"grad_norm": 1.5}, {"key": ("layer", "conv1"), "step": 4}
    )
    attachment.detach()
    metrics = client.get_run(attachment.handler.run_id).data.metrics
    assert metrics == {"smartclip.grad_norm/layer/conv1": 1.5}


def test_definitions_say_what_is_reported_and_counts_are_running_totals(bus, attach, history):
    metrics = [
        counter("training.step.count", report_as="steps"),
        sum_("training.step.tokens", report_as="tokens"),
        last_value("training.step.loss", tags=["split"]),
    ]
    attachment = attach(metrics=metrics)
    for step, split in [(1, "train"), (2, "val")]:
        bus.execute(STEP, {"loss": step / 2, "tokens": 100}, {"step": step, "split": split})
    bus.execute(STEP, {"tokens": math.nan}, {"step": 3})
    bus.execute(STEP, {"tokens": 50}, {"step": 4})
    attachment.detach()
    run = attachment.handler.run_id
    assert history(run, "steps") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert [value for step, value in history(run, "tokens") if step != 3] == [100.0, 200.0, 250.0]
    assert history(run, "training.loss/split_train") == [(1, 0.5)]
    assert history(run, "training.loss/split_val") == [(2, 1.0)]


def test_the_run_has_its_experiment_name_and_tags(bus, attach, client):
    attachment = attach(experiment="digits", run_name="first", tags={"stage": 1})
    attachment.detach()
    run = client.get_run(attachment.handler.run_id)
    assert client.get_experiment(run.info.experiment_id).name == "digits"
    assert run.info.run_name == "first"
    assert run.data.tags["stage"] == "1"
    assert "trainbus.version" in run.data.tags
    assert "mlflow.user" in run.data.tags
    again = attach(experiment="digits", id="again")
    again.detach()
    assert client.get_run(again.handler.run_id).info.experiment_id == run.info.experiment_id


def test_the_experiment_of_the_environment_is_taken(attach, client, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from the environment")
    attachment = attach()
    attachment.detach()
    run = client.get_run(attachment.handler.run_id)
    assert client.get_experiment(run.info.experiment_id).name == "from the environment"


def test_each_rank_has_a_run_with_its_number(attach, client, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    attachment = attach(ranks="all", run_name="first")
    attachment.detach()
    run = client.get_run(attachment.handler.run_id)
    assert (run.info.run_name, run.data.tags["trainbus.rank"]) == ("first-rank3", "3")


def status_of(client, attachment):
    return client.get_run(attachment.handler.run_id).info.status


def test_a_detached_run_has_finished(attach, client):
    attachment = attach()
    assert status_of(client, attachment) == "RUNNING"
    attachment.detach()
    assert status_of(client, attachment) == "FINISHED"
    assert client.get_run(attachment.handler.run_id).info.end_time is not None


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no data"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_workflow_that_failed_says_so(bus, attach, client, error, status):
    attachment = attach()
    with pytest.raises(type(error)), bus.span(("workflow", "run"), {"workflow": "w"}):
        raise error
    attachment.detach()
    assert status_of(client, attachment) == status


def test_a_workflow_that_was_repeated_with_success_has_finished(bus, attach, client):
    attachment = attach()
    with pytest.raises(ValueError, match="once"), bus.span(("workflow", "run"), {}):
        raise ValueError("once")
    with bus.span(("workflow", "run"), {}):
        pass
    attachment.detach()
    assert status_of(client, attachment) == "FINISHED"


def test_the_end_of_the_program_ends_the_run(run_script, uri, client):
    done = run_script(
        f"""
import handlers, telemetry
attachment = handlers.attach("mlflow", tracking_uri={uri!r})
telemetry.execute(("training", "step"), {{"loss": 2.5}}, {{"step": 1}})
print(attachment.handler.run_id)
"""
    )
    run = client.get_run(done.stdout.strip())
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"training.loss": 2.5})


def test_a_given_run_is_continued_and_not_ended(bus, attach, client, history):
    run_id = client.create_run("0").info.run_id
    client.log_metric(run_id, "training.loss", 9.0, step=1)
    attachment = attach(run_id=run_id)
    assert attachment.handler.run_id == run_id
    bus.execute(STEP, {"loss": 8.0}, {"step": 2})
    attachment.detach()
    assert history(run_id, "training.loss") == [(1, 9.0), (2, 8.0)]
    assert client.get_run(run_id).info.status == "RUNNING"


def test_what_is_active_in_mlflow_is_left_alone(bus, attach):
    before = mlflow.get_tracking_uri()
    attachment = attach()
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == before
    attachment.detach()


def test_an_event_that_comes_after_the_end_is_written(bus, attach, client, history):
    attachment = attach()
    sink = attachment.handler
    attachment.detach()
    sink(STEP, {"loss": 0.5}, {"step": 7}, None)
    assert history(sink.run_id, "training.loss") == [(7, 0.5)]
    assert status_of(client, attachment) == "FINISHED"


def test_what_comes_while_the_file_is_locked_arrives(bus, attach, uri, history, drops):
    attachment = attach()
    with sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        for step in range(300):
            bus.execute(STEP, {"loss": 0.5}, {"step": step})
        holder.execute("ROLLBACK")
    holder.close()
    attachment.flush(60)
    attachment.detach()
    assert len(history(attachment.handler.run_id, "training.loss")) == 300
    assert drops == []


def test_what_does_not_fit_on_the_disk_is_written_when_it_does(run_script, uri, history):
    done = run_script(
        f"""
import logging, resource, sys, time
import handlers, telemetry
logging.basicConfig(stream=sys.stderr, format="%(message)s")
attachment = handlers.attach("mlflow", tracking_uri={uri!r})
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
telemetry.execute(("training", "step"), {{"loss": 2.5}}, {{"step": 1}})
assert not attachment.flush(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
assert attachment.flush(60)
telemetry.detach("mlflow")
print(attachment.handler.run_id)
"""
    )
    assert history(done.stdout.strip(), "training.loss") == [(1, 2.5)]
    said = [line for line in done.stderr.splitlines() if line.startswith("Handler")]
    assert "cannot reach MLflow at" in said[0]
    assert "it goes on trying" in said[0]
    assert "again" in said[1]
    assert len(said) == 2
    assert "Traceback" not in done.stderr


def test_a_forked_child_writes_to_the_run_and_does_not_end_it(
    bus, attach, client, history, in_child
):
    attachment = attach()
    bus.execute(STEP, {"loss": 1.0}, {"step": 1})  # may still wait when the child is made

    def child():
        engine = attachment.handler._run._engine
        assert engine.pool.checkedin() == 0, "a connection of the parent's would be used"
        bus.execute(STEP, {"loss": 2.0}, {"step": 2})
        assert attachment.flush(60)
        attachment.detach()

    in_child(child)
    assert status_of(client, attachment) == "RUNNING"
    bus.execute(STEP, {"loss": 3.0}, {"step": 3})
    attachment.detach()
    found = history(attachment.handler.run_id, "training.loss")
    assert found == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert status_of(client, attachment) == "FINISHED"


def test_a_relative_file_is_the_one_of_the_directory_that_one_is_in(
    bus, uri, tmp_path, monkeypatch
):
    here, there = tmp_path, tmp_path / "there"
    there.mkdir()
    shutil.copy(here / "runs.db", there)
    runs = []
    for directory in (here, there):
        monkeypatch.chdir(directory)
        with handlers.attach(
            "mlflow", tracking_uri="sqlite:///runs.db", registry=bus
        ) as attachment:
            runs.append((directory, attachment.handler.run_id))
    for directory, run_id in runs:
        found = mlflow.MlflowClient(f"sqlite:///{directory / 'runs.db'}").search_runs(["0"])
        assert run_id in [run.info.run_id for run in found]


def test_a_fork_while_the_worker_writes_stops_neither(bus, attach, history, in_child):
    attachment = attach()
    stop = threading.Event()

    def emit():
        step = 0
        while not stop.is_set():
            step += 1
            bus.execute(STEP, {"loss": float(step)}, {"step": step})
            time.sleep(0.002)

    thread = threading.Thread(target=emit)
    thread.start()
    try:
        for number in range(8):

            def child(number=number):
                bus.execute(STEP, {"child": float(number)}, {"step": number})
                assert attachment.flush(60)

            in_child(child)
    finally:
        stop.set()
        thread.join()
    attachment.flush(60)
    attachment.detach()
    found = history(attachment.handler.run_id, "training.child")
    assert found == [(number, float(number)) for number in range(8)]


def test_nothing_is_reported_to_the_makers_of_mlflow(run_script, uri):
    """Even where neither the environment nor a test runner turns their reports off."""
    quiet = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "PYTEST_CURRENT_TEST", "CI")
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    done = run_script(
        f"""
import socket
asked = []
def refuse(host, *rest, **more):
    asked.append(host)
    raise OSError("no network here")
socket.getaddrinfo = refuse
import handlers, telemetry
attachment = handlers.attach("mlflow", tracking_uri={uri!r}, experiment="unheard of")
telemetry.execute(("training", "step"), {{"loss": 2.5}}, {{"step": 1}})
attachment.flush(60)
telemetry.detach("mlflow")
print(asked)
""",
        env=environment,
    )
    assert done.stdout == "[]\n"

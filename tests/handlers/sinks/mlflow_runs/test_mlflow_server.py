"""A tracking server that works, hangs, breaks or refuses."""

import logging
import math
import time

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos import service_pb2 as api
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST

import handlers

STEP = ("training", "step")


@pytest.fixture(autouse=True)
def _no_credentials_around(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


@pytest.fixture
def attach(bus):
    def attach(uri, **options):
        return handlers.attach("mlflow", tracking_uri=uri, registry=bus, **options)

    return attach


@pytest.fixture
def failures(bus):
    """The errors for which handlers were detached."""
    found = []
    event = ("telemetry", "handler", "failure")
    bus.attach("failures", event, lambda e, m, metadata, c: found.append(metadata["reason"]))
    return found


def test_values_of_every_kind_arrive_at_a_server(bus, attach, server, client, history):
    attachment = attach(server.url, experiment="remote", run_name="first", tags={"stage": "x"})
    for step, loss in enumerate([2.5, math.nan, math.inf, -math.inf, 1e300], start=1):
        bus.execute(STEP, {"loss": loss}, {"step": step})
    attachment.detach()
    found = history(attachment.handler.run_id)
    assert [step for step, _ in found] == [1, 2, 3, 4, 5]
    assert (found[0][1], found[4][1]) == (2.5, 1e300)
    assert math.isnan(found[1][1])
    assert found[2][1] == -found[3][1] > 1e308
    run = client.get_run(attachment.handler.run_id)
    assert (run.info.status, run.info.run_name, run.data.tags["stage"]) == (
        "FINISHED",
        "first",
        "x",
    )
    assert client.get_experiment(run.info.experiment_id).name == "remote"
    again = attach(server.url, experiment="remote", id="again")
    bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    again.detach()
    assert client.get_run(again.handler.run_id).info.experiment_id == run.info.experiment_id


def test_a_run_on_a_server_is_continued(bus, attach, server, client, history):
    run_id = client.create_run("0").info.run_id
    attachment = attach(server.url, run_id=run_id)
    bus.execute(STEP, {"loss": 8.0}, {"step": 2})
    attachment.detach()
    assert attachment.handler.run_id == run_id
    assert history(attachment.handler.run_id) == [(2, 8.0)]
    assert client.get_run(run_id).info.status == "RUNNING"


def test_what_comes_before_the_server_does_arrives_when_it_is_there(
    bus, attach, serve, history, free_port, drops, caplog, wait_until
):
    attachment = attach(f"http://127.0.0.1:{free_port}")
    for step in range(300):
        bus.execute(STEP, {"loss": step / 2}, {"step": step})
    wait_until(lambda: "cannot reach" in caplog.text)
    serve(free_port)
    assert attachment.flush(60)
    attachment.detach()
    assert history(attachment.handler.run_id) == [(step, step / 2) for step in range(300)]
    assert drops == []
    said = [record.message for record in caplog.records if record.name == "telemetry"]
    assert [("cannot reach" in text, "again" in text) for text in said] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("failure", [(500, {}), (503, {}), (429, {})])
def test_a_server_that_cannot_answer_now_is_asked_again(bus, attach, server, history, failure):
    attachment = attach(server.url)
    server.failures = [failure] * 2
    bus.execute(STEP, {"loss": 2.5}, {"step": 1})
    assert attachment.flush(60)
    attachment.detach()
    assert history(attachment.handler.run_id) == [(1, 2.5)]
    assert [endpoint for endpoint, _ in server.requests] == [
        "POST runs/create",  # refused
        "POST runs/search",  # refused
        "POST runs/search",  # nothing was made
        "POST runs/create",
        "POST runs/log-batch",
        "POST runs/update",
    ]


def test_a_server_that_asks_for_time_gets_it(bus, attach, server, history):
    attachment = attach(server.url)
    server.failures = [(429, {"Retry-After": "2"})]
    begin = time.monotonic()
    bus.execute(STEP, {"loss": 2.5}, {"step": 1})
    assert attachment.flush(60)
    assert time.monotonic() - begin >= 2
    attachment.detach()
    assert history(attachment.handler.run_id) == [(1, 2.5)]


def test_what_a_server_did_without_an_answer_is_not_done_twice(
    bus, attach, server, client, history
):
    server.unanswered = ["POST experiments/create", "POST runs/create", "POST runs/log-batch"]
    attachment = attach(server.url, experiment="unanswered")
    bus.execute(STEP, {"loss": 2.5}, {"step": 1})
    assert attachment.flush(60)
    attachment.detach()
    experiment = client.get_experiment_by_name("unanswered")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == attachment.handler.run_id
    assert history(attachment.handler.run_id) == [(1, 2.5)]
    assert server.unanswered == []


def test_an_experiment_that_another_process_made_meanwhile_is_taken(bus, attach, server, client):
    endpoint = "GET experiments/get-by-name"
    usual = server.endpoints[endpoint]

    def too_early(store, message):
        server.endpoints[endpoint] = usual
        client.create_experiment(message.experiment_name)
        raise MlflowException("no such experiment", error_code=RESOURCE_DOES_NOT_EXIST)

    server.endpoints[endpoint] = (api.GetExperimentByName, too_early)
    attachment = attach(server.url, experiment="raced for")
    bus.execute(STEP, {"loss": 2.5}, {"step": 1})
    attachment.detach()
    run = client.get_run(attachment.handler.run_id)
    assert client.get_experiment(run.info.experiment_id).name == "raced for"


def test_a_run_that_is_made_by_a_late_event_has_an_end(attach, server, client, history):
    attachment = attach(server.url)
    attachment.detach()
    assert attachment.handler.run_id is None
    attachment.handler(STEP, {"loss": 0.5}, {"step": 7}, None)
    assert history(attachment.handler.run_id) == [(7, 0.5)]
    assert client.get_run(attachment.handler.run_id).info.status == "FINISHED"


def test_a_server_that_hangs_holds_nobody_and_what_is_lost_is_told(
    bus, attach, receiver, drops, wait_until
):
    receiver.hangs = True
    attachment = attach(receiver.url, flush_timeout=0.2)
    for step in range(10):
        bus.execute(STEP, {"loss": 0.5}, {"step": step})
    wait_until(lambda: receiver.requests)
    attachment.detach()
    assert sum(count for count, _ in drops) == 10


def test_a_request_that_hangs_is_given_up_and_repeated(
    bus, attach, receiver, monkeypatch, wait_until
):
    monkeypatch.setattr("handlers.mlflow_store.TIMEOUT", 0.2)
    receiver.hangs = True
    attachment = attach(receiver.url, flush_timeout=0.2)
    bus.execute(STEP, {"loss": 0.5}, {"step": 1})
    wait_until(lambda: len(receiver.requests) >= 2)
    attachment.detach()


def test_a_server_that_breaks_off_its_answers_is_asked_again(
    bus, attach, receiver, drops, wait_until, ended
):
    receiver.breaks = True
    attachment = attach(receiver.url, flush_timeout=0.2)
    bus.execute(STEP, {"loss": 0.5}, {"step": 1})
    wait_until(lambda: len(receiver.requests) >= 2)
    attachment.detach()
    ended(attachment)
    assert sum(count for count, _ in drops) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_wrong_credentials_name_the_variable_and_show_no_value(
    bus, attach, receiver, failures, status, monkeypatch, caplog, ended
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-0123456789")
    receiver.always = (status, {})
    attachment = attach(receiver.url)
    bus.execute(STEP, {"loss": 0.5}, {"step": 1})
    ended(attachment)
    (error,) = failures
    assert isinstance(error, handlers.CredentialsError)
    assert str(error) == (
        f"Handler 'mlflow': MLflow at {receiver.url!r} does not accept the credentials (status "
        f"{status}). Set in the environment: MLFLOW_TRACKING_TOKEN. Allowed: "
        "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or a "
        "user and a password in tracking_uri."
    )
    assert receiver.requests[0][1]["Authorization"] == "Bearer token-0123456789"
    assert "token-0123456789" not in caplog.text
    assert len(receiver.requests) == 1, "a refused sender does not try to end a run either"


def test_a_password_in_the_url_is_used_and_never_shown(
    bus, attach, free_port, failures, caplog, wait_until
):
    caplog.set_level(logging.DEBUG)
    attachment = attach(f"http://me:secret-0123@127.0.0.1:{free_port}", flush_timeout=0.2)
    bus.execute(STEP, {"loss": 0.5}, {"step": 1})
    wait_until(lambda: "cannot reach" in caplog.text)
    attachment.detach()
    assert "secret-0123" not in caplog.text
    assert f"http://***@127.0.0.1:{free_port}" in caplog.text
    assert "secret-0123" not in repr(vars(attachment.handler))


def test_what_a_server_says_of_a_password_is_not_shown(bus, attach, server, failures, wait_until):
    def refuse(store, message):
        raise MlflowException("secret-0123 is too old", error_code=INVALID_PARAMETER_VALUE)

    server.endpoints["POST runs/create"] = (api.CreateRun, refuse)
    attachment = attach(server.url.replace("//", "//me:secret-0123@"))
    bus.execute(STEP, {"loss": 0.5}, {"step": 1})
    (error,) = wait_until(lambda: failures)
    attachment.detach()
    assert str(error) == (
        "MLflow refuses what is sent: RestException: INVALID_PARAMETER_VALUE: *** is too old"
    )
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_a_server_that_is_none_of_mlflows_is_told(bus, attach, receiver, failures, wait_until):
    receiver.always = (404, {})
    attachment = attach(receiver.url)
    bus.execute(STEP, {"loss": 0.5}, {"step": 1})
    (error,) = wait_until(lambda: failures)
    attachment.detach()
    assert isinstance(error, handlers.DeliveryError)
    assert "MLflow refuses what is sent" in str(error)


def test_a_forked_child_sends_to_the_run_that_its_parent_made(
    bus, attach, server, history, in_child
):
    attachment = attach(server.url)
    bus.execute(STEP, {"loss": 1.0}, {"step": 1})
    assert attachment.flush(60)

    def child():
        bus.execute(STEP, {"loss": 2.0}, {"step": 2})
        assert attachment.flush(60)
        attachment.detach()

    in_child(child)
    bus.execute(STEP, {"loss": 3.0}, {"step": 3})
    attachment.detach()
    assert history(attachment.handler.run_id) == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert [endpoint for endpoint, _ in server.requests].count("POST runs/update") == 1

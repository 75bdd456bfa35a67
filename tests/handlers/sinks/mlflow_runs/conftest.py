"""A tracking server: MLflow's own store and its own messages behind a bare HTTP server.

MLflow's server needs a web framework that the sink does not.
"""

import http.server
import json
import shutil
import threading
from urllib.parse import parse_qsl, urlsplit

import mlflow
import pytest
from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos import service_pb2 as api
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.tracking._tracking_service.utils import _get_store
from mlflow.utils.proto_json_utils import message_to_json, parse_dict

import handlers


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """Made once: MLflow takes a second for it."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    handlers.attach("mlflow", tracking_uri=f"sqlite:///{path}").detach()
    return path


@pytest.fixture
def uri(tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "runs.db")
    return f"sqlite:///{tmp_path / 'runs.db'}"


@pytest.fixture
def client(uri):
    return mlflow.MlflowClient(uri)


@pytest.fixture
def history(client):
    """The points of a curve as (step, value), in the order of their steps."""

    def history(run_id, name="training.loss"):
        found = client.get_metric_history(run_id, name)
        return sorted((metric.step, metric.value) for metric in found)

    return history


@pytest.fixture
def server(uri):
    server = TrackingServer(_get_store(uri))
    yield server
    server.stop()


@pytest.fixture
def serve(uri):
    """Start a server on a port."""
    servers = []

    def serve(port):
        servers.append(TrackingServer(_get_store(uri), port))
        return servers[-1]

    yield serve
    for server in servers:
        server.stop()


class TrackingServer(http.server.ThreadingHTTPServer):
    """Speaks the part of MLflow's REST API (version 2.0) that the sink needs."""

    daemon_threads = True

    def __init__(self, store, port=0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.store = store
        self.requests = []  # (method and path, headers)
        self.failures = []  # (status, headers), used up one by one, before anything is done
        self.unanswered = []  # endpoints, each served without an answer once
        self.endpoints = dict(ENDPOINTS)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """Clients that give up are what some tests are about."""

    def stop(self):
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        split = urlsplit(self.path)
        endpoint = f"{self.command} {split.path.removeprefix('/api/2.0/mlflow/')}"
        self.server.requests.append((endpoint, dict(self.headers)))
        if self.server.failures:
            status, headers = self.server.failures.pop(0)
            self._answer(status, "{}", headers)
            return
        request, serve = self.server.endpoints[endpoint]
        message = request()
        parse_dict(json.loads(body) if body else dict(parse_qsl(split.query)), message)
        try:
            answer, status = message_to_json(serve(self.server.store, message)), 200
        except MlflowException as error:
            answer, status = error.serialize_as_json(), error.get_http_status_code()
        if endpoint in self.server.unanswered:
            self.server.unanswered.remove(endpoint)
            self.close_connection = True
            return
        self._answer(status, answer, {})

    do_POST = do_GET = _serve  # noqa: N815 -- names of http.server

    def _answer(self, status, text, headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        """Nothing on the test's standard error."""


def get_experiment_by_name(store, message):
    found = store.get_experiment_by_name(message.experiment_name)
    if found is None:
        raise MlflowException("no such experiment", error_code=RESOURCE_DOES_NOT_EXIST)
    return api.GetExperimentByName.Response(experiment=found.to_proto())


def create_experiment(store, message):
    return api.CreateExperiment.Response(experiment_id=store.create_experiment(message.name))


def create_run(store, message):
    tags = [RunTag.from_proto(tag) for tag in message.tags]
    run = store.create_run(
        message.experiment_id, message.user_id, message.start_time, tags, message.run_name
    )
    return api.CreateRun.Response(run=run.to_proto())


def get_run(store, message):
    return api.GetRun.Response(run=store.get_run(message.run_id).to_proto())


def search_runs(store, message):
    runs = store.search_runs(list(message.experiment_ids), message.filter, 1)
    return api.SearchRuns.Response(runs=[run.to_proto() for run in runs])


def log_batch(store, message):
    metrics = [Metric.from_proto(metric) for metric in message.metrics]
    store.log_batch(message.run_id, metrics, [], [])
    return api.LogBatch.Response()


def update_run(store, message):
    info = store.update_run_info(message.run_id, message.status, message.end_time, None)
    return api.UpdateRun.Response(run_info=info.to_proto())


ENDPOINTS = {
    "GET experiments/get-by-name": (api.GetExperimentByName, get_experiment_by_name),
    "POST experiments/create": (api.CreateExperiment, create_experiment),
    "POST runs/create": (api.CreateRun, create_run),
    "GET runs/get": (api.GetRun, get_run),
    "POST runs/search": (api.SearchRuns, search_runs),
    "POST runs/log-batch": (api.LogBatch, log_batch),
    "POST runs/update": (api.UpdateRun, update_run),
}

"""An event at which a definition of the user's fails does not cost those that came with it."""

import socket
import sqlite3

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import handlers
from handlers.each import BatchError
from handlers.records import TimedEvent
from telemetry.metrics import last_value

STEP = ("training", "step")
KEPT = [0.0, 2.0, 3.0]
BATCH = [TimedEvent(n, STEP, {"loss": float(n)}, {"step": n} if n != 1 else {}) for n in range(4)]


@pytest.fixture
def deliver(bus):
    """Give a sink the four events at once; the second has no step, which its definition reads."""

    def deliver(name, **options):
        definitions = [
            last_value("training.step.loss", tags=["step"], keep=lambda m: m["step"] < 100)
        ]
        attachment = handlers.attach(name, registry=bus, metrics=definitions, **options)
        with pytest.raises(BatchError) as raised:
            attachment.handler.deliver_many(BATCH)
        assert repr(raised.value.error) == "KeyError('step')"
        assert raised.value.failed == [BATCH[1]]
        with pytest.raises(KeyError):  # of a single one, nothing but its own error
            attachment.handler(STEP, {"loss": 1.0}, {}, None)
        return attachment

    return deliver


def test_in_prometheus(deliver):
    with deliver("prometheus", port=0) as attachment:
        registry = attachment.handler.registry
        found = [registry.get_sample_value("training_loss", {"step": n}) for n in "0123"]
    assert found == [0.0, None, 2.0, 3.0]


def test_in_opentelemetry(deliver):
    reader = InMemoryMetricReader()
    with deliver("opentelemetry", meter_provider=MeterProvider([reader], shutdown_on_exit=False)):
        (resource,) = reader.get_metrics_data().resource_metrics
    (metric,) = resource.scope_metrics[0].metrics
    assert [point.value for point in metric.data.data_points] == KEPT


def test_in_tensorboard(deliver, tmp_path):
    with deliver("tensorboard", log_dir=tmp_path) as attachment:
        path = attachment.handler.path
    events = [event for event in EventFileLoader(str(path)).Load() if event.summary.value]
    assert [event.step for event in events] == [0, 2, 3]


def test_in_mlflow(deliver, tmp_path):
    file = tmp_path / "mlflow.db"
    with deliver("mlflow", tracking_uri=f"sqlite:///{file}"):
        pass
    with sqlite3.connect(file) as database:
        values = database.execute("SELECT value FROM metrics ORDER BY step").fetchall()
    database.close()
    assert [value for (value,) in values] == KEPT


def test_in_datadog(deliver):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        agent.settimeout(10)
        with deliver("datadog", host="127.0.0.1", port=agent.getsockname()[1]):
            lines = agent.recv(65536).decode().splitlines()
    assert [float(line.split(":")[1].split("|")[0]) for line in lines] == KEPT

"""The dashboard asks for what the Prometheus sink serves, in words that Prometheus understands."""

import json
import re
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

import handlers
from telemetry.events import CATALOGUE

DASHBOARD = Path(__file__).parents[3] / "docs" / "dashboards" / "grafana.json"
KEYS = {
    "regularizer_name": "sparsity",
    "split": "val",
    "rule": "kl",
    "operation": "save",
    "stage": "prepare",
    "key": ("layer", "conv1"),
    "run_id": "a",
}
NAME = re.compile(r"[a-z_]+(?=[{\[])|(?<=__name__=~\")[^\"]+")


def expressions():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


@pytest.fixture
def attachment(bus):
    """A sink that has heard every event of the catalogue, with each of its measurements."""
    attachment = handlers.attach("prometheus", port=0, registry=bus)
    for spec in CATALOGUE:
        metadata = {field.name: "x" for field in spec.metadata if field.name != "stacktrace"}
        measurements = {field.name: 1.0 for field in spec.measurements} or {"loss": 1.0}
        event = tuple("x" if part == "*" else part for part in spec.name)
        bus.execute(event, measurements, {**metadata, **KEYS})
    assert attachment.flush()
    return attachment


def test_every_metric_of_the_dashboard_is_served(attachment):
    served = {
        sample.name for metric in attachment.handler.registry.collect() for sample in metric.samples
    }
    asked = {name for expression in expressions() for name in NAME.findall(expression)}
    assert len(asked) > 25
    unknown = [n for n in asked if not any(re.fullmatch(n, known) for known in served)]
    assert unknown == []


def test_prometheus_understands_every_expression_and_finds_something(
    attachment, program, free_port, tmp_path, answers, wait_until
):
    # The interval is how long an answer may take as well.
    (tmp_path / "prometheus.yml").write_text(
        "scrape_configs:\n- job_name: demo\n  scrape_interval: 2s\n  static_configs:\n"
        f"  - targets: ['127.0.0.1:{attachment.handler.port}']\n"
    )

    url = f"http://127.0.0.1:{free_port}"

    def query(expression):
        asked = urllib.parse.urlencode({"query": expression})
        try:
            where = f"{url}/api/v1/query?{asked}"
            with urllib.request.urlopen(where, timeout=60) as answer:  # noqa: S310 -- it is http
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            pytest.fail(f"{expression}: {error.read().decode()}")

    program(
        "prometheus",
        "--config.file=prometheus.yml",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{free_port}",
        ready=lambda: answers(f"{url}/-/ready"),
    )
    for expression in expressions():
        whole = expression.replace("$__rate_interval", "1m").replace("$run_id", ".*")
        wait_until(lambda asked=whole: query(asked))


def test_the_dashboard_can_be_imported_anywhere():
    dashboard = json.loads(DASHBOARD.read_text())
    names = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert names == {"datasource", "run_id"}
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert "id" not in dashboard

"""The dashboard to import asks for what the handler sends with the namespace "signal"."""

import json
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[4] / "docs" / "dashboards" / "datadog.json"
QUERY = re.compile(
    r"(avg|max|sum):([A-Za-z][A-Za-z0-9_.]*)\{([^{}]+)\}( by \{([a-z_,]+)\})?"
    r"(\.as_rate\(\)|\.as_count\(\))?"
)
# What the Agent makes of a histogram, with the percentiles that the page says to configure.
SUFFIXES = (".avg", ".count", ".max", ".median", ".95percentile", ".99percentile")


@pytest.fixture
def dashboard():
    return json.loads(PAGE.read_text())


def definitions(dashboard):
    return [widget["definition"] for widget in dashboard["widgets"]]


def queries(dashboard):
    return [
        query["query"]
        for definition in definitions(dashboard)
        for request in definition.get("requests", ())
        for query in request["queries"]
    ]


@pytest.fixture
def sent(bus, attach, agent):
    """Everything the catalogue has for these charts, emitted as its emitters do."""
    handler = attach(namespace="signal", tags=["env:test"], **agent.address)
    with bus.span(("smartclip", "clip"), {"algo": "autoclip", "scope": "global"}) as clip:
        clip.measure(grad_norm=2.0, clipped_grad_norm=1.0, scale=0.5, groups=1, groups_clipped=1)
    with bus.span(("custom_loss",), {"model_id": "m"}) as loss:
        loss.measure(loss_total=2.8, regularizer_total=0.3)
    context = {"run_id": "r", "step": 1}
    bus.execute(("training", "step"), {"loss": 2.5, "lr": 2e-4, "grad_norm": 1.0}, context)
    bus.execute(("rl", "step"), {"kl_divergence": 0.01, "clip_fraction": 0.2}, context)
    sample = {"queue_depth": 3, "gpu_utilization": 95.5, "gpu_memory_used_gb": 38.2}
    bus.execute(
        ("performance", "sample"), {**sample, "forward_backward_duration_ms": 250.5}, context
    )
    lost = {"handler_id": "jsonl", "policy": "disk_full"}
    bus.execute(("telemetry", "handler", "overflow"), {"dropped": 1}, lost)
    assert handler.flush()
    return {line.name: line for line in agent.read()}


def test_every_query_names_a_metric_that_is_sent_with_the_tags_it_is_grouped_by(dashboard, sent):
    names = {name for name, line in sent.items() if line.kind != "h"}
    names |= {name + end for name, line in sent.items() if line.kind == "h" for end in SUFFIXES}
    for query in queries(dashboard):
        parts = QUERY.fullmatch(query)
        assert parts, query
        _, name, scope, _, groups, rate = parts.groups()
        assert name in names
        line = sent.get(name) or sent[name.rpartition(".")[0]]
        keys = {tag.partition(":")[0] for tag in line.tags}
        assert set(scope.split(",")) <= {"$run_id", "$env"}
        assert set(groups.split(",")) <= keys | {"run_id"}
        assert (rate is not None) == (line.kind == "c")


def test_it_has_the_charts_of_the_published_layout_in_their_order(dashboard):
    titles = [definition["title"] for definition in definitions(dashboard)]
    assert titles[:7] == [
        "Training Loss",
        "Learning Rate",
        "KL Divergence",
        "Clip Fraction",
        "GPU Utilization",
        "Queue Depth",
        "Forward-Backward Latency (p50, p99)",
    ]


def test_it_is_a_dashboard_as_the_api_takes_it(dashboard):
    # https://docs.datadoghq.com/api/latest/dashboards/#create-a-new-dashboard
    assert {"title", "layout_type", "widgets"} <= dashboard.keys()
    assert dashboard["layout_type"] == "ordered"
    assert dashboard["reflow_type"] == "fixed"
    assert {variable["name"] for variable in dashboard["template_variables"]} == {"run_id", "env"}
    taken = set()
    for widget in dashboard["widgets"]:
        place = widget["layout"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["width"])
            for y in range(place["y"], place["y"] + place["height"])
        }
        assert not taken & cells
        assert place["x"] + place["width"] <= 12
        taken |= cells
    for definition in definitions(dashboard):
        assert definition["type"] in {"timeseries", "event_stream"}
        for request in definition.get("requests", ()):
            named = {query["name"] for query in request["queries"]}
            assert {formula["formula"] for formula in request["formulas"]} == named
            assert {query["data_source"] for query in request["queries"]} == {"metrics"}

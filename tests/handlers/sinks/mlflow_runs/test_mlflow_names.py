"""Names as MLflow takes them, and curves that it would take for one."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name

import handlers
from handlers.mlflow_names import Names, metric_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("training.loss", "training.loss"),
        ("a/../b", "a/__/b"),
        ("/a//b/", "a/b"),
        ("./a/.", "_/a/_"),
        ("eval.f1@5:macro", "eval.f1_5_macro"),
        ("größe", "größe"),
        ("a\nb\0", "a_b_"),
        ("", "_"),
        ("[]", "_"),
    ],
)
def test_names_are_written_as_mlflow_takes_them(name, expected):
    assert metric_name(name) == expected


def test_long_names_differ_by_a_hash_at_their_end():
    one, two = metric_name("x" * 251), metric_name("x" * 252)
    assert len(one) == len(two) == 250
    assert one != two
    assert metric_name("x" * 250) == "x" * 250


@given(st.text(st.characters(exclude_categories=()), max_size=300))
def test_mlflow_itself_accepts_every_name(name):
    _validate_metric_name(metric_name(name))
    assert len(metric_name(name)) <= 250


def test_curves_of_different_names_stay_apart(bus, uri, client, history):
    with handlers.attach("mlflow", tracking_uri=uri, registry=bus) as attachment:
        for step in (1, 2):
            values = {"f1@5": 1.0, "f1_5": 2.0, "f1:5": 3.0}
            bus.execute(("mine", "eval"), values, {"step": step})
    run_id = attachment.handler.run_id
    first, *others = sorted(client.get_run(run_id).data.metrics)
    assert first == "mine.eval.f1_5"
    assert history(run_id, first) == [(1, 1.0), (2, 1.0)]
    assert sorted(history(run_id, name) for name in others) == [
        [(1, 2.0), (2, 2.0)],
        [(1, 3.0), (2, 3.0)],
    ]


def test_names_beyond_those_that_are_remembered_are_as_they_are(monkeypatch):
    monkeypatch.setattr("handlers.mlflow_names.MOST", 1)
    names = Names()
    assert [names(name) for name in ("a", "b@c", "b_c")] == ["a", "b_c", "b_c"]


def test_who_hears_of_a_loss_may_use_the_sink(bus, free_port):
    stuck = []

    def heard(event, measurements, metadata, config):
        other = threading.Thread(target=bus.execute, args=(("x",), {"v": 1.0}), daemon=True)
        other.start()
        other.join(3)
        stuck.append(other.is_alive())

    uri = f"http://127.0.0.1:{free_port}"
    with handlers.attach("mlflow", events=("y",), tracking_uri=uri, registry=bus, background=False):
        bus.attach("heard", ("telemetry", "handler", "overflow"), heard)
        bus.execute(("y",), {"v": 1.0}, {"step": 1})
    assert stuck
    assert not any(stuck)

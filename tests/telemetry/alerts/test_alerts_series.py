"""Series that must not be mixed, and states that must not grow."""

from collections import UserDict
from math import nan

import numpy as np
import pytest

from telemetry import Registry, alerts, context
from telemetry.alerts import outbox, series, watcher

STEP = ("training", "step")


def changes(said, *keys):
    return [(one.event[1], *(one.metadata.get(key) for key in keys)) for one in said]


@pytest.mark.parametrize(
    ("metric", "event", "key"),
    [
        ("training.loss", STEP, "run_id"),
        ("training.loss", STEP, "rank"),
        ("training.eval.loss", ("training", "eval"), "split"),
        ("regularizer.compute.stop.value", ("regularizer", "compute", "stop"), "regularizer_name"),
        ("smartclip.clip.stop.scale", ("smartclip", "clip", "stop"), "algo"),
        ("performance.operation.stop.duration", ("performance", "operation", "stop"), "operation"),
        ("my.own.loss", ("my", "own"), "split"),
    ],
)
def test_interleaved_series_are_judged_by_themselves(bus, said, metric, event, key):
    rule = alerts.Rule("r", metric, above=1.0, for_steps=2)
    with alerts.attach([rule], registry=bus):
        for high, low in ((2.0, 0.5), (2.0, 2.0), (2.0, 0.5), (0.5, 0.5)):
            bus.execute(event, {rule.measurement: high}, {key: "a"})
            bus.execute(event, {rule.measurement: low}, {key: "b"})
    assert changes(said, key) == [("raised", "a"), ("cleared", "a")]


def test_steps_and_epochs_do_not_tell_series_apart(bus, said):
    with alerts.attach([alerts.Rule("r", "training.loss", above=1.0, for_steps=3)], registry=bus):
        for step in range(3):
            bus.execute(STEP, {"loss": 2.0}, {"step": step, "epoch": step, "attempt": 1})
    assert changes(said, "step") == [("raised", 2)]


def test_groups_whose_keys_come_from_a_file_are_told_apart(bus, said):
    with alerts.attach(
        [alerts.Rule("r", "smartclip.clip.group.scale", below=1.0, for_steps=2)], registry=bus
    ):
        for key in (["layer", "a"], ["layer", "b"], ["layer", "a"]):
            bus.execute(("smartclip", "clip", "group"), {"scale": 0.5}, {"key": key})
    assert changes(said, "key") == [("raised", ["layer", "a"])]


def test_only_events_with_the_metadata_asked_for_count(bus, said):
    rule = alerts.Rule("r", "training.eval.loss", above=1.0, where={"split": "val", "fold": 2})
    with alerts.attach([rule], registry=bus):
        for split, fold in (("test", 2), ("val", 1), ("val", np.array([2, 2])), ("val", 2)):
            bus.execute(("training", "eval"), {"loss": 2.0}, {"split": split, "fold": fold})
        bus.execute(("training", "eval"), {"loss": 2.0})
    assert changes(said, "split", "fold") == [("raised", "val", 2)]


def test_metadata_can_be_numbers_of_numpy(bus, said):
    rule = alerts.Rule("r", "training.eval.loss", above=1.0, where={"fold": 2})
    with alerts.attach([rule], registry=bus):
        for fold in (np.int64(1), np.int64(2)):
            bus.execute(("training", "eval"), {"loss": 2.0}, {"fold": fold})
    assert changes(said, "fold") == [("raised", 2)]


def test_an_alert_is_not_lost_to_its_words(bus, said, caplog, monkeypatch):
    really = outbox.message

    def message(*about):
        if about[-1]:
            raise RuntimeError("no")
        return really(*about)

    monkeypatch.setattr(outbox, "message", message)
    with alerts.attach([alerts.Rule("r", "training.eval.loss", above=1.0)], registry=bus):
        bus.execute(("training", "eval"), {"loss": 2.0}, {"split": "val", "step": 4})
    assert changes(said, "rule", "step", "message") == [("raised", "r", 4, "?.loss is 2: above 1.")]
    assert "Rule 'r': an error in the words of its alert: RuntimeError('no')" in caplog.text


@pytest.mark.parametrize("end", ["stop", "exception"])
def test_what_is_raised_of_a_run_is_over_with_it(bus, said, end):
    rule = alerts.Rule("r", "training.loss", above=1.0)
    with alerts.attach([rule], registry=bus):
        for run in "ab":
            bus.execute(STEP, {"loss": 2.0}, {"run_id": run, "rank": 0, "step": 3})
        bus.execute(STEP, {"loss": 3.0}, {"run_id": "a", "rank": 0, "step": 4})
        bus.execute(("workflow", "run", end), {}, {"run_id": "a"})
        assert changes(said, "run_id", "rank") == [
            ("raised", "a", 0),
            ("raised", "b", 0),
            ("cleared", "a", 0),
        ]
        assert said[2].measurements == {"value": 3.0, "limit": 1.0}
        assert said[2].metadata["message"] == "training.loss is 3: its run has ended."
        bus.execute(STEP, {"loss": 2.0}, {"run_id": "a", "rank": 0, "step": 5})
    assert changes(said, "run_id")[3:] == [("raised", "a")]


def test_a_reported_name_of_a_split_is_that_split(bus, said):
    with alerts.attach([alerts.Rule("r", "val.loss", above=1.0)], registry=bus):
        for split in ("test", "val"):
            bus.execute(("training", "eval"), {"loss": 2.0}, {"split": split})
    assert changes(said, "split", "message") == [("raised", "val", "val.loss is 2: above 1.")]


def test_a_wildcard_judges_each_event_by_itself_and_says_which(bus, said):
    with alerts.attach([alerts.Rule("r", "training.*.loss", above=1.0)], registry=bus):
        bus.execute(STEP, {"loss": 2.0})
        bus.execute(("training", "eval"), {"loss": 0.5}, {"split": "val"})
        bus.execute(("training", "eval"), {"loss": 3.0}, {"split": "val"})
        bus.execute(("training", "epoch"), {"epoch_loss": 3.0})
    assert changes(said, "metric") == [
        ("raised", "training.step.loss"),
        ("raised", "training.eval.loss"),
    ]


def test_alerts_are_not_judged(bus, said):
    with alerts.attach([alerts.Rule("r", "**.value", above=1.0)], registry=bus):
        bus.execute(("my", "event"), {"value": 2.0})
    assert changes(said, "rule", "metric") == [("raised", "r", "my.event.value")]


def test_the_metadata_of_the_context_is_carried_over(bus, said):
    rule = alerts.Rule("r", "training.loss", above=1.0)
    with alerts.attach([rule], registry=bus), context(run_id="a", attempt=2):
        bus.execute(STEP, {"loss": 2.0}, {"step": 3})
    assert changes(said, "run_id", "attempt", "step") == [("raised", "a", 2, 3)]


@pytest.mark.parametrize(
    "value",
    ["2.0", None, [2.0], np.array([2.0, 3.0]), 2.0 + 1j, object()],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_single_number_is_not_judged(bus, said, value):
    with alerts.attach([alerts.Rule("r", "training.loss", above=1.0)], registry=bus):
        bus.execute(STEP, {"loss": value})
        bus.execute(STEP, {"lr": 3.0})
        assert said == []
        bus.execute(STEP, {"loss": 2.0})
    assert changes(said) == [("raised",)]


@pytest.mark.parametrize(
    "value", [2, True, 10**400, np.float32(2), np.array(2.0), np.int64(2)], ids=repr
)
def test_numbers_of_any_kind_are_judged(bus, said, value):
    with alerts.attach([alerts.Rule("r", "training.loss", above=0.5)], registry=bus):
        bus.execute(STEP, {"loss": value})
    assert changes(said) == [("raised",)]


def test_measurements_and_metadata_can_be_any_mapping(bus, said):
    rules = [alerts.Rule("r", "training.loss", above=0.5), alerts.Rule("s", "my.x", stalled=60)]
    with alerts.attach(rules, registry=bus):
        bus.execute(STEP, UserDict(loss=2.0), UserDict(step=1))
        bus.execute(("my", "x"), UserDict(), UserDict(step=1))
    assert changes(said, "step") == [("raised", 1)]


def test_an_event_that_cannot_be_read_does_not_end_the_watch(bus, said):
    class Hostile(dict):
        def get(self, key, default=None):
            raise RuntimeError("no")

    with alerts.attach([alerts.Rule("r", "training.loss", above=0.5)], registry=bus) as attachment:
        bus.execute(STEP, Hostile(loss=2.0))
        assert attachment.active
        bus.execute(STEP, {"loss": 2.0})
    assert changes(said) == [("raised",)]


def test_so_many_series_are_kept_and_the_one_that_was_idle_longest_is_forgotten(monkeypatch):
    monkeypatch.setattr(series.Series.__init__, "__defaults__", (3,))
    bus = Registry()
    judge = watcher.Watcher([alerts.Rule("r", "training.loss", above=1.0)], bus, "r")
    heard = []
    bus.attach("heard", ("alert", "raised"), lambda *event: heard.append(event[2]["run_id"]))
    for run in "abca":
        judge(STEP, {"loss": 2.0}, {"run_id": run}, None)
    assert heard == ["a", "b", "c"]
    for run in "dacd":  # of "b" nothing is known any more
        judge(STEP, {"loss": 2.0}, {"run_id": run}, None)
    assert heard == ["a", "b", "c", "d"]
    judge(STEP, {"loss": 2.0}, {"run_id": "b"}, None)
    assert heard == ["a", "b", "c", "d", "b"]


def test_a_series_that_goes_on_is_not_forgotten_for_those_of_other_events(monkeypatch):
    monkeypatch.setattr(series.Series.__init__, "__defaults__", (3,))
    bus, heard = Registry(), []
    rules = [alerts.Rule("r", "training.loss", above=1.0), alerts.Rule("s", "my.x", above=1.0)]
    judge = watcher.Watcher(rules, bus, "r")
    bus.attach("heard", ("alert", "raised"), lambda *event: heard.append(event[2]["run_id"]))
    for run in "abcd":
        judge(STEP, {"loss": 2.0}, {"run_id": "long"}, None)
        judge(("my",), {"x": 2.0}, {"run_id": run}, None)
    for run in ("long", "short", "long"):
        judge(STEP, {"loss": 2.0}, {"run_id": run}, None)
    assert heard == ["long", "a", "b", "c", "d", "short"]


def test_plans_for_names_of_events_are_bounded(bus, monkeypatch):
    monkeypatch.setattr(watcher, "MAX_PLANS", 3)
    judge = watcher.Watcher([alerts.Rule("r", "**.x", above=1.0)], bus, "r")
    for number in range(10):
        judge(("my", str(number)), {"x": nan}, {}, None)
    assert len(judge._plans) <= 3


@pytest.mark.parametrize(
    ("rules", "values", "names"),
    [
        (alerts.RL_RULES, {"kl_divergence": 0.05}, []),
        (alerts.RL_RULES, {"kl_divergence": 0.06}, ["kl_divergence_high"]),
        (
            alerts.RL_RULES,
            {"kl_divergence": 0.11},
            ["kl_divergence_high", "kl_divergence_critical"],
        ),
        (alerts.RL_RULES, {"entropy": 0.0}, []),
        (alerts.RL_RULES, {"clip_fraction": 0.51}, ["clip_fraction_high"]),
        (alerts.RL_RULES, {"clip_fraction": 0.09}, ["clip_fraction_low"]),
        (alerts.RL_RULES, {"clip_fraction": 0.3}, []),
        (alerts.RL_RULES, {"explained_variance": 0.49}, ["explained_variance_low"]),
        (alerts.RL_RULES, {"explained_variance": 0.7}, []),
    ],
)
def test_the_limits_for_reinforcement_learning(bus, said, rules, values, names):
    with alerts.attach(rules, registry=bus):
        bus.execute(("rl", "step"), values)
    assert [one.metadata["rule"] for one in said] == names


def feed(bus, event, name, values):
    for value in values:
        bus.execute(event, {name: value})


def test_a_policy_that_collapses_and_one_that_gets_surer(bus, said):
    with alerts.attach(alerts.RL_RULES, registry=bus):
        feed(bus, ("rl", "step"), "entropy", [3.0 * 0.99**step for step in range(300)])
        assert said == []
        feed(bus, ("rl", "step"), "entropy", [0.05])
    assert changes(said, "rule", "severity") == [("raised", "entropy_collapse", "critical")]


def test_the_limits_for_any_training(bus, said):
    clip, timing = ("smartclip", "clip", "stop"), ("training", "timing")
    with alerts.attach(alerts.TRAINING_RULES, registry=bus):
        feed(bus, STEP, "loss", [2.0] * 20 + [6.1, nan])
        feed(bus, STEP, "grad_norm", [1.0] * 20 + [10.1])
        feed(bus, clip, "grad_norm", [1.0] * 20 + [10.1])
        feed(bus, clip, "scale", [1.0, 0.9] * 100 + [0.9])
        feed(bus, ("training", "eval"), "loss", [nan])
        feed(bus, timing, "samples_per_second", [100.0] * 20 + [49.0] * 5)
    assert [one.metadata["rule"] for one in said] == [
        "loss_spike",
        "loss_not_finite",
        "grad_norm_explosion",
        "clipped_grad_norm_explosion",
        "clipping_on_most_steps",
        "eval_loss_not_finite",
        "throughput_drop",
    ]

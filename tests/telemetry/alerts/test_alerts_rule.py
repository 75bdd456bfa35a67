"""What a rule refuses, in its words, and which metrics it finds."""

import dataclasses
import pickle
from math import inf, nan

import pytest

from telemetry import alerts
from telemetry.alerts.subject import resolve

METRIC = "training.step.loss"
CONDITIONS = "above, below, outside, drop, spike, nonfinite, stalled"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, ValueError, f" has no condition. Give one of: {CONDITIONS}."),
        ({"nonfinite": False}, ValueError, f" has no condition. Give one of: {CONDITIONS}."),
        (
            {"above": 1, "below": 0},
            ValueError,
            (
                " has 2 conditions: above=1 and below=0. Give one; for a range write "
                "outside=(low, high)."
            ),
        ),
        (
            {"above": 1, "nonfinite": True, "stalled": 60},
            ValueError,
            (
                " has 3 conditions: above=1 and nonfinite=True and stalled=60. Give one; several "
                "make several rules."
            ),
        ),
        ({"above": "1"}, TypeError, ": above must be a number, got '1' (str)."),
        ({"above": True}, TypeError, ": above must be a number, got True (bool)."),
        ({"above": nan}, ValueError, ": above must be a finite number, got nan."),
        ({"below": -inf}, ValueError, ": below must be a finite number, got -inf."),
        (
            {"outside": (1, 0)},
            ValueError,
            ": outside is (1, 0), a range in which nothing is. Write (low, high).",
        ),
        (
            {"outside": 3},
            TypeError,
            ": outside must be a pair of numbers (low, high), got 3 (int).",
        ),
        (
            {"outside": (1, 2, 3)},
            TypeError,
            ": outside must be a pair of numbers (low, high), got (1, 2, 3) (tuple).",
        ),
        ({"outside": (0, nan)}, ValueError, ": outside must be a finite number, got nan."),
        (
            {"drop": 50},
            ValueError,
            ": drop must be more than 0 and less than 1: 0.5 is half, got 50.",
        ),
        (
            {"drop": 0},
            ValueError,
            ": drop must be more than 0 and less than 1: 0.5 is half, got 0.",
        ),
        ({"spike": 1.0}, ValueError, ": spike must be a factor of more than 1, got 1.0."),
        ({"stalled": 0}, ValueError, ": stalled must be more than 0 seconds, got 0."),
        ({"stalled": -60}, ValueError, ": stalled must be more than 0 seconds, got -60."),
        ({"nonfinite": 1}, TypeError, ": nonfinite must be True or False, got 1 (int)."),
        (
            {"above": 0.1, "clear": 0.2},
            ValueError,
            ": clear must be at most the limit 0.1, got 0.2. It says where the alert is over.",
        ),
        (
            {"below": 0.5, "clear": 0.4},
            ValueError,
            ": clear must be at least the limit 0.5, got 0.4. It says where the alert is over.",
        ),
        (
            {"outside": (0, 1), "clear": (-1, 0.5)},
            ValueError,
            (
                ": clear must be a range within (0, 1), got (-1, 0.5). It says where the alert is "
                "over."
            ),
        ),
        (
            {"outside": (0, 1), "clear": 0.5},
            TypeError,
            ": clear must be a pair of numbers (low, high), got 0.5 (float).",
        ),
        (
            {"drop": 0.5, "clear": 0.6},
            ValueError,
            (
                ": clear must be a share of at least 0 and at most 0.5, got 0.6. It says where the "
                "alert is over."
            ),
        ),
        (
            {"spike": 3.0, "clear": 0.5},
            ValueError,
            (
                ": clear must be a factor of at least 1 and at most 3.0, got 0.5. It says where "
                "the alert is over."
            ),
        ),
        (
            {"nonfinite": True, "clear": 0.5},
            ValueError,
            ": clear must be left out with nonfinite, got 0.5. It says where the alert is over.",
        ),
        (
            {"below": 1, "share": 0.5, "clear": 0.6},
            ValueError,
            (
                ": clear must be a share of at least 0 and at most 0.5, got 0.6. It says where the "
                "alert is over."
            ),
        ),
        ({"above": 1, "for_steps": 0}, ValueError, ": for_steps must be at least 1, got 0."),
        (
            {"above": 1, "for_steps": 1.5},
            TypeError,
            ": for_steps must be a whole number, got 1.5 (float).",
        ),
        ({"drop": 0.5, "window": 0}, ValueError, ": window must be at least 1, got 0."),
        (
            {"drop": 0.5, "window": 10**6},
            ValueError,
            ": window must be at most 10000, got 1000000.",
        ),
        ({"above": 1, "cooldown": -1}, ValueError, ": cooldown must be at least 0, got -1."),
        ({"above": 1, "cooldown": nan}, ValueError, ": cooldown must be a finite number, got nan."),
        (
            {"above": 1, "share": 1},
            ValueError,
            ": share must be at least 0 and less than 1: 0.5 is half, got 1.",
        ),
        (
            {"drop": 0.5, "share": 0.5},
            ValueError,
            " has share and drop. A share goes with one of: above, below, outside, nonfinite.",
        ),
        (
            {"above": 1, "share": 0.5, "for_steps": 3},
            ValueError,
            " has for_steps and share. Give one of them.",
        ),
        (
            {"stalled": 1, "for_steps": 3},
            ValueError,
            " has for_steps and stalled. Give one of them.",
        ),
        (
            {"above": 1, "severity": "fatal"},
            ValueError,
            ": severity must be one of 'critical', 'error', 'warning', 'info', got 'fatal'.",
        ),
        (
            {"above": 1, "severity": "Warnin"},
            ValueError,
            (
                ": severity must be one of 'critical', 'error', 'warning', 'info', got 'Warnin'. "
                "Did you mean 'warning'?"
            ),
        ),
        ({"above": 1, "message": 3}, TypeError, ": message must be a string, got 3 (int)."),
        (
            {"above": 1, "where": "val"},
            TypeError,
            ": where must be a mapping of metadata, such as {'split': 'val'}, got 'val' (str).",
        ),
        (
            {"above": 1, "where": {"split": ["val"]}},
            TypeError,
            ": where['split'] must be a string, a number, a boolean or None, got ['val'] (list).",
        ),
    ],
)
def test_a_rule_that_cannot_be_is_refused(arguments, error, text):
    with pytest.raises(error) as raised:
        alerts.Rule("kl", METRIC, **arguments)
    assert str(raised.value) == f"Rule 'kl'{text}"


def test_a_rule_needs_a_name_and_a_metric():
    with pytest.raises(ValueError, match=r"^Rule '': name must not be empty\.$"):
        alerts.Rule("", METRIC, above=1)
    with pytest.raises(TypeError, match=r"^Rule: name must be a string, got 3 \(int\)\.$"):
        alerts.Rule(3, METRIC, above=1)
    with pytest.raises(TypeError, match=r"metric must be a string, got \('rl', 'step'\)"):
        alerts.Rule("kl", ("rl", "step"), above=1)


def test_a_rule_is_frozen_equal_by_value_and_travels():
    rule = alerts.Rule("lr", "training.lr", outside=[0, 1], clear=[0.1, 0.9], where={"run_id": "a"})
    assert rule.outside == (0, 1)
    assert rule.clear == (0.1, 0.9)
    assert pickle.loads(pickle.dumps(rule)) == rule  # noqa: S301 -- made here
    assert {rule: 1}[dataclasses.replace(rule)] == 1
    changed = dataclasses.replace(rule, metric="rl.entropy", severity="info")
    assert (changed.event, changed.severity) == (("rl", "step"), "info")
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.above = 3


@pytest.mark.parametrize(
    ("metric", "event", "measurement", "where"),
    [
        ("rl.step.kl_divergence", ("rl", "step"), "kl_divergence", {}),
        ("rl.kl_divergence", ("rl", "step"), "kl_divergence", {}),
        ("training.loss", ("training", "step"), "loss", {}),
        ("train/loss", ("training", "step"), "loss", {}),
        ("training.epoch_loss", ("training", "epoch"), "epoch_loss", {}),
        ("training.samples_per_second", ("training", "timing"), "samples_per_second", {}),
        ("val.loss", ("training", "eval"), "loss", {"split": "val"}),
        ("training.step.perplexity", ("training", "step"), "perplexity", {}),
        ("smartclip.scale", ("smartclip", "clip", "stop"), "scale", {}),
        ("custom_loss.loss_total", ("custom_loss", "stop"), "loss_total", {}),
        ("custom_loss.duration", ("custom_loss", "stop"), "duration", {}),
        (
            "regularizer.l1.contribution",
            ("regularizer", "compute", "stop"),
            "contribution",
            {"regularizer_name": "l1"},
        ),
        ("training.*.loss", ("training", "*"), "loss", {}),
        ("**.loss", ("**",), "loss", {}),
        ("my.loss", ("my",), "loss", {}),
        ("training.custom.loss", ("training", "custom"), "loss", {}),
        ("telemetry.handler.overflow.dropped", ("telemetry", "handler", "overflow"), "dropped", {}),
    ],
)
def test_a_metric_is_an_event_and_a_measurement_or_a_reported_name(
    metric, event, measurement, where
):
    found = resolve(metric)
    assert (found.event, found.measurement, found.where) == (event, measurement, where)
    assert found.doubt == ""


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("loss", "metric 'loss' names no event. Write for example 'training.step.loss'."),
        (
            "training.step",
            (
                "metric 'training.step' names no measurement. Write the event, then the "
                "measurement: 'training.step.loss'."
            ),
        ),
        (
            "trainig.step.loss",
            "metric 'trainig.step.loss' is unknown. Nearest: 'training.step.loss'.",
        ),
        ("trainig.loss", "metric 'trainig.loss' is unknown. Nearest: 'training.loss'."),
        ("training.los", "metric 'training.los' is unknown. Nearest: 'training.loss'."),
        (
            "smartclip.clip.stop.scal",
            (
                "smartclip.clip.stop has no measurement 'scal' in the event catalogue. "
                "Nearest: 'scale'."
            ),
        ),
        (
            "smartclip.stop.scale",
            (
                "metric 'smartclip.stop.scale' is unknown. Nearest: 'smartclip.clip.stop.scale', "
                "'smartclip.scale', 'smartclip.clip.group.scale'."
            ),
        ),
        (
            "training.perplexity",
            (
                "metric 'training.perplexity' can be several. Write what is meant: "
                "'training.step.perplexity' or 'training.timing.perplexity' or "
                "'training.epoch.perplexity'."
            ),
        ),
        (
            "performance.forward_duration_ms",
            (
                "metric 'performance.forward_duration_ms' can be several. Write what is meant: "
                "'performance.sample.forward_duration_ms' or 'performance.operation.stop.duration' "
                "in ns where={'operation': 'forward'}."
            ),
        ),
        ("training.step.*", "metric 'training.step.*' ends in '*'. Name one measurement."),
        (
            "rl..entropy",
            (
                "metric 'rl..entropy' has an empty part. Write the event, then the measurement: "
                "'training.step.loss'."
            ),
        ),
        (
            "alert.raised.value",
            "metric 'alert.raised.value' is an alert itself, which no rule can watch.",
        ),
        (
            "a.**.b.loss",
            (
                "Event pattern ('a', '**', 'b') has '**' before its end. '**' is allowed as the "
                "last segment only; use '*' for any one segment."
            ),
        ),
    ],
)
def test_a_metric_that_cannot_be_is_refused_with_the_nearest(metric, text):
    with pytest.raises(ValueError, match=r"^") as raised:
        alerts.Rule("r", metric, above=1)
    assert str(raised.value).removeprefix("Rule 'r': ") == text


def test_a_measurement_of_nearly_a_known_name_is_doubted():
    for slip in ("kl_divergance", "KL_divergence", "kl", "kldivergence"):
        text = (
            f"Rule 'kl': rl.step has no measurement '{slip}' in the event catalogue. "
            "Nearest: 'kl_divergence'."
        )
        with pytest.warns(UserWarning, match=f"^{text}$"):
            alerts.Rule("kl", f"rl.step.{slip}", above=1)
    alerts.Rule("kl", "rl.step.advantage_max", above=1)
    alerts.Rule("kl", "training.step.loss2", above=1)


@pytest.mark.parametrize(
    ("metric", "event"),
    [
        ("training.step", ("training", "step")),
        ("training.step.loss", ("training", "step")),
        ("training.loss", ("training", "step")),
        ("training.**", ("training", "**")),
        ("my.batch", ("my", "batch")),
        ("val.loss", ("training", "eval")),
    ],
)
def test_silence_is_of_an_event(metric, event):
    rule = alerts.Rule("r", metric, stalled=60)
    assert (rule.event, rule.measurement) == (event, "")


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ("rl.stp", "metric 'rl.stp' is unknown. Nearest: 'rl.step'."),
        ("training", "metric 'training' begins several events. Write 'training.**' for any."),
    ],
)
def test_silence_of_a_slip_is_refused(metric, text):
    with pytest.raises(ValueError, match=r"^") as raised:
        alerts.Rule("r", metric, stalled=60)
    assert str(raised.value) == f"Rule 'r': {text}"


def test_the_ready_made_sets_are_rules_with_names_of_their_own_and_words():
    for rules in (alerts.RL_RULES, alerts.TRAINING_RULES):
        assert len({rule.name for rule in rules}) == len(rules)
        assert all(rule.message for rule in rules)
    assert not {rule.name for rule in alerts.RL_RULES} & {r.name for r in alerts.TRAINING_RULES}

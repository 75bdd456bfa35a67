"""Which way a metric gets better."""

import pytest

from telemetry.viewer.summaries.goals import goal_of


@pytest.mark.parametrize(
    "name",
    [
        "training.loss",
        "val/loss",
        "val.avg_loss",
        "custom_loss.loss_total",
        "test.perplexity",
        "wer",
        "rl.policy_loss",
        "eval.RMSE",
        "val.top1-error",
        "Loss/train",
        "val.error_rate",
        "test.wordErrorRate",
        "valLoss",
    ],
)
def test_losses_and_errors_are_best_where_they_are_lowest(name):
    assert goal_of(name) == "lowest"


@pytest.mark.parametrize(
    "name",
    [
        "val.accuracy",
        "val.mlm_acc",
        "rl.reward_mean",
        "eval/f1",
        "rl.explained_variance",
        "score",
        "Accuracy/val",
        "valAcc",
        "mAP",
    ],
)
def test_accuracies_and_rewards_are_best_where_they_are_highest(name):
    assert goal_of(name) == "highest"


@pytest.mark.parametrize(
    "name",
    [
        "training.lr",
        "smartclip.grad_norm",
        "smartclip.scale[param/loss]",
        "amp.loss_scale",
        "glossy",
        "rl.reward_std",
        "custom_loss.duration_ms",
        "performance.queue_depth",
        "loss.lr",
        "rl.entropy",
        "loss/lossScale",
        "training.train",
    ],
)
def test_others_have_no_best(name):
    assert goal_of(name) is None

"""Which metrics are meant."""

import numpy as np
import pandas as pd
import pytest

from telemetry.viewer import filter_metrics
from telemetry.viewer.frames.selection import (
    MOST_PANELS,
    default_metrics,
    match_metrics,
    panel_of,
    prefer_averages,
)

NAMES = [
    "training.loss",
    "training.lr",
    "val.loss",
    "val.accuracy",
    "value.loss",
    "smartclip.scale",
    "smartclip.scale[a.b/0]",
    "smartclip.scale[c/1]",
]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("training.loss", ["training.loss"]),
        ("train.loss", ["training.loss"]),
        ("train/loss", ["training.loss"]),
        ("val.", ["val.loss", "val.accuracy"]),
        ("val", ["val.loss", "val.accuracy"]),
        ("val/", ["val.loss", "val.accuracy"]),
        ("train.", ["training.loss", "training.lr"]),
        ("*.loss", ["training.loss", "val.loss", "value.loss"]),
        ("train.l?", ["training.lr"]),
        ("smartclip.scale", ["smartclip.scale"]),
        ("smartclip.scale[a.b/0]", ["smartclip.scale[a.b/0]"]),
        ("smartclip.scale[*", ["smartclip.scale[a.b/0]", "smartclip.scale[c/1]"]),
        (["val.loss", "train.loss", "val."], ["val.loss", "training.loss", "val.accuracy"]),
    ],
)
def test_names_prefixes_and_patterns(wanted, found):
    assert match_metrics(wanted, NAMES) == found


def test_an_own_name_goes_before_another_spelling():
    assert match_metrics("train.loss", ["training.loss", "train.loss"]) == ["train.loss"]
    assert match_metrics("training.loss", ["training.loss", "train.loss"]) == ["training.loss"]


def test_either_spelling_of_training_finds_the_other():
    assert match_metrics("training.loss", ["train.loss"]) == ["train.loss"]
    assert match_metrics("training.", ["train/loss"]) == ["train/loss"]


def test_columns_with_slashes_are_found_by_dots():
    assert match_metrics(["train.loss"], ["train/loss"]) == ["train/loss"]


def test_a_name_of_groups_stands_for_all_of_them():
    assert match_metrics("a.scale", ["a.scale[x]", "a.scale[y]", "a.scales"]) == [
        "a.scale[x]",
        "a.scale[y]",
    ]


@pytest.mark.parametrize(
    ("wanted", "names", "message"),
    [
        ("val.los", NAMES, "There is no metric 'val.los'. Nearest: val.loss, value.loss, "),
        ("loss", NAMES, "There is no metric 'loss'. Nearest: "),
        ("loss", ["a.loss"], "There is no metric 'loss'. Nearest: a.loss."),
        (["zz", "yy"], ["b.lr"], "There is no metric 'zz' or 'yy'. Metrics: b.lr."),
        ("zz", [], "There is no metric 'zz': there are no metrics at all."),
        ("zz", [f"m{n}.x{n}" for n in range(30)], "m7.x7 and 22 more."),
        (
            "training.losss*",
            NAMES,
            "There is no metric 'training.losss*'. Nearest: training.loss, ",
        ),
    ],
)
def test_an_unknown_name_offers_the_nearest(wanted, names, message):
    with pytest.raises(ValueError, match=r"^There is no metric") as caught:
        match_metrics(wanted, names)
    assert message in str(caught.value)


def test_an_empty_name_is_refused():
    with pytest.raises(ValueError, match=r"^The name of a metric is empty\. Write one such as"):
        match_metrics(["a.loss", ""], ["a.loss"])


def test_no_name_at_all_is_refused():
    with pytest.raises(ValueError, match=r"^metrics=\[\] names no metric\. Name some, or leave it"):
        match_metrics([], NAMES)


@pytest.mark.parametrize("wanted", [7, [7], [None]])
def test_a_metric_is_named_by_a_string(wanted):
    with pytest.raises(TypeError, match=r"A metric is named by a string, got (7|None)"):
        match_metrics(wanted, NAMES)


def frame_of(**columns):
    frame = pd.DataFrame({"run": "a", "step": [1.0, 2.0, 3.0], **columns})
    frame.attrs["metrics"] = list(columns)
    return frame


def test_a_filtered_frame_has_the_records_with_these_metrics():
    frame = frame_of(
        **{
            "val.loss": [np.nan, 0.5, np.nan],
            "train.loss": [1.0, np.nan, np.nan],
            "lr": [1.0, 1, 1],
        }
    )
    few = filter_metrics(frame, ["train.loss", "val/loss"])
    assert few.columns.tolist() == ["run", "step", "train.loss", "val.loss"]
    assert few["step"].tolist() == [1.0, 2.0]
    assert few.attrs["metrics"] == ["train.loss", "val.loss"]
    assert frame.attrs["metrics"] == ["val.loss", "train.loss", "lr"]


def test_a_column_that_was_added_is_a_metric():
    frame = frame_of(loss=[1.0, 2.0, 3.0])
    frame["ppl"] = np.exp(frame["loss"])
    assert filter_metrics(frame, "ppl")["ppl"].tolist() == np.exp([1.0, 2.0, 3.0]).tolist()


def test_an_unknown_metric_of_a_frame_is_refused():
    with pytest.raises(ValueError, match=r"no metric 'los'\. Nearest: loss\."):
        filter_metrics(frame_of(loss=[1.0, 2.0, 3.0]), ["los"])


def test_a_first_look_begins_with_losses_norms_rate_and_evaluations():
    names = [
        "val.accuracy",
        "smartclip.duration_ms",
        "training.lr",
        "performance.gpu_memory_used_gb",
        "smartclip.threshold",
        "smartclip.clipped_grad_norm",
        "smartclip.grad_norm",
        "smartclip.grad_norm[layer/0]",
        "val.loss",
        "training.loss",
    ]
    assert default_metrics(names) == [
        "val.loss",
        "training.loss",
        "smartclip.threshold",
        "smartclip.grad_norm",
        "training.lr",
        "val.accuracy",
        "performance.gpu_memory_used_gb",
    ]


def test_a_first_look_never_has_many_panels():
    names = [f"val.score{number}" for number in range(50)]
    assert default_metrics(names) == names[:MOST_PANELS]


def test_durations_are_looked_at_when_there_is_nothing_else():
    assert default_metrics(["stage.duration_ms"]) == ["stage.duration_ms"]


def test_averages_take_the_place_of_what_they_average():
    there = ["train.loss", "train.avg_loss", "val.loss"]
    assert prefer_averages(["train.loss", "val.loss"], there) == ["train.avg_loss", "val.loss"]
    assert prefer_averages(there, there) == ["train.avg_loss", "val.loss"]
    assert prefer_averages(["train/loss"], ["train/avg_loss"]) == ["train/avg_loss"]


@pytest.mark.parametrize(
    ("name", "panel"),
    [
        ("train.loss", "loss"),
        ("val/loss", "loss"),
        ("loss", "loss"),
        ("train.avg_loss", "loss"),
        ("smartclip.threshold[a.b]", "grad_norm"),
        ("training.learning_rate", "lr"),
    ],
)
def test_what_has_a_unit_in_common_shares_a_panel(name, panel):
    assert panel_of(name) == panel

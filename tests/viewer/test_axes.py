"""Where points are on the horizontal axis."""

import numpy as np
import pandas as pd
import pytest

from telemetry.viewer.frames.axes import axes_of, check_axis, positions, usual_axis


def frame_with(**columns):
    return pd.DataFrame({"run": ["a", "b", "a", "b"], **columns})


STAMPS = pd.to_datetime(
    ["2026-01-01T00:00:10.0", "2026-01-01T01:00:00.0", None, "2026-01-01T01:00:00.5"], utc=True
)


def test_time_is_counted_from_the_first_record_of_each_run():
    frame = frame_with(timestamp=pd.Series(STAMPS).astype("datetime64[us, UTC]"))
    np.testing.assert_array_equal(positions(frame, "time"), [0.0, 0.0, np.nan, 0.5])


def test_records_out_of_order_are_not_before_the_beginning():
    frame = frame_with(timestamp=pd.Series(STAMPS[[1, 0, 0, 1]]).astype("datetime64[us, UTC]"))
    assert positions(frame, "time").tolist() == [3590.0, 0.0, 0.0, 3590.0]


def test_steps_are_counted_on_over_epochs():
    frame = pd.DataFrame({"epoch": [0.0, 0, 1, 1], "step": [1.0, 2, 1, 2]})
    assert positions(frame, "step").tolist() == [1.0, 2.0, 3.0, 4.0]


def test_any_column_of_numbers_is_an_axis():
    frame = frame_with(step=[np.nan] * 4, tokens=[1, 2, 3, 4], host=list("xxxx"))
    assert axes_of([frame]) == ["tokens"]
    assert positions(frame, "tokens").tolist() == [1.0, 2.0, 3.0, 4.0]
    assert check_axis([frame], "tokens") == "tokens"


@pytest.mark.parametrize(
    ("x_key", "message"),
    [
        (
            "stp",
            "The axis 'stp' is on no record. Axes: step, tokens, or a metric. Did you mean 'step'?",
        ),
        ("host", "The axis 'host' has no numbers. Axes: step, tokens, or a metric."),
        ("time", "The axis 'time' is on no record. Axes: step, tokens, or a metric."),
        ("epoch", "The axis 'epoch' is on no record. Axes: step, tokens, or a metric."),
    ],
)
def test_an_axis_that_is_not_there_is_refused(x_key, message):
    frame = frame_with(
        step=[1.0] * 4, epoch=[np.nan] * 4, tokens=[1] * 4, host=list("xxxx"), loss=[1.0] * 4
    )
    frame.attrs["metrics"] = ["loss"]
    with pytest.raises(ValueError, match="The axis") as caught:
        check_axis([frame], x_key)
    assert str(caught.value) == message


def test_an_axis_is_named_by_a_string():
    with pytest.raises(TypeError, match=r"x_key must be the name of a column, got None"):
        check_axis([], None)


def test_a_metric_is_an_axis_under_any_of_its_names():
    frame = frame_with(step=[1.0] * 4)
    frame["training.lr"] = [1.0] * 4
    frame.attrs["metrics"] = ["training.lr"]
    assert check_axis([frame], "train.lr") == "training.lr"
    assert check_axis([frame], "training/lr") == "training.lr"


def test_what_was_not_read_is_offered_as_well():
    frame = frame_with(step=[1.0] * 4)
    with pytest.raises(ValueError, match=r"Did you mean 'training\.tokens'\?"):
        check_axis([frame], "training.token", ["training.tokens"])


def test_the_usual_axis_is_one_on_which_a_metric_has_a_place():
    frame = frame_with(step=[1.0, 2.0, np.nan, np.nan], epoch=[np.nan, np.nan, 1.0, 2.0])
    frame["loss"] = [np.nan, np.nan, 1.0, 2.0]
    assert usual_axis([frame]) == "epoch"


def test_a_prefix_of_several_metrics_is_no_axis_even_if_one_of_them_was_read():
    frame = frame_with(step=[1.0] * 4)
    frame["train.lr"] = [1.0] * 4
    frame.attrs["metrics"] = ["train.lr"]
    others = ["train.a", "train.b", "train.c", "train.d"]
    with pytest.raises(ValueError, match="The axis 'train' could be") as caught:
        check_axis([frame], "train", ["train.lr", *others])
    assert str(caught.value) == (
        "The axis 'train' could be train.lr, train.a, train.b, train.c and 1 more. Name one of "
        "them."
    )
    frame["train"] = [1.0] * 4
    assert check_axis([frame], "train", others) == "train"


def test_the_number_of_a_record_is_no_axis_beside_others():
    frame = frame_with(step=[1.0] * 4)
    with pytest.raises(ValueError, match=r"'record' is only there where no record has a step, an"):
        check_axis([frame], "record")

"""Frames of runs, charts of these, and what is on their lines."""

import numpy as np
import pandas as pd

from telemetry.viewer.charts.chart import chart_of
from telemetry.viewer.charts.treatment import check_treatment


def run_of(name, steps=range(1, 5), **metrics):
    frame = pd.DataFrame({"run": name, "step": np.array(steps, float), **metrics})
    frame.attrs["metrics"] = list(metrics)
    return frame


def chart(frames, metrics=None, x_key="step", labels=None, **treatment):
    asked = {"smooth": 0, "smooth_mode": "mean", "clip": None, "band": None, "downsample": 0}
    return chart_of(frames, metrics, x_key, labels, check_treatment(**{**asked, **treatment}))


def points(line):
    return dict(zip(line.curve.x.tolist(), line.curve.y.tolist(), strict=True))

"""What TensorBoard's own web server shows of two runs."""

import json
import math
import subprocess
import sys
import urllib.parse
import urllib.request

import pytest

import handlers

STEP = ("training", "step")

# TensorBoard's own switch against importing TensorFlow, which takes seconds.
PROGRAM = """
import sys, types
sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")
from tensorboard.main import run_main
sys.exit(run_main())
"""


@pytest.fixture
def page(tmp_path, free_port, wait_until):
    """Start the web server on a directory, and give what asks it."""
    processes = []

    def get(path, **query):
        url = f"http://127.0.0.1:{free_port}/data/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)

    def runs():
        try:
            return get("runs")
        except OSError:
            return []

    def start(log_dir, *options, expect):
        script = tmp_path / "serve.py"
        script.write_text(PROGRAM)
        log = (tmp_path / "serve.log").open("wb")
        processes.append(
            (
                log,
                subprocess.Popen(
                    [
                        sys.executable,
                        str(script),
                        "--logdir",
                        str(log_dir),
                        "--host",
                        "127.0.0.1",
                        "--port",
                        str(free_port),
                        *options,
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                ),
            )
        )
        wait_until(lambda: sorted(runs()) == expect, timeout=60)
        return get

    yield start
    for log, process in processes:
        process.terminate()
        process.wait()
        log.close()


def test_the_page_shows_the_points_of_two_runs(bus, tmp_path, page):
    points = {"a": [2.5, 1.25, math.nan], "b": [3.5, 3.0, 0.5]}
    for run, losses in points.items():
        with handlers.attach("tensorboard", log_dir=tmp_path / "runs" / run, registry=bus):
            for step, loss in enumerate(losses, start=1):
                bus.execute(STEP, {"loss": loss}, {"step": step})
                key = {"key": ("layer", "conv1"), "step": step}
                bus.execute(("smartclip", "clip", "group"), {"scale": 1 / step}, key)
    get = page(tmp_path / "runs", expect=["a", "b"])
    tags = get("plugin/scalars/tags")
    expected = ["smartclip/scale[layer/conv1]", "training/loss"]
    assert {run: sorted(found) for run, found in tags.items()} == {"a": expected, "b": expected}
    shown = get("plugin/scalars/scalars", run="b", tag="training/loss")
    assert [(step, value) for _, step, value in shown] == [(1, 3.5), (2, 3.0), (3, 0.5)]
    shown = get("plugin/scalars/scalars", run="a", tag="training/loss")
    assert [(step, value) for _, step, value in shown] == [(1, 2.5), (2, 1.25), (3, "NaN")]
    shown = get("plugin/scalars/scalars", run="a", tag="smartclip/scale[layer/conv1]")
    assert [(step, value) for _, step, value in shown] == [
        (1, 1.0),
        (2, 0.5),
        (3, pytest.approx(1 / 3)),
    ]


def test_steps_that_go_backwards_are_shown_by_the_thorough_reader(bus, tmp_path, page):
    """The fast one takes them for a run that was resumed, and hides what came after that step."""
    points = [(1, 4.0), (2, 3.0), (3, 2.0), (2, 1.0), (2, 0.5)]
    with handlers.attach("tensorboard", log_dir=tmp_path / "runs" / "a", registry=bus):
        for step, loss in points:
            bus.execute(STEP, {"loss": loss}, {"step": step})
    get = page(tmp_path / "runs", "--load_fast=false", expect=["a"])
    shown = get("plugin/scalars/scalars", run="a", tag="training/loss")
    assert [(step, value) for _, step, value in shown] == points

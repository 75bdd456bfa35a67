"""Logs with gradient norms, and the command that runs clippers over them."""

import json
import math

import numpy as np
import pytest
from click.testing import CliRunner

import clipping
import handlers
import telemetry
from telemetry.cli import commands

SHAPES = [(3, 4), (4,), (2, 2, 5)]


class Kit:
    @staticmethod
    def replay(*arguments, exit_code=0):
        result = CliRunner().invoke(commands, ["replay", *map(str, arguments)])
        assert result.exit_code == exit_code, result.output
        return result

    @staticmethod
    def replay_json(*arguments):
        return json.loads(Kit.replay(*arguments, "--json").stdout)

    @staticmethod
    def record(path, clippers, steps=120, **context):
        """A run of NumPy gradients with spikes and accidents, clipped by real clippers."""
        rng = np.random.default_rng(0)
        weights = [np.random.default_rng(1).normal(size=shape) for shape in SHAPES]
        with handlers.attach("jsonl", path=path), telemetry.workflow_run("test", **context):
            for step in range(1, steps + 1):
                grads = [rng.normal(size=shape) * rng.lognormal(sigma=0.5) for shape in SHAPES]
                grads[0] *= 300.0 if step % 13 == 7 else 1.0
                if step in (31, 90):
                    grads[2][0, 0, 0] = math.nan
                if step == 40:
                    grads[0][0, 0] = math.inf
                if step % 11 == 5:
                    grads[0] = None
                with telemetry.context(step=step):
                    for clipper in clippers:
                        clipping.numpy.apply_grads(grads, weights, clipper)
        return path

    @staticmethod
    def lines(path, *records):
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    @staticmethod
    def step_of(step, norm, **metadata):
        return {
            "timestamp": "2026-11-21T10:30:00.000000Z",
            "event": "training.step",
            "measurements": {"grad_norm": norm},
            "metadata": {"step": step, **metadata},
        }

    @staticmethod
    def stop_of(step, norm, threshold, scale, **metadata):
        return {
            "timestamp": "2026-11-21T10:30:00.000000Z",
            "event": "smartclip.clip.stop",
            "measurements": {
                "grad_norm": norm,
                "threshold": threshold,
                "scale": scale,
                "groups": 1,
            },
            "metadata": {"step": step, "algo": "zscore", "scope": "global"} | metadata,
        }


@pytest.fixture
def kit():
    return Kit

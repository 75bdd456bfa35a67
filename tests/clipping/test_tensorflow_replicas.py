"""Replicas of ``tf.distribute.MirroredStrategy``, and several devices.

Logical devices are made before TensorFlow starts, so all of it runs in one process of its own.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)

PROGRAM = Path(__file__).with_name("tensorflow_replicas.py")


@pytest.fixture(scope="module")
def found():
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["dense", "sparse", "agc"])
def test_replicas_learn_what_one_device_learns_from_the_whole_batch(found, name):
    ours, alone = found[name]
    for replicated, single in zip(ours["weights"], alone["weights"], strict=True):
        assert replicated == pytest.approx(single, rel=1e-5, abs=1e-6)
    assert ours["norms"] == pytest.approx(alone["norms"], rel=1e-5)
    assert ours["thresholds"] == pytest.approx(alone["thresholds"], rel=1e-5)
    assert ours["clipped"] == alone["clipped"]
    assert any(ours["clipped"])


def test_the_state_of_replicas_is_that_of_one(found):
    ours, alone = found["dense"]
    assert ours["steps"] == alone["steps"] == 12
    assert ours["resumed"] == ours["whole"]


def test_one_replica_that_is_not_finite_stops_all_of_them(found):
    assert found["nonfinite"] == {"gradients": [[0.0, 0.0], [0.0, 0.0]], "events": 1}


def test_replicas_work_without_tf_function(found):
    first, second = found["eager"]  # of (1, 0) and (2, 4), whose sum has norm 5
    assert first == pytest.approx([0.2, 0.0])
    assert second == pytest.approx([0.4, 0.8])


def test_variables_from_outside_the_strategy_are_refused(found):
    assert "in strategy.scope() first" in found["outside"]


def test_variables_made_in_the_scope_serve(found):
    assert found["made_before"] == 1


def test_gradients_on_several_devices_are_refused(found):
    assert found["devices"].startswith("The gradients are on several devices, ['/job:localhost")
    assert "untouched" in found["devices"]

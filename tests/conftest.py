"""What every test of the project relies on."""

import logging
import os
import sys
import tempfile

import pytest
from hypothesis import HealthCheck, settings

import telemetry

# trackio looks at it once, when it is imported: what tests write there is not the user's.
_TRACKIO = tempfile.TemporaryDirectory(prefix="trainbus-trackio-")
os.environ["TRACKIO_DIR"] = _TRACKIO.name

# A busy machine must not fail a property, and a failure must come back when it is looked at.
settings.register_profile(
    "trainbus",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("trainbus")


@pytest.fixture(autouse=True)
def _nothing_left_attached():
    """Fail the test that leaves a handler on the default registry, and spare the next one."""
    yield
    if "WANDB_SERVICE" in os.environ and "wandb" in sys.modules:
        # A later test, and the programs that it starts, would look for a process that may be dead.
        sys.modules["wandb"].teardown()
    left = list(dict.fromkeys(info.id for info in telemetry.list_handlers()))
    for handler_id in left:
        telemetry.detach(handler_id, missing_ok=True)
    assert not left, f"The test left handlers on the default registry: {left!r}. Detach them."


@pytest.fixture(autouse=True)
def _log_captured(caplog):
    """Whatever level a test or a library chose, the bus's own log is seen by `caplog`."""
    with caplog.at_level(logging.DEBUG, logger="telemetry"):
        yield

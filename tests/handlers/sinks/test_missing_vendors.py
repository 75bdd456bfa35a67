"""A sink whose vendor's package is missing says what to install, and only when it is attached."""

import json

import pytest

ATTACH = """
import importlib.abc, json, sys

class Missing(importlib.abc.MetaPathFinder):
    "What a Python without these packages does when they are imported."

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Missing())
import handlers, telemetry

try:
    handlers.attach(sys.argv[2], **json.loads(sys.argv[3]))
except telemetry.MissingExtraError as error:
    cause = error.__cause__
    print(json.dumps([str(error), type(cause).__name__, cause.name]))
assert telemetry.list_handlers() == []
"""

NOWHERE = "http://127.0.0.1:9"
SINKS = [
    # handler, its options, the package that is missing, the extra that brings it
    ("wandb", {"mode": "offline"}, "wandb", "wandb"),
    ("datadog", {}, "datadog", "datadog"),
    ("mlflow", {"tracking_uri": NOWHERE}, "mlflow", "mlflow"),
    ("tensorboard", {"log_dir": "runs"}, "tensorboard", "tensorboard"),
    ("prometheus", {}, "prometheus_client", "prometheus"),
    ("prometheus", {"pushgateway": NOWHERE}, "prometheus_client", "prometheus"),
    ("opentelemetry", {"endpoint": NOWHERE}, "opentelemetry", "opentelemetry"),
    ("webhook", {"url": NOWHERE}, "requests", "webhook"),
    ("trackio", {"project": "p"}, "trackio", "trackio"),
    ("redis", {}, "redis", "redis"),
]


@pytest.mark.parametrize(("name", "options", "package", "extra"), SINKS)
def test_a_missing_package_gives_the_extra_and_the_command(
    run_script, tmp_path, name, options, package, extra
):
    done = run_script(ATTACH, package, name, json.dumps(options), cwd=tmp_path)
    message, cause, missing = json.loads(done.stdout)
    assert f"pip install 'trainbus[{extra}]'" in message
    assert name in message
    assert cause == "ModuleNotFoundError"
    assert missing.partition(".")[0] == package
    assert sorted(path.name for path in tmp_path.iterdir()) == ["script.py"]  # nothing was made

"""What importing the packages brings, and what they export."""

import importlib
import inspect
import json
import subprocess
import sys
import typing

import pytest

HEAVY = [
    "torch",
    "jax",
    "jaxlib",
    "tensorflow",
    "keras",
    "flax",
    "optax",
    "wandb",
    "datadog",
    "mlflow",
    "tensorboard",
    "prometheus_client",
    "opentelemetry",
    "apprise",
    "trackio",
    "redis",
    "requests",
    "pandas",
    "matplotlib",
    "sklearn",
    "scipy",
    "polars",
    "duckdb",
    "pyarrow",
    "rich",
    "click",
    "psutil",
    "pynvml",
]

PROBE = """
import json, sys
before = set(sys.modules)
__import__(sys.argv[1])
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""

EXPORTS = {
    "telemetry": """
        ALL Attachment Event EventName HandlerExistsError HandlerFunction HandlerInfo
        HandlerNotFoundError MetricsCollector MissingExtraError Pattern Registry
        ShadowedPackageError Span SpanContext StageRun Track WorkflowRun alerts attach
        attach_many context create_metrics_collector default_registry detach emit_checkpoint
        emit_dataset_batch emit_dataset_load emit_epoch emit_eval emit_eval_complete
        emit_model_registered emit_performance emit_rl_step emit_step emit_timing enabled
        events execute extras integrations list_handlers metrics next_attempt poller ranks signals
        span stage_run start_span testing time_operation track values workflow_run
    """,
    "telemetry.alerts": "AlertsAttachment RL_RULES Rule Severity TRAINING_RULES attach load",
    "telemetry.events": "CATALOGUE EventSpec Field find select",
    "telemetry.metrics": """
        Kind Metric Predicate Reduction Reporter Sample check_metrics counter distribution
        last_value monitoring sum_ summary tracking
    """,
    "telemetry.poller": "Poller start",
    "telemetry.signals": "handler_attached handler_detached handler_failed",
    "telemetry.testing": "capture",
    "telemetry.values": """
        DEEPEST END_OF_TIME LARGEST SMALLEST check_time_ns is_too_deep jsonable on_device
        restore_metadata restore_number restore_span restore_time_ns to_python to_python_many
    """,
    "telemetry.cli": "main",
    "regularizers.schedules": "constant cosine_warmup linear_warmup",
    "clipping": """
        AGC AutoClip Clipper MetricsRecord NumpyModel NumpyOptimizer ParamLike ZScoreClip apply
        clip_context step
    """,
    "regularizers": """
        BaseLossOutput CustomLoss CustomLossOutput RegularizerError RegularizerOutput
        RegularizerSpec attach_logger custom_loss emit penalties schedules
    """,
    "handlers": """
        Batching Checkable Closeable CredentialsError Delivery DeliveryError Describing Flushable
        Idling Keeping Losses Overflow Ranks Retrying Secrets Selective Silenceable Sink
        SinkAttachment Site TimedEvent attach countable detach_all event_time_ns given_up
    """,
}


def imported_by(name):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE, name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("name", ["telemetry", "clipping", "regularizers", "handlers"])
def test_importing_a_package_imports_no_framework_and_no_vendor(name):
    assert imported_by(name) & set(HEAVY) == set()


def test_the_bus_itself_needs_blinker_and_the_standard_library_only():
    assert imported_by("telemetry") - set(sys.stdlib_module_names) == {"telemetry", "blinker"}


@pytest.mark.parametrize("name", ["clipping", "regularizers", "handlers"])
def test_the_packages_know_the_bus_and_not_each_other(name):
    others = {"clipping", "regularizers", "handlers"} - {name}
    imported = imported_by(name)
    assert "telemetry" in imported
    assert imported & others == set()


@pytest.mark.parametrize("name", EXPORTS)
def test_exactly_the_documented_names_are_exported(name):
    module = importlib.import_module(name)
    assert sorted(module.__all__) == sorted(EXPORTS[name].split())
    assert all(hasattr(module, exported) for exported in module.__all__)


def test_everything_the_bus_exports_says_what_it_is():
    import telemetry

    for name in telemetry.__all__:
        thing = getattr(telemetry, name)
        if inspect.isroutine(thing) or inspect.isclass(thing) or inspect.ismodule(thing):
            assert inspect.getdoc(thing), name


def test_annotations_can_be_resolved_at_run_time():
    import telemetry

    for verb in (
        "attach",
        "attach_many",
        "detach",
        "execute",
        "list_handlers",
        "span",
        "enabled",
    ):
        assert typing.get_type_hints(getattr(telemetry, verb))

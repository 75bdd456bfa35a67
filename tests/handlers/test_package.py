import handlers

PROBE = """
import sys
before = set(sys.modules)
import handlers
foreign = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(foreign & set(sys.argv[1].split())))
bus = __import__("telemetry").Registry()
handlers.attach("jsonl", path=sys.argv[2], registry=bus)
handlers.attach("memory", registry=bus)
handlers.attach("console", registry=bus)
bus.execute(("training", "step"), {}, {"step": 1})
foreign = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(foreign & set(sys.argv[1].split())))
"""


def test_the_public_names():
    assert handlers.__all__ == sorted(handlers.__all__, key=lambda name: (name.islower(), name))
    assert set(handlers.__all__) == {
        "Batching",
        "Checkable",
        "Closeable",
        "CredentialsError",
        "Delivery",
        "DeliveryError",
        "Describing",
        "Flushable",
        "Idling",
        "Keeping",
        "Losses",
        "Overflow",
        "Ranks",
        "Retrying",
        "Secrets",
        "Selective",
        "Silenceable",
        "Sink",
        "SinkAttachment",
        "Site",
        "TimedEvent",
        "attach",
        "countable",
        "detach_all",
        "event_time_ns",
        "given_up",
    }
    for name in handlers.__all__:
        assert hasattr(handlers, name)


def test_no_framework_and_no_vendor_is_imported_before_it_is_needed(run_script, tmp_path):
    heavy = (
        "torch jax tensorflow numpy pandas matplotlib rich requests wandb datadog mlflow "
        "tensorboard prometheus_client opentelemetry apprise trackio redis"
    )
    done = run_script(PROBE, heavy, tmp_path / "m.jsonl")
    assert done.stdout.splitlines() == ["[]", "Step 1", "[]"]

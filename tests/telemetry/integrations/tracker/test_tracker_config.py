"""What the start of a run tracked with accelerate tells of its configuration."""

import argparse
import dataclasses
import enum
import json
from pathlib import Path

import pytest

from telemetry.integrations.accelerate_config import shown_config
from telemetry.testing import capture

torch = pytest.importorskip("torch")
accelerate = pytest.importorskip("accelerate")

from telemetry.integrations.accelerate import TelemetryTracker  # noqa: E402 -- needs accelerate

START = ("workflow", "run", "start")


def start_with(config, **options):
    """The metadata of the start of a run."""
    accelerator = accelerate.Accelerator(cpu=True, log_with=TelemetryTracker("digits", **options))
    with capture(START) as events:
        try:
            accelerator.init_trackers("project", config=config)
        finally:
            accelerator.end_training()
    return events[0].metadata


def test_secrets_in_the_configuration_are_hidden():
    config = {
        "lr": 0.1,
        "api_key": "0123",
        "hub": {"hf_token": "4567", "url": "https://me:8901@host/x"},
        "command": ["train", "--password=2345", "sk-abcdefghijklmnopqrstuvwxyz"],
        "auth": ("me", "6789"),
        "tokenizer": "gpt2",
        "use_auth_token": False,
        "token": None,
    }
    shown = start_with(config)["config"]
    assert shown == {
        "lr": 0.1,
        "api_key": "***",
        "hub": {"hf_token": "***", "url": "https://***@host/x"},
        "command": ["train", "--password=***", "***"],
        "auth": "***",
        "tokenizer": "gpt2",
        "use_auth_token": False,
        "token": None,
    }


def test_a_configuration_can_be_left_out():
    assert "config" not in start_with({"lr": 0.1}, without=["config"])
    assert "pid" not in start_with({"lr": 0.1}, without=["config", "pid"])


def test_a_configuration_is_plain_data():
    class Mode(enum.Enum):
        FAST = "fast"

    @dataclasses.dataclass
    class Options:
        lr: float
        password: str

    config = {
        "model": torch.nn.Linear(1, 1),
        "mode": Mode.FAST,
        "path": Path("runs"),
        "options": Options(0.1, "0123"),
        "scale": torch.tensor(2),
        "weights": torch.zeros(3, 2),
        "far": torch.zeros((), device="meta"),
        "betas": (0.9, 0.99),
        3: "three",
    }
    shown = shown_config(config)
    assert shown == {
        "model": "Linear(in_features=1, out_features=1, bias=True)",
        "mode": "fast",
        "path": "runs",
        "options": {"lr": 0.1, "password": "***"},
        "scale": 2,
        "weights": "Tensor of shape (3, 2)",
        "far": "Tensor of shape ()",
        "betas": [0.9, 0.99],
        "3": "three",
    }
    json.dumps(shown)


def test_a_configuration_is_bounded():
    deep = shallow = {}
    for _ in range(100):
        shallow["x"] = shallow = {}
    endless = []
    endless.append(endless)
    shown = shown_config(
        {
            "deep": deep,
            "endless": endless,
            "text": "x" * 10_000,
            "many": list(range(10_000)),
            "more": 1,
        }
    )
    assert len(json.dumps(shown)) < 20_000
    assert len(shown["text"]) == 200
    assert shown["many"][:3] == [0, 1, 2]
    assert "more" not in shown


def test_a_configuration_may_be_a_namespace():
    shown = start_with(argparse.Namespace(lr=0.1, api_key="0123"))["config"]
    assert shown == {"lr": 0.1, "api_key": "***"}


def test_a_configuration_that_is_no_mapping_is_refused():
    tracker = TelemetryTracker("digits")
    accelerator = accelerate.Accelerator(cpu=True, log_with=tracker)
    with capture() as events, pytest.raises(TypeError) as refusal:
        accelerator.init_trackers("project", config=[0.1])
    assert str(refusal.value) == (
        "config must be a mapping, got [0.1] (list). Write config={'learning_rate': 0.1}."
    )
    assert events == []


def test_an_unknown_name_to_leave_out_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'config'") as refusal:
        TelemetryTracker("digits", without=["confg"])
    assert str(refusal.value).endswith("git_commit, config.")

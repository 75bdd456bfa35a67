import importlib
import math
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.console_lines import line_of
from handlers.text import MAX_ITEMS, duration_text, error_text, escape, value_text

SECOND = 1_000_000_000
BOOM = ValueError("boom")


@pytest.mark.parametrize(
    ("event", "measurements", "metadata", "text"),
    [
        ("workflow.run.start", {}, {"workflow": "MyWorkflow"}, "Workflow started: MyWorkflow"),
        ("stage.run.start", {}, {"stage": "load_dataset"}, "Stage started: load_dataset"),
        (
            "stage.run.stop",
            {"duration": 1_200_000_000},
            {"stage": "load_dataset"},
            "Stage load_dataset completed in 1.2s",
        ),
        (
            "training.step",
            {"loss": 2.5432, "lr": 0.0002},
            {"step": 1, "total_steps": 1000},
            "Step 1/1000 | loss=2.5432 | lr=0.0002",
        ),
        (
            "training.step",
            {"loss": 2.4123, "lr": 2e-4},
            {"step": 2, "total_steps": 1000},
            "Step 2/1000 | loss=2.4123 | lr=0.0002",
        ),
        ("training.epoch", {}, {"epoch": 1, "total_epochs": 3}, "Epoch 1/3 complete"),
        (
            "training.checkpoint",
            {"size_bytes": 10**6},
            {"checkpoint_name": "epoch_1"},
            "Checkpoint saved: epoch_1",
        ),
        (
            "workflow.run.stop",
            {"duration": 2718 * SECOND},
            {"workflow": "MyWorkflow"},
            "Workflow completed in 45.3m",
        ),
    ],
)
def test_the_lines_of_the_specification(event, measurements, metadata, text):
    assert line_of(tuple(event.split(".")), measurements, metadata).text == text


@pytest.mark.parametrize(
    ("event", "measurements", "metadata", "text"),
    [
        (
            "workflow.run.exception",
            {"duration": 3_200_000_000},
            {"workflow": "w", "reason": BOOM},
            "Workflow failed after 3.2s: ValueError: boom",
        ),
        ("workflow.run.exception", {}, {}, "Workflow failed"),
        ("workflow.run.stop", {}, {}, "Workflow completed"),
        ("workflow.run.start", {}, {}, "Workflow started"),
        (
            "stage.run.exception",
            {"duration": SECOND},
            {"stage": "fit", "error": "no data"},
            "Stage fit failed after 1.0s: no data",
        ),
        (
            "stage.run.stop",
            {"duration": SECOND},
            {"stage": "fit", "success": False, "error": "no data"},
            "Stage fit failed after 1.0s: no data",
        ),
        (
            "stage.run.stop",
            {"duration": SECOND},
            {"stage": "fit", "success": True},
            "Stage fit completed in 1.0s",
        ),
        ("training.step", {"loss": 0.5}, {"step": 7}, "Step 7 | loss=0.5"),
        ("training.step", {"loss": 0.5}, {}, "Step | loss=0.5"),
        ("training.step", {}, {"total_steps": 10}, "Step"),
        (
            "training.step",
            {"loss": math.nan, "norm": math.inf},
            {"step": 7},
            "Step 7 | loss=nan | norm=inf",
        ),
        (
            "training.epoch",
            {"epoch_loss": 0.25},
            {"epoch": 1, "total_epochs": 3},
            "Epoch 1/3 complete | epoch_loss=0.25",
        ),
        ("training.checkpoint", {}, {"path": "/runs/a"}, "Checkpoint saved: /runs/a"),
        (
            "training.eval",
            {"accuracy": 0.91},
            {"split": "val", "step": 300},
            "Eval val | accuracy=0.91 (step 300)",
        ),
        ("training.eval", {"accuracy": 0.91}, {}, "Eval | accuracy=0.91"),
        ("eval.complete", {"accuracy": 0.91}, {"model": "m"}, "Eval complete: m | accuracy=0.91"),
        ("model.registered", {}, {"name": "m", "version": 3}, "Model registered: m 3"),
        (
            "dataset.load",
            {"size": 1797, "duration": 40_000_000},
            {"name": "digits"},
            "Dataset loaded: digits | size=1797 | duration=40ms",
        ),
        ("rl.step", {"reward_mean": 1.5}, {"step": 4}, "RL step 4 | reward_mean=1.5"),
        (
            "alert.raised",
            {"value": 0.2, "limit": 0.1},
            {"rule": "kl", "severity": "critical", "message": "too far"},
            "Alert raised (critical): kl | value=0.2 | limit=0.1 | too far",
        ),
        (
            "alert.cleared",
            {"value": 0.05},
            {"rule": "kl", "severity": "critical"},
            "Alert cleared (critical): kl | value=0.05",
        ),
        (
            "telemetry.handler.failure",
            {"system_time": 1},
            {"handler_id": "wandb", "event_name": ("training", "step"), "reason": BOOM},
            "Handler wandb failed on training.step: ValueError: boom",
        ),
        (
            "telemetry.handler.overflow",
            {"dropped": 12},
            {"handler_id": "jsonl", "policy": "disk_full"},
            "Handler jsonl lost 12 events (disk_full)",
        ),
        (
            "telemetry.probe.failure",
            {"system_time": 1},
            {"probe": "gpu", "kind": "error", "reason": BOOM},
            "Probe gpu failed: ValueError: boom",
        ),
        (
            "custom_loss.exception",
            {"duration": 3_000_000},
            {"reason": BOOM, "model_id": "m"},
            "custom_loss failed after 3ms: ValueError: boom",
        ),
        (
            "custom_loss.stop",
            {"duration": 1_500, "monotonic_time": 1, "loss_total": 2.8},
            {"model_id": "m", "telemetry_span_context": (1, None, 1), "data": object()},
            "custom_loss.stop | duration=1.5us | loss_total=2.8 | model_id=m",
        ),
        (
            "smartclip.clip.nonfinite",
            {"count": 1, "grad_norm": math.nan},
            {"keys": (("param", "0"),), "policy": "skip"},
            "smartclip.clip.nonfinite | count=1 | grad_norm=nan | keys=[[param, 0]] | policy=skip",
        ),
        ("my.event", {}, {}, "my.event"),
    ],
)
def test_other_lines(event, measurements, metadata, text):
    assert line_of(tuple(event.split(".")), measurements, metadata).text == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.5432, "2.5432"),
        (2.543219, "2.5432"),
        (0.0002, "0.0002"),
        (1.23456789e-7, "1.2346e-07"),
        (0.1 + 0.2, "0.3"),
        (3.0, "3"),
        (123456.7, "1.2346e+05"),
        (1000, "1000"),
        (123456789, "123456789"),
        (True, "True"),
        (None, "None"),
        ("text", "text"),
        (np.float32(0.1), "0.1"),
        (np.arange(3), "[0, 1, 2]"),
        (list(range(MAX_ITEMS + 1)), "[0, 1, 2, 3, 4, 5, 6, 7, …]"),
        (10**5000, "<int of 16610 bits>"),
        ("x" * 1000, "x" * 299 + "…"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values(value, text):
    assert value_text(value) == text


@pytest.mark.parametrize("module", ["torch", "jax.numpy", "tensorflow"])
def test_tensors_are_read(module):
    framework = importlib.import_module(module)
    make = (
        getattr(framework, "tensor", None)
        or getattr(framework, "array", None)
        or framework.constant
    )
    assert (
        line_of(("training", "step"), {"loss": make(0.5)}, {"step": 1}).text == "Step 1 | loss=0.5"
    )


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0us"),
        (850, "0.85us"),
        (999_000, "999us"),
        (1_000_000, "1ms"),
        (120_000_000, "120ms"),
        (SECOND, "1.0s"),
        (59.94 * SECOND, "59.9s"),
        (59.96 * SECOND, "1.0m"),
        (2718 * SECOND, "45.3m"),
        (3599.99 * SECOND, "1.0h"),
        (7200 * SECOND, "2.0h"),
        (math.nan, "nan"),
        ("soon", "soon"),
        (None, "None"),
        (2**63, "9223372036854775808"),
        (10**400, "1" + "0" * 298 + "…"),
        (True, "True"),
    ],
)
def test_durations(nanoseconds, text):
    assert duration_text(nanoseconds) == text


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("no")


def test_errors():
    assert error_text(KeyError("x")) == "KeyError: 'x'"
    assert error_text(ValueError()) == "ValueError"
    assert error_text("plain") == "plain"
    assert error_text(ValueError("two\nlines")) == "ValueError: two\\nlines"
    assert (
        error_text(UnprintableError()) == "UnprintableError: <unprintable UnprintableError object>"
    )


class Hostile(float):
    def __format__(self, spec):
        raise RuntimeError("no")

    __float__ = __str__ = __repr__ = __hash__ = lambda self: 1 / 0


class HostileInt(int):
    __int__ = __index__ = __str__ = __repr__ = lambda self: 1 / 0


class HostileText(str):
    __slots__ = ()
    __str__ = __len__ = __format__ = lambda self, *_: 1 / 0


class TextOfItsOwn:
    def __str__(self):
        return Subclass("shown")


class Subclass(str):
    __slots__ = ()
    __len__ = __getitem__ = lambda self, *_: 1 / 0


class Classless:
    @property
    def __class__(self):
        raise RuntimeError("no")

    __str__ = __class__


class NamelessType(type):
    @property
    def __name__(cls):
        raise RuntimeError("no")


class Nameless(metaclass=NamelessType):
    __str__ = __repr__ = lambda self: 1 / 0


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


ITSELF = [1]
ITSELF.append(ITSELF)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (ITSELF, "[1, [1, [1, [1, […]]]]]"),
        (nested(100_000), "[[[[[…]]]]]"),
        (nested(2), "[[[]]]"),
        (Hostile(0.25), "0.25"),
        ([Hostile(0.25), HostileInt(7), Classless()], "[0.25, 7, <unprintable Classless object>]"),
        (HostileText("text"), "<unprintable HostileText object>"),
        (TextOfItsOwn(), "shown"),
        (Nameless(), "<unprintable nameless object>"),
    ],
    ids=lambda value: type(value).__mro__[0].__qualname__,
)
def test_hostile_values_spoil_nothing_beside_them(value, text):
    assert value_text(value) == text
    line = line_of(("training", "step"), {"loss": 0.5, "odd": value, "lr": 1}, {"step": 1})
    assert line.text == f"Step 1 | loss=0.5 | odd={text} | lr=1"


def test_hostile_names_and_metadata_spoil_nothing_beside_them():
    line = line_of(("my", "event"), {Classless(): 1, "duration": Classless()}, {"a": Classless()})
    assert line.text == (
        "my.event | <unprintable Classless object>=1 | duration=<unprintable Classless object>"
    )
    line = line_of(("my", "event"), {}, {Classless(): 1, 2: "x"})
    assert line.text == "my.event | <unprintable Classless object>=1 | 2=x"
    assert error_text(Classless()) == "<unprintable Classless object>"


def test_metadata_of_other_types_than_expected():
    severity = {"severity": np.array([1, 2]), "rule": "r"}
    assert line_of(("alert", "raised"), {}, severity).text == "Alert raised ([1, 2]): r"
    failure = {"event_name": ("a", 1), "reason": None}
    text = line_of(("telemetry", "handler", "failure"), {}, failure).text
    assert text == "Handler failed on a.1: None"


def test_escaping():
    assert escape("a\nb\r\t\x1b[31m\x7f\x9b\u2028\u202e\u2066\ud800é漢") == (
        "a\\nb\\r\\t\\x1b[31m\\x7f\\x9b\\u2028\\u202e\\u2066\\ud800é漢"
    )


texts = st.text(st.characters() | st.sampled_from("\n\x1b\x9b\u202e\u2029\ud800"))


@given(
    event=st.lists(texts.filter(bool), min_size=1, max_size=4).map(tuple)
    | st.sampled_from(
        [("training", "step"), ("workflow", "run", "exception"), ("alert", "raised")]
    ),
    measurements=st.dictionaries(texts, texts | st.floats() | st.integers() | st.none()),
    metadata=st.dictionaries(
        texts | st.sampled_from(["step", "workflow", "reason", "rule", "severity", "message"]),
        texts | st.integers() | st.tuples(texts, texts) | st.builds(ValueError, texts),
    ),
)
def test_a_line_is_one_line_without_anything_a_terminal_obeys(event, measurements, metadata):
    text = line_of(event, measurements, metadata).text
    assert len(text) <= 1000
    assert len(text.splitlines()) <= 1
    for character in text:
        assert unicodedata.category(character) not in {"Cc", "Zl", "Zp", "Cs"}
        assert unicodedata.bidirectional(character) not in {
            "RLO",
            "LRO",
            "RLE",
            "LRE",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        }

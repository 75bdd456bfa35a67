"""From an event to what is reported of it."""

import math
import os
import random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from telemetry.metrics import (
    Reporter,
    counter,
    distribution,
    last_value,
    monitoring,
    sum_,
    summary,
    tracking,
)

STEP = ("training", "step")


def values(metrics, measurements, metadata=None, event=STEP):
    samples = Reporter(metrics).samples(event, measurements, metadata or {})
    return {sample.name: sample.value for sample in samples}


def test_each_definition_that_matches_is_reported_in_its_order():
    metrics = [
        summary("training.step.loss", report_as="b"),
        last_value("training.step.loss", report_as="a"),
        counter("training.step.count", report_as="c"),
        last_value("training.epoch.epoch_loss"),
        sum_("training.step.tokens", report_as="d"),
        distribution("training.step.loss", report_as="e"),
    ]
    samples = Reporter(metrics).samples(STEP, {"loss": 2.5, "tokens": 10}, {})
    assert [(s.name, s.metric.kind, s.value) for s in samples] == [
        ("b", "summary", 2.5),
        ("a", "last_value", 2.5),
        ("c", "counter", 1.0),
        ("d", "sum", 10.0),
        ("e", "distribution", 2.5),
    ]


def test_each_definition_has_the_tags_that_it_names_and_no_other():
    metrics = [
        last_value("training.step.loss", tags=["run_id"]),
        last_value("training.step.lr", tags=["user_id", "missing"]),
        last_value("training.step.tokens"),
        counter("training.step.count", tags=["run_id"]),
    ]
    metadata = {"run_id": "a", "user_id": "b"}
    samples = Reporter(metrics).samples(STEP, {"loss": 1.0, "lr": 0.1, "tokens": 5}, metadata)
    assert [sample.tags for sample in samples] == [{"run_id": "a"}, {"user_id": "b"}, {},
                                                   {"run_id": "a"}]  # fmt: skip


def test_a_definition_matches_its_event_and_not_its_extensions():
    metrics = [last_value("my.event.x")]
    assert values(metrics, {"x": 1}, event=("my", "event")) == {"my.event.x": 1}
    assert values(metrics, {"x": 1}, event=("my", "event", "more")) == {}
    assert values(metrics, {"x": 1}, event=("my",)) == {}


def test_a_counter_needs_no_measurement_and_anything_else_does():
    metrics = [counter("my.event.count"), last_value("my.event.x")]
    assert values(metrics, {}, event=("my", "event")) == {"my.event.count": 1}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3.0),
        (True, 1.0),
        (2.5, 2.5),
        (float("inf"), float("inf")),
        (10**400, float("inf")),
        (-(10**400), float("-inf")),
        (np.float32(0.5), 0.5),
        (np.array(4), 4.0),
        (np.array([True])[0], 1.0),
    ],
)
def test_a_measurement_is_a_number(value, expected):
    assert values([last_value("my.e.x")], {"x": value}, event=("my", "e")) == {"my.e.x": expected}


def test_nan_is_kept():
    assert math.isnan(values(tracking(), {"loss": float("nan")})["training.loss"])


@pytest.mark.parametrize(
    "value", ["1", None, np.array([1.0]), np.arange(3), [1], 1j, object(), {"a": 1}]
)
def test_what_is_no_single_number_is_not_reported(value):
    assert values(tracking(), {"loss": value, "lr": 1}) == {"training.lr": 1.0}
    assert values([last_value("training.step.loss")], {"loss": value}) == {}


def test_tensors_are_numbers_if_they_are_single():
    torch = pytest.importorskip("torch")
    measurements = {
        "loss": torch.tensor(0.5, requires_grad=True),
        "lr": torch.tensor(2, dtype=torch.int32),
        "half": torch.tensor(0.25, dtype=torch.bfloat16),
        "norms": torch.ones(2),
        "nowhere": torch.ones((), device="meta"),
    }
    assert values(tracking(), measurements) == {
        "training.loss": 0.5,
        "training.lr": 2.0,
        "training.half": 0.25,
    }


def test_values_are_in_the_reported_unit():
    event = ("custom_loss", "stop")
    for unit, expected in [("s", 1.5), ("ms", 1500), ("ns", 1_500_000_000)]:
        metrics = [summary("custom_loss.stop.duration", unit=unit, report_as="took")]
        took = values(metrics, {"duration": 1_500_000_000}, event=event)["took"]
        assert took == expected


@pytest.mark.parametrize(
    ("given", "measured", "reported", "expected"),
    [
        (5, "us", "s", 5e-06),  # 5 * 1e-06 is 4.9999999999999996e-06
        (3, "ns", "s", 3e-09),
        (55, "percent", "ratio", 0.55),
        (7, "GB", "MB", 7000.0),
        (125, "KiB", "MB", 0.128),
        (2, "h", "min", 120.0),
        (1.5, "ms", "ms", 1.5),
    ],
)
def test_a_converted_value_is_the_nearest_number(given, measured, reported, expected):
    metrics = [last_value("my.e.x", unit=(measured, reported), report_as="x")]
    assert values(metrics, {"x": given}, event=("my", "e")) == {"x": expected}


def test_a_pattern_is_completed_for_each_event_it_matches():
    metrics = [summary("**.duration"), last_value("**.loss")]
    stop = ("custom_loss", "stop")
    assert values(metrics, {"duration": 2_000_000}, event=stop) == {"custom_loss.duration_ms": 2}
    assert values(metrics, {"loss": 1}) == {"training.loss": 1}
    assert values([summary("**.duration", unit="s")], {"duration": 2_000_000}, event=stop) == {
        "custom_loss.duration_s": 0.002
    }
    assert values([summary("**.duration", unit="s")], {"duration": 3}, event=("my", "e")) == {
        "my.e.duration_s": 3
    }


def test_the_rest_is_what_no_definition_names():
    metrics = [last_value("training.step.loss", report_as="l"), last_value("training.step.*")]
    measurements = {"loss": 1, "lr": 2, "x": 3, "monotonic_time": 4, "system_time": 5, 6: 7}
    assert values(metrics, measurements) == {"l": 1, "training.lr": 2, "training.x": 3}
    assert values(metrics, measurements, event=("training", "epoch")) == {}


def test_the_first_definition_of_the_rest_is_taken():
    metrics = [last_value("my.*.*", report_as="my_{measurement}"), last_value("**.*")]
    assert values(metrics, {"x": 1}, event=("my", "e")) == {"my_x": 1}
    assert values(metrics, {"x": 1}, event=("your", "e")) == {"your.e.x": 1}


def test_the_rest_can_have_a_unit():
    metrics = [last_value("my.e.*", unit=("ns", "ms"))]
    assert values(metrics, {"x": 3_000_000, "duration": 1_000_000}, event=("my", "e")) == {
        "my.e.x": 3,
        "my.e.duration_ms": 1,
    }


def test_a_unit_of_the_rest_is_no_label_of_what_has_none():
    metrics = [last_value("my.e.*", unit="s")]
    measurements = {"wait_duration_ms": 1500, "items": 3}
    samples = Reporter(metrics).samples(("my", "e"), measurements, {})
    assert [(s.name, s.value, s.metric.unit) for s in samples] == [
        ("my.e.wait_duration_s", 1.5, "s"),
        ("my.e.items", 3, ""),
    ]
    (wait, _) = Reporter(tracking()).samples(("my", "e"), measurements, {})
    assert (wait.name, wait.value, wait.metric.unit) == ("my.e.wait_duration_ms", 1500, "ms")


def test_a_unit_that_does_not_fit_is_not_forced_on_the_rest():
    metrics = [last_value("performance.sample.*", unit="s")]
    measurements = {"forward_backward_duration_ms": 250, "gpu_memory_used_gb": 40}
    samples = Reporter(metrics).samples(("performance", "sample"), measurements, {})
    assert [(s.name, s.value, s.metric.unit) for s in samples] == [
        ("performance.forward_backward_duration_s", 0.25, "s"),
        ("performance.gpu_memory_used_gb", 40, "GB"),
    ]


def test_templates_name_the_event_the_measurement_and_the_metadata():
    metrics = [last_value("*.eval.*", report_as="{event}/{split}/{measurement}/{missing}")]
    event = ("training", "eval")
    assert values(metrics, {"f1": 1}, {"split": "val", "missing": None}, event) == {
        "training.eval/val/f1/?": 1
    }
    metrics = [last_value("my.stop.x", report_as="{event}")]
    assert values(metrics, {"x": 1}, event=("my", "stop")) == {"my": 1}


def test_braces_are_only_characters_in_names():
    event = ("my{split}", "e}")
    assert values(tracking(), {"{x}": 1}, {"split": "val"}, event) == {"my{split}.e}.{x}": 1}
    metrics = [last_value("my.e.x", report_as="{{event}}:{split}")]
    assert values(metrics, {"x": 1}, {"split": "{v}"}, ("my", "e")) == {"{event}:{v}": 1}


def test_metadata_is_shown_as_text():
    shown = {
        ("layer", "conv1"): "layer/conv1",
        3: "3",
        True: "true",
        0.5: "0.5",
        "é": "é",
        "\ud800": "\\ud800",
        "x" * 300: "x" * 199 + "…",
    }
    for value, text in shown.items():
        metadata = {"key": value}
        metrics = [last_value("my.e.x", report_as="{key}", tags=["key", "missing"])]
        (sample,) = Reporter(metrics).samples(("my", "e"), {"x": 1}, metadata)
        assert (sample.name, sample.tags) == (text, {"key": text})


def test_a_tag_that_the_event_lacks_is_left_out():
    metrics = [last_value("my.e.x", tags=["a", "b"])]
    (sample,) = Reporter(metrics).samples(("my", "e"), {"x": 1}, {"a": None, "b": 0})
    assert sample.tags == {"b": "0"}


def test_events_that_do_not_count_are_left_out():
    def val(metadata):
        return metadata["split"] == "val"

    kept = [last_value("training.eval.*", keep=val), counter("training.eval.n", drop=val)]
    event = ("training", "eval")
    assert values(kept, {"f1": 1}, {"split": "val"}, event) == {"val.f1": 1}
    assert values(kept, {"f1": 1}, {"split": "test"}, event) == {"test.n": 1}


def test_what_a_predicate_raises_is_the_callers_to_see():
    metrics = [last_value("training.step.loss", keep=lambda metadata: metadata["split"])]
    with pytest.raises(KeyError):
        Reporter(metrics).samples(STEP, {"loss": 1}, {})


def test_a_sampling_rate_keeps_its_share_and_totals_stay_right_on_average():
    n = 20_000
    metrics = [
        counter("my.e.count", sampling_rate=0.25),
        sum_("my.e.tokens", sampling_rate=0.25),
        summary("my.e.loss", sampling_rate=0.25),
        last_value("my.e.lr"),
    ]
    reporter = Reporter(metrics)
    reporter._random.seed(7)
    found = {}
    for _ in range(n):
        for s in reporter.sampled(("my", "e"), {"tokens": 3, "loss": 5, "lr": 1}, {}):
            found.setdefault(s.name, []).append(s.value)
    assert len(found["my.e.lr"]) == n
    for name, value in {"my.e.count": 4, "my.e.tokens": 12, "my.e.loss": 5}.items():
        assert set(found[name]) == {value}
        assert len(found[name]) == pytest.approx(n / 4, abs=4 * math.sqrt(n * 3 / 16))
    assert found["my.e.count"] != found["my.e.loss"][: len(found["my.e.count"])]


def test_sampling_is_left_to_a_sink_that_does_it_itself():
    metrics = [counter("my.e.count", sampling_rate=0.001)]
    reporter = Reporter(metrics)
    assert [len(reporter.samples(("my", "e"), {}, {})) for _ in range(50)] == [1] * 50
    assert reporter.samples(("my", "e"), {}, {})[0].metric.sampling_rate == 0.001


def test_a_users_seeded_dice_are_not_thrown():
    random.seed(3)
    expected = [random.random() for _ in range(2)]
    random.seed(3)
    reporter = Reporter([counter("my.e.count", sampling_rate=0.5)])
    found = []
    for _ in range(2):
        found.append(random.random())
        reporter.sampled(("my", "e"), {}, {})
    assert found == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_the_dice_of_a_forked_child_fall_differently():
    reporter = Reporter([counter("my.e.count", sampling_rate=0.5)])

    def falls():
        return bytes(len(reporter.sampled(("my", "e"), {}, {})) for _ in range(128))

    falls()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, falls())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 128) != falls()
    os.close(reading)
    os.close(writing)


def test_a_reduced_value_is_read_under_its_own_key():
    metrics = [
        last_value("training.step.loss", reduce="mean", report_as="mean"),
        last_value("training.step.loss", reduce="max", report_as="max"),
        last_value("training.step.loss", report_as="own"),
        last_value("training.step.*"),
    ]
    measurements = {"loss": 1, "loss@mean": 2, "loss@max": 3, "loss@ranks": 4, "recall@10": 0.5}
    assert values(metrics, measurements) == {
        "mean": 2,
        "max": 3,
        "own": 1,
        "training.recall@10": 0.5,
    }


def test_where_nobody_reduced_it_is_the_events_own_value():
    metrics = [last_value("training.step.loss", reduce="mean")]
    assert values(metrics, {"loss": 1}) == {"training.loss": 1}
    assert values(metrics, {}) == {}


def test_a_reduced_value_that_no_rank_had_is_none():
    metrics = [last_value("training.step.loss", reduce="mean")]
    nan = float("nan")
    assert values(metrics, {"loss@mean": nan, "loss@ranks": np.array(0)}) == {}
    assert values(metrics, {"loss@mean": 2.0, "loss@ranks": 1}) == {"training.loss": 2}


def test_measurements_with_an_at_sign_are_measurements():
    assert values(tracking(), {"recall@10": 0.5, "loss@mean": 1}) == {
        "training.recall@10": 0.5,
        "training.loss@mean": 1,
    }


def test_names_without_end_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr("telemetry.metrics.reporter.MAX_PLANS", 3)
    reporter = Reporter(tracking())
    for n in range(10):
        (sample,) = reporter.samples(("my", str(n)), {"x": 1}, {})
        assert sample.name == f"my.{n}.x"
        assert len(reporter._plans) <= 3
    for n in range(10):
        (sample,) = reporter.samples(("my", "e"), {f"x{n}": 1}, {})
        assert sample.name == f"my.e.x{n}"
    assert len(reporter._plans[("my", "e")].expanded) <= 3


class Hostile:
    """Fails whatever is asked of it, but for the repr that hypothesis shows."""

    def fail(self, *arguments):
        raise RuntimeError("no")

    __str__ = __float__ = __int__ = __index__ = __iter__ = __len__ = __bool__ = fail
    __array__ = numpy = item = tolist = fail


class Unspeakable(Hostile):
    __repr__ = Hostile.fail


def test_what_has_no_text_at_all_has_one_here():
    metrics = [last_value("my.e.x", report_as="{key}")]
    assert values(metrics, {"x": 1}, {"key": Unspeakable()}, ("my", "e")) == {
        "<unprintable Unspeakable object>": 1
    }


class Silent:
    """Its text is none."""

    def __str__(self):
        return 7  # noqa: PLE0307 -- being wrong is what it is for


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(), max_size=8)
    | st.binary(max_size=4)
    | st.builds(Hostile)
    | st.builds(Silent)
    | st.just(np.array(["a"]))
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
segments = st.text(st.characters(exclude_characters=".*"), min_size=1, max_size=6)
events = st.lists(segments, min_size=1, max_size=3).map(tuple) | st.sampled_from(
    [STEP, ("training", "eval"), ("smartclip", "clip", "group"), ("custom_loss", "stop")]
)
keys = st.text(max_size=6) | st.sampled_from(["loss", "key", "split", "run_id", "duration"])


@given(
    events,
    st.dictionaries(keys | st.integers(), anything, max_size=4),
    st.dictionaries(keys | st.none(), anything, max_size=4),
)
@example(STEP, {"loss": 1}, {"run_id": Hostile(), "split": Silent()})
@example(("a{", "}b"), {"{}": 1, "\ud800": 2}, {})
@example(("training", "eval"), {"x": 1}, {"split": [Hostile()]})
def test_whatever_is_emitted_the_samples_are_numbers_and_text(event, measurements, metadata):
    named = [
        last_value("**.loss", tags=["key", "split"], report_as="{key}:{measurement}:{event}"),
        sum_("**.duration", unit="s"),
        counter("**.count"),
    ]
    for metrics in (tracking(), monitoring(), named, tracking(*named)):
        for sample in Reporter(metrics).sampled(event, measurements, metadata):
            assert type(sample.value) is float
            texts = [sample.name, *sample.tags, *sample.tags.values()]
            assert all(text.encode("utf-8") for text in texts if text)


@pytest.mark.parametrize(
    ("event", "reported"),
    [
        (("my", "span", "start"), False),
        (("my", "span", "exception"), False),
        (("my", "span", "stop"), True),
        (("training", "step"), True),
    ],
)
def test_a_reporter_says_of_which_events_it_reports(event, reported):
    assert Reporter(tracking()).reports(event) is reported


def test_a_named_measurement_of_a_start_is_reported():
    reporter = Reporter([last_value("my.span.start.size")])
    assert reporter.reports(("my", "span", "start"))
    (sample,) = reporter.samples(("my", "span", "start"), {"size": 3, "other": 4}, {})
    assert (sample.name, sample.value) == ("my.span.start.size", 3.0)

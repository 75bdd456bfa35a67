"""Mistakes in definitions of what is reported fail where they are made, in words."""

import pytest

from telemetry import metrics
from telemetry.metrics import check_metrics, counter, distribution, last_value, summary

UNITS = (
    "Within each of these, any can be converted to any other: ns, us, ms, s, min, h; bytes, kB, "
    "MB, GB, KiB, MiB, GiB; percent, ratio."
)


def fails(error, text, define, *arguments, **options):
    with pytest.raises(error) as caught:
        define(*arguments, **options)
    assert str(caught.value) == text


def test_a_name_without_a_measurement_is_refused():
    more = "names no measurement. Write the event, then the measurement:"
    for define, name, example in [
        (last_value, "training.step", "training.step.loss"),
        (counter, "training.step", "training.step.count"),
        (last_value, "loss", "loss.loss"),
        (last_value, "", "training.step.loss"),
        (last_value, "training..loss", "training.step.loss"),
        (summary, "training.step.", "training.step.loss"),
    ]:
        fails(ValueError, f"Metric {name!r} {more} {example!r}.", define, name)


def test_a_name_that_is_no_string_is_refused():
    fails(
        TypeError,
        "Metric name must be a string, got ('training', 'step', 'loss') (tuple). "
        "Write 'training.step.loss': the event, then the measurement.",
        last_value,
        ("training", "step", "loss"),
    )


def test_wildcards_are_whole_segments():
    rest = "Allowed: a name, or * for all that no definition names."
    fails(ValueError, f"Metric 'a.b.**' ends in '**'. {rest}", last_value, "a.b.**")
    fails(ValueError, f"Metric 'a.b.lo*' ends in 'lo*'. {rest}", last_value, "a.b.lo*")
    fails(ValueError, "Metric 'a.b.*' ends in '*'. Allowed: a name.", counter, "a.b.*")
    fails(
        ValueError,
        "Metric '**.step.loss': Event pattern ('**', 'step') has '**' before its end. "
        "'**' is allowed as the last segment only; use '*' for any one segment.",
        last_value,
        "**.step.loss",
    )


def test_a_kind_or_an_option_that_does_not_exist_is_refused():
    with pytest.raises(AttributeError):
        metrics.histogram  # noqa: B018 -- reading it is the test
    fails(
        TypeError,
        "Metric 'training.step.loss' has no option 'tag'. Allowed: report_as, tags, unit, "
        "description, keep, drop, sampling_rate, reduce.",
        last_value,
        "training.step.loss",
        tag=["run_id"],
    )


@pytest.mark.parametrize("option", [{"unit": "ms"}, {"reduce": "sum"}])
def test_a_counter_has_neither_unit_nor_reduction(option):
    (name,) = option
    fails(
        ValueError,
        f"Counter 'training.step.count' cannot have {name!r}: it counts events.",
        counter,
        "training.step.count",
        **option,
    )


@pytest.mark.parametrize(
    ("name", "unit", "text"),
    [
        ("custom_loss.stop.duration", "bytes", f"Cannot convert 'ns' to 'bytes'. {UNITS}"),
        (
            "custom_loss.stop.duration",
            "milliseconds",
            f"Cannot convert 'ns' to 'milliseconds'. {UNITS}",
        ),
        ("my.event.x", ("ms", "parsecs"), f"Cannot convert 'ms' to 'parsecs'. {UNITS}"),
    ],
)
def test_a_unit_that_cannot_be_converted_is_refused(name, unit, text):
    fails(ValueError, f"Metric {name!r}: {text}", last_value, name, unit=unit)


@pytest.mark.parametrize(
    ("option", "value", "error", "text"),
    [
        (
            "unit",
            7,
            TypeError,
            "unit must be a string or a pair of strings (measured in, reported in), got 7 (int).",
        ),
        ("report_as", 7, TypeError, "report_as must be a string, got 7 (int)."),
        ("report_as", "", ValueError, "report_as must not be empty. Leave it out instead."),
        ("description", None, TypeError, "description must be a string, got None (NoneType)."),
        (
            "tags",
            "run_id",
            TypeError,
            "tags must be a list of keys of the metadata, got 'run_id'. Write tags=['run_id'].",
        ),
        (
            "tags",
            [1],
            TypeError,
            "tags must be a list of keys of the metadata, got [1]. Write tags=['run_id'].",
        ),
        ("tags", [""], ValueError, "tags must not have an empty key, got ['']."),
        (
            "unit",
            "",
            ValueError,
            "the reported unit must not be empty, got unit=''. Leave unit out instead.",
        ),
        (
            "unit",
            ("ms", ""),
            ValueError,
            "the reported unit must not be empty, got unit=('ms', ''). Leave unit out instead.",
        ),
        ("keep", 1, TypeError, "keep must be a plain function of the metadata, got 1 (int)."),
        (
            "sampling_rate",
            "half",
            TypeError,
            "sampling_rate must be a number, got 'half' (str). Allowed: more than 0, at most 1.",
        ),
        (
            "sampling_rate",
            0,
            ValueError,
            "sampling_rate must be more than 0 and at most 1, got 0.",
        ),
        (
            "sampling_rate",
            1.5,
            ValueError,
            "sampling_rate must be more than 0 and at most 1, got 1.5.",
        ),
        (
            "sampling_rate",
            float("nan"),
            ValueError,
            "sampling_rate must be more than 0 and at most 1, got nan.",
        ),
        (
            "reduce",
            "median",
            ValueError,
            "reduce must be one of ('mean', 'sum', 'max', 'min'), got 'median'.",
        ),
    ],
)
def test_a_bad_option_is_refused(option, value, error, text):
    name = "training.step.loss"
    fails(error, f"Metric {name!r}: {text}", last_value, name, **{option: value})


async def later(metadata):
    return True


@pytest.mark.parametrize("predicate", [later, lambda: True, lambda metadata, measurements: True])
@pytest.mark.parametrize("option", ["keep", "drop"])
def test_a_predicate_that_could_not_be_asked_is_refused(option, predicate):
    fails(
        TypeError,
        f"Metric 'training.step.loss': {option} must be a plain function of the metadata, got "
        f"{predicate!r} (function).",
        last_value,
        "training.step.loss",
        **{option: predicate},
    )


def test_keep_and_drop_exclude_each_other():
    fails(
        ValueError,
        "Metric 'training.step.loss' has both keep and drop. Give one of them.",
        last_value,
        "training.step.loss",
        keep=bool,
        drop=bool,
    )


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("{split!r}.loss", "{split!r}"),
        ("{split:>5}.loss", "{split}"),
        ("{}.loss", "{}"),
        ("{0}.loss", "{0}"),
        ("{a.b}", "{a.b}"),
        ("{a[0]}", "{a[0]}"),
        ("{loss", "expected '}' before end of string"),
        ("loss}", "Single '}' encountered in format string"),
    ],
)
def test_a_template_has_nothing_but_names_in_its_braces(template, shown):
    fails(
        ValueError,
        f"Metric 'training.eval.loss': report_as={template!r} is no template ({shown}). Allowed in "
        "braces: event, measurement and keys of the metadata, such as '{split}.{measurement}'.",
        last_value,
        "training.eval.loss",
        report_as=template,
    )


@pytest.mark.parametrize(
    "buckets", [[1, 1], [2, 1], [0, float("inf")], ["a"], "12", 5, [None], [True, 2]]
)
def test_buckets_that_are_none_are_refused(buckets):
    fails(
        ValueError,
        "Metric 'rl.step.entropy': buckets must be a list of finite numbers, each above the one "
        f"before, got {buckets!r}.",
        distribution,
        "rl.step.entropy",
        buckets=buckets,
    )


def test_what_can_differ_between_ranks_cannot_be_reduced():
    fails(
        ValueError,
        "Metric 'training.step.*' cannot be reduced over ranks: what '*' stands for can differ "
        "between them. Name the measurement.",
        last_value,
        "training.step.*",
        reduce="mean",
    )


def test_what_one_rank_alone_emits_cannot_be_reduced():
    name = "telemetry.handler.overflow.dropped"
    fails(
        ValueError,
        f"Metric {name!r} cannot be reduced over ranks: the bus emits the event on the rank that "
        "it is about, and on no other. Leave out reduce.",
        last_value,
        name,
        reduce="sum",
    )


def test_definitions_are_given_as_a_list():
    loss = last_value("training.step.loss")
    assert check_metrics([loss]) == check_metrics(iter((loss,))) == (loss,)
    assert check_metrics([]) == ()
    hint = "Write metrics=[telemetry.metrics.last_value('training.step.loss')]."
    for wrong, shown in [(None, "None (NoneType)"), ("loss", "'loss' (str)"), (7, "7 (int)")]:
        fails(
            TypeError,
            f"metrics must be a list of definitions, got {shown}. {hint}",
            check_metrics,
            wrong,
        )
    fails(
        TypeError,
        f"metrics must be a list of definitions, got {loss!r} (Metric). {hint}",
        check_metrics,
        loss,
    )
    fails(
        TypeError,
        "metrics has 'training.step.loss' (str), which is no definition. "
        "Allowed: counter, last_value, sum_, summary, distribution of telemetry.metrics.",
        check_metrics,
        ["training.step.loss"],
    )

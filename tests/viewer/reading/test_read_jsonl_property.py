"""`read_jsonl` equals a plain reading in Python, whatever a file holds."""

import gzip
import json
import math
import string
import warnings
from collections import Counter
from datetime import UTC, datetime
from itertools import combinations

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.metrics import Reporter, tracking
from telemetry.values import restore_number
from telemetry.viewer.frames.frame import read_jsonl
from telemetry.viewer.logs.bad_lines import BadLinesWarning

PLACES = {"step", "global_step", "epoch", "total_steps", "total_epochs", "timestamp", "time", "ts"}
PLACES |= {"_timestamp", "_type", "event", "attempt", "rank", "batch", "batch_idx"}
RESERVED = {"run", "timestamp", "event", "step", "epoch", "record"}

# The plain reading


def first_wins(pairs):
    return dict(reversed(pairs))


def record_of(line):
    """The object of a line; None for a blank one. Raises ValueError for what is none."""
    text = line.strip(b" \t\r").decode("utf-8")
    if not text:
        return None
    record = json.loads(text, object_pairs_hook=first_wins)
    json.dumps(record, ensure_ascii=False).encode("utf-8")  # no lone surrogates
    if not isinstance(record, dict):
        raise ValueError("no object")  # noqa: TRY004 -- as json's own
    return record


def number_of(value):
    value = restore_number(value)
    return float(value) if isinstance(value, int | float) else None


def reported(record):
    event, measurements = record["event"], record["measurements"]
    metadata = record.get("metadata")
    reporter = Reporter(tracking())
    for key, value in measurements.items():
        if key and number_of(value) is not None:
            one = {key: number_of(value)}
            known = metadata if isinstance(metadata, dict) else {}
            for sample in reporter.samples(tuple(event.split(".")), one, known):
                yield sample.name, sample.value


def flat(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            if key:
                yield from flat(inner, (*path, key))
    elif path and number_of(value) is not None:
        yield path, number_of(value)


def foreign(record):
    metrics = record.get("metrics")
    if isinstance(metrics, dict):
        found = flat(metrics)
    elif isinstance(record.get("metric"), str):
        found = flat({record["metric"]: record.get("value")})
    else:
        found = ((path, value) for path, value in flat(record) if path[0] not in PLACES)
    for path, value in sorted(found, reverse=True):  # of one name the first path counts
        name = ".".join(path).replace("/", ".")
        yield f"metrics.{name}" if name in RESERVED else name, value


def is_ours(record):
    return isinstance(record.get("event"), str) and isinstance(record.get("measurements"), dict)


def axis_of(record, key):
    inner = record.get("metadata") if is_ours(record) else record
    value = inner.get(key) if isinstance(inner, dict) else None
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else math.nan


def attempt_of(record):
    inner = record.get("metadata") if is_ours(record) else record
    return (inner.get("attempt") or 0) if isinstance(inner, dict) else 0


def start_of(rows):
    """The lowest step of an attempt, its first (epoch, step), and whether steps go back."""
    counts = Counter(event for event, *_ in rows)
    lead = max(counts, key=lambda event: (event == "training.step", counts[event], event))
    places = [(epoch // 1, step) for event, step, epoch, *_ in rows if event == lead]
    told = sorted(place for place in places if not math.isnan(place[0]))
    back = any(a[0] < b[0] and a[1] > b[1] for a, b in combinations(told, 2))
    return min(step for _, step in places), told[0] if told else None, back


def current(rows):
    """The rows without those that a later attempt has made anew."""
    stepped = [row for row in rows if not math.isnan(row[1])]
    starts = {n: start_of([row for row in stepped if row[4] == n]) for n in {r[4] for r in stepped}}
    begins_anew = any(back for *_, back in starts.values())

    def is_made_anew(_event, step, epoch, _time, attempt, _metrics):
        later = [start for number, start in starts.items() if number > attempt]
        if not later or math.isnan(step):
            return False
        if math.isnan(epoch) or any(told is None for _, told, _ in later):
            return step >= min(start for start, *_ in later)
        first = min(told for _, told, _ in later)
        if epoch // 1 < first[0]:
            return False
        if begins_anew:
            return (epoch // 1, step) >= first
        return step >= min(start for start, *_ in later)

    return [row for row in rows if not is_made_anew(*row)]


def time_of(record):
    text = record.get("timestamp")
    if text is None:
        return pd.NaT
    moment = datetime.fromisoformat(text)
    return pd.Timestamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def read_plainly(data):
    """Events, steps, epochs, times, attempts and metrics of each record that is current.

    And how many lines are none.
    """
    rows, bad = [], 0
    for line in data.split(b"\n"):
        try:
            record = record_of(line)
        except ValueError:
            bad += 1
            continue
        if record is not None:
            event = record["event"] if is_ours(record) else record.get("event", "")
            metrics = dict(reported(record) if is_ours(record) else foreign(record))
            axes = axis_of(record, "step"), axis_of(record, "epoch"), time_of(record)
            rows.append((event, *axes, attempt_of(record), metrics))
    return current(rows), bad


# What files hold

WORDS = ["loss", "Loss", "LOSS", "lr", "grad_norm", "train/loss", "train.loss", "val/acc", "a b"]
WORDS += [
    "",
    "日本",
    "é",
    'a"b',
    "a'b",
    "a\\b",
    "a~b",
    "a/b",
    "$",
    "*",
    "$.x",
    "a[0]",
    "\x00",
    "\x1b[",
]
WORDS += ["x; DROP TABLE records --", "' OR 1=1", "rowid", "source", "form", "run", "event", "step"]
WORDS += ["record", "metric0", "detail0", "metadata.event"]
WORDS += ["duration", "wait_duration_ms", "NULL", "select", "\u2028", "\U0001f600"]
keys = st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
plain_keys = st.text(string.ascii_lowercase, min_size=1, max_size=3)
numbers = (
    st.integers(-5, 5)
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.booleans()
    | st.sampled_from(["NaN", "Infinity", "-Infinity", str(2**70), str(-(2**70)), 5e-324, 1e308])
)
others = st.sampled_from([None, "", "12", "1e5", "nan", "hello", " 5 ", [], [1, 2], {}, "x" * 5000])
nested = st.recursive(numbers | others, lambda inner: st.dictionaries(keys, inner, max_size=2))
steps = st.integers(0, 2**53) | st.floats(0, 1e6) | st.none() | st.sampled_from(["7", True])
steps |= st.integers(0, 9) | st.sampled_from([math.inf, -math.inf, "Infinity", "-Infinity", "NaN"])
attempts = st.integers(1, 3)
times = st.none() | st.sampled_from(
    ["2026-11-21T10:30:00.123456Z", "2026-11-21T10:30:00+02:00", "2026-11-21T10:30:00"]
)
metadata = st.dictionaries(plain_keys, numbers | others, max_size=2).flatmap(
    lambda more: st.fixed_dictionaries(
        {},
        optional={
            "step": steps,
            "epoch": steps,
            "attempt": attempts,
            "split": st.sampled_from(["val", "te/st", 3]),
        },
    ).map(lambda placed: more | placed)
)
events = st.sampled_from(
    [
        "training.step",
        "training.eval",
        "my.batch.stop",
        "my.batch",
        "custom_loss.stop",
        "a'b",
        "é",
        "smartclip.clip.group",
        "performance.operation.stop",
        "training.step.start",
    ]
)
ours = st.fixed_dictionaries(
    {"event": events, "measurements": st.dictionaries(keys, numbers | others, max_size=4)},
    optional={"timestamp": times, "metadata": metadata | st.none() | st.just([1])},
)
placed = st.fixed_dictionaries(
    {}, optional={"step": steps, "epoch": steps, "attempt": attempts, "timestamp": times}
)
foreigners = st.builds(
    lambda place, form: place | form,
    placed,
    st.fixed_dictionaries({"metrics": st.dictionaries(keys, nested, max_size=3)})
    | st.fixed_dictionaries({"metric": keys, "value": numbers | others})
    | st.dictionaries(keys.filter(lambda key: key not in PLACES), nested, max_size=3),
)
lines = st.builds(
    lambda record, ascii_only, spaces: json.dumps(
        record, ensure_ascii=ascii_only, separators=(", ", ": ") if spaces else (",", ":")
    ).encode(),
    ours | foreigners,
    st.booleans(),
    st.booleans(),
)
GARBAGE = [
    b"",
    b"  ",
    b"\t",
    b"\r",
    b"null",
    b"5",
    b"[1]",
    b'"x"',
    b"{",
    b'{"a":1}}',
    b"{'a':1}",
    b"\x01",
]
GARBAGE += [
    b"\xff\xfe",
    b'{"a":"\xff"}',
    b'{"a":"\\ud800"}',
    b'{"a":"\x01"}',
    b"\x00",
    b'{"a":1}{"b":2}',
]
GARBAGE += [
    b"a,b,c",
    b'"a","b"',
    b"-- x",
    b"\x0c",
    b"\xc2\xa0",
    b'{"loss":1,"loss":2}',
    b'{"a":\x00}',
]
contents = st.builds(
    lambda parts, end, torn: end.join(parts)[: -torn or None],
    st.lists(lines | lines | st.sampled_from(GARBAGE), max_size=30),
    st.sampled_from([b"\n", b"\r\n"]),
    st.sampled_from([0, 0, 1, 3, 10]),
)


def count_bad(caught):
    texts = [str(one.message) for one in caught if one.category is BadLinesWarning]
    if not texts:
        return 0
    (text,) = texts
    which = text.partition("no record in line")[2].removeprefix("s").partition(" (")[0]
    named, _, more = which.partition(" and ")
    return len(named.split(",")) + int(more.removesuffix(" more").replace(",", "") or 0)


def same(one, other):
    return one == other or (math.isnan(one) and math.isnan(other))


@settings(max_examples=60)
@given(data=contents)
def test_it_equals_a_plain_reading(tmp_path_factory, data):
    log = tmp_path_factory.mktemp("log") / "log.jsonl"
    log.write_bytes(data)
    check(log, data)


@settings(max_examples=15)
@given(data=contents)
def test_it_does_so_from_gzip(tmp_path_factory, data):
    log = tmp_path_factory.mktemp("log") / "log.jsonl.gz"
    log.write_bytes(gzip.compress(data, 1))
    check(log, data)


def check(log, data):
    rows, bad = read_plainly(data)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = read_jsonl(log)

    assert count_bad(caught) == bad
    assert list(frame["event"]) == [event for event, *_ in rows]
    assert set(frame["run"]) <= {"log"}
    for name, place in (("step", 1), ("epoch", 2)):
        assert all(map(same, frame[name], [float(row[place]) for row in rows]))
    assert [moment.value for moment in frame["timestamp"]] == [row[3].value for row in rows]
    names = {name for *_, metrics in rows for name in metrics}
    assert set(frame.attrs["metrics"]) == names
    for name in names:
        expected = [metrics.get(name, math.nan) for *_, metrics in rows]
        assert all(map(same, frame[name], expected)), (name, list(frame[name]), expected)

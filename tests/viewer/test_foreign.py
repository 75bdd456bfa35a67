"""Records of other programs say the same as events and as rows of a frame."""

import json
import math

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from telemetry.viewer.frames.frame import read_jsonl
from telemetry.viewer.logs.entries import read_entries
from telemetry.viewer.logs.foreign import PLACES

NO_PLACES = {"_type", "event", "attempt"}  # of attempts the frame leaves rows out
WORDS = ["loss", "train/loss", "train", "val", "acc.top1", "step", "run", "metrics", "a b", "", "é"]
keys = st.sampled_from(WORDS) | st.text("abc/.", max_size=3)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
numbers |= st.booleans() | st.sampled_from(["NaN", "Infinity", "-Infinity", str(2**70)])
others = st.sampled_from([None, "", "12", "hello", [], [1, 2], {}])
values = st.recursive(numbers | others, lambda inner: st.dictionaries(keys, inner, max_size=3))
places = st.dictionaries(st.sampled_from(sorted(PLACES - NO_PLACES)), st.integers(0, 99))
records = st.builds(
    lambda place, form: place | form,
    places,
    st.fixed_dictionaries({"metrics": st.dictionaries(keys, values, max_size=3)})
    | st.fixed_dictionaries({"metric": keys, "value": values})
    | st.fixed_dictionaries({"metric": keys})
    | st.fixed_dictionaries({"measurements": st.dictionaries(keys, values, max_size=2)})
    | st.dictionaries(keys, values, max_size=3),
)


def same(one, other):
    return one == other or (math.isnan(one) and math.isnan(other))


@settings(max_examples=25, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.lists(records, min_size=1, max_size=12))
def test_what_is_measured_is_what_the_frame_has(tmp_path_factory, written):
    log = tmp_path_factory.mktemp("log") / "log.jsonl"
    log.write_text("".join(f"{json.dumps(record)}\n" for record in written))
    frame = read_jsonl(log)
    entries = list(read_entries(log))
    assert len(entries) == len(frame) == len(written)
    names = {name for entry in entries for name in entry.measurements}
    assert names == set(frame.attrs["metrics"])
    for number, entry in enumerate(entries):
        measured = {name: float(entry.measurements.get(name, math.nan)) for name in names}
        assert all(same(value, frame[name][number]) for name, value in measured.items())


@pytest.mark.parametrize("before", ["", '{"val/loss": 9, "val.loss": 9}\n'])
@pytest.mark.parametrize(
    ("record", "loss"),
    [
        ('{"metrics": {"val/loss": 1, "val.loss": 2}}', 2),
        ('{"val.loss": 2, "val/loss": 1, "val": {"loss": 3}}', 3),
        ('{"val/loss": 1, "val.loss": "none", "val": {"loss": null}}', 1),
    ],
)
def test_of_several_spellings_of_a_name_both_take_the_same(tmp_path, before, record, loss):
    """Whatever was written before: nested keys count first, then dots, then slashes."""
    log = tmp_path / "log.jsonl"
    log.write_text(before + record)
    assert list(read_jsonl(log)["val.loss"])[-1] == loss
    assert list(read_entries(log))[-1].measurements == {"val.loss": loss}


def test_both_read_a_first_record_behind_a_mark_of_byte_order(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_bytes(b'\xef\xbb\xbf{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 1.5}\n')
    assert list(read_jsonl(log)["loss"]) == [2.5, 1.5]
    assert [entry.measurements["loss"] for entry in read_entries(log)] == [2.5, 1.5]

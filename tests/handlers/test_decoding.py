"""A line of JSON becomes the event that it was written from."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.decoding import decode
from handlers.encoding import encode
from telemetry import SpanContext

STEP = ("training", "step")
WHOLE = '{"timestamp":"%s","event":%s,"measurements":%s,"metadata":%s}'


def line(timestamp="2026-11-21T10:30:00.123456Z", event='"a.b"', measurements="{}", metadata="{}"):
    return WHOLE % (timestamp, event, measurements, metadata)


def test_numbers_that_json_does_not_have_are_numbers_again():
    event = decode(
        line(measurements='{"a":"NaN","b":["Infinity",1,"-Infinity"],"c":"text","d":null,"e":2.5}')
    )
    assert math.isnan(event.measurements["a"])
    assert event.measurements["b"] == [math.inf, 1, -math.inf]
    assert event.measurements["c"] == "text"
    assert event.measurements["d"] is None
    assert event.measurements["e"] == 2.5


def test_metadata_are_left_as_they_are():
    assert decode(line(metadata='{"name":"NaN","n":[1]}')).metadata == {"name": "NaN", "n": [1]}


def test_a_span_has_its_place_in_the_tree_again():
    context = SpanContext(2**64 - 1, 255, 7)
    written = encode(0, STEP, {}, {"telemetry_span_context": context})
    found = decode(written).metadata["telemetry_span_context"]
    assert found == context
    assert type(found) is SpanContext
    root = encode(0, STEP, {}, {"telemetry_span_context": SpanContext(1, None, 1)})
    assert decode(root).metadata["telemetry_span_context"] == SpanContext(1, None, 1)


@pytest.mark.parametrize("number", [2**63, -(2**70), 10**100])
def test_an_integer_of_more_than_64_bits_is_a_number_again(number):
    assert decode(encode(0, STEP, {"n": number, "l": [number]}, {})).measurements == {
        "n": number,
        "l": [number],
    }


@pytest.mark.parametrize("text", ["0" * 20, "1.5e300", "12345678901234567890x", "9" * 5000])
def test_a_text_that_is_no_such_integer_stays_one(text):
    assert decode(line(measurements=f'{{"x":"{text}"}}')).measurements == {"x": text}


@pytest.mark.parametrize("ids", [("0", "1"), ("-5", "1"), ("1", "f" * 17), ("1", "0")])
def test_a_span_whose_numbers_no_span_has_is_left_as_it_is(ids):
    span, trace = ids
    written = f'{{"span_id":"{span}","parent_id":null,"trace_id":"{trace}"}}'
    found = decode(line(metadata=f'{{"telemetry_span_context":{written}}}')).metadata
    assert found == {
        "telemetry_span_context": {"span_id": span, "parent_id": None, "trace_id": trace}
    }


@pytest.mark.parametrize("levels", [100, 101])
def test_what_is_nested_too_deeply_is_refused(levels):
    """The mapping itself is one of the levels."""
    deep = "[" * (levels - 1) + "]" * (levels - 1)
    text = line(measurements=f'{{"x":{deep}}}')
    if levels == 100:
        decode(text)
    else:
        with pytest.raises(ValueError, match="'measurements' is nested deeper than 100 levels"):
            decode(text)


@pytest.mark.parametrize("other", ['"mine"', '{"span_id":"x"}', "[1]", "null"])
def test_a_span_context_of_another_form_is_left_as_it_is(other):
    import json

    metadata = decode(line(metadata=f'{{"telemetry_span_context":{other}}}')).metadata
    assert metadata == {"telemetry_span_context": json.loads(other)}


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("2026-11-21T10:30:00.123456Z", 1795257000123456000),
        ("2026-11-21T11:30:00.123456+01:00", 1795257000123456000),
        ("1970-01-01T00:00:00.000001Z", 1000),
    ],
)
def test_the_time_is_exact_to_the_microsecond(text, time_ns):
    assert decode(line(timestamp=text)).time_ns == time_ns


def test_a_time_that_is_known_better_wins():
    assert decode(line(), time_ns=1795257000123456789).time_ns == 1795257000123456789


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "no JSON object, but list"),
        (line(event="5"), "'event' is no name of an event: 5"),
        (line(event='"a..b"'), "'event' is no name of an event: 'a..b'"),
        (line(event='"a.*"'), "'event' is no name of an event: 'a.*'"),
        (line(event='""'), "'event' is no name of an event: ''"),
        (line(measurements="[]"), "'measurements' is no object"),
        (line(metadata="5"), "'metadata' is no object"),
        (line(timestamp="yesterday"), "'timestamp' is no time with its zone: 'yesterday'"),
        (line(timestamp="1969-12-31T23:59:59Z"), "its time is not between 1970 and 2262"),
        (
            line(timestamp="2026-11-21T10:30:00"),
            "'timestamp' is no time with its zone: '2026-11-21T10:30:00'",
        ),
    ],
)
def test_what_is_no_event_is_refused(text, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- the whole message is compared
        decode(text)
    assert str(caught.value) == message


def test_what_is_no_json_is_refused():
    with pytest.raises(ValueError, match="unexpected"):
        decode("{")


names = st.lists(st.text("abcä_/ -", min_size=1), min_size=1, max_size=3).map(tuple)
texts = st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1) | st.booleans()
plain = st.none() | texts | st.integers(-(2**63), 2**63 - 1) | st.lists(texts)
moments = st.integers(0, 2**62).map(lambda time_ns: time_ns - time_ns % 1000)


@given(
    moments,
    names,
    st.dictionaries(texts, numbers | st.lists(numbers)),
    st.dictionaries(texts.filter(lambda key: key != "telemetry_span_context"), plain),
)
def test_what_was_written_is_read(time_ns, event, measurements, metadata):
    assert decode(encode(time_ns, event, measurements, metadata)) == (
        time_ns,
        event,
        measurements,
        metadata,
    )

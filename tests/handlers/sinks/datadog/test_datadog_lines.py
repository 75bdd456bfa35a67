"""The lines of a series that differ in the value only, beside those that the client writes."""

import math
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.datadog_statements import Point
from handlers.dogstatsd import LATE_NS, DogStatsdLines

KIND = st.sampled_from(["gauge", "count", "histogram", "distribution", "timing"])
NAME = st.from_regex(r"[a-z][a-z0-9_.]{0,8}", fullmatch=True)
TAG = st.from_regex(r"[a-zé][a-z0-9_:./é-]{0,8}", fullmatch=True)
VALUE = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
SERIES = st.tuples(KIND, NAME, st.lists(TAG, max_size=3).map(tuple))


def by_the_client(point):
    """A client that has written no line before."""
    return DogStatsdLines("A test", 8192).lines(point)


@settings(max_examples=200, deadline=None)
@given(series=SERIES, values=st.lists(VALUE, min_size=2, max_size=4))
def test_a_later_point_has_the_line_that_the_client_would_write(series, values):
    lines = DogStatsdLines("A test", 8192)
    for value in values:
        point = Point(*series[:2], value, series[2], 1.0, time.time_ns())
        assert lines.lines(point) == by_the_client(point)


def test_series_that_differ_in_anything_have_lines_of_their_own():
    lines = DogStatsdLines("A test", 8192)
    now = time.time_ns()
    points = [
        Point("gauge", "a", 1.0, (), 1.0, now),
        Point("gauge", "a", 1.0, ("x:1",), 1.0, now),
        Point("count", "a", 1.0, (), 1.0, now),
        Point("gauge", "b", 1.0, (), 1.0, now),
    ]
    written = [lines.lines(point) for point in points * 2]
    assert [line for (line,), _ in written] == [b"a:1|g", b"a:1|g|#x:1", b"a:1|c", b"b:1|g"] * 2


def test_a_late_gauge_says_its_time_whatever_was_written_before():
    lines = DogStatsdLines("A test", 8192)
    now = time.time_ns()
    late = now - 2 * LATE_NS
    assert lines.lines(Point("gauge", "a", 1.0, (), 1.0, now)) == ([b"a:1|g"], 0)
    stamped = f"a:2|g|T{late // 10**9}".encode()
    assert lines.lines(Point("gauge", "a", 2.0, (), 1.0, late)) == ([stamped], 0)


def test_what_is_sampled_is_left_to_the_dice_each_time():
    lines = DogStatsdLines("A test", 8192)
    now = time.time_ns()
    assert lines.lines(Point("count", "a", 1.0, (), 1.0, now)) == ([b"a:1|c"], 0)
    written = [lines.lines(Point("count", "a", 1.0, (), 0.5, now))[0] for _ in range(400)]
    taken = sum(map(len, written))
    assert all(line == [b"a:1|c|@0.5"] for line in written if line)
    # Ten standard deviations: 400 * 0.5, and the root of 400 * 0.5 * 0.5.
    assert math.isclose(taken, 200, abs_tol=100)


def test_a_later_value_that_makes_its_line_too_long_is_refused():
    lines = DogStatsdLines("A test", 10)
    now = time.time_ns()
    assert lines.lines(Point("count", "abc", 1.0, (), 1.0, now)) == ([b"abc:1|c"], 0)
    assert lines.lines(Point("count", "abc", 12345.0, (), 1.0, now)) == ([], 1)

"""What must hold of any series, and a second way to compute every one of them."""

from itertools import pairwise
from math import inf, isfinite, isnan
from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from telemetry.alerts import Rule
from telemetry.alerts.track import Track

numbers = st.floats(allow_nan=True, allow_infinity=True, width=32) | st.floats(0.1, 4.0)
calm = st.floats(0.9, 1.1)
near = st.floats(0.5, 1.5)
series = st.lists(numbers | calm | calm | calm, max_size=120)
trends = st.builds(
    lambda ratio, noise: [ratio**index * value for index, value in enumerate(noise)],
    st.floats(0.9, 1.1),
    st.lists(st.floats(0.4, 2.1), min_size=20, max_size=100),
)
conditions = st.one_of(
    st.builds(lambda limit: {"above": limit, "clear": limit - 1}, st.floats(0, 3)),
    st.builds(lambda limit: {"below": limit, "clear": limit + 1}, st.floats(0, 3)),
    st.just({"outside": (0.5, 2), "clear": (0.9, 1.5)}),
    st.just({"nonfinite": True}),
    st.just({"drop": 0.5, "clear": 0.3}),
    st.just({"spike": 2.0, "clear": 1.2}),
    st.just({"above": 1.0, "share": 0.5}),
)


def judged(rule, values):
    """At which values a rule was raised or cleared, fed as the handler feeds it."""
    track = Track(rule, lambda: 0.0)
    changes = []
    for index, value in enumerate(values):
        if track.calm_low <= value <= track.calm_high:
            if track.take is not None:
                track.take(value)
                track.room -= 1
                if not track.room:
                    track.settle()
            continue
        change = track.feed(value)
        if change is not None:
            changes.append((change.raised, index))
    return changes


@given(conditions, series, st.integers(1, 3), st.integers(1, 30))
def test_raised_and_cleared_alternate_and_raised_comes_first(condition, values, steps, window):
    steps = 1 if "share" in condition else steps
    rule = Rule("r", "my.loss", for_steps=steps, window=window, **condition)
    changes = [raised for raised, _ in judged(rule, values)]
    assert changes[:1] in ([], [True])
    assert all(first != second for first, second in pairwise(changes))


@given(
    st.sampled_from([{"drop": 0.5, "clear": 0.4}, {"spike": 2.0, "clear": 1.5}]),
    st.lists(numbers | st.floats(0.5, 1.5) | st.sampled_from([0.5, 1.0, 2.0]), max_size=200)
    | trends,
    st.integers(1, 3),
    st.sampled_from([1, 2, 5, 12, 20, 50]),
)
def test_a_level_is_judged_as_if_it_were_computed_anew_each_time(condition, values, steps, window):
    rule = Rule("r", "my.loss", for_steps=steps, window=window, **condition)
    assert judged(rule, values) == list(by_hand(rule, values))


def by_hand(rule, values):
    """The definition, as the documentation has it."""
    kept, streak, raised = [], 0, False
    for index, value in enumerate(values):
        if isnan(value):
            continue
        level = median(kept[-rule.window :]) if len(kept) >= min(10, rule.window) else 0.0
        low, high, over_low, over_high = bounds(rule, level)
        beyond = level > 0 and not low <= value <= high
        if isfinite(value) and not beyond:
            kept.append(value)
        if level <= 0:
            continue
        streak = streak + 1 if beyond else 0
        if raised and over_low <= value <= over_high:
            raised = False
            yield raised, index
        elif not raised and streak >= rule.for_steps:
            raised = True
            yield raised, index


def bounds(rule, level):
    if rule.drop is not None:
        return (1 - rule.drop) * level, inf, (1 - rule.clear) * level, inf
    return -inf, rule.spike * level, -inf, rule.clear * level


@given(
    st.sampled_from(
        [
            {"above": 1.0, "clear": 0.8},
            {"above": 1.0},
            {"below": 1.0, "clear": 1.2},
            {"outside": (0.5, 1.5), "clear": (0.8, 1.2)},
        ]
    ),
    st.lists(numbers | near | st.sampled_from([0.5, 0.8, 1.0, 1.2, 1.5]), max_size=60),
    st.integers(1, 3),
    st.sampled_from([0.0, 3.0]),
)
def test_a_limit_is_judged_as_the_documentation_has_it(condition, values, steps, cooldown):
    """One value a second."""
    rule = Rule("r", "my.loss", for_steps=steps, cooldown=cooldown, **condition)
    seconds = iter(range(len(values)))
    now = [0]
    track = Track(rule, lambda: now[0])
    found = []
    for value in values:
        now[0] = next(seconds)
        if not track.calm_low <= value <= track.calm_high:
            change = track.feed(value)
            found += [] if change is None else [(change.raised, now[0])]
    assert found == list(limit_by_hand(condition, values, steps, cooldown))


def limit_by_hand(condition, values, steps, cooldown):
    low, high = condition.get(
        "outside", (condition.get("below", -inf), condition.get("above", inf))
    )
    over_low, over_high = low, high
    if "outside" in condition:
        over_low, over_high = condition["clear"]
    elif "clear" in condition:
        over_low, over_high = (condition["clear"] if "below" in condition else low,
                               condition["clear"] if "above" in condition else high)  # fmt: skip
    in_a_row, since = 0, None
    raised = False
    for second, value in enumerate(values):
        if isnan(value):
            continue
        in_a_row = in_a_row + 1 if value < low or value > high else 0
        if raised:
            if over_low <= value <= over_high:
                raised = False
                yield False, second
        elif in_a_row >= steps and (since is None or second - since >= cooldown):
            raised, since = True, second
            yield True, second

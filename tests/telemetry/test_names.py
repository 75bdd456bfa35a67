import pytest
from hypothesis import given
from hypothesis import strategies as st

import telemetry
from telemetry.names import check_event, check_pattern, check_prefix, matches, overlaps

SEGMENTS = ("a", "b", "c")
events = st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4).map(tuple)
patterns = st.builds(
    lambda head, rest: (*head, *rest),
    st.lists(st.sampled_from((*SEGMENTS, "*")), max_size=4),
    st.sampled_from(((), ("**",))),
).filter(bool)

SHARED = [
    (
        "training.step",
        TypeError,
        "{} must be a tuple of strings, got 'training.step' (str). Write ('training', 'step').",
    ),
    (
        "training/step",
        TypeError,
        "{} must be a tuple of strings, got 'training/step' (str). Write ('training', 'step').",
    ),
    (
        ["training", "step"],
        TypeError,
        (
            "{} must be a tuple of strings, got ['training', 'step'] (list). "
            "Write ('training', 'step')."
        ),
    ),
    ("", TypeError, "{} must be a tuple of strings, got '' (str)."),
    (None, TypeError, "{} must be a tuple of strings, got None (NoneType)."),
    (7, TypeError, "{} must be a tuple of strings, got 7 (int)."),
    (
        (),
        ValueError,
        (
            "{} must not be empty, got (). "
            "Allowed: a tuple of one or more strings, such as ('training', 'step')."
        ),
    ),
    (
        ("training", 3),
        TypeError,
        "{} ('training', 3) has segment 3 (int). Every segment must be a string.",
    ),
    (
        ("training", ["step"]),
        TypeError,
        "{} ('training', ['step']) has segment ['step'] (list). Every segment must be a string.",
    ),
    (
        ("training", ""),
        ValueError,
        "{} ('training', '') has an empty segment. Every segment needs a name.",
    ),
    (
        ("training.step",),
        ValueError,
        (
            "{} ('training.step',) has a '.' in segment 'training.step'. "
            "Give its parts as segments of their own: ('training', 'step')."
        ),
    ),
]

EVENT_ONLY = [
    (
        ("training", wildcard),
        ValueError,
        (
            f"Event name ('training', '{wildcard}') has a '*' in segment '{wildcard}'. "
            "Wildcards are allowed in the patterns given to attach() only."
        ),
    )
    for wildcard in ("*", "**", "st*p")
]

PATTERN_ONLY = [
    (
        ("training", "st*"),
        ValueError,
        (
            "Event pattern ('training', 'st*') has a '*' inside segment 'st*'. "
            "A wildcard is a whole segment: '*' for any one, a last '**' for any further ones."
        ),
    ),
    (
        ("***",),
        ValueError,
        (
            "Event pattern ('***',) has a '*' inside segment '***'. "
            "A wildcard is a whole segment: '*' for any one, a last '**' for any further ones."
        ),
    ),
    (
        ("**", "step"),
        ValueError,
        (
            "Event pattern ('**', 'step') has '**' before its end. "
            "'**' is allowed as the last segment only; use '*' for any one segment."
        ),
    ),
    (
        ("**", "**"),
        ValueError,
        (
            "Event pattern ('**', '**') has '**' before its end. "
            "'**' is allowed as the last segment only; use '*' for any one segment."
        ),
    ),
]

BAD_EVENTS = [(n, e, text.format("Event name")) for n, e, text in SHARED] + EVENT_ONLY
BAD_PATTERNS = [(n, e, text.format("Event pattern")) for n, e, text in SHARED] + PATTERN_ONLY


def naive_match(pattern, event):
    """Matching by recursion over the two, as one would explain it."""
    if not pattern:
        return not event
    if pattern[0] == "**":
        return True
    return bool(event) and pattern[0] in ("*", event[0]) and naive_match(pattern[1:], event[1:])


def every_event(longest):
    found = [()]
    for _ in range(longest):
        found += [(*e, s) for e in found for s in (*SEGMENTS, "other")]
    return {event for event in found if event}


@pytest.mark.parametrize(("name", "error", "text"), BAD_EVENTS, ids=repr)
@pytest.mark.parametrize(
    "call",
    [
        check_event,
        lambda name: telemetry.execute(name, {}),
        telemetry.enabled,
        telemetry.span,
        telemetry.start_span,
    ],
    ids=["check_event", "execute", "enabled", "span", "start_span"],
)
def test_a_bad_event_name_is_refused_by_every_call_that_takes_one(call, name, error, text):
    with pytest.raises(error) as caught:
        call(name)
    assert str(caught.value) == text
    assert type(caught.value) is error


@pytest.mark.parametrize(("name", "error", "text"), BAD_EVENTS, ids=repr)
def test_a_bad_prefix_is_refused_by_list_handlers(name, error, text):
    if name == ():
        assert telemetry.list_handlers(name) == []
        return
    with pytest.raises(error) as caught:
        telemetry.list_handlers(name)
    assert str(caught.value) == text


@pytest.mark.parametrize(("pattern", "error", "text"), BAD_PATTERNS, ids=repr)
@pytest.mark.parametrize("many", [False, True], ids=["attach", "attach_many"])
def test_a_bad_pattern_is_refused_at_attach_and_nothing_is_attached(
    bus, recorder, many, pattern, error, text
):
    attach = bus.attach_many if many else bus.attach
    with pytest.raises(error) as caught:
        attach("h", [("good",), pattern] if many else pattern, recorder)
    assert str(caught.value) == text
    assert bus.list_handlers() == []


@pytest.mark.parametrize(("pattern", "error", "text"), BAD_PATTERNS, ids=repr)
def test_capture_refuses_a_bad_pattern(pattern, error, text):
    from telemetry.testing import capture

    with pytest.raises(error) as caught, capture(pattern):
        pass
    assert str(caught.value) == text


def test_good_names_are_returned_as_they_are():
    assert check_event(("training", "step")) == ("training", "step")
    assert check_event(("Grüße", "a b", "x-y_z", "/")) == ("Grüße", "a b", "x-y_z", "/")
    assert check_pattern(("*", "step", "**")) == ("*", "step", "**")
    assert check_pattern(telemetry.ALL) == ("**",)
    assert check_prefix(()) == ()
    assert check_prefix(("a",)) == ("a",)


@pytest.mark.parametrize(
    ("pattern", "heard", "unheard"),
    [
        (("a", "b"), [("a", "b")], [("a",), ("a", "b", "c"), ("b", "a"), ("A", "b")]),
        (("a", "*"), [("a", "b"), ("a", "c")], [("a",), ("a", "b", "c"), ("b", "b")]),
        (("*",), [("a",), ("b",)], [("a", "b")]),
        (("*", "b"), [("a", "b"), ("b", "b")], [("b",), ("a", "b", "b")]),
        (("a", "**"), [("a",), ("a", "b"), ("a", "b", "c")], [("b",), ("b", "a")]),
        (("a", "*", "**"), [("a", "b"), ("a", "b", "c")], [("a",), ("b", "a")]),
        (telemetry.ALL, [("a",), ("a", "b"), ("x", "y", "z")], []),
    ],
    ids=repr,
)
def test_what_a_pattern_hears(bus, recorder, pattern, heard, unheard):
    bus.attach("h", pattern, recorder)
    for event in (*heard, *unheard):
        bus.execute(event, {})
    assert recorder.names == heard


@given(patterns, events)
def test_matching_agrees_with_the_naive_definition(pattern, event):
    assert matches(pattern, event) is naive_match(pattern, event)


@given(patterns, st.one_of(st.just(()), events))
def test_a_pattern_overlaps_a_prefix_if_it_matches_some_event_under_it(pattern, prefix):
    longest = max(len(pattern), len(prefix))
    under = {e for e in every_event(longest) if e[: len(prefix)] == prefix}
    assert overlaps(pattern, prefix) is any(naive_match(pattern, e) for e in under)

"""What the handler "webhook" refuses, before anything is opened; nothing secret is shown."""

import math
import sys

import pytest

import handlers
from handlers.webhook_templates import Template, duration_words
from telemetry import MissingExtraError

STEP = ("training", "step")
MARK = "verysecrettoken"
URL = f"https://hooks.slack.com/services/T0/B0/{MARK}"
MALFORMED = (
    "Handler 'webhook': url {shown!r} is malformed. It must begin with https:// or http:// and "
    "name a host, with a port from 1 to 65535 if any, such as "
    "'https://hooks.slack.com/services/...'."
)


@pytest.fixture
def refused(bus):
    """Attach with options that cannot be; the error's text."""

    def refused(kind, **options):
        with pytest.raises(kind) as caught:
            handlers.attach("webhook", registry=bus, **{"url": URL, **options})
        assert bus.list_handlers() == []
        assert MARK not in repr(caught.value)
        assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, TypeError)
        return str(caught.value)

    return refused


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"hooks.slack.com/services/{MARK}", "***"),
        (MARK, "***"),
        ("", "***"),
        (f"https:///services/{MARK}", "***"),
        (f"https://hooks.slack.com:99999/{MARK}", "https://hooks.slack.com:99999/***"),
        (f"https://hooks.slack.com:0/{MARK}", "https://hooks.slack.com:0/***"),
        (f"https://hooks.slack.com:x/{MARK}", "https://hooks.slack.com:x/***"),
        (f"https://[::1/{MARK}", "https://[::1/***"),
        (f"https://user:{MARK}/x@host/y", "https://***"),
    ],
)
def test_a_malformed_url(refused, url, shown):
    assert refused(ValueError, url=url) == MALFORMED.format(shown=shown)


def test_a_url_of_another_type(refused):
    assert refused(TypeError, url=MARK.encode()) == (
        "Handler 'webhook': url must be a string, got bytes. "
        "Write url='https://hooks.slack.com/services/...'."
    )


def test_a_host_that_cannot_be(refused):
    assert refused(ValueError, url=f"http://.../{MARK}") == (
        "Handler 'webhook': http://.../*** cannot be posted to: its url or headers are malformed."
    )


def test_a_scheme_that_is_none_of_http(refused):
    assert refused(ValueError, url=f"nosuch://host/{MARK}") == (
        "Handler 'webhook': url 'nosuch://***' is of no service that apprise knows, or lacks a "
        "part. They are listed at https://appriseit.com/services/."
    )
    assert refused(ValueError, url=f"ntfy://host/{MARK}", style="slack") == (
        "Handler 'webhook': url 'ntfy://host/***' does not fit the style 'slack'. "
        "Write url='https://hooks.slack.com/services/...'."
    )
    assert refused(ValueError, url=MARK, style="apprise").startswith(
        "Handler 'webhook': url '***' does not fit the style 'apprise'."
    )


def test_a_style_that_does_not_exist(refused):
    assert refused(ValueError, style="teams") == (
        "Handler 'webhook': style must be one of ('slack', 'discord', 'json', 'apprise'), or None "
        "for what the URL looks like, got 'teams'."
    )


@pytest.mark.parametrize("option", ["rate_limit", "timeout"])
def test_numbers_that_cannot_be(refused, option):
    assert refused(TypeError, **{option: "fast"}).startswith(
        f"Handler 'webhook': {option} must be a number, got 'fast' (str). Write {option}="
    )
    for number in (0, -1.0, math.nan):
        assert f"{option} must be more than 0" in refused(ValueError, **{option: number})
    assert "must be a number" in refused(TypeError, **{option: True})
    assert "timeout must be more than 0" in refused(ValueError, timeout=math.inf)


def test_headers_that_cannot_be(refused):
    assert "headers must map names to strings, got a list" in refused(TypeError, headers=[MARK])
    assert "header 'X' must be a string, and have one, got a int" in refused(
        TypeError, headers={"X": 5}
    )
    for value in (f"{MARK}\r\nX: y", f"é{MARK}", f" {MARK}"):
        assert refused(ValueError, headers={"Authorization": value}).startswith(
            "Handler 'webhook': header 'Authorization': *** has characters that no header may have."
        )
    for name in ("a b\n", "", "é", "X:"):
        assert refused(ValueError, headers={name: MARK}) == (
            f"Handler 'webhook': header {name!r} has a name that no header may have. Allowed: "
            'letters, digits and !#$%&\'*+-.^_`|~. Write headers={"Authorization": "Bearer ..."}.'
        )
    for name in ("Host", "content-length", "Transfer-Encoding"):
        assert refused(ValueError, headers={name: MARK}) == (
            f"Handler 'webhook': header {name!r} says how a request is sent, which the handler "
            "decides. Leave it out."
        )


def test_options_that_a_style_has_no_use_for(refused):
    assert refused(ValueError, style="json", templates={STEP: "x"}) == (
        "Handler 'webhook': templates have no meaning for the style 'json'. "
        "Leave them out, or choose another style."
    )
    assert "headers have no meaning" in refused(ValueError, url="json://host/x", headers={"A": "b"})


def test_templates_that_cannot_be(refused):
    assert refused(TypeError, templates=["x"]) == (
        "Handler 'webhook': templates must map event names to texts, got ['x'] (list). "
        'Write templates={("training", "epoch"): "Epoch {epoch} done"}.'
    )
    assert "Wildcards are allowed in the patterns" in refused(
        ValueError, templates={("training", "*"): "x"}
    )
    assert "must be a tuple of strings" in refused(TypeError, templates={"training.step": "x"})
    assert refused(TypeError, templates={STEP: 5}) == (
        "Handler 'webhook': the template for ('training', 'step') must be a string with fields, a "
        "function (event, measurements, metadata), or None for no message, got 5 (int)."
    )
    assert "which cannot take the three arguments (event, measurements, metadata)" in refused(
        TypeError, templates={STEP: lambda event: ""}
    )


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{loss", "expected '}' before end of string"),
        ("{loss!r}", "field {loss} must be the name of a measurement"),
        ("{}", "field {} must be the name of a measurement"),
        ("{0}", "field {0} must be the name of a measurement"),
        ("{loss:.2q}", "field {loss:.2q} has a format that fits no number and no text"),
        ("{loss:{width}}", "field {loss:{width}} has a format"),
        ("}", "Single '}' encountered in format string"),
    ],
)
def test_a_template_with_a_mistake(refused, template, problem):
    assert refused(ValueError, templates={STEP: template}).startswith(
        f"Handler 'webhook': the template for ('training', 'step') is {template!r}: {problem}"
    )


def test_a_template_shows_values_and_nothing_behind_them():
    class Hostile:
        secret = MARK

        def __format__(self, spec):
            raise AssertionError

        def __str__(self):
            raise RuntimeError

    def shown(template, **metadata):
        return Template(template).render(STEP, {"loss": 0.5, "n": 3}, metadata)

    assert shown("{x.secret} {x[secret]} {x.__class__}", x=Hostile()) == "? ? ?"
    assert shown("{x} {x:.2f}", x=Hostile()) == "<unprintable Hostile object> " * 1 + (
        "<unprintable Hostile object>"
    )
    assert shown("{loss:>8.2f}|{n:03d}|{x:.2f}", x="text") == "    0.50|003|text"
    assert shown("{a|b|c}", b=0, c=1) == "0"
    assert shown("{losses/total} {event}", **{"losses/total": 1}) == "1 training.step"


def test_durations_in_words():
    ns = 10**9
    assert [duration_words(s * ns) for s in (0, 0.04, 59.94, 59.95, 3599.9, 3600, 90_000)] == [
        "0.0 seconds",
        "0.0 seconds",
        "59.9 seconds",
        "1.0 minutes",
        "60.0 minutes",
        "1.0 hours",
        "25.0 hours",
    ]
    assert [duration_words(odd) for odd in ("x", math.nan, None, 2**70)] == [
        "x",
        "nan",
        "None",
        "1180591620717411303424",
    ]


@pytest.mark.parametrize(("module", "url"), [("requests", URL), ("apprise", "ntfy://host/topic")])
def test_a_missing_package_names_the_extra(bus, monkeypatch, module, url):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as caught:
        handlers.attach("webhook", registry=bus, url=url)
    assert str(caught.value) == (
        f"Handler 'webhook' needs the module {module!r}, which cannot be imported. "
        "Install it with: pip install 'trainbus[webhook]'"
    )
    assert isinstance(caught.value.__cause__, ImportError)

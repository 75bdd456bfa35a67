import logging
import traceback
from urllib.parse import urlsplit

import pytest

from handlers import DeliveryError, Secrets
from handlers.secrets import check_url, parts_of_url, place_of_url, redact_urls

KEY = "p/ss w+rd\\'é"
EXAMPLE = "redis://localhost:6379/0"


@pytest.fixture
def vendor():
    """A vendor's logger, without the filters of other tests."""
    logger = logging.getLogger("test_secrets.vendor")
    logger.setLevel(logging.DEBUG)
    yield logger
    for known in logger.filters:
        logger.removeFilter(known)


def vendor_fails(key):
    raise ValueError(f"{key} refused", {"url": key})


def test_a_secret_is_found_in_every_form_it_takes():
    secrets = Secrets(KEY)
    for shown in (
        KEY,
        "p/ss%20w%2Brd%5C%27%C3%A9",  # in the path of a URL
        "p%2Fss%20w%2Brd%5C%27%C3%A9",  # in a part of a path
        "p%2Fss+w%2Brd%5C%27%C3%A9",  # in a form
        repr(KEY)[1:-1],
    ):
        assert secrets.redact(f"a {shown} b") == "a *** b"
    assert Secrets("p%2Fss%20w").redact("a p/ss w b") == "a *** b"


def test_a_secret_within_another_leaves_no_rest():
    assert Secrets("token", "token-longer").redact("x token-longer y token") == "x *** y ***"


def test_what_is_too_short_or_missing_hides_nothing():
    assert Secrets(None, "", "abc").redact("abc none") == "abc none"


def test_its_repr_shows_nothing():
    assert repr(Secrets("verysecret")) == str(Secrets("verysecret")) == "Secrets(***)"


def test_an_error_says_the_same_without_the_secrets_and_their_origin():
    secrets = Secrets("verysecret")

    def call():
        try:
            vendor_fails("verysecret")
        except ValueError as error:
            raise secrets.error(error, "Handler 'x' cannot send") from None

    with pytest.raises(DeliveryError) as caught:
        call()
    assert str(caught.value) == (
        "Handler 'x' cannot send: ValueError: ('*** refused', {'url': '***'})"
    )
    shown = "".join(traceback.format_exception(caught.value))
    assert "refused" in shown
    assert "vendor_fails" not in shown.replace('vendor_fails("verysecret")', "")


def test_logs_are_redacted_with_arguments_tracebacks_and_stacks(vendor, caplog):
    Secrets("verysecret").hide_in_logs([vendor.name])
    vendor.debug("POST %s of %r", "http://host/verysecret", {"key": "verysecret"})
    try:
        vendor_fails("verysecret")
    except ValueError:
        vendor.exception("failed")
    vendor.warning("stack", stack_info=True)  # of this line, which says verysecret
    assert "POST http://host/*** of {'key': '***'}" in caplog.text
    assert "ValueError: ('*** refused'" in caplog.text
    assert "verysecret" not in caplog.text


def test_a_log_call_with_arguments_that_do_not_fit_shows_none_of_them(vendor, caplog):
    Secrets("verysecret").hide_in_logs([vendor.name])
    vendor.warning("verysecret %s %s", "verysecret")
    assert [record.getMessage() for record in caplog.records] == ["*** %s %s"]


def test_two_sinks_of_one_vendor_hide_both_their_secrets(vendor, caplog):
    for secret in ("firstsecret", "othersecret") * 50:
        Secrets(secret).hide_in_logs([vendor.name])
    vendor.info("firstsecret and othersecret")
    assert [record.getMessage() for record in caplog.records] == ["*** and ***"]
    (known,) = vendor.filters
    assert len(known._secrets._forms) == 2, "the same ones, attached again, are not kept twice"


def test_a_secret_within_that_of_another_sink_leaves_no_rest(vendor, caplog):
    for secret in ("token", "path/of/token"):
        Secrets(secret).hide_in_logs([vendor.name])
    vendor.info("POST /path/of/token")
    assert [record.getMessage() for record in caplog.records] == ["POST /***"]


def test_the_logger_of_a_parent_does_not_hide_for_its_children(vendor, caplog):
    child = logging.getLogger(vendor.name + ".child")
    Secrets("verysecret").hide_in_logs([vendor.name])
    child.info("verysecret")
    assert caplog.messages == ["verysecret"], "logging has changed: names need not be listed"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://user:password@host:1/0", "redis://***@host:1/0"),
        ("redis://:p@ss@host", "redis://***@host"),
        ("no http://user@host/x, no", "no http://***@host/x, no"),
        ("http://host/x?token=abc&y=1#z", "http://host/x?token=***&y=***#z"),
        # Nobody knows where a password ends that was not quoted.
        ("redis://user:pa/ss@host/0", "redis://***"),
        ("redis://user:pa?ss@host/0", "redis://***"),
        ("redis://user:pa#ss@host/0", "redis://***"),
        ("http://host/x?a=b@c", "http://***"),
        ("'http://a:b@h' \"http://c:d@i\"", "'http://***@h' \"http://***@i\""),
        ("no url at all: a@b.c?", "no url at all: a@b.c?"),
    ],
)
def test_a_url_shows_no_sender_and_no_query(text, shown):
    assert redact_urls(text) == shown


def test_what_is_secret_in_a_url_by_itself():
    assert parts_of_url("http://us:pa%2Fss@host/x?a=1&b=two&c") == ["us", "pa%2Fss", "1", "two"]
    assert parts_of_url("http://host") == []


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("https://hooks.slack.com/services/T/B/x?y=z", "https://hooks.slack.com/***"),
        ("http://user:pass@host:80/x", "http://host:80/***"),
        ("http://user:pa/ss@host:80/x", "http://***"),
        ("http://host", "http://host/***"),
        ("host/x", "***"),
        ("", "***"),
        ("://x", "***"),
    ],
)
def test_of_a_url_with_a_secret_path_the_place_is_shown(url, place):
    assert place_of_url(url) == place


@pytest.mark.parametrize(
    "url", ["redis://host", "redis://u:p@host:6379/0", "unix:///run/x.sock?db=1", "redis:///0"]
)
def test_a_url_that_is_right(url):
    split = check_url("r", url, schemes=("redis", "unix"), example=EXAMPLE)
    assert split == urlsplit(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host", "http://host"),
        ("host:6379", "host:6379"),
        ("redis://", "redis://"),
        ("redis://u:verysecret@host:65536", "redis://***@host:65536"),
        ("redis://u:verysecret@host:0", "redis://***@host:0"),
        ("redis://u:verysecret@host:x", "redis://***@host:x"),
        ("redis://u:very/secret@host", "redis://***"),
        ("redis://u:verysecret@[::1", "redis://***@[::1"),
    ],
)
def test_a_url_that_is_wrong_shows_no_secret(url, shown):
    with pytest.raises(ValueError, match="is malformed") as caught:
        check_url("r", url, schemes=("redis", "unix"), example=EXAMPLE)
    assert str(caught.value) == (
        f"Handler 'r': url {shown!r} is malformed. It must begin with redis:// or unix:// and name "
        "a host, with a port from 1 to 65535 if any, such as 'redis://localhost:6379/0'."
    )
    assert caught.value.__context__ is None


def test_a_url_that_is_no_string():
    with pytest.raises(TypeError) as caught:
        check_url("r", b"redis://verysecret", schemes=("redis",), example=EXAMPLE)
    assert str(caught.value) == (
        "Handler 'r': url must be a string, got bytes. Write url='redis://localhost:6379/0'."
    )


def test_http_needs_a_host():
    with pytest.raises(ValueError, match="is malformed"):
        check_url("w", "http:///path", schemes=("http",), example="http://host")

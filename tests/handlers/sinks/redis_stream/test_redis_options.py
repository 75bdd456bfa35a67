"""The options of the handler "redis": what is refused, and with which words."""

import sys

import pytest

import handlers


@pytest.fixture
def attach(bus, url):
    return lambda **options: handlers.attach("redis", registry=bus, **{"url": url, **options})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"url": "http://h:80"},
            ValueError,
            (
                "Handler 'redis': url 'http://h:80' is malformed. It must begin with redis:// or "
                "rediss:// or unix:// and name a host, with a port from 1 to 65535 if any, such as "
                "'redis://127.0.0.1:6379/0'."
            ),
        ),
        (
            {"url": "redis://u:hidden@h:99999"},
            ValueError,
            (
                "Handler 'redis': url 'redis://***@h:99999' is malformed. It must begin with "
                "redis:// or rediss:// or unix:// and name a host, with a port from 1 to 65535 if "
                "any, such as "
                "'redis://127.0.0.1:6379/0'."
            ),
        ),
        (
            {"url": "redis:///0"},
            ValueError,
            (
                "Handler 'redis': url 'redis:///0' is malformed. It must name a host, such as "
                "'redis://127.0.0.1:6379/0'."
            ),
        ),
        (
            {"url": "unix:///"},
            ValueError,
            (
                "Handler 'redis': url 'unix:///' is malformed. It must name a socket: "
                "'unix:///run/redis/redis.sock?db=0'."
            ),
        ),
        (
            {"url": "redis://h/training"},
            ValueError,
            (
                "Handler 'redis': url 'redis://h/training' is malformed. After the host it can "
                "have the number of a database: 'redis://127.0.0.1:6379/0'."
            ),
        ),
        (
            {"url": "redis://h/0?colour=hidden"},
            ValueError,
            (
                "Handler 'redis': url 'redis://h/0?colour=***' has an option that cannot be used. "
                "There is no 'colour'. Allowed after the '?' are the options of redis.Redis."
            ),
        ),
        (
            {"url": "redis://h/0?db=hidden"},
            ValueError,
            (
                "Handler 'redis': url 'redis://h/0?db=***' has an option that cannot be used. "
                "Invalid value for 'db' in connection URL. Allowed after the '?' are the options "
                "of redis.Redis."
            ),
        ),
        (
            {"url": "redis://h/0?protocol=9"},
            ValueError,
            (
                "Handler 'redis': url 'redis://h/0?protocol=***' has an option that cannot be "
                "used. protocol must be either 2 or 3. Allowed after the '?' are the options of "
                "redis.Redis."
            ),
        ),
        (
            {"url": "redis://h/0?socket_timeout=60"},
            ValueError,
            (
                "Handler 'redis': url 'redis://h/0?socket_timeout=***' has the option "
                "'socket_timeout'. Leave it out, and give the handler's option timeout=..."
            ),
        ),
        (
            {"url": "rediss://h/0?ssl_ca_certs=/nowhere/ca.pem"},
            ValueError,
            (
                "Handler 'redis': url 'rediss://h/0?ssl_ca_certs=***' names a file as ssl_ca_certs "
                "that is not there. Give one that is."
            ),
        ),
        (
            {"url": 6379},
            TypeError,
            "Handler 'redis': url must be a string, got int. Write url='redis://127.0.0.1:6379/0'.",
        ),
        (
            {"stream": ""},
            ValueError,
            "Handler 'redis': stream must name a stream, got ''. Write stream='trainbus'.",
        ),
        (
            {"stream": b"x"},
            TypeError,
            "Handler 'redis': stream must be a string, got b'x' (bytes). Write stream='trainbus'.",
        ),
        ({"max_length": 0}, ValueError, "max_length must be 1 or more, got 0."),
        (
            {"timeout": 0},
            ValueError,
            "Handler 'redis': timeout must be a finite number of seconds above 0, got 0.",
        ),
        (
            {"timeout": "3"},
            TypeError,
            "Handler 'redis': timeout must be a number of seconds, got '3' (str).",
        ),
    ],
)
def test_a_bad_option_is_refused(attach, options, error, message):
    with pytest.raises(error) as caught:
        attach(**options)
    assert str(caught.value) == message


def test_a_missing_package_is_named(attach, monkeypatch):
    from telemetry import MissingExtraError

    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingExtraError) as caught:
        attach()
    assert str(caught.value) == (
        "Handler 'redis' needs the module 'redis', which cannot be imported. "
        "Install it with: pip install 'trainbus[redis]'"
    )
    assert isinstance(caught.value.__cause__, ImportError)


def test_where_to_look_shows_no_password(bus):
    with handlers.attach(
        "redis", registry=bus, url="redis://me:hidden-word@127.0.0.1:1/0", stream="runs"
    ) as redis:
        assert redis.handler.where_to_look() == (
            "redis://***@127.0.0.1:1/0, with redis-cli: XREVRANGE runs + - COUNT 1"
        )

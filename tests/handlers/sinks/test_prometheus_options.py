"""What the Prometheus sink refuses before it opens anything."""

import pytest

import handlers
from telemetry.metrics import last_value

MALFORMED = (
    "pushgateway 'ftp://***@host' is malformed. It must begin with http:// or https:// and name a "
    "host, with a port from 1 to 65535 if any, such as 'http://127.0.0.1:9091'."
)
JOB = (
    "grouping_key has the label 'job'. Allowed: letters, digits and _, no digit first, not 'job' "
    "and no '__' at the beginning."
)
NO_STRING = (
    "grouping_key must map labels to strings, got {'run': 3} (dict). Write "
    "grouping_key={'run': 'a'}."
)
ONE_LABEL = (
    "the tags ['x.y', 'x_y'] of a.b.c would be the labels ['x_y', 'x_y'], which must differ. "
    "Prometheus allows letters, digits and _ in their names."
)
NAMESPACE = "namespace must be letters, digits and _, and begin with no digit, got 'a-b'."
INTERVAL = "push_interval must be a finite number of seconds above 0, got inf."
NO_PORT = "port must be an integer, got '9464' (str). Allowed: 0 (any that is free) to 65535."
NO_NUMBER = "push_interval must be a number of seconds, got '1' (str)."


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"port": 70000}, ValueError, "port must be 0 (any that is free) to 65535, got 70000."),
        ({"port": -1}, ValueError, "port must be 0 (any that is free) to 65535, got -1."),
        ({"port": "9464"}, TypeError, NO_PORT),
        ({"addr": ""}, ValueError, "addr must not be empty."),
        ({"job": ""}, ValueError, "job must not be empty."),
        ({"job": 3}, TypeError, "job must be a string, got 3 (int)."),
        ({"namespace": "a-b"}, ValueError, NAMESPACE),
        ({"max_series": 0}, ValueError, "max_series must be 1 or more, got 0."),
        ({"push_interval": float("inf")}, ValueError, INTERVAL),
        ({"push_interval": "1"}, TypeError, NO_NUMBER),
        ({"delete_on_close": 1}, TypeError, "delete_on_close must be True or False, got 1 (int)."),
        ({"pushgateway": "ftp://user:hunter22@host"}, ValueError, MALFORMED),
        ({"grouping_key": {"run": 3}}, TypeError, NO_STRING),
        ({"grouping_key": {"job": "a"}}, ValueError, JOB),
        ({"metrics": [last_value("a.b.c", tags=["x.y", "x_y"])]}, ValueError, ONE_LABEL),
    ],
)
def test_a_mistake_is_found_when_it_is_attached(bus, options, error, text):
    with pytest.raises(error) as raised:
        handlers.attach("prometheus", registry=bus, **options)
    assert str(raised.value) == f"Handler 'prometheus': {text}"
    assert bus.list_handlers() == []


def test_a_rank_beyond_the_last_port_says_so(bus, monkeypatch):
    monkeypatch.setenv("RANK", "40")
    with pytest.raises(ValueError, match="got 65500 \\+ rank 40"):
        handlers.attach("prometheus", registry=bus, port=65500, ranks="all")

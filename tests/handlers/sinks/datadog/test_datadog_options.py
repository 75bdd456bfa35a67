"""Options and variables: what is refused, and which of them wins."""

import logging

import pytest

from handlers.datadog import Disabled

STEP = ("training", "step")
KEY = "0123456789abcdef0123456789abcdef"
DEFAULT = "Allowed: 1 to 65535, usually 8125."


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 0}, f"port is 0. {DEFAULT}"),
        ({"port": 65536}, f"port is 65536. {DEFAULT}"),
        ({"port": "8125"}, "port must be an integer, got '8125' (str). Write port=8125."),
        (
            {"host": "http://agent"},
            (
                "host is 'http://agent'. Allowed: a name or an address, such as 'localhost'; "
                "the port is an option of its own."
            ),
        ),
        (
            {"socket_path": "/run/a", "port": 8125},
            "has both socket_path='/run/a' and a host or port. Give one of them.",
        ),
        (
            {"socket_path": "/" + "x" * 200},
            (
                f"socket_path is {'/' + 'x' * 200!r}. Allowed: the path of a Unix socket, of at "
                "most 103 bytes, such as '/var/run/datadog/dsd.socket'."
            ),
        ),
        ({"transport": "udp"}, "transport is 'udp'. Allowed: 'agent' or 'api'."),
        ({"dialect": "graphite"}, "dialect is 'graphite'. Allowed: 'datadog' or 'statsd'."),
        (
            {"dialect": "statsd", "api_key": KEY},
            (
                "dialect='statsd' speaks of an agent, but transport is 'api'. Give "
                "transport='agent', or leave it out."
            ),
        ),
        (
            {"transport": "api"},
            (
                "has no API key for https://api.datadoghq.com. Set DATADOG_API_KEY or DD_API_KEY, "
                "or give api_key=...; an agent needs none: transport='agent'."
            ),
        ),
        (
            {"api_key": f"{KEY} and more"},
            (
                "the key in the option api_key has characters that no key has. Copy it again from "
                "Organization Settings, without quotation marks."
            ),
        ),
        (
            {"api_key": 7},
            (
                "api_key must be a string, got int. Better than an option is the variable "
                "DATADOG_API_KEY."
            ),
        ),
        (
            {"api_key": KEY, "api_host": "api.datadoghq.eu"},
            (
                "api_host 'api.datadoghq.eu' is malformed. It must begin with https:// or http:// "
                "and name a host, with a port from 1 to 65535 if any, such as "
                "'https://api.datadoghq.com'."
            ),
        ),
        (
            {"namespace": "my app"},
            (
                "namespace is 'my app'. Allowed: letters, digits, underscores and periods, a "
                "letter first, such as 'my_app'."
            ),
        ),
        (
            {"tags": "env:prod"},
            "tags must be a list of strings, got 'env:prod' (str). Write tags=['env:prod'].",
        ),
        (
            {"tags": {"env": "prod"}},
            (
                "tags must be a list of strings, got {'env': 'prod'} (dict). "
                "Write tags=['env:prod']."
            ),
        ),
        (
            {"tags": 5},
            "tags must be a list of strings, got 5 (int). Write tags=['env:production'].",
        ),
        *(
            (
                {"host": host},
                (
                    f"host is {shown!r}. Allowed: a name or an address, such as 'localhost'; "
                    "the port is an option of its own."
                ),
            )
            for host, shown in (
                ("localhost:8125", "localhost:8125"),
                ("my..host", "my..host"),
                ("h" * 64, "h" * 64),
                ("me:password@agent", "***"),
            )
        ),
        (
            {"api_key": KEY, "api_host": "https://host/x?api_key=0123456789"},
            (
                "api_host is 'https://host/x?api_key=***'. Allowed: a URL without a query, such as "
                "'https://api.datadoghq.com', to which the paths of the API are added."
            ),
        ),
        (
            {"transport": "api", "api_host": "https://me:password@proxy.local/dd"},
            (
                "has no API key for https://***@proxy.local/dd. Set DATADOG_API_KEY or DD_API_KEY, "
                "or give api_key=...; an agent needs none: transport='agent'."
            ),
        ),
        ({"tags": [7]}, "tags has 7. Allowed: 'key:value' or 'word', a letter first."),
        ({"sample_rate": 0}, "sample_rate is 0. Allowed: more than 0, at most 1."),
        (
            {"sample_rate": True},
            "sample_rate must be a number, got True (bool). Allowed: more than 0, at most 1.",
        ),
        ({"max_tag_values": 0}, "max_tag_values is 0. Allowed: 1 or more."),
        (
            {"max_tag_values": "9"},
            "max_tag_values must be an integer, got '9' (str). Allowed: 1 or more.",
        ),
        (
            {"enabled": "no"},
            "enabled must be True, False or None (as DATADOG_ENABLED says), got 'no' (str).",
        ),
        ({"host": 7}, "host must be a string, got 7 (int)."),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_allowed(bus, attach, options, message):
    with pytest.raises((TypeError, ValueError)) as refused:
        attach(**options)
    separator = " " if message.startswith("has ") else ": "
    assert str(refused.value) == f"Handler 'datadog'{separator}{message}"
    assert KEY not in str(refused.value)
    assert bus.list_handlers() == []


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("DD_DOGSTATSD_PORT", "eighty", f"DD_DOGSTATSD_PORT is 'eighty'. {DEFAULT}"),
        (
            "DD_DOGSTATSD_URL",
            "tcp://localhost:1",
            (
                "DD_DOGSTATSD_URL is 'tcp://localhost:1'. Allowed: 'udp://localhost:8125' or "
                "'unix:///var/run/datadog/dsd.socket'."
            ),
        ),
        (
            "DD_DOGSTATSD_URL",
            "udp://my..host:1",
            (
                "DD_DOGSTATSD_URL is 'udp://my..host:1'. Allowed: 'udp://localhost:8125' or "
                "'unix:///var/run/datadog/dsd.socket'."
            ),
        ),
        (
            "DD_AGENT_HOST",
            "http://me:password@agent",
            (
                "DD_AGENT_HOST is '***'. Allowed: a name or an address, such as 'localhost'; "
                "the port is an option of its own."
            ),
        ),
        (
            "DD_SITE",
            "https://me:password@datadoghq.eu",
            (
                "DD_SITE is '***'. Allowed: the domain of your site, such as 'datadoghq.com' or "
                "'datadoghq.eu'."
            ),
        ),
        ("DATADOG_ENABLED", "maybe", "DATADOG_ENABLED is 'maybe'. Allowed: 'true' or 'false'."),
        (
            "DD_SITE",
            "https://datadoghq.eu",
            (
                "DD_SITE is 'https://datadoghq.eu'. Allowed: the domain of your site, such as "
                "'datadoghq.com' or 'datadoghq.eu'."
            ),
        ),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(attach, monkeypatch, variable, value, message):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=r".*") as refused:
        attach()
    assert str(refused.value) == f"Handler 'datadog': {message}"


def test_definitions_and_patterns_are_checked_when_it_is_attached(attach):
    with pytest.raises(TypeError, match="which is no definition"):
        attach(metrics=["training.step.loss"])
    with pytest.raises(ValueError, match=r"a '\*' inside segment"):
        attach(dd_events=[("a*",)])


@pytest.mark.parametrize("url", ["udp", "unix"])
def test_the_agent_is_found_by_dd_dogstatsd_url(bus, attach, agent, unix_agent, monkeypatch, url):
    address = {"udp": f"udp://127.0.0.1:{agent.address['port']}",
               "unix": f"unix://{unix_agent.address['socket_path']}"}[url]  # fmt: skip
    monkeypatch.setenv("DD_DOGSTATSD_URL", address)
    monkeypatch.setenv("DD_AGENT_HOST", "nowhere.invalid")
    handler = attach()
    bus.execute(STEP, {"loss": 1}, {})
    assert handler.flush()

    assert len((agent if url == "udp" else unix_agent).read()) == 2


def test_the_agent_is_found_by_host_and_port_and_an_option_wins(bus, attach, agent, monkeypatch):
    monkeypatch.setenv("DD_AGENT_HOST", "127.0.0.1")
    monkeypatch.setenv("DD_DOGSTATSD_PORT", str(agent.address["port"]))
    with attach():
        bus.execute(STEP, {}, {})
    monkeypatch.setenv("DD_AGENT_HOST", "nowhere.invalid")
    with attach(host="127.0.0.1"):
        bus.execute(STEP, {}, {})
    monkeypatch.setenv("DD_DOGSTATSD_SOCKET", "/nowhere/at/all")
    with attach(**agent.address):
        bus.execute(STEP, {}, {})

    assert [line.name for line in agent.read()] == ["training.step"] * 3


def test_the_agent_is_found_by_its_socket(bus, attach, unix_agent, monkeypatch):
    monkeypatch.setenv("DD_DOGSTATSD_SOCKET", unix_agent.address["socket_path"])
    with attach():
        bus.execute(STEP, {}, {})

    assert [line.name for line in unix_agent.read()] == ["training.step"]


def test_tags_of_variables_are_there_once_and_an_option_wins(bus, attach, agent, monkeypatch):
    for name, value in {
        "DD_ENV": "staging", "DD_SERVICE": "Trainer", "DD_VERSION": "1.2", "DD_ENTITY_ID": "pod-7",
        "DD_TAGS": "team:a,service:other, owner:me", "DATADOG_TAGS": "region:eu,version:9",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    with attach(tags=["env:production", "team:x", "team:y"], **agent.address):
        bus.execute(STEP, {}, {})

    (line,) = agent.read()

    assert line.tags == {
        "env:production",
        "team:x",
        "team:y",
        "region:eu",
        "version:9",
        "service:trainer",
        "dd.internal.entity_id:pod-7",
        "owner:me",
    }


@pytest.mark.parametrize(
    ("variables", "options", "why"),
    [
        ({"DATADOG_ENABLED": "false"}, {}, "DATADOG_ENABLED is 'false'"),
        ({"DATADOG_ENABLED": "true"}, {"enabled": False}, "enabled is False"),
        ({"DD_DOGSTATSD_DISABLE": "true"}, {"enabled": True}, "DD_DOGSTATSD_DISABLE is set"),
        ({"DATADOG_ENABLED": "0"}, {"transport": "api"}, "DATADOG_ENABLED is '0'"),
    ],
)
def test_a_handler_that_is_switched_off_is_attached_and_sends_nothing(
    bus, attach, agent, monkeypatch, caplog, variables, options, why
):
    caplog.set_level(logging.INFO, logger="telemetry")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    address = {} if "transport" in options else agent.address
    handler = attach(**address, **options)
    bus.execute(STEP, {"loss": 1}, {})
    handler.flush()

    assert isinstance(handler.handler, Disabled)
    assert agent.read() == []
    assert caplog.messages.count(f"Handler 'datadog' sends nothing: {why}.") == 1


def test_an_option_switches_it_on_against_the_variable(bus, attach, agent, monkeypatch):
    monkeypatch.setenv("DATADOG_ENABLED", "false")
    with attach(enabled=True, **agent.address):
        bus.execute(STEP, {}, {})

    assert len(agent.read()) == 1


def test_a_key_alone_means_the_api_and_an_address_beside_it_the_agent(attach, agent, monkeypatch):
    from handlers.datadog_settings import settings_of

    def transport(**options):
        settings = settings_of("datadog", options)
        assert KEY not in repr(settings)
        return settings.transport

    assert transport() == "agent"
    assert transport(api_key=KEY) == "api"
    assert transport(api_key=KEY, host="localhost") == "agent"
    assert transport(api_key=KEY, transport="agent") == "agent"
    monkeypatch.setenv("DD_API_KEY", KEY)  # that of the Agent
    assert transport() == "agent"
    assert transport(transport="api") == "api"
    monkeypatch.setenv("DATADOG_API_KEY", KEY)
    assert transport() == "api"
    assert transport(port=8125) == "agent"
    assert transport(dialect="statsd") == "agent"
    for variable in ("DD_AGENT_HOST", "DD_DOGSTATSD_PORT", "DD_DOGSTATSD_SOCKET"):
        with monkeypatch.context() as agents:
            agents.setenv(variable, "8125")
            assert transport() == "agent"
            assert transport(api_key=KEY) == "api"


def test_a_password_in_the_url_is_not_shown_and_is_hidden_where_it_stands():
    from handlers.datadog_settings import settings_of

    url = "https://me:hunter2222@proxy.local/dd"
    settings = settings_of("datadog", {"api_key": KEY, "api_host": url})
    assert "hunter2222" not in repr(settings)
    assert settings.secrets.redact("it is hunter2222") == "it is ***"


@pytest.mark.parametrize("host", ["localhost", "my_agent.local.", "10.0.0.1", "::1", "fe80::1%e"])
def test_names_and_addresses_are_hosts(host):
    from handlers.datadog_settings import settings_of

    assert settings_of("datadog", {"host": host}).address.host == host


def test_keys_and_the_site_come_from_variables_in_their_order(monkeypatch):
    from handlers.datadog_settings import settings_of

    def found(**options):
        settings = settings_of("datadog", {"transport": "api", **options})
        return settings.headers["DD-API-KEY"], settings.key_from, settings.api_url

    monkeypatch.setenv("DD_API_KEY", "dd-key")
    assert found() == ("dd-key", "the variable DD_API_KEY", "https://api.datadoghq.com")
    monkeypatch.setenv("DATADOG_API_KEY", "datadog-key")
    monkeypatch.setenv("DD_SITE", "datadoghq.eu")
    assert found() == ("datadog-key", "the variable DATADOG_API_KEY", "https://api.datadoghq.eu")
    assert found(api_key="own", api_host="http://127.0.0.1:1") == (
        "own",
        "the option api_key",
        "http://127.0.0.1:1",
    )


def test_without_the_package_the_error_says_how_to_install_it(attach, monkeypatch):
    import sys

    import telemetry

    monkeypatch.setitem(sys.modules, "datadog.dogstatsd", None)
    with pytest.raises(telemetry.MissingExtraError) as missing:
        attach()
    assert "pip install 'trainbus[datadog]'" in str(missing.value)
    assert isinstance(missing.value.__cause__, ImportError)
    attach(id="statsd", dialect="statsd")  # which needs no package
